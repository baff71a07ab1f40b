//! Our own tracker: the script that pages load, and the route that its beacons reach. A beacon can set no header, so its
//! key is in the query and its body, canonical events, comes as `text/plain`.

use super::body::{Encoding, discard, read};
use super::ingest::{budget, keep_body, may_write, out_of_books, receipt, refusals};
use super::{Collector, Problem, cors};
use crate::consent::proven;
use crate::intake::{Outcome, Taken};
use crate::log::Log;
use crate::protocol::canonical::{self, Reading};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use http::{HeaderMap, StatusCode, header};
use std::sync::LazyLock;
use vigie_event::{ConsentState, Event, Purpose, Source};

/// The script.
const SCRIPT: &str = include_str!("../tracker/t.js");

/// Names the script's version for caches.
static TAG: LazyLock<String> = LazyLock::new(|| format!("\"{}\"", crate::protocol::draft::hash(&[SCRIPT])));

pub(super) fn routes<L: Log>() -> Router<Collector<L>> {
    let beacon = on(MethodFilter::POST, beacon::<L>).on(MethodFilter::OPTIONS, cors::preflight::<L>);
    Router::new().route("/t.js", get(script)).route("/t", beacon)
}

/// `GET /t.js`: the same for everybody, kept for an hour and then asked for again.
async fn script(headers: HeaderMap) -> Response {
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag.as_bytes() == TAG.as_bytes());
    let about = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (
            header::CACHE_CONTROL,
            "public, max-age=3600, stale-while-revalidate=86400",
        ),
        (header::ETAG, TAG.as_str()),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, SCRIPT).into_response()
}

/// `POST /t?key=…`
async fn beacon<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let mut response = match take(&collector, request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => problem.into_response(),
    };
    let _known = cors::allow(&collector.keys, &headers, response.headers_mut());
    response
}

async fn take<L: Log>(collector: &Collector<L>, request: Request) -> Result<(), Problem> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let key = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "key");
    let judged = match key {
        None => Err(Problem::AUTH_MISSING),
        Some((_, key)) => collector.keys.current().find(&key).ok_or(Problem::AUTH),
    }
    .and_then(|credential| {
        may_write(&credential, &parts.headers)?;
        budget(collector, &credential, 0)?;
        Ok(credential)
    });
    let credential = match judged {
        Ok(credential) => credential,
        Err(problem) => return Err(discard(&parts.headers, body, &collector.transport, problem).await),
    };
    let bytes = read(
        &parts.headers,
        body,
        Encoding::Declared,
        &collector.limits,
        &collector.transport,
    )
    .await?;
    let lap = collector.metrics.stopwatch.start();
    let receipt = receipt(collector, &credential, &parts.headers);
    let objects = parts
        .headers
        .get("sec-gpc")
        .is_some_and(|value| value.as_bytes() == b"1");
    let (batch, alone) = match canonical::read_body(&bytes, &receipt, &collector.limits) {
        Ok(Reading::Single(taken)) => (vec![*taken], true),
        Ok(Reading::Batch(batch)) => (batch, false),
        Err(fault) => {
            keep_body(collector, fault, &receipt, Source::Tracker, &bytes).await?;
            return Err(Problem::body(fault));
        }
    };
    budget(collector, &credential, batch.len())?;
    let batch = proven(batch, &collector.limits);
    let _refused = refusals(collector, &batch);
    let problem = match batch.as_slice() {
        [Err(letter)] if alone => Some(Problem::event(letter.code, letter.field.clone())),
        _ => None,
    };
    let ours = batch.into_iter().map(|taken| match taken {
        Ok(event) => Ok(from_page(event, objects)),
        Err(letter) if problem.is_some() => out_of_books(Err(letter)),
        Err(mut letter) => {
            letter.source = Source::Tracker;
            Err(letter)
        }
    });
    let batch: Vec<Taken> = ours.collect();
    let _outcomes: Vec<Outcome> = collector.intake.accept(batch).await?;
    collector.metrics.events.acknowledged(lap.elapsed());
    problem.map_or(Ok(()), Err)
}

/// An event of a page. Global Privacy Control is an objection to profiling, unless the person said yes here and now.
fn from_page(mut event: Event, objects: bool) -> Event {
    event.source = Source::Tracker;
    if objects {
        let _word = event.consent.entry(Purpose::Profiling).or_insert(ConsentState::Refused);
    }
    event
}
