//! The bounds of a record and of a step, which random workloads hardly reach: more identities, links and event ids than a
//! record keeps, more timers than a step fires, more customers than an activation looks at in one go. And a crash whose
//! repeated step appends its derived records twice.

use crate::support::House;
use crate::support::run;
use crate::workload::BASE;
use vigie_audit::Verdict;
use vigie_event::json::{Receipt, read};
use vigie_event::{Body, Control, DAY_MS, Event, PersonId, Record, Tick, Timestamp, Workspace, partition_for};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::Store;

fn event(json: &str, received_at: i64) -> Event {
    let receipt = Receipt {
        workspace: Workspace::new("shop").unwrap(),
        received_at: Timestamp(received_at),
        sent_at: None,
        user_agent: None,
        oldest: None,
    };
    read(json, &receipt).unwrap_or_else(|invalid| panic!("{invalid}: {json}"))
}

async fn append(house: &House, partitions: u16, event: Event) {
    let key = event.person.key().map_or("", PersonId::as_str).to_owned();
    let record = Record::new(Body::Event(Box::new(event)));
    house.append(partition_for(&key, partitions), &record).await;
}

async fn equal(house: &mut House) -> vigie_audit::Report {
    house.sim.settle(usize::MAX).await.unwrap();
    let report = house.rows().await.audit_all(&house.records().await);
    assert_eq!(report.verdict, Verdict::Equal, "{report}");
    assert_eq!((report.in_flight, report.unchecked), (0, 0), "{report}");
    report
}

#[test]
fn more_identities_and_links_than_a_record_keeps() {
    run(async {
        let mut house = House::open(3, Timestamp(BASE)).await;
        for n in 0..75i64 {
            let at = BASE + n * 7_000_000;
            for (id, json) in [
                ("v", format!(r#""anonymous_id":"a{n}","signal":"page.view""#)),
                (
                    "i",
                    format!(r#""anonymous_id":"a{n}","user_id":"u","signal":"identity.identify""#),
                ),
                (
                    "w",
                    format!(r#""anonymous_id":"a{n}","signal":"page.view","consent":{{"marketing":"refused"}}"#),
                ),
            ] {
                append(&house, 3, event(&format!(r#"{{"id":"{id}{n}",{json}}}"#), at)).await;
            }
            if n % 9 == 0 {
                house.sim.settle(usize::MAX).await.unwrap();
            }
        }
        // Of the crowded record's identities, one more that finds no place, long after.
        for n in 0..75i64 {
            let at = BASE + 300 * DAY_MS + n * 86_000_000;
            // What is said along with it holds all the same.
            let word = if n % 3 == 0 { "refused" } else { "granted" };
            let consent = if n % 2 == 0 { "marketing" } else { "email_open_tracking" };
            let text = format!(
                r#"{{"id":"z{n}","anonymous_id":"a{n}","signal":"purchase","consent":{{"{consent}":"{word}"}}}}"#
            );
            append(&house, 3, event(&text, at)).await;
            if n % 5 == 0 {
                house.sim.settle(4).await.unwrap();
            }
        }
        let report = equal(&mut house).await;
        assert!(report.books.dead_letter > 0, "{report}");
    });
}

#[test]
fn more_event_ids_than_a_record_keeps() {
    run(async {
        let mut house = House::open(1, Timestamp(BASE)).await;
        for n in 0..4_300i64 {
            let text = format!(r#"{{"id":"e{}","user_id":"u","signal":"page.view"}}"#, n % 2_100);
            append(&house, 1, event(&text, BASE + n / 3 * 100)).await;
        }
        let report = equal(&mut house).await;
        assert!(report.books.applied > 2_100 && report.books.duplicate == 0, "{report}");
    });
}

#[test]
fn more_timers_than_a_step_and_more_customers_than_a_look() {
    run(async {
        let mut house = House::open(2, Timestamp(BASE)).await;
        for n in 0..4_500i64 {
            let text = format!(r#"{{"id":"e{n}","user_id":"u{n}","signal":"purchase"}}"#);
            append(&house, 2, event(&text, BASE + n)).await;
        }
        house.sim.settle(1_000).await.unwrap();
        let tick = Record::new(Body::Tick(Tick {
            at: Timestamp(BASE + 9 * DAY_MS),
        }));
        let control = Record::new(Body::Control(Control::Activate {
            at: Timestamp(BASE + 10 * DAY_MS),
            model: Model::shipped_text().replace("offset = 0.0", "offset = 0.7").into(),
            policies: PolicySet::shipped_text()
                .replace("threshold = 0.6", "threshold = 0.5")
                .into(),
        }));
        for record in [&tick, &control] {
            for partition in 0..2 {
                house.append(vigie_event::Partition(partition), record).await;
            }
        }
        house.sim.settle(usize::MAX).await.unwrap();
        house.sim.pass_to(Timestamp(BASE + 11 * DAY_MS)).await.unwrap();
        let _ = equal(&mut house).await;
    });
}

#[test]
fn a_repeated_step_that_appended_its_derived_records_twice() {
    run(async {
        let mut house = House::open(4, Timestamp(BASE)).await;
        house.store.persist().await.unwrap();
        for n in 0..40i64 {
            let text = match n % 4 {
                0 => format!(r#"{{"id":"{n}","anonymous_id":"a{}","signal":"page.view"}}"#, n % 5),
                1 => format!(
                    r#"{{"id":"{n}","anonymous_id":"a{}","user_id":"u{}","signal":"identity.identify"}}"#,
                    n % 5,
                    n % 3
                ),
                2 => format!(
                    r#"{{"id":"{n}","user_id":"u{}","previous_id":"u{}","signal":"identity.alias"}}"#,
                    n % 3,
                    n % 4
                ),
                _ => format!(r#"{{"id":"{n}","user_id":"u{}","signal":"purchase"}}"#, n % 4),
            };
            append(&house, 4, event(&text, BASE + n * 3_600_000)).await;
        }
        house.sim.settle(5).await.unwrap();
        let before = house.records().await.len();
        house.store.power_loss();
        house.crash().await;
        house.sim.settle(3).await.unwrap();
        let records = house.records().await;
        let origins =
            |of: &[(vigie_event::Position, Record)]| of.iter().filter_map(|(_, record)| record.origin).count();
        assert!(origins(&records) > origins(&records[..before]), "nothing was repeated");
        let report = equal(&mut house).await;
        assert!(report.derived > 0, "{report}");
    });
}

/// A record that stands in another partition than its customer's, between two records of that customer in one batch: it is
/// forwarded, and what silence does to the customer meanwhile is none of its business.
#[test]
fn a_record_in_the_wrong_partition_between_two_of_its_customer() {
    run(async {
        let mut house = House::open(2, Timestamp(BASE)).await;
        let home = partition_for("anonymous", 2);
        let away = vigie_event::Partition(1 - home.0);
        for (id, signal, partition, days) in [
            ("a", "purchase", home, 1),
            ("b", "page.view", away, 30),
            ("c", "page.view", home, 300),
        ] {
            let text = format!(r#"{{"id":"{id}","anonymous_id":"anonymous","signal":"{signal}"}}"#);
            let record = Record::new(Body::Event(Box::new(event(&text, BASE + days * DAY_MS))));
            house.append(partition, &record).await;
        }
        let _ = equal(&mut house).await;
    });
}
