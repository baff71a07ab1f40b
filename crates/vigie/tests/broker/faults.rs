//! The ordeals in a few rounds; `tests/long` has them in the numbers that count.

use crate::ordeals;

#[test]
fn f32_workers_that_come_and_go_lose_nothing() {
    ordeals::rebalances(4);
}

#[test]
fn f33_workers_that_wake_up_late_write_nothing() {
    ordeals::zombies(3);
}

#[test]
fn f21_a_redis_that_fails_over_and_forgets_costs_nothing() {
    ordeals::failovers(3);
}

#[test]
fn f30_a_broker_that_is_killed_again_and_again_costs_nothing() {
    ordeals::bounces(4);
}

#[test]
fn f36_a_backlog_is_caught_up_beside_live_traffic() {
    ordeals::backlog(5_000);
}

#[test]
fn f48_a_customer_with_half_of_all_traffic_stays_small() {
    ordeals::hot_customer(4_000);
}
