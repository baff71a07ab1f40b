//! What can go wrong with an archive, by what the caller can do about it. Every message names the file, volume or
//! position concerned and says what to do; this file never decides whether something is an error.

use std::path::PathBuf;
use std::time::Duration;

/// Why an archive could not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The text does not name a place that an archive can be in.
    #[error("{place:?} is not a place for an archive: {reason}")]
    Place {
        /// The text as given.
        place: String,
        /// What is wrong with it, and what to write instead.
        reason: String,
    },
    /// A Parquet file that is not ours cannot be read.
    #[error("not a Parquet file that can be read: {reason}")]
    Foreign {
        /// What does not fit.
        reason: String,
    },
    /// The disk or the object store did not do its work. Whether a flush became visible is then unknown; the next
    /// `write` looks before it writes.
    #[error("archive is unavailable: {action} {file}: {reason}")]
    Unavailable {
        /// What was being done.
        action: &'static str,
        /// To which file of the archive.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// Another process writes into this archive.
    #[error("another process writes into the archive {}; stop it, or open the archive for reading", path.display())]
    Locked {
        /// The archive's directory.
        path: PathBuf,
    },
    /// Another writer replaced the manifest of an archive on an object store.
    #[error("another writer has changed {file} of the archive; run one writer for each archive, then open it again")]
    Conflict {
        /// The volume that is no longer as it was read.
        file: String,
    },
    /// A volume of the manifest is not what was written. Nothing is repaired.
    #[error("manifest {volume}, line {line}: {reason}; restore the volume from a copy")]
    Manifest {
        /// The volume.
        volume: String,
        /// The line, from 1; 0 for the volume as a whole.
        line: usize,
        /// What does not fit.
        reason: String,
    },
    /// A data file is not what the manifest says. Nothing is repaired.
    #[error("archive file {file}: {reason}; restore the file from a copy")]
    File {
        /// The file.
        file: String,
        /// What does not fit.
        reason: String,
    },
    /// The archive was written with another number of partitions.
    #[error("archive holds partition {found}, but the log has {expected} partitions; name the archive of this log")]
    Partitions {
        /// A partition that does not exist in the log.
        found: u16,
        /// How many there are.
        expected: u16,
    },
    /// The rows do not continue the archive. Nothing was written.
    #[error("rows do not continue the archive: partition {partition} needs offset {expected} next, got {got}")]
    NotContiguous {
        /// The partition.
        partition: u16,
        /// The offset that must come next.
        expected: u64,
        /// The offset that came.
        got: u64,
    },
    /// The archive was opened for reading.
    #[error("archive was opened for reading; open it for writing to add to it")]
    ReadOnly,
    /// The SQL text cannot be understood, or asks for what does not exist.
    #[error("{message}")]
    Sql {
        /// What is wrong, with its place in the text where that is known.
        message: String,
    },
    /// The SQL text is not a question.
    #[error("only a single SELECT (or WITH … SELECT) can be run here: {what}")]
    NotAQuery {
        /// What it is instead.
        what: String,
    },
    /// The query took too long.
    #[error(
        "the query did not finish within {limit:?}; narrow it by workspace, day or recorded_at, or raise the time limit"
    )]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// The query needs too much memory.
    #[error(
        "the query needs more than {limit} bytes of memory; select fewer columns, group by fewer values, narrow it by \
         workspace, day or recorded_at, or raise the memory limit"
    )]
    MemoryLimit {
        /// The limit in bytes.
        limit: u64,
    },
    /// The query failed on the data that it met.
    #[error("the query failed: {message}")]
    Query {
        /// What happened.
        message: String,
    },
    /// A table that the caller supplies could not be read.
    #[error("table {table} cannot be read now: {reason}")]
    Live {
        /// The table.
        table: &'static str,
        /// What its owner said.
        reason: String,
    },
    /// The answer could not be written out.
    #[error("the answer cannot be written: {reason}")]
    Output {
        /// What the writer said.
        reason: String,
    },
    /// A fault that a test asked for: the writer stopped dead.
    #[error("stopped by a test at {step}")]
    Stopped {
        /// The step at which it stopped.
        step: String,
    },
}

impl ArchiveError {
    /// The metric label of the error.
    #[must_use]
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Place { .. } => "place",
            Self::Foreign { .. } => "foreign",
            Self::Unavailable { .. } => "unavailable",
            Self::Locked { .. } => "locked",
            Self::Conflict { .. } => "conflict",
            Self::Manifest { .. } => "manifest",
            Self::File { .. } => "file",
            Self::Partitions { .. } => "partitions",
            Self::NotContiguous { .. } => "not_contiguous",
            Self::ReadOnly => "read_only",
            Self::Sql { .. } => "sql",
            Self::NotAQuery { .. } => "not_a_query",
            Self::TimeLimit { .. } => "time_limit",
            Self::MemoryLimit { .. } => "memory_limit",
            Self::Query { .. } => "query",
            Self::Live { .. } => "live",
            Self::Output { .. } => "output",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// Whose move it is: `"user"` (ask for something else), `"external"` (repeat later) or `"internal"` (an operator
    /// must look).
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Place { .. }
            | Self::Foreign { .. }
            | Self::Sql { .. }
            | Self::NotAQuery { .. }
            | Self::TimeLimit { .. }
            | Self::MemoryLimit { .. }
            | Self::Query { .. } => "user",
            Self::Unavailable { .. } | Self::Live { .. } | Self::Output { .. } => "external",
            Self::Locked { .. }
            | Self::Conflict { .. }
            | Self::Manifest { .. }
            | Self::File { .. }
            | Self::Partitions { .. }
            | Self::NotContiguous { .. }
            | Self::ReadOnly
            | Self::Stopped { .. } => "internal",
        }
    }

    pub(crate) fn file(file: &str, reason: impl std::fmt::Display) -> Self {
        Self::File {
            file: file.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn unavailable(action: &'static str, file: &str, reason: impl std::fmt::Display) -> Self {
        Self::Unavailable {
            action,
            file: file.to_owned(),
            reason: reason.to_string(),
        }
    }
}
