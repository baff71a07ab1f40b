//! How fast the oracle folds events, printed: `cargo run --release -p vigie-audit --example speed`. It reads no archive and
//! compares nothing; `make load` measures whole audits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement fails by panicking, and prints"
)]

#[allow(dead_code, unreachable_pub, reason = "shared with the tests, which use the rest")]
#[path = "../tests/all/dice.rs"]
mod dice;

use dice::Dice;
use std::collections::BTreeMap;
use vigie_audit::recompute;
use vigie_event::{
    Body, Channel, Client, ConsentContext, Control, Currency, Event, EventId, Money, Offset, Partition, PersonId,
    PersonIds, Position, Record, Signal, Source, Timestamp, Workspace, partition_for,
};
use vigie_relance::PolicySet;
use vigie_scoring::Model;

const EVENTS: u64 = 1_000_000;
const CUSTOMERS: u64 = 20_000;
const PARTITIONS: u16 = 8;

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn main() {
    let mut dice = Dice(7);
    let mut next: BTreeMap<Partition, u64> = BTreeMap::new();
    let mut records = Vec::new();
    let mut add = |partition: Partition, body: Body| {
        let offset = next.entry(partition).or_default();
        let position = Position {
            partition,
            offset: Offset(*offset),
        };
        *offset += 1;
        records.push((position, Record::new(body)));
    };
    for partition in (0..PARTITIONS).map(Partition) {
        add(
            partition,
            Body::Control(Control::Activate {
                at: Timestamp(1_770_000_000_000),
                model: Model::shipped_text().into(),
                policies: PolicySet::shipped_text().into(),
            }),
        );
    }
    // Half a year; most events come from a tenth of the customers.
    for n in 0..EVENTS {
        let customer = if dice.percent(70) {
            dice.below(CUSTOMERS / 10)
        } else {
            dice.below(CUSTOMERS)
        };
        let person = PersonId::known(&format!("customer-{customer}")).unwrap();
        let signal = dice.pick(&[
            Signal::PageView,
            Signal::PageView,
            Signal::ProductView,
            Signal::CartAdd,
            Signal::Purchase,
        ]);
        let partition = partition_for(person.as_str(), PARTITIONS);
        let event = Event {
            workspace: Workspace::new("shop").unwrap(),
            id: EventId::new(&format!("event-{}", if dice.percent(1) { n / 2 } else { n })).unwrap(),
            person: PersonIds {
                user: Some(person),
                anonymous: None,
                previous: None,
            },
            signal,
            name: None,
            channel: Channel::Web,
            source: Source::Canonical,
            occurred_at: None,
            sent_at: None,
            received_at: Timestamp(1_770_000_000_000 + n as i64 * 15_552),
            money: (signal == Signal::Purchase).then(|| Money {
                minor: 1999,
                currency: Currency::parse("EUR").unwrap(),
            }),
            order: None,
            consent: ConsentContext::new(),
            client: Client {
                user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into()),
                ..Client::default()
            },
            fingerprint: n,
            payload: Box::default(),
        };
        add(partition, Body::Event(Box::new(event)));
    }
    let cut: BTreeMap<Partition, Offset> = next
        .iter()
        .map(|(partition, next)| (*partition, Offset(*next)))
        .collect();
    let start = std::time::Instant::now();
    let expected = recompute(PARTITIONS, &cut, records).unwrap();
    let took = start.elapsed();
    let flags: usize = expected.iter().map(|expected| expected.flags.len()).sum();
    let customers: usize = expected.iter().map(|expected| expected.customers.len()).sum();
    println!(
        "{EVENTS} events, {customers} customers, {flags} flags in {took:?}: {:.0} events a second",
        EVENTS as f64 / took.as_secs_f64()
    );
}
