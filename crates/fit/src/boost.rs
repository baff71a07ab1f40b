//! Gradient boosting of small trees on histograms: what corrects BTYD in place of weights, where there is enough to learn.
//!
//! Newton steps on the logistic loss around an offset that is known per row, at most 64 thresholds a feature, shallow trees,
//! and values that may only rise with a feature that fades in silence, so that silence never lowers churn. It draws no
//! random number and adds up in one order: equal rows give equal bytes. What comes out is LightGBM's text format, which
//! `vigie-scoring` reads and explains like any imported model, and LightGBM itself reads as well.
//!
//! Why it is our own: of the libraries in pure Rust, the one that is kept up sizes its trees by the memory that happens to
//! be free and asks for another reading of floats in JSON, for the whole program; the others are not kept up, or know no
//! monotone constraints.
//!
//! Sources: Friedman, "Greedy function approximation", Annals of Statistics 29, 2001; Chen, Guestrin, "XGBoost", KDD 2016.

use libm::{exp, log1p};
use std::fmt::Write;
use vigie_scoring::btyd::sigmoid;

/// Most thresholds of a feature.
const THRESHOLDS: usize = 64;
/// Deepest leaf.
const DEPTH: u32 = 4;
/// Share of a Newton step that a tree takes.
const RATE: f64 = 0.05;
/// Ridge on the value of a leaf, in rows' worth of information: shrinks to the offset alone.
const RIDGE: f64 = 25.0;
/// Least information on either side of a split.
const LEAST_INFORMATION: f64 = 5.0;
/// Least gain in log loss of a split.
const LEAST_GAIN: f64 = 1.0;

/// One row to learn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<const F: usize> {
    /// Features, finite.
    pub features: [f64; F],
    /// Log-odds that are known without the trees.
    pub offset: f64,
    /// What came.
    pub bought: bool,
}

/// Trees, grown one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Boosted<const F: usize> {
    features: [Column; F],
    trees: Vec<Vec<Node>>,
}

/// What is known of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Column {
    name: &'static str,
    /// Whether log-odds may only rise with it.
    rising: bool,
    /// Least and largest value seen.
    range: (f64, f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Node {
    /// Feature, threshold, and the places of both children; `None`: a leaf.
    split: Option<(usize, f64, usize, usize)>,
    value: f64,
    information: f64,
    rows: usize,
}

/// Sums over rows.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    gradient: f64,
    information: f64,
    rows: usize,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.gradient += other.gradient;
        self.information += other.information;
        self.rows += other.rows;
    }

    fn less(self, other: Self) -> Self {
        Self {
            gradient: self.gradient - other.gradient,
            information: self.information - other.information,
            rows: self.rows - other.rows,
        }
    }

    /// The best value between two bounds, and what it lowers the loss by.
    fn best(self, (low, high): (f64, f64)) -> (f64, f64) {
        let curvature = self.information + RIDGE;
        let value = (-self.gradient / curvature).clamp(low, high);
        (value, -(self.gradient * value + 0.5 * curvature * value * value))
    }
}

/// The rows with their features as numbers of bins.
struct Binned<const F: usize> {
    /// By feature: ascending thresholds; bin k holds what is at or below threshold k, the last what is above all.
    thresholds: Vec<Vec<f64>>,
    bins: Vec<[u8; F]>,
}

