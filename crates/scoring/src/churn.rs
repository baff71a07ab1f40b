//! Churn over a horizon, the default model: the odds of a purchase that BTYD gives, corrected by what it cannot see.
//!
//! log-odds of a purchase within H days = log-odds by MBG/NBD
//!                                       + Σ weight·(feature − mean) / scale  (shrunk to 0, that is to plain BTYD)
//!                                       + level(the middle of the horizon)    (season and drift, shrunk to 0)
//!
//! The sum is exactly additive, closed in H, and monotone in H as BTYD is. The features are the second opinion of BG/NBD,
//! decayed purchase counts, the regularity of the customer's own gaps, spend, and what they do on the site and in their
//! mail. A model without labels has no weights and an empty level: it *is* MBG/NBD, which is the cold start. Boosted trees
//! over the same features can stand in the place of the weights ([`Correction`]).
//!
//! The level depends on the calendar alone, is constant within a week, and may rise or fall: that is how a season is. So
//! churn is monotone in silence only up to it and to the fading of the decayed counts; see the crossing search.
//!
//! It never fits anything and never reads a clock. Money is in major units of one currency.

use crate::btyd::{Btyd, Recency, logit, sigmoid};
use crate::correction::Correction;
use crate::features::adjusted;
use libm::{exp, exp2, expm1, log, log1p, sqrt};
use vigie_event::{Channel, Day, Signal};

/// Number of features.
pub const FEATURES: usize = 8;
/// The population's cadence counts as much as so many gaps of the customer's own.
const CADENCE_MEAN_WEIGHT: f64 = 2.0;
const CADENCE_VARIANCE_WEIGHT: f64 = 4.0;
/// Bound of every log-odds, so that a probability never rounds to 0 or 1.
const MAX_LOG_ODDS: f64 = 30.0;
/// Bound of a standardised feature: beyond it nothing has been learned.
const MAX_STANDARD: f64 = 6.0;

/// What speaks for or against a purchase, beside MBG/NBD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Log-odds of a purchase by BG/NBD.
    SecondOpinion,
    /// Square root of the purchase days, decayed with a half-life of 30 days.
    RecentPurchases,
    /// The same with a half-life of 90 days.
    Purchases,
    /// ln(1 + spend of the last purchase day).
    LastSpend,
    /// ln(1 + mean spend of a purchase day).
    MeanSpend,
    /// Standard deviation of the logarithms of the customer's own gaps, shrunk to the population's.
    Irregularity,
    /// Square root of the days with activity on the site, decayed with a half-life of 30 days.
    Site,
    /// Square root of the days with opened or clicked e-mail, decayed with a half-life of 30 days.
    Mail,
}

impl Feature {
    /// Every feature, in the order of [`Terms::features`].
    pub const ALL: [Self; FEATURES] = [
        Self::SecondOpinion,
        Self::RecentPurchases,
        Self::Purchases,
        Self::LastSpend,
        Self::MeanSpend,
        Self::Irregularity,
        Self::Site,
        Self::Mail,
    ];

    /// The stable name, which the model file uses.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::SecondOpinion => "second-opinion",
            Self::RecentPurchases => "recent-purchases",
            Self::Purchases => "purchases",
            Self::LastSpend => "last-spend",
            Self::MeanSpend => "mean-spend",
            Self::Irregularity => "irregularity",
            Self::Site => "site",
            Self::Mail => "mail",
        }
    }

    /// Whether it falls in silence; the others stay as they are.
    #[must_use]
    pub const fn fades(self) -> bool {
        match self {
            Self::SecondOpinion | Self::RecentPurchases | Self::Purchases | Self::Site | Self::Mail => true,
            Self::LastSpend | Self::MeanSpend | Self::Irregularity => false,
        }
    }
}

/// Half-lives of [`Feature::RecentPurchases`] and [`Feature::Purchases`] in days.
const HALF_LIVES: [f64; 2] = [30.0, 90.0];
/// Half-life of site and mail engagement in days.
const ENGAGEMENT_HALF_LIFE: f64 = 30.0;

/// A sum of 2^−(age / half-life), as of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Decayed {
    /// The day that the sum holds for.
    pub at: Day,
    /// The sum.
    pub sum: f64,
}

impl Decayed {
    /// Adds one day; days come in ascending order.
    pub fn add(&mut self, day: Day, half_life: f64) {
        self.sum = self.on(day, half_life) + 1.0;
        self.at = day;
    }

