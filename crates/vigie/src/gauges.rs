//! The metrics that move by themselves: how far the worker, its timers and the archive are behind, what is in flight, which
//! model is in force, how much room is left. They are published once a second from what others know; nothing is decided here.

use crate::backends::AnyLog;
use crate::books::books;
use crate::clocks::Clock;
use crate::config::{Config, LogBackend};
use crate::disk;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vigie_archive::Archive;
use vigie_event::{Partition, Timestamp};
use vigie_ingestion::intake::Intake;
use vigie_ingestion::log::Log;
use vigie_pipeline::{PartitionStatus, StatusHandle};
use vigie_telemetry::{Behind, Metrics};

/// Time between two looks at the disk.
const DISK_EVERY: Duration = Duration::from_secs(15);

/// See the module.
pub(crate) struct Gauges {
    metrics: Metrics,
    log: Arc<AnyLog>,
    intake: Intake<AnyLog>,
    status: StatusHandle,
    /// The archive, where this process has it open.
    pub(crate) archive: Option<Arc<Archive>>,
    /// This process takes in and folds everything.
    pub(crate) alone: bool,
    clock: Clock,
    directory: PathBuf,
    /// Directory of the segment files, where the log is files.
    segments: Option<PathBuf>,
    folded: BTreeMap<Partition, Behind>,
    archived: BTreeMap<Partition, Behind>,
    looked: Option<Duration>,
    look: Option<tokio::task::JoinHandle<()>>,
}

impl Gauges {
    pub(crate) fn new(
        config: &Config,
        metrics: Metrics,
        log: Arc<AnyLog>,
        intake: Intake<AnyLog>,
        status: StatusHandle,
        clock: Clock,
    ) -> Self {
        let directory = config.data.dir.clone();
        let embedded = config.log.backend == LogBackend::Embedded;
        Self {
            segments: embedded.then(|| directory.join("log")),
            metrics,
            log,
            intake,
            status,
            archive: None,
            alone: true,
            clock,
            directory,
            folded: BTreeMap::new(),
            archived: BTreeMap::new(),
            looked: None,
            look: None,
        }
    }

    /// Publishes how things are now.
    pub(crate) fn publish(&mut self) {
        let (now, at) = (self.metrics.stopwatch.now(), (self.clock)());
        let status = self.status.get();
        let ends = self.log.ends();
        let archived = self.archive.as_ref().map(|archive| archive.ends());
        // A partition that has gone to another process must not look as if it stood still here.
        let gone: Vec<Partition> = self.folded.keys().copied().collect();
        for partition in gone.into_iter().filter(|of| !status.partitions.contains_key(of)) {
            let _ = self.folded.remove(&partition);
            self.metrics.pipeline.progress(partition.0, 0, 0);
            self.metrics.pipeline.watermark_age(partition.0, Duration::ZERO);
        }
        let (mut waiting, mut oldest) = (0, Duration::ZERO);
        for (partition, state) in &status.partitions {
            let of =
                |offsets: &[vigie_event::Offset]| offsets.get(usize::from(partition.0)).map_or(0, |offset| offset.0);
            let (done, end) = (state.next.0, of(&ends));
            self.metrics.log.end_offset(partition.0, end);
            self.metrics.pipeline.progress(partition.0, done, end);
            let age = self.folded.entry(*partition).or_default().age(done, end, now);
            self.metrics.pipeline.watermark_age(partition.0, age);
            if let Some(archived) = &archived {
                let kept = of(archived);
                waiting += done.saturating_sub(kept);
                oldest = oldest.max(self.archived.entry(*partition).or_default().age(kept, done, now));
            }
        }
        if archived.is_some() {
            self.metrics.archive.lag(waiting, oldest);
        }
        let (overdue, longest) = overdue(status.partitions.values(), at);
        self.metrics.pipeline.timers_overdue(overdue, longest);
        for workspace in status.books.keys().filter(|_| self.alone) {
            let books = books(&self.intake, &self.status, workspace);
            self.metrics.events.in_flight(workspace.as_str(), books.in_flight);
        }
        if let (Some(active), Some(since)) = (&status.active, status.active_since) {
            let since = Duration::from_millis(u64::try_from(since.0).unwrap_or(0));
            self.metrics
                .model
                .in_force(&active.model.version, &active.policies.version, since);
        }
        self.look_at_disk(now);
    }

    /// Publishes how much room is left, every so often. Nobody waits for a disk that does not answer.
    fn look_at_disk(&mut self, now: Duration) {
        let recent = self
            .looked
            .is_some_and(|looked| now.saturating_sub(looked) < DISK_EVERY);
        if recent || self.look.as_ref().is_some_and(|look| !look.is_finished()) {
            return;
        }
        self.looked = Some(now);
        let (directory, segments, metrics) = (self.directory.clone(), self.segments.clone(), self.metrics.clone());
        self.look = Some(tokio::task::spawn_blocking(move || {
            match disk::room(&directory) {
                Ok(room) => metrics.disk.room(room.free, room.size),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the room on the disk is not known"),
            }
            if let Some(Ok(bytes)) = segments.map(|segments| disk::bytes(&segments)) {
                metrics.log.size(bytes);
            }
        }));
    }
}

/// In how many partitions a timer is due that has not fired, and for how long the most overdue one.
fn overdue<'a>(partitions: impl Iterator<Item = &'a PartitionStatus>, now: Timestamp) -> (usize, Duration) {
    let late = partitions.filter_map(|state| {
        let due = state.due.filter(|due| *due <= now && state.clock < *due)?;
        Some(Duration::from_millis(u64::try_from(now.ms_since(due)).unwrap_or(0)))
    });
    late.fold((0, Duration::ZERO), |(count, longest), one| {
        (count + 1, longest.max(one))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_overdue_until_the_partitions_time_has_reached_it() {
        let at = |clock, due: Option<i64>| PartitionStatus {
            clock: Timestamp(clock),
            due: due.map(Timestamp),
            ..PartitionStatus::default()
        };
        let partitions = [
            at(0, None),
            at(0, Some(5_000)),
            at(0, Some(9_000)),
            at(0, Some(10_001)),
            at(6_000, Some(6_000)),
        ];
        let found = overdue(partitions.iter(), Timestamp(10_000));
        assert_eq!(found, (2, Duration::from_secs(5)));
    }
}
