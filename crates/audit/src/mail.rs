//! Acts on mails as the oracle judges them: anew from the documented rules (`vigie_scoring::state::mail`), over a sorted list
//! and with marks, not as the record does it.

use crate::part::{Act, Part};
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Channel, PersonId, Signal, Timestamp};

/// An act: when, who, what, where, which link, and how likely a person by the software.
pub(crate) type MailAct = (Timestamp, PersonId, Signal, Channel, u32, u16);

/// Acts that are open.
const OPEN: usize = 64;
const HOUR_MS: i64 = 3_600_000;
const TEN_SECONDS: i64 = 10_000;
const TWO_SECONDS: i64 = 2_000;
/// Likelihood that is left to an act beside a machine.
const LEFT: u16 = 100;
/// From here on an act is a person's.
const PERSON: u16 = 500;

/// Whether acts of this kind stay open at all; `Some(true)` where they count by themselves.
pub(crate) fn kind(signal: Signal) -> Option<bool> {
    match signal {
        Signal::EmailOpen | Signal::EmailClick => Some(true),
        Signal::EmailDelivered | Signal::EmailMachineClick => Some(false),
        _ => None,
    }
}

/// Every act with the likelihood that is made of it, and whether rule 1, 2 or 3 doubts it.
fn judged(acts: &BTreeMap<MailAct, u16>) -> Vec<(&MailAct, u16, bool)> {
    let list: Vec<&MailAct> = acts.keys().collect();
    let mut marked = vec![false; list.len()];
    // Rule 1: from each click on, as far as ten seconds reach.
    let clicks: Vec<(usize, &MailAct)> = (0..)
        .zip(list.iter().copied())
        .filter(|(_, act)| act.2 == Signal::EmailClick)
        .collect();
    for (nth, (_, first)) in clicks.iter().enumerate() {
        let run = clicks.iter().skip(nth);
        let run: Vec<_> = run.take_while(|(_, act)| act.0.0 - first.0.0 <= TEN_SECONDS).collect();
        // Acts of one instant stand in the order of their other fields: the run begins with all of them.
        let run: Vec<_> = clicks
            .iter()
            .take(nth)
            .filter(|(_, act)| act.0 == first.0)
            .chain(run)
            .collect();
        let links: BTreeSet<u32> = run.iter().map(|(_, act)| act.4).collect();
        if links.len() >= 3 {
            for (place, _) in run {
                if let Some(mark) = marked.get_mut(*place) {
                    *mark = true;
                }
            }
        }
    }
    // Rules 2 and 3.
    for witness in &list {
        for (act, mark) in list.iter().zip(&mut marked) {
            let later = act.0.0 - witness.0.0;
            *mark |= match (witness.2, act.2) {
                (Signal::EmailMachineClick, Signal::EmailClick) => later.abs() <= TEN_SECONDS,
                (Signal::EmailDelivered, Signal::EmailOpen | Signal::EmailClick) => (0..=TWO_SECONDS).contains(&later),
                _ => false,
            };
        }
    }
    let mut judged: Vec<(&MailAct, u16, bool)> = list
        .iter()
        .zip(marked)
        .map(|(act, mark)| (*act, if mark { act.5.min(LEFT) } else { act.5 }, mark))
        .collect();
    // Rule 4: every person's click raises the opens of the hour before it.
    let people: Vec<(i64, u16)> = judged
        .iter()
        .filter(|(act, likely, _)| act.2 == Signal::EmailClick && *likely >= PERSON)
        .map(|(act, likely, _)| (act.0.0, *likely))
        .collect();
    for (act, likely, _) in judged.iter_mut().filter(|(act, ..)| act.2 == Signal::EmailOpen) {
        for (_, click) in people.iter().filter(|(at, _)| (0..=HOUR_MS).contains(&(at - act.0.0))) {
            *likely = (*click).max(*likely);
        }
    }
    judged
}

/// What open acts count together; `None` when nothing does.
pub(crate) fn counted(acts: &BTreeMap<MailAct, u16>) -> Option<Part> {
    let mut part = Part::default();
    for (act, likely, _) in judged(acts) {
        let times = acts.get(act).copied().unwrap_or_default();
        (0..times).for_each(|_| count(&mut part, act, likely));
    }
    Some(part).filter(|part| part.observations > 0)
}

fn count(part: &mut Part, act: &MailAct, likely: u16) {
    if kind(act.2) == Some(true) {
        part.count(&Act {
            at: act.0,
            signal: act.2,
            channel: act.3,
            money: None,
            human: likely >= PERSON,
        });
    }
}

/// Whether a machine was at work within ten seconds.
pub(crate) fn machine_near(acts: &BTreeMap<MailAct, u16>, at: Timestamp) -> bool {
    judged(acts).iter().any(|(act, _, doubted)| {
        let machine = act.2 == Signal::EmailMachineClick || (act.2 == Signal::EmailClick && *doubted);
        machine && (act.0.0 - at.0).abs() <= TEN_SECONDS
    })
}

/// Takes what is settled by now out of the open acts and counts it for its identity.
pub(crate) fn settle(acts: &mut BTreeMap<MailAct, u16>, parts: &mut BTreeMap<PersonId, Part>, most_parts: usize) {
    let Some(today) = acts.keys().map(|act| act.0.day().0).max() else {
        return;
    };
    // Today and yesterday are open.
    let old = acts.keys().filter(|act| act.0.day().0 < today - 1).count();
    let leaving = old.max(acts.len().saturating_sub(OPEN));
    let all: Vec<(MailAct, u16)> = judged(acts)
        .into_iter()
        .map(|(act, likely, _)| (act.clone(), likely))
        .collect();
    let (settled, staying) = all.split_at_checked(leaving).unwrap_or_default();
    let Some((last, _)) = settled.last() else { return };
    let settled: Vec<(MailAct, u16, u16)> = settled
        .iter()
        .map(|(act, likely)| (act.clone(), *likely, acts.get(act).copied().unwrap_or_default()))
        .collect();
    for (act, likely, times) in settled {
        let _ = acts.remove(&act);
        let known = parts.contains_key(&act.1);
        if kind(act.2) == Some(true) && (known || parts.len() < most_parts) {
            let part = parts.entry(act.1.clone()).or_default();
            (0..times).for_each(|_| count(part, &act, likely));
        }
    }
    // What was judged with their help keeps its judgement.
    for (act, likely) in staying {
        if kind(act.2) == Some(true)
            && act.0.0 - last.0.0 <= HOUR_MS
            && let Some(times) = acts.remove(act)
        {
            let judged = acts
                .entry((act.0, act.1.clone(), act.2, act.3, act.4, *likely))
                .or_default();
            *judged = judged.saturating_add(times);
        }
    }
}
