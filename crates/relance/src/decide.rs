//! The decision: does what a policy watches raise a flag at this instant, and if not, why not? And what became of the last
//! flag?
//!
//! Per customer and policy there is one small state machine in the customer's ledger:
//!
//! ```text
//!          reached, eligible, cooled down                  claimed, contacted
//!   armed ──────────────────────────────> flagged ─────────────────────────────> … ──> returned
//!     ^                                   or held out                               ├─> lost, at the window's end
//!     ├───────── below rearm-below ───────────┘                                     └─> recalled
//!     └──────────────────────────────── recalled by a late purchase ──────────────────────┘
//! ```
//!
//! An ineligible customer stays armed: the reason is counted once, and the flag is raised as soon as the reason is gone. What
//! lasts until an event takes it away is kept as the refusal; what ends by itself is kept as the cooldown, so that silence
//! alone never changes a reason and every instant at which something is decided is known beforehand ([`next_due`]).

use crate::complaint::{Complaint, times};
use crate::flag::{Flag, FlagKind, FlagReason, FlagScore, flag_id, holdout_draw, recall_id};
use crate::outage::held;
use crate::plan::{Plan, plan};
use crate::policy::{Measure, Policy, PolicySet, Target, Terms};
use crate::refusal::{Pause, Refusal, lasting};
use crate::row::Row;
use vigie_event::{CustomerKey, DAY_MS, FlagId, Signal, Timestamp};
use vigie_scoring::state::{Course, Phase, PolicyState, RaisedFlag};
use vigie_scoring::{CustomerState, Model, Scorer, assess};

/// What was decided about one customer under one policy.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// A flag, to be contacted or held out.
    Flag {
        /// Its identity.
        id: FlagId,
        /// The flag.
        flag: Box<Flag>,
    },
    /// No flag, for this reason.
    Refused {
        /// Name of the policy.
        policy: String,
        /// Why.
        reason: Refusal,
    },
    /// A score has come to another band, which is told.
    Moved {
        /// The identity of the notice.
        id: FlagId,
        /// The notice.
        flag: Box<Flag>,
    },
    /// The last flag has come to its end.
    Ended {
        /// Name of the policy.
        policy: String,
        /// Returned, lost or recalled.
        phase: Phase,
        /// Whether its customer was held out.
        held_out: bool,
        /// What is to be told to those who have the flag: that it was wrong.
        notice: Option<(FlagId, Box<Flag>)>,
    },
}

/// A customer as the decision sees them.
#[derive(Debug)]
pub struct Look<'a> {
    /// Who.
    pub key: &'a CustomerKey,
    /// The record.
    pub state: &'a mut CustomerState,
    /// The scores of that record.
    pub scorer: &'a Scorer<'a>,
    /// The model of those scores.
    pub model: &'a Model,
    /// The instant.
    pub now: Timestamp,
    /// When the purchase happened that this look is due to, if it is due to one.
    pub purchase: Option<Timestamp>,
}

/// What a policy watches, at one instant.
struct Reading {
    value: f64,
    reached: bool,
    recovered: bool,
}

/// Evaluates every policy and every band at one instant, brings the record up to date and returns what was decided.
#[must_use]
pub fn evaluate(set: &PolicySet, look: &mut Look<'_>) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for policy in &set.policies {
        evaluate_one(set, policy, look, &mut decisions);
    }
    decisions.extend(set.bands.iter().filter_map(|band| band.look(look)));
    decisions
}

