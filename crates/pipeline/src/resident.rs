//! Customer records that the worker folded lately, decoded: what the store holds for them, so that a busy customer is not
//! fetched and decoded with every batch.
//!
//! # Contract
//!
//! A record is here only while this worker owns its partition and knows that the store holds the same one, or will once the
//! commit in flight has landed: before that the store must not be asked for it. The worker takes a record out to fold it and
//! puts it back, folded or not. When it cannot be sure what the store holds, it empties the whole ([`Resident::clear`]).
//! It never decides what is worth keeping by what a record says.
//!
//! # Bound
//!
//! Two halves by age: what is used moves into the young half; when that is full, the old half goes and the young one takes
//! its place. So about `budget` bytes are held, or two batches where a batch is larger than half of that; what was used last
//! survives, what was put in last always does, and a use costs no more than a look into a hash map.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use vigie_event::CustomerKey;
use vigie_scoring::CustomerState;

/// The records, by customer.
#[derive(Debug)]
pub(crate) struct Resident {
    young: HashMap<CustomerKey, Arc<CustomerState>>,
    old: HashMap<CustomerKey, Arc<CustomerState>>,
    /// Of the young half, and too much rather than too little: what is taken out of it still counts.
    weight: usize,
    budget: usize,
}

impl Resident {
    /// Room for about `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            weight: 0,
            budget,
        }
    }

    /// Takes a customer's record out, if it is here.
    pub(crate) fn take(&mut self, key: &CustomerKey) -> Option<Arc<CustomerState>> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// Keeps a batch of records. All of them are still here when it returns.
    pub(crate) fn keep(&mut self, batch: Vec<(CustomerKey, Arc<CustomerState>)>) {
        let weight: usize = batch.iter().map(|(_, state)| weight(state)).sum();
        if self.weight + weight > self.budget / 2 {
            self.old = mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += weight;
        for (key, state) in batch {
            // An older version elsewhere would come to light when this one is taken.
            let _ = self.old.remove(&key);
            let _ = self.young.insert(key, state);
        }
    }

    /// Forgets all: the store may hold something else by now.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.budget);
    }
}

/// About how many bytes of memory a record takes: its own, its key's and place's, and those of its longest lists.
fn weight(state: &CustomerState) -> usize {
    let days: usize = state
        .parts
        .values()
        .map(|part| 600 + 24 * (part.calendar().counts().len() + part.purchases().days().len()))
        .sum();
    700 + days + 40 * state.recent.len() + 160 * state.mail.acts().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_event::{PersonId, Timestamp, Workspace};

    fn record(n: usize, version: i64) -> (CustomerKey, Arc<CustomerState>) {
        let person = PersonId::known(&format!("c{n}")).unwrap();
        let state = CustomerState {
            last_received: Timestamp(version),
            ..CustomerState::default()
        };
        (
            CustomerKey::new(Workspace::new("shop").unwrap(), person),
            Arc::new(state),
        )
    }

    #[test]
    fn what_is_taken_is_gone_until_it_is_put_back() {
        let mut resident = Resident::new(1 << 20);
        let ((key, first), (_, second)) = (record(1, 7), record(1, 8));
        resident.keep(vec![(key.clone(), Arc::clone(&first))]);
        assert_eq!(resident.take(&key), Some(first));
        assert_eq!(resident.take(&key), None);
        resident.keep(vec![(key.clone(), Arc::clone(&second))]);
        resident.clear();
        assert_eq!(resident.take(&key), None);
    }

    #[test]
    fn a_newer_version_hides_the_older_one_for_good() {
        let mut resident = Resident::new(1_000);
        resident.keep(vec![record(1, 1)]);
        resident.keep(vec![record(1, 2)]);
        assert_eq!(
            resident.take(&record(1, 0).0).map(|state| state.last_received),
            Some(Timestamp(2))
        );
        assert_eq!(resident.take(&record(1, 0).0), None);
    }

    #[test]
    fn the_bound_holds_what_was_used_last_stays_and_a_batch_is_never_split() {
        let each = weight(&CustomerState::default());
        let mut resident = Resident::new(100 * each);
        for n in 0..1_000 {
            resident.keep(vec![record(n, 0)]);
            assert!(resident.young.len() + resident.old.len() <= 100);
        }
        assert!((951..1_000).all(|n| resident.take(&record(n, 0).0).is_some()));
        assert!((0..900).all(|n| resident.take(&record(n, 0).0).is_none()));
        resident.keep((0..500).map(|n| record(n, 0)).collect());
        assert!((0..500).all(|n| resident.take(&record(n, 0).0).is_some()));
    }
}
