//! The recording and alert rules and their runbook: a table, and nothing else.

/// One recording rule.
pub(super) struct Recording {
    pub(super) name: &'static str,
    pub(super) expr: &'static str,
}

pub(super) const RECORDINGS: &[Recording] = &[
    Recording {
        name: "instance:vigie_events_accepted:rate10m",
        expr: "sum by (job, instance) (rate(vigie_events_accepted_total[10m]))",
    },
    Recording {
        name: "instance:vigie_pipeline_lag_records:sum",
        expr: "sum by (job, instance) (vigie_pipeline_lag_records)",
    },
    Recording {
        name: "instance:vigie_pipeline_event_to_score_latency_seconds:p99_5m",
        expr: "histogram_quantile(0.99, sum by (job, instance, le) (rate(vigie_pipeline_event_to_score_latency_seconds_bucket[5m])))",
    },
];

/// One alert rule.
pub(super) struct Alert {
    pub(super) name: &'static str,
    pub(super) expr: &'static str,
    pub(super) wait: &'static str,
    pub(super) severity: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    /// What to do, in order.
    pub(super) runbook: &'static [&'static str],
}

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "VigieNotReady",
        expr: "vigie_ready == 0",
        wait: "2m",
        severity: "critical",
        summary: "vigie on {{ $labels.instance }} is not ready",
        description: "The collector refuses events with 503 because a 2xx could not be honoured. Senders keep and repeat their events.",
        runbook: &[
            "Ask `/readyz`: it names the failing check.",
            "`log`: the disk is full or failing. Free or replace it and restart; a failed fsync is never retried in place.",
            "`store` or `worker`: read the log at level error; the process stops by itself where going on could lose data.",
        ],
    },
    Alert {
        name: "VigieIngestStalled",
        expr: "instance:vigie_events_accepted:rate10m == 0 and (instance:vigie_events_accepted:rate10m offset 1h) > 0",
        wait: "10m",
        severity: "critical",
        summary: "vigie on {{ $labels.instance }} accepts no events any more",
        description: "An hour ago events arrived, for the last twenty minutes none did.",
        runbook: &[
            "Not ready: see VigieNotReady.",
            "`vigie_ingest_rejected_total` rises: the code says why (a rotated key, a limit, a bad certificate in front of us).",
            "Nothing arrives at all: look at the senders, the DNS name and the proxy in front of the collector.",
        ],
    },
    Alert {
        name: "VigieLagGrowing",
        expr: "instance:vigie_pipeline_lag_records:sum > 10000 and deriv(instance:vigie_pipeline_lag_records:sum[10m]) > 0",
        wait: "10m",
        severity: "warning",
        summary: "vigie on {{ $labels.instance }} falls behind its log",
        description: "{{ $value | humanize }} records are not yet part of the scores, and their number grows.",
        runbook: &[
            "A backfill or replay is running: wait, it ends by itself.",
            "One partition only: one customer or sender dominates; find it in the log at level warn.",
            "All partitions: compare step and commit durations, then give the worker a faster disk or more cores.",
        ],
    },
    Alert {
        name: "VigieWatermarkOld",
        expr: "max by (job, instance) (vigie_pipeline_watermark_age_seconds) > 60",
        wait: "5m",
        severity: "critical",
        summary: "scores of vigie on {{ $labels.instance }} are old",
        description: "The oldest record that no score knows yet is {{ $value | humanizeDuration }} old.",
        runbook: &[
            "Look at lag by partition: a single one that stands still is stuck, read its errors in the log.",
            "All of them behind: see VigieLagGrowing.",
            "Commit errors: see VigieStoreCommitErrors.",
        ],
    },
    Alert {
        name: "VigieDeadLetters",
        expr: "sum by (job, instance, reason) (increase(vigie_dead_letters_stored_total[10m])) > 0",
        wait: "0m",
        severity: "warning",
        summary: "vigie on {{ $labels.instance }} refuses events: {{ $labels.reason }}",
        description: "About {{ $value | humanize }} events went to the dead-letter journal in ten minutes.",
        runbook: &[
            "`vigie dead-letters list` shows cause, step and original bytes.",
            "Correct the sender, or the configuration if a limit is too low.",
            "Feed them again with `vigie dead-letters replay`: events that made it already are recognised as duplicates.",
        ],
    },
    Alert {
        name: "VigieLogAppendErrors",
        expr: "increase(vigie_log_append_errors_total[5m]) > 0",
        wait: "0m",
        severity: "critical",
        summary: "the log of vigie on {{ $labels.instance }} cannot be written",
        description: "Appends failed. Nothing that was acknowledged is lost; nothing new is accepted.",
        runbook: &[
            "Free space on, or replace, the disk of the data directory.",
            "Restart: recovery cuts a torn tail and goes on from the last durable record.",
        ],
    },
    Alert {
        name: "VigieStoreCommitErrors",
        expr: "increase(vigie_store_commit_errors_total[5m]) > 0",
        wait: "0m",
        severity: "critical",
        summary: "the store of vigie on {{ $labels.instance }} cannot be written",
        description: "Commits failed. The log keeps every event; scores stand still.",
        runbook: &[
            "Free space on, or replace, the disk of the data directory.",
            "Restart: the state is folded again from the stored position.",
        ],
    },
    Alert {
        name: "VigieAuditDifferent",
        expr: "vigie_audit_differences > 0",
        wait: "0m",
        severity: "critical",
        summary: "the store of vigie on {{ $labels.instance }} is not what its log says",
        description: "The last audit found {{ $value | humanize }} differences between the store and an independent recomputation.",
        runbook: &[
            "`vigie audit` names the first differing customer of each partition, the field and both values.",
            "`vigie explain CUSTOMER` shows what the archive says about that customer.",
            "Stop the server, `vigie rebuild --data-dir DIR`, start it again; keep the replaced store for us.",
        ],
    },
    Alert {
        name: "VigieAuditBlind",
        expr: "sum by (job, instance) (increase(vigie_audit_runs_total{verdict=\"not_measured\"}[3h])) > 1",
        wait: "0m",
        severity: "warning",
        summary: "audits of vigie on {{ $labels.instance }} cannot look",
        description: "{{ $value | humanize }} audits of the last three hours could not be measured.",
        runbook: &[
            "The log at level warn says why; a damaged file of the archive is named there.",
            "`vigie audit` by hand repeats it.",
        ],
    },
    Alert {
        name: "VigieArchiveErrors",
        expr: "increase(vigie_archive_errors_total[15m]) > 0",
        wait: "15m",
        severity: "warning",
        summary: "the archive of vigie on {{ $labels.instance }} cannot be written",
        description: "Events are taken and scored; the log keeps what the archive is owed until it can be written again.",
        runbook: &[
            "Free space on the disk of the archive, or look at the address in `archive.url`.",
            "Nothing else is needed: the archivist goes on where the manifest ends.",
        ],
    },
    Alert {
        name: "VigieDestinationFailing",
        expr: "vigie_delivery_well == 0",
        wait: "15m",
        severity: "warning",
        summary: "vigie on {{ $labels.instance }} cannot deliver to {{ $labels.destination }}",
        description: "The destination refuses or does not answer, or it is halted. Relances wait in the store; none is lost, but they grow stale.",
        runbook: &[
            "`vigie deliveries list` shows the last answer and whether the destination is halted.",
            "Failing: repair the receiver; what waits is then sent by itself, at the rate of the destination.",
            "Halted (410, or a rebuilt store): put things right, then `vigie deliveries resume`.",
        ],
    },
    Alert {
        name: "VigieRelancesParked",
        expr: "vigie_delivery_parked > 0",
        wait: "5m",
        severity: "warning",
        summary: "relances of vigie on {{ $labels.instance }} were given up at {{ $labels.destination }}",
        description: "All attempts of about 76 hours failed for {{ $value }} relances. They are kept.",
        runbook: &[
            "`vigie deliveries list` shows them and the last answer of the receiver.",
            "Repair the receiver, then `vigie deliveries redeliver --parked`: each is checked again before it is sent.",
        ],
    },
    Alert {
        name: "VigieTimersLate",
        expr: "histogram_quantile(0.99, sum by (job, instance, le) (rate(vigie_timers_lateness_seconds_bucket[10m]))) > 30",
        wait: "10m",
        severity: "warning",
        summary: "timers of vigie on {{ $labels.instance }} fire late",
        description: "One in a hundred timers fires {{ $value | humanizeDuration }} late or more: flags for silent customers are late too.",
        runbook: &[
            "After an outage this is expected once: overdue timers fire at the restart.",
            "Lag: see VigieLagGrowing.",
            "No lag: the clock of the machine jumped, or the tick task stopped; compare `vigie_ticks_appended_total`.",
        ],
    },
    Alert {
        name: "VigieFsyncSlow",
        expr: "histogram_quantile(0.99, sum by (job, instance, le) (rate(vigie_log_fsync_duration_seconds_bucket[10m]))) > 0.1",
        wait: "10m",
        severity: "warning",
        summary: "the disk of vigie on {{ $labels.instance }} syncs slowly",
        description: "One in a hundred group commits takes {{ $value | humanizeDuration }} or more; every acknowledgement waits for one.",
        runbook: &[
            "Find who else writes to the disk (backups, another service on the same volume).",
            "Network storage: move the data directory to a local disk.",
            "Otherwise expect the disk to fail: check its SMART data.",
        ],
    },
];
