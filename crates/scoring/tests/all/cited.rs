//! The ids that reasons point to: which event is quoted, whatever the order of arrival, and that a stranger finds it again.

use crate::generate::{check, observation, person};
use crate::scores::act;
use proptest::prelude::*;
use vigie_event::{EventId, PersonId, Signal, Timestamp};
use vigie_scoring::{Cited, CustomerState, Lang, Model, Observation, assess_in};

fn id(number: u16) -> EventId {
    // Of both forms that are kept.
    let text = if number.is_multiple_of(2) {
        format!("6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f{number:04x}")
    } else {
        format!("event-{number}")
    };
    EventId::new(&text).unwrap()
}

fn fold(events: &[(PersonId, Observation, u16)]) -> CustomerState {
    let mut state = CustomerState::default();
    for (person, observation, number) in events {
        let _ = state.fold(person, observation);
        state.cite(person, observation, &id(*number));
    }
    state
}

fn events() -> impl Strategy<Value = Vec<(PersonId, Observation, u16)>> {
    prop::collection::vec((person(), observation(), 0u16..40), 0..24)
}

/// From the plain list: of all events of a kind the latest, of several at one instant the one with the greatest text.
fn newest(events: &[(PersonId, Observation, u16)], kind: Cited) -> Option<(Timestamp, String)> {
    let mut of_kind: Vec<_> = events
        .iter()
        .filter(|(_, observation, _)| Cited::of(observation) == Some(kind))
        .map(|(_, observation, number)| (observation.at, id(*number).as_str().to_owned()))
        .collect();
    of_kind.sort();
    of_kind.pop()
}

#[test]
fn the_newest_event_of_each_kind_is_quoted_in_any_order_and_over_all_identities() {
    let lists = events().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle()));
    check(3_000, lists, |(list, shuffled)| {
        let state = fold(&list);
        prop_assert_eq!(&state, &fold(&shuffled));
        let part = state.combined();
        for kind in Cited::ALL {
            prop_assert_eq!(part.cited(*kind), newest(&list, *kind), "{:?}", kind);
        }
        prop_assert_eq!(CustomerState::decode(&state.encode()), Ok(state));
        Ok(())
    });
}

#[test]
fn what_is_quoted_is_never_newer_than_what_is_known() {
    check(3_000, events(), |list| {
        let state = fold(&list);
        let part = state.combined();
        let acts = [Cited::Visit, Cited::Mail, Cited::Act, Cited::Complaint];
        let newest = acts.iter().filter_map(|kind| part.cited(*kind)).map(|(at, _)| at).max();
        prop_assert!(newest <= part.last_activity());
        let bought = part.cited(Cited::Purchase).map(|(at, _)| at.day());
        prop_assert_eq!(bought, part.purchases().span().map(|(_, last, _)| last));
        Ok(())
    });
}

/// Every reason of a life with all that reasons speak of points to the event whose date it tells.
#[test]
fn each_sentence_points_to_the_event_that_it_tells() {
    let customer = PersonId::known("customer").unwrap();
    let mut state = CustomerState::default();
    let mut dates = std::collections::BTreeMap::new();
    for (name, day, signal) in [
        ("order-1", "1997-03-01", Signal::Purchase),
        ("order-2", "1997-05-01", Signal::Purchase),
        ("mail-1", "1997-05-20", Signal::EmailClick),
        ("visit-1", "1997-05-25", Signal::PageView),
        ("failure-1", "1997-05-27", Signal::PaymentFailed),
        ("complaint-1", "1997-05-28", Signal::ComplaintOpened),
    ] {
        let act = act(&format!("{day}T10:00:00Z"), signal);
        let _ = state.fold(&customer, &act);
        state.cite(&customer, &act, &EventId::new(name).unwrap());
        let _ = dates.insert(name.to_owned(), act.at.day());
    }
    let mut told = std::collections::BTreeSet::new();
    for model in [Model::shipped().unwrap(), crate::fitted::fitted()] {
        for days in [1, 30, 90, 300] {
            let now = Timestamp::parse("1997-05-29T12:00:00Z")
                .unwrap()
                .plus_ms(days * 86_400_000);
            for lang in Lang::ALL {
                let assessment = assess_in(&state, &model, now, lang);
                for reason in assessment.reasons.iter().chain(&assessment.churn_reasons) {
                    if reason.code.label() == "season" {
                        assert!(reason.events.is_empty(), "{reason:?}");
                        continue;
                    }
                    let [event] = reason.events.as_slice() else {
                        panic!("one event is quoted: {reason:?}");
                    };
                    let day = dates[event].0;
                    // Its day of the month and its year are in the sentence (French has months of other names).
                    let day_of_month = vigie_event::Day(day).to_string()[8..]
                        .trim_start_matches('0')
                        .to_owned();
                    assert!(
                        reason.text.contains(&format!("{day_of_month} ")) || reason.text.contains("1er "),
                        "{reason:?}"
                    );
                    assert!(reason.text.contains("1997"), "{reason:?}");
                    let _ = told.insert(event.clone());
                }
            }
        }
    }
    assert!(
        told.contains("order-2") && told.contains("complaint-1") && told.contains("failure-1"),
        "{told:?}"
    );
    assert!(!told.contains("order-1"), "{told:?}");
}
