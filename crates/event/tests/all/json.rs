//! The canonical JSON shape: what is read, what is refused and with which code, and that the published schema agrees.

use vigie_event::json::{Receipt, SCHEMA, read};
use vigie_event::{Channel, PersonId, RejectCode, Signal, Timestamp, Workspace};

pub fn receipt() -> Receipt {
    Receipt {
        workspace: Workspace::new("shop").unwrap(),
        received_at: Timestamp(1_795_000_000_000),
        sent_at: None,
        user_agent: None,
        oldest: Some(Timestamp(1_760_000_000_000)),
    }
}

#[test]
fn a_full_event_is_read() {
    let text = r#"{"id":"o-1","user_id":42,"anonymous_id":"a","signal":"purchase","channel":"store","timestamp":"2026-11-18T10:00:00Z",
        "money":{"amount":12.5,"currency":"EUR"},"order_id":"1001","consent":{"profiling":"granted"},"context":{"user_agent":"UA"},"properties":{"n":1},"extra":true}"#;
    let event = read(text, &receipt()).unwrap();
    assert_eq!(event.person.key(), Some(&PersonId::known("42").unwrap()));
    assert_eq!((event.signal, event.channel), (Signal::Purchase, Channel::Store));
    assert_eq!(event.money.unwrap().to_string(), "12.50 EUR");
    assert_eq!(&*event.payload, text);
}

#[test]
fn each_fault_has_its_code() {
    let table: &[(&str, RejectCode)] = &[
        (r#"[]"#, RejectCode::Shape),
        (r#"{"signal":"purchase"}"#, RejectCode::NoIdentity),
        (
            r#"{"user_id":"","anonymous_id":null,"signal":"purchase"}"#,
            RejectCode::NoIdentity,
        ),
        (r#"{"user_id":{"a":1},"signal":"purchase"}"#, RejectCode::Shape),
        (r#"{"user_id":"a\u0000","signal":"purchase"}"#, RejectCode::IdCharset),
        (r#"{"user_id":"u"}"#, RejectCode::NoSignal),
        (r#"{"user_id":"u","signal":"buy"}"#, RejectCode::NoSignal),
        (
            r#"{"user_id":"u","signal":"purchase","channel":"tv"}"#,
            RejectCode::Channel,
        ),
        (
            r#"{"user_id":"u","signal":"purchase","timestamp":true}"#,
            RejectCode::TimeType,
        ),
        (
            r#"{"user_id":"u","signal":"purchase","timestamp":"soon"}"#,
            RejectCode::TimeType,
        ),
        (
            r#"{"user_id":"u","signal":"purchase","timestamp":1795000000000000000}"#,
            RejectCode::TimeUnit,
        ),
        (
            r#"{"user_id":"u","signal":"purchase","timestamp":-5}"#,
            RejectCode::TimeUnit,
        ),
        (
            r#"{"user_id":"u","signal":"purchase","timestamp":"1997-01-01"}"#,
            RejectCode::TimeTooOld,
        ),
        (
            r#"{"user_id":"u","signal":"purchase","money":{"amount":"12,50","currency":"EUR"}}"#,
            RejectCode::Value,
        ),
        (
            r#"{"user_id":"u","signal":"purchase","money":{"amount":1,"currency":"€€€"}}"#,
            RejectCode::Value,
        ),
        (
            r#"{"user_id":"u","signal":"purchase","consent":{"profiling":"maybe"}}"#,
            RejectCode::Consent,
        ),
    ];
    for (text, code) in table {
        assert_eq!(
            read(text, &receipt()).map_err(|invalid| invalid.code),
            Err(*code),
            "{text}"
        );
    }
    let long = format!(r#"{{"user_id":"{}","signal":"purchase"}}"#, "x".repeat(201));
    assert_eq!(
        read(&long, &receipt()).map_err(|invalid| invalid.code),
        Err(RejectCode::IdLength)
    );
}

#[test]
fn a_retry_has_the_same_fingerprint_and_other_content_another() {
    let at = |sent: &str, n: u32| {
        let text =
            format!(r#"{{"id":"1","user_id":"u","signal":"purchase","sent_at":"{sent}","properties":{{"n":{n}}}}}"#);
        read(&text, &receipt()).unwrap().fingerprint
    };
    assert_eq!(at("2026-11-18T10:00:00Z", 1), at("2026-11-18T10:00:09Z", 1));
    assert_ne!(at("2026-11-18T10:00:00Z", 1), at("2026-11-18T10:00:00Z", 2));
}

#[test]
fn the_schema_accepts_what_is_read_and_lists_every_signal_and_channel() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for signal in Signal::ALL {
        for channel in Channel::ALL {
            let event = serde_json::json!({"user_id": "u", "signal": signal.name(), "channel": channel.name(), "timestamp": 1795000000000_i64});
            assert!(validator.is_valid(&event), "{event}");
            assert!(read(&event.to_string(), &receipt()).is_ok(), "{event}");
        }
    }
    assert!(!validator.is_valid(&serde_json::json!({"signal": "purchase"})));
    assert!(!validator.is_valid(&serde_json::json!({"user_id": "u", "signal": "buy"})));
}