fn evaluate_one(set: &PolicySet, policy: &Policy, look: &mut Look<'_>, decisions: &mut Vec<Decision>) {
    let (terms, segment) = terms_for(policy, look.key, look.state, look.scorer);
    let Some(reading) = read(policy.score, &terms, look.state, look.scorer, look.now) else {
        return;
    };
    let now = look.now;
    let before = look.state.ledger.policy(&policy.id);
    let mut entry = before.clone();
    if let Some(phase) = end(policy, &reading, &mut entry, look) {
        let held_out = is_held_out(look.key, policy, &terms);
        let told = phase == Phase::Recalled && !held_out;
        let notice = entry.last_flag.filter(|_| told).map(|flag| {
            let id = recall_id(flag.id);
            let mut notice = describe(policy, &terms, segment, reading.value, id, Plan::default(), look);
            notice.kind = FlagKind::Recalled;
            notice.recalls = Some(flag.id.to_string());
            (id, Box::new(notice))
        });
        decisions.push(ended(policy, phase, held_out, notice));
    }
    if reading.recovered {
        entry.armed = true;
        entry.refused = None;
    }
    let may_flag = reading.reached && entry.armed && entry.cooldown_until.is_none_or(|until| until <= now);
    let reason = || lasting(&set.outages, policy, look.key, look.state, look.scorer.features(), now);
    if !may_flag {
        // A refusal whose reason no longer holds (a purchase, a link, a consent) must not hide the next crossing.
        if entry.refused.is_some() {
            let holds = reason().map(Refusal::code);
            entry.refused = entry.refused.filter(|code| holds == Some(*code));
        }
    } else if let Some(reason) = reason() {
        let counted = entry.refused.replace(reason.code()) == Some(reason.code());
        if !counted {
            decisions.push(refused(policy, reason));
        }
    } else {
        let levels = (reading.value, terms.rearm_below);
        let unheard = held(&set.outages, policy, terms.threshold, look.state, look.scorer, now);
        let plan = match unheard {
            Some(until) => Err(Pause {
                reason: Refusal::SourceOutage,
                until,
            }),
            None => plan(set, policy, look, levels),
        };
        match plan {
            Err(pause) => {
                entry.refused = None;
                entry.cooldown_until = Some(pause.until.max(now.plus_ms(1)));
                decisions.push(refused(policy, pause.reason));
            }
            Ok(plan) => {
                if entry.advance(Phase::Lost, now) {
                    decisions.push(ended(policy, Phase::Lost, is_held_out(look.key, policy, &terms), None));
                }
                let id = flag_id(look.key, policy.id.as_str(), policy.version, now);
                entry = PolicyState {
                    armed: false,
                    refused: None,
                    last_flag: Some(RaisedFlag { at: now, id }),
                    cooldown_until: Some(now.plus_ms(i64::from(terms.cooldown_days) * DAY_MS)),
                    policy_version: policy.version,
                    course: Some(Course {
                        phase: Phase::Flagged,
                        since: now,
                    }),
                };
                let flag = Box::new(describe(policy, &terms, segment, reading.value, id, plan, look));
                decisions.push(Decision::Flag { id, flag });
            }
        }
    }
    if entry != before {
        let _ = look.state.ledger.policies.insert(policy.id.clone(), entry);
    }
}

/// Whether the last flag has come to its end by what the record says, and how.
fn end(policy: &Policy, reading: &Reading, entry: &mut PolicyState, look: &Look<'_>) -> Option<Phase> {
    let raised = entry.last_flag?.at;
    let course = entry.course?;
    let until = raised.plus_ms(window_ms(policy));
    // A purchase from before the flag, heard of after it, after which there is nothing to be flagged: the flag was wrong.
    let late = look.purchase.is_some_and(|at| at < raised);
    if course.phase.is_open() && late && !reading.reached && !policy.score.is_service() {
        let _ = entry.advance(Phase::Recalled, look.now);
        entry.armed = true;
        entry.cooldown_until = None;
        entry.refused = None;
        return Some(Phase::Recalled);
    }
    let done = match policy.target {
        _ if policy.score.is_service() => reading.recovered.then_some(look.now),
        Target::Purchase => times(look.state, Signal::Purchase).map(|times| times.last),
        Target::Activity => look.scorer.features().engagement.map(|acts| acts.last),
    };
    // What is heard of late still counts, as long as it happened in time.
    if done.is_some_and(|at| raised < at && at <= until) {
        return entry.advance(Phase::Returned, look.now).then_some(Phase::Returned);
    }
    (course.phase.is_open() && until <= look.now && entry.advance(Phase::Lost, look.now)).then_some(Phase::Lost)
}

/// The first instant after `now`, under continued silence, at which [`evaluate`] would decide something new; at most
/// `until`. `None` when silence alone changes nothing.
#[must_use]
pub fn next_due(
    set: &PolicySet,
    key: &CustomerKey,
    state: &CustomerState,
    scorer: &Scorer<'_>,
    now: Timestamp,
    until: Timestamp,
) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    let mut at_most = |due: Option<Timestamp>| {
        let due = due.map(|due| due.max(now.plus_ms(1))).filter(|due| *due <= until);
        earliest = [earliest, due].into_iter().flatten().min();
        earliest.unwrap_or(until)
    };
    for policy in &set.policies {
        let entry = state.ledger.policies.get(&policy.id);
        let open = entry.filter(|entry| entry.course.is_some_and(|course| course.phase.is_open()));
        let raised = open.and_then(|entry| entry.last_flag);
        // Only where there is something to be read is anything ever decided.
        let ends = raised.filter(|_| is_read(policy.score, scorer, now));
        let limit = at_most(ends.map(|flag| flag.at.plus_ms(window_ms(policy))));
        // What was refused is decided anew when an event changes it; silence only takes customers further away.
        if entry.is_some_and(|entry| !entry.armed || entry.refused.is_some()) {
            continue;
        }
        let from = entry
            .and_then(|entry| entry.cooldown_until)
            .map_or(now, |cooled| cooled.max(now));
        let (terms, _) = terms_for(policy, key, state, scorer);
        let due = match policy.score {
            Measure::Score(kind) => scorer.first_crossing(kind, terms.threshold, from, limit),
            clock => started(clock, state).map(|start| start.plus_ms(days_ms(terms.threshold)).max(from)),
        };
        let _ = at_most(due);
    }
    for band in &set.bands {
        let limit = at_most(None);
        let _ = at_most(band.due(key, state, scorer, now, limit));
    }
    earliest
}

