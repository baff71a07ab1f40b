//! A real Prometheus scrapes a loaded exporter and evaluates every panel: each must show something. promtool lints the page
//! and the rules.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use vigie_telemetry::dashboards;

use crate::dashboards::all_expressions;
use crate::{committed, exporter};

/// Scrapes before the panels are asked: rates need several.
const SCRAPES: u64 = 6;
/// A whole machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs promtool; what it says, when it is not content.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; `make tools` installs it (Debian package prometheus)"));
    let mut stdin = child.stdin.take().unwrap();
    // A tool that reads no input closes it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_page() {
    let said = promtool(&["check", "metrics"], &exporter::page());
    assert_eq!(said, Ok(String::new()));
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules() {
    let rules = committed::directory().join("alerts.yml");
    let said = promtool(
        &["check", "rules", "--lint=all", "--lint-fatal", rules.to_str().unwrap()],
        "",
    );
    let expected = format!("SUCCESS: {} rules found", dashboards::rule_expressions().count());
    assert!(said.as_ref().is_ok_and(|said| said.contains(&expected)), "{said:?}");
}

/// A Prometheus that ends with the test.
struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Scrapes `target` every half a second.
    fn start(directory: &Path, target: SocketAddr) -> Prometheus {
        let configuration = format!(
            "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\nscrape_configs:\n  - job_name: vigie\n    static_configs:\n      - targets: ['{target}']\n"
        );
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("prometheus: {error}; `make tools` installs it (Debian package prometheus)")
            });
        Prometheus { process, address }
    }

    /// The samples that an expression gives now.
    fn query(&self, expr: &str) -> Result<Vec<f64>, String> {
        let mut encoded = String::new();
        for byte in expr.bytes() {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        let mut stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
        // Version 1.0 has no chunks.
        let request = format!("GET /api/v1/query?query={encoded} HTTP/1.0\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .map_err(|error| error.to_string())?;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        let body: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
        if body["status"] != "success" {
            return Err(body["error"].as_str().unwrap_or_default().to_owned());
        }
        let series = body["data"]["result"].as_array().cloned().unwrap_or_default();
        let value = |one: &Value| one["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(series.iter().filter_map(value).collect())
    }
}

#[test]
fn every_panel_shows_something() {
    let directory = tempfile::tempdir().unwrap();
    let (target, answers) = exporter::serve();
    let prometheus = Prometheus::start(directory.path(), target);
    // The scrape after the last one wanted says that those before are stored.
    loop {
        match answers.recv_timeout(PATIENCE) {
            Ok(round) if round > SCRAPES => break,
            Ok(_) => {}
            Err(_) => panic!("{}", std::fs::read_to_string(directory.path().join("log")).unwrap()),
        }
    }
    let mut findings = Vec::new();
    for (place, expr) in all_expressions() {
        let expr = expr
            .replace("$__rate_interval", "30s")
            .replace("$job", ".+")
            .replace("$instance", ".+");
        match prometheus.query(&expr) {
            Err(error) => findings.push(format!("{place}: {error}: {expr}")),
            Ok(values) if values.is_empty() => findings.push(format!("{place}: shows nothing: {expr}")),
            Ok(values) if values.iter().any(|value| !value.is_finite()) => {
                findings.push(format!("{place}: shows {values:?}: {expr}"));
            }
            Ok(_) => {}
        }
    }
    for (_, expr) in dashboards::rule_expressions() {
        if let Err(error) = prometheus.query(expr) {
            findings.push(format!("rule: {error}: {expr}"));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(
        prometheus.query("sum(nonsense(").is_err(),
        "an expression that is none is refused"
    );
}
