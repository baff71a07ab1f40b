//! The dashboards follow the fifteen rules of Grafana's dashboard linter, written anew here: the linter itself is in no
//! registry. Each rule is shown a dashboard that breaks it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use vigie_telemetry::{catalogue, dashboards};

/// The dashboards, by file.
pub(crate) fn all() -> Vec<(String, Value)> {
    let files = dashboards::files()
        .into_iter()
        .filter(|(path, _)| path.ends_with(".json"));
    files
        .map(|(path, text)| (path, serde_json::from_str(&text).unwrap()))
        .collect()
}

/// Every expression of every dashboard, with the place where it stands.
pub(crate) fn all_expressions() -> Vec<(String, String)> {
    let mut expressions = Vec::new();
    for (path, dashboard) in all() {
        for panel in panels(&dashboard) {
            for target in list(&panel["targets"]) {
                let place = format!("{path}: {}", text(&panel["title"]));
                expressions.push((place, text(&target["expr"]).to_owned()));
            }
        }
    }
    expressions
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The panels that show something.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"]).iter().filter(|panel| panel["type"] != "row")
}

fn variable<'a>(dashboard: &'a Value, name: &str) -> Option<&'a Value> {
    list(&dashboard["templating"]["list"])
        .iter()
        .find(|variable| variable["name"] == name)
}

/// Units of Grafana that are in use here; the linter knows them all.
const UNITS: &[&str] = &[
    "none",
    "short",
    "percentunit",
    "cps",
    "ops",
    "reqps",
    "wps",
    "s",
    "bytes",
    "Bps",
];

/// The selectors of an expression: name of the series, matchers, what follows the closing brace, what stands before.
fn selectors(expr: &str) -> Vec<(&str, &str, &str, &str)> {
    let mut found = Vec::new();
    for (open, _) in expr.match_indices('{') {
        let before = &expr[..open];
        let start = before
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .map_or(0, |at| at + 1);
        let close = open + expr[open..].find('}').unwrap();
        found.push((
            &expr[start..open],
            &expr[open + 1..close],
            &expr[close + 1..],
            &expr[..start],
        ));
    }
    found
}

