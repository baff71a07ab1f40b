//! The recording and alert rules and their runbook: a table, and nothing else. Every alert has a case in
//! `tests/all/alerts.rs` in which it fires, and one in which it does not.

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
    Recording {
        name: "instance:vigie_ingest_ack_latency_seconds:p99_5m",
        expr: "histogram_quantile(0.99, sum by (job, instance, le) (rate(vigie_ingest_ack_latency_seconds_bucket[5m])))",
    },
    Recording {
        name: "instance:vigie_http_errors:ratio5m",
        expr: "sum by (job, instance) (rate(vigie_http_request_duration_seconds_count{status=\"5xx\"}[5m])) / sum by (job, instance) (rate(vigie_http_request_duration_seconds_count[5m]))",
    },
    Recording {
        name: "policy:vigie_flags_raised:increase1h",
        expr: "sum by (job, policy) (increase(vigie_flags_total{decision=\"flagged\"}[1h]))",
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
        name: "VigieDown",
        expr: "up{job=\"vigie\"} == 0",
        wait: "2m",
        severity: "critical",
        summary: "vigie on {{ $labels.instance }} does not answer",
        description: "Its metrics cannot be scraped: the process is gone, or cannot be reached. Senders keep and repeat their events.",
        runbook: &[
            "Is the process there? If not, its last lines of log say why; start it again: what was acknowledged is on the disk.",
            "It is there: compare `server.admin-listen` with the target of Prometheus, and look at what stands between.",
            "It ended at once after the start: `vigie doctor` says what does not fit.",
        ],
    },
    Alert {
        name: "VigieNotReady",
        expr: "vigie_ready == 0",
        wait: "2m",
        severity: "critical",
        summary: "vigie on {{ $labels.instance }} is not ready",
        description: "The collector refuses events with 503 because a 2xx could not be honoured. Senders keep and repeat their events.",
        runbook: &[
            "Ask `/readyz`: it names the failing check.",
            "`log`: the disk is full or failing, or the brokers do not answer. Free or replace the disk and restart; a failed fsync is never retried in place.",
            "`store` or `worker`: read the log at level error; the process stops by itself where going on could lose data.",
        ],
    },
    Alert {
        name: "VigieRestarting",
        expr: "changes(process_start_time_seconds{job=\"vigie\"}[30m]) > 2",
        wait: "0m",
        severity: "critical",
        summary: "vigie on {{ $labels.instance }} starts again and again",
        description: "{{ $value }} starts within half an hour.",
        runbook: &[
            "The last lines of log before each start say why it ended; exit code 137 is the system's memory limit.",
            "`vigie doctor` with the same configuration says what does not fit.",
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
        name: "VigieServerErrors",
        expr: "instance:vigie_http_errors:ratio5m > 0.01",
        wait: "5m",
        severity: "warning",
        summary: "vigie on {{ $labels.instance }} answers with server errors",
        description: "{{ $value | humanizePercentage }} of its answers are 5xx. Well-behaved senders repeat what got one.",
        runbook: &[
            "By route: `vigie_http_request_duration_seconds_count` with status 5xx.",
            "503 on routes for events: back-pressure or a log that cannot be written; see VigieLogAppendErrors.",
            "Others: read the log at level error.",
        ],
    },
    Alert {
        name: "VigieAckSlow",
        expr: "instance:vigie_ingest_ack_latency_seconds:p99_5m > 1",
        wait: "10m",
        severity: "warning",
        summary: "vigie on {{ $labels.instance }} acknowledges slowly",
        description: "One request with events in a hundred waits {{ $value | humanizeDuration }} or more; senders with short timeouts begin to repeat themselves.",
        runbook: &[
            "The fsync is as slow: see VigieFsyncSlow. On Kafka: the brokers' own latency of producing.",
            "It is not: more arrives than one disk or broker takes; `vigie_log_append_errors_total` with reason overloaded says so.",
        ],
    },
    Alert {
        name: "VigieLogAppendErrors",
        expr: "sum by (job, instance, reason) (increase(vigie_log_append_errors_total{reason!=\"overloaded\"}[5m])) > 0",
        wait: "0m",
        severity: "critical",
        summary: "the log of vigie on {{ $labels.instance }} cannot be written: {{ $labels.reason }}",
        description: "Appends failed. Nothing that was acknowledged is lost; nothing new is accepted.",
        runbook: &[
            "Embedded log: free space on, or replace, the disk of the data directory.",
            "Kafka: are enough replicas in sync (min.insync.replicas)? `vigie doctor` says what is wrong with the topics.",
            "`poisoned`: restart; recovery cuts a torn tail and goes on from the last durable record.",
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
    Alert {
        name: "VigieDiskFilling",
        expr: "predict_linear(vigie_disk_free_bytes[6h], 86400) < 0 and vigie_disk_free_bytes / vigie_disk_size_bytes < 0.4",
        wait: "1h",
        severity: "warning",
        summary: "the disk of vigie on {{ $labels.instance }} will be full within a day",
        description: "As the last six hours went, no space is left in 24 hours. At zero no event is accepted any more.",
        runbook: &[
            "What grows? `vigie_log_size_bytes` is the log; the rest of the data directory is the archive and the store.",
            "Enlarge the disk, or let the archive live elsewhere (`archive.url`).",
            "A backfill is running: it may simply end before the disk does.",
        ],
    },
    Alert {
        name: "VigieDiskFull",
        expr: "vigie_disk_free_bytes / vigie_disk_size_bytes < 0.05",
        wait: "1m",
        severity: "critical",
        summary: "the disk of vigie on {{ $labels.instance }} is full",
        description: "{{ $value | humanizePercentage }} of it is free. When nothing is, events are refused with 503; what was accepted is finished from a reserve.",
        runbook: &[
            "Free space: store.replaced-* of earlier rebuilds, whatever else lies on the volume. Never delete files of the log or the archive.",
            "Enlarge the disk. vigie goes on by itself as soon as there is room.",
        ],
    },
    Alert {
        name: "VigieFilesExhausted",
        expr: "process_open_fds{job=\"vigie\"} / process_max_fds{job=\"vigie\"} > 0.8",
        wait: "5m",
        severity: "warning",
        summary: "vigie on {{ $labels.instance }} runs out of file descriptors",
        description: "{{ $value | humanizePercentage }} of those that it may have are open; beyond, new connections wait.",
        runbook: &[
            "Compare with `vigie_http_connections`: clients that never close, or simply many of them.",
            "Raise the limit (LimitNOFILE in the unit, ulimit -n) or lower `server.max-connections`.",
        ],
    },
    Alert {
        name: "VigieDeadLetters",
        expr: "sum by (job, instance, reason) ((increase(vigie_dead_letters_stored_total[10m]) > 0) or (vigie_dead_letters_stored_total unless vigie_dead_letters_stored_total offset 10m)) > 0",
        wait: "0m",
        severity: "warning",
        summary: "vigie on {{ $labels.instance }} sets events aside: {{ $labels.reason }}",
        description: "About {{ $value | humanize }} events went to the dead-letter journal in ten minutes.",
        runbook: &[
            "`vigie dead-letters list` shows cause, step and original bytes.",
            "Correct the sender, or the configuration if a limit is too low.",
            "Feed them again with `vigie dead-letters retry ID`: events that made it already are recognised as duplicates.",
        ],
    },
    Alert {
        name: "VigieConflicts",
        expr: "sum by (job, workspace) (increase(vigie_events_outcomes_total{outcome=\"conflict\"}[1h])) > 10",
        wait: "0m",
        severity: "warning",
        summary: "a sender of workspace {{ $labels.workspace }} reuses ids",
        description: "About {{ $value | humanize }} events in an hour came under the id of another event with other content. They count, but a retry of theirs cannot be recognised.",
        runbook: &[
            "`vigie sql` over events with decision and source shows which sender it is.",
            "Ids must be unique per event: an order number is one for the order, not for each of its events.",
        ],
    },
    Alert {
        name: "VigieDuplicates",
        expr: "sum by (job, source) (rate(vigie_events_duplicates_total[1h])) > 1 and on (job) sum by (job) (rate(vigie_events_duplicates_total[1h])) > 0.5 * sum by (job) (rate(vigie_events_accepted_total[1h]))",
        wait: "30m",
        severity: "warning",
        summary: "{{ $labels.source }} repeats what it sends",
        description: "More than half of all events of the last hour were repeated ones. They change nothing, but cost as much as new ones.",
        runbook: &[
            "Does the sender see our answers? Compare its timeout with `vigie_ingest_ack_latency_seconds`.",
            "A job of the sender that starts anew from the beginning: give it a cursor.",
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
            "All partitions: compare step, load and commit durations, then give the worker a faster disk or more cores.",
        ],
    },
    Alert {
        name: "VigieWatermarkOld",
        expr: "max by (job, instance) (vigie_pipeline_watermark_age_seconds) > 60",
        wait: "5m",
        severity: "critical",
        summary: "scores of vigie on {{ $labels.instance }} are old",
        description: "The oldest record that no score knows yet has waited {{ $value | humanizeDuration }}.",
        runbook: &[
            "Look at the age by partition: a single one that stands still is stuck, read its errors in the log.",
            "All of them behind: see VigieLagGrowing.",
            "Commit errors: see VigieStoreCommitErrors.",
        ],
    },
    Alert {
        name: "VigieScoresSlow",
        expr: "instance:vigie_pipeline_event_to_score_latency_seconds:p99_5m > 10",
        wait: "15m",
        severity: "warning",
        summary: "scores of vigie on {{ $labels.instance }} come late",
        description: "One event in a hundred is in its customer's score after {{ $value | humanizeDuration }} or later.",
        runbook: &[
            "Lag: see VigieLagGrowing. After an outage or during a backfill this is expected.",
            "No lag: compare step, load and commit durations; the store is the usual cause.",
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
            "Embedded store: free space on, or replace, the disk of the data directory, and restart: the state is folded again from the stored position.",
            "Redis: the log at level warn has its answer. It waits out a fail-over; a store that is lost needs `vigie rebuild`.",
        ],
    },
    Alert {
        name: "VigieTimersStuck",
        expr: "vigie_timers_overdue_seconds > 60",
        wait: "5m",
        severity: "critical",
        summary: "timers of vigie on {{ $labels.instance }} do not fire",
        description: "A timer has been due for {{ $value | humanizeDuration }}: nobody hears of customers who fall silent.",
        runbook: &[
            "Lag: the partition's time does not get there; see VigieWatermarkOld.",
            "No lag: `vigie_ticks_appended_total` stands still although timers are due; the log at level warn says why ticks are not appended.",
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
        name: "VigieArchiveBehind",
        expr: "vigie_archive_lag_seconds > 3600",
        wait: "10m",
        severity: "warning",
        summary: "the archive of vigie on {{ $labels.instance }} falls behind",
        description: "The oldest folded record that is not archived has waited {{ $value | humanizeDuration }}. SQL, explanations and audits see the past that is in the archive.",
        runbook: &[
            "Errors: see VigieArchiveErrors.",
            "None: the archivist stopped (the log at level error says why; restart), or writes slower than events come (a slow object store).",
            "`archive.flush-after` above an hour makes this normal: raise the threshold of this alert with it.",
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
        expr: "sum by (job, instance) (increase(vigie_audit_runs_total{verdict=\"not_measured\"}[3h])) > 1.5",
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
        name: "VigieFlagsJump",
        expr: "policy:vigie_flags_raised:increase1h > 100 and policy:vigie_flags_raised:increase1h > 10 * avg_over_time(policy:vigie_flags_raised:increase1h[1d] offset 1h) and policy:vigie_flags_raised:increase1h offset 1d >= 0",
        wait: "0m",
        severity: "critical",
        summary: "policy {{ $labels.policy }} suddenly flags everybody",
        description: "{{ $value | humanize }} flags in an hour, more than ten times what it raised per hour in the day before. People are about to be contacted who should not be.",
        runbook: &[
            "Stop what carries the flags out, until it is clear why.",
            "Was a model or policy activated (`vigie_model_info`)? `vigie replay --report` shows whom the change flags; go back to the former files and restart.",
            "Did a sender stop, so that everybody falls silent? See VigieIngestStalled and events by signal.",
            "Did an import bring a whole base? Then it is as it should be, once.",
        ],
    },
    Alert {
        name: "VigieComplaints",
        expr: "sum by (job) (increase(vigie_events_applied_total{signal=\"email.complaint\"}[1d])) > 0.003 * sum by (job) (increase(vigie_events_applied_total{signal=\"email.delivered\"}[1d]))",
        wait: "0m",
        severity: "warning",
        summary: "too many people report our mails as spam",
        description: "More than three complaints per thousand delivered mails within a day ({{ $value | humanize }} of them): mailbox providers begin to refuse us.",
        runbook: &[
            "`vigie sql` over events with signal email.complaint says which campaigns.",
            "Pause the policies behind them, or give them a longer cooldown and a stricter eligibility.",
        ],
    },
    Alert {
        name: "VigieModelOld",
        expr: "time() - max by (job) (vigie_model_activated_seconds) > 180 * 86400",
        wait: "1h",
        severity: "warning",
        summary: "the model of vigie is half a year old",
        description: "Model and policies have been in force for {{ $value | humanizeDuration }}; customers change.",
        runbook: &[
            "`vigie backtest` on your purchases says whether it is still calibrated; `vigie fit` makes a new one.",
            "`vigie replay` shows what it would change before it is put in force.",
        ],
    },
];
