//! The Kafka-compatible broker of a run: tansu in memory, started for it and ended with it, or one that was there
//! before.
//!
//! In memory, because tansu on SQLite takes and gives some 50,000 records a second and would be what is measured. Its memory
//! engine cannot resume in the middle of a batch; nothing here does, and a run whose records do not all arrive is a failed run.

use crate::process::{self, Service};
use anyhow::{Context, Result};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// A broker.
pub(crate) enum Broker {
    /// Ours.
    Own(Service),
    /// Somebody's: its CPU time is not ours to know.
    Given(String),
}

/// Where tansu is; `make test-kafka` builds it.
pub(crate) fn tansu() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let named = std::env::var_os("VIGIE_TANSU").map(PathBuf::from);
    process::find("tansu", named.into_iter().chain([cache.join("vigie/tools/bin/tansu")]))
}

impl Broker {
    /// The given one, or a tansu of its own.
    pub(crate) async fn start(given: Option<&str>, directory: &Path) -> Result<Self> {
        if let Some(address) = given {
            let _: SocketAddr = address
                .to_socket_addrs()
                .with_context(|| format!("the broker {address}: write it as host:port"))?
                .next()
                .with_context(|| format!("the broker {address} has no address"))?;
            return Ok(Self::Given(address.to_owned()));
        }
        let binary = tansu().context("no tansu: `make test-kafka` builds one, --broker names another broker")?;
        let port = process::free_port()?;
        let listener = format!("tcp://127.0.0.1:{port}");
        let mut command = Command::new(binary);
        let _ = command
            .current_dir(directory)
            .args(["broker", "--silent", "--listener-url", &listener])
            .args(["--advertised-listener-url", &listener])
            .args(["--storage-engine", "memory://tansu/"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self::Own(Service::start(command, port).await?))
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Own(service) => service.address.to_string(),
            Self::Given(address) => address.clone(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Own(_) => "tansu in memory",
            Self::Given(address) => address,
        }
    }

    /// CPU time it has used.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        match self {
            Self::Own(service) => Some(service.cpu()),
            Self::Given(_) => None,
        }
    }
}
