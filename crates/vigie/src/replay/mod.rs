//! `vigie replay`: the archive folded again, exactly or under other circumstances. This file holds the arguments and
//! decides what they ask for; [`run`] drives the sandboxes, [`diff`] compares, [`text`] and [`report`] show, [`publish`]
//! fills a log.
//!
//! A replay never touches a running installation: it reads the archive, writes only into files and directories that its
//! arguments name and that do not exist yet (reports are replaced), and sends nothing to anybody.

mod diff;
mod publish;
mod report;
mod run;
#[cfg(test)]
mod sample;
mod source;
mod text;

use crate::cli::{Failure, Format, print};
use clap::Args;
use diff::{Diff, Distribution};
use publish::{Publication, Speed};
use run::{Configuration, Plan, Run, block_on};
use source::{Activation, Selection, Source};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vigie_archive::sql::Filter;
use vigie_event::{PersonId, Timestamp, Workspace};
use vigie_pipeline::Active;
use vigie_relance::PolicySet;
use vigie_scoring::Model;

const EXAMPLES: &str = "\
Examples:
  Fold everything again, and compare the Merkle root with that of `vigie audit`:
    vigie replay --data-dir data
  The state as it was on 1 November, as a store to look at:
    vigie replay --data-dir data --to 2026-11-01 --into as-it-was
  Which flags would other policies have raised since September?
    vigie replay --data-dir data --from 2026-09-01 --policies strict.toml --report strict.html
  What would be known of two customers without their e-mails?
    vigie replay --data-dir data --customers ann,bob --where \"channel <> 'email'\"
  Yesterday's traffic, ten times as fast, for a staging server:
    vigie replay --data-dir data --from 2026-11-20 --to 2026-11-21 --to-log staging --speed 10 --shift-to-now

Exit codes: 0 done, 1 it did not work, 2 wrong arguments.";

