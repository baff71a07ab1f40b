//! The archive as a replay reads it: how many partitions its log has, which models and policies were in force when, and
//! its events in the order of their receipt. It never folds a record, and it opens the archive for reading only.
//!
//! # The order of events
//!
//! A partition's time is the latest `received_at` of its events so far, as for the worker. Events of one flush come in
//! ascending order of (that time, partition, offset): an exact merge over the partitions, in which each partition keeps
//! the order of the log. Flushes come in the order in which they were written. Their times overlap only by as much as one
//! partition was archived ahead of another, which is what a live worker sees too when it reads partitions in turn; such
//! an event comes after those of the earlier flush, and can only be noticed by customers with identities in both
//! partitions. With a condition in SQL, an event that was forwarded to another identity is read where it arrived.

use crate::cli::Failure;
use anyhow::{Result, anyhow};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vigie_archive::sql::Filter;
use vigie_archive::{Archive, ArchiveError, Archived, Flush, Mode, Place, Reader, Wanted};
use vigie_event::{
    Body, Control, CustomerKey, Event, Offset, Partition, PersonId, Position, Record, Timestamp, Workspace,
};

/// An open archive.
pub(super) struct Source {
    pub(super) archive: Archive,
    /// As the arguments name it.
    pub(super) name: String,
    /// Partitions of the log. A log begins with an activation in every partition, so the archive holds all of them.
    pub(super) partitions: u16,
    flushes: Vec<Arc<Flush>>,
}

/// A model and policies that the log put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Activation {
    pub(super) at: Timestamp,
    pub(super) model: Arc<str>,
    pub(super) policies: Arc<str>,
}

/// Which events a replay takes.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) workspace: Option<Workspace>,
    /// Customers by name, with every identity that the log links to them.
    pub(super) people: Option<BTreeSet<CustomerKey>>,
    pub(super) filter: Option<Filter>,
}

/// An event and when its partition had seen it.
#[derive(Debug, Clone)]
pub(super) struct Dated {
    /// The partition's time with this event.
    pub(super) clock: Timestamp,
    pub(super) position: Position,
    pub(super) event: Event,
    /// The log record's bytes, if they were wanted and the row is the event itself.
    pub(super) bytes: Option<Bytes>,
}

/// An archive's error, by whose move it is.
pub(super) fn failure(error: ArchiveError) -> Failure {
    if error.class() == "user" {
        super::usage(error)
    } else {
        Failure::Work(error.into())
    }
}

impl Source {
    pub(super) async fn open(name: &str) -> Result<Self, Failure> {
        let place = Place::parse(name).map_err(failure)?;
        let archive = Archive::open(place, Mode::Read, u16::MAX)
            .await
            .map_err(|error| match failure(error) {
                Failure::Work(error) => Failure::Work(error.context(format!("the archive {name} cannot be read"))),
                other => other,
            })?;
        let flushes = archive.flushes();
        let ranges = flushes.iter().flat_map(|flush| &flush.ranges);
        let held: BTreeSet<Partition> = ranges.map(|range| range.partition).collect();
        let Some(last) = held.last().copied() else {
            return Err(anyhow!("the archive {name} is empty: nothing has been written into it yet").into());
        };
        let partitions = last.0.saturating_add(1);
        if let Some(missing) = (0..partitions)
            .map(Partition)
            .find(|partition| !held.contains(partition))
        {
            return Err(anyhow!(
                "the archive {name} holds nothing of partition {missing} yet; try again after its next flush"
            )
            .into());
        }
        Ok(Self {
            archive,
            name: name.to_owned(),
            partitions,
            flushes,
        })
    }

    /// Rows of all flushes.
    pub(super) fn rows(&self) -> u64 {
        self.flushes.iter().map(|flush| flush.rows).sum()
    }

    /// The latest time of a record.
    pub(super) fn latest(&self) -> Timestamp {
        self.archive.totals().latest.unwrap_or_default()
    }

    /// Where reading may stop when no record after `to` counts: at the first flush that holds later ones only.
    pub(super) fn until(&self, to: Option<Timestamp>) -> BTreeMap<Partition, Offset> {
        let mut until = BTreeMap::new();
        let Some(to) = to else { return until };
        for flush in &self.flushes {
            let later = |at: Option<Timestamp>| at.is_some_and(|at| at > to);
            if flush.files.iter().all(|file| later(file.min_recorded_at)) {
                for range in &flush.ranges {
                    let _ = until.entry(range.partition).or_insert(range.from);
                }
            }
        }
        until
    }

