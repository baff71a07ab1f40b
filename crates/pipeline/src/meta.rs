//! What a partition remembers besides its customers: how far the log is folded, the time, the books, and which model and
//! policies are in force. Stored in the same atomic commit as the records; versioned like them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use vigie_event::{CustomerKey, Offset, Origin, Partition, Timestamp, Workspace};
use vigie_relance::{PolicyError, PolicySet};
use vigie_scoring::{Model, ModelError};

const VERSION: u8 = 1;

/// The outcomes of one workspace's events in one partition, or summed. Each event that the log holds is counted in
/// exactly one of the first four (BOOKS-1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// Took effect.
    pub applied: u64,
    /// Repeated another event.
    pub duplicate: u64,
    /// Deliberately without effect.
    pub suppressed: u64,
    /// Set aside by the worker.
    pub dead_letter: u64,
    /// Of the applied: came under an id that had been used for other content.
    pub conflict: u64,
}

impl Books {
    /// Events that have found their place.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.applied + self.duplicate + self.suppressed + self.dead_letter
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.applied += other.applied;
        self.duplicate += other.duplicate;
        self.suppressed += other.suppressed;
        self.dead_letter += other.dead_letter;
        self.conflict += other.conflict;
    }
}

/// The model and the policies in force, read once from their texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    /// The model.
    pub model: Model,
    /// The policies.
    pub policies: PolicySet,
    /// The policies' text.
    pub policies_text: Arc<str>,
}

/// Why a control record's texts cannot be put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActiveError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The policies.
    #[error(transparent)]
    Policies(#[from] PolicyError),
}

impl Active {
    /// Reads both texts.
    pub fn parse(model: &str, policies: &str) -> Result<Self, ActiveError> {
        Ok(Self {
            model: Model::parse(model)?,
            policies: PolicySet::parse(policies)?,
            policies_text: policies.into(),
        })
    }

    pub(crate) fn reference(&self, at: Offset) -> ActiveRef {
        ActiveRef {
            model: self.model.fingerprint,
            policies: self.policies.fingerprint,
            at,
        }
    }
}

/// Which model and policies are in force, and the record that put them there (the log keeps the texts).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActiveRef {
    pub(crate) model: u64,
    pub(crate) policies: u64,
    pub(crate) at: Offset,
}

/// The stored part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Offset of the first record that is not folded yet.
    pub(crate) next: Offset,
    /// The latest time that a record brought here. Never falls.
    pub(crate) clock: Timestamp,
    pub(crate) active: Option<ActiveRef>,
    /// After a change of model or policies: the last customer that was looked at anew; `None` when all were.
    pub(crate) rearm: Option<Rearm>,
    /// The highest origin taken from each source partition. Bounded by the number of partitions.
    pub(crate) origins: BTreeMap<Partition, Origin>,
    /// Bounded by the number of workspaces.
    pub(crate) books: BTreeMap<Workspace, Books>,
}

/// How far the look at every customer after an activation has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rearm {
    pub(crate) after: Option<CustomerKey>,
}

/// A partition as the worker holds it in memory.
#[derive(Debug, Clone)]
pub(crate) struct PartitionState {
    pub(crate) meta: Meta,
    pub(crate) active: Option<Arc<Active>>,
    /// When it was put in force.
    pub(crate) since: Option<Timestamp>,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Writing to a growing Vec cannot fail for a type without sequences of unknown length.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((meta, [])) => Some(meta),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a derived record has been taken before; remembers it if not.
    pub(crate) fn is_repeated(&mut self, origin: Option<Origin>) -> bool {
        let Some(origin) = origin else { return false };
        let source = origin.position.partition;
        if self.origins.get(&source).is_some_and(|seen| *seen >= origin) {
            return true;
        }
        let _ = self.origins.insert(source, origin);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_event::Position;

    #[test]
    fn bytes_read_back_and_damage_does_not() {
        let mut meta = Meta {
            next: Offset(7),
            clock: Timestamp(9),
            ..Meta::default()
        };
        let _ = meta.books.insert(
            Workspace::new("w").unwrap(),
            Books {
                applied: 3,
                ..Books::default()
            },
        );
        let bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Some(meta));
        assert_eq!(Meta::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Meta::decode(&[2]), None);
        assert_eq!(Meta::decode(&[]), None);
    }

    #[test]
    fn an_origin_counts_once_and_only_forwards() {
        let mut meta = Meta::default();
        let origin = |offset, index| {
            Some(Origin {
                position: Position {
                    partition: Partition(3),
                    offset: Offset(offset),
                },
                index,
            })
        };
        assert!(!meta.is_repeated(None));
        assert!(!meta.is_repeated(origin(5, 0)));
        assert!(meta.is_repeated(origin(5, 0)));
        assert!(!meta.is_repeated(origin(5, 1)));
        assert!(meta.is_repeated(origin(4, 9)));
    }
}
