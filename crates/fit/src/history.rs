//! A history of purchases, and what of it may be seen at a cut-off.
//!
//! The one door to the past: [`History::as_of`] gives a customer's pace from purchases *before* a day, [`History::churned`]
//! the label from those *from* it on. Nothing else of this crate looks at single purchases, so that no feature can see its
//! own future; a test changes everything from the cut-off on and expects equal rows.

use crate::btyd::Cells;
use std::collections::BTreeMap;
use vigie_event::Day;
use vigie_scoring::churn::Pace;

/// Purchases per customer and day.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    customers: Vec<(String, Vec<(Day, f64)>)>,
}

impl History {
    /// Takes in (customer, day, amount) in any order; purchases of one day are one. Customers keep the order of their first
    /// appearance.
    pub fn of<S: Into<String>>(purchases: impl IntoIterator<Item = (S, Day, f64)>) -> Self {
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        let mut days: Vec<(String, BTreeMap<Day, f64>)> = Vec::new();
        for (customer, day, amount) in purchases {
            let customer = customer.into();
            let at = *index.entry(customer).or_insert_with_key(|customer| {
                days.push((customer.clone(), BTreeMap::new()));
                days.len() - 1
            });
            if let Some((_, days)) = days.get_mut(at) {
                *days.entry(day).or_default() += amount;
            }
        }
        Self {
            customers: days
                .into_iter()
                .map(|(customer, days)| (customer, days.into_iter().collect()))
                .collect(),
        }
    }

    /// Number of customers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.customers.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.customers.is_empty()
    }

    /// First and last purchase day of all.
    #[must_use]
    pub fn span(&self) -> Option<(Day, Day)> {
        let first = self
            .customers
            .iter()
            .filter_map(|(_, days)| days.first().map(|(day, _)| *day))
            .min()?;
        let last = self
            .customers
            .iter()
            .filter_map(|(_, days)| days.last().map(|(day, _)| *day))
            .max()?;
        Some((first, last))
    }

    /// The customer's id.
    #[must_use]
    pub fn customer(&self, index: usize) -> Option<&str> {
        self.customers.get(index).map(|(customer, _)| customer.as_str())
    }

    /// Every customer's pace from the purchases before `cutoff`, with their index; those without any are left out.
    pub fn as_of(&self, cutoff: Day) -> impl Iterator<Item = (usize, Pace)> {
        self.customers.iter().enumerate().filter_map(move |(index, (_, days))| {
            Pace::of(days.iter().take_while(|(day, _)| *day < cutoff).copied()).map(|pace| (index, pace))
        })
    }

    /// Whether the customer bought nothing in `cutoff..cutoff + horizon`.
    #[must_use]
    pub fn churned(&self, index: usize, cutoff: Day, horizon_days: u16) -> bool {
        let end = Day(cutoff.0.saturating_add(i32::from(horizon_days)));
        let bought = |(day, _): &(Day, f64)| (cutoff..end).contains(day);
        !self
            .customers
            .get(index)
            .is_some_and(|(_, days)| days.iter().any(bought))
    }

    /// The cells that BTYD models are fitted to at a cut-off: all customers, T to the cut-off.
    #[must_use]
    pub fn cells(&self, cutoff: Day) -> Cells {
        Cells::of(self.as_of(cutoff).map(|(_, pace)| pace.recency(cutoff)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purchases_of_one_day_are_one_and_the_cutoff_is_not_seen() {
        let history = History::of([
            ("a", Day(5), 1.0),
            ("b", Day(9), 1.0),
            ("a", Day(5), 2.0),
            ("a", Day(8), 4.0),
        ]);
        let (index, pace) = history.as_of(Day(8)).next().unwrap();
        assert_eq!((index, pace.x, pace.last_spend), (0, 0, 3.0));
        assert_eq!(history.as_of(Day(8)).count(), 1);
        assert_eq!(
            (history.churned(0, Day(8), 1), history.churned(0, Day(6), 2)),
            (false, true)
        );
        assert_eq!(history.span(), Some((Day(5), Day(9))));
    }
}
