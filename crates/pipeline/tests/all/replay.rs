//! FOLD-1 and STEP-1 for replays: a sandbox that reads the log in batches of any size ends with the records, flags and
//! books of a worker that folded it one record at a time; and the archivist hands over every record once, with the
//! judgement of the step that folded it.

use super::support::{event, run, workspace};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vigie_event::{CustomerKey, DAY_MS, Event, Offset, Partition, Position, Record, Timestamp};
use vigie_ingestion::log::{Entry, Health, Log, LogError, LogReader, MemoryLog};
use vigie_pipeline::{Archivist, ArchivistOptions, Sandbox, Shelf, Shelved, Sim, Worker};
use vigie_relance::PolicySet;
use vigie_scoring::{CustomerState, Model};
use vigie_store::{MemoryStore, Store};
use vigie_telemetry::Metrics;

const BASE: i64 = 1_770_000_000_000;
const PARTITIONS: u16 = 3;
const EAGER: &str = "[[policy]]\nid = \"early\"\nscore = \"attrition\"\nthreshold = 0.3\ncooldown-days = 5\n\n[[policy]]\nid = \"churn\"\nscore = \"churn-30\"\nthreshold = 0.5\n\n[policy.eligible]\nmin-purchase-days = 2\n\
    [[band]]\nname = \"risk\"\nscore = \"attrition\"\n[[band]]\nname = \"life\"\nscore = \"stage\"\n[[band]]\nname = \"tier\"\nscore = \"revenue\"\nedges = [100]\n";

