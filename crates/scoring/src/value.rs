//! Money: what a customer has brought, what a purchase of theirs is worth (Gamma-Gamma), and what is still to come.
//!
//! A customer's purchases have a mean that varies between customers as an inverse gamma; how much and how often are taken
//! to be independent. Source: Fader, Hardie, "The Gamma-Gamma model of monetary value", note 025, 2013. It never reads
//! purchases itself: the mean is over repeat purchase days, in whatever currency the parameters were fitted in.

use crate::features::Scorer;
use crate::state::Part;
use libm::{exp, lgamma, log, log1p, pow};
use std::collections::BTreeMap;
use vigie_event::{Currency, Timestamp};

/// Days of the coming year.
const YEAR_DAYS: u16 = 365;

/// What a purchase and a customer cost, by item: goods, order handling, logistics, after-sales, promotions, sales force,
/// advertising.
pub const COST_ITEMS: [&str; 7] = [
    "goods",
    "order-handling",
    "logistics",
    "after-sales",
    "promotions",
    "sales-force",
    "advertising",
];

/// One item of cost. Money in major units.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Cost {
    /// Share of what the customer pays, 0 to 1.
    pub share: f64,
    /// For each purchase, ≥ 0.
    pub per_purchase: f64,
    /// For each year with the customer, ≥ 0.
    pub per_year: f64,
}

/// How money is counted: the section `[value]` of the model file.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueModel {
    /// Currency of everything below; `None`: there is only one.
    pub currency: Option<Currency>,
    /// Spend of a purchase; without it, a customer's own mean is expected.
    pub spend: Option<GammaGamma>,
    /// Costs by item, one of [`COST_ITEMS`].
    pub costs: BTreeMap<String, Cost>,
    /// What money loses in a year, ≥ 0.
    pub discount_rate: f64,
    /// Years that the lifetime value looks ahead.
    pub years: u16,
    /// What it cost to win the customer, ≥ 0.
    pub acquisition: f64,
}

impl Default for ValueModel {
    /// No costs, 10 % a year, five years.
    fn default() -> Self {
        Self {
            currency: None,
            spend: None,
            costs: BTreeMap::new(),
            discount_rate: 0.1,
            years: 5,
            acquisition: 0.0,
        }
    }
}

/// What a customer is worth, in major units of the currency in which they have spent most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value {
    /// The currency.
    pub currency: Currency,
    /// Historical value: purchases less refunds, over the whole life.
    pub historical: f64,
    /// Purchases to be expected in the coming year, by MBG/NBD.
    pub purchases: f64,
    /// What one of them is expected to bring before costs.
    pub spend: f64,
    /// The same after costs by share and by purchase.
    pub margin: f64,
    /// Current value: expected margin of the coming year, less what a customer costs in a year while they are one. It falls
    /// under silence.
    pub current: f64,
    /// Potential value: the same if they certainly were still a customer.
    pub potential: f64,
    /// Value at stake: potential less current value, bounded by [`value_at_stake`].
    pub at_stake: f64,
    /// Probability of a purchase within the coming year: 1 − churn.
    pub retention: f64,
    /// What money loses in a year.
    pub discount_rate: f64,
    /// Lifetime value: the current value over the model's years, each next one with the probability of staying and discounted,
    /// Σ current·retention^t / (1 + discount)^t, less the cost of winning the customer.
    pub lifetime: f64,
}

/// The value at `now`; `None` for those who never bought, or never for money.
#[must_use]
pub fn value(scorer: &Scorer<'_>, part: &Part, now: Timestamp) -> Option<Value> {
    let model = &scorer.model().value;
    let purchases = scorer.features().purchases?;
    let currency = main_currency(part)?;
    let unit = pow(10.0, -f64::from(currency.exponent()));
    let spent: Vec<f64> = part
        .purchases()
        .amounts()
        .filter(|(_, of, _)| *of == currency)
        .map(|(_, _, minor)| minor as f64 * unit)
        .collect();
    let historical = part
        .purchases()
        .totals()
        .find(|(of, _)| *of == currency)
        .map(|(_, totals)| totals.net());
    let days = f64::from(purchases.x) + 1.0;
    let sum: f64 = spent.iter().sum();
    let spend = match model.spend.filter(|_| model.currency.is_none_or(|of| of == currency)) {
        // The mean over repeat purchases: the first one is how the customer was won.
        Some(spend) => {
            let repeats = sum - spent.first().copied().unwrap_or_default();
            spend.expected_spend(purchases.x, repeats / f64::from(purchases.x.max(1)))
        }
        None => sum / days,
    };
    let mut costs = Cost::default();
    for cost in model.costs.values() {
        costs.share += cost.share;
        costs.per_purchase += cost.per_purchase;
        costs.per_year += cost.per_year;
    }
    let recency = purchases.recency(now);
    let btyd = &scorer.model().mbg;
    let alive = btyd.p_alive(recency);
    let expected = btyd.expected_purchases(recency, f64::from(YEAR_DAYS) / 7.0);
    let margin = spend * (1.0 - costs.share) - costs.per_purchase;
    let current = expected * margin - alive * costs.per_year;
    let at_stake = value_at_stake(current, 1.0 - alive);
    let retention = 1.0
        - scorer
            .churn_terms(YEAR_DAYS, now)
            .map_or(1.0, crate::btyd::NoPurchase::total);
    let kept = retention / (1.0 + model.discount_rate);
    // Σ kept^t over the years, term by term: kept may be 1.
    let mut years = 0.0;
    for _ in 0..model.years {
        years = years * kept + 1.0;
    }
    Some(Value {
        currency,
        historical: historical.unwrap_or_default() as f64 * unit,
        purchases: expected,
        spend,
        margin,
        current,
        potential: current + at_stake,
        at_stake,
        retention,
        discount_rate: model.discount_rate,
        lifetime: current * years - model.acquisition,
    })
}

/// The currency in which most was spent (of equals the first by its code); `None` where nothing was.
pub(crate) fn main_currency(part: &Part) -> Option<Currency> {
    let mut spent: BTreeMap<Currency, i64> = BTreeMap::new();
    for (_, currency, minor) in part.purchases().amounts() {
        let sum = spent.entry(currency).or_default();
        *sum = sum.saturating_add(minor);
    }
    // `max_by_key` takes the last of equals; reversed, that is the first.
    spent
        .iter()
        .rev()
        .max_by_key(|(_, sum)| **sum)
        .map(|(currency, _)| *currency)
}

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
