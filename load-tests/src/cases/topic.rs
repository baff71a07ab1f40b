//! A log that is full of events, and how fast it becomes scores in Redis: events a second, CPU time in every process that
//! takes part, memory, and the time from an event to its score at half of that load. In the same run: what the log's reader
//! can read when nobody folds, and what `redis-benchmark` can write when nobody else does.
//!
//! The clock is outside of vigie. It starts when the worker has its first outcomes, and stops when the last customer of each
//! partition, whose only event stands behind all others, is seen in Redis. So starting and joining a group do not count, and
//! whatever is not in Redis does not count either.

use super::House;
use crate::broker::{self, Broker};
use crate::client::Client;
use crate::events::now_ms;
use crate::generator::{Load, Requests, drive, due, histogram, ms};
use crate::past;
use crate::peers::{Stream, newcomer};
use crate::profile::Profile;
use crate::redis::{Looks, Redis};
use crate::report::RunResult;
use crate::server::{Server, Site, WORKSPACE, WRITE_KEY};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::mpsc;
use vigie_event::{Offset, Partition, partition_for};
use vigie_ingestion::log::{Log as _, LogReader as _};
use vigie_kafka::{Connection, KafkaLog, LogOptions};

/// Events of one request while the log is filled.
const FILL: usize = 500;
const FILLERS: usize = 4;
const FILL_TIME: Duration = Duration::from_secs(90);
/// Events of one request while latency is measured; every so many requests begin with a newcomer, who is looked for.
const BATCH: usize = 100;
const PROBE_EVERY: u64 = 4;
/// `redis-benchmark`'s commands in one go.
const PIPELINE: u32 = 500;
/// Between two looks at Redis.
const LOOK: Duration = Duration::from_millis(1);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest wait for the next records of a broker.
const BROKER_PATIENCE: Duration = Duration::from_secs(120);
/// What a step of the worker takes from its log.
const STEP: (usize, usize) = (5_000, 4 << 20);

/// One case.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Experiment {
    pub(crate) about: String,
    seed: u64,
    customers: u32,
    days: u32,
    run: Vec<Run>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Log {
    /// A topic, with a collector and a worker in processes of their own.
    Kafka,
    /// Files, with everything in one process.
    Embedded,
}

/// One run of a case.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Run {
    name: String,
    log: Log,
    partitions: u16,
    events: u64,
    /// Redis's `appendfsync`; absent: it keeps nothing on the disk.
    redis: Option<String>,
    /// How long latency is measured at half of the load.
    latency_seconds: u64,
}

