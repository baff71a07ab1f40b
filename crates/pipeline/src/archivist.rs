//! The archivist: follows the worker and hands what has been folded to the archive, each record with what became of it.
//!
//! The records come from the log and the judgements from the store, where the worker's commit put them; so a crash at
//! any point leaves nothing out and nothing twice: it goes on where the archive's manifest ends. It never folds, never
//! decides, and never holds up the worker: when the archive cannot be written, the log keeps what it is owed, and the
//! archivist tries again. What an archive is made of is not known here: it is a [`Shelf`].
//!
//! Bound: it holds at most [`ArchivistOptions::rows`] records or [`ArchivistOptions::bytes`] bytes of payload.

use crate::errors::WorkerError;
use crate::live::Clock;
use crate::meta::{Books, Meta};
use crate::status::{PartitionStatus, StatusHandle};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use vigie_event::{Judgement, Offset, Partition, Position, Timestamp, Workspace};
use vigie_failpoint::point;
use vigie_ingestion::log::{Entry, Log, LogReader};
use vigie_store::Store;

/// Longest wait for records: a bound on how late a request, a due flush or a stop is noticed.
const IDLE: Duration = Duration::from_millis(200);
/// Pause before a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Looks in a row that bring nothing of what is known to be in the log before a request is given up.
const LOOKS: u32 = 50;
/// Runs of judgements fetched in one call.
const RUNS: usize = 1_000;

/// A record as the archive keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelved {
    /// Where it stands in the log.
    pub position: Position,
    /// Its bytes in the log.
    pub bytes: Bytes,
    /// What became of it.
    pub judgement: Judgement,
}

/// Where the archivist puts records.
pub trait Shelf: Send + 'static {
    /// The first offset of every partition that is not on it yet.
    fn ends(&self) -> Vec<Offset>;

    /// Keeps the rows durably, all or none. They go on where [`Shelf::ends`] says, without gaps.
    fn put(&mut self, rows: Vec<Shelved>) -> impl Future<Output = Result<(), String>> + Send;
}

/// When the archivist writes.
#[derive(Debug, Clone, Copy)]
pub struct ArchivistOptions {
    /// Write when so many records wait.
    pub rows: usize,
    /// Write when so many bytes of records wait.
    pub bytes: usize,
    /// Write when the oldest record has waited so long.
    pub after: Duration,
}

impl Default for ArchivistOptions {
    fn default() -> Self {
        Self {
            rows: 250_000,
            bytes: 128 << 20,
            after: Duration::from_secs(60),
        }
    }
}

enum Request {
    /// Write everything that the worker has committed by now.
    Flush(oneshot::Sender<Result<Vec<Offset>, String>>),
    /// Tell what is committed and not on the shelf.
    Tail(oneshot::Sender<Result<Vec<Shelved>, String>>),
}

/// A way to ask a running archivist.
#[derive(Debug, Clone)]
pub struct ArchivistHandle(mpsc::Sender<Request>);

impl ArchivistHandle {
    /// Makes the archivist write everything that the worker has committed by now, and returns where the archive ends.
    pub async fn flush(&self) -> Result<Vec<Offset>, String> {
        self.ask(Request::Flush).await
    }

