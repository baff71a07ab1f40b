//! The handles: one method per thing that can be counted, registered at start and passed to the parts that count.
//!
//! They never look a metric up by name on the hot path, and they cost an atomic addition each. Parts count per batch.
//! Label values are closed enums, or bounded families that end in `other`.
//!
//! Length: every handle beside the others, so that what can be counted is seen at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use crate::catalogue::{self, Metric};
use crate::exporter::Registry;
use crate::family::{ByName, ByValue, Family};
use crate::portfolio::PortfolioMetrics;
use crate::stopwatch::Stopwatch;

/// Declares a closed label: the enum, its label values, and the array of handles that it indexes.
macro_rules! closed_label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $value:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),*
        }

        impl $name {
            /// All values.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The label value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $value),* }
            }
        }
    };
}

closed_label! {
    /// What became of an accepted event.
    Outcome {
        /// Folded into the state of its customer.
        Applied = "applied",
        /// Seen before with the same payload.
        Duplicate = "duplicate",
        /// Kept in the dead-letter journal.
        DeadLetter = "dead_letter",
        /// Left out on purpose (consent, bot, erased).
        Suppressed = "suppressed",
        /// Seen before with another payload; counted in addition to `Duplicate`.
        Conflict = "conflict",
    }
}

closed_label! {
    /// What an audit said.
    AuditVerdict {
        /// The store is what the log says.
        Equal = "equal",
        /// It is not.
        Different = "different",
        /// It could not look.
        NotMeasured = "not_measured",
    }
}

closed_label! {
    /// What caused the write of a customer record.
    Cause {
        /// An event, link or merge.
        Event = "event",
        /// A timer.
        Timer = "timer",
    }
}

closed_label! {
    /// What a relance policy decided.
    Decision {
        /// A flag was raised.
        Flagged = "flagged",
        /// The customer belongs to the holdout.
        HeldOut = "held_out",
        /// No contact, with a reason.
        Refused = "refused",
    }
}

closed_label! {
    /// What became of a relance at a destination.
    Delivered {
        /// It arrived.
        Delivered = "delivered",
        /// An attempt failed; there will be another.
        Failed = "failed",
        /// It is not sent, on purpose.
        Dropped = "dropped",
        /// It was given up after the last attempt.
        Parked = "parked",
    }
}

closed_label! {
    /// Why a policy did not flag a customer.
    RefusalReason {
        /// Refused profiling or marketing.
        Objected = "objected",
        /// Never consented.
        NoConsent = "no_consent",
        /// No id to contact by.
        Anonymous = "anonymous",
        /// Too few purchase days.
        FewPurchases = "few_purchases",
        /// Too many purchase days.
        ManyPurchases = "many_purchases",
        /// Too few active days.
        LittleActivity = "little_activity",
        /// Silent for too long.
        GoneTooLong = "gone_too_long",
        /// The policy's predicate does not hold.
        NotEligible = "not_eligible",
        /// No channel may be used.
        NoChannel = "no_channel",
        /// Waits for the answer to a complaint.
        OpenComplaint = "open_complaint",
        /// Has called or written a short while ago.
        InboundContact = "inbound_contact",
        /// Was contacted a short while ago.
        RecentAttention = "recent_attention",
        /// Was contacted often enough.
        Capped = "capped",
        /// A contact would cost more than it saves.
        Unprofitable = "unprofitable",
        /// No hour for a contact in time.
        Quiet = "quiet",
        /// A source that tells about the customer is, or was, silent.
        SourceOutage = "source_outage",
        /// What is known of the customer is too old.
        StaleData = "stale_data",
    }
}

closed_label! {
    /// How a flag came to its end.
    FlagEnd {
        /// The customer came back.
        Returned = "returned",
        /// The customer did not.
        Lost = "lost",
        /// The flag was wrong.
        Recalled = "recalled",
        /// A held-out customer came back.
        HeldOutReturned = "held_out_returned",
        /// A held-out customer did not.
        HeldOutLost = "held_out_lost",
        /// The flag of a held-out customer was wrong.
        HeldOutRecalled = "held_out_recalled",
    }
}

closed_label! {
    /// Class of an HTTP status.
    StatusClass {
        /// 100 to 199.
        Informational = "1xx",
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 and above.
        ServerError = "5xx",
    }
}

impl StatusClass {
    fn of(status: u16) -> StatusClass {
        match status {
            0..=199 => StatusClass::Informational,
            200..=299 => StatusClass::Success,
            300..=399 => StatusClass::Redirection,
            400..=499 => StatusClass::ClientError,
            _ => StatusClass::ServerError,
        }
    }
}

/// All handles of one server. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Collector: events, refusals, the books.
    pub events: EventMetrics,
    /// HTTP servers.
    pub http: HttpMetrics,
    /// Topics of others.
    pub source: SourceMetrics,
    /// The log.
    pub log: LogMetrics,
    /// The worker and its timers.
    pub pipeline: PipelineMetrics,
    /// The store.
    pub store: StoreMetrics,
    /// The archive.
    pub archive: ArchiveMetrics,
    /// Audits.
    pub audit: AuditMetrics,
    /// Relance policies.
    pub relance: RelanceMetrics,
    /// The model and policies in force.
    pub model: ModelMetrics,
    /// What came of predictions.
    pub calibration: CalibrationMetrics,
    /// The base: stages, tiers, equity.
    pub portfolio: PortfolioMetrics,
    /// The disk of the data directory.
    pub disk: DiskMetrics,
    /// Canaries.
    pub canary: CanaryMetrics,
    /// Destinations of relances.
    pub delivery: DeliveryMetrics,
    /// Measures durations for the histograms.
    pub stopwatch: Stopwatch,
    ready: Gauge,
}

