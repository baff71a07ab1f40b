//! The intake: the only door to the log. What it answers for is durable, in the log or in the dead-letter journal, and
//! counted exactly once in the books (BOOKS-1).
//!
//! It never decodes, judges or deduplicates, and never retries on its own: a client that is told to come back does.

use crate::addresses::conceal;
use crate::dead_letters::{DeadLetters, Letter, LetterId};
use crate::log::{Health, Log, LogError, LogReader};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vigie_event::{Body, Event, Offset, Partition, Position, Record, Workspace, partition_for};
use vigie_failpoint::point;
use vigie_telemetry::{Metrics, Outcome as Booked};

/// Workspaces with books of their own; the events of any further ones share one row.
const MAX_WORKSPACES: usize = 10_000;
/// Bytes handed to the log in one call. A request that is larger is appended in several, each all or nothing; when a
/// later one fails the client repeats the request and the deduplication behind the log recognises the earlier ones.
const APPEND_BYTES: usize = 1 << 20;
/// How long a read of something that is known to be there may take before it is asked for again.
const READ_WAIT: Duration = Duration::from_secs(5);
/// When to come back after an outage of unknown length.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// One event as a protocol took it, or why it could not.
pub type Taken = Result<Event, Box<Letter>>;

/// What became of one [`Taken`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log.
    Logged(Position),
    /// It is in the dead-letter journal.
    DeadLetter(LetterId),
}

/// Nothing can be promised now. Parts of the request may be durable; repeating it is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Too much at once.
    #[error("the log's queue is full")]
    Overloaded {
        /// When it makes sense to come back.
        retry_after: Duration,
    },
    /// The disk refuses, or durability is in doubt.
    #[error("the log cannot be written")]
    Down {
        /// When it makes sense to come back.
        retry_after: Duration,
    },
}

impl From<&LogError> for Unavailable {
    fn from(error: &LogError) -> Self {
        match error {
            LogError::Overloaded { retry_after } => Self::Overloaded {
                retry_after: *retry_after,
            },
            _ => Self::Down {
                retry_after: RETRY_AFTER,
            },
        }
    }
}

/// Exact counts of one workspace since the books began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that the collector took: those in the log and those in the dead-letter journal. Counted before the
    /// append and taken back if it fails, so that it is never behind what the worker has counted.
    pub accepted: u64,
    /// Those of them that are in the dead-letter journal.
    pub dead_letter: u64,
}

#[derive(Debug, Default)]
struct Row {
    accepted: AtomicU64,
    dead_letter: AtomicU64,
}

#[derive(Debug, Default)]
struct Books {
    rows: Mutex<BTreeMap<Workspace, Arc<Row>>>,
    others: Arc<Row>,
}

impl Books {
    fn row(&self, workspace: &Workspace) -> Arc<Row> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.get(workspace) {
            return Arc::clone(row);
        }
        if rows.len() >= MAX_WORKSPACES {
            return Arc::clone(&self.others);
        }
        Arc::clone(rows.entry(workspace.clone()).or_default())
    }
}

impl Row {
    fn counts(&self) -> Counts {
        // Dead letters first: they are counted after `accepted`, so the difference never comes out negative.
        let dead_letter = self.dead_letter.load(Ordering::Acquire);
        Counts {
            accepted: self.accepted.load(Ordering::Acquire),
            dead_letter,
        }
    }
}

/// The door to the log. Clones share it.
#[derive(Debug)]
pub struct Intake<L> {
    inner: Arc<Inner<L>>,
}

#[derive(Debug)]
struct Inner<L> {
    log: Arc<L>,
    dead_letters: DeadLetters<L>,
    books: Books,
    metrics: Metrics,
}

