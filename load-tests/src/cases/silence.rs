//! Customers who are silent: what they cost on the disk, in memory and in CPU time while nothing comes, whether each is flagged
//! when its silence has lasted long enough, and how soon a process that died is back with all of them. Before there are any: what
//! an empty process costs, and what connections that say nothing cost.

use super::House;
use crate::client::Client;
use crate::events::now_ms;
use crate::generator::{histogram, ms};
use crate::past;
use crate::process;
use crate::report::RunResult;
use crate::server::{Server, Site, WRITE_KEY};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use vigie_event::Timestamp;

const POLICIES: &str = "[[policy]]\nid = \"silent\"\nowner = \"load tests\"\ngoal = \"Notice silence.\"\nscore = \"attrition\"\n\
                        threshold = 0.7\nrearm-below = 0.5\ncooldown-days = 30\n[policy.eligible]\nknown-only = true\n";
/// Days between the visits of a customer.
const GAP_DAYS: i64 = 5;
const VISITS: i64 = 2;
const DAY_MS: i64 = 86_400_000;
/// Events of one request.
const BATCH: usize = 1_000;
const SENDERS: usize = 4;
/// How long a process is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(8);
/// From the posting of those whose time comes to the first of them.
const AHEAD_MS: i64 = 4_000;
/// Between two looks at the flags.
const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(300);

/// One case.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Experiment {
    pub(crate) about: String,
    run: Vec<Run>,
}

/// One run of a case.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Run {
    name: String,
    customers: i64,
    /// Customers beside them whose time comes while they are watched, and how long that takes.
    flagged: i64,
    flagged_within_seconds: i64,
    /// Connections that say nothing.
    connections: usize,
}

