//! What the models say about a customer at one instant, with everything that the answer rests on.
//!
//! Attrition (disengagement as of now) and churn (no purchase within a horizon from now) are two scores and are never
//! mixed. Attrition's contributions are in log-odds and add up exactly to its log-odds; churn's are probabilities and add
//! up to the score. Contributions describe the model, not a cause. This file never decides what to do about a customer.

use crate::btyd::sigmoid;
use crate::features::{AttritionTerms, NotScored, ScoreKind, Scorer};
use crate::model::Model;
use crate::reasons;
use crate::state::CustomerState;
use vigie_event::{Day, Timestamp};

/// Everything about one customer at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    /// The instant that it holds for.
    pub as_of: Timestamp,
    /// [`Model::version`].
    pub model: String,
    /// Disengagement as of now.
    pub attrition: Result<Attrition, NotScored>,
    /// Churn per horizon of the model, ascending.
    pub churn: Vec<Churn>,
    /// P(alive) on purchase days; `None` when the customer has never bought.
    pub p_alive: Option<PAlive>,
    /// Stage of the life cycle.
    pub stage: Stage,
    /// At most three sentences, the weightiest first, all in the direction in which attrition leans.
    pub reasons: Vec<Reason>,
    /// The facts behind the scores.
    pub evidence: Evidence,
}

/// Attrition and what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Attrition {
    /// Probability in [0, 1].
    pub score: f64,
    /// Its log-odds: the sum of the contributions, in their order.
    pub logit: f64,
    /// Log-odds per factor; positive speaks for attrition. Factors without data are absent.
    pub contributions: Vec<Contribution>,
}

/// One term of a sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contribution {
    /// Of what.
    pub factor: Factor,
    /// How much, in log-odds.
    pub log_odds: f64,
}

/// What contributes to attrition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Factor {
    /// Number of purchase days.
    PurchaseHistory,
    /// Time since the last purchase, measured by the customer's own pace.
    PurchaseSilence,
    /// Number of active days.
    EngagementHistory,
    /// Time since the last sign of life, measured by the customer's own pace.
    EngagementSilence,
    /// The model's calibration offset.
    PoolOffset,
}

impl Factor {
    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::PurchaseHistory => "purchase_history",
            Self::PurchaseSilence => "purchase_silence",
            Self::EngagementHistory => "engagement_history",
            Self::EngagementSilence => "engagement_silence",
            Self::PoolOffset => "pool_offset",
        }
    }
}

/// Churn over one horizon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Churn {
    /// The horizon in days.
    pub horizon_days: u16,
    /// The score and its terms.
    pub outcome: Result<ChurnScore, NotScored>,
}

/// P(no purchase within the horizon) as two disjoint ways for it to happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChurnScore {
    /// Probability in [0, 1]: the sum of the two.
    pub score: f64,
    /// Has already gone.
    pub already_gone: f64,
    /// Is still a customer and does not buy within the horizon.
    pub still_customer: f64,
    /// Under a fitted churn model, the log-odds of a purchase term by term; they add up to −logit of the score.
    pub contributions: Option<crate::churn::Terms>,
}

/// P(alive) by two published models of purchase days.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PAlive {
    /// BG/NBD; 1 for ever after a single purchase.
    pub bg_nbd: f64,
    /// MBG/NBD.
    pub mbg_nbd: f64,
}

/// Where the customer stands in the life cycle. The first that applies, in this order: never bought; within the model's
/// first days after the first purchase; by attrition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Has never bought.
    Prospect,
    /// Bought for the first time a few days ago.
    New,
    /// Attrition is low.
    Active,
    /// Attrition from the model's `slowing`.
    Slowing,
    /// Attrition from the model's `at-risk`.
    AtRisk,
    /// Attrition from the model's `lapsed`.
    Lapsed,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 6] = [
        Self::Prospect,
        Self::New,
        Self::Active,
        Self::Slowing,
        Self::AtRisk,
        Self::Lapsed,
    ];

    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Prospect => "prospect",
            Self::New => "new",
            Self::Active => "active",
            Self::Slowing => "slowing",
            Self::AtRisk => "at_risk",
            Self::Lapsed => "lapsed",
        }
    }
}

/// One sentence for a person to read: a concrete fact with its date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The kind of fact; stable.
    pub code: ReasonCode,
    /// The contribution that it explains.
    pub factor: Factor,
    /// The sentence, in English.
    pub text: String,
}

/// Kinds of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReasonCode {
    /// No purchase for a while.
    NoPurchaseSince,
    /// Bought on one day only.
    OnePurchase,
    /// Has bought again and again.
    RepeatPurchases,
    /// No sign of life for a while.
    NoActivitySince,
    /// Seen on one day only.
    OneActiveDay,
    /// Seen on many days.
    ManyActiveDays,
}

impl ReasonCode {
    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoPurchaseSince => "no_purchase_since",
            Self::OnePurchase => "one_purchase",
            Self::RepeatPurchases => "repeat_purchases",
            Self::NoActivitySince => "no_activity_since",
            Self::OneActiveDay => "one_active_day",
            Self::ManyActiveDays => "many_active_days",
        }
    }
}