    /// Where reading may begin when no record before `from` counts.
    fn since(&self, from: Timestamp) -> BTreeMap<Partition, Offset> {
        let mut since = BTreeMap::new();
        for flush in &self.flushes {
            let earlier = |at: Option<Timestamp>| at.is_some_and(|at| at < from);
            if !flush.files.iter().all(|file| earlier(file.max_recorded_at)) {
                break;
            }
            since.extend(flush.ranges.iter().map(|range| (range.partition, range.to)));
        }
        since
    }

    /// What the log put in force, in order. Every partition holds the same activations, so one is read.
    pub(super) async fn activations(&self) -> Result<Vec<Activation>> {
        let mut reader = self.archive.read(Wanted {
            partitions: Some(BTreeSet::from([Partition(0)])),
            ..Wanted::default()
        });
        let mut found = Vec::new();
        while let Some(rows) = reader.next().await? {
            for row in rows {
                if let Ok(Record {
                    body: Body::Control(Control::Activate { at, model, policies }),
                    ..
                }) = row.record
                {
                    found.push(Activation {
                        at,
                        model: model.into(),
                        policies: policies.into(),
                    });
                }
            }
        }
        if found.is_empty() {
            return Err(anyhow!(
                "the archive {} holds no activation of a model and policies",
                self.name
            ));
        }
        Ok(found)
    }

    /// The named customers with all identities that the log links to them. A device that several known customers share
    /// does not make them one.
    pub(super) async fn identities(
        &self,
        names: &[PersonId],
        workspace: Option<&Workspace>,
    ) -> Result<BTreeSet<CustomerKey>> {
        let mut links: BTreeMap<CustomerKey, BTreeSet<PersonId>> = BTreeMap::new();
        let mut workspaces = BTreeSet::new();
        let mut reader = self.archive.read(Wanted::default());
        while let Some(rows) = reader.next().await? {
            for record in rows.into_iter().filter_map(|row| row.record.ok()) {
                match record.body {
                    Body::Event(event) if !workspaces.contains(&event.workspace) => {
                        let _ = workspaces.insert(event.workspace);
                    }
                    Body::Link(link) => {
                        let mut add = |of: &PersonId, other: &PersonId| {
                            let key = CustomerKey::new(link.workspace.clone(), of.clone());
                            let _ = links.entry(key).or_default().insert(other.clone());
                        };
                        add(&link.from, &link.to);
                        add(&link.to, &link.from);
                    }
                    _ => {}
                }
            }
        }
        let wanted = workspaces
            .into_iter()
            .filter(|of| workspace.is_none_or(|only| only == of));
        let mut open: Vec<(CustomerKey, bool)> = wanted
            .flat_map(|of| {
                names
                    .iter()
                    .map(move |name| (CustomerKey::new(of.clone(), name.clone()), true))
            })
            .collect();
        let mut found = BTreeSet::new();
        while let Some((key, named)) = open.pop() {
            for other in links.get(&key).into_iter().flatten() {
                let shares_a_device = !key.person.is_known() && other.is_known() && !named;
                let next = CustomerKey::new(key.workspace.clone(), other.clone());
                if !shares_a_device && !found.contains(&next) {
                    open.push((next, false));
                }
            }
            let _ = found.insert(key);
        }
        Ok(found)
    }

    /// The selected events up to `to`, flush by flush. With `exact`, with payloads and the log's own bytes. With
    /// `checked`, every file is compared with its checksum first.
    pub(super) fn events(&self, selection: &Selection, to: Timestamp, checked: bool, exact: bool) -> Events {
        let wanted = Wanted {
            until: self.until(Some(to)),
            payload: exact,
            bytes: exact,
            checked,
            filter: selection.filter.clone(),
            ..Wanted::default()
        };
        Events {
            reader: self.archive.read(wanted),
            flushes: self.flushes.clone(),
            flush: 0,
            ahead: None,
            clocks: BTreeMap::new(),
            to,
            selection: selection.clone(),
        }
    }

