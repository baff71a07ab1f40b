//! Headless Chromium: libraries of other houses, our own tracker, the links of a mail, and the page for integrators. What the
//! pages do is in `browser.cjs`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vigie_event::Source;

use super::{Client, Row, Site, key, node_modules, script};
use crate::support::{Process, now};

/// Pages in a browser that is open until this ends.
struct Browser {
    process: Process,
    /// What each page found out.
    said: BTreeMap<String, Value>,
}

impl Browser {
    /// Opens pages, each with a key, and waits until each has done its part.
    #[track_caller]
    fn open(site: &Site, pages: &[(&str, String)]) -> Self {
        let mut command = Command::new("node");
        let _command = command
            .arg(script("browser.cjs"))
            .arg(&site.server.url)
            .args(pages.iter().map(|(page, key)| format!("{page}={key}")))
            .env("NODE_PATH", node_modules())
            .env("VIGIE_CHROMIUM", chromium())
            .env("NO_PROXY", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = BTreeMap::new();
        for line in lines.take(pages.len()) {
            let mut line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let page = line["page"].as_str().unwrap().to_owned();
            assert!(line["said"]["error"].is_null(), "{line:#}");
            let _none = said.insert(page, line["said"].take());
        }
        assert_eq!(said.len(), pages.len(), "the browser ended too early: {said:?}");
        Self {
            process: Process::from(child),
            said,
        }
    }

    /// Closes it: pages are left.
    #[track_caller]
    fn close(mut self) {
        self.process.end_input();
        assert!(self.process.ended("the browser is closed").success());
    }
}

/// The browser, on the path.
fn chromium() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("chromium"))
        .find(|file| file.exists());
    found.expect("there is no chromium on the path: run `make tools`")
}

#[test]
fn libraries() {
    let clients = [
        Client::new("segment", Source::Segment, None, true),
        Client::new("rudderstack", Source::RudderStack, None, true),
        Client::new("posthog", Source::PostHog, None, true),
        Client::new("snowplow", Source::Snowplow, None, false),
    ];
    let names: Vec<_> = clients.iter().map(|client| client.name).collect();
    let site = Site::start(&names, &[]);
    let began = now();
    let browser = Browser::open(
        &site,
        &clients
            .each_ref()
            .map(|client| (client.name, key("write", client.name))),
    );
    for client in &clients {
        site.arrived(client.name, client.events());
    }
    browser.close();
    for client in &clients {
        client.check(&site, began, None);
    }
}

/// Signals and names, in an order that does not depend on when they arrived.
fn told(events: &[Row]) -> Vec<(&str, &str)> {
    let mut told: Vec<_> = events
        .iter()
        .map(|event| (event.signal.as_str(), event.name.as_deref().unwrap_or_default()))
        .collect();
    told.sort_unstable();
    told
}

#[test]
fn tracker() {
    let pages = ["consent", "privacy", "leaving", "refusal", "later"];
    let site = Site::start(&pages, &[]);
    let browser = Browser::open(&site, &pages.map(|page| (page, key("write", page))));
    for (page, events) in [("consent", 9), ("leaving", 1), ("refusal", 2), ("later", 3)] {
        site.arrived(page, events);
    }
    let said = browser.said.clone();
    browser.close();

    // Nothing before consent; then everything, what was held back included.
    let expected = json!({"before": {"kept": [], "sent": 0}, "after": ["vigie.id", "vigie.said"]});
    assert_eq!(said["consent"], expected);
    let events = site.events("consent");
    let expected = [
        ("custom", "Size chosen"),
        ("custom", "consent"),
        ("custom", "early"),
        ("form.submit", "contact"),
        ("identity.identify", ""),
        ("link.click", "Offer"),
        ("page.error", "error"),
        ("page.view", "shoes"),
        ("page.view", "shoes"),
    ];
    assert_eq!(told(&events), expected, "a fragment is no page of its own: {events:#?}");
    let visitor = events[0].anonymous_id.clone();
    assert!(
        visitor.is_some() && events.iter().all(|event| event.anonymous_id == visitor),
        "{events:#?}"
    );
    for event in &events {
        let payload: Value = serde_json::from_str(&event.payload).unwrap();
        let word = json!({"profiling": "granted", "marketing": "refused"});
        assert_eq!(payload["consent"], word, "{event:#?}");
        let judged = (event.source.as_str(), event.decision.as_str(), event.human_permille);
        assert_eq!(judged, ("tracker", "applied", Some(1000)), "{event:#?}");
    }
    let customer = site.ask("consent", "/v1/customers/42");
    assert_eq!(
        customer["identities"],
        json!(["42", format!("anonymous:{}", visitor.unwrap())])
    );

    assert_eq!(
        said["privacy"],
        json!({"kept": [], "sent": 0}),
        "Global Privacy Control is a refusal"
    );
    assert_eq!(site.events("privacy").len(), 0);

    assert_eq!(
        told(&site.events("leaving")),
        [("custom", "last")],
        "a page that is left sends what it has"
    );

    assert_eq!(
        said["refusal"]["kept"],
        json!(["vigie.said"]),
        "only the refusal itself is remembered"
    );
    let events = site.events("refusal");
    assert_eq!(
        told(&events),
        [("custom", "consent"), ("custom", "seen")],
        "a refusal is told once"
    );
    let decided = |name: &str| {
        let found = events.iter().find(|event| event.name.as_deref() == Some(name));
        found.unwrap().decision.as_str()
    };
    assert_eq!((decided("seen"), decided("consent")), ("applied", "suppressed"));

    let events = site.events("later");
    let expected = [("custom", "page load"), ("custom", "patient"), ("page.view", "shoes")];
    assert_eq!(told(&events), expected, "what was told to come later came once");
}

