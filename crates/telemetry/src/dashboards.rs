//! Dashboards, alert rules and their runbook, generated from the catalogue into `dashboards/` at the root of the
//! repository. A test compares the committed files with the generated ones (`UPDATE_EXPECT=1` rewrites them) and
//! refuses an expression that names a metric or label that the catalogue does not have.
//!
//! They never hard-code a data source, a job or an instance: those are variables of the dashboard.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::catalogue::{self, Kind, Unit, Values};

mod alerts;
mod panels;

use alerts::{ALERTS, RECORDINGS};
use panels::{Look, OVERVIEW, Panel};

/// The selector that every expression of a dashboard carries, written `$S` in the tables below.
const SELECTOR: &str = r#"job=~"$job",instance=~"$instance""#;

/// The generated files: path below `dashboards/` and content.
#[must_use]
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        ("README.md", runbook()),
        ("alerts.yml", rules()),
        ("grafana/overview.json", overview()),
        ("grafana/provisioning.yml", PROVISIONING.to_owned()),
    ]
}

const PROVISIONING: &str = "\
# Grafana provisioning: copy to /etc/grafana/provisioning/dashboards/ and the JSON files to the path below.
apiVersion: 1
providers:
  - name: vigie
    folder: vigie
    type: file
    allowUiUpdates: false
    options:
      path: /var/lib/grafana/dashboards/vigie
";

fn overview() -> String {
    let mut panels = Vec::new();
    let (mut x, mut y, mut tallest) = (0, 0, 0);
    for (index, panel) in OVERVIEW.iter().enumerate() {
        let (width, height) = match panel.look {
            Look::Row => (24, 1),
            Look::State | Look::Number => (4, 4),
            Look::Lines => (8, 8),
        };
        if x + width > 24 || matches!(panel.look, Look::Row) {
            y += tallest;
            (x, tallest) = (0, 0);
        }
        panels.push(panel_json(
            panel,
            index + 1,
            &json!({"x": x, "y": y, "w": width, "h": height}),
        ));
        x += width;
        tallest = tallest.max(height);
    }
    let dashboard = json!({
        "uid": "vigie-overview",
        "title": "vigie: overview",
        "description": "Generated from the metric catalogue of vigie. Change the generator, not this file.",
        "tags": ["vigie"],
        "schemaVersion": 39,
        "version": 1,
        "editable": false,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
             "refresh": 1, "includeAll": false, "multi": false},
            variable("job", "Job", "label_values(vigie_build_info, job)"),
            variable("instance", "Instance", "label_values(vigie_build_info{job=~\"$job\"}, instance)"),
        ]},
        "panels": panels,
    });
    // The alternate form is indented; keys are sorted so that the file does not depend on how maps are kept.
    format!("{:#}\n", sorted(dashboard))
}

fn variable(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name, "label": label, "type": "query", "hide": 0, "refresh": 2, "sort": 1,
        "includeAll": true, "multi": true, "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "definition": query,
        "query": {"query": query, "refId": "Variable"},
    })
}

