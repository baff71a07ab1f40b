//! Driving sandboxes: the exact replay, partition by partition on several threads, and the what-if run. It folds nothing
//! itself, and nothing that it does can reach a log, a live store or a customer: a sandbox has no way to send.

use super::diff::{Afterwards, At, Customer, Diff, Outcome, Raised, Scores};
use super::source::{Activation, Dated, Selection, Source};
use crate::clocks;
use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use vigie_archive::Wanted;
use vigie_audit::{Merkle, Root};
use vigie_event::{
    Body, ConsentState, CustomerKey, Event, Judgement, Partition, PersonId, Position, Purpose, Record, RejectCode,
    Signal, Timestamp, Workspace,
};
use vigie_pipeline::{Active, Books, Sandbox};
use vigie_relance::{Flag, FlagKind};
use vigie_scoring::{CustomerState, ScoreKind, Scorer};
use vigie_store::{EmbeddedStore, Store};

/// Records folded at once by an exact replay.
const PORTION: usize = 100_000;
/// Events folded at once by a what-if run, and the longest time that they may span. What one event means for customers of
/// other partitions (a link, a forwarded event) is folded after its portion: so at most this much later than in life.
const STEP: (usize, i64) = (2_000, 60_000);
/// Rows fetched at once from a store.
const PAGE: usize = 10_000;

/// What an exact replay came to.
#[derive(Debug)]
pub(super) struct Exact {
    pub(super) records: u64,
    pub(super) events: u64,
    pub(super) customers: u64,
    /// Records of identities that were linked to a customer.
    pub(super) linked: u64,
    pub(super) flagged: u64,
    pub(super) held_out: u64,
    pub(super) books: BTreeMap<Workspace, Books>,
    /// The latest time of a partition.
    pub(super) clock: Timestamp,
    pub(super) root: Root,
    pub(super) partitions: BTreeMap<Partition, (u64, Root)>,
    pub(super) took: Duration,
    pub(super) threads: u16,
}

/// What one thread of an exact replay came to.
#[derive(Debug, Default)]
struct Part {
    records: u64,
    events: u64,
    customers: u64,
    linked: u64,
    flagged: u64,
    held_out: u64,
    books: BTreeMap<Workspace, Books>,
    clock: Timestamp,
    partitions: BTreeMap<Partition, (u64, Root)>,
}

/// A model and policies with their texts, and where they come from.
#[derive(Debug, Clone)]
pub(super) struct Configuration {
    pub(super) model: Arc<str>,
    pub(super) policies: Arc<str>,
    pub(super) active: Arc<Active>,
    pub(super) origin: String,
}

/// What a what-if run is given.
pub(super) struct Plan<'a> {
    pub(super) source: &'a Source,
    pub(super) selection: &'a Selection,
    /// What to put in force, in order; the first before any event.
    pub(super) schedule: Vec<Activation>,
    /// What scores are computed with in the end.
    pub(super) last: Arc<Active>,
    /// What was raised before is left out.
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// Whether this run compares the archive's files with their checksums.
    pub(super) checked: bool,
}

/// What a what-if run came to.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) outcome: Outcome,
    /// Events before the period and in it.
    pub(super) events: (u64, u64),
    /// Flags before the period.
    pub(super) earlier_flags: u64,
    pub(super) books: BTreeMap<Workspace, Books>,
    /// Customers who refused profiling: they are not scored.
    pub(super) refused: u64,
    /// Identities that belong to another one.
    signposts: BTreeMap<CustomerKey, PersonId>,
}

/// Runs work to its end on a runtime of its own.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work))
}

fn joined<T>(handle: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle
        .join()
        .map_err(|_| anyhow!("a thread of the replay ended abruptly"))?
}

