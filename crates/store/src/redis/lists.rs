//! Reading: records by key, and every list in its order. Lists are read in bounded pages, and partitions side by side.

use super::{Inner, first_due, names, number, share};
use crate::{Counts, RankCursor, StoreError, keys};
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use std::collections::BTreeMap;
use vigie_event::{CustomerKey, FlagId, Offset, Partition, Timestamp, Workspace, partition_for};

/// Most records asked for at once, so that an answer has a bound in time and memory.
const PAGE: usize = 2_000;

/// A row of a workspace's stream.
pub(crate) struct Published {
    pub(crate) number: u64,
    pub(crate) body: Bytes,
    pub(crate) partition: Partition,
    pub(crate) commit: u64,
}

impl Inner {
    pub(crate) async fn load(&self, keys: &[CustomerKey]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut wanted: BTreeMap<Partition, Vec<usize>> = BTreeMap::new();
        for (place, key) in keys.iter().enumerate() {
            let partition = partition_for(key.person.as_str(), self.partitions);
            wanted.entry(partition).or_default().push(place);
        }
        let pages = wanted
            .iter()
            .flat_map(|(partition, places)| places.chunks(PAGE).map(|page| (*partition, page)));
        let reading = pages.map(|(partition, places)| async move {
            let keys: Vec<&CustomerKey> = places.iter().filter_map(|place| keys.get(*place)).collect();
            Ok::<_, StoreError>((places, self.records(partition, &keys).await?))
        });
        let mut loaded = vec![None; keys.len()];
        for (places, records) in try_join_all(reading).await? {
            for (place, record) in places.iter().zip(records) {
                if let Some(slot) = loaded.get_mut(*place) {
                    *slot = record;
                }
            }
        }
        Ok(loaded)
    }

    /// Records of one partition, together with its sentinel: what is missing is only missing if that is there.
    async fn records(&self, partition: Partition, keys: &[&CustomerKey]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut commands = redis::pipe();
        let _ = commands
            .cmd("HGET")
            .arg(self.names.partition(partition))
            .arg("installation");
        for key in keys {
            let _ = commands
                .cmd("HGET")
                .arg(self.names.customer(partition, key))
                .arg("state");
        }
        let mut records: Vec<Option<Bytes>> = self.link.ask_all(&commands).await?;
        let sentinel = records.drain(..records.len().min(1)).next().flatten();
        self.check(partition, sentinel.as_deref())?;
        Ok(records)
    }

    fn check(&self, partition: Partition, sentinel: Option<&[u8]>) -> Result<(), StoreError> {
        if sentinel == Some(self.installation.as_bytes()) {
            return Ok(());
        }
        Err(self.lost(partition, &String::from_utf8_lossy(sentinel.unwrap_or_default())))
    }

    pub(crate) async fn meta(&self, partition: Partition) -> Result<Option<Bytes>, StoreError> {
        self.position(partition).await.map(|(meta, _)| meta)
    }

    /// The meta bytes and the number of the last commit.
    pub(crate) async fn position(&self, partition: Partition) -> Result<(Option<Bytes>, u64), StoreError> {
        let mut command = redis::cmd("HMGET");
        let _ = command
            .arg(self.names.partition(partition))
            .arg(&["installation", "meta", "seq"]);
        let fields: Vec<Option<Bytes>> = self.link.ask(&command).await?;
        let mut fields = fields.into_iter();
        let mut next = || fields.next().flatten();
        let (sentinel, meta, seq) = (next(), next(), next());
        self.check(partition, sentinel.as_deref())?;
        Ok((meta, number(&super::text(&seq.unwrap_or_default())?)?))
    }

    pub(crate) async fn due(
        &self,
        partition: Partition,
        upto: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, CustomerKey)>, StoreError> {
        let above = match upto.0.checked_add(1) {
            Some(next) => bound(b'(', keys::timers_from(partition, Timestamp(next))),
            None => b"+".to_vec(),
        };
        let members = self
            .members(&self.names.timers(partition), b"-".to_vec(), above, limit)
            .await?;
        members.iter().map(|member| keys::read_timer(member)).collect()
    }

    pub(crate) async fn ask_next_due(&self, partition: Partition) -> Result<Option<Timestamp>, StoreError> {
        let mut command = redis::cmd("ZRANGE");
        let _ = command.arg(self.names.timers(partition)).arg(0).arg(0);
        let first: Vec<Bytes> = self.link.ask(&command).await?;
        first_due(&first.into_iter().next().unwrap_or_default())
    }

