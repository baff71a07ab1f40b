//! Models of a running server: a candidate is put beside the one in force, is seen in the API, takes its place by one command,
//! and stays there over a restart with the same configuration.

use crate::support::{Server, run, until};
use serde_json::{Value, json};
use std::path::Path;
use vigie_scoring::Model;

/// `vigie model …` against a server.
fn model(server: &Server, args: &[&str]) -> (Option<i32>, Value, String) {
    let mut all = vec!["model"];
    all.extend_from_slice(args);
    all.extend_from_slice(&["--url", &server.url, "--key", &server.keys.admin, "--output", "json"]);
    let ran = run(&all);
    (
        ran.code,
        serde_json::from_str(&ran.stdout).unwrap_or_default(),
        ran.stderr,
    )
}

#[test]
fn a_candidate_scores_beside_the_model_and_takes_its_place_by_one_command() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("second.toml"));
    let text = Model::shipped_text()
        .replacen("btyd-cdnow", "second", 1)
        .replacen("offset = 0.0", "offset = 0.7", 1);
    std::fs::write(&file, &text).unwrap();
    let (shipped, second) = (Model::shipped().unwrap().version, Model::parse(&text).unwrap().version);
    let (file, broken) = (file.to_str().unwrap(), dir.path().join("broken.toml"));
    std::fs::write(&broken, "name = \"x\"\n").unwrap();

    let server = Server::start(&data, &[]);
    server.post(&[json!({
        "id": "order-1", "user_id": "ann", "signal": "purchase", "money": {"amount": 12, "currency": "EUR"},
    })]);
    let _ = server.settled();
    let (code, _, told) = model(&server, &["promote"]);
    assert!(code == Some(1) && told.contains("no candidate"), "{told}");
    let (code, _, told) = model(&server, &["shadow", broken.to_str().unwrap()]);
    assert!(code == Some(2) && told.contains("broken.toml"), "{told}");
    let answer = server
        .client
        .post("/v1/model/shadow", &server.keys.admin, "name = 1")
        .unwrap();
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (400, Some("model_syntax"))
    );
    let answer = server.client.post("/v1/model/promote", &server.keys.read, "").unwrap();
    assert_eq!(answer.status, 403);

    let (code, shown, told) = model(&server, &["shadow", file]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(
        shown,
        json!({"in_force": shipped, "supersedes": null, "candidate": second})
    );
    let ann = server.get_json("/v1/customers/ann");
    assert_eq!(
        (ann["model"].as_str(), ann["candidate"]["model"].as_str()),
        (Some(&*shipped), Some(&*second))
    );
    let score = |of: &Value| of["attrition"]["score"].as_f64().unwrap();
    assert!(score(&ann["candidate"]) > score(&ann));

    let (code, shown, told) = model(&server, &["promote"]);
    assert_eq!(code, Some(0), "{told}");
    let promoted = json!({"in_force": second, "supersedes": shipped, "candidate": null});
    assert_eq!(shown, promoted);
    let after = server.get_json("/v1/customers/ann");
    assert_eq!(
        (after["model"].as_str(), &after["candidate"]),
        (Some(&*second), &Value::Null)
    );
    stays(server, &data, &promoted);
}

/// The same configuration, another process.
fn stays(mut server: Server, data: &Path, promoted: &Value) {
    server.process.terminate();
    let _ = server.process.ended("a server that was asked to stop");
    let server = Server::start(data, &[]);
    let (code, shown, told) = model(&server, &["show"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(&shown, promoted);
    assert_eq!(server.get_json("/v1/customers/ann")["model"], promoted["in_force"]);
}

/// A reload puts other policies in force, not another model: what was promoted keeps its place beside them.
#[test]
fn a_reload_keeps_a_promoted_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let policies =
        |threshold: f64| format!("[[policy]]\nid = \"early\"\nscore = \"attrition\"\nthreshold = {threshold}\n");
    std::fs::write(path("policies.toml"), policies(0.8)).unwrap();
    let text = Model::shipped_text().replacen("btyd-cdnow", "second", 1);
    std::fs::write(path("second.toml"), &text).unwrap();
    let second = Model::parse(&text).unwrap().version;
    let setting = format!("relance.policies={}", path("policies.toml").display());
    let server = Server::start(&path("data"), &["--set", &setting]);
    server.post(&[json!({"id": "1", "user_id": "ann", "signal": "purchase"})]);
    let _ = server.settled();
    for args in [&["shadow", path("second.toml").to_str().unwrap()][..], &["promote"]] {
        let (code, _, told) = model(&server, args);
        assert_eq!(code, Some(0), "{told}");
    }
    std::fs::write(path("policies.toml"), policies(0.6)).unwrap();
    let reload = server
        .client
        .post("/v1/policies/reload", &server.keys.admin, "")
        .unwrap();
    assert_eq!(reload.json()["changed"], true, "{:?}", reload.json());
    assert_eq!(reload.json()["model"], json!(second));
    let ann = until("the reload is in force", || {
        let ann = server.get_json("/v1/customers/ann");
        (ann["crossings"][0]["threshold"] == 0.6).then_some(ann)
    });
    assert_eq!(ann["model"], json!(second));
    let (code, shown, told) = model(&server, &["show"]);
    assert_eq!((code, &shown["in_force"]), (Some(0), &json!(second)), "{told}");
}
