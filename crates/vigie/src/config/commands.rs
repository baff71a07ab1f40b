//! `vigie config check` and `vigie config show`: what they print. They never print a key, and they print nothing
//! themselves: the binary writes the returned text to standard output and errors to standard error.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::types::quoted;
use super::{Config, ConfigErrors, ConfigSources, KafkaSource, Key, Origin, load};

/// How `config show` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShowOptions {
    /// Say where each value came from.
    pub origin: bool,
    /// JSON instead of TOML.
    pub json: bool,
}

/// Checks a configuration and says how much of it is given.
///
/// # Errors
/// Everything that is wrong.
pub fn check(sources: ConfigSources) -> Result<String, ConfigErrors> {
    let config = load(sources)?;
    let set = config
        .effective()
        .iter()
        .filter(|setting| setting.origin != Origin::Default)
        .count();
    Ok(format!(
        "the configuration is valid: {set} settings given, {} by default, {} keys\n",
        config.effective().len() - set,
        config.keys.len()
    ))
}

/// The configuration in force, with every default, as a file that could be given with `--config` if it showed the keys.
///
/// # Errors
/// Everything that is wrong.
pub fn show(sources: ConfigSources, options: ShowOptions) -> Result<String, ConfigErrors> {
    let config = load(sources)?;
    Ok(if options.json {
        show_json(&config, options.origin)
    } else {
        show_toml(&config, options.origin)
    })
}

fn show_toml(config: &Config, origin: bool) -> String {
    let mut out = String::new();
    let mut section = "";
    for setting in config.effective() {
        if setting.section != section {
            let _ = writeln!(
                out,
                "{}[{}]",
                if section.is_empty() { "" } else { "\n" },
                setting.section
            );
            section = &setting.section;
        }
        let _ = write!(out, "{} = {}", setting.key, setting.value);
        let _ = if origin {
            writeln!(out, "  # {}", setting.origin)
        } else {
            writeln!(out)
        };
    }
    for key in &config.keys {
        let _ = writeln!(
            out,
            "\n[[keys]]{}",
            if origin {
                format!("  # {}", key.origin)
            } else {
                String::new()
            }
        );
        let list = |texts: Vec<String>| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            out,
            "workspace = {}\nkind = {}",
            quoted(key.workspace.as_str()),
            quoted(key.kind.as_str())
        );
        let _ = writeln!(out, "# key = (not shown)");
        let _ = writeln!(out, "scopes = [{}]", list(scopes(key)));
        let _ = writeln!(out, "origins = [{}]", list(key.origins.clone()));
    }
    for webhook in &config.webhooks {
        let origin = if origin {
            format!("  # {}", webhook.origin)
        } else {
            String::new()
        };
        let spec = &webhook.spec;
        let _ = writeln!(
            out,
            "\n[[webhooks]]{origin}\nname = {}\nworkspace = {}\nprovider = {}\n# its secrets and the like = (not shown)",
            quoted(&spec.name),
            quoted(spec.workspace.as_str()),
            quoted(spec.provider.name())
        );
    }
    for key in config.links.iter().flat_map(|links| &links.keys) {
        let _ = writeln!(out, "\n[[link-keys]]\nid = {}\n# secret = (not shown)", quoted(&key.id));
    }
    for KafkaSource { options, origin: at } in &config.kafka_sources {
        let origin = if origin { format!("  # {at}") } else { String::new() };
        let topics: Vec<String> = options.topics.iter().map(|topic| quoted(topic)).collect();
        let _ = writeln!(
            out,
            "\n[[kafka-sources]]{origin}\nname = {}\nworkspace = {}\ntopics = [{}]\ngroup = {}\nformat = {}",
            quoted(&options.name),
            quoted(options.workspace.as_str()),
            topics.join(", "),
            quoted(&options.group),
            quoted(options.format.label())
        );
    }
    out
}

fn show_json(config: &Config, origin: bool) -> String {
    let mut sections = Map::new();
    for setting in config.effective() {
        // Every value is a TOML string or integer.
        let value = match setting.value.parse::<u64>() {
            Ok(number) => json!(number),
            Err(_) => toml_string(&setting.value),
        };
        let shown = if origin {
            json!({"value": value, "origin": setting.origin.to_string()})
        } else {
            value
        };
        let section = sections.entry(setting.section.clone()).or_insert_with(|| json!({}));
        if let Value::Object(section) = section {
            let _ = section.insert(setting.key.clone(), shown);
        }
    }
    let keys: Vec<Value> = config
        .keys
        .iter()
        .map(|key| {
            let mut shown = json!({
                "workspace": key.workspace.as_str(), "kind": key.kind.as_str(), "key": null,
                "scopes": scopes(key), "origins": key.origins,
            });
            if let (true, Value::Object(fields)) = (origin, &mut shown) {
                let _ = fields.insert("origin".to_owned(), json!(key.origin.to_string()));
            }
            shown
        })
        .collect();
    let _ = sections.insert("keys".to_owned(), Value::Array(keys));
    let webhooks = config.webhooks.iter().map(|webhook| {
        let spec = &webhook.spec;
        let mut shown = json!({
            "name": spec.name, "workspace": spec.workspace.as_str(), "provider": spec.provider.name(), "secrets": null,
        });
        if let (true, Value::Object(fields)) = (origin, &mut shown) {
            let _ = fields.insert("origin".to_owned(), json!(webhook.origin.to_string()));
        }
        shown
    });
    let _ = sections.insert("webhooks".to_owned(), webhooks.collect());
    let link_keys = config.links.iter().flat_map(|links| &links.keys);
    let link_keys = link_keys.map(|key| json!({"id": key.id, "secret": null}));
    let _ = sections.insert("link-keys".to_owned(), link_keys.collect());
    let sources = config.kafka_sources.iter().map(|source| {
        let options = &source.options;
        json!({
            "name": options.name, "workspace": options.workspace.as_str(), "topics": options.topics,
            "group": options.group, "format": options.format.label(),
        })
    });
    let _ = sections.insert("kafka-sources".to_owned(), sources.collect());
    format!("{:#}\n", Value::Object(sections))
}

fn scopes(key: &Key) -> Vec<String> {
    key.scopes.iter().map(|scope| scope.as_str().to_owned()).collect()
}

fn toml_string(literal: &str) -> Value {
    let parsed = toml::de::DeValue::parse(literal).ok();
    parsed
        .and_then(|value| value.get_ref().as_str().map(Value::from))
        .unwrap_or_else(|| Value::from(literal))
}
