//! Load tests: start the real binary on an empty directory, send it events, and let a run pass only if every acknowledged event
//! is in the books (BOOKS-1) and the audit finds the store equal to the archive (FOLD-1). How fast a replay and an audit of what
//! a run left behind are is measured on the way.
//!
//! The generator is open-loop: request n is due at `start + n × interval`, whatever the server does, and its latency counts
//! from then, so a stalled server cannot hide its stall by slowing the generator (no "coordinated omission").
//!
//! `cargo run --release -p vigie-load-tests` runs every case under `cases/` and writes `RESULTS.md` (the targets of
//! `targets.toml` first) and `results.json`. Everything shares one machine: the figures are for comparing, not for boasting.

mod broker;
mod cases;
mod client;
mod events;
mod experiment;
mod generator;
mod machine;
mod past;
mod peers;
mod process;
mod profile;
mod redis;
mod report;
mod requests;
mod server;
mod targets;

use anyhow::{Context, Result, ensure};
use cases::House;
use clap::Parser;
use report::{CaseResult, RunResult};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the load tests.
#[derive(Debug, Parser)]
struct Arguments {
    /// The vigie binary; by default the one beside this program.
    #[arg(long, env = "VIGIE_BINARY")]
    binary: Option<PathBuf>,
    /// Directory of the cases.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/cases"))]
    cases: PathBuf,
    /// Run only the cases of these names, separated by commas. RESULTS.md then holds them alone.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Profile the worker as well. The profiler takes up to a core of its own: rates of such a run are too low.
    #[arg(long)]
    profile: bool,
    /// Shorten every run to so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Where data directories are made; a disk, not a memory file system.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the results are written.
    #[arg(long, default_value = env!("CARGO_MANIFEST_DIR"))]
    results: PathBuf,
    /// Kafka to measure with, host:port; by default a tansu of its own.
    #[arg(long)]
    broker: Option<String>,
}

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
    let house = House {
        binary,
        data,
        profile: arguments.profile,
        seconds: arguments.seconds,
        broker: arguments.broker.clone(),
    };
    let targets = targets::read(&arguments.cases.with_file_name("targets.toml"))?;
    let mut cases: Vec<CaseResult> = Vec::new();
    for experiment in experiment::all(&arguments.cases)? {
        if arguments.only.is_empty() || arguments.only.contains(&experiment.name) {
            cases.push(experiment.measure(&house).await?);
            // Whoever stops it half way keeps what is known by then.
            report::write(&arguments.results, &machine::facts(&house.data)?, &cases, &targets)?;
        }
    }
    ensure!(!cases.is_empty(), "no case to run under {}", arguments.cases.display());
    Ok(cases.iter().flat_map(|case| &case.runs).all(RunResult::passed))
}

fn beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("finding this program")?;
    Ok(this.with_file_name("vigie"))
}