    /// The sum as of `day`, which is not before [`Self::at`].
    #[must_use]
    pub fn on(self, day: Day, half_life: f64) -> f64 {
        self.sum * exp2(-f64::from(day.days_since(self.at).max(0)) / half_life)
    }
}

/// What the model needs to know about one customer: constant under silence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// First purchase day.
    pub first: Day,
    /// Last purchase day.
    pub last: Day,
    /// Repeat purchase days.
    pub x: u32,
    /// Decayed purchase days, one for each half-life.
    pub purchases: [Decayed; 2],
    /// Sum of ln(gap in days) over the gaps between purchase days, and of its squares.
    pub ln_gaps: (f64, f64),
    /// Spend of the last purchase day, ≥ 0.
    pub last_spend: f64,
    /// Spend of all purchase days, ≥ 0.
    pub total_spend: f64,
    /// Decayed days with site activity.
    pub site: Decayed,
    /// Decayed days with mail activity.
    pub mail: Decayed,
}

impl Pace {
    /// From the purchase days in ascending order, each with its spend; `None` without any.
    pub fn of(days: impl IntoIterator<Item = (Day, f64)>) -> Option<Self> {
        let mut days = days.into_iter();
        let (first, spend) = days.next()?;
        let mut pace = Self {
            first,
            last: first,
            x: 0,
            purchases: [Decayed { at: first, sum: 1.0 }; 2],
            ln_gaps: (0.0, 0.0),
            last_spend: spend.max(0.0),
            total_spend: spend.max(0.0),
            site: Decayed::default(),
            mail: Decayed::default(),
        };
        for (day, spend) in days {
            pace.push(day, spend);
        }
        Some(pace)
    }

    /// Adds a later purchase day.
    pub fn push(&mut self, day: Day, spend: f64) {
        let ln_gap = log(f64::from(day.days_since(self.last).max(1)));
        self.ln_gaps.0 += ln_gap;
        self.ln_gaps.1 += ln_gap * ln_gap;
        for (decayed, half_life) in self.purchases.iter_mut().zip(HALF_LIVES) {
            decayed.add(day, half_life);
        }
        self.x = self.x.saturating_add(1);
        self.last = day;
        self.last_spend = spend.max(0.0);
        self.total_spend += spend.max(0.0);
    }

    /// Takes in the days with activity on the site and in the mail, each ascending.
    #[must_use]
    pub fn with_engagement(mut self, site: impl IntoIterator<Item = Day>, mail: impl IntoIterator<Item = Day>) -> Self {
        site.into_iter()
            .for_each(|day| self.site.add(day, ENGAGEMENT_HALF_LIFE));
        mail.into_iter()
            .for_each(|day| self.mail.add(day, ENGAGEMENT_HALF_LIFE));
        self
    }

    /// x, t_x and T in weeks.
    #[must_use]
    pub fn recency(&self, now: Day) -> Recency {
        let weeks = |day: Day| f64::from(day.days_since(self.first).max(0)) / 7.0;
        Recency {
            x: self.x,
            t_x: weeks(self.last),
            age: weeks(now.max(self.last)),
        }
    }
}

/// Whether an act counts as [`Feature::Site`]: on the web or in the application, purchases aside.
#[must_use]
pub fn is_site(signal: Signal) -> bool {
    matches!(signal.default_channel(), Channel::Web | Channel::App) && signal != Signal::Purchase
}

/// Whether an act counts as [`Feature::Mail`]. Machine opens never reach the calendar.
#[must_use]
pub fn is_mail(signal: Signal) -> bool {
    matches!(signal, Signal::EmailOpen | Signal::EmailClick)
}

/// Mean and variance of ln(gap in days) over the population: what the gaps of a customer are shrunk to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cadence {
    /// Mean of ln(gap).
    pub mean: f64,
    /// Variance of ln(gap), > 0.
    pub variance: f64,
}

impl Default for Cadence {
    /// A gap of a month, give or take a factor of e.
    fn default() -> Self {
        Self {
            mean: 3.4,
            variance: 1.0,
        }
    }
}

impl Cadence {
    /// The standard deviation of ln(gap) of one customer.
    fn deviation(self, pace: &Pace) -> f64 {
        let n = f64::from(pace.x);
        let (sum, squares) = pace.ln_gaps;
        let mean = (sum + CADENCE_MEAN_WEIGHT * self.mean) / (n + CADENCE_MEAN_WEIGHT);
        let around = (squares - 2.0 * mean * sum + n * mean * mean).max(0.0);
        sqrt((around + CADENCE_VARIANCE_WEIGHT * self.variance) / (n + CADENCE_VARIANCE_WEIGHT))
    }
}

