//! Opening: is this a Redis that can keep a store, is it ours, and is all of it there. A store is made once, on purpose;
//! from then on a missing sentinel means that it was lost, never that it is new.

use super::link::{Link, field};
use super::names::Names;
use super::{Options, RedisStore};
use crate::StoreError;
use futures::future::try_join_all;
use vigie_event::Partition;

/// The layout of the keys. Another version is refused, never guessed.
const LAYOUT_VERSION: &str = "1";
/// Scripts with a first line, which Redis judges before it starts them, came with this version.
const OLDEST: u32 = 7;

/// The sentinel of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sentinel {
    installation: String,
    layout: String,
    partitions: String,
    seq: String,
}

impl RedisStore {
    /// Opens the store that was made with [`RedisStore::create`]. [`StoreError::Lost`] if it is not there.
    pub async fn open(options: &Options) -> Result<Self, StoreError> {
        let (link, names) = reach(options).await?;
        let found = sentinels(&link, &names, options.partitions).await?;
        let installation = judge(&found, options)?.ok_or_else(|| StoreError::Lost {
            reason: format!("redis holds no store under `{}:`", options.namespace),
        })?;
        Ok(Self::new(link, names, options, installation))
    }

    /// Makes an empty store where there is none, or opens the one that is there. Only for who knows that nothing was
    /// ever kept here, or that it is given up: whoever has folded a record before must call [`RedisStore::open`].
    /// `installation` is a random number, by which this store is told from every other.
    pub async fn create(options: &Options, installation: u128) -> Result<Self, StoreError> {
        let (link, names) = reach(options).await?;
        let found = sentinels(&link, &names, options.partitions).await?;
        let installation = match judge(&found, options) {
            Ok(Some(installation)) => installation,
            // Without the first sentinel, which is written last, a making was interrupted before anything was kept.
            Ok(None) => make(&link, &names, options, installation).await?,
            Err(error) if matches!(error, StoreError::Lost { .. }) && is_unfinished(&found) => {
                make(&link, &names, options, installation).await?
            }
            Err(error) => return Err(error),
        };
        Ok(Self::new(link, names, options, installation))
    }
}

async fn reach(options: &Options) -> Result<(Link, Names), StoreError> {
    let refused = |reason: String| Err(StoreError::Layout { reason });
    if options.namespace.is_empty() || options.namespace.contains(['{', '}', ':']) {
        return refused(format!(
            "`{}` cannot be the namespace of keys; use letters, digits and -",
            options.namespace
        ));
    }
    let link = Link::new(options)?;
    for info in link.ask_masters::<String>(&redis::cmd("INFO")).await? {
        let value = |name: &str| field(&info, name).unwrap_or_default();
        let place = || format!("redis at port {}", value("tcp_port"));
        let version = value("redis_version");
        let major: u32 = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .unwrap_or(0);
        if major < OLDEST {
            return refused(format!(
                "{} is version {version}; it must be {OLDEST}.0 or later",
                place()
            ));
        }
        let policy = value("maxmemory_policy");
        if policy != "noeviction" {
            return refused(format!(
                "{} may evict customers (maxmemory-policy {policy}); run `redis-cli config set maxmemory-policy noeviction`",
                place()
            ));
        }
        if value("aof_enabled") != "1" && !options.volatile {
            return refused(format!(
                "{} forgets its last writes when it restarts (appendonly no); run `redis-cli config set appendonly yes`, \
                 or allow it explicitly if a lost store may be rebuilt from the archive",
                place()
            ));
        }
    }
    Ok((link, Names::new(&options.namespace)))
}

async fn sentinels(link: &Link, names: &Names, partitions: u16) -> Result<Vec<Option<Sentinel>>, StoreError> {
    let read = (0..partitions).map(Partition).map(|partition| async move {
        let mut command = redis::cmd("HMGET");
        let _ = command
            .arg(names.partition(partition))
            .arg(&["installation", "layout", "partitions", "seq"]);
        let fields: Vec<Option<String>> = link.ask(&command).await?;
        let mut fields = fields.into_iter();
        let mut next = || fields.next().flatten();
        Ok(next().map(|installation| Sentinel {
            installation,
            layout: next().unwrap_or_default(),
            partitions: next().unwrap_or_default(),
            seq: next().unwrap_or_default(),
        }))
    });
    try_join_all(read).await
}

/// The installation that all sentinels name, or `None` if there is none at all.
fn judge(found: &[Option<Sentinel>], options: &Options) -> Result<Option<String>, StoreError> {
    let Some(first) = found.iter().flatten().next() else {
        return Ok(None);
    };
    if first.layout != LAYOUT_VERSION {
        return Err(StoreError::Layout {
            reason: format!("unknown layout {}", first.layout),
        });
    }
    if first.partitions != options.partitions.to_string() {
        return Err(StoreError::Layout {
            reason: format!(
                "it was created with {} partitions, not {}",
                first.partitions, options.partitions
            ),
        });
    }
    for (number, sentinel) in found.iter().enumerate() {
        let reason = match sentinel {
            None => format!("partition {number} is not there, but others are"),
            Some(other) if other.installation != first.installation => {
                format!(
                    "partition {number} belongs to installation {}, others to {}",
                    other.installation, first.installation
                )
            }
            Some(_) => continue,
        };
        return Err(StoreError::Lost { reason });
    }
    Ok(Some(first.installation.clone()))
}

fn is_unfinished(found: &[Option<Sentinel>]) -> bool {
    found.first().is_some_and(Option::is_none) && found.iter().flatten().all(|sentinel| sentinel.seq == "0")
}

/// Writes what is missing and changes nothing that is there, so that two who do it at once make one store.
async fn make(link: &Link, names: &Names, options: &Options, installation: u128) -> Result<String, StoreError> {
    let mut command = redis::cmd("SET");
    let _ = command
        .arg(names.installation())
        .arg(format!("{installation:032x}"))
        .arg("NX");
    let _made: bool = link.ask(&command).await?;
    let installation: String = link.ask(redis::cmd("GET").arg(names.installation())).await?;
    for partition in (0..options.partitions).rev().map(Partition) {
        let name = names.partition(partition);
        let mut commands = redis::pipe();
        let partitions = options.partitions.to_string();
        let fields = [
            ("layout", LAYOUT_VERSION),
            ("partitions", partitions.as_str()),
            ("epoch", "0"),
            ("seq", "0"),
            ("installation", installation.as_str()),
        ];
        for (field, value) in fields {
            let _ = commands.cmd("HSETNX").arg(&name).arg(field).arg(value);
        }
        let _: Vec<u64> = link.ask_all(&commands).await?;
    }
    Ok(installation)
}
