//! One process with some or all of the roles: log, store, worker, archivist, collector and API, wired together.
//!
//! It decides the order of starting and stopping and nothing else. Starting: the log and the store are opened and
//! verified, model and policies are put in force, the books are balanced, then the listener opens. Stopping: not ready,
//! then no new connections, then the worker folds what is left, then everything is on the disk.
//!
//! Alone on its log and store (`vigie up`), a process has all partitions. Beside others (`vigie run`), its worker has those
//! that the group assigns, and what it must know of the others it reads from the store.
//!
//! Length: one start, in its order; its parts share everything that was opened before them.

use crate::activation::{self, Activation};
use crate::auditor::{self, Auditor};
use crate::backends::{self, AnyLog, AnyStore};
use crate::books;
use crate::bounds;
use crate::canary::Canary;
use crate::clocks::{self, Clock};
use crate::config::Config;
use crate::crew::Crew;
use crate::deliveries::{self, Deliveries};
use crate::doors;
use crate::gauges::Gauges;
use crate::inspect;
use crate::keyfile::{self, Generated};
use crate::lockout::Lockout;
use crate::models::{self, Models};
use crate::past::{self, Kept, Service};
use crate::privacy::{self, Privacy};
use crate::report;
use crate::reserve;
use crate::roles::{Role, Roles};
use crate::sources;
use crate::survey::Surveyor;
use crate::waiting::{Waiting, bind};
use crate::watch::Watcher;
use anyhow::{Context, Result, anyhow};
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use vigie_archive::{Archive, Mode};
use vigie_event::Workspace;
use vigie_ingestion::dead_letters::{DeadLetters, Letter, Step};
use vigie_ingestion::http::{ClockHandle, Collector, RequestId, Transport, serve};
use vigie_ingestion::intake::Intake;
use vigie_ingestion::keys::{KeyKind, KeyRing, Keys};
use vigie_ingestion::log::{EmbeddedLog, GroupCommit, Health, Log, LogObserver, Options};
use vigie_pipeline::{
    Active, Archivist, DeadLetter, DeadLetterSink, Live, StatusHandle, Worker, committed, inaugurate, look,
};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_serve::{Access, ApiState, Books, BooksOf, Build, Readiness, Surveyed};
use vigie_telemetry::{BuildInfo, Exporter, Metrics};

/// Time between two looks at whether the log and the worker are well.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// Time between two looks at how far the workers of all processes are.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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
    store: Option<Arc<AnyStore>>,
    ready: Arc<AtomicBool>,
    stop_http: watch::Sender<bool>,
    stop_worker: watch::Sender<bool>,
    stop_archivist: watch::Sender<bool>,
    http: tokio::task::JoinHandle<Result<()>>,
    sources: Vec<tokio::task::JoinHandle<()>>,
    worker: Option<JoinHandle<Result<()>>>,
    archivist: Option<JoinHandle<Result<()>>>,
    deliveries: Option<deliveries::Stopping>,
    drain_delay: Duration,
}

/// Keeps what the worker sets aside in the collector's journal.
pub(crate) struct Journal(DeadLetters<AnyLog>);

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
        // Appends and their failures are counted by who waits for them.
        self.0.log.fsync(Duration::from_nanos(commit.sync_ns));
    }
}

