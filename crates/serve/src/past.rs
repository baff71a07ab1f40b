//! Questions about the past: SQL over events, customers, flags and dead letters, and how one customer's scores came
//! about. The archive answers them; this file owns routes, limits of the request and the shape of refusals.

use crate::auth::Reader;
use crate::customers::{instant, person};
use crate::problem::{Code, Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use utoipa::ToSchema;
use vigie_event::{PersonId, Timestamp, Workspace};

/// Longest question.
const MAX_SQL_BYTES: usize = 64 * 1024;

/// A question in SQL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// One SELECT over the tables `events`, `customers`, `flags` and `dead_letters`.
    #[schema(example = "SELECT signal, count(*) AS n FROM events GROUP BY signal ORDER BY n DESC")]
    pub sql: String,
    /// How the answer is written: `json` (default), `jsonl`, `csv`, `table` or `parquet`.
    pub format: Option<String>,
    /// Most rows of the answer; the server has a limit of its own.
    #[schema(minimum = 1)]
    pub limit: Option<usize>,
}

/// An answer in the format that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Its media type.
    pub media_type: &'static str,
    /// The answer.
    pub body: Vec<u8>,
    /// Number of rows.
    pub rows: usize,
    /// There were more.
    pub truncated: bool,
}

/// Which part of a customer's history is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Steps before are folded and not shown.
    pub from: Option<Timestamp>,
    /// Nothing after is looked at; when absent, now.
    pub to: Option<Timestamp>,
}

/// Why a question about the past has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PastError {
    /// The question is at fault; the text says how.
    Question(String),
    /// The question costs more than is allowed; the text says what.
    TooCostly(String),
    /// No event of this customer is known.
    UnknownCustomer,
    /// Not now.
    Unavailable(String),
}

/// Something that takes time.
pub type PastAnswer<T> = Pin<Box<dyn Future<Output = Result<T, PastError>> + Send>>;

/// Whoever can answer questions about the past.
pub trait Past: Send + Sync {
    /// Answers a question within a workspace.
    fn query(&self, workspace: Workspace, question: Question) -> PastAnswer<Answered>;

    /// How a customer's scores came about, as a JSON document.
    fn history(&self, workspace: Workspace, person: PersonId, period: Period) -> PastAnswer<serde_json::Value>;
}

type Api<S> = State<Arc<ApiState<S>>>;

impl From<PastError> for Problem {
    fn from(error: PastError) -> Self {
        match error {
            PastError::Question(detail) => Self::new(Code::BadSql, detail),
            PastError::TooCostly(detail) => Self::new(Code::TooCostly, detail),
            PastError::UnknownCustomer => {
                Self::new(Code::UnknownCustomer, "no event of this customer has been processed")
            }
            PastError::Unavailable(reason) => {
                tracing::warn!(reason, "the archive cannot answer now");
                Self::new(Code::Unavailable, "the archive cannot answer now; try again")
            }
        }
    }
}

fn past<S>(state: &ApiState<S>) -> Result<&Arc<dyn Past>, Problem> {
    let missing = || {
        Problem::new(
            Code::NotFound,
            "this server keeps no archive, so it cannot tell about the past",
        )
    };
    state.past.as_ref().ok_or_else(missing)
}

/// Ask in SQL
///
/// One SELECT over `events` (everything accepted, with what became of it), `customers` (state and scores as of now),
/// `flags` and `dead_letters`. Only rows of the key's workspace exist. Time, memory and rows are limited; an answer that was
/// cut says so in `X-Vigie-Truncated`.
#[utoipa::path(
    post, path = "/v1/query", tag = "past", operation_id = "query", security(("read_key" = [])), request_body = Question,
    responses(
        (status = 200, description = "The rows, by default an array of objects", body = Vec<serde_json::Value>),
        (status = 400, description = "`bad_body`, `bad_sql`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`not_found`: there is no archive", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`too_large`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`too_costly`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn query<S: Send + Sync + 'static>(
    State(state): Api<S>,
    Reader(workspace): Reader,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let past = past(&state)?;
    let too_large = || Problem::new(Code::TooLarge, "a question has at most 64 KiB");
    let body = body.map_err(|_| too_large())?;
    let question: Question = serde_json::from_slice(&body).map_err(|_| {
        let shape = "send a JSON object with sql, and if you like format and limit";
        Problem::new(Code::BadBody, shape)
    })?;
    if question.sql.len() > MAX_SQL_BYTES {
        return Err(too_large());
    }
    let answer = past.query(workspace, question).await?;
    let mut response = answer.body.into_response();
    let headers = response.headers_mut();
    let _ = headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.media_type));
    let _ = headers.insert(
        HeaderName::from_static("x-vigie-rows"),
        HeaderValue::from(answer.rows as u64),
    );
    let truncated = if answer.truncated { "true" } else { "false" };
    let _ = headers.insert(
        HeaderName::from_static("x-vigie-truncated"),
        HeaderValue::from_static(truncated),
    );
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryQuery {
    from: Option<String>,
    to: Option<String>,
}

/// How a customer's scores came about
///
/// The way of the scores, step by step: what each event moved and by how much, the contributions afterwards, the flags
/// that were raised and those that were refused with their reasons. Recomputed from the archive, under the model and the
/// policies that were in force at each moment.
#[utoipa::path(
    get, path = "/v1/customers/{id}/history", tag = "past", operation_id = "getHistory", security(("read_key" = [])),
    params(
        ("id" = String, Path, description = "As in `/v1/customers/{id}`", example = "C000123"),
        ("from" = Option<String>, Query, format = DateTime, description = "Show steps from here on"),
        ("to" = Option<String>, Query, format = DateTime, description = "Look at nothing after; when absent, now"),
    ),
    responses(
        (status = 200, description = "The history", body = serde_json::Value),
        (status = 400, description = "`bad_at`, `bad_query`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`unknown_customer`, `not_found`: there is no archive", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn history<S: Send + Sync + 'static>(
    State(state): Api<S>,
    Reader(workspace): Reader,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<serde_json::Value>, Problem> {
    let past = past(&state)?;
    let unknown = || Problem::from(PastError::UnknownCustomer);
    let Path(id) = id.map_err(|_| unknown())?;
    let Query(query) = query.map_err(|_| Problem::new(Code::BadQuery, "the parameters are from and to"))?;
    let now = (state.clock)();
    let time = |text: Option<String>| text.map(|text| instant(&text, now)).transpose();
    let period = Period {
        from: time(query.from)?,
        to: time(query.to)?,
    };
    let person = person(&id).ok_or_else(unknown)?;
    Ok(Json(past.history(workspace, person, period).await?))
}
