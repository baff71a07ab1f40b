//! Faults of the brokers and of the way to them (F30, F31, F34, F35): what was confirmed is there, once and in order; what
//! is missing is said; nothing is reset.

use crate::broker::{Broker, options};
use crate::log_suite::read_all;
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset as Raw, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{Offset, Partition, Position};
use vigie_ingestion::log::{ErrorClass, Health, Log, LogError, LogReader};
use vigie_kafka::{Compression, Connection, KafkaLog, LogOptions};

const TOPIC: &str = "vigie.log";
/// Of appends that are to succeed, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn everything(log: &KafkaLog) -> BTreeMap<Partition, Offset> {
    (0..log.partitions()).map(Partition).zip(log.starts()).collect()
}

/// Appends numbered records one call after the other until `count` are confirmed, repeating what is not. Answers where each
/// was confirmed, and how many calls were not.
async fn append_numbered(log: &KafkaLog, task: u16, count: u64) -> (Vec<(Position, String)>, u64) {
    let (mut confirmed, mut repeated) = (Vec::new(), 0);
    for number in 0..count {
        let payload = format!("{task}/{number}");
        let partition = Partition(task % log.partitions());
        loop {
            match log.append(vec![(partition, Bytes::from(payload.clone()))]).await {
                Ok(positions) => {
                    confirmed.push((positions[0], payload));
                    break;
                }
                Err(error) => {
                    assert_eq!(error.class(), ErrorClass::External, "{error}");
                    repeated += 1;
                }
            }
        }
    }
    (confirmed, repeated)
}

/// How often each payload stands in the log, in order of first appearance.
async fn payloads(log: &KafkaLog) -> BTreeMap<Position, String> {
    let entries = read_all(log, everything(log)).await.unwrap();
    let text = |payload: &Bytes| String::from_utf8(payload.to_vec()).unwrap();
    entries
        .iter()
        .map(|entry| (entry.position, text(&entry.payload)))
        .collect()
}

