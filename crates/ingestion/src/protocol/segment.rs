//! The Segment HTTP tracking API: `track`, `identify`, `page`, `screen`, `group`, `alias` and batches of them.
//!
//! Written from the public specification and from captured bodies of the real clients. What a client sends is taken
//! tolerantly where the meaning is certain (`null` objects, numbers as ids, properties of PHP clients that come as
//! `[]`), and refused where it is not (an amount of money that is no number).

use super::{BodyFault, Origin, text, without_userinfo};
use crate::intake::Taken;
use crate::limits::Limits;
use crate::strict::{self, Document, Layout, scan};
use serde::Deserialize;
use serde_json::value::RawValue;
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::BTreeMap;
use vigie_event::json::{
    Invalid, Receipt, check_age, derived_id, id_error, money_field, optional_id, present, time_field,
};
use vigie_event::{
    Channel, Client, ConsentContext, ConsentState, Event, EventId, Money, PersonId, PersonIds, Purpose, RejectCode,
    Signal, Source, fingerprint,
};

/// The currency of an amount that names none, as Segment documents it.
const DEFAULT_CURRENCY: &str = "USD";

/// A type of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something happened.
    Track,
    /// Who the person is.
    Identify,
    /// A page was shown.
    Page,
    /// A screen was shown.
    Screen,
    /// The person belongs to a group.
    Group,
    /// Two ids are one person.
    Alias,
}

impl Kind {
    /// Reads the name that bodies and paths use.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Track,
            Self::Identify,
            Self::Page,
            Self::Screen,
            Self::Group,
            Self::Alias,
        ]
        .into_iter()
        .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// The name that bodies and paths use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Identify => "identify",
            Self::Page => "page",
            Self::Screen => "screen",
            Self::Group => "group",
            Self::Alias => "alias",
        }
    }
}

/// What a path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// One message of this type.
    One(Kind),
    /// A batch of messages that name their type.
    Batch,
}

/// The last segments of the paths below `/v1/`, long and short (the browser client's), with what each takes.
pub const CALLS: &[(&str, Call)] = &[
    ("track", Call::One(Kind::Track)),
    ("t", Call::One(Kind::Track)),
    ("identify", Call::One(Kind::Identify)),
    ("i", Call::One(Kind::Identify)),
    ("page", Call::One(Kind::Page)),
    ("p", Call::One(Kind::Page)),
    ("screen", Call::One(Kind::Screen)),
    ("s", Call::One(Kind::Screen)),
    ("group", Call::One(Kind::Group)),
    ("g", Call::One(Kind::Group)),
    ("alias", Call::One(Kind::Alias)),
    ("a", Call::One(Kind::Alias)),
    ("batch", Call::Batch),
    ("b", Call::Batch),
    ("m", Call::Batch),
    ("import", Call::Batch),
];

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    write_key: Option<&'a RawValue>,
    #[serde(borrow)]
    sent_at: Option<&'a RawValue>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
}

/// A body whose limits hold, before anybody knows whose it is.
#[derive(Debug)]
pub struct Parsed<'a> {
    text: &'a str,
    document: Document,
    call: Call,
    envelope: Envelope<'a>,
}

/// Checks a body's limits and finds its key and its messages.
pub fn parse<'a>(body: &'a [u8], call: Call, limits: &Limits) -> Result<Parsed<'a>, BodyFault> {
    if body.len() > limits.segment.body_bytes {
        return Err(BodyFault::BodyTooLarge);
    }
    let text = text(body)?;
    let layout = Layout {
        key: (call == Call::Batch).then_some("batch"),
        bare: false,
    };
    let document = scan(text, layout, limits.segment.batch_events, &limits.json).map_err(BodyFault::Json)?;
    if document.kind != strict::Kind::Object || (call == Call::Batch && document.items.is_none()) {
        return Err(BodyFault::Shape);
    }
    if document
        .items
        .as_ref()
        .is_some_and(|items| items.len() > limits.segment.batch_events)
    {
        return Err(BodyFault::BatchTooLarge);
    }
    let envelope = serde_json::from_str(text).unwrap_or_default();
    Ok(Parsed {
        text,
        document,
        call,
        envelope,
    })
}

