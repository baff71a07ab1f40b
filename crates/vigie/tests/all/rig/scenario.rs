//! The traffic of a fault test, what its client was told, and the verdict over a data directory that survived a fault.
//!
//! The client sends every batch until it was answered 2xx and never again after that. So whatever has been lost after
//! an acknowledgement stays lost, and is missing in the end; and what is there twice was counted twice.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use vigie_event::{DAY_MS, Timestamp};

use crate::support::{Answer, Books, Client, Launch, Server, Starting, now, run, until};
use crate::workload::{Answers, Crowd, become_same};

/// From the start of the process to the first ready answer, in 19 of 20 restarts: a machine that is busy with something else
/// may take its time now and then, and that is not what is tested.
const RESTART: Duration = Duration::from_secs(2);
/// So many batches are sent between two waits for the worker, so that it takes several steps.
const STRETCH: usize = 5;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) events: usize,
    /// Events of one request.
    pub(crate) batch: usize,
    /// Bytes added to each event, to fill segments.
    pub(crate) padding: usize,
    /// Whether the client waits for the worker now and then, so that it takes several steps.
    pub(crate) waits: bool,
}

impl Plan {
    /// The 500 events of the failure model.
    pub(crate) fn of(seed: u64) -> Self {
        Self {
            seed,
            events: 500,
            batch: 20,
            padding: 0,
            waits: true,
        }
    }
}

/// One request.
#[derive(Debug)]
pub(crate) struct Batch {
    body: String,
    /// Events that will be applied.
    good: u64,
    /// Events that will be dead letters.
    bad: u64,
}

/// What the client was told of each batch.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// When, if it was.
    acknowledged: Vec<Option<SystemTime>>,
    attempts: Vec<u64>,
}

impl Told {
    /// Takes no answer for one that came after this moment: the batches are sent again. Answers how many there were.
    #[allow(dead_code, reason = "for power cuts, which not every test binary has")]
    pub(crate) fn forget_since(&mut self, off: SystemTime) -> usize {
        let mut forgotten = 0;
        for when in &mut self.acknowledged {
            if when.is_some_and(|when| when >= off) {
                *when = None;
                forgotten += 1;
            }
        }
        forgotten
    }
}

/// How sending ended.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Everything asked for was acknowledged.
    All,
    /// The server refused.
    Refused(Answer),
    /// The connection broke or could not be made.
    Broken,
}

/// Traffic, a prepared data directory, and what an undisturbed server answers.
pub(crate) struct Scenario {
    crowd: Crowd,
    pub(crate) batches: Vec<Batch>,
    at: Timestamp,
    expected: Answers,
    args: Vec<String>,
    waits: bool,
    dir: tempfile::TempDir,
    runs: AtomicU64,
}

/// What a restart after a fault showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    /// From the start of the process to the first ready answer.
    pub(crate) ready: Duration,
    /// Events that were in the log more than once, because their acknowledgement was cut off.
    pub(crate) duplicate: u64,
}

impl Scenario {
    /// Prepares a data directory (a server that started, put its model in force and stopped) and asks an undisturbed
    /// server, which gets every event once, for the answers.
    pub(crate) fn prepare(plan: Plan, args: &[&str]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let crowd = Crowd {
            customers: 40,
            devices: 20,
        };
        let end = now().plus_ms(-DAY_MS);
        let mut events = crowd.events(&mut rng, end, plan.events);
        if plan.padding > 0 {
            // In pieces that a string may have.
            let piece = "x".repeat(4_000);
            let pieces: Vec<Value> = (0..plan.padding / 4_000).map(|_| piece.clone().into()).collect();
            events
                .iter_mut()
                .for_each(|event| event["properties"] = json!({"padding": pieces}));
        }
        let batch = |(number, events): (usize, &[Value])| {
            let bad = number % STRETCH == 2;
            let mut sent = events.to_vec();
            if bad {
                sent.push(json!({
                    "id": format!("bad{number}"), "user_id": "c000", "signal": "page.view",
                    "timestamp": "2020-01-01T00:00:00Z",
                }));
            }
            Batch {
                body: serde_json::to_string(&sent).unwrap(),
                good: u64::try_from(events.len()).unwrap(),
                bad: u64::from(bad),
            }
        };
        let mut scenario = Self {
            crowd,
            batches: events.chunks(plan.batch).enumerate().map(batch).collect(),
            at: now().plus_ms(DAY_MS),
            expected: Answers::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            waits: plan.waits,
            dir: tempfile::tempdir().unwrap(),
            runs: AtomicU64::new(0),
        };
        let template = scenario.template();
        let mut server = Starting::launch(&template, &scenario.launch()).up();
        server.process.terminate();
        assert_eq!(server.process.ended("the template server stops").code(), Some(0));
        cut_zeros(&template.join("store"));

        let undisturbed = scenario.data();
        let mut server = Starting::launch(&undisturbed, &scenario.launch()).up();
        let mut told = scenario.nothing_told();
        assert!(matches!(scenario.send(&server, &mut told, usize::MAX), Sent::All));
        let once = Books {
            accepted: scenario.good() + scenario.bad(),
            applied: scenario.good(),
            dead_letter: scenario.bad(),
            ..Books::default()
        };
        assert_eq!(server.settled(), once, "the undisturbed server");
        // A server that stops has folded everything, what identities hand over to each other too.
        server.process.terminate();
        assert_eq!(server.process.ended("the undisturbed server stops").code(), Some(0));
        let server = Starting::launch(&undisturbed, &scenario.launch()).up();
        scenario.expected = scenario.crowd.answers(&server, scenario.at);
        drop(server);
        scenario.remove(&undisturbed);
        scenario
    }

