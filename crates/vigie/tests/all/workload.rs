//! A crowd of customers: what they do, and what the API says of each of them afterwards. Two servers that got the same
//! events must say the same, byte for byte; nothing here knows how either of them got them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use vigie_event::{DAY_MS, Timestamp};

use crate::support::Server;

/// Within this time after the last event everything has been handed over, on a slow machine too.
const HANDED_OVER: Duration = Duration::from_secs(10);

/// The parts of an answer that depend on the events and on `at`, and on nothing else.
const COMPARED: &[&str] = &[
    "id",
    "identities",
    "as_of",
    "stage",
    "attrition",
    "not_scored",
    "churn",
    "p_alive",
    "reasons",
    "evidence",
    "crossings",
    "forecast",
    "model",
];

fn customer(number: usize) -> String {
    format!("c{number:03}")
}

fn device(number: usize) -> String {
    format!("d{number:03}")
}

/// How many people take part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) customers: usize,
    pub(crate) devices: usize,
}

impl Crowd {
    /// Events of the past four months: everybody has a first day and a last, and a mixture of acts in between. Two of
    /// three devices belong to a customer who signs in now and then; a few customers had another id before.
    pub(crate) fn events(&self, rng: &mut ChaCha8Rng, end: Timestamp, count: usize) -> Vec<Value> {
        let window = |rng: &mut ChaCha8Rng| {
            let first = rng.random_range(10..120);
            (first * DAY_MS, rng.random_range(0..first) * DAY_MS)
        };
        let customers: Vec<_> = (0..self.customers).map(|_| window(rng)).collect();
        let devices: Vec<_> = (0..self.devices).map(|_| window(rng)).collect();
        let owner = |device: usize| (!device.is_multiple_of(3)).then_some(device * 7 % self.customers);
        let mut events = Vec::with_capacity(count);
        for number in 0..count {
            let kind = rng.random_range(0..100);
            let d = rng.random_range(0..self.devices);
            let c = rng.random_range(0..self.customers);
            let (first, last) = if kind < 40 { devices[d] } else { customers[c] };
            let at = end.plus_ms(-rng.random_range(last..=first));
            let mut event = match (kind, owner(d)) {
                (0..5, Some(owner)) => {
                    json!({"signal": "identity.identify", "user_id": customer(owner), "anonymous_id": device(d)})
                }
                (0..40, _) => {
                    let signal = ["page.view", "product.view", "search", "cart.add"][kind % 4];
                    json!({"signal": signal, "anonymous_id": device(d)})
                }
                (40..50, _) => json!({
                    "signal": "purchase", "user_id": customer(c),
                    "money": {"amount": format!("{}.{:02}", kind, number % 100), "currency": "EUR"},
                }),
                (50, _) => {
                    json!({"signal": "refund", "user_id": customer(c), "money": {"amount": 5, "currency": "EUR"}})
                }
                (51, _) if c % 20 == 0 => {
                    json!({"signal": "identity.alias", "user_id": customer(c), "previous_id": format!("old-{c}")})
                }
                (51..55, _) => json!({"signal": "page.view", "user_id": format!("old-{}", c / 20 * 20)}),
                (55..65, _) => json!({
                    "signal": "email.open", "user_id": customer(c), "consent": {"email_open_tracking": "granted"},
                }),
                (65..70, _) => json!({"signal": "call.inbound", "user_id": customer(c)}),
                _ => json!({"signal": "page.view", "user_id": customer(c)}),
            };
            event["id"] = format!("e{number}").into();
            event["timestamp"] = at.to_string().into();
            events.push(event);
        }
        events
    }

    /// What the API says of everybody at `at`: byte for byte, less what depends on the moment of asking.
    pub(crate) fn answers(&self, server: &Server, at: Timestamp) -> Answers {
        let known = (0..self.customers).map(customer);
        let anonymous = (0..self.devices).map(|number| format!("anonymous:{}", device(number)));
        let former = (0..self.customers).step_by(20).map(|number| format!("old-{number}"));
        let mut answers = BTreeMap::new();
        for id in known.chain(anonymous).chain(former) {
            let answer = server
                .client
                .get(&format!("/v1/customers/{id}?at={at}"), &server.keys.read)
                .unwrap();
            let said = if answer.status == 404 {
                "unknown\n".to_owned()
            } else {
                assert_eq!(answer.status, 200, "{id}: {}", answer.body);
                let fields: BTreeMap<&str, &RawValue> = serde_json::from_str(&answer.body).unwrap();
                let compared = COMPARED.iter().map(|name| format!("{name}: {}\n", fields[name].get()));
                compared.collect()
            };
            let _ = answers.insert(id, said);
        }
        answers
    }
}

/// Answers by customer.
pub(crate) type Answers = BTreeMap<String, String>;

/// Looks until the disturbed answers are the expected ones; fails at the first that differs when they do not become so.
///
/// The books are closed as soon as every event has its outcome. What one identity hands over to another is on its way for
/// another step or two, and is in no book.
#[track_caller]
pub(crate) fn become_same(mut look: impl FnMut() -> (Answers, Answers), context: &str) {
    let start = Instant::now();
    loop {
        let (disturbed, expected) = look();
        let differing: Vec<_> = expected
            .iter()
            .filter(|(id, answer)| disturbed.get(*id) != Some(answer))
            .collect();
        let Some((id, answer)) = differing.first() else {
            return;
        };
        assert!(
            start.elapsed() < HANDED_OVER,
            "{context}: {} answers differ; of {id} the disturbed server says\n{}and the other one\n{answer}",
            differing.len(),
            disturbed[*id]
        );
    }
}
