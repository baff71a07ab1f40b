//! F12 and F13: a stop under load that no polite client notices, and a second process on the same data.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Books, Client, Server, run, until};

/// Events of one request.
const BATCH: usize = 100;
const CONNECTIONS: usize = 4;
/// Events a second that are offered, over all connections.
const RATE: usize = 20_000;

fn body(batch: usize) -> String {
    let event = |index: usize| json!({"id": format!("{batch}-{index}"), "user_id": format!("u{}", (batch * 7 + index) % 500), "signal": "page.view"});
    let events: Vec<Value> = (0..BATCH).map(event).collect();
    serde_json::to_string(&events).unwrap()
}

/// What one exchange came to.
#[derive(Debug, PartialEq, Eq)]
enum Exchange {
    /// Acknowledged, and whether the server announced that it closes the connection.
    Acknowledged { closes: bool },
    /// An answer that is no acknowledgement.
    Refused { status: u16, closes: bool },
    /// The connection broke before there was an answer.
    Reset,
}

/// A connection of a client that honours `Connection: close` and nothing more.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(BufReader::new(stream))
    }

    fn post(&mut self, key: &str, body: &str) -> Exchange {
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nHost: vigie\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0
            .get_mut()
            .write_all(head.as_bytes())
            .map_or(Exchange::Reset, |()| self.answer().unwrap_or(Exchange::Reset))
    }

    fn answer(&mut self) -> Option<Exchange> {
        let mut line = String::new();
        let mut next = |reader: &mut BufReader<TcpStream>| {
            line.clear();
            (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_ascii_lowercase())
        };
        let status = next(&mut self.0)?.split(' ').nth(1)?.parse().ok()?;
        let (mut closes, mut length) = (false, 0);
        loop {
            let field = next(&mut self.0)?;
            match field.split_once(':') {
                Some(("connection", value)) => closes = value.trim() == "close",
                Some(("content-length", value)) => length = value.trim().parse().ok()?,
                Some(_) => {}
                None => break,
            }
        }
        let mut rest = vec![0; length];
        self.0.read_exact(&mut rest).ok()?;
        Some(if status == 200 {
            Exchange::Acknowledged { closes }
        } else {
            Exchange::Refused { status, closes }
        })
    }
}

/// What the clients saw, all together.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    resets: AtomicUsize,
    told_to_close: AtomicUsize,
}

#[test]
fn a_stop_under_load_is_clean_for_every_client_that_honours_connection_close() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Time for clients and load balancers to notice.
    let mut server = Server::start(&data, &["--set", "server.drain-delay=1s"]);
    let bodies: Vec<String> = (0..RATE / BATCH * 4).map(body).collect();
    let seen = Seen::default();
    let (next, stopping) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (url, key) = (server.url.clone(), server.keys.write.clone());
    let began = Instant::now();
    let mut offered = 0.0;
    let (mut unready, mut ended) = (Duration::ZERO, Duration::ZERO);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            let _ = scope.spawn(|| {
                let mut connection = Connection::open(&url);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(body) = bodies.get(number) else { return };
                    let due = Duration::from_secs_f64((number * BATCH) as f64 / RATE as f64);
                    // not synchronisation: the rate of an open loop, whatever the server does
                    std::thread::sleep(due.saturating_sub(began.elapsed()));
                    let closes = match connection.post(&key, body) {
                        Exchange::Acknowledged { closes } => {
                            let _before = seen.acknowledged.fetch_add(1, Ordering::Relaxed);
                            closes
                        }
                        Exchange::Refused { closes, .. } => {
                            let _before = seen.refused.fetch_add(1, Ordering::Relaxed);
                            closes
                        }
                        Exchange::Reset => {
                            let _before = seen.resets.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                    };
                    if closes {
                        // It goes elsewhere, as it was told.
                        let _before = seen.told_to_close.fetch_add(1, Ordering::Relaxed);
                        assert!(stopping.load(Ordering::Relaxed), "told to close before the stop");
                        return;
                    }
                }
            });
        }
        until("the load is on its way", || {
            (began.elapsed() > Duration::from_millis(1_500)).then_some(())
        });
        offered = (seen.acknowledged.load(Ordering::Relaxed) * BATCH) as f64 / began.elapsed().as_secs_f64();
        stopping.store(true, Ordering::Relaxed);
        let asked = Instant::now();
        server.process.terminate();
        until("it is not ready", || match Client::new(&url).get("/readyz", "") {
            Ok(answer) if answer.status == 200 => None,
            _ => Some(()),
        });
        unready = asked.elapsed();
        let status = server.process.ended("the server stops when it is asked to");
        ended = asked.elapsed();
        assert_eq!(status.code(), Some(0), "{status}");
    });
    println!("F12: {offered:.0} events/s acknowledged; not ready after {unready:?}, ended after {ended:?}; {seen:?}");
    assert!(
        offered >= RATE as f64 * 0.9,
        "not measured: only {offered:.0} events/s of {RATE}"
    );
    assert!(unready <= Duration::from_millis(500), "{unready:?}");
    assert!(ended <= Duration::from_secs(10), "{ended:?}");
    assert_eq!(seen.resets.load(Ordering::Relaxed), 0, "{seen:?}");
    assert_eq!(seen.refused.load(Ordering::Relaxed), 0, "{seen:?}");
    assert_eq!(seen.told_to_close.load(Ordering::Relaxed), CONNECTIONS, "{seen:?}");

    let server = Server::start(&data, &[]);
    let acknowledged = u64::try_from(seen.acknowledged.into_inner() * BATCH).unwrap();
    let books = Books {
        accepted: acknowledged,
        applied: acknowledged,
        ..Books::default()
    };
    assert_eq!(server.books(), books, "everything was answered, folded and kept");
}

#[test]
fn a_second_process_is_refused_within_a_second_even_when_the_first_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    server.post(&[json!({"user_id": "ann", "signal": "page.view"})]);
    let _ = server.settled();
    for stopped in [false, true] {
        if stopped {
            server.process.signal("STOP");
        }
        let start = Instant::now();
        let second = run(&["up", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
        let took = start.elapsed();
        println!("F13: refused after {took:?}, first process stopped: {stopped}");
        assert_eq!(second.code, Some(1), "{second:?}");
        assert!(second.stderr.contains("another process holds"), "{second:?}");
        assert!(took <= Duration::from_secs(1), "{took:?}");
    }
    server.process.signal("CONT");
    // It is none the worse for either.
    server.post(&[json!({"user_id": "ann", "signal": "page.view"})]);
    assert_eq!(server.settled().applied, 2);
}
