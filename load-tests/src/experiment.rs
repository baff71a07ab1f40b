//! The experiment files: which case a folder under `cases/` is, and with which numbers.

use crate::cases::{House, http, silence, topic};
use crate::report::{self, CaseResult};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One case: a folder with an `experiment.toml`, and a `profile.md` where somebody has looked for what limits it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Experiment {
    /// Name of the folder.
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) case: Case,
    /// What a profile has shown; part of the report.
    #[serde(skip)]
    pub(crate) profile: Option<String>,
}

/// What is done, by the key `kind`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Case {
    /// Requests over HTTP to one process that does everything.
    Http(http::Experiment),
    /// A filled log, and how fast it becomes scores.
    Topic(topic::Experiment),
    /// Customers of whom nothing comes.
    Silence(silence::Experiment),
}

impl Case {
    /// What it is about, in Markdown.
    pub(crate) fn about(&self) -> &str {
        match self {
            Self::Http(experiment) => &experiment.about,
            Self::Topic(experiment) => &experiment.about,
            Self::Silence(experiment) => &experiment.about,
        }
    }

    /// The names of its runs.
    #[cfg(test)]
    pub(crate) fn runs(&self) -> Vec<&str> {
        match self {
            Self::Http(experiment) => experiment.runs(),
            Self::Topic(experiment) => experiment.runs(),
            Self::Silence(experiment) => experiment.runs(),
        }
    }
}

impl Experiment {
    /// Runs it, unless something that it needs is not there.
    pub(crate) async fn measure(self, house: &House) -> Result<CaseResult> {
        let obstacle = match &self.case {
            Case::Http(experiment) => experiment.obstacle(),
            Case::Topic(experiment) => experiment.obstacle(house),
            Case::Silence(_) => None,
        };
        let runs = match (&obstacle, &self.case) {
            (Some(why), _) => {
                report::announce_missing(&self.name, why);
                Vec::new()
            }
            (None, Case::Http(experiment)) => experiment.measure(&self.name, house).await?,
            (None, Case::Topic(experiment)) => experiment.measure(&self.name, house).await?,
            (None, Case::Silence(experiment)) => experiment.measure(&self.name, house).await?,
        };
        Ok(CaseResult {
            experiment: self,
            runs,
            not_measured: obstacle,
        })
    }
}

/// Every folder of a directory that holds an experiment, in the order of names.
pub(crate) fn all(directory: &Path) -> Result<Vec<Experiment>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        if folder.join("experiment.toml").is_file() {
            folders.push(folder);
        }
    }
    folders.sort();
    folders.iter().map(|folder| read(folder)).collect()
}

fn read(folder: &Path) -> Result<Experiment> {
    let path = folder.join("experiment.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let case: Case = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    let checked = match &case {
        Case::Http(experiment) => experiment.check(),
        Case::Topic(experiment) => experiment.check(),
        Case::Silence(experiment) => experiment.check(),
    };
    checked.with_context(|| format!("in {}", path.display()))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(!case.about().trim().is_empty(), "{}: `about` is empty", path.display());
    let profile = std::fs::read_to_string(folder.join("profile.md")).ok();
    Ok(Experiment { name, case, profile })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_experiments_in_the_repository_are_valid() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        assert!(!all(&cases).unwrap().is_empty());
    }
}
