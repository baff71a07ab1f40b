//! F02: the process dies before and after each step of the way from a request to a committed score, at three occurrences
//! of each.
//!
//! The table below is the list of steps. A step without its two points in the source, and a point in the source without
//! its step in the table, fail the build.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use crate::repository::{assert_none, text_files};
use crate::rig::scenario::{Plan, Scenario, Sent, log_of, summary};
use crate::rig::two_at_a_time;
use crate::support::{Launch, Starting, seed};

const SIGABRT: i32 = 6;

/// When the process passes a step.
#[derive(Debug, Clone, Copy)]
enum When {
    /// Under load, and dies at these passages.
    Load([u64; 3]),
    /// The same, with events so large that segments are closed.
    LargeLoad([u64; 3]),
    /// Once in each start; it was killed after so many batches.
    Start([usize; 3]),
    /// Once when it stops; it is asked to after so many batches.
    Stop([usize; 3]),
}

/// The steps in the order of the way: name, number in the failure model (section b.0), when it is passed.
const STEPS: &[(&str, &str, When)] = &[
    ("intake.append", "acknowledgement", When::Load([2, 9, 20])),
    ("intake.letters", "3, dead letter", When::Load([1, 2, 4])),
    ("log.roll", "acknowledgement", When::LargeLoad([1, 2, 3])),
    ("log.write", "acknowledgement", When::Load([2, 12, 25])),
    ("log.sync", "acknowledgement", When::Load([1, 10, 22])),
    ("log.publish", "acknowledgement", When::Load([3, 11, 24])),
    ("log.answer", "acknowledgement", When::Load([1, 8, 21])),
    ("step.fetch", "1", When::Load([1, 3, 5])),
    ("step.decode", "3", When::Load([1, 3, 5])),
    ("step.judge", "4, 5", When::Load([1, 130, 400])),
    ("step.fold", "6", When::Load([1, 3, 5])),
    ("step.derive", "7", When::Load([1, 2, 3])),
    ("step.unit", "7", When::Load([1, 3, 5])),
    ("store.epoch", "2", When::Load([1, 3, 5])),
    ("store.commit", "8", When::Load([1, 3, 5])),
    ("step.publish", "9", When::Load([1, 3, 5])),
    ("store.persist", "8", When::Stop([3, 12, 24])),
    ("archive.put", "10", When::Stop([4, 13, 22])),
    ("archive.forget", "12, judgements", When::Stop([2, 11, 23])),
    ("log.recover", "start", When::Start([3, 12, 24])),
    ("store.recover", "start", When::Start([2, 11, 23])),
    ("store.claim", "start", When::Start([4, 13, 22])),
];

/// Steps of the failure model that this product does not have yet, and the word of the source by which one notices that
/// it has: whoever adds the step adds its points.
const MISSING: &[(&str, &str, &str)] = &[(
    "12 retention of the log",
    "crates/ingestion/src/log/mod.rs",
    "fn retain",
)];

/// Steps whose deaths are tried where they live, without a process: the test that does it must stand there.
const ELSEWHERE: &[(&str, &str, &str)] = &[(
    "11 deliver",
    "crates/delivery/tests/all/lanes.rs",
    "fn a_crash_at_any_send_and_any_byte_of_the_journal_loses_nothing_and_makes_no_new_id",
)];

/// One death.
struct Death {
    point: String,
    when: When,
    which: usize,
}

