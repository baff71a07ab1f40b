//! The store on the local disk: one fjall database, one keyspace.
//!
//! It owns the directory, the owner check and the order of commits. It never retries: fjall poisons itself after a
//! failed write, and the process has to recover from the disk.
//!
//! # Why one keyspace
//!
//! fjall's batches are atomic over keyspaces as long as its journal is whole. But each keyspace flushes its
//! memtable to an fsynced table on its own, without an fsync of the journal. After a power loss the journal may
//! end at commit 50 while the table of the one keyspace that had just been flushed holds commit 100: customers
//! from the future beside a position from the past, and the steps in between would be folded twice. Within one
//! keyspace a flushed table holds *all* rows up to some commit, because a batch is applied to the memtable under
//! the lock that also rotates it. So with everything in one keyspace, what survives is always a prefix of the
//! commits (STEP-1), without an fsync per commit. Tables are told apart by the first byte of the key. (Measured
//! with fjall 3.1.13: two keyspaces, journal cut at 9/16: customer of step 59, position of step 33.)
//!
//! # Timers
//!
//! Timers are consumed from the front, so the front of the range fills with tombstones until compaction. A bound
//! per partition, kept in memory, says below which instant no timer exists, so that a look at the next timer does
//! not walk over the dead ones.

use crate::rows::{self, Changes, Rows};
use crate::{Commit, CommitReceipt, Counts, RankCursor, Snapshot, Store, StoreError, journal, keys, manifest};
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use vigie_event::{CustomerKey, FlagId, Offset, Partition, Timestamp, Workspace};
use vigie_failpoint::point;

/// The layout of the rows. Another version is refused, never guessed.
const LAYOUT_VERSION: u8 = 1;

/// Beside fjall's own files.
const LOCK_FILE: &str = "owner.lock";

/// How to open a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of partitions; must be what the store was created with.
    pub partitions: u16,
    /// Memory for cached blocks, in bytes.
    pub cache_bytes: u64,
    /// Memory for rows not yet written to a table, in bytes.
    pub memtable_bytes: u64,
    /// Disk space for the write-ahead journal, in bytes; at least 64 MiB.
    pub journal_bytes: u64,
}

impl Options {
    /// Defaults that fit a small machine: 64 MiB of cache, 32 MiB of memtable, 256 MiB of journal.
    #[must_use]
    pub fn new(partitions: u16) -> Self {
        Self {
            partitions,
            cache_bytes: 64 * 1024 * 1024,
            memtable_bytes: 32 * 1024 * 1024,
            journal_bytes: 256 * 1024 * 1024,
        }
    }
}

/// A store on the local disk. Clones share it; the directory is free again when the last one is dropped.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped before the database, which waits for its threads.
    rows: Keyspace,
    database: Database,
    partitions: u16,
    /// Held while a commit is planned and written: the plan reads what the write relies on.
    commit: Mutex<()>,
    timers: Mutex<BTreeMap<Partition, TimerBound>>,
    /// Held, never read. fjall has a lock of its own, but the journal is looked at before it is taken.
    _lock: File,
}

/// The timers asked for, and the next one whatever its time.
type Due = (Vec<(Timestamp, CustomerKey)>, Option<Timestamp>);

/// No timer of the partition is due before `from`. `writes` counts the commits that touched it, so that a reader
/// which looked before such a commit does not raise the bound over a timer that it could not see.
#[derive(Debug, Clone, Copy)]
struct TimerBound {
    from: Timestamp,
    writes: u64,
}

