//! `vigie import`: history out of files into a running server. This file opens files, sends, waits and words the result;
//! what a line means is decided in the collector's crate.
//!
//! Nothing is kept between runs: an event's id is a hash of what its line says, so that running a command again after an
//! interruption sends everything again and counts nothing twice. A record remembers ids for seven days, and at most 2,048:
//! beyond either, the server no longer knows what it has.

use crate::cli::{Failure, Format as Output, print};
use crate::client::{Sent, Server};
use crate::clocks;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vigie_archive::JsonLines;
use vigie_ingestion::import::{Format, Import, ImportError, Mapping, Outcome};

/// Events of one request, and bytes of them.
const BATCH: (usize, usize) = (500, 512 << 10);
/// Shortest and longest wait before a request is repeated.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Refused lines that are shown.
const SHOWN: usize = 5;
/// Exit code when everything was read, and some lines gave no event.
const SOME_REFUSED: u8 = 3;

/// Send the history in CSV, JSON-lines or Parquet files to a running server; running it again counts nothing twice
///
/// Without a mapping, JSON lines are events as POST /v1/events takes them, and a CSV has the columns customer_id and time,
/// and may have amount, currency, quantity, order_id and signal; so has a Parquet file. Files that end in .gz are unpacked. Lines that give no event
/// are kept in a file with their number and the reason. Exit code 0: every line arrived; 3: some lines were refused; 1: it
/// did not get to the end, and the same command goes on; 2: the arguments or the mapping do not fit.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Files to read, in this order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Which column means what: a TOML file with customer, time, time-format, utc-offset, signal, signal-column, signals,
    /// amount, currency, currency-column, decimal, negative, quantity, order, id, properties, only, separator, encoding
    #[arg(long, short, value_name = "FILE.toml")]
    mapping: Option<PathBuf>,
    /// Column with the customer's id
    #[arg(long, value_name = "COLUMN")]
    customer: Option<String>,
    /// Column with the time
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// How the time is written, as strftime does, for example "%d/%m/%Y %H:%M"
    #[arg(long, value_name = "FORMAT")]
    time_format: Option<String>,
    /// Column with the amount
    #[arg(long, value_name = "COLUMN")]
    amount: Option<String>,
    /// Currency of all amounts, for example EUR
    #[arg(long, value_name = "CODE")]
    currency: Option<String>,
    /// What every line is, for example purchase
    #[arg(long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// What separates the cells: one character
    #[arg(long, value_name = "CHAR")]
    separator: Option<char>,
    /// Address of a running server
    #[arg(long, env = "VIGIE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A write key with the scope history
    #[arg(long, env = "VIGIE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Read and judge everything, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Where refused lines go, as JSON lines; made when there is one, replaced when it is there
    #[arg(long, value_name = "FILE", default_value = "import-refused.jsonl")]
    refused: PathBuf,
    /// Seconds to try for when the server is busy or away, before giving up
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Lines and what became of them: read = sent + skipped + refused.
#[derive(Debug, Default, Serialize)]
struct Balance {
    read: u64,
    sent: u64,
    skipped: u64,
    refused: u64,
}

/// A refused line, as it is kept.
#[derive(Debug, Serialize)]
struct Refused<'a> {
    file: &'a str,
    line: u64,
    code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'a str,
    message: &'a str,
    text: &'a str,
}

impl ImportArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mapping = self.mapping()?;
        let server = match (&self.key, self.dry_run) {
            (_, true) => None,
            (Some(key), false) => Some(Server::new(&self.url, key)),
            (None, false) => {
                return Err(usage(
                    "give a write key with the scope history (--key or VIGIE_KEY), or try with --dry-run",
                ));
            }
        };
        let mut formats = Vec::new();
        for file in &self.files {
            let name = file.to_string_lossy();
            let format = match is_parquet(file) {
                true => Some(Format::JsonLines),
                false => Format::of_name(&name),
            };
            formats.push(format.ok_or_else(|| {
                usage(format!(
                    "{name}: the name must end in .csv, .tsv, .txt, .jsonl, .ndjson or .json (or these with .gz), or in .parquet"
                ))
            })?);
        }
        let mut sending = Sending {
            server,
            patience: Duration::from_secs(self.patience),
            batch: Vec::new(),
            bytes: 0,
            letters: Letters {
                path: &self.refused,
                out: None,
                shown: Vec::new(),
                reasons: BTreeMap::new(),
            },
            balance: Balance::default(),
            bar: bar(&self.files),
        };
        for (file, format) in self.files.iter().zip(formats) {
            if let Err(failure) = sending.file(file, format, mapping.as_ref()) {
                sending.bar.finish_and_clear();
                return Err(failure);
            }
        }
        sending.bar.finish_and_clear();
        sending.finish(&self)
    }

    /// The mapping of the file and the arguments; `None` when nothing was said.
    fn mapping(&self) -> Result<Option<Mapping>, Failure> {
        let arguments = [
            &self.customer,
            &self.time,
            &self.time_format,
            &self.amount,
            &self.currency,
            &self.signal,
        ];
        let said = arguments.iter().any(|argument| argument.is_some()) || self.separator.is_some();
        let mut mapping = match &self.mapping {
            None if !said => return Ok(None),
            None => Mapping::default(),
            Some(path) => {
                let named = |error: &dyn std::fmt::Display| usage(format!("{}: {error}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
                toml::from_str(&text).map_err(|error| named(&error))?
            }
        };
        let over = |to: &mut Option<String>, from: &Option<String>| {
            if from.is_some() {
                to.clone_from(from);
            }
        };
        over(&mut mapping.customer, &self.customer);
        over(&mut mapping.time, &self.time);
        over(&mut mapping.time_format, &self.time_format);
        over(&mut mapping.amount, &self.amount);
        over(&mut mapping.currency, &self.currency);
        over(&mut mapping.signal, &self.signal);
        mapping.separator = self.separator.or(mapping.separator);
        Ok(Some(mapping))
    }
}

fn usage(text: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("vigie: {text}\n"))
}

