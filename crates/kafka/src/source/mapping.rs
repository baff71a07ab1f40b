//! From a record of somebody's topic to an event. Canonical and Segment-shaped JSON are read by the same code as over HTTP;
//! CloudEvents and mapped records are first put into the canonical shape, with their values' text untouched.
//!
//! A record without an id gets one from where it stands (source, topic, partition, offset, time), so that reading it again
//! gives the same event. A record without a time gets the one that Kafka keeps with it.

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;
use vigie_event::json::{Invalid, Receipt, derived_id};
use vigie_event::{Event, EventId, RejectCode, Signal, Timestamp};
use vigie_ingestion::limits::Limits;
use vigie_ingestion::protocol::{canonical, segment};
use vigie_ingestion::strict::{Kind, Layout, scan};

/// What the records of a topic look like.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Format {
    /// The JSON that `POST /v1/events` takes, one event a record.
    Canonical,
    /// The JSON of one message of the Segment tracking API, with its `type`.
    Segment,
    /// CloudEvents 1.0, structured (content type `application/cloudevents+json`) or binary (headers `ce_…`). The data is
    /// a canonical event; what it leaves out comes from the attributes: `id` with `source`, `time`, `subject` for the
    /// user, `type` for the signal or name.
    CloudEvents,
    /// Any JSON object, by a mapping of fields.
    Fields(FieldMapping),
}

impl Format {
    /// As written in configurations.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Canonical => "canonical",
            Self::Segment => "segment",
            Self::CloudEvents => "cloud-events",
            Self::Fields(_) => "fields",
        }
    }
}

/// Where the fields of the canonical event come from, and what the source's words for signals mean.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct FieldMapping {
    /// Canonical field (`id`, `user_id`, `anonymous_id`, `previous_id`, `signal`, `name`, `channel`, `timestamp`,
    /// `order_id`, `money.amount`, `money.currency`, `consent`, `properties`) to its origin.
    pub fields: BTreeMap<Field, Origin>,
    /// The source's word for what happened to ours; words that are not here are taken as signals if they are ones, and as
    /// the name of a custom event else.
    pub signals: BTreeMap<String, String>,
}

impl FieldMapping {
    /// Reads `field = origin` and `their word = our signal`, one a text.
    ///
    /// # Errors
    /// The first text that cannot be read, or what no event could be made without.
    pub fn parse(fields: &[String], signals: &[String]) -> Result<Self, String> {
        let parts = |text: &str| {
            let (left, right) = text.split_once('=').ok_or(format!("{text:?} has no `=`"))?;
            Ok::<_, String>((left.trim().to_owned(), right.trim().to_owned()))
        };
        let mut mapping = Self::default();
        for text in fields {
            let (name, origin) = parts(text)?;
            let Some(field) = Field::ALL.into_iter().find(|field| field.written() == name) else {
                let known: Vec<String> = Field::ALL.into_iter().map(Field::written).collect();
                return Err(format!("{name:?} is none of {}", known.join(", ")));
            };
            if mapping.fields.insert(field, Origin::try_from(origin)?).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        for text in signals {
            let (word, signal) = parts(text)?;
            if Signal::parse(&signal).is_none() {
                return Err(format!("{signal:?} in {text:?} is no signal"));
            }
            if mapping.signals.insert(word, signal).is_some() {
                return Err(format!("{text:?}: the word is given twice"));
            }
        }
        let has = |field| mapping.fields.contains_key(&field);
        if !has(Field::UserId) && !has(Field::AnonymousId) {
            return Err("neither user_id nor anonymous_id is mapped: no record would say who it is about".to_owned());
        }
        if !has(Field::Signal) && !has(Field::Name) {
            return Err("neither signal nor name is mapped: no record would say what happened".to_owned());
        }
        Ok(mapping)
    }
}

/// A field of the canonical event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the canonical event's schema")]
pub enum Field {
    Id,
    UserId,
    AnonymousId,
    PreviousId,
    Signal,
    Name,
    Channel,
    Timestamp,
    OrderId,
    #[serde(rename = "money.amount")]
    Amount,
    #[serde(rename = "money.currency")]
    Currency,
    Consent,
    Properties,
}

impl Field {
    const ALL: [Self; 13] = [
        Self::Id,
        Self::UserId,
        Self::AnonymousId,
        Self::PreviousId,
        Self::Signal,
        Self::Name,
        Self::Channel,
        Self::Timestamp,
        Self::OrderId,
        Self::Amount,
        Self::Currency,
        Self::Consent,
        Self::Properties,
    ];

