//! Model and policies in force, and how they change while a server runs: files are read again on SIGHUP or on request, checked
//! as a whole, and put in force by control records (`models.rs`), so that every replay and audit meets the change at the same place of the
//! log. What is not valid is refused with every fault and its line, and nothing changes.
//!
//! It never decides what is valid (`vigie-relance`, `vigie-scoring`), and never touches a worker: a worker learns of a change
//! as of any other record.

use crate::answers::{Door, problem, problem_with, unavailable};
use crate::backends::AnyStore;
use crate::clocks::Clock;
use crate::config::Config;
use crate::models::Models;
use crate::server::texts;
use anyhow::{Context, Result, anyhow};
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, body::Bytes};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use vigie_event::{CustomerKey, Partition, Timestamp, Workspace};
use vigie_ingestion::keys::Keys;
use vigie_pipeline::Active;
use vigie_relance::{PolicySet, Rehearsal};
use vigie_scoring::{CustomerState, Model};
use vigie_store::Store;

/// What the routes add to the OpenAPI document.
pub(crate) const OPENAPI: &str = include_str!("activation.json");
/// Records read from the store in one call.
const PAGE: usize = 2_000;
/// Largest policy file that is taken.
const LARGEST: usize = 1 << 20;

/// Texts of the model and of the policies that this process wants in force.
pub(crate) type Texts = Arc<ArcSwap<(String, String)>>;

/// See the module.
#[derive(Clone)]
pub(crate) struct Activation {
    pub(crate) config: Config,
    pub(crate) texts: Texts,
    /// Who puts them in force, in a process that has a store.
    pub(crate) models: Option<Models>,
    pub(crate) store: Option<Arc<AnyStore>>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) snapshot: Arc<ArcSwap<vigie_serve::Active>>,
    pub(crate) clock: Clock,
    /// One change at a time.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

/// Why nothing was put in force.
enum Refused {
    /// The files' fault: all of it.
    Invalid(Vec<String>),
    /// The surroundings'.
    Failed(anyhow::Error),
}

impl Activation {
    /// Reads the files again and puts in force what has changed; `None` when nothing has.
    async fn reload(&self) -> Result<Option<Arc<Active>>, Refused> {
        let _turn = self.turn.lock().await;
        let texts = texts(&self.config).map_err(Refused::Failed)?;
        if **self.texts.load() == texts {
            return Ok(None);
        }
        let active = checked(&texts.0, &texts.1).map_err(Refused::Invalid)?;
        let Some(models) = &self.models else {
            return Err(Refused::Failed(anyhow!(
                "this process puts nothing in force; ask one with the role worker or api"
            )));
        };
        // Boxed, or the compiler gives up on the depth of its callers.
        let put = Box::pin(models.configure(&active)).await.map_err(Refused::Failed)?;
        self.texts.store(Arc::new(texts));
        Ok(put)
    }

    /// Reloads on SIGHUP, until `stop`.
    pub(crate) async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<()> {
        let mut hangups = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        let follow = async {
            while hangups.recv().await.is_some() {
                self.on_hangup().await;
            }
        };
        tokio::select! {
            () = follow => {}
            () = stop => {}
        }
        Ok(())
    }

    async fn on_hangup(&self) {
        match self.reload().await {
            Ok(Some(active)) => tracing::info!(
                model = active.model.version,
                policies = active.policies.version,
                "read again; the worker puts it in force"
            ),
            Ok(None) => tracing::info!("read again: nothing has changed"),
            Err(Refused::Invalid(faults)) => {
                for fault in faults {
                    tracing::error!(
                        fault,
                        "model or policies are not valid: what was in force stays in force"
                    );
                }
            }
            Err(Refused::Failed(error)) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "not read again: what was in force stays in force"
                );
            }
        }
    }

    /// The routes, for admin keys.
    pub(crate) fn routes(&self) -> Router {
        Router::new()
            .route("/v1/policies/reload", post(on_reload))
            .route("/v1/policies/dry-run", post(on_dry_run))
            .with_state(self.clone())
    }

    fn admin(&self, headers: &HeaderMap) -> Result<Workspace, Box<Response>> {
        Door::admin("policies").enter(&self.keys, headers)
    }
}

