//! One lane at a time: the gate at the moment of sending (F63), crashes at every point (F62), isolation, halts, pauses, filters,
//! redelivery and a store that was rebuilt.

use crate::support::*;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use vigie_delivery::message::Parcel;
use vigie_delivery::{Answer, Exit, GateError, Reason, Redelivery, Verdict};
use vigie_event::FlagId;

#[tokio::test]
async fn held_out_flags_never_leave() {
    let stage = Stage::new(|_, _| OK).await;
    let mut held = flag(1, "C1", START);
    held["kind"] = "held_out".into();
    stage.flags.raise([held, flag(2, "C2", START)]).await;
    let lane = stage.lane();
    stage.settle(&lane).await;
    // Not even on request.
    let opened = lane
        .handle()
        .redeliver(&Redelivery::Range(1, 2), stage.hand.now())
        .await
        .unwrap();
    assert_eq!(opened, 1);
    stage.settle(&lane).await;
    assert_eq!(stage.receiver.ids(), BTreeSet::from([id(2)]));
    assert_eq!(lane.handle().status().counts.dropped.get("held_out"), Some(&1));
}

#[tokio::test]
async fn the_gate_is_asked_again_at_every_attempt() {
    let back = START.plus_ms(HOUR);
    let stage = Stage::new(move |_, now| if now < back { BROKEN } else { OK }).await;
    let names = ["sent", "bought", "objected", "erased", "waits", "unknown"];
    stage
        .flags
        .raise(names.iter().zip(1..).map(|(name, number)| flag(number, name, START)))
        .await;
    let lane = stage.lane();
    stage.play(&lane, START.plus_ms(HOUR / 2)).await;
    // During the outage their customers do something.
    stage.gate.say("bought", Ok(Verdict::Drop(Reason::Bought)));
    stage.gate.say("objected", Ok(Verdict::Drop(Reason::Objected)));
    stage.gate.say("erased", Ok(Verdict::Drop(Reason::Erased)));
    stage.gate.say("waits", Ok(Verdict::Wait(START.plus_ms(10 * HOUR))));
    stage
        .gate
        .say("unknown", Err(GateError("the store is down".to_owned())));
    stage.play(&lane, START.plus_ms(9 * HOUR)).await;
    assert_eq!(stage.receiver.ids(), BTreeSet::from([id(1)]));
    let status = lane.handle().status();
    assert_eq!(status.open, 2, "one waits, one is asked about again");
    for reason in [Reason::Bought, Reason::Objected, Reason::Erased] {
        assert_eq!(status.counts.dropped.get(reason.label()), Some(&1), "{reason:?}");
    }
    stage.gate.say("waits", Ok(Verdict::Send));
    stage.gate.say("unknown", Ok(Verdict::Send));
    stage.play(&lane, START.plus_ms(11 * HOUR)).await;
    assert_eq!(stage.receiver.ids(), BTreeSet::from([id(1), id(5), id(6)]));
    // Nothing was sent to anybody after the gate had said no.
    for number in [2, 3, 4] {
        assert!(
            stage
                .receiver
                .attempts(number)
                .iter()
                .all(|at| *at <= START.plus_ms(HOUR / 2))
        );
    }
}

/// Answers until the `fatal`-th call, which arrives and never comes back.
#[derive(Clone)]
struct Dying {
    receiver: Receiver,
    left: Arc<AtomicUsize>,
}

impl Exit for Dying {
    async fn send(&self, parcel: &Parcel) -> Answer {
        let answer = self.receiver.send(parcel).await;
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::future::pending::<()>().await;
        }
        answer
    }
}

