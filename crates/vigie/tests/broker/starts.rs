//! F70: whatever is started first waits for the rest, says for what, and is ready soon after the last part is there.

use crate::site::{Site, Traffic};
use crate::support::{Client, Server, Starting, until};
use std::time::{Duration, Instant};

const EVERYTHING: &str = "collector,worker,deliverer,api,archivist";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Broker,
    Redis,
    Vigie,
}

const ORDERS: [[Part; 3]; 6] = [
    [Part::Broker, Part::Redis, Part::Vigie],
    [Part::Broker, Part::Vigie, Part::Redis],
    [Part::Redis, Part::Broker, Part::Vigie],
    [Part::Redis, Part::Vigie, Part::Broker],
    [Part::Vigie, Part::Broker, Part::Redis],
    [Part::Vigie, Part::Redis, Part::Broker],
];

impl Site {
    /// A process that waits, asked where its log says that it listens.
    fn waiting(&self, name: &str, seen: usize) -> Client {
        let address = until(&format!("{name} says where it waits"), || {
            let log = self.log(name);
            let line = log.get(seen..)?.lines().find(|line| line.contains("waiting for "))?;
            let address = line.split("listen=").nth(1)?.trim_start_matches('"');
            Some(address.split(['"', ' ']).next()?.to_owned())
        });
        Client::new(&format!("http://{address}"))
    }
}

/// Not ready, for this reason, and nothing that is sent is taken.
fn says(waiting: &Client, reason: &str) {
    until(&format!("the reason is {reason}"), || {
        let answer = waiting.get("/readyz", "").unwrap();
        assert_eq!(answer.status, 503, "{answer:?}");
        answer.body.contains(reason).then_some(())
    });
    assert_eq!(waiting.get("/healthz", "").unwrap().status, 200, "it lives");
    let refused = waiting.post("/v1/events", "write-key-of-the-test", "[]").unwrap();
    assert_eq!((refused.status, refused.retry_after), (503, Some(1)), "{refused:?}");
}

fn ready(starting: Starting) -> Server {
    let server = starting.up();
    until("it is ready", || {
        (server.client.get("/readyz", "").ok()?.status == 200).then_some(())
    });
    server
}

/// Ends it as an operator does, so that it leaves its group.
fn stop(mut server: Server) {
    server.process.terminate();
    assert!(server.process.ended("a process that was asked to stop").success());
}

#[test]
fn f70_a_process_waits_for_broker_and_redis_in_every_order() {
    let mut site = Site::build().ready();
    // The first start of all makes the store: it needs both.
    let server = site.start("all", EVERYTHING);
    let mut traffic = Traffic::to(&server);
    traffic.send(300);
    stop(server);
    let mut slowest = Duration::ZERO;
    for order in ORDERS {
        site.broker.down();
        site.redis[0].kill();
        let seen = site.log("all").len();
        let mut starting = None;
        for (place, part) in order.into_iter().enumerate() {
            match part {
                Part::Broker => site.broker.up(),
                Part::Redis => site.redis[0].restart(),
                Part::Vigie => starting = Some(site.process("all", EVERYTHING, |_| {})),
            }
            if starting.is_some() && place < 2 {
                let waiting = site.waiting("all", seen);
                let there = |part| order[..=place].contains(&part);
                says(
                    &waiting,
                    if there(Part::Broker) {
                        "waiting for the store"
                    } else {
                        "waiting for the log"
                    },
                );
            }
        }
        let last = Instant::now();
        let server = ready(starting.unwrap());
        slowest = slowest.max(last.elapsed());
        traffic = traffic.at(&server);
        traffic.send(50);
        let books = site.verdict(&server, &traffic);
        println!("{order:?}: {} events", books.applied);
        stop(server);
    }
    println!("F70: ready at most {slowest:.1?} after the last part, in 6 orders");
}

#[test]
fn f70_every_role_waits() {
    let mut site = Site::build().ready();
    stop(site.start("first", EVERYTHING));
    site.broker.down();
    site.redis[0].kill();
    let roles = ["collector", "worker", "deliverer", "api,archivist"];
    let starting: Vec<Starting> = roles.iter().map(|role| site.process(role, role, |_| {})).collect();
    for role in roles {
        says(&site.waiting(role, 0), "waiting for the log");
    }
    site.broker.up();
    // Events are safe without a store: a collector of a log that is in use needs none.
    for role in &roles[1..] {
        says(&site.waiting(role, 0), "waiting for the store");
    }
    site.redis[0].restart();
    let servers: Vec<Server> = starting.into_iter().map(ready).collect();
    let mut traffic = Traffic::to(&servers[0]);
    traffic.send(200);
    let _books = site.verdict(&servers[3], &traffic);
}
