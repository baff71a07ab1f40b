//! `vigie policy check|diff|dry-run|reload`: what a policy file says before it goes live, what another one would say instead,
//! what it would do with the present customers, and putting it in force. This file reads files and words results; what is valid
//! and what decides is in `vigie-relance`.

use crate::activation::rehearsed;
use crate::cli::{Failure, Format, print};
use crate::clocks;
use crate::past::House;
use crate::past::commands::Source;
use crate::server;
use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use vigie_relance::{Policy, PolicyError, PolicySet, Terms};
use vigie_scoring::Model;

/// Check a policy file, compare two, rehearse one, put it in force
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a policy file: exit 0 valid, 2 not; every fault with its line, and what was probably meant
    Check(Check),
    /// What another policy file would change: exit 0 nothing that decides, 1 something, 2 a file is not valid
    Diff(Diff),
    /// What a policy file would do with the present customers: who would be flagged at once, held out, refused and why, at what cost
    DryRun(DryRun),
    /// Let a running server read its files again: exit 0 done, 2 not valid, and then nothing has changed
    Reload(Reload),
}

/// Check a policy file
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The file [default: the policies that are compiled in]
    file: Option<PathBuf>,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Compare two policy files
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The file in force
    before: PathBuf,
    /// The file to come
    after: PathBuf,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Rehearse a policy file
#[derive(Debug, Args)]
pub(crate) struct DryRun {
    /// The file
    file: PathBuf,
    #[command(flatten)]
    source: Source,
    /// Whose customers; a key has its own
    #[arg(long, default_value = "default")]
    workspace: String,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Put changed files in force
#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    source: Source,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

impl PolicyCommand {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Check(check) => check.run(),
            Self::Diff(diff) => diff.run(),
            Self::DryRun(rehearsal) => rehearsal.run(),
            Self::Reload(reload) => reload.run(),
        }
    }
}

/// Reads a file; a fault of its content is the operator's.
fn read(path: &Path) -> Result<PolicySet, Failure> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    PolicySet::parse(&text).map_err(|error| Failure::Usage(faults(&path.display().to_string(), &error)))
}

fn faults(file: &str, error: &PolicyError) -> String {
    let lines = error.faults().iter().map(|fault| format!("{file}: {fault}\n"));
    lines.collect()
}

impl Check {
    fn run(&self) -> Result<(), Failure> {
        let set = match &self.file {
            Some(path) => read(path)?,
            None => PolicySet::shipped()?,
        };
        let text = match self.output {
            Format::Text => checked(&set),
            Format::Json => {
                let policies: Vec<_> = set
                    .policies
                    .iter()
                    .map(|policy| json!({ "id": policy.id.as_str(), "settings": settings(policy), "notes": notes(policy) }))
                    .collect();
                format!(
                    "{:#}\n",
                    json!({ "version": set.version, "settings": shared(&set), "policies": policies })
                )
            }
        };
        print(&text)
    }
}

fn checked(set: &PolicySet) -> String {
    let mut text = format!("valid: {} policies, version {}\n", set.policies.len(), set.version);
    let mut section = |title: &str, settings: BTreeMap<String, String>| {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "\n{title}");
        for (name, value) in settings {
            let _ = writeln!(text, "  {name:<16} {value}");
        }
    };
    section("for all policies", shared(set));
    for policy in &set.policies {
        section(policy.id.as_str(), settings(policy));
    }
    for (policy, note) in set
        .policies
        .iter()
        .flat_map(|policy| notes(policy).into_iter().map(move |note| (policy, note)))
    {
        let _ = writeln!(text, "\nnote: policy {:?} {note}", policy.id.as_str());
    }
    text
}

/// What a policy leaves open that somebody should have an opinion about (R90, R96).
fn notes(policy: &Policy) -> Vec<String> {
    let open = [
        (policy.owner.is_empty(), "has no owner: name who answers for it"),
        (policy.goal.is_empty(), "has no goal: say what it is for"),
        (
            policy.channels.is_empty(),
            "names no channel: whoever takes its flags chooses one, and its cost is not weighed",
        ),
        (
            policy.terms.holdout == 0.0 && !policy.score.is_service(),
            "holds nobody out: whether it works will not be known",
        ),
    ];
    open.into_iter()
        .filter(|(holds, _)| *holds)
        .map(|(_, note)| note.to_owned())
        .collect()
}

