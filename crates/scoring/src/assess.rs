//! What the models say about a customer at one instant, with everything that the answer rests on.
//!
//! Attrition (disengagement as of now) and churn (no purchase within a horizon from now) are two scores and are never
//! mixed. The contributions of either are in log-odds and add up exactly to the score's log-odds; of churn, the two ways to
//! it add up to the score as well. Contributions describe the model, not a cause. This file never decides what to do about a customer.

use crate::adjust::Incidents;
use crate::btyd::sigmoid;
use crate::churn::{is_mail, is_site};
use crate::features::{AttritionTerms, ChurnTerms, NotScored, ScoreKind, Scorer};
use crate::model::Model;
use crate::reasons::{self, Lang};
use crate::state::CustomerState;
use crate::value::{Value, main_currency, value};
use vigie_event::{Currency, Day, Timestamp};

/// Days that count as recent in sentences.
const RECENT_DAYS: i32 = 90;

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
    /// The same for churn over the model's default horizon.
    pub churn_reasons: Vec<Reason>,
    /// The facts behind the scores.
    pub evidence: Evidence,
    /// What the customer is worth; `None` for those who never bought for money.
    pub value: Option<Value>,
}

/// Attrition and what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Attrition {
    /// Probability in [0, 1].
    pub score: f64,
    /// 90 % interval; see [`Scorer::attrition_interval`].
    pub interval: (f64, f64),
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

/// What contributes to a score.
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
    /// Purchases of the last months.
    RecentPurchases,
    /// How much is spent.
    Spend,
    /// How regular the gaps between purchases are.
    Regularity,
    /// Visits to the site.
    Site,
    /// Opened and clicked e-mail.
    Mail,
    /// Season and drift, common to all customers.
    Season,
    /// A complaint and its answer.
    Complaint,
    /// A failed payment.
    Payment,
    /// Contacts without an answer.
    Contacts,
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
            Self::RecentPurchases => "recent_purchases",
            Self::Spend => "spend",
            Self::Regularity => "regularity",
            Self::Site => "site",
            Self::Mail => "mail",
            Self::Season => "season",
            Self::Complaint => "complaint",
            Self::Payment => "payment",
            Self::Contacts => "contacts",
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
    /// 90 % interval; see [`Scorer::churn_interval`].
    pub interval: (f64, f64),
    /// The log-odds of the score, term by term.
    pub terms: ChurnTerms,
}

impl ChurnScore {
    /// The terms that are not 0; they add up to the score's log-odds. Positive speaks for churn.
    #[must_use]
    pub fn contributions(&self) -> Vec<Contribution> {
        let t = &self.terms;
        [
            (Factor::PurchaseHistory, t.history),
            (Factor::PurchaseSilence, t.silence),
            (Factor::RecentPurchases, t.recent_purchases),
            (Factor::Spend, t.spend),
            (Factor::Regularity, t.regularity),
            (Factor::Site, t.site),
            (Factor::Mail, t.mail),
            (Factor::Season, t.season),
            (Factor::Complaint, t.complaint),
            (Factor::Payment, t.payment),
            (Factor::Contacts, t.contacts),
        ]
        .into_iter()
        .filter(|(_, log_odds)| *log_odds != 0.0)
        .map(|(factor, log_odds)| Contribution { factor, log_odds })
        .collect()
    }
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
    /// The sentence, in the language that was asked for.
    pub text: String,
    /// Ids of the events that it rests on, the newest of their kind; empty where it is about no event of this customer, or
    /// about one that was folded before records kept ids.
    pub events: Vec<String>,
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
    /// On how many of the last 90 days something was bought.
    RecentPurchases,
    /// How much the last purchase day brought.
    LastSpend,
    /// The usual gap between purchases.
    UsualGap,
    /// The last visit to the site.
    LastVisit,
    /// The last opened or clicked e-mail.
    LastMail,
    /// Customers buy more or less at this time of the year.
    Season,
    /// A complaint waits for its answer.
    ComplaintOpen,
    /// A complaint was answered in time.
    ComplaintAnswered,
    /// The customer said that they are satisfied again.
    Resatisfied,
    /// A payment failed.
    PaymentFailed,
    /// Contacts without an answer.
    ContactsUnanswered,
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
            Self::RecentPurchases => "recent_purchases",
            Self::LastSpend => "last_spend",
            Self::UsualGap => "usual_gap",
            Self::LastVisit => "last_visit",
            Self::LastMail => "last_mail",
            Self::Season => "season",
            Self::ComplaintOpen => "complaint_open",
            Self::ComplaintAnswered => "complaint_answered",
            Self::Resatisfied => "resatisfied",
            Self::PaymentFailed => "payment_failed",
            Self::ContactsUnanswered => "contacts_unanswered",
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
    /// The last day on the site.
    pub last_visit: Option<Day>,
    /// The last day with an opened or clicked e-mail.
    pub last_mail: Option<Day>,
    /// What the adjustments go by.
    pub incidents: Incidents,
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
    /// Purchase days among the 90 up to now.
    pub last_90_days: u32,
    /// What the last purchase day brought, in minor units of the currency in which most was spent.
    pub last_spend: Option<(i64, Currency)>,
}

/// What the model says about the customer at `now`, in English.
///
/// A `now` before the customer's last action counts as the instant of that action. All numbers are finite.
#[must_use]
pub fn assess(state: &CustomerState, model: &Model, now: Timestamp) -> Assessment {
    assess_in(state, model, now, Lang::En)
}

