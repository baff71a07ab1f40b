//! The fold: one synchronous pure function from (records in memory, a batch of the log) to (changed records, flags,
//! derived log records, books). It performs no I/O and reads no clock; everything that it needs was fetched before.
//!
//! Length: one function's worth of meaning, in the order of a record's way through it; its parts share the batch.

use crate::errors::WorkerError;
use crate::meta::{Active, Books, PartitionState, Rearm};
use crate::worker::DeadLetter;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vigie_enrichment::{History, Judge, Visit};
use vigie_event::{
    AccountId, Body, ConsentState, Control, CustomerKey, DAY_MS, Enriched, Event, EventId, Findings, FlagId, Forward,
    Judgement, Link, Merge, MergePart, Offset, Origin, Partition, PersonId, Position, Purpose, Record, RejectCode,
    Seen, Signal, Source, Suppression, Timestamp, Verdict, Workspace, fingerprint, partition_for,
};
use vigie_failpoint::{mutant, point};
use vigie_relance::{Decision, Flag, Look, Silence, evaluate, next_due};
use vigie_scoring::state::{Account, ConsentRecord, Fold as Taken, Held, Observation, Phase};
use vigie_scoring::{CustomerState, Scorer};
use vigie_store::FlagRow;

/// Days during which a repeated event id is recognised, counted from its last receipt.
pub const DEDUP_DAYS: i32 = 7;
/// Most recent event ids remembered per customer; of more, the oldest are forgotten.
pub const DEDUP_IDS: usize = vigie_scoring::state::MAX_RECENT_IDS;
/// How far ahead a timer is searched for; beyond it a customer is left alone until something happens.
const TIMER_HORIZON_MS: i64 = 10 * 366 * DAY_MS;
/// Millionths of attrition that make one rank.
const RANK_STEP: u32 = 5_000;

/// A customer of a batch, by its place in [`Batch::customers`].
pub(crate) type Who = usize;

/// A customer record in memory.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) key: CustomerKey,
    pub(crate) state: CustomerState,
    /// The timer that it had when it was loaded: the store's index has an entry for it, at that time or earlier.
    pub(crate) stored_timer: Option<Timestamp>,
    /// Entries of the index that this step has read.
    pub(crate) indexed: Vec<Timestamp>,
    pub(crate) stored_rank: Option<u16>,
    pub(crate) touched: bool,
    /// Receipt of the newest event since it was loaded, for the latency histogram.
    pub(crate) by_event: bool,
    /// The time that the partition's clock will show when the batch touches the customer next; `None` when it does not.
    pub(crate) next_touch: Option<Timestamp>,
    /// The last look whose published scores and timer were left open, since the batch will look again before they can
    /// be seen by anybody.
    pub(crate) open: Option<OpenLook>,
}

impl Loaded {
    /// A record as the store holds it.
    pub(crate) fn new(key: CustomerKey, state: CustomerState) -> Self {
        Self {
            key,
            stored_timer: state.timer,
            indexed: Vec::new(),
            stored_rank: state.rank,
            state,
            touched: false,
            by_event: false,
            next_touch: None,
            open: None,
        }
    }
}

/// A look at `at` of which only what is decided by `until` has been solved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenLook {
    at: Timestamp,
    until: Timestamp,
}

/// A timer that the batch has to fire, in order of (time, customer).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub(crate) at: Timestamp,
    pub(crate) key: CustomerKey,
    pub(crate) who: Who,
}

