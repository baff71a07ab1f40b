//! One process with all roles on the embedded default: log, store, worker, collector and API, wired together.
//!
//! It decides the order of starting and stopping and nothing else. Starting: the log and the store are opened and
//! verified, model and policies are put in force, the books are balanced, then the listener opens. Stopping: not ready,
//! then no new connections, then the worker folds what is left, then everything is on the disk.

use crate::auditor::{self, Auditor};
use crate::backends::{self, AnyLog, AnyStore};
use crate::clocks::{self, Clock};
use crate::config::{Config, StoreBackend};
use crate::deliveries::{self, Deliveries};
use crate::keyfile::{self, Generated};
use crate::past::{self, Kept, Service};
use anyhow::{Context, Result, anyhow};
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use vigie_archive::{Archive, Mode};
use vigie_event::{Partition, Workspace};
use vigie_ingestion::dead_letters::{DeadLetters, Letter, Step};
use vigie_ingestion::http::{ClockHandle, Collector, Doors, RequestId, Transport, serve};
use vigie_ingestion::intake::{Counts, Intake};
use vigie_ingestion::keys::{KeyKind, KeyRing, Keys};
use vigie_ingestion::limits::{JsonLimits, Limits, SegmentLimits, TransportLimits};
use vigie_ingestion::log::{EmbeddedLog, GroupCommit, Health, Log, LogObserver, Options};
use vigie_ingestion::rates::{Rate, RateLimits, Rates};
use vigie_pipeline::{
    Active, Archivist, ArchivistOptions, DeadLetter, DeadLetterSink, Live, LiveOptions, Status, StatusHandle, Worker,
};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_serve::{Access, ApiState, Books, Build, Readiness};
use vigie_telemetry::{BuildInfo, Exporter, Metrics};

/// Time between two looks at whether the log and the worker are well.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// Time between two looks at whether the reserve can be taken again.
const RESERVE_EVERY: Duration = Duration::from_secs(10);
/// Time between two upkeeps of the metrics.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// A started server.
pub(crate) struct Running {
    /// Where the collector and the API listen.
    pub(crate) url: String,
    /// Where `/metrics` is, when it has a listener of its own.
    pub(crate) admin_url: Option<String>,
    /// The keys that vigie made, when none is configured, and their file.
    pub(crate) keys: Option<(Generated, PathBuf)>,
    /// The door to the log.
    pub(crate) intake: Intake<AnyLog>,
    /// The worker's progress.
    pub(crate) status: StatusHandle,
    /// Customers and flags.
    pub(crate) store: Arc<AnyStore>,
    ready: Arc<AtomicBool>,
    stop_http: watch::Sender<bool>,
    stop_worker: watch::Sender<bool>,
    stop_archivist: watch::Sender<bool>,
    http: tokio::task::JoinHandle<Result<()>>,
    worker: JoinHandle<Result<()>>,
    archivist: JoinHandle<Result<()>>,
    deliveries: deliveries::Stopping,
    drain_delay: Duration,
}

/// Keeps what the worker sets aside in the collector's journal.
struct Journal(DeadLetters<AnyLog>);

impl DeadLetterSink for Journal {
    async fn keep(&self, letters: Vec<DeadLetter>) -> Result<(), String> {
        let letters = letters
            .iter()
            .map(|letter| Letter::of_event(&letter.event, letter.code, Step::Fold, letter.position.offset.0))
            .collect();
        self.0.add(letters).await.map(drop).map_err(|error| error.to_string())
    }
}

/// Tells the metrics what the log's writer did.
struct Observe(Metrics);

impl LogObserver for Observe {
    fn committed(&self, commit: &GroupCommit) {
        self.0.log.fsync(Duration::from_nanos(commit.sync_ns));
        self.0
            .log
            .appended(Duration::from_nanos(commit.write_ns.saturating_add(commit.sync_ns)));
    }

    fn refused(&self, _tag: &'static str, _appends: usize) {
        self.0.log.append_failed();
    }
}

