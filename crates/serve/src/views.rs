//! What answers look like: plain data with its schema, made from a customer record, one snapshot of model and policies,
//! and an instant. Nothing here loads, authorizes or reads a clock.

use crate::state::Active;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;
use vigie_event::{DAY_MS, PersonId, Timestamp};
use vigie_scoring::{Assessment, CustomerState, Lang, ScoreKind, Scorer, assess, assess_in};

/// How far forecasts look ahead.
const FORECAST_DAYS: i64 = 730;
/// Points of the forecast: weekly, for one quarter.
const FORECAST_WEEKS: i64 = 12;

/// One customer at one instant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Customer {
    /// The customer's id; ids of people without a known one start with `anonymous:`.
    #[schema(example = "C000123")]
    id: String,
    /// Every id that belongs to the customer, this one included.
    identities: Vec<String>,
    /// The instant that the scores hold for.
    #[schema(format = DateTime)]
    as_of: String,
    /// Seconds from the receipt of the newest record that was taken into account to the answer.
    #[schema(minimum = 0)]
    data_age_seconds: i64,
    /// Place in the life cycle.
    stage: Stage,
    /// Disengagement as of now; null when there is nothing to judge by (see `not_scored`).
    attrition: Option<Attrition>,
    /// Why attrition is null.
    not_scored: Option<String>,
    /// Probability of no purchase within each of the model's horizons, ascending.
    churn: Vec<Churn>,
    /// Probability of still being a customer, by two published models; null for those who never bought.
    p_alive: Option<PAlive>,
    /// At most three sentences, the weightiest first.
    #[schema(max_items = 3)]
    reasons: Vec<Reason>,
    /// The same for churn over the model's default horizon.
    #[schema(max_items = 3)]
    churn_reasons: Vec<Reason>,
    /// The facts behind the scores.
    evidence: Evidence,
    /// What the customer is worth; null for those who never bought for money.
    value: Option<Value>,
    /// For each policy in force: when its threshold will be reached if the customer stays silent.
    crossings: Vec<Crossing>,
    /// Scores of the coming twelve weeks if the customer stays silent.
    forecast: Vec<ForecastPoint>,
    /// Relances whose policy has not been armed again since.
    open_flags: Vec<OpenFlag>,
    /// Version of the model.
    #[schema(example = "btyd-cdnow@0123456789ab")]
    model: String,
    /// What the candidate says, where a model scores beside the one in force; it decides nothing.
    candidate: Option<Candidate>,
    /// Version of the configuration.
    config: String,
}

/// Scores by a model that scores beside the one in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Candidate {
    /// Version of the candidate.
    #[schema(example = "fitted@0123456789ab")]
    model: String,
    /// Disengagement as of now.
    attrition: Option<Attrition>,
    /// Probability of no purchase within each of the candidate's horizons, ascending.
    churn: Vec<Churn>,
}

/// Place in the life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Has never bought.
    Prospect,
    /// Bought for the first time a few days ago.
    New,
    /// Attrition is low.
    Active,
    /// Attrition is rising.
    Slowing,
    /// Attrition is high.
    AtRisk,
    /// Attrition is so high that the customer counts as gone.
    Lapsed,
}

/// Disengagement as of now, between 0 and 1, and what it is made of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attrition {
    #[schema(minimum = 0, maximum = 1)]
    score: f64,
    /// 90 % interval: the less is known of the customer, the wider.
    interval: [f64; 2],
    /// Log-odds of the score: the sum of the contributions.
    logit: f64,
    contributions: Vec<Contribution>,
}

/// One term of the log-odds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Contribution {
    /// Of attrition: `purchase_history`, `purchase_silence`, `engagement_history`, `engagement_silence`, `pool_offset`. Of
    /// churn: the first two, and with a fitted model `recent_purchases`, `spend`, `regularity`, `site`, `mail`, `season`.
    factor: &'static str,
    /// Positive speaks for attrition or churn.
    log_odds: f64,
}