/// A bar on a terminal; on a pipe nothing is shown.
pub(super) fn progress(rows: u64) -> ProgressBar {
    let bar = ProgressBar::new(rows);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = "  [{bar:40}] {human_pos} of {human_len} records  {per_sec}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Folds the archive's records as they are, up to `to`: in memory, or into a new store in `into`.
pub(super) fn exact(source: &Source, to: Option<Timestamp>, threads: u16, into: Option<&Path>) -> Result<Exact> {
    let stopwatch = clocks::stopwatch();
    let bar = progress(source.rows());
    let stop = AtomicBool::new(false);
    // A store has one owner at a time.
    let threads = if into.is_some() {
        1
    } else {
        threads.min(source.partitions).max(1)
    };
    let parts: Vec<Result<Part>> = std::thread::scope(|scope| {
        let spawn = |thread: u16| {
            let (bar, stop) = (&bar, &stop);
            scope.spawn(move || {
                let own = (0..source.partitions).filter(|partition| partition % threads == thread);
                let fold = Fold {
                    source,
                    own: own.map(Partition).collect(),
                    to,
                    // Every thread reads every file; one of them looks at the checksums.
                    checked: thread == 0,
                    bar,
                    stop,
                };
                let part = block_on(fold.run(into)).and_then(|part| part);
                if part.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                part
            })
        };
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        handles.into_iter().map(joined).collect()
    });
    bar.finish_and_clear();
    let mut all = Part::default();
    for part in parts {
        let part = part?;
        all.records += part.records;
        all.events += part.events;
        all.customers += part.customers;
        all.linked += part.linked;
        all.flagged += part.flagged;
        all.held_out += part.held_out;
        all.clock = all.clock.max(part.clock);
        all.partitions.extend(part.partitions);
        for (workspace, books) in part.books {
            let sum = all.books.entry(workspace).or_default();
            sum.applied += books.applied;
            sum.duplicate += books.duplicate;
            sum.suppressed += books.suppressed;
            sum.dead_letter += books.dead_letter;
            sum.conflict += books.conflict;
        }
    }
    let mut tree = Merkle::default();
    for (partition, (_, root)) in &all.partitions {
        tree.partition(*partition, *root);
    }
    Ok(Exact {
        records: all.records,
        events: all.events,
        customers: all.customers,
        linked: all.linked,
        flagged: all.flagged,
        held_out: all.held_out,
        books: all.books,
        clock: all.clock,
        root: tree.root(),
        partitions: all.partitions,
        took: stopwatch.now(),
        threads,
    })
}

/// The work of one thread of an exact replay.
struct Fold<'a> {
    source: &'a Source,
    own: BTreeSet<Partition>,
    to: Option<Timestamp>,
    checked: bool,
    bar: &'a ProgressBar,
    stop: &'a AtomicBool,
}

