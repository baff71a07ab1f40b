//! The policy file: TOML, validated as a whole, every fault reported at once. It never looks at a customer.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use vigie_event::PolicyId;
use vigie_scoring::ScoreKind;

const SHIPPED: &str = include_str!("../../../config/policies.toml");

/// Most policies in one file: the ledger of a customer holds an entry for each.
const MAX_POLICIES: usize = 32;

/// Why a text is not a set of policies. The operator's to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not the documented TOML; the text says where.
    #[error("policy file cannot be read: {0}")]
    Syntax(String),
    /// Values that cannot be; all of them.
    #[error("policy file is not valid: {}", .0.join("; "))]
    Values(Vec<String>),
}

impl PolicyError {
    /// The stable name of the kind of error.
    #[must_use]
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "policy_syntax",
            Self::Values(_) => "policy_values",
        }
    }
}

/// How much consent to marketing a contact needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarketingConsent {
    /// The person must have said yes.
    Granted,
    /// The person must not have said no.
    NotRefused,
}

/// Whom a policy may flag.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Eligible {
    /// Fewest distinct purchase days.
    pub min_purchase_days: u32,
    /// Most distinct purchase days.
    pub max_purchase_days: u32,
    /// Fewest active days.
    pub min_active_days: u32,
    /// Longest silence in whole days since the last sign of life.
    pub max_silence_days: u32,
    /// Only customers with a known id.
    pub known_only: bool,
    /// Consent needed.
    pub marketing_consent: MarketingConsent,
}

impl Default for Eligible {
    fn default() -> Self {
        Self {
            min_purchase_days: 0,
            max_purchase_days: u32::MAX,
            min_active_days: 0,
            max_silence_days: 365,
            known_only: true,
            marketing_consent: MarketingConsent::NotRefused,
        }
    }
}

/// One policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its name, unique in the file.
    pub id: PolicyId,
    /// First 8 bytes of a hash of everything that decides: a flag carries it.
    pub version: u64,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub goal: String,
    /// The score that it watches.
    pub score: ScoreKind,
    /// Flag at or above this.
    pub threshold: f64,
    /// Armed again below this.
    pub rearm_below: f64,
    /// Days after a flag without another.
    pub cooldown_days: u32,
    /// Share of flags held out, in [0, 0.9].
    pub holdout: f64,
    /// Whom it may flag.
    pub eligible: Eligible,
}

/// The policies in force, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySet {
    /// First 12 hexadecimal digits of the SHA-256 of the text.
    pub version: String,
    /// First 8 bytes of the same hash.
    pub fingerprint: u64,
    /// The policies.
    pub policies: Vec<Policy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    policy: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    id: String,
    #[serde(default)]
    owner: String,
    #[serde(default)]
    goal: String,
    score: String,
    threshold: f64,
    rearm_below: Option<f64>,
    #[serde(default = "thirty")]
    cooldown_days: u32,
    #[serde(default)]
    holdout: f64,
    #[serde(default)]
    eligible: Eligible,
}

const fn thirty() -> u32 {
    30
}

impl PolicySet {
    /// The policies that are compiled in (`config/policies.toml`). A test keeps them valid.
    pub fn shipped() -> Result<Self, PolicyError> {
        Self::parse(SHIPPED)
    }

    /// The text of [`PolicySet::shipped`].
    #[must_use]
    pub fn shipped_text() -> &'static str {
        SHIPPED
    }

    /// Reads and validates a policy file.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File =
            toml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string().trim_end().to_owned()))?;
        let mut problems = Vec::new();
        if file.policy.len() > MAX_POLICIES {
            problems.push(format!("{} policies are more than {MAX_POLICIES}", file.policy.len()));
        }
        let mut names = BTreeSet::new();
        let mut policies = Vec::new();
        for entry in file.policy {
            if !names.insert(entry.id.clone()) {
                problems.push(format!("policy {:?} stands twice", entry.id));
            }
            match entry.validated() {
                Ok(policy) => policies.push(policy),
                Err(mut faults) => problems.append(&mut faults),
            }
        }
        if !problems.is_empty() {
            return Err(PolicyError::Values(problems));
        }
        let digest = Sha256::digest(text.as_bytes());
        let version: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            version,
            fingerprint: first_eight(&digest),
            policies,
        })
    }

    /// The policy of that name.
    #[must_use]
    pub fn policy(&self, id: &PolicyId) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.id == *id)
    }
}

