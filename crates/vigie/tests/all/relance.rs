//! Relance from end to end: policies that are rehearsed, put in force while the server runs and refused when they are broken; a
//! flag's whole course through the pull queue; what the reports say of it, asked of the server and of its directory; and a
//! store that is set back to an older point (F69).

use crate::support::{Launch, Server, Starting, now, run, until};
use serde_json::{Value, json};
use std::path::Path;
use vigie_event::DAY_MS;

/// One of them would be markup, if nobody took care.
const CUSTOMERS: [&str; 4] = ["ann", "bea", "cleo", "<b>"];

const POLICIES: &str = r#"
[calendar]
quiet-hours = "00:00-00:00"
[money]
currency = "EUR"
margin = 0.5
[[policy]]
id = "silent"
owner = "tests"
goal = "Notice silence."
score = "attrition"
threshold = 0.99999
cooldown-days = 30
[[policy.channel]]
name = "phone"
cost = 0.01
capacity = 2
"#;

fn start(dir: &Path) -> Server {
    let launch = Launch {
        args: vec![
            "--set".to_owned(),
            format!("relance.policies={}", dir.join("policies.toml").display()),
        ],
        ..Launch::default()
    };
    Starting::launch(&dir.join("data"), &launch).up()
}

/// A customer who bought every week, and has not come for a hundred days.
fn gone(customer: &str) -> Vec<Value> {
    let last = now().plus_ms(-100 * DAY_MS);
    let purchase = |week: i64| {
        let at = last.plus_ms(-week * 7 * DAY_MS).to_string();
        json!({
            "id": format!("{customer}-{week}"), "user_id": customer, "signal": "purchase", "timestamp": at,
            "money": {"amount": 40, "currency": "EUR"},
        })
    };
    (0..12).map(purchase).collect()
}

fn of<'a>(report: &'a Value, policy: &str) -> &'a Value {
    let policies = report["policies"].as_array().unwrap();
    policies
        .iter()
        .find(|found| found["policy"] == policy)
        .unwrap_or_else(|| panic!("{report:#}"))
}

/// The page stands alone and holds no markup of its data.
fn expect_page(path: &Path, title: &str) {
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains(title), "{page}");
    for foreign in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{} loads something: {foreign}", path.display());
    }
    assert_eq!(page.matches("<table").count(), page.matches("</table>").count());
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
}

