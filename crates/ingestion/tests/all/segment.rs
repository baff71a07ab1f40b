//! The Segment API with bodies as the real clients send them.

use crate::bench::{ADMIN, BROWSER, Bench, NOW, ORIGIN, WRITE, basic, gzip};
use axum::body::Body;
use http::{Request, StatusCode, header};
use vigie_event::{Channel, ConsentState, Event, PersonId, Purpose, Signal, Source, Timestamp};

fn request(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header(header::AUTHORIZATION, basic(WRITE))
        .body(body.into())
        .unwrap()
}

async fn track(json: &str) -> Event {
    let bench = Bench::new().await;
    let answer = bench.send(request("/v1/track", json.to_owned())).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, r#"{"success":true}"#)
    );
    assert!(bench.letters().await.is_empty(), "{:?}", bench.letters().await);
    bench.logged().await.remove(0)
}

/// analytics-python 2.4 with `gzip=True`.
#[tokio::test]
async fn the_python_client() {
    let body = r#"{"batch": [{"timestamp": "2026-11-18T11:06:38.512345+00:00", "context": {"library": {"name": "analytics-python", "version": "2.4.0"}}, "integrations": {}, "type": "track", "event": "Order Completed", "userId": "42", "messageId": "8b0c6a61-1c4e-4d0a-9a54-3f3a6d9d5c11", "anonymousId": null, "properties": {"order_id": "1001", "revenue": 29.339999999999999, "currency": "EUR", "products": [{"sku": "G-32"}]}}, {"timestamp": "2026-11-18T11:06:38.612345+00:00", "context": {}, "type": "identify", "userId": "42", "messageId": "m2", "anonymousId": "a-1", "traits": {"plan": "gold"}}], "sentAt": "2026-11-18T11:06:39.000000+00:00", "writeKey": "write-key-shop"}"#;
    let bench = Bench::new().await;
    let mut request = request("/v1/batch", gzip(body.as_bytes()));
    let _old = request
        .headers_mut()
        .insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    let _old = request
        .headers_mut()
        .insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    let _old = request
        .headers_mut()
        .insert(header::USER_AGENT, "analytics-python/2.4.0".parse().unwrap());
    assert_eq!(bench.send(request).await.status, StatusCode::OK);
    let mut events = bench.logged().await;
    events.sort_by_key(|event| event.occurred_at);
    let [order, identify] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (order.signal, order.source, order.channel),
        (Signal::Purchase, Source::Segment, Channel::Web)
    );
    assert_eq!(order.money.unwrap().to_string(), "29.34 EUR");
    assert_eq!(order.order.as_deref(), Some("1001"));
    assert_eq!(order.id.as_str(), "8b0c6a61-1c4e-4d0a-9a54-3f3a6d9d5c11");
    assert_eq!(order.person.key(), Some(&PersonId::known("42").unwrap()));
    assert_eq!(order.occurred_at, Some(Timestamp(1_794_999_998_512)));
    assert_eq!(order.sent_at, Some(Timestamp(1_794_999_999_000)));
    assert_eq!(order.received_at, NOW);
    assert_eq!(
        order.client.user_agent, None,
        "a library's user agent is not the person's"
    );
    assert_eq!(identify.signal, Signal::Identify);
    assert_eq!(identify.person.anonymous, Some(PersonId::anonymous("a-1").unwrap()));
}

/// @segment/analytics-node 3.1: Basic, `/v1/batch`, key in the body as well, context per message.
#[tokio::test]
async fn the_node_client() {
    let body = r#"{"batch":[{"userId":"u7","event":"Product Viewed","properties":{"sku":"x"},"context":{"library":{"name":"@segment/analytics-node","version":"3.1.0"}},"integrations":{},"timestamp":"2026-11-18T11:06:38.000Z","type":"track","messageId":"node-next-1795-abc","_metadata":{"nodeVersion":"22.1.0"}},{"type":"alias","userId":"u7","previousId":"old-7","messageId":"m2","timestamp":"2026-11-18T11:06:38.000Z"},{"type":"group","userId":"u7","groupId":"g","messageId":"m3","timestamp":"2026-11-18T11:06:38.000Z"}],"writeKey":"write-key-shop","sentAt":"2026-11-18T11:06:39.000Z"}"#;
    let bench = Bench::new().await;
    assert_eq!(bench.send(request("/v1/batch", body)).await.status, StatusCode::OK);
    let events = bench.logged().await;
    let signals: Vec<_> = events.iter().map(|event| event.signal).collect();
    assert_eq!(signals, [Signal::ProductView, Signal::Alias, Signal::Group]);
    assert_eq!(events[1].person.previous.as_deref(), Some("old-7"));
    assert_eq!(events[2].order.as_deref(), Some("g"), "the company");
}

