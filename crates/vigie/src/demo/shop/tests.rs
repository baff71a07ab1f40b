//! What the simulated shop promises: the same seed gives the same events, every event is canonical, and the hidden fates
//! show in the rates.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::json::{Receipt, SCHEMA, read};
use vigie_event::{Event, Signal, Workspace};

fn now() -> Timestamp {
    Timestamp::parse("2026-11-21T09:30:00Z").unwrap()
}

fn settings(seed: u64, customers: u32) -> Settings {
    Settings {
        customers,
        ..Settings::new(seed, now())
    }
}

/// The events of the shop up to now.
fn history(settings: Settings) -> Vec<SimEvent> {
    let now = settings.now;
    Shop::new(settings)
        .take_while(|event| event.received_at < now)
        .collect()
}

fn parse(sim: &SimEvent) -> Event {
    let receipt = Receipt {
        workspace: Workspace::new("shop").unwrap(),
        received_at: sim.received_at,
        sent_at: None,
        user_agent: None,
        oldest: None,
    };
    read(&sim.json, &receipt).unwrap_or_else(|invalid| panic!("{invalid}: {}", sim.json))
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_seed_others() {
    assert_eq!(history(settings(1, 60)), history(settings(1, 60)));
    assert_ne!(history(settings(1, 60)), history(settings(2, 60)));
}

#[test]
fn every_event_is_canonical_and_arrives_in_order_after_it_happened() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let events = history(settings(3, 300));
    assert!(events.windows(2).all(|pair| pair[0].received_at <= pair[1].received_at));
    let mut signals = BTreeSet::new();
    for sim in &events {
        let event = parse(sim);
        assert_eq!(event.occurred_at, Some(sim.occurred_at));
        assert!(sim.occurred_at < sim.received_at);
        assert!(
            validator.is_valid(&serde_json::from_str(&sim.json).unwrap()),
            "{}",
            sim.json
        );
        assert_eq!(
            event.money.is_some(),
            event.signal == Signal::Purchase || event.signal == Signal::Refund
        );
        let _ = signals.insert(event.signal);
    }
    for signal in [
        Signal::PageView,
        Signal::Purchase,
        Signal::Refund,
        Signal::EmailOpen,
        Signal::EmailUnsubscribe,
        Signal::Identify,
        Signal::CallInbound,
        Signal::TicketOpened,
        Signal::ComplaintOpened,
        Signal::ComplaintResatisfied,
    ] {
        assert!(signals.contains(&signal), "{signal} never happened");
    }
}

#[test]
fn the_amount_of_events_is_that_of_a_shop() {
    let events = history(settings(5, 1_000));
    let mean = events.len() as f64 / 1_000.0;
    assert!((40.0..80.0).contains(&mean), "{mean} events per customer");
    let ids: BTreeSet<_> = events.iter().map(|sim| parse(sim).id).collect();
    let repeated = 1.0 - ids.len() as f64 / events.len() as f64;
    assert!((0.003..0.007).contains(&repeated), "{repeated} are repetitions");
    let late = events
        .iter()
        .filter(|sim| sim.received_at.ms_since(sim.occurred_at) > 3_000)
        .count();
    assert!(
        (0.01..0.04).contains(&(late as f64 / events.len() as f64)),
        "{late} are late"
    );
}

#[test]
fn a_repetition_repeats_the_content() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for sim in history(settings(6, 200)) {
        let id = parse(&sim).id.to_string();
        let first = seen.entry(id).or_insert_with(|| sim.json.clone());
        assert_eq!(*first, sim.json);
    }
}

/// Acts of the person per day before and after a day, counting the person's own acts only.
fn rates(events: &[Event], turn: Day, until: Day, since: Day) -> (f64, f64) {
    let own = events
        .iter()
        .filter(|event| event.signal.is_engagement() && !is_machine(event));
    let (before, after): (Vec<_>, Vec<_>) = own.partition(|event| event.occurred_at.unwrap().day() < turn);
    let rate = |count: usize, days: i32| count as f64 / f64::from(days.max(1));
    (
        rate(before.len(), turn.days_since(since)),
        rate(after.len(), until.days_since(turn)),
    )
}

fn is_machine(event: &Event) -> bool {
    event.client.user_agent.as_deref() == Some("Mozilla/5.0")
}

#[test]
fn fates_show_in_the_rates() {
    let settings = settings(11, 1_500);
    let shop = Shop::new(settings.clone());
    let profiles: Vec<_> = shop.profiles().cloned().collect();
    let mut of_user: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for sim in history(settings) {
        let event = parse(&sim);
        let key = event.person.key().unwrap().as_str().to_owned();
        of_user.entry(key).or_default().push(event);
    }
    let none = Vec::new();
    let (mut before, mut fading, mut gone, mut loyal) = (0.0, 0.0, 0.0, 0.0);
    let until = now().day();
    for profile in &profiles {
        let Some(user) = &profile.user_id else { continue };
        let events = of_user.get(user).unwrap_or(&none);
        match profile.fate {
            // Two half-lives of four weeks and more have passed: at most a third of the rate is left on average.
            Fate::Fading { from, half_life_days } if until.days_since(from) > 2 * half_life_days => {
                let (early, late) = rates(events, from, until, profile.since);
                (before, fading) = (before + early, fading + late);
            }
            Fate::Leaver { on } if on < until => {
                let (_, late) = rates(events, Day(on.0 + 6), until, profile.since);
                gone += late;
            }
            Fate::Loyal if until.days_since(profile.since) > 60 => {
                let (early, late) = rates(events, Day(until.0 - 30), until, profile.since);
                loyal += late - early;
            }
            _ => {}
        }
    }
    assert!(fading < before * 0.6, "fading customers went from {before} to {fading}");
    assert!(gone < before * 0.01, "leavers still show {gone}");
    assert!(loyal.abs() < before * 0.5, "loyal customers changed by {loyal}");
}

#[test]
fn the_stream_goes_on_after_now_and_new_people_arrive() {
    let settings = settings(8, 200);
    let end = now().plus_ms(60 * DAY_MS);
    let mut shop = Shop::new(settings);
    let before = shop.profiles().count();
    let last = shop
        .by_ref()
        .take_while(|event| event.received_at < end)
        .last()
        .unwrap();
    assert!(last.received_at > end.plus_ms(-DAY_MS));
    assert!(shop.profiles().count() > before + 10);
}
