//! The start of a process whose log or store is not there yet (F70): it waits, with growing pauses and for as long as it
//! takes, and says meanwhile for what. Probes are answered and not ready, everything else is 503: whoever sends events keeps
//! them and comes back. A process whose parts are all there never opens this room.
//!
//! It decides which failures pass by waiting; it opens nothing itself.

use anyhow::{Context, Result};
use axum::Router;
use axum::http::StatusCode;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vigie_ingestion::dead_letters::JournalError;
use vigie_ingestion::http::{Problem, Transport, serve};
use vigie_ingestion::log::{ErrorClass, LogError};
use vigie_kafka::topics::TopicsError;
use vigie_pipeline::WorkerError;
use vigie_serve::{Build, Readiness};
use vigie_store::StoreError;

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause: what has come back is noticed this late at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is answered to everything but probes.
async fn not_yet() -> Problem {
    Problem {
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "starting",
        detail: "not started yet: /readyz says what is waited for; keep the events and come back",
        retry_after: Some(Duration::from_secs(1)),
        ..Problem::INTERNAL
    }
}

/// Where a process waits.
pub(crate) struct Waiting {
    listen: SocketAddr,
    transport: Transport,
    build: Build,
    /// What is answered besides probes: metrics, where they have no listener of their own.
    besides: Router,
    reason: Arc<Mutex<String>>,
    room: Option<Room>,
}

/// The listener while it answers for the process that is to come.
struct Room {
    listener: StdListener,
    leave: watch::Sender<bool>,
    served: JoinHandle<io::Result<()>>,
}

impl Waiting {
    pub(crate) fn new(listen: SocketAddr, transport: Transport, build: Build, besides: Router) -> Self {
        Self {
            listen,
            transport,
            build,
            besides,
            reason: Arc::default(),
            room: None,
        }
    }

    /// Opens something, again and again while it fails in a way that passes.
    pub(crate) async fn until<T, F>(&mut self, what: &str, mut open: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            match open().await {
                Err(error) if passes(&error) => {
                    self.say(format!("waiting for {what}: {error:#}")).await?;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    /// The listener for the process that has everything now.
    pub(crate) async fn over(self) -> Result<(TcpListener, SocketAddr)> {
        let listener = match self.room {
            Some(room) => {
                let _ = room.leave.send(true);
                room.served.await.context("the waiting room's task ended abruptly")??;
                TcpListener::from_std(room.listener)?
            }
            None => bind(self.listen).await?,
        };
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    }

    /// Says why, where it is another reason than before, and opens the room.
    async fn say(&mut self, reason: String) -> Result<()> {
        if self.room.is_none() {
            self.room = Some(self.open(bind(self.listen).await?)?);
        }
        let room = self.room.as_ref().and_then(|room| room.listener.local_addr().ok());
        let mut known = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != reason {
            let address = room.map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(listen = address, "{reason}");
            *known = reason;
        }
        Ok(())
    }

    fn open(&self, listener: TcpListener) -> io::Result<Room> {
        let listener = listener.into_std()?;
        let door = TcpListener::from_std(listener.try_clone()?)?;
        let reason = Arc::clone(&self.reason);
        let readiness = move || {
            let reason = reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Readiness { reasons: vec![reason] }
        };
        let router = vigie_serve::probes(Arc::new(readiness), self.build.clone())
            .merge(self.besides.clone())
            .fallback(not_yet);
        let (leave, mut left) = watch::channel(false);
        let transport = self.transport.clone();
        let served = tokio::spawn(async move {
            serve(door, router, transport, async move {
                // A sender that is gone means the same as one that says so.
                let _ = left.wait_for(|left| *left).await;
            })
            .await
        });
        Ok(Room {
            listener,
            leave,
            served,
        })
    }
}

/// A listener on this address.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("listening on {address}"))
}

/// Whether waiting may help: brokers or a Redis that do not answer for now.
fn passes(error: &anyhow::Error) -> bool {
    let log = |error: &LogError| error.class() == ErrorClass::External;
    let journal = |error: &JournalError| matches!(error, JournalError::Log(error) if log(error));
    let store = |error: &StoreError| error.class() == vigie_store::ErrorClass::External;
    error.downcast_ref::<LogError>().is_some_and(log)
        || error.downcast_ref::<JournalError>().is_some_and(journal)
        || error.downcast_ref::<StoreError>().is_some_and(store)
        || error.downcast_ref::<WorkerError>().is_some_and(WorkerError::is_passing)
        || matches!(error.downcast_ref::<TopicsError>(), Some(TopicsError::Brokers { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn only_what_waiting_can_help_is_waited_for() {
        let reason = || "gone".to_owned();
        let away = anyhow::Error::from(LogError::Unavailable { reason: reason() }).context("the log");
        assert!(passes(&away));
        assert!(passes(&StoreError::Unavailable { reason: reason() }.into()));
        let brokers = TopicsError::Brokers {
            brokers: "a:1".to_owned(),
            reason: reason(),
        };
        assert!(passes(&brokers.into()));
        for lasting in [
            anyhow::Error::from(StoreError::Lost { reason: reason() }),
            LogError::Layout { reason: reason() }.into(),
            WorkerError::from(StoreError::Lost { reason: reason() }).into(),
            anyhow!("anything else"),
        ] {
            assert!(!passes(&lasting), "{lasting}");
        }
    }
}