impl Metrics {
    /// Handles that count nothing and a stopwatch that stands still: for tests, replays and simulations.
    #[must_use]
    pub fn disabled() -> Metrics {
        Metrics::register(&Registry::disabled(), Stopwatch::stopped())
    }

    pub(crate) fn register(registry: &Arc<Registry>, stopwatch: Stopwatch) -> Metrics {
        Metrics {
            events: EventMetrics::register(registry),
            http: HttpMetrics::register(registry),
            source: SourceMetrics::register(registry),
            log: LogMetrics::register(registry),
            pipeline: PipelineMetrics::register(registry),
            store: StoreMetrics::register(registry),
            archive: ArchiveMetrics::register(registry),
            audit: AuditMetrics::register(registry),
            relance: RelanceMetrics::register(registry),
            model: ModelMetrics::register(registry),
            calibration: CalibrationMetrics::register(registry),
            portfolio: PortfolioMetrics::register(registry),
            disk: DiskMetrics::register(registry),
            canary: CanaryMetrics::register(registry),
            delivery: DeliveryMetrics::register(registry),
            stopwatch,
            ready: registry.gauge(&catalogue::READY, &[]),
        }
    }

    /// Publishes the verdict of `/readyz`.
    pub fn ready(&self, ready: bool) {
        self.ready.set(if ready { 1.0 } else { 0.0 });
    }
}

/// Handles of the collector and of the books (BOOKS-1).
#[derive(Clone, Debug)]
pub struct EventMetrics {
    accepted: Family<Counter>,
    outcomes: Family<ByValue<Counter>>,
    rejected: Family<Counter>,
    ack_latency: Histogram,
    dead_letters: Family<Counter>,
    in_flight: Family<Gauge>,
    duplicates: Family<Counter>,
    applied: Family<Counter>,
}

impl EventMetrics {
    fn register(registry: &Arc<Registry>) -> EventMetrics {
        EventMetrics {
            accepted: counters(registry, &catalogue::EVENTS_ACCEPTED, "workspace"),
            outcomes: {
                let (registry, metric) = (Arc::clone(registry), &catalogue::EVENT_OUTCOMES);
                Family::new(metric.bound("workspace"), move |workspace| {
                    ByValue::new(Outcome::ALL.iter().map(|outcome| {
                        let labels = [("workspace", workspace), ("outcome", outcome.as_str())];
                        registry.counter(metric, &labels)
                    }))
                })
            },
            rejected: counters(registry, &catalogue::INGEST_REJECTED, "code"),
            ack_latency: registry.histogram(&catalogue::INGEST_ACK_LATENCY, &[]),
            dead_letters: counters(registry, &catalogue::DEAD_LETTERS, "reason"),
            in_flight: gauges(registry, &catalogue::EVENTS_IN_FLIGHT, "workspace"),
            duplicates: counters(registry, &catalogue::EVENTS_DUPLICATES, "source"),
            applied: counters(registry, &catalogue::EVENTS_APPLIED, "signal"),
        }
    }

    /// `count` events of `workspace` were acknowledged.
    pub fn accepted(&self, workspace: &str, count: u64) {
        self.accepted.get(workspace).increment(count);
    }

    /// `count` accepted events of `workspace` ended as `outcome`.
    pub fn outcome(&self, workspace: &str, outcome: Outcome, count: u64) {
        if let Some(counter) = self.outcomes.get(workspace).at(outcome as usize) {
            counter.increment(count);
        }
    }

    /// `count` requests or events were refused with problem code `code`.
    pub fn rejected(&self, code: &'static str, count: u64) {
        self.rejected.get(code).increment(count);
    }

    /// A request with events was acknowledged after `latency`.
    pub fn acknowledged(&self, latency: Duration) {
        self.ack_latency.record(latency);
    }

    /// `count` events of `workspace` have no outcome yet.
    pub fn in_flight(&self, workspace: &str, count: u64) {
        self.in_flight.get(workspace).set(float(count));
    }

    /// `count` events that came through `source` repeated earlier ones.
    pub fn duplicates(&self, source: &'static str, count: u64) {
        self.duplicates.get(source).increment(count);
    }

    /// `count` events with `signal` took effect.
    pub fn applied(&self, signal: &'static str, count: u64) {
        self.applied.get(signal).increment(count);
    }

    /// `count` events were kept in the dead-letter journal for `reason`.
    pub fn dead_letters(&self, reason: &'static str, count: u64) {
        self.dead_letters.get(reason).increment(count);
    }
}

/// Handles of the HTTP servers.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    durations: Family<ByValue<Histogram>>,
    connections: Gauge,
}

