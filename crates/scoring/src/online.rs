//! Learning from labels as they close in the stream: small steps of the churn model's weights around the batch fit.
//!
//! AdaGrad on the logistic loss, pulled back to the weights of the batch fit, each bounded to one log-odds away from them:
//! a bad day cannot undo a fit. Deterministic in the order of the labels; the weights that a worker publishes go into the
//! log as a control record, so that a replay scores with the same bits. It never decides when to publish.
//!
//! Source: Duchi, Hazan, Singer, "Adaptive subgradient methods", JMLR 12, 2011.

use crate::btyd::sigmoid;
use crate::churn::{ChurnModel, FEATURES, Pace, Weight};
use libm::sqrt;
use vigie_event::Day;

/// First step of a weight in log-odds.
const RATE: f64 = 0.2;
/// How strongly a label pulls a weight back to the batch fit.
const PULL: f64 = 1e-4;
/// Farthest that a weight may move from the batch fit.
const BOUND: f64 = 1.0;

/// The features on the batch fit's scale, and last the level's 1. A feature that the fit never saw vary has no scale to
/// learn on.
fn standard(batch: &ChurnModel, features: &[f64; FEATURES]) -> [f64; FEATURES + 1] {
    let mut z = [1.0; FEATURES + 1];
    for ((z, feature), weight) in z.iter_mut().zip(features).zip(&batch.weights) {
        let known = weight.weight != 0.0 || weight.scale != 1.0;
        *z = if known {
            Weight { weight: 1.0, ..*weight }.term(*feature)
        } else {
            0.0
        };
    }
    z
}

/// The weights on their way.
#[derive(Debug, Clone, PartialEq)]
pub struct Learner {
    /// Distance from the batch fit: the features' weights, and last the level.
    moved: [f64; FEATURES + 1],
    /// Sums of squared gradients.
    squares: [f64; FEATURES + 1],
    labels: u64,
}

impl Default for Learner {
    fn default() -> Self {
        Self {
            moved: [0.0; FEATURES + 1],
            squares: [1.0; FEATURES + 1],
            labels: 0,
        }
    }
}

impl Learner {
    /// The log-odds of a purchase by the weights as they stand.
    #[must_use]
    pub fn log_odds(&self, batch: &ChurnModel, pace: &Pace, horizon_days: u16, then: Day) -> f64 {
        let z = standard(batch, &batch.features(pace, horizon_days, then));
        batch.log_odds(pace, horizon_days, then) + z.iter().zip(&self.moved).map(|(z, by)| z * by).sum::<f64>()
    }

    /// Learns a closed label: what was known at `then`, and whether a purchase came within the horizon.
    pub fn learn(&mut self, batch: &ChurnModel, pace: &Pace, horizon_days: u16, then: Day, bought: bool) {
        let z = standard(batch, &batch.features(pace, horizon_days, then));
        let off = sigmoid(self.log_odds(batch, pace, horizon_days, then)) - f64::from(u8::from(bought));
        for ((moved, squares), z) in self.moved.iter_mut().zip(&mut self.squares).zip(z) {
            let gradient = off * z + PULL * *moved;
            *squares += gradient * gradient;
            *moved = (*moved - RATE * gradient / sqrt(*squares)).clamp(-BOUND, BOUND);
        }
        self.labels += 1;
    }

    /// Labels learned.
    #[must_use]
    pub fn labels(&self) -> u64 {
        self.labels
    }

    /// The batch fit moved a share of the way to where the labels have led.
    #[must_use]
    pub fn model(&self, batch: &ChurnModel, share: f64) -> ChurnModel {
        let mut model = batch.clone();
        for (weight, moved) in model.weights.iter_mut().zip(&self.moved) {
            weight.weight += share * moved;
        }
        let [.., level] = self.moved.map(|moved| share * moved);
        if model.level.weekly.is_empty() {
            model.level.weekly.push(0.0);
        }
        model.level.weekly.iter_mut().for_each(|week| *week += level);
        model
    }
}
