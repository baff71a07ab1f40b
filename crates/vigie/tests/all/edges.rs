//! The dependency edges between the crates, against the table of the architecture, and the purity of the pure crates.
//!
//! It reads `cargo metadata` and never a source file: an edge that is not declared cannot be used.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::Command;

use serde_json::Value;

use crate::repository::{assert_none, root};

/// Who may depend on whom (normal dependencies; tests may use more). A crate that is missing here is refused.
///
/// Layer 0: event, telemetry, failpoint. 1: enrichment, scoring. 2: relance, and the adapters, which never see each other.
/// 3: pipeline and serve, which never see each other either. 4: the binary.
const ALLOWED: &[(&str, &[&str])] = &[
    ("vigie-event", &[]),
    ("vigie-telemetry", &[]),
    ("vigie-failpoint", &[]),
    ("vigie-enrichment", &["vigie-event", "vigie-failpoint"]),
    ("vigie-scoring", &["vigie-event"]),
    ("vigie-relance", &["vigie-event", "vigie-scoring", "vigie-failpoint"]),
    (
        "vigie-ingestion",
        &["vigie-event", "vigie-telemetry", "vigie-failpoint"],
    ),
    // The log's second home: it implements the trait of ingestion, so it stands above it.
    ("vigie-fit", &["vigie-event", "vigie-scoring"]),
    ("vigie-kafka", &["vigie-event", "vigie-telemetry", "vigie-ingestion"]),
    ("vigie-store", &["vigie-event", "vigie-telemetry", "vigie-failpoint"]),
    ("vigie-archive", &["vigie-event", "vigie-telemetry"]),
    (
        "vigie-audit",
        &["vigie-event", "vigie-enrichment", "vigie-scoring", "vigie-relance"],
    ),
    (
        "vigie-pipeline",
        &[
            "vigie-event",
            "vigie-telemetry",
            "vigie-enrichment",
            "vigie-scoring",
            "vigie-relance",
            "vigie-ingestion",
            "vigie-store",
            "vigie-failpoint",
        ],
    ),
    ("vigie-delivery", &["vigie-event", "vigie-telemetry", "vigie-store"]),
    (
        "vigie-serve",
        &[
            "vigie-event",
            "vigie-telemetry",
            "vigie-enrichment",
            "vigie-scoring",
            "vigie-relance",
            "vigie-store",
        ],
    ),
    (
        "vigie",
        &[
            "vigie-event",
            "vigie-telemetry",
            "vigie-enrichment",
            "vigie-scoring",
            "vigie-relance",
            "vigie-ingestion",
            "vigie-store",
            "vigie-archive",
            "vigie-audit",
            "vigie-delivery",
            "vigie-fit",
            "vigie-kafka",
            "vigie-pipeline",
            "vigie-serve",
        ],
    ),
    (
        "vigie-load-tests",
        &["vigie-event", "vigie-ingestion", "vigie-kafka", "vigie"],
    ),
];

/// Crates that are functions of their input and nothing else.
const PURE: &[&str] = &[
    "vigie-event",
    "vigie-enrichment",
    "vigie-scoring",
    "vigie-relance",
    "vigie-fit",
];

/// What a pure crate must not even reach indirectly: asynchrony, I/O, logging, metrics, clocks, randomness.
const IMPURE: &[&str] = &[
    "async-io",
    "async-trait",
    "axum",
    "chrono",
    "fjall",
    "futures-util",
    "getrandom",
    "http-body",
    "hyper",
    "metrics",
    "mio",
    "rand",
    "rand_core",
    "rdkafka",
    "redis",
    "reqwest",
    "rustls",
    "socket2",
    "tempfile",
    "tokio",
    "tower",
    "tracing",
    "uuid",
];

/// The workspace as cargo sees it: normal dependencies only.
#[derive(Default)]
struct Graph {
    members: BTreeSet<String>,
    /// Declared edges from members to members.
    edges: BTreeSet<(String, String)>,
    /// Resolved edges between all packages, by name.
    resolved: BTreeMap<String, BTreeSet<String>>,
}

