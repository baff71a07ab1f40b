//! The panels of the overview dashboard: a table, and nothing else.

/// One panel of the overview.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    /// Grafana's name of the unit.
    pub(super) unit: &'static str,
    pub(super) look: Look,
    /// Expression (`$S` is the selector) and legend.
    pub(super) queries: &'static [(&'static str, &'static str)],
}

pub(super) enum Look {
    /// A row heading.
    Row,
    /// One number, green from the given value up, red below.
    State,
    /// One number.
    Number,
    /// Lines over time.
    Lines,
}

const fn row(title: &'static str) -> Panel {
    Panel {
        title,
        description: "",
        unit: "",
        look: Look::Row,
        queries: &[],
    }
}

pub(super) const OVERVIEW: &[Panel] = &[
    row("Is it well?"),
    Panel {
        title: "Ready",
        description: "1 on every instance that honours a 2xx answer. 0: see VigieNotReady in the runbook.",
        unit: "none",
        look: Look::State,
        queries: &[("min(vigie_ready{$S})", "ready")],
    },
    Panel {
        title: "Events accepted",
        description: "Events per second answered with 2xx.",
        unit: "eps",
        look: Look::Number,
        queries: &[(
            "sum(rate(vigie_events_accepted_total{$S}[$__rate_interval]))",
            "accepted",
        )],
    },
    Panel {
        title: "Event to score, p99",
        description: "Time from the receipt of an event to the stored score that knows it.",
        unit: "s",
        look: Look::Number,
        queries: &[(
            "histogram_quantile(0.99, sum by (le) (rate(vigie_pipeline_event_to_score_latency_seconds_bucket{$S}[$__rate_interval])))",
            "p99",
        )],
    },
    Panel {
        title: "Lag",
        description: "Records in the log that are not yet part of the stored state.",
        unit: "short",
        look: Look::Number,
        queries: &[("sum(vigie_pipeline_lag_records{$S})", "records")],
    },
    Panel {
        title: "Flags raised",
        description: "Relance flags raised per hour.",
        unit: "short",
        look: Look::Number,
        queries: &[(
            r#"sum(increase(vigie_flags_total{$S,decision="flagged"}[1h]))"#,
            "flags",
        )],
    },
    Panel {
        title: "Dead letters",
        description: "Events put into the dead-letter journal in the last hour. List them with `vigie dead-letters list`.",
        unit: "short",
        look: Look::Number,
        queries: &[("sum(increase(vigie_dead_letters_stored_total{$S}[1h]))", "dead letters")],
    },
    row("Collector"),
    Panel {
        title: "Events by outcome",
        description: "What became of accepted events. Conflicts are duplicates whose payload differs.",
        unit: "eps",
        look: Look::Lines,
        queries: &[
            (
                "sum(rate(vigie_events_accepted_total{$S}[$__rate_interval]))",
                "accepted",
            ),
            (
                "sum by (outcome) (rate(vigie_events_outcomes_total{$S}[$__rate_interval]))",
                "{{outcome}}",
            ),
        ],
    },
    Panel {
        title: "Events by workspace",
        description: "Accepted events per second of the ten busiest workspaces.",
        unit: "eps",
        look: Look::Lines,
        queries: &[(
            "topk(10, sum by (workspace) (rate(vigie_events_accepted_total{$S}[$__rate_interval])))",
            "{{workspace}}",
        )],
    },
    Panel {
        title: "Refused",
        description: "Requests and events refused with 4xx or 5xx, by problem code.",
        unit: "eps",
        look: Look::Lines,
        queries: &[(
            "sum by (code) (rate(vigie_ingest_rejected_total{$S}[$__rate_interval]))",
            "{{code}}",
        )],
    },
    Panel {
        title: "Request duration",
        description: "p50 and p99 of the time from request head to finished response.",
        unit: "s",
        look: Look::Lines,
        queries: &[
            (
                "histogram_quantile(0.5, sum by (le, endpoint) (rate(vigie_http_request_duration_seconds_bucket{$S}[$__rate_interval])))",
                "p50 {{endpoint}}",
            ),
            (
                "histogram_quantile(0.99, sum by (le, endpoint) (rate(vigie_http_request_duration_seconds_bucket{$S}[$__rate_interval])))",
                "p99 {{endpoint}}",
            ),
        ],
    },
    Panel {
        title: "Requests by status",
        description: "Requests per second by status class.",
        unit: "reqps",
        look: Look::Lines,
        queries: &[(
            "sum by (status) (rate(vigie_http_request_duration_seconds_count{$S}[$__rate_interval]))",
            "{{status}}",
        )],
    },
    Panel {
        title: "Acknowledgement",
        description: "Time from the last byte of a request with events to the decision to acknowledge it.",
        unit: "s",
        look: Look::Lines,
        queries: &[
            (
                "histogram_quantile(0.5, sum by (le) (rate(vigie_ingest_ack_latency_seconds_bucket{$S}[$__rate_interval])))",
                "p50",
            ),
            (
                "histogram_quantile(0.99, sum by (le) (rate(vigie_ingest_ack_latency_seconds_bucket{$S}[$__rate_interval])))",
                "p99",
            ),
        ],
    },
    row("Log"),
    Panel {
        title: "Append and fsync, p99",
        description: "Waiting for durability, and the fdatasync that it waits for.",
        unit: "s",
        look: Look::Lines,
        queries: &[
            (
                "histogram_quantile(0.99, sum by (le) (rate(vigie_log_append_latency_seconds_bucket{$S}[$__rate_interval])))",
                "append",
            ),
            (
                "histogram_quantile(0.99, sum by (le) (rate(vigie_log_fsync_duration_seconds_bucket{$S}[$__rate_interval])))",
                "fsync",
            ),
        ],
    },
    Panel {
        title: "Size",
        description: "Bytes of the segment files of the log.",
        unit: "bytes",
        look: Look::Lines,
        queries: &[("sum by (instance) (vigie_log_size_bytes{$S})", "{{instance}}")],
    },
    row("Worker"),
    Panel {
        title: "Lag of the slowest partitions",
        description: "Records in the log that are not yet part of the stored state, for the ten partitions furthest behind.",
        unit: "short",
        look: Look::Lines,
        queries: &[(
            "topk(10, sum by (partition) (vigie_pipeline_lag_records{$S}))",
            "partition {{partition}}",
        )],
    },
    Panel {
        title: "Watermark age",
        description: "Age of the oldest record that is not yet part of the stored state.",
        unit: "s",
        look: Look::Lines,
        queries: &[(
            "max by (instance) (vigie_pipeline_watermark_age_seconds{$S})",
            "{{instance}}",
        )],
    },
    Panel {
        title: "Event to score",
        description: "Time from the receipt of an event to the stored score that knows it.",
        unit: "s",
        look: Look::Lines,
        queries: &[
            (
                "histogram_quantile(0.5, sum by (le) (rate(vigie_pipeline_event_to_score_latency_seconds_bucket{$S}[$__rate_interval])))",
                "p50",
            ),
            (
                "histogram_quantile(0.99, sum by (le) (rate(vigie_pipeline_event_to_score_latency_seconds_bucket{$S}[$__rate_interval])))",
                "p99",
            ),
        ],
    },
    Panel {
        title: "Step and commit, p99",
        description: "Time of one step of the worker, and of the commit within it.",
        unit: "s",
        look: Look::Lines,
        queries: &[
            (
                "histogram_quantile(0.99, sum by (le) (rate(vigie_pipeline_step_duration_seconds_bucket{$S}[$__rate_interval])))",
                "step",
            ),
            (
                "histogram_quantile(0.99, sum by (le) (rate(vigie_store_commit_duration_seconds_bucket{$S}[$__rate_interval])))",
                "commit",
            ),
        ],
    },
    Panel {
        title: "Batch size",
        description: "Mean number of records in a batch. Near pipeline.batch-records the worker is catching up.",
        unit: "short",
        look: Look::Lines,
        queries: &[(
            "sum(rate(vigie_pipeline_batch_records_sum{$S}[$__rate_interval])) / sum(rate(vigie_pipeline_batch_records_count{$S}[$__rate_interval]))",
            "records",
        )],
    },
    Panel {
        title: "Customers touched",
        description: "Customer records written per second by cause, and scores written.",
        unit: "wps",
        look: Look::Lines,
        queries: &[
            (
                "sum by (cause) (rate(vigie_customers_touched_total{$S}[$__rate_interval]))",
                "{{cause}}",
            ),
            ("sum(rate(vigie_scores_written_total{$S}[$__rate_interval]))", "scores"),
        ],
    },
    Panel {
        title: "Timers",
        description: "Timers fired and ticks appended per second.",
        unit: "ops",
        look: Look::Lines,
        queries: &[
            ("sum(rate(vigie_timers_fired_total{$S}[$__rate_interval]))", "fired"),
            ("sum(rate(vigie_ticks_appended_total{$S}[$__rate_interval]))", "ticks"),
        ],
    },
    Panel {
        title: "Lateness of timers, p99",
        description: "Time between the moment for which a timer was set and the record that fired it; about a second by design.",
        unit: "s",
        look: Look::Lines,
        queries: &[(
            "histogram_quantile(0.99, sum by (le) (rate(vigie_timers_lateness_seconds_bucket{$S}[$__rate_interval])))",
            "p99",
        )],
    },
    row("Archive and audit"),
    Panel {
        title: "Archive",
        description: "Records written to the archive per second, and attempts that failed.",
        unit: "ops",
        look: Look::Lines,
        queries: &[
            ("sum(rate(vigie_archive_rows_total{$S}[$__rate_interval]))", "records"),
            ("sum(rate(vigie_archive_errors_total{$S}[$__rate_interval]))", "errors"),
        ],
    },
    Panel {
        title: "Audits",
        description: "Audits within the last day by verdict.",
        unit: "short",
        look: Look::Lines,
        queries: &[(
            "sum by (verdict) (increase(vigie_audit_runs_total{$S}[1d]))",
            "{{verdict}}",
        )],
    },
    Panel {
        title: "Differences",
        description: "What the last audit found; anything but 0 is an alert.",
        unit: "short",
        look: Look::Lines,
        queries: &[
            ("max by (instance) (vigie_audit_differences{$S})", "{{instance}}"),
            (
                "sum(rate(vigie_audit_events_total{$S}[$__rate_interval]))",
                "events audited",
            ),
        ],
    },
    row("Relances"),
    Panel {
        title: "Decisions",
        description: "Decisions of relance policies per second. Refusals carry their reason in the decision itself.",
        unit: "ops",
        look: Look::Lines,
        queries: &[(
            "sum by (policy, decision) (rate(vigie_flags_total{$S}[$__rate_interval]))",
            "{{policy}} {{decision}}",
        )],
    },
    Panel {
        title: "Dead letters by reason",
        description: "Events put into the dead-letter journal per second.",
        unit: "eps",
        look: Look::Lines,
        queries: &[(
            "sum by (reason) (rate(vigie_dead_letters_stored_total{$S}[$__rate_interval]))",
            "{{reason}}",
        )],
    },
    row("Deliveries"),
    Panel {
        title: "Deliveries",
        description: "What became of relances at each destination, per second.",
        unit: "ops",
        look: Look::Lines,
        queries: &[(
            "sum by (destination, outcome) (rate(vigie_deliveries_total{$S}[$__rate_interval]))",
            "{{destination}} {{outcome}}",
        )],
    },
    Panel {
        title: "Oldest undelivered relance",
        description: "Age of the oldest relance that has neither arrived nor been given up.",
        unit: "s",
        look: Look::Lines,
        queries: &[(
            "max by (destination) (vigie_delivery_oldest_age_seconds{$S})",
            "{{destination}}",
        )],
    },
    Panel {
        title: "Parked relances",
        description: "Given up after the last attempt; they wait to be sent again on request.",
        unit: "short",
        look: Look::Lines,
        queries: &[
            ("max by (destination) (vigie_delivery_parked{$S})", "{{destination}}"),
            ("min by (destination) (vigie_delivery_well{$S})", "{{destination}} well"),
        ],
    },
    row("Process"),
    Panel {
        title: "Processor",
        description: "Cores in use.",
        unit: "short",
        look: Look::Lines,
        queries: &[(
            "sum by (instance) (rate(process_cpu_seconds_total{$S}[$__rate_interval]))",
            "{{instance}}",
        )],
    },
    Panel {
        title: "Memory",
        description: "Resident memory.",
        unit: "bytes",
        look: Look::Lines,
        queries: &[("sum by (instance) (process_resident_memory_bytes{$S})", "{{instance}}")],
    },
    Panel {
        title: "Files and connections",
        description: "Open file descriptors and HTTP connections.",
        unit: "short",
        look: Look::Lines,
        queries: &[
            ("sum by (instance) (process_open_fds{$S})", "files {{instance}}"),
            (
                "sum by (instance) (vigie_http_connections{$S})",
                "connections {{instance}}",
            ),
        ],
    },
];