impl Default for TimerBound {
    fn default() -> Self {
        Self {
            from: Timestamp(i64::MIN),
            writes: 0,
        }
    }
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("partitions", &self.inner.partitions)
            .finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which it creates if needed. Blocks while the journal is read.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, StoreError> {
        let failed = |error| open_error(error, dir);
        let unprepared = |error: io::Error| StoreError::Unavailable {
            reason: format!("{}: {error}", dir.display()),
        };
        std::fs::create_dir_all(dir).map_err(unprepared)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK_FILE));
        let lock = lock.map_err(unprepared)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::Locked { path: dir.into() },
            TryLockError::Error(error) => unprepared(error),
        })?;
        point!("store.recover.before");
        journal::cut_torn_end(dir).map_err(unprepared)?;
        manifest::check(dir)?;
        let database = Database::builder(dir)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(64 * 1024 * 1024))
            .open()
            .map_err(failed)?;
        let memtable_bytes = options.memtable_bytes;
        let rows = database
            .keyspace("rows", || {
                KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes)
            })
            .map_err(failed)?;
        let inner = Inner {
            rows,
            database,
            partitions: options.partitions,
            commit: Mutex::new(()),
            timers: Mutex::default(),
            _lock: lock,
        };
        inner.check_layout()?;
        point!("store.recover.after");
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs `work` where it may wait for the disk. A caller that goes away does not interrupt it.
    fn run<T, W>(&self, work: W) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let work = move || work(&inner);
        async move {
            let failed = |error| {
                Err(StoreError::Unavailable {
                    reason: format!("store task ended: {error}"),
                })
            };
            tokio::task::spawn_blocking(work).await.unwrap_or_else(failed)
        }
    }
}

impl Inner {
    fn view(&self) -> EmbeddedSnapshot {
        EmbeddedSnapshot {
            snapshot: self.database.snapshot(),
            rows: self.rows.clone(),
        }
    }

    /// Records the layout at first start, and refuses any other later.
    fn check_layout(&self) -> Result<(), StoreError> {
        let [high, low] = self.partitions.to_be_bytes();
        let wanted = [LAYOUT_VERSION, high, low];
        let recorded = self.view().get(keys::LAYOUT)?;
        let reason = match recorded.as_deref() {
            Some(found) if found == wanted => return Ok(()),
            None if self.rows.first_key_value().is_none() => {
                let change = (keys::LAYOUT.to_vec(), Some(Bytes::copy_from_slice(&wanted)));
                return self.write(Changes::from([change]), PersistMode::SyncAll);
            }
            None => "it holds rows without a recorded layout".to_owned(),
            Some([LAYOUT_VERSION, high, low]) => format!(
                "it was created with {} partitions, not {}",
                u16::from_be_bytes([*high, *low]),
                self.partitions
            ),
            Some(other) => format!("unknown layout {}", other.escape_ascii()),
        };
        Err(StoreError::Layout { reason })
    }

    fn write(&self, changes: Changes, mode: PersistMode) -> Result<(), StoreError> {
        let mut batch = self.database.batch().durability(Some(mode));
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.rows, key, value),
                None => batch.remove(&self.rows, key),
            }
        }
        batch.commit().map_err(write_error)
    }

    fn commit(&self, commit: Commit) -> Result<CommitReceipt, StoreError> {
        let mut earliest: BTreeMap<Partition, Timestamp> = BTreeMap::new();
        for write in &commit.customers {
            if let Some(due) = write.timer {
                let first = earliest.entry(write.partition).or_insert(due);
                *first = due.min(*first);
            }
        }
        let _order = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        point!("store.epoch.before");
        let (changes, receipt) = rows::plan(&self.view(), commit, self.partitions)?;
        point!("store.epoch.after");
        // The bounds go down even if the write fails: a bound that is too low costs time, never a timer. They go
        // down after the write, so that a reader which missed the write finds the count changed.
        point!("store.commit.before");
        let written = self.write(changes, PersistMode::Buffer);
        point!("store.commit.after");
        let mut bounds = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, due) in earliest {
            let bound = bounds.entry(partition).or_default();
            bound.from = bound.from.min(due);
            bound.writes += 1;
        }
        written.map(|()| receipt)
    }

    /// Gives out the next epoch; with `renewing`, only to the owner of that one.
    fn claim(&self, renewing: Option<u64>, wanted: &[Partition]) -> Result<u64, StoreError> {
        let _order = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, epoch) = match renewing {
            Some(epoch) => rows::plan_renewal(&self.view(), epoch, wanted, self.partitions)?,
            None => rows::plan_claim(&self.view(), wanted, self.partitions)?,
        };
        point!("store.claim.before");
        self.write(changes, PersistMode::SyncAll)?;
        point!("store.claim.after");
        Ok(epoch)
    }

    /// Timers at or before `upto`, and the next one whatever its time.
    fn due(&self, partition: Partition, upto: Timestamp, limit: usize) -> Result<Due, StoreError> {
        let before = self.bound(partition);
        let view = self.view();
        let mut due = Vec::new();
        let mut first = None;
        for timer in rows::timers(&view, partition, before.from) {
            let (at, key) = timer?;
            let _first = first.get_or_insert(at);
            if at > upto || due.len() >= limit {
                break;
            }
            due.push((at, key));
        }
        let mut bounds = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = bounds.entry(partition).or_default();
        if bound.writes == before.writes {
            bound.from = first.unwrap_or(Timestamp(i64::MAX)).max(bound.from);
        }
        Ok((due, first))
    }

    fn bound(&self, partition: Partition) -> TimerBound {
        let bounds = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
        bounds.get(&partition).copied().unwrap_or_default()
    }
}

