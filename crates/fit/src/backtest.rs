//! Rolling-origin backtests: every test cut-off is scored by a model fitted only on what came before it.
//!
//! The model and the features are those of production; only the clock is turned back. Metrics are computed per cut-off
//! and averaged. It never writes a file: [`crate::report`] turns a result into a page.

use crate::btyd::fit_pareto;
use crate::churn::{Fits, Task, fit_trees, fit_warm, rows};
use crate::history::History;
use crate::metrics::{Intervals, Metrics, Scored, intervals, log_loss_difference, metrics};
use vigie_event::Day;

/// What is scored by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Candidate {
    /// The default: BTYD corrected by features and level.
    Default,
    /// The default with boosted trees in place of the weights.
    Gbdt,
    /// P(no purchase in H) by BG/NBD.
    BgNbd,
    /// P(no purchase in H) by MBG/NBD.
    MbgNbd,
    /// P(no purchase in H) by Pareto/NBD.
    ParetoNbd,
}

impl Candidate {
    /// Every candidate.
    pub const ALL: [Self; 5] = [Self::Default, Self::Gbdt, Self::BgNbd, Self::MbgNbd, Self::ParetoNbd];

    /// The stable name, as in `vigie backtest --model`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Gbdt => "gbdt",
            Self::BgNbd => "bg-nbd",
            Self::MbgNbd => "mbg-nbd",
            Self::ParetoNbd => "pareto-nbd",
        }
    }

    /// Reads a [`Self::label`].
    #[must_use]
    pub fn parse(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.label() == label)
    }
}

/// One candidate at one cut-off.
#[derive(Debug, Clone, PartialEq)]
pub struct Fold {
    /// The cut-off.
    pub cutoff: Day,
    /// Index of the customer in the history, for each prediction.
    pub customers: Vec<usize>,
    /// Predictions and labels.
    pub scored: Vec<Scored>,
    /// Their metrics.
    pub metrics: Metrics,
}

/// One candidate at all test cut-offs.
#[derive(Debug, Clone, PartialEq)]
pub struct Backtest {
    /// Of what.
    pub candidate: Candidate,
    /// By cut-off, ascending.
    pub folds: Vec<Fold>,
    /// Plain means over the cut-offs (`n` is their sum).
    pub mean: Metrics,
    /// 95 % bootstrap intervals of the means.
    pub intervals: Intervals,
    /// Log loss less that of the first candidate on the same customers, with its 95 % bootstrap interval (difference, low,
    /// high): above 0, the first is better.
    pub against_first: (f64, f64, f64),
}

/// How to test.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What to predict, and where to learn.
    pub task: Task,
    /// Cut-offs to test at.
    pub tests: Vec<Day>,
    /// Draws of the bootstrap.
    pub draws: u32,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// Scores every candidate at every test cut-off.
#[must_use]
pub fn backtest(history: &History, plan: &Plan, candidates: &[Candidate]) -> Vec<Backtest> {
    let mut fits = Fits::default();
    let mut folds: Vec<Vec<Fold>> = candidates.iter().map(|_| Vec::new()).collect();
    let horizon = plan.task.horizon_days;
    for cutoff in &plan.tests {
        let rows = rows(history, &plan.task, *cutoff);
        let (bg, mbg) = fits.at(history, *cutoff);
        for (candidate, folds) in candidates.iter().zip(&mut folds) {
            let weeks = f64::from(horizon) / 7.0;
            let predict: Box<dyn Fn(&vigie_scoring::churn::Pace) -> f64> = match candidate {
                Candidate::Default => {
                    let model = fit_warm(history, &plan.task, *cutoff, &mut fits);
                    Box::new(move |pace| model.churn(pace, horizon, *cutoff))
                }
                Candidate::Gbdt => {
                    let model = fit_trees(history, &plan.task, *cutoff, &mut fits);
                    Box::new(move |pace| model.churn(pace, horizon, *cutoff))
                }
                Candidate::BgNbd => Box::new(move |pace| bg.p_no_purchase(pace.recency(*cutoff), weeks)),
                Candidate::MbgNbd => Box::new(move |pace| mbg.p_no_purchase(pace.recency(*cutoff), weeks)),
                Candidate::ParetoNbd => {
                    let pareto = fit_pareto(&history.cells(*cutoff), None).model;
                    Box::new(move |pace| pareto.p_no_purchase(pace.recency(*cutoff), weeks))
                }
            };
            let scored: Vec<Scored> = rows
                .iter()
                .map(|row| Scored {
                    p: predict(&row.pace),
                    churned: row.churned,
                })
                .collect();
            folds.push(Fold {
                cutoff: *cutoff,
                customers: rows.iter().map(|row| row.customer).collect(),
                metrics: metrics(&scored),
                scored,
            });
        }
    }
    let sets = |folds: &[Fold]| -> Vec<Vec<Scored>> { folds.iter().map(|fold| fold.scored.clone()).collect() };
    let first = folds.first().map(|folds| sets(folds)).unwrap_or_default();
    let result = |(candidate, folds): (&Candidate, Vec<Fold>)| {
        let sets = sets(&folds);
        Backtest {
            candidate: *candidate,
            mean: mean(&folds),
            intervals: intervals(&sets, plan.draws, plan.seed),
            against_first: log_loss_difference(&sets, &first, plan.draws, plan.seed),
            folds,
        }
    };
    candidates.iter().zip(folds).map(result).collect()
}

fn mean(folds: &[Fold]) -> Metrics {
    let n = folds.len().max(1) as f64;
    let of = |f: fn(&Metrics) -> f64| folds.iter().map(|fold| f(&fold.metrics)).sum::<f64>() / n;
    Metrics {
        n: folds.iter().map(|fold| fold.metrics.n).sum(),
        base: of(|m| m.base),
        auc: of(|m| m.auc),
        pr_auc_churn: of(|m| m.pr_auc_churn),
        pr_auc_stay: of(|m| m.pr_auc_stay),
        log_loss: of(|m| m.log_loss),
        brier: of(|m| m.brier),
        ece: of(|m| m.ece),
        lift10_churn: of(|m| m.lift10_churn),
        lift10_stay: of(|m| m.lift10_stay),
        expected_over_actual: of(|m| m.expected_over_actual),
    }
}
