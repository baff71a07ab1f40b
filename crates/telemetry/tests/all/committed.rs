//! The files in `dashboards/` are the generated ones, and the runbook is complete.

use std::path::PathBuf;

use vigie_telemetry::{catalogue, dashboards};

pub(crate) fn directory() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "dashboards"].iter().collect()
}

#[test]
fn committed_files_are_the_generated_ones() {
    let mut generated: Vec<PathBuf> = Vec::new();
    for (path, content) in dashboards::files() {
        let file = directory().join(&path);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &content).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == content,
            "dashboards/{path} is not what the catalogue generates: run UPDATE_EXPECT=1 cargo test -p vigie-telemetry"
        );
        generated.push(file);
    }
    for directory in [directory(), directory().join("grafana")] {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            assert!(
                path.is_dir() || generated.contains(&path),
                "{} is not generated: delete it, or generate it",
                path.display()
            );
        }
    }
}

#[test]
fn the_runbook_has_every_alert_and_every_metric() {
    let runbook = std::fs::read_to_string(directory().join("README.md")).unwrap();
    for alert in dashboards::alerts() {
        let section = runbook
            .split(&format!("\n### {alert}\n"))
            .nth(1)
            .unwrap_or_else(|| panic!("no section on {alert}"));
        let section = section.split("\n###").next().unwrap();
        assert!(section.contains("\n1. "), "{alert}: no first step");
        // A section may refer to another: that must be there.
        for word in section.split(|c: char| !c.is_ascii_alphanumeric()) {
            let refers = word.starts_with("Vigie") && word.len() > "Vigie".len();
            assert!(
                !refers || dashboards::alerts().any(|known| known == word),
                "{alert}: there is no alert {word}"
            );
        }
    }
    for metric in catalogue::METRICS {
        assert!(runbook.contains(&format!("\n| `{}` |", metric.name)), "{}", metric.name);
    }
}

#[test]
fn every_rule_says_how_bad_what_and_where_to_look() {
    let rules = std::fs::read_to_string(directory().join("alerts.yml")).unwrap();
    for alert in dashboards::alerts() {
        let rule = rules.split(&format!("- alert: {alert}\n")).nth(1).unwrap();
        let rule = rule.split("- alert: ").next().unwrap();
        let severity = ["critical", "warning"]
            .iter()
            .any(|severity| rule.contains(&format!("severity: {severity}\n")));
        assert!(severity, "{alert}: severity");
        for annotation in ["summary: \"", "description: \""] {
            assert!(rule.contains(annotation), "{alert}: {annotation}");
        }
        let link = format!("runbook_url: \"dashboards/README.md#{}\"", alert.to_lowercase());
        assert!(rule.contains(&link), "{alert}: {link}");
    }
}
