//! Requests over HTTP to one process that does everything (`vigie up`): how many are acknowledged, how long that takes, how
//! fast the worker behind follows, and whether every single event ends up in the books.

use super::House;
use crate::events::{Batches, Shape};
use crate::generator::{Load, Requests, Sent, drive, ms};
use crate::past;
use crate::redis::Redis;
use crate::report::{Measures, RunResult};
use crate::requests::{Clicks, Pixels};
use crate::server::{Books, Site, WRITE_KEY};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the worker may take to catch up after the last acknowledgement.
const CATCH_UP: Duration = Duration::from_secs(300);
/// A directory in memory, where fsync costs nothing.
const MEMORY: &str = "/dev/shm";

/// One case.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Experiment {
    pub(crate) about: String,
    #[serde(default)]
    request: Request,
    seed: u64,
    customers: u32,
    batch_events: u32,
    /// Bytes of one event's JSON, padded.
    event_bytes: usize,
    connections: u32,
    /// Every so many requests one is sent twice; 0 for never.
    resend_every: u64,
    run: Vec<Run>,
}

/// What one request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    /// Events in JSON.
    #[default]
    Events,
    /// A picture that counts.
    Pixel,
    /// A link that counts and leads on.
    Click,
}

/// One run of a case.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Run {
    name: String,
    /// Absent, with `share-of-first`: as fast as the connections allow.
    events_per_second: Option<u64>,
    /// The rate as a share of what the first run was acknowledged.
    share_of_first: Option<f64>,
    seconds: u64,
    /// Instead of the case's.
    connections: Option<u32>,
    /// The share of all events that one customer has beyond their due.
    #[serde(default)]
    hot_share: f64,
    /// The data lie in memory, where fsync costs nothing.
    #[serde(default)]
    in_memory: bool,
    /// The store is a Redis with this `appendfsync`.
    redis: Option<String>,
}

impl Experiment {
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.customers > 0 && self.batch_events > 0 && self.connections > 0,
            "a number is 0"
        );
        ensure!(
            self.request == Request::Events || self.batch_events == 1 && self.resend_every == 0,
            "a pixel or a click is one event, and a click that is repeated is another one"
        );
        for (index, run) in self.run.iter().enumerate() {
            ensure!(run.events_per_second != Some(0), "{}: the rate is 0", run.name);
            ensure!(
                run.share_of_first.is_none() || index > 0 && run.events_per_second.is_none(),
                "{}: a share is taken of the first run, and instead of a rate",
                run.name
            );
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn runs(&self) -> Vec<&str> {
        self.run.iter().map(|run| run.name.as_str()).collect()
    }

    /// Why it cannot be run here.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let needs_redis = self.run.iter().any(|run| run.redis.is_some());
        (needs_redis && !Redis::at_hand()).then(|| "there is no redis-server on the path".to_owned())
    }

    /// Runs it.
    pub(crate) async fn measure(&self, case: &str, house: &House) -> Result<Vec<RunResult>> {
        let mut results: Vec<RunResult> = Vec::new();
        for (number, run) in self.run.iter().enumerate() {
            let first = results.first().and_then(|first| first.measures.get("acknowledged/s"));
            let result = self.one(number, run, first, house).await;
            let result = result.unwrap_or_else(|error| RunResult::failed(&run.name, &error));
            crate::report::announce(case, &result);
            results.push(result);
        }
        Ok(results)
    }

    /// One run against a fresh server.
    async fn one(&self, number: usize, run: &Run, first: Option<f64>, house: &House) -> Result<RunResult> {
        let mut result = RunResult::new(&run.name);
        let memory = PathBuf::from(MEMORY);
        let data = if run.in_memory { &memory } else { &house.data };
        let redis_data = tempfile::tempdir_in(data)?;
        let redis = match &run.redis {
            None => None,
            Some(appendfsync) => Some(Redis::start(redis_data.path(), Some(appendfsync)).await?),
        };
        let mut settings = redis.as_ref().map_or(String::new(), |redis| {
            format!(
                "[store]\nbackend = \"redis\"\n[redis]\nnodes = \"{}\"\n",
                redis.address()
            )
        });
        if self.request == Request::Click {
            settings += Clicks::SETTINGS;
        }
        let site = Site::new(&house.binary, data, &settings)?;
        let server = site.start(&["up"], "data").await?;
        let shape = Shape {
            seed: self.seed,
            customers: self.customers,
            batch_events: self.batch_events,
            event_bytes: self.event_bytes,
            hot_share: run.hot_share,
        };
        let requests: Arc<dyn Requests> = match self.request {
            Request::Events => Arc::new(Batches::new(&shape, number)?),
            Request::Pixel => Arc::new(Pixels::new(self.customers, number)?),
            Request::Click => Arc::new(Clicks::signed(server.address, self.customers).await?),
        };
        let rate = run
            .events_per_second
            .map(|rate| rate as f64)
            .or_else(|| Some(run.share_of_first? * first?));
        let load = Load {
            rate: rate.map(|rate| rate / f64::from(self.batch_events)),
            time: Duration::from_secs(house.seconds.unwrap_or(run.seconds)),
            connections: run.connections.unwrap_or(self.connections),
            resend_every: self.resend_every,
        };
        let begun = Instant::now();
        let sent = drive(server.address, WRITE_KEY, requests, &load, begun).await?;
        let books = server.settled(CATCH_UP).await?;
        let caught_up = begun.elapsed();
        let measures = &mut result.measures;
        if let Some(rate) = rate {
            measures.put("offered/s", rate);
        }
        acknowledged(measures, &sent);
        measures.put("processed/s", sent.acknowledged as f64 / caught_up.as_secs_f64());
        measures.put("CPU s/M", server.cpu().as_secs_f64() / sent.acknowledged as f64 * 1e6);
        let to_score = server
            .quantiles("vigie_pipeline_event_to_score_latency_seconds")
            .await?;
        measures.put("score p50 ms", to_score(0.5) * 1e3);
        measures.put("score p99 ms", to_score(0.99) * 1e3);
        if let Some(peak) = server.peak_memory_bytes() {
            measures.put("peak memory MB", peak as f64 / 1e6);
        }
        result
            .failures
            .extend(unbalanced(&books, sent.acknowledged, sent.repeated));
        server.stop().await?;
        let past = past::look(&site, "data").await?;
        past.measures(&mut result.measures);
        result.failures.extend(past.remark());
        Ok(result)
    }
}

/// The figures of what was sent.
fn acknowledged(measures: &mut Measures, sent: &Sent) {
    measures.put("acknowledged/s", sent.acknowledged as f64 / sent.took.as_secs_f64());
    measures.put("ack p50 ms", ms(&sent.latency_us, 0.5));
    measures.put("ack p99 ms", ms(&sent.latency_us, 0.99));
    measures.put("ack p99.9 ms", ms(&sent.latency_us, 0.999));
    measures.put("refused requests", sent.refused as f64);
    if sent.refused > 0 {
        measures.put("refusal p99 ms", ms(&sent.refusal_us, 0.99));
    }
}

/// What is wrong with the books: every acknowledged event is there, once; every repetition was recognised; nothing is left.
pub(crate) fn unbalanced(books: &Books, acknowledged: u64, repeated: u64) -> Option<String> {
    let expected = Books {
        accepted: acknowledged,
        applied: acknowledged - repeated,
        duplicate: repeated,
        dead_letter: 0,
        suppressed: 0,
        in_flight: 0,
    };
    (*books != expected).then(|| format!("books NOT BALANCED: {books:?} instead of {expected:?}"))
}
