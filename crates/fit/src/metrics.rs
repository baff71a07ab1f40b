//! How good predicted probabilities are: ranking (AUC, average precision, lift), calibration (log loss, Brier, ECE), and
//! bootstrap intervals from a seed that the caller gives.
//!
//! Definitions are those of scikit-learn (AUC with ties counted half, average precision as a step function) and, for ECE
//! and lift, of the project's benchmark: sort by probability (stable, so that ties keep their order), ten chunks of sizes
//! that differ by at most one, the weighted mean of |mean p − mean y|. Probabilities are clipped to [1e-6, 1 − 1e-6].

use libm::log;

/// One prediction and what came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Predicted probability of churn.
    pub p: f64,
    /// Whether the customer churned.
    pub churned: bool,
}

/// All metrics of one set of predictions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Metrics {
    /// Predictions.
    pub n: usize,
    /// Share that churned.
    pub base: f64,
    /// Area under the ROC curve.
    pub auc: f64,
    /// Average precision for churn.
    pub pr_auc_churn: f64,
    /// Average precision for staying.
    pub pr_auc_stay: f64,
    /// Mean −ln of the probability of what happened.
    pub log_loss: f64,
    /// Mean squared error.
    pub brier: f64,
    /// Expected calibration error over ten chunks.
    pub ece: f64,
    /// Churn rate among the 10 % with the highest p over the base rate.
    pub lift10_churn: f64,
    /// The same for stayers among the 10 % with the lowest p.
    pub lift10_stay: f64,
    /// Sum of p over the number that churned.
    pub expected_over_actual: f64,
}

/// One chunk of the calibration table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Customers.
    pub n: usize,
    /// Mean predicted probability.
    pub predicted: f64,
    /// Share that churned.
    pub observed: f64,
}

/// Computes every metric; of nothing all are 0.
#[must_use]
pub fn metrics(scored: &[Scored]) -> Metrics {
    if scored.is_empty() {
        return Metrics::default();
    }
    let ascending = sorted(scored);
    let n = scored.len() as f64;
    let churners = scored.iter().filter(|s| s.churned).count() as f64;
    let top = scored.len().div_ceil(10);
    let rate = |part: &mut dyn Iterator<Item = &Scored>, wanted: bool| {
        part.filter(|s| s.churned == wanted).count() as f64 / top as f64
    };
    let base = churners / n;
    let over = |share: f64, base: f64| if base > 0.0 { share / base } else { 0.0 };
    Metrics {
        n: scored.len(),
        base,
        auc: auc(&ascending),
        pr_auc_churn: average_precision(&mut ascending.iter().rev(), true, churners),
        pr_auc_stay: average_precision(&mut ascending.iter(), false, n - churners),
        log_loss: scored.iter().map(loss).sum::<f64>() / n,
        brier: scored.iter().map(squared_error).sum::<f64>() / n,
        ece: ece(&chunks(&ascending, 10), n),
        lift10_churn: over(rate(&mut ascending.iter().rev().take(top), true), base),
        lift10_stay: over(rate(&mut ascending.iter().take(top), false), 1.0 - base),
        expected_over_actual: over(scored.iter().map(|s| s.p).sum::<f64>(), churners),
    }
}

/// Sorted by p into `count` chunks whose sizes differ by at most one, the longer ones first (numpy's `array_split`).
#[must_use]
pub fn bins(scored: &[Scored], count: usize) -> Vec<Bin> {
    chunks(&sorted(scored), count)
}

fn chunks(ascending: &[Scored], count: usize) -> Vec<Bin> {
    let (size, longer) = (ascending.len() / count.max(1), ascending.len() % count.max(1));
    let mut rest = ascending;
    let mut bins = Vec::with_capacity(count);
    for chunk in 0..count {
        let (bin, after) = rest
            .split_at_checked(size + usize::from(chunk < longer))
            .unwrap_or((rest, &[]));
        rest = after;
        if !bin.is_empty() {
            let n = bin.len() as f64;
            bins.push(Bin {
                n: bin.len(),
                predicted: bin.iter().map(|s| s.p).sum::<f64>() / n,
                observed: bin.iter().filter(|s| s.churned).count() as f64 / n,
            });
        }
    }
    bins
}