/// Fold the archive again: exactly, with some events only, or under another model and other policies. Nothing is ever sent
///
/// Without a filter and without a candidate, the archived log is folded as it is (an exact replay): the result is the live
/// store's, byte for byte, and its Merkle root can be compared with the one that `vigie audit` reports.
///
/// With a filter (--where, --customers, --customers-file, --workspace) or a candidate (--model, --policies, --config), the
/// archived events are folded anew and everything else follows from them: links, timers, scores and flags. Up to --from the
/// log's own models and policies are in force, so that customers come with their history; from then on the ones of the
/// run. With a candidate there are two runs, baseline and candidate, and what differs is shown.
///
/// With --to-log, nothing is folded: the events are written into a new log, for a staging server.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Replay {
    /// The archive: a directory, or an address such as s3://bucket/archive
    #[arg(
        long,
        value_name = "DIR|URL",
        required_unless_present = "data_dir",
        conflicts_with = "data_dir"
    )]
    archive: Option<String>,
    /// The data directory of a server, whose archive is DIR/archive; the server may be running
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Beginning of the period that is reported on, for example 2026-09-01 or 2026-09-01T08:00:00Z; a date is its midnight
    /// in UTC. Earlier events are folded, or there would be no history, but their flags are left out [default: the
    /// beginning of the log]
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Timestamp>,
    /// End of the period: no record after TIME counts. What-if runs let the time until then pass in silence, beyond the
    /// end of the archive too [default: the last record]
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Timestamp>,
    /// Threads of an exact replay, each with its share of the partitions; with --into there is one. A candidate and its
    /// baseline always run at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,

    /// Take only events for which this condition holds, over the columns of `events` in `vigie sql`, for example
    /// "signal = 'purchase' AND amount > 100"; now() is the end of the period
    #[arg(long = "where", value_name = "SQL", help_heading = "Some events only")]
    condition: Option<String>,
    /// Take only events of these customers, under all identities that the log links to them; anonymous ones are written
    /// anonymous:ID
    #[arg(long, value_name = "ID,…", value_delimiter = ',', help_heading = "Some events only")]
    customers: Vec<String>,
    /// The same, from a file with one customer a line
    #[arg(long, value_name = "FILE", help_heading = "Some events only")]
    customers_file: Option<PathBuf>,
    /// Take only events of this workspace
    #[arg(long, value_name = "NAME", value_parser = workspace, help_heading = "Some events only")]
    workspace: Option<Workspace>,

    /// The candidate's model; with --policies alone, the baseline's
    #[arg(long, value_name = "FILE", help_heading = "Another configuration")]
    model: Option<PathBuf>,
    /// The candidate's policies; with --model alone, the baseline's
    #[arg(long, value_name = "FILE", help_heading = "Another configuration")]
    policies: Option<PathBuf>,
    /// The candidate as a directory that holds model.toml, policies.toml or both
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "policies"], help_heading = "Another configuration")]
    config: Option<PathBuf>,
    /// What to compare with, a directory likewise [default: what the log had in force at --from]
    #[arg(long, value_name = "DIR", help_heading = "Another configuration")]
    baseline: Option<PathBuf>,

    /// Write the comparison as a page for people: one HTML file that needs no network
    #[arg(long, value_name = "FILE.html", help_heading = "Results")]
    report: Option<PathBuf>,
    /// Write all results as JSON, the same as --output json prints
    #[arg(long, value_name = "FILE.json", help_heading = "Results")]
    save: Option<PathBuf>,
    /// Keep the state of an exact replay: a store in DIR, which must not exist or be empty
    #[arg(long, value_name = "DIR", help_heading = "Results")]
    into: Option<PathBuf>,
    /// Text for people, or JSON for machines
    #[arg(long, short, value_enum, default_value_t = Format::Text, help_heading = "Results")]
    output: Format,

    /// Write the events into a new log in DIR, which must not exist or be empty: the data directory of a server to be
    #[arg(long, value_name = "DIR", conflicts_with_all = ["into", "report", "baseline"], help_heading = "Into a log")]
    to_log: Option<PathBuf>,
    /// How many times as fast as they were received, or max
    #[arg(
        long,
        value_name = "N|max",
        requires = "to_log",
        default_value = "max",
        help_heading = "Into a log"
    )]
    speed: Speed,
    /// Move all times so that the first event is received now. Without it they stay as they were, and with them the scores
    #[arg(long, requires = "to_log", help_heading = "Into a log")]
    shift_to_now: bool,
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .map_err(|_| "not a date such as 2026-11-21 or a time such as 2026-11-21T20:15:00Z".to_owned())
}

fn workspace(text: &str) -> Result<Workspace, String> {
    Workspace::new(text).map_err(|error| error.to_string())
}

/// The arguments are wrong.
fn usage(text: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("vigie: {text}\n"))
}

/// What both runs of a comparison share, and what each came to.
struct Comparison {
    period: Period,
    baseline: Side,
    candidate: Side,
    diff: Diff,
    /// How often the log changed its configuration within the period.
    changes: usize,
}

/// One run and what it ran under.
struct Side {
    configuration: Configuration,
    run: Run,
}

/// What is replayed.
#[derive(Debug, Clone)]
struct Period {
    from: Timestamp,
    to: Timestamp,
    /// The last record of the archive.
    end: Timestamp,
    archive: String,
    flushes: u64,
    records: u64,
    partitions: u16,
    /// The command as it was typed.
    command: String,
    /// Which events, in words.
    selection: Vec<String>,
}

/// Runs the command.
pub(crate) fn replay(arguments: &Replay) -> Result<(), Failure> {
    arguments.check()?;
    let source = block_on(Source::open(&arguments.place()))??;
    let selects = arguments.selects();
    let (text, json) = if let Some(dir) = &arguments.to_log {
        arguments.publish(&source, dir)?
    } else if selects || arguments.candidate() {
        arguments.what_if(&source)?
    } else {
        if let Some(dir) = &arguments.into {
            expect_fresh(dir)?;
        }
        let exact = run::exact(&source, arguments.to, arguments.threads, arguments.into.as_deref())?;
        (
            text::exact(&source, &exact, arguments.into.as_deref()),
            text::exact_json(&source, &exact),
        )
    };
    if let Some(path) = &arguments.save {
        write(path, &format!("{json:#}\n"))?;
    }
    match arguments.output {
        Format::Text => print(&text),
        Format::Json => print(&format!("{json:#}\n")),
    }
}

