//! The churn fit on generated histories: it must beat plain BTYD where there is something to learn, stay with it where
//! there is nothing, see no future, and survive its model file.

use crate::generate::{Random, history};
use proptest::prelude::*;
use vigie_event::{Currency, Day};
use vigie_fit::History;
use vigie_fit::backtest::{Backtest, Candidate, Plan, backtest};
use vigie_fit::btyd::{Cells, fit as fit_btyd};
use vigie_fit::churn::{Fits, Task, fit, fit_trees, rows};
use vigie_fit::file::{Provenance, model_file};
use vigie_fit::metrics::{Scored, metrics};
use vigie_scoring::btyd::{Family, sigmoid};
use vigie_scoring::churn::{ChurnModel, Pace};
use vigie_scoring::online::Learner;
use vigie_scoring::{GammaGamma, Model};

fn plan(days: i32, tests: &[i32]) -> Plan {
    let grid = (1..days / 30).map(|month| Day(10_000 + 30 * month)).collect();
    Plan {
        task: Task {
            horizon_days: 90,
            active_days: 180,
            grid,
        },
        tests: tests.iter().map(|day| Day(10_000 + day)).collect(),
        draws: 50,
        seed: 3,
    }
}

fn log_losses(results: &[Backtest]) -> Vec<f64> {
    results.iter().map(|r| r.mean.log_loss).collect()
}

#[test]
fn a_season_that_was_seen_once_is_known_the_second_time() {
    let history = history(2500, 1000, 0.8, 11);
    let plan = plan(1000, &[640, 730, 820]);
    let results = backtest(&history, &plan, &[Candidate::Default, Candidate::MbgNbd]);
    println!("{:?}", results.iter().map(|r| r.mean).collect::<Vec<_>>());
    let (ours, plain) = (&results[0].mean, &results[1].mean);
    assert!(
        ours.log_loss < plain.log_loss - 0.003 && ours.ece < plain.ece,
        "{ours:?} {plain:?}"
    );
}

#[test]
fn where_there_is_nothing_to_learn_it_stays_with_the_closed_form() {
    for seed in [1, 2] {
        let history = history(800, 700, 0.0, seed);
        let results = backtest(
            &history,
            &plan(700, &[300, 450, 600]),
            &[Candidate::Default, Candidate::MbgNbd],
        );
        let losses = log_losses(&results);
        println!("{losses:?}");
        assert!(losses[0] < losses[1] + 0.006, "seed {seed}: {losses:?}");
    }
}

#[test]
fn without_closed_cutoffs_it_is_the_closed_form() {
    let history = history(200, 200, 0.0, 5);
    let cutoff = Day(10_060);
    let model = fit(&history, &plan(200, &[]).task, cutoff);
    assert_eq!(model, ChurnModel::cold(model.bg, model.mbg));
}

/// A planted leak: everything from the cut-off on becomes something else, and neither the model nor a prediction moves.
#[test]
fn nothing_after_the_cutoff_is_seen() {
    let clean = history(400, 700, 0.3, 9);
    let cutoff = Day(10_500);
    let mut poisoned = Vec::new();
    for index in 0..clean.len() {
        let name = clean.customer(index).unwrap().to_owned();
        for day in (9_990..10_700).map(Day) {
            // The only way to a purchase is through the door: churned over one day.
            if !clean.churned(index, day, 1) && day < cutoff {
                poisoned.push((name.clone(), day, spend(&clean, index, day)));
            }
        }
        poisoned.push((name, Day(cutoff.0 + index as i32 % 50), 1e6));
    }
    let poisoned = History::of(poisoned);
    let task = plan(700, &[]).task;
    let (a, b) = (fit(&clean, &task, cutoff), fit(&poisoned, &task, cutoff));
    let trees = |history: &History| fit_trees(history, &task, cutoff, &mut Fits::default());
    assert_eq!(trees(&clean), trees(&poisoned));
    let paces = |history: &History| {
        rows(history, &task, cutoff)
            .iter()
            .map(|r| (r.customer, r.pace))
            .collect::<Vec<_>>()
    };
    assert_eq!(paces(&clean), paces(&poisoned));
    assert_eq!(a, b);
    // The same changes one day before the cut-off are seen: the test can fail.
    assert_ne!(
        fit(&clean, &task, Day(cutoff.0 + 100)),
        fit(&poisoned, &task, Day(cutoff.0 + 100))
    );
}

fn spend(history: &History, index: usize, day: Day) -> f64 {
    let on = |cutoff: Day| {
        history
            .as_of(cutoff)
            .find(|(i, _)| *i == index)
            .map_or(0.0, |(_, pace)| pace.last_spend)
    };
    on(Day(day.0 + 1))
}

#[test]
fn a_model_file_read_back_scores_the_same_bits() {
    let history = history(600, 700, 0.4, 21);
    let plan = plan(700, &[600]);
    let fitted = fit(&history, &plan.task, Day(10_700));
    let trees = grown();
    assert!(trees.correction.is_some());
    for churn in [fitted, trees] {
        read_back(&history, &plan, churn);
    }
}