impl HttpMetrics {
    fn register(registry: &Arc<Registry>) -> HttpMetrics {
        let (families, metric) = (Arc::clone(registry), &catalogue::HTTP_REQUEST_DURATION);
        HttpMetrics {
            durations: Family::new(metric.bound("endpoint"), move |endpoint| {
                ByValue::new(
                    StatusClass::ALL
                        .iter()
                        .map(|class| families.histogram(metric, &[("endpoint", endpoint), ("status", class.as_str())])),
                )
            }),
            connections: registry.gauge(&catalogue::HTTP_CONNECTIONS, &[]),
        }
    }

    /// A request on the route template `endpoint` (never the path itself) was answered with `status`.
    pub fn request(&self, endpoint: &str, status: u16, duration: Duration) {
        if let Some(histogram) = self.durations.get(endpoint).at(StatusClass::of(status) as usize) {
            histogram.record(duration);
        }
    }

    /// A connection was opened.
    pub fn connected(&self) {
        self.connections.increment(1.0);
    }

    /// A connection was closed.
    pub fn disconnected(&self) {
        self.connections.decrement(1.0);
    }
}

/// Handles of the log.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    append_latency: Histogram,
    append_errors: ByName<Counter>,
    fsync_duration: Histogram,
    size: Gauge,
    end_offset: Family<Gauge>,
}

impl LogMetrics {
    fn register(registry: &Arc<Registry>) -> LogMetrics {
        LogMetrics {
            append_latency: registry.histogram(&catalogue::LOG_APPEND_LATENCY, &[]),
            append_errors: ByName::new(&catalogue::LOG_APPEND_ERRORS, "reason", |reason| {
                registry.counter(&catalogue::LOG_APPEND_ERRORS, &[("reason", reason)])
            }),
            fsync_duration: registry.histogram(&catalogue::LOG_FSYNC_DURATION, &[]),
            size: registry.gauge(&catalogue::LOG_SIZE, &[]),
            end_offset: gauges(registry, &catalogue::LOG_END_OFFSET, "partition"),
        }
    }

    /// An append became durable after `latency`.
    pub fn appended(&self, latency: Duration) {
        self.append_latency.record(latency);
    }

    /// An append failed, with the tag of its error.
    pub fn append_failed(&self, reason: &'static str) {
        if let Some(counter) = self.append_errors.get(reason) {
            counter.increment(1);
        }
    }

    /// One group commit was synced in `duration`.
    pub fn fsync(&self, duration: Duration) {
        self.fsync_duration.record(duration);
    }

    /// The segment files hold `bytes`.
    pub fn size(&self, bytes: u64) {
        self.size.set(float(bytes));
    }

    /// The next record of `partition` will get `offset`.
    pub fn end_offset(&self, partition: u16, offset: u64) {
        self.end_offset.get(&partition.to_string()).set(float(offset));
    }
}

/// Handles of the worker.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    applied_offset: Family<Gauge>,
    lag: Family<Gauge>,
    watermark_age: Family<Gauge>,
    step_duration: Histogram,
    batch_records: Histogram,
    event_to_score: Histogram,
    customers_touched: ByValue<Counter>,
    scores_written: Counter,
    timers_fired: Counter,
    timers_lateness: Histogram,
    timers_overdue: Gauge,
    timers_overdue_partitions: Gauge,
    ticks_appended: Counter,
}

impl PipelineMetrics {
    fn register(registry: &Arc<Registry>) -> PipelineMetrics {
        PipelineMetrics {
            applied_offset: gauges(registry, &catalogue::PIPELINE_APPLIED_OFFSET, "partition"),
            lag: gauges(registry, &catalogue::PIPELINE_LAG, "partition"),
            watermark_age: gauges(registry, &catalogue::PIPELINE_WATERMARK_AGE, "partition"),
            step_duration: registry.histogram(&catalogue::PIPELINE_STEP_DURATION, &[]),
            batch_records: registry.histogram(&catalogue::PIPELINE_BATCH_RECORDS, &[]),
            event_to_score: registry.histogram(&catalogue::PIPELINE_EVENT_TO_SCORE, &[]),
            customers_touched: ByValue::new(
                Cause::ALL
                    .iter()
                    .map(|cause| registry.counter(&catalogue::CUSTOMERS_TOUCHED, &[("cause", cause.as_str())])),
            ),
            scores_written: registry.counter(&catalogue::SCORES_WRITTEN, &[]),
            timers_fired: registry.counter(&catalogue::TIMERS_FIRED, &[]),
            timers_lateness: registry.histogram(&catalogue::TIMERS_LATENESS, &[]),
            timers_overdue: registry.gauge(&catalogue::TIMERS_OVERDUE, &[]),
            timers_overdue_partitions: registry.gauge(&catalogue::TIMERS_OVERDUE_PARTITIONS, &[]),
            ticks_appended: registry.counter(&catalogue::TICKS_APPENDED, &[]),
        }
    }

    /// The stored state of `partition` holds everything below `applied`; the log ends at `end`.
    pub fn progress(&self, partition: u16, applied: u64, end: u64) {
        let partition = partition.to_string();
        self.applied_offset.get(&partition).set(float(applied));
        self.lag.get(&partition).set(float(end.saturating_sub(applied)));
    }

