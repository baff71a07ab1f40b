//! The table of bad inputs, rows 25 to 79: bytes in; status, code, events in the log and letters in the journal out.
//! (Rows 1 to 22, the transport, are in `transport.rs`; `docs/bad-inputs.md` lists all rows with their tests.)
//!
//! Not covered here, and why:
//!
//! - 32: zstd is not supported at all, so row 29 refuses it.
//! - 41: keys are sorted, never hashed: there is no hash to collide. Row 40 covers the count.
//! - 57, 58: in `rates.rs`.
//! - 63, 62 (its `duplicate` mark), 66, 70, 75 to 77, 79: judged behind the log (deduplication, identity, time, consent,
//!   agent), not by the collector; it must accept them, which row 62 to 63 and 70 assert here.
//! - 73: a signal that we do not know is refused (`no_signal`) unless it comes with a name; then it is custom.

use crate::bench::{BROWSER, Bench, HISTORY, NOW, ORIGIN, READ, WRITE, basic, gzip, post};
use axum::body::Body;
use http::{Request, StatusCode, header};
use proptest::prelude::*;
use std::time::Duration;
use vigie_ingestion::dead_letters::Stored;
use vigie_ingestion::keys::KeyRing;
use vigie_ingestion::limits::Limits;
use vigie_ingestion::log::{Fault, LogError};
use vigie_ingestion::protocol::email_id;

const GOOD: &str = r#"{"id":"e1","user_id":"u","signal":"page.view"}"#;

/// Sends and compares: status, code (`""` for none), events in the log, letters in the journal.
async fn check(row: &str, request: Request<Body>, expected: (u16, &str, usize, usize)) {
    let _letters: Vec<Stored> = kept(row, request, expected).await;
}

/// The same; answers the letters.
async fn kept(row: &str, request: Request<Body>, expected: (u16, &str, usize, usize)) -> Vec<Stored> {
    let bench = Bench::new().await;
    let answer = bench.send(request).await;
    let letters = bench.letters().await;
    let events = bench.logged().await.len();
    let got = (answer.status.as_u16(), answer.code(), events, letters.len());
    assert_eq!(
        got,
        (expected.0, expected.1.to_owned(), expected.2, expected.3),
        "row {row}: {}",
        answer.body
    );
    letters
}

fn batch(events: &[&str]) -> String {
    format!("{{\"events\":[{}]}}", events.join(","))
}

/// A bad event alone is 400; between good ones it is refused by its index, and kept in both cases.
async fn bad_event(row: &str, event: &str, code: &str) {
    let alone = kept(row, post("/v1/events", event.to_owned()), (400, code, 0, 1)).await;
    assert!(
        !alone[0].letter.accepted,
        "row {row}: what was answered 400 is in no book"
    );
    let between = batch(&[GOOD, event, GOOD]);
    let letters = kept(row, post("/v1/events", between), (200, code, 2, 1)).await;
    let letter = &letters[0].letter;
    assert_eq!(
        (letter.code.label(), letter.ordinal, letter.accepted),
        (code, 1, true),
        "row {row}"
    );
    assert!(
        event.as_bytes().starts_with(&letter.raw),
        "row {row}: the bytes are kept as they came"
    );
}

