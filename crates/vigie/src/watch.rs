//! Holds the model in force, and its candidate, against what customers did: every few hours, over the customers of this
//! process's partitions, as of the log's own day. What comes of it is published as metrics; where the labels have led to a
//! clearly better model, that becomes the candidate (`scoring.learning`).
//!
//! It reads the store as any other reader does and never folds, so that it costs the worker nothing. What it decides enters
//! through the log, like what an operator decides.

use crate::backends::AnyStore;
use crate::config::Learning;
use crate::models::{Change, Models};
use anyhow::{Result, anyhow};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{Day, Partition, Timestamp};
use vigie_fit::file::{Provenance, model_file};
use vigie_pipeline::StatusHandle;
use vigie_scoring::calibration::Calibration;
use vigie_scoring::watch::{Learned, Watch};
use vigie_scoring::{CustomerState, Model};
use vigie_store::Store;
use vigie_telemetry::{Judged, Metrics};

/// The first look after a start.
const FIRST: Duration = Duration::from_secs(60);
/// Time between two looks: a day is looked at anew as its late events come in.
const EVERY: Duration = Duration::from_secs(6 * 3_600);
/// Customers read at a time.
const PAGE: usize = 500;
/// What a learned model's name ends with.
const LEARNED: &str = "-learned";

/// See the module.
pub(crate) struct Watcher {
    pub(crate) models: Models,
    pub(crate) store: Arc<AnyStore>,
    /// The worker of this process: its partitions are looked at.
    pub(crate) status: StatusHandle,
    pub(crate) metrics: Metrics,
    pub(crate) learning: Learning,
}

impl Watcher {
    /// Looks again and again until `stop`.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        let rounds = async {
            tokio::time::sleep(FIRST).await;
            loop {
                if let Err(error) = self.round().await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "predictions could not be held against what came"
                    );
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            () = stop => {}
        }
    }

    async fn round(&self) -> Result<()> {
        // Nothing that a partition holds is later than its clock.
        let clocks: Vec<(Partition, Timestamp)> = self.status.read(|status| {
            let partitions = status.partitions.iter();
            partitions.map(|(partition, state)| (*partition, state.clock)).collect()
        });
        let Some(now) = clocks.iter().map(|(_, clock)| *clock).max() else {
            return Ok(());
        };
        let model = Arc::new(self.models.active.load().model.clone());
        let mut watch = Watch::new(Arc::clone(&model), now.day());
        for (partition, _) in &clocks {
            let mut after = None;
            loop {
                let rows = self.store.scan(*partition, after, PAGE).await?;
                let more = rows.len() == PAGE;
                after = rows.last().map(|(key, _)| key.clone());
                for (key, bytes) in rows {
                    watch.note(&key, &CustomerState::decode(&bytes)?);
                }
                // Computing in portions: requests get their turns.
                tokio::task::yield_now().await;
                if !more {
                    break;
                }
            }
        }
        self.metrics
            .calibration
            .judged(&judged(watch.live()), &judged(watch.candidate()));
        let leads = clocks.iter().any(|(partition, _)| *partition == Partition(0));
        // A candidate that people have set is theirs.
        let free = model
            .candidate
            .as_ref()
            .is_none_or(|candidate| candidate.name.ends_with(LEARNED));
        if self.learning == Learning::Off || !leads || !free {
            return Ok(());
        }
        let learned = tokio::task::spawn_blocking(move || watch.learned()).await?;
        match learned {
            Some(learned) => self.take(&model, &learned, now.day()).await,
            None => Ok(()),
        }
    }

    async fn take(&self, model: &Model, learned: &Learned, today: Day) -> Result<()> {
        let text = learned_text(model, learned, today);
        let candidate = Model::parse(&text).map_err(|error| anyhow!("what was learned is no valid model: {error}"))?;
        if model
            .candidate
            .as_ref()
            .is_some_and(|known| known.version == candidate.version)
        {
            return Ok(());
        }
        let (labels, gain) = (learned.labels, learned.gain);
        tracing::info!(
            model = candidate.version,
            labels,
            gain,
            "learned a model that is clearly better"
        );
        for change in [Change::Shadow(Box::new(candidate)), Change::Promote] {
            if matches!(change, Change::Promote) && self.learning != Learning::Promote {
                break;
            }
            if let Err(why) = self.models.change(change).await? {
                tracing::warn!(why, "what was learned was not taken");
            }
        }
        Ok(())
    }
}

/// The model file of what was learned: everything else is the model's that it was learned from.
fn learned_text(model: &Model, learned: &Learned, today: Day) -> String {
    let stem: String = model
        .name
        .trim_end_matches(LEARNED)
        .chars()
        .take(64 - LEARNED.len())
        .collect();
    let provenance = Provenance {
        code: env!("CARGO_PKG_VERSION").to_owned(),
        data_from: Day(today.0.saturating_sub(4 * i32::from(model.default_horizon_days))),
        cutoff: today,
        customers: usize::try_from(learned.labels).unwrap_or(usize::MAX),
        horizon_days: model.default_horizon_days,
        spend: None,
        currency: None,
    };
    model_file(&format!("{stem}{LEARNED}"), &learned.churn, model, &provenance, None)
}

fn judged(calibration: &Calibration) -> Judged {
    let mut judged = Judged::default();
    let parts = |ppm: u64| ppm as f64 / 1e6;
    let (mut variance, mut loss) = (0, 0);
    for (tenth, bin) in judged.tenths.iter_mut().zip(calibration.bins()) {
        *tenth = (bin.n, parts(bin.predicted_ppm), bin.churned);
        variance += bin.variance_ppm;
        loss += bin.log_loss_ppm;
    }
    judged.variance = parts(variance);
    judged.log_loss = parts(loss) / (calibration.count() as f64).max(1.0);
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_scoring::churn::ChurnModel;

    #[test]
    fn what_was_learned_is_a_model_that_is_not_judged_by_what_it_has_seen() {
        let shipped = Model::shipped().unwrap();
        let mut churn = ChurnModel::cold(shipped.bg, shipped.mbg);
        churn.level.weekly.push(0.25);
        let learned = Learned {
            churn,
            labels: 900,
            gain: 0.01,
        };
        let model = Model::parse(&learned_text(&shipped, &learned, Day(20_000))).unwrap();
        assert_eq!(model.name, format!("{}{LEARNED}", shipped.name));
        assert_eq!(model.fitted_until, Some(Day(20_000)));
        assert_eq!(model.churn.as_ref(), Some(&learned.churn));
        assert_eq!((&model.engagement, &model.value), (&shipped.engagement, &shipped.value));
        let again = Model::parse(&learned_text(&model, &learned, Day(20_090))).unwrap();
        assert_eq!(again.name, model.name);
    }
}