impl<L> Clone for Intake<L> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<L: Log> Intake<L> {
    /// An intake whose books start at zero; see [`Intake::set_base`].
    #[must_use]
    pub fn new(log: Arc<L>, dead_letters: DeadLetters<L>, metrics: Metrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                log,
                dead_letters,
                books: Books::default(),
                metrics,
            }),
        }
    }

    /// Makes events and letters durable; when it returns `Ok`, all of them are, and `Outcome`s stand in the same order.
    ///
    /// The work goes on when the caller goes away (a client that hangs up), so that what became durable is counted.
    pub async fn accept(&self, taken: Vec<Taken>) -> Result<Vec<Outcome>, Unavailable> {
        let inner = Arc::clone(&self.inner);
        match tokio::spawn(async move { inner.accept(taken).await }).await {
            Ok(answer) => answer,
            // The task panicked or the runtime is going down: nothing can be promised.
            Err(_) => Err(Unavailable::Down {
                retry_after: RETRY_AFTER,
            }),
        }
    }

    /// The journal that this intake writes.
    #[must_use]
    pub fn dead_letters(&self) -> &DeadLetters<L> {
        &self.inner.dead_letters
    }

    /// The books of one workspace.
    #[must_use]
    pub fn counts(&self, workspace: &Workspace) -> Counts {
        self.inner.books.row(workspace).counts()
    }

    /// The books of all workspaces; the last row, without a name, is that of workspaces beyond the bound.
    #[must_use]
    pub fn all_counts(&self) -> Vec<(Option<Workspace>, Counts)> {
        let rows = self.inner.books.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let named = rows
            .iter()
            .map(|(workspace, row)| (Some(workspace.clone()), row.counts()));
        let others = Some(self.inner.books.others.counts()).filter(|counts| *counts != Counts::default());
        named.chain(others.map(|counts| (None, counts))).collect()
    }

    /// Sets where the books of a workspace start. `accepted` is what the worker has counted, plus [`count_from`] the
    /// positions that it resumes from, plus [`DeadLetters::accepted`]; `dead_letter` is [`DeadLetters::accepted`].
    /// Called before the first request.
    pub fn set_base(&self, workspace: &Workspace, base: Counts) {
        let row = self.inner.books.row(workspace);
        row.accepted.store(base.accepted, Ordering::Release);
        row.dead_letter.store(base.dead_letter, Ordering::Release);
    }

    /// Whether a 2xx could be honoured now (HEALTH-1): the worse of the log's and the journal's health.
    #[must_use]
    pub fn health(&self) -> Health {
        match (self.inner.log.health(), self.inner.dead_letters.health()) {
            (poisoned @ Health::Poisoned(_), _) | (_, poisoned @ Health::Poisoned(_)) => poisoned,
            (Health::Ok, other) => other,
            (degraded @ Health::Degraded(_), _) => degraded,
        }
    }
}