    /// The oldest record of `partition` that is not yet part of the stored state has this age; zero when there is none.
    pub fn watermark_age(&self, partition: u16, age: Duration) {
        self.watermark_age.get(&partition.to_string()).set(age.as_secs_f64());
    }

    /// In so many partitions a timer is due that has not fired, the most overdue one for so long.
    pub fn timers_overdue(&self, partitions: usize, longest: Duration) {
        self.timers_overdue_partitions.set(float(partitions as u64));
        self.timers_overdue.set(longest.as_secs_f64());
    }

    /// One step over `records` records took `duration`.
    pub fn step(&self, records: usize, duration: Duration) {
        self.batch_records.record(float(records as u64));
        self.step_duration.record(duration);
    }

    /// The score that knows an event was stored this long after its receipt.
    pub fn event_to_score(&self, latency: Duration) {
        self.event_to_score.record(latency);
    }

    /// `count` customer records were written because of `cause`.
    pub fn customers_touched(&self, cause: Cause, count: u64) {
        if let Some(counter) = self.customers_touched.at(cause as usize) {
            counter.increment(count);
        }
    }

    /// `count` scores were written.
    pub fn scores_written(&self, count: u64) {
        self.scores_written.increment(count);
    }

    /// A timer fired this long after the moment for which it was set.
    pub fn timer_fired(&self, lateness: Duration) {
        self.timers_fired.increment(1);
        self.timers_lateness.record(lateness);
    }

    /// `count` ticks were appended.
    pub fn ticks_appended(&self, count: u64) {
        self.ticks_appended.increment(count);
    }
}

/// Handles of the store.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    load_duration: Histogram,
    commit_duration: Histogram,
    commit_errors: Counter,
    commits_fenced: Counter,
}

impl StoreMetrics {
    fn register(registry: &Arc<Registry>) -> StoreMetrics {
        StoreMetrics {
            load_duration: registry.histogram(&catalogue::STORE_LOAD_DURATION, &[]),
            commit_duration: registry.histogram(&catalogue::STORE_COMMIT_DURATION, &[]),
            commit_errors: registry.counter(&catalogue::STORE_COMMIT_ERRORS, &[]),
            commits_fenced: registry.counter(&catalogue::STORE_COMMITS_FENCED, &[]),
        }
    }

    /// The customers of one batch were read in `duration`.
    pub fn loaded(&self, duration: Duration) {
        self.load_duration.record(duration);
    }

    /// One atomic commit took `duration`.
    pub fn committed(&self, duration: Duration) {
        self.commit_duration.record(duration);
    }

    /// A commit failed.
    pub fn commit_failed(&self) {
        self.commit_errors.increment(1);
    }

    /// A commit was refused, because somebody else owns the partition.
    pub fn commit_fenced(&self) {
        self.commits_fenced.increment(1);
    }
}

/// Handles of the archive.
#[derive(Clone, Debug)]
pub struct ArchiveMetrics {
    rows: Counter,
    lag: Gauge,
    lag_age: Gauge,
    errors: Counter,
}

impl ArchiveMetrics {
    fn register(registry: &Arc<Registry>) -> ArchiveMetrics {
        ArchiveMetrics {
            rows: registry.counter(&catalogue::ARCHIVE_ROWS, &[]),
            lag: registry.gauge(&catalogue::ARCHIVE_LAG, &[]),
            lag_age: registry.gauge(&catalogue::ARCHIVE_LAG_AGE, &[]),
            errors: registry.counter(&catalogue::ARCHIVE_ERRORS, &[]),
        }
    }

    /// So many records were written.
    pub fn wrote(&self, rows: u64) {
        self.rows.increment(rows);
    }

    /// So many folded records are not in the archive yet, the oldest for so long.
    pub fn lag(&self, records: u64, age: Duration) {
        self.lag.set(float(records));
        self.lag_age.set(age.as_secs_f64());
    }

    /// An attempt to write failed.
    pub fn failed(&self) {
        self.errors.increment(1);
    }
}

/// Handles of the audits.
#[derive(Clone, Debug)]
pub struct AuditMetrics {
    runs: Vec<Counter>,
    differences: Gauge,
    events: Counter,
}

impl AuditMetrics {
    fn register(registry: &Arc<Registry>) -> AuditMetrics {
        let run = |verdict: &AuditVerdict| registry.counter(&catalogue::AUDIT_RUNS, &[("verdict", verdict.as_str())]);
        AuditMetrics {
            runs: AuditVerdict::ALL.iter().map(run).collect(),
            differences: registry.gauge(&catalogue::AUDIT_DIFFERENCES, &[]),
            events: registry.counter(&catalogue::AUDIT_EVENTS, &[]),
        }
    }

    /// An audit ended: what it found in so many events.
    pub fn ran(&self, verdict: AuditVerdict, differences: u64, events: u64) {
        if let Some(runs) = self.runs.get(verdict as usize) {
            runs.increment(1);
        }
        if verdict != AuditVerdict::NotMeasured {
            self.differences.set(differences as f64);
        }
        self.events.increment(events);
    }
}

/// Handles of the relance policies.
#[derive(Clone, Debug)]
pub struct RelanceMetrics {
    flags: Family<ByValue<Counter>>,
    refusals: Family<ByValue<Counter>>,
    ends: Family<ByValue<Counter>>,
    moves: Family<ByValue<Counter>>,
}

