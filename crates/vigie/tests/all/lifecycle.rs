//! What an operator does to vigie: stopping it, starting it twice, checking a configuration, asking for health and
//! metrics, looking after dead letters; and what each key may not do. It says nothing about scores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Books, Client, Ran, Server, run, until};

/// Events of one request.
const BATCH: usize = 50;

fn page_views(batch: usize) -> String {
    let event = |index: usize| json!({"id": format!("{batch}-{index}"), "user_id": format!("u{}", index % 20), "signal": "page.view"});
    let events: Vec<Value> = (0..BATCH).map(event).collect();
    serde_json::to_string(&events).unwrap()
}

#[test]
fn a_stop_under_load_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &[]);
    let (next, acknowledged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let unanswered = Mutex::new(Vec::new());
    let (url, key) = (server.url.clone(), server.keys.write.clone());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let _ = scope.spawn(|| {
                let client = Client::new(&url);
                loop {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    match client.post("/v1/events", &key, &page_views(batch)) {
                        Ok(answer) if answer.took(BATCH) => {
                            let _ = acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        // The server has gone: what it did not answer is not lost, it is the client's to repeat.
                        Ok(_) | Err(_) => return unanswered.lock().unwrap().push(batch),
                    }
                }
            });
        }
        until("the load is on its way", || {
            (acknowledged.load(Ordering::Relaxed) >= 50).then_some(())
        });
        server.process.terminate();
        let status = server.process.ended("the server stops when it is asked to");
        assert_eq!(status.code(), Some(0), "{status}");
    });

    let server = Server::start(&data, &[]);
    let events = |batches: usize| u64::try_from(batches * BATCH).unwrap();
    let books = server.books();
    assert_eq!(books.in_flight, 0, "a stop folds what was accepted: {books:?}");
    assert!(books.applied >= events(acknowledged.into_inner()), "{books:?}");
    for batch in unanswered.into_inner().unwrap() {
        let answer = server.client.post("/v1/events", &key, &page_views(batch)).unwrap();
        assert!(answer.took(BATCH), "{answer:?}");
    }
    let books = server.settled();
    let all = events(next.into_inner());
    let balanced = Books {
        accepted: all + books.duplicate,
        applied: all,
        duplicate: books.duplicate,
        ..Books::default()
    };
    assert_eq!(books, balanced);
}

#[test]
fn a_second_process_on_the_same_data_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let start = Instant::now();
    let data = data.to_str().unwrap();
    let second = run(&["up", "--listen", "127.0.0.1:0", "--data-dir", data]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(second.stderr.contains("another process holds"), "{second:?}");
    assert_eq!(second.stdout, "");
    // The first one is none the worse for it.
    server.post(&[json!({"user_id": "ann", "signal": "page.view"})]);
    assert_eq!(server.settled().applied, 1);
}

#[test]
fn a_bad_configuration_is_refused_with_every_line_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vigie.toml");
    let path = file.to_str().unwrap();
    std::fs::write(
        &file,
        "[server]\nlistem = \"x\"\nmax-connections = \"many\"\n\n[log]\npartitions = 0\n",
    )
    .unwrap();
    let checked = run(&["config", "check", path]);
    assert_eq!(checked.code, Some(2), "{checked:?}");
    for part in [
        "3 errors",
        ":2: server.listem",
        "did you mean listen?",
        ":3: server.max-connections",
        ":6: log.partitions",
    ] {
        assert!(checked.stderr.contains(part), "{part} is missing: {checked:?}");
    }
    // A server does not start with it either.
    let data = dir.path().join("data");
    let started = run(&["up", "--config", path, "--data-dir", data.to_str().unwrap()]);
    assert_eq!(
        (started.code, started.stderr == checked.stderr, data.exists()),
        (Some(2), true, false),
        "{started:?}"
    );

    std::fs::write(&file, "[log]\npartitions = 16\n").unwrap();
    let checked = run(&["config", "check", path]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("is valid"), "{checked:?}");
}

#[test]
fn the_healthcheck_tells_a_ready_server_from_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("data"), &[]);
    let healthcheck = |url: &str| run(&["healthcheck", "--url", url]);
    let ready = healthcheck(&server.url);
    assert_eq!(ready.code, Some(0), "{ready:?}");
    server.process.kill();
    let gone = healthcheck(&server.url);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    assert!(gone.stderr.contains("no answer from"), "{gone:?}");
}

