//! Load tests: start the real binary on an empty directory, send it events at a constant rate over HTTP, and let the run
//! pass only if every acknowledged event is in the books (BOOKS-1) and the audit finds the store equal to the archive (FOLD-1).
//! How fast a replay and an audit of what the run left behind are is measured on the way.
//!
//! The generator is open-loop: batch n is due at `start + n × interval`, whatever the server does, and its latency counts
//! from then, so a stalled server cannot hide its stall by slowing the generator (no "coordinated omission").
//!
//! `cargo run --release -p vigie-load-tests` runs every case under `cases/` and writes `RESULTS.md` and
//! `results.json`. Generator and server share the machine: the figures are for comparing, not for boasting.

mod client;
mod events;
mod experiment;
mod generator;
mod machine;
mod past;
mod report;
mod server;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use experiment::Experiment;
use report::{CaseResult, RunResult};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs the load tests.
#[derive(Debug, Parser)]
struct Arguments {
    /// The vigie binary; by default the one beside this program.
    #[arg(long, env = "VIGIE_BINARY")]
    binary: Option<PathBuf>,
    /// Directory of the cases.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/cases"))]
    cases: PathBuf,
    /// Run only the case of this name.
    #[arg(long)]
    only: Option<String>,
    /// Shorten every run to so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Where data directories are made; a disk, not a memory file system.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the results are written.
    #[arg(long, default_value = env!("CARGO_MANIFEST_DIR"))]
    results: PathBuf,
}

/// How long the worker may take to catch up after the last acknowledgement.
const CATCH_UP: Duration = Duration::from_secs(300);
/// Between two looks at the books.
const POLL: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            report::complain(&error);
            ExitCode::from(2)
        }
    }
}

/// Runs the cases; `false` when the books of one did not balance.
async fn run(arguments: Arguments) -> Result<bool> {
    let binary = arguments.binary.clone().map_or_else(beside_this_program, Ok)?;
    ensure!(
        binary.is_file(),
        "{} does not exist; build it with cargo build --release -p vigie",
        binary.display()
    );
    let data = arguments
        .data
        .clone()
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/load"));
    std::fs::create_dir_all(&data).with_context(|| format!("making {}", data.display()))?;
    let mut cases = Vec::new();
    for experiment in experiment::all(&arguments.cases)? {
        if arguments.only.as_ref().is_some_and(|only| *only != experiment.name) {
            continue;
        }
        cases.push(case(&experiment, &arguments, &binary, &data).await?);
    }
    ensure!(!cases.is_empty(), "no case to run under {}", arguments.cases.display());
    report::write(&arguments.results, &machine::facts(&data)?, &cases)?;
    Ok(cases.iter().flat_map(|case| &case.runs).all(RunResult::passed))
}

async fn case(experiment: &Experiment, arguments: &Arguments, binary: &Path, data: &Path) -> Result<CaseResult> {
    let mut runs = Vec::new();
    for (number, run) in experiment.run.iter().enumerate() {
        let seconds = arguments.seconds.unwrap_or(run.seconds);
        let context = || format!("{} {}", experiment.name, run.name);
        let result = one(experiment, number, run, seconds, binary, data)
            .await
            .with_context(context)?;
        report::announce(&experiment.name, &result);
        runs.push(result);
    }
    Ok(CaseResult {
        experiment: experiment.clone(),
        runs,
    })
}

/// One run against a fresh server.
async fn one(
    experiment: &Experiment,
    number: usize,
    run: &experiment::Run,
    seconds: u64,
    binary: &Path,
    data: &Path,
) -> Result<RunResult> {
    let server = server::Server::start(binary, data).await?;
    let batches = Arc::new(events::Batches::new(experiment, number)?);
    let begun = Instant::now();
    let sent = generator::drive(&server, experiment, run, seconds, batches).await?;
    let acknowledged = begun.elapsed();
    let books = loop {
        let books = server.books().await?;
        if books.in_flight == 0 || begun.elapsed() > acknowledged + CATCH_UP {
            break books;
        }
        tokio::time::sleep(POLL).await;
    };
    let caught_up = begun.elapsed();
    let peak_memory_bytes = server.peak_memory_bytes();
    let directory = server.stop().await?;
    let past = past::look(binary, directory.path()).await?;
    Ok(RunResult::new(
        run,
        seconds,
        &sent,
        &books,
        [acknowledged, caught_up],
        peak_memory_bytes,
        past,
    ))
}

fn beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("finding this program")?;
    Ok(this.with_file_name("vigie"))
}
