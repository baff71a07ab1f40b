//! The quality of the default model on real purchases, by the commands that a user types: `vigie import` into a server, then
//! `vigie backtest` from its archive. The data are not part of the repository: `VIGIE_SHARED` names the directory with
//! `data/` (`make test-data`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it measured, in the functions that it calls too"
)]

#[allow(dead_code, reason = "shared with tests/all, which uses the rest")]
#[path = "../all/support.rs"]
mod support;

use serde_json::Value;
use std::path::PathBuf;
use support::{Server, run};

/// One of the two published tasks, with what the best of twenty reference models reaches in each metric.
struct Task {
    file: &'static str,
    mapping: &'static str,
    tests: [&'static str; 3],
    /// Lines that the mapping leaves out.
    skipped: u64,
    auc: f64,
    log_loss: f64,
    ece: f64,
}

fn shared(file: &str) -> String {
    let root = std::env::var_os("VIGIE_SHARED").expect("set VIGIE_SHARED to the directory that holds data/");
    PathBuf::from(root).join("data").join(file).display().to_string()
}

fn measure(task: &Task) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mapping = dir.path().join("mapping.toml");
    std::fs::write(&mapping, task.mapping).unwrap();
    let mut server = Server::start(&data, &[]);
    let (file, mapping) = (shared(task.file), mapping.display().to_string());
    let refused = dir.path().join("refused.jsonl").display().to_string();
    let args = [
        "import",
        &file,
        "--mapping",
        &mapping,
        "--refused",
        &refused,
        "--url",
        &server.url,
        "--output",
        "json",
    ];
    let imported = run(&[&args[..], &["--key", &server.keys.history]].concat());
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let balance: Value = serde_json::from_str(&imported.stdout).unwrap();
    println!("{}: {}", task.file, balance["lines"]);
    assert_eq!(balance["lines"]["skipped"].as_u64(), Some(task.skipped));
    assert_eq!(Some(server.settled().applied), balance["lines"]["sent"].as_u64());
    server.process.terminate();
    assert!(server.process.ended("the server's stop").success());

    let archive = data.display().to_string();
    let mut args = vec![
        "backtest",
        "--data-dir",
        &archive,
        "--model",
        "default",
        "--model",
        "mbg-nbd",
        "--output",
        "json",
    ];
    args.extend(task.tests.iter().flat_map(|test| ["--test", test]));
    let measured = run(&args);
    assert_eq!(measured.code, Some(0), "{measured:?}");
    let measured: Value = serde_json::from_str(&measured.stdout).unwrap();
    let of = |model: usize, name: &str| measured["models"][model]["mean"][name].as_f64().unwrap();
    for model in 0..2 {
        let name = &measured["models"][model]["model"];
        let (auc, log_loss, ece) = (of(model, "auc"), of(model, "log_loss"), of(model, "ece"));
        println!(
            "{} {name}: AUC {auc:.4}, log loss {log_loss:.4}, ECE {ece:.4}",
            task.file
        );
    }
    assert!(of(0, "auc") >= task.auc && of(0, "log_loss") <= task.log_loss && of(0, "ece") <= task.ece);
}

#[test]
fn cdnow_by_import_and_backtest() {
    measure(&Task {
        file: "cdnow/cdnow_master.csv.gz",
        mapping: "time = \"date\"\ncurrency = \"USD\"\nquantity = \"cds\"\n",
        tests: ["1997-10-01", "1998-01-01", "1998-04-01"],
        skipped: 0,
        auc: 0.711,
        log_loss: 0.598,
        ece: 0.030,
    });
}

#[test]
fn online_retail_by_import_and_backtest() {
    measure(&Task {
        file: "online_retail_ii/events.csv.gz",
        mapping: "time = \"ts\"\nsignal-column = \"event\"\ncurrency = \"GBP\"\norder = \"invoice\"\nquantity = \"items\"\nproperties = [\"country\"]\n",
        tests: ["2011-03-01", "2011-06-01", "2011-09-01"],
        skipped: 0,
        auc: 0.778,
        log_loss: 0.566,
        ece: 0.058,
    });
}
