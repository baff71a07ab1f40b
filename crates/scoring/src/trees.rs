//! Boosted trees that were trained elsewhere: LightGBM text and XGBoost JSON, evaluated and explained exactly.
//!
//! One small form for both: a node asks "feature ≤ threshold", missing values go where the model says. XGBoost's
//! "feature < threshold" on single-precision values becomes "≤ the next smaller single". What is not understood
//! (categorical splits, linear leaves, several classes, DART) is refused with a reason, never approximated. Files are
//! untrusted: every child is checked, depth and size are bounded. Contributions are exact Shapley values along the trees'
//! own paths (Lundberg et al., "From local explanations to global understanding with explainable AI for trees", Nature
//! Machine Intelligence 2, 2020, algorithm 2). It never trains.
//!
//! Length: two formats of one structure and the exact explanation of both read best side by side.

use crate::btyd::sigmoid;
use serde::Deserialize;

/// Most nodes of all trees together.
const MAX_NODES: usize = 4_000_000;
/// Deepest path.
const MAX_DEPTH: usize = 512;
/// LightGBM takes values this near to 0 for 0.
const LIGHTGBM_ZERO: f64 = 1e-35;

/// Why a file is not a model that can be evaluated here. The operator's to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreesError {
    /// Neither format, or a damaged file; the text says where.
    #[error("tree model cannot be read: {0}")]
    Syntax(String),
    /// A feature of the format that is not supported; the text says which and what to do.
    #[error("tree model is not supported: {0}")]
    Unsupported(String),
}

impl TreesError {
    /// The stable name of the kind of error.
    #[must_use]
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "trees_syntax",
            Self::Unsupported(_) => "trees_unsupported",
        }
    }
}

/// What counts as missing at a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Nothing: NaN is read as 0.
    Never,
    /// 0 and NaN.
    Zero,
    /// NaN.
    Nan,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Split {
    feature: usize,
    threshold: f64,
    missing: Missing,
    missing_left: bool,
    left: usize,
    right: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Node {
    /// `None`: a leaf.
    split: Option<Split>,
    /// The leaf's value.
    value: f64,
    /// Training weight that reached the node.
    cover: f64,
}

/// How the sum of the leaves becomes a probability.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    /// 1 / (1 + e^(−slope·sum)).
    Logistic(f64),
    /// The sum is the answer.
    Identity,
}

/// An ensemble of trees with one output.
#[derive(Debug, Clone, PartialEq)]
pub struct Trees {
    names: Vec<String>,
    /// Every tree's nodes, root first, parents before children.
    trees: Vec<Vec<Node>>,
    base: f64,
    /// What the sum of the leaves is multiplied by (1 / trees for an averaging ensemble).
    factor: f64,
    link: Link,
    /// Values and sums are single precision (XGBoost).
    single: bool,
}

impl Trees {
    /// Reads a model file of either format.
    pub fn parse(text: &str) -> Result<Self, TreesError> {
        if text.trim_start().starts_with('{') {
            xgboost(text)
        } else if text.starts_with("tree") {
            lightgbm(text)
        } else {
            Err(syntax(
                "it is neither LightGBM text (first line: tree) nor XGBoost JSON (an object)",
            ))
        }
    }

    /// The features in the order in which [`Self::sum`] takes them.
    #[must_use]
    pub fn features(&self) -> &[String] {
        &self.names
    }

