//! The routes of the other tracking protocols: Snowplow, PostHog, CloudEvents, Matomo, and what RudderStack and Segment have
//! beyond their common messages. Dispatch is by path and never by media type; each answers in its protocol's own shape.

use super::body::{Encoding, discard, read};
use super::ingest::{budget, keep_body, may_write, out_of_books, receipt, refusals, take_segment};
use super::{Collector, Presented, Problem, cors, presented};
use crate::consent::proven;
use crate::intake::{Outcome, Taken};
use crate::keys::{Credential, KeyKind};
use crate::log::Log;
use crate::protocol::segment::{Call, Kind};
use crate::protocol::{BodyFault, Piece, cloudevents, matomo, posthog, rudderstack, snowplow};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use axum::{Json, Router};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use smol_str::SmolStr;
use std::sync::Arc;
use vigie_event::{Source, Timestamp};

/// A transparent picture of one pixel: GIF89a, 43 bytes.
pub(super) const PIXEL: &[u8; 43] = b"GIF89a\x01\x00\x01\x00\xf0\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x00\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

pub(super) fn pixel(status: StatusCode) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "image/gif"),
        (header::CACHE_CONTROL, "no-store, private"),
    ];
    (status, headers, PIXEL.as_slice()).into_response()
}

/// The picture again, whatever happened; only while nothing can be stored its status says so.
fn pixel_for(outcome: &Result<(), Problem>) -> Response {
    match outcome {
        Err(problem) if problem.retry_after.is_some() => {
            let mut response = pixel(problem.status);
            if let Some(after) = problem.clone().into_response().headers().get(header::RETRY_AFTER) {
                let _none = response.headers_mut().insert(header::RETRY_AFTER, after.clone());
            }
            response
        }
        _ => pixel(StatusCode::OK),
    }
}

pub(super) fn routes<L: Log>() -> Router<Collector<L>> {
    use MethodFilter as M;
    let mut router = Router::new();
    for path in ["/i", "/ice.png"] {
        let route = get(snowplow_get::<L>).on(M::OPTIONS, cors::preflight::<L>);
        router = router.route(path, route);
    }
    for path in ["/{vendor}/tp2", "/{vendor}/tp2/"] {
        let route = on(M::POST, snowplow_post::<L>)
            .on(M::GET, snowplow_get::<L>)
            .on(M::OPTIONS, cors::preflight::<L>);
        router = router.route(path, route);
    }
    for path in ["/e", "/i/v0/e", "/batch", "/capture", "/track", "/engage"] {
        let route = || {
            on(M::POST, posthog_events::<L>)
                .on(M::GET, posthog_events::<L>)
                .on(M::OPTIONS, cors::preflight::<L>)
        };
        router = router.route(path, route()).route(&format!("{path}/"), route());
    }
    // What its browser client asks for besides: no flags, no recording, no remote configuration.
    for path in ["/flags", "/flags/", "/decide", "/decide/", "/s", "/s/"] {
        let route = on(M::POST, posthog_nothing::<L>)
            .on(M::GET, posthog_nothing::<L>)
            .on(M::OPTIONS, cors::preflight::<L>);
        router = router.route(path, route);
    }
    for path in ["/array/{token}/config", "/array/{token}/config.js"] {
        router = router.route(path, get(posthog_nothing::<L>).on(M::OPTIONS, cors::preflight::<L>));
    }
    for path in ["/cloudevents", "/cloudevents/"] {
        let route = on(M::POST, cloud_events::<L>).on(M::OPTIONS, cloud_handshake::<L>);
        router = router.route(path, route);
    }
    for path in ["/matomo.php", "/piwik.php"] {
        let route = on(M::POST, matomo_actions::<L>)
            .on(M::GET, matomo_actions::<L>)
            .on(M::OPTIONS, cors::preflight::<L>);
        router = router.route(path, route);
    }
    for path in ["/beacon/v1/batch", "/v1/webhook", "/v1/merge"] {
        let route = on(M::POST, rudder_beacon::<L>).on(M::OPTIONS, cors::preflight::<L>);
        router = router.route(path, route);
    }
    for path in ["/sourceConfig", "/sourceConfig/"] {
        router = router.route(path, get(rudder_config::<L>).on(M::OPTIONS, cors::preflight::<L>));
    }
    router
        .route("/pixel/v1/{call}", get(rudder_pixel::<L>))
        .route("/v1/pixel/{call}", get(segment_pixel::<L>))
}

/// The value of a query parameter, decoded.
fn query(parts: &Parts, names: &[&str]) -> Option<SmolStr> {
    let query = parts.uri.query()?;
    let found = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| names.contains(&name.as_ref()));
    found
        .map(|(_, value)| SmolStr::new(value))
        .filter(|value| !value.is_empty())
}

