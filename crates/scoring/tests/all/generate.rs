//! Random observations and records for property tests, biased towards collisions: few days, few hours, few currencies,
//! amounts of either sign, and now and then a date years away, so that windows and bounds are exercised.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vigie_event::{
    AccountId, Channel, ConsentState, Currency, Day, Doubt, EventId, FlagId, Money, PersonId, PolicyId, Purpose,
    Signal, Timestamp,
};
use vigie_scoring::state::{
    Account, ConsentRecord, Contact, Course, Held, InBand, Phase, PolicyState, RaisedFlag, Refreshed,
};
use vigie_scoring::{CustomerState, Observation};

/// 1997-01-01T00:00:00Z, where the test data live.
pub(crate) const START: i64 = 852_076_800_000;
const DAY: i64 = 86_400_000;
/// What may stand among open acts on mails.
pub(crate) const MAILS: [Signal; 4] = [
    Signal::EmailOpen,
    Signal::EmailClick,
    Signal::EmailDelivered,
    Signal::EmailMachineClick,
];

/// Runs a property on at least `cases` cases; prints the seed first, and replays the one in `VIGIE_SEED`.
pub(crate) fn check<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seed = match std::env::var("VIGIE_SEED") {
        Ok(text) => text.parse().expect("VIGIE_SEED must be a number"),
        Err(_) => rand_seed(),
    };
    println!("VIGIE_SEED={seed}");
    let config = Config {
        cases,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(seed),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, property);
    assert!(
        outcome.is_ok(),
        "replay with VIGIE_SEED={seed}: {}",
        outcome.unwrap_err()
    );
}

/// A seed that differs between runs, from the hasher that the standard library seeds anew in every process.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}

pub(crate) fn instant() -> impl Strategy<Value = Timestamp> {
    let days = prop_oneof![8 => 0i64..12, 4 => 0i64..500, 1 => -30i64..5000];
    let within =
        prop_oneof![3 => 0..DAY, 2 => (0i64..48).prop_map(|n| n * 1_800_000), 1 => Just(DAY - 1), 1 => Just(0)];
    (days, within).prop_map(|(day, ms)| Timestamp(START + day * DAY + ms))
}

const CURRENCIES: [&str; 10] = ["EUR", "USD", "GBP", "JPY", "CHF", "AUD", "CAD", "BRL", "ZAR", "AED"];

fn money() -> impl Strategy<Value = Option<Money>> {
    let amount = prop_oneof![6 => 0i64..10_000, 1 => -500i64..0, 1 => Just(1_000_000_000_000_000i64)];
    let currency = prop_oneof![4 => 0usize..2, 1 => 0usize..10];
    prop::option::weighted(
        0.8,
        (amount, currency).prop_map(|(minor, c)| Money {
            minor,
            currency: Currency::parse(CURRENCIES[c]).unwrap(),
        }),
    )
}

/// What adjustments go by.
const INCIDENTS: [Signal; 9] = [
    Signal::ComplaintOpened,
    Signal::ComplaintAcknowledged,
    Signal::ComplaintResolved,
    Signal::ComplaintClosed,
    Signal::ComplaintReopened,
    Signal::ComplaintResatisfied,
    Signal::ComplaintGrave,
    Signal::PaymentFailed,
    Signal::ContactSent,
];

pub(crate) fn observation() -> impl Strategy<Value = Observation> {
    let signal = prop_oneof![
        3 => Just(Signal::Purchase),
        3 => Just(Signal::PageView),
        1 => Just(Signal::Refund),
        1 => Just(Signal::EmailSent),
        1 => (0..Signal::ALL.len()).prop_map(|at| Signal::ALL[at]),
        2 => (0..INCIDENTS.len()).prop_map(|at| INCIDENTS[at]),
    ];
    let channel = (0..Channel::ALL.len()).prop_map(|at| Channel::ALL[at]);
    (instant(), signal, channel, money(), prop::bool::weighted(0.9)).prop_map(|(at, signal, channel, money, human)| {
        Observation {
            at,
            signal,
            channel,
            money,
            human,
        }
    })
}

pub(crate) fn observations(most: usize) -> impl Strategy<Value = Vec<Observation>> {
    prop::collection::vec(observation(), 0..=most)
}

pub(crate) fn person() -> impl Strategy<Value = PersonId> {
    prop_oneof![
        (0u8..3).prop_map(|n| PersonId::known(&format!("customer-{n}")).unwrap()),
        (0u8..3).prop_map(|n| PersonId::anonymous(&format!("device-{n}")).unwrap()),
    ]
}

fn flag() -> impl Strategy<Value = FlagId> {
    (0u8..4).prop_map(|n| FlagId([n; 16]))
}