#[tokio::test]
async fn rows_25_to_35_size_encoding_media_type() {
    let with = |name: header::HeaderName, value: &str, body: Vec<u8>| {
        let mut request = post("/v1/events", body);
        let _old = request.headers_mut().insert(name, value.parse().unwrap());
        request
    };
    check("25", post("/v1/events", ""), (400, "empty", 0, 0)).await;
    check(
        "26",
        post("/v1/events", vec![b' '; (1 << 20) + 1]),
        (413, "body_too_large", 0, 0),
    )
    .await;
    check(
        "26 at the limit",
        post("/v1/events", vec![b' '; 1 << 20]),
        (400, "json", 0, 1),
    )
    .await;
    check(
        "26 announced",
        with(header::CONTENT_LENGTH, "1048577", Vec::new()),
        (413, "body_too_large", 0, 0),
    )
    .await;
    let bomb = gzip(&vec![b' '; 64 << 20]);
    check(
        "27",
        with(header::CONTENT_ENCODING, "gzip", bomb),
        (413, "inflate_limit", 0, 0),
    )
    .await;
    for encoding in ["br", "zstd", "deflate", "gzip, gzip", "nonsense"] {
        let bench = Bench::new().await;
        let answer = bench.send(with(header::CONTENT_ENCODING, encoding, GOOD.into())).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (415, "encoding"),
            "row 29 {encoding}"
        );
        assert_eq!(answer.headers[header::ACCEPT_ENCODING], "gzip");
    }
    let gzipped = gzip(GOOD.as_bytes());
    check(
        "declared gzip",
        with(header::CONTENT_ENCODING, "gzip", gzipped.clone()),
        (200, "", 1, 0),
    )
    .await;
    check(
        "30 plain as gzip",
        with(header::CONTENT_ENCODING, "gzip", GOOD.into()),
        (400, "encoding", 0, 0),
    )
    .await;
    check("30 gzip as plain", post("/v1/events", gzipped), (400, "encoding", 0, 0)).await;
    for media in [
        "text/html",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/json; charset=utf-16",
    ] {
        check(
            "33, 34",
            with(header::CONTENT_TYPE, media, GOOD.into()),
            (415, "media_type", 0, 0),
        )
        .await;
    }
    let mut missing = post("/v1/events", GOOD);
    let _old = missing.headers_mut().remove(header::CONTENT_TYPE);
    check("33", missing, (415, "media_type", 0, 0)).await;
    check(
        "34",
        with(header::CONTENT_TYPE, "application/json; charset=UTF-8", GOOD.into()),
        (200, "", 1, 0),
    )
    .await;
    check("34 BOM", post("/v1/events", format!("\u{feff}{GOOD}")), (200, "", 1, 0)).await;
    for bytes in [b"{\"a\":\"\x80\"}".as_slice(), b"\xc0\xaf", b"\xed\xa0\x80"] {
        let letters = kept("35", post("/v1/events", bytes), (400, "utf8", 0, 1)).await;
        assert_eq!(letters[0].letter.raw, bytes);
    }
}

