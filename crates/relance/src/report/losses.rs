//! Why customers were lost, and whether we saw it in time (R48, R50, R59, R67, R69, R72).
//!
//! A customer is lost from the instant at which their attrition reached the model's level for *lapsed*, solved from their record;
//! they leave the list when they come back. Each loss has one cause, the first that applies of a fixed order: what the customer
//! or an agent said, then what the record shows of the time before, then silence. A cause is what stands before a loss, no
//! proof that it led to it. The path of the score is exact from the last sign of life on: before it, the record of now is not
//! that of then (`vigie explain` tells that from the archive).

use super::Money;
use crate::complaint::{Complaint, times};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{CustomerKey, DAY_MS, Signal, Timestamp};
use vigie_scoring::{CustomerState, Model, ScoreKind, Scorer, Stage, assess};

/// Losses that are named.
const NAMED: usize = 50;
/// Days before a loss that the path shows, and its steps.
const PATH_DAYS: i64 = 90;
const STEP_DAYS: i64 = 5;
/// Days before the last sign of life within which something counts as its cause.
const NEAR_DAYS: i64 = 60;
/// Days within which an answer to a complaint is in time (R68).
const DEADLINE_DAYS: i64 = 7;

/// A flag for a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    /// When.
    pub at: Timestamp,
    /// Held out: nobody was to be contacted.
    pub held_out: bool,
    /// The customer was contacted for it.
    pub contacted: bool,
}

/// What is known of a customer beside their record.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Their flags in order of time.
    pub flags: Vec<Raised>,
    /// Reasons that were said, by the customer or an agent, the last one last.
    pub said: Vec<String>,
    /// Causes of their complaints, as events named them.
    pub complaints: BTreeSet<String>,
}

macro_rules! labels {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// In words.
            #[must_use]
            pub const fn words(self) -> &'static str { match self { $(Self::$variant => $label,)* } }
        }
    };
}

labels! {
    /// Whether we saw a loss in time.
    Foresight {
        /// Flagged before the loss, and contacted.
        Contacted = "flagged in time and contacted",
        /// Flagged before the loss; nobody contacted them, as far as was reported.
        NotContacted = "flagged in time, no contact reported",
        /// Flagged before the loss, and held out.
        HeldOut = "held out for comparison",
        /// Flagged only after it.
        TooLate = "flagged too late",
        /// Refused: the last reason is on record.
        Refused = "refused by a policy",
        /// No policy has ever looked at them.
        Unseen = "never flagged",
    }
}

/// One loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Loss {
    /// The id.
    pub customer: String,
    /// The instant.
    pub lost_at: String,
    /// Last sign of life.
    pub last_activity: String,
    /// Expected margin of a year at the last sign of life, in major units of `currency`: what was lost.
    pub value: f64,
    /// ISO 4217 code.
    pub currency: String,
    /// Its cause.
    pub cause: String,
    /// Whether we saw it.
    pub foresight: Foresight,
    /// Days between the first flag in time and the loss.
    pub lead_days: Option<i64>,
    /// Why they were refused, where they were.
    pub refused: Option<&'static str>,
    /// Days from a contact of ours to the loss (R47); `None` if there never was one.
    pub since_attention_days: Option<i64>,
    /// Attrition at days before the loss (negative) from the last sign of life on.
    pub path: Vec<(i64, f64)>,
}

/// Losses that share a cause.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cause {
    /// What.
    pub cause: String,
    /// How many.
    pub customers: u64,
    /// Value lost, by currency, in minor units.
    pub value_minor: Money,
}

/// Customers who complained once, by when they were answered (R69).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Answered {
    /// How many.
    pub customers: u64,
    /// Of these, lost now.
    pub lost: u64,
}

/// Comings and goings of a month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Flow {
    /// First purchases.
    pub arrived: u64,
    /// Losses.
    pub lost: u64,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Losses {
    /// The instant that it holds for.
    pub as_of: String,
    /// Since when losses count.
    pub since: String,
    /// Customers who have ever bought.
    pub buyers: u64,
    /// Losses since then.
    pub lost: u64,
    /// Value lost, by currency, in minor units.
    pub value_minor: Money,
    /// Of the losses, those without any complaint (R48).
    pub silent: u64,
    /// Of all buyers, those who have ever complained (R72).
    pub complained: u64,
    /// Causes by the value that they cost.
    pub causes: Vec<Cause>,
    /// Causes of complaints by the value later lost with those who made them (R67).
    pub complaint_causes: Vec<Cause>,
    /// How many we saw, and how.
    pub foresight: BTreeMap<Foresight, u64>,
    /// Churn after one complaint, by the days until its answer: within the deadline, later, never.
    pub answered: BTreeMap<&'static str, Answered>,
    /// Comings and goings by month.
    pub flows: BTreeMap<String, Flow>,
    /// The greatest losses.
    pub named: Vec<Loss>,
}

