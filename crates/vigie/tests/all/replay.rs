//! `vigie replay` from outside, over an archive of a shop that a worker has folded: the exact replay ends with the worker's
//! own bytes, a replay of all events raises the worker's own flags, and what else the command promises.

use crate::support::{self, Ran, Server};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use vigie_archive::{Archive, Mode, Place, Row};
use vigie_audit::Merkle;
use vigie_event::json::{Receipt, read};
use vigie_event::{Body, CustomerKey, DAY_MS, Event, Offset, Partition, Record, Timestamp, Workspace};
use vigie_ingestion::log::{EmbeddedLog, Log, LogReader, MemoryLog, Options};
use vigie_pipeline::{Archivist, ArchivistOptions, Shelf, Shelved, Sim};
use vigie_relance::{Flag, PolicySet};
use vigie_scoring::Model;
use vigie_store::{EmbeddedStore, MemoryStore, Store};

const PARTITIONS: u16 = 4;
const BASE: i64 = 1_770_000_000_000;
const CUSTOMERS: i64 = 40;
/// Days of history; then half a year of silence.
const DAYS: i64 = 240;
/// In force for the last third of the history.
const EAGER: &str = "[[policy]]\nid = \"early\"\nscore = \"attrition\"\nthreshold = 0.4\ncooldown-days = 10\nholdout = 0.2\n\
                     [policy.eligible]\nmin-purchase-days = 2\n";
const STRICT: &str = "[[policy]]\nid = \"early\"\nscore = \"attrition\"\nthreshold = 0.85\ncooldown-days = 10\nholdout = 0.2\n\
                      [policy.eligible]\nmin-purchase-days = 2\n";

fn workspace() -> Workspace {
    Workspace::new("shop").unwrap()
}

fn day(day: i64) -> Timestamp {
    Timestamp(BASE + day * DAY_MS)
}

fn event(text: &str, at: Timestamp) -> Event {
    let receipt = Receipt {
        workspace: workspace(),
        received_at: at,
        sent_at: None,
        user_agent: None,
        oldest: None,
    };
    read(text, &receipt).unwrap()
}