impl Fold<'_> {
    async fn run(self, into: Option<&Path>) -> Result<Part> {
        let partitions = self.source.partitions;
        match into {
            None => self.over(Sandbox::new(partitions).await?).await,
            Some(dir) => {
                let store = EmbeddedStore::open(dir, &vigie_store::Options::new(partitions))?;
                let part = self.over(Sandbox::over(Arc::new(store)).await?).await?;
                Ok(part)
            }
        }
    }

    async fn over<S: Store>(self, mut sandbox: Sandbox<S>) -> Result<Part> {
        let mut part = Part::default();
        let mut reader = self.source.archive.read(Wanted {
            partitions: Some(self.own.clone()),
            until: self.source.until(self.to),
            judgement: true,
            checked: self.checked,
            ..Wanted::default()
        });
        // Partitions that have met a later record: nothing after it counts, whatever its time.
        let mut cut: BTreeSet<Partition> = BTreeSet::new();
        let mut batch: Vec<(Position, Record)> = Vec::new();
        let mut poison = Vec::new();
        loop {
            let rows = if cut.len() < self.own.len() {
                reader.next().await?
            } else {
                None
            };
            let finished = rows.is_none();
            for row in rows.into_iter().flatten() {
                self.bar.inc(1);
                let position = row.position;
                let record = row
                    .record
                    .map_err(|error| anyhow!("the record at {position} cannot be read: {error}"))?;
                if cut.contains(&position.partition) {
                    continue;
                }
                if self.to.is_some_and(|to| record.at() > to) {
                    let _ = cut.insert(position.partition);
                    continue;
                }
                part.records += 1;
                part.events += u64::from(matches!(record.body, Body::Event(_)));
                // What the live worker could not fold, it set aside: so its state does not hold it.
                if row.judgement == Some(Judgement::DeadLetter(RejectCode::Poison)) {
                    poison.push(position);
                }
                batch.push((position, record));
            }
            if batch.len() >= PORTION || finished {
                sandbox.set_aside(poison.drain(..));
                sandbox.exact(std::mem::take(&mut batch)).await?;
                // A store in memory remembers how to undo what was not persisted.
                sandbox.store().persist().await?;
            }
            if self.stop.load(Ordering::Relaxed) {
                bail!("stopped, since another thread of the replay failed");
            }
            if finished {
                break;
            }
        }
        part.books = sandbox.books();
        part.clock = sandbox.clock();
        self.survey(&sandbox, &mut part).await?;
        Ok(part)
    }

    /// Counts what the store holds, and hashes it.
    async fn survey<S: Store>(&self, sandbox: &Sandbox<S>, part: &mut Part) -> Result<()> {
        let mut workspaces = BTreeSet::new();
        let positions = sandbox.positions();
        for partition in &self.own {
            let mut tree = Merkle::default();
            let mut after = None;
            loop {
                let rows = sandbox.store().scan(*partition, after.take(), PAGE).await?;
                for (key, bytes) in &rows {
                    tree.customer(key, bytes);
                    if decoded(key, bytes)?.linked_to.is_some() {
                        part.linked += 1;
                    } else {
                        part.customers += 1;
                    }
                    if !workspaces.contains(&key.workspace) {
                        let _ = workspaces.insert(key.workspace.clone());
                    }
                }
                if rows.len() < PAGE {
                    break;
                }
                after = rows.into_iter().last().map(|(key, _)| key);
            }
            let next = positions.get(partition).map_or(0, |next| next.0);
            let _ = part.partitions.insert(*partition, (next, tree.root()));
        }
        for workspace in workspaces {
            for flag in flags(sandbox, &workspace).await? {
                match flag.kind {
                    FlagKind::Flagged => part.flagged += 1,
                    FlagKind::HeldOut => part.held_out += 1,
                    // Takes a flag back that is counted already, or is none.
                    FlagKind::Recalled | FlagKind::BandChanged => {}
                }
            }
        }
        Ok(())
    }
}

fn decoded(key: &CustomerKey, bytes: &[u8]) -> Result<CustomerState> {
    CustomerState::decode(bytes).with_context(|| format!("the record of {key}"))
}

async fn flags<S: Store>(sandbox: &Sandbox<S>, workspace: &Workspace) -> Result<Vec<Flag>> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let rows = sandbox.store().flags(workspace, after, PAGE).await?;
        let full = rows.len() == PAGE;
        for (number, body) in rows {
            after = number;
            found.push(serde_json::from_slice(&body)?);
        }
        if !full {
            return Ok(found);
        }
    }
}

/// One what-if run, or two at the same time.
pub(super) fn what_if<'a>(plans: Vec<Plan<'a>>) -> Result<Vec<Run>> {
    let rows = plans.first().map_or(0, |plan| plan.source.rows());
    let bar = progress(rows.saturating_mul(plans.len() as u64));
    let stop = AtomicBool::new(false);
    let runs: Vec<Result<Run>> = std::thread::scope(|scope| {
        let spawn = |plan: Plan<'a>| {
            let (bar, stop) = (&bar, &stop);
            scope.spawn(move || {
                let run = block_on(plan.play(bar, stop)).and_then(|run| run);
                if run.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                run
            })
        };
        let handles: Vec<_> = plans.into_iter().map(spawn).collect();
        handles.into_iter().map(joined).collect()
    });
    bar.finish_and_clear();
    runs.into_iter().collect()
}

