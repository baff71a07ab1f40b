//! Whether a customer may be contacted, decided anew from the documented rules: what lasts until an event takes it away, and
//! what ends by itself at a known instant. Codes are those that the record keeps.
//!
//! Shared with the live side are the policy as it was read, the truth of its predicates about a row that is made here, and
//! the calendar's open hours.

use crate::part::CURRENCIES;
use crate::state::State;
use std::collections::BTreeMap;
use vigie_event::{Channel, ConsentState, Currency, CustomerKey, DAY_MS, Day, FlagId, Purpose, Signal, Timestamp};
use vigie_relance::{MarketingConsent, Measure, Offer, Outage, Play, Policy, PolicySet, Row, Terms};
use vigie_scoring::{Complaint, ComplaintPhase, Features, Incidents, ScoreKind, Scorer};

const OBJECTED: u8 = 1;
const NO_CONSENT: u8 = 2;
const ANONYMOUS: u8 = 3;
const FEW_PURCHASES: u8 = 4;
const MANY_PURCHASES: u8 = 5;
const LITTLE_ACTIVITY: u8 = 6;
const GONE_TOO_LONG: u8 = 7;
const NOT_ELIGIBLE: u8 = 8;
const NO_CHANNEL: u8 = 9;
const OPEN_COMPLAINT: u8 = 10;
const SOURCE_OUTAGE: u8 = 16;
const STALE_DATA: u8 = 17;

/// Days of purchases that make a year.
const YEAR: i32 = 365;

/// The last time that any identity of a customer gave a signal.
pub(crate) fn last(state: &State, signal: Signal) -> Option<Timestamp> {
    let all = state.all_parts().filter_map(|part| part.signals.get(&signal));
    all.map(|times| times.last).max()
}

fn first(state: &State, signal: Signal) -> Option<Timestamp> {
    let all = state.all_parts().filter_map(|part| part.signals.get(&signal));
    all.map(|times| times.first).min()
}

fn count(state: &State, signal: Signal) -> u64 {
    let all = state.all_parts().filter_map(|part| part.signals.get(&signal));
    all.fold(0, |sum, times| sum.saturating_add(times.count))
}

/// A customer's complaint: since when its answer is waited for, or since when it is given.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clocks {
    pub(crate) waiting: Option<Timestamp>,
    pub(crate) answered: Option<Timestamp>,
    opened: Timestamp,
    grave: bool,
}

pub(crate) fn clocks(state: &State) -> Clocks {
    use Signal::{
        ComplaintAcknowledged, ComplaintClosed, ComplaintGrave, ComplaintOpened, ComplaintReopened,
        ComplaintResatisfied, ComplaintResolved,
    };
    // What was said last; of two words at one instant the one that stands later here.
    let words = [
        ComplaintOpened,
        ComplaintAcknowledged,
        ComplaintResolved,
        ComplaintClosed,
        ComplaintResatisfied,
        ComplaintReopened,
    ];
    let mut latest: Option<(Timestamp, Signal)> = None;
    for word in words {
        if let Some(at) = last(state, word)
            && latest.is_none_or(|(before, _)| at >= before)
        {
            latest = Some((at, word));
        }
    }
    let Some((since, word)) = latest else {
        return Clocks::default();
    };
    let answer = last(state, ComplaintResolved).max(last(state, ComplaintClosed));
    let never_answered = first(state, ComplaintOpened).filter(|made| Some(*made) > answer);
    let again = last(state, ComplaintOpened).max(last(state, ComplaintReopened));
    let opened = never_answered.or(again).unwrap_or(since);
    Clocks {
        waiting: matches!(word, ComplaintOpened | ComplaintAcknowledged | ComplaintReopened).then_some(opened),
        answered: matches!(word, ComplaintResolved | ComplaintClosed).then_some(since),
        opened,
        grave: last(state, ComplaintGrave) >= Some(opened),
    }
}

