//! Purchases from a table: CSV (or any one-byte separator) with the names of the columns that matter.
//!
//! Every line that is not a purchase is counted by reason and the first ones are kept with their line number: nothing is
//! dropped silently. It reads text that is at hand and never opens a file.

use std::collections::BTreeMap;
use vigie_event::{Day, Timestamp};

/// Refused lines that are kept to be shown.
const SHOWN: usize = 20;

/// Which columns mean what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Column with the customer's id.
    pub customer: String,
    /// Column with the time: RFC 3339, `YYYY-MM-DD`, or a number of seconds or milliseconds.
    pub time: String,
    /// Column with the amount; without it every line is a purchase of amount 0 and spend says nothing.
    pub amount: Option<String>,
    /// Only lines whose column has this value, `event = purchase` for instance.
    pub only: Option<(String, String)>,
    /// What separates the cells.
    pub separator: u8,
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            customer: "customer_id".to_owned(),
            time: "time".to_owned(),
            amount: Some("amount".to_owned()),
            only: None,
            separator: b',',
        }
    }
}

/// Why a line is not a purchase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The line is not in the format, or has too few cells.
    Malformed,
    /// No customer.
    NoCustomer,
    /// The time cannot be read.
    Time,
    /// The amount cannot be read.
    Amount,
    /// The amount is below 0: money given back.
    Negative,
    /// Another value in the column of `only`.
    Other,
}

impl Refusal {
    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoCustomer => "no_customer",
            Self::Time => "time",
            Self::Amount => "amount",
            Self::Negative => "negative",
            Self::Other => "other",
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Purchases {
    /// Customer, day (UTC) and amount, in the order of the lines.
    pub purchases: Vec<(String, Day, f64)>,
    /// Lines that are no purchase, by reason. Lines read = purchases + the sum of these.
    pub refused: BTreeMap<Refusal, u64>,
    /// The first of them that are not [`Refusal::Other`] or [`Refusal::Negative`]: line number and reason.
    pub shown: Vec<(u64, Refusal)>,
}

/// Why a table cannot be read at all. The operator's to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A column of the mapping is not in the first line.
    #[error("there is no column {column:?}; the table has: {present}. Name the column with the mapping")]
    NoColumn {
        /// The column.
        column: String,
        /// The columns that there are.
        present: String,
    },
    /// The first line cannot be read.
    #[error("the first line cannot be read as names of columns: {0}")]
    Header(String),
}

impl TableError {
    /// The stable name of the kind of error.
    #[must_use]
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::NoColumn { .. } => "table_column",
            Self::Header(_) => "table_header",
        }
    }
}

/// Reads a table. Negative amounts are no purchases; without an amount column all lines are. An amount of 0 is one (a
/// promotion): that is how the customer record counts.
pub fn read_purchases(text: &[u8], mapping: &Mapping) -> Result<Purchases, TableError> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(mapping.separator)
        .flexible(true)
        .from_reader(text);
    let header = reader
        .headers()
        .map_err(|error| TableError::Header(error.to_string()))?
        .clone();
    let column = |name: &str| {
        header
            .iter()
            .position(|cell| cell.trim().trim_start_matches('\u{feff}') == name)
            .ok_or_else(|| TableError::NoColumn {
                column: name.to_owned(),
                present: header.iter().collect::<Vec<_>>().join(", "),
            })
    };
    let (customer, time) = (column(&mapping.customer)?, column(&mapping.time)?);
    let amount = mapping.amount.as_deref().map(column).transpose()?;
    let only = mapping
        .only
        .as_ref()
        .map(|(name, value)| Ok((column(name)?, value)))
        .transpose()?;
    let mut read = Purchases::default();
    for record in reader.records() {
        let line = record
            .as_ref()
            .ok()
            .and_then(|record| record.position())
            .map_or(0, csv::Position::line);
        let purchase = record.map_err(|_| Refusal::Malformed).and_then(|record| {
            let cell = |at: usize| record.get(at).map(str::trim).ok_or(Refusal::Malformed);
            if let Some((at, value)) = only
                && cell(at)? != value
            {
                return Err(Refusal::Other);
            }
            let id = Some(cell(customer)?)
                .filter(|id| !id.is_empty())
                .ok_or(Refusal::NoCustomer)?;
            let day = day(cell(time)?).ok_or(Refusal::Time)?;
            let amount = match amount {
                None => 0.0,
                Some(at) => {
                    let amount: f64 = cell(at)?
                        .parse()
                        .ok()
                        .filter(|a: &f64| a.is_finite())
                        .ok_or(Refusal::Amount)?;
                    if amount < 0.0 {
                        return Err(Refusal::Negative);
                    }
                    amount
                }
            };
            Ok((id.to_owned(), day, amount))
        });
        match purchase {
            Ok(purchase) => read.purchases.push(purchase),
            Err(refusal) => {
                *read.refused.entry(refusal).or_default() += 1;
                if read.shown.len() < SHOWN && !matches!(refusal, Refusal::Other | Refusal::Negative) {
                    read.shown.push((line, refusal));
                }
            }
        }
    }
    Ok(read)
}

/// The UTC day of a time; a time of day without zone is taken to be UTC.
fn day(text: &str) -> Option<Day> {
    let parse = |text: &str| Timestamp::parse(text).ok();
    let number = || text.parse().ok().and_then(|number| Timestamp::from_number(number).ok());
    let date = || {
        text.get(..10)
            .filter(|_| text.len() > 10 && text.as_bytes().get(10).is_some_and(|c| *c == b'T' || *c == b' '))
    };
    let at = parse(text)
        .or_else(number)
        .or_else(|| parse(&format!("{}Z", text.replace(' ', "T"))))
        .or_else(|| date().and_then(parse))?;
    Some(at.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Purchases {
        read_purchases(text.as_bytes(), &Mapping::default()).unwrap()
    }

    #[test]
    fn lines_are_purchases_or_counted_refusals() {
        let text = "customer_id,time,amount\na,1997-01-01,11.5\n\"b,c\",2010-12-01T08:26:00,3\n,1997-01-01,2\nd,soon,1\ne,1997-01-02,x\n\
                    f,1997-01-02,-4\nz,1997-01-02,0\ng,1997-01-02\nh,1997-01-02 10:11:12,5\n";
        let read = read(text);
        let ids: Vec<&str> = read.purchases.iter().map(|(id, _, _)| id.as_str()).collect();
        assert_eq!(ids, ["a", "b,c", "z", "h"]);
        assert_eq!(read.purchases[1].1.to_string(), "2010-12-01");
        assert_eq!(read.refused.values().sum::<u64>() as usize + read.purchases.len(), 9);
        assert_eq!(
            read.shown,
            [
                (4, Refusal::NoCustomer),
                (5, Refusal::Time),
                (6, Refusal::Amount),
                (9, Refusal::Malformed)
            ]
        );
    }

    #[test]
    fn a_missing_column_names_those_that_are_there() {
        let error = read_purchases(b"id,when\n1,2\n", &Mapping::default()).unwrap_err();
        assert!(
            error.to_string().contains("\"customer_id\"") && error.to_string().contains("id, when"),
            "{error}"
        );
        assert_eq!(error.tag(), "table_column");
    }
}
