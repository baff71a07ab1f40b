//! Maximum likelihood for Gamma-Gamma: p, q and v from the mean spend over repeat purchase days.
//!
//! q is kept above 1, below which the population has no mean. It never mixes currencies: its caller brings one.

use crate::optimize::minimise;
use crate::special::digamma;
use libm::{exp, log};
use vigie_scoring::GammaGamma;

use crate::btyd::Fitted;

/// Standard deviation of the weak prior on each logarithm.
const PRIOR_DEVIATION: f64 = 15.0;

/// Fits to (repeat purchase days, mean spend over them); customers without repeat purchase or without a positive mean are
/// left out. `None` when nobody is left.
#[must_use]
pub fn fit_gamma_gamma(customers: impl IntoIterator<Item = (u32, f64)>) -> Option<Fitted<GammaGamma>> {
    let rows: Vec<(u32, f64)> = customers
        .into_iter()
        .filter(|(x, mean)| *x > 0 && *mean > 0.0 && mean.is_finite())
        .collect();
    if rows.is_empty() {
        return None;
    }
    let count = rows.len() as f64;
    let level = rows.iter().map(|(_, mean)| log(*mean)).sum::<f64>() / count;
    // q − 1 is what is searched, so that q stays above 1.
    let prior = [log(2.0), log(2.0), level + log(1.0)];
    let precision = 1.0 / (count * PRIOR_DEVIATION * PRIOR_DEVIATION);
    let build = |z: &[f64]| {
        let at = |k: usize| z.get(k).map_or(1.0, |z| exp(*z));
        GammaGamma {
            p: at(0),
            q: 1.0 + at(1),
            v: at(2),
        }
    };
    let minimum = minimise(&prior, 300, 1e-9, |z, gradient| {
        if z.iter().any(|z| z.abs() > 30.0) {
            return f64::INFINITY;
        }
        let model = build(z);
        let GammaGamma { p, q, v } = model;
        let (mut value, mut by) = (0.0, [0.0; 3]);
        let by_q = digamma(q);
        for (x, mean) in &rows {
            value -= model.ln_likelihood(*x, *mean);
            let x = f64::from(*x);
            let (px, total) = (p * x, x * mean + v);
            let both = digamma(px + q);
            by[0] -= x * (both - digamma(px) + log(x * mean) - log(total));
            by[1] -= both - by_q + log(v) - log(total);
            by[2] -= q / v - (px + q) / total;
        }
        let inner = [p, q - 1.0, v];
        let mut penalty = 0.0;
        for ((((g, by), inner), z), mean) in gradient.iter_mut().zip(by).zip(inner).zip(z).zip(prior) {
            *g = by * inner / count + precision * (z - mean);
            penalty += 0.5 * precision * (z - mean) * (z - mean);
        }
        value / count + penalty
    });
    let model = build(&minimum.at);
    Some(Fitted {
        model,
        ln_likelihood: rows.iter().map(|(x, mean)| model.ln_likelihood(*x, *mean)).sum(),
        steps: minimum.steps,
        converged: minimum.converged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_came_back_is_no_fit() {
        assert_eq!(fit_gamma_gamma([(0, 12.0), (2, 0.0), (3, f64::NAN)]), None);
    }
}
