//! A customer record, as plain maps, and how two halves of one customer become one.
//!
//! The timer, the rank and the published scores are only as true as the last look ([`crate::silence`]) made them. This file
//! never looks and never judges.

use crate::contact;
use crate::mail::{self, MailAct};
use crate::part::{Act, Part, features};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{
    AccountId, Channel, ConsentState, Doubt, EventId, FlagId, PersonId, PolicyId, Purpose, Signal, Timestamp,
};
use vigie_scoring::Features;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Identities per record.
pub(crate) const PARTS: usize = 64;
/// Links remembered; the smallest stay.
const LINKS: usize = 64;
/// Event ids remembered; the newest stay.
const IDS: usize = 2048;
/// Contacts remembered; the newest stay.
const CONTACTS: usize = 32;
/// Words in quarantine; the newest stay.
const HELD: usize = 16;
/// Words of identities; the smallest stay.
const WORDS: usize = 192;
/// Seed of the hash of event ids, part of the persisted format.
const ID_SEED: u64 = 0x7669_6769_6501;

/// Where one policy stands with the customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) armed: bool,
    pub(crate) flag: Option<(Timestamp, FlagId)>,
    pub(crate) cooldown: Option<Timestamp>,
    pub(crate) refused: Option<u8>,
    pub(crate) version: u64,
    /// How far the last flag has come, and since when: 0 flagged, 1 claimed, 2 contacted, 3 lost, 4 returned, 5 recalled.
    pub(crate) course: Option<(u8, Timestamp)>,
}

/// The first phase that is an end.
pub(crate) const LOST: u8 = 3;
pub(crate) const RETURNED: u8 = 4;
pub(crate) const RECALLED: u8 = 5;

impl Standing {
    /// Whether the last flag still waits for its end.
    pub(crate) fn is_open(&self) -> bool {
        self.course.is_some_and(|(phase, _)| phase < LOST)
    }

    /// Brings the last flag further, never back; `true` when it has moved.
    pub(crate) fn bring_to(&mut self, phase: u8, at: Timestamp) -> bool {
        match self.course {
            Some((now, _)) if now < phase => {
                self.course = Some((phase, at));
                true
            }
            _ => false,
        }
    }
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            armed: true,
            flag: None,
            cooldown: None,
            refused: None,
            version: 0,
            course: None,
        }
    }
}

/// The scores published last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) at: Timestamp,
    pub(crate) attrition: Option<u32>,
    pub(crate) churn: Option<u32>,
    pub(crate) model: u64,
}

/// Event ids met lately: (48 bits of hash, fingerprint) with the millisecond of the newest receipt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recent {
    met: BTreeMap<(u64, u32), u64>,
    /// No time is smaller; what is to be forgotten is looked for only when there may be something.
    oldest: u64,
}

/// Whether an event's id was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    Never,
    SameContent,
    OtherContent,
}

/// A customer record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) parts: BTreeMap<PersonId, Part>,
    pub(crate) linked_to: Option<PersonId>,
    pub(crate) links: BTreeSet<PersonId>,
    pub(crate) recent: Recent,
    pub(crate) policies: BTreeMap<PolicyId, Standing>,
    pub(crate) contacts: BTreeSet<(Timestamp, Channel, Option<FlagId>)>,
    pub(crate) consent: BTreeMap<Purpose, (Timestamp, ConsentState)>,
    pub(crate) timer: Option<Timestamp>,
    pub(crate) rank: Option<u16>,
    pub(crate) published: Option<Published>,
    pub(crate) last_received: Timestamp,
    /// Per band that is watched: which definition of it, and the place in it that was seen last.
    pub(crate) bands: BTreeMap<PolicyId, (u32, u8)>,
    /// The company, and when it was said.
    pub(crate) account: Option<(Timestamp, AccountId)>,
    /// Acts on mails that are open, with how often each was met, and what they count by now.
    pub(crate) acts: BTreeMap<MailAct, u16>,
    pub(crate) counted: Option<Part>,
    /// Words in quarantine: when, in whose name, what, and why it is doubted.
    pub(crate) held: BTreeSet<(Timestamp, PersonId, Signal, Doubt)>,
    pub(crate) dismissed: Option<Timestamp>,
    /// Who gave their record to whom.
    pub(crate) given: BTreeMap<PersonId, PersonId>,
    pub(crate) withdrawn: BTreeSet<PersonId>,
    pub(crate) words: BTreeMap<(PersonId, Purpose), (Timestamp, ConsentState)>,
}

