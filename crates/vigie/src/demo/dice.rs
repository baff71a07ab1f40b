//! Chance for the simulator: a seeded generator and the few distributions that it needs. No entropy but the seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::f64::consts::TAU;

/// A seeded source of random variates.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// One of 2^64 independent streams of a seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number from `low` to `high`, both included.
    pub(super) fn whole(&mut self, low: i64, high: i64) -> i64 {
        low + (self.unit() * (high - low + 1) as f64) as i64
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub(super) fn pick<T: Copy, const N: usize>(&mut self, items: &[T; N]) -> T {
        let index = (self.unit() * N as f64) as usize;
        #[expect(clippy::indexing_slicing, reason = "unit() < 1, so the index is below N")]
        items[index]
    }

    /// Standard normal (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }

    /// Gamma of the given shape with mean 1 (Marsaglia and Tsang 2000; shapes below 1 through shape + 1).
    pub(super) fn gamma(&mut self, shape: f64) -> f64 {
        let (boost, at_least_one) = match shape < 1.0 {
            true => (self.unit().powf(1.0 / shape), shape + 1.0),
            false => (1.0, shape),
        };
        let d = at_least_one - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return boost * d * v / shape;
            }
        }
    }

    /// Poisson of a small mean (Knuth's multiplication).
    pub(super) fn poisson(&mut self, mean: f64) -> u32 {
        let limit = (-mean).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_their_means() {
        let mut dice = Dice::new(7, 0);
        let n = 40_000;
        for shape in [0.6, 1.0, 2.5] {
            let mean = (0..n).map(|_| dice.gamma(shape)).sum::<f64>() / f64::from(n);
            assert!((mean - 1.0).abs() < 0.03, "gamma({shape}) has mean {mean}");
        }
        let mean = (0..n).map(|_| f64::from(dice.poisson(0.7))).sum::<f64>() / f64::from(n);
        assert!((mean - 0.7).abs() < 0.02, "poisson has mean {mean}");
        let mean = (0..n).map(|_| dice.normal()).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02, "normal has mean {mean}");
        assert!((0..n).all(|_| (3..=5).contains(&dice.whole(3, 5))));
    }

    #[test]
    fn streams_of_a_seed_differ_and_repeat() {
        let draw = |seed, stream| Dice::new(seed, stream).bits();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }
}
