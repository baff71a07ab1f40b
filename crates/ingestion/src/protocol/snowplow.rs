//! The Snowplow tracker protocol: events as flat objects of text, one in a query or several in a posted payload.
//!
//! Written from the public protocol's parameters and from captured requests. Self-describing events and contexts are kept
//! as they are; no schema is looked up. The protocol has no key of its own: `aid` (the application's id) is the key, or
//! else a header or the query carries one.

use super::draft::{Draft, Object, Piece, object_of, parse};
use super::{BodyFault, text};
use crate::limits::Limits;
use crate::strict::{Kind, Layout, scan};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;
use smol_str::{SmolStr, format_smolstr};
use vigie_event::json::{Invalid, Receipt};
use vigie_event::{Event, RejectCode, Signal, Source};

/// Names of self-describing events (the part of the schema's address after its vendor) that have a meaning here.
const SCHEMAS: &[(&str, Signal)] = &[
    ("link_click", Signal::LinkClick),
    ("submit_form", Signal::FormSubmit),
    ("site_search", Signal::Search),
    ("add_to_cart", Signal::CartAdd),
    ("remove_from_cart", Signal::CartRemove),
    ("screen_view", Signal::ScreenView),
    ("application_error", Signal::PageError),
    ("social_interaction", Signal::Share),
];

/// Kinds of the e-commerce action (`snowplow_ecommerce_action`).
const ACTIONS: &[(&str, Signal)] = &[
    ("product_view", Signal::ProductView),
    ("list_view", Signal::ListView),
    ("add_to_cart", Signal::CartAdd),
    ("remove_from_cart", Signal::CartRemove),
    ("checkout_step", Signal::CheckoutStep),
    ("transaction", Signal::Purchase),
    ("refund", Signal::Refund),
];

/// The events of a posted payload.
pub fn pieces(body: &[u8], limits: &Limits) -> Result<Vec<Piece>, BodyFault> {
    let text = text(body)?;
    let layout = Layout {
        key: Some("data"),
        bare: false,
    };
    let document = scan(text, layout, limits.batch_events, &limits.json).map_err(BodyFault::Json)?;
    match (document.kind, document.fault, document.items) {
        (_, Some(code), _) => Err(BodyFault::Json(code)),
        (Kind::Object, None, Some(items)) if items.is_empty() => Err(BodyFault::BatchEmpty),
        (Kind::Object, None, Some(items)) if items.len() > limits.batch_events => Err(BodyFault::BatchTooLarge),
        (Kind::Object, None, Some(items)) => Ok(items
            .into_iter()
            .map(|item| Piece {
                text: text.get(item.span).unwrap_or_default().to_owned(),
                fault: item.fault,
            })
            .collect()),
        _ => Err(BodyFault::Shape),
    }
}

/// The event of a query.
#[must_use]
pub fn piece_of_query(query: &str) -> Piece {
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    Piece::good(object_of(
        pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())),
    ))
}

/// The application's id, which is the key of clients that send no other.
#[must_use]
pub fn application(piece: &Piece) -> Option<SmolStr> {
    let value = parse(&piece.text).ok()?;
    Object::new(&value).text("aid")
}

/// JSON in a parameter, plain or in base64 (of either alphabet, with or without padding).
fn embedded(event: Object<'_>, plain: &str, encoded: &str) -> Option<Value> {
    if let Some(text) = event.text(plain) {
        return serde_json::from_str(&text).ok();
    }
    let text = event.text(encoded)?;
    let text = text.trim_end_matches('=');
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text))
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// `iglu:vendor/name/format/version`: the name.
fn schema_name(schema: &str) -> Option<&str> {
    schema.strip_prefix("iglu:")?.split('/').nth(1)
}

/// Reads one event whose limits were checked.
pub fn read_one(text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
    let value = parse(text)?;
    let event = Object::new(&value);
    let mut draft = Draft {
        id: event.text("eid").map(String::from),
        user: event.text("uid"),
        // The visitor's id of the domain, else that of the network, else that of the session.
        anonymous: event.first(&["duid", "nuid", "tnuid", "sid"]),
        occurred_at: event.first_time(&["ttm", "dtm"], "dtm")?,
        sent_at: event.time("stm", "stm").ok().flatten(),
        user_agent: event.text("ua"),
        page_url: event.text("url"),
        referrer: event.text("refr"),
        ..Draft::default()
    };
    match event.text("e").as_deref() {
        Some("pv") => (draft.signal, draft.name) = (Some(Signal::PageView), event.text("page")),
        Some("pp") => draft.name = Some("page_ping".into()),
        Some("tr") => {
            draft.signal = Some(Signal::Purchase);
            draft.order = event.text("tr_id");
            draft.money = event.money(&["tr_tt"], "tr_cu", "USD")?;
        }
        // Its money is in the transaction that it belongs to.
        Some("ti") => draft.name = Some("transaction_item".into()),
        Some("se") => {
            let action = event.text("se_ac").ok_or(Invalid::new(RejectCode::NoSignal, "se_ac"))?;
            draft.signal = Some(Signal::named(&action));
            draft.name = Some(match event.text("se_ca") {
                Some(category) => format_smolstr!("{category} {action}"),
                None => action,
            });
        }
        Some("ue") => self_describing(event, &mut draft)?,
        Some(_) => return Err(Invalid::new(RejectCode::UnknownType, "e")),
        None => return Err(Invalid::new(RejectCode::NoSignal, "e")),
    }
    // The time of sending changes with every attempt.
    let stable = value.as_object().map(|object| {
        let fields = object.iter().filter(|(name, _)| *name != "stm");
        fields
            .map(|(name, value)| format!("{name}={value};"))
            .collect::<String>()
    });
    draft.content = stable.unwrap_or_default();
    draft.finish(Source::Snowplow, text, receipt)
}

fn self_describing(event: Object<'_>, draft: &mut Draft) -> Result<(), Invalid> {
    let missing = || Invalid::new(RejectCode::Shape, "ue_pr");
    let envelope = embedded(event, "ue_pr", "ue_px").ok_or_else(missing)?;
    let inner = Object::new(&envelope).at("data");
    let schema = inner.text("schema").ok_or_else(missing)?;
    let name = schema_name(&schema).unwrap_or(&schema);
    let data = inner.at("data");
    let known = |table: &[(&str, Signal)], name: &str| {
        table
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, signal)| *signal)
    };
    let action = data.text("type").filter(|_| name == "snowplow_ecommerce_action");
    let signal = match &action {
        Some(action) => known(ACTIONS, action).unwrap_or(Signal::Custom),
        None => known(SCHEMAS, name).unwrap_or_else(|| Signal::named(name)),
    };
    draft.signal = Some(signal);
    draft.name = Some(action.unwrap_or_else(|| name.into()));
    if signal.is_purchase() || signal.is_refund() {
        let contexts = embedded(event, "co", "cx").unwrap_or_default();
        let entity = transaction(&contexts);
        let facts = if entity.is_some() { entity } else { data };
        draft.money = facts.money(&["revenue", "refund_amount", "total"], "currency", "USD")?;
        draft.order = facts.first(&["transaction_id", "order_id"]);
    }
    Ok(())
}

/// The transaction or refund among the contexts of an e-commerce action.
fn transaction(contexts: &Value) -> Object<'_> {
    let entities = Object::new(contexts).array("data").iter().map(Object::new);
    let found = entities.into_iter().find(|entity| {
        let schema = entity.text("schema").unwrap_or_default();
        matches!(schema_name(&schema), Some("transaction" | "refund"))
    });
    found.map_or(Object::new(&Value::Null), |entity| entity.at("data"))
}
