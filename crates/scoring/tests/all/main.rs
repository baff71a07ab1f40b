//! All tests of the crate that need no data from outside: one binary, so that it links once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, its helpers too"
)]

mod adjust;
mod btyd;
mod cited;
mod crossing;
mod expected;
mod fitted;
mod generate;
mod golden_bytes;
mod laws;
mod lints;
mod oracle;
mod people;
mod scores;
mod speed;
mod trees;
mod watch;
mod worth;