impl Plan<'_> {
    async fn play(self, bar: &ProgressBar, stop: &AtomicBool) -> Result<Run> {
        let mut sandbox = Sandbox::new(self.source.partitions).await?;
        let mut schedule: VecDeque<&Activation> = self.schedule.iter().collect();
        // Nothing can be folded before something is in force.
        if let Some(first) = schedule.pop_front() {
            sandbox.activate(&first.model, &first.policies, first.at).await?;
        }
        let mut events = (0, 0);
        let mut reader = self.source.events(self.selection, self.to, self.checked, false);
        let mut shown = 0;
        while let Some((flush, rows)) = reader.next().await? {
            let mut portion: Vec<Event> = Vec::new();
            let mut since = Timestamp(i64::MIN);
            for Dated { clock, event, .. } in flush {
                if clock < self.from {
                    events.0 += 1;
                } else {
                    events.1 += 1;
                }
                let changes = schedule.front().is_some_and(|next| next.at <= clock);
                if changes || portion.len() >= STEP.0 || clock.ms_since(since) > STEP.1 {
                    sandbox.what_if(std::mem::take(&mut portion)).await?;
                    since = clock;
                }
                while let Some(next) = schedule.pop_front_if(|next| next.at <= clock) {
                    sandbox.activate(&next.model, &next.policies, next.at).await?;
                }
                portion.push(event);
            }
            sandbox.what_if(portion).await?;
            sandbox.store().persist().await?;
            bar.inc(rows.saturating_sub(shown));
            shown = rows;
            if stop.load(Ordering::Relaxed) {
                bail!("stopped, since the other run failed");
            }
        }
        for next in schedule.into_iter().filter(|next| next.at <= self.to) {
            sandbox.activate(&next.model, &next.policies, next.at).await?;
        }
        sandbox.pass_to(self.to).await?;
        self.outcome(&sandbox, events).await
    }

    async fn outcome(&self, sandbox: &Sandbox, events: (u64, u64)) -> Result<Run> {
        let model = &self.last.model;
        let horizons = model
            .churn_horizons_days
            .iter()
            .map(|days| (format!("churn-{days}"), ScoreKind::Churn(*days)));
        let kinds: Vec<(String, ScoreKind)> = std::iter::once(("attrition".to_owned(), ScoreKind::Attrition))
            .chain(horizons)
            .collect();
        let mut run = Run {
            outcome: Outcome {
                flags: Vec::new(),
                policies: self
                    .last
                    .policies
                    .policies
                    .iter()
                    .map(|policy| policy.id.to_string())
                    .collect(),
                scores: kinds.iter().map(|(name, _)| name.clone()).collect(),
                customers: BTreeMap::new(),
            },
            events,
            earlier_flags: 0,
            books: sandbox.books(),
            refused: 0,
            signposts: BTreeMap::new(),
        };
        let mut workspaces = BTreeSet::new();
        for partition in (0..self.source.partitions).map(Partition) {
            for (key, bytes) in sandbox.records(partition).await? {
                let state = decoded(&key, &bytes)?;
                if !workspaces.contains(&key.workspace) {
                    let _ = workspaces.insert(key.workspace.clone());
                }
                if let Some(target) = &state.linked_to {
                    let _ = run.signposts.insert(key, target.clone());
                    continue;
                }
                let mut scores = Scores::default();
                let profiling = state.consent.get(&Purpose::Profiling).map(|said| said.state);
                if profiling == Some(ConsentState::Refused) {
                    run.refused += 1;
                } else {
                    let scorer = Scorer::of(&state, model);
                    for (name, kind) in &kinds {
                        if let Ok(score) = scorer.score(*kind, self.to) {
                            let _ = scores.by_name.insert(name.clone(), score);
                        }
                    }
                }
                let _ = run.outcome.customers.insert(Customer::of(&key), scores);
            }
        }
        for workspace in workspaces {
            for flag in flags(sandbox, &workspace).await? {
                let raised = raised(flag)?;
                if raised.raised_at.0 < self.from {
                    run.earlier_flags += 1;
                } else {
                    run.outcome.flags.push(raised);
                }
            }
        }
        let order = |flag: &Raised| (flag.raised_at, flag.customer.clone(), flag.policy.clone());
        run.outcome.flags.sort_by_cached_key(order);
        Ok(run)
    }
}

