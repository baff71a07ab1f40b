//! F20: a Redis that is emptied under running processes. It is noticed at once, nothing is written to it and nobody is
//! flagged; `vigie rebuild` makes from the archive what was there.

use crate::site::{Site, Traffic, settled};
use crate::support::{DEADLINE, run, until};
use std::time::{Duration, Instant};

/// What a quiet machine keeps; a busy one may need longer.
const PROMISED: Duration = Duration::from_secs(2);

#[test]
fn f20_an_emptied_redis_is_noticed_flags_nobody_and_is_rebuilt() {
    let site = Site::build().ready();
    let collector = site.start("collector", "collector");
    let mut reader = site.start("reader", "api,archivist");
    let mut worker = site.start("worker", "worker");
    let mut traffic = Traffic::to(&collector);
    traffic.send(1_000);
    let before = site.verdict(&reader, &traffic);
    let redis = &site.redis[0];
    let customers = redis
        .ask(&["--scan", "--pattern", "vigie:*:customer:*"])
        .lines()
        .count();
    assert!(customers >= 200, "{customers}");

    assert!(redis.ask(&["flushall"]).contains("OK"));
    let emptied = Instant::now();
    let ended = worker.process.ended("the worker, whose store is lost");
    let noticed = emptied.elapsed();
    assert_eq!(ended.code(), Some(1));
    assert!(site.log("worker").contains("store is lost"), "{}", site.log("worker"));
    assert!(noticed < DEADLINE / 4, "noticed after {noticed:?}");
    println!(
        "F20: an emptied Redis was noticed after {noticed:.1?}, with nothing to do ({PROMISED:?} are promised: {})",
        if noticed <= PROMISED {
            "kept"
        } else {
            "not kept on this machine now"
        }
    );
    until("questions are refused, not answered from nothing", || {
        let answer = reader.client.get("/v1/customers/u0", &reader.keys.read).unwrap();
        assert_ne!(answer.status, 404, "nobody is unknown: {answer:?}");
        (answer.status == 503 || answer.status == 500).then_some(())
    });
    // What comes in now is safe in the log; nobody else takes the empty store for a new one either.
    traffic.send(100);
    let refused = run(&["audit", "--url", &reader.url, "--key", &reader.keys.admin]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert_eq!(
        redis.ask(&["dbsize"]).trim(),
        "0",
        "nothing was written, so nobody was flagged"
    );
    reader.process.terminate();
    let _status = reader.process.ended("the reader");
    let again = site.process("worker-2", "worker", |_| {}).up_or_dead();
    assert_eq!(
        again
            .err()
            .and_then(|mut process| process.ended("a second worker").code()),
        Some(1)
    );
    assert_eq!(redis.ask(&["dbsize"]).trim(), "0");

    let place = site.data("reader");
    let rebuilt = run(&[
        "rebuild",
        "--config",
        site.file(),
        "--data-dir",
        place.to_str().unwrap(),
    ]);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    let reader = site.start("reader", "api,archivist");
    let _worker = site.start("worker", "worker");
    let books = settled(&reader, traffic.sent);
    assert_eq!(books.applied, before.applied + 100);
    let _books = site.verdict(&reader, &traffic);
}
