//! Amazon SES through SNS. The `Message` of an envelope is one notice about one mail with several recipients; each becomes
//! a piece of its own: `{"recipient":…,"index":…,"envelope":…,"message":…}`.
//!
//! Both shapes are read: event publishing (`eventType`) and the older notifications (`notificationType`).

use super::{Act, Limits, Notice, Object, Piece, Words, act, user_in};
use crate::protocol::BodyFault;
use crate::strict::{Kind, Layout, scan};
use serde_json::{Value, json};
use smol_str::{SmolStr, format_smolstr};
use vigie_event::RejectCode;
use vigie_event::json::Invalid;

const WORDS: Words = &[
    ("Send", Act::Sent),
    ("Delivery", Act::Delivered),
    ("Open", Act::Opened),
    ("Click", Act::Clicked),
    ("Bounce", Act::Bounced),
    ("Complaint", Act::Complained),
    ("Reject", Act::Rejected),
    ("Rendering Failure", Act::Rejected),
    ("DeliveryDelay", Act::Deferred),
    ("Subscription", Act::Unsubscribed),
];

fn word(message: Object<'_>) -> SmolStr {
    message.first(&["eventType", "notificationType"]).unwrap_or_default()
}

/// The recipients that a message is about.
fn recipients(message: Object<'_>) -> Vec<SmolStr> {
    let listed = |key: &str, list: &str| -> Vec<SmolStr> {
        let addresses = message.at(key).array(list).iter();
        addresses
            .filter_map(|item| match item {
                Value::String(address) => Some(SmolStr::new(address)),
                item => Object::new(item).text("emailAddress"),
            })
            .collect()
    };
    let own = match word(message).as_str() {
        "Bounce" => listed("bounce", "bouncedRecipients"),
        "Complaint" => listed("complaint", "complainedRecipients"),
        "Delivery" => listed("delivery", "recipients"),
        "DeliveryDelay" => listed("deliveryDelay", "delayedRecipients"),
        _ => Vec::new(),
    };
    if own.is_empty() {
        listed("mail", "destination")
    } else {
        own
    }
}

pub(super) fn pieces(text: &str, envelope: &str, limits: &Limits) -> Result<Vec<Piece>, BodyFault> {
    // What Amazon says once when a topic is attached; not JSON, and no notice.
    if text.starts_with("Successfully validated SNS topic") {
        return Ok(Vec::new());
    }
    let layout = Layout { key: None, bare: false };
    let document = scan(text, layout, 0, &limits.json).map_err(BodyFault::Json)?;
    if document.kind != Kind::Object {
        return Err(BodyFault::Shape);
    }
    let message: Value = serde_json::from_str(text).map_err(|_| BodyFault::Json(RejectCode::Json))?;
    let object = Object::new(&message);
    let mut people = recipients(object);
    // A pixel or a link of a mail to several says not whose act it was.
    if people.len() > 1 && matches!(word(object).as_str(), "Open" | "Click") {
        people.clear();
    }
    let piece = |index: usize, recipient: Option<&SmolStr>| {
        Piece {
        text: json!({"recipient": recipient.map(SmolStr::as_str), "index": index, "envelope": envelope, "message": message}).to_string(),
        fault: document.fault,
    }
    };
    if people.is_empty() {
        return Ok(vec![piece(0, None)]);
    }
    Ok(people
        .iter()
        .enumerate()
        .map(|(index, one)| piece(index, Some(one)))
        .collect())
}

pub(super) fn read(piece: Object<'_>) -> Result<Notice, Invalid> {
    let message = piece.at("message");
    let word = word(message);
    let act = match act(WORDS, &word)? {
        Act::Bounced if message.at("bounce").text("bounceType").as_deref() == Some("Transient") => Act::Deferred,
        Act::Unsubscribed => {
            let topics = message.at("subscription").at("newTopicPreferences");
            if topics.flag("unsubscribeAll") || topics.array("topicSubscriptionStatus").iter().any(opted_out) {
                Act::Unsubscribed
            } else {
                Act::Other
            }
        }
        act => act,
    };
    let details = match word.as_str() {
        "Open" => message.at("open"),
        "Click" => message.at("click"),
        "Bounce" => message.at("bounce"),
        "Complaint" => message.at("complaint"),
        "Delivery" => message.at("delivery"),
        "DeliveryDelay" => message.at("deliveryDelay"),
        "Subscription" => message.at("subscription"),
        _ => message.at("mail"),
    };
    let mail = message.at("mail");
    // A tag holds a list of values.
    let tag = |name: &str| {
        mail.at("tags")
            .array(name)
            .first()
            .and_then(Value::as_str)
            .map(SmolStr::new)
    };
    let user = tag("vigie_user_id")
        .or_else(|| tag("user_id"))
        .or_else(|| user_in(mail.at("tags")));
    let index = piece.text("index").unwrap_or_default();
    let notice = details.text("feedbackId").or_else(|| piece.text("envelope"));
    Ok(Notice {
        address: piece.text("recipient"),
        user,
        at: details.time("timestamp", "timestamp")?,
        id: notice.map(|id| format_smolstr!("{id}:{index}")),
        mail: mail.text("messageId"),
        url: details.text("link"),
        user_agent: details
            .text("userAgent")
            .filter(|_| matches!(act, Act::Opened | Act::Clicked)),
        ..Notice::new(act, word)
    })
}

fn opted_out(status: &Value) -> bool {
    Object::new(status).text("subscriptionStatus").as_deref() == Some("OptOut")
}