#[test]
fn mail() {
    let site = Site::start(&[], &["mail"]);
    // Opens are read of who agreed to it.
    let agreed =
        json!({"id": "agreed", "user_id": "42", "name": "agreed", "consent": {"email_open_tracking": "granted"}});
    let answer = site
        .server
        .client
        .post("/v1/events", &key("write", "mail"), &agreed.to_string());
    assert_eq!(answer.unwrap().status, 200);
    let browser = Browser::open(&site, &[("mail", key("write", "mail"))]);
    let said = browser.said["mail"].clone();
    browser.close();
    let expected = json!({"pixel": [1, 1], "referrer": "", "question": "Unsubscribe from these e-mails?",
        "answer": "You are unsubscribed"});
    assert_eq!(said, expected);
    let mut events = site.events("mail");
    events.retain(|event| event.name.as_deref() != Some("agreed"));
    assert!(
        events
            .iter()
            .all(|event| event.customer == "42" && event.source == "links"),
        "{events:#?}"
    );
    let signals: Vec<_> = events.iter().map(|event| event.signal.as_str()).collect();
    // The mail is looked at again before its unsubscription is followed.
    assert_eq!(
        signals,
        ["email.open", "email.click", "email.open", "email.unsubscribe"],
        "{events:#?}"
    );
    assert_eq!(
        events[1]
            .page_url
            .as_deref()
            .map(|url| url.ends_with("/offer?from=mail#there")),
        Some(true)
    );
    for event in &events[..3] {
        assert_eq!(
            (event.decision.as_str(), event.human_permille),
            ("applied", Some(1000)),
            "{event:#?}"
        );
    }
}

#[test]
fn inspect() {
    let site = Site::start(&[], &["inspect"]);
    let crawler = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    let batch = json!([
        {"id": "order-1001", "user_id": "ann", "signal": "purchase", "channel": "store",
         "money": {"amount": 40, "currency": "EUR"}},
        {"id": "visit-1", "anonymous_id": "browser-7", "signal": "page.view", "name": "Shoes",
         "context": {"page_url": "https://shop.example/shoes"}},
        {"id": "crawl-1", "anonymous_id": "browser-8", "signal": "page.view", "name": "Shoes",
         "context": {"user_agent": crawler}},
        {"signal": "page.view", "name": "<script>alert(1)</script>"},
        {"user_id": "ann", "signal": "purchase", "money": {"amount": "12,50", "currency": "EUR"}},
    ]);
    for (body, accepted) in [(&batch, 3), (&batch[0], 1)] {
        let client = &site.server.client;
        let answer = client
            .post("/v1/events", &key("write", "inspect"), &body.to_string())
            .unwrap();
        assert_eq!(answer.json()["accepted"], accepted, "{answer:?}");
    }
    site.arrived("inspect", 6);
    let browser = Browser::open(&site, &[("inspect", key("admin", "inspect"))]);
    let said = browser.said["inspect"].clone();
    browser.close();
    assert_eq!(
        (&said["status"], &said["failed"]),
        (&json!(200), &json!([])),
        "{said:#}"
    );
    let rows = |section: &str| -> Vec<&str> {
        said[section]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row.as_str().unwrap())
            .collect()
    };
    let (accepted, refused) = (rows("accepted"), rows("refused"));
    assert_eq!((accepted.len(), refused.len()), (4, 2), "{said:#}");
    for (row, words) in [
        (&accepted, ["ann", "purchase 40", "human 100"]),
        (&accepted, ["browser-8", "page.view", "crawler_user_agent"]),
        (&accepted, ["ann", "duplicate", "it counts once"]),
        (&refused, ["no_identity", "the event names nobody", ""]),
        (&refused, ["value", "money needs a decimal amount", ""]),
    ] {
        let found = row.iter().any(|row| words.iter().all(|word| row.contains(word)));
        assert!(found, "{words:?} in {row:#?}");
    }
    assert!(said["scores"].as_str().unwrap().contains("attrition"), "{said:#}");
}
