//! What e-mail providers tell about mails: one file per provider, from its own words to ours. Whether a message is really
//! the provider's was found out before ([`crate::webhooks`]); nothing here verifies.
//!
//! A person is known by the id that the merchant put into the mail's metadata (`vigie_user_id` or `user_id`), else by the
//! hash of the address ([`super::email_id`]). A machine's open or click, where the provider says that it is one, is a
//! signal of its own that never counts as a sign of life. A complaint and an unsubscription count whoever made them.

mod brevo;
mod mailgun;
mod mailjet;
mod mandrill;
mod postmark;
mod sendgrid;
mod ses;
mod sparkpost;

use super::draft::{Draft, Object, Piece, hash, parse};
use super::{BodyFault, email_id, text};
use crate::limits::Limits;
use crate::strict::{Kind, Layout, scan};
use serde_json::Value;
use smol_str::{SmolStr, format_smolstr};
use vigie_event::json::{Invalid, Receipt};
use vigie_event::{ConsentState, Event, Purpose, RejectCode, Signal, Source, Timestamp};

/// What happened to a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Taken over for sending.
    Sent,
    /// Accepted by the recipient's server.
    Delivered,
    /// Not yet delivered; it is tried again.
    Deferred,
    /// Could not be delivered.
    Bounced,
    /// Never sent: suppressed, invalid or refused by the provider.
    Rejected,
    /// Its images were loaded.
    Opened,
    /// Its images were loaded by a machine, says the provider.
    MachineOpened,
    /// A link was followed.
    Clicked,
    /// A link was followed by a machine, says the provider.
    MachineClicked,
    /// Reported as spam.
    Complained,
    /// Unsubscribed.
    Unsubscribed,
    /// Subscribed, again or for the first time.
    Subscribed,
    /// Known, and without meaning for us.
    Other,
}

impl Act {
    fn signal(self) -> Signal {
        match self {
            Self::Sent => Signal::EmailSent,
            Self::Delivered => Signal::EmailDelivered,
            Self::Bounced => Signal::EmailBounce,
            Self::Opened => Signal::EmailOpen,
            Self::MachineOpened => Signal::EmailMachineOpen,
            Self::Clicked => Signal::EmailClick,
            Self::MachineClicked => Signal::EmailMachineClick,
            Self::Complained => Signal::EmailComplaint,
            Self::Unsubscribed => Signal::EmailUnsubscribe,
            Self::Subscribed => Signal::NewsletterSubscribe,
            Self::Deferred | Self::Rejected | Self::Other => Signal::Custom,
        }
    }
}

/// Notices in one request at most; no provider documents more.
const MAX_NOTICES: usize = 10_000;

/// The words of a provider.
type Words = &'static [(&'static str, Act)];

fn act(words: Words, word: &str) -> Result<Act, Invalid> {
    words
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, act)| *act)
        .ok_or(Invalid::new(RejectCode::UnknownType, "event"))
}

/// One notice about one mail, in our words.
#[derive(Debug)]
struct Notice {
    act: Act,
    /// The provider's word.
    word: SmolStr,
    address: Option<SmolStr>,
    user: Option<SmolStr>,
    at: Option<Timestamp>,
    /// The provider's own id of this notice; else it is derived from `mail`, `word`, `at`, `address` and `url`.
    id: Option<SmolStr>,
    /// The provider's id of the mail.
    mail: Option<SmolStr>,
    url: Option<SmolStr>,
    user_agent: Option<SmolStr>,
}

impl Notice {
    fn new(act: Act, word: impl Into<SmolStr>) -> Self {
        Self {
            act,
            word: word.into(),
            address: None,
            user: None,
            at: None,
            id: None,
            mail: None,
            url: None,
            user_agent: None,
        }
    }

