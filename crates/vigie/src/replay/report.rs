//! The comparison as one HTML page with its plots: no script, no network, light and dark. It draws what the results say
//! and computes nothing else. Everything that came from data is escaped, wherever it stands.

use super::diff::{BINS, Change, Difference, Distribution, Shift};
use super::text::{afterwards, first_customers, many, notes, number, sentences, when};
use super::{Comparison, Side};
use crate::html::{self, escape};
use std::fmt::Write;
use vigie_event::{DAY_MS, Timestamp};

/// Customers that the table shows.
const CUSTOMERS: usize = 500;
/// Bars of the plot of flags over time.
const BUCKETS: i64 = 36;
/// Width and height of a plot, and its margins, in units of the drawing.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 34.0;

/// Two runs are compared here: the second one has a colour of its own.
const STYLE: &str = "
:root{--b:#d2691e}@media(prefers-color-scheme:dark){:root{--b:#f0994f}}
.heat{fill:var(--warm)}.tag{border:1px solid var(--line);background:none;color:var(--ink);font-weight:400;white-space:nowrap}
";

/// The page.
pub(super) fn page(comparison: &Comparison) -> String {
    let period = &comparison.period;
    let mut page = String::new();
    let title = format!("What if: {} to {}", day(period.from), day(period.to));
    summary(&mut page, comparison);
    flags(&mut page, comparison);
    scores(&mut page, comparison);
    customers(&mut page, comparison);
    origins(&mut page, comparison);
    html::document(&title, STYLE, &page)
}

fn push(page: &mut String, html: &str) {
    page.push_str(html);
}

fn element(page: &mut String, name: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "<{name}>{}</{name}>", escape(text));
}

fn day(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..10).map_or(text.clone(), str::to_owned)
}

fn summary(page: &mut String, comparison: &Comparison) {
    let diff = &comparison.diff;
    let period = &comparison.period;
    let (history, within) = comparison.baseline.run.events;
    let lead = format!(
        "The same {} received between {} and {}, with {} of history, folded twice: as things were, and as they would have \
         been under the candidate. Nobody was contacted.",
        many(within, "event"),
        period.from,
        period.to,
        many(history, "event")
    );
    let _ = writeln!(page, "<p class=\"faint\">{}</p>", escape(&lead));
    for words in &period.selection {
        let _ = writeln!(page, "<p><strong>Only {}</strong></p>", escape(words));
    }
    for note in notes(comparison) {
        let _ = writeln!(page, "<p><strong>Note:</strong> {}</p>", escape(&note));
    }
    push(page, "<div class=\"cards\">\n");
    let flags = |side: &Side| side.run.outcome.flags.len();
    let moved = diff.scores.first().map_or(0, |shift| shift.rose + shift.fell);
    let cards = [
        ("flags of the baseline", flags(&comparison.baseline)),
        ("flags of the candidate", flags(&comparison.candidate)),
        ("dropped", diff.count(Change::OnlyBaseline)),
        ("added", diff.count(Change::OnlyCandidate)),
        ("at another time", diff.count(Change::OtherTime)),
        (
            "attrition moved by more than 0.05",
            usize::try_from(moved).unwrap_or(usize::MAX),
        ),
    ];
    for (name, count) in cards {
        let _ = writeln!(
            page,
            "<div class=\"card\"><b>{}</b>{}</div>",
            number(count as u64),
            escape(name)
        );
    }
    push(page, "</div>\n");
    for sentence in sentences(comparison) {
        element(page, "p", &sentence);
    }
}

fn legend(page: &mut String) {
    push(
        page,
        "<p><span class=\"key a\"></span>baseline &nbsp; <span class=\"key b\"></span>candidate</p>\n",
    );
}

/// Begins a drawing that says what it shows to those who do not see it.
fn drawing(page: &mut String, id: &str, size: (f64, f64), title: &str, description: &str) {
    let _ = writeln!(
        page,
        "<figure><svg viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
         <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
        size.0,
        size.1,
        escape(title),
        escape(description)
    );
}

fn caption(page: &mut String, text: &str) {
    let _ = writeln!(page, "</svg><figcaption>{}</figcaption></figure>", escape(text));
}

