//! What reports are made of: the customers and flags of a store, and what its archive says that happened. It reads, and hands
//! what it has read to the builders of `vigie_relance::report`, which do the counting.

use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::sync::Arc;
use vigie_archive::sql::Filter;
use vigie_archive::{Archive, Row, Wanted};
use vigie_event::{
    Body, Control, CustomerKey, Event, Findings, FlagId, Judgement, Partition, PersonId, Record, Signal, Timestamp,
    Workspace,
};
use vigie_relance::report::losses::{self, Known, Losses, Raised};
use vigie_relance::report::policies::{self, Policies, Rule, Seen, Watch};
use vigie_relance::report::portfolio::{self, Portfolio};
use vigie_relance::{Flag, FlagKind, PolicySet, Rehearsal, Target};
use vigie_scoring::{CustomerState, Model};
use vigie_store::Store;

/// Rows read from the store in one call.
const PAGE: usize = 2_000;
/// Identities that are followed from one to the next.
const MAX_LINKS: usize = 64;
/// Longest reason that is told.
const REASON: usize = 80;

/// Everything that a report is made of.
pub(crate) struct Ground<'a, S> {
    pub(crate) store: &'a S,
    pub(crate) archive: &'a Archive,
    /// What is folded and not archived yet.
    pub(crate) tail: Vec<Row>,
    pub(crate) workspace: Workspace,
    pub(crate) model: &'a Model,
    pub(crate) policies: &'a PolicySet,
    pub(crate) now: Timestamp,
}

/// Identities and the ones that hold their records now.
type Links = BTreeMap<PersonId, PersonId>;

fn holder<'a>(links: &'a Links, person: &'a PersonId) -> &'a PersonId {
    let mut holder = person;
    for _ in 0..MAX_LINKS {
        match links.get(holder) {
            Some(into) => holder = into,
            None => break,
        }
    }
    holder
}

/// The customer whom a flag names.
fn person(customer: &str) -> Option<PersonId> {
    match customer.strip_prefix("anonymous:") {
        Some(anonymous) => PersonId::anonymous(anonymous),
        None => PersonId::known(customer),
    }
    .ok()
}

