//! What a partition remembers besides its customers, and how it is stored (version 1).

use crate::layout::Reader;
use serde::Serialize;
use std::collections::BTreeMap;
use vigie_event::{Offset, Origin, Partition, Position, Timestamp, Workspace};

const VERSION: u8 = 1;

/// The outcomes of one workspace's events in one partition. Each event is counted in exactly one of the first four.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Took effect.
    pub applied: u64,
    /// Repeated another event.
    pub duplicate: u64,
    /// Deliberately without effect.
    pub suppressed: u64,
    /// Set aside.
    pub dead_letter: u64,
    /// Of the applied: came under an id that had been used for other content.
    pub conflict: u64,
}

impl Books {
    pub(crate) fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        self.duplicate += other.duplicate;
        self.suppressed += other.suppressed;
        self.dead_letter += other.dead_letter;
        self.conflict += other.conflict;
    }
}

/// Which model and policies are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// Fingerprint of the model's text.
    pub model: u64,
    /// Fingerprint of the policies' text.
    pub policies: u64,
    /// The control record.
    pub at: Offset,
}

/// What a partition remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Offset of the first record that is not folded.
    pub next: Offset,
    /// The latest time that a record brought.
    pub clock: Timestamp,
    /// Model and policies.
    pub in_force: Option<InForce>,
    /// `true` in the midst of the looks that follow an activation: such a partition cannot be compared.
    pub busy: bool,
    /// The highest origin taken from each source partition.
    pub origins: BTreeMap<Partition, Origin>,
    /// The books per workspace.
    pub books: BTreeMap<Workspace, Books>,
}

impl Facts {
    /// Reads the meta bytes of a partition as a store keeps them; `None` when they are of another version or damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        if from.byte()? != VERSION {
            return None;
        }
        let facts = Self {
            next: Offset(from.number()?),
            clock: from.time()?,
            in_force: from.maybe(|from| {
                Some(InForce {
                    model: from.number()?,
                    policies: from.number()?,
                    at: Offset(from.number()?),
                })
            })?,
            busy: from
                .maybe(|from| from.maybe(|from| Some((from.text()?, from.person()?))))?
                .is_some(),
            origins: from.map(|from| Some((partition(from)?, origin(from)?)))?,
            books: from.map(|from| {
                let workspace = Workspace::new(from.text()?).ok()?;
                let books = Books {
                    applied: from.number()?,
                    duplicate: from.number()?,
                    suppressed: from.number()?,
                    dead_letter: from.number()?,
                    conflict: from.number()?,
                };
                Some((workspace, books))
            })?,
        };
        from.0.is_empty().then_some(facts)
    }
}

fn partition(from: &mut Reader<'_>) -> Option<Partition> {
    u16::try_from(from.number()?).ok().map(Partition)
}

fn origin(from: &mut Reader<'_>) -> Option<Origin> {
    Some(Origin {
        position: Position {
            partition: partition(from)?,
            offset: Offset(from.number()?),
        },
        index: u16::try_from(from.number()?).ok()?,
    })
}