impl Replay {
    fn place(&self) -> String {
        let default = || {
            self.data_dir
                .as_deref()
                .unwrap_or(Path::new(""))
                .join("archive")
                .display()
                .to_string()
        };
        self.archive.clone().unwrap_or_else(default)
    }

    fn selects(&self) -> bool {
        let by_name = !self.customers.is_empty() || self.customers_file.is_some();
        by_name || self.condition.is_some() || self.workspace.is_some()
    }

    fn candidate(&self) -> bool {
        self.model.is_some() || self.policies.is_some() || self.config.is_some()
    }

    /// What clap cannot say about arguments together.
    fn check(&self) -> Result<(), Failure> {
        let what_if = self.selects() || self.candidate();
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            return Err(usage(format!(
                "the period is empty: --from {from} is not before --to {to}"
            )));
        }
        if self.to_log.is_none() && !what_if {
            if self.from.is_some() {
                return Err(usage(
                    "--from needs a filter, a candidate or --to-log: an exact replay begins with the log's first record",
                ));
            }
            if self.baseline.is_some() {
                return Err(usage(
                    "--baseline needs a candidate (--model, --policies or --config) or a filter",
                ));
            }
        }
        if self.into.is_some() && what_if {
            return Err(usage(
                "--into keeps the state of an exact replay: leave out filters and the candidate",
            ));
        }
        if self.report.is_some() && !self.candidate() {
            return Err(usage(
                "--report shows a comparison: name a candidate with --model, --policies or --config",
            ));
        }
        Ok(())
    }

    async fn selection(&self, source: &Source, to: Timestamp) -> Result<Selection, Failure> {
        let mut names = self.customers.clone();
        if let Some(path) = &self.customers_file {
            names.extend(read(path)?.lines().map(str::to_owned));
        }
        let names: Vec<&str> = names
            .iter()
            .map(|name| name.trim())
            .filter(|name| !name.is_empty())
            .collect();
        let people = names.iter().map(|name| match name.strip_prefix("anonymous:") {
            Some(id) => PersonId::anonymous(id),
            None => PersonId::known(name),
        });
        let people: Vec<PersonId> = people
            .collect::<Result<_, _>>()
            .map_err(|error| usage(format!("customer: {error}")))?;
        let filter = self.condition.as_deref().map(|condition| Filter::parse(condition, to));
        let filter = filter.transpose().map_err(|error| usage(format!("--where: {error}")))?;
        let by_name = !self.customers.is_empty() || self.customers_file.is_some();
        if by_name && people.is_empty() {
            return Err(usage("no customer is named"));
        }
        Ok(Selection {
            workspace: self.workspace.clone(),
            people: match by_name {
                true => Some(source.identities(&people, self.workspace.as_ref()).await?),
                false => None,
            },
            filter,
        })
    }

    /// In words.
    fn selected(&self, selection: &Selection) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(workspace) = &self.workspace {
            words.push(format!("workspace {workspace}"));
        }
        if let Some(people) = &selection.people {
            words.push(format!(
                "customers {}, {} identities in all",
                self.customer_names(),
                people.len()
            ));
        }
        if let Some(condition) = &self.condition {
            words.push(format!("where {condition}"));
        }
        words
    }

    fn customer_names(&self) -> String {
        match (&self.customers_file, self.customers.as_slice()) {
            (Some(file), _) => format!("of {}", file.display()),
            (None, [a, b, c, _, _, ..]) => format!("{a}, {b}, {c}, …"),
            (None, names) => names.join(", "),
        }
    }

    fn period(&self, source: &Source, activations: &[Activation]) -> Period {
        let totals = source.archive.totals();
        let begin = activations.first().map_or(Timestamp(0), |first| first.at);
        let end = source.latest();
        Period {
            // Before the log begins there is nothing.
            from: self.from.map_or(begin, |from| from.max(begin)),
            to: self.to.unwrap_or(end),
            end,
            archive: source.name.clone(),
            flushes: totals.flushes,
            records: totals.rows,
            partitions: source.partitions,
            command: command(),
            selection: Vec::new(),
        }
    }

    fn publish(&self, source: &Source, dir: &Path) -> Result<(String, serde_json::Value), Failure> {
        expect_fresh(dir)?;
        let published = block_on(async {
            let activations = source.activations().await?;
            let period = self.period(source, &activations);
            if period.to < period.from && (self.from.is_some() || self.to.is_some()) {
                return Err(outside(&period));
            }
            let selection = self.selection(source, period.to).await?;
            let in_force = in_force(&activations, period.from)?;
            let publication = Publication {
                source,
                selection: &selection,
                from: self.from,
                to: period.to,
                configuration: &self.candidate_over(&in_force)?.unwrap_or(in_force),
                dir,
                speed: self.speed,
                shift_to_now: self.shift_to_now,
            };
            Ok::<_, Failure>(publication.run().await?)
        })??;
        Ok((text::published(&published, dir), text::published_json(&published, dir)))
    }

    fn what_if(&self, source: &Source) -> Result<(String, serde_json::Value), Failure> {
        let (activations, mut period, selection) = block_on(async {
            let activations = source.activations().await?;
            let period = self.period(source, &activations);
            if period.to <= period.from {
                return Err(outside(&period));
            }
            let selection = self.selection(source, period.to).await?;
            Ok::<_, Failure>((activations, period, selection))
        })??;
        period.selection = self.selected(&selection);
        let logged = in_force(&activations, period.from)?;
        let baseline = match &self.baseline {
            Some(dir) => {
                let files = [dir.join("model.toml"), dir.join("policies.toml")];
                configured("--baseline", [Some(&files[0]), Some(&files[1])], true, &logged)?
            }
            None => logged,
        };
        let warm_up = || {
            activations
                .iter()
                .filter(|activation| activation.at < period.from)
                .cloned()
        };
        let plan = |configuration: &Configuration, later: &[Activation], checked| Plan {
            source,
            selection: &selection,
            schedule: warm_up()
                .chain([configuration.activation(period.from)])
                .chain(later.iter().cloned())
                .collect(),
            last: Arc::clone(&configuration.active),
            from: period.from,
            to: period.to,
            checked,
        };
        let within = |activation: &&Activation| period.from < activation.at && activation.at <= period.to;
        let later: Vec<Activation> = activations.iter().filter(within).cloned().collect();
        let Some(candidate) = self.candidate_over(&baseline)? else {
            // Nothing is compared: so the run follows the log to the end, unless it is told otherwise.
            let later = if self.baseline.is_some() { Vec::new() } else { later };
            let last = match later.last() {
                Some(last) => Configuration::of(last, "the log")?,
                None => baseline.clone(),
            };
            let mut plan = plan(&baseline, &later, true);
            plan.last = Arc::clone(&last.active);
            let run = run::what_if(vec![plan])?.into_iter().next();
            let run = run.ok_or_else(|| anyhow::anyhow!("the run gave no result"))?;
            let side = Side {
                configuration: last,
                run,
            };
            return Ok((text::single(&period, &side), text::single_json(&period, &side)));
        };
        let mut runs = run::what_if(vec![plan(&baseline, &[], true), plan(&candidate, &[], false)])?.into_iter();
        let (Some(before), Some(after)) = (runs.next(), runs.next()) else {
            return Err(anyhow::anyhow!("a run gave no result").into());
        };
        let mut diff = diff::compare(&before.outcome, &after.outcome);
        block_on(run::follow(&mut diff, &before, &plan(&baseline, &[], false)))??;
        let comparison = Comparison {
            period: period.clone(),
            baseline: Side {
                configuration: baseline,
                run: before,
            },
            candidate: Side {
                configuration: candidate,
                run: after,
            },
            diff,
            changes: later.len(),
        };
        if let Some(path) = &self.report {
            write(path, &report::page(&comparison))?;
        }
        let written = [&self.report, &self.save];
        let text = text::comparison(&comparison, &written.into_iter().flatten().collect::<Vec<_>>());
        Ok((text, text::comparison_json(&comparison)))
    }

    /// The candidate, if one is named; what it leaves out is as in `base`.
    fn candidate_over(&self, base: &Configuration) -> Result<Option<Configuration>, Failure> {
        if !self.candidate() {
            return Ok(None);
        }
        match &self.config {
            Some(dir) => {
                let files = [dir.join("model.toml"), dir.join("policies.toml")];
                configured("--config", [Some(&files[0]), Some(&files[1])], true, base).map(Some)
            }
            None => {
                let files = [self.model.as_ref(), self.policies.as_ref()];
                configured("candidate", files, false, base).map(Some)
            }
        }
    }
}

