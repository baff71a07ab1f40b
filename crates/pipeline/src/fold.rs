//! The fold: one synchronous pure function from (records in memory, a batch of the log) to (changed records, flags,
//! derived log records, books). It performs no I/O and reads no clock; everything that it needs was fetched before.

use crate::errors::WorkerError;
use crate::meta::{Active, Books, PartitionState, Rearm};
use crate::worker::DeadLetter;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vigie_enrichment::{History, Judge, Visit};
use vigie_event::{
    Body, ConsentState, Control, CustomerKey, DAY_MS, Enriched, Event, EventId, Forward, Link, Merge, MergePart,
    Origin, Partition, PersonId, Position, Purpose, Record, RejectCode, Seen, Timestamp, Verdict, Workspace,
    partition_for,
};
use vigie_ingestion::log::Entry;
use vigie_relance::{Decision, FlagKind, Look, evaluate, next_due};
use vigie_scoring::state::{ConsentRecord, Fold as Folded, Observation};
use vigie_scoring::{CustomerState, Scorer};
use vigie_store::FlagRow;

/// Days during which a repeated event id is recognised, counted from its last receipt.
pub const DEDUP_DAYS: i32 = 7;
/// Most recent event ids remembered per customer; of more, the oldest are forgotten.
pub const DEDUP_IDS: usize = vigie_scoring::state::MAX_RECENT_IDS;
/// How far ahead a timer is searched for; beyond it a customer is left alone until something happens.
const TIMER_HORIZON_MS: i64 = 10 * 366 * DAY_MS;

/// A customer record in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    pub(crate) state: CustomerState,
    /// The index entries that the store holds for it.
    pub(crate) stored_timer: Option<Timestamp>,
    pub(crate) stored_rank: Option<u16>,
    pub(crate) touched: bool,
    /// Receipt of the newest event since it was loaded, for the latency histogram.
    pub(crate) by_event: bool,
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
    pub(crate) scores: u64,
    pub(crate) link_conflicts: u64,
}

