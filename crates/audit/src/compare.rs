//! The comparison of what must be with what is.
//!
//! Partition by partition: both sides come in the order of the customers' keys and are walked once, so that nothing but one
//! partition's recomputed records is in memory. Flags have an order of their own in the store and come after all partitions;
//! derived records are compared at the end, when both the partition that gave them and the one that took them are known.
//!
//! There is no tolerance: a byte is equal or it is not. What makes a comparison meaningless (another cut, a partition in the
//! midst of an activation, rows that cannot be read) is never a difference but "not measured".

use crate::decision::{ExpectedFlag, Flags};
use crate::fields::first_difference;
use crate::layout;
use crate::merkle::Merkle;
use crate::meta::{Books, Facts, InForce};
use crate::oracle::{Derived, Expected};
use crate::report::{Counts, Difference, Report, Roots, Verdict};
use crate::sample::Sample;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use vigie_event::{CustomerKey, FlagId, Offset, Origin, Partition, Workspace, partition_for};

/// What the store says of one partition: its facts, and its records in the order of their keys.
#[derive(Debug)]
pub struct Live<I> {
    /// The partition's meta row, see [`Facts::decode`].
    pub facts: Facts,
    /// Its customer records.
    pub customers: I,
}

/// An audit that is under way.
#[derive(Debug)]
pub struct Audit {
    sample: Sample,
    not_measured: Option<String>,
    counts: Counts,
    first: BTreeMap<Partition, Difference>,
    roots: BTreeMap<Partition, Roots>,
    tree_live: Merkle,
    tree_oracle: Merkle,
    events: u64,
    books: Books,
    customers: (u64, u64),
    flags: (u64, u64),
    /// Flags that no live row has been found for yet.
    open: Flags,
    next: BTreeMap<Partition, Offset>,
    given: BTreeMap<(Partition, Origin), Derived>,
    taken: BTreeMap<(Partition, Origin), Derived>,
}

/// What is compared of a live flag. Numbers are kept as they are written: reading them could hide a difference.
#[derive(Deserialize)]
struct LiveFlag<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    workspace: Cow<'a, str>,
    #[serde(borrow)]
    customer: Cow<'a, str>,
    #[serde(borrow)]
    policy: Cow<'a, str>,
    #[serde(borrow)]
    policy_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    score: LiveScore<'a>,
    #[serde(borrow)]
    raised_at: Cow<'a, str>,
    #[serde(borrow)]
    stage: Cow<'a, str>,
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    band: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LiveScore<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(borrow)]
    threshold: &'a RawValue,
}

