//! Did it work (R43, R53, R54, R83, R89 to R91): every policy's treated customers against those it held out, from flags and
//! from what customers did afterwards.
//!
//! The unit is the customer, with their first flag under the policy; it counts once the flag's window is over, whether a
//! contact was made or not (*intention to treat*): who is contacted is chosen by capacity and by agents, and comparing only
//! those would compare the choice. Both arms are looked at in the same way, by the same events. Intervals hold at all times
//! ([`crate::statistics`]): the report may be read every day.

use super::{Estimate, Money, add};
use crate::flag::{Flag, FlagKind};
use crate::policy::{Economics, Play, Policy, Target};
use crate::statistics::{Arm, Level, Uplift, Verdict, money_share, uplift, verdict};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vigie_event::{Channel, Currency, DAY_MS, FlagId, Signal, Timestamp};

/// Share of the window that must lie between a return and a further sign, so that the return has lasted (R54).
const HELD_SHARE: i64 = 3;

/// What an event says that a flag's outcome may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// When, by our judgement.
    pub at: Timestamp,
    /// What, by our judgement.
    pub signal: Signal,
    /// Where.
    pub channel: Channel,
    /// A person did it, as far as one can tell.
    pub human: bool,
    /// Money of a purchase or refund, or the cost of a contact, in minor units.
    pub money: Option<(Currency, i64)>,
    /// The flag that it names.
    pub flag: Option<FlagId>,
}

/// A policy as it was when a flag was raised.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The policy.
    pub policy: Policy,
    /// What money was worth.
    pub economics: Economics,
}

/// One flag and what became of its customer.
#[derive(Debug, Clone)]
pub struct Watch {
    id: FlagId,
    customer: String,
    policy: String,
    version: String,
    held_out: bool,
    raised: Timestamp,
    play: Option<Play>,
    stage: String,
    channel: Option<Channel>,
    at_stake: Option<(Currency, i64)>,
    rule: Option<Arc<Rule>>,
    until: Timestamp,
    returned: Option<Timestamp>,
    lasted: bool,
    bought: Money,
    annoyed: bool,
    claimed: bool,
    contacted: bool,
    answered: bool,
    recalled: bool,
    /// Costs that events named, in minor units.
    named_costs: Money,
    contacts: u32,
}

impl Watch {
    /// A flag as it was raised. `rule` is the policy of its version, where it is still known; without it a window of sixty
    /// days and purchases count. `None` for notices, and for flags that cannot be read.
    #[must_use]
    pub fn new(flag: &Flag, rule: Option<Arc<Rule>>) -> Option<Self> {
        if !flag.kind.is_raised() {
            return None;
        }
        let raised = Timestamp::parse(&flag.raised_at).ok()?;
        let days = rule.as_ref().map_or(60, |rule| rule.policy.window_days);
        let currency = flag
            .plan
            .currency
            .as_deref()
            .and_then(|code| Currency::parse(code).ok());
        Some(Self {
            id: FlagId::parse(&flag.id)?,
            customer: flag.customer.clone(),
            policy: flag.policy.clone(),
            version: flag.policy_version.clone(),
            held_out: flag.kind == FlagKind::HeldOut,
            raised,
            play: Play::parse(&flag.play),
            stage: flag.stage.clone(),
            channel: flag.plan.channel.as_deref().and_then(Channel::parse),
            at_stake: currency.zip(flag.plan.at_stake_minor),
            until: raised.plus_ms(i64::from(days) * DAY_MS),
            rule,
            returned: None,
            lasted: false,
            bought: Money::new(),
            annoyed: false,
            claimed: false,
            contacted: false,
            answered: false,
            recalled: false,
            named_costs: Money::new(),
            contacts: 0,
        })
    }

    /// Whose flag it is, as the flag names them.
    #[must_use]
    pub fn customer(&self) -> &str {
        &self.customer
    }

