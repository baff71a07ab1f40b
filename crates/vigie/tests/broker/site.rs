//! A broker, a Redis and one configuration: what every process of the tests shares, the traffic that they get, and the
//! verdict at the end, which is the same for every test.

use crate::broker::Broker;
use crate::redis;
use crate::support::{Books, Client, DEADLINE, Keys, Launch, Server, Starting, now, run, until};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const DAY_MS: i64 = 86_400_000;
pub(crate) const PARTITIONS: u16 = 8;
/// Customers of the traffic.
const PEOPLE: u64 = 200;
/// The customer that has half of it, where one has.
pub(crate) const HOT: &str = "hot";

/// Broker, Redis, and one configuration for all processes.
pub(crate) struct Site {
    pub(crate) broker: Broker,
    /// The servers that the configuration names.
    pub(crate) redis: Vec<redis::Server>,
    pub(crate) dir: tempfile::TempDir,
    config: PathBuf,
}

impl Site {
    /// A broker without topics, and one Redis.
    pub(crate) fn build() -> Self {
        Self::on(vec![redis::Server::start(&[("appendonly", "yes")])])
    }

    /// The same on these servers: a master and its replicas.
    pub(crate) fn on(redis: Vec<redis::Server>) -> Self {
        let broker = Broker::start();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("vigie.toml");
        let key = |kind: &str, extra: &str| {
            format!("[[keys]]\nworkspace = \"shop\"\nkind = \"{kind}\"\nkey = \"{kind}-key-of-the-test\"\n{extra}")
        };
        let nodes: Vec<String> = redis
            .iter()
            .map(|server| format!("127.0.0.1:{}", server.port))
            .collect();
        let text = format!(
            "{}{}{}[log]\nbackend = \"kafka\"\npartitions = {PARTITIONS}\n[store]\nbackend = \"redis\"\n\
             [kafka]\nbrokers = \"127.0.0.1:{}\"\nreplication = 1\nmin-insync = 1\n\
             [redis]\nnodes = \"{}\"\n[archive]\nurl = \"{}\"\nflush-after = \"1s\"\n",
            key("write", "scopes = [\"history\"]\n"),
            key("read", ""),
            key("admin", ""),
            broker.port(),
            nodes.join(","),
            dir.path().join("archive").display(),
        );
        std::fs::write(&config, text).unwrap();
        Self {
            broker,
            redis,
            dir,
            config,
        }
    }

    /// The same with its topics made.
    pub(crate) fn ready(self) -> Self {
        let applied = run(&["topics", "apply", "--config", self.file()]);
        assert_eq!(applied.code, Some(0), "{applied:?}");
        self
    }

    /// The configuration.
    pub(crate) fn file(&self) -> &str {
        self.config.to_str().unwrap()
    }

    /// A process with these roles that may take its time to come up; `change` is for what it has of its own.
    pub(crate) fn process(&self, name: &str, roles: &str, change: impl FnOnce(&mut Launch)) -> Starting {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let keys = Keys {
            write: "write-key-of-the-test".to_owned(),
            history: "write-key-of-the-test".to_owned(),
            read: "read-key-of-the-test".to_owned(),
            admin: "admin-key-of-the-test".to_owned(),
        };
        let mut launch = Launch {
            command: words(&format!("run --role {roles}")),
            keys: Some(keys),
            args: words(&format!("--config {}", self.file())),
            ..Launch::default()
        };
        change(&mut launch);
        Starting::launch(&self.data(name), &launch)
    }

    /// A process with these roles that answers.
    pub(crate) fn start(&self, name: &str, roles: &str) -> Server {
        self.process(name, roles, |_| {}).up()
    }

    /// Where a process keeps what is its own.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a process has logged so far.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.data(name).with_extension("log")).unwrap_or_default()
    }

    /// Every event that was acknowledged is counted once, the books balance, the store is what the independent oracle
    /// makes of the archive, and a replay in memory comes to the same bytes. Answers the books.
    pub(crate) fn verdict(&self, reader: &Server, traffic: &Traffic) -> Books {
        let books = settled(reader, traffic.sent);
        assert_eq!(books.applied, traffic.sent, "each event once: {books:?}");
        let settled = Books {
            accepted: books.applied + books.duplicate,
            applied: books.applied,
            duplicate: books.duplicate,
            ..Books::default()
        };
        assert_eq!(books, settled, "nothing was set aside, nothing is open");
        let counted =
            "SELECT count(*) AS events, count(DISTINCT event_id) AS ids FROM events WHERE decision = 'applied'";
        let ask = [
            "sql",
            "--url",
            &reader.url,
            "--key",
            &reader.keys.read,
            "--output",
            "csv",
            counted,
        ];
        let told = format!("events,ids\n{0},{0}\n", traffic.sent);
        // A reader of others' work knows of it a second later, and after a fail-over its first answer may be 503.
        until("every acknowledged event is in the archive once", || {
            (run(&ask).stdout == told).then_some(())
        });
        let audit = run(&[
            "audit",
            "--url",
            &reader.url,
            "--key",
            &reader.keys.admin,
            "--output",
            "json",
        ]);
        assert_eq!(audit.code, Some(0), "{audit:?}");
        let archived = self.dir.path().to_str().unwrap();
        let replay = run(&["replay", "--output", "json", "--data-dir", archived]);
        assert_eq!(replay.code, Some(0), "{replay:?}");
        let (live, replayed) = (
            &value(&audit.stdout)["root_live"],
            &value(&replay.stdout)["merkle_root"],
        );
        assert!(live.is_string(), "{audit:?}");
        assert_eq!(live, replayed, "the replay's root is not the live store's");
        books
    }
}

