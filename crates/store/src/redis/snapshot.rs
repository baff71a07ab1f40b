//! A copy of everything, for audits.
//!
//! What it promises: each partition is copied at exactly one of its commits, with the flags of just those commits. Partitions
//! may stand at different moments, as they do anyway. Commits of this process wait while a partition is copied; a partition
//! that another process writes is copied again until it held still, which a busy one may never do: then take the snapshot
//! where its owner runs. After a fail-over that took commits back, flags that were published before it may be counted
//! one commit late; an audit that finds such a difference is to be repeated.
//!
//! Bound: the copy lies in memory, as large as the records are.

use super::Inner;
use crate::{MemorySnapshot, StoreError, keys};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Partition, Workspace};

/// How often a partition that moves is copied again.
const ATTEMPTS: usize = 50;

type Rows = BTreeMap<Vec<u8>, Bytes>;

impl Inner {
    pub(crate) async fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        let mut rows = Rows::new();
        let mut commits: BTreeMap<Partition, u64> = BTreeMap::new();
        let mut spaces: BTreeSet<Workspace> = BTreeSet::new();
        for partition in self.all() {
            let (copied, commit) = self.copy(partition).await?;
            rows.extend(copied);
            let _ = commits.insert(partition, commit);
            spaces.extend(self.spaces(partition).await?);
        }
        for workspace in spaces {
            for flag in self.flags(&workspace, 0, usize::MAX).await? {
                if commits
                    .get(&flag.partition)
                    .is_some_and(|commit| flag.commit <= *commit)
                {
                    let _ = rows.insert(keys::flag(&workspace, flag.number), flag.body);
                }
            }
        }
        Ok(MemorySnapshot::of(rows))
    }

    async fn copy(&self, partition: Partition) -> Result<(Rows, u64), StoreError> {
        // No commit of this process is between its partition and its stream either.
        let _quiet = self.gate.write().await;
        for _ in 0..ATTEMPTS {
            let (meta, before) = self.position(partition).await?;
            let customers = self.scan(partition, None, usize::MAX).await?;
            let (_, after) = self.position(partition).await?;
            if before == after {
                let mut rows: Rows = customers
                    .into_iter()
                    .map(|(key, record)| (keys::customer(partition, &key), record))
                    .collect();
                rows.extend(meta.map(|meta| (keys::meta(partition), meta)));
                return Ok((rows, before));
            }
        }
        Err(StoreError::Unavailable {
            reason: format!(
                "partition {partition} is written faster than it can be copied; copy it where its owner runs"
            ),
        })
    }

    async fn spaces(&self, partition: Partition) -> Result<Vec<Workspace>, StoreError> {
        let name = self.names.workspaces(partition);
        let found: Vec<String> = self.link.ask(redis::cmd("SMEMBERS").arg(&name)).await?;
        let read = found
            .into_iter()
            .map(|name| Workspace::new(&name).map_err(|_| keys::unreadable("workspace", name.as_bytes())));
        read.collect()
    }
}
