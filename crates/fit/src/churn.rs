//! Fits the default churn model at a cut-off, from what came before it.
//!
//! 1. BG/NBD and MBG/NBD are fitted at every training cut-off (each sees only its own past), so that a training row is
//!    what the model would have known on that day.
//! 2. The weights are a logistic regression of "bought within H" on the standardised features with the BTYD log-odds as
//!    offset and *one free intercept per cut-off*, shrunk to 0: the level of a cut-off (season, drift, and how much of the
//!    past was in the data yet) cannot leak into the weights.
//! 3. The intercepts are a noisy series in time. Its continuation, a Gaussian process with a yearly and a wandering
//!    part and mean 0, is the model's level: seasons repeat where a year has been seen, recent drift fades, and with
//!    little history it stays at plain BTYD. Young cut-offs, at which most of a left-truncated past is missing, are
//!    trusted little.
//!
//! [`fit_trees`] is the challenger: the same levels, and boosted trees over the same features in place of the weights.
//!
//! The constants below are one untouched default for every data set. It never sees a purchase at or after the cut-off.

use crate::boost::{Sample, boost};
use crate::btyd::fit as fit_btyd;
use crate::history::History;
use crate::optimize::minimise;
use libm::{cos, exp, log1p, sqrt};
use vigie_event::Day;
use vigie_scoring::Correction;
use vigie_scoring::btyd::{Btyd, Family, sigmoid};
use vigie_scoring::churn::{Cadence, ChurnModel, FEATURES, Feature, Level, Pace, Weight};

/// Precision of the normal prior on a weight: as much as some 400 labels know about a standardised feature.
const WEIGHT_PRECISION: f64 = 100.0;
/// Precision of the prior on a cut-off's intercept.
const INTERCEPT_PRECISION: f64 = 1e-2;
/// Standard deviation of the season in log-odds, and how far it reaches, in years: a window of a season cannot change
/// faster than that.
const SEASON: (f64, f64) = (0.3, 0.2);
/// Standard deviation of the drift in log-odds, and its memory in days.
const DRIFT: (f64, f64) = (0.25, 200.0);
/// After how many days a season is only as good as any other (several years).
const SEASON_MEMORY: f64 = 3000.0;
/// Standard deviation of an intercept that a whole past stands behind.
const NOISE: f64 = 0.05;
/// Standard deviation of one without a past, and how fast it falls with the days of history.
const YOUTH: (f64, f64) = (1.0, 60.0);
/// Weeks that the level is drawn for, from the cut-off on.
const LEVEL_WEEKS: i32 = 105;
const YEAR: f64 = 365.25;
/// Most trees.
const MAX_TREES: usize = 150;
/// Trees where no cut-off is left to learn their number from.
const TREES: usize = 40;

/// What to predict, for whom, and from which cut-offs to learn.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// No purchase within so many days is churn.
    pub horizon_days: u16,
    /// Customers count who bought within so many days before the cut-off.
    pub active_days: i32,
    /// Cut-offs to learn from; those that are not closed at the time of the fit are left out.
    pub grid: Vec<Day>,
}

/// One customer at one cut-off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Index in the history.
    pub customer: usize,
    /// What was known.
    pub pace: Pace,
    /// What came of it. Only labels of closed windows mean anything.
    pub churned: bool,
}

/// The rows of a cut-off, in the history's order.
#[must_use]
pub fn rows(history: &History, task: &Task, cutoff: Day) -> Vec<Row> {
    let active = |pace: &Pace| cutoff.days_since(pace.last) <= task.active_days;
    let row = |(customer, pace)| Row {
        customer,
        pace,
        churned: history.churned(customer, cutoff, task.horizon_days),
    };
    history
        .as_of(cutoff)
        .filter(|(_, pace)| active(pace))
        .map(row)
        .collect()
}

/// A cut-off with everything that learning needs of it.
#[derive(Debug, Clone)]
struct Slice {
    cutoff: Day,
    /// Days of history before it.
    age: i32,
    /// Cold model as of the cut-off, and (base log-odds, features, bought) per row.
    rows: Vec<(f64, [f64; FEATURES], bool)>,
}

/// Fits the model that may score from `cutoff` on.
#[must_use]
pub fn fit(history: &History, task: &Task, cutoff: Day) -> ChurnModel {
    let mut fits = Fits::default();
    fit_warm(history, task, cutoff, &mut fits)
}

/// BTYD fits by cut-off, kept between fits of one history: they are the larger part of the work.
#[derive(Debug, Clone, Default)]
pub struct Fits {
    by_cutoff: std::collections::BTreeMap<Day, (Btyd, Btyd)>,
}

