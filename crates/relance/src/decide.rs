//! The decision: does a score at this instant raise a flag, and if not, why not?
//!
//! Per customer and policy there is one small state machine in the customer's ledger:
//!
//! ```text
//!          score ≥ threshold, eligible, cooled down
//!   armed ────────────────────────────────────────────> flagged or held out
//!     ^                                                       │
//!     └──────────────── score < rearm-below ──────────────────┘
//! ```
//!
//! An ineligible customer stays armed: the reason is counted once, and the flag is raised as soon as the reason is gone.
//! Reasons come in a fixed order and only the last one depends on time, so silence alone never changes a reason.

use crate::flag::{Flag, FlagKind, FlagReason, FlagScore, flag_id, holdout_draw};
use crate::policy::{MarketingConsent, Policy, PolicySet};
use vigie_event::{ConsentState, CustomerKey, DAY_MS, FlagId, Purpose, Timestamp};
use vigie_scoring::state::{ConsentRecord, Ledger, RaisedFlag};
use vigie_scoring::{CustomerState, Features, Model, ScoreKind, Scorer, assess};

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $label:literal;)*) => {
        /// Why a customer whose score reached a threshold is not flagged.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code kept in the ledger.
            #[must_use]
            pub const fn code(self) -> u8 { match self { $(Self::$variant => $code,)* } }

            /// The stable name used in answers and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Self::$variant => $label,)* } }
        }
    };
}

refusals! {
    /// The person refused profiling or marketing.
    Objected = 1, "objected";
    /// The policy needs a consent that was never given.
    NoConsent = 2, "no_consent";
    /// There is no id to contact the person by.
    Anonymous = 3, "anonymous";
    /// Too few purchase days.
    FewPurchases = 4, "few_purchases";
    /// Too many purchase days.
    ManyPurchases = 5, "many_purchases";
    /// Too few active days.
    LittleActivity = 6, "little_activity";
    /// Silent for too long: already gone.
    GoneTooLong = 7, "gone_too_long";
}

/// What was decided about one customer under one policy.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// A flag, to be contacted or held out.
    Flag {
        /// Its identity.
        id: FlagId,
        /// The flag.
        flag: Box<Flag>,
    },
    /// No flag, for this reason.
    Refused {
        /// Name of the policy.
        policy: String,
        /// Why.
        reason: Refusal,
    },
}

/// A customer as the decision sees them.
#[derive(Debug)]
pub struct Look<'a> {
    /// Who.
    pub key: &'a CustomerKey,
    /// The record.
    pub state: &'a mut CustomerState,
    /// The scores of that record.
    pub scorer: &'a Scorer<'a>,
    /// The model of those scores.
    pub model: &'a Model,
    /// The instant.
    pub now: Timestamp,
}

/// Evaluates every policy at one instant, brings the ledger up to date and returns what was decided.
#[must_use]
pub fn evaluate(set: &PolicySet, look: &mut Look<'_>) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for policy in &set.policies {
        if let Ok(score) = look.scorer.score(policy.score, look.now)
            && let Some(decision) = evaluate_one(policy, score, look)
        {
            decisions.push(decision);
        }
    }
    decisions
}

fn evaluate_one(policy: &Policy, score: f64, look: &mut Look<'_>) -> Option<Decision> {
    let now = look.now;
    let before = look.state.ledger.policy(&policy.id);
    let mut entry = before.clone();
    if score < policy.rearm_below {
        entry.armed = true;
        entry.refused = None;
    }
    let may_flag = score >= policy.threshold && entry.armed && entry.cooldown_until.is_none_or(|until| until <= now);
    let decision = if !may_flag {
        // A refusal whose reason no longer holds (a purchase, a link, a consent) must not hide the next crossing.
        if entry.refused.is_some() {
            let holds = refusal(policy, look.key, look.state, look.scorer.features(), now).map(Refusal::code);
            entry.refused = entry.refused.filter(|code| holds == Some(*code));
        }
        None
    } else if let Some(reason) = refusal(policy, look.key, look.state, look.scorer.features(), now) {
        let counted = entry.refused.replace(reason.code()) == Some(reason.code());
        (!counted).then(|| Decision::Refused {
            policy: policy.id.to_string(),
            reason,
        })
    } else {
        let id = flag_id(look.key, policy.id.as_str(), policy.version, now);
        entry.armed = false;
        entry.refused = None;
        entry.last_flag = Some(RaisedFlag { at: now, id });
        entry.cooldown_until = Some(now.plus_ms(i64::from(policy.cooldown_days) * DAY_MS));
        entry.policy_version = policy.version;
        Some(Decision::Flag {
            id,
            flag: Box::new(describe(policy, score, id, look)),
        })
    };
    if entry != before {
        let _ = look.state.ledger.policies.insert(policy.id.clone(), entry);
    }
    decision
}

