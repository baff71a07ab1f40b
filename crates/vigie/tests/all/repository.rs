//! The files of the repository, for the tests that read them. It never writes any, and never looks outside of it.

use std::path::{Path, PathBuf};

/// Directories that hold nothing written by hand.
const SKIPPED: &[&str] = &["target", ".git", "data", "node_modules", ".venv"];

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", ".."].iter().collect()
}

/// Every text file: path relative to the root, with `/`, and content. Files that are not UTF-8 are left out.
pub(crate) fn text_files() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
                directories.push(path);
            } else if kind.is_file()
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                files.push((relative(&root, &path), text));
            }
        }
    }
    files.sort();
    assert!(
        files
            .iter()
            .any(|(path, _)| path == "crates/vigie/tests/all/repository.rs"),
        "the walk lost its way"
    );
    files
}

fn relative(root: &Path, path: &Path) -> String {
    let parts = path
        .strip_prefix(root)
        .unwrap()
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.collect::<Vec<_>>().join("/")
}

/// Fails with one line per finding and what to do about them.
#[track_caller]
pub(crate) fn assert_none(findings: &[String], advice: &str) {
    assert!(
        findings.is_empty(),
        "{} findings\n  {}\n{advice}",
        findings.len(),
        findings.join("\n  ")
    );
}
