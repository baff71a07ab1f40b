//! Companies (R49): several contacts, one account. Who belongs to which is what customers' events said last (`identity.group`); what
//! a company is worth and how it drifts follows from its members as they are at the moment of asking.
//!
//! A company's attrition is the mean of its members' by their share in its activity, since one that never does anything says
//! nothing by doing nothing. Its key contacts are the most active members who together make up four fifths of the activity;
//! the company is at risk when its mean is, or when a key contact's attrition is.

use crate::stage::LifeStage;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{AccountId, ConsentState, Currency, CustomerKey, PersonId, Purpose, Timestamp, Workspace};
use vigie_scoring::{CustomerState, Model, glance};

/// Share of the activity that key contacts make up.
const KEY_SHARE: f64 = 0.8;

/// Which customers belong to which company, as some look at the base has found it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accounts {
    members: BTreeMap<Workspace, BTreeMap<AccountId, BTreeSet<PersonId>>>,
}

impl Accounts {
    pub(crate) fn note(&mut self, key: &CustomerKey, state: &CustomerState) {
        if let Some(account) = &state.account {
            let of = self.members.entry(key.workspace.clone()).or_default();
            let _ = of.entry(account.id.clone()).or_default().insert(key.person.clone());
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (workspace, accounts) in other.members {
            let ours = self.members.entry(workspace).or_default();
            for (id, members) in accounts {
                ours.entry(id).or_default().extend(members);
            }
        }
    }

    /// The members of a company; `None` for one without any.
    #[must_use]
    pub fn members(&self, workspace: &Workspace, id: &AccountId) -> Option<&BTreeSet<PersonId>> {
        self.members.get(workspace)?.get(id)
    }

    /// The companies of a workspace behind one, by id.
    pub fn after<'a>(
        &'a self,
        workspace: &Workspace,
        after: Option<&AccountId>,
    ) -> impl Iterator<Item = (&'a AccountId, &'a BTreeSet<PersonId>)> {
        use std::ops::Bound;
        let from = after.cloned().map_or(Bound::Unbounded, Bound::Excluded);
        let of = self.members.get(workspace);
        of.into_iter()
            .flat_map(move |of| of.range((from.clone(), Bound::Unbounded)))
    }
}

/// One contact of a company.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Who.
    pub customer: PersonId,
    /// Stage of the life cycle.
    pub stage: LifeStage,
    /// Attrition; `None` where there is nothing to judge by, or where profiling is refused.
    pub attrition: Option<f64>,
    /// Days with a sign of life, in the window of 400 days.
    pub active_days: u32,
    /// Whether one of those who make up most of the activity.
    pub key: bool,
    /// Currency, value of the coming year, value at stake, in major units.
    value: Option<(Currency, f64, f64)>,
}

/// A company.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Members, the most active first.
    pub members: Vec<Member>,
    /// Mean attrition by share in the activity; `None` where no member's is known.
    pub attrition: Option<f64>,
    /// The key contact who drifts most.
    pub most_drifting: Option<PersonId>,
    /// Whether the company is about to be lost: the mean, or a key contact, is at or above the model's stage at risk.
    pub at_risk: bool,
    /// By currency: value of the coming year, and what of it is at stake.
    pub value: BTreeMap<Currency, (f64, f64)>,
}

impl Account {
    /// A company of these members. Records that have moved to another customer, or belong to another company by now, are to
    /// be left out by the caller.
    #[must_use]
    pub fn of<'a>(
        members: impl IntoIterator<Item = (&'a CustomerKey, &'a CustomerState)>,
        model: &Model,
        now: Timestamp,
    ) -> Self {
        let mut members: Vec<Member> = members
            .into_iter()
            .map(|(key, state)| member(key, state, model, now))
            .collect();
        members.sort_by(|a, b| {
            b.active_days
                .cmp(&a.active_days)
                .then_with(|| a.customer.cmp(&b.customer))
        });
        let weight = |member: &Member| f64::from(member.active_days);
        let all: f64 = members.iter().map(weight).sum();
        let mut before = 0.0;
        for member in &mut members {
            member.key = member.active_days > 0 && before < KEY_SHARE * all;
            before += f64::from(member.active_days);
        }
        let judged = members
            .iter()
            .filter_map(|member| Some((weight(member), member.attrition?)));
        let (weights, sum) = judged.fold((0.0, 0.0), |(weights, sum), (weight, attrition)| {
            (weights + weight, sum + weight * attrition)
        });
        let attrition = (weights > 0.0).then(|| sum / weights);
        let drifting = members
            .iter()
            .filter(|member| member.key)
            .filter_map(|member| Some((member, member.attrition?)))
            // Of equals the more active one.
            .reduce(|most, next| if next.1 > most.1 { next } else { most });
        let most_drifting = drifting.map(|(member, _)| member.customer.clone());
        let worst = drifting.map(|(_, attrition)| attrition);
        let at_risk = [attrition, worst]
            .into_iter()
            .flatten()
            .any(|one| one >= model.stages.at_risk);
        let mut value: BTreeMap<Currency, (f64, f64)> = BTreeMap::new();
        for (currency, current, at_stake) in members.iter().filter_map(|member| member.value) {
            let sums = value.entry(currency).or_default();
            *sums = (sums.0 + current, sums.1 + at_stake);
        }
        Self {
            members,
            attrition,
            most_drifting,
            at_risk,
            value,
        }
    }
}

fn member(key: &CustomerKey, state: &CustomerState, model: &Model, now: Timestamp) -> Member {
    let said = state.consent.get(&Purpose::Profiling);
    let refused = said.is_some_and(|said| said.state == ConsentState::Refused);
    let seen = glance(state, model, now);
    Member {
        customer: key.person.clone(),
        stage: LifeStage::of(state, seen.stage, now),
        attrition: seen.attrition.filter(|_| !refused),
        active_days: if refused { 0 } else { seen.active_days },
        key: false,
        value: seen
            .value
            .filter(|_| !refused)
            .map(|value| (value.currency, value.current, value.at_stake)),
    }
}
