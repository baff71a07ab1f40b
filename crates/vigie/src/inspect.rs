//! `GET /inspect`: what became of the last events of a workspace, for whoever connects a source to vigie. Each accepted event
//! comes with what enrichment found out about it, each refused one with the exact reason and its bytes;
//! `/inspect/{partition}/{offset}` adds how one event moved the customer's scores.
//!
//! It is a reader like any other: accepted events come from the archive and its tail through SQL, refused ones from the
//! journal of dead letters, score changes from the customer's history. Everything on the page that came from outside is
//! escaped, and the page runs no script and loads nothing but the console's own style sheet. It changes nothing.

use crate::answers::{Door, problem};
use crate::backends::AnyStore;
use crate::html::escape;
use crate::past::Service;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;
use vigie_enrichment::Judge;
use vigie_event::{DAY_MS, PersonId, RejectCode, Signal, Suppression, TimeVerdict, Timestamp, Workspace};
use vigie_ingestion::dead_letters::Stored;
use vigie_ingestion::keys::Keys;
use vigie_serve::{Past, PastError, Period, Question};

/// What the routes add to the OpenAPI document.
pub(crate) const OPENAPI: &str = include_str!("inspect.json");
/// Events shown unless another number is asked for, and at most.
const SHOWN: usize = 50;
const MOST: usize = 500;
/// How far back accepted events are looked for.
const LOOKED_BACK_MS: i64 = DAY_MS;
/// Characters of a payload on the page; JSON has all of it.
const PAYLOAD: usize = 4_000;
/// Columns of the table `events` that are told.
const COLUMNS: &str = "log_partition, log_offset, received_at, customer, user_id, anonymous_id, event_id, signal, name, \
    channel, source, decision, reason, at, time_verdict, human_permille, session, session_start, amount, currency, \
    order_id, user_agent, page_url, payload";

/// The routes, for admin keys.
pub(crate) fn routes(past: Service<AnyStore>, keys: Arc<Keys>) -> Router {
    Router::new()
        .route("/inspect", get(list))
        .route("/inspect/{partition}/{offset}", get(one))
        .with_state((past, keys))
}

type Shared = (Service<AnyStore>, Arc<Keys>);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// `json`; a page otherwise.
    output: Option<String>,
    limit: Option<usize>,
    /// Seconds after which the page asks again.
    refresh: Option<u16>,
}

impl Wanted {
    fn json(&self) -> bool {
        self.output.as_deref() == Some("json")
    }

    fn checked(self) -> Option<Self> {
        let known = matches!(self.output.as_deref(), None | Some("json" | "html"));
        let limit = self.limit.is_none_or(|limit| (1..=MOST).contains(&limit));
        let refresh = self.refresh.is_none_or(|seconds| (1..=3600).contains(&seconds));
        (known && limit && refresh).then_some(self)
    }
}

type Asked = Result<Query<Wanted>, axum::extract::rejection::QueryRejection>;

/// The workspace of the request's admin key and what is asked. A browser sends the key as the
/// password that it asks its user for.
fn allowed(keys: &Keys, headers: &HeaderMap, asked: Asked) -> Result<(Workspace, Wanted), Box<Response>> {
    let door = Door {
        browsers: true,
        ..Door::admin("inspections")
    };
    let workspace = door.enter(keys, headers)?;
    let wanted = asked.ok().and_then(|Query(wanted)| wanted.checked());
    let wanted = wanted.ok_or_else(|| {
        let detail =
            format!("the parameters are output=json, limit from 1 to {MOST}, and refresh from 1 to 3600 seconds");
        Box::new(problem(StatusCode::BAD_REQUEST, "bad_query", &detail))
    })?;
    Ok((workspace, wanted))
}

fn unanswered(error: PastError) -> Response {
    match error {
        PastError::TooCostly(text) | PastError::Question(text) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, "too_costly", &text)
        }
        PastError::UnknownCustomer => problem(StatusCode::NOT_FOUND, "not_found", "no such event in the last day"),
        PastError::Unavailable(text) => problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &text),
    }
}

