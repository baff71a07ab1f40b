//! The open-loop generator: batch n is due at a fixed time and its latency counts from then.

use crate::client::Client;
use crate::events::Batches;
use crate::experiment::{Experiment, Run};
use crate::server::Server;
use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What was sent, and how long the acknowledgements took.
pub(crate) struct Sent {
    /// Events of batches that were answered with 2xx, repetitions included.
    pub(crate) acknowledged: u64,
    /// Events among them that had been sent before.
    pub(crate) repeated: u64,
    /// Batches refused with 429 or 503: the server's right under overload.
    pub(crate) refused_batches: u64,
    /// From the moment a batch was due to its acknowledgement, in microseconds.
    pub(crate) latency_us: Histogram<u64>,
}

/// The timetable, shared by all connections.
struct Timetable {
    start: Instant,
    end: Instant,
    /// Between two batches; `None` for as fast as possible.
    interval: Option<Duration>,
    next: AtomicU64,
}

impl Timetable {
    /// The next batch and when it is due; `None` when the time is over.
    fn next(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.interval {
            Some(interval) => self.start + Duration::from_secs_f64(interval.as_secs_f64() * number as f64),
            None => Instant::now(),
        };
        (due < self.end).then_some((number, due))
    }
}

/// Sends batches for `seconds` and waits for the last answer.
pub(crate) async fn drive(
    server: &Server,
    experiment: &Experiment,
    run: &Run,
    seconds: u64,
    batches: Arc<Batches>,
) -> Result<Sent> {
    let per_batch = f64::from(experiment.batch_events);
    let start = Instant::now();
    let timetable = Arc::new(Timetable {
        start,
        end: start + Duration::from_secs(seconds),
        interval: run
            .events_per_second
            .map(|rate| Duration::from_secs_f64(per_batch / rate as f64)),
        next: AtomicU64::new(0),
    });
    let mut connections = Vec::new();
    for _ in 0..experiment.connections {
        let client = Client::connect(server.address, &server.write_key).await?;
        let connection = Connection {
            client,
            timetable: Arc::clone(&timetable),
            batches: Arc::clone(&batches),
            batch_events: u64::from(experiment.batch_events),
            resend_every: experiment.resend_every,
        };
        connections.push(tokio::spawn(connection.work()));
    }
    let mut sum = Sent::nothing()?;
    for connection in connections {
        let sent = connection.await??;
        sum.acknowledged += sent.acknowledged;
        sum.repeated += sent.repeated;
        sum.refused_batches += sent.refused_batches;
        sum.latency_us.add(sent.latency_us)?;
    }
    Ok(sum)
}

impl Sent {
    fn nothing() -> Result<Self> {
        // Up to ten minutes, three significant digits.
        let latency_us = Histogram::new_with_bounds(1, 600_000_000, 3)?;
        Ok(Self {
            acknowledged: 0,
            repeated: 0,
            refused_batches: 0,
            latency_us,
        })
    }
}

struct Connection {
    client: Client,
    timetable: Arc<Timetable>,
    batches: Arc<Batches>,
    batch_events: u64,
    resend_every: u64,
}

impl Connection {
    async fn work(mut self) -> Result<Sent> {
        let mut sent = Sent::nothing()?;
        while let Some((number, due)) = self.timetable.next() {
            tokio::time::sleep_until(due.into()).await;
            if !self.post(number, due, &mut sent).await? {
                continue;
            }
            if self.resend_every > 0 && number.is_multiple_of(self.resend_every) {
                let again = self.post(number, Instant::now(), &mut sent).await?;
                sent.repeated += if again { self.batch_events } else { 0 };
            }
        }
        Ok(sent)
    }

    /// Sends a batch; `false` when it was refused for overload.
    async fn post(&mut self, number: u64, due: Instant, sent: &mut Sent) -> Result<bool> {
        let (status, answer) = self
            .client
            .send(Method::POST, "/v1/events", self.batches.body(number))
            .await?;
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            sent.refused_batches += 1;
            return Ok(false);
        }
        let text = String::from_utf8_lossy(&answer);
        ensure!(
            status.is_success(),
            "the server answered {status}: {}",
            text.chars().take(300).collect::<String>()
        );
        let latency = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        sent.latency_us.saturating_record(latency);
        sent.acknowledged += self.batch_events;
        Ok(true)
    }
}
