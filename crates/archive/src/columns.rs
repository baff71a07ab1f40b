//! The columns of an archive file, and the way of a log record into them and out again.
//!
//! Most columns are there to be asked about and are derived from the record and from what became of it. Two columns
//! are the record itself: `record` holds its bytes without the payload, `payload` holds that. Whether the two give the
//! original bytes back is tried when they are written; where they do not (bytes of another encoder, bytes that are no
//! record), `record` holds the original whole and `whole` says so. Nothing is lost whatever the bytes are.
//!
//! Nothing here performs I/O, and nothing here decides what a record means: unreadable bytes are a kind of row.

use crate::ArchiveError;
use bytes::Bytes;
use datafusion::arrow::array::{
    ArrayRef, BinaryViewBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Int64Builder, StringViewBuilder,
    TimestampMillisecondBuilder, UInt16Builder, UInt64Builder,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use std::sync::{Arc, LazyLock};
use vigie_event::{
    Body, CodecError, Day, Event, Findings, Judgement, Money, PersonId, Position, Record, SessionVerdict, Timestamp,
    Workspace,
};

/// Version of the columns, kept in the manifest. A reader refuses a version that it does not know.
pub(crate) const SCHEMA_VERSION: u32 = 1;
/// Decimal places of `amount`: those of the currencies with the most.
const AMOUNT_SCALE: u32 = 3;
/// The columns that SQL does not show.
const HIDDEN: [&str; 3] = ["record", "whole", "judgement"];

/// One record of the log and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where it stands in the log.
    pub position: Position,
    /// The log record's bytes, exactly.
    pub bytes: Bytes,
    /// What the worker decided.
    pub judgement: Judgement,
}

/// A row that has been looked into.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) position: Position,
    judgement: Judgement,
    record: Option<Record>,
    /// What goes into the column `record`.
    stored: Vec<u8>,
    /// `stored` is the original.
    whole: bool,
}

impl Prepared {
    pub(crate) fn new(row: &Row) -> Self {
        let (record, stored, whole) = split(&row.bytes);
        Self {
            position: row.position,
            judgement: row.judgement,
            record,
            stored,
            whole,
        }
    }

    pub(crate) fn workspace(&self) -> Option<&Workspace> {
        match &self.record.as_ref()?.body {
            Body::Event(event) => Some(&event.workspace),
            Body::Forward(forward) => Some(&forward.event.workspace),
            Body::Link(link) => Some(&link.workspace),
            Body::Merge(merge) => Some(&merge.workspace),
            Body::Release(release) => Some(&release.workspace),
            Body::Tick(_) | Body::Control(_) => None,
        }
    }

    pub(crate) fn recorded_at(&self) -> Option<Timestamp> {
        self.record.as_ref().map(Record::at)
    }

    /// The UTC day that the row is filed under. Bytes that are no record have no time and are filed under day 0.
    pub(crate) fn day(&self) -> Day {
        self.recorded_at().map_or(Day(0), Timestamp::day)
    }
}

fn event_of(record: &Record) -> Option<&Event> {
    match &record.body {
        Body::Event(event) => Some(event),
        Body::Forward(forward) => Some(&forward.event),
        _ => None,
    }
}

fn event_of_mut(record: &mut Record) -> Option<&mut Event> {
    match &mut record.body {
        Body::Event(event) => Some(event),
        Body::Forward(forward) => Some(&mut forward.event),
        _ => None,
    }
}

/// Takes the payload out of a record's bytes, if they can be put together again.
fn split(bytes: &[u8]) -> (Option<Record>, Vec<u8>, bool) {
    let Ok(mut record) = Record::decode(bytes) else {
        return (None, bytes.to_vec(), true);
    };
    let payload = event_of_mut(&mut record).map(|event| std::mem::take(&mut event.payload));
    let stored = record.encode();
    let joined = join(&stored, false, payload.as_deref()).map(|record| record.encode());
    let whole = joined.as_deref() != Ok(bytes);
    if let (Some(event), Some(payload)) = (event_of_mut(&mut record), payload) {
        event.payload = payload;
    }
    let stored = if whole { bytes.to_vec() } else { stored };
    (Some(record), stored, whole)
}

/// The record of a row. Without `payload`, the record's own is empty.
pub(crate) fn join(stored: &[u8], whole: bool, payload: Option<&str>) -> Result<Record, CodecError> {
    let mut record = Record::decode(stored)?;
    match (event_of_mut(&mut record), payload) {
        (Some(event), Some(payload)) if !whole => event.payload = payload.into(),
        (Some(event), None) if whole => event.payload = Box::default(),
        _ => {}
    }
    Ok(record)
}

