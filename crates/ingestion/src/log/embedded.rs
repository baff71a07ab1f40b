//! The log on the local disk: one chain of segment files for all partitions, one writer thread, group commit.
//!
//! It owns the directory: `LOCK`, `reserve` and `log/*.seg`. It never reads a clock (durations are measured with a
//! function that the caller passes), never retries an fsync, and never cuts anything but a torn tail. The bytes
//! are described in the `segment` module.
//!
//! # Why own files, and one chain
//!
//! The log must be on the disk before it answers, and one fdatasync costs the same milliseconds for 4 KiB as for
//! 1 MiB. So everything that arrives while one fdatasync runs, for whatever partition, becomes one block and one
//! fdatasync: latency stays at two of them, throughput at whatever the disk takes. A file per partition would pay
//! one fdatasync each; a key-value store would write everything twice and answer from its buffers by default.
//!
//! # Life of an append
//!
//! The caller puts its records into a queue bounded in bytes and waits. The thread `vigie-log` takes what is
//! there, up to the group-commit size, encodes one block, writes it, calls fdatasync, publishes the new durable
//! end to the readers and answers the callers. Readers never look behind the published end.
//!
//! # Faults
//!
//! | what fails | what happens |
//! |---|---|
//! | less than `keep_free_bytes` and the reserve are free | the callers of `append` get `Unavailable` before anything is written; asked again at each append, and once a second. `append_owed` goes on |
//! | write, for want of space, of write permission or of descriptors | the file is cut back to the last block, the callers get `Unavailable`; every later append tries again, and a probe each second when there is none |
//! | any other write, any fdatasync, the directory's fsync after a rename | poisoned: every later append is refused until the process has been restarted |
//! | process or machine dies | the last block may be torn: dropped at the next start, it was never acknowledged |
//!
//! At start the last block is written once more, with the same bytes, and synced: after a failed fdatasync the
//! kernel may show a page as clean that never reached the disk, and only dirty pages are written.

mod directory;
mod disk;
#[cfg(test)]
mod faults;
mod reader;
mod writer;

pub use reader::EmbeddedReader;

use super::{Health, Log, LogError, check_partitions, check_start, segment};
use bytes::Bytes;
use directory::{create, create_dirs, fill_reserve, lock, recover, remove_unfinished};
use disk::{Disk, RealDisk, unsynced_dir};
use reader::Walk;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use vigie_event::{Offset, Partition, Position};
use writer::Writer;

/// The directory of the segment files within the data directory.
pub(super) const LOG_DIR: &str = "log";
const LOCK_FILE: &str = "LOCK";
const RESERVE_FILE: &str = "reserve";
/// How long a full queue asks its callers to stay away: some dozens of group commits.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Nanoseconds since any fixed moment, never going back.
pub type Monotonic = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How to open an embedded log.
#[derive(Clone)]
pub struct Options {
    /// The number of partitions; must be what the log was created with.
    pub partitions: u16,
    /// Recorded when the log is created and mixed into every checksum: a random number keeps clients from
    /// writing payloads that look like blocks. Ignored when the log exists.
    pub identity: u64,
    /// A segment that has reached this size is closed, in bytes.
    pub segment_bytes: u64,
    /// What may wait for the writer, and the largest single append, in bytes.
    pub queue_bytes: u64,
    /// A block takes no further append beyond this size, in bytes.
    pub group_commit_bytes: u64,
    /// The size of the reserve file, in bytes; 0 for none.
    pub reserve_bytes: u64,
    /// What is left free on the file system, in bytes: with less, appends are refused.
    pub keep_free_bytes: u64,
    /// For the durations that the observer is told.
    pub monotonic: Monotonic,
    /// Is told what the writer did.
    pub observer: Arc<dyn LogObserver>,
}