    fn finish(self, source: Source, text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
        let word = |known: Option<SmolStr>| known.unwrap_or_default();
        let (mail, url, address) = (word(self.mail), word(self.url.clone()), word(self.address.clone()));
        let id = match self.id {
            Some(id) => format!("{}:{id}", source.name()),
            // Without mail and time, two notices could not be told apart: then none is taken for another.
            None if mail.is_empty() || self.at.is_none() => String::new(),
            None => {
                let at = self.at.unwrap_or_default().to_string();
                let parts = [mail.as_str(), self.act.signal().name(), &at, &address, &url];
                format!("{}:{}", source.name(), hash(&parts))
            }
        };
        let anonymous = match &self.user {
            Some(_) => None,
            None => self
                .address
                .as_deref()
                .filter(|address| address.contains('@'))
                .map(email_id),
        };
        let mut consent = vigie_event::ConsentContext::new();
        if matches!(self.act, Act::Complained | Act::Unsubscribed) {
            let _none = consent.insert(Purpose::Marketing, ConsentState::Refused);
        }
        let signal = self.act.signal();
        // A custom event's name is looked up behind the log: a provider's word must not meet another meaning there.
        let name = match signal {
            Signal::Custom => format_smolstr!("email.{}.{}", source.name(), self.word),
            _ => self.word,
        };
        Draft {
            id: Some(id),
            user: self.user,
            anonymous,
            signal: Some(signal),
            // Brevo reports a first open under two words.
            name: Some(if source == Source::Brevo && signal != Signal::Custom {
                signal.name().into()
            } else {
                name
            }),
            occurred_at: self.at,
            user_agent: self.user_agent,
            page_url: self.url,
            consent,
            content: format!("{mail} {url}"),
            ..Draft::default()
        }
        .finish(source, text, receipt)
    }
}

/// The merchant's id of the person, in the metadata that a provider hands back.
fn user_in(metadata: Object<'_>) -> Option<SmolStr> {
    metadata.first(&["vigie_user_id", "user_id"])
}

/// The same in metadata that is JSON in a text.
fn user_in_text(metadata: Option<SmolStr>) -> Option<SmolStr> {
    let value: Value = serde_json::from_str(&metadata?).ok()?;
    user_in(Object::new(&value))
}

/// Reads one notice of a provider.
pub(super) fn read_one(source: Source, text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
    let value = parse(text)?;
    let object = Object::new(&value);
    let notice = match source {
        Source::SendGrid => sendgrid::read(object),
        Source::Mailgun => mailgun::read(object),
        Source::Postmark => postmark::read(object),
        Source::Ses => ses::read(object),
        Source::Brevo => brevo::read(object),
        Source::Mailjet => mailjet::read(object),
        Source::SparkPost => sparkpost::read(object),
        Source::Mandrill => mandrill::read(object),
        _ => Err(Invalid::new(RejectCode::UnknownType, "event")),
    }?;
    notice.finish(source, text, receipt)
}

/// The notices of a verified body. `body` is the JSON that the provider sent (for Mandrill that of its form field, for
/// Amazon the `Message` of the envelope, with the envelope's id).
pub(crate) fn pieces(source: Source, body: &[u8], envelope_id: &str, limits: &Limits) -> Result<Vec<Piece>, BodyFault> {
    if source == Source::Ses {
        return ses::pieces(text(body)?, envelope_id, limits);
    }
    let text = text(body)?;
    let layout = Layout { key: None, bare: true };
    let max = MAX_NOTICES;
    let document = scan(text, layout, max, &limits.json).map_err(BodyFault::Json)?;
    let mut pieces = match (document.items, document.kind) {
        (Some(items), _) => {
            if items.len() > max {
                return Err(BodyFault::BatchTooLarge);
            }
            let piece = |item: crate::strict::Item| Piece {
                text: text.get(item.span).unwrap_or_default().to_owned(),
                fault: item.fault,
            };
            items.into_iter().map(piece).collect()
        }
        (None, Kind::Object) => vec![Piece {
            text: text.get(document.span).unwrap_or_default().to_owned(),
            fault: document.fault,
        }],
        (None, _) => return Err(BodyFault::Shape),
    };
    if source == Source::SparkPost {
        // The provider's ping carries no notice.
        pieces.retain(|piece| !sparkpost::is_ping(&piece.text));
    }
    Ok(pieces)
}