/// Probability of no purchase within a horizon.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Churn {
    horizon_days: u16,
    /// The sum of the two following; null for those who never bought.
    #[schema(minimum = 0, maximum = 1)]
    score: Option<f64>,
    /// Has already gone.
    already_gone: Option<f64>,
    /// Is still a customer, and does not buy within the horizon.
    still_customer: Option<f64>,
    /// 90 % interval of the score: the less is known of the customer, the wider.
    interval: Option<[f64; 2]>,
    /// Log-odds of the score, term by term; they add up to it.
    contributions: Vec<Contribution>,
}

/// Money in major units of the currency in which the customer has spent most.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Value {
    #[schema(example = "EUR")]
    currency: String,
    /// Purchases less refunds, over the whole life.
    historical: f64,
    /// Purchases to be expected in the coming year.
    purchases: f64,
    /// What one of them is expected to bring, before costs.
    spend: f64,
    /// The same after the costs by share and by purchase of the model.
    margin: f64,
    /// Expected margin of the coming year; it falls while the customer is silent.
    current: f64,
    /// The same if the customer certainly had not left.
    potential: f64,
    /// What may be lost: potential less current.
    at_stake: f64,
    /// Probability of a purchase within a year.
    #[schema(minimum = 0, maximum = 1)]
    retention: f64,
    /// What money loses in a year.
    discount_rate: f64,
    /// Lifetime value: the coming years' margins, each with the probability of staying and discounted, less the cost of
    /// winning the customer.
    lifetime: f64,
}

/// Probability of still being a customer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PAlive {
    /// By BG/NBD (Fader, Hardie, Lee 2005).
    bg_nbd: f64,
    /// By MBG/NBD (Batislam, Denizel, Filiztekin 2007).
    mbg_nbd: f64,
}

/// One fact, as a sentence.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reason {
    /// The kind of fact; stable.
    code: &'static str,
    /// The contribution that it explains.
    factor: &'static str,
    #[schema(example = "No purchase since 4 October 2026")]
    text: String,
    /// Ids (`messageId`) of the events that it rests on, the newest of their kind. Empty where it is about no event of the
    /// customer, such as a season.
    events: Vec<String>,
}

/// The facts behind the scores, in the words of the repeat-buying models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Evidence {
    /// Null for those who never bought.
    purchases: Option<PurchaseEvidence>,
    /// Days with a sign of life, within 400 days.
    active_days: u32,
    #[schema(format = DateTime)]
    first_activity: Option<String>,
    #[schema(format = DateTime)]
    last_activity: Option<String>,
    /// Median days between neighbouring active days.
    usual_activity_gap_days: Option<u32>,
}

/// Sufficient statistics of the purchase models. Purchases on one day count once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PurchaseEvidence {
    /// Repeat purchase days: all but the first.
    x: u32,
    /// Weeks from the first purchase day to the last.
    t_x_weeks: f64,
    /// Weeks from the first purchase day to `as_of`.
    #[serde(rename = "T_weeks")]
    t_weeks: f64,
    #[schema(format = Date)]
    first_purchase: String,
    #[schema(format = Date)]
    last_purchase: String,
    /// Median days between neighbouring purchase days.
    usual_gap_days: Option<u32>,
}

/// A policy's threshold and the moment of reaching it in silence.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Crossing {
    policy: String,
    /// `attrition`, or `churn-N` for N days.
    #[schema(example = "churn-90")]
    score: String,
    threshold: f64,
    /// The score now; null when there is none.
    value: Option<f64>,
    /// The score is at or above the threshold already.
    reached: bool,
    /// The first instant at or above the threshold; null when reached already, or not within two years.
    #[schema(format = DateTime)]
    crosses_at: Option<String>,
}

/// Scores at a coming instant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForecastPoint {
    #[schema(format = DateTime)]
    at: String,
    attrition: Option<f64>,
    /// Over the model's default horizon.
    churn: Option<f64>,
}

/// A relance that was raised and not followed by a return.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenFlag {
    /// Of `/v1/relances/{id}`.
    id: String,
    policy: String,
    #[schema(format = DateTime)]
    raised_at: String,
}

/// One row of a list of customers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CustomerRow {
    /// The customer's id; ids of people without a known one start with `anonymous:`.
    id: String,
    #[schema(format = DateTime)]
    as_of: String,
    stage: Stage,
    /// Null when there is nothing to judge by.
    attrition: Option<f64>,
    /// Over the model's default horizon; null for those who never bought.
    churn: Option<f64>,
    churn_horizon_days: u16,
    #[schema(format = DateTime)]
    last_activity: Option<String>,
    /// At most three sentences, the weightiest first.
    #[schema(max_items = 3)]
    reasons: Vec<Reason>,
}