/// The lines and labels around columns: 0 and `most` on the left, `labels` below.
fn axes(page: &mut String, most: u64, labels: &[(f64, String)]) {
    let base = HEIGHT - BOTTOM;
    let _ = writeln!(
        page,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{base}\" x2=\"{WIDTH}\" y2=\"{base}\"/>\
         <line class=\"axis\" x1=\"{LEFT}\" y1=\"10\" x2=\"{WIDTH}\" y2=\"10\"/>\
         <text x=\"{:.1}\" y=\"{base}\" text-anchor=\"end\">0</text><text x=\"{:.1}\" y=\"14\" text-anchor=\"end\">{}</text>",
        LEFT - 6.0,
        LEFT - 6.0,
        number(most)
    );
    for (share, label) in labels {
        let x = LEFT + (WIDTH - LEFT) * share;
        let anchor = if *share <= 0.0 {
            "start"
        } else if *share >= 1.0 {
            "end"
        } else {
            "middle"
        };
        let _ = writeln!(
            page,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - 12.0,
            escape(label)
        );
    }
}

/// Columns side by side, baseline and candidate.
fn columns(page: &mut String, before: &[u64], after: &[u64], titles: &[String]) {
    let most = before.iter().chain(after).copied().max().unwrap_or(0).max(1);
    let base = HEIGHT - BOTTOM;
    let step = (WIDTH - LEFT) / before.len().max(1) as f64;
    for (at, (counts, title)) in before.iter().zip(after).zip(titles).enumerate() {
        for (series, count, shift) in [("a", *counts.0, 0.1), ("b", *counts.1, 0.5)] {
            if count == 0 {
                continue;
            }
            let height = (base - 10.0) * count as f64 / most as f64;
            let _ = writeln!(
                page,
                "<rect class=\"{series}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                LEFT + step * (at as f64 + shift),
                base - height,
                step * 0.4,
                height,
                escape(&format!(
                    "{title}: {} of the {}",
                    number(count),
                    if series == "a" { "baseline" } else { "candidate" }
                ))
            );
        }
    }
}

fn flags(page: &mut String, comparison: &Comparison) {
    let period = &comparison.period;
    let (from, to) = (period.from, period.to);
    let days = (to.ms_since(from) + DAY_MS - 1) / DAY_MS;
    let bucket_days = ((days + BUCKETS - 1) / BUCKETS).max(1);
    let buckets = usize::try_from((days + bucket_days - 1) / bucket_days)
        .unwrap_or(1)
        .max(1);
    let counts = |side: &Side| {
        let mut counts = vec![0; buckets];
        for flag in &side.run.outcome.flags {
            let bucket = flag.raised_at.0.ms_since(from) / (bucket_days * DAY_MS);
            let bucket = usize::try_from(bucket).unwrap_or(0).min(buckets - 1);
            if let Some(count) = counts.get_mut(bucket) {
                *count += 1;
            }
        }
        counts
    };
    let (before, after) = (counts(&comparison.baseline), counts(&comparison.candidate));
    element(page, "h2", "Flags");
    legend(page);
    let span = if bucket_days == 1 {
        "day".to_owned()
    } else {
        format!("{bucket_days} days")
    };
    let total = |counts: &[u64]| counts.iter().sum::<u64>();
    let description = format!(
        "{} of the baseline and {} of the candidate, counted for each {span}.",
        many(total(&before), "flag"),
        many(total(&after), "flag")
    );
    drawing(page, "flags", (WIDTH, HEIGHT), "Flags over time", &description);
    let start = |bucket: usize| from.plus_ms(i64::try_from(bucket).unwrap_or(0) * bucket_days * DAY_MS);
    let most = before.iter().chain(&after).copied().max().unwrap_or(0);
    axes(
        page,
        most,
        &[(0.0, day(from)), (0.5, day(start(buckets / 2))), (1.0, day(to))],
    );
    let titles: Vec<String> = (0..buckets)
        .map(|bucket| format!("{span} from {}", day(start(bucket))))
        .collect();
    columns(page, &before, &after, &titles);
    caption(page, &format!("Flags raised in each {span}, held-out ones included."));
    push(
        page,
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">policy</th>",
    );
    for name in ["baseline", "of these held out", "candidate", "of these held out"] {
        let _ = write!(page, "<th scope=\"col\" class=\"n\">{name}</th>");
    }
    push(page, "</tr></thead>\n<tbody>\n");
    for of in &comparison.diff.policies {
        let _ = write!(page, "<tr><th scope=\"row\">{}</th>", escape(&of.policy));
        for count in [&of.baseline, &of.candidate] {
            match count {
                Some(count) => {
                    let all = count.flagged + count.held_out;
                    let _ = write!(
                        page,
                        "<td class=\"n\">{}</td><td class=\"n\">{}</td>",
                        number(all),
                        number(count.held_out)
                    );
                }
                None => push(page, "<td class=\"n\">not there</td><td class=\"n\"></td>"),
            }
        }
        push(page, "</tr>\n");
    }
    push(page, "</tbody></table></div>\n");
}