impl<L: Log> Inner<L> {
    async fn accept(&self, taken: Vec<Taken>) -> Result<Vec<Outcome>, Unavailable> {
        let partitions = self.log.partitions();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; taken.len()];
        let mut letters = Vec::new();
        let mut letter_slots = Vec::new();
        let mut batch = Batch::default();
        for (slot, taken) in taken.into_iter().enumerate() {
            match taken {
                Err(letter) => {
                    letters.push(*letter);
                    letter_slots.push(slot);
                }
                Ok(event) => {
                    let event = conceal(event);
                    let Some(key) = event.person.key() else { continue };
                    let partition = partition_for(key.as_str(), partitions);
                    let workspace = event.workspace.clone();
                    let bytes = Bytes::from(Record::new(Body::Event(Box::new(event))).encode());
                    if batch.bytes > 0 && batch.bytes + bytes.len() > APPEND_BYTES {
                        self.append(std::mem::take(&mut batch), &mut outcomes).await?;
                    }
                    batch.bytes += bytes.len();
                    *batch.by_workspace.entry(workspace).or_insert(0) += 1;
                    batch.records.push((partition, bytes));
                    batch.slots.push(slot);
                }
            }
        }
        self.append(batch, &mut outcomes).await?;
        self.keep(letters, &letter_slots, &mut outcomes).await?;
        // Every slot is filled: an event without identity cannot be made by any protocol.
        Ok(outcomes.into_iter().flatten().collect())
    }

    async fn append(&self, batch: Batch, outcomes: &mut [Option<Outcome>]) -> Result<(), Unavailable> {
        if batch.records.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = batch
            .by_workspace
            .iter()
            .map(|(workspace, count)| (self.books.row(workspace), *count))
            .collect();
        for (row, count) in &rows {
            let _before = row.accepted.fetch_add(*count, Ordering::AcqRel);
        }
        let lap = self.metrics.stopwatch.start();
        point!("intake.append.before");
        let appended = self.log.append(batch.records).await;
        point!("intake.append.after");
        match appended {
            Ok(positions) => {
                self.metrics.log.appended(lap.elapsed());
                for (slot, position) in batch.slots.into_iter().zip(positions) {
                    if let Some(outcome) = outcomes.get_mut(slot) {
                        *outcome = Some(Outcome::Logged(position));
                    }
                }
                for (workspace, count) in &batch.by_workspace {
                    self.metrics.events.accepted(workspace.as_str(), *count);
                }
                Ok(())
            }
            Err(error) => {
                // Records whose outcome is unknown are still on their way into the log, where the worker will count them.
                if !matches!(error, LogError::Unknown { .. }) {
                    for (row, count) in &rows {
                        let _before = row.accepted.fetch_sub(*count, Ordering::AcqRel);
                    }
                }
                Err(self.failed(&error))
            }
        }
    }

    async fn keep(
        &self,
        letters: Vec<Letter>,
        slots: &[usize],
        outcomes: &mut [Option<Outcome>],
    ) -> Result<(), Unavailable> {
        if letters.is_empty() {
            return Ok(());
        }
        let about: Vec<_> = letters
            .iter()
            .map(|letter| (letter.workspace.clone(), letter.code, letter.accepted))
            .collect();
        point!("intake.letters.before");
        let added = self
            .dead_letters
            .add(letters)
            .await
            .map_err(|error| self.failed(&error))?;
        point!("intake.letters.after");
        for ((slot, (workspace, code, accepted)), added) in slots.iter().zip(about).zip(added) {
            if let Some(outcome) = outcomes.get_mut(*slot) {
                *outcome = Some(Outcome::DeadLetter(added.id));
            }
            if !added.new {
                continue;
            }
            self.metrics.events.dead_letters(code.label(), 1);
            if accepted {
                let row = self.books.row(&workspace);
                let _before = row.accepted.fetch_add(1, Ordering::AcqRel);
                let _before = row.dead_letter.fetch_add(1, Ordering::AcqRel);
                self.metrics.events.accepted(workspace.as_str(), 1);
                self.metrics.events.outcome(workspace.as_str(), Booked::DeadLetter, 1);
            }
        }
        Ok(())
    }

    fn failed(&self, error: &LogError) -> Unavailable {
        self.metrics.log.append_failed(error.tag());
        if !matches!(error, LogError::Overloaded { .. }) {
            tracing::error!(tag = error.tag(), "append failed: {error}");
        }
        Unavailable::from(error)
    }
}

/// How many accepted events the log holds from the given places on, by workspace: what the worker has not counted yet
/// when the process starts. Records that the worker derived itself (those with an origin) were never accepted here.
///
/// # Errors
/// What the log says; a record that cannot be decoded is left to the worker, which meets it next.
pub async fn count_from<L: Log>(
    log: &L,
    from: BTreeMap<Partition, Offset>,
) -> Result<BTreeMap<Workspace, u64>, LogError> {
    let ends = log.ends();
    let end = |partition: &Partition| ends.get(usize::from(partition.0)).copied().unwrap_or_default();
    let mut left: u64 = from
        .iter()
        .map(|(partition, offset)| end(partition).0.saturating_sub(offset.0))
        .sum();
    let mut reader = log.reader(from)?;
    let mut counts = BTreeMap::new();
    while left > 0 {
        for entry in reader.next(1000, 1 << 20, READ_WAIT).await? {
            if entry.position.offset >= end(&entry.position.partition) {
                continue;
            }
            left -= 1;
            if let Ok(Record {
                origin: None,
                body: Body::Event(event),
            }) = Record::decode(&entry.payload)
            {
                *counts.entry(event.workspace).or_insert(0) += 1;
            }
        }
    }
    Ok(counts)
}

/// Records of one append.
#[derive(Default)]
struct Batch {
    records: Vec<(Partition, Bytes)>,
    slots: Vec<usize>,
    bytes: usize,
    by_workspace: BTreeMap<Workspace, u64>,
}
