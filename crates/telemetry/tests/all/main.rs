//! The metric catalogue and what is generated from it, against the real tools: Prometheus evaluates every panel over a live
//! exporter, promtool makes every alert fire and not fire, and the sources show that every metric is recorded.

mod alerts;
mod committed;
mod dashboards;
mod exporter;
mod expressions;
mod prometheus;
mod recorded;
