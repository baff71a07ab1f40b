//! F07 and F08, fast: the disk answers with an error. A failed fdatasync is a doubt that only a restart ends; a missing
//! place is a refusal that ends by itself.

use std::time::{Duration, Instant};

use crate::rig::scenario::{Plan, Scenario, Sent, Verdict, log_of, summary};
use crate::rig::strace::{end, traced_lines, tracer_ends, under};
use crate::rig::two_at_a_time;
use crate::support::{Launch, Starting, seed, until};

/// What one failed fdatasync led to.
struct Doubt {
    verdict: Verdict,
    /// From the failure being seen by a client to the first answer that was not ready, or none at all.
    unready: Duration,
    /// Whether the log was running when it failed; else the start failed.
    running: bool,
}

fn fail_sync(scenario: &Scenario, seed: u64, position: usize) -> Result<Doubt, String> {
    let data = scenario.data();
    let mut told = scenario.nothing_told();
    let inject = format!("fdatasync:error=EIO:when={position}");
    let launch = Launch {
        under: under("fdatasync,fsync", &data.with_extension("trace"), Some(&inject)),
        ..scenario.launch()
    };
    let context = format!("VIGIE_TEST_SEED={seed}, EIO from fdatasync number {position}");
    let mut unready = Duration::ZERO;
    let mut running = true;
    let mut process = match Starting::launch(&data, &launch).up_or_dead() {
        Err(process) => {
            running = false;
            process
        }
        Ok(server) => {
            match scenario.send(&server, &mut told, usize::MAX) {
                Sent::All => return Err(format!("{context}: did not happen")),
                Sent::Refused(answer) => assert_eq!(answer.status, 503, "{context}: {answer:?}"),
                // The worker's own append failed, and the process was gone before the next request.
                Sent::Broken => {}
            }
            let seen = Instant::now();
            until("the server is not ready", || match server.client.get("/readyz", "") {
                Ok(answer) if answer.status == 200 => None,
                Ok(answer) if answer.status == 503 => Some(()),
                Ok(answer) => panic!("{context}: {answer:?}"),
                Err(_) => Some(()),
            });
            unready = seen.elapsed();
            assert!(
                unready <= Duration::from_secs(1),
                "{context}: ready for {unready:?} more"
            );
            // Whatever is sent now is not acknowledged: the process is in doubt, or gone.
            assert!(
                !matches!(scenario.send(&server, &mut told, usize::MAX), Sent::All),
                "{context}"
            );
            server.process
        }
    };
    let status = process.ended("a server in doubt ends by itself");
    assert!(status.code().is_some_and(|code| code != 0), "{context}: {status}");
    tracer_ends(process.id(), &data);
    let trace = traced_lines(&data);
    let mut lines = trace.lines().skip_while(|line| !line.contains("(INJECTED)"));
    let failed = lines.next().ok_or_else(|| format!("{context}: nothing was injected"))?;
    let file = synced_file(&trace, failed).unwrap_or_else(|| panic!("{context}: {failed}"));
    let again: Vec<&str> = lines.filter(|line| line.contains(&format!("<{file}>"))).collect();
    assert_eq!(again, Vec::<&str>::new(), "{context}: synced again after it failed");
    let verdict = scenario.verdict(&data, &mut told, &context);
    scenario.remove(&data);
    Ok(Doubt {
        verdict,
        unready,
        running,
    })
}

/// The file of a traced call. When calls of two threads overlap, the line with the result names only the call; the file is
/// in the same thread's last line before it.
fn synced_file<'a>(trace: &'a str, line: &'a str) -> Option<&'a str> {
    let named = |line: &'a str| Some(line.split_once('<')?.1.split_once('>')?.0);
    if !line.contains("<... ") {
        return named(line);
    }
    let thread = line.split(' ').next()?;
    let earlier = trace.lines().take_while(|other| *other != line);
    named(earlier.filter(|other| other.split(' ').next() == Some(thread)).last()?)
}

#[test]
fn fifty_failed_fdatasyncs_end_the_process_and_are_never_repeated() {
    let seed = seed();
    println!("replay with VIGIE_TEST_SEED={seed}");
    // Small requests: each is at least one fdatasync of the log's thread.
    let plan = Plan {
        batch: 6,
        ..Plan::of(seed)
    };
    let scenario = Scenario::prepare(plan, &[]);
    let positions: Vec<usize> = (1..=50).collect();
    let outcomes = two_at_a_time(&positions, |position| fail_sync(&scenario, seed, *position));
    let mut not_measured = Vec::new();
    let mut doubts = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(doubt) => doubts.push(doubt),
            Err(reason) => not_measured.push(reason),
        }
    }
    let verdicts: Vec<Verdict> = doubts.iter().map(|doubt| doubt.verdict).collect();
    let unready = doubts.iter().map(|doubt| doubt.unready).max().unwrap_or_default();
    let running = doubts.iter().filter(|doubt| doubt.running).count();
    println!(
        "F07: {}; {running} while running, the others while starting; not ready within {unready:?}; not measured: {not_measured:?}",
        summary(&verdicts)
    );
    assert_eq!(doubts.len(), positions.len(), "{not_measured:?}");
}

/// F08 without root: the writer's calls fail with ENOSPC for a while. The same on a file system that is full is in
/// `tests/faults`.
#[test]
fn writes_without_space_are_refused_and_service_resumes_by_itself() {
    let seed = seed();
    println!("replay with VIGIE_TEST_SEED={seed}");
    // One request after the other: when the worker is waited for, it is its own appends that fail, and not a client's.
    let plan = Plan {
        waits: false,
        ..Plan::of(seed)
    };
    let scenario = Scenario::prepare(plan, &[]);
    let data = scenario.data();
    let mut told = scenario.nothing_told();
    // One such call per block, of whoever appends; the log's probes, one a second, are the calls that fail last.
    let inject = "pwrite64:error=ENOSPC:when=10..17";
    let mut under = under("pwrite64", &data.with_extension("trace"), Some(inject));
    let segment = data.join("log/00000000000000000000.seg").display().to_string();
    under.extend(["-P".to_owned(), segment]);
    let launch = Launch {
        under,
        ..scenario.launch()
    };
    let mut server = Starting::launch(&data, &launch).up();
    let Sent::Refused(answer) = scenario.send(&server, &mut told, usize::MAX) else {
        panic!("nothing was refused: {}", log_of(&data));
    };
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.retry_after.is_some_and(|seconds| seconds > 0), "{answer:?}");
    let refused = Instant::now();
    let ready = server.client.get("/readyz", "").unwrap();
    assert_eq!(ready.status, 503, "{ready:?}");
    until("service resumes", || {
        (server.client.get("/readyz", "").unwrap().status == 200).then_some(())
    });
    let resumed = refused.elapsed();
    let context = format!("VIGIE_TEST_SEED={seed}, {inject}");
    let verdict = scenario.judge(&server, &mut told, Duration::ZERO, &context);
    end(&mut server.process, &data);
    let injected = traced_lines(&data)
        .lines()
        .filter(|line| line.contains("(INJECTED)"))
        .count();
    println!(
        "F08 (injected): {injected} calls failed, ready again {resumed:?} after the refusal, {} duplicates",
        verdict.duplicate
    );
    assert_eq!(injected, 8, "not measured");
    assert!(
        resumed < Duration::from_secs(8),
        "{resumed:?}: three probes, then it must be back"
    );
    // And over a restart.
    let _verdict = scenario.verdict(&data, &mut told, &context);
}
