//! Relances in the order in which they were raised. A stored flag is JSON already and is passed on byte for byte.

use crate::auth::Reader;
use crate::paging::{Cursor, limit};
use crate::problem::{Code, Problem, ProblemBody};
use crate::state::ApiState;
use crate::views::{RelancePage, RelanceSchema};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use vigie_event::FlagId;
use vigie_store::Store;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

/// Relances, oldest first
///
/// A queue to pull from: keep `next_cursor` and ask again with it, whenever you like. Relances become visible in the
/// order of their numbers, so a reader that keeps its cursor misses none and meets none twice. Changes of bands are not
/// among them, so that a page may have fewer rows than asked for: whoever wants those subscribes a destination to `score.band`.
#[utoipa::path(
    get, path = "/v1/relances", tag = "relances", operation_id = "listRelances", security(("read_key" = [])),
    params(
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 when absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before; when absent, from the first one"),
    ),
    responses(
        (status = 200, description = "A page", body = RelancePage),
        (status = 400, description = "`bad_limit`, `bad_cursor`, `bad_query`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list<S: Store>(
    State(state): State<Arc<ApiState<S>>>,
    Reader(workspace): Reader,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<RelancePage>, Problem> {
    let Query(query) = query.map_err(|_| Problem::new(Code::BadQuery, "the parameters are limit and cursor"))?;
    let limit = limit(query.limit.as_deref())?;
    let after = match query.cursor.as_deref() {
        Some(cursor) => Cursor::decode(cursor)?.relance()?,
        None => 0,
    };
    // One row more than asked for tells whether there are more.
    let mut rows = state.store.flags(&workspace, after, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().map_or(after, |(number, _)| *number);
    let relances = rows.iter().filter(|(_, body)| is_relance(body));
    let relances = relances.map(|(_, body)| raw(body)).collect::<Result<_, _>>()?;
    Ok(Json(RelancePage {
        relances,
        next_cursor: Cursor::Relance(last).encode(),
        more,
    }))
}

/// One relance
#[utoipa::path(
    get, path = "/v1/relances/{id}", tag = "relances", operation_id = "getRelance", security(("read_key" = [])),
    params(("id" = String, Path, description = "32 hexadecimal digits")),
    responses(
        (status = 200, description = "The relance", body = RelanceSchema),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`unknown_relance`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn relance<S: Store>(
    State(state): State<Arc<ApiState<S>>>,
    Reader(workspace): Reader,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Box<RawValue>>, Problem> {
    let unknown = || Problem::new(Code::UnknownRelance, "no relance has this id");
    let id = id.ok().and_then(|Path(id)| FlagId::parse(&id)).ok_or_else(unknown)?;
    let body = state.store.flag(&workspace, &id).await?.ok_or_else(unknown)?;
    raw(&body).map(Json)
}

/// Whether a row is about a contact. What cannot be read is not passed over in silence.
fn is_relance(body: &Bytes) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
    }
    serde_json::from_slice::<Kind<'_>>(body).map_or(true, |row| row.kind != "band_changed")
}

fn raw(body: &Bytes) -> Result<Box<RawValue>, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        tracing::error!(error = %error, "a stored relance is not JSON");
        Problem::new(
            Code::Internal,
            "a stored relance cannot be read; the operator finds the request id in the log",
        )
    })
}