    /// Looks at an event of the customer; in order of time.
    pub fn see(&mut self, seen: &Seen) {
        let own = seen.flag == Some(self.id);
        if own {
            self.claimed |= seen.signal == Signal::RelanceClaimed;
            self.recalled |= seen.signal == Signal::RelanceRecalled;
            self.answered |= seen.signal == Signal::ContactAnswered;
            let contact = [Signal::RelanceContacted, Signal::ContactSent, Signal::CallOutbound];
            if contact.contains(&seen.signal) {
                self.contacted = true;
                self.contacts += 1;
                self.channel = Some(seen.channel);
                if let Some((currency, minor)) = seen.money {
                    add(&mut self.named_costs, currency, minor.saturating_abs());
                }
            }
        }
        if seen.at <= self.raised || seen.at > self.until {
            return;
        }
        match seen.signal {
            Signal::Purchase => {
                if let Some((currency, minor)) = seen.money {
                    add(&mut self.bought, currency, minor.max(0));
                }
            }
            Signal::Refund => {
                if let Some((currency, minor)) = seen.money {
                    add(&mut self.bought, currency, -minor.saturating_abs());
                }
            }
            Signal::EmailUnsubscribe | Signal::EmailComplaint => self.annoyed = true,
            // A complaint about the contact itself cannot be told from others: all count, in both arms.
            Signal::ComplaintOpened => self.annoyed = true,
            _ => {}
        }
        let target = self.rule.as_ref().map_or(Target::Purchase, |rule| rule.policy.target);
        let reached = match target {
            Target::Purchase => seen.signal.is_purchase(),
            Target::Activity => seen.human && seen.signal.is_engagement(),
        };
        if reached {
            let first = *self.returned.get_or_insert(seen.at);
            self.lasted |= seen.at.ms_since(first) >= self.until.ms_since(self.raised) / HELD_SHARE;
        }
    }

    fn is_closed(&self, now: Timestamp) -> bool {
        self.until <= now
    }

    /// What the contacts cost, in minor units of `currency`: what events named, else the policy's price for each.
    fn cost(&self, currency: Currency, contacts: u32) -> f64 {
        let named = self.named_costs.get(currency.as_str()).copied().unwrap_or_default();
        if named > 0 {
            return named as f64;
        }
        let Some(rule) = &self.rule else { return 0.0 };
        let offer = rule
            .policy
            .channels
            .iter()
            .find(|offer| Some(offer.channel) == self.channel);
        offer.map_or(0.0, |offer| offer.cost * f64::from(contacts)) * crate::worth::units(currency)
    }
}

/// One arm of a comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Side {
    /// Customers whose window is over.
    pub customers: u64,
    /// Share who did what the policy is after.
    pub returned: f64,
    /// Share whose return lasted: a further such act at least a third of the window after the first.
    pub lasted: f64,
    /// Share who unsubscribed, reported spam or complained.
    pub annoyed: f64,
    /// Mean margin within the window, in minor units.
    pub margin_minor: f64,
}

/// A comparison of the two arms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Compared {
    /// Too few customers of one arm have come to an end.
    TooFew {
        /// How many are needed in each.
        needed: u64,
    },
    /// Treated less held out.
    Measured(Estimate),
}

impl Compared {
    fn of(treated: &Arm, held_out: &Arm, level: Level) -> Self {
        match uplift(treated, held_out, level) {
            Uplift::TooFew { needed } => Self::TooFew { needed },
            Uplift::Measured(difference) => Self::Measured(Estimate {
                estimate: difference.estimate,
                low: difference.low,
                high: difference.high,
            }),
        }
    }