impl<const F: usize> Binned<F> {
    fn of(samples: &[Sample<F>]) -> Self {
        let column = |feature: usize| -> Vec<f64> {
            let values = samples
                .iter()
                .filter_map(|sample| sample.features.get(feature).copied());
            let mut values: Vec<f64> = values.collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let thresholds: Vec<Vec<f64>> = (0..F).map(|feature| thresholds(&column(feature))).collect();
        let bin = |sample: &Sample<F>| {
            let mut bins = [0u8; F];
            for ((bin, value), thresholds) in bins.iter_mut().zip(sample.features).zip(&thresholds) {
                *bin = u8::try_from(thresholds.partition_point(|t| *t < value)).unwrap_or(u8::MAX);
            }
            bins
        };
        Self {
            bins: samples.iter().map(bin).collect(),
            thresholds,
        }
    }
}

/// Values between which a sorted column falls into parts of about equal size.
fn thresholds(sorted: &[f64]) -> Vec<f64> {
    let mut found: Vec<f64> = Vec::new();
    for k in 1..=THRESHOLDS {
        let at = sorted.len() * k / (THRESHOLDS + 1);
        let Some(value) = sorted.get(at).copied() else { continue };
        // What equals the largest value separates nothing.
        if sorted.last().is_some_and(|last| value < *last) && found.last().is_none_or(|last| *last < value) {
            found.push(value);
        }
    }
    found
}

/// Grows `count` trees. `rising` says of each feature whether log-odds may only rise with it.
#[must_use]
pub fn boost<const F: usize>(
    samples: &[Sample<F>],
    names: [&'static str; F],
    rising: [bool; F],
    count: usize,
) -> Boosted<F> {
    let binned = Binned::of(samples);
    let mut features = [Column::default(); F];
    for (k, ((feature, name), rising)) in features.iter_mut().zip(names).zip(rising).enumerate() {
        let values = samples.iter().filter_map(|sample| sample.features.get(k));
        let range = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(*v), high.max(*v))
        });
        *feature = Column { name, rising, range };
    }
    let mut boosted = Boosted {
        features,
        trees: Vec::with_capacity(count),
    };
    let mut log_odds: Vec<f64> = samples.iter().map(|sample| sample.offset).collect();
    for _ in 0..count {
        let sums: Vec<Sums> = samples
            .iter()
            .zip(&log_odds)
            .map(|(sample, log_odds)| {
                let p = sigmoid(*log_odds);
                Sums {
                    gradient: p - f64::from(u8::from(sample.bought)),
                    information: p * (1.0 - p),
                    rows: 1,
                }
            })
            .collect();
        let mut growing = Growing {
            binned: &binned,
            rising,
            sums: &sums,
            nodes: Vec::new(),
            log_odds: &mut log_odds,
        };
        let all = 0..u32::try_from(samples.len()).unwrap_or(u32::MAX);
        let _root = growing.grow(&mut all.collect::<Vec<_>>(), 0, (f64::NEG_INFINITY, f64::INFINITY));
        let nodes = growing.nodes;
        // A tree that cannot split says only what the ones before it have said.
        if nodes.len() < 2 {
            break;
        }
        boosted.trees.push(nodes);
    }
    boosted
}

/// One tree on its way.
struct Growing<'a, const F: usize> {
    binned: &'a Binned<F>,
    rising: [bool; F],
    sums: &'a [Sums],
    nodes: Vec<Node>,
    log_odds: &'a mut [f64],
}

/// A split that lowers the loss.
#[derive(Clone, Copy)]
struct Best {
    gain: f64,
    feature: usize,
    bin: usize,
}

