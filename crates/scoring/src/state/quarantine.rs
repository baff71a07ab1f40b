//! Unsubscriptions and complaints of which it is doubted that a person made them.
//!
//! A word in quarantine is not yet the person's: it is no consent, and no score reads it. But caution costs a mail and the
//! contrary a right, so marketing waits for as long as it is there. It leaves when the person (or an operator in their name)
//! says something about marketing at its time or later, whatever that is, or when an operator dismisses it as a machine's.
//! All of it is a function of what was said, in any order. What was believed once is never doubted afterwards.
//!
//! It never decides what is doubtful: enrichment does.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vigie_event::{Doubt, PersonId, Signal, Timestamp};

/// Words kept per record; the oldest leave first.
pub const MAX_HELD: usize = 16;

/// A word in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// When it was said.
    pub at: Timestamp,
    /// In whose name.
    pub identity: PersonId,
    /// An unsubscription or a complaint.
    pub signal: Signal,
    /// What the doubt rests on.
    pub doubt: Doubt,
}

/// What is in quarantine, and until when all of it was dismissed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// What waits for evidence. Merge: union, the newest [`MAX_HELD`] stay.
    pub(super) held: BTreeSet<Held>,
    /// What was said up to then was a machine's, by an operator's word. Merge: the later.
    pub(super) dismissed: Option<Timestamp>,
}

impl Quarantine {
    /// What waits for evidence, the oldest first.
    pub fn held(&self) -> impl ExactSizeIterator<Item = &Held> {
        self.held.iter()
    }

    /// Whether marketing waits.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn unite(&mut self, other: &Self) {
        self.held.extend(other.held.iter().cloned());
        self.dismissed = self.dismissed.max(other.dismissed);
    }

    /// Lets go what was answered: by a word about marketing at `answered`, or by a dismissal.
    pub(super) fn keep(&mut self, answered: Option<Timestamp>) {
        let until = answered.max(self.dismissed);
        self.held.retain(|held| Some(held.at) > until);
        while self.held.len() > MAX_HELD {
            let _ = self.held.pop_first();
        }
    }
}
