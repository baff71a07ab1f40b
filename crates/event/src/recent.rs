//! The ids that a customer's record remembers, to tell a repeated event from a new one.
//!
//! A set of (id hash, payload fingerprint, millisecond of the newest receipt). It is order-free: inserting the same ids in any
//! order, and uniting sets in any grouping, gives the same set. It never decides what happens to a repeated event.
//! Bound: `capacity` entries of 16 bytes; at the bound the entries that were received longest ago (of the same millisecond,
//! those with the smallest hash) leave, which again depends only on the set. (With whole seconds, a customer with more events
//! in a second than the set has entries would forget the newest of them, and a repetition that follows at once is not seen.)

use crate::{EventId, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Seed of the id hash; changing it makes every remembered id unknown, so it is part of the format.
const ID_SEED: u64 = 0x7669_6769_6501;

/// Bytes of a stored entry: 48 bits of receipt, 48 bits of hash, 32 bits of fingerprint, big-endian, so that the order of
/// bytes is the order of entries. Two ids of one customer with the same 48 bits are a conflict, which loses nothing.
const ENTRY_BYTES: usize = 16;
/// What fits 48 bits.
const MAX_48: u64 = (1 << 48) - 1;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// Milliseconds since 1970; instants outside of 1970 to 10889 count as the nearer end.
    at: u64,
    /// 48 bits.
    hash: u64,
    fingerprint: u32,
}

/// From so many entries on, an index is kept: reading all of them takes longer than that, once an event comes.
const INDEXED: usize = 64;

/// A bounded set of recently met event ids with the fingerprints of their payloads.
#[derive(Debug, Clone, Default)]
pub struct RecentIds {
    /// In order of receipt (then hash, then fingerprint): what is new comes last and what leaves is first, so that keeping
    /// the set costs next to nothing. (hash, fingerprint) is unique.
    entries: VecDeque<Entry>,
    /// How many entries have a hash, once there are [`INDEXED`] of them and one was inserted: most ids are new, and are
    /// told so without a look at the others.
    index: Option<HashMap<u64, u32, BuildHasherDefault<Hashed>>>,
}

/// The index is no part of the value.
impl PartialEq for RecentIds {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for RecentIds {}

/// Hashes what is a hash already.
#[derive(Debug, Clone, Copy, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl RecentIds {
    /// Looks an id up without remembering it.
    #[must_use]
    pub fn seen(&self, id: &EventId, fingerprint: u64) -> Seen {
        let (hash, short) = key(id, fingerprint);
        let mut seen = Seen::New;
        if !self.may_hold(hash) {
            return seen;
        }
        for entry in self.entries.iter().filter(|entry| entry.hash == hash) {
            if entry.fingerprint == short {
                return Seen::Duplicate;
            }
            seen = Seen::Conflict;
        }
        seen
    }

    /// Remembers an id received at `at`, keeping at most `capacity` entries.
    pub fn insert(&mut self, id: &EventId, fingerprint: u64, at: Timestamp, capacity: usize) {
        let (hash, fingerprint) = key(id, fingerprint);
        self.put(Entry {
            at: millisecond(at),
            hash,
            fingerprint,
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

    /// Forgets ids last received before `at`.
    pub fn forget_before(&mut self, at: Timestamp) {
        let from = millisecond(at);
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.at < from) {
            self.unlist(entry.hash);
        }
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

    fn put(&mut self, entry: Entry) {
        let same = |known: &Entry| known.hash == entry.hash && known.fingerprint == entry.fingerprint;
        if self.may_hold(entry.hash)
            && let Some(at) = self.entries.iter().position(same)
        {
            if self.entries.get(at).is_some_and(|known| known.at >= entry.at) {
                return;
            }
            let _ = self.entries.remove(at);
            self.unlist(entry.hash);
        }
        // Nearly always the newest of all.
        let at = match self.entries.back() {
            Some(last) if entry < *last => self.entries.partition_point(|known| *known < entry),
            _ => self.entries.len(),
        };
        self.entries.insert(at, entry);
        match &mut self.index {
            Some(index) => *index.entry(entry.hash).or_default() += 1,
            None if self.entries.len() >= INDEXED => {
                let index = self.index.insert(HashMap::default());
                self.entries
                    .iter()
                    .for_each(|entry| *index.entry(entry.hash).or_default() += 1);
            }
            None => {}
        }
    }

    fn shrink(&mut self, capacity: usize) {
        while self.entries.len() > capacity {
            if let Some(entry) = self.entries.pop_front() {
                self.unlist(entry.hash);
            }
        }
    }

    /// `false` when no entry has this hash; `true` says nothing.
    fn may_hold(&self, hash: u64) -> bool {
        self.index.as_ref().is_none_or(|index| index.contains_key(&hash))
    }

    /// An entry of this hash has left.
    fn unlist(&mut self, hash: u64) {
        let Some(index) = &mut self.index else { return };
        if let Some(count) = index.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                let _ = index.remove(&hash);
            }
        }
    }
}

fn key(id: &EventId, fingerprint: u64) -> (u64, u32) {
    let [a, b, c, d, ..] = fingerprint.to_le_bytes();
    (
        xxh3_64_with_seed(id.as_str().as_bytes(), ID_SEED) >> 16,
        u32::from_be_bytes([a, b, c, d]),
    )
}

fn millisecond(at: Timestamp) -> u64 {
    u64::try_from(at.0).unwrap_or(0).min(MAX_48)
}

/// The entries one after the other, [`ENTRY_BYTES`] each, ascending.
impl Serialize for RecentIds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for entry in &self.entries {
            let number = u128::from(entry.at) << 80 | u128::from(entry.hash) << 32 | u128::from(entry.fingerprint);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for RecentIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The three numbers in their order, most significant first.
        deserializer.deserialize_bytes(Bytes(|number| Entry {
            at: (number >> 80) as u64,
            hash: (number >> 32) as u64 & MAX_48,
            fingerprint: number as u32,
        }))
    }
}