/// A page of customers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CustomerPage {
    pub(crate) customers: Vec<CustomerRow>,
    /// For the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// Ids to look up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// As in `/v1/customers/{id}`.
    #[schema(max_items = 1000)]
    pub(crate) ids: Vec<String>,
}

/// The customers asked for, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    pub(crate) customers: Vec<BatchEntry>,
}

/// One answer of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchEntry {
    /// The id as asked for; `customer.id` differs when it has been linked to another.
    pub(crate) id: String,
    /// Null when there is no such customer.
    pub(crate) customer: Option<Customer>,
}

/// A customer to contact, or deliberately not to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Relance)]
pub(crate) struct RelanceSchema {
    /// 32 hexadecimal digits; the same cause gives the same id, also in a replay.
    #[schema(pattern = "^[0-9a-f]{32}$")]
    id: String,
    workspace: String,
    customer: String,
    policy: String,
    /// 16 hexadecimal digits.
    policy_version: String,
    kind: RelanceKind,
    score: RelanceScore,
    /// When the threshold was reached.
    #[schema(format = DateTime)]
    raised_at: String,
    stage: Stage,
    #[schema(max_items = 3)]
    reasons: Vec<RelanceReason>,
    model: String,
}

/// What is to become of a relance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the JSON of a stored flag")]
pub(crate) enum RelanceKind {
    /// Contact the customer.
    Flagged,
    /// Do not: this customer shows what happens without a contact.
    HeldOut,
    /// Do not any more: the relance that it names was wrong.
    Recalled,
}

/// The score that reached a threshold.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RelanceScore {
    /// `attrition`, or `churn-N` for N days.
    kind: String,
    value: f64,
    threshold: f64,
}

/// One fact, as a sentence.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RelanceReason {
    code: String,
    text: String,
    /// Ids of the events that it rests on; left out when there are none.
    events: Vec<String>,
}

/// A page of relances, in the order in which they were raised.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RelancePage {
    #[schema(value_type = Vec<RelanceSchema>)]
    pub(crate) relances: Vec<Box<serde_json::value::RawValue>>,
    /// Always given: ask again with it to get what follows. A reader that keeps it misses nothing.
    pub(crate) next_cursor: String,
    /// More follow already.
    pub(crate) more: bool,
}

/// What scores and flags come from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigView {
    /// Version of the configuration as a whole.
    config: String,
    /// Version of the model.
    model: String,
    /// Version of the model that scores beside it.
    candidate: Option<String>,
    /// Horizons of churn, in days.
    churn_horizons_days: Vec<u16>,
    default_horizon_days: u16,
    /// Version of the policy file.
    policies_version: String,
    policies: Vec<PolicyView>,
}

/// One policy in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PolicyView {
    id: String,
    /// 16 hexadecimal digits.
    version: String,
    /// Who answers for it.
    owner: String,
    /// What it is for.
    goal: String,
    /// `attrition`, or `churn-N` for N days.
    score: String,
    threshold: f64,
    rearm_below: f64,
    cooldown_days: u32,
    /// Share of the flags held out.
    holdout: f64,
}

impl Customer {
    /// Everything about a customer at `at`; `received_by` is when the answer is made, `lang` the language of sentences.
    pub(crate) fn of(
        id: &PersonId,
        state: &CustomerState,
        active: &Active,
        at: Timestamp,
        received_by: Timestamp,
        lang: Lang,
    ) -> Self {
        let assessment = assess_in(state, &active.model, at, lang);
        let scorer = Scorer::of(state, &active.model);
        Self {
            id: id.to_string(),
            identities: identities(id, state),
            as_of: at.to_string(),
            data_age_seconds: (received_by.ms_since(state.last_received) / 1_000).max(0),
            stage: assessment.stage.into(),
            not_scored: assessment.attrition.as_ref().err().map(|why| why.label().to_owned()),
            churn: churn(&assessment),
            p_alive: assessment.p_alive.map(|p| PAlive {
                bg_nbd: p.bg_nbd,
                mbg_nbd: p.mbg_nbd,
            }),
            evidence: evidence(&assessment),
            crossings: crossings(&scorer, active, at),
            forecast: forecast(&scorer, active, at),
            open_flags: open_flags(state),
            reasons: reasons(&assessment.reasons),
            churn_reasons: reasons(&assessment.churn_reasons),
            value: assessment.value.as_ref().map(Value::from),
            model: assessment.model,
            candidate: active.model.candidate.as_deref().map(|model| {
                let assessment = assess_in(state, model, at, lang);
                Candidate {
                    churn: churn(&assessment),
                    model: assessment.model,
                    attrition: assessment.attrition.ok().map(Attrition::from),
                }
            }),
            attrition: assessment.attrition.ok().map(Attrition::from),
            config: active.config_version.clone(),
        }
    }
}