pub(crate) fn terms_for<'a>(
    policy: &'a Policy,
    key: &CustomerKey,
    state: &CustomerState,
    scorer: &Scorer<'_>,
) -> (Terms, Option<&'a str>) {
    if policy.segments.is_empty() {
        return (policy.terms, None);
    }
    policy.terms_for(&Row::of(key, state, scorer.features()))
}

fn is_read(measure: Measure, scorer: &Scorer<'_>, now: Timestamp) -> bool {
    measure.score().is_none_or(|kind| scorer.score(kind, now).is_ok())
}

fn read(
    measure: Measure,
    terms: &Terms,
    state: &CustomerState,
    scorer: &Scorer<'_>,
    now: Timestamp,
) -> Option<Reading> {
    match measure {
        Measure::Score(kind) => scorer.score(kind, now).ok().map(|value| Reading {
            value,
            reached: value >= terms.threshold,
            recovered: value < terms.rearm_below,
        }),
        clock => Some(match started(clock, state) {
            Some(start) => Reading {
                value: now.ms_since(start) as f64 / DAY_MS as f64,
                reached: start.plus_ms(days_ms(terms.threshold)) <= now,
                recovered: now < start.plus_ms(days_ms(terms.rearm_below)),
            },
            None => Reading {
                value: 0.0,
                reached: false,
                recovered: true,
            },
        }),
    }
}

/// Since when a complaint clock runs.
fn started(clock: Measure, state: &CustomerState) -> Option<Timestamp> {
    let complaint = Complaint::of(state)?;
    match clock {
        Measure::ComplaintAge => complaint.is_open().then_some(complaint.opened),
        Measure::ClosureAge => complaint.answered(),
        Measure::Score(_) => None,
    }
}

pub(crate) fn days_ms(days: f64) -> i64 {
    (days * DAY_MS as f64) as i64
}

fn window_ms(policy: &Policy) -> i64 {
    i64::from(policy.window_days) * DAY_MS
}

fn is_held_out(key: &CustomerKey, policy: &Policy, terms: &Terms) -> bool {
    holdout_draw(key.workspace.as_str(), &key.person, policy.id.as_str()) < terms.holdout
}

fn refused(policy: &Policy, reason: Refusal) -> Decision {
    Decision::Refused {
        policy: policy.id.to_string(),
        reason,
    }
}

fn ended(policy: &Policy, phase: Phase, held_out: bool, notice: Option<(FlagId, Box<Flag>)>) -> Decision {
    Decision::Ended {
        policy: policy.id.to_string(),
        phase,
        held_out,
        notice,
    }
}

fn describe(
    policy: &Policy,
    terms: &Terms,
    segment: Option<&str>,
    value: f64,
    id: FlagId,
    plan: Plan,
    look: &Look<'_>,
) -> Flag {
    let assessment = assess(look.state, look.model, look.now);
    Flag {
        id: id.to_string(),
        workspace: look.key.workspace.to_string(),
        customer: look.key.person.to_string(),
        policy: policy.id.to_string(),
        policy_version: format!("{:016x}", policy.version),
        kind: if is_held_out(look.key, policy, terms) {
            FlagKind::HeldOut
        } else {
            FlagKind::Flagged
        },
        score: FlagScore {
            kind: policy.score.name(),
            value,
            threshold: terms.threshold,
        },
        raised_at: look.now.to_string(),
        stage: assessment.stage.label().to_owned(),
        reasons: assessment
            .reasons
            .iter()
            .map(|reason| FlagReason {
                code: reason.code.label().to_owned(),
                text: reason.text.clone(),
                events: reason.events.clone(),
            })
            .collect(),
        model: assessment.model,
        play: policy.play.label().to_owned(),
        customer_benefit: policy.customer_benefit.clone(),
        segment: segment.map(str::to_owned),
        recalls: None,
        band: None,
        plan,
    }
}
