//! `vigie topics`: what the topics of a configuration must be, compared with what they are. Creating is all it does to them;
//! an existing topic is never changed.

use crate::backends;
use crate::cli::{self, Failure, Format, Output, Settings, print};
use crate::config::{Config, LogBackend};
use crate::outputs;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use vigie_kafka::topics::{self, Plan, Retention, Severity, TopicSpec};

/// See the module.
#[derive(Debug, Subcommand)]
pub(crate) enum Topics {
    /// Show what is missing or different: exit 0 when vigie can start on the topics, 1 when not
    Plan(Wanted),
    /// Create what is missing; existing topics are never changed
    Apply(Wanted),
}

#[derive(Debug, Args)]
pub(crate) struct Wanted {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    output: Output,
}

/// The topics of a configuration that are ours.
pub(crate) fn specs(config: &Config) -> Vec<TopicSpec> {
    let kafka = &config.kafka;
    let spec = |name: &str, partitions: u16, retention: Retention| TopicSpec {
        replication: kafka.replication,
        min_insync: kafka.min_insync,
        retention,
        ..TopicSpec::log(name, partitions)
    };
    let mut specs = Vec::new();
    if config.log.backend == LogBackend::Kafka {
        specs.push(spec(
            &kafka.topic,
            config.log.partitions,
            Retention::For(kafka.retention),
        ));
        // The journal of dead letters has no archive.
        specs.push(spec(&kafka.dead_letters_topic, 1, Retention::Forever));
    }
    let outputs = outputs::options(config);
    if kafka.scores_topic.is_some() {
        specs.push(spec(&outputs.scores_topic, config.log.partitions, Retention::Compacted));
    }
    if kafka.relances_topic.is_some() {
        let retention = Retention::For(kafka.retention);
        specs.push(spec(&outputs.relances_topic, config.log.partitions, retention));
    }
    let letters: BTreeSet<&str> = config
        .kafka_sources
        .iter()
        .map(|source| source.options.dead_letter_topic.as_str())
        .collect();
    specs.extend(letters.into_iter().map(|name| spec(name, 1, Retention::Forever)));
    specs
}

impl Topics {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (apply, wanted) = match self {
            Self::Plan(wanted) => (false, wanted),
            Self::Apply(wanted) => (true, wanted),
        };
        let config = cli::load(cli::sources(wanted.settings, Vec::new()))?;
        let specs = specs(&config);
        if specs.is_empty() {
            let text = "vigie: this configuration has nothing on Kafka; set log.backend to \"kafka\"\n";
            return Err(Failure::Usage(text.to_owned()));
        }
        cli::runtime()?.block_on(async {
            let connection = backends::connection(&config);
            let mut plan = topics::plan(&connection, &specs).await?;
            let mut created = Vec::new();
            if apply {
                created = topics::apply(&connection, &plan).await?;
                plan.create.retain(|spec| !created.contains(&spec.name));
            }
            print(&match wanted.output.output {
                Format::Json => format!("{:#}\n", as_json(&plan, &created)),
                Format::Text => as_text(&plan, &created),
            })?;
            match plan.is_startable() {
                true => Ok(()),
                false => Err(Failure::Verdict(1)),
            }
        })
    }
}

fn as_text(plan: &Plan, created: &[String]) -> String {
    let mut text: String = created.iter().map(|name| format!("created  {name}\n")).collect();
    text += &plan.to_string();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += match (plan.is_startable(), plan.create.is_empty()) {
        (true, _) => "vigie can start on these topics\n",
        (false, true) => "vigie does not start on these topics\n",
        (false, false) => "`vigie topics apply` creates what is missing\n",
    };
    text
}

fn as_json(plan: &Plan, created: &[String]) -> Value {
    let findings = plan.findings.iter().map(|finding| {
        json!({
            "topic": finding.topic,
            "setting": finding.setting,
            "found": finding.found,
            "wanted": finding.wanted,
            "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
            "advice": finding.advice,
        })
    });
    json!({
        "startable": plan.is_startable(),
        "created": created,
        "missing": plan.create.iter().map(|spec| &spec.name).collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}