/// Starts everything by the given wall clock; returns once requests are answered.
pub(crate) async fn start(config: &Config, clock: Clock) -> Result<Running> {
    let dir = &config.data.dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("data directory {}", dir.display()))?;
    let (model, policies) = texts(config)?;
    let active = Active::parse(&model, &policies)?;

    let revision = option_env!("VIGIE_REVISION").unwrap_or("unknown");
    let exporter = Exporter::new(BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        revision,
    })?;
    let stopwatch = clocks::stopwatch();
    let metrics = exporter.metrics(stopwatch.clone());

    let log = Arc::new(backends::main_log(config, &metrics).await?);
    let letters = open_letters(config, &metrics).await?;
    let used = log.ends().iter().any(|end| end.0 > 0);
    let store = Arc::new(backends::main_store(config, used).await?);
    let place = past::place(config)?;
    let archive = Arc::new(Archive::open(place, Mode::Write, config.log.partitions).await?);

    let mut worker = Worker::open(
        Arc::clone(&log),
        Arc::clone(&store),
        Arc::new(Journal(letters.clone())),
        metrics.clone(),
    )
    .await?
    .keeping_judgements();
    let backlog = worker.survey().await?;
    if worker.activate(&model, &policies, clock()).await? {
        tracing::info!(
            model = active.model.version,
            policies = active.policies.version,
            "put in force"
        );
    }
    let status = worker.status();
    let intake = Intake::new(Arc::clone(&log), letters.clone(), metrics.clone());
    balance(&intake, &letters, &status.get(), &backlog);

    let (keys, specs) = if config.keys.is_empty() {
        let generated = keyfile::generated(dir)?;
        let specs = generated.0.specs()?;
        (Some(generated), specs)
    } else {
        (None, config.keys.iter().map(keyfile::configured).collect())
    };
    let workspaces = specs.iter().map(|spec| spec.workspace.clone()).collect();
    let ring = Arc::new(Keys::new(KeyRing::new(specs)?));

    let ready = Arc::new(AtomicBool::new(false));
    let options = ArchivistOptions {
        rows: config.archive.flush_rows,
        bytes: config.archive.flush_bytes.len(),
        after: config.archive.flush_after,
    };
    let kept = Kept(Arc::clone(&archive));
    let (archivist, archivist_handle) = Archivist::new(&*log, Arc::clone(&store), kept, status.clone(), options)?;
    let active = Arc::new(ArcSwap::from_pointee(snapshot_of(&active)));
    let past = Service {
        archive: Arc::clone(&archive),
        archivist: archivist_handle,
        store: Arc::clone(&store),
        letters: letters.clone(),
        active: Arc::clone(&active),
        clock: Arc::clone(&clock),
        limits: query_limits(config),
        turns: Arc::new(Semaphore::new(config.query.concurrent)),
    };
    let api = api(&past, &ring, &intake, &status, &log, &ready);
    let transport = Transport {
        limits: transport_limits(config),
        hosts: Vec::new(),
        metrics: metrics.clone(),
        clock: Arc::clone(&clock),
    };
    let collector = Collector {
        intake: intake.clone(),
        keys: Arc::clone(&ring),
        limits: Arc::new(limits(config)),
        transport: transport.limits,
        clock: ClockHandle(Arc::clone(&clock)),
        metrics: metrics.clone(),
        doors: Arc::new(Doors {
            rates: rates(config),
            ..Doors::default()
        }),
    };
    let auditor = Auditor::new(past, config, metrics.clone());
    let deliveries = Deliveries::start(&deliveries::Parts {
        config,
        store: &store,
        active: &active,
        intake: &intake,
        keys: &ring,
        workspaces,
        clock: &clock,
        metrics: &metrics,
    })?;
    let (relances, deliveries) = deliveries.split();
    let mut router = vigie_ingestion::http::router(collector)
        .merge(auditor.routes(Arc::clone(&ring)))
        .merge(relances)
        .merge(vigie_serve::router(api));
    let admin = metrics_routes(&exporter);
    let listener = TcpListener::bind(config.server.listen)
        .await
        .with_context(|| format!("listening on {}", config.server.listen))?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop_http, stopping) = watch::channel(false);
    let (stop_worker, worker_stopping) = watch::channel(false);
    let mut admin_url = None;
    match config.server.admin_listen {
        None => router = router.merge(admin),
        Some(address) => {
            let (admin_listener, bound) = bind(address).await?;
            admin_url = Some(format!("http://{bound}"));
            let (transport, stopping) = (transport.clone(), stopping.clone());
            drop(tokio::spawn(async move {
                serve(admin_listener, admin, transport, until(stopping)).await
            }));
        }
    }

    let mut options = LiveOptions {
        batch_records: config.pipeline.batch_records,
        batch_bytes: config.pipeline.batch_bytes.len(),
        ..LiveOptions::default()
    };
    if config.store.backend == StoreBackend::Redis {
        // Persisting is also how an idle worker notices that its store is gone.
        options.persist_every = Duration::from_secs(1);
    }
    let worker = run_worker(Live::new(worker, options), Arc::clone(&clock), worker_stopping)?;
    let (stop_archivist, archivist_stopping) = watch::channel(false);
    let archivist = run_archivist(archivist, Arc::clone(&clock), metrics.clone(), archivist_stopping)?;
    drop(tokio::spawn(auditor.run(until(stopping.clone()))));
    let router = router.layer(axum::middleware::from_fn(carry_request_id));
    let router = router.layer(axum::middleware::from_fn_with_state(Arc::clone(&ready), announce_close));
    let http = tokio::spawn(async move {
        serve(listener, router, transport, until(stopping))
            .await
            .map_err(Into::into)
    });
    ready.store(true, Ordering::Release);
    watch_over(exporter, metrics, Arc::clone(&log), Arc::clone(&ready), status.clone());
    drop(tokio::spawn(mind_the_reserve(log)));
    Ok(Running {
        url,
        admin_url,
        keys,
        intake,
        status,
        store,
        ready,
        stop_http,
        stop_worker,
        stop_archivist,
        http,
        worker,
        archivist,
        deliveries,
        drain_delay: config.server.drain_delay,
    })
}

