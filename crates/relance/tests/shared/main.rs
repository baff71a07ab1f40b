//! The statistics against a real randomised experiment that is not part of the repository: Hillstrom's e-mail test of 64,000
//! customers. The environment variable `VIGIE_SHARED` names the directory that holds `data/` and `goldens/`.

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
use vigie_relance::statistics::{Arm, Level, Uplift, Verdict, uplift, verdict};

fn shared(name: &str) -> PathBuf {
    let root = std::env::var_os("VIGIE_SHARED").unwrap_or_else(|| {
        panic!("set VIGIE_SHARED to the directory that holds data/ and goldens/ (the feature `shared-data` needs it)")
    });
    PathBuf::from(root).join(name)
}

/// Arms of the three outcomes, in the order of the file.
#[derive(Default)]
struct Arms {
    visit: Arm,
    conversion: Arm,
    spend: Arm,
}

impl Arms {
    fn of(&self, outcome: &str) -> &Arm {
        match outcome {
            "visit" => &self.visit,
            "conversion" => &self.conversion,
            _ => &self.spend,
        }
    }
}

#[test]
fn hillstroms_experiment_comes_out_as_it_is_known_to() {
    let file = std::fs::File::open(shared("data/hillstrom/hillstrom.csv.gz")).unwrap();
    let mut text = String::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "a test reads a file of its own that is known to be small"
    )]
    let read = flate2::read::GzDecoder::new(file).read_to_string(&mut text);
    assert!(read.is_ok(), "{read:?}");
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    // From the end: an earlier cell holds a comma in its quotes.
    let place = |name: &str| columns.iter().rev().position(|column| *column == name).unwrap();
    let (segment, visit, conversion, spend) = (place("segment"), place("visit"), place("conversion"), place("spend"));
    let (mut control, mut mens, mut womens) = (Arms::default(), Arms::default(), Arms::default());
    for line in lines {
        let cells: Vec<&str> = line.rsplit(',').collect();
        let arms = match cells[segment] {
            "No E-Mail" => &mut control,
            "Mens E-Mail" => &mut mens,
            "Womens E-Mail" => &mut womens,
            other => panic!("{other}"),
        };
        arms.visit.add(cells[visit].parse().unwrap());
        arms.conversion.add(cells[conversion].parse().unwrap());
        arms.spend.add(cells[spend].parse().unwrap());
    }
    let goldens = std::fs::read_to_string(shared("goldens/uplift_goldens.json")).unwrap();
    let goldens: serde_json::Value = serde_json::from_str(&goldens).unwrap();
    for (name, treated) in [("mens", &mens), ("womens", &womens)] {
        for outcome in ["visit", "conversion", "spend"] {
            let golden = &goldens["hillstrom_ate"][name][outcome];
            let number = |field: &str| golden[field].as_f64().unwrap();
            let (treated, control) = (treated.of(outcome), control.of(outcome));
            assert_eq!(treated.count, golden["n_t"].as_u64().unwrap());
            assert!((treated.mean() - number("treated")).abs() < 1e-9 * number("treated"));
            assert!((control.mean() - number("control")).abs() < 1e-9 * number("control"));
            let level = Level {
                alpha: 0.05,
                tightest_at: 40_000,
            };
            let measured = uplift(treated, control, level);
            let Uplift::Measured(difference) = measured else {
                panic!("{measured:?}")
            };
            println!("{name} {outcome}: {difference:?}, {:?}", verdict(&measured, 14, 365));
            assert!((difference.estimate - number("ate")).abs() < 1e-9 * number("ate").abs());
            // An interval that holds at all times is wider than one for a single look, and not by much more than half.
            let once = golden["ci95"].as_array().unwrap();
            let once = (once[1].as_f64().unwrap() - once[0].as_f64().unwrap()) / 2.0;
            let always = (difference.high - difference.low) / 2.0;
            assert!(once < always && always < 1.8 * once, "{once} {always}");
            // By z: 22, 7.4, 5.3 (men's); 14, 3.8 and 3.3 (women's). Only the last is not beyond doubt at all times.
            if number("z") > 3.6 {
                assert_eq!(verdict(&measured, 14, 365), Verdict::Works, "{name} {outcome}");
            }
        }
    }
}
