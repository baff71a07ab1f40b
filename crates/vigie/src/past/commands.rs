//! The commands that ask about the past: `sql`, `explain`, `audit`, `rebuild`. Each works on a running server (`--url`) or,
//! where nobody runs, on a data directory (`--data-dir`). They word what people read.

use super::history::{Asked, History, history};
use super::house::{self, House};
use super::tables::Tables;
use super::{audit, rebuild};
use crate::backends;
use crate::bounds;
use crate::cli::{Failure, Format, print};
use crate::client::Server;
use crate::clocks;
use crate::config::{self, Config, ConfigSources, LogBackend, StoreBackend};
use crate::keyfile;
use crate::server;
use anyhow::{Context, Result, anyhow};
use arc_swap::ArcSwap;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use vigie_archive::sql::{self, Database, Limits};
use vigie_archive::{Archive, Mode};
use vigie_audit::{Report, Sample};
use vigie_event::{CustomerKey, PersonId, Timestamp, Workspace};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::Store;
use vigie_telemetry::Metrics;

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// Address of a running server
    #[arg(long, env = "VIGIE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Key for it: a read key; an admin key for audits
    #[arg(long, env = "VIGIE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Ask the data directory of a stopped server instead
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration of that server, where it is not the default one
    #[arg(long, short, requires = "data_dir")]
    config: Option<PathBuf>,
}

impl Source {
    pub(crate) fn remote(&self) -> Result<Server> {
        let missing = || {
            anyhow!(
                "give a key for {} with --key or VIGIE_KEY, or a stopped server's directory with --data-dir",
                self.url
            )
        };
        Ok(Server::new(&self.url, self.key.as_deref().ok_or_else(missing)?))
    }

    pub(crate) fn local(&self) -> Result<Option<Config>, Failure> {
        let Some(dir) = &self.data_dir else { return Ok(None) };
        let flags = vec![
            ("data.dir".to_owned(), dir.display().to_string()),
            ("log-output.level".to_owned(), "warn".to_owned()),
        ];
        let config = config::load(ConfigSources::of_process(self.config.clone(), flags))
            .map_err(|errors| Failure::Usage(errors.to_string()))?;
        house::expect_data(&config.data.dir)?;
        let output = &config.log_output;
        vigie_telemetry::logging::install(output.format, output.level.as_str())?;
        Ok(Some(config))
    }
}

