//! Rebuilding a store from the archive: the same fold over the same records, into a new directory that takes the place of
//! the old one when it is complete.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vigie_archive::{Archive, Wanted};
use vigie_event::{Partition, Position, Record, RejectCode};
use vigie_pipeline::Sandbox;
use vigie_store::{EmbeddedStore, Options, RedisOptions, RedisStore, Store};

/// Where a rebuilt store stands, and where the old one went.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    pub(crate) records: u64,
    pub(crate) customers: u64,
    /// The store that was there before.
    pub(crate) set_aside: Option<PathBuf>,
}

/// Rebuilds the store of a data directory that no process has open.
pub(crate) async fn rebuild(
    archive: &Archive,
    dir: &Path,
    options: &Options,
    progress: impl FnMut(u64),
) -> Result<Rebuilt> {
    let (place, building) = (dir.join("store"), dir.join("store.rebuilding"));
    if building.exists() {
        // What a rebuild that was interrupted has left: it was never in use.
        std::fs::remove_dir_all(&building).with_context(|| building.display().to_string())?;
    }
    if place.exists() {
        // Nobody may have it open: opening takes its lock.
        drop(EmbeddedStore::open(&place, options).or_else(|error| match error {
            vigie_store::StoreError::Locked { .. } => Err(error),
            // A damaged store is what a rebuild is for.
            _ => EmbeddedStore::open(&building, options),
        })?);
        let _ = std::fs::remove_dir_all(&building);
    }
    let store = Arc::new(EmbeddedStore::open(&building, options)?);
    let (records, customers) = fold(archive, store, progress).await?;
    let mut set_aside = None;
    if place.exists() {
        let aside = (1u32..)
            .map(|number| dir.join(format!("store.replaced-{number}")))
            .find(|path| !path.exists())
            .context("no free name for the old store")?;
        std::fs::rename(&place, &aside).with_context(|| aside.display().to_string())?;
        set_aside = Some(aside);
    }
    std::fs::rename(&building, &place).with_context(|| place.display().to_string())?;
    std::fs::File::open(dir)?.sync_all()?;
    Ok(Rebuilt {
        records,
        customers,
        set_aside,
    })
}

/// Rebuilds a store in a Redis that holds none: an old one is deleted by who is sure, never by this program.
pub(crate) async fn rebuild_redis(
    archive: &Archive,
    options: &RedisOptions,
    installation: u128,
    progress: impl FnMut(u64),
) -> Result<Rebuilt> {
    let store = RedisStore::create(options, installation).await?;
    for partition in (0..store.partitions()).map(Partition) {
        if store.partition(partition).await?.is_some() {
            bail!(
                "the Redis holds a store under `{0}:`; delete the keys `{0}:*`, or set redis.namespace to another name",
                options.namespace
            );
        }
    }
    let (records, customers) = fold(archive, Arc::new(store), progress).await?;
    Ok(Rebuilt {
        records,
        customers,
        set_aside: None,
    })
}

/// Folds the whole archive into an empty store; the numbers of records and of customers.
async fn fold<S: Store>(archive: &Archive, store: Arc<S>, mut progress: impl FnMut(u64)) -> Result<(u64, u64)> {
    let mut sandbox = Sandbox::over(Arc::clone(&store)).await?;
    let mut reader = archive.read(Wanted {
        judgement: true,
        ..Wanted::default()
    });
    let mut records = 0u64;
    while let Some(portion) = reader.next().await? {
        records += portion.len() as u64;
        let mut batch: Vec<(Position, Record)> = Vec::with_capacity(portion.len());
        for row in portion {
            if row.judgement.and_then(|judgement| judgement.reason()) == Some(RejectCode::Poison.label()) {
                sandbox.set_aside([row.position]);
            }
            match row.record {
                Ok(record) => batch.push((row.position, record)),
                Err(error) => bail!("the record at {} cannot be read: {error}", row.position),
            }
        }
        sandbox.exact(batch).await?;
        progress(records);
    }
    let mut customers = 0;
    for partition in (0..store.partitions()).map(Partition) {
        customers += store.scan(partition, None, usize::MAX).await?.len() as u64;
    }
    store.persist().await?;
    Ok((records, customers))
}
