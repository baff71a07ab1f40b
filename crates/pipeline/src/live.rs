//! The live driver: reads the log as it grows, hands it to the worker, and appends ticks where time itself has something
//! to say. It decides when to look, never what follows from it.

use crate::errors::WorkerError;
use crate::worker::{DeadLetterSink, Worker};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use vigie_event::{Partition, Timestamp};
use vigie_failpoint::point;
use vigie_ingestion::log::{Log, LogReader};
use vigie_store::Store;

/// The wall clock, given by the binary.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How the live driver works.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// Most records folded in one step.
    pub batch_records: usize,
    /// Most bytes of records folded in one step.
    pub batch_bytes: usize,
    /// Time between two requests to the store to make its commits survive power loss.
    pub persist_every: Duration,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            batch_records: 65_536,
            batch_bytes: 32 << 20,
            persist_every: Duration::from_secs(5),
        }
    }
}

/// How many records a step may have: as many as the store writes in half a second to a second. A larger step writes a
/// customer once for more of their events; one that is too large keeps everybody waiting, and a store from answering in time.
#[derive(Debug)]
struct Pace {
    records: usize,
    most: usize,
}

impl Pace {
    /// Where it begins, and begins anew when the store has failed.
    const FIRST: usize = 4_096;
    const LEAST: usize = 256;
    /// A commit that took less was small.
    const SHORT: Duration = Duration::from_millis(400);
    /// A commit that took more was too large.
    const LONG: Duration = Duration::from_millis(1_000);

    fn new(most: usize) -> Self {
        Self {
            records: most.min(Self::FIRST),
            most,
        }
    }

    /// Learns from a step of this many records, whose commit took so long.
    fn learn(&mut self, records: usize, took: Duration) {
        if took > Self::LONG {
            self.records = (self.records / 2).max(self.most.min(Self::LEAST));
        } else if took < Self::SHORT && records > self.records / 2 {
            self.records = self.records.saturating_mul(2).min(self.most);
        }
    }

    /// The store did not answer, perhaps for what it had to do.
    fn falter(&mut self) {
        self.records = self.records.min(Self::FIRST) / 2;
        self.records = self.records.max(self.most.min(Self::LEAST));
    }
}

/// Longest wait for records when no timer is due: a bound on how late a shutdown or a clock jump is noticed.
const IDLE: Duration = Duration::from_millis(500);
/// A partition gets at most one tick in this time.
const TICK_EVERY_MS: i64 = 1_000;
/// Pause before a call that failed for a passing cause is repeated.
const RETRY: Duration = Duration::from_millis(250);

/// The live driver.
#[derive(Debug)]
pub struct Live<L: Log, S: Store, D: DeadLetterSink> {
    worker: Worker<L, S, D>,
    options: LiveOptions,
    pace: Pace,
}

impl<L: Log, S: Store, D: DeadLetterSink> Live<L, S, D> {
    /// A driver of this worker.
    #[must_use]
    pub fn new(worker: Worker<L, S, D>, options: LiveOptions) -> Self {
        let pace = Pace::new(options.batch_records);
        Self { worker, options, pace }
    }

    /// Runs until `stop` becomes true (then everything that the log holds by that time is folded and persisted) or until
    /// the worker cannot go on.
    pub async fn run(self, clock: Clock, stop: watch::Receiver<bool>) -> Result<(), WorkerError> {
        let status = self.worker.status();
        let outcome = self.drive(clock, stop).await;
        if let Err(error) = &outcome {
            status.stop(error.to_string());
        }
        outcome
    }

    /// The same for who decides himself what an error means: another worker may go on where this one ended.
    pub async fn drive(mut self, clock: Clock, mut stop: watch::Receiver<bool>) -> Result<(), WorkerError> {
        let outcome = self.follow(&clock, &mut stop).await;
        let persisted = self.worker.store().persist().await;
        outcome?;
        Ok(persisted?)
    }

    async fn follow(&mut self, clock: &Clock, stop: &mut watch::Receiver<bool>) -> Result<(), WorkerError> {
        self.worker.resume(clock()).await?;
        let mut reader = self.worker.log().reader(self.worker.positions())?;
        let mut last_tick: BTreeMap<Partition, Timestamp> = BTreeMap::new();
        let mut persisted = clock();
        let persist_ms = i64::try_from(self.options.persist_every.as_millis()).unwrap_or(i64::MAX);
        loop {
            let stopping = *stop.borrow();
            let wait = if stopping {
                Duration::ZERO
            } else {
                self.patience(clock())
            };
            point!("step.fetch.before");
            let entries = tokio::select! {
                biased;
                _ = stop.changed(), if !stopping => continue,
                () = self.worker.landing() => Vec::new(),
                entries = reader.next(self.pace.records, self.options.batch_bytes, wait) => entries?,
            };
            if !entries.is_empty() {
                point!("step.fetch.after");
            }
            if entries.is_empty() && stopping && !self.worker.is_in_flight() && self.caught_up() {
                return Ok(());
            }
            let now = clock();
            let mut outcome = match entries.as_slice() {
                [] => self.worker.process(&[], clock()).await,
                some => self.worker.submit(some, clock()).await,
            };
            if let Some((records, took)) = self.worker.last_commit() {
                self.pace.learn(records, took);
            }
            if outcome.is_ok() && !stopping {
                outcome = self.tick(clock(), &mut last_tick).await;
            }
            if outcome.is_ok() && passed(persisted, now, persist_ms) {
                outcome = self.worker.persist().await;
                persisted = now;
            }
            if let Err(error) = outcome {
                self.pace.falter();
                self.wait_out(error, stop).await?;
                // What is stored may be less than what was read, after a fail-over of the store, or more.
                reader = self.worker.log().reader(self.worker.positions())?;
            }
        }
    }

