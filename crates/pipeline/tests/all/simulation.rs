//! Deterministic simulation of the worker, its commits and its fencing (F73), and the proof that it can see (F74).
//!
//! A seed decides everything: what is received, how the log is cut into batches, when the process dies, when the machine
//! loses power, which appends and commits fail and whether they took effect, when a worker that was thought dead comes back,
//! when policies change, when the archive cannot be written. Afterwards everything heals, and the independent oracle must
//! find the store equal to what the log says, the books balanced, every dead letter kept, and the archive complete.
//!
//! `VIGIE_SIM_SEED=n` plays one seed, `VIGIE_SIM_SEEDS=n` so many. A failing seed is named in the panic.

use super::support::{Dice, run};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vigie_audit::{Facts, Live, Sample, Verdict, compare, recompute};
use vigie_event::json::{Receipt, read};
use vigie_event::{
    Body, CustomerKey, DAY_MS, Event, FlagId, Offset, Partition, Position, Record, Timestamp, Workspace, partition_for,
};
use vigie_failpoint::with_mutant;
use vigie_ingestion::log::{Entry, Fault, Log, LogError, LogReader, MemoryLog};
use vigie_pipeline::{
    Archivist, ArchivistOptions, DeadLetter, DeadLetterSink, Shelf, Shelved, Worker, WorkerError, committed,
};
use vigie_relance::PolicySet;
use vigie_scoring::Model;
use vigie_store::{
    Commit, CommitReceipt, Counts, MemorySnapshot, MemoryStore, RankCursor, Snapshot, Store, StoreError,
};
use vigie_telemetry::Metrics;

const BASE: i64 = 1_770_000_000_000;
const PARTITIONS: u16 = 3;
const SEEDS: u64 = 10_000;
const EAGER: &str = "[[policy]]\nid = \"early\"\nscore = \"attrition\"\nthreshold = 0.35\ncooldown-days = 3\n\n[[policy]]\nid = \"churn\"\nscore = \"churn-30\"\nthreshold = 0.5\n\n[policy.eligible]\nmin-purchase-days = 2\n\
    [[band]]\nname = \"risk\"\nscore = \"attrition\"\n[[band]]\nname = \"life\"\nscore = \"stage\"\n[[band]]\nname = \"tier\"\nscore = \"revenue\"\nedges = [100]\n";

/// A store whose next commit may fail, with or without effect.
#[derive(Debug, Clone)]
struct Flaky {
    inner: MemoryStore,
    /// `(commits to let pass, whether the failing one takes effect)`.
    failing: Arc<Mutex<Option<(u64, bool)>>>,
}

