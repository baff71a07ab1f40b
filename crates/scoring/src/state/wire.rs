//! The canonical bytes of a customer record.
//!
//! Layout: one version byte, then [postcard](https://postcard.jamesmunns.com/wire-format) 1.x of the wire structures
//! below (days and instants as differences, sparse maps as pairs). Version 4 is written: [`WireState`] and [`WireTail`]. Version
//! 2, which has no tail and whose event ids have whole seconds, and version 1, whose ledger had no courses of flags besides, are
//! read. These structures are the format: changing one, or a type that they embed (`RecentIds`, `Ledger`, `ConsentRecord`, `Refreshed`, `MailAct`, `Quarantine`, `Bonds`), needs a new
//! version and a new fixture. A reader that meets an unknown version, a broken invariant or bytes left over returns an
//! error; it never guesses and never takes damage for a new customer.

use super::calendar::DAY_S;
use super::cited::CompactId;
use super::ledger::LedgerV1;
use super::part::Fields;
use super::{
    Account, Bonds, Calendar, Cited, ConsentRecord, CustomerState, InBand, Ledger, MailAct, MailActs, Part, Purchases,
    Quarantine, Recency, Refreshed, Session, SortedMap, Totals, WEEK_HOURS,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{
    Channel, Currency, Day, PersonId, PolicyId, Purpose, RecentIds, RecentIdsBySecond, Signal, Timestamp,
};

/// The version that is written. Two versions differ in two bits at least, so that a flipped bit makes none of another: there
/// is no version 3.
pub const VERSION: u8 = 4;

/// Room for most records: ten active days take some 280 bytes, each remembered event id up to 18.
const TYPICAL_BYTES: usize = 1024;

/// Why bytes are not a customer record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No bytes at all.
    #[error("customer state is empty")]
    Empty,
    /// Written by a newer release (or not a customer record).
    #[error("customer state has unknown format version {0}; it was written by a newer release or is damaged")]
    Version(u8),
    /// The body does not decode or breaks an invariant.
    #[error("customer state is damaged")]
    Body,
}

#[derive(Serialize, Deserialize)]
struct WireState<'a, R, L> {
    parts: Vec<(Cow<'a, PersonId>, WirePart)>,
    linked_to: Cow<'a, Option<PersonId>>,
    known_links: Cow<'a, BTreeSet<PersonId>>,
    recent: R,
    ledger: L,
    consent: Cow<'a, BTreeMap<Purpose, ConsentRecord>>,
    timer: Option<Timestamp>,
    rank: Option<u16>,
    refreshed: Option<Refreshed>,
    last_received: Timestamp,
}

/// What came later.
#[derive(Default, Serialize, Deserialize)]
struct WireTail<'a> {
    bands: Cow<'a, BTreeMap<PolicyId, InBand>>,
    account: Cow<'a, Option<Account>>,
    cited: WireCited,
    mail: Vec<(Cow<'a, MailAct>, u16)>,
    quarantine: Cow<'a, Quarantine>,
    bonds: Cow<'a, Bonds>,
}

#[derive(Serialize, Deserialize)]
struct WirePart {
    observations: u64,
    machine: u64,
    /// First and last human engagement; what follows is relative to it (to 0 when there is none).
    human: Option<(Timestamp, Timestamp)>,
    signals: Vec<WireSignal>,
    /// Milliseconds from the last act on the channel to the last act at all.
    channels: Vec<(Channel, i64)>,
    days: Vec<WireDay>,
    /// For all days: index into `signals` + number of `signals` × (count − 1).
    counts: Vec<u64>,
    /// For all days: seconds since the end of the session before (or midnight), seconds from start to end.
    sessions: Vec<(u32, u32)>,
    purchase_days: Vec<WirePurchaseDay>,
    /// For all purchase days: index into `totals`, amount.
    amounts: Vec<(u8, i64)>,
    totals: Vec<(Currency, i64, i64)>,
    hours: Vec<(u8, u16)>,
}

/// For each part, in their order: the kinds of events that reasons may quote, each with the milliseconds from its newest event
/// to the last human engagement (to 0 when there is none), and that event's id.
type WireCited = Vec<Vec<(Cited, i64, CompactId)>>;

