//! What a person has said about the use of their data, as an event reports it. It never decides what may be done:
//! the consent gate of the enrichment crate does.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What personal data is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Keeping a behavioural profile and computing scores.
    Profiling,
    /// Sending marketing messages.
    Marketing,
    /// Recording individual opens of e-mails.
    EmailOpenTracking,
}

/// A person's answer for one purpose. A purpose that is absent is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentState {
    /// Said yes.
    Granted,
    /// Said no, withdrew, or objected.
    Refused,
}

/// Answers by purpose. Bounded by the closed list of purposes.
pub type ConsentContext = BTreeMap<Purpose, ConsentState>;
