//! The intake: durable before it answers, counted exactly, whatever fails.

use crate::bench::{Bench, NOW, shop};
use std::collections::BTreeMap;
use vigie_event::json::{Receipt, read};
use vigie_event::{Event, Offset, Partition, partition_for};
use vigie_ingestion::dead_letters::Letter;
use vigie_ingestion::intake::{Counts, Outcome, Unavailable, count_from};
use vigie_ingestion::limits::Limits;
use vigie_ingestion::log::{Fault, Health, Log, LogError};
use vigie_ingestion::protocol::Origin;

fn receipt() -> Receipt {
    Receipt {
        workspace: shop(),
        received_at: NOW,
        sent_at: None,
        user_agent: None,
        oldest: None,
    }
}

fn event(user: &str) -> Event {
    read(
        &format!(r#"{{"id":"{user}","user_id":"{user}","signal":"search"}}"#),
        &receipt(),
    )
    .unwrap()
}

fn letter(ordinal: usize) -> Box<Letter> {
    let receipt = receipt();
    let origin = Origin {
        receipt: &receipt,
        source: vigie_event::Source::Canonical,
        kind: "",
        context: "",
    };
    let invalid = vigie_event::json::Invalid::new(vigie_event::RejectCode::Shape, "event");
    origin.letter(&invalid, ordinal, b"[]", &Limits::default())
}

fn unavailable() -> LogError {
    LogError::Unavailable {
        reason: "disk full".into(),
    }
}

#[tokio::test]
async fn outcomes_stand_in_order_and_records_in_the_persons_partition() {
    let bench = Bench::new().await;
    let taken = vec![Ok(event("anna")), Err(letter(1)), Ok(event("ben"))];
    let outcomes = bench.intake.accept(taken).await.unwrap();
    match outcomes.as_slice() {
        [Outcome::Logged(first), Outcome::DeadLetter(_), Outcome::Logged(last)] => {
            assert_eq!(first.partition, partition_for("anna", 8));
            assert_eq!(last.partition, partition_for("ben", 8));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        bench.intake.counts(&shop()),
        Counts {
            accepted: 3,
            dead_letter: 1
        }
    );
}

#[tokio::test]
async fn what_is_durable_is_counted_and_nothing_else() {
    let bench = Bench::new().await;
    bench.log.inject(0, Fault::Refuse(unavailable()));
    assert!(matches!(
        bench.intake.accept(vec![Ok(event("a"))]).await,
        Err(Unavailable::Down { .. })
    ));
    assert_eq!(
        bench.intake.counts(&shop()),
        Counts::default(),
        "a refused append is in no book"
    );

    bench.journal.inject(0, Fault::Refuse(unavailable()));
    assert!(bench.intake.accept(vec![Ok(event("a")), Err(letter(1))]).await.is_err());
    assert_eq!(
        bench.intake.counts(&shop()),
        Counts {
            accepted: 1,
            dead_letter: 0
        },
        "the event is in the log"
    );

    assert!(bench.intake.accept(vec![Ok(event("a")), Err(letter(1))]).await.is_ok());
    assert_eq!(
        bench.intake.counts(&shop()),
        Counts {
            accepted: 3,
            dead_letter: 1
        }
    );
    assert!(bench.intake.accept(vec![Err(letter(1))]).await.is_ok());
    assert_eq!(
        bench.intake.counts(&shop()),
        Counts {
            accepted: 3,
            dead_letter: 1
        },
        "the same letter counts once"
    );

    bench.intake.set_base(
        &shop(),
        Counts {
            accepted: 100,
            dead_letter: 10,
        },
    );
    assert!(bench.intake.accept(vec![Ok(event("b"))]).await.is_ok());
    assert_eq!(
        bench.intake.all_counts(),
        [(
            Some(shop()),
            Counts {
                accepted: 101,
                dead_letter: 10
            }
        )]
    );
}

#[tokio::test]
async fn events_not_yet_folded_are_counted_at_the_start() {
    let bench = Bench::new().await;
    let taken = (0..20).map(|i| Ok(event(&format!("u{i}")))).collect();
    assert!(bench.intake.accept(taken).await.is_ok());
    let from = |skip: u64| -> BTreeMap<_, _> {
        let ends = bench.log.ends().into_iter().zip(0..);
        ends.map(|(end, partition)| (Partition(partition), Offset(end.0.min(skip))))
            .collect()
    };
    assert_eq!(count_from(&bench.log, from(0)).await.unwrap()[&shop()], 20);
    let folded: u64 = from(1).values().map(|offset| offset.0).sum();
    assert_eq!(count_from(&bench.log, from(1)).await.unwrap()[&shop()], 20 - folded);
    assert!(count_from(&bench.log, from(u64::MAX)).await.unwrap().is_empty());
}

#[tokio::test]
async fn large_requests_are_appended_in_parts() {
    let bench = Bench::new().await;
    let mut large = event("a");
    large.payload = "x".repeat(30_000).into();
    let taken = (0..100).map(|_| Ok(large.clone())).collect();
    assert_eq!(bench.intake.accept(taken).await.unwrap().len(), 100);
    assert_eq!(bench.logged().await.len(), 100);
}

#[tokio::test]
async fn health_is_the_worse_of_both() {
    let bench = Bench::new().await;
    assert_eq!(bench.intake.health(), Health::Ok);
    bench.journal.set_health(Health::Degraded("full".into()));
    assert_eq!(bench.intake.health(), Health::Degraded("full".into()));
    bench.log.set_health(Health::Poisoned("fsync".into()));
    assert_eq!(bench.intake.health(), Health::Poisoned("fsync".into()));
}

#[tokio::test]
async fn events_whose_outcome_is_unknown_stay_in_the_books_since_they_are_on_their_way() {
    let bench = Bench::new().await;
    let unknown = LogError::Unknown {
        reason: "no answer yet".into(),
    };
    bench.log.inject(0, Fault::LoseAnswer(unknown));
    assert!(bench.intake.accept(vec![Ok(event("anna"))]).await.is_err());
    assert_eq!(bench.intake.counts(&shop()).accepted, 1, "the worker will count it");
    let _ = bench.intake.accept(vec![Ok(event("anna"))]).await.unwrap();
    assert_eq!(
        bench.intake.counts(&shop()).accepted,
        2,
        "and the repeated one, as a duplicate"
    );
}
