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

use proptest::prelude::*;
use vigie_event::{Channel, ConsentState, CustomerKey, DAY_MS, PersonId, Purpose, Signal, Timestamp, Workspace};
use vigie_relance::{Decision, FlagKind, Look, PolicySet, Refusal, evaluate, next_due};
use vigie_scoring::state::ConsentRecord;
use vigie_scoring::{CustomerState, Model, Observation, Scorer};

const START: i64 = 1_700_000_000_000;

fn key(id: &str) -> CustomerKey {
    CustomerKey::new(Workspace::new("shop").unwrap(), PersonId::known(id).unwrap())
}

fn policies(holdout: f64, extra: &str) -> PolicySet {
    PolicySet::parse(&format!(
        "[[policy]]\nid = \"p\"\nscore = \"attrition\"\nthreshold = 0.6\nrearm-below = 0.4\ncooldown-days = 10\nholdout = {holdout}\n[policy.eligible]\n{extra}"
    ))
    .unwrap()
}

fn buy(state: &mut CustomerState, id: &CustomerKey, at: i64) {
    let observation = Observation {
        at: Timestamp(at),
        signal: Signal::Purchase,
        channel: Channel::Web,
        money: None,
        human: true,
    };
    let _ = state.fold(&id.person, &observation);
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
        },
    )
}

fn due(set: &PolicySet, state: &CustomerState, model: &Model, now: Timestamp) -> Option<Timestamp> {
    next_due(
        set,
        &state.ledger,
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
    let crossing = due(&set, &state, &model, now).expect("silence leads over the threshold");
    assert!(at(&set, &id, &mut state, &model, crossing.plus_ms(-1)).is_empty());
    let decisions = at(&set, &id, &mut state, &model, crossing);
    let [Decision::Flag { flag, .. }] = decisions.as_slice() else {
        panic!("{decisions:?}")
    };
    assert_eq!(flag.kind, FlagKind::Flagged);
    assert!(flag.score.value >= 0.6 && !flag.reasons.is_empty() && flag.reasons.len() <= 3);
    // Silence goes on: nothing new, ever.
    assert!(at(&set, &id, &mut state, &model, crossing.plus_ms(40 * DAY_MS)).is_empty());
    assert_eq!(due(&set, &state, &model, crossing), None);
    // Back to life: armed again below the lower level, and the next crossing flags again.
    let back = crossing.plus_ms(41 * DAY_MS);
    (0..6).for_each(|day| buy(&mut state, &id, back.0 + day * DAY_MS));
    let alive = back.plus_ms(6 * DAY_MS);
    assert!(at(&set, &id, &mut state, &model, alive).is_empty());
    let again = due(&set, &state, &model, alive).expect("armed again");
    assert_eq!(at(&set, &id, &mut state, &model, again).len(), 1);
}

#[test]
fn during_cooldown_the_flag_waits() {
    let (model, id) = (Model::shipped().unwrap(), key("u"));
    let set = policies(0.0, "");
    let mut state = regular(&id);
    let now = Timestamp(START + 63 * DAY_MS);
    let crossing = due(&set, &state, &model, now).unwrap();
    assert_eq!(at(&set, &id, &mut state, &model, crossing).len(), 1);
    // As if the score had fallen at once: armed, but not cooled down.
    state.ledger.policies.values_mut().for_each(|entry| entry.armed = true);
    assert!(at(&set, &id, &mut state, &model, crossing.plus_ms(DAY_MS)).is_empty());
    assert_eq!(
        due(&set, &state, &model, crossing.plus_ms(DAY_MS)),
        Some(crossing.plus_ms(10 * DAY_MS))
    );
    assert_eq!(
        at(&set, &id, &mut state, &model, crossing.plus_ms(10 * DAY_MS)).len(),
        1
    );
}

#[test]
fn every_refusal_has_its_reason_and_is_counted_once() {
    let model = Model::shipped().unwrap();
    let known = key("u");
    let anonymous = CustomerKey::new(known.workspace.clone(), PersonId::anonymous("a").unwrap());
    let consent = |state: &mut CustomerState, purpose, said| {
        state.note_consent(
            purpose,
            ConsentRecord {
                at: Timestamp(START),
                state: said,
            },
        );
    };
    let table = [
        (
            "",
            &known,
            Some((Purpose::Marketing, ConsentState::Refused)),
            Refusal::Objected,
        ),
        (
            "",
            &known,
            Some((Purpose::Profiling, ConsentState::Refused)),
            Refusal::Objected,
        ),
        ("marketing-consent = \"granted\"", &known, None, Refusal::NoConsent),
        ("", &anonymous, None, Refusal::Anonymous),
        ("min-purchase-days = 11", &known, None, Refusal::FewPurchases),
        ("max-purchase-days = 9", &known, None, Refusal::ManyPurchases),
        ("min-active-days = 11", &known, None, Refusal::LittleActivity),
        ("max-silence-days = 30", &known, None, Refusal::GoneTooLong),
    ];
    let mut met: Vec<Refusal> = Vec::new();
    for (extra, id, said, reason) in table {
        let set = policies(0.0, extra);
        let mut state = regular(id);
        if let Some((purpose, answer)) = said {
            consent(&mut state, purpose, answer);
        }
        let late = Timestamp(START + 300 * DAY_MS);
        assert_eq!(
            at(&set, id, &mut state, &model, late),
            vec![Decision::Refused {
                policy: "p".to_owned(),
                reason
            }],
            "{extra}"
        );
        assert!(
            at(&set, id, &mut state, &model, late.plus_ms(1)).is_empty(),
            "{extra}: counted twice"
        );
        assert_eq!(due(&set, &state, &model, late), None);
        met.push(reason);
    }
    assert!(
        Refusal::ALL.iter().all(|reason| met.contains(reason)),
        "a reason has no case"
    );
    // The reason goes away: the flag comes.
    let set = policies(0.0, "");
    let mut state = regular(&known);
    consent(&mut state, Purpose::Marketing, ConsentState::Refused);
    let late = Timestamp(START + 300 * DAY_MS);
    assert_eq!(at(&set, &known, &mut state, &model, late).len(), 1);
    state.note_consent(
        Purpose::Marketing,
        ConsentRecord {
            at: late,
            state: ConsentState::Granted,
        },
    );
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
        match due(&set, &state, &model, now) {
            Some(when) => {
                prop_assert!(when > now);
                prop_assert!(at(&set, &id, &mut state.clone(), &model, when.plus_ms(-1)).is_empty());
                prop_assert_eq!(at(&set, &id, &mut state, &model, when).len(), 1);
            }
            None => prop_assert!(at(&set, &id, &mut state, &model, now.plus_ms(3000 * DAY_MS)).is_empty()),
        }
    }
}
