//! A lane: the flags of one workspace on their way to one destination. It takes flags in from the store, asks the gate, sends, and
//! writes down what became of each, in turns; the crate's documentation says what it promises.
//!
//! A turn does everything that can be done now and says when there will be more to do. Time comes from outside, so that a
//! test plays days in no time with the same code.

mod handle;

pub use handle::{LaneStatus, ParkedFlag, Redelivery};

use crate::Clock;
use crate::destination::Destination;
use crate::exit::{Answer, Exit};
use crate::flag::{FlagView, Told};
use crate::gate::{Gate, Reason, Verdict};
use crate::journal::{Journal, JournalError};
use crate::message::Parcel;
use crate::outbox::{Change, Halt, Open, Outbox, Parked};
use crate::schedule::Schedule;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use vigie_event::{Day, Timestamp, Workspace};
use vigie_store::{Store, StoreError};
use vigie_telemetry::{Delivered, DeliveryMetrics};

/// Flags that are taken in at once.
const INTAKE: usize = 100;
/// Failures in a row after which a lane counts as failing.
const FAILING: u32 = 5;
/// While it fails, time after the last attempt until a new flag is begun as a probe.
const PROBE_MS: i64 = 300_000;
/// The same until a flag that waits for another attempt is tried before its time, where no new one comes.
const PATIENCE_MS: i64 = 1_800_000;
/// Time after which the gate is asked again when it could not answer.
const GATE_PAUSE_MS: i64 = 30_000;
/// Time between two looks at the store for new flags.
const POLL: Duration = Duration::from_secs(1);
/// Pause after the store or the journal could not be used.
const PAUSE: Duration = Duration::from_secs(10);
/// Longest pause that a receiver may ask for.
const MAX_PAUSE_MS: i64 = 86_400_000;

/// What kept a lane from going on. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The store.
    #[error("flags cannot be read")]
    Store(#[from] StoreError),
    /// The journal.
    #[error("the lane's journal cannot be written")]
    Journal(#[from] JournalError),
}

/// What a lane is made of.
pub struct Lane<S, G, E> {
    destination: Arc<Destination>,
    gate: Arc<G>,
    exit: E,
    schedule: Schedule,
    clock: Clock,
    delivery: DeliveryMetrics,
    handle: LaneHandle<S>,
}

/// A lane as others see it: what it does, and what it can be told. Clones are handles on the same lane.
pub struct LaneHandle<S> {
    store: Arc<S>,
    shared: Arc<Shared>,
}

impl<S> Clone for LaneHandle<S> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared {
    destination: String,
    /// What it is told of.
    events: BTreeSet<Told>,
    workspace: Workspace,
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    outbox: Outbox,
    journal: Journal<Change>,
    /// Whether the numbers of the store were compared with the journal's.
    compared: bool,
    failures: u32,
    probed_at: Timestamp,
    paused_until: Timestamp,
    pace: Pace,
    daily_capacity: Option<u32>,
    counts: Counts,
    last_failure: Option<String>,
    /// When the first flag that is not taken in was raised.
    unread_since: Option<Timestamp>,
}

/// What a lane did since the process started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Arrived.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Given up after the last attempt.
    pub parked: u64,
    /// Not sent, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Whether another turn may do more at once.
    pub worked: bool,
    /// When there is something to do again, as far as is known.
    pub next: Option<Timestamp>,
}

