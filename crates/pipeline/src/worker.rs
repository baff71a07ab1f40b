//! The worker: fetches what a batch needs, lets the fold run over it, writes what came of it. All I/O of a step is here;
//! all meaning is in the fold.
//!
//! Length: the step and everything that it waits for, in one place; splitting it would hide the order of the writes.

use crate::errors::WorkerError;
use crate::fold::{After, Batch, Due, Folded, Loaded, Tally, Who};
use crate::landing::{Job, Landed, Seen};
use crate::meta::{Active, Meta, PartitionState, Rearm};
use crate::resident::Resident;
use crate::startup::read_control;
use crate::status::{PartitionStatus, StatusHandle};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};
use vigie_enrichment::Judge;
use vigie_event::{
    Body, CodecError, CustomerKey, Event, Offset, Partition, Position, Record, RejectCode, Tick, Timestamp,
};
use vigie_failpoint::point;
use vigie_ingestion::log::{Entry, Log};
use vigie_scoring::CustomerState;
use vigie_store::Store;
use vigie_telemetry::{Cause, Decision, FlagEnd, Metrics, Outcome, RefusalReason};

/// Most timers fired in one step, so that a step has a bound however many customers fall silent at once.
const TIMERS_PER_STEP: usize = 2_000;
/// Attempts to fold a record before it is set aside.
const POISON_ATTEMPTS: u32 = 3;
/// Customers looked at per step after a change of model or policies.
const REARMED_PER_STEP: usize = 1_000;
/// Memory for decoded records of busy customers, in bytes.
const RESIDENT_BYTES: usize = 64 << 20;

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
    keeps_judgements: bool,
    /// Records that cannot be folded.
    poison: BTreeSet<Position>,
    /// A call of the store failed in a way that leaves open what is stored.
    in_doubt: bool,
    /// Records that the store holds, or will once what is in flight has landed, as far as this worker has folded them lately.
    resident: Resident,
    /// Records are out of `resident` that the store may not hold yet: a step was interrupted.
    lent: bool,
    /// The step whose commit is on its way while the next is folded.
    in_flight: Option<InFlight>,
    /// Whether commits may be on their way when a call returns.
    overlaps: bool,
    /// Records of the latest step, and how long the store took to write it.
    last_commit: Option<(usize, Duration)>,
}

/// A step that is being written.
#[derive(Debug)]
struct InFlight {
    task: JoinHandle<Result<Landed, WorkerError>>,
    /// What the task came to.
    arrived: Option<Result<Result<Landed, WorkerError>, JoinError>>,
    /// The earliest timer that it sets.
    earliest: Option<Timestamp>,
    size: usize,
    /// When it began, by the stopwatch.
    began: Duration,
}

impl<L: Log, S: Store, D: DeadLetterSink> Worker<L, S, D> {
    /// Takes ownership of all partitions and reads where they stand.
    pub async fn open(log: Arc<L>, store: Arc<S>, dead_letters: Arc<D>, metrics: Metrics) -> Result<Self, WorkerError> {
        let partitions: Vec<Partition> = (0..log.partitions()).map(Partition).collect();
        Self::own(log, store, dead_letters, metrics, partitions).await
    }

