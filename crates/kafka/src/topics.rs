//! What the topics must be, what they are, and the way from one to the other: `vigie topics plan|apply` and the check at
//! start.
//!
//! A plan is data. Applying it only ever creates topics: an existing topic's settings are the operator's, so a difference
//! is reported with what to do and never changed from here.

use crate::config::{Connection, ConnectionError};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How long the brokers may take for one question.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a topic forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Never: the topic is the archive.
    Forever,
    /// Records older than this may go.
    For(Duration),
    /// The last record of each key stays.
    Compacted,
}

/// What a topic must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Partitions. Fewer are an error; more are a warning, since nothing is ever written there.
    pub partitions: u16,
    /// Copies of each partition: 3 in production, so that one broker may be lost while another is being replaced.
    pub replication: u16,
    /// Copies that must have a record before it is acknowledged: 2 in production.
    pub min_insync: u16,
    /// How it forgets.
    pub retention: Retention,
    /// Largest batch that it must take, in bytes.
    pub message_bytes: usize,
}

impl TopicSpec {
    /// The log: production settings, a retention of 30 days (the archive keeps the rest).
    #[must_use]
    pub fn log(name: &str, partitions: u16) -> Self {
        Self {
            name: name.to_owned(),
            partitions,
            replication: 3,
            min_insync: 2,
            retention: Retention::For(Duration::from_hours(30 * 24)),
            message_bytes: 1_000_000,
        }
    }

    fn settings(&self) -> BTreeMap<&'static str, String> {
        let (policy, retention) = match self.retention {
            Retention::Forever => ("delete", Some("-1".to_owned())),
            Retention::For(time) => ("delete", Some(time.as_millis().to_string())),
            Retention::Compacted => ("compact", None),
        };
        let mut settings = BTreeMap::from([
            ("cleanup.policy", policy.to_owned()),
            ("min.insync.replicas", self.min_insync.to_string()),
            // A batch may exceed the record limit by its own wrapping.
            ("max.message.bytes", (self.message_bytes + (16 << 10)).to_string()),
            // A replica that lost records must never become the leader.
            ("unclean.leader.election.enable", "false".to_owned()),
        ]);
        if let Some(retention) = retention {
            let _ = settings.insert("retention.ms", retention);
        }
        settings
    }
}

/// How bad a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; works.
    Warning,
    /// Records could be lost or refused: vigie does not start.
    Error,
}

/// One difference between what a topic is and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic.
    pub topic: String,
    /// The setting, in Kafka's words.
    pub setting: &'static str,
    /// What it is; `None` if the brokers do not say.
    pub found: Option<String>,
    /// What it must be.
    pub wanted: String,
    /// How bad that is.
    pub severity: Severity,
    /// What to do about it.
    pub advice: String,
}

/// The differences, and the topics to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Topics that do not exist.
    pub create: Vec<TopicSpec>,
    /// Differences of those that do.
    pub findings: Vec<Finding>,
}

impl Plan {
    /// Whether vigie can start on these topics.
    #[must_use]
    pub fn is_startable(&self) -> bool {
        self.create.is_empty() && self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for topic in &self.create {
            write!(
                f,
                "create   {}: partitions={} replication={}",
                topic.name, topic.partitions, topic.replication
            )?;
            for (name, value) in topic.settings() {
                write!(f, " {name}={value}")?;
            }
            writeln!(f)?;
        }
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Warning => "warning ",
                Severity::Error => "error   ",
            };
            let found = finding.found.as_deref().unwrap_or("not told");
            writeln!(
                f,
                "{severity} {}: {} is {found}, should be {}; {}",
                finding.topic, finding.setting, finding.wanted, finding.advice
            )?;
        }
        if self.create.is_empty() && self.findings.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        Ok(())
    }
}

/// Why topics cannot be looked at or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// The connection's settings.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The brokers did not answer, or refused.
    #[error("brokers {brokers}: {reason}")]
    Brokers {
        /// Whom we asked.
        brokers: String,
        /// What they, or the network, said.
        reason: String,
    },
    /// A topic could not be created.
    #[error("topic {topic} cannot be created: {reason}")]
    Create {
        /// Which.
        topic: String,
        /// What the brokers said.
        reason: String,
    },
    /// The topics are not fit.
    #[error("topics are not fit; `vigie topics plan` shows this, `vigie topics apply` creates what is missing\n{0}")]
    Unfit(Plan),
}

