//! The table of `RULES.md` is true as far as a machine can tell: each of R1 to R102 stands once and in order, says yes, part or
//! not yet, and what it names exists.

use std::path::Path;

/// One row: number, state, what it names.
fn rows(text: &str) -> Vec<(u32, String, Vec<String>)> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    text.lines()
        .filter(|line| line.starts_with("| ") && line.chars().nth(2).is_some_and(|first| first.is_ascii_digit()))
        .map(|line| {
            let cells = cells(line);
            let [number, _, state, places] = cells.as_slice() else {
                panic!("not four cells: {line}")
            };
            let names = places.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (number.parse().unwrap(), state.clone(), names)
        })
        .collect()
}

#[test]
fn every_rule_stands_once_and_what_it_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rows = rows(include_str!("../../RULES.md"));
    assert!(
        rows.iter().map(|(number, ..)| *number).eq(1..=102),
        "R1 to R102, each once and in order"
    );
    for (number, state, names) in &rows {
        let answered = state == "yes" || state.starts_with("yes: ") || state.starts_with("part: ");
        assert!(
            answered != (state == "not yet"),
            "R{number}: {state:?} is neither yes, part: … nor not yet"
        );
        assert_eq!(answered, !names.is_empty(), "R{number}: what answers it?");
        for name in names {
            let place = if name.contains('/') {
                root.join(name)
            } else {
                root.join("crates/pipeline/tests/scenarios").join(format!("{name}.txt"))
            };
            assert!(place.exists(), "R{number} names {name}, which does not exist");
        }
    }
    // Every scenario of relances is in the table.
    let named: Vec<&String> = rows.iter().flat_map(|(_, _, names)| names).collect();
    for scenario in [
        "policies-adapt-to-segments",
        "contacts-are-capped",
        "complaints-come-first",
        "a-flag-takes-its-course",
        "a-silent-source-is-not-a-silent-customer",
        "each-by-their-own-clock",
        "everybody-is-refused-for-a-reason",
        "nobody-is-worth-a-loss",
        "recognition-and-romance",
        "stages-of-a-life",
        "scores-come-to-other-bands",
        "rewards-are-rationed",
        "companies-by-their-contacts",
    ] {
        assert!(named.iter().any(|name| *name == scenario), "{scenario}");
    }
}
