//! PostHog's capture API: an event, an array of them, or a batch; plain, gzip or base64, as JSON or in a form.
//!
//! Written from the public API and from captured requests of the real clients. A `distinct_id` is a person that the merchant
//! knows, unless it is the device's own id: until it identifies somebody, the browser client sends its device's.

use super::draft::{Draft, Object, Piece, parse};
use super::{BodyFault, text};
use crate::inflate::{gunzip, is_gzip};
use crate::limits::Limits;
use crate::strict::{Kind, Layout, scan};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use smol_str::SmolStr;
use std::borrow::Cow;
use vigie_event::json::{Invalid, Receipt};
use vigie_event::{Event, RejectCode, Signal, Source, Timestamp};

/// Its own events, which begin with a dollar sign.
const EVENTS: &[(&str, Option<Signal>)] = &[
    ("$pageview", Some(Signal::PageView)),
    ("$screen", Some(Signal::ScreenView)),
    ("$identify", Some(Signal::Identify)),
    ("$create_alias", Some(Signal::Alias)),
    ("$groupidentify", Some(Signal::Group)),
    ("$exception", Some(Signal::PageError)),
];

/// The JSON of a body: of a form its `data`, decoded; of anything else the body itself.
pub fn unwrap<'a>(body: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>, BodyFault> {
    if !body.starts_with(b"data=") && !body.windows(6).take(512).any(|window| window == b"&data=") {
        return Ok(Cow::Borrowed(body));
    }
    let data = form_urlencoded::parse(body).find(|(name, _)| name == "data");
    let data = data.map(|(_, data)| data.into_owned()).unwrap_or_default();
    decode(&data, limits).map(Cow::Owned)
}

/// `data` of a form or query: JSON, or base64 of JSON or of gzip.
pub fn decode(data: &str, limits: &Limits) -> Result<Vec<u8>, BodyFault> {
    let data = data.trim();
    if data.starts_with(['{', '[']) {
        return Ok(data.as_bytes().to_vec());
    }
    // A plus sign that nobody escaped arrives as a space.
    let bytes = STANDARD
        .decode(data.replace(' ', "+"))
        .map_err(|_| BodyFault::Json(RejectCode::Json))?;
    if is_gzip(&bytes) {
        return gunzip(&bytes, limits).map_err(|_| BodyFault::BodyTooLarge);
    }
    Ok(bytes)
}

/// What a body holds.
#[derive(Debug)]
pub struct Capture {
    /// The events.
    pub pieces: Vec<Piece>,
    /// The key, where the body carries one.
    pub key: Option<SmolStr>,
    /// When the client sent it.
    pub sent_at: Option<Timestamp>,
}

/// The events of a decoded body.
pub fn read_body(body: &[u8], limits: &Limits) -> Result<Capture, BodyFault> {
    let text = text(body)?;
    let layout = Layout {
        key: Some("batch"),
        bare: true,
    };
    let document = scan(text, layout, limits.batch_events, &limits.json).map_err(BodyFault::Json)?;
    let around: Value = match document.kind {
        Kind::Scalar => return Err(BodyFault::Shape),
        Kind::Object => serde_json::from_str(text).map_err(|_| BodyFault::Json(RejectCode::Json))?,
        Kind::Array => Value::Null,
    };
    let piece = |span: std::ops::Range<usize>, fault| Piece {
        text: text.get(span).unwrap_or_default().to_owned(),
        fault,
    };
    let pieces: Vec<Piece> = match document.items {
        Some(items) => {
            if let Some(code) = document.fault {
                return Err(BodyFault::Json(code));
            }
            if items.is_empty() {
                return Err(BodyFault::BatchEmpty);
            }
            if items.len() > limits.batch_events {
                return Err(BodyFault::BatchTooLarge);
            }
            items.into_iter().map(|item| piece(item.span, item.fault)).collect()
        }
        None => vec![piece(document.span, document.fault)],
    };
    let envelope = Object::new(&around);
    let sent_at = envelope.time("sent_at", "sent_at").ok().flatten();
    let own = || {
        let first: Value = serde_json::from_str(&pieces.first()?.text).ok()?;
        let event = Object::new(&first);
        event
            .first(&["api_key", "token"])
            .or_else(|| event.at("properties").text("token"))
    };
    let key = envelope.first(&["api_key", "token"]).or_else(own);
    Ok(Capture { pieces, key, sent_at })
}

/// Reads one event whose limits were checked.
pub fn read_one(text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
    let value = parse(text)?;
    let event = Object::new(&value);
    let properties = event.at("properties");
    let name = event.text("event").ok_or(Invalid::new(RejectCode::NoSignal, "event"))?;
    let distinct = event
        .first(&["distinct_id", "$distinct_id"])
        .or_else(|| properties.first(&["distinct_id", "$distinct_id"]));
    let device = properties.text("$device_id");
    let mut draft = Draft {
        id: event.text("uuid").map(String::from),
        occurred_at: event.time("timestamp", "timestamp")?,
        user_agent: properties.first(&["$raw_user_agent", "$user_agent", "$useragent"]),
        page_url: properties.text("$current_url"),
        referrer: properties.text("$referrer").filter(|from| from != "$direct"),
        content: event.raw("properties").map(Value::to_string).unwrap_or_default(),
        ..Draft::default()
    };
    let at_device = device.is_some() && device == distinct && properties.text("$user_id").is_none();
    (draft.user, draft.anonymous) = if at_device { (None, device) } else { (distinct, device) };
    match name.as_str() {
        "$identify" => draft.anonymous = properties.text("$anon_distinct_id").or(draft.anonymous),
        // Two ids of one person; it does not say which of them is the visitor's.
        "$create_alias" => (draft.previous, draft.anonymous) = (properties.text("alias"), draft.user.clone()),
        _ => {}
    }
    if name == "$create_alias" && draft.previous.is_none() {
        return Err(Invalid::new(RejectCode::NoIdentity, "alias"));
    }
    let known = EVENTS
        .iter()
        .find(|(known, _)| *known == name)
        .and_then(|(_, signal)| *signal);
    let signal = match (known, properties.text("$event_type").as_deref()) {
        (Some(signal), _) => signal,
        (None, Some("click")) if name == "$autocapture" => Signal::LinkClick,
        (None, Some("submit")) if name == "$autocapture" => Signal::FormSubmit,
        (None, _) => Signal::named(&name),
    };
    draft.signal = Some(signal);
    if signal.is_purchase() || signal.is_refund() {
        draft.money = properties.money(&["$revenue", "revenue", "total", "value"], "currency", "USD")?;
        draft.order = properties.first(&["order_id", "orderId"]);
    }
    draft.name = match signal {
        Signal::PageView => properties.first(&["title", "$pathname"]),
        Signal::ScreenView => properties.text("$screen_name"),
        _ => Some(name),
    };
    if let Some(offset) = event.text("offset").and_then(|ms| ms.parse::<i64>().ok())
        && draft.occurred_at.is_none()
    {
        draft.occurred_at = Some(receipt.received_at.plus_ms(-offset.clamp(0, 86_400_000)));
    }
    draft.finish(Source::PostHog, text, receipt)
}
