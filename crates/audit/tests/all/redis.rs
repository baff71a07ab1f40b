//! The worker over Redis while Redis fails in every way that it can: F20 to F28 of the failure model, in a short form. Each
//! ride appends random work, breaks something under it, mends it, and ends with the oracle: records, flags and books are
//! what the log says, byte for byte, and the same as a store in memory that nothing ever happened to.
#![allow(clippy::disallowed_methods, reason = "waiting for another process needs a clock")]

use crate::dice::{Dice, seed};
use crate::server::{Cluster, Server, cli, until};
use crate::support::{Rows, records_of};
use crate::workload::{BASE, Step, Workload};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vigie_audit::Verdict;
use vigie_event::{Offset, Partition, Timestamp};
use vigie_ingestion::log::{Log, MemoryLog};
use vigie_pipeline::{Live, LiveOptions, Sim, StatusHandle, Worker, WorkerError};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::{RedisOptions, RedisStore, Store, StoreError};
use vigie_telemetry::Metrics;

const INSTALLATION: u128 = 0x5ca1_ab1e;

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap().block_on(future)
}

fn options(nodes: Vec<String>, partitions: u16) -> RedisOptions {
    RedisOptions {
        volatile: true,
        connect_timeout: Duration::from_millis(400),
        response_timeout: Duration::from_millis(800),
        ..RedisOptions::new(nodes, partitions)
    }
}

/// A live worker over a log in memory and a store in Redis.
struct Ride {
    seed: u64,
    log: Arc<MemoryLog>,
    options: RedisOptions,
    store: Arc<RedisStore>,
    clock: Arc<AtomicI64>,
    steps: std::vec::IntoIter<Step>,
    status: StatusHandle,
    stop: watch::Sender<bool>,
    live: JoinHandle<Result<(), WorkerError>>,
}

impl Ride {
    /// Starts on an empty installation.
    async fn start(nodes: Vec<String>, events: usize, change: impl FnOnce(&mut RedisOptions)) -> Self {
        let seed = seed();
        let workload = Workload::random(seed, events);
        let mut options = options(nodes, workload.partitions);
        change(&mut options);
        let log = Arc::new(MemoryLog::new(workload.partitions));
        let store = Arc::new(RedisStore::create(&options, INSTALLATION).await.unwrap());
        let clock = Arc::new(AtomicI64::new(BASE));
        let worker = open(&log, &store).await;
        let (status, stop, live) = drive(worker, &clock);
        Self {
            seed,
            log,
            options,
            store,
            clock,
            steps: workload.steps.into_iter(),
            status,
            stop,
            live,
        }
    }

    /// Lets so many things happen: records arrive, time passes.
    async fn feed(&mut self, count: usize) {
        for step in self.steps.by_ref().take(count) {
            match step {
                Step::Record(partition, record) => {
                    let _ = self.clock.fetch_max(record.at().0, Ordering::Relaxed);
                    let _ = self
                        .log
                        .append(vec![(partition, record.encode().into())])
                        .await
                        .unwrap();
                }
                Step::Pass(until) => drop(self.clock.fetch_max(until.0, Ordering::Relaxed)),
                _ => {}
            }
        }
    }

    fn still_runs(&self) {
        let stopped = self.status.read(|status| status.stopped.clone());
        assert_eq!(stopped, None, "seed {}", self.seed);
    }

    fn position(&self) -> Vec<Offset> {
        self.status
            .read(|status| status.partitions.values().map(|partition| partition.next).collect())
    }

