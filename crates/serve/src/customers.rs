//! Customers: one, many, and the list by risk. Reads the store, follows identity links, and leaves the rest to the views.

use crate::auth::Reader;
use crate::paging::{Cursor, MAX_LIMIT, limit};
use crate::problem::{Code, Problem, ProblemBody};
use crate::state::ApiState;
use crate::views::{BatchAnswer, BatchEntry, BatchRequest, Customer, CustomerPage, CustomerRow, newest_event};
use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use bytes::Bytes;
use serde::Deserialize;
use std::sync::Arc;
use vigie_event::{CustomerKey, DAY_MS, PersonId, Timestamp, Workspace};
use vigie_scoring::{CustomerState, Lang};
use vigie_store::Store;

/// Most links followed from an id to the record that holds the person now. Links lead from an id to a smaller one, so
/// chains are short; the bound only keeps damage from going in circles.
const MAX_LINKS: usize = 8;
/// How far ahead of now `at` may lie.
const MAX_AHEAD_MS: i64 = 3_650 * DAY_MS;
/// Rows assessed before other requests get a turn.
const ROWS_PER_TURN: usize = 32;

type Api<S> = State<Arc<ApiState<S>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AtQuery {
    at: Option<String>,
    lang: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    sort: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Scores, reasons and forecast of one customer
///
/// The id is a known customer's; prefix an anonymous one with `anonymous:` (and a known one that itself starts so with
/// `known:`). An id that was linked to another customer's answers with that customer.
///
/// Scores are computed for the moment of the request, or for `at`. A later `at` says what happens if the customer stays
/// silent until then. An `at` before the newest event that the state contains is refused with 422: the state cannot
/// be wound back.
#[utoipa::path(
    get, path = "/v1/customers/{id}", tag = "customers", operation_id = "getCustomer", security(("read_key" = [])),
    params(
        ("id" = String, Path, description = "A known id, or `anonymous:` and an anonymous one", example = "C000123"),
        ("at" = Option<String>, Query, format = DateTime, description = "RFC 3339; when absent, now"),
        ("lang" = Option<String>, Query, description = "Language of the reasons: `en` (default) or `fr`", example = "fr"),
    ),
    responses(
        (status = 200, description = "The customer", body = Customer),
        (status = 400, description = "`bad_at`, `bad_query`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`unknown_customer`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`at_before_state`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn customer<S: Store>(
    State(state): Api<S>,
    Reader(workspace): Reader,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AtQuery>, QueryRejection>,
) -> Result<Json<Customer>, Problem> {
    let unknown = || Problem::new(Code::UnknownCustomer, "no event of this customer has been processed");
    let Path(id) = id.map_err(|_| unknown())?;
    let Query(query) = query.map_err(|_| Problem::new(Code::BadQuery, "the parameters are at and lang"))?;
    let lang = match query.lang.as_deref() {
        None => Lang::default(),
        Some(tag) => Lang::parse(tag).ok_or_else(|| Problem::new(Code::BadQuery, "lang is en or fr"))?,
    };
    let now = (state.clock)();
    let wanted = query.at.as_deref().map(|text| instant(text, now)).transpose()?;
    let person = person(&id).ok_or_else(unknown)?;
    let found = load(&state, &workspace, vec![Some(person)])
        .await?
        .into_iter()
        .next()
        .flatten();
    let (person, record) = found.ok_or_else(unknown)?;
    let newest = newest_event(&record);
    if let (Some(at), Some(newest)) = (wanted, newest)
        && at < newest
    {
        let detail = format!(
            "the state already contains events up to {newest}, so it cannot say what was known before; \
             GET /v1/customers/{{id}}/history?to=… recomputes what was known then"
        );
        return Err(Problem::new(Code::AtBeforeState, detail));
    }
    let at = wanted.or(newest.filter(|newest| *newest > now)).unwrap_or(now);
    Ok(Json(Customer::of(
        &person,
        &record,
        &state.active.load(),
        at,
        now,
        lang,
    )))
}

/// Up to 1,000 customers at once
///
/// Answers in the order of the request; unknown ids have a null customer.
#[utoipa::path(
    post, path = "/v1/customers/batch-get", tag = "customers", operation_id = "batchGetCustomers",
    security(("read_key" = [])), request_body = BatchRequest,
    responses(
        (status = 200, description = "The customers", body = BatchAnswer),
        (status = 400, description = "`bad_body`, `too_many_ids`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`too_large`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn batch_get<S: Store>(
    State(state): Api<S>,
    Reader(workspace): Reader,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<BatchAnswer>, Problem> {
    let body = body.map_err(|_| {
        Problem::new(
            Code::TooLarge,
            "1,000 ids of 200 bytes fit well into the limit of 1 MiB",
        )
    })?;
    let request: BatchRequest = serde_json::from_slice(&body).map_err(|_| {
        Problem::new(
            Code::BadBody,
            "send a JSON object whose only field is ids, a list of texts",
        )
    })?;
    if request.ids.len() > MAX_LIMIT {
        return Err(Problem::new(
            Code::TooManyIds,
            format!("ask for at most {MAX_LIMIT} ids at once"),
        ));
    }
    let found = load(&state, &workspace, request.ids.iter().map(|id| person(id)).collect()).await?;
    let (now, active) = ((state.clock)(), state.active.load_full());
    let mut customers = Vec::with_capacity(found.len());
    for (id, found) in request.ids.into_iter().zip(found) {
        let view = |(person, record): (PersonId, CustomerState)| {
            let at = newest_event(&record).map_or(now, |newest| newest.max(now));
            Customer::of(&person, &record, &active, at, now, Lang::default())
        };
        customers.push(BatchEntry {
            id,
            customer: found.map(view),
        });
        if customers.len().is_multiple_of(ROWS_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
    Ok(Json(BatchAnswer { customers }))
}

/// Customers, most at risk first
///
/// The order is that of the published attrition, which is at most the model's refresh drift (0.01) behind the score that
/// the rows show. Customers who move while you page may be met twice or not at all; with `sort=id` they are not.
#[utoipa::path(
    get, path = "/v1/customers", tag = "customers", operation_id = "listCustomers", security(("read_key" = [])),
    params(
        ("sort" = Option<String>, Query, description = "`at-risk` (default) or `id`"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Rows of the page; 100 when absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = CustomerPage),
        (status = 400, description = "`bad_limit`, `bad_cursor`, `bad_query`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list<S: Store>(
    State(state): Api<S>,
    Reader(workspace): Reader,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<CustomerPage>, Problem> {
    let Query(query) = query.map_err(|_| Problem::new(Code::BadQuery, "the parameters are sort, limit and cursor"))?;
    let limit = limit(query.limit.as_deref())?;
    let cursor = query.cursor.as_deref().map(Cursor::decode).transpose()?;
    let (rows, next) = match query.sort.as_deref() {
        None | Some("at-risk") => {
            let after = cursor.map(|cursor| cursor.risk(&workspace)).transpose()?;
            let rows = state.store.at_risk(&workspace, after, limit).await?;
            let next = rows
                .last()
                .map(|(rank, key, _)| Cursor::Risk(*rank, key.person.clone()));
            (
                rows.into_iter().map(|(_, key, bytes)| (key, bytes)).collect::<Vec<_>>(),
                next,
            )
        }
        Some("id") => {
            let after = cursor.map(|cursor| cursor.id(&workspace)).transpose()?;
            let rows = state.store.customers(&workspace, after, limit).await?;
            let next = rows.last().map(|(key, _)| Cursor::Id(key.person.clone()));
            (rows, next)
        }
        Some(_) => return Err(Problem::new(Code::BadQuery, "sort is at-risk or id")),
    };
    let next_cursor = next.filter(|_| rows.len() == limit).map(|cursor| cursor.encode());
    let (now, active) = ((state.clock)(), state.active.load_full());
    let mut customers = Vec::with_capacity(rows.len());
    for (index, (key, bytes)) in rows.into_iter().enumerate() {
        let record = decode(&key, &bytes)?;
        // A signpost to another record is not a customer.
        if record.linked_to.is_none() {
            let at = newest_event(&record).map_or(now, |newest| newest.max(now));
            customers.push(CustomerRow::of(&key.person, &record, &active, at));
        }
        if index % ROWS_PER_TURN == ROWS_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    Ok(Json(CustomerPage { customers, next_cursor }))
}

/// The records of the persons, each behind the links that lead away from its id; `None` for nobody and for the unknown.
async fn load<S: Store>(
    state: &ApiState<S>,
    workspace: &Workspace,
    persons: Vec<Option<PersonId>>,
) -> Result<Vec<Option<(PersonId, CustomerState)>>, Problem> {
    let mut found: Vec<Option<(PersonId, CustomerState)>> = persons.iter().map(|_| None).collect();
    let key = |person: PersonId| CustomerKey::new(workspace.clone(), person);
    let numbered = persons.into_iter().enumerate();
    let mut wanted: Vec<_> = numbered
        .filter_map(|(slot, person)| Some((slot, key(person?))))
        .collect();
    for _ in 0..=MAX_LINKS {
        if wanted.is_empty() {
            break;
        }
        let keys: Vec<_> = wanted.iter().map(|(_, key)| key.clone()).collect();
        let records = state.store.load(&keys).await?;
        let mut linked = Vec::new();
        for ((slot, here), bytes) in wanted.into_iter().zip(records) {
            let Some(record) = bytes.map(|bytes| decode(&here, &bytes)).transpose()? else {
                continue;
            };
            match (record.linked_to.clone(), found.get_mut(slot)) {
                (Some(elsewhere), _) => linked.push((slot, key(elsewhere))),
                (None, Some(place)) => *place = Some((here.person, record)),
                (None, None) => {}
            }
        }
        wanted = linked;
    }
    Ok(found)
}

pub(crate) fn decode(key: &CustomerKey, bytes: &[u8]) -> Result<CustomerState, Problem> {
    CustomerState::decode(bytes).map_err(|error| {
        tracing::error!(customer = %key, error = %error, "a customer record cannot be read");
        Problem::new(
            Code::Internal,
            "the record of a customer cannot be read; the operator finds which one in the log",
        )
    })
}

/// The person that a path or body names.
pub(crate) fn person(id: &str) -> Option<PersonId> {
    let parsed = match (id.strip_prefix("anonymous:"), id.strip_prefix("known:")) {
        (Some(anonymous), _) => PersonId::anonymous(anonymous),
        (None, Some(known)) => PersonId::known(known),
        (None, None) => PersonId::known(id),
    };
    parsed.ok()
}

/// The instant that a query names. A `+` that was not escaped arrives as a space.
pub(crate) fn instant(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let parsed = Timestamp::parse(text).or_else(|_| Timestamp::parse(&text.replace(' ', "+")));
    let at = parsed.map_err(|_| Problem::new(Code::BadAt, "at is RFC 3339, for example 2026-11-21T20:15:00Z"))?;
    if at.ms_since(now) > MAX_AHEAD_MS {
        return Err(Problem::new(Code::BadAt, "at lies more than ten years ahead"));
    }
    Ok(at)
}
