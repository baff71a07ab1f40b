//! The clocks of the process: the only place below which time is an input (TIME-1). It never decides what time means.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use vigie_event::Timestamp;
use vigie_telemetry::Stopwatch;

/// A wall clock as the crates below take it.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The system's wall clock, to the millisecond.
pub(crate) fn wall() -> Clock {
    Arc::new(now)
}

/// Now, by the system's wall clock. A clock before 1970 reads as 1970.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A wall clock that can be held at another time while history is played, so that nothing takes the past for the present.
#[derive(Debug, Clone)]
pub(crate) struct Held(Arc<AtomicI64>);

/// The value of a clock that is not held.
const FREE: i64 = i64::MIN;

impl Held {
    /// A clock held at `at`.
    pub(crate) fn at(at: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(at.0)))
    }

    /// Moves the held clock forward to `at`.
    pub(crate) fn advance(&self, at: Timestamp) {
        let _ = self.0.fetch_max(at.0, Ordering::AcqRel);
    }

    /// Lets it show the system's time from now on.
    pub(crate) fn release(&self) {
        self.0.store(FREE, Ordering::Release);
    }

    /// The clock as the crates below take it.
    pub(crate) fn clock(&self) -> Clock {
        let held = self.clone();
        Arc::new(move || match held.0.load(Ordering::Acquire) {
            FREE => now(),
            at => Timestamp(at),
        })
    }
}

/// A stopwatch that starts now.
pub(crate) fn stopwatch() -> Stopwatch {
    let start = Instant::now();
    Stopwatch::new(move || start.elapsed())
}
