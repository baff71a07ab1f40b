//! Why a customer whose score reached a threshold is not flagged.
//!
//! A reason either *lasts* until an event takes it away (a withdrawn consent, an open complaint), or it *pauses* the policy
//! until an instant that is known when it is met (a cap that frees itself, a gap after a contact). Silence alone never changes
//! a lasting reason, and never shortens a pause: so between two events there is nothing to be looked at but the pause's end.

use crate::complaint::{Complaint, times};
use crate::outage::{Outage, is_silent};
use crate::policy::{Eligible, MarketingConsent, Offer, Play, Policy, PolicySet, Pressure};
use crate::row::Row;
use std::collections::BTreeMap;
use vigie_event::{Channel, ConsentState, CustomerKey, DAY_MS, Day, FlagId, Purpose, Signal, Timestamp};
use vigie_scoring::state::{ConsentRecord, Ledger};
use vigie_scoring::{CustomerState, Features};

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $label:literal;)*) => {
        /// Why a customer whose score reached a threshold is not flagged.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code kept in the ledger.
            #[must_use]
            pub const fn code(self) -> u8 { match self { $(Self::$variant => $code,)* } }

            /// The stable name used in answers and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Self::$variant => $label,)* } }
        }
    };
}

refusals! {
    /// The person refused profiling or marketing, or may have: what is in quarantine is respected until it is dismissed.
    Objected = 1, "objected";
    /// The policy needs a consent that was never given.
    NoConsent = 2, "no_consent";
    /// There is no id to contact the person by.
    Anonymous = 3, "anonymous";
    /// Too few purchase days.
    FewPurchases = 4, "few_purchases";
    /// Too many purchase days.
    ManyPurchases = 5, "many_purchases";
    /// Too few active days.
    LittleActivity = 6, "little_activity";
    /// Silent for too long: already gone.
    GoneTooLong = 7, "gone_too_long";
    /// The policy's predicate does not hold (R20).
    NotEligible = 8, "not_eligible";
    /// None of the policy's channels may be used: unsubscribed, reported as spam, bounced.
    NoChannel = 9, "no_channel";
    /// The customer waits for the answer to a complaint (R61).
    OpenComplaint = 10, "open_complaint";
    /// The customer has called or written a short while ago, and that is not closed (R44). Pauses.
    InboundContact = 11, "inbound_contact";
    /// The customer was contacted a short while ago (R58). Pauses.
    RecentAttention = 12, "recent_attention";
    /// The customer was contacted often enough (R58). Pauses.
    Capped = 13, "capped";
    /// The contact would cost more than it is expected to save (R37). Pauses for the cooldown.
    Unprofitable = 14, "unprofitable";
    /// There is no hour for a contact in time: quiet hours, quiet days, holidays. Pauses for a day.
    Quiet = 15, "quiet";
    /// A source that tells about the customer is, or was, silent. Lasts while it is; afterwards pauses for as long as its
    /// silence is part of the customer's.
    SourceOutage = 16, "source_outage";
    /// What is known of the customer is older than the policy allows.
    StaleData = 17, "stale_data";
}

/// A reason that ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) reason: Refusal,
    pub(crate) until: Timestamp,
}

