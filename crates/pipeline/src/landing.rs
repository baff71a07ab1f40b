//! What a step came to, on its way out: derived records into the log, dead letters to where they are kept, everything else in
//! one commit into the store, in this order. It knows nothing of the fold and of what the worker holds; so it can run beside
//! the fold of the next batch.

use crate::errors::WorkerError;
use crate::fold::{Folded, Tally};
use crate::meta::{Active, PartitionState};
use crate::published::published;
use crate::status::PartitionStatus;
use crate::worker::{DeadLetter, DeadLetterSink};
use bytes::Bytes;
use futures::future::join_all;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{CustomerKey, Judgement, Offset, Partition, Record, Timestamp, partition_for};
use vigie_failpoint::{mutant, point};
use vigie_ingestion::log::Log;
use vigie_scoring::CustomerState;
use vigie_store::{Commit, CustomerWrite, ErrorClass, FlagRow, Projection, Store, StoreError};
use vigie_telemetry::Metrics;

/// A customer whose record has changed.
#[derive(Debug)]
pub(crate) struct Changed {
    key: CustomerKey,
    /// Shared with the worker, which may fold it further.
    state: Arc<CustomerState>,
    index: Index,
    stored_rank: Option<u16>,
}

/// What changes in a customer's entries of the timer index.
///
/// The index holds, for every record with a timer, an entry at that time *or earlier*; an earlier one only has the customer
/// fetched, found not to be due yet, and entered anew. So a timer that moves into the future, as it does with every event
/// of a busy customer, costs the store nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    added: Option<Timestamp>,
    gone: Vec<Timestamp>,
}

impl Index {
    /// From the timer before and after, and the entries that the step has read.
    fn new(before: Option<Timestamp>, after: Option<Timestamp>, read: Vec<Timestamp>) -> Self {
        match (before, after) {
            (Some(before), Some(after)) if read.is_empty() && before <= after => Self::default(),
            _ => Self {
                added: after,
                gone: read
                    .into_iter()
                    .chain(before)
                    .filter(|entry| Some(*entry) != after)
                    .collect(),
            },
        }
    }
}

/// Everything that a step has to write.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) epoch: u64,
    pub(crate) partitions: u16,
    pub(crate) states: BTreeMap<Partition, PartitionState>,
    pub(crate) customers: Vec<Changed>,
    pub(crate) derived: Vec<(Partition, Record)>,
    pub(crate) flags: Vec<FlagRow>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) judged: BTreeMap<Partition, (Offset, Vec<Judgement>)>,
    pub(crate) seen: Seen,
}

/// What is to be told to operations once it is written.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) tally: Tally,
    pub(crate) by_event: u64,
    pub(crate) by_timer: u64,
}

/// A step that is part of the stored state.
#[derive(Debug)]
pub(crate) struct Landed {
    pub(crate) partitions: BTreeMap<Partition, PartitionStatus>,
    pub(crate) active: Option<(Arc<Active>, Option<Timestamp>)>,
    pub(crate) seen: Seen,
    /// How long the store took.
    pub(crate) took: Duration,
}

impl Job {
    /// What came of a fold, and the records of the customers that it looked at, changed or not.
    pub(crate) fn new(
        outcome: Folded,
        epoch: u64,
        partitions: u16,
        keeps_judgements: bool,
    ) -> (Self, Vec<(CustomerKey, Arc<CustomerState>)>) {
        let Folded {
            states,
            customers,
            derived,
            flags,
            dead_letters,
            judged,
            tally,
        } = outcome;
        let (mut by_event, mut by_timer) = (0, 0);
        let mut records = Vec::with_capacity(customers.len());
        let mut changed = Vec::with_capacity(customers.len());
        for loaded in customers {
            let state = Arc::new(loaded.state);
            if loaded.touched {
                if loaded.by_event {
                    by_event += 1;
                } else {
                    by_timer += 1;
                }
                changed.push(Changed {
                    key: loaded.key.clone(),
                    state: Arc::clone(&state),
                    index: Index::new(loaded.stored_timer, state.timer, loaded.indexed),
                    stored_rank: loaded.stored_rank,
                });
            }
            records.push((loaded.key, state));
        }
        let job = Self {
            epoch,
            partitions,
            states,
            customers: changed,
            derived,
            flags,
            dead_letters,
            judged: if keeps_judgements { judged } else { BTreeMap::new() },
            seen: Seen {
                tally,
                by_event,
                by_timer,
            },
        };
        (job, records)
    }

