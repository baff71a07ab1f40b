//! The signals of the customer relation that are no web events: calls, tickets, complaints, surveys, loyalty, referrals and
//! payments, through `POST /v1/events`, with the fields that the schema documents.

use crate::bench::{Bench, post};
use serde_json::{Value, json};
use vigie_event::json::SCHEMA;
use vigie_event::{Channel, Signal};

#[tokio::test]
async fn every_documented_field_comes_with_its_signal() {
    use Channel::{Backend, Phone, Store, Web};
    let table = [
        (
            Signal::CallInbound,
            Phone,
            json!({"reason": "delivery", "wait_seconds": 42, "duration_seconds": 310, "agent": "7"}),
        ),
        (Signal::CallAbandoned, Phone, json!({"wait_seconds": 180})),
        (Signal::CallOutbound, Phone, json!({"result": "reached"})),
        (
            Signal::TicketOpened,
            Web,
            json!({"ticket_id": "T-1", "reason": "invoice"}),
        ),
        (Signal::TicketReplied, Backend, json!({"ticket_id": "T-1"})),
        (Signal::TicketClosed, Backend, json!({"ticket_id": "T-1"})),
        (
            Signal::ComplaintOpened,
            Phone,
            json!({"complaint_id": "C-1", "severity": "grave", "qualification": "receivable", "cause": "late"}),
        ),
        (
            Signal::ComplaintAcknowledged,
            Backend,
            json!({"complaint_id": "C-1", "promised_by": "2026-11-25"}),
        ),
        (
            Signal::ComplaintResolved,
            Backend,
            json!({"complaint_id": "C-1", "gesture": "voucher"}),
        ),
        (Signal::ComplaintClosed, Backend, json!({"complaint_id": "C-1"})),
        (Signal::ComplaintReopened, Phone, json!({"complaint_id": "C-1"})),
        (Signal::ComplaintResatisfied, Phone, json!({"complaint_id": "C-1"})),
        (Signal::SurveyNps, Web, json!({"score": 9, "comment": "good"})),
        (Signal::SurveyCsat, Web, json!({"score": 4, "scale": 5})),
        (Signal::ValueExpected, Web, json!({"score": 7, "scale": 10})),
        (Signal::ValuePerceived, Web, json!({"score": 5, "scale": 10})),
        (Signal::LoyaltyEarned, Backend, json!({"points": 120})),
        (Signal::LoyaltyRedeemed, Store, json!({"points": 500, "reward": "mug"})),
        (Signal::TierUp, Backend, json!({"tier": "gold"})),
        (Signal::TierDown, Backend, json!({"tier": "silver"})),
        (
            Signal::TierAboutToDrop,
            Backend,
            json!({"tier": "gold", "on": "2026-12-31"}),
        ),
        (Signal::ReferralSent, Web, json!({"referral_id": "R-1"})),
        (Signal::ReferralAccepted, Backend, json!({"referral_id": "R-1"})),
        (
            Signal::PaymentFailed,
            Backend,
            json!({"payment_id": "P-1", "failure": "card_expired", "attempt": 2}),
        ),
        (
            Signal::PaymentDisputed,
            Backend,
            json!({"payment_id": "P-1", "cause": "not_received"}),
        ),
    ];
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let documented = schema["properties"]["properties"]["description"].as_str().unwrap();
    let bench = Bench::new().await;
    let events: Vec<Value> = table
        .iter()
        .enumerate()
        .map(|(n, (signal, _, properties))| json!({"id": format!("e{n}"), "user_id": "42", "signal": signal.name(), "properties": properties}))
        .collect();
    let answer = bench
        .send(post("/v1/events", json!({"events": events}).to_string()))
        .await;
    assert_eq!(answer.json()["accepted"], table.len(), "{}", answer.body);
    let logged = bench.logged().await;
    for (n, (signal, channel, properties)) in table.iter().enumerate() {
        let event = logged
            .iter()
            .find(|event| event.id.as_str() == format!("e{n}"))
            .unwrap();
        assert_eq!((event.signal, event.channel), (*signal, *channel));
        let payload: Value = serde_json::from_str(&event.payload).unwrap();
        assert_eq!(payload["properties"], *properties, "kept as they came");
        for field in properties.as_object().unwrap().keys() {
            assert!(
                documented.contains(&format!("`{field}`")),
                "{field} of {signal} is not documented in the schema"
            );
        }
    }
}