/// How one feature is standardised and weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    /// Log-odds per standard deviation.
    pub weight: f64,
    /// The population's mean.
    pub mean: f64,
    /// The population's standard deviation, > 0.
    pub scale: f64,
}

impl Default for Weight {
    fn default() -> Self {
        Self {
            weight: 0.0,
            mean: 0.0,
            scale: 1.0,
        }
    }
}

impl Weight {
    /// The feature's contribution in log-odds.
    #[must_use]
    pub fn term(self, feature: f64) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        self.weight * ((feature - self.mean) / self.scale).clamp(-MAX_STANDARD, MAX_STANDARD)
    }
}

/// Season and drift: log-odds common to all customers, by the week in which the middle of the horizon lies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Level {
    /// First day of the first week.
    pub from: Day,
    /// Log-odds week by week; the first and the last hold before and after. Empty: 0.
    pub weekly: Vec<f64>,
}

impl Level {
    /// The level on a day.
    #[must_use]
    pub fn on(&self, day: Day) -> f64 {
        let week = usize::try_from(day.days_since(self.from).max(0) / 7).unwrap_or_default();
        self.weekly.get(week).or(self.weekly.last()).copied().unwrap_or(0.0)
    }

    /// The smallest and the largest level from one day to another.
    #[must_use]
    pub fn between(&self, first: Day, last: Day) -> (f64, f64) {
        let week = |day: Day| usize::try_from(day.days_since(self.from).max(0) / 7).unwrap_or_default();
        let (a, b) = (self.on(first), self.on(last));
        let inner = self.weekly.iter().take(week(last).saturating_add(1)).skip(week(first));
        inner.fold((a.min(b), a.max(b)), |(low, high), level| {
            (low.min(*level), high.max(*level))
        })
    }
}

/// The fitted model.
#[derive(Debug, Clone, PartialEq)]
pub struct ChurnModel {
    /// BG/NBD, the second opinion.
    pub bg: Btyd,
    /// MBG/NBD, the base.
    pub mbg: Btyd,
    /// What gaps are shrunk to.
    pub cadence: Cadence,
    /// One weight for each of [`Feature::ALL`].
    pub weights: [Weight; FEATURES],
    /// Season and drift.
    pub level: Level,
    /// Trees in place of the weights, where they were fitted.
    pub correction: Option<Correction>,
}

/// The log-odds of a purchase within the horizon as the terms that they are the sum of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// By MBG/NBD, and the mean of the trees, if any.
    pub base: f64,
    /// By each of [`Feature::ALL`].
    pub features: [f64; FEATURES],
    /// Season and drift.
    pub level: f64,
}

impl Terms {
    /// Log-odds of a purchase: the sum.
    #[must_use]
    pub fn log_odds(&self) -> f64 {
        self.base + self.features.iter().sum::<f64>() + self.level
    }

    /// P(no purchase within the horizon), strictly between 0 and 1.
    #[must_use]
    pub fn churn(&self) -> f64 {
        sigmoid(-self.log_odds().clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS))
    }
}

impl ChurnModel {
    /// The cold start: plain MBG/NBD.
    #[must_use]
    pub fn cold(bg: Btyd, mbg: Btyd) -> Self {
        Self {
            bg,
            mbg,
            cadence: Cadence::default(),
            weights: [Weight::default(); FEATURES],
            level: Level::default(),
            correction: None,
        }
    }

    /// The weight of a feature.
    #[must_use]
    pub fn weight(&self, feature: Feature) -> Weight {
        let mut pairs = Feature::ALL.iter().zip(&self.weights);
        pairs
            .find(|(of, _)| **of == feature)
            .map(|(_, weight)| *weight)
            .unwrap_or_default()
    }

    /// The features of a customer on a day, before they are weighed, in the order of [`Feature::ALL`].
    #[must_use]
    pub fn features(&self, pace: &Pace, horizon_days: u16, now: Day) -> [f64; FEATURES] {
        let [recent, steady] = pace.purchases;
        let [short, long] = HALF_LIVES;
        let n = f64::from(pace.x) + 1.0;
        [
            log_odds(&self.bg, pace.recency(now), horizon_days),
            sqrt(recent.on(now, short)),
            sqrt(steady.on(now, long)),
            log1p(pace.last_spend),
            log1p(pace.total_spend / n),
            self.cadence.deviation(pace),
            sqrt(pace.site.on(now, ENGAGEMENT_HALF_LIFE)),
            sqrt(pace.mail.on(now, ENGAGEMENT_HALF_LIFE)),
        ]
    }

