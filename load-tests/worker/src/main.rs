//! What the worker costs: events folded per second, and the CPU time of one, on traffic of the peers' shape (100,000
//! customers by Zipf's law, 60 days, 2 % sent twice), over a store of its choice.
//!
//! `cargo run --release -p vigie-bench-worker -- [memory|embedded|redis://HOST:PORT] [EVENTS] [BATCH]`; Redis
//! must be empty. Nothing is judged here, the load tests do that; this is where a profiler is attached.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark fails by panicking, and prints"
)]

use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vigie_event::json::{Receipt, read};
use vigie_event::{Body, DAY_MS, Record, Timestamp, Workspace, partition_for};
use vigie_ingestion::log::{Log, LogReader, MemoryLog};
use vigie_pipeline::{LiveOptions, Worker};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::{EmbeddedStore, MemoryStore, Options, RedisOptions, RedisStore, Store};
use vigie_telemetry::Metrics;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CUSTOMERS: u64 = 100_000;
const PARTITIONS: u16 = 4;
const SIGNALS: [(&str, f64); 7] = [
    ("page.view", 0.55),
    ("product.view", 0.18),
    ("cart.add", 0.06),
    ("purchase", 0.035),
    ("email.open", 0.10),
    ("email.click", 0.05),
    ("call.inbound", 0.025),
];

/// splitmix64: small, and the same for ever.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The records of the log, in order, with their partitions.
fn records(events: usize, start: Timestamp) -> Vec<(vigie_event::Partition, Bytes)> {
    let mut dice = Dice(42);
    let mut cumulative = Vec::with_capacity(CUSTOMERS as usize);
    let mut sum = 0.0;
    for n in 1..=CUSTOMERS {
        sum += 1.0 / n as f64;
        cumulative.push(sum);
    }
    let mut records: Vec<(vigie_event::Partition, Bytes)> = Vec::with_capacity(events);
    let span = 60 * DAY_MS;
    for n in 0..events {
        let draw = dice.unit() * sum;
        let customer = cumulative.partition_point(|upto| *upto < draw);
        let mut kind = dice.unit();
        let signal = SIGNALS.iter().find(|(_, share)| {
            kind -= share;
            kind < 0.0
        });
        let signal = signal.map_or("page.view", |(name, _)| *name);
        let occurred = start.0 - span + span * n as i64 / events as i64;
        let money = match signal {
            "purchase" => format!(r#""money":{{"amount":"{}.90","currency":"EUR"}},"#, dice.next() % 400),
            _ => String::new(),
        };
        let r = dice.next();
        let json = format!(
            r#"{{"id":"{n:08x}-{r:016x}","user_id":"c{customer:07}","signal":"{signal}","timestamp":{occurred},{money}"properties":{{"url":"https://shop.example.com/p/{:06}","referrer":"newsletter","device":"mobile","viewport":"{}x{}","duration_ms":{}}}}}"#,
            r % 500_000,
            360 + r % 1000,
            640 + r % 700,
            r % 90_000
        );
        let receipt = Receipt {
            workspace: Workspace::new("shop").unwrap(),
            received_at: start.plus_ms(n as i64 / 100),
            sent_at: None,
            user_agent: None,
            oldest: None,
        };
        let event = read(&json, &receipt).unwrap();
        let partition = partition_for(event.person.key().unwrap().as_str(), PARTITIONS);
        let bytes = Bytes::from(Record::new(Body::Event(Box::new(event))).encode());
        records.push((partition, bytes.clone()));
        if dice.next().is_multiple_of(50) {
            records.push((partition, bytes));
        }
    }
    records.truncate(events);
    records
}

async fn run<S: Store>(store: S, events: usize, batch: usize) {
    let start = Timestamp::parse("2026-03-01T00:00:00Z").unwrap();
    let log = Arc::new(MemoryLog::new(PARTITIONS));
    let mut worker = Worker::open(Arc::clone(&log), Arc::new(store), Arc::new(()), Metrics::disabled())
        .await
        .unwrap()
        .keeping_judgements();
    let _ = worker.survey().await.unwrap();
    let _ = worker
        .activate(Model::shipped_text(), PolicySet::shipped_text(), start)
        .await
        .unwrap();
    let mut reader = worker.log().reader(worker.positions()).unwrap();
    let controls = reader.next(batch, usize::MAX, Duration::ZERO).await.unwrap();
    worker.process(&controls, start).await.unwrap();
    for chunk in records(events, start).chunks(100_000) {
        let _ = log.append(chunk.to_vec()).await.unwrap();
    }
    println!("{events} events");
    let (began, cpu) = (Instant::now(), cpu_seconds());
    loop {
        let entries = reader.next(batch, usize::MAX, Duration::ZERO).await.unwrap();
        if entries.is_empty() {
            break;
        }
        worker.submit(&entries, start).await.unwrap();
    }
    worker.land(start).await.unwrap();
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let million = events as f64 / 1e6;
    worker.status().read(|status| {
        println!(
            "{} customers touched by events, {} by timers",
            status.touched_by_event, status.touched_by_timer
        )
    });
    println!(
        "{:.0} events/s, {:.2} CPU s per million ({:.2} s wall, {:.2} s CPU)",
        events as f64 / wall,
        cpu / million,
        wall,
        cpu
    );
}

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let ticks: Vec<f64> = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|n| n.parse().unwrap())
        .collect();
    ticks.iter().sum::<f64>() / 100.0
}

fn main() {
    let mut kind = "memory".to_owned();
    let mut numbers = Vec::new();
    for arg in std::env::args().skip(1) {
        match arg.parse() {
            Ok(number) => numbers.push(number),
            Err(_) => kind = arg,
        }
    }
    let mut numbers = numbers.into_iter();
    let events = numbers.next().unwrap_or(300_000);
    let batch = numbers.next().unwrap_or(LiveOptions::default().batch_records);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match kind.as_str() {
            "embedded" => {
                let dir = tempfile::tempdir().unwrap();
                let store = EmbeddedStore::open(dir.path(), &Options::new(PARTITIONS)).unwrap();
                run(store, events, batch).await;
            }
            url if url.starts_with("redis://") => {
                let options = RedisOptions {
                    volatile: true,
                    ..RedisOptions::new(vec![url.to_owned()], PARTITIONS)
                };
                let store = RedisStore::create(&options, 1).await.unwrap();
                run(store, events, batch).await;
            }
            _ => run(MemoryStore::new(PARTITIONS), events, batch).await,
        }
    });
}
