//! Dashboard "Ingestion": what senders meet. A table, and nothing else.

use super::table::{Dashboard, lines, per_second, quantile, row, within};

pub(super) const INGESTION: Dashboard = Dashboard {
    name: "ingestion",
    title: "vigie: ingestion",
    description: "What senders meet: events, refusals, acknowledgements, dead letters, and the log behind them.",
    panels: &[
        row("Events"),
        lines(
            "Events by workspace",
            "Accepted events per second of the ten busiest workspaces.",
            "cps",
            &[(
                "topk(10, sum by (workspace) (rate(vigie_events_accepted_total{$S}[$__rate_interval])))",
                "{{workspace}}",
            )],
        ),
        lines(
            "Events by signal",
            "Events that took effect per second, by what they say.",
            "cps",
            &[(per_second!("vigie_events_applied_total" by "signal"), "{{signal}}")],
        ),
        lines(
            "Duplicates by source",
            "Repeated events per second, by the protocol or feed that repeated them: retries are normal, loops are not.",
            "cps",
            &[(per_second!("vigie_events_duplicates_total" by "source"), "{{source}}")],
        ),
        row("Answers"),
        lines(
            "Refused",
            "Requests and events refused with 4xx or 5xx per second, by problem code. They are in no book.",
            "cps",
            &[(per_second!("vigie_ingest_rejected_total" by "code"), "{{code}}")],
        ),
        lines(
            "Requests by status",
            "Requests per second by status class.",
            "reqps",
            &[(
                per_second!("vigie_http_request_duration_seconds_count" by "status"),
                "{{status}}",
            )],
        ),
        lines(
            "Request duration, p99",
            "From request head to finished response, by route.",
            "s",
            &[(
                quantile!(0.99, "vigie_http_request_duration_seconds" by "endpoint"),
                "{{endpoint}}",
            )],
        ),
        lines(
            "Acknowledgement",
            "Time from the last byte of a request with events to the decision to acknowledge it.",
            "s",
            &[
                (quantile!(0.5, "vigie_ingest_ack_latency_seconds"), "p50"),
                (quantile!(0.99, "vigie_ingest_ack_latency_seconds"), "p99"),
            ],
        ),
        lines(
            "Dead letters by reason",
            "Events set aside within an hour. They are kept with their bytes and can be fed again.",
            "short",
            &[(
                within!("1h", "vigie_dead_letters_stored_total" by "reason"),
                "{{reason}}",
            )],
        ),
        lines(
            "Connections",
            "Open HTTP connections; at server.max-connections new clients wait.",
            "short",
            &[("sum by (instance) (vigie_http_connections{$S})", "{{instance}}")],
        ),
        row("Topics of others"),
        lines(
            "Records by source",
            "Records read per second, by what became of them.",
            "cps",
            &[(
                per_second!("vigie_source_records_total" by "source,outcome"),
                "{{source}} {{outcome}}",
            )],
        ),
        lines(
            "Bytes by source",
            "Bytes of the values of these records per second.",
            "Bps",
            &[(per_second!("vigie_source_bytes_total" by "source"), "{{source}}")],
        ),
        lines(
            "Waiting records",
            "Records of each source that were not read yet, and batches tried again per second.",
            "short",
            &[
                ("sum by (source) (vigie_source_lag_records{$S})", "{{source}}"),
                (
                    per_second!("vigie_source_retries_total" by "source"),
                    "{{source}} tried again",
                ),
                ("min by (source) (vigie_source_well{$S})", "{{source}} well"),
            ],
        ),
        row("Log"),
        lines(
            "Append and fsync",
            "Waiting for durability, and the fdatasync that it waits for (embedded log).",
            "s",
            &[
                (quantile!(0.5, "vigie_log_append_latency_seconds"), "append p50"),
                (quantile!(0.99, "vigie_log_append_latency_seconds"), "append p99"),
                (quantile!(0.99, "vigie_log_fsync_duration_seconds"), "fsync p99"),
            ],
        ),
        lines(
            "Appends that failed",
            "By reason: overloaded is back-pressure; anything else is the disk or the broker.",
            "cps",
            &[(per_second!("vigie_log_append_errors_total" by "reason"), "{{reason}}")],
        ),
        lines(
            "Size",
            "Bytes of the segment files of the embedded log, and free space on its disk.",
            "bytes",
            &[
                ("sum by (instance) (vigie_log_size_bytes{$S})", "log {{instance}}"),
                ("min by (instance) (vigie_disk_free_bytes{$S})", "free {{instance}}"),
            ],
        ),
        lines(
            "Records by partition",
            "Records appended per second to the ten busiest partitions: one far above the others is one customer or sender.",
            "cps",
            &[(
                "topk(10, sum by (partition) (deriv(vigie_log_end_offset{$S}[$__rate_interval])))",
                "{{partition}}",
            )],
        ),
    ],
};
