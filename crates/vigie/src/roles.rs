//! What a process does of the whole. It knows which role needs which part, and refuses what cannot work; how a part is
//! started is in `server.rs`.

use crate::config::{Config, LogBackend, StoreBackend};
use anyhow::{Result, bail};
use clap::ValueEnum;
use std::collections::BTreeSet;

/// One of the things that a process can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Role {
    /// Takes events in over HTTP; any number of processes
    Collector,
    /// Folds, scores and flags the partitions that the group assigns to it; any number of processes
    Worker,
    /// Writes the archive and audits it; one process, a second one is refused
    Archivist,
    /// Sends flags to destinations and hands them out on request; one process
    Deliverer,
    /// Answers questions about customers, flags and the past over HTTP; any number of processes
    Api,
}

/// What one process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roles {
    roles: BTreeSet<Role>,
    /// Partitions are spread over processes by a group; else this process has them all.
    pub(crate) shared: bool,
}

impl Roles {
    /// Everything, in this process alone.
    pub(crate) fn all() -> Self {
        Self {
            roles: Role::value_variants().iter().copied().collect(),
            shared: false,
        }
    }

    /// These, beside other processes on the same log and store.
    pub(crate) fn some(roles: impl IntoIterator<Item = Role>, config: &Config) -> Result<Self> {
        let roles: BTreeSet<Role> = roles.into_iter().collect();
        if config.log.backend != LogBackend::Kafka || config.store.backend != StoreBackend::Redis {
            bail!(
                "the log and the store on the local disk belong to one process: use `vigie up`, or set log.backend to \
                 \"kafka\" and store.backend to \"redis\" (config/production.toml shows how)"
            );
        }
        Ok(Self { roles, shared: true })
    }

    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether it needs customer records at all.
    pub(crate) fn need_store(&self) -> bool {
        self.roles.iter().any(|role| *role != Role::Collector)
    }
}
