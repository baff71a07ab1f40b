//! Money: what a purchase of a customer is worth (Gamma-Gamma), and what is still to come from them (CLV).
//!
//! A customer's purchases have a mean that varies between customers as an inverse gamma; how much and how often are taken
//! to be independent. Source: Fader, Hardie, "The Gamma-Gamma model of monetary value", note 025, 2013. It never reads
//! purchases itself: the mean is over repeat purchase days, in whatever currency the parameters were fitted in.

use libm::{exp, lgamma, log, log1p};

/// One fitted Gamma-Gamma: spend of a purchase is Gamma(`p`, ν) with ν from Gamma(`q`, `v`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GammaGamma {
    /// Shape of one purchase, > 0.
    pub p: f64,
    /// Shape between customers, > 1 for a finite mean.
    pub q: f64,
    /// Scale between customers, > 0, in units of money.
    pub v: f64,
}

impl GammaGamma {
    /// Mean spend of a purchase over all customers: p·v / (q − 1).
    #[must_use]
    pub fn population_mean(&self) -> f64 {
        self.p * self.v / (self.q - 1.0)
    }

    /// Mean spend of a purchase of one customer: p·(v + x·mean) / (p·x + q − 1), between the customer's own mean over `x`
    /// repeat purchases and the population's. The population's without repeat purchase or without a positive mean.
    #[must_use]
    pub fn expected_spend(&self, x: u32, mean: f64) -> f64 {
        let x = if mean > 0.0 { f64::from(x) } else { 0.0 };
        self.p * (self.v + x * mean.max(0.0)) / (self.p * x + self.q - 1.0)
    }

    /// ln of the density of the mean over `x` ≥ 1 repeat purchases, `mean` > 0.
    #[must_use]
    pub fn ln_likelihood(&self, x: u32, mean: f64) -> f64 {
        let x = f64::from(x);
        let px = self.p * x;
        lgamma(px + self.q) - lgamma(px) - lgamma(self.q) + self.q * log(self.v) + (px - 1.0) * log(mean) + px * log(x)
            - (px + self.q) * log(x * mean + self.v)
    }
}

/// Discounted expected purchases over `periods` equal periods: Σ (E(i·length) − E((i−1)·length)) / (1 + rate)^i, where
/// `expected` gives the purchases expected from now within a time in the model's unit.
#[must_use]
pub fn discounted_purchases(expected: impl Fn(f64) -> f64, periods: u32, length: f64, rate: f64) -> f64 {
    let (mut before, mut sum) = (0.0, 0.0);
    for period in 1..=periods {
        let until = expected(f64::from(period) * length);
        sum += (until - before).max(0.0) * exp(-f64::from(period) * log1p(rate));
        before = until;
    }
    sum
}

/// What is lost if a customer goes: the value still to come if they are kept, times the probability that they are lost.
///
/// `expected_value` is what the model expects *with* the chance of churn in it, hence the value if kept is
/// expected / (1 − churn); bounded so that a customer who is all but gone is not worth infinitely much.
#[must_use]
pub fn value_at_stake(expected_value: f64, churn: f64) -> f64 {
    let churn = churn.clamp(0.0, 1.0);
    expected_value.max(0.0) * (churn / (1.0 - churn).max(0.05)).min(20.0)
}
