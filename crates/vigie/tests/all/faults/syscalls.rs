//! F01 and F03, fast: the process is killed at system calls under load, and again while it recovers.

use crate::rig::scenario::{Plan, Scenario};
use crate::rig::strace::{kill_at_system_calls, kill_while_recovering};
use crate::support::seed;

#[test]
fn sixty_deaths_at_system_calls_lose_nothing_and_count_nothing_twice() {
    let seed = seed();
    println!("replay with VIGIE_TEST_SEED={seed}");
    let scenario = Scenario::prepare(Plan::of(seed), &[]);
    let _verdicts = kill_at_system_calls(&scenario, seed, 60);
}

#[test]
fn ten_rows_of_deaths_while_recovering_change_nothing() {
    let seed = seed();
    println!("replay with VIGIE_TEST_SEED={seed}");
    let scenario = Scenario::prepare(Plan::of(seed), &[]);
    let _verdicts = kill_while_recovering(&scenario, seed, 10);
}