fn scores(page: &mut String, comparison: &Comparison) {
    element(page, "h2", "Scores");
    let lead = format!(
        "Every customer as of {}, under the baseline's model and under the candidate's.",
        comparison.period.to
    );
    element(page, "p", &lead);
    legend(page);
    for (at, shift) in comparison.diff.scores.iter().enumerate() {
        element(page, "h3", &shift.score);
        push(page, "<div class=\"pair\">\n");
        histogram(page, at, shift);
        grid(page, at, shift);
        push(page, "</div>\n");
    }
    push(
        page,
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">score</th><th scope=\"col\">run</th>",
    );
    for name in [
        "customers",
        "mean",
        "10 %",
        "25 %",
        "median",
        "75 %",
        "90 %",
        "stability index",
        "rose",
        "fell",
    ] {
        let _ = write!(page, "<th scope=\"col\" class=\"n\">{name}</th>");
    }
    push(page, "</tr></thead>\n<tbody>\n");
    for shift in &comparison.diff.scores {
        let after = [format!("{:.3}", shift.psi), number(shift.rose), number(shift.fell)];
        row(page, &shift.score, "baseline", &shift.baseline, &[]);
        row(page, &shift.score, "candidate", &shift.candidate, &after);
    }
    push(page, "</tbody></table></div>\n");
    let explained = "The population stability index measures how much a distribution has shifted: below 0.1 little, from 0.1 \
                     to 0.25 some, above 0.25 a lot. Rose and fell count customers whose score moved by more than 0.05.";
    let _ = writeln!(page, "<p class=\"faint\">{explained}</p>");
}

fn row(page: &mut String, score: &str, run: &str, of: &Distribution, more: &[String]) {
    let _ = write!(page, "<tr><th scope=\"row\">{}</th><td>{run}</td>", escape(score));
    let mut cells = vec![number(of.customers), format!("{:.3}", of.mean)];
    cells.extend(of.quantiles.iter().map(|(_, value)| format!("{value:.3}")));
    cells.resize(7, String::new());
    cells.extend_from_slice(more);
    cells.resize(10, String::new());
    for cell in cells {
        let _ = write!(page, "<td class=\"n\">{cell}</td>");
    }
    push(page, "</tr>\n");
}

fn histogram(page: &mut String, at: usize, shift: &Shift) {
    let (before, after) = (&shift.baseline.histogram, &shift.candidate.histogram);
    let median = |of: &Distribution| {
        of.quantiles
            .get(2)
            .map_or("none".to_owned(), |(_, value)| format!("{value:.2}"))
    };
    let description = format!(
        "Customers in {BINS} bins from 0 to 1. The median is {} under the baseline and {} under the candidate.",
        median(&shift.baseline),
        median(&shift.candidate)
    );
    let title = format!("Distribution of {}", shift.score);
    drawing(page, &format!("h{at}"), (WIDTH, HEIGHT), &title, &description);
    let most = before.iter().chain(after).copied().max().unwrap_or(0);
    axes(
        page,
        most,
        &[(0.0, "0".to_owned()), (0.5, "0.5".to_owned()), (1.0, "1".to_owned())],
    );
    let range = |bin: usize| {
        format!(
            "{:.2} to {:.2}",
            bin as f64 / BINS as f64,
            (bin + 1) as f64 / BINS as f64
        )
    };
    columns(page, before, after, &(0..BINS).map(range).collect::<Vec<_>>());
    caption(page, &format!("Customers by {}, before and after.", shift.score));
}

