//! Which visit does an act belong to? Acts of a person no more than 30 minutes apart are one visit (the convention of
//! web analytics). This step only tells; the record of visits is kept, order-free, by the scoring crate's state.

use crate::History;
use vigie_event::{Agent, SessionVerdict, Signal, Timestamp};

/// Longest silence within a visit, in milliseconds, inclusive.
pub const VISIT_GAP_MS: i64 = 30 * 60 * 1000;

/// A visit as known so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// Its first act.
    pub start: Timestamp,
    /// Its last act.
    pub end: Timestamp,
}

pub(crate) fn judge(signal: Signal, agent: &Agent, at: Timestamp, known: &impl History) -> SessionVerdict {
    if !signal.is_engagement() || !agent.is_human() {
        return SessionVerdict::None;
    }
    match known.visit_near(at) {
        Some(visit) if at.ms_since(visit.end) <= VISIT_GAP_MS && visit.start.ms_since(at) <= VISIT_GAP_MS => {
            SessionVerdict::Continues {
                since: visit.start.min(at),
            }
        }
        _ => SessionVerdict::Starts,
    }
}
