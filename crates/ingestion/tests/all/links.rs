//! Links of e-mails over HTTP: rows 81 to 95 of the table of bad inputs.

use crate::bench::{Answer, BROWSER, Bench, NOW, ORIGIN, READ, WRITE};
use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use vigie_event::{ConsentState, PersonId, Purpose, Signal, Source};
use vigie_ingestion::http::Doors;
use vigie_ingestion::keys::Secret;
use vigie_ingestion::links::{LinkKey, LinkSpec, Links};
use vigie_ingestion::log::{Fault, LogError};

const DAY: i64 = 86_400_000;

async fn bench() -> Bench {
    let links = Links::new(LinkSpec {
        keys: vec![LinkKey {
            id: "k1".to_owned(),
            secret: Secret::new("sixteen-".repeat(4)),
        }],
        public_url: "https://t.example".to_owned(),
        hosts: ["shop.example".to_owned()].into(),
        days: 400,
    })
    .unwrap();
    Bench::behind(
        Doors {
            links: Some(links),
            ..Doors::default()
        },
        NOW,
    )
    .await
}

async fn call(bench: &Bench, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    bench.send(builder.body(Body::from(body.to_owned())).unwrap()).await
}

async fn get(bench: &Bench, path: &str) -> Answer {
    call(bench, Method::GET, path, &[], "").await
}

async fn mint(bench: &Bench, wanted: &Value) -> Answer {
    let key = format!("Bearer {WRITE}");
    call(
        bench,
        Method::POST,
        "/v1/links",
        &[("authorization", &key)],
        &wanted.to_string(),
    )
    .await
}

fn path(url: &Value) -> String {
    url.as_str()
        .unwrap()
        .strip_prefix("https://t.example")
        .unwrap()
        .to_owned()
}

/// The paths of pixel, click and unsubscription.
async fn paths(bench: &Bench) -> [String; 3] {
    let wanted = json!({"user_id": "42", "message_id": "m-1", "campaign": "autumn", "clicks": ["https://shop.example/a?b=c"], "open": true});
    let answer = mint(bench, &wanted).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let minted = answer.json();
    assert_eq!(minted["headers"]["List-Unsubscribe-Post"], "List-Unsubscribe=One-Click");
    assert_eq!(
        minted["headers"]["List-Unsubscribe"],
        format!("<{}>", minted["unsubscribe"].as_str().unwrap())
    );
    [
        path(&minted["open"]),
        path(&minted["clicks"][0]),
        path(&minted["unsubscribe"]),
    ]
}

fn is_discreet(answer: &Answer) {
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store, private");
    assert_eq!(answer.headers[header::REFERRER_POLICY], "no-referrer");
    assert_eq!(answer.headers["x-robots-tag"], "noindex, nofollow");
    assert!(!answer.headers.contains_key(header::SET_COOKIE));
}

/// One bit of the token is another.
fn flipped(path: &str) -> impl Iterator<Item = String> {
    (3..path.len()).filter_map(|at| {
        let mut bytes = path.as_bytes().to_vec();
        bytes[at] ^= 1;
        String::from_utf8(bytes)
            .ok()
            .filter(|text| text.parse::<http::Uri>().is_ok() && !text[3..].contains(['/', '?', '#', '%']))
    })
}

