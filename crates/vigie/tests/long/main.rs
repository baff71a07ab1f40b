//! Faults in numbers: the long halves of F01, F03, F04, F21, F30, F32 and F33. They take minutes each and are run by
//! `make test-long`; F04 needs root and loop devices, the last four a broker, which `make` builds first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it measured, in the functions that it calls too"
)]

#[path = "../../../kafka/tests/all/broker.rs"]
#[allow(dead_code, reason = "shared with crates/kafka, which uses all of it")]
mod broker;
#[allow(dead_code, reason = "shared with tests/broker, which uses the rest")]
#[path = "../broker/ordeals.rs"]
mod ordeals;
#[allow(dead_code, reason = "shared with tests/faults, which uses the rest")]
#[path = "../faults/power.rs"]
mod power;
#[path = "../../../store/tests/all/redis/server.rs"]
mod redis;
#[allow(dead_code, reason = "shared with tests/all, which uses the rest")]
#[path = "../all/rig/mod.rs"]
mod rig;
#[allow(dead_code, reason = "shared with tests/broker, which uses the rest")]
#[path = "../broker/site.rs"]
mod site;
#[allow(dead_code, reason = "shared with tests/all, which uses the rest")]
#[path = "../all/support.rs"]
mod support;
#[path = "../all/workload.rs"]
mod workload;

use power::power_cuts;
use rig::scenario::{Plan, Scenario};
use rig::strace::{kill_at_system_calls, kill_while_recovering};

fn prepared(events_of_a_request: usize) -> (u64, Scenario) {
    let seed = support::seed();
    println!("replay with VIGIE_TEST_SEED={seed}");
    let plan = Plan {
        batch: events_of_a_request,
        ..Plan::of(seed)
    };
    (seed, Scenario::prepare(plan, &[]))
}

#[test]
fn a_thousand_deaths_at_system_calls_lose_nothing_and_count_nothing_twice() {
    // Small requests: each has system calls of its own.
    let (seed, scenario) = prepared(3);
    let _verdicts = kill_at_system_calls(&scenario, seed, 1_000);
}

#[test]
fn a_hundred_rows_of_deaths_while_recovering_change_nothing() {
    let (seed, scenario) = prepared(20);
    let _verdicts = kill_while_recovering(&scenario, seed, 100);
}

#[test]
fn five_hundred_power_cuts_lose_nothing_that_was_acknowledged() {
    let (seed, scenario) = prepared(20);
    let _verdicts = power_cuts(&scenario, seed, 500);
}

#[test]
fn three_hundred_rebalances_lose_nothing() {
    ordeals::rebalances(300);
}

#[test]
fn a_hundred_workers_that_wake_up_late_write_nothing() {
    ordeals::zombies(100);
}

#[test]
fn fifty_fail_overs_of_the_redis_cost_nothing() {
    ordeals::failovers(50);
}

#[test]
fn a_hundred_deaths_of_the_broker_cost_nothing() {
    ordeals::bounces(100);
}

#[test]
fn a_backlog_of_two_hundred_thousand_events_is_caught_up() {
    ordeals::backlog(200_000);
}