    /// As a mapping names it; an amount stands within its money.
    fn written(self) -> String {
        match self {
            Self::Amount | Self::Currency => format!("money.{}", self.name()),
            other => other.name().to_owned(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::UserId => "user_id",
            Self::AnonymousId => "anonymous_id",
            Self::PreviousId => "previous_id",
            Self::Signal => "signal",
            Self::Name => "name",
            Self::Channel => "channel",
            Self::Timestamp => "timestamp",
            Self::OrderId => "order_id",
            Self::Amount => "amount",
            Self::Currency => "currency",
            Self::Consent => "consent",
            Self::Properties => "properties",
        }
    }
}

/// Where a value comes from: `$.a.b` in the record's JSON (`$` is the whole of it), `key`, `header:NAME`, or `=text`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Origin {
    /// Names of nested objects.
    Path(Vec<String>),
    /// The record's key.
    Key,
    /// A header's value.
    Header(String),
    /// Always the same.
    Constant(String),
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix('$') {
            let path = path.strip_prefix('.').unwrap_or(path);
            let names: Vec<String> = path
                .split('.')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            return Ok(Self::Path(names));
        }
        match text.split_once(':') {
            Some(("header", name)) if !name.is_empty() => return Ok(Self::Header(name.to_owned())),
            _ => {}
        }
        if let Some(constant) = text.strip_prefix('=') {
            return Ok(Self::Constant(constant.to_owned()));
        }
        if text == "key" {
            return Ok(Self::Key);
        }
        Err(format!(
            "{text:?} is none of `$.path.to.field`, `key`, `header:NAME`, `=constant`"
        ))
    }
}

/// A record as this module sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The time that Kafka keeps with it, ms since 1970.
    pub at: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers, in order; a value may be null.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Incoming {
    pub(crate) fn copy(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            let header =
                |header: rdkafka::message::Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
            headers.iter().map(header).collect()
        });
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            at: message.timestamp().to_millis().filter(|at| *at >= 0),
            key: message.key().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            value: message.payload().map(<[u8]>::to_vec),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        found.1.as_deref().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// An id that says where the record stands; its time tells a topic from one that was created anew under its name.
    fn id(&self, source: &str) -> Option<EventId> {
        let at = self.at.unwrap_or(0);
        let id = format!("{source}:{}:{}:{}:{at}", self.topic, self.partition, self.offset);
        // A very long topic name leaves no room: its digest stands for it.
        let digest = vigie_event::fingerprint([self.topic.as_bytes()]);
        let short = || format!("{source}:{digest:016x}:{}:{}:{at}", self.partition, self.offset);
        EventId::new(&id).or_else(|_| EventId::new(&short())).ok()
    }
}

/// Reads a record. `receipt.received_at` is the time of reading.
pub(crate) fn read(
    format: &Format,
    source: &str,
    record: &Incoming,
    receipt: &Receipt,
    limits: &Limits,
) -> Result<Event, Invalid> {
    let whole = |code| Invalid::new(code, "event");
    let value = record.value.as_deref().unwrap_or_default();
    if value.len() > limits.event_bytes {
        return Err(whole(RejectCode::EventTooLarge));
    }
    let text = std::str::from_utf8(value).map_err(|_| whole(RejectCode::Utf8))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
    let layout = Layout { key: None, bare: false };
    let document = scan(text, layout, 0, &limits.json).map_err(whole)?;
    if let Some(code) = document.fault {
        return Err(whole(code));
    }
    if document.kind != Kind::Object {
        return Err(whole(RejectCode::Shape));
    }
    let mut event = match format {
        Format::Canonical => given(canonical::read_one(text, receipt)?, text, receipt),
        Format::Segment => given(segment::read_one(text, None, None, receipt)?, text, receipt),
        Format::CloudEvents => canonical_of(&cloud_event(text, record)?, receipt)?,
        Format::Fields(mapping) => canonical_of(&mapped(text, record, mapping)?, receipt)?,
    };
    if !event.1 {
        event.0.id = record.id(source).ok_or(whole(RejectCode::IdLength))?;
    }
    let mut event = event.0;
    if event.occurred_at.is_none() {
        event.occurred_at = record.at.map(Timestamp);
    }
    Ok(event)
}

/// An event, and whether its id is its own.
fn given(event: Event, text: &str, receipt: &Receipt) -> (Event, bool) {
    let own = event.id != derived_id(&receipt.workspace, text, receipt.received_at);
    (event, own)
}

