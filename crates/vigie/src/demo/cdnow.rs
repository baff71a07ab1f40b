//! The CDNOW sample as a stream of purchases: real customers, compiled into the binary (see `fixtures/README.md`).
//!
//! The dates are those of 1997 and 1998 in [`rows`]; [`events`] shifts them by a whole number of days so that the last
//! purchase was made yesterday. Nothing else is changed: every row is an event, amounts of 0 included.

use super::SimEvent;
use anyhow::{Context, Result, ensure};
use std::io::Read;
use vigie_event::{DAY_MS, Day, Timestamp};

const FIXTURE: &[u8] = include_bytes!("../../fixtures/cdnow-sample.csv.gz");
/// More than the fixture inflates to.
const MAX_INFLATED_BYTES: u64 = 1024 * 1024;
/// The data have no time of day; a purchase is put at noon UTC.
const NOON_MS: i64 = DAY_MS / 2;
/// 1998-06-30, the last day of the data.
const LAST_DAY: Day = Day(10_407);

/// One purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Line of the file, from 1 (the header is line 0).
    pub(crate) line: u32,
    /// The customer: five digits.
    pub(crate) customer: String,
    /// The day of the purchase.
    pub(crate) day: Day,
    /// How many discs were bought.
    pub(crate) discs: u32,
    /// US dollars, as decimal text.
    pub(crate) amount: String,
}

/// Every row of the file, in its order: by customer, then by day.
pub(crate) fn rows() -> Result<Vec<Row>> {
    let mut text = String::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "the input is compiled in, and take() bounds the output"
    )]
    let inflate = flate2::read::GzDecoder::new(FIXTURE);
    let read = inflate
        .take(MAX_INFLATED_BYTES)
        .read_to_string(&mut text)
        .context("inflating the CDNOW sample")?;
    ensure!(
        (read as u64) < MAX_INFLATED_BYTES,
        "the CDNOW sample is larger than expected"
    );
    text.lines()
        .zip(0u32..)
        .skip(1)
        .map(|(text, line)| row(line, text))
        .collect()
}

/// The purchases in order of time, shifted so that the last one was made on the day before `now`.
pub(crate) fn events(now: Timestamp) -> Result<impl Iterator<Item = SimEvent>> {
    let shift_days = now.day().days_since(LAST_DAY) - 1;
    let mut rows = rows()?;
    rows.sort_by_key(|row| (row.day, row.line));
    Ok(rows.into_iter().map(move |row| event(&row, shift_days)))
}

fn row(line: u32, text: &str) -> Result<Row> {
    let mut fields = text.split(',');
    let mut field = |name| {
        fields
            .next()
            .with_context(|| format!("CDNOW line {line} has no {name}"))
    };
    let customer = field("customer_id")?.to_owned();
    let _sample_id = field("sample_id")?;
    let day = Timestamp::parse(field("date")?)
        .with_context(|| format!("date of CDNOW line {line}"))?
        .day();
    let discs = field("cds")?
        .parse()
        .with_context(|| format!("cds of CDNOW line {line}"))?;
    let amount = field("amount")?.to_owned();
    Ok(Row {
        line,
        customer,
        day,
        discs,
        amount,
    })
}

fn event(row: &Row, shift_days: i32) -> SimEvent {
    let at = Day(row.day.0.saturating_add(shift_days)).start().plus_ms(NOON_MS);
    let json = serde_json::json!({
        "id": format!("cdnow-{:05}", row.line),
        "user_id": row.customer,
        "signal": "purchase",
        "timestamp": at.to_string(),
        "money": { "amount": row.amount, "currency": "USD" },
        "properties": { "discs": row.discs },
    });
    SimEvent {
        received_at: at,
        occurred_at: at,
        json: json.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use vigie_event::json::{Receipt, read};
    use vigie_event::{Signal, Workspace};

    #[test]
    fn the_published_counts_are_met() {
        let rows = rows().unwrap();
        assert_eq!(rows.len(), 6_919);
        assert_eq!(
            rows.iter().map(|row| &row.customer).collect::<BTreeSet<_>>().len(),
            2_357
        );
        assert_eq!(
            rows.iter().map(|row| row.day).min(),
            Some(Timestamp::parse("1997-01-01").unwrap().day())
        );
        assert_eq!(rows.iter().map(|row| row.day).max(), Some(LAST_DAY));
    }

    #[test]
    fn every_row_becomes_a_purchase_and_the_last_one_was_made_yesterday() {
        let now = Timestamp::parse("2026-11-21T09:30:00Z").unwrap();
        let events: Vec<_> = events(now).unwrap().collect();
        assert_eq!(events.len(), 6_919);
        assert!(events.windows(2).all(|pair| pair[0].received_at <= pair[1].received_at));
        assert_eq!(events.last().unwrap().received_at.day(), Day(now.day().0 - 1));
        for sim in &events {
            let receipt = Receipt {
                workspace: Workspace::new("cdnow").unwrap(),
                received_at: sim.received_at,
                sent_at: None,
                user_agent: None,
                oldest: None,
            };
            let event = read(&sim.json, &receipt).unwrap();
            assert_eq!(
                (event.signal, event.occurred_at),
                (Signal::Purchase, Some(sim.occurred_at))
            );
            assert!(event.money.is_some());
        }
    }
}