impl Configuration {
    fn of(activation: &Activation, origin: &str) -> Result<Self, Failure> {
        Ok(Self {
            model: Arc::clone(&activation.model),
            policies: Arc::clone(&activation.policies),
            active: Arc::new(Active::parse(&activation.model, &activation.policies)?),
            origin: origin.to_owned(),
        })
    }

    fn activation(&self, at: Timestamp) -> Activation {
        Activation {
            at,
            model: Arc::clone(&self.model),
            policies: Arc::clone(&self.policies),
        }
    }
}

/// What the log had in force at an instant: the latest activation by then, or else the first one.
fn in_force(activations: &[Activation], at: Timestamp) -> Result<Configuration, Failure> {
    let by_then = activations.iter().rev().find(|activation| activation.at <= at);
    match by_then.or(activations.first()) {
        Some(activation) => Configuration::of(activation, &format!("the log, since {}", activation.at)),
        None => Err(anyhow::anyhow!("the archive holds no activation of a model and policies").into()),
    }
}

/// A configuration from a model file and a policy file, either of which may be left out, or (with `optional`) be absent.
/// All faults of both are reported together.
fn configured(
    what: &str,
    [model, policies]: [Option<&PathBuf>; 2],
    optional: bool,
    base: &Configuration,
) -> Result<Configuration, Failure> {
    let mut faults = Vec::new();
    let mut origin = Vec::new();
    let mut text = |path: Option<&PathBuf>, base: &Arc<str>| {
        let Some(path) = path.filter(|path| !optional || path.exists()) else {
            return Arc::clone(base);
        };
        origin.push(path.display().to_string());
        match std::fs::read_to_string(path) {
            Ok(text) => Arc::from(text),
            Err(error) => {
                faults.push(format!("{}: {error}", path.display()));
                Arc::clone(base)
            }
        }
    };
    let (model_text, policies_text) = (text(model, &base.model), text(policies, &base.policies));
    if optional && origin.is_empty() {
        let dir = model
            .and_then(|path| path.parent())
            .unwrap_or(Path::new(""))
            .display()
            .to_string();
        return Err(usage(format!(
            "{what} {dir} holds neither model.toml nor policies.toml"
        )));
    }
    let shown = |path: Option<&PathBuf>| path.map_or_else(String::new, |path| format!("{}: ", path.display()));
    let read_model = Model::parse(&model_text);
    let read_policies = PolicySet::parse(&policies_text);
    if let Err(error) = &read_model {
        faults.push(format!("{}{error}", shown(model)));
    }
    if let Err(error) = &read_policies {
        faults.push(format!("{}{error}", shown(policies)));
    }
    match (read_model, read_policies) {
        (Ok(model), Ok(policies)) if faults.is_empty() => Ok(Configuration {
            active: Arc::new(Active {
                model,
                policies,
                policies_text: (*policies_text).into(),
            }),
            model: model_text,
            policies: policies_text,
            origin: origin.join(", "),
        }),
        _ => Err(usage(format!("{what} is not valid:\n  {}", faults.join("\n  ")))),
    }
}

