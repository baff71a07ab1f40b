//! The flag: what leaves the house when a customer should be contacted. Its identity depends only on its cause, so that
//! a replay mints the same ones (FLAG-1). This file never decides.

use crate::plan::Plan;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};
use vigie_event::{CustomerKey, FlagId, PersonId, Timestamp};

/// A customer to contact, or deliberately not to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flag {
    /// 32 hexadecimal digits, stable over retries and replays.
    pub id: String,
    /// Owner of the customer.
    pub workspace: String,
    /// The customer's id; anonymous ones start with `anonymous:`.
    pub customer: String,
    /// Name of the policy that raised it.
    pub policy: String,
    /// Version of that policy, 16 hexadecimal digits.
    pub policy_version: String,
    /// To be contacted, or held out.
    pub kind: FlagKind,
    /// The score that reached the threshold.
    pub score: FlagScore,
    /// The moment of the crossing, in RFC 3339.
    pub raised_at: String,
    /// Stage of the customer's life cycle.
    pub stage: String,
    /// At most three facts, in sentences.
    pub reasons: Vec<FlagReason>,
    /// Version of the model.
    pub model: String,
    /// What is offered.
    #[serde(default)]
    pub play: String,
    /// What the customer has of it, in words for them (R85).
    #[serde(default)]
    pub customer_benefit: String,
    /// The finest adaptation of the policy that applied (R16).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// The flag that this one takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recalls: Option<String>,
    /// The change that is told, where it is one of a band.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub band: Option<BandMove>,
    /// How the contact is to be made.
    #[serde(default)]
    pub plan: Plan,
}

/// From one band of a score to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandMove {
    /// Name of the band that was left.
    pub from: String,
    /// Name of the one that was entered.
    pub to: String,
    /// Whether that is the higher one.
    pub up: bool,
}

/// What is to become of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlagKind {
    /// Contact the customer.
    Flagged,
    /// Do not: this customer shows what happens without a contact.
    HeldOut,
    /// Do not any more: the flag that it names was wrong.
    Recalled,
    /// Nobody is to be contacted: a score has come to another band.
    BandChanged,
}

impl FlagKind {
    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Flagged => "flagged",
            Self::HeldOut => "held_out",
            Self::Recalled => "recalled",
            Self::BandChanged => "band_changed",
        }
    }

    /// Whether a policy has decided about a contact here; the rest are notices.
    #[must_use]
    pub const fn is_raised(self) -> bool {
        matches!(self, Self::Flagged | Self::HeldOut)
    }
}

/// A score that reached a threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlagScore {
    /// `attrition`, or `churn-N` for N days.
    pub kind: String,
    /// The score at `raised_at`.
    pub value: f64,
    /// The policy's threshold.
    pub threshold: f64,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagReason {
    /// Stable kind of the fact.
    pub code: String,
    /// The sentence.
    pub text: String,
    /// Ids of the events that it rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

/// The identity of the flag that a policy raises for a customer at an instant.
///
/// It names the cause (customer, policy, its version, moment of the crossing) and not a place in the log, so that the
/// embedded log and a broker give the same flags the same names.
pub(crate) fn flag_id(key: &CustomerKey, policy: &str, policy_version: u64, raised_at: Timestamp) -> FlagId {
    let kind = if key.person.is_known() { "known" } else { "anonymous" };
    let digest = digest(
        &[key.workspace.as_str(), kind, key.person.as_str(), policy],
        &[policy_version, raised_at.0.cast_unsigned()],
    );
    if vigie_failpoint::mutant("flag_id_random") {
        static MINTED: AtomicU64 = AtomicU64::new(0);
        return FlagId(u128::from(MINTED.fetch_add(1, Ordering::Relaxed)).to_be_bytes());
    }
    first_half(digest)
}

fn first_half(digest: [u8; 32]) -> FlagId {
    let mut id = [0u8; 16];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    FlagId(id)
}

/// The identity of a change of bands.
pub(crate) fn move_id(key: &CustomerKey, band: &str, version: u64, at: Timestamp, (from, to): (u8, u8)) -> FlagId {
    let kind = if key.person.is_known() { "known" } else { "anonymous" };
    let places = u64::from(from) << 8 | u64::from(to);
    first_half(digest(
        &["band", key.workspace.as_str(), kind, key.person.as_str(), band],
        &[version, at.0.cast_unsigned(), places],
    ))
}

/// The identity of the notice that takes a flag back.
pub(crate) fn recall_id(flag: FlagId) -> FlagId {
    first_half(digest(&["recall", &flag.to_string()], &[]))
}

/// Where a customer stands in [0, 1) for a policy's hold-out: stateless, the same for every flag of the policy.
pub(crate) fn holdout_draw(workspace: &str, person: &PersonId, policy: &str) -> f64 {
    let digest = digest(&["hold-out", workspace, person.as_str(), policy], &[]);
    let bits = digest
        .iter()
        .take(6)
        .fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    bits as f64 / (1u64 << 48) as f64
}

fn digest(texts: &[&str], numbers: &[u64]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for text in texts {
        hasher.update((text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    for number in numbers {
        hasher.update(number.to_le_bytes());
    }
    hasher.finalize().into()
}