type Object = BTreeMap<String, Box<RawValue>>;

fn canonical_of(object: &Object, receipt: &Receipt) -> Result<(Event, bool), Invalid> {
    let text = serde_json::to_string(object).map_err(|_| Invalid::new(RejectCode::Shape, "event"))?;
    let event = canonical::read_one(&text, receipt)?;
    Ok(given(event, &text, receipt))
}

fn object(text: &str, field: &'static str) -> Result<Object, Invalid> {
    serde_json::from_str(text).map_err(|_| Invalid::new(RejectCode::Shape, field))
}

fn raw(text: &str) -> Option<Box<RawValue>> {
    to_raw_value(text).ok()
}

/// The text of a JSON string, or of another scalar as it stands.
fn text_of(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        text => Some(serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())),
    }
}

/// Puts what happened into the words of the canonical event.
fn set_signal(event: &mut Object, word: &str) {
    let field = if Signal::parse(word).is_some() {
        "signal"
    } else {
        "name"
    };
    if let Some(value) = raw(word) {
        let _ = event.insert(field.to_owned(), value);
    }
}

fn cloud_event(text: &str, record: &Incoming) -> Result<Object, Invalid> {
    let structured = record
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/cloudevents"))
        || record.header("ce_specversion").is_none();
    let mut attributes = if structured {
        object(text, "event")?
    } else {
        Object::new()
    };
    let data = if structured {
        attributes.remove("data")
    } else {
        for name in ["specversion", "id", "source", "type", "time", "subject"] {
            if let Some(value) = record.header(&format!("ce_{name}")).and_then(raw) {
                let _ = attributes.insert(name.to_owned(), value);
            }
        }
        serde_json::from_str(text).ok()
    };
    let attribute = |name: &str| attributes.get(name).and_then(|value| text_of(value));
    let required = |name: &'static str| attribute(name).filter(|value| !value.is_empty());
    if required("specversion").is_none_or(|version| !version.starts_with("1.")) {
        return Err(Invalid::new(RejectCode::UnknownType, "specversion"));
    }
    let missing = |field| Invalid::new(RejectCode::Shape, field);
    let (id, source) = (
        required("id").ok_or(missing("id"))?,
        required("source").ok_or(missing("source"))?,
    );
    let kind = required("type").ok_or(missing("type"))?;
    let mut event = match data {
        Some(data) if data.get() != "null" => object(data.get(), "data")?,
        _ => Object::new(),
    };
    let mut fill = |field: &str, value: Option<String>| {
        if let Some(value) = value.as_deref().and_then(raw) {
            let _ = event.entry(field.to_owned()).or_insert(value);
        }
    };
    // An event is itself by source and id together. What would be too long for one of our ids is shortened.
    let long = format!("{source} {id}");
    let short = || format!("cloudevent:{:016x}:{id}", vigie_event::fingerprint([source.as_bytes()]));
    let id = Some(long).filter(|id| EventId::new(id).is_ok()).unwrap_or_else(short);
    fill("id", Some(id));
    fill("timestamp", attribute("time"));
    if !event.contains_key("user_id")
        && !event.contains_key("anonymous_id")
        && let Some(subject) = attribute("subject").as_deref().and_then(raw)
    {
        let _ = event.insert("user_id".to_owned(), subject);
    }
    if !event.contains_key("signal") && !event.contains_key("name") {
        set_signal(&mut event, &kind);
    }
    Ok(event)
}

fn mapped(text: &str, record: &Incoming, mapping: &FieldMapping) -> Result<Object, Invalid> {
    let mut event = Object::new();
    let (mut amount, mut currency) = (None, None);
    for (field, origin) in &mapping.fields {
        let value = match origin {
            Origin::Path(path) => find(text, path),
            Origin::Key => record
                .key
                .as_deref()
                .and_then(|key| std::str::from_utf8(key).ok())
                .and_then(raw),
            Origin::Header(name) => record.header(name).and_then(raw),
            Origin::Constant(text) => raw(text),
        };
        let Some(value) = value.filter(|value| value.get() != "null") else {
            continue;
        };
        match field {
            Field::Amount => amount = Some(value),
            Field::Currency => currency = Some(value),
            Field::Signal => {
                let word = text_of(&value).unwrap_or_default();
                let word = mapping.signals.get(&word).unwrap_or(&word);
                set_signal(&mut event, word);
            }
            // The signal's word may have become the name already: a name of its own is better.
            _ => {
                let _ = event.insert(field.name().to_owned(), value);
            }
        }
    }
    if let (Some(amount), Some(currency)) = (amount, currency) {
        let money = BTreeMap::from([("amount", amount), ("currency", currency)]);
        let money = to_raw_value(&money).map_err(|_| Invalid::new(RejectCode::Value, "money"))?;
        let _ = event.insert("money".to_owned(), money);
    }
    Ok(event)
}

