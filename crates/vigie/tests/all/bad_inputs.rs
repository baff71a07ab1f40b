//! `docs/bad-inputs.md`, the table of bad inputs: every row is there, and every test that it names exists.

use crate::repository::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const TABLE: &str = "docs/bad-inputs.md";
/// Numbers that were given up; 81 has a row of its own for the time when nothing can be stored, 95 one for
/// what providers report.
const ABSENT: &[u32] = &[
    8, 11, 28, 31, 43, 49, 54, 65, 72, 80, 83, 92, 102, 107, 120, 127, 130, 134,
];

/// The cells of the rows.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
    lines.map(|line| line.split('|').map(str::trim).collect()).collect()
}

/// The names of all functions of a crate, tests among them.
fn functions(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text
                .lines()
                .filter_map(|line| line.trim().split_once("fn ")?.1.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_row_is_there_and_names_tests_that_exist() {
    let text = std::fs::read_to_string(root().join(TABLE)).unwrap();
    let rows = rows(&text);
    let numbers: Vec<&str> = rows.iter().map(|row| row[1]).collect();
    let mut expected: Vec<String> = (1..=136)
        .filter(|number| !ABSENT.contains(number))
        .map(|number| number.to_string())
        .collect();
    let after = expected.iter().position(|number| number == "81").unwrap();
    expected.insert(after + 1, "81a".to_owned());
    let after = expected.iter().position(|number| number == "95").unwrap();
    expected.insert(after + 1, "95a".to_owned());
    assert_eq!(numbers, expected);

    let mut known: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut counts = [0, 0, 0];
    for row in &rows {
        let (answer, tests) = (row[3], row[4]);
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let kind = match (
            answer.starts_with("— does not apply: "),
            answer.starts_with("— missing: "),
        ) {
            (true, _) => 1,
            (_, true) => 2,
            _ => 0,
        };
        assert_eq!(named.is_empty(), kind != 0, "row {}: a test or a reason", row[1]);
        counts[kind] += 1;
        for test in named {
            let (member, name) = test.split_once("::").unwrap();
            let functions_of = known.entry(member).or_insert_with(|| {
                let mut found = BTreeSet::new();
                functions(&root().join("crates").join(member), &mut found);
                found
            });
            assert!(functions_of.contains(name), "row {}: there is no {test}", row[1]);
        }
    }
    let [shown, inapplicable, missing] = counts;
    let sentence = format!(
        "Of {} rows, {shown} are shown by tests, {inapplicable} do not apply here, and {missing} are missing.",
        rows.len()
    );
    assert!(text.contains(&sentence), "{TABLE} should say: {sentence}");
}
