//! The OpenAPI 3.1 document of the API. A test compares it with the routes and with real answers.

use crate::state::ApiState;
use crate::{customers, operations, relances};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vigie",
        description = "Who is drifting away, how likely each customer is to leave, and whom to contact now. \
            This is the read API; events are sent to the collector (`POST /v1/events`).\n\n\
            Times are RFC 3339 in UTC. Errors are problem documents (RFC 9457) with a stable `code`. \
            Every answer carries `X-Request-Id`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "customers", description = "Live scores with their reasons"),
        (name = "relances", description = "Whom to contact now"),
        (name = "operations", description = "For those who run it"),
    ),
    paths(
        customers::customer, customers::batch_get, customers::list, relances::list, relances::relance,
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

/// This document
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "getOpenApi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
)]
pub(crate) async fn openapi<S: Send + Sync + 'static>(
    State(state): State<Arc<ApiState<S>>>,
) -> Json<utoipa::openapi::OpenApi> {
    Json(document(&state.build.version))
}