    /// The estimate, where there is one.
    #[must_use]
    pub const fn estimate(&self) -> Option<Estimate> {
        match self {
            Self::Measured(estimate) => Some(*estimate),
            Self::TooFew { .. } => None,
        }
    }
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyReport {
    /// Its name.
    pub policy: String,
    /// Who answers for it; empty when it is not in force any more.
    pub owner: String,
    /// What it is for.
    pub goal: String,
    /// What it offers.
    pub play: String,
    /// What counts as a return.
    pub target: String,
    /// Days by which it must have happened.
    pub window_days: u32,
    /// What it expects of itself: the share of responding customers who stay because of a contact.
    pub expected_effect: f64,
    /// Probability with which an interval misses the truth at any time.
    pub level: f64,
    /// Versions of the policy that raised flags.
    pub versions: BTreeSet<String>,
    /// The first flag.
    pub since: String,
    /// Whole days since then.
    pub days: u32,
    /// Days after which it ends without a result.
    pub after_days: u32,
    /// Flags raised, to be contacted.
    pub flagged: u64,
    /// Flags held out.
    pub held_out: u64,
    /// Flags that turned out to be wrong.
    pub recalled: u64,
    /// Flags whose window is still open.
    pub open: u64,
    /// Flags that somebody took up.
    pub claimed: u64,
    /// Flags whose customers were contacted.
    pub contacted: u64,
    /// Contacts that were answered.
    pub answered: u64,
    /// The treated customers.
    pub treated: Side,
    /// The held-out ones.
    pub control: Side,
    /// Returns: treated less held out.
    pub uplift: Compared,
    /// Lasting returns, likewise.
    pub lasting_uplift: Compared,
    /// Unsubscriptions, reports as spam and complaints, likewise: above 0 is harm.
    pub annoyance: Compared,
    /// Margin per customer in minor units, likewise.
    pub margin_uplift: Compared,
    /// Currency of the money here, the one in which the policy's customers spend most; `None`: no money was seen.
    pub currency: Option<String>,
    /// Margin that the treated customers brought beyond the held-out ones, all together, in minor units.
    pub saved_minor: Option<Estimate>,
    /// What contacting them cost, in minor units.
    pub cost_minor: f64,
    /// No contact of the policy was reported: one for each flag is assumed.
    pub cost_is_planned: bool,
    /// (saved − cost) / cost; `None` where nothing was spent or nothing is measured.
    pub roi: Option<Estimate>,
    /// Return on opportunity: what was at stake with treated customers whom nobody contacted, times what a contact is expected
    /// to save, in minor units.
    pub roo_minor: f64,
    /// Treated customers whom nobody contacted, their window being over.
    pub untouched: u64,
    /// What is to become of it.
    pub verdict: &'static str,
    /// Why, in a sentence.
    pub because: String,
    /// Customers at the threshold now who are refused, by the reason.
    pub refused_now: BTreeMap<&'static str, u64>,
    /// Share of returns by the stage at the flag, treated and held out: (customers, returned) each.
    pub stages: BTreeMap<String, [(u64, u64); 2]>,
}

/// How a kind of play does, over all policies.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PlayReport {
    /// Flags to be contacted.
    pub flags: u64,
    /// Customers whose window is over, treated and held out.
    pub customers: [u64; 2],
    /// Of these, the shares who returned.
    pub returned: [f64; 2],
}

/// All policies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Policies {
    /// The instant that it holds for.
    pub as_of: String,
    /// Policies by name.
    pub policies: Vec<PolicyReport>,
    /// Plays by name.
    pub plays: BTreeMap<String, PlayReport>,
    /// Share of relances that are paid with money (R83); `None` without any.
    pub money_share: Option<f64>,
    /// Flags of customers that could not be told apart any more, and are left out.
    pub left_out: u64,
}

/// The report of some watched flags. `in_force` are the policies of now, for those that have raised no flag yet and for what
/// people are told; `refused` counts the refusals of now.
#[must_use]
pub fn report(
    watches: &[Watch],
    in_force: &[Policy],
    refused: &BTreeMap<String, BTreeMap<&'static str, u64>>,
    left_out: u64,
    now: Timestamp,
) -> Policies {
    let mut by_policy: BTreeMap<&str, Vec<&Watch>> = BTreeMap::new();
    for policy in in_force {
        let _ = by_policy.entry(policy.id.as_str()).or_default();
    }
    for watch in watches {
        by_policy.entry(&watch.policy).or_default().push(watch);
    }
    let mut plays: BTreeMap<String, PlayReport> = BTreeMap::new();
    let mut policies = Vec::new();
    for (id, mut flags) in by_policy {
        flags.sort_by_key(|watch| (watch.raised, watch.id));
        let policy = in_force.iter().find(|policy| policy.id.as_str() == id);
        let mut own = one(id, &flags, policy, now);
        own.refused_now = refused.get(id).cloned().unwrap_or_default();
        for watch in &flags {
            let play = watch.play.map_or("unknown", Play::label);
            plays.entry(play.to_owned()).or_default().flags += u64::from(!watch.held_out);
        }
        for watch in units(&flags, now) {
            let play = watch.play.map_or("unknown", Play::label);
            let entry = plays.entry(play.to_owned()).or_default();
            let arm = usize::from(watch.held_out);
            if let (Some(customers), Some(returned)) = (entry.customers.get_mut(arm), entry.returned.get_mut(arm)) {
                *customers += 1;
                *returned += f64::from(u8::from(watch.returned.is_some()));
            }
        }
        policies.push(own);
    }
    for play in plays.values_mut() {
        for (returned, customers) in play.returned.iter_mut().zip(play.customers) {
            *returned = share(*returned, customers);
        }
    }
    let flags = plays
        .iter()
        .filter_map(|(name, play)| Some((Play::parse(name)?, play.flags)));
    Policies {
        as_of: now.to_string(),
        money_share: money_share(flags),
        policies,
        plays,
        left_out,
    }
}

