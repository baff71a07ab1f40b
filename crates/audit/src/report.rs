//! What an audit found, for people and for machines.

use crate::meta::Books;
use serde::Serialize;
use std::fmt::{self, Display};

/// The result in one word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "reason")]
pub enum Verdict {
    /// Every compared byte is the same.
    Equal,
    /// Something differs.
    Different,
    /// Nothing can be said, for this reason.
    NotMeasured(String),
}

impl Verdict {
    /// 0, 1 or 2.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Equal => 0,
            Self::Different => 1,
            Self::NotMeasured(_) => 2,
        }
    }
}

/// How much differs, by kind. All must be 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Customers whom the live store does not have.
    pub missing_live: u64,
    /// Customers whom only the live store has.
    pub extra_live: u64,
    /// Customers whose records differ in some byte.
    pub state_diff: u64,
    /// Flags that the live store does not have.
    pub flag_missing: u64,
    /// Flags that only the live store has, or has twice.
    pub flag_extra: u64,
    /// Flags with other content.
    pub flag_diff: u64,
    /// Workspaces whose books differ, counted per partition.
    pub books_diff: u64,
    /// Partitions whose clock, model or origins differ.
    pub meta_diff: u64,
    /// Derived records with other content, or repeated with other content.
    pub record_diff: u64,
    /// Derived records that the log does not hold, or holds too late to take effect, though later ones of their source are
    /// there.
    pub lost: u64,
    /// Derived records in the log that no cause gave rise to.
    pub phantom: u64,
}

impl Counts {
    /// All of them, with their names.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 11] {
        [
            ("missing_live", self.missing_live),
            ("extra_live", self.extra_live),
            ("state_diff", self.state_diff),
            ("flag_missing", self.flag_missing),
            ("flag_extra", self.flag_extra),
            ("flag_diff", self.flag_diff),
            ("books_diff", self.books_diff),
            ("meta_diff", self.meta_diff),
            ("record_diff", self.record_diff),
            ("lost", self.lost),
            ("phantom", self.phantom),
        ]
    }

    /// The sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.all().iter().map(|(_, count)| count).sum()
    }
}

/// The first difference of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The partition.
    pub partition: u16,
    /// Which of the [`Counts`].
    pub kind: &'static str,
    /// The workspace, where it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The customer, where it concerns one; an anonymous one begins with `anonymous:`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// What differs.
    pub field: String,
    /// Its value in the live store (or the log, for a derived record).
    pub live: String,
    /// Its value as recomputed.
    pub oracle: String,
    /// The command that shows how the record came about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
}

/// The roots of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Roots {
    /// The partition.
    pub partition: u16,
    /// The cut: offset of the first record that is not part of it.
    pub next: u64,
    /// Over the live records.
    pub live: String,
    /// Over the recomputed ones.
    pub oracle: String,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The result.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Partitions of the installation.
    pub partitions: u16,
    /// Partitions compared.
    pub compared: u16,
    /// Events that found their place.
    pub events: u64,
    /// The recomputed books of all workspaces.
    pub books: Books,
    /// Recomputed customer records.
    pub customers: u64,
    /// Live customer records that were read.
    pub customers_live: u64,
    /// Recomputed flags.
    pub flags: u64,
    /// Live flags that were read.
    pub flags_live: u64,
    /// Derived records that were compared.
    pub derived: u64,
    /// Derived records that are expected at the end of the log and not there yet.
    pub in_flight: u64,
    /// Derived records whose cause, or whose target, lies outside of the sample or beyond the cut.
    pub unchecked: u64,
    /// How much differs.
    pub counts: Counts,
    /// The first difference of each partition that has one.
    pub first: Vec<Difference>,
    /// Merkle root over the live records of all compared partitions.
    pub root_live: String,
    /// Merkle root over the recomputed records.
    pub root_oracle: String,
    /// The same per partition.
    pub roots: Vec<Roots>,
}

impl Report {
    /// The exit code of a program that prints this: 0 equal, 1 different, 2 not measured.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.verdict.exit_code()
    }

    /// The report as one JSON document.
    #[must_use]
    pub fn json(&self) -> String {
        // A struct of strings and whole numbers always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// For people.
impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Books {
            applied,
            duplicate,
            suppressed,
            dead_letter,
            conflict,
        } = self.books;
        let ok = |bad: u64| if bad == 0 { "OK" } else { "DIFFERENT" };
        let counts = &self.counts;
        writeln!(f, "audit       {} of {} partitions", self.compared, self.partitions)?;
        writeln!(
            f,
            "events      {}  applied {}  duplicate {}  suppressed {}  dead letter {}  conflict {}  books {}",
            grouped(self.events),
            grouped(applied),
            grouped(duplicate),
            grouped(suppressed),
            grouped(dead_letter),
            grouped(conflict),
            ok(counts.books_diff),
        )?;
        writeln!(
            f,
            "customers   {} == {}  missing {}  extra {}  state_diff {}",
            grouped(self.customers_live),
            grouped(self.customers),
            counts.missing_live,
            counts.extra_live,
            counts.state_diff,
        )?;
        writeln!(
            f,
            "flags       {} == {}  missing {}  extra {}  diff {}",
            grouped(self.flags_live),
            grouped(self.flags),
            counts.flag_missing,
            counts.flag_extra,
            counts.flag_diff,
        )?;
        writeln!(
            f,
            "derived     {}  lost {}  phantom {}  diff {}  in flight {}  unchecked {}",
            grouped(self.derived),
            counts.lost,
            counts.phantom,
            counts.record_diff,
            self.in_flight,
            self.unchecked,
        )?;
        writeln!(f, "partitions  clock, model, origins {}", ok(counts.meta_diff))?;
        for difference in &self.first {
            let whom = match (&difference.workspace, &difference.customer) {
                (Some(workspace), Some(customer)) => format!(" of {workspace}/{customer}"),
                (Some(workspace), None) => format!(" of {workspace}"),
                _ => String::new(),
            };
            writeln!(
                f,
                "partition {}: {}{whom}\n  {}\n    live    {}\n    oracle  {}",
                difference.partition, difference.kind, difference.field, difference.live, difference.oracle
            )?;
            if let Some(command) = &difference.explain {
                writeln!(f, "  {command}")?;
            }
        }
        writeln!(f, "merkle live    {}", self.root_live)?;
        writeln!(f, "merkle oracle  {}", self.root_oracle)?;
        match &self.verdict {
            Verdict::Equal => write!(f, "EQUAL"),
            Verdict::Different => write!(f, "DIFFERENT"),
            Verdict::NotMeasured(reason) => write!(f, "NOT MEASURED: {reason}"),
        }
    }
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 12, 123, 1234, 1_234_567].map(super::grouped),
            ["0", "12", "123", "1,234", "1,234,567"]
        );
    }
}
