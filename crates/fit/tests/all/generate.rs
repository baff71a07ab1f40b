//! Purchase histories with a known truth: BG/NBD-like customers with a season, from a seed.

use vigie_event::Day;
use vigie_fit::History;

/// A small generator of evenly spread numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.unit())
    }
}

/// `customers` people over `days` days: rates gamma-like, a tenth of all purchases the last one, more purchases around day 330
/// of every year by `season` in log rate.
pub(crate) fn history(customers: usize, days: i32, season: f64, seed: u64) -> History {
    let mut random = Random(seed);
    let mut purchases = Vec::new();
    for customer in 0..customers {
        let rate = (random.exponential() + random.exponential()) / 2.0 / 40.0;
        let spend = 20.0 * libm::exp(random.unit() * 2.0 - 1.0);
        let mut at = random.unit() * f64::from(days) * 0.7;
        loop {
            purchases.push((
                format!("c{customer}"),
                Day(10_000 + at as i32),
                spend * (0.5 + random.unit()),
            ));
            if random.unit() < 0.1 {
                break;
            }
            // Thinning: candidates at the highest rate, kept by the season's share of it.
            let most = rate * libm::exp(season.abs());
            loop {
                at += random.exponential() / most;
                let phase = 2.0 * std::f64::consts::PI * (at - 330.0) / 365.25;
                if random.unit() < libm::exp(season * libm::cos(phase) - season.abs()) {
                    break;
                }
            }
            if at >= f64::from(days) {
                break;
            }
        }
    }
    History::of(purchases)
}
