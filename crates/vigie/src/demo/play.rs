//! The player: feeds a stream into a server, shows how far it is, and then what came of it. It decides pace and words,
//! never what an event means.

use super::{SimEvent, cdnow, shop};
use crate::cli::print;
use crate::clocks::{self, Clock, Held};
use crate::server::Running;
use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;
use vigie_event::json::{Receipt, read};
use vigie_event::{Timestamp, Workspace};
use vigie_ingestion::intake::Unavailable;
use vigie_relance::Flag;
use vigie_scoring::{CustomerState, Model, assess};
use vigie_store::Store;

/// Events handed over at once while history is loaded.
const PORTION: usize = 1_000;
/// Pause when the log has enough to do.
const BREATH: Duration = Duration::from_millis(20);
/// Customers and flags shown.
const SHOWN: usize = 8;
/// Time between two lines about the live stream.
const REPORT_EVERY_MS: i64 = 10_000;

/// What to play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Data {
    /// A simulated shop: web, e-mail, till and telephone; some customers fade away
    Shop,
    /// The CDNOW purchase log: 2,357 real customers of 1997 and 1998, moved to end yesterday
    Cdnow,
}

/// How to play it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Play {
    /// What.
    pub(crate) data: Data,
    /// Seed of the shop.
    pub(crate) seed: u64,
    /// Customers of the shop.
    pub(crate) customers: u32,
    /// Stop after the first look at live scores.
    pub(crate) once: bool,
}

/// An opened stream, with the clock that its history is played by.
pub(crate) struct Stream {
    events: Box<dyn Iterator<Item = SimEvent> + Send>,
    next: Option<SimEvent>,
    now: Timestamp,
    clock: Held,
}

impl Stream {
    /// Opens the stream that `play` names; its history ends at `now`.
    pub(crate) fn open(play: &Play, now: Timestamp) -> Result<Self> {
        let mut events: Box<dyn Iterator<Item = SimEvent> + Send> = match play.data {
            Data::Shop => {
                let mut settings = shop::Settings::new(play.seed, now);
                settings.customers = play.customers;
                Box::new(shop::Shop::new(settings))
            }
            Data::Cdnow => Box::new(cdnow::events(now)?),
        };
        let next = events.next();
        let clock = Held::at(next.as_ref().map_or(now, |event| event.received_at));
        Ok(Self {
            events,
            next,
            now,
            clock,
        })
    }

    /// The clock to start the server with: held at the stream's time until its history is played.
    pub(crate) fn clock(&self) -> Clock {
        self.clock.clock()
    }

    /// Plays until it is interrupted (or, with `once`, until live scores were shown).
    pub(crate) async fn play(self, server: &Running, play: &Play) -> Result<()> {
        run(self, server, play).await
    }
}