/// What the adjustments of the scores go by: the complaint, a payment that failed and was not made good, and the contacts
/// that no act of the customer came after.
pub(crate) fn incidents(state: &State) -> Incidents {
    use Signal::{PaymentDisputed, PaymentFailed, Purchase, SubscriptionRenewed, SubscriptionStarted};
    let words = [
        (Signal::ComplaintOpened, ComplaintPhase::Opened),
        (Signal::ComplaintAcknowledged, ComplaintPhase::Acknowledged),
        (Signal::ComplaintResolved, ComplaintPhase::Resolved),
        (Signal::ComplaintClosed, ComplaintPhase::Closed),
        (Signal::ComplaintResatisfied, ComplaintPhase::Resatisfied),
        (Signal::ComplaintReopened, ComplaintPhase::Reopened),
    ];
    let mut complaint = None;
    for (signal, phase) in words {
        let Some(since) = last(state, signal) else { continue };
        if complaint.is_none_or(|(before, _)| since >= before) {
            complaint = Some((since, phase));
        }
    }
    let of = clocks(state);
    let complaint = complaint.map(|(since, phase)| Complaint {
        phase,
        since,
        opened: of.opened,
        grave: of.grave,
    });
    let failed = last(state, PaymentFailed).max(last(state, PaymentDisputed));
    let paid = [Purchase, SubscriptionStarted, SubscriptionRenewed].map(|signal| last(state, signal));
    let paid = paid.into_iter().max().flatten();
    let act = state
        .all_parts()
        .filter_map(|part| part.human)
        .map(|(_, last)| last)
        .max();
    let unanswered: Vec<Timestamp> = state
        .contacts
        .iter()
        .map(|(at, ..)| *at)
        .filter(|at| act.is_none_or(|act| *at > act))
        .collect();
    Incidents {
        complaint,
        payment_failed: failed.filter(|_| paid <= failed),
        contacts: u32::try_from(unanswered.len()).unwrap_or(u32::MAX),
        last_contact: unanswered.last().copied(),
    }
}

/// The clock that a policy watches, where it does not watch a score.
pub(crate) fn clock(measure: Measure, state: &State) -> Option<Timestamp> {
    match measure {
        Measure::Score(_) => None,
        Measure::ComplaintAge => clocks(state).waiting,
        Measure::ClosureAge => clocks(state).answered,
    }
}

/// The row that predicates are about.
pub(crate) fn row(key: &CustomerKey, state: &State, features: &Features) -> Row {
    let sums = sums(state);
    // Of equals the last one.
    let mut most: Option<(Currency, i64, i64)> = None;
    for (currency, (gross, refunds)) in sums {
        if most.is_none_or(|(_, before, _)| gross >= before) {
            most = Some((currency, gross, refunds));
        }
    }
    let human = || state.all_parts().filter_map(|part| part.human);
    Row {
        workspace: key.workspace.as_str().to_owned(),
        customer: key.person.to_string(),
        purchases: features.purchases.map_or(0, |bought| bought.x.saturating_add(1)),
        revenue_minor: most.map(|(_, gross, refunds)| gross.saturating_add(refunds)),
        currency: most.map(|(currency, ..)| currency.as_str().to_owned()),
        first_activity: human().map(|(first, _)| first).min(),
        last_activity: human().map(|(_, last)| last).max(),
        last_purchase_day: features.purchases.map(|bought| bought.last),
        active_days: features.engagement.map_or(0, |acts| acts.x.saturating_add(1)),
    }
}

/// Lifetime purchases and refunds per currency.
fn sums(state: &State) -> BTreeMap<Currency, (i64, i64)> {
    let mut all: BTreeMap<Currency, (i64, i64)> = BTreeMap::new();
    for (currency, sums) in state.parts.values().flat_map(|part| &part.totals) {
        let (gross, refunds) = all.entry(*currency).or_default();
        *gross = gross.saturating_add(sums.gross);
        *refunds = refunds.saturating_add(sums.refunds);
    }
    all.into_iter().take(CURRENCIES).collect()
}

