//! The routes of e-mail providers' webhooks. Each provider is answered what makes it do the right thing: come back while
//! nothing can be stored, and never stop for good.
//!
//! A verified body is never lost: notices that cannot be read are dead letters, and so is a body that is no JSON; both are
//! answered 200, since sending them again would not help. No rate limit applies: among the notices are withdrawals.

use super::body::{Encoding, discard, read};
use super::ingest::{Accepted, refusals};
use super::{Collector, Problem};
use crate::intake::{Outcome, Taken};
use crate::log::Log;
use crate::protocol::{BodyFault, Origin, email};
use crate::webhooks::{Disbelief, Endpoint, Provider, Verified};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use http::StatusCode;
use std::time::Duration;
use vigie_event::RejectCode;
use vigie_event::json::{Invalid, Receipt};

/// When a provider shall come back while a certificate cannot be fetched.
const RETRY_AFTER: Duration = Duration::from_secs(20);

pub(super) fn routes<L: Log>() -> Router<Collector<L>> {
    // Mandrill asks with HEAD whether the address exists, before it signs anything.
    let route = on(MethodFilter::POST, take::<L>).on(MethodFilter::HEAD, exists::<L>);
    Router::new().route("/v1/webhooks/{endpoint}", route)
}

async fn exists<L>(State(collector): State<Collector<L>>, Path(name): Path<String>) -> Response {
    match collector.doors.webhooks.find(&name) {
        Some(_) => StatusCode::OK.into_response(),
        None => Problem::NOT_FOUND.into_response(),
    }
}

async fn take<L: Log>(State(collector): State<Collector<L>>, Path(name): Path<String>, request: Request) -> Response {
    let Some(endpoint) = collector.doors.webhooks.find(&name) else {
        let (parts, body) = request.into_parts();
        let problem = discard(&parts.headers, body, &collector.transport, Problem::NOT_FOUND).await;
        return problem.into_response();
    };
    match take_notices(&collector, &endpoint, request).await {
        Ok(accepted) => Json(accepted).into_response(),
        Err(problem) => for_provider(endpoint.provider, problem).into_response(),
    }
}

/// Brevo gives up for good after any 5xx and any 4xx but 429.
fn for_provider(provider: Provider, mut problem: Problem) -> Problem {
    let transient = problem.status.is_server_error() || problem.status == StatusCode::REQUEST_TIMEOUT;
    if provider == Provider::Brevo && transient {
        problem.retry_after = Some(problem.retry_after.unwrap_or(RETRY_AFTER));
        return problem.with_status(StatusCode::TOO_MANY_REQUESTS);
    }
    problem
}

impl From<(Disbelief, Provider)> for Problem {
    fn from((disbelief, provider): (Disbelief, Provider)) -> Self {
        let signs = matches!(
            provider,
            Provider::SendGrid | Provider::Mailgun | Provider::Mandrill | Provider::Ses
        );
        match disbelief {
            Disbelief::Missing if signs => Self::SIG_MISSING,
            Disbelief::Wrong if signs => Self::SIG,
            Disbelief::Missing => Self::AUTH_MISSING,
            Disbelief::Wrong => Self::AUTH,
            Disbelief::Stale => Self::SIG_STALE,
            Disbelief::CertificateUrl => Self::CERT_URL,
            Disbelief::Topic => Self::TOPIC,
            Disbelief::Unavailable => Self {
                retry_after: Some(RETRY_AFTER),
                ..Self::INTERNAL.with_status(StatusCode::SERVICE_UNAVAILABLE)
            },
        }
    }
}

async fn take_notices<L: Log>(
    collector: &Collector<L>,
    endpoint: &Endpoint,
    request: Request,
) -> Result<Accepted, Problem> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    if let Err(disbelief) = endpoint.check_head(headers) {
        let problem = Problem::from((disbelief, endpoint.provider));
        return Err(discard(headers, body, &collector.transport, problem).await);
    }
    let bytes = read(
        headers,
        body,
        Encoding::Declared,
        &collector.limits,
        &collector.transport,
    )
    .await?;
    let lap = collector.metrics.stopwatch.start();
    let received_at = (collector.clock.0)();
    let verified = endpoint
        .verify(headers, &bytes, received_at)
        .await
        .map_err(|disbelief| Problem::from((disbelief, endpoint.provider)))?;
    let nothing = Accepted {
        accepted: 0,
        rejected: Vec::new(),
    };
    let Verified::Notices(notices, envelope) = verified else {
        return Ok(nothing);
    };
    let max_age = i64::try_from(collector.limits.max_age.as_millis()).unwrap_or(i64::MAX);
    let receipt = Receipt {
        workspace: endpoint.workspace.clone(),
        received_at,
        sent_at: None,
        user_agent: None,
        oldest: Some(received_at.plus_ms(-max_age)),
    };
    let source = endpoint.provider.source();
    let taken: Vec<Taken> = match email::pieces(source, &notices, &envelope, &collector.limits) {
        Ok(pieces) => pieces
            .iter()
            .enumerate()
            .map(|(ordinal, piece)| piece.take(ordinal, source, &receipt, &collector.limits))
            .collect(),
        Err(fault @ (BodyFault::Empty | BodyFault::BatchTooLarge | BodyFault::BodyTooLarge)) => {
            return Err(Problem::body(fault));
        }
        Err(fault) => {
            let code = match fault {
                BodyFault::Json(code) => code,
                _ => RejectCode::Shape,
            };
            let origin = Origin {
                receipt: &receipt,
                source,
                kind: "",
                context: "",
            };
            vec![Err(origin.letter(
                &Invalid::new(code, "body"),
                0,
                &notices,
                &collector.limits,
            ))]
        }
    };
    let rejected = refusals(collector, &taken);
    let accepted = taken.len() - rejected.len();
    if !taken.is_empty() {
        let _outcomes: Vec<Outcome> = collector.intake.accept(taken).await?;
    }
    collector.metrics.events.acknowledged(lap.elapsed());
    Ok(Accepted { accepted, rejected })
}