fn metadata() -> Value {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let run = |offline: bool| {
        let mut command = Command::new(cargo);
        let _ = command
            .current_dir(root())
            .args(["metadata", "--format-version", "1", "--locked"]);
        if offline {
            let _ = command.arg("--offline");
        }
        command.output().expect("cargo runs")
    };
    let mut output = run(true);
    if !output.status.success() {
        // A fresh machine has not downloaded what other platforms need.
        output = run(false);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cargo metadata --locked failed; is Cargo.lock committed and up to date?\n{errors}"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

impl Graph {
    fn read(metadata: &Value) -> Graph {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let packages = list(&metadata["packages"]);
        let names: BTreeMap<String, String> = packages
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let name_of = |id: &Value| names.get(&text(id)).cloned().unwrap_or_default();
        let members: BTreeSet<String> = list(&metadata["workspace_members"]).iter().map(name_of).collect();
        let mut graph = Graph {
            members,
            ..Graph::default()
        };
        for package in packages
            .iter()
            .filter(|package| graph.members.contains(&text(&package["name"])))
        {
            for dependency in list(&package["dependencies"])
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
            {
                if graph.members.contains(&text(&dependency["name"])) {
                    let _ = graph.edges.insert((text(&package["name"]), text(&dependency["name"])));
                }
            }
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal = |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let dependencies = list(&node["deps"]);
            let targets = dependencies
                .iter()
                .filter(normal)
                .map(|dependency| name_of(&dependency["pkg"]));
            graph.resolved.entry(name_of(&node["id"])).or_default().extend(targets);
        }
        graph
    }

    /// The way by which `from` reaches a package called `to`, if it does.
    fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut queue = VecDeque::from([vec![from.to_owned()]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = queue.pop_front() {
            let last = way.last().unwrap();
            if last == to {
                return Some(way);
            }
            for next in self.resolved.get(last).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    queue.push_back(way.iter().chain([next]).cloned().collect());
                }
            }
        }
        None
    }
}

fn edge_findings(graph: &Graph) -> Vec<String> {
    let allowed = |from: &str| {
        ALLOWED
            .iter()
            .find(|(name, _)| *name == from)
            .map(|(_, targets)| *targets)
    };
    let mut findings = Vec::new();
    for member in graph.members.iter().filter(|member| allowed(member).is_none()) {
        findings.push(format!("{member}: not in the table of the architecture"));
    }
    for (from, to) in &graph.edges {
        if !allowed(from).is_some_and(|targets| targets.contains(&to.as_str())) {
            findings.push(format!("{from} -> {to}: not in the table of the architecture"));
        }
    }
    findings
}

fn purity_findings(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for pure in PURE {
        let ways = IMPURE.iter().filter_map(|impure| graph.way(pure, impure));
        findings.extend(ways.map(|way| {
            format!(
                "{} is pure, and must not reach {}",
                way.join(" -> "),
                way.last().unwrap()
            )
        }));
    }
    findings
}

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    let graph = Graph::read(&metadata());
    assert!(
        graph.members.contains("vigie") && graph.edges.iter().any(|(from, _)| from == "vigie"),
        "metadata misread"
    );
    assert_none(
        &edge_findings(&graph),
        "Move the code to the crate that may know both, or pass a value or trait through the binary. If the architecture \
         itself is wrong, change ARCHITECTURE.md and the table in crates/vigie/tests/all/edges.rs together.",
    );
}

#[test]
fn pure_crates_reach_nothing_impure() {
    let graph = Graph::read(&metadata());
    assert!(
        PURE.iter().all(|pure| graph.resolved.contains_key(*pure)),
        "metadata misread"
    );
    assert_none(
        &purity_findings(&graph),
        "Switch the feature off that brings it, take another crate, or do that part in an adapter and pass its result.",
    );
}

