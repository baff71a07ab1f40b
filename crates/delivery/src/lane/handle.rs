//! A lane as others see it: what it is doing, and what it can be told: to send flags again, to go on after a halt. It never sends
//! anything itself.

use super::{Counts, FAILING, LaneError, LaneHandle, State};
use crate::flag::FlagView;
use crate::outbox::{Change, Halt, MAX_OPEN, Open, Parked};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use vigie_event::{FlagId, Timestamp, Workspace};
use vigie_store::{Store, StoreError};

/// Rows read at once to find flags that are to be sent again.
const PAGE: usize = 1_000;
/// Parked flags that a status lists.
const LISTED: usize = 100;

/// What a lane is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Name of the destination.
    pub destination: String,
    /// Whose flags.
    pub workspace: String,
    /// `ok`, `failing` or `halted`.
    pub state: &'static str,
    /// Why it is halted.
    pub halted: Option<&'static str>,
    /// Number of the last flag that was taken in.
    pub read: u64,
    /// Flags taken in and neither delivered nor given up.
    pub open: usize,
    /// Flags given up.
    pub parked: usize,
    /// When the oldest flag that has not arrived was raised.
    pub oldest: Option<String>,
    /// What became of the last attempt that failed.
    pub last_failure: Option<String>,
    /// Since the process started.
    pub counts: Counts,
    /// The first parked flags.
    pub first_parked: Vec<ParkedFlag>,
}

/// A parked flag in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParkedFlag {
    /// Its number in the workspace.
    pub number: u64,
    /// Its identity.
    pub id: String,
    /// Attempts that failed.
    pub attempts: u32,
    /// When it was given up.
    pub at: String,
}

/// Which flags are to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redelivery {
    /// These.
    Ids(Vec<FlagId>),
    /// Those with these numbers, both included.
    Range(u64, u64),
    /// All that are parked.
    Parked,
}

impl<S: Store> LaneHandle<S> {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn flags(&self, after: u64, limit: usize) -> Result<Vec<(u64, bytes::Bytes)>, StoreError> {
        self.store.flags(&self.shared.workspace, after, limit).await
    }

