//! Proof of consent (GDPR, article 7(1)): where `limits.consent-proof` asks for it, an event that says that somebody agreed
//! must say when, to which words, and where. What somebody refused needs no proof, and never waits for one.
//!
//! It never decides whether consent is needed or what follows from it.

use crate::dead_letters::{Letter, Step};
use crate::intake::Taken;
use crate::limits::Limits;
use serde_json::Value;
use vigie_event::{ConsentState, Event, RejectCode};

/// What was taken, less the events that grant consent and prove nothing.
pub(crate) fn proven(batch: Vec<Taken>, limits: &Limits) -> Vec<Taken> {
    if !limits.consent_proof {
        return batch;
    }
    let one = |(ordinal, taken): (usize, Taken)| match taken {
        Ok(event) if grants(&event) && !proves(&event) => {
            let mut letter = Letter::of_event(&event, RejectCode::ConsentProof, Step::Decode, ordinal as u64);
            letter.field = "consent".into();
            letter.accepted = true;
            Err(Box::new(letter))
        }
        taken => taken,
    };
    batch.into_iter().enumerate().map(one).collect()
}

fn grants(event: &Event) -> bool {
    event.consent.values().any(|word| *word == ConsentState::Granted)
}

/// A time, and among the properties (of an identify: the traits) the version of the wording, its SHA-256, and the source.
fn proves(event: &Event) -> bool {
    let Ok(payload) = serde_json::from_str::<Value>(&event.payload) else {
        return false;
    };
    let said = |name: &str| {
        let properties = ["properties", "traits"].map(|place| payload.get(place).and_then(|place| place.get(name)));
        let text = properties.into_iter().flatten().find_map(Value::as_str);
        text.filter(|text| !text.trim().is_empty())
    };
    let hash =
        said("wording_sha256").is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
    event.occurred_at.is_some() && hash && said("wording").is_some() && said("source").is_some()
}
