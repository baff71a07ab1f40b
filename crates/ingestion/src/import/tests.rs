//! Lines and what becomes of them. The oracle for an event is the collector's own reader.

use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_790_000_000_000);

fn mapping(text: &str) -> Mapping {
    // The binary reads TOML; the same keys in JSON need no further crate here.
    serde_json::from_str(text).unwrap()
}

fn import(text: &[u8], format: Format, mapping: Option<&Mapping>) -> Vec<Line> {
    Import::new(text, format, mapping, NOW)
        .unwrap()
        .map(|line| line.unwrap())
        .collect()
}

fn refusal(text: &[u8], format: Format, mapping: Option<&Mapping>) -> String {
    match Import::new(text, format, mapping, NOW) {
        Err(error) => error.to_string(),
        Ok(import) => panic!("{:?}", import.collect::<Vec<_>>()),
    }
}

fn event(line: &Line) -> vigie_event::Event {
    let Outcome::Event(json) = &line.outcome else {
        panic!("{line:?}")
    };
    let receipt = Receipt {
        workspace: Workspace::new("w").unwrap(),
        received_at: NOW,
        sent_at: None,
        user_agent: None,
        oldest: None,
    };
    vigie_event::json::read(json, &receipt).unwrap()
}

fn codes(lines: &[Line]) -> Vec<(u64, &'static str)> {
    let code = |line: &Line| match &line.outcome {
        Outcome::Event(_) => (line.number, "event"),
        Outcome::Skipped => (line.number, "skipped"),
        Outcome::Refused(refusal, _) => (line.number, refusal.code()),
    };
    lines.iter().map(code).collect()
}

fn ids(lines: &[Line]) -> Vec<String> {
    lines.iter().map(|line| event(line).id.as_str().to_owned()).collect()
}

#[test]
fn every_column_arrives_where_the_mapping_says() {
    let mapping = mapping(
        r#"{"customer": "client", "time": "le", "time-format": "%d/%m/%Y %H:%M", "utc-offset": "+02:00", "signal-column": "quoi",
            "signals": {"achat": "purchase", "retour": "refund", "vu": "skip"}, "amount": "montant", "currency": "eur", "decimal": ",",
            "quantity": "nb", "order": "commande", "properties": ["pays", "code"], "separator": ";", "encoding": "latin-1"}"#,
    );
    let text = "client;le;quoi;montant;nb;commande;pays;code\n\
                c1;03/08/2026 09:05;achat;1 234,50;3;o1;Bel\u{e9}m;007\n\
                c1;04/08/2026 09:05;retour;-12,00;;o1;;7\n\
                c2;04/08/2026 09:05;vu;;;;;\n\
                c3;04/08/2026 10:00;cadeau;;;;;\n";
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let lines = import(&latin, Format::Csv, Some(&mapping));
    assert_eq!(
        codes(&lines),
        [(2, "event"), (3, "event"), (4, "skipped"), (5, "event")]
    );
    let (bought, back, gift) = (event(&lines[0]), event(&lines[1]), event(&lines[3]));
    assert_eq!(
        (bought.person.user.as_ref().unwrap().as_str(), bought.signal),
        ("c1", Signal::Purchase)
    );
    assert_eq!(bought.occurred_at.unwrap().to_string(), "2026-08-03T07:05:00.000Z");
    let money = bought.money.unwrap();
    assert_eq!(
        (money.minor, money.currency.as_str(), bought.order.as_deref()),
        (123_450, "EUR", Some("o1"))
    );
    let properties: serde_json::Value = serde_json::from_str(&bought.payload).unwrap();
    assert_eq!(
        properties["properties"],
        serde_json::json!({"pays": "Bel\u{e9}m", "code": "007", "quantity": 3})
    );
    assert_eq!((back.signal, back.money.unwrap().minor), (Signal::Refund, 1_200));
    assert_eq!((gift.signal, gift.name.as_deref()), (Signal::Custom, Some("cadeau")));
}

