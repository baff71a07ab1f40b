//! One entry of a list of tables (`[[keys]]`, `[[webhooks]]`, `[[link-keys]]`): its fields by type, with every error at its
//! place. It never knows what an entry means, and never repeats a secret.

use std::collections::BTreeMap;

use vigie_event::Workspace;

use super::errors::did_you_mean;
use super::layers::{Layers, Origin, RawField, RawValues};

/// Most entries of one list.
pub(super) const MAX_ENTRIES: usize = 10_000;

/// An entry whose fields are taken out one by one.
pub(super) struct Entry {
    /// Such as `keys[0]`.
    pub(super) name: String,
    /// Where it stands.
    pub(super) origin: Origin,
    fields: BTreeMap<String, RawField>,
}

impl Entry {
    /// The entries of a list with their indexes.
    pub(super) fn all(list: &str, layers: &mut Layers) -> Vec<(usize, Entry)> {
        let raw = layers.lists.remove(list).unwrap_or_default();
        let mut entries = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let name = format!("{list}[{index}]");
            let Some(origin) = raw.origin else {
                let variable = list.to_ascii_uppercase().replace('-', "_");
                let message = format!("no field of {name} is given, but one of a later entry");
                layers.error(
                    Origin::Environment(format!("VIGIE__{variable}__{index}__…")),
                    name,
                    message,
                );
                continue;
            };
            let fields = raw.fields;
            entries.push((index, Entry { name, origin, fields }));
        }
        entries
    }

    /// The name of a field in messages.
    pub(super) fn field(&self, field: &str) -> String {
        format!("{}.{field}", self.name)
    }

    /// Whether a field is given.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// Refuses fields that do not exist. Called first.
    pub(super) fn check_fields(&self, known: &[&str], layers: &mut Layers) {
        for (field, RawField { origin, .. }) in &self.fields {
            if !known.contains(&field.as_str()) {
                let hint = did_you_mean(field, known.iter().copied());
                layers.error(origin.clone(), self.field(field), format!("no such field{hint}"));
            }
        }
    }

    /// A field that must be there and be a string.
    pub(super) fn text(&mut self, field: &str, layers: &mut Layers) -> Option<(String, Origin)> {
        let Some(RawField { values, origin }) = self.fields.remove(field) else {
            layers.error(self.origin.clone(), self.name.clone(), format!("{field} is missing"));
            return None;
        };
        let found = match values {
            RawValues::One(text) => return Some((text, origin)),
            RawValues::Many(_) => "array",
            RawValues::Other(found) => found,
        };
        layers.error(origin, self.field(field), format!("expected a string, found {found}"));
        None
    }

    /// A field that may be missing and is a list of strings.
    pub(super) fn list(&mut self, field: &str, layers: &mut Layers) -> Option<(Vec<String>, Origin)> {
        let Some(RawField { values, origin }) = self.fields.remove(field) else {
            return Some((Vec::new(), self.origin.clone()));
        };
        let found = match values {
            RawValues::Many(texts) => return Some((texts, origin)),
            RawValues::One(_) => "string",
            RawValues::Other(found) => found,
        };
        let message = format!("expected an array of strings, found {found}");
        layers.error(origin, self.field(field), message);
        None
    }

    /// The workspace.
    pub(super) fn workspace(&mut self, layers: &mut Layers) -> Option<Workspace> {
        let (text, at) = self.text("workspace", layers)?;
        let workspace = Workspace::new(&text);
        workspace
            .map_err(|error| layers.error(at, self.field("workspace"), error.to_string()))
            .ok()
    }

    /// A text that is given as `field`, or is in the file that `field-file` names.
    pub(super) fn text_or_file(&mut self, field: &str, layers: &mut Layers) -> Option<(String, Origin)> {
        let in_file = format!("{field}-file");
        match (self.has(field), self.has(&in_file)) {
            (true, true) => {
                let message = format!("both {field} and {in_file} are given");
                layers.error(self.origin.clone(), self.name.clone(), message);
                None
            }
            (true, false) => self.text(field, layers),
            (false, true) => {
                let (path, at) = self.text(&in_file, layers)?;
                let text = self.read_file(&in_file, &path, &at, layers)?;
                Some((text, at))
            }
            (false, false) => {
                let message = format!("{field} or {in_file} is missing");
                layers.error(self.origin.clone(), self.name.clone(), message);
                None
            }
        }
    }

    /// The texts that are given as `secrets`, and those in the files that `secret-files` names.
    pub(super) fn secrets(&mut self, layers: &mut Layers) -> Option<(Vec<String>, Origin)> {
        let place = if self.has("secrets") { "secrets" } else { "secret-files" };
        let origin = self
            .fields
            .get(place)
            .map_or(self.origin.clone(), |field| field.origin.clone());
        let (mut secrets, _) = self.list("secrets", layers)?;
        let (files, at) = self.list("secret-files", layers)?;
        for path in files {
            secrets.push(self.read_file("secret-files", &path, &at, layers)?);
        }
        Some((secrets, origin))
    }

    /// The content of a file without its last line end.
    fn read_file(&self, field: &str, path: &str, at: &Origin, layers: &mut Layers) -> Option<String> {
        match std::fs::read_to_string(path) {
            Ok(content) => Some(content.trim_end_matches(['\n', '\r']).to_owned()),
            Err(error) => {
                let message = format!("{path:?} cannot be read: {error}");
                layers.error(at.clone(), self.field(field), message);
                None
            }
        }
    }
}
