//! How much a key and a workspace may send: a token bucket for each, and a quota of a workspace for each UTC day.
//!
//! A bucket fills at a steady rate up to its burst. A request may take more than is in it once, if it is full enough for one
//! burst: the debt is worked off before the next. Buckets live in memory and are bounded by the number of keys and
//! workspaces that were ever seen; after a restart they are full and the day's count starts at zero. Nothing here waits.

use crate::keys::Credential;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use vigie_event::{DAY_MS, Day, Timestamp, Workspace};

/// A steady rate with a burst, in events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events a second; 0 means no limit.
    pub per_second: u32,
    /// Events at once after a pause; at least as many as one request may hold, or large requests wait for ever.
    pub burst: u32,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self {
        per_second: 0,
        burst: 0,
    };
}

/// What may be sent. The default is no limit at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// By each key.
    pub key: Rate,
    /// To each workspace, by all its keys together.
    pub workspace: Rate,
    /// Events of a workspace in one UTC day; 0 means no limit.
    pub daily: u64,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            key: Rate::NONE,
            workspace: Rate::NONE,
            daily: 0,
        }
    }
}

/// Why a request must wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// Faster than allowed.
    #[error("more events a second than the limit")]
    Rate(Duration),
    /// More than allowed today.
    #[error("more events today than the quota")]
    Quota(Duration),
}

/// Thousandths of an event: at 1 event a second, one is added each millisecond.
const ONE: i64 = 1000;

#[derive(Debug)]
struct Bucket {
    level: i64,
    at: Timestamp,
}

impl Bucket {
    fn full(rate: Rate, now: Timestamp) -> Self {
        Self {
            level: i64::from(rate.burst.max(1)) * ONE,
            at: now,
        }
    }

    /// How long to wait until `events` may pass.
    fn wait(&mut self, rate: Rate, events: u32, now: Timestamp) -> Option<Duration> {
        let (per_ms, full) = (i64::from(rate.per_second), i64::from(rate.burst.max(1)) * ONE);
        // A clock that goes back adds nothing.
        let passed = now.ms_since(self.at).max(0);
        self.at = self.at.max(now);
        self.level = self.level.saturating_add(passed.saturating_mul(per_ms)).min(full);
        let needed = i64::from(events.max(1)).saturating_mul(ONE).min(full);
        let missing = needed - self.level;
        (missing > 0).then(|| {
            let ms = missing.saturating_add(per_ms - 1) / per_ms;
            Duration::from_millis(u64::try_from(ms).unwrap_or(1))
        })
    }
}

#[derive(Debug, Default)]
struct Used {
    keys: BTreeMap<[u8; 32], Bucket>,
    workspaces: BTreeMap<Workspace, Bucket>,
    days: BTreeMap<Workspace, (Day, u64)>,
}

/// The limits in force, and what was used of them.
#[derive(Debug, Default)]
pub struct Rates {
    limits: RateLimits,
    used: Mutex<Used>,
}

impl Rates {
    /// Everything full.
    #[must_use]
    pub fn new(limits: RateLimits) -> Self {
        Self {
            limits,
            used: Mutex::default(),
        }
    }

