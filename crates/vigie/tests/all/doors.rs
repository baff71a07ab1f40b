//! What stands at the door besides events: webhooks and links from the configuration, and the page that shows an integrator
//! what became of each event. How each provider proves itself is shown where that is decided, in ingestion.

use serde_json::{Value, json};

use crate::support::{Server, run, until};

const CONFIG: &str = "
[links]
public-url = \"https://track.shop.example\"
hosts = \"shop.example\"

[[link-keys]]
id = \"k1\"
secret = \"0123456789abcdef0123456789abcdef\"

[[webhooks]]
name = \"mail\"
workspace = \"default\"
provider = \"postmark\"
secrets = [\"vigie:a-long-password\"]
";

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .build();
    config.into()
}

/// The events at `/inspect` once so many are there.
fn inspected(server: &Server, events: usize) -> Value {
    until("the events are at /inspect", || {
        let answer = server.client.get("/inspect?output=json", &server.keys.admin).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let told = answer.json();
        (told["events"].as_array().unwrap().len() >= events).then_some(told)
    })
}

#[test]
fn an_integrator_sees_what_became_of_each_event() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let bot = json!({"user_agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"});
    let batch = json!([
        {"id": "1", "user_id": "ann", "signal": "purchase", "money": {"amount": 40, "currency": "EUR"}},
        {"id": "2", "user_id": "ann", "signal": "page.view", "context": bot},
        {"id": "3", "signal": "page.view", "name": "<script>alert(1)</script>"},
    ]);
    for _ in 0..2 {
        let answer = server
            .client
            .post("/v1/events", &server.keys.write, &batch.to_string())
            .unwrap();
        assert_eq!(
            (answer.status, answer.json()["accepted"].as_u64()),
            (200, Some(2)),
            "{answer:?}"
        );
    }
    let told = inspected(&server, 4);
    let events = told["events"].as_array().unwrap();
    let one = |id: &str, decision: &str| -> &Value {
        let found = events
            .iter()
            .find(|event| event["event_id"] == id && event["decision"] == decision);
        found.unwrap_or_else(|| panic!("no {decision} {id} in {told:#}"))
    };
    let bought = one("1", "applied");
    assert_eq!(
        (bought["human_permille"].as_u64(), bought["customer"].as_str()),
        (Some(1000), Some("ann"))
    );
    assert_eq!(bought["payload"]["money"]["amount"], 40);
    let crawled = one("2", "applied");
    assert_eq!(crawled["human_permille"], 0);
    assert_eq!(crawled["indicators"], json!(["crawler_user_agent"]));
    assert_eq!(
        one("1", "duplicate")["hint"],
        "the same event was taken before; it counts once"
    );
    let refused = &told["refused"][0];
    assert_eq!(refused["code"], "no_identity");
    assert!(refused["raw"].as_str().unwrap().contains("alert(1)"), "{refused}");

    let place = format!("/inspect/{}/{}", bought["log_partition"], bought["log_offset"]);
    let moved = server
        .client
        .get(&format!("{place}?output=json"), &server.keys.admin)
        .unwrap()
        .json();
    assert!(
        moved["scores_before"].is_null() && moved["scores_after"]["attrition"].is_number(),
        "{moved:#}"
    );
    for path in ["/inspect", "/inspect?limit=1", &place] {
        let mut page = agent()
            .get(format!("{}{path}", server.url))
            .header("Authorization", format!("Bearer {}", server.keys.admin))
            .call()
            .unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
        assert_eq!(page.headers()["cache-control"], "no-store, private");
        let text = page.body_mut().read_to_string().unwrap();
        assert!(
            text.starts_with("<!doctype html>") && !text.contains("<script"),
            "{text}"
        );
    }

    for (path, key, status) in [
        ("/inspect", "", 401),
        ("/inspect", "va_wrong", 401),
        ("/inspect", &server.keys.read, 403),
        ("/inspect", &server.keys.write, 403),
        ("/inspect?limit=0", &server.keys.admin, 400),
        ("/inspect?output=xml", &server.keys.admin, 400),
        ("/inspect/0/999999", &server.keys.admin, 404),
    ] {
        let answer = server.client.get(path, key).unwrap();
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
}

