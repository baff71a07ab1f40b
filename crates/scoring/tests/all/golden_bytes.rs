//! Persisted bytes of every version that was ever written, and what they must be read as.
//!
//! A fixture is never changed: a new version adds one. `UPDATE_EXPECT=1` writes the fixture of the current version only
//! when it does not exist.

use crate::scores::act;
use std::path::PathBuf;
use vigie_event::{
    AccountId, Channel, ConsentState, Currency, Day, Doubt, EventId, FlagId, Money, PersonId, PolicyId, Purpose,
    Signal, Timestamp,
};
use vigie_scoring::state::{
    Account, ConsentRecord, Contact, Course, Held, InBand, Phase, PolicyState, RaisedFlag, Refreshed, VERSION,
};
use vigie_scoring::{CodecError, CustomerState};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/all/fixtures")
}

/// A record that uses every field of a version.
fn everything(version: u8) -> CustomerState {
    let mut state = CustomerState::default();
    let person = PersonId::known("customer-1").unwrap();
    let device = PersonId::anonymous("6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f5b11").unwrap();
    for day in 1..=9 {
        for (hour, signal) in [
            (9, Signal::PageView),
            (9, Signal::ProductView),
            (21, Signal::EmailClick),
        ] {
            let _ = state.fold(&person, &act(&format!("1997-03-0{day}T{hour:02}:15:30.250Z"), signal));
        }
    }
    if version >= 3 {
        for (at, signal, id) in [
            (
                "1997-03-09T09:15:30.250Z",
                Signal::PageView,
                "6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f5b11",
            ),
            ("1997-03-09T21:15:30.250Z", Signal::EmailClick, "mail-1"),
            ("1997-03-10T09:00:00Z", Signal::PaymentFailed, "MSG-é"),
        ] {
            state.cite(&person, &act(at, signal), &EventId::new(id).unwrap());
        }
    }
    let _ = state.fold(&device, &act("1997-02-27T23:50:00Z", Signal::PageView));
    let _ = state.fold(&device, &act("1997-02-28T00:10:00Z", Signal::CartAdd));
    let mut purchase = act("1997-03-02T09:40:00Z", Signal::Purchase);
    let _ = state.fold(&person, &purchase);
    purchase.money = Some(Money {
        minor: 250_000,
        currency: Currency::parse("JPY").unwrap(),
    });
    purchase.at = Timestamp::parse("1997-03-08T09:40:00Z").unwrap();
    let _ = state.fold(&person, &purchase);
    purchase.signal = Signal::Refund;
    let _ = state.fold(&person, &purchase);
    purchase.signal = Signal::EmailOpen;
    purchase.human = false;
    let _ = state.fold(&person, &purchase);
    state.linked_to = Some(PersonId::known("customer-0").unwrap());
    let _ = state.note_link(&device);
    state.recent.insert(
        &EventId::new("event-1").unwrap(),
        0x0123_4567_89ab_cdef,
        // Whole seconds before version 4.
        Day(9928).start().plus_ms(if version >= 4 { 123 } else { 0 }),
        64,
    );
    let at = Timestamp(857_000_000_000);
    let policy = PolicyState {
        armed: false,
        last_flag: Some(RaisedFlag {
            at,
            id: FlagId([7; 16]),
        }),
        cooldown_until: Some(at.plus_ms(1)),
        refused: Some(3),
        policy_version: 300,
        course: (version >= 2).then_some(Course {
            phase: Phase::Contacted,
            since: at.plus_ms(5),
        }),
    };
    let _ = state.ledger.policies.insert(PolicyId::new("win-back").unwrap(), policy);
    state.ledger.note_contact(Contact {
        at,
        channel: Channel::Email,
        flag: Some(FlagId([7; 16])),
    });
    state.note_consent(
        Purpose::Marketing,
        ConsentRecord {
            at,
            state: ConsentState::Refused,
        },
    );
    state.timer = Some(at.plus_ms(2));
    state.rank = Some(512);
    state.refreshed = Some(Refreshed {
        at,
        attrition_ppm: Some(123_456),
        churn_ppm: None,
        model: u64::MAX,
    });
    state.last_received = at.plus_ms(-1);
    if version >= 3 {
        let in_band = InBand {
            version: 70_000,
            place: 2,
        };
        let _ = state.bands.insert(PolicyId::new("risk").unwrap(), in_band);
        state.note_account(Account {
            at,
            id: AccountId::new("ACME").unwrap(),
        });
        let mut click = act("1997-03-09T21:15:31Z", Signal::EmailClick);
        let _ = state.observe(&person, &click, 1000, 7);
        let _ = state.observe(&person, &click, 1000, 7);
        click.signal = Signal::EmailDelivered;
        let _ = state.observe(&device, &click, 1000, 0);
        state.hold(Held {
            at: at.plus_ms(9),
            identity: device.clone(),
            signal: Signal::EmailUnsubscribe,
            doubt: Doubt::Burst,
        });
        state.dismiss(at.plus_ms(8));
        let _given = state.bonds.give_away(&device, &person);
        let granted = ConsentRecord {
            at,
            state: ConsentState::Granted,
        };
        state.say(&person, Purpose::Profiling, granted);
        let _ = state.release(&PersonId::anonymous("device-2").unwrap());
    }
    state
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(48)
        .map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n")
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn every_version_is_read_as_it_was_meant() {
    let current = fixtures().join(format!("state-v{VERSION}.hex"));
    if !current.exists() && std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&current, hex(&everything(VERSION).encode())).unwrap();
    }
    for version in [1, 2, VERSION] {
        let path = fixtures().join(format!("state-v{version}.hex"));
        let bytes = unhex(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
        assert_eq!(bytes[0], version);
        let state = CustomerState::decode(&bytes).unwrap_or_else(|e| panic!("version {version}: {e}"));
        assert_eq!(state, everything(version), "version {version}");
        if version == VERSION {
            assert_eq!(
                hex(&state.encode()),
                hex(&bytes),
                "the bytes of version {version} have changed: make a new version"
            );
        }
    }
}

