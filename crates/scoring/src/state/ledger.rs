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

macro_rules! phases {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $label:literal;)*) => {
        /// How far a flag has come. A later phase is never left for an earlier one; of two ends the later in this list counts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "u8", into = "u8")]
        pub enum Phase { $($(#[$doc])* $variant,)* }

        impl Phase {
            /// Every phase, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code used in persisted bytes.
            #[must_use]
            pub const fn code(self) -> u8 { match self { $(Self::$variant => $code,)* } }

            /// The stable name.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Self::$variant => $label,)* } }
        }
    };
}

phases! {
    /// Raised; nobody has taken it up.
    Flagged = 0, "flagged";
    /// Somebody has taken it up.
    Claimed = 1, "claimed";
    /// The customer was contacted.
    Contacted = 2, "contacted";
    /// The policy's window passed without what it is after.
    Lost = 3, "lost";
    /// The customer did what the policy is after.
    Returned = 4, "returned";
    /// The flag was wrong.
    Recalled = 5, "recalled";
}

impl Phase {
    /// `true` while the flag waits for its end.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Flagged | Self::Claimed | Self::Contacted)
    }
}

impl TryFrom<u8> for Phase {
    type Error = &'static str;
    fn try_from(code: u8) -> Result<Self, Self::Error> {
        Self::ALL.get(usize::from(code)).copied().ok_or("unknown phase code")
    }
}

impl From<Phase> for u8 {
    fn from(phase: Phase) -> Self {
        phase.code()
    }
}

/// The course of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Course {
    /// How far it has come.
    pub phase: Phase,
    /// When that began, in event time.
    pub since: Timestamp,
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
    /// The course of the last flag; `None` without one, and for flags raised before records kept it. Merge: that of the
    /// flag that stays; of one flag's two courses the further one.
    pub course: Option<Course>,
}

impl PolicyState {
    /// Brings the course of the last flag to a phase, unless it has come further already; `true` when it has moved.
    pub fn advance(&mut self, phase: Phase, since: Timestamp) -> bool {
        let further = self.course.is_some_and(|course| course.phase < phase);
        if further {
            self.course = Some(Course { phase, since });
        }
        further
    }
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
            course: None,
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
                    (ours.last_flag, ours.course) =
                        (ours.last_flag, ours.course).max((theirs.last_flag, theirs.course));
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

/// A ledger as version 1 of the record held it: without courses.
#[derive(Deserialize)]
pub(super) struct LedgerV1 {
    policies: BTreeMap<PolicyId, PolicyStateV1>,
    contacts: BTreeSet<Contact>,
}

#[derive(Deserialize)]
struct PolicyStateV1 {
    armed: bool,
    last_flag: Option<RaisedFlag>,
    cooldown_until: Option<Timestamp>,
    refused: Option<u8>,
    policy_version: u64,
}

impl From<LedgerV1> for Ledger {
    fn from(old: LedgerV1) -> Self {
        let policies = old.policies.into_iter().map(|(id, old)| {
            let PolicyStateV1 {
                armed,
                last_flag,
                cooldown_until,
                refused,
                policy_version,
            } = old;
            let state = PolicyState {
                armed,
                last_flag,
                cooldown_until,
                refused,
                policy_version,
                course: None,
            };
            (id, state)
        });
        Self {
            policies: policies.collect(),
            contacts: old.contacts,
        }
    }
}
