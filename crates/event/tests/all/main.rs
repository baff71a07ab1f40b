//! Tests of the vocabulary through its public face: JSON shape, schema, record bytes. No other crate takes part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking, in the functions that it calls too"
)]

mod json;
mod records;