/// The value at a path, its text untouched.
fn find(text: &str, path: &[String]) -> Option<Box<RawValue>> {
    let mut value: Box<RawValue> = serde_json::from_str(text).ok()?;
    for name in path {
        let mut fields: Object = serde_json::from_str(value.get()).ok()?;
        value = fields.remove(name)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_event::{Channel, Workspace};

    fn receipt(received_at: i64) -> Receipt {
        Receipt {
            workspace: Workspace::new("shop").unwrap(),
            received_at: Timestamp(received_at),
            sent_at: None,
            user_agent: None,
            oldest: None,
        }
    }

    fn record(value: &str) -> Incoming {
        Incoming {
            topic: "orders".to_owned(),
            partition: 3,
            offset: 41,
            at: Some(1_770_000_000_000),
            key: Some(b"k1".to_vec()),
            headers: vec![],
            value: Some(value.as_bytes().to_vec()),
        }
    }

    fn taken(format: &Format, record: &Incoming) -> Result<Event, Invalid> {
        read(format, "crm", record, &receipt(1_770_000_100_000), &Limits::default())
    }

    #[test]
    fn a_record_without_id_and_time_gets_both_from_where_it_stands_however_often_it_is_read() {
        for format in [Format::Canonical, Format::Segment] {
            let record = record(match format {
                Format::Segment => r#"{"type":"track","userId":"u1","event":"Order Completed"}"#,
                _ => r#"{"user_id":"u1","signal":"page.view"}"#,
            });
            let event = taken(&format, &record).unwrap();
            assert_eq!(event.id.as_str(), "crm:orders:3:41:1770000000000");
            assert_eq!(event.occurred_at, Some(Timestamp(1_770_000_000_000)));
            let again = read(&format, "crm", &record, &receipt(1_770_000_999_000), &Limits::default()).unwrap();
            assert_eq!((again.id, again.fingerprint), (event.id, event.fingerprint));
        }
    }

    #[test]
    fn an_id_and_a_time_of_its_own_are_kept() {
        let record = record(r#"{"id":"e7","user_id":"u1","signal":"page.view","timestamp":"2026-02-01T00:00:00Z"}"#);
        let event = taken(&Format::Canonical, &record).unwrap();
        assert_eq!(event.id.as_str(), "e7");
        assert_eq!(
            event.occurred_at,
            Some(Timestamp::parse("2026-02-01T00:00:00Z").unwrap())
        );
    }

    #[test]
    fn a_topic_with_the_longest_name_gives_ids_that_differ() {
        let mut long = record(r#"{"user_id":"u1","signal":"page.view"}"#);
        long.topic = "t".repeat(249);
        let first = taken(&Format::Canonical, &long).unwrap().id;
        long.offset += 1;
        let second = taken(&Format::Canonical, &long).unwrap().id;
        long.topic = "u".repeat(249);
        let third = taken(&Format::Canonical, &long).unwrap().id;
        assert!(first != second && second != third, "{first} {second} {third}");
    }

    #[test]
    fn cloud_events_are_read_alike_structured_and_binary() {
        let data = r#"{"money":{"amount":12.50,"currency":"EUR"},"order_id":"o9"}"#;
        let mut structured = record(&format!(
            r#"{{"specversion":"1.0","id":"A-1","source":"/shop","type":"purchase","time":"2026-02-01T10:00:00Z","subject":"u9","data":{data}}}"#
        ));
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        structured.headers = vec![header("content-type", "application/cloudevents+json; charset=UTF-8")];
        let mut binary = record(data);
        binary.headers = vec![
            header("ce_specversion", "1.0"),
            header("ce_id", "A-1"),
            header("ce_source", "/shop"),
            header("ce_type", "purchase"),
            header("ce_time", "2026-02-01T10:00:00Z"),
            header("ce_subject", "u9"),
            header("content-type", "application/json"),
        ];
        let event = taken(&Format::CloudEvents, &structured).unwrap();
        assert_eq!(event.id.as_str(), "/shop A-1", "an event is itself by source and id");
        assert_eq!(event.signal, Signal::Purchase);
        assert_eq!(event.person.key().unwrap().as_str(), "u9");
        assert_eq!(event.money.unwrap().minor, 1250);
        assert_eq!(event.order.as_deref(), Some("o9"));
        assert_eq!(
            event.occurred_at,
            Some(Timestamp::parse("2026-02-01T10:00:00Z").unwrap())
        );
        assert_eq!(taken(&Format::CloudEvents, &binary), Ok(event));
    }

    #[test]
    fn cloud_events_that_are_none_are_refused_by_field() {
        for (text, field) in [
            (r#"{"id":"1","source":"s","type":"t"}"#, "specversion"),
            (
                r#"{"specversion":"0.3","id":"1","source":"s","type":"t"}"#,
                "specversion",
            ),
            (r#"{"specversion":"1.0","source":"s","type":"t"}"#, "id"),
            (r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#, "id"),
            (r#"{"specversion":"1.0","id":"1","type":"t"}"#, "source"),
            (r#"{"specversion":"1.0","id":"1","source":"s"}"#, "type"),
            (
                r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":7}"#,
                "data",
            ),
            (r#"{"specversion":"1.0","id":"1","source":"s","type":"t"}"#, "user_id"),
        ] {
            assert_eq!(
                taken(&Format::CloudEvents, &record(text)).unwrap_err().field,
                field,
                "{text}"
            );
        }
        let long = format!(
            r#"{{"specversion":"1.0","id":"1","source":"{}","type":"mine","subject":"u"}}"#,
            "s".repeat(500)
        );
        let event = taken(&Format::CloudEvents, &record(&long)).unwrap();
        assert_eq!(event.signal, Signal::Custom, "a type of somebody's own is the name");
        assert_eq!(event.name.as_deref(), Some("mine"));
    }

    #[test]
    fn fields_are_mapped_by_path_key_header_and_constant() {
        let mapping: FieldMapping = serde_json::from_str(
            r#"{"fields":{"user_id":"$.customer.ref","signal":"$.kind","money.amount":"$.total","money.currency":"=EUR",
                "order_id":"key","channel":"header:via","timestamp":"$.at","properties":"$.extra"},
                "signals":{"SALE":"purchase"}}"#,
        )
        .unwrap();
        let mut record = record(
            r#"{"customer":{"ref":4711},"kind":"SALE","total":19.99,"at":1770000000123,"extra":{"big":12345678901234567890}}"#,
        );
        record.headers = vec![("Via".to_owned(), Some(b"store".to_vec()))];
        let event = taken(&Format::Fields(mapping.clone()), &record).unwrap();
        assert_eq!(event.person.key().unwrap().as_str(), "4711");
        assert_eq!((event.signal, event.channel), (Signal::Purchase, Channel::Store));
        assert_eq!(event.money.unwrap().minor, 1999);
        assert_eq!(event.order.as_deref(), Some("k1"));
        assert_eq!(event.occurred_at, Some(Timestamp(1_770_000_000_123)));
        assert_eq!(event.id.as_str(), "crm:orders:3:41:1770000000000");
        assert!(
            event.payload.contains("12345678901234567890"),
            "values keep their text: {}",
            event.payload
        );
        record.value = Some(br#"{"kind":"SALE"}"#.to_vec());
        let nobody = taken(&Format::Fields(mapping), &record).unwrap_err();
        assert_eq!(nobody.code, RejectCode::NoIdentity);
        for bad in ["customer.ref", "header:", "", "keys"] {
            assert!(Origin::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_refused_with_its_reason() {
        for (value, code) in [
            (&b"\xff\xfe"[..], RejectCode::Utf8),
            (b"[]", RejectCode::Shape),
            (b"{", RejectCode::Json),
            (
                br#"{"user_id":"a","user_id":"b","signal":"page.view"}"#,
                RejectCode::DuplicateKey,
            ),
        ] {
            let mut record = record("");
            record.value = Some(value.to_vec());
            assert_eq!(taken(&Format::Canonical, &record).unwrap_err().code, code, "{value:?}");
        }
        let large = record(&format!(r#"{{"user_id":"a","x":"{}"}}"#, "x".repeat(40_000)));
        assert_eq!(
            taken(&Format::Canonical, &large).unwrap_err().code,
            RejectCode::EventTooLarge
        );
    }
}
