//! Rows 57 and 58: budgets of keys and workspaces, over every route that takes events.

use crate::bench::{Answer, BROWSER, Bench, NOW, ORIGIN, WRITE, basic, post};
use axum::body::Body;
use http::{Request, header};
use serde_json::json;
use vigie_ingestion::http::Doors;
use vigie_ingestion::rates::{Rate, RateLimits, Rates};

async fn bench(limits: RateLimits) -> Bench {
    Bench::behind(
        Doors {
            rates: Rates::new(limits),
            ..Doors::default()
        },
        NOW,
    )
    .await
}

fn request(path: &str, body: String) -> Request<Body> {
    Request::post(path)
        .header(header::AUTHORIZATION, basic(WRITE))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .unwrap()
}

fn refused(answer: &Answer) -> (u16, String, String) {
    let after = answer
        .headers
        .get(header::RETRY_AFTER)
        .map(|after| after.to_str().unwrap().to_owned());
    (answer.status.as_u16(), answer.code(), after.unwrap_or_default())
}

#[tokio::test]
async fn row_58_every_protocol_is_told_when_to_come_back() {
    let rate = Rate {
        per_second: 2,
        burst: 10,
    };
    for (path, body) in [
        ("/v1/events", json!({"user_id": "u", "signal": "search"}).to_string()),
        ("/v1/track", json!({"userId": "u", "event": "x"}).to_string()),
        ("/x/tp2", json!({"data": [{"e": "pv", "uid": "u"}]}).to_string()),
        (
            "/batch/",
            json!({"batch": [{"event": "x", "distinct_id": "u"}]}).to_string(),
        ),
        ("/matomo.php", json!({"requests": ["?uid=u&url=x"]}).to_string()),
        (
            &format!("/t?key={WRITE}"),
            json!({"user_id": "u", "signal": "search"}).to_string(),
        ),
    ] {
        let bench = bench(RateLimits {
            key: rate,
            ..RateLimits::default()
        })
        .await;
        for n in 0..10 {
            assert!(
                bench.send(request(path, body.clone())).await.status.is_success(),
                "{path} {n}"
            );
        }
        let answer = bench.send(request(path, body.clone())).await;
        assert_eq!(refused(&answer), (429, "rate".to_owned(), "1".to_owned()), "{path}");
        assert_eq!(bench.logged().await.len(), 10, "{path}: what is refused is not taken");
        bench.pass(500);
        assert!(
            bench.send(request(path, body.clone())).await.status.is_success(),
            "{path}"
        );
    }
}

#[tokio::test]
async fn row_57_a_days_quota() {
    let bench = bench(RateLimits {
        daily: 3,
        ..RateLimits::default()
    })
    .await;
    let three = json!([{"user_id": "u", "signal": "search"}, {"user_id": "u", "signal": "search"}, {"user_id": "u", "signal": "search"}]);
    assert_eq!(bench.send(post("/v1/events", three.to_string())).await.status, 200);
    let (status, code, after) = refused(&bench.send(post("/v1/events", three.to_string())).await);
    assert_eq!((status, code.as_str()), (429, "quota"));
    // Until midnight.
    assert_eq!(after, (86_400 - i64::from(NOW.ms_of_day()) / 1000).to_string());
}

#[tokio::test]
async fn keys_of_a_workspace_share_its_budget_and_have_their_own() {
    let event = || json!({"user_id": "u", "signal": "search"}).to_string();
    let browser = || {
        Request::post(format!("/t?key={BROWSER}"))
            .header(header::ORIGIN, ORIGIN)
            .body(Body::from(event()))
            .unwrap()
    };
    let one = Rate {
        per_second: 1,
        burst: 1,
    };
    let own = bench(RateLimits {
        key: one,
        ..RateLimits::default()
    })
    .await;
    assert!(own.send(post("/v1/events", event())).await.status.is_success());
    assert!(own.send(browser()).await.status.is_success(), "another key");
    let shared = bench(RateLimits {
        workspace: one,
        ..RateLimits::default()
    })
    .await;
    assert!(shared.send(post("/v1/events", event())).await.status.is_success());
    assert_eq!(shared.send(browser()).await.status.as_u16(), 429, "the same workspace");
}
