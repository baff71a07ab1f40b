//! The store in Redis (7.0 or later, a master with replicas or a cluster), shared by several workers.
//!
//! It owns the order of writes, the fencing and the detection of a store that went away or back; the names of keys are
//! in `names.rs` and public. It keeps no key that expires.
//!
//! # One partition, one slot, one script
//!
//! All keys of a partition carry its number as their hash tag, so they live in one slot and one script changes them
//! together: records, published fields, timers, ranks, judgements, new flags, position. The script checks before it
//! writes and writes the position last. A commit that touches several partitions is one script each, so each partition
//! is always at some commit of its own (STEP-1 per partition); nothing in one partition is read by another one's position,
//! so this is all that a fold needs. A failover that loses the last second takes whole commits of whole partitions back.
//!
//! # Who writes, and from where
//!
//! A commit names the installation, the owner's epoch (OWN-1) and the number of the commit before it. If the epoch is an
//! older one it is fenced. If the number is another one, then the partition has moved under its owner: a failover has taken
//! commits back, or an earlier commit of unknown outcome came through. Either way [`StoreError::Unavailable`] says that
//! what the owner remembers is not what is stored; it has to [`Store::renew`] and to read where it stands. From an
//! unknown outcome on, every commit of that epoch is refused here, so that none can be applied twice.
//!
//! # Lost is not empty
//!
//! Every partition has a sentinel that names the installation. Reads of records ask for it in the same breath, commits
//! check it, and [`Store::persist`] asks for all of them: an emptied or exchanged Redis is [`StoreError::Lost`], and no
//! missing record is ever taken for a new customer. Call persist every second to notice it while nothing is read.
//!
//! # Flags
//!
//! A flag is written into the outbox of its partition with the record that it belongs to, then published to the stream
//! of its workspace (another slot), which numbers it. The outbox keeps it until [`Store::persist`], which publishes it once
//! more, as a new owner does; the stream ignores ids that it has. So a flag is never ahead of its record and is not lost
//! with a crash in between or a failover of the stream's node.
//!
//! # Durability
//!
//! With `appendfsync always` a commit is on the disk of the master when it returns. With `everysec` a crash of the machine
//! may take the last second back, which the owner notices and folds again, as long as the log still has it. With
//! [`RedisOptions::replicas`] above 0, [`Store::persist`] waits until so many replicas have everything.

mod fault;
mod link;
mod lists;
mod names;
mod open;
mod owner;
mod share;
mod snapshot;

use crate::{Commit, CommitReceipt, Counts, MemorySnapshot, RankCursor, Store, StoreError, keys, rows};
use bytes::Bytes;
use futures::future::join_all;
use link::{Argument, Link, Script};
use names::Names;
pub use names::redis_key;
use owner::{At, Held};
use share::{Outgoing, Share};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::RwLock;
use vigie_event::{CustomerKey, FlagId, Offset, Partition, Timestamp, Workspace};

pub use Options as RedisOptions;

/// How to reach a store in Redis.
#[derive(Clone)]
pub struct Options {
    /// Addresses, `redis://[user:password@]host:port[/database]`: some nodes of a cluster, or a master and its replicas.
    pub nodes: Vec<String>,
    /// What all keys begin with, so that several installations can share a Redis. Letters, digits and `-`.
    pub namespace: String,
    /// The number of partitions; must be what the store was created with.
    pub partitions: u16,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for an answer.
    pub response_timeout: Duration,
    /// Replicas of each master that must have everything before [`Store::persist`] returns.
    pub replicas: u16,
    /// Accept a Redis that keeps no append-only file.
    pub volatile: bool,
}

impl Options {
    /// Defaults: namespace `vigie`, 1 s to connect, 2 s for an answer, no replica waited for, a file demanded.
    #[must_use]
    pub fn new(nodes: Vec<String>, partitions: u16) -> Self {
        Self {
            nodes,
            namespace: "vigie".to_owned(),
            partitions,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
            replicas: 0,
            volatile: false,
        }
    }
}

/// Without the addresses, which may hold a password.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisOptions")
            .field("namespace", &self.namespace)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

/// A store in Redis. Clones share one connection.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    names: Names,
    partitions: u16,
    installation: String,
    replicas: u16,
    response_timeout: Duration,
    scripts: Scripts,
    held: Mutex<BTreeMap<Partition, Held>>,
    /// Commits of this process share it; who needs a quiet moment takes it alone.
    gate: RwLock<()>,
}

