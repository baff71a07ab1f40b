//! Decisions through the public face: hysteresis, cooldown, refusals, hold-outs, and that the due time is the first
//! instant at which something is decided.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking, in the functions that it calls too"
)]

mod plan;
mod predicate;
mod reports;
mod rules;
mod statistics;

use proptest::prelude::*;
use vigie_event::{
    ConsentState, Currency, CustomerKey, DAY_MS, EventId, Money, PersonId, Purpose, Signal, Timestamp, Workspace,
};
use vigie_relance::{Decision, FlagKind, Look, PolicySet, Refusal, evaluate, next_due, note};
use vigie_scoring::state::{ConsentRecord, Phase};
use vigie_scoring::{CustomerState, Model, Observation, Scorer};

const START: i64 = 1_700_000_000_000;

fn key(id: &str) -> CustomerKey {
    CustomerKey::new(Workspace::new("shop").unwrap(), PersonId::known(id).unwrap())
}

fn policies(holdout: f64, eligible: &str) -> PolicySet {
    policies_with("attrition", holdout, eligible, "", "")
}

fn policies_with(score: &str, holdout: f64, eligible: &str, policy: &str, file: &str) -> PolicySet {
    PolicySet::parse(&format!(
        "[[policy]]\nid = \"p\"\nscore = \"{score}\"\nthreshold = 0.6\nrearm-below = 0.4\ncooldown-days = 10\n\
         holdout = {holdout}\n{policy}\n[policy.eligible]\n{eligible}\n{file}\n"
    ))
    .unwrap()
}

/// 20 euro.
fn buy(state: &mut CustomerState, id: &CustomerKey, at: i64) {
    act(state, id, at, Signal::Purchase);
}

fn act(state: &mut CustomerState, id: &CustomerKey, at: i64, signal: Signal) {
    let euro = Money {
        minor: 2_000,
        currency: Currency::parse("EUR").unwrap(),
    };
    let observation = Observation {
        at: Timestamp(at),
        signal,
        channel: signal.default_channel(),
        money: signal.is_purchase().then_some(euro),
        human: true,
    };
    let _ = state.fold(&id.person, &observation);
    state.cite(&id.person, &observation, &EventId::new(&format!("event-{at}")).unwrap());
    note(&mut state.ledger, signal, observation.channel, observation.at, None);
}

fn consent(state: &mut CustomerState, purpose: Purpose, said: ConsentState, at: i64) {
    let record = ConsentRecord {
        at: Timestamp(at),
        state: said,
    };
    state.note_consent(purpose, record);
}

fn regular(id: &CustomerKey) -> CustomerState {
    let mut state = CustomerState::default();
    (0..10).for_each(|week| buy(&mut state, id, START + week * 7 * DAY_MS));
    state
}

fn at(set: &PolicySet, id: &CustomerKey, state: &mut CustomerState, model: &Model, now: Timestamp) -> Vec<Decision> {
    let copy = state.clone();
    let scorer = Scorer::of(&copy, model);
    evaluate(
        set,
        &mut Look {
            key: id,
            state,
            scorer: &scorer,
            model,
            now,
            purchase: None,
        },
    )
}

/// How flags ended.
fn ends(decisions: &[Decision]) -> Vec<Phase> {
    let phase = |decision: &Decision| match decision {
        Decision::Ended { phase, .. } => Some(*phase),
        _ => None,
    };
    decisions.iter().filter_map(phase).collect()
}

fn due(set: &PolicySet, id: &CustomerKey, state: &CustomerState, model: &Model, now: Timestamp) -> Option<Timestamp> {
    next_due(
        set,
        id,
        state,
        &Scorer::of(state, model),
        now,
        Timestamp(now.0 + 3650 * DAY_MS),
    )
}