impl CustomerRow {
    /// The row of a customer at `at`.
    pub(crate) fn of(id: &PersonId, state: &CustomerState, active: &Active, at: Timestamp) -> Self {
        let assessment = assess(state, &active.model, at);
        let horizon = active.model.default_horizon_days;
        let churn = assessment.churn.iter().find(|churn| churn.horizon_days == horizon);
        Self {
            id: id.to_string(),
            as_of: at.to_string(),
            stage: assessment.stage.into(),
            attrition: assessment.attrition.as_ref().ok().map(|attrition| attrition.score),
            churn: churn.and_then(|churn| churn.outcome.ok()).map(|churn| churn.score),
            churn_horizon_days: horizon,
            last_activity: assessment.evidence.last_activity.map(|at| at.to_string()),
            reasons: reasons(&assessment.reasons),
        }
    }
}

impl ConfigView {
    pub(crate) fn of(active: &Active) -> Self {
        let policy = |policy: &vigie_relance::Policy| PolicyView {
            id: policy.id.to_string(),
            version: format!("{:016x}", policy.version),
            owner: policy.owner.clone(),
            goal: policy.goal.clone(),
            score: policy.score.name(),
            threshold: policy.terms.threshold,
            rearm_below: policy.terms.rearm_below,
            cooldown_days: policy.terms.cooldown_days,
            holdout: policy.terms.holdout,
        };
        Self {
            config: active.config_version.clone(),
            model: active.model.version.clone(),
            candidate: active
                .model
                .candidate
                .as_ref()
                .map(|candidate| candidate.version.clone()),
            churn_horizons_days: active.model.churn_horizons_days.clone(),
            default_horizon_days: active.model.default_horizon_days,
            policies_version: active.policies.version.clone(),
            policies: active.policies.policies.iter().map(policy).collect(),
        }
    }
}

impl From<vigie_scoring::Stage> for Stage {
    fn from(stage: vigie_scoring::Stage) -> Self {
        match stage {
            vigie_scoring::Stage::Prospect => Self::Prospect,
            vigie_scoring::Stage::New => Self::New,
            vigie_scoring::Stage::Active => Self::Active,
            vigie_scoring::Stage::Slowing => Self::Slowing,
            vigie_scoring::Stage::AtRisk => Self::AtRisk,
            vigie_scoring::Stage::Lapsed => Self::Lapsed,
        }
    }
}

impl From<vigie_scoring::Attrition> for Attrition {
    fn from(attrition: vigie_scoring::Attrition) -> Self {
        Self {
            score: attrition.score,
            interval: attrition.interval.into(),
            logit: attrition.logit,
            contributions: contributions(&attrition.contributions),
        }
    }
}

impl From<&vigie_scoring::Value> for Value {
    fn from(value: &vigie_scoring::Value) -> Self {
        Self {
            currency: value.currency.to_string(),
            historical: value.historical,
            purchases: value.purchases,
            spend: value.spend,
            margin: value.margin,
            current: value.current,
            potential: value.potential,
            at_stake: value.at_stake,
            retention: value.retention,
            discount_rate: value.discount_rate,
            lifetime: value.lifetime,
        }
    }
}

fn contributions(terms: &[vigie_scoring::Contribution]) -> Vec<Contribution> {
    let view = |term: &vigie_scoring::Contribution| Contribution {
        factor: term.factor.label(),
        log_odds: term.log_odds,
    };
    terms.iter().map(view).collect()
}