fn read_back(history: &History, plan: &Plan, churn: ChurnModel) {
    let results = backtest(history, plan, &[Candidate::Default]);
    let provenance = Provenance {
        code: "0.1.0".to_owned(),
        data_from: Day(10_000),
        cutoff: Day(10_700),
        customers: history.len(),
        horizon_days: 90,
        spend: Some(GammaGamma {
            p: 6.25,
            q: 3.74,
            v: 15.4,
        }),
        currency: Some(Currency::parse("USD").unwrap()),
    };
    let text = model_file(
        "fitted",
        &churn,
        &Model::shipped().unwrap(),
        &provenance,
        Some(&results[0]),
    );
    let model = Model::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(model.churn, Some(churn));
    assert_eq!(
        (model.value.spend, model.value.currency),
        (provenance.spend, provenance.currency)
    );
}

fn fitted() -> ChurnModel {
    fit(&history(600, 800, 0.6, 33), &plan(800, &[]).task, Day(10_800))
}

/// With trees that have something to say: a second purchase soon after the first is what the closed form cannot see.
fn grown() -> ChurnModel {
    let mut random = Random(77);
    let mut purchases = Vec::new();
    for customer in 0..600 {
        let mut at = random.unit() * 500.0;
        let pairs = customer % 2 == 0;
        while at < 800.0 {
            purchases.push((format!("c{customer}"), Day(10_000 + at as i32), 10.0));
            if pairs && random.unit() < 0.9 {
                purchases.push((format!("c{customer}"), Day(10_003 + at as i32), 60.0));
            }
            if random.unit() < 0.25 {
                break;
            }
            at += 15.0 + random.unit() * if pairs { 30.0 } else { 120.0 };
        }
    }
    fit_trees(
        &History::of(purchases),
        &plan(800, &[]).task,
        Day(10_800),
        &mut Fits::default(),
    )
}

fn pace() -> impl Strategy<Value = Pace> {
    (1usize..60, 1u32..200, any::<u64>()).prop_map(|(count, gap, seed)| {
        let mut random = Random(seed);
        let mut day = 10_300.0 + random.unit() * 300.0;
        let days: Vec<(Day, f64)> = (0..count)
            .map(|_| {
                day += 1.0 + random.unit() * f64::from(gap);
                (Day(day as i32), random.unit() * 200.0)
            })
            .collect();
        Pace::of(days).unwrap()
    })
}

#[test]
fn crossings_are_those_of_a_dense_scan_and_contributions_add_up() {
    for model in [fitted(), grown()] {
        crossings(&model);
    }
}

fn crossings(model: &ChurnModel) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    let ranges = (pace(), 0.0f64..0.1, 0.01f64..0.3, 1u16..400);
    runner
        .run(&ranges, |(pace, below, above, horizon)| {
            let from = pace.last;
            let until = Day(from.0 + 1200);
            let now = model.churn(&pace, horizon, from);
            let range = (now - below - 0.005, now + above);
            let outside = |day: &Day| {
                let churn = model.churn(&pace, horizon, *day);
                churn <= range.0 || churn >= range.1
            };
            let scan = (from.0..=until.0).map(Day).find(outside);
            prop_assert_eq!(
                model.first_day_outside((&pace, &|_| 0.0), horizon, range, from, until),
                scan
            );
            for day in (from.0..until.0).step_by(37).map(Day) {
                let terms = model.terms(&pace, horizon, day);
                let sum = terms.base + terms.level + terms.features.iter().sum::<f64>();
                prop_assert!((sigmoid(-sum) - terms.churn()).abs() < 1e-12);
                prop_assert!((model.churn(&pace, horizon, day) - terms.churn()).abs() < 1e-12);
                prop_assert!(terms.churn() > 0.0 && terms.churn() < 1.0);
                // A longer horizon is never riskier, the level aside.
                let longer = model.terms(&pace, horizon.saturating_add(30), day);
                prop_assert!(longer.base >= terms.base);
            }
            Ok(())
        })
        .unwrap();
}

/// What is fitted is what was generated, to the accuracy of the sample: BG/NBD is the truth here, up to the day's grain.
#[test]
fn a_fit_finds_the_share_that_leaves() {
    let history = history(4000, 900, 0.0, 17);
    let cells = Cells::of(history.as_of(Day(10_900)).map(|(_, pace)| pace.recency(Day(10_900))));
    let model = fit_btyd(Family::Mbg, &cells, None).model;
    let leaves = model.a / (model.a + model.b);
    assert!((leaves - 0.1).abs() < 0.03, "{model:?}");
}

/// Labels of a later time, learned one by one, must bring a stale level back without leaving its bounds.
#[test]
fn online_learning_follows_a_drift() {
    let history = history(2500, 900, 0.0, 41);
    let task = plan(900, &[]).task;
    let mut stale = fit(&history, &task, Day(10_500));
    stale.level.weekly.iter_mut().for_each(|week| *week += 0.6);
    let mut learner = Learner::default();
    for cutoff in (10_500..10_700).step_by(20).map(Day) {
        for row in rows(&history, &task, cutoff) {
            learner.learn(&stale, &row.pace, 90, cutoff, !row.churned);
        }
    }
    let learned = learner.model(&stale, 1.0);
    let test = rows(&history, &task, Day(10_800));
    let loss = |model: &ChurnModel| {
        let scored: Vec<Scored> = test
            .iter()
            .map(|row| Scored {
                p: model.terms(&row.pace, 90, Day(10_800)).churn(),
                churned: row.churned,
            })
            .collect();
        metrics(&scored).log_loss
    };
    let (before, after, fresh) = (loss(&stale), loss(&learned), loss(&fit(&history, &task, Day(10_800))));
    println!(
        "stale {before:.4} learned {after:.4} fitted anew {fresh:.4} after {} labels",
        learner.labels()
    );
    assert!(after < before - 0.01 && after < fresh + 0.01);
}
