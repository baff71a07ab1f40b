//! Topics of others and for others: records of a topic become events once, over restarts; scores and relances come out on
//! topics of their own and say what the store says.

use crate::broker::create;
use crate::site::{Site, settled, value};
use crate::support::{DEADLINE, Launch, Server, now, run, until};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use vigie_event::{CustomerKey, DAY_MS, Partition, PersonId, Workspace};
use vigie_ingestion::log::{Log, LogReader};
use vigie_kafka::outputs::{OutputOptions, Outputs};
use vigie_kafka::{Connection, KafkaLog, LogOptions};

const POLICIES: &str = r#"
[[policy]]
id = "silent"
owner = "tests"
goal = "Notice silence."
score = "attrition"
threshold = 0.7
rearm-below = 0.5
cooldown-days = 30
"#;

/// Somebody else's producer: any JSON, keyed by customer.
async fn produce(connection: &Connection, topic: &str, records: Vec<(String, Value)>) {
    let options = OutputOptions {
        scores_topic: topic.to_owned(),
        ..OutputOptions::default()
    };
    let key = |name: &str| CustomerKey::new(Workspace::new("theirs").unwrap(), PersonId::known(name).unwrap());
    let records = records
        .into_iter()
        .map(|(name, body)| (key(&name), Some(Bytes::from(body.to_string()))));
    let outputs = Outputs::open(connection, options).unwrap();
    outputs.scores(records.collect()).await.unwrap();
}

/// What stands in a topic of ours, in order within each partition.
async fn read(connection: &Connection, topic: &str, partitions: u16) -> Vec<Value> {
    let options = LogOptions {
        fetch_wait: Duration::from_millis(10),
        ..LogOptions::new(topic, partitions)
    };
    let log = KafkaLog::open(connection.clone(), options).await.unwrap();
    let starts: BTreeMap<_, _> = (0..partitions).map(Partition).zip(log.starts()).collect();
    let mut missing: u64 = log
        .ends()
        .iter()
        .zip(log.starts())
        .map(|(end, start)| end.0 - start.0)
        .sum();
    let mut reader = log.reader(starts).unwrap();
    let mut found = Vec::new();
    while missing > 0 {
        let entries = reader.next(1_000, usize::MAX, DEADLINE).await.unwrap();
        missing -= entries.len() as u64;
        found.extend(
            entries
                .iter()
                .map(|entry| serde_json::from_slice(&entry.payload).unwrap()),
        );
    }
    found
}

/// A till's word for a purchase, or something that is none.
fn sale(number: u64, start: i64) -> (String, Value) {
    let customer = format!("c{}", number % 20);
    let at = start + i64::try_from(number).unwrap() * DAY_MS / 50;
    let body = match number % 25 {
        24 => json!({"customer": {"id": customer}, "type": "sale", "at": "yesterday"}),
        _ => json!({"customer": {"id": customer}, "type": "sale", "at": at, "total": number, "note": "x"}),
    };
    (customer, body)
}

fn metric(server: &Server, line: &str) -> Option<f64> {
    let page = server.client.get("/metrics", "").unwrap().body;
    let found = page
        .lines()
        .find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    found
}

fn stop(mut server: Server) {
    server.process.terminate();
    assert!(server.process.ended("a process that was asked to stop").success());
}

