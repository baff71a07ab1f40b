//! Topics of others as input, and outputs as topics: each record becomes one event however often it is read, what cannot be
//! taken is kept with its reason, and a gap is said.

use crate::broker::{Broker, create, options};
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset as Raw, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{Body, CustomerKey, Event, FlagId, PersonId, Record, Timestamp, Workspace};
use vigie_ingestion::dead_letters::DeadLetters;
use vigie_ingestion::intake::Intake;
use vigie_ingestion::log::{Fault, Log, LogError, MemoryLog};
use vigie_kafka::outputs::{OutputOptions, Outputs, RelanceMessage};
use vigie_kafka::source::{Format, Source, SourceError, SourceOptions, SourceStatus, accept_gap};
use vigie_kafka::{Connection, KafkaLog};
use vigie_telemetry::Metrics;

const NOW: Timestamp = Timestamp(1_770_000_000_000);
const PARTITIONS: u16 = 3;

fn shop() -> Workspace {
    Workspace::new("shop").unwrap()
}

async fn intake<L: Log>(log: &Arc<L>, journal: Arc<L>) -> Intake<L> {
    Intake::new(
        Arc::clone(log),
        DeadLetters::open(journal).await.unwrap(),
        Metrics::disabled(),
    )
}

fn start<L: Log>(broker: &Broker, intake: &Intake<L>, format: Format) -> Source {
    let options = source_options(format);
    Source::start(&broker.connection(), options, intake.clone(), Arc::new(|| NOW)).unwrap()
}

fn source_options(format: Format) -> SourceOptions {
    SourceOptions {
        fetch_wait: Duration::from_millis(10),
        session_timeout: Duration::from_secs(6),
        batch_records: 50,
        ..SourceOptions::new("crm", "orders", format, shop())
    }
}

/// Waits until the status is as wanted.
async fn until(source: &Source, wanted: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..1500 {
        let _ = look.tick().await;
        let status = source.status();
        if wanted(&status) {
            return status;
        }
    }
    panic!("waited in vain: {:?}", source.status());
}

type Sent<'a> = (&'a str, Option<String>, Vec<(&'a str, &'a str)>);

/// Writes records as somebody else would: key, value, headers.
async fn produce(connection: &Connection, topic: &str, records: Vec<Sent<'_>>) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", connection.brokers.join(","))
        .set("acks", "all")
        .create()
        .unwrap();
    let mut sent = Vec::new();
    for (key, value, headers) in &records {
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header {
                key,
                value: Some(value.as_bytes()),
            });
        }
        let mut record = FutureRecord::<str, str>::to(topic).key(key).headers(owned);
        record.payload = value.as_deref();
        sent.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
    }
    for delivery in sent {
        let _delivered = delivery.await.unwrap().unwrap();
    }
}

fn order(number: usize) -> Sent<'static> {
    let value = format!(
        r#"{{"user_id":"u{}","signal":"purchase","money":{{"amount":{number},"currency":"EUR"}}}}"#,
        number % 17
    );
    (["a", "b", "c", "d", "e"][number % 5], Some(value), vec![])
}