/// What of the fifteen rules a dashboard breaks.
fn broken(dashboard: &Value) -> BTreeSet<&'static str> {
    let mut broken = BTreeSet::new();
    let mut check = |rule: &'static str, ok: bool| {
        if !ok {
            let _ = broken.insert(rule);
        }
    };
    let source = variable(dashboard, "datasource");
    check(
        "template-datasource-rule",
        source.is_some_and(|source| {
            source["type"] == "datasource" && source["query"] == "prometheus" && source["label"] == "Data source"
        }),
    );
    for (rule, name, label) in [
        ("template-job-rule", "job", "Job"),
        ("template-instance-rule", "instance", "Instance"),
    ] {
        let fits = |variable: &Value| {
            variable["type"] == "query"
                && variable["label"] == label
                && variable["datasource"]["uid"] == "${datasource}"
                && variable["multi"] == true
                && variable["allValue"] == ".+"
        };
        check(rule, variable(dashboard, name).is_some_and(fits));
    }
    for variable in list(&dashboard["templating"]["list"])
        .iter()
        .filter(|variable| variable["type"] == "query")
    {
        let query = text(&variable["query"]["query"]);
        let inner = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'));
        let parts = inner.and_then(|inner| inner.rsplit_once(", "));
        let metric = parts.map(|(series, _)| series.split('{').next().unwrap_or_default());
        let known = metric.is_some_and(|metric| catalogue::find(metric).is_some());
        let label = parts.is_some_and(|(_, label)| variable["name"] == label);
        check("template-label-promql-rule", known && label);
        check("template-on-time-change-reload-rule", variable["refresh"] == 2);
    }
    for panel in panels(dashboard) {
        check("panel-datasource-rule", panel["datasource"]["uid"] == "${datasource}");
        let said = |name: &str| !text(&panel[name]).trim().is_empty();
        check("panel-title-description-rule", said("title") && said("description"));
        check(
            "panel-units-rule",
            UNITS.contains(&text(&panel["fieldConfig"]["defaults"]["unit"])),
        );
        check("panel-no-targets-rule", !list(&panel["targets"]).is_empty());
        for target in list(&panel["targets"]) {
            let expr = text(&target["expr"]);
            let count = |open: char, close: char| expr.matches(open).count() == expr.matches(close).count();
            // Prometheus itself parses them in a test of their own.
            check(
                "target-promql-rule",
                !expr.is_empty() && count('(', ')') && count('{', '}') && count('[', ']') && !expr.contains("$S"),
            );
            let series = expr.matches("vigie_").count() + expr.matches("process_").count();
            let selected = selectors(expr);
            let all_have = |matcher: &str| {
                selected.len() == series && selected.iter().all(|(_, matchers, _, _)| matchers.contains(matcher))
            };
            check("target-job-rule", all_have(r#"job=~"$job""#));
            check("target-instance-rule", all_have(r#"instance=~"$instance""#));
            for (name, _, after, before) in selected {
                let rate = before.ends_with("rate(");
                check(
                    "target-rate-interval-rule",
                    !rate || after.starts_with("[$__rate_interval]"),
                );
                let aggregated = (rate || before.ends_with("increase(")) && after.starts_with('[');
                check("target-counter-agg-rule", !name.ends_with("_total") || aggregated);
            }
        }
    }
    check("uneditable-dashboard-rule", dashboard["editable"] == false);
    broken
}

#[test]
fn every_dashboard_follows_the_linters_rules() {
    let dashboards = all();
    let names: Vec<&str> = dashboards.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names.len(), 7, "{names:?}");
    for (path, dashboard) in &dashboards {
        assert_eq!(broken(dashboard), BTreeSet::new(), "{path}");
    }
}

/// Breaks a dashboard.
type Breaker = Box<dyn Fn(&mut Value)>;

#[test]
fn every_rule_finds_what_breaks_it() {
    let (_, good) = all().into_iter().find(|(path, _)| path.contains("overview")).unwrap();
    let at = good["panels"]
        .as_array()
        .unwrap()
        .iter()
        .position(|panel| panel["type"] != "row")
        .unwrap();
    let breakers: Vec<(&str, Breaker)> = vec![
        (
            "template-datasource-rule",
            Box::new(|d| d["templating"]["list"][0]["name"] = json!("prometheus")),
        ),
        (
            "template-job-rule",
            Box::new(|d| d["templating"]["list"][1]["multi"] = json!(false)),
        ),
        (
            "template-instance-rule",
            Box::new(|d| d["templating"]["list"][2]["allValue"] = json!(".*")),
        ),
        (
            "template-label-promql-rule",
            Box::new(|d| d["templating"]["list"][1]["query"]["query"] = json!("label_values(nothing, job)")),
        ),
        (
            "template-on-time-change-reload-rule",
            Box::new(|d| d["templating"]["list"][1]["refresh"] = json!(1)),
        ),
        (
            "panel-datasource-rule",
            Box::new(move |d| d["panels"][at]["datasource"]["uid"] = json!("P1809F7CD0C75ACF3")),
        ),
        (
            "panel-title-description-rule",
            Box::new(move |d| d["panels"][at]["description"] = json!(" ")),
        ),
        (
            "panel-units-rule",
            Box::new(move |d| d["panels"][at]["fieldConfig"]["defaults"]["unit"] = json!("eps")),
        ),
        (
            "panel-no-targets-rule",
            Box::new(move |d| d["panels"][at]["targets"] = json!([])),
        ),
    ];
    let target = |expr: &'static str| -> Breaker {
        Box::new(move |d: &mut Value| {
            d["panels"][at]["targets"][0]["expr"] = json!(expr.replace("$S", dashboards::SELECTOR));
        })
    };
    let targets: Vec<(&str, Breaker)> = vec![
        ("target-promql-rule", target("sum(vigie_ready{$S}")),
        ("target-job-rule", target(r#"vigie_ready{instance=~"$instance"}"#)),
        ("target-instance-rule", target(r#"vigie_ready{job=~"$job"}"#)),
        (
            "target-rate-interval-rule",
            target("rate(vigie_events_accepted_total{$S}[5m])"),
        ),
        ("target-counter-agg-rule", target("vigie_events_accepted_total{$S}")),
        ("uneditable-dashboard-rule", Box::new(|d| d["editable"] = json!(true))),
    ];
    let mut seen = BTreeSet::new();
    for (rule, breaks) in breakers.iter().chain(&targets) {
        let mut dashboard = good.clone();
        breaks(&mut dashboard);
        assert_eq!(broken(&dashboard), BTreeSet::from([*rule]), "{rule}");
        let _ = seen.insert(*rule);
    }
    assert_eq!(seen.len(), 15);
}

#[test]
fn panels_lie_beside_each_other_and_say_what_they_mean() {
    let mut uids = BTreeSet::new();
    for (path, dashboard) in all() {
        assert!(
            uids.insert(text(&dashboard["uid"]).to_owned()),
            "{path}: uid used twice"
        );
        assert_eq!(dashboard["schemaVersion"], 39, "{path}");
        assert!(
            text(&dashboard["description"]).ends_with(['.', '?']),
            "{path}: description"
        );
        let (mut ids, mut cells, mut titles) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard["panels"]) {
            let title = text(&panel["title"]);
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{path}: {title}: id used twice"
            );
            assert!(titles.insert(title), "{path}: {title}: title used twice");
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(
                        x < 24 && cells.insert((x, y)),
                        "{path}: {title}: overlaps another panel"
                    );
                }
            }
            for target in list(&panel["targets"]) {
                assert!(!text(&target["legendFormat"]).is_empty(), "{path}: {title}: legend");
                // A legend names labels that are left after the aggregation.
                for label in text(&target["legendFormat"]).split("{{").skip(1) {
                    let label = label.split("}}").next().unwrap();
                    assert!(text(&target["expr"]).contains(label), "{path}: {title}: {label}");
                }
            }
        }
    }
}
