//! Topics for others (`kafka.scores-topic`, `kafka.relances-topic`): what a customer's score is now, and whom to contact.
//!
//! A score is told before its step is committed: a worker that dies in between leaves the step to the next one, who tells it
//! again, so that the last record of a key is never behind the store. The one exception is a worker that sleeps exactly in
//! between and wakes up when others have gone on: each record carries the `epoch` of its writer, of two the higher one holds,
//! and the customer's next change or refresh replaces it. A relance goes the way of every destination: checked before it is
//! sent, kept until it has arrived, sent under its id.
//!
//! It decides neither what a score is nor whom to contact.

use crate::backends;
use crate::config::Config;
use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use vigie_delivery::{Answer, Destination, Exit, Failure, HttpExit, Kind, Parcel, Told, envelope};
use vigie_event::{CustomerKey, PersonId};
use vigie_kafka::outputs::{OutputError, OutputOptions, Outputs, RelanceMessage};
use vigie_store::{CustomerWrite, StoreError};

/// The name of the topic among the destinations of relances.
const DESTINATION: &str = "kafka";
/// Relances on their way at the same time.
const CONCURRENCY: usize = 64;

/// Who tells scores.
pub(crate) struct Scores(Outputs);

impl fmt::Debug for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scores")
    }
}

/// Who tells scores, where a topic is configured.
pub(crate) fn scores(config: &Config) -> Result<Option<Scores>> {
    let open = || Outputs::open(&backends::connection(config), options(config));
    let scores = config.kafka.scores_topic.as_ref().map(|_| open()).transpose();
    Ok(scores.context("the topic of scores")?.map(Scores))
}

/// The two topics; those that are not configured are never written.
pub(crate) fn options(config: &Config) -> OutputOptions {
    let defaults = OutputOptions::default();
    let kafka = &config.kafka;
    OutputOptions {
        scores_topic: kafka.scores_topic.clone().unwrap_or(defaults.scores_topic),
        relances_topic: kafka.relances_topic.clone().unwrap_or(defaults.relances_topic),
        timeout: kafka.append_timeout,
        ..OutputOptions::default()
    }
}

impl Scores {
    /// Tells the scores that a commit is about to store; durable when it returns.
    pub(crate) async fn tell(&self, epoch: u64, customers: &[CustomerWrite]) -> Result<(), StoreError> {
        let told: Vec<(CustomerKey, Option<Bytes>)> = customers
            .iter()
            .map(|write| (write.key.clone(), body(epoch, write)))
            .collect();
        if told.is_empty() {
            return Ok(());
        }
        self.0.scores(told).await.map_err(|error| StoreError::Unavailable {
            reason: format!("scores are told before they are stored: {error}"),
        })
    }
}

/// The public fields of a customer as JSON, as in the hash of Redis; nothing for who has none (any more).
fn body(epoch: u64, write: &CustomerWrite) -> Option<Bytes> {
    if write.fields.0.is_empty() {
        return None;
    }
    let mut object = Map::new();
    let _ = object.insert("workspace".to_owned(), write.key.workspace.as_str().into());
    let _ = object.insert("customer".to_owned(), write.key.person.to_string().into());
    for (name, bytes) in &write.fields.0 {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let value = match *name {
            // Numbers and the list of reasons are JSON as they stand.
            "attrition" | "churn" | "value" | "at_stake" | "reasons" => serde_json::from_str(&text),
            _ => Ok(Value::String(text.clone())),
        };
        let _ = object.insert((*name).to_owned(), value.unwrap_or(Value::String(text)));
    }
    let _ = object.insert("epoch".to_owned(), epoch.into());
    Some(Bytes::from(Value::Object(object).to_string()))
}

/// The topic of relances as a destination, where one is configured.
pub(crate) fn destination(config: &Config) -> Result<Option<Destination>> {
    let Some(topic) = &config.kafka.relances_topic else {
        return Ok(None);
    };
    let brokers = config.kafka.brokers.join(",");
    let url = format!(
        "kafka://{}/{topic}",
        config.kafka.brokers.first().map_or("", String::as_str)
    );
    Ok(Some(Destination {
        name: DESTINATION.to_owned(),
        kind: Kind::Topic,
        url: url.parse().with_context(|| format!("the brokers {brokers}"))?,
        headers: Vec::new(),
        workspaces: BTreeSet::new(),
        // Scores have a topic of their own.
        events: BTreeSet::from([Told::Flagged]),
        policies: BTreeSet::new(),
        timeout: config.kafka.append_timeout,
        concurrency: CONCURRENCY,
        rate: 10_000,
        daily_capacity: None,
        max_age: Duration::from_hours(7 * 24),
        allow_private: Vec::new(),
        ca: None,
    }))
}

/// The way to a destination.
pub(crate) enum Way {
    Http(HttpExit),
    Topic(Arc<Outputs>),
}

impl Exit for Way {
    async fn send(&self, parcel: &Parcel) -> Answer {
        match self {
            Self::Http(exit) => exit.send(parcel).await,
            Self::Topic(outputs) => publish(outputs, parcel).await,
        }
    }
}

async fn publish(outputs: &Outputs, parcel: &Parcel) -> Answer {
    let person = match parcel.customer.strip_prefix("anonymous:") {
        Some(id) => PersonId::anonymous(id),
        None => PersonId::known(&parcel.customer),
    };
    let Ok(person) = person else {
        return Answer::Failed(Failure::Protocol);
    };
    let relance = RelanceMessage {
        id: parcel.id,
        customer: CustomerKey::new(parcel.workspace.clone(), person),
        body: Bytes::from(envelope(parcel)),
    };
    match outputs.relances(vec![relance]).await {
        Ok(()) => Answer::Status {
            code: 200,
            retry_after: None,
        },
        // No broker will ever take it.
        Err(OutputError::TooLarge { .. }) => Answer::Status {
            code: 413,
            retry_after: None,
        },
        Err(OutputError::Overloaded | OutputError::Unavailable(_)) => Answer::Failed(Failure::Connection),
    }
}