/// The key of a request, where protocols put it: a header, the query, or what the caller found in the body.
fn credential<L>(
    collector: &Collector<L>,
    parts: &Parts,
    found: impl IntoIterator<Item = SmolStr>,
) -> Result<Arc<Credential>, Problem> {
    let ring = collector.keys.current();
    let mut any = false;
    let header = match presented(&parts.headers) {
        Some(Presented::Basic(key) | Presented::Bearer(key)) => Some(SmolStr::new(key)),
        None => None,
    };
    let in_query = query(parts, &["writeKey", "api_key", "token", "key"]);
    for key in header.into_iter().chain(in_query).chain(found) {
        any = true;
        if let Some(credential) = ring.find(&key) {
            may_write(&credential, &parts.headers)?;
            return Ok(credential);
        }
    }
    Err(if any { Problem::AUTH } else { Problem::AUTH_MISSING })
}

/// What became of the events of one request.
struct Summary {
    taken: usize,
    refused: usize,
}

/// Makes the pieces of a request durable. A single event that cannot be taken is answered by its own status where
/// `alone` asks for it; in a batch it is a dead letter.
async fn accept<L: Log>(
    collector: &Collector<L>,
    parts: &Parts,
    credential: &Credential,
    source: Source,
    sent_at: Option<Timestamp>,
    pieces: &[Piece],
) -> Result<Summary, Problem> {
    let lap = collector.metrics.stopwatch.start();
    budget(collector, credential, pieces.len())?;
    let mut receipt = receipt(collector, credential, &parts.headers);
    receipt.sent_at = sent_at;
    let taken: Vec<Taken> = pieces
        .iter()
        .enumerate()
        .map(|(ordinal, piece)| piece.take(ordinal, source, &receipt, &collector.limits))
        .collect();
    let taken = proven(taken, &collector.limits);
    let refused = refusals(collector, &taken).len();
    let alone = match taken.as_slice() {
        [Err(letter)] => Some(Problem::event(letter.code, letter.field.clone())),
        _ => None,
    };
    let summary = Summary {
        taken: taken.len() - refused,
        refused,
    };
    let taken = if alone.is_some() {
        taken.into_iter().map(out_of_books).collect()
    } else {
        taken
    };
    let _outcomes: Vec<Outcome> = collector.intake.accept(taken).await?;
    collector.metrics.events.acknowledged(lap.elapsed());
    alone.map_or(Ok(summary), Err)
}

/// Keeps an unreadable body of somebody we know, and answers it.
async fn unreadable<L: Log>(
    collector: &Collector<L>,
    parts: &Parts,
    fault: BodyFault,
    source: Source,
    bytes: &[u8],
) -> Problem {
    if let Ok(credential) = credential(collector, parts, None) {
        let receipt = receipt(collector, &credential, &parts.headers);
        if let Err(problem) = keep_body(collector, fault, &receipt, source, bytes).await {
            return problem;
        }
    }
    Problem::body(fault)
}

async fn whole<L>(collector: &Collector<L>, parts: &Parts, body: Body) -> Result<Bytes, Problem> {
    read(
        &parts.headers,
        body,
        Encoding::Sniffed,
        &collector.limits,
        &collector.transport,
    )
    .await
}

fn with_cors<L>(collector: &Collector<L>, request: &HeaderMap, mut response: Response) -> Response {
    let _known = cors::allow(&collector.keys, request, response.headers_mut());
    response
}

// Snowplow.

async fn snowplow_get<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let (parts, _body) = request.into_parts();
    let piece = snowplow::piece_of_query(parts.uri.query().unwrap_or_default());
    let taken = match credential(&collector, &parts, snowplow::application(&piece)) {
        Ok(credential) => accept(&collector, &parts, &credential, Source::Snowplow, None, &[piece])
            .await
            .map(|_| ()),
        Err(problem) => Err(problem),
    };
    with_cors(&collector, &parts.headers, pixel_for(&taken))
}

async fn snowplow_post<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let response = match snowplow_events(&collector, &parts, body).await {
        Ok(()) => "ok".into_response(),
        Err(problem) => problem.into_response(),
    };
    with_cors(&collector, &parts.headers, response)
}

async fn snowplow_events<L: Log>(collector: &Collector<L>, parts: &Parts, body: Body) -> Result<(), Problem> {
    let bytes = whole(collector, parts, body).await?;
    let pieces = match snowplow::pieces(&bytes, &collector.limits) {
        Ok(pieces) => pieces,
        Err(fault) => return Err(unreadable(collector, parts, fault, Source::Snowplow, &bytes).await),
    };
    let application = pieces.first().and_then(snowplow::application);
    let credential = credential(collector, parts, application)?;
    let _summary = accept(collector, parts, &credential, Source::Snowplow, None, &pieces).await?;
    Ok(())
}