/// The share of all churners found among the first k of n by falling p, at `points` + 1 equidistant shares k / n.
#[must_use]
pub fn gain(scored: &[Scored], points: usize) -> Vec<(f64, f64)> {
    let ascending = sorted(scored);
    let all = scored.iter().filter(|s| s.churned).count().max(1) as f64;
    let mut found = 0usize;
    let mut at = vec![0usize];
    at.extend(ascending.iter().rev().map(|s| {
        found += usize::from(s.churned);
        found
    }));
    let n = ascending.len();
    (0..=points)
        .map(|point| {
            let k = n * point / points.max(1);
            (
                point as f64 / points.max(1) as f64,
                at.get(k).map_or(0.0, |found| *found as f64 / all),
            )
        })
        .collect()
}

/// 95 % bootstrap intervals of means over several sets of predictions, each as (low, high).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Intervals {
    /// Of the AUC.
    pub auc: (f64, f64),
    /// Of the log loss.
    pub log_loss: (f64, f64),
    /// Of the Brier score.
    pub brier: (f64, f64),
    /// Of the ECE. It is a sum of absolute values, which drawing anew enlarges: the interval lies somewhat high.
    pub ece: (f64, f64),
}

/// The intervals: customers are drawn anew within each set (percentile bootstrap; Efron, Tibshirani, 1993).
#[must_use]
pub fn intervals(sets: &[Vec<Scored>], draws: u32, seed: u64) -> Intervals {
    let mut random = SplitMix(seed);
    let ascending: Vec<Vec<Scored>> = sets.iter().map(|set| sorted(set)).collect();
    let mut means: [Vec<f64>; 4] = Default::default();
    for _ in 0..draws {
        let mut sums = [0.0; 4];
        for set in &ascending {
            // How often each is drawn; written out in order, so that nothing needs to be sorted again.
            let mut times = vec![0u32; set.len()];
            for _ in set {
                if let Some(times) = times.get_mut(random.below(set.len())) {
                    *times += 1;
                }
            }
            let each = set.iter().zip(&times);
            let drawn: Vec<Scored> = each.flat_map(|(s, times)| (0..*times).map(|_| *s)).collect();
            let n = drawn.len().max(1) as f64;
            let mean = |of: fn(&Scored) -> f64| drawn.iter().map(of).sum::<f64>() / n;
            let values = [
                auc(&drawn),
                mean(loss),
                mean(squared_error),
                ece(&chunks(&drawn, 10), n),
            ];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        let count = sets.len().max(1) as f64;
        means
            .iter_mut()
            .zip(sums)
            .for_each(|(means, sum)| means.push(sum / count));
    }
    let [auc, log_loss, brier, ece] = means.map(|mut means| middle(&mut means));
    Intervals {
        auc,
        log_loss,
        brier,
        ece,
    }
}

/// The middle 95 % of some values.
fn middle(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (share * values.len().saturating_sub(1) as f64).round() as usize;
        values.get(rank).copied().unwrap_or(0.0)
    };
    (at(0.025), at(0.975))
}

/// The 95 % bootstrap interval of the difference of two models' mean log loss on the same customers (a − b), and the
/// difference itself: below 0, a is better.
#[must_use]
pub fn log_loss_difference(a: &[Vec<Scored>], b: &[Vec<Scored>], draws: u32, seed: u64) -> (f64, f64, f64) {
    let pairs: Vec<Vec<f64>> = a
        .iter()
        .zip(b)
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| loss(a) - loss(b)).collect())
        .collect();
    let sets = pairs.len().max(1) as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let mut random = SplitMix(seed);
    let mut means: Vec<f64> = (0..draws)
        .map(|_| {
            let of = |set: &Vec<f64>| {
                let drawn: f64 = set.iter().filter_map(|_| set.get(random.below(set.len()))).sum();
                drawn / set.len().max(1) as f64
            };
            pairs.iter().map(of).sum::<f64>() / sets
        })
        .collect();
    let difference = pairs.iter().map(|set| mean(set)).sum::<f64>() / sets;
    let (low, high) = middle(&mut means);
    (difference, low, high)
}

fn clipped(p: f64) -> f64 {
    p.clamp(1e-6, 1.0 - 1e-6)
}

fn loss(s: &Scored) -> f64 {
    -log(if s.churned { clipped(s.p) } else { 1.0 - clipped(s.p) })
}

fn squared_error(s: &Scored) -> f64 {
    let off = clipped(s.p) - f64::from(u8::from(s.churned));
    off * off
}

