//! The crate's own clippy.toml replaces the workspace's; this keeps it from losing one of its rules.

#[test]
fn no_rule_of_the_workspace_is_lost() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let own = read("clippy.toml");
    for rule in read("../../clippy.toml")
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("{ path"))
    {
        assert!(own.contains(rule), "crates/scoring/clippy.toml lacks {rule}");
    }
}
