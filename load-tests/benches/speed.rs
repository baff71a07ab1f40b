//! What one call costs on this machine: JSON, codecs, fold, score, crossing, policies. Numbers mean something on a quiet machine
//! only, and nothing is judged here. `make bench`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

mod work;

use criterion::{Criterion, criterion_group, criterion_main};

fn speed(criterion: &mut Criterion) {
    for (name, mut call) in work::all() {
        let _ = criterion.bench_function(name, |bencher| bencher.iter(&mut call));
    }
}

criterion_group!(benches, speed);
criterion_main!(benches);