impl Audit {
    /// An audit of the partitions of a sample. Each of them must come exactly once, in order.
    #[must_use]
    pub fn new(sample: Sample) -> Self {
        Self {
            sample,
            not_measured: None,
            counts: Counts::default(),
            first: BTreeMap::new(),
            roots: BTreeMap::new(),
            tree_live: Merkle::default(),
            tree_oracle: Merkle::default(),
            events: 0,
            books: Books::default(),
            customers: (0, 0),
            flags: (0, 0),
            open: BTreeMap::new(),
            next: BTreeMap::new(),
            given: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }

    /// Says that something could not be measured; the first reason is reported.
    pub fn not_measured(&mut self, reason: impl Display) {
        let _ = self.not_measured.get_or_insert_with(|| reason.to_string());
    }

    /// Compares one partition.
    pub fn partition<I, B, E>(&mut self, expected: Expected, live: Live<I>)
    where
        I: IntoIterator<Item = Result<(CustomerKey, B), E>>,
        B: AsRef<[u8]>,
        E: Display,
    {
        let partition = expected.partition;
        if !self.sample.holds(partition) || self.next.keys().next_back().is_some_and(|last| *last >= partition) {
            return self.not_measured(format!("partition {partition} is not in the sample, or out of turn"));
        }
        if live.facts.busy {
            return self.not_measured(format!("partition {partition} is in the midst of an activation"));
        }
        let (next, theirs) = (expected.facts.next, live.facts.next);
        if next != theirs {
            return self.not_measured(format!(
                "partition {partition} is recomputed up to offset {next}, the store stands at {theirs}"
            ));
        }
        let _ = self.next.insert(partition, next);
        self.events += expected.events;
        self.customers(partition, next, expected.customers, live.customers);
        self.facts(partition, &expected.facts, &live.facts);
        for (origin, repeated) in expected.unlike {
            self.counts.record_diff += 1;
            let first = expected.taken.get(&origin).map_or_else(String::new, shown_digest);
            let field = format!("{} derived from {}, repeated", repeated.kind, shown_origin(origin));
            let sides = (shown_digest(&repeated), first);
            self.differs(partition, "record_diff", Some(&repeated.customer), &field, sides);
        }
        self.flags.0 += expected.flags.len() as u64;
        self.open.extend(expected.flags);
        self.given.extend(expected.given);
        let taken = expected.taken.into_iter();
        self.taken
            .extend(taken.map(|(origin, derived)| ((partition, origin), derived)));
    }

    fn customers<B: AsRef<[u8]>, E: Display>(
        &mut self,
        partition: Partition,
        next: Offset,
        expected: Vec<(CustomerKey, Vec<u8>)>,
        rows: impl IntoIterator<Item = Result<(CustomerKey, B), E>>,
    ) {
        let (mut live, mut oracle) = (Merkle::default(), Merkle::default());
        expected.iter().for_each(|(key, state)| oracle.customer(key, state));
        self.customers.0 += expected.len() as u64;
        let mut expected = expected.into_iter().peekable();
        let mut before: Option<CustomerKey> = None;
        for row in rows {
            let (key, bytes) = match row {
                Ok(row) => row,
                Err(error) => return self.not_measured(format!("the live store cannot be read: {error}")),
            };
            if before.as_ref().is_some_and(|before| *before >= key) {
                return self.not_measured(format!("the live records of partition {partition} are not in order"));
            }
            // What an earlier release wrote and nothing has touched since says the same in other bytes.
            let bytes = &*layout::current(bytes.as_ref());
            live.customer(&key, bytes);
            self.customers.1 += 1;
            while let Some((absent, state)) = expected.next_if(|(next, _)| *next < key) {
                self.missing(partition, &absent, &state);
            }
            match expected.next_if(|(next, _)| *next == key) {
                Some((_, state)) if state == bytes => {}
                Some((_, state)) => {
                    self.counts.state_diff += 1;
                    let (field, live, oracle) = first_difference(bytes, &state);
                    self.differs(partition, "state_diff", Some(&key), &field, (live, oracle));
                }
                None => {
                    self.counts.extra_live += 1;
                    let sides = (format!("{} bytes", bytes.len()), "absent".to_owned());
                    self.differs(partition, "extra_live", Some(&key), "record", sides);
                }
            }
            before = Some(key);
        }
        for (key, state) in expected {
            self.missing(partition, &key, &state);
        }
        let (live, oracle) = (live.root(), oracle.root());
        self.tree_live.partition(partition, live);
        self.tree_oracle.partition(partition, oracle);
        let roots = Roots {
            partition: partition.0,
            next: next.0,
            live: live.to_string(),
            oracle: oracle.to_string(),
        };
        let _ = self.roots.insert(partition, roots);
    }

    fn missing(&mut self, partition: Partition, key: &CustomerKey, state: &[u8]) {
        self.counts.missing_live += 1;
        let sides = ("absent".to_owned(), format!("{} bytes", state.len()));
        self.differs(partition, "missing_live", Some(key), "record", sides);
    }

    fn facts(&mut self, partition: Partition, expected: &Facts, live: &Facts) {
        for workspace in expected
            .books
            .keys()
            .chain(live.books.keys().filter(|of| !expected.books.contains_key(*of)))
        {
            let of = |facts: &Facts| facts.books.get(workspace).copied().unwrap_or_default();
            if of(live) != of(expected) {
                self.counts.books_diff += 1;
                let sides = (shown_books(&of(live)), shown_books(&of(expected)));
                self.differs_in(partition, "books_diff", Some(workspace), "books", sides);
            }
        }
        expected.books.values().for_each(|books| self.books.add(books));
        let mut differs = |field: &str, live: String, expected: String| {
            if live != expected {
                self.counts.meta_diff += 1;
                self.differs_in(partition, "meta_diff", None, field, (live, expected));
            }
        };
        differs("clock", live.clock.to_string(), expected.clock.to_string());
        differs(
            "in_force",
            shown_in_force(live.in_force),
            shown_in_force(expected.in_force),
        );
        differs("origins", shown_origins(live), shown_origins(expected));
    }

    /// Compares one flag row of the live store: its JSON body. Flags come in any order, after all partitions.
    pub fn flag(&mut self, workspace: &Workspace, body: &[u8]) {
        let Ok(flag) = serde_json::from_slice::<LiveFlag<'_>>(body) else {
            self.flags.1 += 1;
            self.counts.flag_extra += 1;
            let sides = (String::from_utf8_lossy(body).into_owned(), "readable JSON".to_owned());
            // Whose it was cannot be told any more.
            return self.differs_in(Partition(0), "flag_extra", Some(workspace), "flag", sides);
        };
        let known = FlagId::parse(&flag.id).and_then(|id| self.open.remove(&(workspace.clone(), id)));
        let Some(expected) = known else {
            let person = flag.customer.strip_prefix("anonymous:").unwrap_or(&flag.customer);
            let partition = partition_for(person, self.sample.of());
            if self.next.contains_key(&partition) {
                self.flags.1 += 1;
                self.counts.flag_extra += 1;
                let sides = (flag.id.to_string(), "absent".to_owned());
                let field = format!("flag of {} by {}", flag.customer, flag.policy);
                self.differs_in(partition, "flag_extra", Some(workspace), &field, sides);
            }
            return;
        };
        self.flags.1 += 1;
        let number = |number: f64| serde_json::to_string(&number).unwrap_or_default();
        let fields = [
            (
                "workspace",
                flag.workspace.as_ref(),
                expected.customer.workspace.to_string(),
            ),
            ("customer", flag.customer.as_ref(), expected.customer.person.to_string()),
            ("policy", flag.policy.as_ref(), expected.policy.clone()),
            (
                "policy_version",
                flag.policy_version.as_ref(),
                format!("{:016x}", expected.policy_version),
            ),
            ("kind", flag.kind.as_ref(), expected.kind.to_owned()),
            ("score.kind", flag.score.kind.as_ref(), expected.score.clone()),
            ("score.value", flag.score.value.get(), number(expected.value)),
            (
                "score.threshold",
                flag.score.threshold.get(),
                number(expected.threshold),
            ),
            ("raised_at", flag.raised_at.as_ref(), expected.raised_at.to_string()),
            ("stage", flag.stage.as_ref(), expected.stage.to_owned()),
            ("model", flag.model.as_ref(), expected.model.clone()),
            (
                "band",
                flag.band.map_or("", RawValue::get),
                expected.band.clone().unwrap_or_default(),
            ),
        ];
        if let Some((field, live, oracle)) = fields.into_iter().find(|(_, live, oracle)| live != oracle) {
            self.counts.flag_diff += 1;
            let partition = partition_for(expected.customer.person.as_str(), self.sample.of());
            let field = format!("flag {}.{field}", expected.id);
            let sides = (live.to_owned(), oracle);
            self.differs(partition, "flag_diff", Some(&expected.customer), &field, sides);
        }
    }