/// The rows of an [`EmbeddedStore`] as they were at one moment.
pub struct EmbeddedSnapshot {
    snapshot: fjall::Snapshot,
    rows: Keyspace,
}

impl std::fmt::Debug for EmbeddedSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedSnapshot").finish_non_exhaustive()
    }
}

impl Snapshot for EmbeddedSnapshot {
    fn partition(&self, partition: Partition) -> Result<Option<Bytes>, StoreError> {
        self.get(&keys::meta(partition))
    }

    fn scan(
        &self,
        partition: Partition,
        after: Option<&CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
        let after = after.map(|key| keys::customer(partition, key));
        rows::customers_under(self, keys::customers_in(partition), after, limit)
    }

    fn flags(
        &self,
        after: Option<&(Workspace, u64)>,
        limit: usize,
    ) -> Result<Vec<(Workspace, u64, Bytes)>, StoreError> {
        rows::all_flags(self, after, limit)
    }
}

impl Rows for EmbeddedSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.snapshot.get(&self.rows, key).map_err(read_error)?.map(Bytes::from))
    }

    fn range(
        &self,
        lower: Vec<u8>,
        upper: Vec<u8>,
    ) -> impl DoubleEndedIterator<Item = Result<(Bytes, Bytes), StoreError>> {
        let upper = upper.max(lower.clone());
        self.snapshot.range(&self.rows, lower..upper).map(|row| {
            let (key, value) = row.into_inner().map_err(read_error)?;
            Ok((Bytes::from(key), Bytes::from(value)))
        })
    }
}

impl Store for EmbeddedStore {
    type Snapshot = EmbeddedSnapshot;

    fn partitions(&self) -> u16 {
        self.inner.partitions
    }

    fn load(&self, keys: &[CustomerKey]) -> impl Future<Output = Result<Vec<Option<Bytes>>, StoreError>> + Send {
        let keys = rows::customer_keys(keys, self.inner.partitions);
        self.run(move |inner| rows::load(&inner.view(), &keys))
    }

    fn partition(&self, partition: Partition) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send {
        self.run(move |inner| inner.view().get(&keys::meta(partition)))
    }

    fn due(
        &self,
        partition: Partition,
        upto: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Timestamp, CustomerKey)>, StoreError>> + Send {
        self.run(move |inner| inner.due(partition, upto, limit).map(|(due, _)| due))
    }

    fn next_due(&self, partition: Partition) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send {
        self.run(move |inner| inner.due(partition, Timestamp(i64::MIN), 0).map(|(_, first)| first))
    }

    fn commit(&self, commit: Commit) -> impl Future<Output = Result<CommitReceipt, StoreError>> + Send {
        self.run(move |inner| inner.commit(commit))
    }