// PostHog.

async fn posthog_events<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let response = match posthog_capture(&collector, &parts, body).await {
        Ok(()) => Json(json!({"status": "Ok"})).into_response(),
        // It knows 400 for what is too large, and splits a batch on 413.
        Err(problem) => problem.into_response(),
    };
    with_cors(&collector, &parts.headers, response)
}

async fn posthog_capture<L: Log>(collector: &Collector<L>, parts: &Parts, body: Body) -> Result<(), Problem> {
    let bytes = whole(collector, parts, body).await?;
    let limits = &collector.limits;
    let decoded = match query(parts, &["data"]) {
        Some(data) if bytes.is_empty() => posthog::decode(&data, limits),
        _ => posthog::unwrap(&bytes, limits).map(std::borrow::Cow::into_owned),
    };
    let capture = match decoded.and_then(|json| posthog::read_body(&json, limits)) {
        Ok(capture) => capture,
        Err(fault) => return Err(unreadable(collector, parts, fault, Source::PostHog, &bytes).await),
    };
    let credential = credential(collector, parts, capture.key)?;
    let _summary = accept(
        collector,
        parts,
        &credential,
        Source::PostHog,
        capture.sent_at,
        &capture.pieces,
    )
    .await?;
    Ok(())
}

async fn posthog_nothing<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // Read and forgotten, so that the connection can go on.
    let _problem = discard(&parts.headers, body, &collector.transport, Problem::NOT_FOUND).await;
    let path = parts.uri.path();
    let response = if path.ends_with(".js") {
        ([(header::CONTENT_TYPE, "application/javascript")], "").into_response()
    } else if path.starts_with("/s") {
        Json(json!({"status": "Ok"})).into_response()
    } else {
        Json(json!({
            "flags": {}, "featureFlags": {}, "featureFlagPayloads": {}, "errorsWhileComputingFlags": false,
            "supportedCompression": ["gzip", "gzip-js"], "sessionRecording": false, "surveys": false,
            "toolbarParams": {}, "isAuthenticated": false, "hasFeatureFlags": false,
        }))
        .into_response()
    };
    with_cors(&collector, &parts.headers, response)
}

// CloudEvents.

async fn cloud_events<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let response = match take_cloud_events(&collector, &parts, body).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(problem) => problem.into_response(),
    };
    with_cors(&collector, &parts.headers, response)
}

async fn take_cloud_events<L: Log>(collector: &Collector<L>, parts: &Parts, body: Body) -> Result<(), Problem> {
    let media = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let Some(mode) = cloudevents::mode(media.unwrap_or_default()) else {
        return Err(discard(&parts.headers, body, &collector.transport, Problem::FORMAT).await);
    };
    let bytes = whole(collector, parts, body).await?;
    let pieces = match cloudevents::pieces(mode, &parts.headers, &bytes, &collector.limits) {
        Ok(pieces) => pieces,
        Err(fault) => return Err(unreadable(collector, parts, fault, Source::CloudEvents, &bytes).await),
    };
    let credential = credential(collector, parts, pieces.first().and_then(cloudevents::write_key))?;
    let _summary = accept(collector, parts, &credential, Source::CloudEvents, None, &pieces).await?;
    Ok(())
}

/// The handshake of CloudEvents' web hooks, and the preflight of browsers.
async fn cloud_handshake<L: Log>(State(collector): State<Collector<L>>, headers: HeaderMap) -> Response {
    let Some(origin) = headers.get("webhook-request-origin").cloned() else {
        return cors::preflight(State(collector), headers).await;
    };
    let mut response = StatusCode::OK.into_response();
    let answer = response.headers_mut();
    let _none = answer.insert("webhook-allowed-origin", origin);
    let _none = answer.insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    response
}

// Matomo.

async fn matomo_actions<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let response = match whole(&collector, &parts, body).await {
        Err(problem) => problem.into_response(),
        Ok(bytes) if bytes.trim_ascii_start().starts_with(b"{") => {
            match matomo_bulk(&collector, &parts, &bytes).await {
                Ok(Summary { taken, refused }) => {
                    Json(json!({"status": "success", "tracked": taken, "invalid": refused})).into_response()
                }
                Err(problem) => problem.into_response(),
            }
        }
        Ok(bytes) => matomo_one(&collector, &parts, &bytes).await,
    };
    with_cors(&collector, &parts.headers, response)
}