impl<S: Store, G: Gate, E: Exit> Lane<S, G, E> {
    /// Opens a lane with its journal, which lies in `dir`.
    ///
    /// # Errors
    /// The journal.
    #[expect(clippy::too_many_arguments, reason = "everything that a lane is made of, named once")]
    pub fn open(
        dir: &Path,
        workspace: Workspace,
        destination: Arc<Destination>,
        store: Arc<S>,
        gate: Arc<G>,
        exit: E,
        clock: Clock,
        metrics: DeliveryMetrics,
    ) -> Result<Self, JournalError> {
        let place = dir.join(&destination.name).join(file_name(&workspace));
        let (journal, changes) = Journal::open(&place)?;
        let state = State {
            outbox: Outbox::replay(&changes),
            journal,
            compared: false,
            failures: 0,
            probed_at: Timestamp(i64::MIN),
            paused_until: Timestamp(i64::MIN),
            pace: Pace::new(destination.rate, destination.concurrency),
            daily_capacity: destination.daily_capacity,
            counts: Counts::default(),
            last_failure: None,
            unread_since: None,
        };
        let shared = Shared {
            destination: destination.name.clone(),
            events: destination.events.clone(),
            workspace,
            state: Mutex::new(state),
            wake: Notify::new(),
        };
        let handle = LaneHandle {
            store,
            shared: Arc::new(shared),
        };
        Ok(Self {
            destination,
            gate,
            exit,
            schedule: Schedule::default(),
            clock,
            delivery: metrics,
            handle,
        })
    }

    /// A handle on it.
    #[must_use]
    pub fn handle(&self) -> LaneHandle<S> {
        self.handle.clone()
    }

