//! Death at a chosen system call. What survives `kill -9` changes only at system calls that others can see, so killing at
//! each of them is exhaustive for one interleaving.
//!
//! `strace -D` makes itself the grandchild: the server is our own child, its end is seen as it is, and it can be ended by
//! its id. `--seccomp-bpf` is not used: with it the injection of strace 6.1 was seen not to fire. The counter of an
//! injection is per thread, so "the n-th write" is that of whichever thread comes first to its n-th.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::scenario::{Scenario, Sent, Told, Verdict, summary};
use super::two_at_a_time;
use crate::support::{Launch, Process, Server, Starting, until};

/// The calls by which a process changes what others see. Those that an architecture does not have are left out there.
const CALLS: &[&str] = &[
    "write",
    "writev",
    "pwrite64",
    "sendto",
    "fdatasync",
    "fsync",
    "rename",
    "renameat",
    "renameat2",
    "ftruncate",
    "fallocate",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
];
const SIGKILL: i32 = 9;
/// A call that is made so rarely belongs to the start, not to the load.
const FEW: usize = 10;

/// How often the busiest thread made each call.
pub(crate) type Counts = BTreeMap<String, usize>;

/// The command that traces these calls into a file and injects a fault into one of them.
pub(crate) fn under(calls: &str, into: &Path, inject: Option<&str>) -> Vec<String> {
    let into = into.display().to_string();
    let mut command: Vec<String> = ["strace", "-D", "-f", "-q", "-y", "-o", &into, "-e"]
        .map(str::to_owned)
        .into();
    command.push(format!("trace={calls}"));
    if let Some(inject) = inject {
        command.push(format!("-einject={inject}"));
    }
    command
}

fn traced(scenario: &Scenario, data: &Path) -> Launch {
    let calls: Vec<String> = CALLS.iter().map(|call| format!("?{call}")).collect();
    Launch {
        under: under(&calls.join(","), &data.with_extension("trace"), None),
        ..scenario.launch()
    }
}

/// Reads what a traced run did. The tracer ends with what it traces, a moment later.
fn counts(data: &Path) -> Counts {
    let mut calls: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in traced_lines(data).lines() {
        let mut parts = line.splitn(2, ' ');
        let (Some(thread), Some(rest)) = (parts.next(), parts.next()) else {
            continue;
        };
        if let Some((call, _)) = rest.trim_start().split_once('(')
            && CALLS.contains(&call)
        {
            *calls.entry((thread.to_owned(), call.to_owned())).or_default() += 1;
        }
    }
    let mut counts = Counts::new();
    for ((_, call), count) in calls {
        let most = counts.entry(call).or_default();
        *most = count.max(*most);
    }
    assert!(!counts.is_empty(), "nothing was traced");
    counts
}

/// Places in a run: each call in turn, each time at another random one of its passages. When all of a call were taken, they
/// come again: the same place of another interleaving.
fn places(counts: &Counts, rng: &mut ChaCha8Rng, wanted: usize) -> Vec<(String, usize)> {
    let mut left: Vec<(&String, usize, Vec<usize>)> =
        counts.iter().map(|(call, count)| (call, *count, Vec::new())).collect();
    let mut places = Vec::new();
    for _ in 0..wanted {
        for (call, count, passages) in &mut left {
            if passages.is_empty() {
                // Two runs never do quite the same: the very last passages may not come.
                passages.extend(1..=(*count * 9).div_ceil(10));
                passages.shuffle(rng);
                if *count <= FEW && places.len() > FEW * counts.len() {
                    // Once is enough for what happens a few times at start.
                    passages.clear();
                }
            }
            places.extend(passages.pop().map(|passage| ((*call).clone(), passage)));
        }
    }
    places.truncate(wanted);
    places
}

/// One place in the first half of a run: the later recoveries of a row have less to do than the first.
fn early_place(counts: &Counts, rng: &mut ChaCha8Rng) -> (String, usize) {
    let calls: Vec<_> = counts.iter().collect();
    let (call, count) = calls[rng.random_range(0..calls.len())];
    (call.clone(), rng.random_range(1..=count.div_ceil(2)))
}

