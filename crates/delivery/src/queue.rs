//! The pull queue: agents, call centres and cron jobs claim flags for a time, contact, and say what came of it.
//!
//! One queue per workspace, ranked by what is at stake and else by the score. What it remembers is a journal of changes, as in
//! [`crate::outbox`]; a lease is synced to the disk before the claim is answered. Two agents never hold the same customer at
//! once, not even for two flags. It decides nothing: who may be contacted is the gate's word, asked when a flag is claimed.

use crate::Clock;
use crate::flag::FlagView;
use crate::gate::{Gate, GateError, Verdict};
use crate::journal::{Journal, JournalError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use vigie_event::json::Receipt;
use vigie_event::{Channel, Day, Event, FlagId, Signal, Timestamp, Workspace};
use vigie_store::{Store, StoreError};

/// Flags of a workspace that wait at most; more wait in the store.
pub const MAX_WAITING: usize = 100_000;
/// Flags of one claim.
pub const MAX_CLAIM: usize = 100;
/// Rows of one export.
pub const MAX_EXPORT: usize = 10_000;
/// Shortest and longest lease.
pub const LEASE: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(24);
/// Time after which a customer who did not answer may be claimed again.
const NO_ANSWER_MS: i64 = 4 * 3_600_000;
/// Flags that are taken in at once.
const PAGE: usize = 1_000;
/// Longest name of an agent and longest note.
const MAX_TEXT: usize = 2_000;

/// What an agent asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// At most so many.
    pub max: usize,
    /// Only flags for this channel, or without one.
    pub channel: Option<String>,
    /// Only flags of this policy.
    pub policy: Option<String>,
    /// How long nobody else gets them.
    pub lease: Duration,
    /// Who asks, as the caller names them.
    pub agent: String,
}

/// A flag that was claimed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Claimed {
    /// The flag as stored.
    pub relance: Value,
    /// Which claim of the flag this is; its outcome names it.
    pub lease: u32,
    /// The end of the lease.
    pub until: String,
}

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// What came of a contact.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Outcome { $($(#[$doc])* $variant,)* }

        impl Outcome {
            /// Every outcome.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in requests and events.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
        }
    };
}

outcomes! {
    /// A message was left or sent.
    Contacted = "contacted";
    /// The customer was spoken with.
    Reached = "reached";
    /// The customer declined.
    Refused = "refused";
    /// Nobody answered; the flag goes back into the queue, for four hours later.
    NoAnswer = "no_answer";
    /// The customer came back.
    Returned = "returned";
    /// The customer is lost.
    Lost = "lost";
    /// The flag was wrong: there was nothing to win back.
    Wrong = "wrong";
}

impl Outcome {
    /// Reads a [`Outcome::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|outcome| outcome.name() == name)
    }

    /// What it says of the flag and of the customer, as signals.
    const fn signals(self) -> &'static [Signal] {
        match self {
            Self::Contacted => &[Signal::RelanceContacted],
            // The customer's own answer: what tells which channel they respond to.
            Self::Reached | Self::Refused => &[Signal::RelanceContacted, Signal::ContactAnswered],
            Self::NoAnswer => &[Signal::ContactOutcome],
            Self::Returned => &[Signal::RelanceReturned],
            Self::Lost => &[Signal::RelanceLost],
            Self::Wrong => &[Signal::RelanceRecalled],
        }
    }
}

/// What an agent reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The flag.
    pub id: FlagId,
    /// What came of it.
    pub outcome: Outcome,
    /// The claim that it ends; none for flags that were not claimed (exports).
    pub lease: Option<u32>,
    /// Where the customer was contacted.
    pub channel: Option<Channel>,
    /// Who reports.
    pub agent: String,
    /// In their words.
    pub note: String,
}

/// The door to the log. What it has taken, replays see.
pub trait Reports: Send + Sync + 'static {
    /// Makes an event durable.
    fn append(&self, event: Event) -> impl Future<Output = Result<(), String>> + Send;
}

