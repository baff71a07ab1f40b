//! What a server says about the past, and what is true of the directory that it leaves: questions in SQL within one
//! workspace, histories, audits (asked for, and after a death), replays whose root is the live store's, and a rebuilt store.

use crate::support::{Server, now, run};
use serde_json::{Value, json};
use std::path::Path;

const DAY_MS: i64 = 86_400_000;

/// Four people with some history, an anonymous visit that is linked to one of them, repeated and refused events.
fn events() -> Vec<Value> {
    let start = now().0 - 60 * DAY_MS;
    let mut events: Vec<Value> = (0..120)
        .map(|n: i64| {
            let person = n % 4;
            let signal = if n % 5 == 0 { "purchase" } else { "page.view" };
            let mut event = json!({
                "id": format!("e{n}"), "user_id": format!("u{person}"), "signal": signal,
                "timestamp": start + n * DAY_MS / 4,
            });
            if signal == "purchase" {
                event["money"] = json!({"amount": 10 + n, "currency": "EUR"});
            }
            event
        })
        .collect();
    events.push(json!({"id": "a1", "anonymous_id": "browser", "signal": "page.view"}));
    events.push(json!({"id": "a2", "anonymous_id": "browser", "user_id": "u1", "signal": "identity.identify"}));
    events.push(json!({"id": "a3", "anonymous_id": "browser", "signal": "page.view"}));
    events.push(json!({"id": "no", "user_id": "u3", "signal": "page.view", "consent": {"profiling": "refused"}}));
    events.extend(events[..20].to_vec());
    events
}

fn query(server: &Server, sql: &str) -> (u16, Value) {
    ask(server, &server.keys.read, "/v1/query", &json!({"sql": sql}))
}

fn ask(server: &Server, key: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = server.client.post(path, key, &body.to_string()).unwrap();
    let value = serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body));
    (answer.status, value)
}

