//! What an operator decides about who somebody is and what they said (`POST /v1/privacy/{unlink,quarantine}`, admin keys):
//! a link between identities is withdrawn; an unsubscription or complaint in quarantine is confirmed or dismissed.
//!
//! Each decision is an event like any other, durable before it is answered, and therefore in force in every replay:
//! `identity.unlink` of the identity that leaves; a refusal of marketing, which confirms; `quarantine.dismissed`, which says that
//! all that waits was a machine's. Nothing is decided here, and nothing is written to the store.

use super::{Privacy, Subject, answer, hex};
use crate::auditor::problem;
use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vigie_event::json::{Receipt, read};
use vigie_event::{ConsentState, PersonId, Purpose, Signal, Timestamp, Workspace};
use vigie_scoring::CustomerState;

/// What becomes of what is in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    /// The person said it: marketing is refused
    Confirm,
    /// A machine did it: it never counts
    Dismiss,
}

pub(super) fn routes() -> Router<Privacy> {
    Router::new()
        .route("/v1/privacy/unlink", post(unlink))
        .route("/v1/privacy/quarantine", post(quarantine))
}

impl Privacy {
    /// Records an event about a person, named by what it does.
    pub(super) async fn record(
        &self,
        workspace: Workspace,
        person: &PersonId,
        (what, fields): (&str, Value),
        now: Timestamp,
    ) -> Result<String> {
        let digest = Sha256::digest(format!("{workspace}\n{person}\n{now}"));
        let id = format!("privacy:{what}:{}", hex(&digest));
        let (user, anonymous) = match person {
            PersonId::Known(id) => (Some(id.as_str()), None),
            PersonId::Anonymous(id) => (None, Some(id.as_str())),
        };
        let mut body = json!({
            "id": id, "user_id": user, "anonymous_id": anonymous, "timestamp": now.to_string(),
        });
        if let (Value::Object(body), Value::Object(fields)) = (&mut body, fields) {
            body.extend(fields);
        }
        let receipt = Receipt {
            workspace,
            received_at: now,
            sent_at: None,
            user_agent: None,
            oldest: None,
        };
        let event =
            read(&body.to_string(), &receipt).map_err(|invalid| anyhow!("{}: {}", invalid.field, invalid.code))?;
        let _outcomes = self
            .intake
            .accept(vec![Ok(event)])
            .await
            .context("it is not recorded; try again")?;
        Ok(id)
    }

    async fn unlink(&self, workspace: Workspace, person: PersonId, source: Option<&str>) -> Result<Option<Value>> {
        let subject = self.subject(workspace.clone(), person.clone()).await?;
        if subject.key.person == person {
            return Ok(None);
        }
        let now = (self.past.clock)();
        let fields = json!({
            "signal": Signal::Unlink.name(), "properties": {"source": source.unwrap_or("privacy API")},
        });
        let id = self.record(workspace, &person, ("unlink", fields), now).await?;
        Ok(Some(json!({
            "recorded": id, "at": now.to_string(), "identity": person.to_string(), "leaves": subject.key.person.to_string(),
        })))
    }

    async fn quarantine(
        &self,
        workspace: Workspace,
        person: &PersonId,
        decision: Option<Decision>,
        source: Option<&str>,
    ) -> Result<Value> {
        let subject = self.subject(workspace.clone(), person.clone()).await?;
        let mut told = json!({"customer": subject.key.person.to_string(), "waiting": waiting(subject.state.as_ref())});
        let source = source.unwrap_or("privacy API");
        let now = (self.past.clock)();
        let fields = match decision {
            None => return Ok(told),
            Some(Decision::Confirm) => json!({
                "name": "privacy.quarantine_confirmed", "consent": {"marketing": "refused"}, "properties": {"source": source},
            }),
            Some(Decision::Dismiss) => {
                json!({"signal": Signal::QuarantineDismissed.name(), "properties": {"source": source}})
            }
        };
        let id = self.record(workspace, person, ("quarantine", fields), now).await?;
        if let Value::Object(told) = &mut told {
            let _none = told.insert("recorded".to_owned(), json!(id));
            let _none = told.insert("decision".to_owned(), json!(decision));
        }
        Ok(told)
    }
}

/// What is in quarantine, each with its evidence.
pub(super) fn waiting(state: Option<&CustomerState>) -> Vec<Value> {
    let held = state.into_iter().flat_map(|state| state.quarantine.held());
    let told = held.map(|held| {
        json!({
            "at": held.at.to_string(), "identity": held.identity.to_string(), "signal": held.signal.name(),
            "evidence": held.doubt.label(), "meaning": held.doubt.hint(),
        })
    });
    told.collect()
}

/// What holds for each purpose now: granted, refused, or unknown, and since when.
pub(super) fn words(subject: &Subject) -> Value {
    let said = |purpose: Purpose| subject.state.as_ref().and_then(|state| state.consent.get(&purpose));
    let told = |purpose: Purpose| match said(purpose) {
        None => json!({"state": "unknown"}),
        // Nothing was said, and the workspace takes that for a refusal.
        Some(said) if said.at == Timestamp(i64::MIN) => json!({"state": "unknown", "counts_as": "refused"}),
        Some(said) => {
            let state = match said.state {
                ConsentState::Granted => "granted",
                ConsentState::Refused => "refused",
            };
            json!({"state": state, "since": said.at.to_string()})
        }
    };
    json!({
        "profiling": told(Purpose::Profiling), "marketing": told(Purpose::Marketing),
        "email_open_tracking": told(Purpose::EmailOpenTracking),
    })
}

/// The proof that a statement carries: which words, their hash, where, and when.
pub(super) fn proof(payload: &str, at: Timestamp) -> Value {
    let payload: Value = serde_json::from_str(payload).unwrap_or_default();
    let said = |name: &str| {
        let places = ["properties", "traits"].map(|place| payload.get(place).and_then(|place| place.get(name)));
        places.into_iter().flatten().next().cloned()
    };
    json!({
        "wording": said("wording"), "wording_sha256": said("wording_sha256"), "source": said("source"), "at": at.to_string(),
    })
}

async fn unlink(State(privacy): State<Privacy>, headers: HeaderMap, body: Bytes) -> Response {
    let (workspace, person, asked) = match privacy.allowed(&headers, &body) {
        Ok(allowed) => allowed,
        Err(refused) => return *refused,
    };
    match privacy.unlink(workspace, person, asked.source.as_deref()).await {
        Ok(None) => {
            let detail = "the identity stands for itself: it was never linked to another, or the link is withdrawn";
            problem(StatusCode::CONFLICT, "not_linked", detail)
        }
        Ok(Some(told)) => answer(Ok(told)),
        Err(error) => answer(Err(error)),
    }
}

async fn quarantine(State(privacy): State<Privacy>, headers: HeaderMap, body: Bytes) -> Response {
    match privacy.allowed(&headers, &body) {
        Ok((workspace, person, asked)) => {
            let (decision, source) = (asked.decision, asked.source.as_deref());
            answer(privacy.quarantine(workspace, &person, decision, source).await)
        }
        Err(refused) => *refused,
    }
}