/// From where to where scores move: on the diagonal nothing changes.
fn grid(page: &mut String, at: usize, shift: &Shift) {
    let most = shift.grid.iter().flatten().copied().max().unwrap_or(0).max(1);
    let (size, left) = (320.0, 40.0);
    let cell = (size - left) / BINS as f64;
    let base = size - left;
    let title = format!("{} before and after", shift.score);
    let description = format!(
        "Customers by the baseline's score (to the right) and the candidate's (upwards): {} rose, {} fell by more than 0.05.",
        number(shift.rose),
        number(shift.fell)
    );
    drawing(page, &format!("g{at}"), (size, size), &title, &description);
    let _ = writeln!(
        page,
        "<rect class=\"axis\" x=\"{left}\" y=\"0\" width=\"{base:.1}\" height=\"{base:.1}\" fill=\"none\"/>\
         <line class=\"diagonal\" x1=\"{left}\" y1=\"{base:.1}\" x2=\"{size}\" y2=\"0\"/>"
    );
    for (before, row) in shift.grid.iter().enumerate() {
        for (after, count) in row.iter().enumerate().filter(|(_, count)| **count > 0) {
            // Logarithmic, so that a few customers can be seen beside many.
            let weight = 0.15 + 0.85 * ((*count as f64).ln_1p() / (most as f64).ln_1p());
            let _ = writeln!(
                page,
                "<rect class=\"heat\" x=\"{:.1}\" y=\"{:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" opacity=\"{weight:.2}\">\
                 <title>{} from {:.2} to {:.2}</title></rect>",
                left + cell * before as f64,
                base - cell * (after + 1) as f64,
                many(*count, "customer"),
                (before as f64 + 0.5) / BINS as f64,
                (after as f64 + 0.5) / BINS as f64
            );
        }
    }
    let _ = writeln!(
        page,
        "<text x=\"{left}\" y=\"{:.1}\">0</text><text x=\"{size}\" y=\"{:.1}\" text-anchor=\"end\">1 baseline</text>\
         <text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\">0</text><text x=\"{:.1}\" y=\"12\" text-anchor=\"end\">1</text>",
        base + 18.0,
        base + 18.0,
        left - 6.0,
        left - 6.0
    );
    caption(
        page,
        "Above the dashed line the candidate scores higher. Darker: more customers.",
    );
}

fn customers(page: &mut String, comparison: &Comparison) {
    element(page, "h2", "Whose flags differ");
    let (shown, all) = first_customers(&comparison.diff.flags, CUSTOMERS);
    if shown.is_empty() {
        element(page, "p", "Nobody's: both runs raise the same flags at the same times.");
        return;
    }
    let text = "What each of them did after the (earlier) flag, up to the end of the period. Their behaviour is what it was: \
                whoever was contacted in life had been contacted, whatever the candidate would have done.";
    let _ = writeln!(page, "<p>{text}</p>");
    if all > CUSTOMERS {
        let left = format!(
            "The first {} of {} customers are listed; --save has all.",
            number(CUSTOMERS as u64),
            number(all as u64)
        );
        element(page, "p", &left);
    }
    push(page, "<div class=\"scroll\"><table>\n<thead><tr>");
    for name in [
        "customer",
        "policy",
        "change",
        "baseline",
        "candidate",
        "score",
        "afterwards",
        "why",
    ] {
        let _ = write!(page, "<th scope=\"col\">{name}</th>");
    }
    push(page, "</tr></thead>\n<tbody>\n");
    shown
        .into_iter()
        .for_each(|difference| difference_row(page, difference));
    push(page, "</tbody></table></div>\n");
}

fn difference_row(page: &mut String, difference: &Difference) {
    let flag = difference.candidate.as_ref().or(difference.baseline.as_ref());
    let score = flag.map_or_else(String::new, |flag| format!("{} {:.2}", flag.score, flag.value));
    let reason = flag.and_then(|flag| flag.reasons.first()).cloned().unwrap_or_default();
    let customer = &difference.customer;
    let _ = writeln!(
        page,
        "<tr><td title=\"{}\">{}</td><td>{}</td><td><span class=\"tag\">{}</span></td><td class=\"w\">{}</td>\
         <td class=\"w\">{}</td><td class=\"w\">{}</td><td>{}</td><td>{}</td></tr>",
        escape(&format!("workspace {}", customer.workspace)),
        escape(&customer.id),
        escape(&difference.policy),
        difference.change.label(),
        escape(&when(difference.baseline.as_ref())),
        escape(&when(difference.candidate.as_ref())),
        escape(&score),
        escape(&afterwards(difference)),
        escape(&reason)
    );
}

fn origins(page: &mut String, comparison: &Comparison) {
    element(page, "h2", "How this was made");
    push(
        page,
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">run</th><th scope=\"col\">model</th>",
    );
    push(
        page,
        "<th scope=\"col\">policies</th><th scope=\"col\">from</th></tr></thead>\n<tbody>\n",
    );
    for (name, side) in sides(comparison) {
        let active = &side.configuration.active;
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{name}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&active.model.version),
            escape(&active.policies.version),
            escape(&side.configuration.origin)
        );
    }
    push(page, "</tbody></table></div>\n");
    let period = &comparison.period;
    let archive = format!(
        "Archive {}: {} in {} of {}, up to {}.",
        period.archive,
        many(period.records, "record"),
        many(period.flushes, "flush").replace("flushs", "flushes"),
        many(u64::from(period.partitions), "partition"),
        period.end
    );
    element(page, "p", &archive);
    let _ = writeln!(page, "<pre>{}</pre>", escape(&period.command));
    element(page, "p", &format!("vigie {}", env!("CARGO_PKG_VERSION")));
    for (name, side) in sides(comparison) {
        for (what, text) in [
            ("policies", &side.configuration.policies),
            ("model", &side.configuration.model),
        ] {
            let _ = writeln!(
                page,
                "<details><summary>The {name}'s {what}</summary><pre>{}</pre></details>",
                escape(text)
            );
        }
    }
}