impl RelanceMetrics {
    fn register(registry: &Arc<Registry>) -> RelanceMetrics {
        let by = |metric: &'static Metric, what: &'static str, label: &'static str, values: Vec<&'static str>| {
            let registry = Arc::clone(registry);
            Family::new(metric.bound(what), move |name| {
                let values = values.iter();
                ByValue::new(values.map(|value| registry.counter(metric, &[(what, name), (label, *value)])))
            })
        };
        let by_policy = |metric, label, values| by(metric, "policy", label, values);
        let decisions = Decision::ALL.iter().map(|decision| decision.as_str()).collect();
        let reasons = RefusalReason::ALL.iter().map(|reason| reason.as_str()).collect();
        let ends = FlagEnd::ALL.iter().map(|end| end.as_str()).collect();
        RelanceMetrics {
            flags: by_policy(&catalogue::FLAGS, "decision", decisions),
            refusals: by_policy(&catalogue::RELANCE_REFUSALS, "reason", reasons),
            ends: by_policy(&catalogue::FLAG_ENDS, "end", ends),
            moves: by(&catalogue::BAND_CHANGES, "band", "direction", vec!["up", "down"]),
        }
    }

    /// `policy` took `decision` on `count` customers.
    pub fn decided(&self, policy: &str, decision: Decision, count: u64) {
        if let Some(counter) = self.flags.get(policy).at(decision as usize) {
            counter.increment(count);
        }
    }

    /// `policy` refused `count` customers at its threshold for `reason`.
    pub fn refused(&self, policy: &str, reason: RefusalReason, count: u64) {
        self.decided(policy, Decision::Refused, count);
        if let Some(counter) = self.refusals.get(policy).at(reason as usize) {
            counter.increment(count);
        }
    }

    /// `count` flags of `policy` came to this `end`.
    pub fn ended(&self, policy: &str, end: FlagEnd, count: u64) {
        if let Some(counter) = self.ends.get(policy).at(end as usize) {
            counter.increment(count);
        }
    }

    /// `count` customers came to a higher band, or to a lower one.
    pub fn moved(&self, band: &str, up: bool, count: u64) {
        if let Some(counter) = self.moves.get(band).at(usize::from(!up)) {
            counter.increment(count);
        }
    }
}

/// Handles of the model and policies in force.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    info: Family<Family<Gauge>>,
    activated: Gauge,
    /// What the last call said is in force.
    current: Arc<Mutex<Option<(String, String)>>>,
}

impl ModelMetrics {
    fn register(registry: &Arc<Registry>) -> ModelMetrics {
        let (registry_of_info, metric) = (Arc::clone(registry), &catalogue::MODEL_INFO);
        ModelMetrics {
            info: Family::new(metric.bound("model"), move |model| {
                let (registry, model) = (Arc::clone(&registry_of_info), model.to_owned());
                Family::new(metric.bound("policies"), move |policies| {
                    registry.gauge(metric, &[("model", &model), ("policies", policies)])
                })
            }),
            activated: registry.gauge(&catalogue::MODEL_ACTIVATED, &[]),
            current: Arc::default(),
        }
    }

    /// This model and these policies are in force, since so long after 1970.
    pub fn in_force(&self, model: &str, policies: &str, since: Duration) {
        // A panic while the lock is held leaves a complete pair behind: there is nothing to repair.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let new = (model.to_owned(), policies.to_owned());
        if let Some((model, policies)) = current.as_ref().filter(|current| **current != new) {
            self.info.get(model).get(policies).set(0.0);
        }
        self.info.get(model).get(policies).set(1.0);
        self.activated.set(since.as_secs_f64());
        *current = Some(new);
    }
}

/// Handles of what came of predictions, of the model in force and of its candidate.
#[derive(Clone, Debug)]
pub struct CalibrationMetrics {
    roles: Arc<[RoleMetrics; 2]>,
}

#[derive(Debug)]
struct RoleMetrics {
    /// Judged, expected, observed, by tenths.
    tenths: [[Gauge; 3]; 10],
    variance: Gauge,
    log_loss: Gauge,
}

/// What came of one model's predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Judged {
    /// By tenths of the predicted probability: customers, how many were expected to churn, how many did.
    pub tenths: [(u64, f64, u64); 10],
    /// Variance of the number that churns, as predicted.
    pub variance: f64,
    /// Mean log loss.
    pub log_loss: f64,
}

impl CalibrationMetrics {
    fn register(registry: &Arc<Registry>) -> CalibrationMetrics {
        let role = |role: &'static str| RoleMetrics {
            tenths: std::array::from_fn(|tenth| {
                let decile = (tenth + 1).to_string();
                [
                    &catalogue::CHURN_JUDGED,
                    &catalogue::CHURN_EXPECTED,
                    &catalogue::CHURN_OBSERVED,
                ]
                .map(|metric| registry.gauge(metric, &[("role", role), ("decile", &decile)]))
            }),
            variance: registry.gauge(&catalogue::CHURN_VARIANCE, &[("role", role)]),
            log_loss: registry.gauge(&catalogue::CHURN_LOG_LOSS, &[("role", role)]),
        };
        CalibrationMetrics {
            roles: Arc::new([role("in_force"), role("candidate")]),
        }
    }

    /// What came of the predictions of the model in force, and of its candidate.
    pub fn judged(&self, in_force: &Judged, candidate: &Judged) {
        for (role, judged) in self.roles.iter().zip([in_force, candidate]) {
            for ([customers, expected, observed], (n, e, o)) in role.tenths.iter().zip(judged.tenths) {
                customers.set(float(n));
                expected.set(e);
                observed.set(float(o));
            }
            role.variance.set(judged.variance);
            role.log_loss.set(judged.log_loss);
        }
    }
}