/// @segment/analytics-next 1.84 in a page: short path, `text/plain`, Origin, page and user agent in the context.
#[tokio::test]
async fn the_browser_client() {
    let body = r#"{"timestamp":"2026-11-18T11:06:38.900Z","integrations":{},"userId":null,"anonymousId":"b7c0-1","type":"page","properties":{"path":"/shoes","referrer":"https://search.example/","search":"","title":"Shoes","url":"https://u:p@shop.example/shoes"},"name":"Shoes","category":null,"context":{"page":{"path":"/shoes","referrer":"https://search.example/","title":"Shoes","url":"https://u:p@shop.example/shoes"},"userAgent":"Mozilla/5.0 Firefox/140.0","consent":{"categoryPreferences":{"Advertising":true,"profiling":true,"Marketing":false}},"locale":"fr","library":{"name":"analytics.js","version":"next-1.84.3"}},"messageId":"ajs-next-1","writeKey":"write-key-browser","sentAt":"2026-11-18T11:06:39.000Z","_metadata":{"bundled":["Segment.io"]}}"#;
    let bench = Bench::new().await;
    let request = Request::post("/v1/p")
        .header(header::AUTHORIZATION, basic(BROWSER))
        .header(header::CONTENT_TYPE, "text/plain")
        .header(header::ORIGIN, ORIGIN)
        .header(header::USER_AGENT, "Mozilla/5.0 Request")
        .body(Body::from(body))
        .unwrap();
    let answer = bench.send(request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], ORIGIN);
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    let page = bench.logged().await.remove(0);
    assert_eq!((page.signal, page.name.as_deref()), (Signal::PageView, Some("Shoes")));
    assert_eq!(page.person.key(), Some(&PersonId::anonymous("b7c0-1").unwrap()));
    assert_eq!(page.client.page_url.as_deref(), Some("https://shop.example/shoes"));
    assert_eq!(page.client.referrer.as_deref(), Some("https://search.example/"));
    assert_eq!(page.client.user_agent.as_deref(), Some("Mozilla/5.0 Firefox/140.0"));
    assert_eq!(page.consent.get(&Purpose::Profiling), Some(&ConsentState::Granted));
    assert_eq!(page.consent.get(&Purpose::Marketing), Some(&ConsentState::Refused));
    assert_eq!(page.consent.len(), 2);

    let settings = Request::get(format!("/v1/projects/{BROWSER}/settings"))
        .body(Body::empty())
        .unwrap();
    let answer = bench.send(settings).await;
    assert_eq!(answer.json()["integrations"]["Segment.io"]["apiKey"], BROWSER);
    let unknown = Request::get("/v1/projects/unknown-key/settings")
        .body(Body::empty())
        .unwrap();
    assert_eq!(bench.send(unknown).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_path_and_way_to_carry_the_key_works() {
    let message = r#"{"userId":"u","previousId":"o","event":"x","type":"track"}"#;
    for call in [
        "track", "identify", "page", "screen", "group", "alias", "t", "i", "p", "s", "g", "a",
    ] {
        for slash in ["", "/"] {
            let bench = Bench::new().await;
            let path = format!("/v1/{call}{slash}");
            assert_eq!(
                bench.send(request(&path, message)).await.status,
                StatusCode::OK,
                "{path}"
            );
            assert_eq!(bench.logged().await.len(), 1, "{path}");
            for method in ["HEAD", "OPTIONS"] {
                let probe = Request::builder()
                    .method(method)
                    .uri(&path)
                    .body(Body::empty())
                    .unwrap();
                assert!(bench.send(probe).await.status.is_success(), "{method} {path}");
            }
        }
    }
    let batch = format!(r#"{{"batch":[{message}],"writeKey":"{WRITE}"}}"#);
    for call in ["batch", "b", "m", "import"] {
        let bench = Bench::new().await;
        let bare = Request::post(format!("/v1/{call}"))
            .body(Body::from(batch.clone()))
            .unwrap();
        assert_eq!(bench.send(bare).await.status, StatusCode::OK, "{call}: key in the body");
        assert_eq!(bench.logged().await.len(), 1);
    }
    let bench = Bench::new().await;
    let query = Request::post(format!("/v1/track?writeKey={WRITE}"))
        .body(Body::from(message))
        .unwrap();
    assert_eq!(bench.send(query).await.status, StatusCode::OK, "key in the query");
    let oauth = Request::post("/v1/batch")
        .header(header::AUTHORIZATION, "Bearer eyJhbGciOi")
        .body(Body::from(batch));
    assert_eq!(
        bench.send(oauth.unwrap()).await.status,
        StatusCode::OK,
        "OAuth, key in the body"
    );
    assert_eq!(bench.logged().await.len(), 2);
}

#[tokio::test]
async fn bad_keys_are_refused() {
    let message = r#"{"userId":"u","event":"x"}"#;
    let bench = Bench::new().await;
    let table = [
        (Request::post("/v1/track"), message.to_owned(), 401, "auth_missing"),
        (
            Request::post("/v1/track").header(header::AUTHORIZATION, basic("unknown-key")),
            message.to_owned(),
            401,
            "auth",
        ),
        (
            Request::post("/v1/track?writeKey=unknown"),
            message.to_owned(),
            401,
            "auth",
        ),
        (
            Request::post("/v1/track"),
            r#"{"userId":"u","event":"x","writeKey":"unknown-key"}"#.to_owned(),
            401,
            "auth",
        ),
        (
            Request::post("/v1/track").header(header::AUTHORIZATION, basic(ADMIN)),
            message.to_owned(),
            403,
            "key_scope",
        ),
        (Request::post("/v1/track"), "nonsense".to_owned(), 400, "json"),
        (
            Request::post("/v1/track")
                .header(header::AUTHORIZATION, basic(BROWSER))
                .header(header::ORIGIN, "https://evil.example"),
            message.to_owned(),
            403,
            "origin",
        ),
    ];
    for (builder, body, status, code) in table {
        let answer = bench.send(builder.body(Body::from(body)).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
    }
    assert!(
        bench.logged().await.is_empty() && bench.letters().await.is_empty(),
        "nobody's garbage is not kept"
    );
}

#[tokio::test]
async fn events_mean_what_the_specification_says() {
    for (name, signal) in [
        ("Order Completed", Signal::Purchase),
        ("order_refunded", Signal::Refund),
        ("ORDER CANCELLED", Signal::OrderCancel),
        ("Product Added", Signal::CartAdd),
        ("Checkout Step Viewed", Signal::CheckoutStep),
        ("Email Link Clicked", Signal::EmailClick),
        ("Unsubscribed", Signal::EmailUnsubscribe),
        ("call.inbound", Signal::CallInbound),
        ("Sang A Song", Signal::Custom),
    ] {
        let event = track(&format!(r#"{{"userId":1,"event":"{name}","properties":null}}"#)).await;
        assert_eq!((event.signal, event.name.as_deref()), (signal, Some(name)));
    }
    let money = |properties: &str| format!(r#"{{"userId":"u","event":"Order Completed","properties":{properties}}}"#);
    for (properties, expected) in [
        (r#"{"revenue":25.005,"total":30,"currency":"eur"}"#, Some("25.01 EUR")),
        (r#"{"revenue":null,"total":"30.10"}"#, Some("30.10 USD")),
        (r#"{"value":1e2,"currency":"JPY"}"#, Some("100 JPY")),
        (r#"[]"#, None),
        (r#"{}"#, None),
    ] {
        assert_eq!(
            track(&money(properties))
                .await
                .money
                .map(|money| money.to_string())
                .as_deref(),
            expected,
            "{properties}"
        );
    }
    let store = track(r#"{"userId":"u","event":"Order Completed","properties":{"channel":"store","orderId":9}}"#).await;
    assert_eq!((store.channel, store.order.as_deref()), (Channel::Store, Some("9")));
    let server =
        track(r#"{"userId":"u","event":"Signed In","context":{"channel":"server"},"properties":{"channel":"tv"}}"#)
            .await;
    assert_eq!(server.channel, Channel::Web);
    let original =
        track(r#"{"userId":"u","event":"x","timestamp":null,"originalTimestamp":"2026-11-18T11:00:00Z"}"#).await;
    assert_eq!(original.occurred_at, Some(Timestamp(1_794_999_600_000)));
}

#[tokio::test]
async fn the_context_of_a_batch_reaches_its_messages() {
    let bench = Bench::new().await;
    let body = r#"{"context":{"userAgent":"UA","consent":{"categoryPreferences":{"profiling":false}}},"batch":[{"type":"page","userId":"u","messageId":"1"},{"type":"page","userId":"u","messageId":"2","context":{"userAgent":"own","consent":{"categoryPreferences":{"profiling":"yes"}}}}]}"#;
    assert_eq!(bench.send(request("/v1/batch", body)).await.status, StatusCode::OK);
    let events = bench.logged().await;
    let agents: Vec<_> = events
        .iter()
        .map(|event| event.client.user_agent.as_deref().unwrap())
        .collect();
    assert_eq!(agents, ["UA", "own"]);
    for event in &events {
        assert_eq!(
            event.consent.get(&Purpose::Profiling),
            Some(&ConsentState::Refused),
            "anything but true is a no"
        );
    }
}

#[tokio::test]
async fn a_retry_has_the_same_fingerprint() {
    let at = |sent: &str, retry: u32, n: u32| {
        format!(
            r#"{{"userId":"u","event":"x","messageId":"m","sentAt":"{sent}","context":{{"retry":{retry}}},"integrations":{{"a":{retry}}},"properties":{{"n":{n}}}}}"#
        )
    };
    let first = track(&at("2026-11-18T11:00:00Z", 0, 1)).await;
    let retry = track(&at("2026-11-18T11:00:09Z", 1, 1)).await;
    let other = track(&at("2026-11-18T11:00:00Z", 0, 2)).await;
    assert_eq!((first.fingerprint, &first.id), (retry.fingerprint, &retry.id));
    assert_ne!(first.fingerprint, other.fingerprint);
}

/// Segment answers 200 to whatever is JSON; what we cannot take is kept with its reason.
#[tokio::test]
async fn bad_messages_are_answered_200_and_kept() {
    for (path, body, code) in [
        ("/v1/track", r#"{"event":"x"}"#, "no_identity"),
        ("/v1/track", r#"{"userId":"u"}"#, "no_signal"),
        ("/v1/track", r#"{"userId":"u","event":"x","event":"y"}"#, "dup_key"),
        (
            "/v1/track",
            r#"{"userId":"u","event":"x","timestamp":"soon"}"#,
            "ts_type",
        ),
        (
            "/v1/track",
            r#"{"userId":"u","event":"x","timestamp":"2001-01-01"}"#,
            "ts_too_old",
        ),
        (
            "/v1/track",
            r#"{"userId":"u","event":"Order Completed","properties":{"revenue":"12,50"}}"#,
            "value",
        ),
        (
            "/v1/track",
            r#"{"userId":"u","event":"Order Completed","properties":{"revenue":-5}}"#,
            "value",
        ),
        (
            "/v1/track",
            r#"{"userId":"u","event":"Order Completed","properties":{"revenue":5,"currency":7}}"#,
            "value",
        ),
        ("/v1/alias", r#"{"userId":"u"}"#, "no_identity"),
        ("/v1/batch", r#"{"batch":[{"userId":"u","event":"x"}]}"#, "unknown_type"),
        (
            "/v1/batch",
            r#"{"batch":[{"type":"dance","userId":"u"}]}"#,
            "unknown_type",
        ),
        ("/v1/batch", r#"{"batch":[7]}"#, "shape"),
        ("/v1/batch", r#"{"batch":[["track","u"]]}"#, "shape"),
    ] {
        let bench = Bench::new().await;
        let answer = bench.send(request(path, body)).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::OK, r#"{"success":true}"#),
            "{body}"
        );
        let letters = bench.letters().await;
        assert_eq!(letters.len(), 1, "{body}");
        assert_eq!(
            (letters[0].letter.code.label(), letters[0].letter.accepted),
            (code, true),
            "{body}"
        );
        assert!(bench.logged().await.is_empty());
    }
    let bench = Bench::new().await;
    assert_eq!(
        bench.send(request("/v1/batch", r#"{"batch":[]}"#)).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn only_size_and_syntax_are_400() {
    let message = r#"{"type":"track","userId":"u","event":"x"}"#;
    let batch = |n: usize| format!(r#"{{"batch":[{}]}}"#, vec![message; n].join(","));
    let filled = |bytes: usize| {
        let fill = vec![format!("\"{}\"", "x".repeat(5000)); bytes / 5003].join(",");
        format!(r#"{{"userId":"u","event":"x","properties":{{"a":[{fill}]}}}}"#)
    };
    for (path, body, status, code, letters) in [
        ("/v1/batch", "nonsense".to_owned(), 400, "json", 1),
        ("/v1/batch", "[]".to_owned(), 400, "shape", 0),
        ("/v1/track", "null".to_owned(), 400, "shape", 0),
        ("/v1/track", String::new(), 400, "empty", 0),
        ("/v1/batch", batch(2501), 400, "batch_size", 0),
        ("/v1/batch", batch(2500), 200, "", 0),
        ("/v1/track", filled(40_000), 400, "event_too_large", 1),
        ("/v1/track", filled(30_000), 200, "", 0),
        ("/v1/track", " ".repeat(500 << 10) + "{}", 400, "body_too_large", 0),
    ] {
        let bench = Bench::new().await;
        let answer = bench.send(request(path, body)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert_eq!(bench.letters().await.len(), letters, "{code}");
    }
    let bench = Bench::new().await;
    assert_eq!(
        bench.send(request("/v1/track", gzip(message.as_bytes()))).await.status,
        StatusCode::OK,
        "gzip unannounced"
    );
    assert_eq!(bench.logged().await.len(), 1);
}
