//! Real client libraries for Python, unmodified, against a real listener. `requirements.txt` beside this file pins them; they
//! are installed below the build directory once.

use crate::running::{KEY, Running, run};
use axum::Router;
use std::path::Path;
use vigie_event::{PersonId, Signal, Source};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/long");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_clients() {
    let site = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-clients");
    let requirements = format!("{HERE}/requirements.txt");
    let site = site.to_str().unwrap().to_owned();
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--upgrade",
        "--target",
        &site,
        "-r",
        &requirements,
    ];
    let _installed = run(300, "python3", install.map(str::to_owned).into(), None).await;
    for (client, source) in [
        ("segment", Source::Segment),
        ("rudderstack", Source::RudderStack),
        ("posthog", Source::PostHog),
        ("snowplow", Source::Snowplow),
        ("cloudevents", Source::CloudEvents),
    ] {
        let running = Running::start(Router::new()).await;
        let arguments = vec![
            format!("{HERE}/clients.py"),
            client.to_owned(),
            format!("http://{}", running.address),
            KEY.to_owned(),
        ];
        let _sent = run(60, "python3", arguments, Some(site.clone())).await;
        let events = running.bench.logged().await;
        let letters = running.bench.letters().await;
        assert!(letters.is_empty(), "{client}: {:?}", letters[0].letter);
        assert!(
            events.iter().all(|event| event.source == source),
            "{client}: {events:?}"
        );
        let order = events
            .iter()
            .find(|event| event.signal == Signal::Purchase)
            .unwrap_or_else(|| panic!("{client}: {events:?}"));
        assert_eq!(order.person.key(), Some(&PersonId::known("42").unwrap()), "{client}");
        assert_eq!(
            order.money.map(|money| money.to_string()).as_deref(),
            Some("29.34 EUR"),
            "{client}"
        );
        assert!(
            events.iter().any(|event| event.signal == Signal::PageView),
            "{client}: {events:?}"
        );
        running.stop().await;
    }
}