    /// Name of its destination.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.shared.destination
    }

    /// Whose flags it sends.
    #[must_use]
    pub fn workspace(&self) -> &Workspace {
        &self.shared.workspace
    }

    /// When the oldest flag that has not arrived was raised, how many are parked, and whether the lane is well.
    #[must_use]
    pub fn vitals(&self) -> (Option<Timestamp>, usize, bool) {
        let state = self.state();
        let well = state.failures < FAILING && state.outbox.halt().is_none();
        (state.oldest(), state.outbox.parked().len(), well)
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> LaneStatus {
        let state = self.state();
        let halted = state.outbox.halt();
        let listed = state.outbox.parked().take(LISTED).map(|(number, parked)| ParkedFlag {
            number,
            id: parked.flag.id.to_string(),
            attempts: parked.flag.attempts,
            at: parked.at.to_string(),
        });
        LaneStatus {
            destination: self.shared.destination.clone(),
            workspace: self.shared.workspace.to_string(),
            state: match halted {
                Some(_) => "halted",
                None if state.failures >= FAILING => "failing",
                None => "ok",
            },
            halted: halted.map(Halt::label),
            read: state.outbox.read().0,
            open: state.outbox.open().len(),
            parked: state.outbox.parked().len(),
            oldest: state.oldest().map(|oldest| oldest.to_string()),
            last_failure: state.last_failure.clone(),
            counts: state.counts.clone(),
            first_parked: listed.collect(),
        }
    }

    /// Goes on after a halt; `after` says behind which number, which a renumbered lane needs. `false` when it is needed
    /// and not given.
    ///
    /// # Errors
    /// The store or the journal.
    pub async fn resume(&self, after: Option<u64>) -> Result<bool, LaneError> {
        let renumbered = self.state().outbox.halt() == Some(Halt::Renumbered);
        let mut changes = vec![Change::Resumed];
        match after {
            None if renumbered => return Ok(false),
            None => {}
            Some(number) => {
                if renumbered {
                    changes.extend(self.renumber(number).await?);
                }
                changes.push(Change::Read(number, self.id_of(number).await?));
            }
        }
        let mut state = self.state();
        state.commit(&changes)?;
        (state.failures, state.paused_until, state.compared) = (0, Timestamp(i64::MIN), true);
        drop(state);
        self.shared.wake.notify_one();
        Ok(true)
    }

    pub(super) async fn id_of(&self, number: u64) -> Result<Option<FlagId>, StoreError> {
        let Some(before) = number.checked_sub(1) else {
            return Ok(None);
        };
        let rows = self.flags(before, 1).await?;
        let row = rows.first().filter(|(found, _)| *found == number);
        Ok(row.and_then(|(_, bytes)| FlagView::read(bytes)).map(|flag| flag.id))
    }

    /// Gives what is open or parked the numbers that its flags have now; those above `last` come by themselves.
    async fn renumber(&self, last: u64) -> Result<Vec<Change>, StoreError> {
        let (open, parked): (Vec<_>, Vec<_>) = {
            let state = self.state();
            (
                state.outbox.open().map(|(number, open)| (number, *open)).collect(),
                state
                    .outbox
                    .parked()
                    .map(|(number, parked)| (number, *parked))
                    .collect(),
            )
        };
        let old = open
            .iter()
            .map(|(number, _)| number)
            .chain(parked.iter().map(|(number, _)| number));
        let mut changes: Vec<_> = old.map(|number| Change::Closed(*number)).collect();
        let open: BTreeMap<_, _> = open.into_iter().map(|(_, open)| (open.id, open)).collect();
        let parked: BTreeMap<_, _> = parked.into_iter().map(|(_, parked)| (parked.flag.id, parked)).collect();
        let mut after = 0;
        while after < last {
            let rows = self.flags(after, PAGE).await?;
            let Some((end, _)) = rows.last() else { break };
            after = *end;
            for (number, bytes) in rows.iter().take_while(|(number, _)| *number <= last) {
                let Some(id) = FlagView::read(bytes).map(|flag| flag.id) else {
                    continue;
                };
                changes.extend(open.get(&id).map(|open| Change::Open(*number, *open)));
                changes.extend(parked.get(&id).map(|parked| Change::Parked(*number, *parked)));
            }
        }
        Ok(changes)
    }

    /// Opens flags again, whatever became of them; they pass the gate like any other. Answers how many.
    ///
    /// # Errors
    /// The store or the journal. Flags beyond the bound of open ones are left as they are.
    pub async fn redeliver(&self, which: &Redelivery, now: Timestamp) -> Result<usize, LaneError> {
        let read = self.state().outbox.read().0;
        let again = |number, id, customer, raised_at| {
            let open = Open {
                id,
                customer,
                raised_at,
                attempts: 0,
                due: now,
            };
            Change::Open(number, open)
        };
        let mut changes = Vec::new();
        match which {
            Redelivery::Parked => {
                let state = self.state();
                let parked = state
                    .outbox
                    .parked()
                    .map(|(number, Parked { flag, .. })| again(number, flag.id, flag.customer, flag.raised_at));
                changes.extend(parked);
            }
            Redelivery::Ids(_) | Redelivery::Range(..) => {
                let (first, last) = match which {
                    Redelivery::Range(first, last) => (*first, *last),
                    _ => (1, read),
                };
                let mut after = first.saturating_sub(1);
                // What is not read yet comes by itself.
                while after < last.min(read) {
                    let rows = self.flags(after, PAGE).await?;
                    let Some((end, _)) = rows.last() else { break };
                    after = *end;
                    let rows = rows.iter().take_while(|(number, _)| *number <= last.min(read));
                    for (number, flag) in rows.filter_map(|(number, bytes)| Some((*number, FlagView::read(bytes)?))) {
                        let wanted = match which {
                            Redelivery::Ids(ids) => ids.contains(&flag.id),
                            _ => true,
                        };
                        let told = flag.told().is_some_and(|told| self.shared.events.contains(&told));
                        if wanted && told {
                            changes.push(again(number, flag.id, flag.customer_hash(), flag.raised_at));
                        }
                    }
                }
            }
        }
        let mut state = self.state();
        changes.truncate(MAX_OPEN.saturating_sub(state.outbox.open().len()));
        state.commit(&changes)?;
        drop(state);
        self.shared.wake.notify_one();
        Ok(changes.len())
    }
}
