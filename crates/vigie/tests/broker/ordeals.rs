//! Ordeals in any number of rounds: the group of workers changes all the time (F32), workers wake up late between fold and
//! write (F33), the Redis fails over and loses what it acknowledged last (F21), the broker is killed (F30), nobody folds for
//! a while (F36), one customer has half of all traffic (F48). Under each of them real processes take real traffic, and each
//! ends with the same verdict: nothing lost, nothing twice, the audit equal.

use crate::redis;
use crate::site::{Flow, HOT, PARTITIONS, Site, Traffic, settled};
use crate::support::{Books, Server, run, seed, until};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Points at which a worker falls asleep: after the fold, after what other partitions must learn is in the log, and with
/// everything ready to be written.
const BETWEEN_FOLD_AND_WRITE: [&str; 3] = ["step.fold.after", "step.derive.after", "step.unit.after"];
/// Most workers at a time.
const WORKERS: usize = 4;

/// Partitions that a worker has: each begins with a control record, and those that went to another worker show 0.
pub(crate) fn works_on(server: &Server) -> usize {
    let page = server.client.get("/metrics", "").unwrap().body;
    let lines = page.lines();
    let shown = lines.filter(|line| line.starts_with("vigie_pipeline_applied_offset{"));
    shown.filter(|line| !line.ends_with(" 0")).count()
}

/// Where events go in, and where questions are answered.
struct Doors {
    collector: Server,
    reader: Server,
}

impl Doors {
    fn open(site: &Site) -> Self {
        Self {
            collector: site.start("collector", "collector"),
            reader: site.start("reader", "api,archivist"),
        }
    }
}

fn report(what: &str, rounds: usize, traffic: &Traffic, books: &Books, start: Instant) {
    println!(
        "{what}: {rounds} in {:.0?}; {} events acknowledged, {} requests repeated, {} duplicates recognised; \
         0 lost, 0 double, audit EQUAL",
        start.elapsed(),
        traffic.sent,
        traffic.repeated,
        books.duplicate,
    );
}

/// Waits until the books show so many events applied, or more.
fn applied(reader: &Server, at_least: u64) -> u64 {
    until("events are applied", || {
        let answer = reader.client.get("/v1/books", &reader.keys.read).unwrap();
        let books: Option<Books> = serde_json::from_str(&answer.body).ok();
        books.map(|books| books.applied).filter(|applied| *applied >= at_least)
    })
}

/// The workers of one group, each a process.
struct Group {
    workers: Vec<(String, Server)>,
    started: usize,
}

impl Group {
    fn join(&mut self, site: &Site) {
        let name = format!("worker-{}", self.started);
        self.started += 1;
        let server = site.start(&name, "worker");
        self.workers.push((name, server));
    }

    fn leave(&mut self, which: usize) {
        let (name, mut server) = self.workers.swap_remove(which);
        server.process.terminate();
        assert!(server.process.ended(&name).success(), "{name}");
    }

    /// Waits until each has a share and all together have everything.
    fn settle(&self, flow: &Flow) {
        until("the group shares the partitions", || {
            flow.check();
            let shares: Vec<usize> = self.workers.iter().map(|(_, server)| works_on(server)).collect();
            let whole = shares.iter().sum::<usize>() == usize::from(PARTITIONS);
            (whole && shares.iter().all(|share| *share > 0)).then_some(())
        });
    }
}

/// F32: workers join and leave in the midst of work. (One that dies stays in this broker's group for longer than a test can
/// wait, unlike in Kafka's: what a dead owner leaves behind is the zombies' part.)
pub(crate) fn rebalances(count: usize) {
    let (site, start, seed) = (Site::build().ready(), Instant::now(), seed());
    println!("replay with VIGIE_TEST_SEED={seed}");
    let doors = Doors::open(&site);
    let mut group = Group {
        workers: Vec::new(),
        started: 0,
    };
    group.join(&site);
    let flow = Traffic::to(&doors.collector).flow(200);
    let mut dice = seed;
    let mut longest = Duration::ZERO;
    for _ in 0..count {
        // SplitMix64's step is enough to choose.
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let many = group.workers.len();
        let lap = Instant::now();
        if many == WORKERS || (many > 1 && dice >> 63 == 1) {
            group.leave((dice >> 32) as usize % many);
        } else {
            group.join(&site);
        }
        group.settle(&flow);
        longest = longest.max(lap.elapsed());
    }
    let traffic = flow.end();
    let books = site.verdict(&doors.reader, &traffic);
    report("F32 rebalances", count, &traffic, &books, start);
    println!("F32 longest time until the group had settled: {longest:.1?}");
}

