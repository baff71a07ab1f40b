//! What senders and clocks do to events, one fault of the failure model (section b.4) after the other. Any order is in
//! `order`, poisoned events are in `poison`.
//!
//! | fault | here |
//! |---|---|
//! | F40 repeated events | `repetitions_count_once_wherever_they_come` |
//! | F41 one id, two contents | `both_contents_of_one_id_are_kept_and_counted` |
//! | F43 late events | `late_events_are_applied_and_take_nothing_back` |
//! | F44 claims of wrong clocks | `a_wrong_clock_moves_nobody_elses_time` |
//! | F45 our own clock jumps | `our_clock_is_no_input_of_a_fold` |

use super::support::{Dice, event, known, run, sim, workspace};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{CustomerKey, DAY_MS, Event, Timestamp};
use vigie_ingestion::log::{Log, LogReader, MemoryLog};
use vigie_pipeline::{Books, Sim, Worker};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::{MemoryStore, Store};
use vigie_telemetry::Metrics;

const BASE: i64 = 1_770_000_000_000;
const PARTITIONS: u16 = 4;

fn day(day: i64) -> Timestamp {
    Timestamp(BASE + day * DAY_MS)
}

fn books(sim: &Sim) -> Books {
    sim.worker
        .status()
        .get()
        .books
        .get(&workspace())
        .copied()
        .unwrap_or_default()
}

async fn flags(sim: &Sim) -> Vec<(u64, bytes::Bytes)> {
    sim.worker.store().flags(&workspace(), 0, 1_000_000).await.unwrap()
}

