//! The workers of a process that shares the log with others: one worker at a time, for the partitions that the group assigns,
//! opened anew whenever they change. What it did not finish is finished by whoever has the partition next: a step that was
//! let go is either stored whole or refused by the store's fence (OWN-1).
//!
//! It never decides who has what (`vigie_kafka::ownership`), and never folds.

use crate::backends::{AnyLog, AnyStore};
use crate::clocks::Clock;
use crate::server::Journal;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use vigie_event::Partition;
use vigie_kafka::Connection;
use vigie_kafka::ownership::{Assignment, Assignments, MemberOptions};
use vigie_pipeline::{Live, LiveOptions, StatusHandle, Worker, WorkerError};
use vigie_telemetry::Metrics;

/// Pause before the store or the log is asked again.
const RETRY: Duration = Duration::from_millis(250);
/// Time between two hints to lag tools.
const HINT_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Crew {
    pub(crate) log: Arc<AnyLog>,
    pub(crate) store: Arc<AnyStore>,
    pub(crate) letters: Arc<Journal>,
    pub(crate) metrics: Metrics,
    pub(crate) status: StatusHandle,
    /// Texts of the model and of the policies to put in force.
    pub(crate) active: crate::activation::Texts,
    pub(crate) clock: Clock,
    pub(crate) options: LiveOptions,
    pub(crate) connection: Connection,
    pub(crate) member: MemberOptions,
}

impl Crew {
    /// Works until `stop` becomes true, or until something happens that waiting does not help.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let mut assignments = Assignments::join(&self.connection, &self.member)?;
        let mut owned = BTreeSet::new();
        loop {
            tracing::info!(partitions = owned.len(), "working");
            match self.work(&owned, &mut assignments, &mut stop).await? {
                None => {
                    assignments.leave().await;
                    return Ok(());
                }
                Some(Assignment::Assigned(gained)) => owned.extend(gained),
                // The worker is gone by now: dropping the release gives the partitions away.
                Some(Assignment::Revoked(lost, _release)) => owned.retain(|partition| !lost.contains(partition)),
                Some(Assignment::Lost(lost)) => {
                    tracing::warn!(partitions = lost.len(), "the group has given partitions to others");
                    owned.retain(|partition| !lost.contains(partition));
                }
                Some(Assignment::Failed(reason)) => bail!("the group of workers: {reason}"),
            }
        }
    }

    /// Works on these partitions until they change; `None` when it is time to stop.
    async fn work(
        &self,
        owned: &BTreeSet<Partition>,
        assignments: &mut Assignments,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Assignment>> {
        let member = assignments.member();
        let hints = async {
            loop {
                tokio::time::sleep(HINT_EVERY).await;
                let positions = self.status.read(|status| {
                    let partitions = status.partitions.iter();
                    partitions.map(|(partition, state)| (*partition, state.next)).collect()
                });
                member.hint(positions);
            }
        };
        // It never stops by itself: the group's word, or the process's end, lets go of it.
        let (_running, never) = watch::channel(false);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Ok(None),
            change = assignments.next() => change.map(Some).context("the group of workers ended abruptly"),
            outcome = self.follow(owned, never) => match outcome {
                Ok(()) => bail!("the worker ended without a reason"),
                Err(error) => Err(error.into()),
            },
            () = hints => Ok(None),
        }
    }

    async fn follow(&self, owned: &BTreeSet<Partition>, never: watch::Receiver<bool>) -> Result<(), WorkerError> {
        if owned.is_empty() {
            // Others have everything.
            return std::future::pending().await;
        }
        loop {
            let outcome = match self.open(owned).await {
                Ok(worker) => {
                    self.status.wait(None);
                    let live = Live::new(worker, self.options.clone());
                    live.drive(Arc::clone(&self.clock), never.clone()).await
                }
                Err(error) => Err(error),
            };
            match outcome {
                // Somebody who believes to own them has claimed them, and the group has not said so yet, or will tell him.
                Err(error) if error.is_passing() || error.is_fenced() => {
                    tracing::warn!(reason = %error, "waiting");
                    self.status.wait(Some(error.to_string()));
                    tokio::time::sleep(RETRY).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn open(&self, owned: &BTreeSet<Partition>) -> Result<Worker<AnyLog, AnyStore, Journal>, WorkerError> {
        let owned: Vec<Partition> = owned.iter().copied().collect();
        let (log, store, letters) = (
            Arc::clone(&self.log),
            Arc::clone(&self.store),
            Arc::clone(&self.letters),
        );
        let mut worker = Worker::own(log, store, letters, self.metrics.clone(), owned)
            .await?
            .reporting_to(self.status.clone())
            .await?
            .keeping_judgements();
        let _events = worker.survey().await?;
        let active = self.active.load_full();
        if worker.activate(&active.0, &active.1, (self.clock)()).await? {
            tracing::info!("put model and policies in force");
        }
        Ok(worker)
    }
}
