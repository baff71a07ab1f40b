//! SparkPost's webhooks: an array of `{"msys": {"<family>": {…}}}`, each notice with an id of its own.

use super::{Act, Notice, Object, Words, act, user_in};
use serde_json::Value;
use vigie_event::RejectCode;
use vigie_event::json::Invalid;

const WORDS: Words = &[
    ("injection", Act::Sent),
    ("delivery", Act::Delivered),
    ("bounce", Act::Bounced),
    ("out_of_band", Act::Bounced),
    ("delay", Act::Deferred),
    ("policy_rejection", Act::Rejected),
    ("generation_failure", Act::Rejected),
    ("generation_rejection", Act::Rejected),
    ("spam_complaint", Act::Complained),
    ("open", Act::Opened),
    // The pixel at the top; the one at the bottom is `open`. An open counts once.
    ("initial_open", Act::Other),
    ("click", Act::Clicked),
    ("amp_open", Act::Opened),
    ("amp_initial_open", Act::Other),
    ("amp_click", Act::Clicked),
    ("list_unsubscribe", Act::Unsubscribed),
    ("link_unsubscribe", Act::Unsubscribed),
    ("sms_status", Act::Other),
];

/// Classes of bounces after which the same mail may still arrive.
const PASSING: &[&str] = &["2", "20", "21", "22", "23", "24", "40", "60", "70", "100"];

pub(super) fn is_ping(text: &str) -> bool {
    let value: Option<Value> = serde_json::from_str(text).ok();
    let msys = value.as_ref().map(Object::new).and_then(|object| object.raw("msys"));
    msys.and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
}

pub(super) fn read(item: Object<'_>) -> Result<Notice, Invalid> {
    let family = item
        .raw("msys")
        .and_then(Value::as_object)
        .and_then(|msys| msys.values().next());
    let notice = Object::new(family.ok_or(Invalid::new(RejectCode::Shape, "msys"))?);
    let word = notice.text("type").unwrap_or_default();
    let agent = notice.at("user_agent_parsed");
    let passing = notice
        .text("bounce_class")
        .is_some_and(|class| PASSING.contains(&class.as_str()));
    let act = match act(WORDS, &word)? {
        Act::Bounced if passing => Act::Deferred,
        Act::Opened if agent.flag("is_prefetched") => Act::MachineOpened,
        Act::Clicked if agent.flag("is_prefetched") => Act::MachineClicked,
        act => act,
    };
    Ok(Notice {
        address: notice.first(&["raw_rcpt_to", "rcpt_to"]),
        user: user_in(notice.at("rcpt_meta")),
        at: notice.time("timestamp", "timestamp")?,
        id: notice.text("event_id"),
        mail: notice.text("message_id"),
        url: notice.text("target_link_url"),
        user_agent: notice.text("user_agent"),
        ..Notice::new(act, word)
    })
}