impl Recent {
    /// How an id and its content are remembered.
    fn name(id: &EventId, fingerprint: u64) -> (u64, u32) {
        // The first four bytes of the fingerprint in memory order, read as a big-endian number.
        let short = (fingerprint & 0xffff_ffff) as u32;
        let hash = xxh3_64_with_seed(id.as_str().as_bytes(), ID_SEED);
        (hash >> 16, short.swap_bytes())
    }

    pub(crate) fn met(&self, id: &EventId, fingerprint: u64) -> Met {
        let (hash, short) = Self::name(id, fingerprint);
        if self.met.contains_key(&(hash, short)) {
            Met::SameContent
        } else if self.met.range((hash, 0)..=(hash, u32::MAX)).next().is_some() {
            Met::OtherContent
        } else {
            Met::Never
        }
    }

    pub(crate) fn remember(&mut self, id: &EventId, fingerprint: u64, at: Timestamp) {
        let (hash, short) = Self::name(id, fingerprint);
        self.put(hash, short, millisecond(at));
        self.keep();
    }

    pub(crate) fn forget_before(&mut self, at: Timestamp) {
        let from = millisecond(at);
        if self.oldest < from {
            self.met.retain(|_, at| *at >= from);
            self.oldest = self.met.values().min().copied().unwrap_or(u64::MAX);
        }
    }

    pub(crate) fn put(&mut self, hash: u64, short: u32, at: u64) {
        if self.met.is_empty() {
            self.oldest = u64::MAX;
        }
        self.oldest = self.oldest.min(at);
        let newest = self.met.entry((hash, short)).or_insert(at);
        *newest = at.max(*newest);
    }

    fn unite(&mut self, other: &Self) {
        for ((hash, short), at) in &other.met {
            self.put(*hash, *short, *at);
        }
        self.keep();
    }

    fn keep(&mut self) {
        while self.met.len() > IDS {
            // Looked for, not sorted for: a busy customer forgets one id with every event.
            let ids = self.met.iter().map(|((hash, short), at)| (*at, *hash, *short));
            if let Some((_, hash, short)) = ids.min() {
                let _ = self.met.remove(&(hash, short));
            }
        }
    }

    /// (millisecond, hash, fingerprint) in the order in which they are stored and forgotten.
    pub(crate) fn entries(&self) -> Vec<(u64, u64, u32)> {
        let mut entries: Vec<_> = self
            .met
            .iter()
            .map(|((hash, short), at)| (*at, *hash, *short))
            .collect();
        entries.sort_unstable();
        entries
    }
}

/// Milliseconds since 1970; other times count as the nearer end of what 48 bits hold.
fn millisecond(at: Timestamp) -> u64 {
    at.0.clamp(0, (1 << 48) - 1) as u64
}

impl State {
    /// Remembers a link; `true` when it was not known.
    pub(crate) fn link(&mut self, other: &PersonId) -> bool {
        if self.withdrawn.contains(other) {
            return false;
        }
        let new = self.links.insert(other.clone());
        while self.links.len() > LINKS {
            drop(self.links.pop_last());
        }
        new
    }

    /// Notes what was said about a purpose: the latest word counts, of two at one instant the refusal.
    pub(crate) fn say(&mut self, purpose: Purpose, at: Timestamp, word: ConsentState) {
        let said = self.consent.entry(purpose).or_insert((at, word));
        *said = (*said).max((at, word));
    }

    /// The same with the identity that said it, which may answer what is in quarantine.
    pub(crate) fn say_as(&mut self, identity: &PersonId, purpose: Purpose, at: Timestamp, word: ConsentState) {
        self.voice(identity, purpose, at, word);
        self.say(purpose, at, word);
        self.answer();
    }

    fn voice(&mut self, identity: &PersonId, purpose: Purpose, at: Timestamp, word: ConsentState) {
        let said = self.words.entry((identity.clone(), purpose)).or_insert((at, word));
        *said = (*said).max((at, word));
        while self.words.len() > WORDS {
            drop(self.words.pop_last());
        }
    }

    /// Lets go of what is in quarantine once marketing was spoken about, or it was dismissed.
    pub(crate) fn answer(&mut self) {
        let marketing = self.consent.get(&Purpose::Marketing).map(|(at, _)| *at);
        let dismissed = self.dismissed;
        self.held
            .retain(|(at, ..)| marketing.is_none_or(|until| until < *at) && dismissed.is_none_or(|until| until < *at));
        while self.held.len() > HELD {
            drop(self.held.pop_first());
        }
    }