    /// The earliest entry of the timer index that it adds: until it has landed, the store does not know of it.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        self.customers.iter().filter_map(|changed| changed.index.added).min()
    }

    /// Writes it. After an error it is unknown what of it the log and the store hold.
    pub(crate) async fn write<L: Log, S: Store, D: DeadLetterSink>(
        self,
        log: &L,
        store: &S,
        dead_letters: &D,
        metrics: &Metrics,
    ) -> Result<Landed, WorkerError> {
        // What other partitions must learn is in the log before this step counts as done; repeats are recognised there.
        if !self.derived.is_empty() {
            let records = self
                .derived
                .iter()
                .map(|(partition, record)| (*partition, Bytes::from(record.encode())))
                .collect();
            point!("step.derive.before");
            let _ = log.append_owed(records).await?;
            point!("step.derive.after");
        }
        if !self.dead_letters.is_empty() && !mutant("dead_letter_dropped") {
            dead_letters
                .keep(self.dead_letters)
                .await
                .map_err(WorkerError::DeadLetter)?;
        }
        point!("step.unit.before");
        let (states, seen, epoch) = (self.states, self.seen, self.epoch);
        // A store that writes each partition by itself gets each as soon as it is made, and writes it beside the making of
        // the next; another one gets all of them at once.
        let publishes = store.publishes();
        let mut parts: BTreeMap<Option<Partition>, Part> = BTreeMap::new();
        let of = |partition: Partition| publishes.then_some(partition);
        for (partition, state) in &states {
            parts
                .entry(of(*partition))
                .or_default()
                .states
                .push((*partition, state));
        }
        for changed in self.customers {
            let partition = partition_for(changed.key.person.as_str(), self.partitions);
            let part = parts.entry(of(partition)).or_default();
            part.customers.push((partition, changed));
        }
        for flag in self.flags {
            parts.entry(of(flag.partition)).or_default().flags.push(flag);
        }
        for (partition, (from, run)) in &self.judged {
            let part = parts.entry(of(*partition)).or_default();
            part.judged.push((*partition, *from, run));
        }
        if mutant("offset_before_state") {
            let positions = Commit {
                epoch,
                partitions: encode(states.iter()),
                ..Commit::default()
            };
            let _ = store.commit(positions).await?;
        }
        point!("step.unit.after");
        let lap = metrics.stopwatch.start();
        let known = &states;
        let written = parts.into_values().map(|part| async move {
            let commit = part.into_commit(epoch, known, publishes);
            store.commit(commit).await
        });
        let failed = join_all(written).await.into_iter().filter_map(Result::err);
        // Of several the one that waiting does not mend.
        if let Some(error) = failed.min_by_key(|error| error.class() == ErrorClass::External) {
            match error {
                StoreError::Fenced { .. } => metrics.store.commit_fenced(),
                _ => metrics.store.commit_failed(),
            }
            return Err(error.into());
        }
        let took = lap.elapsed();
        metrics.store.committed(took);
        let mut partitions = BTreeMap::new();
        for (partition, state) in &states {
            let status = PartitionStatus {
                next: state.meta.next,
                clock: state.meta.clock,
                due: store.next_due(*partition).await?,
            };
            let _ = partitions.insert(*partition, status);
        }
        let active = states
            .into_values()
            .find_map(|state| Some((state.active?, state.since)));
        Ok(Landed {
            partitions,
            active,
            seen,
            took,
        })
    }
}

/// What a step has to write of one partition, or of all.
#[derive(Debug, Default)]
struct Part<'a> {
    states: Vec<(Partition, &'a PartitionState)>,
    customers: Vec<(Partition, Changed)>,
    flags: Vec<FlagRow>,
    judged: Vec<(Partition, Offset, &'a Vec<Judgement>)>,
}

impl Part<'_> {
    fn into_commit(self, epoch: u64, states: &BTreeMap<Partition, PartitionState>, publishes: bool) -> Commit {
        let write = |(partition, changed): (Partition, Changed)| {
            let Changed {
                key,
                state,
                index,
                stored_rank,
            } = changed;
            let active = states.get(&partition).and_then(|state| state.active.as_ref());
            CustomerWrite {
                partition,
                key,
                bytes: Bytes::from(state.encode()),
                timer: index.added,
                previous_timer: None,
                stale_timers: index.gone,
                rank: state.rank,
                previous_rank: stored_rank,
                fields: match active.filter(|_| publishes) {
                    Some(active) => published(&state, &active.model),
                    None => Projection::default(),
                },
            }
        };
        Commit {
            epoch,
            partitions: encode(self.states),
            customers: self.customers.into_iter().map(write).collect(),
            flags: self.flags,
            judged: self
                .judged
                .into_iter()
                .map(|(partition, from, run)| (partition, from, Bytes::from(Judgement::encode(run))))
                .collect(),
        }
    }
}

fn encode<'a, P: Borrow<Partition>>(
    states: impl IntoIterator<Item = (P, &'a PartitionState)>,
) -> Vec<(Partition, Bytes)> {
    states
        .into_iter()
        .map(|(partition, state)| (*partition.borrow(), Bytes::from(state.meta.encode())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_at_the_timer_or_before_it_stays_whatever_the_timer_does() {
        let times = [None, Some(Timestamp(1)), Some(Timestamp(2)), Some(Timestamp(3))];
        // Every pair of entries that the index may hold for a record, of which the step has read those up to some time.
        for case in 0..4 * 4 * 4 * 5 {
            let (before, after, other) = (times[case % 4], times[case / 4 % 4], times[case / 16 % 4]);
            let read_to = Timestamp((case / 64) as i64);
            let mut held: Vec<Timestamp> = match (before, other) {
                (Some(before), Some(other)) if other <= before => vec![other],
                (Some(before), Some(other)) => vec![before, other],
                (before, other) => before.into_iter().chain(other).collect(),
            };
            let read: Vec<Timestamp> = held.iter().copied().filter(|entry| *entry <= read_to).collect();
            let Index { added, gone } = Index::new(before, after, read.clone());
            held.retain(|entry| !gone.contains(entry));
            held.extend(added);
            if let Some(after) = after {
                assert!(
                    held.iter().any(|entry| *entry <= after),
                    "{before:?} {after:?} {other:?} {read_to:?}"
                );
            }
            assert!(read.iter().all(|entry| !held.contains(entry) || Some(*entry) == after));
        }
    }
}
