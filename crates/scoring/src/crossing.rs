//! When will a silent customer's score reach a threshold?
//!
//! Attrition, and churn without a fitted churn model, are monotone in time, so the first millisecond at which one is at or above a threshold is well defined; it
//! is found exactly, by bisection over integers on the very predicate that the score is later judged by. Closed forms only
//! narrow the bracket: they can be off by rounding, the answer cannot. Churn under a fitted model moves at midnights only, and
//! both ways with the season: there the first day is searched for exactly, stretch by stretch.
//!
//! This file never looks at the record: a [`Scorer`] has read it once.

use crate::features::{ScoreKind, Scorer};
use crate::model::Model;
use crate::state::CustomerState;
use vigie_event::{DAY_MS, Day, Timestamp};

/// No search goes further ahead than this many days (some 200 years): beyond it, arithmetic of time loses its meaning.
const MAX_DAYS: i64 = 73_000;

/// The first millisecond in `from..=until` at which the score is at or above `threshold`, provided that nothing more is
/// heard of the customer; `None` when there is none, or no score. `from` itself when the score is there already.
#[must_use]
pub fn first_crossing(
    state: &CustomerState,
    model: &Model,
    kind: ScoreKind,
    threshold: f64,
    from: Timestamp,
    until: Timestamp,
) -> Option<Timestamp> {
    Scorer::of(state, model).first_crossing(kind, threshold, from, until)
}

/// The first millisecond in `from..=until` at which attrition, or churn over the model's default horizon, is higher by
/// [`Model::refresh_drift`] than at `from`; `None` when neither gets there.
#[must_use]
pub fn next_refresh(state: &CustomerState, model: &Model, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
    Scorer::of(state, model).next_refresh(from, until)
}

impl Scorer<'_> {
    /// See [`first_crossing`].
    #[must_use]
    pub fn first_crossing(
        &self,
        kind: ScoreKind,
        threshold: f64,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Timestamp> {
        let until = until.min(from.plus_ms(MAX_DAYS * DAY_MS));
        if let ScoreKind::Churn(days) = kind
            && let Some(found) = self.churn_leaves(days, (f64::NEG_INFINITY, threshold), from, until)
        {
            return found;
        }
        let reached = |at: Timestamp| self.score(kind, at).is_ok_and(|score| score >= threshold);
        if reached(from) {
            return Some(from);
        }
        if until <= from || !reached(until) {
            return None;
        }
        // Purchases change the score only at midnight, so the day comes first, then the millisecond within it.
        let (low, high) = bracket_days(from, until, reached);
        if !reached(high.plus_ms(-1)) {
            return Some(high);
        }
        let guess = match kind {
            ScoreKind::Attrition => self.engagement_crossing(crate::btyd::logit(threshold), low),
            ScoreKind::Churn(_) => None,
        };
        Some(bisect(low, high, guess, reached))
    }

    /// The first instant in `from..=until` at which the score is at or above `range.1`, or below `range.0`, provided that
    /// nothing more is heard of the customer. Only churn under a fitted churn model can fall in silence.
    #[must_use]
    pub fn first_outside(
        &self,
        kind: ScoreKind,
        range: (f64, f64),
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Timestamp> {
        let until = until.min(from.plus_ms(MAX_DAYS * DAY_MS));
        if let ScoreKind::Churn(days) = kind
            // The search takes its lower bound as outside.
            && let Some(found) = self.churn_leaves(days, (range.0.next_down(), range.1), from, until)
        {
            return found;
        }
        self.first_crossing(kind, range.1, from, until)
    }

    /// See [`next_refresh`].
    #[must_use]
    pub fn next_refresh(&self, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let drift = self.model().refresh_drift;
        let drifted = |kind: ScoreKind, until: Timestamp| {
            let now = self.score(kind, from).ok()?;
            let until = until.min(from.plus_ms(MAX_DAYS * DAY_MS));
            // A season can bring churn down as well.
            if let ScoreKind::Churn(days) = kind
                && let Some(left) = self.churn_leaves(days, (now - drift, now + drift), from, until)
            {
                return left;
            }
            self.first_crossing(kind, now + drift, from, until)
        };
        let attrition = drifted(ScoreKind::Attrition, until);
        // Whatever churn does after attrition's due time does not matter.
        let churn = drifted(
            ScoreKind::Churn(self.model().default_horizon_days),
            attrition.unwrap_or(until),
        );
        [attrition, churn].into_iter().flatten().min()
    }
}

/// Narrows `from..until` (not reached at the start, reached at the end) to less than one UTC day, by doubling and bisection
/// over midnights.
fn bracket_days(from: Timestamp, until: Timestamp, reached: impl Fn(Timestamp) -> bool) -> (Timestamp, Timestamp) {
    let last = until.day().0;
    let mut low = from.day().0;
    let mut step = 1i32;
    let mut high = loop {
        let next = low.saturating_add(step);
        if next > last {
            break last.saturating_add(1);
        }
        if reached(Day(next).start()) {
            break next;
        }
        low = next;
        step = step.saturating_mul(2);
    };
    while high.saturating_sub(low) > 1 {
        let middle = low.midpoint(high);
        if reached(Day(middle).start()) {
            high = middle;
        } else {
            low = middle;
        }
    }
    (Day(low).start().max(from), Day(high).start().min(until))
}

/// The first instant in `low..=high` that is reached, given that `low` is not and `high` is. Starts around `guess`.
fn bisect(low: Timestamp, high: Timestamp, guess: Option<Timestamp>, reached: impl Fn(Timestamp) -> bool) -> Timestamp {
    let (mut low, mut high) = (low.0, high.0);
    let mut middle = guess.map_or(low.midpoint(high), |guess| guess.0);
    // Steps away from the guess double until it is bracketed; from then on the middle is taken.
    let (mut step, mut below, mut above) = (1i64, guess.is_none(), guess.is_none());
    while high - low > 1 {
        middle = middle.clamp(low + 1, high - 1);
        if reached(Timestamp(middle)) {
            high = middle;
            above = true;
        } else {
            low = middle;
            below = true;
        }
        middle = match (below, above) {
            (true, true) => low.midpoint(high),
            (false, _) => high.saturating_sub(step),
            (_, false) => low.saturating_add(step),
        };
        step = step.saturating_mul(2);
    }
    Timestamp(high)
}
