//! What one identity has done, as plain maps: the oracle's own form of a part of the customer record.
//!
//! Windows: an active day is kept while it is one of the 400 days up to the newest active one, a purchase day while it is
//! one of the 3,650 days up to the newest purchase day. This file never judges an event and never reads the clock.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Channel, Currency, Day, EventId, Money, Signal, Timestamp};
use vigie_scoring::churn::{Pace, is_mail, is_site};
use vigie_scoring::{EngagementFeatures, Features, Incidents, PurchaseFeatures};

/// Active days kept.
const ACTIVE_WINDOW: i32 = 400;
/// Purchase days kept.
pub(crate) const PURCHASE_WINDOW: i32 = 3650;
/// Currencies kept; the alphabetically smallest stay.
pub(crate) const CURRENCIES: usize = 8;
/// Longest silence within a session, in seconds, inclusive.
const SESSION_GAP: i64 = 1800;

/// One active day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ActiveDay {
    pub(crate) counts: BTreeMap<Signal, u32>,
    /// First and last second of each session, in order. A session ends at midnight at the latest.
    pub(crate) sessions: Vec<(i64, i64)>,
}

/// One day with orders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PurchaseDay {
    pub(crate) orders: u32,
    pub(crate) gross: BTreeMap<Currency, i64>,
}

/// First, last and count of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Times {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) count: u64,
}

/// Lifetime money of one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sums {
    pub(crate) gross: i64,
    pub(crate) refunds: i64,
}

/// What one identity has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) observations: u64,
    pub(crate) machine: u64,
    pub(crate) human: Option<(Timestamp, Timestamp)>,
    pub(crate) days: BTreeMap<Day, ActiveDay>,
    pub(crate) purchases: BTreeMap<Day, PurchaseDay>,
    pub(crate) totals: BTreeMap<Currency, Sums>,
    pub(crate) signals: BTreeMap<Signal, Times>,
    pub(crate) channels: BTreeMap<Channel, Timestamp>,
    pub(crate) hours: BTreeMap<u8, u16>,
    /// The newest event of each kind that reasons quote, by the kind's code: when, and its id.
    pub(crate) cited: BTreeMap<u8, (Timestamp, String)>,
}

/// An event as it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Act {
    pub(crate) at: Timestamp,
    pub(crate) signal: Signal,
    pub(crate) channel: Channel,
    pub(crate) money: Option<Money>,
    pub(crate) human: bool,
}

impl Part {
    /// Counts one act.
    pub(crate) fn count(&mut self, act: &Act) {
        let Act {
            at,
            signal,
            channel,
            money,
            human,
        } = *act;
        self.observations = self.observations.saturating_add(1);
        if !human {
            self.machine = self.machine.saturating_add(1);
        }
        // A machine's page view says nothing; a purchase is a fact whoever reports it, and so is what systems report.
        if human || signal.is_purchase() || !signal.is_engagement() {
            let times = self.signals.entry(signal).or_insert(Times {
                first: at,
                last: at,
                count: 0,
            });
            times.first = times.first.min(at);
            times.last = times.last.max(at);
            times.count = times.count.saturating_add(1);
        }
        if human && signal.is_engagement() {
            let (first, last) = self.human.unwrap_or((at, at));
            self.human = Some((first.min(at), last.max(at)));
            let latest = self.channels.entry(channel).or_insert(at);
            *latest = at.max(*latest);
            let hour = self.hours.entry(hour_of_week(at)).or_default();
            *hour = hour.saturating_add(1);
            self.count_day(at, signal);
        }
        match money {
            _ if !signal.is_purchase() && !signal.is_refund() => {}
            Some(money) if signal.is_refund() || money.minor < 0 => self.give_back(money),
            None if signal.is_refund() => {}
            money => self.order(at.day(), money),
        }
    }

    /// Remembers the event's id where it is the newest of its kind; of several at one instant the greatest text.
    pub(crate) fn cite(&mut self, act: &Act, id: &EventId) {
        let Some(kind) = kind(act) else { return };
        let new = (act.at, id.as_str().to_owned());
        let known = self.cited.entry(kind).or_insert_with(|| new.clone());
        if *known < new {
            *known = new;
        }
    }

    fn count_day(&mut self, at: Timestamp, signal: Signal) {
        let day = self.days.entry(at.day()).or_default();
        let count = day.counts.entry(signal).or_default();
        *count = count.saturating_add(1);
        let second = at.0.div_euclid(1000);
        // Everything that the new second is near to becomes one session with it.
        let mut united = (second, second);
        let near = |(start, end): &(i64, i64)| *start - SESSION_GAP <= second && second <= *end + SESSION_GAP;
        for (start, end) in day.sessions.iter().filter(|session| near(session)) {
            united = (united.0.min(*start), united.1.max(*end));
        }
        day.sessions.retain(|session| !near(session));
        day.sessions.push(united);
        day.sessions.sort_unstable();
        forget(&mut self.days, ACTIVE_WINDOW);
    }

