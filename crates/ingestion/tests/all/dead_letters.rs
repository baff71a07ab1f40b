//! Dead letters over HTTP: who may see them, how they are paged, and that feeding one again makes no duplicate. And
//! that the journal is the same after it was opened again.

use crate::bench::{ADMIN, Answer, Bench, OTHER_ADMIN, READ, WRITE, post, shop};
use axum::body::Body;
use http::{Method, Request, header};
use std::sync::Arc;
use vigie_event::{ConsentState, EventId, Purpose, RejectCode};
use vigie_ingestion::dead_letters::{DeadLetters, Letter, Step};

async fn ask(bench: &Bench, method: Method, path: &str, key: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {key}"));
    bench.send(request.body(Body::empty()).unwrap()).await
}

async fn with_letters(count: usize) -> Bench {
    let bench = Bench::new().await;
    for i in 0..count {
        let body = format!(r#"{{"id":"e{i}","user_id":"u","signal":"search","timestamp":"soon"}}"#);
        assert_eq!(bench.events(format!("[{body}]")).await.code(), "ts_type");
    }
    bench
}

#[tokio::test]
async fn pages_hold_every_letter_once_newest_first() {
    let bench = with_letters(7).await;
    let mut seen = Vec::new();
    let mut path = "/v1/dead-letters?limit=3".to_owned();
    loop {
        let page = ask(&bench, Method::GET, &path, ADMIN).await.json();
        for letter in page["dead_letters"].as_array().unwrap() {
            assert_eq!(
                (letter["code"].as_str(), letter["field"].as_str()),
                (Some("ts_type"), Some("timestamp"))
            );
            seen.push(letter["id"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/dead-letters?limit=3&cursor={next}"),
            None => break,
        }
    }
    let all: Vec<_> = bench
        .letters()
        .await
        .iter()
        .map(|stored| stored.id.to_string())
        .collect();
    assert_eq!(seen, all);
    assert_eq!(seen.len(), 7);
    let newest = ask(&bench, Method::GET, &format!("/v1/dead-letters/{}", seen[0]), ADMIN)
        .await
        .json();
    assert!(newest["raw"].as_str().unwrap().contains("\"e6\""));
}

#[tokio::test]
async fn only_the_workspaces_own_admin_sees_them() {
    let bench = with_letters(1).await;
    let id = bench.letters().await[0].id;
    for (path, method) in [
        ("/v1/dead-letters".to_owned(), Method::GET),
        (format!("/v1/dead-letters/{id}"), Method::GET),
        (format!("/v1/dead-letters/{id}/retry"), Method::POST),
    ] {
        for (key, status) in [(WRITE, 403), (READ, 403), ("unknown-key", 401)] {
            assert_eq!(
                ask(&bench, method.clone(), &path, key).await.status.as_u16(),
                status,
                "{path} {key}"
            );
        }
    }
    assert_eq!(
        ask(&bench, Method::GET, "/v1/dead-letters", OTHER_ADMIN).await.json()["dead_letters"],
        serde_json::json!([])
    );
    for path in [format!("/v1/dead-letters/{id}"), "/v1/dead-letters/nonsense".to_owned()] {
        assert_eq!(ask(&bench, Method::GET, &path, OTHER_ADMIN).await.status.as_u16(), 404);
    }
    assert_eq!(
        ask(
            &bench,
            Method::POST,
            &format!("/v1/dead-letters/{id}/retry"),
            OTHER_ADMIN
        )
        .await
        .status
        .as_u16(),
        404
    );
    for query in [
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=1e9",
        "limit=abc",
        "cursor=x",
    ] {
        let answer = ask(&bench, Method::GET, &format!("/v1/dead-letters?{query}"), ADMIN).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "query"),
            "{query}"
        );
    }
}

#[tokio::test]
async fn feeding_again_takes_what_can_be_taken_and_marks_it() {
    let bench = Bench::new().await;
    // Too old for live traffic: an administrator may take it nevertheless.
    let old = r#"{"type":"track","messageId":"m1","userId":"u","event":"Order Completed","timestamp":"2001-01-01T00:00:00Z"}"#;
    assert_eq!(
        bench
            .send(post("/v1/batch", format!(r#"{{"batch":[{old}]}}"#)))
            .await
            .status
            .as_u16(),
        200
    );
    assert_eq!(
        bench
            .send(post("/v1/track", r#"{"messageId":"m2","userId":"u"}"#))
            .await
            .status
            .as_u16(),
        200
    );
    let letters = bench.letters().await;
    let [unnamed, old] = letters.as_slice() else {
        panic!("{letters:?}")
    };
    assert_eq!(
        (unnamed.letter.code, unnamed.letter.kind.as_str()),
        (RejectCode::NoSignal, "track")
    );
    let retry = |id| format!("/v1/dead-letters/{id}/retry");

    let answer = ask(&bench, Method::POST, &retry(unnamed.id), ADMIN).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (422, "no_signal"),
        "still at fault"
    );
    assert_eq!(
        ask(&bench, Method::POST, &retry(old.id), ADMIN).await.json()["status"],
        "retried"
    );
    assert_eq!(
        ask(&bench, Method::POST, &retry(old.id), ADMIN).await.json()["status"],
        "already_retried"
    );
    let logged = bench.logged().await;
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0].id, EventId::new("m1").unwrap());
    let counts = bench.intake.counts(&shop());
    assert_eq!(
        (counts.accepted, counts.dead_letter),
        (3, 2),
        "the letter stays counted, the event is a new one"
    );

    // The journal opened again knows the same.
    let again = DeadLetters::open(Arc::new(bench.journal.clone())).await.unwrap();
    assert_eq!(
        again.list(&shop(), None, 10).await.unwrap().letters,
        bench.letters().await
    );
    assert!(again.get(&shop(), old.id).await.unwrap().unwrap().retried);
    assert_eq!(again.accepted(), bench.intake.dead_letters().accepted());
}

/// A refusal that stands around a batch holds for its letters, too (CONSENT-1).
#[tokio::test]
async fn feeding_again_keeps_a_refusal_of_the_batch() {
    let bench = Bench::new().await;
    let old = r#"{"type":"page","messageId":"m1","userId":"u","timestamp":"2001-01-01T00:00:00Z"}"#;
    let context = r#"{"consent":{"categoryPreferences":{"profiling":false}}}"#;
    let good = r#"{"type":"page","messageId":"m2","userId":"v"}"#;
    let batch = format!(r#"{{"context":{context},"batch":[{old},{good}]}}"#);
    assert_eq!(bench.send(post("/v1/batch", batch)).await.status.as_u16(), 200);
    let worker = Letter::of_event(&bench.logged().await[0], RejectCode::Poison, Step::Fold, 0);
    assert!(bench.intake.dead_letters().add(vec![worker]).await.unwrap()[0].new);
    for stored in bench.letters().await {
        let path = format!("/v1/dead-letters/{}/retry", stored.id);
        assert_eq!(
            ask(&bench, Method::POST, &path, ADMIN).await.json()["status"],
            "retried"
        );
    }
    let events = bench.logged().await;
    assert_eq!(events.len(), 3);
    for event in events {
        assert_eq!(event.consent.get(&Purpose::Profiling), Some(&ConsentState::Refused));
    }
}

#[tokio::test]
async fn letters_of_the_worker_are_kept_once_and_can_be_fed_again() {
    let bench = Bench::new().await;
    let track = r#"{"messageId":"m1","userId":"u","event":"Signed In"}"#;
    assert_eq!(bench.send(post("/v1/track", track)).await.status.as_u16(), 200);
    let event = bench.logged().await.remove(0);
    let letter = Letter::of_event(&event, RejectCode::Poison, Step::Fold, 0);
    let journal = bench.intake.dead_letters();
    assert!(journal.add(vec![letter.clone()]).await.unwrap()[0].new);
    assert!(
        !journal.add(vec![letter.clone()]).await.unwrap()[0].new,
        "after a crash the worker writes it again"
    );
    assert_eq!(bench.letters().await.len(), 1);
    let path = format!("/v1/dead-letters/{}/retry", letter.id());
    assert_eq!(
        ask(&bench, Method::POST, &path, ADMIN).await.json()["status"],
        "retried"
    );
    let logged = bench.logged().await;
    assert_eq!(
        logged[0], logged[1],
        "the same event, byte for byte, so that it is recognised"
    );
    assert_eq!(
        bench.intake.counts(&shop()).dead_letter,
        0,
        "the worker counts its own letters"
    );
}
