//! The routes that take events: who sends, how much, in which protocol; then the intake; then the answer. They never
//! look into an event.

use super::body::{Encoding, discard, read};
use super::{Collector, Presented, Problem, cors, presented};
use crate::consent::proven;
use crate::dead_letters::Letter;
use crate::intake::{Outcome, Taken};
use crate::keys::{Credential, KeyKind, Scope};
use crate::log::Log;
use crate::protocol::canonical::{self, Reading};
use crate::protocol::segment::{self, Call};
use crate::protocol::{BodyFault, Origin, rudderstack};
use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Serialize;
use smol_str::SmolStr;
use vigie_event::json::{Invalid, Receipt};
use vigie_event::{RejectCode, Source};

/// One refused event of a batch.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    i: usize,
    code: &'static str,
    field: SmolStr,
    message: &'static str,
}

/// The answer to a batch.
#[derive(Debug, Serialize)]
pub(super) struct Accepted {
    pub(super) accepted: usize,
    pub(super) rejected: Vec<Refusal>,
}

/// `POST /v1/events`
pub(super) async fn events<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let mut response = match take_events(&collector, request).await {
        Ok(accepted) => Json(accepted).into_response(),
        Err(problem) => problem.into_response(),
    };
    let _known = cors::allow(&collector.keys, &headers, response.headers_mut());
    response
}