async fn list(State((past, keys)): State<Shared>, headers: HeaderMap, asked: Asked) -> Response {
    let (workspace, wanted) = match allowed(&keys, &headers, asked) {
        Ok(allowed) => allowed,
        Err(refused) => return *refused,
    };
    let (now, limit) = ((past.clock)(), wanted.limit.unwrap_or(SHOWN));
    let since = now.plus_ms(-LOOKED_BACK_MS);
    let condition =
        format!("received_at >= TIMESTAMP '{since}' ORDER BY received_at DESC, log_offset DESC LIMIT {limit}");
    let events = match accepted(&past, &workspace, &condition).await {
        Ok(events) => events,
        Err(error) => return unanswered(error),
    };
    let refused = match past.letters.list(&workspace, None, limit).await {
        Ok(page) => page.letters.iter().map(told_letter).collect::<Vec<_>>(),
        Err(error) => return unanswered(PastError::Unavailable(error.to_string())),
    };
    if wanted.json() {
        let answer = json!({
            "workspace": workspace.as_str(), "as_of": now.to_string(), "events": events, "refused": refused,
        });
        return no_store(axum::Json(answer).into_response());
    }
    let mut body = format!(
        "<h1>Last events of {}</h1><p class=\"soft\">As of {now}. Accepted events of the last day, newest first; \
         <a href=\"?refresh=5\">look again every 5 seconds</a> · <a href=\"?output=json\">JSON</a></p>",
        escape(workspace.as_str())
    );
    body += "<section><h2>Accepted</h2>";
    body += &table(
        &["Received", "Customer", "Event", "What became of it", "Evidence"],
        &events,
        event_row,
    );
    body += "</section><section><h2>Refused</h2>";
    body += &table(
        &["Received", "Reason", "What to do", "Where", "As received"],
        &refused,
        letter_row,
    );
    body += "</section>";
    page(&body, wanted.refresh)
}

async fn one(
    State((past, keys)): State<Shared>,
    Path((partition, offset)): Path<(u16, u64)>,
    headers: HeaderMap,
    asked: Asked,
) -> Response {
    let (workspace, wanted) = match allowed(&keys, &headers, asked) {
        Ok(allowed) => allowed,
        Err(refused) => return *refused,
    };
    match explained(&past, &workspace, partition, offset).await {
        Ok(told) if wanted.json() => no_store(axum::Json(told).into_response()),
        Ok(told) => page(&scores(&told), wanted.refresh),
        Err(error) => unanswered(error),
    }
}

/// Accepted events with the evidence for what became of them.
async fn accepted(past: &Service<AnyStore>, workspace: &Workspace, condition: &str) -> Result<Vec<Value>, PastError> {
    let question = Question {
        sql: format!("SELECT {COLUMNS} FROM events WHERE {condition}"),
        format: Some("json".to_owned()),
        limit: None,
    };
    let answer = past.query(workspace.clone(), question).await?;
    let unreadable = |error: serde_json::Error| PastError::Unavailable(error.to_string());
    let mut events: Vec<Value> = serde_json::from_slice(&answer.body).map_err(unreadable)?;
    let mut judge = Judge::new().map_err(|error| PastError::Unavailable(error.to_string()))?;
    for event in &mut events {
        let signal = Signal::parse(text(event, "signal")).unwrap_or(Signal::Custom);
        let agent = judge.agent(signal, event.get("user_agent").and_then(Value::as_str));
        let hint = hint(event);
        if let Value::Object(fields) = event {
            let _none = fields.insert("indicators".to_owned(), json!(agent.indicators));
            let _none = fields.insert("agent_family".to_owned(), json!(agent.family));
            let _none = fields.insert("hint".to_owned(), json!(hint));
            let payload = fields.remove("payload");
            let payload = payload.as_ref().and_then(Value::as_str).unwrap_or_default();
            let payload = serde_json::from_str(payload).unwrap_or_else(|_| json!(payload));
            let _none = fields.insert("payload".to_owned(), payload);
        }
    }
    Ok(events)
}

/// What the decision means, in a sentence.
fn hint(event: &Value) -> Option<&'static str> {
    let reason = text(event, "reason");
    let refused = RejectCode::ALL
        .iter()
        .find(|code| code.label() == reason)
        .map(|code| code.hint());
    let suppressed = || {
        Suppression::ALL
            .iter()
            .find(|code| code.label() == reason)
            .map(|code| code.hint())
    };
    refused.or_else(suppressed).or(match (text(event, "decision"), reason) {
        ("duplicate", _) => Some("the same event was taken before; it counts once"),
        (_, "id_conflict") => Some("the id was used before for other content; both are kept"),
        _ => None,
    })
}

