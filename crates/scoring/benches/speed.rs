//! What one call costs: scores with contributions and intervals, crossings, the codec, folding, trees. Numbers mean something
//! on a quiet machine only; nothing is judged here. `cargo bench -p vigie-scoring`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::io::Read;
use vigie_event::{Channel, Currency, DAY_MS, Money, PersonId, Signal, Timestamp};
use vigie_scoring::churn::Feature;
use vigie_scoring::{CustomerState, Model, Observation, ScoreKind, Scorer, Trees, assess};

/// Forty acts over 160 days, every fourth a purchase.
fn acts() -> Vec<Observation> {
    let start = Timestamp::parse("1997-01-01T10:00:00Z").unwrap();
    (0..40)
        .map(|n| Observation {
            at: start.plus_ms(n * 4 * DAY_MS + n * 1_234_567),
            signal: if n % 4 == 0 { Signal::Purchase } else { Signal::PageView },
            channel: Channel::Web,
            money: (n % 4 == 0).then(|| Money {
                minor: 1_999,
                currency: Currency::parse("EUR").unwrap(),
            }),
            human: true,
        })
        .collect()
}

fn customer(acts: &[Observation]) -> CustomerState {
    let person = PersonId::known("c").unwrap();
    let mut state = CustomerState::default();
    for act in acts {
        let _ = state.fold(&person, act);
    }
    state
}

/// The shipped model with every weight set and a level for two years: the default model as a fit gives it.
fn fitted() -> Model {
    let weekly: Vec<String> = (0..105)
        .map(|week| format!("{:.3}", 0.4 * libm::sin(f64::from(week) * 0.12)))
        .collect();
    let mut text = format!(
        "{}\n[churn-model]\ncadence-mean = 3.0\ncadence-variance = 0.8\nlevel-from = \"1997-01-01\"\nlevel-weekly = [{}]\n[churn-model.weights]\n",
        Model::shipped_text(),
        weekly.join(", ")
    );
    for (feature, weight) in Feature::ALL.iter().zip([-0.4, -0.1, 0.4, 0.1, 0.1, -0.15, 0.2, 0.1]) {
        text += &format!(
            "{} = {{ weight = {weight}, mean = 1.0, scale = 0.8 }}\n",
            feature.label()
        );
    }
    Model::parse(&text).unwrap()
}

fn trees() -> Trees {
    let mut text = String::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "a fixture of this repository, known to be small"
    )]
    let read = flate2::read::GzDecoder::new(include_bytes!("../tests/all/fixtures/trees/lightgbm.txt.gz").as_slice())
        .read_to_string(&mut text);
    assert!(read.is_ok(), "{read:?}");
    Trees::parse(&text).unwrap()
}

fn speed(criterion: &mut Criterion) {
    let (acts, plain, fitted) = (acts(), Model::shipped().unwrap(), fitted());
    let state = customer(&acts);
    let bytes = state.encode();
    let now = acts.last().unwrap().at.plus_ms(20 * DAY_MS);
    let until = now.plus_ms(3_650 * DAY_MS);
    let (default, closed) = (Scorer::of(&state, &fitted), Scorer::of(&state, &plain));
    let mut bench = |name: &str, call: &mut dyn FnMut()| {
        let _ = criterion.bench_function(name, |bencher| bencher.iter(&mut *call));
    };
    bench("churn with contributions, default model", &mut || {
        let _ = black_box(default.churn_parts(90, black_box(now)));
    });
    bench("churn with contributions and interval, default model", &mut || {
        let _ = black_box((default.churn_parts(90, black_box(now)), default.churn_interval(90, now)));
    });
    bench("churn with contributions, closed form", &mut || {
        let _ = black_box(closed.churn_parts(90, black_box(now)));
    });
    bench("attrition with contributions", &mut || {
        let _ = black_box(closed.attrition_terms(black_box(now)));
    });
    bench("read the record for the default model", &mut || {
        let _ = black_box(Scorer::of(black_box(&state), &fitted));
    });
    bench("whole assessment with reasons and value", &mut || {
        let _ = black_box(assess(black_box(&state), &fitted, now));
    });
    bench("attrition crossing", &mut || {
        let _ = black_box(closed.first_crossing(ScoreKind::Attrition, black_box(0.8), now, until));
    });
    bench("churn crossing, closed form", &mut || {
        let _ = black_box(closed.first_crossing(ScoreKind::Churn(90), black_box(0.9), now, until));
    });
    bench("churn crossing, default model", &mut || {
        let _ = black_box(default.first_crossing(ScoreKind::Churn(90), black_box(0.9), now, until));
    });
    bench("next refresh, default model", &mut || {
        let _ = black_box(default.next_refresh(black_box(now), until));
    });
    bench("decode", &mut || {
        let _ = black_box(CustomerState::decode(black_box(&bytes)));
    });
    bench("encode", &mut || {
        let _ = black_box(black_box(&state).encode());
    });
    let person = PersonId::known("c").unwrap();
    let mut grown = state.clone();
    bench("fold one event into a record of forty", &mut || {
        let _ = black_box(grown.fold(&person, black_box(acts.last().unwrap())));
    });
    let trees = trees();
    let row = [0.31, 0.3, -0.2, 1.1, 0.0, -1.7];
    bench("200 trees of 15 leaves (40 trees five times)", &mut || {
        for _ in 0..5 {
            let _ = black_box(trees.sum(black_box(&row)));
        }
    });
    bench("40 trees with TreeSHAP", &mut || {
        let _ = black_box(trees.contributions(black_box(&row)));
    });
}

criterion_group!(benches, speed);
criterion_main!(benches);