#[derive(Serialize, Deserialize)]
struct WireSignal {
    signal: Signal,
    /// Milliseconds since the first human engagement.
    first: i64,
    /// Milliseconds before the last human engagement.
    last: i64,
    count: u64,
}

#[derive(Serialize, Deserialize)]
struct WireDay {
    /// Days since the day before in the list; the first one since the epoch.
    skip: i32,
    /// How many of `counts` belong to this day.
    counts: u8,
    /// How many of `sessions` belong to this day.
    sessions: u8,
}

#[derive(Serialize, Deserialize)]
struct WirePurchaseDay {
    skip: i32,
    orders: u32,
    /// How many of `amounts` belong to this day.
    amounts: u8,
}

pub(super) fn encode(state: &CustomerState) -> Vec<u8> {
    let wire = WireState {
        parts: state
            .parts
            .iter()
            .map(|(id, part)| (Cow::Borrowed(id), to_wire(part)))
            .collect(),
        linked_to: Cow::Borrowed(&state.linked_to),
        known_links: Cow::Borrowed(&state.known_links),
        recent: &state.recent,
        ledger: &state.ledger,
        consent: Cow::Borrowed(&state.consent),
        timer: state.timer,
        rank: state.rank,
        refreshed: state.refreshed,
        last_received: state.last_received,
    };
    // Writing to a growing Vec fails only for types whose length is unknown beforehand, of which there are none; and
    // bytes that came out empty would be refused by `decode`, not read as a new customer.
    let tail = WireTail {
        bands: Cow::Borrowed(&state.bands),
        account: Cow::Borrowed(&state.account),
        cited: state.parts.values().map(cited_to_wire).collect(),
        mail: state
            .mail
            .acts()
            .map(|(act, times)| (Cow::Borrowed(act), times))
            .collect(),
        quarantine: Cow::Borrowed(&state.quarantine),
        bonds: Cow::Borrowed(&state.bonds),
    };
    let mut bytes = Vec::with_capacity(TYPICAL_BYTES);
    bytes.push(VERSION);
    postcard::to_extend(&(wire, tail), bytes).unwrap_or_default()
}

fn cited_to_wire(part: &Part) -> Vec<(Cited, i64, CompactId)> {
    let last = part.last_activity().unwrap_or_default();
    let before = |(kind, (at, id)): (&Cited, &(Timestamp, CompactId))| (*kind, last.0.wrapping_sub(at.0), id.clone());
    part.all_cited().iter().map(before).collect()
}

fn cited_from(wire: Vec<(Cited, i64, CompactId)>, last: Timestamp) -> Option<SortedMap<Cited, (Timestamp, CompactId)>> {
    if !wire.iter().all(|(_, _, id)| id.is_canonical()) {
        return None;
    }
    let at = |before: i64| Timestamp(last.0.wrapping_sub(before));
    sorted(wire.into_iter().map(|(kind, before, id)| (kind, (at(before), id))))
}

pub(super) fn decode(bytes: &[u8]) -> Result<CustomerState, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    match *version {
        VERSION => decode_body::<RecentIds, Ledger>(body, true).ok_or(CodecError::Body),
        2 => decode_body::<RecentIdsBySecond, Ledger>(body, false).ok_or(CodecError::Body),
        1 => decode_body::<RecentIdsBySecond, LedgerV1>(body, false).ok_or(CodecError::Body),
        other => Err(CodecError::Version(other)),
    }
}

fn decode_body<'a, R, L>(body: &'a [u8], has_tail: bool) -> Option<CustomerState>
where
    R: Deserialize<'a> + Into<RecentIds>,
    L: Deserialize<'a> + Into<Ledger>,
{
    let (wire, rest) = postcard::take_from_bytes::<WireState<'_, R, L>>(body).ok()?;
    let (tail, rest) = match has_tail {
        true => postcard::take_from_bytes::<WireTail<'_>>(rest).ok()?,
        false => (WireTail::default(), rest),
    };
    let cited = match has_tail {
        true => tail.cited,
        false => vec![Vec::new(); wire.parts.len()],
    };
    if !rest.is_empty() || cited.len() != wire.parts.len() {
        return None;
    }
    let mut parts = BTreeMap::new();
    for ((identity, part), cited) in wire.parts.into_iter().zip(cited) {
        if parts.insert(identity.into_owned(), from_wire(part, cited)?).is_some() {
            return None;
        }
    }
    let mut acts = BTreeMap::new();
    for (act, times) in tail.mail {
        if acts.insert(act.into_owned(), times).is_some() {
            return None;
        }
    }
    Some(CustomerState {
        parts,
        linked_to: wire.linked_to.into_owned(),
        known_links: wire.known_links.into_owned(),
        recent: wire.recent.into(),
        ledger: wire.ledger.into(),
        consent: wire.consent.into_owned(),
        timer: wire.timer,
        rank: wire.rank,
        refreshed: wire.refreshed,
        last_received: wire.last_received,
        bands: tail.bands.into_owned(),
        account: tail.account.into_owned(),
        mail: MailActs::restore(acts),
        quarantine: tail.quarantine.into_owned(),
        bonds: tail.bonds.into_owned(),
    })
}

