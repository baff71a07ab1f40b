//! Results as text for people and as JSON for machines. It words and arranges; it computes nothing that is not in the
//! results already. The names of JSON fields are stable.

use super::diff::{At, Change, Difference, Distribution, PolicyCounts, Raised, policies};
use super::publish::Published;
use super::run::{Configuration, Exact};
use super::source::Source;
use super::{Comparison, Period, Side, distributions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vigie_event::Workspace;
use vigie_pipeline::Books;

/// Customers and flags that text shows; JSON has all.
const SHOWN: usize = 20;

/// A number with its thousands apart.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 flag`, `2 flags`.
pub(super) fn many(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", number(count))
}

fn per_second(count: u64, took: Duration) -> u64 {
    (count as f64 / took.as_secs_f64().max(1e-9)) as u64
}

fn books_text(books: &BTreeMap<Workspace, Books>) -> String {
    let each = books.iter().map(|(workspace, books)| {
        format!(
            "{workspace}: {} applied, {} duplicate, {} suppressed, {} dead letters",
            number(books.applied),
            number(books.duplicate),
            number(books.suppressed),
            number(books.dead_letter)
        )
    });
    let text = each.collect::<Vec<_>>().join("\n             ");
    if text.is_empty() { "no event".to_owned() } else { text }
}

fn books_json(books: &BTreeMap<Workspace, Books>) -> Value {
    let each = books.iter().map(|(workspace, books)| {
        let value = json!({
            "applied": books.applied,
            "duplicate": books.duplicate,
            "suppressed": books.suppressed,
            "dead_letter": books.dead_letter,
            "conflict": books.conflict,
        });
        (workspace.to_string(), value)
    });
    Value::Object(each.collect())
}

/// The result of an exact replay.
pub(super) fn exact(source: &Source, exact: &Exact, into: Option<&Path>) -> String {
    let mut text = format!("exact replay of {}\n\n", source.name);
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<11}  {value}");
    };
    if exact.records == 0 {
        line("records", "none: the log begins after --to".to_owned());
    } else {
        let partitions = many(u64::from(source.partitions), "partition");
        line(
            "records",
            format!("{} of {partitions}, up to {}", number(exact.records), exact.clock),
        );
    }
    line("events", number(exact.events));
    line(
        "customers",
        format!(
            "{}, and {} linked to them",
            number(exact.customers),
            identities(exact.linked)
        ),
    );
    line(
        "flags",
        format!(
            "{} to contact, {} held out",
            number(exact.flagged),
            number(exact.held_out)
        ),
    );
    line("books", books_text(&exact.books));
    line(
        "throughput",
        format!(
            "{} records/s ({:.1} s, {})",
            number(per_second(exact.records, exact.took)),
            exact.took.as_secs_f64(),
            many(u64::from(exact.threads), "thread")
        ),
    );
    line("merkle root", exact.root.to_string());
    line(
        "",
        "`vigie audit` reports the same for a live store at the same offsets".to_owned(),
    );
    if let Some(dir) = into {
        line("store", dir.display().to_string());
    }
    text
}

fn identities(count: u64) -> String {
    match count {
        1 => "1 identity".to_owned(),
        count => format!("{} identities", number(count)),
    }
}

pub(super) fn exact_json(source: &Source, exact: &Exact) -> Value {
    let partitions = exact
        .partitions
        .iter()
        .map(|(partition, (next, root))| json!({"partition": partition.0, "next": next, "root": root.to_string()}));
    json!({
        "kind": "exact",
        "vigie": env!("CARGO_PKG_VERSION"),
        "archive": source.name,
        "records": exact.records,
        "events": exact.events,
        "customers": exact.customers,
        "linked": exact.linked,
        "flags": {"flagged": exact.flagged, "held_out": exact.held_out},
        "books": books_json(&exact.books),
        "clock": At(exact.clock),
        "merkle_root": exact.root.to_string(),
        "partitions": partitions.collect::<Vec<_>>(),
        "seconds": exact.took.as_secs_f64(),
        "records_per_second": per_second(exact.records, exact.took),
        "threads": exact.threads,
    })
}

/// What was written into a log.
pub(super) fn published(published: &Published, dir: &Path) -> String {
    let (Some(first), Some(last)) = (published.first, published.last) else {
        return "no event of the archive is within the period and the selection: nothing was written\n".to_owned();
    };
    let shifted = match published.shift_ms {
        0 => "as they were received".to_owned(),
        ms => format!("moved by {:.1} days", ms as f64 / vigie_event::DAY_MS as f64),
    };
    format!(
        "{} ({} bytes) written into the log in {}, {shifted}: {first} to {last}\n{} events/s ({:.1} s)\n\
         `vigie up --data-dir {}` reads them\n",
        many(published.events, "event"),
        number(published.bytes),
        dir.display(),
        number(per_second(published.events, published.took)),
        published.took.as_secs_f64(),
        dir.display()
    )
}

