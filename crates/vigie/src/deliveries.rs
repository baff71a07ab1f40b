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
    Destinations, FlagView, Gate, GateError, HttpExit, Kind, Lane, LaneHandle, Queue, Reason, Reports, Standing,
    Verdict, judge,
};
use vigie_event::{Channel, CustomerKey, Event, PersonId, PolicyId, Purpose, Signal, Timestamp, Workspace};
use vigie_ingestion::intake::{Intake, Outcome};
use vigie_ingestion::keys::{KeyKind, Keys};
use vigie_kafka::outputs::Outputs;
use vigie_relance::{MarketingConsent, PolicySet, Refusal, Row, objection};
use vigie_scoring::state::MAX_LINKS;
use vigie_scoring::{CustomerState, Features};
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
            Arc::new(Records {
                hours: true,
                ..parts.records(age)
            }),
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
    // All of it: a connection to the store that is lost is made anew here.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
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
            hours: false,
        }
    }
}

/// The gate over the store: what the customer's record says now.
struct Records {
    store: Arc<AnyStore>,
    active: Arc<ArcSwap<Active>>,
    max_age: Duration,
    /// Whether who passes the gate makes the contact at once, so that closed hours close the gate as well. A message carries
    /// its hours in its plan.
    hours: bool,
}

impl Gate for Records {
    async fn ask(&self, workspace: &Workspace, flag: &FlagView, now: Timestamp) -> Result<Verdict, GateError> {
        let record = self.record(workspace, flag).await?;
        let active = self.active.load();
        let standing = record.map(|(key, record)| standing(&key, &record, flag, &active.policies, self.hours, now));
        Ok(judge(flag, standing.as_ref(), self.max_age, now))
    }
}

impl Records {
    /// The record of the flag's customer, behind the links that lead away from the id.
    async fn record(
        &self,
        workspace: &Workspace,
        flag: &FlagView,
    ) -> Result<Option<(CustomerKey, CustomerState)>, GateError> {
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
                None => return Ok(Some((key, record))),
                Some(elsewhere) => person = elsewhere,
            }
        }
        Ok(None)
    }
}