/// Customers who come every so many days until they stop; most sign in on a device that was anonymous before.
fn history() -> Vec<Event> {
    let mut events = Vec::new();
    for customer in 0..CUSTOMERS {
        let (pace, last) = (3 + customer % 9, DAYS * (customer % 7 + 4) / 10);
        for (visit, on) in (customer % 5..last.min(DAYS)).step_by(pace as usize).enumerate() {
            let at = day(on).plus_ms(customer * 660_000 + 1);
            let id = format!("{customer}-{visit}");
            let text = match (visit % 4, visit) {
                (_, 2) if customer % 3 > 0 => {
                    format!(
                        r#"{{"id":"{id}","anonymous_id":"d{customer}","user_id":"c{customer}","signal":"identity.identify"}}"#
                    )
                }
                (0, _) => format!(
                    r#"{{"id":"{id}","user_id":"c{customer}","signal":"purchase","money":{{"amount":"{customer}.5","currency":"EUR"}}}}"#
                ),
                (1, _) if customer % 3 > 0 => {
                    format!(r#"{{"id":"{id}","anonymous_id":"d{customer}","signal":"page.view"}}"#)
                }
                (2, _) => format!(r#"{{"id":"{id}","user_id":"c{customer}","signal":"email.click"}}"#),
                _ => format!(r#"{{"id":"{id}","user_id":"c{customer}","signal":"page.view"}}"#),
            };
            events.push(event(&text, at));
            // The client repeats itself now and then.
            if visit % 11 == 5 {
                events.push(event(&text, at.plus_ms(1_000)));
            }
        }
    }
    events.sort_by_key(|event| event.received_at);
    events
}

/// Puts records into an archive.
struct Bridge(Archive);

impl Shelf for Bridge {
    fn ends(&self) -> Vec<Offset> {
        self.0.ends()
    }

    async fn put(&mut self, rows: Vec<Shelved>) -> Result<(), String> {
        let row = |row: Shelved| Row {
            position: row.position,
            bytes: row.bytes,
            judgement: row.judgement,
        };
        let written = self.0.write(rows.into_iter().map(row).collect()).await;
        written.map(drop).map_err(|error| error.to_string())
    }
}

/// What a worker made of the shop, and the archive of its log.
struct Shop {
    dir: tempfile::TempDir,
    events: Vec<Event>,
    records: BTreeMap<CustomerKey, bytes::Bytes>,
    root: String,
    flags: Vec<Flag>,
    applied: u64,
    duplicate: u64,
    log_records: u64,
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

async fn shop() -> Shop {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::directory(&dir.path().join("archive"));
    let archive = Archive::open(place, Mode::Write, PARTITIONS).await.unwrap();
    let (log, store) = (
        Arc::new(MemoryLog::new(PARTITIONS)),
        Arc::new(MemoryStore::new(PARTITIONS)),
    );
    let events = history();
    let start = async |policies: &'static str, now| {
        let mut sim = Sim::over(
            Arc::clone(&log),
            Arc::clone(&store),
            Model::shipped_text(),
            policies,
            now,
        )
        .await
        .unwrap();
        sim.worker = sim.worker.keeping_judgements();
        sim
    };
    let (before, after) = events.split_at(events.partition_point(|event| event.received_at <= day(DAYS * 2 / 3)));
    let mut sim = start(PolicySet::shipped_text(), day(0)).await;
    for (number, portion) in before.chunks(97).chain(after.chunks(97)).enumerate() {
        if number == before.len().div_ceil(97) {
            sim = start(EAGER, portion[0].received_at).await;
        }
        for event in portion {
            sim.append(vec![event.clone()]).await.unwrap();
            sim.settle(50).await.unwrap();
        }
        shelve(&log, &store, &sim, &archive).await;
    }
    sim.pass_to(day(DAYS + 180)).await.unwrap();
    shelve(&log, &store, &sim, &archive).await;
    assert!(archive.totals().flushes > 5);
    let mut tree = Merkle::default();
    for partition in (0..PARTITIONS).map(Partition) {
        let mut of_partition = Merkle::default();
        for (key, bytes) in store.scan(partition, None, usize::MAX).await.unwrap() {
            of_partition.customer(&key, &bytes);
        }
        tree.partition(partition, of_partition.root());
    }
    let flags = store.flags(&workspace(), 0, usize::MAX >> 1).await.unwrap();
    let books = sim.worker.status().get().books[&workspace()];
    Shop {
        events,
        records: sim.records().await.unwrap(),
        root: tree.root().to_string(),
        flags: flags
            .iter()
            .map(|(_, body)| serde_json::from_slice(body).unwrap())
            .collect(),
        applied: books.applied,
        duplicate: books.duplicate,
        log_records: log.ends().iter().map(|end| end.0).sum(),
        dir,
    }
}

async fn shelve(log: &MemoryLog, store: &Arc<MemoryStore>, sim: &Sim, archive: &Archive) {
    let options = ArchivistOptions {
        rows: 5_000,
        ..ArchivistOptions::default()
    };
    let shelf = Bridge(archive.clone());
    let (archivist, _) = Archivist::new(log, Arc::clone(store), shelf, sim.worker.status(), options).unwrap();
    archivist.catch_up(|_| {}).await.unwrap();
}

impl Shop {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn replay(&self, args: &[&str]) -> Ran {
        let dir = self.dir.path().to_str().unwrap();
        support::run(&[&["replay", "--data-dir", dir], args].concat())
    }

    /// What a replay says in JSON; it must succeed.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let ran = self.replay(&[args, &["--output", "json"]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(ran.stderr, "", "nothing is drawn on a pipe");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Who, by which policy, when.
fn identity(flag: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&flag["customer"]["id"]),
        text(&flag["policy"]),
        text(&flag["raised_at"]),
    )
}

fn identities(flags: &Value) -> BTreeSet<(String, String, String)> {
    flags.as_array().unwrap().iter().map(identity).collect()
}

#[test]
fn an_exact_replay_ends_with_the_workers_own_bytes() {
    let shop = &run(shop());
    for threads in ["1", "3"] {
        let exact = shop.json(&["--threads", threads]);
        assert_eq!(exact["merkle_root"], shop.root.as_str());
        assert_eq!(exact["records"], shop.log_records);
        assert_eq!(exact["events"], shop.events.len());
        assert_eq!(exact["books"]["shop"]["applied"], shop.applied);
        assert_eq!(exact["books"]["shop"]["duplicate"], shop.duplicate);
        let flags = &exact["flags"];
        assert_eq!(
            flags["flagged"].as_u64().unwrap() + flags["held_out"].as_u64().unwrap(),
            shop.flags.len() as u64
        );
    }
    assert!(
        shop.flags.len() > 20 && shop.duplicate > 10,
        "the shop is worth replaying"
    );
    let text = shop.replay(&[]);
    assert!(
        text.stdout.contains(&shop.root) && text.stdout.contains("merkle root"),
        "{}",
        text.stdout
    );
}

#[test]
fn into_keeps_the_state_and_to_cuts_it() {
    let shop = &run(shop());
    let dir = shop.file("state");
    let into = shop.json(&["--into", dir.to_str().unwrap()]);
    assert_eq!(into["merkle_root"], shop.root.as_str());
    let records = run(async {
        let store = EmbeddedStore::open(&dir, &vigie_store::Options::new(PARTITIONS)).unwrap();
        let mut all = BTreeMap::new();
        for partition in (0..PARTITIONS).map(Partition) {
            all.extend(store.scan(partition, None, usize::MAX >> 1).await.unwrap());
        }
        all
    });
    assert_eq!(records, shop.records);
    let again = shop.replay(&["--into", dir.to_str().unwrap()]);
    assert_eq!(again.code, Some(2), "never into what is there");
    assert!(again.stderr.contains("not empty"), "{}", again.stderr);

    let to = day(100);
    let cut = shop.json(&["--to", &to.to_string()]);
    let by_then = shop.events.iter().filter(|event| event.received_at <= to).count();
    assert_eq!(cut["events"], by_then);
    assert_ne!(cut["merkle_root"], shop.root.as_str());
    assert!(Timestamp::parse(cut["clock"].as_str().unwrap()).unwrap() <= to);
    let before = shop.replay(&["--to", "2001-01-01"]);
    assert_eq!(before.code, Some(0), "{}", before.stderr);
    assert!(before.stdout.contains("the log begins after --to"), "{}", before.stdout);
}

#[test]
fn all_events_raise_the_workers_own_flags() {
    let shop = &run(shop());
    let all = shop.json(&["--workspace", "shop"]);
    let lived: BTreeSet<_> = shop
        .flags
        .iter()
        .map(|flag| (flag.customer.clone(), flag.policy.clone(), flag.raised_at.clone()))
        .collect();
    assert_eq!(
        identities(&all["run"]["flags"]),
        lived,
        "through the log's own change of policies"
    );
    assert_eq!(all["run"]["books"]["shop"]["applied"], shop.applied);

    let from = day(DAYS * 2 / 3 + 20);
    let late = shop.json(&["--workspace", "shop", "--from", &from.to_string()]);
    let since: BTreeSet<_> = lived
        .iter()
        .filter(|flag| Timestamp::parse(&flag.2).unwrap() >= from)
        .cloned()
        .collect();
    assert_eq!(
        identities(&late["run"]["flags"]),
        since,
        "with the history before, without its flags"
    );
    assert!(late["run"]["flags_before"].as_u64().unwrap() > 0);
    assert_eq!(
        late["run"]["events_before"].as_u64().unwrap() + late["run"]["events"].as_u64().unwrap(),
        shop.events.len() as u64
    );

    let nobody = shop.replay(&["--workspace", "elsewhere"]);
    assert_eq!(nobody.code, Some(0));
    assert!(nobody.stdout.contains("no event is selected"), "{}", nobody.stdout);
}

#[test]
fn conditions_and_names_select_events() {
    let shop = &run(shop());
    let bought = shop.json(&["--where", "signal = 'purchase' AND decision = 'applied'"]);
    let books = &bought["run"]["books"]["shop"];
    let ids: BTreeSet<_> = shop
        .events
        .iter()
        .filter(|event| event.money.is_some())
        .map(|event| &event.id)
        .collect();
    assert_eq!(books["applied"], ids.len());
    assert_eq!(books["duplicate"], 0);

    // c4 was anonymous on a device first: those events are theirs.
    let names = shop.write("names.txt", "c4\n\n c6 \n");
    for args in [["--customers", "c4,c6"], ["--customers-file", &names]] {
        let two = shop.json(&args);
        let of = |id: &str| {
            shop.events
                .iter()
                .filter(|event| event.id.as_str().starts_with(id))
                .count()
        };
        assert_eq!(two["run"]["events"], of("4-") + of("6-"), "{}", two["selection"]);
        assert_eq!(two["run"]["customers"], 2);
    }
    let lived: BTreeSet<_> = shop
        .flags
        .iter()
        .filter(|flag| flag.customer == "c4")
        .map(|flag| &flag.raised_at)
        .collect();
    let alone = shop.json(&["--customers", "anonymous:d4"]);
    let raised = identities(&alone["run"]["flags"]);
    assert_eq!(raised.iter().map(|flag| &flag.2).collect::<BTreeSet<_>>(), lived);
}

#[test]
fn a_candidate_is_compared_and_reported() {
    let shop = &run(shop());
    let from = day(DAYS * 2 / 3 + 20).to_string();
    let strict = shop.write("strict.toml", STRICT);
    let (page, saved) = (shop.file("report.html"), shop.file("saved.json"));
    let (page, saved) = (page.to_str().unwrap(), saved.to_str().unwrap());
    let args = [
        "--from",
        &from,
        "--policies",
        &strict,
        "--report",
        page,
        "--save",
        saved,
    ];
    let ran = shop.replay(&args);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let value: Value = serde_json::from_str(&std::fs::read_to_string(saved).unwrap()).unwrap();
    assert_eq!(value["kind"], "comparison");
    let since = Timestamp::parse(&from).unwrap();
    let lived: BTreeSet<_> = shop
        .flags
        .iter()
        .map(|flag| (flag.customer.clone(), flag.raised_at.clone()))
        .collect();
    let baseline = identities(&value["baseline"]["flags"]);
    let baseline: BTreeSet<_> = baseline.into_iter().map(|(customer, _, at)| (customer, at)).collect();
    let expected = lived
        .into_iter()
        .filter(|(_, at)| Timestamp::parse(at).unwrap() >= since)
        .collect();
    assert_eq!(baseline, expected, "the baseline is what was in force");
    let differing = value["diff"]["flags"].as_array().unwrap();
    assert!(!differing.is_empty());
    for difference in differing {
        let (before, after) = (
            &difference["baseline"]["raised_at"],
            &difference["candidate"]["raised_at"],
        );
        assert_ne!(before, after, "{difference}");
        check_afterwards(shop, difference);
    }
    let same_model = &value["diff"]["scores"][0];
    assert_eq!(
        (&same_model["score"], &same_model["psi"]),
        (&"attrition".into(), &0.0.into())
    );
    assert!(
        ran.stdout.contains("The baseline raises") && ran.stdout.contains("afterwards"),
        "{}",
        ran.stdout
    );
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    assert!(html.contains("Flags over time") && html.contains("strict.toml") && html.contains("c1"));

    // The same configuration differs in nothing; a directory may hold just a model.
    let config = shop.file("candidate");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("policies.toml"), EAGER).unwrap();
    let same = shop.json(&["--from", &from, "--config", config.to_str().unwrap()]);
    assert_eq!(same["diff"]["flags"], Value::Array(Vec::new()));
    assert!(same["notes"][0].as_str().unwrap().contains("same configuration"));
    std::fs::remove_file(config.join("policies.toml")).unwrap();
    std::fs::write(
        config.join("model.toml"),
        Model::shipped_text().replace("offset = 0.0", "offset = 1.0"),
    )
    .unwrap();
    let to = day(DAYS * 2 / 3 + 40).to_string();
    let shifted = shop.json(&["--from", &from, "--to", &to, "--config", config.to_str().unwrap()]);
    let attrition = &shifted["diff"]["scores"][0];
    assert!(
        attrition["psi"].as_f64().unwrap() > 0.0 && attrition["rose"].as_u64().unwrap() > 0,
        "{attrition}"
    );
    assert_eq!(attrition["fell"], 0, "a larger offset raises every score");
}

/// What a customer did after a flag, counted again from the events that were sent.
fn check_afterwards(shop: &Shop, difference: &Value) {
    let times = ["baseline", "candidate"].map(|run| difference[run]["raised_at"].as_str());
    let since = times
        .into_iter()
        .flatten()
        .map(|at| Timestamp::parse(at).unwrap())
        .min()
        .unwrap();
    let number = difference["customer"]["id"]
        .as_str()
        .unwrap()
        .trim_start_matches('c')
        .to_owned();
    let own = format!("{number}-");
    let later = shop
        .events
        .iter()
        .filter(|event| event.id.as_str().starts_with(&own) && event.received_at > since);
    let mut met = BTreeSet::new();
    let later: Vec<&Event> = later.filter(|event| met.insert(event.id.clone())).collect();
    let afterwards = &difference["afterwards"];
    assert_eq!(afterwards["events"], later.len(), "{difference}");
    match later.iter().find(|event| event.money.is_some()) {
        None => assert_eq!(afterwards["purchase"], Value::Null),
        Some(purchase) => {
            assert_eq!(afterwards["purchase"]["at"], purchase.received_at.to_string());
            assert_eq!(afterwards["purchase"]["amount"], format!("{number}.50"));
        }
    }
}

#[test]
fn events_go_into_a_new_log_that_a_server_reads() {
    let shop = &run(shop());
    let (kept, shifted) = (shop.file("kept"), shop.file("shifted"));
    let published = shop.json(&["--to-log", kept.to_str().unwrap()]);
    assert_eq!(published["events"], shop.events.len());
    let raw: BTreeSet<Vec<u8>> = shop
        .events
        .iter()
        .map(|event| Record::new(Body::Event(Box::new(event.clone()))).encode())
        .collect();
    let read = records(&kept);
    assert_eq!(read.len(), shop.events.len() + usize::from(PARTITIONS));
    assert!(
        read.iter()
            .take(usize::from(PARTITIONS))
            .all(|bytes| is_activation(bytes))
    );
    let events: BTreeSet<Vec<u8>> = read.into_iter().skip(usize::from(PARTITIONS)).collect();
    assert_eq!(events, raw, "the log's own bytes");
    assert_eq!(
        shop.replay(&["--to-log", kept.to_str().unwrap()]).code,
        Some(2),
        "never into a log that exists"
    );

    let before = support::now();
    let from = day(DAYS / 2);
    let args = [
        "--from",
        &from.to_string(),
        "--customers",
        "c4",
        "--shift-to-now",
        "--speed",
        "1e9",
    ];
    let moved = shop.json(&[&["--to-log", shifted.to_str().unwrap()], &args[..]].concat());
    let own = shop
        .events
        .iter()
        .filter(|event| event.id.as_str().starts_with("4-") && event.received_at >= from);
    assert_eq!(moved["events"], own.count());
    let first = Timestamp::parse(moved["first"].as_str().unwrap()).unwrap();
    assert!((before..=support::now()).contains(&first));

    let server = Server::start(&kept, &["--set", &format!("log.partitions={PARTITIONS}")]);
    let bytes = support::until("the events are folded", || {
        let metrics = server.client.get("/metrics", "").unwrap().body;
        let applied = metrics.lines().any(|line| {
            line.contains("workspace=\"shop\"")
                && line.contains("outcome=\"applied\"")
                && line.ends_with(&format!(" {}", shop.applied))
        });
        applied.then_some(metrics.len())
    });
    assert!(bytes > 0);
}

fn is_activation(bytes: &[u8]) -> bool {
    matches!(Record::decode(bytes).unwrap().body, Body::Control(_))
}

/// All records of a log, in its order.
fn records(dir: &Path) -> Vec<Vec<u8>> {
    run(async {
        let log = EmbeddedLog::open(dir, Options::new(PARTITIONS)).unwrap();
        let from = (0..PARTITIONS)
            .map(|partition| (Partition(partition), Offset(0)))
            .collect();
        let mut reader = log.reader(from).unwrap();
        let mut all = Vec::new();
        let end: u64 = log.ends().iter().map(|end| end.0).sum();
        while (all.len() as u64) < end {
            let entries = reader.next(10_000, 16 << 20, Duration::from_secs(1)).await.unwrap();
            all.extend(entries.into_iter().map(|entry| entry.payload.to_vec()));
        }
        all
    })
}

#[test]
fn what_cannot_be_done_is_said() {
    let shop = &run(shop());
    let broken = shop.write(
        "broken.toml",
        "[[policy]]\nid = \"a\"\nscore = \"nonsense\"\nthreshold = 7.0\n",
    );
    let model = shop.write("broken-model.toml", "name = \"x\"\n");
    for (args, code, said) in [
        (&["--to", "yesterday"][..], 2, "not a date such as"),
        (
            &["--from", "2026-02-02"],
            2,
            "an exact replay begins with the log's first record",
        ),
        (
            &["--from", "2026-03-01", "--to", "2026-02-01", "--customers", "c1"],
            2,
            "the period is empty",
        ),
        (&["--from", "2099-01-01", "--customers", "c1"], 2, "the archive ends at"),
        (&["--where", "signal = "], 2, "--where"),
        (&["--where", "signl = 'purchase'"], 2, "signl"),
        (&["--where", "1 + 1"], 2, "true or false"),
        (&["--policies", &broken, "--model", &model], 2, "broken-model.toml"),
        (&["--policies", &broken], 2, "threshold"),
        (&["--policies", "nowhere.toml"], 2, "nowhere.toml"),
        (&["--config", "nowhere"], 2, "neither model.toml nor policies.toml"),
        (&["--report", "x.html"], 2, "name a candidate"),
        (&["--into", "x", "--customers", "c1"], 2, "exact replay"),
        (&["--speed", "10"], 2, "--to-log"),
        (&["--to-log", "x", "--speed", "0"], 2, "a number above 0"),
        (&["--customers", " "], 2, "no customer is named"),
        (&["--archive", "x"], 2, "cannot be used with"),
        (&["--threads", "0"], 2, "threads"),
    ] {
        let ran = shop.replay(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(said), "{args:?}: {}", ran.stderr);
    }
    let missing = support::run(&["replay", "--archive", "nowhere/at/all"]);
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    assert!(missing.stderr.contains("nowhere/at/all"), "{}", missing.stderr);
    assert_eq!(support::run(&["replay"]).code, Some(2));
    assert_eq!(support::run(&["replay", "--archive", "ftp://x"]).code, Some(2));
    let help = support::run(&["replay", "--help"]).stdout;
    for heading in [
        "Some events only",
        "Another configuration",
        "Results",
        "Into a log",
        "Examples:",
    ] {
        assert!(help.contains(heading), "{heading}");
    }
}
