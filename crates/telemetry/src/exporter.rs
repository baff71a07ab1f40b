//! The registry of one server and its `/metrics` page.
//!
//! It is not global: whoever counts is handed [`Metrics`]. It never spawns anything; the binary calls
//! [`Exporter::upkeep`] every five seconds, because samples of histograms are buffered until then (BOUND-1).

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::catalogue::{self, Kind, Metric};
use crate::handles::Metrics;
use crate::stopwatch::Stopwatch;

/// What `vigie_build_info` says.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// Version of the binary.
    pub version: &'static str,
    /// Revision of the source that it was built from, or `unknown`.
    pub revision: &'static str,
}

/// The registry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter refused the catalogue: a defect of this crate, not of its use.
    #[error("metric catalogue refused by the exporter")]
    Exporter(#[from] metrics_exporter_prometheus::BuildError),
    /// The log level or filter could not be understood.
    #[error("log filter not understood")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Logging was already set up in this process.
    #[error("logging is already set up")]
    Logging(#[from] tracing_subscriber::util::TryInitError),
}

impl TelemetryError {
    /// Stable name of the variant, for logs and metrics.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match self {
            TelemetryError::Exporter(_) => "exporter",
            TelemetryError::Filter(_) => "filter",
            TelemetryError::Logging(_) => "logging",
        }
    }
}

/// The registry of one server. Cloning it gives another handle on the same registry.
#[derive(Clone)]
pub struct Exporter {
    registry: Arc<Registry>,
    process: metrics_process::Collector,
}

/// Where handles are registered: a real registry, or nowhere.
pub(crate) struct Registry {
    sink: Option<(PrometheusRecorder, PrometheusHandle)>,
}

impl Exporter {
    /// Builds a registry that knows the catalogue and nothing else.
    ///
    /// # Errors
    /// [`TelemetryError::Exporter`] when a histogram of the catalogue has no buckets.
    pub fn new(build: BuildInfo) -> Result<Exporter, TelemetryError> {
        let mut builder = PrometheusBuilder::new();
        for metric in catalogue::METRICS {
            // Without buckets the exporter would write summaries, which cannot be aggregated over instances.
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let registry = Registry {
            sink: Some((recorder, handle)),
        };
        for metric in catalogue::METRICS {
            registry.describe(metric);
        }
        registry
            .gauge(
                &catalogue::BUILD_INFO,
                &[("version", build.version), ("revision", build.revision)],
            )
            .set(1.0);
        Ok(Exporter {
            registry: Arc::new(registry),
            process: metrics_process::Collector::default(),
        })
    }

    /// Registers the handles. Calling it twice gives handles on the same series.
    #[must_use]
    pub fn metrics(&self, stopwatch: Stopwatch) -> Metrics {
        Metrics::register(&self.registry, stopwatch)
    }

    /// The page that Prometheus scrapes, in the text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let Some((recorder, handle)) = &self.registry.sink else {
            return String::new();
        };
        metrics::with_local_recorder(recorder, || self.process.collect());
        handle.render()
    }

    /// Folds the buffered samples of histograms into their buckets. Call it every five seconds.
    pub fn upkeep(&self) {
        if let Some((_, handle)) = &self.registry.sink {
            handle.run_upkeep();
        }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl Registry {
    /// A registry that counts nothing.
    pub(crate) fn disabled() -> Arc<Registry> {
        Arc::new(Registry { sink: None })
    }

    pub(crate) fn counter(&self, metric: &'static Metric, labels: &[(&'static str, &str)]) -> Counter {
        match &self.sink {
            Some((recorder, _)) => recorder.register_counter(&key(metric, labels), &METADATA),
            None => Counter::noop(),
        }
    }

    pub(crate) fn gauge(&self, metric: &'static Metric, labels: &[(&'static str, &str)]) -> Gauge {
        match &self.sink {
            Some((recorder, _)) => recorder.register_gauge(&key(metric, labels), &METADATA),
            None => Gauge::noop(),
        }
    }

    pub(crate) fn histogram(&self, metric: &'static Metric, labels: &[(&'static str, &str)]) -> Histogram {
        match &self.sink {
            Some((recorder, _)) => recorder.register_histogram(&key(metric, labels), &METADATA),
            None => Histogram::noop(),
        }
    }

    fn describe(&self, metric: &'static Metric) {
        let Some((recorder, _)) = &self.sink else { return };
        let (name, help) = (
            KeyName::from_const_str(metric.name),
            SharedString::const_str(metric.help),
        );
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
    }
}

static METADATA: Metadata<'static> = Metadata::new("vigie", metrics::Level::INFO, None);

fn key(metric: &'static Metric, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(
        labels.len() == metric.labels.len() && labels.iter().all(|(name, _)| metric.label(name).is_some()),
        "labels of {} differ from the catalogue",
        metric.name
    );
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(metric.name, labels)
}
