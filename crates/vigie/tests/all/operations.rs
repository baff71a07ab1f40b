//! What operators do with a running vigie: look at it (`status`, `/metrics`), check what is around it (`doctor`), back it up
//! while it works and bring it back elsewhere, and let canaries measure the whole way.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;

use crate::support::{Server, run, until};
use serde_json::{Value, json};
use vigie_telemetry::catalogue;
use vigie_telemetry::page::Page;

fn purchases(count: usize) -> Vec<Value> {
    let one = |number: usize| {
        json!({
            "id": format!("order-{number}"), "user_id": format!("customer-{}", number % 17),
            "signal": "purchase", "money": {"amount": 10 + number, "currency": "EUR"},
        })
    };
    (0..count).map(one).collect()
}

fn page(server: &Server) -> Page {
    Page::parse(&server.get("/metrics"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_backup_taken_beside_a_working_server_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (data, kept, back) = (
        dir.path().join("data"),
        dir.path().join("kept"),
        dir.path().join("back"),
    );
    // Part of it in the archive, part of it in the log alone.
    let server = Server::start(&data, &["--set", "archive.flush-after=1s"]);
    server.post(&purchases(200));
    let before = server.settled();
    let _ = until("something is archived", || {
        page(&server).sum("vigie_archive_rows_total").filter(|rows| *rows > 0.0)
    });
    let later: Vec<Value> = (0..50)
        .map(|number| json!({"id": format!("visit-{number}"), "user_id": "ann", "signal": "page.view"}))
        .collect();
    server.post(&later);
    let backup = run(&[
        "backup",
        "--data-dir",
        text(&data),
        "--to",
        text(&kept),
        "--output",
        "json",
    ]);
    assert_eq!(backup.code, Some(0), "{backup:?}");
    let root = |server: &Server| {
        let answer = server.client.post("/v1/audit", &server.keys.admin, "").unwrap().json();
        (answer["exit_code"].clone(), answer["report"]["root_live"].clone())
    };
    let settled = server.settled();
    let expected = root(&server);
    drop(server);

    let restored = run(&[
        "restore",
        "--from",
        text(&kept),
        "--data-dir",
        text(&back),
        "--output",
        "json",
    ]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let said: Value = serde_json::from_str(&restored.stdout).unwrap();
    assert!(said["records"].as_u64().unwrap() > 0, "nothing was rebuilt: {said}");
    // What was acknowledged before the backup is there, and the state is the one that it makes.
    let server = Server::start(&back, &[]);
    let books = server.settled();
    assert!(
        before.accepted == 200 && settled.accepted == 250,
        "{before:?} {settled:?}"
    );
    assert_eq!(books, settled);
    assert_eq!(root(&server), expected);
    assert_eq!(expected.0, json!(0));

    // A second restore into the same directory would mix two.
    let again = run(&["restore", "--from", text(&kept), "--data-dir", text(&back)]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("is not empty"), "{again:?}");
}

#[test]
fn status_says_how_it_is_going() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    server.post(&purchases(20));
    let _ = server.settled();
    let arguments = [
        "status",
        "--url",
        &server.url,
        "--key",
        &server.keys.read,
        "--every",
        "1",
        "--output",
    ];
    let status = run(&[&arguments[..], &["json"]].concat());
    assert_eq!(status.code, Some(0), "{status:?}");
    let look: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(
        (&look["ready"], &look["lag_records"]),
        (&json!(true), &json!(0.0)),
        "{look}"
    );
    assert_eq!(look["books"]["accepted"], 20, "{look}");
    assert_eq!(look["version"], env!("CARGO_PKG_VERSION"));
    let status = run(&[&arguments[..], &["text"]].concat());
    assert!(
        status.stdout.contains(", ready, ") && status.stdout.contains("accepted 20"),
        "{status:?}"
    );
}

#[test]
fn doctor_answers_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let config = dir.path().join("vigie.toml");
    let listen = |address: &str| std::fs::write(&config, format!("[server]\nlisten = {address:?}\n")).unwrap();
    let examine = || {
        let doctor = run(&[
            "doctor",
            "--config",
            text(&config),
            "--data-dir",
            text(&data),
            "--output",
            "json",
        ]);
        let said: Value = serde_json::from_str(&doctor.stdout).unwrap_or_else(|error| panic!("{error}: {doctor:?}"));
        (doctor.code, said)
    };
    listen("127.0.0.1:0");
    let (code, said) = examine();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said["to_production"].as_array().unwrap().is_empty(), "{said}");
    // With a server on the directory.
    let server = Server::start(&data, &[]);
    let (code, said) = examine();
    let about = |of: &str| {
        said["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|finding| finding["about"] == of)
    };
    assert!(code == Some(0) && about("server"), "{said}");
    drop(server);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&taken.local_addr().unwrap().to_string());
    let (code, said) = examine();
    assert_eq!((code, &said["verdict"]), (Some(1), &json!("problem")), "{said}");
}

#[test]
fn what_a_server_exports_is_declared_and_moves() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &["--set", "archive.flush-after=1s"]);
    let events = purchases(30);
    server.post(&events);
    server.post(&events);
    let _ = server.settled();
    let expected = [
        ("vigie_events_duplicates_total", 30.0),
        ("vigie_events_applied_total", 30.0),
        ("vigie_events_in_flight", 0.0),
        ("vigie_pipeline_lag_records", 0.0),
        ("vigie_pipeline_watermark_age_seconds", 0.0),
        ("vigie_timers_overdue_partitions", 0.0),
        ("vigie_archive_lag_records", 0.0),
        ("vigie_model_info", 1.0),
    ];
    let positive = [
        "vigie_archive_rows_total",
        "vigie_disk_free_bytes",
        "vigie_log_size_bytes",
        "vigie_model_activated_seconds",
    ];
    // Gauges are published once a second.
    let page = until("every value is as expected", || {
        let page = page(&server);
        let exact = expected.iter().all(|(name, value)| page.sum(name) == Some(*value));
        let there = positive
            .iter()
            .all(|name| page.sum(name).is_some_and(|value| value > 0.0));
        (exact && there).then_some(page)
    });
    let unknown: BTreeSet<&str> = page.names().filter(|name| catalogue::find(name).is_none()).collect();
    assert!(unknown.is_empty(), "exported, and in no catalogue: {unknown:?}");
    assert_eq!(
        page.by("vigie_events_duplicates_total", "source").get("canonical"),
        Some(&30.0)
    );
    // Each append is counted once.
    let appends = page.sum("vigie_log_append_latency_seconds_count");
    let fsyncs = page.sum("vigie_log_fsync_duration_seconds_count");
    assert!(
        appends.is_some_and(|appends| appends >= 2.0) && fsyncs.is_some(),
        "{appends:?} {fsyncs:?}"
    );
}

#[test]
fn canaries_measure_the_whole_way_and_appear_in_nobodys_books() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &["--set", "canary.every=100ms"]);
    let page = until("three canaries were seen", || {
        let page = page(&server);
        let seen = page.sum("vigie_canary_latency_seconds_count");
        seen.is_some_and(|seen| seen >= 3.0).then_some(page)
    });
    assert_eq!(page.sum("vigie_canary_lost_total"), Some(0.0));
    assert_eq!(server.books().accepted, 0);
    let customers = server.get_json("/v1/customers?sort=at-risk");
    assert_eq!(customers["customers"], json!([]), "{customers}");
}
