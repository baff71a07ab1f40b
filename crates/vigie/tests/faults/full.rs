//! F08: a file system of 16 MiB is full while events arrive. The door closes in time, the store finishes what was let in,
//! and service resumes by itself when there is room again.

use std::time::{Duration, Instant};

use crate::power::Disk;
use crate::rig::scenario::{Plan, Scenario, Sent, log_of};
use crate::support::{Starting, seed, until};

/// Takes most of what the server leaves of the file system.
const BALLAST_BYTES: usize = 4_700_000;

#[test]
fn a_full_file_system_is_refused_and_survived_without_a_restart() {
    let seed = seed();
    println!("replay with VIGIE_TEST_SEED={seed}");
    let plan = Plan {
        padding: 4_000,
        ..Plan::of(seed)
    };
    let scenario = Scenario::prepare(plan, &[]);
    let disk = Disk::tmpfs(16);
    let (data, ballast) = (disk.path().join("data"), disk.path().join("ballast"));
    std::fs::write(&ballast, vec![7; BALLAST_BYTES]).unwrap();
    let mut server = Starting::launch(&data, &scenario.launch()).up();
    let mut told = scenario.nothing_told();
    let sent = scenario.send(&server, &mut told, usize::MAX);
    let Sent::Refused(answer) = sent else {
        panic!("not measured, the disk was not full: {sent:?}\n{}", log_of(&data));
    };
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.retry_after.is_some_and(|seconds| seconds > 0), "{answer:?}");
    let (applied, _) = scenario.known(&told);
    assert!(
        applied > 0,
        "not measured: nothing was accepted before the disk was full"
    );
    until("it is not ready", || {
        (server.client.get("/readyz", "").unwrap().status == 503).then_some(())
    });
    // What was accepted is finished, nothing of what was refused is there, and the reserve was given up for it.
    let books = server.settled();
    assert_eq!((books.applied, books.duplicate), (applied, 0), "{books:?}");
    until("the reserve is given up", || {
        (!data.join("reserve").exists()).then_some(())
    });
    for _ in 0..10 {
        assert!(matches!(
            scenario.send(&server, &mut told, usize::MAX),
            Sent::Refused(_)
        ));
    }
    assert_eq!(server.process.over(), None, "{}", log_of(&data));

    std::fs::remove_file(&ballast).unwrap();
    let freed = Instant::now();
    until("service resumes", || {
        (server.client.get("/readyz", "").unwrap().status == 200).then_some(())
    });
    let resumed = freed.elapsed();
    println!("F08: full after {applied} events, ready again {resumed:?} after there was room");
    assert!(resumed <= Duration::from_secs(5), "{resumed:?}");
    let context = format!("VIGIE_TEST_SEED={seed}, full file system");
    let _verdict = scenario.judge(&server, &mut told, Duration::ZERO, &context);
    until("the reserve is taken again", || {
        data.join("reserve").exists().then_some(())
    });
    server.process.kill();
    let _verdict = scenario.verdict(&data, &mut told, &context);
}
