//! Companies: several customers, one account. Who belongs to one was found by the last look at the base; how it stands is computed
//! from its members' records as they are now.

use crate::auth::Reader;
use crate::customers::decode;
use crate::paging::{Cursor, limit};
use crate::problem::{Code, Problem, ProblemBody};
use crate::state::{ApiState, Surveyed};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use utoipa::ToSchema;
use vigie_event::{AccountId, CustomerKey, PersonId, Timestamp, Workspace};
use vigie_relance::Account;
use vigie_store::Store;

/// Members of one company that are looked at, in the order of their ids.
const MAX_MEMBERS: usize = 1_000;
/// Members of all companies of a page; a page ends before it looks at more.
const MAX_OF_PAGE: usize = 5_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

/// A company and how it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountView {
    /// Its id, as the source writes it.
    #[schema(example = "ACME")]
    id: String,
    /// The instant that the scores hold for.
    #[schema(format = DateTime)]
    as_of: String,
    /// When it was last counted who belongs to it: whoever came later is missing.
    #[schema(format = DateTime)]
    counted_at: String,
    /// Mean of its members' attrition, by their share in its activity; null where nobody's is known.
    #[schema(minimum = 0, maximum = 1)]
    attrition: Option<f64>,
    /// The mean, or a key contact, is at or above the model's level of risk.
    at_risk: bool,
    /// The key contact who drifts most.
    most_drifting: Option<String>,
    /// What it is worth, by currency.
    value: Vec<AccountValue>,
    /// How many belong to it.
    member_count: usize,
    /// They, the most active first; of more than 1,000 the first by id.
    members: Vec<AccountMember>,
}

/// Money of a company in major units.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountValue {
    #[schema(example = "EUR")]
    currency: String,
    /// Margin to be expected of its members in the coming year.
    current: f64,
    /// What of it is lost if they go.
    at_stake: f64,
}

/// A contact of a company.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountMember {
    /// Of `/v1/customers/{id}`.
    customer: String,
    /// One of those who make up four fifths of the activity.
    key: bool,
    /// Stage of the life cycle.
    stage: &'static str,
    /// Null where there is nothing to judge by, or where profiling is refused.
    attrition: Option<f64>,
    /// Days with a sign of life, within 400 days.
    active_days: u32,
}

/// A page of companies.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountPage {
    accounts: Vec<AccountView>,
    /// For the next page; null on the last one.
    next_cursor: Option<String>,
}

/// One company
///
/// Customers belong to a company by what their events said last: Segment's `group` call, or a canonical event with the signal
/// `identity.group` and an `account_id`.
#[utoipa::path(
    get, path = "/v1/accounts/{id}", tag = "accounts", operation_id = "getAccount", security(("read_key" = [])),
    params(("id" = String, Path, description = "The id, as the source writes it", example = "ACME")),
    responses(
        (status = 200, description = "The company", body = AccountView),
        (status = 401, description = "`unauthenticated`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`key_scope`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`unknown_account`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 500, description = "`internal`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "`unavailable`", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn account<S: Store>(
    State(state): State<Arc<ApiState<S>>>,
    Reader(workspace): Reader,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<AccountView>, Problem> {
    let unknown = || Problem::new(Code::UnknownAccount, "nobody was found to belong to this company");
    let id = id
        .ok()
        .and_then(|Path(id)| AccountId::new(&id).ok())
        .ok_or_else(unknown)?;
    let (surveyed, at) = surveyed(&state)?;
    let members = surveyed.accounts.members(&workspace, &id).ok_or_else(unknown)?;
    let view = view(&state, &workspace, &id, members, at).await?;
    view.map(Json).ok_or_else(unknown)
}

/// Companies, by id
#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts", operation_id = "listAccounts", security(("read_key" = [])),
    params(
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 1000, description = "Rows of the page, at most; 100 when absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = AccountPage),
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
) -> Result<Json<AccountPage>, Problem> {
    let Query(query) = query.map_err(|_| Problem::new(Code::BadQuery, "the parameters are limit and cursor"))?;
    let limit = limit(query.limit.as_deref())?;
    let after = query
        .cursor
        .as_deref()
        .map(|text| Cursor::decode(text)?.account())
        .transpose()?;
    let (surveyed, at) = surveyed(&state)?;
    let (mut accounts, mut looked, mut last, mut more) = (Vec::new(), 0, None, false);
    for (id, members) in surveyed.accounts.after(&workspace, after.as_ref()) {
        let cost = members.len().min(MAX_MEMBERS);
        if accounts.len() == limit || (last.is_some() && looked + cost > MAX_OF_PAGE) {
            more = true;
            break;
        }
        looked += cost;
        last = Some(id.clone());
        accounts.extend(view(&state, &workspace, id, members, at).await?);
        tokio::task::yield_now().await;
    }
    let next_cursor = last.filter(|_| more).map(|last| Cursor::Account(last).encode());
    Ok(Json(AccountPage { accounts, next_cursor }))
}

fn surveyed<S>(state: &ApiState<S>) -> Result<(Arc<Surveyed>, Timestamp), Problem> {
    let surveyed = state.surveyed.load_full();
    let at = surveyed.at;
    at.map(|at| (surveyed, at)).ok_or_else(|| {
        Problem::new(
            Code::Unavailable,
            "who belongs to which company is being counted after the start; try again",
        )
    })
}

/// A company as it is now; `None` when nobody belongs to it any more.
async fn view<S: Store>(
    state: &ApiState<S>,
    workspace: &Workspace,
    id: &AccountId,
    members: &BTreeSet<PersonId>,
    counted_at: Timestamp,
) -> Result<Option<AccountView>, Problem> {
    let keys: Vec<CustomerKey> = members
        .iter()
        .take(MAX_MEMBERS)
        .map(|person| CustomerKey::new(workspace.clone(), person.clone()))
        .collect();
    let mut records = Vec::with_capacity(keys.len());
    for (key, bytes) in keys.iter().zip(state.store.load(&keys).await?) {
        let Some(record) = bytes.map(|bytes| decode(key, &bytes)).transpose()? else {
            continue;
        };
        if record.linked_to.is_none() && record.account.as_ref().is_some_and(|account| account.id == *id) {
            records.push((key, record));
        }
    }
    if records.is_empty() {
        return Ok(None);
    }
    let now = (state.clock)();
    let active = state.active.load_full();
    let account = Account::of(records.iter().map(|(key, record)| (*key, record)), &active.model, now);
    let value = account
        .value
        .iter()
        .map(|(currency, (current, at_stake))| AccountValue {
            currency: currency.to_string(),
            current: *current,
            at_stake: *at_stake,
        });
    Ok(Some(AccountView {
        id: id.to_string(),
        as_of: now.to_string(),
        counted_at: counted_at.to_string(),
        attrition: account.attrition,
        at_risk: account.at_risk,
        most_drifting: account.most_drifting.map(|person| person.to_string()),
        value: value.collect(),
        member_count: members.len().max(account.members.len()),
        members: account
            .members
            .into_iter()
            .map(|member| AccountMember {
                customer: member.customer.to_string(),
                key: member.key,
                stage: member.stage.label(),
                attrition: member.attrition,
                active_days: member.active_days,
            })
            .collect(),
    }))
}