/// One event on its way: where it came from.
struct Waiting {
    line: u64,
    json: String,
}

struct Sending<'a> {
    /// None: nothing is sent.
    server: Option<Server>,
    patience: Duration,
    batch: Vec<Waiting>,
    bytes: usize,
    letters: Letters<'a>,
    balance: Balance,
    bar: ProgressBar,
}

impl Sending<'_> {
    fn file(&mut self, path: &Path, format: Format, mapping: Option<&Mapping>) -> Result<(), Failure> {
        let name = path.display().to_string();
        let input = open(path, &self.bar).map_err(|error| usage(format!("{error:#}")))?;
        let misfit = |error: ImportError| match error {
            ImportError::Mapping(error) => usage(format!("{name}: {error}")),
            ImportError::Io { .. } => Failure::Work(anyhow!("{name}: {error}")),
        };
        // The rows of a table are no events, whatever is said about their columns.
        let plain = Mapping::default();
        let mapping = mapping.or(is_parquet(path).then_some(&plain));
        let lines = Import::new(input, format, mapping, clocks::now()).map_err(misfit)?;
        for line in lines {
            let line = line.map_err(misfit)?;
            self.balance.read += 1;
            match line.outcome {
                Outcome::Skipped => self.balance.skipped += 1,
                Outcome::Refused(why, text) => {
                    let refused = Refused {
                        file: &name,
                        line: line.number,
                        code: why.code(),
                        field: "",
                        message: why.hint(),
                        text: &text,
                    };
                    self.balance.refused += 1;
                    self.letters.keep(&refused)?;
                }
                Outcome::Event(json) => {
                    self.bytes += json.len() + 1;
                    self.batch.push(Waiting {
                        line: line.number,
                        json,
                    });
                    if self.batch.len() >= BATCH.0 || self.bytes >= BATCH.1 {
                        self.flush(&name)?;
                    }
                }
            }
        }
        Ok(self.flush(&name)?)
    }

    /// Sends what waits, until it is taken.
    fn flush(&mut self, file: &str) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        let Some(server) = &self.server else {
            self.balance.sent += batch.len() as u64;
            return Ok(());
        };
        let events: Vec<&str> = batch.iter().map(|event| event.json.as_str()).collect();
        let body = format!("[{}]", events.join(","));
        let first = self.balance.sent == 0;
        let answer = insist(server, &body, self.patience, first, &self.bar).with_context(|| {
            let sent = self.balance.sent;
            format!("{file}: {sent} events were sent before; run the same command again to go on, nothing counts twice")
        })?;
        let none = Vec::new();
        let rejected = answer
            .get("rejected")
            .and_then(serde_json::Value::as_array)
            .unwrap_or(&none);
        for refusal in rejected {
            let text = |name: &str| {
                refusal
                    .get(name)
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default()
            };
            let at = refusal
                .get("i")
                .and_then(serde_json::Value::as_u64)
                .and_then(|at| usize::try_from(at).ok());
            let event = at
                .and_then(|at| batch.get(at))
                .context("the server refused an event that was not sent")?;
            self.letters.keep(&Refused {
                file,
                line: event.line,
                code: text("code"),
                field: text("field"),
                message: text("message"),
                text: &event.json,
            })?;
        }
        self.balance.refused += rejected.len() as u64;
        self.balance.sent += (batch.len() - rejected.len().min(batch.len())) as u64;
        self.bar
            .set_message(format!("{} sent, {} refused", self.balance.sent, self.balance.refused));
        Ok(())
    }

    fn finish(mut self, arguments: &ImportArgs) -> Result<(), Failure> {
        self.letters.close()?;
        let Balance {
            read,
            sent,
            skipped,
            refused,
        } = self.balance;
        if read != sent + skipped + refused {
            return Err(anyhow!("{read} lines were read, and {sent} + {skipped} + {refused} are accounted for").into());
        }
        let kept = (refused > 0).then(|| arguments.refused.display().to_string());
        let text = if arguments.output == Output::Json {
            let answer = serde_json::json!({
                "files": arguments.files, "dry_run": arguments.dry_run, "lines": self.balance,
                "reasons": self.letters.reasons, "refused_file": kept,
            });
            format!("{answer:#}\n")
        } else {
            let verb = if arguments.dry_run { "would be sent" } else { "sent" };
            let mut text = format!("{read} lines read = {sent} {verb} + {skipped} skipped + {refused} refused\n");
            for (code, count) in &self.letters.reasons {
                let _ = writeln!(text, "  {count} {code}");
            }
            for line in &self.letters.shown {
                let _ = writeln!(text, "  {line}");
            }
            if let Some(kept) = &kept {
                let _ = writeln!(text, "refused lines are in {kept}");
            }
            text
        };
        print(&text)?;
        match refused {
            0 => Ok(()),
            _ => Err(Failure::Verdict(SOME_REFUSED)),
        }
    }
}

