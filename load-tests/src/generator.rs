//! The open-loop generator: request n is due at a fixed time and its latency counts from then.

use crate::client::Client;
use anyhow::{Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is sent.
pub(crate) trait Requests: Send + Sync + 'static {
    /// Method, path and body of a request: the same bytes whenever it is asked for.
    fn request(&self, number: u64) -> (Method, String, Bytes);

    /// Events of one request.
    fn events(&self) -> u64;

    /// Whether this is the answer to a request that was taken.
    fn taken(&self, status: StatusCode) -> bool {
        status.is_success()
    }
}

/// How it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Requests a second; `None` for as many as the connections allow.
    pub(crate) rate: Option<f64>,
    pub(crate) time: Duration,
    pub(crate) connections: u32,
    /// Every so many requests one is sent twice; 0 for never.
    pub(crate) resend_every: u64,
}

/// What was sent, and how long the acknowledgements took.
pub(crate) struct Sent {
    /// Events of requests that were taken, repetitions included.
    pub(crate) acknowledged: u64,
    /// Events among them that had been sent before.
    pub(crate) repeated: u64,
    /// Requests refused with 429 or 503: the server's right under overload.
    pub(crate) refused: u64,
    /// From the moment a request was due to its acknowledgement, in microseconds.
    pub(crate) latency_us: Histogram<u64>,
    /// From the moment a request was sent to its refusal, in microseconds.
    pub(crate) refusal_us: Histogram<u64>,
    /// When the last answer had come.
    pub(crate) took: Duration,
}

/// The timetable, shared by all connections.
struct Timetable {
    start: Instant,
    end: Instant,
    /// Between two requests; `None` for as fast as possible.
    interval: Option<f64>,
    next: AtomicU64,
}

/// When a request is due.
pub(crate) fn due(start: Instant, rate: f64, number: u64) -> Instant {
    start + Duration::from_secs_f64(number as f64 / rate)
}

impl Timetable {
    /// The next request and when it is due; `None` when the time is over.
    fn next(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.interval {
            Some(rate) => due(self.start, rate, number),
            None => Instant::now(),
        };
        (due < self.end).then_some((number, due))
    }
}

/// Sends requests from `start` on, and waits for the last answer.
pub(crate) async fn drive(
    address: SocketAddr,
    key: &str,
    requests: Arc<dyn Requests>,
    load: &Load,
    start: Instant,
) -> Result<Sent> {
    let timetable = Arc::new(Timetable {
        start,
        end: start + load.time,
        interval: load.rate,
        next: AtomicU64::new(0),
    });
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        let connection = Connection {
            client: Client::connect(address, key).await?,
            timetable: Arc::clone(&timetable),
            requests: Arc::clone(&requests),
            resend_every: load.resend_every,
        };
        connections.push(tokio::spawn(connection.work()));
    }
    let mut sum = Sent::nothing()?;
    for connection in connections {
        let sent = connection.await??;
        sum.acknowledged += sent.acknowledged;
        sum.repeated += sent.repeated;
        sum.refused += sent.refused;
        sum.latency_us.add(sent.latency_us)?;
        sum.refusal_us.add(sent.refusal_us)?;
    }
    sum.took = start.elapsed();
    Ok(sum)
}

/// Microseconds up to ten minutes, three significant digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

/// A time for such a histogram.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A quantile of such a histogram, in milliseconds.
pub(crate) fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

impl Sent {
    fn nothing() -> Result<Self> {
        Ok(Self {
            acknowledged: 0,
            repeated: 0,
            refused: 0,
            latency_us: histogram()?,
            refusal_us: histogram()?,
            took: Duration::ZERO,
        })
    }
}

struct Connection {
    client: Client,
    timetable: Arc<Timetable>,
    requests: Arc<dyn Requests>,
    resend_every: u64,
}

impl Connection {
    async fn work(mut self) -> Result<Sent> {
        let mut sent = Sent::nothing()?;
        while let Some((number, due)) = self.timetable.next() {
            tokio::time::sleep_until(due.into()).await;
            if !self.send(number, due, &mut sent).await? {
                continue;
            }
            if self.resend_every > 0 && number.is_multiple_of(self.resend_every) {
                let again = self.send(number, Instant::now(), &mut sent).await?;
                sent.repeated += if again { self.requests.events() } else { 0 };
            }
        }
        Ok(sent)
    }

    /// Sends a request; `false` when it was refused for overload.
    async fn send(&mut self, number: u64, due: Instant, sent: &mut Sent) -> Result<bool> {
        let (method, path, body) = self.requests.request(number);
        let begun = Instant::now();
        let (status, answer) = self.client.send(method, &path, body).await?;
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            sent.refused += 1;
            sent.refusal_us.saturating_record(micros(begun.elapsed()));
            return Ok(false);
        }
        let text = String::from_utf8_lossy(&answer);
        ensure!(
            self.requests.taken(status),
            "the server answered {status}: {}",
            text.chars().take(300).collect::<String>()
        );
        sent.latency_us.saturating_record(micros(due.elapsed()));
        sent.acknowledged += self.requests.events();
        Ok(true)
    }
}
