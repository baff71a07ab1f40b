//! What a run left behind, looked at by the real commands: an audit of the whole store, and a replay of the whole archive.
//!
//! The speeds are what the commands say of their own folding; writing the archive's last part and starting are not in them.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use std::time::Instant;
use tokio::process::Command;

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Past {
    /// The store is what the archive says.
    pub(crate) equal: bool,
    /// Events that the oracle folded per second, on one thread; starting included.
    pub(crate) audit_events_per_second: f64,
    /// Events that a replay folded per second, on two threads.
    pub(crate) replay_events_per_second: f64,
    /// The live store's Merkle root, and the replay's.
    roots: (String, String),
}

impl Past {
    pub(crate) fn verdict(&self) -> &'static str {
        if self.equal { "equal" } else { "DIFFERENT" }
    }
}

/// Audits and replays the data directory of a server that has ended.
pub(crate) async fn look(binary: &Path, data: &Path) -> Result<Past> {
    // The first one also writes what the archive is owed since the server died.
    let _ = command(binary, "audit", data, &["--sample", "1%"]).await?;
    let begun = Instant::now();
    let (code, audit) = command(binary, "audit", data, &[]).await?;
    let audited = begun.elapsed();
    ensure!(code < 2, "the audit could not be measured: {audit}");
    let (_, replay) = command(binary, "replay", data, &[]).await?;
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64).unwrap_or_default();
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let roots = (text(&audit, "root_live"), text(&replay, "merkle_root"));
    Ok(Past {
        equal: code == 0 && roots.0 == roots.1,
        audit_events_per_second: number(&audit, "events") / audited.as_secs_f64(),
        replay_events_per_second: number(&replay, "events") / number(&replay, "seconds"),
        roots,
    })
}

/// The exit code and the JSON of a command over a data directory.
async fn command(binary: &Path, name: &str, data: &Path, more: &[&str]) -> Result<(i32, Value)> {
    let output = Command::new(binary)
        .arg(name)
        .args(["--output", "json", "--data-dir"])
        .arg(data.join("data"))
        .args(more)
        .output()
        .await
        .with_context(|| format!("vigie {name}"))?;
    let code = output.status.code().unwrap_or(-1);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let json = serde_json::from_slice(&output.stdout);
    Ok((
        code,
        json.with_context(|| format!("vigie {name} ended with {code}: {complaint}"))?,
    ))
}
