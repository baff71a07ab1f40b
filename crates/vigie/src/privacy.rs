//! What a person may ask for (`POST /v1/privacy/{export,object,prove}`, admin keys): a copy of everything that is kept about
//! them, that nobody profiles them any more, and the proof of what they said.
//!
//! A person is the customer record that holds them now, with every identity that was linked into it. An objection is an event
//! like any other: durable before it is answered, part of the log, and therefore in force in every replay and rebuild. The
//! proof is read from the archived log, never from the record; its statements are chained by hashes, so that one that was
//! changed or taken out afterwards shows.
//!
//! Erasure is not here. The log, the archive and backups are append-only, and a promise that something is gone must hold
//! after a replay, a rebuild and a restore; what that takes:
//! 1. a control record `Erase { workspace, identities as salted hashes, at }`, folded by worker, replay and oracle alike: the
//!    record is dropped, and later records of these identities are suppressed;
//! 2. a rewrite of archive files and log segments that hold the person's bytes, under the same names and offsets, each record
//!    replaced by a stub of the same position, committed through the manifest, with the audit's roots computed over stubs;
//! 3. a ledger of the salted hashes outside the data directory's backups, applied when an older state is restored;
//! 4. the same for the journal of dead letters, the Kafka topic (a tombstone per key, with compaction) and outputs.
//!
//! Per-person keys (crypto-shredding) would make 2 instant, at the price of a key store that must never be restored.

mod people;

use crate::auditor::problem;
use crate::backends::{AnyLog, AnyStore};
use crate::cli::{Failure, Format, RemoteArgs, print};
use crate::client::{Server, table};
use crate::past::Service;
use anyhow::{Result, anyhow};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use vigie_archive::Wanted as Reading;
use vigie_archive::sql::Filter;
use vigie_event::{
    Body, ConsentState, CustomerKey, Event, Forward, Judgement, PersonId, Position, Purpose, Record, Workspace,
};
use vigie_ingestion::intake::Intake;
use vigie_ingestion::keys::{KeyKind, Keys};
use vigie_scoring::CustomerState;
use vigie_serve::{Past, PastError, Question};
use vigie_store::Store;

/// What the routes add to the OpenAPI document.
pub(crate) const OPENAPI: &str = include_str!("privacy.json");
/// Records that are followed from an identity to the one that holds the person now.
const MAX_LINKS: usize = 8;
/// Dead letters of a workspace that an export looks through, newest first.
const MAX_LETTERS: usize = 100_000;

/// See the module.
#[derive(Clone)]
pub(crate) struct Privacy {
    pub(crate) past: Service<AnyStore>,
    pub(crate) intake: Intake<AnyLog>,
    pub(crate) keys: Arc<Keys>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    user_id: Option<String>,
    anonymous_id: Option<String>,
    /// What an objection is against; profiling and marketing unless said otherwise.
    purposes: Option<Vec<Purpose>>,
    /// Where the objection came from, in words of the one who notes it ("letter of 3 May").
    source: Option<String>,
    /// What becomes of what is in quarantine; without it, it is only shown.
    decision: Option<people::Decision>,
}

impl Asked {
    fn person(&self) -> Option<PersonId> {
        match (&self.user_id, &self.anonymous_id) {
            (Some(user), None) => PersonId::known(user).ok(),
            (None, Some(anonymous)) => PersonId::anonymous(anonymous).ok(),
            _ => None,
        }
    }
}

/// The record that holds a person, and every identity in it.
struct Subject {
    key: CustomerKey,
    state: Option<CustomerState>,
    identities: BTreeSet<PersonId>,
}

/// An event of the person, where it stands.
struct Found {
    position: Position,
    event: Event,
}

