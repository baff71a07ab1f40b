//! The Redis of a run: its process, what `redis-benchmark` can write to it, and a look at whether keys are there. That look is
//! the only thing that a run believes about when a score is visible; it speaks the protocol itself (RESP 2).

use crate::process::{self, Service};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Writes of one `redis-benchmark`.
const WRITES: u32 = 400_000;
/// Customers that it spreads them over.
const KEYS: u32 = 100_000;
/// What a team would write for a customer: six short fields, about 90 bytes.
const FIELDS: [&str; 12] = [
    "score",
    "0.123456",
    "c7",
    "12.3456",
    "c30",
    "34.5678",
    "purchases",
    "12",
    "last_type",
    "email_open",
    "last_ts",
    "1767225600000",
];
/// The same, unless what is there is newer: what any writer needs that may be run twice or late.
const GUARDED: &str = "local v = redis.call('hget', KEYS[1], 'last_ts') \
    if v and tonumber(v) > tonumber(ARGV[12]) then return 0 end \
    redis.call('hset', KEYS[1], unpack(ARGV)) return 1";

/// A Redis of its own for one run.
pub(crate) struct Redis {
    service: Service,
}

/// Writes per second, and Redis's CPU seconds for a million of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing {
    pub(crate) per_second: f64,
    pub(crate) cpu_per_million: f64,
}

impl Redis {
    /// Whether there is one to be started.
    pub(crate) fn at_hand() -> bool {
        ["redis-server", "redis-benchmark"]
            .iter()
            .all(|name| process::find(name, []).is_some())
    }

    /// Starts one. `appendfsync` is Redis's setting of that name; `None` keeps nothing on the disk.
    pub(crate) async fn start(directory: &Path, appendfsync: Option<&str>) -> Result<Self> {
        let port = process::free_port()?;
        let mut command = Command::new("redis-server");
        let _ = command
            .current_dir(directory)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--maxmemory-policy", "noeviction"])
            .args(["--appendonly", if appendfsync.is_some() { "yes" } else { "no" }])
            .args(["--appendfsync", appendfsync.unwrap_or("no")])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(Self {
            service: Service::start(command, port).await?,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.service.address
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.service.cpu()
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.service.id()
    }

    /// What the client that comes with Redis can write when nobody else does: plainly, and through a guard. Empties it.
    pub(crate) async fn limits(&self, pipeline: u32) -> Result<[Writing; 2]> {
        let mut plain = vec!["hset", "limit:__rand_int__"];
        plain.extend(FIELDS);
        let plain = self.benchmark(pipeline, &plain).await?;
        let mut looks = Looks::connect(self.address()).await?;
        let guard = looks.ask(&["SCRIPT", "LOAD", GUARDED]).await?;
        let mut guarded = vec!["evalsha", &guard, "1", "limit:__rand_int__"];
        guarded.extend(FIELDS);
        let guarded = self.benchmark(pipeline, &guarded).await?;
        let _ = looks.ask(&["FLUSHALL"]).await?;
        Ok([plain, guarded])
    }

    async fn benchmark(&self, pipeline: u32, command: &[&str]) -> Result<Writing> {
        let before = self.cpu();
        let output = Command::new("redis-benchmark")
            .args(["-p", &self.address().port().to_string(), "--csv"])
            .args(["-c", "1", "-P", &pipeline.to_string()])
            .args(["-n", &WRITES.to_string(), "-r", &KEYS.to_string()])
            .args(command)
            .output()
            .await
            .context("redis-benchmark")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let per_second = rate(&text).with_context(|| format!("redis-benchmark said: {text}"))?;
        let used = self.cpu().saturating_sub(before).as_secs_f64();
        Ok(Writing {
            per_second,
            cpu_per_million: used / f64::from(WRITES) * 1e6,
        })
    }
}

/// The second value of the last line of its CSV.
fn rate(csv: &str) -> Option<f64> {
    let line = csv.trim().lines().last()?;
    // The command itself, in the first value, may hold commas; the rest is numbers.
    line.rsplit("\",\"").nth(6)?.trim_matches('"').parse().ok()
}

/// A connection that looks.
pub(crate) struct Looks {
    stream: BufReader<TcpStream>,
    words: String,
}

impl Looks {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting to Redis")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            words: String::new(),
        })
    }

    /// The customers that are visible, of those given by whatever names them.
    pub(crate) async fn visible<K: Copy + Ord>(&mut self, keys: &BTreeMap<K, String>) -> Result<Vec<K>> {
        self.words.clear();
        for key in keys.values() {
            // An empty score is none: the field counts, not the key.
            push(&mut self.words, &["HSTRLEN", key, "attrition"]);
        }
        self.stream.write_all(self.words.as_bytes()).await?;
        let mut found = Vec::new();
        for name in keys.keys() {
            if self.answer().await? != "0" {
                found.push(*name);
            }
        }
        Ok(found)
    }

    /// One command with a short answer.
    pub(crate) async fn ask(&mut self, command: &[&str]) -> Result<String> {
        self.words.clear();
        push(&mut self.words, command);
        self.stream.write_all(self.words.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line).await? > 0, "Redis hung up");
        let line = line.trim_end();
        let Some((kind, rest)) = line.split_at_checked(1) else {
            bail!("Redis answered nothing");
        };
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "$" => {
                let mut text = String::new();
                let _ = self.stream.read_line(&mut text).await?;
                Ok(text.trim_end().to_owned())
            }
            _ => bail!("Redis answered {line}"),
        }
    }
}

fn push(to: &mut String, words: &[&str]) {
    let _ = write!(to, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(to, "${}\r\n{word}\r\n", word.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_found_behind_any_command() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                   \"hset a,b 1\",\"435161.50\",\"1.1\",\"0.2\",\"1.0\",\"1.2\",\"1.3\",\"2.0\"\n";
        assert_eq!(rate(csv), Some(435_161.5));
        assert_eq!(rate("ERROR"), None);
    }

    #[test]
    fn commands_are_arrays_of_counted_strings() {
        let mut words = String::new();
        push(&mut words, &["GET", "é"]);
        assert_eq!(words, "*2\r\n$3\r\nGET\r\n$2\r\né\r\n");
    }
}