/// The facts behind the scores. Windows: purchases ten years, activity 400 days (see the customer record).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    /// Of the purchase models: repeat purchase days, weeks from the first to the last, weeks from the first to now.
    pub purchases: Option<PurchaseEvidence>,
    /// Days with activity.
    pub active_days: u32,
    /// First action in the window.
    pub first_activity: Option<Timestamp>,
    /// Last action.
    pub last_activity: Option<Timestamp>,
    /// Median days between neighbouring active days, when there are two or more.
    pub usual_activity_gap_days: Option<u32>,
}

/// Sufficient statistics of the purchase models, in the papers' names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PurchaseEvidence {
    /// Repeat purchase days.
    pub x: u32,
    /// Weeks from the first purchase day to the last.
    pub t_x_weeks: f64,
    /// Weeks from the first purchase day to now (T).
    pub age_weeks: f64,
    /// First purchase day.
    pub first: Day,
    /// Last purchase day.
    pub last: Day,
    /// Median days between neighbouring purchase days, when there are two or more.
    pub usual_gap_days: Option<u32>,
}

/// What the model says about the customer at `now`.
///
/// A `now` before the customer's last action counts as the instant of that action. All numbers are finite.
#[must_use]
pub fn assess(state: &CustomerState, model: &Model, now: Timestamp) -> Assessment {
    let part = state.combined();
    let scorer = Scorer::new(crate::Features::for_model(&part, model), model);
    let terms = scorer.attrition_terms(now);
    let attrition = terms.map(|terms| attrition(&terms));
    let evidence = evidence(&scorer, &part, now);
    let stage = stage(&scorer, &attrition, now);
    let reasons = attrition
        .as_ref()
        .map(|a| reasons::reasons(a, &evidence, now))
        .unwrap_or_default();
    let churn = |horizon_days: u16| Churn {
        horizon_days,
        outcome: scorer.churn_terms(horizon_days, now).map(|terms| ChurnScore {
            score: terms.total(),
            already_gone: terms.already_gone,
            still_customer: terms.still_customer,
            contributions: scorer.churn_contributions(horizon_days, now),
        }),
    };
    let p_alive = scorer.p_alive(&model.bg, now).zip(scorer.p_alive(&model.mbg, now));
    Assessment {
        as_of: now,
        model: model.version.clone(),
        churn: model.churn_horizons_days.iter().copied().map(churn).collect(),
        p_alive: p_alive.map(|(bg_nbd, mbg_nbd)| PAlive { bg_nbd, mbg_nbd }),
        attrition,
        stage,
        reasons,
        evidence,
    }
}

/// One score at `now`, without the explanation.
pub fn score_at(state: &CustomerState, model: &Model, kind: ScoreKind, now: Timestamp) -> Result<f64, NotScored> {
    Scorer::of(state, model).score(kind, now)
}

fn attrition(terms: &AttritionTerms) -> Attrition {
    let mut contributions = Vec::with_capacity(5);
    let mut add = |factor, log_odds| contributions.push(Contribution { factor, log_odds });
    if let Some(logit) = terms.purchases {
        add(Factor::PurchaseHistory, logit.history);
        add(Factor::PurchaseSilence, logit.silence);
    }
    if let Some(logit) = terms.engagement {
        add(Factor::EngagementHistory, logit.history);
        add(Factor::EngagementSilence, logit.silence);
    }
    add(Factor::PoolOffset, terms.offset);
    let logit = terms.logit();
    Attrition {
        score: sigmoid(logit),
        logit,
        contributions,
    }
}

fn stage(scorer: &Scorer<'_>, attrition: &Result<Attrition, NotScored>, now: Timestamp) -> Stage {
    let limits = &scorer.model().stages;
    let Some(purchases) = scorer.features().purchases else {
        return Stage::Prospect;
    };
    if now.day().days_since(purchases.first) < i32::from(limits.new_days) {
        return Stage::New;
    }
    match attrition.as_ref().map_or(0.0, |a| a.score) {
        score if score >= limits.lapsed => Stage::Lapsed,
        score if score >= limits.at_risk => Stage::AtRisk,
        score if score >= limits.slowing => Stage::Slowing,
        _ => Stage::Active,
    }
}

fn evidence(scorer: &Scorer<'_>, part: &crate::Part, now: Timestamp) -> Evidence {
    let features = scorer.features();
    let purchases = features.purchases.map(|p| {
        let recency = p.recency(now);
        PurchaseEvidence {
            x: p.x,
            t_x_weeks: recency.t_x,
            age_weeks: recency.age,
            first: p.first,
            last: p.last,
            usual_gap_days: median_gap(part.purchases().days().map(|(day, _)| day)),
        }
    });
    Evidence {
        purchases,
        active_days: features.engagement.map_or(0, |e| e.x.saturating_add(1)),
        first_activity: features.engagement.map(|e| e.first),
        last_activity: features.engagement.map(|e| e.last),
        usual_activity_gap_days: median_gap(part.calendar().days()),
    }
}

/// The (lower) median distance between neighbours of an ascending list of days; `None` for fewer than two.
fn median_gap(days: impl Iterator<Item = Day>) -> Option<u32> {
    let mut before = None;
    let mut gaps: Vec<u32> = days
        .filter_map(|day| {
            before
                .replace(day)
                .map(|earlier: Day| day.days_since(earlier).unsigned_abs())
        })
        .collect();
    gaps.sort_unstable();
    gaps.get(gaps.len().checked_sub(1)? / 2).copied()
}