    /// Number of trees.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trees.len()
    }

    /// Whether there is no tree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// The model's raw output: the sum of the leaves that the values lead to. Missing values are NaN.
    #[must_use]
    pub fn sum(&self, values: &[f64]) -> f64 {
        let leaves = self.trees.iter().map(|tree| self.leaf(tree, values));
        if self.single {
            // XGBoost adds singles, in the order of its trees: so does this, to its last bit.
            let sum = leaves.fold(self.base as f32, |sum, leaf| sum + leaf as f32);
            return f64::from(sum);
        }
        self.base + self.factor * leaves.sum::<f64>()
    }

    /// The model's answer: a probability for a logistic objective, else the sum.
    #[must_use]
    pub fn predict(&self, values: &[f64]) -> f64 {
        match self.link {
            Link::Logistic(slope) => sigmoid(slope * self.sum(values)),
            Link::Identity => self.sum(values),
        }
    }

    /// Exact Shapley values of [`Self::sum`] per feature, and the mean that they start from: they add up to the sum.
    #[must_use]
    pub fn contributions(&self, values: &[f64]) -> (Vec<f64>, f64) {
        let mut phi = vec![0.0; self.names.len()];
        let mut mean = self.base;
        for tree in &self.trees {
            mean += self.factor * expected(tree, 0);
            let walk = Walk {
                trees: self,
                tree,
                values,
            };
            walk.explain(
                0,
                &[],
                Step {
                    zero: 1.0,
                    one: 1.0,
                    feature: usize::MAX,
                },
                &mut phi,
            );
        }
        (phi, mean)
    }

    /// The mean of [`Self::sum`] by training weight.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.base + self.factor * self.trees.iter().map(|tree| expected(tree, 0)).sum::<f64>()
    }

    /// The least and the most that [`Self::sum`] can be while every value lies between its `a` and its `b`: the sums of
    /// the least and of the largest leaves that can be reached, so they hold all sums and may be wider. No value is missing.
    #[must_use]
    pub fn bounds(&self, a: &[f64], b: &[f64]) -> (f64, f64) {
        let mut sums = (0.0, 0.0);
        for tree in &self.trees {
            let (low, high) = self.reach(tree, 0, a, b);
            sums = (sums.0 + low, sums.1 + high);
        }
        // Sums in singles are off by their own rounding.
        let slack = if self.single {
            f64::from(f32::EPSILON)
                * (self.trees.len() as f64 + 1.0)
                * sums.0.abs().max(sums.1.abs()).max(self.base.abs())
        } else {
            0.0
        };
        (
            self.base + self.factor * sums.0 - slack,
            self.base + self.factor * sums.1 + slack,
        )
    }

    fn reach(&self, tree: &[Node], at: usize, a: &[f64], b: &[f64]) -> (f64, f64) {
        let Some(node) = tree.get(at) else { return (0.0, 0.0) };
        let Some(split) = &node.split else {
            return (node.value, node.value);
        };
        let end = |values: &[f64]| values.get(split.feature).copied().unwrap_or(f64::NAN);
        let (low, high) = (end(a).min(end(b)), end(a).max(end(b)));
        let (low, high) = match self.single {
            true => (f64::from(low as f32), f64::from(high as f32)),
            false => (low, high),
        };
        let missing = split.missing == Missing::Zero && low <= LIGHTGBM_ZERO && high >= -LIGHTGBM_ZERO;
        let left = low <= split.threshold || (missing && split.missing_left);
        let right = high > split.threshold || (missing && !split.missing_left);
        match (left, right) {
            (true, false) => self.reach(tree, split.left, a, b),
            (false, true) => self.reach(tree, split.right, a, b),
            _ => {
                let (left, right) = (self.reach(tree, split.left, a, b), self.reach(tree, split.right, a, b));
                (left.0.min(right.0), left.1.max(right.1))
            }
        }
    }

    fn leaf(&self, tree: &[Node], values: &[f64]) -> f64 {
        let mut at = 0;
        while let Some(node) = tree.get(at) {
            match &node.split {
                None => return node.value,
                Some(split) => {
                    at = if self.goes_left(split, values) {
                        split.left
                    } else {
                        split.right
                    }
                }
            }
        }
        0.0
    }

    fn goes_left(&self, split: &Split, values: &[f64]) -> bool {
        let mut value = values.get(split.feature).copied().unwrap_or(f64::NAN);
        if self.single {
            value = f64::from(value as f32);
        }
        let missing = match split.missing {
            Missing::Never => false,
            Missing::Zero => value.is_nan() || value.abs() <= LIGHTGBM_ZERO,
            Missing::Nan => value.is_nan(),
        };
        if missing {
            return split.missing_left;
        }
        (if value.is_nan() { 0.0 } else { value }) <= split.threshold
    }
}