/// The first reason that lasts.
pub(crate) fn lasting(
    outages: &[Outage],
    policy: &Policy,
    key: &CustomerKey,
    state: &CustomerState,
    features: &Features,
    now: Timestamp,
) -> Option<Refusal> {
    let eligible = &policy.eligible;
    let said = |purpose: Purpose| state.consent.get(&purpose).map(|ConsentRecord { state, .. }| *state);
    let marketing = said(Purpose::Marketing);
    let is_service = policy.score.is_service();
    let purchase_days = features.purchases.map_or(0, |purchases| purchases.x.saturating_add(1));
    let active_days = features
        .engagement
        .map_or(0, |engagement| engagement.x.saturating_add(1));
    let objected = said(Purpose::Profiling) == Some(ConsentState::Refused)
        || (!is_service && (marketing == Some(ConsentState::Refused) || state.quarantine.is_waiting()));
    // Rights come first: they are reasons that no setting can overrule. The last ones alone depend on time.
    if objected {
        Some(Refusal::Objected)
    } else if !is_service
        && eligible.marketing_consent == MarketingConsent::Granted
        && marketing != Some(ConsentState::Granted)
    {
        Some(Refusal::NoConsent)
    } else if eligible.known_only && !key.person.is_known() {
        Some(Refusal::Anonymous)
    } else if !is_service && Complaint::of(state).is_some_and(|complaint| complaint.is_open()) {
        Some(Refusal::OpenComplaint)
    } else if purchase_days < eligible.min_purchase_days {
        Some(Refusal::FewPurchases)
    } else if purchase_days > eligible.max_purchase_days {
        Some(Refusal::ManyPurchases)
    } else if active_days < eligible.min_active_days {
        Some(Refusal::LittleActivity)
    } else if policy
        .members
        .as_ref()
        .is_some_and(|members| !members.holds(&Row::of(key, state, features)))
    {
        Some(Refusal::NotEligible)
    } else if !policy.channels.is_empty() && allowed(policy, state).next().is_none() {
        Some(Refusal::NoChannel)
    } else if is_silent(outages, policy, state) {
        Some(Refusal::SourceOutage)
    } else {
        outdated(eligible, features, state.last_received, now)
    }
}

/// Of the two reasons that come with time the one that came first, so that silence never changes it.
fn outdated(eligible: &Eligible, features: &Features, heard: Timestamp, now: Timestamp) -> Option<Refusal> {
    let over = |since: Timestamp, days: u32| since.plus_ms((i64::from(days) + 1) * DAY_MS);
    let gone = features.engagement.map_or(Timestamp(i64::MIN), |engagement| {
        over(engagement.last, eligible.max_silence_days)
    });
    let stale = over(heard, eligible.max_data_age_days);
    match (gone <= now, stale <= now) {
        (true, true) if stale < gone => Some(Refusal::StaleData),
        (true, _) => Some(Refusal::GoneTooLong),
        (false, true) => Some(Refusal::StaleData),
        (false, false) => None,
    }
}

/// The policy's channels by which the customer may be reached at all, within what a contact may cost.
pub(crate) fn allowed<'a>(policy: &'a Policy, state: &CustomerState) -> impl Iterator<Item = &'a Offer> {
    // An answer that is owed is no advertisement.
    let may_mail = policy.score.is_service() || may_mail(state);
    policy.channels.iter().filter(move |offer| {
        (offer.channel != Channel::Email || may_mail) && policy.max_cost.is_none_or(|most| offer.cost <= most)
    })
}

/// Whether mail reaches the customer and is wanted: the last word of theirs, or of their mail server, counts (R88, R89).
fn may_mail(state: &CustomerState) -> bool {
    let last = |signal| times(state, signal).map(|times| times.last);
    let latest = |signals: &[Signal]| signals.iter().filter_map(|signal| last(*signal)).max();
    let unwanted = latest(&[Signal::EmailUnsubscribe, Signal::EmailComplaint]);
    let bounced = last(Signal::EmailBounce);
    let arrived = latest(&[Signal::EmailDelivered, Signal::EmailOpen, Signal::EmailClick]);
    unwanted.is_none_or(|no| last(Signal::NewsletterSubscribe).is_some_and(|yes| yes > no))
        && bounced.is_none_or(|bounced| arrived.is_some_and(|arrived| arrived > bounced))
}

/// What stands against a contact that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objection {
    /// Why.
    pub reason: Refusal,
    /// Until when, where it ends by itself or may end at any time; `None`: this contact is not to be made at all.
    pub until: Option<Timestamp>,
}

/// Time after which it is asked again whether a source still is silent.
const ASK_AGAIN_MS: i64 = 10 * 60_000;

