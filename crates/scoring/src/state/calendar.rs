//! The activity calendar: what a person did on each UTC day, and in which sessions.
//!
//! Only human engagement enters (see [`super::Part::apply`]). The calendar of a set of observations does not depend on
//! their order, and the calendar of a union is the union of the calendars: counts add up, session intervals unite.
//!
//! Bound: the 400 days up to the newest active day ([`WINDOW_DAYS`]); a day that falls out of the window is dropped, one
//! that arrives late for it is not taken in. Nothing is lost by that: the totals per signal live in the part and count
//! every day, so what older days hold together is the difference.
//!
//! Two flat lists rather than a list of days with lists of their own: a record is decoded for every event, and each list is
//! an allocation.

use super::SortedMap;
use vigie_event::{DAY_MS, Day, Signal, Timestamp};

/// Days kept: the newest active day and the 399 before it.
pub const WINDOW_DAYS: i32 = 400;
/// Two actions belong to one session when at most this many seconds lie between them.
pub const SESSION_GAP_S: i64 = 30 * 60;

pub(super) const DAY_S: i64 = DAY_MS / 1000;

/// A stretch of activity in seconds since the epoch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// Second of the first action.
    pub start: i64,
    /// Second of the last action.
    pub end: i64,
}

impl Session {
    /// The instant of its first second.
    #[must_use]
    pub fn start_at(self) -> Timestamp {
        Timestamp(self.start.saturating_mul(1000))
    }

    /// The instant of its last second.
    #[must_use]
    pub fn end_at(self) -> Timestamp {
        Timestamp(self.end.saturating_mul(1000))
    }

    /// The day on which it starts.
    pub(super) fn day(self) -> Day {
        self.start_at().day()
    }
}

/// Activity within the window.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Calendar {
    /// Actions per day and signal: saturating counters, bounded by the window and the closed list of signals.
    counts: SortedMap<(Day, Signal), u32>,
    /// In order, each within one UTC day, more than [`SESSION_GAP_S`] apart within a day, hence at most 48 a day.
    sessions: Vec<Session>,
}

impl Calendar {
    /// Notes one human action.
    pub(crate) fn note(&mut self, at: Timestamp, signal: Signal) {
        let second = at.0.div_euclid(1000);
        self.add_count(at.day(), signal, 1);
        self.add_session(Session {
            start: second,
            end: second,
        });
        self.forget_old_days();
    }

    /// Takes in another person's calendar.
    pub(crate) fn unite(&mut self, other: &Self) {
        for ((day, signal), count) in other.counts.iter() {
            self.add_count(*day, *signal, *count);
        }
        for session in &other.sessions {
            self.add_session(*session);
        }
        self.forget_old_days();
    }

    /// Actions per day and signal, in order.
    pub fn counts(&self) -> impl DoubleEndedIterator<Item = (Day, Signal, u32)> + ExactSizeIterator {
        self.counts.iter().map(|((day, signal), count)| (*day, *signal, *count))
    }

    /// The active days in order.
    pub fn days(&self) -> impl Iterator<Item = Day> {
        let mut before = None;
        self.counts
            .iter()
            .filter_map(move |((day, _), _)| (before.replace(*day) != Some(*day)).then_some(*day))
    }

    /// Number of active days in the window.
    #[must_use]
    pub fn active_days(&self) -> usize {
        self.days().count()
    }

    /// Number of active days from `from` to `to`, both included.
    #[must_use]
    pub fn active_days_between(&self, from: Day, to: Day) -> usize {
        self.days().filter(|day| (from..=to).contains(day)).count()
    }

    /// The second (as an instant) of the first action in the window.
    #[must_use]
    pub fn first_action(&self) -> Option<Timestamp> {
        self.sessions.first().map(|session| session.start_at())
    }

    /// Sessions in the window in order; one that runs across midnight is one.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        let mut joined: Vec<Session> = Vec::with_capacity(self.sessions.len());
        for session in &self.sessions {
            match joined.last_mut() {
                Some(last) if session.start - last.end <= SESSION_GAP_S => last.end = session.end,
                _ => joined.push(*session),
            }
        }
        joined
    }

    /// The session that an action at `at` belongs to: the newest one with at most [`SESSION_GAP_S`] between them. It is the
    /// whole session, also when it runs across midnight.
    #[must_use]
    pub fn session_near(&self, at: Timestamp) -> Option<Session> {
        let gap = SESSION_GAP_S * 1000;
        let (until_now, later) = self
            .sessions
            .split_at_checked(self.sessions.partition_point(|s| s.start_at().ms_since(at) <= gap))?;
        let (newest, earlier) = until_now.split_last()?;
        if at.ms_since(newest.end_at()) > gap {
            return None;
        }
        let mut whole = *newest;
        for before in earlier.iter().rev() {
            if whole.start - before.end > SESSION_GAP_S {
                break;
            }
            whole.start = before.start;
        }
        for after in later {
            if after.start - whole.end > SESSION_GAP_S {
                break;
            }
            whole.end = after.end;
        }
        Some(whole)
    }

    /// Sessions as they are kept: cut at midnight.
    pub(super) fn daily_sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Rebuilds a calendar from stored lists; `None` when they break its invariants.
    pub(super) fn restore(counts: SortedMap<(Day, Signal), u32>, sessions: Vec<Session>) -> Option<Self> {
        let apart = sessions.windows(2).all(|pair| match pair {
            [before, after] if before.day() == after.day() => before.end + SESSION_GAP_S < after.start,
            [before, after] => before.end < after.start,
            _ => true,
        });
        let whole = sessions
            .iter()
            .all(|s| s.start <= s.end && s.end < s.day().start().0 / 1000 + DAY_S);
        let calendar = Self { counts, sessions };
        let mut session_days: Vec<Day> = calendar.sessions.iter().map(|s| s.day()).collect();
        session_days.dedup();
        (apart && whole && calendar.days().eq(session_days)).then_some(calendar)
    }

    fn add_count(&mut self, day: Day, signal: Signal, by: u32) {
        if day > self.newest_forgotten() {
            self.counts
                .update((day, signal), 0, |count| *count = count.saturating_add(by));
        }
    }

    fn add_session(&mut self, new: Session) {
        let day = new.day();
        if day <= self.newest_forgotten() {
            return;
        }
        let midnight = day.start().0 / 1000;
        // Everything of the same day within the gap of the new interval unites with it; the rest is untouched.
        let from = self
            .sessions
            .partition_point(|s| s.start < midnight || s.end + SESSION_GAP_S < new.start);
        let to = self
            .sessions
            .partition_point(|s| s.start < midnight + DAY_S && s.start <= new.end + SESSION_GAP_S)
            .max(from);
        let touched = self.sessions.get(from..to).unwrap_or_default();
        let united = touched.iter().fold(new, |all, s| Session {
            start: all.start.min(s.start),
            end: all.end.max(s.end),
        });
        match (touched.len(), self.sessions.get_mut(from)) {
            (1, Some(only)) => *only = united,
            _ => drop(self.sessions.splice(from..to, [united])),
        }
    }

    /// The newest day that is out of the window.
    fn newest_forgotten(&self) -> Day {
        self.counts.last().map_or(Day(i32::MIN), |((newest, _), _)| {
            Day(newest.0.saturating_sub(WINDOW_DAYS))
        })
    }

    fn forget_old_days(&mut self) {
        let forgotten = self.newest_forgotten();
        if self.counts.first().is_some_and(|((first, _), _)| *first <= forgotten) {
            self.counts.retain(|(day, _), _| *day > forgotten);
            self.sessions.retain(|session| session.day() > forgotten);
        }
    }
}
