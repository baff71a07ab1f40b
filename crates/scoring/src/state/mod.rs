//! The customer record: everything that is remembered about one customer, as integers.
//!
//! It owns the record, its merge laws and its bytes. It never reads a clock, never weighs anything (scores are computed
//! at read time by the rest of the crate) and never decides who is who: links are given to it.
//!
//! Layers: [`Calendar`] and [`Purchases`] inside a [`Part`] (one identity's folded events) inside a [`CustomerState`].
//! Keeping one part per identity is what makes a link repeatable and reversible: shipping a part twice changes nothing.

mod calendar;
mod cited;
mod ledger;
mod part;
mod purchases;
mod sorted;
mod standing;
mod wire;

pub use calendar::{Calendar, SESSION_GAP_S, Session, WINDOW_DAYS as CALENDAR_DAYS};
pub use cited::Cited;
pub use ledger::{Contact, Course, Ledger, MAX_CONTACTS, Phase, PolicyState, RaisedFlag};
pub use part::{Observation, Part, Recency, WEEK_HOURS};
pub use purchases::{MAX_CURRENCIES, Purchases, Totals, WINDOW_DAYS as PURCHASE_DAYS};
pub use sorted::SortedMap;
pub use standing::{Account, InBand};
pub use wire::{CodecError, VERSION};

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{ConsentState, EventId, PersonId, PolicyId, Purpose, RecentIds, Timestamp};

/// Identities that one record may hold parts of; see [`CustomerState::fold`] for what happens beyond.
pub const MAX_PARTS: usize = 64;
/// Links remembered per record; the smallest identities stay.
pub const MAX_LINKS: usize = 64;
/// Recent event ids remembered per record; the oldest leave first.
pub const MAX_RECENT_IDS: usize = 2048;

/// What a person said about one purpose, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConsentRecord {
    /// When it was said. The latest word counts; at the same instant a refusal does.
    pub at: Timestamp,
    /// What was said.
    pub state: ConsentState,
}

/// The scores that were last published, to tell when they have drifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refreshed {
    /// The instant they were computed for.
    pub at: Timestamp,
    /// Attrition in millionths; `None` when it could not be computed.
    pub attrition_ppm: Option<u32>,
    /// Churn over the model's default horizon in millionths; `None` when it could not be computed.
    pub churn_ppm: Option<u32>,
    /// [`crate::Model::fingerprint`] of the model used.
    pub model: u64,
}

/// The record of one customer (or, when [`CustomerState::linked_to`] is set, a signpost to it).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomerState {
    /// One part per identity that folded events. Written by [`CustomerState::fold`] and [`CustomerState::adopt`].
    /// Bound: [`MAX_PARTS`]. Merge: union; of two versions of one part the one with more observations (then the greater
    /// in the order of its fields), beyond the bound the parts with most observations.
    pub parts: BTreeMap<PersonId, Part>,
    /// The identity whose record holds this person's parts now. Written by the pipeline on a link, once; later events are
    /// forwarded there. Merge: the greater.
    pub linked_to: Option<PersonId>,
    /// Identities linked into this record, to recognise a link that has been made already. Only grows.
    /// Bound: [`MAX_LINKS`], the smallest stay. Merge: union.
    pub known_links: BTreeSet<PersonId>,
    /// Recently folded event ids. Written by the pipeline. Bound: [`MAX_RECENT_IDS`] on merge, the newest stay.
    pub recent: RecentIds,
    /// Relance data. Merge: towards less contact, see [`Ledger`].
    pub ledger: Ledger,
    /// The latest word per purpose; bounded by the closed list of purposes. Merge: the later, then the refusal.
    pub consent: BTreeMap<Purpose, ConsentRecord>,
    /// When this record is next due. Written by the pipeline after every change. Merge: the earlier one (a timer that
    /// fires too early only evaluates).
    pub timer: Option<Timestamp>,
    /// The rank under which the store lists this record; opaque here. Merge: the greater.
    pub rank: Option<u16>,
    /// The scores last published. Merge: the later.
    pub refreshed: Option<Refreshed>,
    /// Receipt time of the newest record folded. Never falls. Merge: the later.
    pub last_received: Timestamp,
    /// Where the customer stands in each band that the policies in force watch; bounded by the number of configured bands.
    /// Written by the relance crate. Merge: the greater.
    pub bands: BTreeMap<PolicyId, InBand>,
    /// The company that the customer belongs to, as said last. Merge: the later, then the greater.
    pub account: Option<Account>,
}

