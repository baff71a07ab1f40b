//! Our own tracker: its size, its syntax, how it is served, and what its beacons become.

use crate::bench::{BROWSER, Bench, ORIGIN, gzip};
use axum::body::Body;
use http::{Request, StatusCode, header};
use std::path::Path;
use std::process::Command;
use vigie_event::{ConsentState, Purpose, Signal, Source};

#[tokio::test]
async fn the_script_is_small_and_cached() {
    let bench = Bench::new().await;
    let script = bench.send(Request::get("/t.js").body(Body::empty()).unwrap()).await;
    assert_eq!(script.headers[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
    assert!(
        script.headers[header::CACHE_CONTROL]
            .to_str()
            .unwrap()
            .contains("max-age=3600")
    );
    let small = gzip(&script.bytes).len();
    assert!(small < 4096, "{small} bytes in gzip");
    let tag = script.headers[header::ETAG].clone();
    let again = Request::get("/t.js")
        .header(header::IF_NONE_MATCH, tag)
        .body(Body::empty())
        .unwrap();
    let again = bench.send(again).await;
    assert_eq!((again.status, again.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
}

#[test]
fn the_script_is_javascript() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tracker/t.js");
    match Command::new("node").arg("--check").arg(&script).output() {
        Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr)),
        Err(error) => panic!("node is needed to check the script: {error}"),
    }
}

fn beacon(query: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut builder = Request::post(format!("/t{query}")).header(header::CONTENT_TYPE, "text/plain");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn beacons_are_taken_from_pages_that_may_send() {
    let body = r#"{"events":[{"id":"1","anonymous_id":"a","signal":"page.view","name":"Home"},{"id":"2","anonymous_id":"a","name":"x"}]}"#;
    let key = format!("?key={BROWSER}");
    for (query, headers, status, logged) in [
        (
            key.as_str(),
            vec![("origin", ORIGIN), ("user-agent", "Mozilla/5.0 Firefox/140.0")],
            204,
            2,
        ),
        (key.as_str(), vec![("origin", "https://evil.example")], 403, 0),
        ("", vec![("origin", ORIGIN)], 401, 0),
        ("?key=unknown-key", vec![("origin", ORIGIN)], 401, 0),
        ("?key=read-key-shop", vec![("origin", ORIGIN)], 403, 0),
    ] {
        let bench = Bench::new().await;
        let answer = bench.send(beacon(query, &headers, body)).await;
        assert_eq!(answer.status.as_u16(), status, "{query} {headers:?}");
        let events = bench.logged().await;
        assert_eq!(events.len(), logged);
        if let Some(event) = events.first() {
            assert_eq!((event.source, event.signal), (Source::Tracker, Signal::PageView));
            assert_eq!(event.client.user_agent.as_deref(), Some("Mozilla/5.0 Firefox/140.0"));
            assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], ORIGIN);
        }
    }
    let bench = Bench::new().await;
    let answer = bench.send(beacon(&key, &[("origin", ORIGIN)], "nonsense")).await;
    assert_eq!((answer.code().as_str(), bench.letters().await.len()), ("json", 1));
}

#[tokio::test]
async fn row_97_global_privacy_control_objects_unless_the_person_said_yes_here() {
    let headers = [("origin", ORIGIN), ("sec-gpc", "1")];
    for (body, word) in [
        (r#"{"anonymous_id":"a","signal":"page.view"}"#, ConsentState::Refused),
        (
            r#"{"anonymous_id":"a","signal":"page.view","consent":{"profiling":"granted"}}"#,
            ConsentState::Granted,
        ),
    ] {
        let bench = Bench::new().await;
        let answer = bench.send(beacon(&format!("?key={BROWSER}"), &headers, body)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(bench.logged().await[0].consent.get(&Purpose::Profiling), Some(&word));
    }
}