    /// Takes what a request needs, or nothing and says when to come back. With no events it only asks whether one more
    /// would pass: that is how a request is refused before its body is read.
    pub fn take(&self, credential: &Credential, events: usize, now: Timestamp) -> Result<(), TooMuch> {
        let limits = &self.limits;
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let Used { keys, workspaces, days } = &mut *used;
        let mut wait = Duration::ZERO;
        if limits.key.per_second > 0 {
            let bucket = keys
                .entry(credential.digest)
                .or_insert_with(|| Bucket::full(limits.key, now));
            wait = wait.max(bucket.wait(limits.key, events, now).unwrap_or_default());
        }
        if limits.workspace.per_second > 0 {
            let bucket = workspaces
                .entry(credential.workspace.clone())
                .or_insert_with(|| Bucket::full(limits.workspace, now));
            wait = wait.max(bucket.wait(limits.workspace, events, now).unwrap_or_default());
        }
        if !wait.is_zero() {
            return Err(TooMuch::Rate(wait));
        }
        if limits.daily > 0 {
            let (day, count) = days.entry(credential.workspace.clone()).or_insert((now.day(), 0));
            if *day != now.day() {
                (*day, *count) = (now.day(), 0);
            }
            if count.saturating_add(u64::from(events.max(1))) > limits.daily {
                let rest = DAY_MS - i64::from(now.ms_of_day());
                return Err(TooMuch::Quota(Duration::from_millis(u64::try_from(rest).unwrap_or(1))));
            }
            *count += u64::from(events);
        }
        let spent = i64::from(events).saturating_mul(ONE);
        if let Some(bucket) = keys.get_mut(&credential.digest) {
            bucket.level -= spent;
        }
        if let Some(bucket) = workspaces.get_mut(&credential.workspace) {
            bucket.level -= spent;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyKind, KeyRing, KeySpec, Secret};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn credential(workspace: &str, key: &str) -> Arc<Credential> {
        let spec = KeySpec {
            workspace: Workspace::new(workspace).unwrap(),
            kind: KeyKind::Write,
            secret: Secret::new(key.to_owned()),
            scopes: BTreeSet::new(),
            origins: Vec::new(),
        };
        KeyRing::new([spec]).unwrap().find(key).unwrap()
    }

    const NOW: Timestamp = Timestamp(1_795_000_000_000);

    #[test]
    fn a_key_that_sends_too_fast_waits_as_long_as_it_must_and_no_longer() {
        let rates = Rates::new(RateLimits {
            key: Rate {
                per_second: 10,
                burst: 20,
            },
            ..RateLimits::default()
        });
        let key = credential("a", "write-key-1");
        assert_eq!(rates.take(&key, 20, NOW), Ok(()));
        assert_eq!(rates.take(&key, 5, NOW), Err(TooMuch::Rate(Duration::from_millis(500))));
        assert_eq!(
            rates.take(&key, 5, NOW.plus_ms(499)),
            Err(TooMuch::Rate(Duration::from_millis(1)))
        );
        assert_eq!(rates.take(&key, 5, NOW.plus_ms(500)), Ok(()));
        assert_eq!(
            rates.take(&credential("a", "write-key-2"), 5, NOW),
            Ok(()),
            "another key"
        );
        // More than a burst passes once the bucket is full, and is worked off afterwards.
        let later = NOW.plus_ms(60_000);
        assert_eq!(rates.take(&key, 50, later), Ok(()));
        assert_eq!(
            rates.take(&key, 1, later),
            Err(TooMuch::Rate(Duration::from_millis(3100)))
        );
    }

    #[test]
    fn a_days_quota_ends_at_midnight() {
        let rates = Rates::new(RateLimits {
            daily: 10,
            ..RateLimits::default()
        });
        let key = credential("a", "write-key-1");
        assert_eq!(rates.take(&key, 10, NOW), Ok(()));
        let rest = u64::try_from(DAY_MS).unwrap() - u64::from(NOW.ms_of_day());
        assert_eq!(
            rates.take(&key, 0, NOW),
            Err(TooMuch::Quota(Duration::from_millis(rest)))
        );
        assert_eq!(
            rates.take(&credential("b", "write-key-2"), 10, NOW),
            Ok(()),
            "another workspace"
        );
        assert_eq!(rates.take(&key, 10, NOW.day().start().plus_ms(DAY_MS)), Ok(()));
    }

    proptest! {
        /// Over any time, no more passes than the burst, the rate, and one request of debt.
        #[test]
        fn the_rate_holds(requests in proptest::collection::vec((0i64..2000, 1usize..50), 1..200)) {
            let rate = Rate { per_second: 100, burst: 50 };
            let rates = Rates::new(RateLimits { workspace: rate, ..RateLimits::default() });
            let key = credential("a", "write-key-1");
            let (mut now, mut passed) = (NOW, 0);
            for (pause, events) in requests {
                now = now.plus_ms(pause);
                if rates.take(&key, events, now).is_ok() {
                    passed += events;
                }
            }
            let most = 50 + (now.ms_since(NOW) / 10) as usize;
            prop_assert!(passed <= most, "{passed} of at most {most}");
        }

        /// What one workspace does is never felt by another.
        #[test]
        fn a_noisy_workspace_is_felt_by_nobody_else(noise in 1usize..5000, steps in 1i64..50) {
            let rate = Rate { per_second: 100, burst: 100 };
            let rates = Rates::new(RateLimits { key: rate, workspace: rate, daily: 1_000_000 });
            let (noisy, quiet) = (credential("noisy", "write-key-1"), credential("quiet", "write-key-2"));
            for step in 0..steps {
                let now = NOW.plus_ms(step * 1000);
                let _refused = rates.take(&noisy, noise, now);
                prop_assert_eq!(rates.take(&quiet, 100, now), Ok(()));
            }
        }
    }
}
