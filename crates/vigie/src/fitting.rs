//! `vigie fit` and `vigie backtest`: models learned from purchases, and how good they are at cut-offs that they have not seen.
//! Purchases come from a table or from an archive. This file reads and words results; fitting and measuring are in `vigie-fit`.

use crate::cli::{Failure, Format, print};
use crate::past::stock::{Stock, Taken};
use anyhow::{Context, anyhow};
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use vigie_event::{Day, Timestamp};
use vigie_fit::History;
use vigie_fit::backtest::{Backtest, Candidate, Plan, backtest};
use vigie_fit::churn::{self, Task};
use vigie_fit::file::{Provenance, model_file};
use vigie_fit::metrics::{Metrics, Scored};
use vigie_fit::money::fit_gamma_gamma;
use vigie_fit::table::{Mapping, Purchases, read_purchases};
use vigie_scoring::Model;

/// Cut-offs that a model is tested at unless they are named.
const TESTS: usize = 3;
/// Bytes of a table after unpacking.
const LARGEST: u64 = 8 << 30;
/// Draws of the bootstrap.
const DRAWS: u32 = 200;

/// Where purchases come from, and what is to be foretold.
#[derive(Debug, Args)]
struct Data {
    /// Table of purchases, one a line, with the names of its columns in the first line; .gz is unpacked
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "data_dir",
        conflicts_with = "data_dir"
    )]
    csv: Option<PathBuf>,
    #[command(flatten)]
    table: Table,
    #[command(flatten)]
    stock: Stock,
    /// Days within which a customer without a purchase has left
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=730))]
    horizon: u16,
    /// Customers count at a cut-off if they bought within so many days before it
    #[arg(long, value_name = "DAYS", default_value_t = 180, value_parser = clap::value_parser!(u16).range(1..=3650))]
    active: u16,
}

/// What the columns of a table mean.
#[derive(Debug, Args)]
struct Table {
    /// Column with the customer
    #[arg(
        long,
        value_name = "COLUMN",
        default_value = "customer_id",
        conflicts_with = "data_dir"
    )]
    customer: String,
    /// Column with the time: a date, RFC 3339, or seconds or milliseconds since 1970
    #[arg(long, value_name = "COLUMN", default_value = "time", conflicts_with = "data_dir")]
    time: String,
    /// Column with the amount; lines with less than 0 are no purchases. "none" if there is no such column
    #[arg(long, value_name = "COLUMN", default_value = "amount", conflicts_with = "data_dir")]
    amount: String,
    /// Only lines with this value, for example event=purchase
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = pair, conflicts_with = "data_dir")]
    only: Option<(String, String)>,
    /// What separates the cells: one character
    #[arg(long, value_name = "CHAR", default_value_t = ',', value_parser = separator, conflicts_with = "data_dir")]
    separator: char,
}

/// Fit a model to purchases, of a table or of the archive, and write it as a model file
///
/// The file goes where `scoring.model` says. It is learned from closed cut-offs only, and holds where it comes from and how
/// well it did at the last of them.
#[derive(Debug, Args)]
pub(crate) struct Fit {
    #[command(flatten)]
    data: Data,
    /// What to fit: default, or gbdt for boosted trees in place of its weights
    #[arg(long, value_name = "MODEL", default_value = "default", value_parser = fittable)]
    model: Candidate,
    /// Nothing from this day on is seen [default: the day after the last purchase]
    #[arg(long, value_name = "DATE", value_parser = day)]
    cutoff: Option<Day>,
    /// Name of the model: lower-case letters, digits and hyphens
    #[arg(long, default_value = "fitted", value_parser = name)]
    name: String,
    /// The file to write; it is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Measure models at past cut-offs: each is fitted to what came before, and judged by what came after
#[derive(Debug, Args)]
pub(crate) struct BacktestArgs {
    #[command(flatten)]
    data: Data,
    /// What to measure: default, gbdt, bg-nbd, mbg-nbd, pareto-nbd; may be repeated [default: default and mbg-nbd]
    #[arg(long = "model", value_name = "MODEL", value_parser = candidate)]
    models: Vec<Candidate>,
    /// A cut-off; may be repeated [default: the last three that are a horizon apart and closed]
    #[arg(long = "test", value_name = "DATE", value_parser = day)]
    tests: Vec<Day>,
    /// Write calibration and gain as a page for people: one HTML file that needs no network
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').ok_or("write COLUMN=VALUE")?;
    Ok((parts.0.to_owned(), parts.1.to_owned()))
}

fn separator(text: &str) -> Result<char, String> {
    match text.chars().collect::<Vec<_>>().as_slice() {
        [one] if one.is_ascii() => Ok(*one),
        _ if text == "\\t" => Ok('\t'),
        _ => Err("one ASCII character, or \\t".to_owned()),
    }
}

fn day(text: &str) -> Result<Day, String> {
    let at = Timestamp::parse(text).map_err(|_| "not a date such as 2026-11-21".to_owned())?;
    Ok(at.day())
}

fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match (1..=64).contains(&text.len()) && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("1 to 64 lower-case letters, digits and hyphens".to_owned()),
    }
}

