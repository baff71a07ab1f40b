//! The store: customer records, their indexes, the outbox of flags and the position that they all belong to.
//!
//! This crate owns the contract and three implementations, [`MemoryStore`] (simulation and tests), [`EmbeddedStore`]
//! (one fjall database on the local disk) and [`RedisStore`] (Redis or Redis Cluster, shared by several workers). It stores bytes and a few projected fields: it never
//! knows what a score is, never folds an event, never reads a clock and never retries on its own.
//!
//! # The contract
//!
//! **Atomic (STEP-1).** A [`Commit`] holds everything that one step of a worker produced: customer records,
//! their timers and ranks, flags, and the partitions' meta bytes, which hold the log position. It becomes visible
//! whole or not at all, and after a crash of the process or of the machine the store is what some prefix of the
//! commits made of it, never a mixture. In Redis this holds for each partition by itself: a partition's records, flags
//! and position are one unit, and nothing that one partition holds is understood through another one's position.
//!
//! **Unknown outcomes.** After [`StoreError::Unavailable`] nobody knows what a commit did, or will still do. The writer
//! must not go on from what it remembers: it takes the partitions anew with [`Store::renew`], which fences its own
//! commits that are still under way, and reads where they stand.
//!
//! **Durable later.** A commit is not fsynced. The state is a fold of the log, and the position that it belongs to
//! is part of the same commit: losing the last commits only means folding a little more of the log again. A
//! commit survives `kill -9` as soon as it returns; [`Store::persist`] makes everything before it survive power
//! loss, and only log records below a persisted position may be forgotten.
//!
//! **One owner (OWN-1).** [`Store::claim`] gives a worker an epoch for some partitions. A commit that touches a
//! partition whose last claim gave another epoch is [`StoreError::Fenced`] and changes nothing: an owner that was
//! paused and woke up late cannot write. Epochs only grow, over restarts too.
//!
//! **Flags (FLAG-1).** A flag row is inserted once per workspace and id. Inserting an id that exists changes
//! nothing, so a replay mints nothing; the receipt names the ids that were new. Rows of a workspace are numbered
//! 1, 2, 3… in the order of insertion.
//!
//! **Indexes.** Each customer has at most one timer and at most one rank. The writer says what they were before
//! (it has just read the record, so it knows), which saves the store a read per write. A writer that tells an
//! untruth leaves an index entry behind, which the reader of the index sees as a timer of a customer whose record
//! does not ask for it.
//!
//! **Isolation (WS-1).** Every key starts with its workspace in an encoding that no id can imitate or escape.
//!
//! **Partitions.** The number of partitions is recorded at first start. A record lives in the partition of its
//! person ([`vigie_event::partition_for`]); writing it elsewhere is [`StoreError::Misrouted`].
//!
//! # Why fjall here, and own files for the log
//!
//! The log is written once, read in order and must be fsynced before it answers: a chain of checksummed blocks
//! does exactly that, with one fdatasync per group and a tail that can be judged byte for byte. The store is
//! rewritten all the time, read by key and by range in five orders, and needs no fsync per commit: that is what a
//! log-structured merge tree with atomic batches is made for, and nothing that we should write ourselves.

mod embedded;
mod journal;
mod keys;
mod manifest;
mod memory;
mod redis;
mod rows;

pub use embedded::{EmbeddedSnapshot, EmbeddedStore, Options};
pub use memory::{MemorySnapshot, MemoryStore};
pub use redis::{RedisOptions, RedisStore, redis_key};

use bytes::Bytes;
use std::future::Future;
use std::path::PathBuf;
use vigie_event::{CustomerKey, FlagId, Offset, Partition, Timestamp, Workspace};

/// One changed customer record with its index entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerWrite {
    /// Whose record.
    pub key: CustomerKey,
    /// The partition of the person, as [`vigie_event::partition_for`] gives it.
    pub partition: Partition,
    /// The record, opaque here.
    pub bytes: Bytes,
    /// The entry of the timer index that the customer has afterwards, besides what it has already.
    pub timer: Option<Timestamp>,
    /// The entry that goes, if it is there and is another.
    pub previous_timer: Option<Timestamp>,
    /// Further entries that go.
    pub stale_timers: Vec<Timestamp>,
    /// At-risk rank, 65535 = most at risk; `None` keeps the customer out of the list.
    pub rank: Option<u16>,
    /// The rank that the last commit of this record wrote.
    pub previous_rank: Option<u16>,
    /// Public fields for stores that outsiders read directly.
    pub fields: Projection,
}