/// Every event of a log.
async fn events<L: Log>(log: &L) -> Vec<Event> {
    let from = (0..log.partitions())
        .map(vigie_event::Partition)
        .zip(log.starts())
        .collect();
    let entries = crate::log_suite::read_all(log, from).await.unwrap();
    let record = |payload: &Bytes| Record::decode(payload).unwrap().body;
    let bodies = entries.iter().map(|entry| record(&entry.payload));
    bodies
        .map(|body| match body {
            Body::Event(event) => *event,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// What stands in a topic: key, value, headers, in order of partition and offset.
type Stored = (Option<String>, Option<Vec<u8>>, Vec<(String, String)>);

fn stored(connection: &Connection, topic: &str, partitions: i32) -> Vec<Stored> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", connection.brokers.join(","))
        .set("group.id", "looker")
        .set("fetch.wait.max.ms", "10")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    let mut missing = 0;
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Raw::Beginning).unwrap();
        let (low, high) = consumer
            .fetch_watermarks(topic, partition, Duration::from_secs(10))
            .unwrap();
        missing += high - low;
    }
    consumer.assign(&list).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut found = Vec::new();
    while missing > 0 {
        let message = consumer.poll(Duration::from_secs(20)).expect("a message").unwrap();
        let headers = message.headers().map(|headers| {
            let header = |header: Header<'_, &[u8]>| (header.key.to_owned(), text(header.value.unwrap_or_default()));
            headers.iter().map(header).collect()
        });
        let value = message.payload().map(<[u8]>::to_vec);
        let place = (message.partition(), message.offset());
        found.push((place, (message.key().map(text), value, headers.unwrap_or_default())));
        missing -= 1;
    }
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, stored)| stored).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_becomes_events_once_over_restarts_and_lost_commits() {
    let broker = Broker::start();
    let connection = broker.connection();
    create(&connection, "orders", 3).await;
    create(&connection, "vigie.dead-letters", 1).await;
    let log = Arc::new(broker.log("vigie.log", PARTITIONS).await);
    let journal = Arc::new(
        KafkaLog::open(connection.clone(), options("vigie.dead-letters", 1))
            .await
            .unwrap(),
    );
    let intake = intake(&log, journal).await;
    produce(&connection, "orders", (0..120).map(order).collect()).await;
    let source = start(&broker, &intake, Format::Canonical);
    let _ = until(&source, |status| status.records == 120).await;
    let status = source.stop().await;
    assert_eq!((status.events, status.dead_letters, status.stopped), (120, 0, None));
    // A restart goes on where the last one stood.
    produce(&connection, "orders", (120..200).map(order).collect()).await;
    let source = start(&broker, &intake, Format::Canonical);
    let status = until(&source, |status| status.records >= 80).await;
    assert_eq!(status.events, 80, "nothing again");
    let lag: u64 = status.partitions.values().map(|progress| progress.lag()).sum();
    assert_eq!((lag, status.partitions.len()), (0, 3));
    let _ = source.stop().await;
    let once = events(&*log).await;
    let ids: BTreeSet<_> = once.iter().map(|event| (event.id.clone(), event.fingerprint)).collect();
    assert_eq!((once.len(), ids.len()), (200, 200));
    // The commit is lost, as by a crash before it: what is read again has the same ids and content.
    let places = (0..3).map(|partition| (("orders".to_owned(), partition), 0)).collect();
    accept_gap(&connection, &source_options(Format::Canonical), places)
        .await
        .unwrap();
    let source = start(&broker, &intake, Format::Canonical);
    let _ = until(&source, |status| status.records == 200).await;
    let _ = source.stop().await;
    let twice = events(&*log).await;
    let again: BTreeSet<_> = twice
        .iter()
        .map(|event| (event.id.clone(), event.fingerprint))
        .collect();
    assert_eq!(twice.len(), 400);
    assert_eq!(again, ids, "the fold recognises every one of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_cannot_be_taken_are_kept_with_their_reason_and_the_rest_goes_on() {
    let broker = Broker::start();
    let connection = broker.connection();
    create(&connection, "orders", 1).await;
    create(&connection, "vigie.dead-letters", 1).await;
    let log = Arc::new(MemoryLog::new(PARTITIONS));
    let intake = intake(&log, Arc::new(MemoryLog::new(1))).await;
    // The log refuses twice: the source waits and tries again.
    for _ in 0..2 {
        let reason = "full".to_owned();
        log.inject(0, Fault::Refuse(LogError::Unavailable { reason }));
    }
    let mut records: Vec<_> = (0..5).map(order).collect();
    records.push(("k", Some("{not json".to_owned()), vec![("trace", "t1")]));
    records.push(("k", Some(r#"{"signal":"page.view"}"#.to_owned()), vec![]));
    records.push(("k", None, vec![]));
    records.push(order(5));
    produce(&connection, "orders", records).await;
    let source = start(&broker, &intake, Format::Canonical);
    let status = until(&source, |status| status.records == 9).await;
    let counts = (status.events, status.dead_letters, status.tombstones, status.retries);
    assert_eq!(counts.0 + counts.1 + counts.2, 9);
    assert_eq!((counts.0, counts.1, counts.2), (6, 2, 1));
    assert!(counts.3 >= 2, "{counts:?}");
    let _ = source.stop().await;
    assert_eq!(events(&*log).await.len(), 6);
    let letters = stored(&connection, "vigie.dead-letters", 1);
    // A batch that is tried again may leave its letters twice: they say where their record stands.
    let distinct: BTreeSet<_> = letters.iter().cloned().collect();
    let reasons: Vec<BTreeMap<String, String>> = distinct
        .iter()
        .map(|(_, _, headers)| headers.iter().cloned().collect())
        .collect();
    assert_eq!(reasons.len(), 2);
    let find = |reason: &str| reasons.iter().find(|headers| headers["dlq.reason"] == reason).unwrap();
    let json = find("json");
    assert_eq!(json["trace"], "t1", "headers of the record are kept");
    assert_eq!(
        (&*json["dlq.topic"], &*json["dlq.partition"], &*json["dlq.offset"]),
        ("orders", "0", "5")
    );
    assert_eq!(json["dlq.source"], "crm");
    let nobody = find("no_identity");
    assert_eq!((&*nobody["dlq.field"], &*nobody["dlq.offset"]), ("user_id", "6"));
    assert!(!nobody["dlq.hint"].is_empty());
    assert!(
        distinct.iter().any(|(key, value, _)| {
            key.as_deref() == Some("k") && value.as_deref() == Some(b"{not json".as_slice())
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_offset_that_is_not_in_the_topic_stops_the_source_until_somebody_decides() {
    let broker = Broker::start();
    let connection = broker.connection();
    create(&connection, "orders", 1).await;
    create(&connection, "vigie.dead-letters", 1).await;
    let log = Arc::new(MemoryLog::new(PARTITIONS));
    let intake = intake(&log, Arc::new(MemoryLog::new(1))).await;
    produce(&connection, "orders", (0..10).map(order).collect()).await;
    let place = |offset| BTreeMap::from([(("orders".to_owned(), 0), offset)]);
    let settings = source_options(Format::Canonical);
    accept_gap(&connection, &settings, place(500)).await.unwrap();
    let source = start(&broker, &intake, Format::Canonical);
    let status = until(&source, |status| status.stopped.is_some()).await;
    let Some(SourceError::Gap { from, first, end, .. }) = status.stopped else {
        panic!("{status:?}")
    };
    assert_eq!((from, first, end, status.records), (500, 0, 10, 0));
    let told = status.stopped.unwrap().to_string();
    assert!(told.starts_with("SOURCE_GAP 10..500: orders partition 0 "), "{told}");
    drop(source.stop().await);
    accept_gap(&connection, &settings, place(4)).await.unwrap();
    let source = start(&broker, &intake, Format::Canonical);
    let _ = until(&source, |status| status.records == 6).await;
    let _ = source.stop().await;
    assert_eq!(events(&*log).await.len(), 6);
}

#[tokio::test]
async fn settings_of_a_source_are_checked() {
    let log = Arc::new(MemoryLog::new(1));
    let intake = intake(&log, Arc::new(MemoryLog::new(1))).await;
    let good = source_options(Format::Segment);
    for (bad, told) in [
        (
            SourceOptions {
                name: String::new(),
                ..good.clone()
            },
            "name",
        ),
        (
            SourceOptions {
                topics: vec![],
                ..good.clone()
            },
            "topic",
        ),
        (
            SourceOptions {
                dead_letter_topic: "orders".to_owned(),
                ..good.clone()
            },
            "dead-letter",
        ),
        (
            SourceOptions {
                batch_records: 0,
                ..good
            },
            "batch-records",
        ),
    ] {
        let refused = Source::start(&Connection::to("localhost:1"), bad, intake.clone(), Arc::new(|| NOW));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
    }
}

#[tokio::test]
async fn outputs_are_keyed_by_customer_and_confirmed() {
    let broker = Broker::start();
    let connection = broker.connection();
    create(&connection, "vigie.scores", 3).await;
    create(&connection, "vigie.relances", 1).await;
    let outputs = Outputs::open(&connection, OutputOptions::default()).unwrap();
    let customer = |name: &str| CustomerKey::new(shop(), PersonId::known(name).unwrap());
    let score = |name: &str, body: &'static str| (customer(name), Some(Bytes::from_static(body.as_bytes())));
    outputs
        .scores(vec![
            score("anna", "1"),
            score("ben", "2"),
            score("anna", "3"),
            (customer("ben"), None),
        ])
        .await
        .unwrap();
    let scores = stored(&connection, "vigie.scores", 3);
    let of = |name: &str| -> Vec<Option<Vec<u8>>> {
        let key = format!("shop/{name}");
        let records = scores.iter().filter(|(found, ..)| found.as_deref() == Some(&key));
        records.map(|(_, value, _)| value.clone()).collect()
    };
    assert_eq!(of("anna"), [Some(b"1".to_vec()), Some(b"3".to_vec())]);
    assert_eq!(
        of("ben"),
        [Some(b"2".to_vec()), None],
        "an erased customer is a tombstone"
    );
    let id = FlagId([7; 16]);
    let message = RelanceMessage {
        id,
        customer: customer("anna"),
        body: Bytes::from_static(b"{}"),
    };
    outputs.relances(vec![message.clone(), message]).await.unwrap();
    let told = (
        Some("shop/anna".to_owned()),
        Some(b"{}".to_vec()),
        vec![("webhook-id".to_owned(), id.to_string())],
    );
    assert_eq!(
        stored(&connection, "vigie.relances", 1),
        [told.clone(), told],
        "the id is what a receiver keys on"
    );
}

/// murmur2 over the key, as Kafka's Java client does it.
#[tokio::test]
async fn keys_lie_where_our_own_partitioner_looks() {
    let broker = Broker::start();
    let connection = broker.connection();
    create(&connection, "vigie.scores", 7).await;
    let outputs = Outputs::open(&connection, OutputOptions::default()).unwrap();
    let customers: Vec<CustomerKey> = (0..40)
        .map(|i| CustomerKey::new(shop(), PersonId::known(&format!("c{i}")).unwrap()))
        .collect();
    let scores = customers
        .iter()
        .map(|customer| (customer.clone(), Some(Bytes::from_static(b"x"))));
    outputs.scores(scores.collect()).await.unwrap();
    let log = KafkaLog::open(connection, options("vigie.scores", 7)).await.unwrap();
    let mut expected = vec![0u64; 7];
    for customer in &customers {
        expected[usize::from(vigie_event::partition_for(&customer.to_string(), 7).0)] += 1;
    }
    let found: Vec<u64> = log.ends().iter().map(|end| end.0).collect();
    assert_eq!(found, expected);
}