/// What is worth telling operations about a batch.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) books: BTreeMap<Workspace, Books>,
    pub(crate) received: Vec<Timestamp>,
    /// Due times of fired timers with the clock at which they fired.
    pub(crate) timers: Vec<(Timestamp, Timestamp)>,
    pub(crate) decisions: BTreeMap<(String, &'static str), u64>,
    pub(crate) refusals: BTreeMap<(String, &'static str), u64>,
    /// Repeated events, by where they came from.
    pub(crate) duplicates: BTreeMap<Source, u64>,
    /// Events that took effect, by what they say.
    pub(crate) signals: BTreeMap<Signal, u64>,
    /// How flags ended, per policy.
    pub(crate) ends: BTreeMap<(String, &'static str), u64>,
    /// Changes of bands, and whether upwards.
    pub(crate) moves: BTreeMap<(String, bool), u64>,
    pub(crate) scores: u64,
    pub(crate) link_conflicts: u64,
}

/// The working set of one batch and what the fold makes of it.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) judge: &'a mut Judge,
    pub(crate) partitions: u16,
    pub(crate) states: BTreeMap<Partition, PartitionState>,
    /// Every customer that the batch may touch.
    pub(crate) customers: Vec<Loaded>,
    /// Timers due by the end of the batch, per partition.
    pub(crate) due: BTreeMap<Partition, BTreeSet<Due>>,
    /// The latest time that the batch brings to each partition: later timers are the store's business.
    pub(crate) until: BTreeMap<Partition, Timestamp>,
    pub(crate) derived: Vec<(Partition, Record)>,
    pub(crate) flags: Vec<FlagRow>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    /// What became of the records, per partition from the given offset on.
    pub(crate) judged: BTreeMap<Partition, (Offset, Vec<Judgement>)>,
    pub(crate) tally: Tally,
    /// Records that are set aside without being folded, since folding them failed.
    pub(crate) poison: BTreeSet<Position>,
    /// The record that was folded last, or is being folded.
    pub(crate) at: Option<Position>,
    /// The record being folded and how many derived records it has given each partition.
    cause: Option<(Position, BTreeMap<Partition, u16>)>,
}

/// What a batch came to.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) states: BTreeMap<Partition, PartitionState>,
    pub(crate) customers: Vec<Loaded>,
    pub(crate) derived: Vec<(Partition, Record)>,
    pub(crate) flags: Vec<FlagRow>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) judged: BTreeMap<Partition, (Offset, Vec<Judgement>)>,
    pub(crate) tally: Tally,
}

