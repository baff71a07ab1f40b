//! Dashboards, alert rules and their runbook, generated from the catalogue into `dashboards/` at the root of the
//! repository. A test compares the committed files with the generated ones (`UPDATE_EXPECT=1` rewrites them); others refuse
//! an expression that names a metric or label that the catalogue does not have, ask a real Prometheus for every panel, and
//! see every alert fire and not fire.
//!
//! A dashboard is a table in a file of its own: a new panel is a line there, a new dashboard a file and a line in
//! [`DASHBOARDS`]. They never hard-code a data source, a job or an instance: those are variables of the dashboard.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::catalogue::{self, Kind, Unit, Values};

mod alerts;
mod deliveries;
mod ingestion;
mod overview;
mod pipeline;
mod relances;
mod runtime;
mod scores;
mod table;

use alerts::{ALERTS, RECORDINGS};
use table::{Dashboard, Look, Panel};

/// Every dashboard, in the order of the links between them.
const DASHBOARDS: &[Dashboard] = &[
    overview::OVERVIEW,
    ingestion::INGESTION,
    pipeline::PIPELINE,
    scores::SCORES,
    relances::RELANCES,
    deliveries::DELIVERIES,
    runtime::RUNTIME,
];

/// The selector that every expression of a dashboard carries, written `$S` in the tables.
pub const SELECTOR: &str = r#"job=~"$job",instance=~"$instance""#;

/// The generated files: path below `dashboards/` and content.
#[must_use]
pub fn files() -> Vec<(String, String)> {
    let mut files = vec![
        ("README.md".to_owned(), runbook()),
        ("alerts.yml".to_owned(), rules()),
        ("grafana/provisioning.yml".to_owned(), PROVISIONING.to_owned()),
    ];
    files.extend(
        DASHBOARDS
            .iter()
            .map(|dashboard| (format!("grafana/{}.json", dashboard.name), dashboard_json(dashboard))),
    );
    files
}

/// The names of the alerts, in the order of the rules.
pub fn alerts() -> impl Iterator<Item = &'static str> {
    ALERTS.iter().map(|alert| alert.name)
}

/// Every expression of the rules: those of recordings with the name that they record.
pub fn rule_expressions() -> impl Iterator<Item = (Option<&'static str>, &'static str)> {
    let recordings = RECORDINGS.iter().map(|rule| (Some(rule.name), rule.expr));
    recordings.chain(ALERTS.iter().map(|alert| (None, alert.expr)))
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

fn dashboard_json(dashboard: &Dashboard) -> String {
    let mut panels = Vec::new();
    let (mut x, mut y, mut tallest) = (0, 0, 0);
    for (index, panel) in dashboard.panels.iter().enumerate() {
        let (width, height) = match panel.look {
            Look::Row => (24, 1),
            Look::Up | Look::Down | Look::Number => (4, 4),
            Look::Lines => (8, 8),
        };
        // What differs in height begins a line of its own.
        if x + width > 24 || (x > 0 && height != tallest) {
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
        "uid": format!("vigie-{}", dashboard.name),
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["vigie"],
        "schemaVersion": 39,
        "version": 1,
        "editable": false,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "annotations": {"list": []},
        "links": [{
            "title": "vigie", "type": "dashboards", "tags": ["vigie"], "asDropdown": true, "includeVars": true,
            "keepTime": true, "icon": "external link", "targetBlank": false, "tooltip": "", "url": "",
        }],
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
    if panel.look == Look::Row {
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
    let lines = panel.look == Look::Lines;
    let steps = match panel.look {
        Look::Up => json!([{"color": "red", "value": null}, {"color": "green", "value": 1}]),
        Look::Down => json!([{"color": "green", "value": null}, {"color": "red", "value": 0.5}]),
        Look::Row | Look::Number | Look::Lines => json!([{"color": "green", "value": null}]),
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
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit, "min": 0, "custom": custom,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
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
         `alerts.yml` holds the Prometheus rules: load it with `rule_files`. `grafana/provisioning.yml` loads the dashboards:\n\n",
    );
    for dashboard in DASHBOARDS {
        let _ = writeln!(
            out,
            "- [{0}](grafana/{0}.json): {1}",
            dashboard.name, dashboard.description
        );
    }
    out.push_str(
        "\n## Alerts\n\n`critical` means that somebody gets up: events are refused, or scores and flags are wrong or do not come. \
         `warning` means today.\n\n",
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