/// The first instant after `now`, under continued silence, at which [`evaluate`] would decide something new; at most
/// `until`. `None` when silence alone changes nothing.
#[must_use]
pub fn next_due(
    set: &PolicySet,
    ledger: &Ledger,
    scorer: &Scorer<'_>,
    now: Timestamp,
    until: Timestamp,
) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for policy in &set.policies {
        let entry = ledger.policies.get(&policy.id);
        let armed = entry.is_none_or(|entry| entry.armed);
        // What was refused is decided anew when an event changes it; silence only takes customers further away.
        if !armed || entry.is_some_and(|entry| entry.refused.is_some()) {
            continue;
        }
        let from = entry
            .and_then(|entry| entry.cooldown_until)
            .map_or(now, |cooled| cooled.max(now));
        let limit = earliest.unwrap_or(until);
        let due = scorer.first_crossing(policy.score, policy.threshold, from, limit);
        earliest = [earliest, due.map(|due| due.max(now.plus_ms(1)))]
            .into_iter()
            .flatten()
            .min();
    }
    earliest
}

fn refusal(
    policy: &Policy,
    key: &CustomerKey,
    state: &CustomerState,
    features: &Features,
    now: Timestamp,
) -> Option<Refusal> {
    let eligible = &policy.eligible;
    let said = |purpose: Purpose| state.consent.get(&purpose).map(|ConsentRecord { state, .. }| *state);
    let purchase_days = features.purchases.map_or(0, |purchases| purchases.x.saturating_add(1));
    let active_days = features
        .engagement
        .map_or(0, |engagement| engagement.x.saturating_add(1));
    let silent_days = features
        .engagement
        .map_or(i64::MAX, |engagement| now.ms_since(engagement.last) / DAY_MS);
    let marketing = said(Purpose::Marketing);
    // Rights come first: they are reasons that no setting can overrule.
    if said(Purpose::Profiling) == Some(ConsentState::Refused) || marketing == Some(ConsentState::Refused) {
        Some(Refusal::Objected)
    } else if eligible.marketing_consent == MarketingConsent::Granted && marketing != Some(ConsentState::Granted) {
        Some(Refusal::NoConsent)
    } else if eligible.known_only && !key.person.is_known() {
        Some(Refusal::Anonymous)
    } else if purchase_days < eligible.min_purchase_days {
        Some(Refusal::FewPurchases)
    } else if purchase_days > eligible.max_purchase_days {
        Some(Refusal::ManyPurchases)
    } else if active_days < eligible.min_active_days {
        Some(Refusal::LittleActivity)
    } else if silent_days > i64::from(eligible.max_silence_days) {
        Some(Refusal::GoneTooLong)
    } else {
        None
    }
}

fn describe(policy: &Policy, value: f64, id: FlagId, look: &Look<'_>) -> Flag {
    let assessment = assess(look.state, look.model, look.now);
    let draw = holdout_draw(look.key.workspace.as_str(), &look.key.person, policy.id.as_str());
    Flag {
        id: id.to_string(),
        workspace: look.key.workspace.to_string(),
        customer: look.key.person.to_string(),
        policy: policy.id.to_string(),
        policy_version: format!("{:016x}", policy.version),
        kind: if draw < policy.holdout {
            FlagKind::HeldOut
        } else {
            FlagKind::Flagged
        },
        score: FlagScore {
            kind: score_name(policy.score),
            value,
            threshold: policy.threshold,
        },
        raised_at: look.now.to_string(),
        stage: assessment.stage.label().to_owned(),
        reasons: assessment
            .reasons
            .iter()
            .map(|reason| FlagReason {
                code: reason.code.label().to_owned(),
                text: reason.text.clone(),
            })
            .collect(),
        model: assessment.model,
    }
}

fn score_name(kind: ScoreKind) -> String {
    match kind {
        ScoreKind::Attrition => "attrition".to_owned(),
        ScoreKind::Churn(days) => format!("churn-{days}"),
    }
}