#[test]
fn one_flag_per_crossing_then_hysteresis_and_cooldown() {
    let (model, set, id) = (Model::shipped().unwrap(), policies(0.0, ""), key("u"));
    let mut state = regular(&id);
    let now = Timestamp(START + 63 * DAY_MS);
    assert!(at(&set, &id, &mut state, &model, now).is_empty());
    let crossing = due(&set, &id, &state, &model, now).expect("silence leads over the threshold");
    assert!(at(&set, &id, &mut state, &model, crossing.plus_ms(-1)).is_empty());
    let decisions = at(&set, &id, &mut state, &model, crossing);
    let [Decision::Flag { flag, .. }] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    assert_eq!(flag.kind, FlagKind::Flagged);
    assert!(flag.score.value >= 0.6 && !flag.reasons.is_empty() && flag.reasons.len() <= 3);
    assert!(flag.reasons.iter().all(|reason| reason.events.len() == 1), "{flag:?}");
    // Silence goes on: nothing new but the end of the policy's window, by which she has not come back.
    assert!(at(&set, &id, &mut state, &model, crossing.plus_ms(40 * DAY_MS)).is_empty());
    let end = crossing.plus_ms(60 * DAY_MS);
    assert_eq!(due(&set, &id, &state, &model, crossing), Some(end));
    assert!(at(&set, &id, &mut state, &model, end.plus_ms(-1)).is_empty());
    assert_eq!(ends(&at(&set, &id, &mut state, &model, end)), [Phase::Lost]);
    assert_eq!(due(&set, &id, &state, &model, end), None);
    // Back to life: armed again below the lower level, and the next crossing flags again.
    let back = end.plus_ms(DAY_MS);
    (0..6).for_each(|day| buy(&mut state, &id, back.0 + day * DAY_MS));
    let alive = back.plus_ms(6 * DAY_MS);
    assert!(at(&set, &id, &mut state, &model, alive).is_empty());
    let again = due(&set, &id, &state, &model, alive).expect("armed again");
    assert_eq!(at(&set, &id, &mut state, &model, again).len(), 1);
}

#[test]
fn during_cooldown_the_flag_waits() {
    let (model, id) = (Model::shipped().unwrap(), key("u"));
    let set = policies(0.0, "");
    let mut state = regular(&id);
    let now = Timestamp(START + 63 * DAY_MS);
    let crossing = due(&set, &id, &state, &model, now).unwrap();
    assert_eq!(at(&set, &id, &mut state, &model, crossing).len(), 1);
    // As if the score had fallen at once: armed, but not cooled down.
    state.ledger.policies.values_mut().for_each(|entry| entry.armed = true);
    assert!(at(&set, &id, &mut state, &model, crossing.plus_ms(DAY_MS)).is_empty());
    assert_eq!(
        due(&set, &id, &state, &model, crossing.plus_ms(DAY_MS)),
        Some(crossing.plus_ms(10 * DAY_MS))
    );
    // The next flag ends the course of the one before: until then she had not come back.
    let decisions = at(&set, &id, &mut state, &model, crossing.plus_ms(10 * DAY_MS));
    assert_eq!(ends(&decisions), [Phase::Lost]);
    assert!(
        matches!(decisions.as_slice(), [_, Decision::Flag { .. }]),
        "{decisions:?}"
    );
}

/// What one refusal is made of: what the policy says beyond the usual, what else the file says, what else happened.
struct Case {
    eligible: &'static str,
    policy: &'static str,
    file: &'static str,
    happened: &'static [(i64, Signal)],
    said: Option<(Purpose, ConsentState)>,
    known: bool,
    reason: Refusal,
    /// Days after which it is asked again, for a reason that ends by itself.
    pauses: Option<i64>,
}

const PLAIN: Case = Case {
    eligible: "",
    policy: "",
    file: "",
    happened: &[],
    said: None,
    known: true,
    reason: Refusal::Objected,
    pauses: None,
};

/// The day on which the cases are decided.
const LATE: i64 = 300;