/// Handles of the disk of the data directory.
#[derive(Clone, Debug)]
pub struct DiskMetrics {
    free: Gauge,
    size: Gauge,
}

impl DiskMetrics {
    fn register(registry: &Arc<Registry>) -> DiskMetrics {
        DiskMetrics {
            free: registry.gauge(&catalogue::DISK_FREE, &[]),
            size: registry.gauge(&catalogue::DISK_SIZE, &[]),
        }
    }

    /// Of `size` bytes, `free` may still be written.
    pub fn room(&self, free: u64, size: u64) {
        self.free.set(float(free));
        self.size.set(float(size));
    }
}

/// Handles of the canaries.
#[derive(Clone, Debug)]
pub struct CanaryMetrics {
    latency: Histogram,
    lost: Counter,
}

impl CanaryMetrics {
    fn register(registry: &Arc<Registry>) -> CanaryMetrics {
        CanaryMetrics {
            latency: registry.histogram(&catalogue::CANARY_LATENCY, &[]),
            lost: registry.counter(&catalogue::CANARY_LOST, &[]),
        }
    }

    /// A canary was in the store after `latency`.
    pub fn seen(&self, latency: Duration) {
        self.latency.record(latency);
    }

    /// A canary was not.
    pub fn lost(&self) {
        self.lost.increment(1);
    }
}

/// Handles of the topics of others.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    records: Family<ByName<Counter>>,
    bytes: Family<Counter>,
    retries: Family<Counter>,
    lag: Family<Gauge>,
    well: Family<Gauge>,
}

impl SourceMetrics {
    fn register(registry: &Arc<Registry>) -> SourceMetrics {
        SourceMetrics {
            records: {
                let (registry, metric) = (Arc::clone(registry), &catalogue::SOURCE_RECORDS);
                Family::new(metric.bound("source"), move |source| {
                    ByName::new(metric, "outcome", |outcome| {
                        registry.counter(metric, &[("source", source), ("outcome", outcome)])
                    })
                })
            },
            bytes: counters(registry, &catalogue::SOURCE_BYTES, "source"),
            retries: counters(registry, &catalogue::SOURCE_RETRIES, "source"),
            lag: gauges(registry, &catalogue::SOURCE_LAG, "source"),
            well: gauges(registry, &catalogue::SOURCE_WELL, "source"),
        }
    }

    /// `count` records of `source` became an `event`, a `dead_letter`, or were a `tombstone`.
    pub fn read(&self, source: &str, outcome: &str, count: u64) {
        if let Some(counter) = self.records.get(source).get(outcome) {
            counter.increment(count);
        }
    }

    /// `bytes` of values were read, and `retries` batches tried again.
    pub fn worked(&self, source: &str, bytes: u64, retries: u64) {
        self.bytes.get(source).increment(bytes);
        self.retries.get(source).increment(retries);
    }

    /// So many records wait, and the source is read or stopped.
    pub fn state(&self, source: &str, lag: u64, well: bool) {
        self.lag.get(source).set(float(lag));
        self.well.get(source).set(if well { 1.0 } else { 0.0 });
    }
}

/// Handles of the destinations.
#[derive(Clone, Debug)]
pub struct DeliveryMetrics {
    deliveries: Family<ByValue<Counter>>,
    oldest: Family<Gauge>,
    parked: Family<Gauge>,
    well: Family<Gauge>,
}

impl DeliveryMetrics {
    fn register(registry: &Arc<Registry>) -> DeliveryMetrics {
        DeliveryMetrics {
            deliveries: {
                let (registry, metric) = (Arc::clone(registry), &catalogue::DELIVERIES);
                Family::new(metric.bound("destination"), move |destination| {
                    ByValue::new(Delivered::ALL.iter().map(|outcome| {
                        let labels = [("destination", destination), ("outcome", outcome.as_str())];
                        registry.counter(metric, &labels)
                    }))
                })
            },
            oldest: gauges(registry, &catalogue::DELIVERY_OLDEST, "destination"),
            parked: gauges(registry, &catalogue::DELIVERY_PARKED, "destination"),
            well: gauges(registry, &catalogue::DELIVERY_WELL, "destination"),
        }
    }

    /// `count` relances ended as `outcome` at `destination`.
    pub fn ended(&self, destination: &str, outcome: Delivered, count: u64) {
        if let Some(counter) = self.deliveries.get(destination).at(outcome as usize) {
            counter.increment(count);
        }
    }

