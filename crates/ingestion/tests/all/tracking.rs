//! The other tracking protocols, with bodies as their real clients send them: what is taken, and what is answered.

use crate::bench::{Answer, BROWSER, Bench, NOW, ORIGIN, READ, WRITE, basic, gzip};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use std::time::Duration;
use vigie_event::{Event, PersonId, Signal, Source, Timestamp};
use vigie_ingestion::log::{Fault, LogError};

const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00";

async fn call(bench: &Bench, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    bench.send(builder.body(body.into()).unwrap()).await
}

async fn post(bench: &Bench, path: &str, body: impl Into<Body>) -> Answer {
    call(bench, Method::POST, path, &[], body).await
}

async fn get(bench: &Bench, path: &str) -> Answer {
    call(bench, Method::GET, path, &[], "").await
}

fn is_pixel(answer: &Answer) -> bool {
    answer.bytes.starts_with(GIF)
        && answer.bytes.len() == 43
        && answer.headers[header::CONTENT_TYPE] == "image/gif"
        && answer.headers[header::CACHE_CONTROL] == "no-store, private"
}

async fn only(bench: &Bench) -> Event {
    let letters = bench.letters().await;
    assert!(letters.is_empty(), "{:?}", letters[0].letter);
    let mut events = bench.logged().await;
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

fn known(id: &str) -> PersonId {
    PersonId::known(id).unwrap()
}

// Snowplow.

fn snowplow(data: &Value) -> String {
    json!({"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": [data]}).to_string()
}

/// snowplow-tracker 1.1 for Python: everything is text, the page in `url`.
#[tokio::test]
async fn snowplow_payloads() {
    let bench = Bench::new().await;
    let data = json!({"e": "pv", "url": "https://u:p@shop.example/shoes", "page": "Shoes", "eid": "2a9a5c2e-1", "dtm": "1794999998000",
        "stm": "1794999999000", "p": "web", "tv": "py-1.1.0", "tna": "sp", "aid": WRITE, "uid": "42", "duid": "d-1", "ua": "Mozilla/5.0 Firefox/140.0"});
    let answer = post(&bench, "/com.snowplowanalytics.snowplow/tp2", snowplow(&data)).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "ok"));
    let event = only(&bench).await;
    assert_eq!(
        (event.signal, event.source, event.name.as_deref()),
        (Signal::PageView, Source::Snowplow, Some("Shoes"))
    );
    assert_eq!(
        (event.id.as_str(), event.person.user, event.person.anonymous),
        (
            "2a9a5c2e-1",
            Some(known("42")),
            Some(PersonId::anonymous("d-1").unwrap())
        )
    );
    assert_eq!(
        (event.occurred_at, event.sent_at),
        (Some(Timestamp(1_794_999_998_000)), Some(Timestamp(1_794_999_999_000)))
    );
    assert_eq!(event.client.page_url.as_deref(), Some("https://shop.example/shoes"));
    // An attempt later, only the time of sending differs.
    let mut again = data.clone();
    again["stm"] = json!("1795000009000");
    let answer = call(
        &bench,
        Method::POST,
        "/com.snowplowanalytics.snowplow/tp2",
        &[],
        snowplow(&again),
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        bench
            .logged()
            .await
            .iter()
            .all(|one| one.fingerprint == event.fingerprint)
    );
}

