//! What the tests share: a pipeline in memory, its log as records, its store as an audit reads it.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use vigie_audit::{Expected, Facts, Live, Oracle, Report, Sample, compare, recompute};
use vigie_event::{CustomerKey, Offset, Partition, Position, Record, Timestamp, Workspace};
use vigie_ingestion::log::{Log, LogReader, MemoryLog};
use vigie_pipeline::Sim;
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::{ErrorClass, MemoryStore, Snapshot, Store, StoreError};

pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// A log, a store, and the pipeline between them.
pub struct House {
    pub log: Arc<MemoryLog>,
    pub store: Arc<MemoryStore>,
    pub sim: Sim,
}

impl House {
    pub async fn open(partitions: u16, now: Timestamp) -> Self {
        let log = Arc::new(MemoryLog::new(partitions));
        let store = Arc::new(MemoryStore::new(partitions));
        let sim = start(&log, &store, now).await;
        Self { log, store, sim }
    }

    /// The process dies; log and store remain.
    pub async fn crash(&mut self) {
        let now = self.sim.now();
        self.sim = start(&self.log, &self.store, now).await;
    }

    pub async fn append(&self, partition: Partition, record: &Record) {
        let bytes = Bytes::from(record.encode());
        let _ = self.log.append(vec![(partition, bytes)]).await.unwrap();
    }

    /// Every record of the log.
    pub async fn records(&self) -> Vec<(Position, Record)> {
        records_of(&self.log).await
    }

    /// What the store holds.
    pub async fn rows(&self) -> Rows {
        Rows::of(&*self.store).await
    }
}

/// Every record of a log.
pub async fn records_of(log: &MemoryLog) -> Vec<(Position, Record)> {
    let starts = (0..log.partitions()).map(|p| (Partition(p), Offset(0))).collect();
    let mut reader = log.reader(starts).unwrap();
    let entries = reader.next(usize::MAX, usize::MAX, Duration::ZERO).await.unwrap();
    entries
        .into_iter()
        .map(|entry| (entry.position, Record::decode(&entry.payload).unwrap()))
        .collect()
}

async fn start(log: &Arc<MemoryLog>, store: &Arc<MemoryStore>, now: Timestamp) -> Sim {
    let (log, store) = (Arc::clone(log), Arc::clone(store));
    Sim::over(log, store, Model::shipped_text(), PolicySet::shipped_text(), now)
        .await
        .unwrap()
}

/// The rows of a store.
#[derive(Clone)]
pub struct Rows {
    pub partitions: BTreeMap<Partition, (Facts, Vec<(CustomerKey, Bytes)>)>,
    pub flags: Vec<(Workspace, Bytes)>,
}

impl Rows {
    /// What a store holds.
    pub async fn of<S: Store>(store: &S) -> Self {
        let snapshot = loop {
            match store.snapshot().await {
                // A store that fails over is waited for.
                Err(error) if error.class() == ErrorClass::External => tokio::task::yield_now().await,
                snapshot => break snapshot.unwrap(),
            }
        };
        let partitions = (0..store.partitions())
            .map(Partition)
            .map(|partition| {
                let facts = snapshot.partition(partition).unwrap();
                let facts = facts.map_or_else(Facts::default, |bytes| Facts::decode(&bytes).unwrap());
                let customers = snapshot.scan(partition, None, usize::MAX).unwrap();
                (partition, (facts, customers))
            })
            .collect();
        let flags = snapshot.flags(None, usize::MAX).unwrap();
        Self {
            partitions,
            flags: flags
                .into_iter()
                .map(|(workspace, _, body)| (workspace, body))
                .collect(),
        }
    }

    pub fn cut(&self) -> BTreeMap<Partition, Offset> {
        let facts = self.partitions.iter();
        facts.map(|(partition, (facts, _))| (*partition, facts.next)).collect()
    }

    /// An audit of these rows against what they must be.
    pub fn audit(&self, sample: Sample, expected: Vec<Expected>) -> Report {
        let live = |partition: Partition| -> Result<_, StoreError> {
            let (facts, customers) = self.partitions[&partition].clone();
            let customers = customers.into_iter().map(Ok);
            Ok(Live { facts, customers })
        };
        compare(sample, expected, live, self.flags.clone().into_iter().map(Ok))
    }

    pub fn audit_all(&self, records: &[(Position, Record)]) -> Report {
        let partitions = self.partitions.len() as u16;
        let expected = recompute(partitions, &self.cut(), records.iter().cloned()).unwrap();
        self.audit(Sample::all(partitions), expected)
    }
}

/// The same without the oracle's shortcut.
pub fn recompute_look_by_look(
    partitions: u16,
    cut: &BTreeMap<Partition, Offset>,
    records: &[(Position, Record)],
) -> Vec<Expected> {
    (0..partitions)
        .map(Partition)
        .map(|partition| {
            let mut oracle = Oracle::new(partition, partitions).unwrap().without_shortcut();
            for (position, record) in records.iter().filter(|(position, _)| position.partition == partition) {
                if position.offset < cut[&partition] {
                    oracle.fold(*position, record.clone()).unwrap();
                } else {
                    oracle.beyond(record);
                }
            }
            oracle.finish()
        })
        .collect()
}
