//! The pull queue: ranks, leases over crashes and power loss, the gate at the claim, outcomes that replays see.

use crate::support::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vigie_delivery::{ClaimRequest, Outcome, Queue, QueueError, Reason, Report, Reports, Verdict};
use vigie_event::{Channel, Event, FlagId, Signal};
use vigie_store::MemoryStore;

/// A log that keeps what it is given, or refuses.
#[derive(Clone, Default)]
pub(crate) struct Kept(
    pub(crate) Arc<Mutex<Vec<Event>>>,
    pub(crate) Arc<std::sync::atomic::AtomicBool>,
);

impl Reports for Kept {
    async fn append(&self, event: Event) -> Result<(), String> {
        if self.1.load(std::sync::atomic::Ordering::SeqCst) {
            return Err("the disk is full".to_owned());
        }
        self.0.lock().unwrap().push(event);
        Ok(())
    }
}

pub(crate) fn queue(stage: &Stage, log: &Kept) -> Queue<MemoryStore, Porter, Kept> {
    let (store, gate) = (Arc::clone(&stage.flags.store), Arc::clone(&stage.gate));
    let age = Duration::from_hours(14 * 24);
    Queue::new(
        stage.dir.path().join("queue"),
        store,
        gate,
        log.clone(),
        age,
        stage.hand.clock(),
    )
}

pub(crate) fn want(max: usize) -> ClaimRequest {
    ClaimRequest {
        max,
        channel: None,
        policy: None,
        lease: Duration::from_mins(15),
        agent: "ada".to_owned(),
    }
}

fn report(number: u64, outcome: Outcome, lease: Option<u32>) -> Report {
    Report {
        id: id(number),
        outcome,
        lease,
        channel: Some(Channel::Phone),
        agent: "ada".to_owned(),
        note: "will \"think\" about it".to_owned(),
    }
}

