//! The closed forms against 40-digit values on a grid of hard cases.

use vigie_scoring::btyd::{Btyd, Family, Recency, sigmoid};

const TOLERANCE: f64 = 1e-9;

struct Row {
    line: usize,
    model: Btyd,
    recency: Recency,
    values: Vec<f64>,
}

fn rows() -> Vec<Row> {
    include_str!("fixtures/btyd_stress.csv")
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("bg,") || line.starts_with("mbg,"))
        .map(|(line, text)| {
            let mut cells = text.split(',');
            let family = if cells.next() == Some("bg") {
                Family::Bg
            } else {
                Family::Mbg
            };
            let v: Vec<f64> = cells.map(|cell| cell.parse().unwrap()).collect();
            let model = Btyd {
                family,
                r: v[0],
                alpha: v[1],
                a: v[2],
                b: v[3],
            };
            Row {
                line: line + 1,
                model,
                recency: Recency {
                    x: v[4] as u32,
                    t_x: v[5],
                    age: v[6],
                },
                values: v[7..].to_vec(),
            }
        })
        .collect()
}

/// Relative to the expected value, or absolute where that is within the tolerance of 0.
fn close(got: f64, expected: f64, scale: f64) -> bool {
    got == expected || (got - expected).abs() <= TOLERANCE * expected.abs().max(scale)
}

#[test]
fn every_value_of_the_stress_grid() {
    let rows = rows();
    assert_eq!(rows.len(), 252);
    let mut worst = [0.0f64; 9];
    for Row {
        line,
        model,
        recency,
        values,
    } in &rows
    {
        let logit = model.logit_alive(*recency).total();
        let near_logit = |p: f64| -> bool { close(p, values[1], 0.0) || close(logit, values[2], 1.0) };
        assert!(
            close(logit, values[2], 1.0),
            "line {line}: logit {logit} != {}",
            values[2]
        );
        assert!(near_logit(model.p_alive(*recency)), "line {line}: P(alive)");
        let mut check = |slot: usize, name: &str, got: f64, expected: f64, scale: f64| {
            assert!(close(got, expected, scale), "line {line}: {name} {got} != {expected}");
            if expected.is_finite() && expected.abs() > 1e-30 {
                worst[slot] = worst[slot].max((got - expected).abs() / expected.abs().max(scale));
            }
        };
        check(0, "ln L", model.ln_likelihood(*recency), values[0], 1e-30);
        for (slot, (horizon, expected)) in [1.0, 13.0, 52.0, 520.0].into_iter().zip(&values[3..7]).enumerate() {
            check(
                1 + slot,
                "P(no purchase)",
                model.p_no_purchase(*recency, horizon),
                *expected,
                0.0,
            );
        }
        for (slot, (level, expected)) in [0.9, 0.5, 0.1, 0.01].into_iter().zip(&values[7..11]).enumerate() {
            // The raw formula subtracts α + t_x: its value is exact relative to the larger of the two.
            let scale = model.alpha + recency.t_x;
            check(
                5 + slot,
                "crossing age",
                model.crossing_age(recency.x, recency.t_x, level),
                *expected,
                scale,
            );
        }
    }
    println!("worst relative deviations (ln L, 4 horizons, 4 levels): {worst:?}");
}

#[test]
fn huge_histories_and_long_silences_stay_finite_and_in_range() {
    let published = [
        Btyd {
            family: Family::Bg,
            r: 0.2426,
            alpha: 4.4136,
            a: 0.7929,
            b: 2.4259,
        },
        Btyd {
            family: Family::Mbg,
            r: 0.5248,
            alpha: 6.1831,
            a: 0.8914,
            b: 1.6140,
        },
    ];
    for model in published {
        for x in [0, 1, 7, 1000, 100_000] {
            for t_x in [0.0, 1e-6, 1.0, 500.0] {
                let t_x = if x == 0 { 0.0 } else { t_x };
                let mut before = (f64::INFINITY, 0.0f64);
                for silence in [0.0, 1e-9, 0.1, 1.0, 52.0, 1043.6, 1e5] {
                    let recency = Recency {
                        x,
                        t_x,
                        age: t_x + silence,
                    };
                    let p = model.p_alive(recency);
                    let churn = model.no_purchase(recency, 13.0);
                    assert!(
                        (0.0..=1.0).contains(&p) && (0.0..=1.0).contains(&churn.total()),
                        "{model:?} {recency:?}"
                    );
                    assert!(model.ln_likelihood(recency).is_finite(), "{model:?} {recency:?}");
                    assert!(
                        p <= before.0 && churn.total() >= before.1 - 1e-15,
                        "{model:?} {recency:?}"
                    );
                    before = (p, churn.total());
                }
            }
        }
    }
}

#[test]
fn the_crossing_age_is_where_p_alive_has_the_level() {
    for Row {
        line, model, recency, ..
    } in rows()
    {
        for level in [0.9, 0.5, 0.1, 0.01] {
            let age = model.crossing_age(recency.x, recency.t_x, level);
            if age > recency.t_x && age < 1e12 {
                let p = model.p_alive(Recency { age, ..recency });
                // A rounding error of the age moves the log-odds by about (r + x)·ε.
                let slack = 1e-12 * (1.0 + f64::from(recency.x)) * (age / (model.alpha + recency.t_x)).max(1.0);
                assert!((p - level).abs() <= slack, "line {line}: P({age}) = {p}, not {level}");
            }
        }
    }
}

#[test]
fn the_sigmoid_is_exact_at_its_ends() {
    for (z, p) in [
        (0.0, 0.5),
        (f64::INFINITY, 1.0),
        (f64::NEG_INFINITY, 0.0),
        (800.0, 1.0),
        (-800.0, 0.0),
    ] {
        assert_eq!(sigmoid(z), p);
    }
    assert!(sigmoid(-700.0) > 0.0);
}
