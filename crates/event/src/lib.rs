//! The vocabulary that every other crate shares: typed ids, the canonical event and its JSON shape, verdicts,
//! log records with their versioned bytes, and positions in the log.
//!
//! It never reads a clock, draws a random number, performs I/O or logs; it knows nothing of scores, policies,
//! topics or HTTP. Everything here is plain data with a documented meaning.
//!
//! One type per station of an event's way through the house:
//!
//! | station | type | who makes it |
//! |---|---|---|
//! | canonical and validated | [`Event`] | ingestion |
//! | in the log | [`Record`] at a [`Position`] | ingestion, pipeline |
//! | judged | [`Enriched`] | enrichment |
//!
//! What follows (customer state, assessment, decision) belongs to the scoring and relance crates.

mod channel;
mod consent;
mod event;
mod ids;
pub mod json;
mod judgement;
mod money;
mod names;
mod position;
mod recent;
mod record;
mod signal;
mod time;
mod verdict;

pub use channel::Channel;
pub use consent::{ConsentContext, ConsentState, Purpose};
pub use event::{Client, Event, PersonIds, Source, fingerprint};
pub use ids::{AccountId, CustomerKey, EventId, FlagId, IdError, MAX_ID_BYTES, PersonId, PolicyId, Workspace};
pub use judgement::{Findings, Judgement};
pub use money::{Currency, Money, MoneyError};
pub use position::{Offset, Origin, Partition, Position, partition_for};
pub use recent::{RecentIds, RecentIdsBySecond, Seen};
pub use record::{Body, CodecError, Control, Forward, Link, Merge, MergePart, Record, Release, Tick};
pub use signal::Signal;
pub use time::{DAY_MS, Day, TimeError, Timestamp};
pub use verdict::{Agent, Doubt, Enriched, RejectCode, SessionVerdict, Suppression, TimeVerdict, Verdict};