/// Why the customer must not be contacted until something happens, as a code: the first reason in the documented order, of
/// which the last alone depends on time.
pub(crate) fn refusal(
    set: &PolicySet,
    policy: &Policy,
    key: &CustomerKey,
    state: &State,
    features: &Features,
    at: Timestamp,
) -> Option<u8> {
    let eligible = &policy.eligible;
    let marketing = !policy.score.is_service();
    let word = state.word(Purpose::Marketing);
    let refused = Some(ConsentState::Refused);
    let bought = features.purchases.map_or(0, |purchases| purchases.x.saturating_add(1));
    let active = features.engagement.map_or(0, |acts| acts.x.saturating_add(1));
    // Both come by themselves: whichever came first is the reason, and stays it.
    let ends = |since: i64, days: u32| since + (i64::from(days) + 1) * DAY_MS;
    let silence = features
        .engagement
        .map_or(i64::MIN, |acts| ends(acts.last.0, eligible.max_silence_days));
    let age = ends(state.last_received.0, eligible.max_data_age_days);
    let (gone, stale) = (silence <= at.0, age <= at.0);
    let outside = || {
        let members = policy.members.as_ref();
        members.is_some_and(|members| !members.holds(&row(key, state, features)))
    };
    let reasons = [
        (
            OBJECTED,
            state.word(Purpose::Profiling) == refused || (marketing && (word == refused || !state.held.is_empty())),
        ),
        (
            NO_CONSENT,
            marketing && eligible.marketing_consent == MarketingConsent::Granted && word.is_none(),
        ),
        (ANONYMOUS, eligible.known_only && !key.person.is_known()),
        (OPEN_COMPLAINT, marketing && clocks(state).waiting.is_some()),
        (FEW_PURCHASES, bought < eligible.min_purchase_days),
        (MANY_PURCHASES, bought > eligible.max_purchase_days),
        (LITTLE_ACTIVITY, active < eligible.min_active_days),
        (NOT_ELIGIBLE, outside()),
        (
            NO_CHANNEL,
            !policy.channels.is_empty() && ways(policy, state).is_empty(),
        ),
        (SOURCE_OUTAGE, marketing && silent(set, state)),
        (STALE_DATA, stale && !(gone && silence <= age)),
        (GONE_TOO_LONG, gone),
    ];
    reasons.iter().find(|(_, holds)| *holds).map(|(code, _)| *code)
}

/// Whether an outage that goes on concerns a customer: they were heard of through what is silent.
fn silent(set: &PolicySet, state: &State) -> bool {
    set.outages
        .iter()
        .any(|outage| outage.to.is_none() && through(outage, state).is_some())
}

/// When a customer was last heard of through what an outage concerns.
fn through(outage: &Outage, state: &State) -> Option<Timestamp> {
    let all = state.all_parts().flat_map(|part| &part.signals);
    let brought = all.filter(|(signal, _)| {
        let anything = outage.signals.is_empty() && signal.is_engagement();
        anything || outage.signals.contains(signal)
    });
    brought.map(|(_, times)| times.last).max()
}

/// Until when a threshold reached at `at` is held, because part of the silence is a source's. The silence without that part
/// is that of a life in which the outages did not happen: there the threshold is reached later.
fn unheard(
    set: &PolicySet,
    measure: Measure,
    threshold: f64,
    state: &State,
    scorer: &Scorer<'_>,
    at: Timestamp,
) -> Option<Timestamp> {
    let Measure::Score(kind) = measure else { return None };
    // Instants at which something begins or ends, with +1 and −1: what lies between is missed while the sum is above 0.
    let mut edges: Vec<(i64, i32)> = Vec::new();
    let mut announced: Option<i64> = None;
    for outage in &set.outages {
        let Some((end, heard)) = outage.to.zip(through(outage, state)) else {
            continue;
        };
        let begin = outage.from.max(heard);
        if begin <= at && at < end {
            announced = announced.max(Some(end.0));
        }
        let end = end.min(at);
        if begin < end {
            edges.extend([(begin.0, 1), (end.0, -1)]);
        }
    }
    if let Some(end) = announced {
        return Some(Timestamp(end));
    }
    edges.sort_unstable_by_key(|(instant, step)| (*instant, -step));
    let (mut open, mut since, mut missed) = (0, 0, 0i64);
    for (instant, step) in edges {
        if open > 0 {
            missed += instant - since;
        }
        open += step;
        since = instant;
    }
    let there = |at: i64| scorer.score(kind, Timestamp(at)).is_ok_and(|score| score >= threshold);
    let (mut below, mut reached) = (at.0 - missed, at.0);
    if missed == 0 || there(below) {
        return None;
    }
    // Between two midnights a score only rises, and over them it is looked at day by day.
    let mut midnight = Timestamp(below).day().start().0;
    while midnight < reached {
        if midnight > below {
            if there(midnight) {
                reached = midnight;
                break;
            }
            below = midnight;
        }
        midnight += DAY_MS;
    }
    while reached - below > 1 {
        let middle = below.midpoint(reached);
        if there(middle) {
            reached = middle;
        } else {
            below = middle;
        }
    }
    Some(Timestamp(reached + missed))
}

