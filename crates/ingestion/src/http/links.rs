//! The routes of e-mail links: the open pixel, the click redirect, one-click unsubscription (RFC 8058), and the making of
//! links for a mail.
//!
//! A redirect leads where the signed token says and nowhere else. `GET` on an unsubscription changes nothing: scanners follow
//! every link of a mail. Pages hold no byte of a request but the escaped host of an expired link.

use super::body::{Encoding, read};
use super::ingest::receipt as request_receipt;
use super::tracking::{PIXEL, pixel};
use super::{Collector, Problem, authorize};
use crate::intake::{Outcome, Unavailable};
use crate::keys::KeyKind;
use crate::links::{Link, LinkError, MintError, Target};
use crate::log::Log;
use crate::protocol::draft::hash;
use crate::protocol::email_id;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on, post};
use axum::{Json, Router};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use smol_str::SmolStr;
use vigie_event::json::Receipt;
use vigie_event::{
    Client, ConsentContext, ConsentState, Event, EventId, PersonId, PersonIds, Purpose, Signal, Source, fingerprint,
};

pub(super) fn routes<L: Log>() -> Router<Collector<L>> {
    use MethodFilter as M;
    Router::new()
        .route("/o/{token}", get(open::<L>))
        .route("/c/{token}", get(click::<L>))
        .route("/u/{token}", on(M::GET, ask).on(M::POST, unsubscribe::<L>))
        .route("/v1/links", post(mint::<L>))
}

/// What holds for every answer here: not kept, not indexed, and the next site does not learn where one came from.
fn discreet(mut response: Response) -> Response {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store, private"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ] {
        let _old = response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><h1>{title}</h1>{body}"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
    ];
    discreet((status, headers, html).into_response())
}

fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\'' => "&#39;".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

/// Whether the request says of itself that nobody asked for it yet.
fn is_prefetch(headers: &HeaderMap) -> bool {
    ["purpose", "sec-purpose", "x-purpose", "x-moz"]
        .iter()
        .filter_map(|name| headers.get(*name)?.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("prefetch") || value.eq_ignore_ascii_case("preview"))
}

fn read_link<L>(collector: &Collector<L>, token: &str) -> Result<Link, LinkError> {
    let now = (collector.clock.0)();
    let links = collector.doors.links.as_ref().ok_or(LinkError::Forged)?;
    links.read(token, now)
}

/// Makes the act of a link durable.
async fn record<L: Log>(
    collector: &Collector<L>,
    headers: &HeaderMap,
    token: &str,
    link: Link,
    signal: Signal,
) -> Result<(), Unavailable> {
    let received_at = (collector.clock.0)();
    let unsubscribes = signal == Signal::EmailUnsubscribe;
    // Somebody unsubscribes once from a mail; opens and clicks are acts of their own.
    let moment = if unsubscribes {
        String::new()
    } else {
        received_at.0.to_string()
    };
    let id = format!("links:{}", hash(&[token, signal.name(), &moment]));
    let Ok(id) = EventId::new(&id) else { return Ok(()) };
    let (user, anonymous) = match link.person {
        known @ PersonId::Known(_) => (Some(known), None),
        anonymous @ PersonId::Anonymous(_) => (None, Some(anonymous)),
    };
    let url = match &link.target {
        Target::Click(to) => Some(SmolStr::new(to)),
        _ => None,
    };
    let mut consent = ConsentContext::new();
    if unsubscribes {
        let _none = consent.insert(Purpose::Marketing, ConsentState::Refused);
    }
    let payload = json!({
        "id": id.as_str(), "user_id": user.as_ref().map(PersonId::as_str),
        "anonymous_id": anonymous.as_ref().map(PersonId::as_str), "signal": signal.name(), "consent": consent,
        "properties": {"message_id": link.message, "campaign": link.campaign, "url": url},
    });
    let campaign = Some(link.campaign).filter(|campaign| !campaign.is_empty());
    let user_agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let event = Event {
        workspace: link.workspace,
        person: PersonIds {
            user,
            anonymous,
            previous: None,
        },
        signal,
        name: campaign,
        channel: signal.default_channel(),
        source: Source::Links,
        occurred_at: None,
        sent_at: None,
        received_at,
        money: None,
        order: None,
        consent,
        client: Client {
            user_agent: user_agent.map(SmolStr::new),
            page_url: url,
            referrer: None,
        },
        fingerprint: fingerprint([id.as_str().as_bytes()]),
        payload: payload.to_string().into(),
        id,
    };
    let _outcomes: Vec<Outcome> = collector.intake.accept(vec![Ok(event)]).await?;
    Ok(())
}