impl Entry {
    fn validated(self) -> Result<Policy, Vec<String>> {
        let mut problems = Vec::new();
        let name = self.id.clone();
        let mut fault = |what: String| problems.push(format!("policy {name:?}: {what}"));
        let id = PolicyId::new(&self.id)
            .map_err(|error| fault(format!("id: {error}")))
            .ok();
        let score = parse_score(&self.score);
        if score.is_none() {
            fault(format!(
                "score {:?} is neither \"attrition\" nor \"churn-N\" with N from 1 to 3650 days",
                self.score
            ));
        }
        if !(self.threshold > 0.0 && self.threshold < 1.0) {
            fault(format!("threshold {} is not between 0 and 1", self.threshold));
        }
        let rearm_below = self.rearm_below.unwrap_or(self.threshold * 0.75);
        if !(rearm_below > 0.0 && rearm_below < self.threshold) {
            fault(format!(
                "rearm-below {rearm_below} is not between 0 and the threshold {}",
                self.threshold
            ));
        }
        if !(0.0..=0.9).contains(&self.holdout) {
            fault(format!("holdout {} is not between 0 and 0.9", self.holdout));
        }
        if self.cooldown_days > 3650 {
            fault(format!("cooldown-days {} is more than ten years", self.cooldown_days));
        }
        if self.eligible.min_purchase_days > self.eligible.max_purchase_days {
            fault("eligible.min-purchase-days is more than max-purchase-days".to_owned());
        }
        match (id, score) {
            (Some(id), Some(score)) if problems.is_empty() => Ok(Policy {
                version: self.version(rearm_below),
                id,
                owner: self.owner,
                goal: self.goal,
                score,
                threshold: self.threshold,
                rearm_below,
                cooldown_days: self.cooldown_days,
                holdout: self.holdout,
                eligible: self.eligible,
            }),
            _ => Err(problems),
        }
    }

    /// A hash of what decides; words for people (owner, goal) do not change it.
    fn version(&self, rearm_below: f64) -> u64 {
        let mut hasher = Sha256::new();
        for text in [&self.id, &self.score] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        for number in [self.threshold, rearm_below, self.holdout] {
            hasher.update(number.to_bits().to_le_bytes());
        }
        let Eligible {
            min_purchase_days,
            max_purchase_days,
            min_active_days,
            max_silence_days,
            known_only,
            marketing_consent,
        } = &self.eligible;
        for number in [
            self.cooldown_days,
            *min_purchase_days,
            *max_purchase_days,
            *min_active_days,
            *max_silence_days,
        ] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update([
            u8::from(*known_only),
            u8::from(*marketing_consent == MarketingConsent::Granted),
        ]);
        first_eight(&hasher.finalize())
    }
}

fn first_eight(digest: &[u8]) -> u64 {
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn parse_score(text: &str) -> Option<ScoreKind> {
    match text.strip_prefix("churn-") {
        Some(days) => days
            .parse::<u16>()
            .ok()
            .filter(|days| (1..=3650).contains(days))
            .map(ScoreKind::Churn),
        None => (text == "attrition").then_some(ScoreKind::Attrition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_policies_are_valid() {
        let set = PolicySet::shipped().unwrap();
        assert!(set.policies.len() >= 2);
        assert_eq!(set.version.len(), 12);
    }

    #[test]
    fn every_fault_is_reported_at_once_and_says_where() {
        let text = r#"
            [[policy]]
            id = "a"
            score = "mood"
            threshold = 1.5
            holdout = 2
            [[policy]]
            id = "a"
            score = "churn-30"
            threshold = 0.5
            rearm-below = 0.6
        "#;
        let Err(PolicyError::Values(problems)) = PolicySet::parse(text) else {
            panic!("accepted")
        };
        let shown = problems.join("\n");
        for part in [
            "\"a\": score",
            "threshold 1.5",
            "holdout 2",
            "\"a\" stands twice",
            "rearm-below 0.6",
        ] {
            assert!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        let Err(PolicyError::Syntax(message)) =
            PolicySet::parse("[[policy]]\nid = \"a\"\nscore = \"attrition\"\nthreshold = 0.5\ncooldwn = 3")
        else {
            panic!("accepted")
        };
        assert!(message.contains("line 5") && message.contains("cooldwn"), "{message}");
    }

    #[test]
    fn the_version_changes_with_what_decides_and_only_with_that() {
        let version = |threshold: &str, goal: &str| {
            let text =
                format!("[[policy]]\nid = \"a\"\nscore = \"attrition\"\nthreshold = {threshold}\ngoal = \"{goal}\"");
            PolicySet::parse(&text).unwrap().policies[0].version
        };
        assert_eq!(version("0.5", "x"), version("0.5", "y"));
        assert_ne!(version("0.5", "x"), version("0.6", "x"));
    }
}
