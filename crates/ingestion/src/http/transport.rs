//! What holds for every route of the process, whoever owns it: limits of the request head, the host, known methods,
//! the request's id, `nosniff`, the body of problems, and how long an answer took.

use super::Problem;
use crate::Clock;
use crate::limits::TransportLimits;
use crate::protocol::segment;
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vigie_telemetry::Metrics;

/// Methods that some route may take.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// What [`harden`] and [`super::serve`] need.
#[derive(Clone)]
pub struct Transport {
    /// Limits of heads, bodies and connections.
    pub limits: TransportLimits,
    /// Hosts (without port) that this server answers for; empty for any.
    pub hosts: Vec<String>,
    /// What is counted.
    pub metrics: Metrics,
    /// The wall clock, for request ids.
    pub clock: Clock,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("limits", &self.limits)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// The id of a request, in the request's extensions and in the answer's `X-Request-Id`. Always ours: an id that a
/// client sends is input like any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

struct Layer {
    transport: Transport,
    requests: AtomicU64,
}

/// Puts the rules of this file around all routes. Call it once, on the finished router.
pub fn harden(router: Router, transport: Transport) -> Router {
    let layer = Arc::new(Layer {
        transport,
        requests: AtomicU64::new(0),
    });
    router.layer(from_fn_with_state(layer, around))
}

async fn around(State(layer): State<Arc<Layer>>, mut request: Request, next: Next) -> Response {
    let Transport { metrics, clock, .. } = &layer.transport;
    let lap = metrics.stopwatch.start();
    let number = layer.requests.fetch_add(1, Ordering::Relaxed);
    let id = format!("{:x}-{number:x}", clock().0);
    let endpoint = endpoint(&request);
    let mut response = match check(&request, &layer.transport) {
        Err(problem) => problem.closing().into_response(),
        Ok(()) => {
            let _none = request.extensions_mut().insert(RequestId(id.clone()));
            finish(next.run(request).await)
        }
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        metrics.events.rejected(problem.code, 1);
        *response.body_mut() = Body::from(problem.render(&id));
        // Written for the body without the id.
        let _old = response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let headers = response.headers_mut();
    let _old = headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        let _old = headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    metrics
        .http
        .request(&endpoint, response.status().as_u16(), lap.elapsed());
    response
}

/// The route's template; the many spellings of the Segment API are one.
fn endpoint(request: &Request) -> String {
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        return "none".to_owned();
    };
    let path = path.as_str();
    let call = path.strip_prefix("/v1/").map(|rest| rest.trim_end_matches('/'));
    if call.is_some_and(|call| segment::CALLS.iter().any(|(name, _)| *name == call)) {
        return "segment".to_owned();
    }
    path.to_owned()
}

fn check(request: &Request, transport: &Transport) -> Result<(), Problem> {
    let limits = &transport.limits;
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let origin = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len() + "https://".len());
    let line = method.as_str().len() + 1 + origin + target + " HTTP/1.1".len();
    if line > limits.request_line_bytes {
        return Err(Problem::URI_TOO_LONG);
    }
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    if headers.len() > limits.header_fields || bytes > limits.header_bytes {
        return Err(Problem::HEADERS_TOO_LARGE);
    }
    if !METHODS.contains(method) {
        return Err(not_allowed(HeaderValue::from_static(
            "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        )));
    }
    check_host(request.version(), uri, headers, &transport.hosts)
}

fn check_host(version: Version, uri: &http::Uri, headers: &HeaderMap, ours: &[String]) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map_err(|_| Problem::HOST)?,
        (None, _) if version == Version::HTTP_10 => return Ok(()),
        _ => return Err(Problem::HOST),
    };
    if ours.is_empty() {
        return Ok(());
    }
    let name = |authority: &str| -> Option<String> {
        let authority: http::uri::Authority = authority.parse().ok()?;
        Some(authority.host().to_ascii_lowercase())
    };
    let named = [Some(host), uri.authority().map(http::uri::Authority::as_str)];
    let known = named
        .into_iter()
        .flatten()
        .all(|host| name(host).is_some_and(|host| ours.contains(&host)));
    if known { Ok(()) } else { Err(Problem::MISDIRECTED) }
}

fn not_allowed(allow: HeaderValue) -> Problem {
    let mut problem = Problem::METHOD;
    problem.header = Some(Box::new((header::ALLOW, allow)));
    problem
}

/// Turns the framework's own refusals, which have no body or a bare text, into problems.
fn finish(response: Response) -> Response {
    let status = response.status();
    let bare = match response.headers().get(header::CONTENT_TYPE) {
        None => true,
        Some(media) => media.as_bytes().starts_with(b"text/plain"),
    };
    let ours = response.extensions().get::<Problem>().is_some();
    if ours || !bare || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    match status {
        StatusCode::NOT_FOUND => Problem::NOT_FOUND.into_response(),
        StatusCode::METHOD_NOT_ALLOWED => {
            // Where it is missing here, the router adds it further out.
            let allow = response.headers().get(header::ALLOW).cloned();
            allow.map_or(Problem::METHOD, not_allowed).into_response()
        }
        status if status.is_client_error() => Problem::QUERY.with_status(status).into_response(),
        _ => Problem::INTERNAL.into_response(),
    }
}
