//! Record bytes: every version ever written is read, damage is an error, and decoding undoes encoding.

use proptest::prelude::*;
use std::path::Path;
use vigie_event::json::read;
use vigie_event::{
    Body, CodecError, Control, EventId, Forward, Link, Merge, MergePart, Offset, Origin, Partition, PersonId, Position,
    Record, Release, Tick, Timestamp, Workspace,
};

fn examples() -> Vec<(&'static str, Record)> {
    let workspace = Workspace::new("shop").unwrap();
    let (anonymous, known) = (PersonId::anonymous("a-1").unwrap(), PersonId::known("u-1").unwrap());
    let event = read(
        r#"{"id":"o-1","user_id":"u-1","signal":"purchase","timestamp":"2026-11-18T10:00:00Z","money":{"amount":12.5,"currency":"EUR"},"consent":{"profiling":"granted"}}"#,
        &super::json::receipt(),
    )
    .unwrap();
    let origin = Origin {
        position: Position {
            partition: Partition(7),
            offset: Offset(300),
        },
        index: 1,
    };
    let at = Timestamp(1_795_000_000_000);
    let by = EventId::new("o-1").unwrap();
    let release = Release {
        workspace: workspace.clone(),
        identity: anonymous.clone(),
        linked_to: known.clone(),
        holder: known.clone(),
        at,
        by: by.clone(),
    };
    vec![
        (
            "release",
            Record {
                origin: Some(origin),
                body: Body::Release(release),
            },
        ),
        (
            "forward",
            Record {
                origin: Some(origin),
                body: Body::Forward(Forward {
                    into: known.clone(),
                    event: Box::new(event.clone()),
                }),
            },
        ),
        ("event", Record::new(Body::Event(Box::new(event)))),
        ("tick", Record::new(Body::Tick(Tick { at }))),
        (
            "link",
            Record {
                origin: Some(origin),
                body: Body::Link(Link {
                    workspace: workspace.clone(),
                    from: anonymous.clone(),
                    to: known.clone(),
                    at,
                    by: by.clone(),
                }),
            },
        ),
        (
            "merge",
            Record {
                origin: Some(origin),
                body: Body::Merge(Merge {
                    workspace,
                    from: anonymous,
                    into: known,
                    at,
                    by,
                    parts: vec![MergePart { state: vec![1, 2, 3] }],
                }),
            },
        ),
        (
            "control",
            Record::new(Body::Control(Control::Activate {
                at,
                model: "m".into(),
                policies: "p".into(),
            })),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn fixtures_of_every_version_are_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/fixtures");
    for (name, record) in examples() {
        let path = dir.join(format!("record-v1-{name}.hex"));
        let encoded = hex(&record.encode());
        if std::env::var_os("UPDATE_EXPECT").is_some() && !path.exists() {
            std::fs::write(&path, format!("{encoded}\n")).unwrap();
        }
        let fixture =
            std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("fixture {} is missing", path.display()));
        let bytes: Vec<u8> = fixture
            .trim()
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record), "{name}");
        assert_eq!(
            encoded,
            fixture.trim(),
            "{name}: the bytes of version 1 must not change"
        );
    }
}

#[test]
fn damage_is_an_error_and_never_a_record() {
    for (name, record) in examples() {
        let bytes = record.encode();
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes[..cut]).is_err(), "{name} cut at {cut}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Record::decode(&longer), Err(CodecError::Body), "{name}");
    }
    assert_eq!(Record::decode(&[]), Err(CodecError::Empty));
    assert_eq!(Record::decode(&[9, 1, 2]), Err(CodecError::Version(9)));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
    }
}
