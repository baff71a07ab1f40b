//! Errors as RFC 9457 problem documents, and the headers that every answer carries.
//!
//! A problem names a closed code, says what to do about it and carries the id of the request; it never repeats what the
//! client sent, so nothing can be smuggled through it into a log or a page.

use crate::state::ApiState;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use vigie_store::{ErrorClass, StoreError};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID_BYTES: usize = 128;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// Everything that can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// The stable text.
            pub(crate) const fn text(self) -> &'static str { match self { $(Self::$variant => $code,)* } }
            pub(crate) const fn status(self) -> StatusCode { match self { $(Self::$variant => StatusCode::$status,)* } }
            const fn title(self) -> &'static str { match self { $(Self::$variant => $title,)* } }
        }
    };
}

codes! {
    BadAt = "bad_at", BAD_REQUEST, "at is not a usable instant";
    BadBody = "bad_body", BAD_REQUEST, "The body is not the documented JSON";
    BadCursor = "bad_cursor", BAD_REQUEST, "The cursor is not one that this list gave out";
    BadLimit = "bad_limit", BAD_REQUEST, "limit is out of range";
    BadQuery = "bad_query", BAD_REQUEST, "The query is not the documented one";
    BadSql = "bad_sql", BAD_REQUEST, "The question cannot be answered as it stands";
    TooManyIds = "too_many_ids", BAD_REQUEST, "Too many ids at once";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "A read key is needed";
    KeyScope = "key_scope", FORBIDDEN, "The key may not read";
    NotFound = "not_found", NOT_FOUND, "There is nothing here";
    UnknownAccount = "unknown_account", NOT_FOUND, "No such company";
    UnknownCustomer = "unknown_customer", NOT_FOUND, "No such customer";
    UnknownRelance = "unknown_relance", NOT_FOUND, "No such relance";
    Method = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    TooCostly = "too_costly", UNPROCESSABLE_ENTITY, "The question costs more than is allowed";
    AtBeforeState = "at_before_state", UNPROCESSABLE_ENTITY, "The state has moved past that instant";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something is broken here";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "Not available now";
}

/// A problem on its way to the client. [`layer`] gives it a body.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    pub(crate) detail: String,
}

/// An error (RFC 9457, `application/problem+json`).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// Identifies the kind of problem.
    #[schema(example = "urn:vigie:problem:bad_limit")]
    r#type: String,
    /// The kind of problem, for people.
    title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What to do about it.
    detail: &'a str,
    /// The kind of problem, for programs; stable.
    #[schema(example = "bad_limit")]
    code: &'a str,
    /// Also in the `X-Request-Id` header and in the server's log.
    request_id: &'a str,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }

    fn body(&self, request_id: &str) -> Vec<u8> {
        let body = ProblemBody {
            r#type: format!("urn:vigie:problem:{}", self.code.text()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code.text(),
            request_id,
        };
        // Five texts and a number always serialise.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error.class() {
            ErrorClass::External => Self::new(Code::Unavailable, "the store does not answer; try again"),
            ErrorClass::User | ErrorClass::Internal => {
                tracing::error!(error = %error, tag = error.tag(), "the store failed a read");
                Self::new(
                    Code::Internal,
                    "the store failed; the operator finds the request id in the log",
                )
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        let _ = response.extensions_mut().insert(self);
        response
    }
}

/// Gives every request an id, every problem its body and every answer the headers that keep browsers from guessing.
pub(crate) async fn layer<S: Send + Sync + 'static>(
    State(state): State<Arc<ApiState<S>>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| is_request_id(id));
    let id = given.map_or_else(|| state.request_id(), str::to_owned);
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        tracing::debug!(request_id = %id, code = problem.code.text(), "request refused");
        if problem.code.status().is_server_error() {
            tracing::warn!(request_id = %id, code = problem.code.text(), "request failed");
        }
        *response.body_mut() = problem.body(&id).into();
        let headers = response.headers_mut();
        let _ = headers.remove(header::CONTENT_LENGTH);
        let _ = headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match problem.code {
            Code::Unauthenticated => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Code::Unavailable => drop(headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => {}
        }
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        let _ = headers.insert(REQUEST_ID, id);
    }
    let _ = headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let _ = headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        let _ = headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn is_request_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_REQUEST_ID_BYTES
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}
