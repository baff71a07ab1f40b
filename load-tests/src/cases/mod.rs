//! The kinds of cases: each reads its experiment, starts what it needs, and says what it found.

pub(crate) mod http;
pub(crate) mod silence;
pub(crate) mod topic;

use std::path::PathBuf;

/// What the runs of all cases share.
#[derive(Debug)]
pub(crate) struct House {
    /// The vigie binary.
    pub(crate) binary: PathBuf,
    /// Where directories of runs are made.
    pub(crate) data: PathBuf,
    /// Whether the worker is profiled.
    pub(crate) profile: bool,
    /// Shorten every run to so many seconds.
    pub(crate) seconds: Option<u64>,
    /// A broker that is there already, `host:port`.
    pub(crate) broker: Option<String>,
}
