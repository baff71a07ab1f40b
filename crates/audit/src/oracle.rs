//! One partition, recomputed record by record: no batch, no cache, no index of timers, no asynchrony.
//!
//! A record may touch one customer; that customer alone is first brought to the partition's clock ([`crate::silence`]), then
//! the record takes effect. Everybody else stays as they were until a record touches them, an activation of a model does, or
//! the end does. That gives what firing every timer in the order of its time gives, because a timer reads and writes nothing
//! but its own customer.
//!
//! A record derived from another one (a link, a merge, a forwarded event) is folded as the log holds it, and compared with
//! what folding its cause must have made. So a partition can be recomputed alone, and a wrong derived record shows as one.

use crate::contact;
use crate::decision::{Active, ExpectedFlag, Flags, Moment};
use crate::judgement;
use crate::layout;
use crate::meta::{Books, Facts, InForce};
use crate::part::Act;
use crate::silence::{Customer, leap, look, walk};
use crate::state::{Met, PARTS, State};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use vigie_enrichment::{AgentError, Judge};
use vigie_event::{
    AccountId, Body, ConsentState, Control, CustomerKey, DAY_MS, Event, FlagId, Forward, Link, Merge, MergePart,
    Offset, Origin, Partition, PersonId, Position, Purpose, Record, Release, Signal, Timestamp, Workspace,
    partition_for,
};
use vigie_relance::PolicySet;
use vigie_scoring::Model;

/// How long a repeated id is recognised, from its last receipt.
const REMEMBERED_MS: i64 = 7 * DAY_MS;

/// Why a partition cannot be recomputed. It never says that the live store is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The records have a gap, stand in another order, or belong to another partition.
    #[error("partition {partition} continues at {found} where offset {expected} was expected")]
    Order {
        /// Which.
        partition: Partition,
        /// The next offset.
        expected: Offset,
        /// What came.
        found: Position,
    },
    /// A record takes effect before any model is in force.
    #[error("record {0} stands before the first activation")]
    NoModel(Position),
    /// An activation's texts are not valid.
    #[error("activation {position} cannot be read: {reason}")]
    Activation {
        /// Where.
        position: Position,
        /// Why.
        reason: String,
    },
    /// A merge carries bytes that are no customer record.
    #[error("merge {0} carries no readable customer record")]
    Merge(Position),
    /// The lists of user agents.
    #[error(transparent)]
    Agents(#[from] AgentError),
    /// The records could not be read.
    #[error("records cannot be read: {0}")]
    Records(String),
}

/// A derived record, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) kind: &'static str,
    pub(crate) customer: CustomerKey,
    /// SHA-256 of its canonical bytes, a forwarded event's payload left out.
    pub(crate) digest: [u8; 32],
}

/// What must be in a partition.
#[derive(Debug)]
pub struct Expected {
    /// Which partition.
    pub partition: Partition,
    /// What the partition remembers besides its customers.
    pub facts: Facts,
    /// The canonical bytes of every customer record, in the order of their keys.
    pub customers: Vec<(CustomerKey, Vec<u8>)>,
    /// The flags raised.
    pub flags: BTreeMap<(Workspace, FlagId), ExpectedFlag>,
    /// Events read, forwarded ones included where they settled.
    pub events: u64,
    /// Per target partition: the derived records that folding must have appended.
    pub(crate) given: BTreeMap<(Partition, Origin), Derived>,
    /// The derived records that this partition's log holds, those beyond the cut included.
    pub(crate) taken: BTreeMap<Origin, Derived>,
    /// Derived records that the log holds twice with different content.
    pub(crate) unlike: Vec<(Origin, Derived)>,
}

/// The oracle of one partition.
#[derive(Debug)]
pub struct Oracle {
    partition: Partition,
    partitions: u16,
    judge: Judge,
    active: Option<Active>,
    facts: Facts,
    customers: BTreeMap<CustomerKey, Customer>,
    flags: Flags,
    events: u64,
    given: BTreeMap<(Partition, Origin), Derived>,
    taken: BTreeMap<Origin, Derived>,
    unlike: Vec<(Origin, Derived)>,
    shortcut: bool,
    /// The last event that was set aside.
    aside: Option<Position>,
}

/// The record being folded and how many derived records it has given each partition.
struct Cause {
    position: Position,
    given: BTreeMap<Partition, u16>,
}

