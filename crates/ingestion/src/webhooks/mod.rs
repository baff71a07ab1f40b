//! Webhooks of e-mail providers: which endpoints exist, whose data they take, and the proof that a request is really the
//! provider's. The workspace comes from the endpoint, never from a body (WS-1).
//!
//! A request is verified over its raw bytes before anything in it is believed. Where the proof lies inside the body
//! (Mailgun, Amazon) only the fields of the proof are read before. Comparisons take constant time. This file never looks
//! into a notice: [`crate::protocol::email`] does.

mod sns;
mod verify;

pub use sns::{Fetch, FetchError, Fetched};
pub(crate) use verify::Verified;

use crate::keys::Secret;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use vigie_event::{Source, Timestamp, Workspace};

/// Whose webhooks an endpoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// SendGrid's event webhook.
    SendGrid,
    /// Mailgun.
    Mailgun,
    /// Postmark.
    Postmark,
    /// Amazon SES through SNS.
    Ses,
    /// Brevo.
    Brevo,
    /// Mailjet.
    Mailjet,
    /// SparkPost.
    SparkPost,
    /// Mandrill.
    Mandrill,
}

impl Provider {
    /// Every provider.
    pub const ALL: &'static [Self] = &[
        Self::SendGrid,
        Self::Mailgun,
        Self::Postmark,
        Self::Ses,
        Self::Brevo,
        Self::Mailjet,
        Self::SparkPost,
        Self::Mandrill,
    ];

    /// The source of its events.
    #[must_use]
    pub const fn source(self) -> Source {
        match self {
            Self::SendGrid => Source::SendGrid,
            Self::Mailgun => Source::Mailgun,
            Self::Postmark => Source::Postmark,
            Self::Ses => Source::Ses,
            Self::Brevo => Source::Brevo,
            Self::Mailjet => Source::Mailjet,
            Self::SparkPost => Source::SparkPost,
            Self::Mandrill => Source::Mandrill,
        }
    }

    /// Its name in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.source().name()
    }

    /// Reads a [`Provider::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|provider| provider.name() == name)
    }
}

/// How a provider proves itself. Where two secrets are given, both are valid: the old one and the new one.
#[derive(Clone)]
pub enum Proof {
    /// SendGrid: public keys of the signed event webhook, as the console shows them (base64 SPKI).
    SendGrid {
        /// One, or two during a rotation.
        public_keys: Vec<String>,
    },
    /// Mailgun: webhook signing keys.
    Mailgun {
        /// One, or two during a rotation.
        signing_keys: Vec<Secret>,
    },
    /// Mandrill: webhook keys, and the address exactly as it is configured there (with user and password, if any).
    Mandrill {
        /// One, or two during a rotation.
        keys: Vec<Secret>,
        /// The address.
        public_url: Secret,
    },
    /// Amazon: topics that may publish here. A valid signature alone only proves that *some* topic published.
    Sns {
        /// Amazon resource names, `arn:aws:sns:<region>:<account>:<topic>`.
        topics: Vec<String>,
        /// Whether signatures over SHA-1 (`SignatureVersion` 1) are accepted too.
        version_1: bool,
    },
    /// Providers that sign nothing (Postmark, Brevo, Mailjet, SparkPost): a secret that the request carries.
    Shared {
        /// One, or two during a rotation.
        secrets: Vec<SharedSecret>,
    },
}

/// A secret that a request carries in a header.
#[derive(Clone)]
pub enum SharedSecret {
    /// `Authorization: Basic`, as `user:password`.
    Basic(Secret),
    /// `Authorization: Bearer`.
    Bearer(Secret),
    /// A header of this name (lower case) with this value.
    Header(String, Secret),
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SendGrid { .. } => "SendGrid(…)",
            Self::Mailgun { .. } => "Mailgun(…)",
            Self::Mandrill { .. } => "Mandrill(…)",
            Self::Sns { .. } => "Sns(…)",
            Self::Shared { .. } => "Shared(…)",
        })
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(…)")
    }
}

