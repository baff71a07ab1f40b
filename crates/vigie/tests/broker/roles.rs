//! Collector, workers, archivist and API as processes of their own: events go in at one, scores come out at another, a worker
//! that leaves is replaced by the rest, and the whole is audited and replayed like a single process.

use crate::ordeals::works_on;
use crate::site::{PARTITIONS, Site, value};
use crate::support::{now, run, until};
use serde_json::{Value, json};
use std::path::Path;

const DAY_MS: i64 = 86_400_000;

#[test]
fn every_role_in_a_process_of_its_own_is_one_system() {
    let site = Site::build();
    let here = ["--config", site.file()];
    let topics = |verb: &str| run(&[&["topics", verb, "--output", "json"], &here[..]].concat());
    // Nothing starts on topics that are not there, and the refusal says what to do.
    let refused = run(&[&["run", "--role", "worker", "--data-dir", "/nowhere/x"], &here[..]].concat());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let plan = topics("plan");
    assert_eq!(plan.code, Some(1), "{plan:?}");
    assert_eq!(value(&plan.stdout)["missing"], json!(["vigie.log", "vigie.journal"]));
    let applied = topics("apply");
    assert_eq!(applied.code, Some(0), "{applied:?}");
    assert_eq!(topics("plan").code, Some(0));

    let start = now().0 - 100 * DAY_MS;
    let event = |n: i64| {
        let signal = if n % 5 == 0 { "purchase" } else { "page.view" };
        json!({"id": format!("e{n}"), "user_id": format!("u{}", n % 120), "signal": signal, "timestamp": start + n * DAY_MS / 20})
    };
    let events: Vec<Value> = (0..2_000).map(event).collect();

    // The door first: what comes in before any worker is kept for it.
    let collector = site.start("collector", "collector");
    collector.post(&events[..500]);
    let reader = site.start("reader", "api,archivist");
    assert_eq!(reader.books().in_flight, 500);
    let mut first = site.start("first", "worker");
    let books = reader.settled();
    assert_eq!((books.accepted, books.applied), (500, 500));
    // A second worker takes a share; the first leaves, and the second takes over.
    let second = site.start("second", "worker");
    until("the group gives the second worker its share", || {
        (works_on(&second) > 0).then_some(())
    });
    until("and takes it from the first", || {
        (works_on(&first) + works_on(&second) == usize::from(PARTITIONS)).then_some(())
    });
    for part in events[500..1_500].chunks(100) {
        collector.post(part);
    }
    // It leaves in the midst of work. (One that dies stays in this broker's group for longer than a test can wait, unlike
    // in Kafka's; that its writes are refused from then on is proved beside the store.)
    first.process.terminate();
    assert!(first.process.ended("the first worker").success());
    for part in events[1_400..].chunks(100) {
        collector.post(part);
    }
    let books = reader.settled();
    assert_eq!((books.accepted, books.applied, books.duplicate), (2_100, 2_000, 100));
    let customer = reader.get_json("/v1/customers/u0");
    assert!(customer["attrition"]["score"].is_f64(), "{customer}");

    // The same bytes as the oracle's, and as a replay in memory.
    let audit = run(&[
        "audit",
        "--url",
        &reader.url,
        "--key",
        &reader.keys.admin,
        "--output",
        "json",
    ]);
    assert_eq!(audit.code, Some(0), "{audit:?}");
    let root = value(&audit.stdout)["root_live"].clone();
    drop((collector, second));
    drop(reader);
    let archived = site.dir.path().to_str().unwrap();
    let replay = run(&["replay", "--output", "json", "--data-dir", archived]);
    assert_eq!(replay.code, Some(0), "{replay:?}");
    assert_eq!(value(&replay.stdout)["merkle_root"], root);
    drop(site);
}

#[test]
fn roles_on_the_local_disk_are_refused_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let place: &Path = dir.path();
    let refused = run(&[
        "run",
        "--role",
        "collector,worker",
        "--data-dir",
        place.to_str().unwrap(),
    ]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("vigie up"), "{refused:?}");
}
