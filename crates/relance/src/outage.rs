//! Sources that were silent: what was not heard meanwhile is not held against the customers whom the source tells about.
//!
//! That a source was silent is a fact that no event tells: it stands in the policy file, which reaches the log as a control
//! record like every other setting. While the outage lasts, flags of the customers concerned are held. Once it is over, a
//! score counts their silence without it: a crossing at an instant c comes true later by the time for which the source was
//! silent between the customer's last such act and c. So nobody is flagged for what could not be heard, and nobody is
//! forgotten.

use crate::complaint::times;
use crate::policy::Policy;
use serde::Serialize;
use std::collections::BTreeSet;
use vigie_event::{Signal, Timestamp};
use vigie_scoring::{CustomerState, Scorer};

/// A source of events that was silent, or still is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outage {
    /// Its name, for people.
    pub source: String,
    /// What it brings; empty: everything.
    pub signals: BTreeSet<Signal>,
    /// Since when it was silent.
    pub from: Timestamp,
    /// Until when; `None` while it lasts.
    pub to: Option<Timestamp>,
}

impl Outage {
    /// When the customer was last heard of through it; `None` when they never were: it says nothing about them.
    fn heard(&self, state: &CustomerState) -> Option<Timestamp> {
        let told = |signal: &&Signal| match self.signals.is_empty() {
            true => signal.is_engagement(),
            false => self.signals.contains(*signal),
        };
        let signals = Signal::ALL.iter().filter(told);
        signals
            .filter_map(|signal| times(state, *signal).map(|times| times.last))
            .max()
    }
}

/// Whether a source that tells about the customer is silent now.
pub(crate) fn is_silent(outages: &[Outage], policy: &Policy, state: &CustomerState) -> bool {
    let lasts = |outage: &Outage| outage.to.is_none() && outage.heard(state).is_some();
    policy.score.score().is_some() && outages.iter().any(lasts)
}

/// Until when a threshold that is reached at `now` is held, since the silence is not all the customer's own; `None` when it
/// is reached without the outages too.
pub(crate) fn held(
    outages: &[Outage],
    policy: &Policy,
    threshold: f64,
    state: &CustomerState,
    scorer: &Scorer<'_>,
    now: Timestamp,
) -> Option<Timestamp> {
    let kind = policy.score.score().filter(|_| !outages.is_empty())?;
    let mut unheard: Vec<(Timestamp, Timestamp)> = Vec::new();
    let mut ends: Option<Timestamp> = None;
    for outage in outages {
        let (Some(to), Some(heard)) = (outage.to, outage.heard(state)) else {
            continue;
        };
        let (from, to) = (outage.from.max(heard), to);
        if from <= now && now < to {
            // An end that was announced.
            ends = ends.max(Some(to));
        }
        if from < to.min(now) {
            unheard.push((from, to.min(now)));
        }
    }
    if ends.is_some() {
        return ends;
    }
    let missed = length(unheard);
    if missed == 0 {
        return None;
    }
    let counted = now.plus_ms(-missed);
    let crossed = scorer.first_crossing(kind, threshold, counted, now)?;
    (crossed > counted).then(|| crossed.plus_ms(missed))
}

/// Milliseconds in any of the stretches.
fn length(mut stretches: Vec<(Timestamp, Timestamp)>) -> i64 {
    stretches.sort_unstable();
    let (mut sum, mut until) = (0, Timestamp(i64::MIN));
    for (from, to) in stretches {
        let from = from.max(until);
        if from < to {
            sum += to.ms_since(from);
            until = to;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_that_overlap_count_once() {
        let stretch = |from, to| (Timestamp(from), Timestamp(to));
        assert_eq!(
            length(vec![stretch(5, 9), stretch(0, 4), stretch(3, 6), stretch(3, 4)]),
            9
        );
        assert_eq!(length(vec![stretch(3, 3)]), 0);
        assert_eq!(length(Vec::new()), 0);
    }
}