#[tokio::test]
async fn a_crash_at_any_send_and_any_byte_of_the_journal_loses_nothing_and_makes_no_new_id() {
    let sent: BTreeSet<FlagId> = (1..=120).map(id).collect();
    for point in 1..=200usize {
        let stage = Stage::new(move |parcel, now| {
            let draw = vigie_event::fingerprint([&parcel.id.0[..], &now.0.to_le_bytes(), &point.to_le_bytes()]);
            if draw % 3 == 0 { BROKEN } else { OK }
        })
        .await;
        stage
            .flags
            .raise((1..=120).map(|number| flag(number, &format!("C{}", number % 9), START)))
            .await;
        let dying = Dying {
            receiver: stage.receiver.clone(),
            left: Arc::new(AtomicUsize::new(point)),
        };
        let lane = stage.lane_to(destination("crm", "https://example.com/", ""), dying);
        {
            let mut life = pin!(stage.play(&lane, START.plus_ms(40 * HOUR)));
            let ended = poll_fn(|context| Poll::Ready(life.as_mut().poll(context).is_ready())).await;
            let calls = stage.receiver.calls.lock().unwrap().len();
            assert!(ended || calls >= point, "point {point}: {calls} calls");
        }
        drop(lane);
        // Power loss takes the end of the journal, which is not synced.
        let journal = stage.dir.path().join("crm").join("shop.journal");
        let bytes = std::fs::read(&journal).unwrap();
        let kept = bytes.len() - (point * 37) % (bytes.len() + 1);
        std::fs::write(&journal, &bytes[..kept]).unwrap();
        let lane = stage.lane();
        stage.receiver.become_(|_, _| OK);
        stage.play(&lane, stage.hand.now().plus_ms(30 * HOUR)).await;
        assert_eq!(stage.receiver.ids(), sent, "point {point}");
        let status = lane.handle().status();
        assert_eq!((status.open, status.parked), (0, 0), "point {point}");
    }
}

#[tokio::test]
async fn a_dead_destination_delays_no_other() {
    let stage = Stage::new(|_, _| OK).await;
    let dead = Receiver::new(&stage.hand, |_, _| BROKEN);
    stage
        .flags
        .raise((1..=300).map(|number| flag(number, &format!("C{number}"), START)))
        .await;
    let (well, ill) = (
        stage.lane(),
        stage.lane_to(destination("ill", "https://example.com/", ""), dead.clone()),
    );
    stage.settle(&ill).await;
    let now = stage.hand.now();
    stage.play(&well, now.plus_ms(7_000)).await;
    assert_eq!(stage.receiver.ids().len(), 300, "300 flags at 50 a second");
    assert_eq!(dead.ids().len(), 0);
    assert_eq!(
        (well.handle().status().state, ill.handle().status().state),
        ("ok", "failing")
    );
}

#[tokio::test]
async fn gone_halts_until_somebody_resumes_even_over_a_restart() {
    let gone = Answer::Status {
        code: 410,
        retry_after: None,
    };
    let stage = Stage::new(move |_, _| gone).await;
    stage
        .flags
        .raise((1..=30).map(|number| flag(number, &format!("C{number}"), START)))
        .await;
    let lane = stage.lane();
    stage.play(&lane, START.plus_ms(HOUR)).await;
    let calls = stage.receiver.calls.lock().unwrap().len();
    assert!(calls <= 4, "{calls} calls: those under way");
    drop(lane);
    let lane = stage.lane();
    stage.receiver.become_(|_, _| OK);
    stage.play(&lane, START.plus_ms(2 * HOUR)).await;
    assert_eq!(lane.handle().status().halted, Some("gone"));
    assert!(lane.handle().resume(None).await.unwrap());
    stage.play(&lane, START.plus_ms(5 * HOUR)).await;
    assert_eq!(stage.receiver.ids().len(), 30);
}

