//! Telemetry: the catalogue of metrics, the handles that count, the log set-up, and the dashboards and alert rules
//! generated from the catalogue.
//!
//! It never knows what a customer, a score or a flag is, never imports a domain crate, never reads a clock (durations
//! are measured with a [`Stopwatch`] that the binary winds), and never puts an id of a person into a label.
//!
//! How the parts fit:
//!
//! - [`catalogue`] declares every metric once: name, kind, unit, labels with their values, meaning, and what to do when
//!   it moves. A name that is not in it cannot be counted, drawn or alerted on.
//! - [`Exporter`] holds the registry of one server. It is not global, so a process may hold several (tests do).
//! - [`Metrics`] are the handles, registered at start and passed to the parts that count. They count per batch.
//! - [`Behind`] turns two counters into the age of what lies between them; [`page`] reads an exported page again.
//! - [`logging`] writes one event as one line, with control characters escaped.
//! - [`dashboards`] generates `dashboards/` at the root of the repository; a test keeps the committed files equal.
//!
//! ```
//! use std::time::Duration;
//! use vigie_telemetry::{BuildInfo, Exporter, Outcome, Stopwatch};
//!
//! let exporter = Exporter::new(BuildInfo { version: "0.1.0", revision: "unknown" })?;
//! let metrics = exporter.metrics(Stopwatch::stopped());
//! metrics.events.accepted("acme", 2);
//! metrics.events.outcome("acme", Outcome::Applied, 2);
//! metrics.log.fsync(Duration::from_millis(4));
//! exporter.upkeep();
//! assert!(exporter.render().contains(r#"vigie_events_accepted_total{workspace="acme"} 2"#));
//! # Ok::<(), vigie_telemetry::TelemetryError>(())
//! ```

mod behind;
pub mod catalogue;
pub mod dashboards;
mod exporter;
mod family;
mod handles;
pub mod logging;
pub mod page;
mod portfolio;
mod stopwatch;

pub use behind::Behind;
pub use exporter::{BuildInfo, Exporter, TelemetryError};
pub use handles::{
    ArchiveMetrics, AuditMetrics, AuditVerdict, CalibrationMetrics, CanaryMetrics, Cause, Decision, Delivered,
    DeliveryMetrics, DiskMetrics, EventMetrics, FlagEnd, HttpMetrics, Judged, LogMetrics, Metrics, ModelMetrics,
    Outcome, PipelineMetrics, RefusalReason, RelanceMetrics, StatusClass, StoreMetrics,
};
pub use portfolio::{Portfolio, PortfolioMetrics, Tiers};
pub use stopwatch::{Lap, Stopwatch};