fn raised(flag: Flag) -> Result<Raised> {
    let at = Timestamp::parse(&flag.raised_at).with_context(|| format!("the time of flag {}", flag.id))?;
    Ok(Raised {
        customer: Customer {
            workspace: flag.workspace,
            id: flag.customer,
        },
        policy: flag.policy,
        raised_at: At(at),
        kind: flag.kind.label().to_owned(),
        score: flag.score.kind,
        value: flag.score.value,
        threshold: flag.score.threshold,
        reasons: flag.reasons.into_iter().map(|reason| reason.text).collect(),
    })
}

/// Looks up in the archive what the customers of differing flags did after them. Events count as they were judged when
/// they were archived; what was not judged counts as it was reported.
pub(super) async fn follow(diff: &mut Diff, run: &Run, plan: &Plan<'_>) -> Result<()> {
    let mut watched: BTreeMap<Customer, Vec<usize>> = BTreeMap::new();
    let mut earliest = plan.to;
    for (at, difference) in diff.flags.iter_mut().enumerate() {
        difference.afterwards = Some(Afterwards::default());
        earliest = earliest.min(difference.since().0);
        watched.entry(difference.customer.clone()).or_default().push(at);
    }
    if watched.is_empty() {
        return Ok(());
    }
    let mut reader = plan.source.judged(plan.selection, earliest, plan.to);
    while let Some(rows) = reader.next().await? {
        for row in rows {
            let Ok(record) = row.record else { continue };
            let forwarded = matches!(record.body, Body::Forward(_));
            let event = match record.body {
                Body::Event(event) => event,
                Body::Forward(forward) => forward.event,
                _ => continue,
            };
            if !plan.selection.takes(&event) || event.received_at > plan.to {
                continue;
            }
            let (at, signal) = match row.judgement {
                Some(Judgement::Applied(findings)) => (findings.at, findings.signal),
                Some(Judgement::Unrecorded) | None if !forwarded => {
                    let claimed = event
                        .occurred_at
                        .map_or(event.received_at, |at| at.min(event.received_at));
                    (claimed, event.signal)
                }
                _ => continue,
            };
            let Some(customer) = run.customer(&event) else { continue };
            let purchase = (signal == Signal::Purchase).then_some(event.money);
            for index in watched.get(&customer).into_iter().flatten() {
                if let Some(difference) = diff.flags.get_mut(*index) {
                    let since = difference.since().0;
                    if let Some(afterwards) = &mut difference.afterwards {
                        afterwards.see(since, at, purchase);
                    }
                }
            }
        }
    }
    Ok(())
}

impl Run {
    /// One with nothing but an outcome.
    #[cfg(test)]
    pub(super) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            events: (0, 0),
            earlier_flags: 0,
            books: BTreeMap::new(),
            refused: 0,
            signposts: BTreeMap::new(),
        }
    }

    /// Whose event it is by the end of the run.
    fn customer(&self, event: &Event) -> Option<Customer> {
        let mut key = CustomerKey::new(event.workspace.clone(), event.person.key()?.clone());
        // Signposts never form a circle: each points to a smaller identity.
        while let Some(target) = self.signposts.get(&key) {
            key.person = target.clone();
        }
        Some(Customer::of(&key))
    }
}