/// The channels that are open to a policy for this customer.
fn ways<'a>(policy: &'a Policy, state: &State) -> Vec<&'a Offer> {
    let said = |signal| last(state, signal);
    let left = said(Signal::EmailUnsubscribe).max(said(Signal::EmailComplaint));
    let came_back = said(Signal::NewsletterSubscribe);
    let arrived = said(Signal::EmailDelivered)
        .max(said(Signal::EmailOpen))
        .max(said(Signal::EmailClick));
    let bounced = said(Signal::EmailBounce);
    // `None` comes before every instant.
    let wanted = (left.is_none() || came_back > left) && (bounced.is_none() || arrived > bounced);
    let mail = policy.score.is_service() || wanted;
    let affordable = |offer: &Offer| policy.max_cost.is_none_or(|most| offer.cost <= most);
    let offers = policy.channels.iter();
    offers
        .filter(|offer| affordable(offer) && (mail || offer.channel != Channel::Email))
        .collect()
}

/// Until when a contact that nothing forbids must wait; `None` when it need not.
pub(crate) fn wait(
    set: &PolicySet,
    policy: &Policy,
    (key, state): (&CustomerKey, &State),
    scorer: &Scorer<'_>,
    at: Timestamp,
    (risk, terms): (f64, &Terms),
) -> Option<Timestamp> {
    if let Some(until) = unheard(set, policy.score, terms.threshold, state, scorer, at) {
        return Some(until);
    }
    let healthy = terms.rearm_below;
    let service = policy.score.is_service();
    let after = |from: Timestamp, days: u32| from.plus_ms(i64::from(days) * DAY_MS);
    if !service {
        let pressure = &set.pressure;
        let closed = last(state, Signal::TicketClosed);
        let ticket = last(state, Signal::TicketOpened).filter(|opened| closed < Some(*opened));
        let called = last(state, Signal::CallInbound).max(last(state, Signal::CallAbandoned));
        let heard = ticket.max(called).map(|heard| after(heard, pressure.suspend_days));
        let met = state.contacts.last().map(|(met, ..)| after(*met, pressure.gap_days));
        let full = room(state, None, pressure.max_contacts, pressure.window_days, at);
        if let Some(until) = [heard, met, full].into_iter().flatten().find(|until| *until > at) {
            return Some(until);
        }
    }
    // Whoever was given a reward, or would have been but for the comparison, is given none for a while.
    if policy.play == Play::Reward {
        let given = |other: &&Policy| other.play == Play::Reward;
        let others = set.policies.iter().filter(given);
        let given = others.filter_map(|other| state.policies.get(&other.id).and_then(|standing| standing.flag));
        let again = given.map(|(at, _)| after(at, set.pressure.reward_gap_days)).max();
        if let Some(until) = again.filter(|until| *until > at) {
            return Some(until);
        }
    }
    let (risk, healthy) = match service {
        true => (scorer.score(ScoreKind::Attrition, at).unwrap_or(0.0), 0.0),
        false => (risk, healthy),
    };
    if !(service && clocks(state).grave) {
        let mut nets: Vec<f64> = Vec::new();
        let mut waits: Vec<Timestamp> = Vec::new();
        let stake = stake(set, state, risk, healthy);
        for offer in ways(policy, state) {
            let cap = set.pressure.channels.get(&offer.channel).filter(|_| !service);
            let full = cap.and_then(|most| room(state, Some(offer.channel), *most, set.pressure.window_days, at));
            match (full, stake) {
                (Some(until), _) => waits.push(until),
                (None, None) => nets.push(0.0),
                (None, Some((minor, units))) => {
                    nets.push(minor * responding(offer, state) * policy.expected_effect - offer.cost * units);
                }
            }
        }
        if nets.is_empty()
            && let Some(until) = waits.into_iter().min()
        {
            return Some(until);
        }
        if !service && !nets.is_empty() && nets.iter().all(|net| *net < 0.0) {
            return Some(after(at, policy.terms.cooldown_days.max(1)));
        }
    }
    let calendar = set.calendar_for(|| row(key, state, scorer.features()));
    let mut open = calendar.open_hours(at, policy.within_hours);
    open.next().is_none().then(|| after(at, 1))
}