fn share(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Each customer's first flag, if its window is over. The flags are in order of time.
fn units<'a>(flags: &[&'a Watch], now: Timestamp) -> Vec<&'a Watch> {
    let mut met = BTreeSet::new();
    let first = flags.iter().filter(|watch| met.insert(watch.customer.as_str()));
    first.filter(|watch| watch.is_closed(now)).copied().collect()
}

/// Both arms, by any number of a customer.
fn arms(units: &[&Watch], value: impl Fn(&Watch) -> f64) -> [Arm; 2] {
    let mut arms = [Arm::default(), Arm::default()];
    for unit in units {
        if let Some(arm) = arms.get_mut(usize::from(unit.held_out)) {
            arm.add(value(unit));
        }
    }
    arms
}

fn one(id: &str, flags: &[&Watch], in_force: Option<&Policy>, now: Timestamp) -> PolicyReport {
    let units = units(flags, now);
    let newest = flags.iter().rev().find_map(|watch| watch.rule.as_deref());
    let policy = in_force.or(newest.map(|rule| &rule.policy));
    let stop = policy.map(|policy| policy.stop).unwrap_or_default();
    let level = Level {
        alpha: stop.level,
        ..Level::default()
    };
    let currency = main_currency(&units);
    let margin = newest.map_or_else(|| Economics::default().margin, |rule| rule.economics.margin);
    let bit = |bit: bool| f64::from(u8::from(bit));
    let returned = arms(&units, |unit| bit(unit.returned.is_some()));
    let lasted = arms(&units, |unit| bit(unit.lasted));
    let annoyed = arms(&units, |unit| bit(unit.annoyed));
    let brought = arms(&units, |unit| {
        let minor = currency.and_then(|of| unit.bought.get(of.as_str())).copied();
        minor.unwrap_or_default() as f64 * margin
    });
    let compare = |[treated, held_out]: &[Arm; 2], level: Level| Compared::of(treated, held_out, level);
    let side = |arm: usize| {
        let of = |arms: &[Arm; 2]| arms.get(arm).copied().unwrap_or_default();
        Side {
            customers: of(&returned).count,
            returned: of(&returned).mean(),
            lasted: of(&lasted).mean(),
            annoyed: of(&annoyed).mean(),
            margin_minor: of(&brought).mean(),
        }
    };
    let count = |wanted: &dyn Fn(&Watch) -> bool| flags.iter().filter(|watch| wanted(watch)).count() as u64;
    let contacted = count(&|watch| !watch.held_out && watch.contacted);
    let treated: Vec<&&Watch> = units.iter().filter(|unit| !unit.held_out).collect();
    let cost_is_planned = contacted == 0;
    let cost = currency.map_or(0.0, |currency| {
        let of = |unit: &&&Watch| match cost_is_planned {
            true => unit.cost(currency, 1),
            false => unit.cost(currency, unit.contacts),
        };
        treated.iter().map(of).sum()
    });
    let untouched: Vec<&&&Watch> = treated
        .iter()
        .filter(|unit| !cost_is_planned && !unit.contacted && !unit.recalled)
        .collect();
    let expected_effect = policy.map_or(0.0, |policy| policy.expected_effect);
    let opportunity = |unit: &&&&Watch| {
        let own = unit.at_stake.filter(|(of, _)| Some(*of) == currency);
        let minor = own.map_or(0.0, |(_, minor)| minor as f64);
        let offer = unit.rule.as_deref().and_then(|rule| {
            let offers = rule.policy.channels.iter();
            offers.map(|offer| offer.response).reduce(f64::max)
        });
        minor * offer.unwrap_or(1.0) * expected_effect
    };
    let margin_uplift = compare(&brought, level);
    let saved = margin_uplift.estimate().filter(|_| currency.is_some());
    let saved = saved.map(|per| per.times(treated.len() as f64));
    let since = flags.first().map(|watch| watch.raised);
    let days = since.map_or(0, |since| u32::try_from(now.ms_since(since) / DAY_MS).unwrap_or(0));
    let uplift = compare(&returned, level);
    let annoyance = compare(&annoyed, level);
    let (verdict, because) = judged(&returned, &annoyed, level, days, stop.after_days);
    let mut stages: BTreeMap<String, [(u64, u64); 2]> = BTreeMap::new();
    for unit in &units {
        let arms = stages.entry(unit.stage.clone()).or_default();
        if let Some((customers, back)) = arms.get_mut(usize::from(unit.held_out)) {
            *customers += 1;
            *back += u64::from(unit.returned.is_some());
        }
    }
    PolicyReport {
        policy: id.to_owned(),
        owner: in_force.map(|policy| policy.owner.clone()).unwrap_or_default(),
        goal: policy.map(|policy| policy.goal.clone()).unwrap_or_default(),
        play: policy.map_or("unknown", |policy| policy.play.label()).to_owned(),
        target: policy
            .map_or(Target::Purchase, |policy| policy.target)
            .label()
            .to_owned(),
        window_days: policy.map_or(60, |policy| policy.window_days),
        expected_effect,
        level: stop.level,
        versions: flags.iter().map(|watch| watch.version.clone()).collect(),
        since: since.map(|since| since.to_string()).unwrap_or_default(),
        days,
        after_days: stop.after_days,
        flagged: count(&|watch| !watch.held_out),
        held_out: count(&|watch| watch.held_out),
        recalled: count(&|watch| watch.recalled),
        open: count(&|watch| !watch.is_closed(now)),
        claimed: count(&|watch| watch.claimed),
        contacted,
        answered: count(&|watch| watch.answered),
        treated: side(0),
        control: side(1),
        uplift,
        lasting_uplift: compare(&lasted, level),
        annoyance,
        margin_uplift,
        currency: currency.map(|of| of.to_string()),
        roi: saved
            .filter(|_| cost > 0.0)
            .map(|saved| saved.map(|saved| (saved - cost) / cost)),
        saved_minor: saved,
        cost_minor: cost,
        cost_is_planned,
        roo_minor: untouched.iter().map(opportunity).sum(),
        untouched: untouched.len() as u64,
        verdict,
        because,
        refused_now: BTreeMap::new(),
        stages,
    }
}