/// A worker in a group of its own, which falls asleep at a point once it is told to.
struct Sleeper {
    name: String,
    server: Server,
    alarm: PathBuf,
}

impl Sleeper {
    fn start(site: &Site, number: usize) -> Self {
        let name = format!("worker-{number}");
        let alarm = site.data(&format!("{name}.sleep"));
        let point = BETWEEN_FOLD_AND_WRITE[number % BETWEEN_FOLD_AND_WRITE.len()];
        let starting = site.process(&name, "worker", |launch| {
            // Alone in its group it owns everything at once, as if the group had given up whoever was there before.
            // And its client does not find that it has slept before its write does.
            for set in [format!("kafka.group={name}"), "kafka.session-timeout=5m".to_owned()] {
                launch.args.extend(["--set".to_owned(), set]);
            }
            let stop = format!("{point}:{}", alarm.display());
            launch.variables.push(("VIGIE_FAILPOINT_STOP", stop));
        });
        Self {
            server: starting.up(),
            name,
            alarm,
        }
    }

    /// Sends it work until it has stopped in the midst of a step.
    fn put_to_sleep(&self, traffic: &mut Traffic) {
        std::fs::write(&self.alarm, "").unwrap();
        let stat = format!("/proc/{}/stat", self.server.process.id());
        until(&format!("{} stops between fold and write", self.name), || {
            traffic.request(20);
            let stat = std::fs::read_to_string(&stat).unwrap();
            // The state follows the name, which stands in parentheses.
            let state = stat.rsplit(')').next().unwrap().trim_start().chars().next();
            (state == Some('T')).then_some(())
        });
    }

    /// Wakes it up, and waits until it has learnt that it owns nothing any more: by its write, which is refused, or before
    /// it writes at all, when its client finds that the group has not heard of it for too long. Answers whether it wrote.
    fn wake(&self, site: &Site) -> bool {
        const REFUSED: &str = "is owned with epoch";
        assert!(!site.log(&self.name).contains(REFUSED), "refused too early");
        self.server.process.signal("CONT");
        until(&format!("{} learns that it has lost", self.name), || {
            let log = site.log(&self.name);
            let let_go = log.contains("the group has given partitions to others");
            (log.contains(REFUSED) || let_go).then(|| log.contains(REFUSED))
        })
    }
}

/// F33: a process stops (SIGSTOP) between fold and write, another one takes over and does a thousand events' work, the first
/// one wakes up. Every fifth time it is two that wake up together.
pub(crate) fn zombies(count: usize) {
    let (site, start) = (Site::build().ready(), Instant::now());
    let doors = Doors::open(&site);
    let mut traffic = Traffic::to(&doors.collector);
    let mut owner = Sleeper::start(&site, 0);
    let mut asleep: Vec<Sleeper> = Vec::new();
    let (mut woken, mut refused, mut together) = (0, 0, 0);
    traffic.send(200);
    let _books = settled(&doors.reader, traffic.sent);
    for number in 1..=count {
        owner.put_to_sleep(&mut traffic);
        asleep.push(std::mem::replace(&mut owner, Sleeper::start(&site, number)));
        traffic.send(1_000);
        let _books = settled(&doors.reader, traffic.sent);
        if number % 5 == 1 && number < count {
            continue;
        }
        together += usize::from(asleep.len() > 1);
        for zombie in asleep.drain(..) {
            woken += 1;
            refused += usize::from(zombie.wake(&site));
        }
    }
    assert_eq!(woken, count);
    assert!(refused > 0, "none of them came to write");
    let books = site.verdict(&doors.reader, &traffic);
    report("F33 zombies", count, &traffic, &books, start);
    println!(
        "F33 {refused} of {count} zombies were refused at their first write, {together} times two of them together"
    );
}

