//! The server under test: the real binary on a free port and an empty data directory, stopped when the run is over.

use crate::client::Client;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// A running server. Killed when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) write_key: String,
    read_key: String,
    child: Child,
    /// Removed with the server, unless it is asked for.
    directory: TempDir,
}

/// The books, as `/v1/books` gives them.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Books {
    pub(crate) accepted: u64,
    pub(crate) applied: u64,
    pub(crate) duplicate: u64,
    pub(crate) dead_letter: u64,
    pub(crate) suppressed: u64,
    pub(crate) in_flight: u64,
}

impl Server {
    /// Starts the binary and waits until it says where it listens.
    pub(crate) async fn start(binary: &Path, data: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(data)
            .context("making a data directory")?;
        let (write_key, read_key) = (
            "load-test-write-key-0000".to_owned(),
            "load-test-read-key-00000".to_owned(),
        );
        let config = directory.path().join("vigie.toml");
        let key =
            |kind: &str, key: &str| format!("[[keys]]\nworkspace = \"load\"\nkind = \"{kind}\"\nkey = \"{key}\"\n");
        std::fs::write(
            &config,
            format!("{}{}", key("write", &write_key), key("read", &read_key)),
        )?;
        let mut child = Command::new(binary)
            .arg("up")
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let stdout = child.stdout.take().context("the server has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let address = tokio::time::timeout(START, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = bound_address(&line) {
                    return Ok(address);
                }
            }
            bail!("the server ended without saying where it listens")
        });
        let address = address.await.context("the server did not say where it listens")??;
        // Whatever else it prints is read and dropped, so that it never blocks on a full pipe.
        drop(tokio::spawn(async move {
            while let Ok(Some(_)) = lines.next_line().await {}
        }));
        Ok(Self {
            address,
            write_key,
            read_key,
            child,
            directory,
        })
    }

    /// The books of the workspace under load.
    pub(crate) async fn books(&self) -> Result<Books> {
        let mut client = Client::connect(self.address, &self.read_key).await?;
        let (status, body) = client.send(Method::GET, "/v1/books", Bytes::new()).await?;
        if !status.is_success() {
            bail!("the books answered {status}");
        }
        serde_json::from_slice(&body).context("reading the books")
    }

    /// The most memory that the process ever held, where the system tells (Linux).
    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    }

    /// Ends the process without a word, as a crash would, and hands over its data directory.
    pub(crate) async fn stop(mut self) -> Result<TempDir> {
        self.child.start_kill().context("ending the server")?;
        let _ = tokio::time::timeout(STOP, self.child.wait())
            .await
            .context("the server did not end")??;
        Ok(self.directory)
    }
}

/// The address in a line such as `listening on http://127.0.0.1:40321`.
fn bound_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || ".:[]abcdef".contains(c)))
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_servers_words() {
        for (line, expected) in [
            ("listening on http://127.0.0.1:40321", Some("127.0.0.1:40321")),
            (
                "vigie 0.1.0: http://127.0.0.1:80/ (console), data in x",
                Some("127.0.0.1:80"),
            ),
            ("http://[::1]:8080", Some("[::1]:8080")),
            ("starting", None),
        ] {
            assert_eq!(
                bound_address(line),
                expected.map(|text| text.parse().unwrap()),
                "{line}"
            );
        }
    }
}
