//! The canonical event: one thing that happened to one person, as a source reported it, checked but not judged.
//!
//! What a source claimed is kept as it was claimed (`occurred_at`, `sent_at`, `payload`); what we make of it
//! (the effective time, whether a machine did it, which session it belongs to) is a verdict of the enrichment crate
//! and lives in [`crate::Enriched`], never here.

use crate::{Channel, ConsentContext, EventId, Money, PersonId, Signal, Timestamp, Workspace};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use xxhash_rust::xxh3::Xxh3;

/// The protocol or feed that an event came through. Its place in this list is part of the persisted bytes: new ones are
/// added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// `POST /v1/events`.
    Canonical,
    /// The Segment HTTP tracking API.
    Segment,
    /// A file import.
    Import,
    /// A simulator (demo, tests).
    Simulator,
    /// RudderStack's HTTP API.
    RudderStack,
    /// The Snowplow tracker protocol.
    Snowplow,
    /// The PostHog capture API.
    PostHog,
    /// CloudEvents over HTTP.
    CloudEvents,
    /// The Matomo tracking API.
    Matomo,
    /// Webhooks of SendGrid.
    SendGrid,
    /// Webhooks of Mailgun.
    Mailgun,
    /// Webhooks of Postmark.
    Postmark,
    /// Amazon SES through SNS.
    Ses,
    /// Webhooks of Brevo.
    Brevo,
    /// Webhooks of Mailjet.
    Mailjet,
    /// Webhooks of SparkPost.
    SparkPost,
    /// Webhooks of Mandrill.
    Mandrill,
    /// Our own pixels, redirects and unsubscribe links.
    Links,
    /// Our own tracker, `/t.js`.
    Tracker,
}

impl Source {
    /// Every source, in the order of its persisted bytes.
    pub const ALL: &'static [Self] = &[
        Self::Canonical,
        Self::Segment,
        Self::Import,
        Self::Simulator,
        Self::RudderStack,
        Self::Snowplow,
        Self::PostHog,
        Self::CloudEvents,
        Self::Matomo,
        Self::SendGrid,
        Self::Mailgun,
        Self::Postmark,
        Self::Ses,
        Self::Brevo,
        Self::Mailjet,
        Self::SparkPost,
        Self::Mandrill,
        Self::Links,
        Self::Tracker,
    ];

    /// Whether it reports what happened to mails, by the word of whoever sent them: there, machines act in people's names.
    #[must_use]
    pub const fn is_mail_provider(self) -> bool {
        matches!(
            self,
            Self::SendGrid
                | Self::Mailgun
                | Self::Postmark
                | Self::Ses
                | Self::Brevo
                | Self::Mailjet
                | Self::SparkPost
                | Self::Mandrill
        )
    }

    /// The name used in JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Canonical => "canonical",
            Self::Segment => "segment",
            Self::Import => "import",
            Self::Simulator => "simulator",
            Self::RudderStack => "rudderstack",
            Self::Snowplow => "snowplow",
            Self::PostHog => "posthog",
            Self::CloudEvents => "cloudevents",
            Self::Matomo => "matomo",
            Self::SendGrid => "sendgrid",
            Self::Mailgun => "mailgun",
            Self::Postmark => "postmark",
            Self::Ses => "ses",
            Self::Brevo => "brevo",
            Self::Mailjet => "mailjet",
            Self::SparkPost => "sparkpost",
            Self::Mandrill => "mandrill",
            Self::Links => "links",
            Self::Tracker => "tracker",
        }
    }
}

/// The identifiers that an event carries; at least one of `user` and `anonymous` is present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonIds {
    /// The merchant's id.
    pub user: Option<PersonId>,
    /// The device's or browser's id.
    pub anonymous: Option<PersonId>,
    /// For an alias: the id that the person had before. Its kind is not known from the event.
    pub previous: Option<SmolStr>,
}

impl PersonIds {
    /// The identity that keys the event: the known id if there is one.
    #[must_use]
    pub fn key(&self) -> Option<&PersonId> {
        self.user.as_ref().or(self.anonymous.as_ref())
    }
}

/// What is known of the software that the person used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The `User-Agent`, from the event's context or else from the request.
    pub user_agent: Option<SmolStr>,
    /// The page's address, without user and password.
    pub page_url: Option<SmolStr>,
    /// The page that led there.
    pub referrer: Option<SmolStr>,
}

/// One thing that happened to one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The owner of the data; from the credential.
    pub workspace: Workspace,
    /// The client's id, or one derived from the content where the client gave none.
    pub id: EventId,
    /// Who it is about.
    pub person: PersonIds,
    /// What happened.
    pub signal: Signal,
    /// The source's own name for it ("Order Completed"), for custom signals and for people.
    pub name: Option<SmolStr>,
    /// Where.
    pub channel: Channel,
    /// Through which protocol we learnt of it.
    pub source: Source,
    /// When it happened, by the client's clock, as claimed.
    pub occurred_at: Option<Timestamp>,
    /// When the client sent it, by the client's clock.
    pub sent_at: Option<Timestamp>,
    /// When we received it, by our clock. Moves the time of its partition.
    pub received_at: Timestamp,
    /// Money that changed hands (purchases and refunds).
    pub money: Option<Money>,
    /// The order that it belongs to; for signals of the family `relance` the flag, for `identity.group` the company.
    pub order: Option<SmolStr>,
    /// What the person said about the use of their data, as this event reports it.
    pub consent: ConsentContext,
    /// The software that the person used.
    pub client: Client,
    /// [`fingerprint`] of the content: the same for every retry of an event, another for other content.
    pub fingerprint: u64,
    /// The event as received, verbatim JSON.
    pub payload: Box<str>,
}

/// Seed of the content fingerprint; part of the persisted format.
const FINGERPRINT_SEED: u64 = 0x7669_6769_6502;

/// A 64-bit fingerprint of the parts that make an event what it is. Callers leave out whatever a client changes when
/// it retries (send times, retry counters). Each part is preceded by its length, so that parts cannot run together.
#[must_use]
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = Xxh3::with_seed(FINGERPRINT_SEED);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_persisted_order_of_sources_is_that_of_the_list() {
        for (index, source) in Source::ALL.iter().enumerate() {
            let bytes = postcard::to_allocvec(source).unwrap();
            assert_eq!(bytes, [u8::try_from(index).unwrap()], "{}", source.name());
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(
            fingerprint([b"ab".as_slice(), b"c"]),
            fingerprint([b"a".as_slice(), b"bc"])
        );
        assert_eq!(fingerprint([b"ab".as_slice()]), fingerprint([b"ab".as_slice()]));
    }
}
