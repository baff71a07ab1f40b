//! What a run found, on the screen, as `RESULTS.md` for people and as `results.json` for programs.

use crate::experiment::{Experiment, Run};
use crate::generator::Sent;
use crate::machine::Machine;
use crate::past::Past;
use crate::server::Books;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// A case and its runs.
#[derive(Debug, Serialize)]
pub(crate) struct CaseResult {
    pub(crate) experiment: Experiment,
    pub(crate) runs: Vec<RunResult>,
}

/// What one run found.
#[derive(Debug, Serialize)]
pub(crate) struct RunResult {
    name: String,
    offered_events_per_second: Option<u64>,
    seconds: u64,
    acknowledged_events: u64,
    acknowledged_events_per_second: f64,
    /// Up to the moment at which the last event was in a customer's state.
    processed_events_per_second: f64,
    refused_batches: u64,
    ack_ms: Quantiles,
    peak_memory_bytes: Option<u64>,
    books_balance: bool,
    past: Past,
    books: String,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl RunResult {
    /// `took` is the time until the last event was acknowledged, and until it was in a customer's state.
    pub(crate) fn new(
        run: &Run,
        seconds: u64,
        sent: &Sent,
        books: &Books,
        took: [Duration; 2],
        peak_memory_bytes: Option<u64>,
        past: Past,
    ) -> Self {
        let [acknowledged, caught_up] = took;
        let ms = |quantile: f64| sent.latency_us.value_at_quantile(quantile) as f64 / 1_000.0;
        // Every acknowledged event is there, once; every repetition was recognised; nothing is left or lost.
        let unique = sent.acknowledged - sent.repeated;
        let expected = [sent.acknowledged, unique, sent.repeated, 0, 0, 0];
        let found = [
            books.accepted,
            books.applied,
            books.duplicate,
            books.dead_letter,
            books.suppressed,
            books.in_flight,
        ];
        Self {
            name: run.name.clone(),
            offered_events_per_second: run.events_per_second,
            seconds,
            acknowledged_events: sent.acknowledged,
            acknowledged_events_per_second: sent.acknowledged as f64 / acknowledged.as_secs_f64(),
            processed_events_per_second: sent.acknowledged as f64 / caught_up.as_secs_f64(),
            refused_batches: sent.refused_batches,
            ack_ms: Quantiles {
                p50: ms(0.5),
                p99: ms(0.99),
                p999: ms(0.999),
                max: ms(1.0),
            },
            peak_memory_bytes,
            books_balance: expected == found,
            past,
            books: format!(
                "accepted {}, applied {}, duplicate {}, dead letter {}, suppressed {}, in flight {} \
                 (acknowledged {}, of which repeated {})",
                books.accepted,
                books.applied,
                books.duplicate,
                books.dead_letter,
                books.suppressed,
                books.in_flight,
                sent.acknowledged,
                sent.repeated
            ),
        }
    }

    /// A fast run that loses an event, or ends with a store that its log does not explain, is a failed run.
    pub(crate) fn passed(&self) -> bool {
        self.books_balance && self.past.equal
    }

    fn verdict(&self) -> &'static str {
        if self.books_balance { "balanced" } else { "NOT BALANCED" }
    }
}

/// One line while the tests run.
#[expect(clippy::print_stdout, reason = "a program for people at a terminal")]
pub(crate) fn announce(case: &str, run: &RunResult) {
    println!(
        "{case} {}: {:.0} events/s acknowledged, {:.0} processed; ack p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms; \
         {} batches refused; books {}: {}; audit {} at {:.0} events/s, replay {:.0} events/s",
        run.name,
        run.acknowledged_events_per_second,
        run.processed_events_per_second,
        run.ack_ms.p50,
        run.ack_ms.p99,
        run.ack_ms.p999,
        run.refused_batches,
        run.verdict(),
        run.books,
        run.past.verdict(),
        run.past.audit_events_per_second,
        run.past.replay_events_per_second
    );
}

/// Why the tests could not be run.
#[expect(clippy::print_stderr, reason = "a program for people at a terminal")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("load tests: {error:#}");
}

/// Writes `RESULTS.md` and `results.json`.
pub(crate) fn write(directory: &Path, machine: &Machine, cases: &[CaseResult]) -> Result<()> {
    let json = serde_json::json!({ "machine": machine, "cases": cases });
    let files = [
        ("RESULTS.md", markdown(machine, cases)),
        ("results.json", format!("{json:#}\n")),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn markdown(machine: &Machine, cases: &[CaseResult]) -> String {
    let mut out =
        String::from("# Load test results\n\nWritten by `cargo run --release -p vigie-load-tests` (`make load`).\n");
    let _ = writeln!(
        out,
        "\nMachine: {} cores ({}), {:.0} GB, {}; 4 KiB append + fdatasync p50 {:.2} ms, p99 {:.2} ms. The generator \
         shares the cores with the server.",
        machine.cores,
        machine.processor,
        machine.memory_bytes as f64 / 1e9,
        machine.system,
        machine.fsync_p50_ms,
        machine.fsync_p99_ms
    );
    for case in cases {
        let e = &case.experiment;
        let _ = writeln!(
            out,
            "\n## {}\n\nSeed {}, {} customers (Zipf-Mandelbrot, exponent 1, shift 10), batches of {} events of {} bytes, {} connections, every {}th \
             batch sent twice. Latency counts from the moment at which a batch was due.\n\n\
             | run | offered/s | acknowledged/s | processed/s | ack p50 ms | p99 ms | p99.9 ms | refused batches | peak memory MB | books | audit | audit events/s | replay events/s |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|",
            e.name, e.seed, e.customers, e.batch_events, e.event_bytes, e.connections, e.resend_every
        );
        for run in &case.runs {
            let _ = writeln!(
                out,
                "| {} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {} | {} | {} | {} | {:.0} | {:.0} |",
                run.name,
                run.offered_events_per_second
                    .map_or("max".to_owned(), |rate| rate.to_string()),
                run.acknowledged_events_per_second,
                run.processed_events_per_second,
                run.ack_ms.p50,
                run.ack_ms.p99,
                run.ack_ms.p999,
                run.refused_batches,
                run.peak_memory_bytes
                    .map_or("–".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1e6)),
                run.verdict(),
                run.past.verdict(),
                run.past.audit_events_per_second,
                run.past.replay_events_per_second
            );
        }
    }
    out
}