#[test]
fn lines_that_give_no_event_say_why_and_keep_their_text() {
    let text = b"customer_id,time,amount,currency\na,1997-01-01,11.5,EUR\n,1997-01-02,1,EUR\nb,soon,1,EUR\nb,1997-01-02,x,EUR\n\
                 b,1997-01-02,-1,EUR\nb,1997-01-02\nb,1997-01-02,1,EURO\n\"b,\xff\",1997-01-02,1,EUR\nb,1997-01-02,0,EUR\n";
    let lines = import(text, Format::Csv, Some(&Mapping::default()));
    assert_eq!(
        codes(&lines),
        [
            (2, "event"),
            (3, "no_customer"),
            (4, "time"),
            (5, "amount"),
            (6, "negative"),
            (7, "malformed"),
            (8, "amount"),
            (9, "malformed"),
            (10, "event"),
        ]
    );
    let Outcome::Refused(_, kept) = &lines[4].outcome else {
        panic!()
    };
    assert_eq!(kept, "b,1997-01-02,-1,EUR");
    let refund = Mapping {
        negative: Negative::Refund,
        ..Mapping::default()
    };
    let lines = import(text, Format::Csv, Some(&refund));
    assert_eq!(
        (event(&lines[4]).signal, event(&lines[4]).money.unwrap().minor),
        (Signal::Refund, 100)
    );
}