pub(super) fn published_json(published: &Published, dir: &Path) -> Value {
    json!({
        "kind": "to_log",
        "vigie": env!("CARGO_PKG_VERSION"),
        "dir": dir.display().to_string(),
        "events": published.events,
        "bytes": published.bytes,
        "first": published.first.map(At),
        "last": published.last.map(At),
        "shift_ms": published.shift_ms,
        "seconds": published.took.as_secs_f64(),
    })
}

fn head(what: &str, period: &Period) -> String {
    let mut text = format!("{what} on {}, {} to {}\n", period.archive, period.from, period.to);
    for words in &period.selection {
        let _ = writeln!(text, "only {words}");
    }
    if period.to > period.end {
        let _ = writeln!(text, "the archive ends at {}; what follows is silence", period.end);
    }
    text
}

fn events_text(side: &Side) -> String {
    let (before, within) = side.run.events;
    format!("{} in the period, {} of history before", number(within), number(before))
}

fn versions(configuration: &Configuration) -> String {
    let active = &configuration.active;
    format!(
        "model {}, policies {} ({})",
        active.model.version, active.policies.version, configuration.origin
    )
}

/// Why there is nothing to see, if so.
fn emptiness(period: &Period, side: &Side) -> Option<String> {
    match side.run.events {
        (0, 0) if period.selection.is_empty() => {
            Some("no event was received up to then: nothing was folded".to_owned())
        }
        (0, 0) => Some("no event is selected: nothing was folded".to_owned()),
        (_, 0) => Some("no event was received within the period; only silence can have changed something".to_owned()),
        _ => None,
    }
}

/// The result of one what-if run.
pub(super) fn single(period: &Period, side: &Side) -> String {
    let mut text = head("what-if replay", period);
    let run = &side.run;
    let _ = writeln!(text, "under {}\n", versions(&side.configuration));
    if let Some(why) = emptiness(period, side) {
        let _ = writeln!(text, "{why}\n");
    }
    let _ = writeln!(text, "events       {}", events_text(side));
    let _ = writeln!(text, "customers    {}", number(run.outcome.customers.len() as u64));
    let _ = writeln!(text, "books        {}", books_text(&run.books));
    let _ = writeln!(
        text,
        "flags        {}, and {} before the period\n",
        number(run.outcome.flags.len() as u64),
        number(run.earlier_flags)
    );
    let counts = policies(&run.outcome, None);
    let rows = counts.iter().map(|of| {
        let count = of.baseline.clone().unwrap_or_default();
        vec![of.policy.clone(), number(count.flagged), number(count.held_out)]
    });
    text += &table(&["policy", "to contact", "held out"], &rows.collect::<Vec<_>>());
    text.push('\n');
    let distributions = distributions(run);
    let named = run
        .outcome
        .scores
        .iter()
        .filter_map(|name| Some((name, distributions.get(name)?)));
    let rows = named.map(|(name, of)| [vec![name.clone()], quantiles(of)].concat());
    text += &table(
        &["score", "customers", "10 %", "25 %", "median", "75 %", "90 %"],
        &rows.collect::<Vec<_>>(),
    );
    if !run.outcome.flags.is_empty() {
        text.push('\n');
        let rows = run.outcome.flags.iter().take(SHOWN).map(|flag| {
            vec![
                flag.raised_at.0.to_string(),
                flag.customer.id.clone(),
                flag.policy.clone(),
                flag.kind.replace('_', " "),
                format!("{} {:.3}", flag.score, flag.value),
            ]
        });
        text += &table(
            &["raised at", "customer", "policy", "kind", "score"],
            &rows.collect::<Vec<_>>(),
        );
        text += &more(run.outcome.flags.len(), "flag");
    }
    text
}

fn more(all: usize, what: &str) -> String {
    match all.saturating_sub(SHOWN) {
        0 => String::new(),
        1 => format!("and 1 more {what}; --save or --output json has all\n"),
        left => format!(
            "and {} more {what}s; --save or --output json has all\n",
            number(left as u64)
        ),
    }
}

fn quantiles(of: &Distribution) -> Vec<String> {
    let mut cells = vec![number(of.customers)];
    cells.extend(of.quantiles.iter().map(|(_, value)| format!("{value:.3}")));
    cells.resize(6, "-".to_owned());
    cells
}

pub(super) fn single_json(period: &Period, side: &Side) -> Value {
    let mut value = head_json("what_if", period);
    merge(&mut value, json!({"run": side_json(side)}));
    value
}

