//! Topics of others (`[[kafka-sources]]`), read by every collector: each source is started, watched, counted, and started
//! again when its brokers did not want it. A gap needs a decision, so it stays stopped and says so.
//!
//! It never looks into a record: `vigie_kafka::source` does.

use crate::backends::{self, AnyLog};
use crate::bounds;
use crate::clocks::Clock;
use crate::config::Config;
use std::future::Future;
use std::time::Duration;
use vigie_ingestion::intake::Intake;
use vigie_kafka::Connection;
use vigie_kafka::source::{Source, SourceError, SourceOptions, SourceStatus};
use vigie_telemetry::Metrics;

/// Time between two looks at a source.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// First pause before a source that the brokers refused is started again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One source and what it needs.
pub(crate) struct Watched {
    connection: Connection,
    options: SourceOptions,
    intake: Intake<AnyLog>,
    clock: Clock,
    metrics: Metrics,
}

/// The sources of a configuration.
pub(crate) fn of(config: &Config, intake: &Intake<AnyLog>, clock: &Clock, metrics: &Metrics) -> Vec<Watched> {
    let watched = |options: &SourceOptions| Watched {
        connection: backends::connection(config),
        options: SourceOptions {
            limits: bounds::limits(config),
            ..options.clone()
        },
        intake: intake.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let sources = config.kafka_sources.iter();
    sources.map(|source| watched(&source.options)).collect()
}

impl Watched {
    /// Reads until `stop`; the batch at hand is made durable then.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Source::start(
                &self.connection,
                self.options.clone(),
                self.intake.clone(),
                self.clock.clone(),
            );
            let ended = match started {
                Ok(source) => {
                    let mut seen = SourceStatus::default();
                    tokio::select! {
                        () = self.follow(&source, &mut seen) => {}
                        () = &mut stop => {
                            let last = source.stop().await;
                            return self.count(&seen, &last);
                        }
                    }
                    let last = source.stop().await;
                    self.count(&seen, &last);
                    if last.records > 0 {
                        pause = FIRST_PAUSE;
                    }
                    let Some(error) = last.stopped else { continue };
                    error
                }
                Err(error) => error,
            };
            let name = self.options.name.as_str();
            self.metrics.source.state(name, 0, false);
            if let SourceError::Gap { .. } = ended {
                tracing::error!(source = name, "{ended}");
                return stop.await;
            }
            tracing::warn!(source = name, ?pause, "stopped, and starts again: {ended}");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut stop => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Counts what it does until it stops by itself.
    async fn follow(&self, source: &Source, seen: &mut SourceStatus) {
        loop {
            let status = source.status();
            self.count(seen, &status);
            let lag = status.partitions.values().map(|progress| progress.lag()).sum();
            let well = status.stopped.is_none();
            self.metrics.source.state(&self.options.name, lag, well);
            *seen = status;
            if !well {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn count(&self, seen: &SourceStatus, now: &SourceStatus) {
        let (name, metrics) = (self.options.name.as_str(), &self.metrics);
        let read = |outcome, count: u64| metrics.source.read(name, outcome, count);
        read("event", now.events.saturating_sub(seen.events));
        read("dead_letter", now.dead_letters.saturating_sub(seen.dead_letters));
        read("tombstone", now.tombstones.saturating_sub(seen.tombstones));
        let bytes = now.bytes.saturating_sub(seen.bytes);
        metrics
            .source
            .worked(name, bytes, now.retries.saturating_sub(seen.retries));
    }
}
