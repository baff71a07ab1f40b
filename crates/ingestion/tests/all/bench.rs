//! A collector over logs in memory, with a clock that stands still: what the tests of routes share.

use axum::Router;
use axum::body::Body;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tower::ServiceExt;
use vigie_event::{Body as RecordBody, Event, Offset, Partition, Record, Timestamp, Workspace};
use vigie_ingestion::Clock;
use vigie_ingestion::dead_letters::{DeadLetters, Stored};
use vigie_ingestion::http::{ClockHandle, Collector, Doors, Transport, harden, router};
use vigie_ingestion::intake::Intake;
use vigie_ingestion::keys::{KeyKind, KeyRing, KeySpec, Keys, Scope, Secret};
use vigie_ingestion::limits::{Limits, TransportLimits};
use vigie_ingestion::log::{Log, LogReader, MemoryLog};
use vigie_telemetry::Metrics;

/// 2026-11-18T11:06:40Z
pub(crate) const NOW: Timestamp = Timestamp(1_795_000_000_000);
pub(crate) const WRITE: &str = "write-key-shop";
pub(crate) const BROWSER: &str = "write-key-browser";
pub(crate) const HISTORY: &str = "write-key-history";
pub(crate) const READ: &str = "read-key-shop";
pub(crate) const ADMIN: &str = "admin-key-shop";
pub(crate) const OTHER_ADMIN: &str = "admin-key-other";
pub(crate) const ORIGIN: &str = "https://shop.example";

pub(crate) struct Bench {
    pub(crate) router: Router,
    pub(crate) transport: Transport,
    pub(crate) log: MemoryLog,
    pub(crate) journal: MemoryLog,
    pub(crate) intake: Intake<MemoryLog>,
    pub(crate) keys: Arc<Keys>,
    clock: Arc<AtomicI64>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The problem's code, or that of the first refused event.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        let code = if json["code"].is_string() {
            &json["code"]
        } else {
            &json["rejected"][0]["code"]
        };
        code.as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn shop() -> Workspace {
    Workspace::new("shop").unwrap()
}

fn ring() -> KeyRing {
    let key = |workspace: &str, kind, secret: &str, origins: &[&str], scopes: &[Scope]| KeySpec {
        workspace: Workspace::new(workspace).unwrap(),
        kind,
        secret: Secret::new(secret.to_owned()),
        scopes: BTreeSet::from_iter(scopes.iter().copied()),
        origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
    };
    KeyRing::new([
        key("shop", KeyKind::Write, WRITE, &[], &[]),
        key("shop", KeyKind::Write, BROWSER, &[ORIGIN], &[]),
        key("shop", KeyKind::Write, HISTORY, &[], &[Scope::History]),
        key("shop", KeyKind::Read, READ, &[], &[]),
        key("shop", KeyKind::Admin, ADMIN, &[], &[]),
        key("other", KeyKind::Admin, OTHER_ADMIN, &[], &[]),
    ])
    .unwrap()
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(TransportLimits::default(), &[]).await
    }

    pub(crate) async fn with(transport: TransportLimits, hosts: &[&str]) -> Self {
        Self::furnished(transport, hosts, Doors::default(), NOW, Limits::default()).await
    }

    /// With other limits of what a request may hold.
    pub(crate) async fn limited(limits: Limits) -> Self {
        Self::furnished(TransportLimits::default(), &[], Doors::default(), NOW, limits).await
    }

    /// With webhooks, links or budgets, at some time.
    pub(crate) async fn behind(doors: Doors, now: Timestamp) -> Self {
        Self::furnished(TransportLimits::default(), &[], doors, now, Limits::default()).await
    }

    async fn furnished(
        transport: TransportLimits,
        hosts: &[&str],
        doors: Doors,
        now: Timestamp,
        limits: Limits,
    ) -> Self {
        let (log, journal) = (MemoryLog::new(8), MemoryLog::new(1));
        let dead_letters = DeadLetters::open(Arc::new(journal.clone())).await.unwrap();
        let metrics = Metrics::disabled();
        let intake = Intake::new(Arc::new(log.clone()), dead_letters, metrics.clone());
        let keys = Arc::new(Keys::new(ring()));
        let at = Arc::new(AtomicI64::new(now.0));
        let hand = Arc::clone(&at);
        let clock: Clock = Arc::new(move || Timestamp(hand.load(Ordering::Relaxed)));
        let collector = Collector {
            intake: intake.clone(),
            keys: Arc::clone(&keys),
            limits: Arc::new(limits),
            transport,
            clock: ClockHandle(Arc::clone(&clock)),
            metrics: metrics.clone(),
            doors: Arc::new(doors),
        };
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        let transport = Transport {
            limits: transport,
            hosts,
            metrics,
            clock,
        };
        Self {
            router: router(collector),
            transport,
            log,
            journal,
            intake,
            keys,
            clock: at,
        }
    }

    /// Moves the clock.
    pub(crate) fn pass(&self, ms: i64) {
        let _before = self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) async fn send(&self, mut request: Request<Body>) -> Answer {
        let headers = request.headers_mut();
        if !headers.contains_key(header::HOST) {
            let _none = headers.insert(header::HOST, "localhost".parse().unwrap());
        }
        let router = harden(self.router.clone(), self.transport.clone());
        let response = router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
            bytes: bytes.to_vec(),
        };
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert!(answer.headers.contains_key("x-request-id"));
        // What people look at is a page or a picture, whatever the status says.
        let shown = answer
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|media| media.as_bytes().starts_with(b"image/") || media.as_bytes().starts_with(b"text/html"));
        if !shown && (answer.status.is_client_error() || answer.status.is_server_error()) {
            assert_eq!(
                answer.headers[header::CONTENT_TYPE],
                "application/problem+json",
                "{}",
                answer.body
            );
            let json = answer.json();
            assert_eq!(
                json["request_id"].as_str(),
                answer.headers["x-request-id"].to_str().ok()
            );
            assert_eq!(json["status"], answer.status.as_u16());
        }
        let transient = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status);
        assert_eq!(answer.headers.contains_key(header::RETRY_AFTER), transient);
        answer
    }

    pub(crate) async fn events(&self, body: impl Into<Body>) -> Answer {
        self.send(post("/v1/events", body)).await
    }

    /// The events in the log, in the order of its partitions.
    pub(crate) async fn logged(&self) -> Vec<Event> {
        let ends = self.log.ends();
        let count: u64 = ends.iter().map(|end| end.0).sum();
        let from = (0..self.log.partitions()).map(|partition| (Partition(partition), Offset(0)));
        let mut reader = self.log.reader(BTreeMap::from_iter(from)).unwrap();
        let mut events = Vec::new();
        while (events.len() as u64) < count {
            for entry in reader.next(1000, usize::MAX, Duration::from_secs(1)).await.unwrap() {
                match Record::decode(&entry.payload).unwrap().body {
                    RecordBody::Event(event) => events.push(*event),
                    other => panic!("{other:?}"),
                }
            }
        }
        events
    }

    pub(crate) async fn letters(&self) -> Vec<Stored> {
        self.intake
            .dead_letters()
            .list(&shop(), None, 1000)
            .await
            .unwrap()
            .letters
    }
}

/// A canonical request with the server's key.
pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header(header::AUTHORIZATION, format!("Bearer {WRITE}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn basic(key: &str) -> String {
    use base64::Engine;
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("{key}:"))
    )
}
