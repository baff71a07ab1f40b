//! HTTP: the collector's routes, what they answer, and the server that keeps transport rules for every route of the
//! process.
//!
//! Answers are RFC 9457 problems with a closed `code` and a fixed text; no byte of a request is ever echoed. 4xx means
//! "do not repeat this", 429 and 503 mean "come back" and say when. A 2xx is only sent for what is durable.

mod body;
mod cors;
mod guard;
mod ingest;
mod letters;
mod links;
mod problem;
mod server;
mod tracker;
mod tracking;
mod transport;
mod webhooks;

pub use problem::Problem;
pub use server::{Peer, serve};
pub use transport::{RequestId, Transport, harden};

use crate::Clock;
use crate::intake::Intake;
use crate::keys::{Credential, KeyKind, Keys};
use crate::limits::{Limits, TransportLimits};
use crate::links::Links;
use crate::log::Log;
use crate::rates::Rates;
use crate::webhooks::Webhooks;
use axum::Router;
use axum::routing::{get, on, post};
use http::{HeaderMap, header};
use std::sync::Arc;
use vigie_telemetry::Metrics;

/// What the collector's routes take and answer, as the parts of an OpenAPI 3.1 document: `tags`, `paths`, `components`. The
/// schema `Event` that it refers to is [`vigie_event::json::SCHEMA`].
pub const OPENAPI: &str = include_str!("openapi.json");

/// Everything that the collector's routes need.
#[derive(Debug)]
pub struct Collector<L> {
    /// The door to the log.
    pub intake: Intake<L>,
    /// Who may do what.
    pub keys: Arc<Keys>,
    /// What a request may hold.
    pub limits: Arc<Limits>,
    /// How slowly a body may come.
    pub transport: TransportLimits,
    /// The wall clock.
    pub clock: ClockHandle,
    /// What is counted.
    pub metrics: Metrics,
    /// What an installation may have beyond the tracking protocols.
    pub doors: Arc<Doors>,
}

/// Webhooks, links and budgets. By default there are no webhooks, no links and no limits of rates.
#[derive(Debug, Default)]
pub struct Doors {
    /// Endpoints for e-mail providers.
    pub webhooks: Webhooks,
    /// Signed links of e-mails; without keys there are none.
    pub links: Option<Links>,
    /// How much keys and workspaces may send.
    pub rates: Rates,
}

/// A [`Clock`] that can stand in a struct that derives `Debug`.
#[derive(Clone)]
pub struct ClockHandle(pub Clock);

impl std::fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl<L> Clone for Collector<L> {
    fn clone(&self) -> Self {
        Self {
            intake: self.intake.clone(),
            keys: Arc::clone(&self.keys),
            limits: Arc::clone(&self.limits),
            transport: self.transport,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            doors: Arc::clone(&self.doors),
        }
    }
}

/// The collector's routes: `POST /v1/events`, the tracking protocols, webhooks, links, the tracker, and the dead letters.
pub fn router<L: Log>(collector: Collector<L>) -> Router {
    use axum::routing::MethodFilter as M;
    let mut router = Router::new()
        .route("/v1/events", post(ingest::events::<L>).options(cors::preflight::<L>))
        .route("/v1/dead-letters", get(letters::list::<L>))
        .route("/v1/dead-letters/{id}", get(letters::get::<L>))
        .route("/v1/dead-letters/{id}/retry", post(letters::retry::<L>))
        .route(
            "/v1/projects/{write_key}/settings",
            get(ingest::settings::<L>).options(cors::preflight::<L>),
        );
    for (segment, call) in crate::protocol::segment::CALLS {
        let route = || {
            let call = *call;
            on(M::POST, move |state, request| {
                ingest::segment::<L>(call, state, request)
            })
            .on(M::HEAD, ingest::nothing)
            .on(M::OPTIONS, cors::preflight::<L>)
        };
        router = router
            .route(&format!("/v1/{segment}"), route())
            .route(&format!("/v1/{segment}/"), route());
    }
    router
        .merge(tracking::routes())
        .merge(webhooks::routes())
        .merge(links::routes())
        .merge(tracker::routes())
        .with_state(collector)
}

/// Keys as requests carry them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Presented {
    /// `Authorization: Bearer`.
    Bearer(String),
    /// The user of `Authorization: Basic`; with an empty user, the password.
    Basic(String),
}

impl Presented {
    fn key(&self) -> &str {
        match self {
            Self::Bearer(key) | Self::Basic(key) => key,
        }
    }
}

/// The key in the `Authorization` header.
fn presented(headers: &HeaderMap) -> Option<Presented> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Presented::Bearer(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    // Some clients leave the colon out.
    let (user, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
    Some(Presented::Basic(
        if user.is_empty() { password } else { user }.to_owned(),
    ))
}

/// The key that a request carries in its `Authorization` header: a bearer token, or the user of Basic, or its password when
/// the user is empty.
#[must_use]
pub fn presented_key(headers: &HeaderMap) -> Option<String> {
    match presented(headers)? {
        Presented::Bearer(key) | Presented::Basic(key) => Some(key),
    }
}

/// The key of a request to one of our own routes, checked for its kind.
fn authorize(keys: &Keys, headers: &HeaderMap, kind: KeyKind) -> Result<Arc<Credential>, Problem> {
    let presented = presented(headers).ok_or(Problem::AUTH_MISSING)?;
    let credential = keys.current().find(presented.key()).ok_or(Problem::AUTH)?;
    if credential.kind == kind {
        Ok(credential)
    } else {
        Err(Problem::KEY_SCOPE)
    }
}
