//! Looks at the whole base, again and again, for what no single record tells: customers by stage, value by tier and attrition
//! (metrics), and who belongs to which company (the API). A round reads the store in pages and rests forty-nine times as
//! long as it took, so that it never costs more than a fiftieth of a core, however large the base is; nobody waits for it.
//!
//! Metrics tell of the partitions that this process folds, so that those of several processes add up. Companies are those of
//! all partitions, since their members may be anywhere.

use crate::backends::AnyStore;
use crate::canary;
use anyhow::Result;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{Partition, Timestamp};
use vigie_pipeline::StatusHandle;
use vigie_relance::{Base, Census};
use vigie_scoring::CustomerState;
use vigie_serve::{Active, Surveyed};
use vigie_store::Store;
use vigie_telemetry::{Metrics, Portfolio, Tiers};

/// The first round after a start.
const FIRST: Duration = Duration::from_secs(1);
/// The shortest pause.
const REST: Duration = Duration::from_secs(15);
/// How much longer than a round the pause is.
const RESTS: u32 = 49;
/// Customers read at a time.
const PAGE: usize = 500;

/// See the module.
pub(crate) struct Surveyor {
    pub(crate) store: Arc<AnyStore>,
    pub(crate) active: Arc<ArcSwap<Active>>,
    /// The worker of this process, if it has one: metrics tell of its partitions.
    pub(crate) status: Option<StatusHandle>,
    /// Where the API finds what was seen, if this process serves one.
    pub(crate) seen: Option<Arc<ArcSwap<Surveyed>>>,
    pub(crate) clock: crate::clocks::Clock,
    pub(crate) metrics: Metrics,
}

impl Surveyor {
    /// Looks again and again until `stop`.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        let rounds = async {
            tokio::time::sleep(FIRST).await;
            loop {
                let lap = self.metrics.stopwatch.start();
                if let Err(error) = self.round().await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the base could not be looked at as a whole"
                    );
                }
                tokio::time::sleep(REST.max(lap.elapsed() * RESTS)).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            () = stop => {}
        }
    }

    async fn round(&self) -> Result<()> {
        let own: BTreeSet<Partition> = match &self.status {
            Some(status) => status.read(|status| status.partitions.keys().copied().collect()),
            None => BTreeSet::new(),
        };
        let (now, active) = ((self.clock)(), self.active.load_full());
        let (mut ours, mut others) = (Census::default(), Census::default());
        for partition in (0..self.store.partitions()).map(Partition) {
            let census = match own.contains(&partition) {
                true => &mut ours,
                false if self.seen.is_some() => &mut others,
                false => continue,
            };
            let mut after = None;
            loop {
                let rows = self.store.scan(partition, after, PAGE).await?;
                let more = rows.len() == PAGE;
                after = rows.last().map(|(key, _)| key.clone());
                for (key, bytes) in rows {
                    census.note(&key, &CustomerState::decode(&bytes)?, &active.model, now);
                }
                // Computing in portions: requests get their turns.
                tokio::task::yield_now().await;
                if !more {
                    break;
                }
            }
        }
        if self.status.is_some() {
            // Canaries are nobody's customers.
            let bases = ours
                .bases
                .iter()
                .filter(|(workspace, _)| workspace.as_str() != canary::WORKSPACE);
            let bases: BTreeMap<String, Portfolio> = bases
                .map(|(workspace, base)| (workspace.to_string(), portfolio(base, now)))
                .collect();
            let at = Duration::from_millis(u64::try_from(now.0).unwrap_or_default());
            self.metrics.portfolio.counted(at, &bases);
        }
        if let Some(seen) = &self.seen {
            ours.merge(others);
            seen.store(Arc::new(Surveyed {
                at: Some(now),
                accounts: ours.accounts,
            }));
        }
        Ok(())
    }
}

/// A base as metrics tell it.
fn portfolio(base: &Base, now: Timestamp) -> Portfolio {
    let mut portfolio = Portfolio::default();
    for (to, (_, count)) in portfolio.stages.iter_mut().zip(base.stages()) {
        *to = count;
    }
    for (to, (_, count, oldest)) in portfolio.complaints.iter_mut().zip(base.complaints()) {
        let age = oldest.map_or(0, |since| now.ms_since(since).max(0));
        *to = (count, Duration::from_millis(age.unsigned_abs()));
    }
    for (currency, tiers) in base.currencies() {
        let numbers: Tiers = tiers
            .map(|bands| bands.map(|tally| [tally.customers as f64, tally.current, tally.at_stake, tally.lifetime]));
        let _ = portfolio.currencies.insert(currency.to_string(), numbers);
    }
    portfolio
}

#[cfg(test)]
mod tests {
    use vigie_relance::report::portfolio::BANDS;
    use vigie_relance::{ComplaintPhase, LifeStage, TIERS};
    use vigie_telemetry::catalogue::{COMPLAINTS, PORTFOLIO_CUSTOMERS, PORTFOLIO_VALUE};

    #[test]
    fn labels_are_what_is_counted() {
        let stages = LifeStage::ALL.iter().map(|stage| stage.label());
        assert!(stages.eq(PORTFOLIO_CUSTOMERS.closed("stage").iter().copied()));
        let tiers = TIERS.iter().map(|tier| tier.label());
        assert!(tiers.eq(PORTFOLIO_VALUE.closed("tier").iter().copied()));
        let phases = ComplaintPhase::ALL.iter().map(|phase| phase.label());
        assert!(phases.eq(COMPLAINTS.closed("phase").iter().copied()));
        let bands = std::iter::once(0.0).chain(BANDS).map(|from| from.to_string());
        assert!(
            bands.eq(PORTFOLIO_VALUE
                .closed("attrition")
                .iter()
                .map(|from| (*from).to_owned()))
        );
    }
}
