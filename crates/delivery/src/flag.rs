//! The flag as deliveries see it: JSON of which a few fields are known. It is passed on byte for byte; what it means to a
//! policy is the relance crate's business.

use serde_json::Value;
use vigie_event::{FlagId, Timestamp, fingerprint};

/// What destinations can be told of. The last two are notices: nobody is contacted for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// A customer is to be contacted.
    Flagged,
    /// A flag that was told was wrong.
    Recalled,
    /// A score has come to another band.
    BandChanged,
}

impl Told {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Flagged, Self::Recalled, Self::BandChanged];

    /// The name by which destinations subscribe to it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flagged => "relance.flagged",
            Self::Recalled => "relance.recalled",
            Self::BandChanged => "score.band",
        }
    }

    /// What a stored `kind` is told as; `None` for what is told nobody.
    #[must_use]
    pub fn of(kind: &str) -> Option<Self> {
        match kind {
            "flagged" => Some(Self::Flagged),
            "recalled" => Some(Self::Recalled),
            "band_changed" => Some(Self::BandChanged),
            _ => None,
        }
    }

    /// Those that a subscription names: a name, or `relance.*`, `score.*`, `*`.
    pub fn subscribed(pattern: &str) -> impl Iterator<Item = Self> {
        let prefix = pattern
            .strip_suffix('*')
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'));
        Self::ALL.into_iter().filter(move |told| match prefix {
            Some(prefix) => told.name().starts_with(prefix),
            None => told.name() == pattern,
        })
    }
}

/// A stored flag, or a notice.
#[derive(Debug, Clone, PartialEq)]
pub struct FlagView {
    /// Its identity.
    pub id: FlagId,
    /// Whom it is about: the id, `anonymous:…` for those without a known one.
    pub customer: String,
    /// The policy that raised it.
    pub policy: String,
    /// `flagged` is to be contacted; everything else is not. See [`Told::of`].
    pub kind: String,
    /// When the score reached the threshold.
    pub raised_at: Timestamp,
    /// The channel that the decision chose, if it chose one.
    pub channel: Option<String>,
    /// Most contacts by that channel a day that the policy allows, all customers together.
    pub daily_capacity: Option<u32>,
    /// What is at stake in minor units, where the flag says so. It only ranks: all of a house are taken for one currency.
    pub at_stake: Option<f64>,
    /// The score.
    pub score: f64,
    /// Everything.
    pub body: Value,
}

impl FlagView {
    /// Reads a stored flag; `None` for bytes that are none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(bytes).ok()?;
        let text = |field: &str| body.get(field).and_then(Value::as_str);
        Some(Self {
            id: FlagId::parse(text("id")?)?,
            customer: text("customer")?.to_owned(),
            policy: text("policy")?.to_owned(),
            kind: text("kind")?.to_owned(),
            raised_at: Timestamp::parse(text("raised_at")?).ok()?,
            channel: body.pointer("/plan/channel").and_then(Value::as_str).map(str::to_owned),
            daily_capacity: body
                .pointer("/plan/daily_capacity")
                .and_then(|most| u32::try_from(most.as_u64()?).ok()),
            at_stake: body.pointer("/plan/at_stake_minor").and_then(Value::as_f64),
            score: body.pointer("/score/value").and_then(Value::as_f64).unwrap_or_default(),
            body,
        })
    }

    /// Whether the flag asks for a contact at all.
    #[must_use]
    pub fn wants_contact(&self) -> bool {
        self.kind == "flagged"
    }

    /// What destinations are told of it as; `None` for what never leaves.
    #[must_use]
    pub fn told(&self) -> Option<Told> {
        Told::of(&self.kind)
    }

    /// The customer as a number: what keeps flags of one customer in order. Two customers that share one wait for each other
    /// needlessly, and nothing worse.
    #[must_use]
    pub fn customer_hash(&self) -> u64 {
        fingerprint([self.customer.as_bytes()])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A flag as the relance crate writes it.
    pub(crate) fn flag(number: u64, customer: &str) -> Value {
        json!({
            "id": format!("{number:032x}"), "workspace": "shop", "customer": customer, "policy": "win-back",
            "policy_version": "0123456789abcdef", "kind": "flagged",
            "score": {"kind": "attrition", "value": 0.71, "threshold": 0.6}, "raised_at": "2026-11-22T09:00:00.000Z",
            "stage": "at_risk", "reasons": [{"code": "silence", "text": "no visit for 40 days, usually every 9"}],
            "model": "btyd@0123456789ab",
        })
    }

    #[test]
    fn subscriptions_name_one_or_a_family() {
        let of = |pattern| Told::subscribed(pattern).collect::<Vec<_>>();
        assert_eq!(of("score.band"), [Told::BandChanged]);
        assert_eq!(of("relance.*"), [Told::Flagged, Told::Recalled]);
        assert_eq!(of("*"), Told::ALL);
        assert!(of("relance").is_empty() && of("rel*").is_empty() && of("").is_empty());
        assert!(Told::ALL.iter().all(|told| of(told.name()) == [*told]));
    }

    #[test]
    fn flags_of_today_and_of_tomorrow_are_read() {
        let mut body = flag(7, "C1");
        let read = |body: &Value| FlagView::read(body.to_string().as_bytes()).unwrap();
        let view = read(&body);
        assert_eq!(
            (view.id, view.at_stake, view.score),
            (FlagId(7u128.to_be_bytes()), None, 0.71)
        );
        assert!(view.wants_contact());
        body["plan"] = json!({"channel": "phone", "daily_capacity": 40, "at_stake_minor": 12_300, "currency": "EUR"});
        body["kind"] = json!("held_out");
        let view = read(&body);
        assert_eq!(
            (view.at_stake, view.channel.as_deref(), view.daily_capacity),
            (Some(12_300.0), Some("phone"), Some(40))
        );
        assert!(!view.wants_contact());
        assert!(FlagView::read(b"{}").is_none() && FlagView::read(b"\xff").is_none());
    }
}
