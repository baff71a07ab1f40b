//! The routes of deliveries: claims, outcomes and the CSV for read keys; what lanes do, redelivery and resumption for admin keys.
//!
//! The workspace comes from the key (WS-1): of other workspaces nothing is told. Errors are problem documents (RFC 9457) with
//! a stable code. It never judges a key; the binary hands in who may.

use crate::Clock;
use crate::gate::Gate;
use crate::lane::{LaneHandle, Redelivery};
use crate::queue::{ClaimRequest, MAX_EXPORT, Outcome, Queue, QueueError, Report, Reports};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{Channel, FlagId, Workspace};
use vigie_store::Store;

/// What the routes add to the OpenAPI document.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Largest request: 1,000 ids.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Most ids of one redelivery.
const MAX_IDS: usize = 1_000;
/// Lease of a claim that asks for none.
const LEASE_SECONDS: u64 = 900;

/// What a bearer key may do here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Read the workspace, claim and report.
    Read(Workspace),
    /// Administer the workspace.
    Admin(Workspace),
    /// A valid key for something else.
    WrongKind,
    /// Not a key.
    Unknown,
}

/// What the routes need.
pub struct Desk<S, G, R> {
    /// Claims and outcomes.
    pub queue: Queue<S, G, R>,
    /// Every lane.
    pub lanes: Vec<LaneHandle<S>>,
    /// Judges a bearer key, in constant time.
    pub authorize: Arc<dyn Fn(&str) -> Access + Send + Sync>,
    /// The time.
    pub clock: Clock,
}

/// The routes. The router has no fallback.
pub fn router<S: Store, G: Gate, R: Reports>(desk: Arc<Desk<S, G, R>>) -> Router {
    Router::new()
        .route("/v1/relances/claim", post(claim::<S, G, R>))
        .route("/v1/relances/{id}/outcome", post(outcome::<S, G, R>))
        .route("/v1/relances.csv", get(export::<S, G, R>))
        .route("/v1/deliveries", get(list::<S, G, R>))
        .route("/v1/deliveries/{destination}/redeliver", post(redeliver::<S, G, R>))
        .route("/v1/deliveries/{destination}/resume", post(resume::<S, G, R>))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(desk)
}

type Shared<S, G, R> = State<Arc<Desk<S, G, R>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimBody {
    max: Option<usize>,
    lease_seconds: Option<u64>,
    channel: Option<String>,
    policy: Option<String>,
    #[serde(default)]
    agent: String,
}

async fn claim<S: Store, G: Gate, R: Reports>(
    State(desk): Shared<S, G, R>,
    headers: HeaderMap,
    body: Result<Json<ClaimBody>, JsonRejection>,
) -> Result<Response, Problem> {
    let workspace = desk.reader(&headers)?;
    let Json(body) = body.map_err(|error| Problem::body(&error))?;
    let request = ClaimRequest {
        max: body.max.unwrap_or(1),
        channel: body.channel.map(|name| channel(&name)).transpose()?,
        policy: body.policy,
        lease: Duration::from_secs(body.lease_seconds.unwrap_or(LEASE_SECONDS)),
        agent: body.agent,
    };
    let claimed = desk.queue.claim(&workspace, &request).await?;
    Ok(Json(json!({"relances": claimed})).into_response())
}

/// A channel by name, as flags write it.
fn channel(name: &str) -> Result<String, Problem> {
    let known = Channel::parse(name).ok_or_else(|| {
        let names: Vec<_> = Channel::ALL.iter().map(|channel| channel.name()).collect();
        Problem::bad(format!("channel is one of {}", names.join(", ")))
    })?;
    Ok(known.name().to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeBody {
    outcome: String,
    lease: Option<u32>,
    channel: Option<String>,
    #[serde(default)]
    agent: String,
    #[serde(default)]
    note: String,
}

async fn outcome<S: Store, G: Gate, R: Reports>(
    State(desk): Shared<S, G, R>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Json<OutcomeBody>, JsonRejection>,
) -> Result<Response, Problem> {
    let workspace = desk.reader(&headers)?;
    let Json(body) = body.map_err(|error| Problem::body(&error))?;
    let id = FlagId::parse(&id).ok_or(QueueError::Unknown)?;
    let Some(outcome) = Outcome::parse(&body.outcome) else {
        let names: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        return Err(Problem::bad(format!("outcome is one of {}", names.join(", "))));
    };
    let channel = body.channel.map(|name| channel(&name)).transpose()?;
    let report = Report {
        id,
        outcome,
        lease: body.lease,
        channel: channel.as_deref().and_then(Channel::parse),
        agent: body.agent,
        note: body.note,
    };
    desk.queue.report(&workspace, &report).await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({"id": id.to_string(), "outcome": outcome.name()})),
    )
        .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportQuery {
    limit: Option<usize>,
    channel: Option<String>,
    policy: Option<String>,
}

async fn export<S: Store, G: Gate, R: Reports>(
    State(desk): Shared<S, G, R>,
    headers: HeaderMap,
    query: Result<Query<ExportQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let workspace = desk.reader(&headers)?;
    let Query(query) = query.map_err(|_| Problem::bad("the parameters are limit, channel and policy"))?;
    let request = ClaimRequest {
        max: query.limit.unwrap_or(MAX_EXPORT),
        channel: query.channel.map(|name| channel(&name)).transpose()?,
        policy: query.policy,
        lease: Duration::ZERO,
        agent: String::new(),
    };
    let table = desk.queue.export(&workspace, &request).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"relances.csv\""),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, table).into_response())
}

