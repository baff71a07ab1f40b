//! Keys: which workspace a caller speaks for, and what it may do there.
//!
//! Only SHA-256 digests of keys are kept. A key is looked up by its digest, so the time of a look-up says nothing about
//! how much of a guess was right. The workspace always comes from here, never from a payload (WS-1). This file never
//! reads configuration and never decides what an endpoint requires.

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use vigie_event::Workspace;

/// What a key is for. A key of one kind never does the work of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// Sends events. May be public (browsers), so it never reads anything.
    Write,
    /// Reads scores and flags.
    Read,
    /// Reads and administers: dead letters, corrections.
    Admin,
}

/// What a key may do beyond its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Send events older than the age limit of live traffic.
    History,
}

/// A key in clear text, on its way from the configuration into a [`KeyRing`]. Never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps the clear text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The clear text, for whoever verifies with it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One key as configured.
#[derive(Debug)]
pub struct KeySpec {
    /// Whose data it opens.
    pub workspace: Workspace,
    /// What for.
    pub kind: KeyKind,
    /// The key itself.
    pub secret: Secret,
    /// What else it may do.
    pub scopes: BTreeSet<Scope>,
    /// Web origins (`https://shop.example`) whose pages may use it; `*` for any. Without one it is a server's key and
    /// is refused from browsers.
    pub origins: Vec<String>,
}

/// What a valid key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose data it opens.
    pub workspace: Workspace,
    /// What for.
    pub kind: KeyKind,
    /// What else it may do.
    pub scopes: BTreeSet<Scope>,
    /// Web origins whose pages may use it.
    pub origins: BTreeSet<String>,
    /// Tells keys apart where each has a budget of its own. Not the key.
    pub(crate) digest: [u8; 32],
}

impl Credential {
    /// `true` when the key grants this scope.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// `true` when a page of this origin may use the key.
    #[must_use]
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.origins.contains("*") || self.origins.contains(origin)
    }
}

/// Why a list of keys is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The same key twice, so that it is not certain what it opens.
    #[error("keys {first} and {second} of the list are the same")]
    Repeated {
        /// Index in the list.
        first: usize,
        /// Index in the list.
        second: usize,
    },
    /// Too short, too long, or not printable ASCII.
    #[error(
        "key {index} of the list must have {} to {} printable ASCII characters and no colon",
        MIN_BYTES,
        MAX_BYTES
    )]
    Form {
        /// Index in the list.
        index: usize,
    },
}

/// Shortest key.
const MIN_BYTES: usize = 8;
/// Longest key.
const MAX_BYTES: usize = 200;

/// All keys of an installation. Immutable: a change makes a new ring.
#[derive(Debug, Default)]
pub struct KeyRing {
    by_digest: BTreeMap<[u8; 32], (usize, Arc<Credential>)>,
    origins: BTreeSet<String>,
}

impl KeyRing {
    /// Hashes the keys and forgets their clear text.
    pub fn new(keys: impl IntoIterator<Item = KeySpec>) -> Result<Self, KeyError> {
        let mut ring = Self::default();
        for (index, key) in keys.into_iter().enumerate() {
            let secret = key.secret.0.as_bytes();
            let printable = secret.iter().all(|byte| byte.is_ascii_graphic() && *byte != b':');
            if !printable || !(MIN_BYTES..=MAX_BYTES).contains(&secret.len()) {
                return Err(KeyError::Form { index });
            }
            let origins: BTreeSet<String> = key.origins.into_iter().collect();
            ring.origins.extend(origins.iter().cloned());
            let credential = Credential {
                workspace: key.workspace,
                kind: key.kind,
                scopes: key.scopes,
                origins,
                digest: digest(secret),
            };
            if let Some((first, _)) = ring.by_digest.insert(credential.digest, (index, Arc::new(credential))) {
                return Err(KeyError::Repeated { first, second: index });
            }
        }
        Ok(ring)
    }

    /// What the presented key stands for.
    #[must_use]
    pub fn find(&self, presented: &str) -> Option<Arc<Credential>> {
        // Hashed even when too long to be a key: every wrong key costs the same.
        let digest = digest(presented.as_bytes());
        let (stored, (_, credential)) = self.by_digest.get_key_value(&digest)?;
        bool::from(stored.ct_eq(&digest)).then(|| Arc::clone(credential))
    }

    /// `true` when pages of this origin may use some key: what a preflight, which carries no key, is answered by.
    #[must_use]
    pub fn knows_origin(&self, origin: &str) -> bool {
        self.origins.contains("*") || self.origins.contains(origin)
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_digest.len()
    }

    /// `true` when nobody may do anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_digest.is_empty()
    }
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The ring in force. A reload that fails keeps the last good ring: a wrong 401 makes clients drop events for good.
#[derive(Debug)]
pub struct Keys(ArcSwap<KeyRing>);

impl Keys {
    /// Starts with a ring.
    #[must_use]
    pub fn new(ring: KeyRing) -> Self {
        Self(ArcSwap::from_pointee(ring))
    }

    /// The ring in force.
    #[must_use]
    pub fn current(&self) -> Arc<KeyRing> {
        self.0.load_full()
    }

    /// Puts another ring in force for every request that starts from now on.
    pub fn replace(&self, ring: KeyRing) {
        self.0.store(Arc::new(ring));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(secret: &str, origins: &[&str]) -> KeySpec {
        KeySpec {
            workspace: Workspace::new("shop").unwrap(),
            kind: KeyKind::Write,
            secret: Secret::new(secret.to_owned()),
            scopes: BTreeSet::new(),
            origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
        }
    }

    #[test]
    fn a_key_is_found_by_its_text_and_nothing_else() {
        let ring = KeyRing::new([spec("write-key-1", &[]), spec("write-key-2", &["https://a.example"])]).unwrap();
        assert!(ring.find("write-key-1").is_some());
        for wrong in ["", "write-key-", "write-key-11", "WRITE-KEY-1"] {
            assert_eq!(ring.find(wrong), None, "{wrong}");
        }
        assert!(ring.knows_origin("https://a.example"));
        assert!(!ring.knows_origin("https://b.example"));
        let keys = Keys::new(ring);
        keys.replace(KeyRing::default());
        assert_eq!(keys.current().find("write-key-1"), None);
    }

    #[test]
    fn bad_lists_are_refused() {
        assert_eq!(
            KeyRing::new([spec("write-key-1", &[]), spec("write-key-1", &[])]).unwrap_err(),
            KeyError::Repeated { first: 0, second: 1 }
        );
        for bad in ["", "short", "with space", "with:colon", "ключ-ключ"] {
            assert_eq!(
                KeyRing::new([spec(bad, &[])]).unwrap_err(),
                KeyError::Form { index: 0 },
                "{bad}"
            );
        }
    }

    #[test]
    fn secrets_and_rings_print_no_secret() {
        let spec = spec("write-key-1", &[]);
        assert!(!format!("{spec:?}").contains("write-key-1"));
        assert!(!format!("{:?}", KeyRing::new([spec]).unwrap()).contains("write-key-1"));
    }
}
