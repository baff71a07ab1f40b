//! Maximum likelihood for the BTYD family: BG/NBD, MBG/NBD and Pareto/NBD on the table of distinct (x, t_x, T).
//!
//! Parameters are fitted as logarithms, with a weak normal prior on each (a standard deviation of 15 around an everyday
//! value, a small fraction of one customer): it decides nothing where there are data, and keeps a likelihood that is flat from
//! running away (Pareto/NBD on Online Retail II goes to s → ∞ without it). It never looks at single events.

use crate::optimize::{Minimum, minimise};
use crate::special::digamma;
use libm::{exp, lgamma, log, log1p};
use std::collections::BTreeMap;
use vigie_scoring::btyd::{Btyd, Family, Recency, sigmoid};
use vigie_scoring::pareto::ParetoNbd;

/// Most steps of one fit.
const MAX_STEPS: u32 = 300;
/// Largest component of the gradient of the mean log-likelihood at which a fit has converged.
const TOLERANCE: f64 = 1e-8;
/// Bounds of ln of a parameter: the model file's range of 0.001 to 10,000.
const LN_RANGE: (f64, f64) = (-6.907_755_278_982_137, 9.210_340_371_976_184);
/// Standard deviation of the prior on ln of a parameter.
const PRIOR_DEVIATION: f64 = 15.0;

/// Customers as counts of equal (x, t_x, T): all that a likelihood depends on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cells {
    cells: Vec<(Recency, f64)>,
    customers: f64,
}

impl Cells {
    /// Counts customers; times in weeks, cells in the order of their values.
    pub fn of(customers: impl IntoIterator<Item = Recency>) -> Self {
        let mut counts: BTreeMap<(u32, u64, u64), f64> = BTreeMap::new();
        for c in customers {
            // Times are not negative, so their bits are in their order.
            *counts
                .entry((c.x, c.t_x.max(0.0).to_bits(), c.age.max(c.t_x).max(0.0).to_bits()))
                .or_default() += 1.0;
        }
        let customers = counts.values().sum();
        let cell = |((x, t_x, age), n)| {
            (
                Recency {
                    x,
                    t_x: f64::from_bits(t_x),
                    age: f64::from_bits(age),
                },
                n,
            )
        };
        Self {
            cells: counts.into_iter().map(cell).collect(),
            customers,
        }
    }

    /// Number of customers.
    #[must_use]
    pub fn customers(&self) -> f64 {
        self.customers
    }

    /// Sum of a function over the customers.
    pub fn sum(&self, mut f: impl FnMut(Recency) -> f64) -> f64 {
        self.cells.iter().map(|(recency, n)| n * f(*recency)).sum()
    }
}

/// A fit and how good it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fitted<M> {
    /// The model.
    pub model: M,
    /// ln of the likelihood of all customers at the fit, without the prior.
    pub ln_likelihood: f64,
    /// Steps that the search took.
    pub steps: u32,
    /// Whether it ended by itself.
    pub converged: bool,
}

/// Everyday parameters (weeks): where searches start and priors lie.
fn start(family: Family) -> [f64; 4] {
    match family {
        Family::Bg => [0.4, 6.0, 0.7, 2.5],
        Family::Mbg => [0.6, 7.0, 0.8, 2.0],
    }
}

const PARETO_START: [f64; 4] = [0.6, 10.0, 0.6, 12.0];

/// Fits BG/NBD or MBG/NBD. `warm` is where to start, an earlier fit for instance.
#[must_use]
pub fn fit(family: Family, cells: &Cells, warm: Option<&Btyd>) -> Fitted<Btyd> {
    let prior = start(family).map(log);
    let from = warm.map_or(prior, |m| [m.r, m.alpha, m.a, m.b].map(log));
    let build = |p: [f64; 4]| Btyd {
        family,
        r: p[0],
        alpha: p[1],
        a: p[2],
        b: p[3],
    };
    let minimum = search(from, prior, cells, |p| {
        let counts = Counts::of(&build(p), cells);
        let model = build(p);
        move |recency| gradient(&model, &counts, recency)
    });
    let model = build(parameters(&minimum.at));
    Fitted {
        model,
        ln_likelihood: cells.sum(|recency| model.ln_likelihood(recency)),
        steps: minimum.steps,
        converged: minimum.converged,
    }
}