/// `vigie audit` and `vigie replay` over a directory: the exit code and the two roots.
#[track_caller]
fn roots(dir: &Path) -> (Option<i32>, String, String) {
    let dir = dir.to_str().unwrap();
    let audit = run(&["audit", "--data-dir", dir, "--output", "json"]);
    let replay = run(&["replay", "--data-dir", dir, "--output", "json"]);
    assert_eq!((audit.code, replay.code), (Some(0), Some(0)), "{audit:?} {replay:?}");
    let root = |text: &str, name: &str| -> String {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        value[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_owned()
    };
    (
        audit.code,
        root(&audit.stdout, "root_live"),
        root(&replay.stdout, "merkle_root"),
    )
}

#[track_caller]
fn audited(dir: &Path) {
    let (code, live, replayed) = roots(dir);
    assert_eq!(code, Some(0));
    assert_eq!(live, replayed, "the replay's root is not the live store's");
}

#[test]
fn a_server_answers_about_the_past_and_leaves_a_directory_that_can_be_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    server.post(&events());
    let books = server.settled();
    assert_eq!((books.applied, books.duplicate, books.suppressed), (123, 20, 1));

    // What is not archived yet is seen all the same.
    let (status, rows) = query(
        &server,
        "SELECT decision, count(*) AS n FROM events GROUP BY decision ORDER BY decision",
    );
    assert_eq!(status, 200, "{rows}");
    let expected = json!([{"decision": "applied", "n": 123}, {"decision": "duplicate", "n": 20}, {"decision": "suppressed", "n": 1}]);
    assert_eq!(rows, expected);
    let (_, rows) = query(&server, "SELECT count(*) AS n, sum(purchases) AS p FROM customers");
    assert_eq!(rows[0]["n"], json!(4), "{rows}");
    let (status, problem) = query(&server, "SELECT nothing FROM events");
    assert_eq!((status, problem["code"].as_str()), (400, Some("bad_sql")), "{problem}");
    let (status, _) = query(&server, "DROP TABLE events");
    assert_eq!(status, 400);
    let (status, problem) = ask(&server, &server.keys.write, "/v1/query", &json!({"sql": "SELECT 1"}));
    assert_eq!(
        (status, problem["code"].as_str()),
        (403, Some("key_scope")),
        "{problem}"
    );

    // How it came about: the visits before signing in belong to the customer's history.
    let told = server.get_json("/v1/customers/u1/history");
    let steps = told["steps"].as_array().unwrap();
    let kinds: Vec<&str> = steps.iter().map(|step| step["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"merge"), "{kinds:?}");
    let purchase = steps.iter().find(|step| step["event"]["id"] == "e5").unwrap();
    assert_eq!(purchase["decision"], "applied");
    assert!(purchase["after"]["attrition"].is_f64(), "{purchase}");
    let live = server.get_json("/v1/customers/u1");
    let (told_end, live_now) = (
        told["at_end"]["attrition"].as_f64().unwrap(),
        live["attrition"]["score"].as_f64().unwrap(),
    );
    assert!((told_end - live_now).abs() < 1e-6, "{told_end} {live_now}");
    let anonymous = server.get_json("/v1/customers/anonymous:browser/history");
    assert_eq!(anonymous["customer"], "u1");
    assert_eq!(
        server
            .client
            .get("/v1/customers/nobody/history", &server.keys.read)
            .unwrap()
            .status,
        404
    );

    let (status, answer) = ask(&server, &server.keys.admin, "/v1/audit", &json!(null));
    assert_eq!((status, answer["exit_code"].as_u64()), (200, Some(0)), "{answer}");
    let (status, _) = ask(&server, &server.keys.read, "/v1/audit", &json!(null));
    assert_eq!(status, 403);

    // The commands ask the same server.
    let sql = run(&[
        "sql",
        "--url",
        &server.url,
        "--key",
        &server.keys.read,
        "--output",
        "csv",
        "SELECT count(*) AS n FROM events",
    ]);
    assert_eq!((sql.code, sql.stdout.as_str()), (Some(0), "n\n144\n"), "{sql:?}");
    let audit = run(&["audit", "--url", &server.url, "--key", &server.keys.admin]);
    assert!(audit.code == Some(0) && audit.stdout.contains("EQUAL"), "{audit:?}");
    let explain = run(&["explain", "u0", "--url", &server.url, "--key", &server.keys.read]);
    assert!(
        explain.code == Some(0) && explain.stdout.contains("purchase"),
        "{explain:?}"
    );

    // A death at any moment leaves what an audit understands.
    server.process.kill();
    drop(server);
    audited(dir.path());

    // A doubtful store is replaced by the same bytes.
    let rebuilt = run(&["rebuild", "--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    assert!(dir.path().join("store.replaced-1").is_dir());
    audited(dir.path());
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    let rebuilt = run(&["rebuild", "--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    audited(dir.path());

    // And the server goes on with it.
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.settled().applied, 123);
    server.post(&[json!({"id": "later", "user_id": "u0", "signal": "page.view"})]);
    assert_eq!(server.settled().applied, 124);
}

#[test]
fn nobody_audits_what_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let audit = run(&["audit", "--data-dir", missing.to_str().unwrap()]);
    assert_eq!(audit.code, Some(2), "{audit:?}");
    let audit = run(&["audit", "--data-dir", dir.path().to_str().unwrap()]);
    assert!(
        audit.code == Some(2) && audit.stderr.contains("data directory"),
        "{audit:?}"
    );
    let sql = run(&["sql", "--data-dir", missing.to_str().unwrap(), "SELECT 1"]);
    assert_eq!(sql.code, Some(1), "{sql:?}");
}

#[track_caller]
fn demo(args: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let ran = run(&[
        &["demo", "--once", "--port", "0", "--data-dir", data.to_str().unwrap()],
        args,
    ]
    .concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    audited(&data);
}

#[test]
fn the_root_of_the_demonstration_shop_is_replayed() {
    demo(&["--customers", "200"]);
}

#[test]
fn the_root_of_cdnow_is_replayed() {
    demo(&["--data", "cdnow"]);
}
/// F66: replays and audits beside a server that takes events. Nothing of theirs reaches the live store or its flags.
#[test]
fn replays_beside_a_running_server_disturb_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(
        &data,
        &["--set", "archive.flush-after=1s", "--set", "archive.flush-rows=1000"],
    );
    let first = now().0 - 200 * DAY_MS;
    let batch = |number: i64| -> Vec<Value> {
        let one = |n: i64| {
            json!({
                "id": format!("e{number}-{n}"), "user_id": format!("u{}", n % 50), "signal": if n % 3 == 0 { "purchase" } else { "page.view" },
                "timestamp": first + (number % 100) * DAY_MS + n * 1_000,
            })
        };
        (0..200).map(one).collect()
    };
    server.post(&batch(0));
    let _books = server.settled();
    let eager = dir.path().join("eager.toml");
    std::fs::write(
        &eager,
        "[[policy]]\nid = \"early\"\nscore = \"attrition\"\nthreshold = 0.1\n",
    )
    .unwrap();
    let running = std::sync::atomic::AtomicBool::new(true);
    let mut sent = 1;
    std::thread::scope(|scope| {
        let commands = scope.spawn(|| {
            let place = data.to_str().unwrap();
            let archived = || run(&["replay", "--data-dir", place, "--output", "json"]).code == Some(0);
            crate::support::until("something is archived", || archived().then_some(()));
            for _ in 0..1 {
                for more in [
                    &["--output", "json"][..],
                    &["--policies", eager.to_str().unwrap(), "--output", "json"],
                ] {
                    let ran = run(&[&["replay", "--data-dir", place], more].concat());
                    assert_eq!(ran.code, Some(0), "{ran:?}");
                }
                let audit = run(&["audit", "--url", &server.url, "--key", &server.keys.admin]);
                assert_eq!(audit.code, Some(0), "{audit:?}");
            }
            running.store(false, std::sync::atomic::Ordering::Relaxed);
        });
        // Bounded, since an audit reads all of it.
        while running.load(std::sync::atomic::Ordering::Relaxed) && !commands.is_finished() && sent < 250 {
            server.post(&batch(sent));
            sent += 1;
        }
    });
    let books = server.settled();
    assert_eq!(
        (books.applied, books.duplicate, books.dead_letter),
        (sent as u64 * 200, 0, 0)
    );
    let (status, rows) = query(&server, "SELECT count(*) AS n FROM flags WHERE policy = 'early'");
    assert_eq!(
        (status, &rows[0]["n"]),
        (200, &json!(0)),
        "a candidate's flags are nobody's"
    );
    drop(server);
    audited(&data);
}
