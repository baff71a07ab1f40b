//! The worker: fetches what a batch needs, lets the fold run over it, writes what came of it. All I/O of a step is here;
//! all meaning is in the fold.

use crate::errors::WorkerError;
use crate::fold::{After, Batch, Loaded, Tally};
use crate::meta::{Active, Meta, PartitionState, Rearm};
use crate::startup::read_control;
use crate::status::{PartitionStatus, StatusHandle};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use vigie_enrichment::Judge;
use vigie_event::{
    Body, CodecError, CustomerKey, Event, Offset, Partition, Position, Record, RejectCode, Tick, Timestamp,
    partition_for,
};
use vigie_ingestion::log::{Entry, Log};
use vigie_scoring::CustomerState;
use vigie_store::{Commit, CustomerWrite, FlagRow, Projection, Store};
use vigie_telemetry::{Cause, Decision, Metrics, Outcome};

/// Most timers fired in one step, so that a step has a bound however many customers fall silent at once.
const TIMERS_PER_STEP: usize = 2_000;
/// Customers looked at per step after a change of model or policies.
const REARMED_PER_STEP: usize = 1_000;

/// An event that the worker sets aside.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where it stands in the log; the same event set aside twice has the same position.
    pub position: Position,
    /// Why.
    pub code: RejectCode,
    /// The event.
    pub event: Event,
}

/// Where events that the worker sets aside are kept.
pub trait DeadLetterSink: Send + Sync + 'static {
    /// Keeps them durably. Keeping one twice is harmless.
    fn keep(&self, letters: Vec<DeadLetter>) -> impl Future<Output = Result<(), String>> + Send;
}

/// Drops them: for simulations, where the books count them all the same.
impl DeadLetterSink for () {
    async fn keep(&self, _: Vec<DeadLetter>) -> Result<(), String> {
        Ok(())
    }
}

/// The worker of some partitions.
#[derive(Debug)]
pub struct Worker<L: Log, S: Store, D: DeadLetterSink> {
    pub(crate) log: Arc<L>,
    store: Arc<S>,
    dead_letters: Arc<D>,
    judge: Judge,
    metrics: Metrics,
    status: StatusHandle,
    epoch: u64,
    pub(crate) states: BTreeMap<Partition, PartitionState>,
    /// What the part of the log that is not folded yet will put in force; known after a survey.
    pub(crate) coming: BTreeMap<Partition, Arc<Active>>,
}

impl<L: Log, S: Store, D: DeadLetterSink> Worker<L, S, D> {
    /// Takes ownership of all partitions and reads where they stand.
    pub async fn open(log: Arc<L>, store: Arc<S>, dead_letters: Arc<D>, metrics: Metrics) -> Result<Self, WorkerError> {
        let partitions: Vec<Partition> = (0..log.partitions()).map(Partition).collect();
        let epoch = store.claim(&partitions).await?;
        let mut states = BTreeMap::new();
        let mut known: Vec<Arc<Active>> = Vec::new();
        for partition in partitions {
            let meta = match store.partition(partition).await? {
                Some(bytes) => Meta::decode(&bytes).ok_or(WorkerError::Meta { partition })?,
                None => Meta::default(),
            };
            let active = match meta.active {
                None => None,
                Some(wanted) => {
                    let same = |active: &&Arc<Active>| active.reference(wanted.at) == wanted;
                    match known.iter().find(same) {
                        Some(active) => Some(Arc::clone(active)),
                        None => {
                            let active = Arc::new(
                                read_control(
                                    &*log,
                                    Position {
                                        partition,
                                        offset: wanted.at,
                                    },
                                )
                                .await?,
                            );
                            known.push(Arc::clone(&active));
                            Some(active)
                        }
                    }
                }
            };
            let _ = states.insert(partition, PartitionState { meta, active });
        }
        let status = StatusHandle::default();
        let worker = Self {
            log,
            store,
            dead_letters,
            judge: Judge::new()?,
            metrics,
            status,
            epoch,
            states,
            coming: BTreeMap::new(),
        };
        worker.publish_all().await?;
        Ok(worker)
    }