/// Sends a batch; repeats it while the server is busy or away.
fn insist(
    server: &Server,
    body: &str,
    patience: Duration,
    first: bool,
    bar: &ProgressBar,
) -> Result<serde_json::Value> {
    let (mut wait, mut waited) = (WAIT.0, Duration::ZERO);
    loop {
        let (why, pause) = match server.send("/v1/events", body) {
            Ok(Sent::Taken(answer)) => return Ok(answer),
            Ok(Sent::Later { why, after }) => (why, after.unwrap_or(wait).clamp(WAIT.0, WAIT.1 * 6)),
            // Nobody has ever answered: it is the address that is wrong.
            Ok(Sent::Silence { why }) if first => bail!(why),
            Ok(Sent::Silence { why }) => (why, wait),
            Err(error) => return Err(error),
        };
        if waited + pause > patience {
            bail!("{why}; gave up after {} s", waited.as_secs());
        }
        bar.set_message(format!("waiting: {why}"));
        std::thread::sleep(pause);
        waited += pause;
        wait = (wait * 2).min(WAIT.1);
    }
}

/// Refused lines, on their way into a file of their own.
struct Letters<'a> {
    path: &'a Path,
    out: Option<BufWriter<File>>,
    shown: Vec<String>,
    reasons: BTreeMap<String, u64>,
}

impl Letters<'_> {
    fn keep(&mut self, refused: &Refused<'_>) -> Result<()> {
        let named = || self.path.display().to_string();
        if self.out.is_none() {
            self.out = Some(BufWriter::new(File::create(self.path).with_context(named)?));
        }
        if let Some(out) = &mut self.out {
            let line = serde_json::to_string(refused)?;
            writeln!(out, "{line}").with_context(named)?;
        }
        *self.reasons.entry(refused.code.to_owned()).or_default() += 1;
        if self.shown.len() < SHOWN {
            let field = match refused.field {
                "" => String::new(),
                field => format!(" ({field})"),
            };
            self.shown.push(format!(
                "{} line {}: {}{field}",
                refused.file, refused.line, refused.message
            ));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        match self.out.as_mut() {
            Some(out) => out.flush().with_context(|| self.path.display().to_string()),
            None => Ok(()),
        }
    }
}

fn is_parquet(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Opens a file; what is read of it moves the bar.
fn open(path: &Path, bar: &ProgressBar) -> Result<Box<dyn Read>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    if is_parquet(path) {
        // It is read here and there, so that the bar moves from file to file.
        bar.inc(file.metadata().map_or(0, |about| about.len()));
        let lines = JsonLines::of_parquet(file).with_context(|| path.display().to_string())?;
        return Ok(Box::new(lines));
    }
    let counted = bar.wrap_read(file);
    if path.extension().is_some_and(|extension| extension == "gz") {
        #[expect(
            clippy::disallowed_methods,
            reason = "the operator's own file; it is read line by line and never held whole"
        )]
        let unpacked = flate2::read::MultiGzDecoder::new(counted);
        return Ok(Box::new(unpacked));
    }
    Ok(Box::new(counted))
}

/// A bar over the bytes of the files; nothing where standard error is no terminal.
fn bar(files: &[PathBuf]) -> ProgressBar {
    let bytes = files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    let bar = ProgressBar::new(bytes);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("  [{bar:40}] {percent:>3} %  {msg}  {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
