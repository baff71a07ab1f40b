//! Every alert in a case in which it fires, and in cases in which it does not: promtool plays the series through the very
//! rules that are shipped. A case that fires must fire nothing else; one that does not must never have fired anything.

use serde_json::{Value, json};
use vigie_telemetry::dashboards;

use crate::committed;
use crate::prometheus::promtool;

/// Series as promtool writes them, one value a step; `$I` stands for job and instance.
type Series = &'static [(&'static str, &'static str)];

/// The groups of rules, in the order of their evaluation.
const GROUPS: &[&str] = &["vigie-recordings", "vigie-alerts"];

struct Case {
    alert: &'static str,
    /// Minutes from one value, and one evaluation, to the next.
    step: u32,
    /// Minutes after which the alert fires.
    at: u32,
    fires: &'static [Series],
    quiet: &'static [Series],
}

const CASES: &[Case] = &[
    Case {
        alert: "VigieDown",
        step: 1,
        at: 10,
        fires: &[&[("up{$I}", "1 1 0x20")]],
        quiet: &[
            &[("up{$I}", "1x5 0 1x20")],
            &[(r#"up{job="other",instance="b"}"#, "0x20")],
        ],
    },
    Case {
        alert: "VigieNotReady",
        step: 1,
        at: 10,
        fires: &[&[("vigie_ready{$I}", "0x20")]],
        quiet: &[&[("vigie_ready{$I}", "0 1x20")]],
    },
    Case {
        alert: "VigieRestarting",
        step: 1,
        at: 20,
        fires: &[&[("process_start_time_seconds{$I}", "1x5 2x5 3x5 4x20")]],
        quiet: &[&[("process_start_time_seconds{$I}", "1x5 2x30")]],
    },
    Case {
        alert: "VigieIngestStalled",
        step: 1,
        at: 90,
        fires: &[&[(r#"vigie_events_accepted_total{$I,workspace="acme"}"#, "0+60x60 3600x60")]],
        quiet: &[
            &[(r#"vigie_events_accepted_total{$I,workspace="acme"}"#, "0+60x120")],
            &[(r#"vigie_events_accepted_total{$I,workspace="acme"}"#, "0x120")],
        ],
    },
    Case {
        alert: "VigieServerErrors",
        step: 1,
        at: 20,
        fires: &[&[
            (
                r#"vigie_http_request_duration_seconds_count{$I,status="5xx"}"#,
                "0+2x30",
            ),
            (
                r#"vigie_http_request_duration_seconds_count{$I,status="2xx"}"#,
                "0+98x30",
            ),
        ]],
        quiet: &[&[
            (
                r#"vigie_http_request_duration_seconds_count{$I,status="5xx"}"#,
                "0+1x30",
            ),
            (
                r#"vigie_http_request_duration_seconds_count{$I,status="2xx"}"#,
                "0+999x30",
            ),
        ]],
    },
    Case {
        alert: "VigieAckSlow",
        step: 1,
        at: 30,
        fires: &[&[
            (r#"vigie_ingest_ack_latency_seconds_bucket{$I,le="1"}"#, "0+80x40"),
            (r#"vigie_ingest_ack_latency_seconds_bucket{$I,le="2.5"}"#, "0+100x40"),
            (r#"vigie_ingest_ack_latency_seconds_bucket{$I,le="+Inf"}"#, "0+100x40"),
        ]],
        quiet: &[&[
            (r#"vigie_ingest_ack_latency_seconds_bucket{$I,le="1"}"#, "0+1000x40"),
            (r#"vigie_ingest_ack_latency_seconds_bucket{$I,le="2.5"}"#, "0+1001x40"),
            (r#"vigie_ingest_ack_latency_seconds_bucket{$I,le="+Inf"}"#, "0+1001x40"),
        ]],
    },
    Case {
        alert: "VigieLogAppendErrors",
        step: 1,
        at: 12,
        fires: &[&[(r#"vigie_log_append_errors_total{$I,reason="poisoned"}"#, "0x10 1x20")]],
        quiet: &[&[(r#"vigie_log_append_errors_total{$I,reason="overloaded"}"#, "0+5x30")]],
    },
    Case {
        alert: "VigieFsyncSlow",
        step: 1,
        at: 30,
        fires: &[&[
            (r#"vigie_log_fsync_duration_seconds_bucket{$I,le="0.1"}"#, "0+90x40"),
            (r#"vigie_log_fsync_duration_seconds_bucket{$I,le="0.25"}"#, "0+100x40"),
            (r#"vigie_log_fsync_duration_seconds_bucket{$I,le="+Inf"}"#, "0+100x40"),
        ]],
        quiet: &[&[
            (r#"vigie_log_fsync_duration_seconds_bucket{$I,le="0.005"}"#, "0+100x40"),
            (r#"vigie_log_fsync_duration_seconds_bucket{$I,le="+Inf"}"#, "0+100x40"),
        ]],
    },
    Case {
        alert: "VigieDiskFilling",
        step: 10,
        at: 440,
        fires: &[&[
            ("vigie_disk_free_bytes{$I}", "36000000000-500000000x46"),
            ("vigie_disk_size_bytes{$I}", "100000000000x46"),
        ]],
        quiet: &[
            // It fills, but not within a day.
            &[
                ("vigie_disk_free_bytes{$I}", "36000000000-50000000x46"),
                ("vigie_disk_size_bytes{$I}", "100000000000x46"),
            ],
            // A backfill on a disk with much room.
            &[
                ("vigie_disk_free_bytes{$I}", "95000000000-1000000000x46"),
                ("vigie_disk_size_bytes{$I}", "100000000000x46"),
            ],
        ],
    },
    Case {
        alert: "VigieDiskFull",
        step: 1,
        at: 5,
        fires: &[&[
            ("vigie_disk_free_bytes{$I}", "4000000000x20"),
            ("vigie_disk_size_bytes{$I}", "100000000000x20"),
        ]],
        quiet: &[&[
            ("vigie_disk_free_bytes{$I}", "20000000000x20"),
            ("vigie_disk_size_bytes{$I}", "100000000000x20"),
        ]],
    },
    Case {
        alert: "VigieFilesExhausted",
        step: 1,
        at: 10,
        fires: &[&[("process_open_fds{$I}", "900x20"), ("process_max_fds{$I}", "1000x20")]],
        quiet: &[&[("process_open_fds{$I}", "500x20"), ("process_max_fds{$I}", "1000x20")]],
    },
    Case {
        alert: "VigieDeadLetters",
        step: 1,
        at: 13,
        fires: &[
            &[(r#"vigie_dead_letters_stored_total{$I,reason="value"}"#, "3x10 4x20")],
            // The first one of its reason: the series begins at 1.
            &[(r#"vigie_dead_letters_stored_total{$I,reason="value"}"#, "_x10 1x20")],
        ],
        // That began long ago.
        quiet: &[&[(r#"vigie_dead_letters_stored_total{$I,reason="value"}"#, "0x30")]],
    },
    Case {
        alert: "VigieConflicts",
        step: 1,
        at: 100,
        fires: &[&[(
            r#"vigie_events_outcomes_total{$I,workspace="acme",outcome="conflict"}"#,
            "0+1x120",
        )]],
        quiet: &[
            &[(
                r#"vigie_events_outcomes_total{$I,workspace="acme",outcome="conflict"}"#,
                "0x20 1x100",
            )],
            &[(
                r#"vigie_events_outcomes_total{$I,workspace="acme",outcome="duplicate"}"#,
                "0+9x120",
            )],
        ],
    },
    Case {
        alert: "VigieDuplicates",
        step: 1,
        at: 120,
        fires: &[&[
            (r#"vigie_events_duplicates_total{$I,source="segment"}"#, "0+120x150"),
            (r#"vigie_events_accepted_total{$I,workspace="acme"}"#, "0+180x150"),
        ]],
        quiet: &[&[
            (r#"vigie_events_duplicates_total{$I,source="segment"}"#, "0+120x150"),
            (r#"vigie_events_accepted_total{$I,workspace="acme"}"#, "0+600x150"),
        ]],
    },
    Case {
        alert: "VigieSignalSilent",
        step: 10,
        at: 1560,
        fires: &[&[(
            r#"vigie_events_applied_total{$I,signal="purchase"}"#,
            "0+60x144 8640x20",
        )]],
        quiet: &[
            &[(r#"vigie_events_applied_total{$I,signal="purchase"}"#, "0+60x170")],
            // Ten an hour: an hour without any means nothing.
            &[(r#"vigie_events_applied_total{$I,signal="purchase"}"#, "0+1x144 144x20")],
        ],
    },
    Case {
        alert: "VigieLagGrowing",
        step: 1,
        at: 40,
        fires: &[&[(r#"vigie_pipeline_lag_records{$I,partition="1"}"#, "0+1000x60")]],
        quiet: &[&[(r#"vigie_pipeline_lag_records{$I,partition="1"}"#, "50000-100x60")]],
    },
    Case {
        alert: "VigieWatermarkOld",
        step: 1,
        at: 20,
        fires: &[&[
            (r#"vigie_pipeline_watermark_age_seconds{$I,partition="1"}"#, "0x30"),
            (r#"vigie_pipeline_watermark_age_seconds{$I,partition="3"}"#, "0+60x30"),
        ]],
        quiet: &[&[(
            r#"vigie_pipeline_watermark_age_seconds{$I,partition="3"}"#,
            "30x10 90x3 2x20",
        )]],
    },
    Case {
        alert: "VigieScoresSlow",
        step: 1,
        at: 40,
        fires: &[&[
            (
                r#"vigie_pipeline_event_to_score_latency_seconds_bucket{$I,le="10"}"#,
                "0+90x60",
            ),
            (
                r#"vigie_pipeline_event_to_score_latency_seconds_bucket{$I,le="30"}"#,
                "0+100x60",
            ),
            (
                r#"vigie_pipeline_event_to_score_latency_seconds_bucket{$I,le="+Inf"}"#,
                "0+100x60",
            ),
        ]],
        quiet: &[&[
            (
                r#"vigie_pipeline_event_to_score_latency_seconds_bucket{$I,le="0.05"}"#,
                "0+100x60",
            ),
            (
                r#"vigie_pipeline_event_to_score_latency_seconds_bucket{$I,le="+Inf"}"#,
                "0+100x60",
            ),
        ]],
    },
    Case {
        alert: "VigieCanaryLost",
        step: 1,
        at: 12,
        fires: &[&[("vigie_canary_lost_total{$I}", "0x10 1x20")]],
        quiet: &[&[("vigie_canary_lost_total{$I}", "1x30")]],
    },
    Case {
        alert: "VigieStoreCommitErrors",
        step: 1,
        at: 12,
        fires: &[&[("vigie_store_commit_errors_total{$I}", "0x10 1x20")]],
        quiet: &[&[("vigie_store_commit_errors_total{$I}", "7x30")]],
    },
    Case {
        alert: "VigieTimersStuck",
        step: 1,
        at: 20,
        fires: &[&[("vigie_timers_overdue_seconds{$I}", "0+60x30")]],
        quiet: &[&[("vigie_timers_overdue_seconds{$I}", "1x10 300x3 1x20")]],
    },
    Case {
        alert: "VigieTimersLate",
        step: 1,
        at: 30,
        fires: &[&[
            (r#"vigie_timers_lateness_seconds_bucket{$I,le="30"}"#, "0+90x40"),
            (r#"vigie_timers_lateness_seconds_bucket{$I,le="60"}"#, "0+100x40"),
            (r#"vigie_timers_lateness_seconds_bucket{$I,le="+Inf"}"#, "0+100x40"),
        ]],
        quiet: &[&[
            (r#"vigie_timers_lateness_seconds_bucket{$I,le="2"}"#, "0+100x40"),
            (r#"vigie_timers_lateness_seconds_bucket{$I,le="+Inf"}"#, "0+100x40"),
        ]],
    },
    Case {
        alert: "VigieArchiveErrors",
        step: 1,
        at: 40,
        fires: &[&[("vigie_archive_errors_total{$I}", "0+1x60")]],
        quiet: &[&[("vigie_archive_errors_total{$I}", "0x10 1x50")]],
    },
    Case {
        alert: "VigieArchiveBehind",
        step: 1,
        at: 30,
        fires: &[&[("vigie_archive_lag_seconds{$I}", "3600+60x60")]],
        quiet: &[&[("vigie_archive_lag_seconds{$I}", "60x60")]],
    },
    Case {
        alert: "VigieAuditDifferent",
        step: 1,
        at: 2,
        fires: &[&[("vigie_audit_differences{$I}", "0 3x10")]],
        quiet: &[&[("vigie_audit_differences{$I}", "0x10")]],
    },
    Case {
        alert: "VigieAuditBlind",
        step: 1,
        at: 140,
        fires: &[&[(
            r#"vigie_audit_runs_total{$I,verdict="not_measured"}"#,
            "0x30 1x30 2x30 3x60",
        )]],
        quiet: &[
            &[(r#"vigie_audit_runs_total{$I,verdict="not_measured"}"#, "0x30 1x150")],
            &[(r#"vigie_audit_runs_total{$I,verdict="equal"}"#, "0+1x150")],
        ],
    },
    Case {
        alert: "VigieFlagsJump",
        step: 10,
        at: 1800,
        fires: &[&[(
            r#"vigie_flags_total{$I,policy="win-back",decision="flagged"}"#,
            "0+1x172 173+100x10",
        )]],
        quiet: &[
            // A large base, as always.
            &[(
                r#"vigie_flags_total{$I,policy="win-back",decision="flagged"}"#,
                "0+100x185",
            )],
            // Ten times more of nearly nothing.
            &[(
                r#"vigie_flags_total{$I,policy="win-back",decision="flagged"}"#,
                "0+1x172 173+10x10",
            )],
            // Whoever is held out is not contacted.
            &[(
                r#"vigie_flags_total{$I,policy="win-back",decision="held_out"}"#,
                "0+1x172 173+100x10",
            )],
        ],
    },
    Case {
        alert: "VigieDestinationFailing",
        step: 1,
        at: 30,
        fires: &[&[(r#"vigie_delivery_well{$I,destination="crm"}"#, "0x40")]],
        quiet: &[&[(r#"vigie_delivery_well{$I,destination="crm"}"#, "0x5 1x40")]],
    },
    Case {
        alert: "VigieRelancesParked",
        step: 1,
        at: 20,
        fires: &[&[(r#"vigie_delivery_parked{$I,destination="crm"}"#, "3x30")]],
        quiet: &[&[(r#"vigie_delivery_parked{$I,destination="crm"}"#, "0x30")]],
    },
    Case {
        alert: "VigieComplaints",
        step: 10,
        at: 1500,
        fires: &[&[
            (r#"vigie_events_applied_total{$I,signal="email.complaint"}"#, "0+10x150"),
            (
                r#"vigie_events_applied_total{$I,signal="email.delivered"}"#,
                "0+2000x150",
            ),
        ]],
        quiet: &[&[
            (r#"vigie_events_applied_total{$I,signal="email.complaint"}"#, "0+10x150"),
            (
                r#"vigie_events_applied_total{$I,signal="email.delivered"}"#,
                "0+10000x150",
            ),
        ]],
    },
    Case {
        alert: "VigieModelOld",
        step: 1,
        at: 90,
        // promtool's time begins at 0.
        fires: &[&[("vigie_model_activated_seconds{$I}", "-16000000x120")]],
        quiet: &[&[("vigie_model_activated_seconds{$I}", "-15000000x120")]],
    },
    Case {
        alert: "VigieChurnDrift",
        step: 10,
        at: 400,
        // 150 of 1,000 more than expected, over two tenths.
        fires: &[&[
            (
                r#"vigie_churn_judged_customers{$I,role="in_force",decile="5"}"#,
                "500x100",
            ),
            (
                r#"vigie_churn_judged_customers{$I,role="in_force",decile="7"}"#,
                "500x100",
            ),
            (
                r#"vigie_churn_expected_customers{$I,role="in_force",decile="5"}"#,
                "225x100",
            ),
            (
                r#"vigie_churn_expected_customers{$I,role="in_force",decile="7"}"#,
                "325x100",
            ),
            (
                r#"vigie_churn_observed_customers{$I,role="in_force",decile="5"}"#,
                "300x100",
            ),
            (
                r#"vigie_churn_observed_customers{$I,role="in_force",decile="7"}"#,
                "400x100",
            ),
            (r#"vigie_churn_variance_customers{$I,role="in_force"}"#, "238x100"),
        ]],
        quiet: &[
            // Within chance.
            &[
                (
                    r#"vigie_churn_judged_customers{$I,role="in_force",decile="5"}"#,
                    "1000x100",
                ),
                (
                    r#"vigie_churn_expected_customers{$I,role="in_force",decile="5"}"#,
                    "450x100",
                ),
                (
                    r#"vigie_churn_observed_customers{$I,role="in_force",decile="5"}"#,
                    "500x100",
                ),
                (r#"vigie_churn_variance_customers{$I,role="in_force"}"#, "247x100"),
            ],
            // Beyond chance, since there are so many, and too little to act on.
            &[
                (
                    r#"vigie_churn_judged_customers{$I,role="in_force",decile="5"}"#,
                    "1000000x100",
                ),
                (
                    r#"vigie_churn_expected_customers{$I,role="in_force",decile="5"}"#,
                    "450000x100",
                ),
                (
                    r#"vigie_churn_observed_customers{$I,role="in_force",decile="5"}"#,
                    "460000x100",
                ),
                (r#"vigie_churn_variance_customers{$I,role="in_force"}"#, "247000x100"),
            ],
            // The candidate's are nobody's business.
            &[
                (
                    r#"vigie_churn_judged_customers{$I,role="candidate",decile="5"}"#,
                    "1000x100",
                ),
                (
                    r#"vigie_churn_expected_customers{$I,role="candidate",decile="5"}"#,
                    "450x100",
                ),
                (
                    r#"vigie_churn_observed_customers{$I,role="candidate",decile="5"}"#,
                    "900x100",
                ),
                (r#"vigie_churn_variance_customers{$I,role="candidate"}"#, "247x100"),
            ],
        ],
    },
];

fn test(series: Series, step: u32, at: u32, expression: &str, expected: Value) -> Value {
    let input: Vec<Value> = series
        .iter()
        .map(|(name, values)| json!({"series": name.replace("$I", r#"job="vigie",instance="a""#), "values": values}))
        .collect();
    json!({
        "interval": format!("{step}m"),
        "input_series": input,
        "promql_expr_test": [{"expr": expression, "eval_time": format!("{at}m"), "exp_samples": expected}],
    })
}

/// Runs the tests against the rules that are shipped, which are evaluated every `step` minutes.
fn run(step: u32, tests: &[Value]) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let rules = committed::directory().canonicalize().unwrap().join("alerts.yml");
    // What is recorded comes first: promtool takes groups in any order otherwise, and with a step beyond its look-back of five
    // minutes an alert would then see no recording at all.
    // JSON is YAML.
    let text = json!({
        "rule_files": [rules],
        "evaluation_interval": format!("{step}m"),
        "group_eval_order": GROUPS,
        "tests": tests,
    })
    .to_string();
    let file = directory.path().join("test.yml");
    std::fs::write(&file, text).unwrap();
    promtool(&["test", "rules", file.to_str().unwrap()], "")
}

fn firing(case: &Case, series: Series) -> Value {
    let expression = r#"count by (alertname) (ALERTS{alertstate="firing"})"#;
    let labels = format!("{{alertname={:?}}}", case.alert);
    test(
        series,
        case.step,
        case.at,
        expression,
        json!([{"labels": labels, "value": 1}]),
    )
}

fn quiet(case: &Case, series: Series) -> Value {
    let expression = r#"count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[2d]))"#;
    test(series, case.step, case.at, expression, json!([]))
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() {
    let cases: Vec<&str> = CASES.iter().map(|case| case.alert).collect();
    assert_eq!(
        cases,
        dashboards::alerts().collect::<Vec<_>>(),
        "one case an alert, in the order of the rules"
    );
    for case in CASES {
        assert!(!case.fires.is_empty() && !case.quiet.is_empty(), "{}", case.alert);
        assert!([1, 10].contains(&case.step), "{}: no run has this step", case.alert);
    }
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    for step in [1, 10] {
        let mut tests = Vec::new();
        for case in CASES.iter().filter(|case| case.step == step) {
            tests.extend(case.fires.iter().map(|series| firing(case, series)));
            tests.extend(case.quiet.iter().map(|series| quiet(case, series)));
        }
        if let Err(said) = run(step, &tests) {
            panic!("{said}");
        }
    }
}

#[test]
fn a_case_that_does_not_hold_is_found() {
    let case = &CASES[0];
    let swapped = [firing(case, case.quiet[0]), quiet(case, case.fires[0])];
    let said = run(case.step, &swapped).unwrap_err();
    assert_eq!(said.matches("expr:").count(), 2, "{said}");
}

#[test]
fn what_people_read_is_filled_in() {
    let annotations = json!({
        "summary": "the log of vigie on a cannot be written: poisoned",
        "description": "Appends failed. Nothing that was acknowledged is lost; nothing new is accepted.",
        "runbook_url": "dashboards/README.md#vigielogappenderrors",
    });
    let labels = json!({"severity": "critical", "job": "vigie", "instance": "a", "reason": "poisoned"});
    let mut case = test(
        &[(r#"vigie_log_append_errors_total{$I,reason="poisoned"}"#, "0x10 1x20")],
        1,
        12,
        "vector(1)",
        json!([{"labels": "{}", "value": 1}]),
    );
    case["alert_rule_test"] = json!([{
        "eval_time": "12m", "alertname": "VigieLogAppendErrors",
        "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
    }]);
    if let Err(said) = run(1, &[case]) {
        panic!("{said}");
    }
}
