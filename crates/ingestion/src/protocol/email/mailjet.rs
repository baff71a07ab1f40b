//! Mailjet's event API: one notice per request, or an array of them. A notice is told apart by mail, meaning, time,
//! address and link.

use super::{Act, Notice, Object, Words, act, user_in_text};
use vigie_event::json::Invalid;

const WORDS: Words = &[
    ("sent", Act::Delivered),
    ("open", Act::Opened),
    ("click", Act::Clicked),
    ("bounce", Act::Bounced),
    ("blocked", Act::Rejected),
    ("spam", Act::Complained),
    ("unsub", Act::Unsubscribed),
];

pub(super) fn read(notice: Object<'_>) -> Result<Notice, Invalid> {
    let word = notice.text("event").unwrap_or_default();
    let act = match act(WORDS, &word)? {
        // A soft bounce says so by not being hard; without the word it is taken as final.
        Act::Bounced if notice.raw("hard_bounce").is_some() && !notice.flag("hard_bounce") => Act::Deferred,
        act => act,
    };
    Ok(Notice {
        address: notice.text("email"),
        // Of the two places for the merchant's data, `Payload` holds JSON and `CustomID` a bare id of the mail.
        user: user_in_text(notice.text("Payload")),
        at: notice.time("time", "time")?,
        mail: notice.first(&["MessageID", "Message_GUID", "mj_message_id"]),
        url: notice.text("url"),
        user_agent: notice.text("agent"),
        ..Notice::new(act, word)
    })
}
