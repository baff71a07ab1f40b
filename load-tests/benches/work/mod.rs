//! What is measured, one call each: shared by the clock (`speed`) and by the count of instructions (`instructions`).

use std::hint::black_box;
use vigie_event::json::{Receipt, read};
use vigie_event::{Body, CustomerKey, DAY_MS, Event, PersonId, Record, Timestamp, Workspace};
use vigie_ingestion::limits::Limits;
use vigie_ingestion::protocol::canonical::read_body;
use vigie_relance::{Look, PolicySet, evaluate};
use vigie_scoring::{CustomerState, Model, Observation, ScoreKind, Scorer};

/// A call, by its name.
pub(crate) type Call = (&'static str, Box<dyn FnMut()>);

fn event_json(number: usize) -> String {
    let signal = if number.is_multiple_of(10) {
        "purchase"
    } else {
        "product.view"
    };
    let money = match signal {
        "purchase" => r#""money":{"amount":"49.90","currency":"EUR"},"#,
        _ => "",
    };
    format!(
        r#"{{"id":"{number:08x}-1f2e3d4c","user_id":"c0004711","signal":"{signal}","timestamp":{},{money}"properties":{{"source":"web","session":"s0badcafe","country":"FR","url":"https://shop.example/p/004711","referrer":"newsletter","device":"mobile","viewport":"412x915","duration_ms":4711}}}}"#,
        1_770_000_000_000 + number as i64 * 3_600_000
    )
}

fn receipt() -> Receipt {
    Receipt {
        workspace: Workspace::new("bench").unwrap(),
        received_at: Timestamp(1_775_000_000_000),
        sent_at: None,
        user_agent: None,
        oldest: None,
    }
}

fn event(number: usize) -> Event {
    read(&event_json(number), &receipt()).unwrap()
}

/// Forty acts over 160 days, every fourth a purchase.
fn acts() -> Vec<Observation> {
    let first = event(0);
    (0..40)
        .map(|number| {
            let act = event(if number % 4 == 0 { 0 } else { 1 });
            Observation {
                at: Timestamp(1_755_000_000_000 + number * 4 * DAY_MS + number * 1_234_567),
                signal: act.signal,
                channel: first.channel,
                money: act.money,
                human: true,
            }
        })
        .collect()
}

/// Everything that one event goes through, and a decision.
pub(crate) fn all() -> Vec<Call> {
    let receipt = receipt();
    let limits = Limits::default();
    let batch: String = (0..100).map(event_json).collect::<Vec<_>>().join(",");
    let batch = format!("[{batch}]");
    let record = Record::new(Body::Event(Box::new(event(7))));
    let bytes = record.encode();

    let person = PersonId::known("c0004711").unwrap();
    let acts = acts();
    let mut state = CustomerState::default();
    for act in &acts {
        let _ = state.fold(&person, act);
    }
    let encoded = state.encode();
    let model: &'static Model = Box::leak(Box::new(Model::shipped().unwrap()));
    let last = acts.last().unwrap().at;
    let now = last.plus_ms(20 * DAY_MS);
    let until = now.plus_ms(3_650 * DAY_MS);
    let scorer: &'static Scorer<'static> = Box::leak(Box::new(Scorer::of(&state, model)));
    let policies = PolicySet::parse(PolicySet::shipped_text()).unwrap();
    let key = CustomerKey::new(Workspace::new("bench").unwrap(), person.clone());
    let (mut folded, mut judged, scored) = (state.clone(), state.clone(), state.clone());

    vec![
        ("JSON: one event", {
            let (receipt, text) = (receipt.clone(), event_json(7));
            Box::new(move || drop(black_box(read(black_box(&text), &receipt))))
        }),
        ("JSON: a batch of 100, with limits", {
            Box::new(move || drop(black_box(read_body(black_box(batch.as_bytes()), &receipt, &limits))))
        }),
        (
            "codec: write a log record",
            Box::new(move || drop(black_box(black_box(&record).encode()))),
        ),
        (
            "codec: read a log record",
            Box::new(move || drop(black_box(Record::decode(black_box(&bytes))))),
        ),
        (
            "codec: write a customer",
            Box::new(move || drop(black_box(black_box(&state).encode()))),
        ),
        (
            "codec: read a customer",
            Box::new(move || drop(black_box(CustomerState::decode(black_box(&encoded))))),
        ),
        ("fold: one event into a customer of forty", {
            let act = *acts.last().unwrap();
            Box::new(move || {
                let _ = black_box(folded.fold(&person, black_box(&act)));
            })
        }),
        ("score: read the record and solve attrition", {
            Box::new(move || {
                let scorer = Scorer::of(black_box(&scored), model);
                let _ = black_box(scorer.attrition_terms(now));
            })
        }),
        ("score: churn with contributions", {
            Box::new(move || {
                let _ = black_box(scorer.churn_parts(90, black_box(now)));
            })
        }),
        ("crossing: attrition", {
            Box::new(move || {
                let _ = black_box(scorer.first_crossing(ScoreKind::Attrition, black_box(0.8), now, until));
            })
        }),
        ("policies: the shipped ones, one customer", {
            Box::new(move || {
                let mut look = Look {
                    key: &key,
                    state: &mut judged,
                    scorer,
                    model,
                    now: black_box(now),
                    purchase: None,
                };
                drop(black_box(evaluate(&policies, &mut look)));
            })
        }),
    ]
}