/// Regular customers who buy and read until they stop, with a year of silence ahead of them.
fn regulars(customers: i64, days: i64) -> Vec<Event> {
    let mut events: Vec<Event> = (0..customers)
        .flat_map(|customer| {
            (0..days - customer % 3 * 20)
                .step_by(3 + customer as usize % 5)
                .map(move |on| {
                    let signal = if on % 2 == 0 { "purchase" } else { "page.view" };
                    let text = format!(r#"{{"id":"{customer}-{on}","user_id":"c{customer}","signal":"{signal}"}}"#);
                    event(&text, day(on).plus_ms(customer * 1_000))
                })
        })
        .collect();
    events.sort_by_key(|event| event.received_at);
    events
}

/// F40: each event three times: again in the same request, and again days later after a restart of the worker.
#[test]
fn repetitions_count_once_wherever_they_come() {
    const CUSTOMERS: usize = 500;
    const EACH: usize = 200;
    run(async {
        let at = |n: usize, later: i64| Timestamp(BASE + later + n as i64);
        let one = |n: usize, later: i64| {
            let signal = if n.is_multiple_of(7) { "purchase" } else { "page.view" };
            let text = format!(
                r#"{{"id":"e{n}","user_id":"c{}","signal":"{signal}","timestamp":{}}}"#,
                n % CUSTOMERS,
                at(n, 0).0
            );
            event(&text, at(n, later))
        };
        let total = CUSTOMERS * EACH;
        let mut sim = sim(PARTITIONS, Timestamp(BASE)).await;
        for portion in (0..total).collect::<Vec<_>>().chunks(5_000) {
            let twice = portion.iter().flat_map(|n| [one(*n, 0), one(*n, 0)]).collect();
            sim.append(twice).await.unwrap();
            sim.settle(1_777).await.unwrap();
        }
        let expected = books(&sim);
        assert_eq!((expected.applied, expected.duplicate), (total as u64, total as u64));
        let parts = async |sim: &Sim| -> BTreeMap<_, _> {
            let mut parts = BTreeMap::new();
            for customer in 0..CUSTOMERS {
                let state = sim.customer(&known(&format!("c{customer}"))).await.unwrap().unwrap();
                let _ = parts.insert(customer, state.parts);
            }
            parts
        };
        let before = parts(&sim).await;
        let (log, store) = (Arc::clone(sim.worker.log()), Arc::clone(sim.worker.store()));
        drop(sim);
        let (model, policies) = (Model::shipped_text(), PolicySet::shipped_text());
        let mut sim = Sim::over(log, store, model, policies, Timestamp(BASE)).await.unwrap();
        for portion in (0..total).collect::<Vec<_>>().chunks(5_000) {
            sim.append(portion.iter().map(|n| one(*n, 6 * DAY_MS)).collect())
                .await
                .unwrap();
            sim.settle(usize::MAX).await.unwrap();
        }
        let after = books(&sim);
        assert_eq!((after.applied, after.duplicate), (total as u64, 2 * total as u64));
        assert!(parts(&sim).await == before, "a repetition changed a customer");
    });
}

/// F41: a sender gave one id to two events. Neither is lost, the second is marked, and each is recognised when it is repeated.
#[test]
fn both_contents_of_one_id_are_kept_and_counted() {
    run(async {
        let mut sim = sim(PARTITIONS, Timestamp(BASE)).await;
        let with = |n: i64, signal: &str| {
            let text = format!(
                r#"{{"id":"e{n}","user_id":"c{}","signal":"{signal}","timestamp":{BASE}}}"#,
                n % 10
            );
            event(&text, Timestamp(BASE + n))
        };
        sim.append((0..300).map(|n| with(n, "page.view")).collect())
            .await
            .unwrap();
        sim.settle(37).await.unwrap();
        sim.append((0..100).map(|n| with(n, "purchase")).collect())
            .await
            .unwrap();
        sim.settle(37).await.unwrap();
        let found = books(&sim);
        assert_eq!((found.applied, found.duplicate, found.conflict), (400, 0, 100));
        for signal in ["page.view", "purchase", "page.view"] {
            sim.append((0..100).map(|n| with(n, signal)).collect()).await.unwrap();
            sim.settle(37).await.unwrap();
        }
        let found = books(&sim);
        assert_eq!((found.applied, found.duplicate, found.conflict), (400, 300, 100));
    });
}

/// F43: an hour, a month and more than a year late: applied at the time they claim; no flag that was raised goes away.
#[test]
fn late_events_are_applied_and_take_nothing_back() {
    run(async {
        let mut sim = sim(PARTITIONS, day(0)).await;
        let regulars = regulars(40, 200);
        let total = regulars.len() as u64;
        for event in regulars {
            sim.pass_to(event.received_at).await.unwrap();
            sim.append(vec![event]).await.unwrap();
            sim.settle(usize::MAX).await.unwrap();
        }
        sim.pass_to(day(500)).await.unwrap();
        let raised = flags(&sim).await;
        assert!(raised.len() > 20, "only {} customers were flagged", raised.len());
        let mut late = 0;
        for (hours, age) in [1, 30 * 24, 400 * 24].into_iter().enumerate() {
            for customer in 0..40 {
                let claimed = sim.now().plus_ms(-age * 3_600_000).0;
                let text = format!(
                    r#"{{"id":"late-{hours}-{customer}","user_id":"c{customer}","signal":"purchase","timestamp":{claimed}}}"#
                );
                let event = event(&text, sim.now());
                sim.append(vec![event]).await.unwrap();
                late += 1;
            }
            sim.settle(usize::MAX).await.unwrap();
            sim.pass_to(sim.now().plus_ms(60_000)).await.unwrap();
        }
        assert_eq!(books(&sim).applied, total + late);
        let now = flags(&sim).await;
        assert_eq!(now[..raised.len()], raised, "a flag that was raised was changed");
        // The purchase of an hour ago is what counts now: nobody is silent any more.
        let state = sim.customer(&known("c0")).await.unwrap().unwrap();
        let assessed = vigie_scoring::assess(&state, &Model::shipped().unwrap(), sim.now());
        assert!(assessed.attrition.unwrap().score < 0.5);
    });
}

/// F44: one client's clock is wrong in every way; with a right one, or with none, everybody else has the same bytes.
#[test]
fn a_wrong_clock_moves_nobody_elses_time() {
    let claims = |received: Timestamp| {
        [
            Some(received.0 + 5 * 60_000),
            Some(received.0 + DAY_MS),
            // The last second of the year 9999.
            Some(253_402_300_799_000),
            // Nanoseconds and microseconds where milliseconds belong.
            Some(received.0.saturating_mul(1_000_000)),
            Some(received.0.saturating_mul(1_000)),
        ]
    };
    let played = |wrong: bool| {
        run(async {
            let mut sim = sim(PARTITIONS, day(0)).await;
            let mut odd = 0;
            for (number, event_of) in regulars(20, 120).into_iter().enumerate() {
                let received = event_of.received_at;
                sim.pass_to(received).await.unwrap();
                sim.append(vec![event_of]).await.unwrap();
                if number % 5 == 0 {
                    let claim = claims(received)[odd % 5].filter(|_| wrong);
                    let claim = claim.map_or(String::new(), |claim| format!(r#","timestamp":{claim}"#));
                    let text = format!(r#"{{"id":"odd-{odd}","user_id":"odd","signal":"purchase"{claim}}}"#);
                    // A claim that is no time at all is refused where it arrives, and never gets here.
                    let receipt = vigie_event::json::Receipt {
                        workspace: workspace(),
                        received_at: received,
                        sent_at: None,
                        user_agent: None,
                        oldest: None,
                    };
                    let plain = format!(r#"{{"id":"odd-{odd}","user_id":"odd","signal":"purchase"}}"#);
                    let read = vigie_event::json::read(&text, &receipt);
                    sim.append(vec![read.unwrap_or_else(|_| event(&plain, received))])
                        .await
                        .unwrap();
                    odd += 1;
                }
                sim.settle(usize::MAX).await.unwrap();
            }
            sim.pass_to(day(400)).await.unwrap();
            let mut records = sim.records().await.unwrap();
            let odd_one = records.remove(&known("odd")).unwrap();
            let odd_parts = vigie_scoring::CustomerState::decode(&odd_one).unwrap().parts;
            assert!(odd > 50);
            (records, odd_parts, sim.now(), flags(&sim).await.len())
        })
    };
    let (wrong, right) = (played(true), played(false));
    assert_eq!(wrong.0, right.0, "another customer's record");
    assert_eq!(wrong.1, right.1, "a claim from the future counts as now");
    assert_eq!((wrong.2, wrong.3), (right.2, right.3));
}

/// F45: the same log under twenty clocks that jump by hours, run backwards, or stand still.
#[test]
fn our_clock_is_no_input_of_a_fold() {
    run(async {
        let mut sim = sim(PARTITIONS, day(0)).await;
        for event in regulars(30, 150) {
            sim.pass_to(event.received_at).await.unwrap();
            sim.append(vec![event]).await.unwrap();
            sim.settle(usize::MAX).await.unwrap();
        }
        sim.pass_to(day(400)).await.unwrap();
        let (log, expected) = (Arc::clone(sim.worker.log()), sim.records().await.unwrap());
        let raised = flags(&sim).await;
        assert!(!raised.is_empty());
        for script in 0..20u64 {
            let mut dice = Dice(script);
            let store = Arc::new(MemoryStore::new(PARTITIONS));
            let found = folded(&log, &store, || {
                let ms = |sides: u64, dice: &mut Dice| i64::try_from(dice.throw(sides)).unwrap();
                match script % 4 {
                    0 => Timestamp(BASE),
                    1 => day(100).plus_ms(ms(7_200_000, &mut dice) - 3_600_000),
                    2 => day(400).plus_ms(-ms(30 * 86_400_000, &mut dice)),
                    _ => Timestamp(ms(1 << 42, &mut dice)),
                }
            })
            .await;
            assert_eq!(found, expected, "clock script {script}");
            assert_eq!(
                store.flags(&workspace(), 0, 1_000_000).await.unwrap(),
                raised,
                "clock script {script}"
            );
        }
    });
}

/// The records of a new worker over this log, whose clock is `now`.
async fn folded(
    log: &Arc<MemoryLog>,
    store: &Arc<MemoryStore>,
    mut now: impl FnMut() -> Timestamp,
) -> BTreeMap<CustomerKey, bytes::Bytes> {
    let ends = log.ends();
    let mut worker = Worker::open(Arc::clone(log), Arc::clone(store), Arc::new(()), Metrics::disabled())
        .await
        .unwrap();
    let mut reader = log.reader(worker.positions()).unwrap();
    loop {
        let entries = reader.next(97, usize::MAX, Duration::ZERO).await.unwrap();
        if entries.is_empty() {
            break;
        }
        worker.process(&entries, now()).await.unwrap();
    }
    assert_eq!(log.ends(), ends, "folding again appended something");
    let mut all = BTreeMap::new();
    for partition in (0..PARTITIONS).map(vigie_event::Partition) {
        all.extend(store.scan(partition, None, usize::MAX).await.unwrap());
    }
    all
}
