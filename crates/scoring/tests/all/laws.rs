//! The laws of the customer record: what arrival order, repetition, stitching and storage must not change.

use crate::generate::{check, instant, observation, observations, person, state};
use crate::oracle;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Currency, EventId, PersonId, Seen, Timestamp};
use vigie_scoring::state::{Fold, MAX_PARTS};
use vigie_scoring::{CustomerState, Features, Observation, Part};

fn fold(observations: &[Observation]) -> Part {
    let mut part = Part::default();
    observations.iter().for_each(|o| part.apply(o));
    part
}

fn merged(a: &CustomerState, b: &CustomerState) -> CustomerState {
    let mut sum = a.clone();
    sum.merge(b);
    sum
}

#[test]
fn order_of_arrival_does_not_matter() {
    let lists = observations(16).prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle()));
    check(10_000, lists, |(list, shuffled)| {
        prop_assert_eq!(fold(&list), fold(&shuffled));
        Ok(())
    });
}

#[test]
fn a_sum_of_parts_is_the_fold_of_all_their_observations() {
    let split = (observations(12), observations(12));
    check(10_000, split, |(left, right)| {
        let mut sum = fold(&left);
        sum.absorb(&fold(&right));
        let mut other_way = fold(&right);
        other_way.absorb(&fold(&left));
        let all = fold(&[left, right].concat());
        prop_assert_eq!(&sum, &all);
        prop_assert_eq!(&other_way, &all);
        Ok(())
    });
}

#[test]
fn every_number_agrees_with_the_oracle() {
    let now = 0i64..6000;
    check(10_000, (observations(16), now), |(list, days)| {
        let part = fold(&list);
        let days_of = |set: BTreeSet<i64>| set.into_iter().collect::<Vec<_>>();
        let active: Vec<i64> = part.calendar().days().map(|d| i64::from(d.0)).collect();
        prop_assert_eq!(active, days_of(oracle::active_days(&list)));
        let sessions: Vec<_> = part.calendar().sessions().iter().map(|s| (s.start, s.end)).collect();
        prop_assert_eq!(sessions, oracle::sessions(&list));
        let totals: BTreeMap<_, _> = part
            .purchases()
            .totals()
            .map(|(c, t)| (c, (t.gross, t.refunds)))
            .collect();
        prop_assert_eq!(totals, oracle::money(&list));
        let mut book: BTreeMap<i64, (u32, BTreeMap<Currency, i64>)> = part
            .purchases()
            .days()
            .map(|(d, orders)| (i64::from(d.0), (orders, BTreeMap::new())))
            .collect();
        for (d, currency, amount) in part.purchases().amounts() {
            let _ = book.get_mut(&i64::from(d.0)).unwrap().1.insert(currency, amount);
        }
        prop_assert_eq!(book, oracle::day_book(&list));
        prop_assert_eq!(part.hours().collect::<BTreeMap<_, _>>(), oracle::hours(&list));
        prop_assert_eq!(part.observations(), list.len() as u64);
        prop_assert_eq!(
            part.machine_observations(),
            list.iter().filter(|o| !o.human).count() as u64
        );

        let now = Timestamp(crate::generate::START + days * 86_400_000 + 12_345);
        let mut state = CustomerState::default();
        let _ = state.parts.insert(PersonId::known("customer").unwrap(), part);
        let weeks = Features::of(&state)
            .purchases
            .map(|p| p.recency(now))
            .map(|r| (r.x, r.t_x, r.age));
        let expected = oracle::btyd(&list, now.0).map(|(x, t_x, age)| (x, t_x as f64 / 7.0, age as f64 / 7.0));
        prop_assert_eq!(weeks, expected);
        Ok(())
    });
}

#[test]
fn the_session_near_an_instant_is_one_of_the_sessions() {
    check(5_000, (observations(16), instant()), |(list, at)| {
        let calendar = fold(&list);
        let near = |(start, end): &(i64, i64)| start * 1000 - at.0 <= 1_800_000 && at.0 - end * 1000 <= 1_800_000;
        let expected = oracle::sessions(&list).into_iter().rev().find(near);
        let found = calendar.calendar().session_near(at);
        prop_assert_eq!(found.map(|s| (s.start, s.end)), expected);
        Ok(())
    });
}

#[test]
fn what_the_calendar_forgets_is_still_counted() {
    check(2_000, observations(16), |list| {
        let part = fold(&list);
        for (signal, recency) in part.signals() {
            let kept: u64 = part
                .calendar()
                .counts()
                .filter(|(_, s, _)| *s == signal)
                .map(|(_, _, n)| u64::from(n))
                .sum();
            prop_assert_eq!(part.count_before_window(signal) + kept, recency.count);
        }
        Ok(())
    });
}

#[test]
fn merge_is_commutative_associative_and_idempotent() {
    check(10_000, (state(), state(), state()), |(a, b, c)| {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
        prop_assert_eq!(merged(&merged(&a, &b), &b), merged(&a, &b));
        Ok(())
    });
}

