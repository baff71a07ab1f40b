//! Acts on mails that are judged together, words in quarantine, and identities that leave: rules on examples written by hand,
//! and laws on random ones.

use crate::generate::{MAILS, check, observation};
use crate::scores::act;
use proptest::prelude::*;
use std::collections::BTreeMap;
use vigie_event::{Channel, ConsentState, Doubt, PersonId, Purpose, Signal, Timestamp};
use vigie_scoring::state::{ConsentRecord, Held};
use vigie_scoring::{CustomerState, Observation};

/// A mail act of the only customer: seconds after 9 o'clock, what, which link, likelihood by the software.
type Mail = (f64, Signal, u32, u16);

fn customer(mails: &[Mail]) -> CustomerState {
    let mut state = CustomerState::default();
    let person = PersonId::known("c").unwrap();
    for (seconds, signal, link, permille) in mails {
        let mut observation = act("1997-03-01T09:00:00Z", *signal);
        observation.at = observation.at.plus_ms((seconds * 1000.0).round() as i64);
        observation.channel = Channel::Email;
        observation.human = *permille >= 500;
        let _ = state.observe(&person, &observation, *permille, *link);
    }
    state
}

fn human_acts(state: &CustomerState) -> u64 {
    let whole = state.combined();
    [Signal::EmailOpen, Signal::EmailClick]
        .iter()
        .filter_map(|signal| whole.signal(*signal))
        .map(|recency| recency.count)
        .sum()
}

#[test]
fn later_evidence_lowers_and_raises_what_counted() {
    use Signal::{EmailClick as Click, EmailDelivered as Delivered, EmailMachineClick as Machine, EmailOpen as Open};
    let (person, proxy, privacy) = (1000, 800, 100);
    let table: &[(&str, &[Mail], u64)] = &[
        (
            "an open and a click of a person",
            &[(0.0, Open, 0, person), (30.0, Click, 1, person)],
            2,
        ),
        ("Gmail's proxy is a person behind it", &[(0.0, Open, 0, proxy)], 1),
        ("Apple's is nobody yet", &[(0.0, Open, 0, privacy)], 0),
        (
            "but a click shows that it was somebody",
            &[(0.0, Open, 0, privacy), (3600.0, Click, 1, person)],
            2,
        ),
        (
            "not an hour later",
            &[(0.0, Open, 0, privacy), (3600.1, Click, 1, person)],
            1,
        ),
        (
            "two links in a moment are a hasty person",
            &[(0.0, Click, 1, person), (1.0, Click, 2, person)],
            2,
        ),
        (
            "three are a scanner",
            &[
                (0.0, Click, 1, person),
                (1.0, Click, 2, person),
                (10.0, Click, 3, person),
            ],
            0,
        ),
        (
            "unless they take longer",
            &[
                (0.0, Click, 1, person),
                (5.0, Click, 2, person),
                (10.001, Click, 3, person),
            ],
            3,
        ),
        (
            "one link thrice is impatience",
            &[
                (0.0, Click, 1, person),
                (1.0, Click, 1, person),
                (2.0, Click, 1, person),
            ],
            3,
        ),
        (
            "a click beside a machine's",
            &[(10.0, Click, 1, person), (0.0, Machine, 2, 1000)],
            0,
        ),
        (
            "and further away",
            &[(10.001, Click, 1, person), (0.0, Machine, 2, 1000)],
            1,
        ),
        (
            "at delivery",
            &[
                (0.0, Click, 1, person),
                (0.5, Open, 0, person),
                (-1.5, Delivered, 0, 1000),
            ],
            0,
        ),
        ("after it", &[(0.6, Click, 1, person), (-1.5, Delivered, 0, 1000)], 1),
        ("before it", &[(-1.6, Click, 1, person), (-1.5, Delivered, 0, 1000)], 1),
    ];
    for (what, mails, expected) in table {
        assert_eq!(human_acts(&customer(mails)), *expected, "{what}");
        let backwards: Vec<Mail> = mails.iter().rev().copied().collect();
        let (forth, back) = (customer(mails), customer(&backwards));
        assert_eq!(forth.encode(), back.encode(), "{what}, in another order");
        // What is settled counts what it counted last, and is never taken back.
        let later = (3.0 * 86_400.0, Signal::EmailDelivered, 0, 1000);
        let settled = customer(&[mails.to_vec(), vec![later]].concat());
        assert_eq!(
            (human_acts(&settled), settled.mail.acts().len()),
            (*expected, 1),
            "{what}, settled"
        );
    }
    let scanned = customer(table[6].1);
    assert_eq!(
        scanned.combined().last_activity(),
        None,
        "a machine makes nobody look alive"
    );
    assert_eq!(scanned.combined().machine_observations(), 3);
    let judged: Vec<_> = scanned
        .mail
        .judged()
        .iter()
        .map(|judged| (judged.permille, judged.indicators[0]))
        .collect();
    assert_eq!(judged, [(100, Some("links_at_once")); 3]);
}

/// What an earlier judgement helped to make stays, when its witnesses are settled at midnight.
#[test]
fn a_burst_over_midnight_stays_one() {
    let midnight = 15.0 * 3600.0;
    let burst: Vec<Mail> = [-2.0, -1.0, 1.0]
        .iter()
        .zip(1..)
        .map(|(s, link)| (midnight + s, Signal::EmailClick, link, 1000))
        .collect();
    for last in [1.5, 2.5, 9.0] {
        let later = (midnight + last * 86_400.0, Signal::EmailOpen, 0, 1000);
        let state = customer(&[burst.clone(), vec![later]].concat());
        assert_eq!(human_acts(&state), 1, "{last} days later");
    }
}

