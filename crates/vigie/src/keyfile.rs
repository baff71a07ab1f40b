//! Keys that vigie makes for itself when none is configured: one to write, one to read, one to administer, in a file of
//! the data directory that only its owner may read. It never changes a file that exists.

use crate::config::{Key, KeyKind, Scope};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use vigie_event::Workspace;
use vigie_ingestion::keys::{KeyKind as Kind, KeySpec, Scope as Grant, Secret};

/// Name of the file in the data directory.
const FILE: &str = "keys.toml";
/// The workspace of generated keys.
const WORKSPACE: &str = "default";

/// Generated keys in clear text, for the owner to see at the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Generated {
    /// The workspace that they open.
    pub(crate) workspace: String,
    /// Sends events.
    pub(crate) write: String,
    /// Sends events of any age (imports).
    pub(crate) history: String,
    /// Reads scores and flags.
    pub(crate) read: String,
    /// Sees and retries dead letters.
    pub(crate) admin: String,
}

/// Reads the generated keys of a data directory, or makes them.
pub(crate) fn generated(dir: &Path) -> Result<(Generated, PathBuf)> {
    let path = dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let keys = toml::from_str(&text)
                .with_context(|| format!("{} is damaged; delete it to get new keys", path.display()))?;
            Ok((keys, path))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let keys = Generated {
                workspace: WORKSPACE.to_owned(),
                write: random("vw_")?,
                history: random("vh_")?,
                read: random("vr_")?,
                admin: random("va_")?,
            };
            let text = format!(
                "# Made by vigie at its first start. Whoever has these keys has the data.\n{}",
                toml::to_string(&keys)?
            );
            // Written aside and renamed, so that a crash leaves no half a file.
            let aside = dir.join(format!("{FILE}.new"));
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&aside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&aside, &path)?;
            Ok((keys, path))
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

impl Generated {
    /// The keys as the collector takes them. They are for servers and the command line, hence without web origins.
    pub(crate) fn specs(&self) -> Result<Vec<KeySpec>> {
        let workspace =
            Workspace::new(&self.workspace).map_err(|error| anyhow!("workspace of the generated keys: {error}"))?;
        let spec = |kind, secret: &str, scopes: &[Grant]| KeySpec {
            workspace: workspace.clone(),
            kind,
            secret: Secret::new(secret.to_owned()),
            scopes: scopes.iter().copied().collect(),
            origins: Vec::new(),
        };
        Ok(vec![
            spec(Kind::Write, &self.write, &[]),
            spec(Kind::Write, &self.history, &[Grant::History]),
            spec(Kind::Read, &self.read, &[]),
            spec(Kind::Admin, &self.admin, &[]),
        ])
    }
}

/// A configured key as the collector takes it.
pub(crate) fn configured(key: &Key) -> KeySpec {
    KeySpec {
        workspace: key.workspace.clone(),
        kind: match key.kind {
            KeyKind::Write => Kind::Write,
            KeyKind::Read => Kind::Read,
            KeyKind::Admin => Kind::Admin,
        },
        secret: Secret::new(key.secret.expose().to_owned()),
        scopes: key.has(Scope::History).then_some(Grant::History).into_iter().collect(),
        origins: key.origins.clone(),
    }
}

/// 160 random bits in base 32, after a prefix that lets a scanner of leaked secrets recognise them.
fn random(prefix: &str) -> Result<String> {
    const ALPHABET: [char; 32] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v',
        'w', 'x', 'y', 'z', '2', '3', '4', '5', '6', '7',
    ];
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random numbers: {error}"))?;
    let digits = bytes
        .iter()
        .map(|byte| ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or('a'));
    Ok(prefix.chars().chain(digits).collect())
}

/// A random number that marks a new log.
pub(crate) fn identity() -> Result<u64> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random numbers: {error}"))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_only_their_owner_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let (first, path) = generated(dir.path()).unwrap();
        let (second, _) = generated(dir.path()).unwrap();
        assert_eq!(first.write, second.write);
        assert_ne!(first.write, first.read);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "write = 3").unwrap();
        assert!(format!("{:#}", generated(dir.path()).unwrap_err()).contains("damaged"));
    }
}
