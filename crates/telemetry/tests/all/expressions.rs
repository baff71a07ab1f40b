//! Every name and label in an expression is declared. A scanner, not a parser: promtool and Prometheus parse.

use std::collections::BTreeSet;

use vigie_telemetry::catalogue::{self, Kind};
use vigie_telemetry::dashboards;

use crate::dashboards::all_expressions;

/// Words that stand where a metric could, and are none.
const WORDS: &[&str] = &[
    "and", "or", "unless", "by", "without", "on", "ignoring", "offset", "bool",
];
const FUNCTIONS: &[&str] = &[
    "abs",
    "sqrt",
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "topk",
    "rate",
    "increase",
    "delta",
    "deriv",
    "changes",
    "predict_linear",
    "avg_over_time",
    "histogram_quantile",
    "time",
];
/// What Prometheus itself records about a target.
const OF_PROMETHEUS: &[&str] = &["up"];

/// Names in `expr` that neither the catalogue nor a recording rule declares, and labels that the metrics named in `expr` do
/// not have.
fn undeclared(expr: &str) -> Vec<String> {
    let mut labels: BTreeSet<&str> = BTreeSet::from(["job", "instance"]);
    let mut metrics = Vec::new();
    let mut mentioned = Vec::new();
    let mut unknown = Vec::new();
    let (mut braces, mut brackets, mut quotes, mut parens) = (0, 0, false, Vec::new());
    let mut last = "";
    let mut rest = expr;
    while let Some(c) = rest.chars().next() {
        let word_len = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(rest.len());
        if quotes || word_len == 0 {
            match c {
                '"' => quotes = !quotes,
                _ if quotes => {}
                '{' => braces += 1,
                '}' => braces -= 1,
                '[' => brackets += 1,
                ']' => brackets -= 1,
                '(' => parens.push(["by", "without", "on", "ignoring"].contains(&last)),
                ')' => drop(parens.pop()),
                _ => {}
            }
            if !c.is_whitespace() {
                last = "";
            }
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(word_len);
        if brackets == 0 && word.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let called = ["(", "by ", "without "]
                .iter()
                .any(|next| after.trim_start().starts_with(next));
            let recorded = || dashboards::rule_expressions().find(|(name, _)| *name == Some(word));
            if braces > 0 || parens.last() == Some(&true) {
                mentioned.push(word);
            } else if called && FUNCTIONS.contains(&word) || WORDS.contains(&word) || OF_PROMETHEUS.contains(&word) {
            } else if let Some(metric) = catalogue::find(word) {
                metrics.push(metric);
            } else if recorded().is_some() {
                // Its labels are those that it was summed by, which stand in its expression.
                labels.extend(["policy"]);
            } else {
                unknown.push(word.to_owned());
            }
        }
        last = word;
        rest = after;
    }
    for metric in metrics {
        labels.extend(metric.labels.iter().map(|label| label.name));
        if matches!(metric.kind, Kind::Histogram(_)) {
            let _ = labels.insert("le");
        }
    }
    unknown.extend(
        mentioned
            .iter()
            .filter(|label| !labels.contains(**label))
            .map(|label| format!("label {label}")),
    );
    unknown
}

#[test]
fn expressions_name_only_what_the_catalogue_declares() {
    let panels = all_expressions().into_iter().map(|(_, expr)| expr);
    let rules = dashboards::rule_expressions().map(|(_, expr)| expr.to_owned());
    let all: Vec<String> = panels.chain(rules).collect();
    assert!(all.len() > 100, "only {} expressions were found", all.len());
    for expr in all {
        assert_eq!(undeclared(&expr), Vec::<String>::new(), "{expr}");
    }
}

#[test]
fn every_metric_is_drawn_or_watched() {
    let mut used = BTreeSet::new();
    let panels = all_expressions().into_iter().map(|(_, expr)| expr);
    for expr in panels.chain(dashboards::rule_expressions().map(|(_, expr)| expr.to_owned())) {
        let words = expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        used.extend(words.filter_map(|word| catalogue::find(word).map(|metric| metric.name)));
    }
    // Facts about the machine, which nobody watches over time.
    let facts = ["process_virtual_memory_bytes", "process_virtual_memory_max_bytes"];
    let unused: Vec<&str> = catalogue::METRICS
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !used.contains(name) && !facts.contains(name))
        .collect();
    assert!(unused.is_empty(), "on no dashboard and in no rule: {unused:?}");
}

#[test]
fn undeclared_names_are_found() {
    assert_eq!(
        undeclared("sum by (nobody) (rate(vigie_nothing_total[5m]))"),
        ["vigie_nothing_total", "label nobody"]
    );
    assert_eq!(undeclared(r#"vigie_ready{outcome="applied"} == 0"#), ["label outcome"]);
    assert_eq!(undeclared("vigie_ready and on (nobody) up"), ["label nobody"]);
    assert_eq!(undeclared("nonsense(vigie_ready)"), ["nonsense"]);
    assert_eq!(undeclared("vigie_ready_bucket"), ["vigie_ready_bucket"]);
}
