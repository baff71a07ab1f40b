//! What an operator decides about people, end to end: quarantine, unlink, and who is not listened to.

use crate::support::{Server, run, until};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

const CONFIG: &str = "
[[webhooks]]
name = \"mail\"
workspace = \"default\"
provider = \"postmark\"
secrets = [\"vigie:a-long-password\"]
";

fn ask(server: &Server, route: &str, asked: &Value) -> (u16, Value) {
    let path = format!("/v1/privacy/{route}");
    let answer = server
        .client
        .post(&path, &server.keys.admin, &asked.to_string())
        .unwrap();
    (answer.status, answer.json())
}

#[test]
fn a_doubtful_unsubscription_is_shown_and_decided() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vigie.toml");
    std::fs::write(&file, CONFIG).unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", file.to_str().unwrap()]);
    let report = |body: Value| {
        let answer = ureq::post(format!("{}/v1/webhooks/mail", server.url))
            .header("Authorization", "Basic dmlnaWU6YS1sb25nLXBhc3N3b3Jk")
            .header("Content-Type", "application/json")
            .send(body.to_string());
        assert_eq!(answer.unwrap().status().as_u16(), 200);
    };
    // A scanner follows every link of a mail, the one that unsubscribes among them; bob unsubscribes himself.
    let scanner = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    for (person, agent) in [("ann", Some(scanner)), ("bob", None)] {
        report(
            json!({"RecordType": "SubscriptionChange", "SuppressSending": true, "MessageID": format!("m-{person}"),
            "Recipient": format!("{person}@example.com"), "ChangedAt": "2026-11-05T16:33:54Z", "Metadata": {"user_id": person},
            "UserAgent": agent}),
        );
    }
    let books = server.settled();
    assert_eq!((books.applied, books.suppressed), (1, 1), "{books:?}");
    let ann = json!({"user_id": "ann"});
    let (status, shown) = ask(&server, "quarantine", &ann);
    assert_eq!(status, 200, "{shown:#}");
    assert_eq!(
        (&shown["waiting"][0]["signal"], &shown["waiting"][0]["evidence"]),
        (&json!("email.unsubscribe"), &json!("machine_agent"))
    );
    let (_, proof) = ask(&server, "prove", &ann);
    assert_eq!(
        (
            &proof["now"]["marketing"]["state"],
            proof["waiting"].as_array().unwrap().len()
        ),
        (&json!("unknown"), 1)
    );
    let (_, proof) = ask(&server, "prove", &json!({"user_id": "bob"}));
    assert_eq!(
        (
            &proof["now"]["marketing"]["state"],
            proof["waiting"].as_array().unwrap().len()
        ),
        (&json!("refused"), 0)
    );

    let decided = run(&[
        "privacy",
        "quarantine",
        "ann",
        "--decide",
        "dismiss",
        "--url",
        &server.url,
        "--key",
        &server.keys.admin,
        "--output",
        "json",
    ]);
    assert_eq!(decided.code, Some(0), "{decided:?}");
    until("nothing waits any more", || {
        let (_, shown) = ask(&server, "quarantine", &ann);
        shown["waiting"].as_array().unwrap().is_empty().then_some(())
    });
    let (_, proof) = ask(&server, "prove", &ann);
    assert_eq!(proof["now"]["marketing"]["state"], "unknown", "{proof:#}");
    // Confirmed is said.
    let (status, told) = ask(&server, "quarantine", &json!({"user_id": "ann", "decision": "confirm"}));
    assert_eq!((status, &told["decision"]), (200, &json!("confirm")), "{told:#}");
    until("marketing is refused", || {
        let (_, proof) = ask(&server, "prove", &ann);
        (proof["now"]["marketing"]["state"] == "refused").then_some(())
    });
}