    /// Takes turns until told to stop. What is being sent then is waited for.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let wait = match self.turn().await {
                Ok(Turn { worked: true, .. }) => continue,
                Ok(Turn { next, .. }) => next.map_or(POLL, |next| {
                    let ms = next.ms_since((self.clock)()).max(1);
                    Duration::from_millis(ms.unsigned_abs()).min(POLL)
                }),
                Err(error) => {
                    let LaneHandle { shared, .. } = &self.handle;
                    tracing::error!(destination = shared.destination, workspace = %shared.workspace, error = &error as &dyn std::error::Error, "a lane stands still; it goes on by itself");
                    PAUSE
                }
            };
            tokio::select! {
                stopped = stop.wait_for(|stop| *stop) => drop(stopped),
                () = self.handle.shared.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Does everything that can be done now.
    ///
    /// # Errors
    /// The store or the journal; whatever was sent is sent again.
    pub async fn turn(&self) -> Result<Turn, LaneError> {
        let now = (self.clock)();
        if self.handle.state().outbox.halt().is_some() || !self.compare().await? {
            return Ok(Turn {
                worked: false,
                next: None,
            });
        }
        let taken = self.take_in(now).await?;
        let (due, probe) = self.handle.state().begin(now);
        let sent =
            futures::future::join_all(due.iter().map(|(number, open)| self.attempt(*number, *open, probe))).await;
        let mut worked = taken == INTAKE;
        for outcome in sent {
            outcome?;
            worked = true;
        }
        let state = self.handle.state();
        let probe = state.outbox.first_waiting().filter(|_| state.failures >= FAILING);
        let probe = probe.map(|_| state.probed_at.plus_ms(PATIENCE_MS));
        let next = [state.outbox.next_due(), probe].into_iter().flatten().min();
        let tomorrow = Day(now.day().0.saturating_add(1)).start();
        let from = if state.left(now) == 0 { tomorrow } else { now };
        let next = next.map(|next| next.max(state.paused_until).max(state.pace.next()).max(from));
        Ok(Turn { worked, next })
    }

    /// Whether the flag that was read last still has its number.
    async fn compare(&self) -> Result<bool, LaneError> {
        let (number, id) = {
            let state = self.handle.state();
            if state.compared {
                return Ok(true);
            }
            state.outbox.read()
        };
        let same = id.is_none() || self.handle.id_of(number).await? == id;
        let mut state = self.handle.state();
        if same {
            state.compared = true;
        } else {
            state.commit(&[Change::Halted(Halt::Renumbered)])?;
            tracing::error!(
                destination = self.destination.name,
                workspace = %self.handle.shared.workspace,
                "flags have other numbers than before: the store was rebuilt; resume the lane with the number to go on after"
            );
        }
        Ok(same)
    }

    /// Takes in flags that the store has and the lane has not; how many rows were read.
    async fn take_in(&self, now: Timestamp) -> Result<usize, LaneError> {
        let (after, room) = {
            let state = self.handle.state();
            (state.outbox.read().0, state.room(now))
        };
        let rows = self.handle.flags(after, room.max(1)).await?;
        let since = rows
            .first()
            .and_then(|(_, bytes)| FlagView::read(bytes))
            .map(|flag| flag.raised_at);
        self.handle.state().unread_since = since;
        if room == 0 || rows.is_empty() {
            return Ok(0);
        }
        // A number counts only when power loss cannot take it back.
        self.handle.store.persist().await?;
        let mut changes = Vec::new();
        let (mut read, mut held_out) = (None, 0);
        for (number, bytes) in &rows {
            let Some(flag) = FlagView::read(bytes) else {
                tracing::error!(number, workspace = %self.handle.shared.workspace, "a stored flag cannot be read and is passed over");
                read = Some(Change::Read(*number, None));
                continue;
            };
            read = Some(Change::Read(*number, Some(flag.id)));
            let policies = &self.destination.policies;
            if !policies.is_empty() && !policies.contains(&flag.policy) {
                continue;
            }
            if flag.told().is_some_and(|told| self.destination.events.contains(&told)) {
                let open = Open {
                    id: flag.id,
                    customer: flag.customer_hash(),
                    raised_at: flag.raised_at,
                    attempts: 0,
                    due: now,
                };
                changes.push(Change::Open(*number, open));
            } else if flag.told().is_none() {
                held_out += 1;
            }
        }
        changes.extend(read);
        let mut state = self.handle.state();
        state.commit(&changes)?;
        state.probed_at = now;
        state.unread_since = None;
        if held_out > 0 {
            *state.counts.dropped.entry(Reason::HeldOut.label()).or_default() += held_out;
            self.delivery
                .ended(&self.destination.name, Delivered::Dropped, held_out);
        }
        Ok(rows.len())
    }

    /// One flag whose turn it is: gate, attempt, and what follows. A `probe` that fails is no attempt of the flag's.
    async fn attempt(&self, number: u64, open: Open, probe: bool) -> Result<(), LaneError> {
        let workspace = &self.handle.shared.workspace;
        let Some(raw) = self.handle.store.flag(workspace, &open.id).await? else {
            return self.dropped(number, Reason::Erased);
        };
        let Some(flag) = FlagView::read(&raw) else {
            return self.dropped(number, Reason::Erased);
        };
        let now = (self.clock)();
        match self.gate.ask(workspace, &flag, now).await {
            Ok(Verdict::Send) => {}
            Ok(Verdict::Drop(reason)) => return self.dropped(number, reason),
            Ok(Verdict::Wait(then)) => {
                let due = then.max(now.plus_ms(1));
                return Ok(self
                    .handle
                    .state()
                    .commit(&[Change::Open(number, Open { due, ..open })])?);
            }
            Err(error) => {
                tracing::warn!(flag = %open.id, %error, "the gate cannot answer; asked again soon");
                let due = now.plus_ms(GATE_PAUSE_MS);
                return Ok(self
                    .handle
                    .state()
                    .commit(&[Change::Open(number, Open { due, ..open })])?);
            }
        }
        let parcel = Parcel {
            id: open.id,
            workspace: workspace.clone(),
            customer: flag.customer,
            raised_at: flag.raised_at,
            flag: flag.body,
            raw,
        };
        let answer = self.exit.send(&parcel).await;
        self.settle(number, open, answer, probe)
    }

    fn dropped(&self, number: u64, reason: Reason) -> Result<(), LaneError> {
        let mut state = self.handle.state();
        state.commit(&[Change::Closed(number)])?;
        *state.counts.dropped.entry(reason.label()).or_default() += 1;
        self.delivery.ended(&self.destination.name, Delivered::Dropped, 1);
        Ok(())
    }

    fn settle(&self, number: u64, open: Open, answer: Answer, probe: bool) -> Result<(), LaneError> {
        let (now, name) = ((self.clock)(), self.destination.name.as_str());
        let mut state = self.handle.state();
        if answer.is_success() {
            let day = now.day();
            let counted = state
                .daily_capacity
                .map(|_| Change::Sent(day, state.outbox.sent_on(day) + 1));
            let changes: Vec<Change> = [Change::Closed(number)].into_iter().chain(counted).collect();
            state.commit(&changes)?;
            state.counts.delivered += 1;
            self.delivery.ended(name, Delivered::Delivered, 1);
            if state.failures >= FAILING {
                tracing::info!(destination = name, workspace = %self.handle.shared.workspace, "deliveries succeed again");
                state.recover(now)?;
            }
            state.failures = 0;
            return Ok(());
        }
        let (code, asked) = match answer {
            Answer::Status { code, retry_after } => (code, retry_after),
            Answer::Failed(_) => (0, None),
        };
        let flag = Open {
            attempts: open.attempts + 1,
            ..open
        };
        let mut changes = Vec::with_capacity(2);
        match self.schedule.after(flag.attempts, &flag.id, asked) {
            // It keeps its place in the schedule: probes must not use its attempts up.
            _ if probe => {}
            Some(delay) => {
                let due = now.plus_ms(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
                changes.push(Change::Open(number, Open { due, ..flag }));
            }
            None => changes.push(Change::Parked(number, Parked { flag, at: now })),
        }
        if code == 410 {
            changes.push(Change::Halted(Halt::Gone));
        }
        state.commit(&changes)?;
        state.counts.failed += 1;
        state.failures = state.failures.saturating_add(1);
        state.last_failure = Some(answer.describe());
        self.delivery.ended(name, Delivered::Failed, 1);
        if matches!(changes.first(), Some(Change::Parked(..))) {
            state.counts.parked += 1;
            self.delivery.ended(name, Delivered::Parked, 1);
            tracing::error!(destination = name, flag = %flag.id, number, answer = answer.describe(), "a flag is parked after its last attempt; send it again with `vigie deliveries redeliver`");
        } else {
            tracing::warn!(destination = name, flag = %flag.id, number, attempt = flag.attempts, answer = answer.describe(), "a delivery failed");
        }
        if code == 410 {
            tracing::error!(
                destination = name,
                "the receiver is gone (410): nothing is sent until `vigie deliveries resume`"
            );
        }
        // Too many requests, or closed for a while: that is about the receiver, not about the flag.
        if let (429 | 503, Some(asked)) = (code, asked) {
            let pause = i64::try_from(asked.as_millis())
                .unwrap_or(MAX_PAUSE_MS)
                .min(MAX_PAUSE_MS);
            state.paused_until = state.paused_until.max(now.plus_ms(pause));
        }
        Ok(())
    }
}

impl State {
    /// Writes changes down, then makes them.
    fn commit(&mut self, changes: &[Change]) -> Result<(), JournalError> {
        self.journal.append(changes, false)?;
        changes.iter().for_each(|change| self.outbox.apply(change));
        if self.journal.is_long() {
            self.journal.rewrite(&self.outbox.snapshot())?;
        }
        Ok(())
    }

    /// How many flags may be taken in now.
    fn room(&self, now: Timestamp) -> usize {
        if self.failures < FAILING {
            // What could be sent at once already is reason enough not to hurry.
            let due = self.outbox.due(now, INTAKE).len();
            self.outbox.room().min(INTAKE - due)
        } else if now.0.saturating_sub(self.probed_at.0) >= PROBE_MS {
            self.outbox.room().min(1)
        } else {
            0
        }
    }

    /// How much may still arrive today.
    fn left(&self, now: Timestamp) -> usize {
        let left = self
            .daily_capacity
            .map(|most| most.saturating_sub(self.outbox.sent_on(now.day())));
        left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// The flags to be sent now, and whether they are only to find out whether the receiver is back: a lane that fails, and has
    /// tried nothing for a while, tries the flag that has waited longest before its time.
    fn begin(&mut self, now: Timestamp) -> (Vec<(u64, Open)>, bool) {
        if now < self.paused_until {
            return (Vec::new(), false);
        }
        let allowed = self.pace.allowed(now).min(self.left(now));
        let mut due = self.outbox.due(now, allowed);
        let quiet = now.0.saturating_sub(self.probed_at.0) >= PATIENCE_MS;
        let probe = due.is_empty() && allowed > 0 && quiet && self.failures >= FAILING;
        if probe {
            due.extend(self.outbox.first_waiting());
        }
        if !due.is_empty() && self.failures >= FAILING {
            self.probed_at = now;
        }
        self.pace.take(due.len());
        (due, probe)
    }

    /// The receiver is back: what waits for another attempt need not wait any longer.
    fn recover(&mut self, now: Timestamp) -> Result<(), JournalError> {
        let waiting = self
            .outbox
            .open()
            .filter(|(_, open)| open.attempts > 0 && open.due > now);
        let changes: Vec<_> = waiting
            .map(|(number, open)| Change::Open(number, Open { due: now, ..*open }))
            .collect();
        self.commit(&changes)
    }
}

impl State {
    fn oldest(&self) -> Option<Timestamp> {
        let open = self.outbox.open().map(|(_, open)| open.raised_at).min();
        [open, self.unread_since].into_iter().flatten().min()
    }
}

/// The name of a workspace's journal: readable where the name allows it, never a path.
pub(crate) fn file_name(workspace: &Workspace) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let name: String = workspace
        .as_str()
        .bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02x}"),
        })
        .collect();
    if name.len() <= 200 {
        return format!("{name}.journal");
    }
    let hash = vigie_event::fingerprint([workspace.as_str().as_bytes()]);
    format!("{}~{hash:016x}.journal", name.get(..150).unwrap_or_default())
}

