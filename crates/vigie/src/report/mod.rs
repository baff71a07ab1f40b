//! `vigie report policies|portfolio|losses` and `GET /v1/reports/{name}`: whether policies work, who makes up the value, and why
//! customers were lost; as text, as JSON, or as one HTML page that needs no network. What is counted is in
//! `vigie_relance::report`, what it is counted from in [`gather`]; this file asks and answers.

mod figures;
mod gather;
mod page;
mod text;

use crate::answers::{Door, problem, unavailable};
use crate::backends::AnyStore;
use crate::cli::{Failure, Format, print};
use crate::clocks;
use crate::past::commands::{Source, time};
use crate::past::{House, Service};
use crate::server;
use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::extract::{Path as Segment, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use clap::{Args, ValueEnum};
use gather::Ground;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use vigie_event::{DAY_MS, Timestamp, Workspace};
use vigie_ingestion::keys::Keys;
use vigie_pipeline::Active;
use vigie_relance::report::losses::Losses;
use vigie_relance::report::policies::Policies;
use vigie_relance::report::portfolio::Portfolio;
use vigie_store::Store;

/// What the route adds to the OpenAPI document.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");
/// How far back losses count unless another day is named.
const SINCE_DAYS: i64 = 365;

/// Which report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Do policies work? Uplift, saved margin, cost, return, harm
    Policies,
    /// Who makes up the value? Pareto, customer equity, value and attrition
    Portfolio,
    /// Why were customers lost, and did we see it in time?
    Losses,
}

impl Name {
    const fn path(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Portfolio => "portfolio",
            Self::Losses => "losses",
        }
    }
}

/// A report that was made.
enum Report {
    Policies(Policies),
    Portfolio(Portfolio),
    Losses(Losses),
}

impl Report {
    async fn make<S: Store>(name: Name, ground: &Ground<'_, S>, since: Option<Timestamp>) -> Result<Self> {
        Ok(match name {
            Name::Policies => Self::Policies(ground.policies().await?),
            Name::Portfolio => Self::Portfolio(ground.portfolio().await?),
            Name::Losses => {
                let since = since.unwrap_or_else(|| ground.now.plus_ms(-SINCE_DAYS * DAY_MS));
                Self::Losses(ground.losses(since).await?)
            }
        })
    }

    fn json(&self) -> Result<serde_json::Value> {
        Ok(match self {
            Self::Policies(report) => serde_json::to_value(report)?,
            Self::Portfolio(report) => serde_json::to_value(report)?,
            Self::Losses(report) => serde_json::to_value(report)?,
        })
    }

    fn text(&self) -> String {
        match self {
            Self::Policies(report) => text::policies(report),
            Self::Portfolio(report) => text::portfolio(report),
            Self::Losses(report) => text::losses(report),
        }
    }

    fn html(&self) -> String {
        match self {
            Self::Policies(report) => page::policies(report),
            Self::Portfolio(report) => page::portfolio(report),
            Self::Losses(report) => page::losses(report),
        }
    }
}