async fn take_events<L: Log>(collector: &Collector<L>, request: Request) -> Result<Accepted, Problem> {
    let (parts, body) = request.into_parts();
    let judged = super::authorize(&collector.keys, &parts.headers, KeyKind::Write).and_then(|credential| {
        cors::check(&credential, &parts.headers)?;
        media_type(&parts.headers)?;
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
    let accepted = match canonical::read_body(&bytes, &receipt, &collector.limits) {
        Err(fault) => {
            keep_body(collector, fault, &receipt, Source::Canonical, &bytes).await?;
            return Err(Problem::body(fault));
        }
        Ok(Reading::Single(taken)) => {
            let Some(taken) = proven(vec![*taken], &collector.limits).pop() else {
                return Err(Problem::body(BodyFault::Shape));
            };
            let problem = taken
                .as_ref()
                .err()
                .map(|letter| Problem::event(letter.code, letter.field.clone()));
            budget(collector, &credential, 1)?;
            // A single event is answered by its own status, so a refused one is in no book.
            let _outcome: Vec<Outcome> = collector.intake.accept(vec![out_of_books(taken)]).await?;
            match problem {
                Some(problem) => return Err(problem),
                None => Accepted {
                    accepted: 1,
                    rejected: Vec::new(),
                },
            }
        }
        Ok(Reading::Batch(batch)) => {
            let batch = proven(batch, &collector.limits);
            budget(collector, &credential, batch.len())?;
            let rejected = refusals(collector, &batch);
            let accepted = batch.len() - rejected.len();
            let _outcomes: Vec<Outcome> = collector.intake.accept(batch).await?;
            Accepted { accepted, rejected }
        }
    };
    collector.metrics.events.acknowledged(lap.elapsed());
    Ok(accepted)
}

pub(super) fn refusals<L>(collector: &Collector<L>, batch: &[Taken]) -> Vec<Refusal> {
    let refused = batch
        .iter()
        .enumerate()
        .filter_map(|(i, taken)| taken.as_ref().err().map(|letter| (i, letter)));
    refused
        .map(|(i, letter)| {
            collector.metrics.events.rejected(letter.code.label(), 1);
            Refusal {
                i,
                code: letter.code.label(),
                field: letter.field.clone(),
                message: letter.code.hint(),
            }
        })
        .collect()
}

/// `POST /v1/track` and its like.
pub(super) async fn segment<L: Log>(call: Call, State(collector): State<Collector<L>>, request: Request) -> Response {
    #[derive(Serialize)]
    struct Success {
        success: bool,
    }
    let headers = request.headers().clone();
    let mut response = match take_segment(&collector, call, request).await {
        Ok(Source::RudderStack) => "ok".into_response(),
        Ok(_) => Json(Success { success: true }).into_response(),
        Err(problem) => problem.into_response(),
    };
    let _known = cors::allow(&collector.keys, &headers, response.headers_mut());
    response
}

pub(super) async fn take_segment<L: Log>(
    collector: &Collector<L>,
    call: Call,
    request: Request,
) -> Result<Source, Problem> {
    let (parts, body) = request.into_parts();
    let ring = collector.keys.current();
    let by_header = presented(&parts.headers);
    // A key outside the body is judged before the body is read.
    let judged = match &by_header {
        Some(presented) => match (ring.find(presented.key()), presented) {
            (Some(credential), _) => Ok(Some(credential)),
            // An OAuth token is not ours to judge; the key is in the body then.
            (None, Presented::Bearer(_)) => Ok(None),
            (None, Presented::Basic(_)) => Err(Problem::AUTH),
        },
        None => match query_key(&parts.uri) {
            Some(key) => ring.find(&key).ok_or(Problem::AUTH).map(Some),
            None => Ok(None),
        },
    };
    let judged = judged.and_then(|credential| match credential {
        Some(credential) => may_write(&credential, &parts.headers)
            .and_then(|()| budget(collector, &credential, 0))
            .map(|()| Some(credential)),
        None => Ok(None),
    });
    let early = match judged {
        Ok(early) => early,
        Err(problem) => return Err(discard(&parts.headers, body, &collector.transport, problem).await),
    };
    let bytes = read(
        &parts.headers,
        body,
        Encoding::Sniffed,
        &collector.limits,
        &collector.transport,
    )
    .await
    .map_err(for_segment)?;
    let lap = collector.metrics.stopwatch.start();
    let parsed = segment::parse(&bytes, call, &collector.limits);
    let credential = match early {
        Some(credential) => credential,
        None => {
            let key = parsed.as_ref().ok().and_then(segment::Parsed::write_key);
            let missing = if by_header.is_some() {
                Problem::AUTH
            } else {
                Problem::AUTH_MISSING
            };
            match (key, &parsed) {
                (Some(key), _) => ring.find(&key).ok_or(Problem::AUTH)?,
                // Nobody's garbage: it is answered, and not kept.
                (None, Err(fault)) => return Err(for_segment(Problem::body(*fault))),
                (None, Ok(_)) => return Err(missing),
            }
        }
    };
    may_write(&credential, &parts.headers)?;
    let receipt = receipt(collector, &credential, &parts.headers);
    let source = if rudderstack::is_client(&parts.headers, &bytes) {
        Source::RudderStack
    } else {
        Source::Segment
    };
    let batch = match parsed.and_then(|parsed| parsed.read(source, &receipt, &collector.limits)) {
        Ok(batch) => batch,
        Err(fault) => {
            keep_body(collector, fault, &receipt, source, &bytes).await?;
            return Err(for_segment(Problem::body(fault)));
        }
    };
    budget(collector, &credential, batch.len())?;
    let batch = proven(batch, &collector.limits);
    let _refused: Vec<Refusal> = refusals(collector, &batch);
    // Segment says 400 to a message that is too large; in a batch it is set aside like any other that is refused.
    let alone = matches!(call, Call::One(_));
    let too_large = alone && matches!(batch.as_slice(), [Err(letter)] if letter.code == RejectCode::EventTooLarge);
    let batch = if too_large {
        batch.into_iter().map(out_of_books).collect()
    } else {
        batch
    };
    let _outcomes: Vec<Outcome> = collector.intake.accept(batch).await?;
    collector.metrics.events.acknowledged(lap.elapsed());
    if too_large {
        Err(Problem::event(RejectCode::EventTooLarge, "event".into()))
    } else {
        Ok(source)
    }
}

/// What is answered 4xx is not accepted, so its letter counts in no book.
pub(super) fn out_of_books(taken: Taken) -> Taken {
    taken.map_err(|letter| {
        Box::new(Letter {
            accepted: false,
            ..*letter
        })
    })
}

/// Segment's clients know 400 for everything that must not be repeated.
fn for_segment(problem: Problem) -> Problem {
    match problem.status {
        StatusCode::PAYLOAD_TOO_LARGE => problem.with_status(StatusCode::BAD_REQUEST),
        _ => problem,
    }
}

/// Takes what a request needs of the budgets of its key and workspace; with no events it only looks.
pub(super) fn budget<L>(collector: &Collector<L>, credential: &Credential, events: usize) -> Result<(), Problem> {
    let taken = collector.doors.rates.take(credential, events, (collector.clock.0)());
    taken.map_err(Problem::from)
}

pub(super) fn may_write(credential: &Credential, headers: &HeaderMap) -> Result<(), Problem> {
    if credential.kind != KeyKind::Write {
        return Err(Problem::KEY_SCOPE);
    }
    cors::check(credential, headers)
}

fn query_key(uri: &Uri) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    // Keys consist of characters that no client needs to escape.
    pairs
        .into_iter()
        .find(|(name, _)| *name == "writeKey")
        .map(|(_, key)| key.to_owned())
}

/// `HEAD` on the routes of clients that probe before they send.
pub(super) async fn nothing() -> StatusCode {
    StatusCode::OK
}

/// `GET /v1/projects/{write_key}/settings`: what the browser client loads first. It tells the client to send to the
/// host that it loaded this from, encrypted unless the page itself came in clear text (a developer's machine).
pub(super) async fn settings<L: Log>(
    State(collector): State<Collector<L>>,
    Path(write_key): Path<String>,
    headers: HeaderMap,
) -> Response {
    let known = collector
        .keys
        .current()
        .find(&write_key)
        .is_some_and(|credential| credential.kind == KeyKind::Write);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let mut response = match host {
        Some(host) if known => Json(serde_json::json!({
            "integrations": {"Segment.io": {
                "apiKey": write_key, "apiHost": format!("{host}/v1"), "protocol": page_scheme(&headers),
            }},
            "plan": {}, "edgeFunction": {}, "middlewareSettings": {}, "enabledMiddleware": {}, "remotePlugins": [],
        }))
        .into_response(),
        _ => Problem::NOT_FOUND.into_response(),
    };
    let _known = cors::allow(&collector.keys, &headers, response.headers_mut());
    response
}

/// How the page that sends a request was loaded.
fn page_scheme(headers: &HeaderMap) -> &'static str {
    let from = headers.get(header::ORIGIN).or_else(|| headers.get(header::REFERER));
    let clear = from.is_some_and(|page| page.as_bytes().starts_with(b"http://"));
    if clear { "http" } else { "https" }
}

