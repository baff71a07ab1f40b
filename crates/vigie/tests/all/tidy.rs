//! House rules about files that neither the compiler nor clippy checks. Each rule is a function from a file to findings,
//! and each is shown a file that breaks it, so that a rule that finds nothing any more is noticed.
//!
//! It never judges taste: what it refuses, the rules of the repository forbid.

use std::collections::BTreeMap;

use crate::repository::{assert_none, root, text_files};

/// Lines of a file, its tests aside, beyond which it must say why it is that long.
const LONG: usize = 700;

/// Crates that are functions of their input and nothing else.
const PURE: &[&str] = &["event", "enrichment", "scoring", "relance"];

/// Line numbers count from 1.
fn at(path: &str, line: usize, message: &str) -> String {
    format!("{path}:{line}: {message}")
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/")
}

/// Lines before the test module at the end of a file.
fn code_lines(path: &str, text: &str) -> usize {
    if is_test_file(path) {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    let module = |next: Option<&&str>| next.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'));
    let tests = lines
        .iter()
        .enumerate()
        .position(|(i, line)| *line == "#[cfg(test)]" && module(lines.get(i + 1)));
    tests.unwrap_or(lines.len())
}

fn starts_with_its_purpose(path: &str, text: &str) -> Vec<String> {
    let first = text.lines().next().unwrap_or_default();
    if first.starts_with("//! ") && first.len() > 10 {
        return Vec::new();
    }
    vec![at(
        path,
        1,
        "does not start with `//!`: say what the file owns and what it never does",
    )]
}

fn says_why_it_is_long(path: &str, text: &str) -> Vec<String> {
    let lines = code_lines(path, text);
    if lines <= LONG || text.lines().any(|line| line.starts_with("//! Length: ")) {
        return Vec::new();
    }
    vec![at(
        path,
        1,
        &format!("{lines} lines without tests: split it, or give the reason in a line `//! Length: …`"),
    )]
}

fn has_no_loose_ends(path: &str, text: &str) -> Vec<String> {
    // Written in two halves, so that this file does not find itself.
    let forbidden = [
        (
            concat!("#[ig", "nore"),
            "ignored tests prove nothing: make it run, or delete it",
        ),
        (concat!("to", "do!("), "write it, or leave it out"),
        (concat!("unimple", "mented!("), "write it, or leave it out"),
        (concat!("db", "g!("), "left over from debugging"),
        (concat!("FIX", "ME"), "do it, or state the limit in a sentence"),
        (concat!("// XX", "X"), "do it, or state the limit in a sentence"),
    ];
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let found = forbidden.iter().filter(|(pattern, _)| line.contains(pattern));
        findings.extend(found.map(|(pattern, why)| at(path, number + 1, &format!("{pattern}: {why}"))));
    }
    findings
}

/// A sleep in a test waits for nothing in particular: it is either too short, and the test fails at times, or too long.
fn does_not_sleep_in_tests(path: &str, text: &str) -> Vec<String> {
    let sleeps = [
        concat!("thread::sl", "eep("),
        concat!("time::sl", "eep("),
        concat!("tokio_sl", "eep("),
    ];
    let marker = "// not synchronisation: ";
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (number, line) in lines.iter().enumerate().skip(code_lines(path, text)) {
        let before = number
            .checked_sub(1)
            .and_then(|before| lines.get(before))
            .copied()
            .unwrap_or_default();
        let reasoned = [*line, before]
            .iter()
            .any(|l| l.split_once(marker).is_some_and(|(_, why)| why.len() > 10));
        if sleeps.iter().any(|sleep| line.contains(sleep)) && !reasoned {
            let message = format!("a sleep in a test: wait for the event itself, or say `{marker}…` (why) above it");
            findings.push(at(path, number + 1, &message));
        }
    }
    findings
}

fn names_no_machine(path: &str, text: &str) -> Vec<String> {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
    ];
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let found = places.iter().filter(|place| {
            // A path starts with it; `…/framework/x` does not.
            line.match_indices(**place).any(|(start, _)| {
                let before = line.get(..start).and_then(|before| before.chars().next_back());
                !before.is_some_and(|c| c.is_alphanumeric() || "./-_~}{*$>".contains(c))
            })
        });
        findings.extend(found.map(|place| at(path, number + 1, &format!("{place}: a path of one machine"))));
    }
    findings
}

fn library_says_what_it_never_does(path: &str, text: &str) -> Vec<String> {
    let is_library = path.starts_with("crates/") && path.ends_with("/src/lib.rs");
    let doc: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
    if !is_library || doc.contains("never") || doc.contains("Never") {
        return Vec::new();
    }
    vec![at(
        path,
        1,
        "the documentation of the crate does not say what it never does: an invariant of absence",
    )]
}

/// The words of a line that are identifiers.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
}