/// One event and how the customer's scores stood before and after it.
async fn explained(
    past: &Service<AnyStore>,
    workspace: &Workspace,
    partition: u16,
    offset: u64,
) -> Result<Value, PastError> {
    let condition = format!("log_partition = {partition} AND log_offset = {offset}");
    let event = accepted(past, workspace, &condition).await?.into_iter().next();
    let event = event.ok_or(PastError::UnknownCustomer)?;
    let customer = text(&event, "customer");
    let person = match customer.strip_prefix("anonymous:") {
        Some(id) => PersonId::anonymous(id),
        None => PersonId::known(customer),
    };
    let person = person.map_err(|error| PastError::Unavailable(error.to_string()))?;
    let period = Period {
        from: Timestamp::parse(text(&event, "received_at")).ok(),
        to: None,
    };
    let history = past.history(workspace.clone(), person, period).await?;
    let place = format!("{partition}@{offset}");
    let steps = history
        .get("steps")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let step = steps.into_iter().find(|step| text(step, "position") == place);
    let (before, after) = step.map_or((Value::Null, Value::Null), |mut step| {
        let mut take = |name: &str| step.get_mut(name).map_or(Value::Null, Value::take);
        (take("before"), take("after"))
    });
    Ok(json!({"event": event, "scores_before": before, "scores_after": after}))
}

fn told_letter(stored: &Stored) -> Value {
    let letter = &stored.letter;
    json!({
        "id": stored.id.to_string(), "received_at": letter.received_at.to_string(), "code": letter.code.label(),
        "hint": letter.code.hint(), "field": letter.field.as_str(), "source": letter.source.name(),
        "step": letter.step.label(), "retried": stored.retried, "cut": letter.cut,
        "raw": String::from_utf8_lossy(&letter.raw),
    })
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn shown(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => escape(text),
        Some(other) => escape(&other.to_string()),
    }
}

fn table(heads: &[&str], rows: &[Value], row: fn(&Value) -> String) -> String {
    if rows.is_empty() {
        return "<p class=\"soft\">None.</p>".to_owned();
    }
    let mut out = String::from("<table><thead><tr>");
    for head in heads {
        let _ = write!(out, "<th>{head}</th>");
    }
    out += "</tr></thead><tbody>";
    out.extend(rows.iter().map(row));
    out + "</tbody></table>"
}

/// A payload, folded away.
fn folded(text: &str) -> String {
    let cut = text.get(..text.floor_char_boundary(PAYLOAD)).unwrap_or(text);
    let more = if cut.len() < text.len() { "\n…" } else { "" };
    format!(
        "<details><summary>{} bytes</summary><pre>{}{more}</pre></details>",
        text.len(),
        escape(cut)
    )
}

fn event_row(event: &Value) -> String {
    let place = format!("{}/{}", shown(event, "log_partition"), shown(event, "log_offset"));
    let name = Some(shown(event, "name")).filter(|name| !name.is_empty() && *name != shown(event, "signal"));
    let money = Some(shown(event, "amount")).filter(|amount| !amount.is_empty());
    let decision = text(event, "decision");
    let class = if decision == "applied" {
        "stage"
    } else {
        "stage slowing"
    };
    let mut became = format!("<span class=\"{class}\">{}</span>", escape(decision));
    if let Some(hint) = event.get("hint").and_then(Value::as_str) {
        let _ = write!(became, "<br><span class=\"soft\">{}</span>", escape(hint));
    }
    if decision == "applied" {
        let _ = write!(became, "<br><a href=\"/inspect/{place}\">scores before and after</a>");
    }
    let verdict = TimeVerdict::ALL
        .iter()
        .find(|known| known.label() == text(event, "time_verdict"));
    let mut evidence = Vec::new();
    if let Some(verdict) = verdict {
        evidence.push(format!("at {}: {}", shown(event, "at"), verdict.hint()));
    }
    if let Some(human) = event.get("human_permille").and_then(Value::as_u64) {
        let indicators = event
            .get("indicators")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let why: Vec<&str> = indicators.iter().filter_map(Value::as_str).collect();
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(" ({})", why.join(", "))
        };
        evidence.push(format!("human {}.{} %{why}", human / 10, human % 10));
    }
    if !text(event, "session").is_empty() {
        evidence.push(format!("session: {}", shown(event, "session")));
    }
    format!(
        "<tr><td>{}<br><span class=\"soft\">{place}</span></td><td>{}</td><td>{}{}{}<br><span class=\"soft\">{} · {}</span></td>\
         <td>{became}</td><td>{}{}</td></tr>",
        shown(event, "received_at"),
        shown(event, "customer"),
        shown(event, "signal"),
        name.map_or_else(String::new, |name| format!(" “{name}”")),
        money.map_or_else(String::new, |amount| format!(" {amount} {}", shown(event, "currency"))),
        shown(event, "source"),
        shown(event, "event_id"),
        evidence.join("<br>"),
        folded(
            &event
                .get("payload")
                .map(|payload| format!("{payload:#}"))
                .unwrap_or_default()
        ),
    )
}

