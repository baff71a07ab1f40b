//! A real Kafka-compatible broker (tansu with its SQLite engine) on a free loopback port, ended when it is dropped.
//!
//! The binary is found by `VIGIE_TANSU`, in the user's cache (`vigie/tools/bin`) or on the path; without it the tests
//! fail and say how it is installed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use vigie_kafka::topics::{self, Plan, TopicSpec};
use vigie_kafka::{Connection, KafkaLog, LogOptions};

/// A broker, and what it needs to be started again.
pub(crate) struct Broker {
    dir: tempfile::TempDir,
    port: u16,
    /// The address that clients are told: the broker's own, or that of a proxy before it.
    advertised: u16,
    child: Option<Child>,
}

fn binary() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::var_os("VIGIE_TANSU")
        .map(PathBuf::from)
        .into_iter()
        .chain([cache.join("vigie/tools/bin/tansu")])
        .chain(std::env::split_paths(&path).map(|dir| dir.join("tansu")))
        .find(|path| path.is_file())
        .expect("no tansu broker: `make tools` installs it (or set VIGIE_TANSU)")
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

impl Broker {
    /// A broker of its own for one test.
    pub(crate) fn start() -> Self {
        Self::before(None)
    }

    /// A broker that tells its clients to come to another port.
    pub(crate) fn before(proxy: Option<u16>) -> Self {
        let port = free_port();
        let mut broker = Self {
            dir: tempfile::tempdir().unwrap(),
            port,
            advertised: proxy.unwrap_or(port),
            child: None,
        };
        broker.up();
        broker
    }

    /// Starts it (again) and waits until it listens.
    pub(crate) fn up(&mut self) {
        let errors = std::fs::File::create(self.dir.path().join("errors")).unwrap();
        let child = Command::new(binary())
            .current_dir(self.dir.path())
            .args(["broker", "--silent"])
            .arg("--listener-url")
            .arg(format!("tcp://127.0.0.1:{}", self.port))
            .arg("--advertised-listener-url")
            .arg(format!("tcp://127.0.0.1:{}", self.advertised))
            .arg("--storage-engine")
            .arg("sqlite://tansu.db")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("the broker starts");
        self.child = Some(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        for _ in 0..500 {
            if std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return;
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                let errors = std::fs::read_to_string(self.dir.path().join("errors")).unwrap_or_default();
                panic!("the broker ended with {status}: {errors}");
            }
            // not synchronisation: a pause between two attempts to reach a process that is starting
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the broker does not listen");
    }

    /// Kills it as a power cut would.
    pub(crate) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            let _ = child.wait().unwrap();
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection::to(&format!("127.0.0.1:{}", self.advertised))
    }

    /// Creates a topic with one copy, as a broker that is alone must.
    pub(crate) async fn topic(&self, name: &str, partitions: u16) {
        create(&self.connection(), name, partitions).await;
    }

    /// A log on a topic of its own.
    pub(crate) async fn log(&self, topic: &str, partitions: u16) -> KafkaLog {
        self.topic(topic, partitions).await;
        KafkaLog::open(self.connection(), options(topic, partitions))
            .await
            .unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.down();
    }
}

pub(crate) async fn create(connection: &Connection, name: &str, partitions: u16) {
    let spec = TopicSpec {
        replication: 1,
        min_insync: 1,
        // Not for ever: this broker takes -1 for a time that has passed, and deletes all when it starts again.
        ..TopicSpec::log(name, partitions)
    };
    let plan = Plan {
        create: vec![spec],
        findings: vec![],
    };
    let created = topics::apply(connection, &plan).await.unwrap();
    assert_eq!(created, [name]);
}

/// As short as a test wants its waits: this broker holds a fetch for its whole time, even when records arrive.
pub(crate) fn options(topic: &str, partitions: u16) -> LogOptions {
    LogOptions {
        linger: Duration::ZERO,
        fetch_wait: Duration::from_millis(10),
        refresh: Duration::from_millis(200),
        ..LogOptions::new(topic, partitions)
    }
}