/// Why the queue did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No flag has this id.
    #[error("no relance has this id")]
    Unknown,
    /// The flag is held out: nobody is to be contacted.
    #[error("the relance is held out")]
    HeldOut,
    /// The lease is over, or it was never this one.
    #[error("the lease is not the current one of the relance")]
    LeaseLost,
    /// A value that cannot be.
    #[error("{0}")]
    Bad(&'static str),
    /// The store.
    #[error("flags cannot be read")]
    Store(#[from] StoreError),
    /// The journal.
    #[error("the queue's journal cannot be written")]
    Journal(#[from] JournalError),
    /// The gate.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The log.
    #[error("the outcome cannot be written to the log: {0}")]
    Log(String),
}

/// Whether the value at stake is known, and its bits or those of the score.
type Rank = (bool, u64);
/// Where a flag stands in the queue.
type Place = (Rank, Reverse<Timestamp>, Reverse<FlagId>);

/// A flag that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    customer: u64,
    policy: String,
    channel: Option<String>,
    /// Greater is more urgent.
    rank: Rank,
    raised_at: Timestamp,
    /// Neither leased nor offered before this instant.
    free_at: Timestamp,
    /// Claims so far.
    claims: u32,
}

/// One step of a queue. Its places in this list are part of the journal's format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Change {
    /// All flags up to this one were taken in; it is that number's flag.
    Read(u64, Option<FlagId>),
    /// The flag waits, as given.
    Item(FlagId, Item),
    /// The flag was leased, or freed, until an instant; so many claims so far.
    Free(FlagId, Timestamp, u32),
    /// The flag has its outcome, or was dropped.
    Closed(FlagId),
    /// So many flags of a policy and channel were handed out on that day for the first time.
    Spent(Capacity, u32),
}

/// Whose capacity, on which day (UTC).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Capacity {
    day: Day,
    policy: String,
    channel: Option<String>,
}

impl Capacity {
    fn of(item: &Item, now: Timestamp) -> Self {
        Self {
            day: now.day(),
            policy: item.policy.clone(),
            channel: item.channel.clone(),
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    read: (u64, Option<FlagId>),
    items: BTreeMap<FlagId, Item>,
    /// Most urgent last; among equals the first raised.
    order: BTreeSet<Place>,
    by_age: BTreeSet<(Timestamp, FlagId)>,
    /// Contacts handed out, of the newest day only.
    spent: BTreeMap<Capacity, u32>,
}

impl Waiting {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Read(number, id) => self.read = (number, id),
            Change::Item(id, item) => {
                self.close(id);
                let _ = self.order.insert((item.rank, Reverse(item.raised_at), Reverse(id)));
                let _ = self.by_age.insert((item.raised_at, id));
                let _ = self.items.insert(id, item);
            }
            Change::Free(id, at, claims) => {
                if let Some(item) = self.items.get_mut(&id) {
                    (item.free_at, item.claims) = (at, claims);
                }
            }
            Change::Closed(id) => self.close(id),
            Change::Spent(capacity, count) => {
                self.spent.retain(|known, _| known.day >= capacity.day);
                let _ = self.spent.insert(capacity, count);
            }
        }
    }

    fn close(&mut self, id: FlagId) {
        if let Some(item) = self.items.remove(&id) {
            let _ = self.order.remove(&(item.rank, Reverse(item.raised_at), Reverse(id)));
            let _ = self.by_age.remove(&(item.raised_at, id));
        }
    }

    fn snapshot(&self) -> Vec<Change> {
        let items = self.items.iter().map(|(id, item)| Change::Item(*id, item.clone()));
        let spent = self
            .spent
            .iter()
            .map(|(capacity, count)| Change::Spent(capacity.clone(), *count));
        items
            .chain(spent)
            .chain([Change::Read(self.read.0, self.read.1)])
            .collect()
    }

    /// Flags that the request is for and that are free, most urgent first.
    fn candidates(&self, request: &ClaimRequest, now: Timestamp) -> Vec<FlagId> {
        let fits = |item: &Item| {
            item.free_at <= now
                && request.policy.as_ref().is_none_or(|policy| *policy == item.policy)
                && (item.channel.is_none() || request.channel.is_none() || item.channel == request.channel)
        };
        let ids = self.order.iter().rev().map(|(_, _, Reverse(id))| *id);
        ids.filter(|id| self.items.get(id).is_some_and(fits)).collect()
    }

    /// Customers whom somebody holds: for one flag of theirs a lease is running.
    fn held(&self, now: Timestamp) -> BTreeSet<u64> {
        let leased = self.items.values().filter(|item| item.free_at > now && item.claims > 0);
        leased.map(|item| item.customer).collect()
    }
}