/// The mean of a tree's leaves by their training weight.
fn expected(tree: &[Node], at: usize) -> f64 {
    let Some(node) = tree.get(at) else { return 0.0 };
    let Some(split) = &node.split else { return node.value };
    let cover = |child: usize| tree.get(child).map_or(0.0, |node| node.cover);
    let (left, right) = (cover(split.left), cover(split.right));
    (left * expected(tree, split.left) + right * expected(tree, split.right)) / (left + right)
}

/// One feature on a path: the share of weight that goes on without knowing it, and with knowing it.
#[derive(Debug, Clone, Copy)]
struct Step {
    zero: f64,
    one: f64,
    feature: usize,
}

/// A step with the weight of the subsets of its length.
#[derive(Debug, Clone, Copy)]
struct Weighed {
    step: Step,
    weight: f64,
}

struct Walk<'a> {
    trees: &'a Trees,
    tree: &'a [Node],
    values: &'a [f64],
}

impl Walk<'_> {
    fn explain(&self, at: usize, path: &[Weighed], step: Step, phi: &mut [f64]) {
        let Some(node) = self.tree.get(at) else { return };
        let mut path = path.to_vec();
        extend(&mut path, step);
        let Some(split) = &node.split else {
            for index in 1..path.len() {
                let Some(Weighed { step, .. }) = path.get(index).copied() else {
                    continue;
                };
                let weight = unwound(&path, index);
                if let Some(phi) = phi.get_mut(step.feature) {
                    *phi += weight * (step.one - step.zero) * node.value * self.trees.factor;
                }
            }
            return;
        };
        let left = self.trees.goes_left(split, self.values);
        let (hot, cold) = if left {
            (split.left, split.right)
        } else {
            (split.right, split.left)
        };
        let mut known = Step {
            zero: 1.0,
            one: 1.0,
            feature: split.feature,
        };
        let again = path.iter().skip(1).position(|w| w.step.feature == split.feature);
        if let Some(earlier) = again.map(|position| position + 1) {
            known = path.get(earlier).map_or(known, |w| w.step);
            unwind(&mut path, earlier);
        }
        // Of the children's own sum, which in singles is not quite the node's: so the parts add up to the whole.
        let cover = |child: usize| self.tree.get(child).map_or(0.0, |child| child.cover);
        let total = cover(hot) + cover(cold);
        let share = |child: usize| cover(child) / total;
        self.explain(
            hot,
            &path,
            Step {
                zero: known.zero * share(hot),
                ..known
            },
            phi,
        );
        self.explain(
            cold,
            &path,
            Step {
                zero: known.zero * share(cold),
                one: 0.0,
                ..known
            },
            phi,
        );
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "indices of one path, bounded by its length, as in the published algorithm"
)]
fn extend(path: &mut Vec<Weighed>, step: Step) {
    let depth = path.len();
    path.push(Weighed {
        step,
        weight: if depth == 0 { 1.0 } else { 0.0 },
    });
    let length = (depth + 1) as f64;
    for i in (0..depth).rev() {
        path[i + 1].weight += step.one * path[i].weight * (i + 1) as f64 / length;
        path[i].weight = step.zero * path[i].weight * (depth - i) as f64 / length;
    }
}

/// The path as if the step at `index` had never been taken.
#[expect(
    clippy::indexing_slicing,
    reason = "indices of one path, bounded by its length, as in the published algorithm"
)]
fn unwind(path: &mut Vec<Weighed>, index: usize) {
    let depth = path.len() - 1;
    let Step { zero, one, .. } = path[index].step;
    let length = (depth + 1) as f64;
    let mut next = path[depth].weight;
    for i in (0..depth).rev() {
        if one != 0.0 {
            let before = path[i].weight;
            path[i].weight = next * length / ((i + 1) as f64 * one);
            next = before - path[i].weight * zero * (depth - i) as f64 / length;
        } else {
            path[i].weight = path[i].weight * length / (zero * (depth - i) as f64);
        }
    }
    for i in index..depth {
        path[i].step = path[i + 1].step;
    }
    let _ = path.pop();
}