/// Everything confirmed is where it was said to be; each task's numbers appear in order; answers the number of records that
/// stand in the log more than once.
fn check_confirmed(log: &BTreeMap<Position, String>, confirmed: &[(Position, String)]) -> usize {
    for (position, payload) in confirmed {
        assert_eq!(log.get(position), Some(payload), "confirmed at {position}");
    }
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for payload in log.values() {
        let (task, number) = payload.split_once('/').unwrap();
        let next = next.entry(task.parse().unwrap()).or_default();
        let number: u64 = number.parse().unwrap();
        assert!(number <= *next, "{payload} before {next}");
        *next = (*next).max(number + 1);
    }
    let distinct: BTreeSet<&String> = log.values().collect();
    log.len() - distinct.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f30_a_broker_that_is_killed_again_and_again_loses_nothing() {
    const TASKS: u16 = 4;
    const BOUNCES: usize = 6;
    let mut broker = Broker::start();
    broker.topic(TOPIC, 2).await;
    let options = LogOptions {
        append_timeout: Duration::from_secs(1),
        ..options(TOPIC, 2)
    };
    let log = Arc::new(KafkaLog::open(broker.connection(), options).await.unwrap());
    let mut reader = log.reader(everything(&log)).unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (log, stopped) = (Arc::clone(&log), stopped.clone());
        let _ = tasks.spawn(async move {
            let (mut confirmed, mut repeated) = (Vec::new(), 0);
            let mut number = 0;
            while !*stopped.borrow() {
                let payload = format!("{task}/{number}");
                match log
                    .append(vec![(Partition(task % 2), Bytes::from(payload.clone()))])
                    .await
                {
                    Ok(positions) => {
                        confirmed.push((positions[0], payload));
                        number += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.class(), ErrorClass::External, "{error}");
                        repeated += 1;
                    }
                }
            }
            (confirmed, repeated)
        });
    }
    // The reader follows through all of it: each bounce waits until it has seen something new.
    let mut seen = Vec::new();
    for _ in 0..BOUNCES {
        let before = seen.len();
        while seen.len() < before + 20 {
            seen.extend(reader.next(100, usize::MAX, Duration::from_secs(30)).await.unwrap());
        }
        broker.down();
        broker.up();
    }
    let _ = stop.send(true);
    let (mut confirmed, mut repeated) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (positions, count) = done.unwrap();
        confirmed.extend(positions);
        repeated += count;
    }
    let after = append_numbered(&log, 9, 1).await;
    let mut entries = payloads(&log).await;
    entries.retain(|_, payload| !payload.starts_with("9/"));
    let doubles = check_confirmed(&entries, &confirmed);
    assert!(
        doubles as u64 <= repeated,
        "only calls that were not confirmed may stand twice"
    );
    assert_eq!(log.health(), Health::Ok);
    let read: BTreeMap<Position, String> = seen
        .iter()
        .map(|entry| (entry.position, String::from_utf8(entry.payload.to_vec()).unwrap()))
        .collect();
    assert_eq!(read.len(), seen.len(), "nothing was read twice");
    for (position, payload) in read.iter().filter(|(position, _)| **position != after.0[0].0) {
        assert_eq!(entries.get(position), Some(payload));
    }
    println!(
        "F30: {BOUNCES} kills, {} confirmed, 0 lost, {repeated} calls not confirmed, {doubles} of them written twice",
        confirmed.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_committed_offsets_are_never_read() {
    let broker = Broker::start();
    let log = broker.log(TOPIC, 2).await;
    let appended = log
        .append(
            (0..20u8)
                .map(|i| (Partition(u16::from(i % 2)), Bytes::from(vec![i])))
                .collect(),
        )
        .await
        .unwrap();
    assert_eq!(appended.len(), 20);
    for corrupt in [Raw::Offset(0), Raw::Offset(10), Raw::Offset(7), Raw::Offset(1_000_000)] {
        commit(&broker.connection(), &log.options().group, corrupt);
        let again = KafkaLog::open(broker.connection(), options(TOPIC, 2)).await.unwrap();
        let from = BTreeMap::from([(Partition(0), Offset(3)), (Partition(1), Offset(9))]);
        let read = read_all(&again, from).await.unwrap();
        let mut offsets: Vec<_> = read
            .iter()
            .map(|entry| (entry.position.partition.0, entry.position.offset.0))
            .collect();
        offsets.sort_unstable();
        let expected: Vec<_> = (3..10).map(|offset| (0, offset)).chain([(1, 9)]).collect();
        assert_eq!(offsets, expected, "with {corrupt:?} committed");
    }
}

fn commit(connection: &Connection, group: &str, offset: Raw) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", connection.brokers.join(","))
        .set("group.id", group)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..2 {
        list.add_partition_offset(TOPIC, partition, offset).unwrap();
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

/// librdkafka's own mock cluster: it keeps at most 5 MiB of a partition, and answers as it is told.
struct Mock(MockCluster<'static, DefaultProducerContext>);

impl Mock {
    fn new(brokers: i32, partitions: i32) -> Self {
        let cluster = MockCluster::new(brokers).unwrap();
        cluster.create_topic(TOPIC, partitions, brokers).unwrap();
        Self(cluster)
    }

    async fn log(&self, partitions: u16, append_timeout: Duration) -> KafkaLog {
        let options = LogOptions {
            append_timeout,
            // What is written shall be as long as it is.
            compression: Compression::None,
            fetch_ahead_bytes: 1_000_000,
            ..options(TOPIC, partitions)
        };
        KafkaLog::open(Connection::to(&self.0.bootstrap_servers()), options)
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f30_errors_that_pass_are_outlived_in_order() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    };
    let mock = Mock::new(3, 2);
    let log = mock.log(2, PATIENCE).await;
    for (task, error) in [
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ]
    .into_iter()
    .enumerate()
    {
        mock.0.request_errors(RDKafkaApiKey::Produce, &[error, error]);
        let (confirmed, _) = append_numbered(&log, task as u16, 5).await;
        let entries = payloads(&log).await;
        let _doubles = check_confirmed(&entries, &confirmed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f30_while_no_broker_answers_appends_are_unknown_and_arrive_once_when_one_does() {
    let mock = Mock::new(1, 1);
    let log = mock.log(1, Duration::from_secs(2)).await;
    let first = log
        .append(vec![(Partition(0), Bytes::from_static(b"0/0"))])
        .await
        .unwrap();
    mock.0.broker_down(1).unwrap();
    let unknown = log
        .append(vec![(Partition(0), Bytes::from_static(b"0/1"))])
        .await
        .unwrap_err();
    assert!(matches!(unknown, LogError::Unknown { .. }), "{unknown}");
    assert_eq!((unknown.tag(), unknown.class()), ("unknown", ErrorClass::External));
    assert!(matches!(log.health(), Health::Degraded(_)), "{:?}", log.health());
    mock.0.broker_up(1).unwrap();
    // A later record of the same partition is confirmed only behind the one that was in doubt.
    let (after, _) = append_numbered(&log, 1, 1).await;
    let entries = payloads(&log).await;
    let told: Vec<_> = entries.values().map(String::as_str).collect();
    assert_eq!(told[..2], ["0/0", "0/1"]);
    assert_eq!(entries.get(&first[0]).map(String::as_str), Some("0/0"));
    let _doubles = check_confirmed(&entries, &after);
    assert_eq!(log.health(), Health::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f35_an_offset_that_retention_took_stops_the_reader_with_its_range() {
    let mock = Mock::new(1, 1);
    let log = mock.log(1, PATIENCE).await;
    let big = || vec![(Partition(0), Bytes::from(vec![7u8; 100_000]))];
    for _ in 0..20 {
        let _ = log.append(big()).await.unwrap();
    }
    let mut reader = log.reader(BTreeMap::from([(Partition(0), Offset(0))])).unwrap();
    let first = reader.next(1, 1, Duration::from_secs(10)).await.unwrap();
    assert_eq!(first[0].position.offset, Offset(0));
    // The reader dawdles while twice what the mock keeps is written.
    for _ in 0..110 {
        let _ = log.append(big()).await.unwrap();
    }
    let mut next = Offset(1);
    let gap = loop {
        match reader.next(10, usize::MAX, Duration::from_secs(30)).await {
            Ok(entries) => {
                assert!(!entries.is_empty(), "neither records nor an error at {next}");
                for entry in entries {
                    assert_eq!(entry.position.offset, next, "never a jump");
                    next = next.next();
                }
            }
            Err(error) => break error,
        }
    };
    let LogError::Gap { from, first, end, .. } = gap else {
        panic!("{gap}")
    };
    assert_eq!((from, end), (next, Offset(130)));
    assert!(from < first && first < end);
    assert!(
        gap.to_string()
            .starts_with(&format!("LOG_GAP {from}..{first}: partition 0 ")),
        "{gap}"
    );
    // It stays, also for a reader that begins there; one that begins at what is left reads it.
    assert_eq!(reader.next(1, 1, Duration::from_secs(5)).await.unwrap_err(), gap);
    assert_eq!(log.reader(BTreeMap::from([(Partition(0), from)])).unwrap_err(), gap);
    let rest = read_all(&log, BTreeMap::from([(Partition(0), first)])).await.unwrap();
    assert_eq!(rest.len() as u64, end.0 - first.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_or_a_call_that_is_too_large_is_refused_and_nothing_of_it_is_written() {
    let mock = Mock::new(1, 1);
    let log = mock.log(1, PATIENCE).await;
    let too_large = log
        .append(vec![
            (Partition(0), Bytes::from_static(b"small")),
            (Partition(0), Bytes::from(vec![0; 1_000_001])),
        ])
        .await
        .unwrap_err();
    assert!(matches!(too_large, LogError::TooLarge { .. }), "{too_large}");
    assert_eq!(log.ends(), [Offset(0)]);
}

#[tokio::test]
async fn opening_says_what_is_missing() {
    let mock = Mock::new(1, 2);
    let connection = Connection::to(&mock.0.bootstrap_servers());
    let refused = KafkaLog::open(connection.clone(), options(TOPIC, 3)).await.unwrap_err();
    assert!(
        refused.to_string().contains("has 2 partitions, the log has 3"),
        "{refused}"
    );
    let settings = LogOptions {
        append_timeout: Duration::from_millis(1),
        ..options(TOPIC, 2)
    };
    let refused = KafkaLog::open(connection, settings).await.unwrap_err();
    assert!(
        refused.to_string().contains("append-timeout must be between"),
        "{refused}"
    );
    let nobody = LogOptions {
        append_timeout: Duration::from_millis(300),
        ..options(TOPIC, 2)
    };
    let silent = Connection::to(&format!("127.0.0.1:{}", crate::broker::free_port()));
    let refused = KafkaLog::open(silent, nobody).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::External, "{refused}");
}
