//! Dashboard "Pipeline": from the log to the store and the archive. A table, and nothing else.

use super::table::{Dashboard, down, lines, number, per_second, quantile, row, within};

pub(super) const PIPELINE: Dashboard = Dashboard {
    name: "pipeline",
    title: "vigie: pipeline",
    description: "From the log to scores and archive: how far behind, where the time goes, what timers and audits do.",
    panels: &[
        row("How far behind"),
        number(
            "Lag",
            "Records in the log that are not yet part of the stored state.",
            "short",
            &[("sum(vigie_pipeline_lag_records{$S})", "records")],
        ),
        number(
            "Oldest unscored record",
            "Its age. Above a minute something is stuck, not slow.",
            "s",
            &[("max(vigie_pipeline_watermark_age_seconds{$S})", "age")],
        ),
        number(
            "Most overdue timer",
            "For how long a timer has been due that has not fired.",
            "s",
            &[("max(vigie_timers_overdue_seconds{$S})", "overdue")],
        ),
        number(
            "Not archived yet",
            "Age of the oldest folded record that is not in the archive.",
            "s",
            &[("max(vigie_archive_lag_seconds{$S})", "age")],
        ),
        number(
            "Records per batch",
            "Mean over all instances. Near pipeline.batch-records the worker is catching up.",
            "short",
            &[(
                "sum(rate(vigie_pipeline_batch_records_sum{$S}[$__rate_interval])) / sum(rate(vigie_pipeline_batch_records_count{$S}[$__rate_interval]))",
                "records",
            )],
        ),
        down(
            "Failed commits",
            "Commits of the store that failed within an hour, and those refused because another worker owns the partition.",
            "short",
            &[
                (within!("1h", "vigie_store_commit_errors_total"), "errors"),
                (within!("1h", "vigie_store_commits_fenced_total"), "refused"),
            ],
        ),
        lines(
            "Lag by partition",
            "Records not yet part of the stored state, for the ten partitions furthest behind.",
            "short",
            &[(
                "topk(10, sum by (partition) (vigie_pipeline_lag_records{$S}))",
                "{{partition}}",
            )],
        ),
        lines(
            "Watermark age by partition",
            "Age of the oldest record that is not part of the stored state, for the ten oldest.",
            "s",
            &[(
                "topk(10, max by (partition) (vigie_pipeline_watermark_age_seconds{$S}))",
                "{{partition}}",
            )],
        ),
        lines(
            "Records folded by partition",
            "Per second, for the ten busiest partitions; one that stands still while it lags is stuck.",
            "cps",
            &[(
                "topk(10, sum by (partition) (deriv(vigie_pipeline_applied_offset{$S}[$__rate_interval])))",
                "{{partition}}",
            )],
        ),
        row("Where the time goes"),
        lines(
            "Event to score",
            "Time from the receipt of an event to the stored score that knows it.",
            "s",
            &[
                (quantile!(0.5, "vigie_pipeline_event_to_score_latency_seconds"), "p50"),
                (quantile!(0.99, "vigie_pipeline_event_to_score_latency_seconds"), "p99"),
            ],
        ),
        lines(
            "A step, p99",
            "One batch from prefetch to acknowledgement, and the two calls of the store within it.",
            "s",
            &[
                (quantile!(0.99, "vigie_pipeline_step_duration_seconds"), "step"),
                (quantile!(0.99, "vigie_store_load_duration_seconds"), "load"),
                (quantile!(0.99, "vigie_store_commit_duration_seconds"), "commit"),
            ],
        ),
        lines(
            "Canaries",
            "Time for a made-up customer's event to be in the store (canary.every), and canaries lost per hour.",
            "s",
            &[
                (quantile!(0.99, "vigie_canary_latency_seconds"), "p99"),
                (within!("1h", "vigie_canary_lost_total"), "lost"),
            ],
        ),
        lines(
            "Customers touched",
            "Customer records written per second by cause, and scores written.",
            "wps",
            &[
                (per_second!("vigie_customers_touched_total" by "cause"), "{{cause}}"),
                (per_second!("vigie_scores_written_total"), "scores"),
            ],
        ),
        row("Time as an event"),
        lines(
            "Timers",
            "Timers fired and ticks appended per second.",
            "ops",
            &[
                (per_second!("vigie_timers_fired_total"), "fired"),
                (per_second!("vigie_ticks_appended_total"), "ticks"),
            ],
        ),
        lines(
            "Lateness of timers",
            "From the moment for which a timer was set to the record that fired it; about a second by design.",
            "s",
            &[
                (quantile!(0.5, "vigie_timers_lateness_seconds"), "p50"),
                (quantile!(0.99, "vigie_timers_lateness_seconds"), "p99"),
            ],
        ),
        lines(
            "Partitions with overdue timers",
            "They wait for a record or a tick; more than a few for more than seconds means that ticks do not come.",
            "short",
            &[(
                "sum by (instance) (vigie_timers_overdue_partitions{$S})",
                "{{instance}}",
            )],
        ),
        row("Archive and audit"),
        lines(
            "Archive",
            "Records written to the archive per second, and attempts that failed.",
            "ops",
            &[
                (per_second!("vigie_archive_rows_total"), "records"),
                (per_second!("vigie_archive_errors_total"), "errors"),
            ],
        ),
        lines(
            "Waiting for the archive",
            "Folded records that are not in the archive yet.",
            "short",
            &[("sum by (instance) (vigie_archive_lag_records{$S})", "{{instance}}")],
        ),
        lines(
            "Audits",
            "Events folded again by audits per second, and what the last audit of each instance found.",
            "short",
            &[
                (per_second!("vigie_audit_events_total"), "events a second"),
                (
                    "max by (instance) (vigie_audit_differences{$S})",
                    "differences {{instance}}",
                ),
            ],
        ),
    ],
};