/// The sum of the weights of [`unwind`]'s path.
#[expect(
    clippy::indexing_slicing,
    reason = "indices of one path, bounded by its length, as in the published algorithm"
)]
fn unwound(path: &[Weighed], index: usize) -> f64 {
    let depth = path.len() - 1;
    let Step { zero, one, .. } = path[index].step;
    let length = (depth + 1) as f64;
    let (mut next, mut total) = (path[depth].weight, 0.0);
    for i in (0..depth).rev() {
        if one != 0.0 {
            let weight = next * length / ((i + 1) as f64 * one);
            total += weight;
            next = path[i].weight - weight * zero * (depth - i) as f64 / length;
        } else if zero != 0.0 {
            total += path[i].weight * length / (zero * (depth - i) as f64);
        }
    }
    total
}

fn syntax(problem: impl Into<String>) -> TreesError {
    TreesError::Syntax(problem.into())
}

fn unsupported(problem: impl Into<String>) -> TreesError {
    TreesError::Unsupported(problem.into())
}

/// A node as a file has it.
struct Raw {
    /// The split with references to its children; `None`: a leaf.
    split: Option<(Split, i64, i64)>,
    value: f64,
    cover: f64,
}

/// A node that waits to be copied.
struct Open {
    at: i64,
    /// The parent's place, and whether this is its left child.
    parent: Option<(usize, bool)>,
    depth: usize,
}

/// Where a tree is grown from: what the two formats have in common.
trait Source {
    /// The node under a reference.
    fn node(&self, at: i64) -> Result<Raw, TreesError>;
}

/// Copies a tree parents first, and refuses what is no tree.
fn grow(source: &impl Source, root: i64, nodes: usize, features: usize) -> Result<Vec<Node>, TreesError> {
    let mut tree: Vec<Node> = Vec::with_capacity(nodes);
    let mut open = vec![Open {
        at: root,
        parent: None,
        depth: 0,
    }];
    while let Some(Open { at, parent, depth }) = open.pop() {
        if tree.len() >= nodes || depth > MAX_DEPTH {
            return Err(syntax("a tree has more nodes than it says, or is too deep"));
        }
        let Raw { split, value, cover } = source.node(at)?;
        let here = tree.len();
        if let Some(Some(above)) = parent
            .and_then(|(parent, _)| tree.get_mut(parent))
            .map(|node| node.split.as_mut())
        {
            match parent {
                Some((_, true)) => above.left = here,
                _ => above.right = here,
            }
        }
        let split = split
            .map(|(split, left, right)| {
                if split.feature >= features {
                    return Err(syntax(format!(
                        "a split asks for feature {} of {features}",
                        split.feature
                    )));
                }
                open.push(Open {
                    at: right,
                    parent: Some((here, false)),
                    depth: depth + 1,
                });
                open.push(Open {
                    at: left,
                    parent: Some((here, true)),
                    depth: depth + 1,
                });
                Ok(split)
            })
            .transpose()?;
        if !(value.is_finite() && cover.is_finite() && cover >= 0.0) {
            return Err(syntax("a node's value or weight is not a finite number"));
        }
        tree.push(Node { split, value, cover });
    }
    Ok(tree)
}

/// One block `Tree=…` of LightGBM text.
struct LightGbmTree {
    split_feature: Vec<usize>,
    threshold: Vec<f64>,
    decision_type: Vec<u32>,
    left_child: Vec<i64>,
    right_child: Vec<i64>,
    leaf_value: Vec<f64>,
    leaf_count: Vec<f64>,
    internal_count: Vec<f64>,
}

