//! Which changes of bands are told, decided anew: a score goes up into the next band as soon as it is at its edge, and down out of
//! its band as soon as it is below the edge by more than the slack, one band after the other. The first place that is seen
//! is noted only, and so is every first one under another definition of the band.
//!
//! Shared with the live side is the definition as it was read.

use crate::contact::row;
use crate::decision::{Active, ExpectedFlag, Flags, texts};
use crate::silence::first_after;
use crate::state::State;
use sha2::{Digest, Sha256};
use vigie_event::{ConsentState, CustomerKey, DAY_MS, Day, FlagId, Purpose, Timestamp};
use vigie_relance::{Band, BandMeasure};
use vigie_scoring::{ScoreKind, Scorer};

/// An edge, and what is below it by more than the slack.
#[derive(Debug, Clone, Copy)]
struct Edge {
    up: f64,
    down: f64,
}

fn edges(active: &Active, band: &Band) -> Vec<Edge> {
    let stages = &active.model.stages;
    let ups = match band.measure {
        BandMeasure::Stage => vec![-1.0, 0.0, stages.slowing, stages.at_risk, stages.lapsed],
        _ => band.edges.clone(),
    };
    let mut before = 0.0;
    let mut all = Vec::with_capacity(ups.len());
    for up in ups {
        let slack = match band.measure {
            BandMeasure::Revenue => up * band.hysteresis,
            _ => band.hysteresis,
        };
        // The two lowest stages are facts: there is nothing to waver about.
        let down = if up > 0.0 {
            up - slack.min((up - before) / 2.0)
        } else {
            up
        };
        before = up.max(0.0);
        all.push(Edge { up, down });
    }
    all
}

/// The first day of a customer's that is not new any more; `None` for who never bought.
fn grown(active: &Active, scorer: &Scorer<'_>) -> Option<Day> {
    let first = scorer.features().purchases?.first;
    Some(Day(first.0.saturating_add(i32::from(active.model.stages.new_days))))
}

/// Where a customer stands: prospects at -2, new customers at -1 on the scale of stages.
fn value(
    active: &Active,
    band: &Band,
    key: &CustomerKey,
    state: &State,
    scorer: &Scorer<'_>,
    at: Timestamp,
) -> Option<f64> {
    match band.measure {
        BandMeasure::Score(kind) => scorer.score(kind, at).ok(),
        BandMeasure::Stage => Some(match grown(active, scorer) {
            None => -2.0,
            Some(day) if at.day() < day => -1.0,
            Some(_) => scorer.score(ScoreKind::Attrition, at).unwrap_or_default(),
        }),
        BandMeasure::Revenue => {
            let row = row(key, state, scorer.features());
            let (net, code) = (row.revenue_minor?, row.currency?);
            let currency = vigie_event::Currency::parse(&code).ok()?;
            let counts = band.currency.is_none_or(|wanted| wanted == currency);
            counts.then(|| net as f64 / 10_i64.pow(currency.exponent()) as f64)
        }
    }
}

/// The place that follows from a value, one step after the other.
fn step(edges: &[Edge], value: f64, from: Option<usize>) -> usize {
    let mut place = from.unwrap_or(0);
    while edges.get(place).is_some_and(|edge| value >= edge.up) {
        place += 1;
    }
    while from.is_some() && place > 0 && edges.get(place - 1).is_some_and(|edge| value < edge.down) {
        place -= 1;
    }
    place
}

fn version(band: &Band) -> u32 {
    (band.version >> 32) as u32
}

fn known(band: &Band, state: &State) -> Option<usize> {
    let (of, place) = state.bands.get(&band.id)?;
    (*of == version(band)).then_some(usize::from(*place))
}

