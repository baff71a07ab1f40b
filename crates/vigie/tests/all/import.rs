//! `vigie import`, and fits and backtests on what it brought: files with faults, servers that are busy or die, the same file
//! twice. The oracle for what arrived is the server's own books, for a backtest from the archive the same one from the file.

use crate::repository::root;
use crate::support::{Books, Ran, Server, run};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// Purchases of the CDNOW sample.
const PURCHASES: u64 = 6_919;
/// Its customers.
const CUSTOMERS: u64 = 2_357;

fn sample() -> String {
    root()
        .join("crates/vigie/fixtures/cdnow-sample.csv.gz")
        .display()
        .to_string()
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn import(dir: &Path, file: &str, url: &str, key: &str, more: &[&str]) -> Ran {
    let refused = dir.join("refused.jsonl").display().to_string();
    let mut args = vec![
        "import",
        file,
        "--url",
        url,
        "--key",
        key,
        "--refused",
        &refused,
        "--output",
        "json",
    ];
    args.extend(more);
    run(&args)
}

#[test]
fn a_file_that_is_imported_twice_counts_once_and_can_be_fitted_from_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &[]);
    let mapping = dir.path().join("cdnow.toml");
    std::fs::write(
        &mapping,
        "customer = \"customer_id\"\ntime = \"date\"\namount = \"amount\"\ncurrency = \"USD\"\nquantity = \"cds\"\n",
    )
    .unwrap();
    let mapping = mapping.display().to_string();
    for (round, more) in [vec!["--dry-run"], vec![], vec![]].into_iter().enumerate() {
        let ran = import(
            dir.path(),
            &sample(),
            &server.url,
            &server.keys.history,
            &[more, vec!["--mapping", &mapping]].concat(),
        );
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let lines = json!({"read": PURCHASES, "sent": PURCHASES, "skipped": 0, "refused": 0});
        assert_eq!(json_of(&ran)["lines"], lines, "{ran:?}");
        let round = round as u64;
        let expected = Books {
            accepted: round * PURCHASES,
            applied: PURCHASES.min(round * PURCHASES),
            duplicate: round.saturating_sub(1) * PURCHASES,
            ..Books::default()
        };
        assert_eq!(server.settled(), expected);
    }
    server.process.terminate();
    assert!(server.process.ended("the server's stop").success());

    let archive = data.display().to_string();
    let common = ["--model", "mbg-nbd", "--model", "default", "--output", "json"];
    let from_archive = run(&[&["backtest", "--data-dir", &archive], &common[..]].concat());
    let from_file = run(&[&["backtest", "--csv", &sample(), "--time", "date"], &common[..]].concat());
    let (from_archive, from_file) = (json_of(&from_archive), json_of(&from_file));
    assert_eq!(
        (&from_archive["purchases"], &from_file["purchases"]),
        (&json!(PURCHASES), &json!(PURCHASES))
    );
    for (a, b) in from_archive["models"]
        .as_array()
        .unwrap()
        .iter()
        .zip(from_file["models"].as_array().unwrap())
    {
        assert_eq!(a["model"], b["model"]);
        for name in ["auc", "log_loss", "brier"] {
            let (a, b) = (a["mean"][name].as_f64().unwrap(), b["mean"][name].as_f64().unwrap());
            assert!((a - b).abs() < 1e-6, "{name}: {a} from the archive, {b} from the file");
        }
        // Of equal scores, the order decides who is in which tenth.
        let (a, b) = (a["mean"]["ece"].as_f64().unwrap(), b["mean"]["ece"].as_f64().unwrap());
        assert!((a - b).abs() < 0.02, "ECE: {a} from the archive, {b} from the file");
    }

    let model = dir.path().join("model.toml").display().to_string();
    let fitted = run(&["fit", "--data-dir", &archive, "--name", "shop", "--out", &model]);
    assert_eq!(fitted.code, Some(0), "{fitted:?}");
    assert!(fitted.stdout.contains(&format!("{CUSTOMERS} customers")), "{fitted:?}");
    let text = std::fs::read_to_string(&model).unwrap();
    assert!(
        text.contains("[value]") && text.contains("currency = \"USD\"") && text.contains("spend = {"),
        "{text}"
    );
}

