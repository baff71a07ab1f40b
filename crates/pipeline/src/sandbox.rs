//! The replay driver: the same worker over a store in memory, fed with records that somebody else reads. Nothing that it
//! does reaches a log, a live store or a customer: it has no way to send.
//!
//! Two ways to feed it, which must not be mixed:
//!
//! - [`Sandbox::exact`] takes the log's records as they are, links, merges, forwards, ticks and activations included, and
//!   drops what its own fold derives, since the log holds that already. The result is the live store's, byte for byte.
//! - [`Sandbox::what_if`] takes events only, under whatever model and policies it was given, and lets its own fold derive
//!   the rest. Identities are decided by events alone, so a filtered or differently configured past is a consistent one.

use crate::errors::WorkerError;
use crate::meta::{Active, Books};
use crate::worker::Worker;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vigie_event::{
    Body, Control, CustomerKey, Event, Offset, Partition, Position, Record, Tick, Timestamp, Workspace, partition_for,
};
use vigie_ingestion::log::{Entry, Health, Log, LogError, LogReader};
use vigie_store::{MemoryStore, Store};
use vigie_telemetry::Metrics;

/// A worker that nothing leaves.
#[derive(Debug)]
pub struct Sandbox<S: Store = MemoryStore> {
    worker: Worker<Outlet, S, ()>,
    outlet: Arc<Outlet>,
    partitions: u16,
    /// Offsets of the sandbox's own log, for what-if runs.
    ends: BTreeMap<Partition, Offset>,
    now: Timestamp,
}

impl Sandbox {
    /// An empty one in memory.
    pub async fn new(partitions: u16) -> Result<Self, WorkerError> {
        Self::over(Arc::new(MemoryStore::new(partitions))).await
    }
}

impl<S: Store> Sandbox<S> {
    /// One over a store that no server uses. What the store holds already is not folded again.
    pub async fn over(store: Arc<S>) -> Result<Self, WorkerError> {
        let partitions = store.partitions();
        let outlet = Arc::new(Outlet {
            partitions,
            derived: Mutex::default(),
        });
        let worker = Worker::open(Arc::clone(&outlet), store, Arc::new(()), Metrics::disabled()).await?;
        Ok(Self {
            worker,
            outlet,
            partitions,
            ends: BTreeMap::new(),
            now: Timestamp(0),
        })
    }

    /// Keeps what became of each record in the store, as a live worker does.
    #[must_use]
    pub fn keeping_judgements(mut self) -> Self {
        self.worker = self.worker.keeping_judgements();
        self
    }

    /// Sets these records aside instead of folding them, as the worker did that could not fold them.
    pub fn set_aside(&mut self, positions: impl IntoIterator<Item = Position>) {
        self.worker.set_aside(positions);
    }

    /// Folds records of the log as they are; each partition's in order and without gaps.
    pub async fn exact(&mut self, records: Vec<(Position, Record)>) -> Result<(), WorkerError> {
        self.worker.process_records(records, self.now).await?;
        drop(self.outlet.take());
        Ok(())
    }

    /// Puts a model and policies in force in every partition, for what-if runs.
    pub async fn activate(&mut self, model: &str, policies: &str, at: Timestamp) -> Result<(), WorkerError> {
        let records = (0..self.partitions)
            .map(|partition| {
                let body = Body::Control(Control::Activate {
                    at,
                    model: model.into(),
                    policies: policies.into(),
                });
                (Partition(partition), Record::new(body))
            })
            .collect();
        self.append(records).await
    }

    /// Folds events, in the order of their receipt, with everything that follows from them.
    pub async fn what_if(&mut self, events: Vec<Event>) -> Result<(), WorkerError> {
        let records = events
            .into_iter()
            .map(|event| {
                let key = event.person.key().map_or("", |person| person.as_str());
                let partition = partition_for(key, self.partitions);
                (partition, Record::new(Body::Event(Box::new(event))))
            })
            .collect();
        self.append(records).await
    }

