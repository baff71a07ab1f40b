//! The Matomo tracking API: an action as a query (or form), or several in a bulk request.
//!
//! Written from the public parameter list and from captured requests. The protocol has no key of its own: `token_auth` or
//! `idsite` is the key, or else a header or the query carries one. `cdt` (another time than now) is believed for a day
//! without `token_auth`, as Matomo does.

use super::draft::{Draft, Object, Piece, hash, money, object_of, parse};
use super::{BodyFault, text};
use crate::limits::Limits;
use crate::strict::{Kind, Layout, scan};
use serde_json::Value;
use smol_str::{SmolStr, format_smolstr};
use vigie_event::json::{Invalid, Receipt};
use vigie_event::{DAY_MS, Event, RejectCode, Signal, Source};

/// What a bulk request holds.
#[derive(Debug)]
pub struct Bulk {
    /// The actions.
    pub pieces: Vec<Piece>,
    /// The key around them.
    pub token: Option<SmolStr>,
}

/// The action of a query or form.
#[must_use]
pub fn piece_of_query(query: &str) -> Piece {
    let query = query.strip_prefix('?').unwrap_or(query);
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    Piece::good(object_of(
        pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())),
    ))
}

/// The actions of a bulk request: `{"requests": ["?idsite=…", {…}, …], "token_auth": …}`.
pub fn read_bulk(body: &[u8], limits: &Limits) -> Result<Bulk, BodyFault> {
    let text = text(body)?;
    let layout = Layout {
        key: Some("requests"),
        bare: false,
    };
    let document = scan(text, layout, limits.batch_events, &limits.json).map_err(BodyFault::Json)?;
    if document.kind != Kind::Object {
        return Err(BodyFault::Shape);
    }
    let items = document.items.ok_or(BodyFault::Shape)?;
    if let Some(code) = document.fault {
        return Err(BodyFault::Json(code));
    }
    if items.is_empty() {
        return Err(BodyFault::BatchEmpty);
    }
    if items.len() > limits.batch_events {
        return Err(BodyFault::BatchTooLarge);
    }
    let pieces = items
        .into_iter()
        .map(|item| {
            let raw = text.get(item.span).unwrap_or_default();
            match serde_json::from_str::<String>(raw) {
                Ok(query) => Piece {
                    fault: item.fault,
                    ..piece_of_query(&query)
                },
                Err(_) => Piece {
                    text: raw.to_owned(),
                    fault: item.fault,
                },
            }
        })
        .collect();
    let around: Value = serde_json::from_str(text).map_err(|_| BodyFault::Json(RejectCode::Json))?;
    Ok(Bulk {
        pieces,
        token: Object::new(&around).text("token_auth"),
    })
}

/// The keys that an action carries, the stronger first.
#[must_use]
pub fn keys(piece: &Piece) -> Vec<SmolStr> {
    let Ok(value) = parse(&piece.text) else {
        return Vec::new();
    };
    let action = Object::new(&value);
    [action.text("token_auth"), action.text("idsite")]
        .into_iter()
        .flatten()
        .collect()
}

/// Whether the client wants no picture (`send_image=0`).
#[must_use]
pub fn wants_nothing(piece: &Piece) -> bool {
    parse(&piece.text).is_ok_and(|value| Object::new(&value).text("send_image").as_deref() == Some("0"))
}

/// Reads one action whose limits were checked.
pub fn read_one(text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
    let value = parse(text)?;
    let action = Object::new(&value);
    if action.text("rec").is_some_and(|rec| rec != "1") {
        return Err(Invalid::new(RejectCode::UnknownType, "rec"));
    }
    let mut at = action.time("cdt", "cdt")?;
    if at.is_some_and(|at| receipt.received_at.ms_since(at) > DAY_MS) && action.text("token_auth").is_none() {
        at = None;
    }
    let mut draft = Draft {
        user: action.text("uid"),
        anonymous: action.first(&["cid", "_id"]),
        occurred_at: at,
        user_agent: action.text("ua"),
        page_url: action.text("url"),
        referrer: action.text("urlref"),
        ..Draft::default()
    };
    let event = || match (action.text("e_c"), action.text("e_a")) {
        (Some(category), Some(act)) => Some((category, act)),
        _ => None,
    };
    if action.flag("ping") {
        draft.name = Some("ping".into());
    } else if let Some(goal) = action.text("idgoal") {
        if goal == "0" {
            order(action, &mut draft)?;
        } else {
            draft.name = Some(format_smolstr!("goal {goal}"));
        }
    } else if let Some((category, act)) = event() {
        draft.signal = Some(Signal::named(&act));
        draft.name = Some(format_smolstr!("{category} {act}"));
    } else if let Some(words) = action.text("search") {
        (draft.signal, draft.name) = (Some(Signal::Search), Some(words));
    } else if let Some(address) = action.text("download") {
        (draft.signal, draft.name) = (Some(Signal::DocumentRequest), Some(address));
    } else if let Some(address) = action.text("link") {
        (draft.signal, draft.name) = (Some(Signal::LinkClick), Some(address));
    } else if action.first(&["_pks", "_pkn"]).is_some() {
        (draft.signal, draft.name) = (Some(Signal::ProductView), action.first(&["_pkn", "_pks"]));
    } else if action.text("_pkc").is_some() {
        (draft.signal, draft.name) = (Some(Signal::ListView), action.text("_pkc"));
    } else if action.first(&["action_name", "url"]).is_some() {
        (draft.signal, draft.name) = (Some(Signal::PageView), action.text("action_name"));
    } else {
        return Err(Invalid::new(RejectCode::NoSignal, "action_name"));
    }
    let content: String = value
        .as_object()
        .map(|object| {
            object
                .iter()
                .filter(|(name, _)| *name != "token_auth")
                .map(|(name, value)| format!("{name}={value};"))
                .collect()
        })
        .unwrap_or_default();
    // A repeated request is recognised by its random number, which every client sends against caches.
    if action.text("rand").is_some() {
        draft.id = Some(format!("matomo:{}", hash(&[&content])));
    }
    draft.content = content;
    draft.finish(Source::Matomo, text, receipt)
}

/// An order, or the cart as it is now.
fn order(action: Object<'_>, draft: &mut Draft) -> Result<(), Invalid> {
    draft.order = action.text("ec_id");
    if draft.order.is_none() {
        draft.signal = Some(Signal::CartView);
        return Ok(());
    }
    draft.signal = Some(Signal::Purchase);
    draft.name = Some("order".into());
    if let Some(revenue) = action.text("revenue") {
        // The protocol names no currency; a custom dimension of the site may.
        let currency = action.text("currency").unwrap_or_else(|| "EUR".into());
        draft.money = Some(money(&revenue, &currency)?);
    }
    Ok(())
}