impl Diff {
    fn run(&self) -> Result<(), Failure> {
        let (before, after) = (read(&self.before)?, read(&self.after)?);
        let changes = changes(&before, &after);
        let text = match self.output {
            Format::Text => worded(&changes),
            Format::Json => format!("{:#}\n", json!(changes)),
        };
        print(&text)?;
        match changes.iter().all(|change| !change.decides) {
            true => Ok(()),
            false => Err(Failure::Verdict(1)),
        }
    }
}

impl DryRun {
    fn run(&self) -> Result<(), Failure> {
        // A fault of the file is told with its name, wherever the customers are.
        let set = read(&self.file)?;
        let told = match self.source.local()? {
            None => {
                let text = std::fs::read_to_string(&self.file)?;
                answered(&self.source.remote()?.post_text("/v1/policies/dry-run", &text)?)?
            }
            Some(config) => {
                let workspace = vigie_event::Workspace::new(&self.workspace)
                    .map_err(|error| Failure::Usage(format!("--workspace: {error}\n")))?;
                crate::cli::runtime()?.block_on(async {
                    let house = House::open(&config).await?;
                    let model = Model::parse(&server::texts(&config)?.0)?;
                    rehearsed(&*house.store, Some(&workspace), &set, &model, clocks::now()).await
                })?
            }
        };
        print(&match self.output {
            Format::Json => format!("{told:#}\n"),
            Format::Text => rehearsal(&told),
        })
    }
}

impl Reload {
    fn run(&self) -> Result<(), Failure> {
        let told = answered(&self.source.remote()?.post_text("/v1/policies/reload", "")?)?;
        let text = |name: &str| told.get(name).and_then(Value::as_str).unwrap_or_default();
        print(&match (self.output, told.get("changed").and_then(Value::as_bool)) {
            (Format::Json, _) => format!("{told:#}\n"),
            (Format::Text, Some(true)) => {
                format!("put in force: model {}, policies {}\n", text("model"), text("policies"))
            }
            (Format::Text, _) => format!("nothing has changed: policies {}\n", text("policies")),
        })
    }
}

/// A server's answer; what it found wrong with files is the operator's to correct.
fn answered((status, body): &(u16, String)) -> Result<Value, Failure> {
    let told: Value = serde_json::from_str(body).with_context(|| format!("{status}: the answer is not JSON"))?;
    let texts = |faults: &Value| -> String {
        let faults = faults.as_array().into_iter().flatten().filter_map(Value::as_str);
        faults.map(|fault| format!("{fault}\n")).collect()
    };
    match told.get("faults") {
        Some(faults) => Err(Failure::Usage(texts(faults))),
        None if *status < 300 => Ok(told),
        None => {
            let detail = told.get("detail").and_then(Value::as_str).unwrap_or_default();
            Err(anyhow!("{status}: {detail}").into())
        }
    }
}

/// A rehearsal for people.
fn rehearsal(told: &Value) -> String {
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or_default();
    let mut text = format!("{} customers; nothing was changed\n", number(told, "customers"));
    for policy in told.get("policies").and_then(Value::as_array).into_iter().flatten() {
        let name = policy.get("policy").and_then(Value::as_str).unwrap_or_default();
        let Some(own) = policy.get("would") else { continue };
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "\n{name}\n  at the threshold {:>9}\n  flagged now      {:>9}\n  held out         {:>9}\n  resting          {:>9}",
            number(own, "reached"),
            number(own, "flagged"),
            number(own, "held_out"),
            number(own, "resting")
        );
        let object = |name: &str| own.get(name).and_then(Value::as_object).into_iter().flatten();
        for (reason, count) in object("refused") {
            let _ = writeln!(text, "  refused          {count:>9}  {reason}");
        }
        for (channel, contacts) in object("channels") {
            let cost = contacts.get("cost").and_then(Value::as_f64).unwrap_or_default();
            let days = contacts.get("days").and_then(Value::as_u64);
            let days = days.map_or_else(String::new, |days| format!(", {days} days at its capacity"));
            let _ = writeln!(
                text,
                "  by {channel:<13} {:>9}  cost {cost:.2}{days}",
                number(contacts, "count")
            );
        }
        for (currency, minor) in object("at_stake_minor") {
            let exponent = vigie_event::Currency::parse(currency).map_or(2, vigie_event::Currency::exponent);
            let major = minor.as_f64().unwrap_or_default() / 10f64.powi(exponent.cast_signed());
            let _ = writeln!(text, "  at stake         {major:>12.2} {currency}");
        }
    }
    text
}

/// One difference between two files.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
struct Change {
    /// The policy; absent for what holds for all.
    policy: Option<String>,
    setting: String,
    before: Option<String>,
    after: Option<String>,
    /// Whether it changes what is decided, or only words for people.
    decides: bool,
}

