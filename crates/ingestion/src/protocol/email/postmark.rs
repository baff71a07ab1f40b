//! Postmark's webhooks: one notice per request. A bounce has an id; the others are told apart by mail, kind and time.

use super::{Act, Notice, Object, user_in};
use vigie_event::RejectCode;
use vigie_event::json::Invalid;

/// Types of bounces after which the same mail may still arrive.
const PASSING: &[&str] = &[
    "Transient",
    "SoftBounce",
    "DnsError",
    "AutoResponder",
    "Subscribe",
    "ChallengeVerification",
];

pub(super) fn read(notice: Object<'_>) -> Result<Notice, Invalid> {
    let word = notice.text("RecordType").unwrap_or_default();
    let kind = notice.text("Type").unwrap_or_default();
    let (act, times): (_, &[&str]) = match word.as_str() {
        "Delivery" => (Act::Delivered, &["DeliveredAt"]),
        "Bounce" if kind == "SpamNotification" || kind == "SpamComplaint" => (Act::Complained, &["BouncedAt"]),
        "Bounce" if kind == "Unsubscribe" => (Act::Unsubscribed, &["BouncedAt"]),
        "Bounce" if PASSING.contains(&kind.as_str()) => (Act::Deferred, &["BouncedAt"]),
        "Bounce" => (Act::Bounced, &["BouncedAt"]),
        "SpamComplaint" => (Act::Complained, &["BouncedAt"]),
        "Open" => (Act::Opened, &["ReceivedAt"]),
        "Click" => (Act::Clicked, &["ReceivedAt"]),
        "SubscriptionChange" if notice.flag("SuppressSending") => {
            // A suppression after a bounce is the provider's doing; the bounce itself was reported.
            let act = match notice.text("SuppressionReason").as_deref() {
                Some("HardBounce") => Act::Other,
                Some("SpamComplaint") => Act::Complained,
                _ => Act::Unsubscribed,
            };
            (act, &["ChangedAt"])
        }
        "SubscriptionChange" => (Act::Subscribed, &["ChangedAt"]),
        _ => return Err(Invalid::new(RejectCode::UnknownType, "RecordType")),
    };
    Ok(Notice {
        address: notice.first(&["Recipient", "Email"]),
        user: user_in(notice.at("Metadata")),
        at: notice.first_time(times, "time")?,
        id: notice.text("ID"),
        mail: notice.text("MessageID"),
        url: notice.text("OriginalLink"),
        user_agent: notice.text("UserAgent"),
        ..Notice::new(act, word)
    })
}
