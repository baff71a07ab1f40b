//! The digamma function, which the gradients of the likelihoods need and `libm` does not have. It never serves scores.

use libm::log;

/// ψ(x) = d ln Γ(x) / dx for x > 0: recurrence up to 10, then the asymptotic series (Abramowitz, Stegun, 6.3.18).
#[must_use]
pub fn digamma(x: f64) -> f64 {
    let (mut x, mut sum) = (x, 0.0);
    while x < 10.0 {
        sum -= 1.0 / x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = square
        * (1.0 / 12.0
            - square
                * (1.0 / 120.0
                    - square
                        * (1.0 / 252.0 - square * (1.0 / 240.0 - square * (5.0 / 660.0 - square * 691.0 / 32760.0)))));
    sum + log(x) - 0.5 / x - series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known values: ψ(1) = −γ, ψ(1/2) = −γ − 2 ln 2, ψ(n + 1) = ψ(n) + 1/n.
    #[test]
    fn known_values() {
        let gamma = 0.577_215_664_901_532_9;
        let pairs = [
            (1.0, -gamma),
            (0.5, -gamma - 2.0 * libm::log(2.0)),
            (2.0, 1.0 - gamma),
            (1e6, 13.815_510_057_964_191),
        ];
        for (x, expected) in pairs {
            assert!(
                (digamma(x) - expected).abs() < 1e-13 * f64::max(1.0, f64::abs(expected)),
                "ψ({x}) = {}",
                digamma(x)
            );
        }
    }

    #[test]
    fn it_is_the_slope_of_lgamma() {
        for x in [1e-3, 0.1, 0.7, 3.3, 42.0, 1e4] {
            let h = 1e-5 * x;
            let slope = (libm::lgamma(x + h) - libm::lgamma(x - h)) / (2.0 * h);
            assert!((digamma(x) - slope).abs() < 1e-6 * slope.abs().max(1.0), "x = {x}");
        }
    }
}