fn candidate(text: &str) -> Result<Candidate, String> {
    let known = Candidate::ALL.map(Candidate::label).join(", ");
    Candidate::parse(text).ok_or_else(|| format!("one of {known}"))
}

fn fittable(text: &str) -> Result<Candidate, String> {
    Candidate::parse(text)
        .filter(|candidate| matches!(candidate, Candidate::Default | Candidate::Gbdt))
        .ok_or_else(|| "one of default, gbdt".to_owned())
}

fn usage(text: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("vigie: {text}\n"))
}

impl Data {
    fn read(&self) -> Result<Taken, Failure> {
        let source = match &self.csv {
            Some(csv) => self.read_table(csv)?,
            None => self.stock.read()?,
        };
        if source.history.is_empty() {
            return Err(usage(format!("{}: {}", source.name, source.told)));
        }
        Ok(source)
    }

    fn read_table(&self, csv: &Path) -> Result<Taken, Failure> {
        let bytes = read_file(csv).map_err(|error| usage(format!("{error:#}")))?;
        let columns = &self.table;
        let mapping = Mapping {
            customer: columns.customer.clone(),
            time: columns.time.clone(),
            amount: (columns.amount != "none").then(|| columns.amount.clone()),
            only: columns.only.clone(),
            separator: u8::try_from(columns.separator).unwrap_or(b','),
        };
        let name = csv.display().to_string();
        let read = read_purchases(&bytes, &mapping).map_err(|error| usage(format!("{name}: {error}")))?;
        let refused: BTreeMap<_, _> = read
            .refused
            .iter()
            .map(|(reason, count)| (reason.label(), count))
            .collect();
        Ok(Taken {
            told: told(&read),
            counts: serde_json::json!({"purchases": read.purchases.len(), "refused": refused}),
            history: History::of(read.purchases),
            currency: None,
            name,
        })
    }

    fn task(&self, first: Day, end: Day) -> Task {
        Task {
            horizon_days: self.horizon,
            active_days: i32::from(self.active),
            grid: months(first, end),
        }
    }
}

/// What became of the lines of a table.
fn told(read: &Purchases) -> String {
    let lines = read.purchases.len() as u64 + read.refused.values().sum::<u64>();
    let mut text = format!("{lines} lines: {} purchases", read.purchases.len());
    for (reason, count) in &read.refused {
        let _ = write!(text, ", {count} {}", reason.label());
    }
    for (line, reason) in read.shown.iter().take(3) {
        let _ = write!(text, "; line {line}: {}", reason.label());
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "the operator's own file, with a bound")]
fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(bytes.as_slice()).take(LARGEST);
    let _size = reader
        .read_to_end(&mut unpacked)
        .with_context(|| path.display().to_string())?;
    Ok(unpacked)
}

/// The first days of the months from `first` to `end`.
fn months(first: Day, end: Day) -> Vec<Day> {
    let mut grid = Vec::new();
    let text = first.to_string();
    let (year, month) = (text.get(..4), text.get(5..7));
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok());
    let (Some(mut year), Some(mut month)) = (number(year), number(month)) else {
        return grid;
    };
    loop {
        let Ok(start) = Timestamp::parse(&format!("{year:04}-{month:02}-01")) else {
            return grid;
        };
        if start.day() > end {
            return grid;
        }
        if start.day() >= first {
            grid.push(start.day());
        }
        (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    }
}

/// The last cut-offs that are closed, a horizon apart, in ascending order.
fn last_closed(task: &Task, end: Day) -> Vec<Day> {
    let mut tests: Vec<Day> = Vec::new();
    for cutoff in task.grid.iter().rev() {
        let closed = cutoff.0 + i32::from(task.horizon_days) <= end.0;
        let apart = tests
            .last()
            .is_none_or(|last| last.0 - cutoff.0 >= i32::from(task.horizon_days));
        if closed && apart && tests.len() < TESTS {
            tests.push(*cutoff);
        }
    }
    tests.reverse();
    tests
}