impl Oracle {
    /// An oracle of one of `partitions` partitions, before its first record.
    pub fn new(partition: Partition, partitions: u16) -> Result<Self, Fault> {
        Ok(Self {
            partition,
            partitions,
            judge: Judge::new()?,
            active: None,
            facts: Facts::default(),
            customers: BTreeMap::new(),
            flags: BTreeMap::new(),
            events: 0,
            given: BTreeMap::new(),
            taken: BTreeMap::new(),
            unlike: Vec::new(),
            shortcut: true,
            aside: None,
        })
    }

    /// The same oracle, taking every look that is due instead of those that change something: slower, and nothing but the
    /// definition. A test compares both.
    #[must_use]
    pub fn without_shortcut(mut self) -> Self {
        self.shortcut = false;
        self
    }

    /// Takes the next record of the partition, an event that a past process could not fold and set aside. That it could not
    /// is the one thing that only the archive knows.
    pub fn set_aside(&mut self, position: Position, record: Record) -> Result<(), Fault> {
        self.aside = Some(position);
        self.fold(position, record)
    }

    /// Folds the next record of the partition. An event's payload is never looked at and may be left empty.
    pub fn fold(&mut self, position: Position, record: Record) -> Result<(), Fault> {
        if position.partition != self.partition || position.offset != self.facts.next {
            return Err(Fault::Order {
                partition: self.partition,
                expected: self.facts.next,
                found: position,
            });
        }
        self.facts.next = position.offset.next();
        if let Some(origin) = record.origin {
            // Of what one partition gives another, everything comes in the order of its causes: what is not later than
            // the latest has been taken.
            let latest = self.facts.origins.get(&origin.position.partition);
            if latest.is_some_and(|latest| *latest >= origin) {
                // Unless it comes out of order for the first time: then it has no effect, and counts as lost.
                if self.taken.contains_key(&origin) {
                    self.note(origin, &record);
                }
                return Ok(());
            }
            self.note(origin, &record);
            let _ = self.facts.origins.insert(origin.position.partition, origin);
        }
        self.facts.clock = self.facts.clock.max(record.at());
        let mut cause = Cause {
            position,
            given: BTreeMap::new(),
        };
        match record.body {
            Body::Tick(_) => Ok(()),
            Body::Event(event) => self.event(&mut cause, None, event),
            Body::Forward(Forward { into, event }) => self.event(&mut cause, Some(into), event),
            Body::Link(link) => self.link(&mut cause, link),
            Body::Merge(merge) => self.merge(&mut cause, merge),
            Body::Release(release) => self.release(&mut cause, release),
            Body::Control(Control::Activate { model, policies, .. }) => self.activate(position, &model, &policies),
        }
    }

    /// Takes note of a record beyond the cut: it is not folded, but it may be a derived record whose cause is.
    pub fn beyond(&mut self, record: &Record) {
        if let Some(origin) = record.origin {
            self.note(origin, record);
        }
    }

    /// Lets every customer come to the partition's clock and hands everything over.
    pub fn finish(mut self) -> Expected {
        let clock = self.facts.clock;
        let mut customers = Vec::with_capacity(self.customers.len());
        while let Some((key, mut customer)) = self.customers.pop_first() {
            if let Some(active) = &self.active {
                walk(active, &key, &mut customer, clock, &mut self.flags);
            }
            customers.push((key, layout::encode(&customer.state)));
        }
        Expected {
            partition: self.partition,
            facts: self.facts,
            customers,
            flags: self.flags,
            events: self.events,
            given: self.given,
            taken: self.taken,
            unlike: self.unlike,
        }
    }

    fn activate(&mut self, position: Position, model: &str, policies: &str) -> Result<(), Fault> {
        let fault = |reason: String| Fault::Activation { position, reason };
        let next = Active {
            model: Model::parse(model).map_err(|error| fault(error.to_string()))?,
            policies: PolicySet::parse(policies).map_err(|error| fault(error.to_string()))?,
        };
        let clock = self.facts.clock;
        for (key, customer) in &mut self.customers {
            if customer.looked.is_none() {
                continue;
            }
            if let Some(before) = &self.active {
                pass(self.shortcut, before, key, customer, clock, &mut self.flags);
            }
            look(&next, key, customer, Moment::of(clock), &mut self.flags);
        }
        self.facts.in_force = Some(InForce {
            model: next.model.fingerprint,
            policies: next.policies.fingerprint,
            at: position.offset,
        });
        self.active = Some(next);
        Ok(())
    }