impl Experiment {
    pub(crate) fn check(&self) -> Result<()> {
        for run in &self.run {
            ensure!(
                run.customers > 0 && run.flagged > 0 && run.flagged_within_seconds > 0,
                "{}: a number is 0",
                run.name
            );
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn runs(&self) -> Vec<&str> {
        self.run.iter().map(|run| run.name.as_str()).collect()
    }

    /// Runs it.
    pub(crate) async fn measure(&self, case: &str, house: &House) -> Result<Vec<RunResult>> {
        let mut results = Vec::new();
        for run in &self.run {
            let result = one(run, house).await;
            let result = result.unwrap_or_else(|error| RunResult::failed(&run.name, &error));
            crate::report::announce(case, &result);
            results.push(result);
        }
        Ok(results)
    }
}

async fn one(run: &Run, house: &House) -> Result<RunResult> {
    let mut result = RunResult::new(&run.name);
    let policies = house.data.join("silence-policies.toml");
    std::fs::write(&policies, POLICIES)?;
    let settings = format!(
        "[relance]\npolicies = {policies:?}\n[server]\nmax-connections = {}\nidle-timeout = \"1h\"\n",
        run.connections + 100
    );
    let site = Site::new(&house.binary, &house.data, &settings)?;
    let mut server = site.start(&["up"], "data").await?;

    // Nobody there.
    let measures = &mut result.measures;
    tokio::time::sleep(Duration::from_secs(1)).await;
    measures.put("empty: CPU %", idle(&server).await);
    let empty = resident(&server);
    measures.put("empty: MB", empty);
    if run.connections > 0 {
        let mut open = Vec::new();
        for _ in 0..run.connections {
            let mut client = Client::connect(server.address, WRITE_KEY).await?;
            let _ = client.send(Method::GET, "/healthz", Bytes::new()).await?;
            open.push(client);
        }
        measures.put("idle connections: MB", resident(&server) - empty);
        drop(open);
    }

    // How long such a customer may be silent is the model's to say.
    let now = i64::try_from(now_ms()?)?;
    post(&server, vec![customer("probe", now - DAY_MS)]).await?;
    let _ = server.settled(PATIENCE).await?;
    let silence = crossing(&server, "probe").await?.0 - (now - DAY_MS);
    ensure!(silence > 3 * DAY_MS, "such a customer would be flagged at once");

    // The silent ones: their time comes between an hour from now and the end of the silence that they are allowed.
    let used = server.cpu();
    let begun = Instant::now();
    let room = silence - 3_600_000 * 2;
    let visits = |number: i64| {
        let last = now - (number % 10_000) * (room / 10_000);
        customer(&format!("s{number:08}"), last)
    };
    post(&server, (0..run.customers).map(visits)).await?;
    let _ = server.settled(PATIENCE).await?;
    let events = (run.customers * VISITS) as f64;
    measures.put("customers", run.customers as f64);
    measures.put("loaded events/s", events / begun.elapsed().as_secs_f64());
    measures.put(
        "CPU s/M",
        server.cpu().saturating_sub(used).as_secs_f64() / events * 1e6,
    );

    // Silence.
    tokio::time::sleep(Duration::from_secs(2)).await;
    measures.put("silent: CPU %", idle(&server).await);
    measures.put("silent: MB", resident(&server));
    for part in ["store", "log", "archive"] {
        let bytes = size(&site.data("data").join(part))?;
        measures.put(&format!("{part} bytes/customer"), bytes as f64 / run.customers as f64);
    }

    // Those whose time comes.
    let now = i64::try_from(now_ms()?)?;
    let step = run.flagged_within_seconds * 1_000 / run.flagged;
    let soon = |number: i64| {
        customer(
            &format!("f{number:06}"),
            now + AHEAD_MS + number * step.max(1) - silence,
        )
    };
    post(&server, (0..run.flagged).map(soon)).await?;
    let late = watch(&server, run).await?;
    measures.put("flagged", late.len() as f64);
    measures.put("flag late p50 ms", ms(&late, 0.5));
    measures.put("flag late p99 ms", ms(&late, 0.99));
    measures.put("flag late max ms", ms(&late, 1.0));
    if late.len() < run.flagged.unsigned_abs() {
        result.failures.push(format!(
            "{} of {} flags NOT RAISED",
            run.flagged.unsigned_abs() - late.len(),
            run.flagged
        ));
    }

    // A death.
    server.stop().await?;
    server = site.start(&["up"], "data").await?;
    measures.put("restart s", server.starting.as_secs_f64());
    let books = server.settled(PATIENCE).await?;
    let sent = (1 + run.customers + run.flagged) * VISITS;
    result
        .failures
        .extend(super::http::unbalanced(&books, sent.unsigned_abs(), 0));
    server.stop().await?;
    let past = past::look(&site, "data").await?;
    past.measures(&mut result.measures);
    result.failures.extend(past.remark());
    Ok(result)
}

/// The visits of a customer, the last one at `last`.
fn customer(id: &str, last: i64) -> String {
    let mut events = String::new();
    for visit in 0..VISITS {
        let at = last - visit * GAP_DAYS * DAY_MS;
        let comma = if visit == 0 { "" } else { "," };
        let _ = write!(
            events,
            r#"{comma}{{"id":"{id}-{visit}","user_id":"{id}","signal":"page.view","timestamp":{at}}}"#
        );
    }
    events
}

/// Posts the events of customers.
async fn post(server: &Server, customers: impl IntoIterator<Item = String>) -> Result<()> {
    let mut clients = Vec::new();
    for _ in 0..SENDERS {
        clients.push(Client::connect(server.address, WRITE_KEY).await?);
    }
    let mut customers = customers.into_iter().peekable();
    while customers.peek().is_some() {
        let sending = clients.drain(..).map(|mut client| {
            let batch: Vec<String> = customers
                .by_ref()
                .take(BATCH / VISITS.unsigned_abs() as usize)
                .collect();
            async move {
                if !batch.is_empty() {
                    super::topic::post(&mut client, format!("[{}]", batch.join(","))).await?;
                }
                anyhow::Ok(client)
            }
        });
        let sending: Vec<_> = sending.map(tokio::spawn).collect();
        for sent in sending {
            clients.push(sent.await??);
        }
    }
    Ok(())
}

/// When the policy's threshold will be reached in silence, by the API.
async fn crossing(server: &Server, customer: &str) -> Result<Timestamp> {
    let answer: Value = serde_json::from_slice(&server.read(&format!("/v1/customers/{customer}")).await?)?;
    let at = answer.pointer("/crossings/0/crosses_at").and_then(Value::as_str);
    let at = at.with_context(|| format!("no crossing lies ahead: {answer}"))?;
    Timestamp::parse(at).map_err(|error| anyhow::anyhow!("{at}: {error}"))
}

/// Looks at the flags until all are there, or nothing can come any more. How late each was seen, in microseconds.
async fn watch(server: &Server, run: &Run) -> Result<hdrhistogram::Histogram<u64>> {
    let mut late = histogram()?;
    let mut path = "/v1/relances?limit=1000".to_owned();
    let patience =
        Duration::from_millis(u64::try_from(AHEAD_MS + run.flagged_within_seconds * 1_000)?) + Duration::from_secs(10);
    let begun = Instant::now();
    while late.len() < run.flagged.unsigned_abs() && begun.elapsed() < patience {
        let page: Value = serde_json::from_slice(&server.read(&path).await?)?;
        let seen = i64::try_from(now_ms()?)?;
        let raised = page
            .get("relances")
            .and_then(Value::as_array)
            .context("no list of relances")?;
        for flag in raised {
            let at = flag
                .get("raised_at")
                .and_then(Value::as_str)
                .context("a flag without a time")?;
            let at = Timestamp::parse(at).map_err(|error| anyhow::anyhow!("{at}: {error}"))?;
            if seen < at.0 {
                bail!("a flag was raised before its time: {flag}");
            }
            late.saturating_record((seen - at.0).unsigned_abs() * 1_000);
        }
        if let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) {
            path = format!("/v1/relances?limit=1000&cursor={cursor}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(late)
}

/// The share of one core that a process uses while nothing happens, in percent.
async fn idle(server: &Server) -> f64 {
    let (begun, used) = (Instant::now(), server.cpu());
    tokio::time::sleep(IDLE).await;
    server.cpu().saturating_sub(used).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0
}

fn resident(server: &Server) -> f64 {
    let bytes = server.id().and_then(|id| process::memory(id, "VmRSS"));
    bytes.unwrap_or_default() as f64 / 1e6
}

/// Bytes that the files below a directory take of the disk: what is only reserved in them does not count.
fn size(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += size(&entry.path())?;
        } else if let Ok(metadata) = entry.metadata() {
            bytes += metadata.blocks() * 512;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_is_some_visits_in_json() {
        let text = format!("[{}]", customer("a", 1_000 * DAY_MS));
        let events: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(events.len(), VISITS.unsigned_abs() as usize);
        assert_eq!(events[0]["timestamp"], 1_000 * DAY_MS);
        assert_eq!(events[1]["timestamp"], (1_000 - GAP_DAYS) * DAY_MS);
    }
}
