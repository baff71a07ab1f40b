//! How long something has been behind: the age of the oldest thing between two counters, without reading what lies between.
//! It never reads a clock, and never holds more than a bounded number of marks (BOUND-1).

use std::collections::VecDeque;
use std::time::Duration;

/// Most marks kept; at one a second, an hour of them. Beyond, the age of what came later is a little too small, the age of
/// what came first is not.
const MARKS: usize = 3_600;

/// Follows one pair of counters, say the end of a log and how much of it is done.
///
/// A record that was there when it was first looked at counts as having come at that moment: ages are those that this process
/// has seen.
#[derive(Debug, Clone, Default)]
pub struct Behind {
    /// When the log was seen to end there, for ends that are not reached yet; both ascend.
    marks: VecDeque<(Duration, u64)>,
}

impl Behind {
    /// At `now` of a stopwatch everything below `done` is done and everything below `end` is there: the age of the oldest that
    /// is there and not done, zero when there is none.
    pub fn age(&mut self, done: u64, end: u64, now: Duration) -> Duration {
        while self.marks.front().is_some_and(|(_, mark)| *mark <= done) {
            let _ = self.marks.pop_front();
        }
        if done >= end {
            self.marks.clear();
            return Duration::ZERO;
        }
        if self.marks.len() < MARKS && self.marks.back().is_none_or(|(_, mark)| *mark < end) {
            self.marks.push_back((now, end));
        }
        self.marks
            .front()
            .map_or(Duration::ZERO, |(since, _)| now.saturating_sub(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(steps: &[(u64, u64, u64)]) -> Vec<u64> {
        let mut behind = Behind::default();
        let age = |(done, end, now): &(u64, u64, u64)| behind.age(*done, *end, Duration::from_secs(*now)).as_secs();
        steps.iter().map(age).collect()
    }

    #[test]
    fn what_is_done_has_no_age() {
        assert_eq!(ages(&[(0, 0, 0), (5, 5, 9), (7, 7, 99)]), [0, 0, 0]);
    }

    #[test]
    fn what_stands_still_grows_older() {
        assert_eq!(
            ages(&[(3, 5, 10), (3, 5, 11), (3, 9, 70), (9, 9, 71), (9, 10, 80)]),
            [0, 1, 60, 0, 0]
        );
    }

    #[test]
    fn a_steady_lag_is_as_old_as_the_time_between_arrival_and_completion() {
        // Ten records a second, done five seconds after they came.
        let steps: Vec<(u64, u64, u64)> = (0..100).map(|t: u64| (t.saturating_sub(5) * 10, t * 10, t)).collect();
        let ages = ages(&steps);
        assert!(ages.iter().skip(10).all(|age| (4..=5).contains(age)), "{ages:?}");
    }

    #[test]
    fn it_stays_small() {
        let mut behind = Behind::default();
        for t in 0..100_000 {
            let _ = behind.age(0, t + 1, Duration::from_secs(t));
        }
        assert_eq!(behind.marks.len(), MARKS);
        assert_eq!(behind.age(0, 100_001, Duration::from_secs(100_000)).as_secs(), 100_000);
    }
}
