//! Outputs as topics: the scores of customers, and the relances.
//!
//! `vigie.scores` is compacted, keyed by customer (`workspace/person`): its last record of a key is that customer's latest
//! score, a record without a value says that the customer was erased. `vigie.relances` keeps every flag, keyed by customer
//! too, with the flag's id in the header `webhook-id`: it is delivered at least once, and always under that id (FLAG-1).
//! The bodies are bytes from elsewhere; nothing here reads them.

use crate::config::{Connection, ConnectionError};
use crate::log::Compression;
use crate::producer::{Outgoing, Producer, ProducerOptions, SendError};
use crate::topics::{Retention, TopicSpec};
use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use std::time::Duration;
use vigie_event::{CustomerKey, FlagId};
use vigie_ingestion::log::Health;

/// Where outputs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOptions {
    /// The compacted topic of scores.
    pub scores_topic: String,
    /// The topic of relances.
    pub relances_topic: String,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a batch waits for company before it is sent.
    pub linger: Duration,
    /// How long a call waits for the brokers.
    pub timeout: Duration,
}

impl Default for OutputOptions {
    fn default() -> Self {
        Self {
            scores_topic: "vigie.scores".to_owned(),
            relances_topic: "vigie.relances".to_owned(),
            compression: Compression::default(),
            linger: Duration::from_millis(5),
            timeout: Duration::from_secs(10),
        }
    }
}

impl OutputOptions {
    /// What the two topics must be, for `vigie topics`.
    #[must_use]
    pub fn topics(&self, partitions: u16) -> [TopicSpec; 2] {
        let scores = TopicSpec {
            retention: Retention::Compacted,
            ..TopicSpec::log(&self.scores_topic, partitions)
        };
        [scores, TopicSpec::log(&self.relances_topic, partitions)]
    }
}

/// One relance on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelanceMessage {
    /// Its id.
    pub id: FlagId,
    /// Whom it is about.
    pub customer: CustomerKey,
    /// What is told.
    pub body: Bytes,
}

/// Why a call was not confirmed. Repeating it is always safe: a score replaces itself, a relance keeps its id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// Too much waits for the brokers already; nothing was taken.
    #[error("outputs to kafka wait for the brokers; try again")]
    Overloaded,
    /// A body is larger than the topic takes.
    #[error("output of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not confirmed in time, or refused; parts of the call may have been written.
    #[error("outputs to kafka are not confirmed: {0}")]
    Unavailable(String),
}

impl From<SendError> for OutputError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Overloaded => Self::Overloaded,
            SendError::TooLarge { bytes, limit } => Self::TooLarge { bytes, limit },
            SendError::Refused(reason) | SendError::Unknown(reason) | SendError::Fatal(reason) => {
                Self::Unavailable(reason)
            }
        }
    }
}

/// The producer of both topics.
#[derive(Debug)]
pub struct Outputs {
    producer: Producer,
    options: OutputOptions,
}

impl Outputs {
    /// Connects; that the topics exist is checked by [`crate::topics::check`].
    ///
    /// # Errors
    /// Settings.
    pub fn open(connection: &Connection, options: OutputOptions) -> Result<Self, ConnectionError> {
        let producer = Producer::new(
            connection,
            ProducerOptions {
                compression: options.compression.name(),
                linger: options.linger,
                message_bytes: 1_000_000,
                queue_bytes: 32 << 20,
                timeout: options.timeout,
                gapless: false,
            },
            |_, _| {},
        )?;
        Ok(Self { producer, options })
    }

    /// Publishes scores; `None` for a customer who was erased. Durable when it returns `Ok`.
    ///
    /// # Errors
    /// When it is not known to be; call again.
    pub async fn scores(&self, scores: Vec<(CustomerKey, Option<Bytes>)>) -> Result<(), OutputError> {
        let outgoing = scores.into_iter().map(|(customer, body)| Outgoing {
            key: Some(Bytes::from(customer.to_string())),
            payload: body,
            ..Outgoing::default()
        });
        let _ = self
            .producer
            .send(&self.options.scores_topic, outgoing.collect())
            .await?;
        Ok(())
    }

    /// Publishes relances. Durable when it returns `Ok`.
    ///
    /// # Errors
    /// When it is not known to be; call again.
    pub async fn relances(&self, relances: Vec<RelanceMessage>) -> Result<(), OutputError> {
        let outgoing = relances.into_iter().map(|relance| {
            let id = relance.id.to_string();
            let header = Header {
                key: "webhook-id",
                value: Some(id.as_bytes()),
            };
            Outgoing {
                key: Some(Bytes::from(relance.customer.to_string())),
                payload: Some(relance.body),
                headers: Some(OwnedHeaders::new().insert(header)),
                ..Outgoing::default()
            }
        });
        let _ = self
            .producer
            .send(&self.options.relances_topic, outgoing.collect())
            .await?;
        Ok(())
    }

    /// Whether outputs could be confirmed now, as far as the latest calls tell.
    #[must_use]
    pub fn health(&self) -> Health {
        self.producer.health()
    }
}