#[test]
fn policies_are_rehearsed_reloaded_and_reported_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("policies.toml"), POLICIES).unwrap();
    let server = start(dir.path());
    for customer in CUSTOMERS {
        server.post(&gone(customer));
    }
    let _ = server.settled();
    assert_eq!(server.get_json("/v1/relances")["relances"], json!([]));

    // What would the lower threshold do? Nobody has been flagged yet, so that nobody is resting.
    let lower = POLICIES.replace("0.99999", "0.8");
    std::fs::write(path("lower.toml"), &lower).unwrap();
    let lower_file = path("lower.toml").display().to_string();
    let remote = ["--url", &server.url, "--key", &server.keys.admin];
    let dry = run(&[&["policy", "dry-run", lower_file.as_str(), "-o", "json"][..], &remote].concat());
    assert_eq!(dry.code, Some(0), "{dry:?}");
    let told: Value = serde_json::from_str(&dry.stdout).unwrap();
    let would = &told["policies"][0]["would"];
    assert_eq!(
        (&told["customers"], &would["flagged"]),
        (&json!(4), &json!(4)),
        "{told:#}"
    );
    assert_eq!(would["channels"]["phone"], json!({"count": 4, "cost": 0.04, "days": 2}));
    assert_eq!(
        server.get_json("/v1/relances")["relances"],
        json!([]),
        "a rehearsal changes nothing"
    );

    // Broken and half-written files change nothing, and are told by line; the policies that were in force stay.
    let reload = || run(&[&["policy", "reload"][..], &remote].concat());
    std::fs::write(path("policies.toml"), lower.replace("0.8", "8")).unwrap();
    let refused = reload();
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("line 12: policy \"silent\": threshold 8"),
        "{refused:?}"
    );
    std::fs::write(path("policies.toml"), &lower[..lower.len() - 40]).unwrap();
    assert_eq!(reload().code, Some(2));
    std::fs::write(path("policies.toml"), POLICIES).unwrap();
    assert!(reload().stdout.starts_with("nothing has changed"), "{:?}", reload());

    // A good one is put in force on SIGHUP, and reaches customers who say nothing.
    std::fs::write(path("policies.toml"), &lower).unwrap();
    server.process.signal("HUP");
    let flags = until("everybody is flagged", || {
        let relances = server.get_json("/v1/relances")["relances"].clone();
        (relances.as_array().unwrap().len() == 4).then_some(relances)
    });
    let check = run(&["policy", "check", lower_file.as_str(), "-o", "json"]);
    let checked: Value = serde_json::from_str(&check.stdout).unwrap();
    for flag in flags.as_array().unwrap() {
        assert_eq!(
            flag["policy_version"], checked["policies"][0]["settings"]["version"],
            "{flag}"
        );
    }

    // Two a day, says the policy; what an agent does is part of the flag's course.
    let claim = json!({"max": 9, "agent": "ada"}).to_string();
    let claimed = server
        .client
        .post("/v1/relances/claim", &server.keys.read, &claim)
        .unwrap()
        .json();
    let claimed = claimed["relances"].as_array().unwrap().clone();
    assert_eq!(claimed.len(), 2, "{claimed:?}");
    for (relance, outcome) in claimed.iter().zip(["reached", "wrong"]) {
        let id = relance["relance"]["id"].as_str().unwrap();
        let body = json!({"outcome": outcome, "lease": relance["lease"], "channel": "phone"}).to_string();
        let answer = server
            .client
            .post(&format!("/v1/relances/{id}/outcome"), &server.keys.read, &body);
        assert_eq!(answer.unwrap().status, 202);
    }
    let back = claimed[0]["relance"]["customer"].as_str().unwrap();
    let gone_for_good = CUSTOMERS.iter().find(|customer| **customer != back).unwrap();
    server.post(&[json!({
        "id": "back", "user_id": back, "signal": "purchase", "money": {"amount": 70, "currency": "EUR"},
    })]);
    server.post(&[json!({
        "id": "why", "user_id": gone_for_good, "signal": "custom", "name": "churn.reason", "properties": {"reason": "price"},
    })]);
    let _ = server.settled();

    let html = |name: &str| path(&format!("{name}.html")).display().to_string();
    let ask = |name: &str, server: &Server| -> Value {
        let (page, key) = (html(name), server.keys.read.clone());
        let ran = run(&[
            "report",
            name,
            "--url",
            &server.url,
            "--key",
            &key,
            "-o",
            "json",
            "--html",
            &page,
        ]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let policies = ask("policies", &server);
    let silent = of(&policies, "silent");
    let number = |name: &str| silent[name].as_u64().unwrap();
    assert_eq!(
        (number("flagged"), number("claimed"), number("contacted")),
        (4, 2, 1),
        "{silent:#}"
    );
    assert_eq!((number("answered"), number("recalled"), number("open")), (1, 1, 4));
    assert_eq!(silent["verdict"], "undecided");
    expect_page(&path("policies.html"), "Do our relances work?");
    let portfolio = ask("portfolio", &server);
    assert_eq!(portfolio["customers"], 4);
    assert_eq!(portfolio["stages"]["won_back"], 1, "{portfolio:#}");
    let euros = &portfolio["currencies"][0];
    assert_eq!(
        (&euros["currency"], &euros["all"]["customers"]),
        (&json!("EUR"), &json!(4))
    );
    expect_page(&path("portfolio.html"), "Who makes up the value?");
    let losses = ask("losses", &server);
    assert_eq!(losses["lost"], 3, "{losses:#}");
    let causes: Vec<&str> = losses["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| cause["cause"].as_str().unwrap())
        .collect();
    assert!(causes.contains(&"said: price"), "{causes:?}");
    expect_page(&path("losses.html"), "Why did we lose them?");
    let page = std::fs::read_to_string(path("portfolio.html")).unwrap();
    assert!(
        page.contains("<td>&lt;b&gt;</td>") && !page.contains("<td><b>"),
        "names are no markup"
    );
    let wrong = server
        .client
        .get("/v1/reports/policies?format=pdf", &server.keys.read)
        .unwrap();
    assert_eq!(wrong.status, 400);
    assert_eq!(
        server
            .client
            .get("/v1/reports/policies", &server.keys.write)
            .unwrap()
            .status,
        403
    );
    assert_eq!(
        server
            .client
            .get("/v1/reports/moods", &server.keys.read)
            .unwrap()
            .status,
        404
    );

    // The directory of the stopped server tells the same.
    let Server { mut process, .. } = server;
    process.terminate();
    assert!(process.ended("the server").success());
    let data = path("data").display().to_string();
    for (name, told) in [("policies", &policies), ("losses", &losses)] {
        let ran = run(&["report", name, "--data-dir", &data, "-o", "json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let local: Value = serde_json::from_str(&ran.stdout).unwrap();
        let same = [
            "flagged",
            "claimed",
            "contacted",
            "answered",
            "lost",
            "silent",
            "causes",
        ];
        for field in same {
            let (a, b) = match name {
                "policies" => (&of(told, "silent")[field], &of(&local, "silent")[field]),
                _ => (&told[field], &local[field]),
            };
            assert_eq!(a, b, "{name} {field}");
        }
        let text = run(&["report", name, "--data-dir", &data]);
        assert!(text.code == Some(0) && !text.stdout.is_empty(), "{text:?}");
    }
}

/// F69: yesterday's store beside today's log. It is folded forward from its own position, to the same bytes as a store that was
/// never set back, and no flag gets another identity.
#[test]
fn a_store_that_is_set_back_comes_to_the_same_bytes_and_flags() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("policies.toml"), POLICIES.replace("0.99999", "0.8")).unwrap();
    let stop = |server: Server| {
        let Server { mut process, .. } = server;
        process.terminate();
        assert!(process.ended("the server").success());
    };
    let copy = |from: &str, to: &str| {
        let status = std::process::Command::new("cp")
            .arg("-r")
            .arg(path(from))
            .arg(path(to))
            .status();
        assert!(status.unwrap().success());
    };
    let server = start(dir.path());
    server.post(&gone("ann"));
    let _ = server.settled();
    stop(server);
    copy("data/store", "yesterday");
    let server = start(dir.path());
    server.post(&gone("bea"));
    server
        .post(&[json!({"id": "c", "user_id": "ann", "signal": "purchase", "money": {"amount": 5, "currency": "EUR"}})]);
    let _ = server.settled();
    let flags = |server: &Server| {
        let relances = server.get_json("/v1/relances")["relances"].clone();
        let ids: std::collections::BTreeSet<String> = relances
            .as_array()
            .unwrap()
            .iter()
            .map(|flag| flag["id"].as_str().unwrap().to_owned())
            .collect();
        ids
    };
    let known = flags(&server);
    assert_eq!(known.len(), 2);
    stop(server);
    let audit = || {
        let ran = run(&[
            "audit",
            "--data-dir",
            path("data").to_str().unwrap(),
            "--output",
            "json",
        ]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let told: Value = serde_json::from_str(&ran.stdout).unwrap();
        told["root_live"].as_str().unwrap().to_owned()
    };
    let root = audit();
    std::fs::remove_dir_all(path("data/store")).unwrap();
    copy("yesterday", "data/store");
    let server = start(dir.path());
    let _ = server.settled();
    assert_eq!(flags(&server), known, "the same flags, by the same names");
    stop(server);
    assert_eq!(audit(), root, "byte for byte that of a store which was never set back");
}
