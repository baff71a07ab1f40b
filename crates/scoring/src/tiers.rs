//! Pareto tiers: who makes up most of the value, from a sketch that any number of workers can add up.
//!
//! A histogram over the logarithm of the value in minor units, with integer bounds only: each power of two is cut into 64
//! cells, so that a value is known to 1.6 %. Adding and taking away are exact inverses, merging is addition: the sketch of
//! a set of customers does not depend on order, partition or how often their values changed. Bounded: at most 64·64 cells.

use std::collections::BTreeMap;

/// Cells per power of two, as a power of two.
const CELL_BITS: u32 = 6;

/// A customer's place in the order by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Among those who bring the first 80 % of the value.
    A,
    /// Among those who bring the next 15 %.
    B,
    /// The rest, those without value included.
    C,
}

impl Tier {
    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }
}

/// Customers by value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValueSketch {
    cells: BTreeMap<u16, i64>,
}

impl ValueSketch {
    /// Counts a customer with a value in minor units; one of 0 or less brings nothing and is not counted.
    pub fn add(&mut self, value: i64) {
        self.change(value, 1);
    }

    /// Counts several customers with about the same value.
    pub fn add_many(&mut self, value: i64, customers: u64) {
        self.change(value, i64::try_from(customers).unwrap_or(i64::MAX));
    }

    /// Takes a customer away who was added with this value.
    pub fn remove(&mut self, value: i64) {
        self.change(value, -1);
    }

    /// Adds another sketch.
    pub fn merge(&mut self, other: &Self) {
        for (cell, count) in &other.cells {
            self.change_cell(*cell, *count);
        }
    }

    /// Customers counted.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.cells.values().sum()
    }

    /// The value below which the share `q` of the customers lies, in minor units to 1.6 %; `None` without any.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<i64> {
        let rank = (q.clamp(0.0, 1.0) * (self.count() - 1).max(0) as f64) as i64;
        let mut below = 0;
        for (cell, count) in &self.cells {
            below += count;
            if below > rank {
                return Some(middle(*cell));
            }
        }
        None
    }

    /// The tier of a value: by the share of all value that customers worth more bring together.
    #[must_use]
    pub fn tier(&self, value: i64) -> Tier {
        let Some(own) = cell(value) else { return Tier::C };
        let worth = |(cell, count): (&u16, &i64)| i128::from(middle(*cell)) * i128::from(*count);
        let all: i128 = self.cells.iter().map(worth).sum();
        let above: i128 = self.cells.range(own.saturating_add(1)..).map(worth).sum();
        match above * 100 {
            share if share < all * 80 => Tier::A,
            share if share < all * 95 => Tier::B,
            _ => Tier::C,
        }
    }

    fn change(&mut self, value: i64, by: i64) {
        if let Some(cell) = cell(value) {
            self.change_cell(cell, by);
        }
    }

    fn change_cell(&mut self, cell: u16, by: i64) {
        let count = self.cells.entry(cell).or_default();
        *count += by;
        if *count == 0 {
            let _ = self.cells.remove(&cell);
        }
    }
}

/// The cell of a value: its power of two and the six bits after the first. `None` for values of 0 or less.
#[must_use]
pub fn cell(value: i64) -> Option<u16> {
    let value = u64::try_from(value).ok().filter(|value| *value > 0)?;
    let power = value.ilog2();
    let fraction = if power >= CELL_BITS {
        value >> (power - CELL_BITS)
    } else {
        value << (CELL_BITS - power)
    };
    u16::try_from((u64::from(power) << CELL_BITS) + (fraction - (1 << CELL_BITS))).ok()
}

/// The middle of a cell.
#[must_use]
pub fn middle(cell: u16) -> i64 {
    let (power, fraction) = (u32::from(cell >> CELL_BITS), i128::from(cell & ((1 << CELL_BITS) - 1)));
    let bounds = [0, 1].map(|next| ((fraction + next + (1 << CELL_BITS)) << power) >> CELL_BITS);
    i64::try_from(bounds.iter().sum::<i128>() / 2).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cell_knows_its_values_to_a_sixty_fourth(value in 1i64..=i64::MAX) {
            let got = middle(cell(value).unwrap());
            let off = (i128::from(got) - i128::from(value)).abs();
            prop_assert!(off * 64 <= i128::from(value) + 64, "{value} {got}");
        }

        #[test]
        fn order_parts_and_changes_do_not_matter(values in prop::collection::vec(-5i64..1_000_000, 0..60), cut in 0usize..60) {
            let sketch = |values: &[i64]| {
                let mut sketch = ValueSketch::default();
                values.iter().for_each(|value| sketch.add(*value));
                sketch
            };
            let whole = sketch(&values);
            let (a, b) = values.split_at(cut.min(values.len()));
            let mut parts = sketch(b);
            parts.merge(&sketch(a));
            prop_assert_eq!(&parts, &whole);
            parts.add(77);
            parts.remove(77);
            prop_assert_eq!(&parts, &whole);
            let tiers: Vec<Tier> = { let mut v = values.clone(); v.sort_unstable(); v.iter().rev().map(|v| whole.tier(*v)).collect() };
            prop_assert!(tiers.is_sorted());
        }
    }

    #[test]
    fn the_few_who_bring_most_are_tier_a() {
        let mut sketch = ValueSketch::default();
        (0..10).for_each(|_| sketch.add(100_000));
        (0..90).for_each(|_| sketch.add(2_000));
        sketch.add(0);
        assert_eq!(
            (sketch.tier(100_000), sketch.tier(2_000), sketch.tier(0)),
            (Tier::A, Tier::B, Tier::C)
        );
        assert_eq!(sketch.count(), 100);
        let median = sketch.quantile(0.5).unwrap();
        assert!((1_970..=2_030).contains(&median), "{median}");
    }
}
