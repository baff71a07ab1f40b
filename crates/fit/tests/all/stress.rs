//! The default on shops unlike those that its constants were looked at on, each with a known truth: it must not break, must not
//! be worse than the closed form or than knowing nothing by more than chance, and must stay calibrated.

use crate::generate::Random;
use vigie_event::Day;
use vigie_fit::History;
use vigie_fit::backtest::{Backtest, Candidate, Plan, backtest};
use vigie_fit::churn::Task;

/// A shop: how long it runs, and what one customer does.
struct Shop {
    name: &'static str,
    customers: usize,
    days: i32,
    customer: fn(&mut Random, usize, f64) -> Vec<(f64, f64)>,
    /// Largest expected calibration error.
    ece: f64,
    /// How much worse than who knows the share of churners of each cut-off beforehand, and nothing else.
    behind: f64,
}

/// A sum of `shape` exponentials with mean 1: the larger, the more regular.
fn gap(random: &mut Random, shape: u32) -> f64 {
    (0..shape).map(|_| -libm::log(1.0 - random.unit())).sum::<f64>() / f64::from(shape)
}

/// Buys with gaps of a mean of `every` days until a purchase is the last with probability `leave`.
fn buyer(random: &mut Random, from: f64, days: f64, every: f64, shape: u32, leave: f64) -> Vec<(f64, f64)> {
    let (mut at, mut bought) = (from, Vec::new());
    while at < days {
        bought.push((at, 20.0 + 40.0 * random.unit()));
        if random.unit() < leave {
            break;
        }
        at += every * gap(random, shape);
    }
    bought
}

const SHOPS: &[Shop] = &[
    Shop {
        name: "regular buyers",
        customers: 1_200,
        days: 900,
        customer: |random, _, days| {
            let (from, every) = (random.unit() * 0.7 * days, 20.0 + 60.0 * random.unit());
            buyer(random, from, days, every, 8, 0.08)
        },
        ece: 0.10,
        behind: 0.02,
    },
    Shop {
        name: "subscriptions",
        customers: 1_000,
        days: 800,
        customer: |random, _, days| {
            // To the day, every thirty days, until they are cancelled.
            let (mut at, mut bought) = ((random.unit() * 0.7 * days).floor(), Vec::new());
            while at < days {
                bought.push((at, 9.9));
                if random.unit() < 0.06 {
                    break;
                }
                at += 30.0;
            }
            bought
        },
        ece: 0.12,
        behind: 0.02,
    },
    Shop {
        name: "bursts",
        customers: 1_000,
        days: 900,
        customer: |random, _, days| {
            let (mut at, mut bought) = (random.unit() * 0.6 * days, Vec::new());
            while at < days {
                for _ in 0..3 {
                    bought.push((at, 15.0));
                    at += 1.0 + 4.0 * random.unit();
                }
                if random.unit() < 0.2 {
                    break;
                }
                at += 90.0 * gap(random, 1);
            }
            bought.retain(|(at, _)| *at < days);
            bought
        },
        ece: 0.10,
        behind: 0.02,
    },
    Shop {
        name: "one season a year",
        customers: 1_200,
        days: 1_100,
        customer: |random, _, days| {
            let mut bought = buyer(random, 0.0, days, 25.0, 1, 0.02);
            // Nine of ten purchases outside the ten weeks before the year's end do not happen.
            bought.retain(|(at, _)| (at % 365.25) > 290.0 || random.unit() < 0.1);
            bought
        },
        // A season that is nearly everything, seen twice.
        ece: 0.20,
        behind: 0.08,
    },
    Shop {
        name: "few customers",
        customers: 40,
        days: 700,
        customer: |random, _, days| {
            let (from, every) = (random.unit() * 0.5 * days, 20.0 + 80.0 * random.unit());
            buyer(random, from, days, every, 1, 0.1)
        },
        ece: 0.35,
        behind: 0.02,
    },
    Shop {
        name: "a short history",
        customers: 1_000,
        days: 320,
        customer: |random, _, days| {
            let (from, every) = (random.unit() * 0.6 * days, 15.0 + 60.0 * random.unit());
            buyer(random, from, days, every, 1, 0.1)
        },
        ece: 0.08,
        behind: 0.02,
    },
    Shop {
        name: "nobody comes back",
        customers: 800,
        days: 700,
        customer: |random, _, days| vec![(random.unit() * days, 30.0)],
        ece: 0.05,
        behind: 0.02,
    },
    Shop {
        name: "everybody always comes back",
        customers: 500,
        days: 700,
        customer: |random, _, days| buyer(random, 5.0, days, 12.0, 2, 0.0),
        ece: 0.05,
        behind: 0.02,
    },
    Shop {
        name: "one giant among small ones",
        customers: 600,
        days: 800,
        customer: |random, number, days| {
            if number == 0 {
                return (0..days as i32).map(|day| (f64::from(day), 1e9)).collect();
            }
            let from = random.unit() * 0.7 * days;
            buyer(random, from, days, 50.0, 1, 0.15)
        },
        ece: 0.10,
        behind: 0.02,
    },
    Shop {
        name: "a past that is cut off",
        customers: 1_500,
        days: 620,
        customer: |random, _, days| {
            // All have been customers for long when the data begin.
            let since = -2_000.0 * random.unit();
            let mut bought = buyer(random, since, days, 45.0, 1, 0.06);
            bought.retain(|(at, _)| *at >= 0.0);
            bought
        },
        ece: 0.08,
        behind: 0.02,
    },
];