#[tokio::test]
async fn retry_after_pauses_the_whole_lane() {
    let busy = Answer::Status {
        code: 429,
        retry_after: Some(std::time::Duration::from_secs(600)),
    };
    let stage = Stage::new(move |_, now| if now == START { busy } else { OK }).await;
    stage
        .flags
        .raise((1..=30).map(|number| flag(number, &format!("C{number}"), START)))
        .await;
    let lane = stage.lane();
    stage.play(&lane, START.plus_ms(20 * 60_000)).await;
    let calls = stage.receiver.calls.lock().unwrap();
    let early = calls
        .iter()
        .filter(|(at, ..)| *at > START && *at < START.plus_ms(600_000));
    assert_eq!(early.count(), 0);
    drop(calls);
    assert_eq!(stage.receiver.ids().len(), 30);
}

#[tokio::test]
async fn a_destination_gets_its_policies_only() {
    let stage = Stage::new(|_, _| OK).await;
    let mut other = flag(2, "C2", START);
    other["policy"] = "other".into();
    stage.flags.raise([flag(1, "C1", START), other]).await;
    let lane = stage.lane_to(
        destination("crm", "https://example.com/", "policies = [\"other\"]"),
        stage.receiver.clone(),
    );
    stage.settle(&lane).await;
    assert_eq!(stage.receiver.ids(), BTreeSet::from([id(2)]));
}

#[tokio::test]
async fn delivered_flags_go_out_again_by_id_and_by_range_and_only_then() {
    let stage = Stage::new(|_, _| OK).await;
    stage
        .flags
        .raise((1..=10).map(|number| flag(number, &format!("C{number}"), START)))
        .await;
    let lane = stage.lane();
    stage.settle(&lane).await;
    let now = stage.hand.now();
    let handle = lane.handle();
    assert_eq!(
        handle
            .redeliver(&Redelivery::Ids(vec![id(3), id(99)]), now)
            .await
            .unwrap(),
        1
    );
    assert_eq!(handle.redeliver(&Redelivery::Range(8, 500), now).await.unwrap(), 3);
    stage.settle(&lane).await;
    let times: Vec<_> = (1..=10).map(|number| stage.receiver.attempts(number).len()).collect();
    assert_eq!(times, [1, 1, 2, 1, 1, 1, 1, 2, 2, 2]);
    drop((lane, handle));
    let lane = stage.lane();
    stage.settle(&lane).await;
    assert_eq!(
        stage.receiver.calls.lock().unwrap().len(),
        14,
        "a restart sends nothing again"
    );
}

#[tokio::test]
async fn a_rebuilt_store_with_other_numbers_stops_the_lane_until_it_is_told_where_to_go_on() {
    let mut stage = Stage::new(|_, _| OK).await;
    stage
        .flags
        .raise((1..=6).map(|number| flag(number, &format!("C{number}"), START)))
        .await;
    stage.gate.say("C2", Ok(Verdict::Wait(START.plus_ms(50 * HOUR))));
    let lane = stage.lane();
    stage.settle(&lane).await;
    drop(lane);
    // The same flags in another order, and one more.
    stage.flags = Flags::new().await;
    stage
        .flags
        .raise([2, 6, 5, 7, 4, 3, 1].map(|number| flag(number, &format!("C{number}"), START)))
        .await;
    let lane = stage.lane();
    stage.settle(&lane).await;
    assert_eq!(lane.handle().status().halted, Some("renumbered"));
    assert!(!lane.handle().resume(None).await.unwrap(), "it has to be told where");
    assert!(lane.handle().resume(Some(3)).await.unwrap());
    stage.gate.say("C2", Ok(Verdict::Send));
    stage.play(&lane, START.plus_ms(51 * HOUR)).await;
    let times: Vec<_> = (1..=7).map(|number| stage.receiver.attempts(number).len()).collect();
    assert_eq!(
        times,
        [2, 1, 2, 2, 1, 1, 1],
        "what waited kept its place; behind the third, all again"
    );
}

