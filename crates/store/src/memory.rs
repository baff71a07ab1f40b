//! The store in memory: the contract of [`crate::Store`] without a disk, for the simulation and for tests.
//!
//! One ordered map holds the same rows as the embedded store. It is deterministic: no thread, no clock, no
//! randomness. A clone is another handle on the same rows, so a "crash" of everything that uses it is a clone
//! that goes on; [`MemoryStore::power_loss`] goes back to the last [`crate::Store::persist`].

use crate::rows::{self, Changes, Rows};
use crate::{Commit, CommitReceipt, Counts, RankCursor, Snapshot, Store, StoreError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vigie_event::{CustomerKey, FlagId, Offset, Partition, Timestamp, Workspace};

/// A store in memory. Clones share the same rows.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    partitions: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    rows: Map,
    /// The changes that power loss would undo: what the rows held at the last persist.
    before: Changes,
}

type Map = BTreeMap<Vec<u8>, Bytes>;

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(partitions: u16) -> Self {
        Self {
            partitions,
            state: Arc::default(),
        }
    }

    /// Forgets everything since the last persist or claim, as a power loss may.
    pub fn power_loss(&self) {
        let mut state = self.state();
        for (key, value) in std::mem::take(&mut state.before) {
            drop(change(&mut state.rows, key, value));
        }
    }

    /// A panic elsewhere cannot leave the rows half-changed: a commit is planned first and then applied by
    /// infallible steps.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, changes: Changes) {
        for (key, value) in changes {
            let old = change(&mut self.rows, key.clone(), value);
            let _kept = self.before.entry(key).or_insert(old);
        }
    }
}

fn change(rows: &mut Map, key: Vec<u8>, value: Option<Bytes>) -> Option<Bytes> {
    match value {
        Some(value) => rows.insert(key, value),
        None => rows.remove(&key),
    }
}

impl Rows for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn range(
        &self,
        lower: Vec<u8>,
        upper: Vec<u8>,
    ) -> impl DoubleEndedIterator<Item = Result<(Bytes, Bytes), StoreError>> {
        // The map panics on an inverted range.
        let upper = upper.max(lower.clone());
        BTreeMap::range(self, lower..upper).map(|(key, value)| Ok((Bytes::copy_from_slice(key), value.clone())))
    }
}

/// A copy of the rows of a store, in memory.
#[derive(Debug)]
pub struct MemorySnapshot(Map);

impl MemorySnapshot {
    /// A copy of rows that somebody else has read, under the keys of `keys.rs`.
    pub(crate) fn of(rows: BTreeMap<Vec<u8>, Bytes>) -> Self {
        Self(rows)
    }
}

impl Snapshot for MemorySnapshot {
    fn partition(&self, partition: Partition) -> Result<Option<Bytes>, StoreError> {
        Rows::get(&self.0, &crate::keys::meta(partition))
    }

    fn scan(
        &self,
        partition: Partition,
        after: Option<&CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
        let after = after.map(|key| crate::keys::customer(partition, key));
        rows::customers_under(&self.0, crate::keys::customers_in(partition), after, limit)
    }

    fn flags(
        &self,
        after: Option<&(Workspace, u64)>,
        limit: usize,
    ) -> Result<Vec<(Workspace, u64, Bytes)>, StoreError> {
        rows::all_flags(&self.0, after, limit)
    }
}

impl Store for MemoryStore {
    type Snapshot = MemorySnapshot;

    fn partitions(&self) -> u16 {
        self.partitions
    }

    fn load(&self, keys: &[CustomerKey]) -> impl Future<Output = Result<Vec<Option<Bytes>>, StoreError>> + Send {
        ready(rows::load(
            &self.state().rows,
            &rows::customer_keys(keys, self.partitions),
        ))
    }

    fn partition(&self, partition: Partition) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send {
        ready(Rows::get(&self.state().rows, &crate::keys::meta(partition)))
    }

    fn due(
        &self,
        partition: Partition,
        upto: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Timestamp, CustomerKey)>, StoreError>> + Send {
        let state = self.state();
        let timers = rows::timers(&state.rows, partition, Timestamp(i64::MIN));
        ready(
            timers
                .take_while(|timer| timer.as_ref().map_or(true, |(due, _)| *due <= upto))
                .take(limit)
                .collect(),
        )
    }

    fn next_due(&self, partition: Partition) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send {
        let state = self.state();
        let first = rows::timers(&state.rows, partition, Timestamp(i64::MIN))
            .next()
            .transpose();
        ready(first.map(|first| first.map(|(due, _)| due)))
    }

    async fn commit(&self, commit: Commit) -> Result<CommitReceipt, StoreError> {
        let mut state = self.state();
        let (changes, receipt) = rows::plan(&state.rows, commit, self.partitions)?;
        state.apply(changes);
        Ok(receipt)
    }

    async fn renew(&self, epoch: u64, partitions: &[Partition]) -> Result<u64, StoreError> {
        let mut state = self.state();
        let (changes, epoch) = rows::plan_renewal(&state.rows, epoch, partitions, self.partitions)?;
        state.apply(changes);
        state.before.clear();
        Ok(epoch)
    }

    async fn claim(&self, partitions: &[Partition]) -> Result<u64, StoreError> {
        let mut state = self.state();
        let (changes, epoch) = rows::plan_claim(&state.rows, partitions, self.partitions)?;
        state.apply(changes);
        state.before.clear();
        Ok(epoch)
    }

    fn scan(
        &self,
        partition: Partition,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(CustomerKey, Bytes)>, StoreError>> + Send {
        let after = after.map(|key| crate::keys::customer(partition, &key));
        ready(rows::customers_under(
            &self.state().rows,
            crate::keys::customers_in(partition),
            after,
            limit,
        ))
    }

    fn at_risk(
        &self,
        workspace: &Workspace,
        after: Option<RankCursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u16, CustomerKey, Bytes)>, StoreError>> + Send {
        ready(rows::at_risk(
            &self.state().rows,
            workspace,
            after.as_ref(),
            limit,
            self.partitions,
        ))
    }

    fn flags(
        &self,
        workspace: &Workspace,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, Bytes)>, StoreError>> + Send {
        ready(rows::flags(&self.state().rows, workspace, after, limit))
    }

    fn flag(
        &self,
        workspace: &Workspace,
        id: &FlagId,
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send {
        ready(rows::flag(&self.state().rows, workspace, id))
    }

    fn customers(
        &self,
        workspace: &Workspace,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(CustomerKey, Bytes)>, StoreError>> + Send {
        ready(rows::customers(
            &self.state().rows,
            workspace,
            after.as_ref(),
            limit,
            self.partitions,
        ))
    }

    async fn persist(&self) -> Result<(), StoreError> {
        self.state().before.clear();
        Ok(())
    }

    fn judged(
        &self,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Offset, Bytes)>, StoreError>> + Send {
        ready(rows::judged(&self.state().rows, partition, from, limit))
    }

    async fn forget_judged(&self, below: &[(Partition, Offset)]) -> Result<(), StoreError> {
        let mut state = self.state();
        let changes = rows::plan_forget(&state.rows, below)?;
        state.apply(changes);
        Ok(())
    }

    async fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        Ok(MemorySnapshot(self.state().rows.clone()))
    }

    fn counts(&self) -> impl Future<Output = Result<Counts, StoreError>> + Send {
        ready(Ok(Counts {
            rows: self.state().rows.len() as u64,
            disk_bytes: 0,
        }))
    }
}
