//! How an act of the simulation becomes a canonical event: its JSON, its way to the collector, and the small accidents
//! on that way (delays, repetitions). It decides nothing about who does what.

use crate::demo::SimEvent;
use crate::demo::dice::Dice;
use serde::Serialize;
use vigie_event::{Channel, Signal, Timestamp};

/// Share of events that are sent a second time.
const DUPLICATES: f64 = 0.005;
/// Share of events that arrive late: a phone out of coverage, a batch job of the till.
const LATE: f64 = 0.02;

/// Events on their way.
#[derive(Default)]
pub(super) struct Outbox(Vec<SimEvent>);

/// One act, in the shape of the canonical event.
#[derive(Serialize)]
pub(super) struct Act {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) anonymous_id: Option<String>,
    pub(super) signal: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<&'static str>,
    pub(super) timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) money: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) order_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) consent: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<Context>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) properties: Option<serde_json::Value>,
    #[serde(skip)]
    at: Timestamp,
}

/// Euros as decimal text.
#[derive(Serialize)]
pub(super) struct Price {
    amount: String,
    currency: &'static str,
}

/// The software in use.
#[derive(Serialize)]
pub(super) struct Context {
    pub(super) user_agent: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) page_url: Option<String>,
}

impl Act {
    /// An act of nobody yet.
    pub(super) fn new(id: String, signal: Signal, at: Timestamp) -> Self {
        Self {
            id,
            user_id: None,
            anonymous_id: None,
            signal: signal.name(),
            name: None,
            channel: None,
            timestamp: at.to_string(),
            money: None,
            order_id: None,
            consent: None,
            context: None,
            properties: None,
            at,
        }
    }

    pub(super) fn over(mut self, channel: Channel) -> Self {
        self.channel = Some(channel.name());
        self
    }

    pub(super) fn paid(mut self, cents: i64, order: String) -> Self {
        self.money = Some(Price {
            amount: format!("{}.{:02}", cents / 100, cents % 100),
            currency: "EUR",
        });
        self.order_id = Some(order);
        self
    }

    pub(super) fn with(mut self, properties: serde_json::Value) -> Self {
        self.properties = Some(properties);
        self
    }

    pub(super) fn seen_on(mut self, user_agent: &'static str, page_url: Option<String>) -> Self {
        self.context = Some(Context { user_agent, page_url });
        self
    }
}

impl Outbox {
    /// Sends an act off; the network decides when it arrives, and whether twice.
    pub(super) fn send(&mut self, act: &Act, dice: &mut Dice) {
        let delay_ms = match dice.chance(LATE) {
            true => dice.whole(3_000, 4 * 3_600_000),
            false => dice.whole(20, 900),
        };
        // An act consists of texts and plain JSON values, which always serialise.
        let json = serde_json::to_string(act).unwrap_or_default();
        let event = SimEvent {
            received_at: act.at.plus_ms(delay_ms),
            occurred_at: act.at,
            json,
        };
        if dice.chance(DUPLICATES) {
            let again_ms = dice.whole(500, 2 * 3_600_000);
            self.0.push(SimEvent {
                received_at: event.received_at.plus_ms(again_ms),
                ..event.clone()
            });
        }
        self.0.push(event);
    }

    /// Everything that was sent.
    pub(super) fn take(self) -> Vec<SimEvent> {
        self.0
    }
}