#[tokio::test]
async fn snowplow_events_and_their_meaning() {
    let px = |schema: &str, data: Value| {
        let inner = json!({"schema": format!("iglu:com.x/{schema}/jsonschema/1-0-0"), "data": data});
        URL_SAFE_NO_PAD.encode(
            json!({"schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0", "data": inner})
                .to_string(),
        )
    };
    let context = URL_SAFE_NO_PAD.encode(
        json!({"schema": "contexts", "data": [{"schema": "iglu:com.snowplowanalytics.snowplow.ecommerce/transaction/jsonschema/1-0-0",
            "data": {"transaction_id": "1001", "revenue": 29.34, "currency": "EUR"}}]})
        .to_string(),
    );
    for (data, signal, name) in [
        (
            json!({"e": "se", "se_ca": "shop", "se_ac": "add-to-cart"}),
            Signal::CartAdd,
            "shop add-to-cart",
        ),
        (
            json!({"e": "se", "se_ca": "video", "se_ac": "play"}),
            Signal::Custom,
            "video play",
        ),
        (json!({"e": "pp"}), Signal::Custom, "page_ping"),
        (json!({"e": "ti"}), Signal::Custom, "transaction_item"),
        (
            json!({"e": "tr", "tr_id": "1001", "tr_tt": "29.34", "tr_cu": "EUR"}),
            Signal::Purchase,
            "",
        ),
        (
            json!({"e": "ue", "ue_px": px("link_click", json!({}))}),
            Signal::LinkClick,
            "link_click",
        ),
        (
            json!({"e": "ue", "ue_px": px("unheard_of", json!({}))}),
            Signal::Custom,
            "unheard_of",
        ),
        (
            json!({"e": "ue", "ue_px": px("snowplow_ecommerce_action", json!({"type": "transaction"})), "cx": context}),
            Signal::Purchase,
            "transaction",
        ),
    ] {
        let bench = Bench::new().await;
        let mut data = data;
        data["aid"] = json!(WRITE);
        data["uid"] = json!("42");
        assert_eq!(
            post(&bench, "/x/tp2", snowplow(&data)).await.status,
            StatusCode::OK,
            "{data}"
        );
        let event = only(&bench).await;
        assert_eq!(
            (event.signal, event.name.as_deref().unwrap_or("")),
            (signal, name),
            "{data}"
        );
        if signal == Signal::Purchase {
            assert_eq!(
                (event.money.unwrap().to_string().as_str(), event.order.as_deref()),
                ("29.34 EUR", Some("1001"))
            );
        }
    }
}

