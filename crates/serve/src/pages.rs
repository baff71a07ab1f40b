//! The console at `/` and the viewer of the API's document at `/docs`: static files compiled in, nothing loaded from
//! elsewhere. They are clients of the API like any other; the read key stays in the browser's tab.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_FRAME_OPTIONS};
use axum::routing::get;

/// Only own files, only own API, no inline script or style, nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Paths, types and contents.
pub(crate) const PAGES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("pages/console.html")),
    (
        "/console.js",
        "text/javascript; charset=utf-8",
        include_str!("pages/console.js"),
    ),
    ("/docs", "text/html; charset=utf-8", include_str!("pages/docs.html")),
    (
        "/docs.js",
        "text/javascript; charset=utf-8",
        include_str!("pages/docs.js"),
    ),
    ("/vigie.css", "text/css; charset=utf-8", include_str!("pages/vigie.css")),
];

/// Routes to the pages.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    PAGES
        .into_iter()
        .fold(Router::new(), |router, (path, content_type, content)| {
            let headers = [
                (CONTENT_TYPE, content_type),
                (CONTENT_SECURITY_POLICY, POLICY),
                (X_FRAME_OPTIONS, "DENY"),
                (CACHE_CONTROL, "no-cache"),
            ];
            router.route(path, get(move || async move { (headers, content) }))
        })
}