fn sides(comparison: &Comparison) -> [(&'static str, &Side); 2] {
    [("baseline", &comparison.baseline), ("candidate", &comparison.candidate)]
}

#[cfg(test)]
mod tests {
    use super::super::diff::{self, Afterwards};
    use super::super::run::{Configuration, Run};
    use super::super::sample::two;
    use super::super::{Period, Side};
    use super::*;
    use std::sync::Arc;
    use vigie_pipeline::Active;
    use vigie_relance::PolicySet;
    use vigie_scoring::Model;

    const HOSTILE: &str = "</pre><script>alert('x')</script>&\"\u{7}";

    fn side(outcome: diff::Outcome) -> Side {
        let (model, policies) = (Model::shipped_text(), PolicySet::shipped_text());
        Side {
            configuration: Configuration {
                model: model.into(),
                policies: format!("# {HOSTILE}").into(),
                active: Arc::new(Active::parse(model, policies).unwrap()),
                origin: HOSTILE.to_owned(),
            },
            run: Run::of(outcome),
        }
    }

    fn comparison(outcomes: (diff::Outcome, diff::Outcome)) -> Comparison {
        let mut diff = diff::compare(&outcomes.0, &outcomes.1);
        for difference in &mut diff.flags {
            difference.afterwards = Some(Afterwards::default());
        }
        Comparison {
            period: Period {
                from: Timestamp(0),
                to: Timestamp(60 * DAY_MS),
                end: Timestamp(61 * DAY_MS),
                archive: HOSTILE.to_owned(),
                flushes: 3,
                records: 1_234_567,
                partitions: 64,
                command: format!("vigie replay --where '{HOSTILE}'"),
                selection: vec![HOSTILE.to_owned()],
            },
            baseline: side(outcomes.0),
            candidate: side(outcomes.1),
            diff,
            changes: 1,
        }
    }

    /// Reads tags and nothing else: every element is closed, in order, and attributes are quoted.
    fn check(html: &str) -> Vec<String> {
        let mut open: Vec<&str> = Vec::new();
        let mut names = Vec::new();
        let mut rest = html.strip_prefix("<!doctype html>").expect("a document type");
        while let Some((text, after)) = rest.split_once('<') {
            assert!(
                !text.contains('>') || open.last() == Some(&"style"),
                "a bare > in {text:?}"
            );
            let (tag, after) = after.split_once('>').expect("a tag that ends");
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closed out of order");
                continue;
            }
            let name = tag.split([' ', '/']).next().unwrap();
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{tag:?}");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag:?}");
            names.push(name.to_owned());
            if !tag.ends_with('/') && name != "meta" {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "left open: {open:?}");
        assert!(!rest.contains('>'));
        names
    }

    #[test]
    fn the_page_is_whole_and_holds_no_foreign_markup() {
        let html = page(&comparison(two()));
        let names = check(&html);
        for refused in ["script", "link", "img", "iframe", "object"] {
            assert!(!names.iter().any(|name| name == refused), "{refused}");
        }
        assert!(
            !html.contains("http:") && !html.contains("https:") && !html.contains("url("),
            "nothing is fetched"
        );
        assert!(!html.contains('\u{7}') && !html.contains("<script"));
        assert!(html.contains("&lt;script&gt;") && html.contains("new &amp; shiny"));
        for heading in [
            "Flags over time",
            "Distribution of attrition",
            "attrition before and after",
            "Whose flags differ",
        ] {
            assert!(html.contains(heading), "{heading}");
        }
        let drawings = names.iter().filter(|name| *name == "svg").count();
        assert_eq!(drawings, html.matches("role=\"img\"").count());
        assert_eq!(drawings, html.matches("<desc ").count(), "each drawing is described");
        assert!(html.contains("prefers-color-scheme:dark"));
        assert!(!html.contains("NaN") && !html.contains("inf\""));
    }

    #[test]
    fn a_page_without_any_difference_says_so() {
        let html = page(&comparison((diff::Outcome::default(), diff::Outcome::default())));
        drop(check(&html));
        assert!(html.contains("Nobody&#39;s: both runs raise the same flags"));
        assert!(html.contains("Neither run raises a flag"));
        assert!(html.contains("no event is selected"));
    }
}