impl Privacy {
    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/v1/privacy/export", post(export))
            .route("/v1/privacy/object", post(object))
            .route("/v1/privacy/prove", post(prove))
            .merge(people::routes())
            .with_state(self)
    }

    /// The workspace of the admin key and what is asked.
    fn allowed(&self, headers: &HeaderMap, body: &[u8]) -> Result<(Workspace, PersonId, Asked), Box<Response>> {
        let refused = |status, code, detail: &str| Err(Box::new(problem(status, code, detail)));
        let key = vigie_ingestion::http::presented_key(headers);
        let credential = key.and_then(|key| self.keys.current().find(&key));
        let workspace = match credential {
            Some(credential) if credential.kind == KeyKind::Admin => credential.workspace.clone(),
            Some(_) => return refused(StatusCode::FORBIDDEN, "key_scope", "rights of people need an admin key"),
            None => {
                let detail = "send an admin key as Authorization: Bearer <key>";
                return refused(StatusCode::UNAUTHORIZED, "unauthenticated", detail);
            }
        };
        let asked: Option<Asked> = serde_json::from_slice(body).ok();
        match asked.and_then(|asked| Some((asked.person()?, asked))) {
            Some((person, asked)) => Ok((workspace, person, asked)),
            None => {
                let detail = "the body is {\"user_id\": …} or {\"anonymous_id\": …}; it may add source, an objection purposes, a quarantine decision";
                refused(StatusCode::BAD_REQUEST, "bad_person", detail)
            }
        }
    }

    async fn subject(&self, workspace: Workspace, person: PersonId) -> Result<Subject> {
        let mut identities = BTreeSet::from([person.clone()]);
        let mut key = CustomerKey::new(workspace, person);
        let mut state = None;
        for _ in 0..MAX_LINKS {
            let stored = self
                .past
                .store
                .load(std::slice::from_ref(&key))
                .await?
                .into_iter()
                .next()
                .flatten();
            let Some(bytes) = stored else { break };
            let found = CustomerState::decode(&bytes)?;
            identities.extend(found.parts.keys().chain(&found.known_links).cloned());
            let target = found.linked_to.clone();
            state = Some(found);
            match target {
                Some(target) => {
                    let _new = identities.insert(target.clone());
                    key.person = target;
                }
                None => break,
            }
        }
        Ok(Subject { key, state, identities })
    }

    /// Every event that names one of the identities, in the order of the log.
    async fn events(&self, subject: &Subject) -> Result<Vec<Found>> {
        let condition = format!(
            "workspace = {} AND {}",
            quoted(subject.key.workspace.as_str()),
            subject.condition()
        );
        let filter = Filter::parse(&condition, (self.past.clock)())?;
        // The tail first: what moves into the archive meanwhile is then seen twice rather than not at all.
        let tail = self.past.tail().await?;
        let mut reader = self.past.archive.read(Reading {
            payload: true,
            filter: Some(filter),
            ..Reading::default()
        });
        let mut found = Vec::new();
        while let Some(portion) = reader.next().await? {
            for row in portion {
                let record = row
                    .record
                    .map_err(|error| anyhow!("record at {}: {error}", row.position))?;
                found.extend(event_of(record).map(|event| (row.position, event)));
            }
        }
        for row in tail {
            let record = Record::decode(&row.bytes).map_err(|error| anyhow!("record at {}: {error}", row.position))?;
            let settled = !matches!(row.judgement, Judgement::Forwarded | Judgement::Repeated);
            let event = event_of(record).filter(|event| settled && subject.names(event));
            found.extend(event.map(|event| (row.position, event)));
        }
        found.sort_by_key(|(position, _)| *position);
        found.dedup_by_key(|(position, _)| *position);
        Ok(found
            .into_iter()
            .map(|(position, event)| Found { position, event })
            .collect())
    }

    async fn table(&self, workspace: &Workspace, sql: String) -> Result<Value> {
        let question = Question {
            sql,
            format: Some("json".to_owned()),
            limit: None,
        };
        let answer = self
            .past
            .query(workspace.clone(), question)
            .await
            .map_err(|error| match error {
                PastError::Question(text) | PastError::TooCostly(text) | PastError::Unavailable(text) => anyhow!(text),
                PastError::UnknownCustomer => anyhow!("no such customer"),
            })?;
        if answer.truncated {
            return Err(anyhow!(
                "there is more than query.max-rows allows; raise it for this export"
            ));
        }
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Everything that is kept about a person.
    async fn export(&self, workspace: Workspace, person: PersonId) -> Result<Value> {
        let subject = self.subject(workspace.clone(), person).await?;
        let events = self.events(&subject).await?;
        let customer = quoted(&subject.key.person.to_string());
        let scores = self.table(
            &workspace,
            format!("SELECT * FROM customers WHERE customer = {customer}"),
        );
        let flags = self.table(&workspace, format!("SELECT * FROM flags WHERE customer = {customer}"));
        let (scores, flags) = (scores.await?, flags.await?);
        let mut letters = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.past.letters.list(&workspace, cursor, 1000).await?;
            for stored in page.letters {
                let raw = String::from_utf8_lossy(&stored.letter.raw).into_owned();
                if subject
                    .identities
                    .iter()
                    .any(|identity| raw.contains(&in_json(identity.as_str())))
                {
                    letters.push(json!({
                        "id": stored.id.to_string(), "received_at": stored.letter.received_at.to_string(),
                        "code": stored.letter.code.label(), "raw": raw,
                    }));
                }
            }
            cursor = page.next;
            if cursor.is_none() || letters.len() >= MAX_LETTERS {
                break;
            }
        }
        let told: Vec<Value> = events.iter().map(Found::told).collect();
        let record = subject.state.as_ref().map(|state| hex(&Sha256::digest(state.encode())));
        Ok(json!({
            "customer": subject.key.person.to_string(), "identities": subject.names_of(), "as_of": (self.past.clock)().to_string(),
            "events": told, "scores": scores, "flags": flags, "dead_letters": letters, "consent": chain(&events),
            "record_sha256": record,
        }))
    }

    /// Notes an objection; it is in force as soon as it is folded, and in every replay.
    async fn object(&self, workspace: Workspace, person: &PersonId, asked: &Asked) -> Result<Value> {
        let now = (self.past.clock)();
        let purposes = asked
            .purposes
            .clone()
            .unwrap_or_else(|| vec![Purpose::Profiling, Purpose::Marketing]);
        let consent: vigie_event::ConsentContext = purposes
            .into_iter()
            .map(|purpose| (purpose, ConsentState::Refused))
            .collect();
        let fields = json!({
            "name": "privacy.objection", "consent": consent,
            "properties": {"source": asked.source.as_deref().unwrap_or("privacy API")},
        });
        let id = self.record(workspace, person, ("object", fields), now).await?;
        Ok(json!({"recorded": id, "at": now.to_string(), "refused": consent}))
    }
}

