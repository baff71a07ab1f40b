//! Cross-origin requests of browsers. A page may use a key only if the key names the page's origin; a preflight, which
//! carries no key, is answered if any key names it. Nothing readable is ever exposed: only write routes answer here.

use super::{Collector, Problem};
use crate::keys::{Credential, Keys};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Answers a preflight.
pub(super) async fn preflight<L>(State(collector): State<Collector<L>>, headers: HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if !allow(&collector.keys, &headers, response.headers_mut()) {
        return response;
    }
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let answer = response.headers_mut();
    for (name, value) in [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            Some(HeaderValue::from_static("POST, GET, HEAD, OPTIONS")),
        ),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, asked),
        (header::ACCESS_CONTROL_MAX_AGE, Some(HeaderValue::from_static("7200"))),
    ] {
        if let Some(value) = value {
            let _old = answer.insert(name, value);
        }
    }
    response
}

/// Adds the headers that let a page read the answer, if its origin is known. Answers whether it is.
pub(super) fn allow(keys: &Keys, request: &HeaderMap, answer: &mut HeaderMap) -> bool {
    let _old = answer.insert(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = request.get(header::ORIGIN) else {
        return false;
    };
    if !origin.to_str().is_ok_and(|origin| keys.current().knows_origin(origin)) {
        return false;
    }
    let _old = answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    let _old = answer.insert(
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    let exposed = HeaderValue::from_static("retry-after, x-request-id");
    let _old = answer.insert(HeaderName::from_static("access-control-expose-headers"), exposed);
    true
}

/// Refuses a page that may not use the key.
pub(super) fn check(credential: &Credential, request: &HeaderMap) -> Result<(), Problem> {
    match request
        .get(header::ORIGIN)
        .map(|origin| origin.to_str().unwrap_or_default())
    {
        None => Ok(()),
        Some(origin) if credential.allows_origin(origin) => Ok(()),
        // A server's key in a page is a leaked key.
        Some(_) if credential.origins.is_empty() => Err(Problem::KEY_SCOPE),
        Some(_) => Err(Problem::ORIGIN),
    }
}