    /// Lets time pass to `until`: every timer due by then fires, as of its own due time.
    pub async fn pass_to(&mut self, until: Timestamp) -> Result<(), WorkerError> {
        let tick = |partition| (Partition(partition), Record::new(Body::Tick(Tick { at: until })));
        self.append((0..self.partitions).map(tick).collect()).await
    }

    async fn append(&mut self, records: Vec<(Partition, Record)>) -> Result<(), WorkerError> {
        let mut waiting = VecDeque::from([records]);
        while let Some(records) = waiting.pop_front() {
            let mut placed = Vec::with_capacity(records.len());
            for (partition, record) in records {
                let offset = self.ends.entry(partition).or_default();
                let position = Position {
                    partition,
                    offset: *offset,
                };
                *offset = offset.next();
                placed.push((position, record));
            }
            self.worker.process_records(placed, self.now).await?;
            let derived = self.outlet.take();
            if !derived.is_empty() {
                let decoded = derived
                    .into_iter()
                    .map(|(partition, bytes)| {
                        let offset = self.ends.get(&partition).copied().unwrap_or_default();
                        let position = Position { partition, offset };
                        let record = Record::decode(&bytes).map_err(|error| WorkerError::Undecodable {
                            position,
                            reason: error.to_string(),
                        })?;
                        Ok((partition, record))
                    })
                    .collect::<Result<Vec<_>, WorkerError>>()?;
                waiting.push_back(decoded);
            }
        }
        Ok(())
    }

    /// The earliest timer.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.worker.next_due()
    }

    /// The model and policies in force in the lowest partition that has any.
    #[must_use]
    pub fn active(&self) -> Option<Arc<Active>> {
        self.worker.status().read(|status| status.active.clone())
    }

    /// The store with what was folded.
    #[must_use]
    pub fn store(&self) -> &Arc<S> {
        self.worker.store()
    }

    /// Where each partition stands.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<Partition, Offset> {
        self.worker.positions()
    }

    /// What became of the events that were folded.
    #[must_use]
    pub fn books(&self) -> BTreeMap<Workspace, Books> {
        self.worker.status().read(|status| status.books.clone())
    }

    /// The latest time that a record brought, of all partitions.
    #[must_use]
    pub fn clock(&self) -> Timestamp {
        let latest = |status: &crate::Status| status.partitions.values().map(|state| state.clock).max();
        self.worker.status().read(latest).unwrap_or_default()
    }

    /// Every customer record of a partition.
    pub async fn records(&self, partition: Partition) -> Result<Vec<(CustomerKey, Bytes)>, WorkerError> {
        Ok(self.store().scan(partition, None, usize::MAX).await?)
    }
}

/// A log that only takes: what the fold derives is handed back to the sandbox.
#[derive(Debug)]
struct Outlet {
    partitions: u16,
    derived: Mutex<Vec<(Partition, Bytes)>>,
}

impl Outlet {
    fn take(&self) -> Vec<(Partition, Bytes)> {
        std::mem::take(&mut *self.derived.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Nothing to read.
#[derive(Debug)]
struct Nothing;

impl LogReader for Nothing {
    async fn next(&mut self, _: usize, _: usize, _: Duration) -> Result<Vec<Entry>, LogError> {
        Ok(Vec::new())
    }
}

impl Log for Outlet {
    type Reader = Nothing;

    fn partitions(&self) -> u16 {
        self.partitions
    }

    async fn append(&self, records: Vec<(Partition, Bytes)>) -> Result<Vec<Position>, LogError> {
        self.derived
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(records);
        // Nobody asks a sandbox where its derived records stand: it places them itself.
        Ok(Vec::new())
    }

    fn reader(&self, _: BTreeMap<Partition, Offset>) -> Result<Nothing, LogError> {
        Ok(Nothing)
    }

    fn ends(&self) -> Vec<Offset> {
        vec![Offset::default(); usize::from(self.partitions)]
    }

    fn starts(&self) -> Vec<Offset> {
        self.ends()
    }

    fn health(&self) -> Health {
        Health::Ok
    }
}