#[tokio::test]
async fn rows_36_to_51_json() {
    bad_event(
        "36",
        r#"{"user_id":"u","signal":"search","name":"\ud800"}"#,
        "surrogate",
    )
    .await;
    bad_event("37", r#"{"user_id":"u\u0000","signal":"search"}"#, "id_charset").await;
    for text in [
        "{",
        "[1,]",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{'a':1}",
        "{}//",
        "{} {}",
        "nonsense",
    ] {
        check("38", post("/v1/events", text), (400, "json", 0, 1)).await;
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32));
    check("39", post("/v1/events", deep), (400, "json_depth", 0, 0)).await;
    check("39", post("/v1/events", "[".repeat(100_000)), (400, "json_depth", 0, 0)).await;
    let keys = |n: usize| {
        format!(
            "{{{}}}",
            (0..n).map(|i| format!("\"k{i}\":0")).collect::<Vec<_>>().join(",")
        )
    };
    check("40", post("/v1/events", keys(257)), (400, "json_keys", 0, 0)).await;
    check("40", post("/v1/events", keys(60_000)), (400, "json_keys", 0, 0)).await;
    bad_event("42", r#"{"user_id":"a","user_id":"b","signal":"search"}"#, "dup_key").await;
    bad_event(
        "42",
        r#"{"user_id":"a","signal":"search","properties":{"x":1,"\u0078":2}}"#,
        "dup_key",
    )
    .await;
    check(
        "42 envelope",
        post("/v1/events", r#"{"events":[],"events":[]}"#),
        (400, "dup_key", 0, 1),
    )
    .await;
    let long = |n: usize| {
        format!(
            r#"{{"user_id":"u","signal":"search","properties":{{"q":"{}"}}}}"#,
            "x".repeat(n)
        )
    };
    bad_event("44", &long(8193), "too_long").await;
    check("44 at the limit", post("/v1/events", long(8192)), (200, "", 1, 0)).await;
    bad_event(
        "44",
        &format!(r#"{{"user_id":"u","signal":"search","{}":1}}"#, "k".repeat(129)),
        "too_long",
    )
    .await;
    for shape in ["null", "[]", "42", "\"x\""] {
        check("45", post("/v1/events", shape), (400, "shape", 0, 0)).await;
    }
    check("46", post("/v1/events", r#"{"events":[]}"#), (400, "batch_size", 0, 0)).await;
    check(
        "46",
        post("/v1/events", batch(&vec!["{}"; 1001])),
        (413, "batch_size", 0, 0),
    )
    .await;
    let mut events = vec![GOOD; 999];
    check(
        "46 at the limit",
        post("/v1/events", batch(&[GOOD; 1000])),
        (200, "", 1000, 0),
    )
    .await;
    events.insert(500, "7");
    let letters = kept("47", post("/v1/events", batch(&events)), (200, "shape", 999, 1)).await;
    assert_eq!(letters[0].letter.ordinal, 500);
    let properties = vec![format!("\"{}\"", "x".repeat(8000)); 5].join(",");
    let large = format!(r#"{{"user_id":"u","signal":"search","properties":{{"q":[{properties}]}}}}"#);
    bad_event("48", &large, "event_too_large").await;
    let letters = kept(
        "48",
        post("/v1/events", batch(&[&large])),
        (200, "event_too_large", 0, 1),
    )
    .await;
    assert_eq!((letters[0].letter.raw.len(), letters[0].letter.cut), (4096, true));
    check(
        "50",
        post("/v1/events", r#"{"user_id":"u","signal":"search","new":1}"#),
        (200, "", 1, 0),
    )
    .await;
    let padded = format!("{}{GOOD}", " ".repeat(900 << 10));
    check("51", post("/v1/events", padded), (200, "", 1, 0)).await;
    let array = batch(&[r#"["e1","u",null,null,"search"]"#]);
    check("an array is no event", post("/v1/events", array), (200, "shape", 0, 1)).await;
}

#[tokio::test]
async fn rows_52_to_56_keys_and_origins() {
    let request = |key: Option<&str>, origin: Option<&str>| {
        let mut builder = Request::post("/v1/events").header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            builder = builder.header(header::AUTHORIZATION, key);
        }
        if let Some(origin) = origin {
            builder = builder.header(header::ORIGIN, origin);
        }
        builder.body(Body::from(GOOD)).unwrap()
    };
    let bearer = |key: &str| Some(format!("Bearer {key}"));
    check("52", request(None, None), (401, "auth_missing", 0, 0)).await;
    let mut bodies = Vec::new();
    for wrong in ["Bearer unknown-key", "Bearer x", "Basic bm9uc2Vuc2U6"] {
        let answer = Bench::new().await.send(request(Some(wrong), None)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (401, "auth"),
            "row 53 {wrong}"
        );
        bodies.push(answer.json()["detail"].clone());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "row 53: one same body");
    check("basic", request(Some(&basic(WRITE)), None), (200, "", 1, 0)).await;
    check(
        "key of another kind",
        request(bearer(READ).as_deref(), None),
        (403, "key_scope", 0, 0),
    )
    .await;
    check(
        "55",
        request(bearer(WRITE).as_deref(), Some(ORIGIN)),
        (403, "key_scope", 0, 0),
    )
    .await;
    check(
        "56",
        request(bearer(BROWSER).as_deref(), Some("https://evil.example")),
        (403, "origin", 0, 0),
    )
    .await;
    check(
        "browser",
        request(bearer(BROWSER).as_deref(), Some(ORIGIN)),
        (200, "", 1, 0),
    )
    .await;

    let bench = Bench::new().await;
    for (origin, allowed) in [(ORIGIN, true), ("https://evil.example", false)] {
        let preflight = Request::options("/v1/events")
            .header(header::ORIGIN, origin)
            .header(
                header::ACCESS_CONTROL_REQUEST_HEADERS,
                "authorization,sentat,x-retry-count",
            )
            .body(Body::empty())
            .unwrap();
        let answer = bench.send(preflight).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        let mirrored = answer
            .headers
            .get(header::ACCESS_CONTROL_ALLOW_ORIGIN)
            .map(|value| value.to_str().unwrap());
        assert_eq!(mirrored, allowed.then_some(origin), "row 56");
        assert_eq!(
            answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_HEADERS),
            allowed
        );
    }
    bench.keys.replace(KeyRing::default());
    assert_eq!(
        bench.events(GOOD).await.status,
        StatusCode::UNAUTHORIZED,
        "row 53: a revoked key"
    );
}

#[tokio::test]
async fn row_59_the_log_cannot_be_written() {
    let table = [
        (
            LogError::Overloaded {
                retry_after: Duration::from_millis(1500),
            },
            429,
            "overloaded",
            "2",
        ),
        (
            LogError::Unavailable {
                reason: "disk full".into(),
            },
            503,
            "unavailable",
            "5",
        ),
        (LogError::Poisoned { reason: "fsync".into() }, 503, "unavailable", "5"),
    ];
    for (error, status, code, after) in table {
        for (path, body) in [("/v1/events", GOOD), ("/v1/track", r#"{"userId":"u","event":"x"}"#)] {
            let bench = Bench::new().await;
            bench.log.inject(0, Fault::Refuse(error.clone()));
            let answer = bench.send(post(path, body)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (status, code),
                "{path}"
            );
            assert_eq!(answer.headers[header::RETRY_AFTER], after);
            assert!(
                !answer.body.contains("disk"),
                "what the system said is for the log only"
            );
            assert_eq!(bench.send(post(path, body)).await.status, StatusCode::OK, "it heals");
        }
        let bench = Bench::new().await;
        bench.journal.inject(0, Fault::Refuse(error.clone()));
        assert_eq!(
            bench.events("nonsense").await.status.as_u16(),
            status,
            "a letter is durable before the answer"
        );
    }
}

#[tokio::test]
async fn rows_60_to_64_identity() {
    let bench = Bench::new().await;
    assert_eq!(
        bench.events(r#"{"user_id":"u","signal":"search"}"#).await.status,
        StatusCode::OK
    );
    assert!(bench.logged().await[0].id.as_str().starts_with("derived-"), "row 60");
    let id = |id: &str| format!(r#"{{"id":{id},"user_id":"u","signal":"search"}}"#);
    bad_event("61", &id(&format!("\"{}\"", "x".repeat(201))), "id_len").await;
    bad_event("61", &id(r#""a\u0007""#), "id_charset").await;
    check("61", post("/v1/events", id(r#""🦊""#)), (200, "", 1, 0)).await;
    check("62", post("/v1/events", batch(&[GOOD, GOOD])), (200, "", 2, 0)).await;
    let other = r#"{"id":"e1","user_id":"u","signal":"search"}"#;
    check("63", post("/v1/events", batch(&[GOOD, other])), (200, "", 2, 0)).await;
    bad_event("64", r#"{"signal":"search"}"#, "no_identity").await;
}

#[tokio::test]
async fn row_67_what_is_stored_holds_no_such_address() {
    let url = "https://shop.example/?e=Bob%40example.com&a=1";
    let named = "bob@example.com";
    for (path, body) in [
        (
            "/v1/events",
            serde_json::json!({"anonymous_id": named, "signal": "page.view", "context": {"page_url": url}}),
        ),
        (
            "/v1/page",
            serde_json::json!({"anonymousId": named, "properties": {"url": url, "referrer": url}}),
        ),
        (
            "/com.snowplowanalytics.snowplow/tp2",
            serde_json::json!({"data": [{"e": "pv", "duid": named, "url": url, "refr": url}]}),
        ),
    ] {
        let bench = Bench::new().await;
        assert_eq!(
            bench.send(post(path, body.to_string())).await.status,
            StatusCode::OK,
            "{path}"
        );
        let event = bench.logged().await.remove(0);
        assert_eq!(event.person.key().unwrap().as_str(), email_id(named), "{path}");
        let told = format!("{event:?}").to_lowercase();
        assert!(!told.contains("bob") && told.contains("a=1"), "{path}: {told}");
    }
}

#[tokio::test]
async fn row_78_granted_consent_is_proven_where_that_is_required() {
    let hash = "0f".repeat(32);
    let proof = serde_json::json!({"wording": "banner 7", "wording_sha256": hash, "source": "banner"});
    let event = |word: &str, properties: &serde_json::Value, time: Option<&str>| {
        serde_json::json!({"user_id": "u", "name": "consent", "consent": {"profiling": word}, "timestamp": time,
            "properties": properties})
    };
    let time = Some("2026-11-18T10:00:00Z");
    let none = serde_json::json!({});
    let strict = Limits {
        consent_proof: true,
        ..Limits::default()
    };
    let mut table = vec![
        (event("granted", &proof, time), true),
        (event("granted", &proof, None), false),
        (event("granted", &none, time), false),
        (event("refused", &none, None), true),
    ];
    for missing in ["wording", "wording_sha256", "source"] {
        let mut less = proof.clone();
        let _proof = less.as_object_mut().unwrap().remove(missing);
        table.push((event("granted", &less, time), false));
        less[missing] = " ".into();
        table.push((event("granted", &less, time), false));
    }
    for (event, proven) in table {
        let bench = Bench::limited(strict).await;
        let (alone, batch) = (
            event.to_string(),
            serde_json::json!([event, {"user_id": "u", "name": "x"}]).to_string(),
        );
        let answer = bench.events(alone).await;
        let expected = if proven { (200, "") } else { (400, "consent_proof") };
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), expected, "{event}");
        let answer = bench.events(batch.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["accepted"].as_u64()),
            (200, Some(1 + u64::from(proven)))
        );
        assert_eq!(bench.letters().await.is_empty(), proven, "{event}");
        let beacon = Request::post(format!("/t?key={WRITE}"))
            .body(Body::from(batch))
            .unwrap();
        assert_eq!(bench.send(beacon).await.status, StatusCode::NO_CONTENT);
        assert_eq!(bench.letters().await.is_empty(), proven, "{event}");
        let lenient = Bench::new().await;
        assert_eq!(lenient.events(event.to_string()).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn row_96_a_cookie_is_nobodys_word() {
    let huge = format!("uid={}", "x".repeat(4096));
    for cookie in [
        "uid=mallory; sp=mallory; __Host-vigie=mallory",
        &huge,
        "uid=\"; path=/",
        "=;;=;",
    ] {
        let bench = Bench::new().await;
        let pixel = format!("/i?e=pv&aid={WRITE}&duid=ann&url=https%3A%2F%2Fshop.example%2F");
        let requests = [
            Request::get(pixel)
                .header(header::COOKIE, cookie)
                .body(Body::empty())
                .unwrap(),
            {
                let mut request = post("/v1/events", GOOD);
                let _none = request.headers_mut().insert(header::COOKIE, cookie.parse().unwrap());
                request
            },
        ];
        for request in requests {
            let answer = bench.send(request).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
            assert!(!answer.headers.contains_key(header::SET_COOKIE), "{:?}", answer.headers);
        }
        for event in bench.logged().await {
            assert!(
                ["ann", "u"].contains(&event.person.key().unwrap().as_str()),
                "{event:?}"
            );
            assert!(!event.payload.contains("mallory"), "{event:?}");
        }
    }
}

#[tokio::test]
async fn rows_68_to_75_time_money_consent() {
    let at = |time: &str| format!(r#"{{"id":"e","user_id":"u","signal":"search","timestamp":{time}}}"#);
    check("68", post("/v1/events", GOOD), (200, "", 1, 0)).await;
    bad_event("68", &at("\"yesterday\""), "ts_type").await;
    bad_event("68", &at("true"), "ts_type").await;
    check(
        "69",
        post("/v1/events", at(&(NOW.0 / 1000).to_string())),
        (200, "", 1, 0),
    )
    .await;
    bad_event("69", &at("1795000000000000000"), "ts_unit").await;
    for future in [NOW.plus_ms(600_000).0, NOW.plus_ms(172_800_000).0] {
        check("70", post("/v1/events", at(&future.to_string())), (200, "", 1, 0)).await;
    }
    check(
        "70",
        post("/v1/events", at("\"9999-01-01T00:00:00Z\"")),
        (200, "", 1, 0),
    )
    .await;
    let day = 86_400_000;
    bad_event("71", &at(&NOW.plus_ms(-401 * day).0.to_string()), "ts_too_old").await;
    bad_event("71", &at("\"1970-01-01T00:00:00Z\""), "ts_too_old").await;
    bad_event("71", &at("-5"), "ts_unit").await;
    check(
        "71 at the limit",
        post("/v1/events", at(&NOW.plus_ms(-400 * day).0.to_string())),
        (200, "", 1, 0),
    )
    .await;
    let mut history = post("/v1/events", at("\"1997-01-01\""));
    let _old = history
        .headers_mut()
        .insert(header::AUTHORIZATION, format!("Bearer {HISTORY}").parse().unwrap());
    check("71 history", history, (200, "", 1, 0)).await;
    bad_event("73", r#"{"user_id":"u","signal":"telepathy"}"#, "no_signal").await;
    check(
        "73",
        post("/v1/events", r#"{"user_id":"u","name":"telepathy"}"#),
        (200, "", 1, 0),
    )
    .await;
    let money = |amount: &str, currency: &str| {
        format!(r#"{{"user_id":"u","signal":"purchase","money":{{"amount":{amount},"currency":"{currency}"}}}}"#)
    };
    bad_event("74", &money("\"12,50\"", "EUR"), "value").await;
    bad_event("74", &money("-1e9", "EUR"), "value").await;
    bad_event("74", &money("1", "€€€"), "value").await;
    bad_event(
        "75",
        r#"{"user_id":"u","signal":"search","consent":{"profiling":"maybe"}}"#,
        "consent",
    )
    .await;
}

#[tokio::test]
async fn no_answer_echoes_input() {
    let bench = Bench::new().await;
    let canary = "canary-7f3a";
    for body in [
        format!(r#"{{"user_id":"{canary}","signal":"{canary}"}}"#),
        format!(r#"{{"user_id":"{canary}","{canary}":1,"{canary}":2}}"#),
        format!("{canary}{{"),
    ] {
        for path in [
            "/v1/events".to_owned(),
            "/v1/track".to_owned(),
            format!("/{canary}?{canary}"),
        ] {
            let answer = bench.send(post(&path, body.clone())).await;
            assert!(
                !answer.body.contains(canary) && !format!("{:?}", answer.headers).contains(canary),
                "{}",
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn retried_dead_letters_are_in_the_books() {
    let bench = Bench::new().await;
    let answer = bench.events(batch(&[GOOD, "{}", "[]"])).await;
    assert_eq!(answer.json()["accepted"], 1);
    assert_eq!(answer.json()["rejected"][1]["i"], 2);
    let counts = bench.intake.counts(&crate::bench::shop());
    assert_eq!(
        (counts.accepted, counts.dead_letter),
        (3, 2),
        "accepted = in the log + dead letters"
    );
    assert_eq!(bench.intake.dead_letters().accepted()[&crate::bench::shop()], 2);
}

fn answered(path: &'static str, body: Vec<u8>, encoding: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut request = post(path, body);
        if encoding {
            let _old = request
                .headers_mut()
                .insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        }
        let answer = Bench::new().await.send(request).await;
        assert!(
            [200, 400, 413, 415].contains(&answer.status.as_u16()),
            "{}",
            answer.status
        );
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the body is: an answer, and no panic.
    #[test]
    fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..200), encoding: bool) {
        for path in ["/v1/events", "/v1/track", "/v1/batch"] {
            answered(path, body.clone(), encoding);
        }
    }

    /// Bodies that come close to events.
    #[test]
    fn any_json_is_answered(
        body in r#"\{("(user_id|userId|signal|type|event|events|batch|timestamp|context|properties|messageId)":("u"|"track"|"purchase"|\[\]|\{\}|null|-?[0-9]{1,15}|\[\{"type":"track"\}\]|\{"revenue":-?[0-9.e]{1,5}\}),){0,5}"id":1\}"#,
    ) {
        for path in ["/v1/events", "/v1/track", "/v1/batch", "/v1/identify"] {
            answered(path, body.clone().into_bytes(), false);
        }
    }
}