impl Store for Flaky {
    type Snapshot = MemorySnapshot;

    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }

    fn load(&self, keys: &[CustomerKey]) -> impl Future<Output = Result<Vec<Option<Bytes>>, StoreError>> + Send {
        self.inner.load(keys)
    }

    fn partition(&self, partition: Partition) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send {
        self.inner.partition(partition)
    }

    fn due(
        &self,
        partition: Partition,
        upto: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Timestamp, CustomerKey)>, StoreError>> + Send {
        self.inner.due(partition, upto, limit)
    }

    fn next_due(&self, partition: Partition) -> impl Future<Output = Result<Option<Timestamp>, StoreError>> + Send {
        self.inner.next_due(partition)
    }

    async fn commit(&self, commit: Commit) -> Result<CommitReceipt, StoreError> {
        let lost = {
            let mut failing = self.failing.lock().unwrap();
            match failing.take() {
                Some((0, effect)) => Some(effect),
                Some((more, effect)) => {
                    *failing = Some((more - 1, effect));
                    None
                }
                None => None,
            }
        };
        let unavailable = || StoreError::Unavailable {
            reason: "simulated".to_owned(),
        };
        match lost {
            Some(false) => Err(unavailable()),
            Some(true) => {
                let _ = self.inner.commit(commit).await?;
                Err(unavailable())
            }
            None => self.inner.commit(commit).await,
        }
    }

    async fn renew(&self, epoch: u64, partitions: &[Partition]) -> Result<u64, StoreError> {
        self.inner.renew(epoch, partitions).await
    }

    async fn claim(&self, partitions: &[Partition]) -> Result<u64, StoreError> {
        self.inner.claim(partitions).await
    }

    fn scan(
        &self,
        partition: Partition,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(CustomerKey, Bytes)>, StoreError>> + Send {
        self.inner.scan(partition, after, limit)
    }

    fn at_risk(
        &self,
        workspace: &Workspace,
        after: Option<RankCursor>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u16, CustomerKey, Bytes)>, StoreError>> + Send {
        self.inner.at_risk(workspace, after, limit)
    }

    fn flags(
        &self,
        workspace: &Workspace,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, Bytes)>, StoreError>> + Send {
        self.inner.flags(workspace, after, limit)
    }

    fn flag(
        &self,
        workspace: &Workspace,
        id: &FlagId,
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send {
        self.inner.flag(workspace, id)
    }

    fn customers(
        &self,
        workspace: &Workspace,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(CustomerKey, Bytes)>, StoreError>> + Send {
        self.inner.customers(workspace, after, limit)
    }

    async fn persist(&self) -> Result<(), StoreError> {
        self.inner.persist().await
    }

    fn judged(
        &self,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Offset, Bytes)>, StoreError>> + Send {
        self.inner.judged(partition, from, limit)
    }

    async fn forget_judged(&self, below: &[(Partition, Offset)]) -> Result<(), StoreError> {
        self.inner.forget_judged(below).await
    }

    async fn snapshot(&self) -> Result<MemorySnapshot, StoreError> {
        self.inner.snapshot().await
    }

    fn counts(&self) -> impl Future<Output = Result<Counts, StoreError>> + Send {
        self.inner.counts()
    }
}

/// Dead letters by where their events stood.
#[derive(Debug, Clone, Default)]
struct Letters(Arc<Mutex<BTreeSet<Position>>>);

impl DeadLetterSink for Letters {
    async fn keep(&self, letters: Vec<DeadLetter>) -> Result<(), String> {
        self.0
            .lock()
            .unwrap()
            .extend(letters.into_iter().map(|letter| letter.position));
        Ok(())
    }
}

/// A shelf that may be full.
#[derive(Debug, Clone, Default)]
struct Rack(Arc<Mutex<(Vec<Shelved>, bool)>>);

impl Shelf for Rack {
    fn ends(&self) -> Vec<Offset> {
        let mut ends = vec![Offset(0); usize::from(PARTITIONS)];
        for row in &self.0.lock().unwrap().0 {
            ends[usize::from(row.position.partition.0)] = row.position.offset.next();
        }
        ends
    }

    async fn put(&mut self, rows: Vec<Shelved>) -> Result<(), String> {
        let mut rack = self.0.lock().unwrap();
        if std::mem::take(&mut rack.1) {
            return Err("full".to_owned());
        }
        rack.0.extend(rows);
        Ok(())
    }
}

type Sut = Worker<MemoryLog, Flaky, Letters>;

struct World {
    dice: Dice,
    log: Arc<MemoryLog>,
    store: Arc<Flaky>,
    letters: Letters,
    rack: Rack,
    worker: Sut,
    /// Workers that were taken for dead.
    zombies: Vec<Sut>,
    policies: &'static str,
    now: Timestamp,
    sent: u64,
}

impl World {
    async fn new(seed: u64) -> Result<Self, WorkerError> {
        let log = Arc::new(MemoryLog::new(PARTITIONS));
        let store = Arc::new(Flaky {
            inner: MemoryStore::new(PARTITIONS),
            failing: Arc::default(),
        });
        let (letters, policies, now) = (Letters::default(), PolicySet::shipped_text(), Timestamp(BASE));
        let worker = open(&log, &store, &letters, policies, now).await?;
        Ok(Self {
            dice: Dice(seed),
            log,
            store,
            letters,
            rack: Rack::default(),
            worker,
            zombies: Vec::new(),
            policies,
            now,
            sent: 0,
        })
    }

    /// One thing happens.
    async fn step(&mut self) {
        match self.dice.throw(16) {
            0..=5 => self.receive().await,
            6..=8 => {
                let batch = 1 + self.dice.throw(9) as usize;
                let portions = 1 + self.dice.throw(3) as usize;
                self.fold(batch, portions).await;
            }
            9 => self.restart(false).await,
            10 => {
                self.store.inner.power_loss();
                self.restart(false).await;
            }
            11 => self.store.inner.persist().await.unwrap(),
            12 => {
                let lost = LogError::Poisoned {
                    reason: "simulated".to_owned(),
                };
                let refused = LogError::Unavailable {
                    reason: "simulated".to_owned(),
                };
                let fault = match self.dice.throw(2) {
                    0 => Fault::Refuse(refused),
                    _ => Fault::LoseAnswer(lost),
                };
                let undisturbed = self.dice.throw(3) as usize;
                self.log.inject(undisturbed, fault);
            }
            13 => {
                let effect = self.dice.throw(2) == 0;
                *self.store.failing.lock().unwrap() = Some((self.dice.throw(3), effect));
            }
            14 => {
                // The old worker is not dead, only slow.
                self.restart(true).await;
                if let Some(mut zombie) = self.zombies.pop() {
                    let entries = self.entries(zombie.positions()).await;
                    let _ = zombie.process(&entries, self.now).await;
                }
            }
            _ => {
                self.rack.0.lock().unwrap().1 = self.dice.throw(2) == 0;
                self.archive().await;
            }
        }
    }

    async fn receive(&mut self) {
        let count = 1 + self.dice.throw(4);
        let pause = [0, 1_000, 3_600_000, DAY_MS, 9 * DAY_MS, 40 * DAY_MS][self.dice.throw(6) as usize];
        self.now = self.now.plus_ms(pause);
        for _ in 0..count {
            let event = self.event();
            let partition = event
                .person
                .key()
                .map_or(Partition(0), |key| partition_for(key.as_str(), PARTITIONS));
            let record = Bytes::from(Record::new(Body::Event(Box::new(event))).encode());
            // A client repeats what was not acknowledged.
            while self.log.append(vec![(partition, record.clone())]).await.is_err() {}
        }
    }

    fn event(&mut self) -> Event {
        let id = match self.dice.throw(4) {
            0 => self.dice.throw(self.sent.max(1)),
            _ => self.sent,
        };
        self.sent += 1;
        let (person, other) = (self.dice.throw(3), self.dice.throw(3));
        let claimed = self.now.0 - [0, 0, 5_000, 3 * DAY_MS, -3_600_000, -400 * DAY_MS][self.dice.throw(6) as usize];
        let text = match self.dice.throw(10) {
            0 => format!(
                r#"{{"id":"i{id}","anonymous_id":"a{person}","user_id":"u{other}","signal":"identity.identify"}}"#
            ),
            1 => {
                format!(r#"{{"id":"l{id}","user_id":"u{person}","previous_id":"u{other}","signal":"identity.alias"}}"#)
            }
            2 => format!(
                r#"{{"id":"c{id}","user_id":"u{person}","signal":"page.view","consent":{{"profiling":"{}"}}}}"#,
                if other == 0 { "refused" } else { "granted" }
            ),
            3 | 4 => {
                format!(r#"{{"id":"v{id}","anonymous_id":"a{person}","signal":"page.view","timestamp":{claimed}}}"#)
            }
            5 => format!(
                r#"{{"id":"b{id}","user_id":"u{person}","signal":"page.view","context":{{"user_agent":"Googlebot/2.1"}}}}"#
            ),
            _ => format!(
                r#"{{"id":"p{id}","user_id":"u{person}","signal":"purchase","timestamp":{claimed},"money":{{"amount":{other},"currency":"EUR"}}}}"#
            ),
        };
        let receipt = Receipt {
            workspace: Workspace::new(["shop", "other"][self.dice.throw(2) as usize]).unwrap(),
            received_at: self.now,
            sent_at: None,
            user_agent: None,
            oldest: None,
        };
        let mut event = read(&text, &receipt).unwrap();
        if self.dice.throw(40) == 0 {
            // An event of nobody, as no collector would let pass.
            event.person.user = None;
            event.person.anonymous = None;
        }
        event
    }

    /// Folds some portions; what fails ends the process, or is waited out as the live driver does.
    async fn fold(&mut self, batch: usize, portions: usize) {
        let overdue = self.worker.overdue(self.now);
        if !overdue.is_empty() && self.worker.tick(&overdue, self.now).await.is_err() {
            return self.restart(false).await;
        }
        if self.worker.recover().await.is_err() {
            return;
        }
        let entries = self.entries(self.worker.positions()).await;
        for portion in entries.chunks(batch).take(portions) {
            // Half of the commits are left on their way, whatever comes next.
            let outcome = match self.dice.throw(2) {
                0 => self.worker.process(portion, self.now).await,
                _ => self.worker.submit(portion, self.now).await,
            };
            if outcome.is_err() {
                if self.dice.throw(2) == 0 {
                    return;
                }
                return self.restart(false).await;
            }
        }
    }

    async fn restart(&mut self, keep: bool) {
        if self.dice.throw(5) == 0 {
            self.policies = if self.policies == EAGER {
                PolicySet::shipped_text()
            } else {
                EAGER
            };
        }
        loop {
            // Whoever starts a process again does so until it stays up.
            if let Ok(worker) = open(&self.log, &self.store, &self.letters, self.policies, self.now).await {
                let old = std::mem::replace(&mut self.worker, worker);
                if keep {
                    self.zombies.push(old);
                }
                return;
            }
        }
    }

    async fn archive(&mut self) {
        let status = committed(&*self.store).await.unwrap();
        let options = ArchivistOptions {
            rows: 1 + self.dice.throw(40) as usize,
            ..ArchivistOptions::default()
        };
        let rack = self.rack.clone();
        let (archivist, _) = Archivist::new(&*self.log, Arc::clone(&self.store), rack, status, options).unwrap();
        let _ = archivist.catch_up(|_| {}).await;
    }

    async fn entries(&self, from: BTreeMap<Partition, Offset>) -> Vec<Entry> {
        let mut reader = self.log.reader(from).unwrap();
        reader.next(usize::MAX, usize::MAX, Duration::ZERO).await.unwrap()
    }

    async fn everything(&self) -> Vec<Entry> {
        self.entries(
            (0..PARTITIONS)
                .map(|partition| (Partition(partition), Offset(0)))
                .collect(),
        )
        .await
    }

    /// All causes of failure are gone.
    async fn heal(&mut self) {
        *self.store.failing.lock().unwrap() = None;
        self.rack.0.lock().unwrap().1 = false;
        for _ in 0..100_000 {
            let landed = self.worker.land(self.now).await.is_ok();
            if landed && self.log.ends() == self.worker.positions().into_values().collect::<Vec<_>>() {
                break;
            }
            self.fold(usize::MAX, usize::MAX).await;
        }
        self.archive().await;
    }

    /// What the log says against what is there.
    async fn verdict(&self) -> Result<(), String> {
        let entries = self.everything().await;
        let records: Vec<(Position, Record)> = entries
            .iter()
            .map(|entry| (entry.position, Record::decode(&entry.payload).unwrap()))
            .collect();
        let events = records
            .iter()
            .filter(|(_, record)| matches!(record.body, Body::Event(_)))
            .count() as u64;
        let snapshot = self.store.snapshot().await.unwrap();
        let facts = |partition| match snapshot.partition(partition).unwrap() {
            Some(bytes) => Facts::decode(&bytes).ok_or_else(|| "unreadable facts".to_owned()),
            None => Ok(Facts::default()),
        };
        let mut cut = BTreeMap::new();
        for partition in (0..PARTITIONS).map(Partition) {
            let _ = cut.insert(partition, facts(partition)?.next);
        }
        if cut.values().copied().collect::<Vec<_>>() != self.log.ends() {
            return Err(format!("folded to {cut:?} of {:?}", self.log.ends()));
        }
        let expected = recompute(PARTITIONS, &cut, records.iter().cloned()).map_err(|fault| fault.to_string())?;
        let live = |partition| {
            Ok(Live {
                facts: facts(partition)?,
                customers: snapshot
                    .scan(partition, None, usize::MAX)
                    .unwrap()
                    .into_iter()
                    .map(Ok::<_, String>),
            })
        };
        let flags = snapshot.flags(None, usize::MAX).unwrap();
        let flags = flags.into_iter().map(|(workspace, _, body)| Ok((workspace, body)));
        let report = compare(Sample::all(PARTITIONS), expected, live, flags);
        if report.verdict != Verdict::Equal {
            return Err(report.to_string());
        }
        let books = report.books;
        let settled = books.applied + books.duplicate + books.suppressed + books.dead_letter;
        if settled != events {
            return Err(format!("{events} events, {settled} in the books"));
        }
        let kept = self.letters.0.lock().unwrap().clone();
        let rows = self.rack.0.lock().unwrap().0.clone();
        let set_aside: BTreeSet<Position> = rows
            .iter()
            .filter(|row| row.judgement.label() == "dead_letter")
            .map(|row| row.position)
            .collect();
        if set_aside != kept {
            return Err(format!("set aside {set_aside:?}, kept {kept:?}"));
        }
        let shelved: BTreeMap<Position, Bytes> = rows.iter().map(|row| (row.position, row.bytes.clone())).collect();
        let logged: BTreeMap<Position, Bytes> = entries
            .into_iter()
            .map(|entry| (entry.position, entry.payload))
            .collect();
        if shelved != logged || rows.len() != logged.len() {
            return Err("the archive is not the log".to_owned());
        }
        if rows.iter().any(|row| row.judgement.label() == "unrecorded") {
            return Err("a record is on the shelf without its judgement".to_owned());
        }
        Ok(())
    }
}

async fn open(
    log: &Arc<MemoryLog>,
    store: &Arc<Flaky>,
    letters: &Letters,
    policies: &str,
    now: Timestamp,
) -> Result<Sut, WorkerError> {
    let (log, store, letters) = (Arc::clone(log), Arc::clone(store), Arc::new(letters.clone()));
    let mut worker = Worker::open(log, store, letters, Metrics::disabled())
        .await?
        .keeping_judgements();
    let _ = worker.survey().await?;
    let _ = worker.activate(Model::shipped_text(), policies, now).await?;
    worker.resume(now).await?;
    Ok(worker)
}

fn play(seed: u64) -> Result<(), String> {
    run(async {
        let mut world = World::new(seed).await.map_err(|error| error.to_string())?;
        let steps = 4 + world.dice.throw(20);
        for _ in 0..steps {
            world.step().await;
        }
        world.heal().await;
        world.verdict().await
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn ten_thousand_histories_end_as_the_log_says() {
    if let Some(seed) = setting("VIGIE_SIM_SEED") {
        return play(seed).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    }
    let seeds = setting("VIGIE_SIM_SEEDS").unwrap_or(SEEDS);
    std::thread::scope(|scope| {
        for half in 0..2 {
            let _thread = scope.spawn(move || {
                for seed in (half..seeds).step_by(2) {
                    if let Err(fault) = play(seed) {
                        panic!("VIGIE_SIM_SEED={seed}: {fault}");
                    }
                }
            });
        }
    });
}

/// Each deliberate mistake must be noticed within a few hundred histories.
#[test]
fn every_mutant_is_noticed() {
    let mutants = [
        "offset_before_state",
        "epoch_check_off",
        "dedup_off",
        "derived_twice",
        "flag_id_random",
        "withdraw_ignored",
        "clamp_off",
        "dead_letter_dropped",
        "workspace_missing_in_key",
        "timer_forgotten",
    ];
    for mutant in mutants {
        let noticed = with_mutant(mutant, || {
            (0..2_000).find(|seed| {
                let played = std::panic::catch_unwind(|| play(*seed));
                !matches!(played, Ok(Ok(())))
            })
        });
        assert!(noticed.is_some(), "nobody notices {mutant}");
    }
}