fn head_json(kind: &str, period: &Period) -> Value {
    json!({
        "kind": kind,
        "vigie": env!("CARGO_PKG_VERSION"),
        "command": period.command,
        "archive": {
            "place": period.archive,
            "flushes": period.flushes,
            "records": period.records,
            "partitions": period.partitions,
            "end": At(period.end),
        },
        "period": {"from": At(period.from), "to": At(period.to)},
        "selection": period.selection,
    })
}

fn merge(value: &mut Value, more: Value) {
    if let (Value::Object(fields), Value::Object(more)) = (value, more) {
        fields.extend(more);
    }
}

fn side_json(side: &Side) -> Value {
    let (configuration, run) = (&side.configuration, &side.run);
    json!({
        "configuration": {
            "model": configuration.active.model.version,
            "policies": configuration.active.policies.version,
            "origin": configuration.origin,
        },
        "events_before": run.events.0,
        "events": run.events.1,
        "customers": run.outcome.customers.len(),
        "not_scored_by_refusal": run.refused,
        "books": books_json(&run.books),
        "flags_before": run.earlier_flags,
        "policies": policies(&run.outcome, None).iter().map(|of| json!({
            "policy": of.policy,
            "flagged": of.baseline.as_ref().map_or(0, |count| count.flagged),
            "held_out": of.baseline.as_ref().map_or(0, |count| count.held_out),
        })).collect::<Vec<_>>(),
        "scores": distributions(run),
        "flags": run.outcome.flags,
    })
}

/// What differs between two runs.
pub(super) fn comparison(comparison: &Comparison, written: &[&PathBuf]) -> String {
    let Comparison {
        period,
        baseline,
        candidate,
        diff,
        ..
    } = comparison;
    let mut text = head("comparison", period);
    let _ = writeln!(text, "baseline     {}", versions(&baseline.configuration));
    let _ = writeln!(text, "candidate    {}", versions(&candidate.configuration));
    for note in notes(comparison) {
        let _ = writeln!(text, "note         {note}");
    }
    let _ = writeln!(text, "events       {}", events_text(baseline));
    let _ = writeln!(
        text,
        "customers    {}\n",
        number(baseline.run.outcome.customers.len() as u64)
    );
    for sentence in sentences(comparison) {
        let _ = writeln!(text, "{sentence}");
    }
    text.push('\n');
    let rows: Vec<_> = diff.policies.iter().map(policy_row).collect();
    text += &table(&["policy", "baseline", "held out", "candidate", "held out"], &rows);
    text.push('\n');
    let rows = diff.scores.iter().flat_map(|shift| {
        let before = [
            vec![shift.score.clone(), "baseline".to_owned()],
            quantiles(&shift.baseline),
        ]
        .concat();
        let psi = format!("{:.3}", shift.psi);
        let after = [vec![String::new(), "candidate".to_owned()], quantiles(&shift.candidate)].concat();
        [
            [before, vec![String::new(), String::new()]].concat(),
            [after, vec![psi, number(shift.rose + shift.fell)]].concat(),
        ]
    });
    let names = [
        "score",
        "run",
        "customers",
        "10 %",
        "25 %",
        "median",
        "75 %",
        "90 %",
        "psi",
        "moved > 0.05",
    ];
    text += &table(&names, &rows.collect::<Vec<_>>());
    if !diff.flags.is_empty() {
        text.push('\n');
        let (shown, customers) = first_customers(&diff.flags, SHOWN);
        let rows = shown.iter().map(|difference| difference_row(difference));
        let names = ["customer", "policy", "change", "baseline", "candidate", "afterwards"];
        text += &table(&names, &rows.collect::<Vec<_>>());
        text += &more(customers, "customer");
    }
    if !written.is_empty() {
        text.push('\n');
    }
    for path in written {
        let _ = writeln!(text, "written to {}", path.display());
    }
    text
}

/// The differences of the first customers, and how many customers there are in all.
pub(super) fn first_customers(differences: &[Difference], limit: usize) -> (Vec<&Difference>, usize) {
    let mut seen = BTreeSet::new();
    let mut shown = Vec::new();
    for difference in differences {
        let new = seen.insert(&difference.customer);
        if seen.len() <= limit || !new && shown.iter().any(|of: &&Difference| of.customer == difference.customer) {
            shown.push(difference);
        }
    }
    (shown, seen.len())
}

/// What a reader has to know to read the numbers.
pub(super) fn notes(comparison: &Comparison) -> Vec<String> {
    let mut notes = Vec::new();
    if comparison.changes > 0 {
        notes.push(format!(
            "the log changed its configuration {} within the period; the baseline keeps what was in force at its beginning",
            match comparison.changes {
                1 => "once".to_owned(),
                times => format!("{times} times"),
            }
        ));
    }
    let same = |side: &Side| {
        (
            side.configuration.active.model.fingerprint,
            side.configuration.active.policies.fingerprint,
        )
    };
    if same(&comparison.baseline) == same(&comparison.candidate) {
        notes.push("baseline and candidate are the same configuration".to_owned());
    }
    notes.extend(emptiness(&comparison.period, &comparison.baseline));
    notes
}