async fn matomo_one<L: Log>(collector: &Collector<L>, parts: &Parts, body: &[u8]) -> Response {
    let in_query = parts.uri.query().unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let piece = matomo::piece_of_query(&[in_query, text.trim()].join("&"));
    let taken = match credential(collector, parts, matomo::keys(&piece)) {
        Ok(credential) => accept(
            collector,
            parts,
            &credential,
            Source::Matomo,
            None,
            std::slice::from_ref(&piece),
        )
        .await
        .map(|_| ()),
        Err(problem) => Err(problem),
    };
    match taken {
        Ok(()) if matomo::wants_nothing(&piece) => StatusCode::NO_CONTENT.into_response(),
        // Servers look at the status; a picture in a page shows whatever it gets.
        Err(problem) if parts.method == http::Method::POST => problem.into_response(),
        taken => pixel_for(&taken),
    }
}

async fn matomo_bulk<L: Log>(collector: &Collector<L>, parts: &Parts, bytes: &[u8]) -> Result<Summary, Problem> {
    let bulk = match matomo::read_bulk(bytes, &collector.limits) {
        Ok(bulk) => bulk,
        Err(fault) => return Err(unreadable(collector, parts, fault, Source::Matomo, bytes).await),
    };
    let first = bulk.pieces.first().map(matomo::keys).unwrap_or_default();
    let credential = credential(collector, parts, bulk.token.into_iter().chain(first))?;
    match accept(collector, parts, &credential, Source::Matomo, None, &bulk.pieces).await {
        // A bulk of one that cannot be taken is answered as a bulk.
        Err(problem) if problem.status == StatusCode::BAD_REQUEST => Ok(Summary { taken: 0, refused: 1 }),
        other => other,
    }
}

// RudderStack and Segment.

async fn rudder_beacon<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let call = match request.uri().path() {
        "/v1/merge" => Call::One(Kind::Alias),
        "/v1/webhook" => Call::One(Kind::Track),
        _ => Call::Batch,
    };
    let response = match take_segment(&collector, call, request).await {
        Ok(_) => "ok".into_response(),
        Err(problem) => problem.into_response(),
    };
    with_cors(&collector, &headers, response)
}

async fn rudder_config<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let (parts, _body) = request.into_parts();
    let key = match presented(&parts.headers) {
        Some(Presented::Basic(key) | Presented::Bearer(key)) => Some(SmolStr::new(key)),
        None => query(&parts, &["writeKey"]),
    };
    let known = key.and_then(|key| {
        let credential = collector
            .keys
            .current()
            .find(&key)
            .filter(|found| found.kind == KeyKind::Write);
        credential.map(|credential| rudderstack::source_config(&key, credential.workspace.as_str()))
    });
    let response = match known {
        Some(config) => Json(config).into_response(),
        None => Problem::AUTH.into_response(),
    };
    with_cors(&collector, &parts.headers, response)
}

/// `GET /pixel/v1/{track,page}?writeKey=…`
async fn rudder_pixel<L: Log>(
    State(collector): State<Collector<L>>,
    Path(call): Path<String>,
    request: Request,
) -> Response {
    let (mut parts, _body) = request.into_parts();
    let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let message = rudderstack::pixel_message(pairs);
    let taken = pixel_message(&collector, &mut parts, &call, message.into_bytes()).await;
    pixel_for(&taken)
}

/// `GET /v1/pixel/{track,page,identify,…}?data=<base64 JSON>`
async fn segment_pixel<L: Log>(
    State(collector): State<Collector<L>>,
    Path(call): Path<String>,
    request: Request,
) -> Response {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let (mut parts, _body) = request.into_parts();
    let data = query(&parts, &["data"]).unwrap_or_default().replace(' ', "+");
    let data = data.trim_end_matches('=');
    let message = STANDARD_NO_PAD.decode(data).or_else(|_| URL_SAFE_NO_PAD.decode(data));
    let taken = match message {
        Ok(message) => pixel_message(&collector, &mut parts, &call, message).await,
        Err(_) => Ok(()),
    };
    pixel_for(&taken)
}

async fn pixel_message<L: Log>(
    collector: &Collector<L>,
    parts: &mut Parts,
    call: &str,
    message: Vec<u8>,
) -> Result<(), Problem> {
    let kind = Kind::parse(call).ok_or(Problem::NOT_FOUND)?;
    let mut request = Request::new(Body::from(message));
    *request.headers_mut() = std::mem::take(&mut parts.headers);
    let _length = request.headers_mut().remove(header::CONTENT_LENGTH);
    *request.uri_mut() = parts.uri.clone();
    take_segment(collector, Call::One(kind), request).await.map(|_| ())
}