/// Report whether policies work, who makes up the value, and why customers were lost
///
/// Of a running server (--url) or of the data directory of a stopped one (--data-dir). Policies are judged by what customers
/// did after their flags, treated ones against those held out; intervals hold however often one looks.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Which report
    #[arg(value_enum)]
    name: Name,
    #[command(flatten)]
    source: Source,
    /// Losses since this day; default: a year
    #[arg(long, value_parser = time)]
    since: Option<Timestamp>,
    /// Whose; a key has its own
    #[arg(long, default_value = "default")]
    workspace: String,
    /// Write the report as a page for people: one HTML file that needs no network
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl ReportArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let [shown, page] = match self.source.local()? {
            None => {
                let server = self.source.remote()?;
                let since = self.since.map_or_else(String::new, |since| format!("&since={since}"));
                let ask =
                    |format: &str| server.text(&format!("/v1/reports/{}?format={format}{since}", self.name.path()));
                let page = self.html.as_ref().map(|_| ask("html")).transpose()?;
                [
                    match self.output {
                        Format::Text => ask("text")?,
                        Format::Json => ask("json")?,
                    },
                    page.unwrap_or_default(),
                ]
            }
            Some(config) => {
                let workspace = Workspace::new(&self.workspace)
                    .map_err(|error| Failure::Usage(format!("--workspace: {error}\n")))?;
                let report = crate::cli::runtime()?.block_on(async {
                    let house = House::open(&config).await?;
                    let (model, policies) = server::texts(&config)?;
                    let active = Active::parse(&model, &policies)?;
                    let ground = Ground {
                        store: &*house.store,
                        archive: &house.archive,
                        tail: Vec::new(),
                        workspace,
                        model: &active.model,
                        policies: &active.policies,
                        now: clocks::now(),
                    };
                    Report::make(self.name, &ground, self.since).await
                })?;
                let shown = match self.output {
                    Format::Text => report.text(),
                    Format::Json => format!("{:#}\n", report.json()?),
                };
                [shown, report.html()]
            }
        };
        if let Some(path) = &self.html {
            std::fs::write(path, page).with_context(|| path.display().to_string())?;
        }
        print(&shown)?;
        match &self.html {
            Some(path) if self.output == Format::Text => print(&format!("\nwritten to {}\n", path.display())),
            _ => Ok(()),
        }
    }
}

/// The route, for read and admin keys.
pub(crate) fn routes(past: Service<AnyStore>, keys: Arc<Keys>) -> Router {
    Router::new()
        .route("/v1/reports/{name}", get(answer))
        .with_state((past, keys))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// `json`, `text` or `html`.
    format: Option<String>,
    since: Option<String>,
}

async fn answer(
    State((past, keys)): State<(Service<AnyStore>, Arc<Keys>)>,
    Segment(name): Segment<String>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let door = Door {
        what: "reports",
        readers: true,
        browsers: true,
    };
    let workspace = match door.enter(&keys, &headers) {
        Ok(workspace) => workspace,
        Err(refused) => return *refused,
    };
    let name = Name::value_variants().iter().find(|known| known.path() == name);
    let Some(name) = name.copied() else {
        return problem(
            StatusCode::NOT_FOUND,
            "not_found",
            "the reports are policies, portfolio and losses",
        );
    };
    let Ok(Query(wanted)) = wanted else {
        return problem(
            StatusCode::BAD_REQUEST,
            "bad_query",
            "the parameters are format and since",
        );
    };
    let since = wanted.since.as_deref().map(time).transpose();
    let format = wanted.format.as_deref().unwrap_or("json");
    let (Ok(since), true) = (since, ["json", "text", "html"].contains(&format)) else {
        let detail = "format is json, text or html; since is a date or a time";
        return problem(StatusCode::BAD_REQUEST, "bad_query", detail);
    };
    match made(&past, workspace, name, since)
        .await
        .and_then(|report| written(&report, format))
    {
        Ok(response) => response,
        Err(error) => unavailable(&error),
    }
}

async fn made(past: &Service<AnyStore>, workspace: Workspace, name: Name, since: Option<Timestamp>) -> Result<Report> {
    let _turn = past.turns.acquire().await;
    let tail = past.tail().await?;
    let past = past.clone();
    // Counting is computing: it gets a thread that nobody else waits for.
    let handle = tokio::runtime::Handle::current();
    let work = tokio::task::spawn_blocking(move || {
        let active = past.active.load_full();
        let ground = Ground {
            store: &*past.store,
            archive: &past.archive,
            tail,
            workspace,
            model: &active.model,
            policies: &active.policies,
            now: (past.clock)(),
        };
        handle.block_on(Report::make(name, &ground, since))
    });
    work.await.map_err(|_| anyhow!("the report's task ended abruptly"))?
}

fn written(report: &Report, format: &str) -> Result<Response> {
    let (kind, body) = match format {
        "html" => ("text/html; charset=utf-8", report.html()),
        "text" => ("text/plain; charset=utf-8", report.text()),
        _ => ("application/json", report.json()?.to_string()),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        // The page runs nothing and loads nothing.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
    ];
    Ok((headers, body).into_response())
}
