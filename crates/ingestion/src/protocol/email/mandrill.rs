//! Mandrill's webhooks: the array of notices that a form field holds. A notice is told apart by mail, meaning, time,
//! address and link. Changes of lists (`type` and `action` instead of `event`) are about addresses as well.

use super::{Act, Notice, Object, Words, act, user_in};
use vigie_event::json::Invalid;

const WORDS: Words = &[
    ("send", Act::Sent),
    ("delivered", Act::Delivered),
    ("deferral", Act::Deferred),
    ("hard_bounce", Act::Bounced),
    ("soft_bounce", Act::Deferred),
    ("open", Act::Opened),
    ("click", Act::Clicked),
    ("spam", Act::Complained),
    ("unsub", Act::Unsubscribed),
    ("reject", Act::Rejected),
    ("blacklist", Act::Other),
    ("whitelist", Act::Other),
];

pub(super) fn read(notice: Object<'_>) -> Result<Notice, Invalid> {
    let word = notice.first(&["event", "type"]).unwrap_or_default();
    let message = notice.at("msg");
    Ok(Notice {
        address: message.text("email").or_else(|| notice.at("reject").text("email")),
        user: user_in(message.at("metadata")),
        at: notice.time("ts", "ts")?,
        mail: notice.text("_id").or_else(|| message.text("_id")),
        url: notice.text("url"),
        user_agent: notice.text("user_agent"),
        ..Notice::new(act(WORDS, &word)?, word)
    })
}
