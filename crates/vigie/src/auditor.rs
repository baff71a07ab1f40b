//! The audits of a running server: one of a few partitions in turn, every hour, and one on request (`POST /v1/audit`). The
//! oracle says what is different; this file only decides when it looks and who is told.

pub(crate) use crate::answers::problem;
use crate::answers::{Door, unavailable};
use crate::backends::AnyStore;
use crate::config::Config;
use crate::past::{Service, audit};
use anyhow::{Context, Result};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use vigie_audit::{Report, Sample, Verdict};
use vigie_ingestion::keys::Keys;
use vigie_store::Store;
use vigie_telemetry::{AuditVerdict, Metrics};

/// What the route adds to the OpenAPI document.
pub(crate) const OPENAPI: &str = include_str!("auditor.json");
/// Attempts to find the store between two steps; a snapshot in the midst of one tells nothing.
const ATTEMPTS: u32 = 20;
/// After so long no further attempt is begun: each reads the sample's whole history.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause before another snapshot.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Clone)]
pub(crate) struct Auditor {
    past: Service<AnyStore>,
    every: Duration,
    partitions: u16,
    metrics: Metrics,
    /// One audit at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Auditor {
    pub(crate) fn new(past: Service<AnyStore>, config: &Config, metrics: Metrics) -> Self {
        Self {
            past,
            every: config.audit.every,
            partitions: config.audit.partitions,
            metrics,
            turn: Arc::default(),
        }
    }

    /// Audits in turn until `stop`.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        if self.every.is_zero() {
            return;
        }
        let rounds = async {
            loop {
                tokio::time::sleep(self.every).await;
                let of = self.past.store.partitions();
                let share = f64::from(self.partitions) / f64::from(of.max(1));
                // By the clock, so that a restart does not begin with the same partitions again.
                let elapsed = (self.past.clock)().0.max(0).unsigned_abs();
                let round = elapsed / u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX).max(1);
                let _ = self.audit(Sample::rotating(of, share.min(1.0), round)).await;
            }
        };
        tokio::select! {
            () = rounds => {}
            () = stop => {}
        }
    }

    /// Audits a sample now, and tells the metrics and the log.
    pub(crate) async fn audit(&self, sample: Sample) -> Result<Report> {
        let _turn = self.turn.lock().await;
        let outcome = self.attempt(sample).await;
        match &outcome {
            Ok(report) => {
                let verdict = match report.verdict {
                    Verdict::Equal => AuditVerdict::Equal,
                    Verdict::Different => AuditVerdict::Different,
                    Verdict::NotMeasured(_) => AuditVerdict::NotMeasured,
                };
                self.metrics.audit.ran(verdict, report.counts.total(), report.events);
                match verdict {
                    AuditVerdict::Equal => {
                        tracing::info!(
                            events = report.events,
                            customers = report.customers,
                            root = report.root_live,
                            "audit: equal"
                        );
                    }
                    AuditVerdict::Different => {
                        tracing::error!(report = report.json(), "audit: the store is not what the log says")
                    }
                    AuditVerdict::NotMeasured => tracing::warn!(report = report.json(), "audit: not measured"),
                }
            }
            Err(error) => {
                self.metrics.audit.ran(AuditVerdict::NotMeasured, 0, 0);
                tracing::warn!(error = format!("{error:#}"), "audit: not measured");
            }
        }
        outcome
    }

    async fn attempt(&self, sample: Sample) -> Result<Report> {
        let mut attempts = 0;
        let started = tokio::time::Instant::now();
        loop {
            attempts += 1;
            let snapshot = self.past.store.snapshot().await?;
            let archivist = self
                .past
                .archivist
                .as_ref()
                .context("another process writes the archive")?;
            let flushed = archivist.flush().await;
            let _ends = flushed
                .map_err(anyhow::Error::msg)
                .context("the archive cannot be written")?;
            let (archive, sample) = (Arc::clone(&self.past.archive), sample.clone());
            // Folding is computing: it gets a thread that nobody else waits for.
            let handle = tokio::runtime::Handle::current();
            let audited =
                tokio::task::spawn_blocking(move || handle.block_on(audit::audit(&archive, &snapshot, sample, |_| {})));
            let report = audited.await.context("the audit's task ended abruptly")??;
            // A difference that is one is there the next time too; a snapshot within a step that fires very many timers
            // shows one that is none.
            if attempts == ATTEMPTS
                || (attempts >= 3 && started.elapsed() >= PATIENCE)
                || report.verdict == Verdict::Equal
                || (attempts >= 3 && report.verdict == Verdict::Different)
            {
                return Ok(report);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// `POST /v1/audit`, for admin keys.
    pub(crate) fn routes(&self, keys: Arc<Keys>) -> Router {
        Router::new()
            .route("/v1/audit", post(on_request))
            .with_state((self.clone(), keys))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    sample: Option<f64>,
    #[serde(default)]
    round: u64,
}

async fn on_request(
    State((auditor, keys)): State<(Auditor, Arc<Keys>)>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let workspace = match Door::admin("audits").enter(&keys, &headers) {
        Ok(workspace) => workspace,
        Err(response) => return *response,
    };
    let Ok(Query(wanted)) = wanted else {
        return problem(
            StatusCode::BAD_REQUEST,
            "bad_query",
            "the parameters are sample, a share such as 0.05, and round",
        );
    };
    let partitions = auditor.past.store.partitions();
    let sample = match wanted.sample {
        None => Sample::all(partitions),
        Some(share) if share > 0.0 && share <= 1.0 => Sample::rotating(partitions, share, wanted.round),
        Some(_) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "bad_query",
                "sample is a share above 0 and at most 1",
            );
        }
    };
    match auditor.audit(sample).await {
        Ok(mut report) => {
            // Of other workspaces a key learns that they differ, not who (WS-1).
            let own = |of: &Option<String>| of.as_deref().is_none_or(|of| of == workspace.as_str());
            report.first.retain(|difference| own(&difference.workspace));
            let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap_or_default();
            let answer = serde_json::json!({
                "exit_code": report.exit_code(),
                "text": format!("{report}\n"),
                "report": json,
            });
            Json(answer).into_response()
        }
        Err(error) => unavailable(&error),
    }
}