#[tokio::test]
async fn snowplow_pixels_are_pictures_whatever_they_say() {
    let bench = Bench::new().await;
    let answer = get(
        &bench,
        &format!("/i?e=pv&aid={WRITE}&duid=d&url=https%3A%2F%2Fshop.example%2F&page=Shoes"),
    )
    .await;
    assert!(answer.status == StatusCode::OK && is_pixel(&answer));
    assert_eq!(only(&bench).await.name.as_deref(), Some("Shoes"));
    for path in [
        "/i",
        "/i?e=pv",
        "/i?e=%ff&aid=unknown-key",
        "/ice.png?e=zz&aid=write-key-shop",
    ] {
        let answer = get(&bench, path).await;
        assert!(answer.status == StatusCode::OK && is_pixel(&answer), "{path}");
    }
    assert_eq!(bench.logged().await.len(), 1);
    for (body, key, status) in [
        ("{}", WRITE, 400),
        ("nonsense", WRITE, 400),
        (r#"{"data":[]}"#, WRITE, 400),
        (r#"{"data":[{"e":"pv","uid":"u"}]}"#, "unknown-key", 401),
        (r#"{"data":[{"e":"pv","uid":"u"}]}"#, READ, 403),
    ] {
        let headers = [("authorization", basic(key))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = call(
            &bench,
            Method::POST,
            "/com.snowplowanalytics.snowplow/tp2",
            &headers,
            body,
        )
        .await;
        assert_eq!(answer.status.as_u16(), status, "{body}");
    }
}

// PostHog.

fn posthog_event(event: &str, distinct: &str, properties: Value) -> Value {
    json!({"event": event, "uuid": format!("u-{event}"), "distinct_id": distinct, "timestamp": "2026-11-18T11:06:38.000Z", "properties": properties})
}

/// posthog-js 1.449 in a page: gzip as `text/plain` without a hint, the key among the properties.
#[tokio::test]
async fn the_posthog_browser_client() {
    let bench = Bench::new().await;
    let properties = json!({"$device_id": "d-1", "distinct_id": "d-1", "token": BROWSER, "$current_url": "https://shop.example/",
        "$raw_user_agent": "Mozilla/5.0 Firefox/140.0", "$referrer": "$direct", "title": "Home"});
    let body = json!([posthog_event("$pageview", "d-1", properties)]);
    let headers = [("content-type", "text/plain"), ("origin", ORIGIN)];
    let answer = call(
        &bench,
        Method::POST,
        "/e/?compression=gzip-js&ip=0&_=1",
        &headers,
        gzip(body.to_string().as_bytes()),
    )
    .await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, r#"{"status":"Ok"}"#)
    );
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], ORIGIN);
    let event = only(&bench).await;
    assert_eq!(
        (event.signal, event.source, event.id.as_str()),
        (Signal::PageView, Source::PostHog, "u-$pageview")
    );
    assert_eq!(
        (event.person.user, event.person.anonymous),
        (None, Some(PersonId::anonymous("d-1").unwrap())),
        "a device is no customer"
    );
    assert_eq!(
        (event.client.referrer, event.client.user_agent.as_deref()),
        (None, Some("Mozilla/5.0 Firefox/140.0"))
    );
    for path in ["/flags/?v=2", "/decide/?v=3", "/array/phc_x/config", "/s/"] {
        let answer = call(&bench, Method::POST, path, &[("origin", ORIGIN)], "{}").await;
        assert!([200, 405].contains(&answer.status.as_u16()), "{path}");
    }
    assert!(get(&bench, "/array/phc_x/config").await.json()["featureFlags"].is_object());
}

#[tokio::test]
async fn posthog_bodies_in_every_wrapping() {
    let event = posthog_event(
        "Order Completed",
        "42",
        json!({"revenue": 12.5, "currency": "EUR", "order_id": "1"}),
    );
    let with_key = |mut event: Value| {
        event["api_key"] = json!(WRITE);
        event.to_string()
    };
    let batch = json!({"api_key": WRITE, "batch": [event], "sent_at": "2026-11-18T11:06:39.000Z"}).to_string();
    let form = |data: &str| {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("data", data)
            .finish()
    };
    let encoded = STANDARD.encode(with_key(event.clone()));
    for (path, body) in [
        ("/batch/", batch.clone().into_bytes()),
        ("/batch", gzip(batch.as_bytes())),
        ("/capture/", with_key(event.clone()).into_bytes()),
        (
            "/i/v0/e/",
            json!([{"token": WRITE, "event": event["event"], "distinct_id": "42", "properties": event["properties"]}])
                .to_string()
                .into_bytes(),
        ),
        ("/track/", form(&encoded).into_bytes()),
        (
            "/e/?compression=base64",
            form(&STANDARD.encode(gzip(with_key(event.clone()).as_bytes()))).into_bytes(),
        ),
        ("/engage", with_key(event.clone()).into_bytes()),
    ] {
        let bench = Bench::new().await;
        let answer = post(&bench, path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        let event = only(&bench).await;
        assert_eq!(
            (event.signal, event.person.key()),
            (Signal::Purchase, Some(&known("42"))),
            "{path}"
        );
        assert_eq!(event.money.unwrap().to_string(), "12.50 EUR");
    }
    let bench = Bench::new().await;
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("data", &encoded)
        .finish();
    assert_eq!(get(&bench, &format!("/e?{query}")).await.status, StatusCode::OK);
    assert_eq!(only(&bench).await.signal, Signal::Purchase);
}

#[tokio::test]
async fn posthog_events_and_their_meaning() {
    for (event, distinct, properties, signal, user, anonymous) in [
        (
            "$identify",
            "42",
            json!({"$anon_distinct_id": "d-1"}),
            Signal::Identify,
            Some("42"),
            Some("d-1"),
        ),
        (
            "$create_alias",
            "42",
            json!({"alias": "old"}),
            Signal::Alias,
            Some("42"),
            Some("42"),
        ),
        (
            "$screen",
            "42",
            json!({"$screen_name": "Cart"}),
            Signal::ScreenView,
            Some("42"),
            None,
        ),
        (
            "$autocapture",
            "42",
            json!({"$event_type": "click"}),
            Signal::LinkClick,
            Some("42"),
            None,
        ),
        (
            "$autocapture",
            "42",
            json!({"$event_type": "change"}),
            Signal::Custom,
            Some("42"),
            None,
        ),
        ("$exception", "42", json!({}), Signal::PageError, Some("42"), None),
        (
            "$pageleave",
            "42",
            json!({"$device_id": "d-1", "$user_id": "42"}),
            Signal::Custom,
            Some("42"),
            Some("d-1"),
        ),
    ] {
        let bench = Bench::new().await;
        let body = json!({"api_key": WRITE, "batch": [posthog_event(event, distinct, properties)]});
        assert_eq!(post(&bench, "/batch/", body.to_string()).await.status, StatusCode::OK);
        let read = only(&bench).await;
        assert_eq!(read.signal, signal, "{event}");
        assert_eq!(read.person.user, user.map(known), "{event}");
        assert_eq!(
            read.person.anonymous,
            anonymous.map(|id| PersonId::anonymous(id).unwrap()),
            "{event}"
        );
    }
}

#[tokio::test]
async fn posthogs_codes() {
    for (body, status, code) in [
        (String::new(), 400, "empty"),
        ("nonsense".to_owned(), 400, "json"),
        ("data=%21%21".to_owned(), 400, "json"),
        (json!({"batch": []}).to_string(), 400, "batch_size"),
        (
            json!({"batch": [{"event": "x", "distinct_id": "u"}]}).to_string(),
            401,
            "auth_missing",
        ),
        (
            json!({"api_key": "unknown-key", "event": "x", "distinct_id": "u"}).to_string(),
            401,
            "auth",
        ),
        (json!({"api_key": WRITE, "event": "x"}).to_string(), 400, "no_identity"),
        (
            json!({"api_key": WRITE, "distinct_id": "u"}).to_string(),
            400,
            "no_signal",
        ),
    ] {
        let answer = post(&Bench::new().await, "/batch/", body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code),
            "{body}"
        );
    }
    let bomb = STANDARD.encode(gzip(&vec![b' '; 5 << 20]));
    let answer = post(&Bench::new().await, "/e/", format!("data={}", bomb.replace('+', "%2B"))).await;
    assert_eq!(answer.status.as_u16(), 413, "a bomb within a form");
}

// CloudEvents.

#[tokio::test]
async fn cloud_events_in_all_modes() {
    let data = json!({"user_id": "42", "revenue": "12.50", "currency": "EUR", "order_id": "7"});
    let event = json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "com.shop.order.completed",
        "time": "2026-11-18T11:06:38Z", "data": data});
    let key = basic(WRITE);
    let auth = ("authorization", key.as_str());
    let binary = [
        auth,
        ("content-type", "application/json"),
        ("ce-id", "1"),
        ("ce-source", "/shop"),
        ("ce-type", "com.shop.order.completed"),
        ("ce-specversion", "1.0"),
        ("ce-time", "2026-11-18T11:06:38Z"),
        ("ce-note", "Euro%20%E2%82%AC"),
    ];
    let structured = [auth, ("content-type", "application/cloudevents+json; charset=utf-8")];
    let batched = [auth, ("content-type", "application/cloudevents-batch+json")];
    let mut prints = Vec::new();
    for (headers, body) in [
        (binary.as_slice(), data.to_string()),
        (structured.as_slice(), event.to_string()),
        (batched.as_slice(), json!([event]).to_string()),
    ] {
        let bench = Bench::new().await;
        let answer = call(&bench, Method::POST, "/cloudevents", headers, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        let event = only(&bench).await;
        assert_eq!(
            (event.signal, event.source, event.id.as_str()),
            (Signal::Purchase, Source::CloudEvents, "/shop 1")
        );
        assert_eq!(
            (event.person.key(), event.order.as_deref()),
            (Some(&known("42")), Some("7"))
        );
        assert_eq!(event.money.unwrap().to_string(), "12.50 EUR");
        assert_eq!(event.occurred_at, Some(Timestamp(1_794_999_998_000)));
        prints.push(event.fingerprint);
    }
    prints.dedup();
    assert_eq!(prints.len(), 1, "one event in three wrappings");
    let subject =
        json!({"specversion": "1.0", "id": "2", "source": "/crm", "type": "complaint.opened", "subject": "43"});
    let bench = Bench::new().await;
    assert_eq!(
        call(&bench, Method::POST, "/cloudevents", &structured, subject.to_string())
            .await
            .status,
        StatusCode::ACCEPTED
    );
    assert_eq!(only(&bench).await.person.key(), Some(&known("43")));
}

