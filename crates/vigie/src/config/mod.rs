//! The configuration: where each setting comes from, what it may be, and what is wrong with it.
//!
//! Layers, each over the one before: the defaults compiled in (`config/default.toml`) < the file given with `--config`
//! < the environment (`VIGIE__SECTION__KEY`) < flags. Everything is read and checked once, at start, into [`Config`];
//! all errors are reported together, each with its place. There is no global, and nothing is read again later.
//!
//! Adding a setting touches one place: the table in `settings.rs`, from which the types, the checks, `default.toml` and
//! `reference.toml` come. It never decides what a setting means: that is the part that is handed the value.

use std::path::PathBuf;

pub mod commands;
mod entries;
mod errors;
mod kafka_sources;
mod keys;
mod layers;
mod reference;
mod settings;
mod types;
mod webhooks;

pub use errors::{ConfigError, ConfigErrors};
pub use kafka_sources::KafkaSource;
pub use keys::{Key, KeyKind, Scope, Secret};
pub use layers::Origin;
pub use reference::{default_file, reference_file};
pub use settings::{
    Archive, Audit, Canary, Data, Delivery, Kafka, Limits, Links, Log, LogOutput, Pipeline, Query, Rates, Redis,
    Relance, Scoring, Server, Settings, Store,
};
pub use types::{
    ConsentProof, Durability, Hosts, Learning, LogBackend, LogFilter, SaslMechanism, Size, StoreBackend, Switch,
};
pub use webhooks::Webhook;

use layers::Layers;
use vigie_ingestion::links::LinkSpec;

/// What a configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// The file given with `--config`.
    pub file: Option<PathBuf>,
    /// The variables of the environment. Those that do not start with `VIGIE__` are ignored.
    pub environment: Vec<(String, String)>,
    /// Settings given as flags: `("server.listen", "127.0.0.1:9000")`.
    pub flags: Vec<(String, String)>,
}

impl ConfigSources {
    /// The given file and flags, and the environment of this process. Variables that are not Unicode are ignored.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> ConfigSources {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        ConfigSources {
            file,
            environment: environment.collect(),
            flags,
        }
    }
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Every setting except the keys, by section.
    pub settings: Settings,
    /// The `[[keys]]`. Empty when none is configured: then `vigie up` makes its own at the first start.
    pub keys: Vec<Key>,
    /// The `[[webhooks]]`.
    pub webhooks: Vec<Webhook>,
    /// How links of e-mails are signed, with the `[[link-keys]]`; without any, there are no links.
    pub links: Option<LinkSpec>,
    /// The `[[kafka-sources]]`.
    pub kafka_sources: Vec<KafkaSource>,
    effective: Vec<Effective>,
}

impl Config {
    /// Every setting with its value as TOML and where it came from, in the order of the reference.
    #[must_use]
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }
}

impl std::ops::Deref for Config {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Section, such as `server`.
    pub section: String,
    /// Key, such as `listen`.
    pub key: String,
    /// Value as TOML.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Reads and checks the configuration.
///
/// # Errors
/// Everything that is wrong, in the order of the layers and of the lines of the file.
pub fn load(sources: ConfigSources) -> Result<Config, ConfigErrors> {
    let mut layers = Layers::read(&sources);
    let settings = Settings::read(&mut layers);
    let keys = keys::read(&mut layers);
    let webhooks = webhooks::read(&mut layers);
    let links = webhooks::read_links(settings.as_ref(), &mut layers);
    let kafka_sources = kafka_sources::read(&mut layers);
    if let Some(settings) = &settings {
        settings::check_together(settings, &mut layers);
    }
    let (effective, errors) = layers.finish();
    match settings {
        Some(settings) if errors.is_empty() => Ok(Config {
            settings,
            keys,
            webhooks,
            links,
            kafka_sources,
            effective,
        }),
        _ => Err(ConfigErrors::new(errors)),
    }
}

#[cfg(test)]
mod tests;
