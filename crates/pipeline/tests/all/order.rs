//! FOLD-2: events that arrive in any order, repeated any number of times and cut into any batches give the same records,
//! byte for byte, links included.

use super::support::{event, run, sim};
use proptest::prelude::*;
use std::collections::BTreeMap;
use vigie_event::{CustomerKey, DAY_MS, Event, Timestamp};
use vigie_scoring::CustomerState;

const BASE: i64 = 1_780_000_000_000;

/// What arrives: an event of one of a few people, known or not, or a link between their ids.
fn arrivals() -> impl Strategy<Value = Vec<String>> {
    let one = (0u8..4, 0u8..6, 0i64..35 * 24 * 60, any::<bool>()).prop_map(|(person, kind, minutes, anonymous)| {
        let at = BASE + minutes * 60_000;
        let who = match (kind, anonymous) {
            (0, _) => format!(r#""anonymous_id":"a{person}","user_id":"u{person}","signal":"identity.identify""#),
            (_, true) => format!(r#""anonymous_id":"a{person}""#),
            (_, false) => format!(r#""user_id":"u{person}""#),
        };
        let what = match kind {
            0 => String::new(),
            1 => r#","signal":"purchase","money":{"amount":9.5,"currency":"EUR"}"#.to_owned(),
            2 => r#","signal":"refund","money":{"amount":1,"currency":"EUR"}"#.to_owned(),
            3 => r#","signal":"call.inbound""#.to_owned(),
            4 => r#","signal":"email.sent""#.to_owned(),
            _ => r#","signal":"page.view""#.to_owned(),
        };
        format!(r#"{{"id":"{person}-{kind}-{minutes}-{anonymous}",{who}{what},"timestamp":{at}}}"#)
    });
    proptest::collection::vec(one, 1..24)
}

/// Folds the events in the given order, all received at one instant, and returns the order-free part of every record:
/// everything but what records when and in which order things were decided.
fn fold(events: &[Event], batch: usize) -> BTreeMap<CustomerKey, Vec<u8>> {
    run(async {
        let mut sim = sim(4, Timestamp(BASE)).await;
        for portion in events.chunks(batch) {
            sim.append(portion.to_vec()).await.unwrap();
            sim.settle(batch).await.unwrap();
        }
        let records = sim.records().await.unwrap();
        records
            .into_iter()
            .filter_map(|(key, bytes)| {
                let state = CustomerState::decode(&bytes).unwrap();
                let behaviour = CustomerState {
                    parts: state.parts,
                    linked_to: state.linked_to,
                    recent: state.recent,
                    consent: state.consent,
                    ..CustomerState::default()
                };
                (behaviour != CustomerState::default()).then(|| (key, behaviour.encode()))
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_order_any_repetition_any_batches(
        texts in arrivals(),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 48),
        batch in 1usize..9,
    ) {
        let received = Timestamp(BASE + 40 * DAY_MS);
        let events: Vec<Event> = texts.iter().map(|text| event(text, received)).collect();
        // Another order with repetitions in which each event occurs at least once.
        let mut shuffled: Vec<Event> = order.iter().map(|index| index.get(&events).clone()).collect();
        shuffled.extend(events.iter().rev().cloned());
        prop_assert_eq!(fold(&events, events.len()), fold(&shuffled, batch));
    }
}
