//! The booster on data with a known truth: it finds what is there, leaves what is not, keeps its constraints, and writes what
//! the reader reads to the same numbers.

use crate::generate::{Random, history};
use proptest::prelude::*;
use vigie_event::Day;
use vigie_fit::backtest::{Candidate, Plan, backtest};
use vigie_fit::boost::{Boosted, Sample, boost};
use vigie_fit::churn::{Fits, Task, fit_trees};
use vigie_scoring::btyd::sigmoid;
use vigie_scoring::churn::FEATURES;
use vigie_scoring::{Correction, Trees};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Log-odds that a sum cannot say: the second feature counts only where the first is high; the third is noise.
fn truth(features: &[f64; 3]) -> f64 {
    if features[0] > 0.5 {
        3.0 * features[1] - 1.0
    } else {
        -0.5
    }
}

fn samples(count: usize, seed: u64) -> Vec<Sample<3>> {
    let mut random = Random(seed);
    (0..count)
        .map(|_| {
            let features = [random.unit(), random.unit(), random.unit()];
            Sample {
                features,
                offset: -0.2,
                bought: random.unit() < sigmoid(truth(&features)),
            }
        })
        .collect()
}

fn boosted(seed: u64) -> Boosted<3> {
    boost(&samples(6_000, seed), NAMES, [false, true, false], 120)
}

#[test]
fn what_is_there_is_found_and_noise_is_left() {
    let fitted = boosted(1);
    let losses = fitted.losses(&samples(6_000, 2));
    let best = samples(6_000, 2)
        .iter()
        .map(|s| {
            -libm::log(sigmoid(if s.bought {
                truth(&s.features)
            } else {
                -truth(&s.features)
            }))
        })
        .sum::<f64>()
        / 6_000.0;
    println!(
        "without trees {:.4}, with {} {:.4}, the truth {best:.4}",
        losses[0],
        fitted.len(),
        losses[losses.len() - 1]
    );
    assert!(losses[losses.len() - 1] < best + 0.01 && losses[0] > best + 0.03);
    // Coin tosses: nothing is split, or what is split costs next to nothing.
    let mut random = Random(3);
    let mut tossed = samples(4_000, 4);
    tossed
        .iter_mut()
        .for_each(|s| (s.offset, s.bought) = (0.0, random.unit() < 0.5));
    let losses = boost(&tossed[..2_000], NAMES, [false; 3], 100).losses(&tossed[2_000..]);
    println!(
        "of coins {:.4}, after {} trees {:.4}",
        losses[0],
        losses.len() - 1,
        losses[losses.len() - 1]
    );
    assert!(losses[losses.len() - 1] < losses[0] + 0.01);
}

#[test]
fn the_reader_reads_what_was_grown_and_equal_rows_give_equal_bytes() {
    let (fitted, again) = (boosted(5), boosted(5));
    assert_eq!(fitted.text(), again.text());
    let trees = Trees::parse(&fitted.text()).unwrap();
    assert_eq!((trees.len(), trees.features().len()), (fitted.len(), 3));
    for sample in samples(500, 6) {
        let loss = fitted.losses(&[sample]);
        let eta = sample.offset + trees.sum(&sample.features);
        let want = -libm::log(sigmoid(if sample.bought { eta } else { -eta }));
        assert!((loss[loss.len() - 1] - want).abs() < 1e-12);
        let (phi, mean) = trees.contributions(&sample.features);
        assert!((mean + phi.iter().sum::<f64>() - trees.sum(&sample.features)).abs() < 1e-12);
        assert!((mean - trees.mean()).abs() < 1e-12);
    }
}

#[test]
fn log_odds_only_rise_where_they_may_only_rise_and_bounds_hold() {
    let trees = Trees::parse(&boosted(7).text()).unwrap();
    let unit = || 0.0f64..1.0;
    let cases = (unit(), unit(), unit(), unit(), unit(), unit(), unit());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    runner
        .run(&cases, |(a, b, c, d, e, f, between)| {
            prop_assert!(trees.sum(&[a, b.max(d), c]) >= trees.sum(&[a, b.min(d), c]));
            let (low, high) = trees.bounds(&[a, b, c], &[d, e, f]);
            let mix = |x: f64, y: f64| x + between * (y - x);
            let sum = trees.sum(&[mix(a, d), mix(b, e), mix(c, f)]);
            prop_assert!(low - 1e-12 <= sum && sum <= high + 1e-12, "{low} {sum} {high}");
            let point = trees.bounds(&[a, b, c], &[a, b, c]);
            prop_assert!((point.0 - trees.sum(&[a, b, c])).abs() < 1e-12 && point.0 == point.1);
            Ok(())
        })
        .unwrap();
}

fn plan(tests: &[i32]) -> Plan {
    Plan {
        task: Task {
            horizon_days: 90,
            active_days: 180,
            grid: (1..15).map(|month| Day(10_000 + 60 * month)).collect(),
        },
        tests: tests.iter().map(|day| Day(10_000 + day)).collect(),
        draws: 20,
        seed: 3,
    }
}

/// BG/NBD customers: there is nothing for trees to add, and they must not take away.
#[test]
fn trees_do_no_harm_where_the_closed_form_is_the_truth() {
    let history = history(800, 900, 0.3, 13);
    let results = backtest(
        &history,
        &plan(&[660, 780]),
        &[Candidate::Gbdt, Candidate::Default, Candidate::MbgNbd],
    );
    let losses: Vec<f64> = results.iter().map(|r| r.mean.log_loss).collect();
    println!("{losses:?}");
    assert!(
        losses[0] < losses[1] + 0.004 && losses[0] < losses[2] + 0.002,
        "{losses:?}"
    );
}

#[test]
fn features_of_other_names_are_refused_with_those_that_there_are() {
    let text = boosted(9).text();
    let told = Correction::parse(&text).unwrap_err().to_string();
    assert!(told.contains("\"a\"") && told.contains("second-opinion"), "{told}");
    let model = fit_trees(
        &history(800, 700, 0.0, 3),
        &plan(&[]).task,
        Day(10_700),
        &mut Fits::default(),
    );
    if let Some(correction) = model.correction {
        let read = Correction::parse(correction.text()).unwrap();
        let row = [0.3; FEATURES];
        assert_eq!(read.log_odds(&row), correction.log_odds(&row));
    }
}
