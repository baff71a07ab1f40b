//! What a destination is sent for a flag: address, headers and body. The body of a flag is the same bytes at every attempt;
//! only the time in the signature moves.

use crate::destination::{Destination, Kind};
use crate::flag::Told;
use crate::signature;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use std::fmt;
use vigie_event::{FlagId, Timestamp, Workspace};

/// The name of an event in the Segment shape.
const fn segment_event(told: Told) -> &'static str {
    match told {
        Told::Flagged => "Relance Flag Set",
        Told::Recalled => "Relance Flag Recalled",
        Told::BandChanged => "Score Band Changed",
    }
}

/// A flag on its way out.
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel {
    /// Its identity, the same at every attempt.
    pub id: FlagId,
    /// Whose customer it is about.
    pub workspace: Workspace,
    /// The customer, as the flag writes it.
    pub customer: String,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// As stored.
    pub raw: Bytes,
    /// As JSON.
    pub flag: Value,
}

impl Parcel {
    /// What is told. A parcel is made of what has passed the gate, hence of nothing else.
    fn told(&self) -> Told {
        let kind = self.flag.get("kind").and_then(Value::as_str);
        kind.and_then(Told::of).unwrap_or(Told::Flagged)
    }
}

/// An HTTP `POST`.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

/// Headers may hold keys, and addresses may hold tokens: neither is shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Request")
            .field("headers", &names)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// The request that tells `destination` of a flag at `now`.
#[must_use]
pub fn compose(destination: &Destination, parcel: &Parcel, now: Timestamp) -> Request {
    let id = parcel.id.to_string();
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers = vec![own("content-type", "application/json")];
    let body = match &destination.kind {
        Kind::Webhook { secrets } => {
            let body = envelope(parcel);
            headers.extend(signature::headers(secrets, &id, now, &body).map(|(name, value)| own(name, &value)));
            body
        }
        Kind::Segment { write_key } => {
            let credentials = STANDARD.encode(format!("{}:", write_key.expose()));
            headers.push(own("authorization", &format!("Basic {credentials}")));
            segment(parcel, now).to_string().into_bytes()
        }
        Kind::Template { template } => {
            headers.push(own("idempotency-key", &id));
            template.fill(&parcel.flag).to_string().into_bytes()
        }
        Kind::Topic => envelope(parcel),
    };
    headers.extend(
        destination
            .headers
            .iter()
            .map(|(name, value)| own(name, value.expose())),
    );
    Request {
        url: destination.url.as_str().to_owned(),
        headers,
        body,
    }
}

/// `{"type":…,"timestamp":…,"data":…}` with the flag as stored, byte for byte; the type is `customer.` and [`Told::name`].
#[must_use]
pub fn envelope(parcel: &Parcel) -> Vec<u8> {
    let (told, at) = (parcel.told().name(), parcel.raised_at);
    let head = format!(r#"{{"type":"customer.{told}","timestamp":"{at}","data":"#);
    [head.as_bytes(), &parcel.raw, b"}"].concat()
}

/// A batch of one `track` call, as Segment's libraries send it.
fn segment(parcel: &Parcel, now: Timestamp) -> Value {
    let mut call = json!({
        "type": "track", "event": segment_event(parcel.told()), "messageId": parcel.id.to_string(),
        "timestamp": parcel.raised_at.to_string(), "properties": parcel.flag,
        "context": {"library": {"name": "vigie", "version": env!("CARGO_PKG_VERSION")}},
    });
    let (field, person) = match parcel.customer.strip_prefix("anonymous:") {
        Some(anonymous) => ("anonymousId", anonymous),
        None => ("userId", parcel.customer.as_str()),
    };
    if let Some(call) = call.as_object_mut() {
        let _none = call.insert(field.to_owned(), person.into());
    }
    json!({"batch": [call], "sentAt": now.to_string()})
}
