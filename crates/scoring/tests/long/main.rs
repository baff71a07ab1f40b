//! Tests that need the network (`make test-long`): LightGBM and XGBoost are installed into a directory of the test's own,
//! train, and answer for 1,000 rows; the tree reader must agree.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, its helpers too"
)]

#[allow(dead_code, reason = "shared with tests/all, which uses the rest")]
#[path = "../all/trees.rs"]
mod trees;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that is removed with its value.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ran(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}

#[test]
fn the_packages_themselves_agree() {
    let dir = Dir(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trees-{}", std::process::id())));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/fixtures/trees");
    let python = dir.0.join("python");
    ran(Command::new("python3").args(["-m", "venv"]).arg(&python));
    let interpreter = python.join("bin/python");
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ];
    ran(Command::new(&interpreter)
        .args(install)
        .arg(fixtures.join("requirements.txt")));
    ran(Command::new(&interpreter).arg(fixtures.join("generate.py")).arg(&dir.0));
    let read = |name: &str| std::fs::read(dir.0.join(name)).unwrap();
    let (sums, contributions) = trees::deviations(&read("lightgbm.txt.gz"), &read("lightgbm.csv.gz"));
    assert!(
        sums < 1e-9 && contributions < 1e-9,
        "LightGBM: {sums:e} {contributions:e}"
    );
    // XGBoost computes its contributions in single precision: no double can agree with them any better.
    let (sums, contributions) = trees::deviations(&read("xgboost.json.gz"), &read("xgboost.csv.gz"));
    assert!(
        sums == 0.0 && contributions < 1e-5,
        "XGBoost: {sums:e} {contributions:e}"
    );
    // By the definition, over all subsets of features, in double precision.
    let (_, contributions) = trees::deviations(&read("xgboost.json.gz"), &read("xgboost-exact.csv.gz"));
    assert!(contributions < 1e-9, "by definition: {contributions:e}");
}