struct Scripts {
    commit: Script,
    claim: Script,
    publish: Script,
    settle: Script,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore")
            .field("installation", &self.inner.installation)
            .field("partitions", &self.inner.partitions)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    fn new(link: Link, names: Names, options: &Options, installation: String) -> Self {
        let scripts = Scripts {
            commit: Script::new(include_str!("commit.lua")),
            claim: Script::new(include_str!("claim.lua")),
            publish: Script::new(include_str!("publish.lua")),
            settle: Script::new(include_str!("settle.lua")),
        };
        let inner = Inner {
            link,
            names,
            partitions: options.partitions,
            installation,
            replicas: options.replicas,
            response_timeout: options.response_timeout,
            scripts,
            held: Mutex::default(),
            gate: RwLock::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    fn all(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.partitions).map(Partition)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Partition, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn commit(&self, commit: Commit) -> Result<CommitReceipt, StoreError> {
        rows::check_routing(&commit, self.partitions)?;
        let epoch = commit.epoch;
        let order = commit.flags.iter().map(|flag| (flag.workspace.clone(), flag.id));
        let order: Vec<(Workspace, FlagId)> = order.collect();
        let _open = self.gate.read().await;
        let shares = share::split(commit);
        let written = shares
            .into_iter()
            .map(|(partition, share)| self.write(partition, epoch, share));
        let mut flags = Vec::new();
        let mut failed = None;
        for outcome in join_all(written).await {
            match outcome {
                Ok(new) => flags.extend(new),
                Err(error) => failed = Some(graver(failed, error)),
            }
        }
        // Flags of shares that are written must not wait for those that are not.
        let published = self.publish(flags).await;
        let mut new = match (failed, published) {
            (Some(error), Ok(_)) => return Err(error),
            (failed, Err(error)) => return Err(graver(failed, error)),
            (None, Ok(new)) => new,
        };
        Ok(CommitReceipt {
            flags_inserted: order
                .into_iter()
                .filter_map(|flag| new.remove(&flag).then_some(flag.1))
                .collect(),
        })
    }

    /// Writes one partition's share and returns its flags, to be published.
    async fn write(&self, partition: Partition, epoch: u64, share: Share) -> Result<Vec<Outgoing>, StoreError> {
        let flags = share.flags.clone();
        let before = self.begin(partition, epoch)?;
        let expected = before.map_or_else(String::new, |at| at.seq.to_string());
        let guard = [self.installation.clone().into(), epoch.into(), Argument::Text(expected)];
        let (touched, call) = share.into_call(&self.names, partition, guard);
        let (verdict, value, first): (String, String, Option<Bytes>) = match self
            .link
            .run_bulk::<Vec<Bytes>>(&self.scripts.commit, &touched, &call)
            .await?
            .as_slice()
        {
            [verdict, value] => (text(verdict)?, text(value)?, None),
            [verdict, value, first] => (text(verdict)?, text(value)?, Some(first.clone())),
            _ => return Err(answered("commit")),
        };
        let seq = match (verdict.as_str(), before) {
            ("ok", _) => number(&value)?,
            // The cluster client sent it again, after its first answer was lost: nobody else writes with this epoch,
            // and this process has sent no other commit from there.
            ("moved", Some(at)) if number(&value)? == at.seq + 1 => at.seq + 1,
            ("moved", Some(at)) => {
                return Err(StoreError::Unavailable {
                    reason: format!(
                        "partition {partition} is at commit {value}, not {}: a fail-over took commits back; reading it anew",
                        at.seq
                    ),
                });
            }
            ("fenced", _) => return Err(self.fenced(partition, number(&value)?, epoch)),
            ("lost", _) => return Err(self.lost(partition, &value)),
            _ => return Err(answered("commit")),
        };
        let next_due = match first {
            Some(member) => first_due(&member)?,
            None => self.ask_next_due(partition).await?,
        };
        let at = Some(At { seq, next_due });
        let _ = self.held().insert(partition, Held::new(epoch, at));
        let outgoing = |flag: crate::FlagRow| Outgoing {
            workspace: flag.workspace,
            id: flag.id,
            body: flag.body,
            partition,
            commit: seq,
        };
        Ok(flags.into_iter().map(outgoing).collect())
    }

    fn lost(&self, partition: Partition, found: &str) -> StoreError {
        let reason = if found.is_empty() {
            format!("partition {partition} has no sentinel any more")
        } else {
            format!(
                "partition {partition} belongs to installation {found}, not {}",
                self.installation
            )
        };
        StoreError::Lost { reason }
    }

    /// Puts flags into the streams of their workspaces; returns those that were new.
    async fn publish(&self, flags: Vec<Outgoing>) -> Result<BTreeSet<(Workspace, FlagId)>, StoreError> {
        let mut streams: BTreeMap<Workspace, Vec<Outgoing>> = BTreeMap::new();
        for flag in flags {
            streams.entry(flag.workspace.clone()).or_default().push(flag);
        }
        let mut new = BTreeSet::new();
        for (workspace, flags) in streams {
            let touched = [self.names.flags(&workspace), self.names.flag_ids(&workspace)];
            let mut call: Vec<Argument> = Vec::with_capacity(4 * flags.len());
            for flag in flags {
                call.push(flag.id.to_string().into());
                call.push(flag.body.into());
                call.push(flag.partition.to_string().into());
                call.push(flag.commit.into());
            }
            let ids: Vec<String> = self.link.run(&self.scripts.publish, &touched, &call).await?;
            new.extend(
                ids.iter()
                    .filter_map(|id| Some((workspace.clone(), FlagId::parse(id)?))),
            );
        }
        Ok(new)
    }

    /// Whether everything is still there, and everything before it is safe.
    async fn persist(&self) -> Result<(), StoreError> {
        let looked = {
            // No commit is between its partition and its stream.
            let _quiet = self.gate.write().await;
            let looked = self.all().map(|partition| self.look(partition));
            futures::future::try_join_all(looked).await?
        };
        // The node of a stream may have gone back since; the outboxes have what it lost.
        let mut outboxes = Vec::new();
        for (partition, epoch, at, rows) in looked.into_iter().flatten() {
            if !rows.is_empty() {
                outboxes.push((partition, epoch, at, rows.len()));
                let _ = self.publish(read_outbox(partition, &rows)?).await?;
            }
        }
        self.wait_for_replicas().await?;
        for (partition, epoch, at, rows) in outboxes {
            let touched = [self.names.partition(partition), self.names.outbox(partition)];
            let call = [epoch.into(), at.seq.into(), rows.into()];
            let _: u64 = self.link.run(&self.scripts.settle, &touched, &call).await?;
        }
        Ok(())
    }

    /// Checks a partition's sentinel and, if it is held, where it stands; returns that and its outbox.
    async fn look(&self, partition: Partition) -> Result<Option<(Partition, u64, At, Vec<Bytes>)>, StoreError> {
        let mut commands = redis::pipe();
        let _ = commands
            .cmd("HMGET")
            .arg(self.names.partition(partition))
            .arg(&["installation", "epoch", "seq"])
            .cmd("LRANGE")
            .arg(self.names.outbox(partition))
            .arg(&[0, -1]);
        let (sentinel, rows): (Vec<Option<String>>, Vec<Bytes>) = self.link.ask_all(&commands).await?;
        let mut sentinel = sentinel.into_iter().map(Option::unwrap_or_default);
        let mut next = || sentinel.next().unwrap_or_default();
        let (installation, epoch, seq) = (next(), next(), next());
        if installation != self.installation {
            return Err(self.lost(partition, &installation));
        }
        let Some(held) = self.held().get(&partition).copied() else {
            return Ok(None);
        };
        let Some(at) = held.at else { return Ok(None) };
        let (epoch, seq) = (number(&epoch)?, number(&seq)?);
        if epoch < held.epoch || (epoch == held.epoch && seq < at.seq) {
            let _ = self.held().insert(partition, Held::new(held.epoch, None));
            return Err(StoreError::Unavailable {
                reason: format!("a fail-over took commits of partition {partition} back; reading it anew"),
            });
        }
        Ok((epoch == held.epoch).then_some((partition, epoch, at, rows)))
    }

    async fn wait_for_replicas(&self) -> Result<(), StoreError> {
        if self.replicas == 0 {
            return Ok(());
        }
        let patience = u64::try_from(self.response_timeout.as_millis() / 2).unwrap_or(u64::MAX);
        let mut command = redis::cmd("WAIT");
        let _ = command.arg(self.replicas).arg(patience);
        let reached: Vec<u16> = self.link.ask_masters(&command).await?;
        match reached.iter().min() {
            Some(least) if *least >= self.replicas => Ok(()),
            least => Err(StoreError::Unavailable {
                reason: format!(
                    "{} of {} replicas have everything; see `redis-cli info replication`",
                    least.copied().unwrap_or(0),
                    self.replicas
                ),
            }),
        }
    }
}

/// Of two errors of one commit, the one that the caller must know: waiting helps least against damage.
fn graver(first: Option<StoreError>, second: StoreError) -> StoreError {
    let passing = |error: &StoreError| error.class() == crate::ErrorClass::External;
    match first {
        Some(first) if !passing(&first) || passing(&second) => first,
        _ => second,
    }
}

fn read_outbox(partition: Partition, rows: &[Bytes]) -> Result<Vec<Outgoing>, StoreError> {
    rows.iter()
        .map(|row| share::read_outbox(partition, row).ok_or_else(|| keys::unreadable("row of an outbox", row)))
        .collect()
}

fn first_due(member: &[u8]) -> Result<Option<Timestamp>, StoreError> {
    match member {
        [] => Ok(None),
        member => keys::read_timer(member).map(|(due, _)| Some(due)),
    }
}

fn text(bytes: &[u8]) -> Result<String, StoreError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| keys::unreadable("answer", bytes))
}

fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| keys::unreadable("number", text.as_bytes()))
}

fn answered(script: &str) -> StoreError {
    StoreError::Corrupt {
        reason: format!("the script {script} answered in an unknown form"),
    }
}

impl Store for RedisStore {
    type Snapshot = MemorySnapshot;

    fn partitions(&self) -> u16 {
        self.inner.partitions
    }

    fn publishes(&self) -> bool {
        true
    }

    async fn load(&self, keys: &[CustomerKey]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.inner.load(keys).await
    }

    async fn partition(&self, partition: Partition) -> Result<Option<Bytes>, StoreError> {
        self.inner.meta(partition).await
    }

    async fn due(
        &self,
        partition: Partition,
        upto: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, CustomerKey)>, StoreError> {
        self.inner.due(partition, upto, limit).await
    }

    async fn next_due(&self, partition: Partition) -> Result<Option<Timestamp>, StoreError> {
        let known = self.inner.held().get(&partition).and_then(|held| held.at);
        match known {
            Some(at) => Ok(at.next_due),
            None => self.inner.ask_next_due(partition).await,
        }
    }

    async fn commit(&self, commit: Commit) -> Result<CommitReceipt, StoreError> {
        self.inner.commit(commit).await
    }

    async fn claim(&self, partitions: &[Partition]) -> Result<u64, StoreError> {
        self.inner.claim(None, partitions).await
    }

