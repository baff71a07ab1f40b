//! What has come of predictions: one pass over a base, at the end of which the model in force has been held against the
//! purchases of the last horizon, its candidate beside it, and perhaps a better model has been learned.
//!
//! Nothing is kept for this in a customer's record. What a model said on a past day is worked out again from what the record
//! held of the days before it, since a score is a function of the record and the time; an act that came late is counted where
//! it belongs. A day's numbers are therefore the same whoever works them out, and whenever.
//!
//! Adjustments by complaints, failed payments and contacts are left out: of these a record does not say what it held at a
//! past cut-off.
//!
//! A model is judged, and learned from, only at cut-offs that its own fit has not seen. The pass is fed the customers in any
//! order; what it learns does not depend on it.

use crate::calibration::Calibration;
use crate::churn::{ChurnModel, Pace};
use crate::features::pace;
use crate::model::Model;
use crate::online::Learner;
use crate::state::{CustomerState, Part};
use libm::{exp, log1p, sqrt};
use std::sync::Arc;
use vigie_event::{ConsentState, CustomerKey, Day, Purpose};

/// Customers count at a cut-off who bought within so many horizons before it.
const ACTIVE_HORIZONS: i32 = 2;
/// Most labels that are learned from: those of the customers whose keys have the smallest hashes.
const MAX_LABELS: usize = 20_000;
/// Fewest.
const MIN_LABELS: u64 = 500;
/// How many standard errors better than the model in force, on labels that it had not learned yet, what was learned must
/// have been to be worth a candidate. Labels of one time share its season, so this is stricter than chance asks for.
const CLEARLY: f64 = 4.0;
/// Labels that speak for the batch fit: of fewer, what was learned is taken less far.
const SHRINK: f64 = 2_000.0;

/// What was known of a customer at a cut-off, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Closed {
    /// The cut-off: days before it were known.
    pub then: Day,
    /// What was known.
    pub pace: Pace,
    /// Whether a purchase came within the horizon.
    pub bought: bool,
}

impl Closed {
    /// `None` for who had not bought within two horizons before the cut-off.
    #[must_use]
    pub fn of(part: &Part, then: Day, horizon_days: u16) -> Option<Self> {
        let horizon = i32::from(horizon_days);
        let pace = pace(part, then)?;
        let end = Day(then.0.saturating_add(horizon));
        let active = then.days_since(pace.last) <= ACTIVE_HORIZONS * horizon;
        let mut days = part.purchases().days();
        active.then(|| Self {
            then,
            pace,
            bought: days.any(|(day, _)| (then..end).contains(&day)),
        })
    }

    /// P(no purchase within the horizon) that a model gives to what was known.
    #[must_use]
    pub fn churn(&self, model: &Model, horizon_days: u16) -> f64 {
        match &model.churn {
            Some(churn) => churn.churn(&self.pace, horizon_days, self.then),
            None => {
                let recency = self.pace.recency(self.then);
                model.mbg.no_purchase(recency, f64::from(horizon_days) / 7.0).total()
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Watch {
    model: Arc<Model>,
    today: Day,
    live: Calibration,
    candidate: Calibration,
    /// By the hash of the customer.
    labels: Vec<(u64, Closed)>,
}

/// A model that the labels have led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// It.
    pub churn: ChurnModel,
    /// Labels that it was learned from.
    pub labels: u64,
    /// By how much it lowered the mean log loss of labels before it learned them.
    pub gain: f64,
}

impl Watch {
    /// Begins a pass as of a day, under a model with its candidate, if any.
    #[must_use]
    pub fn new(model: Arc<Model>, today: Day) -> Self {
        Self {
            model,
            today,
            live: Calibration::default(),
            candidate: Calibration::default(),
            labels: Vec::new(),
        }
    }

    /// Takes in a customer. Who must not be profiled, and whose data have moved to another record, is left out.
    pub fn note(&mut self, key: &CustomerKey, state: &CustomerState) {
        let consent = state.consent.get(&Purpose::Profiling);
        let refused = consent.is_some_and(|consent| consent.state == ConsentState::Refused);
        if refused || state.linked_to.is_some() {
            return;
        }
        let part = state.combined();
        let days = self.model.default_horizon_days;
        let horizon = i32::from(days);
        let latest = Day(self.today.0.saturating_sub(horizon));
        let unseen = |model: &Model, then: Day| model.fitted_until.is_none_or(|until| until <= then);
        let candidate = self
            .model
            .candidate
            .as_deref()
            .filter(|candidate| unseen(candidate, latest));
        let live = unseen(&self.model, latest);
        if (live || candidate.is_some())
            && let Some(closed) = Closed::of(&part, latest, days)
        {
            if live {
                self.live.note(closed.churn(&self.model, days), !closed.bought);
            }
            if let Some(candidate) = candidate {
                self.candidate.note(closed.churn(candidate, days), !closed.bought);
            }
        }
        // Each customer gives one label, at a cut-off of their own within the horizon before the latest.
        let hash = hash(key);
        let back = i32::try_from(hash % u64::from(days.max(1))).unwrap_or_default();
        let then = Day(latest.0.saturating_sub(back));
        if unseen(&self.model, then)
            && let Some(closed) = Closed::of(&part, then, days)
        {
            self.labels.push((hash, closed));
            if self.labels.len() >= 2 * MAX_LABELS {
                self.thin();
            }
        }
    }

    /// Keeps the labels with the smallest hashes.
    fn thin(&mut self) {
        self.labels
            .sort_by_key(|(hash, closed)| (*hash, closed.then, closed.pace.first));
        self.labels.truncate(MAX_LABELS);
    }

    /// The model in force against what came.
    #[must_use]
    pub fn live(&self) -> &Calibration {
        &self.live
    }

    /// The candidate against what came.
    #[must_use]
    pub fn candidate(&self) -> &Calibration {
        &self.candidate
    }

    /// Learns from the labels in the order of their cut-offs, each judged before it is learned; the result, where it is clearly
    /// better than the model in force.
    #[must_use]
    pub fn learned(mut self) -> Option<Learned> {
        self.thin();
        self.labels.sort_by_key(|(hash, closed)| (closed.then, *hash));
        let days = self.model.default_horizon_days;
        let cold = ChurnModel::cold(self.model.bg, self.model.mbg);
        let batch = self.model.churn.as_ref().unwrap_or(&cold);
        let mut learner = Learner::default();
        let (mut sum, mut squares) = (0.0, 0.0);
        for (_, Closed { then, pace, bought }) in &self.labels {
            let loss = |log_odds: f64| {
                let against = if *bought { -log_odds } else { log_odds };
                against.max(0.0) + log1p(exp(-against.abs()))
            };
            let gain = loss(batch.log_odds(pace, days, *then)) - loss(learner.log_odds(batch, pace, days, *then));
            sum += gain;
            squares += gain * gain;
            learner.learn(batch, pace, days, *then, *bought);
        }
        let labels = learner.labels() as f64;
        let clearly = learner.labels() >= MIN_LABELS && sum > CLEARLY * sqrt(squares);
        clearly.then(|| Learned {
            churn: learner.model(batch, labels / (labels + SHRINK)),
            labels: learner.labels(),
            gain: sum / labels,
        })
    }
}

/// FNV-1a with a last mixing: spreads keys evenly and is the same everywhere.
fn hash(key: &CustomerKey) -> u64 {
    let bytes = key
        .workspace
        .as_str()
        .bytes()
        .chain([0])
        .chain(key.person.as_str().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 1
}