#[test]
fn records_of_a_topic_are_events_once_and_scores_and_relances_come_out_on_topics() {
    let site = Site::build();
    let policies = site.data("policies.toml");
    std::fs::write(&policies, POLICIES).unwrap();
    let source = "[[kafka-sources]]\nname = \"till\"\nworkspace = \"shop\"\ntopics = [\"pos.sales\"]\n\
                  format = \"fields\"\nfields = [\"user_id = $.customer.id\", \"signal = $.type\", \
                  \"timestamp = $.at\", \"money.amount = $.total\", \"money.currency = =EUR\"]\n\
                  signals = [\"sale = purchase\"]\n";
    let text = std::fs::read_to_string(site.file()).unwrap();
    let text = text.replace(
        "[kafka]\n",
        "[kafka]\nscores-topic = \"vigie.scores\"\nrelances-topic = \"vigie.relances\"\n",
    );
    let relance = format!("[relance]\npolicies = {:?}\n", policies.display().to_string());
    std::fs::write(site.file(), format!("{text}{relance}{source}")).unwrap();
    let plan = run(&["topics", "plan", "--config", site.file(), "--output", "json"]);
    let missing = [
        "vigie.log",
        "vigie.journal",
        "vigie.scores",
        "vigie.relances",
        "vigie.dead-letters",
    ];
    assert_eq!(value(&plan.stdout)["missing"], json!(missing), "{plan:?}");
    let site = site.ready();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let connection = site.broker.connection();
    let start = now().0 - 60 * DAY_MS;
    let sales = |range: std::ops::Range<u64>| range.map(|number| sale(number, start)).collect::<Vec<_>>();
    runtime.block_on(async {
        create(&connection, "pos.sales", 3).await;
        produce(&connection, "pos.sales", sales(0..500)).await;
    });
    let collector = site.start("collector", "collector");
    let reader = site.start("reader", "api,archivist,deliverer");
    let worker = site.start("worker", "worker");
    let taken = |server: &Server, count: f64| {
        until("the source has read the topic", || {
            let read = ["event", "dead_letter"].map(|outcome| {
                metric(
                    server,
                    &format!("vigie_source_records_total{{source=\"till\",outcome=\"{outcome}\"}}"),
                )
            });
            (read[0].unwrap_or(0.0) + read[1].unwrap_or(0.0) >= count).then_some(read)
        })
    };
    assert_eq!(taken(&collector, 500.0), [Some(480.0), Some(20.0)]);
    // It stops and starts while the topic goes on: it reads on where it stood.
    stop(collector);
    runtime.block_on(produce(&connection, "pos.sales", sales(500..800)));
    let collector = site.process("collector", "collector", |_: &mut Launch| {}).up();
    assert_eq!(taken(&collector, 300.0), [Some(288.0), Some(12.0)]);
    until("no record waits", || {
        (metric(&collector, "vigie_source_lag_records{source=\"till\"}") == Some(0.0)).then_some(())
    });
    assert_eq!(metric(&collector, "vigie_source_well{source=\"till\"}"), Some(1.0));
    let books = settled(&reader, 768);
    assert_eq!(
        (books.accepted, books.applied, books.duplicate),
        (768, 768, 0),
        "{books:?}"
    );
    let letters = runtime.block_on(KafkaLog::open(
        connection.clone(),
        LogOptions::new("vigie.dead-letters", 1),
    ));
    assert_eq!(letters.unwrap().ends()[0].0, 32, "kept, each once");

    // The last word of the topic on each customer is what the store says.
    let scores = runtime.block_on(read(&connection, "vigie.scores", 8));
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    for score in scores {
        let _ = last.insert(score["customer"].as_str().unwrap().to_owned(), score);
    }
    assert_eq!(last.len(), 20);
    for (customer, score) in &last {
        let key = run(&["redis-key", customer, "--workspace", "shop", "--config", site.file()]);
        let stored = site.redis[0].ask(&["hmget", key.stdout.trim(), "attrition", "as_of"]);
        let (attrition, as_of) = stored.trim().split_once('\n').unwrap();
        assert_eq!(
            score["attrition"].as_f64(),
            attrition.parse().ok(),
            "{customer}: {stored}"
        );
        assert_eq!(score["as_of"], as_of, "{customer}");
    }

    // Whoever is flagged comes out, once per id, with the flag as stored.
    let flags = until("flags are raised", || {
        let flags = reader.get_json("/v1/relances?limit=1000");
        let raised: Vec<Value> = flags["relances"].as_array()?.clone();
        (!raised.is_empty()).then_some(raised)
    });
    let wanted = flags.iter().filter(|flag| flag["kind"] == "flagged").count();
    let sent = until("relances come out", || {
        let sent = runtime.block_on(read(&connection, "vigie.relances", 8));
        (sent.len() >= wanted).then_some(sent)
    });
    for message in &sent {
        assert_eq!(message["type"], "customer.relance.flagged");
        let id = &message["data"]["id"];
        assert!(flags.iter().any(|flag| flag["id"] == *id), "{message}");
    }
    drop((worker, reader, collector));
}