/// [`assess`] with its sentences in a language.
#[must_use]
pub fn assess_in(state: &CustomerState, model: &Model, now: Timestamp, lang: Lang) -> Assessment {
    let part = state.combined();
    let scorer = Scorer::new(crate::Features::for_model(state, &part, model), model);
    let attrition = scorer.attrition_terms(now).and_then(|terms| {
        let interval = scorer.attrition_interval(now)?;
        Ok(attrition(&terms, interval))
    });
    let evidence = evidence(&scorer, &part, now);
    let stage = stage(&scorer, attrition.as_ref().map_or(0.0, |a| a.score), now);
    let told = |score: f64, contributions: &[Contribution]| {
        let horizon_days = model.default_horizon_days;
        reasons::reasons(score, contributions, (&evidence, &part), horizon_days, now, lang)
    };
    let reasons = attrition
        .as_ref()
        .map(|a| told(a.score, &a.contributions))
        .unwrap_or_default();
    let churn = |horizon_days: u16| Churn {
        horizon_days,
        outcome: scorer.churn_terms(horizon_days, now).and_then(|ways| {
            Ok(ChurnScore {
                score: ways.total(),
                already_gone: ways.already_gone,
                still_customer: ways.still_customer,
                interval: scorer.churn_interval(horizon_days, now)?,
                terms: scorer.churn_parts(horizon_days, now)?,
            })
        }),
    };
    let churn: Vec<Churn> = model.churn_horizons_days.iter().copied().map(churn).collect();
    let watched = churn
        .iter()
        .find(|churn| churn.horizon_days == model.default_horizon_days);
    let churn_reasons = watched
        .and_then(|churn| churn.outcome.ok())
        .map(|churn| told(churn.score, &churn.contributions()))
        .unwrap_or_default();
    let p_alive = scorer.p_alive(&model.bg, now).zip(scorer.p_alive(&model.mbg, now));
    Assessment {
        as_of: now,
        model: model.version.clone(),
        churn,
        p_alive: p_alive.map(|(bg_nbd, mbg_nbd)| PAlive { bg_nbd, mbg_nbd }),
        attrition,
        stage,
        reasons,
        churn_reasons,
        evidence,
        value: value(&scorer, &part, now),
    }
}

/// One score at `now`, without the explanation.
pub fn score_at(state: &CustomerState, model: &Model, kind: ScoreKind, now: Timestamp) -> Result<f64, NotScored> {
    Scorer::of(state, model).score(kind, now)
}

fn attrition(terms: &AttritionTerms, interval: (f64, f64)) -> Attrition {
    let mut contributions = Vec::with_capacity(6);
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
    if terms.complaint != 0.0 {
        add(Factor::Complaint, terms.complaint);
    }
    let logit = terms.logit();
    Attrition {
        score: sigmoid(logit),
        interval,
        logit,
        contributions,
    }
}

/// [`assess`] in three numbers, without what explains them: for those who look at everybody.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Glance {
    /// Attrition; `None` where there is nothing to judge by.
    pub attrition: Option<f64>,
    /// Place in the life cycle.
    pub stage: Stage,
    /// Money; `None` for those who never bought for any.
    pub value: Option<Value>,
    /// Days with a sign of life, in the window of 400 days.
    pub active_days: u32,
}

/// See [`Glance`].
#[must_use]
pub fn glance(state: &CustomerState, model: &Model, now: Timestamp) -> Glance {
    let part = state.combined();
    let scorer = Scorer::new(crate::Features::for_model(state, &part, model), model);
    let attrition = scorer.score(ScoreKind::Attrition, now).ok();
    Glance {
        attrition,
        stage: stage(&scorer, attrition.unwrap_or(0.0), now),
        value: value(&scorer, &part, now),
        active_days: scorer.features().engagement.map_or(0, |acts| acts.x.saturating_add(1)),
    }
}

fn stage(scorer: &Scorer<'_>, attrition: f64, now: Timestamp) -> Stage {
    let limits = &scorer.model().stages;
    let Some(purchases) = scorer.features().purchases else {
        return Stage::Prospect;
    };
    if now.day().days_since(purchases.first) < i32::from(limits.new_days) {
        return Stage::New;
    }
    match attrition {
        score if score >= limits.lapsed => Stage::Lapsed,
        score if score >= limits.at_risk => Stage::AtRisk,
        score if score >= limits.slowing => Stage::Slowing,
        _ => Stage::Active,
    }
}

fn evidence(scorer: &Scorer<'_>, part: &crate::Part, now: Timestamp) -> Evidence {
    let features = scorer.features();
    let main = main_currency(part);
    let purchases = features.purchases.map(|p| {
        let recency = p.recency(now);
        let lately = |(day, _): &(Day, u32)| now.day().days_since(*day) < RECENT_DAYS;
        let mut amounts = part.purchases().amounts().rev();
        let last_spend = amounts.find(|(day, currency, _)| *day == p.last && Some(*currency) == main);
        PurchaseEvidence {
            x: p.x,
            t_x_weeks: recency.t_x,
            age_weeks: recency.age,
            first: p.first,
            last: p.last,
            usual_gap_days: median_gap(part.purchases().days().map(|(day, _)| day)),
            last_90_days: u32::try_from(part.purchases().days().rev().take_while(lately).count()).unwrap_or(u32::MAX),
            last_spend: last_spend.map(|(_, currency, minor)| (minor, currency)),
        }
    });
    let last = |counts: fn(vigie_event::Signal) -> bool| {
        let days = part.calendar().counts().filter(|(_, signal, _)| counts(*signal));
        days.map(|(day, _, _)| day).max()
    };
    Evidence {
        purchases,
        active_days: features.engagement.map_or(0, |e| e.x.saturating_add(1)),
        first_activity: features.engagement.map(|e| e.first),
        last_activity: features.engagement.map(|e| e.last),
        usual_activity_gap_days: median_gap(part.calendar().days()),
        last_visit: last(is_site),
        last_mail: last(is_mail),
        incidents: features.incidents,
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