impl Fits {
    /// BG/NBD and MBG/NBD of all customers at a cut-off, started from the nearest earlier fit.
    pub fn at(&mut self, history: &History, cutoff: Day) -> (Btyd, Btyd) {
        if let Some(known) = self.by_cutoff.get(&cutoff) {
            return *known;
        }
        let cells = history.cells(cutoff);
        let fitted = (
            fit_btyd(Family::Bg, &cells, None).model,
            fit_btyd(Family::Mbg, &cells, None).model,
        );
        let _ = self.by_cutoff.insert(cutoff, fitted);
        fitted
    }
}

/// [`fit`] with the BTYD fits of earlier calls on the same history.
#[must_use]
pub fn fit_warm(history: &History, task: &Task, cutoff: Day, fits: &mut Fits) -> ChurnModel {
    let (mut model, slices) = closed(history, task, cutoff, fits);
    if slices.is_empty() {
        return model;
    }
    model.weights = standardise(&slices);
    let intercepts = learn(&slices, &mut model.weights);
    model.level = level(&slices, &intercepts, task, cutoff);
    model
}

/// [`fit_warm`] with boosted trees in place of the weights. Their number is that which did best at the last closed cut-off
/// after learning from those that were closed by then; all closed cut-offs grow that many.
#[must_use]
pub fn fit_trees(history: &History, task: &Task, cutoff: Day, fits: &mut Fits) -> ChurnModel {
    let (mut model, slices) = closed(history, task, cutoff, fits);
    let Some(last) = slices.last().map(|slice| slice.cutoff) else {
        return model;
    };
    let mut weights = standardise(&slices);
    let intercepts = learn(&slices, &mut weights);
    model.level = level(&slices, &intercepts, task, cutoff);
    let samples = |wanted: &dyn Fn(Day) -> bool| -> Vec<Sample<FEATURES>> {
        let pairs = slices.iter().zip(&intercepts).filter(|(slice, _)| wanted(slice.cutoff));
        pairs
            .flat_map(|(slice, level)| {
                slice.rows.iter().map(move |(base, features, bought)| Sample {
                    features: *features,
                    offset: base + level,
                    bought: *bought,
                })
            })
            .collect()
    };
    let names = Feature::ALL.map(Feature::label);
    // What fades in silence may only speak for a purchase: silence never lowers churn, the level aside.
    let rising = Feature::ALL.map(Feature::fades);
    let before = samples(&|c| c.0 + i32::from(task.horizon_days) <= last.0);
    let count = if before.is_empty() {
        TREES
    } else {
        let losses = boost(&before, names, rising, MAX_TREES).losses(&samples(&|c| c == last));
        let best = losses.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(count, _)| count)
    };
    let boosted = boost(&samples(&|_| true), names, rising, count);
    if !boosted.is_empty() {
        // What was grown can be read, by a test.
        model.correction = Correction::parse(&boosted.text()).ok();
    }
    model
}

/// The plain closed form at a cut-off, with the population's cadence, and every cut-off that was closed by then.
fn closed(history: &History, task: &Task, cutoff: Day, fits: &mut Fits) -> (ChurnModel, Vec<Slice>) {
    let (bg, mbg) = fits.at(history, cutoff);
    let mut model = ChurnModel::cold(bg, mbg);
    let start = history.span().map_or(cutoff, |(first, _)| first);
    let closed = |c: &Day| c.0.saturating_add(i32::from(task.horizon_days)) <= cutoff.0;
    let old_enough = |c: &Day| c.days_since(start) >= i32::from(task.horizon_days) * 9 / 10;
    let grid: Vec<Day> = task.grid.iter().copied().filter(closed).filter(old_enough).collect();
    let all: Vec<(Day, Vec<Row>)> = grid.iter().map(|c| (*c, rows(history, task, *c))).collect();
    model.cadence = cadence(all.iter().flat_map(|(_, rows)| rows.iter().map(|row| &row.pace)));
    let slices = all
        .iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(c, rows)| {
            let (bg, mbg) = fits.at(history, *c);
            let then = ChurnModel {
                cadence: model.cadence,
                ..ChurnModel::cold(bg, mbg)
            };
            let known = |row: &Row| {
                let features = then.features(&row.pace, task.horizon_days, *c);
                (then.base(&row.pace, task.horizon_days, *c), features, !row.churned)
            };
            Slice {
                cutoff: *c,
                age: c.days_since(start),
                rows: rows.iter().map(known).collect(),
            }
        })
        .collect();
    (model, slices)
}