    fn event(&mut self, cause: &mut Cause, into: Option<PersonId>, event: Box<Event>) -> Result<(), Fault> {
        let clock = self.facts.clock;
        let one = Books::default();
        if self.aside == Some(cause.position) {
            self.book(&event.workspace, Books { dead_letter: 1, ..one });
            return Ok(());
        }
        let Some(identity) = event.person.key().cloned() else {
            self.book(&event.workspace, Books { dead_letter: 1, ..one });
            return Ok(());
        };
        let owner = into.unwrap_or_else(|| identity.clone());
        if partition_for(owner.as_str(), self.partitions) != self.partition {
            self.give(cause, &owner.clone(), Body::Forward(Forward { into: owner, event }));
            return Ok(());
        }
        let key = CustomerKey::new(event.workspace.clone(), owner);
        if event.signal == Signal::Unlink && identity == key.person {
            self.leave(cause, &key, &event);
        }
        if let Some(target) = self.customers.get(&key).and_then(|known| known.state.linked_to.clone()) {
            self.give(cause, &target.clone(), Body::Forward(Forward { into: target, event }));
            return Ok(());
        }
        let Some(active) = &self.active else {
            return Err(Fault::NoModel(cause.position));
        };
        let customer = self.customers.entry(key.clone()).or_default();
        let met = customer.state.recent.met(&event.id, event.fingerprint);
        if met == Met::SameContent {
            self.book(&event.workspace, Books { duplicate: 1, ..one });
            return Ok(());
        }
        pass(self.shortcut, active, &key, customer, clock, &mut self.flags);
        let (signal, channel) = judgement::signal(&event);
        let at = judgement::time(&event);
        let agent = self.judge.agent(signal, event.client.user_agent.as_deref());
        let silence = active.policies.silence.of(&key.workspace);
        let refuses = |purpose: Purpose| {
            let own = event.consent.get(&purpose).copied();
            let word = own
                .or_else(|| customer.state.word(purpose))
                .or_else(|| silence.about(purpose));
            word == Some(ConsentState::Refused)
        };
        let opened = matches!(signal, Signal::EmailOpen | Signal::EmailMachineOpen);
        let refused = refuses(Purpose::Profiling) || (opened && refuses(Purpose::EmailOpenTracking));
        let doubt = judgement::doubt(&event, signal, at, &agent, &customer.state.acts).filter(|_| !refused);
        let suppressed = refused || doubt.is_some();
        let full = customer.state.parts.len() >= PARTS && !customer.state.parts.contains_key(&identity);
        if !suppressed && full {
            // The record changes without a look: what silence had shown by now must be settled first.
            walk(active, &key, customer, clock, &mut self.flags);
        }
        customer.state.last_received = customer.state.last_received.max(clock);
        let said_at = event
            .occurred_at
            .map_or(event.received_at, |at| at.min(event.received_at));
        for (purpose, word) in &event.consent {
            // A word about marketing is what is doubted, if anything is.
            if doubt.is_none() || *purpose != Purpose::Marketing {
                customer.state.say_as(&identity, *purpose, said_at, *word);
            }
        }
        if let Some(doubt) = doubt {
            let _ = customer.state.held.insert((at, identity.clone(), signal, doubt));
            customer.state.answer();
        }
        let mut links = Vec::new();
        let mut moment = Moment::of(clock);
        let outcome = if suppressed {
            Books { suppressed: 1, ..one }
        } else if full {
            self.book(&event.workspace, Books { dead_letter: 1, ..one });
            return Ok(());
        } else {
            moment.purchase = signal.is_purchase().then_some(at);
            let act = Act {
                at,
                signal,
                channel,
                money: event.money,
                human: agent.is_human(),
            };
            customer
                .state
                .count(identity.clone(), &act, agent.human_permille, judgement::link(&event));
            if let Some(part) = customer.state.parts.get_mut(&identity) {
                part.cite(&act, &event.id);
            }
            if signal == Signal::QuarantineDismissed {
                customer.state.dismissed = customer.state.dismissed.max(Some(at));
                customer.state.answer();
            }
            let flag = event.order.as_deref().and_then(FlagId::parse);
            contact::note(&mut customer.state, signal, channel, at, flag);
            let company = event.order.as_deref().filter(|_| signal == Signal::Group);
            let company = company.and_then(|id| AccountId::new(id).ok());
            customer.state.belong(company.map(|id| (at, id)));
            customer.state.recent.forget_before(clock.plus_ms(-REMEMBERED_MS));
            customer
                .state
                .recent
                .remember(&event.id, event.fingerprint, event.received_at);
            for (from, to) in judgement::links(signal, &event.person) {
                let other = if from == key.person { &to } else { &from };
                if customer.state.link(other) {
                    links.push((from, to));
                }
            }
            Books {
                applied: 1,
                conflict: u64::from(met == Met::OtherContent),
                ..one
            }
        };
        look(active, &key, customer, moment, &mut self.flags);
        self.book(&event.workspace, outcome);
        for (from, to) in links {
            let link = Link {
                workspace: key.workspace.clone(),
                from: from.clone(),
                to,
                at: clock,
                by: event.id.clone(),
            };
            self.give(cause, &from, Body::Link(link));
        }
        Ok(())
    }

