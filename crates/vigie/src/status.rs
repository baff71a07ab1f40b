//! `vigie status`: how a running server is doing, from its own metrics and books: throughput, latencies, lag, timers, archive,
//! audits, flags. Once, or again and again. It asks and computes differences; it never judges.

use crate::cli::{Failure, Format, print};
use crate::client::Server;
use crate::clocks;
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;
use vigie_telemetry::page::Page;

/// How a running server is doing: throughput, latencies, lag, archive, audits, flags and, with a read key, its books
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Address of the server
    #[arg(long, env = "VIGIE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Address of its metrics, where they have one of their own (server.admin-listen); default: the same
    #[arg(long)]
    metrics_url: Option<String>,
    /// A read key, for the books of its workspace
    #[arg(long, env = "VIGIE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Look again and again, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks, over which rates are measured
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Text for people, or JSON for machines (one line a look)
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// One look, with rates since the one before.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Look {
    /// Whether a 2xx can be honoured, in the server's own words.
    ready: bool,
    readiness: String,
    version: String,
    up_seconds: f64,
    accepted_per_second: f64,
    outcomes_per_second: BTreeMap<String, f64>,
    refused_per_second: BTreeMap<String, f64>,
    scores_per_second: f64,
    timers_per_second: f64,
    /// Of what came since the look before; absent when nothing came.
    acknowledged_p99_seconds: Option<f64>,
    scored_p99_seconds: Option<f64>,
    lag_records: f64,
    oldest_unscored_seconds: f64,
    /// The partition that is furthest behind.
    slowest_partition: Option<String>,
    timer_overdue_seconds: f64,
    not_archived_records: f64,
    oldest_not_archived_seconds: f64,
    archive_errors: f64,
    audits: BTreeMap<String, f64>,
    audit_differences: f64,
    /// Since the start of the server, by policy and decision.
    flags: BTreeMap<String, BTreeMap<String, f64>>,
    /// Since the start of the server, by reason.
    dead_letters: BTreeMap<String, f64>,
    log_bytes: f64,
    disk_free_bytes: f64,
    disk_size_bytes: f64,
    memory_bytes: f64,
    cores: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    books: Option<serde_json::Value>,
}

impl Status {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let server = Server::new(&self.url, self.key.as_deref().unwrap_or_default());
        let metrics = Server::new(self.metrics_url.as_deref().unwrap_or(&self.url), "");
        let page = || -> Result<Page> {
            let text = metrics.text("/metrics");
            text.map(|text| Page::parse(&text))
                .context("no metrics; with server.admin-listen, name that address with --metrics-url")
        };
        let watch = clocks::stopwatch();
        let (mut before, mut then) = (page()?, watch.now());
        loop {
            std::thread::sleep(Duration::from_secs(self.every));
            let (now, at) = (page()?, watch.now());
            let (ready, readiness) = server.ready()?;
            let books = match self.key {
                Some(_) => Some(server.get("/v1/books")?),
                None => None,
            };
            let look = look(&now, &before, at.saturating_sub(then), clocks::now().0);
            let look = Look {
                ready,
                readiness: readiness.trim_end().to_owned(),
                books,
                ..look
            };
            print(&match self.output {
                Format::Json => format!("{}\n", serde_json::to_string(&look)?),
                Format::Text if self.watch && std::io::stdout().is_terminal() => {
                    format!("\x1b[H\x1b[J{}", rendered(&self.url, &look))
                }
                Format::Text => rendered(&self.url, &look),
            })?;
            if !self.watch {
                return Ok(());
            }
            (before, then) = (now, at);
        }
    }
}

