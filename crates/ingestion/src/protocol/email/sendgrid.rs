//! SendGrid's event webhook: an array of notices, each with an id of its own (`sg_event_id`).

use super::{Act, Notice, Object, Words, act, user_in};
use vigie_event::json::Invalid;

const WORDS: Words = &[
    ("processed", Act::Sent),
    ("dropped", Act::Rejected),
    ("delivered", Act::Delivered),
    ("deferred", Act::Deferred),
    ("bounce", Act::Bounced),
    ("blocked", Act::Deferred),
    ("open", Act::Opened),
    ("click", Act::Clicked),
    ("spamreport", Act::Complained),
    ("unsubscribe", Act::Unsubscribed),
    ("group_unsubscribe", Act::Unsubscribed),
    ("group_resubscribe", Act::Subscribed),
    ("account_status_change", Act::Other),
];

pub(super) fn read(notice: Object<'_>) -> Result<Notice, Invalid> {
    let word = notice.text("event").unwrap_or_default();
    let act = match act(WORDS, &word)? {
        // Apple's privacy proxy loads every picture, read or not.
        Act::Opened if notice.flag("sg_machine_open") => Act::MachineOpened,
        // The receiver refused this mail, not this address.
        Act::Bounced if notice.text("type").as_deref() == Some("blocked") => Act::Deferred,
        act => act,
    };
    Ok(Notice {
        address: notice.text("email"),
        // Custom arguments stand beside the provider's own fields.
        user: user_in(notice),
        at: notice.time("timestamp", "timestamp")?,
        id: notice.text("sg_event_id"),
        mail: notice.text("sg_message_id"),
        url: notice.text("url"),
        user_agent: notice.text("useragent"),
        ..Notice::new(act, word)
    })
}