impl<S: Store> Ground<'_, S> {
    /// Whether policies work.
    pub(crate) async fn policies(&self) -> Result<Policies> {
        let mut links = Links::new();
        let mut rehearsal = Rehearsal::new(self.policies, self.model, self.now);
        self.customers(|key, state| {
            if let Some(into) = &state.linked_to {
                let _ = links.insert(key.person.clone(), into.clone());
            }
            rehearsal.add(key, state);
        })
        .await?;
        let refused = rehearsal
            .finish()
            .into_iter()
            .map(|(policy, own)| (policy, own.refused));
        let refused: BTreeMap<_, _> = refused.collect();
        let rules = self.rules().await?;
        let mut watches: Vec<Watch> = Vec::new();
        let mut of: BTreeMap<PersonId, Vec<usize>> = BTreeMap::new();
        let mut left_out = 0;
        for flag in self.flags().await? {
            let Some(watch) = Watch::new(&flag, rules.get(&flag.policy_version).cloned()) else {
                left_out += u64::from(flag.kind.is_raised());
                continue;
            };
            let Some(person) = person(&flag.customer) else {
                left_out += 1;
                continue;
            };
            of.entry(holder(&links, &person).clone())
                .or_default()
                .push(watches.len());
            watches.push(watch);
        }
        let activity = rules.values().any(|rule| rule.policy.target == Target::Activity);
        let wanted = Wanted {
            judgement: true,
            filter: if activity {
                None
            } else {
                Some(Filter::parse(&one_of(OUTCOMES), self.now)?)
            },
            ..Wanted::default()
        };
        self.events(wanted, |person, event, findings| {
            let Some(own) = of.get(holder(&links, person)) else {
                return;
            };
            let seen = Seen {
                at: findings.at,
                signal: findings.signal,
                channel: findings.channel,
                human: findings.human_permille >= 500,
                money: event.money.map(|money| (money.currency, money.minor)),
                flag: event.order.as_deref().and_then(FlagId::parse),
            };
            for index in own {
                if let Some(watch) = watches.get_mut(*index) {
                    watch.see(&seen);
                }
            }
        })
        .await?;
        Ok(policies::report(
            &watches,
            &self.policies.policies,
            &refused,
            left_out,
            self.now,
        ))
    }

    /// Who makes up the value.
    pub(crate) async fn portfolio(&self) -> Result<Portfolio> {
        let mut builder = portfolio::Builder::new(self.model, self.now);
        self.customers(|key, state| builder.add(key, state)).await?;
        Ok(builder.finish())
    }

    /// Why customers were lost.
    pub(crate) async fn losses(&self, since: Timestamp) -> Result<Losses> {
        let mut links = Links::new();
        self.customers(|key, state| {
            if let Some(into) = &state.linked_to {
                let _ = links.insert(key.person.clone(), into.clone());
            }
        })
        .await?;
        let mut known: BTreeMap<PersonId, Known> = BTreeMap::new();
        let mut flags: BTreeMap<FlagId, (PersonId, usize)> = BTreeMap::new();
        for flag in self.flags().await? {
            let read = (
                person(&flag.customer),
                FlagId::parse(&flag.id),
                Timestamp::parse(&flag.raised_at),
            );
            let (Some(person), Some(id), Ok(at)) = read else {
                continue;
            };
            if !flag.kind.is_raised() {
                continue;
            }
            let person = holder(&links, &person).clone();
            let own = known.entry(person.clone()).or_default();
            let _ = flags.insert(id, (person, own.flags.len()));
            own.flags.push(Raised {
                at,
                held_out: flag.kind == FlagKind::HeldOut,
                contacted: false,
            });
        }
        let wanted = Wanted {
            judgement: true,
            payload: true,
            filter: Some(Filter::parse(
                &format!("{} OR name = 'churn.reason'", one_of(WORDS)),
                self.now,
            )?),
            ..Wanted::default()
        };
        self.events(wanted, |person, event, findings| {
            let flag = event.order.as_deref().and_then(FlagId::parse);
            let contacts = [Signal::RelanceContacted, Signal::ContactSent, Signal::CallOutbound];
            if contacts.contains(&findings.signal)
                && let Some((person, index)) = flag.and_then(|flag| flags.get(&flag))
                && let Some(raised) = known.get_mut(person).and_then(|known| known.flags.get_mut(*index))
            {
                raised.contacted = true;
            }
            let says = event.name.as_deref() == Some("churn.reason")
                || matches!(findings.signal, Signal::RelanceLost | Signal::SubscriptionCancelled);
            let complains = findings.signal == Signal::ComplaintOpened;
            if !says && !complains {
                return;
            }
            let Some(reason) = reason(&event.payload) else { return };
            let own = known.entry(holder(&links, person).clone()).or_default();
            if says {
                own.said = vec![reason];
            } else {
                let _ = own.complaints.insert(reason);
            }
        })
        .await?;
        let mut builder = losses::Builder::new(self.model, since, self.now);
        let nothing = Known::default();
        self.customers(|key, state| builder.add(key, state, known.get(&key.person).unwrap_or(&nothing)))
            .await?;
        Ok(builder.finish())
    }

    /// Every record of the workspace, signposts included.
    async fn customers(&self, mut take: impl FnMut(&CustomerKey, &CustomerState)) -> Result<()> {
        for partition in (0..self.store.partitions()).map(Partition) {
            let mut after: Option<CustomerKey> = None;
            loop {
                let page = self.store.scan(partition, after, PAGE).await?;
                let complete = page.len() < PAGE;
                after = page.last().map(|(key, _)| key.clone());
                for (key, bytes) in page {
                    if key.workspace == self.workspace {
                        let state = CustomerState::decode(&bytes).map_err(|error| anyhow!("{key}: {error}"))?;
                        take(&key, &state);
                    }
                }
                // Other requests get a turn.
                tokio::task::yield_now().await;
                if complete {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn flags(&self) -> Result<Vec<Flag>> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let rows = self.store.flags(&self.workspace, after, PAGE).await?;
            let complete = rows.len() < PAGE;
            for (number, body) in rows {
                after = number;
                all.push(serde_json::from_slice(&body).with_context(|| format!("flag {number}"))?);
            }
            if complete {
                return Ok(all);
            }
        }
    }

    /// Every policy that was ever in force, by its version.
    async fn rules(&self) -> Result<BTreeMap<String, Arc<Rule>>> {
        let mut rules: BTreeMap<String, Arc<Rule>> = BTreeMap::new();
        let mut note = |set: &PolicySet| {
            for policy in &set.policies {
                let rule = || {
                    Arc::new(Rule {
                        policy: policy.clone(),
                        economics: set.economics.clone(),
                    })
                };
                let _ = rules.entry(format!("{:016x}", policy.version)).or_insert_with(rule);
            }
        };
        note(self.policies);
        let mut reader = self.archive.read(Wanted {
            filter: Some(Filter::parse("kind = 'control'", self.now)?),
            ..Wanted::default()
        });
        let mut met = None;
        let mut control = |record: &Record| {
            if let Body::Control(Control::Activate { policies, .. }) = &record.body
                && met.as_deref() != Some(&**policies)
            {
                // What was in force was valid when it was.
                if let Ok(set) = PolicySet::parse(policies) {
                    note(&set);
                }
                met = Some(policies.to_string());
            }
        };
        while let Some(portion) = reader.next().await? {
            portion.iter().flat_map(|row| &row.record).for_each(&mut control);
        }
        for row in &self.tail {
            if let Ok(record) = Record::decode(&row.bytes) {
                control(&record);
            }
        }
        Ok(rules)
    }

    /// Events of the workspace that took effect, with whose record took them.
    async fn events(&self, wanted: Wanted, mut take: impl FnMut(&PersonId, &Event, &Findings)) -> Result<()> {
        let mut one = |record: Record, judgement: Option<Judgement>| {
            let (event, into) = match record.body {
                Body::Event(event) => (event, None),
                Body::Forward(forward) => (forward.event, Some(forward.into)),
                _ => return,
            };
            let person = into.as_ref().or(event.person.key());
            if let (Some(Judgement::Applied(findings)), Some(person)) = (judgement, person)
                && event.workspace == self.workspace
            {
                take(person, &event, &findings);
            }
        };
        let mut reader = self.archive.read(wanted);
        while let Some(portion) = reader.next().await? {
            for row in portion {
                // What cannot be decoded took no effect.
                if let Ok(record) = row.record {
                    one(record, row.judgement);
                }
            }
        }
        for row in &self.tail {
            if let Ok(record) = Record::decode(&row.bytes) {
                one(record, Some(row.judgement));
            }
        }
        Ok(())
    }
}

/// What a flag's outcome may depend on, unless it is any sign of life.
const OUTCOMES: &[Signal] = &[
    Signal::Purchase,
    Signal::Refund,
    Signal::EmailUnsubscribe,
    Signal::EmailComplaint,
    Signal::ComplaintOpened,
    Signal::ContactSent,
    Signal::ContactAnswered,
    Signal::CallOutbound,
    Signal::RelanceClaimed,
    Signal::RelanceContacted,
    Signal::RelanceReturned,
    Signal::RelanceLost,
    Signal::RelanceRecalled,
];

/// What may tell why somebody was lost.
const WORDS: &[Signal] = &[
    Signal::ContactSent,
    Signal::CallOutbound,
    Signal::RelanceContacted,
    Signal::RelanceLost,
    Signal::SubscriptionCancelled,
    Signal::ComplaintOpened,
];

/// The condition that an event is one of these.
fn one_of(signals: &[Signal]) -> String {
    let names: Vec<String> = signals.iter().map(|signal| format!("'{}'", signal.name())).collect();
    format!("signal IN ({})", names.join(", "))
}

/// The reason that an event names in its properties: `reason`, `cause` or `category`. What agents write in their own words is
/// about one person, and no cause of many.
fn reason(payload: &str) -> Option<String> {
    let payload: serde_json::Value = serde_json::from_str(payload).ok()?;
    let properties = payload.get("properties")?;
    let named = ["reason", "cause", "category"].iter();
    let text = named
        .filter_map(|name| properties.get(name)?.as_str())
        .map(str::trim)
        .find(|text| !text.is_empty())?;
    Some(text.chars().filter(|c| !c.is_control()).take(REASON).collect())
}