/// A model and policies, or every fault of both.
fn checked(model: &str, policies: &str) -> Result<Active, Vec<String>> {
    let mut faults = Vec::new();
    if let Err(error) = PolicySet::parse(policies) {
        faults.extend(error.faults().iter().map(|fault| format!("policies: {fault}")));
    }
    if let Err(error) = Model::parse(model) {
        faults.push(format!("model: {error}"));
    }
    match Active::parse(model, policies) {
        Ok(active) if faults.is_empty() => Ok(active),
        Err(error) if faults.is_empty() => Err(vec![error.to_string()]),
        _ => Err(faults),
    }
}

fn invalid(faults: &[String]) -> Response {
    let faults = json!({"faults": faults});
    let (status, code) = (StatusCode::UNPROCESSABLE_ENTITY, "policies_invalid");
    problem_with(status, code, "nothing was changed", faults)
}

async fn on_reload(State(own): State<Activation>, headers: HeaderMap) -> Response {
    if let Err(refused) = own.admin(&headers) {
        return *refused;
    }
    match own.reload().await {
        Ok(active) => {
            let changed = active.is_some();
            let (model, policies) = match active {
                Some(active) => (active.model.version.clone(), active.policies.version.clone()),
                None => {
                    let now = own.snapshot.load();
                    (now.model.version.clone(), now.policies.version.clone())
                }
            };
            Json(json!({"changed": changed, "model": model, "policies": policies})).into_response()
        }
        Err(Refused::Invalid(faults)) => invalid(&faults),
        Err(Refused::Failed(error)) => unavailable(&error),
    }
}

async fn on_dry_run(State(own): State<Activation>, headers: HeaderMap, body: Bytes) -> Response {
    let workspace = match own.admin(&headers) {
        Ok(workspace) => workspace,
        Err(refused) => return *refused,
    };
    let Some(store) = own.store.clone() else {
        return problem(
            StatusCode::NOT_FOUND,
            "not_found",
            "this process has no store; ask one with the role api",
        );
    };
    let text = std::str::from_utf8(&body).ok().filter(|text| text.len() <= LARGEST);
    let Some(text) = text else {
        return problem(
            StatusCode::BAD_REQUEST,
            "bad_body",
            "send a policy file in UTF-8 of at most 1 MiB",
        );
    };
    let set = match PolicySet::parse(text) {
        Ok(set) => set,
        Err(error) => return invalid(error.faults()),
    };
    let now = (own.clock)();
    let handle = tokio::runtime::Handle::current();
    let model = own.snapshot.load().model.clone();
    let work =
        tokio::task::spawn_blocking(move || handle.block_on(rehearsed(&*store, Some(&workspace), &set, &model, now)));
    match work.await.map_err(|_| anyhow!("the rehearsal ended abruptly")) {
        Ok(Ok(told)) => Json(told).into_response(),
        Ok(Err(error)) | Err(error) => unavailable(&error),
    }
}

/// What policies would do with the present customers, as JSON.
pub(crate) async fn rehearsed<S: Store>(
    store: &S,
    workspace: Option<&Workspace>,
    set: &PolicySet,
    model: &Model,
    now: Timestamp,
) -> Result<Value> {
    let mut rehearsal = Rehearsal::new(set, model, now);
    for partition in (0..store.partitions()).map(Partition) {
        let mut after: Option<CustomerKey> = None;
        loop {
            let page = store.scan(partition, after, PAGE).await?;
            let complete = page.len() < PAGE;
            after = page.last().map(|(key, _)| key.clone());
            for (key, bytes) in page {
                if workspace.is_none_or(|only| *only == key.workspace) {
                    let state = CustomerState::decode(&bytes).map_err(|error| anyhow!("{key}: {error}"))?;
                    rehearsal.add(&key, &state);
                }
            }
            tokio::task::yield_now().await;
            if complete {
                break;
            }
        }
    }
    let customers = rehearsal.customers;
    let policies: Vec<Value> = rehearsal
        .finish()
        .into_iter()
        .map(|(id, own)| json!({"policy": id, "would": own}))
        .collect();
    Ok(json!({
        "as_of": now.to_string(), "version": set.version, "customers": customers, "policies": policies,
    }))
}