fn cases() -> Vec<Case> {
    let lasting = |reason: Refusal, eligible: &'static str| Case {
        eligible,
        reason,
        ..PLAIN
    };
    let pause = |reason: Refusal, happened: &'static [(i64, Signal)], days: i64| Case {
        reason,
        happened,
        pauses: Some(days),
        ..PLAIN
    };
    let refused = ConsentState::Refused;
    vec![
        Case {
            said: Some((Purpose::Marketing, refused)),
            ..PLAIN
        },
        Case {
            said: Some((Purpose::Profiling, refused)),
            ..PLAIN
        },
        lasting(Refusal::NoConsent, "marketing-consent = \"granted\""),
        Case {
            known: false,
            reason: Refusal::Anonymous,
            ..PLAIN
        },
        lasting(Refusal::FewPurchases, "min-purchase-days = 11"),
        lasting(Refusal::ManyPurchases, "max-purchase-days = 9"),
        lasting(Refusal::LittleActivity, "min-active-days = 11"),
        lasting(Refusal::GoneTooLong, "max-silence-days = 30"),
        lasting(Refusal::StaleData, "max-data-age-days = 30"),
        Case {
            file: "[[outage]]\nsource = \"till\"\nfrom = \"2024-06-01T00:00:00Z\"",
            reason: Refusal::SourceOutage,
            ..PLAIN
        },
        Case {
            policy: "where = \"purchases > 10\"",
            reason: Refusal::NotEligible,
            ..PLAIN
        },
        Case {
            policy: "channel = [{ name = \"email\" }]",
            happened: &[(70, Signal::EmailUnsubscribe)],
            reason: Refusal::NoChannel,
            ..PLAIN
        },
        Case {
            policy: "channel = [{ name = \"email\" }]",
            happened: &[(70, Signal::EmailDelivered), (71, Signal::EmailBounce)],
            reason: Refusal::NoChannel,
            ..PLAIN
        },
        Case {
            happened: &[(70, Signal::ComplaintOpened), (71, Signal::ComplaintAcknowledged)],
            reason: Refusal::OpenComplaint,
            ..PLAIN
        },
        pause(Refusal::InboundContact, &[(298, Signal::TicketOpened)], 5),
        pause(Refusal::RecentAttention, &[(299, Signal::ContactSent)], 2),
        pause(
            Refusal::Capped,
            &[
                (275, Signal::ContactSent),
                (280, Signal::EmailSent),
                (283, Signal::CallOutbound),
                (286, Signal::EmailSent),
                (289, Signal::EmailSent),
                (292, Signal::ContactSent),
            ],
            5,
        ),
        Case {
            policy: "channel = [{ name = \"email\" }]",
            file: "[pressure.channels]\nemail = 1",
            reason: Refusal::Capped,
            happened: &[(290, Signal::EmailSent)],
            pauses: Some(20),
            ..PLAIN
        },
        Case {
            policy: "channel = [{ name = \"phone\", cost = 40.0 }]",
            reason: Refusal::Unprofitable,
            pauses: Some(10),
            ..PLAIN
        },
        Case {
            policy: "within-hours = 1",
            file: "[calendar]\nquiet-hours = \"21:00-09:00\"",
            reason: Refusal::Quiet,
            pauses: Some(1),
            ..PLAIN
        },
    ]
}

#[test]
fn every_refusal_has_its_reason_and_is_counted_once() {
    let model = Model::shipped().unwrap();
    let known = key("u");
    let anonymous = CustomerKey::new(known.workspace.clone(), PersonId::anonymous("a").unwrap());
    let mut met: Vec<Refusal> = Vec::new();
    for case in cases() {
        let id = if case.known { &known } else { &anonymous };
        let set = policies_with("churn-30", 0.0, case.eligible, case.policy, case.file);
        let mut state = regular(id);
        for (day, signal) in case.happened {
            act(&mut state, id, START + day * DAY_MS, *signal);
        }
        if let Some((purpose, answer)) = case.said {
            consent(&mut state, purpose, answer, START);
        }
        // START is at 22:13 UTC.
        let late = Timestamp(START + LATE * DAY_MS);
        let expected = Decision::Refused {
            policy: "p".to_owned(),
            reason: case.reason,
        };
        assert_eq!(
            at(&set, id, &mut state, &model, late),
            vec![expected],
            "{:?}",
            case.reason
        );
        assert!(
            at(&set, id, &mut state, &model, late.plus_ms(1)).is_empty(),
            "{:?}: counted twice",
            case.reason
        );
        let again = case.pauses.map(|days| late.plus_ms(days * DAY_MS));
        assert_eq!(due(&set, id, &state, &model, late), again, "{:?}", case.reason);
        if let Some(again) = again {
            let decisions = at(&set, id, &mut state, &model, again);
            // What ends by itself and is the same again is said again; everything else raises the flag now.
            assert_eq!(decisions.len(), 1, "{:?}", case.reason);
        }
        met.push(case.reason);
    }
    for reason in Refusal::ALL {
        assert!(met.contains(reason), "{} has no case", reason.label());
    }
    // The reason goes away: the flag comes.
    let set = policies(0.0, "");
    let mut state = regular(&known);
    consent(&mut state, Purpose::Marketing, ConsentState::Refused, START);
    let late = Timestamp(START + LATE * DAY_MS);
    assert_eq!(at(&set, &known, &mut state, &model, late).len(), 1);
    consent(&mut state, Purpose::Marketing, ConsentState::Granted, late.0);
    assert!(matches!(
        at(&set, &known, &mut state, &model, late.plus_ms(1)).as_slice(),
        [Decision::Flag { .. }]
    ));
}