/// How the intercepts of closed cut-offs go on from the cut-off.
fn level(slices: &[Slice], intercepts: &[f64], task: &Task, cutoff: Day) -> Level {
    let half = i32::from(task.horizon_days) / 2;
    let seen: Vec<Seen> = slices
        .iter()
        .zip(intercepts)
        .map(|(slice, level)| {
            let youth = YOUTH.0 * exp(-f64::from(slice.age) / YOUTH.1);
            // An intercept is known no better than the labels of its cut-off allow.
            let bought = slice.rows.iter().filter(|(_, _, bought)| *bought).count() as f64;
            let information = bought * (slice.rows.len() as f64 - bought) / slice.rows.len() as f64;
            Seen {
                day: f64::from(slice.cutoff.0 + half),
                level: *level,
                variance: NOISE * NOISE + youth * youth + 1.0 / (information + 1.0),
            }
        })
        .collect();
    let from = Day(cutoff.0 + half);
    // The middle of a week stands for it.
    let weeks: Vec<f64> = (0..LEVEL_WEEKS).map(|week| f64::from(from.0 + 7 * week)).collect();
    Level {
        from: Day(from.0 - 3),
        weekly: continuation(&seen, &weeks),
    }
}

/// Mean and variance of ln(gap) over all gaps.
fn cadence<'a>(paces: impl Iterator<Item = &'a Pace>) -> Cadence {
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for pace in paces {
        n += f64::from(pace.x);
        sum += pace.ln_gaps.0;
        squares += pace.ln_gaps.1;
    }
    if n < 2.0 {
        return Cadence::default();
    }
    let mean = sum / n;
    Cadence {
        mean,
        variance: (squares / n - mean * mean).max(1e-3),
    }
}

/// Means and standard deviations of the features; a feature that never varies gets no weight.
fn standardise(slices: &[Slice]) -> [Weight; FEATURES] {
    let (mut n, mut sums, mut squares) = (0.0, [0.0; FEATURES], [0.0; FEATURES]);
    let each = || {
        slices
            .iter()
            .flat_map(|slice| &slice.rows)
            .map(|(_, features, _)| features)
    };
    for features in each() {
        n += 1.0;
        sums.iter_mut().zip(features).for_each(|(sum, f)| *sum += f);
    }
    let means = sums.map(|sum| sum / n);
    for features in each() {
        for ((square, f), mean) in squares.iter_mut().zip(features).zip(means) {
            *square += (f - mean) * (f - mean);
        }
    }
    let mut weights = [Weight::default(); FEATURES];
    for ((weight, mean), square) in weights.iter_mut().zip(means).zip(squares) {
        let deviation = sqrt(square / n);
        if deviation > 1e-9 {
            *weight = Weight {
                weight: 0.0,
                mean,
                scale: deviation,
            };
        }
    }
    weights
}

/// Fits the weights in place and returns the intercept of every slice.
fn learn(slices: &[Slice], weights: &mut [Weight; FEATURES]) -> Vec<f64> {
    // What does not depend on the parameters is worked out once.
    let standard: Vec<Vec<(f64, [f64; FEATURES], f64)>> = slices
        .iter()
        .map(|slice| {
            let row = |(base, features, bought): &(f64, [f64; FEATURES], bool)| {
                let mut z = [0.0; FEATURES];
                for ((z, f), weight) in z.iter_mut().zip(features).zip(weights.iter()) {
                    *z = Weight { weight: 1.0, ..*weight }.term(*f);
                }
                (*base, z, f64::from(u8::from(*bought)))
            };
            slice.rows.iter().map(row).collect()
        })
        .collect();
    let total: f64 = standard.iter().map(|rows| rows.len() as f64).sum();
    let start = vec![0.0; FEATURES + slices.len()];
    let minimum = minimise(&start, 200, 1e-7, |parameters, gradient| {
        let Some((b, levels)) = parameters.split_at_checked(FEATURES) else {
            return f64::NAN;
        };
        let (mut value, mut by_b, mut by_level) = (0.0, [0.0; FEATURES], Vec::with_capacity(levels.len()));
        for (rows, level) in standard.iter().zip(levels) {
            let mut by = 0.0;
            for (base, z, bought) in rows {
                let eta = base + level + z.iter().zip(b).map(|(z, b)| z * b).sum::<f64>();
                value += eta.max(0.0) + log1p(exp(-eta.abs())) - bought * eta;
                let off = sigmoid(eta) - bought;
                by += off;
                by_b.iter_mut().zip(z).for_each(|(by, z)| *by += off * z);
            }
            value += 0.5 * INTERCEPT_PRECISION * level * level;
            by_level.push(by + INTERCEPT_PRECISION * level);
        }
        for (by, b) in by_b.iter_mut().zip(b) {
            value += 0.5 * WEIGHT_PRECISION * b * b;
            *by += WEIGHT_PRECISION * b;
        }
        let all = by_b.iter().chain(&by_level);
        gradient.iter_mut().zip(all).for_each(|(g, by)| *g = by / total);
        value / total
    });
    let (b, levels) = minimum.at.split_at_checked(FEATURES).unwrap_or_default();
    weights.iter_mut().zip(b).for_each(|(weight, b)| weight.weight = *b);
    levels.to_vec()
}

