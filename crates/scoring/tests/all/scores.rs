//! What an assessment promises: exact sums, finite numbers, monotony under silence, and facts in its sentences.

use crate::generate::{START, check, instant, observations};
use crate::oracle;
use proptest::prelude::*;
use vigie_event::{Channel, Currency, Money, PersonId, Signal, Timestamp};
use vigie_scoring::state::Contact;
use vigie_scoring::{
    CustomerState, Factor, Model, NotScored, Observation, ReasonCode, ScoreKind, Scorer, Stage, assess, score_at,
};

pub(crate) const KINDS: [ScoreKind; 4] = [
    ScoreKind::Attrition,
    ScoreKind::Churn(30),
    ScoreKind::Churn(90),
    ScoreKind::Churn(365),
];

pub(crate) fn model() -> Model {
    Model::shipped().unwrap()
}

pub(crate) fn customer(observations: &[Observation]) -> CustomerState {
    let mut state = CustomerState::default();
    for observation in observations {
        let _ = state.fold(&PersonId::known("customer").unwrap(), observation);
        // As the pipeline does it.
        if oracle::CONTACTS.contains(&observation.signal) {
            state.ledger.note_contact(Contact {
                at: observation.at,
                channel: observation.channel,
                flag: None,
            });
        }
    }
    state
}

pub(crate) fn act(at: &str, signal: Signal) -> Observation {
    let money = signal.is_purchase().then(|| Money {
        minor: 1999,
        currency: Currency::parse("EUR").unwrap(),
    });
    Observation {
        at: Timestamp::parse(at).unwrap(),
        signal,
        channel: Channel::Web,
        money,
        human: true,
    }
}

fn purchases(days: &[&str]) -> CustomerState {
    customer(
        &days
            .iter()
            .map(|day| act(&format!("{day}T10:00:00Z"), Signal::Purchase))
            .collect::<Vec<_>>(),
    )
}

/// MBG/NBD's log-odds of P(alive), as the paper writes it.
fn mbg_logit(r: f64, alpha: f64, a: f64, b: f64, x: f64, t_x: f64, age: f64) -> f64 {
    let ratio = libm::pow((alpha + age) / (alpha + t_x), r + x);
    -libm::log(a / (b + x) * ratio)
}

