//! Which part of an installation an audit looks at.
//!
//! The unit is a whole partition. Folding a partition depends on nothing but its own records (a merge carries the state that
//! it moves), so an audit of some partitions is as exact for them as an audit of all, and it reads and folds only their share
//! of the log. A choice of customers by hash could save nothing of that: whether a customer was linked into another record is
//! known only after everything of the partition is folded. Taken in rotation, one partition of 64 an hour sees every customer,
//! every flag and every book within 64 hours. What a sample does not see are derived records between a partition in it and one
//! outside; they are compared when both are looked at together, at the latest by the full audit.

use serde::Serialize;
use std::collections::BTreeSet;
use vigie_event::Partition;

/// The partitions that an audit looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    partitions: u16,
    chosen: BTreeSet<u16>,
}

impl Sample {
    /// Everything.
    #[must_use]
    pub fn all(partitions: u16) -> Self {
        Self {
            partitions,
            chosen: (0..partitions).collect(),
        }
    }

    /// The share (at least one partition) whose turn it is in a round: rounds 0, 1, 2… come to every partition equally often.
    #[must_use]
    pub fn rotating(partitions: u16, share: f64, round: u64) -> Self {
        let all = u64::from(partitions);
        let number = ((f64::from(partitions) * share.clamp(0.0, 1.0)).ceil() as u64)
            .max(1)
            .min(all);
        let chosen = (0..number)
            .filter_map(|step| round.wrapping_mul(number).wrapping_add(step).checked_rem(all))
            .filter_map(|index| u16::try_from(index).ok())
            .collect();
        Self { partitions, chosen }
    }

    /// Number of partitions of the installation.
    #[must_use]
    pub fn of(&self) -> u16 {
        self.partitions
    }

    /// The chosen partitions, in order.
    pub fn chosen(&self) -> impl Iterator<Item = Partition> {
        self.chosen.iter().copied().map(Partition)
    }

    /// Whether a partition is chosen.
    #[must_use]
    pub fn holds(&self, partition: Partition) -> bool {
        self.chosen.contains(&partition.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn rotation_comes_to_every_partition_equally_often() {
        for (partitions, share) in [(64, 0.01), (64, 0.05), (7, 0.3), (1, 0.5), (5, 1.0)] {
            let mut seen: BTreeMap<u16, u32> = BTreeMap::new();
            for round in 0..u64::from(partitions) {
                for partition in Sample::rotating(partitions, share, round).chosen() {
                    *seen.entry(partition.0).or_default() += 1;
                }
            }
            let first = seen.get(&0).copied();
            assert_eq!(seen.len(), usize::from(partitions));
            assert!(seen.values().all(|times| Some(*times) == first), "{partitions} {share}");
        }
    }
}