/// Whether a control record was met, which needs a look at every customer of the partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    Nothing,
    Rearm,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(judge: &'a mut Judge, partitions: u16) -> Self {
        Self {
            judge,
            partitions,
            states: BTreeMap::new(),
            customers: Vec::new(),
            due: BTreeMap::new(),
            until: BTreeMap::new(),
            derived: Vec::new(),
            flags: Vec::new(),
            dead_letters: Vec::new(),
            judged: BTreeMap::new(),
            tally: Tally::default(),
            poison: BTreeSet::new(),
            at: None,
            cause: None,
        }
    }

    /// What came of it, to be written.
    pub(crate) fn outcome(self) -> Folded {
        Folded {
            states: self.states,
            customers: self.customers,
            derived: self.derived,
            flags: self.flags,
            dead_letters: self.dead_letters,
            judged: self.judged,
            tally: self.tally,
        }
    }

    /// The customer record that folding a log record may touch, so that it can be fetched beforehand.
    pub(crate) fn needs(record: &Record) -> Option<CustomerKey> {
        let (workspace, person) = match &record.body {
            Body::Event(event) => (&event.workspace, event.person.key()?),
            Body::Forward(forward) => (&forward.event.workspace, &forward.into),
            Body::Link(link) => (&link.workspace, &link.from),
            Body::Merge(merge) => (&merge.workspace, &merge.into),
            Body::Release(release) => (&release.workspace, &release.holder),
            Body::Tick(_) | Body::Control(_) => return None,
        };
        if mutant("workspace_missing_in_key") {
            return Some(CustomerKey::new(Workspace::new("shop").ok()?, person.clone()));
        }
        Some(CustomerKey::new(workspace.clone(), person.clone()))
    }

    /// Whether a record stands in the partition of the customer that it needs.
    pub(crate) fn is_home(partition: Partition, record: &Record, partitions: u16) -> bool {
        Self::needs(record).is_some_and(|key| partition_for(key.person.as_str(), partitions) == partition)
    }

    /// Folds one log record. `who` is the customer that it needs, and `next_touch` the clock at the batch's next record of
    /// the same one.
    pub(crate) fn fold(
        &mut self,
        position: Position,
        record: Record,
        who: Option<Who>,
        next_touch: Option<Timestamp>,
    ) -> Result<After, WorkerError> {
        self.at = Some(position);
        let at = record.at();
        let touched = who.filter(|_| Self::is_home(position.partition, &record, self.partitions));
        let meta = self.meta(position.partition)?;
        if position.offset > meta.next {
            return Err(WorkerError::Skipped {
                partition: position.partition,
                expected: meta.next,
                found: position.offset,
            });
        }
        let mut after = After::Nothing;
        if position.offset == meta.next {
            meta.next = position.offset.next();
            if meta.is_repeated(record.origin) && !mutant("derived_twice") {
                self.note(position, Judgement::Repeated);
            } else {
                meta.clock = meta.clock.max(at);
                let clock = meta.clock;
                self.fire(position.partition, clock)?;
                if let Some(who) = touched {
                    self.customer(who)?.next_touch = next_touch;
                }
                self.cause = Some((position, BTreeMap::new()));
                let (judgement, then) = self.body(position, record.body, who)?;
                after = then;
                self.cause = None;
                self.note(position, judgement);
            }
        }
        match touched {
            Some(who) => self.carry_on(position.partition, who, next_touch).map(|()| after),
            None => Ok(after),
        }
    }

    fn body(&mut self, position: Position, body: Body, who: Option<Who>) -> Result<(Judgement, After), WorkerError> {
        let judgement = match (body, who) {
            (Body::Event(event), _) | (Body::Forward(Forward { event, .. }), _) if self.poison.contains(&position) => {
                self.set_aside(position, &event, RejectCode::Poison)?
            }
            (Body::Event(event), None) | (Body::Forward(Forward { event, .. }), None) => {
                self.set_aside(position, &event, RejectCode::NoIdentity)?
            }
            (Body::Event(event) | Body::Forward(Forward { event, .. }), Some(who)) => {
                self.event(position, event, who)?
            }
            (Body::Link(link), Some(who)) => {
                self.link(position.partition, link, who)?;
                Judgement::Noted
            }
            (Body::Merge(merge), Some(who)) => self.merge(position, merge, who)?,
            (Body::Release(release), Some(who)) => self.release(position.partition, release, who)?,
            (Body::Tick(_) | Body::Link(_) | Body::Merge(_) | Body::Release(_), _) => Judgement::Noted,
            (Body::Control(Control::Activate { model, policies, at }), _) => {
                let active = Active::parse(&model, &policies).map_err(|error| WorkerError::Control {
                    position,
                    reason: error.to_string(),
                })?;
                let state = self.state(position.partition)?;
                state.meta.active = Some(active.reference(position.offset));
                state.meta.rearm = Some(Rearm { after: None });
                state.active = Some(Arc::new(active));
                state.since = Some(at);
                return Ok((Judgement::Noted, After::Rearm));
            }
        };
        Ok((judgement, After::Nothing))
    }

    pub(crate) fn customer(&mut self, who: Who) -> Result<&mut Loaded, WorkerError> {
        self.customers.get_mut(who).ok_or(WorkerError::NotFetched)
    }

    fn note(&mut self, position: Position, judgement: Judgement) {
        let (_, run) = self
            .judged
            .entry(position.partition)
            .or_insert_with(|| (position.offset, Vec::new()));
        run.push(judgement);
    }

    /// Fires every timer of the partition that is due at `clock`, in order of (due, customer).
    pub(crate) fn fire(&mut self, partition: Partition, clock: Timestamp) -> Result<(), WorkerError> {
        loop {
            let Some(due) = self.due.get_mut(&partition) else {
                return Ok(());
            };
            match due.first() {
                Some(first) if first.at <= clock => {}
                _ => return Ok(()),
            }
            let Some(Due { at, who, .. }) = due.pop_first() else {
                return Ok(());
            };
            let loaded = self.customer(who)?;
            loaded.touched = true;
            match loaded.state.timer {
                Some(timer) if timer == at => {
                    self.tally.timers.push((at, clock));
                    self.look(partition, who, at, None)?;
                }
                // An entry that the record does not ask for any more: it stood for the timer that the record has now.
                timer => self.enter(partition, who, timer),
            }
        }
    }

    /// Looks at every customer of the batch anew, after a change of model or policies.
    pub(crate) fn rearm(&mut self, partition: Partition) -> Result<(), WorkerError> {
        let clock = self.meta(partition)?.clock;
        (0..self.customers.len()).try_for_each(|who| self.look(partition, who, clock, None))
    }

    fn event(&mut self, position: Position, event: Box<Event>, who: Who) -> Result<Judgement, WorkerError> {
        let partition = position.partition;
        let Some(identity) = event.person.key().cloned() else {
            return self.set_aside(position, &event, RejectCode::NoIdentity);
        };
        let clock = self.meta(partition)?.clock;
        let partitions = self.partitions;
        let loaded = self.customers.get_mut(who).ok_or(WorkerError::NotFetched)?;
        let key = loaded.key.clone();
        let elsewhere = partition_for(key.person.as_str(), partitions) != partition;
        if event.signal == Signal::Unlink && identity == key.person && !elsewhere {
            self.leave(&key.workspace, &event, who)?;
        }
        let loaded = self.customers.get_mut(who).ok_or(WorkerError::NotFetched)?;
        let target = if elsewhere {
            Some(key.person.clone())
        } else {
            loaded.state.linked_to.clone()
        };
        if let Some(into) = target {
            self.derive(into.clone().as_str(), Body::Forward(Forward { into, event }));
            return Ok(Judgement::Forwarded);
        }
        #[expect(clippy::panic, reason = "what a test seeds is a panic, and only a test can seed it")]
        if mutant("poison") && event.name.as_deref() == Some("poison") {
            panic!("a seeded fault of a rule");
        }
        let (id, fingerprint, received_at) = (event.id.clone(), event.fingerprint, event.received_at);
        let source = event.source;
        let said = event.consent.clone();
        let claimed = event.occurred_at.map_or(received_at, |at| at.min(received_at));
        self.tally.received.push(received_at);
        point!("step.judge.before");
        let active = self.states.get(&partition).and_then(|state| state.active.as_ref());
        let silence = active.map_or_else(Silence::default, |active| active.policies.silence.of(&key.workspace));
        let link = event.client.page_url.as_deref().map_or(0, link_hash);
        let known = Known {
            state: &loaded.state,
            silence,
        };
        let verdict = self.judge.judge(*event, &known);
        point!("step.judge.after");
        if verdict == Verdict::Duplicate {
            *self.tally.duplicates.entry(source).or_default() += 1;
            self.book(
                partition,
                &key.workspace,
                &Books {
                    duplicate: 1,
                    ..Books::default()
                },
            )?;
            return Ok(Judgement::Duplicate);
        }
        loaded.touched = true;
        loaded.by_event = true;
        loaded.state.last_received = loaded.state.last_received.max(clock);
        let doubtful = matches!(verdict, Verdict::Quarantine { .. });
        for (purpose, state) in said
            .into_iter()
            .filter(|(purpose, _)| !doubtful || *purpose != Purpose::Marketing)
        {
            let said = ConsentRecord { at: claimed, state };
            loaded.state.say(&identity, purpose, said);
        }
        let mut bought = None;
        let judgement = match verdict {
            Verdict::Duplicate => Judgement::Duplicate,
            Verdict::Suppress(reason) => {
                self.book(
                    partition,
                    &key.workspace,
                    &Books {
                        suppressed: 1,
                        ..Books::default()
                    },
                )?;
                Judgement::Suppressed(reason)
            }
            Verdict::Quarantine { signal, at, doubt } => {
                loaded.state.hold(Held {
                    at,
                    identity,
                    signal,
                    doubt,
                });
                self.book(
                    partition,
                    &key.workspace,
                    &Books {
                        suppressed: 1,
                        ..Books::default()
                    },
                )?;
                Judgement::Suppressed(Suppression::Quarantine)
            }
            Verdict::Apply(enriched) => {
                let Enriched {
                    event,
                    signal,
                    channel,
                    at,
                    time,
                    agent,
                    session,
                    conflict,
                    links,
                } = *enriched;
                let observation = Observation {
                    at,
                    signal,
                    channel,
                    money: event.money,
                    human: agent.is_human(),
                };
                let taken = loaded
                    .state
                    .observe(&identity, &observation, agent.human_permille, link);
                if taken == Taken::TooManyIdentities {
                    return self.set_aside(position, &event, RejectCode::TooManyIdentities);
                }
                if signal == Signal::QuarantineDismissed {
                    loaded.state.dismiss(at);
                }
                let flag = event.order.as_deref().and_then(FlagId::parse);
                loaded.state.cite(&identity, &observation, &id);
                vigie_relance::note(&mut loaded.state.ledger, signal, channel, at, flag);
                if signal == Signal::Group
                    && let Some(id) = event.order.as_deref().and_then(|id| AccountId::new(id).ok())
                {
                    loaded.state.note_account(Account { at, id });
                }
                bought = signal.is_purchase().then_some(at);
                let window = i64::from(DEDUP_DAYS) * DAY_MS;
                loaded.state.recent.forget_before(clock.plus_ms(-window));
                loaded.state.recent.insert(&id, fingerprint, received_at, DEDUP_IDS);
                let new_links: Vec<(PersonId, PersonId)> = links
                    .into_iter()
                    .filter(|(from, to)| {
                        let other = if *from == key.person { to } else { from };
                        loaded.state.note_link(other)
                    })
                    .collect();
                self.book(
                    partition,
                    &key.workspace,
                    &Books {
                        applied: 1,
                        conflict: u64::from(conflict),
                        ..Books::default()
                    },
                )?;
                *self.tally.signals.entry(signal).or_default() += 1;
                for (from, to) in new_links {
                    let link = Link {
                        workspace: key.workspace.clone(),
                        from: from.clone(),
                        to,
                        at: clock,
                        by: id.clone(),
                    };
                    self.derive(from.as_str(), Body::Link(link));
                }
                Judgement::Applied(Findings {
                    at,
                    time,
                    signal,
                    channel,
                    human_permille: agent.human_permille,
                    session,
                    conflict,
                })
            }
        };
        self.look(partition, who, clock, bought)?;
        Ok(judgement)
    }

    /// `from` gives up its record: it becomes a signpost, and what it had gathered travels to `to`.
    fn link(&mut self, partition: Partition, link: Link, who: Who) -> Result<(), WorkerError> {
        self.settle(partition, who)?;
        let loaded = self.customer(who)?;
        match loaded.state.linked_to.clone() {
            // Withdrawn: what clients repeat does not renew it.
            _ if loaded.state.bonds.is_withdrawn(&link.to) => {}
            None => {
                // The timer and the rank belong to a record, not to what it has gathered.
                self.set_timer(partition, who, None)?;
                let loaded = self.customer(who)?;
                loaded.state.rank = None;
                let bonds = loaded.state.bonds.give_away(&link.from, &link.to);
                let state = loaded.state.encode();
                loaded.state = CustomerState {
                    linked_to: Some(link.to.clone()),
                    last_received: loaded.state.last_received,
                    bonds,
                    ..CustomerState::default()
                };
                loaded.touched = true;
                let Link {
                    workspace,
                    from,
                    to,
                    at,
                    by,
                } = link;
                let merge = Merge {
                    workspace,
                    from,
                    into: to.clone(),
                    at,
                    by,
                    parts: vec![MergePart { state }],
                };
                self.derive(to.as_str(), Body::Merge(merge));
            }
            Some(target) if target == link.to => {}
            // A device that two known customers have signed in on links neither of them to the other.
            Some(target) if !link.from.is_known() && target.is_known() && link.to.is_known() => {
                self.tally.link_conflicts += 1
            }
            Some(target) => {
                let (to, from) = if target < link.to {
                    (target, link.to)
                } else {
                    (link.to, target)
                };
                let next = Link {
                    workspace: link.workspace,
                    from: from.clone(),
                    to,
                    at: link.at,
                    by: link.by,
                };
                self.derive(from.as_str(), Body::Link(next));
            }
        }
        Ok(())
    }

    fn merge(&mut self, position: Position, merge: Merge, who: Who) -> Result<Judgement, WorkerError> {
        let clock = self.meta(position.partition)?.clock;
        let loaded = self.customer(who)?;
        if let Some(target) = loaded.state.linked_to.clone() {
            self.derive(target.clone().as_str(), Body::Merge(Merge { into: target, ..merge }));
            return Ok(Judgement::Forwarded);
        }
        for part in &merge.parts {
            let gathered = CustomerState::decode(&part.state).map_err(|error| WorkerError::Undecodable {
                position,
                reason: error.to_string(),
            })?;
            loaded.state.merge(&gathered);
        }
        let _ = loaded.state.note_link(&merge.from);
        loaded.state.settle();
        loaded.touched = true;
        self.look(position.partition, who, clock, None)?;
        Ok(Judgement::Noted)
    }

    /// Brings one customer up to date as of `at`: decisions, published scores, rank, and the next timer.
    ///
    /// Where the batch touches the customer again, only what is decided before that is solved here. Published scores and
    /// the timer that refreshes them would be overwritten then, unseen by anybody: under silence a refresh decides nothing,
    /// since scores only rise and what was refused stays refused. So how the log is cut into batches changes no byte.
    ///
    /// `purchase` is when the purchase happened that the look is due to, if it is due to one.
    pub(crate) fn look(
        &mut self,
        partition: Partition,
        who: Who,
        at: Timestamp,
        purchase: Option<Timestamp>,
    ) -> Result<(), WorkerError> {
        let active = match self.states.get(&partition).and_then(|state| state.active.as_ref()) {
            Some(active) => Arc::clone(active),
            None => return Err(WorkerError::NoModel { partition }),
        };
        let loaded = self.customers.get_mut(who).ok_or(WorkerError::NotFetched)?;
        loaded.touched = true;
        loaded.open = None;
        if loaded.state.linked_to.is_some() {
            loaded.state.rank = None;
            return self.set_timer(partition, who, None);
        }
        loaded
            .state
            .presume(active.policies.silence.of(&loaded.key.workspace).profiling);
        let scorer = Scorer::of(&loaded.state, &active.model);
        let key = &loaded.key;
        let mut look = Look {
            key,
            state: &mut loaded.state,
            scorer: &scorer,
            model: &active.model,
            now: at,
            purchase,
        };
        let row = |id: FlagId, flag: &Flag| FlagRow {
            workspace: key.workspace.clone(),
            partition,
            id,
            // A struct of strings and finite numbers always has a JSON form.
            body: Bytes::from(serde_json::to_vec(flag).unwrap_or_default()),
        };
        for decision in evaluate(&active.policies, &mut look) {
            match decision {
                Decision::Flag { id, flag } => {
                    self.flags.push(row(id, &flag));
                    let label = flag.kind.label();
                    *self.tally.decisions.entry((flag.policy, label)).or_default() += 1;
                }
                Decision::Refused { policy, reason } => {
                    *self.tally.refusals.entry((policy, reason.label())).or_default() += 1;
                }
                Decision::Moved { id, flag } => {
                    self.flags.push(row(id, &flag));
                    let up = flag.band.as_ref().is_some_and(|moved| moved.up);
                    *self.tally.moves.entry((flag.policy, up)).or_default() += 1;
                }
                Decision::Ended {
                    policy,
                    phase,
                    held_out,
                    notice,
                } => {
                    self.flags.extend(notice.iter().map(|(id, notice)| row(*id, notice)));
                    let end = match (held_out, phase) {
                        (true, Phase::Returned) => "held_out_returned",
                        (true, Phase::Lost) => "held_out_lost",
                        (true, Phase::Recalled) => "held_out_recalled",
                        (_, phase) => phase.label(),
                    };
                    *self.tally.ends.entry((policy, end)).or_default() += 1;
                }
            }
        }
        self.tally.scores += 1;
        match loaded.next_touch {
            Some(next) => {
                loaded.open = Some(OpenLook { at, until: next });
                let crossing = next_due(&active.policies, &loaded.key, &loaded.state, &scorer, at, next);
                self.set_timer(partition, who, crossing)
            }
            None => {
                let timer = publish(loaded, &active, &scorer, at);
                self.set_timer(partition, who, timer)
            }
        }
    }

    /// Goes on after a record that did not look at its customer although an earlier look counted on it.
    fn carry_on(&mut self, partition: Partition, who: Who, next_touch: Option<Timestamp>) -> Result<(), WorkerError> {
        let loaded = self.customer(who)?;
        loaded.next_touch = next_touch;
        let Some(open) = loaded.open else { return Ok(()) };
        if next_touch.is_some_and(|next| next <= open.until) {
            return Ok(());
        }
        let clock = self.meta(partition)?.clock;
        self.solve(partition, who, open.at)?;
        self.fire(partition, clock)
    }

    /// Publishes what an earlier look left open, as if nothing more were to come, up to the partition's clock.
    fn settle(&mut self, partition: Partition, who: Who) -> Result<(), WorkerError> {
        self.carry_on(partition, who, None)
    }

    /// Solves again what a look at `at` left open, with the customer's next touch as it is known now.
    fn solve(&mut self, partition: Partition, who: Who, at: Timestamp) -> Result<(), WorkerError> {
        let active = match self.states.get(&partition).and_then(|state| state.active.as_ref()) {
            Some(active) => Arc::clone(active),
            None => return Err(WorkerError::NoModel { partition }),
        };
        let loaded = self.customers.get_mut(who).ok_or(WorkerError::NotFetched)?;
        let scorer = Scorer::of(&loaded.state, &active.model);
        let timer = match loaded.next_touch {
            Some(until) => {
                loaded.open = Some(OpenLook { at, until });
                next_due(&active.policies, &loaded.key, &loaded.state, &scorer, at, until)
            }
            None => {
                loaded.open = None;
                publish(loaded, &active, &scorer, at)
            }
        };
        self.set_timer(partition, who, timer)
    }

    /// Changes a customer's timer, and with it the timers that this batch still has to fire.
    fn set_timer(&mut self, partition: Partition, who: Who, timer: Option<Timestamp>) -> Result<(), WorkerError> {
        let loaded = self.customers.get_mut(who).ok_or(WorkerError::NotFetched)?;
        let timer = timer.filter(|_| !mutant("timer_forgotten"));
        let before = std::mem::replace(&mut loaded.state.timer, timer);
        if before != timer {
            if let Some(at) = before
                && let Some(due) = self.due.get_mut(&partition).filter(|due| !due.is_empty())
            {
                let key = loaded.key.clone();
                let _ = due.remove(&Due { at, key, who });
            }
            self.enter(partition, who, timer);
        }
        Ok(())
    }

    /// Has a timer fire in this batch, if it is due by the batch's end.
    fn enter(&mut self, partition: Partition, who: Who, timer: Option<Timestamp>) {
        let until = self.until.get(&partition);
        if let Some(at) = timer.filter(|timer| until.is_some_and(|until| timer <= until))
            && let Some(key) = self.customers.get(who).map(|loaded| loaded.key.clone())
        {
            let _ = self.due.entry(partition).or_default().insert(Due { at, key, who });
        }
    }

    /// Appends a record to the partition of `person`, naming the record being folded as its origin.
    pub(crate) fn derive(&mut self, person: &str, body: Body) {
        let target = partition_for(person, self.partitions);
        let origin = self.cause.as_mut().map(|(position, given)| {
            let index = given.entry(target).or_default();
            let origin = Origin {
                position: *position,
                index: *index,
            };
            *index = index.saturating_add(1);
            origin
        });
        self.derived.push((target, Record { origin, body }));
    }

    fn set_aside(&mut self, position: Position, event: &Event, code: RejectCode) -> Result<Judgement, WorkerError> {
        self.dead_letters.push(DeadLetter {
            position,
            code,
            event: event.clone(),
        });
        self.book(
            position.partition,
            &event.workspace,
            &Books {
                dead_letter: 1,
                ..Books::default()
            },
        )?;
        Ok(Judgement::DeadLetter(code))
    }

    /// Books an outcome where the record was read: in the partition's own books, and in the batch's for operations.
    fn book(&mut self, partition: Partition, workspace: &Workspace, outcome: &Books) -> Result<(), WorkerError> {
        let own = &mut self.meta(partition)?.books;
        match own.get_mut(workspace) {
            Some(books) => books.add(outcome),
            None => own.entry(workspace.clone()).or_default().add(outcome),
        }
        match self.tally.books.get_mut(workspace) {
            Some(books) => books.add(outcome),
            None => self.tally.books.entry(workspace.clone()).or_default().add(outcome),
        }
        Ok(())
    }

    fn state(&mut self, partition: Partition) -> Result<&mut PartitionState, WorkerError> {
        self.states
            .get_mut(&partition)
            .ok_or(WorkerError::NotOwned { partition })
    }

    pub(crate) fn meta(&mut self, partition: Partition) -> Result<&mut crate::meta::Meta, WorkerError> {
        self.state(partition).map(|state| &mut state.meta)
    }
}

