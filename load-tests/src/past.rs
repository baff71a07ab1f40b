//! What a run left behind, looked at by the real commands: an audit of the whole store, and a replay of the whole archive.
//!
//! The speeds are what the commands say of their own folding; writing the archive's last part and starting are not in them.

use crate::report::Measures;
use crate::server::Site;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Instant;

/// What was found.
#[derive(Debug)]
pub(crate) struct Past {
    /// The store is what the archive says, and so is a replay: one Merkle root.
    pub(crate) equal: bool,
    /// Events that the oracle folded per second, on one thread; starting included.
    audit_events_per_second: f64,
    /// Events that a replay folded per second, on two threads.
    replay_events_per_second: f64,
}

impl Past {
    pub(crate) fn measures(&self, to: &mut Measures) {
        to.put("audit events/s", self.audit_events_per_second);
        to.put("replay events/s", self.replay_events_per_second);
    }

    pub(crate) fn remark(&self) -> Option<String> {
        (!self.equal).then(|| "audit or replay DIFFERENT".to_owned())
    }
}

/// Audits and replays the data of the process `name`, which has ended.
pub(crate) async fn look(site: &Site, name: &str) -> Result<Past> {
    let data = site.data(name);
    let data = data.to_str().context("the path of a data directory is no text")?;
    // The first one also writes what the archive is owed since the server died.
    let _ = site
        .configured(&["audit", "--data-dir", data, "--sample", "1%"])
        .await?;
    let begun = Instant::now();
    let (code, audit) = site.configured(&["audit", "--data-dir", data]).await?;
    let audited = begun.elapsed();
    ensure!(code < 2, "the audit could not be measured: {audit}");
    let (_, replay) = site.run(&["replay", "--data-dir", data]).await?;
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64).unwrap_or_default();
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let roots = (text(&audit, "root_live"), text(&replay, "merkle_root"));
    Ok(Past {
        equal: code == 0 && roots.0.is_some() && roots.0 == roots.1,
        audit_events_per_second: number(&audit, "events") / audited.as_secs_f64(),
        replay_events_per_second: number(&replay, "events") / number(&replay, "seconds"),
    })
}