#[test]
fn merging_the_records_of_two_identities_is_replaying_both() {
    let events = prop::collection::vec((person(), observation()), 0..24);
    check(10_000, events, |events| {
        let mut one = CustomerState::default();
        let mut records: BTreeMap<PersonId, CustomerState> = BTreeMap::new();
        for (person, observation) in &events {
            prop_assert_eq!(one.fold(person, observation), Fold::Applied);
            let _ = records.entry(person.clone()).or_default().fold(person, observation);
        }
        let together = records
            .values()
            .rev()
            .fold(CustomerState::default(), |sum, record| merged(&sum, record));
        prop_assert_eq!(&together, &one);
        let plain: Vec<Observation> = events.into_iter().map(|(_, observation)| observation).collect();
        prop_assert_eq!(one.combined().into_owned(), fold(&plain));
        Ok(())
    });
}

#[test]
fn a_part_shipped_again_or_late_changes_nothing() {
    check(2_000, (observations(8), observations(8)), |(early, late)| {
        let person = PersonId::anonymous("device").unwrap();
        let old = fold(&early);
        let new = fold(&[early, late].concat());
        let mut state = CustomerState::default();
        state.adopt(&person, &new);
        let before = state.clone();
        state.adopt(&person, &new);
        state.adopt(&person, &old);
        prop_assert_eq!(state, before);
        Ok(())
    });
}

#[test]
fn repeated_events_change_nothing_when_recent_ids_are_asked() {
    let events = prop::collection::vec((0usize..20, observation()), 1..12);
    let deliveries = events.prop_flat_map(|events| {
        let repeated = [events.clone(), events.clone()].concat();
        (Just(events), Just(repeated).prop_shuffle())
    });
    check(2_000, deliveries, |(events, deliveries)| {
        let person = PersonId::known("c").unwrap();
        let receive = |list: &[(usize, Observation)]| {
            let mut state = CustomerState::default();
            for (number, observation) in list {
                // An id stands for one payload: the number and the observation together.
                let id = EventId::new(&format!("{number}-{observation:?}")[..60]).unwrap();
                let fingerprint = observation.at.0 as u64 ^ (*number as u64) << 50;
                if state.recent.seen(&id, fingerprint) != Seen::Duplicate {
                    let _ = state.fold(&person, observation);
                }
                state.recent.insert(&id, fingerprint, Timestamp(0), 1024);
            }
            state
        };
        let mut once = events.clone();
        once.sort();
        once.dedup_by_key(|(number, o)| {
            (
                format!("{number}-{o:?}")[..60].to_owned(),
                o.at.0 as u64 ^ (*number as u64) << 50,
            )
        });
        prop_assert_eq!(
            receive(&deliveries).combined().observations(),
            receive(&once).combined().observations()
        );
        prop_assert_eq!(receive(&deliveries).recent, receive(&once).recent);
        Ok(())
    });
}

#[test]
fn bytes_read_back_and_are_canonical() {
    check(10_000, state(), |state| {
        let bytes = state.encode();
        let read = CustomerState::decode(&bytes);
        prop_assert_eq!(read.as_ref(), Ok(&state));
        prop_assert_eq!(read.unwrap().encode(), bytes);
        Ok(())
    });
}

#[test]
fn damaged_bytes_are_an_error_or_a_record_never_a_panic() {
    let damage = (state(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    check(5_000, damage, |(state, at, value, cut)| {
        let mut bytes = state.encode();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
            prop_assert!(CustomerState::decode(&bytes).is_err());
        } else {
            bytes[at] = value;
            if let Ok(read) = CustomerState::decode(&bytes) {
                // Whatever reads as a record is one: it can be merged, combined and written.
                let again = merged(&read, &state);
                let _ = again.combined();
                prop_assert!(CustomerState::decode(&again.encode()).is_ok());
            }
        }
        Ok(())
    });
}

#[test]
fn the_number_of_identities_is_bounded_and_the_bound_is_a_merge_law_too() {
    let person = |n: usize| PersonId::anonymous(&format!("device-{n}")).unwrap();
    let view = |at: i64| Observation {
        at: Timestamp(at),
        signal: vigie_event::Signal::PageView,
        channel: vigie_event::Channel::Web,
        money: None,
        human: true,
    };
    let record = |from: usize, to: usize| {
        let mut state = CustomerState::default();
        for n in from..to {
            for event in 0..=(n * 7) % 11 {
                let _ = state.fold(&person(n), &view(event as i64));
            }
        }
        state
    };
    let mut full = record(0, MAX_PARTS);
    assert_eq!(full.fold(&person(MAX_PARTS), &view(0)), Fold::TooManyIdentities);
    assert_eq!(full.parts.len(), MAX_PARTS);
    assert_eq!(full.fold(&person(3), &view(0)), Fold::Applied);
    let (a, b, c) = (record(0, 50), record(30, 90), record(80, 120));
    let sum = merged(&merged(&a, &b), &c);
    assert_eq!(sum.parts.len(), MAX_PARTS);
    assert_eq!(sum, merged(&a, &merged(&b, &c)));
    assert_eq!(merged(&b, &a), merged(&a, &b));
}
