//! Protocols: from the bytes of a body to events, or to the reason why one cannot be taken. One file per protocol.
//!
//! A protocol never authenticates, never waits and never writes. A fault of one event becomes a [`Letter`] and leaves
//! its neighbours alone; a fault of the body as a whole is a [`BodyFault`].

pub mod canonical;
pub mod cloudevents;
pub(crate) mod draft;
pub mod email;
pub mod matomo;
pub mod posthog;
pub mod rudderstack;
pub mod segment;
pub mod snowplow;

pub use draft::{Piece, email_id};

use crate::dead_letters::{Letter, Step};
use crate::intake::Taken;
use crate::limits::Limits;
use smol_str::SmolStr;
use vigie_event::json::{Invalid, Receipt};
use vigie_event::{Event, RejectCode, Source};

/// Why a body as a whole cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// No bytes.
    Empty,
    /// Not UTF-8, not JSON, or beyond a limit that concerns the whole body.
    Json(RejectCode),
    /// JSON that is neither an event nor a batch.
    Shape,
    /// A batch without events.
    BatchEmpty,
    /// A batch with more events than the limit.
    BatchTooLarge,
    /// Larger than the protocol allows.
    BodyTooLarge,
}

impl BodyFault {
    /// The stable text used in answers and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Json(code) => code.label(),
            Self::Shape => RejectCode::Shape.label(),
            Self::BatchEmpty | Self::BatchTooLarge => "batch_size",
            Self::BodyTooLarge => "body_too_large",
        }
    }

    /// What it means, in one sentence.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Empty => "the body is empty",
            Self::Json(code) => code.hint(),
            Self::Shape => "the body must be one event or a batch of events",
            Self::BatchEmpty => "the batch holds no event",
            Self::BatchTooLarge => "the batch holds more events than the limit; send it in parts",
            Self::BodyTooLarge => "the body is larger than the limit; send it in parts",
        }
    }

    /// The reason under which the body is kept as a dead letter: only what looks like a client's mistake worth seeing,
    /// never what is merely large.
    #[must_use]
    pub const fn kept_as(self) -> Option<RejectCode> {
        match self {
            Self::Json(
                code @ (RejectCode::Json | RejectCode::Utf8 | RejectCode::DuplicateKey | RejectCode::Surrogate),
            ) => Some(code),
            _ => None,
        }
    }
}

/// The text of a body: not empty, UTF-8, without a byte order mark.
fn text(body: &[u8]) -> Result<&str, BodyFault> {
    if body.is_empty() {
        return Err(BodyFault::Empty);
    }
    let text = std::str::from_utf8(body).map_err(|_| BodyFault::Json(RejectCode::Utf8))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// What letters of one request have in common.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Workspace and times.
    pub receipt: &'a Receipt,
    /// The protocol.
    pub source: Source,
    /// The message type that the path gave, else empty.
    pub kind: &'static str,
    /// JSON around the batch that holds for each of its events, else empty.
    pub context: &'a str,
}

/// Of an event that is refused for its size, so much is kept.
const LARGE_KEPT: usize = 4 << 10;
/// The context of a batch is kept with each of its letters up to this size; beyond it, the letter counts as cut.
const CONTEXT_KEPT: usize = 8 << 10;

impl Origin<'_> {
    /// A letter of the event with index `ordinal` in the request.
    #[must_use]
    pub fn letter(&self, invalid: &Invalid, ordinal: usize, raw: &[u8], limits: &Limits) -> Box<Letter> {
        let max = match invalid.code {
            RejectCode::EventTooLarge => LARGE_KEPT.min(limits.dead_letter_bytes),
            _ => limits.dead_letter_bytes,
        };
        let kept = raw.get(..max).unwrap_or(raw);
        let context = Some(self.context).filter(|context| context.len() <= CONTEXT_KEPT);
        Box::new(Letter {
            workspace: self.receipt.workspace.clone(),
            code: invalid.code,
            field: SmolStr::new_static(invalid.field),
            step: Step::Decode,
            source: self.source,
            kind: SmolStr::new_static(self.kind),
            received_at: self.receipt.received_at,
            sent_at: self.receipt.sent_at,
            user_agent: self.receipt.user_agent.clone(),
            context: context.unwrap_or_default().into(),
            ordinal: ordinal as u64,
            accepted: true,
            cut: kept.len() < raw.len() || context.is_none(),
            raw: kept.to_vec(),
        })
    }
}

