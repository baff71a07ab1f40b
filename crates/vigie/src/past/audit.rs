//! An audit: the oracle's recomputation from the archive against one snapshot of the store.

use anyhow::Result;
use std::collections::BTreeMap;
use vigie_archive::{Archive, Wanted};
use vigie_audit::{Audit, Facts, Live, Oracle, Report, Sample};
use vigie_event::{CustomerKey, Offset, Partition, RejectCode};
use vigie_store::{Snapshot, StoreError};

/// Customers read from the store in one call.
const PAGE: usize = 1_000;

/// Compares the sample's partitions. The archive must reach the snapshot's positions. `progress` is told how many records were
/// folded.
pub(crate) async fn audit<S: Snapshot>(
    archive: &Archive,
    snapshot: &S,
    sample: Sample,
    mut progress: impl FnMut(u64),
) -> Result<Report> {
    let mut audit = Audit::new(sample.clone());
    let ends = archive.ends();
    let mut oracles: BTreeMap<Partition, Oracle> = BTreeMap::new();
    let mut facts: BTreeMap<Partition, Facts> = BTreeMap::new();
    for partition in sample.chosen() {
        let stored = match snapshot.partition(partition)? {
            None => Some(Facts::default()),
            Some(bytes) => Facts::decode(&bytes),
        };
        let Some(stored) = stored else {
            audit.not_measured(format!("the store's facts of partition {partition} cannot be read"));
            return Ok(audit.finish());
        };
        let end = ends.get(usize::from(partition.0)).copied().unwrap_or_default();
        if end < stored.next {
            audit.not_measured(format!(
                "the archive ends at {end} in partition {partition} and the store is at {}; write the archive first",
                stored.next
            ));
            return Ok(audit.finish());
        }
        let _ = facts.insert(partition, stored);
        let _ = oracles.insert(partition, Oracle::new(partition, sample.of())?);
    }
    let mut reader = archive.read(Wanted {
        partitions: Some(sample.chosen().collect()),
        judgement: true,
        ..Wanted::default()
    });
    let mut folded = 0u64;
    while let Some(portion) = reader.next().await? {
        folded += portion.len() as u64;
        for row in portion {
            let partition = row.position.partition;
            let cut = facts.get(&partition).map_or(Offset(0), |facts| facts.next);
            let Some(oracle) = oracles.get_mut(&partition) else {
                continue;
            };
            let record = match row.record {
                Ok(record) => record,
                Err(error) => {
                    audit.not_measured(format!("the record at {} cannot be read: {error}", row.position));
                    return Ok(audit.finish());
                }
            };
            if row.position.offset >= cut {
                oracle.beyond(&record);
                continue;
            }
            // That a record could not be folded is a fact about a past process, which only the archive knows.
            let poison = row.judgement.and_then(|judgement| judgement.reason()) == Some(RejectCode::Poison.label());
            if poison {
                oracle.set_aside(row.position, record)?;
            } else {
                oracle.fold(row.position, record)?;
            }
        }
        progress(folded);
    }
    for (partition, oracle) in oracles {
        let Some(facts) = facts.remove(&partition) else {
            continue;
        };
        let live = Live {
            facts,
            customers: Customers {
                snapshot,
                partition,
                page: Vec::new().into_iter(),
                after: None,
                ended: false,
            },
        };
        audit.partition(oracle.finish(), live);
    }
    let mut after = None;
    loop {
        let page = snapshot.flags(after.as_ref(), PAGE)?;
        let complete = page.len() < PAGE;
        after = page.last().map(|(workspace, number, _)| (workspace.clone(), *number));
        for (workspace, _, body) in page {
            audit.flag(&workspace, &body);
        }
        if complete {
            return Ok(audit.finish());
        }
    }
}

/// The customers of a partition, page by page.
struct Customers<'a, S> {
    snapshot: &'a S,
    partition: Partition,
    page: std::vec::IntoIter<(CustomerKey, bytes::Bytes)>,
    after: Option<CustomerKey>,
    ended: bool,
}

impl<S: Snapshot> Iterator for Customers<'_, S> {
    type Item = Result<(CustomerKey, bytes::Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.page.next() {
                return Some(Ok(row));
            }
            if self.ended {
                return None;
            }
            match self.snapshot.scan(self.partition, self.after.as_ref(), PAGE) {
                Ok(rows) => {
                    self.ended = rows.len() < PAGE;
                    self.after = rows.last().map(|(key, _)| key.clone());
                    self.page = rows.into_iter();
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
