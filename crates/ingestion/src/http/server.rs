//! The HTTP/1.1 server: accepts, guards, sheds and drains connections. It knows no route.

use super::guard::{Guard, Shared};
use super::transport::{Transport, harden};
use axum::Router;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tower::ServiceExt;

/// After an accept that failed for want of something (file descriptors), so long is waited.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Header fields beyond the limit that are still parsed.
const SLACK_FIELDS: usize = 36;
/// Bytes of a head beyond the limit that are still parsed.
const SLACK_BYTES: usize = 8 << 10;

/// The address at the other end of the connection, as an extension of every request. It is for counting alone, and for
/// looking up where that is: nobody keeps or logs it.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// What connections are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serve,
    /// Finish the request in progress and close.
    Drain,
    /// Close.
    Abort,
}

/// Serves `router`, with the rules of [`harden`] around it, until `shutdown` is ready; then finishes the requests in
/// progress (at most `drain_timeout`) and returns. Whoever calls this turns readiness off first.
///
/// # Errors
/// None at present: an accept that fails is logged and tried again.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    transport: Transport,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let limits = transport.limits;
    let permits = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let slots = Arc::new(Semaphore::new(permits as usize));
    let (stage, stages) = watch::channel(Stage::Serve);
    let shared = Arc::new(Common {
        router: harden(router, transport.clone()),
        transport,
        idle: Mutex::default(),
    });
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("connection not accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let permit = match Arc::clone(&slots).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                shared.transport.metrics.events.rejected("conn_shed", 1);
                // The new connection takes the place of the one that has been idle longest; without one, it goes.
                if !shared.close_oldest_idle() {
                    continue;
                }
                tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    permit = Arc::clone(&slots).acquire_owned() => match permit {
                        Ok(permit) => permit,
                        Err(_) => break,
                    },
                }
            }
        };
        let (common, stages) = (Arc::clone(&shared), stages.clone());
        drop(tokio::spawn(async move {
            common.connection(stream, Peer(peer.ip()), stages).await;
            drop(permit);
        }));
    }
    drop(listener);
    let _old = stage.send_replace(Stage::Drain);
    let all = slots.acquire_many(permits);
    if tokio::time::timeout(limits.drain_timeout, all).await.is_err() {
        tracing::warn!("requests in progress were cut off at the end of the drain timeout");
    }
    let _old = stage.send_replace(Stage::Abort);
    Ok(())
}

struct Common {
    router: Router,
    transport: Transport,
    idle: Mutex<IdleList>,
}

/// Idle connections in the order in which they became idle.
#[derive(Default)]
struct IdleList {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

impl Common {
    fn idle(&self) -> MutexGuard<'_, IdleList> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_oldest_idle(&self) -> bool {
        match self.idle().waiting.pop_first() {
            Some((_, close)) => {
                close.notify_one();
                true
            }
            None => false,
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: Peer, mut stages: watch::Receiver<Stage>) {
        let metrics = &self.transport.metrics;
        metrics.http.connected();
        // Answers are small and one piece: waiting to fill a packet only delays them.
        let _unsupported = stream.set_nodelay(true);
        let limits = self.transport.limits;
        let shared = Arc::new(Shared::default());
        let presence = Arc::new(Presence::new(Arc::clone(&self), Arc::clone(&shared)));
        let service = {
            let (common, presence) = (Arc::clone(&self), Arc::clone(&presence));
            service_fn(move |mut request: Request<Incoming>| {
                let _none = request.extensions_mut().insert(peer);
                let busy = Busy::new(Arc::clone(&presence));
                let router = common.router.clone();
                async move {
                    let response = match router.oneshot(request.map(Body::new)).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                    Ok::<_, std::convert::Infallible>(response.map(|body| Tracked { body, _busy: busy }))
                }
            })
        };
        let mut builder = http1::Builder::new();
        // The guard keeps the time of heads, so the implementation needs no timer of its own. Its sizes are a little
        // beyond ours, so that what is just too large is refused by us, in words.
        let _builder = builder
            .max_headers(limits.header_fields + SLACK_FIELDS)
            .max_buf_size((limits.request_line_bytes + limits.header_bytes + SLACK_BYTES).max(8192))
            .half_close(false);
        let io = TokioIo::new(Guard::new(stream, limits, Arc::clone(&shared)));
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut draining = false;
        let result = loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => break result,
                () = presence.close.notified(), if !draining => {
                    // Chosen because it was idle; a request may have begun since.
                    if !shared.is_busy() {
                        break Ok(());
                    }
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                _changed = stages.changed() => match *stages.borrow_and_update() {
                    Stage::Serve => {}
                    Stage::Drain => {
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Stage::Abort => break Ok(()),
                },
            }
        };
        presence.end();
        let refused = result.as_ref().err().is_some_and(|error| error.is_parse());
        let too_large = result.as_ref().err().is_some_and(|error| error.is_parse_too_large());
        let label = shared.cause.label().or(if too_large {
            Some("headers_too_large")
        } else if refused {
            Some("framing")
        } else {
            None
        });
        if let Some(label) = label {
            metrics.events.rejected(label, 1);
        }
        metrics.http.disconnected();
    }
}

/// A connection's place in the list of idle ones.
struct Presence {
    common: Arc<Common>,
    shared: Arc<Shared>,
    close: Arc<Notify>,
    place: Mutex<Place>,
}

/// Where a connection stands in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Idle(u64),
    Busy,
    /// Closed: it never comes back.
    Ended,
}

impl Presence {
    /// A new connection is idle: one that never sends anything is the first to go.
    fn new(common: Arc<Common>, shared: Arc<Shared>) -> Self {
        let presence = Self {
            common,
            shared,
            close: Arc::new(Notify::new()),
            place: Mutex::new(Place::Busy),
        };
        presence.idle();
        presence
    }

    fn idle(&self) {
        let mut own = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if *own == Place::Busy {
            let mut list = self.common.idle();
            let place = list.next;
            list.next += 1;
            let _none = list.waiting.insert(place, Arc::clone(&self.close));
            *own = Place::Idle(place);
        }
    }

    fn leave(&self, to: Place) {
        let mut own = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Place::Idle(place) = *own {
            let _own = self.common.idle().waiting.remove(&place);
        }
        *own = to;
    }

    fn busy(&self) {
        self.leave(Place::Busy);
    }

    fn end(&self) {
        self.leave(Place::Ended);
    }
}

/// Held from the head of a request to the end of its answer.
struct Busy(Arc<Presence>);

impl Busy {
    fn new(presence: Arc<Presence>) -> Self {
        presence.busy();
        presence.shared.begin();
        Self(presence)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle();
        self.0.shared.end();
    }
}

/// A body that keeps its connection busy until it is sent.
struct Tracked {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}
