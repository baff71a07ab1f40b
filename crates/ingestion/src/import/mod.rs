//! History out of files: CSV, or one JSON object a line, turned into canonical events by a [`Mapping`] of columns.
//!
//! Text in; for every line its event, or the reason why it is none. What a line says is judged by the reader that the
//! collector uses, so that a dry run says what a server would. Every event gets an id that is a hash of what it says and of
//! how often the file said so before: reading a file again, or one that overlaps it, gives the same ids, which is how an
//! import that was interrupted is resumed. Constant memory but for 16 bytes a line for those ids. It never sends anything,
//! opens no file and reads no clock.

mod cells;
mod mapping;
mod times;

pub use mapping::{Decimal, Encoding, Mapping, MappingError, Negative};

use crate::limits::Limits;
use crate::protocol::canonical::{self, read_body};
use cells::{Cells, Rows};
use mapping::Fitted;
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Read;
use times::Times;
use vigie_event::json::Receipt;
use vigie_event::{Currency, Money, RejectCode, Signal, Timestamp, Workspace};

/// Bytes of one line at most: beyond it a CSV has a quote that is not closed.
pub const MAX_LINE: usize = 1 << 20;

/// How a file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Cells with a separator; the first line names the columns.
    Csv,
    /// One JSON object a line.
    JsonLines,
}

impl Format {
    /// By the name of a file: `.csv`, `.tsv` and `.txt`, or `.jsonl`, `.ndjson` and `.json`, each with or without `.gz`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "csv" | "tsv" | "txt" => Some(Self::Csv),
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

/// Why a line gives no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Too few cells, no JSON object, text in another encoding, or a line that is too long.
    Malformed,
    /// Nobody is named.
    NoCustomer,
    /// The time cannot be read.
    Time,
    /// The amount cannot be read, or its currency.
    Amount,
    /// The amount is negative, and the line does not say that money was given back.
    Negative,
    /// The quantity is no number.
    Quantity,
    /// The collector would refuse the event for this.
    Event(RejectCode),
}

impl Refusal {
    /// The stable name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoCustomer => "no_customer",
            Self::Time => "time",
            Self::Amount => "amount",
            Self::Negative => "negative",
            Self::Quantity => "quantity",
            Self::Event(code) => code.label(),
        }
    }

    /// What it means and what to do, in a sentence.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Malformed => {
                "the line is not in the format: too few cells, no JSON object, another encoding, or more than 1 MiB"
            }
            Self::NoCustomer => "the line names no customer",
            Self::Time => {
                "the time cannot be read; describe it in the mapping, for example time-format = \"%d/%m/%Y %H:%M\""
            }
            Self::Amount => {
                "the amount is not a decimal number or the currency no ISO 4217 code; for 12,50 say decimal = \",\""
            }
            Self::Negative => {
                "the amount is negative; say negative = \"refund\" in the mapping if that means money given back"
            }
            Self::Quantity => "the quantity is not a number",
            Self::Event(code) => code.hint(),
        }
    }
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A canonical event as JSON.
    Event(String),
    /// The mapping leaves such lines out.
    Skipped,
    /// No event, and the line as it stood (at most its first 8 KiB).
    Refused(Refusal, String),
}

/// One line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, counted from 1 by line feeds, the names of columns included.
    pub number: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The mapping does not fit itself or the file.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The file cannot be read on.
    #[error("line {line}: {error}")]
    Io {
        /// The line that begins there.
        line: u64,
        /// Why.
        error: std::io::Error,
    },
}

/// A file being read, line by line. Ends after the first error.
#[derive(Debug)]
pub struct Import<R: Read> {
    rows: Rows<R>,
    reading: Reading,
    ended: bool,
}

/// How the cells of a line become an event.
#[derive(Debug)]
struct Reading {
    /// None: the lines are events already.
    mapping: Option<Fitted>,
    times: Times,
    receipt: Receipt,
    limits: Limits,
    /// How often each content was met, by half of its hash.
    met: HashMap<u64, u32>,
}

