//! What operators and their tools ask: is it alive, may it have traffic, what runs, with which configuration, do the books
//! balance.

use crate::auth::Reader;
use crate::problem::{Code, Problem, ProblemBody};
use crate::state::{ApiState, Books, Build, Readiness};
use crate::views::ConfigView;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;

type Api<S> = State<Arc<ApiState<S>>>;

/// Is the process alive
///
/// Also `/health` and `/_liveness`.
#[utoipa::path(
    get, path = "/healthz", tag = "operations", operation_id = "getHealth",
    responses((status = 200, description = "Alive", body = String, content_type = "text/plain")),
)]
pub(crate) async fn health() -> &'static str {
    "ok\n"
}

/// May it have traffic
///
/// 503 whenever an accepted event could not be kept or an answer could not be trusted; the reasons say why. Also
/// `/_readiness`.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "getReadiness",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready", body = Readiness),
    ),
)]
pub(crate) async fn ready<S: Send + Sync + 'static>(State(state): Api<S>) -> (StatusCode, Json<Readiness>) {
    answer((state.readiness)())
}

pub(crate) fn answer(readiness: Readiness) -> (StatusCode, Json<Readiness>) {
    let status = if readiness.reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

/// What is running
#[utoipa::path(
    get, path = "/version", tag = "operations", operation_id = "getVersion",
    responses((status = 200, description = "The build", body = Build)),
)]
pub(crate) async fn version<S: Send + Sync + 'static>(State(state): Api<S>) -> Json<Build> {
    Json(state.build.clone())
}

/// Model and policies in force
#[utoipa::path(
    get, path = "/v1/config", tag = "operations", operation_id = "getConfig", security(("read_key" = [])),
    responses(
        (status = 200, description = "What scores and flags come from", body = ConfigView),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn config<S: Send + Sync + 'static>(State(state): Api<S>, _: Reader) -> Json<ConfigView> {
    Json(ConfigView::of(&state.active.load()))
}

/// What became of every event
///
/// `accepted = applied + duplicate + dead_letter + suppressed + in_flight`, exactly, at the instant of the answer.
#[utoipa::path(
    get, path = "/v1/books", tag = "operations", operation_id = "getBooks", security(("read_key" = [])),
    responses(
        (status = 200, description = "The books of the workspace", body = Books),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn books<S: Send + Sync + 'static>(
    State(state): Api<S>,
    Reader(workspace): Reader,
) -> Result<Json<Books>, Problem> {
    (state.books)(&workspace).await.map(Json).map_err(|why| {
        tracing::warn!(reason = why.0, "the books cannot be read now");
        Problem::new(Code::Unavailable, "the books cannot be read now; try again")
    })
}
