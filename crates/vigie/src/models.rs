//! Which model is in force, and which one scores beside it (`/v1/model`, admin keys; `vigie model`).
//!
//! A change is one control record in every partition with the whole text of what is in force from there on, the candidate
//! included (see `vigie_scoring::Model`): it is durable before it is answered, and a replay reproduces it without knowing of
//! this file. The configuration stays what it was: a promoted model keeps its place until the configuration names another.
//! What the API scores with follows the store, in every process.

use crate::answers::{Door, problem, unavailable};
use crate::backends::{AnyLog, AnyStore};
use crate::cli::{Failure, Format, RemoteArgs, print};
use crate::client::Server;
use crate::clocks::Clock;
use crate::server::snapshot_of;
use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Subcommand;
use serde_json::{Value, json};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use vigie_event::Offset;
use vigie_ingestion::keys::Keys;
use vigie_pipeline::{Active, in_force, put_in_force};
use vigie_scoring::{MAX_CANDIDATE_BYTES, Model};

/// What the routes add to the OpenAPI document.
pub(crate) const OPENAPI: &str = include_str!("models.json");
/// Time between two looks at what is in force.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause between two looks while a change is on its way, and the longest wait for it.
const PAUSE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

/// What is in force, by the record of the first partition that says so.
type InForce = (Offset, Arc<Active>);

/// See the module.
#[derive(Clone)]
pub(crate) struct Models {
    pub(crate) log: Arc<AnyLog>,
    pub(crate) store: Arc<AnyStore>,
    /// What the API scores with.
    pub(crate) active: Arc<ArcSwap<vigie_serve::Active>>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) clock: Clock,
    /// The last answer; held while a change is on its way, so that each change begins where the one before ended.
    pub(crate) known: Arc<Mutex<Option<InForce>>>,
}

/// A change of the model.
#[derive(Debug)]
pub(crate) enum Change {
    /// This candidate beside the one in force.
    Shadow(Box<Model>),
    /// No candidate.
    Drop,
    /// The candidate in the place of the one in force.
    Promote,
}

impl Models {
    /// Before the first answer: what was put in the place of the configured model is scored with. Where the configuration names
    /// something else than what is in force, it is about to be, and stays.
    pub(crate) async fn begin(&self, configured: &Active) -> Result<()> {
        let found = in_force(&*self.log, &*self.store, None).await?;
        if let Some((_, active)) = &found
            && active.model.stands_for(&configured.model)
            && active.policies == configured.policies
        {
            self.active.store(Arc::new(snapshot_of(active)));
        }
        *self.known.lock().await = found;
        Ok(())
    }

    /// Keeps what the API scores with up to date, until `stop`.
    pub(crate) async fn follow(self, stop: impl Future<Output = ()>) {
        let rounds = async {
            loop {
                if let Err(error) = self.look(&mut *self.known.lock().await).await {
                    tracing::warn!(error = format!("{error:#}"), "what is in force cannot be read");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            () = stop => {}
        }
    }

    async fn look(&self, known: &mut Option<InForce>) -> Result<()> {
        let found = in_force(&*self.log, &*self.store, known.clone()).await?;
        if let Some((at, active)) = found.filter(|(at, _)| known.as_ref().is_none_or(|(before, _)| before != at)) {
            self.active.store(Arc::new(snapshot_of(&active)));
            *known = Some((at, active));
        }
        Ok(())
    }

    /// Makes a change and waits until it is in force; returns what is.
    pub(crate) async fn change(&self, change: Change) -> Result<Result<Arc<Active>, &'static str>> {
        let mut known = self.known.lock().await;
        self.look(&mut known).await?;
        let Some((before, active)) = known.clone() else {
            bail!("no model is in force yet");
        };
        let text = match &change {
            Change::Shadow(candidate) if candidate.version == active.model.version => {
                return Ok(Err("this model is in force already"));
            }
            Change::Shadow(candidate) => active.model.beside(Some(candidate)),
            Change::Drop => active.model.beside(None),
            Change::Promote => match active.model.promoted() {
                Some(text) => text,
                None => {
                    return Ok(Err(
                        "there is no candidate to promote: `vigie model shadow FILE` sets one",
                    ));
                }
            },
        };
        if *text == *active.model.text {
            return Ok(Ok(active));
        }
        let policies = active.policies_text.clone();
        Ok(Ok(self.put(&mut known, before, (&text, &policies)).await?))
    }

    /// Puts what is configured in force; returns what is then, or `None` when it was already. A model that was put in the place
    /// of the configured one keeps its place, and a candidate its own.
    pub(crate) async fn configure(&self, wanted: &Active) -> Result<Option<Arc<Active>>> {
        let mut known = self.known.lock().await;
        self.look(&mut known).await?;
        let Some((before, active)) = known.clone() else {
            bail!("no model is in force yet");
        };
        let model = match active.model.stands_for(&wanted.model) {
            true if active.policies == wanted.policies => return Ok(None),
            true => &active.model.text,
            false => &wanted.model.text,
        };
        self.put(&mut known, before, (model, &wanted.policies_text))
            .await
            .map(Some)
    }

    /// Puts texts in force and waits until they are.
    async fn put(
        &self,
        known: &mut Option<InForce>,
        before: Offset,
        (model, policies): (&str, &str),
    ) -> Result<Arc<Active>> {
        put_in_force(&*self.log, model, policies, (self.clock)()).await?;
        let taken = tokio::time::timeout(PATIENCE, async {
            loop {
                self.look(known).await?;
                match known.as_ref().filter(|(at, _)| *at != before) {
                    Some((_, active)) => return Ok::<_, anyhow::Error>(Arc::clone(active)),
                    None => tokio::time::sleep(PAUSE).await,
                }
            }
        });
        let active = taken.await.with_context(|| {
            format!("the change is in the log, and the worker has not come to it within {PATIENCE:?}")
        })??;
        tracing::info!(
            model = active.model.version,
            candidate = active
                .model
                .candidate
                .as_ref()
                .map(|candidate| candidate.version.as_str()),
            "put in force"
        );
        Ok(active)
    }

    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/v1/model", get(show))
            .route(
                "/v1/model/shadow",
                post(shadow).layer(DefaultBodyLimit::max(MAX_CANDIDATE_BYTES)),
            )
            .route("/v1/model/drop", post(discard))
            .route("/v1/model/promote", post(promote))
            .with_state(self)
    }

