//! The complaint clock (R62 to R71): where a customer's complaint stands and since when, read out of when each kind of
//! complaint signal was first and last seen. It never decides what is owed for it: policies and the model do.
//!
//! The record knows no single cases: a customer has one complaint, opened by the first of them that is not answered. It knows
//! no promised date either: what is promised is a policy's threshold.

use crate::state::{CustomerState, Part, Recency};
use vigie_event::{Signal, Timestamp};

/// The six phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ComplaintPhase {
    /// Made.
    Opened,
    /// Its receipt is acknowledged.
    Acknowledged,
    /// Answered with a solution.
    Resolved,
    /// Its file is closed.
    Closed,
    /// The customer has said that they are satisfied again.
    Resatisfied,
    /// Taken up again after an answer.
    Reopened,
}

impl ComplaintPhase {
    /// Every one, in their order.
    pub const ALL: [Self; 6] = [
        Self::Opened,
        Self::Acknowledged,
        Self::Resolved,
        Self::Closed,
        Self::Resatisfied,
        Self::Reopened,
    ];

    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
            Self::Closed => "closed",
            Self::Resatisfied => "resatisfied",
            Self::Reopened => "reopened",
        }
    }
}

/// A customer's complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complaint {
    /// Where it stands.
    pub phase: ComplaintPhase,
    /// When that phase began.
    pub since: Timestamp,
    /// When what is not answered yet was made, or else what was answered last.
    pub opened: Timestamp,
    /// Whether it was judged grave since.
    pub grave: bool,
}

impl Complaint {
    /// The complaint of a record; `None` without any.
    #[must_use]
    pub fn of(state: &CustomerState) -> Option<Self> {
        Self::read(|signal| {
            let all = state.parts.values().filter_map(|part| part.signal(signal));
            all.reduce(|a, b| Recency {
                first: a.first.min(b.first),
                last: a.last.max(b.last),
                count: a.count.saturating_add(b.count),
            })
        })
    }

    /// The complaint of a part (or the sum of several).
    #[must_use]
    pub fn of_part(part: &Part) -> Option<Self> {
        Self::read(|signal| part.signal(signal))
    }

    fn read(times: impl Fn(Signal) -> Option<Recency>) -> Option<Self> {
        let last = |signal| times(signal).map(|times| times.last);
        let made = times(Signal::ComplaintOpened);
        let phases = [
            (made.map(|made| made.last), ComplaintPhase::Opened),
            (last(Signal::ComplaintAcknowledged), ComplaintPhase::Acknowledged),
            (last(Signal::ComplaintResolved), ComplaintPhase::Resolved),
            (last(Signal::ComplaintClosed), ComplaintPhase::Closed),
            (last(Signal::ComplaintResatisfied), ComplaintPhase::Resatisfied),
            (last(Signal::ComplaintReopened), ComplaintPhase::Reopened),
        ];
        let (since, phase) = phases
            .iter()
            .filter_map(|(at, phase)| at.map(|at| (at, *phase)))
            .max()?;
        let answered = [last(Signal::ComplaintResolved), last(Signal::ComplaintClosed)];
        let answered = answered.into_iter().flatten().max();
        let opened = match made {
            Some(made) if answered.is_none_or(|answered| made.first > answered) => made.first,
            _ => {
                let again = [made.map(|made| made.last), last(Signal::ComplaintReopened)];
                again.into_iter().flatten().max().unwrap_or(since)
            }
        };
        Some(Self {
            phase,
            since,
            opened,
            grave: last(Signal::ComplaintGrave).is_some_and(|at| at >= opened),
        })
    }

    /// `true` while the customer waits for an answer.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(
            self.phase,
            ComplaintPhase::Opened | ComplaintPhase::Acknowledged | ComplaintPhase::Reopened
        )
    }

    /// When the answer was given, while the customer has not said what they think of it (R65).
    #[must_use]
    pub const fn answered(&self) -> Option<Timestamp> {
        match self.phase {
            ComplaintPhase::Resolved | ComplaintPhase::Closed => Some(self.since),
            _ => None,
        }
    }
}
