//! Kafka for vigie: the log on a topic, ownership of partitions by a consumer group, topics of others as input, scores and
//! relances as output.
//!
//! This is the only crate that knows what a broker is. It never folds, judges or scores an event, never reads a clock
//! (durations are measured by the runtime's timers, times are handed in) and never draws randomness.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | how brokers are reached; secrets are named, never held |
//! | [`log`] | [`KafkaLog`]: the contract of [`vigie_ingestion::log::Log`] on one topic |
//! | [`topics`] | what the topics must be, what they are, and the way from one to the other |
//! | [`ownership`] | which partitions this process works on, by a consumer group |
//! | [`source`] | topics of others as input |
//! | [`outputs`] | scores and relances as topics |
//!
//! # What holds the whole together
//!
//! **The store is the truth.** A worker reads from the positions that its store holds. Offsets committed to a group are
//! hints for lag tools: nothing here starts from them, except a [`source`], whose duplicates the fold recognises by id.
//!
//! **Nothing is dropped silently.** The producer of the log keeps a record until the broker has answered for it, however
//! long that takes; an append that its caller will not wait for any longer is [`LogError::Unknown`]. An offset that is not
//! in the topic stops the reader with `LOG_GAP`; no offset is ever reset.
//!
//! **Ownership is fenced elsewhere.** The group spreads partitions; that two processes believe to own one is harmless,
//! because the store refuses the older epoch (OWN-1).
//!
//! [`LogError::Unknown`]: vigie_ingestion::log::LogError::Unknown

pub mod config;
pub mod log;
pub mod outputs;
pub mod ownership;
pub mod source;
pub mod topics;

mod producer;

pub use config::{Connection, ConnectionError, Secret, Security};
pub use log::{Compression, KafkaLog, KafkaReader, LogOptions};
