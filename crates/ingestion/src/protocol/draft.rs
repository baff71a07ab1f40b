//! What every mapping of a foreign protocol ends in: a draft of an event, made whole and checked in one place, and the
//! reading of JSON fields that foreign clients fill as they like. It knows no protocol.

use super::{Origin, without_userinfo};
use crate::intake::Taken;
use crate::limits::Limits;
use serde_json::Value;
use sha2::{Digest, Sha256};
use smol_str::{SmolStr, format_smolstr};
use vigie_event::json::{Invalid, Receipt, check_age, derived_id, id_error};
use vigie_event::{
    Client, ConsentContext, Currency, Event, EventId, MAX_ID_BYTES, Money, PersonId, PersonIds, RejectCode, Signal,
    Source, TimeError, Timestamp, fingerprint,
};

/// An event as a mapping found it, not yet checked.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// The provider's own id, made unique among providers; without one, an id is derived from content and receipt.
    pub(crate) id: Option<String>,
    pub(crate) user: Option<SmolStr>,
    pub(crate) anonymous: Option<SmolStr>,
    pub(crate) previous: Option<SmolStr>,
    pub(crate) signal: Option<Signal>,
    pub(crate) name: Option<SmolStr>,
    pub(crate) occurred_at: Option<Timestamp>,
    pub(crate) sent_at: Option<Timestamp>,
    pub(crate) money: Option<Money>,
    pub(crate) order: Option<SmolStr>,
    pub(crate) consent: ConsentContext,
    pub(crate) user_agent: Option<SmolStr>,
    pub(crate) page_url: Option<SmolStr>,
    pub(crate) referrer: Option<SmolStr>,
    /// What else makes the event what it is; whatever a client changes when it retries is left out.
    pub(crate) content: String,
}

impl Draft {
    /// Checks and completes it. `text` is the event as received.
    pub(crate) fn finish(self, source: Source, text: &str, receipt: &Receipt) -> Result<Event, Invalid> {
        let user = checked(self.user, "user id")?;
        let anonymous = checked(self.anonymous, "anonymous id")?;
        let previous = checked(self.previous, "previous id")?;
        if user.is_none() && anonymous.is_none() {
            return Err(Invalid::new(RejectCode::NoIdentity, "user id"));
        }
        let name = self.name.filter(|name| !name.trim().is_empty());
        let signal = match (self.signal, &name) {
            (Some(signal), _) => signal,
            (None, Some(_)) => Signal::Custom,
            (None, None) => return Err(Invalid::new(RejectCode::NoSignal, "event name")),
        };
        check_age(self.occurred_at, receipt, "time")?;
        let print = fingerprint([
            source.name().as_bytes(),
            signal.name().as_bytes(),
            name.as_deref().unwrap_or("").as_bytes(),
            user.as_deref().unwrap_or("").as_bytes(),
            anonymous.as_deref().unwrap_or("").as_bytes(),
            previous.as_deref().unwrap_or("").as_bytes(),
            self.occurred_at.map_or([0; 8], |at| at.0.to_le_bytes()).as_slice(),
            self.content.as_bytes(),
        ]);
        let id = match self.id.filter(|id| !id.is_empty()) {
            Some(id) => EventId::new(&fitting(id)).map_err(|error| id_error(error, "event id"))?,
            None => derived_id(&receipt.workspace, text, receipt.received_at),
        };
        Ok(Event {
            workspace: receipt.workspace.clone(),
            id,
            person: PersonIds {
                user: user.map(PersonId::Known),
                anonymous: anonymous.map(PersonId::Anonymous),
                previous,
            },
            signal,
            name,
            channel: signal.default_channel(),
            source,
            occurred_at: self.occurred_at,
            sent_at: self.sent_at.or(receipt.sent_at),
            received_at: receipt.received_at,
            money: self.money,
            order: checked(self.order, "order")?,
            consent: self.consent,
            client: Client {
                user_agent: self.user_agent.or_else(|| receipt.user_agent.clone()),
                page_url: self.page_url.as_deref().map(without_userinfo),
                referrer: self.referrer.as_deref().map(without_userinfo),
            },
            fingerprint: print,
            payload: text.into(),
        })
    }
}

