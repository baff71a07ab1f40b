//! Real customers through a real client: the CDNOW sample, posted by Segment's Python client and read back through the
//! API, against P(alive) values that a separate program computed (`fixtures/README.md`). It compares numbers with that
//! oracle and never with what vigie said before.

use std::path::PathBuf;
use std::process::Command;

use crate::repository::root;
use crate::support::{Books, Server, finish, seed};

/// What another program computed.
const GOLDEN: &str = include_str!("fixtures/cdnow-palive.csv");
/// The end of the calibration period.
const AT: &str = "1997-09-30T23:59:59Z";
/// Purchases of the sample up to then.
const PURCHASES: u64 = 4_960;
/// Customers of the sample.
const CUSTOMERS: usize = 2_357;
/// Largest difference from the oracle.
const TOLERANCE: f64 = 1e-9;

/// The interpreter with the pinned packages.
fn python() -> PathBuf {
    let path = match std::env::var_os("VIGIE_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => root().join("target/python/bin/python"),
    };
    assert!(
        path.exists(),
        "there is no Python at {}: run `make python-env`, or set VIGIE_PYTHON to an interpreter that has the packages of \
         crates/vigie/tests/all/requirements.txt",
        path.display()
    );
    path
}

fn check(gzip: bool) {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let mut command = Command::new(python());
    let _ = command
        .arg(root().join("crates/vigie/tests/all/cdnow.py"))
        .arg("--data")
        .arg(root().join("crates/vigie/fixtures/cdnow-sample.csv.gz"))
        .args(["--host", &server.url, "--until", "1997-09-30", "--seed", &seed.to_string()])
        .args(gzip.then_some("--gzip"))
        .env("WRITE_KEY", &server.keys.history)
        // A proxy of the machine is not for loopback addresses.
        .env("NO_PROXY", "*");
    let sent = finish(command);
    let context = format!("replay with VIGIE_TEST_SEED={seed}; the client said {sent:?}");
    assert_eq!(sent.code, Some(0), "{context}");
    assert_eq!(sent.stdout.trim(), format!("{{\"events\": {PURCHASES}}}"), "{context}");

    let expected = Books {
        accepted: 2 * PURCHASES,
        applied: PURCHASES,
        duplicate: PURCHASES,
        ..Books::default()
    };
    assert_eq!(server.settled(), expected, "{context}");

    let mut customers = 0;
    for line in GOLDEN.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let answer = server.get_json(&format!("/v1/customers/{}?at={AT}", fields[0]));
        for (model, golden) in [("bg_nbd", fields[1]), ("mbg_nbd", fields[2])] {
            let golden: f64 = golden.parse().unwrap();
            let read = answer["p_alive"][model].as_f64().unwrap();
            assert!(
                (read - golden).abs() <= TOLERANCE,
                "{model} of customer {}: {read}, and by the oracle {golden}; {context}",
                fields[0]
            );
        }
        customers += 1;
    }
    assert_eq!(customers, CUSTOMERS);

    // Customer 0001 bought on 1997-08-02 for the last time before that day.
    let past = server
        .client
        .get("/v1/customers/0001?at=1997-08-01T23:59:59Z", &server.keys.read)
        .unwrap();
    assert_eq!(
        (past.status, past.json()["code"].as_str()),
        (422, Some("at_before_state")),
        "{past:?}"
    );
}

#[test]
fn cdnow_through_the_python_client_gives_the_published_p_alive() {
    check(false);
}

#[test]
fn cdnow_through_the_python_client_with_gzip_gives_the_published_p_alive() {
    check(true);
}
