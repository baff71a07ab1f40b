//! The base as a whole, told by the running program: changes of bands to a receiver that subscribes to them, in order and once
//! per id, the same again after a rebuild of the past; customers by stage, tier and value as metrics; companies by their
//! contacts over the API and in SQL.

use crate::deliveries::{header, receiver};
use crate::support::{DEADLINE, Launch, Server, Starting, now, run, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use vigie_event::DAY_MS;
use vigie_telemetry::page::Page;

const POLICIES: &str = r#"
[[policy]]
id = "never"
score = "attrition"
threshold = 0.99999
[[band]]
name = "risk"
score = "attrition"
names = ["calm", "rising", "high", "critical"]
[[band]]
name = "tier"
score = "revenue"
edges = [100]
names = ["silver", "gold"]
"#;

fn start(dir: &Path, port: u16) -> Server {
    let path = |name: &str| dir.join(name).display().to_string();
    std::fs::write(path("policies.toml"), POLICIES).unwrap();
    let to = format!(
        "url = \"http://127.0.0.1:{port}/hooks\"\nkind = \"webhook\"\nsecrets = [\"env:HOOK_SECRET\"]\n\
         allow-http = true\nallow-ports = [{port}]\nallow-private = [\"127.0.0.1\"]\n"
    );
    let destinations = format!("[[destination]]\nname = \"cdp\"\nevents = [\"score.*\"]\n{to}");
    std::fs::write(path("destinations.toml"), destinations).unwrap();
    let set = |name: &str, file: &str| ["--set".to_owned(), format!("{name}={}", path(file))];
    let launch = Launch {
        args: [
            set("relance.policies", "policies.toml"),
            set("delivery.destinations", "destinations.toml"),
        ]
        .concat(),
        variables: vec![("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())],
        ..Launch::default()
    };
    Starting::launch(&dir.join("data"), &launch).up()
}

/// Weekly purchases that ended so many days ago, by a member of a company.
fn member(customer: &str, company: &str, ended: i64) -> Vec<Value> {
    let mut events = vec![json!({
        "id": format!("{customer}-of"), "user_id": customer, "signal": "identity.group", "account_id": company,
        "timestamp": now().plus_ms(-ended * DAY_MS).to_string(),
    })];
    events.extend((0..12).map(|week| {
        let at = now().plus_ms(-(ended + (11 - week) * 7) * DAY_MS).to_string();
        json!({
            "id": format!("{customer}-{week}"), "user_id": customer, "signal": "purchase", "timestamp": at,
            "money": {"amount": 20, "currency": "EUR"},
        })
    }));
    events
}

#[test]
fn bands_companies_and_the_portfolio_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (port, arrived) = receiver();
    let server = start(dir.path(), port);
    for event in member("ann", "acme", 1).iter().chain(&member("bea", "acme", 150)) {
        server.post(std::slice::from_ref(event));
    }
    // She refuses to be followed: nobody hears of her.
    let refusing =
        json!({"id": "cleo-no", "user_id": "cleo", "signal": "page.view", "consent": {"profiling": "refused"}});
    server.post(&[refusing]);
    server.post(&member("cleo", "bolt", 1));
    let _ = server.settled();

    // Ann has come to gold by her purchases; Bea as well, and what she did a hundred and fifty days ago makes her critical at once.
    let mut told: BTreeMap<String, Vec<(String, String, String)>> = BTreeMap::new();
    let mut ids = std::collections::BTreeSet::new();
    let complete = |told: &BTreeMap<String, Vec<(String, String, String)>>| {
        let gold = |who: &str| {
            let own = told.get(who);
            own.is_some_and(|own| own.iter().any(|(band, _, to)| band == "tier" && to == "gold"))
        };
        gold("ann") && gold("bea")
    };
    while !complete(&told) {
        let (head, body) = arrived.recv_timeout(DEADLINE).expect("a change");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "customer.score.band");
        let data = &body["data"];
        assert_eq!(data["id"], header(&head, "webhook-id"));
        assert!(ids.insert(header(&head, "webhook-id").to_owned()), "{body}");
        let text = |pointer: &str| data.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let own = told.entry(text("/customer")).or_default();
        let (band, from, to) = (text("/policy"), text("/band/from"), text("/band/to"));
        // Each change begins where the one before it ended.
        if let Some((_, _, before)) = own.iter().rev().find(|(of, ..)| *of == band) {
            assert_eq!(*before, from, "{own:?}");
        }
        own.push((band, from, to));
    }
    assert!(!told.contains_key("cleo"), "{told:?}");
    // They are no relances: whoever pulls those does not meet them.
    assert_eq!(server.get_json("/v1/relances")["relances"], json!([]));
    let moved = |page: &Page| page.sum("vigie_band_changes_total");
    assert!(moved(&Page::parse(&server.get("/metrics"))).is_some_and(|count| count >= ids.len() as f64));

    // The oracle finds the same places and the same notices.
    let audit = server.client.post("/v1/audit", &server.keys.admin, "").unwrap().json();
    assert_eq!(audit["exit_code"], 0, "{audit:#}");

    // Gauges of the base, counted in a round of their own.
    let page = until("the base is counted", || {
        let page = Page::parse(&server.get("/metrics"));
        (page.sum("vigie_portfolio_customers") == Some(3.0)).then_some(page)
    });
    assert_eq!(
        page.sum("vigie_portfolio_tier_customers"),
        Some(2.0),
        "who refuses is not looked at"
    );
    let value = page.sum("vigie_portfolio_value").unwrap();
    assert!(value > 0.0 && page.sum("vigie_portfolio_equity").unwrap() >= value);
    let counted = page.sum("vigie_portfolio_counted_seconds").unwrap();
    assert!(counted > 0.0 && counted * 1e3 <= now().0 as f64);

    // A company by its contacts.
    let acme = until("the companies are counted", || {
        let answer = server.client.get("/v1/accounts/acme", &server.keys.read).unwrap();
        (answer.status == 200)
            .then(|| answer.json())
            .filter(|acme| acme["member_count"] == 2)
    });
    assert_eq!(
        (&acme["most_drifting"], &acme["at_risk"]),
        (&json!("bea"), &json!(true)),
        "{acme:#}"
    );
    let question = json!({"sql": "SELECT account, members, most_drifting, at_risk FROM accounts ORDER BY account", "format": "json"});
    let answer = server
        .client
        .post("/v1/query", &server.keys.read, &question.to_string())
        .unwrap()
        .json();
    assert_eq!(
        answer,
        json!([{"account": "acme", "members": 2, "most_drifting": "bea", "at_risk": 1}]),
    );

    // Folding the past again tells the same: the flags of a rebuilt store are those of the live one.
    drop(server);
    let data = dir.path().join("data").display().to_string();
    let rebuilt = run(&["audit", "--data-dir", &data, "--output", "json"]);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
}
