//! `kill -9` under load: whatever was acknowledged is counted exactly once, and the scores are those of a server that
//! nobody disturbed and that got every event once.
//!
//! The moments are random by a printed seed. The client does what a client must do: it repeats what was not acknowledged.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use vigie_event::DAY_MS;

use crate::support::{Books, Client, Server, Starting, now, seed, until};
use crate::workload::{Crowd, become_same};

const EVENTS: usize = 50_000;
/// Events of one request.
const BATCH: usize = 100;
const CONNECTIONS: usize = 4;
const KILLS: usize = 20;
/// Pause of a client before it repeats.
const BREATH: Duration = Duration::from_millis(5);
/// Who takes part.
const CROWD: Crowd = Crowd {
    customers: 300,
    devices: 150,
};

/// Sends the batches from several connections, each until it is acknowledged, to wherever the server is at the time.
fn send(batches: &[String], url: &Mutex<String>, key: &str, next: &AtomicUsize, acknowledged: &AtomicUsize) {
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            let _ = scope.spawn(|| {
                let mut client = Client::new("");
                let mut known = String::new();
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    until("a batch is acknowledged", || {
                        let current = url.lock().unwrap().clone();
                        if current != known {
                            client = Client::new(&current);
                            known = current;
                        }
                        match client.post("/v1/events", key, batch) {
                            Ok(answer) if answer.took(BATCH) => return Some(()),
                            // While ours is down, its port may be another test's server's, who does not know the key; from
                            // ours that answer would never end.
                            Ok(answer) => assert!(answer.status >= 500 || answer.status == 401, "{answer:?}"),
                            Err(_) => {}
                        }
                        // not synchronisation: a polite client pauses before it repeats
                        std::thread::sleep(BREATH);
                        None
                    });
                    let _ = acknowledged.fetch_add(BATCH, Ordering::Relaxed);
                }
            });
        }
    });
}

#[test]
fn twenty_kills_under_load_lose_nothing_and_count_nothing_twice() {
    let seed = seed();
    println!("replay with VIGIE_TEST_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let end = now().plus_ms(-DAY_MS);
    let mut sent = CROWD.events(&mut rng, end, EVENTS);
    let mut moments: Vec<usize> = (0..KILLS).map(|_| rng.random_range(0..EVENTS - BATCH)).collect();
    moments.sort_unstable();
    let text = |batch: &[Value]| serde_json::to_string(batch).unwrap();
    let batches: Vec<String> = sent.chunks(BATCH).map(text).collect();

    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &[]);
    let url = Mutex::new(server.url.clone());
    let (next, acknowledged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let key = server.keys.write.clone();
    let mut recoveries_disturbed = 0;
    std::thread::scope(|scope| {
        let _ = scope.spawn(|| send(&batches, &url, &key, &next, &acknowledged));
        for moment in moments {
            until("the load goes on", || {
                (acknowledged.load(Ordering::Relaxed) >= moment).then_some(())
            });
            // not synchronisation: the moment of the kill is random on purpose
            std::thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
            server.process.kill();
            // Some recoveries are killed as well, before or soon after they are complete: what they had begun to write
            // is then in the log more than once.
            for _ in 0..rng.random_range(0..3) {
                let mut starting = Starting::spawn(&data, &[]);
                // not synchronisation: the moment of the kill is random on purpose
                std::thread::sleep(Duration::from_micros(rng.random_range(0..200_000)));
                starting.process.kill();
                recoveries_disturbed += 1;
            }
            server = Server::start(&data, &[]);
            url.lock().unwrap().clone_from(&server.url);
        }
    });

    let books = server.settled();
    println!("{books:?} after {KILLS} kills and {recoveries_disturbed} disturbed recoveries");
    let distinct = u64::try_from(EVENTS).unwrap();
    let balanced = Books {
        accepted: distinct + books.duplicate,
        applied: distinct,
        duplicate: books.duplicate,
        ..Books::default()
    };
    assert_eq!(books, balanced);
    // Once more, with everything folded: the books themselves survive.
    server.process.kill();
    let server = Server::start(&data, &[]);
    assert_eq!(server.settled(), books);

    // The other server gets every event once, in another order.
    sent.shuffle(&mut rng);
    let undisturbed = Server::start(&dir.path().join("undisturbed"), &[]);
    sent.chunks(1_000).for_each(|batch| undisturbed.post(batch));
    let once = Books {
        accepted: distinct,
        applied: distinct,
        ..Books::default()
    };
    assert_eq!(undisturbed.settled(), once);

    let at = now().plus_ms(DAY_MS);
    let look = || (CROWD.answers(&server, at), CROWD.answers(&undisturbed, at));
    become_same(look, &format!("VIGIE_TEST_SEED={seed}"));
    let expected = CROWD.answers(&undisturbed, at);
    // The comparison compares something: devices were linked to their owners.
    assert!(
        expected["anonymous:d001"].contains("\"c007\""),
        "{}",
        expected["anonymous:d001"]
    );
}