/// What is known of every event of a request. The `User-Agent` is the person's only if a page sent the request: that
/// of a server names the merchant's HTTP library, and would make every customer look like a machine.
pub(super) fn receipt<L>(collector: &Collector<L>, credential: &Credential, headers: &HeaderMap) -> Receipt {
    let received_at = (collector.clock.0)();
    let from_page = headers.contains_key(header::ORIGIN);
    let user_agent = headers
        .get(header::USER_AGENT)
        .filter(|_| from_page)
        .and_then(|agent| agent.to_str().ok());
    let max_age = i64::try_from(collector.limits.max_age.as_millis()).unwrap_or(i64::MAX);
    Receipt {
        workspace: credential.workspace.clone(),
        received_at,
        sent_at: None,
        user_agent: user_agent.map(SmolStr::new),
        oldest: (!credential.has(Scope::History)).then(|| received_at.plus_ms(-max_age)),
    }
}

/// `application/json`, in UTF-8.
fn media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .ok_or(Problem::MEDIA_TYPE)?;
    let mut parts = value.split(';').map(str::trim);
    let json = parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, charset)) if name.eq_ignore_ascii_case("charset") => {
            charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    if json && utf8 { Ok(()) } else { Err(Problem::MEDIA_TYPE) }
}

/// Keeps a body that is no JSON, so that the client's owner can see what it sends. It is in no book.
pub(super) async fn keep_body<L: Log>(
    collector: &Collector<L>,
    fault: BodyFault,
    receipt: &Receipt,
    source: Source,
    bytes: &[u8],
) -> Result<(), Problem> {
    let Some(code) = fault.kept_as() else { return Ok(()) };
    let origin = Origin {
        receipt,
        source,
        kind: "",
        context: "",
    };
    let letter = origin.letter(&Invalid::new(code, "body"), 0, bytes, &collector.limits);
    let _outcomes: Vec<Outcome> = collector.intake.accept(vec![out_of_books(Err(letter))]).await?;
    Ok(())
}