/// Lets a server die there. `Err` when it did not, or died of something else.
fn die(scenario: &Scenario, death: &Death) -> Result<crate::rig::scenario::Verdict, String> {
    let data = scenario.data();
    let mut told = scenario.nothing_told();
    let armed = |passage: u64| Launch {
        variables: vec![("VIGIE_FAILPOINT", format!("{}:{passage}", death.point))],
        ..scenario.launch()
    };
    let mut passage = 1;
    let mut process = match death.when {
        When::Load(passages) | When::LargeLoad(passages) => {
            passage = passages[death.which];
            match Starting::launch(&data, &armed(passage)).up_or_dead() {
                Err(process) => process,
                Ok(server) => {
                    let sent = scenario.send(&server, &mut told, usize::MAX);
                    if !matches!(sent, Sent::Broken) {
                        return Err(format!("{}:{passage} was not reached: {sent:?}", death.point));
                    }
                    server.process
                }
            }
        }
        When::Start(moments) => {
            let mut server = Starting::launch(&data, &scenario.launch()).up();
            assert!(matches!(
                scenario.send(&server, &mut told, moments[death.which]),
                Sent::All
            ));
            server.process.kill();
            match Starting::launch(&data, &armed(1)).up_or_dead() {
                Err(process) => process,
                Ok(_) => return Err(format!("{} was not reached in a start", death.point)),
            }
        }
        When::Stop(moments) => {
            let server = Starting::launch(&data, &armed(1)).up();
            assert!(matches!(
                scenario.send(&server, &mut told, moments[death.which]),
                Sent::All
            ));
            server.process.terminate();
            server.process
        }
    };
    let status = process.ended("a process that reached its point ends");
    let said = format!("failpoint: {}:{passage} aborts the process", death.point);
    if status.signal() != Some(SIGABRT) || !log_of(&data).contains(&said) {
        return Err(format!(
            "{}: it ended otherwise: {status}\n{}",
            death.point,
            log_of(&data)
        ));
    }
    let context = format!(
        "VIGIE_FAILPOINT={}:{passage}, {:?} number {}",
        death.point, death.when, death.which
    );
    let verdict = scenario.verdict(&data, &mut told, &context);
    scenario.remove(&data);
    Ok(verdict)
}

#[test]
fn a_death_before_or_after_any_step_loses_nothing_and_counts_nothing_twice() {
    let seed = seed();
    println!("replay with VIGIE_TEST_SEED={seed}");
    let usual = Scenario::prepare(Plan::of(seed), &[]);
    let large = Plan {
        padding: 12_000,
        ..Plan::of(seed)
    };
    let large = Scenario::prepare(large, &["--set", "log.segment-size=1 MiB"]);
    let mut deaths = Vec::new();
    for (step, _, when) in STEPS {
        for side in ["before", "after"] {
            deaths.extend((0..3).map(|which| Death {
                point: format!("{step}.{side}"),
                when: *when,
                which,
            }));
        }
    }
    let outcomes = two_at_a_time(&deaths, |death| {
        let large_load = matches!(death.when, When::LargeLoad(_));
        die(if large_load { &large } else { &usual }, death)
    });
    let (mut verdicts, mut not_measured) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(verdict) => verdicts.push(verdict),
            Err(reason) => not_measured.push(reason),
        }
    }
    println!(
        "F02: {} of {} deaths: {}",
        verdicts.len(),
        deaths.len(),
        summary(&verdicts)
    );
    assert_none(&not_measured, "These deaths were not measured, which is not a pass.");
}

/// How often each point stands in the source of the product.
fn points_in_source() -> BTreeMap<String, usize> {
    let mut points = BTreeMap::new();
    let files = text_files();
    let sources = files
        .iter()
        .filter(|(path, _)| path.contains("/src/") && !path.starts_with("crates/failpoint/"));
    for (_, text) in sources {
        for rest in text.split("point!(\"").skip(1) {
            let name = rest.split('"').next().unwrap_or_default();
            *points.entry(name.to_owned()).or_default() += 1;
        }
    }
    points
}

#[test]
fn every_step_has_its_pair_of_points_and_every_point_its_step() {
    let points = points_in_source();
    let wanted: Vec<String> = STEPS
        .iter()
        .flat_map(|(step, _, _)| ["before", "after"].map(|side| format!("{step}.{side}")))
        .collect();
    let mut findings: Vec<String> = wanted
        .iter()
        .filter(|point| points.get(*point) != Some(&1))
        .map(|point| {
            format!(
                "{point}: stands {} times in the source, not once",
                points.get(point).unwrap_or(&0)
            )
        })
        .collect();
    let unknown = points.keys().filter(|point| !wanted.contains(point));
    findings.extend(unknown.map(|point| format!("{point}: no step of the table in faults/points.rs has this point")));
    let files = text_files();
    for (step, path, word) in MISSING {
        let there = files.iter().any(|(file, text)| file == path && text.contains(word));
        if there {
            findings.push(format!(
                "{path} has {word}: step {step} exists now, give it its points and its row"
            ));
        }
    }
    for (step, path, word) in ELSEWHERE {
        if !files.iter().any(|(file, text)| file == path && text.contains(word)) {
            findings.push(format!(
                "{path} has no {word}: nothing tries the deaths of step {step} any more"
            ));
        }
    }
    assert_none(
        &findings,
        "The table of steps stands in crates/vigie/tests/all/faults/points.rs.",
    );
}