impl Subject {
    /// The condition in SQL that an event names one of the identities.
    fn condition(&self) -> String {
        let list = |known: bool| {
            let ids = self.identities.iter().filter(|identity| identity.is_known() == known);
            let ids: Vec<String> = ids.map(|identity| quoted(identity.as_str())).collect();
            if ids.is_empty() {
                "NULL".to_owned()
            } else {
                ids.join(", ")
            }
        };
        format!(
            "(user_id IN ({}) OR (user_id IS NULL AND anonymous_id IN ({})))",
            list(true),
            list(false)
        )
    }

    fn names(&self, event: &Event) -> bool {
        event.workspace == self.key.workspace && event.person.key().is_some_and(|key| self.identities.contains(key))
    }

    fn names_of(&self) -> Vec<String> {
        self.identities.iter().map(ToString::to_string).collect()
    }
}

impl Found {
    fn told(&self) -> Value {
        let event = &self.event;
        let payload: Value = serde_json::from_str(&event.payload).unwrap_or_else(|_| json!(event.payload));
        json!({
            "position": self.position.to_string(), "id": event.id.as_str(), "received_at": event.received_at.to_string(),
            "occurred_at": event.occurred_at.map(|at| at.to_string()), "signal": event.signal.name(),
            "name": event.name.as_deref(), "source": event.source.name(), "consent": event.consent, "payload": payload,
        })
    }
}

fn event_of(record: Record) -> Option<Event> {
    match record.body {
        Body::Event(event) | Body::Forward(Forward { event, .. }) => Some(*event),
        _ => None,
    }
}

/// What the person said, in the order of the log: each statement with its payload, where the wording and other proof stand,
/// and a hash over itself and the statement before.
fn chain(events: &[Found]) -> Value {
    let mut before = String::new();
    let mut seen = BTreeSet::new();
    let statements = events.iter().filter(|found| !found.event.consent.is_empty());
    // What a client repeated was said once.
    let statements = statements.filter(|found| seen.insert((found.event.id.clone(), found.event.fingerprint)));
    let chained: Vec<Value> = statements
        .map(|found| {
            let event = &found.event;
            let said: Vec<String> = event
                .consent
                .iter()
                .map(|(purpose, state)| format!("{purpose:?}={state:?}"))
                .collect();
            let payload = hex(&Sha256::digest(event.payload.as_bytes()));
            let text = format!(
                "{before}\n{}\n{}\n{}\n{payload}",
                event.id,
                event.received_at,
                said.join(",")
            );
            let hash = hex(&Sha256::digest(text));
            let statement = json!({
                "statement": found.told(), "proof": people::proof(&event.payload, event.occurred_at.unwrap_or(event.received_at)),
                "payload_sha256": payload, "previous": before, "hash": hash,
            });
            before.clone_from(&hash);
            statement
        })
        .collect();
    json!(chained)
}

