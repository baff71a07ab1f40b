//! Every stated maximum of the collector, with its default (BOUND-1). Each is tested at the limit and one beyond it.
//! This file only holds numbers; whoever enforces one names it.

use std::time::Duration;

/// Limits on the shape of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Levels of nested objects and arrays, counted over the whole body. Beyond it the body is refused.
    pub depth: usize,
    /// Keys in one object. Beyond it the body is refused.
    pub keys: usize,
    /// Bytes of one key, after unescaping. Beyond it the event is refused.
    pub key_bytes: usize,
    /// Bytes of one string (after unescaping) or number. Beyond it the event is refused.
    pub string_bytes: usize,
}

impl Default for JsonLimits {
    fn default() -> Self {
        Self {
            depth: 32,
            keys: 256,
            key_bytes: 128,
            string_bytes: 8 << 10,
        }
    }
}

/// Limits of the Segment tracking API, as Segment documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Bytes of one body, after decompression.
    pub body_bytes: usize,
    /// Events in one batch.
    pub batch_events: usize,
}

impl Default for SegmentLimits {
    fn default() -> Self {
        Self {
            body_bytes: 500 << 10,
            batch_events: 2500,
        }
    }
}

/// Limits on what a request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The shape of JSON.
    pub json: JsonLimits,
    /// Bytes of one event's JSON.
    pub event_bytes: usize,
    /// Events in one request of the canonical protocol.
    pub batch_events: usize,
    /// Bytes of a request body on the wire.
    pub wire_bytes: usize,
    /// Bytes of a request body after decompression.
    pub inflated_bytes: usize,
    /// Decompressed bytes per compressed byte. Bodies that inflate to less than 64 KiB are exempt.
    pub inflate_ratio: usize,
    /// Bytes of an event that a dead letter keeps; the rest is cut, and a cut letter cannot be retried.
    pub dead_letter_bytes: usize,
    /// Age, by the client's clock, beyond which keys without the history scope are refused.
    pub max_age: Duration,
    /// Whether an event that grants consent must carry its proof; see [`crate::consent`].
    pub consent_proof: bool,
    /// The Segment tracking API.
    pub segment: SegmentLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            json: JsonLimits::default(),
            event_bytes: 32 << 10,
            batch_events: 1000,
            wire_bytes: 1 << 20,
            inflated_bytes: 4 << 20,
            inflate_ratio: 100,
            dead_letter_bytes: 32 << 10,
            max_age: Duration::from_hours(400 * 24),
            consent_proof: false,
            segment: SegmentLimits::default(),
        }
    }
}

/// Limits of connections and of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportLimits {
    /// Open connections. Beyond it the connection that has been idle longest is closed for the new one; when none is
    /// idle, the new one is closed.
    pub connections: usize,
    /// Bytes of the request line.
    pub request_line_bytes: usize,
    /// Bytes of all header fields together.
    pub header_bytes: usize,
    /// Number of header fields.
    pub header_fields: usize,
    /// From the first byte of a request head (or from the connection's start) to its end.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// After `body_grace`, a body must have come at this rate on average.
    pub body_bytes_per_second: usize,
    /// For how long a body may come more slowly than that.
    pub body_grace: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// Without progress while an answer is being written.
    pub write_timeout: Duration,
    /// For requests in progress when the server is asked to stop.
    pub drain_timeout: Duration,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            request_line_bytes: 8 << 10,
            header_bytes: 16 << 10,
            header_fields: 64,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(15),
            body_bytes_per_second: 1 << 10,
            body_grace: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(20),
        }
    }
}
