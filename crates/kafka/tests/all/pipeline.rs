//! The worker over Kafka: what it makes of a log on a topic is what the independent oracle says, and what it makes of the
//! same events in memory; workers that come, go and wake up late change nothing of that.

use crate::broker::{Broker, options};
use crate::proxy::Proxy;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use vigie_audit::{Facts, Live, Report, Sample, Verdict, compare, recompute};
use vigie_event::json::{Receipt, read};
use vigie_event::{
    Body, CustomerKey, DAY_MS, Offset, Partition, Position, Record, Timestamp, Workspace, partition_for,
};
use vigie_ingestion::log::{ErrorClass, Log, LogReader, MemoryLog};
use vigie_kafka::KafkaLog;
use vigie_kafka::ownership::{Assignment, Assignments, MemberOptions, Release};
use vigie_pipeline::{Worker, WorkerError};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::{MemoryStore, Snapshot, Store, StoreError};
use vigie_telemetry::Metrics;

const TOPIC: &str = "vigie.log";
const PARTITIONS: u16 = 4;
const BASE: Timestamp = Timestamp(1_770_000_000_000);
const WAIT: Duration = Duration::from_millis(100);

type Over<L> = Worker<L, MemoryStore, ()>;

/// Events of some customers over some weeks; every seventh comes twice, and with `links` some tell that two ids are one.
fn events(count: u64, links: bool) -> Vec<(Partition, Bytes)> {
    let mut records = Vec::new();
    for i in 0..count {
        let (person, other) = (i * 7 % 23, i * 5 % 11);
        let received_at = BASE.plus_ms(i as i64 * DAY_MS / 20);
        let text = match i % 9 {
            0 if links => {
                format!(
                    r#"{{"id":"i{i}","anonymous_id":"a{person}","user_id":"u{other}","signal":"identity.identify"}}"#
                )
            }
            1 | 2 => format!(r#"{{"id":"v{i}","anonymous_id":"a{person}","signal":"page.view"}}"#),
            3 => {
                format!(
                    r#"{{"id":"c{i}","user_id":"u{other}","signal":"page.view","consent":{{"profiling":"granted"}}}}"#
                )
            }
            _ => format!(
                r#"{{"id":"p{i}","user_id":"u{person}","signal":"purchase","money":{{"amount":{other},"currency":"EUR"}}}}"#
            ),
        };
        let receipt = Receipt {
            workspace: Workspace::new("shop").unwrap(),
            received_at,
            sent_at: None,
            user_agent: None,
            oldest: None,
        };
        let event = read(&text, &receipt).unwrap();
        let partition = partition_for(event.person.key().unwrap().as_str(), PARTITIONS);
        let record = (
            partition,
            Bytes::from(Record::new(Body::Event(Box::new(event))).encode()),
        );
        if i % 7 == 0 {
            records.push(record.clone());
        }
        records.push(record);
    }
    records
}

async fn own<L: Log>(log: &Arc<L>, store: &Arc<MemoryStore>, partitions: &BTreeSet<Partition>) -> Over<L> {
    let partitions = partitions.iter().copied().collect();
    let mut worker = Worker::own(
        Arc::clone(log),
        Arc::clone(store),
        Arc::new(()),
        Metrics::disabled(),
        partitions,
    )
    .await
    .unwrap();
    let _ = worker.survey().await.unwrap();
    let _ = worker
        .activate(Model::shipped_text(), PolicySet::shipped_text(), BASE)
        .await
        .unwrap();
    worker.resume(BASE).await.unwrap();
    worker
}

fn all() -> BTreeSet<Partition> {
    (0..PARTITIONS).map(Partition).collect()
}

/// Folds what the log holds, in batches of at most `batch`, until there is no more.
async fn settle<L: Log>(worker: &mut Over<L>, batch: usize) -> Result<(), WorkerError> {
    let mut reader = worker.log().reader(worker.positions())?;
    loop {
        let behind = |ends: &[Offset]| {
            let positions = worker.positions();
            positions
                .iter()
                .any(|(partition, next)| ends[usize::from(partition.0)] > *next)
        };
        if !behind(&worker.log().ends()) {
            return Ok(());
        }
        let entries = reader.next(batch, usize::MAX, Duration::from_secs(5)).await?;
        worker.process(&entries, BASE).await?;
    }
}

async fn records(store: &MemoryStore) -> BTreeMap<CustomerKey, Bytes> {
    let mut rows = BTreeMap::new();
    for partition in all() {
        rows.extend(store.scan(partition, None, usize::MAX).await.unwrap());
    }
    rows
}

/// What the oracle says of the log against what the store holds.
async fn audit(log: &KafkaLog, store: &MemoryStore) -> Report {
    let starts = all().into_iter().zip(log.starts()).collect();
    let entries = crate::log_suite::read_all(log, starts).await.unwrap();
    let decoded = entries
        .iter()
        .map(|entry| (entry.position, Record::decode(&entry.payload).unwrap()));
    let decoded: Vec<(Position, Record)> = decoded.collect();
    let snapshot = store.snapshot().await.unwrap();
    let facts = |partition| Facts::decode(&snapshot.partition(partition).unwrap().unwrap()).unwrap();
    let cut: BTreeMap<Partition, Offset> = all()
        .into_iter()
        .map(|partition| (partition, facts(partition).next))
        .collect();
    assert_eq!(
        cut.values().copied().collect::<Vec<_>>(),
        log.ends(),
        "folded to the end"
    );
    let expected = recompute(PARTITIONS, &cut, decoded).unwrap();
    let live = |partition| {
        Ok::<_, String>(Live {
            facts: facts(partition),
            customers: snapshot
                .scan(partition, None, usize::MAX)
                .unwrap()
                .into_iter()
                .map(Ok::<_, String>),
        })
    };
    let flags = snapshot.flags(None, usize::MAX).unwrap();
    let flags = flags.into_iter().map(|(workspace, _, body)| Ok((workspace, body)));
    let report = compare(Sample::all(PARTITIONS), expected, live, flags);
    assert_eq!(report.verdict, Verdict::Equal, "{report}");
    println!("{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fold_over_kafka_is_the_fold_in_memory_and_what_the_oracle_says() {
    let broker = Broker::start();
    let kafka = Arc::new(broker.log(TOPIC, PARTITIONS).await);
    let memory = Arc::new(MemoryLog::new(PARTITIONS));
    let (store, twin) = (
        Arc::new(MemoryStore::new(PARTITIONS)),
        Arc::new(MemoryStore::new(PARTITIONS)),
    );
    let mut over_kafka = own(&kafka, &store, &all()).await;
    let mut in_memory = own(&memory, &twin, &all()).await;
    for call in events(600, false).chunks(40) {
        let positions = kafka.append(call.to_vec()).await.unwrap();
        assert_eq!(memory.append(call.to_vec()).await.unwrap(), positions);
    }
    settle(&mut over_kafka, 37).await.unwrap();
    settle(&mut in_memory, 500).await.unwrap();
    assert_eq!(audit(&kafka, &store).await.books.applied, 600);
    assert_eq!(records(&store).await, records(&twin).await);
    // A restart over the same store goes on where that stands, whatever else has been said.
    drop(over_kafka);
    let again = own(&kafka, &store, &all()).await;
    assert_eq!(again.positions().into_values().collect::<Vec<_>>(), kafka.ends());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_wakes_up_late_writes_nothing() {
    let broker = Broker::start();
    let log = Arc::new(broker.log(TOPIC, PARTITIONS).await);
    let store = Arc::new(MemoryStore::new(PARTITIONS));
    let mut zombie = own(&log, &store, &all()).await;
    let _ = log.append(events(60, true)).await.unwrap();
    // It has read its batch, and sleeps before it folds it.
    let mut reader = log.reader(zombie.positions()).unwrap();
    let mut asleep = Vec::new();
    while asleep.len() < 40 {
        asleep.extend(
            reader
                .next(40 - asleep.len(), usize::MAX, Duration::from_secs(5))
                .await
                .unwrap(),
        );
    }
    let mut heir = own(&log, &store, &all()).await;
    settle(&mut heir, 100).await.unwrap();
    let before = records(&store).await;
    let refused = zombie.process(&asleep, BASE).await;
    assert!(
        matches!(refused, Err(WorkerError::Store(StoreError::Fenced { .. }))),
        "{refused:?}"
    );
    assert_eq!(records(&store).await, before);
    // What it derived before it was refused stands in the log, and is recognised there as known.
    settle(&mut heir, 100).await.unwrap();
    let _report = audit(&log, &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f31_confirmations_that_are_lost_on_the_way_double_no_effect() {
    let proxy = Proxy::start().await;
    let broker = Broker::before(Some(proxy.port()));
    proxy.to(broker.port());
    let log = Arc::new(broker.log(TOPIC, PARTITIONS).await);
    let store = Arc::new(MemoryStore::new(PARTITIONS));
    let mut worker = own(&log, &store, &all()).await;
    let records = events(200, false);
    let (mut calls, mut repeated) = (0, 0);
    for call in records.chunks(20) {
        // The answer to the produce request is cut off with its connection.
        proxy.lose_next(0);
        calls += 1;
        while let Err(error) = log.append(call.to_vec()).await {
            assert_eq!(error.class(), ErrorClass::External, "{error}");
            repeated += 1;
        }
    }
    assert_eq!(proxy.lost(), calls, "every call lost an answer");
    settle(&mut worker, 100).await.unwrap();
    let report = audit(&log, &store).await;
    assert_eq!(report.books.applied, 200, "each event has its effect once");
    println!("F31: {calls} answers lost, {repeated} calls repeated, 0 effects lost, 0 doubled");
}

/// A process of the group: a member, and a worker of what the member was given.
struct Process {
    assignments: Assignments,
    log: Arc<KafkaLog>,
    store: Arc<MemoryStore>,
    owned: BTreeSet<Partition>,
    worker: Option<Over<KafkaLog>>,
    fenced: u32,
}

impl Process {
    async fn start(broker: &Broker, store: &Arc<MemoryStore>) -> Self {
        let log = KafkaLog::open(broker.connection(), options(TOPIC, PARTITIONS))
            .await
            .unwrap();
        let member = MemberOptions {
            session_timeout: Duration::from_secs(6),
            ..MemberOptions::new(TOPIC, "workers")
        };
        Self {
            assignments: Assignments::join(&broker.connection(), &member).unwrap(),
            log: Arc::new(log),
            store: Arc::clone(store),
            owned: BTreeSet::new(),
            worker: None,
            fenced: 0,
        }
    }

    /// Takes the changes that are there, then folds a little.
    async fn step(&mut self) {
        while let Ok(change) = tokio::time::timeout(Duration::from_millis(10), self.assignments.next()).await {
            self.change(change.expect("the member lives")).await;
        }
        let Some(worker) = &mut self.worker else { return };
        let mut reader = self.log.reader(worker.positions()).unwrap();
        let entries = reader.next(20, usize::MAX, WAIT).await.unwrap();
        match worker.process(&entries, BASE).await {
            Ok(()) => self.assignments.member().hint(worker.positions()),
            // Another claimed in between: what is owned is claimed anew with the next change.
            Err(WorkerError::Store(StoreError::Fenced { .. })) => {
                self.fenced += 1;
                self.worker = None;
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn change(&mut self, change: Assignment) {
        let release: Option<Release> = match change {
            Assignment::Assigned(partitions) => {
                self.owned.extend(partitions);
                None
            }
            Assignment::Revoked(partitions, release) => {
                self.owned.retain(|partition| !partitions.contains(partition));
                Some(release)
            }
            Assignment::Lost(partitions) => {
                self.owned.retain(|partition| !partitions.contains(partition));
                None
            }
            Assignment::Failed(reason) => panic!("{reason}"),
        };
        // Nothing of what is given away is worked on any more when the release is dropped.
        self.worker = None;
        drop(release);
        if !self.owned.is_empty() {
            self.worker = Some(own(&self.log, &self.store, &self.owned).await);
        }
    }
}

/// Lets the processes work until they share all partitions among them, each one by exactly one, and are at the end.
async fn converge(processes: &mut [Process]) {
    let settled = async {
        loop {
            for process in processes.iter_mut() {
                process.step().await;
            }
            let owned: usize = processes.iter().map(|process| process.owned.len()).sum();
            let all_work = processes.iter().all(|process| process.worker.is_some());
            let mut positions = BTreeMap::new();
            for worker in processes.iter().filter_map(|process| process.worker.as_ref()) {
                positions.extend(worker.positions());
            }
            let at_the_end = positions.into_values().eq(processes[0].log.ends());
            if owned == usize::from(PARTITIONS) && all_work && at_the_end {
                return;
            }
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(60), settled).await;
    let shares: Vec<_> = processes.iter().map(|process| &process.owned).collect();
    assert!(settled.is_ok(), "the group does not settle: {shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_come_and_go_share_the_partitions_and_lose_nothing() {
    let broker = Broker::start();
    let log = Arc::new(broker.log(TOPIC, PARTITIONS).await);
    let store = Arc::new(MemoryStore::new(PARTITIONS));
    // What is in force stands at the head of every partition before the first event.
    settle(&mut own(&log, &store, &all()).await, 100).await.unwrap();
    let records = events(300, true);
    let mut calls = records.chunks(records.len().div_ceil(5));
    let mut feed = async || log.append(calls.next().unwrap().to_vec()).await.unwrap();
    let mut group = vec![
        Process::start(&broker, &store).await,
        Process::start(&broker, &store).await,
    ];
    let _ = feed().await;
    converge(&mut group).await;
    group.push(Process::start(&broker, &store).await);
    let _ = feed().await;
    converge(&mut group).await;
    group.truncate(1);
    let _ = feed().await;
    converge(&mut group).await;
    let _ = feed().await;
    let _ = feed().await;
    converge(&mut group).await;
    assert_eq!(group[0].owned, all());
    assert_eq!(audit(&group[0].log, &store).await.books.applied, 300);
}
