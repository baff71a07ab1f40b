//! The README, run: every `sh` block in order, in one shell, against the real program; every `json` or `text` block is what
//! the block before it printed (lines in it, in any order; `…` stands for more). Blocks marked `console` cannot be run inside
//! a test; what they name must exist.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One fenced block.
#[derive(Debug)]
struct Block {
    language: String,
    line: usize,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in markdown.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                blocks.push(Block {
                    language: language.to_owned(),
                    line: index + 1,
                    text: String::new(),
                });
            }
            None if open => {
                let text = &mut blocks.last_mut().unwrap().text;
                text.push_str(line);
                text.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "a block is not closed");
    blocks
}

/// What a block of expectations demands that is not in the output.
fn missing<'a>(expected: &'a str, output: &str) -> Vec<&'a str> {
    let printed: Vec<&str> = output.lines().map(|line| line.trim().trim_end_matches(',')).collect();
    expected
        .lines()
        .map(|line| line.trim().trim_end_matches(','))
        .filter(|line| !line.is_empty() && *line != "…" && !printed.contains(line))
        .collect()
}

#[test]
fn every_command_of_the_readme_works_and_prints_what_it_says() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = blocks(&readme);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("config"), dir.path().join("config")).unwrap();

    // A failing command ends the script; whatever it started ends with it.
    let mut script = String::from("set -eu -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for block in blocks.iter().filter(|block| block.language == "sh") {
        script += &format!(
            "echo '@@@ {}'\n{}\n",
            block.line,
            block.text.replace("127.0.0.1:8080", &address)
        );
    }
    let program = Path::new(env!("CARGO_BIN_EXE_vigie")).parent().unwrap();
    let python = std::env::var("VIGIE_PYTHON").map_or_else(|_| root().join("target/python/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "{} is missing: run `make python-env`",
        python.display()
    );
    let path = format!(
        "{}:{}:{}",
        program.display(),
        python.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new("bash")
        .arg("-c")
        .arg(&script)
        .current_dir(dir.path())
        .env("PATH", path)
        .env("VIGIE__SERVER__LISTEN", &address)
        .env("VIGIE_URL", format!("http://{address}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "the README's commands failed: {}\n{printed}\n{complaints}",
        output.status
    );

    let mut last = 0;
    let mut checked = 0;
    for block in &blocks {
        match block.language.as_str() {
            "sh" => last = block.line,
            "json" | "text" => {
                let marker = format!("@@@ {last}\n");
                let from = printed.find(&marker).unwrap() + marker.len();
                let rest = printed.get(from..).unwrap();
                let section = rest.split("@@@ ").next().unwrap();
                let missing = missing(&block.text, section);
                assert!(
                    missing.is_empty(),
                    "README line {}: not printed: {missing:#?}\nprinted:\n{section}",
                    block.line
                );
                checked += 1;
            }
            // Shown, not run here: other programs, other places.
            "console" | "html" | "toml" => {}
            other => panic!(
                "README line {}: a block of kind {other:?} is neither run nor compared",
                block.line
            ),
        }
    }
    assert!(checked >= 4, "only {checked} blocks were compared");
}

#[test]
fn what_cannot_be_run_inside_a_test_exists() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    for block in blocks(&readme).iter().filter(|block| block.language == "console") {
        for line in block.text.lines() {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["make", target, ..] => {
                    assert!(
                        makefile.contains(&format!("\n{target}:")),
                        "the Makefile has no target {target}"
                    );
                }
                ["cargo", "build", ..] | ["export", ..] | ["redis-cli", ..] => {}
                // Needs a broker; that there is such a command can be asked without one.
                ["vigie", command, ..] => {
                    let help = crate::support::run(&[command, "--help"]);
                    assert_eq!(help.code, Some(0), "README line {}: vigie {command}", block.line);
                }
                other => panic!("README line {}: {other:?} is neither run nor known", block.line),
            }
        }
    }
    // `make demo` is the demonstration that a test of its own plays.
    assert!(
        makefile.contains("-p vigie -- demo"),
        "make demo no longer runs the demonstration"
    );
}

#[test]
fn links_lead_somewhere() {
    for file in ["README.md", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let path = link.split('#').next().unwrap();
            assert!(
                path.starts_with("http") || root().join(path).exists(),
                "{file}: {link} leads nowhere"
            );
        }
    }
}

#[test]
fn comparison_finds_what_is_missing() {
    assert!(missing("\"a\": 1,\n…\n", "{\n    \"a\": 1\n}").is_empty());
    assert_eq!(missing("\"a\": 2", "{\n    \"a\": 1\n}"), ["\"a\": 2"]);
}