fn letter_row(letter: &Value) -> String {
    let field = Some(shown(letter, "field")).filter(|field| !field.is_empty());
    let fed = letter.get("retried").and_then(Value::as_bool) == Some(true);
    format!(
        "<tr><td>{}</td><td><span class=\"stage at_risk\">{}</span>{}</td><td>{}{}</td><td>{}<br>\
         <span class=\"soft\">{} · {}</span></td><td>{}</td></tr>",
        shown(letter, "received_at"),
        shown(letter, "code"),
        field.map_or_else(String::new, |field| format!("<br>{field}")),
        shown(letter, "hint"),
        if fed {
            "<br><span class=\"soft\">fed again since</span>"
        } else {
            ""
        },
        shown(letter, "step"),
        shown(letter, "source"),
        shown(letter, "id"),
        folded(text(letter, "raw")),
    )
}

/// The page of one event.
fn scores(told: &Value) -> String {
    let mut body =
        String::from("<p><a href=\"/inspect\">All events</a></p><h1>One event</h1><section><h2>Accepted</h2>");
    let event = told.get("event").cloned().unwrap_or_default();
    body += &table(
        &["Received", "Customer", "Event", "What became of it", "Evidence"],
        &[event],
        event_row,
    );
    body += "</section><section><h2>Scores of the customer, just before and just after</h2>";
    let (before, after) = (told.get("scores_before"), told.get("scores_after"));
    let number =
        |scores: Option<&Value>, path: &str| scores.and_then(|scores| scores.pointer(path)).and_then(Value::as_f64);
    let mut rows = vec![("attrition".to_owned(), "/attrition".to_owned())];
    for (group, title) in [
        ("churn", "churn within days: "),
        ("contributions", "contribution, log-odds: "),
    ] {
        let some = after
            .or(before)
            .and_then(|scores| scores.get(group))
            .and_then(Value::as_object);
        rows.extend(
            some.into_iter()
                .flatten()
                .map(|(name, _)| (format!("{title}{name}"), format!("/{group}/{name}"))),
        );
    }
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|(name, path)| json!({"name": name, "before": number(before, &path), "after": number(after, &path)}))
        .collect();
    body += &table(&["Score", "Before", "After", "Change"], &rows, |row| {
        let number = |field: &str| row.get(field).and_then(Value::as_f64);
        let digits = |number: Option<f64>| number.map_or_else(|| "–".to_owned(), |number| format!("{number:.4}"));
        let change = number("after")
            .zip(number("before"))
            .map(|(after, before)| after - before);
        let change = change.map_or_else(|| "–".to_owned(), |change| format!("{change:+.4}"));
        format!(
            "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{change}</td></tr>",
            shown(row, "name"),
            digits(number("before")),
            digits(number("after")),
        )
    });
    body + "</section>"
}

fn page(body: &str, refresh: Option<u16>) -> Response {
    let refresh = refresh.map_or_else(String::new, |seconds| {
        format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">")
    });
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         {refresh}<title>vigie: last events</title><link rel=\"stylesheet\" href=\"/vigie.css\"></head><body><header><strong>vigie</strong>\
         <nav><a href=\"/\">Console</a> · <a href=\"/inspect\">Last events</a> · <a href=\"/docs\">API</a></nav></header><main>{body}</main></body></html>"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    no_store((headers, html).into_response())
}

fn no_store(mut response: Response) -> Response {
    let _none = response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_came_from_outside_becomes_markup() {
        let bad = "<script>alert(1)</script>\"'&";
        let event = json!({
            "log_partition": 1, "log_offset": 2, "received_at": bad, "customer": bad, "event_id": bad, "signal": bad,
            "name": format!("{bad}x"), "source": bad, "decision": bad, "reason": bad, "at": bad, "session": bad,
            "amount": bad, "currency": bad, "human_permille": 375, "indicators": [], "payload": {"k": bad},
        });
        let letter = json!({"received_at": bad, "code": bad, "field": bad, "hint": bad, "raw": bad, "id": bad});
        for row in [event_row(&event), letter_row(&letter), scores(&json!({"event": event}))] {
            assert!(!row.contains("<script") && row.contains("&lt;script"), "{row}");
        }
        assert!(event_row(&event).contains("human 37.5 %"));
    }

    #[test]
    fn a_decision_is_explained() {
        for (decision, reason, part) in [
            ("dead_letter", "no_identity", "names nobody"),
            ("suppressed", "suppressed_consent", "refused profiling"),
            ("duplicate", "", "counts once"),
            ("applied", "id_conflict", "other content"),
        ] {
            let told = hint(&json!({"decision": decision, "reason": reason})).unwrap_or_default();
            assert!(told.contains(part), "{decision} {reason}: {told}");
        }
        assert_eq!(hint(&json!({"decision": "applied", "reason": null})), None);
    }
}