/// The same set as it was stored once: 32 bits of whole seconds, 64 bits of hash, 32 bits of fingerprint.
#[derive(Debug)]
pub struct RecentIdsBySecond(RecentIds);

impl From<RecentIdsBySecond> for RecentIds {
    fn from(old: RecentIdsBySecond) -> Self {
        old.0
    }
}

impl<'de> Deserialize<'de> for RecentIdsBySecond {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Bytes(|number| Entry {
            at: (number >> 96) as u64 * 1_000,
            hash: (number >> 48) as u64 & MAX_48,
            fingerprint: number as u32,
        });
        deserializer.deserialize_bytes(read).map(Self)
    }
}

/// Reads ascending entries, each by this function of its bytes as one number.
struct Bytes<F>(F);

impl<F: Fn(u128) -> Entry> de::Visitor<'_> for Bytes<F> {
    type Value = RecentIds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ascending entries of 16 bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<RecentIds, E> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        let entries: VecDeque<Entry> = entries
            .iter()
            .map(|bytes| (self.0)(u128::from_be_bytes(*bytes)))
            .collect();
        if rest.is_empty() && entries.iter().is_sorted_by(|a, b| a < b) {
            Ok(RecentIds { entries, index: None })
        } else {
            Err(E::custom("recent ids are damaged"))
        }
    }
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

    #[test]
    fn the_newest_is_remembered_however_many_come_in_a_second() {
        let mut recent = RecentIds::default();
        for n in 0..20_000_u32 {
            // Twenty in a millisecond.
            recent.insert(&id(n), 0, Timestamp(1_770_000_000_000 + i64::from(n) / 20), 2_048);
            assert_eq!(recent.seen(&id(n), 0), Seen::Duplicate, "{n}");
        }
        assert_eq!(recent.seen(&id(20_000 - 2_000), 0), Seen::Duplicate);
    }

    /// The index against a plain list: whatever is inserted, repeated, forgotten and pushed out, both say the same.
    #[test]
    fn the_index_changes_no_answer() {
        let mut state = 7_u64;
        let mut dice = |sides: u32| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32 % sides
        };
        let mut recent = RecentIds::default();
        for step in 0..4_000_i64 {
            let (n, fingerprint) = (dice(400), u64::from(dice(2)));
            let plain = RecentIds {
                entries: recent.entries.clone(),
                index: None,
            };
            assert_eq!(recent.seen(&id(n), fingerprint), plain.seen(&id(n), fingerprint));
            let at = Timestamp(step * 100 - i64::from(dice(3)) * 5_000);
            recent.insert(&id(n), fingerprint, at, 150);
            if dice(50) == 0 {
                recent.forget_before(Timestamp(step * 100 - 8_000));
            }
            if let Some(index) = &recent.index {
                assert_eq!(index.values().sum::<u32>() as usize, recent.len());
                assert!(recent.entries.iter().all(|entry| index.contains_key(&entry.hash)));
            }
            assert!(recent.entries.iter().is_sorted());
        }
        assert!(recent.index.is_some());
    }
}
