//! The OpenAPI 3.1 document of the API. A test compares it with the routes and with real answers.

use crate::state::ApiState;
use crate::{accounts, customers, operations, past, relances};
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vigie",
        description = "Who is drifting away, how likely each customer is to leave, and whom to contact now. \
            Events go in, scores and relances come out; keys for writing, reading and administering are different ones.\n\n\
            Times are RFC 3339 in UTC. Errors are problem documents (RFC 9457) with a stable `code`. \
            Every answer carries `X-Request-Id`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "customers", description = "Live scores with their reasons"),
        (name = "accounts", description = "Companies, by their contacts"),
        (name = "relances", description = "Whom to contact now"),
        (name = "past", description = "Questions to the archive"),
        (name = "operations", description = "For those who run it"),
    ),
    paths(
        customers::customer, customers::batch_get, customers::list, accounts::list, accounts::account, past::history, past::query,
        relances::list, relances::relance,
        operations::books, operations::config, operations::health, operations::ready, operations::version, openapi,
    ),
    modifiers(&ReadKey),
)]
struct Document;

struct ReadKey;

impl Modify for ReadKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A read key of the workspace."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("read_key", SecurityScheme::Http(scheme));
    }
}

/// The document, with the version of the running program.
pub(crate) fn document(version: &str) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    version.clone_into(&mut document.info.version);
    document
}

/// The document as JSON, with what other routers contribute and the schema of an event.
pub(crate) fn complete(version: &str, also: &[&str]) -> Value {
    let mut whole = serde_json::to_value(document(version)).unwrap_or_default();
    for more in also.iter().filter_map(|also| serde_json::from_str::<Value>(also).ok()) {
        unite(&mut whole, more);
    }
    if !also.is_empty()
        && let Ok(mut event) = serde_json::from_str::<Value>(vigie_event::json::SCHEMA)
    {
        // An embedded schema has the dialect of the document.
        let _ = event.as_object_mut().and_then(|event| event.remove("$schema"));
        unite(&mut whole, json!({"components": {"schemas": {"Event": event}}}));
    }
    whole
}

/// Adds the entries of objects and the items of lists; what is there stays.
fn unite(whole: &mut Value, more: Value) {
    match (whole, more) {
        (Value::Object(whole), Value::Object(more)) => {
            for (key, value) in more {
                match whole.get_mut(&key) {
                    Some(known) => unite(known, value),
                    None => drop(whole.insert(key, value)),
                }
            }
        }
        (Value::Array(whole), Value::Array(more)) => whole.extend(more),
        _ => {}
    }
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "getOpenApi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
)]
pub(crate) async fn openapi<S: Send + Sync + 'static>(State(state): State<Arc<ApiState<S>>>) -> Json<Value> {
    Json(complete(&state.build.version, state.also_documented))
}
