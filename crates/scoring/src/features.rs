//! What the models need to know about a customer, walked out of the record once, and the scores as functions of time.
//!
//! A [`Scorer`] answers "what is the score at `now`" in a few dozen nanoseconds without touching the calendar again; a
//! crossing search asks it many times. Attrition, and churn without a fitted churn model, are monotone: for a state that does
//! not change, they never fall as `now` advances. Purchases count whole UTC days, engagement counts milliseconds.

use crate::adjust::Incidents;
use crate::btyd::{Btyd, Curve, Logit, NoPurchase, Recency, logit, sigmoid};
use crate::churn::{Feature, Pace, Terms, is_mail, is_site, log_odds};
use crate::model::Model;
use crate::state::{CustomerState, Part, Refreshed};
use crate::uncertainty;
use crate::value::main_currency;
use std::collections::BTreeMap;
use vigie_event::{DAY_MS, Day, Signal, Timestamp};

const DAYS_PER_WEEK: f64 = 7.0;
pub(crate) const WEEK_MS: f64 = 7.0 * DAY_MS as f64;

/// Which score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScoreKind {
    /// Disengagement as of now: 1 − P(still a customer), from purchases and activity.
    Attrition,
    /// Probability of no purchase within so many days from now.
    Churn(u16),
}

/// Why there is no score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotScored {
    /// No act of the customer is on record.
    NoActivity,
    /// The customer has never bought.
    NeverPurchased,
}

impl NotScored {
    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoActivity => "no_activity",
            Self::NeverPurchased => "never_purchased",
        }
    }
}

/// Purchase days within their window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurchaseFeatures {
    /// First purchase day.
    pub first: Day,
    /// Last purchase day.
    pub last: Day,
    /// Repeat purchase days: distinct days − 1.
    pub x: u32,
}

impl PurchaseFeatures {
    /// x, t_x and T in weeks: whole UTC days / 7.
    #[must_use]
    pub fn recency(&self, now: Timestamp) -> Recency {
        let weeks = |day: Day| f64::from(day.days_since(self.first).max(0)) / DAYS_PER_WEEK;
        Recency {
            x: self.x,
            t_x: weeks(self.last),
            age: weeks(now.day().max(self.last)),
        }
    }
}

/// Active days within the calendar's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngagementFeatures {
    /// First action in the window (to the second).
    pub first: Timestamp,
    /// Last action (to the millisecond).
    pub last: Timestamp,
    /// Distinct active days − 1.
    pub x: u32,
}

impl EngagementFeatures {
    /// x, t_x and T in weeks, in continuous time.
    #[must_use]
    pub fn recency(&self, now: Timestamp) -> Recency {
        let weeks = |to: Timestamp| to.ms_since(self.first).max(0) as f64 / WEEK_MS;
        Recency {
            x: self.x,
            t_x: weeks(self.last),
            age: weeks(now.max(self.last)),
        }
    }
}

/// The sufficient statistics of every score.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Features {
    /// `None` when the customer has never bought.
    pub purchases: Option<PurchaseFeatures>,
    /// `None` when the customer has never acted.
    pub engagement: Option<EngagementFeatures>,
    /// What a fitted churn model needs beside; `None` when the customer has never bought (or no such model asked for it).
    pub pace: Option<Pace>,
    /// What the adjustments go by.
    pub incidents: Incidents,
}

impl Features {
    /// Reads a customer's record.
    #[must_use]
    pub fn of(state: &CustomerState) -> Self {
        let part = state.combined();
        Self {
            pace: pace(&part, Day(i32::MAX)),
            ..Self::without_pace(state, &part)
        }
    }

    /// Reads what a model needs of a record whose parts are given as one: the pace, which takes a walk over all days, only for a
    /// fitted churn model.
    pub(crate) fn for_model(state: &CustomerState, part: &Part, model: &Model) -> Self {
        let pace = model.churn.as_ref().and_then(|_| pace(part, Day(i32::MAX)));
        Self {
            pace,
            ..Self::without_pace(state, part)
        }
    }

    fn without_pace(state: &CustomerState, part: &Part) -> Self {
        let repeats = |days: usize| u32::try_from(days.saturating_sub(1)).unwrap_or(u32::MAX);
        let purchases = part.purchases().span().map(|(first, last, days)| PurchaseFeatures {
            first,
            last,
            x: repeats(days),
        });
        let calendar = part.calendar();
        let engagement = calendar
            .first_action()
            .zip(part.last_activity())
            .map(|(first, last)| EngagementFeatures {
                first,
                last,
                x: repeats(calendar.active_days()),
            });
        Self {
            purchases,
            engagement,
            pace: None,
            incidents: Incidents::of(state, part),
        }
    }
}