/// Fits Pareto/NBD.
#[must_use]
pub fn fit_pareto(cells: &Cells, warm: Option<&ParetoNbd>) -> Fitted<ParetoNbd> {
    let prior = PARETO_START.map(log);
    let from = warm.map_or(prior, |m| [m.r, m.alpha, m.s, m.beta].map(log));
    let build = |p: [f64; 4]| ParetoNbd {
        r: p[0],
        alpha: p[1],
        s: p[2],
        beta: p[3],
    };
    let minimum = search(from, prior, cells, |p| {
        let model = build(p);
        move |recency| model.ln_likelihood_gradient(recency, digamma)
    });
    let model = build(parameters(&minimum.at));
    Fitted {
        model,
        ln_likelihood: cells.sum(|recency| model.ln_likelihood(recency)),
        steps: minimum.steps,
        converged: minimum.converged,
    }
}

/// Minimises −(mean ln L) plus the priors over the logarithms of four parameters.
fn search<G: Fn(Recency) -> (f64, [f64; 4])>(
    from: [f64; 4],
    prior: [f64; 4],
    cells: &Cells,
    at: impl Fn([f64; 4]) -> G,
) -> Minimum {
    let per_customer = 1.0 / cells.customers.max(1.0);
    let precision = per_customer / (PRIOR_DEVIATION * PRIOR_DEVIATION);
    minimise(&from, MAX_STEPS, TOLERANCE, |ln, gradient| {
        // Beyond the range the value goes on as a plane would, so that the search turns round by itself.
        let outside: f64 = ln.iter().map(|z| (LN_RANGE.0 - z).max(z - LN_RANGE.1).max(0.0)).sum();
        if outside > 0.0 {
            return f64::INFINITY;
        }
        let p = parameters(ln);
        let evaluate = at(p);
        let (mut value, mut sums) = (0.0, [0.0; 4]);
        for (recency, n) in &cells.cells {
            let (one, by) = evaluate(*recency);
            value -= n * one;
            sums.iter_mut().zip(by).for_each(|(sum, by)| *sum -= n * by);
        }
        let mut penalty = 0.0;
        for ((((g, sum), p), z), mean) in gradient.iter_mut().zip(sums).zip(p).zip(ln).zip(prior) {
            *g = sum * p * per_customer + precision * (z - mean);
            penalty += 0.5 * precision * (z - mean) * (z - mean);
        }
        value * per_customer + penalty
    })
}

fn parameters(ln: &[f64]) -> [f64; 4] {
    let mut p = [1.0; 4];
    p.iter_mut().zip(ln).for_each(|(p, z)| *p = exp(*z));
    p
}

/// What depends on x alone, once per distinct x instead of once per cell.
struct Counts {
    by_x: BTreeMap<u32, (f64, [f64; 4])>,
}

impl Counts {
    fn of(model: &Btyd, cells: &Cells) -> Self {
        let Btyd { family, r, a, b, .. } = *model;
        let mut by_x = BTreeMap::new();
        for (recency, _) in &cells.cells {
            let _ = by_x.entry(recency.x).or_insert_with(|| {
                let x = f64::from(recency.x);
                let survived = if family == Family::Mbg { x + 1.0 } else { x };
                let beta = |a: f64, b: f64| lgamma(a) + lgamma(b) - lgamma(a + b);
                let value = lgamma(r + x) - lgamma(r) + beta(a, b + survived) - beta(a, b);
                let rest = digamma(a + b + survived);
                let gradient = [
                    digamma(r + x) - digamma(r),
                    0.0,
                    digamma(a + b) - rest,
                    digamma(b + survived) - digamma(b) + digamma(a + b) - rest,
                ];
                (value, gradient)
            });
        }
        Self { by_x }
    }
}

