//! What a commit costs in Redis, next to what Redis itself can do: `redis-benchmark` and this store, in one run on one
//! server that it starts and ends. `cargo run --release -p vigie-store --example redis_bench [customers] [commits]`.
//!
//! A commit is one partition's share of a step: so many customers of 600 bytes with six published fields, a moved timer and
//! a moved rank each, one run of judgements, and the position. One event per customer is assumed, which is the worst case.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measuring program prints, measures time and may end with a panic"
)]

use bytes::Bytes;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vigie_event::{CustomerKey, Offset, Partition, PersonId, Timestamp, Workspace, partition_for};
use vigie_store::{Commit, CustomerWrite, Projection, RedisOptions, RedisStore, Store};

const PARTITIONS: u16 = 64;
const POPULATION: usize = 100_000;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let customers = arguments.next().unwrap_or(100);
    let commits = arguments.next().unwrap_or(2_048).next_multiple_of(1_024);
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let child = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .stdout(Stdio::null())
        .spawn();
    let server = Server(child.unwrap());
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for (what, arguments) in [
        (
            "redis-benchmark, HSET 600 B, one at a time",
            vec!["-c", "1", "-P", "1", "-n", "30000"],
        ),
        (
            "redis-benchmark, HSET 600 B, pipelines of 100",
            vec!["-c", "1", "-P", "100", "-n", "400000"],
        ),
    ] {
        let output = Command::new("redis-benchmark")
            .args(["-p", &port.to_string(), "-q", "-r", "100000"])
            .args(&arguments)
            .args(["hset", "bench:__rand_int__", "state", &"x".repeat(600)])
            .output();
        let text = String::from_utf8_lossy(&output.unwrap().stdout).replace('\r', "\n");
        println!("{what}: {}", text.lines().last().unwrap_or_default().trim());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(port, customers, commits));
    let cpu = Command::new("redis-cli")
        .args(["-p", &port.to_string(), "info", "cpu"])
        .output()
        .unwrap();
    let cpu = String::from_utf8_lossy(&cpu.stdout).into_owned();
    for line in cpu
        .lines()
        .filter(|line| line.starts_with("used_cpu_") && !line.contains("children"))
    {
        println!("redis in all: {}", line.trim());
    }
    drop(server);
}

async fn measure(port: u16, customers: usize, commits: usize) {
    let options = RedisOptions {
        volatile: true,
        ..RedisOptions::new(vec![format!("redis://127.0.0.1:{port}")], PARTITIONS)
    };
    let store = RedisStore::create(&options, 1).await.unwrap();
    let all: Vec<Partition> = (0..PARTITIONS).map(Partition).collect();
    let epoch = store.claim(&all).await.unwrap();
    let workspace = Workspace::new("shop").unwrap();
    let mut homes: Vec<Vec<CustomerKey>> = vec![Vec::new(); usize::from(PARTITIONS)];
    for number in 0..POPULATION {
        let person = PersonId::known(&format!("customer-{number}")).unwrap();
        let home = partition_for(person.as_str(), PARTITIONS);
        homes[usize::from(home.0)].push(CustomerKey::new(workspace.clone(), person));
    }
    let state = Bytes::from(vec![7; 600]);
    let field = |name| (name, Bytes::from_static(b"0.123456"));
    let share = |round: usize, home: usize| {
        let keys = &homes[home];
        let write = |index: usize| {
            let turn = round * customers + index;
            let lap = (turn / keys.len()) as i64;
            let due = |lap: i64| Timestamp(1_770_000_000_000 + lap * 86_400_000 + turn.rem_euclid(keys.len()) as i64);
            let rank = |lap: i64| (lap % 1_000) as u16;
            CustomerWrite {
                key: keys[turn % keys.len()].clone(),
                partition: Partition(home as u16),
                bytes: state.clone(),
                timer: Some(due(lap)),
                previous_timer: (lap > 0).then(|| due(lap - 1)),
                stale_timers: Vec::new(),
                rank: Some(rank(lap)),
                previous_rank: (lap > 0).then(|| rank(lap - 1)),
                fields: Projection(
                    ["attrition", "churn", "stage", "as_of", "valid_until", "model"]
                        .map(field)
                        .into(),
                ),
            }
        };
        (0..customers.min(keys.len())).map(write).collect::<Vec<_>>()
    };
    let mut done = 0;
    for (what, width) in [("one partition a step", 1usize), ("16 partitions a step", 16)] {
        let mut times = Vec::with_capacity(commits);
        let start = Instant::now();
        let steps = commits / width;
        for step in 0..steps {
            let homes = (0..width).map(|place| (step * width + place) % usize::from(PARTITIONS));
            let round = (done + step * width) / usize::from(PARTITIONS);
            let mut commit = Commit {
                epoch,
                ..Commit::default()
            };
            for home in homes {
                let partition = Partition(home as u16);
                commit.customers.extend(share(round, home));
                commit.partitions.push((partition, Bytes::from_static(&[1; 200])));
                commit.judged.push((
                    partition,
                    Offset((round * customers) as u64),
                    Bytes::from(vec![1; customers]),
                ));
            }
            let lap = Instant::now();
            let _ = store.commit(commit).await.unwrap();
            times.push(lap.elapsed());
        }
        done += commits;
        let took = start.elapsed().as_secs_f64();
        times.sort_unstable();
        let shares = (steps * width) as f64;
        println!(
            "store, {what}, {customers} customers a share: {:.0} shares/s, {:.0} events/s, step p50 {:.2} ms, p99 {:.2} ms",
            shares / took,
            shares * customers as f64 / took,
            times[times.len() / 2].as_secs_f64() * 1e3,
            times[times.len() * 99 / 100].as_secs_f64() * 1e3
        );
    }
    let start = Instant::now();
    let keys: Vec<CustomerKey> = homes.iter().flat_map(|keys| keys.iter().take(80).cloned()).collect();
    let rounds = 20;
    for _ in 0..rounds {
        let _ = store.load(&keys).await.unwrap();
    }
    let rate = (rounds * keys.len()) as f64 / start.elapsed().as_secs_f64();
    println!(
        "store, loads of {} records over 64 partitions: {rate:.0} records/s",
        keys.len()
    );
}
