//! What a store means, written once over ordered rows: how a commit becomes changed rows, and how each list is
//! read. The two stores differ only in where the rows lie and when they are durable. No I/O of its own, no locks.

use crate::{Commit, CommitReceipt, RankCursor, StoreError, keys};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{CustomerKey, FlagId, Offset, Partition, Timestamp, Workspace, partition_for};

/// A consistent view of ordered rows.
pub(crate) trait Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The rows from `lower` (inclusive) to `upper` (exclusive); nothing if that is no range.
    fn range(
        &self,
        lower: Vec<u8>,
        upper: Vec<u8>,
    ) -> impl DoubleEndedIterator<Item = Result<(Bytes, Bytes), StoreError>>;
}

/// Changed rows, each key once: a value to write, or `None` to remove the row.
pub(crate) type Changes = BTreeMap<Vec<u8>, Option<Bytes>>;

/// Turns a commit into changed rows, or refuses it before anything is changed.
pub(crate) fn plan(rows: &impl Rows, commit: Commit, partitions: u16) -> Result<(Changes, CommitReceipt), StoreError> {
    check_routing(&commit, partitions)?;
    check_owner(rows, &commit)?;
    let mut changes = Changes::new();
    let mut set = |key: Vec<u8>, value: Option<Bytes>| drop(changes.insert(key, value));
    for (partition, meta) in commit.partitions {
        set(keys::meta(partition), Some(meta));
    }
    for write in commit.customers {
        for due in write.stale_timers {
            set(keys::timer(write.partition, due, &write.key), None);
        }
        if write.previous_timer != write.timer {
            if let Some(due) = write.previous_timer {
                set(keys::timer(write.partition, due, &write.key), None);
            }
            if let Some(due) = write.timer {
                set(keys::timer(write.partition, due, &write.key), Some(Bytes::new()));
            }
        }
        if write.previous_rank != write.rank {
            if let Some(rank) = write.previous_rank {
                set(keys::rank(rank, &write.key), None);
            }
            if let Some(rank) = write.rank {
                set(keys::rank(rank, &write.key), Some(Bytes::new()));
            }
        }
        set(keys::customer(write.partition, &write.key), Some(write.bytes));
    }
    for (partition, from, run) in commit.judged {
        set(keys::judged(partition, from), Some(run));
    }
    let mut receipt = CommitReceipt::default();
    let mut last_of: BTreeMap<Workspace, u64> = BTreeMap::new();
    let mut minted = BTreeSet::new();
    for row in commit.flags {
        let id_key = keys::flag_id(&row.workspace, &row.id);
        if minted.contains(&id_key) || rows.get(&id_key)?.is_some() {
            continue;
        }
        let last = match last_of.get(&row.workspace) {
            Some(last) => *last,
            None => last_flag(rows, &row.workspace)?,
        };
        let sequence = last + 1;
        set(keys::flag(&row.workspace, sequence), Some(row.body));
        set(id_key.clone(), Some(number(sequence)));
        let _before = last_of.insert(row.workspace, sequence);
        let _new: bool = minted.insert(id_key);
        receipt.flags_inserted.push(row.id);
    }
    Ok((changes, receipt))
}

/// The next epoch, and the rows that give it the partitions.
pub(crate) fn plan_claim(
    rows: &impl Rows,
    wanted: &[Partition],
    partitions: u16,
) -> Result<(Changes, u64), StoreError> {
    if let Some(&partition) = wanted.iter().find(|p| p.0 >= partitions) {
        return Err(StoreError::Misrouted { partition });
    }
    let epoch = read_number(rows, keys::LAST_EPOCH)? + 1;
    let owners = wanted.iter().map(|partition| keys::owner(*partition));
    let changes = owners
        .chain([keys::LAST_EPOCH.to_vec()])
        .map(|key| (key, Some(number(epoch))))
        .collect();
    Ok((changes, epoch))
}

/// The same for who owns the partitions with `epoch`.
pub(crate) fn plan_renewal(
    rows: &impl Rows,
    epoch: u64,
    held: &[Partition],
    partitions: u16,
) -> Result<(Changes, u64), StoreError> {
    check_owned(rows, epoch, held.iter().copied())?;
    plan_claim(rows, held, partitions)
}