#[test]
fn attrition_agrees_with_a_plain_computation_from_the_event_list() {
    let model = model();
    check(2_000, (observations(12), 0i64..3000), |(list, days)| {
        let now = START + days * 86_400_000 + 12_345_678;
        let weeks = |ms: i64| ms as f64 / 604_800_000.0;
        let bought = oracle::btyd(&list, now).map(|(x, t_x, age)| {
            mbg_logit(
                0.524843180589223,
                6.183085727585607,
                0.8913594522473026,
                1.6140023133571513,
                f64::from(x),
                t_x as f64 / 7.0,
                age as f64 / 7.0,
            )
        });
        let seen = list
            .iter()
            .filter(|o| o.human && o.signal.is_engagement())
            .map(|o| o.at.0)
            .max()
            .map(|last| {
                let first = oracle::sessions(&list)[0].0 * 1000;
                let x = oracle::active_days(&list).len() as f64 - 1.0;
                mbg_logit(0.7, 1.0, 0.7, 4.2, x, weeks(last - first), weeks(now.max(last) - first))
            });
        let parts: Vec<f64> = [bought, seen].into_iter().flatten().collect();
        let expected = oracle::complaint(&list, now) - parts.iter().sum::<f64>() / parts.len() as f64;
        match assess(&customer(&list), &model, Timestamp(now)).attrition {
            Err(NotScored::NoActivity) => prop_assert!(parts.is_empty()),
            Ok(attrition) => prop_assert!(
                (attrition.logit - expected).abs() < 1e-9,
                "{} {expected}",
                attrition.logit
            ),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
        Ok(())
    });
}

#[test]
fn contributions_add_up_and_every_number_is_finite() {
    let model = model();
    let now = prop_oneof![
        instant(),
        Just(Timestamp(i64::MIN)),
        Just(Timestamp(i64::MAX)),
        Just(Timestamp(0))
    ];
    check(10_000, (observations(12), now), |(list, now)| {
        let state = customer(&list);
        let assessment = assess(&state, &model, now);
        if let Ok(attrition) = &assessment.attrition {
            let sum: f64 = attrition.contributions.iter().map(|c| c.log_odds).sum();
            prop_assert!((sum - attrition.logit).abs() <= 1e-12 * attrition.logit.abs().max(1.0));
            prop_assert!(attrition.logit.is_finite() && (0.0..=1.0).contains(&attrition.score));
            prop_assert!(attrition.contributions.iter().all(|c| c.log_odds.is_finite()));
            prop_assert_eq!(Ok(attrition.score), score_at(&state, &model, ScoreKind::Attrition, now));
        }
        prop_assert_eq!(assessment.churn.len(), 3);
        for churn in &assessment.churn {
            prop_assert_eq!(churn.outcome.is_ok(), assessment.p_alive.is_some());
            if let Ok(terms) = churn.outcome {
                prop_assert!((terms.already_gone + terms.still_customer - terms.score).abs() <= 1e-12);
                prop_assert!((0.0..=1.0).contains(&terms.score));
                prop_assert_eq!(
                    Ok(terms.score),
                    score_at(&state, &model, ScoreKind::Churn(churn.horizon_days), now)
                );
            }
        }
        if let Some(p) = assessment.p_alive {
            prop_assert!((0.0..=1.0).contains(&p.bg_nbd) && (0.0..=1.0).contains(&p.mbg_nbd));
        }
        prop_assert!(assessment.reasons.len() <= 3);
        prop_assert!(
            assessment
                .reasons
                .iter()
                .all(|r| r.text.ends_with('.') && r.text.len() < 120)
        );
        Ok(())
    });
}

#[test]
fn scores_never_fall_under_silence() {
    let model = model();
    let steps = prop::collection::vec(
        prop_oneof![Just(1i64), 1i64..5000, 1i64..90_000_000, 1i64..40_000_000_000],
        1..20,
    );
    check(10_000, (observations(10), instant(), steps), |(list, from, steps)| {
        let state = customer(&list);
        let scorer = Scorer::of(&state, &model);
        for kind in KINDS {
            let mut now = from;
            let mut before = scorer.score(kind, now);
            for step in &steps {
                now = now.plus_ms(*step);
                let after = scorer.score(kind, now);
                prop_assert!(
                    after >= before,
                    "{:?} fell from {:?} to {:?} at {}",
                    kind,
                    before,
                    after,
                    now
                );
                before = after;
            }
        }
        Ok(())
    });
}

#[test]
fn an_unknown_customer_has_no_score_and_says_why() {
    let empty = assess(&CustomerState::default(), &model(), Timestamp(START));
    assert_eq!(empty.attrition, Err(NotScored::NoActivity));
    assert!(
        empty
            .churn
            .iter()
            .all(|churn| churn.outcome == Err(NotScored::NeverPurchased))
    );
    assert_eq!(
        (empty.p_alive, empty.stage, empty.reasons.len()),
        (None, Stage::Prospect, 0)
    );

    let visitor = assess(
        &customer(&[act("1997-02-01T10:00:00Z", Signal::PageView)]),
        &model(),
        Timestamp(START),
    );
    assert!(visitor.attrition.is_ok() && visitor.p_alive.is_none());
    assert_eq!(visitor.churn[1].outcome, Err(NotScored::NeverPurchased));
    assert_eq!(visitor.stage, Stage::Prospect);

    // Only told about, never acting: deliveries are no sign of life, and neither is a machine.
    let mut machine = act("1997-02-01T10:00:00Z", Signal::EmailOpen);
    machine.human = false;
    let target = customer(&[act("1997-02-01T10:00:00Z", Signal::EmailSent), machine]);
    assert_eq!(
        assess(&target, &model(), Timestamp(START)).attrition,
        Err(NotScored::NoActivity)
    );
}

#[test]
fn reasons_are_facts_with_dates() {
    let now = Timestamp::parse("1997-12-31T12:00:00Z").unwrap();
    let gone = purchases(&["1997-06-08", "1997-07-06", "1997-08-03"]);
    let assessment = assess(&gone, &model(), now);
    let texts: Vec<&str> = assessment.reasons.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "No activity since 3 Aug 1997; the usual gap is 28 days.",
            "No purchase since 3 Aug 1997; the usual gap is 28 days."
        ]
    );
    assert_eq!(assessment.reasons[1].code, ReasonCode::NoPurchaseSince);
    assert_eq!(assessment.reasons[1].factor, Factor::PurchaseSilence);

    let loyal = assess(&gone, &model(), Timestamp::parse("1997-08-04T12:00:00Z").unwrap());
    assert_eq!(loyal.reasons[0].text, "Active on 3 days from 8 Jun 1997 to 3 Aug 1997.");
    assert_eq!(loyal.reasons[1].text, "Bought on 3 days from 8 Jun 1997 to 3 Aug 1997.");

    let once = assess(
        &purchases(&["1997-12-30"]),
        &model(),
        Timestamp::parse("1999-12-30T12:00:00Z").unwrap(),
    );
    assert!(
        once.reasons
            .iter()
            .any(|r| r.text == "No purchase since the first one on 30 Dec 1997, 730 days ago."),
        "{once:?}"
    );
}