#[tokio::test]
async fn cloud_events_that_are_none() {
    let key = basic(WRITE);
    let bench = Bench::new().await;
    let auth = ("authorization", key.as_str());
    for (headers, body, status) in [
        (vec![auth, ("content-type", "application/cloudevents+avro")], "x", 415),
        (vec![auth, ("content-type", "application/cloudevents+json")], "{}", 400),
        (vec![auth, ("content-type", "application/cloudevents+json")], "[]", 400),
        (
            vec![auth, ("content-type", "application/cloudevents-batch+json")],
            "[]",
            400,
        ),
        (
            vec![
                auth,
                ("ce-id", "1"),
                ("ce-specversion", "0.3"),
                ("ce-source", "s"),
                ("ce-type", "t"),
            ],
            "{}",
            400,
        ),
        (
            vec![
                auth,
                ("ce-id", "%ff"),
                ("ce-specversion", "1.0"),
                ("ce-source", "s"),
                ("ce-type", "t"),
            ],
            "{}",
            400,
        ),
        (
            vec![("content-type", "application/cloudevents+json")],
            r#"{"specversion":"1.0"}"#,
            401,
        ),
    ] {
        let answer = call(&bench, Method::POST, "/cloudevents", &headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?} {body}: {}", answer.body);
    }
    assert!(bench.logged().await.is_empty());
    let asks = [("webhook-request-origin", "eventemitter.example.com")];
    let answer = call(&bench, Method::OPTIONS, "/cloudevents", &asks, "").await;
    assert_eq!(answer.headers["webhook-allowed-origin"], "eventemitter.example.com");
}