/// The public fields of a customer by name, for stores that other programs read directly ([`Store::publishes`]).
/// Opaque here; each write replaces all of them. `state` is taken by the record itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Projection(pub Vec<(&'static str, Bytes)>);

/// One row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagRow {
    /// The workspace that the flag belongs to.
    pub workspace: Workspace,
    /// The partition of the customer whom it is about: it is fenced and written with that one's record.
    pub partition: Partition,
    /// Its identity; the second row with the same one is ignored.
    pub id: FlagId,
    /// The flag, opaque here.
    pub body: Bytes,
}

/// Everything that one step produced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// What [`Store::claim`] answered for all partitions concerned.
    pub epoch: u64,
    /// Meta bytes of partitions, the position in the log included. Opaque here.
    pub partitions: Vec<(Partition, Bytes)>,
    /// Changed customers. If a key occurs twice, the last one counts and `previous_*` of it refer to the first.
    pub customers: Vec<CustomerWrite>,
    /// Flags to insert.
    pub flags: Vec<FlagRow>,
    /// What became of the step's records, for the archive: per partition the offset of the first one and the bytes of
    /// the run, opaque here.
    pub judged: Vec<(Partition, Offset, Bytes)>,
}

/// What a commit did beyond what it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitReceipt {
    /// The flags that did not exist before, in the order of the commit.
    pub flags_inserted: Vec<FlagId>,
}

/// A place in the at-risk list of a workspace: the row that it names has been seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankCursor {
    /// The rank of the row.
    pub rank: u16,
    /// The customer of the row.
    pub key: CustomerKey,
}

/// How much the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows of all kinds, indexes included. The embedded store estimates: rewritten rows may count more than once.
    pub rows: u64,
    /// Bytes on the disk; 0 in memory.
    pub disk_bytes: u64,
}

