//! What the API is given: the store, a snapshot of model and policies, and functions for everything that needs a clock,
//! a secret or another part of the system. The API reads none of these on its own.

use crate::past::Past;
use arc_swap::ArcSwap;
use serde::Serialize;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use utoipa::ToSchema;
use vigie_event::{Timestamp, Workspace};
use vigie_relance::{Accounts, PolicySet};
use vigie_scoring::Model;

/// What the scores and forecasts of an answer come from. Replaced as a whole; an answer uses one snapshot throughout.
#[derive(Debug, Clone, PartialEq)]
pub struct Active {
    /// The model in force.
    pub model: Model,
    /// The policies in force.
    pub policies: PolicySet,
    /// Names the two together with everything else that is configured.
    pub config_version: String,
}

/// What a bearer key may do here. The workspace comes from the key, never from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// May read this workspace.
    Read(Workspace),
    /// A valid key, but not one for reading.
    WrongKind,
    /// Not a key.
    Unknown,
}

/// Whether the system can keep its promises now; ready when there is no reason against it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// What stands against it, each in a few words.
    pub reasons: Vec<String>,
}

/// What is running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Build {
    /// Version of the program.
    #[schema(example = "0.1.0")]
    pub version: String,
    /// Source revision that it was built from.
    pub revision: Option<String>,
}

/// The books of a workspace: what became of every event that was accepted (BOOKS-1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Books {
    /// Events taken in; the sum of all the others.
    pub accepted: u64,
    /// Took effect.
    pub applied: u64,
    /// Had been met before.
    pub duplicate: u64,
    /// Were set aside with a reason.
    pub dead_letter: u64,
    /// Deliberately have no effect.
    pub suppressed: u64,
    /// Are durable and not processed yet.
    pub in_flight: u64,
}

/// What the last look at the whole base has found. Replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Surveyed {
    /// When; `None` before the first look is over.
    pub at: Option<Timestamp>,
    /// Who belongs to which company.
    pub accounts: Accounts,
}

/// A part of the system that cannot answer now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable(pub String);

/// An answer that takes time.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send>>;

/// Asks for the books of a workspace.
pub type BooksOf = Arc<dyn Fn(&Workspace) -> Answer<Books> + Send + Sync>;

/// Everything that the API needs. Public fields: the binary builds it.
pub struct ApiState<S> {
    /// Customers and flags.
    pub store: Arc<S>,
    /// Model and policies.
    pub active: Arc<ArcSwap<Active>>,
    /// The time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Judges a bearer key, in constant time.
    pub authorize: Arc<dyn Fn(&str) -> Access + Send + Sync>,
    /// Whether to send traffic.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// The books of a workspace.
    pub books: BooksOf,
    /// The base as a whole, a little while ago.
    pub surveyed: Arc<ArcSwap<Surveyed>>,
    /// Who answers questions about the past; `None` where no archive is kept.
    pub past: Option<Arc<dyn Past>>,
    /// What is running.
    pub build: Build,
    /// Parts of an OpenAPI document (`tags`, `paths`, `components`) that other routers of the process contribute, as JSON.
    pub also_documented: &'static [&'static str],
    /// Numbers requests that bring no id of their own; start it at 0.
    pub requests: AtomicU64,
}

impl<S> ApiState<S> {
    /// An id for a request that brings none: unique within the process, and over restarts as far as the clock moves on.
    pub(crate) fn request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{number:x}", (self.clock)().0)
    }
}
