//! A second, slow and obvious reading of an event list, sharing no code with the fold: every number is recomputed from the
//! plain list.

use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Currency, Signal};
use vigie_scoring::Observation;

const DAY_MS: i64 = 86_400_000;

fn day(observation: &Observation) -> i64 {
    observation.at.0.div_euclid(DAY_MS)
}

fn engaged(observations: &[Observation]) -> Vec<&Observation> {
    observations
        .iter()
        .filter(|o| o.human && o.signal.is_engagement())
        .collect()
}

fn is_order(observation: &Observation) -> bool {
    observation.signal.is_purchase() && observation.money.is_none_or(|m| m.minor >= 0)
}

/// Engagement on the 400 days up to the newest day with engagement.
fn in_window(observations: &[Observation]) -> Vec<&Observation> {
    let all = engaged(observations);
    let newest = all.iter().map(|o| day(o)).max().unwrap_or(0);
    all.into_iter().filter(|o| day(o) > newest - 400).collect()
}

pub(crate) fn active_days(observations: &[Observation]) -> BTreeSet<i64> {
    in_window(observations).into_iter().map(day).collect()
}

pub(crate) fn sessions(observations: &[Observation]) -> Vec<(i64, i64)> {
    let mut seconds: Vec<i64> = in_window(observations)
        .iter()
        .map(|o| o.at.0.div_euclid(1000))
        .collect();
    seconds.sort_unstable();
    let mut sessions: Vec<(i64, i64)> = Vec::new();
    for second in seconds {
        match sessions.last_mut() {
            Some(session) if second - session.1 <= 1800 => session.1 = second,
            _ => sessions.push((second, second)),
        }
    }
    sessions
}

pub(crate) fn purchase_days(observations: &[Observation]) -> BTreeSet<i64> {
    let days: BTreeSet<i64> = observations.iter().filter(|o| is_order(o)).map(day).collect();
    let newest = days.last().copied().unwrap_or(0);
    days.into_iter().filter(|d| *d > newest - 3650).collect()
}

/// Gross and refunds of the eight alphabetically first currencies.
pub(crate) fn money(observations: &[Observation]) -> BTreeMap<Currency, (i64, i64)> {
    let mut sums: BTreeMap<Currency, (i64, i64)> = BTreeMap::new();
    for o in observations
        .iter()
        .filter(|o| o.signal.is_purchase() || o.signal.is_refund())
    {
        if let Some(money) = o.money {
            let sum = sums.entry(money.currency).or_default();
            if is_order(o) {
                sum.0 += money.minor;
            } else {
                sum.1 -= money.minor.abs();
            }
        }
    }
    sums.into_iter().take(8).collect()
}

/// Per purchase day: orders, and gross per currency that is kept.
pub(crate) fn day_book(observations: &[Observation]) -> BTreeMap<i64, (u32, BTreeMap<Currency, i64>)> {
    let kept = money(observations);
    purchase_days(observations)
        .into_iter()
        .map(|d| {
            let orders: Vec<_> = observations.iter().filter(|o| is_order(o) && day(o) == d).collect();
            let mut gross = BTreeMap::new();
            for money in orders
                .iter()
                .filter_map(|o| o.money)
                .filter(|m| kept.contains_key(&m.currency))
            {
                *gross.entry(money.currency).or_default() += money.minor;
            }
            (d, (orders.len() as u32, gross))
        })
        .collect()
}

/// (x, t_x, T) of purchases in days.
pub(crate) fn btyd(observations: &[Observation], now_ms: i64) -> Option<(u32, i64, i64)> {
    let days = purchase_days(observations);
    let (first, last) = (*days.first()?, *days.last()?);
    Some((
        days.len() as u32 - 1,
        last - first,
        (now_ms.div_euclid(DAY_MS)).max(last) - first,
    ))
}

/// Count per hour of the week, Monday 00:00 UTC first.
pub(crate) fn hours(observations: &[Observation]) -> BTreeMap<u8, u16> {
    let monday_1970_01_05 = 4 * DAY_MS;
    let mut hours = BTreeMap::new();
    for o in engaged(observations) {
        let hour = (o.at.0 - monday_1970_01_05).div_euclid(3_600_000).rem_euclid(168);
        *hours.entry(hour as u8).or_default() += 1;
    }
    hours
}