    fn template(&self) -> PathBuf {
        self.dir.path().join("template")
    }

    fn good(&self) -> u64 {
        self.batches.iter().map(|batch| batch.good).sum()
    }

    fn bad(&self) -> u64 {
        self.batches.iter().map(|batch| batch.bad).sum()
    }

    /// Nothing sent yet.
    pub(crate) fn nothing_told(&self) -> Told {
        Told {
            acknowledged: vec![None; self.batches.len()],
            attempts: vec![0; self.batches.len()],
        }
    }

    /// How this scenario starts a server.
    pub(crate) fn launch(&self) -> Launch {
        Launch {
            args: self.args.clone(),
            ..Launch::default()
        }
    }

    /// A place for one run, without anything in it.
    pub(crate) fn place(&self) -> PathBuf {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(format!("run-{run}"))
    }

    /// A data directory for one run.
    pub(crate) fn data(&self) -> PathBuf {
        let data = self.place();
        self.copy_to(&data);
        data
    }

    /// Copies the prepared data directory.
    pub(crate) fn copy_to(&self, data: &Path) {
        copy(&self.template(), data);
    }

    /// Removes what a run that went well has left.
    pub(crate) fn remove(&self, data: &Path) {
        std::fs::remove_dir_all(data).unwrap();
        for extension in ["log", "trace"] {
            // Not every run has both.
            let _ = std::fs::remove_file(data.with_extension(extension));
        }
    }

    /// Sends batches that were not acknowledged yet, in order, until so many of all are acknowledged or something goes
    /// wrong.
    pub(crate) fn send(&self, server: &Server, told: &mut Told, upto: usize) -> Sent {
        self.send_to(&server.client, &server.keys.write, &server.keys.read, told, upto)
    }

    fn send_to(&self, client: &Client, write: &str, read: &str, told: &mut Told, upto: usize) -> Sent {
        for (number, batch) in self.batches.iter().enumerate().take(upto) {
            if told.acknowledged[number].is_some() {
                continue;
            }
            told.attempts[number] += 1;
            match client.post("/v1/events", write, &batch.body) {
                Ok(answer) if answer.status == 200 => {
                    let said = answer.json();
                    let rejected = said["rejected"].as_array().map_or(0, Vec::len);
                    assert_eq!(
                        (said["accepted"].as_u64(), rejected),
                        (Some(batch.good), usize::try_from(batch.bad).unwrap()),
                        "{answer:?}"
                    );
                    told.acknowledged[number] = Some(SystemTime::now());
                }
                Ok(answer) => return Sent::Refused(answer),
                Err(_) => return Sent::Broken,
            }
            if self.waits && number % STRETCH == STRETCH - 1 {
                let folded = until("the worker comes after", || match client.get("/v1/books", read) {
                    Ok(answer) if answer.status == 200 => (answer.json()["in_flight"] == 0).then_some(true),
                    _ => Some(false),
                });
                if !folded {
                    return Sent::Broken;
                }
            }
        }
        Sent::All
    }

    /// The one judgement of all fault tests. Starts a server on what a fault has left, repeats what was not
    /// acknowledged, and fails unless
    ///
    /// - it becomes ready (how fast is judged over many of them, see [`summary`]),
    /// - every acknowledged event is there, exactly once, and nothing that was never sent (the books),
    /// - everybody's answers are those of the undisturbed server, byte for byte.
    #[track_caller]
    pub(crate) fn verdict(&self, data: &Path, told: &mut Told, context: &str) -> Verdict {
        self.verdict_of(data, &self.launch(), told, context)
    }

    /// The same, started in another way.
    #[track_caller]
    pub(crate) fn verdict_of(&self, data: &Path, launch: &Launch, told: &mut Told, context: &str) -> Verdict {
        let log = launch.log.clone().unwrap_or_else(|| data.with_extension("log"));
        let _shown = ShownOnFailure(log);
        let started = Instant::now();
        let server = Starting::launch(data, launch)
            .up_or_dead()
            .unwrap_or_else(|_| panic!("{context}: no restart"));
        until("the restarted server is ready", || {
            server
                .client
                .get("/readyz", "")
                .is_ok_and(|answer| answer.status == 200)
                .then_some(())
        });
        let ready = started.elapsed();
        let verdict = self.judge(&server, told, ready, context);
        drop(server);
        self.audit(data, context);
        verdict
    }

