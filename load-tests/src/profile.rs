//! Where a process spends its time while it is measured: `perf record` beside it, and the functions that cost most as text.

use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Functions of the table.
const ROWS: usize = 25;

/// A recording.
pub(crate) struct Profile {
    recorder: Child,
    data: PathBuf,
    table: PathBuf,
}

impl Profile {
    /// Starts one, where profiles are wanted.
    pub(crate) async fn start(
        directory: Option<&Path>,
        case: &str,
        run: &str,
        process: Option<u32>,
    ) -> Result<Option<Self>> {
        let (Some(directory), Some(process)) = (directory, process) else {
            return Ok(None);
        };
        tokio::fs::create_dir_all(directory).await?;
        let table = directory.join(format!("{case}-{run}.txt"));
        let data = table.with_extension("perf");
        let recorder = Command::new("perf")
            .args([
                "record",
                "--quiet",
                "--freq",
                "499",
                "--pid",
                &process.to_string(),
                "--output",
            ])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("perf record")?;
        Ok(Some(Self { recorder, data, table }))
    }

    /// Ends it and writes the table.
    pub(crate) async fn finish(mut self) -> Result<()> {
        if let Some(id) = self.recorder.id() {
            let _ = Command::new("kill").args(["-INT", &id.to_string()]).status().await?;
        }
        let _ = self.recorder.wait().await?;
        let output = Command::new("perf")
            .args(["report", "--stdio", "--no-children", "--sort", "symbol", "--input"])
            .arg(&self.data)
            .stdin(Stdio::null())
            .output()
            .await
            .context("perf report")?;
        let mut table = String::new();
        let text = String::from_utf8_lossy(&output.stdout);
        let rows = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        for row in rows.take(ROWS) {
            let _ = writeln!(table, "{}", row.trim());
        }
        std::fs::write(&self.table, table).with_context(|| format!("writing {}", self.table.display()))
    }
}
