//! Expected purchases of the BTYD family and all of Pareto/NBD against 40-digit values on a grid of hard cases.

use proptest::prelude::*;
use vigie_scoring::ParetoNbd;
use vigie_scoring::btyd::{Btyd, Family, Recency};

const TOLERANCE: f64 = 1e-9;
const HORIZONS: [f64; 4] = [1.0, 13.0, 52.0, 520.0];

fn rows() -> Vec<(String, Vec<f64>)> {
    include_str!("fixtures/btyd_expected.csv")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("model"))
        .map(|line| {
            let (model, rest) = line.split_once(',').unwrap();
            (
                model.to_owned(),
                rest.split(',').map(|cell| cell.parse().unwrap()).collect(),
            )
        })
        .collect()
}

#[test]
fn every_value_of_the_stress_grid() {
    let rows = rows();
    assert_eq!(rows.len(), 378);
    let mut worst = std::collections::BTreeMap::<(String, &str), (f64, usize)>::new();
    for (line, (model, v)) in rows.iter().enumerate() {
        let recency = Recency {
            x: v[4] as u32,
            t_x: v[5],
            age: v[6],
        };
        let mut check = |what: &'static str, got: f64, expected: f64, scale: f64| {
            assert!(
                got.is_finite() || got == expected,
                "line {line}: {what} {got} of {model} {v:?}"
            );
            let deviation = if got == expected {
                0.0
            } else {
                (got - expected).abs() / expected.abs().max(scale)
            };
            let most = worst.entry((model.clone(), what)).or_default();
            if deviation > most.0 {
                *most = (deviation, line);
            }
        };
        // A probability below 1e-250 is judged by its logarithm.
        let tiny = v[8] < 1e-250;
        let expected: Box<dyn Fn(f64) -> f64> = if model == "pnbd" {
            let m = ParetoNbd {
                r: v[0],
                alpha: v[1],
                s: v[2],
                beta: v[3],
            };
            check("ln L", m.ln_likelihood(recency), v[7], 1.0);
            check("logit", m.logit_alive(recency), v[9], 1.0);
            for (horizon, want) in HORIZONS.into_iter().zip(&v[14..18]) {
                check("no purchase", m.p_no_purchase(recency, horizon), *want, 1e-30);
            }
            Box::new(move |horizon| m.expected_purchases(recency, horizon))
        } else {
            let family = if model == "bg" { Family::Bg } else { Family::Mbg };
            let m = Btyd {
                family,
                r: v[0],
                alpha: v[1],
                a: v[2],
                b: v[3],
            };
            Box::new(move |horizon| m.expected_purchases(recency, horizon))
        };
        for (horizon, want) in HORIZONS.into_iter().zip(&v[10..14]) {
            if !tiny {
                check("expected", expected(horizon), *want, 1e-12);
            }
        }
    }
    for ((model, what), (deviation, line)) in &worst {
        println!("{model:>5} {what:<12} {deviation:.1e}  {:?}", rows[*line]);
    }
    assert!(worst.values().all(|(deviation, _)| *deviation < TOLERANCE));
}

fn parameter() -> impl Strategy<Value = f64> {
    (-3.0f64..4.0).prop_map(|exponent| libm::pow(10.0, exponent))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Up to 100,000 purchases and 20 years (1,043 weeks), any parameters that a model file may have.
    #[test]
    fn no_value_is_ever_nan_or_out_of_range(
        p in [parameter(), parameter(), parameter(), parameter()],
        x in prop_oneof![Just(0u32), 1u32..20, 1u32..100_000],
        t_x in 0.0f64..1043.0,
        silence in prop_oneof![Just(0.0), 1e-6f64..1.0, 1.0f64..1043.0],
        horizon in 0.1f64..600.0,
    ) {
        let recency = Recency { x, t_x: if x == 0 { 0.0 } else { t_x }, age: if x == 0 { silence } else { t_x + silence } };
        let later = Recency { age: recency.age + 1.0, ..recency };
        let pareto = ParetoNbd { r: p[0], alpha: p[1], s: p[2], beta: p[3] };
        for family in [Family::Bg, Family::Mbg] {
            let m = Btyd { family, r: p[0], alpha: p[1], a: p[2], b: p[3] };
            let (short, long) = (m.expected_purchases(recency, horizon), m.expected_purchases(recency, 2.0 * horizon));
            prop_assert!(short.is_finite() && short >= 0.0 && long >= short * (1.0 - 1e-9), "{m:?} {short} {long}");
            // A purchase expected at least as often as its probability.
            let any = 1.0 - m.p_no_purchase(recency, horizon);
            prop_assert!(short >= any * (1.0 - 1e-6) - 1e-9, "{m:?}: {short} < {any}");
            prop_assert!(m.ln_likelihood(recency).is_finite());
        }
        let none = pareto.p_no_purchase(recency, horizon);
        prop_assert!((0.0..=1.0).contains(&none) && (0.0..=1.0).contains(&pareto.p_alive(recency)));
        prop_assert!(pareto.p_no_purchase(later, horizon) >= none - 1e-9);
        prop_assert!(pareto.ln_likelihood(recency).is_finite());
        let expected = pareto.expected_purchases(recency, horizon);
        prop_assert!(expected.is_finite() && expected >= (1.0 - none) * (1.0 - 1e-6) - 1e-9, "{pareto:?} {recency:?} {expected} {none}");
    }
}
