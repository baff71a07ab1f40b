//! What the routes of the binary share: problem documents (RFC 9457), and who may ask. The workspace comes from the key (WS-1).

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use vigie_event::Workspace;
use vigie_ingestion::keys::{KeyKind, Keys};

/// An error document; `detail` says what to do about it.
pub(crate) fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    problem_with(status, code, detail, Value::Null)
}

/// The same with members of its own.
pub(crate) fn problem_with(status: StatusCode, code: &str, detail: &str, more: Value) -> Response {
    let mut body = json!({
        "type": format!("urn:vigie:problem:{code}"),
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        body.to_string(),
    )
        .into_response()
}

/// Something that is needed does not answer.
pub(crate) fn unavailable(error: &anyhow::Error) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &format!("{error:#}"))
}

/// Who may ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    /// What is asked for, in the plural.
    pub(crate) what: &'static str,
    /// Read keys open it as well as admin keys.
    pub(crate) readers: bool,
    /// Browsers come here: they are told to ask their user for the key, as the password.
    pub(crate) browsers: bool,
}

impl Door {
    /// For admin keys alone.
    pub(crate) const fn admin(what: &'static str) -> Self {
        Self {
            what,
            readers: false,
            browsers: false,
        }
    }

    /// The workspace of the request's key, or the answer that it gets.
    pub(crate) fn enter(self, keys: &Keys, headers: &HeaderMap) -> Result<Workspace, Box<Response>> {
        let key = vigie_ingestion::http::presented_key(headers);
        let found = key.and_then(|key| keys.current().find(&key));
        let needed = if self.readers {
            "a read or an admin key"
        } else {
            "an admin key"
        };
        let Some(found) = found else {
            let kind = if self.readers { "a read key" } else { "an admin key" };
            let mut detail = format!("send {kind} as Authorization: Bearer <key>");
            if self.browsers {
                detail += "; in a browser, as the password with an empty user name";
            }
            let mut response = problem(StatusCode::UNAUTHORIZED, "unauthenticated", &detail);
            let ask = format!("Basic realm=\"vigie: no user name, {kind} as the password\", charset=\"UTF-8\"");
            if let Some(ask) = HeaderValue::from_str(&ask).ok().filter(|_| self.browsers) {
                let _none = response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
            }
            return Err(Box::new(response));
        };
        match found.kind {
            KeyKind::Admin => Ok(found.workspace.clone()),
            KeyKind::Read if self.readers => Ok(found.workspace.clone()),
            _ => {
                let detail = format!("{} need {needed}", self.what);
                Err(Box::new(problem(StatusCode::FORBIDDEN, "key_scope", &detail)))
            }
        }
    }
}