fn killing(scenario: &Scenario, data: &Path, call: &str, passage: usize) -> Launch {
    let inject = format!("{call}:signal=KILL:when={passage}");
    Launch {
        under: under(call, &data.with_extension("trace"), Some(&inject)),
        ..scenario.launch()
    }
}

/// The end of a process that was sent traffic, or `None` if it lives when nothing is left to do.
fn end_under_load(scenario: &Scenario, launch: &Launch, data: &Path, told: &mut Told) -> Option<ExitStatus> {
    match Starting::launch(data, launch).up_or_dead() {
        Err(mut process) => Some(process.ended("a server that did not come up ends")),
        Ok(mut server) => match scenario.send(&server, told, usize::MAX) {
            Sent::Broken => Some(server.process.ended("a server that broke its connections ends")),
            Sent::Refused(answer) => panic!("{answer:?}"),
            Sent::All => end_or_rest(&mut server),
        },
    }
}

/// The end of a process to which nothing is sent, or `None` if it lives when everything is folded.
fn end_at_rest(launch: &Launch, data: &Path) -> Option<ExitStatus> {
    match Starting::launch(data, launch).up_or_dead() {
        Err(mut process) => Some(process.ended("a server that did not come up ends")),
        Ok(mut server) => end_or_rest(&mut server),
    }
}

fn end_or_rest(server: &mut Server) -> Option<ExitStatus> {
    until("the server dies or rests", || {
        if let Some(status) = server.process.over() {
            return Some(Some(status));
        }
        let answer = server.client.get("/v1/books", &server.keys.read).ok()?;
        (answer.status == 200 && answer.json()["in_flight"] == 0).then_some(None)
    })
}

fn killed(status: Option<ExitStatus>) -> bool {
    match status.map(|status| (status.signal(), status)) {
        None => false,
        Some((Some(SIGKILL), _)) => true,
        Some((_, status)) => panic!("it ended by itself: {status}"),
    }
}

/// F01: so many servers, each killed at another system call under load, each judged.
pub(crate) fn kill_at_system_calls(scenario: &Scenario, seed: u64, required: usize) -> Vec<Verdict> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let counts = count_under_load(scenario);
    let places = places(&counts, &mut rng, required * 3 / 2);
    let (measured, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let verdicts = two_at_a_time(&places, |(call, passage)| {
        if measured.load(Ordering::Relaxed) >= required {
            return None;
        }
        let data = scenario.data();
        let mut told = scenario.nothing_told();
        let launch = killing(scenario, &data, call, *passage);
        if !killed(end_under_load(scenario, &launch, &data, &mut told)) {
            let _before = missed.fetch_add(1, Ordering::Relaxed);
            scenario.remove(&data);
            return None;
        }
        let context = format!("VIGIE_TEST_SEED={seed}, killed at {call} number {passage}");
        let verdict = scenario.verdict(&data, &mut told, &context);
        let _before = measured.fetch_add(1, Ordering::Relaxed);
        scenario.remove(&data);
        Some((call.clone(), verdict))
    });
    let verdicts: Vec<(String, Verdict)> = verdicts.into_iter().flatten().collect();
    let mut by_call = Counts::new();
    for (call, _) in &verdicts {
        *by_call.entry(call.clone()).or_default() += 1;
    }
    let verdicts: Vec<Verdict> = verdicts.into_iter().map(|(_, verdict)| verdict).collect();
    println!(
        "F01: {}; {} not measured; passages of the busiest thread {counts:?}; kills by call {by_call:?}",
        summary(&verdicts),
        missed.into_inner()
    );
    assert!(
        verdicts.len() >= required,
        "{} kill points measured of {required}",
        verdicts.len()
    );
    verdicts
}

