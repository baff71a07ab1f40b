//! The pipeline as a whole, over memory: scenarios in text, order and repetition, crashes, silence, activations. Everything
//! runs the worker that production runs; only the log, the store and the clock are in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking, in the functions that it calls too"
)]

mod activation;
mod arrivals;
mod crash;
mod order;
mod poison;
mod replay;
mod scenarios;
mod silence;
mod simulation;
mod support;
