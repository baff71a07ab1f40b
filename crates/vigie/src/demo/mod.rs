//! Demonstrations: a simulated shop ([`shop`]) or the CDNOW purchases ([`cdnow`]), played into a server.
//!
//! The streams are pure: the same arguments give the same events, and neither reads a clock nor sends anything. The player
//! below feeds them through the same door as the collector: history as fast as it is taken, at the times at which it would
//! have been received, then live over HTTP at its own pace.

pub(crate) mod cdnow;
mod dice;
mod play;
pub(crate) mod shop;

pub(crate) use play::{Data, Play, Stream};

use vigie_event::Timestamp;

/// One event of a stream, as a client would send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimEvent {
    /// When it reaches the collector. Never falls from one event of a stream to the next.
    pub(crate) received_at: Timestamp,
    /// When it happened, as the event itself says; up to some hours before `received_at`.
    pub(crate) occurred_at: Timestamp,
    /// The canonical event (`POST /v1/events`), one JSON object.
    pub(crate) json: String,
}
