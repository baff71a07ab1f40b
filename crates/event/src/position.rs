//! Where a record stands in the log, and which partition a person belongs to.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One of the fixed number of logical partitions of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u16);

/// The index of a record within its partition, from 0, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// The record's index in it.
    pub offset: Offset,
}

/// Which record caused a derived record, and the how-manieth it was of that cause for its target partition.
///
/// A target partition remembers the highest origin it has seen from each source partition and ignores anything at
/// or below it, so a derived record that a crash made its writer append twice takes effect once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The record that was being folded.
    pub position: Position,
    /// 0 for its first derived record, 1 for the second…
    pub index: u16,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

/// The partition of a key among `partitions`: the default partitioner of Kafka's Java client
/// (`toPositive(murmur2(key)) mod partitions`), so that a producer which keys by customer id lands where we look.
#[must_use]
pub fn partition_for(key: &str, partitions: u16) -> Partition {
    let positive = murmur2(key.as_bytes()) & 0x7fff_ffff;
    Partition(u16::try_from(positive % u32::from(partitions.max(1))).unwrap_or(0))
}

/// MurmurHash2, 32 bit, with the seed that Kafka uses (Austin Appleby's public-domain algorithm).
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0u32, |acc, byte| acc << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_gives_the_published_values_of_kafkas_own_tests() {
        for (text, hash) in [
            ("21", -973_932_308i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn partitions_stay_in_range() {
        for n in [1, 2, 64, u16::MAX] {
            for i in 0..1000 {
                assert!(partition_for(&i.to_string(), n).0 < n);
            }
        }
    }
}