/// A token bucket: so many requests a second, and at once no more than the concurrency.
struct Pace {
    per_second: i64,
    capacity: i64,
    /// Thousandths of a request.
    tokens: i64,
    at: Timestamp,
}

impl Pace {
    fn new(per_second: u32, concurrency: usize) -> Self {
        let capacity = i64::try_from(concurrency).unwrap_or(1).max(1) * 1_000;
        Self {
            per_second: i64::from(per_second.max(1)),
            capacity,
            tokens: capacity,
            at: Timestamp(i64::MIN),
        }
    }

    fn allowed(&mut self, now: Timestamp) -> usize {
        let passed = now.0.saturating_sub(self.at.0).max(0);
        self.tokens = passed
            .saturating_mul(self.per_second)
            .saturating_add(self.tokens)
            .min(self.capacity);
        self.at = self.at.max(now);
        usize::try_from(self.tokens / 1_000).unwrap_or(0)
    }

    fn take(&mut self, requests: usize) {
        self.tokens -= i64::try_from(requests).unwrap_or(0) * 1_000;
    }

    /// When the next request is allowed.
    fn next(&self) -> Timestamp {
        let lacking = (1_000 - self.tokens).max(0);
        self.at.plus_ms((lacking + self.per_second - 1) / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_never_sends_faster_than_its_rate() {
        let mut pace = Pace::new(50, 4);
        let mut sent = 0;
        for ms in 0..10_000 {
            let allowed = pace.allowed(Timestamp(ms));
            assert!(allowed <= 4);
            pace.take(allowed);
            sent += allowed;
        }
        assert!((500..=504).contains(&sent), "{sent} in ten seconds");
    }

    #[test]
    fn journals_of_workspaces_have_names_of_their_own() {
        let name = |text: &str| file_name(&Workspace::new(text).unwrap());
        assert_eq!(name("shop"), "shop.journal");
        assert_eq!(name("../x"), "%2e%2e%2fx.journal");
        assert_ne!(name("a/b"), name("a%2fb"));
        assert!(name(&"é".repeat(100)).len() <= 200);
        assert_ne!(name(&"é".repeat(100)), name(&format!("{}z", "é".repeat(99))));
    }
}