/// Brings published scores and rank up to date as of `at`, and returns when the record wants to be looked at next.
fn publish(loaded: &mut Loaded, active: &Active, scorer: &Scorer<'_>, at: Timestamp) -> Option<Timestamp> {
    let horizon = at.plus_ms(TIMER_HORIZON_MS);
    // A crossing behind the next refresh is solved when that comes.
    let refresh = scorer.next_refresh(at, horizon).map(|due| due.max(at.plus_ms(1)));
    let crossing = next_due(
        &active.policies,
        &loaded.key,
        &loaded.state,
        scorer,
        at,
        refresh.unwrap_or(horizon),
    );
    let scores = scorer.refreshed(at);
    loaded.state.rank = scores.attrition_ppm.map(rank);
    loaded.state.refreshed = Some(scores);
    [crossing, refresh].into_iter().flatten().min()
}

/// At-risk rank of an attrition in millionths: 65535 = certainly drifting. In steps of [`RANK_STEP`], since published scores
/// are only good to twice that, and a place in the list that does not change need not be written.
fn rank(ppm: u32) -> u16 {
    let ppm = u64::from(ppm - ppm % RANK_STEP);
    u16::try_from(ppm * u64::from(u16::MAX) / 1_000_000).unwrap_or(u16::MAX)
}

