//! The two churn tasks: closed forms against the reference table, and the default model against the quality that it is
//! held to.

use crate::files::{Table, read};
use serde_json::Value;
use vigie_event::{Day, Timestamp};
use vigie_fit::History;
use vigie_fit::backtest::{Backtest, Candidate, Plan, backtest};
use vigie_fit::churn::Task;

fn day(text: &str) -> Day {
    Timestamp::parse(&text[..10]).unwrap().day()
}

fn months(from: &str, to: &str) -> Vec<Day> {
    let (mut year, mut month): (u32, u32) = (from[..4].parse().unwrap(), from[5..7].parse().unwrap());
    let mut grid = Vec::new();
    loop {
        let first = format!("{year:04}-{month:02}-01");
        grid.push(day(&first));
        if first.starts_with(to) {
            return grid;
        }
        (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    }
}

struct Set {
    name: &'static str,
    history: History,
    plan: Plan,
}

fn plan(grid: Vec<Day>, tests: [&str; 3]) -> Plan {
    Plan {
        task: Task {
            horizon_days: 90,
            active_days: 180,
            grid,
        },
        tests: tests.map(day).to_vec(),
        draws: 200,
        seed: 1,
    }
}

fn cdnow() -> Set {
    let table = Table::read("data/cdnow/cdnow_master.csv.gz");
    let purchases = table
        .rows
        .iter()
        .map(|r| (r[0].clone(), day(&r[1]), r[3].parse::<f64>().unwrap()));
    Set {
        name: "cdnow",
        history: History::of(purchases),
        plan: plan(months("1997-04", "1998-04"), ["1997-10-01", "1998-01-01", "1998-04-01"]),
    }
}

fn online_retail() -> Set {
    let table = Table::read("data/online_retail_ii/events.csv.gz");
    let purchases = table.rows.iter().filter(|r| r[2] == "purchase").filter_map(|r| {
        let amount: f64 = r[4].parse().unwrap();
        (amount > 0.0).then(|| (r[0].clone(), day(&r[1]), amount))
    });
    Set {
        name: "online_retail_ii",
        history: History::of(purchases),
        plan: plan(months("2010-03", "2011-09"), ["2011-03-01", "2011-06-01", "2011-09-01"]),
    }
}

fn print(set: &Set, results: &[Backtest]) {
    for result in results {
        for (what, m) in result
            .folds
            .iter()
            .map(|f| (f.cutoff.to_string(), &f.metrics))
            .chain([("mean".to_owned(), &result.mean)])
        {
            println!(
                "{} {:<10} {what}: n {} AUC {:.4} PR {:.4}/{:.4} log loss {:.4} Brier {:.4} ECE {:.4} lift {:.4}/{:.4} E/O {:.3}",
                set.name,
                result.candidate.label(),
                m.n,
                m.auc,
                m.pr_auc_churn,
                m.pr_auc_stay,
                m.log_loss,
                m.brier,
                m.ece,
                m.lift10_churn,
                m.lift10_stay,
                m.expected_over_actual
            );
        }
        println!("{} {:<10} {:?}", set.name, result.candidate.label(), result.intervals);
    }
}

/// The reference was fitted and measured by other programs; a likelihood's flat directions move its metrics by no more
/// than this.
fn like_the_reference(set: &Set, results: &[Backtest]) {
    let reference: Value = serde_json::from_str(&read(&format!("goldens/churn_{}.json", set.name))).unwrap();
    for (candidate, key) in [
        (Candidate::BgNbd, "bgnbd_pchurn"),
        (Candidate::MbgNbd, "mbgnbd_pchurn"),
        (Candidate::ParetoNbd, "paretonbd_pchurn"),
    ] {
        let got = results.iter().find(|r| r.candidate == candidate).unwrap();
        let want = &reference["models"][key];
        let number = |value: &Value, name: &str| value[name].as_f64().unwrap();
        for fold in &got.folds {
            let of = &want["per_cutoff"][&fold.cutoff.to_string()];
            assert_eq!(fold.metrics.n as f64, number(of, "n"));
            assert!((fold.metrics.base - number(of, "base")).abs() < 1e-12);
        }
        let (m, want) = (&got.mean, &want["mean"]);
        for (name, value) in [
            ("auc", m.auc),
            ("pr_auc_churn", m.pr_auc_churn),
            ("pr_auc_stay", m.pr_auc_stay),
            ("logloss", m.log_loss),
            ("brier", m.brier),
            ("ece10", m.ece),
        ] {
            assert!(
                (value - number(want, name)).abs() < 1e-3,
                "{} {key} {name}: {value} != {}",
                set.name,
                want[name]
            );
        }
        for (name, value) in [("lift10_churn", m.lift10_churn), ("lift10_stay", m.lift10_stay)] {
            assert!(
                (value - number(want, name)).abs() < 1e-2,
                "{} {key} {name}: {value} != {}",
                set.name,
                want[name]
            );
        }
    }
}

fn at_least(set: &Set, result: &Backtest, auc: f64, log_loss: f64, ece: f64) {
    let m = &result.mean;
    assert!(
        m.auc >= auc && m.log_loss <= log_loss && m.ece <= ece,
        "{}: {m:?}",
        set.name
    );
}

#[test]
fn cdnow_master() {
    let set = cdnow();
    assert_eq!(set.history.len(), 23_570);
    let results = backtest(&set.history, &set.plan, &Candidate::ALL);
    print(&set, &results);
    like_the_reference(&set, &results);
    at_least(&set, &results[0], 0.711, 0.598, 0.030);
}

#[test]
fn online_retail_ii() {
    let set = online_retail();
    let results = backtest(&set.history, &set.plan, &Candidate::ALL);
    print(&set, &results);
    like_the_reference(&set, &results);
    at_least(&set, &results[0], 0.778, 0.566, 0.058);
}

/// A note on speed, printed and never judged.
#[test]
fn print_the_time_of_the_master_fit() {
    let history = cdnow().history;
    #[expect(
        clippy::disallowed_methods,
        reason = "measures a duration for a note; nothing depends on it"
    )]
    let clock = std::time::Instant::now();
    let cells = history.cells(day("1997-10-01"));
    for family in [vigie_scoring::btyd::Family::Bg, vigie_scoring::btyd::Family::Mbg] {
        let fitted = vigie_fit::btyd::fit(family, &cells, None);
        #[expect(clippy::disallowed_methods, reason = "as above")]
        let past = clock.elapsed();
        println!("{fitted:?}; {} customers, {past:?} since the start", cells.customers());
    }
    let _ = vigie_fit::btyd::fit_pareto(&cells, None);
    #[expect(clippy::disallowed_methods, reason = "as above")]
    let past = clock.elapsed();
    println!("with Pareto/NBD {past:?}");
}

