//! Problems: what is answered when a request is refused (RFC 9457). Codes are a closed list and texts are fixed, so
//! an answer can neither echo input nor grow a metric.

use crate::intake::Unavailable;
use crate::protocol::BodyFault;
use crate::rates::TooMuch;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use smol_str::SmolStr;
use std::time::Duration;
use vigie_event::RejectCode;

/// A refusal. It is put into the response's extensions and becomes a body when the request's id is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    /// The closed reason; also the metric label.
    pub code: &'static str,
    /// What it means, in one sentence.
    pub detail: &'static str,
    /// The field at fault.
    pub field: Option<SmolStr>,
    /// When to come back, for 429 and 503.
    pub retry_after: Option<Duration>,
    /// A header that the status asks for.
    pub header: Option<Box<(HeaderName, HeaderValue)>>,
    /// Whether the connection cannot go on (the body was not read to its end).
    pub close: bool,
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $code:literal, $detail:literal;)*) => {
        impl Problem { $($(#[$doc])* pub const $name: Self = Self::new(StatusCode::$status, $code, $detail);)* }
    };
}

problems! {
    /// No key at all.
    AUTH_MISSING = UNAUTHORIZED, "auth_missing", "the request carries no key: send it as Authorization: Bearer";
    /// A key that opens nothing: malformed, unknown or revoked, which is not told apart.
    AUTH = UNAUTHORIZED, "auth", "the key is not valid";
    /// A valid key that is not for this.
    KEY_SCOPE = FORBIDDEN, "key_scope", "the key is not meant for this use";
    /// A key used by a page that may not use it.
    ORIGIN = FORBIDDEN, "origin", "the key may not be used by pages of this origin: add the origin to the key";
    /// A content type that is not JSON.
    MEDIA_TYPE = UNSUPPORTED_MEDIA_TYPE, "media_type", "the body must be application/json in UTF-8";
    /// Larger than allowed.
    BODY_TOO_LARGE = PAYLOAD_TOO_LARGE, "body_too_large", "the body is larger than the limit; send it in parts";
    /// Inflates beyond what is allowed.
    INFLATE_LIMIT = PAYLOAD_TOO_LARGE, "inflate_limit", "the body inflates beyond the limit";
    /// Declared and real encoding differ.
    ENCODING_MISMATCH = BAD_REQUEST, "encoding", "the body is not encoded as Content-Encoding says";
    /// The body came too slowly.
    BODY_TIMEOUT = REQUEST_TIMEOUT, "body_timeout", "the body came too slowly";
    /// The body ended early.
    BODY_TRUNCATED = BAD_REQUEST, "body_truncated", "the body ended before its announced end";
    /// A webhook without signature or secret.
    SIG_MISSING = UNAUTHORIZED, "sig_missing", "the request carries no signature";
    /// A webhook whose signature does not hold.
    SIG = UNAUTHORIZED, "sig", "the signature is not valid";
    /// A webhook whose signature is too old, or was used for something else.
    SIG_STALE = UNAUTHORIZED, "sig_stale", "the signature is too old, or was used before";
    /// A certificate that is not the provider's.
    CERT_URL = UNAUTHORIZED, "cert_url", "the address of the certificate is not the provider's";
    /// A topic that is not configured.
    TOPIC = UNAUTHORIZED, "topic", "the topic is not one of those configured here";
    /// A destination that no link may lead to.
    URL = UNPROCESSABLE_ENTITY, "url", "a link may only lead to an absolute http or https address of an allowed host, without user and password";
    /// A link that cannot be made as asked.
    LINK = UNPROCESSABLE_ENTITY, "link", "a link needs a message id and exactly one of user_id, anonymous_id and email, and never carries an e-mail address";
    /// A format of a protocol that is not read.
    FORMAT = UNSUPPORTED_MEDIA_TYPE, "media_type", "this format of the protocol is not supported; send JSON";
    /// No such route or thing.
    NOT_FOUND = NOT_FOUND, "not_found", "there is nothing here";
    /// A method that the route does not take.
    METHOD = METHOD_NOT_ALLOWED, "method", "the method is not allowed here; Allow names those that are";
    /// The request line is too long.
    URI_TOO_LONG = URI_TOO_LONG, "uri_too_long", "the request line is longer than the limit";
    /// Too many or too large header fields.
    HEADERS_TOO_LARGE = REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "the header fields are more or larger than the limit";
    /// No host, or several.
    HOST = BAD_REQUEST, "host", "the request must have exactly one Host";
    /// A host that is not ours.
    MISDIRECTED = MISDIRECTED_REQUEST, "host", "this server does not answer for that host";
    /// A query that cannot be read.
    QUERY = BAD_REQUEST, "query", "a query parameter is out of its documented range";
    /// A letter of which only a part was kept.
    CUT = CONFLICT, "cut", "only a part of the event was kept, so it cannot be fed again";
    /// Something went wrong on our side.
    INTERNAL = INTERNAL_SERVER_ERROR, "internal", "an internal error; repeat the request with the same event ids";
}

impl Problem {
    const fn new(status: StatusCode, code: &'static str, detail: &'static str) -> Self {
        Self {
            status,
            code,
            detail,
            field: None,
            retry_after: None,
            header: None,
            close: false,
        }
    }

    /// An encoding that is not supported.
    #[must_use]
    pub fn encoding() -> Self {
        let mut problem = Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "encoding",
            "the body may be plain or gzip, nothing else",
        );
        problem.header = Some(Box::new((header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"))));
        problem
    }

    /// A fault of one event that came alone.
    #[must_use]
    pub fn event(code: RejectCode, field: SmolStr) -> Self {
        let mut problem = Self::new(StatusCode::BAD_REQUEST, code.label(), code.hint());
        problem.field = Some(field);
        problem
    }

    /// A fault of a body, on our own routes.
    #[must_use]
    pub fn body(fault: BodyFault) -> Self {
        let status = match fault {
            BodyFault::BatchTooLarge | BodyFault::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyFault::Empty | BodyFault::Json(_) | BodyFault::Shape | BodyFault::BatchEmpty => StatusCode::BAD_REQUEST,
        };
        Self::new(status, fault.code(), fault.hint())
    }

    /// The same problem with another status, for protocols whose clients know only some.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same problem; the connection is closed after it.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The body, in the media type `application/problem+json`.
    pub(super) fn render(&self, request_id: &str) -> String {
        #[derive(Serialize)]
        struct Shape<'a> {
            r#type: &'a str,
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<&'a str>,
            request_id: &'a str,
        }
        let shape = Shape {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail,
            field: self.field.as_deref(),
            request_id,
        };
        // Text, numbers and nothing else: this cannot fail.
        serde_json::to_string(&shape).unwrap_or_default()
    }
}

impl From<TooMuch> for Problem {
    fn from(too_much: TooMuch) -> Self {
        let (mut problem, after) = match too_much {
            TooMuch::Rate(after) => (
                Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate",
                    "more events a second than the key or workspace may send; come back after Retry-After",
                ),
                after,
            ),
            TooMuch::Quota(after) => (
                Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "quota",
                    "the workspace has used its quota of today; come back after Retry-After",
                ),
                after,
            ),
        };
        problem.retry_after = Some(after);
        problem
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        let (mut problem, after) = match unavailable {
            Unavailable::Overloaded { retry_after } => (
                Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "overloaded",
                    "too much at once; come back after Retry-After",
                ),
                retry_after,
            ),
            Unavailable::Down { retry_after } => (
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "unavailable",
                    "nothing can be stored now; come back",
                ),
                retry_after,
            ),
        };
        problem.retry_after = Some(after);
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.render("")).into_response();
        let headers = response.headers_mut();
        let _old = headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up, never 0: clients take 0 as "at once".
            let seconds = after
                .as_secs()
                .saturating_add(u64::from(after.subsec_nanos() > 0))
                .max(1);
            let _old = headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let _old = headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, Basic"));
        }
        if let Some(named) = &self.header {
            let (name, value) = &**named;
            let _old = headers.insert(name, value.clone());
        }
        if self.close {
            let _old = headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let _none = response.extensions_mut().insert(self);
        response
    }
}
