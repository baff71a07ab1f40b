//! The audit of a stopped server: the oracle's recomputation from the whole log against the store, at the store's positions.
//! The oracle says what is different; this file only brings both sides together.

use crate::config::Config;
use crate::server;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::time::Duration;
use vigie_audit::{Audit, Facts, Live, Oracle, Report, Sample};
use vigie_event::{CustomerKey, Offset, Partition, Record};
use vigie_ingestion::log::{Log, LogReader};
use vigie_store::{EmbeddedStore, Snapshot, Store, StoreError};
use vigie_telemetry::Metrics;

/// Rows read from the store in one call.
const PAGE: usize = 1_000;

/// Compares everything. No server may run on the directory: log and store are opened, and thereby locked.
pub(crate) async fn audit(config: &Config) -> Result<Report> {
    let dir = &config.data.dir;
    if !dir.join("store").is_dir() {
        bail!(
            "{} is no data directory of vigie; name one with --data-dir",
            dir.display()
        );
    }
    let log = server::main_log(config, &Metrics::disabled())?;
    let store = EmbeddedStore::open(&dir.join("store"), &server::store_options(config))?;
    let (partitions, snapshot) = (store.partitions(), store.snapshot().await?);
    let mut audit = Audit::new(Sample::all(partitions));
    let mut oracles: BTreeMap<Partition, (Facts, Oracle)> = BTreeMap::new();
    for partition in (0..partitions).map(Partition) {
        let facts = match snapshot.partition(partition)? {
            None => Facts::default(),
            Some(bytes) => Facts::decode(&bytes)
                .with_context(|| format!("the store's facts of partition {partition} cannot be read"))?,
        };
        let _none = oracles.insert(partition, (facts, Oracle::new(partition, partitions)?));
    }
    let from: BTreeMap<Partition, Offset> = oracles.keys().map(|partition| (*partition, Offset(0))).collect();
    let mut reader = log.reader(from)?;
    loop {
        let entries = reader.next(10_000, 16 << 20, Duration::ZERO).await?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let Some((facts, oracle)) = oracles.get_mut(&entry.position.partition) else {
                continue;
            };
            let record = Record::decode(&entry.payload)
                .with_context(|| format!("the record at {} cannot be read", entry.position))?;
            if entry.position.offset < facts.next {
                oracle.fold(entry.position, record)?;
            } else {
                oracle.beyond(&record);
            }
        }
    }
    for (partition, (facts, oracle)) in oracles {
        let customers = Customers {
            snapshot: &snapshot,
            partition,
            page: Vec::new().into_iter(),
            after: None,
            ended: false,
        };
        audit.partition(oracle.finish(), Live { facts, customers });
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
