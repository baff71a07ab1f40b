//! How sure a score is: 90 % intervals that widen where little is known of a customer.
//!
//! Under BTYD a customer has a rate λ and a probability p of leaving after a purchase, which nobody knows. Given x repeat
//! purchases and that they are alive, λ is Gamma(r + x, α + T) and p is Beta(a, b + x'). In log-odds, what λ and p say is
//! close to linear, so that the interval is that of the delta method: the score's log-odds ± 1.645·√(Σ (∂/∂θ)²·Var θ) over
//! θ = ln λ and logit p, with variances ψ′(r + x) and ψ′(a) + ψ′(b + x'). It is about the customer. What it does not cover:
//! errors of the population's parameters and of fitted weights (small beside it), and a model that is wrong.

use crate::btyd::{Btyd, Family, Recency, sigmoid};
use libm::{exp, expm1, log, sqrt};

/// Half the width of an interval that holds 90 %, in standard deviations.
const Z: f64 = 1.644_853_626_951_472_6;
/// Largest half-width in log-odds; from one end of the probabilities to the other.
const WIDEST: f64 = 60.0;

/// The interval of a score in log-odds, as probabilities.
pub(crate) fn interval(logit: f64, variance: f64) -> (f64, f64) {
    let half = (Z * sqrt(variance.max(0.0))).min(WIDEST);
    (sigmoid(logit - half), sigmoid(logit + half))
}

/// Variance of the log-odds of having left.
pub(crate) fn gone(btyd: &Btyd, recency: Recency) -> f64 {
    let own = Own::of(btyd, recency);
    // logit P(left | λ, p) = logit p + λ·silence.
    let by_rate = own.rate * recency.silence();
    own.leaving_variance + by_rate * by_rate * own.rate_variance
}

/// Variance of the log-odds of a purchase within a horizon.
pub(crate) fn purchase(btyd: &Btyd, recency: Recency, horizon: f64) -> f64 {
    let own = Own::of(btyd, recency);
    let (by_leaving, by_rate) = own.slopes(recency.silence(), horizon);
    by_leaving * by_leaving * own.leaving_variance + by_rate * by_rate * own.rate_variance
}

/// What is known of one customer's own parameters.
struct Own {
    /// Posterior mean of λ.
    rate: f64,
    /// Log-odds of p.
    leaving: f64,
    /// Variance of ln λ.
    rate_variance: f64,
    /// Variance of logit p.
    leaving_variance: f64,
}

impl Own {
    fn of(btyd: &Btyd, recency: Recency) -> Self {
        let x = f64::from(recency.x);
        let survived = match btyd.family {
            Family::Bg => x,
            Family::Mbg => x + 1.0,
        };
        let shape = btyd.r + x;
        Self {
            rate: shape / (btyd.alpha + recency.t_x + recency.silence()),
            leaving: log(btyd.a / (btyd.b + survived)),
            rate_variance: trigamma(shape),
            leaving_variance: trigamma(btyd.a) + trigamma(btyd.b + survived),
        }
    }

    /// Slopes of the log-odds of a purchase, ln(A·u / (1 − A·u)) with A = P(alive | λ, p) and u = 1 − e^(−λH): by logit p and
    /// by ln λ.
    fn slopes(&self, silence: f64, horizon: f64) -> (f64, f64) {
        let gone = sigmoid(self.leaving + self.rate * silence);
        let none = exp(-self.rate * horizon);
        let some = -expm1(-self.rate * horizon);
        // 1 − A·u, from positive terms.
        let rest = gone + (1.0 - gone) * none;
        if rest <= 0.0 {
            return (0.0, 0.0);
        }
        // λH·e^(−λH) / u, which is 1 where λH vanishes.
        let bend = if some > 0.0 {
            self.rate * horizon * none / some
        } else {
            1.0
        };
        (-gone / rest, (bend - gone * self.rate * silence) / rest)
    }
}

