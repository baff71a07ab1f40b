//! Whether a score at an instant raises a flag: the documented state machine, written anew.
//!
//! Per customer and policy: a score at or above the threshold, while the policy is armed and has cooled down, either raises a
//! flag, which disarms it, or is refused for a reason, which stays on record as long as it holds, or has to wait, which is on
//! record as a cooldown. A score below the level of re-arming arms the policy and forgets the refusal; so does, at any look, a
//! reason that holds no longer.
//!
//! A flag ends as returned (the target happened within the policy's window), as lost (the window passed, or another flag came
//! first), or as recalled (a purchase from before it, heard of late, brings the score below the threshold; the policy is armed
//! again at once).

use crate::band;
use crate::contact::{clock, last, refusal, row, wait};
use crate::state::{LOST, RECALLED, RETURNED, Standing, State};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use vigie_event::{CustomerKey, DAY_MS, FlagId, Signal, Timestamp, Workspace};
use vigie_relance::{Measure, Policy, PolicySet, Target, Terms};
use vigie_scoring::{Model, ScoreKind, Scorer};

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
    /// `flagged`, `held_out` or `recalled`.
    pub kind: &'static str,
    /// `attrition`, `churn-N`, or the name of a complaint clock.
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
    /// For changes of bands: which, as JSON.
    pub band: Option<String>,
}

/// Flags by workspace and identity.
pub(crate) type Flags = BTreeMap<(Workspace, FlagId), ExpectedFlag>;

/// What a policy watches at an instant, and the two levels that count.
struct Level {
    value: f64,
    up: bool,
    down: bool,
}

fn level(measure: Measure, terms: &Terms, state: &State, scorer: &Scorer<'_>, at: Timestamp) -> Option<Level> {
    if let Measure::Score(kind) = measure {
        let value = scorer.score(kind, at).ok()?;
        return Some(Level {
            value,
            up: value >= terms.threshold,
            down: value < terms.rearm_below,
        });
    }
    let Some(since) = clock(measure, state) else {
        return Some(Level {
            value: 0.0,
            up: false,
            down: true,
        });
    };
    Some(Level {
        value: at.ms_since(since) as f64 / DAY_MS as f64,
        up: at >= since.plus_ms(days(terms.threshold)),
        down: at < since.plus_ms(days(terms.rearm_below)),
    })
}

/// Days as milliseconds.
pub(crate) fn days(days: f64) -> i64 {
    (days * DAY_MS as f64) as i64
}

/// When a flag's time is up.
pub(crate) fn window_end(policy: &Policy, raised: Timestamp) -> Timestamp {
    raised.plus_ms(i64::from(policy.window_days) * DAY_MS)
}

/// The numbers that hold for a customer.
pub(crate) fn terms(policy: &Policy, key: &CustomerKey, state: &State, scorer: &Scorer<'_>) -> Terms {
    if policy.segments.is_empty() {
        policy.terms
    } else {
        policy.terms_for(&row(key, state, scorer.features())).0
    }
}

/// An instant, and the time of the purchase that gave rise to the look, if one did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) at: Timestamp,
    pub(crate) purchase: Option<Timestamp>,
}

impl Moment {
    /// An instant without a purchase.
    pub(crate) const fn of(at: Timestamp) -> Self {
        Self { at, purchase: None }
    }
}

