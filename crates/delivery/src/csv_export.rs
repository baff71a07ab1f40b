//! Rows for spreadsheets: CSV (RFC 4180) in which no text can become a formula. It never escapes a number of ours, so that
//! numbers stay numbers.

use crate::flag::FlagView;

/// The columns.
const COLUMNS: [&str; 9] = [
    "id",
    "customer",
    "policy",
    "stage",
    "score",
    "at_stake",
    "channel",
    "raised_at",
    "reason",
];

/// The table of some flags, with its header.
pub(crate) fn table<'a>(flags: impl Iterator<Item = &'a FlagView>) -> Vec<u8> {
    let mut out = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    // Writing to memory cannot fail.
    let _ = out.write_record(COLUMNS);
    for flag in flags {
        let text = |place: &str| {
            flag.body
                .pointer(place)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
        };
        let _ = out.write_record([
            flag.id.to_string(),
            harmless(&flag.customer),
            harmless(&flag.policy),
            harmless(text("/stage")),
            flag.score.to_string(),
            flag.at_stake.map(|at_stake| at_stake.to_string()).unwrap_or_default(),
            harmless(flag.channel.as_deref().unwrap_or_default()),
            flag.raised_at.to_string(),
            harmless(text("/reasons/0/text")),
        ]);
    }
    out.into_inner().unwrap_or_default()
}

/// A text that spreadsheets show and never compute: with an apostrophe before whatever begins a formula (OWASP, "CSV
/// injection"), full-width forms included.
fn harmless(text: &str) -> String {
    let begins = |c: char| {
        matches!(
            c,
            '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠'
        )
    };
    match text.chars().next() {
        Some(first) if begins(first) => format!("'{text}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::tests::flag;
    use proptest::prelude::*;

    fn rows(customers: &[String]) -> Vec<csv::StringRecord> {
        let flags: Vec<_> = customers
            .iter()
            .zip(1..)
            .map(|(customer, number)| FlagView::read(flag(number, customer).to_string().as_bytes()).unwrap())
            .collect();
        let table = table(flags.iter());
        csv::Reader::from_reader(table.as_slice())
            .records()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn formulas_are_shown_and_numbers_stay_numbers() {
        let bad = [
            "=1+1",
            "+33612345678",
            "-2",
            "@SUM(A1)",
            "\tx",
            "\rx",
            "=cmd|' /C calc'!A0",
            "＝1",
        ];
        for row in rows(&bad.map(str::to_owned)) {
            assert!(row[1].starts_with('\''), "{row:?}");
            assert_eq!(row[4].parse(), Ok(0.71));
        }
    }

    proptest! {
        #[test]
        fn no_cell_begins_a_formula_and_none_is_lost(customers in proptest::collection::vec("[=+@\\-\t\r\n\",;' a-zé]{0,12}", 1..20)) {
            let found = rows(&customers);
            prop_assert_eq!(found.len(), customers.len());
            for (row, customer) in found.iter().zip(&customers) {
                prop_assert_eq!(row.len(), COLUMNS.len());
                for cell in row {
                    prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{cell:?}");
                }
                let cell = &row[1];
                prop_assert!(cell == customer || cell.strip_prefix('\'') == Some(customer));
            }
        }
    }
}