#[test]
fn dead_letters_are_listed_shown_and_fed_again_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let bad = json!({"id": "old", "user_id": "ann", "signal": "purchase", "timestamp": "2024-09-30T12:00:00Z"});
    let good = json!({"id": "new", "user_id": "ann", "signal": "purchase"});
    let answer = server
        .client
        .post("/v1/events", &server.keys.write, &json!([good, bad]).to_string())
        .unwrap();
    assert_eq!(
        (answer.status, &answer.json()["accepted"]),
        (200, &json!(1)),
        "{answer:?}"
    );
    assert_eq!(answer.json()["rejected"][0]["i"], 1, "{answer:?}");
    let one_letter = Books {
        accepted: 2,
        applied: 1,
        dead_letter: 1,
        ..Books::default()
    };
    assert_eq!(server.settled(), one_letter);

    let remote = ["--url", &server.url, "--key", &server.keys.admin, "--output", "json"];
    let letters = |args: &[&str]| run(&[&["dead-letters"], args, &remote].concat());
    let printed = |ran: &Ran| -> Value {
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let list = printed(&letters(&["list"]));
    assert_eq!(list["dead_letters"].as_array().unwrap().len(), 1, "{list}");
    let letter = &list["dead_letters"][0];
    assert_eq!(
        (&letter["code"], &letter["retried"]),
        (&json!("ts_too_old"), &json!(false))
    );
    let id = letter["id"].as_str().unwrap();

    let shown = printed(&letters(&["show", id]));
    assert_eq!(shown["raw"], bad.to_string(), "{shown}");
    assert_eq!(printed(&letters(&["retry", id]))["status"], "retried");
    assert_eq!(printed(&letters(&["retry", id]))["status"], "already_retried");
    let fed_again = Books {
        accepted: 3,
        applied: 2,
        ..one_letter
    };
    assert_eq!(server.settled(), fed_again);
    let customer = server.get_json("/v1/customers/ann");
    assert_eq!(
        customer["evidence"]["purchases"]["first_purchase"], "2024-09-30",
        "{customer}"
    );
    assert_eq!(printed(&letters(&["list"]))["dead_letters"][0]["retried"], true);

    let unknown = letters(&["show", "0123456789abcdef0123456789abcdef"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
}

#[test]
fn every_key_keeps_to_its_own_side() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    server.post(&[json!({"user_id": "ann", "signal": "page.view"})]);
    let _ = server.settled();
    let keys = &server.keys;
    let reads = [
        "/v1/customers",
        "/v1/customers/ann",
        "/v1/relances",
        "/v1/books",
        "/v1/config",
    ];
    for path in reads {
        for (key, status) in [
            (&keys.read, 200),
            (&keys.write, 403),
            (&keys.history, 403),
            (&keys.admin, 403),
            (&"vr_unknown".to_owned(), 401),
        ] {
            let answer = server.client.get(path, key).unwrap();
            assert_eq!(answer.status, status, "{path} {answer:?}");
        }
    }
    let event = r#"{"user_id":"ann","signal":"page.view"}"#;
    let track = r#"{"userId":"ann","event":"Seen"}"#;
    for (path, body) in [("/v1/events", event), ("/v1/track", track)] {
        for (key, status) in [
            (&keys.write, 200),
            (&keys.history, 200),
            (&keys.read, 403),
            (&keys.admin, 403),
        ] {
            let answer = server.client.post(path, key, body).unwrap();
            assert_eq!(answer.status, status, "{path} {answer:?}");
        }
    }
    for (key, status) in [(&keys.admin, 200), (&keys.write, 403), (&keys.read, 403)] {
        let answer = server.client.get("/v1/dead-letters", key).unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
    }
    // What was refused left no trace.
    assert_eq!(server.settled().accepted, 5);
}

#[test]
fn metrics_count_what_the_books_count() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let events = [json!({"id": "once", "user_id": "ann", "signal": "page.view"})];
    server.post(&events);
    server.post(&events);
    let _ = server.settled();
    let value = |text: &str, series: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(series))?;
        line.trim().parse().ok()
    };
    // The books are told a moment before the metrics are.
    let metrics = until("the metrics have both outcomes", || {
        let text = server.get("/metrics");
        let duplicate = "vigie_events_outcomes_total{workspace=\"default\",outcome=\"duplicate\"}";
        value(&text, duplicate).is_some().then_some(text)
    });
    for (series, expected) in [
        ("vigie_events_accepted_total{workspace=\"default\"}", 2.0),
        (
            "vigie_events_outcomes_total{workspace=\"default\",outcome=\"applied\"}",
            1.0,
        ),
        (
            "vigie_events_outcomes_total{workspace=\"default\",outcome=\"duplicate\"}",
            1.0,
        ),
        ("vigie_ready", 1.0),
    ] {
        assert_eq!(value(&metrics, series), Some(expected), "{series} in\n{metrics}");
    }
    for name in [
        "vigie_build_info",
        "vigie_http_request_duration_seconds_bucket",
        "vigie_ingest_ack_latency_seconds_count",
        "vigie_log_append_latency_seconds_count",
        "vigie_log_fsync_duration_seconds_count",
        "vigie_log_end_offset",
        "vigie_pipeline_applied_offset",
        "vigie_pipeline_lag_records",
        "vigie_pipeline_step_duration_seconds_count",
        "vigie_pipeline_event_to_score_latency_seconds_count",
        "vigie_scores_written_total",
        "vigie_store_commit_duration_seconds_count",
        "process_resident_memory_bytes",
    ] {
        assert!(
            metrics.lines().any(|line| line.starts_with(name)),
            "{name} is missing in\n{metrics}"
        );
    }
}
