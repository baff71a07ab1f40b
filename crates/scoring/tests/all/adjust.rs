//! The adjustments: bounded, neutral without incidents, exactly additive, never falling in silence, and what a plain reading
//! of the event list says.

use crate::fitted::fitted;
use crate::generate::{START, check, instant, observations};
use crate::oracle;
use crate::scores::{KINDS, act, customer, model};
use proptest::prelude::*;
use vigie_event::{Signal, Timestamp};
use vigie_scoring::btyd::{logit, sigmoid};
use vigie_scoring::{Adjustments, Features, Incidents, Model, ReasonCode, ScoreKind, Scorer, assess, score_at};

const DAY: i64 = 86_400_000;

/// A model without any adjustment.
fn unmoved(model: &Model) -> Model {
    Model {
        adjustments: Adjustments {
            complaint_open: 0.0,
            complaint_grave: 0.0,
            complaint_late: 0.0,
            complaint_answered: 0.0,
            complaint_resatisfied: 0.0,
            payment_failed: 0.0,
            contact: 0.0,
            contacts_most: 0.0,
            ..Adjustments::default()
        },
        ..model.clone()
    }
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

#[test]
fn scores_move_by_what_a_plain_reading_of_the_events_says() {
    for model in [model(), fitted()] {
        let plain = unmoved(&model);
        check(3_000, (observations(14), 0i64..3000), |(list, days)| {
            let now = Timestamp(START + days * DAY + 12_345_678);
            let state = customer(&list);
            let (with, without) = (Scorer::of(&state, &model), Scorer::of(&state, &plain));
            for kind in KINDS {
                let (Ok(moved), Ok(before)) = (with.score(kind, now), without.score(kind, now)) else {
                    continue;
                };
                // Churn stands still before the last purchase, which is later than `now` in some lists.
                let bought = oracle::purchase_days(&list).last().map_or(i64::MIN, |day| day * DAY);
                let (now, others) = match kind {
                    ScoreKind::Attrition => (now.0, 0.0),
                    ScoreKind::Churn(_) => (now.0.max(bought), oracle::payment(&list) + oracle::contacts(&list)),
                };
                let by = oracle::complaint(&list, now) + others;
                if by == 0.0 {
                    prop_assert_eq!(moved.to_bits(), before.to_bits());
                } else {
                    let expected = sigmoid(logit(before) + by);
                    prop_assert!(
                        (moved - expected).abs() < 1e-12,
                        "{:?} {} {} {}",
                        kind,
                        moved,
                        expected,
                        by
                    );
                }
            }
            Ok(())
        });
    }
}

#[test]
fn nothing_changes_to_the_bit_for_who_has_no_incident() {
    for model in [model(), fitted()] {
        let plain = unmoved(&model);
        check(2_000, (observations(12), instant()), |(list, now)| {
            let list: Vec<_> = list
                .into_iter()
                .filter(|act| !oracle::is_incident(act.signal))
                .collect();
            let state = customer(&list);
            prop_assert_eq!(Features::of(&state).incidents, Incidents::default());
            let (ours, theirs) = (assess(&state, &model, now), assess(&state, &plain, now));
            prop_assert_eq!(ours, theirs);
            Ok(())
        });
    }
}

#[test]
fn contributions_add_up_with_every_adjustment_in_them() {
    for model in [model(), fitted()] {
        check(3_000, (observations(14), 0i64..2000), |(list, days)| {
            let state = customer(&list);
            let assessment = assess(&state, &model, Timestamp(START + days * DAY));
            for churn in assessment.churn.iter().filter_map(|churn| churn.outcome.ok()) {
                let sum: f64 = churn.contributions().iter().map(|term| term.log_odds).sum();
                prop_assert!((sum - churn.terms.logit()).abs() <= 1e-12 * sum.abs().max(1.0));
                prop_assert!((sigmoid(sum) - churn.score).abs() <= 1e-12, "{} {:?}", sum, churn);
                prop_assert!((churn.already_gone + churn.still_customer - churn.score).abs() <= 1e-15);
                let (low, high) = churn.interval;
                prop_assert!(low <= churn.score && churn.score <= high);
            }
            Ok(())
        });
    }
}

/// Under a fitted model every day is looked at; the first one that is there is the crossing, and a published score never
/// drifts further than the model says.
#[test]
fn crossings_and_refreshes_are_exact_under_a_fitted_model_with_incidents() {
    let model = fitted();
    let threshold = prop_oneof![3 => 0.05f64..0.999, 1 => 0.9f64..0.9999];
    check(
        150,
        (observations(12), threshold, instant()),
        |(list, threshold, from)| {
            let state = customer(&list);
            let scorer = Scorer::of(&state, &model);
            let until = from.plus_ms(500 * DAY);
            let days = (1..=500).map(|day| from.day().start().plus_ms(day * DAY));
            let looks: Vec<Timestamp> = std::iter::once(from)
                .chain(days)
                .take_while(|at| *at <= until)
                .collect();
            let kind = ScoreKind::Churn(90);
            let reached = |at: &&Timestamp| scorer.score(kind, **at).is_ok_and(|score| score >= threshold);
            let scanned = looks.iter().find(reached).copied();
            prop_assert_eq!(scorer.first_crossing(kind, threshold, from, until), scanned);
            if let Ok(now) = scorer.score(kind, from) {
                let next = scorer.next_refresh(from, until).unwrap_or(until.plus_ms(1));
                for at in looks.iter().filter(|at| **at < next) {
                    let there = scorer.score(kind, *at).unwrap_or(f64::NAN);
                    prop_assert!((there - now).abs() < model.refresh_drift, "{} {} {}", at, there, now);
                }
            }
            Ok(())
        },
    );
}

#[test]
fn a_complaint_is_an_alarm_and_its_answer_is_heard() {
    let model = model();
    let mut acts: Vec<_> = ["1997-01-05", "1997-02-02", "1997-03-01", "1997-03-30"]
        .map(|day| act(&format!("{day}T10:00:00Z"), Signal::Purchase))
        .to_vec();
    let now = at("1997-04-02T12:00:00Z");
    let scores = |acts: &[_], now| {
        let state = customer(acts);
        [ScoreKind::Attrition, ScoreKind::Churn(90)].map(|kind| score_at(&state, &model, kind, now).unwrap())
    };
    let calm = scores(&acts, now);
    acts.push(act("1997-04-01T10:00:00Z", Signal::ComplaintOpened));
    let complained = scores(&acts, now);
    assert!(
        calm[0] < complained[0] && calm[1] < complained[1],
        "{calm:?} {complained:?}"
    );
    let reasons = assess(&customer(&acts), &model, at("1997-05-20T12:00:00Z")).churn_reasons;
    let open = reasons.iter().find(|reason| reason.code == ReasonCode::ComplaintOpen);
    let text = open.map(|reason| reason.text.as_str());
    assert_eq!(
        text,
        Some("The complaint of 1 Apr 1997, 49 days ago, has not been answered."),
        "{reasons:?}"
    );
    // Grave is worse; an answer in time makes it better than it was, a late one no worse than without a complaint.
    let with = |signal, day: &str| {
        let mut acts = acts.clone();
        acts.push(act(day, signal));
        acts
    };
    let grave = scores(&with(Signal::ComplaintGrave, "1997-04-01T11:00:00Z"), now);
    assert!(complained[0] < grave[0] && complained[1] < grave[1]);
    let later = at("1997-05-01T12:00:00Z");
    let open = scores(&acts, later)[1];
    let in_time = scores(&with(Signal::ComplaintResolved, "1997-04-05T10:00:00Z"), later)[1];
    let too_late = scores(&with(Signal::ComplaintResolved, "1997-04-20T10:00:00Z"), later)[1];
    let content = scores(&with(Signal::ComplaintResatisfied, "1997-04-20T10:00:00Z"), later)[1];
    assert!(
        content < in_time && in_time < too_late && too_late < open,
        "{content} {in_time} {too_late} {open}"
    );
}

/// The day on which an answer becomes late is found by the crossing solver, to the millisecond.
#[test]
fn a_late_answer_is_a_crossing_at_its_midnight() {
    let model = model();
    let state = customer(&[
        act("1997-01-05T10:00:00Z", Signal::Purchase),
        act("1997-02-05T10:00:00Z", Signal::Purchase),
        act("1997-03-05T10:00:00Z", Signal::ComplaintOpened),
    ]);
    let midnight = at("1997-03-13T00:00:00Z");
    for kind in [ScoreKind::Attrition, ScoreKind::Churn(90)] {
        let score = |at| score_at(&state, &model, kind, at).unwrap();
        let (before, after) = (score(midnight.plus_ms(-1)), score(midnight));
        assert!(after - before > 0.01, "{before} {after}");
        let found = Scorer::of(&state, &model).first_crossing(
            kind,
            before.midpoint(after),
            at("1997-03-06T00:00:00Z"),
            at("1998-01-01T00:00:00Z"),
        );
        assert_eq!(found, Some(midnight));
    }
}

#[test]
fn what_is_out_of_range_or_of_the_wrong_sign_is_refused() {
    let wrong =
        "\n[adjustments]\ncomplaint-open = -0.1\ncomplaint-answered = 0.2\npayment-failed = 9.0\nanswer-days = 0\n";
    let error = Model::parse(&format!("{}{wrong}", Model::shipped_text()))
        .unwrap_err()
        .to_string();
    for part in ["complaint-open", "complaint-answered", "payment-failed", "answer-days"] {
        assert!(
            error.contains(&format!("adjustments.{part} must be from")),
            "{part}: {error}"
        );
    }
    let right = "\n[adjustments]\ncomplaint-open = 0.9\n";
    let model = Model::parse(&format!("{}{right}", Model::shipped_text())).unwrap();
    assert_eq!(
        (model.adjustments.complaint_open, model.adjustments.payment_failed),
        (0.9, 0.5)
    );
}