    /// A record is given up: what was gathered goes to the other identity, a signpost stays.
    fn link(&mut self, cause: &mut Cause, link: Link) -> Result<(), Fault> {
        let clock = self.facts.clock;
        let Link {
            workspace,
            from,
            to,
            at,
            by,
        } = link;
        let key = CustomerKey::new(workspace.clone(), from.clone());
        let known = self.customers.get(&key);
        if known.is_some_and(|known| known.state.withdrawn.contains(&to)) {
            return Ok(());
        }
        let pointed = self.customers.get(&key).and_then(|known| known.state.linked_to.clone());
        match pointed {
            Some(target) if target == to => {}
            // A device that two known customers use makes them no one person.
            Some(target) if target.is_known() && to.is_known() && !from.is_known() => {}
            Some(target) => {
                let (from, to) = if target > to { (target, to) } else { (to, target) };
                let next = Link {
                    workspace,
                    from: from.clone(),
                    to,
                    at,
                    by,
                };
                self.give(cause, &from, Body::Link(next));
            }
            None => {
                let customer = self.customers.entry(key.clone()).or_default();
                if let Some(active) = &self.active {
                    // What is published travels along, so the looks must have been taken one by one.
                    walk(active, &key, customer, clock, &mut self.flags);
                }
                customer.looked = None;
                let signpost = State {
                    linked_to: Some(to.clone()),
                    last_received: customer.state.last_received,
                    withdrawn: std::mem::take(&mut customer.state.withdrawn),
                    ..State::default()
                };
                customer.state.give(&from, &to);
                let gathered = State {
                    timer: None,
                    rank: None,
                    ..std::mem::replace(&mut customer.state, signpost)
                };
                let merge = Merge {
                    workspace,
                    from,
                    into: to.clone(),
                    at,
                    by,
                    parts: vec![MergePart {
                        state: layout::encode(&gathered),
                    }],
                };
                self.give(cause, &to, Body::Merge(merge));
            }
        }
        Ok(())
    }

    fn merge(&mut self, cause: &mut Cause, merge: Merge) -> Result<(), Fault> {
        let clock = self.facts.clock;
        let key = CustomerKey::new(merge.workspace.clone(), merge.into.clone());
        if let Some(target) = self.customers.get(&key).and_then(|known| known.state.linked_to.clone()) {
            let on = Merge {
                into: target.clone(),
                ..merge
            };
            self.give(cause, &target, Body::Merge(on));
            return Ok(());
        }
        let Some(active) = &self.active else {
            return Err(Fault::NoModel(cause.position));
        };
        let customer = self.customers.entry(key.clone()).or_default();
        pass(self.shortcut, active, &key, customer, clock, &mut self.flags);
        for part in &merge.parts {
            // Only a record that points nowhere is ever given up.
            let gathered = layout::decode(&part.state).filter(|gathered| gathered.linked_to.is_none());
            customer.state.take_in(gathered.ok_or(Fault::Merge(cause.position))?);
        }
        let _ = customer.state.link(&merge.from);
        customer.state.settle();
        look(active, &key, customer, Moment::of(clock), &mut self.flags);
        Ok(())
    }

    /// A link is withdrawn: the identity stands for itself again, and asks for what is its own.
    fn leave(&mut self, cause: &mut Cause, key: &CustomerKey, event: &Event) {
        let Some(customer) = self.customers.get_mut(key) else {
            return;
        };
        let Some(linked_to) = customer.state.linked_to.take() else {
            return;
        };
        customer.state.withdraw(&linked_to);
        let release = Release {
            workspace: key.workspace.clone(),
            identity: key.person.clone(),
            linked_to: linked_to.clone(),
            holder: linked_to.clone(),
            at: event.received_at,
            by: event.id.clone(),
        };
        self.give(cause, &linked_to, Body::Release(release));
    }

