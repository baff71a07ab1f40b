//! Whether a score at an instant raises a flag: the documented state machine, written anew.
//!
//! Per customer and policy: a score at or above the threshold, while the policy is armed and has cooled down, either raises a
//! flag, which disarms it, or is refused for a reason, which stays on record as long as it holds. A score below the
//! level of re-arming arms the policy and forgets the refusal; so does, at any look, a reason that holds no longer.

use crate::state::{Standing, State};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use vigie_event::{ConsentState, CustomerKey, DAY_MS, FlagId, Purpose, Timestamp, Workspace};
use vigie_relance::{MarketingConsent, Policy, PolicySet};
use vigie_scoring::{Features, Model, ScoreKind, Scorer};

/// Codes of refusals as the record keeps them.
const OBJECTED: u8 = 1;
const NO_CONSENT: u8 = 2;
const ANONYMOUS: u8 = 3;
const FEW_PURCHASES: u8 = 4;
const MANY_PURCHASES: u8 = 5;
const LITTLE_ACTIVITY: u8 = 6;
const GONE_TOO_LONG: u8 = 7;

/// The model and the policies in force.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) model: Model,
    pub(crate) policies: PolicySet,
}

/// A flag as it must be; the sentences that explain it are not recomputed.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpectedFlag {
    /// Its identity.
    pub id: FlagId,
    /// Whom it concerns.
    pub customer: CustomerKey,
    /// Name of the policy.
    pub policy: String,
    /// Version of the policy.
    pub policy_version: u64,
    /// `flagged` or `held_out`.
    pub kind: &'static str,
    /// `attrition`, or `churn-N`.
    pub score: String,
    /// The score.
    pub value: f64,
    /// The policy's threshold.
    pub threshold: f64,
    /// The instant.
    pub raised_at: Timestamp,
    /// Stage of the life cycle.
    pub stage: &'static str,
    /// Version of the model.
    pub model: String,
}

/// Flags by workspace and identity.
pub(crate) type Flags = BTreeMap<(Workspace, FlagId), ExpectedFlag>;

/// Decides for every policy at one instant; the standing of each is part of the record. `true` when one has changed.
pub(crate) fn decide(
    active: &Active,
    key: &CustomerKey,
    state: &mut State,
    scorer: &Scorer<'_>,
    at: Timestamp,
    flags: &mut Flags,
) -> bool {
    let mut changed = false;
    for policy in &active.policies.policies {
        let Ok(score) = scorer.score(policy.score, at) else {
            continue;
        };
        let known = state.policies.get(&policy.id).cloned().unwrap_or_default();
        let mut standing = known.clone();
        if score < policy.rearm_below {
            standing = Standing {
                armed: true,
                refused: None,
                ..standing
            };
        }
        let cooled = standing.cooldown.is_none_or(|until| at >= until);
        let reason = refusal(policy, key, state, scorer.features(), at);
        let due = score >= policy.threshold && standing.armed && cooled;
        if !due && standing.refused != reason {
            // What is on record as a reason must be one; what is none does not become one before it is asked for.
            standing.refused = None;
        }
        if due {
            standing.refused = reason;
            if reason.is_none() {
                let id = identity(key, policy, at);
                standing = Standing {
                    armed: false,
                    flag: Some((at, id)),
                    cooldown: Some(at.plus_ms(i64::from(policy.cooldown_days) * DAY_MS)),
                    refused: None,
                    version: policy.version,
                };
                let flag = ExpectedFlag {
                    id,
                    customer: key.clone(),
                    policy: policy.id.to_string(),
                    policy_version: policy.version,
                    kind: if share(key, policy) < policy.holdout {
                        "held_out"
                    } else {
                        "flagged"
                    },
                    score: match policy.score {
                        ScoreKind::Attrition => "attrition".to_owned(),
                        ScoreKind::Churn(days) => format!("churn-{days}"),
                    },
                    value: score,
                    threshold: policy.threshold,
                    raised_at: at,
                    stage: stage(&active.model, scorer, at),
                    model: active.model.version.clone(),
                };
                // Of two flags with one cause the first counts.
                let _ = flags.entry((key.workspace.clone(), id)).or_insert(flag);
            }
        }
        if standing != known {
            let _ = state.policies.insert(policy.id.clone(), standing);
            changed = true;
        }
    }
    changed
}

/// Why the customer must not be contacted, as a code; the first reason in the order of the codes.
pub(crate) fn refusal(
    policy: &Policy,
    key: &CustomerKey,
    state: &State,
    features: &Features,
    at: Timestamp,
) -> Option<u8> {
    let eligible = &policy.eligible;
    let marketing = state.word(Purpose::Marketing);
    let refused = Some(ConsentState::Refused);
    let bought = features.purchases.map_or(0, |purchases| purchases.x.saturating_add(1));
    let active = features.engagement.map_or(0, |acts| acts.x.saturating_add(1));
    let gone = match features.engagement {
        Some(acts) => at.ms_since(acts.last) / DAY_MS > i64::from(eligible.max_silence_days),
        None => true,
    };
    let reasons = [
        (
            OBJECTED,
            state.word(Purpose::Profiling) == refused || marketing == refused,
        ),
        (
            NO_CONSENT,
            eligible.marketing_consent == MarketingConsent::Granted && marketing.is_none(),
        ),
        (ANONYMOUS, eligible.known_only && !key.person.is_known()),
        (FEW_PURCHASES, bought < eligible.min_purchase_days),
        (MANY_PURCHASES, bought > eligible.max_purchase_days),
        (LITTLE_ACTIVITY, active < eligible.min_active_days),
        (GONE_TOO_LONG, gone),
    ];
    reasons.iter().find(|(_, holds)| *holds).map(|(code, _)| *code)
}

/// A flag's identity: a hash of its cause.
fn identity(key: &CustomerKey, policy: &Policy, at: Timestamp) -> FlagId {
    let kind = if key.person.is_known() { "known" } else { "anonymous" };
    let mut hash = Sha256::new();
    texts(
        &mut hash,
        &[key.workspace.as_str(), kind, key.person.as_str(), policy.id.as_str()],
    );
    hash.update(policy.version.to_le_bytes());
    hash.update(at.0.to_le_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let (first, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    FlagId(*first)
}

/// Where the customer stands in the policy's hold-out, from 0 to 1.
fn share(key: &CustomerKey, policy: &Policy) -> f64 {
    let mut hash = Sha256::new();
    texts(
        &mut hash,
        &[
            "hold-out",
            key.workspace.as_str(),
            key.person.as_str(),
            policy.id.as_str(),
        ],
    );
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, ..] = digest;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f]) as f64 / 281_474_976_710_656.0
}

fn texts(hash: &mut Sha256, texts: &[&str]) {
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
}

fn stage(model: &Model, scorer: &Scorer<'_>, at: Timestamp) -> &'static str {
    let Some(purchases) = scorer.features().purchases else {
        return "prospect";
    };
    if at.day().0.saturating_sub(purchases.first.0) < i32::from(model.stages.new_days) {
        return "new";
    }
    let attrition = scorer.score(ScoreKind::Attrition, at).unwrap_or(0.0);
    let stages = [
        (model.stages.lapsed, "lapsed"),
        (model.stages.at_risk, "at_risk"),
        (model.stages.slowing, "slowing"),
    ];
    let reached = stages.iter().find(|(from, _)| attrition >= *from);
    reached.map_or("active", |(_, name)| name)
}
