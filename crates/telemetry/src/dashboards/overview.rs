//! Dashboard "Overview": is it well, and does it keep its promises. A table, and nothing else.

use super::table::{Dashboard, down, lines, number, per_second, quantile, row, up, within};

pub(super) const OVERVIEW: Dashboard = Dashboard {
    name: "overview",
    title: "vigie: overview",
    description: "Is vigie well, and does it keep its promises? The other dashboards say why not.",
    panels: &[
        row("Is it well?"),
        up(
            "Ready",
            "1 when every instance can honour a 2xx answer. 0: see VigieNotReady in the runbook.",
            &[("min(vigie_ready{$S})", "ready")],
        ),
        number(
            "Events accepted",
            "Events per second answered with 2xx.",
            "cps",
            &[(per_second!("vigie_events_accepted_total"), "accepted")],
        ),
        number(
            "Event to score, p99",
            "Time from the receipt of an event to the stored score that knows it.",
            "s",
            &[(quantile!(0.99, "vigie_pipeline_event_to_score_latency_seconds"), "p99")],
        ),
        number(
            "Oldest unscored record",
            "Age of the oldest record that no score knows yet. Above a minute something is stuck.",
            "s",
            &[("max(vigie_pipeline_watermark_age_seconds{$S})", "age")],
        ),
        down(
            "Differences",
            "What the last audits found between the store and an independent recomputation.",
            "short",
            &[("max(vigie_audit_differences{$S})", "differences")],
        ),
        down(
            "Dead letters",
            "Events set aside in the last hour. List them with `vigie dead-letters list`.",
            "short",
            &[(within!("1h", "vigie_dead_letters_stored_total"), "dead letters")],
        ),
        row("The way of an event"),
        lines(
            "Events by outcome",
            "What became of accepted events. Conflicts are events that came under the id of another.",
            "cps",
            &[
                (per_second!("vigie_events_accepted_total"), "accepted"),
                (per_second!("vigie_events_outcomes_total" by "outcome"), "{{outcome}}"),
            ],
        ),
        lines(
            "In flight",
            "Accepted events that have no outcome yet, for the ten workspaces with most of them.",
            "short",
            &[(
                "topk(10, sum by (workspace) (vigie_events_in_flight{$S}))",
                "{{workspace}}",
            )],
        ),
        lines(
            "Latencies, p99",
            "To the acknowledgement, and to the stored score.",
            "s",
            &[
                (quantile!(0.99, "vigie_ingest_ack_latency_seconds"), "acknowledged"),
                (
                    quantile!(0.99, "vigie_pipeline_event_to_score_latency_seconds"),
                    "scored",
                ),
            ],
        ),
        row("What comes of it"),
        lines(
            "Flags",
            "Relances raised and held out per hour, by policy.",
            "short",
            &[(
                within!("1h", "vigie_flags_total" where r#"decision!="refused""# by "policy, decision"),
                "{{policy}} {{decision}}",
            )],
        ),
        lines(
            "Audits",
            "Audits within the last day by verdict. Anything but `equal` is looked into.",
            "short",
            &[(within!("1d", "vigie_audit_runs_total" by "verdict"), "{{verdict}}")],
        ),
        lines(
            "Room",
            "Free space on the disk of the data directory.",
            "bytes",
            &[("min by (instance) (vigie_disk_free_bytes{$S})", "{{instance}}")],
        ),
    ],
};
