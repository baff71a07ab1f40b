//! The stopwatch: how the crates below the binary measure how long something took without reading a clock (TIME-1).
//!
//! It never tells the time of day, and nothing that is measured with it may influence a score, a flag or the order of
//! anything: it feeds histograms and log lines, and nothing else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A monotonic clock handed down by the binary. Cloning it is cheap.
#[derive(Clone)]
pub struct Stopwatch {
    now: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Stopwatch {
    /// Measures with `now`, which returns the time since some fixed moment and never goes backwards.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Stopwatch {
        Stopwatch { now: Arc::new(now) }
    }

    /// A stopwatch that always measures zero: for tests, replays and simulations.
    #[must_use]
    pub fn stopped() -> Stopwatch {
        Stopwatch::new(|| Duration::ZERO)
    }

    /// Starts one measurement.
    #[must_use]
    pub fn start(&self) -> Lap<'_> {
        Lap {
            watch: self,
            started: (self.now)(),
        }
    }

    /// The time since the fixed moment of this stopwatch.
    #[must_use]
    pub fn now(&self) -> Duration {
        (self.now)()
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopwatch")
    }
}

/// One running measurement.
#[derive(Debug)]
pub struct Lap<'a> {
    watch: &'a Stopwatch,
    started: Duration,
}

impl Lap<'_> {
    /// Time since the start of the measurement.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.watch.now().saturating_sub(self.started)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_lap_is_the_difference_of_two_readings() {
        let ms = Arc::new(AtomicU64::new(5));
        let reading = Arc::clone(&ms);
        let watch = Stopwatch::new(move || Duration::from_millis(reading.load(Ordering::Relaxed)));
        let lap = watch.start();
        ms.store(12, Ordering::Relaxed);
        assert_eq!(lap.elapsed(), Duration::from_millis(7));
        ms.store(1, Ordering::Relaxed);
        assert_eq!(
            lap.elapsed(),
            Duration::ZERO,
            "a clock that jumps back measures nothing"
        );
    }
}