fn to_wire(part: &Part) -> WirePart {
    let human = part.first_activity().zip(part.last_activity());
    let (first, last) = human.unwrap_or_default();
    let signals: Vec<WireSignal> = part
        .signals()
        .map(|(signal, r)| WireSignal {
            signal,
            first: r.first.0.wrapping_sub(first.0),
            last: last.0.wrapping_sub(r.last.0),
            count: r.count,
        })
        .collect();
    let totals: Vec<(Currency, i64, i64)> = part
        .purchases()
        .totals()
        .map(|(c, t)| (c, t.gross, t.refunds))
        .collect();
    let index = |currency: Currency| short(totals.iter().position(|(c, ..)| *c == currency).unwrap_or(usize::MAX));
    let mut skip = skipper();
    let daily_counts: Vec<_> = part.calendar().counts().collect();
    let mut daily_sessions = part.calendar().daily_sessions();
    let mut sessions = Vec::with_capacity(daily_sessions.len());
    let mut days = Vec::new();
    for of_day in daily_counts.chunk_by(|(a, ..), (b, ..)| a == b) {
        let Some((day, ..)) = of_day.first() else { continue };
        let midnight = day.start().0 / 1000;
        let number = daily_sessions
            .iter()
            .take_while(|session| session.start < midnight + DAY_S)
            .count();
        let (own, rest) = daily_sessions.split_at_checked(number).unwrap_or((daily_sessions, &[]));
        daily_sessions = rest;
        let mut end = midnight;
        for session in own {
            sessions.push((seconds(session.start - end), seconds(session.end - session.start)));
            end = session.end;
        }
        days.push(WireDay {
            skip: skip(*day),
            counts: short(of_day.len()),
            sessions: short(own.len()),
        });
    }
    let amounts: Vec<_> = part.purchases().amounts().collect();
    let amounts_of =
        |day: Day| amounts.partition_point(|(d, ..)| *d <= day) - amounts.partition_point(|(d, ..)| *d < day);
    let mut skip = skipper();
    WirePart {
        observations: part.observations(),
        machine: part.machine_observations(),
        human,
        channels: part
            .channels()
            .map(|(channel, at)| (channel, last.0.wrapping_sub(at.0)))
            .collect(),
        days,
        counts: daily_counts
            .iter()
            .map(|(_, signal, count)| pack(&signals, *signal, *count))
            .collect(),
        sessions,
        purchase_days: part
            .purchases()
            .days()
            .map(|(day, orders)| WirePurchaseDay {
                skip: skip(day),
                orders,
                amounts: short(amounts_of(day)),
            })
            .collect(),
        amounts: amounts
            .iter()
            .map(|(_, currency, amount)| (index(*currency), *amount))
            .collect(),
        totals,
        hours: part.hours().collect(),
        signals,
    }
}

fn from_wire(wire: WirePart, cited: Vec<(Cited, i64, CompactId)>) -> Option<Part> {
    let (first, last) = wire.human.unwrap_or_default();
    let calendar = calendar_from(&wire)?;
    let purchases = purchases_from(&wire)?;
    if wire.hours.iter().any(|(hour, _)| *hour >= WEEK_HOURS) {
        return None;
    }
    Some(Part::restore(Fields {
        observations: wire.observations,
        machine: wire.machine,
        human: wire.human,
        calendar,
        purchases,
        signals: sorted(wire.signals.into_iter().map(|wire| {
            let first = Timestamp(first.0.wrapping_add(wire.first));
            let last = Timestamp(last.0.wrapping_sub(wire.last));
            (
                wire.signal,
                Recency {
                    first,
                    last,
                    count: wire.count,
                },
            )
        }))?,
        channels: sorted(
            wire.channels
                .into_iter()
                .map(|(channel, before)| (channel, Timestamp(last.0.wrapping_sub(before)))),
        )?,
        hours: sorted(wire.hours)?,
        cited: cited_from(cited, last)?,
    }))
}