/// Decides for every policy at one instant; the standing of each is part of the record. `true` when one has changed.
pub(crate) fn decide(
    active: &Active,
    key: &CustomerKey,
    state: &mut State,
    scorer: &Scorer<'_>,
    moment: Moment,
    flags: &mut Flags,
) -> bool {
    let at = moment.at;
    let mut changed = false;
    for policy in &active.policies.policies {
        let terms = terms(policy, key, state, scorer);
        let Some(level) = level(policy.score, &terms, state, scorer, at) else {
            continue;
        };
        let held_out = share(key, policy) < terms.holdout;
        let flag = |id: FlagId, kind: &'static str| ExpectedFlag {
            id,
            customer: key.clone(),
            policy: policy.id.to_string(),
            policy_version: policy.version,
            kind,
            score: measure_name(policy.score),
            value: level.value,
            threshold: terms.threshold,
            raised_at: at,
            stage: stage(&active.model, scorer, at),
            model: active.model.version.clone(),
            band: None,
        };
        let known = state.policies.get(&policy.id).cloned().unwrap_or_default();
        let mut standing = known.clone();
        if let Some((raised, id)) = standing.flag
            && ends(policy, &mut standing, raised, moment, &level, state, scorer)
            && !held_out
        {
            let notice = recall(id);
            let _ = flags
                .entry((key.workspace.clone(), notice))
                .or_insert_with(|| flag(notice, "recalled"));
        }
        if level.down {
            standing.armed = true;
            standing.refused = None;
        }
        let cooled = standing.cooldown.is_none_or(|until| at >= until);
        let reason = refusal(&active.policies, policy, key, state, scorer.features(), at);
        let due = level.up && standing.armed && cooled;
        if !due && standing.refused != reason {
            // What is on record as a reason must be one; what is none does not become one before it is asked for.
            standing.refused = None;
        }
        if due {
            standing.refused = reason;
        }
        if due && reason.is_none() {
            let risk = (level.value, &terms);
            if let Some(until) = wait(&active.policies, policy, (key, state), scorer, at, risk) {
                standing.cooldown = Some(until.max(at.plus_ms(1)));
            } else {
                let id = identity(key, policy, at);
                standing = Standing {
                    armed: false,
                    flag: Some((at, id)),
                    cooldown: Some(at.plus_ms(i64::from(terms.cooldown_days) * DAY_MS)),
                    refused: None,
                    version: policy.version,
                    course: Some((0, at)),
                };
                // Of two flags with one cause the first counts.
                let kind = if held_out { "held_out" } else { "flagged" };
                let _ = flags
                    .entry((key.workspace.clone(), id))
                    .or_insert_with(|| flag(id, kind));
            }
        }
        if standing != known {
            let _ = state.policies.insert(policy.id.clone(), standing);
            changed = true;
        }
    }
    let stage = stage(&active.model, scorer, at);
    changed | band::tell(active, key, state, scorer, at, stage, flags)
}

/// Brings the last flag to its end, if it is there; `true` when it was wrong.
fn ends(
    policy: &Policy,
    standing: &mut Standing,
    raised: Timestamp,
    moment: Moment,
    level: &Level,
    state: &State,
    scorer: &Scorer<'_>,
) -> bool {
    let service = policy.score.is_service();
    let wrong = !service && !level.up && moment.purchase.is_some_and(|bought| bought < raised);
    if wrong && standing.is_open() {
        let _ = standing.bring_to(RECALLED, moment.at);
        standing.armed = true;
        standing.cooldown = None;
        standing.refused = None;
        return true;
    }
    let reached = match (service, policy.target) {
        (true, _) => level.down.then_some(moment.at),
        (false, Target::Purchase) => last(state, Signal::Purchase),
        (false, Target::Activity) => scorer.features().engagement.map(|acts| acts.last),
    };
    let end = window_end(policy, raised);
    if reached.is_some_and(|reached| reached > raised && reached <= end) {
        let _ = standing.bring_to(RETURNED, moment.at);
    } else if moment.at >= end {
        let _ = standing.bring_to(LOST, moment.at);
    }
    false
}

/// The identity of the notice that a flag was wrong.
fn recall(flag: FlagId) -> FlagId {
    let mut hash = Sha256::new();
    texts(&mut hash, &["recall", &flag.to_string()]);
    let digest: [u8; 32] = hash.finalize().into();
    let (first, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    FlagId(*first)
}

fn measure_name(measure: Measure) -> String {
    match measure {
        Measure::Score(ScoreKind::Attrition) => "attrition".to_owned(),
        Measure::Score(ScoreKind::Churn(days)) => format!("churn-{days}"),
        Measure::ComplaintAge => "complaint-age".to_owned(),
        Measure::ClosureAge => "closure-age".to_owned(),
    }
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

pub(crate) fn texts(hash: &mut Sha256, texts: &[&str]) {
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
