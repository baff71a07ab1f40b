//! The one integration-test binary: everything that looks at the program, or at the repository, from outside. It never
//! repeats what the tests of a single crate prove.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, in the functions that it calls too"
)]

mod api;
mod cdnow;
mod demo;
mod edges;
mod kill;
mod lifecycle;
mod readme;
mod repository;
mod silence;
mod support;
mod tidy;