/// The columns of a file.
pub(crate) fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let time = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let text = || DataType::Utf8View;
        let needed = |name: &str, kind| Field::new(name, kind, false);
        let optional = |name: &str, kind| Field::new(name, kind, true);
        Arc::new(Schema::new(vec![
            needed("log_partition", DataType::UInt16),
            needed("log_offset", DataType::UInt64),
            needed("kind", text()),
            optional("recorded_at", time()),
            needed("day", DataType::Date32),
            optional("workspace", text()),
            optional("customer", text()),
            optional("user_id", text()),
            optional("anonymous_id", text()),
            optional("event_id", text()),
            optional("signal", text()),
            optional("name", text()),
            optional("channel", text()),
            optional("source", text()),
            optional("occurred_at", time()),
            optional("sent_at", time()),
            optional("received_at", time()),
            optional("at", time()),
            optional("time_verdict", text()),
            optional("human_permille", DataType::UInt16),
            optional("session", text()),
            optional("session_start", time()),
            needed("decision", text()),
            optional("reason", text()),
            optional("amount_minor", DataType::Int64),
            optional("currency", text()),
            optional("amount", DataType::Decimal128(24, 3)),
            optional("order_id", text()),
            optional("user_agent", text()),
            optional("page_url", text()),
            optional("referrer", text()),
            optional("payload", text()),
            needed("record", DataType::BinaryView),
            needed("whole", DataType::Boolean),
            needed("judgement", DataType::BinaryView),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// The names of the columns that SQL shows, in order.
pub(crate) fn shown() -> Vec<String> {
    let names = schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect::<Vec<_>>();
    names
        .into_iter()
        .filter(|name| !HIDDEN.contains(&name.as_str()))
        .collect()
}

/// The index of a column.
pub(crate) fn index(name: &str) -> Result<usize, ArchiveError> {
    schema().index_of(name).map_err(|error| ArchiveError::Query {
        message: error.to_string(),
    })
}

/// What a row is.
fn kind(record: Option<&Record>) -> &'static str {
    match record.map(|record| &record.body) {
        None => "undecodable",
        Some(Body::Event(_)) => "event",
        Some(Body::Forward(_)) => "forward",
        Some(Body::Tick(_)) => "tick",
        Some(Body::Link(_)) => "link",
        Some(Body::Merge(_)) => "merge",
        Some(Body::Release(_)) => "release",
        Some(Body::Control(_)) => "control",
    }
}

/// The identity that keys a row.
fn customer(record: &Record) -> Option<&PersonId> {
    match &record.body {
        Body::Event(event) => event.person.key(),
        Body::Forward(forward) => Some(&forward.into),
        Body::Link(link) => Some(&link.from),
        Body::Merge(merge) => Some(&merge.into),
        Body::Release(release) => Some(&release.holder),
        Body::Tick(_) | Body::Control(_) => None,
    }
}

/// Major units with three decimal places: exact, since no currency has more.
fn amount(money: Money) -> i128 {
    let places = AMOUNT_SCALE.saturating_sub(money.currency.exponent());
    i128::from(money.minor) * 10i128.pow(places)
}

/// Rows on their way into columns.
#[derive(Debug)]
struct Builders {
    log_partition: UInt16Builder,
    log_offset: UInt64Builder,
    kind: StringViewBuilder,
    recorded_at: TimestampMillisecondBuilder,
    day: Date32Builder,
    workspace: StringViewBuilder,
    customer: StringViewBuilder,
    user_id: StringViewBuilder,
    anonymous_id: StringViewBuilder,
    event_id: StringViewBuilder,
    signal: StringViewBuilder,
    name: StringViewBuilder,
    channel: StringViewBuilder,
    source: StringViewBuilder,
    occurred_at: TimestampMillisecondBuilder,
    sent_at: TimestampMillisecondBuilder,
    received_at: TimestampMillisecondBuilder,
    at: TimestampMillisecondBuilder,
    time_verdict: StringViewBuilder,
    human_permille: UInt16Builder,
    session: StringViewBuilder,
    session_start: TimestampMillisecondBuilder,
    decision: StringViewBuilder,
    reason: StringViewBuilder,
    amount_minor: Int64Builder,
    currency: StringViewBuilder,
    amount: Decimal128Builder,
    order_id: StringViewBuilder,
    user_agent: StringViewBuilder,
    page_url: StringViewBuilder,
    referrer: StringViewBuilder,
    payload: StringViewBuilder,
    record: BinaryViewBuilder,
    whole: BooleanBuilder,
    judgement: BinaryViewBuilder,
}

impl Builders {
    fn new() -> Self {
        let text = StringViewBuilder::new;
        let time = || TimestampMillisecondBuilder::new().with_timezone("UTC");
        // Words of closed lists are stored once each.
        let word = || StringViewBuilder::new().with_deduplicate_strings();
        Self {
            log_partition: UInt16Builder::new(),
            log_offset: UInt64Builder::new(),
            kind: word(),
            recorded_at: time(),
            day: Date32Builder::new(),
            workspace: word(),
            customer: text(),
            user_id: text(),
            anonymous_id: text(),
            event_id: text(),
            signal: word(),
            name: text(),
            channel: word(),
            source: word(),
            occurred_at: time(),
            sent_at: time(),
            received_at: time(),
            at: time(),
            time_verdict: word(),
            human_permille: UInt16Builder::new(),
            session: word(),
            session_start: time(),
            decision: word(),
            reason: word(),
            amount_minor: Int64Builder::new(),
            currency: word(),
            amount: Decimal128Builder::new().with_data_type(DataType::Decimal128(24, 3)),
            order_id: text(),
            user_agent: text(),
            page_url: text(),
            referrer: text(),
            payload: text(),
            record: BinaryViewBuilder::new(),
            whole: BooleanBuilder::new(),
            judgement: BinaryViewBuilder::new(),
        }
    }

    fn add(&mut self, row: &Prepared) {
        let record = row.record.as_ref();
        self.log_partition.append_value(row.position.partition.0);
        self.log_offset.append_value(row.position.offset.0);
        self.kind.append_value(kind(record));
        self.recorded_at.append_option(row.recorded_at().map(|at| at.0));
        self.day.append_value(row.day().0);
        self.workspace.append_option(row.workspace().map(Workspace::as_str));
        let customer = record.and_then(customer);
        match customer {
            Some(PersonId::Known(id)) => self.customer.append_value(id),
            Some(other) => self.customer.append_value(other.to_string()),
            None => self.customer.append_null(),
        }
        let findings = match &row.judgement {
            Judgement::Applied(findings) => Some(findings),
            _ => None,
        };
        let event = record.and_then(event_of);
        self.add_reported(record, event, findings);
        self.add_judged(findings);
        self.decision.append_value(row.judgement.label());
        self.reason.append_option(row.judgement.reason());
        self.record.append_value(&row.stored);
        self.whole.append_value(row.whole);
        self.judgement.append_value(Judgement::encode(&[row.judgement]));
    }

    fn add_reported(&mut self, record: Option<&Record>, event: Option<&Event>, findings: Option<&Findings>) {
        let declared_by = record.and_then(|record| match &record.body {
            Body::Link(link) => Some(&link.by),
            Body::Merge(merge) => Some(&merge.by),
            Body::Release(release) => Some(&release.by),
            _ => None,
        });
        let event_id = event.map(|event| &event.id).or(declared_by);
        self.event_id.append_option(event_id.map(|id| id.as_str()));
        let person = event.map(|event| &event.person);
        let user = person.and_then(|person| person.user.as_ref());
        let anonymous = person.and_then(|person| person.anonymous.as_ref());
        self.user_id.append_option(user.map(PersonId::as_str));
        self.anonymous_id.append_option(anonymous.map(PersonId::as_str));
        let signal = event.map(|event| findings.map_or(event.signal, |found| found.signal));
        self.signal.append_option(signal.map(|signal| signal.name()));
        self.name.append_option(event.and_then(|event| event.name.as_deref()));
        let channel = event.map(|event| findings.map_or(event.channel, |found| found.channel));
        self.channel.append_option(channel.map(|channel| channel.name()));
        self.source.append_option(event.map(|event| event.source.name()));
        let ms = |at: Option<Timestamp>| at.map(|at| at.0);
        self.occurred_at
            .append_option(ms(event.and_then(|event| event.occurred_at)));
        self.sent_at.append_option(ms(event.and_then(|event| event.sent_at)));
        self.received_at.append_option(ms(event.map(|event| event.received_at)));
        let money = event.and_then(|event| event.money);
        self.amount_minor.append_option(money.map(|money| money.minor));
        self.currency
            .append_option(money.as_ref().map(|money| money.currency.as_str()));
        self.amount.append_option(money.map(amount));
        self.order_id
            .append_option(event.and_then(|event| event.order.as_deref()));
        let client = event.map(|event| &event.client);
        self.user_agent
            .append_option(client.and_then(|client| client.user_agent.as_deref()));
        self.page_url
            .append_option(client.and_then(|client| client.page_url.as_deref()));
        self.referrer
            .append_option(client.and_then(|client| client.referrer.as_deref()));
        self.payload.append_option(event.map(|event| &*event.payload));
    }

    fn add_judged(&mut self, findings: Option<&Findings>) {
        self.at.append_option(findings.map(|found| found.at.0));
        self.time_verdict
            .append_option(findings.map(|found| found.time.label()));
        self.human_permille
            .append_option(findings.map(|found| found.human_permille));
        let (session, start) = match findings.map(|found| (found.session, found.at)) {
            Some((SessionVerdict::Starts, at)) => (Some("starts"), Some(at)),
            Some((SessionVerdict::Continues { since }, _)) => (Some("continues"), Some(since)),
            Some((SessionVerdict::None, _)) => (Some("none"), None),
            None => (None, None),
        };
        self.session.append_option(session);
        self.session_start.append_option(start.map(|at| at.0));
    }

    /// In the order of [`schema`].
    fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.log_partition.finish()),
            Arc::new(self.log_offset.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.recorded_at.finish()),
            Arc::new(self.day.finish()),
            Arc::new(self.workspace.finish()),
            Arc::new(self.customer.finish()),
            Arc::new(self.user_id.finish()),
            Arc::new(self.anonymous_id.finish()),
            Arc::new(self.event_id.finish()),
            Arc::new(self.signal.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.channel.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.occurred_at.finish()),
            Arc::new(self.sent_at.finish()),
            Arc::new(self.received_at.finish()),
            Arc::new(self.at.finish()),
            Arc::new(self.time_verdict.finish()),
            Arc::new(self.human_permille.finish()),
            Arc::new(self.session.finish()),
            Arc::new(self.session_start.finish()),
            Arc::new(self.decision.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.amount_minor.finish()),
            Arc::new(self.currency.finish()),
            Arc::new(self.amount.finish()),
            Arc::new(self.order_id.finish()),
            Arc::new(self.user_agent.finish()),
            Arc::new(self.page_url.finish()),
            Arc::new(self.referrer.finish()),
            Arc::new(self.payload.finish()),
            Arc::new(self.record.finish()),
            Arc::new(self.whole.finish()),
            Arc::new(self.judgement.finish()),
        ];
        RecordBatch::try_new(schema(), columns)
    }
}

