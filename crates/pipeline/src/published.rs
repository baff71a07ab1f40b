//! What the world may read of a customer without asking us: the fields of the public hash, for stores that publish. They
//! say what the record's last published scores say, so that whoever reads them is never further than the model's drift
//! from the truth before `valid_until`. It decides nothing and stores nothing.

use bytes::Bytes;
use vigie_event::{ConsentState, Purpose};
use vigie_scoring::{CustomerState, Model, assess};
use vigie_store::Projection;

/// The public fields of a record. Decimal fractions have six digits, money the places of its currency, instants are RFC 3339 in UTC.
///
/// | field | meaning |
/// |---|---|
/// | `attrition` | disengagement as of `as_of`, 0 to 1; absent when there is nothing to judge by |
/// | `churn` | probability of no purchase within the model's default horizon; absent for who never bought |
/// | `value` | expected margin of the coming year, in major units of `currency`; absent for who never bought for money |
/// | `at_stake` | what of it may be lost: the value if they certainly were still a customer, less `value` |
/// | `currency` | ISO 4217 code of the two |
/// | `stage` | place in the life cycle |
/// | `reasons` | JSON list of at most three sentences, the weightiest first |
/// | `as_of` | the instant that the scores hold for |
/// | `valid_until` | until then no score has drifted by more than the model's `drift`; absent: for ten years |
/// | `model` | version of the model |
/// | `linked_to` | another customer's id that this one's data has moved to; then there is nothing else |
///
/// A person who has refused profiling has no field at all.
pub(crate) fn published(state: &CustomerState, model: &Model) -> Projection {
    let mut fields = Vec::with_capacity(10);
    let mut put = |name, value: String| fields.push((name, Bytes::from(value)));
    if let Some(target) = &state.linked_to {
        put("linked_to", target.to_string());
        return Projection(fields);
    }
    let consent = state.consent.get(&Purpose::Profiling);
    let refused = consent.is_some_and(|consent| consent.state == ConsentState::Refused);
    let Some(scores) = state.refreshed.filter(|_| !refused) else {
        return Projection(fields);
    };
    let fraction = |ppm: u32| format!("{}.{:06}", ppm / 1_000_000, ppm % 1_000_000);
    if let Some(ppm) = scores.attrition_ppm {
        put("attrition", fraction(ppm));
    }
    if let Some(ppm) = scores.churn_ppm {
        put("churn", fraction(ppm));
    }
    let assessment = assess(state, model, scores.at);
    if let Some(value) = assessment.value {
        let places = usize::try_from(value.currency.exponent()).unwrap_or_default();
        put("value", format!("{:.places$}", value.current));
        put("at_stake", format!("{:.places$}", value.at_stake));
        put("currency", value.currency.to_string());
    }
    put("stage", assessment.stage.label().to_owned());
    let reasons: Vec<&str> = assessment.reasons.iter().map(|reason| reason.text.as_str()).collect();
    // A list of texts always has a JSON form.
    put("reasons", serde_json::to_string(&reasons).unwrap_or_default());
    put("as_of", scores.at.to_string());
    if let Some(due) = state.timer {
        put("valid_until", due.to_string());
    }
    put("model", assessment.model);
    Projection(fields)
}