/// Compares the topics with what they must be.
///
/// # Errors
/// When the brokers do not answer; a difference is a result.
pub async fn plan(connection: &Connection, wanted: &[TopicSpec]) -> Result<Plan, TopicsError> {
    let admin = admin(connection)?;
    let failed = |reason: String| TopicsError::Brokers {
        brokers: connection.brokers.join(","),
        reason,
    };
    // Asking blocks: a thread of its own, so that no runtime thread waits.
    let (admin, metadata) = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, PATIENCE);
        (admin, metadata)
    })
    .await
    .map_err(|error| failed(error.to_string()))?;
    let metadata = metadata.map_err(|error| failed(error.to_string()))?;
    let mut plan = Plan::default();
    for spec in wanted {
        let Some(topic) = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == spec.name && topic.error().is_none())
        else {
            plan.create.push(spec.clone());
            continue;
        };
        let partitions = topic.partitions().len();
        let replication = topic
            .partitions()
            .iter()
            .map(|partition| partition.replicas().len())
            .min()
            .unwrap_or(0);
        plan.findings.extend(counts(spec, partitions, replication));
        let resource = ResourceSpecifier::Topic(&spec.name);
        let described = admin
            .describe_configs([&resource], &AdminOptions::new().request_timeout(Some(PATIENCE)))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let found: BTreeMap<String, Option<String>> = described
            .into_iter()
            .filter_map(Result::ok)
            .flat_map(|resource| resource.entries)
            .map(|entry| (entry.name, entry.value))
            .collect();
        plan.findings.extend(settings(spec, &found));
    }
    Ok(plan)
}

/// Creates the topics that a plan says are missing and answers their names. One that somebody else has created in between
/// counts as created.
///
/// # Errors
/// The first topic that cannot be created; those before it exist.
pub async fn apply(connection: &Connection, plan: &Plan) -> Result<Vec<String>, TopicsError> {
    let admin = admin(connection)?;
    let mut created = Vec::new();
    for spec in &plan.create {
        let failed = |reason: String| TopicsError::Create {
            topic: spec.name.clone(),
            reason,
        };
        let settings = spec.settings();
        let mut topic = NewTopic::new(
            &spec.name,
            i32::from(spec.partitions),
            TopicReplication::Fixed(i32::from(spec.replication)),
        );
        for (name, value) in &settings {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(PATIENCE))
            .operation_timeout(Some(PATIENCE));
        let answers = admin
            .create_topics([&topic], &options)
            .await
            .map_err(|error| failed(error.to_string()))?;
        for answer in answers {
            match answer {
                Ok(name) => created.push(name),
                Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => created.push(name),
                Err((_, code)) => return Err(failed(code.to_string())),
            }
        }
    }
    Ok(created)
}

/// The check at start: an error that says what to do unless the topics are fit; warnings go to the log of the process.
///
/// # Errors
/// [`TopicsError::Unfit`] with the plan, or that the brokers do not answer.
pub async fn check(connection: &Connection, wanted: &[TopicSpec]) -> Result<(), TopicsError> {
    let plan = plan(connection, wanted).await?;
    if !plan.is_startable() {
        return Err(TopicsError::Unfit(plan));
    }
    for finding in &plan.findings {
        tracing::warn!(
            topic = finding.topic,
            setting = finding.setting,
            found = finding.found,
            wanted = finding.wanted,
            "{}",
            finding.advice
        );
    }
    Ok(())
}

fn admin(connection: &Connection) -> Result<AdminClient<DefaultClientContext>, ConnectionError> {
    AdminClient::from_config(&connection.client()?).map_err(|error| ConnectionError::Client(error.to_string()))
}

fn counts(spec: &TopicSpec, partitions: usize, replication: usize) -> Vec<Finding> {
    let finding = |setting, found: usize, wanted: u16, severity, advice: String| Finding {
        topic: spec.name.clone(),
        setting,
        found: Some(found.to_string()),
        wanted: wanted.to_string(),
        severity,
        advice,
    };
    let mut findings = Vec::new();
    let wanted = usize::from(spec.partitions);
    if partitions < wanted {
        findings.push(finding(
            "partitions",
            partitions,
            spec.partitions,
            Severity::Error,
            format!(
                "a customer's partition never changes: add partitions (kafka-topics.sh --alter --topic {} --partitions {wanted}), \
                 or name the count that the log was created with",
                spec.name
            ),
        ));
    } else if partitions > wanted {
        findings.push(finding(
            "partitions",
            partitions,
            spec.partitions,
            Severity::Warning,
            "those beyond are never written nor read".to_owned(),
        ));
    }
    if replication < usize::from(spec.replication) {
        findings.push(finding(
            "replication",
            replication,
            spec.replication,
            Severity::Error,
            "with fewer copies an acknowledged record can be lost: reassign the partitions, or lower the wanted replication \
             knowingly"
                .to_owned(),
        ));
    }
    findings
}

