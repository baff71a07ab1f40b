//! Processes that a run starts: ended when dropped, and what they cost, as the system counts it in `/proc` (Linux).

use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Ticks of `/proc/PID/stat` in a second; Linux shows user space this number on every machine (proc(5), sysconf(3)).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of user and system that a process has used, its ended threads included; its children are not.
pub(crate) fn cpu(process: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    ticks(&stat).map(|ticks| Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

/// Fields 14 and 15; the second one, the name in brackets, may hold anything.
fn ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

/// A size of `/proc/PID/status` in bytes: `VmHWM` is the most that the process ever held, `VmRSS` what it holds now.
pub(crate) fn memory(process: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib = line.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(kib * 1024)
}

/// The load of the machine in the last minute: how many wanted a core at a time.
pub(crate) fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A program on the path, or in the given places before it.
pub(crate) fn find(name: &str, first: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = first
        .into_iter()
        .chain(std::env::split_paths(&path).map(|directory| directory.join(name)));
    places.find(|path| path.is_file())
}

/// A server that listens on a port of this machine. Killed when dropped.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Service {
    /// Starts it and waits until the port answers.
    pub(crate) async fn start(mut command: Command, port: u16) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let begun = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status} instead of listening on {address}");
            }
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("{name} does not listen on {address}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { child, address })
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.id().and_then(cpu).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_brackets_do_not_move_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 9 9 20 0 1 0 100 0 0";
        assert_eq!(ticks(stat), Some(200.0));
    }

    #[test]
    fn this_process_has_a_size_and_has_worked() {
        let this = std::process::id();
        assert!(memory(this, "VmHWM").unwrap() >= memory(this, "VmRSS").unwrap() / 2);
        assert!(cpu(this).is_some());
    }
}
