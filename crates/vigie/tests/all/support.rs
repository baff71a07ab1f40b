//! The real program as a child process, and a small HTTP client for it: what the end-to-end tests share.
//!
//! Every server has a directory and a port of its own, and is ended by its id when its value goes out of scope. Nothing
//! here repeats a request or a test that failed; whoever polls has a deadline.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::Value;
use vigie_event::Timestamp;

/// Within this time everything that a test waits for has happened, on a slow machine too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Now, by the clock that the server reads too.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

/// The seed of a random test: `VIGIE_TEST_SEED`, or else a new one. A test names it in what it prints.
pub(crate) fn seed() -> u64 {
    match std::env::var("VIGIE_TEST_SEED") {
        Ok(seed) => seed.parse().expect("VIGIE_TEST_SEED is a whole number"),
        Err(_) => now().0.unsigned_abs(),
    }
}

/// Looks until `look` finds something; fails when the deadline has passed.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        // not synchronisation: the pause between two looks at a condition that has a deadline
        std::thread::sleep(PAUSE);
    }
}

/// A child process that does not outlive its value.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Ends it at once (SIGKILL), as a power cut would.
    pub(crate) fn kill(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait().unwrap();
    }

    /// Asks it to stop (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ended(&mut self, what: &str) -> ExitStatus {
        until(what, || self.0.try_wait().unwrap())
    }

    /// Closes its standard input.
    pub(crate) fn end_input(&mut self) {
        drop(self.0.stdin.take());
    }

    /// Its id, for the file systems and tracers that know it by that.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(crate) fn over(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }
}

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program, with nothing of this process's environment but the place for temporary files: a variable that
/// configures vigie must not change what a test proves.
fn vigie() -> Command {
    vigie_under(&[])
}

/// The same, started by another program, which is found as this process finds it.
fn vigie_under(other: &[String]) -> Command {
    let vigie = env!("CARGO_BIN_EXE_vigie");
    let mut command = match other.split_first() {
        None => Command::new(vigie),
        Some((program, args)) => {
            let mut command = Command::new(program);
            let _ = command.args(args).arg(vigie);
            command
        }
    };
    let _ = command.env_clear().stdin(Stdio::null());
    if let (Some(path), false) = (std::env::var_os("PATH"), other.is_empty()) {
        let _ = command.env("PATH", path);
    }
    if let Some(place) = std::env::var_os("TMPDIR") {
        let _ = command.env("TMPDIR", place);
    }
    command
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `vigie` with these arguments to its end; its streams are files, hence no terminal.
#[track_caller]
pub(crate) fn run<S: AsRef<OsStr>>(args: &[S]) -> Ran {
    let mut command = vigie();
    let _ = command.args(args);
    finish(command)
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn finish(mut command: Command) -> Ran {
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let _ = command
        .stdout(stdout.try_clone().unwrap())
        .stderr(stderr.try_clone().unwrap());
    let mut process = Process(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    let code = process.ended(&format!("the end of {command:?}")).code();
    let text = |file: &mut File| {
        let mut text = String::new();
        file.rewind().unwrap();
        let _ = file.read_to_string(&mut text).unwrap();
        text
    };
    Ran {
        code,
        stdout: text(&mut stdout),
        stderr: text(&mut stderr),
    }
}

/// The keys that a server makes for itself.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Keys {
    pub(crate) write: String,
    pub(crate) history: String,
    pub(crate) read: String,
    pub(crate) admin: String,
}

/// What became of every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Books {
    pub(crate) accepted: u64,
    pub(crate) applied: u64,
    pub(crate) duplicate: u64,
    pub(crate) dead_letter: u64,
    pub(crate) suppressed: u64,
    pub(crate) in_flight: u64,
}

/// A running `vigie up`.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) url: String,
    pub(crate) keys: Keys,
    pub(crate) client: Client,
}

/// How a server is started, beyond its directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    /// The command with what is its own; `up` if it is empty.
    pub(crate) command: Vec<String>,
    /// The keys that its configuration holds, when it makes none.
    pub(crate) keys: Option<Keys>,
    /// Further arguments.
    pub(crate) args: Vec<String>,
    /// Variables of its environment.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// A program that starts it, with arguments.
    pub(crate) under: Vec<String>,
    /// Where its log goes, if not beside the directory.
    pub(crate) log: Option<PathBuf>,
}

/// A server of which nobody knows yet whether it will come up.
pub(crate) struct Starting {
    pub(crate) process: Process,
    line: mpsc::Receiver<String>,
    log: PathBuf,
    keys: Option<Keys>,
}