    /// The result.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let absent: Vec<ExpectedFlag> = std::mem::take(&mut self.open).into_values().collect();
        for flag in absent {
            self.counts.flag_missing += 1;
            let partition = partition_for(flag.customer.person.as_str(), self.sample.of());
            let sides = ("absent".to_owned(), format!("by {} at {}", flag.policy, flag.raised_at));
            let field = format!("flag {}", flag.id);
            self.differs(partition, "flag_missing", Some(&flag.customer), &field, sides);
        }
        let (derived, in_flight, unchecked) = self.derived();
        let waiting = self
            .sample
            .chosen()
            .find(|partition| !self.next.contains_key(partition));
        if let Some(partition) = waiting {
            self.not_measured(format!("partition {partition} was not compared"));
        }
        let verdict = match self.not_measured.take() {
            // A difference is a difference, whatever else could not be measured.
            _ if self.counts.total() > 0 => Verdict::Different,
            Some(reason) => Verdict::NotMeasured(reason),
            None => Verdict::Equal,
        };
        Report {
            verdict,
            partitions: self.sample.of(),
            compared: u16::try_from(self.next.len()).unwrap_or(u16::MAX),
            events: self.events,
            books: self.books,
            customers: self.customers.0,
            customers_live: self.customers.1,
            flags: self.flags.0,
            flags_live: self.flags.1,
            derived,
            in_flight,
            unchecked,
            counts: self.counts,
            first: self.first.into_values().collect(),
            root_live: self.tree_live.root().to_string(),
            root_oracle: self.tree_oracle.root().to_string(),
            roots: self.roots.into_values().collect(),
        }
    }

    /// Compares what partitions gave each other; answers how many records were compared, are in flight, cannot be checked.
    fn derived(&mut self) -> (u64, u64, u64) {
        let (mut compared, mut in_flight, mut unchecked) = (0, 0, 0);
        let given = std::mem::take(&mut self.given);
        let mut taken = std::mem::take(&mut self.taken);
        // The latest that a partition's log holds of each source: what is missing before it will not come any more.
        let mut latest: BTreeMap<(Partition, Partition), Origin> = BTreeMap::new();
        for (target, origin) in taken.keys() {
            let seen = latest.entry((*target, origin.position.partition)).or_insert(*origin);
            *seen = (*seen).max(*origin);
        }
        for ((target, origin), expected) in given {
            let later = latest
                .get(&(target, origin.position.partition))
                .is_some_and(|latest| *latest > origin);
            match taken.remove(&(target, origin)) {
                Some(found) if found == expected => compared += 1,
                Some(found) => {
                    compared += 1;
                    self.counts.record_diff += 1;
                    let sides = (shown_digest(&found), shown_digest(&expected));
                    let field = format!("{} derived from {}", expected.kind, shown_origin(origin));
                    self.differs(target, "record_diff", Some(&expected.customer), &field, sides);
                }
                None if !self.next.contains_key(&target) => unchecked += 1,
                None if later => {
                    self.counts.lost += 1;
                    let sides = ("absent".to_owned(), shown_digest(&expected));
                    let field = format!("{} derived from {}", expected.kind, shown_origin(origin));
                    self.differs(target, "lost", Some(&expected.customer), &field, sides);
                }
                None => in_flight += 1,
            }
        }
        for ((target, origin), found) in taken {
            let source = origin.position.partition;
            // A step appends before it commits: the cause of a derived record may lie beyond its own partition's cut.
            if self
                .next
                .get(&source)
                .is_none_or(|next| origin.position.offset >= *next)
            {
                unchecked += 1;
                continue;
            }
            self.counts.phantom += 1;
            let sides = (shown_digest(&found), "absent".to_owned());
            let field = format!("{} derived from {}", found.kind, shown_origin(origin));
            self.differs(target, "phantom", Some(&found.customer), &field, sides);
        }
        (compared, in_flight, unchecked)
    }

    fn differs(
        &mut self,
        partition: Partition,
        kind: &'static str,
        customer: Option<&CustomerKey>,
        field: &str,
        (live, oracle): (String, String),
    ) {
        let _ = self.first.entry(partition).or_insert_with(|| Difference {
            partition: partition.0,
            kind,
            workspace: customer.map(|key| key.workspace.to_string()),
            customer: customer.map(|key| key.person.to_string()),
            field: field.to_owned(),
            live,
            oracle,
            explain: customer.map(explain),
        });
    }

    fn differs_in(
        &mut self,
        partition: Partition,
        kind: &'static str,
        workspace: Option<&Workspace>,
        field: &str,
        (live, oracle): (String, String),
    ) {
        let _ = self.first.entry(partition).or_insert_with(|| Difference {
            partition: partition.0,
            kind,
            workspace: workspace.map(Workspace::to_string),
            customer: None,
            field: field.to_owned(),
            live,
            oracle,
            explain: None,
        });
    }
}