impl Experiment {
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.customers > 0 && self.days > 0, "a number is 0");
        ensure!(
            self.run.iter().all(|run| run.events > 0 && run.partitions > 0),
            "a number is 0"
        );
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn runs(&self) -> Vec<&str> {
        self.run.iter().map(|run| run.name.as_str()).collect()
    }

    /// Why it cannot be run here.
    pub(crate) fn obstacle(&self, house: &House) -> Option<String> {
        if !Redis::at_hand() {
            return Some("there is no redis-server and redis-benchmark on the path".to_owned());
        }
        let needs_broker = self.run.iter().any(|run| run.log == Log::Kafka);
        if needs_broker && house.broker.is_none() && broker::tansu().is_none() {
            return Some("there is no broker: `make test-kafka` builds tansu, `--broker` names another one".to_owned());
        }
        None
    }

    /// Runs it.
    pub(crate) async fn measure(&self, case: &str, house: &House) -> Result<Vec<RunResult>> {
        let mut results = Vec::new();
        for run in &self.run {
            let result = self.one(run, house).await;
            let result = result.unwrap_or_else(|error| RunResult::failed(&run.name, &error));
            crate::report::announce(case, &result);
            results.push(result);
        }
        Ok(results)
    }

    async fn one(&self, run: &Run, house: &House) -> Result<RunResult> {
        let mut result = RunResult::new(&run.name);
        let services = tempfile::tempdir_in(&house.data)?;
        let redis = Redis::start(services.path(), run.redis.as_deref()).await?;
        let [plain, guarded] = redis.limits(PIPELINE).await?;
        let broker = match run.log {
            Log::Embedded => None,
            Log::Kafka => Some(Broker::start(house.broker.as_deref(), services.path()).await?),
        };
        let topics = format!("load-{}", now_ms()?);
        let site = Site::new(
            &house.binary,
            &house.data,
            &settings(run, &redis, broker.as_ref(), &topics),
        )?;
        let end_ms = now_ms()?;
        let mut stream = Stream::new(self.seed, self.customers, self.days, run.events, end_ms);

        // Fill the log.
        let mut all = None;
        let collector = match &broker {
            Some(_) => {
                let (code, plan) = site.configured(&["topics", "apply"]).await?;
                ensure!(code == 0, "the topics were not made: {plan}");
                site.start(&["run", "--role", "collector"], "collector").await?
            }
            None => {
                // A Redis that stands still holds the worker up, while the collector goes on.
                let server = site.start(&["up"], "data").await?;
                signal(redis.id(), "STOP").await?;
                all = Some(());
                server
            }
        };
        let begun = Instant::now();
        let mut sent = fill(&collector, &mut stream, run.events).await?;
        if sent < run.events {
            result.remarks.push(format!(
                "{sent} of {} events could be taken in within {} s",
                run.events,
                FILL_TIME.as_secs()
            ));
        }
        let filled = sent as f64 / begun.elapsed().as_secs_f64();
        let marks = marks(run.partitions);
        let texts: Vec<String> = marks.values().map(|id| newcomer(id, end_ms)).collect();
        post(
            &mut Client::connect(collector.address, WRITE_KEY).await?,
            format!("[{}]", texts.join(",")),
        )
        .await?;
        sent += texts.len() as u64;
        let keys: BTreeMap<Partition, String> = marks
            .iter()
            .map(|(partition, id)| (*partition, redis_key(*partition, id)))
            .collect();

        // What reading alone can do.
        let mut reading = None;
        let (worker, collector) = match &broker {
            Some(broker) => {
                reading = Some(read_alone(broker, &topics, run.partitions, sent).await?);
                // It takes no time from the worker: it has nothing to do.
                let worker = site.start(&["run", "--role", "worker"], "worker").await?;
                (worker, Some(collector))
            }
            None => {
                signal(redis.id(), "CONT").await?;
                (collector, None)
            }
        };
        let _: Option<()> = all;

        // The measured part.
        let (start, before) = first_outcomes(&worker).await?;
        let costs = |at: &Server| {
            [
                at.cpu(),
                redis.cpu(),
                broker.as_ref().and_then(Broker::cpu).unwrap_or_default(),
            ]
        };
        let used = costs(&worker);
        let profile = match house.profile {
            true => Profile::start(services.path(), worker.id())?,
            false => None,
        };
        let mut looks = Looks::connect(redis.address()).await?;
        while looks.visible(&keys).await?.len() < keys.len() {
            if start.elapsed() > PATIENCE {
                bail!("not everything is in Redis after {} s", PATIENCE.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
        let took = start.elapsed();
        let counted = sent as f64 - before;
        let per_million = |index: usize| {
            costs(&worker)
                .get(index)
                .zip(used.get(index))
                .map_or(0.0, |(now, then)| {
                    now.saturating_sub(*then).as_secs_f64() / counted * 1e6
                })
        };
        let rate = counted / took.as_secs_f64();
        let measures = &mut result.measures;
        measures.put("events/s", rate);
        measures.put("vigie CPU s/M", per_million(0));
        measures.put("Redis CPU s/M", per_million(1));
        if broker.as_ref().and_then(Broker::cpu).is_some() {
            measures.put("broker CPU s/M", per_million(2));
        }
        if let Some(profile) = profile {
            result.profile = profile.finish().await?;
        }
        if let Some(peak) = worker.peak_memory_bytes() {
            measures.put("peak memory MB", peak as f64 / 1e6);
        }

        // Latency at half of that, or at what can be taken in.
        let half = rate / 2.0;
        let load = half.min(filled * 0.6);
        if load < half {
            result.remarks.push(format!(
                "latency was measured at {load:.0} events/s, since no more than {filled:.0} a second could be taken in"
            ));
        }
        let door = collector.as_ref().unwrap_or(&worker);
        let seconds = house.seconds.unwrap_or(run.latency_seconds);
        let probed = latency(door, &mut looks, load, seconds, &mut stream, run.partitions).await?;
        sent += probed.sent;
        measures.put("latency load/s", load);
        measures.put("event to score p50 ms", ms(&probed.visible_us, 0.5));
        measures.put("event to score p99 ms", ms(&probed.visible_us, 0.99));
        result.failures.extend(probed.lost);

        // The limits of the same run.
        measures.put("limit: filling/s", filled);
        if let Some(reading) = reading {
            measures.put("limit: reading alone/s", reading);
        }
        measures.put("limit: HSET/s", plain.per_second);
        measures.put("limit: guarded HSET/s", guarded.per_second);
        measures.put("HSET CPU s/M", plain.cpu_per_million);
        measures.put("guarded HSET CPU s/M", guarded.cpu_per_million);
        if let Some(broker) = &broker {
            result.remarks.push(format!("the broker is {}", broker.name()));
        }

        // Books and audit.
        drop(looks);
        let name = match broker {
            None => {
                let books = worker.settled(PATIENCE).await?;
                result
                    .failures
                    .extend(super::http::unbalanced(&books, sent, stream.repeated));
                worker.stop().await?;
                "data"
            }
            Some(_) => {
                let reader = site.start(&["run", "--role", "api,archivist"], "data").await?;
                let books = reader.settled(PATIENCE).await?;
                result
                    .failures
                    .extend(super::http::unbalanced(&books, sent, stream.repeated));
                reader.stop().await?;
                worker.stop().await?;
                "data"
            }
        };
        let past = past::look(&site, name).await?;
        past.measures(&mut result.measures);
        result.failures.extend(past.remark());
        Ok(result)
    }
}

fn settings(run: &Run, redis: &Redis, broker: Option<&Broker>, topics: &str) -> String {
    let mut text = format!(
        "[store]\nbackend = \"redis\"\n[redis]\nnodes = \"{}\"\ndurability = \"{}\"\n[log]\npartitions = {}\n",
        redis.address(),
        if run.redis.is_some() { "file" } else { "none" },
        run.partitions
    );
    if let Some(broker) = broker {
        text += &format!(
            "backend = \"kafka\"\n[kafka]\nbrokers = \"{}\"\ntopic = \"{topics}\"\ndead-letters-topic = \"{topics}-letters\"\n\
             group = \"{topics}\"\nreplication = 1\nmin-insync = 1\nappend-timeout = \"60s\"\nfetch-wait = \"10ms\"\n",
            broker.address()
        );
    }
    text
}

/// Sends a signal to a process that this run started.
async fn signal(process: Option<u32>, name: &str) -> Result<()> {
    let process = process.context("the process has ended")?;
    let status = Command::new("kill")
        .args([format!("-{name}"), process.to_string()])
        .stdin(Stdio::null())
        .status()
        .await?;
    ensure!(status.success(), "kill -{name} {process}");
    Ok(())
}

/// One customer for each partition whom nobody else is.
fn marks(partitions: u16) -> BTreeMap<Partition, String> {
    let mut found = BTreeMap::new();
    let mut number = 0u64;
    while found.len() < usize::from(partitions) {
        let id = format!("last-{number}");
        let _ = found.entry(partition_for(&id, partitions)).or_insert(id);
        number += 1;
    }
    found
}

/// The key of a customer, by the public contract of the Redis store.
fn redis_key(partition: Partition, id: &str) -> String {
    format!("vigie:{{{partition}}}:{WORKSPACE}:customer:{id}")
}

/// Puts the next events of a stream into the log, as fast as it takes them and for a while at most; how many were taken.
async fn fill(server: &Server, stream: &mut Stream, events: u64) -> Result<u64> {
    let (sender, bodies) = mpsc::channel::<String>(2 * FILLERS);
    let bodies = Arc::new(tokio::sync::Mutex::new(bodies));
    let mut fillers = Vec::new();
    for _ in 0..FILLERS {
        let mut client = Client::connect(server.address, WRITE_KEY).await?;
        let bodies = Arc::clone(&bodies);
        fillers.push(tokio::spawn(async move {
            loop {
                let next = bodies.lock().await.recv().await;
                let Some(body) = next else { return anyhow::Ok(()) };
                post(&mut client, body).await?;
            }
        }));
    }
    let begun = Instant::now();
    let mut left = events;
    while left > 0 && begun.elapsed() < FILL_TIME {
        let count = left.min(FILL as u64);
        let mut body = String::with_capacity(FILL * 320);
        for index in 0..count {
            body.push(if index == 0 { '[' } else { ',' });
            stream.push(&mut body);
        }
        body.push(']');
        if sender.send(body).await.is_err() {
            break;
        }
        left -= count;
    }
    drop(sender);
    for filler in fillers {
        filler.await??;
    }
    Ok(events - left)
}

/// Posts a batch until it is taken.
pub(super) async fn post(client: &mut Client, body: String) -> Result<()> {
    let body = Bytes::from(body);
    let begun = Instant::now();
    loop {
        let (status, answer) = client.send(Method::POST, "/v1/events", body.clone()).await?;
        if status.is_success() {
            return Ok(());
        }
        let passing = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if !passing || begun.elapsed() > PATIENCE {
            bail!("the collector answered {status}: {}", String::from_utf8_lossy(&answer));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Events a second that the log's reader delivers when nothing is done with them.
async fn read_alone(broker: &Broker, topic: &str, partitions: u16, events: u64) -> Result<f64> {
    let options = LogOptions {
        fetch_wait: Duration::from_millis(10),
        ..LogOptions::new(topic, partitions)
    };
    let log = KafkaLog::open(Connection::to(&broker.address()), options).await?;
    let from = (0..partitions).map(|partition| (Partition(partition), Offset(0)));
    // Beside the events, each partition begins with what puts model and policies in force.
    let mut left: u64 = log.ends().iter().map(|end| end.0).sum();
    ensure!(
        left >= events,
        "the topic holds {left} records instead of {events} and more"
    );
    let begun = Instant::now();
    let mut reader = log.reader(from.collect())?;
    while left > 0 {
        let entries = reader.next(STEP.0, STEP.1, BROKER_PATIENCE).await?;
        ensure!(
            !entries.is_empty(),
            "the broker delivers nothing in {} s, and {left} records are missing",
            BROKER_PATIENCE.as_secs()
        );
        left = left.saturating_sub(entries.len() as u64);
    }
    Ok(events as f64 / begun.elapsed().as_secs_f64())
}

/// Waits for the worker's first outcomes: when that was, and how many there were.
async fn first_outcomes(worker: &Server) -> Result<(Instant, f64)> {
    let begun = Instant::now();
    loop {
        let outcomes = worker.metric("vigie_events_outcomes_total").await?;
        if outcomes > 0.0 {
            return Ok((Instant::now(), outcomes));
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "the worker has not begun after {} s",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a measurement of latency found.
struct Probed {
    sent: u64,
    /// From the moment an event was due to the moment its customer was seen in Redis.
    visible_us: Histogram<u64>,
    lost: Option<String>,
}

/// Batches made beforehand: making them must not delay sending them.
struct Prepared(Vec<Bytes>);

impl Requests for Prepared {
    fn request(&self, number: u64) -> (Method, String, Bytes) {
        let body = usize::try_from(number).ok().and_then(|number| self.0.get(number));
        (Method::POST, "/v1/events".to_owned(), body.cloned().unwrap_or_default())
    }

    fn events(&self) -> u64 {
        BATCH as u64
    }
}

/// Sends at a constant rate, and looks for newcomers in Redis.
async fn latency(
    door: &Server,
    looks: &mut Looks,
    events_per_second: f64,
    seconds: u64,
    stream: &mut Stream,
    partitions: u16,
) -> Result<Probed> {
    let rate = events_per_second / BATCH as f64;
    let requests = (rate * seconds as f64).ceil() as u64;
    let now = now_ms()?;
    stream.live(now, events_per_second);
    let mut bodies = Vec::new();
    let mut probes: BTreeMap<u64, String> = BTreeMap::new();
    for number in 0..requests {
        let mut body = String::with_capacity(BATCH * 320);
        for index in 0..BATCH {
            body.push(if index == 0 { '[' } else { ',' });
            if index == 0 && number.is_multiple_of(PROBE_EVERY) {
                let id = format!("probe-{number}");
                body.push_str(&newcomer(&id, now));
                let _ = probes.insert(number, redis_key(partition_for(&id, partitions), &id));
            } else {
                stream.push(&mut body);
            }
        }
        body.push(']');
        bodies.push(Bytes::from(body));
    }
    let load = Load {
        rate: Some(rate),
        time: Duration::from_secs(seconds),
        connections: 16,
        resend_every: 0,
    };
    let start = Instant::now() + Duration::from_millis(100);
    let sending = drive(door.address, WRITE_KEY, Arc::new(Prepared(bodies)), &load, start);
    let looking = look_for(looks, probes, start, rate);
    let (sent, looked) = tokio::join!(sending, looking);
    let (sent, (visible_us, missing)) = (sent?, looked?);
    // What was refused cannot become visible, and must not be in the books.
    let lost = (missing > 0 || sent.refused > 0)
        .then(|| format!("{missing} newcomers NOT SEEN, {} requests refused", sent.refused));
    Ok(Probed {
        sent: sent.acknowledged,
        visible_us,
        lost,
    })
}

/// Looks until each was seen, or is given up.
async fn look_for(
    looks: &mut Looks,
    mut coming: BTreeMap<u64, String>,
    start: Instant,
    rate: f64,
) -> Result<(Histogram<u64>, usize)> {
    let mut seen = histogram()?;
    let mut waiting: BTreeMap<u64, String> = BTreeMap::new();
    let last = coming.keys().last().copied().unwrap_or(0);
    let end = due(start, rate, last) + Duration::from_secs(30);
    while (!coming.is_empty() || !waiting.is_empty()) && Instant::now() < end {
        let now = Instant::now();
        while let Some(entry) = coming.first_entry() {
            if due(start, rate, *entry.key()) > now {
                break;
            }
            let (number, key) = entry.remove_entry();
            let _ = waiting.insert(number, key);
        }
        if !waiting.is_empty() {
            let found = looks.visible(&waiting).await?;
            let now = Instant::now();
            for number in found {
                let _ = waiting.remove(&number);
                let late = now.saturating_duration_since(due(start, rate, number));
                seen.saturating_record(crate::generator::micros(late));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok((seen, coming.len() + waiting.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_mark_for_each_partition() {
        let marks = marks(16);
        assert_eq!(marks.len(), 16);
        for (partition, id) in marks {
            assert_eq!(partition_for(&id, 16), partition);
        }
        assert_eq!(redis_key(Partition(3), "last-7"), "vigie:{3}:load:customer:last-7");
    }
}
