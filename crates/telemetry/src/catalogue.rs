//! The catalogue: every metric that a vigie process can export, declared once.
//!
//! Nothing else in the program invents a metric name: handles are registered from these constants, dashboards and alert
//! rules are checked against them. Ids of people, events or flags are logged, never labels. Every label has a stated
//! bound (BOUND-1).

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full name as exported, base unit and `_total` included.
    pub name: &'static str,
    /// Counter, gauge or histogram with its bucket bounds.
    pub kind: Kind,
    /// What one unit of the value is.
    pub unit: Unit,
    /// Labels, in the order in which handles give them.
    pub labels: &'static [Label],
    /// Meaning: the `# HELP` line.
    pub help: &'static str,
    /// What to look at, or to do, when it moves.
    pub when_it_moves: &'static str,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, restarts at zero with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution, with the upper bounds of its buckets (`+Inf` is implied).
    Histogram(&'static [f64]),
}

/// Unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A number of things, or a state.
    Count,
}

/// One label.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Name of the label.
    pub name: &'static str,
    /// The values that it can take.
    pub values: Values,
}

/// The values of a label.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Exactly these.
    Closed(&'static [&'static str]),
    /// At most `max` distinct ones (then `other`), and where they come from.
    Bounded {
        /// Most distinct values; further ones are counted as `other`.
        max: usize,
        /// Where the values come from.
        from: &'static str,
    },
}

impl Metric {
    /// The label called `name`.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&'static Label> {
        self.labels.iter().find(|label| label.name == name)
    }

    /// The values of the closed label `name`; none for any other.
    #[must_use]
    pub fn closed(&self, name: &str) -> &'static [&'static str] {
        match self.label(name).map(|label| label.values) {
            Some(Values::Closed(values)) => values,
            Some(Values::Bounded { .. }) | None => &[],
        }
    }

    /// Most distinct values of the label `name` (0 when there is no such label).
    pub(crate) fn bound(&self, name: &str) -> usize {
        match self.label(name).map(|label| label.values) {
            Some(Values::Bounded { max, .. }) => max,
            Some(Values::Closed(values)) => values.len(),
            None => 0,
        }
    }
}

/// The metric called `name`, which may be a series of a histogram (`…_bucket`, `…_sum`, `…_count`).
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    let exact = METRICS.iter().copied().find(|metric| metric.name == name);
    exact.or_else(|| {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))?;
        METRICS
            .iter()
            .copied()
            .find(|metric| metric.name == base && matches!(metric.kind, Kind::Histogram(_)))
    })
}

const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label {
        name,
        values: Values::Closed(values),
    }
}

const fn bounded(name: &'static str, max: usize, from: &'static str) -> Label {
    Label {
        name,
        values: Values::Bounded { max, from },
    }
}

const WORKSPACE: Label = bounded("workspace", 1000, "workspaces that sent an event");
const CURRENCY: Label = bounded("currency", 16, "currencies in which customers pay");
const TIER: Label = closed("tier", &["A", "B", "C"]);
const ATTRITION: Label = closed("attrition", &["0", "0.3", "0.5", "0.7"]);
const PHASE: Label = closed(
    "phase",
    &[
        "opened",
        "acknowledged",
        "resolved",
        "closed",
        "resatisfied",
        "reopened",
    ],
);
const DESTINATION: Label = bounded("destination", 100, "destinations of the configuration");
const SOURCE: Label = bounded("source", 100, "kafka sources of the configuration");
const ROLE: Label = closed("role", &["in_force", "candidate"]);
const DECILE: Label = closed("decile", &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
const PARTITION: Label = bounded("partition", 4096, "partitions of the log");

/// Latencies of requests and of the way from event to score: 1 ms to 30 s.
const LATENCY: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Work on the local disk or in memory: 100 µs to 5 s.
const LOCAL: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];
/// Lateness of timers, which is about one second by design and hours after an outage.
const LATENESS: &[f64] = &[
    0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0,
];
/// Records in one batch.
const RECORDS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0,
];

macro_rules! catalogue {
    ($( $constant:ident = $name:literal, $kind:expr, $unit:ident, [$($label:expr),*], $help:literal, $moves:literal; )*) => {
        $(
            #[doc = $help]
            pub static $constant: Metric = Metric {
                name: $name,
                kind: $kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
                when_it_moves: $moves,
            };
        )*
        /// Every metric, in the order of the data flow.
        pub static METRICS: &[&Metric] = &[$(&$constant),*];
    };
}