impl Running {
    /// Why the server cannot go on, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        if let Some(reason) = self.status.read(|status| status.stopped.clone()) {
            return Some(format!("the worker stopped: {reason}"));
        }
        match self.intake.health() {
            Health::Poisoned(reason) => Some(format!("the log is poisoned: {reason}")),
            Health::Ok | Health::Degraded(_) => None,
        }
    }

    /// Waits until the server cannot go on, and says why.
    pub(crate) async fn failed(&self) -> String {
        loop {
            if let Some(reason) = self.failure() {
                return reason;
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    /// The books of a workspace.
    pub(crate) fn books(&self, workspace: &Workspace) -> Books {
        books(&self.intake, &self.status, workspace)
    }

    /// Stops in order; returns when everything that was accepted is folded and on the disk.
    pub(crate) async fn stop(self) -> Result<()> {
        self.ready.store(false, Ordering::Release);
        tokio::time::sleep(self.drain_delay).await;
        let _ = self.stop_http.send(true);
        self.http.await.context("the server's task ended abruptly")??;
        self.deliveries.stop().await?;
        let _ = self.stop_worker.send(true);
        join(self.worker, "the worker").await?;
        // Last: what the worker has folded to the end belongs in the archive.
        let _ = self.stop_archivist.send(true);
        join(self.archivist, "the archivist").await
    }
}

async fn join(thread: JoinHandle<Result<()>>, who: &'static str) -> Result<()> {
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .with_context(|| format!("waiting for {who}"))?
        .map_err(|_| anyhow!("the thread of {who} ended abruptly"))?
}

/// The texts of the model and the policies in force.
pub(crate) fn texts(config: &Config) -> Result<(String, String)> {
    let read = |path: &Option<PathBuf>, shipped: &str| match path {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("{}", path.display())),
        None => Ok(shipped.to_owned()),
    };
    Ok((
        read(&config.scoring.model, Model::shipped_text())?,
        read(&config.relance.policies, PolicySet::shipped_text())?,
    ))
}

pub(crate) fn open_log(dir: &Path, config: &Config, metrics: &Metrics, mut options: Options) -> Result<EmbeddedLog> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("{}", dir.display()))?;
    let stopwatch = metrics.stopwatch.clone();
    options.identity = keyfile::identity()?;
    options.segment_bytes = config.log.segment_size.bytes();
    options.queue_bytes = config.log.queue_bytes.bytes();
    options.group_commit_bytes = config.log.group_commit_max.bytes();
    options.monotonic = Arc::new(move || u64::try_from(stopwatch.now().as_nanos()).unwrap_or(u64::MAX));
    options.observer = Arc::new(Observe(metrics.clone()));
    let log = EmbeddedLog::open(dir, options).with_context(|| format!("the log in {}", dir.display()))?;
    if let Some((file, offset, bytes)) = &log.recovery().torn {
        tracing::warn!(file = %file.display(), offset, bytes, "dropped the unfinished end of the log, which was never acknowledged");
    }
    Ok(log)
}