/// What the stop rule says. There are two ways to do harm, fewer returns and more annoyance: each is watched at half the level,
/// so that together they raise a false alarm at most as often as the policy states.
fn judged(
    [treated, held_out]: &[Arm; 2],
    [annoyed, control]: &[Arm; 2],
    level: Level,
    days: u32,
    after_days: u32,
) -> (&'static str, String) {
    let half = Level {
        alpha: level.alpha / 2.0,
        ..level
    };
    if verdict(&uplift(treated, held_out, half), 0, u32::MAX) == Verdict::Harms {
        return (
            "harms",
            "Stop it: fewer of the treated customers returned than of those left alone.".to_owned(),
        );
    }
    // More annoyance is an uplift of what nobody wants.
    if verdict(&uplift(annoyed, control, half), 0, u32::MAX) == Verdict::Works {
        return (
            "harms",
            "Stop it: treated customers unsubscribe or complain more often than those left alone.".to_owned(),
        );
    }
    let measured = uplift(treated, held_out, level);
    match verdict(&measured, days, after_days) {
        Verdict::Works => (
            "works",
            "Keep it: more of the treated customers returned than of those left alone.".to_owned(),
        ),
        Verdict::Expired => (
            "expired",
            format!("End it: {days} days have shown nothing, and it was given {after_days}."),
        ),
        _ => match measured {
            Uplift::TooFew { needed } => (
                "undecided",
                format!(
                    "Go on: {} treated and {} held-out customers have come to the end of their window; {needed} of each are needed.",
                    treated.count, held_out.count
                ),
            ),
            Uplift::Measured(_) => (
                "undecided",
                "Go on: the interval still holds both gain and loss.".to_owned(),
            ),
        },
    }
}

/// The currency in which most was spent within the windows.
fn main_currency(units: &[&Watch]) -> Option<Currency> {
    let mut sums = Money::new();
    for unit in units {
        for (currency, minor) in &unit.bought {
            let sum = sums.entry(currency.clone()).or_default();
            *sum = sum.saturating_add(minor.max(&0).to_owned());
        }
        if let Some((currency, _)) = unit.at_stake {
            let _ = sums.entry(currency.to_string()).or_default();
        }
    }
    let (most, _) = sums.iter().rev().max_by_key(|(_, sum)| **sum)?;
    Currency::parse(most).ok()
}
