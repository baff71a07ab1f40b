//! Pareto/NBD: "buy till you die" in continuous time.
//!
//! Purchases while alive are Poisson with a rate from Gamma(`r`, `alpha`); the lifetime is exponential with a rate from
//! Gamma(`s`, `beta`). Source: Schmittlein, Morrison, Colombo, "Counting your customers", Management Science 33(1), 1987.
//!
//! The textbook form subtracts two hypergeometric functions that may agree to all digits. Here every quantity is a sum of
//! positive terms around one integral, D(u, v) = s ∫ᵤᵛ (α + y)^−(r+x) (β + y)^−(s+1) dy, taken in ln(min(α, β) + y) over the
//! stretch where its integrand is not negligible. It knows nothing of customers or clocks and never fails on parameters
//! above 0.

use crate::btyd::{NoPurchase, Recency, sigmoid};
use crate::quadrature;
use libm::{exp, expm1, lgamma, log, log1p};

/// An integrand that has fallen by e^−60 adds nothing to a sum of 53 bits.
const NEGLIGIBLE: f64 = -60.0;
/// Relative ends of the panels, graded towards the start, where the integrand is steepest.
const GRADES: [f64; 11] = [
    0.0,
    1.0 / 128.0,
    1.0 / 64.0,
    1.0 / 32.0,
    1.0 / 16.0,
    1.0 / 8.0,
    0.25,
    0.4375,
    0.625,
    0.8125,
    1.0,
];

/// One fitted Pareto/NBD: four positive parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParetoNbd {
    /// Shape of the purchase rate, without unit.
    pub r: f64,
    /// Scale of the purchase rate, in units of time.
    pub alpha: f64,
    /// Shape of the drop-out rate, without unit.
    pub s: f64,
    /// Scale of the drop-out rate, in units of time.
    pub beta: f64,
}

/// ∂ ln L of one customer by r, α, s and β.
pub type ParetoGradient = [f64; 4];

impl ParetoNbd {
    /// ln of the odds of P(alive).
    #[must_use]
    pub fn logit_alive(&self, recency: Recency) -> f64 {
        -self.ln_dead(recency)
    }

    /// P(alive), in [0, 1].
    #[must_use]
    pub fn p_alive(&self, recency: Recency) -> f64 {
        sigmoid(self.logit_alive(recency))
    }

    /// P(no purchase within `horizon` from now): dead already; or alive, and dies or survives without a purchase.
    #[must_use]
    pub fn no_purchase(&self, recency: Recency, horizon: f64) -> NoPurchase {
        let logit = self.logit_alive(recency);
        let age = recency.t_x + recency.silence();
        let shape = self.r + f64::from(recency.x);
        let survives = exp(-shape * log1p(horizon / (self.alpha + age)) - self.s * log1p(horizon / (self.beta + age)));
        let dies = exp(self.ln_integral(shape, age, age + horizon));
        NoPurchase {
            already_gone: sigmoid(-logit),
            still_customer: sigmoid(logit) * (survives + dies).min(1.0),
        }
    }

    /// [`Self::no_purchase`] as one number.
    #[must_use]
    pub fn p_no_purchase(&self, recency: Recency, horizon: f64) -> f64 {
        self.no_purchase(recency, horizon).total()
    }

    /// Purchases to be expected within `horizon` from now:
    /// P(alive)·(r + x)·(β + T)/(α + T)·L·(1 − e^−u)/u, L = ln(1 + horizon/(β + T)), u = (s − 1)·L; exact at s = 1.
    #[must_use]
    pub fn expected_purchases(&self, recency: Recency, horizon: f64) -> f64 {
        let age = recency.t_x + recency.silence();
        let length = log1p(horizon / (self.beta + age));
        let u = (self.s - 1.0) * length;
        let mean = if u.abs() < 1e-12 { 1.0 } else { -expm1(-u) / u };
        let rate = (self.r + f64::from(recency.x)) / (self.alpha + age);
        self.p_alive(recency) * rate * (self.beta + age) * length * mean
    }

    /// ln of the likelihood of this customer's purchases (x, t_x, T).
    #[must_use]
    pub fn ln_likelihood(&self, recency: Recency) -> f64 {
        self.ln_survived(recency) + softplus(self.ln_dead(recency))
    }

    /// [`Self::ln_likelihood`] and its derivatives by r, α, s and β: those of the survival term and of the integrand, each
    /// weighted by its part of the likelihood.
    #[must_use]
    pub fn ln_likelihood_gradient(&self, recency: Recency, digamma: impl Fn(f64) -> f64) -> (f64, ParetoGradient) {
        let Self { r, alpha, s, beta } = *self;
        let x = f64::from(recency.x);
        let (age, shape) = (recency.t_x + recency.silence(), r + x);
        let ln_dead = self.ln_dead(recency);
        let value = self.ln_survived(recency) + softplus(ln_dead);
        let (alive, dead) = (sigmoid(-ln_dead), sigmoid(ln_dead));
        let moments = self.moments(shape, recency.t_x, age);
        let common = [
            if recency.x == 0 {
                0.0
            } else {
                digamma(shape) - digamma(r)
            },
            0.0,
            0.0,
            0.0,
        ];
        let [by_r, by_alpha, by_s, by_beta] = common;
        // d/dr of r·ln α − (r + x)·ln(α + y) is −ln(1 + y / α), and so on.
        let gradient = [
            by_r - alive * log1p(age / alpha) - dead * moments.ln_alpha,
            by_alpha + r / alpha - shape * (alive / (alpha + age) + dead * moments.per_alpha),
            by_s - alive * log1p(age / beta) + dead * (1.0 / s - moments.ln_beta),
            by_beta + s / beta - alive * s / (beta + age) - dead * (s + 1.0) * moments.per_beta,
        ];
        (value, gradient)
    }