#[test]
fn a_link_is_withdrawn_and_both_stand_for_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    server.post(&[
        json!({"id": "1", "anonymous_id": "tablet", "signal": "page.view"}),
        json!({"id": "2", "user_id": "cleo", "signal": "purchase", "money": {"amount": 40, "currency": "EUR"}}),
        json!({"id": "3", "user_id": "cleo", "anonymous_id": "tablet", "signal": "identity.identify"}),
    ]);
    let _books = server.settled();
    let identities = |count: usize| {
        until("cleo's identities", || {
            let customer = server.get_json("/v1/customers/cleo");
            let identities = customer["identities"].as_array().unwrap().clone();
            (identities.len() == count).then_some(customer)
        })
    };
    let _together = identities(2);
    let (status, told) = ask(
        &server,
        "unlink",
        &json!({"anonymous_id": "tablet", "source": "shared tablet"}),
    );
    assert_eq!((status, &told["leaves"]), (200, &json!("cleo")), "{told:#}");
    let alone = identities(1);
    assert_eq!(alone["identities"], json!(["cleo"]), "{alone:#}");
    let tablet = until("the tablet stands for itself", || {
        let answer = server
            .client
            .get("/v1/customers/anonymous:tablet", &server.keys.read)
            .unwrap();
        (answer.status == 200 && answer.json()["customer"] != "cleo").then(|| answer.json())
    });
    assert_eq!(tablet["identities"], json!(["anonymous:tablet"]), "{tablet:#}");
    let (status, refused) = ask(&server, "unlink", &json!({"anonymous_id": "tablet"}));
    assert_eq!((status, &refused["code"]), (409, &json!("not_linked")), "{refused:#}");
    // What the pages repeat renews nothing.
    server.post(&[json!({"id": "4", "user_id": "cleo", "anonymous_id": "tablet", "signal": "identity.identify"})]);
    let _books = server.settled();
    assert_eq!(identities(1)["identities"], json!(["cleo"]));
}

/// One request from a local address of one's own choice: its status and `Retry-After`.
async fn request(from: Ipv4Addr, to: SocketAddr, key: &str) -> (u16, Option<u64>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0)).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    let head =
        format!("GET /inspect HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _bytes = stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let lines = answer.lines().map(str::to_ascii_lowercase);
    let after = lines
        .filter_map(|line| line.strip_prefix("retry-after: ").map(|value| value.parse().unwrap()))
        .next();
    (status, after)
}

#[test]
fn twenty_wrong_keys_lock_an_address_out_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let to: SocketAddr = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (here, there) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
        for nth in 0..20 {
            assert_eq!(request(here, to, "va_wrong").await, (401, None), "wrong key {nth}");
        }
        for key in ["va_wrong", &server.keys.admin] {
            let (status, after) = request(here, to, key).await;
            assert_eq!(status, 429, "{key}");
            assert!(after.is_some_and(|seconds| (1..=61).contains(&seconds)), "{after:?}");
        }
        assert_eq!(
            request(there, to, &server.keys.admin).await.0,
            200,
            "nobody else is locked out"
        );
    });
    let metrics = server.get("/metrics");
    assert!(
        metrics.contains("vigie_ingest_rejected_total{code=\"wrong_keys\"} 2"),
        "{metrics}"
    );
}

/// Bytes of memory that a process has to itself now.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A client that sends requests without end and reads no answer is not read on: what it can have taken is bounded by
/// the sockets, and the server's memory does not grow with it.
#[test]
fn row_24_pipelined_requests_without_end_take_no_memory() {
    const BOUND: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let address = server.url.strip_prefix("http://").unwrap();
    // What a request asks for must not need memory itself.
    let one = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let many = one.repeat(1_000);
    let before = memory(server.process.id());
    let mut sent = 0u64;
    for _ in 0..4 {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .set_write_timeout(Some(std::time::Duration::from_secs(2)))
            .unwrap();
        let mut most = before;
        while let Ok(taken) = std::io::Write::write(&mut stream, many.as_bytes()) {
            sent += taken as u64;
            most = most.max(memory(server.process.id()));
            assert!(sent < 1 << 30, "a gibibyte was taken, and no answer was read");
        }
        assert!(
            most < before + BOUND,
            "{before} bytes before, {most} after {sent} were sent"
        );
    }
    println!(
        "{sent} bytes were sent by four clients that read nothing; memory was {before} and is {}",
        memory(server.process.id())
    );
    assert_eq!(server.client.get("/healthz", "").unwrap().status, 200);
}