#[test]
fn lines_without_an_event_are_kept_with_their_number_and_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let file = dir.path().join("orders.csv");
    let long = "x".repeat(300);
    let text = format!(
        "customer_id,time,amount,currency\nann,2026-01-02,10,EUR\n,2026-01-03,1,EUR\nann,never,1,EUR\n{long},2026-01-04,1,EUR\nann,2026-01-05,12,EUR\n"
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let ran = import(dir.path(), &file, &server.url, &server.keys.history, &[]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let said = json_of(&ran);
    assert_eq!(said["lines"], json!({"read": 5, "sent": 2, "skipped": 0, "refused": 3}));
    assert_eq!(said["reasons"], json!({"no_customer": 1, "time": 1, "id_len": 1}));
    let kept = std::fs::read_to_string(dir.path().join("refused.jsonl")).unwrap();
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines: Vec<_> = kept
        .iter()
        .map(|letter| (letter["line"].as_u64().unwrap(), letter["code"].as_str().unwrap()))
        .collect();
    assert_eq!(lines, [(3, "no_customer"), (4, "time"), (5, "id_len")]);
    assert_eq!(kept[1]["text"], "ann,never,1,EUR");
    assert_eq!(server.settled().applied, 2);

    // A key without the scope is refused line by line by the server, in its words.
    let old = dir.path().join("old.csv");
    std::fs::write(&old, "customer_id,time\nann,1997-01-01\n").unwrap();
    let ran = import(
        dir.path(),
        &old.display().to_string(),
        &server.url,
        &server.keys.write,
        &[],
    );
    assert_eq!(
        (ran.code, &json_of(&ran)["reasons"]),
        (Some(3), &json!({"ts_too_old": 1})),
        "{ran:?}"
    );
    let ran = import(dir.path(), &old.display().to_string(), &server.url, "vw_wrong", &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("run the same command again"), "{ran:?}");
}

#[test]
fn what_does_not_fit_is_said_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    std::fs::write(&file, "id,when\n1,2\n").unwrap();
    let file = file.display().to_string();
    let nobody = "http://127.0.0.1:9";
    let ran = import(dir.path(), &file, nobody, "k", &[]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for part in ["customer_id", "\"time\"", "id, when"] {
        assert!(ran.stderr.contains(part), "{ran:?}");
    }
    let ran = import(
        dir.path(),
        &file,
        nobody,
        "k",
        &["--customer", "id", "--time", "when", "--patience", "0"],
    );
    assert_eq!(ran.code, Some(3), "a time that is none needs no server: {ran:?}");
    std::fs::write(&file, "id,when\n1,2026-01-01\n").unwrap();
    let ran = import(dir.path(), &file, nobody, "k", &["--customer", "id", "--time", "when"]);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("is vigie up there?"),
        "{ran:?}"
    );
    let ran = run(&["import", &file, "--customer", "id", "--time", "when"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("--key"), "{ran:?}");
    let ran = run(&["import", "orders.xlsx", "--dry-run"]);
    assert!(ran.code == Some(2) && ran.stderr.contains(".csv"), "{ran:?}");
}

/// Reads one request and gives its body.
fn request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        let _ = reader.read_line(&mut line).unwrap();
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// A server that is busy, then too busy, and then takes everything but one event.
#[test]
fn a_busy_server_gets_the_same_events_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    std::fs::write(&file, "customer_id,time\na,2026-01-01\nb,2026-01-02\nc,2026-01-03\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let taken = r#"{"accepted":2,"rejected":[{"i":1,"code":"value","field":"money","message":"no"}]}"#;
        let ok = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{taken}",
            taken.len()
        );
        let busy =
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let much = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let answers = [busy, much, ok.as_str()];
        let mut bodies = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            bodies.push(request(&mut stream));
            stream.write_all(answer.as_bytes()).unwrap();
        }
        bodies
    });
    let ran = import(dir.path(), &file.display().to_string(), &url, "k", &[]);
    let bodies = server.join().unwrap();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert_eq!(
        json_of(&ran)["lines"],
        json!({"read": 3, "sent": 2, "skipped": 0, "refused": 1})
    );
    let kept = std::fs::read_to_string(dir.path().join("refused.jsonl")).unwrap();
    let letter: Value = serde_json::from_str(kept.trim()).unwrap();
    assert_eq!(
        (&letter["line"], &letter["code"], &letter["field"]),
        (&json!(3), &json!("value"), &json!("money"))
    );
}

#[test]
fn a_table_that_sql_wrote_is_history_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let from = Server::start(&dir.path().join("from"), &[]);
    let bought = |id: u32, user: &str, day: u32, amount: &str| {
        json!({"id": id.to_string(), "user_id": user, "signal": "purchase", "order_id": id.to_string(),
            "timestamp": format!("2026-10-{day:02}T10:00:00Z"), "money": {"amount": amount, "currency": "EUR"}})
    };
    let orders = [
        bought(1, "ann", 3, "12.50"),
        bought(2, "ann", 17, "7.25"),
        bought(3, "bob", 5, "0.01"),
    ];
    from.post(&orders);
    assert_eq!(from.settled().applied, 3);
    let table = dir.path().join("orders.parquet").display().to_string();
    let sql = "SELECT customer AS who, at AS day, amount, currency, order_id FROM events WHERE signal = 'purchase'";
    let wrote = run(&[
        "sql",
        "--url",
        &from.url,
        "--key",
        &from.keys.read,
        "--output",
        "parquet",
        "--out",
        &table,
        sql,
    ]);
    assert_eq!(wrote.code, Some(0), "{wrote:?}");

    let to = Server::start(&dir.path().join("to"), &[]);
    for _ in 0..2 {
        let more = ["--customer", "who", "--time", "day"];
        let ran = import(dir.path(), &table, &to.url, &to.keys.history, &more);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let lines = json!({"read": 3, "sent": 3, "skipped": 0, "refused": 0});
        assert_eq!(json_of(&ran)["lines"], lines, "{ran:?}");
    }
    let books = to.settled();
    assert_eq!((books.applied, books.duplicate), (3, 3));
    for user in ["ann", "bob"] {
        let [was, is] = [&from, &to].map(|server| server.get_json(&format!("/v1/customers/{user}")));
        for part in ["purchases", "first_activity", "last_activity"] {
            assert_eq!(is["evidence"][part], was["evidence"][part], "{user}");
        }
        assert_eq!(is["value"]["historical"], was["value"]["historical"], "{user}");
    }

    let broken = dir.path().join("broken.parquet");
    std::fs::write(&broken, "customer_id,time\n").unwrap();
    let ran = import(dir.path(), broken.to_str().unwrap(), &to.url, &to.keys.history, &[]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr.contains("broken.parquet") && ran.stderr.contains("not a Parquet file"),
        "{ran:?}"
    );
}