/// What enrichment may know of a customer.
struct Known<'a> {
    state: &'a CustomerState,
    silence: Silence,
}

/// How a link that was followed is remembered; 0 is none.
fn link_hash(address: &str) -> u32 {
    // The upper half of the fingerprint.
    u32::try_from(fingerprint([address.as_bytes()]) >> 32)
        .unwrap_or_default()
        .max(1)
}

impl History for Known<'_> {
    fn seen(&self, id: &EventId, fingerprint: u64) -> Seen {
        if mutant("dedup_off") {
            return Seen::New;
        }
        self.state.recent.seen(id, fingerprint)
    }

    fn consent(&self, purpose: Purpose) -> Option<ConsentState> {
        if mutant("withdraw_ignored") {
            return None;
        }
        let said = self.state.consent.get(&purpose).map(|record| record.state);
        said.or_else(|| self.silence.about(purpose))
    }

    fn visit_near(&self, at: Timestamp) -> Option<Visit> {
        let near = self
            .state
            .all_parts()
            .filter_map(|part| part.calendar().session_near(at));
        near.map(|session| Visit {
            start: session.start_at(),
            end: session.end_at(),
        })
        .max_by_key(|visit| visit.end)
    }

    fn machine_near(&self, at: Timestamp) -> bool {
        self.state.mail.is_machine_near(at)
    }
}
