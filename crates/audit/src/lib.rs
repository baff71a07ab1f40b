//! The independent oracle: what every customer record, timer, rank, flag and book must be, recomputed from the log alone, and
//! the comparison with what the live store says.
//!
//! # What lives here
//!
//! [`Oracle`] folds one partition's records, one at a time and in order, into [`Expected`]. [`Audit`] compares that with the
//! rows of a store, byte for byte and without tolerance, and says in a [`Report`] where they part: which customer, which
//! field, both values, and the command that explains it. [`Merkle`] makes of each side one line that two machines can
//! compare. [`Sample`] chooses what an audit that runs every hour looks at.
//!
//! # What never will
//!
//! No clock, no file, no network, no asynchrony, no thread, no cache and no batch: records come from an iterator, results go
//! to the caller. It corrects nothing. It never takes the pipeline's word for anything: not for a judgement that the archive
//! keeps beside a record, not for a duplicate, not for a timer.
//!
//! # What is shared with the pipeline, and what is not
//!
//! The worth of an oracle is that a fault of the pipeline is not repeated here. Shared is what is data, or is checked
//! elsewhere against published numbers:
//!
//! * the vocabulary: ids, instants, the bytes of log records, the partition of a key, facts and names of signals;
//! * the lists of user agents ([`vigie_enrichment::Judge::agent`]);
//! * the reading of model and policy texts, and the numerical kernel: a score at an instant ([`vigie_scoring::Scorer`]);
//! * of policies the truth of a predicate about a row that is made here, and the open hours of their calendar.
//!
//! Everything else is written a second time, from the documented rules and in another way: the record as maps of days, its
//! bytes and their reader, deduplication, consent, time and links, the state machine of policies and the identity of flags,
//! and silence: there is no index of timers; a customer is brought to the present when a record touches them
//! (`silence.rs` says why that is the same).
//!
//! # What it proves, and what not
//!
//! Equal means that batches, indexes, caches, crashes and repeated steps changed no byte of what the log says. It does not
//! prove that an accepted event reached the log (the books at the collector do), nor that a score is useful. The sentences
//! that explain a flag, and the plan of the contact (hour, channel, cost) that comes with it, are not recomputed.
//!
//! # The cut
//!
//! Both sides stand at one position per partition: the rows of one snapshot, and the records before each partition's
//! [`Facts::next`]. While a record fires more timers than one step takes, the worker commits them in portions before the
//! record itself; a snapshot in such a moment shows customers ahead of their partition's clock. An audit that finds a
//! `refreshed.at` later than the clock is to be repeated with a later snapshot.

mod band;
mod compare;
mod contact;
mod decision;
mod fields;
mod judgement;
mod layout;
mod mail;
mod merkle;
mod meta;
mod oracle;
mod part;
mod report;
mod sample;
mod silence;
mod state;

pub use compare::{Audit, Live, compare};
pub use decision::ExpectedFlag;
pub use merkle::{Merkle, Root};
pub use meta::{Books, Facts, InForce};
pub use oracle::{Expected, Fault, Oracle, recompute};
pub use report::{Counts, Difference, Report, Roots, Verdict};
pub use sample::Sample;
