//! Canaries: customers that nobody is, whose events go the whole way all the time, through the door to the log, the worker and
//! the store, so that the way is measured even when no real event comes. They live in a workspace of their own that no key
//! opens: they are in nobody's books, lists or flags. Off unless `canary.every` is set.

use crate::backends::{AnyLog, AnyStore};
use crate::clocks::Clock;
use anyhow::{Context, Result, bail};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{
    Client, ConsentContext, CustomerKey, Event, EventId, PersonId, PersonIds, Position, Signal, Source, Timestamp,
    Workspace, fingerprint,
};
use vigie_ingestion::intake::{Intake, Outcome};
use vigie_pipeline::StatusHandle;
use vigie_store::Store;
use vigie_telemetry::Metrics;

/// The workspace of canaries. Names of configured workspaces cannot be told from it, so it is a name that nobody takes.
pub(crate) const WORKSPACE: &str = "vigie-canaries";
/// Canaries, in turn: enough that every one of the usual 64 partitions has some.
const CANARIES: i64 = 512;
/// Longest wait for a score.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks at the worker's progress: the resolution of the measurement.
const PAUSE: Duration = Duration::from_millis(2);

/// See the module.
pub(crate) struct Canary {
    pub(crate) every: Duration,
    pub(crate) intake: Intake<AnyLog>,
    pub(crate) status: StatusHandle,
    pub(crate) store: Arc<AnyStore>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
}

impl Canary {
    /// Sends one after the other until `stop`.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        if self.every.is_zero() {
            return;
        }
        let rounds = async {
            loop {
                tokio::time::sleep(self.every).await;
                let lap = self.metrics.stopwatch.start();
                match self.send().await {
                    Ok(()) => self.metrics.canary.seen(lap.elapsed()),
                    Err(error) => {
                        self.metrics.canary.lost();
                        tracing::warn!(error = format!("{error:#}"), "a canary was lost");
                    }
                }
            }
        };
        tokio::select! {
            () = rounds => {}
            () = stop => {}
        }
    }

    /// Sends one and waits until the store knows it.
    async fn send(&self) -> Result<()> {
        let now = (self.clock)();
        let event = canary(now)?;
        let person = event.person.key().cloned().context("a canary without a name")?;
        let key = CustomerKey::new(event.workspace.clone(), person);
        let outcomes = self.intake.accept(vec![Ok(event)]).await?;
        let Some(Outcome::Logged(position)) = outcomes.first() else {
            bail!("it was set aside");
        };
        tokio::time::timeout(PATIENCE, self.folded(*position))
            .await
            .with_context(|| format!("no score within {PATIENCE:?}"))?;
        let records = self.store.load(&[key]).await?;
        if records.iter().all(Option::is_none) {
            bail!("its record is not in the store");
        }
        Ok(())
    }

    /// Returns once the worker has committed what stands at this position.
    async fn folded(&self, position: Position) {
        let next = || {
            let next =
                |status: &vigie_pipeline::Status| status.partitions.get(&position.partition).map(|state| state.next);
            self.status.read(next)
        };
        while next().is_none_or(|next| next <= position.offset) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The event of the canary whose turn it is: a visit, which no policy acts on.
fn canary(now: Timestamp) -> Result<Event> {
    let id = format!("canary-{}", now.0);
    let person = format!("canary-{}", now.0.rem_euclid(CANARIES));
    let signal = Signal::PageView;
    Ok(Event {
        workspace: Workspace::new(WORKSPACE)?,
        fingerprint: fingerprint([id.as_bytes()]),
        id: EventId::new(&id)?,
        person: PersonIds {
            user: Some(PersonId::known(&person)?),
            anonymous: None,
            previous: None,
        },
        signal,
        name: None,
        channel: signal.default_channel(),
        source: Source::Simulator,
        occurred_at: None,
        sent_at: None,
        received_at: now,
        money: None,
        order: None,
        consent: ConsentContext::default(),
        client: Client::default(),
        payload: "{}".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use vigie_event::partition_for;

    #[test]
    fn canaries_come_to_every_partition() {
        let partitions: BTreeSet<_> = (0..CANARIES)
            .map(|ms| {
                let event = canary(Timestamp(1_800_000_000_000 + ms)).unwrap();
                partition_for(event.person.key().unwrap().as_str(), 64)
            })
            .collect();
        assert_eq!(partitions.len(), 64);
    }
}
