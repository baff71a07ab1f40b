//! What silence does to one customer: the instants at which it changes something, and the looks that are due at them.
//!
//! A *look* decides for every policy as of an instant. After it the customer wants to be looked at again at the earlier of
//! two instants: the first at which some policy would decide something new (a *crossing*), and the first at which a published
//! score has drifted by the model's tolerance (a *refresh*). [`walk`] does exactly that, look by look, and is the definition.
//!
//! [`leap`] is the shortcut that makes an audit of millions of events affordable: it goes from crossing to crossing. A look
//! at a refresh changes nothing but the published scores, the rank and the timer, which the next look writes anew; so they
//! need not be computed where nobody sees them. Its conditions are checked, and where they do not hold it walks:
//!
//! * a refusal is reconsidered at every look, but under silence its reason stays what it is: of all reasons only the last ones in
//!   their order depend on time, of them the one that came first counts, and it does not go away. Where the record has changed without a look (an event that was
//!   set aside brings its consent nevertheless), the next refresh may be the one that notices.
//! * no look searches further ahead than ten years; whether a later crossing is met depends on the refreshes before it.
//!
//! The only mathematics here is that scores do not fall under silence: an instant is found by halving, guided by
//! interpolation, until two neighbouring milliseconds part it.

use crate::band;
use crate::contact::{clock, refusal};
use crate::decision::{Active, Flags, Moment, days, decide, terms, window_end};
use crate::state::{Published, State};
use vigie_event::{CustomerKey, DAY_MS, Day, Timestamp};
use vigie_relance::Measure;
use vigie_scoring::{Features, ScoreKind, Scorer};

/// How far ahead a look searches.
const AHEAD_MS: i64 = 10 * 366 * DAY_MS;

/// A customer as the oracle holds them.
#[derive(Debug, Default)]
pub(crate) struct Customer {
    pub(crate) state: State,
    /// The last look, and what the models knew at it; `None` for a signpost.
    pub(crate) looked: Option<Looked>,
}

/// A look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked {
    pub(crate) at: Timestamp,
    pub(crate) features: Features,
}

/// Looks at a customer whose record has just changed, by a purchase if one is named.
pub(crate) fn look(active: &Active, key: &CustomerKey, customer: &mut Customer, moment: Moment, flags: &mut Flags) {
    customer
        .state
        .presume(active.policies.silence.of(&key.workspace).profiling);
    let features = customer.state.features();
    let at = moment.at;
    let scorer = Scorer::new(features, &active.model);
    customer.looked = Some(Looked { at, features });
    let _ = decide(active, key, &mut customer.state, &scorer, moment, flags);
}

/// The same for a record that has not; `true` when a policy's standing changed.
fn look_again(active: &Active, key: &CustomerKey, customer: &mut Customer, looked: Looked, flags: &mut Flags) -> bool {
    let scorer = Scorer::new(looked.features, &active.model);
    customer.looked = Some(looked);
    decide(active, key, &mut customer.state, &scorer, Moment::of(looked.at), flags)
}

/// Lets time pass to `until`, look by look, and publishes the last one: timer, rank and scores are those of the record.
pub(crate) fn walk(active: &Active, key: &CustomerKey, customer: &mut Customer, until: Timestamp, flags: &mut Flags) {
    let Some(mut looked) = customer.looked else { return };
    let scorer = Scorer::new(looked.features, &active.model);
    let mut strides = [DAY_MS; 2];
    let mut known = None;
    loop {
        let horizon = looked.at.plus_ms(AHEAD_MS);
        let crossing = known.or_else(|| crossing(active, key, &customer.state, &scorer, looked.at, horizon));
        let refresh = refresh(active, &scorer, looked.at, crossing.unwrap_or(horizon), &mut strides);
        let due = [crossing, refresh].into_iter().flatten().min();
        match due.filter(|due| *due <= until) {
            Some(at) => {
                looked.at = at;
                let decided = look_again(active, key, customer, looked, flags);
                // A look that decides nothing leaves a crossing where it is.
                known = crossing.filter(|crossing| !decided && *crossing > at);
            }
            None => {
                let published = publish(active, &scorer, looked.at);
                customer.state.timer = due;
                customer.state.rank = published.attrition.map(rank);
                customer.state.published = Some(published);
                return;
            }
        }
    }
}