/// When the oldest of too many contacts leaves the window; `None` while there is room.
fn room(state: &State, channel: Option<Channel>, most: u32, window: u32, at: Timestamp) -> Option<Timestamp> {
    let window = i64::from(window) * DAY_MS;
    // The last one of each channel and day.
    let mut days: BTreeMap<(Day, Channel), Timestamp> = BTreeMap::new();
    for (met, by, _) in &state.contacts {
        let counts = met.plus_ms(window) > at && (channel.is_none() || channel == Some(*by));
        if counts {
            let latest = days.entry((met.day(), *by)).or_insert(*met);
            *latest = (*latest).max(*met);
        }
    }
    let mut times: Vec<Timestamp> = days.into_values().collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    // The `most`-th newest must leave.
    let place = usize::try_from(most).ok()?.checked_sub(1)?;
    times.get(place).map(|met| met.plus_ms(window))
}

/// Minor units at stake and how many make a major one; `None` where nothing is known or costs are in another currency.
fn stake(set: &PolicySet, state: &State, risk: f64, healthy: f64) -> Option<(f64, f64)> {
    let sums = sums(state);
    let newest = state
        .parts
        .values()
        .filter_map(|part| part.purchases.keys().next_back())
        .max()?;
    let mut spent: BTreeMap<Currency, i64> = BTreeMap::new();
    let mut year: BTreeMap<Currency, i64> = BTreeMap::new();
    let kept_days = |day: &Day| newest.0.saturating_sub(day.0) < crate::part::PURCHASE_WINDOW;
    for (day, bought) in state
        .parts
        .values()
        .flat_map(|part| &part.purchases)
        .filter(|(day, _)| kept_days(day))
    {
        for (currency, minor) in bought.gross.iter().filter(|(currency, _)| sums.contains_key(currency)) {
            let sum = spent.entry(*currency).or_default();
            *sum = sum.saturating_add(*minor);
            if newest.0.saturating_sub(day.0) < YEAR {
                let sum = year.entry(*currency).or_default();
                *sum = sum.saturating_add(*minor);
            }
        }
    }
    let most = *spent.values().max()?;
    let currency = spent
        .iter()
        .find(|(_, sum)| **sum == most)
        .map(|(currency, _)| *currency)?;
    let economics = &set.economics;
    if economics.currency.is_some_and(|of| of != currency) {
        return None;
    }
    let (gross, refunds) = sums.get(&currency).copied()?;
    let net = gross.saturating_add(refunds).max(0);
    let kept = if gross > 0 { net as f64 / gross as f64 } else { 0.0 };
    let units = (0..currency.exponent()).map(|_| 10.0).product::<f64>();
    let year = year.get(&currency).copied().unwrap_or(0) as f64 * kept;
    let minor = year * economics.margin * (risk - healthy).max(0.0);
    let minor = economics.acquisition_cost.map_or(minor, |cost| minor.min(cost * units));
    Some((minor, units))
}

/// The share of contacts that this customer responds to.
fn responding(offer: &Offer, state: &State) -> f64 {
    let (contacts, responses) = match offer.channel {
        Channel::Email => {
            let sent = count(state, Signal::EmailSent).max(count(state, Signal::EmailDelivered));
            (sent, count(state, Signal::EmailClick))
        }
        Channel::Phone => {
            let calls = count(state, Signal::CallOutbound).saturating_add(count(state, Signal::RelanceContacted));
            (calls, count(state, Signal::ContactAnswered))
        }
        _ => (0, 0),
    };
    (offer.response * 10.0 + responses.min(contacts) as f64) / (10.0 + contacts as f64)
}

/// What an event says about contacts, and how far it brings the flag that it names.
pub(crate) fn note(state: &mut State, signal: Signal, channel: Channel, at: Timestamp, flag: Option<FlagId>) {
    let contacts = [
        Signal::EmailSent,
        Signal::CallOutbound,
        Signal::ContactSent,
        Signal::RelanceContacted,
    ];
    if contacts.contains(&signal) {
        state.contact(at, channel, flag);
    }
    let phase = match signal {
        Signal::RelanceClaimed => 1,
        Signal::ContactSent | Signal::CallOutbound | Signal::RelanceContacted => 2,
        Signal::RelanceLost => crate::state::LOST,
        Signal::RelanceReturned => crate::state::RETURNED,
        Signal::RelanceRecalled => crate::state::RECALLED,
        _ => return,
    };
    for standing in state.policies.values_mut() {
        if flag.is_some() && standing.flag.map(|(_, id)| id) == flag {
            let _ = standing.bring_to(phase, at);
        }
    }
}