pub(crate) fn load(rows: &impl Rows, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StoreError> {
    keys.iter().map(|key| rows.get(key)).collect()
}

/// The row keys of customers, in the partitions that their persons live in.
pub(crate) fn customer_keys(keys: &[CustomerKey], partitions: u16) -> Vec<Vec<u8>> {
    keys.iter().map(|key| customer_key(key, partitions)).collect()
}

/// Timers of a partition from `from` on, earliest first. The caller stops where it wants.
pub(crate) fn timers(
    rows: &impl Rows,
    partition: Partition,
    from: Timestamp,
) -> impl Iterator<Item = Result<(Timestamp, CustomerKey), StoreError>> {
    rows.range(
        keys::timers_from(partition, from),
        keys::above(&keys::timers_in(partition)),
    )
    .map(|row| keys::read_timer(&row?.0))
}

/// Customers under a prefix, behind the row key `after`.
pub(crate) fn customers_under(
    rows: &impl Rows,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    limit: usize,
) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
    under(rows, prefix, after)
        .take(limit)
        .map(|row| row.and_then(|(key, bytes)| Ok((keys::read_customer(&key)?, bytes))))
        .collect()
}

/// Customers of a workspace in key order: the partitions' lists, merged.
pub(crate) fn customers(
    rows: &impl Rows,
    workspace: &Workspace,
    after: Option<&CustomerKey>,
    limit: usize,
    partitions: u16,
) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
    let mut iterators = Vec::new();
    for partition in (0..partitions).map(Partition) {
        let cursor = after.map(|key| keys::customer(partition, key));
        iterators.push(under(rows, keys::customers_of(partition, workspace), cursor));
    }
    // The head of each partition's list, smallest key first; the number says whose head it was.
    let mut heads = BTreeMap::new();
    let mut merged = Vec::new();
    for (index, iterator) in iterators.iter_mut().enumerate() {
        if let Some(row) = iterator.next() {
            let (key, bytes) = row?;
            drop(heads.insert(keys::read_customer(&key)?, (index, bytes)));
        }
    }
    while merged.len() < limit
        && let Some((key, (index, bytes))) = heads.pop_first()
    {
        merged.push((key, bytes));
        if let Some(row) = iterators.get_mut(index).and_then(Iterator::next) {
            let (key, bytes) = row?;
            drop(heads.insert(keys::read_customer(&key)?, (index, bytes)));
        }
    }
    Ok(merged)
}

pub(crate) fn at_risk(
    rows: &impl Rows,
    workspace: &Workspace,
    after: Option<&RankCursor>,
    limit: usize,
    partitions: u16,
) -> Result<Vec<(u16, CustomerKey, Bytes)>, StoreError> {
    let cursor = after.map(|cursor| keys::rank(cursor.rank, &cursor.key));
    let mut list = Vec::new();
    for row in under(rows, keys::ranks_of(workspace), cursor) {
        if list.len() >= limit {
            break;
        }
        let (rank, key) = keys::read_rank(&row?.0, workspace)?;
        // A rank and its record are written together, so a rank without a record is damage, not absence.
        let bytes = rows.get(&customer_key(&key, partitions))?;
        let missing = || StoreError::Corrupt {
            reason: format!("rank of {key} has no record"),
        };
        let bytes = bytes.ok_or_else(missing)?;
        list.push((rank, key, bytes));
    }
    Ok(list)
}

pub(crate) fn flags(
    rows: &impl Rows,
    workspace: &Workspace,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, Bytes)>, StoreError> {
    under(rows, keys::flags_of(workspace), Some(keys::flag(workspace, after)))
        .take(limit)
        .map(|row| row.and_then(|(key, body)| Ok((keys::read_flag(&key)?, body))))
        .collect()
}

/// Flags of all workspaces, after the given one.
pub(crate) fn all_flags(
    rows: &impl Rows,
    after: Option<&(Workspace, u64)>,
    limit: usize,
) -> Result<Vec<(Workspace, u64, Bytes)>, StoreError> {
    let after = after.map(|(workspace, number)| keys::flag(workspace, *number));
    under(rows, keys::ALL_FLAGS.to_vec(), after)
        .take(limit)
        .map(|row| {
            let (key, body) = row?;
            let (workspace, number) = keys::read_flag_of(&key)?;
            Ok((workspace, number, body))
        })
        .collect()
}