    /// Where each partition goes on.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<Partition, Offset> {
        self.states
            .iter()
            .map(|(partition, state)| (*partition, state.meta.next))
            .collect()
    }

    /// The latest status, shared.
    #[must_use]
    pub fn status(&self) -> StatusHandle {
        self.status.clone()
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Arc<L> {
        &self.log
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Folds a batch of the log, however it was cut, and commits what comes of it. When it returns, everything up to the
    /// batch's last record is part of the stored state. `now` is only used to measure latencies.
    pub async fn process(&mut self, entries: &[Entry], now: Timestamp) -> Result<(), WorkerError> {
        let mut records = Vec::with_capacity(entries.len());
        for entry in entries {
            let next = self.states.get(&entry.position.partition).map(|state| state.meta.next);
            if next.is_none_or(|next| entry.position.offset >= next) {
                records.push((entry.clone(), decode(entry)?));
            }
        }
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            // A control record changes what the following records of its partition mean, and needs a look at every
            // customer: it is a step of its own.
            let control = |(_, record): &(Entry, Record)| matches!(record.body, Body::Control(_));
            let until = match rest.iter().position(control) {
                Some(0) => 1,
                Some(index) => index,
                None => rest.len(),
            };
            let (batch, later) = rest.split_at(until);
            self.bounded_step(batch, now).await?;
            rest = later;
        }
        Ok(())
    }

    /// Continues looks at customers that a crash interrupted.
    pub async fn resume(&mut self, now: Timestamp) -> Result<(), WorkerError> {
        let open: Vec<Partition> = self
            .states
            .iter()
            .filter(|(_, state)| state.meta.rearm.is_some())
            .map(|(partition, _)| *partition)
            .collect();
        for partition in open {
            self.rearm(partition, now).await?;
        }
        Ok(())
    }

    /// Partitions with a timer due at `now` that no record has moved there yet.
    pub fn overdue(&self, now: Timestamp) -> Vec<Partition> {
        self.status.read(|status| {
            let late = |state: &PartitionStatus| state.due.is_some_and(|due| due <= now && state.clock < due);
            status
                .partitions
                .iter()
                .filter(|(_, state)| late(state))
                .map(|(partition, _)| *partition)
                .collect()
        })
    }

    /// The earliest timer of all partitions.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.status
            .read(|status| status.partitions.values().filter_map(|state| state.due).min())
    }

    /// Appends a tick to each of the partitions.
    pub async fn tick(&self, partitions: &[Partition], at: Timestamp) -> Result<(), WorkerError> {
        let bytes = Bytes::from(Record::new(Body::Tick(Tick { at })).encode());
        let _ = self
            .log
            .append(partitions.iter().map(|partition| (*partition, bytes.clone())).collect())
            .await?;
        self.metrics.pipeline.ticks_appended(partitions.len() as u64);
        Ok(())
    }

    /// Splits a batch until the timers that it fires fit into one step; when a single record fires more than fit, fires
    /// them in portions, each committed by itself, before the record is folded.
    async fn bounded_step(&mut self, batch: &[(Entry, Record)], now: Timestamp) -> Result<(), WorkerError> {
        let mut stack = vec![batch];
        while let Some(part) = stack.pop() {
            let due = self.fetch_due(part).await?;
            let crowded = due.values().any(|timers| timers.len() >= TIMERS_PER_STEP);
            match part {
                [] => {}
                [(entry, _)] if crowded => {
                    let partition = entry.position.partition;
                    self.step(&[], due, Some(partition), now).await?;
                    stack.push(part);
                }
                _ if crowded => {
                    let (first, second) = part.split_at(part.len() / 2);
                    stack.push(second);
                    stack.push(first);
                }
                _ => self.step(part, due, None, now).await?,
            }
        }
        Ok(())
    }

    /// The latest time that a batch brings to each of its partitions.
    fn horizon(&self, batch: &[(Entry, Record)]) -> BTreeMap<Partition, Timestamp> {
        let mut until: BTreeMap<Partition, Timestamp> = BTreeMap::new();
        for (entry, record) in batch {
            let partition = entry.position.partition;
            let clock = self
                .states
                .get(&partition)
                .map_or(Timestamp(i64::MIN), |state| state.meta.clock);
            let latest = until.entry(partition).or_insert(clock);
            *latest = (*latest).max(record.at());
        }
        until
    }

    async fn fetch_due(
        &self,
        batch: &[(Entry, Record)],
    ) -> Result<BTreeMap<Partition, Vec<(Timestamp, CustomerKey)>>, WorkerError> {
        let mut due = BTreeMap::new();
        for (partition, until) in self.horizon(batch) {
            // The status knows the next timer: most batches need not ask the store at all.
            let next = self
                .status
                .read(|status| status.partitions.get(&partition).and_then(|state| state.due));
            if next.is_some_and(|next| next <= until) {
                let _ = due.insert(partition, self.store.due(partition, until, TIMERS_PER_STEP).await?);
            }
        }
        Ok(due)
    }

    /// Prefetch, fold, write. With `portion`, fires that partition's given timers and folds no record.
    async fn step(
        &mut self,
        batch: &[(Entry, Record)],
        due: BTreeMap<Partition, Vec<(Timestamp, CustomerKey)>>,
        portion: Option<Partition>,
        now: Timestamp,
    ) -> Result<(), WorkerError> {
        let metrics = self.metrics.clone();
        let lap = metrics.stopwatch.start();
        // Prefetch.
        let mut wanted: BTreeSet<CustomerKey> = batch.iter().filter_map(|(_, record)| Batch::needs(record)).collect();
        for (partition, timers) in &due {
            if portion.is_none_or(|only| only == *partition) {
                wanted.extend(timers.iter().map(|(_, key)| key.clone()));
            }
        }
        let wanted: Vec<CustomerKey> = wanted.into_iter().collect();
        let loaded = self.load(wanted).await?;
        let horizon = self.horizon(batch);
        // Fold.
        let mut work = Batch::new(&mut self.judge, self.log.partitions());
        work.customers = loaded;
        // A portion leaves the timers that it sets itself to the next portion, which reads them from the store.
        work.until = if portion.is_some() { BTreeMap::new() } else { horizon };
        for (partition, timers) in due {
            if portion.is_none_or(|only| only == partition) {
                let _ = work.due.insert(partition, timers.into_iter().collect());
            }
        }
        let touched: BTreeSet<Partition> = batch
            .iter()
            .map(|(entry, _)| entry.position.partition)
            .chain(portion)
            .collect();
        for partition in &touched {
            let state = self
                .states
                .get(partition)
                .cloned()
                .ok_or(WorkerError::NotOwned { partition: *partition })?;
            let _ = work.states.insert(*partition, state);
        }
        let mut after = After::Nothing;
        for (entry, record) in batch {
            after = work.fold(entry, record.clone())?;
        }
        if let Some(partition) = portion {
            let last = work
                .due
                .get(&partition)
                .and_then(|timers| timers.last())
                .map(|(at, _)| *at);
            if let Some(last) = last {
                work.fire(partition, last)?;
            }
        }
        // Write.
        let Batch {
            states,
            customers,
            derived,
            flags,
            dead_letters,
            tally,
            ..
        } = work;
        self.write(states, customers, derived, flags, dead_letters, &tally)
            .await?;
        metrics.pipeline.step(batch.len(), lap.elapsed());
        self.report(&tally, now);
        if after == After::Rearm
            && let Some((entry, _)) = batch.last()
        {
            self.rearm(entry.position.partition, now).await?;
        }
        Ok(())
    }

    /// Looks at every customer of a partition, in portions, remembering in each commit how far it has come.
    async fn rearm(&mut self, partition: Partition, now: Timestamp) -> Result<(), WorkerError> {
        loop {
            let state = self
                .states
                .get(&partition)
                .cloned()
                .ok_or(WorkerError::NotOwned { partition })?;
            let Some(Rearm { after }) = state.meta.rearm.clone() else {
                return Ok(());
            };
            let rows = self.store.scan(partition, after, REARMED_PER_STEP).await?;
            let last = rows.last().map(|(key, _)| key.clone());
            let complete = rows.len() < REARMED_PER_STEP;
            let keys: Vec<CustomerKey> = rows.iter().map(|(key, _)| key.clone()).collect();
            let mut work = Batch::new(&mut self.judge, self.log.partitions());
            for (key, bytes) in rows {
                let loaded = read(&key, Some(bytes))?;
                let _ = work.customers.insert(key, loaded);
            }
            let _ = work.states.insert(partition, state);
            work.rearm(partition, &keys)?;
            if let Some(state) = work.states.get_mut(&partition) {
                state.meta.rearm = (!complete).then_some(Rearm { after: last });
            }
            let Batch {
                states,
                customers,
                derived,
                flags,
                dead_letters,
                tally,
                ..
            } = work;
            self.write(states, customers, derived, flags, dead_letters, &tally)
                .await?;
            self.report(&tally, now);
        }
    }

    async fn load(&self, keys: Vec<CustomerKey>) -> Result<BTreeMap<CustomerKey, Loaded>, WorkerError> {
        let stored = if keys.is_empty() {
            Vec::new()
        } else {
            self.store.load(&keys).await?
        };
        keys.into_iter()
            .zip(stored)
            .map(|(key, bytes)| read(&key, bytes).map(|loaded| (key, loaded)))
            .collect()
    }

    async fn write(
        &mut self,
        states: BTreeMap<Partition, PartitionState>,
        customers: BTreeMap<CustomerKey, Loaded>,
        derived: Vec<(Partition, Record)>,
        flags: Vec<FlagRow>,
        dead_letters: Vec<DeadLetter>,
        tally: &Tally,
    ) -> Result<(), WorkerError> {
        let partitions = self.log.partitions();
        // What other partitions must learn is in the log before this step counts as done; repeats are recognised there.
        if !derived.is_empty() {
            let records = derived
                .iter()
                .map(|(partition, record)| (*partition, Bytes::from(record.encode())))
                .collect();
            let _ = self.log.append(records).await?;
        }
        if !dead_letters.is_empty() {
            self.dead_letters
                .keep(dead_letters)
                .await
                .map_err(WorkerError::DeadLetter)?;
        }
        let (mut by_event, mut by_timer) = (0, 0);
        let mut writes = Vec::new();
        for (key, loaded) in customers {
            if !loaded.touched {
                continue;
            }
            if loaded.by_event {
                by_event += 1;
            } else {
                by_timer += 1;
            }
            writes.push(CustomerWrite {
                partition: partition_for(key.person.as_str(), partitions),
                key,
                bytes: Bytes::from(loaded.state.encode()),
                timer: loaded.state.timer,
                previous_timer: loaded.stored_timer,
                rank: loaded.state.rank,
                previous_rank: loaded.stored_rank,
                fields: Projection::default(),
            });
        }
        let commit = Commit {
            epoch: self.epoch,
            partitions: states
                .iter()
                .map(|(partition, state)| (*partition, Bytes::from(state.meta.encode())))
                .collect(),
            customers: writes,
            flags,
        };
        let lap = self.metrics.stopwatch.start();
        if let Err(error) = self.store.commit(commit).await {
            self.metrics.store.commit_failed();
            return Err(error.into());
        }
        self.metrics.store.committed(lap.elapsed());
        let mut dues = BTreeMap::new();
        for partition in states.keys() {
            let _ = dues.insert(*partition, self.store.next_due(*partition).await?);
        }
        self.status.update(|status| {
            for (workspace, books) in &tally.books {
                status.books.entry(workspace.clone()).or_default().add(books);
            }
            status.touched_by_event += by_event;
            status.touched_by_timer += by_timer;
            for (partition, state) in &states {
                let due = dues.get(partition).copied().flatten();
                let _ = status.partitions.insert(
                    *partition,
                    PartitionStatus {
                        next: state.meta.next,
                        clock: state.meta.clock,
                        due,
                    },
                );
            }
            if let Some(active) = states.values().find_map(|state| state.active.clone()) {
                status.active = Some(active);
            }
        });
        self.metrics.pipeline.customers_touched(Cause::Event, by_event);
        self.metrics.pipeline.customers_touched(Cause::Timer, by_timer);
        self.states.extend(states);
        Ok(())
    }

    fn report(&self, tally: &Tally, now: Timestamp) {
        let since = |at: Timestamp| std::time::Duration::from_millis(u64::try_from(now.ms_since(at)).unwrap_or(0));
        for (workspace, books) in &tally.books {
            let outcomes = [
                (Outcome::Applied, books.applied),
                (Outcome::Duplicate, books.duplicate),
                (Outcome::Suppressed, books.suppressed),
                (Outcome::DeadLetter, books.dead_letter),
                (Outcome::Conflict, books.conflict),
            ];
            for (outcome, count) in outcomes {
                if count > 0 {
                    self.metrics.events.outcome(workspace.as_str(), outcome, count);
                }
            }
        }
        tally
            .received
            .iter()
            .for_each(|at| self.metrics.pipeline.event_to_score(since(*at)));
        tally
            .timers
            .iter()
            .for_each(|(due, _)| self.metrics.pipeline.timer_fired(since(*due)));
        self.metrics.pipeline.scores_written(tally.scores);
        for ((policy, kind), count) in &tally.decisions {
            let decision = if *kind == "held_out" {
                Decision::HeldOut
            } else {
                Decision::Flagged
            };
            self.metrics.relance.decided(policy, decision, *count);
        }
        for ((policy, reason), count) in &tally.refusals {
            tracing::debug!(policy, reason, count, "refused");
            self.metrics.relance.decided(policy, Decision::Refused, *count);
        }
        if tally.link_conflicts > 0 {
            tracing::warn!(
                count = tally.link_conflicts,
                "devices shared by several known customers were not linked"
            );
        }
        let ends = self.log.ends();
        for (partition, state) in &self.states {
            let end = ends.get(usize::from(partition.0)).copied().unwrap_or_default();
            self.metrics.pipeline.progress(partition.0, state.meta.next.0, end.0);
        }
    }

    async fn publish_all(&self) -> Result<(), WorkerError> {
        let mut partitions = BTreeMap::new();
        for (partition, state) in &self.states {
            let due = self.store.next_due(*partition).await?;
            let _ = partitions.insert(
                *partition,
                PartitionStatus {
                    next: state.meta.next,
                    clock: state.meta.clock,
                    due,
                },
            );
        }
        self.status.update(|status| {
            status.partitions = partitions;
            for state in self.states.values() {
                for (workspace, books) in &state.meta.books {
                    status.books.entry(workspace.clone()).or_default().add(books);
                }
            }
            status.active = self.states.values().find_map(|state| state.active.clone());
        });
        Ok(())
    }
}

pub(crate) fn decode(entry: &Entry) -> Result<Record, WorkerError> {
    Record::decode(&entry.payload).map_err(|error: CodecError| WorkerError::Undecodable {
        position: entry.position,
        reason: error.to_string(),
    })
}

fn read(key: &CustomerKey, bytes: Option<Bytes>) -> Result<Loaded, WorkerError> {
    let Some(bytes) = bytes else {
        return Ok(Loaded::default());
    };
    let state = CustomerState::decode(&bytes).map_err(|error| WorkerError::Record {
        key: key.clone(),
        reason: error.to_string(),
    })?;
    Ok(Loaded {
        stored_timer: state.timer,
        stored_rank: state.rank,
        state,
        touched: false,
        by_event: false,
    })
}
