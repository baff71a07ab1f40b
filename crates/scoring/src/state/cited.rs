//! The newest event of each kind that a reason may quote, by its id: what a sentence points to.
//!
//! Of one kind the latest event counts, of several at one instant the one whose id is the greatest text; so the choice does
//! not depend on the order of arrival. Bound: one id for each of [`Cited::ALL`]. Ids that are UUIDs, as most are, take 16
//! bytes. It never weighs anything and never tells a sentence.

use super::Observation;
use crate::churn::{is_mail, is_site};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cmp::Ordering;
use vigie_event::{EventId, Signal};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal;)*) => {
        /// Kinds of events that reasons quote. A kind's code is persisted and never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u8", into = "u8")]
        pub enum Cited { $($(#[$doc])* $variant,)* }

        impl Cited {
            /// Every kind, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code used in persisted bytes.
            #[must_use]
            pub const fn code(self) -> u8 { match self { $(Self::$variant => $code,)* } }
        }
    };
}

kinds! {
    /// An order.
    Purchase = 0;
    /// An act of the customer on the site or in the application that is none of the others.
    Visit = 1;
    /// An opened or clicked e-mail.
    Mail = 2;
    /// Any other act of the customer: a call, a visit to a store, a coupon…
    Act = 3;
    /// A complaint that was made or taken up again.
    Complaint = 4;
    /// What a complaint was answered with, or the customer's word that they are satisfied again.
    Answer = 5;
    /// A payment that failed or was disputed.
    Payment = 6;
    /// A contact that the merchant made.
    Contact = 7;
}

impl TryFrom<u8> for Cited {
    type Error = &'static str;
    fn try_from(code: u8) -> Result<Self, Self::Error> {
        Self::ALL.get(usize::from(code)).copied().ok_or("unknown kind of event")
    }
}

impl From<Cited> for u8 {
    fn from(kind: Cited) -> Self {
        kind.code()
    }
}

impl Cited {
    /// What an event may be quoted as; `None` for what no reason speaks of, and for a machine's engagement.
    #[must_use]
    pub fn of(observation: &Observation) -> Option<Self> {
        let Observation {
            signal, money, human, ..
        } = *observation;
        if signal.is_purchase() {
            // What comes with a negative amount is a refund under another name.
            return money.is_none_or(|money| money.minor >= 0).then_some(Self::Purchase);
        }
        match signal {
            _ if signal.is_engagement() && !human => None,
            Signal::ComplaintOpened | Signal::ComplaintReopened => Some(Self::Complaint),
            Signal::ComplaintResolved | Signal::ComplaintClosed | Signal::ComplaintResatisfied => Some(Self::Answer),
            Signal::PaymentFailed | Signal::PaymentDisputed => Some(Self::Payment),
            Signal::ContactSent | Signal::CallOutbound | Signal::EmailSent | Signal::RelanceContacted => {
                Some(Self::Contact)
            }
            _ if is_mail(signal) => Some(Self::Mail),
            _ if signal.is_engagement() && is_site(signal) => Some(Self::Visit),
            _ => signal.is_engagement().then_some(Self::Act),
        }
    }
}

/// An event id as the record keeps it: one that is written as a UUID usually is (lower-case, with hyphens) as its 16 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CompactId {
    Uuid([u8; 16]),
    Text(EventId),
}

impl CompactId {
    pub(crate) fn of(id: &EventId) -> Self {
        uuid(id.as_str()).map_or_else(|| Self::Text(id.clone()), Self::Uuid)
    }

    /// The id as it was sent.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Uuid(bytes) => Cow::Owned(hyphenated(bytes)),
            Self::Text(id) => Cow::Borrowed(id.as_str()),
        }
    }

    /// `false` for what [`Self::of`] would have written in another way.
    pub(crate) fn is_canonical(&self) -> bool {
        match self {
            Self::Uuid(_) => true,
            Self::Text(id) => uuid(id.as_str()).is_none(),
        }
    }
}

impl Ord for CompactId {
    /// The order of the texts.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            _ => self.text().cmp(&other.text()),
        }
    }
}

impl PartialOrd for CompactId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Places of the hyphens in a UUID.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The bytes of a lower-case UUID with hyphens.
fn uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let mut bytes = [0u8; 16];
    let mut digits = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        if HYPHENS.contains(&at) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        let of = bytes.get_mut(digits / 2)?;
        *of = *of << 4 | digit;
        digits += 1;
    }
    Some(bytes)
}

fn hyphenated(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for byte in bytes {
        if HYPHENS.contains(&text.len()) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_as_they_were_sent() {
        for text in [
            "6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f5b11",
            "00000000-0000-0000-0000-000000000000",
            "6F1C1F0E-9F53-4C0E-8A38-0D0A4E6F5B11",
            "6f1c1f0e09f53-4c0e-8a38-0d0a4e6f5b11",
            "6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f5b1é",
            "order-4711",
        ] {
            let Ok(id) = EventId::new(text) else { continue };
            let compact = CompactId::of(&id);
            assert_eq!(compact.text(), text);
            assert!(compact.is_canonical());
        }
        assert!(matches!(
            CompactId::of(&EventId::new("6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f5b11").unwrap()),
            CompactId::Uuid(_)
        ));
    }

    #[test]
    fn the_order_is_that_of_the_texts() {
        let texts = [
            "0",
            "6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f5b11",
            "6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f5b12",
            "6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f5b12x",
            "z",
        ];
        let compact: Vec<CompactId> = texts.iter().map(|t| CompactId::of(&EventId::new(t).unwrap())).collect();
        assert!(compact.is_sorted_by(|a, b| a < b));
    }
}
