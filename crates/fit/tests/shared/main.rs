//! Tests against the full data and golden files, which are not part of the repository. The environment variable
//! `VIGIE_SHARED` names the directory that holds `data/` and `goldens/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, its helpers too"
)]

mod files;
mod goldens;
mod tasks;
