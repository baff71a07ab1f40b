//! The log in memory: the contract of [`super::Log`] without a disk, for the simulation and for tests.
//!
//! It is deterministic: no thread, no clock, no randomness; the order of appends is the order of calls. A clone
//! is another handle on the same log, so a "crash" of everything that uses it is a clone that goes on. It never
//! loses anything, so a fault is only ever one that a test asks for with [`MemoryLog::inject`].

use super::{Entry, Health, Log, LogError, LogReader, check_partitions, check_start};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use vigie_event::{Offset, Partition, Position};

/// What happens to one append, for tests and the simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The append is refused and writes nothing.
    Refuse(LogError),
    /// The append is written, but its caller is told that it failed: the answer was lost on the way. The contract
    /// leaves the outcome open for [`LogError::Poisoned`] only.
    LoseAnswer(LogError),
}

/// A log in memory. Clones share the same records.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The log sequence of the next record, so that readers can wait for it.
    durable: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// Records in log order; the first one has the log sequence `base`.
    entries: VecDeque<Entry>,
    base: u64,
    /// Per partition: the log sequence of each retained record, oldest first.
    partitions: Vec<PartitionState>,
    /// One item per coming append, `None` for an undisturbed one.
    faults: VecDeque<Option<Fault>>,
    health: Health,
}

#[derive(Debug, Default)]
struct PartitionState {
    first: u64,
    sequences: VecDeque<u64>,
}

impl PartitionState {
    fn end(&self) -> u64 {
        self.first + self.sequences.len() as u64
    }
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(partitions: u16) -> Self {
        let state = State {
            entries: VecDeque::new(),
            base: 0,
            partitions: (0..partitions).map(|_| PartitionState::default()).collect(),
            faults: VecDeque::new(),
            health: Health::Ok,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                durable: watch::channel(0).0,
            }),
        }
    }

    /// Lets `undisturbed` more appends pass and then makes one fail as told. Faults queue up behind each other.
    pub fn inject(&self, undisturbed: usize, fault: Fault) {
        let mut state = self.state();
        state.faults.extend(std::iter::repeat_n(None, undisturbed));
        state.faults.push_back(Some(fault));
    }

    /// Sets what [`Log::health`] answers.
    pub fn set_health(&self, health: Health) {
        self.state().health = health;
    }

    /// Forgets every record that stands before the first record still wanted by any partition. `below` holds one
    /// offset per partition. Answers how many records were removed.
    pub fn retain(&self, below: &[Offset]) -> usize {
        let mut state = self.state();
        let mut removed = 0;
        while let Some(entry) = state.entries.front() {
            let Position { partition, offset } = entry.position;
            let index = usize::from(partition.0);
            if below.get(index).is_none_or(|limit| offset >= *limit) {
                break;
            }
            if let Some(owner) = state.partitions.get_mut(index) {
                owner.first += 1;
                let _sequence = owner.sequences.pop_front();
            }
            drop(state.entries.pop_front());
            state.base += 1;
            removed += 1;
        }
        removed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Shared {
    /// A panic elsewhere cannot leave the state half-changed: every change below is made of infallible steps.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, records: Vec<(Partition, Bytes)>) -> Result<Vec<Position>, LogError> {
        let mut state = self.state();
        check_partitions(&records, u16::try_from(state.partitions.len()).unwrap_or(u16::MAX))?;
        let lost_answer = match state.faults.pop_front().flatten() {
            Some(Fault::Refuse(error)) => return Err(error),
            Some(Fault::LoseAnswer(error)) => Some(error),
            None => None,
        };
        let mut positions = Vec::with_capacity(records.len());
        for (partition, payload) in records {
            let sequence = state.base + state.entries.len() as u64;
            if let Some(owner) = state.partitions.get_mut(usize::from(partition.0)) {
                let position = Position {
                    partition,
                    offset: Offset(owner.end()),
                };
                owner.sequences.push_back(sequence);
                state.entries.push_back(Entry { position, payload });
                positions.push(position);
            }
        }
        let next = state.base + state.entries.len() as u64;
        drop(state);
        let _before = self.durable.send_replace(next);
        lost_answer.map_or(Ok(positions), Err)
    }
}

