//! A change of model or policies takes effect at its place in the log, for silent customers too, and a crash in the middle
//! of looking at everybody changes nothing.

use super::support::{event, run, time, workspace};
use std::sync::Arc;
use vigie_event::DAY_MS;
use vigie_ingestion::log::{Log, MemoryLog};
use vigie_pipeline::{Sim, in_force, put_in_force};
use vigie_relance::{Flag, PolicySet};
use vigie_scoring::Model;
use vigie_store::{MemoryStore, Store};

const STRICT: &str = "[[policy]]\nid = \"early\"\nscore = \"attrition\"\nthreshold = 0.3\n";

#[test]
fn new_policies_reach_silent_customers_at_once() {
    run(async {
        let (log, store) = (Arc::new(MemoryLog::new(4)), Arc::new(MemoryStore::new(4)));
        let start = time("2026-01-01T00:00:00Z");
        let mut sim = Sim::over(
            log.clone(),
            store.clone(),
            Model::shipped_text(),
            PolicySet::shipped_text(),
            start,
        )
        .await
        .unwrap();
        for n in 0..3000i64 {
            for purchase in 0..3 {
                let at = start.0 + purchase * 7 * DAY_MS + n;
                sim.append(vec![event(
                    &format!(r#"{{"id":"{n}-{purchase}","user_id":"c{n}","signal":"purchase","timestamp":{at}}}"#),
                    time("2026-02-20T00:00:00Z"),
                )])
                .await
                .unwrap();
            }
        }
        sim.settle(usize::MAX).await.unwrap();
        let now = sim.now();
        assert!(store.flags(&workspace(), 0, 10_000).await.unwrap().is_empty());
        let sim = Sim::over(
            log.clone(),
            store.clone(),
            Model::shipped_text(),
            STRICT,
            now.plus_ms(1),
        )
        .await
        .unwrap();
        let flags = store.flags(&workspace(), 0, 10_000).await.unwrap();
        assert_eq!(flags.len(), 3000, "every silent customer is above the new threshold");
        let flag: Flag = serde_json::from_slice(&flags.first().unwrap().1).unwrap();
        assert_eq!(
            (flag.policy.as_str(), flag.raised_at.as_str()),
            ("early", "2026-02-20T00:00:00.001Z")
        );
        assert_eq!(sim.worker.status().get().active.unwrap().policies.policies.len(), 1);
        // A restart with the same files appends and changes nothing.
        let ends = Log::ends(&*log);
        let again = Sim::over(
            log.clone(),
            store.clone(),
            Model::shipped_text(),
            STRICT,
            now.plus_ms(2),
        )
        .await
        .unwrap();
        assert_eq!(Log::ends(&*log), ends);
        assert_eq!(again.records().await.unwrap(), sim.records().await.unwrap());
    });
}

/// The published attrition of one of the customers.
async fn attrition(sim: &Sim) -> Option<u32> {
    let customer = sim.customer(&super::support::known("c7")).await.unwrap();
    customer.unwrap().refreshed.unwrap().attrition_ppm
}

/// A candidate scores beside the model in force and changes nothing; promoted, it stays over restarts until the configuration
/// names another model; and whoever folds the log anew comes to the same bytes.
#[test]
fn a_candidate_decides_nothing_until_it_is_promoted_and_a_replay_reproduces_it() {
    run(async {
        let (log, store) = (Arc::new(MemoryLog::new(4)), Arc::new(MemoryStore::new(4)));
        let start = time("2026-01-01T00:00:00Z");
        let (first, policies) = (Model::shipped_text(), PolicySet::shipped_text());
        let second = first
            .replacen("btyd-cdnow", "second", 1)
            .replacen("offset = 0.0", "offset = 0.7", 1);
        let third = first.replacen("btyd-cdnow", "third", 1);
        let mut now = start;
        let mut sim = Sim::over(log.clone(), store.clone(), first, policies, now)
            .await
            .unwrap();
        for n in 0..300i64 {
            for purchase in 0..3 {
                let at = start.0 + purchase * 7 * DAY_MS + n;
                sim.append(vec![event(
                    &format!(r#"{{"id":"{n}-{purchase}","user_id":"c{n}","signal":"purchase","timestamp":{at}}}"#),
                    time("2026-02-20T00:00:00Z"),
                )])
                .await
                .unwrap();
            }
        }
        sim.settle(usize::MAX).await.unwrap();
        let before = attrition(&sim).await;
        now = sim.now().plus_ms(1);
        let current = || async { in_force(&*log, &*store, None).await.unwrap().unwrap().1.model.clone() };
        let candidate = Model::parse(&second).unwrap();
        put_in_force(&*log, &current().await.beside(Some(&candidate)), policies, now)
            .await
            .unwrap();
        sim.settle(usize::MAX).await.unwrap();
        assert_eq!(attrition(&sim).await, before, "a candidate has changed a score");
        assert_eq!(current().await.candidate.as_deref(), Some(&candidate));
        // A restart with the same files leaves it there.
        let ends = Log::ends(&*log);
        sim = Sim::over(log.clone(), store.clone(), first, policies, now)
            .await
            .unwrap();
        assert_eq!(Log::ends(&*log), ends);
        put_in_force(&*log, &current().await.promoted().unwrap(), policies, now.plus_ms(1))
            .await
            .unwrap();
        sim.settle(usize::MAX).await.unwrap();
        assert!(attrition(&sim).await > before, "the promoted model is not in force");
        assert_eq!(current().await.version, candidate.version);
        // Nor does a restart with the same files undo a promotion; other policies come beside the promoted model.
        let ends = Log::ends(&*log);
        let _ = Sim::over(log.clone(), store.clone(), first, policies, now.plus_ms(2))
            .await
            .unwrap();
        assert_eq!(Log::ends(&*log), ends);
        let sim = Sim::over(log.clone(), store.clone(), first, STRICT, now.plus_ms(3))
            .await
            .unwrap();
        let (active, records) = (sim.worker.status().get().active.unwrap(), sim.records().await.unwrap());
        assert_eq!(
            (active.policies.policies.len(), active.model.version.clone()),
            (1, candidate.version)
        );
        // The log alone says all that.
        let mut replay = Sim::open(log.clone(), Arc::new(MemoryStore::new(4)), now)
            .await
            .unwrap();
        replay.settle(7).await.unwrap();
        assert_eq!(replay.records().await.unwrap(), records);
        // Another model in the configuration is another decision.
        let sim = Sim::over(log.clone(), store.clone(), &third, STRICT, now.plus_ms(4))
            .await
            .unwrap();
        let active = sim.worker.status().get().active.unwrap();
        assert_eq!(active.model.name, "third");
        assert!(active.model.supersedes.is_none());
    });
}
