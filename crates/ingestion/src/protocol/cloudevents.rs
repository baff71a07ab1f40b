//! CloudEvents 1.0 over HTTP: in headers (binary), as an object (structured) or as an array (batched).
//!
//! Who an event is about: `user_id` and `anonymous_id` of its data (also in camel case), else its `subject`. What happened:
//! a signal's own name or a known name in `type`, whole or in its last parts ("com.shop.order.completed").

use super::draft::{Draft, Object, Piece, parse};
use super::{BodyFault, text};
use crate::limits::Limits;
use crate::strict::{Kind, Layout, scan};
use http::HeaderMap;
use serde_json::{Map, Value};
use smol_str::SmolStr;
use vigie_event::json::{Invalid, Receipt};
use vigie_event::{Event, RejectCode, Signal, Source};

/// How a request carries events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in headers, data in the body.
    Binary,
    /// One event as the body.
    Structured,
    /// An array of events.
    Batched,
}

/// The mode of a request; `None` for a format that is not JSON.
#[must_use]
pub fn mode(media_type: &str) -> Option<Mode> {
    let essence = media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match essence.strip_prefix("application/cloudevents") {
        Some("-batch+json" | "-batch") => Some(Mode::Batched),
        Some("+json" | "") => Some(Mode::Structured),
        Some(_) => None,
        None => Some(Mode::Binary),
    }
}

/// The events of a request.
pub fn pieces(mode: Mode, headers: &HeaderMap, body: &[u8], limits: &Limits) -> Result<Vec<Piece>, BodyFault> {
    if mode == Mode::Binary {
        return binary(headers, body, limits).map(|piece| vec![piece]);
    }
    let text = text(body)?;
    let layout = Layout {
        key: None,
        bare: mode == Mode::Batched,
    };
    let document = scan(text, layout, limits.batch_events, &limits.json).map_err(BodyFault::Json)?;
    let piece = |span: std::ops::Range<usize>, fault| Piece {
        text: text.get(span).unwrap_or_default().to_owned(),
        fault,
    };
    match (mode, document.kind, document.items) {
        (Mode::Batched, _, Some(items)) if items.is_empty() => Err(BodyFault::BatchEmpty),
        (Mode::Batched, _, Some(items)) if items.len() > limits.batch_events => Err(BodyFault::BatchTooLarge),
        (Mode::Batched, _, Some(items)) => Ok(items.into_iter().map(|item| piece(item.span, item.fault)).collect()),
        (Mode::Structured, Kind::Object, _) => Ok(vec![piece(document.span, document.fault)]),
        _ => Err(BodyFault::Shape),
    }
}

fn binary(headers: &HeaderMap, body: &[u8], limits: &Limits) -> Result<Piece, BodyFault> {
    let mut event = Map::new();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else {
            continue;
        };
        let value = percent_decode(value.as_bytes()).ok_or(BodyFault::Json(RejectCode::Utf8))?;
        let _twice = event.insert(attribute.to_owned(), Value::String(value));
    }
    let mut fault = None;
    if !body.is_empty() {
        let text = text(body)?;
        let layout = Layout { key: None, bare: false };
        let document = scan(text, layout, 0, &limits.json).map_err(BodyFault::Json)?;
        fault = document.fault;
        let data = serde_json::from_str(text).map_err(|_| BodyFault::Json(RejectCode::Json))?;
        let _none = event.insert("data".to_owned(), data);
    }
    Ok(Piece {
        text: Value::Object(event).to_string(),
        fault,
    })
}

/// Percent-decoding as the HTTP binding asks: strict, and UTF-8.
fn percent_decode(value: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (pair, after) = rest.split_at_checked(2)?;
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(pair, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// The signal that a type names: whole, or by its last two parts or its last one.
fn signal_of(kind: &str) -> Signal {
    let parts: Vec<&str> = kind.split('.').collect();
    let tail = |count: usize| parts.get(parts.len().saturating_sub(count)..).unwrap_or_default();
    let tries = [kind.to_owned(), tail(2).join("."), tail(2).join(" "), tail(1).join(" ")];
    tries
        .iter()
        .map(|name| Signal::named(name))
        .find(|signal| *signal != Signal::Custom)
        .unwrap_or(Signal::Custom)
}

/// Reads one event whose limits were checked.
pub fn read_one(text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
    let value = parse(text)?;
    let event = Object::new(&value);
    let required = |name, field| event.text(name).ok_or(Invalid::new(RejectCode::Shape, field));
    if required("specversion", "specversion")? != "1.0" {
        return Err(Invalid::new(RejectCode::UnknownType, "specversion"));
    }
    let (id, source) = (required("id", "id")?, required("source", "source")?);
    let kind = required("type", "type")?;
    let data = event.at("data");
    let signal = data
        .text("signal")
        .and_then(|name| Signal::parse(&name))
        .unwrap_or_else(|| signal_of(&kind));
    let anonymous = data.first(&["anonymous_id", "anonymousId"]);
    let mut user = data.first(&["user_id", "userId"]);
    if user.is_none() && anonymous.is_none() {
        user = event.text("subject");
    }
    let money = data.at("money");
    let mut draft = Draft {
        // Source and id together identify an event; neither alone does.
        id: Some(format!("{source} {id}")),
        user,
        anonymous,
        previous: data.first(&["previous_id", "previousId"]),
        signal: Some(signal),
        name: Some(kind),
        occurred_at: event.time("time", "time")?,
        order: data.first(&["order_id", "orderId"]),
        user_agent: data.at("context").text("user_agent"),
        page_url: data.at("context").text("page_url"),
        referrer: data.at("context").text("referrer"),
        content: event
            .raw("data")
            .or_else(|| event.raw("data_base64"))
            .map(Value::to_string)
            .unwrap_or_default(),
        ..Draft::default()
    };
    if money.is_some() {
        draft.money = money.money(&["amount"], "currency", "")?;
    } else if signal.is_purchase() || signal.is_refund() {
        draft.money = data.money(&["revenue", "total", "value"], "currency", "USD")?;
    }
    if signal == Signal::Alias && draft.previous.is_none() {
        return Err(Invalid::new(RejectCode::NoIdentity, "previous_id"));
    }
    draft.finish(Source::CloudEvents, text, receipt)
}

/// The key in an extension attribute, for producers that can set no header.
#[must_use]
pub fn write_key(piece: &Piece) -> Option<SmolStr> {
    let value = parse(&piece.text).ok()?;
    Object::new(&value).text("writekey")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_understood_by_their_end() {
        for (kind, expected) in [
            ("purchase", Signal::Purchase),
            ("com.shop.order.completed", Signal::Purchase),
            ("com.shop.complaint.opened", Signal::ComplaintOpened),
            ("com.shop.page.view", Signal::PageView),
            ("com.shop.Order Completed", Signal::Purchase),
            ("com.shop.telepathy", Signal::Custom),
            ("", Signal::Custom),
        ] {
            assert_eq!(signal_of(kind), expected, "{kind}");
        }
    }

    #[test]
    fn headers_are_decoded_strictly() {
        assert_eq!(percent_decode(b"Euro%20%E2%82%AC").as_deref(), Some("Euro €"));
        for bad in [b"%".as_slice(), b"%2", b"%zz", b"%+1", b"%ff", b"\xff"] {
            assert_eq!(percent_decode(bad), None, "{bad:?}");
        }
    }
}
