//! One target of `targets.rs`, which the variable `VIGIE_FUZZ` names, driven by libFuzzer. `.ci/fuzz` builds and runs it.
#![no_main]

#[path = "../../tests/all/bench.rs"]
#[allow(dead_code)]
mod bench;
#[allow(dead_code)]
mod targets;

use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("VIGIE_FUZZ").unwrap_or_default();
    let names: Vec<_> = targets::TARGETS.iter().map(|target| target.name).collect();
    let found = targets::TARGETS.iter().find(|target| target.name == wanted);
    found.unwrap_or_else(|| panic!("VIGIE_FUZZ names one of {}", names.join(" "))).run
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| RUN(bytes));