fn panel_json(panel: &Panel, id: usize, position: &Value) -> Value {
    if matches!(panel.look, Look::Row) {
        return json!({"id": id, "type": "row", "title": panel.title, "gridPos": position, "collapsed": false, "panels": []});
    }
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip('A'..)
        .map(|((expr, legend), letter)| {
            json!({
                "refId": letter.to_string(), "datasource": source, "editorMode": "code", "range": true,
                "expr": expr.replace("$S", SELECTOR), "legendFormat": legend,
            })
        })
        .collect();
    let lines = matches!(panel.look, Look::Lines);
    let thresholds = match panel.look {
        Look::State => {
            json!({"mode": "absolute", "steps": [{"color": "red", "value": null}, {"color": "green", "value": 1}]})
        }
        _ => json!({"mode": "absolute", "steps": [{"color": "green", "value": null}]}),
    };
    let options = if lines {
        json!({"legend": {"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": {"mode": "multi", "sort": "desc"}})
    } else {
        json!({"colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}, "textMode": "auto"})
    };
    let custom = if lines {
        json!({"fillOpacity": 10, "lineWidth": 1, "showPoints": "never"})
    } else {
        json!({})
    };
    json!({
        "id": id,
        "type": if lines { "timeseries" } else { "stat" },
        "title": panel.title,
        "description": panel.description,
        "datasource": source,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "thresholds": thresholds, "custom": custom}, "overrides": []},
        "options": options,
        "targets": targets,
    })
}

/// The same value with the keys of every object in alphabetical order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// A string as YAML: its JSON form, which is a double-quoted YAML scalar.
fn quoted(text: &str) -> Value {
    Value::from(text)
}

fn rules() -> String {
    let mut out =
        String::from("# Generated from the metric catalogue of vigie. Change the generator, not this file.\ngroups:\n");
    out.push_str("  - name: vigie-recordings\n    interval: 30s\n    rules:\n");
    for rule in RECORDINGS {
        let _ = writeln!(
            out,
            "      - record: {}\n        expr: {}",
            rule.name,
            quoted(rule.expr)
        );
    }
    out.push_str("  - name: vigie-alerts\n    rules:\n");
    for alert in ALERTS {
        let _ = writeln!(
            out,
            "      - alert: {}\n        expr: {}\n        for: {}\n        labels:\n          severity: {}\n        annotations:\n          summary: {}\n          description: {}\n          runbook_url: {}",
            alert.name,
            quoted(alert.expr),
            alert.wait,
            alert.severity,
            quoted(alert.summary),
            quoted(alert.description),
            quoted(&format!("dashboards/README.md#{}", alert.name.to_lowercase())),
        );
    }
    out
}

fn runbook() -> String {
    let mut out = String::from(
        "# Metrics, dashboards and alerts\n\n\
         Generated from the metric catalogue (`crates/telemetry`); `UPDATE_EXPECT=1 cargo test -p vigie-telemetry` writes it anew.\n\n\
         - `grafana/overview.json`: the dashboard; `grafana/provisioning.yml` loads it.\n\
         - `alerts.yml`: Prometheus rules; load it with `rule_files`.\n\n\
         ## Alerts\n\n",
    );
    for alert in ALERTS {
        let _ = writeln!(
            out,
            "### {}\n\n{}\n\nSeverity {}, after {}: `{}`\n",
            alert.name, alert.description, alert.severity, alert.wait, alert.expr
        );
        for (index, step) in alert.runbook.iter().enumerate() {
            let _ = writeln!(out, "{}. {step}", index + 1);
        }
        out.push('\n');
    }
    out.push_str("## Metrics\n\n| metric | kind | labels | meaning | when it moves |\n|---|---|---|---|---|\n");
    for metric in catalogue::METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let unit = match metric.unit {
            Unit::Seconds => ", seconds",
            Unit::Bytes => ", bytes",
            Unit::Count => "",
        };
        let labels: Vec<String> = metric
            .labels
            .iter()
            .map(|label| match label.values {
                Values::Closed(values) => format!("`{}`: {}", label.name, values.join(", ")),
                Values::Bounded { max, from } => format!("`{}`: {from} (at most {max})", label.name),
            })
            .collect();
        let _ = writeln!(
            out,
            "| `{}` | {kind}{unit} | {} | {} | {} |",
            metric.name,
            labels.join("; "),
            metric.help,
            metric.when_it_moves
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    fn root() -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "..", "..", "dashboards"].iter().collect()
    }

    #[test]
    fn committed_files_are_the_generated_ones() {
        for (path, generated) in files() {
            let file = root().join(path);
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, &generated).unwrap();
            }
            let committed = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(
                committed == generated,
                "dashboards/{path} is not what the catalogue generates: run UPDATE_EXPECT=1 cargo test -p vigie-telemetry"
            );
        }
    }

    /// Words that stand where a metric could, and are none.
    const WORDS: &[&str] = &[
        "and", "or", "unless", "by", "without", "on", "ignoring", "offset", "bool",
    ];
    const FUNCTIONS: &[&str] = &[
        "sum",
        "min",
        "max",
        "avg",
        "topk",
        "rate",
        "increase",
        "deriv",
        "histogram_quantile",
        "label_values",
    ];

    /// Names in `expr` that neither the catalogue nor a recording rule declares, and labels that the metrics named in
    /// `expr` do not have. A scanner, not a parser: promtool and Grafana parse.
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
                    '(' => parens.push(last == "by" || last == "without"),
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
                if braces > 0 || parens.last() == Some(&true) {
                    mentioned.push(word);
                } else if called && FUNCTIONS.contains(&word) || WORDS.contains(&word) {
                } else if let Some(metric) = catalogue::find(word) {
                    metrics.push(metric);
                } else if !RECORDINGS.iter().any(|rule| rule.name == word) && !mentioned_as_variable(expr, word) {
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

    /// `label_values(metric, label)` names a label where a metric could stand.
    fn mentioned_as_variable(expr: &str, word: &str) -> bool {
        expr.starts_with("label_values(") && ["job", "instance"].contains(&word)
    }

    #[test]
    fn expressions_name_only_what_the_catalogue_declares() {
        let panels = OVERVIEW
            .iter()
            .flat_map(|panel| panel.queries.iter().map(|(expr, _)| expr.replace("$S", SELECTOR)));
        let rules = RECORDINGS
            .iter()
            .map(|rule| rule.expr)
            .chain(ALERTS.iter().map(|alert| alert.expr));
        for expr in panels.chain(rules.map(str::to_owned)) {
            assert_eq!(undeclared(&expr), Vec::<String>::new(), "{expr}");
        }
    }

    #[test]
    fn undeclared_names_are_found() {
        assert_eq!(
            undeclared("sum by (nobody) (rate(vigie_nothing_total[5m]))"),
            ["vigie_nothing_total", "label nobody"]
        );
        assert_eq!(undeclared(r#"vigie_ready{outcome="applied"} == 0"#), ["label outcome"]);
        assert_eq!(undeclared("nonsense(vigie_ready)"), ["nonsense"]);
        assert_eq!(undeclared("vigie_ready_bucket"), ["vigie_ready_bucket"]);
    }

    #[test]
    fn the_overview_follows_the_rules_of_dashboards() {
        let dashboard: Value = serde_json::from_str(&overview()).unwrap();
        assert_eq!(
            (&dashboard["schemaVersion"], &dashboard["editable"]),
            (&json!(39), &json!(false))
        );
        let variables: Vec<&str> = dashboard["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["name"].as_str().unwrap())
            .collect();
        assert_eq!(variables, ["datasource", "job", "instance"]);
        let mut ids = BTreeSet::new();
        let mut cells = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: id used twice");
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(x < 24 && cells.insert((x, y)), "{title}: overlaps another panel");
                }
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(
                panel["description"].as_str().unwrap().ends_with('.'),
                "{title}: description"
            );
            assert!(
                !panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap().is_empty(),
                "{title}: unit"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            for target in panel["targets"].as_array().unwrap() {
                let expr = target["expr"].as_str().unwrap();
                assert!(
                    expr.contains(r#"job=~"$job""#) && expr.contains(r#"instance=~"$instance""#),
                    "{title}: selector"
                );
                assert!(
                    !expr.contains("rate(") || expr.contains("[$__rate_interval]"),
                    "{title}: rate interval"
                );
                let series = expr.matches("vigie_").count() + expr.matches("process_").count();
                assert_eq!(
                    series,
                    expr.matches(SELECTOR).count(),
                    "{title}: every series is selected"
                );
                assert!(!target["legendFormat"].as_str().unwrap().is_empty(), "{title}: legend");
            }
        }
    }

    #[test]
    fn every_alert_says_what_to_do() {
        let runbook = runbook();
        for alert in ALERTS {
            assert!(
                !alert.runbook.is_empty() && alert.summary.contains("{{ $labels.instance }}"),
                "{}",
                alert.name
            );
            assert!(["critical", "warning"].contains(&alert.severity), "{}", alert.name);
            assert!(runbook.contains(&format!("\n### {}\n", alert.name)), "{}", alert.name);
        }
    }
}