    /// The log-odds of a purchase within the `horizon_days` from the start of `now`, term by term.
    #[must_use]
    pub fn terms(&self, pace: &Pace, horizon_days: u16, now: Day) -> Terms {
        let mut features = self.features(pace, horizon_days, now);
        let by_trees = self.correction.as_ref().map(|trees| trees.contributions(&features));
        features
            .iter_mut()
            .zip(&self.weights)
            .for_each(|(feature, weight)| *feature = weight.term(*feature));
        if let Some(by_trees) = by_trees {
            features.iter_mut().zip(by_trees).for_each(|(term, phi)| *term += phi);
        }
        Terms {
            base: self.base(pace, horizon_days, now),
            features,
            level: self.level.on(middle(now, horizon_days)),
        }
    }

    /// P(no purchase within the `horizon_days` from the start of `now`), strictly between 0 and 1.
    #[must_use]
    pub fn churn(&self, pace: &Pace, horizon_days: u16, now: Day) -> f64 {
        sigmoid(
            -self
                .log_odds(pace, horizon_days, now)
                .clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS),
        )
    }

    /// The log-odds of [`Self::terms`], without working out how much of what the trees say is due to which feature.
    #[must_use]
    pub fn log_odds(&self, pace: &Pace, horizon_days: u16, now: Day) -> f64 {
        let Some(trees) = &self.correction else {
            return self.terms(pace, horizon_days, now).log_odds();
        };
        let features = self.features(pace, horizon_days, now);
        let weighed = features
            .iter()
            .zip(&self.weights)
            .map(|(feature, weight)| weight.term(*feature));
        let level = self.level.on(middle(now, horizon_days));
        let base = log_odds(&self.mbg, pace.recency(now), horizon_days);
        base + weighed.sum::<f64>() + trees.log_odds(&features) + level
    }

    /// The first day in `from..=until` on which churn is at or above `high` or at or below `low`, provided that nothing more
    /// is bought or done. `by` is what is added to the log-odds of churn on a day from without; it must not fall with the days.
    ///
    /// Every term but the level is monotone in silence, rising or falling by the sign of its weight, and so is every feature
    /// that trees read, so that the values at both ends of a stretch bound the sum on it: stretches that cannot hold the day are skipped whole, the others halved.
    /// The answer is exact; a search of ten years takes some dozens of evaluations.
    #[must_use]
    pub fn first_day_outside(
        &self,
        (pace, by): (&Pace, &dyn Fn(Day) -> f64),
        horizon_days: u16,
        (low, high): (f64, f64),
        from: Day,
        until: Day,
    ) -> Option<Day> {
        let outside = |day: Day| {
            let churn = adjusted(self.churn(pace, horizon_days, day), by(day));
            churn >= high || churn <= low
        };
        // Log-odds of a purchase fall where churn rises. The margin keeps rounding from hiding a day.
        let bounds = (bound(1.0 - high) + 1e-9, bound(1.0 - low) - 1e-9);
        let mut stretches = vec![(from, until)];
        while let Some((first, last)) = stretches.pop() {
            if first > last {
                continue;
            }
            if first == last {
                if outside(first) {
                    return Some(first);
                }
                continue;
            }
            let (least, most) = self.bounds(pace, horizon_days, first, last);
            let (least, most) = (least - by(last), most - by(first));
            if least > bounds.0 && most < bounds.1 {
                continue;
            }
            let middle = Day(first.0.midpoint(last.0));
            stretches.push((Day(middle.0 + 1), last));
            stretches.push((first, middle));
        }
        None
    }

    /// Bounds of the log-odds between two days.
    fn bounds(&self, pace: &Pace, horizon_days: u16, first: Day, last: Day) -> (f64, f64) {
        let at = |day: Day| {
            let base = log_odds(&self.mbg, pace.recency(day), horizon_days);
            (base, self.features(pace, horizon_days, day))
        };
        let (a, b) = (at(first), at(last));
        let mut bounds = self
            .level
            .between(middle(first, horizon_days), middle(last, horizon_days));
        let mut add = |a: f64, b: f64| bounds = (bounds.0 + a.min(b), bounds.1 + a.max(b));
        for ((a, b), weight) in a.1.iter().zip(&b.1).zip(&self.weights) {
            add(weight.term(*a), weight.term(*b));
        }
        add(a.0, b.0);
        if let Some(trees) = &self.correction {
            let (low, high) = trees.bounds(&a.1, &b.1);
            add(low, high);
        }
        bounds
    }

    /// The log-odds by MBG/NBD, and the mean of the trees, if any.
    #[must_use]
    pub fn base(&self, pace: &Pace, horizon_days: u16, now: Day) -> f64 {
        let trees = self.correction.as_ref().map_or(0.0, Correction::mean);
        log_odds(&self.mbg, pace.recency(now), horizon_days) + trees
    }
}

