//! Handles of the portfolio: numbers that one pass over the base brings all at once, and that replace those of the pass before.
//! What a later pass does not bring any more becomes 0, since a gauge that nobody sets would go on saying what it said.

use crate::catalogue::{self, Metric};
use crate::exporter::Registry;
use crate::family::{ByValue, Family};
use metrics::Gauge;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Customers, value, value at stake, equity: by tier from A to C, then by attrition from the lowest.
pub type Tiers = [[[f64; 4]; 4]; 3];

/// One workspace's base.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Portfolio {
    /// Customers by stage, in the order of the catalogue.
    pub stages: [u64; 9],
    /// Complaints by phase, in the order of the catalogue: how many, and the age of the oldest.
    pub complaints: [(u64, Duration); 6],
    /// By currency.
    pub currencies: BTreeMap<String, Tiers>,
}

/// Handles of the portfolio.
#[derive(Clone, Debug)]
pub struct PortfolioMetrics {
    stages: Family<ByValue<Gauge>>,
    /// How many and how old, phase by phase.
    complaints: Family<ByValue<[Gauge; 2]>>,
    tiers: Family<Family<ByValue<Gauge>>>,
    counted: Gauge,
    /// What the last call said there is.
    known: Arc<Mutex<BTreeSet<(String, String)>>>,
}

/// The four numbers, in the order of [`Tiers`].
const NUMBERS: [&Metric; 4] = [
    &catalogue::PORTFOLIO_TIER_CUSTOMERS,
    &catalogue::PORTFOLIO_VALUE,
    &catalogue::PORTFOLIO_AT_STAKE,
    &catalogue::PORTFOLIO_EQUITY,
];

impl PortfolioMetrics {
    pub(crate) fn register(registry: &Arc<Registry>) -> PortfolioMetrics {
        let (by_stage, by_tier, by_phase) = (Arc::clone(registry), Arc::clone(registry), Arc::clone(registry));
        let metric = &catalogue::PORTFOLIO_CUSTOMERS;
        PortfolioMetrics {
            stages: Family::new(metric.bound("workspace"), move |workspace| {
                let stages = metric.closed("stage").iter();
                ByValue::new(stages.map(|stage| by_stage.gauge(metric, &[("workspace", workspace), ("stage", stage)])))
            }),
            complaints: Family::new(metric.bound("workspace"), move |workspace| {
                let metrics = [&catalogue::COMPLAINTS, &catalogue::COMPLAINT_AGE];
                let phases = catalogue::COMPLAINTS.closed("phase").iter();
                ByValue::new(phases.map(|phase| {
                    metrics.map(|metric| by_phase.gauge(metric, &[("workspace", workspace), ("phase", phase)]))
                }))
            }),
            tiers: Family::new(metric.bound("workspace"), move |workspace| {
                let (registry, workspace) = (Arc::clone(&by_tier), workspace.to_owned());
                let [first, ..] = NUMBERS;
                Family::new(first.bound("currency"), move |currency| {
                    let mut handles = Vec::new();
                    for tier in first.closed("tier") {
                        for attrition in first.closed("attrition") {
                            let labels = [
                                ("workspace", workspace.as_str()),
                                ("currency", currency),
                                ("tier", *tier),
                                ("attrition", *attrition),
                            ];
                            handles.extend(NUMBERS.map(|number| registry.gauge(number, &labels)));
                        }
                    }
                    ByValue::new(handles.into_iter())
                })
            }),
            counted: registry.gauge(&catalogue::PORTFOLIO_COUNTED, &[]),
            known: Arc::default(),
        }
    }

    /// The bases by workspace, as of so long after 1970.
    pub fn counted(&self, at: Duration, bases: &BTreeMap<String, Portfolio>) {
        // A panic while the lock is held leaves a complete set behind: there is nothing to repair.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let currencies = bases
            .iter()
            .flat_map(|(workspace, base)| base.currencies.keys().map(move |of| (workspace.clone(), of.clone())));
        let now: BTreeSet<(String, String)> = currencies.collect();
        for (workspace, currency) in known.difference(&now) {
            self.set_tiers(workspace, currency, &Tiers::default());
        }
        for (workspace, base) in bases {
            self.set_base(workspace, base);
            for (currency, tiers) in &base.currencies {
                self.set_tiers(workspace, currency, tiers);
            }
        }
        // Workspaces without any customer left.
        let gone = known.iter().filter(|(workspace, _)| !bases.contains_key(workspace));
        gone.for_each(|(workspace, _)| self.set_base(workspace, &Portfolio::default()));
        *known = now;
        self.counted.set(at.as_secs_f64());
    }

    fn set_base(&self, workspace: &str, base: &Portfolio) {
        let handles = self.stages.get(workspace);
        for (index, count) in base.stages.iter().enumerate() {
            if let Some(gauge) = handles.at(index) {
                gauge.set(*count as f64);
            }
        }
        let handles = self.complaints.get(workspace);
        for (index, (count, age)) in base.complaints.iter().enumerate() {
            if let Some([counted, oldest]) = handles.at(index) {
                counted.set(*count as f64);
                oldest.set(age.as_secs_f64());
            }
        }
    }

    fn set_tiers(&self, workspace: &str, currency: &str, tiers: &Tiers) {
        let handles = self.tiers.get(workspace).get(currency);
        for (index, number) in tiers.iter().flatten().flatten().enumerate() {
            if let Some(gauge) = handles.at(index) {
                gauge.set(*number);
            }
        }
    }
}