catalogue! {
    BUILD_INFO = "vigie_build_info", Kind::Gauge, Count,
        [bounded("version", 1, "the build"), bounded("revision", 1, "the build")],
        "Always 1; its labels say which build is running.",
        "A new label set is a new build: compare the other metrics before and after.";
    READY = "vigie_ready", Kind::Gauge, Count, [],
        "1 while a 2xx answer of the collector can be honoured, else 0; the same verdict as /readyz.",
        "0: no event is accepted. /readyz names the failing check; look for a poisoned log or a full disk first.";

    HTTP_REQUEST_DURATION = "vigie_http_request_duration_seconds", Kind::Histogram(LATENCY), Seconds,
        [bounded("endpoint", 64, "route templates"), closed("status", &["1xx", "2xx", "3xx", "4xx", "5xx"])],
        "Time from the parsed request head to the finished response, by route template and status class.",
        "Slow ingestion routes: compare with vigie_log_fsync_duration_seconds. 5xx: read the log at level error.";
    HTTP_CONNECTIONS = "vigie_http_connections", Kind::Gauge, Count, [],
        "Open HTTP connections.",
        "At server.max-connections new clients wait: raise the limit, or look for clients that never close.";
    EVENTS_ACCEPTED = "vigie_events_accepted_total", Kind::Counter, Count, [WORKSPACE],
        "Events answered with 2xx, hence durable in the log or in the dead-letter journal.",
        "Down to zero: see ingest_rejected and readiness, then the senders. A jump: a backfill, or a loop in a sender.";
    EVENTS_IN_FLIGHT = "vigie_events_in_flight", Kind::Gauge, Count, [WORKSPACE],
        "Accepted events that have no outcome yet: what the books call in_flight.",
        "Near zero when it is quiet. Growing: see the lag. Standing above zero in quiet times: a partition is stuck.";
    EVENT_OUTCOMES = "vigie_events_outcomes_total", Kind::Counter, Count,
        [WORKSPACE, closed("outcome", &["applied", "duplicate", "dead_letter", "suppressed", "conflict"])],
        "What became of accepted events. accepted = the sum of applied, duplicate, dead_letter and suppressed, plus in flight; conflict counts duplicates whose payload differs.",
        "duplicate rises with retries of senders; conflict means that a sender reuses ids; dead_letter: list them.";
    EVENTS_DUPLICATES = "vigie_events_duplicates_total", Kind::Counter, Count,
        [bounded("source", 64, "protocols and feeds, a closed enum of the code")],
        "Events that repeated an earlier one, by the protocol or feed that they came through. They change nothing.",
        "Some are retries. A source that repeats much of what it sends loops, or never sees our answers: look at its timeouts.";
    EVENTS_APPLIED = "vigie_events_applied_total", Kind::Counter, Count,
        [bounded("signal", 128, "signals, a closed enum of the code")],
        "Events that took effect, by signal.",
        "A signal that stops: its sender is broken, or renamed its events (then `custom` rises). Complaints: stop the campaign.";
    INGEST_REJECTED = "vigie_ingest_rejected_total", Kind::Counter, Count,
        [bounded("code", 128, "problem codes of the collector")],
        "Requests and events refused with 4xx or 5xx, by problem code. They are not accepted and appear in no book.",
        "By code: authentication codes mean a wrong key, size codes a sender over the limits, 5xx codes our own disk.";
    INGEST_ACK_LATENCY = "vigie_ingest_ack_latency_seconds", Kind::Histogram(LATENCY), Seconds, [],
        "Time from the last byte of a request with events to the decision to acknowledge it.",
        "Follows the fsync duration; when it does not, the queue of the log is full (log.queue-bytes).";

    SOURCE_RECORDS = "vigie_source_records_total", Kind::Counter, Count,
        [SOURCE, closed("outcome", &["event", "dead_letter", "tombstone"])],
        "Records of others' topics that were read and made durable, by what became of them.",
        "dead_letter: what the source writes is not what its format says; the headers dlq.* of the dead-letter topic say why.";
    SOURCE_BYTES = "vigie_source_bytes_total", Kind::Counter, Bytes, [SOURCE],
        "Bytes of the values of these records.",
        "Its rate is the throughput of the source.";
    SOURCE_RETRIES = "vigie_source_retries_total", Kind::Counter, Count, [SOURCE],
        "Batches of a source that were tried again, because the log or the dead-letter topic did not take them.",
        "Follows the errors of the log; nothing is lost, the source waits.";
    SOURCE_LAG = "vigie_source_lag_records", Kind::Gauge, Count, [SOURCE],
        "Records of the source's topics that this process has been given and not read yet.",
        "Growing: the log is slower than the source; add collectors, up to the partitions of the topic.";
    SOURCE_WELL = "vigie_source_well", Kind::Gauge, Count, [SOURCE],
        "1 while the source is read, 0 while it is stopped.",
        "0: the log at level error says why. SOURCE_GAP needs a decision; anything else is tried again by itself.";

    LOG_APPEND_LATENCY = "vigie_log_append_latency_seconds", Kind::Histogram(LOCAL), Seconds, [],
        "Time from handing records to the log until they are durable, waiting for the group commit included.",
        "Rises with the fsync duration and with the queue: compare both.";
    LOG_APPEND_ERRORS = "vigie_log_append_errors_total", Kind::Counter, Count,
        [closed("reason", &["overloaded", "unavailable", "unknown", "poisoned", "corrupt", "gap", "too-large", "no-such-partition", "locked", "layout"])],
        "Calls of the log that failed, by reason. A failed fsync poisons the log until the process is restarted.",
        "overloaded is back-pressure: senders wait. Anything else: the disk is full or failing, or the brokers do not answer; nothing acknowledged is lost.";
    LOG_FSYNC_DURATION = "vigie_log_fsync_duration_seconds", Kind::Histogram(LOCAL), Seconds, [],
        "Time of one fdatasync of the log (one group commit).",
        "Above some tens of milliseconds the disk is shared or failing; throughput stays, latency does not.";
    LOG_SIZE = "vigie_log_size_bytes", Kind::Gauge, Bytes, [],
        "Bytes of the segment files of the embedded log.",
        "Grows with every event kept: compare with the free space, and plan a larger disk before it is full.";
    DISK_FREE = "vigie_disk_free_bytes", Kind::Gauge, Bytes, [],
        "Bytes that the process may still write to the disk of the data directory.",
        "At zero no event is accepted any more. Enlarge the disk in time, or move the archive elsewhere (archive.url).";
    DISK_SIZE = "vigie_disk_size_bytes", Kind::Gauge, Bytes, [],
        "Size of the disk of the data directory.",
        "Changes only when somebody changes the disk.";
    LOG_END_OFFSET = "vigie_log_end_offset", Kind::Gauge, Count, [PARTITION],
        "Offset that the next record of the partition will get.",
        "Stands still in a partition without events. Its rate is the rate of appended records.";

    PIPELINE_APPLIED_OFFSET = "vigie_pipeline_applied_offset", Kind::Gauge, Count, [PARTITION],
        "First offset of the partition that is not yet part of the stored state.",
        "Standing still while the end offset moves means that the worker of the partition is stuck: read its log.";
    PIPELINE_LAG = "vigie_pipeline_lag_records", Kind::Gauge, Count, [PARTITION],
        "Records in the log that are not yet part of the stored state.",
        "Growing: the worker is slower than the senders. Compare the step and commit durations, then add cores.";
    PIPELINE_WATERMARK_AGE = "vigie_pipeline_watermark_age_seconds", Kind::Gauge, Seconds, [PARTITION],
        "How long this process has seen the oldest record wait that is not yet part of the stored state; 0 when there is none.",
        "How old the scores are. Above a minute something is stuck, not slow: look at lag by partition.";
    PIPELINE_STEP_DURATION = "vigie_pipeline_step_duration_seconds", Kind::Histogram(LOCAL), Seconds, [],
        "Time of one step: prefetch, fold, write and acknowledge of one batch.",
        "Compare with the commit duration (the disk) and the batch size (the load).";
    PIPELINE_BATCH_RECORDS = "vigie_pipeline_batch_records", Kind::Histogram(RECORDS), Count, [],
        "Records in one batch.",
        "Near pipeline.batch-records the worker is catching up; near 1 it is idle.";
    PIPELINE_EVENT_TO_SCORE = "vigie_pipeline_event_to_score_latency_seconds", Kind::Histogram(LATENCY), Seconds, [],
        "Time from the receipt of an event to the stored score that knows it.",
        "The promise to users. When it rises, the metrics of this group say whether lag, step or commit is the cause.";
    CUSTOMERS_TOUCHED = "vigie_customers_touched_total", Kind::Counter, Count, [closed("cause", &["event", "timer"])],
        "Customer records written, by what caused the write.",
        "timer far above event: a base that falls silent together, or score refreshes after a model change.";
    SCORES_WRITTEN = "vigie_scores_written_total", Kind::Counter, Count, [],
        "Scores written to the store.",
        "Zero while events are applied: scoring is switched off, or consent refuses it for everybody.";
    TIMERS_FIRED = "vigie_timers_fired_total", Kind::Counter, Count, [],
        "Timers of customers that fired.",
        "A burst is a whole import falling due together. Zero for days: no tick is appended, check the worker.";
    TIMERS_LATENESS = "vigie_timers_lateness_seconds", Kind::Histogram(LATENESS), Seconds, [],
        "Time between the moment for which a timer was set and the reading of the record that fired it.",
        "About a second by design. More means lag, or a clock of the machine that jumped.";
    TIMERS_OVERDUE = "vigie_timers_overdue_seconds", Kind::Gauge, Seconds, [],
        "How long the most overdue timer has been due without having fired; 0 when none is.",
        "A second or two by design. Growing: no ticks are written, or the worker is stuck; flags for silent customers do not come.";
    TIMERS_OVERDUE_PARTITIONS = "vigie_timers_overdue_partitions", Kind::Gauge, Count, [],
        "Partitions with a timer that is due and has not fired.",
        "A few at any time. All of them: the whole worker is behind, or a whole import falls due together.";
    TICKS_APPENDED = "vigie_ticks_appended_total", Kind::Counter, Count, [],
        "Tick records appended to quiet partitions because a timer was due there.",
        "At most one a second and partition. None while timers are due: the tick task has stopped.";
    DEAD_LETTERS = "vigie_dead_letters_stored_total", Kind::Counter, Count,
        [bounded("reason", 128, "reasons of refusal, closed enums of the code")],
        "Events kept in the dead-letter journal, by reason.",
        "List them with `vigie dead-letters list`, correct the sender, and feed them again: no duplicates arise.";

    CANARY_LATENCY = "vigie_canary_latency_seconds", Kind::Histogram(LATENCY), Seconds, [],
        "Time from handing a canary's event to the log until its record was in the store.",
        "The whole way, measured also when no event comes. Compare with the event-to-score latency of real events.";
    CANARY_LOST = "vigie_canary_lost_total", Kind::Counter, Count, [],
        "Canaries that could not be sent, or were not in the store after half a minute.",
        "Any increase: real events meet the same. The log at level warn says where the way ends.";

    STORE_LOAD_DURATION = "vigie_store_load_duration_seconds", Kind::Histogram(LOCAL), Seconds, [],
        "Time to read the customers that a batch needs.",
        "Rises when the working set outgrows the cache (store.cache-size), or with the way to the Redis.";
    STORE_COMMIT_DURATION = "vigie_store_commit_duration_seconds", Kind::Histogram(LOCAL), Seconds, [],
        "Time of one atomic commit of the store.",
        "Rises while the store compacts; when it stays up, the disk is the limit.";
    STORE_COMMIT_ERRORS = "vigie_store_commit_errors_total", Kind::Counter, Count, [],
        "Commits of the store that failed. The step is not acknowledged and is folded again after the restart.",
        "Any increase: the disk is full or failing. Nothing is lost, but scores stand still until it is repaired.";
    STORE_COMMITS_FENCED = "vigie_store_commits_fenced_total", Kind::Counter, Count, [],
        "Commits that were refused because another worker owns the partition by now. They changed nothing.",
        "Some with each rebalance after a pause. All the time: two groups of workers share one store; give each its own.";

    ARCHIVE_ROWS = "vigie_archive_rows_total", Kind::Counter, Count, [],
        "Records of the log that were written to the archive.",
        "Stands still while events arrive: the archive cannot be written; the log keeps what it is owed.";
    ARCHIVE_LAG = "vigie_archive_lag_records", Kind::Gauge, Count, [],
        "Folded records that are not in the archive yet.",
        "Up to archive.flush-rows by design. Beyond: the archive is slower than the senders, or cannot be written.";
    ARCHIVE_LAG_AGE = "vigie_archive_lag_seconds", Kind::Gauge, Seconds, [],
        "How long this process has seen the oldest folded record wait for the archive; 0 when none waits.",
        "Up to archive.flush-after by design. Beyond: look at the archive's errors; SQL and audits see the past that is in it.";
    ARCHIVE_ERRORS = "vigie_archive_errors_total", Kind::Counter, Count, [],
        "Attempts to write the archive that failed. They are repeated.",
        "Any increase: the disk of the archive is full or its address does not answer. Events are taken all the same.";

    AUDIT_RUNS = "vigie_audit_runs_total", Kind::Counter, Count,
        [closed("verdict", &["equal", "different", "not_measured"])],
        "Audits that recomputed a part of the store from the archive, by verdict.",
        "different: the store is not what the log says. not_measured: the audit could not look; the log says why.";
    AUDIT_DIFFERENCES = "vigie_audit_differences", Kind::Gauge, Count, [],
        "Differences that the last audit found.",
        "Anything but 0: run `vigie audit` for the first differing customers, then `vigie rebuild`.";
    AUDIT_EVENTS = "vigie_audit_events_total", Kind::Counter, Count, [],
        "Events that audits have folded again.",
        "Stands still over hours: the audits are switched off or fail.";

    FLAGS = "vigie_flags_total", Kind::Counter, Count,
        [bounded("policy", 100, "policies of the configuration"), closed("decision", &["flagged", "held_out", "refused"])],
        "Decisions of relance policies.",
        "refused near 100 %: consent or pressure caps stop a policy. A jump of flagged: a policy or model changed.";

    RELANCE_REFUSALS = "vigie_relance_refusals_total", Kind::Counter, Count,
        [bounded("policy", 100, "policies of the configuration"), closed("reason", &["objected", "no_consent", "anonymous",
            "few_purchases", "many_purchases", "little_activity", "gone_too_long", "not_eligible", "no_channel",
            "open_complaint", "inbound_contact", "recent_attention", "capped", "unprofitable", "quiet", "source_outage",
            "stale_data"])],
        "Customers at a policy's threshold who were not flagged, by the reason; once for each time the reason is met.",
        "capped or recent_attention rising: other tools contact the same people. unprofitable: costs or margin are wrong. source_outage: an outage of the policy file holds flags; add its end when it is over.";
    FLAG_ENDS = "vigie_flag_ends_total", Kind::Counter, Count,
        [bounded("policy", 100, "policies of the configuration"), closed("end", &["returned", "lost", "recalled",
            "held_out_returned", "held_out_lost", "held_out_recalled"])],
        "How flags came to their end, held-out customers apart.",
        "recalled rising: purchases arrive late, look at the source. The shares of returned, treated and held out, show the effect.";
    BAND_CHANGES = "vigie_band_changes_total", Kind::Counter, Count,
        [bounded("band", 8, "bands of the configuration"), closed("direction", &["up", "down"])],
        "Customers whose score came to another band, which destinations that subscribe to score.band are told.",
        "up of attrition or churn far above down: the base drifts away. Both high: hysteresis is too small, or edges are too near.";

    MODEL_INFO = "vigie_model_info", Kind::Gauge, Count,
        [bounded("model", 32, "models put in force by this process"), bounded("policies", 32, "policies put in force by this process")],
        "1 for the model and the policies in force, 0 for those that were in force before.",
        "A change is an activation: scores and flags before and after come from different rules.";
    MODEL_ACTIVATED = "vigie_model_activated_seconds", Kind::Gauge, Seconds, [],
        "When the model and policies in force were activated, in seconds since 1970.",
        "Customers change: backtest a model that has been in force for half a year (`vigie backtest`), and fit a new one.";
    CHURN_JUDGED = "vigie_churn_judged_customers", Kind::Gauge, Count, [ROLE, DECILE],
        "Customers whose churn over the last closed horizon was held against what they then did, by tenths of the predicted probability.",
        "0: nobody bought in the two horizons before, or the model's own fit has seen that time; it is judged on what came after.";
    CHURN_EXPECTED = "vigie_churn_expected_customers", Kind::Gauge, Count, [ROLE, DECILE],
        "Of these, how many the model expected not to buy: the sum of their probabilities.",
        "Compare with the observed ones of the same tenth: far apart in all of them is a level, in the outer ones a slope.";
    CHURN_OBSERVED = "vigie_churn_observed_customers", Kind::Gauge, Count, [ROLE, DECILE],
        "Of these, how many did not buy.",
        "Compare with the expected ones.";
    CHURN_VARIANCE = "vigie_churn_variance_customers", Kind::Gauge, Count, [ROLE],
        "Variance of the number that did not buy, as the model sees it: the yardstick of the difference.",
        "Moves with the number of customers judged.";
    CHURN_LOG_LOSS = "vigie_churn_log_loss", Kind::Gauge, Count, [ROLE],
        "Mean log loss of the same predictions; 0 while there are none.",
        "The candidate's clearly below that of the model in force over weeks: `vigie model promote`.";

    PORTFOLIO_CUSTOMERS = "vigie_portfolio_customers", Kind::Gauge, Count,
        [WORKSPACE, closed("stage", &["prospect", "new", "active", "slowing", "at_risk", "lapsed", "won_back", "lost",
            "do_not_contact"])],
        "Customers of this process's partitions by stage of the life cycle; the changes of a day are the flows.",
        "at_risk or lapsed growing faster than new: more is lost than won. `vigie report losses` says why.";
    PORTFOLIO_TIER_CUSTOMERS = "vigie_portfolio_tier_customers", Kind::Gauge, Count, [WORKSPACE, CURRENCY, TIER, ATTRITION],
        "Customers who have bought, by Pareto tier of their current value (A: the first 80 % of it, B: the next 15 %) and by attrition, from the level in the label on.",
        "Tier A with attrition 0.7 growing: those who bring most are leaving. `vigie report portfolio` names them.";
    PORTFOLIO_VALUE = "vigie_portfolio_value", Kind::Gauge, Count, [WORKSPACE, CURRENCY, TIER, ATTRITION],
        "Margin to be expected of these customers in the coming year, in major units of the currency.",
        "Falling while customers stay: they fall silent. A jump: a model or its costs changed.";
    PORTFOLIO_AT_STAKE = "vigie_portfolio_at_stake", Kind::Gauge, Count, [WORKSPACE, CURRENCY, TIER, ATTRITION],
        "What of the value of these customers is lost if they go, in major units of the currency.",
        "What relances are there for: compare with their costs in `vigie report policies`.";
    PORTFOLIO_EQUITY = "vigie_portfolio_equity", Kind::Gauge, Count, [WORKSPACE, CURRENCY, TIER, ATTRITION],
        "Customer equity: lifetime value of these customers, discounted, in major units of the currency.",
        "Its change by day is what was won less what drifted away.";
    COMPLAINTS = "vigie_complaints", Kind::Gauge, Count, [WORKSPACE, PHASE],
        "Customers with a complaint, by the phase that it is in.",
        "opened growing: answers do not keep up. resolved and closed far above resatisfied: nobody asks again.";
    COMPLAINT_AGE = "vigie_complaint_age_seconds", Kind::Gauge, Seconds, [WORKSPACE, PHASE],
        "For how long the oldest of these complaints has been in that phase; 0 when there is none.",
        "opened beyond the promise of the policy on complaint-age: somebody waits who was told that they would not.";
    PORTFOLIO_COUNTED = "vigie_portfolio_counted_seconds", Kind::Gauge, Seconds, [],
        "The instant that the numbers of the portfolio hold for, in seconds since 1970. They are counted anew in rounds that take at most a fiftieth of the time.",
        "Standing still for hours: the base is large, or the log says why rounds fail.";

    DELIVERIES = "vigie_deliveries_total", Kind::Counter, Count,
        [DESTINATION, closed("outcome", &["delivered", "failed", "dropped", "parked"])],
        "What became of relances at each destination: arrived, an attempt failed, not sent on purpose, given up after the last attempt.",
        "failed: the log names the answer of the receiver. dropped near 100 %: customers come back before they are told of, or objected.";
    DELIVERY_OLDEST = "vigie_delivery_oldest_age_seconds", Kind::Gauge, Seconds, [DESTINATION],
        "Age of the oldest relance that has neither arrived at the destination nor been given up; 0 when there is none.",
        "Growing: the receiver is down or slower than the relances. `vigie deliveries list` shows its last failure.";
    DELIVERY_PARKED = "vigie_delivery_parked", Kind::Gauge, Count, [DESTINATION],
        "Relances that were given up after the last attempt and wait to be sent again on request.",
        "Above 0: repair the receiver, then `vigie deliveries redeliver`.";
    DELIVERY_WELL = "vigie_delivery_well", Kind::Gauge, Count, [DESTINATION],
        "1 while the destination takes what it is sent, 0 after five failures in a row or when it is halted.",
        "0: `vigie deliveries list` says whether it fails or is halted, and its last answer.";

    PROCESS_CPU = "process_cpu_seconds_total", Kind::Counter, Seconds, [],
        "Processor time of the process.",
        "At the number of cores the process is the limit: add cores or take partitions away from it.";
    PROCESS_OPEN_FDS = "process_open_fds", Kind::Gauge, Count, [],
        "Open file descriptors.",
        "Near process_max_fds new connections fail: raise the limit (ulimit -n) or lower server.max-connections.";
    PROCESS_MAX_FDS = "process_max_fds", Kind::Gauge, Count, [],
        "Most file descriptors that the process may open.",
        "Set by the system; at least server.max-connections + 1000 is needed.";
    PROCESS_RESIDENT_MEMORY = "process_resident_memory_bytes", Kind::Gauge, Bytes, [],
        "Resident memory of the process.",
        "Bounded by the queues and caches of the configuration; growth without end is a defect to report.";
    PROCESS_VIRTUAL_MEMORY = "process_virtual_memory_bytes", Kind::Gauge, Bytes, [],
        "Virtual memory of the process.",
        "Of no concern by itself: mapped files count here.";
    PROCESS_VIRTUAL_MEMORY_MAX = "process_virtual_memory_max_bytes", Kind::Gauge, Bytes, [],
        "Most virtual memory that the process may have.",
        "Set by the system.";
    PROCESS_START_TIME = "process_start_time_seconds", Kind::Gauge, Seconds, [],
        "Start of the process, in seconds since 1970.",
        "A change is a restart: the log of the process before it says why.";
    PROCESS_THREADS = "process_threads", Kind::Gauge, Count, [],
        "Threads of the process.",
        "Constant by design; growth is a defect to report.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What is wrong with a declaration, in the words of the Prometheus naming rules.
    fn defects(metric: &Metric) -> Vec<&'static str> {
        let mut defects = Vec::new();
        let counter = metric.kind == Kind::Counter;
        let base = metric.name.strip_suffix("_total").unwrap_or(metric.name);
        let mut check = |ok: bool, defect| {
            if !ok {
                defects.push(defect);
            }
        };
        check(
            metric.name.starts_with("vigie_") || metric.name.starts_with("process_"),
            "prefix",
        );
        check(
            metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "characters",
        );
        check(counter == metric.name.ends_with("_total"), "_total is for counters");
        check(
            (metric.unit == Unit::Seconds) == base.ends_with("_seconds"),
            "seconds end in _seconds",
        );
        check(
            (metric.unit == Unit::Bytes) == base.ends_with("_bytes"),
            "bytes end in _bytes",
        );
        check(
            !["_count", "_sum", "_bucket", "_info_total"]
                .iter()
                .any(|s| base.ends_with(s)),
            "reserved suffix",
        );
        check(
            metric.help.ends_with('.') && metric.when_it_moves.ends_with('.'),
            "texts are sentences",
        );
        check(
            metric.labels.iter().all(|label| metric.bound(label.name) > 0),
            "every label has a bound",
        );
        check(
            !metric
                .labels
                .iter()
                .any(|l| ["le", "job", "instance", "quantile"].contains(&l.name)),
            "reserved label",
        );
        if let Kind::Histogram(buckets) = metric.kind {
            check(
                buckets.is_sorted_by(|a, b| a < b) && !buckets.is_empty(),
                "buckets ascend",
            );
        }
        defects
    }

    #[test]
    fn every_metric_follows_the_naming_rules() {
        for metric in METRICS {
            assert_eq!(defects(metric), Vec::<&str>::new(), "{}", metric.name);
        }
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len(), "names are unique");
    }

    #[test]
    fn the_naming_rules_refuse_bad_names() {
        let bad = Metric {
            name: "vigie_wait_ms_count",
            unit: Unit::Seconds,
            ..EVENTS_ACCEPTED
        };
        assert_eq!(
            defects(&bad),
            ["_total is for counters", "seconds end in _seconds", "reserved suffix"]
        );
    }

    #[test]
    fn series_of_histograms_are_found_by_their_suffix() {
        assert_eq!(
            find("vigie_pipeline_batch_records_bucket").map(|m| m.name),
            Some("vigie_pipeline_batch_records")
        );
        assert_eq!(find("vigie_ready_bucket").map(|m| m.name), None);
        assert_eq!(find("vigie_unknown").map(|m| m.name), None);
    }
}