/// Runs of judgements of a partition, from the one that holds `from` on.
pub(crate) fn judged(
    rows: &impl Rows,
    partition: Partition,
    from: Offset,
    limit: usize,
) -> Result<Vec<(Offset, Bytes)>, StoreError> {
    let prefix = keys::judged_in(partition);
    // The run that holds an offset is the last one that begins at or before it.
    let holding = rows
        .range(prefix.clone(), keys::after(keys::judged(partition, from)))
        .next_back()
        .transpose()?;
    let lower = holding.map_or_else(|| keys::judged(partition, from), |(key, _)| key.to_vec());
    rows.range(lower, keys::above(&prefix))
        .take(limit)
        .map(|row| row.and_then(|(key, run)| Ok((keys::read_judged(&key)?, run))))
        .collect()
}

/// The rows that forget all runs below the given offsets but the last one below, which may reach beyond.
pub(crate) fn plan_forget(rows: &impl Rows, below: &[(Partition, Offset)]) -> Result<Changes, StoreError> {
    let mut changes = Changes::new();
    for (partition, below) in below {
        let mut keys = rows
            .range(keys::judged_in(*partition), keys::judged(*partition, *below))
            .map(|row| row.map(|(key, _)| key.to_vec()))
            .collect::<Result<Vec<_>, _>>()?;
        let _reaches_beyond = keys.pop();
        changes.extend(keys.into_iter().map(|key| (key, None)));
    }
    Ok(changes)
}

pub(crate) fn flag(rows: &impl Rows, workspace: &Workspace, id: &FlagId) -> Result<Option<Bytes>, StoreError> {
    let Some(bytes) = rows.get(&keys::flag_id(workspace, id))? else {
        return Ok(None);
    };
    let sequence = keys::read_number(&bytes)?;
    let missing = || StoreError::Corrupt {
        reason: format!("flag {id} has no row {sequence}"),
    };
    rows.get(&keys::flag(workspace, sequence))?
        .ok_or_else(missing)
        .map(Some)
}

fn customer_key(key: &CustomerKey, partitions: u16) -> Vec<u8> {
    keys::customer(partition_for(key.person.as_str(), partitions), key)
}

fn under(
    rows: &impl Rows,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
) -> impl DoubleEndedIterator<Item = Result<(Bytes, Bytes), StoreError>> {
    let upper = keys::above(&prefix);
    let lower = match after {
        Some(key) => keys::after(key).max(prefix),
        None => prefix,
    };
    rows.range(lower, upper)
}

fn last_flag(rows: &impl Rows, workspace: &Workspace) -> Result<u64, StoreError> {
    match under(rows, keys::flags_of(workspace), None).next_back() {
        Some(row) => keys::read_flag(&row?.0),
        None => Ok(0),
    }
}

fn read_number(rows: &impl Rows, key: &[u8]) -> Result<u64, StoreError> {
    rows.get(key)?.map_or(Ok(0), |bytes| keys::read_number(&bytes))
}

fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// Refuses a commit that names a partition wrongly.
pub(crate) fn check_routing(commit: &Commit, partitions: u16) -> Result<(), StoreError> {
    let strange_meta = commit
        .partitions
        .iter()
        .map(|(partition, _)| *partition)
        .chain(commit.flags.iter().map(|row| row.partition))
        .chain(commit.judged.iter().map(|(partition, ..)| *partition))
        .find(|p| p.0 >= partitions);
    let strange_customer = commit
        .customers
        .iter()
        .find(|write| write.partition != partition_for(write.key.person.as_str(), partitions))
        .map(|write| write.partition);
    match strange_meta.or(strange_customer) {
        Some(partition) => Err(StoreError::Misrouted { partition }),
        None => Ok(()),
    }
}

/// Refuses a commit of anybody but the last claimer of every partition that it touches.
fn check_owner(rows: &impl Rows, commit: &Commit) -> Result<(), StoreError> {
    let meta = commit.partitions.iter().map(|(partition, _)| *partition);
    let touched: BTreeSet<_> = meta
        .chain(commit.customers.iter().map(|write| write.partition))
        .chain(commit.flags.iter().map(|row| row.partition))
        .chain(commit.judged.iter().map(|(partition, ..)| *partition))
        .collect();
    check_owned(rows, commit.epoch, touched)
}

fn check_owned(
    rows: &impl Rows,
    epoch: u64,
    partitions: impl IntoIterator<Item = Partition>,
) -> Result<(), StoreError> {
    for partition in partitions {
        let owner = read_number(rows, &keys::owner(partition))?;
        if (owner == 0 || owner != epoch) && !vigie_failpoint::mutant("epoch_check_off") {
            return Err(StoreError::Fenced {
                partition,
                owner,
                epoch,
            });
        }
    }
    Ok(())
}
