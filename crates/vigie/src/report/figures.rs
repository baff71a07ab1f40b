//! Numbers in words: money, shares, points, counts. Digits in groups of three, a real minus sign nowhere, so that figures can be
//! pasted into a spreadsheet.

use std::collections::BTreeMap;
use vigie_event::Currency;

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A difference of shares in percentage points.
pub(super) fn points(difference: f64) -> String {
    format!("{:+.1} points", difference * 100.0)
}

/// Money in major units.
pub(super) fn money(value: f64, currency: &str) -> String {
    let exponent = Currency::parse(currency).map_or(2, Currency::exponent);
    // Of great sums nobody reads the cents.
    let digits = if value.abs() >= 10_000.0 {
        0
    } else {
        usize::try_from(exponent).unwrap_or(2)
    };
    let text = format!("{:.digits$}", value.abs());
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 && text.chars().any(|c| ('1'..='9').contains(&c)) {
        "-"
    } else {
        ""
    };
    let dot = if rest.is_empty() { "" } else { "." };
    format!("{sign}{grouped}{dot}{rest} {currency}")
}

/// Money in minor units.
pub(super) fn minor(value: f64, currency: &str) -> String {
    let exponent = Currency::parse(currency).map_or(2, Currency::exponent);
    money(value / 10f64.powi(exponent.cast_signed()), currency)
}

/// Sums in several currencies.
pub(super) fn major(sums: &BTreeMap<String, i64>) -> String {
    let shown: Vec<String> = sums
        .iter()
        .map(|(currency, sum)| minor(*sum as f64, currency))
        .collect();
    shown.join(" + ")
}

/// A count with its noun.
pub(super) fn many(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_grouped_and_rounded_by_its_size() {
        assert_eq!(money(1234.5, "EUR"), "1 234.50 EUR");
        assert_eq!(money(-0.001, "EUR"), "0.00 EUR");
        assert_eq!(money(-12.0, "EUR"), "-12.00 EUR");
        assert_eq!(money(1_234_567.8, "EUR"), "1 234 568 EUR");
        assert_eq!(minor(1234.0, "JPY"), "1 234 JPY");
        assert_eq!(minor(999_999.0, "EUR"), "9 999.99 EUR");
    }
}
