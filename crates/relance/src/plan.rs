//! How a contact is to be made: when, by which channel, at what cost (R45), each with the reason why. Whether one is made at
//! all is decided before; what is found out here can only pause it.

use crate::complaint::Complaint;
use crate::decide::Look;
use crate::hours::best;
use crate::policy::{Offer, Policy, PolicySet};
use crate::refusal::{Pause, Refusal, allowed, free_again, pause, rewarded};
use crate::row::Row;
use crate::worth::{Stake, response, units};
use serde::{Deserialize, Serialize};
use vigie_event::{Channel, Currency, DAY_MS, Timestamp};
use vigie_scoring::{CustomerState, ScoreKind};

/// How a contact is to be made. What is absent is left to whoever makes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// By which channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Most contacts by that channel a day, all customers together: whoever hands flags out keeps it, by `at_stake`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_capacity: Option<u32>,
    /// From when, on the customers' clock, in RFC 3339 with its offset.
    pub from: String,
    /// Until when.
    pub to: String,
    /// The clock, by its IANA name.
    pub time_zone: String,
    /// What the contact may cost, in minor units of `currency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost_minor: Option<i64>,
    /// What is at stake, in minor units of `currency`: the order in which flags are to be worked off (R23).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_stake_minor: Option<i64>,
    /// ISO 4217 code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Why so.
    pub why: Vec<PlanReason>,
}

/// Why one part of a plan is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReason {
    /// `when`, `channel` or `cost`.
    pub part: String,
    /// Stable kind of the reason.
    pub code: String,
    /// The sentence.
    pub text: String,
}

/// A channel with what speaks for it.
struct Choice<'a> {
    offer: &'a Offer,
    response: f64,
    /// Expected saving less cost in minor units; less cost in major ones where nothing is known to be at stake.
    net: f64,
}