/// Starts these roles by the given wall clock; returns once requests are answered.
pub(crate) async fn start(config: &Config, clock: Clock, roles: &Roles) -> Result<Running> {
    let dir = &config.data.dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("data directory {}", dir.display()))?;
    let texts = texts(config)?;
    let active = Active::parse(&texts.0, &texts.1)?;
    let wanted: activation::Texts = Arc::new(ArcSwap::from_pointee(texts.clone()));

    let revision = option_env!("VIGIE_REVISION").unwrap_or("unknown");
    let exporter = Exporter::new(BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        revision,
    })?;
    let metrics = exporter.metrics(clocks::stopwatch());

    let transport = Transport {
        limits: bounds::transport_limits(config),
        hosts: Vec::new(),
        metrics: metrics.clone(),
        clock: Arc::clone(&clock),
    };
    // What lies elsewhere is waited for.
    let besides = match config.server.admin_listen {
        None => metrics_routes(&exporter),
        Some(_) => Router::new(),
    };
    let mut waiting = Waiting::new(config.server.listen, transport.clone(), build(), besides);
    let log = waiting
        .until("the log", || backends::main_log(config, &metrics))
        .await?;
    let log = Arc::new(log);
    let letters = waiting
        .until("the journal of dead letters", || open_letters(config, &metrics))
        .await?;
    // A used log has a store: whoever finds the log empty makes it, before the first record.
    let used = || log.ends().iter().any(|end| end.0 > 0);
    let store = match roles.need_store() || !used() {
        true => Some(Arc::new(
            waiting
                .until("the store", || backends::main_store(config, used()))
                .await?,
        )),
        false => None,
    };
    let _first = waiting
        .until("the log", || async {
            Ok(inaugurate(&*log, &texts.0, &texts.1, clock()).await?)
        })
        .await?;
    let store = store.filter(|_| roles.need_store());
    let intake = Intake::new(Arc::clone(&log), letters.clone(), metrics.clone());
    let (stop_http, stopping) = watch::channel(false);
    let (stop_worker, worker_stopping) = watch::channel(false);
    let (stop_archivist, archivist_stopping) = watch::channel(false);

    // The worker: who is alone knows from it how far everything is, others ask the store.
    let mut working = StatusHandle::default();
    let mut worker = None;
    if let Some(store) = store.as_ref().filter(|_| roles.has(Role::Worker)) {
        let journal = Arc::new(Journal(letters.clone()));
        let options = bounds::live_options(config);
        let work: Work = if roles.shared {
            let crew = Crew {
                log: Arc::clone(&log),
                store: Arc::clone(store),
                letters: journal,
                metrics: metrics.clone(),
                status: working.clone(),
                active: Arc::clone(&wanted),
                clock: Arc::clone(&clock),
                options,
                connection: backends::connection(config),
                member: backends::member(config),
            };
            Box::new(move |stop| Box::pin(crew.run(stop)))
        } else {
            let (worker, backlog) = waiting
                .until("the log and the store", || async {
                    let (log, store, journal) = (Arc::clone(&log), Arc::clone(store), Arc::clone(&journal));
                    let mut worker = Worker::open(log, store, journal, metrics.clone())
                        .await?
                        .keeping_judgements();
                    let backlog = worker.survey().await?;
                    if worker.activate(&texts.0, &texts.1, clock()).await? {
                        tracing::info!(
                            model = active.model.version,
                            policies = active.policies.version,
                            "put in force"
                        );
                    }
                    Ok((worker, backlog))
                })
                .await?;
            working = worker.status();
            books::balance(&intake, &letters, &working.get(), &backlog);
            let (live, clock) = (Live::new(worker, options), Arc::clone(&clock));
            Box::new(move |stop| Box::pin(async move { live.run(clock, stop).await.map_err(Into::into) }))
        };
        worker = Some((work, working.clone()));
    }
    let status = match (&store, roles.shared) {
        (Some(store), true) => {
            let begun = waiting
                .until("the store", || async { Ok(committed(&**store).await?) })
                .await?;
            overview(Arc::clone(store), begun, until(stopping.clone()))
        }
        _ => working.clone(),
    };

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
    let is_ready: Arc<dyn Fn() -> Readiness + Send + Sync> = {
        let (log, intake, working, ready) = (Arc::clone(&log), intake.clone(), working.clone(), Arc::clone(&ready));
        // Events are safe in the log while a worker waits: that is no reason to send them elsewhere.
        let waits = !roles.has(Role::Collector);
        Arc::new(move || readiness(&log, &intake, &working, &ready, waits))
    };

    let (mut router, mut open) = (Router::new(), Router::new());
    if roles.has(Role::Collector) {
        let collector = Collector {
            intake: intake.clone(),
            keys: Arc::clone(&ring),
            limits: Arc::new(bounds::limits(config)),
            transport: transport.limits,
            clock: ClockHandle(Arc::clone(&clock)),
            metrics: metrics.clone(),
            doors: Arc::new(doors::doors(config)?),
        };
        open = vigie_ingestion::http::router(collector);
    }
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot_of(&active)));
    let models = store.as_ref().map(|store| Models {
        log: Arc::clone(&log),
        store: Arc::clone(store),
        active: Arc::clone(&snapshot),
        keys: Arc::clone(&ring),
        clock: Arc::clone(&clock),
        known: Arc::default(),
    });
    if let (Some(store), Some(models)) = (&store, &models) {
        models.begin(&active).await?;
        drop(tokio::spawn(models.clone().follow(until(stopping.clone()))));
        if roles.has(Role::Worker) {
            let watcher = Watcher {
                models: models.clone(),
                store: Arc::clone(store),
                status: working.clone(),
                metrics: metrics.clone(),
                learning: config.scoring.learning,
            };
            drop(tokio::spawn(watcher.run(until(stopping.clone()))));
        }
        if roles.has(Role::Api) {
            router = router.merge(models.clone().routes());
        }
    }
    let surveyed: Arc<ArcSwap<Surveyed>> = Arc::default();
    if let Some(store) = store
        .as_ref()
        .filter(|_| roles.has(Role::Worker) || roles.has(Role::Api))
    {
        let surveyor = Surveyor {
            store: Arc::clone(store),
            active: Arc::clone(&snapshot),
            status: roles.has(Role::Worker).then(|| working.clone()),
            seen: roles.has(Role::Api).then(|| Arc::clone(&surveyed)),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
        };
        drop(tokio::spawn(surveyor.run(until(stopping.clone()))));
    }
    let mut deliveries = None;
    if let Some(store) = store.as_ref().filter(|_| roles.has(Role::Deliverer)) {
        let started = Deliveries::start(&deliveries::Parts {
            config,
            store,
            active: &snapshot,
            intake: &intake,
            keys: &ring,
            workspaces,
            clock: &clock,
            metrics: &metrics,
        })?;
        let (relances, stopping) = started.split();
        router = router.merge(relances);
        deliveries = Some(stopping);
    }
    let activation = Activation {
        config: config.clone(),
        texts: wanted,
        models,
        store: store.clone(),
        keys: Arc::clone(&ring),
        snapshot: Arc::clone(&snapshot),
        clock: Arc::clone(&clock),
        turn: Arc::default(),
    };
    if roles.has(Role::Worker) || roles.has(Role::Api) {
        router = router.merge(activation.routes());
    }
    drop(tokio::spawn(activation.run(until(stopping.clone()))));
    let (mut archivist, mut archive) = (None, None);
    if let Some(store) = store
        .as_ref()
        .filter(|_| roles.has(Role::Archivist) || roles.has(Role::Api))
    {
        let writes = roles.has(Role::Archivist);
        let mode = if writes { Mode::Write } else { Mode::Read };
        let kept = Arc::new(Archive::open(past::place(config)?, mode, config.log.partitions).await?);
        archive = Some(Arc::clone(&kept));
        let mut handle = None;
        if writes {
            let options = bounds::archivist_options(config);
            let shelf = Kept(Arc::clone(&kept));
            let (writer, asked) = Archivist::new(&*log, Arc::clone(store), shelf, status.clone(), options)?;
            archivist = Some(run_archivist(
                writer,
                Arc::clone(&clock),
                metrics.clone(),
                archivist_stopping,
            )?);
            handle = Some(asked);
        }
        let past = Service {
            archive: kept,
            archivist: handle,
            store: Arc::clone(store),
            letters: letters.clone(),
            active: Arc::clone(&snapshot),
            clock: Arc::clone(&clock),
            limits: bounds::query_limits(config),
            turns: Arc::new(Semaphore::new(config.query.concurrent)),
        };
        if writes {
            let auditor = Auditor::new(past.clone(), config, metrics.clone());
            router = router.merge(auditor.routes(Arc::clone(&ring)));
            drop(tokio::spawn(auditor.run(until(stopping.clone()))));
        }
        if roles.has(Role::Api) {
            let books = match roles.shared {
                true => books::shared_books(&log, store, &letters),
                false => books::own_books(&intake, &status),
            };
            let privacy = Privacy {
                past: past.clone(),
                intake: intake.clone(),
                keys: Arc::clone(&ring),
            };
            router = router
                .merge(inspect::routes(past.clone(), Arc::clone(&ring)))
                .merge(privacy.routes())
                .merge(report::routes(past.clone(), Arc::clone(&ring)))
                .merge(vigie_serve::router(api(&past, &ring, books, &surveyed, &is_ready)));
        }
    }
    if !roles.has(Role::Api) {
        router = router.merge(vigie_serve::probes(Arc::clone(&is_ready), build()));
    }
    let admin = metrics_routes(&exporter);
    let (listener, bound) = waiting.over().await?;
    let url = format!("http://{bound}");
    let mut admin_url = None;
    match config.server.admin_listen {
        None => router = router.merge(admin),
        Some(address) => {
            let admin_listener = bind(address).await?;
            admin_url = Some(format!("http://{}", admin_listener.local_addr()?));
            let (transport, stopping) = (transport.clone(), stopping.clone());
            drop(tokio::spawn(async move {
                serve(admin_listener, admin, transport, until(stopping)).await
            }));
        }
    }

    let worker = match worker {
        Some((work, status)) => Some(run_worker(work, status, worker_stopping)?),
        None => None,
    };
    let mut sources = Vec::new();
    if roles.has(Role::Collector) {
        for source in sources::of(config, &intake, &clock, &metrics) {
            sources.push(tokio::spawn(source.run(until(stopping.clone()))));
        }
    }
    if let Some(store) = store.as_ref().filter(|_| roles.has(Role::Collector)) {
        let canary = Canary {
            every: config.canary.every,
            intake: intake.clone(),
            status: status.clone(),
            store: Arc::clone(store),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
        };
        drop(tokio::spawn(canary.run(until(stopping.clone()))));
    }
    let lockout = Lockout::new(config.server.wrong_keys, metrics.clone());
    let router = open.merge(lockout.around(router));
    let router = router.layer(axum::middleware::from_fn(carry_request_id));
    let router = router.layer(axum::middleware::from_fn_with_state(Arc::clone(&ready), announce_close));
    let http = tokio::spawn(async move {
        serve(listener, router, transport, until(stopping))
            .await
            .map_err(Into::into)
    });
    ready.store(true, Ordering::Release);
    let mut gauges = Gauges::new(
        config,
        metrics.clone(),
        Arc::clone(&log),
        intake.clone(),
        if roles.has(Role::Worker) {
            working.clone()
        } else {
            status
        },
        Arc::clone(&clock),
    );
    gauges.archive = archive;
    // What others take in is not in this process's counters.
    gauges.alone = !roles.shared;
    let state = (Arc::clone(&log), Arc::clone(&ready), working.clone());
    watch_over(exporter, metrics, state, gauges);
    drop(tokio::spawn(reserve::mind(log)));
    Ok(Running {
        url,
        admin_url,
        keys,
        intake,
        status: working,
        store,
        ready,
        stop_http,
        stop_worker,
        stop_archivist,
        http,
        sources,
        worker,
        archivist,
        deliveries,
        drain_delay: config.server.drain_delay,
    })
}