/// Rows as columns.
pub(crate) fn batch<'a>(rows: impl IntoIterator<Item = &'a Prepared>) -> Result<RecordBatch, ArrowError> {
    let mut builders = Builders::new();
    for row in rows {
        builders.add(row);
    }
    builders.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vigie_event::Tick;

    fn original(bytes: &[u8]) -> Vec<u8> {
        match split(bytes) {
            (_, stored, true) => stored,
            (record, stored, false) => {
                let payload = record.as_ref().and_then(event_of).map(|event| event.payload.clone());
                join(&stored, false, payload.as_deref())
                    .map(|record| record.encode())
                    .unwrap_or_default()
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(original(&bytes), bytes);
        }

        #[test]
        fn bytes_that_begin_like_a_record_come_back(tail in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = Record::new(Body::Tick(Tick { at: Timestamp(7) })).encode();
            bytes.truncate(3);
            bytes.extend(tail);
            prop_assert_eq!(original(&bytes), bytes);
        }
    }

    #[test]
    fn amounts_are_in_major_units() {
        let of = |minor, code| {
            amount(Money {
                minor,
                currency: vigie_event::Currency::parse(code).unwrap(),
            })
        };
        assert_eq!(
            (of(1250, "EUR"), of(-1, "KWD"), of(1500, "JPY")),
            (12_500, -1, 1_500_000)
        );
        assert_eq!(of(i64::MIN, "JPY"), i128::from(i64::MIN) * 1000);
    }

    #[test]
    fn builders_follow_the_schema() {
        let batch = batch(std::iter::empty()).unwrap();
        assert_eq!(batch.schema(), schema());
    }
}
