//! What fuzzing throws bytes at: one function for each reader of bytes that come from outside, which panics when something
//! that must hold does not. `make fuzz` drives them with libFuzzer; `tests/all/corpus.rs` walks the committed corpus and what
//! is near it, with every run of the tests.

use crate::bench::{Bench, NOW};
use axum::body::Body;
use http::Request;
use std::io::Write;
use vigie_event::json::{Receipt, read};
use vigie_event::{Body as RecordBody, Judgement, Record, Source, Workspace};
use vigie_ingestion::http::Doors;
use vigie_ingestion::import::{Format, Import, Mapping, Outcome};
use vigie_ingestion::inflate::gunzip;
use vigie_ingestion::keys::Secret;
use vigie_ingestion::limits::Limits;
use vigie_ingestion::links::{LinkKey, LinkSpec, Links};
use vigie_ingestion::log::scan;
use vigie_ingestion::protocol::{decode, read_again};
use vigie_ingestion::strict::{self, Layout};
use vigie_ingestion::webhooks::{Proof, Provider, SharedSecret, WebhookSpec, Webhooks};

/// The name of the first file of a log.
const SEGMENT: &str = "00000000000000000000.seg";

/// A reader with a name, which is also that of its corpus.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    target("canonical", |bytes| body(Source::Canonical, bytes)),
    target("segment", |bytes| body(Source::Segment, bytes)),
    target("rudderstack", |bytes| body(Source::RudderStack, bytes)),
    target("snowplow", |bytes| body(Source::Snowplow, bytes)),
    target("posthog", |bytes| body(Source::PostHog, bytes)),
    target("cloudevents", |bytes| body(Source::CloudEvents, bytes)),
    target("matomo", |bytes| body(Source::Matomo, bytes)),
    target("sendgrid", |bytes| body(Source::SendGrid, bytes)),
    target("mailgun", |bytes| body(Source::Mailgun, bytes)),
    target("postmark", |bytes| body(Source::Postmark, bytes)),
    target("ses", |bytes| body(Source::Ses, bytes)),
    target("brevo", |bytes| body(Source::Brevo, bytes)),
    target("mailjet", |bytes| body(Source::Mailjet, bytes)),
    target("sparkpost", |bytes| body(Source::SparkPost, bytes)),
    target("mandrill", |bytes| body(Source::Mandrill, bytes)),
    target("http", http),
    target("json", json),
    target("gzip", gzip),
    target("link", link),
    target("import-csv", |bytes| import(Format::Csv, bytes)),
    target("import-jsonl", |bytes| import(Format::JsonLines, bytes)),
    target("log", log),
    target("record", record),
    target("judgements", judgements),
];

fn receipt() -> Receipt {
    Receipt {
        workspace: Workspace::new("shop").unwrap(),
        received_at: NOW,
        sent_at: None,
        user_agent: None,
        oldest: None,
    }
}

/// A body of a protocol: every event is an event with a person, or a letter that is refused again when it is read again.
fn body(source: Source, bytes: &[u8]) {
    let _events: usize = events_in(source, bytes);
}

/// The same; answers how many events there were.
pub(crate) fn events_in(source: Source, bytes: &[u8]) -> usize {
    let limits = Limits::default();
    let Ok(taken) = decode(source, bytes, &receipt(), &limits) else {
        return 0;
    };
    let mut events = 0;
    for taken in taken {
        match taken {
            Ok(event) => {
                assert!(event.person.key().is_some(), "{event:?}");
                assert_eq!(event.received_at, NOW);
                record(&Record::new(RecordBody::Event(Box::new(event))).encode());
                events += 1;
            }
            Err(letter) => {
                let again = read_again(&letter, &limits);
                assert!(again.is_err(), "refused once and taken the second time: {letter:?}");
            }
        }
    }
    events
}

fn links() -> Links {
    let key = LinkKey {
        id: "k1".to_owned(),
        secret: Secret::new("sixteen-".repeat(4)),
    };
    let spec = LinkSpec {
        keys: vec![key],
        public_url: "https://track.example".to_owned(),
        hosts: Default::default(),
        days: 400,
    };
    Links::new(spec).unwrap()
}