/// Dependencies that arm the points of `vigie-failpoint` outside of tests.
fn armed_findings(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut findings = Vec::new();
    for package in list(&metadata["packages"]) {
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in list(&package["dependencies"]) {
            if dependency["name"] == "vigie-failpoint"
                && dependency["kind"] != "dev"
                && dependency["features"] != serde_json::json!([])
            {
                findings.push(format!(
                    "{name}: a dependency with the features {}",
                    dependency["features"]
                ));
            }
        }
        let features = package["features"].as_object().cloned().unwrap_or_default();
        let forwards = |targets: &Value| {
            list(targets)
                .iter()
                .any(|target| target.as_str().is_some_and(|target| target.contains("failpoint/")))
        };
        findings.extend(
            features
                .iter()
                .filter(|(_, targets)| forwards(targets))
                .map(|(feature, _)| format!("{name}: its feature {feature:?} arms the points")),
        );
    }
    findings
}

#[test]
fn only_tests_arm_the_failpoints() {
    let metadata = metadata();
    let by_tests = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|package| {
            let dependencies = package["dependencies"].as_array().cloned().unwrap_or_default();
            dependencies
                .into_iter()
                .filter(|dependency| dependency["name"] == "vigie-failpoint" && dependency["kind"] == "dev")
        });
    assert!(by_tests.count() > 0, "no test arms them: metadata misread");
    assert_none(
        &armed_findings(&metadata),
        "A released binary must not contain points at which it can be ended: arm them in [dev-dependencies] only.",
    );
    let bad = serde_json::json!({"packages": [
        {"name": "a", "dependencies": [{"name": "vigie-failpoint", "kind": null, "features": ["armed"]}], "features": {}},
        {"name": "b", "dependencies": [{"name": "vigie-failpoint", "kind": "dev", "features": ["armed"]}], "features": {}},
        {"name": "c", "dependencies": [], "features": {"chaos": ["vigie-failpoint/armed"], "other": []}},
    ]});
    assert_eq!(armed_findings(&bad).len(), 2);
}

#[test]
fn forbidden_edges_are_found() {
    // A made-up workspace: ids are names, `store` uses `scoring`, and `scoring` reaches tokio by way of `innocent`.
    let node = |id: &str, deps: &[(&str, Value)]| {
        let deps: Vec<Value> = deps
            .iter()
            .map(|(pkg, kind)| serde_json::json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]}))
            .collect();
        serde_json::json!({"id": id, "deps": deps})
    };
    let package = |name: &str, deps: &[(&str, Value)]| {
        let deps: Vec<Value> = deps
            .iter()
            .map(|(name, kind)| serde_json::json!({"name": name, "kind": kind}))
            .collect();
        serde_json::json!({"id": name, "name": name, "dependencies": deps})
    };
    let store = [("vigie-scoring", Value::Null), ("vigie-serve", Value::from("dev"))];
    let scoring = [("innocent", Value::Null), ("rand", Value::from("dev"))];
    let innocent = [("tokio", Value::Null)];
    let graph = Graph::read(&serde_json::json!({
        "workspace_members": ["vigie-store", "vigie-scoring", "vigie-serve", "vigie-common"],
        "packages": [
            package("vigie-store", &store), package("vigie-scoring", &scoring), package("vigie-serve", &[]),
            package("vigie-common", &[]), package("innocent", &innocent), package("tokio", &[]), package("rand", &[]),
        ],
        "resolve": {"nodes": [
            node("vigie-store", &store), node("vigie-scoring", &scoring), node("innocent", &innocent),
        ]},
    }));
    assert_eq!(
        edge_findings(&graph),
        [
            "vigie-common: not in the table of the architecture",
            "vigie-store -> vigie-scoring: not in the table of the architecture"
        ]
    );
    assert_eq!(
        purity_findings(&graph),
        ["vigie-scoring -> innocent -> tokio is pure, and must not reach tokio"]
    );
}