impl Fit {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Taken {
            history,
            told,
            currency,
            ..
        } = self.data.read()?;
        let (first, last) = history.span().ok_or_else(|| usage("there is no purchase"))?;
        let cutoff = self.cutoff.unwrap_or(Day(last.0 + 1));
        if cutoff <= first {
            return Err(usage(format!(
                "--cutoff {cutoff} is not after the first purchase, {first}"
            )));
        }
        let task = self.data.task(first, cutoff);
        let fitted = match self.model {
            Candidate::Gbdt => churn::fit_trees(&history, &task, cutoff, &mut churn::Fits::default()),
            _ => churn::fit(&history, &task, cutoff),
        };
        let spend = fit_gamma_gamma(history.as_of(cutoff).filter_map(|(_, pace)| {
            let days = f64::from(pace.x) + 1.0;
            (pace.total_spend > 0.0).then_some((pace.x, pace.total_spend / days))
        }));
        let tests = last_closed(&task, cutoff).into_iter().rev().take(1).collect::<Vec<_>>();
        let results = match tests.is_empty() {
            true => Vec::new(),
            false => backtest(&history, &plan(task.clone(), tests), &[self.model]),
        };
        let replaced = Model::shipped().map_err(|error| anyhow!("the shipped model: {error}"))?;
        let provenance = Provenance {
            code: env!("CARGO_PKG_VERSION").to_owned(),
            data_from: first,
            cutoff,
            customers: history.as_of(cutoff).count(),
            horizon_days: self.data.horizon,
            spend: spend.map(|fitted| fitted.model),
            currency,
        };
        let text = model_file(&self.name, &fitted, &replaced, &provenance, results.first());
        // What is written can be put in force, or it is not written.
        let _model = Model::parse(&text).map_err(|error| anyhow!("the fitted model is not a valid model: {error}"))?;
        std::fs::write(&self.out, &text).with_context(|| self.out.display().to_string())?;
        print(&format!(
            "{told}\nfitted to {} customers, {first} to {cutoff}\nwritten to {}; put it in force with scoring.model\n",
            provenance.customers,
            self.out.display()
        ))
    }
}

fn plan(task: Task, tests: Vec<Day>) -> Plan {
    Plan {
        task,
        tests,
        draws: DRAWS,
        seed: 1,
    }
}

impl BacktestArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Taken {
            history,
            told,
            counts,
            name,
            ..
        } = self.data.read()?;
        let (first, last) = history.span().ok_or_else(|| usage("there is no purchase"))?;
        let end = Day(last.0 + 1);
        let task = self.data.task(first, end);
        let tests = match self.tests.is_empty() {
            true => last_closed(&task, end),
            false => self.tests.clone(),
        };
        if tests.is_empty() {
            return Err(usage(format!(
                "no cut-off is closed: the purchases end on {last}, and {} days after a cut-off must be known",
                self.data.horizon
            )));
        }
        for test in &tests {
            if *test <= first || test.0 + i32::from(self.data.horizon) > end.0 {
                return Err(usage(format!(
                    "--test {test}: purchases before it and for {} days after it must be known; they go from {first} to {last}",
                    self.data.horizon
                )));
            }
        }
        let models = match self.models.is_empty() {
            true => vec![Candidate::Default, Candidate::MbgNbd],
            false => self.models.clone(),
        };
        let plan = plan(task, tests);
        let results = backtest(&history, &plan, &models);
        if let Some(path) = &self.report {
            let page = vigie_fit::report::report(&name, &plan, &results, &segments(&history, &results));
            std::fs::write(path, page).with_context(|| path.display().to_string())?;
        }
        match self.output {
            Format::Json => print(&format!("{:#}\n", json(counts, &results))),
            Format::Text => print(&text(&told, &results, self.report.as_deref())),
        }
    }
}