    /// ln of the likelihood's first term: bought x times until t_x and is alive at T.
    fn ln_survived(&self, recency: Recency) -> f64 {
        let Self { r, alpha, s, beta } = *self;
        let x = f64::from(recency.x);
        let age = recency.t_x + recency.silence();
        let counts = if recency.x == 0 {
            0.0
        } else {
            lgamma(r + x) - lgamma(r) - x * log(alpha + age)
        };
        counts - r * log1p(age / alpha) - s * log1p(age / beta)
    }

    /// ln of the likelihood's second term (dead by now) over the first: the logit of P(dead).
    fn ln_dead(&self, recency: Recency) -> f64 {
        let age = recency.t_x + recency.silence();
        let silence = recency.silence();
        let shape = self.r + f64::from(recency.x);
        self.ln_integral(shape, recency.t_x, age)
            + shape * log1p(silence / (self.alpha + recency.t_x))
            + self.s * log1p(silence / (self.beta + recency.t_x))
    }

    /// ln of D(from, to) over (α + from)^−A (β + from)^−s.
    fn ln_integral(&self, shape: f64, from: f64, to: f64) -> f64 {
        let mut sum = 0.0;
        let peak = self.panels(shape, from, to, |weight, _| sum += weight);
        // (1 / (β + from)) is what (β + y)^−(s+1) has over (β + from)^−s.
        log(self.s * sum / (self.beta + from)) + peak
    }

    /// Means over y of the integrand's logarithmic derivatives.
    fn moments(&self, shape: f64, from: f64, to: f64) -> Moments {
        let (mut sum, mut m) = (0.0, Moments::default());
        let (alpha, beta) = (self.alpha, self.beta);
        let _ = self.panels(shape, from, to, |weight, past| {
            let y = from + past;
            sum += weight;
            m.ln_alpha += weight * log1p(y / alpha);
            m.per_alpha += weight / (alpha + y);
            m.ln_beta += weight * log1p(y / beta);
            m.per_beta += weight / (beta + y);
        });
        let scale = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        Moments {
            ln_alpha: m.ln_alpha * scale,
            per_alpha: m.per_alpha * scale,
            ln_beta: m.ln_beta * scale,
            per_beta: m.per_beta * scale,
        }
    }

    /// Walks the integrand of D over its start's value: `visit(weight·value·e^−peak, y − from)`; returns the peak.
    fn panels(&self, shape: f64, from: f64, to: f64, mut visit: impl FnMut(f64, f64)) -> f64 {
        let (a, b) = (self.alpha + from, self.beta + from);
        let m = a.min(b);
        let ln_integrand = |delta: f64| {
            let past = m * expm1(delta);
            (past, delta - shape * log1p(past / a) - (self.s + 1.0) * log1p(past / b))
        };
        let whole = log1p((to - from) / m);
        if whole <= 0.0 {
            return 0.0;
        }
        // Concave in delta, so its peak and the point where it is spent are each the root of something monotone.
        let slope = |delta: f64| {
            let past = m * expm1(delta);
            1.0 - shape * ((m + past) / (a + past)) - (self.s + 1.0) * ((m + past) / (b + past))
        };
        let top = if slope(0.0) <= 0.0 {
            0.0
        } else {
            last_where(0.0, whole, |d| slope(d) > 0.0)
        };
        let (_, peak) = ln_integrand(top);
        let spent = |delta: f64| ln_integrand(delta).1 - peak < NEGLIGIBLE;
        let end = if spent(whole) {
            last_where(top, whole, |d| !spent(d))
        } else {
            whole
        };
        // Towards the left of an inner peak the integrand falls as well, but by no more than e^(top − delta).
        let begin = (top + NEGLIGIBLE).max(0.0);
        if top > begin {
            let count = ((top - begin) / 2.0).ceil().clamp(1.0, 32.0);
            let width = (top - begin) / count;
            for n in 0..count as u32 {
                let left = begin + f64::from(n) * width;
                quadrature::visit(left, left + width, |delta, weight| {
                    let (past, value) = ln_integrand(delta);
                    visit(weight * m * exp(value - peak), past);
                });
            }
        }
        for (left, right) in GRADES.iter().zip(GRADES.iter().skip(1)) {
            let (left, right) = (top + (end - top) * left, top + (end - top) * right);
            quadrature::visit(left, right, |delta, weight| {
                let (past, value) = ln_integrand(delta);
                visit(weight * m * exp(value - peak), past);
            });
        }
        peak
    }
}

#[derive(Default)]
struct Moments {
    ln_alpha: f64,
    per_alpha: f64,
    ln_beta: f64,
    per_beta: f64,
}

/// The end of the stretch from `low` on which `holds` is true (it is false at `high`), to a thousandth of the stretch.
fn last_where(low: f64, high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (low, high);
    for _ in 0..24 {
        let middle = 0.5 * (low + high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// ln(1 + e^z) without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + log1p(exp(-z.abs()))
}
