//! The table of `FAULTS.md` is true as far as a machine can tell: each fault stands once, and every test that it names exists.

use std::path::Path;

#[test]
fn every_fault_stands_once_and_its_tests_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut faults = Vec::new();
    for line in include_str!("../../FAULTS.md").lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, _, _, tests] = cells.as_slice() else {
            continue;
        };
        let Ok(number) = number.parse::<u32>() else { continue };
        faults.push(number);
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "F{number} names no test");
        for name in named {
            let (file, function) = name.split_once("::").unwrap();
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let stands = ["fn ", "async fn "]
                .iter()
                .any(|kind| text.contains(&format!("{kind}{function}(")));
            assert!(stands, "F{number} names {function}, which is not in {file}");
        }
    }
    assert_eq!(faults, [60, 61, 62, 63, 64, 65, 66, 69, 70]);
}