    /// Takes a silence about profiling for a refusal at the beginning of time, or for none.
    pub(crate) fn presume(&mut self, silence: ConsentState) {
        let presumed = (Timestamp(i64::MIN), ConsentState::Refused);
        let said = self.consent.get(&Purpose::Profiling).copied();
        if silence == ConsentState::Refused {
            if said.is_none() {
                let _ = self.consent.insert(Purpose::Profiling, presumed);
            }
        } else if said == Some(presumed) {
            let _ = self.consent.remove(&Purpose::Profiling);
        }
    }

    /// Counts an act, or keeps it open; that the identity has room was found out before.
    pub(crate) fn count(&mut self, identity: PersonId, act: &Act, permille: u16, link: u32) {
        let own = mail::kind(act.signal);
        let part = self.parts.entry(identity.clone()).or_default();
        if own != Some(true) {
            part.count(act);
        }
        if own.is_some() {
            let open = (act.at, identity, act.signal, act.channel, link, permille);
            let times = self.acts.entry(open).or_default();
            *times = times.saturating_add(1);
            self.settle();
        }
    }

    /// Counts for good what is settled among the acts on mails.
    pub(crate) fn settle(&mut self) {
        mail::settle(&mut self.acts, &mut self.parts, PARTS);
        self.counted = mail::counted(&self.acts);
    }

    /// The parts of all identities, and what open acts on mails count by now.
    pub(crate) fn all_parts(&self) -> impl Iterator<Item = &Part> + Clone {
        self.parts.values().chain(self.counted.as_ref())
    }