#[test]
fn the_hold_out_is_as_large_as_stated_and_stays_with_the_customer() {
    let (model, set) = (Model::shipped().unwrap(), policies(0.2, ""));
    let held = (0..2000)
        .filter(|n| {
            let id = key(&format!("c{n}"));
            let mut state = regular(&id);
            let decisions = at(&set, &id, &mut state, &model, Timestamp(START + 300 * DAY_MS));
            matches!(decisions.as_slice(), [Decision::Flag { flag, .. }] if flag.kind == FlagKind::HeldOut)
        })
        .count();
    // Binomial(2000, 0.2): four standard deviations are 72.
    assert!((328..=472).contains(&held), "{held} of 2000 held out");
}

proptest! {
    #[test]
    fn nothing_is_decided_before_the_due_time(days in proptest::collection::vec(0i64..200, 1..12), after in 0i64..100) {
        let (model, set, id) = (Model::shipped().unwrap(), policies(0.0, ""), key("u"));
        let mut state = CustomerState::default();
        days.iter().for_each(|day| buy(&mut state, &id, START + day * DAY_MS + 37));
        let now = Timestamp(START + (200 + after) * DAY_MS);
        let _ = at(&set, &id, &mut state, &model, now);
        match due(&set, &id, &state, &model, now) {
            Some(when) => {
                prop_assert!(when > now);
                prop_assert!(at(&set, &id, &mut state.clone(), &model, when.plus_ms(-1)).is_empty());
                prop_assert_eq!(at(&set, &id, &mut state, &model, when).len(), 1);
            }
            None => prop_assert!(at(&set, &id, &mut state, &model, now.plus_ms(3000 * DAY_MS)).is_empty()),
        }
    }
}

proptest! {
    /// Silence changes a band at the due time and never before it, each time under another id, until nothing is due.
    #[test]
    fn no_band_is_left_before_the_due_time(
        days in proptest::collection::vec(0i64..200, 1..12),
        score in prop_oneof![Just("attrition"), Just("churn-90"), Just("stage")],
        hysteresis in 0.0..0.2f64,
    ) {
        let band = format!("[[band]]\nname = \"b\"\nscore = \"{score}\"\nhysteresis = {hysteresis}");
        let (model, set, id) = (Model::shipped().unwrap(), PolicySet::parse(&band).unwrap(), key("u"));
        let mut state = CustomerState::default();
        days.iter().for_each(|day| buy(&mut state, &id, START + day * DAY_MS + 37));
        let mut now = Timestamp(START + days.iter().max().unwrap() * DAY_MS + 37);
        // The first place is noted and not told.
        prop_assert!(at(&set, &id, &mut state, &model, now).is_empty());
        let mut told = std::collections::BTreeSet::new();
        while let Some(when) = due(&set, &id, &state, &model, now) {
            prop_assert!(when > now);
            prop_assert!(at(&set, &id, &mut state, &model, when.plus_ms(-1)).is_empty());
            let decisions = at(&set, &id, &mut state, &model, when);
            let [Decision::Moved { id: notice, flag }] = decisions.as_slice() else {
                panic!("{decisions:?}")
            };
            prop_assert!(flag.band.as_ref().is_some_and(|moved| moved.up && moved.from != moved.to));
            prop_assert!(told.insert(*notice));
            now = when;
        }
        prop_assert!(at(&set, &id, &mut state, &model, now.plus_ms(3000 * DAY_MS)).is_empty());
    }
}

