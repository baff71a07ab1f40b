//! What the runs found: on the screen, as `RESULTS.md` for people and as `results.json` for programs.

use crate::experiment::Experiment;
use crate::machine::Machine;
use crate::targets::{self, Target};
use anyhow::{Context, Result};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// A case and its runs.
#[derive(Debug, Serialize)]
pub(crate) struct CaseResult {
    pub(crate) experiment: Experiment,
    pub(crate) runs: Vec<RunResult>,
    /// Why there are none.
    pub(crate) not_measured: Option<String>,
}

/// What one run found.
#[derive(Debug, Serialize)]
pub(crate) struct RunResult {
    pub(crate) name: String,
    pub(crate) measures: Measures,
    /// A fast run that loses an event, or ends with a store that its log does not explain, is a failed run.
    pub(crate) failures: Vec<String>,
    /// What a reader must know to take the figures for what they are.
    pub(crate) remarks: Vec<String>,
    /// Where vigie's CPU time went, as a table in Markdown.
    pub(crate) profile: Option<String>,
    /// What the cores were doing in the minute before: more than their number is a shared machine.
    pub(crate) load_before: f64,
}

/// Figures with their names, units included, in the order in which they are shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measures(Vec<(String, f64)>);

impl Measures {
    pub(crate) fn put(&mut self, name: &str, value: f64) {
        self.0.push((name.to_owned(), value));
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0
            .iter()
            .find(|(measure, _)| measure == name)
            .map(|(_, value)| *value)
    }
}

impl Serialize for Measures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let by_name: BTreeMap<&str, f64> = self.0.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        by_name.serialize(serializer)
    }
}

impl RunResult {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            measures: Measures::default(),
            failures: Vec::new(),
            remarks: Vec::new(),
            profile: None,
            load_before: crate::process::load_average().unwrap_or_default(),
        }
    }

    /// A run that came to no end. The others go on.
    pub(crate) fn failed(name: &str, error: &anyhow::Error) -> Self {
        Self {
            failures: vec![format!("NOT MEASURED: {error:#}")],
            ..Self::new(name)
        }
    }

    pub(crate) fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    fn verdict(&self) -> String {
        match self.failures.as_slice() {
            [] => "balanced, equal".to_owned(),
            failures => failures.join("; "),
        }
    }
}

/// As many digits as mean something.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "–".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A line while the tests run.
#[expect(clippy::print_stdout, reason = "a program for people at a terminal")]
pub(crate) fn announce(case: &str, run: &RunResult) {
    let figures: Vec<String> = run
        .measures
        .0
        .iter()
        .map(|(name, value)| format!("{name} {}", figure(*value)))
        .collect();
    println!(
        "{case} {}: {}; books and audit: {}",
        run.name,
        figures.join(", "),
        run.verdict()
    );
    for remark in &run.remarks {
        println!("{case} {}: {remark}", run.name);
    }
}

/// A line about a case that could not be measured.
#[expect(clippy::print_stdout, reason = "a program for people at a terminal")]
pub(crate) fn announce_missing(case: &str, why: &str) {
    println!("{case}: not measured: {why}");
}

/// Why the tests could not be run.
#[expect(clippy::print_stderr, reason = "a program for people at a terminal")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("load tests: {error:#}");
}

/// Writes `RESULTS.md` and `results.json`.
pub(crate) fn write(directory: &Path, machine: &Machine, cases: &[CaseResult], targets: &[Target]) -> Result<()> {
    let json = serde_json::json!({ "machine": machine, "cases": cases });
    let files = [
        ("RESULTS.md", markdown(machine, cases, targets)),
        ("results.json", format!("{json:#}\n")),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn markdown(machine: &Machine, cases: &[CaseResult], targets: &[Target]) -> String {
    let mut out = String::from(
        "# Load test results\n\nWritten by `make load`; how each case works is in its folder under `cases/`.\n",
    );
    let _ = writeln!(
        out,
        "\nMachine: {} cores ({}), {:.0} GB, {}; 4 KiB append + fdatasync p50 {:.2} ms, p99 {:.2} ms. Generator, broker and \
         Redis share the cores with vigie. Only figures of one run may be compared with each other.",
        machine.cores,
        machine.processor,
        machine.memory_bytes as f64 / 1e9,
        machine.system,
        machine.fsync_p50_ms,
        machine.fsync_p99_ms
    );
    let busiest = cases
        .iter()
        .flat_map(|case| &case.runs)
        .map(|run| run.load_before)
        .fold(0.0, f64::max);
    let _ = writeln!(
        out,
        "\nLoad average before a run: at most {busiest:.1}{}.",
        if busiest > machine.cores as f64 + 1.0 {
            ": **the machine was shared with other work**, so rates are too low and latencies too high"
        } else {
            ", this program's own work included"
        }
    );
    targets::table(&mut out, targets, cases);
    for case in cases {
        let _ = writeln!(
            out,
            "\n## {}\n\n{}\n",
            case.experiment.name,
            case.experiment.case.about().trim()
        );
        if let Some(why) = &case.not_measured {
            let _ = writeln!(out, "Not measured: {why}");
        }
        table(&mut out, &case.runs);
        if let Some(profile) = &case.experiment.profile {
            let _ = writeln!(out, "\n### What limits it\n\n{}", profile.trim());
        }
    }
    out
}

/// One column for each figure that any of the runs has.
fn table(out: &mut String, runs: &[RunResult]) {
    let mut columns: Vec<&str> = Vec::new();
    for (name, _) in runs.iter().flat_map(|run| &run.measures.0) {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    if runs.is_empty() {
        return;
    }
    let _ = writeln!(out, "| run | {} | books and audit |", columns.join(" | "));
    let _ = writeln!(out, "|---|{}---|", "---|".repeat(columns.len()));
    for run in runs {
        let cells: Vec<String> = columns
            .iter()
            .map(|name| run.measures.get(name).map_or("–".to_owned(), figure))
            .collect();
        let _ = writeln!(out, "| {} | {} | {} |", run.name, cells.join(" | "), run.verdict());
    }
    for run in runs {
        for remark in &run.remarks {
            let _ = writeln!(out, "\n{}: {remark}", run.name);
        }
        if let Some(profile) = &run.profile {
            let _ = writeln!(out, "\n{}, where vigie's time went:\n\n{profile}", run.name);
        }
    }
}
