//! The worker: it turns the log into customer records, scores and flags.
//!
//! # The step
//!
//! One step is **prefetch → fold → write → acknowledge**. [`Worker::process`] reads the records that a batch needs in one
//! call, runs one synchronous pure function over the batch (`fold`), appends what the fold says to other partitions,
//! commits everything else in one atomic write together with the positions. A crash anywhere
//! leaves the store at the end of some earlier step; folding again from the stored position gives the same bytes, since
//! the fold has no other input than the log (STEP-1, STEP-2). The live driver ([`Live`]) and the simulator ([`Sim`]) call
//! the same `process`; neither has a fold of its own.
//!
//! # Time
//!
//! The clock of a partition is the latest time that a record brought into it. When a record moves the clock, every timer
//! due by then fires first, in order of (due, customer), each as of its own due time. How the log is cut into batches
//! therefore changes nothing. Where a timer falls due and no record arrives, the live driver appends a tick.
//!
//! # Identities
//!
//! A customer record lives in the partition of the identity that names it. An event that declares two identities one
//! person makes the fold append a `Link` to the partition of the identity that gives up its record; there the record
//! becomes a signpost and its parts travel as a `Merge` to the identity that takes them in; later events of the old
//! identity are forwarded. Every such derived record names the record it came from, and its target partition ignores what
//! it has seen from that source before: a step repeated after a crash changes nothing. `identity.unlink` undoes it (`unlink`).
//!
//! # What lives elsewhere
//!
//! It never knows what a broker, a socket or a file is (the log and the store are traits), never judges events
//! (enrichment), computes scores (scoring) or decides on flags (relance), and reads no clock: the live driver is given one.

mod archivist;
mod errors;
mod fold;
mod landing;
mod live;
mod meta;
mod published;
mod resident;
mod sandbox;
mod sim;
mod startup;
mod status;
mod unlink;
mod worker;

pub use archivist::{Archivist, ArchivistHandle, ArchivistOptions, Shelf, Shelved, committed, look};
pub use errors::WorkerError;
pub use fold::{DEDUP_DAYS, DEDUP_IDS};
pub use live::{Clock, Live, LiveOptions};
pub use meta::{Active, ActiveError, Books};
pub use sandbox::Sandbox;
pub use sim::Sim;
pub use startup::{in_force, inaugurate, ledger, put_in_force};
pub use status::{PartitionStatus, Status, StatusHandle};
pub use worker::{DeadLetter, DeadLetterSink, Worker};