/// Ask in SQL about events, customers, companies, flags and dead letters
#[derive(Debug, Args)]
pub(crate) struct Sql {
    /// One SELECT over events, customers, accounts, flags and dead_letters
    sql: String,
    #[command(flatten)]
    source: Source,
    /// How the answer is written
    #[arg(long, short, value_enum, default_value_t = Written::Table)]
    output: Written,
    /// Write the answer to a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Most rows of the answer
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
    /// Only this workspace; a key has its own
    #[arg(long, requires = "data_dir")]
    workspace: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Written {
    Table,
    Csv,
    Json,
    Jsonl,
    Parquet,
}

impl Written {
    const fn format(self) -> sql::Format {
        match self {
            Self::Table => sql::Format::Table,
            Self::Csv => sql::Format::Csv,
            Self::Json => sql::Format::Json,
            Self::Jsonl => sql::Format::JsonLines,
            Self::Parquet => sql::Format::Parquet,
        }
    }
}

/// How a customer's scores came about: events, contributions, flags and refusals
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The customer's id; anonymous:ID for somebody without a known one
    customer: String,
    #[command(flatten)]
    source: Source,
    /// As things stood at this instant (RFC 3339 or a date); default: now
    #[arg(long, value_parser = time)]
    at: Option<Timestamp>,
    /// Show steps from this instant on
    #[arg(long, value_parser = time)]
    from: Option<Timestamp>,
    /// The customer's workspace; a key has its own
    #[arg(long, default_value = "default")]
    workspace: String,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Recompute the store from the archive by an independent oracle and compare: exit 0 equal, 1 different, 2 not measured
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    source: Source,
    /// Look at a share of the partitions only, for example 5%
    #[arg(long, value_parser = share, value_name = "SHARE")]
    sample: Option<f64>,
    /// Whose turn it is in a sample; rounds 0, 1, 2… come to every partition
    #[arg(long, default_value_t = 0)]
    round: u64,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Rebuild the store of a stopped server from its archive
#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Configuration of that server, where it is not the default one
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// A time: RFC 3339, or a date for its first instant in UTC.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .or_else(|_| Timestamp::parse(&format!("{text}T00:00:00Z")))
        .map_err(|_| "write RFC 3339 such as 2026-11-21T20:15:00Z, or a date".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().map(|number| number / scale);
    let usable = share.ok().filter(|share| *share > 0.0 && *share <= 1.0);
    usable.ok_or_else(|| "write a share such as 5% or 0.05".to_owned())
}

/// A bar on a terminal, nothing elsewhere.
pub(crate) fn bar(total: u64, what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {human_pos}/{human_len} {per_sec} {eta}");
    ProgressBar::new(total)
        .with_prefix(what)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Sql {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let format = self.output.format();
        if format == sql::Format::Parquet && self.out.is_none() && std::io::stdout().is_terminal() {
            return Err(Failure::Usage(
                "Parquet is not for terminals: name a file with --out\n".to_owned(),
            ));
        }
        let (body, rows, truncated) = match self.source.local()? {
            None => {
                let question = serde_json::json!({"sql": self.sql, "format": format.name(), "limit": self.limit});
                let answer = self.source.remote()?.ask("/v1/query", &question)?;
                (answer.body, answer.rows, answer.truncated)
            }
            Some(config) => crate::cli::runtime()?.block_on(self.ask_locally(&config, format))?,
        };
        match &self.out {
            None => {
                let mut out = std::io::stdout().lock();
                match out.write_all(&body).and_then(|()| out.flush()) {
                    Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
                    _ => {}
                }
            }
            Some(path) => {
                std::fs::write(path, &body).with_context(|| path.display().to_string())?;
                print(&format!("{rows} rows written to {}\n", path.display()))?;
            }
        }
        if truncated {
            let said = format!("vigie: only the first {rows} rows; ask for more with --limit\n");
            std::io::stderr().write_all(said.as_bytes())?;
        }
        Ok(())
    }

    async fn ask_locally(&self, config: &Config, format: sql::Format) -> Result<(Vec<u8>, usize, bool)> {
        let house = House::open(config).await?;
        let (model, policies) = server::texts(config)?;
        let active = vigie_serve::Active {
            model: Model::parse(&model)?,
            policies: PolicySet::parse(&policies)?,
            config_version: String::new(),
        };
        let tables = Tables {
            store: Arc::clone(&house.store),
            letters: Some(server::open_letters(config, &Metrics::disabled()).await?),
            active: Arc::new(ArcSwap::from_pointee(active)),
            now: clocks::now(),
        };
        let scope = self.workspace.as_deref().map(Workspace::new).transpose()?;
        let limits = Limits {
            rows: self.limit,
            ..bounds::query_limits(config)
        };
        let database = Database::new(&house.archive, scope, clocks::now()).with_live(Arc::new(tables));
        let answer = database.query(&self.sql, &limits).await?;
        let mut body = Vec::new();
        answer.write(format, &mut body)?;
        Ok((body, answer.rows(), answer.truncated()))
    }
}

impl Explain {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let told = match self.source.local()? {
            None => {
                let mut path = format!("/v1/customers/{}/history", encoded(&self.customer));
                let mut separator = '?';
                for (name, at) in [("from", self.from), ("to", self.at)] {
                    if let Some(at) = at {
                        let _ = write!(path, "{separator}{name}={at}");
                        separator = '&';
                    }
                }
                self.source.remote()?.get(&path)?
            }
            Some(config) => {
                let asked = Asked {
                    key: CustomerKey::new(
                        Workspace::new(&self.workspace)
                            .map_err(|error| Failure::Usage(format!("--workspace: {error}\n")))?,
                        person(&self.customer).map_err(|error| Failure::Usage(format!("customer: {error}\n")))?,
                    ),
                    from: self.from,
                    to: self.at.unwrap_or_else(clocks::now),
                };
                let told: Option<History> = crate::cli::runtime()?.block_on(async {
                    let house = House::open(&config).await?;
                    history(&house.archive, &[], house.store.partitions(), &asked).await
                })?;
                let unknown = || anyhow!("no event of {} in workspace {} by then", self.customer, self.workspace);
                serde_json::to_value(told.ok_or_else(unknown)?)?
            }
        };
        print(&match self.output {
            Format::Json => format!("{told:#}\n"),
            Format::Text => rendered(&told),
        })
    }
}