/// Settings that are words.
const WORDS: [&str; 3] = ["owner", "goal", "customer-benefit"];

fn changes(before: &PolicySet, after: &PolicySet) -> Vec<Change> {
    let mut all = between(None, Some(shared(before)), Some(shared(after)));
    let ids: BTreeSet<_> = before
        .policies
        .iter()
        .chain(&after.policies)
        .map(|policy| &policy.id)
        .collect();
    for id in ids {
        let [old, new] = [before, after].map(|set| set.policy(id).map(settings));
        all.extend(between(Some(id.as_str()), old, new));
    }
    all
}

fn between(
    policy: Option<&str>,
    before: Option<BTreeMap<String, String>>,
    after: Option<BTreeMap<String, String>>,
) -> Vec<Change> {
    let change = |setting: &str, before: Option<String>, after: Option<String>| Change {
        policy: policy.map(str::to_owned),
        setting: setting.to_owned(),
        before,
        after,
        decides: !WORDS.contains(&setting),
    };
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (Some(_), None) => return vec![change("policy", Some("present".to_owned()), None)],
        (None, Some(_)) => return vec![change("policy", None, Some("present".to_owned()))],
        (None, None) => return Vec::new(),
    };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |name: &String| (before.get(name).cloned(), after.get(name).cloned());
    let differing = names
        .into_iter()
        .map(|name| (name, of(name)))
        .filter(|(_, (a, b))| a != b);
    differing.map(|(name, (a, b))| change(name, a, b)).collect()
}

fn worded(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "the files say the same\n".to_owned();
    }
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let line = |change: &Change| {
        let policy = change.policy.as_deref().unwrap_or("for all policies");
        let words = if change.decides { "" } else { "  (words only)" };
        format!(
            "{policy}: {} {} -> {}{words}\n",
            change.setting,
            value(&change.before),
            value(&change.after)
        )
    };
    changes.iter().map(line).collect()
}

/// What holds for all policies, by name.
fn shared(set: &PolicySet) -> BTreeMap<String, String> {
    let quiet = set.calendar.quiet_hours;
    let list = |items: Vec<String>| {
        if items.is_empty() {
            "none".to_owned()
        } else {
            items.join(", ")
        }
    };
    let channels = set
        .pressure
        .channels
        .iter()
        .map(|(channel, most)| format!("{channel} {most}"))
        .collect();
    let settings = [
        ("time-zone", set.calendar.zone.name().to_owned()),
        (
            "country",
            set.calendar
                .country
                .map_or_else(|| "none".to_owned(), |country| country.code()),
        ),
        ("quiet-hours", format!("{:02}:00-{:02}:00", quiet.from, quiet.to)),
        (
            "quiet-days",
            list(set.calendar.quiet_days.iter().map(ToString::to_string).collect()),
        ),
        (
            "closed-days",
            list(set.calendar.closed.iter().map(ToString::to_string).collect()),
        ),
        (
            "currency",
            set.economics
                .currency
                .map_or_else(|| "the customer's".to_owned(), |of| of.to_string()),
        ),
        ("margin", set.economics.margin.to_string()),
        (
            "acquisition-cost",
            set.economics
                .acquisition_cost
                .map_or_else(|| "unknown".to_owned(), |cost| cost.to_string()),
        ),
        (
            "contacts",
            format!("{} in {} days", set.pressure.max_contacts, set.pressure.window_days),
        ),
        ("channel caps", list(channels)),
        ("gap-days", set.pressure.gap_days.to_string()),
        ("suspend-days", set.pressure.suspend_days.to_string()),
    ];
    let mut all: BTreeMap<String, String> = settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    for group in &set.calendar.groups {
        let country = group
            .calendar
            .country
            .map_or_else(String::new, |of| format!(", {}", of.code()));
        let value = format!("{}{country}", group.calendar.zone.name());
        let _ = all.insert(format!("where {}", group.members.as_str()), value);
    }
    for outage in &set.outages {
        let signals = outage.signals.iter().map(ToString::to_string).collect();
        let to = outage.to.map_or_else(|| "now".to_owned(), |to| to.to_string());
        let brings = if outage.signals.is_empty() {
            "everything".to_owned()
        } else {
            list(signals)
        };
        let _ = all.insert(
            format!("outage of {}", outage.source),
            format!("{brings}, {} to {to}", outage.from),
        );
    }
    all
}

