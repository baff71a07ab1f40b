//! The `[[kafka-sources]]`: topics of others that are read as events. Each is checked here as far as it can be without
//! brokers, so that a wrong one is an error with a place and no surprise later.

use super::entries::Entry;
use super::layers::{Layers, Origin};
use vigie_kafka::source::{FieldMapping, Format, SourceOptions, Start};

/// One source.
#[derive(Clone, Debug)]
pub struct KafkaSource {
    /// As it is read, but for the limits of an event, which are those of the collector.
    pub options: SourceOptions,
    /// Where it stands.
    pub origin: Origin,
}

const FIELDS: [&str; 9] = [
    "name",
    "workspace",
    "topics",
    "group",
    "format",
    "fields",
    "signals",
    "start",
    "dead-letters-topic",
];

/// Checks the sources; what is wrong goes to the errors of `layers`.
pub(super) fn read(layers: &mut Layers) -> Vec<KafkaSource> {
    let mut sources: Vec<KafkaSource> = Vec::new();
    for (_, mut entry) in Entry::all("kafka-sources", layers) {
        let Some(options) = read_one(&mut entry, layers) else {
            continue;
        };
        let same = |other: &&KafkaSource| other.options.name == options.name || other.options.group == options.group;
        if let Some(other) = sources.iter().find(same) {
            let message = format!(
                "the source {:?} has this name or group; each needs its own",
                other.options.name
            );
            layers.error(entry.origin, entry.name, message);
            continue;
        }
        sources.push(KafkaSource {
            options,
            origin: entry.origin,
        });
    }
    sources
}

fn read_one(entry: &mut Entry, layers: &mut Layers) -> Option<SourceOptions> {
    entry.check_fields(&FIELDS, layers);
    let name = entry.text("name", layers).map(|(name, _)| name);
    let workspace = entry.workspace(layers);
    let (topics, _) = entry.list("topics", layers)?;
    let format = format(entry, layers);
    let start = optional(entry, "start", layers, |text| match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        other => Err(format!("expected \"earliest\" or \"latest\", found {other:?}")),
    });
    let group = optional(entry, "group", layers, |text| Ok(text.to_owned()));
    let dead_letters = optional(entry, "dead-letters-topic", layers, |text| Ok(text.to_owned()));
    let mut options = SourceOptions::new(&name?, "", format?, workspace?);
    options.topics = topics;
    options.start = start?.unwrap_or(options.start);
    options.group = group?.unwrap_or(options.group);
    options.dead_letter_topic = dead_letters?.unwrap_or(options.dead_letter_topic);
    match options.check() {
        Ok(()) => Some(options),
        Err(error) => {
            layers.error(entry.origin.clone(), entry.name.clone(), error.to_string());
            None
        }
    }
}

/// A field that may be missing; the outer `None` says that it is wrong.
fn optional<T>(
    entry: &mut Entry,
    field: &str,
    layers: &mut Layers,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<Option<T>> {
    if !entry.has(field) {
        return Some(None);
    }
    let (text, at) = entry.text(field, layers)?;
    let read = read(&text).map_err(|message| layers.error(at, entry.field(field), message));
    read.ok().map(Some)
}

fn format(entry: &mut Entry, layers: &mut Layers) -> Option<Format> {
    let (text, at) = entry.text("format", layers)?;
    let format = match text.as_str() {
        "canonical" => Format::Canonical,
        "segment" => Format::Segment,
        "cloud-events" => Format::CloudEvents,
        "fields" => {
            let ((fields, at), (signals, _)) = (entry.list("fields", layers)?, entry.list("signals", layers)?);
            return match FieldMapping::parse(&fields, &signals) {
                Ok(mapping) => Some(Format::Fields(mapping)),
                Err(message) => {
                    layers.error(at, entry.field("fields"), message);
                    None
                }
            };
        }
        other => {
            let message =
                format!("expected \"canonical\", \"segment\", \"cloud-events\" or \"fields\", found {other:?}");
            layers.error(at, entry.field("format"), message);
            return None;
        }
    };
    for field in ["fields", "signals"] {
        if entry.has(field) {
            let message = "it has a use with format = \"fields\" only";
            layers.error(entry.origin.clone(), entry.field(field), message);
            return None;
        }
    }
    Some(format)
}