struct Desk {
    waiting: Waiting,
    journal: Journal<Change>,
    compared: bool,
}

impl Desk {
    fn commit(&mut self, changes: Vec<Change>, sync: bool) -> Result<(), JournalError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.journal.append(&changes, sync)?;
        changes.into_iter().for_each(|change| self.waiting.apply(change));
        if self.journal.is_long() {
            self.journal.rewrite(&self.waiting.snapshot())?;
        }
        Ok(())
    }
}

/// The queues of all workspaces.
pub struct Queue<S, G, R> {
    dir: PathBuf,
    store: Arc<S>,
    gate: Arc<G>,
    reports: R,
    max_age: Duration,
    clock: Clock,
    /// Bounded by the workspaces that have keys.
    desks: Mutex<BTreeMap<Workspace, Arc<Mutex<Desk>>>>,
}

impl<S: Store, G: Gate, R: Reports> Queue<S, G, R> {
    /// Queues with their journals in `dir`; flags older than `max_age` are not offered.
    pub fn new(dir: PathBuf, store: Arc<S>, gate: Arc<G>, reports: R, max_age: Duration, clock: Clock) -> Self {
        Self {
            dir,
            store,
            gate,
            reports,
            max_age,
            clock,
            desks: Mutex::default(),
        }
    }

    async fn desk(&self, workspace: &Workspace) -> Result<Arc<Mutex<Desk>>, QueueError> {
        let mut desks = self.desks.lock().await;
        if let Some(desk) = desks.get(workspace) {
            return Ok(Arc::clone(desk));
        }
        let (journal, changes) = Journal::open(&self.dir.join(crate::lane::file_name(workspace)))?;
        let mut waiting = Waiting::default();
        changes.into_iter().for_each(|change| waiting.apply(change));
        let desk = Desk {
            waiting,
            journal,
            compared: false,
        };
        let desk = Arc::new(Mutex::new(desk));
        drop(desks.insert(workspace.clone(), Arc::clone(&desk)));
        Ok(desk)
    }

    /// Leases flags to an agent.
    ///
    /// # Errors
    /// A request that cannot be; the store, the journal or the gate.
    pub async fn claim(&self, workspace: &Workspace, request: &ClaimRequest) -> Result<Vec<Claimed>, QueueError> {
        if request.max == 0 || request.max > MAX_CLAIM {
            return Err(QueueError::Bad("max is a number from 1 to 100"));
        }
        if !LEASE.contains(&request.lease) {
            return Err(QueueError::Bad("lease_seconds is a number from 10 to 86400"));
        }
        if request.agent.len() > MAX_TEXT {
            return Err(QueueError::Bad("agent is longer than 2000 bytes"));
        }
        let desk = self.desk(workspace).await?;
        let mut desk = desk.lock().await;
        let now = (self.clock)();
        self.take_in(&mut desk, workspace, now).await?;
        let mut held = desk.waiting.held(now);
        let until = now.plus_ms(i64::try_from(request.lease.as_millis()).unwrap_or(i64::MAX));
        let (mut changes, mut claimed) = (Vec::new(), Vec::new());
        let (mut spent, mut events) = (BTreeMap::new(), Vec::new());
        for id in desk.waiting.candidates(request, now) {
            if claimed.len() == request.max {
                break;
            }
            let Some(item) = desk
                .waiting
                .items
                .get(&id)
                .filter(|item| !held.contains(&item.customer))
            else {
                continue;
            };
            let Some(flag) = self.pass(workspace, id, now, &mut changes).await? else {
                continue;
            };
            // The day's capacity goes to what is most at stake; a flag that was handed out before has had its share.
            if let Some(most) = flag.daily_capacity.filter(|_| item.claims == 0) {
                let capacity = Capacity::of(item, now);
                let known = desk.waiting.spent.get(&capacity).copied().unwrap_or_default();
                let used: &mut u32 = spent.entry(capacity).or_insert(known);
                if *used >= most {
                    continue;
                }
                *used += 1;
            }
            let lease = item.claims + 1;
            let _ = held.insert(item.customer);
            events.extend(event(
                workspace,
                &flag,
                &said(id, lease, &request.agent),
                Signal::RelanceClaimed,
                now,
            ));
            changes.push(Change::Free(id, until, lease));
            claimed.push(Claimed {
                relance: flag.body,
                lease,
                until: until.to_string(),
            });
        }
        changes.extend(
            spent
                .into_iter()
                .map(|(capacity, count)| Change::Spent(capacity, count)),
        );
        // On the disk before anybody hears of it; and in the log, where it is part of the flag's course.
        desk.commit(changes, true)?;
        for event in events {
            self.reports.append(event).await.map_err(QueueError::Log)?;
        }
        Ok(claimed)
    }