    pub(crate) async fn scan(
        &self,
        partition: Partition,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
        let mut found = Vec::new();
        let mut from = after.map_or_else(|| b"-".to_vec(), |key| bound(b'(', keys::customer(partition, &key)));
        while found.len() < limit {
            let page = PAGE.min(limit - found.len());
            let members = self
                .members(&self.names.customers(partition), from, b"+".to_vec(), page)
                .await?;
            let complete = members.len() < page;
            let keys: Vec<CustomerKey> = members
                .iter()
                .map(|member| keys::read_customer(member))
                .collect::<Result<_, _>>()?;
            let records = self.records(partition, &keys.iter().collect::<Vec<_>>()).await?;
            for (key, record) in keys.into_iter().zip(records) {
                let record = record.ok_or_else(|| missing(&key))?;
                found.push((key, record));
            }
            match members.last() {
                Some(last) if !complete => from = bound(b'(', last.to_vec()),
                _ => break,
            }
        }
        Ok(found)
    }

    pub(crate) async fn customers(
        &self,
        workspace: &Workspace,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
        let after = after.as_ref();
        let listing = self.all().map(|partition| async move {
            let prefix = keys::customers_of(partition, workspace);
            let above = bound(b'(', keys::above(&prefix));
            let from = match after {
                Some(key) => bound(b'(', keys::customer(partition, key)),
                None => bound(b'[', prefix),
            };
            self.members(&self.names.customers(partition), from, above, limit).await
        });
        let mut keys = Vec::new();
        for members in try_join_all(listing).await? {
            for member in members {
                keys.push(keys::read_customer(&member)?);
            }
        }
        keys.sort_unstable();
        keys.truncate(limit);
        let records = self.load(&keys).await?;
        keys.into_iter()
            .zip(records)
            .map(|(key, record)| record.ok_or_else(|| missing(&key)).map(|record| (key, record)))
            .collect()
    }

    pub(crate) async fn at_risk(
        &self,
        workspace: &Workspace,
        after: Option<RankCursor>,
        limit: usize,
    ) -> Result<Vec<(u16, CustomerKey, Bytes)>, StoreError> {
        let listing = self
            .all()
            .map(|partition| self.ranked(partition, workspace, after.as_ref(), limit));
        let mut ranked: Vec<(u16, CustomerKey)> = try_join_all(listing).await?.into_iter().flatten().collect();
        ranked.sort_unstable_by(|(a, left), (b, right)| b.cmp(a).then_with(|| left.cmp(right)));
        ranked.truncate(limit);
        let keys: Vec<CustomerKey> = ranked.iter().map(|(_, key)| key.clone()).collect();
        let records = self.load(&keys).await?;
        ranked
            .into_iter()
            .zip(records)
            .map(|((rank, key), record)| record.ok_or_else(|| missing(&key)).map(|record| (rank, key, record)))
            .collect()
    }