fn person(text: &str) -> Result<PersonId, vigie_event::IdError> {
    match (text.strip_prefix("anonymous:"), text.strip_prefix("known:")) {
        (Some(anonymous), _) => PersonId::anonymous(anonymous),
        (None, Some(known)) => PersonId::known(known),
        (None, None) => PersonId::known(text),
    }
}

/// Percent-encodes a path segment.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A history for people: one line per step, then where it ended.
fn rendered(told: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value, name: &str| -> String {
        let field = value.get(name);
        field.and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    let score = |scores: Option<&serde_json::Value>| scores.and_then(|scores| scores.get("attrition")?.as_f64());
    let mut out = format!("{} in workspace {}", text(told, "asked"), text(told, "workspace"));
    if text(told, "asked") != text(told, "customer") {
        let _ = write!(out, ", now part of {}", text(told, "customer"));
    }
    out.push_str("\n\n");
    let none = Vec::new();
    for step in told.get("steps").and_then(serde_json::Value::as_array).unwrap_or(&none) {
        let what = match step.get("event") {
            Some(event) => {
                let money = event.get("amount_minor").and_then(serde_json::Value::as_i64);
                let money = money.map_or_else(String::new, |minor| {
                    format!(" {minor} minor {}", text(event, "currency"))
                });
                format!("{}{money} [{}]", text(event, "signal"), text(event, "id"))
            }
            None => text(step, "text"),
        };
        let moved = match (score(step.get("before")), score(step.get("after"))) {
            (Some(before), Some(after)) => {
                let moved = format!("{:+.3}", after - before);
                let moved = if moved == "-0.000" { "+0.000" } else { &moved };
                format!("attrition {before:.3} -> {after:.3} ({moved})")
            }
            (None, Some(after)) => format!("attrition {after:.3}"),
            _ => String::new(),
        };
        let decision = if text(step, "kind") == "event" {
            text(step, "decision")
        } else {
            String::new()
        };
        let kind = text(step, "kind");
        let line = format!("{}  {kind:10}  {what:44}  {decision:12}  {moved}", text(step, "at"));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    if let Some(end) = told.get("at_end").filter(|end| !end.is_null()) {
        let shown = score(Some(end)).map_or_else(|| "none".to_owned(), |score| format!("{score:.3}"));
        let _ = write!(
            out,
            "\nat {}: attrition {shown}, stage {}\n",
            text(end, "as_of"),
            text(end, "stage")
        );
        for (factor, log_odds) in end
            .get("contributions")
            .and_then(serde_json::Value::as_object)
            .into_iter()
            .flatten()
        {
            let _ = writeln!(
                out,
                "  {factor:20} {:+.3} log-odds",
                log_odds.as_f64().unwrap_or_default()
            );
        }
        let horizons = end.get("churn").and_then(serde_json::Value::as_object);
        // As JSON, the horizons are texts, in the order of texts.
        let churn: BTreeMap<u16, f64> = horizons
            .into_iter()
            .flatten()
            .filter_map(|(days, churn)| Some((days.parse().ok()?, churn.as_f64()?)))
            .collect();
        for (days, churn) in churn {
            let _ = writeln!(out, "  churn within {days} days: {churn:.3}");
        }
        for reason in end
            .get("reasons")
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten()
        {
            let text = reason
                .get("text")
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default();
            let events = reason.get("events").and_then(serde_json::Value::as_array);
            let ids: Vec<&str> = events.into_iter().flatten().filter_map(|id| id.as_str()).collect();
            let _ = match ids.is_empty() {
                true => writeln!(out, "  {text}"),
                false => writeln!(out, "  {text} [{}]", ids.join(", ")),
            };
        }
    }
    out
}

impl AuditArgs {
    /// Runs the command. What keeps it from measuring is exit code 2, like a wrong argument: nothing was said about the store.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (code, text, json) = self.measure().map_err(|failure| match failure {
            Failure::Work(error) => Failure::Usage(format!("vigie: not measured: {error:#}\n")),
            other => other,
        })?;
        print(if self.output == Format::Json { &json } else { &text })?;
        match code {
            0 => Ok(()),
            code => Err(Failure::Verdict(code)),
        }
    }

    fn measure(&self) -> Result<(u8, String, String), Failure> {
        let Some(config) = self.source.local()? else {
            let mut path = "/v1/audit".to_owned();
            if let Some(share) = self.sample {
                let _ = write!(path, "?sample={share}&round={}", self.round);
            }
            let answer = self.source.remote()?.patient().post(&path)?;
            let field = |name: &str| answer.get(name).cloned().unwrap_or_default();
            let code = field("exit_code")
                .as_u64()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(2);
            let text = field("text").as_str().unwrap_or_default().to_owned();
            return Ok((code, text, format!("{:#}\n", field("report"))));
        };
        let report: Report = crate::cli::runtime()?.block_on(async {
            let house = House::open(&config).await?;
            let partitions = house.store.partitions();
            let sample = match self.sample {
                Some(share) => Sample::rotating(partitions, share, self.round),
                None => Sample::all(partitions),
            };
            let snapshot = house.store.snapshot().await?;
            let bar = bar(house.archive.totals().rows, "audit");
            let report = audit::audit(&house.archive, &snapshot, sample, |folded| bar.set_position(folded)).await?;
            bar.finish_and_clear();
            Ok::<_, anyhow::Error>(report)
        })?;
        Ok((
            report.exit_code(),
            format!("{report}\n"),
            format!("{}\n", report.json()),
        ))
    }
}