fn ids(claimed: &[vigie_delivery::Claimed]) -> Vec<u64> {
    let number = |id: &str| u64::from_str_radix(&id[16..], 16).unwrap();
    claimed
        .iter()
        .map(|claimed| number(claimed.relance["id"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn the_most_at_stake_comes_first_and_then_the_highest_score() {
    let stage = Stage::new(|_, _| OK).await;
    let (mut rich, mut poor, mut sure, mut held) = (
        flag(1, "C1", START),
        flag(2, "C2", START),
        flag(3, "C3", START),
        flag(4, "C4", START),
    );
    rich["plan"] = serde_json::json!({"at_stake_minor": 90_000, "currency": "EUR"});
    poor["plan"] = serde_json::json!({"at_stake_minor": 100, "currency": "EUR"});
    sure["score"]["value"] = 0.99.into();
    held["kind"] = "held_out".into();
    stage.flags.raise([flag(5, "C5", START), poor, held, sure, rich]).await;
    let queue = queue(&stage, &Kept::default());
    assert_eq!(ids(&queue.claim(&shop(), &want(100)).await.unwrap()), [1, 2, 3, 5]);
    assert_eq!(ids(&queue.claim(&shop(), &want(100)).await.unwrap()), [] as [u64; 0]);
}

#[tokio::test]
async fn channels_and_policies_are_filters() {
    let stage = Stage::new(|_, _| OK).await;
    let (mut phone, mut mail, mut other) = (flag(1, "C1", START), flag(2, "C2", START), flag(3, "C3", START));
    phone["plan"] = serde_json::json!({"channel": "phone"});
    mail["plan"] = serde_json::json!({"channel": "email"});
    other["policy"] = "other".into();
    stage.flags.raise([phone, mail, other]).await;
    let queue = queue(&stage, &Kept::default());
    let by = |channel: Option<&str>, policy: Option<&str>| ClaimRequest {
        channel: channel.map(str::to_owned),
        policy: policy.map(str::to_owned),
        ..want(10)
    };
    assert_eq!(
        ids(&queue
            .claim(&shop(), &by(Some("phone"), Some("win-back")))
            .await
            .unwrap()),
        [1]
    );
    assert_eq!(ids(&queue.claim(&shop(), &by(Some("phone"), None)).await.unwrap()), [3]);
    assert_eq!(ids(&queue.claim(&shop(), &by(None, None)).await.unwrap()), [2]);
}

/// Claims, crashes (with and without the loss of what was not synced) and outcomes as dice fall: within its lease a flag,
/// and a customer, is one agent's alone.
#[tokio::test]
async fn no_crash_gives_one_flag_to_two_agents_within_a_lease() {
    for seed in 0..5u64 {
        let stage = Stage::new(|_, _| OK).await;
        stage
            .flags
            .raise((1..=40).map(|number| flag(number, &format!("C{}", number % 25), START)))
            .await;
        let log = Kept::default();
        let mut held: BTreeMap<FlagId, (i64, String, u32)> = BTreeMap::new();
        let (mut done, mut claims) = (BTreeSet::new(), 0);
        let mut now_queue = Some(queue(&stage, &log));
        for step in 0..120u64 {
            let dice = vigie_event::fingerprint([&seed.to_le_bytes()[..], &step.to_le_bytes()]);
            let now = stage.hand.now();
            let current = now_queue.take().unwrap();
            match dice % 6 {
                0..=2 => {
                    for claimed in current
                        .claim(&shop(), &want(1 + (dice / 7 % 4) as usize))
                        .await
                        .unwrap()
                    {
                        let text = |field: &str| claimed.relance[field].as_str().unwrap().to_owned();
                        let (flag, customer) = (FlagId::parse(&text("id")).unwrap(), text("customer"));
                        assert!(!done.contains(&flag), "seed {seed}: {flag} had its outcome");
                        let running = held
                            .iter()
                            .find(|(id, (until, of, _))| (**id == flag || *of == customer) && *until > now.0);
                        assert!(
                            running.is_none(),
                            "seed {seed}, step {step}: {flag} of {customer} is somebody's"
                        );
                        let until = vigie_event::Timestamp::parse(&claimed.until).unwrap();
                        drop(held.insert(flag, (until.0, customer, claimed.lease)));
                        claims += 1;
                    }
                }
                3 => {
                    if let Some((flag, (until, _, lease))) = held.iter().nth(dice as usize / 11 % held.len().max(1)) {
                        let number = u64::from_str_radix(&flag.to_string()[16..], 16).unwrap();
                        let reported = current
                            .report(&shop(), &report(number, Outcome::Reached, Some(*lease)))
                            .await;
                        if reported.is_ok() {
                            let flag = *flag;
                            let _ = done.insert(flag);
                            drop(held.remove(&flag));
                        } else {
                            assert!(*until <= now.0, "seed {seed}: {reported:?}");
                        }
                    }
                }
                4 => stage.hand.set(now.plus_ms((dice / 13 % 1_200_000) as i64)),
                _ => {
                    drop(current);
                    now_queue = Some(queue(&stage, &log));
                    continue;
                }
            }
            now_queue = Some(current);
        }
        assert!(
            claims > 20 && done.len() > 3,
            "seed {seed}: {claims} claims, {} done",
            done.len()
        );
    }
}

#[tokio::test]
async fn a_lease_ends_and_a_late_report_does_not_end_the_next_one() {
    let stage = Stage::new(|_, _| OK).await;
    stage.flags.raise([flag(1, "C1", START)]).await;
    let log = Kept::default();
    let queue = queue(&stage, &log);
    let first = queue.claim(&shop(), &want(1)).await.unwrap();
    stage.hand.set(START.plus_ms(15 * 60_000 + 1));
    let second = queue.claim(&shop(), &want(1)).await.unwrap();
    assert_eq!((first[0].lease, second[0].lease), (1, 2));
    let late = queue.report(&shop(), &report(1, Outcome::Reached, Some(1))).await;
    assert!(matches!(late, Err(QueueError::LeaseLost)));
    let told = log.0.lock().unwrap().clone();
    assert!(
        told.iter().all(|event| event.signal == Signal::RelanceClaimed),
        "the claims, and no outcome"
    );
    queue
        .report(&shop(), &report(1, Outcome::Reached, Some(2)))
        .await
        .unwrap();
    stage.hand.set(START.plus_ms(40 * HOUR));
    assert_eq!(queue.claim(&shop(), &want(1)).await.unwrap(), []);
}

#[tokio::test]
async fn an_outcome_is_an_event_first_and_one_event_however_often_it_is_sent() {
    let stage = Stage::new(|_, _| OK).await;
    stage
        .flags
        .raise([flag(1, "C1", START), flag(2, "anonymous:d9", START)])
        .await;
    let log = Kept::default();
    let queue = queue(&stage, &log);
    let _claimed = queue.claim(&shop(), &want(2)).await.unwrap();
    log.1.store(true, std::sync::atomic::Ordering::SeqCst);
    let refused = queue.report(&shop(), &report(1, Outcome::Refused, Some(1))).await;
    assert!(matches!(refused, Err(QueueError::Log(_))));
    log.1.store(false, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..3 {
        queue
            .report(&shop(), &report(1, Outcome::Refused, Some(1)))
            .await
            .unwrap();
    }
    queue
        .report(&shop(), &report(2, Outcome::Contacted, Some(1)))
        .await
        .unwrap();
    let events = log.0.lock().unwrap().clone();
    let distinct: BTreeSet<_> = events.iter().map(|event| event.id.clone()).collect();
    // Two claims; three times a contact and its answer; a contact.
    assert_eq!((events.len(), distinct.len()), (9, 5));
    let told = |event: &Event| {
        (
            event.signal,
            event.name.clone().unwrap_or_default().to_string(),
            event.channel,
        )
    };
    assert_eq!(told(&events[0]).0, Signal::RelanceClaimed);
    let event = &events[2];
    assert_eq!(
        told(event),
        (Signal::RelanceContacted, "refused".to_owned(), Channel::Phone)
    );
    assert_eq!(told(&events[3]).0, Signal::ContactAnswered);
    // The course of a flag is told by its id.
    assert!(
        events
            .iter()
            .all(|event| event.order.as_deref().and_then(FlagId::parse).is_some())
    );
    assert_eq!(event.person.user.as_ref().unwrap().as_str(), "C1");
    let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
    assert_eq!(payload["flag_id"], id(1).to_string());
    assert_eq!(payload["properties"]["comment"], "will \"think\" about it");
    assert_eq!(events[8].person.anonymous.as_ref().unwrap().as_str(), "d9");
    assert!(matches!(
        queue.report(&shop(), &report(9, Outcome::Lost, None)).await,
        Err(QueueError::Unknown)
    ));
}

#[tokio::test]
async fn nobody_answered_is_for_later_and_the_gate_has_the_last_word() {
    let stage = Stage::new(|_, _| OK).await;
    stage
        .flags
        .raise([flag(1, "C1", START), flag(2, "C1", START), flag(3, "C3", START)])
        .await;
    let queue = queue(&stage, &Kept::default());
    stage.gate.say("C3", Ok(Verdict::Wait(START.plus_ms(HOUR))));
    assert_eq!(
        queue.claim(&shop(), &want(9)).await.unwrap().len(),
        1,
        "one flag of one customer"
    );
    queue
        .report(&shop(), &report(1, Outcome::NoAnswer, Some(1)))
        .await
        .unwrap();
    stage.hand.set(START.plus_ms(HOUR));
    stage.gate.say("C3", Ok(Verdict::Drop(Reason::Objected)));
    assert_eq!(queue.claim(&shop(), &want(9)).await.unwrap(), []);
    stage.gate.say("C3", Ok(Verdict::Send));
    stage.hand.set(START.plus_ms(4 * HOUR + 1));
    assert_eq!(
        queue.claim(&shop(), &want(9)).await.unwrap().len(),
        1,
        "C1 again; what was dropped stays dropped"
    );
    stage.hand.set(START.plus_ms(15 * 24 * HOUR));
    assert_eq!(queue.claim(&shop(), &want(9)).await.unwrap(), [], "too old");
}

#[tokio::test]
async fn a_days_capacity_goes_to_what_is_most_at_stake_and_survives_a_restart() {
    let stage = Stage::new(|_, _| OK).await;
    let raised = (1..=5).map(|number| {
        let mut flag = flag(number, &format!("C{number}"), START);
        flag["plan"] = serde_json::json!({"channel": "phone", "daily_capacity": 2, "at_stake_minor": number * 100});
        flag
    });
    stage.flags.raise(raised).await;
    let log = Kept::default();
    assert_eq!(ids(&queue(&stage, &log).claim(&shop(), &want(1)).await.unwrap()), [5]);
    assert_eq!(ids(&queue(&stage, &log).claim(&shop(), &want(9)).await.unwrap()), [4]);
    assert_eq!(queue(&stage, &log).claim(&shop(), &want(9)).await.unwrap(), []);
    // A flag that comes back uses no new capacity; the next day has its own.
    let again = queue(&stage, &log);
    again
        .report(&shop(), &report(5, Outcome::NoAnswer, Some(1)))
        .await
        .unwrap();
    stage.hand.set(START.plus_ms(4 * HOUR + 1));
    let same_day = START.day() == stage.hand.now().day();
    let second = ids(&again.claim(&shop(), &want(9)).await.unwrap());
    assert_eq!(second, if same_day { vec![5, 4] } else { vec![5, 4, 3, 2] });
    stage.hand.set(START.plus_ms(24 * HOUR));
    assert_eq!(
        ids(&again.claim(&shop(), &want(9)).await.unwrap()).len(),
        if same_day { 4 } else { 5 }
    );
}