#[test]
fn unknown_versions_and_leftovers_are_errors_never_a_new_customer() {
    let mut bytes = everything(VERSION).encode();
    assert_eq!(CustomerState::decode(&[]), Err(CodecError::Empty));
    for version in [0, 3, VERSION + 1, u8::MAX] {
        bytes[0] = version;
        assert_eq!(CustomerState::decode(&bytes), Err(CodecError::Version(version)));
    }
    bytes[0] = VERSION;
    bytes.push(0);
    assert_eq!(CustomerState::decode(&bytes), Err(CodecError::Body));
    assert_eq!(CustomerState::decode(&[VERSION]), Err(CodecError::Body));
}

#[test]
fn a_typical_customer_is_small() {
    let mut state = CustomerState::default();
    let person = PersonId::known("customer-000001").unwrap();
    for day in [1, 4, 8, 9, 15, 16, 20, 22, 27, 30] {
        for (minute, signal) in [
            (12, Signal::PageView),
            (13, Signal::ProductView),
            (15, Signal::PageView),
            (31, Signal::CartAdd),
        ] {
            let _ = state.fold(
                &person,
                &act(
                    &format!("2026-06-{day:02}T{:02}:{minute}:07.123Z", 7 + day % 13),
                    signal,
                ),
            );
        }
    }
    for day in [4, 16, 27] {
        let _ = state.fold(
            &person,
            &act(&format!("2026-06-{day:02}T20:00:00.5Z"), Signal::Purchase),
        );
    }
    state.timer = Some(Timestamp::parse("2026-08-01").unwrap());
    state.last_received = Timestamp::parse("2026-07-01").unwrap();
    let without_ids = state.encode().len();
    println!("10 active days, 43 events, 3 purchases: {without_ids} bytes without ids");
    assert!(without_ids <= 300, "{without_ids} bytes");
    // A customer of whom a reason can quote two kinds of events: a UUID and its distance for each.
    for signal in [Signal::CartAdd, Signal::Purchase] {
        let id = EventId::new("6f1c1f0e-9f53-4c0e-8a38-0d0a4e6f5b11").unwrap();
        state.cite(&person, &act("2026-06-30T20:00:00.5Z", signal), &id);
    }
    let quoted = state.encode().len() - without_ids;
    println!("{quoted} bytes for two quoted events");
    assert!(quoted <= 2 * 24, "{quoted} bytes");
}