/// A cut-off's level as it was seen.
struct Seen {
    day: f64,
    level: f64,
    variance: f64,
}

/// The posterior mean of the level on other days: simple kriging with mean 0.
fn continuation(seen: &[Seen], days: &[f64]) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = seen
        .iter()
        .enumerate()
        .map(|(i, a)| {
            let noise = |j: usize| if i == j { a.variance } else { 0.0 };
            seen.iter()
                .enumerate()
                .map(|(j, b)| covariance(a.day, b.day) + noise(j))
                .collect()
        })
        .collect();
    let levels: Vec<f64> = seen.iter().map(|s| s.level).collect();
    let weights = solve(rows, levels);
    let at = |day: &f64| {
        seen.iter()
            .zip(&weights)
            .map(|(s, w)| covariance(*day, s.day) * w)
            .sum()
    };
    days.iter().map(at).collect()
}

/// Season (Mackay's periodic kernel, fading over years) plus drift (Ornstein–Uhlenbeck).
fn covariance(a: f64, b: f64) -> f64 {
    let apart = (a - b).abs();
    let (season, reach) = SEASON;
    let (drift, memory) = DRIFT;
    let turn = 2.0 * std::f64::consts::PI;
    // 2 sin²(π·apart) = 1 − cos(2π·apart).
    let around = (1.0 - cos(turn * apart / YEAR)) / (reach * turn * reach * turn);
    season * season * exp(-around - apart / SEASON_MEMORY) + drift * drift * exp(-apart / memory)
}

/// Solves a symmetric positive definite system by elimination without pivoting, which such systems allow.
fn solve(mut rows: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    for k in 0..n {
        let Some((head, below)) = rows.split_at_mut_checked(k + 1) else {
            break;
        };
        let Some(pivot_row) = head.last() else { break };
        let pivot = pivot_row.get(k).copied().unwrap_or(1.0);
        let Some((solved, rest)) = right.split_at_mut_checked(k + 1) else {
            break;
        };
        let pivot_right = solved.last().copied().unwrap_or(0.0);
        for (row, value) in below.iter_mut().zip(rest) {
            let factor = row.get(k).map_or(0.0, |f| f / pivot);
            for (cell, above) in row.iter_mut().zip(pivot_row).skip(k) {
                *cell -= factor * above;
            }
            *value -= factor * pivot_right;
        }
    }
    let mut solution: Vec<f64> = vec![0.0; n];
    for (k, (row, value)) in rows.iter().zip(&right).enumerate().rev() {
        let known: f64 = row.iter().zip(&solution).skip(k + 1).map(|(cell, x)| cell * x).sum();
        let pivot = row.get(k).copied().unwrap_or(1.0);
        if let Some(x) = solution.get_mut(k) {
            *x = (value - known) / pivot;
        }
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elimination_solves() {
        let rows = vec![vec![4.0, 1.0, 0.5], vec![1.0, 3.0, 0.2], vec![0.5, 0.2, 2.0]];
        let x = solve(rows.clone(), vec![1.0, 2.0, 3.0]);
        for (row, want) in rows.iter().zip([1.0, 2.0, 3.0]) {
            let got: f64 = row.iter().zip(&x).map(|(a, b)| a * b).sum();
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn a_season_repeats_and_drift_fades() {
        let seen: Vec<Seen> = (0..13)
            .map(|month| {
                let day = f64::from(month) * YEAR / 12.0;
                Seen {
                    day,
                    level: 0.4 * cos(2.0 * std::f64::consts::PI * day / YEAR),
                    variance: 0.0025,
                }
            })
            .collect();
        let later = continuation(&seen, &[1.5 * YEAR, 2.0 * YEAR, 300.0 * YEAR]);
        assert!(
            later[0] < -0.15 && later[1] > 0.15 && later[2].abs() < 1e-6,
            "{later:?}"
        );
    }
}
