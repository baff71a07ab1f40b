//! Deliveries of a running server: the destinations of its configuration as lanes on a thread of their own, the pull queue, and
//! the commands that look at them. What may be sent, when and how is decided in the delivery crate; this file tells it what
//! the store knows about a customer, reads secrets, and starts and stops it.

use crate::backends::{self, AnyLog, AnyStore};
use crate::cli::{Failure, Format, print};
use crate::client::{self, Server};
use crate::clocks::Clock;
use crate::config::Config;
use crate::outputs::{self, Way};
use anyhow::{Context, Result, anyhow, bail};
use arc_swap::ArcSwap;
use axum::Router;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use vigie_delivery::http::{Access, Desk};
use vigie_delivery::{
    Destinations, FlagView, Gate, GateError, HttpExit, Kind, Lane, LaneHandle, Queue, Reports, Standing, Verdict, judge,
};
use vigie_event::{CustomerKey, Event, PersonId, PolicyId, Purpose, Signal, Timestamp, Workspace};
use vigie_ingestion::intake::{Intake, Outcome};
use vigie_ingestion::keys::{KeyKind, Keys};
use vigie_kafka::outputs::Outputs;
use vigie_relance::{MarketingConsent, PolicySet};
use vigie_scoring::CustomerState;
use vigie_scoring::state::MAX_LINKS;
use vigie_serve::Active;
use vigie_store::Store;
use vigie_telemetry::Metrics;

/// What the routes add to the OpenAPI document.
pub(crate) const OPENAPI: &str = vigie_delivery::http::OPENAPI;

/// Time between two looks at how the lanes are.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most threads that wait for receivers at the same time.
const MAX_THREADS: usize = 512;

type AnyLane = Lane<AnyStore, Records, Way>;

/// The lanes and the queue of a server.
pub(crate) struct Deliveries {
    /// Claims, outcomes, the CSV, and what lanes are told.
    pub(crate) routes: Router,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What deliveries need of a server.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) store: &'a Arc<AnyStore>,
    pub(crate) active: &'a Arc<ArcSwap<Active>>,
    pub(crate) intake: &'a Intake<AnyLog>,
    pub(crate) keys: &'a Arc<Keys>,
    /// Every workspace that has a key.
    pub(crate) workspaces: BTreeSet<Workspace>,
    pub(crate) clock: &'a Clock,
    pub(crate) metrics: &'a Metrics,
}

impl Deliveries {
    /// Opens the journals and starts to deliver.
    pub(crate) fn start(parts: &Parts<'_>) -> Result<Self> {
        let (config, dir) = (parts.config, parts.config.data.dir.join("deliveries"));
        let mut lanes: Vec<AnyLane> = Vec::new();
        let mut threads = 1;
        let (named, topic) = (destinations(config)?.0, outputs::destination(config)?);
        if let Some(topic) = topic
            .as_ref()
            .filter(|topic| named.iter().any(|other| other.name == topic.name))
        {
            bail!(
                "the destination {:?} is kafka.relances-topic; give the other one another name",
                topic.name
            );
        }
        let outputs = match topic {
            Some(_) => Some(Arc::new(Outputs::open(
                &backends::connection(config),
                outputs::options(config),
            )?)),
            None => None,
        };
        for destination in named.into_iter().chain(topic) {
            let destination = Arc::new(destination);
            let all = destination.workspaces.is_empty();
            let workspaces = if all {
                &parts.workspaces
            } else {
                &destination.workspaces
            };
            for workspace in workspaces {
                let exit = match &outputs {
                    Some(outputs) if matches!(destination.kind, Kind::Topic) => Way::Topic(Arc::clone(outputs)),
                    _ => Way::Http(HttpExit::new(Arc::clone(&destination), Arc::clone(parts.clock))?),
                };
                threads += destination.concurrency;
                lanes.push(Lane::open(
                    &dir,
                    workspace.clone(),
                    Arc::clone(&destination),
                    Arc::clone(parts.store),
                    Arc::new(parts.records(destination.max_age)),
                    exit,
                    Arc::clone(parts.clock),
                    parts.metrics.delivery.clone(),
                )?);
            }
        }
        let handles: Vec<_> = lanes.iter().map(Lane::handle).collect();
        let age = config.delivery.queue_age;
        let queue = Queue::new(
            config.data.dir.join("queue"),
            Arc::clone(parts.store),
            Arc::new(parts.records(age)),
            Door(parts.intake.clone()),
            age,
            Arc::clone(parts.clock),
        );
        let ring = Arc::clone(parts.keys);
        let desk = Desk {
            queue,
            lanes: handles.clone(),
            authorize: Arc::new(move |key| match ring.current().find(key) {
                Some(found) if found.kind == KeyKind::Read => Access::Read(found.workspace.clone()),
                Some(found) if found.kind == KeyKind::Admin => Access::Admin(found.workspace.clone()),
                Some(_) => Access::WrongKind,
                None => Access::Unknown,
            }),
            clock: Arc::clone(parts.clock),
        };
        let (stop, stopping) = watch::channel(false);
        let thread = match lanes.is_empty() {
            true => None,
            false => Some(run(lanes, handles, threads, parts, stopping)?),
        };
        Ok(Self {
            routes: vigie_delivery::http::router(Arc::new(desk)),
            stop,
            thread,
        })
    }