/// Looks at customers one by one.
#[derive(Debug)]
pub struct Builder<'a> {
    model: &'a Model,
    now: Timestamp,
    since: Timestamp,
    report: Losses,
    causes: BTreeMap<String, Cause>,
    complaints: BTreeMap<String, Cause>,
}

impl<'a> Builder<'a> {
    /// Nobody looked at yet. Losses before `since` are left out.
    #[must_use]
    pub fn new(model: &'a Model, since: Timestamp, now: Timestamp) -> Self {
        Self {
            model,
            now,
            since,
            report: Losses {
                as_of: now.to_string(),
                since: since.to_string(),
                buyers: 0,
                lost: 0,
                value_minor: Money::new(),
                silent: 0,
                complained: 0,
                causes: Vec::new(),
                complaint_causes: Vec::new(),
                foresight: BTreeMap::new(),
                answered: BTreeMap::new(),
                flows: BTreeMap::new(),
                named: Vec::new(),
            },
            causes: BTreeMap::new(),
            complaints: BTreeMap::new(),
        }
    }

    /// Looks at a customer; signposts to others are left out.
    pub fn add(&mut self, key: &CustomerKey, state: &CustomerState, known: &Known) {
        let scorer = Scorer::of(state, self.model);
        let (Some(bought), None) = (scorer.features().purchases, &state.linked_to) else {
            return;
        };
        self.report.buyers += 1;
        if bought.first.start() >= self.since {
            self.flow(bought.first.start()).arrived += 1;
        }
        let complained = times(state, Signal::ComplaintOpened);
        self.report.complained += u64::from(complained.is_some());
        let is_lost = assess(state, self.model, self.now).stage == Stage::Lapsed;
        if complained.is_some_and(|complained| complained.count == 1) {
            let delay = delay(state);
            let answered = self.report.answered.entry(delay).or_default();
            answered.customers += 1;
            answered.lost += u64::from(is_lost);
        }
        if !is_lost {
            return;
        }
        let Some(heard) = scorer.features().engagement.map(|acts| acts.last) else {
            return;
        };
        let level = self.model.stages.lapsed;
        let kind = ScoreKind::Attrition;
        let Some(lost_at) = scorer.first_crossing(kind, level, heard, self.now) else {
            return;
        };
        if lost_at < self.since {
            return;
        }
        let value = assess(state, self.model, heard).value;
        let (value, currency) = value.map_or((0.0, None), |value| (value.current.max(0.0), Some(value.currency)));
        let minor = currency.map_or(0, |of| (value * crate::worth::units(of)).round() as i64);
        let cause = cause(state, known, heard, lost_at);
        let (foresight, lead_days, refused) = foresight(state, known, lost_at);
        self.report.lost += 1;
        self.report.silent += u64::from(complained.is_none());
        *self.report.foresight.entry(foresight).or_default() += 1;
        self.flow(lost_at).lost += 1;
        if let Some(of) = currency {
            super::add(&mut self.report.value_minor, of, minor);
        }
        let book = |causes: &mut BTreeMap<String, Cause>, name: &str| {
            let entry = causes.entry(name.to_owned()).or_insert_with(|| Cause {
                cause: name.to_owned(),
                ..Cause::default()
            });
            entry.customers += 1;
            if let Some(of) = currency {
                super::add(&mut entry.value_minor, of, minor);
            }
        };
        book(&mut self.causes, &cause);
        for name in &known.complaints {
            book(&mut self.complaints, name);
        }
        let attention = state.ledger.contacts.iter().map(|contact| contact.at);
        let attention = attention.filter(|at| *at <= lost_at).max();
        let steps = (0..=PATH_DAYS / STEP_DAYS).rev().map(|step| step * STEP_DAYS);
        let path = steps.filter_map(|days| {
            let at = lost_at.plus_ms(-days * DAY_MS);
            let score = scorer.score(kind, at).ok().filter(|_| at >= heard)?;
            Some((-days, score))
        });
        self.report.named.push(Loss {
            customer: key.person.to_string(),
            lost_at: lost_at.to_string(),
            last_activity: heard.to_string(),
            value,
            currency: currency.map(|of| of.to_string()).unwrap_or_default(),
            cause,
            foresight,
            lead_days,
            refused,
            since_attention_days: attention.map(|at| lost_at.ms_since(at) / DAY_MS),
            path: path.collect(),
        });
        // The list stays bounded however many are lost.
        if self.report.named.len() >= NAMED * 8 {
            self.keep_greatest();
        }
    }

    fn flow(&mut self, at: Timestamp) -> &mut Flow {
        let text = at.to_string();
        let month = text.get(..7).unwrap_or_default().to_owned();
        self.report.flows.entry(month).or_default()
    }

