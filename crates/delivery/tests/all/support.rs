//! What the tests share: a store with flags, a clock that they hold, a gate and a receiver that do as they are told.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use vigie_delivery::message::Parcel;
use vigie_delivery::*;
use vigie_event::{FlagId, Partition, Timestamp, Workspace};
use vigie_store::{Commit, FlagRow, MemoryStore, Store};
use vigie_telemetry::Metrics;

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const START: Timestamp = Timestamp(1_795_000_000_000);
pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) fn shop() -> Workspace {
    Workspace::new("shop").unwrap()
}

pub(crate) fn id(number: u64) -> FlagId {
    FlagId(u128::from(number).to_be_bytes())
}

/// A flag as the relance crate writes it.
pub(crate) fn flag(number: u64, customer: &str, raised_at: Timestamp) -> Value {
    json!({
        "id": id(number).to_string(), "workspace": "shop", "customer": customer, "policy": "win-back",
        "policy_version": "0123456789abcdef", "kind": "flagged",
        "score": {"kind": "attrition", "value": 0.71, "threshold": 0.6}, "raised_at": raised_at.to_string(),
        "stage": "at_risk", "reasons": [{"code": "silence", "text": "no visit for 40 days, \"usually\" every 9"}],
        "model": "btyd@0123456789ab",
    })
}

/// A store whose flags the tests write.
#[derive(Clone)]
pub(crate) struct Flags {
    pub(crate) store: Arc<MemoryStore>,
    epoch: u64,
}

impl Flags {
    pub(crate) async fn new() -> Self {
        let store = Arc::new(MemoryStore::new(1));
        let epoch = store.claim(&[Partition(0)]).await.unwrap();
        Self { store, epoch }
    }

    pub(crate) async fn raise(&self, bodies: impl IntoIterator<Item = Value>) {
        let rows = bodies.into_iter().map(|body| FlagRow {
            workspace: shop(),
            partition: Partition(0),
            id: FlagId::parse(body["id"].as_str().unwrap()).unwrap(),
            body: body.to_string().into(),
        });
        let commit = Commit {
            epoch: self.epoch,
            flags: rows.collect(),
            ..Commit::default()
        };
        let _ = self.store.commit(commit).await.unwrap();
    }
}

/// A clock that only the test moves.
#[derive(Clone)]
pub(crate) struct Hand(Arc<AtomicI64>);

impl Hand {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START.0)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn set(&self, to: Timestamp) {
        assert!(to >= self.now(), "time does not go back");
        self.0.store(to.0, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let hand = self.clone();
        Arc::new(move || hand.now())
    }
}

/// A gate that lets everybody pass but those whom the test names.
#[derive(Default)]
pub(crate) struct Porter(pub(crate) Mutex<BTreeMap<String, Result<Verdict, GateError>>>);

impl Porter {
    pub(crate) fn say(&self, customer: &str, verdict: Result<Verdict, GateError>) {
        drop(self.0.lock().unwrap().insert(customer.to_owned(), verdict));
    }
}

impl Gate for Porter {
    async fn ask(&self, _: &Workspace, flag: &FlagView, _: Timestamp) -> Result<Verdict, GateError> {
        let said = self.0.lock().unwrap().get(&flag.customer).cloned();
        said.unwrap_or(Ok(Verdict::Send))
    }
}

pub(crate) const OK: Answer = Answer::Status {
    code: 200,
    retry_after: None,
};
pub(crate) const BROKEN: Answer = Answer::Status {
    code: 500,
    retry_after: None,
};

/// When, which flag, of whom, and the answer.
pub(crate) type Call = (Timestamp, FlagId, String, Answer);
type Script = dyn Fn(&Parcel, Timestamp) -> Answer + Send + Sync;

/// A receiver that answers as its script says, and remembers.
#[derive(Clone)]
pub(crate) struct Receiver {
    script: Arc<Mutex<Arc<Script>>>,
    hand: Hand,
    pub(crate) calls: Arc<Mutex<Vec<Call>>>,
}

