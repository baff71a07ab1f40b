//! What the worker does before it folds: reads what the log holds beyond the stored state, and puts model and policies in
//! force by control records. It folds nothing and commits nothing.

use crate::errors::WorkerError;
use crate::meta::{Active, Books, Meta, PartitionState};
use crate::worker::{DeadLetterSink, Worker, decode};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use vigie_event::{Body, Control, Offset, Origin, Partition, Position, Record, Timestamp, Workspace};
use vigie_ingestion::log::{Log, LogError, LogReader};
use vigie_store::Store;

impl<L: Log, S: Store, D: DeadLetterSink> Worker<L, S, D> {
    /// Makes sure that this model and these policies are in force, by control records wherever they are not; a model that was
    /// put in this one's place stays. Call it after a survey and before events are accepted: events folded earlier belong to
    /// what was in force then.
    pub async fn activate(&mut self, model: &str, policies: &str, at: Timestamp) -> Result<bool, WorkerError> {
        let position = Position {
            partition: Partition(0),
            offset: Offset(0),
        };
        let wanted = Active::parse(model, policies).map_err(|error| WorkerError::Control {
            position,
            reason: error.to_string(),
        })?;
        let record = |(partition, state): (&Partition, &PartitionState)| {
            let known = self.coming.get(partition).or(state.active.as_ref());
            let standing = known.filter(|known| known.model.stands_for(&wanted.model));
            let model = match standing {
                Some(known) if known.policies == wanted.policies => return None,
                Some(known) => &known.model.text,
                None => &wanted.model.text,
            };
            let body = Body::Control(Control::Activate {
                at,
                model: (&**model).into(),
                policies: policies.into(),
            });
            Some((*partition, Bytes::from(Record::new(body).encode())))
        };
        let records: Vec<_> = self.states.iter().filter_map(record).collect();
        if records.is_empty() {
            return Ok(false);
        }
        let _ = self.log.append(records).await?;
        Ok(true)
    }

    /// Reads the part of the log that is not folded yet: counts its events per workspace (the part of the books that is in
    /// flight) and notes what it will put in force.
    pub async fn survey(&mut self) -> Result<BTreeMap<Workspace, u64>, WorkerError> {
        let ahead = survey(&*self.log, &self.states).await?;
        self.coming.extend(ahead.coming);
        Ok(ahead.events)
    }
}

/// What a log holds beyond the stored state.
struct Ahead {
    /// Events by workspace.
    events: BTreeMap<Workspace, u64>,
    /// What will be put in force, by partition.
    coming: BTreeMap<Partition, Arc<Active>>,
}

/// The books as store and log tell them, for who has no worker: outcomes, and the events that are in the log and not folded
/// yet, by workspace. Both are of one look at each partition, so that no event is in both or in neither. It reads the log from
/// there on.
pub async fn ledger<L: Log, S: Store>(
    log: &L,
    store: &S,
) -> Result<(BTreeMap<Workspace, Books>, BTreeMap<Workspace, u64>), WorkerError> {
    let mut states = BTreeMap::new();
    let mut settled: BTreeMap<Workspace, Books> = BTreeMap::new();
    for partition in (0..store.partitions()).map(Partition) {
        let meta = match store.partition(partition).await? {
            Some(bytes) => Meta::decode(&bytes).ok_or(WorkerError::Meta { partition })?,
            None => Meta::default(),
        };
        for (workspace, books) in &meta.books {
            settled.entry(workspace.clone()).or_default().add(books);
        }
        let state = PartitionState {
            meta,
            active: None,
            since: None,
        };
        let _ = states.insert(partition, state);
    }
    Ok((settled, survey(log, &states).await?.events))
}

/// What the store has in force in the first partition, and the position of the record that says so; the other partitions are
/// given the same. `None` before anything was folded. `known` is an earlier answer: the log is read only when it is outdated.
pub async fn in_force<L: Log, S: Store>(
    log: &L,
    store: &S,
    known: Option<(Offset, Arc<Active>)>,
) -> Result<Option<(Offset, Arc<Active>)>, WorkerError> {
    let partition = Partition(0);
    let meta = match store.partition(partition).await? {
        Some(bytes) => Meta::decode(&bytes).ok_or(WorkerError::Meta { partition })?,
        None => Meta::default(),
    };
    let Some(offset) = meta.active.map(|active| active.at) else {
        return Ok(None);
    };
    if let Some(known) = known.filter(|(at, _)| *at == offset) {
        return Ok(Some(known));
    }
    let (active, _) = read_control(log, Position { partition, offset }).await?;
    Ok(Some((offset, Arc::new(active))))
}

