//! The read API over HTTP: scores with their reasons, relances to pull, books, health; its OpenAPI document; a small
//! console.
//!
//! It owns the routes, the shapes of the answers and the errors. It never folds an event, never writes to the store,
//! never decides whom to contact, never judges a key, and reads no clock: all of these are given to it as
//! [`ApiState`]. It knows the log and the pipeline only through what they left in the store.
//!
//! Workspaces are kept apart (WS-1) because every look-up takes the workspace from the caller's key: an id of another
//! workspace is as unknown as one that never was.

mod accounts;
mod auth;
mod customers;
mod openapi;
mod operations;
mod pages;
mod paging;
mod past;
mod problem;
mod relances;
mod state;
mod views;

pub use past::{Answered, Past, PastAnswer, PastError, Period, Question};
pub use state::{Access, Active, Answer, ApiState, Books, BooksOf, Build, Readiness, Surveyed, Unavailable};

use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use problem::{Code, Problem};
use std::sync::Arc;
use vigie_store::Store;

/// Largest request body: 1,000 ids of 200 bytes, escaped.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Second names of routes, as different platforms look for them.
const ALIASES: [(&str, &str); 3] = [
    ("/health", "/healthz"),
    ("/_liveness", "/healthz"),
    ("/_readiness", "/readyz"),
];

/// The routes of the API and its pages.
///
/// The router has a fallback that answers 404 as a problem document; a router that is merged with it must have none.
pub fn router<S: Store>(state: ApiState<S>) -> Router {
    let state = Arc::new(state);
    let mut router = pages::routes();
    for (_, path, methods) in endpoints::<S>() {
        router = router.route(path, methods);
    }
    for (alias, of) in ALIASES {
        if let Some((_, _, methods)) = endpoints::<S>().into_iter().find(|(_, path, _)| *path == of) {
            router = router.route(alias, methods);
        }
    }
    router
        .fallback(async || Problem::new(Code::NotFound, "the documented paths are listed at /openapi.json"))
        .method_not_allowed_fallback(async || Problem::new(Code::Method, "the Allow header names the methods"))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), problem::layer::<S>))
        .with_state(state)
}

/// Health, readiness and version alone, for a process that has nothing else to answer.
pub fn probes(readiness: Arc<dyn Fn() -> Readiness + Send + Sync>, build: Build) -> Router {
    let ready = get(move || std::future::ready(operations::answer((readiness)())));
    let health = || get(operations::health);
    let mut router = Router::new()
        .route("/healthz", health())
        .route("/readyz", ready.clone())
        .route("/version", get(move || std::future::ready(axum::Json(build.clone()))));
    for (alias, of) in ALIASES {
        router = router.route(alias, if of == "/readyz" { ready.clone() } else { health() });
    }
    router
}

/// Method, path and handler of a route.
type Endpoint<S> = (Method, &'static str, MethodRouter<Arc<ApiState<S>>>);

/// Every documented route, once. The router is built from this list, and a test compares it with the document.
fn endpoints<S: Store>() -> [Endpoint<S>; 15] {
    [
        (Method::GET, "/v1/customers", get(customers::list::<S>)),
        (Method::POST, "/v1/customers/batch-get", post(customers::batch_get::<S>)),
        (Method::GET, "/v1/customers/{id}", get(customers::customer::<S>)),
        (Method::GET, "/v1/customers/{id}/history", get(past::history::<S>)),
        (Method::GET, "/v1/accounts", get(accounts::list::<S>)),
        (Method::GET, "/v1/accounts/{id}", get(accounts::account::<S>)),
        (Method::POST, "/v1/query", post(past::query::<S>)),
        (Method::GET, "/v1/relances", get(relances::list::<S>)),
        (Method::GET, "/v1/relances/{id}", get(relances::relance::<S>)),
        (Method::GET, "/v1/books", get(operations::books::<S>)),
        (Method::GET, "/v1/config", get(operations::config::<S>)),
        (Method::GET, "/healthz", get(operations::health)),
        (Method::GET, "/readyz", get(operations::ready::<S>)),
        (Method::GET, "/version", get(operations::version::<S>)),
        (Method::GET, "/openapi.json", get(openapi::openapi::<S>)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_lists_the_routes_and_nothing_else() {
        let routes: BTreeSet<_> = endpoints::<vigie_store::MemoryStore>()
            .into_iter()
            .map(|(method, path, _)| (path.to_owned(), method.as_str().to_lowercase()))
            .collect();
        let document = serde_json::to_value(openapi::document("1")).unwrap();
        let documented: BTreeSet<_> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(|method| (path.clone(), method.clone()))
            })
            .collect();
        assert_eq!(routes, documented);
    }
}
