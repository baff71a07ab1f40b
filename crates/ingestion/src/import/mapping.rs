//! Which column means what. The operator's to write, so everything that does not fit is said at once and by name.

use super::ImportError;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Currency, Signal};

/// Which column of a file means what; a TOML file with these keys. A column that is named must be there. Those that are not
/// named but called `amount`, `currency`, `quantity`, `order_id` or `signal` are taken for what they say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Mapping {
    /// Column with the customer's id; `customer_id` by default. In JSON, `a.b` is `b` within `a`.
    pub customer: Option<String>,
    /// Column with the time; `time` by default.
    pub time: Option<String>,
    /// How the time is written, as strftime does: `%d/%m/%Y %H:%M`. By default ISO 8601 (with or without a time of day and
    /// a zone) or a number of seconds or milliseconds since 1970.
    pub time_format: Option<String>,
    /// What times without a zone mean: `+01:00`; UTC by default.
    pub utc_offset: Option<String>,
    /// What every line is, where no column says it; `purchase` by default.
    pub signal: Option<String>,
    /// Column that says what happened.
    pub signal_column: Option<String>,
    /// The column's words: a signal for each, or `skip`. A word that is neither here nor a signal becomes a custom event of
    /// that name.
    pub signals: BTreeMap<String, String>,
    /// Column with the amount of money in major units.
    pub amount: Option<String>,
    /// ISO 4217 code of all amounts.
    pub currency: Option<String>,
    /// Column with the code.
    pub currency_column: Option<String>,
    /// How fractions are written.
    pub decimal: Decimal,
    /// What a negative amount means.
    pub negative: Negative,
    /// Column with a number of pieces; becomes the property `quantity`.
    pub quantity: Option<String>,
    /// Column with the order's id.
    pub order: Option<String>,
    /// Column with the event's id: one that no other line has. By default a hash of what the line says.
    pub id: Option<String>,
    /// Columns that are kept as properties.
    pub properties: Vec<String>,
    /// Only lines whose columns have these values; the others are counted as skipped.
    pub only: BTreeMap<String, String>,
    /// What separates the cells of a CSV: one ASCII character, `,` by default.
    pub separator: Option<char>,
    /// How the file is encoded.
    pub encoding: Encoding,
}

/// How fractions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Decimal {
    /// `1234.50`
    #[default]
    #[serde(rename = ".")]
    Point,
    /// `1 234,50` or `1.234,50`
    #[serde(rename = ",")]
    Comma,
}

impl Decimal {
    /// The number with a point, and without what groups its digits.
    pub(super) fn plain(self, text: &str) -> String {
        match self {
            Self::Point => text.to_owned(),
            Self::Comma => {
                let kept = text.chars().filter(|c| !c.is_whitespace() && *c != '.');
                kept.map(|c| if c == ',' { '.' } else { c }).collect()
            }
        }
    }
}

/// What a negative amount means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Negative {
    /// A mistake: the line is refused, unless it says itself that money was given back.
    #[default]
    Refuse,
    /// Money given back.
    Refund,
}

/// How a file is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Encoding {
    /// UTF-8.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// ISO 8859-1.
    #[serde(rename = "latin-1")]
    Latin1,
}

/// Why a mapping does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// The file has not got these columns.
    #[error("{}; the file has: {}{}", lacking(.missing), list(.present), hint(.present))]
    NoColumns {
        /// What the column was to be, and its name.
        missing: Vec<(&'static str, String)>,
        /// The columns that there are.
        present: Vec<String>,
    },
    /// The file has no line.
    #[error("the file is empty: its first line must name the columns")]
    Empty,
    /// Amounts without a currency.
    #[error("amounts need a currency: --currency EUR, or in the mapping currency = \"EUR\" or currency-column = \"…\"")]
    NoCurrency,
    /// A value that the key cannot have.
    #[error("{key} cannot be {value:?}: {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A mistake of this module.
    #[error("internal: the name of the workspace is none")]
    Internal,
}

impl MappingError {
    /// The stable name of the kind of error.
    #[must_use]
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::NoColumns { .. } => "import_columns",
            Self::Empty => "import_empty",
            Self::NoCurrency => "import_currency",
            Self::Value { .. } => "import_value",
            Self::Internal => "import_internal",
        }
    }
}

