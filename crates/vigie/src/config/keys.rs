//! The `[[keys]]`: who may write, read or administer which workspace. It never stores a key and never prints one; what
//! a key may do on which route is decided where the route is.

use std::collections::BTreeMap;
use std::fmt;

use vigie_event::Workspace;

use super::entries::Entry;
use super::layers::{Layers, Origin};

/// Shortest and longest key, in characters.
const KEY_LENGTH: std::ops::RangeInclusive<usize> = 16..=256;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The workspace that it opens.
    pub workspace: Workspace,
    /// What it opens there.
    pub kind: KeyKind,
    /// The key itself.
    pub secret: Secret,
    /// What it may do beyond its kind.
    pub scopes: Vec<Scope>,
    /// Web origins that may use it from a browser; `*` for all. Empty: none.
    pub origins: Vec<String>,
    /// Where it stands.
    pub origin: Origin,
}

impl Key {
    /// Whether it has `scope`.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Sending events, and nothing else. It may be public.
    Write,
    /// Reading scores and flags, and reporting outcomes.
    Read,
    /// Administration.
    Admin,
}

impl KeyKind {
    const ALL: [KeyKind; 3] = [KeyKind::Write, KeyKind::Read, KeyKind::Admin];

    /// As written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyKind::Write => "write",
            KeyKind::Read => "read",
            KeyKind::Admin => "admin",
        }
    }
}

/// What a key may do beyond its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Send events with times of their own, older than the rest: imports and backfills.
    History,
}

impl Scope {
    const ALL: [Scope; 1] = [Scope::History];

    /// As written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::History => "history",
        }
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    #[must_use]
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text. Compare it in constant time.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

const FIELDS: [&str; 6] = ["workspace", "kind", "key", "key-file", "scopes", "origins"];

/// Checks the keys; what is wrong goes to the errors of `layers`.
pub(super) fn read(layers: &mut Layers) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (index, mut entry) in Entry::all("keys", layers) {
        if let Some(key) = read_one(&mut entry, layers) {
            if let Some(first) = seen.insert(key.secret.expose().to_owned(), index) {
                layers.error(key.origin.clone(), entry.name, format!("the same key as keys[{first}]"));
            }
            keys.push(key);
        }
    }
    keys
}

fn read_one(entry: &mut Entry, layers: &mut Layers) -> Option<Key> {
    entry.check_fields(&FIELDS, layers);
    let workspace = entry.workspace(layers);
    let kind = entry.text("kind", layers).and_then(|(text, at)| {
        let kind = KeyKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        if kind.is_none() {
            let message = format!("expected \"write\", \"read\" or \"admin\", found {text:?}");
            layers.error(at, entry.field("kind"), message);
        }
        kind
    });
    let secret = entry.text_or_file("key", layers).and_then(|(text, at)| {
        if KEY_LENGTH.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some(Secret::new(text));
        }
        let (min, max) = (KEY_LENGTH.start(), KEY_LENGTH.end());
        let message = format!("a key has {min} to {max} printable ASCII characters and no spaces; this one has not");
        layers.error(at, entry.field("key"), message);
        None
    });
    let scopes = entry.list("scopes", layers).and_then(|(texts, at)| {
        let scopes: Vec<Option<Scope>> = texts
            .iter()
            .map(|text| Scope::ALL.into_iter().find(|scope| scope.as_str() == text))
            .collect();
        if scopes.contains(&None) {
            layers.error(at, entry.field("scopes"), "the only scope is \"history\"");
            return None;
        }
        Some(scopes.into_iter().flatten().collect())
    });
    let origins = entry.list("origins", layers).and_then(|(texts, at)| {
        if let Some(bad) = texts.iter().find(|text| !is_origin(text)) {
            let message = format!("expected a web origin such as \"https://shop.example\" or \"*\", found {bad:?}");
            layers.error(at, entry.field("origins"), message);
            return None;
        }
        Some(texts)
    });
    Some(Key {
        workspace: workspace?,
        kind: kind?,
        secret: secret?,
        scopes: scopes?,
        origins: origins?,
        origin: entry.origin.clone(),
    })
}

/// `*`, or scheme and authority exactly as a browser sends them: no path, no trailing slash.
fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |authority: &str| {
        !authority.is_empty()
            && authority
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b))
    };
    text == "*" || authority.is_some_and(plain)
}
