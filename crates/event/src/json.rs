//! The canonical event as JSON: the shape that `POST /v1/events` takes, described by [`SCHEMA`].
//!
//! Input is one JSON object whose limits (depth, keys, lengths) the caller has already checked; output is an
//! [`Event`], or the first reason why it cannot be one together with the field at fault. Unknown fields are kept in
//! the payload and otherwise ignored. This file knows no other protocol: those are in the ingestion crate, and share
//! the field readers below so that all of them read times, money and identifiers alike.

use crate::event::fingerprint;
use crate::{
    Channel, Client, ConsentContext, Currency, Event, EventId, IdError, Money, PersonId, PersonIds, RejectCode, Signal,
    Source, TimeError, Timestamp, Workspace,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use smol_str::SmolStr;
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_128;

/// JSON Schema (2020-12) of the canonical event.
pub const SCHEMA: &str = include_str!("event.schema.json");

/// Why an object is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", field, code.hint())]
pub struct Invalid {
    /// The closed reason.
    pub code: RejectCode,
    /// The field at fault, in the words of the protocol.
    pub field: &'static str,
}

impl Invalid {
    /// A reason at a field.
    #[must_use]
    pub fn new(code: RejectCode, field: &'static str) -> Self {
        Self { code, field }
    }
}

/// What the collector knows about an event besides its JSON.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// From the credential.
    pub workspace: Workspace,
    /// By our clock.
    pub received_at: Timestamp,
    /// When the client sent the request, if the protocol says so outside the event.
    pub sent_at: Option<Timestamp>,
    /// The request's own `User-Agent`, for events that carry none.
    pub user_agent: Option<SmolStr>,
    /// Oldest event time that is taken; `None` for keys that may send history.
    pub oldest: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, RawValue>>,
    #[serde(borrow)]
    user_id: Option<Cow<'a, RawValue>>,
    #[serde(borrow)]
    anonymous_id: Option<Cow<'a, RawValue>>,
    #[serde(borrow)]
    previous_id: Option<Cow<'a, RawValue>>,
    #[serde(borrow)]
    signal: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    sent_at: Option<&'a RawValue>,
    #[serde(borrow)]
    money: Option<MoneyShape<'a>>,
    #[serde(borrow, alias = "flag_id", alias = "account_id")]
    order_id: Option<Cow<'a, RawValue>>,
    #[serde(borrow)]
    consent: Option<&'a RawValue>,
    #[serde(borrow, default)]
    context: Option<ContextShape<'a>>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MoneyShape<'a> {
    #[serde(borrow)]
    amount: &'a RawValue,
    #[serde(borrow)]
    currency: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
struct ContextShape<'a> {
    #[serde(borrow)]
    user_agent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    page_url: Option<Cow<'a, str>>,
    #[serde(borrow)]
    referrer: Option<Cow<'a, str>>,
}

/// Reads one canonical event from the text of one JSON object.
pub fn read(text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
    let shape: Shape<'_> = serde_json::from_str(text).map_err(|_| Invalid::new(RejectCode::Shape, "event"))?;
    let user = optional_id(shape.user_id.as_deref(), "user_id")?.map(PersonId::Known);
    let anonymous = optional_id(shape.anonymous_id.as_deref(), "anonymous_id")?.map(PersonId::Anonymous);
    let previous = optional_id(shape.previous_id.as_deref(), "previous_id")?;
    if user.is_none() && anonymous.is_none() {
        return Err(Invalid::new(RejectCode::NoIdentity, "user_id"));
    }
    let name = shape.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
    let signal = match shape.signal.as_deref() {
        Some(signal) => Signal::parse(signal).ok_or(Invalid::new(RejectCode::NoSignal, "signal"))?,
        None if name.is_some() => Signal::Custom,
        None => return Err(Invalid::new(RejectCode::NoSignal, "signal")),
    };
    let channel = match shape.channel.as_deref() {
        Some(channel) => Channel::parse(channel).ok_or(Invalid::new(RejectCode::Channel, "channel"))?,
        None => signal.default_channel(),
    };
    let occurred_at = time_field(shape.timestamp, "timestamp")?;
    check_age(occurred_at, receipt, "timestamp")?;
    let sent_at = time_field(shape.sent_at, "sent_at")?.or(receipt.sent_at);
    let money = match &shape.money {
        Some(money) => Some(money_field(money.amount, &money.currency)?),
        None => None,
    };
    let order = optional_id(shape.order_id.as_deref(), "order_id")?;
    let consent = match present(shape.consent) {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| Invalid::new(RejectCode::Consent, "consent"))?,
        None => ConsentContext::new(),
    };
    let context = shape.context.unwrap_or_default();
    let time_bytes = occurred_at.map_or([0; 8], |at| at.0.to_le_bytes());
    let print = fingerprint([
        signal.name().as_bytes(),
        name.unwrap_or("").as_bytes(),
        user.as_ref().map_or("", PersonId::as_str).as_bytes(),
        anonymous.as_ref().map_or("", PersonId::as_str).as_bytes(),
        time_bytes.as_slice(),
        shape.money.as_ref().map_or("", |money| money.amount.get()).as_bytes(),
        present(shape.properties).map_or("", RawValue::get).as_bytes(),
    ]);
    let id = match optional_id(shape.id.as_deref(), "id")? {
        Some(id) => EventId::new(&id).map_err(|error| id_error(error, "id"))?,
        None => derived_id(&receipt.workspace, text, receipt.received_at),
    };
    Ok(Event {
        workspace: receipt.workspace.clone(),
        id,
        person: PersonIds {
            user,
            anonymous,
            previous,
        },
        signal,
        name: name.map(SmolStr::new),
        channel,
        source: Source::Canonical,
        occurred_at,
        sent_at,
        received_at: receipt.received_at,
        money,
        order,
        consent,
        client: Client {
            user_agent: context
                .user_agent
                .as_deref()
                .map(SmolStr::new)
                .or_else(|| receipt.user_agent.clone()),
            page_url: context.page_url.as_deref().map(SmolStr::new),
            referrer: context.referrer.as_deref().map(SmolStr::new),
        },
        fingerprint: print,
        payload: text.into(),
    })
}

