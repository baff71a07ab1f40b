//! Who owns a partition: claims, renewals, and what this process knows of what it owns. Nothing here writes a record.

use super::link::Argument;
use super::share::Outgoing;
use super::{Inner, answered, first_due, number, read_outbox, text};
use crate::StoreError;
use bytes::Bytes;
use futures::future::join_all;
use std::collections::BTreeMap;
use vigie_event::{Partition, Timestamp};

/// Claims that meet a later owner on their way, before one gives up.
const CLAIM_ATTEMPTS: usize = 8;

/// What this process knows of a partition that it has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) epoch: u64,
    /// The epoch of the last attempt to renew it, which may have succeeded unseen.
    renewal: u64,
    /// The number of the last commit and the next timer; `None` while an outcome is unknown.
    pub(crate) at: Option<At>,
}

impl Held {
    pub(crate) fn new(epoch: u64, at: Option<At>) -> Self {
        Self {
            epoch,
            renewal: epoch,
            at,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) seq: u64,
    pub(crate) next_due: Option<Timestamp>,
}

enum Taken {
    /// With where it stands and what is left in its outbox.
    Yes(At, Vec<Outgoing>),
    /// Somebody with this later epoch owns it.
    Later(u64),
}

impl Inner {
    /// From here on the outcome is unknown, until it is known. Where the partition stands, if this process knows.
    pub(crate) fn begin(&self, partition: Partition, epoch: u64) -> Result<Option<At>, StoreError> {
        let mut held = self.held();
        match held.get(&partition).copied() {
            Some(Held {
                epoch: own, at: None, ..
            }) if own == epoch => Err(StoreError::Unavailable {
                reason: format!(
                    "the outcome of an earlier commit to partition {partition} is unknown; reading it anew"
                ),
            }),
            Some(Held { epoch: own, at, .. }) if own == epoch => {
                let _ = held.insert(partition, Held::new(epoch, None));
                Ok(at)
            }
            // Claimed by another handle: the script judges the epoch, and only that.
            _ => Ok(None),
        }
    }

    pub(crate) fn fenced(&self, partition: Partition, owner: u64, epoch: u64) -> StoreError {
        let mut held = self.held();
        let mine = held.get(&partition).is_some_and(|held| held.epoch == epoch);
        if mine && owner < epoch {
            return StoreError::Unavailable {
                reason: format!("a fail-over took the claim of partition {partition} back; claiming it anew"),
            };
        }
        if mine {
            let _ = held.remove(&partition);
        }
        StoreError::Fenced {
            partition,
            owner,
            epoch,
        }
    }

    /// Gives out an epoch above every owner of the partitions; with `renewing`, only to the owner of that one.
    pub(crate) async fn claim(&self, renewing: Option<u64>, wanted: &[Partition]) -> Result<u64, StoreError> {
        if let Some(&partition) = wanted.iter().find(|partition| partition.0 >= self.partitions) {
            return Err(StoreError::Misrouted { partition });
        }
        let _quiet = self.gate.write().await;
        let mut floor = 0;
        for _ in 0..CLAIM_ATTEMPTS {
            let epoch = self.next_epoch(floor).await?;
            let taken = wanted.iter().map(|partition| self.take(*partition, epoch, renewing));
            let (mut outgoing, mut held) = (Vec::new(), BTreeMap::new());
            let mut later = None;
            for (partition, taken) in wanted.iter().zip(join_all(taken).await) {
                match taken? {
                    Taken::Yes(at, flags) => {
                        let _ = held.insert(*partition, Held::new(epoch, Some(at)));
                        outgoing.extend(flags);
                    }
                    Taken::Later(owner) => later = later.max(Some(owner)),
                }
            }
            match later {
                None => {
                    let _ = self.publish(outgoing).await?;
                    // All or none: the caller of a claim that failed in part goes on with the epoch that it has.
                    self.held().extend(held);
                    return Ok(epoch);
                }
                Some(owner) => floor = owner,
            }
        }
        Err(StoreError::Unavailable {
            reason: "others claim the same partitions all the time".to_owned(),
        })
    }

    /// The next epoch above `floor`, which the counter lacks when a fail-over took it back.
    async fn next_epoch(&self, floor: u64) -> Result<u64, StoreError> {
        let name = self.names.epoch();
        let next: u64 = self.link.ask(redis::cmd("INCR").arg(&name)).await?;
        if next > floor {
            return Ok(next);
        }
        self.link
            .ask(redis::cmd("INCRBY").arg(&name).arg(floor - next + 1))
            .await
    }

    async fn take(&self, partition: Partition, epoch: u64, renewing: Option<u64>) -> Result<Taken, StoreError> {
        let touched = [
            self.names.partition(partition),
            self.names.timers(partition),
            self.names.outbox(partition),
        ];
        // An earlier renewal whose answer was lost is this owner's as well.
        let renewing = renewing.map(|renewing| match self.held().get_mut(&partition) {
            Some(held) if held.epoch == renewing => std::mem::replace(&mut held.renewal, epoch).max(renewing),
            _ => renewing,
        });
        let renewing_text = renewing.map_or_else(String::new, |epoch| epoch.to_string());
        let call = [
            self.installation.clone().into(),
            epoch.into(),
            Argument::Text(renewing_text),
        ];
        let answer: Vec<redis::Value> = self.link.run(&self.scripts.claim, &touched, &call).await?;
        let mut parts = answer.into_iter();
        let mut part = || {
            parts
                .next()
                .and_then(|part| redis::from_redis_value::<Bytes>(part).ok())
        };
        let (Some(verdict), Some(value)) = (part(), part()) else {
            return Err(answered("claim"));
        };
        let value = text(&value)?;
        match &verdict[..] {
            b"ok" => {}
            b"later" => return Ok(Taken::Later(number(&value)?)),
            b"lost" => return Err(self.lost(partition, &value)),
            b"fenced" => {
                return Err(StoreError::Fenced {
                    partition,
                    owner: number(&value)?,
                    epoch: renewing.unwrap_or(epoch),
                });
            }
            _ => return Err(answered("claim")),
        }
        let first = part().ok_or_else(|| answered("claim"))?;
        let rows = parts.next().ok_or_else(|| answered("claim"))?;
        let rows: Vec<Bytes> = redis::from_redis_value(rows).map_err(|_| answered("claim"))?;
        let at = At {
            seq: number(&value)?,
            next_due: first_due(&first)?,
        };
        Ok(Taken::Yes(at, read_outbox(partition, &rows)?))
    }
}
