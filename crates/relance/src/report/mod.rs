//! Reports on what relance is worth: whether policies work ([`policies`]), who makes up the value ([`portfolio`]), and why
//! customers were lost ([`losses`]).
//!
//! Each is a builder that is shown flags, events or records one by one, in any order that its own words name, and gives a value
//! that can be written as JSON. Nothing here reads a file, a clock or a model's inside, and nothing words a page: whoever shows
//! a report adds its layout, never a number.

pub mod losses;
pub mod policies;
pub mod portfolio;

use serde::Serialize;
use std::collections::BTreeMap;
use vigie_event::Currency;

/// Sums of money in minor units, by currency code.
pub type Money = BTreeMap<String, i64>;

/// Adds an amount.
pub(crate) fn add(to: &mut Money, currency: Currency, minor: i64) {
    let sum = to.entry(currency.to_string()).or_default();
    *sum = sum.saturating_add(minor);
}

/// An estimate with the interval that it is to be read with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The best guess.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Estimate {
    pub(crate) fn times(self, factor: f64) -> Self {
        Self {
            estimate: self.estimate * factor,
            low: self.low * factor,
            high: self.high * factor,
        }
    }

    pub(crate) fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self {
            estimate: change(self.estimate),
            low: change(self.low),
            high: change(self.high),
        }
    }
}
