//! Silence is solved, not polled: flags come at the solved instants, and ageing touches only the customers whose timers
//! are due.

use super::support::{event, known, run, sim, time, workspace};
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{CustomerKey, DAY_MS, Partition, Timestamp};
use vigie_relance::Flag;
use vigie_scoring::{CustomerState, Model, ScoreKind, first_crossing};
use vigie_store::Store;

/// Timers that the store holds at or before an instant.
async fn due_by(sim: &vigie_pipeline::Sim, until: Timestamp) -> BTreeSet<CustomerKey> {
    let mut due = BTreeSet::new();
    for partition in (0..sim.worker.log().partitions_count()).map(Partition) {
        due.extend(
            sim.worker
                .store()
                .due(partition, until, usize::MAX)
                .await
                .unwrap()
                .into_iter()
                .map(|(_, key)| key),
        );
    }
    due
}

trait Partitions {
    fn partitions_count(&self) -> u16;
}

impl<L: vigie_ingestion::log::Log> Partitions for std::sync::Arc<L> {
    fn partitions_count(&self) -> u16 {
        self.partitions()
    }
}

#[test]
fn a_hundred_thousand_silent_customers_are_left_alone_until_they_are_due() {
    const CUSTOMERS: u32 = 100_000;
    run(async {
        let start = time("2026-01-01T00:00:00Z");
        let mut sim = sim(16, start).await;
        // Each buys twice, a few weeks apart, and falls silent: paces and last days differ.
        for purchase in 0..2i64 {
            for portion in 0..20u32 {
                let from = portion * CUSTOMERS / 20;
                let events = (from..from + CUSTOMERS / 20).map(|n| {
                    let day = purchase * (7 + i64::from(n % 40)) + i64::from(n % 11);
                    let at = start.0 + day * DAY_MS + i64::from(n % 86_400) * 1000;
                    event(
                        &format!(r#"{{"id":"{purchase}-{n}","user_id":"c{n}","signal":"purchase","timestamp":{at}}}"#),
                        time("2026-03-01T00:00:00Z"),
                    )
                });
                sim.append(events.collect()).await.unwrap();
                sim.settle(5_000).await.unwrap();
            }
        }
        let before = sim.worker.status().get();
        assert_eq!(before.touched_by_timer, 0);
        // A day passes. Whoever is touched was due; whoever was not due is not touched.
        let until = time("2026-03-02T00:00:00Z");
        let due = due_by(&sim, until).await;
        let untouched: BTreeMap<_, _> = sim
            .records()
            .await
            .unwrap()
            .into_iter()
            .filter(|(key, _)| !due.contains(key))
            .collect();
        sim.pass_to(until).await.unwrap();
        let touched = sim.worker.status().get().touched_by_timer;
        let changed = sim
            .records()
            .await
            .unwrap()
            .into_iter()
            .filter(|(key, bytes)| untouched.get(key).is_some_and(|old| old != bytes))
            .count();
        assert_eq!(changed, 0, "customers were touched who had no timer due");
        // Someone may be due more than once a day (a score that falls by more than 0.02), but only just.
        assert!(
            touched >= due.len() as u64 && touched <= due.len() as u64 * 2,
            "{touched} touched, {} due",
            due.len()
        );
        assert!(due.len() < CUSTOMERS as usize, "everybody was due: this is a sweep");
        // An hour in which nobody is due touches nobody.
        let next = sim.worker.next_due().unwrap();
        sim.pass_to(next.plus_ms(-1)).await.unwrap();
        assert_eq!(sim.worker.status().get().touched_by_timer, touched);
    });
}

#[test]
fn flags_come_at_the_solved_instant_to_the_millisecond() {
    run(async {
        let mut sim = sim(8, time("2026-01-01T00:00:00Z")).await;
        let mut expected: BTreeMap<String, Timestamp> = BTreeMap::new();
        let model = Model::shipped().unwrap();
        for n in 0..200i64 {
            let id = format!("c{n}");
            for purchase in 0..3 {
                let at = time("2026-01-01T00:00:00Z").0 + purchase * (3 + n % 17) * DAY_MS + n * 77_777;
                sim.append(vec![event(
                    &format!(r#"{{"id":"{n}-{purchase}","user_id":"{id}","signal":"purchase","timestamp":{at}}}"#),
                    time("2026-03-01T00:00:00Z"),
                )])
                .await
                .unwrap();
            }
        }
        sim.settle(usize::MAX).await.unwrap();
        let already = sim.worker.store().flags(&workspace(), 0, 10_000).await.unwrap().len() as u64;
        let until = time("2026-12-31T00:00:00Z");
        for n in 0..200 {
            let id = format!("c{n}");
            let state: CustomerState = sim.customer(&known(&id)).await.unwrap().unwrap();
            let armed = state.ledger.policies.values().all(|entry| entry.last_flag.is_none());
            let crossing = first_crossing(&state, &model, ScoreKind::Attrition, 0.7, sim.now(), until);
            if let Some(at) = crossing.filter(|_| armed) {
                let _ = expected.insert(id, at);
            }
        }
        assert!(
            expected.len() > 100,
            "the test has nothing to show: {} crossings",
            expected.len()
        );
        sim.pass_to(until).await.unwrap();
        let mut met = 0;
        for (_, body) in sim.worker.store().flags(&workspace(), already, 10_000).await.unwrap() {
            let flag: Flag = serde_json::from_slice(&body).unwrap();
            if flag.policy == "drifting-regulars" {
                assert_eq!(
                    Timestamp::parse(&flag.raised_at).ok().as_ref(),
                    expected.get(&flag.customer),
                    "{}",
                    flag.customer
                );
                met += 1;
            }
        }
        assert_eq!(met, expected.len());
    });
}

/// What others read in the store is never further than 0.01 from the score as it would be computed at that instant, at any
/// instant up to the record's timer, however long the silence.
#[test]
fn stored_scores_stay_within_a_hundredth_of_the_exact_ones() {
    const DRIFT: f64 = 0.01;
    run(async {
        let start = time("2026-01-01T00:00:00Z");
        let mut sim = sim(8, start).await;
        let model = Model::shipped().unwrap();
        for n in 0..150i64 {
            for step in 0..(1 + n % 6) {
                let at = start.0 + step * (1 + n % 23) * DAY_MS + n * 77_777;
                let signal = ["purchase", "page.view", "email.click"][usize::try_from((n + step) % 3).unwrap()];
                let text = format!(r#"{{"id":"{n}-{step}","user_id":"c{n}","signal":"{signal}","timestamp":{at}}}"#);
                sim.append(vec![event(&text, time("2026-06-01T00:00:00Z"))])
                    .await
                    .unwrap();
            }
        }
        sim.settle(500).await.unwrap();
        let mut compared = 0;
        let mut until = time("2026-06-01T00:00:00Z");
        for _ in 0..40 {
            for (key, bytes) in sim.records().await.unwrap() {
                let state = CustomerState::decode(&bytes).unwrap();
                let Some(stored) = state.refreshed else { continue };
                let due = state.timer.unwrap_or(stored.at.plus_ms(400 * DAY_MS));
                for part in 0..8 {
                    let at = stored.at.plus_ms((due.ms_since(stored.at) - 1).max(0) * part / 7);
                    let exact = |kind: ScoreKind| vigie_scoring::score_at(&state, &model, kind, at).ok();
                    let pairs = [
                        (stored.attrition_ppm, exact(ScoreKind::Attrition)),
                        (stored.churn_ppm, exact(ScoreKind::Churn(model.default_horizon_days))),
                    ];
                    for (stored, exact) in pairs {
                        let (Some(stored), Some(exact)) = (stored, exact) else {
                            continue;
                        };
                        let stored = f64::from(stored) / 1e6;
                        assert!(
                            (stored - exact).abs() <= DRIFT + 1e-6,
                            "{key} at {at}: {stored} {exact}"
                        );
                        compared += 1;
                    }
                }
            }
            until = until.plus_ms(9 * DAY_MS);
            sim.pass_to(until).await.unwrap();
        }
        assert!(compared > 10_000, "{compared}");
    });
}