fn results(shop: &Shop, seed: u64) -> Vec<Backtest> {
    let mut random = Random(seed);
    let purchases = (0..shop.customers).flat_map(|number| {
        let bought = (shop.customer)(&mut random, number, f64::from(shop.days));
        bought
            .into_iter()
            .map(move |(at, spend)| (format!("c{number}"), Day(10_000 + at as i32), spend))
            .collect::<Vec<_>>()
    });
    let history = History::of(purchases.collect::<Vec<_>>());
    let end = shop.days - 90;
    let plan = Plan {
        task: Task {
            horizon_days: 90,
            active_days: 180,
            grid: (1..end / 60 + 1).map(|step| Day(10_000 + 60 * step)).collect(),
        },
        tests: [end - 90, end].map(|day| Day(10_000 + day)).to_vec(),
        draws: 1,
        seed: 1,
    };
    backtest(&history, &plan, &[Candidate::Default, Candidate::MbgNbd])
}

#[test]
fn the_default_neither_breaks_nor_loses_its_calibration() {
    let mut failed = Vec::new();
    for shop in SHOPS {
        let [ours, plain] = &results(shop, 7)[..] else {
            panic!("two candidates")
        };
        let (m, p) = (&ours.mean, &plain.mean);
        // What who knows only the share of churners at each cut-off would lose.
        let entropy = |fold: &vigie_fit::backtest::Fold| {
            let b = fold.metrics.base.clamp(1e-6, 1.0 - 1e-6);
            -b * libm::log(b) - (1.0 - b) * libm::log(1.0 - b)
        };
        let nothing = ours.folds.iter().map(entropy).sum::<f64>() / ours.folds.len() as f64;
        println!(
            "{:<28} n {:>5} churn {:.3}  AUC {:.3}  log loss {:.4} (MBG/NBD {:.4}, base rate {nothing:.4})  ECE {:.3} ({:.3})  E/O {:.3}",
            shop.name, m.n, m.base, m.auc, m.log_loss, p.log_loss, m.ece, p.ece, m.expected_over_actual
        );
        let finite = ours
            .folds
            .iter()
            .flat_map(|fold| &fold.scored)
            .all(|s| s.p > 0.0 && s.p < 1.0);
        if !finite || m.log_loss > p.log_loss + 0.01 || m.log_loss > nothing + shop.behind || m.ece > shop.ece {
            failed.push(shop.name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