    /// Reads events of the selection with what became of them, from about `from` on and in no particular order.
    pub(super) fn judged(&self, selection: &Selection, from: Timestamp, to: Timestamp) -> Reader {
        self.archive.read(Wanted {
            from: self.since(from),
            until: self.until(Some(to)),
            judgement: true,
            checked: false,
            filter: selection.filter.clone(),
            ..Wanted::default()
        })
    }
}

impl Selection {
    /// Whether the event is taken; the condition in SQL has been asked by the archive already.
    pub(super) fn takes(&self, event: &Event) -> bool {
        if self.workspace.as_ref().is_some_and(|only| *only != event.workspace) {
            return false;
        }
        let Some(people) = &self.people else { return true };
        let listed = |person: PersonId| people.contains(&CustomerKey::new(event.workspace.clone(), person));
        let ids = &event.person;
        let named = [&ids.user, &ids.anonymous].into_iter().flatten().cloned().any(listed);
        named
            || ids.previous.as_ref().is_some_and(|previous| {
                listed(PersonId::Known(previous.clone())) || listed(PersonId::Anonymous(previous.clone()))
            })
    }

    /// The event of a row, if the replay takes it.
    pub(super) fn event_of(&self, body: Body) -> Option<Event> {
        let event = match body {
            Body::Event(event) => event,
            Body::Forward(forward) if self.filter.is_some() => forward.event,
            _ => return None,
        };
        self.takes(&event).then_some(*event)
    }
}

/// Events in the order of their receipt. See the top of this file.
pub(super) struct Events {
    reader: Reader,
    flushes: Vec<Arc<Flush>>,
    flush: usize,
    /// The first rows of the next flush.
    ahead: Option<Vec<Archived>>,
    clocks: BTreeMap<Partition, Timestamp>,
    to: Timestamp,
    selection: Selection,
}

impl Events {
    /// The events of the next flush (perhaps none), with the number of the archive's rows up to its end.
    pub(super) async fn next(&mut self) -> Result<Option<(Vec<Dated>, u64)>> {
        let first = match self.ahead.take() {
            Some(rows) => Some(rows),
            None => self.reader.next().await?,
        };
        let Some(mut rows) = first else { return Ok(None) };
        self.flush = self.flush_of(&rows);
        let mut events = Vec::new();
        loop {
            for row in rows {
                events.extend(self.dated(row)?);
            }
            match self.reader.next().await? {
                Some(more) if self.flush_of(&more) == self.flush => rows = more,
                ahead => {
                    self.ahead = ahead;
                    break;
                }
            }
        }
        // Each partition's events are in ascending order already, which makes of this sort a merge.
        events.sort_by_key(|dated| (dated.clock, dated.position));
        let done = self
            .flushes
            .iter()
            .take(self.flush.saturating_add(1))
            .map(|flush| flush.rows);
        Ok(Some((events, done.sum())))
    }

    /// The index of the flush that holds these rows: they never come from two.
    fn flush_of(&self, rows: &[Archived]) -> usize {
        let Some(Position { partition, offset }) = rows.first().map(|row| row.position) else {
            return self.flush;
        };
        let holds = |flush: &Arc<Flush>| {
            let mut ranges = flush.ranges.iter();
            ranges.any(|range| range.partition == partition && range.from <= offset && offset < range.to)
        };
        let later = self.flushes.iter().enumerate().skip(self.flush);
        later
            .filter(|(_, flush)| holds(flush))
            .map(|(at, _)| at)
            .next()
            .unwrap_or(self.flush)
    }

    fn dated(&mut self, row: Archived) -> Result<Option<Dated>> {
        let position = row.position;
        let record = row
            .record
            .map_err(|error| anyhow!("the record at {position} cannot be read: {error}"))?;
        let is_event = matches!(record.body, Body::Event(_));
        let Some(event) = self.selection.event_of(record.body) else {
            return Ok(None);
        };
        let clock = self.clocks.entry(position.partition).or_insert(event.received_at);
        *clock = event.received_at.max(*clock);
        Ok((*clock <= self.to).then_some(Dated {
            clock: *clock,
            position,
            event,
            bytes: row.bytes.filter(|_| is_event),
        }))
    }
}
