//! The log: the one place where an accepted event becomes durable, and the only input of everything behind it.
//!
//! This module owns the contract and its two in-house implementations, [`MemoryLog`] (simulation and tests) and
//! [`EmbeddedLog`] (segment files on the local disk). It never looks into a payload, never knows what a customer
//! is, never reads a clock and never retries on its own.
//!
//! # The contract
//!
//! A log is a fixed number of partitions, chosen when the log is first created and never changed silently. Each
//! partition is a sequence of records with offsets 0, 1, 2… without gaps. A record is bytes.
//!
//! **Append.** When [`Log::append`] returns `Ok`, every record of the call survives `kill -9` and power loss, and
//! the answer holds the position of each, in the order of the call. A call is all or nothing: no reader ever sees
//! a part of it, before or after a crash. When it returns an error, nothing of it was written, with three
//! exceptions where the outcome is unknown: [`LogError::Poisoned`] (the records may appear after a restart),
//! [`LogError::Unknown`] (the records are queued and appear, each partition's in order, when the broker answers
//! again, or some first of them if the process ends before) and a future that is dropped after its first poll.
//! Whoever repeats such a call relies on the deduplication behind the log.
//!
//! **Order.** Records of one call keep their order. Of two calls where the second began after the first was
//! answered, the first comes first in every partition. All partitions share one order (the log order) in the
//! in-house logs; a reader may rely on order within a partition only, because Kafka promises no more.
//!
//! **Read.** A reader delivers exactly the partitions that it was asked for, each from the offset asked for
//! (inclusive), without gap or repetition, and only records that are already durable: what a reader has seen can
//! not be unseen by a crash. [`LogReader::next`] is cancel-safe: dropping its future loses no record. An offset
//! that is no longer, or not yet, in the log is [`LogError::Gap`]: a reader never jumps (decision D7).
//!
//! **Doubt.** A checksum that does not fit is [`LogError::Corrupt`] with file and offset; nothing is skipped,
//! repaired or cut. The only bytes ever dropped are a torn tail: an incomplete last block that was never
//! acknowledged. A failed fsync poisons the log for good: the kernel may have dropped the pages and would report
//! the next fsync as a success, so the only honest way on is to stop the process and recover from the disk.
//!
//! **Bounds.** Appends wait in a queue bounded in bytes; beyond it they are refused at once with
//! [`LogError::Overloaded`]. A reader holds at most the records of its last answer and one block.

mod embedded;
mod memory;
mod segment;

pub use embedded::{EmbeddedLog, EmbeddedReader, GroupCommit, LogObserver, Monotonic, NoObserver, Options, Recovery};
pub use memory::{Fault, MemoryLog, MemoryReader};
pub use segment::{Scan, scan};

use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use vigie_event::{Offset, Partition, Position};

/// One record as a reader delivers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the record stands.
    pub position: Position,
    /// Its bytes, as they were appended. A slice of a larger buffer in the embedded log: copy it to keep it long.
    pub payload: Bytes,
}

/// A durable, partitioned sequence of records. The module documentation is the contract.
pub trait Log: Send + Sync + 'static {
    /// What [`Log::reader`] makes.
    type Reader: LogReader;

    /// The number of partitions, fixed when the log was created.
    fn partitions(&self) -> u16;

    /// Appends all records or none; durable when it returns. Positions come in the order of `records`.
    fn append(&self, records: Vec<(Partition, Bytes)>) -> impl Future<Output = Result<Vec<Position>, LogError>> + Send;

    /// Appends what follows from records that the log already holds, such as an event sent on to the partition of its
    /// customer. Like [`Log::append`], except that a log which keeps room for what it has accepted gives that room here:
    /// what was let in can be finished while the door is closed.
    fn append_owed(
        &self,
        records: Vec<(Partition, Bytes)>,
    ) -> impl Future<Output = Result<Vec<Position>, LogError>> + Send {
        self.append(records)
    }

    /// A reader of exactly the named partitions, each starting at the given offset (inclusive).
    fn reader(&self, from: BTreeMap<Partition, Offset>) -> Result<Self::Reader, LogError>;

    /// The offset of the next record of every partition, counting durable records only.
    fn ends(&self) -> Vec<Offset>;

    /// The first offset of every partition that the log still holds.
    fn starts(&self) -> Vec<Offset>;

    /// Whether an append could be honoured now (HEALTH-1).
    fn health(&self) -> Health;
}

/// A position in the log that moves forward. It belongs to one task.
pub trait LogReader: Send + 'static {
    /// The next records in log order: at most `max_records`, and at most `max_bytes` of payload unless the first
    /// record alone is larger. Waits up to `wait` for the first one and then answers an empty list; an empty
    /// answer says that nothing was found in that time, not that the end was reached. Cancel-safe. After an error
    /// the reader stays where it was, so the same call gives the same error until its cause is gone.
    fn next(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<Entry>, LogError>> + Send;
}

