//! What the worker publishes about itself after every step, for the API, the books and the metrics. It never influences
//! the fold.

use crate::meta::{Active, Books};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use vigie_event::{Offset, Partition, Timestamp, Workspace};

/// One partition's progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Offset of the first record that is not part of the stored state.
    pub next: Offset,
    /// The partition's time.
    pub clock: Timestamp,
    /// When its next timer is due.
    pub due: Option<Timestamp>,
}

/// The worker's progress as of its last commit.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Per owned partition.
    pub partitions: BTreeMap<Partition, PartitionStatus>,
    /// Outcomes per workspace since the beginning of the log.
    pub books: BTreeMap<Workspace, Books>,
    /// The model and policies in force in the lowest owned partition.
    pub active: Option<Arc<Active>>,
    /// When they were put in force.
    pub active_since: Option<Timestamp>,
    /// Customer records written because of an event, in this process.
    pub touched_by_event: u64,
    /// Customer records written because of a timer, in this process.
    pub touched_by_timer: u64,
    /// Why the worker waits, while it does: the log or the store cannot be reached for now.
    pub waiting: Option<String>,
    /// Why the worker stopped, once it has.
    pub stopped: Option<String>,
}

/// Shared read access to the latest [`Status`].
#[derive(Debug, Clone, Default)]
pub struct StatusHandle(Arc<Mutex<Status>>);

impl StatusHandle {
    /// A copy of the latest status.
    #[must_use]
    pub fn get(&self) -> Status {
        self.read(Clone::clone)
    }

    /// Looks at the latest status without copying it.
    pub fn read<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says why nothing is folded for now, or that there is no reason any more.
    pub fn wait(&self, reason: Option<String>) {
        self.update(|status| status.waiting = reason);
    }

    /// Says why nothing will be folded any more in this process.
    pub fn stop(&self, reason: String) {
        tracing::error!(reason, "the worker stopped");
        self.update(|status| status.stopped = Some(reason));
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