/// A text as SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text as it stands in JSON, with its quotes.
fn in_json(text: &str) -> String {
    json!(text).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What can be asked for a person.
#[derive(Debug, Subcommand)]
pub(crate) enum Rights {
    /// Print everything that is kept about a person (access, portability)
    Export(Person),
    /// Note that a person objects: no profiling and no marketing from now on
    Object {
        #[command(flatten)]
        person: Person,
        /// Where the objection came from, such as "letter of 3 May"
        #[arg(long)]
        source: Option<String>,
    },
    /// Print what a person said about the use of their data, chained by hashes
    Prove(Person),
    /// Withdraw the link of an identity: both customers are as if they had never been one
    Unlink {
        #[command(flatten)]
        person: Person,
        /// Why, such as "shared tablet"
        #[arg(long)]
        source: Option<String>,
    },
    /// Show, confirm or dismiss unsubscriptions and complaints that a machine may have made
    Quarantine {
        #[command(flatten)]
        person: Person,
        /// What becomes of them; without it they are shown
        #[arg(long, value_enum)]
        decide: Option<people::Decision>,
    },
}

/// Whose rights.
#[derive(Debug, Args)]
pub(crate) struct Person {
    /// The customer's id; anonymous:ID for somebody without a known one
    person: String,
    #[command(flatten)]
    remote: RemoteArgs,
}

impl Rights {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut decision = None;
        let (route, person, source) = match self {
            Self::Export(person) => ("export", person, None),
            Self::Object { person, source } => ("object", person, source),
            Self::Prove(person) => ("prove", person, None),
            Self::Unlink { person, source } => ("unlink", person, source),
            Self::Quarantine { person, decide } => {
                decision = decide;
                ("quarantine", person, None)
            }
        };
        let mut asked = match person.person.strip_prefix("anonymous:") {
            Some(id) => json!({"anonymous_id": id}),
            None => json!({"user_id": person.person}),
        };
        if let (Some(source), Value::Object(fields)) = (source, &mut asked) {
            let _none = fields.insert("source".to_owned(), json!(source));
        }
        if let (Some(decision), Value::Object(fields)) = (decision, &mut asked) {
            let _none = fields.insert("decision".to_owned(), json!(decision));
        }
        let server = Server::new(&person.remote.url, &person.remote.key).patient();
        let answer = server.ask(&format!("/v1/privacy/{route}"), &asked)?;
        let told: Value = serde_json::from_slice(&answer.body)?;
        print(&match person.remote.output.output {
            Format::Json => format!("{told:#}\n"),
            Format::Text => table(&told),
        })
    }
}

async fn export(State(privacy): State<Privacy>, headers: HeaderMap, body: Bytes) -> Response {
    match privacy.allowed(&headers, &body) {
        Ok((workspace, person, _)) => answer(privacy.export(workspace, person).await),
        Err(refused) => *refused,
    }
}

async fn object(State(privacy): State<Privacy>, headers: HeaderMap, body: Bytes) -> Response {
    match privacy.allowed(&headers, &body) {
        Ok((workspace, person, asked)) => answer(privacy.object(workspace, &person, &asked).await),
        Err(refused) => *refused,
    }
}

async fn prove(State(privacy): State<Privacy>, headers: HeaderMap, body: Bytes) -> Response {
    let (workspace, person) = match privacy.allowed(&headers, &body) {
        Ok((workspace, person, _)) => (workspace, person),
        Err(refused) => return *refused,
    };
    let proof = async {
        let subject = privacy.subject(workspace, person).await?;
        let events = privacy.events(&subject).await?;
        Ok(
            json!({"customer": subject.key.person.to_string(), "identities": subject.names_of(),
                "now": people::words(&subject), "waiting": people::waiting(subject.state.as_ref()), "consent": chain(&events)}),
        )
    };
    answer(proof.await)
}

fn answer(outcome: Result<Value>) -> Response {
    match outcome {
        Ok(told) => {
            let mut response = Json(told).into_response();
            let private = HeaderValue::from_static("no-store, private");
            let _none = response.headers_mut().insert(header::CACHE_CONTROL, private);
            response
        }
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &format!("{error:#}")),
    }
}
