//! What a set of policies would do with the present customers if it were put in force now: the very decision, customer by
//! customer, on copies of their records. It counts, and never changes anything.

use crate::complaint::Complaint;
use crate::decide::{Decision, Look, evaluate};
use crate::flag::FlagKind;
use crate::policy::{Measure, Policy, PolicySet};
use crate::refusal::Refusal;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Channel, CustomerKey, Timestamp};
use vigie_scoring::{CustomerState, Model, Scorer};

/// What one policy would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rehearsed {
    /// Customers at the threshold or above.
    pub reached: u64,
    /// Of these, those who would be flagged at once, to be contacted.
    pub flagged: u64,
    /// Those who would be flagged at once and held out.
    pub held_out: u64,
    /// Those who would be refused, by the reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Those with whom the policy rests: flagged before and not recovered, or within a cooldown.
    pub resting: u64,
    /// Contacts by channel; `any` where the policy names none.
    pub channels: BTreeMap<String, Contacts>,
    /// What the contacts would cost, in major units of the currency of costs.
    pub cost: f64,
    /// What is at stake with those who would be contacted, in minor units, by currency.
    pub at_stake_minor: BTreeMap<String, i64>,
}

/// Contacts by one channel.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Contacts {
    /// How many.
    pub count: u64,
    /// What they would cost.
    pub cost: f64,
    /// Days that they take at the policy's capacity for the channel; `None` without one.
    pub days: Option<u64>,
}

/// Counts what a set would do, customer by customer.
#[derive(Debug)]
pub struct Rehearsal<'a> {
    set: &'a PolicySet,
    model: &'a Model,
    now: Timestamp,
    /// Customers looked at.
    pub customers: u64,
    policies: BTreeMap<String, Rehearsed>,
}

impl<'a> Rehearsal<'a> {
    /// Nobody looked at yet.
    #[must_use]
    pub fn new(set: &'a PolicySet, model: &'a Model, now: Timestamp) -> Self {
        let policies = set.policies.iter().map(|policy| policy.id.to_string());
        Self {
            set,
            model,
            now,
            customers: 0,
            policies: policies.map(|id| (id, Rehearsed::default())).collect(),
        }
    }

    /// Looks at one customer; signposts to others are left out.
    pub fn add(&mut self, key: &CustomerKey, state: &CustomerState) {
        if state.linked_to.is_some() {
            return;
        }
        self.customers += 1;
        let scorer = Scorer::of(state, self.model);
        let mut copy = state.clone();
        let mut look = Look {
            key,
            state: &mut copy,
            scorer: &scorer,
            model: self.model,
            now: self.now,
            purchase: None,
        };
        let decisions = evaluate(self.set, &mut look);
        let mut decided: BTreeSet<String> = BTreeSet::new();
        for decision in decisions {
            match decision {
                Decision::Flag { flag, .. } => {
                    let _ = decided.insert(flag.policy.clone());
                    let Some(own) = self.policies.get_mut(&flag.policy) else {
                        continue;
                    };
                    own.reached += 1;
                    if flag.kind == FlagKind::HeldOut {
                        own.held_out += 1;
                        continue;
                    }
                    own.flagged += 1;
                    if let (Some(minor), Some(currency)) = (flag.plan.at_stake_minor, &flag.plan.currency) {
                        let sum = own.at_stake_minor.entry(currency.clone()).or_default();
                        *sum = sum.saturating_add(minor);
                    }
                    let name = flag.plan.channel.unwrap_or_else(|| "any".to_owned());
                    own.channels.entry(name).or_default().count += 1;
                }
                Decision::Moved { .. } => {}
                Decision::Refused { policy, reason } => {
                    if let Some(own) = self.policies.get_mut(&policy) {
                        own.reached += 1;
                        *own.refused.entry(reason.label()).or_default() += 1;
                    }
                    let _ = decided.insert(policy);
                }
                Decision::Ended { .. } => {}
            }
        }
        for policy in &self.set.policies {
            if decided.contains(policy.id.as_str()) || !self.reached(policy, key, state, &scorer) {
                continue;
            }
            let Some(own) = self.policies.get_mut(policy.id.as_str()) else {
                continue;
            };
            own.reached += 1;
            // A refusal that is on record already is not decided anew.
            let entry = copy.ledger.policies.get(&policy.id);
            let refused = entry.and_then(|entry| entry.refused);
            match Refusal::ALL.iter().find(|reason| Some(reason.code()) == refused) {
                Some(reason) => *own.refused.entry(reason.label()).or_default() += 1,
                None => own.resting += 1,
            }
        }
    }

    fn reached(&self, policy: &Policy, key: &CustomerKey, state: &CustomerState, scorer: &Scorer<'_>) -> bool {
        let (terms, _) = crate::decide::terms_for(policy, key, state, scorer);
        match policy.score {
            Measure::Score(kind) => scorer.score(kind, self.now).is_ok_and(|score| score >= terms.threshold),
            clock => {
                let since = Complaint::of(state).and_then(|complaint| match clock {
                    Measure::ClosureAge => complaint.answered(),
                    _ => complaint.is_open().then_some(complaint.opened),
                });
                since.is_some_and(|since| since.plus_ms(crate::decide::days_ms(terms.threshold)) <= self.now)
            }
        }
    }

    /// What each policy would do, in the order of the file.
    #[must_use]
    pub fn finish(mut self) -> Vec<(String, Rehearsed)> {
        let mut all = Vec::new();
        for policy in &self.set.policies {
            let Some(mut own) = self.policies.remove(policy.id.as_str()) else {
                continue;
            };
            for (name, contacts) in &mut own.channels {
                let channel = Channel::parse(name);
                let offer = policy.channels.iter().find(|offer| Some(offer.channel) == channel);
                contacts.cost = offer.map_or(0.0, |offer| offer.cost * contacts.count as f64);
                let most = offer.and_then(|offer| offer.capacity).map(u64::from);
                contacts.days = most.map(|most| contacts.count.div_ceil(most.max(1)));
                own.cost += contacts.cost;
            }
            all.push((policy.id.to_string(), own));
        }
        all
    }
}