/// What stands now against the contact that a flag of a policy asks for, by the channel that its plan names: everything that
/// would have refused the flag or paused the policy, whatever the score. Contacts that were made for this very flag do not
/// count against it.
#[must_use]
pub fn objection(
    set: &PolicySet,
    policy: &Policy,
    key: &CustomerKey,
    state: &CustomerState,
    (flag, channel): (FlagId, Option<Channel>),
    now: Timestamp,
) -> Option<Objection> {
    let never = |reason| Objection { reason, until: None };
    let waits = |pause: Pause| Objection {
        reason: pause.reason,
        until: Some(pause.until),
    };
    match lasting(&set.outages, policy, key, state, &Features::of(state), now) {
        Some(Refusal::SourceOutage) => {
            return Some(Objection {
                reason: Refusal::SourceOutage,
                until: Some(now.plus_ms(ASK_AGAIN_MS)),
            });
        }
        Some(reason) => return Some(never(reason)),
        None => {}
    }
    if policy.score.is_service() {
        return None;
    }
    if channel == Some(Channel::Email) && !may_mail(state) {
        return Some(never(Refusal::NoChannel));
    }
    let mut others = state.ledger.clone();
    others.contacts.retain(|contact| contact.flag != Some(flag));
    pause(&set.pressure, state, &others, now).map(waits)
}

/// What pauses marketing for now, whatever the channel.
pub(crate) fn pause(pressure: &Pressure, state: &CustomerState, ledger: &Ledger, now: Timestamp) -> Option<Pause> {
    let days = |days: u32| i64::from(days) * DAY_MS;
    let last = |signal| times(state, signal).map(|times| times.last);
    let ticket = last(Signal::TicketOpened).filter(|opened| last(Signal::TicketClosed) < Some(*opened));
    let inbound = [ticket, last(Signal::CallInbound), last(Signal::CallAbandoned)];
    let inbound = inbound.into_iter().flatten().max();
    let suspended = inbound.map(|at| Pause {
        reason: Refusal::InboundContact,
        until: at.plus_ms(days(pressure.suspend_days)),
    });
    let rested = ledger.contacts.last().map(|contact| Pause {
        reason: Refusal::RecentAttention,
        until: contact.at.plus_ms(days(pressure.gap_days)),
    });
    let capped = free_again(ledger, None, pressure.max_contacts, pressure.window_days, now).map(|until| Pause {
        reason: Refusal::Capped,
        until,
    });
    [suspended, rested, capped]
        .into_iter()
        .flatten()
        .find(|pause| pause.until > now)
}

/// What pauses rewards for now: one that any policy in force has given, or has held out, so that both arms keep the same rule.
pub(crate) fn rewarded(set: &PolicySet, policy: &Policy, ledger: &Ledger, now: Timestamp) -> Option<Pause> {
    if policy.play != Play::Reward {
        return None;
    }
    let rewards = set.policies.iter().filter(|other| other.play == Play::Reward);
    let flags = rewards.filter_map(|other| ledger.policies.get(&other.id)?.last_flag);
    let until = flags
        .map(|flag| flag.at)
        .max()?
        .plus_ms(i64::from(set.pressure.reward_gap_days) * DAY_MS);
    (until > now).then_some(Pause {
        reason: Refusal::Capped,
        until,
    })
}

/// When a cap on contacts (of one channel, or of all) leaves room again; `None` when it does now.
pub(crate) fn free_again(
    ledger: &Ledger,
    channel: Option<Channel>,
    most: u32,
    window_days: u32,
    now: Timestamp,
) -> Option<Timestamp> {
    let window = i64::from(window_days) * DAY_MS;
    // Contacts of one channel on one day are one: a provider reports a mail that a campaign tool reports too.
    let mut contacts: BTreeMap<(Day, Channel), Timestamp> = BTreeMap::new();
    for contact in &ledger.contacts {
        if channel.is_none_or(|channel| channel == contact.channel) && contact.at.plus_ms(window) > now {
            let _ = contacts.insert((contact.at.day(), contact.channel), contact.at);
        }
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let over = contacts.len().checked_sub(most)?;
    let mut times: Vec<Timestamp> = contacts.into_values().collect();
    times.sort_unstable();
    times.get(over).map(|at| at.plus_ms(window))
}