/// A planted leak: everything from the cut-off on is changed, and no prediction may move.
#[test]
fn what_comes_after_the_cutoff_changes_no_score() {
    let mut set = online_retail();
    let cutoff = day("2011-03-01");
    set.plan.tests = vec![cutoff];
    set.plan.draws = 0;
    let table = Table::read("data/online_retail_ii/events.csv.gz");
    let poisoned = History::of(table.rows.iter().filter(|r| r[2] == "purchase").filter_map(|r| {
        let (at, amount): (Day, f64) = (day(&r[1]), r[4].parse().unwrap());
        let (at, amount) = if at < cutoff {
            (at, amount)
        } else {
            (Day(cutoff.0 + at.0 % 7), 1e6)
        };
        (amount > 0.0).then(|| (r[0].clone(), at, amount))
    }));
    let candidates = [Candidate::Default, Candidate::Gbdt, Candidate::MbgNbd];
    let (clean, poisoned) = (
        backtest(&set.history, &set.plan, &candidates),
        backtest(&poisoned, &set.plan, &candidates),
    );
    for (clean, poisoned) in clean.iter().zip(&poisoned) {
        let p = |b: &Backtest| b.folds[0].scored.iter().map(|s| s.p).collect::<Vec<_>>();
        assert_eq!(p(clean), p(poisoned), "{:?}", clean.candidate);
        assert_ne!(clean.folds[0].metrics.base, poisoned.folds[0].metrics.base);
    }
}
