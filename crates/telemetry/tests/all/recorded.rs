//! Every handle is used by the program. The compiler cannot say so: handles are public, and a metric that nobody records
//! looks like one that stays at zero.

use std::path::{Path, PathBuf};

/// The program's sources without this crate's, tests aside, without white space.
fn sources() -> String {
    let crates: PathBuf = [env!("CARGO_MANIFEST_DIR"), ".."].iter().collect();
    let mut text = String::new();
    for member in std::fs::read_dir(&crates).unwrap() {
        let member = member.unwrap().path();
        if !member.ends_with("telemetry") {
            read(&member.join("src"), &mut text);
        }
    }
    text
}

fn read(directory: &Path, text: &mut String) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let code = source.split("\n#[cfg(test)]\nmod ").next().unwrap();
            text.extend(code.chars().filter(|c| !c.is_whitespace()));
        }
    }
}

/// `(field of Metrics, method)` of every handle, read from the sources.
fn handles() -> Vec<(String, String)> {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "src", "handles.rs"].iter().collect();
    let source = std::fs::read_to_string(file).unwrap();
    let mut fields = Vec::new();
    let mut handles = Vec::new();
    let mut owner = String::new();
    for line in source.lines() {
        let trimmed = line.trim();
        if let Some((field, kind)) = trimmed.strip_prefix("pub ").and_then(|rest| rest.split_once(": "))
            && let Some(kind) = kind.strip_suffix("Metrics,")
        {
            fields.push((kind.to_owned(), field.to_owned()));
        }
        if let Some(kind) = line
            .strip_prefix("impl ")
            .and_then(|rest| rest.strip_suffix("Metrics {"))
        {
            owner = kind.to_owned();
        }
        if let Some(method) = trimmed
            .strip_prefix("pub fn ")
            .and_then(|rest| rest.split_once("(&self"))
        {
            let field = fields.iter().find(|(kind, _)| *kind == owner);
            let field = field.map_or_else(String::new, |(_, field)| format!("{field}."));
            handles.push((field, method.0.to_owned()));
        }
    }
    handles
}

#[test]
fn every_handle_is_used_by_the_program() {
    let (handles, sources) = (handles(), sources());
    assert!(
        handles.len() > 30,
        "only {} handles were found: the source is misread",
        handles.len()
    );
    let unused: Vec<String> = handles
        .iter()
        .map(|(field, method)| format!(".{field}{method}("))
        .filter(|call| !sources.contains(call))
        .collect();
    assert!(unused.is_empty(), "declared, and never recorded: {unused:?}");
}
