//! Tests against the full golden files, which are not part of the repository. The environment variable `VIGIE_SHARED` names
//! the directory that holds `goldens/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, its helpers too"
)]

use std::io::Read;
use std::path::PathBuf;
use vigie_event::{Channel, Day, PersonId, Signal, Timestamp};
use vigie_scoring::btyd::{Btyd, Family, Recency};
use vigie_scoring::{CustomerState, Model, Observation, ScoreKind, assess, score_at};

fn golden(name: &str) -> String {
    let root = std::env::var_os("VIGIE_SHARED").unwrap_or_else(|| {
        panic!("set VIGIE_SHARED to the directory that holds goldens/ (the feature `shared-data` needs it)")
    });
    let path = PathBuf::from(root).join("goldens").join(name);
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut text = String::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "a test reads a file of its own that is known to be small"
    )]
    let read = flate2::read::GzDecoder::new(file).read_to_string(&mut text);
    assert!(read.is_ok(), "{}: {read:?}", path.display());
    text
}

struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(name: &str) -> Self {
        let text = golden(name);
        let mut lines = text
            .lines()
            .map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        Self {
            columns: lines.next().unwrap(),
            rows: lines.collect(),
        }
    }

    fn cell<'a>(&self, row: &'a [String], column: &str) -> &'a str {
        &row[self
            .columns
            .iter()
            .position(|c| c == column)
            .unwrap_or_else(|| panic!("no column {column}"))]
    }

    fn number(&self, row: &[String], column: &str) -> f64 {
        self.cell(row, column).parse().unwrap()
    }
}

/// The maximum-likelihood fits that the golden values were computed with (`btyd_goldens.json`, all digits). The shipped model
/// has the four decimals that are published.
const FITTED: [Btyd; 2] = [
    Btyd {
        family: Family::Bg,
        r: 0.242_594_516_048_017_5,
        alpha: 4.413_601_844_086_617,
        a: 0.792_922_067_076_757_5,
        b: 2.425_907_058_215_007,
    },
    Btyd {
        family: Family::Mbg,
        r: 0.524_843_180_589_223,
        alpha: 6.183_085_727_585_607,
        a: 0.891_359_452_247_302_6,
        b: 1.614_002_313_357_151_3,
    },
];
const LN_LIKELIHOODS: [f64; 2] = [-9_582.429_206_673_933, -9_582.135_715_555_75];
const COLUMNS: [(&str, &str); 2] = [("palive_bgnbd", "churn13w_bgnbd"), ("palive_mbgnbd", "churn13w_mbgnbd")];

fn recency(table: &Table, row: &[String]) -> Recency {
    Recency {
        x: table.number(row, "x") as u32,
        t_x: table.number(row, "t_x"),
        age: table.number(row, "T"),
    }
}

#[test]
fn every_customer_of_the_cdnow_sample() {
    let table = Table::read("btyd_cdnow_sample_customers.csv.gz");
    assert_eq!(table.rows.len(), 2357);
    let mut worst = 0.0f64;
    for ((model, (alive, churn)), ln_likelihood) in FITTED.iter().zip(COLUMNS).zip(LN_LIKELIHOODS) {
        let mut sum = 0.0;
        for row in &table.rows {
            let recency = recency(&table, row);
            sum += model.ln_likelihood(recency);
            let pairs = [
                (model.p_alive(recency), table.number(row, alive)),
                (model.p_no_purchase(recency, 13.0), table.number(row, churn)),
            ];
            for (got, expected) in pairs {
                let deviation = (got - expected).abs() / expected;
                worst = worst.max(deviation);
                assert!(
                    deviation <= 1e-9,
                    "customer {}, {:?}: {got} != {expected}",
                    row[0],
                    model.family
                );
            }
        }
        assert!(
            (sum - ln_likelihood).abs() < 1e-5,
            "{:?}: ln L {sum} != {ln_likelihood}",
            model.family
        );
    }
    println!("largest relative deviation: {worst:.1e}");
}

/// The same numbers through the front door: purchases folded into a record, assessed at the end of calibration under the
/// shipped parameters.
#[test]
fn the_cdnow_sample_through_the_customer_record() {
    let table = Table::read("btyd_cdnow_sample_customers.csv.gz");
    let model = Model::shipped().unwrap();
    let now = Timestamp::parse("1997-09-30T18:00:00Z").unwrap();
    for row in &table.rows {
        let day = |column| Timestamp::parse(table.cell(row, column)).unwrap().day();
        let (first, last, n) = (day("first"), day("last"), table.number(row, "n") as i32);
        // Only how many days lie between the first and the last matters, not which.
        let days = (0..n - 1).map(|k| Day(first.0 + k)).chain([last]);
        let mut state = CustomerState::default();
        for day in days {
            let at = day.start().plus_ms(40_000_000);
            let purchase = Observation {
                at,
                signal: Signal::Purchase,
                channel: Channel::Web,
                money: None,
                human: true,
            };
            let _ = state.fold(&PersonId::known(&row[0]).unwrap(), &purchase);
        }
        let assessment = assess(&state, &model, now);
        let (bought, expected) = (assessment.evidence.purchases.unwrap(), recency(&table, row));
        assert_eq!(bought.x, expected.x, "customer {}", row[0]);
        assert!((bought.t_x_weeks - expected.t_x).abs() < 1e-9 && (bought.age_weeks - expected.age).abs() < 1e-9);
        let alive = assessment.p_alive.unwrap();
        let churn = score_at(&state, &model, ScoreKind::Churn(91), now).unwrap();
        for (got, column) in [
            (alive.bg_nbd, COLUMNS[0].0),
            (alive.mbg_nbd, COLUMNS[1].0),
            (churn, COLUMNS[1].1),
        ] {
            assert!(
                (got - table.number(row, column)).abs() < 1e-9,
                "customer {}: {column} {got}",
                row[0]
            );
        }
    }
}
