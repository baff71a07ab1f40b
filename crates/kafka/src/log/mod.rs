//! The log on a Kafka topic: partition `n` of the log is partition `n` of the topic, an offset is the topic's offset.
//!
//! It keeps the contract of [`vigie_ingestion::log`], with the two differences that the contract names for Kafka: there is
//! no order across partitions, and a call that ends as [`LogError::Unknown`] may become visible in part before it becomes
//! visible as a whole. It never commits an offset and never starts from a committed one.
//!
//! Records carry no key: their partition is chosen by [`vigie_event::partition_for`], so that partitions added to the topic
//! later change nobody's home.

mod reader;
mod watermarks;

pub use reader::KafkaReader;

use crate::config::{Connection, ConnectionError};
use crate::producer::{Outgoing, Producer, ProducerOptions, SendError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{Offset, Partition, Position};
use vigie_ingestion::log::{Health, Log, LogError};
use watermarks::Watermarks;

/// When to come back after the queue was full: about the time that a healthy broker needs to empty it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How batches are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    None,
    /// Little work, half the bytes.
    #[default]
    Lz4,
    /// More work, a third of the bytes.
    Zstd,
}

impl Compression {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// How the log uses its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// The topic.
    pub topic: String,
    /// Partitions of the log, chosen when it was created. The topic has at least as many.
    pub partitions: u16,
    /// The consumer group: readers name it to the brokers, which check rights by it. Nothing is committed to it here.
    pub group: String,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a batch waits for company before it is sent. 0 to 100 ms.
    pub linger: Duration,
    /// How long an append waits for the brokers before its outcome is unknown. 100 ms to 60 s.
    pub append_timeout: Duration,
    /// Largest record, its wrapping included; the topic's `max.message.bytes` must be larger. 64 KiB to 16 MiB.
    pub message_bytes: usize,
    /// Bytes that may wait for the brokers' answer; beyond them appends are refused. At least `message_bytes`.
    pub queue_bytes: usize,
    /// How long a broker may hold a fetch that finds nothing. 1 to 500 ms.
    pub fetch_wait: Duration,
    /// Bytes that a reader may fetch ahead, over all its partitions. At least `message_bytes`.
    pub fetch_ahead_bytes: usize,
    /// Time between two looks at the first and last offset of every partition, which are the probe of [`Log::health`]
    /// too. 100 ms to 60 s.
    pub refresh: Duration,
}

impl LogOptions {
    /// The defaults for a topic.
    #[must_use]
    pub fn new(topic: &str, partitions: u16) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions,
            group: "vigie".to_owned(),
            compression: Compression::default(),
            linger: Duration::from_millis(5),
            append_timeout: Duration::from_secs(5),
            message_bytes: 1_000_000,
            queue_bytes: 64 << 20,
            fetch_wait: Duration::from_millis(100),
            fetch_ahead_bytes: 16 << 20,
            refresh: Duration::from_secs(1),
        }
    }

    /// The first setting that is out of its range.
    fn check(&self) -> Result<(), String> {
        let ms = Duration::from_millis;
        let within = |name: &str, value: Duration, from: u64, to: u64| {
            if value < ms(from) || value > ms(to) {
                return Err(format!("{name} must be between {from} and {to} ms"));
            }
            Ok(())
        };
        within("linger", self.linger, 0, 100)?;
        within("append-timeout", self.append_timeout, 100, 60_000)?;
        within("fetch-wait", self.fetch_wait, 1, 500)?;
        within("refresh", self.refresh, 100, 60_000)?;
        if self.partitions == 0 {
            return Err("partitions must be at least 1".to_owned());
        }
        if !(64 << 10..=16 << 20).contains(&self.message_bytes) {
            return Err("message-bytes must be between 64 KiB and 16 MiB".to_owned());
        }
        if self.queue_bytes < self.message_bytes || self.fetch_ahead_bytes < self.message_bytes {
            return Err("queue-bytes and fetch-ahead-bytes must be at least message-bytes".to_owned());
        }
        if self.topic.is_empty() || self.group.is_empty() {
            return Err("topic and group must be named".to_owned());
        }
        Ok(())
    }
}