/// An id of a provider as it is, or its hash where it is longer than ids may be.
fn fitting(id: String) -> String {
    if id.len() <= MAX_ID_BYTES { id } else { hash(&[&id]) }
}

fn checked(id: Option<SmolStr>, field: &'static str) -> Result<Option<SmolStr>, Invalid> {
    let Some(id) = id.filter(|id| !id.trim().is_empty()) else {
        return Ok(None);
    };
    match PersonId::known(&id) {
        Ok(_) => Ok(Some(id)),
        Err(error) => Err(id_error(error, field)),
    }
}

/// The SHA-256 of the parts in hexadecimal; parts do not run together.
pub(crate) fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// The anonymous id that stands for an e-mail address: `email-sha256:` and the SHA-256 of the address, trimmed and in
/// lower case. An `identity.identify` with this anonymous id, or an alias from it, tells us whose address it is.
#[must_use]
pub fn email_id(address: &str) -> SmolStr {
    let digest = Sha256::digest(address.trim().to_lowercase());
    format_smolstr!("email-sha256:{}", hex(&digest))
}

/// A JSON object with the tolerant readings that foreign clients need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Object<'a>(Option<&'a Value>);

impl<'a> Object<'a> {
    pub(crate) fn new(value: &'a Value) -> Self {
        Self(Some(value).filter(|value| value.is_object()))
    }