// Matomo.

#[tokio::test]
async fn matomo_actions() {
    for (query, signal, name) in [
        ("url=https://shop.example/&action_name=Home", Signal::PageView, "Home"),
        (
            "e_c=shop&e_a=add%20to%20cart&e_n=G-32",
            Signal::CartAdd,
            "shop add to cart",
        ),
        ("url=x&search=shoes", Signal::Search, "shoes"),
        (
            "url=x&download=https://shop.example/a.pdf",
            Signal::DocumentRequest,
            "https://shop.example/a.pdf",
        ),
        (
            "url=x&link=https://other.example/",
            Signal::LinkClick,
            "https://other.example/",
        ),
        ("url=x&_pkn=Shoe&_pks=G-32", Signal::ProductView, "Shoe"),
        ("url=x&idgoal=0&ec_id=1001&revenue=29.34", Signal::Purchase, "order"),
        ("url=x&idgoal=0&revenue=29.34", Signal::CartView, ""),
        ("url=x&idgoal=3", Signal::Custom, "goal 3"),
        ("url=x&ping=1", Signal::Custom, "ping"),
    ] {
        let bench = Bench::new().await;
        let path = format!("/matomo.php?idsite={WRITE}&rec=1&uid=42&_id=0123456789abcdef&rand=7&{query}");
        let answer = get(&bench, &path).await;
        assert!(answer.status == StatusCode::OK && is_pixel(&answer), "{query}");
        let event = only(&bench).await;
        assert_eq!(
            (event.signal, event.name.as_deref().unwrap_or("")),
            (signal, name),
            "{query}"
        );
        assert_eq!(event.person.key(), Some(&known("42")));
        if signal == Signal::Purchase {
            assert_eq!(
                (event.money.unwrap().to_string().as_str(), event.order.as_deref()),
                ("29.34 EUR", Some("1001"))
            );
        }
        assert_eq!(get(&bench, &path).await.status, StatusCode::OK);
        let events = bench.logged().await;
        assert_eq!(
            (&events[0].id, events[0].fingerprint),
            (&events[1].id, events[1].fingerprint),
            "a repetition"
        );
    }
}