/// A log on a topic.
#[derive(Debug)]
pub struct KafkaLog {
    connection: Connection,
    options: LogOptions,
    producer: Producer,
    watermarks: Arc<Watermarks>,
}

impl KafkaLog {
    /// Opens the log: the topic must exist with enough partitions (see [`crate::topics`] for the rest of its settings),
    /// and the brokers must answer once.
    ///
    /// # Errors
    /// [`LogError::Layout`] for settings and partitions, [`LogError::Unavailable`] while the brokers do not answer.
    pub async fn open(connection: Connection, options: LogOptions) -> Result<Self, LogError> {
        let layout = |reason: String| LogError::Layout { reason };
        options.check().map_err(layout)?;
        let refused = |error: ConnectionError| LogError::Layout {
            reason: error.to_string(),
        };
        let watermarks = Watermarks::open(&connection, &options).map_err(refused)?;
        watermarks.refreshed(options.append_timeout).await?;
        let acknowledged = Arc::clone(&watermarks);
        let producer = Producer::new(
            &connection,
            ProducerOptions {
                compression: options.compression.name(),
                linger: options.linger,
                message_bytes: options.message_bytes,
                queue_bytes: options.queue_bytes,
                timeout: options.append_timeout,
                gapless: true,
            },
            move |partition, offset| acknowledged.durable(partition, offset),
        )
        .map_err(refused)?;
        Ok(Self {
            connection,
            options,
            producer,
            watermarks,
        })
    }

    /// How brokers are reached.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How the topic is used.
    #[must_use]
    pub fn options(&self) -> &LogOptions {
        &self.options
    }
}

impl Log for KafkaLog {
    type Reader = KafkaReader;

    fn partitions(&self) -> u16 {
        self.options.partitions
    }

    async fn append(&self, records: Vec<(Partition, Bytes)>) -> Result<Vec<Position>, LogError> {
        let partitions: Vec<Partition> = records.iter().map(|(partition, _)| *partition).collect();
        if let Some(partition) = partitions
            .iter()
            .find(|partition| partition.0 >= self.options.partitions)
        {
            return Err(LogError::NoSuchPartition {
                partition: *partition,
                partitions: self.options.partitions,
            });
        }
        let outgoing = records
            .into_iter()
            .map(|(partition, payload)| Outgoing {
                partition: Some(i32::from(partition.0)),
                payload: Some(payload),
                ..Outgoing::default()
            })
            .collect();
        let offsets = self
            .producer
            .send(&self.options.topic, outgoing)
            .await
            .map_err(failed)?;
        let position = |(partition, offset): (Partition, i64)| Position {
            partition,
            offset: Offset(u64::try_from(offset).unwrap_or(0)),
        };
        Ok(partitions.into_iter().zip(offsets).map(position).collect())
    }

    fn reader(&self, from: BTreeMap<Partition, Offset>) -> Result<KafkaReader, LogError> {
        if let Err(error) = self.watermarks.check(&from) {
            // What is known may be a second old: somebody else may have appended since.
            if !matches!(error, LogError::Gap { .. }) {
                return Err(error);
            }
            self.watermarks.refresh_now(&self.watermarks.consumer()?)?;
            self.watermarks.check(&from)?;
        }
        KafkaReader::start(&self.connection, &self.options, from, Arc::clone(&self.watermarks))
    }

    fn ends(&self) -> Vec<Offset> {
        self.watermarks.ends()
    }

    fn starts(&self) -> Vec<Offset> {
        self.watermarks.starts()
    }

    fn health(&self) -> Health {
        match self.producer.health() {
            Health::Ok => self.watermarks.health(),
            other => other,
        }
    }
}

fn failed(error: SendError) -> LogError {
    match error {
        SendError::Overloaded => LogError::Overloaded {
            retry_after: RETRY_AFTER,
        },
        SendError::TooLarge { bytes, limit } => LogError::TooLarge { bytes, limit },
        SendError::Refused(reason) => LogError::Unavailable { reason },
        SendError::Unknown(reason) => LogError::Unknown { reason },
        SendError::Fatal(reason) => LogError::Poisoned { reason },
    }
}