#[test]
fn webhooks_and_links_come_from_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vigie.toml");
    std::fs::write(&file, CONFIG).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", file]);

    let signed = run(&[
        "links",
        "sign",
        "--config",
        file,
        "--workspace",
        "default",
        "--user",
        "ann",
        "--message",
        "m1",
        "--click",
        "https://shop.example/offer",
        "--open",
        "--output",
        "json",
    ]);
    assert_eq!(signed.code, Some(0), "{signed:?}");
    let links: Value = serde_json::from_str(&signed.stdout).unwrap();
    let here = |link: &Value| {
        link.as_str()
            .unwrap()
            .replace("https://track.shop.example", &server.url)
    };
    let clicked = agent().get(here(&links["clicks"][0])).call().unwrap();
    assert_eq!(clicked.status().as_u16(), 302);
    assert_eq!(clicked.headers()["location"], "https://shop.example/offer");
    assert_eq!(agent().get(here(&links["open"])).call().unwrap().status().as_u16(), 200);
    let unsubscribed = agent()
        .post(here(&links["unsubscribe"]))
        .send_form([("List-Unsubscribe", "One-Click")]);
    assert_eq!(unsubscribed.unwrap().status().as_u16(), 200);

    let bounce = json!({"RecordType": "Bounce", "MessageID": "00000000-0000-0000-0000-000000000000", "ID": 42,
        "Email": "john@example.com", "BouncedAt": "2026-11-05T16:33:54.9070259Z", "Metadata": {"user_id": "bob"}});
    let report = |secret: &str| {
        let request = agent()
            .post(format!("{}/v1/webhooks/mail", server.url))
            .header("Authorization", format!("Basic {secret}"))
            .header("Content-Type", "application/json");
        request.send(bounce.to_string()).unwrap().status().as_u16()
    };
    // vigie:a-long-password and vigie:a-wrong-password
    assert_eq!(report("dmlnaWU6YS1sb25nLXBhc3N3b3Jk"), 200);
    assert_eq!(report("dmlnaWU6YS13cm9uZy1wYXNzd29yZA=="), 401);

    let told = inspected(&server, 4);
    let mut seen: Vec<(&str, &str)> = told["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["customer"].as_str().unwrap(), event["signal"].as_str().unwrap()))
        .collect();
    seen.sort_unstable();
    let expected = [
        ("ann", "email.click"),
        ("ann", "email.open"),
        ("ann", "email.unsubscribe"),
        ("bob", "email.bounce"),
    ];
    assert_eq!(seen, expected, "{told:#}");

    let elsewhere = [
        "links",
        "sign",
        "--config",
        file,
        "--workspace",
        "default",
        "--user",
        "ann",
        "--message",
        "m1",
    ];
    let elsewhere = run(&[elsewhere.as_slice(), &["--click", "https://evil.example/"]].concat());
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("https://evil.example/"), "{elsewhere:?}");
    let without = run(&[
        "links",
        "sign",
        "--workspace",
        "default",
        "--user",
        "ann",
        "--message",
        "m1",
    ]);
    assert_eq!(without.code, Some(2), "{without:?}");
    assert!(without.stderr.contains("[[link-keys]]"), "{without:?}");
}

#[test]
fn a_person_gets_a_copy_objects_and_can_have_it_proved() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    server.post(&[
        json!({"id": "1", "anonymous_id": "browser-7", "signal": "page.view", "name": "planted-marker-page"}),
        json!({"id": "2", "user_id": "ann", "anonymous_id": "browser-7", "signal": "identity.identify",
               "consent": {"profiling": "granted"}, "properties": {"wording": "banner 7", "wording_sha256": "00ff"}}),
        json!({"id": "3", "user_id": "ann", "signal": "purchase", "money": {"amount": 40, "currency": "EUR"},
               "properties": {"note": "planted-marker-purchase"}}),
        json!({"id": "4", "user_id": "bob", "signal": "purchase", "money": {"amount": 1, "currency": "EUR"},
               "properties": {"note": "of somebody else"}}),
    ]);
    let refused =
        json!({"id": "5", "user_id": "ann", "signal": "purchase", "money": {"amount": "planted-marker-refused"}});
    let answer = server
        .client
        .post("/v1/events", &server.keys.write, &refused.to_string())
        .unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(server.settled().applied, 4);

    let ask = |route: &str, asked: &Value| {
        let answer = server
            .client
            .post(&format!("/v1/privacy/{route}"), &server.keys.admin, &asked.to_string())
            .unwrap();
        assert_eq!(answer.status, 200, "{route}: {answer:?}");
        answer
    };
    let ann = json!({"user_id": "ann"});
    // The visitor's page belongs to ann once the worker has moved it.
    let copy = until("the visitor's history is part of the copy", || {
        let copy = ask("export", &ann).body;
        copy.contains("planted-marker-page").then_some(copy)
    });
    for marker in [
        "planted-marker-purchase",
        "planted-marker-refused",
        "banner 7",
        "browser-7",
    ] {
        assert!(copy.contains(marker), "{marker} is missing in {copy}");
    }
    assert!(!copy.contains("of somebody else"), "{copy}");

    let objected = ask("object", &json!({"user_id": "ann", "source": "letter of 3 May"})).json();
    assert_eq!(
        objected["refused"],
        json!({"profiling": "refused", "marketing": "refused"})
    );
    let before = server.settled();
    server.post(&[json!({"id": "6", "user_id": "ann", "signal": "page.view"})]);
    assert_eq!(
        server.settled().suppressed,
        before.suppressed + 1,
        "nothing of ann is used any more"
    );

    let proof = ask("prove", &ann).json();
    let said: Vec<&Value> = proof["consent"].as_array().unwrap().iter().collect();
    assert_eq!(said.len(), 2, "{proof:#}");
    assert_eq!(said[0]["statement"]["payload"]["properties"]["wording"], "banner 7");
    assert_eq!(
        said[1]["statement"]["payload"]["properties"]["source"],
        "letter of 3 May"
    );
    assert_eq!(
        (said[0]["previous"].as_str(), &said[1]["previous"]),
        (Some(""), &said[0]["hash"])
    );

    let told = run(&[
        "privacy",
        "prove",
        "ann",
        "--url",
        &server.url,
        "--key",
        &server.keys.admin,
        "--output",
        "json",
    ]);
    assert_eq!(
        (told.code, serde_json::from_str::<Value>(&told.stdout).unwrap()),
        (Some(0), proof)
    );
    for (key, body, status) in [
        (&server.keys.read, ann.to_string(), 403),
        (&server.keys.admin, "{}".to_owned(), 400),
        (
            &server.keys.admin,
            json!({"user_id": "ann", "anonymous_id": "x"}).to_string(),
            400,
        ),
    ] {
        assert_eq!(
            server.client.post("/v1/privacy/export", key, &body).unwrap().status,
            status,
            "{body}"
        );
    }
}
