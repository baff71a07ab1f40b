//! F46: an event whose folding panics is set aside after three attempts, with its bytes, and everybody else goes on; a
//! replay that is told so ends with the same bytes.

use super::support::{event, run, workspace};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use vigie_event::{Body, Partition, Position, Record, Timestamp, partition_for};
use vigie_failpoint::with_mutant;
use vigie_ingestion::log::{Log, LogReader, MemoryLog};
use vigie_pipeline::{DeadLetter, DeadLetterSink, Sandbox, Worker, WorkerError};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::{MemoryStore, Store};
use vigie_telemetry::Metrics;

const BASE: i64 = 1_770_000_000_000;
const PARTITIONS: u16 = 2;
const EVENTS: usize = 5_000;
const POISONS: usize = 10;

#[derive(Debug, Clone, Default)]
struct Letters(Arc<Mutex<Vec<DeadLetter>>>);

impl DeadLetterSink for Letters {
    async fn keep(&self, letters: Vec<DeadLetter>) -> Result<(), String> {
        self.0.lock().unwrap().extend(letters);
        Ok(())
    }
}

#[test]
fn ten_poisoned_events_are_set_aside_and_the_others_are_applied() {
    run(async {
        let (log, store) = (
            Arc::new(MemoryLog::new(PARTITIONS)),
            Arc::new(MemoryStore::new(PARTITIONS)),
        );
        let letters = Letters::default();
        let mut worker = Worker::open(
            Arc::clone(&log),
            Arc::clone(&store),
            Arc::new(letters.clone()),
            Metrics::disabled(),
        )
        .await
        .unwrap()
        .keeping_judgements();
        let _ = worker
            .activate(Model::shipped_text(), PolicySet::shipped_text(), Timestamp(BASE))
            .await
            .unwrap();
        for n in 0..EVENTS {
            let name = if n % (EVENTS / POISONS) == 7 { "poison" } else { "visit" };
            let text = format!(
                r#"{{"id":"e{n}","user_id":"u{}","signal":"page.view","name":"{name}"}}"#,
                n % 50
            );
            let event = event(&text, Timestamp(BASE + n as i64 * 1000));
            let partition = partition_for(event.person.key().unwrap().as_str(), PARTITIONS);
            let record = Record::new(Body::Event(Box::new(event))).encode();
            let _ = log.append(vec![(partition, record.into())]).await.unwrap();
        }
        let from = (0..PARTITIONS)
            .map(|partition| (Partition(partition), vigie_event::Offset(0)))
            .collect();
        let mut reader = log.reader(from).unwrap();
        let entries = reader
            .next(usize::MAX, usize::MAX, std::time::Duration::ZERO)
            .await
            .unwrap();
        let quiet = std::panic::take_hook();
        // Thirty panics that are wanted need not be read.
        std::panic::set_hook(Box::new(|_| {}));
        for portion in entries.chunks(500) {
            let processed = with_mutant("poison", || at_once(worker.process(portion, Timestamp(BASE))));
            processed.unwrap();
        }
        std::panic::set_hook(quiet);
        let books = worker.status().get().books[&workspace()];
        assert_eq!(
            (books.applied, books.dead_letter),
            ((EVENTS - POISONS) as u64, POISONS as u64)
        );
        let kept = letters.0.lock().unwrap().clone();
        let aside: BTreeSet<Position> = kept.iter().map(|letter| letter.position).collect();
        assert_eq!((kept.len(), aside.len()), (POISONS, POISONS));
        assert!(
            kept.iter()
                .all(|letter| letter.code.label() == "poison" && letter.event.payload.contains("poison"))
        );

        let records: Vec<(Position, Record)> = entries
            .iter()
            .map(|entry| (entry.position, Record::decode(&entry.payload).unwrap()))
            .collect();
        let mut sandbox = Sandbox::new(PARTITIONS).await.unwrap();
        sandbox.set_aside(aside);
        sandbox.exact(records.clone()).await.unwrap();
        for partition in (0..PARTITIONS).map(Partition) {
            assert_eq!(
                sandbox.records(partition).await.unwrap(),
                store.scan(partition, None, usize::MAX).await.unwrap()
            );
        }
        // A sandbox that is not told fails with the place, and has written nothing.
        let mut untold = Sandbox::new(PARTITIONS).await.unwrap();
        std::panic::set_hook(Box::new(|_| {}));
        let failed = with_mutant("poison", || at_once(untold.exact(records)));
        let _ = std::panic::take_hook();
        assert!(matches!(failed, Err(WorkerError::Panicked { .. })), "{failed:?}");
    });
}

/// Runs a future on this thread, where the mutant is armed.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