/// Reads the event of a letter again, as its protocol would today. The age limit of live traffic does not apply: that
/// somebody feeds it again is a decision to take it.
pub fn read_again(letter: &Letter, limits: &Limits) -> Result<Event, Invalid> {
    let whole = |code| Invalid::new(code, "event");
    if letter.cut {
        return Err(whole(RejectCode::EventTooLarge));
    }
    let receipt = Receipt {
        workspace: letter.workspace.clone(),
        received_at: letter.received_at,
        sent_at: letter.sent_at,
        user_agent: letter.user_agent.clone(),
        oldest: None,
    };
    let text = std::str::from_utf8(&letter.raw).map_err(|_| whole(RejectCode::Utf8))?;
    let layout = crate::strict::Layout { key: None, bare: false };
    let document = crate::strict::scan(text, layout, 0, &limits.json).map_err(whole)?;
    if let Some(code) = document.fault {
        return Err(whole(code));
    }
    match letter.source {
        Source::Segment | Source::RudderStack => {
            let context = match &*letter.context {
                "" => None,
                context => Some(serde_json::from_str(context).map_err(|_| whole(RejectCode::Undecodable))?),
            };
            let event = segment::read_one(text, segment::Kind::parse(&letter.kind), context, &receipt)?;
            Ok(Event {
                source: letter.source,
                ..event
            })
        }
        Source::Canonical | Source::Import | Source::Simulator | Source::Tracker | Source::Links => {
            canonical::read_one(text, &receipt)
        }
        foreign => read_foreign(foreign, text, &receipt),
    }
}

/// A body as the routes of its protocol read it, once it is known whose it is: every event, or why it cannot be one. What
/// fuzzing calls; a webhook's body is taken to be verified.
pub fn decode(source: Source, body: &[u8], receipt: &Receipt, limits: &Limits) -> Result<Vec<Taken>, BodyFault> {
    let pieces = match source {
        Source::Canonical | Source::Import | Source::Simulator | Source::Links | Source::Tracker => {
            return canonical::read_body(body, receipt, limits).map(|reading| match reading {
                canonical::Reading::Single(taken) => vec![*taken],
                canonical::Reading::Batch(batch) => batch,
            });
        }
        Source::Segment | Source::RudderStack => {
            let parsed = segment::parse(body, segment::Call::Batch, limits)?;
            return parsed.read(source, receipt, limits);
        }
        Source::Snowplow => snowplow::pieces(body, limits),
        Source::PostHog => {
            let json = posthog::unwrap(body, limits)?;
            posthog::read_body(&json, limits).map(|capture| capture.pieces)
        }
        Source::CloudEvents => cloudevents::pieces(cloudevents::Mode::Batched, &http::HeaderMap::new(), body, limits),
        Source::Matomo => matomo::read_bulk(body, limits).map(|bulk| bulk.pieces),
        mail => email::pieces(mail, body, "envelope", limits),
    }?;
    let pieces = pieces.iter().enumerate();
    Ok(pieces
        .map(|(ordinal, piece)| piece.take(ordinal, source, receipt, limits))
        .collect())
}

/// Reads one event of a protocol whose pieces are [`Piece`]s.
fn read_foreign(source: Source, text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
    match source {
        Source::Snowplow => snowplow::read_one(text, receipt),
        Source::PostHog => posthog::read_one(text, receipt),
        Source::CloudEvents => cloudevents::read_one(text, receipt),
        Source::Matomo => matomo::read_one(text, receipt),
        mail => email::read_one(mail, text, receipt),
    }
}

/// An address without user and password.
fn without_userinfo(url: &str) -> SmolStr {
    if let Some((scheme, rest)) = url.split_once("://") {
        let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if let Some((authority, path)) = rest.split_at_checked(authority)
            && let Some((_, host)) = authority.rsplit_once('@')
        {
            return SmolStr::new(format!("{scheme}://{host}{path}"));
        }
    }
    SmolStr::new(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_user_and_password_and_nothing_else() {
        for (url, expected) in [
            ("https://u:p@shop.example/a?b=c@d", "https://shop.example/a?b=c@d"),
            ("https://shop.example/@me", "https://shop.example/@me"),
            ("https://u@p@shop.example", "https://shop.example"),
            ("not an address @", "not an address @"),
        ] {
            assert_eq!(without_userinfo(url), expected);
        }
    }
}