    /// The ranked customers of one partition, most at risk first, then in key order.
    async fn ranked(
        &self,
        partition: Partition,
        workspace: &Workspace,
        after: Option<&RankCursor>,
        limit: usize,
    ) -> Result<Vec<(u16, CustomerKey)>, StoreError> {
        let name = self.names.at_risk(partition, workspace);
        let seen = |rank: u16, key: &CustomerKey| after.is_some_and(|after| after.rank == rank && *key <= after.key);
        let mut start = match after {
            None => 0,
            Some(after) => {
                let score = -i32::from(after.rank);
                let mut commands = redis::pipe();
                let member = names::ranked(&after.key.person);
                let _ = commands
                    .cmd("ZSCORE")
                    .arg(&name)
                    .arg(&member)
                    .cmd("ZRANK")
                    .arg(&name)
                    .arg(&member);
                let _ = commands.cmd("ZCOUNT").arg(&name).arg("-inf").arg(format!("({score}"));
                let (now, place, before): (Option<f64>, Option<usize>, usize) = self.link.ask_all(&commands).await?;
                match (now, place) {
                    (Some(now), Some(place)) if now == f64::from(score) => place + 1,
                    // The customer has another rank by now, or lives elsewhere: those of equal rank are looked through.
                    _ => before,
                }
            }
        };
        let mut found = Vec::new();
        while found.len() < limit {
            let page = PAGE.min(limit);
            let mut command = redis::cmd("ZRANGE");
            let _ = command.arg(&name).arg(start).arg(start + page - 1).arg("WITHSCORES");
            let rows: Vec<(Bytes, f64)> = self.link.ask(&command).await?;
            let complete = rows.len() < page;
            start += rows.len();
            for (member, score) in rows {
                let key = names::read_ranked(&member, workspace)?;
                // Written here as minus a u16; anything else becomes its nearest bound.
                let rank = (-score) as u16;
                if !seen(rank, &key) {
                    found.push((rank, key));
                }
            }
            if complete {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    pub(crate) async fn flags(
        &self,
        workspace: &Workspace,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Published>, StoreError> {
        let Some(first) = after.checked_add(1) else {
            return Ok(Vec::new());
        };
        let (mut first, mut found) = (first, Vec::new());
        while found.len() < limit {
            let page = PAGE.min(limit - found.len());
            let mut command = redis::cmd("XRANGE");
            let _ = command
                .arg(self.names.flags(workspace))
                .arg(format!("{first}-0"))
                .arg("+")
                .arg("COUNT")
                .arg(page);
            let rows: Vec<(String, Vec<Bytes>)> = self.link.ask(&command).await?;
            let complete = rows.len() < page;
            for (id, fields) in rows {
                let unreadable = || keys::unreadable("flag", id.as_bytes());
                let flag = read_flag(&id, &fields).ok_or_else(unreadable)?;
                first = flag.number.saturating_add(1);
                found.push(flag);
            }
            if complete {
                break;
            }
        }
        Ok(found)
    }

    pub(crate) async fn flag(&self, workspace: &Workspace, id: &FlagId) -> Result<Option<Bytes>, StoreError> {
        let mut command = redis::cmd("HGET");
        let _ = command.arg(self.names.flag_ids(workspace)).arg(id.to_string());
        let Some(sequence): Option<u64> = self.link.ask(&command).await? else {
            return Ok(None);
        };
        let rows = self.flags(workspace, sequence.saturating_sub(1), 1).await?;
        match rows.into_iter().next() {
            Some(flag) if flag.number == sequence => Ok(Some(flag.body)),
            _ => Err(StoreError::Corrupt {
                reason: format!("flag {id} has no row {sequence}; somebody has trimmed the stream"),
            }),
        }
    }

    pub(crate) async fn judged(
        &self,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> Result<Vec<(Offset, Bytes)>, StoreError> {
        let name = self.names.judged(partition);
        let holding = self.last_judged(&name, share::above_judged(from)).await?;
        let lower = holding.map_or_else(
            || share::judged_bound(b'[', from),
            |(start, _)| share::judged_bound(b'[', start),
        );
        let members = self.members(&name, lower, b"+".to_vec(), limit).await?;
        members.iter().map(read_judged).collect()
    }

    pub(crate) async fn forget_judged(&self, below: &[(Partition, Offset)]) -> Result<(), StoreError> {
        let forgetting = below.iter().map(|(partition, below)| async move {
            let name = self.names.judged(*partition);
            // The last run below may reach beyond.
            if let Some((last, _)) = self.last_judged(&name, share::judged_bound(b'(', *below)).await? {
                let mut command = redis::cmd("ZREMRANGEBYLEX");
                let _ = command.arg(&name).arg("-").arg(share::judged_bound(b'(', last));
                let _: u64 = self.link.ask(&command).await?;
            }
            Ok(())
        });
        join_all(forgetting).await.into_iter().collect()
    }

    async fn last_judged(&self, name: &str, above: Vec<u8>) -> Result<Option<(Offset, Bytes)>, StoreError> {
        let mut command = redis::cmd("ZREVRANGEBYLEX");
        let _ = command.arg(name).arg(above).arg("-").arg("LIMIT").arg(0).arg(1);
        let members: Vec<Bytes> = self.link.ask(&command).await?;
        members.first().map(read_judged).transpose()
    }

    /// Members of a sorted set between two bounds, in order.
    async fn members(&self, name: &str, from: Vec<u8>, to: Vec<u8>, limit: usize) -> Result<Vec<Bytes>, StoreError> {
        let mut command = redis::cmd("ZRANGEBYLEX");
        let limit = i64::try_from(limit).unwrap_or(-1);
        let _ = command.arg(name).arg(from).arg(to).arg("LIMIT").arg(0).arg(limit);
        self.link.ask(&command).await
    }

    pub(crate) async fn counts(&self) -> Result<Counts, StoreError> {
        let counting = self.all().map(|partition| async move {
            let mut commands = redis::pipe();
            let _ = commands.cmd("ZCARD").arg(self.names.customers(partition));
            let _ = commands.cmd("ZCARD").arg(self.names.timers(partition));
            let _ = commands.cmd("ZCARD").arg(self.names.judged(partition));
            let counts: Vec<u64> = self.link.ask_all(&commands).await?;
            // One more for the partition itself.
            Ok::<_, StoreError>(counts.iter().sum::<u64>() + 1)
        });
        let rows = try_join_all(counting).await?.into_iter().sum();
        Ok(Counts { rows, disk_bytes: 0 })
    }
}

fn read_flag(id: &str, fields: &[Bytes]) -> Option<Published> {
    let field = |name: &str| {
        let pair = fields
            .chunks(2)
            .find(|pair| pair.first().is_some_and(|key| key == name.as_bytes()))?;
        pair.get(1)
    };
    let number = |bytes: &Bytes| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
    Some(Published {
        number: id.split_once('-')?.0.parse().ok()?,
        body: field("body")?.clone(),
        partition: Partition(u16::try_from(number(field("partition")?)?).ok()?),
        commit: number(field("commit")?)?,
    })
}

fn read_judged(member: &Bytes) -> Result<(Offset, Bytes), StoreError> {
    share::read_judged(member).ok_or_else(|| keys::unreadable("judgement key", member))
}

fn bound(kind: u8, key: Vec<u8>) -> Vec<u8> {
    let mut bound = vec![kind];
    bound.extend(key);
    bound
}

fn missing(key: &CustomerKey) -> StoreError {
    StoreError::Corrupt {
        reason: format!("{key} is listed and has no record"),
    }
}