impl<R: Read> Import<R> {
    /// Begins to read. Without a mapping the lines are canonical events in JSON. `now` is the latest time that an event can
    /// have been received at.
    pub fn new(input: R, format: Format, mapping: Option<&Mapping>, now: Timestamp) -> Result<Self, ImportError> {
        let shape = mapping.cloned().unwrap_or_default();
        let times = Times::of(&shape)?;
        let mut rows = Rows::open(input, format, &shape)?;
        let fitted = match (mapping, format) {
            (None, Format::JsonLines) => None,
            _ => Some(shape.fit(rows.columns()?.as_ref())?),
        };
        let workspace = Workspace::new("import").map_err(|_| MappingError::Internal)?;
        Ok(Self {
            rows,
            reading: Reading {
                mapping: fitted,
                times,
                receipt: Receipt {
                    workspace,
                    received_at: now,
                    sent_at: None,
                    user_agent: None,
                    oldest: None,
                },
                limits: Limits::default(),
                met: HashMap::new(),
            },
            ended: false,
        })
    }
}

impl Reading {
    fn outcome(&mut self, cells: &Cells) -> Outcome {
        let refused = |refusal| Outcome::Refused(refusal, cells.text());
        let event = match &self.mapping {
            None => as_it_is(cells),
            Some(mapping) => match mapped(mapping, &self.times, cells) {
                Ok(Some(event)) => Ok(event),
                Ok(None) => return Outcome::Skipped,
                Err(refusal) => Err(refusal),
            },
        };
        match event.and_then(|event| self.identified(event)) {
            Ok(json) => Outcome::Event(json),
            Err(refusal) => refused(refusal),
        }
    }

    /// Gives the event its id where it has none, and has it judged.
    fn identified(&mut self, event: Draft) -> Result<String, Refusal> {
        let json = if event.has_id {
            event.json
        } else {
            let digest = Sha256::digest(event.json.as_bytes());
            let half = digest
                .iter()
                .take(8)
                .fold(0u64, |all, byte| all << 8 | u64::from(*byte));
            let before = self.met.entry(half).or_default();
            let digest = Sha256::new()
                .chain_update(digest)
                .chain_update(before.to_le_bytes())
                .finalize();
            *before = before.saturating_add(1);
            let mut id = String::from("import-");
            for byte in digest.iter().take(16) {
                // Writing to a String cannot fail.
                let _ = write!(id, "{byte:02x}");
            }
            // The object is not empty, so the id can be put before its first field.
            let rest = event.json.get(1..).unwrap_or_default();
            format!("{{\"id\":\"{id}\",{rest}")
        };
        let judged = read_body(json.as_bytes(), &self.receipt, &self.limits);
        match judged {
            Ok(canonical::Reading::Single(taken)) => match *taken {
                Ok(_) => Ok(json),
                Err(letter) => Err(Refusal::Event(letter.code)),
            },
            Ok(canonical::Reading::Batch(_)) => Err(Refusal::Event(RejectCode::Shape)),
            Err(fault) => Err(Refusal::Event(fault.kept_as().unwrap_or(RejectCode::Shape))),
        }
    }
}

impl<R: Read> Iterator for Import<R> {
    type Item = Result<Line, ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let (number, cells) = match self.rows.next()? {
            Ok(row) => row,
            Err((line, error)) => {
                self.ended = true;
                return Some(Err(ImportError::Io { line, error }));
            }
        };
        let outcome = match cells {
            Ok(cells) => self.reading.outcome(&cells),
            Err(text) => Outcome::Refused(Refusal::Malformed, text),
        };
        Some(Ok(Line { number, outcome }))
    }
}

/// An event that may still need an id.
struct Draft {
    json: String,
    has_id: bool,
}

/// The line is an event already.
fn as_it_is(cells: &Cells) -> Result<Draft, Refusal> {
    let json = cells.object().ok_or(Refusal::Malformed)?.to_owned();
    let empty = json.trim_end_matches('}').trim_end() == "{";
    let has_id = cells.get("id").is_some();
    match empty {
        true => Err(Refusal::NoCustomer),
        false => Ok(Draft { json, has_id }),
    }
}

/// What a mapped line says, in the order in which it is written.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    user_id: &'a str,
    signal: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    money: Option<EventMoney<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    properties: BTreeMap<&'a str, Property<'a>>,
}