impl Source for LightGbmTree {
    fn node(&self, at: i64) -> Result<Raw, TreesError> {
        let short = || syntax("a list of a tree is shorter than its number of leaves");
        let Ok(inner) = usize::try_from(at) else {
            let leaf = usize::try_from(!at).map_err(|_| short())?;
            let value = *self.leaf_value.get(leaf).ok_or_else(short)?;
            return Ok(Raw {
                split: None,
                value,
                cover: self.leaf_count.get(leaf).copied().unwrap_or(1.0),
            });
        };
        let decision = *self.decision_type.get(inner).ok_or_else(short)?;
        if decision & 1 != 0 {
            return Err(unsupported(
                "a categorical split: train with numbers, for instance one column per category",
            ));
        }
        let split = Split {
            feature: *self.split_feature.get(inner).ok_or_else(short)?,
            threshold: *self.threshold.get(inner).ok_or_else(short)?,
            missing_left: decision & 2 != 0,
            missing: match decision >> 2 & 3 {
                0 => Missing::Never,
                1 => Missing::Zero,
                _ => Missing::Nan,
            },
            left: 0,
            right: 0,
        };
        let child = |list: &[i64]| list.get(inner).copied().ok_or_else(short);
        let children = (child(&self.left_child)?, child(&self.right_child)?);
        let cover = *self.internal_count.get(inner).ok_or_else(short)?;
        Ok(Raw {
            split: Some((split, children.0, children.1)),
            value: 0.0,
            cover,
        })
    }
}

fn list<T: std::str::FromStr>(key: &str, value: &str) -> Result<Vec<T>, TreesError> {
    let parse = |cell: &str| {
        cell.parse()
            .map_err(|_| syntax(format!("{key}: {cell:?} is not a number")))
    };
    value.split_whitespace().map(parse).collect()
}

fn lightgbm(text: &str) -> Result<Trees, TreesError> {
    let (head, rest) = text.split_once("\nTree=").ok_or_else(|| syntax("there is no tree"))?;
    let header = |key: &str| head.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    if header("num_class").is_some_and(|n| n.trim() != "1")
        || header("num_tree_per_iteration").is_some_and(|n| n.trim() != "1")
    {
        return Err(unsupported("several classes: train a binary model (objective=binary)"));
    }
    let names: Vec<String> = header("feature_names")
        .ok_or_else(|| syntax("feature_names is missing"))?
        .split(' ')
        .map(str::to_owned)
        .collect();
    let objective = header("objective").unwrap_or("regression");
    let link = match objective.split_whitespace().next() {
        Some("binary") => {
            let slope = objective
                .split_whitespace()
                .find_map(|part| part.strip_prefix("sigmoid:"));
            let slope = slope
                .map_or(Ok(1.0), str::parse)
                .map_err(|_| syntax("objective: sigmoid is not a number"))?;
            Link::Logistic(slope)
        }
        Some("cross_entropy") => Link::Logistic(1.0),
        Some("regression" | "regression_l2" | "regression_l1" | "huber" | "fair" | "quantile" | "mape") => {
            Link::Identity
        }
        _ => {
            return Err(unsupported(format!(
                "objective {objective:?}: train with objective=binary"
            )));
        }
    };
    let (mut trees, mut total) = (Vec::new(), 0);
    for block in rest.split("\nTree=") {
        let block = block.split("\nend of trees").next().unwrap_or_default();
        let field = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if field("is_linear").is_some_and(|value| value.trim() != "0") {
            return Err(unsupported("linear leaves: train with linear_tree=false"));
        }
        let leaves: usize = field("num_leaves")
            .and_then(|n| n.trim().parse().ok())
            .filter(|n| (1..=MAX_NODES).contains(n))
            .ok_or_else(|| syntax("num_leaves is missing or not a number"))?;
        total += 2 * leaves - 1;
        if total > MAX_NODES {
            return Err(unsupported(format!("more than {MAX_NODES} nodes")));
        }
        let get = |key: &str| field(key).unwrap_or_default();
        let tree = LightGbmTree {
            split_feature: list("split_feature", get("split_feature"))?,
            threshold: list("threshold", get("threshold"))?,
            decision_type: list("decision_type", get("decision_type"))?,
            left_child: list("left_child", get("left_child"))?,
            right_child: list("right_child", get("right_child"))?,
            leaf_value: list("leaf_value", get("leaf_value"))?,
            leaf_count: list("leaf_count", get("leaf_count"))?,
            internal_count: list("internal_count", get("internal_count"))?,
        };
        let root = if leaves == 1 { -1 } else { 0 };
        trees.push(grow(&tree, root, 2 * leaves - 1, names.len())?);
    }
    let averaged = head.lines().any(|line| line == "average_output");
    let factor = if averaged { 1.0 / trees.len().max(1) as f64 } else { 1.0 };
    Ok(Trees {
        names,
        trees,
        base: 0.0,
        factor,
        link,
        single: false,
    })
}