/// The newest instant that the state knows of: no answer about an earlier one can be right.
pub(crate) fn newest_event(state: &CustomerState) -> Option<Timestamp> {
    state
        .all_parts()
        .flat_map(|part| part.signals().map(|(_, recency)| recency.last))
        .max()
}

fn identities(id: &PersonId, state: &CustomerState) -> Vec<String> {
    let all: BTreeSet<&PersonId> = state.parts.keys().chain(&state.known_links).chain([id]).collect();
    all.into_iter().map(PersonId::to_string).collect()
}

fn churn(assessment: &Assessment) -> Vec<Churn> {
    let view = |churn: &vigie_scoring::Churn| {
        let outcome = churn.outcome.ok();
        Churn {
            horizon_days: churn.horizon_days,
            score: outcome.map(|churn| churn.score),
            already_gone: outcome.map(|churn| churn.already_gone),
            still_customer: outcome.map(|churn| churn.still_customer),
            interval: outcome.map(|churn| churn.interval.into()),
            contributions: outcome
                .map(|churn| contributions(&churn.contributions()))
                .unwrap_or_default(),
        }
    };
    assessment.churn.iter().map(view).collect()
}

fn reasons(reasons: &[vigie_scoring::Reason]) -> Vec<Reason> {
    let view = |reason: &vigie_scoring::Reason| Reason {
        code: reason.code.label(),
        factor: reason.factor.label(),
        text: reason.text.clone(),
        events: reason.events.clone(),
    };
    reasons.iter().map(view).collect()
}

fn evidence(assessment: &Assessment) -> Evidence {
    let evidence = &assessment.evidence;
    let purchases = evidence.purchases.map(|purchases| PurchaseEvidence {
        x: purchases.x,
        t_x_weeks: purchases.t_x_weeks,
        t_weeks: purchases.age_weeks,
        first_purchase: purchases.first.to_string(),
        last_purchase: purchases.last.to_string(),
        usual_gap_days: purchases.usual_gap_days,
    });
    Evidence {
        purchases,
        active_days: evidence.active_days,
        first_activity: evidence.first_activity.map(|at| at.to_string()),
        last_activity: evidence.last_activity.map(|at| at.to_string()),
        usual_activity_gap_days: evidence.usual_activity_gap_days,
    }
}

fn crossings(scorer: &Scorer<'_>, active: &Active, at: Timestamp) -> Vec<Crossing> {
    let until = at.plus_ms(FORECAST_DAYS * DAY_MS);
    let view = |policy: &vigie_relance::Policy| {
        // Complaint clocks are no scores, and their deadlines no forecasts.
        let kind = policy.score.score()?;
        let value = scorer.score(kind, at).ok();
        let threshold = policy.terms.threshold;
        let reached = value.is_some_and(|value| value >= threshold);
        let crosses_at = match reached {
            true => None,
            false => scorer.first_crossing(kind, threshold, at, until),
        };
        Some(Crossing {
            policy: policy.id.to_string(),
            score: policy.score.name(),
            threshold,
            value,
            reached,
            crosses_at: crosses_at.map(|at| at.to_string()),
        })
    };
    active.policies.policies.iter().filter_map(view).collect()
}

fn forecast(scorer: &Scorer<'_>, active: &Active, at: Timestamp) -> Vec<ForecastPoint> {
    let point = |week: i64| {
        let at = at.plus_ms(week * 7 * DAY_MS);
        ForecastPoint {
            at: at.to_string(),
            attrition: scorer.score(ScoreKind::Attrition, at).ok(),
            churn: scorer
                .score(ScoreKind::Churn(active.model.default_horizon_days), at)
                .ok(),
        }
    };
    (0..=FORECAST_WEEKS).map(point).collect()
}

fn open_flags(state: &CustomerState) -> Vec<OpenFlag> {
    let open = state.ledger.policies.iter().filter(|(_, policy)| !policy.armed);
    open.filter_map(|(id, policy)| {
        let flag = policy.last_flag?;
        Some(OpenFlag {
            id: flag.id.to_string(),
            policy: id.to_string(),
            raised_at: flag.at.to_string(),
        })
    })
    .collect()
}
