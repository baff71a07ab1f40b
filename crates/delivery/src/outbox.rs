//! What one lane remembers: how far it has read in the store's list of flags, which of those are still open, which are parked.
//!
//! The state is the sum of its [`Change`]s, which are also what the journal holds: there is one way to apply them, at work and
//! at a restart. A snapshot lists open and parked flags first and how far was read last, so that a journal that lost its
//! tail knows less and never more: it reads flags again. It performs no I/O and reads no clock.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Day, FlagId, Timestamp};

/// Most open flags of a lane.
pub const MAX_OPEN: usize = 100_000;
/// Most parked flags of a lane.
pub const MAX_PARKED: usize = 100_000;

/// A flag that is neither delivered nor given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Its identity.
    pub id: FlagId,
    /// Whose flag it is; flags of one customer leave in the order of their numbers.
    pub customer: u64,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// Attempts that failed.
    pub attempts: u32,
    /// Not before this instant.
    pub due: Timestamp,
}

/// A flag that was given up after its last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// What it was while it was open.
    pub flag: Open,
    /// When it was parked.
    pub at: Timestamp,
}

/// Why a lane sends nothing until somebody resumes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halt {
    /// The receiver answered 410.
    Gone,
    /// The store numbers its flags in another way than before: it was rebuilt or replaced.
    Renumbered,
}

impl Halt {
    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Renumbered => "renumbered",
        }
    }
}

/// One step of a lane. Its places in this list are part of the journal's format: new ones are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// All flags up to this one were taken in; it is that number's flag.
    Read(u64, Option<FlagId>),
    /// The flag is open, as given.
    Open(u64, Open),
    /// The flag was delivered or dropped, or has another number now.
    Closed(u64),
    /// The flag was given up.
    Parked(u64, Parked),
    /// Nothing is sent until [`Change::Resumed`].
    Halted(Halt),
    /// Goes on.
    Resumed,
    /// So many have arrived on this day (UTC); written only where a capacity is to be kept.
    Sent(Day, u32),
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbox {
    read: u64,
    read_id: Option<FlagId>,
    open: BTreeMap<u64, Open>,
    parked: BTreeMap<u64, Parked>,
    halt: Option<Halt>,
    /// What has arrived on the last day on which something did.
    sent: Option<(Day, u32)>,
    /// The open flags of each customer; the first one is the customer's turn.
    customers: BTreeMap<u64, BTreeSet<u64>>,
    /// The first open flag of each customer by when it is due.
    turns: BTreeSet<(Timestamp, u64)>,
}

impl Outbox {
    /// The state that some changes lead to.
    #[must_use]
    pub fn replay(changes: &[Change]) -> Self {
        let mut outbox = Self::default();
        changes.iter().for_each(|change| outbox.apply(change));
        outbox
    }