#[derive(Deserialize)]
struct XgbFile {
    learner: XgbLearner,
}

#[derive(Deserialize)]
struct XgbLearner {
    #[serde(default)]
    feature_names: Vec<String>,
    gradient_booster: XgbBooster,
    learner_model_param: XgbParameters,
    objective: XgbObjective,
}

#[derive(Deserialize)]
struct XgbBooster {
    name: String,
    #[serde(default)]
    model: Option<XgbModel>,
}

#[derive(Deserialize)]
struct XgbModel {
    trees: Vec<XgbTree>,
}

#[derive(Deserialize)]
struct XgbParameters {
    base_score: String,
    num_class: String,
    num_feature: String,
}

#[derive(Deserialize)]
struct XgbObjective {
    name: String,
}

#[derive(Deserialize)]
struct XgbTree {
    left_children: Vec<i64>,
    right_children: Vec<i64>,
    split_indices: Vec<usize>,
    split_conditions: Vec<f32>,
    default_left: Vec<u8>,
    sum_hessian: Vec<f32>,
    #[serde(default)]
    split_type: Vec<u8>,
}

impl Source for XgbTree {
    fn node(&self, at: i64) -> Result<Raw, TreesError> {
        let short = || syntax("a child lies outside its tree, or a list is too short");
        let here = usize::try_from(at).map_err(|_| short())?;
        let left = *self.left_children.get(here).ok_or_else(short)?;
        let right = *self.right_children.get(here).ok_or_else(short)?;
        let condition = *self.split_conditions.get(here).ok_or_else(short)?;
        let cover = f64::from(*self.sum_hessian.get(here).ok_or_else(short)?);
        if left < 0 {
            return Ok(Raw {
                split: None,
                value: f64::from(condition),
                cover,
            });
        }
        if self.split_type.get(here).is_some_and(|kind| *kind != 0) {
            return Err(unsupported(
                "a categorical split: train with numbers, for instance one column per category",
            ));
        }
        let split = Split {
            feature: *self.split_indices.get(here).ok_or_else(short)?,
            // "< t" on singles is "≤ the single before t".
            threshold: f64::from(condition.next_down()),
            missing: Missing::Nan,
            missing_left: *self.default_left.get(here).ok_or_else(short)? != 0,
            left: 0,
            right: 0,
        };
        Ok(Raw {
            split: Some((split, left, right)),
            value: 0.0,
            cover,
        })
    }
}