/// Keyed customer records with atomic commits. The crate documentation is the contract.
///
/// Every list answers at most `limit` rows; a shorter answer means that there are no more.
pub trait Store: Send + Sync + 'static {
    /// What [`Store::snapshot`] makes.
    type Snapshot: Snapshot;

    /// The number of partitions that the store was created with.
    fn partitions(&self) -> u16;

    /// Whether other programs read this store, so that a writer should fill [`CustomerWrite::fields`].
    fn publishes(&self) -> bool {
        false
    }

    /// The records of the keys, in the order of the keys, `None` where there is none.
    fn load(&self, keys: &[CustomerKey]) -> impl Future<Output = Result<Vec<Option<Bytes>>, StoreError>> + Send;

    /// The meta bytes that the last commit wrote for the partition.
    fn partition(&self, partition: Partition) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;

    /// Timers at or before `upto`, ordered by (due, key).
    fn due(
        &self,
        partition: Partition,
        upto: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Timestamp, CustomerKey)>, StoreError>> + Send;

    /// The earliest timer of the partition.
    fn next_due(&self, partition: Partition) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send;

    /// Makes the commit visible, whole or not at all.
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<CommitReceipt, StoreError>> + Send;

    /// Makes the caller the owner of the partitions, durably, and fences every earlier owner of any of them. A
    /// worker whose assignment changes claims all of it again, so that one epoch covers it.
    fn claim(&self, partitions: &[Partition]) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Claims anew what the caller owns with `epoch`, after a commit whose outcome is unknown: commits of the old epoch
    /// that are still under way change nothing from then on. [`StoreError::Fenced`] if somebody else has claimed any.
    fn renew(&self, epoch: u64, partitions: &[Partition]) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// The records of a partition in key order, after the given key.
    fn scan(
        &self,
        partition: Partition,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(CustomerKey, Bytes)>, StoreError>> + Send;

    /// The ranked customers of a workspace, most at risk first, then in key order.
    fn at_risk(
        &self,
        workspace: &Workspace,
        after: Option<RankCursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u16, CustomerKey, Bytes)>, StoreError>> + Send;

    /// The flags of a workspace numbered above `after`, in order. Start with 0.
    fn flags(
        &self,
        workspace: &Workspace,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, Bytes)>, StoreError>> + Send;

    /// One flag.
    fn flag(
        &self,
        workspace: &Workspace,
        id: &FlagId,
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send;

    /// The records of a workspace in key order, after the given key.
    fn customers(
        &self,
        workspace: &Workspace,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(CustomerKey, Bytes)>, StoreError>> + Send;

    /// Makes every commit that returned before this call survive power loss.
    fn persist(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The runs of judgements of a partition in order of their offsets, from the one that holds `from` on, if it is
    /// still kept.
    fn judged(
        &self,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Offset, Bytes)>, StoreError>> + Send;

    /// Forgets the runs of judgements that begin below the given offsets and are not the last of their partition: the
    /// archive has them.
    fn forget_judged(&self, below: &[(Partition, Offset)]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// All rows as they are at one moment.
    fn snapshot(&self) -> impl Future<Output = Result<Self::Snapshot, StoreError>> + Send;

    /// How much there is.
    fn counts(&self) -> impl Future<Output = Result<Counts, StoreError>> + Send;
}

/// All rows of a store as they were at one moment: what an audit compares with. Reading it may wait for the disk.
pub trait Snapshot: Send + 'static {
    /// The meta bytes of the partition.
    fn partition(&self, partition: Partition) -> Result<Option<Bytes>, StoreError>;

    /// The records of a partition in key order, after the given key.
    fn scan(
        &self,
        partition: Partition,
        after: Option<&CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError>;

    /// The flags of all workspaces with their numbers, in order of workspace and number, after the given one.
    fn flags(&self, after: Option<&(Workspace, u64)>, limit: usize)
    -> Result<Vec<(Workspace, u64, Bytes)>, StoreError>;
}

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The caller sent something that will never be accepted.
    User,
    /// The surroundings are at fault: the same call may succeed later.
    External,
    /// Repeating is useless: an operator or a developer has to look.
    Internal,
}

/// Why the store could not do what it was asked, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else owns the partition now. Nothing changed; give the partition up.
    #[error("partition {partition} is owned with epoch {owner}, not {epoch}")]
    Fenced {
        /// The first partition concerned.
        partition: Partition,
        /// The epoch of the last claim, 0 if there was none.
        owner: u64,
        /// The epoch of the refused commit.
        epoch: u64,
    },
    /// The store cannot be reached or written now. Whether a commit happened is unknown; it may be repeated.
    #[error("store is unavailable: {reason}")]
    Unavailable {
        /// What the system said.
        reason: String,
    },
    /// Durability is in doubt since a failed write. Stop the process and recover from the disk.
    #[error("store is poisoned: {reason}")]
    Poisoned {
        /// What the system said.
        reason: String,
    },
    /// Bytes in the store are not what was written. Never to be read as "no record".
    #[error("store is corrupt: {reason}")]
    Corrupt {
        /// What did not fit, and where.
        reason: String,
    },
    /// The store held data and is gone, or another one is there in its place. Nothing was changed; folding on would take
    /// every customer for a new one. Rebuild it from the archive, or restore it.
    #[error("store is lost: {reason}")]
    Lost {
        /// What was found instead.
        reason: String,
    },
    /// Another process has the directory open.
    #[error("another process holds {}", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds a store that cannot be opened with these settings or by this version.
    #[error("store cannot be opened: {reason}")]
    Layout {
        /// What differs.
        reason: String,
    },
    /// The record belongs to another partition, or the partition does not exist. Nothing changed.
    #[error("customer or meta written to partition {partition}, where it does not belong")]
    Misrouted {
        /// The partition that was named.
        partition: Partition,
    },
}

impl StoreError {
    /// The metric label of the error.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "fenced",
            Self::Unavailable { .. } => "unavailable",
            Self::Poisoned { .. } => "poisoned",
            Self::Corrupt { .. } => "corrupt",
            Self::Lost { .. } => "lost",
            Self::Locked { .. } => "locked",
            Self::Layout { .. } => "layout",
            Self::Misrouted { .. } => "misrouted",
        }
    }

    /// Whether repeating the call can help, and who can help otherwise.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable { .. } => ErrorClass::External,
            Self::Fenced { .. }
            | Self::Poisoned { .. }
            | Self::Corrupt { .. }
            | Self::Lost { .. }
            | Self::Locked { .. }
            | Self::Layout { .. }
            | Self::Misrouted { .. } => ErrorClass::Internal,
        }
    }
}
