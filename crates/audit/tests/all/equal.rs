//! FOLD-1: what the pipeline stores is what the oracle recomputes from the log, byte for byte: records with their timers,
//! ranks and published scores, flags, books, what every partition remembers, and every derived record.

use crate::dice::{Dice, seed};
use crate::support::{recompute_look_by_look, run};
use crate::workload::{Step, Workload};
use vigie_audit::{Sample, Verdict};

/// What is wrong with a workload's audit, if anything.
fn fault(workload: &Workload) -> Option<String> {
    run(async {
        let house = workload.play().await;
        let (records, rows) = (house.records().await, house.rows().await);
        let report = rows.audit_all(&records);
        let sound = report.verdict == Verdict::Equal && report.in_flight == 0 && report.unchecked == 0;
        (!sound).then(|| report.to_string())
    })
}

/// Leaves out what can be left out, for a failure that can be read.
fn shortened(mut workload: Workload) -> Workload {
    let mut width = workload.steps.len() / 2;
    while width > 0 {
        let mut at = 0;
        while at < workload.steps.len() {
            let mut steps = workload.steps.clone();
            drop(steps.drain(at..(at + width).min(workload.steps.len())));
            let less = Workload { steps, ..workload };
            if fault(&less).is_some() {
                workload = less;
            } else {
                at += width;
            }
        }
        width /= 2;
    }
    workload
}

fn shown(workload: &Workload) -> String {
    let step = |step: &Step| match step {
        Step::Record(partition, record) => match &record.body {
            vigie_event::Body::Event(event) => format!(
                "{partition}: {} {:?} {:?} of {} at {:?} sent {:?} received {} {:?} {:?} {:?}",
                event.id,
                event.signal,
                event.name,
                event.workspace,
                event.occurred_at,
                event.sent_at,
                event.received_at.0,
                event.person,
                event.consent,
                event.money
            ),
            other => format!("{partition}: {other:?}"),
        },
        other => format!("{other:?}"),
    };
    workload.steps.iter().map(step).collect::<Vec<_>>().join("\n")
}

fn check(cases: u64, events: usize) {
    let seed = seed();
    let mut dice = Dice(seed);
    for case in 0..cases {
        let one = dice.roll();
        let length = 1 + Dice(one).index(events);
        let workload = Workload::random(one, length);
        if fault(&workload).is_some() {
            let least = shortened(workload);
            panic!(
                "replay with VIGIE_SEED={seed}; case {case} is {one} with {length} steps\n{} partitions\n{}\n{}",
                least.partitions,
                shown(&least),
                fault(&least).unwrap_or_default()
            );
        }
    }
}

#[test]
fn the_oracle_and_the_pipeline_agree_on_every_byte() {
    check(500, 56);
}

#[test]
fn the_shortcut_decides_what_walking_decides() {
    let seed = seed();
    let mut dice = Dice(seed ^ 1);
    for _ in 0..40 {
        let one = dice.roll();
        run(async {
            let house = Workload::random(one, 64).play().await;
            let (records, rows) = (house.records().await, house.rows().await);
            let partitions = rows.partitions.len() as u16;
            let walked = recompute_look_by_look(partitions, &rows.cut(), &records);
            let report = rows.audit(Sample::all(partitions), walked);
            assert_eq!(report.verdict, Verdict::Equal, "VIGIE_SEED={seed}: {one}\n{report}");
        });
    }
}