#[tokio::test]
async fn rows_81_to_85_pixels() {
    let bench = bench().await;
    let [open, click, _] = paths(&bench).await;
    let headers = [("user-agent", "Mozilla/5.0 Firefox/140.0"), ("range", "bytes=0-1")];
    let answer = call(&bench, Method::GET, &open, &headers, "").await;
    is_discreet(&answer);
    assert_eq!(
        (answer.status, answer.bytes.len()),
        (StatusCode::OK, 43),
        "row 85: whole, whatever range is asked for"
    );
    let opened = bench.logged().await.remove(0);
    assert_eq!(
        (opened.signal, opened.source, opened.name.as_deref()),
        (Signal::EmailOpen, Source::Links, Some("autumn"))
    );
    assert_eq!(opened.person.key(), Some(&PersonId::known("42").unwrap()));
    assert_eq!(opened.client.user_agent.as_deref(), Some("Mozilla/5.0 Firefox/140.0"));
    let head = call(&bench, Method::HEAD, &open, &[], "").await;
    assert_eq!((head.status, head.bytes.len()), (StatusCode::OK, 0), "row 85");
    let as_pixel = click.replace("/c/", "/o/");
    for forged in flipped(&open).chain([as_pixel, "/o/x.gif".to_owned(), "/o/..gif".to_owned()]) {
        let again = get(&bench, &forged).await;
        assert_eq!(
            (again.status, &again.bytes),
            (StatusCode::OK, &answer.bytes),
            "row 82: {forged}"
        );
    }
    assert_eq!(bench.logged().await.len(), 1, "rows 82, 85: nothing else is an open");
    let _answer = call(&bench, Method::GET, &open, &[("sec-purpose", "prefetch;prerender")], "").await;
    let signals: Vec<_> = bench.logged().await.iter().map(|event| event.signal).collect();
    assert!(signals.contains(&Signal::EmailMachineOpen), "row 84");
    bench
        .log
        .inject(0, Fault::Refuse(LogError::Unavailable { reason: "full".into() }));
    bench.pass(1);
    let answer = get(&bench, &open).await;
    assert_eq!(
        (answer.status, answer.bytes.len()),
        (StatusCode::SERVICE_UNAVAILABLE, 43),
        "row 81a"
    );
    bench.pass(500 * DAY);
    assert_eq!(get(&bench, &open).await.status, StatusCode::OK);
    assert_eq!(bench.logged().await.len(), 2, "row 82: too old");
}

#[tokio::test]
async fn rows_86_to_91_clicks() {
    let bench = bench().await;
    let [open, click, unsubscribe] = paths(&bench).await;
    for more in [
        "",
        "?u=https://evil.example",
        "?url=//evil.example",
        "?to=%5C%5Cevil",
        "?%0d%0aLocation:x",
    ] {
        let answer = get(&bench, &format!("{click}{more}")).await;
        assert_eq!(answer.status, StatusCode::FOUND, "row 88 {more}");
        assert_eq!(answer.headers[header::LOCATION], "https://shop.example/a?b=c");
        is_discreet(&answer);
        bench.pass(1);
    }
    let clicked = bench.logged().await;
    assert_eq!(clicked.len(), 5);
    assert!(clicked.iter().all(|event| event.signal == Signal::EmailClick));
    let head = call(&bench, Method::HEAD, &click, &[], "").await;
    assert_eq!(head.headers[header::LOCATION], "https://shop.example/a?b=c");
    let (as_click, as_click_too) = (
        open.replace("/o/", "/c/").replace(".gif", ""),
        unsubscribe.replace("/u/", "/c/"),
    );
    for forged in flipped(&click).chain([
        as_click,
        as_click_too,
        "/c/x".to_owned(),
        "/c/a.b.c".to_owned(),
        "/c/%2f%2fevil".to_owned(),
    ]) {
        let answer = get(&bench, &forged).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "row 87: {forged}");
        assert!(!answer.headers.contains_key(header::LOCATION));
        assert!(!answer.body.contains("evil"), "no echo");
    }
    assert_eq!(bench.logged().await.len(), 5);
    bench.pass(402 * DAY);
    let answer = get(&bench, &click).await;
    assert_eq!(answer.status, StatusCode::GONE, "row 90");
    assert!(answer.body.contains("<b>shop.example</b>") && !answer.headers.contains_key(header::LOCATION));
    assert_eq!(bench.logged().await.len(), 5, "row 90: not counted");
}

#[tokio::test]
async fn a_click_leads_on_even_while_nothing_can_be_stored() {
    let bench = bench().await;
    let [_, click, _] = paths(&bench).await;
    bench
        .log
        .inject(0, Fault::Refuse(LogError::Unavailable { reason: "full".into() }));
    assert_eq!(get(&bench, &click).await.status, StatusCode::FOUND);
}

