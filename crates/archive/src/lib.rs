//! The archive: the log as Parquet, for replays, audits and questions in SQL.
//!
//! This crate owns the files, the manifest that says which of them count, an ordered reader that gives the log back
//! byte for byte, and SQL over the events. It never folds, scores or judges, never reads a clock, never decides when to
//! flush or what to forget, and never repairs what does not fit: it says which file, and stops.
//!
//! # What an archive is
//!
//! The log's records, all partitions, each with what became of it. They are added in *flushes*: one flush covers a
//! contiguous range of offsets of some partitions, and becomes visible whole or not at all. It is one immutable Parquet
//! file for each workspace and UTC day of its records, plus one line of the manifest:
//!
//! ```text
//! workspace=shop/day=2026-11-22/000000000007-0123456789abcdef.parquet
//! workspace=.none/day=2026-11-22/…      ticks, activations, bytes that are no record
//! manifest/000000000001.jsonl           flushes 1 to 256
//! writer.lock                           held by the one process that writes
//! ```
//!
//! Names of workspaces are percent-encoded, so that none can be mistaken for another or for `.none`. Other tools may
//! read the Parquet files, but a file that the manifest does not name must be ignored.
//!
//! # Promises
//!
//! - **Whole or not at all (F67).** Files are durable before the manifest names them; the manifest's volume is replaced
//!   atomically. What a crash leaves is swept when the archive is opened for writing.
//! - **No gap, no repetition.** Ranges of a partition start at 0 and touch; opening checks that, the hash chain and the
//!   numbers, and reading checks every single offset.
//! - **Nothing is lost.** The exact bytes of a log record can be had back, undecodable ones too.
//! - **Isolation (WS-1).** A question that is bound to a workspace sees the files of no other one.
//!
//! # Limits
//!
//! A directory is locked against a second writer; an object store compares versions where it can, and else one writer
//! is the operator's word. A manifest whose newest volume is missing as a whole looks like an older archive, unless
//! files of later flushes betray it. Erasing a person means rewriting files, which this crate cannot do yet.

mod archive;
mod columns;
mod error;
mod foreign;
mod manifest;
mod place;
mod read;
mod source;
pub mod sql;
mod write;

pub use archive::{Archive, Mode, Options, Totals, Verified};
pub use columns::Row;
pub use error::ArchiveError;
pub use foreign::JsonLines;
pub use manifest::{DataFile, Flush, Range};
pub use place::{Fault, Place, Step};
pub use read::{Archived, Reader, Wanted};