    /// Makes a change.
    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::Read(number, id) => (self.read, self.read_id) = (number, id),
            Change::Open(number, open) => {
                self.remove(number);
                let _ = self.parked.remove(&number);
                self.insert(number, open);
            }
            Change::Closed(number) => {
                self.remove(number);
                let _ = self.parked.remove(&number);
            }
            Change::Parked(number, parked) => {
                self.remove(number);
                let _ = self.parked.insert(number, parked);
            }
            Change::Halted(halt) => self.halt = Some(halt),
            Change::Resumed => self.halt = None,
            Change::Sent(day, count) => self.sent = Some((day, count)),
        }
    }

    fn insert(&mut self, number: u64, open: Open) {
        let _ = self.open.insert(number, open);
        let queue = self.customers.entry(open.customer).or_default();
        let before = queue.first().copied();
        let _ = queue.insert(number);
        if before.is_none_or(|before| number < before) {
            if let Some((due, before)) = before.and_then(|before| Some((self.open.get(&before)?.due, before))) {
                let _ = self.turns.remove(&(due, before));
            }
            let _ = self.turns.insert((open.due, number));
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(open) = self.open.remove(&number) else { return };
        let _ = self.turns.remove(&(open.due, number));
        let Some(queue) = self.customers.get_mut(&open.customer) else {
            return;
        };
        let _ = queue.remove(&number);
        match queue.first() {
            None => drop(self.customers.remove(&open.customer)),
            Some(next) => {
                if let Some(then) = self.open.get(next) {
                    let _ = self.turns.insert((then.due, *next));
                }
            }
        }
    }

    /// The flag that waits for another attempt and is due first, of those whose turn it is.
    #[must_use]
    pub fn first_waiting(&self) -> Option<(u64, Open)> {
        let turns = self
            .turns
            .iter()
            .filter_map(|(_, number)| Some((*number, self.get(*number)?)));
        turns.into_iter().find(|(_, open)| open.attempts > 0)
    }

    /// Changes that lead to this state.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Change> {
        let parked = self
            .parked
            .iter()
            .map(|(number, parked)| Change::Parked(*number, *parked));
        let open = self.open.iter().map(|(number, open)| Change::Open(*number, *open));
        let halt = self.halt.map(Change::Halted);
        let sent = self.sent.map(|(day, count)| Change::Sent(day, count));
        let read = Change::Read(self.read, self.read_id);
        parked.chain(open).chain(halt).chain(sent).chain([read]).collect()
    }

    /// How many have arrived on a day, as far as it is counted.
    #[must_use]
    pub fn sent_on(&self, day: Day) -> u32 {
        self.sent.filter(|(of, _)| *of == day).map_or(0, |(_, count)| count)
    }

    /// The last flag that was taken in: its number and, above 0, its identity.
    #[must_use]
    pub fn read(&self) -> (u64, Option<FlagId>) {
        (self.read, self.read_id)
    }

    /// Whether and why nothing is sent.
    #[must_use]
    pub fn halt(&self) -> Option<Halt> {
        self.halt
    }

    /// One open flag.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Open> {
        self.open.get(&number).copied()
    }

    /// The open flags by number.
    pub fn open(&self) -> impl ExactSizeIterator<Item = (u64, &Open)> {
        self.open.iter().map(|(number, open)| (*number, open))
    }

    /// The parked flags by number.
    pub fn parked(&self) -> impl ExactSizeIterator<Item = (u64, &Parked)> {
        self.parked.iter().map(|(number, parked)| (*number, parked))
    }

    /// How many flags may still be taken in.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.parked.len() >= MAX_PARKED {
            return 0;
        }
        MAX_OPEN.saturating_sub(self.open.len())
    }

    /// The flags whose turn it is, the longest due first, at most `limit`.
    #[must_use]
    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<(u64, Open)> {
        let due = self.turns.iter().take_while(|(due, _)| *due <= now).take(limit);
        due.filter_map(|(_, number)| Some((*number, self.get(*number)?)))
            .collect()
    }

    /// When the next flag's turn comes.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.turns.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(number: u64, customer: u64, due: i64) -> Change {
        let open = Open {
            id: FlagId(u128::from(number).to_be_bytes()),
            customer,
            raised_at: Timestamp(0),
            attempts: 0,
            due: Timestamp(due),
        };
        Change::Open(number, open)
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            4 => (1..20u64, 0..4u64, 0..9i64).prop_map(|(number, customer, due)| open(number, customer, due)),
            2 => (1..20u64).prop_map(Change::Closed),
            1 => (1..20u64, 0..4u64).prop_map(|(number, customer)| match open(number, customer, 0) {
                Change::Open(number, flag) => Change::Parked(number, Parked { flag, at: Timestamp(1) }),
                other => other,
            }),
            1 => (0..20u64).prop_map(|number| Change::Read(number, None)),
            1 => Just(Change::Halted(Halt::Gone)),
            1 => Just(Change::Resumed),
        ]
    }

    proptest! {
        /// Turns, computed from nothing but the open flags: the lowest number of each customer, if it is due.
        #[test]
        fn one_turn_per_customer_in_order(changes in proptest::collection::vec(change(), 0..60), now in 0..9i64) {
            let outbox = Outbox::replay(&changes);
            let mut first: BTreeMap<u64, (u64, Timestamp)> = BTreeMap::new();
            for (number, open) in outbox.open() {
                let _ = first.entry(open.customer).or_insert((number, open.due));
            }
            let mut expected: Vec<(Timestamp, u64)> =
                first.values().filter(|(_, due)| due.0 <= now).map(|(number, due)| (*due, *number)).collect();
            expected.sort_unstable();
            let found: Vec<_> = outbox.due(Timestamp(now), 99).into_iter().map(|(number, open)| (open.due, number)).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(outbox.next_due(), first.values().map(|(_, due)| *due).min());
        }

        #[test]
        fn a_snapshot_leads_to_the_same_state(changes in proptest::collection::vec(change(), 0..60)) {
            let outbox = Outbox::replay(&changes);
            prop_assert_eq!(Outbox::replay(&outbox.snapshot()), outbox);
        }
    }

    #[test]
    fn the_order_of_changes_is_part_of_the_format() {
        let Change::Open(_, flag) = open(1, 2, 3) else {
            unreachable!()
        };
        let first = |change: Change| postcard::to_allocvec(&change).unwrap()[0];
        let parked = Parked { flag, at: Timestamp(0) };
        let all = [
            Change::Read(1, None),
            Change::Open(1, flag),
            Change::Closed(1),
            Change::Parked(1, parked),
            Change::Halted(Halt::Gone),
            Change::Resumed,
            Change::Sent(Day(1), 1),
        ];
        assert_eq!(all.map(first), [0, 1, 2, 3, 4, 5, 6]);
    }
}
