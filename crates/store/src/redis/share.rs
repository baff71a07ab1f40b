//! A commit, cut into its partitions' shares, and a share as the arguments of the script that applies it. Nothing here
//! talks to Redis.

use super::link::Argument;
use super::names::{Names, ranked};
use crate::{Commit, CustomerWrite, FlagRow, Projection, keys};
use bytes::Bytes;
use std::collections::BTreeMap;
use vigie_event::{CustomerKey, FlagId, Offset, Partition, Workspace};

/// What a commit does to one partition.
#[derive(Debug, Default)]
pub(crate) struct Share {
    meta: Option<Bytes>,
    customers: BTreeMap<CustomerKey, (Bytes, Projection)>,
    /// Members of the index, and whether they are there afterwards.
    timers: BTreeMap<Vec<u8>, bool>,
    /// The same per workspace, with the score that they have afterwards.
    ranks: BTreeMap<Workspace, BTreeMap<String, Option<u16>>>,
    judged: BTreeMap<Offset, Bytes>,
    pub(crate) flags: Vec<FlagRow>,
}

/// The shares of all partitions that the commit touches.
pub(crate) fn split(commit: Commit) -> BTreeMap<Partition, Share> {
    let mut shares: BTreeMap<Partition, Share> = BTreeMap::new();
    for (partition, meta) in commit.partitions {
        shares.entry(partition).or_default().meta = Some(meta);
    }
    for write in commit.customers {
        shares.entry(write.partition).or_default().take(write);
    }
    for (partition, from, run) in commit.judged {
        let _ = shares.entry(partition).or_default().judged.insert(from, run);
    }
    for flag in commit.flags {
        shares.entry(flag.partition).or_default().flags.push(flag);
    }
    shares
}

impl Share {
    fn take(&mut self, write: CustomerWrite) {
        let member = |due| keys::timer(write.partition, due, &write.key);
        for due in write.stale_timers {
            let _ = self.timers.insert(member(due), false);
        }
        if write.previous_timer != write.timer {
            if let Some(due) = write.previous_timer {
                let _ = self.timers.insert(member(due), false);
            }
            if let Some(due) = write.timer {
                let _ = self.timers.insert(member(due), true);
            }
        }
        if write.previous_rank != write.rank {
            let list = self.ranks.entry(write.key.workspace.clone()).or_default();
            let _ = list.insert(ranked(&write.key.person), write.rank);
        }
        let _ = self.customers.insert(write.key, (write.bytes, write.fields));
    }

    /// The keys and arguments of `commit.lua`.
    pub(crate) fn into_call(
        self,
        names: &Names,
        partition: Partition,
        guard: [Argument; 3],
    ) -> (Vec<String>, Vec<Argument>) {
        let mut touched = vec![
            names.partition(partition),
            names.customers(partition),
            names.timers(partition),
            names.judged(partition),
            names.outbox(partition),
            names.workspaces(partition),
        ];
        touched.extend(self.ranks.keys().map(|workspace| names.at_risk(partition, workspace)));
        touched.extend(self.customers.keys().map(|key| names.customer(partition, key)));
        let mut call = Vec::from(guard);
        call.push(self.ranks.len().into());
        call.push(self.customers.len().into());
        for (key, (state, Projection(fields))) in self.customers {
            call.push(keys::customer(partition, &key).into());
            call.push((2 + 2 * fields.len()).into());
            call.push("state".to_owned().into());
            call.push(state.into());
            for (name, value) in fields {
                call.push(name.to_owned().into());
                call.push(value.into());
            }
        }
        let (there, gone): (Vec<_>, Vec<_>) = self.timers.into_iter().partition(|(_, there)| *there);
        call.push(gone.len().into());
        call.extend(gone.into_iter().map(|(member, _)| member.into()));
        call.push((2 * there.len()).into());
        call.extend(
            there
                .into_iter()
                .flat_map(|(member, _)| ["0".to_owned().into(), member.into()]),
        );
        for list in self.ranks.into_values() {
            let gone: Vec<_> = list.iter().filter(|(_, rank)| rank.is_none()).collect();
            call.push(gone.len().into());
            call.extend(gone.into_iter().map(|(member, _)| member.clone().into()));
            let there: Vec<_> = list
                .into_iter()
                .filter_map(|(member, rank)| Some((member, rank?)))
                .collect();
            call.push((2 * there.len()).into());
            call.extend(
                there
                    .into_iter()
                    .flat_map(|(member, rank)| [(-i32::from(rank)).to_string().into(), member.into()]),
            );
        }
        call.push(self.judged.len().into());
        for (from, run) in self.judged {
            let member = judged_member(from, &run);
            call.push(judged_bound(b'[', from).into());
            call.push(above_judged(from).into());
            call.push(member.into());
        }
        call.push(self.flags.len().into());
        for flag in &self.flags {
            call.push(flag.workspace.as_str().to_owned().into());
            call.push(outbox_row(flag).into());
        }
        match self.meta {
            Some(meta) => call.extend(["1".to_owned().into(), meta.into()]),
            None => call.push("0".to_owned().into()),
        }
        (touched, call)
    }
}

