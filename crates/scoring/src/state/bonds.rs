//! By what a link can be withdrawn: which identity gave its record to which, and what each of them said itself.
//!
//! Parts, acts on mails and words in quarantine name their identity anyway. What remains are the links themselves and the
//! words on consent. When an identity leaves, everything that came through it leaves with it; consent of both sides is what
//! their own identities said. Caution keeps two things on both sides: contacts that were made (they were felt), and
//! refusals that no identity is known for (of records that an earlier release wrote). Flags, their courses and cooldowns stay
//! with the record that they were raised for; event ids met lately stay known on both sides.
//!
//! It never decides who is who.

use super::{ConsentRecord, MAX_LINKS, MAX_PARTS};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{PersonId, Purpose};

/// Words remembered: one per purpose of every identity that may have a part.
const MAX_WORDS: usize = 3 * MAX_PARTS;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bonds {
    /// Identity → the identity whose record it was given to. Merge: union, of two the greater; the smallest
    /// [`MAX_LINKS`] stay.
    pub(super) given: BTreeMap<PersonId, PersonId>,
    /// Identities whose link with this record was withdrawn: what clients repeat does not renew it. Merge: union, the
    /// smallest [`MAX_LINKS`] stay.
    pub(super) withdrawn: BTreeSet<PersonId>,
    /// The latest word of each identity. Merge: the later, then the refusal; the smallest [`MAX_WORDS`] stay.
    pub(super) words: BTreeMap<(PersonId, Purpose), ConsentRecord>,
}

impl Bonds {
    /// Notes that a record is given away, and returns what stays with its signpost: which links were withdrawn is the
    /// identity's own affair.
    pub fn give_away(&mut self, identity: &PersonId, to: &PersonId) -> Self {
        self.give(identity, to);
        Self {
            withdrawn: std::mem::take(&mut self.withdrawn),
            ..Self::default()
        }
    }

    fn give(&mut self, identity: &PersonId, to: &PersonId) {
        let _ = self.given.insert(identity.clone(), to.clone());
        while self.given.len() > MAX_LINKS {
            let _ = self.given.pop_last();
        }
    }

    /// Whether the link with `identity` was withdrawn.
    #[must_use]
    pub fn is_withdrawn(&self, identity: &PersonId) -> bool {
        self.withdrawn.contains(identity)
    }

    pub(super) fn withdraw(&mut self, identity: &PersonId) {
        let _ = self.withdrawn.insert(identity.clone());
        while self.withdrawn.len() > MAX_LINKS {
            let _ = self.withdrawn.pop_last();
        }
    }

    pub(super) fn say(&mut self, identity: &PersonId, purpose: Purpose, said: ConsentRecord) {
        let known = self.words.entry((identity.clone(), purpose)).or_insert(said);
        *known = said.max(*known);
        while self.words.len() > MAX_WORDS {
            let _ = self.words.pop_last();
        }
    }

    pub(super) fn unite(&mut self, other: &Self) {
        for (identity, theirs) in &other.given {
            let ours = self.given.get(identity).filter(|ours| *ours >= theirs);
            if ours.is_none() {
                self.give(identity, theirs);
            }
        }
        other.withdrawn.iter().for_each(|identity| self.withdraw(identity));
        for ((identity, purpose), theirs) in &other.words {
            self.say(identity, *purpose, *theirs);
        }
    }

    /// The identity and all whose records came through its.
    pub(super) fn group(&self, identity: &PersonId) -> BTreeSet<PersonId> {
        let mut group = BTreeSet::from([identity.clone()]);
        loop {
            let joining = self
                .given
                .iter()
                .filter(|(from, to)| group.contains(*to) && !group.contains(*from));
            let joining: Vec<PersonId> = joining.map(|(from, _)| from.clone()).collect();
            if joining.is_empty() {
                return group;
            }
            group.extend(joining);
        }
    }

    /// The latest words of all identities together.
    pub(super) fn together(&self) -> BTreeMap<Purpose, ConsentRecord> {
        let mut together = BTreeMap::new();
        for ((_, purpose), said) in &self.words {
            let known = together.entry(*purpose).or_insert(*said);
            *known = (*known).max(*said);
        }
        together
    }

    /// Takes out what belongs to a group that `identity` leads.
    pub(super) fn release(&mut self, identity: &PersonId, group: &BTreeSet<PersonId>) -> Self {
        let _ = self.given.remove(identity);
        Self {
            given: self.given.extract_if(.., |from, _| group.contains(from)).collect(),
            withdrawn: BTreeSet::new(),
            words: self.words.extract_if(.., |(of, _), _| group.contains(of)).collect(),
        }
    }
}
