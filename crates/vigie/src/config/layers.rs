//! The layers: reads the file, the environment and the flags into raw values by setting, each with its origin.
//! It never checks what a value means; it refuses what is no setting at all, with a suggestion.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::errors::{ConfigError, did_you_mean};
use super::settings::TABLE;
use super::types::{Raw, SettingType, Written, literal};
use super::{ConfigSources, Effective};

/// Prefix of the variables of the environment.
pub(super) const PREFIX: &str = "VIGIE__";

/// Largest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where a value came from. Layers compare in the order in which they override each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Compiled in.
    Default,
    /// A file.
    File {
        /// Its path as given.
        path: String,
        /// Line, counted from 1; 0 for the file as a whole.
        line: usize,
    },
    /// A variable of the environment, by name.
    Environment(String),
    /// A flag, by setting.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line: 0 } => f.write_str(path),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A raw value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// A list of tables, such as `[[keys]]`.
pub(super) struct ListInfo {
    pub(super) name: &'static str,
    /// Fields that are lists themselves: in the environment their values are separated by commas.
    lists: &'static [&'static str],
}

/// Every list of tables.
pub(super) const LISTS: &[ListInfo] = &[
    ListInfo {
        name: "keys",
        lists: &["scopes", "origins"],
    },
    ListInfo {
        name: "webhooks",
        lists: &["secrets", "secret-files", "public-keys", "topics", "signature-versions"],
    },
    ListInfo {
        name: "link-keys",
        lists: &[],
    },
    ListInfo {
        name: "kafka-sources",
        lists: &["topics", "fields", "signals"],
    },
];

/// Fields that say the same in two ways: a higher layer's way replaces the other one.
const EITHER: &[(&str, &str)] = &[
    ("key", "key-file"),
    ("secret", "secret-file"),
    ("secrets", "secret-files"),
    ("public-url", "public-url-file"),
];

fn list_info(name: &str) -> Option<&'static ListInfo> {
    LISTS.iter().find(|list| list.name == name)
}

/// One entry of `[[keys]]` or another list before it is checked: fields by name.
#[derive(Clone, Debug, Default)]
pub(super) struct RawEntry {
    pub(super) origin: Option<Origin>,
    pub(super) fields: BTreeMap<String, RawField>,
}

/// A field of an entry of a list.
#[derive(Clone, Debug)]
pub(super) struct RawField {
    pub(super) values: RawValues,
    pub(super) origin: Origin,
}

/// The value of such a field.
#[derive(Clone, Debug)]
pub(super) enum RawValues {
    One(String),
    Many(Vec<String>),
    /// A TOML value of another type, by the name of the type.
    Other(&'static str),
}

/// What the sources say, before types and ranges are checked.
#[derive(Default)]
pub(super) struct Layers {
    /// By section and key, lowest layer first.
    given: BTreeMap<(String, String), Vec<Given>>,
    pub(super) lists: BTreeMap<&'static str, Vec<RawEntry>>,
    effective: Vec<Effective>,
    errors: Vec<ConfigError>,
}

impl Layers {
    pub(super) fn read(sources: &ConfigSources) -> Layers {
        let mut layers = Layers::default();
        if let Some(path) = &sources.file {
            layers.read_file(path);
        }
        for (name, value) in &sources.environment {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                layers.read_variable(name, rest, value);
            }
        }
        for (name, value) in &sources.flags {
            layers.read_flag(name, value);
        }
        layers
    }

    pub(super) fn error(&mut self, origin: Origin, setting: impl Into<String>, message: impl Into<String>) {
        self.errors.push(ConfigError {
            origin,
            setting: setting.into(),
            message: message.into(),
        });
    }

    pub(super) fn finish(self) -> (Vec<Effective>, Vec<ConfigError>) {
        (self.effective, self.errors)
    }