/// Compares everything at once: recomputed partitions with what the store says of each, then all its flags.
pub fn compare<I, B, E, F>(
    sample: Sample,
    expected: impl IntoIterator<Item = Expected>,
    mut live: impl FnMut(Partition) -> Result<Live<I>, E>,
    flags: impl IntoIterator<Item = Result<(Workspace, F), E>>,
) -> Report
where
    I: IntoIterator<Item = Result<(CustomerKey, B), E>>,
    B: AsRef<[u8]>,
    F: AsRef<[u8]>,
    E: Display,
{
    let mut audit = Audit::new(sample);
    for expected in expected {
        if !audit.sample.holds(expected.partition) {
            continue;
        }
        match live(expected.partition) {
            Ok(live) => audit.partition(expected, live),
            Err(error) => audit.not_measured(format!("the live store cannot be read: {error}")),
        }
    }
    for row in flags {
        match row {
            Ok((workspace, body)) => audit.flag(&workspace, body.as_ref()),
            Err(error) => audit.not_measured(format!("the live flags cannot be read: {error}")),
        }
    }
    audit.finish()
}

/// The command that shows how a customer's record came about, ready for a shell.
fn explain(key: &CustomerKey) -> String {
    let quoted = |text: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@/+".contains(c);
        if text.chars().all(plain) && !text.starts_with('-') {
            text
        } else {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
    };
    let (customer, workspace) = (quoted(key.person.to_string()), quoted(key.workspace.to_string()));
    format!("vigie explain {customer} --workspace {workspace}")
}

fn shown_books(books: &Books) -> String {
    format!(
        "applied {} duplicate {} suppressed {} dead letter {} conflict {}",
        books.applied, books.duplicate, books.suppressed, books.dead_letter, books.conflict
    )
}

fn shown_in_force(in_force: Option<InForce>) -> String {
    in_force.map_or_else(
        || "none".to_owned(),
        |active| {
            format!(
                "model {:016x}, policies {:016x}, by {}",
                active.model, active.policies, active.at
            )
        },
    )
}

fn shown_origin(origin: Origin) -> String {
    format!("{}#{}", origin.position, origin.index)
}

fn shown_origins(facts: &Facts) -> String {
    let shown: Vec<String> = facts.origins.values().map(|origin| shown_origin(*origin)).collect();
    shown.join(" ")
}

fn shown_digest(derived: &Derived) -> String {
    let digest: String = derived
        .digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{} {digest}…", derived.kind)
}
