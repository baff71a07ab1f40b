//! The base at a glance: customers by stage, and customers, value and equity by tier and attrition (R21, R22, R24, R38, R50),
//! complaints by phase (R66), and who belongs to which company (R49). One pass over any customers in any order, in memory that does not grow with them: values
//! are counted in cells of 1.6 % ([`vigie_scoring::tiers`]), and a cell belongs to one tier. Censuses of different customers add
//! up. Only the members of companies are kept by name.
//!
//! Who refuses profiling is counted as not to be contacted and not looked at any further. Currencies are never added up.

use crate::account::Accounts;
use crate::complaint::{Complaint, ComplaintPhase};
use crate::report::portfolio::BANDS;
use crate::stage::LifeStage;
use std::collections::BTreeMap;
use vigie_event::{ConsentState, Currency, CustomerKey, Purpose, Timestamp, Workspace};
use vigie_scoring::tiers::{Tier, ValueSketch, cell, middle};
use vigie_scoring::{CustomerState, Glance, Model, Stage, glance};

/// The tiers, from the most valuable.
pub const TIERS: [Tier; 3] = [Tier::A, Tier::B, Tier::C];

/// Sums over some customers; money in major units.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// How many.
    pub customers: u64,
    /// Margin to be expected of them in the coming year.
    pub current: f64,
    /// Their lifetime value: customer equity.
    pub lifetime: f64,
    /// What is at stake.
    pub at_stake: f64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.customers += other.customers;
        self.current += other.current;
        self.lifetime += other.lifetime;
        self.at_stake += other.at_stake;
    }
}

/// By attrition: below the first of [`BANDS`], between two of them, from the last on.
pub type ByAttrition = [Tally; BANDS.len() + 1];

/// The customers of a workspace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Base {
    stages: [u64; LifeStage::ALL.len()],
    /// How many complaints are in each phase, and since when the oldest is.
    complaints: [(u64, Option<Timestamp>); ComplaintPhase::ALL.len()],
    /// By currency and cell of the current value; `None` is a value of 0 or less.
    cells: BTreeMap<Currency, BTreeMap<Option<u16>, ByAttrition>>,
}

impl Base {
    /// Customers by stage.
    pub fn stages(&self) -> impl Iterator<Item = (LifeStage, u64)> {
        LifeStage::ALL.iter().copied().zip(self.stages)
    }

    /// Complaints by phase, with the instant since when the oldest is in it (R66).
    pub fn complaints(&self) -> impl Iterator<Item = (ComplaintPhase, u64, Option<Timestamp>)> {
        let phases = ComplaintPhase::ALL.into_iter().zip(self.complaints);
        phases.map(|(phase, (count, oldest))| (phase, count, oldest))
    }

    /// By currency: tiers from the most valuable, each by attrition.
    pub fn currencies(&self) -> impl Iterator<Item = (Currency, [ByAttrition; TIERS.len()])> {
        self.cells.iter().map(|(currency, cells)| {
            let mut sketch = ValueSketch::default();
            let count = |bands: &ByAttrition| bands.iter().map(|tally| tally.customers).sum::<u64>();
            for (cell, bands) in cells {
                if let Some(cell) = cell {
                    sketch.add_many(middle(*cell), count(bands));
                }
            }
            let mut tiers = [ByAttrition::default(); TIERS.len()];
            for (cell, bands) in cells {
                let tier = cell.map_or(Tier::C, |cell| sketch.tier(middle(cell)));
                let sums = tiers.iter_mut().zip(TIERS).find(|(_, of)| *of == tier);
                for (sum, tally) in sums.into_iter().flat_map(|(sums, _)| sums).zip(bands) {
                    sum.add(tally);
                }
            }
            (*currency, tiers)
        })
    }

    fn complains(&mut self, complaint: &Complaint) {
        let mut phases = self.complaints.iter_mut().zip(ComplaintPhase::ALL);
        if let Some(((count, oldest), _)) = phases.find(|(_, phase)| *phase == complaint.phase) {
            *count += 1;
            *oldest = [*oldest, Some(complaint.since)].into_iter().flatten().min();
        }
    }

    fn note(&mut self, stage: LifeStage, glance: Option<&Glance>) {
        if let Some(count) = self.stages.iter_mut().zip(LifeStage::ALL).find(|(_, of)| **of == stage) {
            *count.0 += 1;
        }
        let Some((glance, value)) = glance.and_then(|glance| Some((glance, glance.value?))) else {
            return;
        };
        let minor = value.current * 10_f64.powi(i32::try_from(value.currency.exponent()).unwrap_or_default());
        let attrition = glance.attrition.unwrap_or(0.0);
        let band = BANDS.iter().filter(|from| attrition >= **from).count();
        let cells = self.cells.entry(value.currency).or_default();
        let bands = cells.entry(cell(minor as i64)).or_default();
        if let Some(tally) = bands.get_mut(band) {
            tally.add(&Tally {
                customers: 1,
                current: value.current,
                lifetime: value.lifetime,
                at_stake: value.at_stake,
            });
        }
    }

    fn merge(&mut self, other: &Self) {
        self.stages
            .iter_mut()
            .zip(other.stages)
            .for_each(|(ours, theirs)| *ours += theirs);
        for ((count, oldest), (more, since)) in self.complaints.iter_mut().zip(other.complaints) {
            *count += more;
            *oldest = [*oldest, since].into_iter().flatten().min();
        }
        for (currency, cells) in &other.cells {
            let ours = self.cells.entry(*currency).or_default();
            for (cell, theirs) in cells {
                let sums = ours.entry(*cell).or_default();
                sums.iter_mut().zip(theirs).for_each(|(sum, tally)| sum.add(tally));
            }
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Census {
    /// By workspace.
    pub bases: BTreeMap<Workspace, Base>,
    /// Companies and their members.
    pub accounts: Accounts,
}

impl Census {
    /// Looks at a customer; signposts to others are left out.
    pub fn note(&mut self, key: &CustomerKey, state: &CustomerState, model: &Model, now: Timestamp) {
        if state.linked_to.is_some() {
            return;
        }
        self.accounts.note(key, state);
        let said = state.consent.get(&Purpose::Profiling);
        let seen = match said.map(|said| said.state) {
            Some(ConsentState::Refused) => None,
            _ => Some(glance(state, model, now)),
        };
        let by_activity = seen.as_ref().map_or(Stage::Prospect, |seen| seen.stage);
        let stage = LifeStage::of(state, by_activity, now);
        let base = match self.bases.get_mut(&key.workspace) {
            Some(base) => base,
            None => self.bases.entry(key.workspace.clone()).or_default(),
        };
        base.note(stage, seen.as_ref());
        if let Some(complaint) = Complaint::of(state) {
            base.complains(&complaint);
        }
    }

    /// Adds a census of other customers.
    pub fn merge(&mut self, other: Self) {
        for (workspace, base) in &other.bases {
            self.bases.entry(workspace.clone()).or_default().merge(base);
        }
        self.accounts.merge(other.accounts);
    }
}