/// What a run under load does.
fn count_under_load(scenario: &Scenario) -> Counts {
    let data = scenario.data();
    let mut server = Starting::launch(&data, &traced(scenario, &data)).up();
    let mut told = scenario.nothing_told();
    assert!(matches!(scenario.send(&server, &mut told, usize::MAX), Sent::All));
    let _books = server.settled();
    end(&mut server.process, &data);
    let counts = counts(&data);
    scenario.remove(&data);
    counts
}

/// What a recovery does whose predecessor was killed at this place under load.
fn count_recovery(scenario: &Scenario, call: &str, passage: usize) -> Counts {
    let data = scenario.data();
    let mut told = scenario.nothing_told();
    let _status = end_under_load(scenario, &killing(scenario, &data, call, passage), &data, &mut told);
    let mut server = Starting::launch(&data, &traced(scenario, &data)).up();
    let _books = server.settled();
    end(&mut server.process, &data);
    let counts = counts(&data);
    scenario.remove(&data);
    counts
}

/// F03: so many servers killed under load, then killed again one to three times while they recover, then judged.
pub(crate) fn kill_while_recovering(scenario: &Scenario, seed: u64, required: usize) -> Vec<Verdict> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let under_load = count_under_load(scenario);
    let syncs = under_load.get("fdatasync").copied().unwrap_or(1);
    let recovering = count_recovery(scenario, "fdatasync", syncs / 2);
    // Some do not come true, because a recovery had less to do than the one that was counted.
    let sequences: Vec<_> = places(&under_load, &mut rng, required * 4)
        .into_iter()
        .map(|first| {
            let deaths = rng.random_range(1..=3);
            let later: Vec<_> = (0..deaths).map(|_| early_place(&recovering, &mut rng)).collect();
            (first, later)
        })
        .collect();
    let (measured, deaths) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let verdicts = two_at_a_time(&sequences, |(first, later)| {
        if measured.load(Ordering::Relaxed) >= required {
            return None;
        }
        let data = scenario.data();
        let mut told = scenario.nothing_told();
        let launch = killing(scenario, &data, &first.0, first.1);
        let die_again = |(call, passage): &(String, usize)| {
            let launch = killing(scenario, &data, call, *passage);
            killed(end_at_rest(&launch, &data))
        };
        if !killed(end_under_load(scenario, &launch, &data, &mut told)) || !later.iter().all(die_again) {
            scenario.remove(&data);
            return None;
        }
        let context = format!("VIGIE_TEST_SEED={seed}, killed at {first:?}, then recovering at {later:?}");
        let verdict = scenario.verdict(&data, &mut told, &context);
        let _before = measured.fetch_add(1, Ordering::Relaxed);
        let _before = deaths.fetch_add(later.len(), Ordering::Relaxed);
        scenario.remove(&data);
        Some(verdict)
    });
    let verdicts: Vec<Verdict> = verdicts.into_iter().flatten().collect();
    println!(
        "F03: {}; {} deaths while recovering; passages of a recovery {recovering:?}",
        summary(&verdicts),
        deaths.into_inner()
    );
    assert!(
        verdicts.len() >= required,
        "{} sequences measured of {required}",
        verdicts.len()
    );
    verdicts
}

/// Ends a traced server. What was traced is complete when the tracer has written of this end.
pub(crate) fn end(process: &mut Process, data: &Path) {
    let id = process.id();
    process.kill();
    tracer_ends(id, data);
}

/// Waits until the tracer has written of the end of the process, which has ended.
pub(crate) fn tracer_ends(id: u32, data: &Path) {
    let last = |line: &str| {
        line.strip_prefix(&id.to_string())
            .is_some_and(|rest| rest.trim_start().starts_with("+++ "))
    };
    until("the tracer ends", || traced_lines(data).lines().any(last).then_some(()));
}

/// What the tracer has written so far.
pub(crate) fn traced_lines(data: &Path) -> String {
    std::fs::read_to_string(data.with_extension("trace")).expect("strace is installed and may trace")
}