/// The day whose level a horizon has.
fn middle(now: Day, horizon_days: u16) -> Day {
    Day(now.0.saturating_add(i32::from(horizon_days) / 2))
}

/// Log-odds of a probability that may lie outside (0, 1), where nothing is reached.
fn bound(p: f64) -> f64 {
    if p <= 0.0 {
        f64::NEG_INFINITY
    } else if p >= 1.0 {
        f64::INFINITY
    } else {
        logit(p)
    }
}

/// ln(P(purchase) / P(none)) within a horizon by a BTYD model, from positive terms only.
pub(crate) fn log_odds(btyd: &Btyd, recency: Recency, horizon_days: u16) -> f64 {
    let alive = btyd.logit_alive(recency).total();
    let age = recency.t_x + recency.silence();
    let shape = btyd.r + f64::from(recency.x);
    let ln_none_alive = -shape * log1p(f64::from(horizon_days) / 7.0 / (btyd.alpha + age));
    // Odds of a purchase given alive, (1 − q) / q, less what the dead add to the other side.
    let some = -expm1(ln_none_alive);
    let dead_over_alive = exp((-alive).min(700.0));
    let odds = log(some) - log(exp(ln_none_alive) + dead_over_alive);
    if odds.is_finite() {
        odds.clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)
    } else {
        MAX_LOG_ODDS.copysign(logit(0.5) + alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btyd::Family;

    fn btyd(family: Family) -> Btyd {
        Btyd {
            family,
            r: 0.5,
            alpha: 6.0,
            a: 0.8,
            b: 2.0,
        }
    }

    fn cold() -> ChurnModel {
        ChurnModel::cold(btyd(Family::Bg), btyd(Family::Mbg))
    }

    #[test]
    fn the_cold_start_is_mbg_nbd() {
        let pace = Pace::of([(Day(0), 10.0), (Day(20), 5.0), (Day(90), 30.0)]).unwrap();
        for (horizon, now) in [(1, 90), (30, 100), (90, 400), (365, 4000)] {
            let terms = cold().terms(&pace, horizon, Day(now));
            let exact = btyd(Family::Mbg).p_no_purchase(pace.recency(Day(now)), f64::from(horizon) / 7.0);
            assert!(
                (terms.churn() - exact).abs() < 1e-12,
                "{horizon} {now}: {} != {exact}",
                terms.churn()
            );
        }
    }

    #[test]
    fn decayed_counts_do_not_depend_on_where_they_are_read() {
        let pace = Pace::of([0, 10, 40, 100].map(|d| (Day(d), 1.0))).unwrap();
        let sum: f64 = [0.0, 10.0, 40.0, 100.0].iter().map(|d| exp2(-(130.0 - d) / 30.0)).sum();
        assert!((pace.purchases[0].on(Day(130), 30.0) - sum).abs() < 1e-14);
    }

    #[test]
    fn the_level_holds_by_weeks_and_beyond_its_ends() {
        let level = Level {
            from: Day(100),
            weekly: vec![0.1, -0.2, 0.3],
        };
        let got = [0, 100, 106, 107, 114, 120, 999].map(|day| level.on(Day(day)));
        assert_eq!(got, [0.1, 0.1, 0.1, -0.2, 0.3, 0.3, 0.3]);
        assert_eq!(
            (level.between(Day(0), Day(110)), level.between(Day(113), Day(999))),
            ((-0.2, 0.1), (-0.2, 0.3))
        );
        assert_eq!(Level::default().on(Day(3)), 0.0);
    }

    #[test]
    fn huge_values_stay_finite() {
        let mut pace = Pace::of([(Day(0), 1e15)]).unwrap();
        for day in 1..100_000 {
            pace.push(Day(day), 1e15);
        }
        for now in [99_999, 100_000, 1_000_000, i32::MAX / 2] {
            let churn = cold().terms(&pace, 3650, Day(now)).churn();
            assert!(churn > 0.0 && churn < 1.0, "{now}: {churn}");
        }
    }
}
