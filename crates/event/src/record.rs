//! Log records and their bytes.
//!
//! Layout of a record: one version byte, then the body in [postcard](https://postcard.jamesmunns.com/wire-format)
//! 1.x. Version 1 is the only one so far. A reader that meets an unknown version or trailing bytes returns an error;
//! it never guesses and never treats the record as absent. Fixtures of every version that was ever written are walked
//! by a test.

use crate::{Event, EventId, Origin, PersonId, Timestamp, Workspace};
use serde::{Deserialize, Serialize};

/// The version that [`Record::encode`] writes.
const VERSION: u8 = 1;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No bytes at all.
    #[error("record is empty")]
    Empty,
    /// Written by a newer release (or not a record).
    #[error("record has unknown format version {0}; it was written by a newer release or is damaged")]
    Version(u8),
    /// The body does not decode.
    #[error("record body is damaged")]
    Body,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// For a record that folding another record gave rise to: that record.
    pub origin: Option<Origin>,
    /// What it says.
    pub body: Body,
}

/// Everything that can change a score or a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Something happened to a person.
    Event(Box<Event>),
    /// Time passed.
    Tick(Tick),
    /// One identity belongs to another; read in the partition of `from`.
    Link(Link),
    /// What an identity had gathered before it was linked; read in the partition of `into`.
    Merge(Merge),
    /// A decision of the operator; written once to every partition.
    Control(Control),
    /// An event on its way to the record that holds its person's identity now.
    Forward(Forward),
    /// A record gives back what it holds of an identity; read in the partition of `holder`.
    Release(Release),
}

/// A link was withdrawn (`identity.unlink`): the record that holds the identity's data gives them back, as a [`Merge`] by the
/// same event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Owner of both identities.
    pub workspace: Workspace,
    /// The identity that stands for itself again.
    pub identity: PersonId,
    /// What it had been linked to.
    pub linked_to: PersonId,
    /// The record that is asked, which may be a signpost itself.
    pub holder: PersonId,
    /// When the reason was received.
    pub at: Timestamp,
    /// The event that withdrew the link.
    pub by: EventId,
}

/// An event that was read where its identity no longer has a record of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The record that takes it in.
    pub into: PersonId,
    /// The event, unchanged: it is folded into the part of the identity that keys it.
    pub event: Box<Event>,
}

/// Time itself, written only where and when a timer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// The time that has come.
    pub at: Timestamp,
}

/// One identity belongs to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Owner of both identities.
    pub workspace: Workspace,
    /// The identity that gives up its own record.
    pub from: PersonId,
    /// The identity that it belongs to.
    pub to: PersonId,
    /// When the reason for the link was received.
    pub at: Timestamp,
    /// The event that declared it.
    pub by: EventId,
}

/// The parts of a record that was linked away, on their way to the record that takes them in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// Owner of both records.
    pub workspace: Workspace,
    /// The record that gave its parts.
    pub from: PersonId,
    /// The record that takes them in.
    pub into: PersonId,
    /// When the reason for the link was received.
    pub at: Timestamp,
    /// The event that declared the link.
    pub by: EventId,
    /// What it had gathered.
    pub parts: Vec<MergePart>,
}

/// One customer record's canonical bytes within a [`Merge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergePart {
    /// Canonical bytes of the scoring crate's customer state.
    pub state: Vec<u8>,
}

/// A decision of the operator, with everything needed to repeat it in a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// From here on, scores come from this model and flags from these policies.
    Activate {
        /// When it was decided.
        at: Timestamp,
        /// The model file's text.
        model: Box<str>,
        /// The policy file's text.
        policies: Box<str>,
    },
}

impl Record {
    /// A record that no other record gave rise to.
    #[must_use]
    pub fn new(body: Body) -> Self {
        Self { origin: None, body }
    }

    /// The time that the record brings into its partition.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match &self.body {
            Body::Event(event) => event.received_at,
            Body::Tick(tick) => tick.at,
            Body::Link(link) => link.at,
            Body::Merge(merge) => merge.at,
            Body::Control(Control::Activate { at, .. }) => *at,
            Body::Forward(forward) => forward.event.received_at,
            Body::Release(release) => release.at,
        }
    }

    /// The record's bytes, version first.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Writing to a growing Vec fails only for types whose length is unknown beforehand, of which there are none.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// Reads what [`Record::encode`] wrote, in this or any earlier release.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
        match *version {
            VERSION => match postcard::take_from_bytes(body) {
                Ok((record, [])) => Ok(record),
                _ => Err(CodecError::Body),
            },
            other => Err(CodecError::Version(other)),
        }
    }
}