#[test]
fn a_mapping_that_does_not_fit_names_what_is_missing_and_what_is_there() {
    let said = refusal(b"id,when,sum\n1,2,3\n", Format::Csv, None);
    for part in ["\"customer_id\" for customer", "\"time\" for time", "id, when, sum"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(refusal(b"a;b;c\n", Format::Csv, None).contains("separator"));
    assert!(refusal(b"customer_id,time,amount\n", Format::Csv, None).contains("--currency"));
    assert!(refusal(b"", Format::Csv, None).contains("empty"));
    let object = b"{\"user\": 1, \"at\": 2}\n";
    assert!(
        refusal(object, Format::JsonLines, Some(&Mapping::default())).contains("user"),
        "keys of the first line"
    );
    for (wrong, named) in [
        (r#"{"time-format": "%H:%M"}"#, "time-format"),
        (r#"{"utc-offset": "Paris"}"#, "utc-offset"),
        (r#"{"signal": "bought"}"#, "signal"),
        (r#"{"signals": {"x": "bought"}}"#, "signals"),
        (r#"{"currency": "EURO"}"#, "currency"),
        (r#"{"separator": "é"}"#, "separator"),
    ] {
        let said = refusal(b"customer_id,time\n", Format::Csv, Some(&mapping(wrong)));
        assert!(said.starts_with(named), "{wrong}: {said}");
    }
    assert!(
        serde_json::from_str::<Mapping>(r#"{"custmer": "x"}"#)
            .unwrap_err()
            .to_string()
            .contains("custmer")
    );
}

#[test]
fn ids_do_not_depend_on_place_and_tell_repeated_lines_apart() {
    let head = "customer_id,time,amount,currency\n";
    let (a, b) = ("a,1997-01-01,1,EUR\n", "b,1997-01-01,1,EUR\n");
    let read = |lines: &[&str]| {
        ids(&import(
            (head.to_owned() + &lines.concat()).as_bytes(),
            Format::Csv,
            Some(&Mapping::default()),
        ))
    };
    let first = read(&[a, a, b]);
    assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert_eq!(read(&[a, a, b]), first);
    // A later export of the same shop, in another order and with more.
    let later = read(&[b, a, "c,1997-01-02,1,EUR\n", a]);
    assert_eq!((&later[0], &later[1], &later[3]), (&first[2], &first[0], &first[1]));
    let named = mapping(r#"{"id": "amount", "currency": "EUR"}"#);
    let own = import((head.to_owned() + a).as_bytes(), Format::Csv, Some(&named));
    assert_eq!(ids(&own), ["1"]);
}

#[test]
fn lines_of_json_are_events_or_are_mapped() {
    let text = "{\"user_id\":\"a\",\"signal\":\"page.view\",\"timestamp\":\"2026-01-01\"}\n\n  {\"id\":\"mine\",\"user_id\":\"a\",\"signal\":\"purchase\"}\nnot json\n{}\n\
                {\"user_id\":\"a\",\"user_id\":\"b\",\"signal\":\"purchase\"}\n[1]";
    let lines = import(text.as_bytes(), Format::JsonLines, None);
    assert_eq!(
        codes(&lines),
        [
            (1, "event"),
            (3, "event"),
            (4, "malformed"),
            (5, "no_customer"),
            (6, "dup_key"),
            (7, "malformed")
        ]
    );
    assert!(ids(&lines[..1])[0].starts_with("import-"));
    assert_eq!(ids(&lines[1..2]), ["mine"]);
    let nested = mapping(r#"{"customer": "who.id", "time": "at", "amount": "total", "currency": "USD"}"#);
    let line = br#"{"who": {"id": 7}, "at": 1790000000, "total": 12.5}"#;
    let read = event(&import(line, Format::JsonLines, Some(&nested))[0]);
    assert_eq!(
        (read.person.user.unwrap().as_str(), read.money.unwrap().minor),
        ("7", 1_250)
    );
    assert_eq!(import(b"", Format::JsonLines, Some(&nested)), []);
}

#[test]
fn a_line_that_is_too_long_does_not_fill_the_memory() {
    let mut json = b"{\"user_id\":\"".to_vec();
    json.resize(3 << 20, b'a');
    json.extend_from_slice(b"\"}\n{\"user_id\":\"a\",\"signal\":\"purchase\"}\n");
    assert_eq!(
        codes(&import(&json, Format::JsonLines, None)),
        [(1, "malformed"), (2, "event")]
    );
    let mut csv = b"customer_id,time\na,1997-01-01\n\"b,1997-01-01\n".to_vec();
    csv.resize(9 << 20, b'x');
    let mut lines = Import::new(csv.as_slice(), Format::Csv, Some(&Mapping::default()), NOW).unwrap();
    assert!(matches!(
        lines.next(),
        Some(Ok(Line {
            number: 2,
            outcome: Outcome::Event(_)
        }))
    ));
    assert!(lines.next().unwrap().unwrap_err().to_string().contains("quote"));
    assert!(lines.next().is_none());
}

#[test]
fn times_are_read_where_they_are_certain() {
    let read = |mapping: &str, text: &str| {
        Times::of(&self::mapping(mapping))
            .unwrap()
            .read(text)
            .map(|at| at.to_string())
    };
    let cases = [
        ("{}", "2024-03-13 10:21:14", Some("2024-03-13T10:21:14.000Z")),
        ("{}", "2024-03-13T10:21:14+02:00", Some("2024-03-13T08:21:14.000Z")),
        ("{}", "2024-03-13", Some("2024-03-13T00:00:00.000Z")),
        ("{}", "1710325274", Some("2024-03-13T10:21:14.000Z")),
        ("{}", "13/03/2024", None),
        ("{}", "12", None),
        (
            r#"{"utc-offset": "-05:30"}"#,
            "2024-03-13",
            Some("2024-03-13T05:30:00.000Z"),
        ),
        (
            r#"{"utc-offset": "-05:30"}"#,
            "2024-03-13T00:00:00Z",
            Some("2024-03-13T00:00:00.000Z"),
        ),
        (
            r#"{"time-format": "%d.%m.%Y"}"#,
            "13.03.2024",
            Some("2024-03-13T00:00:00.000Z"),
        ),
        (r#"{"time-format": "%d.%m.%Y"}"#, "2024-03-13", None),
        (
            r#"{"time-format": "%d/%b/%Y:%H:%M:%S %z"}"#,
            "13/Mar/2024:10:21:14 +0100",
            Some("2024-03-13T09:21:14.000Z"),
        ),
        (
            r#"{"time-format": "%m/%d/%Y %I:%M %p", "utc-offset": "+01:00"}"#,
            "03/13/2024 01:05 PM",
            Some("2024-03-13T12:05:00.000Z"),
        ),
    ];
    for (mapping, text, wanted) in cases {
        assert_eq!(read(mapping, text).as_deref(), wanted, "{mapping} {text}");
    }
}

proptest! {
    /// Every line is accounted for, whatever the bytes; what is an event is one by the collector's word.
    #[test]
    fn any_bytes_balance(bytes in prop::collection::vec(prop_oneof![Just(b','), Just(b'\n'), Just(b'"'), Just(b'{'), any::<u8>()], 0..400)) {
        for (format, mapping) in [(Format::Csv, Some(Mapping::default())), (Format::JsonLines, None), (Format::JsonLines, Some(Mapping::default()))] {
            let mut input = if format == Format::Csv { b"customer_id,time\n".to_vec() } else { Vec::new() };
            input.extend_from_slice(&bytes);
            let Ok(lines) = Import::new(input.as_slice(), format, mapping.as_ref(), NOW) else { continue };
            let mut before = 0;
            for line in lines {
                let line = line.unwrap();
                // A carriage return alone ends a line of CSV, and is not counted as one.
                prop_assert!(line.number >= before);
                before = line.number;
                if let Outcome::Event(_) = line.outcome {
                    let _ = event(&line);
                }
            }
        }
    }
}