    pub(crate) fn raw(self, key: &str) -> Option<&'a Value> {
        self.0?.get(key).filter(|value| !value.is_null())
    }

    /// An object below this one; empty where there is none.
    pub(crate) fn at(self, key: &str) -> Self {
        Self(self.raw(key).filter(|value| value.is_object()))
    }

    pub(crate) fn is_some(self) -> bool {
        self.0.is_some()
    }

    /// Text that is not blank, or a number as its text.
    pub(crate) fn text(self, key: &str) -> Option<SmolStr> {
        match self.raw(key)? {
            Value::String(text) => Some(text.trim()).filter(|text| !text.is_empty()).map(SmolStr::new),
            Value::Number(number) => Some(format_smolstr!("{number}")),
            _ => None,
        }
    }

    /// The first of several keys that holds text.
    pub(crate) fn first(self, keys: &[&str]) -> Option<SmolStr> {
        keys.iter().find_map(|key| self.text(key))
    }

    /// A flag as boolean, or as the texts and numbers that clients use for one.
    pub(crate) fn flag(self, key: &str) -> bool {
        match self.raw(key) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::Number(number)) => number.as_i64() == Some(1),
            Some(Value::String(text)) => text == "true" || text == "1",
            _ => false,
        }
    }

    pub(crate) fn array(self, key: &str) -> &'a [Value] {
        match self.raw(key) {
            Some(Value::Array(items)) => items,
            _ => &[],
        }
    }

    /// A time as text or number, whole or with a fraction of seconds.
    pub(crate) fn time(self, key: &str, field: &'static str) -> Result<Option<Timestamp>, Invalid> {
        match self.text(key) {
            Some(text) => time(&text, field).map(Some),
            None if self.raw(key).is_none() => Ok(None),
            None => Err(Invalid::new(RejectCode::TimeType, field)),
        }
    }

    /// The first key that holds a time.
    pub(crate) fn first_time(self, keys: &[&str], field: &'static str) -> Result<Option<Timestamp>, Invalid> {
        for key in keys {
            if let Some(at) = self.time(key, field)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// The first amount that some key holds, in the currency of another key or the given one.
    pub(crate) fn money(self, amounts: &[&str], currency: &str, default: &str) -> Result<Option<Money>, Invalid> {
        let Some(amount) = self.first(amounts) else {
            return Ok(None);
        };
        let currency = self.text(currency).unwrap_or_else(|| default.into());
        money(&amount, &currency).map(Some)
    }
}

/// Reads a time: ISO 8601, or seconds or milliseconds since 1970, seconds with or without a fraction.
pub(crate) fn time(text: &str, field: &'static str) -> Result<Timestamp, Invalid> {
    let error = |error| match error {
        TimeError::Format => Invalid::new(RejectCode::TimeType, field),
        TimeError::Unit => Invalid::new(RejectCode::TimeUnit, field),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !digits {
        return Timestamp::parse(text).map_err(error);
    }
    let number: i64 = whole.parse().map_err(|_| Invalid::new(RejectCode::TimeUnit, field))?;
    let at = Timestamp::from_number(number).map_err(error)?;
    // A fraction belongs to seconds; of milliseconds it is below our unit.
    let ms = if at.0 == number {
        0
    } else {
        let padded: String = fraction.chars().chain("000".chars()).take(3).collect();
        padded.parse().unwrap_or(0)
    };
    Ok(at.plus_ms(ms))
}

/// Reads money; a negative amount is refused.
pub(crate) fn money(amount: &str, currency: &str) -> Result<Money, Invalid> {
    let invalid = |_| Invalid::new(RejectCode::Value, "money");
    let money = Money::parse(amount, Currency::parse(currency).map_err(invalid)?).map_err(invalid)?;
    if money.minor < 0 {
        return Err(Invalid::new(RejectCode::Value, "money"));
    }
    Ok(money)
}

/// One event of a body: its JSON text, and what the limits say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The event's JSON, as received or, where the protocol is not JSON, as an object of its parameters.
    pub text: String,
    /// A fault that was found before anybody looked at its meaning.
    pub fault: Option<RejectCode>,
}

impl Piece {
    /// A piece without fault.
    pub(crate) fn good(text: String) -> Self {
        Self { text, fault: None }
    }

    /// Reads it, or makes a letter of it.
    pub(crate) fn take(&self, ordinal: usize, source: Source, receipt: &Receipt, limits: &Limits) -> Taken {
        let whole = |code| Invalid::new(code, "event");
        let read = if self.text.len() > limits.event_bytes {
            Err(whole(RejectCode::EventTooLarge))
        } else if let Some(code) = self.fault {
            Err(whole(code))
        } else {
            super::read_foreign(source, &self.text, receipt)
        };
        let origin = Origin {
            receipt,
            source,
            kind: "",
            context: "",
        };
        read.map_err(|invalid| origin.letter(&invalid, ordinal, self.text.as_bytes(), limits))
    }
}

/// The pieces as a JSON object of text parameters; the last of equal names counts.
pub(crate) fn object_of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let map: serde_json::Map<String, Value> = pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::String(value.to_owned())))
        .collect();
    Value::Object(map).to_string()
}

/// An item as a JSON value, which must be an object.
pub(crate) fn parse(text: &str) -> Result<Value, Invalid> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(Invalid::new(RejectCode::Shape, "event")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_providers_are_read() {
        for (text, ms) in [
            ("1521472262", 1_521_472_262_000),
            ("1521472262.908181", 1_521_472_262_908),
            ("1521472262.9", 1_521_472_262_900),
            ("1521472262908", 1_521_472_262_908),
            ("2019-11-05T16:33:54.9070259Z", 1_572_971_634_907),
            ("2019-11-05T16:33:54+01:00", 1_572_968_034_000),
        ] {
            assert_eq!(time(text, "t"), Ok(Timestamp(ms)), "{text}");
        }
        for bad in ["", "soon", "12", "-5", "99999999999999999999", "1.5e9"] {
            assert!(time(bad, "t").is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_known_by_its_hash_alone() {
        // sha256sum of `ada@example.com`.
        let expected = "email-sha256:b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72";
        assert_eq!(email_id(" Ada@Example.COM "), expected);
        assert_ne!(email_id("ada@example.com"), email_id("bob@example.com"));
    }

    #[test]
    fn long_ids_become_hashes_and_parts_do_not_run_together() {
        assert_eq!(fitting("x".repeat(200)).len(), 200);
        assert_eq!(fitting("x".repeat(201)).len(), 64);
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