/// ln L of one customer and its derivatives by r, α, a and b.
fn gradient(model: &Btyd, counts: &Counts, recency: Recency) -> (f64, [f64; 4]) {
    let Btyd { family, r, alpha, a, b } = *model;
    let x = f64::from(recency.x);
    let (t_x, age) = (recency.t_x, recency.t_x + recency.silence());
    let grown = log1p(age / alpha);
    if recency.x == 0 && family == Family::Bg {
        return (-r * grown, [-grown, r * age / (alpha * (alpha + age)), 0.0, 0.0]);
    }
    let (by_counts, [cr, _, ca, cb]) = counts.by_x.get(&recency.x).copied().unwrap_or_default();
    let last = if family == Family::Bg { x - 1.0 } else { x };
    let silence = log1p((age - t_x) / (alpha + t_x));
    let logit = log((b + last) / a) - (r + x) * silence;
    let value = by_counts - r * grown - x * log(alpha + age);
    // ln L = alive + ln(1 + e^−logit): the second term's weight is P(dead).
    let dead = sigmoid(-logit);
    let softplus = (-logit).max(0.0) + log1p(exp(-logit.abs()));
    let gradient = [
        cr - grown + dead * silence,
        r * age / (alpha * (alpha + age))
            - x / (alpha + age)
            - dead * (r + x) * (1.0 / (alpha + t_x) - 1.0 / (alpha + age)),
        ca + dead / a,
        cb - dead / (b + last),
    ];
    (value + softplus, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> Vec<Recency> {
        let case = |(x, t_x, age)| Recency { x, t_x, age };
        [
            (0, 0.0, 0.0),
            (0, 0.0, 39.0),
            (1, 3.0, 30.0),
            (2, 30.4, 38.9),
            (7, 57.1, 76.1),
            (40, 90.0, 90.0),
            (100_000, 900.0, 1043.0),
        ]
        .map(case)
        .to_vec()
    }

    /// Central differences of the crate's own likelihood, which goldens with 40 digits vouch for.
    fn check(name: &str, p: [f64; 4], value: impl Fn([f64; 4]) -> f64, got: (f64, [f64; 4])) {
        assert!(
            (got.0 - value(p)).abs() <= 1e-9 * value(p).abs().max(1.0),
            "{name}: {} != {}",
            got.0,
            value(p)
        );
        for (k, by) in got.1.iter().enumerate() {
            let h = 1e-5 * p[k];
            let (mut up, mut down) = (p, p);
            up[k] += h;
            down[k] -= h;
            let slope = (value(up) - value(down)) / (2.0 * h);
            let scale = by.abs().max(1e-3 * value(p).abs() / p[k]).max(1e-3);
            assert!(
                (by - slope).abs() <= 2e-5 * scale,
                "{name} parameter {k}: {by} != {slope}"
            );
        }
    }

    #[test]
    fn gradients_are_the_slopes_of_the_likelihoods() {
        for recency in cases() {
            for family in [Family::Bg, Family::Mbg] {
                let p = [0.4, 5.0, 0.8, 2.3];
                let build = |p: [f64; 4]| Btyd {
                    family,
                    r: p[0],
                    alpha: p[1],
                    a: p[2],
                    b: p[3],
                };
                let counts = Counts::of(&build(p), &Cells::of([recency]));
                let got = gradient(&build(p), &counts, recency);
                check(
                    &format!("{family:?} {recency:?}"),
                    p,
                    |p| build(p).ln_likelihood(recency),
                    got,
                );
            }
            let p = [0.6, 10.0, 0.7, 12.0];
            let build = |p: [f64; 4]| ParetoNbd {
                r: p[0],
                alpha: p[1],
                s: p[2],
                beta: p[3],
            };
            let got = build(p).ln_likelihood_gradient(recency, digamma);
            check(
                &format!("Pareto {recency:?}"),
                p,
                |p| build(p).ln_likelihood(recency),
                got,
            );
        }
    }

    #[test]
    fn nobody_gives_the_prior() {
        let fitted = fit(Family::Mbg, &Cells::default(), None);
        assert!((fitted.model.r - 0.6).abs() < 1e-6 && fitted.converged, "{fitted:?}");
    }
}