impl Options {
    /// 64 MiB segments, 32 MiB of queue, 1 MiB group commits, 8 MiB of reserve, 2 MiB left free, nobody watching.
    #[must_use]
    pub fn new(partitions: u16) -> Self {
        Self {
            partitions,
            identity: 0,
            segment_bytes: 64 * 1024 * 1024,
            queue_bytes: 32 * 1024 * 1024,
            group_commit_bytes: 1024 * 1024,
            reserve_bytes: 8 * 1024 * 1024,
            keep_free_bytes: 2 * 1024 * 1024,
            monotonic: Arc::new(|| 0),
            observer: Arc::new(NoObserver),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("partitions", &self.partitions)
            .field("segment_bytes", &self.segment_bytes)
            .field("queue_bytes", &self.queue_bytes)
            .field("group_commit_bytes", &self.group_commit_bytes)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("keep_free_bytes", &self.keep_free_bytes)
            .finish_non_exhaustive()
    }
}

/// One group commit that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCommit {
    /// Appends that shared it.
    pub appends: usize,
    /// Records of all of them.
    pub records: usize,
    /// Bytes written to the file.
    pub bytes: u64,
    /// Nanoseconds in write.
    pub write_ns: u64,
    /// Nanoseconds in fdatasync.
    pub sync_ns: u64,
}

/// Is told what happens in the log, for metrics. Called on the writer thread or on an appender: must not block.
pub trait LogObserver: Send + Sync {
    /// A group commit is on the disk.
    fn committed(&self, _commit: &GroupCommit) {}
    /// Appends were refused, with the error's tag.
    fn refused(&self, _tag: &'static str, _appends: usize) {}
    /// A new segment was begun.
    fn rolled(&self) {}
}

/// Watches nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoObserver;

impl LogObserver for NoObserver {}

/// What opening the log found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// File, offset and length in bytes of a torn tail that was dropped.
    pub torn: Option<(PathBuf, u64, u64)>,
    /// Whether the reserve file is there.
    pub reserve: bool,
}

/// A log in segment files. Dropping it waits for what is queued, then closes the directory.
#[derive(Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Option<thread::JoinHandle<()>>,
    recovery: Recovery,
    dir: PathBuf,
    reserve_bytes: u64,
    /// Held, never read: the lock lives as long as the open file, and goes after the writer has ended.
    _lock: File,
}

#[derive(Debug)]
struct Shared {
    log_dir: PathBuf,
    partitions: u16,
    limits: Limits,
    queue: Mutex<Queue>,
    wake: Condvar,
    durable: watch::Sender<Durable>,
    health: watch::Sender<Health>,
    segments: Mutex<BTreeMap<u64, Segment>>,
    /// Whether the reserve is a file; else its space is kept free. Held while it changes from one to the other: whoever asks
    /// for free space in between would count it twice or not at all.
    reserve_held: Mutex<bool>,
    observer: Observer,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    segment_bytes: u64,
    queue_bytes: u64,
    group_commit_bytes: u64,
    reserve_bytes: u64,
    keep_free_bytes: u64,
}

/// How far the log is on the disk.
#[derive(Debug, Clone)]
struct Durable {
    /// The sequence of the next block.
    sequence: u64,
    /// The next offset of each partition.
    ends: Arc<[u64]>,
}

#[derive(Debug, Clone)]
struct Segment {
    path: PathBuf,
    bases: Arc<[u64]>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: u64,
    closed: bool,
}

/// Which room an append may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// What is left beside the reserve.
    New,
    /// The reserve too: it follows from what was accepted.
    Owed,
}

#[derive(Debug)]
struct Job {
    records: Vec<(Partition, Bytes)>,
    bytes: u64,
    claim: Claim,
    answer: oneshot::Sender<Result<Vec<Position>, LogError>>,
}

