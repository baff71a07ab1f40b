//! The `[[keys]]`: who may write, read or administer which workspace. It never stores a key and never prints one; what
//! a key may do on which route is decided where the route is.

use std::collections::BTreeMap;
use std::fmt;

use vigie_event::Workspace;

use super::errors::did_you_mean;
use super::layers::{Layers, Origin, RawField, RawKey, RawValues};

/// Most keys in one configuration.
pub(super) const MAX_KEYS: usize = 10_000;

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
    let raw = std::mem::take(&mut layers.keys);
    let mut keys: Vec<Key> = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let name = format!("keys[{index}]");
        let Some(origin) = raw.origin.clone() else {
            let last = format!("no field of keys[{index}] is given, but one of a later key");
            layers.error(Origin::Environment(format!("VIGIE__KEYS__{index}__…")), name, last);
            continue;
        };
        if let Some(key) = read_one(&name, origin, raw, layers) {
            if let Some(first) = seen.insert(key.secret.expose().to_owned(), index) {
                layers.error(key.origin.clone(), name, format!("the same key as keys[{first}]"));
            }
            keys.push(key);
        }
    }
    keys
}

fn read_one(name: &str, origin: Origin, mut raw: RawKey, layers: &mut Layers) -> Option<Key> {
    for (field, RawField { origin, .. }) in &raw.fields {
        if !FIELDS.contains(&field.as_str()) {
            let hint = did_you_mean(field, FIELDS);
            layers.error(
                origin.clone(),
                format!("{name}.{field}"),
                format!("no such field{hint}"),
            );
        }
    }
    let workspace = text(name, "workspace", &mut raw, &origin, layers).and_then(|(text, at)| {
        Workspace::new(&text)
            .map_err(|error| layers.error(at, format!("{name}.workspace"), error.to_string()))
            .ok()
    });
    let kind = text(name, "kind", &mut raw, &origin, layers).and_then(|(text, at)| {
        let kind = KeyKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        if kind.is_none() {
            layers.error(
                at,
                format!("{name}.kind"),
                format!("expected \"write\", \"read\" or \"admin\", found {text:?}"),
            );
        }
        kind
    });
    let secret = secret(name, &mut raw, &origin, layers);
    let scopes = list(name, "scopes", &mut raw, layers).and_then(|(texts, at)| {
        let scopes: Vec<Option<Scope>> = texts
            .iter()
            .map(|text| Scope::ALL.into_iter().find(|scope| scope.as_str() == text))
            .collect();
        if scopes.contains(&None) {
            layers.error(at, format!("{name}.scopes"), "the only scope is \"history\"");
            return None;
        }
        Some(scopes.into_iter().flatten().collect())
    });
    let origins = list(name, "origins", &mut raw, layers).and_then(|(texts, at)| {
        if let Some(bad) = texts.iter().find(|text| !is_origin(text)) {
            let message = format!("expected a web origin such as \"https://shop.example\" or \"*\", found {bad:?}");
            layers.error(at, format!("{name}.origins"), message);
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
        origin,
    })
}

fn secret(name: &str, raw: &mut RawKey, origin: &Origin, layers: &mut Layers) -> Option<Secret> {
    if raw.fields.contains_key("key") && raw.fields.contains_key("key-file") {
        layers.error(origin.clone(), name, "both key and key-file are given");
        return None;
    }
    let (text, at) = if raw.fields.contains_key("key-file") {
        let (path, at) = text(name, "key-file", raw, origin, layers)?;
        match std::fs::read_to_string(&path) {
            Ok(content) => (content.trim_end_matches(['\n', '\r']).to_owned(), at),
            Err(error) => {
                layers.error(
                    at,
                    format!("{name}.key-file"),
                    format!("{path:?} cannot be read: {error}"),
                );
                return None;
            }
        }
    } else {
        text(name, "key", raw, origin, layers)?
    };
    if !KEY_LENGTH.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let (min, max) = (KEY_LENGTH.start(), KEY_LENGTH.end());
        let message = format!("a key has {min} to {max} printable ASCII characters and no spaces; this one has not");
        layers.error(at, format!("{name}.key"), message);
        return None;
    }
    Some(Secret::new(text))
}

/// A field that must be there and be a string.
fn text(name: &str, field: &str, raw: &mut RawKey, origin: &Origin, layers: &mut Layers) -> Option<(String, Origin)> {
    let Some(RawField { values, origin: at }) = raw.fields.remove(field) else {
        let what = if field == "key" { "key or key-file" } else { field };
        layers.error(origin.clone(), name, format!("{what} is missing"));
        return None;
    };
    let found = match values {
        RawValues::One(text) => return Some((text, at)),
        RawValues::Many(_) => "array",
        RawValues::Other(found) => found,
    };
    layers.error(
        at,
        format!("{name}.{field}"),
        format!("expected a string, found {found}"),
    );
    None
}

/// A field that may be missing and is a list of strings.
fn list(name: &str, field: &str, raw: &mut RawKey, layers: &mut Layers) -> Option<(Vec<String>, Origin)> {
    let Some(RawField { values, origin: at }) = raw.fields.remove(field) else {
        return Some((Vec::new(), Origin::Default));
    };
    let found = match values {
        RawValues::Many(texts) => return Some((texts, at)),
        RawValues::One(_) => "string",
        RawValues::Other(found) => found,
    };
    layers.error(
        at,
        format!("{name}.{field}"),
        format!("expected an array of strings, found {found}"),
    );
    None
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