    /// The way to let them stop, for whoever has given the routes away.
    pub(crate) fn split(self) -> (Router, Stopping) {
        let stopping = Stopping {
            stop: self.stop,
            thread: self.thread,
        };
        (self.routes, stopping)
    }
}

/// Deliveries that run.
pub(crate) struct Stopping {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Stopping {
    /// Stops; what is being sent now is waited for, at most for as long as its destination's timeout.
    pub(crate) async fn stop(self) -> Result<()> {
        let _ = self.stop.send(true);
        let Some(thread) = self.thread else { return Ok(()) };
        tokio::task::spawn_blocking(move || thread.join())
            .await
            .context("waiting for deliveries")?
            .map_err(|_| anyhow!("the thread of deliveries ended abruptly"))
    }
}

/// Deliveries have a thread and a runtime of their own: waiting for receivers must not stand in the way of anybody.
fn run(
    lanes: Vec<AnyLane>,
    handles: Vec<LaneHandle<AnyStore>>,
    threads: usize,
    parts: &Parts<'_>,
    stopping: watch::Receiver<bool>,
) -> Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .thread_name("vigie-delivery")
        .max_blocking_threads(threads.min(MAX_THREADS))
        .build()?;
    let (clock, metrics) = (Arc::clone(parts.clock), parts.metrics.clone());
    let thread = std::thread::Builder::new().name("vigie-deliveries".to_owned());
    Ok(thread.spawn(move || {
        runtime.block_on(async {
            let lanes: Vec<_> = lanes
                .into_iter()
                .map(|lane| tokio::spawn(lane.run(stopping.clone())))
                .collect();
            let watched = tokio::spawn(watch_over(handles, clock, metrics));
            for lane in lanes {
                if lane.await.is_err() {
                    tracing::error!("a lane of deliveries ended abruptly; restart to go on with it");
                }
            }
            watched.abort();
        });
    })?)
}

