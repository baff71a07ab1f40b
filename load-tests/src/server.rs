//! The system under test: the real binary, in one process or in several, on free ports and in a directory of its own.

use crate::client::Client;
use crate::process;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);
/// Between two looks at the books.
const POLL: Duration = Duration::from_millis(50);

/// The workspace under load.
pub(crate) const WORKSPACE: &str = "load";
pub(crate) const WRITE_KEY: &str = "load-test-write-key-0000";
const READ_KEY: &str = "load-test-read-key-00000";
const ADMIN_KEY: &str = "load-test-admin-key-0000";

/// What the processes of a run share. Removed when dropped.
pub(crate) struct Site {
    binary: PathBuf,
    directory: TempDir,
}

/// The policies that vigie ships.
const POLICIES: &str = include_str!("../../config/policies.toml");

/// The books, as `/v1/books` gives them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Books {
    pub(crate) accepted: u64,
    pub(crate) applied: u64,
    pub(crate) duplicate: u64,
    pub(crate) dead_letter: u64,
    pub(crate) suppressed: u64,
    pub(crate) in_flight: u64,
}

impl Site {
    /// A new directory under `data`, with a configuration of these settings (TOML) and the keys of the run.
    pub(crate) fn new(binary: &Path, data: &Path, settings: &str) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(data)
            .context("making a data directory")?;
        let mut text = String::new();
        for (kind, key) in [("write", WRITE_KEY), ("read", READ_KEY), ("admin", ADMIN_KEY)] {
            text += &format!("[[keys]]\nworkspace = \"{WORKSPACE}\"\nkind = \"{kind}\"\nkey = \"{key}\"\n");
        }
        text += settings;
        if !settings.contains("[relance]") {
            // Nobody of a load test was asked whether opens of mails may be read.
            let policies = directory.path().join("policies.toml");
            std::fs::write(&policies, format!("{POLICIES}\n[consent]\nopens = \"not-refused\"\n"))?;
            text += &format!("[relance]\npolicies = {policies:?}\n");
        }
        std::fs::write(directory.path().join("vigie.toml"), text)?;
        Ok(Self {
            binary: binary.to_owned(),
            directory,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the process `name` keeps its data.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path().join("vigie.toml")
    }

    /// Starts `vigie COMMAND` and waits until it says where it listens.
    pub(crate) async fn start(&self, command: &[&str], name: &str) -> Result<Server> {
        let begun = Instant::now();
        let mut child = Command::new(&self.binary)
            .args(command)
            .arg("--config")
            .arg(self.config())
            .arg("--data-dir")
            .arg(self.data(name))
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
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
        Ok(Server {
            address,
            child,
            starting: begun.elapsed(),
        })
    }

    /// The exit code and the JSON of a command with this configuration.
    pub(crate) async fn configured(&self, command: &[&str]) -> Result<(i32, Value)> {
        let config = self.config();
        let config = config.to_str().context("the path of the configuration is no text")?;
        self.run(&[command, &["--config", config]].concat()).await
    }

    /// The exit code and the JSON of a command.
    pub(crate) async fn run(&self, command: &[&str]) -> Result<(i32, Value)> {
        let said = command.join(" ");
        let output = Command::new(&self.binary)
            .args(command)
            .args(["--output", "json"])
            .output()
            .await
            .with_context(|| format!("vigie {said}"))?;
        let code = output.status.code().unwrap_or(-1);
        let complaint = String::from_utf8_lossy(&output.stderr);
        let answer = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("vigie {said} ended with {code}: {complaint}"))?;
        Ok((code, answer))
    }
}

/// A running process. Killed when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// How long it took until it listened.
    pub(crate) starting: Duration,
    child: Child,
}

impl Server {
    /// The books of the workspace under load.
    pub(crate) async fn books(&self) -> Result<Books> {
        let body = self.read("/v1/books").await?;
        serde_json::from_slice(&body).context("reading the books")
    }

    /// The books once nothing is in flight, or as they are when the patience ends.
    pub(crate) async fn settled(&self, patience: Duration) -> Result<Books> {
        let begun = Instant::now();
        loop {
            let books = self.books().await?;
            if books.in_flight == 0 || begun.elapsed() > patience {
                return Ok(books);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// An answer of the API.
    pub(crate) async fn read(&self, path: &str) -> Result<Bytes> {
        let mut client = Client::connect(self.address, READ_KEY).await?;
        let (status, body) = client.send(Method::GET, path, Bytes::new()).await?;
        if !status.is_success() {
            bail!("{path} answered {status}");
        }
        Ok(body)
    }

    /// The sum of a metric over its labels.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let page = self.read("/metrics").await?;
        Ok(sum(&String::from_utf8_lossy(&page), name))
    }

    /// The quantiles of a histogram, as Prometheus estimates them: by straight lines between its bounds.
    pub(crate) async fn quantiles(&self, name: &str) -> Result<impl Fn(f64) -> f64 + use<>> {
        let page = self.read("/metrics").await?;
        let buckets = buckets(&String::from_utf8_lossy(&page), name);
        Ok(move |share| quantile(&buckets, share))
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.id().and_then(process::cpu).unwrap_or_default()
    }

    /// The most memory that the process ever held.
    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        process::memory(self.id()?, "VmHWM")
    }

    /// Ends the process without a word, as a crash would.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.child.start_kill().context("ending the server")?;
        let _ = tokio::time::timeout(STOP, self.child.wait())
            .await
            .context("the server did not end")??;
        Ok(())
    }
}

/// The sum of the lines of a page of metrics that begin with a name.
fn sum(page: &str, name: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let of_this = rest.starts_with('{') || rest.starts_with(' ');
        of_this.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    values.sum()
}

/// Upper bounds and how many values lie below each, of a histogram without labels.
fn buckets(page: &str, name: &str) -> Vec<(f64, f64)> {
    let lines = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?;
        let (bound, count) = rest.split_once("\"} ")?;
        Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
    });
    lines.collect()
}

fn quantile(buckets: &[(f64, f64)], share: f64) -> f64 {
    let wanted = buckets.last().map_or(0.0, |(_, all)| all * share);
    let (mut below, mut counted) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= wanted && *count > counted {
            // Beyond the last bound nothing is known.
            let width = if bound.is_finite() { bound - below } else { 0.0 };
            return below + width * (wanted - counted) / (count - counted);
        }
        (below, counted) = (if bound.is_finite() { *bound } else { below }, *count);
    }
    f64::NAN
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

    #[test]
    fn quantiles_lie_between_the_bounds_of_their_bucket() {
        let page = "t_bucket{le=\"0.1\"} 50\nt_bucket{le=\"0.2\"} 100\nt_bucket{le=\"+Inf\"} 100\nt_sum 9\n";
        let buckets = buckets(page, "t");
        assert_eq!(buckets.len(), 3);
        assert!((quantile(&buckets, 0.5) - 0.1).abs() < 1e-9);
        assert!((quantile(&buckets, 0.75) - 0.15).abs() < 1e-9);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_mixed_with_others() {
        let page = "# HELP a_total x\na_total{x=\"1 2\"} 3\na_total{x=\"2\"} 4\na_total_more 100\nb 1\n";
        assert_eq!(sum(page, "a_total"), 7.0);
        assert_eq!(sum(page, "b"), 1.0);
    }
}