    /// The oldest relance that has not arrived at `destination` has this age, `parked` ones wait to be sent again, and the
    /// destination takes what it is sent or does not.
    pub fn state(&self, destination: &str, oldest: Duration, parked: u64, well: bool) {
        self.oldest.get(destination).set(oldest.as_secs_f64());
        self.parked.get(destination).set(float(parked));
        self.well.get(destination).set(if well { 1.0 } else { 0.0 });
    }
}

fn counters(registry: &Arc<Registry>, metric: &'static Metric, label: &'static str) -> Family<Counter> {
    let registry = Arc::clone(registry);
    Family::new(metric.bound(label), move |value| {
        registry.counter(metric, &[(label, value)])
    })
}

fn gauges(registry: &Arc<Registry>, metric: &'static Metric, label: &'static str) -> Family<Gauge> {
    let registry = Arc::clone(registry);
    Family::new(metric.bound(label), move |value| {
        registry.gauge(metric, &[(label, value)])
    })
}

/// Exact up to 2^53, which no offset and no disk reaches.
#[expect(clippy::cast_precision_loss, reason = "offsets and sizes stay below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use crate::portfolio::{Portfolio, Tiers};
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalogue::{METRICS, Values};
    use crate::exporter::{BuildInfo, Exporter};

    /// Calls every method once.
    fn touch_everything(metrics: &Metrics) {
        let second = Duration::from_secs(1);
        metrics.ready(true);
        metrics.calibration.judged(&Judged::default(), &Judged::default());
        metrics.events.accepted("acme", 3);
        for outcome in Outcome::ALL {
            metrics.events.outcome("acme", *outcome, 1);
        }
        metrics.events.rejected("body_too_large", 1);
        metrics.events.acknowledged(second);
        metrics.events.dead_letters("too_old", 1);
        metrics.events.in_flight("acme", 2);
        metrics.events.duplicates("segment", 1);
        metrics.events.applied("purchase", 1);
        metrics.http.request("/v1/batch", 200, second);
        metrics.http.request("/v1/batch", 599, second);
        metrics.http.connected();
        metrics.http.connected();
        metrics.http.disconnected();
        metrics.log.appended(second);
        metrics.log.append_failed("poisoned");
        metrics.log.fsync(second);
        metrics.log.size(4096);
        metrics.log.end_offset(7, 12);
        metrics.pipeline.progress(7, 10, 12);
        metrics.pipeline.watermark_age(7, second);
        metrics.pipeline.timers_overdue(1, second);
        metrics.pipeline.step(100, second);
        metrics.pipeline.event_to_score(second);
        for cause in Cause::ALL {
            metrics.pipeline.customers_touched(*cause, 1);
        }
        metrics.pipeline.scores_written(1);
        metrics.pipeline.timer_fired(second);
        metrics.pipeline.ticks_appended(1);
        metrics.store.loaded(second);
        metrics.store.committed(second);
        metrics.store.commit_failed();
        metrics.store.commit_fenced();
        for outcome in ["event", "dead_letter", "tombstone"] {
            metrics.source.read("till", outcome, 1);
        }
        metrics.source.worked("till", 100, 1);
        metrics.source.state("till", 3, true);
        metrics.archive.wrote(1);
        metrics.archive.lag(9, second);
        metrics.archive.failed();
        for verdict in AuditVerdict::ALL {
            metrics.audit.ran(*verdict, 0, 1);
        }
        for decision in Decision::ALL {
            metrics.relance.decided("win-back", *decision, 1);
        }
        metrics.model.in_force("m@1", "p@1", second);
        metrics.disk.room(1, 2);
        let base = Portfolio {
            currencies: [("EUR".to_owned(), Tiers::default())].into(),
            ..Portfolio::default()
        };
        metrics.portfolio.counted(second, &[("acme".to_owned(), base)].into());
        metrics.canary.seen(second);
        metrics.canary.lost();
        for outcome in Delivered::ALL {
            metrics.delivery.ended("crm", *outcome, 1);
        }
        metrics.delivery.state("crm", second, 1, true);
        for reason in RefusalReason::ALL {
            metrics.relance.refused("win-back", *reason, 1);
        }
        for end in FlagEnd::ALL {
            metrics.relance.ended("win-back", *end, 1);
        }
        metrics.relance.moved("risk", true, 1);
    }

    fn exporter() -> Exporter {
        Exporter::new(BuildInfo {
            version: "1.2.3",
            revision: "abc",
        })
        .unwrap()
    }

    #[test]
    fn the_page_holds_exactly_the_catalogue() {
        let exporter = exporter();
        touch_everything(&exporter.metrics(Stopwatch::stopped()));
        exporter.upkeep();
        let page = exporter.render();
        let exported: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        // A system without a limit on virtual memory exports no such metric.
        let declared: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        let missing: Vec<&&str> = declared
            .difference(&exported)
            .filter(|name| !name.starts_with("process_"))
            .collect();
        assert!(missing.is_empty(), "declared but never exported: {missing:?}");
        let unknown: Vec<&&str> = exported.difference(&declared).collect();
        assert!(unknown.is_empty(), "exported but not declared: {unknown:?}");
        for line in [
            r#"vigie_build_info{version="1.2.3",revision="abc"} 1"#,
            r#"vigie_events_outcomes_total{workspace="acme",outcome="dead_letter"} 1"#,
            r#"vigie_http_request_duration_seconds_bucket{endpoint="/v1/batch",status="5xx",le="1"} 1"#,
            r#"vigie_http_connections 1"#,
            r#"vigie_pipeline_lag_records{partition="7"} 2"#,
            r#"vigie_pipeline_batch_records_bucket{le="50"} 0"#,
            r#"vigie_pipeline_batch_records_bucket{le="100"} 1"#,
            r#"vigie_flags_total{policy="win-back",decision="held_out"} 1"#,
            // Once for each reason, and once without one.
            &format!(
                r#"vigie_flags_total{{policy="win-back",decision="refused"}} {}"#,
                RefusalReason::ALL.len() + 1
            ),
            r#"vigie_relance_refusals_total{policy="win-back",reason="no_consent"} 1"#,
        ] {
            assert!(page.lines().any(|l| l == line), "no line {line} in\n{page}");
        }
    }

    #[test]
    fn counters_without_a_dynamic_label_are_exported_before_they_count() {
        let exporter = exporter();
        let _metrics = exporter.metrics(Stopwatch::stopped());
        let page = exporter.render();
        for name in [
            "vigie_store_commit_errors_total",
            "vigie_log_append_errors_total{reason=\"poisoned\"}",
            "vigie_timers_fired_total",
        ] {
            assert!(
                page.contains(&format!("\n{name} 0\n")),
                "{name} is missing: alerts on its increase would be blind"
            );
        }
    }

    #[test]
    fn a_model_that_was_replaced_is_not_in_force_any_more() {
        let exporter = exporter();
        let metrics = exporter.metrics(Stopwatch::stopped());
        for (model, since) in [("a", 10), ("a", 10), ("b", 20)] {
            metrics.model.in_force(model, "p", Duration::from_secs(since));
        }
        let page = exporter.render();
        for line in [
            r#"vigie_model_info{model="a",policies="p"} 0"#,
            r#"vigie_model_info{model="b",policies="p"} 1"#,
            "vigie_model_activated_seconds 20",
        ] {
            assert!(page.lines().any(|l| l == line), "no line {line} in\n{page}");
        }
    }

    #[test]
    fn two_registrations_share_their_series() {
        let exporter = exporter();
        exporter.metrics(Stopwatch::stopped()).pipeline.scores_written(2);
        exporter.metrics(Stopwatch::stopped()).pipeline.scores_written(3);
        assert!(exporter.render().contains("\nvigie_scores_written_total 5\n"));
    }

    #[test]
    fn a_thousand_workspaces_and_then_other() {
        let exporter = exporter();
        let metrics = exporter.metrics(Stopwatch::stopped());
        for i in 0..1500 {
            metrics.events.accepted(&format!("w{i}"), 1);
        }
        let page = exporter.render();
        assert!(page.contains("vigie_events_accepted_total{workspace=\"other\"} 500\n"));
        assert!(page.contains("vigie_events_accepted_total{workspace=\"w999\"} 1\n"));
    }

    #[test]
    fn hostile_label_values_stay_inside_their_quotes() {
        let exporter = exporter();
        exporter
            .metrics(Stopwatch::stopped())
            .events
            .accepted("a\"} 1\nvigie_ready 0", 1);
        let page = exporter.render();
        assert!(!page.lines().any(|line| line.starts_with("vigie_ready 0\"")), "{page}");
        assert!(page.contains(r#"workspace="a\"} 1\nvigie_ready 0""#), "{page}");
    }

    #[test]
    fn closed_labels_are_those_of_the_catalogue() {
        let check = |metric: &Metric, label: &str, values: Vec<&str>| match metric.label(label).map(|l| l.values) {
            Some(Values::Closed(declared)) => assert_eq!(declared, values, "{} {label}", metric.name),
            other => panic!("{} {label}: {other:?}", metric.name),
        };
        check(
            &catalogue::EVENT_OUTCOMES,
            "outcome",
            Outcome::ALL.iter().map(|v| v.as_str()).collect(),
        );
        check(
            &catalogue::CUSTOMERS_TOUCHED,
            "cause",
            Cause::ALL.iter().map(|v| v.as_str()).collect(),
        );
        check(
            &catalogue::AUDIT_RUNS,
            "verdict",
            AuditVerdict::ALL.iter().map(|v| v.as_str()).collect(),
        );
        check(
            &catalogue::FLAGS,
            "decision",
            Decision::ALL.iter().map(|v| v.as_str()).collect(),
        );
        check(
            &catalogue::DELIVERIES,
            "outcome",
            Delivered::ALL.iter().map(|v| v.as_str()).collect(),
        );
        check(
            &catalogue::RELANCE_REFUSALS,
            "reason",
            RefusalReason::ALL.iter().map(|v| v.as_str()).collect(),
        );
        check(
            &catalogue::FLAG_ENDS,
            "end",
            FlagEnd::ALL.iter().map(|v| v.as_str()).collect(),
        );
        check(
            &catalogue::HTTP_REQUEST_DURATION,
            "status",
            StatusClass::ALL.iter().map(|v| v.as_str()).collect(),
        );
    }

    #[test]
    fn disabled_handles_count_nothing() {
        touch_everything(&Metrics::disabled());
    }
}
