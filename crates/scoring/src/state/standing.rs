//! Where a customer stands among others: the bands of their scores that were told last, and the company that they belong to.
//! Plain data; the rules that write it are the relance crate's and the pipeline's.

use serde::{Deserialize, Serialize};
use vigie_event::{AccountId, Timestamp};

/// The band in which a score was when it was looked at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InBand {
    /// First four bytes of a hash of the band's definition: a place among other edges means nothing.
    pub version: u32,
    /// Its place, from the lowest, 0.
    pub place: u8,
}

/// The company that a customer belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Account {
    /// When it was said.
    pub at: Timestamp,
    /// Which.
    pub id: AccountId,
}