/// What came of it, in sentences.
pub(super) fn sentences(comparison: &Comparison) -> Vec<String> {
    let diff = &comparison.diff;
    let count = |change: Change| diff.count(change) as u64;
    let flags = |side: &Side| side.run.outcome.flags.len() as u64;
    let (before, after) = (flags(&comparison.baseline), flags(&comparison.candidate));
    if before == 0 && after == 0 {
        return vec!["Neither run raises a flag within the period.".to_owned()];
    }
    let mut all = vec![format!(
        "The baseline raises {}, the candidate {}: {} the same, {} at another time, {} of another kind, {} dropped, {} added.",
        many(before, "flag"),
        number(after),
        number(diff.same_flags),
        number(count(Change::OtherTime)),
        number(count(Change::OtherKind)),
        number(count(Change::OnlyBaseline)),
        number(count(Change::OnlyCandidate))
    )];
    for (change, what) in [(Change::OnlyBaseline, "dropped"), (Change::OnlyCandidate, "added")] {
        let of_change = || diff.flags.iter().filter(move |difference| difference.change == change);
        let purchases = of_change().filter_map(|difference| difference.afterwards.as_ref()?.purchase.as_ref());
        let mut days: Vec<f64> = purchases.map(|purchase| purchase.after_days).collect();
        days.sort_by(f64::total_cmp);
        if count(change) > 0 {
            let median = days
                .get(days.len() / 2)
                .map(|days| format!(", typically after {days:.0} days"));
            all.push(format!(
                "After the {what} flags, {} of {} customers bought again by the end of the period{}.",
                number(days.len() as u64),
                number(count(change)),
                median.unwrap_or_default()
            ));
        }
    }
    all
}

fn policy_row(of: &PolicyCounts) -> Vec<String> {
    let cells = [&of.baseline, &of.candidate].into_iter().flat_map(|count| match count {
        Some(count) => [number(count.flagged), number(count.held_out)],
        None => ["-".to_owned(), "-".to_owned()],
    });
    std::iter::once(of.policy.clone()).chain(cells).collect()
}

/// When, and whether held out.
pub(super) fn when(flag: Option<&Raised>) -> String {
    let Some(flag) = flag else { return "-".to_owned() };
    let time = flag.raised_at.0.to_string();
    let minute = time.get(..16).map_or(time.clone(), |minute| minute.replace('T', " "));
    if flag.kind == "held_out" {
        format!("{minute} (held out)")
    } else {
        minute
    }
}

/// What a customer did afterwards, in words.
pub(super) fn afterwards(difference: &Difference) -> String {
    let Some(after) = &difference.afterwards else {
        return "-".to_owned();
    };
    let events = many(after.events, "event");
    match &after.purchase {
        None if after.events == 0 => "silent".to_owned(),
        None => format!("no purchase, {events}"),
        Some(purchase) => {
            let amount = purchase.amount.as_deref().unwrap_or_default();
            let currency = purchase.currency.as_deref().unwrap_or_default();
            let money = format!(" {amount} {currency}");
            format!(
                "bought{} after {:.1} days, {events}",
                money.trim_end(),
                purchase.after_days
            )
        }
    }
}

fn difference_row(difference: &Difference) -> Vec<String> {
    vec![
        difference.customer.id.clone(),
        difference.policy.clone(),
        difference.change.label().to_owned(),
        when(difference.baseline.as_ref()),
        when(difference.candidate.as_ref()),
        afterwards(difference),
    ]
}

pub(super) fn comparison_json(comparison: &Comparison) -> Value {
    let mut value = head_json("comparison", &comparison.period);
    let more = json!({
        "notes": notes(comparison),
        "summary": sentences(comparison),
        "baseline": side_json(&comparison.baseline),
        "candidate": side_json(&comparison.candidate),
        "diff": comparison.diff,
    });
    merge(&mut value, more);
    value
}

/// Columns as wide as what they hold.
fn table(names: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(&mut names.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let all = [0, 7, 999, 1_000, 12_345, 1_234_567].map(number);
        assert_eq!(all, ["0", "7", "999", "1,000", "12,345", "1,234,567"]);
        assert_eq!([many(1, "flag"), many(2, "flag")], ["1 flag", "2 flags"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["é".to_owned(), "1".to_owned()],
            vec!["long".to_owned(), String::new()],
        ];
        assert_eq!(table(&["a", "b"], &rows), "a     b\né     1\nlong\n");
    }
}