    fn allowed(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        Door::admin("models").enter(&self.keys, headers).map(drop)
    }

    async fn answer(&self, headers: &HeaderMap, change: Change) -> Response {
        if let Err(refused) = self.allowed(headers) {
            return *refused;
        }
        match self.change(change).await {
            Ok(Ok(active)) => Json(shown(&active.model)).into_response(),
            Ok(Err(why)) => problem(StatusCode::CONFLICT, "no_change", why),
            Err(error) => unavailable(&error),
        }
    }
}

fn shown(model: &Model) -> Value {
    json!({
        "in_force": model.version,
        "supersedes": model.supersedes,
        "candidate": model.candidate.as_ref().map(|candidate| &candidate.version),
    })
}

async fn show(State(models): State<Models>, headers: HeaderMap) -> Response {
    match models.allowed(&headers) {
        Ok(()) => Json(shown(&models.active.load().model)).into_response(),
        Err(refused) => *refused,
    }
}

async fn shadow(State(models): State<Models>, headers: HeaderMap, text: String) -> Response {
    match Model::parse(&text) {
        Ok(model) => models.answer(&headers, Change::Shadow(Box::new(model))).await,
        Err(error) => match models.allowed(&headers) {
            Ok(()) => problem(StatusCode::BAD_REQUEST, error.tag(), &error.to_string()),
            Err(refused) => *refused,
        },
    }
}

async fn discard(State(models): State<Models>, headers: HeaderMap) -> Response {
    models.answer(&headers, Change::Drop).await
}

async fn promote(State(models): State<Models>, headers: HeaderMap) -> Response {
    models.answer(&headers, Change::Promote).await
}

/// Models of a running server: a candidate beside the one in force, and in its place
#[derive(Debug, Subcommand)]
pub(crate) enum Commands {
    /// Show which model is in force, and its candidate
    Show {
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Let a model score beside the one in force: in the API, in the metrics, and nowhere else
    Shadow {
        /// The model file, for instance of `vigie fit`
        file: PathBuf,
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Put the candidate in the place of the model in force, until the configuration names another
    Promote {
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Let the candidate go
    Drop {
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

impl Commands {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let server = |remote: &RemoteArgs| Server::new(&remote.url, &remote.key);
        let (answer, remote) = match self {
            Self::Show { remote } => (server(&remote).get("/v1/model")?, remote),
            Self::Shadow { file, remote } => {
                let read = std::fs::read_to_string(&file).with_context(|| file.display().to_string());
                let text = read.map_err(|error| Failure::Usage(format!("vigie: {error:#}\n")))?;
                // What is wrong with a file is said without asking anybody.
                let _model = Model::parse(&text)
                    .map_err(|error| Failure::Usage(format!("vigie: {}: {error}\n", file.display())))?;
                (server(&remote).send_text("/v1/model/shadow", &text)?, remote)
            }
            Self::Promote { remote } => (server(&remote).post("/v1/model/promote")?, remote),
            Self::Drop { remote } => (server(&remote).post("/v1/model/drop")?, remote),
        };
        match remote.output.output {
            Format::Json => print(&format!("{answer:#}\n")),
            Format::Text => print(&told(&answer)),
        }
    }
}

fn told(answer: &Value) -> String {
    let of = |key: &str| answer.get(key).and_then(Value::as_str);
    let mut text = format!("in force   {}\n", of("in_force").unwrap_or("nothing"));
    if let Some(supersedes) = of("supersedes") {
        text += &format!("instead of {supersedes}, which the configuration names\n");
    }
    text + &format!("candidate  {}\n", of("candidate").unwrap_or("none"))
}