#[tokio::test]
async fn rows_93_to_95_unsubscription() {
    let bench = bench().await;
    let [_, click, unsubscribe] = paths(&bench).await;
    let asked = get(&bench, &unsubscribe).await;
    assert_eq!(asked.status, StatusCode::OK);
    assert!(asked.body.contains("<form method=\"post\">"));
    assert!(
        asked.headers[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'")
    );
    is_discreet(&asked);
    assert!(bench.logged().await.is_empty(), "row 93: a scanner follows every link");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let other = call(&bench, Method::POST, &unsubscribe, &form, "x=y").await;
    assert_eq!(other.bytes, asked.bytes, "anything else asks again");
    let done = call(&bench, Method::POST, &unsubscribe, &form, "List-Unsubscribe=One-Click").await;
    assert_eq!(done.status, StatusCode::OK, "row 94");
    let multipart = [("content-type", "multipart/form-data; boundary=b")];
    let body = "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n";
    bench.pass(60_000);
    for target in [&unsubscribe, &"/u/unknown".to_owned(), &click.replace("/c/", "/u/")] {
        let again = call(&bench, Method::POST, target, &multipart, body).await;
        assert_eq!(
            (again.status, &again.bytes),
            (StatusCode::OK, &done.bytes),
            "row 95: {target}"
        );
    }
    let events = bench.logged().await;
    assert_eq!(events.len(), 2);
    assert_eq!(
        (&events[0].id, events[0].fingerprint),
        (&events[1].id, events[1].fingerprint),
        "row 95: once in effect"
    );
    assert_eq!(events[0].signal, Signal::EmailUnsubscribe);
    assert_eq!(events[0].consent.get(&Purpose::Marketing), Some(&ConsentState::Refused));
    bench
        .log
        .inject(0, Fault::Refuse(LogError::Unavailable { reason: "full".into() }));
    let answer = call(&bench, Method::POST, &unsubscribe, &form, "List-Unsubscribe=One-Click").await;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "a withdrawal is durable, or not acknowledged"
    );
    bench.pass(1000 * DAY);
    let _late = call(&bench, Method::POST, &unsubscribe, &form, "List-Unsubscribe=One-Click").await;
    assert_eq!(bench.logged().await.len(), 3, "a withdrawal is never too late");
}

#[tokio::test]
async fn row_89_links_are_made_for_servers_and_for_good_destinations() {
    let bench = bench().await;
    let wanted = |click: &str| json!({"user_id": "42", "message_id": "m", "clicks": [click]});
    for bad in [
        "javascript:alert(1)",
        "data:x",
        "ftp://shop.example",
        "http://user:pw@shop.example",
        "https://evil.example/",
        "https://shop.example/\r\nx",
    ] {
        let answer = mint(&bench, &wanted(bad)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "url"), "{bad}");
    }
    for bad in [
        json!({"message_id": "m"}),
        json!({"user_id": "42"}),
        json!({"user_id": "42", "anonymous_id": "a", "message_id": "m"}),
        json!({"user_id": "ada@example.com", "message_id": "m"}),
        json!({"user_id": "42", "message_id": "m", "click": []}),
        json!([]),
    ] {
        let answer = mint(&bench, &bad).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "link"), "{bad}");
    }
    let answer = mint(&bench, &json!({"email": "ada@example.com", "message_id": "m"})).await;
    assert_eq!(
        (answer.status, &answer.json()["open"]),
        (StatusCode::OK, &Value::Null),
        "no pixel unless it is asked for"
    );
    assert!(!answer.body.contains("ada"));
    let body = wanted("https://shop.example/").to_string();
    for (key, origin, status) in [
        (BROWSER, None, 403),
        (BROWSER, Some(ORIGIN), 403),
        (READ, None, 403),
        ("unknown-key", None, 401),
        (WRITE, Some(ORIGIN), 403),
    ] {
        let bearer = format!("Bearer {key}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        assert_eq!(
            call(&bench, Method::POST, "/v1/links", &headers, &body)
                .await
                .status
                .as_u16(),
            status,
            "{key}"
        );
    }
    let without = Bench::new().await;
    assert_eq!(
        mint(&without, &wanted("https://shop.example/")).await.status,
        StatusCode::NOT_FOUND,
        "no keys, no links"
    );
}