#[test]
fn any_order_of_mails_within_a_day_gives_the_same_record() {
    let one = (0usize..4, 0u32..60, 0u32..4, 0u16..3);
    let lists = prop::collection::vec(one, 0..12).prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle()));
    check(10_000, lists, |(list, shuffled)| {
        let mails = |list: &[(usize, u32, u32, u16)]| -> Vec<Mail> {
            let one = |(signal, seconds, link, permille): &(usize, u32, u32, u16)| {
                (f64::from(*seconds), MAILS[*signal], *link, permille * 500)
            };
            list.iter().map(one).collect()
        };
        prop_assert_eq!(customer(&mails(&list)).encode(), customer(&mails(&shuffled)).encode());
        Ok(())
    });
}

#[test]
fn quarantine_ends_with_a_word_or_a_dismissal_in_any_order() {
    let person = PersonId::known("c").unwrap();
    let held = |at: i64| Held {
        at: Timestamp(at),
        identity: person.clone(),
        signal: Signal::EmailUnsubscribe,
        doubt: Doubt::Agent,
    };
    let said = |at: i64, state| ConsentRecord {
        at: Timestamp(at),
        state,
    };
    // A word about marketing, or a dismissal, and whether the word of 10 waits for more.
    let table = [
        (Some(ConsentState::Granted), 9, true),
        (Some(ConsentState::Refused), 10, false),
        (Some(ConsentState::Granted), 11, false),
        (None, 9, true),
        (None, 10, false),
    ];
    for (word, at, waits) in table {
        let answer = |record: &mut CustomerState| match word {
            Some(state) => record.say(&person, Purpose::Marketing, said(at, state)),
            None => record.dismiss(Timestamp(at)),
        };
        let (mut before, mut after) = (CustomerState::default(), CustomerState::default());
        answer(&mut before);
        before.hold(held(10));
        after.hold(held(10));
        assert!(after.quarantine.is_waiting());
        assert!(
            !after.consent.contains_key(&Purpose::Marketing),
            "not yet the person's word"
        );
        answer(&mut after);
        assert_eq!(before, after);
        assert_eq!(after.quarantine.is_waiting(), waits);
    }
}

/// What two people did, each under an identity of their own: linked and unlinked again, both are what they were.
#[test]
fn who_leaves_is_as_if_never_linked() {
    let lives = prop::collection::vec(
        (
            0usize..3,
            observation(),
            0u32..3,
            prop::option::of((0i64..4, any::<bool>())),
        ),
        0..24,
    );
    let ids = ["leader", "device", "holder"];
    check(10_000, (lives, any::<bool>()), |(lives, chained)| {
        let identity = |n: usize| match n {
            1 => PersonId::anonymous(ids[n]).unwrap(),
            _ => PersonId::known(ids[n]).unwrap(),
        };
        let mut alone: BTreeMap<usize, CustomerState> = (0..3).map(|n| (n, CustomerState::default())).collect();
        for (who, observation, link, word) in &lives {
            let state = alone.get_mut(who).unwrap();
            let mail = Observation {
                human: true,
                ..*observation
            };
            let _ = state.observe(&identity(*who), &mail, 1000, *link);
            if let Some((at, granted)) = word {
                let state_said = if *granted {
                    ConsentState::Granted
                } else {
                    ConsentState::Refused
                };
                let record = ConsentRecord {
                    at: Timestamp(*at),
                    state: state_said,
                };
                state.say(&identity(*who), Purpose::Profiling, record);
            }
        }
        let link = |states: &mut BTreeMap<usize, CustomerState>, from: usize, to: usize| {
            let mut gone = states.remove(&from).unwrap();
            let _ = gone.bonds.give_away(&identity(from), &identity(to));
            let holder = states.get_mut(&to).unwrap();
            holder.merge(&gone);
            let _ = holder.note_link(&identity(from));
        };
        let mut linked = alone.clone();
        // The device belongs to the leader, through whom its data came; or to the holder itself.
        link(&mut linked, 1, if chained { 0 } else { 2 });
        link(&mut linked, 0, 2);
        let mut holder = linked.remove(&2).unwrap();
        let gone = holder.release(&identity(0));
        let whole = |of: &[usize]| {
            let mut sum = CustomerState::default();
            of.iter().for_each(|n| sum.merge(&alone[n]));
            sum
        };
        let (leaves, stays) = if chained {
            (whole(&[0, 1]), whole(&[2]))
        } else {
            (whole(&[0]), whole(&[1, 2]))
        };
        prop_assert_eq!(gone.combined(), leaves.combined());
        prop_assert_eq!(holder.combined(), stays.combined());
        prop_assert_eq!(&gone.consent, &leaves.consent);
        prop_assert_eq!(&holder.consent, &stays.consent);
        prop_assert!(!holder.note_link(&identity(0)), "what clients repeat renews nothing");
        prop_assert!(!holder.known_links.contains(&identity(0)));
        prop_assert_eq!(gone.known_links.len(), usize::from(chained));
        Ok(())
    });
}
