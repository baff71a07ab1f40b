//! STEP-1 and STEP-2: a worker that dies anywhere and starts again ends where an undisturbed one does, byte for byte, and
//! the books count every event once.

use super::support::{event, run, workspace};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use vigie_event::{DAY_MS, Event, Timestamp};
use vigie_ingestion::log::{Log, MemoryLog};
use vigie_pipeline::Sim;
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::{MemoryStore, Store};

const BASE: i64 = 1_770_000_000_000;
const PARTITIONS: u16 = 4;

fn events(seed: &[(u8, u8, u16)]) -> Vec<Event> {
    let mut now = BASE;
    seed.iter()
        .enumerate()
        .map(|(index, (person, kind, hours))| {
            now += i64::from(*hours) * 3_600_000;
            let text = match kind % 4 {
                0 => format!(r#"{{"id":"{index}","anonymous_id":"a{person}","user_id":"u{person}","signal":"identity.identify"}}"#),
                1 => format!(r#"{{"id":"{index}","anonymous_id":"a{person}","signal":"page.view"}}"#),
                2 => format!(r#"{{"id":"{index}","user_id":"u{person}","previous_id":"u{}","signal":"identity.alias"}}"#, person + 1),
                _ => format!(r#"{{"id":"{index}","user_id":"u{person}","signal":"purchase"}}"#),
            };
            event(&text, Timestamp(now))
        })
        .collect()
}

async fn start(log: &Arc<MemoryLog>, store: &Arc<MemoryStore>) -> Sim {
    let (log, store) = (Arc::clone(log), Arc::clone(store));
    Sim::over(
        log,
        store,
        Model::shipped_text(),
        PolicySet::shipped_text(),
        Timestamp(BASE),
    )
    .await
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn dying_between_steps_changes_nothing(
        seed in proptest::collection::vec((0u8..4, any::<u8>(), 0u16..900), 1..40),
        deaths in proptest::collection::vec((0usize..40, 1usize..7), 0..6),
    ) {
        run(async {
            let events = events(&seed);
            let end = Timestamp(events.last().unwrap().received_at.0 + 400 * DAY_MS);
            // Dying: after some events, with only some of the batches folded, the process is gone; log and store remain.
            let (log, store) = (Arc::new(MemoryLog::new(PARTITIONS)), Arc::new(MemoryStore::new(PARTITIONS)));
            let mut sim = start(&log, &store).await;
            for (index, event) in events.iter().enumerate() {
                sim.append(vec![event.clone()]).await.unwrap();
                if let Some((_, batch)) = deaths.iter().find(|(at, _)| *at == index) {
                    sim.settle(*batch).await.unwrap();
                    drop(sim);
                    sim = start(&log, &store).await;
                }
            }
            sim.settle(3).await.unwrap();
            sim.pass_to(end).await.unwrap();
            // Undisturbed: the same log, folded in one go into an empty store. (Another log would hold the derived records
            // in other places, and place is time.)
            let mut calm = Sim::open(Arc::clone(&log), Arc::new(MemoryStore::new(PARTITIONS)), end).await.unwrap();
            calm.settle(usize::MAX).await.unwrap();
            prop_assert_eq!(sim.records().await.unwrap(), calm.records().await.unwrap());
            let books = |sim: &Sim| sim.worker.status().get().books.get(&workspace()).copied().unwrap_or_default();
            prop_assert_eq!(books(&sim), books(&calm));
            prop_assert_eq!(books(&sim).settled(), events.len() as u64);
            let flags = async |sim: &Sim| {
                let rows = sim.worker.store().flags(&workspace(), 0, 1000).await.unwrap();
                rows.into_iter().map(|(_, body)| body).collect::<BTreeSet<_>>()
            };
            prop_assert_eq!(flags(&sim).await, flags(&calm).await);
            Ok(())
        })?;
    }

    #[test]
    fn folding_any_part_of_the_log_again_changes_nothing(seed in proptest::collection::vec((0u8..4, any::<u8>(), 0u16..300), 1..30)) {
        run(async {
            let (log, store) = (Arc::new(MemoryLog::new(PARTITIONS)), Arc::new(MemoryStore::new(PARTITIONS)));
            let mut sim = start(&log, &store).await;
            sim.append(events(&seed)).await.unwrap();
            sim.settle(usize::MAX).await.unwrap();
            let before = sim.records().await.unwrap();
            let mut reader = log.reader(log.starts().into_iter().enumerate().map(|(p, o)| (vigie_event::Partition(p as u16), o)).collect()).unwrap();
            let all = vigie_ingestion::log::LogReader::next(&mut reader, usize::MAX, usize::MAX, std::time::Duration::ZERO).await.unwrap();
            sim.worker.process(&all, sim.now()).await.unwrap();
            prop_assert_eq!(sim.records().await.unwrap(), before);
            Ok(())
        })?;
    }
}

#[test]
fn what_is_in_flight_is_counted_from_the_log() {
    run(async {
        let (log, store) = (
            Arc::new(MemoryLog::new(PARTITIONS)),
            Arc::new(MemoryStore::new(PARTITIONS)),
        );
        let mut sim = start(&log, &store).await;
        let seed: Vec<(u8, u8, u16)> = (0..30).map(|n| (n % 4, n, 5)).collect();
        sim.append(events(&seed)).await.unwrap();
        let in_flight = async |sim: &mut Sim| {
            sim.worker
                .survey()
                .await
                .unwrap()
                .get(&workspace())
                .copied()
                .unwrap_or(0)
        };
        assert_eq!(in_flight(&mut sim).await, 30);
        sim.settle(7).await.unwrap();
        assert_eq!(in_flight(&mut sim).await, 0);
    });
}