#[tokio::test]
async fn matomo_answers() {
    let bench = Bench::new().await;
    let good = format!("idsite=1&rec=1&token_auth={WRITE}&_id=0123456789abcdef&action_name=Home");
    let answer = get(&bench, &format!("/piwik.php?{good}&send_image=0")).await;
    assert_eq!((answer.status, answer.bytes.len()), (StatusCode::NO_CONTENT, 0));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert!(is_pixel(
        &call(&bench, Method::POST, "/matomo.php", &form, good.clone()).await
    ));
    assert_eq!(bench.logged().await.len(), 2);
    let bulk = json!({"requests": [format!("?{good}"), "?idsite=1&rec=1", {"idsite": 1, "rec": 1, "uid": "42", "url": "x"}], "token_auth": WRITE});
    let answer = post(&bench, "/matomo.php", bulk.to_string()).await;
    assert_eq!(answer.json(), json!({"status": "success", "tracked": 2, "invalid": 1}));
    assert_eq!((bench.logged().await.len(), bench.letters().await.len()), (4, 1));
    for (path, body, status) in [
        ("/matomo.php", json!({"requests": []}).to_string(), 400),
        (
            "/matomo.php",
            json!({"requests": ["?idsite=unknown-key&url=x"]}).to_string(),
            401,
        ),
        ("/matomo.php?idsite=unknown-key&url=x", String::new(), 401),
    ] {
        assert_eq!(post(&bench, path, body).await.status.as_u16(), status, "{path}");
    }
    assert!(is_pixel(&get(&bench, "/matomo.php").await));
    // `cdt` of last week is believed with the token only.
    let old = NOW.plus_ms(-7 * 86_400_000).0 / 1000;
    for (path, at) in [
        (format!("/matomo.php?{good}&cdt={old}"), Some(Timestamp(old * 1000))),
        (
            format!("/matomo.php?idsite={WRITE}&rec=1&uid=1&action_name=x&cdt={old}"),
            None,
        ),
    ] {
        let bench = Bench::new().await;
        let _answer = get(&bench, &path).await;
        assert_eq!(only(&bench).await.occurred_at, at, "{path}");
    }
}

// RudderStack and Segment.

