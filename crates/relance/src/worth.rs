//! What is at stake when a customer leaves, and what a contact may cost (R31, R37, R39, R45).
//!
//! Value at stake = what the customer brought in the year up to their last purchase, net of what was given back, times the
//! margin, times how far the watched score stands above the level at which the customer counts as recovered. It is what a
//! year is worth if the risk fell back to that healthy level, less what it is worth at the present risk. It never looks
//! into a model: it is money from the record and one probability.

use crate::complaint::times;
use crate::policy::{Economics, Offer};
use std::collections::BTreeMap;
use vigie_event::{Channel, Currency, Signal};
use vigie_scoring::CustomerState;

/// Contacts that the prior of a response counts as.
const PRIOR_CONTACTS: f64 = 10.0;
/// Days of a year.
const YEAR: i32 = 365;

/// Money at stake, in minor units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stake {
    /// Value at stake.
    pub(crate) minor: f64,
    /// What the customer brought in the year up to their last purchase, before margin.
    pub(crate) year: f64,
    pub(crate) currency: Currency,
    /// Whether costs are in the same currency.
    pub(crate) comparable: bool,
}

impl Stake {
    /// What is at stake at a risk, if the healthy level is another; `None` for a customer who has never paid anything.
    pub(crate) fn of(state: &CustomerState, economics: &Economics, risk: f64, healthy: f64) -> Option<Self> {
        let whole = state.combined();
        let purchases = whole.purchases();
        let mut spent: BTreeMap<Currency, i64> = BTreeMap::new();
        for (_, currency, minor) in purchases.amounts() {
            let sum = spent.entry(currency).or_default();
            *sum = sum.saturating_add(minor);
        }
        // Of equals the first by its code.
        let (currency, _) = spent.iter().rev().max_by_key(|(_, sum)| **sum)?;
        let currency = *currency;
        let (_, last, _) = purchases.span()?;
        let year = purchases
            .amounts()
            .filter(|(day, of, _)| *of == currency && last.days_since(*day) < YEAR)
            .fold(0i64, |sum, (_, _, minor)| sum.saturating_add(minor));
        let (_, totals) = purchases.totals().find(|(of, _)| *of == currency)?;
        let kept = if totals.gross > 0 {
            (totals.net().max(0) as f64) / (totals.gross as f64)
        } else {
            0.0
        };
        let year = year as f64 * kept;
        let comparable = economics.currency.is_none_or(|of| of == currency);
        let minor = year * economics.margin * (risk - healthy).max(0.0);
        let replaced = economics.acquisition_cost.filter(|_| comparable);
        Some(Self {
            minor: replaced.map_or(minor, |cost| minor.min(cost * units(currency))),
            year,
            currency,
            comparable,
        })
    }

    /// What a contact is expected to save, in minor units.
    pub(crate) fn gain(&self, response: f64, effect: f64) -> f64 {
        self.minor * response * effect
    }
}

/// Minor units in a major one.
pub(crate) fn units(currency: Currency) -> f64 {
    (0..currency.exponent()).fold(1.0, |units, _| units * 10.0)
}

/// The share of contacts by a channel that this customer responds to: observed, with the offer's prior worth ten contacts.
pub(crate) fn response(offer: &Offer, state: &CustomerState) -> f64 {
    let count = |signal| times(state, signal).map_or(0, |times| times.count);
    let (contacts, responses) = match offer.channel {
        Channel::Email => (
            count(Signal::EmailSent).max(count(Signal::EmailDelivered)),
            count(Signal::EmailClick),
        ),
        Channel::Phone => (
            count(Signal::CallOutbound).saturating_add(count(Signal::RelanceContacted)),
            count(Signal::ContactAnswered),
        ),
        _ => (0, 0),
    };
    let (contacts, responses) = (contacts as f64, responses.min(contacts) as f64);
    (offer.response * PRIOR_CONTACTS + responses) / (PRIOR_CONTACTS + contacts)
}
