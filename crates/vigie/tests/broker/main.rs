//! The product on Kafka and Redis, in several processes: a broker, a Redis and every role, all started here. What a broker
//! may do to a log is proved in crates/kafka; here the roles must add up to one system.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, in the functions that it calls too"
)]

#[path = "../../../kafka/tests/all/broker.rs"]
#[allow(dead_code, reason = "shared with crates/kafka, which uses all of it")]
mod broker;
#[path = "../../../store/tests/all/redis/server.rs"]
mod redis;
mod roles;
#[path = "../all/support.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod support;
