//! The tests that need more than a compiler: a browser, and the real client libraries of other houses. They run with the
//! feature `long`; `chromium` must be on the path, and `pip` must reach its index.
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
mod clients;
mod running;