/// Events of a few people with pauses of up to months, repeated ones, links, and refusals.
fn history(seed: &[(u8, u8, u16)]) -> Vec<Event> {
    let mut now = BASE;
    seed.iter()
        .enumerate()
        .map(|(index, (person, kind, hours))| {
            now += i64::from(*hours) * 3_600_000;
            // Some ids come twice with the same content.
            let id = if kind % 7 == 0 { index / 2 } else { index };
            let text = match kind % 9 {
                0 => format!(r#"{{"id":"{index}","anonymous_id":"a{person}","user_id":"u{person}","signal":"identity.identify"}}"#),
                1 | 2 => format!(r#"{{"id":"v{id}","anonymous_id":"a{person}","signal":"page.view"}}"#),
                3 => format!(r#"{{"id":"{index}","user_id":"u{person}","previous_id":"u{}","signal":"identity.alias"}}"#, person + 1),
                4 => format!(r#"{{"id":"{index}","user_id":"u{person}","signal":"page.view","consent":{{"profiling":"{}"}}}}"#, if index % 2 == 0 { "refused" } else { "granted" }),
                _ => format!(r#"{{"id":"p{id}","user_id":"u{person}","signal":"purchase","money":{{"amount":5,"currency":"EUR"}}}}"#),
            };
            event(&text, Timestamp(now))
        })
        .collect()
}

async fn entries(log: &MemoryLog) -> Vec<Entry> {
    let from = log.starts().into_iter().enumerate();
    let from: BTreeMap<Partition, Offset> = from.map(|(p, offset)| (Partition(p as u16), offset)).collect();
    let mut reader = log.reader(from).unwrap();
    reader.next(usize::MAX, usize::MAX, Duration::ZERO).await.unwrap()
}

fn decoded(entries: &[Entry]) -> Vec<(Position, Record)> {
    let record = |entry: &Entry| (entry.position, Record::decode(&entry.payload).unwrap());
    entries.iter().map(record).collect()
}

async fn flags(store: &MemoryStore) -> BTreeSet<Vec<u8>> {
    let rows = store.flags(&workspace(), 0, 100_000).await.unwrap();
    rows.into_iter().map(|(_, body)| body.to_vec()).collect()
}

/// A worker that folds record by record, with a change of policies on the way and a long silence at the end.
async fn live(seed: &[(u8, u8, u16)], change: usize) -> (Arc<MemoryLog>, Sim) {
    let (log, store) = (
        Arc::new(MemoryLog::new(PARTITIONS)),
        Arc::new(MemoryStore::new(PARTITIONS)),
    );
    let start = |policies: &'static str, now| {
        Sim::over(
            Arc::clone(&log),
            Arc::clone(&store),
            Model::shipped_text(),
            policies,
            now,
        )
    };
    let mut sim = start(PolicySet::shipped_text(), Timestamp(BASE)).await.unwrap();
    for (index, event) in history(seed).into_iter().enumerate() {
        if index == change {
            sim = start(EAGER, event.received_at).await.unwrap();
        }
        sim.append(vec![event]).await.unwrap();
        sim.settle(1).await.unwrap();
    }
    let end = sim.now().plus_ms(200 * DAY_MS);
    sim.pass_to(end).await.unwrap();
    (log, sim)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_replay_in_large_batches_is_the_live_store_byte_for_byte(
        seed in proptest::collection::vec((0u8..4, any::<u8>(), 0u16..500), 1..40),
        change in 0usize..40,
        batch in 1usize..200,
    ) {
        run(async {
            let (log, sim) = live(&seed, change).await;
            for batch in [batch, usize::MAX] {
                let mut sandbox = Sandbox::new(PARTITIONS).await.unwrap();
                for portion in entries(&log).await.chunks(batch.min(1 << 20)) {
                    sandbox.exact(decoded(portion)).await.unwrap();
                }
                let mut records = BTreeMap::new();
                for partition in (0..PARTITIONS).map(Partition) {
                    records.extend(sandbox.records(partition).await.unwrap());
                }
                prop_assert_eq!(records, sim.records().await.unwrap());
                // How the log was cut shows in nothing but early entries of the timer index.
                for store in [sandbox.store(), sim.worker.store()] {
                    let mut first: BTreeMap<CustomerKey, Timestamp> = BTreeMap::new();
                    for partition in (0..PARTITIONS).map(Partition) {
                        for (at, key) in store.due(partition, Timestamp(i64::MAX), 10_000).await.unwrap() {
                            let _ = first.entry(key).or_insert(at);
                        }
                    }
                    for (key, bytes) in sim.records().await.unwrap() {
                        if let Some(timer) = CustomerState::decode(&bytes).unwrap().timer {
                            prop_assert!(first.get(&key).is_some_and(|at| *at <= timer), "{} at {}", key, timer);
                        }
                    }
                }
                let ranks = async |store: &MemoryStore| store.at_risk(&workspace(), None, 1000).await.unwrap();
                prop_assert_eq!(ranks(sandbox.store()).await, ranks(sim.worker.store()).await);
                let text = |flags: BTreeSet<Vec<u8>>| -> Vec<String> {
                    flags.into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
                };
                let (replayed, lived) = (flags(sandbox.store()).await, flags(sim.worker.store()).await);
                prop_assert_eq!(text(replayed), text(lived));
                prop_assert_eq!(sandbox.store().counts().await.unwrap(), sim.worker.store().counts().await.unwrap());
                prop_assert_eq!(sandbox.books(), sim.worker.status().get().books);
                for partition in (0..PARTITIONS).map(Partition) {
                    let meta = sandbox.store().partition(partition).await.unwrap();
                    prop_assert_eq!(meta, sim.worker.store().partition(partition).await.unwrap());
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn what_if_raises_the_flags_of_a_live_worker_under_the_same_policies() {
    run(async {
        let seed: Vec<(u8, u8, u16)> = (0..120u32)
            .map(|n| ((n * 7 % 4) as u8, (n * 31 % 251) as u8, (n * 97 % 700) as u16))
            .collect();
        let start = Timestamp(BASE);
        let log = Arc::new(MemoryLog::new(PARTITIONS));
        let mut sim = Sim::over(
            Arc::clone(&log),
            Arc::new(MemoryStore::new(PARTITIONS)),
            Model::shipped_text(),
            EAGER,
            start,
        )
        .await
        .unwrap();
        let mut sandbox = Sandbox::new(PARTITIONS).await.unwrap();
        sandbox.activate(Model::shipped_text(), EAGER, start).await.unwrap();
        for event in history(&seed) {
            sim.append(vec![event.clone()]).await.unwrap();
            sim.settle(usize::MAX).await.unwrap();
            sandbox.what_if(vec![event]).await.unwrap();
        }
        let end = sim.now().plus_ms(300 * DAY_MS);
        sim.pass_to(end).await.unwrap();
        sandbox.pass_to(end).await.unwrap();
        assert!(!flags(sandbox.store()).await.is_empty());
        assert_eq!(flags(sandbox.store()).await, flags(sim.worker.store()).await);
        assert_eq!(sandbox.books(), sim.worker.status().get().books);
        assert!(sandbox.clock() >= end);
    });
}

/// A shelf in memory whose next writes may be told to fail.
#[derive(Debug, Clone, Default)]
struct Rack(Arc<Mutex<(Vec<Shelved>, usize)>>);

impl Shelf for Rack {
    fn ends(&self) -> Vec<Offset> {
        let mut ends = vec![Offset(0); usize::from(PARTITIONS)];
        for row in &self.0.lock().unwrap().0 {
            let end = &mut ends[usize::from(row.position.partition.0)];
            assert_eq!(row.position.offset, *end, "in order, without gaps");
            *end = end.next();
        }
        ends
    }

    async fn put(&mut self, rows: Vec<Shelved>) -> Result<(), String> {
        let mut rack = self.0.lock().unwrap();
        if rack.1 > 0 {
            rack.1 -= 1;
            return Err("no space".to_owned());
        }
        rack.0.extend(rows);
        Ok(())
    }
}

#[test]
fn the_archivist_hands_over_every_record_once_with_its_judgement() {
    run(async {
        let seed: Vec<(u8, u8, u16)> = (0..200u32)
            .map(|n| ((n * 5 % 4) as u8, (n * 29 % 251) as u8, (n * 17 % 60) as u16))
            .collect();
        let (log, store) = (
            Arc::new(MemoryLog::new(PARTITIONS)),
            Arc::new(MemoryStore::new(PARTITIONS)),
        );
        let rack = Rack::default();
        let mut worker = Worker::open(Arc::clone(&log), Arc::clone(&store), Arc::new(()), Metrics::disabled())
            .await
            .unwrap();
        let _ = worker
            .activate(Model::shipped_text(), PolicySet::shipped_text(), Timestamp(BASE))
            .await
            .unwrap();
        // Folded before judgements were kept.
        worker.process(&entries(&log).await, Timestamp(BASE)).await.unwrap();
        let mut worker = worker.keeping_judgements();
        let mut said = Vec::new();
        for (round, portion) in history(&seed).chunks(23).enumerate() {
            for event in portion {
                let partition = vigie_event::partition_for(event.person.key().unwrap().as_str(), PARTITIONS);
                let record = Record::new(vigie_event::Body::Event(Box::new(event.clone())));
                let _ = log.append(vec![(partition, record.encode().into())]).await.unwrap();
            }
            // Folding appends links, merges and forwards, which are folded in turn.
            while log.ends() != worker.positions().into_values().collect::<Vec<_>>() {
                for batch in entries(&log).await.chunks(7) {
                    worker.process(batch, Timestamp(BASE)).await.unwrap();
                }
            }
            rack.0.lock().unwrap().1 = usize::from(round % 3 == 1);
            // A new archivist each time: it remembers nothing but what the shelf holds.
            let options = ArchivistOptions {
                rows: 50,
                ..ArchivistOptions::default()
            };
            let (archivist, _) =
                Archivist::new(&*log, Arc::clone(&store), rack.clone(), worker.status(), options).unwrap();
            let outcome = archivist.catch_up(|outcome| drop(outcome.map_err(str::to_owned))).await;
            said.push(outcome.is_ok());
        }
        let (archivist, _) = Archivist::new(
            &*log,
            Arc::clone(&store),
            rack.clone(),
            worker.status(),
            ArchivistOptions::default(),
        )
        .unwrap();
        archivist.catch_up(|_| {}).await.unwrap();
        assert!(said.contains(&false) && said.contains(&true), "{said:?}");
        let positions = worker.positions();
        let shelved: Vec<Offset> = rack.ends();
        assert_eq!(
            shelved,
            positions.into_values().collect::<Vec<_>>(),
            "everything that is folded is on the shelf"
        );
        let rows = rack.0.lock().unwrap().0.clone();
        let entries: BTreeMap<Position, bytes::Bytes> = entries(&log)
            .await
            .into_iter()
            .map(|entry| (entry.position, entry.payload))
            .collect();
        assert_eq!(rows.len(), entries.len());
        assert!(rows.iter().all(|row| entries[&row.position] == row.bytes));
        let count = |label: &str| rows.iter().filter(|row| row.judgement.label() == label).count() as u64;
        let books = worker.status().get().books[&workspace()];
        assert_eq!(count("unrecorded"), u64::from(PARTITIONS), "the first activation");
        assert_eq!(
            (count("applied"), count("duplicate"), count("suppressed")),
            (books.applied, books.duplicate, books.suppressed)
        );
        assert!(books.applied > 0 && books.duplicate > 0 && books.suppressed > 0 && count("forwarded") > 0);
        // Only the last run of each partition is still kept in the store.
        for partition in (0..PARTITIONS).map(Partition) {
            assert!(store.judged(partition, Offset(0), 1000).await.unwrap().len() <= 1);
        }
    });
}

/// A log whose readers often find nothing in time, as the contract of `LogReader::next` allows.
struct Slow(Arc<MemoryLog>);

struct SlowReader(<MemoryLog as Log>::Reader, u32);

impl Log for Slow {
    type Reader = SlowReader;

    fn partitions(&self) -> u16 {
        self.0.partitions()
    }

    async fn append(&self, records: Vec<(Partition, bytes::Bytes)>) -> Result<Vec<Position>, LogError> {
        self.0.append(records).await
    }

    fn reader(&self, from: BTreeMap<Partition, Offset>) -> Result<SlowReader, LogError> {
        Ok(SlowReader(self.0.reader(from)?, 0))
    }

    fn ends(&self) -> Vec<Offset> {
        self.0.ends()
    }

    fn starts(&self) -> Vec<Offset> {
        self.0.starts()
    }

    fn health(&self) -> Health {
        self.0.health()
    }
}

impl LogReader for SlowReader {
    async fn next(&mut self, max_records: usize, max_bytes: usize, wait: Duration) -> Result<Vec<Entry>, LogError> {
        self.1 += 1;
        match self.1 % 3 {
            0 => self.0.next(max_records.min(10), max_bytes, wait).await,
            _ => Ok(Vec::new()),
        }
    }
}

/// A stretch of the log that is archived already takes a reader time and brings nothing; that was once taken for the end.
#[test]
fn the_archivist_is_not_done_because_a_look_at_the_log_brought_nothing() {
    run(async {
        let (log, store) = (
            Arc::new(MemoryLog::new(PARTITIONS)),
            Arc::new(MemoryStore::new(PARTITIONS)),
        );
        let mut worker = Worker::open(Arc::clone(&log), Arc::clone(&store), Arc::new(()), Metrics::disabled())
            .await
            .unwrap();
        let _ = worker
            .activate(Model::shipped_text(), PolicySet::shipped_text(), Timestamp(BASE))
            .await
            .unwrap();
        for event in history(&[(1, 1, 1), (2, 5, 2), (3, 5, 3)].repeat(20)) {
            let partition = vigie_event::partition_for(event.person.key().unwrap().as_str(), PARTITIONS);
            let record = Record::new(vigie_event::Body::Event(Box::new(event)));
            let _ = log.append(vec![(partition, record.encode().into())]).await.unwrap();
        }
        worker.process(&entries(&log).await, Timestamp(BASE)).await.unwrap();
        let rack = Rack::default();
        let (archivist, _) = Archivist::new(
            &Slow(Arc::clone(&log)),
            store,
            rack.clone(),
            worker.status(),
            ArchivistOptions::default(),
        )
        .unwrap();
        archivist.catch_up(|_| {}).await.unwrap();
        assert_eq!(rack.ends(), worker.positions().into_values().collect::<Vec<_>>());
    });
}
