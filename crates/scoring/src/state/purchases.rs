//! Purchases: one entry per purchase day, and running sums of money per currency.
//!
//! From it come x, t_x and T of the BTYD models (purchases of one day are one) and historical value. Order-free for the
//! same set of observations, and additive: the purchases of a union are the sum.
//!
//! Bounds: the 3,650 days up to the newest purchase day ([`WINDOW_DAYS`]), older days are dropped, also when they arrive
//! late; 8 currencies ([`MAX_CURRENCIES`]), the alphabetically smallest stay. Sums saturate; each only ever grows in one
//! direction, so saturation cannot depend on the order either.

use super::SortedMap;
use vigie_event::{Currency, Day, Money};

/// Days kept: the newest purchase day and the 3,649 before it (ten years).
pub const WINDOW_DAYS: i32 = 3650;
/// Currencies kept per person.
pub const MAX_CURRENCIES: usize = 8;

/// Money of one currency over the whole life, in minor units. It counts days that have left the window too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Totals {
    /// Sum of purchases, ≥ 0, never falls.
    pub gross: i64,
    /// Sum of refunds, ≤ 0, never rises.
    pub refunds: i64,
}

impl Totals {
    /// Historical value: purchases less refunds.
    #[must_use]
    pub fn net(self) -> i64 {
        self.gross.saturating_add(self.refunds)
    }
}

/// A person's purchases.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Purchases {
    /// Orders per purchase day, ≥ 1, saturating; bounded by the window.
    days: SortedMap<Day, u32>,
    /// Amount per purchase day and currency in minor units, ≥ 0; orders without an amount leave none.
    gross: SortedMap<(Day, Currency), i64>,
    /// Money over the whole life; at most [`MAX_CURRENCIES`].
    totals: SortedMap<Currency, Totals>,
}

impl Purchases {
    /// Notes an order. A negative amount is not an order: it counts as money given back.
    pub(crate) fn note_order(&mut self, day: Day, money: Option<Money>) {
        if money.is_some_and(|money| money.minor < 0) {
            return self.note_refund(money);
        }
        if let Some(money) = money {
            self.add_totals(
                money.currency,
                Totals {
                    gross: money.minor,
                    refunds: 0,
                },
            );
        }
        self.add_orders(day, 1);
        if let Some(money) = money {
            self.add_gross(day, money.currency, money.minor);
        }
        self.keep_bounds();
    }

    /// Notes money given back, whatever the sign it was reported with.
    pub(crate) fn note_refund(&mut self, money: Option<Money>) {
        if let Some(money) = money {
            // −|minor| exists for every i64, +|minor| does not.
            let refunds = if money.minor > 0 { -money.minor } else { money.minor };
            self.add_totals(money.currency, Totals { gross: 0, refunds });
            self.keep_bounds();
        }
    }

    /// Takes in another person's purchases.
    pub(crate) fn unite(&mut self, other: &Self) {
        for (currency, theirs) in other.totals.iter() {
            self.add_totals(*currency, *theirs);
        }
        for (day, orders) in other.days.iter() {
            self.add_orders(*day, *orders);
        }
        for ((day, currency), amount) in other.gross.iter() {
            self.add_gross(*day, *currency, *amount);
        }
        self.keep_bounds();
    }

    /// The purchase days in order, with the number of orders of each.
    pub fn days(&self) -> impl DoubleEndedIterator<Item = (Day, u32)> + ExactSizeIterator {
        self.days.iter().map(|(day, orders)| (*day, *orders))
    }

    /// Amounts per purchase day and currency in minor units, in order.
    pub fn amounts(&self) -> impl DoubleEndedIterator<Item = (Day, Currency, i64)> + ExactSizeIterator {
        self.gross
            .iter()
            .map(|((day, currency), amount)| (*day, *currency, *amount))
    }

    /// Sums over the whole life, per currency.
    pub fn totals(&self) -> impl ExactSizeIterator<Item = (Currency, Totals)> {
        self.totals.iter().map(|(currency, totals)| (*currency, *totals))
    }

    /// First and last purchase day in the window and the number of distinct ones.
    #[must_use]
    pub fn span(&self) -> Option<(Day, Day, usize)> {
        let (first, _) = self.days.first()?;
        let (last, _) = self.days.last()?;
        Some((*first, *last, self.days.len()))
    }

    /// Rebuilds purchases from stored lists; `None` when they break the invariants.
    pub(super) fn restore(
        days: SortedMap<Day, u32>,
        gross: SortedMap<(Day, Currency), i64>,
        totals: SortedMap<Currency, Totals>,
    ) -> Option<Self> {
        let sound = totals.len() <= MAX_CURRENCIES
            && totals.iter().all(|(_, t)| t.gross >= 0 && t.refunds <= 0)
            && days.iter().all(|(_, orders)| *orders > 0)
            && gross
                .iter()
                .all(|((d, c), sum)| *sum >= 0 && days.get(d).is_some() && totals.get(c).is_some());
        sound.then_some(Self { days, gross, totals })
    }

    fn add_totals(&mut self, currency: Currency, by: Totals) {
        self.totals.update(currency, Totals::default(), |totals| {
            totals.gross = totals.gross.saturating_add(by.gross);
            totals.refunds = totals.refunds.saturating_add(by.refunds);
        });
    }

    fn add_orders(&mut self, day: Day, by: u32) {
        self.days.update(day, 0, |orders| *orders = orders.saturating_add(by));
    }

    fn add_gross(&mut self, day: Day, currency: Currency, by: i64) {
        self.gross
            .update((day, currency), 0, |sum| *sum = sum.saturating_add(by));
    }

    fn keep_bounds(&mut self) {
        if let Some(forgotten) = self
            .days
            .last()
            .map(|(newest, _)| Day(newest.0.saturating_sub(WINDOW_DAYS)))
            && self.days.first().is_some_and(|(first, _)| *first <= forgotten)
        {
            self.days.retain(|day, _| *day > forgotten);
            self.gross.retain(|(day, _), _| *day > forgotten);
        }
        if self.totals.len() > MAX_CURRENCIES {
            self.totals.truncate(MAX_CURRENCIES);
            let totals = &self.totals;
            self.gross.retain(|(_, currency), _| totals.get(currency).is_some());
        }
    }
}