fn calendar_from(wire: &WirePart) -> Option<Calendar> {
    let (mut packed, mut differences) = (wire.counts.as_slice(), wire.sessions.as_slice());
    let mut counts = SortedMap::with_capacity(packed.len());
    let mut sessions = Vec::with_capacity(differences.len());
    let mut day = Day(0);
    for entry in &wire.days {
        day = Day(day.0.wrapping_add(entry.skip));
        for packed in take(&mut packed, entry.counts)? {
            let (signal, count) = unpack(&wire.signals, *packed)?;
            push(&mut counts, (day, signal), count)?;
        }
        let mut end = day.start().0 / 1000;
        for (gap, length) in take(&mut differences, entry.sessions)? {
            let start = end + i64::from(*gap);
            end = start + i64::from(*length);
            sessions.push(Session { start, end });
        }
    }
    (packed.is_empty() && differences.is_empty()).then(|| Calendar::restore(counts, sessions))?
}

fn purchases_from(wire: &WirePart) -> Option<Purchases> {
    let totals = sorted(wire.totals.iter().map(|(currency, gross, refunds)| {
        let (gross, refunds) = (*gross, *refunds);
        (*currency, Totals { gross, refunds })
    }))?;
    let mut amounts = wire.amounts.as_slice();
    let mut days = SortedMap::with_capacity(wire.purchase_days.len());
    let mut gross = SortedMap::with_capacity(amounts.len());
    let mut day = Day(0);
    for entry in &wire.purchase_days {
        day = Day(day.0.wrapping_add(entry.skip));
        push(&mut days, day, entry.orders)?;
        for (index, amount) in take(&mut amounts, entry.amounts)? {
            let (currency, ..) = wire.totals.get(usize::from(*index))?;
            push(&mut gross, (day, *currency), *amount)?;
        }
    }
    amounts.is_empty().then(|| Purchases::restore(days, gross, totals))?
}

/// Cuts the first `number` entries off a list; `None` when it has fewer.
fn take<'a, T>(list: &mut &'a [T], number: u8) -> Option<&'a [T]> {
    let (taken, rest) = list.split_at_checked(usize::from(number))?;
    *list = rest;
    Some(taken)
}

/// A signal's count of one day as one number, a byte for most: see [`WirePart::counts`].
fn pack(signals: &[WireSignal], signal: Signal, count: u32) -> u64 {
    let index = signals
        .binary_search_by_key(&signal, |entry| entry.signal)
        .unwrap_or(usize::MAX);
    (signals.len() as u64)
        .saturating_mul(u64::from(count.saturating_sub(1)))
        .saturating_add(index as u64)
}

fn unpack(signals: &[WireSignal], packed: u64) -> Option<(Signal, u32)> {
    let number = signals.len() as u64;
    let index = usize::try_from(packed.checked_rem(number)?).ok()?;
    let count = u32::try_from(packed / number).ok()?.checked_add(1)?;
    Some((signals.get(index)?.signal, count))
}

/// The length of a list (or an index) whose bound is far below 256: signals, sessions of a day, currencies.
fn short(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

fn sorted<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> Option<SortedMap<K, V>> {
    let mut map = SortedMap::default();
    for (key, value) in entries {
        push(&mut map, key, value)?;
    }
    Some(map)
}

fn push<K: Ord, V>(map: &mut SortedMap<K, V>, key: K, value: V) -> Option<()> {
    map.push(key, value).then_some(())
}

/// Turns ascending days into distances from the day before. Wrapping arithmetic makes the round trip exact for any day.
fn skipper() -> impl FnMut(Day) -> i32 {
    let mut before = Day(0);
    move |day| {
        let skip = day.0.wrapping_sub(before.0);
        before = day;
        skip
    }
}

/// A number of seconds within one day.
fn seconds(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