fn xgboost(text: &str) -> Result<Trees, TreesError> {
    let file: XgbFile = serde_json::from_str(text).map_err(|error| syntax(error.to_string()))?;
    let XgbLearner {
        feature_names,
        gradient_booster,
        learner_model_param,
        objective,
    } = file.learner;
    if gradient_booster.name != "gbtree" {
        return Err(unsupported(format!(
            "booster {:?}: train with booster=gbtree",
            gradient_booster.name
        )));
    }
    if !matches!(learner_model_param.num_class.as_str(), "0" | "1") {
        return Err(unsupported(
            "several classes: train a binary model (objective=binary:logistic)",
        ));
    }
    let features: usize = learner_model_param
        .num_feature
        .parse()
        .map_err(|_| syntax("num_feature is not a number"))?;
    if features > MAX_NODES {
        return Err(unsupported(format!("more than {MAX_NODES} features")));
    }
    let names = if feature_names.is_empty() {
        (0..features).map(|k| format!("f{k}")).collect()
    } else {
        feature_names
    };
    // Newer versions write a list of one.
    let base: f64 = learner_model_param
        .base_score
        .trim_matches(['[', ']'])
        .parse()
        .map_err(|_| {
            syntax(format!(
                "base_score {:?} is not one number",
                learner_model_param.base_score
            ))
        })?;
    let (link, base) = match objective.name.as_str() {
        "binary:logistic" | "reg:logistic" => {
            // The file has a probability, the sum starts from its logit, worked out in singles.
            let p = base as f32;
            (Link::Logistic(1.0), f64::from(-libm::logf(1.0 / p - 1.0)))
        }
        "binary:logitraw" => (Link::Logistic(1.0), base),
        "reg:squarederror" | "reg:absoluteerror" | "reg:pseudohubererror" => (Link::Identity, base),
        name => {
            return Err(unsupported(format!(
                "objective {name:?}: train with objective=binary:logistic"
            )));
        }
    };
    if !base.is_finite() {
        return Err(syntax("base_score must lie between 0 and 1"));
    }
    let model = gradient_booster
        .model
        .ok_or_else(|| syntax("the booster has no trees"))?;
    let total: usize = model.trees.iter().map(|tree| tree.left_children.len()).sum();
    if total > MAX_NODES {
        return Err(unsupported(format!("more than {MAX_NODES} nodes")));
    }
    let grown = model
        .trees
        .iter()
        .map(|tree| grow(tree, 0, tree.left_children.len(), names.len()));
    let trees = grown.collect::<Result<Vec<_>, _>>()?;
    Ok(Trees {
        names,
        trees,
        base,
        factor: 1.0,
        link,
        single: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused_with_what_to_do() {
        for (text, tag) in [
            ("", "trees_syntax"),
            ("{}", "trees_syntax"),
            (
                "tree\nfeature_names=a\n\nTree=0\nnum_leaves=2\nleaf_value=1 2\n",
                "trees_syntax",
            ),
            ("tree\nnum_class=3\n\nTree=0\n", "trees_unsupported"),
        ] {
            assert_eq!(Trees::parse(text).unwrap_err().tag(), tag, "{text:?}");
        }
    }

    #[test]
    fn a_child_that_is_its_own_parent_is_no_tree() {
        let text = "tree\nfeature_names=a\nobjective=binary sigmoid:1\n\nTree=0\nnum_leaves=2\nsplit_feature=0\nthreshold=1\n\
                    decision_type=2\nleft_child=0\nright_child=-2\nleaf_value=1 2\nleaf_count=1 1\ninternal_count=2\n";
        assert!(matches!(Trees::parse(text), Err(TreesError::Syntax(_))));
    }

    #[test]
    fn one_split_is_shared_out_by_hand() {
        let text = "tree\nfeature_names=a b\nobjective=binary sigmoid:1\n\nTree=0\nnum_leaves=2\nsplit_feature=1\nthreshold=0.5\n\
                    decision_type=10\nleft_child=-1\nright_child=-2\nleaf_value=1 5\nleaf_count=3 1\ninternal_count=4\n\nend of trees\n";
        let trees = Trees::parse(text).unwrap();
        assert_eq!(
            (
                trees.sum(&[0.0, 0.5]),
                trees.sum(&[0.0, 0.6]),
                trees.sum(&[0.0, f64::NAN])
            ),
            (1.0, 5.0, 1.0)
        );
        assert_eq!(trees.contributions(&[9.0, 0.6]), (vec![0.0, 3.0], 2.0));
    }
}