/// Whether the log can honour an append now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Ok,
    /// Not now, but it heals by itself when the cause goes away.
    Degraded(String),
    /// Never again in this process.
    Poisoned(String),
}

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The caller sent something that will never be accepted.
    User,
    /// The surroundings are at fault (disk, load): the same call may succeed later.
    External,
    /// Repeating is useless: an operator or a developer has to look.
    Internal,
}

/// Why the log could not do what it was asked, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The append queue is full. Nothing was written; come back after `retry_after`.
    #[error("append queue is full, retry after {} ms", retry_after.as_millis())]
    Overloaded {
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// The disk refuses writes (full, read-only, out of descriptors). Nothing was written; heals by itself.
    #[error("log is unavailable: {reason}")]
    Unavailable {
        /// What the system said.
        reason: String,
    },
    /// The records were handed over and not confirmed in time (Kafka only). They stay queued: later ones of the same
    /// partition never overtake them. Repeating the call is safe where its records carry ids or an origin.
    #[error("outcome of the append is unknown: {reason}")]
    Unknown {
        /// What is known.
        reason: String,
    },
    /// Durability is in doubt since a failed fsync or write. Stop the process and recover from the disk.
    #[error("log is poisoned: {reason}")]
    Poisoned {
        /// What the system said.
        reason: String,
    },
    /// Bytes on the disk are not what was written. Nothing beyond this place is served or cut.
    #[error("log is corrupt at {}, offset {offset}: {reason}", file.display())]
    Corrupt {
        /// The segment file.
        file: PathBuf,
        /// The place of the bad block in the file, in bytes.
        offset: u64,
        /// What did not fit.
        reason: String,
    },
    /// The wanted offset is not in the log: records were removed by retention, or the log lost its end.
    #[error(
        "LOG_GAP {}..{}: partition {partition} holds offsets {first} to {end} (exclusive), wanted {from}",
        from.min(end), from.max(first)
    )]
    Gap {
        /// The partition.
        partition: Partition,
        /// The offset that was asked for.
        from: Offset,
        /// The first offset that the log holds.
        first: Offset,
        /// The offset after the last one that the log holds.
        end: Offset,
    },
    /// The call is larger than the log will ever accept. Split it.
    #[error("append of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The size of the call, framing included.
        bytes: u64,
        /// The largest size that is accepted.
        limit: u64,
    },
    /// The partition does not exist.
    #[error("partition {partition} does not exist, the log has {partitions}")]
    NoSuchPartition {
        /// The partition that was named.
        partition: Partition,
        /// How many there are.
        partitions: u16,
    },
    /// Another process has the directory open.
    #[error("another process holds {}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory holds a log that cannot be opened with these settings or by this version.
    #[error("log cannot be opened: {reason}")]
    Layout {
        /// What differs.
        reason: String,
    },
}

impl LogError {
    /// The metric label of the error.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable { .. } => "unavailable",
            Self::Unknown { .. } => "unknown",
            Self::Poisoned { .. } => "poisoned",
            Self::Corrupt { .. } => "corrupt",
            Self::Gap { .. } => "gap",
            Self::TooLarge { .. } => "too-large",
            Self::NoSuchPartition { .. } => "no-such-partition",
            Self::Locked { .. } => "locked",
            Self::Layout { .. } => "layout",
        }
    }

    /// Whether repeating the call can help, and who can help otherwise.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Overloaded { .. } | Self::Unavailable { .. } | Self::Unknown { .. } => ErrorClass::External,
            Self::TooLarge { .. } => ErrorClass::User,
            Self::Poisoned { .. }
            | Self::Corrupt { .. }
            | Self::Gap { .. }
            | Self::NoSuchPartition { .. }
            | Self::Locked { .. }
            | Self::Layout { .. } => ErrorClass::Internal,
        }
    }
}

/// Refuses the call if it names a partition that does not exist.
fn check_partitions(records: &[(Partition, Bytes)], partitions: u16) -> Result<(), LogError> {
    match records.iter().find(|(partition, _)| partition.0 >= partitions) {
        Some((partition, _)) => Err(LogError::NoSuchPartition {
            partition: *partition,
            partitions,
        }),
        None => Ok(()),
    }
}

/// Refuses to start a reader where a partition does not exist or its offset is outside `[starts, ends]`.
fn check_start(from: &BTreeMap<Partition, Offset>, starts: &[Offset], ends: &[Offset]) -> Result<(), LogError> {
    for (&partition, &offset) in from {
        let index = usize::from(partition.0);
        let (Some(&first), Some(&end)) = (starts.get(index), ends.get(index)) else {
            let partitions = u16::try_from(ends.len()).unwrap_or(u16::MAX);
            return Err(LogError::NoSuchPartition { partition, partitions });
        };
        if offset < first || offset > end {
            return Err(LogError::Gap {
                partition,
                from: offset,
                first,
                end,
            });
        }
    }
    Ok(())
}