async fn list<S: Store, G: Gate, R: Reports>(
    State(desk): Shared<S, G, R>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = desk.admin(&headers)?;
    let lanes = desk.lanes.iter().filter(|lane| *lane.workspace() == workspace);
    let lanes: Vec<_> = lanes.map(LaneHandle::status).collect();
    Ok(Json(json!({"deliveries": lanes})).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RedeliverBody {
    ids: Option<Vec<String>>,
    from: Option<u64>,
    to: Option<u64>,
    #[serde(default)]
    parked: bool,
}

async fn redeliver<S: Store, G: Gate, R: Reports>(
    State(desk): Shared<S, G, R>,
    Path(destination): Path<String>,
    headers: HeaderMap,
    body: Result<Json<RedeliverBody>, JsonRejection>,
) -> Result<Response, Problem> {
    let workspace = desk.admin(&headers)?;
    let lane = desk.lane(&workspace, &destination)?;
    let Json(body) = body.map_err(|error| Problem::body(&error))?;
    let which = match (body.ids, body.from, body.to, body.parked) {
        (Some(ids), None, None, false) if ids.len() <= MAX_IDS => {
            let ids: Option<Vec<_>> = ids.iter().map(|id| FlagId::parse(id)).collect();
            Redelivery::Ids(ids.ok_or_else(|| Problem::bad("an id has 32 hexadecimal digits"))?)
        }
        (None, Some(from), to, false) => Redelivery::Range(from, to.unwrap_or(u64::MAX)),
        (None, None, None, true) => Redelivery::Parked,
        _ => {
            let what = "give ids (at most 1000), or from and to (numbers, both included), or parked: true";
            return Err(Problem::bad(what));
        }
    };
    let opened = lane
        .redeliver(&which, (desk.clock)())
        .await
        .map_err(|error| Problem::unavailable(&error))?;
    Ok((StatusCode::ACCEPTED, Json(json!({"opened": opened}))).into_response())
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ResumeBody {
    after: Option<u64>,
}

async fn resume<S: Store, G: Gate, R: Reports>(
    State(desk): Shared<S, G, R>,
    Path(destination): Path<String>,
    headers: HeaderMap,
    body: Result<Json<ResumeBody>, JsonRejection>,
) -> Result<Response, Problem> {
    let workspace = desk.admin(&headers)?;
    let lane = desk.lane(&workspace, &destination)?;
    let Json(body) = body.map_err(|error| Problem::body(&error))?;
    if !lane
        .resume(body.after)
        .await
        .map_err(|error| Problem::unavailable(&error))?
    {
        return Err(Problem {
            status: StatusCode::CONFLICT,
            code: "renumbered",
            detail: "the store was rebuilt and numbers its flags anew; give `after`, the number to go on behind"
                .to_owned(),
        });
    }
    Ok(Json(lane.status()).into_response())
}

impl<S: Store, G, R> Desk<S, G, R> {
    fn access(&self, headers: &HeaderMap) -> Access {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match value.and_then(|value| value.split_once(' ')) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => (self.authorize)(key.trim()),
            _ => Access::Unknown,
        }
    }

    fn reader(&self, headers: &HeaderMap) -> Result<Workspace, Problem> {
        match self.access(headers) {
            Access::Read(workspace) => Ok(workspace),
            Access::Unknown => Err(Problem::unauthenticated("a read key")),
            _ => Err(Problem::scope("claims and outcomes need a read key")),
        }
    }

    fn admin(&self, headers: &HeaderMap) -> Result<Workspace, Problem> {
        match self.access(headers) {
            Access::Admin(workspace) => Ok(workspace),
            Access::Unknown => Err(Problem::unauthenticated("an admin key")),
            _ => Err(Problem::scope("deliveries need an admin key")),
        }
    }

    fn lane(&self, workspace: &Workspace, destination: &str) -> Result<&LaneHandle<S>, Problem> {
        let mut lanes = self.lanes.iter();
        let found = lanes.find(|lane| lane.workspace() == workspace && lane.destination() == destination);
        found.ok_or_else(|| Problem {
            status: StatusCode::NOT_FOUND,
            code: "unknown_destination",
            detail: "no destination of this name sends flags of this workspace; GET /v1/deliveries lists them"
                .to_owned(),
        })
    }
}

/// An error document.
struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
}

impl Problem {
    fn bad(detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "bad_request",
            detail: detail.into(),
        }
    }

    /// What is wrong with a body, without repeating any of it.
    fn body(error: &JsonRejection) -> Self {
        let (status, detail) = match error {
            JsonRejection::MissingJsonContentType(_) => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send Content-Type: application/json",
            ),
            JsonRejection::BytesRejection(_) => (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 64 KiB"),
            _ => (
                StatusCode::BAD_REQUEST,
                "the body is not the documented JSON object; see /openapi.json",
            ),
        };
        Self {
            status,
            code: "bad_body",
            detail: detail.to_owned(),
        }
    }

    fn unauthenticated(what: &str) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            code: "unauthenticated",
            detail: format!("send {what} as Authorization: Bearer <key>"),
        }
    }

    fn scope(detail: &str) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            code: "key_scope",
            detail: detail.to_owned(),
        }
    }

    fn unavailable(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "deliveries cannot answer");
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "unavailable",
            detail: "the store or the journal cannot be used now; come back".to_owned(),
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        let (status, code) = match error {
            QueueError::Unknown => (StatusCode::NOT_FOUND, "unknown_relance"),
            QueueError::HeldOut => (StatusCode::CONFLICT, "held_out"),
            QueueError::LeaseLost => (StatusCode::CONFLICT, "lease_lost"),
            QueueError::Bad(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            other => return Self::unavailable(&other),
        };
        Self {
            status,
            code,
            detail: error.to_string(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("urn:vigie:problem:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        let headers = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, headers, body.to_string()).into_response()
    }
}