/// A record with every field in use.
pub(crate) fn state() -> impl Strategy<Value = CustomerState> {
    let events = prop::collection::vec((person(), observation(), 0u8..20), 0..12);
    let ids = prop::collection::vec((0u32..20, 0u64..2, 0i32..5), 0..6);
    let policy = (
        any::<bool>(),
        prop::option::of((instant(), flag())),
        prop::option::of(instant()),
        prop::option::of(0u8..3),
        0u64..3,
        prop::option::of((0usize..6, instant())),
    );
    let policies = prop::collection::btree_map(0u8..3, policy, 0..3);
    let contacts = prop::collection::vec((instant(), 0usize..3, prop::option::of(flag())), 0..4);
    let consent = prop::collection::vec((any::<bool>(), any::<bool>(), 0i64..3), 0..3);
    let refreshed = prop::option::of((
        instant(),
        prop::option::of(0u32..=1_000_000),
        prop::option::of(0u32..=1_000_000),
        0u64..3,
    ));
    let links = prop::collection::vec(person(), 0..3);
    let rest = (
        prop::option::of(person()),
        links,
        prop::option::of(instant()),
        prop::option::of(0u16..9),
        refreshed,
        instant(),
        (
            prop::collection::btree_map(0u8..2, (0u32..2, 0u8..4), 0..2),
            prop::option::of((instant(), 0u8..2)),
        ),
    );
    let people = (
        prop::collection::vec((person(), (0usize..4, 0u32..40, 0u32..4, 0u16..3)), 0..6),
        prop::collection::vec((person(), 0i64..4, any::<bool>()), 0..3),
        prop::collection::vec((person(), person()), 0..3),
        prop::option::of(0i64..3),
    );
    let all = (events, ids, policies, contacts, consent, people, rest);
    all.prop_map(|(events, ids, policies, contacts, consent, people, rest)| {
        let mut state = CustomerState::default();
        for (person, observation, number) in events {
            let _ = state.fold(&person, &observation);
            state.cite(
                &person,
                &observation,
                &EventId::new(&format!("event-{number}")).unwrap(),
            );
        }
        for (id, fingerprint, day) in ids {
            state.recent.insert(
                &EventId::new(&format!("e{id}")).unwrap(),
                fingerprint,
                Day(day).start(),
                1024,
            );
        }
        for (name, (armed, flag, cooldown_until, refused, policy_version, course)) in policies {
            let last_flag = flag.map(|(at, id)| RaisedFlag { at, id });
            let policy = PolicyState {
                armed,
                last_flag,
                cooldown_until,
                refused,
                policy_version,
                course: course.map(|(phase, since)| Course {
                    phase: Phase::ALL[phase],
                    since,
                }),
            };
            let _ = state
                .ledger
                .policies
                .insert(PolicyId::new(&format!("policy-{name}")).unwrap(), policy);
        }
        for (at, channel, flag) in contacts {
            state.ledger.note_contact(Contact {
                at,
                channel: Channel::ALL[channel],
                flag,
            });
        }
        for (marketing, granted, at) in consent {
            let purpose = if marketing {
                Purpose::Marketing
            } else {
                Purpose::Profiling
            };
            let said = if granted {
                ConsentState::Granted
            } else {
                ConsentState::Refused
            };
            let person = PersonId::known(&format!("customer-{}", at % 2)).unwrap();
            state.say(
                &person,
                purpose,
                ConsentRecord {
                    at: Timestamp(at),
                    state: said,
                },
            );
        }
        let (mails, held, given, dismissed) = people;
        for (person, (signal, seconds, link, permille)) in mails {
            let at = Timestamp(START + i64::from(seconds) * 1000);
            let observation = Observation {
                at,
                signal: MAILS[signal],
                channel: Channel::Email,
                money: None,
                human: permille > 0,
            };
            let _ = state.observe(&person, &observation, permille * 500, link);
        }
        for (person, at, doubted) in held {
            state.hold(Held {
                at: Timestamp(at),
                identity: person,
                signal: Signal::EmailUnsubscribe,
                doubt: if doubted { Doubt::Agent } else { Doubt::Burst },
            });
        }
        for (person, to) in given {
            let _ = state.bonds.give_away(&person, &to);
        }
        if let Some(at) = dismissed {
            state.dismiss(Timestamp(at));
        }
        let (linked_to, links, timer, rank, refreshed, last_received, (bands, account)) = rest;
        state.linked_to = linked_to;
        for link in &links {
            let _ = state.note_link(link);
        }
        state.timer = timer;
        state.rank = rank;
        state.refreshed = refreshed.map(|(at, attrition_ppm, churn_ppm, model)| Refreshed {
            at,
            attrition_ppm,
            churn_ppm,
            model,
        });
        state.last_received = last_received;
        for (name, (version, place)) in bands {
            let name = PolicyId::new(&format!("band-{name}")).unwrap();
            let _ = state.bands.insert(name, InBand { version, place });
        }
        if let Some((at, name)) = account {
            let id = AccountId::new(&format!("company-{name}")).unwrap();
            state.note_account(Account { at, id });
        }
        state
    })
}