impl<const F: usize> Growing<'_, F> {
    /// Grows the node of these rows and returns its place. Values stay between the bounds that splits above have set.
    fn grow(&mut self, rows: &mut [u32], depth: u32, bounds: (f64, f64)) -> usize {
        let of = |row: &u32| self.sums.get(*row as usize).copied().unwrap_or_default();
        let mut total = Sums::default();
        rows.iter().for_each(|row| total.add(of(row)));
        let (value, _) = total.best(bounds);
        let here = self.nodes.len();
        self.nodes.push(Node {
            split: None,
            value: value * RATE,
            information: total.information,
            rows: total.rows,
        });
        let best = (depth < DEPTH).then(|| self.best(rows, total, bounds)).flatten();
        let Some(Best { feature, bin, .. }) = best else {
            for row in rows.iter() {
                if let Some(log_odds) = self.log_odds.get_mut(*row as usize) {
                    *log_odds += value * RATE;
                }
            }
            return here;
        };
        let goes_left = |row: u32| self.bin(row, feature) <= bin;
        // Stable: the order of rows, and so of every sum, is that of the samples.
        rows.sort_by_key(|row| !goes_left(*row));
        let middle = rows.partition_point(|row| goes_left(*row));
        let (left, right) = rows.split_at_mut(middle);
        let (mut below, mut above) = (bounds, bounds);
        if self.rising.get(feature).copied().unwrap_or(false) {
            let side = |rows: &[u32]| {
                let mut sums = Sums::default();
                rows.iter()
                    .for_each(|row| sums.add(self.sums.get(*row as usize).copied().unwrap_or_default()));
                sums.best(bounds).0
            };
            let between = side(left).midpoint(side(right));
            (below.1, above.0) = (between, between);
        }
        let threshold = self
            .binned
            .thresholds
            .get(feature)
            .and_then(|all| all.get(bin))
            .copied();
        let (left, right) = (self.grow(left, depth + 1, below), self.grow(right, depth + 1, above));
        if let (Some(node), Some(threshold)) = (self.nodes.get_mut(here), threshold) {
            node.split = Some((feature, threshold, left, right));
        }
        here
    }

    fn bin(&self, row: u32, feature: usize) -> usize {
        let bins = self.binned.bins.get(row as usize);
        bins.and_then(|bins| bins.get(feature)).copied().map_or(0, usize::from)
    }

    /// The split that lowers the loss most; of equals, the first feature and the lowest threshold.
    fn best(&self, rows: &[u32], total: Sums, bounds: (f64, f64)) -> Option<Best> {
        let mut histograms = vec![[Sums::default(); THRESHOLDS + 1]; F];
        for row in rows {
            let (Some(bins), Some(sums)) = (self.binned.bins.get(*row as usize), self.sums.get(*row as usize)) else {
                continue;
            };
            for (histogram, bin) in histograms.iter_mut().zip(bins) {
                if let Some(cell) = histogram.get_mut(usize::from(*bin)) {
                    cell.add(*sums);
                }
            }
        }
        let (_, before) = total.best(bounds);
        let mut best: Option<Best> = None;
        for (feature, (histogram, rising)) in histograms.iter().zip(self.rising).enumerate() {
            let thresholds = self.binned.thresholds.get(feature).map_or(0, Vec::len);
            let mut left = Sums::default();
            for (bin, cell) in histogram.iter().enumerate().take(thresholds) {
                left.add(*cell);
                let right = total.less(left);
                if left.information < LEAST_INFORMATION || right.information < LEAST_INFORMATION {
                    continue;
                }
                let ((below, by_left), (above, by_right)) = (left.best(bounds), right.best(bounds));
                let gain = by_left + by_right - before;
                let allowed = !rising || below <= above;
                if allowed && gain > LEAST_GAIN && best.is_none_or(|best| gain > best.gain) {
                    best = Some(Best { gain, feature, bin });
                }
            }
        }
        best
    }
}

impl<const F: usize> Boosted<F> {
    /// Number of trees.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trees.len()
    }

    /// Whether nothing was found to learn.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// The first trees only.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.trees.truncate(count);
        self
    }

    /// Mean log loss of samples after none, one, two … of the trees.
    #[must_use]
    pub fn losses(&self, samples: &[Sample<F>]) -> Vec<f64> {
        let mut log_odds: Vec<f64> = samples.iter().map(|sample| sample.offset).collect();
        let loss = |log_odds: &[f64]| {
            let one = |(sample, eta): (&Sample<F>, &f64)| {
                eta.max(0.0) + log1p(exp(-eta.abs())) - f64::from(u8::from(sample.bought)) * eta
            };
            samples.iter().zip(log_odds).map(one).sum::<f64>() / samples.len().max(1) as f64
        };
        let mut losses = vec![loss(&log_odds)];
        for tree in &self.trees {
            for (sample, log_odds) in samples.iter().zip(&mut log_odds) {
                *log_odds += value(tree, &sample.features);
            }
            losses.push(loss(&log_odds));
        }
        losses
    }

    /// The trees in LightGBM's text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let each = |f: &dyn Fn(&Column) -> String| self.features.iter().map(f).collect::<Vec<_>>().join(" ");
        writeln!(
            text,
            "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0"
        )?;
        writeln!(
            text,
            "max_feature_idx={}\nobjective=binary sigmoid:1",
            F.saturating_sub(1)
        )?;
        writeln!(text, "feature_names={}", each(&|column| column.name.to_owned()))?;
        let rising = each(&|column| u8::from(column.rising).to_string());
        writeln!(text, "monotone_constraints={rising}")?;
        let ranges = each(&|Column { range: (low, high), .. }| format!("[{low:?}:{high:?}]"));
        writeln!(text, "feature_infos={ranges}\n")?;
        for (number, tree) in self.trees.iter().enumerate() {
            write_tree(text, number, tree)?;
        }
        writeln!(text, "end of trees")
    }
}