fn outside(period: &Period) -> Failure {
    usage(format!(
        "the period is empty: it begins at {}, but ends at {} (the archive ends at {})",
        period.from, period.to, period.end
    ))
}

/// A directory that nobody uses: it does not exist, or is empty.
fn expect_fresh(dir: &Path) -> Result<(), Failure> {
    let what = |why: &str| {
        usage(format!(
            "{} {why}; name a directory that does not exist yet",
            dir.display()
        ))
    };
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(what(
                "is not empty, and nothing is ever mixed with what a server may use",
            )),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(what(&format!("cannot be used ({error})"))),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| usage(format!("{}: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()).into())
}

/// The command line of this process, quoted where a shell needs it.
fn command() -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./,:=@+%".contains(c);
    let quoted = |argument: String| match !argument.is_empty() && argument.chars().all(plain) {
        true => argument,
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    };
    let arguments = std::env::args_os()
        .skip(1)
        .map(|argument| quoted(argument.to_string_lossy().into_owned()));
    std::iter::once("vigie".to_owned())
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The distributions of a run's scores.
fn distributions(run: &Run) -> BTreeMap<String, Distribution> {
    let names = run.outcome.scores.iter();
    names
        .map(|name| (name.clone(), diff::distribution(&run.outcome, name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_files_are_reported_with_all_faults() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let base = Configuration {
            model: Model::shipped_text().into(),
            policies: PolicySet::shipped_text().into(),
            active: Arc::new(Active::parse(Model::shipped_text(), PolicySet::shipped_text()).unwrap()),
            origin: "test".to_owned(),
        };
        let model = write("m.toml", "name = 7");
        let policies = write("p.toml", "[[policy]]\nid = \"a\"\nscore = \"what\"\nthreshold = 3.0\n");
        let Err(Failure::Usage(text)) = configured("candidate", [Some(&model), Some(&policies)], false, &base) else {
            panic!("accepted")
        };
        assert!(text.contains("m.toml") && text.contains("p.toml"), "{text}");
        assert!(text.contains("score") && text.contains("threshold"), "{text}");
        let good = configured("candidate", [None, Some(&write("q.toml", ""))], false, &base)
            .ok()
            .unwrap();
        assert!(good.active.policies.policies.is_empty());
        assert_eq!(good.active.model, base.active.model);
        let nothing = [dir.path().join("model.toml"), dir.path().join("policies.toml")];
        assert!(configured("--config", [Some(&nothing[0]), Some(&nothing[1])], true, &base).is_err());
    }

    #[test]
    fn what_was_in_force_is_the_latest_by_then() {
        let activation = |at: i64, policies: &str| Activation {
            at: Timestamp(at),
            model: Model::shipped_text().into(),
            policies: policies.into(),
        };
        let all = [activation(10, ""), activation(20, "# second")];
        let at = |at: i64| in_force(&all, Timestamp(at)).ok().unwrap().policies.to_string();
        assert_eq!([at(5), at(10), at(19), at(20)], ["", "", "", "# second"]);
        assert!(in_force(&[], Timestamp(0)).is_err());
    }

    #[test]
    fn fresh_means_absent_or_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert!(expect_fresh(dir.path()).is_ok());
        assert!(expect_fresh(&dir.path().join("new")).is_ok());
        std::fs::write(dir.path().join("LOCK"), "").unwrap();
        assert!(expect_fresh(dir.path()).is_err());
        assert!(expect_fresh(&dir.path().join("LOCK")).is_err(), "a file");
    }
}