    /// The flags that nobody holds, as CSV for spreadsheets. Nothing is leased.
    ///
    /// # Errors
    /// The store, the journal or the gate.
    pub async fn export(&self, workspace: &Workspace, request: &ClaimRequest) -> Result<Vec<u8>, QueueError> {
        let desk = self.desk(workspace).await?;
        let mut desk = desk.lock().await;
        let now = (self.clock)();
        self.take_in(&mut desk, workspace, now).await?;
        let (mut changes, mut flags) = (Vec::new(), Vec::new());
        for id in desk.waiting.candidates(request, now) {
            if flags.len() == request.max.min(MAX_EXPORT) {
                break;
            }
            flags.extend(self.pass(workspace, id, now, &mut changes).await?);
        }
        desk.commit(changes, false)?;
        Ok(crate::csv_export::table(flags.iter()))
    }

    /// Takes an outcome: an event in the log first, then the flag leaves the queue. Repeating it changes nothing.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn report(&self, workspace: &Workspace, report: &Report) -> Result<(), QueueError> {
        if report.agent.len() > MAX_TEXT || report.note.len() > MAX_TEXT {
            return Err(QueueError::Bad("agent and note have at most 2000 bytes each"));
        }
        let stored = self.store.flag(workspace, &report.id).await?;
        let flag = stored
            .and_then(|bytes| FlagView::read(&bytes))
            .ok_or(QueueError::Unknown)?;
        if !flag.wants_contact() {
            return Err(QueueError::HeldOut);
        }
        let desk = self.desk(workspace).await?;
        let mut desk = desk.lock().await;
        let now = (self.clock)();
        let item = desk.waiting.items.get(&report.id);
        let (claims, leased) = item.map_or((0, false), |item| (item.claims, item.claims > 0 && item.free_at > now));
        // A late report of an old claim must not end the claim of somebody else.
        if leased && report.lease != Some(claims) {
            return Err(QueueError::LeaseLost);
        }
        for signal in report.outcome.signals() {
            let event = event(workspace, &flag, report, *signal, now);
            let event = event.ok_or(QueueError::Bad("the relance names nobody"))?;
            self.reports.append(event).await.map_err(QueueError::Log)?;
        }
        let change = match (report.outcome, item) {
            (_, None) => return Ok(()),
            (Outcome::NoAnswer, Some(item)) => Change::Free(report.id, now.plus_ms(NO_ANSWER_MS), item.claims),
            (_, Some(_)) => Change::Closed(report.id),
        };
        Ok(desk.commit(vec![change], true)?)
    }

    /// The flag, if the gate lets it pass now. What the gate drops leaves the queue.
    async fn pass(
        &self,
        workspace: &Workspace,
        id: FlagId,
        now: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Result<Option<FlagView>, QueueError> {
        let stored = self.store.flag(workspace, &id).await?;
        let Some(flag) = stored.and_then(|bytes| FlagView::read(&bytes)) else {
            changes.push(Change::Closed(id));
            return Ok(None);
        };
        match self.gate.ask(workspace, &flag, now).await? {
            Verdict::Send => Ok(Some(flag)),
            Verdict::Wait(_) => Ok(None),
            Verdict::Drop(reason) => {
                tracing::info!(flag = %id, reason = reason.label(), "a waiting relance is dropped");
                changes.push(Change::Closed(id));
                Ok(None)
            }
        }
    }

    /// Takes in what the store has and the queue has not, and lets go what is too old.
    async fn take_in(&self, desk: &mut Desk, workspace: &Workspace, now: Timestamp) -> Result<(), QueueError> {
        if !desk.compared {
            self.compare(desk, workspace).await?;
        }
        let limit = now.plus_ms(-i64::try_from(self.max_age.as_millis()).unwrap_or(i64::MAX));
        let old: Vec<_> = desk
            .waiting
            .by_age
            .iter()
            .take_while(|(raised_at, _)| *raised_at < limit)
            .map(|(_, id)| Change::Closed(*id))
            .collect();
        desk.commit(old, false)?;
        while desk.waiting.items.len() < MAX_WAITING {
            let rows = self.store.flags(workspace, desk.waiting.read.0, PAGE).await?;
            let Some((last, bytes)) = rows.last() else { break };
            // A number counts only when power loss cannot take it back.
            self.store.persist().await?;
            let end = Change::Read(*last, FlagView::read(bytes).map(|flag| flag.id));
            let flags = rows.iter().filter_map(|(_, bytes)| FlagView::read(bytes));
            let mut changes: Vec<_> = flags
                .filter(|flag| {
                    flag.wants_contact() && flag.raised_at >= limit && !desk.waiting.items.contains_key(&flag.id)
                })
                .map(|flag| Change::Item(flag.id, item(&flag)))
                .collect();
            changes.push(end);
            let more = rows.len() == PAGE;
            desk.commit(changes, false)?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// When the store numbers its flags anew (it was rebuilt), goes on behind its last one: what waits here keeps its place,
    /// and nobody is offered twice.
    async fn compare(&self, desk: &mut Desk, workspace: &Workspace) -> Result<(), QueueError> {
        let (number, id) = desk.waiting.read;
        let found = match number.checked_sub(1) {
            None => None,
            Some(before) => {
                let rows = self.store.flags(workspace, before, 1).await?;
                let row = rows.first().filter(|(found, _)| *found == number);
                row.and_then(|(_, bytes)| FlagView::read(bytes)).map(|flag| flag.id)
            }
        };
        if id.is_some() && found != id {
            let mut last = (0, None);
            loop {
                let rows = self.store.flags(workspace, last.0, PAGE).await?;
                let Some((number, bytes)) = rows.last() else { break };
                last = (*number, FlagView::read(bytes).map(|flag| flag.id));
            }
            tracing::warn!(%workspace, "flags have other numbers than before: the queue goes on behind the last one");
            desk.commit(vec![Change::Read(last.0, last.1)], true)?;
        }
        desk.compared = true;
        Ok(())
    }
}

fn item(flag: &FlagView) -> Item {
    let weight = flag.at_stake.unwrap_or(flag.score).max(0.0);
    Item {
        customer: flag.customer_hash(),
        policy: flag.policy.clone(),
        channel: flag.channel.clone(),
        // The bits of numbers that are not negative sort as the numbers do.
        rank: (flag.at_stake.is_some(), weight.to_bits()),
        raised_at: flag.raised_at,
        free_at: Timestamp(i64::MIN),
        claims: 0,
    }
}

/// What a claim says, in the shape of a report.
fn said(id: FlagId, lease: u32, agent: &str) -> Report {
    Report {
        id,
        outcome: Outcome::Contacted,
        lease: Some(lease),
        channel: None,
        agent: agent.to_owned(),
        note: String::new(),
    }
}

/// A claim or an outcome as a canonical event. Its id is that of the flag, the word and the claim: sent again, it counts once.
fn event(workspace: &Workspace, flag: &FlagView, report: &Report, signal: Signal, now: Timestamp) -> Option<Event> {
    let lease = report.lease.unwrap_or(0);
    let word = match signal {
        Signal::RelanceClaimed => "claimed",
        Signal::ContactAnswered => "answered",
        _ => report.outcome.name(),
    };
    let (field, person) = match flag.customer.strip_prefix("anonymous:") {
        Some(anonymous) => ("anonymous_id", anonymous),
        None => ("user_id", flag.customer.as_str()),
    };
    let channel = report.channel.map(Channel::name);
    let planned = || flag.channel.as_deref().filter(|name| Channel::parse(name).is_some());
    let mut text = json!({
        "id": format!("relance:{}:{word}:{lease}", flag.id), "signal": signal.name(), "name": word,
        "flag_id": flag.id.to_string(), "channel": channel.or_else(planned),
        "properties": {"policy": flag.policy, "result": word, "agent": report.agent, "comment": report.note},
    });
    let fields = text.as_object_mut()?;
    fields.retain(|_, value| !value.is_null());
    drop(fields.insert(field.to_owned(), person.into()));
    let receipt = Receipt {
        workspace: workspace.clone(),
        received_at: now,
        sent_at: None,
        user_agent: None,
        oldest: None,
    };
    vigie_event::json::read(&text.to_string(), &receipt).ok()
}