    fn keep_greatest(&mut self) {
        self.report.named.sort_by(|a, b| {
            let by_value = b.value.total_cmp(&a.value);
            by_value.then_with(|| a.customer.cmp(&b.customer))
        });
        self.report.named.truncate(NAMED);
    }

    /// The report.
    #[must_use]
    pub fn finish(mut self) -> Losses {
        self.keep_greatest();
        self.report.causes = ranked(self.causes);
        self.report.complaint_causes = ranked(self.complaints);
        self.report
    }
}

/// Causes by value, the currency with the greatest sum first; then by how many.
fn ranked(causes: BTreeMap<String, Cause>) -> Vec<Cause> {
    let mut all: Vec<Cause> = causes.into_values().collect();
    let worth = |cause: &Cause| cause.value_minor.values().copied().max().unwrap_or_default();
    all.sort_by(|a, b| {
        let by_value = worth(b).cmp(&worth(a)).then(b.customers.cmp(&a.customers));
        by_value.then_with(|| a.cause.cmp(&b.cause))
    });
    all
}

/// How long the only complaint of a customer waited for its answer.
fn delay(state: &CustomerState) -> &'static str {
    let opened = times(state, Signal::ComplaintOpened).map(|times| times.first);
    let answers = [Signal::ComplaintResolved, Signal::ComplaintClosed];
    let answered = answers
        .iter()
        .filter_map(|signal| times(state, *signal))
        .map(|times| times.first)
        .min();
    match opened.zip(answered) {
        None => "never",
        Some((opened, answered)) if answered.ms_since(opened) <= DEADLINE_DAYS * DAY_MS => "within the deadline",
        Some(_) => "later",
    }
}

/// The first cause that applies.
fn cause(state: &CustomerState, known: &Known, heard: Timestamp, lost_at: Timestamp) -> String {
    if let Some(said) = known.said.last() {
        return format!("said: {said}");
    }
    let near = |signal: Signal| {
        let last = times(state, signal).map(|times| times.last);
        last.is_some_and(|at| heard.ms_since(at) <= NEAR_DAYS * DAY_MS && at <= lost_at)
    };
    let complaint = Complaint::of(state).filter(|complaint| complaint.opened <= lost_at);
    let contacts = state.ledger.contacts.iter();
    let pressed = contacts
        .filter(|contact| contact.at <= heard && heard.ms_since(contact.at) <= 30 * DAY_MS)
        .count();
    let causes = [
        (
            complaint.is_some_and(|complaint| complaint.is_open()),
            "complaint without an answer",
        ),
        (
            complaint.is_some_and(|complaint| complaint.answered().is_some()),
            "complaint answered, not satisfied again",
        ),
        (near(Signal::SubscriptionCancelled), "subscription cancelled"),
        (
            near(Signal::PaymentFailed) || near(Signal::PaymentDisputed),
            "payment failed (involuntary)",
        ),
        (near(Signal::EmailComplaint), "reported our mail as spam"),
        (near(Signal::EmailUnsubscribe), "unsubscribed"),
        (
            near(Signal::Refund) || near(Signal::OrderCancel),
            "order given back or cancelled",
        ),
        (near(Signal::TierDown), "lost a loyalty tier"),
        (near(Signal::PageError), "errors on the site"),
        (near(Signal::CallAbandoned), "gave up waiting on the phone"),
        (pressed >= 4, "contacted four times within a month"),
    ];
    let found = causes.iter().find(|(applies, _)| *applies);
    found.map_or("silence, no reason known", |(_, words)| *words).to_owned()
}

fn foresight(
    state: &CustomerState,
    known: &Known,
    lost_at: Timestamp,
) -> (Foresight, Option<i64>, Option<&'static str>) {
    // What was flagged before the customer was last there was another story.
    let heard = state.combined().last_activity().unwrap_or(Timestamp(i64::MIN));
    let own: Vec<&Raised> = known.flags.iter().filter(|flag| flag.at > heard).collect();
    let in_time: Vec<&&Raised> = own.iter().filter(|flag| flag.at <= lost_at).collect();
    let lead = in_time.first().map(|flag| lost_at.ms_since(flag.at) / DAY_MS);
    let refused = state.ledger.policies.values().filter_map(|entry| entry.refused);
    let refused = refused
        .filter_map(|code| crate::Refusal::ALL.iter().find(|reason| reason.code() == code))
        .map(|reason| reason.label())
        .next();
    let seen = if in_time.iter().any(|flag| flag.contacted) {
        Foresight::Contacted
    } else if in_time.iter().any(|flag| !flag.held_out) {
        Foresight::NotContacted
    } else if !in_time.is_empty() {
        Foresight::HeldOut
    } else if !own.is_empty() {
        Foresight::TooLate
    } else if refused.is_some() {
        Foresight::Refused
    } else {
        Foresight::Unseen
    };
    (seen, lead, refused)
}
