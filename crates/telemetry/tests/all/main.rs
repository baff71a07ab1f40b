//! The metric catalogue and what is generated from it, against the real tools: Prometheus evaluates every panel over a live
//! exporter, promtool makes every alert fire and not fire, and the sources show that every metric is recorded.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, in the functions that it calls too"
)]

mod alerts;
mod committed;
mod dashboards;
mod exporter;
mod expressions;
mod prometheus;
mod recorded;