/// Purchase days with their spend in the currency in which the customer has spent most (of equals the first by its code),
/// and the days of site and mail activity, all before a day.
pub(crate) fn pace(part: &Part, before: Day) -> Option<Pace> {
    let main = main_currency(part);
    let unit = main.map_or(1.0, |currency| libm::pow(10.0, -f64::from(currency.exponent())));
    let amounts: BTreeMap<Day, i64> = part
        .purchases()
        .amounts()
        .filter(|(_, currency, _)| Some(*currency) == main)
        .map(|(day, _, minor)| (day, minor))
        .collect();
    let days = part
        .purchases()
        .days()
        .filter(|(day, _)| *day < before)
        .map(|(day, _)| (day, amounts.get(&day).map_or(0.0, |minor| *minor as f64 * unit)));
    let acted = |counts: fn(Signal) -> bool| {
        let mut met = None;
        part.calendar()
            .counts()
            .filter(move |(day, signal, _)| *day < before && counts(*signal))
            .filter_map(move |(day, _, _)| (met.replace(day) != Some(day)).then_some(day))
    };
    Pace::of(days).map(|pace| pace.with_engagement(acted(is_site), acted(is_mail)))
}

/// Attrition in log-odds as the terms that it is the sum of, in this order. Positive terms speak for attrition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttritionTerms {
    /// From purchases: what their history says, what the silence since says. `None` without a purchase.
    pub purchases: Option<Logit>,
    /// From activity: the same two. `None` without activity.
    pub engagement: Option<Logit>,
    /// The pool's offset.
    pub offset: f64,
    /// A complaint; see [`crate::Adjustments`].
    pub complaint: f64,
}

impl AttritionTerms {
    /// Log-odds of attrition.
    #[must_use]
    pub fn logit(&self) -> f64 {
        let part = |logit: Option<Logit>| logit.map_or(0.0, Logit::total);
        part(self.purchases) + part(self.engagement) + self.offset + self.complaint
    }
}

/// Churn in log-odds as the terms that it is the sum of, in this order. Positive terms speak for churn.
///
/// What the repeat-buying models say is cut at the last purchase: `history` is what they said right after it, `silence` how
/// much has changed since.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ChurnTerms {
    /// How often and how steadily the customer had bought.
    pub history: f64,
    /// That nothing has been bought since.
    pub silence: f64,
    /// Purchases of the last months. This and what follows is 0 without a fitted churn model.
    pub recent_purchases: f64,
    /// How much is spent.
    pub spend: f64,
    /// How regular the gaps are.
    pub regularity: f64,
    /// Visits to the site.
    pub site: f64,
    /// Opened and clicked e-mail.
    pub mail: f64,
    /// Season and drift, common to all customers.
    pub season: f64,
    /// A complaint; see [`crate::Adjustments`] for this and what follows.
    pub complaint: f64,
    /// A failed payment.
    pub payment: f64,
    /// Contacts without an answer.
    pub contacts: f64,
}

impl ChurnTerms {
    /// Log-odds of churn.
    #[must_use]
    pub fn logit(&self) -> f64 {
        self.history
            + self.silence
            + self.recent_purchases
            + self.spend
            + self.regularity
            + self.site
            + self.mail
            + self.season
            + self.adjustment()
    }

    fn adjustment(&self) -> f64 {
        self.complaint + self.payment + self.contacts
    }
}

/// One customer's scores under one model, as functions of time.
#[derive(Debug, Clone, Copy)]
pub struct Scorer<'a> {
    model: &'a Model,
    features: Features,
    purchases: Option<(PurchaseFeatures, Curve)>,
    engagement: Option<(EngagementFeatures, Curve)>,
    /// −weight / sum of weights of the parts that have data.
    purchase_share: f64,
    engagement_share: f64,
}

impl<'a> Scorer<'a> {
    /// Reads a customer's record once.
    #[must_use]
    pub fn of(state: &CustomerState, model: &'a Model) -> Self {
        Self::new(Features::for_model(state, &state.combined(), model), model)
    }

    /// From statistics that are at hand.
    #[must_use]
    pub fn new(features: Features, model: &'a Model) -> Self {
        let purchases = features.purchases.map(|p| {
            let at_last = p.recency(p.last.start());
            (p, model.mbg.curve(at_last.x, at_last.t_x))
        });
        let engagement = features.engagement.map(|e| {
            let at_last = e.recency(e.last);
            (e, model.engagement.curve(at_last.x, at_last.t_x))
        });
        let purchase_weight = purchases.map_or(0.0, |_| model.pool.purchase_weight);
        let engagement_weight = engagement.map_or(0.0, |_| model.pool.engagement_weight);
        let sum = purchase_weight + engagement_weight;
        // Without any weight there is no attrition; the shares are then never used.
        let share = |weight: f64| if sum > 0.0 { -weight / sum } else { 0.0 };
        Self {
            model,
            features,
            purchases,
            engagement,
            purchase_share: share(purchase_weight),
            engagement_share: share(engagement_weight),
        }
    }