    fn order(&mut self, on: Day, money: Option<Money>) {
        let day = self.purchases.entry(on).or_default();
        day.orders = day.orders.saturating_add(1);
        if let Some(Money { minor, currency }) = money {
            let gross = day.gross.entry(currency).or_default();
            *gross = gross.saturating_add(minor);
            let sums = self.totals.entry(currency).or_default();
            sums.gross = sums.gross.saturating_add(minor);
        }
        forget(&mut self.purchases, PURCHASE_WINDOW);
        self.keep_currencies();
    }

    fn give_back(&mut self, money: Money) {
        let sums = self.totals.entry(money.currency).or_default();
        let refund = if money.minor > 0 { -money.minor } else { money.minor };
        sums.refunds = sums.refunds.saturating_add(refund);
        self.keep_currencies();
    }

    fn keep_currencies(&mut self) {
        while self.totals.len() > CURRENCIES {
            if let Some((currency, _)) = self.totals.pop_last() {
                for day in self.purchases.values_mut() {
                    let _ = day.gross.remove(&currency);
                }
            }
        }
    }

    /// The order in which one version of a part is newer than another: observations first, then field by field, each list
    /// as the record lists it.
    pub(crate) fn order_of(&self, other: &Self) -> Ordering {
        fn counts(part: &Part) -> impl Iterator<Item = ((Day, Signal), u32)> {
            let of_day = |(day, active): (&Day, &'_ ActiveDay)| (*day, active.counts.clone());
            let days = part.days.iter().map(of_day);
            days.flat_map(|(day, counts)| counts.into_iter().map(move |(signal, count)| ((day, signal), count)))
        }
        fn sessions(part: &Part) -> impl Iterator<Item = &(i64, i64)> {
            part.days.values().flat_map(|day| &day.sessions)
        }
        fn orders(part: &Part) -> impl Iterator<Item = (&Day, u32)> {
            part.purchases.iter().map(|(day, purchases)| (day, purchases.orders))
        }
        fn gross(part: &Part) -> impl Iterator<Item = ((Day, Currency), i64)> {
            let of_day = |(day, purchases): (&Day, &PurchaseDay)| (*day, purchases.gross.clone());
            let days = part.purchases.iter().map(of_day);
            days.flat_map(|(day, gross)| gross.into_iter().map(move |(currency, sum)| ((day, currency), sum)))
        }
        (self.observations, self.machine, self.human)
            .cmp(&(other.observations, other.machine, other.human))
            .then_with(|| counts(self).cmp(counts(other)))
            .then_with(|| sessions(self).cmp(sessions(other)))
            .then_with(|| orders(self).cmp(orders(other)))
            .then_with(|| gross(self).cmp(gross(other)))
            .then_with(|| self.totals.cmp(&other.totals))
            .then_with(|| self.signals.cmp(&other.signals))
            .then_with(|| self.channels.cmp(&other.channels))
            .then_with(|| self.hours.cmp(&other.hours))
            .then_with(|| self.cited.cmp(&other.cited))
    }
}

/// What reasons may quote an act as: 0 order, 1 visit, 2 mail, 3 any other act of the customer, 4 complaint, 5 its answer,
/// 6 failed payment, 7 contact.
fn kind(act: &Act) -> Option<u8> {
    use Signal::{
        CallOutbound, ComplaintClosed, ComplaintOpened, ComplaintReopened, ComplaintResatisfied, ComplaintResolved,
        ContactSent, EmailSent, PaymentDisputed, PaymentFailed, RelanceContacted,
    };
    let of_customer = act.signal.is_engagement();
    if act.signal.is_purchase() {
        let paid_back = act.money.is_some_and(|money| money.minor < 0);
        return if paid_back { None } else { Some(0) };
    }
    if of_customer && !act.human {
        return None;
    }
    for (kind, signals) in [
        (4, [ComplaintOpened, ComplaintReopened].as_slice()),
        (5, &[ComplaintResolved, ComplaintClosed, ComplaintResatisfied]),
        (6, &[PaymentFailed, PaymentDisputed]),
        (7, &[ContactSent, CallOutbound, EmailSent, RelanceContacted]),
    ] {
        if signals.contains(&act.signal) {
            return Some(kind);
        }
    }
    match act.signal {
        _ if !of_customer => None,
        signal if is_mail(signal) => Some(2),
        signal if is_site(signal) => Some(1),
        _ => Some(3),
    }
}

/// What the models need to know of a customer: of all parts together, each window measured from the newest day of any.
pub(crate) fn features<'a>(parts: impl ExactSizeIterator<Item = &'a Part> + Clone) -> Features {
    let newest_active = parts.clone().filter_map(|part| part.days.keys().next_back()).max();
    let engagement = newest_active.and_then(|newest| {
        let from = first_day(*newest, ACTIVE_WINDOW);
        let first = parts
            .clone()
            .filter_map(|part| part.days.range(from..).next())
            .filter_map(|(_, day)| day.sessions.first())
            .map(|(start, _)| *start)
            .min()?;
        let last = parts
            .clone()
            .filter_map(|part| part.human)
            .map(|(_, last)| last)
            .max()?;
        Some(EngagementFeatures {
            first: Timestamp(first.saturating_mul(1000)),
            last,
            x: repeats(parts.clone().map(|part| &part.days), from),
        })
    });
    let newest_bought = parts.clone().filter_map(|part| part.purchases.keys().next_back()).max();
    let purchases = newest_bought.and_then(|newest| {
        let from = first_day(*newest, PURCHASE_WINDOW);
        let firsts = parts.clone().filter_map(|part| part.purchases.range(from..).next());
        Some(PurchaseFeatures {
            first: firsts.map(|(day, _)| *day).min()?,
            last: *newest,
            x: repeats(parts.clone().map(|part| &part.purchases), from),
        })
    });
    Features {
        purchases,
        engagement,
        pace: pace(parts),
        // The state's business: contacts are not kept by identity.
        incidents: Incidents::default(),
    }
}