/// What two pages, so far apart, say.
fn look(now: &Page, before: &Page, apart: Duration, now_ms: i64) -> Look {
    let seconds = apart.as_secs_f64().max(1e-3);
    // A server that was started again counts from zero.
    let since = |now: f64, before: f64| if now < before { now } else { now - before };
    let sum = |name: &str| now.sum(name).unwrap_or(0.0);
    let max = |name: &str| now.max(name).unwrap_or(0.0);
    let rate = |name: &str| since(sum(name), before.sum(name).unwrap_or(0.0)) / seconds;
    let rates = |name: &str, label: &str| -> BTreeMap<String, f64> {
        let earlier = before.by(name, label);
        let each = now.by(name, label).into_iter().map(|(value, count)| {
            let rate = since(count, earlier.get(&value).copied().unwrap_or(0.0)) / seconds;
            (value, rate)
        });
        each.collect()
    };
    let mut flags: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for sample in now.all("vigie_flags_total") {
        let of = flags.entry(sample.label("policy").to_owned()).or_default();
        *of.entry(sample.label("decision").to_owned()).or_insert(0.0) += sample.value;
    }
    let slowest = now
        .all("vigie_pipeline_lag_records")
        .filter(|sample| sample.value > 0.0)
        .max_by(|a, b| a.value.total_cmp(&b.value));
    let started = now.sum("process_start_time_seconds");
    let build = now.all("vigie_build_info").next();
    Look {
        ready: max("vigie_ready") > 0.0,
        readiness: String::new(),
        version: build.map_or_else(String::new, |build| build.label("version").to_owned()),
        up_seconds: started.map_or(0.0, |started| (now_ms as f64 / 1e3 - started).max(0.0)),
        accepted_per_second: rate("vigie_events_accepted_total"),
        outcomes_per_second: rates("vigie_events_outcomes_total", "outcome"),
        refused_per_second: rates("vigie_ingest_rejected_total", "code"),
        scores_per_second: rate("vigie_scores_written_total"),
        timers_per_second: rate("vigie_timers_fired_total"),
        acknowledged_p99_seconds: now.quantile("vigie_ingest_ack_latency_seconds", 0.99, Some(before)),
        scored_p99_seconds: now.quantile("vigie_pipeline_event_to_score_latency_seconds", 0.99, Some(before)),
        lag_records: sum("vigie_pipeline_lag_records"),
        oldest_unscored_seconds: max("vigie_pipeline_watermark_age_seconds"),
        slowest_partition: slowest.map(|sample| sample.label("partition").to_owned()),
        timer_overdue_seconds: max("vigie_timers_overdue_seconds"),
        not_archived_records: sum("vigie_archive_lag_records"),
        oldest_not_archived_seconds: max("vigie_archive_lag_seconds"),
        archive_errors: sum("vigie_archive_errors_total"),
        audits: now.by("vigie_audit_runs_total", "verdict"),
        audit_differences: max("vigie_audit_differences"),
        flags,
        dead_letters: now.by("vigie_dead_letters_stored_total", "reason"),
        log_bytes: sum("vigie_log_size_bytes"),
        disk_free_bytes: sum("vigie_disk_free_bytes"),
        disk_size_bytes: sum("vigie_disk_size_bytes"),
        memory_bytes: sum("process_resident_memory_bytes"),
        cores: rate("process_cpu_seconds_total"),
        books: None,
    }
}