/// A field that is present and not `null`.
#[must_use]
pub fn present(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

/// An identifier given as JSON text or whole number; `null` and absence are both none.
pub fn optional_id(raw: Option<&RawValue>, field: &'static str) -> Result<Option<SmolStr>, Invalid> {
    let Some(raw) = present(raw) else { return Ok(None) };
    let text = raw.get();
    let id = if text.starts_with('"') {
        serde_json::from_str::<Cow<'_, str>>(text).map_err(|_| Invalid::new(RejectCode::Shape, field))?
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Cow::Borrowed(text)
    } else {
        return Err(Invalid::new(RejectCode::Shape, field));
    };
    if id.is_empty() {
        return Ok(None);
    }
    PersonId::known(&id)
        .map(|_| Some(SmolStr::new(&id)))
        .map_err(|error| id_error(error, field))
}

/// A time given as text or number; `null`, `""` and absence are none.
pub fn time_field(raw: Option<&RawValue>, field: &'static str) -> Result<Option<Timestamp>, Invalid> {
    let Some(raw) = present(raw) else { return Ok(None) };
    let text = raw.get();
    let parsed = if text.starts_with('"') {
        let text: Cow<'_, str> = serde_json::from_str(text).map_err(|_| Invalid::new(RejectCode::TimeType, field))?;
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<i64>() {
            Ok(number) => Timestamp::from_number(number),
            Err(_) => Timestamp::parse(&text),
        }
    } else {
        let number = text
            .split('.')
            .next()
            .unwrap_or(text)
            .parse::<i64>()
            .map_err(|_| Invalid::new(RejectCode::TimeType, field))?;
        Timestamp::from_number(number)
    };
    parsed.map(Some).map_err(|error| match error {
        TimeError::Format => Invalid::new(RejectCode::TimeType, field),
        TimeError::Unit => Invalid::new(RejectCode::TimeUnit, field),
    })
}

/// Refuses a claimed time below the receipt's limit.
pub fn check_age(at: Option<Timestamp>, receipt: &Receipt, field: &'static str) -> Result<(), Invalid> {
    match (at, receipt.oldest) {
        (Some(at), Some(oldest)) if at < oldest => Err(Invalid::new(RejectCode::TimeTooOld, field)),
        _ => Ok(()),
    }
}

/// Money from an amount given as JSON number or decimal text. Purchases and refunds are both positive, so a negative
/// amount is refused.
pub fn money_field(amount: &RawValue, currency: &str) -> Result<Money, Invalid> {
    let invalid = |_| Invalid::new(RejectCode::Value, "money");
    let currency = Currency::parse(currency).map_err(invalid)?;
    let text = amount.get();
    let text: Cow<'_, str> = if text.starts_with('"') {
        serde_json::from_str(text).map_err(|_| Invalid::new(RejectCode::Value, "money"))?
    } else {
        Cow::Borrowed(text)
    };
    let money = Money::parse(&text, currency).map_err(invalid)?;
    if money.minor < 0 {
        Err(Invalid::new(RejectCode::Value, "money"))
    } else {
        Ok(money)
    }
}

/// The id of an event whose client gave none: a hash of workspace, content and the time of receipt. It cannot
/// recognise a client's retry, which is received at another time.
#[must_use]
pub fn derived_id(workspace: &Workspace, text: &str, received_at: Timestamp) -> EventId {
    let mut bytes = Vec::with_capacity(text.len() + 64);
    bytes.extend_from_slice(workspace.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&received_at.0.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    let id = format!("derived-{:032x}", xxh3_128(&bytes));
    EventId::new(&id).unwrap_or_else(|_| unreachable!("40 printable characters are a valid id"))
}

/// The reject code of an identifier error.
#[must_use]
pub fn id_error(error: IdError, field: &'static str) -> Invalid {
    match error {
        IdError::Control => Invalid::new(RejectCode::IdCharset, field),
        IdError::Empty | IdError::TooLong => Invalid::new(RejectCode::IdLength, field),
    }
}