/// The working set of one batch and what the fold makes of it.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) judge: &'a mut Judge,
    pub(crate) partitions: u16,
    pub(crate) states: BTreeMap<Partition, PartitionState>,
    pub(crate) customers: BTreeMap<CustomerKey, Loaded>,
    /// Timers due by the end of the batch, per partition.
    pub(crate) due: BTreeMap<Partition, BTreeSet<(Timestamp, CustomerKey)>>,
    /// The latest time that the batch brings to each partition: later timers are the store's business.
    pub(crate) until: BTreeMap<Partition, Timestamp>,
    pub(crate) derived: Vec<(Partition, Record)>,
    pub(crate) flags: Vec<FlagRow>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) tally: Tally,
    /// The record being folded and how many derived records it has given each partition.
    cause: Option<(Position, BTreeMap<Partition, u16>)>,
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
            customers: BTreeMap::new(),
            due: BTreeMap::new(),
            until: BTreeMap::new(),
            derived: Vec::new(),
            flags: Vec::new(),
            dead_letters: Vec::new(),
            tally: Tally::default(),
            cause: None,
        }
    }

    /// The customer record that folding a log record may touch, so that it can be fetched beforehand.
    pub(crate) fn needs(record: &Record) -> Option<CustomerKey> {
        let (workspace, person) = match &record.body {
            Body::Event(event) => (&event.workspace, event.person.key()?),
            Body::Forward(forward) => (&forward.event.workspace, &forward.into),
            Body::Link(link) => (&link.workspace, &link.from),
            Body::Merge(merge) => (&merge.workspace, &merge.into),
            Body::Tick(_) | Body::Control(_) => return None,
        };
        Some(CustomerKey::new(workspace.clone(), person.clone()))
    }

    /// Folds one log record.
    pub(crate) fn fold(&mut self, entry: &Entry, record: Record) -> Result<After, WorkerError> {
        let position = entry.position;
        let at = record.at();
        let meta = self.meta(position.partition)?;
        if position.offset < meta.next {
            return Ok(After::Nothing);
        }
        if position.offset > meta.next {
            return Err(WorkerError::Skipped {
                partition: position.partition,
                expected: meta.next,
                found: position.offset,
            });
        }
        if meta.is_repeated(record.origin) {
            meta.next = position.offset.next();
            return Ok(After::Nothing);
        }
        meta.clock = meta.clock.max(at);
        let clock = meta.clock;
        self.fire(position.partition, clock)?;
        self.cause = Some((position, BTreeMap::new()));
        let after = match record.body {
            Body::Tick(_) => After::Nothing,
            Body::Event(event) => {
                self.event(position, None, event)?;
                After::Nothing
            }
            Body::Forward(Forward { into, event }) => {
                self.event(position, Some(into), event)?;
                After::Nothing
            }
            Body::Link(link) => {
                self.link(link);
                After::Nothing
            }
            Body::Merge(merge) => {
                self.merge(position, merge)?;
                After::Nothing
            }
            Body::Control(Control::Activate { model, policies, .. }) => {
                let active = Active::parse(&model, &policies).map_err(|error| WorkerError::Control {
                    position,
                    reason: error.to_string(),
                })?;
                let state = self.state(position.partition)?;
                state.meta.active = Some(active.reference(position.offset));
                state.meta.rearm = Some(Rearm { after: None });
                state.active = Some(Arc::new(active));
                After::Rearm
            }
        };
        self.cause = None;
        let meta = self.meta(position.partition)?;
        meta.next = position.offset.next();
        Ok(after)
    }

    /// Fires every timer of the partition that is due at `clock`, in order of (due, customer).
    pub(crate) fn fire(&mut self, partition: Partition, clock: Timestamp) -> Result<(), WorkerError> {
        loop {
            let Some(due) = self.due.get_mut(&partition) else {
                return Ok(());
            };
            match due.first() {
                Some((at, _)) if *at <= clock => {}
                _ => return Ok(()),
            }
            let Some((at, key)) = due.pop_first() else {
                return Ok(());
            };
            let Some(loaded) = self.customers.get_mut(&key) else {
                return Err(WorkerError::NotFetched { key });
            };
            loaded.touched = true;
            if loaded.state.timer == Some(at) {
                self.tally.timers.push((at, clock));
                self.look(partition, &key, at)?;
            } else {
                // An index entry that the record does not ask for: the next write takes it away.
                loaded.stored_timer = Some(at);
            }
        }
    }

    /// Looks at every given customer anew, after a change of model or policies.
    pub(crate) fn rearm(&mut self, partition: Partition, keys: &[CustomerKey]) -> Result<(), WorkerError> {
        let clock = self.meta(partition)?.clock;
        for key in keys {
            self.look(partition, key, clock)?;
        }
        Ok(())
    }

    fn event(&mut self, position: Position, into: Option<PersonId>, event: Box<Event>) -> Result<(), WorkerError> {
        let partition = position.partition;
        let workspace = event.workspace.clone();
        let Some(identity) = event.person.key().cloned() else {
            return self.set_aside(position, &event, RejectCode::NoIdentity);
        };
        let owner = into.unwrap_or_else(|| identity.clone());
        if partition_for(owner.as_str(), self.partitions) != partition {
            self.derive(owner.clone().as_str(), Body::Forward(Forward { into: owner, event }));
            return Ok(());
        }
        let clock = self.meta(partition)?.clock;
        let key = CustomerKey::new(workspace.clone(), owner);
        let loaded = self.customers.entry(key.clone()).or_default();
        if let Some(target) = loaded.state.linked_to.clone() {
            self.derive(target.clone().as_str(), Body::Forward(Forward { into: target, event }));
            return Ok(());
        }
        let (id, fingerprint, received_at) = (event.id.clone(), event.fingerprint, event.received_at);
        let said = event.consent.clone();
        let claimed = event.occurred_at.map_or(received_at, |at| at.min(received_at));
        self.tally.received.push(received_at);
        let verdict = self.judge.judge(*event, &Known { state: &loaded.state });
        if verdict == Verdict::Duplicate {
            return self.book(
                partition,
                &workspace,
                &Books {
                    duplicate: 1,
                    ..Books::default()
                },
            );
        }
        loaded.touched = true;
        loaded.by_event = true;
        loaded.state.last_received = loaded.state.last_received.max(clock);
        for (purpose, state) in said {
            loaded.state.note_consent(purpose, ConsentRecord { at: claimed, state });
        }
        match verdict {
            Verdict::Duplicate => {}
            Verdict::Suppress(_) => self.book(
                partition,
                &workspace,
                &Books {
                    suppressed: 1,
                    ..Books::default()
                },
            )?,
            Verdict::Apply(enriched) => {
                let Enriched {
                    event,
                    signal,
                    channel,
                    at,
                    agent,
                    conflict,
                    links,
                    ..
                } = *enriched;
                let observation = Observation {
                    at,
                    signal,
                    channel,
                    money: event.money,
                    human: agent.is_human(),
                };
                if loaded.state.fold(&identity, &observation) == Folded::TooManyIdentities {
                    return self.set_aside(position, &event, RejectCode::TooManyIdentities);
                }
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
                    &workspace,
                    &Books {
                        applied: 1,
                        conflict: u64::from(conflict),
                        ..Books::default()
                    },
                )?;
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
            }
        }
        self.look(partition, &key, clock)
    }

    /// `from` gives up its record: it becomes a signpost, and what it had gathered travels to `to`.
    fn link(&mut self, link: Link) {
        let key = CustomerKey::new(link.workspace.clone(), link.from.clone());
        let loaded = self.customers.entry(key).or_default();
        match loaded.state.linked_to.clone() {
            None => {
                // The timer and the rank belong to a record, not to what it has gathered.
                loaded.state.timer = None;
                loaded.state.rank = None;
                let state = loaded.state.encode();
                loaded.state = CustomerState {
                    linked_to: Some(link.to.clone()),
                    last_received: loaded.state.last_received,
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
    }

    fn merge(&mut self, position: Position, merge: Merge) -> Result<(), WorkerError> {
        let key = CustomerKey::new(merge.workspace.clone(), merge.into.clone());
        let clock = self.meta(position.partition)?.clock;
        let loaded = self.customers.entry(key.clone()).or_default();
        if let Some(target) = loaded.state.linked_to.clone() {
            self.derive(target.clone().as_str(), Body::Merge(Merge { into: target, ..merge }));
            return Ok(());
        }
        for part in &merge.parts {
            let gathered = CustomerState::decode(&part.state).map_err(|error| WorkerError::Undecodable {
                position,
                reason: error.to_string(),
            })?;
            loaded.state.merge(&gathered);
        }
        let _ = loaded.state.note_link(&merge.from);
        loaded.touched = true;
        self.look(position.partition, &key, clock)
    }

    /// Brings one customer up to date as of `at`: decisions, published scores, rank, and the next timer.
    fn look(&mut self, partition: Partition, key: &CustomerKey, at: Timestamp) -> Result<(), WorkerError> {
        let active = match self.states.get(&partition).and_then(|state| state.active.as_ref()) {
            Some(active) => Arc::clone(active),
            None => return Err(WorkerError::NoModel { partition }),
        };
        let Some(loaded) = self.customers.get_mut(key) else {
            return Err(WorkerError::NotFetched { key: key.clone() });
        };
        let before = loaded.state.timer;
        loaded.touched = true;
        if loaded.state.linked_to.is_some() {
            loaded.state.timer = None;
            loaded.state.rank = None;
        } else {
            let scorer = Scorer::of(&loaded.state, &active.model);
            let mut look = Look {
                key,
                state: &mut loaded.state,
                scorer: &scorer,
                model: &active.model,
                now: at,
            };
            for decision in evaluate(&active.policies, &mut look) {
                match decision {
                    Decision::Flag { id, flag } => {
                        let label = if flag.kind == FlagKind::HeldOut {
                            "held_out"
                        } else {
                            "flagged"
                        };
                        *self.tally.decisions.entry((flag.policy.clone(), label)).or_default() += 1;
                        // A struct of strings and finite numbers always has a JSON form.
                        let body = Bytes::from(serde_json::to_vec(&flag).unwrap_or_default());
                        self.flags.push(FlagRow {
                            workspace: key.workspace.clone(),
                            id,
                            body,
                        });
                    }
                    Decision::Refused { policy, reason } => {
                        *self.tally.refusals.entry((policy, reason.label())).or_default() += 1;
                    }
                }
            }
            let scores = scorer.refreshed(at);
            let horizon = at.plus_ms(TIMER_HORIZON_MS);
            let crossing = next_due(&active.policies, &loaded.state.ledger, &scorer, at, horizon);
            let refresh = scorer
                .next_refresh(at, crossing.unwrap_or(horizon))
                .map(|due| due.max(at.plus_ms(1)));
            loaded.state.timer = [crossing, refresh].into_iter().flatten().min();
            loaded.state.rank = scores.attrition_ppm.map(rank);
            loaded.state.refreshed = Some(scores);
            self.tally.scores += 1;
        }
        let after = loaded.state.timer;
        if before != after {
            let due = self.due.entry(partition).or_default();
            if let Some(before) = before {
                let _ = due.remove(&(before, key.clone()));
            }
            if let Some(after) = after
                && self.until.get(&partition).is_some_and(|until| after <= *until)
            {
                let _ = due.insert((after, key.clone()));
            }
        }
        Ok(())
    }

    /// Appends a record to the partition of `person`, naming the record being folded as its origin.
    fn derive(&mut self, person: &str, body: Body) {
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

    fn set_aside(&mut self, position: Position, event: &Event, code: RejectCode) -> Result<(), WorkerError> {
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
        )
    }

    /// Books an outcome where the record was read: in the partition's own books, and in the batch's for operations.
    fn book(&mut self, partition: Partition, workspace: &Workspace, outcome: &Books) -> Result<(), WorkerError> {
        self.meta(partition)?
            .books
            .entry(workspace.clone())
            .or_default()
            .add(outcome);
        self.tally.books.entry(workspace.clone()).or_default().add(outcome);
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

/// At-risk rank of an attrition in millionths: 65535 = certainly drifting.
fn rank(ppm: u32) -> u16 {
    u16::try_from(u64::from(ppm) * u64::from(u16::MAX) / 1_000_000).unwrap_or(u16::MAX)
}

/// What enrichment may know of a customer.
struct Known<'a> {
    state: &'a CustomerState,
}

impl History for Known<'_> {
    fn seen(&self, id: &EventId, fingerprint: u64) -> Seen {
        self.state.recent.seen(id, fingerprint)
    }

    fn consent(&self, purpose: Purpose) -> Option<ConsentState> {
        self.state.consent.get(&purpose).map(|record| record.state)
    }

    fn visit_near(&self, at: Timestamp) -> Option<Visit> {
        let near = self
            .state
            .parts
            .values()
            .filter_map(|part| part.calendar().session_near(at));
        near.map(|session| Visit {
            start: session.start_at(),
            end: session.end_at(),
        })
        .max_by_key(|visit| visit.end)
    }
}