    /// What the worker has committed by now and the archive does not hold yet.
    pub async fn tail(&self) -> Result<Vec<Shelved>, String> {
        self.ask(Request::Tail).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Request) -> Result<T, String> {
        let gone = || "the archivist has stopped".to_owned();
        let (sender, receiver) = oneshot::channel();
        self.0.send(request(sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

/// How far a store has come, for who has a store and no worker.
pub async fn committed<S: Store>(store: &S) -> Result<StatusHandle, WorkerError> {
    let status = StatusHandle::default();
    look(store, &status).await?;
    Ok(status)
}

/// Brings a status up to what the store says now: positions, clocks, timers and books of all partitions. For processes
/// that follow workers elsewhere.
pub async fn look<S: Store>(store: &S, status: &StatusHandle) -> Result<(), WorkerError> {
    let mut partitions = BTreeMap::new();
    let mut books: BTreeMap<Workspace, Books> = BTreeMap::new();
    for partition in (0..store.partitions()).map(Partition) {
        let meta = match store.partition(partition).await? {
            Some(bytes) => Meta::decode(&bytes).ok_or(WorkerError::Meta { partition })?,
            None => Meta::default(),
        };
        for (workspace, settled) in &meta.books {
            books.entry(workspace.clone()).or_default().add(settled);
        }
        let progress = PartitionStatus {
            next: meta.next,
            clock: meta.clock,
            due: store.next_due(partition).await?,
        };
        let _ = partitions.insert(partition, progress);
    }
    status.update(|status| {
        status.partitions = partitions;
        status.books = books;
    });
    Ok(())
}

/// The archivist of one log, one store and one shelf.
#[derive(Debug)]
pub struct Archivist<L: Log, S: Store, A: Shelf> {
    store: Arc<S>,
    shelf: A,
    status: StatusHandle,
    options: ArchivistOptions,
    reader: L::Reader,
    /// Where the reader stands in each partition.
    read: BTreeMap<Partition, Offset>,
    /// Read and not on the shelf yet, per partition in order of offset.
    waiting: BTreeMap<Partition, Vec<Entry>>,
    rows: usize,
    bytes: usize,
    oldest: Option<Timestamp>,
    requests: mpsc::Receiver<Request>,
    failed_at: Option<Timestamp>,
}

impl<L: Log, S: Store, A: Shelf> Archivist<L, S, A> {
    /// An archivist that goes on where the shelf ends.
    pub fn new(
        log: &L,
        store: Arc<S>,
        shelf: A,
        status: StatusHandle,
        options: ArchivistOptions,
    ) -> Result<(Self, ArchivistHandle), WorkerError> {
        let from: BTreeMap<Partition, Offset> = (0..).map(Partition).zip(shelf.ends()).collect();
        let (sender, requests) = mpsc::channel(64);
        let archivist = Self {
            reader: log.reader(from.clone())?,
            read: from,
            store,
            shelf,
            status,
            options,
            waiting: BTreeMap::new(),
            rows: 0,
            bytes: 0,
            oldest: None,
            requests,
            failed_at: None,
        };
        Ok((archivist, ArchivistHandle(sender)))
    }

    /// Runs until `stop` becomes true and everything that the worker has committed is on the shelf. `noted` is told after
    /// every attempt to write: how many rows, how long the oldest had waited, or why it failed.
    pub async fn run(
        mut self,
        clock: Clock,
        mut stop: watch::Receiver<bool>,
        noted: impl Fn(Result<usize, &str>) + Send,
    ) -> Result<(), WorkerError> {
        loop {
            let stopping = *stop.borrow();
            let found = self
                .read(if stopping { Duration::ZERO } else { IDLE }, &clock, &mut stop)
                .await?;
            let now = clock();
            let waited = self.oldest.map_or(0, |oldest| now.ms_since(oldest));
            let due = self.rows >= self.options.rows
                || self.bytes >= self.options.bytes
                || u128::try_from(waited).is_ok_and(|waited| waited >= self.options.after.as_millis() && self.rows > 0);
            let rests = self
                .failed_at
                .is_some_and(|at| u128::try_from(now.ms_since(at)).is_ok_and(|since| since < RETRY.as_millis()));
            if due && !rests && !stopping {
                self.attempt(now, &noted).await?;
            }
            while let Ok(request) = self.requests.try_recv() {
                self.answer(request, now, &noted).await?;
            }
            if stopping && !found {
                if let Err(reason) = self.reach(now, &noted).await? {
                    tracing::warn!(reason, "the archive is written at the next start");
                }
                return Ok(());
            }
        }
    }

    /// Writes everything that the worker has committed, once: for tools that have a log and a store but no server.
    pub async fn catch_up(mut self, noted: impl Fn(Result<usize, &str>) + Send) -> Result<(), WorkerError> {
        self.reach(Timestamp(0), &noted).await?.map_err(WorkerError::Archive)
    }

    /// Whether the worker has committed records that were not read yet.
    fn is_behind(&self) -> bool {
        self.status.read(|status| {
            let mut partitions = status.partitions.iter();
            partitions.any(|(partition, state)| self.read.get(partition).is_none_or(|read| *read < state.next))
        })
    }

    /// Reads on to what the worker has committed by now, unless enough waits. They are in the log; but that a look at it
    /// brings nothing only says that it took too long.
    async fn follow(&mut self, now: Timestamp) -> Result<Result<(), String>, WorkerError> {
        let mut looks = 0;
        while self.is_behind() && !self.is_full() {
            looks = if self.fill(IDLE, now).await? { 0 } else { looks + 1 };
            if looks >= LOOKS {
                return Ok(Err(
                    "the log does not hold, or does not tell, what the store says was folded".to_owned(),
                ));
            }
        }
        Ok(Ok(()))
    }

    /// Writes everything that the worker has committed by now.
    async fn reach(
        &mut self,
        now: Timestamp,
        noted: &impl Fn(Result<usize, &str>),
    ) -> Result<Result<(), String>, WorkerError> {
        loop {
            let followed = self.follow(now).await?;
            let waited = self.rows;
            let written = self.write(noted).await?;
            if followed.is_err() || written.is_err() || !self.is_behind() {
                return Ok(followed.and(written));
            }
            if self.rows >= waited {
                return Ok(Err(
                    "too many records that are not folded yet wait; ask again later".to_owned()
                ));
            }
        }
    }

    fn is_full(&self) -> bool {
        self.rows >= self.options.rows || self.bytes >= self.options.bytes
    }

    /// Reads on unless enough waits; `false` when there was nothing to read.
    async fn read(
        &mut self,
        wait: Duration,
        clock: &Clock,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<bool, WorkerError> {
        if self.is_full() {
            tokio::time::sleep(wait.min(IDLE)).await;
            return Ok(true);
        }
        tokio::select! {
            found = self.fill(wait, clock()) => found,
            changed = stop.changed(), if !wait.is_zero() => {
                // A sender that is gone means the same as one that says stop; the loop reads it.
                drop(changed);
                Ok(true)
            }
        }
    }

    async fn fill(&mut self, wait: Duration, now: Timestamp) -> Result<bool, WorkerError> {
        let entries = self.reader.next(10_000, 8 << 20, wait).await?;
        if entries.is_empty() {
            return Ok(false);
        }
        let _ = self.oldest.get_or_insert(now);
        for entry in entries {
            let _ = self.read.insert(entry.position.partition, entry.position.offset.next());
            self.rows += 1;
            self.bytes += entry.payload.len();
            self.waiting.entry(entry.position.partition).or_default().push(entry);
        }
        Ok(true)
    }

    async fn answer(
        &mut self,
        request: Request,
        now: Timestamp,
        noted: &impl Fn(Result<usize, &str>),
    ) -> Result<(), WorkerError> {
        match request {
            Request::Flush(reply) => {
                let outcome = self.reach(now, noted).await?;
                let _ = reply.send(outcome.map(|()| self.shelf.ends()));
            }
            Request::Tail(reply) => {
                let rows = match self.follow(now).await? {
                    Ok(()) => self.ready().await.map_err(|error| error.to_string()),
                    Err(reason) => Err(reason),
                };
                let _ = reply.send(rows);
            }
        }
        Ok(())
    }

    async fn attempt(&mut self, now: Timestamp, noted: &impl Fn(Result<usize, &str>)) -> Result<(), WorkerError> {
        self.failed_at = self.write(noted).await?.is_err().then_some(now);
        Ok(())
    }

    /// Puts what is ready on the shelf. The outer error is the pipeline's, the inner one the shelf's.
    async fn write(&mut self, noted: &impl Fn(Result<usize, &str>)) -> Result<Result<(), String>, WorkerError> {
        let rows = match self.ready().await {
            Err(error) if error.is_passing() => {
                let reason = error.to_string();
                noted(Err(&reason));
                return Ok(Err(reason));
            }
            rows => rows?,
        };
        if rows.is_empty() {
            return Ok(Ok(()));
        }
        let count = rows.len();
        point!("archive.put.before");
        let put = self.shelf.put(rows).await;
        point!("archive.put.after");
        if let Err(reason) = put {
            noted(Err(&reason));
            return Ok(Err(reason));
        }
        let ends: Vec<(Partition, Offset)> = (0..).map(Partition).zip(self.shelf.ends()).collect();
        for (partition, end) in &ends {
            if let Some(entries) = self.waiting.get_mut(partition) {
                entries.retain(|entry| entry.position.offset >= *end);
            }
        }
        self.waiting.retain(|_, entries| !entries.is_empty());
        self.rows = self.waiting.values().map(Vec::len).sum();
        self.bytes = self.waiting.values().flatten().map(|entry| entry.payload.len()).sum();
        if self.rows == 0 {
            self.oldest = None;
        }
        // The archive is durable now; forgetting too little is harmless.
        point!("archive.forget.before");
        match self.store.forget_judged(&ends).await.map_err(WorkerError::from) {
            Err(error) if error.is_passing() => {
                tracing::warn!(reason = %error, "judgements are kept until the next flush")
            }
            forgotten => forgotten?,
        }
        point!("archive.forget.after");
        noted(Ok(count));
        Ok(Ok(()))
    }

    /// The waiting records that the worker has committed, with their judgements.
    async fn ready(&self) -> Result<Vec<Shelved>, WorkerError> {
        let committed: BTreeMap<Partition, Offset> = self.status.read(|status| {
            let next = status.partitions.iter();
            next.map(|(partition, state)| (*partition, state.next)).collect()
        });
        let mut rows = Vec::with_capacity(self.rows);
        for (partition, entries) in &self.waiting {
            let until = committed.get(partition).copied().unwrap_or_default();
            let count = entries.partition_point(|entry| entry.position.offset < until);
            let Some(entries) = entries.get(..count) else { continue };
            let Some(first) = entries.first() else { continue };
            let mut judgements = self
                .judgements(*partition, first.position.offset, count)
                .await?
                .into_iter();
            for entry in entries {
                rows.push(Shelved {
                    position: entry.position,
                    bytes: entry.payload.clone(),
                    judgement: judgements.next().unwrap_or(Judgement::Unrecorded),
                });
            }
        }
        Ok(rows)
    }

    /// What became of `count` records from `from` on, as far as it was recorded.
    async fn judgements(
        &self,
        partition: Partition,
        from: Offset,
        count: usize,
    ) -> Result<Vec<Judgement>, WorkerError> {
        let mut judgements = Vec::with_capacity(count);
        let next = |judgements: &Vec<Judgement>| Offset(from.0 + judgements.len() as u64);
        while judgements.len() < count {
            let before = judgements.len();
            let runs = self.store.judged(partition, next(&judgements), RUNS).await?;
            for (start, bytes) in runs {
                let run = Judgement::decode(&bytes).map_err(|error| WorkerError::Undecodable {
                    position: Position {
                        partition,
                        offset: start,
                    },
                    reason: error.to_string(),
                })?;
                let missing = usize::try_from(start.0.saturating_sub(next(&judgements).0)).unwrap_or(usize::MAX);
                let room = count.saturating_sub(judgements.len());
                judgements.extend(std::iter::repeat_n(Judgement::Unrecorded, missing.min(room)));
                let known = usize::try_from(next(&judgements).0.saturating_sub(start.0)).unwrap_or(usize::MAX);
                judgements.extend(run.into_iter().skip(known));
                if judgements.len() >= count {
                    break;
                }
            }
            if judgements.len() == before {
                break;
            }
        }
        judgements.resize(count, Judgement::Unrecorded);
        Ok(judgements)
    }
}