/// Spend, gaps and engagement of all parts together, by the definitions of the churn model.
fn pace<'a>(parts: impl ExactSizeIterator<Item = &'a Part> + Clone) -> Option<Pace> {
    let known: BTreeSet<Currency> = parts.clone().flat_map(|part| part.totals.keys().copied()).collect();
    let known: BTreeSet<Currency> = known.into_iter().take(CURRENCIES).collect();
    let newest = parts
        .clone()
        .filter_map(|part| part.purchases.keys().next_back())
        .max()?;
    let from = first_day(*newest, PURCHASE_WINDOW);
    let mut days: BTreeMap<Day, BTreeMap<Currency, i64>> = BTreeMap::new();
    let mut spent: BTreeMap<Currency, i64> = BTreeMap::new();
    for (day, bought) in parts.clone().flat_map(|part| part.purchases.range(from..)) {
        let spend = days.entry(*day).or_default();
        for (currency, minor) in bought.gross.iter().filter(|(currency, _)| known.contains(currency)) {
            let sum = spend.entry(*currency).or_default();
            *sum = sum.saturating_add(*minor);
            let sum = spent.entry(*currency).or_default();
            *sum = sum.saturating_add(*minor);
        }
    }
    let most = spent.values().copied().max();
    let main = spent
        .iter()
        .find(|(_, sum)| Some(**sum) == most)
        .map(|(currency, _)| *currency);
    let spend = |by: &BTreeMap<Currency, i64>| {
        let (currency, minor) = main.and_then(|main| by.get(&main).map(|minor| (main, *minor)))?;
        Some(minor as f64 * libm::pow(10.0, -f64::from(currency.exponent())))
    };
    let newest_active = parts.clone().filter_map(|part| part.days.keys().next_back()).max();
    let active_from = newest_active.map(|newest| first_day(*newest, ACTIVE_WINDOW));
    let acted = |counts: fn(Signal) -> bool| -> BTreeSet<Day> {
        let all = parts.clone().flat_map(|part| part.days.iter());
        all.filter(|(day, _)| Some(**day) >= active_from)
            .filter(|(_, active)| active.counts.keys().any(|signal| counts(*signal)))
            .map(|(day, _)| *day)
            .collect()
    };
    let pace = Pace::of(days.iter().map(|(day, by)| (*day, spend(by).unwrap_or(0.0))))?;
    Some(pace.with_engagement(acted(is_site), acted(is_mail)))
}

fn first_day(newest: Day, window: i32) -> Day {
    Day(newest.0.saturating_sub(window).saturating_add(1))
}

/// Number of distinct days from `from` on, less the first one.
fn repeats<'a, V: 'a>(parts: impl ExactSizeIterator<Item = &'a BTreeMap<Day, V>>, from: Day) -> u32 {
    let number = if parts.len() == 1 {
        // A single part has forgotten whatever is out of its window.
        parts.map(BTreeMap::len).sum()
    } else {
        let days = parts.flat_map(|days| days.range(from..).map(|(day, _)| *day));
        days.collect::<BTreeSet<Day>>().len()
    };
    u32::try_from(number.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Drops the days that are `window` days or more before the newest.
fn forget<V>(days: &mut BTreeMap<Day, V>, window: i32) {
    let Some(newest) = days.keys().next_back().copied() else {
        return;
    };
    while let Some(oldest) = days.first_entry()
        && oldest.key().0 <= newest.0.saturating_sub(window)
    {
        drop(oldest.remove());
    }
}

/// Hours since Monday, 00:00 UTC.
fn hour_of_week(at: Timestamp) -> u8 {
    // The first Monday was the fifth day: 1970-01-05.
    let hours = at.0.div_euclid(3_600_000) - 4 * 24;
    u8::try_from(hours.rem_euclid(7 * 24)).unwrap_or_default()
}