impl Parsed<'_> {
    /// The key that the body carries, for clients that send no header.
    #[must_use]
    pub fn write_key(&self) -> Option<SmolStr> {
        text_of(self.envelope.write_key).map(SmolStr::new)
    }

    /// Reads every message. A fault of the batch's envelope concerns the whole body.
    /// `source` is Segment, or RudderStack, whose clients send the same messages.
    pub fn read(&self, source: Source, receipt: &Receipt, limits: &Limits) -> Result<Vec<Taken>, BodyFault> {
        let sent_at = time_field(self.envelope.sent_at, "sentAt").ok().flatten();
        let receipt = Receipt {
            sent_at: sent_at.or(receipt.sent_at),
            ..receipt.clone()
        };
        match (&self.document.items, self.call) {
            (Some(items), _) => match self.document.fault {
                Some(code) => Err(BodyFault::Json(code)),
                None => Ok(items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| {
                        self.take(source, index, item.span.clone(), item.fault, None, &receipt, limits)
                    })
                    .collect()),
            },
            (None, Call::One(kind)) => {
                let span = self.document.span.clone();
                Ok(vec![self.take(
                    source,
                    0,
                    span,
                    self.document.fault,
                    Some(kind),
                    &receipt,
                    limits,
                )])
            }
            (None, Call::Batch) => Err(BodyFault::Shape),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is known of one message, and of the request around it"
    )]
    fn take(
        &self,
        source: Source,
        ordinal: usize,
        span: std::ops::Range<usize>,
        fault: Option<RejectCode>,
        kind: Option<Kind>,
        receipt: &Receipt,
        limits: &Limits,
    ) -> Taken {
        let text = self.text.get(span).unwrap_or_default();
        // A single message is its own envelope.
        let around = self.envelope.context.filter(|_| kind.is_none());
        let whole = |code| Invalid::new(code, "event");
        let read = if text.len() > limits.event_bytes {
            Err(whole(RejectCode::EventTooLarge))
        } else if let Some(code) = fault {
            Err(whole(code))
        } else {
            read_one(text, kind, around, receipt).map(|event| Event { source, ..event })
        };
        let origin = Origin {
            receipt,
            source,
            kind: kind.map_or("", Kind::name),
            context: around.map_or("", RawValue::get),
        };
        read.map_err(|invalid| origin.letter(&invalid, ordinal, text.as_bytes(), limits))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    anonymous_id: Option<&'a RawValue>,
    #[serde(borrow)]
    previous_id: Option<&'a RawValue>,
    #[serde(borrow)]
    group_id: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    category: Option<&'a RawValue>,
    #[serde(borrow)]
    message_id: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    original_timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    sent_at: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
    #[serde(borrow)]
    traits: Option<&'a RawValue>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Properties<'a> {
    #[serde(borrow)]
    revenue: Option<&'a RawValue>,
    #[serde(borrow)]
    total: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    currency: Option<&'a RawValue>,
    #[serde(borrow)]
    order_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "orderId")]
    order_id_camel: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    referrer: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    #[serde(borrow)]
    user_agent: Option<&'a RawValue>,
    #[serde(borrow)]
    page: Option<&'a RawValue>,
    #[serde(borrow)]
    consent: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Page<'a> {
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    referrer: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Consent<'a> {
    #[serde(borrow)]
    category_preferences: Option<&'a RawValue>,
}

/// Reads one message whose limits were checked. `kind` is the type that the path gave; without it the message names
/// its own. `batch_context` is the context of the batch around it, for what the message's own does not say.
pub fn read_one(
    text: &str,
    kind: Option<Kind>,
    batch_context: Option<&RawValue>,
    receipt: &Receipt,
) -> Result<Event, Invalid> {
    let message: Message<'_> = Some(text)
        .filter(|text| text.starts_with('{'))
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or(Invalid::new(RejectCode::Shape, "event"))?;
    let kind = match kind {
        Some(kind) => kind,
        None => text_of(message.kind)
            .and_then(|name| Kind::parse(&name))
            .ok_or(Invalid::new(RejectCode::UnknownType, "type"))?,
    };
    let user = optional_id(message.user_id, "userId")?;
    let anonymous = optional_id(message.anonymous_id, "anonymousId")?;
    let previous = optional_id(message.previous_id, "previousId")?;
    if user.is_none() && anonymous.is_none() {
        return Err(Invalid::new(RejectCode::NoIdentity, "userId"));
    }
    if kind == Kind::Alias && previous.is_none() {
        return Err(Invalid::new(RejectCode::NoIdentity, "previousId"));
    }
    let properties: Properties<'_> = object(message.properties);
    let (signal, name) = meaning(kind, &message, &properties)?;
    let occurred_at = match time_field(message.timestamp, "timestamp")? {
        Some(at) => Some(at),
        None => time_field(message.original_timestamp, "originalTimestamp")?,
    };
    check_age(occurred_at, receipt, "timestamp")?;
    let money = if signal.is_purchase() || signal.is_refund() {
        money(&properties)?
    } else {
        None
    };
    let order = match optional_id(properties.order_id, "properties.order_id")? {
        // Which company somebody belongs to; one that cannot be a company's id says nothing.
        _ if signal == Signal::Group => optional_id(message.group_id, "groupId").ok().flatten(),
        Some(order) => Some(order),
        None => optional_id(properties.order_id_camel, "properties.orderId")?,
    };
    let channel = text_of(properties.channel)
        .and_then(|channel| Channel::parse(&channel))
        .unwrap_or_else(|| signal.default_channel());
    let own: Context<'_> = object(message.context);
    let around: Context<'_> = object(batch_context);
    let print = fingerprint([
        kind.name().as_bytes(),
        name.as_deref().unwrap_or("").as_bytes(),
        user.as_deref().unwrap_or("").as_bytes(),
        anonymous.as_deref().unwrap_or("").as_bytes(),
        previous.as_deref().unwrap_or("").as_bytes(),
        message.group_id.map_or("", RawValue::get).as_bytes(),
        occurred_at.map_or([0; 8], |at| at.0.to_le_bytes()).as_slice(),
        message.properties.map_or("", RawValue::get).as_bytes(),
        message.traits.map_or("", RawValue::get).as_bytes(),
    ]);
    let id = match optional_id(message.message_id, "messageId")? {
        Some(id) => EventId::new(&id).map_err(|error| id_error(error, "messageId"))?,
        None => derived_id(&receipt.workspace, text, receipt.received_at),
    };
    Ok(Event {
        workspace: receipt.workspace.clone(),
        id,
        person: PersonIds {
            user: user.map(PersonId::Known),
            anonymous: anonymous.map(PersonId::Anonymous),
            previous,
        },
        signal,
        name,
        channel,
        source: Source::Segment,
        occurred_at,
        // A send time that cannot be read corrects nothing; the event itself is not at fault.
        sent_at: time_field(message.sent_at, "sentAt").ok().flatten().or(receipt.sent_at),
        received_at: receipt.received_at,
        money,
        order,
        consent: consent(own.consent.or(around.consent)),
        client: client(&own, &around, &properties, receipt),
        fingerprint: print,
        payload: text.into(),
    })
}

