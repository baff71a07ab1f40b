//! Limits and cursors of lists. A cursor is opaque to clients: base64url of a list's name and the place after which it
//! goes on. It carries no workspace: that comes from the key, so a cursor opens nothing that the key does not.

use crate::problem::{Code, Problem};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use vigie_event::{AccountId, CustomerKey, PersonId, Workspace};
use vigie_store::RankCursor;

/// Rows of a page that names no limit.
pub(crate) const DEFAULT_LIMIT: usize = 100;
/// Most rows of a page.
pub(crate) const MAX_LIMIT: usize = 1_000;

/// Reads the `limit` parameter: absent, or a whole number from 1 to [`MAX_LIMIT`].
pub(crate) fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| Problem::new(Code::BadLimit, format!("limit is a whole number from 1 to {MAX_LIMIT}")))
}

/// A place in one of the lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// Of customers by risk: after this rank and person.
    Risk(u16, PersonId),
    /// Of customers by id: after this person.
    Id(PersonId),
    /// Of relances: after this number.
    Relance(u64),
    /// Of companies: after this one.
    Account(AccountId),
}

impl Cursor {
    pub(crate) fn encode(&self) -> String {
        let text = match self {
            Self::Risk(rank, person) => format!("r{rank}:{}", tagged(person)),
            Self::Id(person) => format!("i{}", tagged(person)),
            Self::Relance(after) => format!("f{after}"),
            Self::Account(after) => format!("c{after}"),
        };
        URL_SAFE_NO_PAD.encode(text)
    }

    pub(crate) fn decode(text: &str) -> Result<Self, Problem> {
        let read = || {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let rest = text.get(1..)?;
            match text.chars().next()? {
                'r' => {
                    let (rank, person) = rest.split_once(':')?;
                    Some(Self::Risk(rank.parse().ok()?, untagged(person)?))
                }
                'i' => Some(Self::Id(untagged(rest)?)),
                'f' => Some(Self::Relance(rest.parse().ok()?)),
                'c' => AccountId::new(rest).ok().map(Self::Account),
                _ => None,
            }
        };
        read().ok_or_else(Self::refused)
    }

    pub(crate) fn refused() -> Problem {
        Problem::new(
            Code::BadCursor,
            "use next_cursor of the previous page of the same list, or none to begin",
        )
    }

    /// As the store's place in the list by risk.
    pub(crate) fn risk(self, workspace: &Workspace) -> Result<RankCursor, Problem> {
        match self {
            Self::Risk(rank, person) => Ok(RankCursor {
                rank,
                key: CustomerKey::new(workspace.clone(), person),
            }),
            Self::Id(_) | Self::Relance(_) | Self::Account(_) => Err(Self::refused()),
        }
    }

    /// As the store's place in the list by id.
    pub(crate) fn id(self, workspace: &Workspace) -> Result<CustomerKey, Problem> {
        match self {
            Self::Id(person) => Ok(CustomerKey::new(workspace.clone(), person)),
            Self::Risk(..) | Self::Relance(_) | Self::Account(_) => Err(Self::refused()),
        }
    }

    /// As the store's place in the list of relances.
    pub(crate) fn relance(self) -> Result<u64, Problem> {
        match self {
            Self::Relance(after) => Ok(after),
            Self::Risk(..) | Self::Id(_) | Self::Account(_) => Err(Self::refused()),
        }
    }

    /// As a place in the list of companies.
    pub(crate) fn account(self) -> Result<AccountId, Problem> {
        match self {
            Self::Account(after) => Ok(after),
            Self::Risk(..) | Self::Id(_) | Self::Relance(_) => Err(Self::refused()),
        }
    }
}

fn tagged(person: &PersonId) -> String {
    let kind = if person.is_known() { 'k' } else { 'a' };
    format!("{kind}{}", person.as_str())
}

fn untagged(text: &str) -> Option<PersonId> {
    let id = text.get(1..)?;
    match text.chars().next()? {
        'k' => PersonId::known(id).ok(),
        'a' => PersonId::anonymous(id).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back() {
        for person in [PersonId::known("a:b").unwrap(), PersonId::anonymous("é 🦊").unwrap()] {
            for cursor in [
                Cursor::Risk(65_535, person.clone()),
                Cursor::Id(person.clone()),
                Cursor::Relance(7),
                Cursor::Account(AccountId::new("a c").unwrap()),
            ] {
                assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
            }
        }
        for text in ["", "!", "cg", "cjE", "aQ", "aXg", "Zi0x", "w6k"] {
            assert!(Cursor::decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(limit(None).unwrap(), DEFAULT_LIMIT);
        assert_eq!(limit(Some("1000")).unwrap(), 1_000);
        for text in ["0", "-1", "1001", "1000000000", "abc", "", " 5", "1.0"] {
            assert!(limit(Some(text)).is_err(), "{text}");
        }
    }
}
