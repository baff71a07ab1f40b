//! Whom to contact now, and why: policies over scores.
//!
//! It owns the policy file, the decision whether a score that reached a threshold becomes a flag, and the flag with its
//! stable identity. It never sends anything, never sees a model's inside (only scores, through the scoring crate's public
//! face), never reads a clock, draws a random number or logs: the same record at the same instant gives the same decision.
//!
//! A customer whose score reaches a threshold is flagged, held out, or refused, and a refusal always has a reason.

mod decide;
mod flag;
mod policy;

pub use decide::{Decision, Look, Refusal, evaluate, next_due};
pub use flag::{Flag, FlagKind, FlagReason, FlagScore};
pub use policy::{Eligible, MarketingConsent, Policy, PolicyError, PolicySet};