fn rendered(url: &str, look: &Look) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<12}{text}");
    };
    let listed = |counts: &BTreeMap<String, f64>| {
        let some = counts.iter().filter(|(_, count)| **count > 0.0);
        let all: Vec<String> = some.map(|(name, count)| format!("{name} {}", count.round())).collect();
        if all.is_empty() {
            "none".to_owned()
        } else {
            all.join(", ")
        }
    };
    let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{:.0} ms", value * 1e3));
    let mib = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
    line(
        "vigie",
        format!(
            "{} at {url}, {}, up {:.0} s",
            look.version,
            if look.ready { "ready" } else { "NOT READY" },
            look.up_seconds
        ),
    );
    if !look.ready {
        line("", look.readiness.clone());
    }
    line("events", format!("{:.1}/s accepted", look.accepted_per_second));
    line("outcomes/s", listed_rates(&look.outcomes_per_second));
    line("refused/s", listed_rates(&look.refused_per_second));
    line(
        "latency p99",
        format!(
            "{} acknowledged, {} scored",
            seconds(look.acknowledged_p99_seconds),
            seconds(look.scored_p99_seconds)
        ),
    );
    let slowest = look.slowest_partition.as_ref();
    line(
        "lag",
        format!(
            "{:.0} records, the oldest for {:.0} s{}",
            look.lag_records,
            look.oldest_unscored_seconds,
            slowest.map_or(String::new(), |partition| format!(", most in partition {partition}"))
        ),
    );
    line(
        "scores",
        format!(
            "{:.1}/s written, {:.1}/s timers fired, the most overdue for {:.0} s",
            look.scores_per_second, look.timers_per_second, look.timer_overdue_seconds
        ),
    );
    line(
        "archive",
        format!(
            "{:.0} records wait, the oldest for {:.0} s, {:.0} errors",
            look.not_archived_records, look.oldest_not_archived_seconds, look.archive_errors
        ),
    );
    line(
        "audits",
        format!("{}; {:.0} differences", listed(&look.audits), look.audit_differences),
    );
    for (policy, decisions) in &look.flags {
        line("flags", format!("{policy}: {}", listed(decisions)));
    }
    line("set aside", listed(&look.dead_letters));
    line(
        "resources",
        format!(
            "{:.2} cores, {} memory, {} log, {} of {} disk free",
            look.cores,
            mib(look.memory_bytes),
            mib(look.log_bytes),
            mib(look.disk_free_bytes),
            mib(look.disk_size_bytes)
        ),
    );
    if let Some(books) = &look.books {
        let fields = books.as_object().into_iter().flatten();
        let said: Vec<String> = fields
            .filter(|(_, value)| value.is_number())
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        line("books", said.join(", "));
    }
    out
}

fn listed_rates(rates: &BTreeMap<String, f64>) -> String {
    let some = rates.iter().filter(|(_, rate)| **rate > 0.0);
    let all: Vec<String> = some.map(|(name, rate)| format!("{name} {rate:.1}")).collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_telemetry::{BuildInfo, Decision, Exporter, Outcome, Stopwatch};

    #[test]
    fn a_look_is_the_difference_of_two_pages() {
        let exporter = Exporter::new(BuildInfo {
            version: "9.9.9",
            revision: "r",
        })
        .unwrap();
        let metrics = exporter.metrics(Stopwatch::stopped());
        let page = || {
            exporter.upkeep();
            Page::parse(&exporter.render())
        };
        metrics.events.accepted("acme", 100);
        let before = page();
        metrics.ready(true);
        metrics.events.accepted("acme", 30);
        metrics.events.outcome("acme", Outcome::Applied, 20);
        metrics.events.outcome("acme", Outcome::Duplicate, 10);
        metrics.pipeline.progress(7, 10, 15);
        metrics.relance.decided("win-back", Decision::Flagged, 3);
        metrics.pipeline.event_to_score(Duration::from_millis(7));
        let now = page();
        let seen = look(&now, &before, Duration::from_secs(10), 0);
        assert!(seen.ready && seen.version == "9.9.9");
        assert_eq!(seen.accepted_per_second, 3.0);
        assert_eq!(seen.outcomes_per_second["applied"], 2.0);
        assert_eq!((seen.lag_records, seen.slowest_partition.as_deref()), (5.0, Some("7")));
        assert_eq!(seen.flags["win-back"]["flagged"], 3.0);
        let p99 = seen.scored_p99_seconds.unwrap();
        assert!((0.005..=0.01).contains(&p99), "{p99}");
        assert_eq!(
            seen.acknowledged_p99_seconds, None,
            "nothing was acknowledged in between"
        );
        let text = rendered("http://x", &seen);
        assert!(
            text.contains("3.0/s accepted") && text.contains("win-back: flagged 3"),
            "{text}"
        );
        // A server that was started again counts from zero, not backwards.
        assert_eq!(
            look(&before, &now, Duration::from_secs(10), 0).accepted_per_second,
            10.0
        );
    }
}