/// The leaf that the features lead to.
fn value<const F: usize>(tree: &[Node], features: &[f64; F]) -> f64 {
    let mut at = 0;
    while let Some(node) = tree.get(at) {
        match node.split {
            None => return node.value,
            Some((feature, threshold, left, right)) => {
                let below = features.get(feature).is_some_and(|value| *value <= threshold);
                at = if below { left } else { right };
            }
        }
    }
    0.0
}

fn write_tree(text: &mut String, number: usize, tree: &[Node]) -> std::fmt::Result {
    // Splits and leaves are numbered apart there, each in the order of the nodes; a leaf is referred to by its complement.
    let place = |at: usize| {
        let before = |leaves: bool| {
            tree.iter()
                .take(at)
                .filter(|node| node.split.is_none() == leaves)
                .count()
        };
        match tree.get(at) {
            Some(node) if node.split.is_some() => i64::try_from(before(false)).unwrap_or_default(),
            _ => !i64::try_from(before(true)).unwrap_or_default(),
        }
    };
    let splits = || tree.iter().filter_map(|node| node.split.map(|split| (node, split)));
    let leaves = || tree.iter().filter(|node| node.split.is_none());
    let list = |values: Vec<String>| values.join(" ");
    writeln!(text, "Tree={number}\nnum_leaves={}\nnum_cat=0", leaves().count())?;
    let split = |f: &dyn Fn((usize, f64, usize, usize)) -> String| list(splits().map(|(_, split)| f(split)).collect());
    writeln!(text, "split_feature={}", split(&|(feature, ..)| feature.to_string()))?;
    writeln!(text, "split_gain={}", split(&|_| "0".to_owned()))?;
    writeln!(
        text,
        "threshold={}",
        split(&|(_, threshold, ..)| format!("{threshold:?}"))
    )?;
    // No feature is ever missing; "left" is what LightGBM writes then.
    writeln!(text, "decision_type={}", split(&|_| "2".to_owned()))?;
    writeln!(text, "left_child={}", split(&|(_, _, left, _)| place(left).to_string()))?;
    writeln!(text, "right_child={}", split(&|(.., right)| place(right).to_string()))?;
    let leaf = |f: &dyn Fn(&Node) -> String| list(leaves().map(f).collect());
    writeln!(text, "leaf_value={}", leaf(&|node| format!("{:?}", node.value)))?;
    writeln!(text, "leaf_weight={}", leaf(&|node| format!("{:?}", node.information)))?;
    writeln!(text, "leaf_count={}", leaf(&|node| node.rows.to_string()))?;
    let inner = |f: &dyn Fn(&Node) -> String| list(splits().map(|(node, _)| f(node)).collect());
    writeln!(text, "internal_value={}", inner(&|node| format!("{:?}", node.value)))?;
    writeln!(
        text,
        "internal_weight={}",
        inner(&|node| format!("{:?}", node.information))
    )?;
    writeln!(text, "internal_count={}", inner(&|node| node.rows.to_string()))?;
    writeln!(text, "is_linear=0\nshrinkage={RATE:?}\n")
}