impl State {
    fn starts(&self) -> Vec<Offset> {
        self.partitions.iter().map(|p| Offset(p.first)).collect()
    }

    fn ends(&self) -> Vec<Offset> {
        self.partitions.iter().map(|p| Offset(p.end())).collect()
    }
}

impl Log for MemoryLog {
    type Reader = MemoryReader;

    fn partitions(&self) -> u16 {
        u16::try_from(self.state().partitions.len()).unwrap_or(u16::MAX)
    }

    fn append(&self, records: Vec<(Partition, Bytes)>) -> impl Future<Output = Result<Vec<Position>, LogError>> + Send {
        let shared = Arc::clone(&self.shared);
        async move {
            if records.is_empty() {
                Ok(Vec::new())
            } else {
                shared.append(records)
            }
        }
    }

    fn reader(&self, from: BTreeMap<Partition, Offset>) -> Result<MemoryReader, LogError> {
        let state = self.state();
        check_start(&from, &state.starts(), &state.ends())?;
        let end = state.base + state.entries.len() as u64;
        // The earliest record that any wanted partition still wants; the end if all of them are caught up.
        let cursor = from
            .iter()
            .filter_map(|(partition, offset)| {
                let owner = state.partitions.get(usize::from(partition.0))?;
                owner
                    .sequences
                    .get(usize::try_from(offset.0 - owner.first).ok()?)
                    .copied()
            })
            .min()
            .unwrap_or(end);
        drop(state);
        let durable = self.shared.durable.subscribe();
        Ok(MemoryReader {
            shared: Arc::clone(&self.shared),
            durable,
            wanted: from,
            cursor,
        })
    }

    fn ends(&self) -> Vec<Offset> {
        self.state().ends()
    }

    fn starts(&self) -> Vec<Offset> {
        self.state().starts()
    }

    fn health(&self) -> Health {
        self.state().health.clone()
    }
}

/// A reader of a [`MemoryLog`].
#[derive(Debug)]
pub struct MemoryReader {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
    /// The next wanted offset of each partition that was asked for.
    wanted: BTreeMap<Partition, Offset>,
    /// The log sequence of the next record to look at.
    cursor: u64,
}

impl MemoryReader {
    /// Takes what is there, without waiting.
    fn take(&mut self, max_records: usize, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        let state = self.shared.state();
        if self.cursor < state.base {
            // Retention overtook this reader. That is a gap only if one of its own records is gone.
            check_start(&self.wanted, &state.starts(), &state.ends())?;
            self.cursor = state.base;
        }
        let mut taken = Vec::new();
        let mut bytes = 0usize;
        let skip = usize::try_from(self.cursor - state.base).unwrap_or(usize::MAX);
        for entry in state.entries.iter().skip(skip) {
            if let Some(next) = self.wanted.get_mut(&entry.position.partition)
                && entry.position.offset >= *next
            {
                let size = bytes.saturating_add(entry.payload.len());
                if taken.len() >= max_records || (size > max_bytes && !taken.is_empty()) {
                    break;
                }
                bytes = size;
                *next = entry.position.offset.next();
                taken.push(entry.clone());
            }
            self.cursor += 1;
        }
        Ok(taken)
    }
}

impl LogReader for MemoryReader {
    async fn next(&mut self, max_records: usize, max_bytes: usize, wait: Duration) -> Result<Vec<Entry>, LogError> {
        let timeout = tokio::time::sleep(wait);
        tokio::pin!(timeout);
        loop {
            // Marked as seen before looking, so that an append in between wakes the wait below.
            let _seen = *self.durable.borrow_and_update();
            let taken = self.take(max_records.max(1), max_bytes)?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            tokio::select! {
                biased;
                changed = self.durable.changed() => if changed.is_err() { return Ok(Vec::new()) },
                () = &mut timeout => return Ok(Vec::new()),
            }
        }
    }
}
