//! A note on speed, printed and never judged: other work on the machine must not make a test red. Run with `--nocapture`,
//! and with `--release` for numbers that mean something.

use crate::scores::{act, customer, model};
use std::hint::black_box;
use vigie_event::{Signal, Timestamp};
use vigie_scoring::{CustomerState, ScoreKind, Scorer, assess};

const DAY: i64 = 86_400_000;

#[expect(
    clippy::disallowed_methods,
    reason = "measures durations for a note; nothing depends on them"
)]
fn nanoseconds<T>(calls: u32, mut call: impl FnMut(i64) -> T) -> f64 {
    let start = std::time::Instant::now();
    for n in 0..calls {
        let _ = black_box(call(i64::from(n)));
    }
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

#[test]
fn print_the_cost_of_one_call() {
    let model = model();
    let start = Timestamp::parse("1997-01-01T10:00:00Z").unwrap();
    let list: Vec<_> = (0..40)
        .map(|n| {
            let mut o = act(
                "1997-01-01T10:00:00Z",
                if n % 4 == 0 { Signal::Purchase } else { Signal::PageView },
            );
            o.at = start.plus_ms(n * 4 * DAY + n * 1_234_567);
            o
        })
        .collect();
    let state = customer(&list);
    let bytes = state.encode();
    let now = start.plus_ms(170 * DAY);
    let until = now.plus_ms(3650 * DAY);
    let scorer = Scorer::of(&state, &model);
    let note = |what: &str, ns: f64| println!("{ns:>9.0} ns  {what}");
    note("decode", nanoseconds(20_000, |_| CustomerState::decode(&bytes)));
    note("clone", nanoseconds(20_000, |_| state.clone()));
    note("encode", nanoseconds(20_000, |_| state.encode()));
    note(
        "fold one event (with a clone of the record)",
        nanoseconds(20_000, |_| customer(&list[..1])),
    );
    note("Scorer::of", nanoseconds(20_000, |_| Scorer::of(&state, &model)));
    note(
        "attrition at an instant",
        nanoseconds(100_000, |n| scorer.score(ScoreKind::Attrition, now.plus_ms(n * 1000))),
    );
    note(
        "churn at an instant",
        nanoseconds(100_000, |n| scorer.score(ScoreKind::Churn(90), now.plus_ms(n * 1000))),
    );
    let fitted = crate::fitted::fitted();
    let under_fitted = Scorer::of(&state, &fitted);
    note(
        "churn with contributions under a fitted model",
        nanoseconds(100_000, |n| under_fitted.churn_contributions(90, now.plus_ms(n * 1000))),
    );
    note(
        "next refresh under a fitted model",
        nanoseconds(5_000, |n| under_fitted.next_refresh(now.plus_ms(n * 1000), until)),
    );
    let trees = crate::trees::lightgbm();
    note(
        "40 trees of 15 leaves, without contributions",
        nanoseconds(20_000, |n| {
            trees.sum(&[n as f64 * 1e-4 - 1.0, 0.3, -0.2, 1.1, 0.0, -1.7])
        }),
    );
    note(
        "attrition crossing",
        nanoseconds(5_000, |n| {
            scorer.first_crossing(ScoreKind::Attrition, 0.8 + (n % 100) as f64 * 1e-3, now, until)
        }),
    );
    note(
        "churn crossing",
        nanoseconds(5_000, |n| {
            scorer.first_crossing(ScoreKind::Churn(90), 0.8 + (n % 100) as f64 * 1e-3, now, until)
        }),
    );
    note(
        "next refresh",
        nanoseconds(5_000, |n| scorer.next_refresh(now.plus_ms(n), until)),
    );
    note(
        "whole assessment",
        nanoseconds(5_000, |n| assess(&state, &model, now.plus_ms(n))),
    );
}
