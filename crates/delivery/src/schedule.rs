//! When a failed delivery is tried again: the schedule of Standard Webhooks 1.0.0 ("Retry schedule"), spread by ±20 %.
//!
//! It draws no random number: the spread of a flag is a hash of its id and the attempt, so that flags that failed
//! together are not tried again together, and that a test or a restart finds the same times.

use std::time::Duration;
use vigie_event::{FlagId, fingerprint};

/// Delays after the first, second, … failed attempt, in seconds: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
const STANDARD_S: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// Share by which a delay may be shorter or longer.
const JITTER: f64 = 0.2;
/// Longest wait that a receiver may ask for with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// Delays between attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    delays: Vec<Duration>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            delays: STANDARD_S.iter().map(|seconds| Duration::from_secs(*seconds)).collect(),
        }
    }
}

impl Schedule {
    /// Attempts in all, the first included.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        u32::try_from(self.delays.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The delay before the next attempt when `failed` attempts (at least 1) have failed; `None` when that was the last one.
    /// `asked` is what the receiver's `Retry-After` said: the delay is never shorter, up to a day.
    #[must_use]
    pub fn after(&self, failed: u32, id: &FlagId, asked: Option<Duration>) -> Option<Duration> {
        let delay = self.delays.get(usize::try_from(failed.checked_sub(1)?).ok()?)?;
        let draw = fingerprint([id.0.as_slice(), &failed.to_le_bytes()]) as f64 / u64::MAX as f64;
        let spread = delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * draw);
        Some(spread.max(asked.unwrap_or_default().min(MAX_RETRY_AFTER)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_that_of_the_specification_within_its_spread() {
        let schedule = Schedule::default();
        assert_eq!(schedule.attempts(), 10);
        let total: u64 = STANDARD_S.iter().sum();
        assert_eq!(total, 75 * 3_600 + 35 * 60 + 5, "75 h 35 min 5 s");
        let (mut low, mut high) = (f64::MAX, 0f64);
        for number in 0..2_000u128 {
            let id = FlagId(number.to_be_bytes());
            for (failed, seconds) in (1..).zip(STANDARD_S) {
                let delay = schedule.after(failed, &id, None).unwrap();
                let share = delay.as_secs_f64() / seconds as f64;
                assert!((0.8..=1.2).contains(&share), "{share}");
                low = low.min(share);
                high = high.max(share);
            }
            assert_eq!(schedule.after(10, &id, None), None);
        }
        assert!(low < 0.801 && high > 1.199, "the whole spread is used: {low} to {high}");
    }

    #[test]
    fn retry_after_lengthens_and_never_shortens() {
        let (schedule, id) = (Schedule::default(), FlagId([7; 16]));
        let plain = schedule.after(2, &id, None).unwrap();
        assert_eq!(schedule.after(2, &id, Some(Duration::from_secs(1))), Some(plain));
        let hour = Duration::from_hours(1);
        assert_eq!(schedule.after(2, &id, Some(hour)), Some(hour));
        assert_eq!(schedule.after(2, &id, Some(hour * 1_000)), Some(MAX_RETRY_AFTER));
        assert_eq!(
            schedule.after(10, &id, Some(hour)),
            None,
            "the last attempt stays the last"
        );
    }
}