const COMPLAINTS: [Signal; 6] = [
    Signal::ComplaintOpened,
    Signal::ComplaintAcknowledged,
    Signal::ComplaintResolved,
    Signal::ComplaintClosed,
    Signal::ComplaintResatisfied,
    Signal::ComplaintReopened,
];
pub(crate) const CONTACTS: [Signal; 4] = [
    Signal::ContactSent,
    Signal::CallOutbound,
    Signal::EmailSent,
    Signal::RelanceContacted,
];

/// Whether an adjustment may come of it.
pub(crate) fn is_incident(signal: Signal) -> bool {
    COMPLAINTS.contains(&signal)
        || CONTACTS.contains(&signal)
        || [Signal::PaymentFailed, Signal::PaymentDisputed].contains(&signal)
}

/// Instants of the events that count among some signals, in order.
fn instants(observations: &[Observation], of: &[Signal]) -> Vec<i64> {
    let counts = |o: &&Observation| o.human || !o.signal.is_engagement() || o.signal.is_purchase();
    let mut all: Vec<i64> = observations
        .iter()
        .filter(counts)
        .filter(|o| of.contains(&o.signal))
        .map(|o| o.at.0)
        .collect();
    all.sort_unstable();
    all
}

/// Log-odds by the complaint, with the shipped sizes.
pub(crate) fn complaint(observations: &[Observation], now_ms: i64) -> f64 {
    let last = |signal: Signal| instants(observations, &[signal]).last().copied();
    let newest = (0..6).filter_map(|n| last(COMPLAINTS[n]).map(|at| (at, n))).max();
    let Some((since, phase)) = newest else { return 0.0 };
    let made = instants(observations, &[Signal::ComplaintOpened]);
    let answered = instants(observations, &[Signal::ComplaintResolved, Signal::ComplaintClosed]);
    let again = instants(observations, &[Signal::ComplaintOpened, Signal::ComplaintReopened]);
    let never_answered = made
        .first()
        .filter(|first| answered.iter().all(|answer| answer < first));
    let opened = never_answered.or(again.last()).copied().unwrap_or(since);
    let days = |from: i64, to: i64| to.div_euclid(DAY_MS) - from.div_euclid(DAY_MS);
    let faded = |relief: f64| relief * libm::exp2(-(days(since, now_ms).max(0) as f64) / 180.0);
    match COMPLAINTS[phase] {
        Signal::ComplaintOpened | Signal::ComplaintAcknowledged | Signal::ComplaintReopened => {
            let grave = last(Signal::ComplaintGrave).is_some_and(|at| at >= opened);
            let late = if days(opened, now_ms) > 7 { 0.2 } else { 0.0 };
            late + if grave { 1.1 } else { 0.5 }
        }
        Signal::ComplaintResatisfied => faded(-0.3),
        _ if days(opened, since) <= 7 => faded(-0.2),
        _ => 0.0,
    }
}

/// Log-odds by a failed payment that nothing came after.
pub(crate) fn payment(observations: &[Observation]) -> f64 {
    let failed = instants(observations, &[Signal::PaymentFailed, Signal::PaymentDisputed]);
    let paid = [
        Signal::Purchase,
        Signal::SubscriptionStarted,
        Signal::SubscriptionRenewed,
    ];
    let paid = instants(observations, &paid);
    if failed.last() >= paid.last() && !failed.is_empty() {
        0.5
    } else {
        0.0
    }
}

/// Log-odds by contacts after the last act.
pub(crate) fn contacts(observations: &[Observation]) -> f64 {
    let act = engaged(observations).iter().map(|o| o.at.0).max();
    let since = observations
        .iter()
        .filter(|o| CONTACTS.contains(&o.signal) && act.is_none_or(|act| o.at.0 > act))
        .map(|o| (o.at.0, o.channel))
        .collect::<BTreeSet<_>>();
    (0.05 * (since.len() as f64 - 6.0).max(0.0)).min(0.3)
}