struct Observer(Arc<dyn LogObserver>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or creates it. Blocks while it reads the last segment.
    pub fn open(dir: &Path, options: Options) -> Result<Self, LogError> {
        Self::open_on(dir, options, Box::new(RealDisk))
    }

    pub(super) fn open_on(dir: &Path, options: Options, disk: Box<dyn Disk>) -> Result<Self, LogError> {
        let log_dir = dir.join(LOG_DIR);
        create_dirs(&log_dir, disk.as_ref())?;
        let lock = lock(&dir.join(LOCK_FILE))?;
        remove_unfinished(&log_dir)?;
        let mut recovery = Recovery::default();
        let (end, segments) = match segment::list(&log_dir)?.pop() {
            Some((_, last)) => recover(&log_dir, &last, &options, disk.as_ref(), &mut recovery)?,
            None => create(&log_dir, &options, disk.as_ref())?,
        };
        disk.sync_dir(&log_dir)
            .and_then(|()| disk.sync_dir(dir))
            .map_err(|error| unsynced_dir(&error))?;
        recovery.reserve = options.reserve_bytes == 0 || fill_reserve(dir, options.reserve_bytes).is_ok();
        let durable = Durable {
            sequence: end.sequence,
            ends: end.next.as_slice().into(),
        };
        let shared = Arc::new(Shared {
            log_dir,
            partitions: options.partitions,
            limits: Limits {
                segment_bytes: options.segment_bytes,
                // A block's length is 32 bits.
                queue_bytes: options.queue_bytes.min(u64::from(u32::MAX / 2)),
                group_commit_bytes: options.group_commit_bytes,
                reserve_bytes: options.reserve_bytes,
                keep_free_bytes: options.keep_free_bytes,
            },
            queue: Mutex::default(),
            wake: Condvar::new(),
            durable: watch::channel(durable).0,
            health: watch::channel(Health::Ok).0,
            segments: Mutex::new(segments),
            reserve_held: Mutex::new(recovery.reserve),
            observer: Observer(options.observer),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            disk,
            end,
            torn: false,
            buffer: Vec::new(),
            monotonic: options.monotonic,
        };
        let writer = thread::Builder::new()
            .name("vigie-log".into())
            .spawn(move || writer.run())
            .map_err(|error| LogError::Unavailable {
                reason: format!("writer thread: {error}"),
            })?;
        let reserve_bytes = options.reserve_bytes;
        Ok(Self {
            shared,
            writer: Some(writer),
            recovery,
            dir: dir.into(),
            reserve_bytes,
            _lock: lock,
        })
    }

    /// What opening the log found.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Every change of [`Log::health`].
    #[must_use]
    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// Bytes of appends that wait for the writer.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.shared.queue().bytes
    }

    /// Gives the reserve file's space back to the file system, so that others on a full disk can finish.
    pub fn free_reserve(&self) -> Result<(), LogError> {
        let path = self.dir.join(RESERVE_FILE);
        let mut held = self.shared.reserve_held();
        *held = self.reserve_bytes == 0;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(segment::unreadable(&path, &error)),
            _ => Ok(()),
        }
    }

    /// Takes the reserve file's space again, unless that would leave too little to others.
    pub fn restore_reserve(&self) -> Result<(), LogError> {
        let mut held = self.shared.reserve_held();
        if *held {
            return Ok(());
        }
        let wanted = self
            .reserve_bytes
            .saturating_add(2 * self.shared.limits.keep_free_bytes);
        let free = RealDisk.free_bytes(&self.dir).unwrap_or(u64::MAX);
        if free < wanted {
            let reason = format!("{free} bytes are free on the file system, and the reserve needs {wanted}");
            return Err(LogError::Unavailable { reason });
        }
        fill_reserve(&self.dir, self.reserve_bytes)?;
        *held = true;
        Ok(())
    }

    /// Deletes the segments that hold nothing at or above `below` (one offset per partition), oldest first; never
    /// the current one. Answers how many were deleted. Blocks.
    pub fn retain(&self, below: &[Offset]) -> Result<usize, LogError> {
        let mut segments = self.shared.segments();
        let mut deleted = 0;
        loop {
            let mut oldest = segments.iter();
            let (Some((&sequence, first)), Some((_, second))) = (oldest.next(), oldest.next()) else {
                break;
            };
            if below.len() != second.bases.len() || second.bases.iter().zip(below).any(|(base, limit)| *base > limit.0)
            {
                break;
            }
            match std::fs::remove_file(&first.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(segment::unreadable(&first.path, &error));
                }
                _ => deleted += 1,
            }
            drop(segments.remove(&sequence));
        }
        drop(segments);
        if deleted > 0 {
            let log_dir = &self.shared.log_dir;
            RealDisk
                .sync_dir(log_dir)
                .map_err(|error| segment::unreadable(log_dir, &error))?;
        }
        Ok(deleted)
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.wake.notify_all();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has answered nobody, and there is nothing left to do for it.
            drop(writer.join());
        }
    }
}