    fn claim(&self, partitions: &[Partition]) -> impl Future<Output = Result<u64, StoreError>> + Send {
        let partitions = partitions.to_vec();
        self.run(move |inner| inner.claim(None, &partitions))
    }

    fn renew(&self, epoch: u64, partitions: &[Partition]) -> impl Future<Output = Result<u64, StoreError>> + Send {
        let partitions = partitions.to_vec();
        self.run(move |inner| inner.claim(Some(epoch), &partitions))
    }

    fn scan(
        &self,
        partition: Partition,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(CustomerKey, Bytes)>, StoreError>> + Send {
        let after = after.map(|key| keys::customer(partition, &key));
        self.run(move |inner| rows::customers_under(&inner.view(), keys::customers_in(partition), after, limit))
    }

    fn at_risk(
        &self,
        workspace: &Workspace,
        after: Option<RankCursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u16, CustomerKey, Bytes)>, StoreError>> + Send {
        let workspace = workspace.clone();
        self.run(move |inner| rows::at_risk(&inner.view(), &workspace, after.as_ref(), limit, inner.partitions))
    }

    fn flags(
        &self,
        workspace: &Workspace,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, Bytes)>, StoreError>> + Send {
        let workspace = workspace.clone();
        self.run(move |inner| rows::flags(&inner.view(), &workspace, after, limit))
    }

    fn flag(
        &self,
        workspace: &Workspace,
        id: &FlagId,
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send {
        let (workspace, id) = (workspace.clone(), *id);
        self.run(move |inner| rows::flag(&inner.view(), &workspace, &id))
    }

    fn customers(
        &self,
        workspace: &Workspace,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(CustomerKey, Bytes)>, StoreError>> + Send {
        let workspace = workspace.clone();
        self.run(move |inner| rows::customers(&inner.view(), &workspace, after.as_ref(), limit, inner.partitions))
    }

    fn persist(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.run(|inner| {
            point!("store.persist.before");
            inner.database.persist(PersistMode::SyncAll).map_err(write_error)?;
            point!("store.persist.after");
            Ok(())
        })
    }

    fn judged(
        &self,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Offset, Bytes)>, StoreError>> + Send {
        self.run(move |inner| rows::judged(&inner.view(), partition, from, limit))
    }

    fn forget_judged(&self, below: &[(Partition, Offset)]) -> impl Future<Output = Result<(), StoreError>> + Send {
        let below = below.to_vec();
        self.run(move |inner| {
            let _order = inner.commit.lock().unwrap_or_else(PoisonError::into_inner);
            let changes = rows::plan_forget(&inner.view(), &below)?;
            inner.write(changes, PersistMode::Buffer)
        })
    }

    fn snapshot(&self) -> impl Future<Output = Result<EmbeddedSnapshot, StoreError>> + Send {
        self.run(|inner| Ok(inner.view()))
    }

    fn counts(&self) -> impl Future<Output = Result<Counts, StoreError>> + Send {
        self.run(|inner| {
            let disk_bytes = inner.database.disk_space().map_err(read_error)?;
            Ok(Counts {
                rows: inner.rows.approximate_len() as u64,
                disk_bytes,
            })
        })
    }
}

fn open_error(error: fjall::Error, dir: &Path) -> StoreError {
    match error {
        fjall::Error::Locked => StoreError::Locked {
            path: PathBuf::from(dir),
        },
        fjall::Error::InvalidVersion(found) => StoreError::Layout {
            reason: format!("unknown database version {found:?}"),
        },
        error => read_error(error),
    }
}

fn read_error(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => StoreError::Unavailable {
            reason: error.to_string(),
        },
        fjall::Error::Poisoned => StoreError::Poisoned {
            reason: "an earlier write failed".to_owned(),
        },
        error => StoreError::Corrupt {
            reason: error.to_string(),
        },
    }
}

/// fjall accepts no write after a failed one, whatever the cause.
fn write_error(error: fjall::Error) -> StoreError {
    StoreError::Poisoned {
        reason: error.to_string(),
    }
}
