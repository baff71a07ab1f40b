//! The protocol of our own: one event, `{"events":[…]}`, or a bare array of events, in the shape that
//! [`vigie_event::json`] defines. It never looks into an event itself.

use super::{BodyFault, Origin, text, without_userinfo};
use crate::intake::Taken;
use crate::limits::Limits;
use crate::strict::{Kind, Layout, scan};
use vigie_event::json::{Invalid, Receipt, read};
use vigie_event::{Event, RejectCode, Source};

const LAYOUT: Layout = Layout {
    key: Some("events"),
    bare: true,
};

/// What a body holds.
#[derive(Debug)]
pub enum Reading {
    /// One event.
    Single(Box<Taken>),
    /// A batch; results stand in its order.
    Batch(Vec<Taken>),
}

/// Reads a body.
pub fn read_body(body: &[u8], receipt: &Receipt, limits: &Limits) -> Result<Reading, BodyFault> {
    let text = text(body)?;
    let document = scan(text, LAYOUT, limits.batch_events, &limits.json).map_err(BodyFault::Json)?;
    let origin = Origin {
        receipt,
        source: Source::Canonical,
        kind: "",
        context: "",
    };
    let take = |ordinal: usize, text: &str, fault: Option<RejectCode>| -> Taken {
        let whole = |code| Invalid::new(code, "event");
        let read = if text.len() > limits.event_bytes {
            Err(whole(RejectCode::EventTooLarge))
        } else if let Some(code) = fault {
            Err(whole(code))
        } else {
            read_one(text, receipt)
        };
        read.map_err(|invalid| origin.letter(&invalid, ordinal, text.as_bytes(), limits))
    };
    let Some(items) = document.items else {
        return match document.kind {
            Kind::Object => {
                let event = text.get(document.span).unwrap_or_default();
                Ok(Reading::Single(Box::new(take(0, event, document.fault))))
            }
            Kind::Array | Kind::Scalar => Err(BodyFault::Shape),
        };
    };
    if let Some(code) = document.fault {
        return Err(BodyFault::Json(code));
    }
    match (items.len(), document.kind) {
        (0, Kind::Array) => Err(BodyFault::Shape),
        (0, _) => Err(BodyFault::BatchEmpty),
        (count, _) if count > limits.batch_events => Err(BodyFault::BatchTooLarge),
        _ => Ok(Reading::Batch(
            items
                .into_iter()
                .enumerate()
                .map(|(index, item)| take(index, text.get(item.span).unwrap_or_default(), item.fault))
                .collect(),
        )),
    }
}

/// Reads one event whose limits were checked.
pub fn read_one(text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
    // The field readers would also take the fields of an object in order, as an array.
    if !text.starts_with('{') {
        return Err(Invalid::new(RejectCode::Shape, "event"));
    }
    let mut event = read(text, receipt)?;
    event.client.page_url = event.client.page_url.as_deref().map(without_userinfo);
    event.client.referrer = event.client.referrer.as_deref().map(without_userinfo);
    Ok(event)
}