/// ψ′(x) = d² ln Γ(x) / dx² for x > 0: recurrence up to 10, then the asymptotic series (Abramowitz, Stegun, 6.4.12).
fn trigamma(x: f64) -> f64 {
    let (mut x, mut sum) = (x, 0.0);
    while x < 10.0 {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series =
        1.0 / 6.0 - square * (1.0 / 30.0 - square * (1.0 / 42.0 - square * (1.0 / 30.0 - square * 5.0 / 66.0)));
    sum + 1.0 / x + 0.5 * square + square / x * series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btyd::logit;
    use proptest::prelude::*;

    const PI: f64 = std::f64::consts::PI;

    fn mbg() -> Btyd {
        Btyd {
            family: Family::Mbg,
            r: 0.5,
            alpha: 6.2,
            a: 0.9,
            b: 1.6,
        }
    }

    #[test]
    fn known_values_of_trigamma() {
        for (x, wanted) in [
            (1.0, PI * PI / 6.0),
            (0.5, PI * PI / 2.0),
            (2.0, PI * PI / 6.0 - 1.0),
            (1e8, 1e-8 + 0.5e-16),
        ] {
            assert!((trigamma(x) / wanted - 1.0).abs() < 1e-13, "{x}: {}", trigamma(x));
        }
    }

    proptest! {
        /// The slopes against differences of the log-odds themselves.
        #[test]
        fn slopes_are_those_of_the_log_odds(rate in 0.005f64..1.0, leaving in -4.0f64..3.0, silence in 0.0f64..40.0, horizon in 1.0f64..52.0) {
            let log_odds = |ln_rate: f64, leaving: f64| {
                let rate = exp(ln_rate);
                let alive = sigmoid(-(leaving + rate * silence));
                logit(-alive * expm1(-rate * horizon))
            };
            let own = Own { rate, leaving, rate_variance: 1.0, leaving_variance: 1.0 };
            let (by_leaving, by_rate) = own.slopes(silence, horizon);
            let h = 1e-5;
            let slope = |f: &dyn Fn(f64) -> f64| (f(h) - f(-h)) / (2.0 * h);
            let (by_leaving_too, by_rate_too) = (slope(&|h| log_odds(log(rate), leaving + h)), slope(&|h| log_odds(log(rate) + h, leaving)));
            prop_assert!((by_leaving - by_leaving_too).abs() < 1e-4 * (1.0 + by_leaving.abs()), "{by_leaving} {by_leaving_too}");
            prop_assert!((by_rate - by_rate_too).abs() < 1e-4 * (1.0 + by_rate.abs()), "{by_rate} {by_rate_too}");
        }

        /// The same rate, seen for longer, is known better; over a horizon in which about one purchase is due.
        #[test]
        // Of a customer on pace: beyond, more purchases make the silence itself the stronger evidence, which moves the odds.
        fn more_evidence_is_a_narrower_interval(x in 1u32..200, gap in 0.3f64..8.0, silent in 0.0f64..1.0) {
            let customer = |x: u32| {
                let t_x = f64::from(x) * gap;
                Recency { x, t_x, age: t_x + silent * gap }
            };
            let (little, much) = (customer(x), customer(x * 4));
            prop_assert!(purchase(&mbg(), much, gap) < purchase(&mbg(), little, gap));
            prop_assert!(gone(&mbg(), much) < gone(&mbg(), little) + 1e-9);
        }

        #[test]
        fn any_customer_has_an_interval(x in 0u32..100_000, t_x in 0.0f64..2000.0, silence in 0.0f64..2000.0, horizon in 0.1f64..600.0) {
            let recency = Recency { x, t_x, age: t_x + silence };
            for variance in [gone(&mbg(), recency), purchase(&mbg(), recency, horizon)] {
                let (low, high) = interval(0.3, variance);
                prop_assert!(variance.is_finite() && low < high && (0.0..=1.0).contains(&low) && high <= 1.0);
                prop_assert!((low..=high).contains(&sigmoid(0.3)));
            }
        }
    }
}