/// Makes a plan at the instant of a crossing, `risk` being what the watched score stands at and `healthy` the level below
/// which the customer counts as recovered.
pub(crate) fn plan(
    set: &PolicySet,
    policy: &Policy,
    look: &Look<'_>,
    (risk, healthy): (f64, f64),
) -> Result<Plan, Pause> {
    let (state, scorer, now) = (&*look.state, look.scorer, look.now);
    let calendar = set.calendar_for(|| Row::of(look.key, state, scorer.features()));
    let is_service = policy.score.is_service();
    if !is_service && let Some(pause) = pause(&set.pressure, state, &state.ledger, now) {
        return Err(pause);
    }
    if let Some(pause) = rewarded(set, policy, &state.ledger, now) {
        return Err(pause);
    }
    let mut plan = Plan::default();
    let mut why = |part: &str, code: &str, text: String| {
        plan.why.push(PlanReason {
            part: part.to_owned(),
            code: code.to_owned(),
            text,
        });
    };
    // What is owed to somebody who complained is worth the whole risk of losing them.
    let (risk, healthy) = if is_service {
        (scorer.score(ScoreKind::Attrition, now).unwrap_or(0.0), 0.0)
    } else {
        (risk, healthy)
    };
    let stake = Stake::of(state, &set.economics, risk, healthy);
    let grave = is_service && Complaint::of(state).is_some_and(|complaint| complaint.grave);
    let chosen = if grave {
        why(
            "channel",
            "grave_complaint",
            "The complaint is grave: its answer is given by telephone.".to_owned(),
        );
        policy
            .channels
            .iter()
            .find(|offer| offer.channel == Channel::Phone)
            .map(|offer| Choice {
                offer,
                response: response(offer, state),
                net: 0.0,
            })
    } else {
        let chosen = choose(set, policy, state, stake.as_ref(), now)?;
        if let Some(choice) = &chosen {
            why(
                "channel",
                "best_expected_margin",
                format!(
                    "{} is expected to be responded to by {:.0} % and costs {}.",
                    choice.offer.channel,
                    choice.response * 100.0,
                    choice.offer.cost
                ),
            );
        }
        chosen
    };
    if let (Some(stake), Some(choice)) = (&stake, &chosen)
        && stake.comparable
    {
        if !is_service && choice.net < 0.0 {
            return Err(Pause {
                reason: Refusal::Unprofitable,
                until: now.plus_ms(i64::from(policy.terms.cooldown_days.max(1)) * DAY_MS),
            });
        }
        let gain = stake.gain(choice.response, policy.expected_effect);
        let most = policy
            .max_cost
            .map_or(gain, |most| gain.min(most * units(stake.currency)));
        plan_money(&mut plan.max_cost_minor, most);
    }
    if let Some(stake) = &stake {
        why(
            "cost",
            "value_at_stake",
            format!(
                "{} in the year up to the last purchase, at a margin of {:.0} %.",
                amount(stake.year, stake.currency),
                set.economics.margin * 100.0
            ),
        );
    } else {
        why(
            "cost",
            "no_value_known",
            "No purchase with an amount is known.".to_owned(),
        );
    }
    let open = calendar.open_hours(now, policy.within_hours);
    let whole = state.combined();
    let Some((hour, own)) = best(open, whole.hours()) else {
        return Err(Pause {
            reason: Refusal::Quiet,
            until: now.plus_ms(DAY_MS),
        });
    };
    if let Some(closed) = calendar.closed(now) {
        let text = match closed {
            crate::hours::Closed::Holiday(name) => format!("Not now: {name}."),
            _ => "Not now: nobody is contacted at this hour or on this day.".to_owned(),
        };
        why("when", closed.label(), text);
    }
    if own {
        why(
            "when",
            "own_best_hour",
            "The open hour at which the customer is most often there.".to_owned(),
        );
    } else {
        why(
            "when",
            "first_open_hour",
            "Too little is known of the customer's hours: the first open one.".to_owned(),
        );
    }
    plan.from = calendar.local(hour.from);
    plan.to = calendar.local(hour.to);
    plan.time_zone = calendar.zone.name().to_owned();
    if grave {
        plan.channel = Some(Channel::Phone.to_string());
    }
    if let Some(choice) = chosen {
        plan.channel = Some(choice.offer.channel.to_string());
        plan.daily_capacity = choice.offer.capacity;
    }
    if let Some(stake) = stake {
        plan_money(&mut plan.at_stake_minor, stake.minor);
        plan.currency = Some(stake.currency.to_string());
    }
    Ok(plan)
}

/// The channel from which most is expected, of those that may be used and are not at their cap. `None`: the policy names none.
fn choose<'a>(
    set: &PolicySet,
    policy: &'a Policy,
    state: &CustomerState,
    stake: Option<&Stake>,
    now: Timestamp,
) -> Result<Option<Choice<'a>>, Pause> {
    let mut best: Option<Choice<'a>> = None;
    let mut free: Option<Timestamp> = None;
    for offer in allowed(policy, state) {
        let cap = set.pressure.channels.get(&offer.channel);
        let capped = cap
            .filter(|_| !policy.score.is_service())
            .and_then(|most| free_again(&state.ledger, Some(offer.channel), *most, set.pressure.window_days, now));
        if let Some(until) = capped {
            free = Some(free.map_or(until, |free| free.min(until)));
            continue;
        }
        let response = response(offer, state);
        let net = match stake.filter(|stake| stake.comparable) {
            Some(stake) => stake.gain(response, policy.expected_effect) - offer.cost * units(stake.currency),
            None => -offer.cost,
        };
        if best.as_ref().is_none_or(|best| net > best.net) {
            best = Some(Choice { offer, response, net });
        }
    }
    match (best, free) {
        (None, Some(until)) => Err(Pause {
            reason: Refusal::Capped,
            until,
        }),
        (best, _) => Ok(best),
    }
}

fn plan_money(to: &mut Option<i64>, minor: f64) {
    // Whole minor units; the conversion saturates.
    *to = Some(minor.floor() as i64);
}

fn amount(minor: f64, currency: Currency) -> String {
    let digits = usize::try_from(currency.exponent()).unwrap_or_default();
    format!("{:.digits$} {currency}", minor / units(currency))
}
