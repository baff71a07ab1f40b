//! The reference libraries of Standard Webhooks, in Python and JavaScript: each is a receiver that verifies what we send, and a
//! sender whose signatures we verify. Node's own crypto and OpenSSL's certificates stand for `v1a` and for TLS.

use crate::support::*;
use crate::wire::{parcel, send};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use vigie_delivery::signature::{Secret, verify};
use vigie_delivery::{Answer, Destination, Destinations, Failure, HttpExit, Lane};
use vigie_event::Timestamp;
use vigie_telemetry::Metrics;

/// ed25519 seed of 32 bytes 07.
const ASYMMETRIC: &str = "whsk_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const OLD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn receivers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/receivers")
}

fn python() -> Command {
    let path = std::env::var_os("VIGIE_PYTHON").map_or_else(|| root().join("target/python/bin/python"), PathBuf::from);
    assert!(
        path.exists(),
        "there is no Python at {}: run `make python-env`",
        path.display()
    );
    let mut command = Command::new(path);
    let _ = command.arg(receivers().join("receiver.py"));
    command
}

fn node() -> Command {
    let modules = std::env::var_os("VIGIE_NODE").map_or_else(|| root().join("target/node-webhooks"), PathBuf::from);
    let package = modules.join("node_modules/standardwebhooks");
    assert!(
        package.exists(),
        "{} is missing: run `make node-env`",
        package.display()
    );
    let mut command = Command::new("node");
    let _ = command
        .arg(receivers().join("receiver.cjs"))
        .env("NODE_PATH", modules.join("node_modules"));
    command
}

/// A receiver in another process. Its first line names its port, and a message that it has signed; further lines tell what
/// arrived.
struct Other {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    hello: Value,
}

