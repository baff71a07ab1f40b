//! The tests that need a browser: our own tracker and the browser libraries of other houses in headless Chromium. They run
//! with the feature `long`; `chromium` must be on the path.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    dead_code,
    reason = "a test fails by panicking, and the bench is shared with tests that use more of it"
)]

#[path = "../all/bench.rs"]
mod bench;
mod browser;
mod libraries;
#[path = "../all/running.rs"]
mod running;
