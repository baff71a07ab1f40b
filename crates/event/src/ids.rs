//! Typed identifiers. An id is compared byte for byte (no case folding, no Unicode normalisation) and never
//! carries meaning beyond identity. This file never decides whether two ids belong to the same person: that is
//! the identity step of the enrichment crate.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;

/// Longest accepted identifier in bytes, for every kind of id that clients choose.
pub const MAX_ID_BYTES: usize = 200;

/// Why a client-chosen identifier was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing, or only white space.
    #[error("identifier is empty")]
    Empty,
    /// Longer than [`MAX_ID_BYTES`].
    #[error("identifier is longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// A control character (NUL included).
    #[error("identifier contains a control character")]
    Control,
}

fn checked(text: &str) -> Result<SmolStr, IdError> {
    if text.trim().is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(IdError::Control);
    }
    Ok(SmolStr::new(text))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks length (1 to [`MAX_ID_BYTES`] bytes) and characters (no control characters).
            pub fn new(text: &str) -> Result<Self, IdError> {
                checked(text).map(Self)
            }

            /// The identifier as the client wrote it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A workspace: one customer base, isolated from every other. It comes from the credential, never from a payload.
    Workspace
}
text_id! {
    /// The client's identifier of one event (`messageId`, `uuid`, `eid`…); the unit of deduplication within a workspace.
    EventId
}
text_id! {
    /// The name of a relance policy.
    PolicyId
}
text_id! {
    /// A company that customers belong to, by the name that the merchant's systems give it.
    AccountId
}

/// Who an event is about, as one identifier of one kind.
///
/// Known ids sort before anonymous ones, and the smallest id of a group of linked ids is the canonical one: so a
/// group that contains a known customer is always named by a known id, whatever the order in which links arrive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PersonId {
    /// An id that the merchant's own systems use for a customer.
    Known(SmolStr),
    /// A device or browser id that no customer has claimed yet.
    Anonymous(SmolStr),
}

impl PersonId {
    /// A checked known id.
    pub fn known(text: &str) -> Result<Self, IdError> {
        checked(text).map(Self::Known)
    }

    /// A checked anonymous id.
    pub fn anonymous(text: &str) -> Result<Self, IdError> {
        checked(text).map(Self::Anonymous)
    }

    /// The identifier without its kind.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(id) | Self::Anonymous(id) => id,
        }
    }

    /// `true` for an id of the merchant's own systems.
    #[must_use]
    pub fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }
}

impl fmt::Display for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(id) => f.write_str(id),
            Self::Anonymous(id) => write!(f, "anonymous:{id}"),
        }
    }
}

/// The key of one customer record: a person within a workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CustomerKey {
    /// The workspace that owns the record.
    pub workspace: Workspace,
    /// The identity that names the record.
    pub person: PersonId,
}

impl CustomerKey {
    /// Puts the two halves together.
    #[must_use]
    pub fn new(workspace: Workspace, person: PersonId) -> Self {
        Self { workspace, person }
    }
}

impl fmt::Display for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.workspace, self.person)
    }
}

/// The identity of a relance flag: a hash of what caused it, so that the same cause mints the same id in every
/// replay (FLAG-1). Written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlagId(pub [u8; 16]);

impl FlagId {
    /// Reads the 32 hexadecimal digits that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for FlagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FlagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_at_and_beyond_the_limit() {
        assert!(EventId::new(&"x".repeat(MAX_ID_BYTES)).is_ok());
        assert_eq!(EventId::new(&"x".repeat(MAX_ID_BYTES + 1)), Err(IdError::TooLong));
        assert_eq!(EventId::new("a\0b"), Err(IdError::Control));
        assert_eq!(EventId::new("  "), Err(IdError::Empty));
        assert!(EventId::new("🦊 }\u{e9}").is_ok());
    }

    #[test]
    fn a_group_with_a_known_customer_is_named_by_a_known_id() {
        let known = PersonId::known("zzz").unwrap();
        let anonymous = PersonId::anonymous("aaa").unwrap();
        assert!(known < anonymous);
    }

    #[test]
    fn flag_ids_read_back_what_they_print() {
        let id = FlagId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(FlagId::parse(&id.to_string()), Some(id));
        assert_eq!(FlagId::parse("0"), None);
        assert_eq!(FlagId::parse(&"é".repeat(16)), None);
    }
}
