//! The crossing time against slow searches that know nothing of closed forms.

use crate::generate::{check, instant, observations};
use crate::scores::{KINDS, act, customer, model};
use proptest::prelude::*;
use vigie_event::{Signal, Timestamp};
use vigie_scoring::{Model, ScoreKind, Scorer, first_crossing, next_refresh};

const DAY: i64 = 86_400_000;

fn kind() -> impl Strategy<Value = ScoreKind> {
    (0..KINDS.len()).prop_map(|at| KINDS[at])
}

/// The first millisecond by looking at one instant after another: days, then hours, minutes, seconds, milliseconds. At each
/// scale every instant is looked at, so monotony is the only thing that it relies on.
fn scan(scorer: &Scorer<'_>, kind: ScoreKind, threshold: f64, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
    let reached = |at: i64| scorer.score(kind, Timestamp(at)).is_ok_and(|score| score >= threshold);
    let mut low = from.0;
    for step in [DAY, 3_600_000, 60_000, 1000, 1] {
        loop {
            if reached(low) {
                // Reached before this step's first look: only possible on the very first.
                return Some(Timestamp(low));
            }
            if low + step > until.0 || reached(low + step) {
                break;
            }
            low += step;
        }
    }
    (low < until.0 && reached(low + 1)).then_some(Timestamp(low + 1))
}

#[test]
fn the_crossing_is_the_first_instant_that_a_scan_finds() {
    let model = model();
    let threshold = prop_oneof![4 => 0.0f64..1.0, 1 => Just(0.5), 1 => 0.9f64..0.9999];
    let horizon = prop_oneof![2 => 1i64..3 * DAY, 2 => 1i64..400 * DAY];
    check(
        300,
        (observations(10), kind(), threshold, instant(), horizon),
        |(list, kind, threshold, from, horizon)| {
            let state = customer(&list);
            let until = from.plus_ms(horizon);
            let found = first_crossing(&state, &model, kind, threshold, from, until);
            prop_assert_eq!(found, scan(&Scorer::of(&state, &model), kind, threshold, from, until));
            Ok(())
        },
    );
}

#[test]
fn the_crossing_is_reached_and_the_millisecond_before_is_not() {
    let model = model();
    let until = Timestamp(i64::MAX);
    check(
        10_000,
        (observations(10), kind(), 0.001f64..0.9999, instant()),
        |(list, kind, threshold, from)| {
            let state = customer(&list);
            let scorer = Scorer::of(&state, &model);
            let reached = |at: Timestamp| scorer.score(kind, at).is_ok_and(|score| score >= threshold);
            match scorer.first_crossing(kind, threshold, from, until) {
                Some(at) => {
                    prop_assert!(at >= from && reached(at));
                    prop_assert!(at == from || !reached(at.plus_ms(-1)));
                }
                None => prop_assert!(!reached(from.plus_ms(70_000 * DAY))),
            }
            Ok(())
        },
    );
}

#[test]
fn a_pool_with_other_weights_crosses_where_it_says() {
    let text = Model::shipped_text();
    let variants = [
        text.replace("purchase-weight = 1.0", "purchase-weight = 0.0"),
        text.replace("engagement-weight = 1.0", "engagement-weight = 0.0"),
        text.replace("purchase-weight = 1.0", "purchase-weight = 7.5")
            .replace("offset = 0.0", "offset = -1.25"),
    ]
    .map(|text| Model::parse(&text).unwrap());
    check(
        2_000,
        (observations(10), 0usize..3, 0.001f64..0.9999, instant()),
        |(list, variant, threshold, from)| {
            let state = customer(&list);
            let scorer = Scorer::of(&state, &variants[variant]);
            let reached = |at: Timestamp| {
                scorer
                    .score(ScoreKind::Attrition, at)
                    .is_ok_and(|score| score >= threshold)
            };
            if let Some(at) = scorer.first_crossing(ScoreKind::Attrition, threshold, from, Timestamp(i64::MAX)) {
                prop_assert!(reached(at) && (at == from || !reached(at.plus_ms(-1))));
            }
            Ok(())
        },
    );
}

#[test]
fn a_refresh_is_due_when_either_watched_score_has_drifted() {
    let model = model();
    check(
        5_000,
        (observations(10), instant(), 1i64..2000 * DAY),
        |(list, from, horizon)| {
            let state = customer(&list);
            let scorer = Scorer::of(&state, &model);
            let until = from.plus_ms(horizon);
            let drifted = |at: Timestamp| {
                [ScoreKind::Attrition, ScoreKind::Churn(90)].into_iter().any(|kind| {
                    let (then, now) = (scorer.score(kind, from), scorer.score(kind, at));
                    then.is_ok_and(|then| now.is_ok_and(|now| now >= then + 0.01))
                })
            };
            match next_refresh(&state, &model, from, until) {
                Some(at) => prop_assert!(at > from && at <= until && drifted(at) && !drifted(at.plus_ms(-1))),
                None => prop_assert!(!drifted(until)),
            }
            Ok(())
        },
    );
}

#[test]
fn the_ends_of_the_search_are_included_and_nothing_beyond() {
    let model = model();
    let state = customer(&[
        act("1997-01-01T10:00:00Z", Signal::PageView),
        act("1997-01-08T10:00:00Z", Signal::PageView),
    ]);
    let from = Timestamp::parse("1997-01-08T10:00:00Z").unwrap();
    let far = from.plus_ms(10_000 * DAY);
    let at = first_crossing(&state, &model, ScoreKind::Attrition, 0.5, from, far).unwrap();
    assert!(at > from);
    assert_eq!(
        first_crossing(&state, &model, ScoreKind::Attrition, 0.5, at, far),
        Some(at)
    );
    assert_eq!(
        first_crossing(&state, &model, ScoreKind::Attrition, 0.5, from, at),
        Some(at)
    );
    assert_eq!(
        first_crossing(&state, &model, ScoreKind::Attrition, 0.5, from, at.plus_ms(-1)),
        None
    );
    assert_eq!(
        first_crossing(&state, &model, ScoreKind::Attrition, 0.5, at.plus_ms(5), at),
        Some(at.plus_ms(5))
    );
    assert_eq!(
        first_crossing(&state, &model, ScoreKind::Attrition, f64::NAN, from, far),
        None
    );
    assert_eq!(
        first_crossing(&state, &model, ScoreKind::Attrition, 1.5, from, far),
        None
    );
    assert_eq!(
        first_crossing(&state, &model, ScoreKind::Churn(90), 0.5, from, far),
        None,
        "has never bought"
    );
    // With engagement alone the answer is the closed form, to the millisecond.
    let age = model.engagement.crossing_age(1, 1.0, 0.5);
    let closed = Timestamp::parse("1997-01-01T10:00:00Z")
        .unwrap()
        .plus_ms((age * 604_800_000.0).ceil() as i64);
    assert!((at.0 - closed.0).abs() <= 1, "{at} {closed}");
}