fn settings(spec: &TopicSpec, found: &BTreeMap<String, Option<String>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (setting, wanted) in spec.settings() {
        let value = found.get(setting).cloned().flatten();
        let severity = match &value {
            // Some brokers do not answer this question; that alone keeps nobody from starting.
            None => Severity::Warning,
            Some(value) if *value == wanted => continue,
            Some(value) => match judge(setting, value, &wanted) {
                Some(severity) => severity,
                None => continue,
            },
        };
        let advice = match &value {
            None => "the brokers do not tell: check it by hand".to_owned(),
            Some(_) => format!(
                "kafka-configs.sh --alter --topic {} --add-config {setting}={wanted}",
                spec.name
            ),
        };
        findings.push(Finding {
            topic: spec.name.clone(),
            setting,
            found: value,
            wanted,
            severity,
            advice,
        });
    }
    findings
}

/// How bad it is that a setting has this value; `None` when it is as good as the wanted one.
fn judge(setting: &str, value: &str, wanted: &str) -> Option<Severity> {
    let number = |text: &str| text.parse::<i64>().ok();
    match (setting, number(value), number(wanted)) {
        // -1 is for ever.
        ("retention.ms", Some(-1), _) => None,
        ("retention.ms", Some(_), Some(-1)) => Some(Severity::Error),
        ("retention.ms", Some(value), Some(wanted)) => (value < wanted).then_some(Severity::Warning),
        ("min.insync.replicas" | "max.message.bytes", Some(value), Some(wanted)) => {
            (value < wanted).then_some(Severity::Error)
        }
        _ => Some(Severity::Error),
    }
}

/// A context that says what the client library says, and nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TopicSpec {
        TopicSpec::log("vigie.log", 64)
    }

    fn as_wanted() -> BTreeMap<String, Option<String>> {
        spec()
            .settings()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Some(value)))
            .collect()
    }

    #[test]
    fn a_topic_as_wanted_has_no_findings() {
        assert_eq!(counts(&spec(), 64, 3), []);
        assert_eq!(settings(&spec(), &as_wanted()), []);
    }

    #[test]
    fn each_difference_has_its_severity() {
        for (setting, value, severity) in [
            ("cleanup.policy", "compact", Some(Severity::Error)),
            ("cleanup.policy", "compact,delete", Some(Severity::Error)),
            ("min.insync.replicas", "1", Some(Severity::Error)),
            ("min.insync.replicas", "3", None),
            ("retention.ms", "-1", None),
            ("retention.ms", "3600000", Some(Severity::Warning)),
            ("retention.ms", "9999999999", None),
            ("max.message.bytes", "1000", Some(Severity::Error)),
            ("max.message.bytes", "99999999", None),
            ("unclean.leader.election.enable", "true", Some(Severity::Error)),
        ] {
            let mut found = as_wanted();
            let _ = found.insert(setting.to_owned(), Some(value.to_owned()));
            let findings = settings(&spec(), &found);
            let severities: Vec<_> = findings
                .iter()
                .map(|finding| (finding.setting, finding.severity))
                .collect();
            let expected: Vec<_> = severity.map(|severity| (setting, severity)).into_iter().collect();
            assert_eq!(severities, expected, "{setting}={value}");
            assert!(findings.iter().all(|finding| finding.advice.contains(setting)));
        }
        let silent = settings(&spec(), &BTreeMap::new());
        assert!(!silent.is_empty() && silent.iter().all(|finding| finding.severity == Severity::Warning));
    }

    #[test]
    fn forever_is_not_replaced_by_a_while() {
        let forever = TopicSpec {
            retention: Retention::Forever,
            ..spec()
        };
        let mut found = as_wanted();
        let _ = found.insert("retention.ms".to_owned(), Some("86400000".to_owned()));
        assert_eq!(settings(&forever, &found)[0].severity, Severity::Error);
    }

    #[test]
    fn fewer_partitions_or_copies_keep_vigie_from_starting_and_more_do_not() {
        let severities = |partitions, replication| {
            let findings = counts(&spec(), partitions, replication);
            findings.iter().map(|finding| finding.severity).collect::<Vec<_>>()
        };
        assert_eq!(severities(32, 3), [Severity::Error]);
        assert_eq!(severities(65, 3), [Severity::Warning]);
        assert_eq!(severities(64, 1), [Severity::Error]);
        assert_eq!(severities(64, 4), []);
    }
}
