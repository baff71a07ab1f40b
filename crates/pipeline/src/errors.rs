//! Why the worker cannot go on, by what can be done about it. It never holds a bad event: that is an outcome, and counted.

use vigie_event::{CustomerKey, Offset, Partition, Position};
use vigie_ingestion::log::LogError;
use vigie_store::StoreError;

/// Why the worker cannot go on. A bad event is never among these: it is an outcome.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The reference data of enrichment.
    #[error(transparent)]
    Judge(#[from] vigie_enrichment::AgentError),
    /// The task that wrote a step ended before it was done.
    #[error("a commit was interrupted")]
    Interrupted,
    /// Keeping a dead letter failed.
    #[error("dead letter cannot be kept: {0}")]
    DeadLetter(String),
    /// The archive could not be written.
    #[error("archive cannot be written: {0}")]
    Archive(String),
    /// A record of the log or the store has bytes that this release cannot read.
    #[error("record at {position} cannot be read: {reason}")]
    Undecodable {
        /// Where.
        position: Position,
        /// Why.
        reason: String,
    },
    /// A customer record in the store cannot be read. Never taken for a new customer.
    #[error("stored record of {key} cannot be read: {reason}")]
    Record {
        /// Whose.
        key: CustomerKey,
        /// Why.
        reason: String,
    },
    /// The stored position and books of a partition cannot be read.
    #[error("stored state of partition {partition} cannot be read; it was written by a newer release or is damaged")]
    Meta {
        /// Which.
        partition: Partition,
    },
    /// A control record's model or policies are not valid.
    #[error("control record at {position} cannot be put in force: {reason}")]
    Control {
        /// Where.
        position: Position,
        /// Why.
        reason: String,
    },
    /// The log delivered a later record than the next one.
    #[error("partition {partition} continues at offset {found} where {expected} was expected")]
    Skipped {
        /// Which.
        partition: Partition,
        /// The next offset.
        expected: Offset,
        /// What came.
        found: Offset,
    },
    /// An event stands before the first control record.
    #[error("partition {partition} has no model yet; the log must begin with a control record")]
    NoModel {
        /// Which.
        partition: Partition,
    },
    /// A record of a partition that this worker does not own.
    #[error("partition {partition} is not owned by this worker")]
    NotOwned {
        /// Which.
        partition: Partition,
    },
    /// The fold asked for a record that was not fetched: a fault of this crate.
    #[error("a customer record that the fold needs was not fetched")]
    NotFetched,
    /// Folding a record failed in a way that nobody foresaw. Nothing of its batch was written.
    #[error("folding the record at {position} failed: {reason}")]
    Panicked {
        /// Where.
        position: Position,
        /// What the failure said.
        reason: String,
    },
}

impl WorkerError {
    /// Whether somebody else has taken a partition over, so that this worker's writes are refused.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Store(vigie_store::StoreError::Fenced { .. }))
    }

    /// Whether waiting may help: the log or the store cannot be reached for now.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Log(error) => error.class() == vigie_ingestion::log::ErrorClass::External,
            Self::Store(error) => error.class() == vigie_store::ErrorClass::External,
            _ => false,
        }
    }
}
