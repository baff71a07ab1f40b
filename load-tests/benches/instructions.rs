//! How many instructions one call takes, counted by valgrind: the same on a busy machine as on a quiet one, so that a change that
//! makes an event dearer is seen. `make bench` compares with `instructions.toml`; `UPDATE_EXPECT=1 make bench` writes it.
//!
//! A call is counted as the difference between a process that makes many of them and one that makes few, so that starting
//! does not count. Counts depend on the compiler: with another one than the file names, nothing is judged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark fails by panicking, and prints"
)]

mod work;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Calls of the two processes.
const FEW: u64 = 10;
const MANY: u64 = 210;
/// A count may grow by so much before it is a regression, and shrink by so much before the file is out of date.
const TOLERANCE: f64 = 0.03;
/// Names the call in the process that is counted.
const CALL: &str = "VIGIE_COUNTED_CALL";

/// `instructions.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Counts {
    /// `rustc --version`.
    compiler: String,
    /// Instructions of one call.
    instructions: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    if let Ok(call) = std::env::var(CALL) {
        let (times, name) = call.split_once(' ').unwrap();
        make(name, times.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml");
    let expected: Counts = match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).unwrap(),
        Err(_) => Counts::default(),
    };
    let mut found = Counts {
        compiler: said("rustc", &["--version"]).unwrap_or_default(),
        ..Counts::default()
    };
    if said("valgrind", &["--version"]).is_none() {
        println!("instructions: not counted, there is no valgrind");
        return ExitCode::SUCCESS;
    }
    let same = expected.compiler == found.compiler;
    let mut worse = 0;
    for (name, _) in work::all() {
        let count = (counted(name, MANY) - counted(name, FEW)) / (MANY - FEW);
        let before = expected.instructions.get(name).copied();
        let change = before.map_or(0.0, |before| count as f64 / before as f64 - 1.0);
        let verdict = match before {
            None => "new".to_owned(),
            Some(_) if change.abs() <= TOLERANCE => "as before".to_owned(),
            Some(before) => format!("{:+.1} % against {before}", change * 100.0),
        };
        worse += u32::from(same && change > TOLERANCE);
        println!("{count:>12} instructions  {name}: {verdict}");
        let _ = found.instructions.insert(name.to_owned(), count);
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, toml::to_string(&found).unwrap()).unwrap();
        return ExitCode::SUCCESS;
    }
    if !same {
        println!(
            "instructions: compared with counts of {:?}, nothing is judged",
            expected.compiler
        );
    }
    ExitCode::from(u8::from(worse > 0))
}

fn make(name: &str, times: u64) {
    let (_, mut call) = work::all().into_iter().find(|(call, _)| *call == name).unwrap();
    for _ in 0..times {
        call();
    }
}

/// Instructions of a process that makes a call so many times.
fn counted(name: &str, times: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .env(CALL, format!("{times} {name}"))
        .stdout(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = collected.unwrap_or_else(|| panic!("valgrind said: {text}"));
    count.trim().parse().unwrap()
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(said)
}