#[derive(Serialize)]
struct EventMoney<'a> {
    amount: &'a str,
    currency: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Property<'a> {
    Raw(&'a RawValue),
    Text(&'a str),
}

/// The event of a line; `None` when the mapping leaves it out.
fn mapped(mapping: &Fitted, times: &Times, cells: &Cells) -> Result<Option<Draft>, Refusal> {
    if !cells.complete() {
        return Err(Refusal::Malformed);
    }
    let full = |column: &str| cells.get(column).filter(|text| !text.is_empty());
    let other = |(column, wanted): (&String, &String)| cells.get(column).as_deref() != Some(wanted.as_str());
    if mapping.only.iter().any(other) {
        return Ok(None);
    }
    let (mut signal, name) = match &mapping.signal_column {
        None => (mapping.signal, None),
        Some(column) => {
            let said = full(column).ok_or(Refusal::Event(RejectCode::NoSignal))?;
            let meant = mapping.signals.get(said.as_ref()).map_or(said.as_ref(), String::as_str);
            match (meant, Signal::parse(meant)) {
                ("skip", _) => return Ok(None),
                (_, Some(signal)) => (signal, None),
                // What has no name here is kept and counted under its own.
                (other, None) => (Signal::Custom, Some(other.to_owned())),
            }
        }
    };
    let customer = full(&mapping.customer).ok_or(Refusal::NoCustomer)?;
    let at = full(&mapping.time)
        .and_then(|text| times.read(&text))
        .ok_or(Refusal::Time)?;
    let amount = mapping
        .amount
        .as_deref()
        .and_then(full)
        .map(|text| mapping.decimal.plain(&text));
    let mut money = None;
    if let Some(amount) = &amount {
        let currency = match &mapping.currency_column {
            Some(column) => full(column).ok_or(Refusal::Amount)?.into_owned(),
            None => mapping.currency.clone().ok_or(Refusal::Amount)?,
        };
        let currency = Currency::parse(&currency).map_err(|_| Refusal::Amount)?;
        let minor = Money::parse(amount, currency).map_err(|_| Refusal::Amount)?.minor;
        let back = signal == Signal::Refund;
        if minor < 0 && !back {
            match mapping.negative {
                Negative::Refund => signal = Signal::Refund,
                Negative::Refuse => return Err(Refusal::Negative),
            }
        }
        money = Some((amount.strip_prefix('-').unwrap_or(amount), currency));
    }
    let quantity = mapping
        .quantity
        .as_deref()
        .and_then(full)
        .map(|text| mapping.decimal.plain(&text));
    let quantity = match &quantity {
        Some(text) => Some(number(text).ok_or(Refusal::Quantity)?),
        None => None,
    };
    let texts: Vec<(&str, _)> = mapping
        .properties
        .iter()
        .filter_map(|column| Some((column.as_str(), full(column)?)))
        .collect();
    let mut properties: BTreeMap<&str, Property<'_>> = texts
        .iter()
        .map(|(name, text)| (*name, number(text).map_or(Property::Text(text), Property::Raw)))
        .collect();
    if let Some(quantity) = quantity {
        let _ = properties.insert("quantity", Property::Raw(quantity));
    }
    let id = mapping
        .id
        .as_deref()
        .map(|column| full(column).ok_or(Refusal::Event(RejectCode::IdLength)))
        .transpose()?;
    let order = mapping.order.as_deref().and_then(full);
    let event = Event {
        id: id.as_deref(),
        user_id: &customer,
        signal: signal.name(),
        name: name.as_deref(),
        timestamp: at.to_string(),
        money: money.as_ref().map(|(amount, currency)| EventMoney {
            amount,
            currency: currency.as_str(),
        }),
        order_id: order.as_deref(),
        properties,
    };
    // Text, numbers and maps with text keys always have a JSON form.
    let json = serde_json::to_string(&event).map_err(|_| Refusal::Malformed)?;
    Ok(Some(Draft {
        has_id: event.id.is_some(),
        json,
    }))
}

/// The text as a JSON number, where it is one: `007` is a text.
fn number(text: &str) -> Option<&RawValue> {
    let first = text.trim_start_matches('-').bytes().next()?;
    let raw: &RawValue = first.is_ascii_digit().then(|| serde_json::from_str(text).ok())??;
    Some(raw)
}

#[cfg(test)]
mod tests;