/// A whole request, as text: method and path, headers, an empty line, the body. Whatever it is, it is answered, and never by a
/// fault of ours; what is in the log can be read.
fn http(bytes: &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let Some((method, path)) = lines.next().and_then(|line| line.split_once(' ')) else {
        return;
    };
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let Some((name, value)) = line.split_once(": ") else {
            return;
        };
        request = request.header(name, value);
    }
    let Ok(request) = request.body(Body::from(bytes[(end + 2).min(bytes.len())..].to_vec())) else {
        return;
    };
    let secret = SharedSecret::Basic(Secret::new("vigie:a-long-password".to_owned()));
    let webhook = WebhookSpec {
        name: "mail".to_owned(),
        workspace: Workspace::new("shop").unwrap(),
        provider: Provider::Postmark,
        proof: Proof::Shared { secrets: vec![secret] },
    };
    let doors = Doors {
        links: Some(links()),
        webhooks: Webhooks::new([webhook], None).unwrap(),
        ..Doors::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bench = Bench::behind(doors, NOW).await;
        let answer = bench.send(request).await;
        assert!(!answer.status.is_server_error(), "{}: {}", answer.status, answer.body);
        let _events = bench.logged().await;
    });
}

/// Text of a JSON body: what the scanner lets pass is JSON, and each element that it finds in a batch is, too.
fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let layout = Layout {
        key: Some("events"),
        bare: true,
    };
    let limits = Limits::default();
    let Ok(document) = strict::scan(text, layout, 1000, &limits.json) else {
        return;
    };
    // The scanner notes half of a surrogate pair and a key that is there twice as a fault; serde_json refuses the former.
    let parse = |span: std::ops::Range<usize>| serde_json::from_str::<serde_json::Value>(&text[span]);
    if document.fault.is_none() && document.items.iter().flatten().all(|item| item.fault.is_none()) {
        assert!(parse(document.span).is_ok(), "{text}");
    }
    for item in document.items.into_iter().flatten().filter(|item| item.fault.is_none()) {
        assert!(parse(item.span.clone()).is_ok(), "{item:?} in {text}");
    }
}

/// A compressed body never becomes more than the limits allow.
fn gzip(bytes: &[u8]) {
    let limits = Limits::default();
    if let Ok(plain) = gunzip(bytes, &limits) {
        assert!(plain.len() <= limits.inflated_bytes, "{}", plain.len());
    }
}

/// No token is followed that was not made with the key.
fn link(bytes: &[u8]) {
    if let Ok(token) = std::str::from_utf8(bytes) {
        assert!(links().read(token, NOW).is_err(), "{token}");
    }
}

/// A mapping, an empty line, and a file: lines are numbered in order, and each event can be read by the collector.
fn import(format: Format, bytes: &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap_or(0);
    let Ok(mapping) = std::str::from_utf8(&bytes[..end]).map(toml::from_str::<Mapping>) else {
        return;
    };
    let mapping = mapping.ok().filter(|_| end > 0);
    let file = &bytes[(end + 2).min(bytes.len())..];
    let Ok(lines) = Import::new(file, format, mapping.as_ref(), NOW) else {
        return;
    };
    let mut before = 0;
    for line in lines {
        let Ok(line) = line else { return };
        assert!(line.number > before, "line {} after line {before}", line.number);
        before = line.number;
        if let Outcome::Event(json) = line.outcome {
            let event = read(&json, &receipt());
            assert!(event.is_ok(), "{event:?}: {json}");
        }
    }
}

/// A segment file of the log: it is read, or it is refused with the place of the damage.
fn log(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    let name = dir.path().join("log").join(SEGMENT);
    std::fs::File::create(name).unwrap().write_all(bytes).unwrap();
    if let Ok(entries) = scan(dir.path()) {
        for entry in entries {
            let Ok(entry) = entry else { return };
            record(&entry.payload);
        }
    }
}

/// A record of the log: what can be read is written again as the same bytes mean.
fn record(bytes: &[u8]) {
    if let Ok(record) = Record::decode(bytes) {
        assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record));
    }
}

fn judgements(bytes: &[u8]) {
    if let Ok(run) = Judgement::decode(bytes) {
        assert_eq!(Judgement::decode(&Judgement::encode(&run)), Ok(run));
    }
}