    /// Takes ownership of these partitions, as a group of workers spreads them. A worker whose share changes is opened anew:
    /// one claim covers all that it owns.
    pub async fn own(
        log: Arc<L>,
        store: Arc<S>,
        dead_letters: Arc<D>,
        metrics: Metrics,
        partitions: Vec<Partition>,
    ) -> Result<Self, WorkerError> {
        let epoch = store.claim(&partitions).await?;
        let states = read_states(&*log, &*store, partitions).await?;
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
            keeps_judgements: false,
            poison: BTreeSet::new(),
            in_doubt: false,
            resident: Resident::new(RESIDENT_BYTES),
            lent: false,
            in_flight: None,
            overlaps: false,
            last_commit: None,
        };
        worker.publish_all().await?;
        Ok(worker)
    }

    /// After a commit whose outcome is unknown: takes the partitions anew, so that nothing of it can still come, and reads
    /// where they stand, which may be before or behind what was read of the log. Does nothing when there is no doubt.
    pub async fn recover(&mut self) -> Result<(), WorkerError> {
        if !self.in_doubt {
            return Ok(());
        }
        // What it came to is read from the store.
        if self.in_flight.is_some() {
            self.landing().await;
            self.in_flight = None;
        }
        self.resident.clear();
        self.lent = false;
        let partitions: Vec<Partition> = self.states.keys().copied().collect();
        self.epoch = self.store.renew(self.epoch, &partitions).await?;
        self.states = read_states(&*self.log, &*self.store, partitions).await?;
        self.publish_all().await?;
        self.in_doubt = false;
        Ok(())
    }

    /// Whatever was interrupted is finished before anything new is folded.
    async fn make_ready(&mut self, now: Timestamp) -> Result<(), WorkerError> {
        self.recover().await?;
        if self.lent {
            self.land(now).await?;
            self.lent = false;
        }
        self.resume(now).await
    }

    /// Like [`Worker::process`], except that the commit may still be on its way when it returns, beside whatever the caller
    /// does next. One commit at a time is on its way; its failure comes with the call after it, or with [`Worker::land`].
    pub async fn submit(&mut self, entries: &[Entry], now: Timestamp) -> Result<(), WorkerError> {
        self.overlaps = true;
        let outcome = self.take_in(entries, now).await;
        self.overlaps = false;
        outcome
    }

    /// Whether a commit is on its way.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Of the latest step that has landed since the last call: its records, and how long the store took to write it.
    pub fn last_commit(&mut self) -> Option<(usize, Duration)> {
        self.last_commit.take()
    }

    /// Waits until what is on its way has arrived, well or not; for ever when nothing is. Cancel-safe.
    pub async fn landing(&mut self) {
        match &mut self.in_flight {
            Some(flight) if flight.arrived.is_none() => flight.arrived = Some((&mut flight.task).await),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    /// Waits until what is on its way is part of the stored state. `now` is only used to measure latencies.
    pub async fn land(&mut self, now: Timestamp) -> Result<(), WorkerError> {
        if self.in_flight.is_some() {
            self.landing().await;
        }
        let Some(flight) = self.in_flight.take() else {
            return Ok(());
        };
        let outcome = match flight.arrived {
            Some(Ok(outcome)) => outcome,
            _ => Err(WorkerError::Interrupted),
        };
        match outcome {
            Ok(landed) => {
                self.metrics
                    .pipeline
                    .step(flight.size, self.metrics.stopwatch.now().saturating_sub(flight.began));
                self.last_commit = Some((flight.size, landed.took));
                self.note(landed, now);
                Ok(())
            }
            Err(error) => {
                self.in_doubt = true;
                Err(error)
            }
        }
    }

    /// Makes what is committed survive a loss of power, and learns whether it is all still there.
    pub async fn persist(&mut self) -> Result<(), WorkerError> {
        let persisted = self.store.persist().await;
        self.in_doubt |= persisted.is_err();
        Ok(persisted?)
    }

    /// Publishes its progress there instead, for who follows one worker after another.
    pub async fn reporting_to(mut self, status: StatusHandle) -> Result<Self, WorkerError> {
        self.status = status;
        self.publish_all().await?;
        Ok(self)
    }

    /// Keeps what became of each record in the store, for the archive to fetch.
    #[must_use]
    pub fn keeping_judgements(mut self) -> Self {
        self.keeps_judgements = true;
        self
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

    /// Folds a batch of the log, however it was cut, and commits what comes of it. When it returns, everything up to the
    /// batch's last record is part of the stored state. `now` is only used to measure latencies.
    pub async fn process(&mut self, entries: &[Entry], now: Timestamp) -> Result<(), WorkerError> {
        self.take_in(entries, now).await?;
        self.land(now).await
    }

    async fn take_in(&mut self, entries: &[Entry], now: Timestamp) -> Result<(), WorkerError> {
        // A record that cannot be folded is set aside, so that others go on: after three attempts, since a failure may
        // have had a passing cause.
        let mut failed: Option<(Position, u32)> = None;
        self.make_ready(now).await?;
        loop {
            let mut records = Vec::with_capacity(entries.len());
            point!("step.decode.before");
            for entry in entries {
                if self.is_new(entry.position) {
                    records.push((entry.position, decode(entry)?));
                }
            }
            point!("step.decode.after");
            let (position, reason) = match self.process_records(records, now).await {
                Err(WorkerError::Panicked { position, reason }) => (position, reason),
                outcome => return outcome,
            };
            let attempts = failed
                .filter(|(at, _)| *at == position)
                .map_or(0, |(_, attempts)| attempts)
                + 1;
            tracing::error!(%position, attempts, reason, "folding a record failed");
            if attempts >= POISON_ATTEMPTS && !self.poison.insert(position) {
                return Err(WorkerError::Panicked { position, reason });
            }
            failed = Some((position, attempts));
        }
    }

    /// Sets these records aside instead of folding them, as a worker before did after it had failed to fold them.
    pub fn set_aside(&mut self, positions: impl IntoIterator<Item = Position>) {
        self.poison.extend(positions);
    }

    /// The same for records that are decoded already. Records that are part of the stored state are left out.
    pub async fn process_records(
        &mut self,
        mut records: Vec<(Position, Record)>,
        now: Timestamp,
    ) -> Result<(), WorkerError> {
        self.make_ready(now).await?;
        if !records.iter().all(|(position, _)| self.is_new(*position)) {
            records.retain(|(position, _)| self.is_new(*position));
        }
        while !records.is_empty() {
            // A control record changes what the following records of its partition mean, and needs a look at every
            // customer: it is a step of its own.
            let control = |(_, record): &(Position, Record)| matches!(record.body, Body::Control(_));
            let until = match records.iter().position(control) {
                Some(0) => 1,
                Some(index) => index,
                None => records.len(),
            };
            let later = records.split_off(until);
            self.bounded_step(records, now).await?;
            records = later;
        }
        Ok(())
    }

    fn is_new(&self, position: Position) -> bool {
        let next = self.states.get(&position.partition).map(|state| state.meta.next);
        next.is_none_or(|next| position.offset >= next)
    }

    /// Continues looks at customers that a crash or a failure interrupted.
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
    async fn bounded_step(&mut self, batch: Vec<(Position, Record)>, now: Timestamp) -> Result<(), WorkerError> {
        let mut stack = vec![batch];
        while let Some(mut part) = stack.pop() {
            let due = self.fetch_due(&part, now).await?;
            let crowded = due.values().any(|timers| timers.len() >= TIMERS_PER_STEP);
            match part.as_slice() {
                [] => {}
                [(position, _)] if crowded => {
                    let partition = position.partition;
                    self.step(Vec::new(), due, Some(partition), now).await?;
                    stack.push(part);
                }
                _ if crowded => {
                    let second = part.split_off(part.len() / 2);
                    stack.push(second);
                    stack.push(part);
                }
                _ => self.step(part, due, None, now).await?,
            }
        }
        Ok(())
    }

    /// The latest time that a batch brings to each of its partitions.
    fn horizon(&self, batch: &[(Position, Record)]) -> BTreeMap<Partition, Timestamp> {
        let mut until: BTreeMap<Partition, Timestamp> = BTreeMap::new();
        for (position, record) in batch {
            let partition = position.partition;
            let clock = self
                .states
                .get(&partition)
                .map_or(Timestamp(i64::MIN), |state| state.meta.clock);
            let latest = until.entry(partition).or_insert(clock);
            *latest = (*latest).max(record.at());
        }
        until
    }

    /// For each customer of a batch, the clock of its partition when the batch touches it first; for each record, the
    /// clock when the batch touches the same customer next, which only records in the customer's own partition do.
    fn touches(
        &self,
        batch: &[(Position, Record)],
        who: &[Option<Who>],
        customers: usize,
    ) -> (Vec<Option<Timestamp>>, Vec<Option<Timestamp>>) {
        let mut clocks: BTreeMap<Partition, Timestamp> = BTreeMap::new();
        let mut times = Vec::with_capacity(batch.len());
        for (position, record) in batch {
            let clock = clocks.entry(position.partition).or_insert_with(|| {
                self.states
                    .get(&position.partition)
                    .map_or(Timestamp(i64::MIN), |state| state.meta.clock)
            });
            *clock = record.at().max(*clock);
            times.push(*clock);
        }
        let mut coming: Vec<Option<Timestamp>> = vec![None; customers];
        let mut next = vec![None; batch.len()];
        let partitions = self.log.partitions();
        for (((who, at), next), (position, record)) in who.iter().zip(times).zip(&mut next).zip(batch).rev() {
            // A record that stands elsewhere is only sent on to the customer's own partition, by another clock.
            let home = || Batch::is_home(position.partition, record, partitions);
            if let Some(coming) = who.filter(|_| home()).and_then(|who| coming.get_mut(who)) {
                *next = coming.replace(at);
            }
        }
        (coming, next)
    }

    async fn fetch_due(
        &mut self,
        batch: &[(Position, Record)],
        now: Timestamp,
    ) -> Result<BTreeMap<Partition, Vec<(Timestamp, CustomerKey)>>, WorkerError> {
        let mut due = BTreeMap::new();
        let horizon = self.horizon(batch);
        // Timers that are on their way to the store, or on their way out of it, are only read once they are there.
        let earliest = self.in_flight.as_ref().and_then(|flight| flight.earliest);
        let first = self.status.read(|status| {
            let owned = horizon
                .keys()
                .filter_map(|partition| status.partitions.get(partition)?.due);
            owned.chain(earliest).min()
        });
        if first.is_some_and(|first| horizon.values().any(|until| first <= *until)) {
            self.land(now).await?;
        }
        for (partition, until) in horizon {
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
        batch: Vec<(Position, Record)>,
        due: BTreeMap<Partition, Vec<(Timestamp, CustomerKey)>>,
        portion: Option<Partition>,
        now: Timestamp,
    ) -> Result<(), WorkerError> {
        let began = self.metrics.stopwatch.now();
        // Prefetch.
        let due: BTreeMap<Partition, Vec<(Timestamp, CustomerKey)>> = due
            .into_iter()
            .filter(|(partition, _)| portion.is_none_or(|only| only == *partition))
            .collect();
        let Places { keys, who, due } = places(&batch, due);
        let mut loaded = self.load(keys).await?;
        let (first, next) = self.touches(&batch, &who, loaded.len());
        for (loaded, first) in loaded.iter_mut().zip(first) {
            loaded.next_touch = first;
        }
        for timer in due.values().flatten() {
            if let Some(loaded) = loaded.get_mut(timer.who) {
                loaded.indexed.push(timer.at);
            }
        }
        let horizon = self.horizon(&batch);
        // Fold.
        let mut work = Batch::new(&mut self.judge, self.log.partitions());
        work.poison.clone_from(&self.poison);
        work.customers = loaded;
        work.due = due;
        // A portion leaves the timers that it sets itself to the next portion, which reads them from the store.
        work.until = if portion.is_some() { BTreeMap::new() } else { horizon };
        let touched: BTreeSet<Partition> = batch
            .iter()
            .map(|(position, _)| position.partition)
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
        point!("step.fold.before");
        let (size, last) = (batch.len(), batch.last().map(|(position, _)| position.partition));
        let folding = AssertUnwindSafe(|| -> Result<After, WorkerError> {
            let mut after = After::Nothing;
            for (((position, record), who), next) in batch.into_iter().zip(who).zip(next) {
                after = work.fold(position, record, who, next)?;
            }
            if let Some(partition) = portion {
                let timers = work.due.get(&partition);
                let last = timers.and_then(|timers| timers.last()).map(|due| due.at);
                if let Some(last) = last {
                    work.fire(partition, last)?;
                }
            }
            Ok(after)
        });
        // Everything that the fold has touched is thrown away when it fails; the judge's memory changes no verdict.
        let after = match catch_unwind(folding) {
            Ok(after) => after?,
            Err(panic) => {
                return Err(match work.at {
                    Some(position) => WorkerError::Panicked {
                        position,
                        reason: told(panic.as_ref()),
                    },
                    None => WorkerError::NotFetched,
                });
            }
        };
        point!("step.fold.after");
        // Write.
        let outcome = work.outcome();
        let overlaps = self.overlaps && after == After::Nothing && portion.is_none();
        self.write(outcome, (size, began), overlaps, now).await?;
        if after == After::Rearm
            && let Some(partition) = last
        {
            self.rearm(partition, now).await?;
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
            self.land(now).await?;
            let rows = self.store.scan(partition, after, REARMED_PER_STEP).await?;
            let last = rows.last().map(|(key, _)| key.clone());
            let complete = rows.len() < REARMED_PER_STEP;
            let mut work = Batch::new(&mut self.judge, self.log.partitions());
            for (key, bytes) in rows {
                work.customers.push(read(key, Some(bytes))?);
            }
            let _ = work.states.insert(partition, state);
            work.rearm(partition)?;
            if let Some(state) = work.states.get_mut(&partition) {
                state.meta.rearm = (!complete).then_some(Rearm { after: last });
            }
            let (outcome, began) = (work.outcome(), self.metrics.stopwatch.now());
            self.write(outcome, (0, began), false, now).await?;
        }
    }

    /// The records of these customers: those at hand, and the others from the store.
    async fn load(&mut self, keys: Vec<CustomerKey>) -> Result<Vec<Loaded>, WorkerError> {
        let mut loaded: Vec<Option<Loaded>> = Vec::with_capacity(keys.len());
        let (mut places, mut missing) = (Vec::new(), Vec::new());
        self.lent = true;
        for key in keys {
            match self.resident.take(&key) {
                Some(state) => loaded.push(Some(Loaded::new(key, Arc::unwrap_or_clone(state)))),
                None => {
                    places.push(loaded.len());
                    missing.push(key);
                    loaded.push(None);
                }
            }
        }
        if !missing.is_empty() {
            let lap = self.metrics.stopwatch.start();
            let stored = self.store.load(&missing).await?;
            self.metrics.store.loaded(lap.elapsed());
            for ((place, key), bytes) in places.into_iter().zip(missing).zip(stored) {
                if let Some(empty) = loaded.get_mut(place) {
                    *empty = Some(read(key, bytes)?);
                }
            }
        }
        loaded
            .into_iter()
            .map(|loaded| loaded.ok_or(WorkerError::NotFetched))
            .collect()
    }

    /// Writes what came of a fold, after what is on its way; with `overlaps`, returns while it is on its way itself.
    async fn write(
        &mut self,
        outcome: Folded,
        (size, began): (usize, Duration),
        overlaps: bool,
        now: Timestamp,
    ) -> Result<(), WorkerError> {
        self.land(now).await?;
        let (job, records) = Job::new(outcome, self.epoch, self.log.partitions(), self.keeps_judgements);
        let states = job.states.clone();
        if overlaps {
            let earliest = job.earliest();
            let (log, store) = (Arc::clone(&self.log), Arc::clone(&self.store));
            let (dead_letters, metrics) = (Arc::clone(&self.dead_letters), self.metrics.clone());
            self.in_flight = Some(InFlight {
                task: tokio::spawn(async move { job.write(&*log, &*store, &*dead_letters, &metrics).await }),
                arrived: None,
                earliest,
                size,
                began,
            });
        } else {
            self.in_doubt = true;
            let landed = job
                .write(&*self.log, &*self.store, &*self.dead_letters, &self.metrics)
                .await?;
            self.in_doubt = false;
            self.metrics
                .pipeline
                .step(size, self.metrics.stopwatch.now().saturating_sub(began));
            self.last_commit = Some((size, landed.took));
            self.note(landed, now);
        }
        self.states.extend(states);
        self.resident.keep(records);
        self.lent = false;
        Ok(())
    }

    /// Publishes what has become part of the stored state.
    fn note(&mut self, landed: Landed, now: Timestamp) {
        let Landed {
            partitions,
            active,
            seen,
            took: _,
        } = landed;
        let Seen {
            tally,
            by_event,
            by_timer,
        } = seen;
        point!("step.publish.before");
        self.status.update(|status| {
            for (workspace, books) in &tally.books {
                status.books.entry(workspace.clone()).or_default().add(books);
            }
            status.touched_by_event += by_event;
            status.touched_by_timer += by_timer;
            status.partitions.extend(partitions);
            if let Some((active, since)) = active {
                status.active = Some(active);
                status.active_since = since;
            }
        });
        self.metrics.pipeline.customers_touched(Cause::Event, by_event);
        self.metrics.pipeline.customers_touched(Cause::Timer, by_timer);
        self.report(&tally, now);
        point!("step.publish.after");
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
            match RefusalReason::ALL.iter().find(|known| known.as_str() == *reason) {
                Some(reason) => self.metrics.relance.refused(policy, *reason, *count),
                None => self.metrics.relance.decided(policy, Decision::Refused, *count),
            }
        }
        for ((policy, end), count) in &tally.ends {
            if let Some(end) = FlagEnd::ALL.iter().find(|known| known.as_str() == *end) {
                self.metrics.relance.ended(policy, *end, *count);
            }
        }
        for ((band, up), count) in &tally.moves {
            self.metrics.relance.moved(band, *up, *count);
        }
        for (source, count) in &tally.duplicates {
            self.metrics.events.duplicates(source.name(), *count);
        }
        for (signal, count) in &tally.signals {
            self.metrics.events.applied(signal.name(), *count);
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
            status.books.clear();
            for state in self.states.values() {
                for (workspace, books) in &state.meta.books {
                    status.books.entry(workspace.clone()).or_default().add(books);
                }
            }
            let active = self.states.values().find(|state| state.active.is_some());
            status.active = active.and_then(|state| state.active.clone());
            status.active_since = active.and_then(|state| state.since);
        });
        Ok(())
    }
}

async fn read_states<L: Log, S: Store>(
    log: &L,
    store: &S,
    partitions: Vec<Partition>,
) -> Result<BTreeMap<Partition, PartitionState>, WorkerError> {
    let mut states = BTreeMap::new();
    let mut known: Vec<(Arc<Active>, Timestamp)> = Vec::new();
    for partition in partitions {
        let meta = match store.partition(partition).await? {
            Some(bytes) => Meta::decode(&bytes).ok_or(WorkerError::Meta { partition })?,
            None => Meta::default(),
        };
        let active = match meta.active {
            None => None,
            Some(wanted) => {
                let same = |(active, _): &&(Arc<Active>, Timestamp)| active.reference(wanted.at) == wanted;
                match known.iter().find(same) {
                    Some(known) => Some(known.clone()),
                    None => {
                        let offset = wanted.at;
                        let (active, since) = read_control(log, Position { partition, offset }).await?;
                        let new = (Arc::new(active), since);
                        known.push(new.clone());
                        Some(new)
                    }
                }
            }
        };
        let (active, since) = active.unzip();
        let _ = states.insert(partition, PartitionState { meta, active, since });
    }
    Ok(states)
}

pub(crate) fn decode(entry: &Entry) -> Result<Record, WorkerError> {
    Record::decode(&entry.payload).map_err(|error: CodecError| WorkerError::Undecodable {
        position: entry.position,
        reason: error.to_string(),
    })
}

fn read(key: CustomerKey, bytes: Option<Bytes>) -> Result<Loaded, WorkerError> {
    let state = match bytes.as_deref().map(CustomerState::decode) {
        None => CustomerState::default(),
        Some(Ok(state)) => state,
        Some(Err(error)) => {
            return Err(WorkerError::Record {
                key,
                reason: error.to_string(),
            });
        }
    };
    Ok(Loaded::new(key, state))
}

/// The customers of a batch in order of their first mention, and who is needed where.
struct Places {
    keys: Vec<CustomerKey>,
    /// For each record, the customer that it needs.
    who: Vec<Option<Who>>,
    due: BTreeMap<Partition, BTreeSet<Due>>,
}

fn places(batch: &[(Position, Record)], due: BTreeMap<Partition, Vec<(Timestamp, CustomerKey)>>) -> Places {
    let mut known: HashMap<CustomerKey, Who> = HashMap::with_capacity(batch.len());
    let mut keys = Vec::with_capacity(batch.len());
    let mut place = |key: CustomerKey| -> Who {
        *known.entry(key).or_insert_with_key(|key| {
            keys.push(key.clone());
            keys.len() - 1
        })
    };
    let who = batch
        .iter()
        .map(|(_, record)| Batch::needs(record).map(&mut place))
        .collect();
    let mut timers = |(at, key): (Timestamp, CustomerKey)| {
        let who = place(key.clone());
        Due { at, key, who }
    };
    let due = due
        .into_iter()
        .map(|(partition, due)| (partition, due.into_iter().map(&mut timers).collect()))
        .collect();
    Places { keys, who, due }
}

/// What a panic said.
fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no reason given".to_owned())
}