#[test]
fn nobody_who_refuses_profiling_is_followed_until_they_allow_it_again() {
    let band = "[[band]]\nname = \"b\"\nscore = \"attrition\"";
    let (model, set, id) = (Model::shipped().unwrap(), PolicySet::parse(band).unwrap(), key("u"));
    let mut state = regular(&id);
    let now = Timestamp(START + 63 * DAY_MS + 1);
    assert!(at(&set, &id, &mut state, &model, now).is_empty());
    let crossing = due(&set, &id, &state, &model, now).unwrap();
    consent(&mut state, Purpose::Profiling, ConsentState::Refused, now.0);
    assert!(at(&set, &id, &mut state, &model, crossing).is_empty());
    // What was held back is not asked for again by silence, only by an event.
    assert_eq!(due(&set, &id, &state, &model, crossing), None);
    consent(&mut state, Purpose::Profiling, ConsentState::Granted, crossing.0);
    let decisions = at(&set, &id, &mut state, &model, crossing.plus_ms(5));
    assert!(
        matches!(decisions.as_slice(), [Decision::Moved { .. }]),
        "{decisions:?}"
    );
    // An anonymous visitor has no record with anybody.
    let nobody = CustomerKey::new(id.workspace.clone(), PersonId::anonymous("u").unwrap());
    let mut state = regular(&id);
    let _ = at(&set, &nobody, &mut state, &model, now);
    assert!(state.bands.is_empty());
}

#[test]
fn a_source_that_was_silent_delays_a_flag_by_as_long_and_nobody_else() {
    let model = Model::shipped().unwrap();
    let id = key("u");
    let crossing = |set: &PolicySet, from: i64| {
        let mut state = regular(&id);
        let mut now = Timestamp(START + from * DAY_MS);
        let mut refused = 0;
        loop {
            let decisions = at(set, &id, &mut state, &model, now);
            match decisions.as_slice() {
                [Decision::Flag { .. }] => return (now, refused),
                [Decision::Refused { reason, .. }] => {
                    assert_eq!(*reason, Refusal::SourceOutage);
                    refused += 1;
                }
                _ => {}
            }
            now = due(set, &id, &state, &model, now).expect("silence leads over the threshold");
        }
    };
    let with = |outages: &str| policies_with("attrition", 0.0, "", "", outages);
    let outage = |from: i64, to: i64, signals: &str| {
        let day = |days: i64| Timestamp(START + days * DAY_MS);
        format!(
            "[[outage]]\nsource = \"till\"\nfrom = \"{}\"\nto = \"{}\"\n{signals}\n",
            day(from),
            day(to)
        )
    };
    let (plain, _) = crossing(&with(""), 64);
    let before = plain.ms_since(Timestamp(START)) / DAY_MS;
    // The last purchase was on day 63; what was silent before it, or after the flag, or brings something else, changes nothing.
    for outages in [
        outage(20, 63, ""),
        outage(before + 2, before + 40, ""),
        outage(64, before, "signals = [\"survey.nps\"]"),
    ] {
        assert_eq!(crossing(&with(&outages), 64), (plain, 0), "{outages}");
    }
    // Five days of silence that was not theirs, in one piece or in two that overlap: five days later.
    for outages in [
        outage(65, 70, ""),
        outage(65, 70, "signals = [\"purchase\"]"),
        outage(65, 68, "") + &outage(67, 70, ""),
    ] {
        assert_eq!(
            crossing(&with(&outages), 64),
            (plain.plus_ms(5 * DAY_MS), 1),
            "{outages}"
        );
    }
    // An end that was announced holds until then; and what was missed by then counts.
    let announced = outage(before, before + 10, "");
    let (flagged, refused) = crossing(&with(&announced), 64);
    let missed = plain.ms_since(Timestamp(START + before * DAY_MS));
    assert_eq!(
        (flagged, refused),
        (Timestamp(START + (before + 10) * DAY_MS).plus_ms(missed), 2)
    );
}
