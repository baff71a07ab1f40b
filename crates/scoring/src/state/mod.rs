//! The customer record: everything that is remembered about one customer, as integers.
//!
//! It owns the record, its merge laws and its bytes. It never reads a clock, never weighs anything (scores are computed
//! at read time by the rest of the crate) and never decides who is who: links are given to it.
//!
//! Layers: [`Calendar`] and [`Purchases`] inside a [`Part`] (one identity's folded events) inside a [`CustomerState`].
//! Keeping one part per identity is what makes a link repeatable and reversible: shipping a part twice changes nothing.

mod bonds;
mod calendar;
mod cited;
mod ledger;
mod mail;
mod part;
mod purchases;
mod quarantine;
mod sorted;
mod standing;
mod wire;

pub use bonds::Bonds;
pub use calendar::{Calendar, SESSION_GAP_S, Session, WINDOW_DAYS as CALENDAR_DAYS};
pub use cited::Cited;
pub use ledger::{Contact, Course, Ledger, MAX_CONTACTS, Phase, PolicyState, RaisedFlag};
pub use mail::{Judged, MAX_ACTS, MailAct, MailActs};
pub use part::{Observation, Part, Recency, WEEK_HOURS};
pub use purchases::{MAX_CURRENCIES, Purchases, Totals, WINDOW_DAYS as PURCHASE_DAYS};
pub use quarantine::{Held, MAX_HELD, Quarantine};
pub use sorted::SortedMap;
pub use standing::{Account, InBand};
pub use wire::{CodecError, VERSION};

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{ConsentState, EventId, PersonId, PolicyId, Purpose, RecentIds, Signal, Timestamp};

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
    /// Opens and clicks of mails that may yet turn out to be a machine's. Bound: [`MAX_ACTS`]. Merge: union.
    pub mail: MailActs,
    /// Unsubscriptions and complaints that a machine may have made; marketing waits. See [`Quarantine`].
    pub quarantine: Quarantine,
    /// By what a link can be withdrawn. See [`Bonds`].
    pub bonds: Bonds,
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

    /// Folds an observation; one about a mail as [`MailActs`] says. `permille` is the likelihood of a person by the software
    /// alone, `link` a hash of the address that was followed, 0 for none.
    pub fn observe(&mut self, identity: &PersonId, observation: &Observation, permille: u16, link: u32) -> Fold {
        if !MailAct::concerns(observation.signal) {
            return self.fold(identity, observation);
        }
        let counts = matches!(observation.signal, Signal::EmailOpen | Signal::EmailClick);
        if counts && (self.parts.contains_key(identity) || self.parts.len() < MAX_PARTS) {
            // Whose acts are all open has a part in which nothing is settled.
            let _ = self.parts.entry(identity.clone()).or_default();
        } else if counts || self.fold(identity, observation) == Fold::TooManyIdentities {
            return Fold::TooManyIdentities;
        }
        self.mail.take(MailAct {
            at: observation.at,
            identity: identity.clone(),
            signal: observation.signal,
            channel: observation.channel,
            link,
            permille,
        });
        self.settle();
        Fold::Applied
    }

    /// Moves acts on mails that are settled by now into the parts of their identities; to be called after a merge.
    pub fn settle(&mut self) {
        for (identity, observation, times) in self.mail.settle() {
            for _ in 0..times {
                let _ = self.fold(&identity, &observation);
            }
        }
    }

    /// The parts of all identities, and what acts on mails count by now.
    pub fn all_parts(&self) -> impl Iterator<Item = &Part> + Clone {
        self.parts.values().chain(self.mail.counted())
    }

    /// Takes in a part that another record shipped. Shipping the same or an older version again changes nothing.
    pub fn adopt(&mut self, identity: &PersonId, part: &Part) {
        self.unite_part(identity, part);
        self.keep_parts();
    }

    /// Remembers that `identity` has been linked into this record; `false` when that was known.
    ///
    /// A link that was withdrawn stays so: what clients repeat is no news.
    pub fn note_link(&mut self, identity: &PersonId) -> bool {
        if self.bonds.is_withdrawn(identity) {
            return false;
        }
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
        self.mail.unite(&other.mail);
        self.bonds.unite(&other.bonds);
        self.known_links.retain(|identity| !self.bonds.is_withdrawn(identity));
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
        self.quarantine.unite(&other.quarantine);
        self.keep_quarantine();
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

    /// Notes what an identity of the person said about a purpose.
    pub fn say(&mut self, identity: &PersonId, purpose: Purpose, said: ConsentRecord) {
        self.bonds.say(identity, purpose, said);
        self.note_consent(purpose, said);
        self.keep_quarantine();
    }

    /// Puts an unsubscription or complaint into quarantine, unless something was said about marketing since.
    pub fn hold(&mut self, held: Held) {
        let _ = self.quarantine.held.insert(held);
        self.keep_quarantine();
    }

    /// Notes an operator's word that what is in quarantine, up to `at`, was a machine's.
    pub fn dismiss(&mut self, at: Timestamp) {
        self.quarantine.dismissed = self.quarantine.dismissed.max(Some(at));
        self.keep_quarantine();
    }

    fn keep_quarantine(&mut self) {
        let answered = self.consent.get(&Purpose::Marketing).map(|said| said.at);
        self.quarantine.keep(answered);
    }

    /// What a person who has said nothing about profiling is taken to have said: a refusal, at the beginning of time, where
    /// silence is one. Any word of theirs is later.
    pub fn presume(&mut self, silence: ConsentState) {
        let presumed = ConsentRecord {
            at: Timestamp(i64::MIN),
            state: ConsentState::Refused,
        };
        match silence {
            ConsentState::Refused => self.note_consent(Purpose::Profiling, presumed),
            ConsentState::Granted => {
                if self.consent.get(&Purpose::Profiling) == Some(&presumed) {
                    let _ = self.consent.remove(&Purpose::Profiling);
                }
            }
        }
    }

    /// Gives up an identity and all that came through it, and remembers that it did; what is given up is returned. See
    /// [`Bonds`].
    pub fn release(&mut self, identity: &PersonId) -> Self {
        let group = self.bonds.group(identity);
        let unattributed = {
            let known = self.bonds.together();
            let consent = self
                .consent
                .iter()
                .filter(|(purpose, said)| known.get(purpose) != Some(*said));
            consent
                .map(|(purpose, said)| (*purpose, *said))
                .collect::<BTreeMap<_, _>>()
        };
        let bonds = self.bonds.release(identity, &group);
        let mut gone = Self {
            parts: self.parts.extract_if(.., |of, _| group.contains(of)).collect(),
            known_links: group.iter().filter(|of| *of != identity).cloned().collect(),
            recent: self.recent.clone(),
            consent: bonds.together(),
            last_received: self.last_received,
            mail: self.mail.release(&group),
            bonds,
            ..Self::default()
        };
        gone.ledger.contacts.clone_from(&self.ledger.contacts);
        gone.quarantine.held = self
            .quarantine
            .held
            .extract_if(.., |held| group.contains(&held.identity))
            .collect();
        gone.quarantine.dismissed = self.quarantine.dismissed;
        self.consent = self.bonds.together();
        for (purpose, said) in unattributed {
            self.note_consent(purpose, said);
            if said.state == ConsentState::Refused {
                gone.note_consent(purpose, said);
            }
        }
        self.known_links.retain(|of| !group.contains(of));
        self.bonds.withdraw(identity);
        gone
    }

    /// Stands for itself again, after having pointed to another record; returns where it pointed.
    pub fn leave(&mut self) -> Option<PersonId> {
        let linked_to = self.linked_to.take()?;
        self.bonds.withdraw(&linked_to);
        Some(linked_to)
    }

    /// The customer as one: the sum of the parts.
    #[must_use]
    pub fn combined(&self) -> Cow<'_, Part> {
        let mut parts = self.all_parts();
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
