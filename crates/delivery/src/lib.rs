//! Relances on their way out: what leaves the house, to whom, and what is known about whether it arrived.
//!
//! This crate never decides whom to contact, never folds an event, never writes to the store, never reads a clock and
//! never draws a random number. It reads flags from the store and keeps small journals of its own beside it.
//!
//! # The contract
//!
//! **What is told.** Flags, and to destinations that subscribe to them, notices ([`Told`]): that a flag was wrong, and that a
//! score has come to another band. A notice goes the way of a flag, under an id of its own and in its place among the
//! customer's flags; what follows is said of both.
//!
//! **One gate.** Between a flag and any exit (a webhook, a sink, an agent's claim, a row of the CSV) stands [`Gate`], asked at the
//! moment of sending: it answers send, drop with a reason, or wait. A flag that is held out is never sent. Whoever objected,
//! was erased, has bought meanwhile or came back, is not contacted; what cannot be known is not sent either (fails closed).
//!
//! **At least once, under one name.** The outbox is the store's list of flags, numbered 1, 2, 3… in a workspace. A [`Lane`]
//! (one destination, one workspace) remembers how far it has read and which flags above that are still open, in a journal
//! that is written before anything is forgotten. A crash at any point repeats at most what was under way, always with the
//! flag's own id as `webhook-id` and the same body, so that a receiver that keeps ids counts each once. Flags are taken in
//! only once the store says that they survive power loss, since their numbers must not change afterwards.
//!
//! **In order per customer.** While a flag of a customer is open, later flags of that customer wait behind it. Flags of
//! different customers do not wait for each other.
//!
//! **Isolated.** Lanes share nothing but the store: each has its own journal, pace, connections and memory. A lane holds at
//! most [`outbox::MAX_OPEN`] open flags (about 100 bytes each; bodies stay in the store) and at most
//! [`outbox::MAX_PARKED`] parked ones; beyond either bound it takes in nothing new, and the flags wait in the store.
//!
//! **Failures.** Only 2xx is success. Anything else is tried again on the schedule of Standard Webhooks (nine more times
//! within about 76 hours, each delay ±20 %), not before a `Retry-After` has passed. After the last attempt the flag is
//! *parked*: counted, listed, and sent again on request, by id or by range of numbers. A lane that has failed five times in
//! a row is *failing*: it goes on with what it has begun, and probes: when nothing was tried for five minutes it begins one new
//! flag, and when there is none, after half an hour, it tries one that waits. The first success ends that, and all that waited
//! becomes due at once, at the lane's rate. A probe that fails uses up none of the attempts of a flag that waits. `410 Gone` *halts* the lane until
//! somebody resumes it; its flags wait.
//!
//! **Nothing is followed.** Redirects are failures. The address that a name resolves to is checked before it is connected
//! to, and that address is the one connected to ([`guard`]); proxies of the environment are ignored.
//!
//! **Claims.** Agents pull from the [`Queue`]: a claim leases flags for a time, and the lease is on the disk before it is
//! answered, so that neither a crash nor a power loss gives one flag to two agents within a lease. An outcome becomes an
//! event in the log first, so that replays see it, and closes the flag second.

mod csv_export;
pub mod destination;
pub mod exit;
pub mod flag;
pub mod gate;
pub mod guard;
pub mod http;
mod journal;
pub mod lane;
pub mod message;
pub mod outbox;
pub mod queue;
pub mod schedule;
pub mod signature;
pub mod template;

pub use destination::{Destination, DestinationError, Destinations, Kind};
pub use exit::{Answer, Exit, Failure, HttpExit};
pub use flag::{FlagView, Told};
pub use gate::{Gate, GateError, Reason, Standing, Verdict, judge};
pub use journal::JournalError;
pub use lane::{Lane, LaneError, LaneHandle, LaneStatus, Redelivery};
pub use message::{Parcel, envelope};
pub use queue::{ClaimRequest, Claimed, Outcome, Queue, QueueError, Report, Reports};
pub use schedule::Schedule;

use std::sync::Arc;
use vigie_event::Timestamp;

/// The time, as an input.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