fn lacking(missing: &[(&'static str, String)]) -> String {
    let each = missing
        .iter()
        .map(|(key, column)| format!("no column {column:?} for {key}"));
    each.collect::<Vec<_>>().join(", ")
}

fn list(present: &[String]) -> String {
    present.join(", ")
}

fn hint(present: &[String]) -> &'static str {
    match present {
        [one] if one.contains([';', '\t', '|', ',']) => " (one column: is the separator another one? --separator ';')",
        _ => "",
    }
}

/// A mapping whose columns are known to be there.
#[derive(Debug)]
pub(super) struct Fitted {
    pub(super) customer: String,
    pub(super) time: String,
    pub(super) signal: Signal,
    pub(super) signal_column: Option<String>,
    pub(super) signals: BTreeMap<String, String>,
    pub(super) amount: Option<String>,
    pub(super) currency: Option<String>,
    pub(super) currency_column: Option<String>,
    pub(super) decimal: Decimal,
    pub(super) negative: Negative,
    pub(super) quantity: Option<String>,
    pub(super) order: Option<String>,
    pub(super) id: Option<String>,
    pub(super) properties: Vec<String>,
    pub(super) only: BTreeMap<String, String>,
}

impl Mapping {
    /// Fits it to the columns of a file; `None` for an empty file of JSON lines, which is nobody's mistake.
    pub(super) fn fit(self, columns: Option<&Columns>) -> Result<Fitted, ImportError> {
        let customer = self.customer.unwrap_or_else(|| "customer_id".to_owned());
        let time = self.time.unwrap_or_else(|| "time".to_owned());
        let named = |key, column: &Option<String>| column.clone().map(|column| (key, column));
        let mut wanted = vec![("customer", customer.clone()), ("time", time.clone())];
        wanted.extend(named("signal-column", &self.signal_column));
        wanted.extend(named("amount", &self.amount));
        wanted.extend(named("currency-column", &self.currency_column));
        wanted.extend(named("quantity", &self.quantity));
        wanted.extend(named("order", &self.order));
        wanted.extend(named("id", &self.id));
        wanted.extend(self.properties.iter().map(|column| ("properties", column.clone())));
        wanted.extend(self.only.keys().map(|column| ("only", column.clone())));
        let has = |column: &str| columns.is_some_and(|columns| columns.has(column));
        // Lines of JSON may lack what is not always known; who and when they always say.
        let always = columns.map_or(0, |columns| if columns.fixed { wanted.len() } else { 2 });
        let missing: Vec<_> = wanted
            .iter()
            .take(always)
            .filter(|(_, column)| !has(column))
            .cloned()
            .collect();
        if let (false, Some(columns)) = (missing.is_empty(), columns) {
            return Err(ImportError::Mapping(MappingError::NoColumns {
                missing,
                present: columns.names.clone(),
            }));
        }
        let taken: BTreeSet<&str> = wanted.iter().map(|(_, column)| column.as_str()).collect();
        let found = |column: &str| (has(column) && !taken.contains(column)).then(|| column.to_owned());
        let signal = self.signal.as_deref();
        let signal_column = self
            .signal_column
            .or_else(|| found("signal").filter(|_| signal.is_none()));
        let amount = self.amount.or_else(|| found("amount"));
        let currency_column = self
            .currency_column
            .or_else(|| found("currency").filter(|_| self.currency.is_none()));
        if amount.is_some() && self.currency.is_none() && currency_column.is_none() {
            return Err(MappingError::NoCurrency.into());
        }
        if let Some(code) = self.currency.as_deref()
            && Currency::parse(code).is_err()
        {
            return Err(value("currency", code, "an ISO 4217 code such as EUR"));
        }
        for meant in self.signals.values() {
            if meant != "skip" && Signal::parse(meant).is_none() {
                return Err(value("signals", meant, &format!("skip, or one of {}", signals())));
            }
        }
        let signal = signal.unwrap_or("purchase");
        Ok(Fitted {
            signal: Signal::parse(signal).ok_or_else(|| value("signal", signal, &format!("one of {}", signals())))?,
            quantity: self.quantity.or_else(|| found("quantity")),
            order: self.order.or_else(|| found("order_id")),
            customer,
            time,
            signal_column,
            signals: self.signals,
            amount,
            currency: self.currency,
            currency_column,
            decimal: self.decimal,
            negative: self.negative,
            id: self.id,
            properties: self.properties,
            only: self.only,
        })
    }
}

fn signals() -> String {
    Signal::ALL
        .iter()
        .map(|signal| signal.name())
        .collect::<Vec<_>>()
        .join(", ")
}

pub(super) fn value(key: &'static str, value: &str, expected: &str) -> ImportError {
    ImportError::Mapping(MappingError::Value {
        key,
        value: value.to_owned(),
        expected: expected.to_owned(),
    })
}

/// The columns of a file.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub(super) names: Vec<String>,
    /// Every line has them all.
    pub(super) fixed: bool,
}

impl Columns {
    fn has(&self, column: &str) -> bool {
        // Within an object, only the outer name is known beforehand.
        let outer = column.split('.').next().unwrap_or(column);
        self.names
            .iter()
            .any(|name| name == column || !self.fixed && name == outer)
    }
}
