//! Whether a policy works: treated customers against held-out ones, at any time and as often as one likes.
//!
//! A policy's report is looked at every day, and stopped when it shows harm. An interval made for one look would then be wrong
//! most of the time in the long run; a *confidence sequence* covers the truth at all times at once. Used is the asymptotic one
//! of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence
//! sequences", Annals of Statistics 52(6), 2024 (arXiv:2103.06476), theorem 2.2 with the boundary (3):
//!
//! ```text
//! difference ± σ·√( 2(nρ² + 1) / (n²ρ²) · ln( √(nρ² + 1) / α ) )
//! ```
//!
//! where n counts customers of both arms and σ² = n·(v₁/n₁ + v₀/n₀) is the variance of the difference per customer. ρ is
//! chosen so that the interval is about narrowest at a stated number of customers ([`Level::tightest_at`]); whatever it is, the
//! coverage holds.
//!
//! Pure functions of sums: no customer is named, and nothing is drawn.

use libm::{log, sqrt};

/// Customers of one arm that must have come to an end before anything is said: the sequence is asymptotic, and with 50 in the
/// smaller arm it was measured to miss more often than it states.
const FEWEST: u64 = 200;

/// What an arm's customers came to: enough to know mean and variance, and to be added up over workers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Arm {
    /// Customers.
    pub count: u64,
    /// Sum of what they came to: 1 for a return and 0 for none, or money.
    pub sum: f64,
    /// Sum of the squares.
    pub squares: f64,
}

impl Arm {
    /// Counts one customer.
    pub fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.sum += value;
        self.squares += value * value;
    }

    /// Counts the customers of another one.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// The mean; 0 without customers.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.sum / self.count as f64
        }
    }

    /// The unbiased variance; 0 for fewer than two customers.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let n = self.count as f64;
        ((self.squares - self.sum * self.sum / n) / (n - 1.0)).max(0.0)
    }
}

/// How sure an interval is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Probability with which the truth is outside at any time, in (0, 1).
    pub alpha: f64,
    /// Number of customers at which the interval is to be narrowest.
    pub tightest_at: u64,
}

impl Default for Level {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            tightest_at: 2_000,
        }
    }
}

/// A difference with an interval that holds at all times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Treated less held out.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What is known of a policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Uplift {
    /// Too few customers of one arm have come to an end.
    TooFew {
        /// How many are needed in each arm.
        needed: u64,
    },
    /// So much.
    Measured(Difference),
}

/// What is to become of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on: nothing is shown yet.
    Undecided,
    /// It works: the whole interval is above 0.
    Works,
    /// Stop: the whole interval is below 0.
    Harms,
    /// Stop: its time is over and nothing was shown.
    Expired,
}

/// Treated less held out, per customer.
#[must_use]
pub fn uplift(treated: &Arm, held_out: &Arm, level: Level) -> Uplift {
    if treated.count < FEWEST || held_out.count < FEWEST {
        return Uplift::TooFew { needed: FEWEST };
    }
    let (n1, n0) = (treated.count as f64, held_out.count as f64);
    let n = n1 + n0;
    let sigma = sqrt(n * (treated.variance() / n1 + held_out.variance() / n0));
    let estimate = treated.mean() - held_out.mean();
    let width = sigma * boundary(n, level);
    Uplift::Measured(Difference {
        estimate,
        low: estimate - width,
        high: estimate + width,
    })
}

/// Half the width of the sequence at n for σ = 1.
fn boundary(n: f64, level: Level) -> f64 {
    let rho2 = rho_squared(level);
    let grown = n * rho2 + 1.0;
    sqrt(2.0 * grown / (n * n * rho2) * log(sqrt(grown) / level.alpha))
}

/// ρ² that makes the boundary about narrowest at a number of customers: (−2 ln α + ln(−2 ln α + 1)) / n; ibid., appendix.
fn rho_squared(level: Level) -> f64 {
    let twice = -2.0 * log(level.alpha);
    (twice + log(twice + 1.0)) / level.tightest_at.max(1) as f64
}

/// What the stop rule says (R90), the policy having run for so many days of so many.
#[must_use]
pub fn verdict(uplift: &Uplift, days: u32, after_days: u32) -> Verdict {
    match uplift {
        Uplift::Measured(difference) if difference.high < 0.0 => Verdict::Harms,
        Uplift::Measured(difference) if difference.low > 0.0 => Verdict::Works,
        _ if days >= after_days => Verdict::Expired,
        _ => Verdict::Undecided,
    }
}

/// A policy in money (R43), in one currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Account {
    /// Margin that the treated customers brought beyond what the held-out ones make one expect, all together.
    pub saved: f64,
    /// What the contacts cost.
    pub cost: f64,
    /// (saved − cost) / cost; `None` where nothing was spent.
    pub roi: Option<f64>,
    /// Return on opportunity: what was at stake in the flags that nobody was contacted for, times the share that a contact
    /// is worth; the price of capacity and caution.
    pub roo: f64,
}

/// The account of a policy: margin per customer in both arms, the cost of all contacts, and what was at stake in flags that
/// were never acted on.
#[must_use]
pub fn account(treated: &Arm, held_out: &Arm, cost: f64, at_stake_untreated: f64, effect: f64) -> Account {
    let saved = (treated.mean() - held_out.mean()) * treated.count as f64;
    Account {
        saved,
        cost,
        roi: (cost > 0.0).then(|| (saved - cost) / cost),
        roo: at_stake_untreated * effect,
    }
}

/// Share of relances that were paid with money, of all of a segment (R83); `None` without any.
#[must_use]
pub fn money_share(plays: impl IntoIterator<Item = (crate::Play, u64)>) -> Option<f64> {
    let (mut paid, mut all) = (0u64, 0u64);
    for (play, count) in plays {
        all = all.saturating_add(count);
        if play == crate::Play::Reward {
            paid = paid.saturating_add(count);
        }
    }
    (all > 0).then(|| paid as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_textbook_and_add_up() {
        let of = |values: &[f64]| {
            let mut arm = Arm::default();
            values.iter().for_each(|value| arm.add(*value));
            arm
        };
        let whole = of(&[1.0, 2.0, 4.0, 7.0]);
        assert_eq!((whole.mean(), whole.variance()), (3.5, 7.0));
        let mut parts = of(&[1.0, 2.0]);
        parts.merge(&of(&[4.0, 7.0]));
        assert_eq!(parts, whole);
        assert_eq!((of(&[]).mean(), of(&[5.0]).variance()), (0.0, 0.0));
    }

    #[test]
    fn the_boundary_is_narrowest_about_where_it_was_asked_to_be() {
        // Relative to the width of an interval for one look, which falls with √n.
        let relative = |n: f64| boundary(n, Level::default()) * sqrt(n);
        let at = relative(2_000.0);
        assert!(at < relative(200.0) && at < relative(20_000.0));
        assert!((1.96..4.0).contains(&at), "{at}");
    }

    #[test]
    fn money_is_counted_by_hand() {
        let arm = |count: u64, mean: f64| Arm {
            count,
            sum: mean * count as f64,
            squares: 0.0,
        };
        let account = account(&arm(900, 12.0), &arm(100, 10.0), 600.0, 5_000.0, 0.1);
        assert_eq!((account.saved, account.roi, account.roo), (1_800.0, Some(2.0), 500.0));
        let share = money_share([(crate::Play::Attention, 3), (crate::Play::Reward, 1)]);
        assert_eq!((share, money_share([])), (Some(0.25), None));
    }
}