    /// The statistics.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// Attrition's terms at `now`.
    pub fn attrition_terms(&self, now: Timestamp) -> Result<AttritionTerms, NotScored> {
        let scaled = |logit: Logit, share: f64| Logit {
            history: logit.history * share,
            silence: logit.silence * share,
        };
        let purchases = self
            .weighted_purchases()
            .map(|(p, curve)| scaled(curve.at(p.recency(now).silence()), self.purchase_share));
        let engagement = self
            .weighted_engagement()
            .map(|(e, curve)| scaled(curve.at(e.recency(now).silence()), self.engagement_share));
        if purchases.is_none() && engagement.is_none() {
            return Err(NotScored::NoActivity);
        }
        Ok(AttritionTerms {
            purchases,
            engagement,
            offset: self.model.pool.offset,
            complaint: self.model.adjustments.complaint(&self.features.incidents, now.day()),
        })
    }

    /// The adjustments of churn at `now`, the other terms 0.
    fn adjustments(&self, now: Day) -> ChurnTerms {
        let (by, incidents) = (&self.model.adjustments, &self.features.incidents);
        ChurnTerms {
            complaint: by.complaint(incidents, now),
            payment: by.payment(incidents),
            contacts: by.contacts(incidents),
            ..ChurnTerms::default()
        }
    }

    /// Churn within `days` from `now`, as its two terms. Under a fitted model and adjustments their sum is what these say, and
    /// the part that MBG/NBD takes to be gone already is shown as far as it fits in.
    pub fn churn_terms(&self, days: u16, now: Timestamp) -> Result<NoPurchase, NotScored> {
        let (purchases, _) = self.purchases.ok_or(NotScored::NeverPurchased)?;
        let plain = self
            .model
            .mbg
            .no_purchase(purchases.recency(now), f64::from(days) / DAYS_PER_WEEK);
        let fitted = self.model.churn.as_ref().zip(self.features.pace);
        let by = self.adjustments(now.day().max(purchases.last)).adjustment();
        if fitted.is_none() && by == 0.0 {
            return Ok(plain);
        }
        let churn = fitted.map_or_else(
            || plain.total(),
            |(model, pace)| model.churn(&pace, days, now.day().max(pace.last)),
        );
        let churn = adjusted(churn, by);
        let already_gone = plain.already_gone.min(churn);
        Ok(NoPurchase {
            already_gone,
            still_customer: churn - already_gone,
        })
    }

    /// The log-odds of a purchase within `days` from `now` by the fitted churn model, term by term and without adjustments;
    /// `None` without such a model or a purchase.
    #[must_use]
    pub fn churn_contributions(&self, days: u16, now: Timestamp) -> Option<Terms> {
        let (churn, pace) = self.model.churn.as_ref().zip(self.features.pace)?;
        Some(churn.terms(&pace, days, now.day().max(pace.last)))
    }

    /// Churn within `days` from `now`, term by term. Their sum is the log-odds of the score.
    pub fn churn_parts(&self, days: u16, now: Timestamp) -> Result<ChurnTerms, NotScored> {
        let (purchases, _) = self.purchases.ok_or(NotScored::NeverPurchased)?;
        let adjustments = self.adjustments(now.day().max(purchases.last));
        let (Some(churn), Some(pace)) = (self.model.churn.as_ref(), self.features.pace) else {
            let at = |now| log_odds(&self.model.mbg, purchases.recency(now), days);
            let (then, now) = (at(purchases.last.start()), at(now));
            return Ok(ChurnTerms {
                history: -then,
                silence: then - now,
                ..adjustments
            });
        };
        let terms = churn.terms(&pace, days, now.day().max(pace.last));
        let [second, recent, steady, last_spend, mean_spend, irregularity, site, mail] = terms.features;
        let second_then = churn
            .weight(Feature::SecondOpinion)
            .term(log_odds(&churn.bg, pace.recency(pace.last), days));
        let then = churn.base(&pace, days, pace.last) + second_then;
        Ok(ChurnTerms {
            history: -then,
            silence: then - (terms.base + second),
            recent_purchases: -(recent + steady),
            spend: -(last_spend + mean_spend),
            regularity: -irregularity,
            site: -site,
            mail: -mail,
            season: -terms.level,
            ..adjustments
        })
    }

