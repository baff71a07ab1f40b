//! The raw events into a new log of their own, at their own pace or faster: for a staging server, or to try another
//! release on real traffic. It writes into an empty directory only, and never into a log that exists.
//!
//! The bytes of each event are those of the original log. `received_at` stays as it was, since it is what every score and
//! every session rests on: the same events at the same times give the same scores. A staging server that is to show
//! customers of today wants `--shift-to-now`, which moves all times of all events by one amount.
//!
//! What the original worker derived (links, merges, forwards, ticks) is left out: the server that reads the log derives it
//! anew. But a log has to begin with a model and policies in every partition, so one activation comes first.

use super::run::{Configuration, progress};
use super::source::{Dated, Selection, Source};
use crate::clocks;
use crate::keyfile;
use anyhow::{Context, Result};
use bytes::Bytes;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;
use vigie_event::{Body, Control, Partition, Record, Timestamp, partition_for};
use vigie_ingestion::log::{EmbeddedLog, Log, Options};

/// Records and bytes of one append at most.
const APPEND: (usize, usize) = (5_000, 4 << 20);

/// How fast events follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Speed {
    /// As fast as the log takes them.
    Max,
    /// So many times as fast as they were received.
    Times(f64),
}

impl std::str::FromStr for Speed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().trim_end_matches('x').parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Self::Times(times)),
            _ => Err("a number above 0, such as 10, or max"),
        }
    }
}

/// What to republish, and how.
pub(super) struct Publication<'a> {
    pub(super) source: &'a Source,
    pub(super) selection: &'a Selection,
    pub(super) from: Option<Timestamp>,
    pub(super) to: Timestamp,
    /// Put in force at the beginning.
    pub(super) configuration: &'a Configuration,
    pub(super) dir: &'a Path,
    pub(super) speed: Speed,
    pub(super) shift_to_now: bool,
}

/// What was republished.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Received, as in the new log.
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    /// By how much all times were moved.
    pub(super) shift_ms: i64,
    pub(super) took: Duration,
}

impl Publication<'_> {
    pub(super) async fn run(self) -> Result<Published> {
        let stopwatch = clocks::stopwatch();
        let bar = progress(self.source.rows());
        let mut published = Published::default();
        let mut log: Option<EmbeddedLog> = None;
        let mut reader = self.source.events(self.selection, self.to, true, true);
        let mut waiting: Vec<(Partition, Bytes)> = Vec::new();
        let mut size = 0;
        let mut shown = 0;
        while let Some((flush, rows)) = reader.next().await? {
            for dated in flush {
                if self.from.is_some_and(|from| dated.event.received_at < from) {
                    continue;
                }
                let (received_at, clock) = (dated.event.received_at, dated.clock);
                // The log is made when there is something to put into it.
                let log = match &mut log {
                    Some(log) => log,
                    None => {
                        published.first = Some(received_at);
                        if self.shift_to_now {
                            published.shift_ms = clocks::now().ms_since(received_at);
                        }
                        log.insert(self.create(received_at.plus_ms(published.shift_ms)).await?)
                    }
                };
                if let (Speed::Times(times), Some(first)) = (self.speed, published.first) {
                    let due = Duration::from_secs_f64(clock.ms_since(first).max(0) as f64 / 1000.0 / times);
                    let early = due.saturating_sub(stopwatch.now());
                    if !early.is_zero() {
                        append(log, &mut waiting).await?;
                        size = 0;
                        tokio::time::sleep(early).await;
                    }
                }
                let (partition, bytes) = self.record(dated, published.shift_ms);
                published.events += 1;
                published.bytes += bytes.len() as u64;
                published.last = published.last.max(Some(received_at));
                size += bytes.len();
                waiting.push((partition, bytes));
                if waiting.len() >= APPEND.0 || size >= APPEND.1 {
                    append(log, &mut waiting).await?;
                    size = 0;
                }
            }
            bar.inc(rows.saturating_sub(shown));
            shown = rows;
        }
        if let Some(log) = &log {
            append(log, &mut waiting).await?;
        }
        bar.finish_and_clear();
        let moved = |at: Timestamp| at.plus_ms(published.shift_ms);
        published.first = published.first.map(moved);
        published.last = published.last.map(moved);
        published.took = stopwatch.now();
        Ok(published)
    }

    async fn create(&self, at: Timestamp) -> Result<EmbeddedLog> {
        let dir = self.dir;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| dir.display().to_string())?;
        let mut options = Options::new(self.source.partitions);
        options.identity = keyfile::identity()?;
        let log = EmbeddedLog::open(dir, options).with_context(|| format!("the log in {}", dir.display()))?;
        let body = Body::Control(Control::Activate {
            at,
            model: (*self.configuration.model).into(),
            policies: (*self.configuration.policies).into(),
        });
        let bytes = Bytes::from(Record::new(body).encode());
        let activations = (0..self.source.partitions).map(|partition| (Partition(partition), bytes.clone()));
        let _ = log.append(activations.collect()).await?;
        Ok(log)
    }

    fn record(&self, dated: Dated, shift_ms: i64) -> (Partition, Bytes) {
        let mut event = dated.event;
        let key = event.person.key().map_or("", |person| person.as_str());
        let partition = partition_for(key, self.source.partitions);
        match dated.bytes {
            Some(bytes) if shift_ms == 0 => (partition, bytes),
            _ => {
                event.received_at = event.received_at.plus_ms(shift_ms);
                event.occurred_at = event.occurred_at.map(|at| at.plus_ms(shift_ms));
                event.sent_at = event.sent_at.map(|at| at.plus_ms(shift_ms));
                (
                    partition,
                    Bytes::from(Record::new(Body::Event(Box::new(event))).encode()),
                )
            }
        }
    }
}

async fn append(log: &EmbeddedLog, waiting: &mut Vec<(Partition, Bytes)>) -> Result<()> {
    if !waiting.is_empty() {
        let _ = log.append(std::mem::take(waiting)).await?;
    }
    Ok(())
}
