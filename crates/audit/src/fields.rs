//! A customer record as named fields, to say where two records part.

use crate::layout;
use crate::part::Part;
use crate::state::State;
use std::collections::BTreeMap;
use std::fmt::Display;
use vigie_event::{PersonId, Timestamp};

/// The first field, in the order of the record, in which two canonical byte strings differ: its name, its value on the left
/// and on the right.
pub(crate) fn first_difference(left: &[u8], right: &[u8]) -> (String, String, String) {
    match (layout::decode(left), layout::decode(right)) {
        (Some(left_state), Some(right_state)) => {
            let (ours, theirs) = (fields(&left_state), fields(&right_state));
            let absent = || "absent".to_owned();
            let of_right: BTreeMap<&String, &String> = theirs.iter().map(|(name, value)| (name, value)).collect();
            for (name, value) in &ours {
                match of_right.get(name) {
                    Some(other) if *other == value => {}
                    other => {
                        return (
                            name.clone(),
                            value.clone(),
                            other.map_or_else(absent, |text| (*text).clone()),
                        );
                    }
                }
            }
            let of_left: BTreeMap<&String, &String> = ours.iter().map(|(name, value)| (name, value)).collect();
            for (name, value) in &theirs {
                if !of_left.contains_key(name) {
                    return (name.clone(), absent(), value.clone());
                }
            }
            // The same fields in other bytes: one side is not canonical.
            at_byte(left, right)
        }
        _ => at_byte(left, right),
    }
}

fn at_byte(left: &[u8], right: &[u8]) -> (String, String, String) {
    let at = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    let shown = |bytes: &[u8]| {
        let readable = if layout::decode(bytes).is_some() {
            ""
        } else {
            ", unreadable"
        };
        match bytes.get(at) {
            Some(byte) => format!("{byte:#04x} of {} bytes{readable}", bytes.len()),
            None => format!("end of {} bytes{readable}", bytes.len()),
        }
    };
    (format!("bytes[{at}]"), shown(left), shown(right))
}

fn person(person: &PersonId) -> String {
    let kind = if person.is_known() { "known" } else { "anonymous" };
    format!("{kind}:{}", person.as_str())
}

fn or_none<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// Name and value of every field, in the order of the record.
fn fields(state: &State) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (identity, part) in &state.parts {
        let prefix = format!("parts[{}]", person(identity));
        part_fields(part, &mut |name, value| all.push((format!("{prefix}.{name}"), value)));
    }
    let mut add = |name: String, value: String| all.push((name, value));
    add("linked_to".into(), or_none(state.linked_to.as_ref().map(person)));
    for link in &state.links {
        add(format!("known_links[{}]", person(link)), "present".into());
    }
    for (at, hash, short) in state.recent.entries() {
        add(
            format!("recent[{hash:012x}/{short:08x}]"),
            Timestamp(at as i64).to_string(),
        );
    }
    for (policy, standing) in &state.policies {
        let name = |field: &str| format!("ledger.policies[{policy}].{field}");
        add(name("armed"), standing.armed.to_string());
        let flag = standing.flag.map(|(at, id)| format!("{id} at {at}"));
        add(name("last_flag"), or_none(flag));
        add(name("cooldown_until"), or_none(standing.cooldown));
        add(name("refused"), or_none(standing.refused));
        add(name("policy_version"), format!("{:016x}", standing.version));
        let course = standing
            .course
            .map(|(phase, since)| format!("phase {phase} since {since}"));
        add(name("course"), or_none(course));
    }
    for (at, channel, flag) in &state.contacts {
        add(
            format!("ledger.contacts[{at} {channel} {}]", or_none(*flag)),
            "present".into(),
        );
    }
    for (purpose, (at, word)) in &state.consent {
        add(
            format!("consent[{purpose:?}]").to_lowercase(),
            format!("{word:?} at {at}"),
        );
    }
    add("timer".into(), or_none(state.timer));
    add("rank".into(), or_none(state.rank));
    match state.published {
        None => add("refreshed".into(), "none".into()),
        Some(published) => {
            add("refreshed.at".into(), published.at.to_string());
            add("refreshed.attrition_ppm".into(), or_none(published.attrition));
            add("refreshed.churn_ppm".into(), or_none(published.churn));
            add("refreshed.model".into(), format!("{:016x}", published.model));
        }
    }
    add("last_received".into(), state.last_received.to_string());
    for ((at, identity, signal, channel, link, likely), times) in &state.acts {
        let name = format!("mail[{at} {} {signal} {channel} {link:08x} {likely}]", person(identity));
        add(name, times.to_string());
    }
    for (at, identity, signal, doubt) in &state.held {
        add(
            format!("quarantine[{at} {} {signal} {doubt}]", person(identity)),
            "present".into(),
        );
    }
    add("quarantine.dismissed".into(), or_none(state.dismissed));
    for (identity, to) in &state.given {
        add(format!("bonds.given[{}]", person(identity)), person(to));
    }
    for identity in &state.withdrawn {
        add(format!("bonds.withdrawn[{}]", person(identity)), "present".into());
    }
    for ((identity, purpose), (at, word)) in &state.words {
        let name = format!("bonds.words[{} {purpose:?}]", person(identity)).to_lowercase();
        add(name, format!("{word:?} at {at}"));
    }
    all
}

fn part_fields(part: &Part, add: &mut impl FnMut(String, String)) {
    add("observations".into(), part.observations.to_string());
    add("machine".into(), part.machine.to_string());
    add(
        "human".into(),
        or_none(part.human.map(|(first, last)| format!("{first} to {last}"))),
    );
    for (signal, times) in &part.signals {
        let value = format!("{} times from {} to {}", times.count, times.first, times.last);
        add(format!("signals[{signal}]"), value);
    }
    for (channel, at) in &part.channels {
        add(format!("channels[{channel}]"), at.to_string());
    }
    for (day, active) in &part.days {
        for (signal, count) in &active.counts {
            add(format!("calendar[{day}].counts[{signal}]"), count.to_string());
        }
        let shown: Vec<String> = active.sessions.iter().map(|(a, b)| format!("{a}–{b}")).collect();
        add(format!("calendar[{day}].sessions"), shown.join(", "));
    }
    for (day, bought) in &part.purchases {
        add(format!("purchases.days[{day}]"), bought.orders.to_string());
        for (currency, sum) in &bought.gross {
            add(format!("purchases.amounts[{day} {currency}]"), sum.to_string());
        }
    }
    for (currency, sums) in &part.totals {
        let value = format!("{} gross, {} refunds", sums.gross, sums.refunds);
        add(format!("purchases.totals[{currency}]"), value);
    }
    for (hour, count) in &part.hours {
        add(format!("hours[{hour}]"), count.to_string());
    }
    for (kind, (at, id)) in &part.cited {
        add(format!("cited[{kind}]"), format!("{id} at {at}"));
    }
}
