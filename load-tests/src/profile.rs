//! Where a process spends its time while it is measured: `perf record` beside it, and the functions that cost most as a table.

use crate::process;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Functions of the table.
const ROWS: usize = 15;
/// Letters of a function's name.
const NAME: usize = 110;

/// A recording.
pub(crate) struct Profile {
    recorder: Child,
    data: PathBuf,
}

impl Profile {
    /// Starts one in a directory of the run, where there is `perf`.
    pub(crate) fn start(directory: &Path, process: Option<u32>) -> Result<Option<Self>> {
        let Some(process) = process.filter(|_| process::find("perf", []).is_some()) else {
            return Ok(None);
        };
        let data = directory.join("perf.data");
        let recorder = Command::new("perf")
            .args([
                "record",
                "--quiet",
                "--freq",
                "199",
                "--pid",
                &process.to_string(),
                "--output",
            ])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("perf record")?;
        Ok(Some(Self { recorder, data }))
    }

    /// Ends it: the table, in Markdown. `None` where the kernel did not let it look.
    pub(crate) async fn finish(mut self) -> Result<Option<String>> {
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
        Ok(table(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// The first lines of a report, such as `  12.34%  [.] name`.
fn table(report: &str) -> Option<String> {
    let rows = report.lines().filter_map(|line| {
        let (share, rest) = line.trim().split_once('%')?;
        let share = share.parse::<f64>().ok()?;
        let (_, name) = rest.trim().split_once("] ")?;
        // Behind two spaces stand columns that have no title.
        let name = name.trim().split("  ").next()?;
        let name: String = name.chars().take(NAME).collect();
        Some((share, name.replace('|', "\\|")))
    });
    let mut out = "| % of its CPU time | function |\n|---|---|\n".to_owned();
    let mut any = false;
    for (share, name) in rows.take(ROWS) {
        any = true;
        let _ = writeln!(out, "| {share:.1} | `{name}` |");
    }
    any.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn the_functions_of_a_report_become_rows() {
        let report = "# comment\n#\n    12.34%  [.] a::b<c>  -      -\n     1.20%  [k] do_syscall_64\n\n";
        let table = table(report).unwrap();
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains("| 12.3 | `a::b<c>` |"), "{table}");
        assert_eq!(super::table("nothing\n"), None);
    }
}
