//! A data directory that no server has open, for tools that work beside a stopped server.

use crate::backends::{self, AnyStore};
use crate::config::Config;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vigie_archive::{Archive, Mode, Place};
use vigie_ingestion::log::Log;
use vigie_pipeline::{Archivist, ArchivistOptions, committed};
use vigie_telemetry::Metrics;

use super::shelf::Kept;

/// Log, store and archive of a stopped server.
pub(crate) struct House {
    pub(crate) store: Arc<AnyStore>,
    pub(crate) archive: Arc<Archive>,
}

/// Where the archive of a configuration is.
pub(crate) fn place(config: &Config) -> Result<Place> {
    let default = config.data.dir.join("archive");
    let place = config.archive.url.as_ref().unwrap_or(&default);
    Ok(Place::parse(&place.to_string_lossy())?)
}

impl House {
    /// Opens it, and writes to the archive what the store has folded and the archive does not hold yet.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        let dir = &config.data.dir;
        expect_data(dir)?;
        let log = backends::main_log(config, &Metrics::disabled()).await?;
        // Nothing is made here: who looks at the past has one.
        let store = Arc::new(backends::main_store(config, true).await?);
        let archive = Arc::new(Archive::open(place(config)?, Mode::Write, log.partitions()).await?);
        let status = committed(&*store).await?;
        let kept = Kept(Arc::clone(&archive));
        let (archivist, _) = Archivist::new(&log, Arc::clone(&store), kept, status, ArchivistOptions::default())?;
        archivist.catch_up(|_| {}).await?;
        Ok(Self { store, archive })
    }
}

/// Refuses a directory that is no data directory, so that a typing error makes nothing new.
pub(crate) fn expect_data(dir: &Path) -> Result<()> {
    let inside = |name: &str| -> PathBuf { dir.join(name) };
    if inside("store").exists() || inside("archive").exists() || inside("dead-letters").exists() {
        return Ok(());
    }
    if dir.exists() {
        bail!(
            "{} is no data directory of vigie; name one with --data-dir",
            dir.display()
        );
    }
    Err(std::io::Error::from(std::io::ErrorKind::NotFound)).with_context(|| {
        format!(
            "data directory {}; name one with --data-dir, or a running server with --url",
            dir.display()
        )
    })
}
