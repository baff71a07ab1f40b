//! The tree reader against LightGBM's and XGBoost's own answers for 1,000 rows (`fixtures/trees/generate.py`): those that are
//! kept here, and in tests/long those of the packages themselves, installed for the purpose.

use std::io::Read;
use vigie_scoring::Trees;

const FEATURES: usize = 6;

/// The generator's twin: splitmix64, the upper 20 bits.
fn units(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            (z >> 44) as f64 / f64::from(1 << 20)
        })
        .collect()
}

fn rows() -> Vec<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = units(1000 * FEATURES, 2)
        .chunks(FEATURES)
        .map(|row| row.iter().map(|u| u * 4.0 - 2.0).collect())
        .collect();
    for row in &mut rows {
        if row[0] > 1.5 {
            row[1] = f64::NAN;
        }
        if row[3] < -1.0 {
            row[2] = 0.0;
        }
    }
    rows
}

fn unzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "a fixture of this repository, known to be small"
    )]
    let read = flate2::read::GzDecoder::new(bytes).read_to_string(&mut text);
    assert!(read.is_ok(), "{read:?}");
    text
}

pub(crate) fn lightgbm() -> Trees {
    Trees::parse(&unzip(include_bytes!("fixtures/trees/lightgbm.txt.gz"))).unwrap()
}

/// The largest deviations of the sum and of a contribution.
pub(crate) fn deviations(model: &[u8], answers: &[u8]) -> (f64, f64) {
    let trees = Trees::parse(&unzip(model)).unwrap();
    assert_eq!((trees.len(), trees.features().len()), (40, FEATURES));
    let answers = unzip(answers);
    let answers: Vec<Vec<f64>> = answers
        .lines()
        .skip(1)
        .map(|line| line.split(',').map(|cell| cell.parse().unwrap()).collect())
        .collect();
    assert_eq!(answers.len(), 1000);
    let (mut sums, mut contributions) = (0.0f64, 0.0f64);
    for (row, answer) in rows().iter().zip(&answers) {
        let sum = trees.sum(row);
        sums = sums.max((sum - answer[0]).abs());
        let (phi, mean) = trees.contributions(row);
        for (got, want) in phi.iter().chain([&mean]).zip(&answer[1..]) {
            contributions = contributions.max((got - want).abs());
        }
        let added = mean + phi.iter().sum::<f64>();
        // Single-precision sums are off by their own rounding; the contributions are doubles.
        assert!((added - sum).abs() < 1e-5, "{added} != {sum}");
        assert!((0.0..=1.0).contains(&trees.predict(row)));
    }
    println!("largest deviation: sum {sums:.1e}, contribution {contributions:.1e}");
    (sums, contributions)
}

#[test]
fn lightgbm_agrees() {
    let (sums, contributions) = deviations(
        include_bytes!("fixtures/trees/lightgbm.txt.gz"),
        include_bytes!("fixtures/trees/lightgbm.csv.gz"),
    );
    assert!(sums < 1e-9 && contributions < 1e-9);
}

/// XGBoost computes in single precision: sums are equal to the bit, its contributions are right to about six digits. The
/// same contributions worked out in double precision, by definition over all subsets of features, agree to 1e-9.
#[test]
fn xgboost_agrees() {
    let model = include_bytes!("fixtures/trees/xgboost.json.gz");
    let (sums, contributions) = deviations(model, include_bytes!("fixtures/trees/xgboost.csv.gz"));
    assert!(sums == 0.0 && contributions < 1e-5);
    let (_, contributions) = deviations(model, include_bytes!("fixtures/trees/xgboost-exact.csv.gz"));
    assert!(contributions < 1e-9);
}