impl Starting {
    /// Starts `vigie up` on this data directory and a free port, with further arguments. Its log goes to a file beside.
    pub(crate) fn spawn(dir: &Path, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::launch(
            dir,
            &Launch {
                args,
                ..Launch::default()
            },
        )
    }

    /// The same, in other ways.
    pub(crate) fn launch(dir: &Path, launch: &Launch) -> Self {
        let log = launch.log.clone().unwrap_or_else(|| dir.with_extension("log"));
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = vigie_under(&launch.under);
        let up = ["up".to_owned()];
        let _ = command
            .args(if launch.command.is_empty() {
                &up[..]
            } else {
                &launch.command
            })
            .args(["--listen", "127.0.0.1:0", "--output", "json", "--data-dir"])
            .arg(dir)
            .args(&launch.args)
            .envs(launch.variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut process = Process(command.spawn().unwrap());
        let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
        let (send, line) = mpsc::channel();
        // Ends with the process: its standard output is closed then.
        drop(std::thread::spawn(move || {
            let mut text = String::new();
            if stdout.read_line(&mut text).is_ok_and(|read| read > 0) {
                let _ = send.send(text);
            }
        }));
        let keys = launch.keys.clone();
        Self {
            process,
            line,
            log,
            keys,
        }
    }

    /// Waits until it answers.
    #[track_caller]
    pub(crate) fn up(self) -> Server {
        let log = self.log.clone();
        self.up_or_dead().unwrap_or_else(|_| {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            panic!("the server did not come up; its log:\n{log}")
        })
    }

    /// Waits until it answers, or gives the process back that ended before.
    #[track_caller]
    pub(crate) fn up_or_dead(self) -> Result<Server, Process> {
        #[derive(Deserialize)]
        struct Up {
            url: String,
            keys: Option<Keys>,
        }
        let line = match self.line.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.process),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("waited {DEADLINE:?} for a server to start"),
        };
        let up: Up = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Ok(Server {
            process: self.process,
            client: Client::new(&up.url),
            url: up.url,
            keys: up.keys.or(self.keys).expect("a server without keys"),
        })
    }
}

impl Server {
    /// Starts a server and waits until it answers.
    #[track_caller]
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        Starting::spawn(dir, args).up()
    }

    /// Reads something that must be there.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> String {
        let answer = self.client.get(path, &self.keys.read).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// The same as JSON.
    #[track_caller]
    pub(crate) fn get_json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path)).unwrap()
    }

    /// Sends events with the write key, all of which must be taken.
    #[track_caller]
    pub(crate) fn post(&self, events: &[Value]) {
        let body = serde_json::to_string(events).unwrap();
        let answer = self.client.post("/v1/events", &self.keys.write, &body).unwrap();
        assert!(answer.took(events.len()), "{answer:?}");
    }

    /// The books at this moment.
    #[track_caller]
    pub(crate) fn books(&self) -> Books {
        serde_json::from_str(&self.get("/v1/books")).unwrap()
    }

    /// The books once nothing is in flight any more.
    #[track_caller]
    pub(crate) fn settled(&self) -> Books {
        let start = Instant::now();
        loop {
            let books = self.books();
            if books.in_flight == 0 {
                return books;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "after {DEADLINE:?} events are still in flight: {books:?}; readiness: {:?}",
                self.client.get("/readyz", "")
            );
            // not synchronisation: the pause between two looks at books that have a deadline
            std::thread::sleep(PAUSE);
        }
    }
}

/// What a request was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Seconds after which it makes sense to come back.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: String,
}

impl Answer {
    /// The answer as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether a batch of so many events was taken as a whole.
    pub(crate) fn took(&self, events: usize) -> bool {
        self.status == 200 && self.json() == serde_json::json!({"accepted": events, "rejected": []})
    }
}

/// Requests to one server over connections that are kept open.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(DEADLINE))
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.into(),
            url: url.to_owned(),
        }
    }

    pub(crate) fn get(&self, path: &str, key: &str) -> Result<Answer, ureq::Error> {
        let request = self.agent.get(format!("{}{path}", self.url));
        answer(request.header("Authorization", format!("Bearer {key}")).call()?)
    }

    pub(crate) fn post(&self, path: &str, key: &str, body: &str) -> Result<Answer, ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let request = request
            .header("Authorization", format!("Bearer {key}"))
            .header("Content-Type", "application/json");
        answer(request.send(body)?)
    }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    Ok(Answer {
        status: response.status().as_u16(),
        retry_after: response
            .headers()
            .get("retry-after")
            .and_then(|seconds| seconds.to_str().ok()?.parse().ok()),
        body: response.body_mut().read_to_string()?,
    })
}