fn is_pure(path: &str, text: &str) -> Vec<String> {
    let pure = PURE.iter().any(|name| path.starts_with(&format!("crates/{name}/src/")));
    if !pure || is_test_file(path) {
        return Vec::new();
    }
    const IMPURE: &[&str] = &[
        "tokio",
        "async",
        "await",
        "tracing",
        "metrics",
        "SystemTime",
        "Instant",
        "UNIX_EPOCH",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "ToSocketAddrs",
        "rand",
        "getrandom",
    ];
    const IMPURE_PATHS: &[&str] = &[
        "std::fs",
        "std::env",
        "std::process",
        "std::thread",
        "std::io::stdin",
        "std::io::stdout",
        "Timestamp::now",
        "Zoned::now",
    ];
    let mut findings = Vec::new();
    for (number, line) in text.lines().take(code_lines(path, text)).enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // Text between quotes is data, not code.
        let code: String = code.split('"').step_by(2).collect();
        let word = words(&code).find(|word| IMPURE.contains(word));
        let found = word.or_else(|| IMPURE_PATHS.iter().copied().find(|path| code.contains(path)));
        findings.extend(found.map(|found| {
            at(
                path,
                number + 1,
                &format!("{found} in a pure crate: take it as an input, or do it in the pipeline"),
            )
        }));
    }
    findings
}

type Rule = fn(&str, &str) -> Vec<String>;

/// Each rule with a file that breaks it exactly once.
fn rules() -> Vec<(Rule, &'static str, String)> {
    let path = "crates/event/src/x.rs";
    vec![
        (starts_with_its_purpose, path, "fn f() {}".to_owned()),
        (says_why_it_is_long, path, "//! Much.\n".repeat(LONG + 1)),
        (
            has_no_loose_ends,
            path,
            concat!("//! Ends.\nfn f() { to", "do!() }\n").to_owned(),
        ),
        (
            does_not_sleep_in_tests,
            path,
            concat!(
                "//! Sleeps.\nfn f() { std::thread::sl",
                "eep(x) }\n#[cfg(test)]\nmod tests {\n  std::thread::sl",
                "eep(x);\n}\n"
            )
            .to_owned(),
        ),
        (
            names_no_machine,
            path,
            concat!("//! See /ho", "me/ada/notes, framework/x and a/wo", "rk/b.\n").to_owned(),
        ),
        (
            library_says_what_it_never_does,
            "crates/event/src/lib.rs",
            "//! Vocabulary.\n\n// It never sleeps.".to_owned(),
        ),
        (
            is_pure,
            path,
            "//! tokio.\nuse std::time::Duration; // Instant\nuse std::time::Instant;\nlet s = \"tokio\";\n".to_owned(),
        ),
    ]
}

#[test]
fn every_source_file_follows_the_rules() {
    let mut findings = Vec::new();
    for (path, text) in text_files().iter().filter(|(path, _)| path.ends_with(".rs")) {
        findings.extend(rules().iter().flat_map(|(rule, _, _)| rule(path, text)));
    }
    assert_none(
        &findings,
        "Each line says what to do; the rules stand in crates/vigie/tests/all/tidy.rs.",
    );
}

#[test]
fn every_rule_finds_what_it_is_there_for() {
    for (rule, path, text) in rules() {
        let findings = rule(path, &text);
        assert_eq!(findings.len(), 1, "{text}: {findings:?}");
    }
}

#[test]
fn rules_leave_good_files_alone() {
    let good = concat!(
        "//! Owns nothing, and never does anything.\n//! Length: it is an example.\n#[cfg(test)]\nmod tests {\n",
        "  // not synchronisation: the server must notice that nothing comes\n  std::thread::sl",
        "eep(x);\n}\n"
    );
    for (rule, path, _) in rules() {
        assert_eq!(rule(path, good), Vec::<String>::new());
    }
}

#[test]
fn no_text_file_names_a_machine() {
    let files = text_files();
    // Sources are checked with the other rules; the lock file and fixtures are not written by hand.
    let written = files
        .iter()
        .filter(|(path, _)| !path.ends_with(".rs") && !path.ends_with(".lock") && !path.contains("/fixtures/"));
    let findings: Vec<String> = written.flat_map(|(path, text)| names_no_machine(path, text)).collect();
    assert_none(
        &findings,
        "A path of one machine helps nobody else: use a relative path or a variable.",
    );
}

/// Dependencies of a member that do not take their version from the workspace, and a member without the lints.
fn member_findings(path: &str, text: &str) -> Vec<String> {
    let manifest: toml::Table = text.parse().unwrap();
    let mut findings = Vec::new();
    for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let dependencies = manifest.get(table).and_then(|table| table.as_table());
        for (name, dependency) in dependencies.into_iter().flatten() {
            if dependency.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                findings.push(format!(
                    "{path}: {table}.{name}: give the version in the root Cargo.toml and say `workspace = true`"
                ));
            }
        }
    }
    for test in manifest
        .get("test")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = test.get("name").and_then(toml::Value::as_str);
        let features = test.get("required-features").and_then(toml::Value::as_array);
        let Some(required) = features
            .and_then(|features| features.first())
            .and_then(toml::Value::as_str)
        else {
            continue;
        };
        // The names by which `make test-data`, `test-long`, `test-faults` and `test-kafka` find them; any other would never run.
        let expected = match required {
            "shared-data" => Some("shared"),
            "long" => Some("long"),
            "faults" => Some("faults"),
            "broker" => Some("broker"),
            _ => None,
        };
        if name != expected {
            findings.push(format!(
                "{path}: test {name:?} requires {required:?}: no make target runs it by that name"
            ));
        }
    }
    let lints = manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool);
    if lints != Some(true) {
        findings.push(format!("{path}: add `[lints] workspace = true`"));
    }
    findings
}