#[tokio::test]
async fn bands_and_recalls_go_to_those_who_subscribe_in_their_place_among_the_flags() {
    let stage = Stage::new(|_, _| OK).await;
    let notice = |number, customer, kind: &str| {
        let mut body = flag(number, customer, START);
        body["kind"] = kind.into();
        body["band"] = serde_json::json!({"from": "0.3", "to": "0.5", "up": true});
        body
    };
    let raised = [
        notice(1, "C1", "band_changed"),
        flag(2, "C1", START),
        notice(3, "C1", "recalled"),
        notice(4, "C1", "band_changed"),
        notice(5, "C2", "held_out"),
    ];
    stage.flags.raise(raised).await;
    let told = |name: &str, events: &str| {
        let receiver = Receiver::new(&stage.hand, |_, _| OK);
        let more = format!("events = {events}");
        let lane = stage.lane_to(destination(name, "https://example.com/", &more), receiver.clone());
        (lane, receiver)
    };
    for (name, events, expected) in [
        ("crm", r#"["relance.flagged"]"#, vec![2]),
        ("cdp", r#"["score.band"]"#, vec![1, 4]),
        ("desk", r#"["relance.*"]"#, vec![2, 3]),
        ("all", r#"["*"]"#, vec![1, 2, 3, 4]),
    ] {
        let (lane, receiver) = told(name, events);
        stage.settle(&lane).await;
        // On request the same.
        let opened = lane
            .handle()
            .redeliver(&Redelivery::Range(1, 5), stage.hand.now())
            .await
            .unwrap();
        assert_eq!(opened, expected.len(), "{name}");
        stage.settle(&lane).await;
        let arrived: Vec<FlagId> = receiver.arrived().into_iter().map(|(id, _)| id).collect();
        let expected: Vec<FlagId> = expected.into_iter().map(id).collect();
        assert_eq!(arrived, expected, "{name}");
        assert_eq!(receiver.calls.lock().unwrap().len(), 2 * expected.len(), "{name}");
    }
    // A change waits behind the flag that it follows.
    let stage = Stage::new(move |parcel, _| if parcel.id == id(1) { BROKEN } else { OK }).await;
    stage
        .flags
        .raise([
            flag(1, "C1", START),
            notice(2, "C1", "band_changed"),
            notice(3, "C2", "band_changed"),
        ])
        .await;
    let lane = stage.lane_to(
        destination("crm", "https://example.com/", "events = [\"*\"]"),
        stage.receiver.clone(),
    );
    stage.play(&lane, START.plus_ms(HOUR)).await;
    assert_eq!(stage.receiver.ids(), BTreeSet::from([id(3)]));
}

#[tokio::test]
async fn a_days_capacity_is_kept_over_restarts_and_the_rest_waits_for_tomorrow() {
    let stage = Stage::new(|parcel, _| if parcel.id == id(2) { BROKEN } else { OK }).await;
    stage
        .flags
        .raise((1..=7).map(|number| flag(number, &format!("C{number}"), START)))
        .await;
    let open = || {
        let to = destination("crm", "https://example.com/", "daily-capacity = 3\nconcurrency = 2");
        stage.lane_to(to, stage.receiver.clone())
    };
    let lane = open();
    stage.settle(&lane).await;
    // What fails takes no room.
    assert_eq!(stage.receiver.ids(), BTreeSet::from([id(1), id(3), id(4)]));
    drop(lane);
    let lane = open();
    stage.play(&lane, START.plus_ms(HOUR)).await;
    assert_eq!(stage.receiver.ids().len(), 3, "the same day");
    let tomorrow = vigie_event::Day(START.day().0 + 1).start();
    stage.play(&lane, tomorrow.plus_ms(HOUR)).await;
    assert_eq!(
        stage.receiver.ids(),
        BTreeSet::from([id(1), id(3), id(4), id(5), id(6), id(7)])
    );
    let calls = stage.receiver.calls.lock().unwrap();
    assert!(
        calls
            .iter()
            .filter(|(_, of, ..)| *of >= id(5))
            .all(|(at, ..)| *at >= tomorrow)
    );
}
