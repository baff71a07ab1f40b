//! FOLD-2: events that arrive in any order, repeated any number of times and cut into any batches give the same records,
//! byte for byte, links included.

use super::support::{Dice, event, run, sim};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{CustomerKey, DAY_MS, Event, PersonId, Timestamp, Workspace};
use vigie_scoring::CustomerState;

const BASE: i64 = 1_780_000_000_000;

/// What arrives: an event of one of a few people, known or not, or a link between their ids.
fn arrivals() -> impl Strategy<Value = Vec<String>> {
    let one = (0u8..4, 0u8..9, 0i64..35 * 24 * 60, any::<bool>()).prop_map(|(person, kind, minutes, anonymous)| {
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
            6 => r#","signal":"email.open","consent":{"email_open_tracking":"granted"}"#.to_owned(),
            7 => format!(
                r#","signal":"email.click","context":{{"page_url":"https://shop.example/{}"}}"#,
                minutes % 5
            ),
            8 => r#","signal":"email.delivered""#.to_owned(),
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
                    mail: state.mail,
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

type Roots = BTreeMap<Workspace, BTreeMap<PersonId, (PersonId, Vec<u8>)>>;

/// Who is who in the end, in each workspace: every identity's root, and what the root's record observed.
async fn roots(events: Vec<Event>) -> Roots {
    let mut sim = sim(4, Timestamp(BASE)).await;
    sim.append(events).await.unwrap();
    sim.settle(usize::MAX).await.unwrap();
    let records: BTreeMap<CustomerKey, CustomerState> = sim
        .records()
        .await
        .unwrap()
        .into_iter()
        .map(|(key, bytes)| (key, CustomerState::decode(&bytes).unwrap()))
        .collect();
    let mut roots = Roots::new();
    for key in records.keys() {
        let mut root = key.clone();
        while let Some(target) = records.get(&root).and_then(|record| record.linked_to.clone()) {
            root.person = target;
        }
        let state = records.get(&root).cloned().unwrap_or_default();
        let observed = CustomerState {
            parts: state.parts,
            recent: state.recent,
            consent: state.consent,
            mail: state.mail,
            ..CustomerState::default()
        };
        let of = roots.entry(key.workspace.clone()).or_default();
        let _ = of.insert(key.person.clone(), (root.person, observed.encode()));
    }
    roots
}

/// Merges commute: one set of declarations and acts, 10,000 orders of it, each in a workspace of its own, one outcome.
#[test]
fn merges_commute_over_ten_thousand_orders() {
    let received = Timestamp(BASE + 40 * DAY_MS);
    let mut texts = Vec::new();
    for n in 0..3 {
        let at = BASE + n * 6 * 3_600_000;
        texts.push(format!(
            r#"{{"id":"v{n}","anonymous_id":"a{n}","signal":"page.view","timestamp":{at}}}"#
        ));
        texts.push(format!(
            r#"{{"id":"p{n}","user_id":"u{n}","signal":"purchase","timestamp":{at},"money":{{"amount":{n}.5,"currency":"EUR"}}}}"#
        ));
        texts.push(format!(
            r#"{{"id":"i{n}","anonymous_id":"a{n}","user_id":"u{n}","signal":"identity.identify","consent":{{"marketing":"granted"}}}}"#
        ));
    }
    for (now, before) in [(1, 0), (2, 1), (2, 0)] {
        texts.push(format!(
            r#"{{"id":"l{now}{before}","user_id":"u{now}","previous_id":"u{before}","signal":"identity.alias"}}"#
        ));
    }
    let mut events: Vec<Event> = texts.iter().map(|text| event(text, received)).collect();
    let mut dice = Dice(0x6d65_7267_6573);
    let mut expected = None;
    for portion in 0..20 {
        let mut all = Vec::new();
        let mut orders = BTreeMap::new();
        for order in 0..500 {
            for last in (1..events.len()).rev() {
                let other = usize::try_from(dice.throw(last as u64 + 1)).unwrap();
                events.swap(last, other);
            }
            let workspace = Workspace::new(&format!("w{order}")).unwrap();
            let own = |event: &Event| Event {
                workspace: workspace.clone(),
                ..event.clone()
            };
            all.extend(events.iter().map(own));
            let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
            let _ = orders.insert(workspace, ids);
        }
        for (workspace, found) in run(roots(all)) {
            let expected = expected.get_or_insert_with(|| found.clone());
            let people: BTreeSet<_> = found.values().map(|(root, _)| root).collect();
            assert_eq!(people.len(), 1, "everybody is one person: {people:?}");
            assert!(found == *expected, "portion {portion}, order {:?}", orders[&workspace]);
        }
    }
}
