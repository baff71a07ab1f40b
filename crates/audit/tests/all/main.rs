//! The oracle against the pipeline: the same log through both, compared byte for byte, and every kind of difference found.
//! The pipeline is the one that production runs, over a log and a store in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails by panicking, in the functions that it calls too, and prints its seed"
)]

mod blindness;
mod bounds;
mod courses;
mod dice;
mod equal;
mod proxy;
mod redis;
mod reloads;
#[path = "../../../store/tests/all/redis/server.rs"]
mod server;
mod support;
mod workload;
