//! How one customer's scores came about: the customer's own records, folded alone by the pipeline's sandbox and looked at
//! after each.
//!
//! A customer depends on nothing of their partition but its clock and what is in force. So only the records that need this
//! customer are folded, at places of their own, with a tick wherever a record of somebody else has moved the clock; the
//! timers in between fire at their own times, which gives the way of the scores in steps of a hundredth.

use anyhow::{Result, anyhow};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vigie_archive::{Archive, Row, Wanted};
use vigie_event::{
    Body, CustomerKey, Event, Judgement, Offset, Partition, Position, Record, Tick, Timestamp, partition_for,
};
use vigie_pipeline::{Active, Sandbox};
use vigie_relance::{Flag, Refusal};
use vigie_scoring::{Assessment, CustomerState, assess};
use vigie_store::Store;

/// Links followed from an identity to the record that holds the person now.
const MAX_LINKS: usize = 8;
/// Looks between two records; beyond, the way is shown more coarsely.
const MAX_LOOKS: usize = 2_000;

/// Everything that moved a customer's scores.
#[derive(Debug, Serialize)]
pub(crate) struct History {
    /// The identity that was asked for.
    pub(crate) asked: String,
    /// The customer that it belongs to.
    pub(crate) customer: String,
    /// Whose base it is.
    pub(crate) workspace: String,
    /// What happened, in order.
    pub(crate) steps: Vec<Step>,
    /// The way of the scores, also in silence.
    pub(crate) path: Vec<Point>,
    /// The scores at the end of the period.
    pub(crate) at_end: Option<Scores>,
    /// SHA-256 of the record's canonical bytes, to compare with a store.
    pub(crate) record_sha256: Option<String>,
}

/// One thing that happened.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) at: String,
    /// `event`, `link`, `merge`, `activation`, `flag` or `refusal`.
    pub(crate) kind: &'static str,
    /// The identity whose record it moved.
    pub(crate) identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<Told>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Scores>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Scores>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flag: Option<Flag>,
    /// Where the record stands in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<String>,
}

/// An event in a few words.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) signal: String,
    pub(crate) name: Option<String>,
    pub(crate) channel: String,
    pub(crate) occurred_at: Option<String>,
    pub(crate) received_at: String,
    pub(crate) amount_minor: Option<i64>,
    pub(crate) currency: Option<String>,
}

/// A sentence, and the ids of the events that it rests on.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(crate) struct Sentence {
    pub(crate) text: String,
    pub(crate) events: Vec<String>,
}

/// The scores at one instant.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(crate) struct Scores {
    pub(crate) as_of: String,
    pub(crate) stage: String,
    pub(crate) attrition: Option<f64>,
    /// Log-odds per factor.
    pub(crate) contributions: BTreeMap<&'static str, f64>,
    /// Per horizon in days.
    pub(crate) churn: BTreeMap<u16, Option<f64>>,
    pub(crate) reasons: Vec<Sentence>,
    pub(crate) model: String,
}

/// One point of the way.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) at: String,
    pub(crate) attrition: Option<f64>,
    pub(crate) churn: Option<f64>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) key: CustomerKey,
    /// Earlier steps are folded and not shown.
    pub(crate) from: Option<Timestamp>,
    /// Nothing later is looked at.
    pub(crate) to: Timestamp,
}

/// Tells a customer's history; `None` when no record needs them. `tail` is what the archive does not hold yet.
pub(crate) async fn history(
    archive: &Archive,
    tail: &[Row],
    partitions: u16,
    asked: &Asked,
) -> Result<Option<History>> {
    let mut told = History {
        asked: asked.key.person.to_string(),
        customer: asked.key.person.to_string(),
        workspace: asked.key.workspace.to_string(),
        steps: Vec::new(),
        path: Vec::new(),
        at_end: None,
        record_sha256: None,
    };
    let mut key = asked.key.clone();
    let mut known = false;
    for _ in 0..=MAX_LINKS {
        let mut teller = Teller::new(&key, partitions, asked).await?;
        teller.read(archive, tail).await?;
        let linked = teller.finish(&mut told).await?;
        known |= teller.met;
        match linked {
            Some(target) => key.person = target,
            None => break,
        }
    }
    told.customer = key.person.to_string();
    told.steps.sort_by(|a, b| a.at.cmp(&b.at));
    told.path.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(known.then_some(told))
}

