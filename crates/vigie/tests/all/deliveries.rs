//! Relances leave the running program: signed and once per id to a receiver, by claim to an agent, and what the agent says is an
//! event; who is told what by which key.

use crate::support::{DEADLINE, Launch, Server, Starting, now, run, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use vigie_delivery::signature::{Secret, verify};
use vigie_event::DAY_MS;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const POLICIES: &str = r#"
[calendar]
quiet-hours = "00:00-00:00"
[[policy]]
id = "silent"
owner = "tests"
goal = "Notice silence."
score = "attrition"
threshold = 0.7
rearm-below = 0.5
cooldown-days = 30
"#;

/// A receiver that takes what it is sent: heads and bodies.
pub(crate) fn receiver() -> (u16, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (send, arrived) = channel();
    drop(std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some(request) = read(&stream) else { continue };
            let _ = (&stream).write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
            if send.send(request).is_err() {
                return;
            }
        }
    }));
    (port, arrived)
}

fn read(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut body = vec![0; header(&head, "content-length").parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value.trim())
}

fn start(dir: &Path, port: u16) -> Server {
    let path = |name: &str| dir.join(name).display().to_string();
    std::fs::write(path("policies.toml"), POLICIES).unwrap();
    std::fs::write(path("secret"), format!("{SECRET}\n")).unwrap();
    let destinations = format!(
        "[[destination]]\nname = \"crm\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/hooks\"\n\
         secrets = [\"file:{}\", \"env:OTHER_SECRET\"]\nallow-http = true\nallow-ports = [{port}]\n\
         allow-private = [\"127.0.0.1\"]\n",
        path("secret")
    );
    std::fs::write(path("destinations.toml"), destinations).unwrap();
    let set = |name: &str, file: &str| ["--set".to_owned(), format!("{name}={}", path(file))];
    let launch = Launch {
        args: [
            set("relance.policies", "policies.toml"),
            set("delivery.destinations", "destinations.toml"),
        ]
        .concat(),
        variables: vec![("OTHER_SECRET", SECRET.replace("Mf", "Aa"))],
        ..Launch::default()
    };
    Starting::launch(&dir.join("data"), &launch).up()
}

/// A visitor of thirty days running who has not come for forty.
fn gone(customer: &str) -> Vec<Value> {
    let last = now().plus_ms(-40 * DAY_MS);
    let visit = |day: i64| {
        let at = last.plus_ms(-day * DAY_MS).to_string();
        json!({"id": format!("{customer}-{day}"), "user_id": customer, "signal": "page.view", "timestamp": at})
    };
    (0..30).map(visit).collect()
}

#[test]
fn relances_are_delivered_claimed_and_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (port, arrived) = receiver();
    let server = start(dir.path(), port);
    for customer in ["ann", "bea", "cleo"] {
        server.post(&gone(customer));
    }
    let before = server.settled();
    let secrets = [Secret::parse(SECRET).unwrap()];
    let mut delivered = BTreeSet::new();
    while delivered.len() < 3 {
        let (head, body) = arrived.recv_timeout(DEADLINE).expect("a delivery");
        let of = |name| header(&head, name);
        let (id, timestamp, signature) = (of("webhook-id"), of("webhook-timestamp"), of("webhook-signature"));
        verify(&secrets, id, timestamp, signature, &body, now()).unwrap();
        assert_eq!(signature.split(' ').count(), 2, "one signature for each secret");
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            told["data"],
            server.get_json(&format!("/v1/relances/{id}")),
            "as the API tells it"
        );
        assert!(delivered.insert(id.to_owned()), "{id} came twice");
    }

    let claim = |key: &str| {
        let body = json!({"max": 2, "agent": "ada"}).to_string();
        server.client.post("/v1/relances/claim", key, &body).unwrap()
    };
    assert_eq!(claim(&server.keys.write).status, 403);
    let claimed = claim(&server.keys.read).json();
    let relances = claimed["relances"].as_array().unwrap();
    assert_eq!(relances.len(), 2, "{claimed}");
    let id = relances[0]["relance"]["id"].as_str().unwrap();
    assert!(delivered.contains(id));
    let outcome = json!({"outcome": "contacted", "lease": relances[0]["lease"], "channel": "phone"}).to_string();
    for _ in 0..2 {
        let answer = server
            .client
            .post(&format!("/v1/relances/{id}/outcome"), &server.keys.read, &outcome)
            .unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let after = server.settled();
    assert_eq!(
        (after.applied, after.duplicate),
        (before.applied + 3, before.duplicate + 1),
        "two claims and one outcome: {after:?}"
    );
    assert_eq!(claim(&server.keys.read).json()["relances"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/relances.csv").lines().count(), 1, "all are somebody's");

    let list = [
        "deliveries",
        "list",
        "--url",
        &server.url,
        "--key",
        &server.keys.admin,
        "-o",
        "json",
    ];
    until("three are noted as delivered", || {
        let listed: Value = serde_json::from_str(&run(&list).stdout).unwrap();
        let crm = &listed["deliveries"][0];
        (crm["state"] == "ok" && crm["counts"]["delivered"] == 3).then_some(())
    });
    let again = [
        "deliveries",
        "redeliver",
        "crm",
        "--id",
        id,
        "--url",
        &server.url,
        "--key",
        &server.keys.admin,
    ];
    assert_eq!(run(&again).code, Some(0));
    let (head, _) = arrived.recv_timeout(DEADLINE).expect("the delivery that was asked for");
    assert_eq!(header(&head, "webhook-id"), id);
    for line in [
        "vigie_deliveries_total{destination=\"crm\",outcome=\"delivered\"} 4",
        "vigie_delivery_parked{destination=\"crm\"} 0",
        "vigie_delivery_well{destination=\"crm\"} 1",
    ] {
        until(line, || {
            let metrics = server.client.get("/metrics", "").unwrap().body;
            metrics.lines().any(|found| found == line).then_some(())
        });
    }

    // What was delivered and leased is remembered over a crash.
    let Server { mut process, .. } = server;
    process.kill();
    let server = start(dir.path(), port);
    let lane = until("the lane is there again", || {
        let answer = server.client.get("/v1/deliveries", &server.keys.admin).unwrap().json();
        Some(answer["deliveries"][0].clone()).filter(|lane| lane["read"] == 3)
    });
    assert_eq!((&lane["open"], &lane["parked"]), (&json!(0), &json!(0)), "{lane}");
    let body = json!({"max": 9}).to_string();
    let claimed = server
        .client
        .post("/v1/relances/claim", &server.keys.read, &body)
        .unwrap()
        .json();
    assert_eq!(claimed, json!({"relances": []}));
}
