//! The bench behind a real listener on a free port, and programs that talk to it.

use crate::bench::{Bench, shop};
use axum::Router;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vigie_event::Timestamp;
use vigie_ingestion::http::{Doors, serve};
use vigie_ingestion::keys::{KeyKind, KeyRing, KeySpec, Secret};
use vigie_ingestion::links::{LinkKey, LinkSpec, Links};

/// A key that any page may use.
pub(crate) const KEY: &str = "write-key-anywhere";

pub(crate) struct Running {
    pub(crate) bench: Bench,
    pub(crate) address: SocketAddr,
    /// The time at the start, which is what the collector's clock shows: the libraries live in the present.
    pub(crate) now: Timestamp,
    /// Signs links that lead here.
    #[allow(dead_code, reason = "only the tests with a browser follow links")]
    pub(crate) links: Links,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub(crate) async fn start(more: Router) -> Self {
        let now = wall_clock();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let doors = Doors {
            links: Some(links(address)),
            ..Doors::default()
        };
        let bench = Bench::behind(doors, now).await;
        let key = KeySpec {
            workspace: shop(),
            kind: KeyKind::Write,
            secret: Secret::new(KEY.to_owned()),
            scopes: BTreeSet::new(),
            origins: vec!["*".to_owned()],
        };
        bench.keys.replace(KeyRing::new([key]).unwrap());
        let (stop, stopped) = oneshot::channel();
        let (router, transport) = (bench.router.clone().merge(more), bench.transport.clone());
        let server = tokio::spawn(async move {
            serve(listener, router, transport, async {
                let _stopped = stopped.await;
            })
            .await
        });
        Self {
            bench,
            address,
            now,
            links: links(address),
            stop,
            server,
        }
    }

    pub(crate) async fn stop(self) {
        let _sent = self.stop.send(());
        self.server.await.unwrap().unwrap();
    }
}

fn links(address: SocketAddr) -> Links {
    Links::new(LinkSpec {
        keys: vec![LinkKey {
            id: "k1".to_owned(),
            secret: Secret::new("sixteen-".repeat(4)),
        }],
        public_url: format!("http://{address}"),
        hosts: BTreeSet::new(),
        days: 400,
    })
    .unwrap()
}

/// The place of an installation: a variable that the Makefile sets, or where it installs.
pub(crate) fn installed(variable: &str, place: &str, target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os(variable).map_or_else(|| root.join(place), PathBuf::from);
    assert!(
        path.exists(),
        "there is no {}: run `make {target}`, or set {variable}",
        path.display()
    );
    path
}

pub(crate) fn node_modules() -> PathBuf {
    installed("VIGIE_NODE_MODULES", "target/node/node_modules", "node-env")
}

#[expect(
    clippy::disallowed_methods,
    reason = "real libraries read the real clock, and the collector must show the same"
)]
fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

/// Runs a program while the server goes on; `timeout` ends it if it hangs.
pub(crate) async fn run(seconds: u32, program: Vec<String>, variables: Vec<(&'static str, PathBuf)>) -> Output {
    let running = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("timeout");
        let _command = command
            .arg("--kill-after=5")
            .arg(seconds.to_string())
            .args(&program)
            .envs(variables)
            // A proxy of the machine is not for loopback addresses.
            .env("NO_PROXY", "*");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program:?}: {} {said}", output.status);
        output
    });
    running.await.unwrap()
}