pub(crate) fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The books once at least so many events are applied and nothing is in flight any more: what was sent last may not be seen
/// as in flight yet. While servers are away, a reader may answer that it cannot tell.
pub(crate) fn settled(reader: &Server, at_least: u64) -> Books {
    let start = Instant::now();
    loop {
        let answer = reader.client.get("/v1/books", &reader.keys.read).unwrap();
        if answer.status == 200 {
            let books: Books = serde_json::from_str(&answer.body).unwrap();
            if books.in_flight == 0 && books.applied >= at_least {
                return books;
            }
        }
        assert!(
            start.elapsed() < DEADLINE,
            "after {DEADLINE:?} not all of {at_least}: {answer:?}; readiness: {:?}",
            reader.client.get("/readyz", "")
        );
        // not synchronisation: the pause between two looks at books that have a deadline
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Events that are sent until they are acknowledged.
pub(crate) struct Traffic {
    client: Client,
    key: String,
    start: i64,
    hot: bool,
    /// Events acknowledged; each has an id of its own.
    pub(crate) sent: u64,
    /// Requests that were not acknowledged, and sent again.
    pub(crate) repeated: u64,
}

impl Traffic {
    /// Traffic to this collector.
    pub(crate) fn to(collector: &Server) -> Self {
        Self {
            client: collector.client.clone(),
            key: collector.keys.write.clone(),
            start: now().0 - 100 * DAY_MS,
            hot: false,
            sent: 0,
            repeated: 0,
        }
    }

    /// The same, but every second event is of one customer.
    pub(crate) fn with_one_hot_customer(mut self) -> Self {
        self.hot = true;
        self
    }

    /// The same traffic, to another collector.
    pub(crate) fn at(mut self, collector: &Server) -> Self {
        self.client = collector.client.clone();
        self
    }

    /// Purchases, visits, and now and then somebody who signs in on a device that was anonymous until then.
    fn event(&self, n: u64) -> Value {
        let person = n * 7 % PEOPLE;
        let at = self.start + i64::try_from(n % 10_000).unwrap() * DAY_MS / 100;
        let (id, user) = (format!("e{n}"), format!("u{person}"));
        if self.hot && n % 2 == 0 {
            return json!({"id": id, "user_id": HOT, "signal": "page.view", "timestamp": at});
        }
        match n % 11 {
            0 => {
                json!({"id": id, "user_id": user, "anonymous_id": format!("a{person}"), "signal": "identity.identify", "timestamp": at})
            }
            1 | 2 => {
                json!({"id": id, "anonymous_id": format!("a{person}"), "signal": "page.view", "timestamp": at})
            }
            3 => json!({"id": id, "user_id": user, "signal": "purchase", "timestamp": at}),
            _ => json!({"id": id, "user_id": user, "signal": "page.view", "timestamp": at}),
        }
    }

    /// Sends so many new events in one request, again and again until it is acknowledged.
    pub(crate) fn request(&mut self, count: u64) {
        let events: Vec<Value> = (self.sent..self.sent + count).map(|n| self.event(n)).collect();
        let body = serde_json::to_string(&events).unwrap();
        let start = Instant::now();
        loop {
            match self.client.post("/v1/events", &self.key, &body) {
                Ok(answer) if answer.took(events.len()) => break,
                Ok(answer) => assert!([429, 503].contains(&answer.status), "{answer:?}"),
                // Nobody knows what became of it.
                Err(_) => {}
            }
            self.repeated += 1;
            assert!(start.elapsed() < DEADLINE, "not acknowledged within {DEADLINE:?}");
            // not synchronisation: a client's pause before it tries again
            std::thread::sleep(Duration::from_millis(50));
        }
        self.sent += count;
    }

    /// Sends so many new events.
    pub(crate) fn send(&mut self, count: u64) {
        for portion in 0..count.div_ceil(100) {
            self.request((count - portion * 100).min(100));
        }
    }

    /// Sends about so many events a second in the background.
    pub(crate) fn flow(mut self, per_second: u64) -> Flow {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                self.request(per_second.div_ceil(20));
                // not synchronisation: the pace of the traffic
                std::thread::sleep(Duration::from_millis(50));
            }
            self
        });
        Flow { stop, thread }
    }
}

/// Traffic in the background.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Traffic>,
}

impl Flow {
    /// Whether it still goes on: it ends by itself only by failing.
    pub(crate) fn check(&self) {
        assert!(!self.thread.is_finished(), "the traffic has ended");
    }

    /// Ends it after the request at hand.
    pub(crate) fn end(self) -> Traffic {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