/// Publishes how the destinations are, each over all workspaces.
async fn watch_over(handles: Vec<LaneHandle<AnyStore>>, clock: Clock, metrics: Metrics) {
    loop {
        let now = clock();
        let mut states: BTreeMap<&str, (i64, u64, bool)> = BTreeMap::new();
        for handle in &handles {
            let (oldest, parked, well) = handle.vitals();
            let age = oldest.map_or(0, |oldest| now.ms_since(oldest).max(0));
            let state = states.entry(handle.destination()).or_insert((0, 0, true));
            *state = (state.0.max(age), state.1 + parked as u64, state.2 && well);
        }
        for (destination, (age, parked, well)) in states {
            let age = Duration::from_millis(age.unsigned_abs());
            metrics.delivery.state(destination, age, parked, well);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The destinations that a configuration names.
pub(crate) fn destinations(config: &Config) -> Result<Destinations> {
    let Some(path) = &config.delivery.destinations else {
        return Ok(Destinations::default());
    };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Destinations::parse(&text, &secret).with_context(|| path.display().to_string())
}

/// `file:PATH` or `env:NAME`.
fn secret(place: &str) -> Result<String, String> {
    let text = match place.split_once(':') {
        Some(("file", path)) => std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?,
        Some(("env", name)) => std::env::var(name).map_err(|_| "this variable is not set, or no text".to_owned())?,
        _ => return Err("name a secret as file:PATH or env:NAME, never itself".to_owned()),
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(text.to_owned())
}

impl Parts<'_> {
    fn records(&self, max_age: Duration) -> Records {
        Records {
            store: Arc::clone(self.store),
            active: Arc::clone(self.active),
            max_age,
        }
    }
}

/// The gate over the store: what the customer's record says now.
struct Records {
    store: Arc<AnyStore>,
    active: Arc<ArcSwap<Active>>,
    max_age: Duration,
}

impl Gate for Records {
    async fn ask(&self, workspace: &Workspace, flag: &FlagView, now: Timestamp) -> Result<Verdict, GateError> {
        let record = self.record(workspace, flag).await?;
        let active = self.active.load();
        let standing = record.map(|record| standing(&record, flag, &active.policies));
        Ok(judge(flag, standing.as_ref(), self.max_age, now))
    }
}

impl Records {
    /// The record of the flag's customer, behind the links that lead away from the id.
    async fn record(&self, workspace: &Workspace, flag: &FlagView) -> Result<Option<CustomerState>, GateError> {
        let person = match flag.customer.strip_prefix("anonymous:") {
            Some(anonymous) => PersonId::anonymous(anonymous),
            None => PersonId::known(&flag.customer),
        };
        let Ok(mut person) = person else { return Ok(None) };
        for _ in 0..=MAX_LINKS {
            let key = CustomerKey::new(workspace.clone(), person);
            let found = self.store.load(std::slice::from_ref(&key)).await;
            let found = found.map_err(|error| GateError(error.to_string()))?;
            let Some(bytes) = found.into_iter().next().flatten() else {
                return Ok(None);
            };
            let record = CustomerState::decode(&bytes).map_err(|error| GateError(error.to_string()))?;
            match record.linked_to.clone() {
                None => return Ok(Some(record)),
                Some(elsewhere) => person = elsewhere,
            }
        }
        Ok(None)
    }
}

/// What a record says that concerns a contact.
fn standing(record: &CustomerState, flag: &FlagView, policies: &PolicySet) -> Standing {
    let said = |purpose: Purpose| record.consent.get(&purpose).map(|said| said.state);
    let id = PolicyId::new(&flag.policy).ok();
    let policy = id.as_ref().and_then(|id| policies.policy(id));
    let entry = id.as_ref().and_then(|id| record.ledger.policies.get(id));
    Standing {
        profiling: said(Purpose::Profiling),
        marketing: said(Purpose::Marketing),
        needs_consent: policy.is_none_or(|policy| policy.eligible.marketing_consent == MarketingConsent::Granted),
        last_purchase: record.combined().signal(Signal::Purchase).map(|purchase| purchase.last),
        flag_is_open: entry
            .is_some_and(|entry| !entry.armed && entry.last_flag.is_some_and(|raised| raised.id == flag.id)),
        not_before: None,
    }
}

/// The collector's log, for outcomes.
struct Door(Intake<AnyLog>);

impl Reports for Door {
    async fn append(&self, event: Event) -> Result<(), String> {
        let outcomes = self
            .0
            .accept(vec![Ok(event)])
            .await
            .map_err(|error| error.to_string())?;
        match outcomes.first() {
            Some(Outcome::Logged(_)) => Ok(()),
            _ => Err("the event was not taken".to_owned()),
        }
    }
}

/// Look at destinations, send relances again, go on after a halt
#[derive(Debug, Subcommand)]
pub(crate) enum Commands {
    /// What each destination is doing, its last failure and its parked relances
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Send relances again: by id, by range of numbers, or all that are parked
    Redeliver {
        /// Name of the destination
        destination: String,
        /// Id of a relance; may be repeated
        #[arg(long = "id", value_name = "ID", conflicts_with_all = ["from", "to", "parked"])]
        ids: Vec<String>,
        /// First number
        #[arg(long, conflicts_with = "parked")]
        from: Option<u64>,
        /// Last number; the newest when absent
        #[arg(long, requires = "from")]
        to: Option<u64>,
        /// All that are parked
        #[arg(long)]
        parked: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Go on after a halt (410, or a store that was rebuilt)
    Resume {
        /// Name of the destination
        destination: String,
        /// Go on behind this number; needed after a rebuild
        #[arg(long)]
        after: Option<u64>,
        #[command(flatten)]
        remote: Remote,
    },
}

/// A server and an admin key for it.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// Address of the server
    #[arg(long, env = "VIGIE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Admin key
    #[arg(long, env = "VIGIE_KEY", hide_env_values = true)]
    key: String,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl Commands {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (remote, answer) = match self {
            Self::List { remote } => {
                let answer = Server::new(&remote.url, &remote.key).get("/v1/deliveries")?;
                (remote, answer)
            }
            Self::Redeliver {
                destination,
                ids,
                from,
                to,
                parked,
                remote,
            } => {
                let which = match (ids.as_slice(), from, parked) {
                    ([], Some(from), false) => json!({"from": from, "to": to}),
                    ([], None, true) => json!({"parked": true}),
                    ([_, ..], None, false) => json!({"ids": ids}),
                    _ => return Err(Failure::Usage("give --id, or --from, or --parked\n".to_owned())),
                };
                let answer = remote.tell(&destination, "redeliver", &which)?;
                (remote, answer)
            }
            Self::Resume {
                destination,
                after,
                remote,
            } => {
                let answer = remote.tell(&destination, "resume", &json!({"after": after}))?;
                (remote, answer)
            }
        };
        print(&match remote.output {
            Format::Json => format!("{answer:#}\n"),
            Format::Text => client::table(&answer),
        })
    }
}

impl Remote {
    fn tell(&self, destination: &str, what: &str, body: &Value) -> Result<Value> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !destination.bytes().all(plain) {
            bail!("{destination:?} is not the name of a destination");
        }
        let server = Server::new(&self.url, &self.key);
        let answer = server.ask(&format!("/v1/deliveries/{destination}/{what}"), body)?;
        serde_json::from_slice(&answer.body).context("the answer is not JSON")
    }
}
