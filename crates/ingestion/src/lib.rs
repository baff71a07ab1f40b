//! The collector: it takes events over HTTP in the protocols that clients already speak, checks them against stated
//! limits, and makes each one durable (in the log, or in the dead-letter journal) before it answers.
//!
//! It never judges, scores or deduplicates an event: that is the business of the crates that read the log. It never
//! reads a clock and never draws randomness: the binary hands a [`Clock`] in. It knows no store and no policy.
//!
//! | module | owns |
//! |---|---|
//! | [`keys`] | who may send, read or administer, by hashed key |
//! | [`limits`] | every stated maximum of the collector |
//! | [`strict`] | one pass over raw JSON that checks limits without building a tree |
//! | [`inflate`] | bounded decompression |
//! | [`protocol`] | one file per protocol: bytes in, events or reasons out |
//! | `addresses` | e-mail addresses that nobody meant to give |
//! | `consent` | whether a granted consent carries its proof |
//! | [`intake`] | the only door to the log, and the books of accepted events |
//! | [`dead_letters`] | the durable journal of what could not be taken |
//! | [`links`] | signed links of e-mails |
//! | [`rates`] | how much a key and a workspace may send |
//! | [`webhooks`] | proofs that a provider's request is the provider's |
//! | [`import`] | history out of files: lines in, events or reasons out |
//! | [`http`] | routes, answers, transport rules, the server |
//! | [`log`] | the log's contract and its in-house implementations |

mod addresses;
mod consent;
pub mod dead_letters;
pub mod http;
pub mod import;
pub mod inflate;
pub mod intake;
pub mod keys;
pub mod limits;
pub mod links;
pub mod log;
pub mod protocol;
pub mod rates;
pub mod strict;
pub mod webhooks;

use std::sync::Arc;
use vigie_event::Timestamp;

/// The wall clock, handed in by the binary (TIME-1).
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
