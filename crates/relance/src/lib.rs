//! Whom to contact now, why, when, how and at what cost: policies over scores.
//!
//! It owns the policy file, the decision whether a score that reached a threshold becomes a flag, the plan of the contact, the
//! flag with its stable identity and its course, and the statistics that say whether a policy works. It never sends anything,
//! never sees a model's inside (only scores, through the scoring crate's public face), never reads a clock, draws a random
//! number or logs: the same record at the same instant gives the same decision.
//!
//! A customer whose score reaches a threshold is flagged, held out, or refused, and a refusal always has a reason. Which
//! mechanism of the customer relation is answered where: `RULES.md`.

mod account;
mod band;
mod census;
mod complaint;
mod course;
mod decide;
mod flag;
mod holidays;
mod hours;
mod nearest;
mod outage;
mod plan;
mod policy;
mod predicate;
mod refusal;
mod rehearsal;
pub mod report;
mod row;
mod silence;
mod stage;
pub mod statistics;
mod worth;

pub use account::{Account, Accounts, Member};
pub use band::{Band, BandMeasure};
pub use census::{Base, ByAttrition, Census, TIERS, Tally};
pub use complaint::{Complaint, ComplaintPhase};
pub use course::note;
pub use decide::{Decision, Look, evaluate, next_due};
pub use flag::{BandMove, Flag, FlagKind, FlagReason, FlagScore};
pub use holidays::Country;
pub use hours::{Closed, OpenHour};
pub use outage::Outage;
pub use plan::{Plan, PlanReason};
pub use policy::{
    Calendar, Economics, Eligible, Group, Level, MarketingConsent, Measure, Offer, Play, Policy, PolicyError,
    PolicySet, Pressure, QuietHours, Segment, Stop, Target, Terms, Zone,
};
pub use predicate::{COLUMNS, Predicate, PredicateError};
pub use refusal::{Objection, Refusal, objection};
pub use rehearsal::{Contacts, Rehearsal, Rehearsed};
pub use row::Row;
pub use silence::{Silence, Silences};
pub use stage::LifeStage;
