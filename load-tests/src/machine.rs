//! What the figures were measured on: cores, processor, memory, and how long one durable write takes.

use anyhow::{Context, Result};
use serde::Serialize;
use std::fs::{File, read_to_string};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// Writes of the probe.
const PROBES: usize = 200;
const BLOCK: [u8; 4096] = [0x5A; 4096];

/// Facts about the machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) processor: String,
    pub(crate) memory_bytes: u64,
    pub(crate) system: String,
    /// Appending 4 KiB and fdatasync, in the directory where the data were: median and 99th percentile.
    pub(crate) fsync_p50_ms: f64,
    pub(crate) fsync_p99_ms: f64,
}

/// Asks the system and probes the disk under `data`.
pub(crate) fn facts(data: &Path) -> Result<Machine> {
    let mut latencies = probe(data).context("probing the disk")?;
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| {
        latencies
            .get((share * PROBES as f64) as usize)
            .copied()
            .unwrap_or_default()
    };
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let kib = after(&memory, "MemTotal").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    let release = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(Machine {
        cores: std::thread::available_parallelism()?.get(),
        processor: after(&cpu, "model name").unwrap_or_else(|| "unknown".to_owned()),
        memory_bytes: kib.unwrap_or(0) * 1024,
        system: format!("{} {}", std::env::consts::OS, release.trim()),
        fsync_p50_ms: at(0.5),
        fsync_p99_ms: at(0.99),
    })
}

fn probe(directory: &Path) -> Result<Vec<f64>> {
    let path = directory.join("fsync-probe");
    let mut file = File::create(&path)?;
    let mut latencies = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let begun = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        latencies.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    std::fs::remove_file(&path)?;
    Ok(latencies)
}