    /// The same for a server that is running and was disturbed.
    #[track_caller]
    pub(crate) fn judge(&self, server: &Server, told: &mut Told, ready: Duration, context: &str) -> Verdict {
        let before = server.settled();
        let (applied, dead_letter) = self.known(told);
        assert!(
            before.applied >= applied && before.dead_letter >= dead_letter,
            "{context}: of {applied} acknowledged events and {dead_letter} acknowledged dead letters some are lost: \
             {before:?}; letters {}",
            server
                .client
                .get("/v1/dead-letters?limit=50", &server.keys.admin)
                .unwrap()
                .body
        );
        let sent = self.send(server, told, usize::MAX);
        assert!(
            matches!(sent, Sent::All),
            "{context}: {sent:?}; the restarted server refuses"
        );
        let books = server.settled();
        let more = |count: fn(&Batch) -> u64| -> u64 {
            let attempts = self.batches.iter().zip(&told.attempts);
            attempts.map(|(batch, attempts)| (attempts - 1) * count(batch)).sum()
        };
        let balanced = Books {
            accepted: self.good() + books.duplicate + books.dead_letter,
            applied: self.good(),
            duplicate: books.duplicate,
            dead_letter: books.dead_letter,
            ..Books::default()
        };
        assert_eq!(books, balanced, "{context}: lost, counted twice or invented");
        // What is there more than once, or was set aside more than once, was sent more than once.
        assert!(books.duplicate <= more(|batch| batch.good), "{context}: {books:?}");
        assert!(
            (self.bad()..=self.bad() + more(|batch| batch.bad)).contains(&books.dead_letter),
            "{context}: {books:?}"
        );
        let look = || (self.crowd.answers(server, self.at), self.expected.clone());
        become_same(look, context);
        Verdict {
            ready,
            duplicate: books.duplicate,
        }
    }

    /// Events and dead letters that were acknowledged.
    pub(crate) fn known(&self, told: &Told) -> (u64, u64) {
        let batches = self.batches.iter().zip(&told.acknowledged);
        let acknowledged = batches.filter(|(_, when)| when.is_some()).map(|(batch, _)| batch);
        acknowledged.fold((0, 0), |(good, bad), batch| (good + batch.good, bad + batch.bad))
    }

    /// The place for an offline audit of the data directory, which no process holds now.
    fn audit(&self, data: &Path, context: &str) {
        let audit = run(&["audit", "--data-dir", data.to_str().unwrap()]);
        assert_eq!(audit.code, Some(0), "{context}: {audit:?}");
    }
}

/// A log that is printed when the test fails before the value goes.
struct ShownOnFailure(PathBuf);

impl Drop for ShownOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "{}:\n{}",
                self.0.display(),
                std::fs::read_to_string(&self.0).unwrap_or_default()
            );
        }
    }
}

/// What a server on this data directory has logged.
pub(crate) fn log_of(data: &Path) -> String {
    std::fs::read_to_string(data.with_extension("log")).unwrap_or_default()
}

/// One line about many verdicts. Fails when they were not ready again as fast as promised.
pub(crate) fn summary(verdicts: &[Verdict]) -> String {
    let mut ready: Vec<Duration> = verdicts.iter().map(|verdict| verdict.ready).collect();
    ready.sort_unstable();
    let at = |share: usize| ready.get((ready.len() * share / 100).min(ready.len().saturating_sub(1)));
    let most = at(95).copied().unwrap_or_default();
    assert!(most <= RESTART, "ready again only after {most:?}, of all: {ready:?}");
    let duplicate: u64 = verdicts.iter().map(|verdict| verdict.duplicate).sum();
    format!(
        "{} measured, 0 lost, 0 twice, 0 answers differ, {duplicate} events repeated and recognised, \
         restart to ready p50 {:?} p99 {:?} max {:?}",
        verdicts.len(),
        at(50).copied().unwrap_or_default(),
        at(99).copied().unwrap_or_default(),
        ready.last().copied().unwrap_or_default()
    )
}

/// Cuts the zeros that the store allocates ahead in its journal, as the store itself does when it opens: a copy of a file
/// with holes has none.
fn cut_zeros(store: &Path) {
    for item in std::fs::read_dir(store).unwrap() {
        let path = item.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let bytes = std::fs::read(&path).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_len(u64::try_from(used).unwrap()).unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let (path, target) = (item.path(), to.join(item.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else if item.file_name() == "reserve" && std::fs::hard_link(&path, &target).is_ok() {
            // Zeros that nobody writes again: they need no space of their own, except on another file system.
        } else {
            let _bytes = std::fs::copy(&path, &target).unwrap();
        }
    }
}