/// How far the workers of all processes are, asked of the store again and again until `stop`.
fn overview(
    store: Arc<AnyStore>,
    status: StatusHandle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> StatusHandle {
    let shown = status.clone();
    drop(tokio::spawn(async move {
        let looking = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if let Err(error) = look(&*store, &shown).await {
                    tracing::warn!(reason = %error, "the store does not tell how far it is");
                }
            }
        };
        tokio::select! {
            () = looking => {}
            () = stop => {}
        }
    }));
    status
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

    /// Customers and flags, where a role needs them.
    pub(crate) fn store(&self) -> Result<&AnyStore> {
        self.store.as_deref().context("this process has no store")
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
        books::books(&self.intake, &self.status, workspace)
    }

    /// Stops in order; returns when everything that was accepted is folded and on the disk.
    pub(crate) async fn stop(self) -> Result<()> {
        self.ready.store(false, Ordering::Release);
        tokio::time::sleep(self.drain_delay).await;
        let _ = self.stop_http.send(true);
        self.http.await.context("the server's task ended abruptly")??;
        for source in self.sources {
            source.await.context("a source's task ended abruptly")?;
        }
        if let Some(deliveries) = self.deliveries {
            deliveries.stop().await?;
        }
        let _ = self.stop_worker.send(true);
        if let Some(worker) = self.worker {
            join(worker, "the worker").await?;
        }
        // Last: what the worker has folded to the end belongs in the archive.
        let _ = self.stop_archivist.send(true);
        match self.archivist {
            Some(archivist) => join(archivist, "the archivist").await,
            None => Ok(()),
        }
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

pub(crate) fn snapshot_of(active: &Active) -> vigie_serve::Active {
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
    books: BooksOf,
    surveyed: &Arc<ArcSwap<Surveyed>>,
    readiness: &Arc<dyn Fn() -> Readiness + Send + Sync>,
) -> ApiState<AnyStore> {
    let ring = Arc::clone(ring);
    ApiState {
        store: Arc::clone(&past.store),
        active: Arc::clone(&past.active),
        clock: Arc::clone(&past.clock),
        surveyed: Arc::clone(surveyed),
        past: Some(Arc::new(past.clone())),
        authorize: Arc::new(move |key| match ring.current().find(key) {
            Some(credential) if credential.kind == KeyKind::Read => Access::Read(credential.workspace.clone()),
            Some(_) => Access::WrongKind,
            None => Access::Unknown,
        }),
        readiness: Arc::clone(readiness),
        books,
        build: build(),
        also_documented: &[
            vigie_ingestion::http::OPENAPI,
            auditor::OPENAPI,
            inspect::OPENAPI,
            models::OPENAPI,
            privacy::OPENAPI,
            deliveries::OPENAPI,
            activation::OPENAPI,
            report::OPENAPI,
        ],
        requests: AtomicU64::new(0),
    }
}

fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: option_env!("VIGIE_REVISION").map(str::to_owned),
    }
}