    /// Where the value in force of a setting came from.
    pub(super) fn origin_of(&self, section: &str, key: &str) -> Origin {
        let found = self
            .effective
            .iter()
            .find(|setting| setting.section == section && setting.key == key);
        found.map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// The value in force of a setting; every layer is checked, overridden ones too. `None` when one is wrong.
    pub(super) fn value<T: SettingType>(&mut self, section: &str, key: &str) -> Option<T> {
        let (section, key) = (kebab(section), kebab(key));
        let setting = TABLE
            .iter()
            .find(|s| s.name() == section)?
            .settings
            .iter()
            .find(|s| s.name() == key)?;
        let default = Given {
            raw: Raw::Text(setting.default.to_owned()),
            origin: Origin::Default,
        };
        let given = self.given.remove(&(section.clone(), key.clone())).unwrap_or_default();
        let mut last = None;
        let mut wrong = false;
        for Given { raw, origin } in std::iter::once(default).chain(given) {
            match checked::<T>(&raw, &origin, setting.range) {
                Ok(value) => last = Some((value, origin)),
                Err(message) => {
                    wrong = true;
                    self.error(origin, format!("{section}.{key}"), message);
                }
            }
        }
        let (value, origin) = last?;
        self.effective.push(Effective {
            section,
            key,
            value: literal(&value),
            origin,
        });
        (!wrong).then_some(value)
    }

    fn read_file(&mut self, path: &std::path::Path) {
        let name = path.display().to_string();
        let whole = Origin::File {
            path: name.clone(),
            line: 0,
        };
        let text = match std::fs::metadata(path).map(|metadata| metadata.len()) {
            Ok(length) if length > MAX_FILE_BYTES => {
                return self.error(whole, "", format!("the file is longer than {MAX_FILE_BYTES} bytes"));
            }
            Ok(_) => match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) => return self.error(whole, "", format!("the file cannot be read: {error}")),
            },
            Err(error) => return self.error(whole, "", format!("the file cannot be read: {error}")),
        };
        let lines = Lines {
            path: &name,
            text: &text,
        };
        let (document, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let origin = error.span().map_or(whole.clone(), |span| lines.at(span));
            self.error(origin, "", error.message().to_owned());
        }
        if !errors.is_empty() {
            // What was recovered may be misplaced: its errors would be guesses.
            return;
        }
        for (section, value) in document.get_ref() {
            let (origin, section) = (lines.at(section.span()), section.get_ref().as_ref());
            match (value.get_ref(), list_info(section)) {
                (DeValue::Array(entries), Some(list)) => {
                    for entry in entries {
                        self.read_entry_table(list, entry, &lines);
                    }
                }
                (_, Some(list)) => {
                    let message = format!("expected [[{}]], with two pairs of brackets", list.name);
                    self.error(origin, list.name, message);
                }
                (DeValue::Table(table), _) => self.read_section(section, origin, table, &lines),
                (_, None) => {
                    let hint = home_of(section).map_or(String::new(), |home| format!("; it belongs into [{home}]"));
                    self.error(origin, section, format!("a setting outside of any section{hint}"));
                }
            }
        }
    }

    fn read_section(&mut self, section: &str, origin: Origin, table: &DeTable<'_>, lines: &Lines<'_>) {
        if !self.known_section(section, &origin) {
            return;
        }
        for (key, value) in table {
            let (origin, key) = (lines.at(key.span()), key.get_ref().as_ref());
            if self.known_key(section, key, &origin) {
                // The line of the key, not of the value: that is where a reader looks for it.
                self.give(
                    section,
                    key,
                    Given {
                        raw: raw(value.get_ref()),
                        origin,
                    },
                );
            }
        }
    }

    fn read_entry_table(&mut self, list: &'static ListInfo, entry: &toml::Spanned<DeValue<'_>>, lines: &Lines<'_>) {
        let origin = lines.at(entry.span());
        let DeValue::Table(table) = entry.get_ref() else {
            return self.error(
                origin,
                list.name,
                format!("expected a table, found {}", entry.get_ref().type_str()),
            );
        };
        let mut raw = RawEntry {
            origin: Some(origin),
            fields: BTreeMap::new(),
        };
        for (name, value) in table {
            let values = match value.get_ref() {
                DeValue::String(text) => RawValues::One(text.to_string()),
                DeValue::Array(items) => {
                    let texts: Option<Vec<String>> = items
                        .iter()
                        .map(|item| item.get_ref().as_str().map(str::to_owned))
                        .collect();
                    texts.map_or(RawValues::Other("array of other things than strings"), RawValues::Many)
                }
                other => RawValues::Other(other.type_str()),
            };
            let field = RawField {
                values,
                origin: lines.at(name.span()),
            };
            let _ = raw.fields.insert(name.get_ref().to_string(), field);
        }
        self.lists.entry(list.name).or_default().push(raw);
    }

    fn read_variable(&mut self, name: &str, rest: &str, value: &str) {
        let origin = Origin::Environment(name.to_owned());
        let parts: Vec<String> = rest.split("__").map(kebab).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [list, index, field] if list_info(list).is_some() => {
                if let Some(list) = list_info(list) {
                    self.read_entry_variable(list, origin, index, field, value);
                }
            }
            [section, key] => {
                if self.known_section(section, &origin) && self.known_key(section, key, &origin) {
                    self.give(
                        section,
                        key,
                        Given {
                            raw: Raw::Text(value.to_owned()),
                            origin,
                        },
                    );
                }
            }
            _ => self.error(
                origin,
                "",
                format!("expected {PREFIX}SECTION__KEY or {PREFIX}KEYS__0__FIELD"),
            ),
        }
    }

    /// `VIGIE__KEYS__0__WORKSPACE`: the first entry of `[[keys]]`, or a new one after the last.
    fn read_entry_variable(&mut self, list: &'static ListInfo, origin: Origin, index: &str, field: &str, value: &str) {
        let Ok(index) = index.parse::<usize>() else {
            return self.error(origin, list.name, format!("expected a number instead of {index:?}"));
        };
        if index >= super::entries::MAX_ENTRIES {
            let most = super::entries::MAX_ENTRIES;
            return self.error(origin, list.name, format!("at most {most} {}", list.name));
        }
        let values = if list.lists.contains(&field) {
            let parts = value.split(',').map(|part| part.trim().to_owned());
            RawValues::Many(parts.filter(|part| !part.is_empty()).collect())
        } else {
            RawValues::One(value.to_owned())
        };
        let entries = self.lists.entry(list.name).or_default();
        if entries.len() <= index {
            entries.resize(index + 1, RawEntry::default());
        }
        if let Some(entry) = entries.get_mut(index) {
            for (one, other) in EITHER {
                if field == *one {
                    let _ = entry.fields.remove(*other);
                } else if field == *other {
                    let _ = entry.fields.remove(*one);
                }
            }
            let _ = entry.origin.get_or_insert_with(|| origin.clone());
            let _ = entry.fields.insert(field.to_owned(), RawField { values, origin });
        }
    }

    fn read_flag(&mut self, name: &str, value: &str) {
        let origin = Origin::Flag(name.to_owned());
        match name.split_once('.') {
            Some((list, _)) if list_info(list).is_some() => {
                let message = format!("{list} cannot be given as flags, which everybody on the machine can read");
                self.error(origin, "", message);
            }
            Some((section, key)) => {
                if self.known_section(section, &origin) && self.known_key(section, key, &origin) {
                    self.give(
                        section,
                        key,
                        Given {
                            raw: Raw::Text(value.to_owned()),
                            origin,
                        },
                    );
                }
            }
            None => self.error(origin, "", "expected SECTION.KEY"),
        }
    }

    fn give(&mut self, section: &str, key: &str, given: Given) {
        self.given
            .entry((section.to_owned(), key.to_owned()))
            .or_default()
            .push(given);
    }

    fn known_section(&mut self, section: &str, origin: &Origin) -> bool {
        let known = TABLE.iter().any(|candidate| candidate.name() == section);
        if !known {
            let names: Vec<String> = TABLE
                .iter()
                .map(|candidate| candidate.name())
                .chain(LISTS.iter().map(|list| list.name.to_owned()))
                .collect();
            let hint = did_you_mean(section, names.iter().map(String::as_str));
            self.error(origin.clone(), section, format!("no such section{hint}"));
        }
        known
    }

    fn known_key(&mut self, section: &str, key: &str, origin: &Origin) -> bool {
        let names: Vec<String> = TABLE
            .iter()
            .filter(|candidate| candidate.name() == section)
            .flat_map(|candidate| candidate.settings.iter().map(|setting| setting.name()))
            .collect();
        let known = names.iter().any(|name| name == key);
        if !known {
            let mut hint = did_you_mean(key, names.iter().map(String::as_str));
            if let Some(home) = home_of(key) {
                hint = format!("; it belongs into [{home}]");
            }
            self.error(
                origin.clone(),
                format!("{section}.{key}"),
                format!("no such setting{hint}"),
            );
        }
        known
    }
}