impl Other {
    fn start(mut command: Command, secret: &str, more: &[(&str, &str)]) -> Self {
        let _ = command.env("SECRET", secret).stdout(Stdio::piped());
        for (name, value) in more {
            let _ = command.env(name, value);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let hello = serde_json::from_str(&lines.next().expect("the receiver starts").unwrap()).unwrap();
        Self { child, lines, hello }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn to(other: &Other, scheme: &str, secrets: &[&str], more: &str) -> Arc<Destination> {
    let port = other.hello["port"].as_u64().unwrap();
    let places: Vec<_> = (0..secrets.len()).map(|index| format!("\"env:{index}\"")).collect();
    let http = scheme == "http";
    let text = format!(
        "[[destination]]\nname = \"local\"\nkind = \"webhook\"\nurl = \"{scheme}://localhost:{port}/hooks\"\nsecrets = [{}]\n\
         allow-http = {http}\nallow-ports = [{port}]\nallow-private = [\"127.0.0.1\", \"::1\"]\n{more}",
        places.join(",")
    );
    let read = |place: &str| match place.strip_prefix("env:") {
        Some(index) => Ok(secrets[index.parse::<usize>().unwrap()].to_owned()),
        None => std::fs::read_to_string(place.trim_start_matches("file:")).map_err(|error| error.to_string()),
    };
    Arc::new(Destinations::parse(&text, &read).unwrap().0.remove(0))
}

/// The reference libraries compare with their own clock: ours tells theirs.
fn real(other: &Other) -> Timestamp {
    Timestamp(other.hello["now"].as_i64().unwrap() * 1_000)
}

async fn exchange(command: Command, v1a: bool) {
    let mut other = Other::start(
        command,
        SECRET,
        &[("PUBLIC", &Secret::parse(ASYMMETRIC).unwrap().public_key().unwrap())],
    );
    // Theirs, by us.
    let text = |name: &str| other.hello[name].as_str().unwrap().to_owned();
    let ours = [Secret::parse(OLD).unwrap(), Secret::parse(SECRET).unwrap()];
    let (message, time, signed, body) = (text("id"), text("timestamp"), text("signature"), text("body"));
    let now = real(&other);
    verify(&ours, &message, &time, &signed, body.as_bytes(), now).unwrap();
    assert!(verify(&ours[..1], &message, &time, &signed, body.as_bytes(), now).is_err());
    assert!(verify(&ours, &message, &time, &signed, b"{}", now).is_err());
    // Ours, by them: the secrets before and after a rotation, and both at once.
    let clock: vigie_delivery::Clock = Arc::new(move || now);
    let sends: [(&[&str], bool); 4] = [
        (&[SECRET], true),
        (&[OLD, SECRET], true),
        (&[ASYMMETRIC, SECRET, OLD], true),
        (&[OLD], false),
    ];
    for (number, (secrets, good)) in (1..).zip(sends) {
        let exit = HttpExit::new(to(&other, "http", secrets, ""), Arc::clone(&clock)).unwrap();
        let parcel = parcel(number, "C é\u{1F98A}\"\\");
        let answer = vigie_delivery::Exit::send(&exit, &parcel).await;
        let told = other.next();
        assert_eq!(told["verified"], good, "{told}");
        assert_eq!(answer.is_success(), good);
        assert_eq!(told["id"], id(number).to_string());
        if good {
            assert_eq!(told["customer"], parcel.customer);
        }
        if v1a && number == 3 {
            assert_eq!(told["v1a"], true, "{told}");
        }
    }
}

#[tokio::test]
async fn the_python_library_and_we_verify_each_other() {
    exchange(python(), false).await;
}

#[tokio::test]
async fn the_javascript_library_and_we_verify_each_other_with_both_kinds_of_signature() {
    exchange(node(), true).await;
}

#[tokio::test]
async fn a_lane_delivers_over_real_sockets_and_the_receiver_has_every_id_once() {
    let stage = Stage::new(|_, _| OK).await;
    stage
        .flags
        .raise((1..=40).map(|number| flag(number, &format!("C{}", number), START)))
        .await;
    let mut other = Other::start(python(), SECRET, &[("FAIL_EVERY", "3")]);
    let now = real(&other);
    stage.hand.set(now);
    let destination = to(&other, "http", &[SECRET], "");
    let exit = HttpExit::new(Arc::clone(&destination), stage.hand.clock()).unwrap();
    let metrics = Metrics::disabled().delivery;
    let store = Arc::clone(&stage.flags.store);
    let (gate, clock) = (Arc::clone(&stage.gate), stage.hand.clock());
    let lane = Lane::open(stage.dir.path(), shop(), destination, store, gate, exit, clock, metrics).unwrap();
    // Half a minute is enough for second attempts, and within the tolerance of the library.
    stage.play(&lane, now.plus_ms(30_000)).await;
    let status = lane.handle().status();
    let calls = status.counts.delivered + status.counts.failed;
    let mut arrived = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..calls {
        let told = other.next();
        if told["status"] == 200 {
            *arrived.entry(told["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert!(status.counts.failed > 0, "{status:?}");
    assert_eq!(arrived.len() + status.open, 40);
    assert!(
        arrived.len() >= 30 && arrived.values().all(|times| *times == 1),
        "{arrived:?}"
    );
}

#[tokio::test]
async fn certificates_are_verified() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .current_dir(dir.path())
            .args(arguments.split(' '))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca");
    openssl("req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=localhost");
    std::fs::write(dir.path().join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl("x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile names -out cert.pem");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut other = Other::start(
        python(),
        SECRET,
        &[("CERTIFICATE", &path("cert.pem")), ("KEY", &path("key.pem"))],
    );
    let now = real(&other);
    let unknown = send(to(&other, "https", &[SECRET], ""), &parcel(1, "C1")).await;
    assert_eq!(unknown, Answer::Failed(Failure::Tls), "nobody vouches for it");
    let trusted = to(&other, "https", &[SECRET], &format!("ca-file = {:?}", path("ca.pem")));
    let exit = HttpExit::new(trusted, Arc::new(move || now)).unwrap();
    assert!(vigie_delivery::Exit::send(&exit, &parcel(1, "C1")).await.is_success());
    assert_eq!(other.next()["verified"], true);
}
