//! A change of model or policies takes effect at its place in the log, for silent customers too, and a crash in the middle
//! of looking at everybody changes nothing.

use super::support::{event, run, time, workspace};
use std::sync::Arc;
use vigie_event::DAY_MS;
use vigie_ingestion::log::MemoryLog;
use vigie_pipeline::Sim;
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
        let ends = vigie_ingestion::log::Log::ends(&*log);
        let again = Sim::over(
            log.clone(),
            store.clone(),
            Model::shipped_text(),
            STRICT,
            now.plus_ms(2),
        )
        .await
        .unwrap();
        assert_eq!(vigie_ingestion::log::Log::ends(&*log), ends);
        assert_eq!(again.records().await.unwrap(), sim.records().await.unwrap());
    });
}