    /// Where the log or the store cannot be reached for now, waits until it can, and until it is known again what is
    /// stored.
    async fn wait_out(&mut self, mut error: WorkerError, stop: &watch::Receiver<bool>) -> Result<(), WorkerError> {
        loop {
            if !error.is_passing() || *stop.borrow() {
                return Err(error);
            }
            tracing::warn!(reason = %error, "waiting");
            let status = self.worker.status();
            status.wait(Some(error.to_string()));
            tokio::time::sleep(RETRY).await;
            match self.worker.recover().await {
                Ok(()) => {
                    status.wait(None);
                    return Ok(());
                }
                Err(again) => error = again,
            }
        }
    }

    /// How long to wait for records: until the next timer, but never long.
    fn patience(&self, now: Timestamp) -> Duration {
        let until_due = self.worker.next_due().map_or(IDLE, |due| {
            Duration::from_millis(u64::try_from(due.ms_since(now)).unwrap_or(0))
        });
        until_due.clamp(Duration::from_millis(1), IDLE)
    }

    fn caught_up(&self) -> bool {
        let positions = self.worker.positions();
        let ends = self.worker.log().ends();
        positions
            .iter()
            .all(|(partition, next)| ends.get(usize::from(partition.0)).is_none_or(|end| next >= end))
    }

    /// Appends a tick to partitions whose timers are due and which no record moves on.
    async fn tick(&mut self, now: Timestamp, last: &mut BTreeMap<Partition, Timestamp>) -> Result<(), WorkerError> {
        let late = |worker: &Worker<L, S, D>, last: &BTreeMap<Partition, Timestamp>| {
            let mut due = worker.overdue(now);
            due.retain(|partition| last.get(partition).is_none_or(|at| passed(*at, now, TICK_EVERY_MS)));
            due
        };
        if late(&self.worker, last).is_empty() {
            return Ok(());
        }
        // What is on its way may have fired them.
        self.worker.land(now).await?;
        let due = late(&self.worker, last);
        if due.is_empty() {
            return Ok(());
        }
        match self.worker.tick(&due, now).await {
            Err(error) if error.is_passing() => tracing::warn!(reason = %error, "tick was not appended"),
            outcome => outcome?,
        }
        due.into_iter().for_each(|partition| {
            let _ = last.insert(partition, now);
        });
        Ok(())
    }
}

/// Whether so much time has passed. A clock that was set back says nothing of how long it was: then it counts as passed,
/// or a jump of an hour and back would stop ticks for an hour.
fn passed(since: Timestamp, now: Timestamp, ms: i64) -> bool {
    now < since || now.ms_since(since) >= ms
}

#[cfg(test)]
mod tests {
    use super::{Pace, passed};
    use std::time::Duration;
    use vigie_event::Timestamp;

    #[test]
    fn a_step_becomes_as_large_as_the_store_bears() {
        // A store that writes so many records a second, and never fewer than it is given.
        let settle = |per_second: u64, most: usize| {
            let mut pace = Pace::new(most);
            for _ in 0..50 {
                let took = Duration::from_micros(pace.records as u64 * 1_000_000 / per_second);
                pace.learn(pace.records, took);
            }
            pace.records
        };
        assert_eq!(settle(10_000_000, 65_536), 65_536);
        assert_eq!(settle(10_000_000, 100), 100, "never more than what is set");
        for per_second in [2_000, 10_000, 40_000] {
            let took = settle(per_second, 65_536) as f64 / per_second as f64;
            assert!((0.25..=1.0).contains(&took), "{per_second}: {took}");
        }
        assert_eq!(settle(1, 65_536), Pace::LEAST);
        assert_eq!(settle(1, 7), 7);
        let mut pace = Pace::new(65_536);
        pace.learn(10, Duration::from_millis(1));
        assert_eq!(pace.records, Pace::FIRST, "a small batch says nothing of a large one");
        pace.records = 65_536;
        pace.falter();
        assert_eq!(pace.records, Pace::FIRST / 2);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up() {
        let at = |ms: i64| Timestamp(1_770_000_000_000 + ms);
        assert!(!passed(at(0), at(0), 1_000));
        assert!(!passed(at(0), at(999), 1_000));
        assert!(passed(at(0), at(1_000), 1_000));
        assert!(passed(at(3_600_000), at(0), 1_000), "an hour back");
    }
}