fn ece(bins: &[Bin], n: f64) -> f64 {
    let off = |bin: &Bin| bin.n as f64 * (bin.predicted - bin.observed).abs();
    bins.iter().map(off).sum::<f64>() / n
}

fn sorted(scored: &[Scored]) -> Vec<Scored> {
    let mut sorted = scored.to_vec();
    sorted.sort_by(|a, b| a.p.total_cmp(&b.p));
    sorted
}

/// By ranks, ties counted half.
fn auc(ascending: &[Scored]) -> f64 {
    let (mut stayed_before, mut wins, mut churners) = (0.0, 0.0, 0.0);
    for tie in ascending.chunk_by(|a, b| a.p == b.p) {
        let churned = tie.iter().filter(|s| s.churned).count() as f64;
        let stayed = tie.len() as f64 - churned;
        wins += churned * (stayed_before + 0.5 * stayed);
        stayed_before += stayed;
        churners += churned;
    }
    if churners * stayed_before > 0.0 {
        wins / (churners * stayed_before)
    } else {
        0.5
    }
}

/// Σ (recall gained at a distinct p) · (precision there), from the most likely on.
fn average_precision(from_likely: &mut dyn Iterator<Item = &Scored>, wanted: bool, all: f64) -> f64 {
    let ordered: Vec<&Scored> = from_likely.collect();
    let (mut seen, mut found, mut sum) = (0.0, 0.0, 0.0);
    for tie in ordered.chunk_by(|a, b| a.p == b.p) {
        let hits = tie.iter().filter(|s| s.churned == wanted).count() as f64;
        seen += tie.len() as f64;
        found += hits;
        sum += hits * found / seen;
    }
    if all > 0.0 { sum / all } else { 0.0 }
}

/// A small generator of evenly spread numbers (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(pairs: &[(f64, bool)]) -> Vec<Scored> {
        pairs
            .iter()
            .map(|(p, churned)| Scored {
                p: *p,
                churned: *churned,
            })
            .collect()
    }

    /// Worked by hand: pairs won 3 of 4 and one tie.
    #[test]
    fn a_small_case_by_hand() {
        let m = metrics(&scored(&[(0.9, true), (0.6, false), (0.6, true), (0.1, false)]));
        assert_eq!((m.auc, m.base, m.n), (0.875, 0.5, 4));
        assert!((m.pr_auc_churn - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-15);
        assert!((m.brier - (0.01 + 0.36 + 0.16 + 0.01) / 4.0).abs() < 1e-15);
        assert_eq!((m.lift10_churn, m.lift10_stay), (2.0, 2.0));
    }

    #[test]
    fn chunks_are_numpys() {
        let all: Vec<Scored> = (0..23)
            .map(|k| Scored {
                p: f64::from(k) / 23.0,
                churned: k % 2 == 0,
            })
            .collect();
        let sizes: Vec<usize> = bins(&all, 10).iter().map(|b| b.n).collect();
        assert_eq!(sizes, [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn gain_ends_at_everybody() {
        let gain = gain(&scored(&[(0.9, true), (0.5, false), (0.4, true), (0.1, false)]), 4);
        assert_eq!(gain, [(0.0, 0.0), (0.25, 0.5), (0.5, 0.5), (0.75, 1.0), (1.0, 1.0)]);
    }

    #[test]
    fn an_interval_holds_its_estimate() {
        let set: Vec<Scored> = (0..400)
            .map(|k| Scored {
                p: f64::from(k % 20) / 20.0,
                churned: (k * 7 + k / 3) % 20 < k % 20,
            })
            .collect();
        let exact = metrics(&set);
        let drawn = intervals(std::slice::from_ref(&set), 200, 7);
        for (name, value, (low, high)) in [
            ("AUC", exact.auc, drawn.auc),
            ("log loss", exact.log_loss, drawn.log_loss),
            ("Brier", exact.brier, drawn.brier),
            ("ECE", exact.ece, drawn.ece),
        ] {
            assert!(
                low < value && value < high && high - low < 0.2 * (1.0 + value),
                "{name}: {low} {value} {high}"
            );
        }
        assert_eq!(
            log_loss_difference(std::slice::from_ref(&set), std::slice::from_ref(&set), 20, 1),
            (0.0, 0.0, 0.0)
        );
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(metrics(&[]), Metrics::default());
        assert_eq!(metrics(&scored(&[(0.4, true)])).auc, 0.5);
    }
}
