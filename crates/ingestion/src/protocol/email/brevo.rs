//! Brevo's webhooks: one notice per request, or an array of them. There is no id of a notice: it is told apart by mail,
//! meaning, time, address and link. A first open is reported twice, under two words; the two are one notice here.

use super::{Act, Notice, Object, Words, act, user_in, user_in_text};
use vigie_event::json::Invalid;

const WORDS: Words = &[
    ("request", Act::Sent),
    ("delivered", Act::Delivered),
    ("hard_bounce", Act::Bounced),
    ("soft_bounce", Act::Deferred),
    ("blocked", Act::Rejected),
    ("spam", Act::Complained),
    ("complaint", Act::Complained),
    ("invalid_email", Act::Bounced),
    ("deferred", Act::Deferred),
    ("click", Act::Clicked),
    ("opened", Act::Opened),
    ("unique_opened", Act::Opened),
    ("proxy_open", Act::MachineOpened),
    ("unique_proxy_open", Act::MachineOpened),
    ("unsubscribe", Act::Unsubscribed),
    ("unsubscribed", Act::Unsubscribed),
    ("error", Act::Rejected),
    ("list_addition", Act::Subscribed),
    ("contact_updated", Act::Other),
    ("contact_deleted", Act::Other),
];

pub(super) fn read(notice: Object<'_>) -> Result<Notice, Invalid> {
    let word = notice.text("event").unwrap_or_default();
    let custom = notice.text("X-Mailin-custom");
    Ok(Notice {
        address: notice.text("email"),
        user: user_in(notice).or_else(|| user_in_text(custom)),
        at: notice.first_time(&["ts_epoch", "ts_event", "ts"], "ts_epoch")?,
        mail: notice.first(&["message-id", "camp_id"]),
        url: notice.first(&["link", "URL"]),
        user_agent: notice.text("user_agent"),
        ..Notice::new(act(WORDS, &word)?, word)
    })
}
