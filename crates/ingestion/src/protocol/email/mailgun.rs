//! Mailgun's webhooks: one notice per request, as JSON under `event-data`, or as the form of the older API.
//!
//! An event's id is unique for a day only; with its time it is unique for good. Of the older form, which has no id, the
//! token of the signature takes its place: it is unique per notice.

use super::{Act, Notice, Object, Words, act, user_in, user_in_text};
use smol_str::format_smolstr;
use vigie_event::json::Invalid;

const WORDS: Words = &[
    ("accepted", Act::Sent),
    ("rejected", Act::Rejected),
    ("dropped", Act::Bounced),
    ("delivered", Act::Delivered),
    ("failed", Act::Bounced),
    ("bounced", Act::Bounced),
    ("opened", Act::Opened),
    ("clicked", Act::Clicked),
    ("unsubscribed", Act::Unsubscribed),
    ("complained", Act::Complained),
    ("stored", Act::Other),
    ("list_member_uploaded", Act::Other),
    ("list_member_upload_error", Act::Other),
    ("list_uploaded", Act::Other),
];

pub(super) fn read(body: Object<'_>) -> Result<Notice, Invalid> {
    let data = body.at("event-data");
    if !data.is_some() {
        return form(body);
    }
    let word = data.text("event").unwrap_or_default();
    let client = data.at("client-info");
    let act = match (act(WORDS, &word)?, client.text("bot").as_deref()) {
        (Act::Bounced, _) if data.text("severity").as_deref() == Some("temporary") => Act::Deferred,
        // Gmail's image proxy is a person behind a proxy; that it *clicks* is a scanner's doing.
        (Act::Opened, Some(bot)) if bot != "gmail" => Act::MachineOpened,
        (Act::Clicked, Some(_)) => Act::MachineClicked,
        (act, _) => act,
    };
    let time = data.text("timestamp");
    let headers = data.at("message").at("headers");
    Ok(Notice {
        address: data.text("recipient"),
        user: user_in(data.at("user-variables")),
        at: data.time("timestamp", "timestamp")?,
        id: data
            .text("id")
            .map(|id| format_smolstr!("{id}@{}", time.unwrap_or_default()))
            .or_else(|| body.at("signature").text("token")),
        mail: headers.text("message-id"),
        url: data.text("url"),
        user_agent: client.text("user-agent"),
        ..Notice::new(act, word)
    })
}

fn form(form: Object<'_>) -> Result<Notice, Invalid> {
    let word = form.text("event").unwrap_or_default();
    Ok(Notice {
        address: form.text("recipient"),
        user: user_in(form).or_else(|| user_in_text(form.text("my-custom-data"))),
        at: form.time("timestamp", "timestamp")?,
        id: form.text("token"),
        mail: form.first(&["Message-Id", "message-id"]),
        url: form.text("url"),
        user_agent: form.text("user-agent"),
        ..Notice::new(act(WORDS, &word)?, word)
    })
}