/// The journal of dead letters.
pub(crate) async fn open_letters(config: &Config, metrics: &Metrics) -> Result<DeadLetters<AnyLog>> {
    let log = backends::letters_log(config, metrics).await?;
    Ok(DeadLetters::open(Arc::new(log)).await?)
}

pub(crate) fn store_options(config: &Config) -> vigie_store::Options {
    let mut options = vigie_store::Options::new(config.log.partitions);
    options.cache_bytes = config.store.cache_size.bytes();
    options
}

fn rates(config: &Config) -> Rates {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let rate = |per_second: usize, burst: usize| Rate {
        per_second: number(per_second),
        burst: number(burst),
    };
    let rates = &config.rates;
    Rates::new(RateLimits {
        key: rate(rates.key_per_second, rates.key_burst),
        workspace: rate(rates.workspace_per_second, rates.workspace_burst),
        daily: rates.daily as u64,
    })
}

pub(crate) fn query_limits(config: &Config) -> vigie_archive::sql::Limits {
    vigie_archive::sql::Limits {
        rows: config.query.max_rows,
        time: config.query.max_time,
        memory_bytes: config.query.max_memory.len(),
    }
}

/// Sets where the counters of accepted events start: what has its outcome already, what the log still holds, and what
/// the journal keeps.
fn balance(
    intake: &Intake<AnyLog>,
    letters: &DeadLetters<AnyLog>,
    status: &Status,
    backlog: &std::collections::BTreeMap<Workspace, u64>,
) {
    let kept = letters.accepted();
    let workspaces: std::collections::BTreeSet<&Workspace> =
        status.books.keys().chain(backlog.keys()).chain(kept.keys()).collect();
    for workspace in workspaces {
        let settled = status.books.get(workspace).map_or(0, vigie_pipeline::Books::settled);
        let waiting = backlog.get(workspace).copied().unwrap_or(0);
        let dead_letter = kept.get(workspace).copied().unwrap_or(0);
        intake.set_base(
            workspace,
            Counts {
                accepted: settled + waiting + dead_letter,
                dead_letter,
            },
        );
    }
}

fn books(intake: &Intake<AnyLog>, status: &StatusHandle, workspace: &Workspace) -> Books {
    // Outcomes first: an event is counted as accepted before it can have an outcome.
    let outcomes = status.read(|status| status.books.get(workspace).copied().unwrap_or_default());
    let counts = intake.counts(workspace);
    Books {
        accepted: counts.accepted,
        applied: outcomes.applied,
        duplicate: outcomes.duplicate,
        dead_letter: outcomes.dead_letter + counts.dead_letter,
        suppressed: outcomes.suppressed,
        in_flight: counts.accepted.saturating_sub(outcomes.settled() + counts.dead_letter),
    }
}

fn snapshot_of(active: &Active) -> vigie_serve::Active {
    vigie_serve::Active {
        model: active.model.clone(),
        policies: active.policies.clone(),
        config_version: format!(
            "{:016x}",
            active.model.fingerprint ^ active.policies.fingerprint.rotate_left(1)
        ),
    }
}

