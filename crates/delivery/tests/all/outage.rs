//! Receivers that are down for days, by a clock that plays 76 hours in a second: the schedule, nothing lost, no new id, order per
//! customer, and bounded memory (faults F60, F61, F64).

use crate::support::*;
use std::collections::{BTreeMap, BTreeSet};
use vigie_delivery::{Answer, Failure, Redelivery};
use vigie_event::{FlagId, Timestamp};

/// Delays of the specification in seconds.
const SPEC: [i64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// Flags of so many customers, one every ten minutes for 80 hours.
async fn raise_for_days(stage: &Stage, customers: u64) -> BTreeSet<FlagId> {
    let count = 480;
    let raised = (1..=count).map(|number| {
        let customer = format!("C{}", number * 7 % customers);
        flag(number, &customer, START.plus_ms(number as i64 * 600_000))
    });
    stage.flags.raise(raised).await;
    (1..=count).map(id).collect()
}

fn in_order(arrived: &[(FlagId, String)]) -> bool {
    let mut last: BTreeMap<&str, FlagId> = BTreeMap::new();
    arrived
        .iter()
        .all(|(id, customer)| last.insert(customer, *id).is_none_or(|before| before < *id))
}

#[tokio::test]
async fn attempts_keep_the_schedule_and_then_the_flag_is_parked_and_never_lost() {
    let stage = Stage::new(|_, _| BROKEN).await;
    stage.flags.raise([flag(1, "C1", START)]).await;
    let lane = stage.lane();
    stage.play(&lane, START.plus_ms(120 * HOUR)).await;
    // Until the lane fails, the attempts are those of the schedule; afterwards a probe comes whenever half an hour was quiet.
    let attempts = stage.receiver.attempts(1);
    let gaps: Vec<i64> = attempts.windows(2).map(|pair| pair[1].ms_since(pair[0])).collect();
    let (first, probed) = gaps.split_at(4);
    for (gap, seconds) in first.iter().zip(SPEC) {
        let share = *gap as f64 / (seconds * 1_000) as f64;
        assert!((0.8..=1.21).contains(&share), "{seconds} s became {share} of it");
    }
    assert!(probed.iter().all(|gap| *gap <= 1_800_000), "{gaps:?}");
    let whole = attempts[attempts.len() - 1].ms_since(START) as f64 / (76.0 * HOUR as f64);
    assert!((0.8..=1.21).contains(&whole), "parked after {whole} of the schedule");
    let status = lane.handle().status();
    assert_eq!((status.parked, status.open, status.counts.parked), (1, 0, 1));
    assert_eq!(status.first_parked[0].id, id(1).to_string());
    assert_eq!(status.first_parked[0].attempts, 10, "probes are none");
    assert_eq!(status.last_failure.as_deref(), Some("status 500"));
    // It is still parked after a restart, and goes out under its own id when asked for.
    drop(lane);
    let lane = stage.lane();
    stage.receiver.become_(|_, _| OK);
    stage.settle(&lane).await;
    assert_eq!(stage.receiver.arrived(), []);
    assert_eq!(
        lane.handle()
            .redeliver(&Redelivery::Parked, stage.hand.now())
            .await
            .unwrap(),
        1
    );
    stage.settle(&lane).await;
    assert_eq!(stage.receiver.arrived(), [(id(1), "C1".to_owned())]);
    assert_eq!(lane.handle().status().parked, 0);
}

#[tokio::test]
async fn after_76_hours_of_outage_receivers_have_exactly_what_was_sent() {
    let back = START.plus_ms(76 * HOUR);
    let stage = Stage::new(move |_, now| if now < back { BROKEN } else { OK }).await;
    let sent = raise_for_days(&stage, 40).await;
    let lane = stage.lane();
    stage.play(&lane, START.plus_ms(90 * HOUR)).await;
    let before = stage.receiver.ids();
    assert!(before.is_subset(&sent));
    // What is not there is parked, each with all of its attempts; nothing is anywhere else.
    let status = lane.handle().status();
    assert_eq!(before.len() + status.parked, sent.len());
    assert!(status.parked >= 5 && status.open == 0, "{status:?}");
    let first = lane
        .handle()
        .redeliver(&Redelivery::Range(1, 3), stage.hand.now())
        .await
        .unwrap();
    assert_eq!(first, 3);
    let parked = status.first_parked.iter().map(|flag| FlagId::parse(&flag.id).unwrap());
    let by_id = Redelivery::Ids(parked.collect());
    let _opened = lane.handle().redeliver(&by_id, stage.hand.now()).await.unwrap();
    stage.settle(&lane).await;
    assert_eq!(stage.receiver.ids(), sent, "the sets are equal");
    assert_eq!(lane.handle().status().parked, 0);
}

#[tokio::test]
async fn after_an_outage_of_a_day_everything_arrives_in_order_soon_and_by_itself() {
    let back = START.plus_ms(20 * HOUR);
    let down = Answer::Failed(Failure::Timeout);
    let stage = Stage::new(move |_, now| if now < back { down } else { OK }).await;
    let sent = raise_for_days(&stage, 400).await;
    let lane = stage.lane();
    // A probe sees it within minutes; then everything goes out at 50 a second.
    stage.play(&lane, back.plus_ms(11 * 60_000)).await;
    let arrived = stage.receiver.arrived();
    assert_eq!(arrived.len(), sent.len());
    assert!(in_order(&arrived), "order per customer");
    let calls = stage.receiver.calls.lock().unwrap();
    let after: Vec<Timestamp> = calls.iter().map(|(at, ..)| *at).filter(|at| *at >= back).collect();
    for (index, at) in after.iter().enumerate() {
        let within = after[index..]
            .iter()
            .take_while(|later| later.ms_since(*at) < 1_000)
            .count();
        assert!(within <= 54, "{within} requests within a second of {at}");
    }
}

#[tokio::test]
async fn a_hundred_thousand_flags_wait_in_the_store_and_not_in_memory() {
    let stage = Stage::new(|_, _| Answer::Failed(Failure::Connection)).await;
    stage
        .flags
        .raise((1..=100_000).map(|number| flag(number, &format!("C{number}"), START)))
        .await;
    let lane = stage.lane();
    let mut most = 0;
    for hours in 1..=100 {
        stage.play(&lane, START.plus_ms(hours * HOUR)).await;
        most = most.max(lane.handle().status().open);
    }
    // One probe every five minutes for as long as a flag is tried, and the first intake.
    assert!(most <= 100 + 12 * 92, "{most} open flags");
    let status = lane.handle().status();
    assert_eq!(status.state, "failing");
    assert_eq!(
        status.read as usize,
        status.open + status.parked,
        "each is open or parked"
    );
    let journal = stage.dir.path().join("crm").join("shop.journal");
    assert!(std::fs::metadata(journal).unwrap().len() < 4 << 20);
}

/// Flags that wait alone are not left to the end of their schedule when the receiver is back, and probing them costs them none
/// of their attempts.
#[tokio::test]
async fn what_waits_alone_goes_out_soon_after_the_receiver_is_back() {
    for hours in [20, 40, 55] {
        let back = START.plus_ms(hours * HOUR);
        let stage = Stage::new(move |_, now| if now < back { BROKEN } else { OK }).await;
        let raised = (1..=30).map(|number| flag(number, &format!("C{}", number % 7), START));
        stage.flags.raise(raised).await;
        let lane = stage.lane();
        stage.play(&lane, back.plus_ms(31 * 60_000)).await;
        assert_eq!(stage.receiver.ids(), (1..=30).map(id).collect(), "{hours}");
        assert!(in_order(&stage.receiver.arrived()), "{hours}");
        assert_eq!(lane.handle().status().parked, 0, "{hours}");
    }
}

#[tokio::test]
async fn a_flapping_receiver_gets_every_id_and_no_other() {
    for seed in 0..8u64 {
        // Refused, accepted, or accepted too late for us to hear of it.
        let stored = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        let kept = std::sync::Arc::clone(&stored);
        let stage = Stage::new(move |parcel, now| {
            let draw = vigie_event::fingerprint([&parcel.id.0[..], &now.0.to_le_bytes(), &seed.to_le_bytes()]) % 10;
            if draw < 7 {
                let _ = kept.lock().unwrap().insert(parcel.id);
            }
            match draw {
                0..=3 => OK,
                4..=6 => Answer::Failed(Failure::Timeout),
                _ => BROKEN,
            }
        })
        .await;
        let sent = raise_for_days(&stage, 40).await;
        let lane = stage.lane();
        stage.play(&lane, START.plus_ms(400 * HOUR)).await;
        // Parked flags go out later, when somebody asks for them: out of their order.
        assert!(in_order(&stage.receiver.arrived()), "seed {seed}");
        let _opened = lane
            .handle()
            .redeliver(&Redelivery::Parked, stage.hand.now())
            .await
            .unwrap();
        stage.play(&lane, START.plus_ms(900 * HOUR)).await;
        let parked = lane.handle().status().parked;
        assert_eq!(parked, 0, "seed {seed}");
        assert_eq!(*stored.lock().unwrap(), sent, "seed {seed}");
    }
}

/// F70: the whole box starts, and neither the name server nor the receiver is there yet, in any order.
#[tokio::test]
async fn receivers_that_are_not_there_at_the_start_are_waited_for() {
    for first in [Failure::Name, Failure::Connection, Failure::Tls] {
        let (named, up) = (START.plus_ms(HOUR), START.plus_ms(2 * HOUR));
        let stage = Stage::new(move |_, now| match now {
            now if now < named => Answer::Failed(first),
            now if now < up => Answer::Failed(Failure::Connection),
            _ => OK,
        })
        .await;
        let raised = (1..=50).map(|number| flag(number, &format!("C{}", number % 9), START));
        stage.flags.raise(raised).await;
        let lane = stage.lane();
        stage.play(&lane, up.plus_ms(-1)).await;
        assert_eq!(lane.handle().status().state, "failing");
        assert!(stage.receiver.ids().is_empty());
        // The next flag is tried within minutes, finds the receiver there, and what waits need not wait any longer. Nobody
        // restarts anything.
        stage.flags.raise([flag(51, "C9", up)]).await;
        stage.play(&lane, up.plus_ms(11 * 60_000)).await;
        assert_eq!(stage.receiver.ids(), (1..=51).map(id).collect());
        assert!(in_order(&stage.receiver.arrived()), "{first:?}");
    }
}
