//! The dead letters of a workspace, for whoever holds its admin key: listing, reading, feeding again.

use super::{Collector, Problem, authorize};
use crate::dead_letters::{Cursor, LetterId, Stored};
use crate::intake::Outcome;
use crate::keys::KeyKind;
use crate::log::Log;
use crate::protocol::read_again;
use axum::Json;
use axum::extract::{Path, Query, State};
use http::HeaderMap;
use serde::Serialize;
use std::collections::BTreeMap;

/// Letters on one page at most.
const MAX_PAGE: usize = 1000;
/// Letters on one page by default.
const PAGE: usize = 50;

#[derive(Debug, Serialize)]
pub(super) struct Listing {
    dead_letters: Vec<Item>,
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct Item {
    id: String,
    code: &'static str,
    hint: &'static str,
    field: String,
    step: &'static str,
    source: &'static str,
    received_at: String,
    bytes: usize,
    cut: bool,
    retried: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Full {
    #[serde(flatten)]
    item: Item,
    /// The bytes as text; what is not UTF-8 is replaced, and `raw_base64` has it exactly.
    raw: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Retried {
    id: String,
    status: &'static str,
}

impl From<&Stored> for Item {
    fn from(stored: &Stored) -> Self {
        let letter = &stored.letter;
        Self {
            id: stored.id.to_string(),
            code: letter.code.label(),
            hint: letter.code.hint(),
            field: letter.field.to_string(),
            step: letter.step.label(),
            source: letter.source.name(),
            received_at: letter.received_at.to_string(),
            bytes: letter.raw.len(),
            cut: letter.cut,
            retried: stored.retried,
        }
    }
}

/// `GET /v1/dead-letters?limit=&cursor=`: newest first.
pub(super) async fn list<L: Log>(
    State(collector): State<Collector<L>>,
    headers: HeaderMap,
    query: Result<Query<BTreeMap<String, String>>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Listing>, Problem> {
    let credential = authorize(&collector.keys, &headers, KeyKind::Admin)?;
    let Query(query) = query.map_err(|_| Problem::QUERY)?;
    let limit = match query.get("limit") {
        Some(limit) => limit
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_PAGE).contains(limit))
            .ok_or(Problem::QUERY)?,
        None => PAGE,
    };
    let cursor = match query.get("cursor") {
        Some(cursor) => Some(Cursor::parse(cursor).ok_or(Problem::QUERY)?),
        None => None,
    };
    let page = collector
        .intake
        .dead_letters()
        .list(&credential.workspace, cursor, limit)
        .await
        .map_err(internal)?;
    let next = page.next.map(|cursor| cursor.to_string());
    Ok(Json(Listing {
        dead_letters: page.letters.iter().map(Item::from).collect(),
        next,
    }))
}

/// `GET /v1/dead-letters/{id}`
pub(super) async fn get<L: Log>(
    State(collector): State<Collector<L>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Full>, Problem> {
    use base64::Engine;
    let stored = find(&collector, &headers, &id).await?;
    let raw = &stored.letter.raw;
    let exact = std::str::from_utf8(raw).is_err();
    Ok(Json(Full {
        item: Item::from(&stored),
        raw: String::from_utf8_lossy(raw).into_owned(),
        raw_base64: exact.then(|| base64::engine::general_purpose::STANDARD.encode(raw)),
    }))
}

/// `POST /v1/dead-letters/{id}/retry`: reads the event again and takes it. Feeding a letter twice is harmless: the
/// event has the same id both times, so it is recognised behind the log.
pub(super) async fn retry<L: Log>(
    State(collector): State<Collector<L>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Retried>, Problem> {
    let stored = find(&collector, &headers, &id).await?;
    let id = stored.id.to_string();
    if stored.retried {
        return Ok(Json(Retried {
            id,
            status: "already_retried",
        }));
    }
    if stored.letter.cut {
        return Err(Problem::CUT);
    }
    let event = read_again(&stored.letter, &collector.limits).map_err(|invalid| {
        Problem::event(invalid.code, invalid.field.into()).with_status(http::StatusCode::UNPROCESSABLE_ENTITY)
    })?;
    let _outcomes: Vec<Outcome> = collector.intake.accept(vec![Ok(event)]).await?;
    // The event is in the log already: when this fails, the letter merely looks as if it had not been fed again.
    if let Err(error) = collector.intake.dead_letters().mark_retried(stored.id).await {
        tracing::warn!(tag = error.tag(), "dead letter was fed again but could not be marked");
    }
    Ok(Json(Retried { id, status: "retried" }))
}

async fn find<L: Log>(collector: &Collector<L>, headers: &HeaderMap, id: &str) -> Result<Stored, Problem> {
    let credential = authorize(&collector.keys, headers, KeyKind::Admin)?;
    let id = LetterId::parse(id).ok_or(Problem::NOT_FOUND)?;
    let found = collector
        .intake
        .dead_letters()
        .get(&credential.workspace, id)
        .await
        .map_err(internal)?;
    found.ok_or(Problem::NOT_FOUND)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err asks for")]
fn internal(error: crate::dead_letters::JournalError) -> Problem {
    tracing::error!("dead letters cannot be read: {error}");
    Problem::INTERNAL
}