    /// Gives up an identity and everybody whose record came through its.
    pub(crate) fn release(&mut self, identity: &PersonId) -> Self {
        // Whoever reaches the identity along the gifts belongs to it.
        let leads = |person: &PersonId| {
            let mut at = person;
            for _ in 0..=self.given.len() {
                if at == identity {
                    return true;
                }
                match self.given.get(at) {
                    Some(next) => at = next,
                    None => return false,
                }
            }
            false
        };
        let known = self.given.keys().chain([identity]);
        let group: BTreeSet<PersonId> = known.filter(|person| leads(person)).cloned().collect();
        let before = latest(&self.words);
        let mut gone = Self {
            recent: self.recent.clone(),
            contacts: self.contacts.clone(),
            dismissed: self.dismissed,
            last_received: self.last_received,
            ..Self::default()
        };
        for person in &group {
            if let Some(part) = self.parts.remove(person) {
                let _ = gone.parts.insert(person.clone(), part);
            }
            let _ = self.links.remove(person);
            if let Some(to) = self.given.remove(person).filter(|_| person != identity) {
                let _ = gone.given.insert(person.clone(), to);
                let _ = gone.links.insert(person.clone());
            }
        }
        let (theirs, ours) = std::mem::take(&mut self.acts)
            .into_iter()
            .partition(|(act, _)| group.contains(&act.1));
        (gone.acts, self.acts) = (theirs, ours);
        let (theirs, ours) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| group.contains(&held.1));
        (gone.held, self.held) = (theirs, ours);
        let (theirs, ours) = std::mem::take(&mut self.words)
            .into_iter()
            .partition(|((of, _), _)| group.contains(of));
        (gone.words, self.words) = (theirs, ours);
        gone.consent = latest(&gone.words);
        // What no identity is known for stays, and a refusal goes along.
        for (purpose, said) in std::mem::replace(&mut self.consent, latest(&self.words)) {
            if before.get(&purpose) != Some(&said) {
                self.say(purpose, said.0, said.1);
                if said.1 == ConsentState::Refused {
                    gone.say(purpose, said.0, said.1);
                }
            }
        }
        self.counted = mail::counted(&self.acts);
        gone.counted = mail::counted(&gone.acts);
        self.withdraw(identity);
        gone
    }

    /// Remembers that a link with another identity was withdrawn.
    pub(crate) fn withdraw(&mut self, other: &PersonId) {
        let _ = self.withdrawn.insert(other.clone());
        while self.withdrawn.len() > LINKS {
            drop(self.withdrawn.pop_last());
        }
    }

    /// Notes to whom a record is given.
    pub(crate) fn give(&mut self, identity: &PersonId, to: &PersonId) {
        let _ = self.given.insert(identity.clone(), to.clone());
        while self.given.len() > LINKS {
            drop(self.given.pop_last());
        }
    }

    /// The word that holds for a purpose.
    pub(crate) fn word(&self, purpose: Purpose) -> Option<ConsentState> {
        self.consent.get(&purpose).map(|(_, word)| *word)
    }

    /// Remembers a contact; of too many the newest stay.
    pub(crate) fn contact(&mut self, at: Timestamp, channel: Channel, flag: Option<FlagId>) {
        let _ = self.contacts.insert((at, channel, flag));
        self.keep_contacts();
    }

    fn keep_contacts(&mut self) {
        while self.contacts.len() > CONTACTS {
            let _ = self.contacts.pop_first();
        }
    }

    /// What the models need to know.
    pub(crate) fn features(&self) -> Features {
        let all: Vec<&Part> = self.all_parts().collect();
        Features {
            incidents: contact::incidents(self),
            ..features(all.iter().copied())
        }
    }

    /// Takes in what another record had gathered, which points nowhere. Timer, rank and published scores are left to the
    /// look that follows.
    pub(crate) fn take_in(&mut self, other: Self) {
        for (identity, part) in other.parts {
            match self.parts.get_mut(&identity) {
                Some(ours) if part.order_of(ours).is_gt() => *ours = part,
                Some(_) => {}
                None => {
                    let _ = self.parts.insert(identity, part);
                }
            }
        }
        while self.parts.len() > PARTS {
            // The part with the least in it leaves; of equal ones the greatest identity.
            let least = self
                .parts
                .iter()
                .min_by(|(a, first), (b, second)| first.order_of(second).then_with(|| b.cmp(a)))
                .map(|(identity, _)| identity.clone());
            if let Some(identity) = least {
                drop(self.parts.remove(&identity));
            }
        }
        for (act, theirs) in other.acts {
            let ours = self.acts.entry(act).or_default();
            *ours = theirs.max(*ours);
        }
        self.counted = mail::counted(&self.acts);
        for (identity, to) in other.given {
            if self.given.get(&identity).is_none_or(|ours| *ours < to) {
                self.give(&identity, &to);
            }
        }
        for identity in &other.withdrawn {
            self.withdraw(identity);
            let _ = self.links.remove(identity);
        }
        for ((identity, purpose), (at, word)) in other.words {
            self.voice(&identity, purpose, at, word);
        }
        for identity in &other.links {
            let _ = self.link(identity);
        }
        self.recent.unite(&other.recent);
        for (policy, theirs) in other.policies {
            match self.policies.get_mut(&policy) {
                Some(ours) => {
                    // Always towards less contact.
                    ours.armed = ours.armed && theirs.armed;
                    // The course belongs to its flag.
                    match theirs.flag.cmp(&ours.flag) {
                        Ordering::Greater => ours.course = theirs.course,
                        Ordering::Equal => ours.course = ours.course.max(theirs.course),
                        Ordering::Less => {}
                    }
                    ours.flag = ours.flag.max(theirs.flag);
                    ours.cooldown = ours.cooldown.max(theirs.cooldown);
                    ours.refused = ours.refused.max(theirs.refused);
                    ours.version = ours.version.max(theirs.version);
                }
                None => {
                    let _ = self.policies.insert(policy, theirs);
                }
            }
        }
        self.contacts.extend(other.contacts);
        self.keep_contacts();
        for (purpose, (at, word)) in other.consent {
            self.say(purpose, at, word);
        }
        self.held.extend(other.held);
        self.dismissed = self.dismissed.max(other.dismissed);
        self.answer();
        self.last_received = self.last_received.max(other.last_received);
        for (band, theirs) in other.bands {
            let known = self.bands.entry(band).or_insert(theirs);
            *known = theirs.max(*known);
        }
        self.belong(other.account);
    }

    /// Notes the company that the customer belongs to: the latest word counts, of two at one instant the greater id.
    pub(crate) fn belong(&mut self, said: Option<(Timestamp, AccountId)>) {
        if said > self.account {
            self.account = said;
        }
    }
}

/// The latest words of all identities together.
fn latest(
    words: &BTreeMap<(PersonId, Purpose), (Timestamp, ConsentState)>,
) -> BTreeMap<Purpose, (Timestamp, ConsentState)> {
    let mut all: BTreeMap<Purpose, (Timestamp, ConsentState)> = BTreeMap::new();
    for ((_, purpose), said) in words {
        let known = all.entry(*purpose).or_insert(*said);
        *known = (*known).max(*said);
    }
    all
}