#[tokio::test]
async fn rudderstacks_clients() {
    // The Node client: gzip, declared as a form.
    let batch = json!({"batch": [{"type": "track", "userId": "42", "event": "Product Viewed", "messageId": "m1",
        "context": {"library": {"name": "@rudderstack/rudder-sdk-node", "version": "3.0.13"}, "traits": {"plan": "gold"}}}], "sentAt": "2026-11-18T11:06:39Z"});
    let bench = Bench::new().await;
    let key = basic(WRITE);
    let headers = [
        ("authorization", key.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let answer = call(
        &bench,
        Method::POST,
        "/v1/batch",
        &headers,
        gzip(batch.to_string().as_bytes()),
    )
    .await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, "ok"),
        "its own shape"
    );
    let event = only(&bench).await;
    assert_eq!((event.signal, event.source), (Signal::ProductView, Source::RudderStack));
    // The browser client: settings first, then single messages with its own headers, a beacon at the end.
    let basic_browser = basic(BROWSER);
    let headers = [("authorization", basic_browser.as_str()), ("origin", ORIGIN)];
    let answer = call(&bench, Method::GET, "/sourceConfig/?p=npm&v=3.34.1", &headers, "").await;
    assert_eq!(answer.json()["source"]["enabled"], true);
    assert_eq!(answer.json()["source"]["writeKey"], BROWSER);
    let message = json!({"type": "page", "anonymousId": "a-1", "messageId": "m2", "properties": null, "context": {}});
    let headers = [
        ("authorization", basic_browser.as_str()),
        ("origin", ORIGIN),
        ("anonymousid", "YS0x"),
        ("sentat", "2026-11-18T11:06:39Z"),
    ];
    let answer = call(&bench, Method::POST, "/v1/page", &headers, message.to_string()).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "ok"));
    let beacon = json!({"batch": [{"type": "track", "anonymousId": "a-1", "event": "Left", "messageId": "m3"}]});
    let headers = [("origin", ORIGIN), ("content-type", "text/plain")];
    let path = format!("/beacon/v1/batch?writeKey={BROWSER}");
    assert_eq!(
        call(&bench, Method::POST, &path, &headers, beacon.to_string())
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(bench.logged().await.len(), 3);
    let path = format!(
        "/pixel/v1/track?writeKey={WRITE}&userId=42&event=Order+Completed&properties.revenue=12.5&properties.currency=EUR"
    );
    assert!(is_pixel(&get(&bench, &path).await));
    let events = bench.logged().await;
    let order = events.iter().find(|event| event.signal == Signal::Purchase).unwrap();
    assert_eq!(order.money.unwrap().to_string(), "12.50 EUR");
    let answer = get(&bench, "/sourceConfig/?writeKey=unknown-key").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn segments_pixels() {
    let bench = Bench::new().await;
    let data = STANDARD.encode(json!({"writeKey": WRITE, "userId": "42", "event": "Email Opened"}).to_string());
    let answer = get(&bench, &format!("/v1/pixel/track?data={}", data.replace('+', "%2B"))).await;
    assert!(is_pixel(&answer));
    assert_eq!(only(&bench).await.signal, Signal::EmailOpen);
    for path in [
        "/v1/pixel/track",
        "/v1/pixel/track?data=!!",
        "/v1/pixel/nonsense?data=e30=",
        "/v1/pixel/track?data=e30=",
    ] {
        let answer = get(&bench, path).await;
        assert!(answer.status == StatusCode::OK && is_pixel(&answer), "{path}");
    }
    assert_eq!(bench.logged().await.len(), 1);
}

// What holds for all.

#[tokio::test]
async fn browsers_may_ask_before_they_send() {
    let bench = Bench::new().await;
    let wanted = "authorization,content-type,anonymousid,sentat,sp-anonymous,x-retry-count,rsa-recovered";
    for path in [
        "/i",
        "/com.snowplowanalytics.snowplow/tp2",
        "/e/",
        "/batch/",
        "/cloudevents",
        "/matomo.php",
        "/beacon/v1/batch",
        "/sourceConfig/",
        "/flags/",
        "/t",
    ] {
        for (origin, allowed) in [(ORIGIN, true), ("https://evil.example", false)] {
            let headers = [("origin", origin), ("access-control-request-headers", wanted)];
            let answer = call(&bench, Method::OPTIONS, path, &headers, "").await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT, "{path}");
            let known = answer
                .headers
                .get(header::ACCESS_CONTROL_ALLOW_ORIGIN)
                .is_some_and(|mirrored| mirrored == origin);
            assert_eq!(known, allowed, "{path} {origin}");
            if allowed {
                assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_HEADERS], wanted);
                assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
                assert_eq!(answer.headers[header::ACCESS_CONTROL_MAX_AGE], "7200");
            }
        }
    }
}