/// A run of judgements as a member of the partition's sorted set: its offset, big-endian, then its bytes.
fn judged_member(from: Offset, run: &[u8]) -> Vec<u8> {
    let mut member = from.0.to_be_bytes().to_vec();
    member.extend_from_slice(run);
    member
}

/// A bound of a range by members: `[` from the run at an offset on, `(` before it.
pub(crate) fn judged_bound(kind: u8, from: Offset) -> Vec<u8> {
    let mut bound = vec![kind];
    bound.extend_from_slice(&from.0.to_be_bytes());
    bound
}

/// The bound that ends before the runs behind an offset.
pub(crate) fn above_judged(from: Offset) -> Vec<u8> {
    match from.0.checked_add(1) {
        Some(next) => judged_bound(b'(', Offset(next)),
        None => b"+".to_vec(),
    }
}

pub(crate) fn read_judged(member: &Bytes) -> Option<(Offset, Bytes)> {
    let (from, _) = member.split_first_chunk::<8>()?;
    Some((Offset(u64::from_be_bytes(*from)), member.slice(8..)))
}

/// A flag as a row of the outbox: its id in hexadecimal digits, the length of its workspace, the workspace, the body.
fn outbox_row(flag: &FlagRow) -> Vec<u8> {
    let workspace = flag.workspace.as_str();
    let mut row = format!("{} {} {workspace}", flag.id, workspace.len()).into_bytes();
    row.extend_from_slice(&flag.body);
    row
}

/// A flag on its way to the public stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) workspace: Workspace,
    pub(crate) id: FlagId,
    pub(crate) body: Bytes,
    pub(crate) partition: Partition,
    /// The number of the commit that it came with.
    pub(crate) commit: u64,
}

/// Reads a row of an outbox, in front of which the script has put the number of the commit.
pub(crate) fn read_outbox(partition: Partition, row: &Bytes) -> Option<Outgoing> {
    let mut rest: &[u8] = row;
    let mut word = || {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let (word, tail) = rest.split_at_checked(end)?;
        rest = tail.get(1..)?;
        std::str::from_utf8(word).ok()
    };
    let (commit, id, length) = (word()?.parse().ok()?, FlagId::parse(word()?)?, word()?.parse().ok()?);
    let (workspace, body) = rest.split_at_checked(length)?;
    Some(Outgoing {
        workspace: Workspace::new(std::str::from_utf8(workspace).ok()?).ok()?,
        id,
        body: row.slice_ref(body),
        partition,
        commit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_outbox_read_back() {
        for (workspace, body) in [("shop", "{}"), ("a b 3", ""), ("é", "\n \0")] {
            let flag = FlagRow {
                workspace: Workspace::new(workspace).unwrap(),
                partition: Partition(3),
                id: FlagId([7; 16]),
                body: Bytes::from(body),
            };
            let row = [b"41 ".as_slice(), &outbox_row(&flag)].concat();
            let read = read_outbox(Partition(3), &row.into()).unwrap();
            assert_eq!(
                (read.workspace, read.id, read.body),
                (flag.workspace, flag.id, flag.body)
            );
            assert_eq!(read.commit, 41);
        }
        assert_eq!(read_outbox(Partition(3), &Bytes::from("41 x 9 shop")), None);
    }
}