/// The section that has a setting called `key`, when there is exactly one.
fn home_of(key: &str) -> Option<String> {
    let mut homes = TABLE
        .iter()
        .filter(|section| section.settings.iter().any(|setting| setting.name() == key));
    let home = homes.next()?;
    homes.next().is_none().then(|| home.name())
}

/// `LOG_OUTPUT` and `log_output` as `log-output`.
pub(super) fn kebab(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) if integer.radix() == 10 => Raw::Integer(integer.as_str().to_owned()),
        other => Raw::Other(other.type_str()),
    }
}

fn checked<T: SettingType>(raw: &Raw, origin: &Origin, range: Option<(&str, &str)>) -> Result<T, String> {
    let in_file = matches!(origin, Origin::File { .. });
    let text = match raw {
        Raw::Text(text) if !in_file || T::WRITTEN == Written::AsString => text,
        Raw::Integer(text) if T::WRITTEN == Written::AsInteger => text,
        Raw::Text(text) => return Err(format!("expected {}, found string {text:?}", T::EXPECTED)),
        Raw::Integer(text) => return Err(format!("expected {}, found integer {text}", T::EXPECTED)),
        Raw::Other(name) => return Err(format!("expected {}, found {name}", T::EXPECTED)),
    };
    let value = T::read(text).map_err(|why| {
        let why = if why.is_empty() { why } else { format!(" ({why})") };
        format!("expected {}, found {text:?}{why}", T::EXPECTED)
    })?;
    if let Some((min, max)) = range {
        let bound = |text| T::read(text).ok().and_then(|value| value.ordinal());
        let ordinal = value.ordinal();
        if ordinal < bound(min) || ordinal > bound(max) {
            return Err(format!("{} is not between {min} and {max}", value.write()));
        }
    }
    Ok(value)
}

/// Turns positions in a file into lines.
struct Lines<'a> {
    path: &'a str,
    text: &'a str,
}

impl Lines<'_> {
    fn at(&self, span: Range<usize>) -> Origin {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Origin::File {
            path: self.path.to_owned(),
            line,
        }
    }
}
