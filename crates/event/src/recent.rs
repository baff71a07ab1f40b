//! The ids that a customer's record remembers, to tell a repeated event from a new one.
//!
//! A set of (id hash, payload fingerprint, second of the newest receipt). It is order-free: inserting the same ids in any
//! order, and uniting sets in any grouping, gives the same set. It never decides what happens to a repeated event.
//! Bound: `capacity` entries of 16 bytes; at the bound the entries that were received longest ago (of the same second, those
//! with the smallest hash) leave, which again depends only on the set.

use crate::{EventId, Timestamp};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Seed of the id hash; changing it makes every remembered id unknown, so it is part of the format.
const ID_SEED: u64 = 0x7669_6769_6501;

/// Whether an event was met before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Never met within the window.
    New,
    /// Met with the same payload: a repetition.
    Duplicate,
    /// The id was met with another payload: a different event under a used id.
    Conflict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Entry {
    /// Big-endian, so that the order of bytes is the order of numbers; fixed width, since a hash has no small values.
    hash: [u8; 8],
    fingerprint: [u8; 4],
    /// Seconds since 1970, big-endian; instants outside of 1970 to 2106 count as the nearer end.
    second: [u8; 4],
}

/// A bounded set of recently met event ids with the fingerprints of their payloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentIds {
    /// Sorted by (hash, fingerprint), which are unique together.
    entries: Vec<Entry>,
}

impl RecentIds {
    /// Looks an id up without remembering it.
    #[must_use]
    pub fn seen(&self, id: &EventId, fingerprint: u64) -> Seen {
        let (hash, short) = Self::key(id, fingerprint);
        let from = self.entries.partition_point(|entry| entry.hash < hash);
        let mut same_id = self
            .entries
            .iter()
            .skip(from)
            .take_while(|entry| entry.hash == hash)
            .peekable();
        if same_id.peek().is_none() {
            Seen::New
        } else if same_id.any(|entry| entry.fingerprint == short) {
            Seen::Duplicate
        } else {
            Seen::Conflict
        }
    }

    /// Remembers an id received at `at`, keeping at most `capacity` entries.
    pub fn insert(&mut self, id: &EventId, fingerprint: u64, at: Timestamp, capacity: usize) {
        let (hash, fingerprint) = Self::key(id, fingerprint);
        self.put(Entry {
            hash,
            fingerprint,
            second: second(at),
        });
        self.shrink(capacity);
    }

    /// Adds everything that `other` remembers, keeping at most `capacity` entries.
    pub fn unite(&mut self, other: &Self, capacity: usize) {
        for entry in &other.entries {
            self.put(*entry);
        }
        self.shrink(capacity);
    }

    /// Forgets ids last received before the second of `at`.
    pub fn forget_before(&mut self, at: Timestamp) {
        let from = second(at);
        self.entries.retain(|entry| entry.second >= from);
    }

    /// Number of remembered entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// `true` when nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn key(id: &EventId, fingerprint: u64) -> ([u8; 8], [u8; 4]) {
        let [a, b, c, d, ..] = fingerprint.to_le_bytes();
        (
            xxh3_64_with_seed(id.as_str().as_bytes(), ID_SEED).to_be_bytes(),
            [a, b, c, d],
        )
    }

    fn put(&mut self, entry: Entry) {
        let at = self
            .entries
            .partition_point(|e| (e.hash, e.fingerprint) < (entry.hash, entry.fingerprint));
        match self.entries.get_mut(at) {
            Some(same) if same.hash == entry.hash && same.fingerprint == entry.fingerprint => {
                same.second = same.second.max(entry.second);
            }
            _ => self.entries.insert(at, entry),
        }
    }

    fn shrink(&mut self, capacity: usize) {
        while self.entries.len() > capacity {
            let oldest = self
                .entries
                .iter()
                .enumerate()
                .min_by_key(|(_, e)| (e.second, e.hash, e.fingerprint))
                .map(|(i, _)| i);
            if let Some(index) = oldest {
                let _ = self.entries.remove(index);
            }
        }
    }
}

fn second(at: Timestamp) -> [u8; 4] {
    let seconds = at.0.div_euclid(1000).clamp(0, i64::from(u32::MAX));
    u32::try_from(seconds).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> EventId {
        EventId::new(&format!("e{n}")).unwrap()
    }

    #[test]
    fn repetition_and_conflict_are_told_apart() {
        let mut recent = RecentIds::default();
        recent.insert(&id(1), 7, Timestamp(10_000), 8);
        assert_eq!(recent.seen(&id(1), 7), Seen::Duplicate);
        assert_eq!(recent.seen(&id(1), 8), Seen::Conflict);
        assert_eq!(recent.seen(&id(2), 7), Seen::New);
        recent.insert(&id(1), 8, Timestamp(10_000), 8);
        assert_eq!(recent.seen(&id(1), 8), Seen::Duplicate);
        assert_eq!(recent.seen(&id(1), 7), Seen::Duplicate);
        recent.forget_before(Timestamp(11_000));
        assert!(recent.is_empty());
    }

    #[test]
    fn the_bound_keeps_the_newest_in_any_order() {
        let orders: [[u32; 5]; 3] = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]];
        let sets: Vec<RecentIds> = orders
            .iter()
            .map(|order| {
                let mut set = RecentIds::default();
                order
                    .iter()
                    .for_each(|n| set.insert(&id(*n), 0, Timestamp(i64::from(*n) * 1000), 3));
                set
            })
            .collect();
        assert!(sets.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(sets[0].seen(&id(1), 0), Seen::New);
        assert_eq!(sets[0].seen(&id(2), 0), Seen::Duplicate);
        assert_eq!(sets[0].len(), 3);
    }
}