    /// Waits until everything is folded, and says how long that took.
    async fn settle(&self) -> Duration {
        let start = Instant::now();
        while self.position() != self.log.ends() {
            self.still_runs();
            assert!(start.elapsed() < Duration::from_secs(60), "stuck, seed {}", self.seed);
            // not synchronisation: the pause between two looks at the worker
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        start.elapsed()
    }

    /// Waits until at least so many records are folded.
    async fn folded(&self, records: u64) {
        while self.position().iter().map(|offset| offset.0).sum::<u64>() < records {
            self.still_runs();
            // not synchronisation: the pause between two looks at the worker
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the worker and compares.
    async fn finish(mut self) {
        self.feed(usize::MAX).await;
        let _ = self.settle().await;
        let _ = self.stop.send(true);
        self.live.await.unwrap().unwrap();
        verify(self.seed, &self.log, &self.store).await;
    }
}

async fn open(log: &Arc<MemoryLog>, store: &Arc<RedisStore>) -> Worker<MemoryLog, RedisStore, ()> {
    let (log, store) = (Arc::clone(log), Arc::clone(store));
    let mut worker = Worker::open(log, store, Arc::new(()), Metrics::disabled())
        .await
        .unwrap();
    let _ = worker.survey().await.unwrap();
    let _ = worker
        .activate(Model::shipped_text(), PolicySet::shipped_text(), Timestamp(BASE))
        .await
        .unwrap();
    worker
}

type Driven = (StatusHandle, watch::Sender<bool>, JoinHandle<Result<(), WorkerError>>);

fn drive(worker: Worker<MemoryLog, RedisStore, ()>, clock: &Arc<AtomicI64>) -> Driven {
    let status = worker.status();
    let (stop, stopped) = watch::channel(false);
    let clock = Arc::clone(clock);
    let options = LiveOptions {
        batch_records: 40,
        persist_every: Duration::ZERO,
        ..LiveOptions::default()
    };
    let clock = Arc::new(move || Timestamp(clock.load(Ordering::Relaxed)));
    let live = tokio::spawn(Live::new(worker, options).run(clock, stopped));
    (status, stop, live)
}

async fn verify(seed: u64, log: &Arc<MemoryLog>, store: &RedisStore) {
    let records = records_of(log).await;
    let rows = Rows::of(store).await;
    let report = rows.audit_all(&records);
    assert_eq!(report.verdict, Verdict::Equal, "seed {seed}: {report}");
    assert_eq!((report.in_flight, report.unchecked), (0, 0), "seed {seed}: {report}");
    let memory = Arc::new(vigie_store::MemoryStore::new(log.partitions()));
    let mut calm = Sim::open(Arc::clone(log), Arc::clone(&memory), Timestamp(BASE))
        .await
        .unwrap();
    calm.settle(usize::MAX).await.unwrap();
    let undisturbed = Rows::of(&*memory).await;
    let customers = |rows: &Rows| -> Vec<_> { rows.partitions.values().flat_map(|(_, all)| all.clone()).collect() };
    assert_eq!(customers(&rows), customers(&undisturbed), "seed {seed}");
    let flags = |rows: &Rows| rows.flags.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(flags(&rows), flags(&undisturbed), "seed {seed}");
    assert_eq!(rows.flags.len(), undisturbed.flags.len(), "seed {seed}: a flag twice");
}

/// F01 for the server: killed and started again, with a file that has every commit.
#[test]
fn killed_and_restarted_with_every_write_on_disk() {
    run(async {
        let mut server = Server::start(&[("appendonly", "yes"), ("appendfsync", "always")]);
        let mut ride = Ride::start(vec![server.url()], 2_000, |options| options.volatile = false).await;
        for _ in 0..3 {
            ride.feed(300).await;
            ride.folded(20).await;
            server.kill();
            ride.feed(50).await;
            server.restart();
            let _ = ride.settle().await;
        }
        ride.finish().await;
    });
}

/// F21: the replica lacks what the master acknowledged last. What was folded and is gone is folded again.
#[test]
fn fail_over_that_takes_commits_back() {
    run(async {
        for _ in 0..2 {
            let mut master = Server::start(&[("repl-diskless-sync-delay", "0")]);
            let replica = Server::start(&[("replicaof", &format!("127.0.0.1 {}", master.port))]);
            assert!(until(|| replica
                .ask(&["info", "replication"])
                .contains("master_link_status:up")));
            let mut ride = Ride::start(vec![master.url(), replica.url()], 2_000, |_| {}).await;
            ride.feed(400).await;
            let _ = ride.settle().await;
            let offset = |server: &Server, name: &str| {
                let info = server.ask(&["info", "replication"]);
                let line = info.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                line.expect("a line of info replication")
            };
            // Otherwise the fail-over could take the making of the store back, which is another story.
            let same = || offset(&master, "master_repl_offset:") == offset(&replica, "slave_repl_offset:");
            assert!(until(same), "the replica has everything so far");
            replica.signal("-STOP");
            let before: u64 = ride.position().iter().map(|offset| offset.0).sum();
            ride.feed(300).await;
            let _ = ride.settle().await;
            let after: u64 = ride.position().iter().map(|offset| offset.0).sum();
            ride.feed(100).await;
            master.kill();
            replica.signal("-CONT");
            assert!(until(|| replica.ask(&["replicaof", "no", "one"]).contains("OK")));
            let took = ride.settle().await;
            println!(
                "{} folded records were lost by the fail-over, folded again within {took:?}",
                after - before
            );
            ride.finish().await;
        }
    });
}

/// F22, F23: shards of a cluster fail over, politely and not, and slots move, while the others go on.
#[test]
fn cluster_fails_over_and_moves_slots() {
    run(async {
        let mut cluster = Cluster::start();
        let mut ride = Ride::start(cluster.urls(), 6_000, |_| {}).await;
        ride.feed(300).await;
        // A master hands over.
        assert!(cluster.0[3].ask(&["cluster", "failover"]).contains("OK"));
        ride.feed(300).await;
        println!("after a polite fail-over: {:?}", ride.settle().await);
        // Slots move under load.
        let id = |node: &Server| node.ask(&["cluster", "myid"]).trim().to_owned();
        let masters: Vec<&Server> = cluster
            .0
            .iter()
            .filter(|node| node.ask(&["role"]).starts_with("master"))
            .collect();
        assert_eq!(masters.len(), 3);
        let entry = format!("127.0.0.1:{}", masters[0].port);
        let (from, to) = (id(masters[0]), id(masters[1]));
        let moving = std::process::Command::new("redis-cli")
            .args([
                "--cluster",
                "reshard",
                &entry,
                "--cluster-from",
                &from,
                "--cluster-to",
                &to,
            ])
            .args(["--cluster-slots", "2000", "--cluster-yes"])
            .stdout(std::process::Stdio::null())
            .spawn();
        let mut moving = moving.unwrap();
        while moving.try_wait().unwrap().is_none() {
            ride.feed(2).await;
            let _ = ride.settle().await;
        }
        assert!(moving.wait().unwrap().success());
        let _ = ride.settle().await;
        // A master dies.
        let dying = cluster
            .0
            .iter()
            .position(|node| node.ask(&["role"]).starts_with("master"))
            .unwrap();
        ride.feed(200).await;
        cluster.0[dying].kill();
        ride.feed(400).await;
        println!("after a death: {:?}", ride.settle().await);
        ride.finish().await;
    });
}

/// F24, F25: everything that Redis refuses for a while. The worker waits, and goes on where it stood.
#[test]
fn refused_for_a_while() {
    run(async {
        let server = Server::start(&[
            ("repl-diskless-sync-delay", "0"),
            ("busy-reply-threshold", "50"),
            ("enable-protected-configs", "local"),
            ("stop-writes-on-bgsave-error", "yes"),
        ]);
        let set =
            |name: &str, value: &str| assert!(server.ask(&["config", "set", name, value]).contains("OK"), "{name}");
        let mut ride = Ride::start(vec![server.url()], 2_000, |_| {}).await;
        let gone = server.dir().join("gone");
        for (what, refuse, allow) in [
            (
                "OOM",
                Box::new(|| set("maxmemory", "1")) as Box<dyn Fn() + Sync + Send>,
                Box::new(|| set("maxmemory", "0")) as Box<dyn Fn() + Sync + Send>,
            ),
            (
                "NOREPLICAS",
                Box::new(|| set("min-replicas-to-write", "1")),
                Box::new(|| set("min-replicas-to-write", "0")),
            ),
            (
                "BUSY",
                Box::new(|| {
                    let port = server.port;
                    drop(std::thread::spawn(move || {
                        cli(port, &["eval", "while true do end", "0"])
                    }));
                    assert!(until(|| server.ask(&["get", "x"]).contains("BUSY")));
                }),
                Box::new(|| assert!(server.ask(&["script", "kill"]).contains("OK"))),
            ),
            (
                "MISCONF",
                Box::new(|| {
                    std::fs::create_dir(&gone).unwrap();
                    set("dir", gone.to_str().unwrap());
                    std::fs::remove_dir(&gone).unwrap();
                    set("save", "3600 1");
                    assert!(server.ask(&["bgsave"]).contains("started"));
                    assert!(until(|| server.ask(&["set", "x", "y"]).contains("MISCONF")));
                }),
                Box::new(|| set("stop-writes-on-bgsave-error", "no")),
            ),
        ] {
            ride.feed(150).await;
            let _ = ride.settle().await;
            refuse();
            let stands: u64 = ride.position().iter().map(|offset| offset.0).sum();
            ride.feed(100).await;
            // not synchronisation: time for a worker that does not wait to move
            tokio::time::sleep(Duration::from_millis(700)).await;
            let still: u64 = ride.position().iter().map(|offset| offset.0).sum();
            assert_eq!(stands, still, "{what}: nothing moves");
            assert!(!ride.live.is_finished(), "{what}: the worker waits");
            allow();
            let took = ride.settle().await;
            println!("{what}: resumed within {took:?}");
            assert!(took < Duration::from_secs(3), "{what}: {took:?}");
        }
        ride.finish().await;
    });
}

/// F26: hangs, and answers cut at any byte.
#[test]
fn hung_servers_and_cut_answers() {
    run(async {
        let server = Server::start(&[]);
        let proxy = crate::proxy::Proxy::start(server.port).await;
        let mut ride = Ride::start(vec![proxy.url()], 2_000, |_| {}).await;
        let mut dice = Dice(ride.seed);
        ride.feed(300).await;
        let _ = ride.settle().await;
        let start = Instant::now();
        server.signal("-STOP");
        ride.feed(100).await;
        let options = options(vec![server.url()], ride.options.partitions);
        let hung = RedisStore::open(&options).await;
        assert!(matches!(hung, Err(StoreError::Unavailable { .. })), "{hung:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "a call has a bound in time");
        server.signal("-CONT");
        let _ = ride.settle().await;
        let cuts = 60;
        for _ in 0..cuts {
            proxy.cut_after(dice.below(3_000));
            ride.feed(20).await;
            let _ = ride.settle().await;
        }
        println!("{} of {cuts} cuts hit", proxy.cuts());
        ride.finish().await;
    });
}

/// F20, F28: emptied under the worker. It stops within two seconds, sends nothing, takes nobody for new; a store that is
/// made anew from the log is the same.
#[test]
fn emptied_is_lost_and_not_new() {
    run(async {
        let mut server = Server::start(&[]);
        let mut ride = Ride::start(vec![server.url()], 2_000, |_| {}).await;
        ride.feed(300).await;
        let _ = ride.settle().await;
        assert!(server.ask(&["flushall"]).contains("OK"));
        let start = Instant::now();
        let stopped = tokio::time::timeout(Duration::from_secs(2), &mut ride.live).await;
        let error = stopped
            .expect("noticed within two seconds, with nothing to do")
            .unwrap()
            .unwrap_err();
        println!("{error} ({:?})", start.elapsed());
        assert!(matches!(error, WorkerError::Store(StoreError::Lost { .. })), "{error}");
        assert_eq!(server.ask(&["dbsize"]).trim(), "0", "nothing was written");
        let missing = ride.store.partition(Partition(0)).await;
        assert!(matches!(missing, Err(StoreError::Lost { .. })), "{missing:?}");
        let reopened = RedisStore::open(&ride.options).await;
        assert!(matches!(reopened, Err(StoreError::Lost { .. })), "{reopened:?}");
        // The same with a server that comes back without its files.
        server.kill();
        let down = RedisStore::open(&ride.options).await;
        assert!(matches!(down, Err(StoreError::Unavailable { .. })), "{down:?}");
        server.restart();
        let reopened = RedisStore::open(&ride.options).await;
        assert!(matches!(reopened, Err(StoreError::Lost { .. })), "{reopened:?}");
        // Somebody makes another store there: not ours either.
        let other = Arc::new(RedisStore::create(&ride.options, INSTALLATION + 1).await.unwrap());
        let ours = loop {
            match ride.store.persist().await {
                Err(StoreError::Unavailable { .. }) => tokio::task::yield_now().await,
                ours => break ours,
            }
        };
        assert!(matches!(ours, Err(StoreError::Lost { .. })), "{ours:?}");
        // On purpose, from the log.
        let (status, stop, live) = drive(open(&ride.log, &other).await, &ride.clock);
        let rebuilt = Ride {
            store: other,
            status,
            stop,
            live,
            ..ride
        };
        rebuilt.finish().await;
    });
}

/// OWN-1 over the whole worker: an owner that slept between fold and write, and everybody who came after it.
#[test]
fn zombies_write_nothing() {
    run(async {
        let server = Server::start(&[]);
        let mut ride = Ride::start(vec![server.url()], 2_000, |_| {}).await;
        let mut zombies = Vec::new();
        for _ in 0..20 {
            ride.feed(40).await;
            // A worker with a connection of its own takes over; the one before is not told.
            let store = Arc::new(RedisStore::open(&ride.options).await.unwrap());
            let (status, stop, live) = drive(open(&ride.log, &store).await, &ride.clock);
            let old = (
                std::mem::replace(&mut ride.stop, stop),
                std::mem::replace(&mut ride.live, live),
            );
            zombies.push(old);
            ride.store = store;
            ride.status = status;
        }
        ride.feed(400).await;
        let _ = ride.settle().await;
        let mut fenced = 0;
        for (stop, live) in zombies {
            let _ = stop.send(true);
            match live.await.unwrap() {
                Err(WorkerError::Store(StoreError::Fenced { .. })) => fenced += 1,
                Ok(()) => {}
                Err(other) => panic!("seed {}: {other}", ride.seed),
            }
        }
        println!("{fenced} of 20 zombies met the fence");
        assert!(fenced > 0);
        ride.finish().await;
    });
}