/// A policy's settings, by name.
fn settings(policy: &Policy) -> BTreeMap<String, String> {
    let Terms {
        threshold,
        rearm_below,
        cooldown_days,
        holdout,
    } = policy.terms;
    let plain = [
        ("version", format!("{:016x}", policy.version)),
        ("owner", policy.owner.clone()),
        ("goal", policy.goal.clone()),
        ("score", policy.score.name()),
        ("threshold", threshold.to_string()),
        ("rearm-below", rearm_below.to_string()),
        ("cooldown-days", cooldown_days.to_string()),
        ("holdout", holdout.to_string()),
        (
            "where",
            policy
                .members
                .as_ref()
                .map_or_else(|| "everybody".to_owned(), |members| members.as_str().to_owned()),
        ),
        ("target", policy.target.label().to_owned()),
        ("window-days", policy.window_days.to_string()),
        ("expected-effect", policy.expected_effect.to_string()),
        (
            "stop",
            format!(
                "harm at {}, or after {} days",
                policy.stop.level, policy.stop.after_days
            ),
        ),
        ("play", policy.play.label().to_owned()),
        ("customer-benefit", policy.customer_benefit.clone()),
        (
            "max-cost",
            policy
                .max_cost
                .map_or_else(|| "none".to_owned(), |cost| cost.to_string()),
        ),
        ("within-hours", policy.within_hours.to_string()),
    ];
    let mut all: BTreeMap<String, String> = plain
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let eligible = &policy.eligible;
    let _ = all.insert(
        "eligible".to_owned(),
        format!(
            "{} to {} purchase days, {} active days, silent for {} days at most, {}, consent {:?}{}",
            eligible.min_purchase_days,
            eligible.max_purchase_days,
            eligible.min_active_days,
            eligible.max_silence_days,
            if eligible.known_only { "known" } else { "known or not" },
            eligible.marketing_consent,
            match eligible.max_data_age_days {
                u32::MAX => String::new(),
                days => format!(", heard of within {days} days"),
            }
        ),
    );
    for offer in &policy.channels {
        let capacity = offer
            .capacity
            .map_or_else(String::new, |most| format!(", {most} a day"));
        let value = format!("cost {}, response {}{capacity}", offer.cost, offer.response);
        let _ = all.insert(format!("by {}", offer.channel), value);
    }
    for segment in &policy.segments {
        let number =
            |name: &str, value: Option<String>| value.map(|value| format!(", {name} {value}")).unwrap_or_default();
        let value = format!(
            "{} where {}{}{}{}{}",
            segment.level.label(),
            segment.members.as_str(),
            number("threshold", segment.threshold.map(|value| value.to_string())),
            number("rearm-below", segment.rearm_below.map(|value| value.to_string())),
            number("cooldown-days", segment.cooldown_days.map(|value| value.to_string())),
            number("holdout", segment.holdout.map(|value| value.to_string())),
        );
        let _ = all.insert(format!("for {}", segment.name), value);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "[[policy]]\nid = \"a\"\nscore = \"attrition\"\nthreshold = 0.7\ngoal = \"x\"\n";

    fn diff(before: &str, after: &str) -> Vec<Change> {
        changes(&PolicySet::parse(before).unwrap(), &PolicySet::parse(after).unwrap())
    }

    #[test]
    fn differences_are_named_and_words_do_not_decide() {
        assert!(diff(BEFORE, &format!("# the same\n{BEFORE}")).is_empty());
        let words = diff(BEFORE, &BEFORE.replace("\"x\"", "\"y\""));
        assert_eq!(
            words
                .iter()
                .map(|change| (change.setting.as_str(), change.decides))
                .collect::<Vec<_>>(),
            [("goal", false)]
        );
        let higher = diff(BEFORE, &BEFORE.replace("0.7", "0.8"));
        let settings: Vec<&str> = higher.iter().map(|change| change.setting.as_str()).collect();
        assert_eq!(settings, ["rearm-below", "threshold", "version"]);
        let other = diff(BEFORE, &BEFORE.replace("id = \"a\"", "id = \"b\""));
        assert_eq!(other.len(), 2);
        let zone = diff(BEFORE, &format!("{BEFORE}[calendar]\ntime-zone = \"Europe/Paris\"\n"));
        assert!(
            worded(&zone).contains("for all policies: time-zone UTC -> Europe/Paris"),
            "{}",
            worded(&zone)
        );
    }

    #[test]
    fn the_shipped_policies_are_shown() {
        let text = checked(&PolicySet::shipped().unwrap());
        assert!(
            text.starts_with("valid: ") && text.contains("drifting-regulars"),
            "{text}"
        );
    }
}