/// The signal of a message and the source's own name for it.
fn meaning(
    kind: Kind,
    message: &Message<'_>,
    properties: &Properties<'_>,
) -> Result<(Signal, Option<SmolStr>), Invalid> {
    let title = || {
        let name = text_of(message.name).or_else(|| text_of(properties.name));
        match (text_of(message.category), name) {
            (Some(category), Some(name)) => Some(SmolStr::new(format!("{category} {name}"))),
            (category, name) => category.or(name).map(SmolStr::new),
        }
    };
    Ok(match kind {
        Kind::Track => {
            let name = text_of(message.event).ok_or(Invalid::new(RejectCode::NoSignal, "event"))?;
            (Signal::named(&name), Some(SmolStr::new(name)))
        }
        Kind::Identify => (Signal::Identify, None),
        Kind::Alias => (Signal::Alias, None),
        Kind::Group => (Signal::Group, None),
        Kind::Page => (Signal::PageView, title()),
        Kind::Screen => (Signal::ScreenView, title()),
    })
}

/// The first amount of `revenue`, `total` and `value`. Its decimal text is read, so no float ever rounds it.
fn money(properties: &Properties<'_>) -> Result<Option<Money>, Invalid> {
    let amounts = [properties.revenue, properties.total, properties.value];
    let Some(amount) = amounts.into_iter().find_map(present) else {
        return Ok(None);
    };
    let currency = match present(properties.currency) {
        Some(raw) => text_of(Some(raw)).ok_or(Invalid::new(RejectCode::Value, "properties.currency"))?,
        None => Cow::Borrowed(DEFAULT_CURRENCY),
    };
    money_field(amount, &currency).map(Some)
}

/// Answers for purposes that are ours. Anything but a plain yes is a no.
fn consent(raw: Option<&RawValue>) -> ConsentContext {
    let consent: Consent<'_> = object(raw);
    let preferences: BTreeMap<Cow<'_, str>, &RawValue> = object(consent.category_preferences);
    let mut answers = ConsentContext::new();
    for (category, answer) in preferences {
        let purpose = match category.to_lowercase().replace([' ', '-'], "_").as_str() {
            "profiling" => Purpose::Profiling,
            "marketing" => Purpose::Marketing,
            "email_open_tracking" => Purpose::EmailOpenTracking,
            _ => continue,
        };
        let state = if answer.get() == "true" {
            ConsentState::Granted
        } else {
            ConsentState::Refused
        };
        let _other_spelling = answers
            .entry(purpose)
            .and_modify(|kept| *kept = (*kept).max(state))
            .or_insert(state);
    }
    answers
}

fn client(own: &Context<'_>, around: &Context<'_>, properties: &Properties<'_>, receipt: &Receipt) -> Client {
    let page: Page<'_> = object(own.page.or(around.page));
    let user_agent = text_of(own.user_agent).or_else(|| text_of(around.user_agent));
    let address = |from_page: Option<&RawValue>, from_properties: Option<&RawValue>| {
        text_of(from_page)
            .or_else(|| text_of(from_properties))
            .map(|url| without_userinfo(&url))
    };
    Client {
        user_agent: user_agent.map(SmolStr::new).or_else(|| receipt.user_agent.clone()),
        page_url: address(page.url, properties.url),
        referrer: address(page.referrer, properties.referrer),
    }
}

/// A JSON object, or nothing where it is absent, `null` or of another kind.
fn object<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>) -> T {
    // Without the check, the fields of an object would also be taken in order, from an array.
    raw.map(RawValue::get)
        .filter(|text| text.starts_with('{'))
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// A text that is not blank.
fn text_of(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let Text(text) = serde_json::from_str::<Text<'_>>(raw?.get()).ok()?;
    match text {
        Cow::Borrowed(text) => Some(Cow::Borrowed(text.trim())),
        Cow::Owned(text) => Some(Cow::Owned(text.trim().to_owned())),
    }
    .filter(|text| !text.is_empty())
}

/// Text that is borrowed where it holds no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