impl RebuildArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let flags = vec![("data.dir".to_owned(), self.data_dir.display().to_string())];
        let config = config::load(ConfigSources::of_process(self.config.clone(), flags))
            .map_err(|errors| Failure::Usage(errors.to_string()))?;
        if config.log.backend == LogBackend::Embedded {
            house::expect_data(&config.data.dir)?;
        }
        let rebuilt = crate::cli::runtime()?.block_on(async {
            // The lock on the log says that no server runs here.
            let log = backends::main_log(&config, &Metrics::disabled()).await?;
            let archive = Archive::open(house::place(&config)?, Mode::Read, config.log.partitions).await?;
            let bar = bar(archive.totals().rows, "rebuild");
            let progress = |records| bar.set_position(records);
            let rebuilt = match config.store.backend {
                StoreBackend::Embedded => {
                    let options = bounds::store_options(&config);
                    rebuild::rebuild(&archive, &config.data.dir, &options, progress).await?
                }
                StoreBackend::Redis => {
                    let options = backends::redis_options(&config)?;
                    let installation = u128::from(keyfile::identity()?);
                    rebuild::rebuild_redis(&archive, &options, installation, progress).await?
                }
            };
            bar.finish_and_clear();
            drop(log);
            // It opens, or it would be better to know now.
            drop(backends::main_store(&config, true).await?);
            Ok::<_, anyhow::Error>(rebuilt)
        })?;
        let aside = rebuilt.set_aside.as_ref().map(|path| path.display().to_string());
        if self.output == Format::Json {
            let answer = serde_json::json!({
                "records": rebuilt.records,
                "customers": rebuilt.customers,
                "store": config.data.dir.join("store"),
                "replaced": aside,
            });
            return print(&format!("{answer:#}\n"));
        }
        let mut text = format!(
            "rebuilt {} customers from {} records up to the archive's end; what the log holds beyond is folded at the next start\n",
            rebuilt.customers, rebuilt.records
        );
        if let Some(aside) = aside {
            let _ = writeln!(text, "the store that was there is kept in {aside}");
        }
        print(&text)
    }
}