    async fn renew(&self, epoch: u64, partitions: &[Partition]) -> Result<u64, StoreError> {
        self.inner.claim(Some(epoch), partitions).await
    }

    async fn scan(
        &self,
        partition: Partition,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
        self.inner.scan(partition, after, limit).await
    }

    async fn at_risk(
        &self,
        workspace: &Workspace,
        after: Option<RankCursor>,
        limit: usize,
    ) -> Result<Vec<(u16, CustomerKey, Bytes)>, StoreError> {
        self.inner.at_risk(workspace, after, limit).await
    }

    async fn flags(&self, workspace: &Workspace, after: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let rows = self.inner.flags(workspace, after, limit).await?;
        Ok(rows.into_iter().map(|flag| (flag.number, flag.body)).collect())
    }

    async fn flag(&self, workspace: &Workspace, id: &FlagId) -> Result<Option<Bytes>, StoreError> {
        self.inner.flag(workspace, id).await
    }

    async fn customers(
        &self,
        workspace: &Workspace,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
        self.inner.customers(workspace, after, limit).await
    }

    async fn persist(&self) -> Result<(), StoreError> {
        self.inner.persist().await
    }

    async fn judged(
        &self,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> Result<Vec<(Offset, Bytes)>, StoreError> {
        self.inner.judged(partition, from, limit).await
    }

    async fn forget_judged(&self, below: &[(Partition, Offset)]) -> Result<(), StoreError> {
        self.inner.forget_judged(below).await
    }

    async fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        self.inner.snapshot().await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.inner.counts().await
    }
}