fn api(
    past: &Service<AnyStore>,
    ring: &Arc<Keys>,
    intake: &Intake<AnyLog>,
    status: &StatusHandle,
    log: &Arc<AnyLog>,
    ready: &Arc<AtomicBool>,
) -> ApiState<AnyStore> {
    let (ring, intake, status, log, ready) = (
        Arc::clone(ring),
        intake.clone(),
        status.clone(),
        Arc::clone(log),
        Arc::clone(ready),
    );
    let for_books = (intake.clone(), status.clone());
    ApiState {
        store: Arc::clone(&past.store),
        active: Arc::clone(&past.active),
        clock: Arc::clone(&past.clock),
        past: Some(Arc::new(past.clone())),
        authorize: Arc::new(move |key| match ring.current().find(key) {
            Some(credential) if credential.kind == KeyKind::Read => Access::Read(credential.workspace.clone()),
            Some(_) => Access::WrongKind,
            None => Access::Unknown,
        }),
        readiness: Arc::new(move || readiness(&log, &intake, &status, &ready)),
        books: Arc::new(move |workspace| {
            let books = books(&for_books.0, &for_books.1, workspace);
            Box::pin(std::future::ready(Ok(books)))
        }),
        build: Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("VIGIE_REVISION").map(str::to_owned),
        },
        also_documented: &[vigie_ingestion::http::OPENAPI, auditor::OPENAPI, deliveries::OPENAPI],
        requests: AtomicU64::new(0),
    }
}

/// HEALTH-1: not ready whenever a 2xx could not be honoured.
fn readiness(log: &AnyLog, intake: &Intake<AnyLog>, status: &StatusHandle, ready: &AtomicBool) -> Readiness {
    let mut reasons = Vec::new();
    if !ready.load(Ordering::Acquire) {
        reasons.push("starting or stopping".to_owned());
    }
    if let Some(reason) = status.read(|status| status.stopped.clone()) {
        reasons.push(format!("the worker stopped: {reason}"));
    }
    match (log.health(), intake.health()) {
        (Health::Ok, Health::Ok) => {}
        (Health::Ok, Health::Degraded(reason) | Health::Poisoned(reason)) => {
            reasons.push(format!("dead letters: {reason}"))
        }
        (Health::Degraded(reason) | Health::Poisoned(reason), _) => reasons.push(format!("log: {reason}")),
    }
    Readiness { reasons }
}

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        json: JsonLimits {
            depth: limits.json_depth,
            keys: limits.json_keys,
            key_bytes: limits.key_length,
            string_bytes: limits.string_length.len(),
        },
        event_bytes: limits.event.len(),
        batch_events: limits.batch_events,
        wire_bytes: limits.body.len(),
        inflated_bytes: limits.inflated.len(),
        inflate_ratio: limits.inflate_ratio,
        max_age: limits.event_age,
        segment: SegmentLimits {
            body_bytes: limits.segment_body.len(),
            batch_events: limits.segment_batch_events,
        },
        ..Limits::default()
    }
}

fn transport_limits(config: &Config) -> TransportLimits {
    let (server, limits) = (&config.server, &config.limits);
    TransportLimits {
        connections: server.max_connections,
        request_line_bytes: limits.request_line.len(),
        header_bytes: limits.headers.len(),
        header_fields: limits.header_fields,
        header_timeout: server.header_timeout,
        body_timeout: server.body_timeout,
        idle_timeout: server.idle_timeout,
        write_timeout: server.write_timeout,
        drain_timeout: server.drain_timeout,
        ..TransportLimits::default()
    }
}