/// One good request of each protocol.
/// Method, path, headers and body.
type Sent = (Method, String, Vec<(&'static str, String)>, String);

fn good() -> Vec<Sent> {
    let auth = || ("authorization", basic(WRITE));
    let cloud = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "search", "subject": "42"}).to_string();
    vec![
        (
            Method::GET,
            format!("/i?e=pv&aid={WRITE}&uid=42"),
            vec![],
            String::new(),
        ),
        (
            Method::POST,
            "/x/tp2".into(),
            vec![],
            snowplow(&json!({"e": "pv", "aid": WRITE, "uid": "42"})),
        ),
        (
            Method::POST,
            "/e".into(),
            vec![],
            json!({"api_key": WRITE, "event": "x", "distinct_id": "42"}).to_string(),
        ),
        (
            Method::POST,
            "/cloudevents".into(),
            vec![auth(), ("content-type", "application/cloudevents+json".into())],
            cloud,
        ),
        (
            Method::GET,
            format!("/matomo.php?idsite={WRITE}&uid=42&url=x"),
            vec![],
            String::new(),
        ),
        (
            Method::GET,
            format!("/pixel/v1/track?writeKey={WRITE}&userId=42&event=x"),
            vec![],
            String::new(),
        ),
        (
            Method::POST,
            format!("/t?key={WRITE}"),
            vec![],
            r#"{"user_id":"42","signal":"search"}"#.into(),
        ),
    ]
}

async fn send(bench: &Bench, request: &(Method, String, Vec<(&'static str, String)>, String)) -> Answer {
    let (method, path, headers, body) = request;
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    call(bench, method.clone(), path, &headers, body.clone()).await
}

#[tokio::test]
async fn nothing_is_promised_while_nothing_can_be_stored() {
    for request in good() {
        for (error, status) in [
            (
                LogError::Overloaded {
                    retry_after: Duration::from_secs(1),
                },
                429,
            ),
            (
                LogError::Unavailable {
                    reason: "disk full".into(),
                },
                503,
            ),
        ] {
            let bench = Bench::new().await;
            bench.log.inject(0, Fault::Refuse(error));
            let answer = send(&bench, &request).await;
            assert_eq!(answer.status.as_u16(), status, "{}", request.1);
            if request.0 == Method::GET {
                assert!(is_pixel(&answer), "row 81a: the picture is drawn all the same");
            }
            assert!(send(&bench, &request).await.status.is_success());
            assert_eq!(bench.logged().await.len(), 1, "{}", request.1);
        }
    }
}

#[tokio::test]
async fn letters_of_every_protocol_can_be_fed_again() {
    let key = basic(WRITE);
    let auth = [("authorization", key.as_str())];
    let old = "1600000000000";
    let structured = [auth[0], ("content-type", "application/cloudevents-batch+json")];
    let cloud = json!([{"specversion": "1.0", "id": "1", "source": "s", "type": "search", "subject": "42", "time": "2020-09-13T12:26:40Z"}, {}]);
    for (path, headers, body, expected) in [
        ("/x/tp2", &auth[..], json!({"data": [{"e": "pv", "uid": "42", "dtm": old}, {"e": "pv", "uid": "1"}]}).to_string(), Source::Snowplow),
        ("/batch/", &auth[..], json!({"batch": [{"event": "x", "distinct_id": "42", "timestamp": "2020-09-13T12:26:40Z"}, {"event": "x", "distinct_id": "1"}]}).to_string(), Source::PostHog),
        ("/cloudevents", &structured[..], cloud.to_string(), Source::CloudEvents),
        ("/matomo.php", &auth[..], json!({"requests": ["?uid=42&url=x&cdt=1600000000&token_auth=x", "?uid=1&url=x"]}).to_string(), Source::Matomo),
    ] {
        let bench = Bench::new().await;
        let answer = call(&bench, Method::POST, path, headers, body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.body);
        let letters = bench.letters().await;
        let letter = letters.iter().find(|stored| stored.letter.code.label() == "ts_too_old").unwrap_or_else(|| panic!("{path} {letters:?}"));
        let before = bench.logged().await.len();
        let path = format!("/v1/dead-letters/{}/retry", letter.id);
        let admin = format!("Bearer {}", crate::bench::ADMIN);
        let answer = call(&bench, Method::POST, &path, &[("authorization", &admin)], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let logged = bench.logged().await;
        assert_eq!(logged.len(), before + 1);
        let fed = logged.iter().find(|event| event.person.key() == Some(&known("42"))).unwrap();
        assert_eq!((fed.source, fed.occurred_at), (expected, Some(Timestamp(1_600_000_000_000))));
    }
}
