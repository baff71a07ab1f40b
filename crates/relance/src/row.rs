//! The customer row that predicates speak about: the columns of table `customers` of `vigie sql` that only events change.
//!
//! Scores, the stage and the moment itself are left out on purpose: they change with time alone, and a predicate that did so
//! would have to be watched. A policy's threshold watches the score; a predicate says who.

use vigie_event::{CustomerKey, Day, Timestamp};
use vigie_scoring::{CustomerState, Features};

/// One customer, by what only events change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Owner of the customer.
    pub workspace: String,
    /// The customer's id; anonymous ones as `anonymous:ID`.
    pub customer: String,
    /// Days with a purchase, in the window of ten years.
    pub purchases: u32,
    /// Money spent less money given back, in minor units of `currency`.
    pub revenue_minor: Option<i64>,
    /// The currency with the greatest sum of purchases.
    pub currency: Option<String>,
    /// First sign of life.
    pub first_activity: Option<Timestamp>,
    /// Last sign of life.
    pub last_activity: Option<Timestamp>,
    /// Day of the last purchase.
    pub last_purchase_day: Option<Day>,
    /// Days with a sign of life, in the window of 400 days.
    pub active_days: u32,
}

impl Row {
    /// Reads a customer's record.
    #[must_use]
    pub fn of(key: &CustomerKey, state: &CustomerState, features: &Features) -> Self {
        let whole = state.combined();
        let money = whole.purchases().totals().max_by_key(|(_, totals)| totals.gross);
        Self {
            workspace: key.workspace.to_string(),
            customer: key.person.to_string(),
            purchases: features.purchases.map_or(0, |purchases| purchases.x.saturating_add(1)),
            revenue_minor: money.map(|(_, totals)| totals.net()),
            currency: money.map(|(currency, _)| currency.to_string()),
            first_activity: whole.first_activity(),
            last_activity: whole.last_activity(),
            last_purchase_day: features.purchases.map(|purchases| purchases.last),
            active_days: features.engagement.map_or(0, |acts| acts.x.saturating_add(1)),
        }
    }
}
