//! What an event means, decided anew from the documented rules: signal, time, links. Who acted is the one judgement that is
//! shared (the lists of crawlers are data, not rules), see [`vigie_enrichment::Judge::agent`].

use crate::mail::{MailAct, machine_near};
use std::collections::BTreeMap;
use vigie_event::{Agent, Channel, DAY_MS, Doubt, Event, PersonId, PersonIds, Signal, Timestamp, fingerprint};

/// A clock that is off by no more than this is not corrected.
const TOLERATED_SKEW_MS: u64 = 60_000;
/// Texts that clients send when they mean nobody.
const NOBODY: [&str; 13] = [
    "-1",
    "0",
    "[object object]",
    "anonymous",
    "false",
    "guest",
    "nan",
    "nil",
    "none",
    "null",
    "true",
    "undefined",
    "unknown",
];

/// What happened and where: a custom signal means what its name stands for, and a signal found by name brings its channel
/// unless the event names one.
pub(crate) fn signal(event: &Event) -> (Signal, Channel) {
    match (event.signal, event.channel, &event.name) {
        (Signal::Custom, channel, name) => {
            let signal = name.as_deref().map_or(Signal::Custom, Signal::named);
            match channel {
                Channel::Other => (signal, signal.default_channel()),
                named => (signal, named),
            }
        }
        (signal, channel, _) => (signal, channel),
    }
}

/// When it happened: as claimed, corrected by the error of the clock that stamped both claim and sending, and never after
/// the receipt.
pub(crate) fn time(event: &Event) -> Timestamp {
    let Some(claimed) = event.occurred_at else {
        return event.received_at;
    };
    let corrected = event.sent_at.map_or(claimed, |sent| {
        let error = event.received_at.ms_since(sent);
        let stamped_by_that_clock = sent >= claimed && sent.ms_since(claimed) <= DAY_MS;
        if error.unsigned_abs() > TOLERATED_SKEW_MS && stamped_by_that_clock {
            claimed.plus_ms(error)
        } else {
            claimed
        }
    });
    corrected.min(event.received_at)
}

/// Why an unsubscription or complaint is put into quarantine: a mail provider reports it, and software or moment are a
/// machine's.
pub(crate) fn doubt(
    event: &Event,
    signal: Signal,
    at: Timestamp,
    agent: &Agent,
    acts: &BTreeMap<MailAct, u16>,
) -> Option<Doubt> {
    let reported = event.source.is_mail_provider();
    match signal {
        Signal::EmailUnsubscribe | Signal::EmailComplaint if reported => {
            if agent.human_permille < Agent::HUMAN_FROM {
                return Some(Doubt::Agent);
            }
            machine_near(acts, at).then_some(Doubt::Burst)
        }
        _ => None,
    }
}

/// How the address that was followed is remembered.
pub(crate) fn link(event: &Event) -> u32 {
    let Some(address) = &event.client.page_url else {
        return 0;
    };
    let bytes = fingerprint([address.as_bytes()]).to_be_bytes();
    let [a, b, c, d, ..] = bytes;
    u32::from_be_bytes([a, b, c, d]).max(1)
}

/// Which identities the event declares to be one person: (gives up its record, takes it in).
pub(crate) fn links(signal: Signal, person: &PersonIds) -> Vec<(PersonId, PersonId)> {
    let declared: Vec<(PersonId, PersonId)> = match signal {
        Signal::Identify => person.user.clone().zip(person.anonymous.clone()).into_iter().collect(),
        Signal::Alias => match (person.key(), &person.previous) {
            (Some(now), Some(previous)) => person
                .anonymous
                .clone()
                .into_iter()
                .chain(
                    [PersonId::known(previous), PersonId::anonymous(previous)]
                        .into_iter()
                        .flatten(),
                )
                .map(|before| (now.clone(), before))
                .collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    declared
        .into_iter()
        .filter(|(a, b)| a != b && !is_nobody(a) && !is_nobody(b))
        .map(|(a, b)| if a > b { (a, b) } else { (b, a) })
        .collect()
}

fn is_nobody(person: &PersonId) -> bool {
    NOBODY.contains(&person.as_str().trim().to_ascii_lowercase().as_str())
}