struct Teller<'a> {
    key: CustomerKey,
    asked: &'a Asked,
    partition: Partition,
    sandbox: Sandbox,
    next: Offset,
    clock: Timestamp,
    /// The latest clock that the sandbox knows.
    shown: Timestamp,
    state: CustomerState,
    flags: u64,
    steps: Vec<Step>,
    path: Vec<Point>,
    met: bool,
}

impl<'a> Teller<'a> {
    async fn new(key: &CustomerKey, partitions: u16, asked: &'a Asked) -> Result<Self> {
        Ok(Self {
            partition: partition_for(key.person.as_str(), partitions),
            key: key.clone(),
            asked,
            sandbox: Sandbox::new(partitions).await?,
            next: Offset(0),
            clock: Timestamp(i64::MIN),
            shown: Timestamp(i64::MIN),
            state: CustomerState::default(),
            flags: 0,
            steps: Vec::new(),
            path: Vec::new(),
            met: false,
        })
    }

    async fn read(&mut self, archive: &Archive, tail: &[Row]) -> Result<()> {
        let mut reader = archive.read(Wanted {
            partitions: Some(BTreeSet::from([self.partition])),
            judgement: true,
            ..Wanted::default()
        });
        let mut expected = Offset(0);
        while let Some(portion) = reader.next().await? {
            for row in portion {
                expected = row.position.offset.next();
                let record = row
                    .record
                    .map_err(|error| anyhow!("record at {}: {error}", row.position))?;
                if !self.take(row.position, record, row.judgement).await? {
                    return Ok(());
                }
            }
        }
        let own = self.partition;
        let later = |row: &&Row| row.position.partition == own && row.position.offset >= expected;
        for row in tail.iter().filter(later) {
            let record = Record::decode(&row.bytes).map_err(|error| anyhow!("record at {}: {error}", row.position))?;
            if !self.take(row.position, record, Some(row.judgement)).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes the partition's next record; `false` when it lies behind the period.
    async fn take(&mut self, position: Position, record: Record, judgement: Option<Judgement>) -> Result<bool> {
        let clock = self.clock.max(record.at());
        if clock > self.asked.to {
            return Ok(false);
        }
        self.clock = clock;
        let activation = matches!(record.body, Body::Control(_));
        if !activation && needs(&record).as_ref() != Some(&self.key) {
            return Ok(true);
        }
        self.met |= !activation;
        self.pass(clock).await?;
        let before = self.scores();
        let mut step = Step {
            at: clock.to_string(),
            kind: kind(&record.body),
            identity: self.key.person.to_string(),
            event: event_of(&record.body).map(told),
            decision: judgement.map(|judgement| {
                let reason = judgement
                    .reason()
                    .map_or_else(String::new, |reason| format!(" ({reason})"));
                format!("{}{reason}", judgement.label())
            }),
            text: text(&record.body),
            before,
            after: None,
            flag: None,
            position: Some(position.to_string()),
        };
        if judgement.and_then(|judgement| judgement.reason()) == Some(vigie_event::RejectCode::Poison.label()) {
            self.sandbox.set_aside([self.here()]);
        }
        self.fold(record).await?;
        step.after = self.scores();
        let shown = self.shows();
        if shown && (self.met || step.kind == "activation" && step.before.is_some()) {
            self.steps.push(step);
        }
        self.note().await?;
        Ok(true)
    }

    /// Lets the timers up to `until` fire, each at its own time.
    async fn pass(&mut self, until: Timestamp) -> Result<()> {
        if !self.met {
            return Ok(());
        }
        let mut looks = 0;
        while let Some(due) = self.sandbox.next_due().filter(|due| *due <= until && looks < MAX_LOOKS) {
            looks += 1;
            if due <= self.shown {
                break;
            }
            self.fold(Record::new(Body::Tick(Tick { at: due }))).await?;
            self.note().await?;
        }
        if self.shown < until {
            self.fold(Record::new(Body::Tick(Tick { at: until }))).await?;
            self.note().await?;
        }
        Ok(())
    }

    fn here(&self) -> Position {
        Position {
            partition: self.partition,
            offset: self.next,
        }
    }

    async fn fold(&mut self, record: Record) -> Result<()> {
        self.shown = self.shown.max(record.at());
        let position = self.here();
        self.next = self.next.next();
        self.sandbox.exact(vec![(position, record)]).await?;
        let stored = self.sandbox.store().load(std::slice::from_ref(&self.key)).await?;
        if let Some(bytes) = stored.into_iter().next().flatten() {
            self.state = CustomerState::decode(&bytes)?;
        }
        Ok(())
    }

    /// Notes where the scores are now, and the flags and refusals that came.
    async fn note(&mut self) -> Result<()> {
        let rows = self
            .sandbox
            .store()
            .flags(&self.key.workspace, self.flags, usize::MAX)
            .await?;
        for (number, body) in rows {
            self.flags = number;
            let flag: Flag = serde_json::from_slice(&body)?;
            if self.shows() {
                self.steps.push(Step {
                    at: flag.raised_at.clone(),
                    kind: "flag",
                    identity: self.key.person.to_string(),
                    event: None,
                    decision: Some(flag.kind.label().to_owned()),
                    text: Some(format!("{} by {}", flag.kind.label().replace('_', " "), flag.policy)),
                    before: None,
                    after: None,
                    flag: Some(flag),
                    position: None,
                });
            }
        }
        for (policy, code) in refused(&self.state) {
            if self.shows() && !self.told_refusal(&policy, code) {
                let label = Refusal::ALL
                    .iter()
                    .find(|refusal| refusal.code() == code)
                    .map_or("unknown", |refusal| refusal.label());
                self.steps.push(Step {
                    at: self.shown.to_string(),
                    kind: "refusal",
                    identity: self.key.person.to_string(),
                    event: None,
                    decision: Some(label.to_owned()),
                    text: Some(format!("no flag by {policy}: {label}")),
                    before: None,
                    after: None,
                    flag: None,
                    position: None,
                });
            }
        }
        if self.shows()
            && let Some(scores) = self.scores()
        {
            let churn = scores.churn.values().next().copied().flatten();
            self.path.push(Point {
                at: self.shown.to_string(),
                attrition: scores.attrition,
                churn,
            });
        }
        Ok(())
    }

    /// Whether the last refusal told for a policy was this one, with no flag since.
    fn told_refusal(&self, policy: &str, code: u8) -> bool {
        let label = Refusal::ALL
            .iter()
            .find(|refusal| refusal.code() == code)
            .map(|refusal| refusal.label());
        let ending = format!("no flag by {policy}: ");
        let last =
            self.steps.iter().rev().find(|step| {
                step.kind == "refusal" && step.text.as_deref().is_some_and(|text| text.starts_with(&ending))
            });
        last.is_some_and(|last| last.decision.as_deref() == label)
    }

    fn shows(&self) -> bool {
        self.asked.from.is_none_or(|from| self.shown >= from)
    }

    fn scores(&self) -> Option<Scores> {
        let active = self.sandbox.active()?;
        if !self.met || self.state.linked_to.is_some() || self.state.parts.is_empty() {
            return None;
        }
        let last = self.state.combined().last_activity();
        let at = last.map_or(self.shown, |last| last.max(self.shown));
        Some(scores(&active, &self.state, at))
    }

    /// Hands over what was told; the identity that holds the person now, if it is another one.
    async fn finish(&mut self, told: &mut History) -> Result<Option<vigie_event::PersonId>> {
        // Silence up to the end of the period belongs to it, as far as the log's own time has come.
        self.pass(self.clock).await?;
        let end = if self.state.linked_to.is_none() {
            self.asked.to
        } else {
            self.clock
        };
        if let (Some(active), true, None) = (self.sandbox.active(), self.met, &self.state.linked_to)
            && !self.state.parts.is_empty()
        {
            let last = self.state.combined().last_activity();
            told.at_end = Some(scores(&active, &self.state, last.map_or(end, |last| last.max(end))));
        }
        if self.met {
            told.record_sha256 = Some(sha256(&self.state.encode()));
        }
        told.steps.append(&mut self.steps);
        told.path.append(&mut self.path);
        Ok(self.state.linked_to.clone())
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn scores(active: &Arc<Active>, state: &CustomerState, at: Timestamp) -> Scores {
    let Assessment {
        as_of,
        model,
        attrition,
        churn,
        stage,
        reasons,
        ..
    } = assess(state, &active.model, at);
    let attrition = attrition.ok();
    Scores {
        as_of: as_of.to_string(),
        stage: stage.label().to_owned(),
        attrition: attrition.as_ref().map(|attrition| attrition.score),
        contributions: attrition
            .iter()
            .flat_map(|attrition| &attrition.contributions)
            .map(|contribution| (contribution.factor.label(), contribution.log_odds))
            .collect(),
        churn: churn
            .iter()
            .map(|churn| (churn.horizon_days, churn.outcome.ok().map(|outcome| outcome.score)))
            .collect(),
        reasons: reasons
            .into_iter()
            .map(|reason| Sentence {
                text: reason.text,
                events: reason.events,
            })
            .collect(),
        model,
    }
}

fn refused(state: &CustomerState) -> Vec<(String, u8)> {
    let entries = state.ledger.policies.iter();
    entries
        .filter_map(|(id, entry)| entry.refused.map(|code| (id.to_string(), code)))
        .collect()
}

fn needs(record: &Record) -> Option<CustomerKey> {
    let (workspace, person) = match &record.body {
        Body::Event(event) => (&event.workspace, event.person.key()?),
        Body::Forward(forward) => (&forward.event.workspace, &forward.into),
        Body::Link(link) => (&link.workspace, &link.from),
        Body::Merge(merge) => (&merge.workspace, &merge.into),
        Body::Release(release) => (&release.workspace, &release.holder),
        Body::Tick(_) | Body::Control(_) => return None,
    };
    Some(CustomerKey::new(workspace.clone(), person.clone()))
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::Event(_) | Body::Forward(_) => "event",
        Body::Link(_) => "link",
        Body::Merge(_) => "merge",
        Body::Release(_) => "release",
        Body::Control(_) => "activation",
        Body::Tick(_) => "tick",
    }
}

fn event_of(body: &Body) -> Option<&Event> {
    match body {
        Body::Event(event) => Some(event),
        Body::Forward(forward) => Some(&forward.event),
        _ => None,
    }
}

fn text(body: &Body) -> Option<String> {
    match body {
        Body::Link(link) => Some(format!("linked to {} by event {}", link.to, link.by)),
        Body::Merge(merge) => Some(format!("took in {} by event {}", merge.from, merge.by)),
        Body::Release(release) => Some(format!("gave back {} by event {}", release.identity, release.by)),
        Body::Control(_) => Some("a model and policies were put in force".to_owned()),
        Body::Forward(forward) => forward.event.person.key().map(|key| format!("came for {key}")),
        Body::Event(_) | Body::Tick(_) => None,
    }
}

fn told(event: &Event) -> Told {
    Told {
        id: event.id.to_string(),
        signal: event.signal.name().to_owned(),
        name: event.name.as_ref().map(ToString::to_string),
        channel: event.channel.name().to_owned(),
        occurred_at: event.occurred_at.map(|at| at.to_string()),
        received_at: event.received_at.to_string(),
        amount_minor: event.money.map(|money| money.minor),
        currency: event.money.map(|money| money.currency.to_string()),
    }
}