fn metrics_routes(exporter: &Exporter) -> Router {
    let exporter = exporter.clone();
    let render = move || {
        let text = exporter.render();
        async move {
            (
                [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
                text,
            )
        }
    };
    Router::new().route("/metrics", get(render))
}

/// One request, one id: the API puts the id of the transport into its problem documents. What a client sends under that
/// name is input like any other and never gets this far.
async fn carry_request_id(mut request: Request, next: Next) -> Response {
    let id = request
        .extensions()
        .get::<RequestId>()
        .and_then(|id| HeaderValue::from_str(&id.0).ok());
    let name = HeaderName::from_static("x-request-id");
    let _theirs = match id {
        Some(id) => request.headers_mut().insert(name, id),
        None => request.headers_mut().remove(name),
    };
    next.run(request).await
}

/// While the server is not ready but still answers, each answer says that its connection ends with it: so clients have gone
/// elsewhere by the time at which the listener closes, and none of them is cut off in the middle of a request.
async fn announce_close(State(ready): State<Arc<AtomicBool>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if !ready.load(Ordering::Acquire) {
        let _none = response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

async fn until(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone means the same as a sender that says stop.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The archivist has a thread of its own too: compressing must not stand in the way of anybody. When it cannot go on, the
/// log keeps what it is owed, and everything else goes on.
fn run_archivist(
    archivist: Archivist<AnyLog, AnyStore, Kept>,
    clock: Clock,
    metrics: Metrics,
    stopping: watch::Receiver<bool>,
) -> Result<JoinHandle<Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = std::thread::Builder::new().name("vigie-archivist".to_owned());
    Ok(thread.spawn(move || {
        let noted = |outcome: Result<usize, &str>| match outcome {
            Ok(rows) => metrics.archive.wrote(rows as u64),
            Err(reason) => {
                metrics.archive.failed();
                tracing::error!(reason, "the archive cannot be written; the log keeps what it is owed");
            }
        };
        let outcome = runtime.block_on(archivist.run(clock, stopping, noted));
        if let Err(error) = &outcome {
            tracing::error!(%error, "the archivist stopped");
        }
        outcome.map_err(Into::into)
    })?)
}

/// The worker has a thread and a runtime of its own: folding is computing, and must not stand in the way of requests.
fn run_worker(
    live: Live<AnyLog, AnyStore, Journal>,
    clock: Clock,
    stopping: watch::Receiver<bool>,
) -> Result<JoinHandle<Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = std::thread::Builder::new().name("vigie-worker".to_owned());
    Ok(thread.spawn(move || runtime.block_on(live.run(clock, stopping)).map_err(Into::into))?)
}

/// While the log has no room, its reserve belongs to the store, which can then finish what was accepted; with room again,
/// the log takes it back.
async fn mind_the_reserve(log: Arc<AnyLog>) {
    // A broker minds its own disks.
    let AnyLog::Embedded(embedded) = &*log else { return };
    let mut health = embedded.watch_health();
    loop {
        let full = matches!(*health.borrow_and_update(), Health::Degraded(_));
        let worked = Arc::clone(&log);
        let work = move || match (&*worked, full) {
            (AnyLog::Embedded(log), true) => log.free_reserve(),
            (AnyLog::Embedded(log), false) => log.restore_reserve(),
            (AnyLog::Kafka(_), _) => Ok(()),
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Err(error)) => tracing::warn!(reason = %error, full, "the reserve stays as it is"),
            Ok(Ok(())) => {}
            // The runtime ends.
            Err(_) => return,
        }
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RESERVE_EVERY) => {}
        }
    }
}

/// Keeps the metrics in order and publishes readiness and the ends of the log.
fn watch_over(exporter: Exporter, metrics: Metrics, log: Arc<AnyLog>, ready: Arc<AtomicBool>, status: StatusHandle) {
    drop(tokio::spawn(async move {
        let mut last_upkeep = Duration::ZERO;
        loop {
            let stopped = status.read(|status| status.stopped.is_some());
            metrics.ready(ready.load(Ordering::Acquire) && !stopped && log.health() == Health::Ok);
            for (partition, end) in (0..).map(Partition).zip(log.ends()) {
                metrics.log.end_offset(partition.0, end.0);
            }
            let now = metrics.stopwatch.now();
            if now.saturating_sub(last_upkeep) >= UPKEEP_EVERY {
                last_upkeep = now;
                exporter.upkeep();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }));
}