/// Lets time pass to `until` with the same decisions as [`walk`]; timer, rank and published scores are left stale.
pub(crate) fn leap(active: &Active, key: &CustomerKey, customer: &mut Customer, until: Timestamp, flags: &mut Flags) {
    let Some(mut looked) = customer.looked else { return };
    if until <= looked.at {
        return;
    }
    let scorer = Scorer::new(looked.features, &active.model);
    loop {
        if until.ms_since(looked.at) > AHEAD_MS || restless(active, key, &customer.state, &scorer, looked.at) {
            return walk(active, key, customer, until, flags);
        }
        let due = crossing(active, key, &customer.state, &scorer, looked.at, until);
        let Some(at) = due.filter(|due| *due <= until) else {
            return;
        };
        looked.at = at;
        let _ = look_again(active, key, customer, looked, flags);
    }
}

/// Whether a mere refresh may decide something: some refusal or band on record is not what it would be at the last look.
fn restless(active: &Active, key: &CustomerKey, state: &State, scorer: &Scorer<'_>, at: Timestamp) -> bool {
    let stale = active.policies.policies.iter().any(|policy| {
        let refused = state.policies.get(&policy.id).and_then(|standing| standing.refused);
        refused.is_some() && refusal(&active.policies, policy, key, state, scorer.features(), at) != refused
    });
    stale || band::held_back(active, key, state, scorer, at)
}

/// The first instant after `at` at which some policy decides something new: raises a flag, or gives one up, or a band is
/// left.
fn crossing(
    active: &Active,
    key: &CustomerKey,
    state: &State,
    scorer: &Scorer<'_>,
    at: Timestamp,
    until: Timestamp,
) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    let soonest = |earliest: Option<Timestamp>, due: Option<Timestamp>| {
        let due = due.map(|due| due.max(at.plus_ms(1))).filter(|due| *due <= until);
        [earliest, due].into_iter().flatten().min()
    };
    for policy in &active.policies.policies {
        let standing = state.policies.get(&policy.id);
        let decides = match policy.score {
            Measure::Score(kind) => scorer.score(kind, at).is_ok(),
            _ => true,
        };
        if let Some(standing) = standing.filter(|standing| decides && standing.is_open()) {
            let end = standing.flag.map(|(raised, _)| window_end(policy, raised));
            earliest = soonest(earliest, end);
        }
        let mut from = at;
        if let Some(standing) = standing {
            if !standing.armed || standing.refused.is_some() {
                continue;
            }
            from = from.max(standing.cooldown.unwrap_or(from));
        }
        let threshold = terms(policy, key, state, scorer).threshold;
        let limit = earliest.unwrap_or(until);
        let due = match policy.score {
            Measure::Score(kind) => {
                let there = |at: Timestamp| reached(scorer, kind, threshold, at);
                if from < limit && !there(limit) {
                    None
                } else if there(from) {
                    Some(from)
                } else {
                    first_after(scorer, kind, threshold, from, limit, &mut { DAY_MS })
                }
            }
            measure => clock(measure, state).map(|since| since.plus_ms(days(threshold)).max(from)),
        };
        earliest = soonest(earliest, due);
    }
    let limit = earliest.unwrap_or(until);
    soonest(earliest, band::crossing(active, key, state, scorer, at, limit))
}

/// The first instant after `at` at which a published score has drifted.
fn refresh(
    active: &Active,
    scorer: &Scorer<'_>,
    at: Timestamp,
    until: Timestamp,
    [by_attrition, by_churn]: &mut [i64; 2],
) -> Option<Timestamp> {
    let drifted = |kind: ScoreKind, until: Timestamp, stride: &mut i64| {
        let now = scorer.score(kind, at).ok()?;
        first_after(scorer, kind, now + active.model.refresh_drift, at, until, stride)
    };
    let attrition = drifted(ScoreKind::Attrition, until, by_attrition);
    let churn = ScoreKind::Churn(active.model.default_horizon_days);
    let churn = drifted(churn, attrition.unwrap_or(until), by_churn);
    [attrition, churn].into_iter().flatten().min()
}

