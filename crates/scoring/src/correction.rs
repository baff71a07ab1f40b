//! Boosted trees in place of the churn model's weights: what they add to the log-odds of a purchase by MBG/NBD.
//!
//! The trees' features are [`Feature::label`]s, some or all of them, so that trees trained by `vigie fit --model gbdt` and
//! trees trained elsewhere (LightGBM text, XGBoost JSON; see [`crate::trees`]) are the same thing here. Contributions are
//! their exact Shapley values. Nothing is asked of their shape: how far they can move over a stretch of silence follows from
//! the leaves that can be reached in it.

use crate::churn::{FEATURES, Feature};
use crate::trees::{Trees, TreesError};
use std::sync::Arc;

/// See the module.
#[derive(Debug, Clone)]
pub struct Correction {
    text: Arc<str>,
    trees: Trees,
    /// For each feature of the trees, its place in [`Feature::ALL`].
    places: Vec<usize>,
    mean: f64,
}

impl PartialEq for Correction {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Correction {
    /// Reads a tree model whose features bear the names of [`Feature::ALL`].
    pub fn parse(text: &str) -> Result<Self, TreesError> {
        let trees = Trees::parse(text)?;
        let place = |name: &String| {
            Feature::ALL
                .iter()
                .position(|feature| feature.label() == name)
                .ok_or_else(|| {
                    let known = Feature::ALL.map(Feature::label).join(", ");
                    TreesError::Unsupported(format!(
                        "{name:?} is no feature of churn; train on some of {known}, under these names"
                    ))
                })
        };
        let places: Vec<usize> = trees.features().iter().map(place).collect::<Result<_, _>>()?;
        if places.len() > FEATURES {
            return Err(TreesError::Unsupported("a feature has two columns".to_owned()));
        }
        let mean = trees.mean();
        Ok(Self {
            text: text.into(),
            trees,
            places,
            mean,
        })
    }

    /// The text that it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the trees say on average over their training rows.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// What they add to the log-odds, their mean included.
    #[must_use]
    pub fn log_odds(&self, features: &[f64; FEATURES]) -> f64 {
        self.with(features, |row| self.trees.sum(row))
    }

    /// The same less the mean, by feature, in the order of [`Feature::ALL`].
    #[must_use]
    pub fn contributions(&self, features: &[f64; FEATURES]) -> [f64; FEATURES] {
        let (phi, _) = self.with(features, |row| self.trees.contributions(row));
        let mut all = [0.0; FEATURES];
        for (place, phi) in self.places.iter().zip(phi) {
            if let Some(of) = all.get_mut(*place) {
                *of += phi;
            }
        }
        all
    }

    /// The least and the most that they can add while every feature stays between its two values.
    #[must_use]
    pub fn bounds(&self, a: &[f64; FEATURES], b: &[f64; FEATURES]) -> (f64, f64) {
        self.with(a, |a| self.with(b, |b| self.trees.bounds(a, b)))
    }

    fn with<T>(&self, features: &[f64; FEATURES], f: impl FnOnce(&[f64]) -> T) -> T {
        let mut row = [0.0; FEATURES];
        for (cell, place) in row.iter_mut().zip(&self.places) {
            *cell = features.get(*place).copied().unwrap_or(f64::NAN);
        }
        f(row.get(..self.places.len()).unwrap_or(&row))
    }
}
