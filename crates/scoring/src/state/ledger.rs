//! The ledger of relances: what each policy has done about a customer, and when the customer was contacted.
//!
//! Plain integer data; the rules that read and write it are the relance crate's. This file owns only how two ledgers
//! become one: per field, always towards *less* contact, so that a merge can never free a customer whom either side
//! would have left alone. Each field's rule is a least upper bound, hence commutative, associative and idempotent.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Channel, FlagId, PolicyId, Timestamp};

/// Contacts remembered per customer; the oldest leave first.
pub const MAX_CONTACTS: usize = 32;

/// A flag that was raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RaisedFlag {
    /// When, in event time.
    pub at: Timestamp,
    /// Its identity.
    pub id: FlagId,
}

/// Where one policy stands with one customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyState {
    /// `true` when a crossing may raise a flag. Cleared by a flag, set again by hysteresis. Merge: both must be armed.
    pub armed: bool,
    /// The last flag raised. Merge: the later one, then the greater id.
    pub last_flag: Option<RaisedFlag>,
    /// No flag before this instant. Merge: the later one.
    pub cooldown_until: Option<Timestamp>,
    /// Code of the refusal that was counted last while the score stayed above the threshold, so that one reason is
    /// counted once per crossing. Cleared with a flag or a fall below. Merge: the greater.
    pub refused: Option<u8>,
    /// Version of the policy that wrote this entry. Merge: the greater one.
    pub policy_version: u64,
}

impl Default for PolicyState {
    /// A policy that has never looked at the customer: armed, no flag.
    fn default() -> Self {
        Self {
            armed: true,
            last_flag: None,
            cooldown_until: None,
            refused: None,
            policy_version: 0,
        }
    }
}

/// One contact with the customer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contact {
    /// When.
    pub at: Timestamp,
    /// By which channel.
    pub channel: Channel,
    /// The flag that led to it, if any.
    pub flag: Option<FlagId>,
}

/// All relance data of one customer. Written by the relance crate through the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Per policy; bounded by the number of configured policies (entries of removed policies are harmless).
    pub policies: BTreeMap<PolicyId, PolicyState>,
    /// The newest [`MAX_CONTACTS`] contacts.
    pub contacts: BTreeSet<Contact>,
}

impl Ledger {
    /// Remembers a contact, forgetting the oldest beyond the bound.
    pub fn note_contact(&mut self, contact: Contact) {
        let _ = self.contacts.insert(contact);
        while self.contacts.len() > MAX_CONTACTS {
            let _ = self.contacts.pop_first();
        }
    }

    /// The state of a policy, the default when it has none yet.
    #[must_use]
    pub fn policy(&self, id: &PolicyId) -> PolicyState {
        self.policies.get(id).cloned().unwrap_or_default()
    }

    /// Takes in another ledger of the same customer, by the rule stated at each field.
    pub fn merge(&mut self, other: &Self) {
        for (id, theirs) in &other.policies {
            match self.policies.get_mut(id) {
                None => {
                    let _ = self.policies.insert(id.clone(), theirs.clone());
                }
                Some(ours) => {
                    ours.armed &= theirs.armed;
                    ours.last_flag = ours.last_flag.max(theirs.last_flag);
                    ours.cooldown_until = ours.cooldown_until.max(theirs.cooldown_until);
                    ours.refused = ours.refused.max(theirs.refused);
                    ours.policy_version = ours.policy_version.max(theirs.policy_version);
                }
            }
        }
        for contact in &other.contacts {
            self.note_contact(contact.clone());
        }
    }
}