/// Whether an observation was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// It changed the identity's part.
    Applied,
    /// The record already holds [`MAX_PARTS`] other identities: nothing changed.
    TooManyIdentities,
}

impl CustomerState {
    /// Folds an observation into the part of the identity that keys it. Repetitions are the caller's to tell apart
    /// (`recent`), since what happens to them is a matter of the books.
    pub fn fold(&mut self, identity: &PersonId, observation: &Observation) -> Fold {
        if let Some(part) = self.parts.get_mut(identity) {
            part.apply(observation);
            return Fold::Applied;
        }
        if self.parts.len() >= MAX_PARTS {
            return Fold::TooManyIdentities;
        }
        self.parts.entry(identity.clone()).or_default().apply(observation);
        Fold::Applied
    }

    /// Remembers the id of an event that has been folded, for reasons to point to; see [`Part::cite`].
    pub fn cite(&mut self, identity: &PersonId, observation: &Observation, id: &EventId) {
        if let Some(part) = self.parts.get_mut(identity) {
            part.cite(observation, id);
        }
    }

    /// Takes in a part that another record shipped. Shipping the same or an older version again changes nothing.
    pub fn adopt(&mut self, identity: &PersonId, part: &Part) {
        self.unite_part(identity, part);
        self.keep_parts();
    }

    /// Remembers that `identity` has been linked into this record; `false` when that was known.
    pub fn note_link(&mut self, identity: &PersonId) -> bool {
        let new = self.known_links.insert(identity.clone());
        while self.known_links.len() > MAX_LINKS {
            let _ = self.known_links.pop_last();
        }
        new
    }

    /// Makes two versions or halves of one customer's record one, by the rule stated at each field: commutative,
    /// associative and idempotent.
    pub fn merge(&mut self, other: &Self) {
        for (identity, part) in &other.parts {
            self.unite_part(identity, part);
        }
        self.keep_parts();
        if other.linked_to > self.linked_to {
            self.linked_to.clone_from(&other.linked_to);
        }
        for identity in &other.known_links {
            let _ = self.note_link(identity);
        }
        self.recent.unite(&other.recent, MAX_RECENT_IDS);
        self.ledger.merge(&other.ledger);
        for (purpose, theirs) in &other.consent {
            self.note_consent(*purpose, *theirs);
        }
        self.timer = [self.timer, other.timer].into_iter().flatten().min();
        self.rank = self.rank.max(other.rank);
        self.refreshed = self.refreshed.max(other.refreshed);
        self.last_received = self.last_received.max(other.last_received);
        for (band, theirs) in &other.bands {
            let ours = self.bands.entry(band.clone()).or_insert(*theirs);
            *ours = (*ours).max(*theirs);
        }
        if other.account > self.account {
            self.account.clone_from(&other.account);
        }
    }

    /// Notes to which company the customer belongs: the latest word counts, whatever the order of arrival.
    pub fn note_account(&mut self, said: Account) {
        self.account = self.account.take().max(Some(said));
    }

    /// Notes what the person said about a purpose: the latest word counts, whatever the order of arrival.
    pub fn note_consent(&mut self, purpose: Purpose, said: ConsentRecord) {
        let known = self.consent.entry(purpose).or_insert(said);
        *known = said.max(*known);
    }

    /// The customer as one: the sum of the parts.
    #[must_use]
    pub fn combined(&self) -> Cow<'_, Part> {
        let mut parts = self.parts.values();
        match (parts.next(), parts.next()) {
            (None, _) => Cow::Owned(Part::default()),
            (Some(only), None) => Cow::Borrowed(only),
            (Some(first), Some(second)) => {
                let mut sum = first.clone();
                std::iter::once(second).chain(parts).for_each(|part| sum.absorb(part));
                Cow::Owned(sum)
            }
        }
    }

    /// The canonical bytes: one version byte, then the fields. Equal states have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads [`CustomerState::encode`]'s bytes. Bytes of an unknown version, damaged or left over are an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        wire::decode(bytes)
    }

    fn unite_part(&mut self, identity: &PersonId, part: &Part) {
        match self.parts.get_mut(identity) {
            Some(ours) => {
                // `observations` is the first field, so the derived order is the stated one.
                if part > &*ours {
                    ours.clone_from(part);
                }
            }
            None => {
                let _ = self.parts.insert(identity.clone(), part.clone());
            }
        }
    }

    fn keep_parts(&mut self) {
        while self.parts.len() > MAX_PARTS {
            let least = self
                .parts
                .iter()
                .min_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)))
                .map(|(id, _)| id.clone());
            if let Some(identity) = least {
                let _ = self.parts.remove(&identity);
            }
        }
    }
}
