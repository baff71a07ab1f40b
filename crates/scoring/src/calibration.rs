//! Live calibration: what was predicted against what came, by tenths of the probability, once a window has closed.
//!
//! Integers only, and merging is addition: the counts of all workers add up, in any order. It knows neither customers nor
//! time: its owner notes a prediction when its window closes, and starts a new one per month, say, to see drift.

use libm::{log, sqrt};

/// Tenths.
pub const BINS: usize = 10;

/// One tenth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bin {
    /// Closed predictions.
    pub n: u64,
    /// Those that churned.
    pub churned: u64,
    /// Sum of predicted probabilities, in millionths.
    pub predicted_ppm: u64,
    /// Sum of p·(1 − p), in millionths: the variance of the number of churners.
    pub variance_ppm: u64,
    /// Sum of −ln(probability given to what came), in millionths.
    pub log_loss_ppm: u64,
}

/// Closed predictions of one score.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calibration {
    bins: [Bin; BINS],
}

impl Calibration {
    /// Notes a closed prediction; one that is no probability is clamped.
    pub fn note(&mut self, p: f64, churned: bool) {
        let p = p.clamp(0.0, 1.0);
        let tenth = ((p * BINS as f64) as usize).min(BINS - 1);
        if let Some(bin) = self.bins.get_mut(tenth) {
            bin.n += 1;
            bin.churned += u64::from(churned);
            bin.predicted_ppm += (p * 1e6).round() as u64;
            bin.variance_ppm += (p * (1.0 - p) * 1e6).round() as u64;
            let given = if churned { p } else { 1.0 - p };
            bin.log_loss_ppm += (-log(given.max(1e-6)) * 1e6).round() as u64;
        }
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (bin, theirs) in self.bins.iter_mut().zip(&other.bins) {
            bin.n += theirs.n;
            bin.churned += theirs.churned;
            bin.predicted_ppm += theirs.predicted_ppm;
            bin.variance_ppm += theirs.variance_ppm;
            bin.log_loss_ppm += theirs.log_loss_ppm;
        }
    }

    /// The tenths, from 0 to 0.1 on.
    #[must_use]
    pub fn bins(&self) -> &[Bin; BINS] {
        &self.bins
    }

    /// Predictions noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|bin| bin.n).sum()
    }

    /// Expected over observed churners; `None` while nobody churned.
    #[must_use]
    pub fn expected_over_observed(&self) -> Option<f64> {
        let (expected, observed) = self.totals();
        (observed > 0.0).then(|| expected / observed)
    }

    /// How many standard errors observed churn lies above what was predicted; 0 while nothing was noted. Beyond ±4, with
    /// some hundreds of predictions, the score has drifted.
    #[must_use]
    pub fn drift(&self) -> f64 {
        let (expected, observed) = self.totals();
        let variance = self.bins.iter().map(|bin| bin.variance_ppm).sum::<u64>() as f64 / 1e6;
        if variance > 0.0 {
            (observed - expected) / sqrt(variance)
        } else {
            0.0
        }
    }

    /// Expected calibration error over the tenths.
    #[must_use]
    pub fn error(&self) -> f64 {
        let off = |bin: &Bin| (bin.predicted_ppm as f64 / 1e6 - bin.churned as f64).abs();
        self.bins.iter().map(off).sum::<f64>() / (self.count() as f64).max(1.0)
    }

    fn totals(&self) -> (f64, f64) {
        let expected = self.bins.iter().map(|bin| bin.predicted_ppm).sum::<u64>() as f64 / 1e6;
        (expected, self.bins.iter().map(|bin| bin.churned).sum::<u64>() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibrated_score_does_not_drift_and_a_shifted_one_does() {
        let note = |shift: f64| {
            let (mut a, mut b) = (Calibration::default(), Calibration::default());
            for k in 0..1000u32 {
                let p = f64::from(k % 100) / 100.0;
                // Of each hundred at p, the share p churns.
                let churned = f64::from(k / 10 % 100) / 100.0 < p;
                let half = if k % 2 == 0 { &mut a } else { &mut b };
                half.note((p + shift).min(1.0), churned);
            }
            let mut sum = b.clone();
            sum.merge(&a);
            a.merge(&b);
            assert_eq!(sum, a);
            a
        };
        let (good, bad) = (note(0.0), note(0.2));
        assert_eq!(good.count(), 1000);
        assert!(
            good.drift().abs() < 3.0 && bad.drift() < -4.0,
            "{} {}",
            good.drift(),
            bad.drift()
        );
        assert!(
            good.error() < 0.08 && bad.error() > 0.12,
            "{} {}",
            good.error(),
            bad.error()
        );
        assert!(bad.expected_over_observed().unwrap() > 1.2);
        assert_eq!(
            (Calibration::default().drift(), Calibration::default().error()),
            (0.0, 0.0)
        );
    }
}
