//! Customer records that the worker folded lately, decoded: what the store holds for them, so that a busy customer is not
//! fetched and decoded with every batch.
//!
//! # Contract
//!
//! A record is here only while this worker owns its partition and knows that the store holds the same one. The worker takes
//! a record out to fold it and puts it back when the commit has succeeded; whatever fails in between leaves it out, and the
//! store is asked again. When the worker cannot be sure what the store holds, it empties the whole ([`Resident::clear`]).
//! It never decides what is worth keeping by what a record says, and holds no record that the store lacks.
//!
//! # Bound
//!
//! Two halves by age: what is used moves into the young half; when that is full, the old half goes and the young one takes
//! its place. A record is weighed by its encoded bytes, [`DECODED`] times, plus its key. So at most `budget` bytes are held,
//! of which the half used last survives, and neither use costs more than a look into a hash map.

use std::collections::HashMap;
use std::mem;
use vigie_event::CustomerKey;
use vigie_scoring::CustomerState;

/// Bytes in memory for each byte of a record's encoding, and what a key and its place cost besides: measured over the
/// records of the peers' workload, rounded up.
const DECODED: usize = 3;
const PLACE: usize = 600;

/// The records, by customer.
#[derive(Debug)]
pub(crate) struct Resident {
    young: HashMap<CustomerKey, Kept>,
    old: HashMap<CustomerKey, Kept>,
    /// Of the young half.
    weight: usize,
    budget: usize,
}

#[derive(Debug)]
struct Kept {
    state: CustomerState,
    weight: usize,
}

impl Resident {
    /// Room for about `budget` bytes; none for 0.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            weight: 0,
            budget,
        }
    }

    /// Takes a customer's record out, if it is here.
    pub(crate) fn take(&mut self, key: &CustomerKey) -> Option<CustomerState> {
        if let Some(kept) = self.young.remove(key) {
            self.weight -= kept.weight;
            return Some(kept.state);
        }
        self.old.remove(key).map(|kept| kept.state)
    }

    /// Keeps a record that the store holds, of so many bytes there.
    pub(crate) fn keep(&mut self, key: CustomerKey, state: CustomerState, encoded: usize) {
        let weight = encoded * DECODED + PLACE;
        if weight > self.budget / 2 {
            return;
        }
        if self.weight + weight > self.budget / 2 {
            self.old = mem::take(&mut self.young);
            self.weight = 0;
        }
        let _ = self.old.remove(&key);
        self.weight += weight;
        if let Some(before) = self.young.insert(key, Kept { state, weight }) {
            self.weight -= before.weight;
        }
    }

    /// Forgets all: the store may hold something else by now.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.budget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_event::{PersonId, Timestamp, Workspace};

    fn key(n: usize) -> CustomerKey {
        CustomerKey::new(
            Workspace::new("shop").unwrap(),
            PersonId::known(&format!("c{n}")).unwrap(),
        )
    }

    fn state(n: i64) -> CustomerState {
        CustomerState {
            last_received: Timestamp(n),
            ..CustomerState::default()
        }
    }

    #[test]
    fn what_is_taken_is_gone_until_it_is_put_back() {
        let mut resident = Resident::new(1 << 20);
        resident.keep(key(1), state(7), 100);
        assert_eq!(resident.take(&key(1)), Some(state(7)));
        assert_eq!(resident.take(&key(1)), None);
        resident.keep(key(1), state(8), 100);
        resident.keep(key(1), state(9), 100);
        assert_eq!(resident.take(&key(1)), Some(state(9)));
        assert_eq!(resident.weight, 0);
        resident.keep(key(1), state(9), 100);
        resident.clear();
        assert_eq!(resident.take(&key(1)), None);
    }

    #[test]
    fn the_bound_holds_and_what_was_used_last_stays() {
        let budget = 100 * (PLACE + DECODED * 100);
        let mut resident = Resident::new(budget);
        for n in 0..1_000 {
            resident.keep(key(n), state(0), 100);
            let halves = [&resident.young, &resident.old];
            let held: usize = halves
                .iter()
                .flat_map(|half| half.values())
                .map(|kept| kept.weight)
                .sum();
            assert!(held <= budget, "{held}");
        }
        assert!((951..1_000).all(|n| resident.take(&key(n)).is_some()));
        assert!((0..900).all(|n| resident.take(&key(n)).is_none()));
        resident.keep(key(0), state(0), budget);
        assert_eq!(resident.take(&key(0)), None, "a record that would fill it alone");
        let mut none = Resident::new(0);
        none.keep(key(0), state(0), 0);
        assert_eq!(none.take(&key(0)), None);
    }
}