/// What a record says that concerns a contact.
fn standing(
    key: &CustomerKey,
    record: &CustomerState,
    flag: &FlagView,
    policies: &PolicySet,
    hours: bool,
    now: Timestamp,
) -> Standing {
    let said = |purpose: Purpose| record.consent.get(&purpose).map(|said| said.state);
    let id = PolicyId::new(&flag.policy).ok();
    let policy = id.as_ref().and_then(|id| policies.policy(id));
    let entry = id.as_ref().and_then(|id| record.ledger.policies.get(id));
    let channel = flag.channel.as_deref().and_then(Channel::parse);
    let objection = policy.and_then(|policy| objection(policies, policy, key, record, (flag.id, channel), now));
    let opens = || {
        let row = || Row::of(key, record, &Features::of(record));
        policies.calendar_for(row).open_from(now)
    };
    let is_service = policy.is_some_and(|policy| policy.score.is_service());
    Standing {
        profiling: said(Purpose::Profiling),
        // What is owed to somebody who complained is no marketing.
        marketing: said(Purpose::Marketing).filter(|_| !is_service),
        needs_consent: policy
            .is_none_or(|policy| !is_service && policy.eligible.marketing_consent == MarketingConsent::Granted),
        last_purchase: record
            .combined()
            .signal(Signal::Purchase)
            .filter(|_| !is_service)
            .map(|purchase| purchase.last),
        flag_is_open: entry.is_some_and(|entry| {
            let is_last = entry.last_flag.is_some_and(|raised| raised.id == flag.id);
            is_last && !entry.armed && entry.course.is_none_or(|course| course.phase.is_open())
        }),
        objection: objection
            .filter(|objection| objection.until.is_none())
            .map(|objection| match objection.reason {
                Refusal::OpenComplaint => Reason::OpenComplaint,
                Refusal::NoChannel => Reason::NoChannel,
                _ => Reason::Ineligible,
            }),
        not_before: [
            objection.and_then(|objection| objection.until),
            hours.then(opens).filter(|open| *open > now),
        ]
        .into_iter()
        .flatten()
        .max(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_delivery::Reason;
    use vigie_event::{ConsentState, Currency, DAY_MS, Money};
    use vigie_relance::{Decision, Flag, Look, evaluate, note};
    use vigie_scoring::state::ConsentRecord;
    use vigie_scoring::{Model, Observation, Scorer};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const POLICIES: &str = "[calendar]\nquiet-hours = \"00:00-00:00\"\n[[policy]]\nid = \"keep\"\nscore = \"attrition\"\nthreshold = 0.6\n\
        where = \"purchases < 12\"\n[[policy.channel]]\nname = \"email\"\n[[policy.channel]]\nname = \"phone\"\ncost = 100.0\n";

    fn key() -> CustomerKey {
        CustomerKey::new(Workspace::new("shop").unwrap(), PersonId::known("ann").unwrap())
    }

    fn act(state: &mut CustomerState, signal: Signal, at: Timestamp, flag: Option<vigie_event::FlagId>) {
        let euro = Currency::parse("EUR").unwrap();
        let observation = Observation {
            at,
            signal,
            channel: signal.default_channel(),
            money: signal.is_purchase().then_some(Money {
                minor: 5_000,
                currency: euro,
            }),
            human: true,
        };
        let _ = state.fold(&key().person, &observation);
        state.last_received = at;
        note(&mut state.ledger, signal, observation.channel, at, flag);
    }

    /// Somebody who was flagged now.
    fn flagged(policies: &PolicySet) -> (CustomerState, FlagView) {
        let model = Model::shipped().unwrap();
        let mut state = CustomerState::default();
        for week in 0..8 {
            act(
                &mut state,
                Signal::Purchase,
                NOW.plus_ms((week * 7 - 180) * DAY_MS),
                None,
            );
        }
        let copy = state.clone();
        let (scorer, key) = (Scorer::of(&copy, &model), key());
        let mut look = Look {
            key: &key,
            state: &mut state,
            scorer: &scorer,
            model: &model,
            now: NOW,
            purchase: None,
        };
        let mut decisions = evaluate(policies, &mut look);
        let Some(Decision::Flag { flag, .. }) = decisions.pop() else {
            panic!("nobody is flagged")
        };
        let flag: Flag = *flag;
        (state, FlagView::read(&serde_json::to_vec(&flag).unwrap()).unwrap())
    }

    /// F63: whatever happened while the flag waited, nobody is contacted who must not be (any more).
    #[test]
    fn what_happens_while_a_flag_waits_stops_it() {
        let policies = PolicySet::parse(POLICIES).unwrap();
        let later = NOW.plus_ms(3_600_000);
        let with = |policies: &PolicySet, change: &dyn Fn(&mut CustomerState, &FlagView)| {
            let (mut state, flag) = flagged(policies);
            change(&mut state, &flag);
            let standing = standing(&key(), &state, &flag, policies, false, later);
            judge(&flag, Some(&standing), Duration::from_hours(48), later)
        };
        let after = |change: &dyn Fn(&mut CustomerState, &FlagView)| with(&policies, change);
        let said = |purpose: Purpose| {
            move |state: &mut CustomerState, _: &FlagView| {
                let refused = ConsentState::Refused;
                state.note_consent(
                    purpose,
                    ConsentRecord {
                        at: NOW,
                        state: refused,
                    },
                );
            }
        };
        let did = |signal: Signal| {
            move |state: &mut CustomerState, flag: &FlagView| {
                act(
                    state,
                    signal,
                    NOW.plus_ms(60_000),
                    signal.name().starts_with("relance").then_some(flag.id),
                );
            }
        };
        assert_eq!(after(&|_, _| {}), Verdict::Send);
        assert_eq!(after(&said(Purpose::Profiling)), Verdict::Drop(Reason::Objected));
        assert_eq!(after(&said(Purpose::Marketing)), Verdict::Drop(Reason::Objected));
        assert_eq!(after(&did(Signal::Purchase)), Verdict::Drop(Reason::Bought));
        assert_eq!(
            after(&did(Signal::ComplaintOpened)),
            Verdict::Drop(Reason::OpenComplaint)
        );
        // The plan says e-mail, and the telephone would be open: the receiver was told e-mail.
        assert_eq!(after(&did(Signal::EmailUnsubscribe)), Verdict::Drop(Reason::NoChannel));
        assert_eq!(after(&did(Signal::EmailComplaint)), Verdict::Drop(Reason::NoChannel));
        for end in [Signal::RelanceReturned, Signal::RelanceLost, Signal::RelanceRecalled] {
            assert_eq!(after(&did(end)), Verdict::Drop(Reason::Recalled), "{end}");
        }
        // Taken up, or contacted for this very flag: it may be delivered again.
        assert_eq!(after(&did(Signal::RelanceClaimed)), Verdict::Send);
        assert_eq!(after(&did(Signal::RelanceContacted)), Verdict::Send);
        // Somebody else has written, or the customer has called: it waits.
        let gap = |verdict: Verdict, days: i64| {
            assert_eq!(verdict, Verdict::Wait(NOW.plus_ms(60_000 + days * DAY_MS)));
        };
        gap(after(&did(Signal::EmailSent)), 3);
        gap(after(&did(Signal::CallInbound)), 7);
        // Other policies in force: not for her any more, or a source is silent.
        let (state, flag) = flagged(&policies);
        let other = |text: &str| {
            let set = PolicySet::parse(text).unwrap();
            let standing = standing(&key(), &state, &flag, &set, false, later);
            judge(&flag, Some(&standing), Duration::from_hours(48), later)
        };
        let narrower = POLICIES.replace("purchases < 12", "purchases > 12");
        assert_eq!(other(&narrower), Verdict::Drop(Reason::Ineligible));
        let outage = format!("{POLICIES}[[outage]]\nsource = \"till\"\nfrom = \"{NOW}\"\n");
        assert_eq!(other(&outage), Verdict::Wait(later.plus_ms(600_000)));
    }

    /// Who claims a flag calls at once: closed hours close the queue, and not the lanes.
    #[test]
    fn closed_hours_close_the_queue() {
        let text = POLICIES.replace("00:00-00:00", "20:00-08:00");
        let policies = PolicySet::parse(&text).unwrap();
        let (state, flag) = flagged(&policies);
        let night = Timestamp(NOW.day().start().0 + DAY_MS + 22 * 3_600_000);
        let morning = Timestamp(NOW.day().start().0 + 2 * DAY_MS + 8 * 3_600_000);
        let ask = |hours: bool| standing(&key(), &state, &flag, &policies, hours, night).not_before;
        assert_eq!((ask(true), ask(false)), (Some(morning), None));
    }
}