/// One endpoint as configured; its address is `/v1/webhooks/<name>`.
#[derive(Debug, Clone)]
pub struct WebhookSpec {
    /// Lower-case letters, digits and hyphens.
    pub name: String,
    /// Whose data it takes.
    pub workspace: Workspace,
    /// Who sends.
    pub provider: Provider,
    /// How it proves itself.
    pub proof: Proof,
}

/// Why a list of endpoints is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("webhook {name}: {reason}")]
pub struct WebhookError {
    /// The endpoint.
    pub name: String,
    /// What is wrong, and what to do.
    pub reason: &'static str,
}

/// An endpoint in force.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) workspace: Workspace,
    pub(crate) provider: Provider,
    checker: verify::Checker,
}

/// All endpoints of an installation.
#[derive(Debug, Default)]
pub struct Webhooks {
    endpoints: BTreeMap<String, Arc<Endpoint>>,
}

impl Webhooks {
    /// Checks the endpoints. `fetch` gets Amazon's certificates and confirms subscriptions; without it no endpoint may
    /// need it.
    pub fn new(
        specs: impl IntoIterator<Item = WebhookSpec>,
        fetch: Option<Arc<dyn Fetch>>,
    ) -> Result<Self, WebhookError> {
        let mut endpoints = BTreeMap::new();
        for spec in specs {
            let error = |reason| WebhookError {
                name: spec.name.clone(),
                reason,
            };
            let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if spec.name.is_empty() || spec.name.len() > 64 || !spec.name.bytes().all(letters) {
                return Err(error(
                    "the name must have 1 to 64 lower-case letters, digits and hyphens",
                ));
            }
            let fits = match (&spec.proof, spec.provider) {
                (Proof::SendGrid { .. }, Provider::SendGrid)
                | (Proof::Mailgun { .. }, Provider::Mailgun)
                | (Proof::Mandrill { .. }, Provider::Mandrill)
                | (Proof::Sns { .. }, Provider::Ses) => true,
                (Proof::Shared { .. }, provider) => matches!(
                    provider,
                    Provider::Postmark | Provider::Brevo | Provider::Mailjet | Provider::SparkPost
                ),
                _ => false,
            };
            if !fits {
                return Err(error(
                    "the provider proves itself in another way; see the documentation of webhooks",
                ));
            }
            let checker = verify::Checker::new(&spec.proof, fetch.clone()).map_err(error)?;
            let endpoint = Endpoint {
                workspace: spec.workspace.clone(),
                provider: spec.provider,
                checker,
            };
            if endpoints.insert(spec.name.clone(), Arc::new(endpoint)).is_some() {
                return Err(error("two endpoints have this name; choose another for one of them"));
            }
        }
        Ok(Self { endpoints })
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Endpoint>> {
        self.endpoints.get(name).cloned()
    }
}

/// Why a request is not believed. It is answered 401 in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Disbelief {
    /// No proof at all.
    #[error("the request carries no signature or secret")]
    Missing,
    /// A proof that does not hold.
    #[error("the signature or secret is not valid")]
    Wrong,
    /// A proof of another time, or one that was used for something else before.
    #[error("the signature is too old, or was used before")]
    Stale,
    /// A certificate's address that is not Amazon's.
    #[error("the address of the certificate is not Amazon's")]
    CertificateUrl,
    /// A topic that is not on the list.
    #[error("the topic is not one of those configured")]
    Topic,
    /// The certificate could not be had now; the provider shall come back.
    #[error("the certificate cannot be fetched now")]
    Unavailable,
}

impl Endpoint {
    /// Whether the head alone tells that the request is not believed: then its body is not read.
    pub(crate) fn check_head(&self, headers: &http::HeaderMap) -> Result<(), Disbelief> {
        self.checker.check_head(headers)
    }

    /// Verifies a request.
    pub(crate) async fn verify(
        &self,
        headers: &http::HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Verified, Disbelief> {
        self.checker.verify(headers, body, now).await
    }
}