/// `GET /o/{token}.gif`: the same picture, whatever the token is.
async fn open<L: Log>(
    State(collector): State<Collector<L>>,
    method: Method,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Response {
    let token = token.strip_suffix(".gif").unwrap_or(&token);
    let link = read_link(&collector, token)
        .ok()
        .filter(|link| link.target == Target::Open);
    if let Some(link) = link.filter(|_| method == Method::GET) {
        let signal = if is_prefetch(&headers) {
            Signal::EmailMachineOpen
        } else {
            Signal::EmailOpen
        };
        if let Err(unavailable) = record(&collector, &headers, token, link, signal).await {
            return drawn(&Problem::from(unavailable));
        }
    }
    discreet(pixel(StatusCode::OK))
}

/// The picture, with the status of a problem: clients draw it, and we claim nothing.
fn drawn(problem: &Problem) -> Response {
    let mut response = problem.clone().into_response();
    let _problem = response.extensions_mut().remove::<Problem>();
    *response.body_mut() = axum::body::Body::from(PIXEL.as_slice());
    let headers = response.headers_mut();
    let _old = headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    let _old = headers.insert(header::CONTENT_LENGTH, HeaderValue::from(PIXEL.len()));
    discreet(response)
}

/// `GET /c/{token}`
async fn click<L: Log>(
    State(collector): State<Collector<L>>,
    method: Method,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Response {
    let link = match read_link(&collector, &token) {
        Ok(link) => link,
        Err(LinkError::Expired(link)) => {
            let Target::Click(to) = &link.target else {
                return unknown();
            };
            let host = url::Url::parse(to)
                .ok()
                .and_then(|url| url.host_str().map(escaped))
                .unwrap_or_default();
            let body = format!("<p>This link is too old to be followed. It led to <b>{host}</b>.</p>");
            return page(StatusCode::GONE, "This link has expired", &body);
        }
        Err(LinkError::Forged) => return unknown(),
    };
    let Target::Click(to) = link.target.clone() else {
        return unknown();
    };
    let Ok(location) = HeaderValue::from_str(&to) else {
        return unknown();
    };
    // Scanners ask with HEAD where a link leads; that is no click.
    if method == Method::GET {
        let signal = if is_prefetch(&headers) {
            Signal::EmailMachineClick
        } else {
            Signal::EmailClick
        };
        // Somebody waits for the page: they get there, and we lack a click.
        if record(&collector, &headers, &token, link, signal).await.is_err() {
            tracing::warn!("a click could not be recorded; the person was led on");
        }
    }
    let mut response = StatusCode::FOUND.into_response();
    let _old = response.headers_mut().insert(header::LOCATION, location);
    discreet(response)
}

fn unknown() -> Response {
    page(
        StatusCode::NOT_FOUND,
        "This link is not valid",
        "<p>It may have been cut. Nothing happened.</p>",
    )
}

/// `GET /u/{token}`: asks, and changes nothing. The same for every token.
async fn ask() -> Response {
    let form = "<form method=\"post\"><input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\"><button>Unsubscribe</button></form>";
    page(StatusCode::OK, "Unsubscribe from these e-mails?", form)
}

/// `POST /u/{token}` with `List-Unsubscribe=One-Click`, as form or multipart. The answer says nothing about the token.
async fn unsubscribe<L: Log>(
    State(collector): State<Collector<L>>,
    Path(token): Path<String>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = match read(
        &parts.headers,
        body,
        Encoding::Declared,
        &collector.limits,
        &collector.transport,
    )
    .await
    {
        Ok(bytes) => bytes,
        Err(problem) => return problem.into_response(),
    };
    if !is_one_click(&parts.headers, &bytes) {
        return ask().await;
    }
    let link = match read_link(&collector, &token) {
        // A mail may be old; who wants no more of them is heard all the same.
        Ok(link) => Some(link),
        Err(LinkError::Expired(link)) => Some(*link),
        Err(LinkError::Forged) => None,
    };
    if let Some(link) = link.filter(|link| link.target == Target::Unsubscribe)
        && let Err(unavailable) = record(&collector, &parts.headers, &token, link, Signal::EmailUnsubscribe).await
    {
        return Problem::from(unavailable).into_response();
    }
    page(
        StatusCode::OK,
        "You are unsubscribed",
        "<p>No more of these e-mails will be sent to you.</p>",
    )
}

fn is_one_click(headers: &HeaderMap, body: &[u8]) -> bool {
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if media.to_ascii_lowercase().starts_with("multipart/form-data") {
        let text = String::from_utf8_lossy(body);
        let mut parts = text.split("name=\"List-Unsubscribe\"").skip(1);
        return parts.any(|part| part.trim_start().starts_with("One-Click"));
    }
    form_urlencoded::parse(body).any(|(name, value)| name == "List-Unsubscribe" && value == "One-Click")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    user_id: Option<String>,
    anonymous_id: Option<String>,
    email: Option<String>,
    message_id: String,
    #[serde(default)]
    campaign: String,
    #[serde(default)]
    clicks: Vec<String>,
    /// Whether the person agreed to individual open tracking; without it no pixel is made.
    #[serde(default)]
    open: bool,
}

#[derive(Serialize)]
struct Minted {
    clicks: Vec<String>,
    open: Option<String>,
    unsubscribe: String,
    headers: serde_json::Value,
}

/// `POST /v1/links`: the links of one mail to one person.
async fn mint<L: Log>(State(collector): State<Collector<L>>, request: Request) -> Response {
    match mint_links(&collector, request).await {
        Ok(minted) => Json(minted).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn mint_links<L: Log>(collector: &Collector<L>, request: Request) -> Result<Minted, Problem> {
    let (parts, body) = request.into_parts();
    let credential = authorize(&collector.keys, &parts.headers, KeyKind::Write)?;
    // Keys of pages are public: with one, anybody could make links that look like ours.
    if !credential.origins.is_empty() || parts.headers.contains_key(header::ORIGIN) {
        return Err(Problem::KEY_SCOPE);
    }
    let links = collector.doors.links.as_ref().ok_or(Problem::NOT_FOUND)?;
    let bytes = read(
        &parts.headers,
        body,
        Encoding::Declared,
        &collector.limits,
        &collector.transport,
    )
    .await?;
    let wanted: Wanted = serde_json::from_slice(&bytes).map_err(|_| Problem::LINK)?;
    let person = match (&wanted.user_id, &wanted.anonymous_id, &wanted.email) {
        (Some(user), None, None) => PersonId::known(user),
        (None, Some(anonymous), None) => PersonId::anonymous(anonymous),
        (None, None, Some(email)) => PersonId::anonymous(&email_id(email)),
        _ => return Err(Problem::LINK),
    }
    .map_err(|_| Problem::LINK)?;
    let Receipt {
        workspace, received_at, ..
    } = request_receipt(collector, &credential, &parts.headers);
    let make = |target| {
        let made = links.mint(
            &workspace,
            &person,
            &wanted.message_id,
            &wanted.campaign,
            target,
            received_at,
        );
        made.map_err(|error| match error {
            MintError::Url | MintError::Host => Problem::URL,
            MintError::Address | MintError::Name => Problem::LINK,
        })
    };
    let clicks = wanted.clicks.iter().map(|to| make(Target::Click(to.clone())));
    let clicks = clicks.collect::<Result<Vec<_>, _>>()?;
    let open = if wanted.open { Some(make(Target::Open)?) } else { None };
    let unsubscribe = make(Target::Unsubscribe)?;
    let headers = json!({
        "List-Unsubscribe": format!("<{unsubscribe}>"),
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    });
    Ok(Minted {
        clicks,
        open,
        unsubscribe,
        headers,
    })
}
