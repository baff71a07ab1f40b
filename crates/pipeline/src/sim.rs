//! The simulator: the same worker over a log and a store in memory, with a clock that is turned by hand. Scenarios, property
//! tests and demonstrations of "what if" run on it; it has no fold of its own.

use crate::errors::WorkerError;
use crate::worker::Worker;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{Body, CustomerKey, Event, Partition, Record, Timestamp, partition_for};
use vigie_ingestion::log::{Log, LogReader, MemoryLog, MemoryReader};
use vigie_scoring::CustomerState;
use vigie_store::{MemoryStore, Store};
use vigie_telemetry::Metrics;

/// A whole pipeline in memory.
#[derive(Debug)]
pub struct Sim {
    /// The worker under simulation.
    pub worker: Worker<MemoryLog, MemoryStore, ()>,
    reader: MemoryReader,
    now: Timestamp,
}

impl Sim {
    /// An empty installation with this model and these policies in force from `now` on.
    pub async fn start(partitions: u16, model: &str, policies: &str, now: Timestamp) -> Result<Self, WorkerError> {
        let log = Arc::new(MemoryLog::new(partitions));
        let store = Arc::new(MemoryStore::new(partitions));
        Self::over(log, store, model, policies, now).await
    }

    /// An installation over a log and a store that exist already: a restart.
    pub async fn over(
        log: Arc<MemoryLog>,
        store: Arc<MemoryStore>,
        model: &str,
        policies: &str,
        now: Timestamp,
    ) -> Result<Self, WorkerError> {
        let mut sim = Self::open(log, store, now).await?;
        let _ = sim.worker.survey().await?;
        let _ = sim.worker.activate(model, policies, now).await?;
        sim.worker.resume(now).await?;
        sim.settle(usize::MAX).await?;
        Ok(sim)
    }

    /// An installation over a log and a store that exist already, with nothing folded and nothing put in force that the
    /// log itself does not say: a replay.
    pub async fn open(log: Arc<MemoryLog>, store: Arc<MemoryStore>, now: Timestamp) -> Result<Self, WorkerError> {
        let worker = Worker::open(log, store, Arc::new(()), Metrics::disabled()).await?;
        let reader = worker.log().reader(worker.positions())?;
        Ok(Self { worker, reader, now })
    }

    /// The time of the simulation.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Appends events as the collector would, without folding them.
    pub async fn append(&mut self, events: Vec<Event>) -> Result<(), WorkerError> {
        let partitions = self.worker.log().partitions();
        let mut records = Vec::with_capacity(events.len());
        for event in events {
            self.now = self.now.max(event.received_at);
            let key = event.person.key().map_or("", |person| person.as_str());
            let partition = partition_for(key, partitions);
            records.push((
                partition,
                Bytes::from(Record::new(Body::Event(Box::new(event))).encode()),
            ));
        }
        let _ = self.worker.log().append(records).await?;
        Ok(())
    }

    /// Folds everything that the log holds, in batches of at most `batch` records, including what the fold itself appends.
    pub async fn settle(&mut self, batch: usize) -> Result<(), WorkerError> {
        loop {
            let entries = self.reader.next(batch.max(1), usize::MAX, Duration::ZERO).await?;
            if entries.is_empty() {
                return Ok(());
            }
            self.worker.process(&entries, self.now).await?;
        }
    }

    /// Lets time pass to `until`, appending ticks as the live driver would: when and where a timer is due.
    pub async fn pass_to(&mut self, until: Timestamp) -> Result<(), WorkerError> {
        while let Some(due) = self.worker.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let partitions: Vec<Partition> = self.worker.overdue(self.now);
            if partitions.is_empty() {
                break;
            }
            self.worker.tick(&partitions, self.now).await?;
            self.settle(usize::MAX).await?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// A customer's record, links followed.
    pub async fn customer(&self, key: &CustomerKey) -> Result<Option<CustomerState>, WorkerError> {
        let mut key = key.clone();
        loop {
            let Some(Some(bytes)) = self.worker.store().load(std::slice::from_ref(&key)).await?.pop() else {
                return Ok(None);
            };
            let state = CustomerState::decode(&bytes).map_err(|error| WorkerError::Record {
                key: key.clone(),
                reason: error.to_string(),
            })?;
            match &state.linked_to {
                Some(target) => key.person = target.clone(),
                None => return Ok(Some(state)),
            }
        }
    }

    /// Every stored record's canonical bytes.
    pub async fn records(&self) -> Result<BTreeMap<CustomerKey, Bytes>, WorkerError> {
        let mut all = BTreeMap::new();
        for partition in (0..self.worker.log().partitions()).map(Partition) {
            all.extend(self.worker.store().scan(partition, None, usize::MAX).await?);
        }
        Ok(all)
    }
}