    /// What is an identity's own goes back to it.
    fn release(&mut self, cause: &mut Cause, release: Release) -> Result<(), Fault> {
        let clock = self.facts.clock;
        let key = CustomerKey::new(release.workspace.clone(), release.holder.clone());
        if let Some(holder) = self.customers.get(&key).and_then(|known| known.state.linked_to.clone()) {
            self.give(cause, &holder.clone(), Body::Release(Release { holder, ..release }));
            return Ok(());
        }
        let Some(active) = &self.active else {
            return Err(Fault::NoModel(cause.position));
        };
        let customer = self.customers.entry(key.clone()).or_default();
        pass(self.shortcut, active, &key, customer, clock, &mut self.flags);
        let gone = customer.state.release(&release.identity);
        look(active, &key, customer, Moment::of(clock), &mut self.flags);
        let merge = Merge {
            workspace: release.workspace,
            from: release.linked_to,
            into: release.identity.clone(),
            at: release.at,
            by: release.by,
            parts: vec![MergePart {
                state: layout::encode(&gone),
            }],
        };
        self.give(cause, &release.identity, Body::Merge(merge));
        Ok(())
    }

    fn book(&mut self, workspace: &Workspace, outcome: Books) {
        self.events += 1;
        match self.facts.books.get_mut(workspace) {
            Some(books) => books.add(&outcome),
            None => {
                let _ = self.facts.books.insert(workspace.clone(), outcome);
            }
        }
    }

    /// Notes that the record being folded must have appended another one.
    fn give(&mut self, cause: &mut Cause, person: &PersonId, body: Body) {
        let target = partition_for(person.as_str(), self.partitions);
        let index = cause.given.entry(target).or_default();
        let origin = Origin {
            position: cause.position,
            index: *index,
        };
        *index = index.saturating_add(1);
        let record = Record {
            origin: Some(origin),
            body,
        };
        if let Some(derived) = derived(&record) {
            let _ = self.given.insert((target, origin), derived);
        }
    }

    /// Notes that the log holds a derived record. Two of one origin must be the same: a step was repeated.
    fn note(&mut self, origin: Origin, record: &Record) {
        if let Some(derived) = derived(record) {
            let known = self.taken.entry(origin).or_insert_with(|| derived.clone());
            if *known != derived {
                self.unlike.push((origin, derived));
            }
        }
    }
}

/// Recomputes every partition from records in any interleaving of the partitions, each in the order of its offsets. Records at
/// or beyond a partition's cut are not folded.
pub fn recompute(
    partitions: u16,
    cut: &BTreeMap<Partition, Offset>,
    records: impl IntoIterator<Item = (Position, Record)>,
) -> Result<Vec<Expected>, Fault> {
    let mut oracles = BTreeMap::new();
    for partition in (0..partitions).map(Partition) {
        let _ = oracles.insert(partition, Oracle::new(partition, partitions)?);
    }
    for (position, record) in records {
        let Some(oracle) = oracles.get_mut(&position.partition) else {
            return Err(Fault::Records(format!("{position} is in no partition")));
        };
        match cut.get(&position.partition) {
            Some(cut) if position.offset < *cut => oracle.fold(position, record)?,
            _ => oracle.beyond(&record),
        }
    }
    Ok(oracles.into_values().map(Oracle::finish).collect())
}

/// A step in time, by the shortcut or without.
fn pass(
    shortcut: bool,
    active: &Active,
    key: &CustomerKey,
    customer: &mut Customer,
    until: Timestamp,
    flags: &mut Flags,
) {
    if shortcut {
        leap(active, key, customer, until, flags);
    } else {
        walk(active, key, customer, until, flags);
    }
}

/// What is compared of a derived record.
fn derived(record: &Record) -> Option<Derived> {
    let (kind, workspace, person) = match &record.body {
        Body::Link(link) => ("link", &link.workspace, &link.from),
        Body::Merge(merge) => ("merge", &merge.workspace, &merge.into),
        Body::Release(release) => ("release", &release.workspace, &release.holder),
        Body::Forward(forward) => ("forward", &forward.event.workspace, &forward.into),
        Body::Event(_) | Body::Tick(_) | Body::Control(_) => return None,
    };
    let customer = CustomerKey::new(workspace.clone(), person.clone());
    let bytes = match &record.body {
        Body::Forward(Forward { into, event }) if !event.payload.is_empty() => Record {
            origin: record.origin,
            body: Body::Forward(Forward {
                into: into.clone(),
                event: Box::new(Event {
                    payload: Box::default(),
                    ..Event::clone(event)
                }),
            }),
        }
        .encode(),
        // A record travels in the bytes of the release that gave it up.
        Body::Merge(merge) => Record {
            origin: record.origin,
            body: Body::Merge(Merge {
                parts: merge
                    .parts
                    .iter()
                    .map(|part| MergePart {
                        state: layout::current(&part.state).into_owned(),
                    })
                    .collect(),
                ..merge.clone()
            }),
        }
        .encode(),
        _ => record.encode(),
    };
    Some(Derived {
        kind,
        customer,
        digest: Sha256::digest(&bytes).into(),
    })
}