/// Notes where a customer is in every band and tells what has changed; `true` when something was noted.
pub(crate) fn tell(
    active: &Active,
    key: &CustomerKey,
    state: &mut State,
    scorer: &Scorer<'_>,
    at: Timestamp,
    stage: &'static str,
    flags: &mut Flags,
) -> bool {
    if !key.person.is_known() || state.word(Purpose::Profiling) == Some(ConsentState::Refused) {
        return false;
    }
    let mut changed = false;
    for band in &active.policies.bands {
        let Some(value) = value(active, band, key, state, scorer, at) else {
            continue;
        };
        let (edges, before) = (edges(active, band), known(band, state));
        let place = step(&edges, value, before);
        if before == Some(place) {
            continue;
        }
        changed = true;
        let _ = state
            .bands
            .insert(band.id.clone(), (version(band), u8::try_from(place).unwrap_or(u8::MAX)));
        let Some(from) = before else { continue };
        let threshold = match place.checked_sub(1).filter(|_| place > from) {
            Some(entered) => edges.get(entered).map(|edge| edge.up),
            None => edges.get(place).map(|edge| edge.down),
        };
        let id = identity(key, band, at, from, place);
        let name = |place: usize| band.names.get(place).cloned().unwrap_or_default();
        let moved = serde_json::json!({"from": name(from), "to": name(place), "up": place > from});
        let _ = flags
            .entry((key.workspace.clone(), id))
            .or_insert_with(|| ExpectedFlag {
                id,
                customer: key.clone(),
                policy: band.id.to_string(),
                policy_version: band.version,
                kind: "band_changed",
                score: band.measure.name(),
                value,
                threshold: threshold.unwrap_or_default(),
                raised_at: at,
                stage,
                model: active.model.version.clone(),
                band: Some(moved.to_string()),
            });
    }
    changed
}

/// Whether a place on record is not what it would be at the last look: the look held a change back.
pub(crate) fn held_back(active: &Active, key: &CustomerKey, state: &State, scorer: &Scorer<'_>, at: Timestamp) -> bool {
    active.policies.bands.iter().any(|band| {
        let place = known(band, state).zip(value(active, band, key, state, scorer, at));
        place.is_some_and(|(place, value)| step(&edges(active, band), value, Some(place)) != place)
    })
}

/// The first instant after `at`, up to `until`, at which silence alone brings a customer to another band.
pub(crate) fn crossing(
    active: &Active,
    key: &CustomerKey,
    state: &State,
    scorer: &Scorer<'_>,
    at: Timestamp,
    until: Timestamp,
) -> Option<Timestamp> {
    let bands = active.policies.bands.iter().filter(|_| key.person.is_known());
    let dues = bands.filter_map(|band| {
        let place = known(band, state)?;
        let (edges, now) = (edges(active, band), value(active, band, key, state, scorer, at)?);
        if step(&edges, now, Some(place)) != place {
            return None;
        }
        let up = edges.get(place).map(|edge| edge.up);
        match band.measure {
            BandMeasure::Revenue => None,
            BandMeasure::Stage if now < 0.0 => grown(active, scorer).map(Day::start),
            BandMeasure::Stage => first_after(scorer, ScoreKind::Attrition, up?, at, until, &mut { DAY_MS }),
            // A fitted model knows seasons, by which churn falls as well, at midnights.
            BandMeasure::Score(kind @ ScoreKind::Churn(_)) if active.model.churn.is_some() => (at.day().0 + 1
                ..=until.day().0)
                .map(|day| Day(day).start())
                .find(|midnight| {
                    let there = scorer.score(kind, *midnight);
                    there.is_ok_and(|there| step(&edges, there, Some(place)) != place)
                }),
            BandMeasure::Score(kind) => first_after(scorer, kind, up?, at, until, &mut { DAY_MS }),
        }
    });
    dues.filter(|due| at < *due && *due <= until).min()
}

/// The identity of a change: a hash of its cause.
fn identity(key: &CustomerKey, band: &Band, at: Timestamp, from: usize, to: usize) -> FlagId {
    let mut hash = Sha256::new();
    // Nobody without a known id is told of.
    let names = [
        "band",
        key.workspace.as_str(),
        "known",
        key.person.as_str(),
        band.id.as_str(),
    ];
    texts(&mut hash, &names);
    hash.update(band.version.to_le_bytes());
    hash.update(at.0.to_le_bytes());
    hash.update(((from * 256 + to) as u64).to_le_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let (first, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    FlagId(*first)
}