/// F21: the master dies with commits that its replica has not seen, and the replica is promoted.
pub(crate) fn failovers(count: usize) {
    let settings = [("appendonly", "yes"), ("repl-diskless-sync-delay", "0")];
    let first = redis::Server::start(&settings);
    let following = format!("127.0.0.1 {}", first.port);
    let second = redis::Server::start(&[&settings[..], &[("replicaof", &following)]].concat());
    let mut site = Site::on(vec![first, second]).ready();
    let start = Instant::now();
    let doors = Doors::open(&site);
    let _worker = site.start("worker", "worker");
    let mut traffic = Traffic::to(&doors.collector);
    let (mut master, mut replica) = (0, 1);
    let (mut taken_back, mut longest) = (0, Duration::ZERO);
    for _ in 0..count {
        traffic.send(50);
        let _books = settled(&doors.reader, traffic.sent);
        let linked = || {
            let (master, replica) = (&site.redis[master], &site.redis[replica]);
            let up = replica.ask(&["info", "replication"]).contains("master_link_status:up");
            let seen = |server: &redis::Server, name| server.replication(name);
            (up && seen(replica, "slave_repl_offset") == seen(master, "master_repl_offset")).then_some(())
        };
        until("the replica has everything so far", linked);
        site.redis[replica].signal("-STOP");
        let before = site.redis[master].replication("master_repl_offset");
        traffic.send(200);
        let _books = settled(&doors.reader, traffic.sent);
        let lost = site.redis[master].replication("master_repl_offset") - before;
        assert!(lost > 0, "something is lost by each of them");
        taken_back += lost;
        // In the midst of work.
        traffic.request(50);
        site.redis[master].kill();
        let lap = Instant::now();
        site.redis[replica].signal("-CONT");
        until("the replica is promoted", || {
            let told = site.redis[replica].ask(&["replicaof", "no", "one"]);
            told.contains("OK").then_some(())
        });
        let _books = settled(&doors.reader, traffic.sent);
        longest = longest.max(lap.elapsed());
        let port = site.redis[replica].port;
        site.redis[master].restart_as_replica_of(port);
        std::mem::swap(&mut master, &mut replica);
    }
    let books = site.verdict(&doors.reader, &traffic);
    report("F21 fail-overs", count, &traffic, &books, start);
    println!(
        "F21 each took the commits of 200 acknowledged events back ({taken_back} bytes of writes in all), \
         folded again within {longest:.1?}"
    );
}

/// F30: the broker is killed and started again under traffic.
pub(crate) fn bounces(count: usize) {
    let (mut site, start) = (Site::build().ready(), Instant::now());
    let doors = Doors::open(&site);
    let _worker = site.start("worker", "worker");
    let flow = Traffic::to(&doors.collector).flow(400);
    let (mut done, mut longest) = (0, Duration::ZERO);
    for _ in 0..count {
        let lap = Instant::now();
        // The whole way works again.
        done = applied(&doors.reader, done + 40);
        longest = longest.max(lap.elapsed());
        flow.check();
        site.broker.down();
        site.broker.up();
    }
    let traffic = flow.end();
    let books = site.verdict(&doors.reader, &traffic);
    report("F30 bounces of the broker", count, &traffic, &books, start);
    println!("F30 longest time until 40 more events were scored: {longest:.1?}");
}

/// F36: nobody folds for a long while; then somebody does, beside live traffic.
pub(crate) fn backlog(events: u64) {
    let (site, start) = (Site::build().ready(), Instant::now());
    let doors = Doors::open(&site);
    // What is in force stands at the head of every partition, and the group is made.
    let mut traffic = Traffic::to(&doors.collector);
    traffic.send(events);
    until("all of it is safe in the log, and not folded", || {
        (doors.reader.books().in_flight == events).then_some(())
    });
    let flow = traffic.flow(100);
    let lap = Instant::now();
    let _worker = site.start("worker", "worker");
    let _applied = applied(&doors.reader, events);
    let took = lap.elapsed();
    let traffic = flow.end();
    let books = site.verdict(&doors.reader, &traffic);
    report("F36 backlog", 1, &traffic, &books, start);
    println!(
        "F36 {events} waiting events folded within {took:.1?} of the worker's start, {:.0} a second",
        events as f64 / took.as_secs_f64()
    );
}

/// F48: one customer has half of all traffic. Its record has a bound, and everybody is counted.
pub(crate) fn hot_customer(events: u64) {
    let (site, start) = (Site::build().ready(), Instant::now());
    let doors = Doors::open(&site);
    let _worker = site.start("worker", "worker");
    let mut traffic = Traffic::to(&doors.collector).with_one_hot_customer();
    traffic.send(events);
    let books = site.verdict(&doors.reader, &traffic);
    let key = run(&["redis-key", HOT, "--workspace", "shop", "--config", site.file()]);
    let size = site.redis[0].ask(&["hstrlen", key.stdout.trim(), "state"]);
    let size: u64 = size.trim().parse().unwrap();
    assert!(
        (1..=64 << 10).contains(&size),
        "the record of half of all traffic has {size} bytes"
    );
    report("F48 hot customer", 1, &traffic, &books, start);
    println!("F48 the record of the customer with half of {events} events has {size} bytes");
}