#[test]
fn members_take_versions_and_lints_from_the_workspace() {
    let files = text_files();
    // Fuzz targets are a workspace of their own, compiled with counters of coverage.
    let is_member = |path: &str| path.ends_with("/Cargo.toml") && !path.contains("/fuzz/");
    let members = files.iter().filter(|(path, _)| is_member(path));
    let findings: Vec<String> = members.flat_map(|(path, text)| member_findings(path, text)).collect();
    assert_none(
        &findings,
        "One version of a dependency, and one law, for the whole workspace.",
    );
}

#[test]
fn members_with_their_own_versions_are_found() {
    let bad =
        "[dependencies]\nserde = \"1\"\ntoml.workspace = true\n[dev-dependencies]\ntempfile = { version = \"3\" }\n";
    assert_eq!(member_findings("x", bad).len(), 3);
    let law = "[lints]\nworkspace = true\n";
    let test = |name| format!("{law}[[test]]\nname = {name:?}\nrequired-features = [\"shared-data\"]\n");
    assert_eq!(member_findings("x", &test("shared")), Vec::<String>::new());
    assert_eq!(member_findings("x", &test("goldens")).len(), 1);
}

/// What a `clippy.toml` forbids, and everything else that it says.
fn clippy_law(text: &str) -> (BTreeMap<String, String>, toml::Table) {
    let mut law: toml::Table = text.parse().unwrap();
    let methods = law.remove("disallowed-methods").unwrap();
    let ban = |ban: &toml::Value| {
        let field = |name: &str| {
            ban.get(name)
                .and_then(toml::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        (field("path"), field("reason"))
    };
    (methods.as_array().unwrap().iter().map(ban).collect(), law)
}

/// What the law of a crate lacks. It may be stricter than the root's; only programs that meet the world may read clocks
/// and draw randomness.
fn law_findings(path: &str, root: &str, own: &str) -> Vec<String> {
    const PROGRAMS: &[&str] = &["crates/vigie/clippy.toml", "load-tests/clippy.toml"];
    const LIFTED: &[&str] = &[
        "std::time::",
        "jiff::",
        "chrono::",
        "tokio::time::",
        "rand::",
        "getrandom::",
        "uuid::",
    ];
    let lifted = |ban: &str| PROGRAMS.contains(&path) && LIFTED.iter().any(|prefix| ban.starts_with(prefix));
    let ((root_bans, root_rest), (own_bans, own_rest)) = (clippy_law(root), clippy_law(own));
    let missing = root_bans
        .keys()
        .filter(|ban| !own_bans.contains_key(*ban) && !lifted(ban));
    let mut findings: Vec<String> = missing.map(|ban| format!("{path}: {ban} is not banned")).collect();
    let at_least = |own: Option<&toml::Value>, root: &toml::Value| match (own, root) {
        (Some(toml::Value::Array(own)), toml::Value::Array(root)) => root.iter().all(|ban| own.contains(ban)),
        (own, root) => own == Some(root),
    };
    let differing = root_rest
        .iter()
        .filter(|(name, value)| !at_least(own_rest.get(*name), value));
    findings.extend(differing.map(|(name, _)| format!("{path}: {name} differs from the root")));
    findings
}

#[test]
fn laws_of_single_crates_are_no_laxer_than_the_root() {
    let files = text_files();
    let root_law = std::fs::read_to_string(root().join("clippy.toml")).unwrap();
    let own = files.iter().filter(|(path, _)| path.ends_with("/clippy.toml"));
    let findings: Vec<String> = own
        .flat_map(|(path, text)| law_findings(path, &root_law, text))
        .collect();
    assert_none(
        &findings,
        "Clippy reads only the nearest clippy.toml: copy the ban from, or to, the root.",
    );
}

#[test]
fn a_law_that_lifts_more_is_found() {
    let root = "allow-x = true\ndisallowed-methods = [{ path = \"rand::rng\" }, { path = \"flate2::x\" }]\n";
    let (nothing, no_rand) = (
        "disallowed-methods = []\n",
        "allow-x = true\ndisallowed-methods = [{ path = \"flate2::x\" }]\n",
    );
    let (program, library) = ("load-tests/clippy.toml", "crates/event/clippy.toml");
    assert_eq!(
        law_findings(program, root, nothing),
        [
            "load-tests/clippy.toml: flate2::x is not banned",
            "load-tests/clippy.toml: allow-x differs from the root"
        ]
    );
    assert_eq!(law_findings(program, root, no_rand), Vec::<String>::new());
    assert_eq!(
        law_findings(library, root, no_rand),
        ["crates/event/clippy.toml: rand::rng is not banned"]
    );
}
