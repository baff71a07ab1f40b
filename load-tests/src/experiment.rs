//! The experiment files: what is sent, how fast, for how long.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One case.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Experiment {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) customers: u32,
    pub(crate) batch_events: u32,
    /// Bytes of one event's JSON, padded.
    pub(crate) event_bytes: usize,
    pub(crate) connections: u32,
    /// Every so many batches one is sent twice; 0 for never.
    pub(crate) resend_every: u64,
    pub(crate) run: Vec<Run>,
}

/// One run of a case.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Run {
    pub(crate) name: String,
    /// Absent: as fast as the connections allow.
    pub(crate) events_per_second: Option<u64>,
    pub(crate) seconds: u64,
}

/// Every `*/experiment.toml` of a directory, in the order of names.
pub(crate) fn all(directory: &Path) -> Result<Vec<Experiment>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path().join("experiment.toml");
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Experiment> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let experiment: Experiment = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    let Experiment {
        customers,
        batch_events,
        connections,
        ..
    } = experiment;
    ensure!(
        customers > 0 && batch_events > 0 && connections > 0,
        "{}: a number is 0",
        path.display()
    );
    ensure!(
        experiment.run.iter().all(|run| run.events_per_second != Some(0)),
        "{}: a rate is 0",
        path.display()
    );
    Ok(experiment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_experiments_in_the_repository_are_valid() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        assert!(!all(&cases).unwrap().is_empty());
    }
}
