//! The one integration-test binary: everything that looks at the program, or at the repository, from outside. It never
//! repeats what the tests of a single crate prove.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it measured, in the functions that it calls too"
)]

mod api;
mod backends;
mod bad_inputs;
mod base;
mod cdnow;
mod clients;
mod deliveries;
mod demo;
mod deploy;
mod doors;
mod edges;
mod faults;
mod import;
mod kill;
mod lifecycle;
mod models;
mod operations;
mod past;
mod people;
mod readme;
mod relance;
mod replay;
mod repository;
mod rig;
mod silence;
mod support;
mod tidy;
mod workload;