/// HEALTH-1: not ready whenever a 2xx could not be honoured.
fn readiness(
    log: &AnyLog,
    intake: &Intake<AnyLog>,
    status: &StatusHandle,
    ready: &AtomicBool,
    waits: bool,
) -> Readiness {
    let mut reasons = Vec::new();
    if !ready.load(Ordering::Acquire) {
        reasons.push("starting or stopping".to_owned());
    }
    if let Some(reason) = status.read(|status| status.stopped.clone()) {
        reasons.push(format!("the worker stopped: {reason}"));
    }
    if let Some(reason) = status.read(|status| status.waiting.clone()).filter(|_| waits) {
        reasons.push(format!("the worker waits: {reason}"));
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
    // All of it: a connection to the store that is lost is made anew here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
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

/// What a worker's thread does until it is told to stop. Made on the thread: it stays there.
type Work = Box<dyn FnOnce(watch::Receiver<bool>) -> Pin<Box<dyn Future<Output = Result<()>>>> + Send>;

/// The worker has a thread and a runtime of its own: folding is computing, and must not stand in the way of requests. A second
/// thread brings the commit of one step under way while the first folds the next.
fn run_worker(work: Work, status: StatusHandle, stopping: watch::Receiver<bool>) -> Result<JoinHandle<Result<()>>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("vigie-commits")
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new().name("vigie-worker".to_owned());
    Ok(thread.spawn(move || {
        let outcome = runtime.block_on(work(stopping));
        if let Err(error) = &outcome
            && status.read(|status| status.stopped.is_none())
        {
            status.stop(format!("{error:#}"));
        }
        outcome
    })?)
}

/// Keeps the metrics in order and publishes readiness and whatever else moves by itself.
fn watch_over(
    exporter: Exporter,
    metrics: Metrics,
    (log, ready, status): (Arc<AnyLog>, Arc<AtomicBool>, StatusHandle),
    mut gauges: Gauges,
) {
    drop(tokio::spawn(async move {
        let mut last_upkeep = Duration::ZERO;
        loop {
            let stopped = status.read(|status| status.stopped.is_some());
            metrics.ready(ready.load(Ordering::Acquire) && !stopped && log.health() == Health::Ok);
            gauges.publish();
            let now = metrics.stopwatch.now();
            if now.saturating_sub(last_upkeep) >= UPKEEP_EVERY {
                last_upkeep = now;
                exporter.upkeep();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }));
}