    /// The 90 % interval of churn within `days` from `now`; it holds the score. See the module on uncertainty.
    pub fn churn_interval(&self, days: u16, now: Timestamp) -> Result<(f64, f64), NotScored> {
        let (purchases, _) = self.purchases.ok_or(NotScored::NeverPurchased)?;
        let variance = uncertainty::purchase(&self.model.mbg, purchases.recency(now), f64::from(days) / DAYS_PER_WEEK);
        Ok(uncertainty::interval(self.churn_parts(days, now)?.logit(), variance))
    }

    /// The 90 % interval of attrition; it holds the score.
    pub fn attrition_interval(&self, now: Timestamp) -> Result<(f64, f64), NotScored> {
        let logit = self.attrition_terms(now)?.logit();
        let purchases = self
            .weighted_purchases()
            .map_or(0.0, |(p, _)| uncertainty::gone(&self.model.mbg, p.recency(now)));
        let engagement = self
            .weighted_engagement()
            .map_or(0.0, |(e, _)| uncertainty::gone(&self.model.engagement, e.recency(now)));
        let shares = (
            self.purchase_share * self.purchase_share,
            self.engagement_share * self.engagement_share,
        );
        Ok(uncertainty::interval(
            logit,
            shares.0 * purchases + shares.1 * engagement,
        ))
    }

    /// Under a fitted churn model: the first instant in `from..=until` at which churn is at or below `low` or at or above
    /// `high`. The outer `None`: there is no such model, or no purchase.
    pub(crate) fn churn_leaves(
        &self,
        days: u16,
        range: (f64, f64),
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Option<Timestamp>> {
        let (churn, pace) = self.model.churn.as_ref().zip(self.features.pace)?;
        // Before the last purchase the score stands still.
        let day = |at: Timestamp| at.day().max(pace.last);
        let by = |day: Day| self.adjustments(day).adjustment();
        let found = churn.first_day_outside((&pace, &by), days, range, day(from), day(until));
        Some(found.map(|found| if found == day(from) { from } else { found.start() }))
    }

    /// The score at `now`, in [0, 1]; monotone in `now`.
    pub fn score(&self, kind: ScoreKind, now: Timestamp) -> Result<f64, NotScored> {
        match kind {
            ScoreKind::Attrition => self.attrition_terms(now).map(|terms| sigmoid(terms.logit())),
            ScoreKind::Churn(days) => self.churn_terms(days, now).map(NoPurchase::total),
        }
    }

    /// The scores that are watched for drift, as the record keeps them.
    #[must_use]
    pub fn refreshed(&self, now: Timestamp) -> Refreshed {
        let ppm = |score: Result<f64, NotScored>| score.ok().map(|p| (p * 1e6).round() as u32);
        Refreshed {
            at: now,
            attrition_ppm: ppm(self.score(ScoreKind::Attrition, now)),
            churn_ppm: ppm(self.score(ScoreKind::Churn(self.model.default_horizon_days), now)),
            model: self.model.fingerprint,
        }
    }

    /// P(alive) on purchase days under a model of the family; `None` without a purchase.
    pub(crate) fn p_alive(&self, btyd: &Btyd, now: Timestamp) -> Option<f64> {
        self.features.purchases.map(|p| btyd.p_alive(p.recency(now)))
    }

    /// The closed form behind the bracket of a crossing: the first instant (to rounding) at which engagement's silence
    /// brings attrition's log-odds to `logit`, with purchases taken as they stand at `now`.
    pub(crate) fn engagement_crossing(&self, logit: f64, now: Timestamp) -> Option<Timestamp> {
        let (engagement, curve) = self.weighted_engagement()?;
        let rest = self.attrition_terms(now).ok().map(|terms| {
            AttritionTerms {
                engagement: None,
                ..terms
            }
            .logit()
        })?;
        let weeks = curve.silence_to((logit - rest) / self.engagement_share);
        let ms = weeks * WEEK_MS;
        (ms < 1e17).then(|| engagement.last.plus_ms(ms as i64))
    }

    fn weighted_purchases(&self) -> Option<(PurchaseFeatures, Curve)> {
        self.purchases.filter(|_| self.purchase_share != 0.0)
    }

    fn weighted_engagement(&self) -> Option<(EngagementFeatures, Curve)> {
        self.engagement.filter(|_| self.engagement_share != 0.0)
    }
}

/// A probability moved by log-odds; untouched, to the bit, by none.
pub(crate) fn adjusted(p: f64, by: f64) -> f64 {
    if by == 0.0 { p } else { sigmoid(logit(p) + by) }
}
