//! The bench behind a real listener on a free port, and programs that talk to it.

use crate::bench::{Bench, shop};
use axum::Router;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Output};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vigie_ingestion::http::serve;
use vigie_ingestion::keys::{KeyKind, KeyRing, KeySpec, Secret};

/// A key that any page may use.
pub(crate) const KEY: &str = "write-key-anywhere";

pub(crate) struct Running {
    pub(crate) bench: Bench,
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub(crate) async fn start(more: Router) -> Self {
        let bench = Bench::new().await;
        let key = KeySpec {
            workspace: shop(),
            kind: KeyKind::Write,
            secret: Secret::new(KEY.to_owned()),
            scopes: BTreeSet::new(),
            origins: vec!["*".to_owned()],
        };
        bench.keys.replace(KeyRing::new([key]).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
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
            stop,
            server,
        }
    }

    pub(crate) async fn stop(self) {
        let _sent = self.stop.send(());
        self.server.await.unwrap().unwrap();
    }
}

/// Runs a program while the server goes on; `timeout` ends it if it hangs.
pub(crate) async fn run(seconds: u32, program: &str, arguments: Vec<String>, python_path: Option<String>) -> Output {
    let program = program.to_owned();
    let running = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("timeout");
        let _command = command
            .arg("--kill-after=5")
            .arg(seconds.to_string())
            .arg(&program)
            .args(arguments);
        if let Some(path) = python_path {
            let _command = command.env("PYTHONPATH", path);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {} {said}", output.status);
        output
    });
    running.await.unwrap()
}