impl Log for EmbeddedLog {
    type Reader = EmbeddedReader;

    fn partitions(&self) -> u16 {
        self.shared.partitions
    }

    fn append(&self, records: Vec<(Partition, Bytes)>) -> impl Future<Output = Result<Vec<Position>, LogError>> + Send {
        Shared::append(Arc::clone(&self.shared), records, Claim::New)
    }

    fn append_owed(
        &self,
        records: Vec<(Partition, Bytes)>,
    ) -> impl Future<Output = Result<Vec<Position>, LogError>> + Send {
        Shared::append(Arc::clone(&self.shared), records, Claim::Owed)
    }

    fn reader(&self, from: BTreeMap<Partition, Offset>) -> Result<EmbeddedReader, LogError> {
        let durable = self.shared.durable.subscribe();
        check_start(&from, &self.starts(), &self.ends())?;
        let walk = Walk {
            shared: Arc::clone(&self.shared),
            wanted: from,
            cursor: None,
        };
        Ok(EmbeddedReader {
            durable,
            walk: Some(walk),
            looking: None,
            ready: VecDeque::new(),
        })
    }

    fn ends(&self) -> Vec<Offset> {
        self.shared.ends()
    }

    fn starts(&self) -> Vec<Offset> {
        self.shared.starts()
    }

    fn health(&self) -> Health {
        self.shared.health.borrow().clone()
    }
}

/// A lock poisoned by a panic is taken as it is: what these locks guard is changed in single steps.
impl Shared {
    fn reserve_held(&self) -> MutexGuard<'_, bool> {
        self.reserve_held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments(&self) -> MutexGuard<'_, BTreeMap<u64, Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> Vec<Offset> {
        self.durable.borrow().ends.iter().copied().map(Offset).collect()
    }

    fn starts(&self) -> Vec<Offset> {
        let segments = self.segments();
        segments
            .values()
            .next()
            .map(|first| first.bases.iter().copied().map(Offset).collect())
            .unwrap_or_default()
    }

    async fn append(
        shared: Arc<Self>,
        records: Vec<(Partition, Bytes)>,
        claim: Claim,
    ) -> Result<Vec<Position>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let answer = shared
            .enqueue(records, claim)
            .inspect_err(|error| shared.observer.0.refused(error.tag(), 1))?;
        let ended = || LogError::Poisoned {
            reason: "the writer has ended".into(),
        };
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Refuses at once or promises an answer.
    fn enqueue(
        &self,
        records: Vec<(Partition, Bytes)>,
        claim: Claim,
    ) -> Result<oneshot::Receiver<Result<Vec<Position>, LogError>>, LogError> {
        check_partitions(&records, self.partitions)?;
        if let Health::Poisoned(reason) = &*self.health.borrow() {
            return Err(LogError::Poisoned { reason: reason.clone() });
        }
        let bytes = records
            .iter()
            .map(|(_, payload)| payload.len() as u64 + segment::RECORD_OVERHEAD_BYTES)
            .sum();
        if bytes > self.limits.queue_bytes {
            return Err(LogError::TooLarge {
                bytes,
                limit: self.limits.queue_bytes,
            });
        }
        let (answer, answered) = oneshot::channel();
        let mut queue = self.queue();
        if queue.bytes + bytes > self.limits.queue_bytes {
            return Err(LogError::Overloaded {
                retry_after: RETRY_AFTER,
            });
        }
        queue.bytes += bytes;
        queue.jobs.push_back(Job {
            records,
            bytes,
            claim,
            answer,
        });
        drop(queue);
        self.wake.notify_one();
        Ok(answered)
    }
}
