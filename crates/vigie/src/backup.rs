//! `vigie backup` and `vigie restore` of a data directory. A backup is taken beside a running server: it holds what is only ever
//! appended to (the log, the journal of dead letters) or never changed (the archive), and the keys. It never holds the store:
//! that is a function of the others, and is rebuilt and audited when the backup is restored.

mod files;

use crate::bounds;
use crate::cli::{Failure, Format, print, runtime};
use crate::clocks;
use crate::config::{self, Config, ConfigSources, LogBackend, StoreBackend};
use crate::past::{self, House};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use files::{copy_in, copy_out};
use std::path::{Path, PathBuf};
use vigie_archive::{Archive, Mode};
use vigie_audit::{Report, Sample};
use vigie_store::Store;

/// Back up a data directory, beside a running server or not: log, dead letters, archive and keys
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the backup goes: a directory that does not exist yet, or is empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Configuration of that server, where it is not the default one
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Make a data directory from a backup, rebuild its store and audit it: exit 0 equal, 1 different, 2 not measured
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The data directory to make: it must not exist yet, or be empty
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Configuration of that server, where it is not the default one
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl Backup {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = load(self.config, &self.data_dir)?;
        refuse_what_is_elsewhere(&config)?;
        if !config.data.dir.join("log").is_dir() {
            return Err(anyhow!("{} holds no log of vigie", config.data.dir.display()).into());
        }
        let list = copy_out(
            &config.data.dir,
            &self.to,
            config.log.partitions,
            &clocks::now().to_string(),
        )?;
        print(&match self.output {
            Format::Json => format!(
                "{:#}\n",
                serde_json::json!({"to": self.to, "files": list.files.len(), "bytes": list.bytes(), "taken_at": list.taken_at})
            ),
            Format::Text => format!(
                "{} files, {} bytes in {}; try it now and then: vigie restore --from {} --data-dir SOMEWHERE\n",
                list.files.len(),
                list.bytes(),
                self.to.display(),
                self.to.display()
            ),
        })
    }
}

impl Restore {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let config = load(self.config, &self.data_dir)?;
        refuse_what_is_elsewhere(&config)?;
        let list = copy_in(&self.from, &config.data.dir, config.log.partitions)?;
        let (records, report) = runtime()?.block_on(revive(&config))?;
        print(&match self.output {
            Format::Json => {
                let audit: serde_json::Value = serde_json::from_str(&report.json())?;
                format!(
                    "{:#}\n",
                    serde_json::json!({"files": list.files.len(), "bytes": list.bytes(), "records": records, "audit": audit})
                )
            }
            Format::Text => format!(
                "{} files, {} bytes as of {}; store rebuilt from {records} archived records; what the log holds beyond is folded at the next start\n{report}\n",
                list.files.len(),
                list.bytes(),
                list.taken_at
            ),
        })?;
        match report.exit_code() {
            0 => Ok(()),
            code => Err(Failure::Verdict(code)),
        }
    }
}

fn load(file: Option<PathBuf>, data_dir: &Path) -> Result<Config, Failure> {
    let flags = vec![("data.dir".to_owned(), data_dir.display().to_string())];
    config::load(ConfigSources::of_process(file, flags)).map_err(|errors| Failure::Usage(errors.to_string()))
}

/// What is not in the data directory has ways of its own to be kept.
fn refuse_what_is_elsewhere(config: &Config) -> Result<()> {
    if config.log.backend == LogBackend::Kafka || config.store.backend == StoreBackend::Redis {
        bail!(
            "the log or the store is not in the data directory: brokers and Redis are backed up by their own means, and a lost store is rebuilt with vigie rebuild"
        );
    }
    if let Some(url) = &config.archive.url {
        bail!(
            "the archive is at {}: back that up first, by its own means; this command is for archives in the data directory",
            url.display()
        );
    }
    Ok(())
}

/// Rebuilds the store of a restored directory and audits all of it.
async fn revive(config: &Config) -> Result<(u64, Report)> {
    let place = past::place(config)?;
    let archive = Archive::open(place, Mode::Write, config.log.partitions).await?;
    let rebuilt = past::rebuild(&archive, &config.data.dir, &bounds::store_options(config), |_| {}).await?;
    // One writer at a time.
    drop(archive);
    let house = House::open(config).await?;
    let snapshot = house.store.snapshot().await?;
    let sample = Sample::all(house.store.partitions());
    let report = past::audit::audit(&house.archive, &snapshot, sample, |_| {}).await?;
    Ok((rebuilt.records, report))
}
