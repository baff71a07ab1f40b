//! Fits of the CDNOW sample against the published ones (Fader, Hardie, Lee 2005; Batislam et al. 2007; Fader, Hardie 2013)
//! and an independent implementation's digits.

use vigie_fit::btyd::{Cells, fit, fit_pareto};
use vigie_fit::money::fit_gamma_gamma;
use vigie_scoring::btyd::{Family, Recency};
use vigie_scoring::value::discounted_purchases;

fn customers() -> Vec<(Recency, f64)> {
    include_str!("fixtures/cdnow_sample.csv")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with('x'))
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let weeks = |cell: &str| cell.parse::<f64>().unwrap() / 7.0;
            let recency = Recency {
                x: cells[0].parse().unwrap(),
                t_x: weeks(cells[1]),
                age: weeks(cells[2]),
            };
            (recency, cells[3].parse().unwrap_or(f64::NAN))
        })
        .collect()
}

fn close(name: &str, got: f64, expected: f64, relative: f64) {
    assert!(
        (got - expected).abs() <= relative * expected.abs(),
        "{name}: {got} != {expected}"
    );
}

#[test]
fn the_published_fits_of_the_cdnow_sample() {
    let customers = customers();
    assert_eq!(customers.len(), 2357);
    let cells = Cells::of(customers.iter().map(|(recency, _)| *recency));
    let bg = fit(Family::Bg, &cells, None);
    println!("{bg:?}");
    for (name, got, expected) in [
        ("r", bg.model.r, 0.242_594_5),
        ("alpha", bg.model.alpha, 4.413_602),
        ("a", bg.model.a, 0.792_922),
        ("b", bg.model.b, 2.425_907),
    ] {
        close(name, got, expected, 1e-3);
    }
    assert!((bg.ln_likelihood + 9_582.429_206_7).abs() < 1e-4 && bg.converged);
    let mbg = fit(Family::Mbg, &cells, Some(&bg.model));
    println!("{mbg:?}");
    for (name, got, expected) in [
        ("r", mbg.model.r, 0.524_843_2),
        ("alpha", mbg.model.alpha, 6.183_086),
        ("a", mbg.model.a, 0.891_359),
        ("b", mbg.model.b, 1.614_002),
    ] {
        close(name, got, expected, 1e-3);
    }
    assert!((mbg.ln_likelihood + 9_582.135_715_6).abs() < 1e-4 && mbg.converged);
    let pareto = fit_pareto(&cells, None);
    println!("{pareto:?}");
    for (name, got, expected) in [
        ("r", pareto.model.r, 0.553_277),
        ("alpha", pareto.model.alpha, 10.577_683),
        ("s", pareto.model.s, 0.606_240),
        ("beta", pareto.model.beta, 11.668_735),
    ] {
        close(name, got, expected, 1e-3);
    }
    assert!((pareto.ln_likelihood + 9_594.976_178_9).abs() < 1e-4 && pareto.converged);
}

#[test]
fn the_published_gamma_gamma_and_the_total_lifetime_value() {
    let customers = customers();
    let fitted = fit_gamma_gamma(customers.iter().map(|(r, mean)| (r.x, *mean))).unwrap();
    println!("{fitted:?}");
    for (name, got, expected) in [
        ("p", fitted.model.p, 6.2496),
        ("q", fitted.model.q, 3.7442),
        ("v", fitted.model.v, 15.4435),
    ] {
        close(name, got, expected, 1e-3);
    }
    close("population mean", fitted.model.population_mean(), 35.170, 1e-3);
    // CLV over 12 periods of 4.345 weeks at 1 % a period, the convention of the Python package lifetimes.
    let bg = fit(
        Family::Bg,
        &Cells::of(customers.iter().map(|(recency, _)| *recency)),
        None,
    )
    .model;
    let total: f64 = customers
        .iter()
        .map(|(recency, mean)| {
            let purchases = discounted_purchases(|t| bg.expected_purchases(*recency, t), 12, 4.345, 0.01);
            purchases * fitted.model.expected_spend(recency.x, *mean)
        })
        .sum();
    println!("total CLV {total}");
    close("total CLV", total, 71_507.95, 2e-3);
}
