//! What it means that a person has said nothing about a purpose, per workspace. It decides nothing: the worker asks it before
//! an event is judged and before a customer is looked at, the same in every replay, since the policy file is in the log.

use serde::Deserialize;
use std::collections::BTreeMap;
use vigie_event::{ConsentState, Purpose, Workspace};

/// What silence means for one workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// About profiling. Default: no refusal. Scores of a merchant's own customers rest on legitimate interest, which a person
    /// ends by objecting (GDPR, articles 6(1)(f) and 21); where consent is the basis instead, silence must be a refusal.
    pub profiling: ConsentState,
    /// About individual opens of e-mails. Default: a refusal, since reading them needs a consent of its own (CNIL,
    /// deliberation 2026-042).
    pub opens: ConsentState,
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            profiling: ConsentState::Granted,
            opens: ConsentState::Refused,
        }
    }
}

impl Silence {
    /// What it means for a purpose; `None` where it means nothing by itself (a policy says whether marketing needs a yes).
    #[must_use]
    pub const fn about(self, purpose: Purpose) -> Option<ConsentState> {
        match purpose {
            Purpose::Profiling => Some(self.profiling),
            Purpose::EmailOpenTracking => Some(self.opens),
            Purpose::Marketing => None,
        }
    }
}

/// What silence means in each workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Silences {
    pub(crate) everywhere: Silence,
    pub(crate) workspaces: BTreeMap<Workspace, Silence>,
}

impl Silences {
    /// For a workspace: its own entry, or everybody's.
    #[must_use]
    pub fn of(&self, workspace: &Workspace) -> Silence {
        self.workspaces.get(workspace).copied().unwrap_or(self.everywhere)
    }
}

/// How the policy file writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Needed {
    /// A yes is needed: silence is a refusal.
    Granted,
    /// A no is respected: silence is none.
    NotRefused,
}

impl From<Needed> for ConsentState {
    fn from(needed: Needed) -> Self {
        match needed {
            Needed::Granted => Self::Refused,
            Needed::NotRefused => Self::Granted,
        }
    }
}