async fn run(mut stream: Stream, server: &Running, play: &Play) -> Result<()> {
    let Some((keys, _)) = &server.keys else {
        bail!("the demonstration makes its own keys")
    };
    let workspace = Workspace::new(&keys.workspace).map_err(|error| anyhow!("{error}"))?;
    if server.books(&workspace).accepted > 0 {
        bail!("the data directory holds events already; choose an empty one, or run `vigie up` on it");
    }
    say("loading history up to now, through the log like everything else\n")?;
    load(server, &workspace, &mut stream).await?;
    settle(server, &workspace).await?;
    stream.clock.release();
    let mut seen = show(server, &workspace).await?;
    say(&addresses(server))?;
    if play.once {
        return Ok(());
    }
    say("\nlive from here on; Ctrl-C stops\n")?;
    let (mut sent, mut reported) = (0u64, clocks::now());
    loop {
        let now = clocks::now();
        let mut due = Vec::new();
        while let Some(event) = stream.take_until(now) {
            due.push(event.json);
        }
        sent += post(server, due).await?;
        let rows = server.store()?.flags(&workspace, seen, 100).await?;
        let mut text = String::new();
        for (sequence, body) in rows {
            seen = sequence;
            let flag: Flag = serde_json::from_slice(&body)?;
            writeln!(text, "{}", describe(&flag))?;
        }
        say(&text)?;
        if clocks::now().ms_since(reported) >= REPORT_EVERY_MS {
            reported = clocks::now();
            let books = server.books(&workspace);
            let time = Timestamp(reported.0 / 1000 * 1000);
            say(&format!(
                "{time}  {sent} live events sent, {} accepted in all, {} in flight\n",
                books.accepted, books.in_flight
            ))?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

impl Stream {
    /// The next event, if it has been received by `now`.
    fn take_until(&mut self, now: Timestamp) -> Option<SimEvent> {
        let event = self.next.take_if(|event| event.received_at <= now)?;
        self.next = self.events.next();
        Some(event)
    }
}

/// Feeds everything that was received by the end of the stream's history.
async fn load(server: &Running, workspace: &Workspace, stream: &mut Stream) -> Result<()> {
    let bar = progress();
    let start = (stream.clock())();
    let now = stream.now;
    loop {
        let mut taken = Vec::with_capacity(PORTION);
        let (mut first, mut last) = (None, None);
        while taken.len() < PORTION
            && let Some(event) = stream.take_until(now)
        {
            let received_at = event.received_at;
            let receipt = Receipt {
                workspace: workspace.clone(),
                received_at,
                sent_at: None,
                user_agent: None,
                oldest: None,
            };
            let event = read(&event.json, &receipt)
                .map_err(|invalid| anyhow!("the stream made an event that is none: {invalid}"))?;
            let _ = first.get_or_insert(received_at);
            last = Some(received_at);
            taken.push(Ok(event));
        }
        let Some(first) = first else { break };
        // Everything before this portion is in the log, so the time of its first event has come.
        stream.clock.advance(first);
        while let Err(error) = server.intake.accept(taken.clone()).await {
            match error {
                Unavailable::Overloaded { .. } => tokio::time::sleep(BREATH).await,
                other => return Err(other.into()),
            }
        }
        let done = last.map_or(0, |last| last.ms_since(start).max(0));
        bar.set_position(u64::try_from(done * 1000 / now.ms_since(start).max(1)).unwrap_or(0));
        let books = server.books(workspace);
        bar.set_message(format!(
            "{} events, {} scored",
            books.accepted,
            books.accepted - books.in_flight
        ));
    }
    stream.clock.advance(now);
    bar.finish_and_clear();
    Ok(())
}

/// Waits until the worker has folded everything that was handed over.
async fn settle(server: &Running, workspace: &Workspace) -> Result<()> {
    loop {
        if let Some(reason) = server.failure() {
            bail!(reason);
        }
        if server.books(workspace).in_flight == 0 {
            return Ok(());
        }
        tokio::time::sleep(BREATH).await;
    }
}

/// Shows the books, the customers most at risk and the latest flags; returns the sequence of the last flag.
async fn show(server: &Running, workspace: &Workspace) -> Result<u64> {
    let books = server.books(workspace);
    let mut text = format!(
        "\n{} events accepted: {} applied, {} duplicates, {} suppressed, {} set aside, {} in flight\n",
        books.accepted, books.applied, books.duplicate, books.suppressed, books.dead_letter, books.in_flight
    );
    let model = Model::shipped()?;
    let now = clocks::now();
    writeln!(
        text,
        "\nlive scores (attrition = drifting away now; churn-90 = no purchase within 90 days)"
    )?;
    writeln!(
        text,
        "  {:<18} {:>9} {:>9}  {:<9} why",
        "customer", "attrition", "churn-90", "stage"
    )?;
    // Customers who can still be won back: those who are gone for good would fill the list otherwise.
    let mut cursor = None;
    let mut shown = 0;
    'pages: loop {
        let page = server.store()?.at_risk(workspace, cursor.take(), 500).await?;
        let complete = page.len() < 500;
        for (rank, key, bytes) in page {
            let state = CustomerState::decode(&bytes)?;
            let assessment = assess(&state, &model, now);
            cursor = Some(vigie_store::RankCursor { rank, key: key.clone() });
            let (Ok(attrition), true) = (&assessment.attrition, assessment.stage.label() == "at_risk") else {
                continue;
            };
            let churn = assessment
                .churn
                .iter()
                .find(|churn| churn.horizon_days == 90)
                .and_then(|churn| churn.outcome.as_ref().ok());
            let churn = churn.map_or_else(|| "-".to_owned(), |churn| format!("{:.3}", churn.score));
            let reason = assessment.reasons.first().map_or("", |reason| reason.text.as_str());
            writeln!(
                text,
                "  {:<18} {:>9.3} {churn:>9}  {:<9} {reason}",
                key.person.to_string(),
                attrition.score,
                assessment.stage.label()
            )?;
            shown += 1;
            if shown == SHOWN {
                break 'pages;
            }
        }
        if complete {
            break;
        }
    }
    let mut flags = Vec::new();
    let mut seen = 0;
    loop {
        let page = server.store()?.flags(workspace, seen, 1000).await?;
        let complete = page.len() < 1000;
        for (sequence, body) in page {
            seen = sequence;
            flags.push(body);
        }
        if complete {
            break;
        }
    }
    writeln!(text, "\n{} relance flags raised so far; the latest:", flags.len())?;
    let mut flags = flags
        .iter()
        .map(|body| serde_json::from_slice(body))
        .collect::<Result<Vec<Flag>, _>>()?;
    // RFC 3339 in UTC with the same number of digits: the order of the text is the order of time.
    flags.sort_by(|a, b| b.raised_at.cmp(&a.raised_at));
    for flag in flags.iter().take(SHOWN) {
        writeln!(text, "{}", describe(flag))?;
    }
    say(&text)?;
    Ok(seen)
}

fn describe(flag: &Flag) -> String {
    let reason = flag.reasons.first().map_or("", |reason| reason.text.as_str());
    format!(
        "  {} {:<9} {:<18} {} {:.3}  {reason}",
        flag.raised_at,
        flag.kind.label(),
        flag.customer,
        flag.score.kind,
        flag.score.value
    )
}

fn addresses(server: &Running) -> String {
    let Some((keys, path)) = &server.keys else {
        return String::new();
    };
    format!(
        "\nconsole   {url}/\nAPI       {url}/docs   (OpenAPI: {url}/openapi.json)\nmetrics   {url}/metrics\nkeys      {path}\n\ntry:\n  curl -s '{url}/v1/customers?sort=at-risk&limit=3' -H 'Authorization: Bearer {read}'\n  curl -s '{url}/v1/relances?limit=3' -H 'Authorization: Bearer {read}'\n",
        url = server.url,
        path = path.display(),
        read = keys.read
    )
}

/// Sends events over HTTP, as a client would.
async fn post(server: &Running, events: Vec<String>) -> Result<u64> {
    if events.is_empty() {
        return Ok(0);
    }
    let Some((keys, _)) = &server.keys else { return Ok(0) };
    let (url, key) = (format!("{}/v1/events", server.url), keys.write.clone());
    tokio::task::spawn_blocking(move || {
        let mut sent = 0;
        for portion in events.chunks(500) {
            let body = format!("[{}]", portion.join(","));
            let request = ureq::post(&url)
                .header("Authorization", format!("Bearer {key}"))
                .content_type("application/json");
            let _ = request.send(body.as_bytes())?;
            sent += portion.len() as u64;
        }
        Ok(sent)
    })
    .await?
}

/// A bar on a terminal; elsewhere a line every now and then would only clutter a log, so nothing.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(1000);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("  [{bar:40}] {percent:>3} %  {msg}  {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn say(text: &str) -> Result<()> {
    print(text).map_err(|_| anyhow!("standard output cannot be written"))
}