impl Receiver {
    pub(crate) fn new(hand: &Hand, script: impl Fn(&Parcel, Timestamp) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(Mutex::new(Arc::new(script))),
            hand: hand.clone(),
            calls: Arc::default(),
        }
    }

    pub(crate) fn become_(&self, script: impl Fn(&Parcel, Timestamp) -> Answer + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// Ids that arrived, in the order in which they first did.
    pub(crate) fn arrived(&self) -> Vec<(FlagId, String)> {
        let mut seen = BTreeSet::new();
        let calls = self.calls.lock().unwrap();
        let arrived = calls.iter().filter(|(.., answer)| answer.is_success());
        arrived
            .filter(|(_, id, ..)| seen.insert(*id))
            .map(|(_, id, customer, _)| (*id, customer.clone()))
            .collect()
    }

    pub(crate) fn ids(&self) -> BTreeSet<FlagId> {
        self.arrived().into_iter().map(|(id, _)| id).collect()
    }

    pub(crate) fn attempts(&self, number: u64) -> Vec<Timestamp> {
        let calls = self.calls.lock().unwrap();
        calls
            .iter()
            .filter(|(_, found, ..)| *found == id(number))
            .map(|(at, ..)| *at)
            .collect()
    }
}

impl Exit for Receiver {
    async fn send(&self, parcel: &Parcel) -> Answer {
        let now = self.hand.now();
        let script = Arc::clone(&self.script.lock().unwrap());
        let answer = script(parcel, now);
        let call = (now, parcel.id, parcel.customer.clone(), answer);
        self.calls.lock().unwrap().push(call);
        answer
    }
}

/// A destination with defaults; `more` are further lines of its entry.
pub(crate) fn destination(name: &str, url: &str, more: &str) -> Arc<Destination> {
    let text = format!(
        "[[destination]]\nname = {name:?}\nkind = \"webhook\"\nurl = {url:?}\nsecrets = [\"env:SECRET\"]\n{more}"
    );
    let read = |_: &str| Ok(SECRET.to_owned());
    let Destinations(mut found) = Destinations::parse(&text, &read).unwrap();
    Arc::new(found.remove(0))
}

/// A lane with everything that a test holds in its hands.
pub(crate) struct Stage {
    pub(crate) flags: Flags,
    pub(crate) hand: Hand,
    pub(crate) gate: Arc<Porter>,
    pub(crate) receiver: Receiver,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) type TestLane<E = Receiver> = Lane<MemoryStore, Porter, E>;

impl Stage {
    pub(crate) async fn new(script: impl Fn(&Parcel, Timestamp) -> Answer + Send + Sync + 'static) -> Self {
        let hand = Hand::new();
        Self {
            flags: Flags::new().await,
            receiver: Receiver::new(&hand, script),
            hand,
            gate: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn lane(&self) -> TestLane {
        self.lane_to(destination("crm", "https://example.com/", ""), self.receiver.clone())
    }

    pub(crate) fn lane_to<E: Exit>(&self, destination: Arc<Destination>, exit: E) -> TestLane<E> {
        open(self.dir.path(), destination, &self.flags, &self.gate, exit, &self.hand)
    }

    /// Takes turns until `until`, moving the clock to whenever there is something to do, and at least every five minutes.
    pub(crate) async fn play<E: Exit>(&self, lane: &TestLane<E>, until: Timestamp) {
        loop {
            let turn = lane.turn().await.unwrap();
            if turn.worked {
                continue;
            }
            let now = self.hand.now();
            if now >= until {
                return;
            }
            let latest = now.plus_ms(300_000);
            let next = turn.next.map_or(latest, |next| next.max(now.plus_ms(1)).min(latest));
            self.hand.set(next.min(until));
        }
    }

    /// Takes turns until nothing is left to do now.
    pub(crate) async fn settle<E: Exit>(&self, lane: &TestLane<E>) {
        self.play(lane, self.hand.now().plus_ms(1_000)).await;
    }
}

pub(crate) fn open<E: Exit>(
    dir: &Path,
    destination: Arc<Destination>,
    flags: &Flags,
    gate: &Arc<Porter>,
    exit: E,
    hand: &Hand,
) -> TestLane<E> {
    let metrics = Metrics::disabled().delivery;
    let store = Arc::clone(&flags.store);
    Lane::open(
        dir,
        shop(),
        destination,
        store,
        Arc::clone(gate),
        exit,
        hand.clock(),
        metrics,
    )
    .unwrap()
}
