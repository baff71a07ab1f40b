//! Redis servers for tests: started on free loopback ports in directories of their own, ended when dropped. Only the
//! standard library and `redis-cli`, so that tests of other crates can include this file.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "each test binary uses a part of it; waiting for another process needs a clock"
)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);

/// One server.
pub struct Server {
    child: Option<Child>,
    dir: tempfile::TempDir,
    arguments: Vec<String>,
    pub port: u16,
}

impl Server {
    /// Starts a server with these settings, each as name and value. It keeps no file unless they say so.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let mut arguments = vec!["--save".to_owned(), String::new()];
        for (name, value) in settings {
            arguments.extend([format!("--{name}"), (*value).to_owned()]);
        }
        let mut server = Self {
            child: None,
            dir: tempfile::tempdir().unwrap(),
            arguments,
            port: 0,
        };
        // A free port may be taken by somebody else before the server binds it.
        for _ in 0..20 {
            server.port = free_port();
            if server.spawn() {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed (apt-get install redis-server)?");
    }

    /// Starts the process; `false` if it ended at once.
    fn spawn(&mut self) -> bool {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new("redis-server");
        let child = command
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--daemonize",
                "no",
            ])
            .args(&self.arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server runs; install it with apt-get install redis-server"));
        let ready = until(|| {
            let ended = self
                .child
                .as_mut()
                .is_some_and(|child| child.try_wait().unwrap().is_some());
            ended || self.ask(&["ping"]).trim() == "PONG"
        });
        assert!(ready, "redis-server does not answer");
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Where it keeps its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What `redis-cli` prints.
    pub fn ask(&self, command: &[&str]) -> String {
        cli(self.port, command)
    }

    /// Ends the process at once, as a power switch would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            let _ = child.wait().unwrap();
        }
    }

    /// Starts it again with the files that it left, on the same port.
    pub fn restart(&mut self) {
        assert!(until(|| self.spawn()), "the port is taken");
    }

    /// The same, but as a replica of the server on that port: whoever was a master must not come back as one.
    pub fn restart_as_replica_of(&mut self, port: u16) {
        if let Some(at) = self.arguments.iter().position(|argument| argument == "--replicaof") {
            drop(self.arguments.drain(at..at + 2));
        }
        self.arguments
            .extend(["--replicaof".to_owned(), format!("127.0.0.1 {port}")]);
        self.restart();
    }

    /// A number that `info replication` gives under this name.
    pub fn replication(&self, name: &str) -> u64 {
        let info = self.ask(&["info", "replication"]);
        let value = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {info}"))
    }

    /// Stops or continues the process without ending it.
    pub fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three masters with one replica each.
pub struct Cluster(pub Vec<Server>);

impl Cluster {
    pub fn start() -> Self {
        let node = |_| {
            let bus = free_port().to_string();
            Server::start(&[
                ("cluster-enabled", "yes"),
                ("cluster-node-timeout", "1000"),
                ("cluster-replica-validity-factor", "0"),
                ("cluster-port", &bus),
                ("repl-diskless-sync-delay", "0"),
                ("repl-ping-replica-period", "1"),
            ])
        };
        let nodes: Vec<Server> = (0..6).map(node).collect();
        let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let cluster = Self(nodes);
        let whole = |node: &Server| {
            let nodes = node.ask(&["cluster", "nodes"]);
            node.ask(&["cluster", "info"]).contains("cluster_state:ok")
                && nodes.matches(" connected").count() == 6
                && !nodes.contains("fail")
                && nodes.matches("slave").count() == 3
        };
        let linked = |node: &Server| {
            !node.ask(&["info", "replication"]).contains("role:slave")
                || node.ask(&["info", "replication"]).contains("master_link_status:up")
        };
        let ready = until(|| cluster.0.iter().all(|node| whole(node) && linked(node)));
        assert!(ready, "the cluster does not form");
        cluster
    }

    pub fn urls(&self) -> Vec<String> {
        self.0.iter().map(Server::url).collect()
    }
}

/// What `redis-cli` prints when it asks the server at a port.
pub fn cli(port: u16, command: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(command)
        .output();
    String::from_utf8_lossy(&output.expect("redis-cli runs").stdout).into_owned()
}

/// Waits for something that another process does.
pub fn until(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if condition() {
            return true;
        }
        // not synchronisation: the pause between two looks at another process
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