fn reached(scorer: &Scorer<'_>, kind: ScoreKind, level: f64, at: Timestamp) -> bool {
    scorer.score(kind, at).is_ok_and(|score| score >= level)
}

/// The first millisecond after `from`, up to `until`, at which a score that is below the level at `from` is not any more.
/// `stride` is a guess of how far that is, and becomes the answer.
pub(crate) fn first_after(
    scorer: &Scorer<'_>,
    kind: ScoreKind,
    level: f64,
    from: Timestamp,
    until: Timestamp,
    stride: &mut i64,
) -> Option<Timestamp> {
    if until <= from || !reached(scorer, kind, level, until) {
        return None;
    }
    let score = |at: Timestamp| scorer.score(kind, at).unwrap_or(f64::NEG_INFINITY);
    let found = match kind {
        // Churn counts whole UTC days: only midnights are to be asked.
        ScoreKind::Churn(_) => {
            let (first, last) = (i64::from(from.day().0), i64::from(until.day().0));
            let midnight = |day: i64| Day(i32::try_from(day).unwrap_or(i32::MAX)).start();
            midnight(first_reached(
                |day| score(midnight(day)),
                level,
                first,
                last,
                (*stride / DAY_MS).max(1),
            ))
        }
        ScoreKind::Attrition => Timestamp(first_reached(
            |at| score(Timestamp(at)),
            level,
            from.0,
            until.0,
            (*stride).max(60_000),
        )),
    };
    *stride = found.ms_since(from);
    Some(found)
}

/// The first whole number in `low + 1 ..= high` at which a function that never falls is at the level or above, given that it
/// is at `high` and not at `low`.
fn first_reached(value: impl Fn(i64) -> f64, level: f64, mut low: i64, mut high: i64, mut stride: i64) -> i64 {
    let mut below = value(low);
    // Outwards from the beginning until the level is passed…
    let mut above = loop {
        let next = low.saturating_add(stride);
        if next >= high {
            break value(high);
        }
        let there = value(next);
        if there >= level {
            high = next;
            break there;
        }
        (low, below) = (next, there);
        stride = stride.saturating_mul(2);
    };
    // …then inwards. Every third time the middle is taken, so that no shape of the function can make it long; the value of
    // an end that stays is halved towards the level, so that the other end moves too (the Illinois rule).
    let mut turn = 0u32;
    let mut stayed = 0i32;
    while high - low > 1 {
        let width = (high - low) as f64;
        let share = (level - below) / (above - below);
        turn += 1;
        let middle = if turn.is_multiple_of(3) || !share.is_finite() {
            low.midpoint(high)
        } else {
            low.saturating_add((width * share.clamp(0.0, 1.0)) as i64)
        };
        let middle = middle.clamp(low + 1, high - 1);
        let there = value(middle);
        if there >= level {
            (high, above) = (middle, there);
            if stayed > 0 {
                below = level - (level - below) / 2.0;
            }
            stayed = 1;
        } else {
            (low, below) = (middle, there);
            if stayed < 0 {
                above = level + (above - level) / 2.0;
            }
            stayed = -1;
        }
    }
    high
}

fn publish(active: &Active, scorer: &Scorer<'_>, at: Timestamp) -> Published {
    let millionths = |kind| scorer.score(kind, at).ok().map(|score| (score * 1e6).round() as u32);
    Published {
        at,
        attrition: millionths(ScoreKind::Attrition),
        churn: millionths(ScoreKind::Churn(active.model.default_horizon_days)),
        model: active.model.fingerprint,
    }
}

/// Attrition as a rank from 0 to 65,535, in steps of half a hundredth.
fn rank(millionths: u32) -> u16 {
    u16::try_from(u64::from(millionths / 5_000) * 5_000 * 65_535 / 1_000_000).unwrap_or(u16::MAX)
}
