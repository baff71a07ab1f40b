//! Faults that need root: power loss on a file system of the test's own (F04), and a file system that is full (F08). They
//! mount and unmount only what they made, and fail, saying "not measured", where they may not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it measured, in the functions that it calls too"
)]

mod full;
mod power;
#[allow(dead_code, reason = "shared with tests/all, which uses the rest")]
#[path = "../all/rig/mod.rs"]
mod rig;
#[allow(dead_code, reason = "shared with tests/all, which uses the rest")]
#[path = "../all/support.rs"]
mod support;
#[path = "../all/workload.rs"]
mod workload;

use power::{power_cuts, power_cuts_without_fsync};
use rig::scenario::{Plan, Scenario};

fn prepared() -> (u64, Scenario) {
    let seed = support::seed();
    println!("replay with VIGIE_TEST_SEED={seed}");
    (seed, Scenario::prepare(Plan::of(seed), &[]))
}

#[test]
fn forty_power_cuts_lose_nothing_that_was_acknowledged() {
    let (seed, scenario) = prepared();
    let _verdicts = power_cuts(&scenario, seed, 40);
}

/// If this finds nothing, the test above is blind.
#[test]
fn power_cuts_lose_data_when_fdatasync_is_left_out() {
    const CYCLES: usize = 20;
    let (seed, scenario) = prepared();
    let lost = power_cuts_without_fsync(&scenario, seed, CYCLES);
    assert!(lost * 100 >= CYCLES * 95, "{lost} of {CYCLES}");
}