/// Customers by how often they had bought before the cut-off, with the first model's predictions.
fn segments(history: &History, results: &[Backtest]) -> Vec<(String, Vec<Scored>)> {
    let mut segments = [
        "bought once",
        "bought 2 or 3 times",
        "bought 4 to 9 times",
        "bought 10 times or more",
    ]
    .map(|name| (name.to_owned(), Vec::new()));
    for fold in results
        .first()
        .map(|result| result.folds.as_slice())
        .unwrap_or_default()
    {
        let days: BTreeMap<usize, u32> = history
            .as_of(fold.cutoff)
            .map(|(index, pace)| (index, pace.x))
            .collect();
        for (customer, scored) in fold.customers.iter().zip(&fold.scored) {
            let segment = match days.get(customer) {
                None | Some(0) => 0,
                Some(1..=2) => 1,
                Some(3..=8) => 2,
                Some(_) => 3,
            };
            if let Some((_, scores)) = segments.get_mut(segment) {
                scores.push(*scored);
            }
        }
    }
    segments.into_iter().filter(|(_, scores)| !scores.is_empty()).collect()
}

fn text(told: &str, results: &[Backtest], report: Option<&Path>) -> String {
    let mut out = format!("{told}\n\n");
    let _ = writeln!(
        out,
        "{:<11} {:<11} {:>9} {:>7} {:>7} {:>7} {:>9} {:>7} {:>7} {:>8}",
        "model", "cut-off", "customers", "left", "AUC", "PR-AUC", "log loss", "Brier", "ECE", "lift 10%"
    );
    let row = |model: &str, cutoff: &str, m: &Metrics| {
        format!(
            "{model:<11} {cutoff:<11} {:>9} {:>6.1}% {:>7.4} {:>7.4} {:>9.4} {:>7.4} {:>7.4} {:>8.3}\n",
            m.n,
            m.base * 100.0,
            m.auc,
            m.pr_auc_churn,
            m.log_loss,
            m.brier,
            m.ece,
            m.lift10_churn
        )
    };
    for (rank, result) in results.iter().enumerate() {
        for fold in &result.folds {
            out += &row(result.candidate.label(), &fold.cutoff.to_string(), &fold.metrics);
        }
        out += &row(result.candidate.label(), "mean", &result.mean);
        let i = &result.intervals;
        let between = |(low, high): (f64, f64)| format!("{low:.4} to {high:.4}");
        let _ = writeln!(
            out,
            "{:<11} 95 % intervals: AUC {}, log loss {}, Brier {}, ECE {}",
            "",
            between(i.auc),
            between(i.log_loss),
            between(i.brier),
            between(i.ece)
        );
        if let (Some(first), true) = (results.first(), rank > 0) {
            let (by, low, high) = result.against_first;
            let first = first.candidate.label();
            let _ = writeln!(
                out,
                "{:<11} log loss {by:+.4} against {first} ({low:+.4} to {high:+.4})",
                ""
            );
        }
    }
    if let Some(path) = report {
        let _ = writeln!(out, "\nwritten to {}", path.display());
    }
    out
}

fn json(mut counts: serde_json::Value, results: &[Backtest]) -> serde_json::Value {
    let metrics = |m: &Metrics| {
        serde_json::json!({
            "customers": m.n, "base": m.base, "auc": m.auc, "pr_auc": m.pr_auc_churn, "log_loss": m.log_loss,
            "brier": m.brier, "ece": m.ece, "lift_10": m.lift10_churn, "expected_over_actual": m.expected_over_actual,
        })
    };
    let models: Vec<serde_json::Value> = results
        .iter()
        .map(|result| {
            let folds = result.folds.iter();
            let i = &result.intervals;
            let (by, low, high) = result.against_first;
            serde_json::json!({
                "model": result.candidate.label(),
                "folds": folds
                    .map(|fold| serde_json::json!({"cutoff": fold.cutoff.to_string(), "metrics": metrics(&fold.metrics)}))
                    .collect::<Vec<_>>(),
                "mean": metrics(&result.mean),
                "intervals": {"auc": i.auc, "log_loss": i.log_loss, "brier": i.brier, "ece": i.ece},
                "log_loss_against_first": {"difference": by, "interval": [low, high]},
            })
        })
        .collect();
    if let Some(object) = counts.as_object_mut() {
        let _ = object.insert("models".to_owned(), models.into());
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_offs_are_months_that_are_closed() {
        let (first, end) = (day("2024-01-15").unwrap(), day("2024-12-20").unwrap());
        let task = Task {
            horizon_days: 90,
            active_days: 180,
            grid: months(first, end),
        };
        assert_eq!(task.grid.len(), 11);
        let tests: Vec<String> = last_closed(&task, end).iter().map(ToString::to_string).collect();
        assert_eq!(tests, ["2024-03-01", "2024-06-01", "2024-09-01"]);
    }
}