#[test]
fn stages_follow_the_life_cycle() {
    let state = purchases(&["1997-01-01", "1997-01-29", "1997-02-26", "1997-03-26"]);
    let stage = |day: &str| assess(&state, &model(), Timestamp::parse(day).unwrap()).stage;
    let stages: Vec<Stage> = (0..100)
        .map(|week| {
            assess(
                &state,
                &model(),
                Timestamp::parse("1997-01-01").unwrap().plus_ms(week * 604_800_000),
            )
            .stage
        })
        .collect();
    assert!(stages.is_sorted(), "{stages:?}");
    assert_eq!(stage("1997-01-20"), Stage::New);
    assert_eq!(stage("1997-04-01"), Stage::Active);
    assert_eq!(stage("1998-12-01"), Stage::Lapsed);
    for expected in [Stage::New, Stage::Active, Stage::Slowing, Stage::AtRisk, Stage::Lapsed] {
        assert!(stages.contains(&expected), "{expected:?} is skipped: {stages:?}");
    }
}

#[test]
fn purchases_of_one_day_are_one_and_parts_are_seen_as_one_customer() {
    let mut state = purchases(&["1997-01-01", "1997-01-01", "1997-02-01"]);
    let device = PersonId::anonymous("device").unwrap();
    let _ = state.fold(&device, &act("1997-02-01T23:00:00Z", Signal::Purchase));
    let _ = state.fold(&device, &act("1996-12-30T23:00:00Z", Signal::Purchase));
    let evidence = assess(&state, &model(), Timestamp::parse("1997-03-01T00:00:00Z").unwrap()).evidence;
    let bought = evidence.purchases.unwrap();
    assert_eq!(
        (bought.x, bought.t_x_weeks, bought.age_weeks),
        (2, 33.0 / 7.0, 61.0 / 7.0)
    );
    assert_eq!((evidence.active_days, bought.usual_gap_days), (3, Some(2)));
}

#[test]
fn the_published_scores_are_kept_in_millionths() {
    let state = purchases(&["1997-01-01", "1997-02-01"]);
    let now = Timestamp::parse("1997-06-01T00:00:00Z").unwrap();
    let model = model();
    let scorer = Scorer::of(&state, &model);
    let kept = scorer.refreshed(now);
    let ppm = |kind| (scorer.score(kind, now).unwrap() * 1e6).round() as u32;
    assert_eq!(kept.attrition_ppm, Some(ppm(ScoreKind::Attrition)));
    assert_eq!(kept.churn_ppm, Some(ppm(ScoreKind::Churn(90))));
    assert_eq!((kept.at, kept.model), (now, model.fingerprint));
}
