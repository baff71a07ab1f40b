//! Real client libraries, unmodified, against a real listener: what arrives has the right person, time and meaning. `clients/`
//! holds the programs that drive them; `make python-env node-env` installs them, pinned, below the build directory.

use crate::running::{KEY, Running, installed, node_modules, run};
use axum::Router;
use std::path::PathBuf;
use vigie_event::{Event, PersonId, Signal, Source, Timestamp};

/// What a library calls somebody's first page and the message by which a visitor turns out to be customer 42, if it has one.
struct Client {
    name: &'static str,
    source: Source,
    visitor: PersonId,
    identifies: Option<Signal>,
    /// Times are sent in steps of this many milliseconds.
    step_ms: i64,
}

fn client(name: &'static str, source: Source, identifies: Option<Signal>) -> Client {
    Client {
        name,
        source,
        visitor: PersonId::anonymous("a-1").unwrap(),
        identifies,
        step_ms: 1,
    }
}

/// Runs one library and looks at what arrived. The order was placed an hour ago; everything else happens now.
async fn check(client: Client, mut program: Vec<String>, variables: Vec<(&'static str, PathBuf)>) {
    // Not a whole second, so that a lost fraction shows.
    let running = Running::start(Router::new()).await;
    let now = running.now;
    let ordered_at = Timestamp(now.0 - now.0 % 1000 - 3_600_000 + 123);
    program.extend([
        client.name.to_owned(),
        format!("http://{}", running.address),
        KEY.to_owned(),
        ordered_at.to_string(),
    ]);
    let _sent = run(120, program, variables).await;
    let (events, letters) = (running.bench.logged().await, running.bench.letters().await);
    running.stop().await;
    let name = client.name;
    assert!(letters.is_empty(), "{name}: {:?}", letters[0].letter);
    assert_eq!(
        events.len(),
        if client.identifies.is_some() { 3 } else { 2 },
        "{name}: {events:?}"
    );
    let one = |signal: Signal| -> &Event {
        let found = events.iter().find(|event| event.signal == signal);
        found.unwrap_or_else(|| panic!("{name}: no {} among {events:?}", signal.name()))
    };
    let known = PersonId::known("42").unwrap();
    let (page, order) = (one(Signal::PageView), one(Signal::Purchase));
    assert!(
        events.iter().all(|event| event.source == client.source),
        "{name}: {events:?}"
    );
    assert_eq!(page.person.key(), Some(&client.visitor), "{name}");
    assert_eq!(order.person.key(), Some(&known), "{name}");
    if let Some(signal) = client.identifies {
        let ids = &one(signal).person;
        let both = [ids.user.as_ref(), ids.anonymous.as_ref()];
        assert!(both.contains(&Some(&client.visitor)), "{name}: {ids:?}");
        let named = ids.user == Some(known) || ids.previous.as_deref() == Some("42");
        assert!(named, "{name}: {ids:?}");
    }
    assert_eq!(
        order.money.map(|money| money.to_string()).as_deref(),
        Some("29.34 EUR"),
        "{name}"
    );
    assert_eq!(order.order.as_deref(), Some("1001"), "{name}");
    let told = Timestamp(ordered_at.0 - ordered_at.0 % client.step_ms);
    assert_eq!(order.occurred_at, Some(told), "{name}: the time that the merchant gave");
    for event in events.iter().filter(|event| event.signal != Signal::Purchase) {
        let off = event.occurred_at.unwrap_or(now).ms_since(now);
        assert!((-1000..600_000).contains(&off), "{name}: {off} ms off in {event:?}");
    }
    let ids: std::collections::BTreeSet<_> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), events.len(), "{name}: every event has an id of its own");
}

fn program(interpreter: &str, script: &str) -> Vec<String> {
    let script = format!("{}/tests/all/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    vec![interpreter.to_owned(), script]
}

async fn python(client: Client) {
    let python = installed("VIGIE_PYTHON", "target/python/bin/python", "python-env");
    check(client, program(&python.to_string_lossy(), "clients.py"), Vec::new()).await;
}

async fn node(client: Client) {
    let variables = vec![("NODE_PATH", node_modules())];
    check(client, program("node", "clients.cjs"), variables).await;
}

const IDENTIFY: Option<Signal> = Some(Signal::Identify);

/// CloudEvents names one subject; nobody is anonymous.
fn cloudevents() -> Client {
    Client {
        visitor: PersonId::known("42").unwrap(),
        ..client("cloudevents", Source::CloudEvents, None)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_segment() {
    python(client("segment", Source::Segment, IDENTIFY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_rudderstack() {
    python(client("rudderstack", Source::RudderStack, IDENTIFY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_posthog() {
    python(client("posthog", Source::PostHog, Some(Signal::Alias))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_snowplow() {
    python(client("snowplow", Source::Snowplow, None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_cloudevents() {
    python(cloudevents()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_segment() {
    node(client("segment", Source::Segment, IDENTIFY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_segment_legacy() {
    node(client("segment_legacy", Source::Segment, IDENTIFY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_rudderstack() {
    node(client("rudderstack", Source::RudderStack, IDENTIFY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_posthog() {
    node(client("posthog", Source::PostHog, IDENTIFY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_snowplow() {
    node(client("snowplow", Source::Snowplow, None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_cloudevents() {
    node(cloudevents()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_matomo() {
    let matomo = Client {
        visitor: PersonId::anonymous("00000000000000a1").unwrap(),
        step_ms: 1000,
        ..client("matomo", Source::Matomo, None)
    };
    node(matomo).await;
}