/// Puts model and policies in force where a partition holds nothing at all: no event may stand before the first control
/// record. Whoever lets events in calls it first; that two do it at once is harmless.
pub async fn inaugurate<L: Log>(log: &L, model: &str, policies: &str, at: Timestamp) -> Result<bool, WorkerError> {
    let body = Body::Control(Control::Activate {
        at,
        model: model.into(),
        policies: policies.into(),
    });
    let bytes = Bytes::from(Record::new(body).encode());
    let empty = |end: &(u16, Offset)| end.1 == Offset(0);
    let records: Vec<_> = (0..)
        .zip(log.ends())
        .filter(empty)
        .map(|(partition, _)| (Partition(partition), bytes.clone()))
        .collect();
    if records.is_empty() {
        return Ok(false);
    }
    let _ = log.append(records).await?;
    Ok(true)
}

/// Puts model and policies in force in every partition, from where the log stands now. The texts must be valid: a worker that
/// meets others stops.
pub async fn put_in_force<L: Log>(log: &L, model: &str, policies: &str, at: Timestamp) -> Result<(), WorkerError> {
    let body = Body::Control(Control::Activate {
        at,
        model: model.into(),
        policies: policies.into(),
    });
    let bytes = Bytes::from(Record::new(body).encode());
    let records = (0..log.partitions()).map(|partition| (Partition(partition), bytes.clone()));
    let _ = log.append(records.collect()).await?;
    Ok(())
}

async fn survey<L: Log>(log: &L, states: &BTreeMap<Partition, PartitionState>) -> Result<Ahead, WorkerError> {
    let mut counts: BTreeMap<Workspace, u64> = BTreeMap::new();
    let ends = log.ends();
    let mut open: BTreeMap<Partition, Offset> = BTreeMap::new();
    for (partition, state) in states {
        let end = ends.get(usize::from(partition.0)).copied().unwrap_or_default();
        if state.meta.next < end {
            let _ = open.insert(*partition, state.meta.next);
        }
    }
    let mut coming = BTreeMap::new();
    if open.is_empty() {
        return Ok(Ahead { events: counts, coming });
    }
    // A step that was repeated after a crash may have appended its derived records twice: only the first counts, as in
    // the fold.
    let mut met: BTreeMap<(Partition, Partition), Origin> = BTreeMap::new();
    let mut reader = log.reader(open.clone())?;
    while !open.is_empty() {
        for entry in reader.next(10_000, 16 << 20, std::time::Duration::from_secs(1)).await? {
            let partition = entry.position.partition;
            let end = ends.get(usize::from(partition.0)).copied().unwrap_or_default();
            if entry.position.offset.next() >= end {
                let _ = open.remove(&partition);
            }
            if entry.position.offset >= end {
                continue;
            }
            let record = decode(&entry)?;
            if let Body::Control(Control::Activate { model, policies, .. }) = &record.body {
                let active = Active::parse(model, policies).map_err(|error| WorkerError::Control {
                    position: entry.position,
                    reason: error.to_string(),
                })?;
                let _ = coming.insert(partition, Arc::new(active));
            }
            let repeated = record.origin.is_some_and(|origin| {
                let key = (partition, origin.position.partition);
                let repeated = met.get(&key).is_some_and(|met| *met >= origin);
                if !repeated {
                    let _ = met.insert(key, origin);
                }
                repeated
            });
            let workspace = match &record.body {
                Body::Event(event) => Some(&event.workspace),
                // A forwarded event counts here unless its source will be read, and forwarded, again.
                Body::Forward(forward) => record
                    .origin
                    .filter(|origin| {
                        let source = states.get(&origin.position.partition);
                        let taken = states
                            .get(&partition)
                            .and_then(|state| state.meta.origins.get(&origin.position.partition));
                        !repeated
                            && source.is_some_and(|state| origin.position.offset < state.meta.next)
                            && taken.is_none_or(|taken| taken < origin)
                    })
                    .map(|_| &forward.event.workspace),
                _ => None,
            };
            if let Some(workspace) = workspace {
                *counts.entry(workspace.clone()).or_default() += 1;
            }
        }
    }
    Ok(Ahead { events: counts, coming })
}

/// Reads one control record of the log: what it puts in force, and when.
pub(crate) async fn read_control<L: Log>(log: &L, position: Position) -> Result<(Active, Timestamp), WorkerError> {
    let undecodable = |reason: &str| WorkerError::Undecodable {
        position,
        reason: reason.to_owned(),
    };
    let mut reader = log.reader(BTreeMap::from([(position.partition, position.offset)]))?;
    let entries = reader.next(1, 1, std::time::Duration::from_secs(5)).await?;
    let Some(entry) = entries.first() else {
        let ends = log.ends();
        let end = ends.get(usize::from(position.partition.0)).copied().unwrap_or_default();
        if position.offset >= end {
            return Err(undecodable("the control record is not in the log"));
        }
        // It is there, and brokers that are slow are waited for.
        let reason = format!("the control record at {position} was not read in time");
        return Err(LogError::Unavailable { reason }.into());
    };
    match decode(entry)?.body {
        Body::Control(Control::Activate { model, policies, at }) => match Active::parse(&model, &policies) {
            Ok(active) => Ok((active, at)),
            Err(error) => Err(WorkerError::Control {
                position,
                reason: error.to_string(),
            }),
        },
        _ => Err(undecodable(
            "the stored state names it as a control record, which it is not",
        )),
    }
}
