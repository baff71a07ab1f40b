//! The model file: population parameters of every score, validated.
//!
//! A model is an immutable snapshot with a name and a fingerprint of its text, which every score carries. This file never
//! fits parameters and never touches a customer.
//!
//! What is in force is always one text. Where it is more than a file, vigie has put a few lines before the model's own text:
//! which model of the configuration it stands in for, and a *candidate*, a second model that scores beside it and decides
//! nothing. So one record of the log says everything, and a replay needs to know nothing else.
//!
//! Bounds are checked so that nothing downstream can overflow, divide by zero or lose monotonicity to rounding: a score
//! must not fall under silence, and must change by more than its rounding error per millisecond near a crossing.

use crate::adjust::Adjustments;
use crate::btyd::{Btyd, Family};
use crate::churn::{Cadence, ChurnModel, FEATURES, Feature, Level, Weight};
use crate::correction::Correction;
use crate::value::{COST_ITEMS, Cost, GammaGamma, ValueModel};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use vigie_event::{Currency, Day, Timestamp};

/// How a text begins that vigie has put together; the byte at which the model's own text begins follows.
const HEADER: &str = "# put together by vigie; the model's own text begins at byte ";
/// Largest text of a model that may be a candidate: it becomes part of a log record.
pub const MAX_CANDIDATE_BYTES: usize = 384 << 10;

/// The model that is compiled in.
const SHIPPED: &str = include_str!("../../../config/models/btyd-cdnow.toml");

/// Range of every BTYD parameter.
const PARAMETERS: std::ops::RangeInclusive<f64> = 1e-3..=1e4;
/// Longest churn horizon in days.
const MAX_HORIZON_DAYS: u16 = 3650;
/// Most churn horizons.
const MAX_HORIZONS: usize = 8;
/// Most weeks of a level (ten years).
const MAX_WEEKS: usize = 521;

/// How the two parts of attrition are weighed: a logarithmic opinion pool.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pool {
    /// Weight of P(alive) on purchase days, ≥ 0.
    pub purchase_weight: f64,
    /// Weight of P(alive) on active days, ≥ 0.
    pub engagement_weight: f64,
    /// Added to the log-odds of attrition (calibration).
    pub offset: f64,
}

/// Where the life cycle's stages begin.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Stages {
    /// Days after the first purchase during which a customer is new.
    pub new_days: u16,
    /// Attrition from which a customer is slowing down.
    pub slowing: f64,
    /// Attrition from which a customer is at risk.
    pub at_risk: f64,
    /// Attrition from which a customer has lapsed.
    pub lapsed: f64,
}

/// A validated model. Time in weeks unless a name says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The name in the file.
    pub name: String,
    /// `name@` and the first 12 hexadecimal digits of the SHA-256 of the model's own text: what a score carries.
    pub version: String,
    /// The first 8 bytes of the SHA-256 of the whole text: what the customer record carries.
    pub fingerprint: u64,
    /// The whole text.
    pub text: Arc<str>,
    /// Version of the configured model that this one was put in the place of.
    pub supersedes: Option<String>,
    /// What scores beside it.
    pub candidate: Option<Arc<Model>>,
    /// The day from which on nothing was seen by the fit; `None` where the file does not say.
    pub fitted_until: Option<Day>,
    /// BG/NBD on purchase days; shown, not used in attrition or churn.
    pub bg: Btyd,
    /// MBG/NBD on purchase days.
    pub mbg: Btyd,
    /// MBG/NBD on active days.
    pub engagement: Btyd,
    /// How attrition pools the two.
    pub pool: Pool,
    /// The fitted churn model; without it churn is plain MBG/NBD.
    pub churn: Option<ChurnModel>,
    /// What complaints, failed payments and contacts add.
    pub adjustments: Adjustments,
    /// Horizons in days that an assessment shows churn for, ascending, not empty.
    pub churn_horizons_days: Vec<u16>,
    /// One of them: the horizon that is watched for drift.
    pub default_horizon_days: u16,
    /// A published score is refreshed when silence has moved it by this much.
    pub refresh_drift: f64,
    /// Where stages begin.
    pub stages: Stages,
    /// How money is counted.
    pub value: ValueModel,
}

/// Why a text is not a model. The operator's to correct.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Not the documented TOML; the text says where.
    #[error("model file cannot be read: {0}")]
    Syntax(String),
    /// Values out of range, all of them.
    #[error("model file is not valid: {}", .0.join("; "))]
    Values(Vec<String>),
}

impl ModelError {
    /// The stable name of the kind of error.
    #[must_use]
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::Syntax(_) => "model_syntax",
            Self::Values(_) => "model_values",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    name: String,
    bg_nbd: Parameters,
    mbg_nbd: Parameters,
    engagement: Parameters,
    pool: Pool,
    churn: Churn,
    churn_model: Option<Fitted>,
    #[serde(default)]
    adjustments: Adjustments,
    /// What `vigie fit` says about the fit: data window, metrics, calibration, version of the code. Only the cut-off is read.
    #[serde(default)]
    fit: Option<toml::Table>,
    refresh: Refresh,
    stages: Stages,
    #[serde(default)]
    value: Money,
}

/// The section `[value]`; everything in it has a default.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Money {
    currency: Option<String>,
    spend: Option<Spend>,
    discount_rate: Option<f64>,
    years: Option<u16>,
    acquisition: f64,
    costs: BTreeMap<String, Cost>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Spend {
    p: f64,
    q: f64,
    v: f64,
}

impl Money {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |key: String, value: f64, range: std::ops::RangeInclusive<f64>| {
            if !range.contains(&value) {
                let (low, high) = (range.start(), range.end());
                problems.push(format!("value.{key} must be from {low} to {high}, is {value}"));
            }
        };
        if let Some(Spend { p, q, v }) = self.spend {
            check("spend.p".to_owned(), p, 1e-3..=1e6);
            // A mean exists above 1 only.
            check("spend.q".to_owned(), q, 1.001..=1e6);
            check("spend.v".to_owned(), v, 1e-6..=1e12);
        }
        check(
            "discount-rate".to_owned(),
            self.discount_rate.unwrap_or_default(),
            0.0..=10.0,
        );
        check("years".to_owned(), f64::from(self.years.unwrap_or(1)), 1.0..=50.0);
        check("acquisition".to_owned(), self.acquisition, 0.0..=1e12);
        for (item, cost) in &self.costs {
            check(format!("costs.{item}.share"), cost.share, 0.0..=1.0);
            check(format!("costs.{item}.per-purchase"), cost.per_purchase, 0.0..=1e12);
            check(format!("costs.{item}.per-year"), cost.per_year, 0.0..=1e12);
        }
        check(
            "costs, shares together".to_owned(),
            self.costs.values().map(|cost| cost.share).sum(),
            0.0..=1.0,
        );
        for item in self.costs.keys().filter(|item| !COST_ITEMS.contains(&item.as_str())) {
            problems.push(format!(
                "value.costs.{item} is no item; there are {}",
                COST_ITEMS.join(", ")
            ));
        }
        if let Some(code) = &self.currency
            && Currency::parse(code).is_err()
        {
            problems.push(format!(
                "value.currency must be an ISO 4217 code such as EUR, is {code:?}"
            ));
        }
        problems
    }

    fn model(self) -> ValueModel {
        let default = ValueModel::default();
        ValueModel {
            currency: self.currency.and_then(|code| Currency::parse(&code).ok()),
            spend: self.spend.map(|Spend { p, q, v }| GammaGamma { p, q, v }),
            costs: self.costs,
            discount_rate: self.discount_rate.unwrap_or(default.discount_rate),
            years: self.years.unwrap_or(default.years),
            acquisition: self.acquisition,
        }
    }
}

/// The section that `vigie fit` writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Fitted {
    cadence_mean: f64,
    cadence_variance: f64,
    level_from: String,
    level_weekly: Vec<f64>,
    /// Boosted trees in place of the weights: LightGBM text or XGBoost JSON.
    trees: Option<String>,
    #[serde(default)]
    weights: BTreeMap<String, FittedWeight>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct FittedWeight {
    weight: f64,
    mean: f64,
    scale: f64,
}

impl Fitted {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |key: &str, value: f64, range: std::ops::RangeInclusive<f64>| {
            if !range.contains(&value) {
                let (low, high) = (range.start(), range.end());
                problems.push(format!("churn-model.{key} must be from {low} to {high}, is {value}"));
            }
        };
        check("cadence-mean", self.cadence_mean, 0.0..=10.0);
        check("cadence-variance", self.cadence_variance, 1e-3..=100.0);
        for level in &self.level_weekly {
            check("level-weekly", *level, -10.0..=10.0);
        }
        for (name, w) in &self.weights {
            check(&format!("weights.{name}.weight"), w.weight, -20.0..=20.0);
            check(&format!("weights.{name}.mean"), w.mean, -1e6..=1e6);
            check(&format!("weights.{name}.scale"), w.scale, 1e-9..=1e6);
        }
        for name in self.weights.keys() {
            if Feature::ALL.iter().all(|feature| feature.label() != name) {
                let known = Feature::ALL.map(Feature::label).join(", ");
                problems.push(format!("churn-model.weights.{name} is no feature; there are {known}"));
            }
        }
        if self.level_weekly.len() > MAX_WEEKS {
            problems.push(format!("churn-model.level-weekly must have at most {MAX_WEEKS} weeks"));
        }
        if let Some(Err(error)) = self.trees.as_deref().map(Correction::parse) {
            problems.push(format!("churn-model.trees: {error}"));
        }
        if Timestamp::parse(&self.level_from).is_err() {
            problems.push(format!(
                "churn-model.level-from must be a date, is {:?}",
                self.level_from
            ));
        }
        problems
    }

    fn model(&self, bg: Btyd, mbg: Btyd) -> ChurnModel {
        let mut weights = [Weight::default(); FEATURES];
        for (feature, weight) in Feature::ALL.iter().zip(&mut weights) {
            if let Some(FittedWeight {
                weight: by,
                mean,
                scale,
            }) = self.weights.get(feature.label()).copied()
            {
                *weight = Weight {
                    weight: by,
                    mean,
                    scale,
                };
            }
        }
        ChurnModel {
            bg,
            mbg,
            cadence: Cadence {
                mean: self.cadence_mean,
                variance: self.cadence_variance,
            },
            weights,
            correction: self.trees.as_deref().and_then(|text| Correction::parse(text).ok()),
            level: Level {
                from: Timestamp::parse(&self.level_from)
                    .map(Timestamp::day)
                    .unwrap_or_default(),
                weekly: self.level_weekly.clone(),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    r: f64,
    alpha: f64,
    a: f64,
    b: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Churn {
    horizons_days: Vec<u16>,
    default_horizon_days: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refresh {
    drift: f64,
}

impl Model {
    /// The model that is compiled in (`config/models/btyd-cdnow.toml`). A test keeps it valid.
    pub fn shipped() -> Result<Self, ModelError> {
        Self::parse(SHIPPED)
    }

    /// The text of [`Model::shipped`].
    #[must_use]
    pub fn shipped_text() -> &'static str {
        SHIPPED
    }

    /// Reads and validates a model file, or a text that vigie has put together; reports everything that is wrong at once.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let (header, own) = split(text)?;
        let model = Self::parse_own(own)?;
        let candidate = header.candidate.as_deref().map(Self::parse_own).transpose()?;
        Ok(Self {
            fingerprint: fingerprint(text),
            text: text.into(),
            supersedes: header.supersedes,
            candidate: candidate.map(Arc::new),
            ..model
        })
    }

    /// The model's own text, as its file has it.
    #[must_use]
    pub fn own_text(&self) -> &str {
        split(&self.text).map_or(&*self.text, |(_, own)| own)
    }

    /// The text that is this model with a candidate beside it, or without one. The candidate's own header is left out.
    #[must_use]
    pub fn beside(&self, candidate: Option<&Self>) -> String {
        put_together(
            self.own_text(),
            self.supersedes.as_deref(),
            candidate.map(Self::own_text),
        )
    }

    /// The text that puts the candidate in this model's place, until the configuration names another model than it names
    /// now; `None` without a candidate.
    #[must_use]
    pub fn promoted(&self) -> Option<String> {
        let candidate = self.candidate.as_deref()?;
        let supersedes = self.supersedes.as_deref().unwrap_or(&self.version);
        let supersedes = (supersedes != candidate.version).then_some(supersedes);
        Some(put_together(candidate.own_text(), supersedes, None))
    }

    /// Whether this model stands where the configured one should: it is it, or it was put in its place.
    #[must_use]
    pub fn stands_for(&self, configured: &Self) -> bool {
        self.version == configured.version || self.supersedes.as_ref() == Some(&configured.version)
    }

    fn parse_own(text: &str) -> Result<Self, ModelError> {
        let file: File =
            toml::from_str(text).map_err(|error| ModelError::Syntax(error.to_string().trim_end().to_owned()))?;
        let problems = file.problems();
        if !problems.is_empty() {
            return Err(ModelError::Values(problems));
        }
        let (bg, mbg) = (file.bg_nbd.family(Family::Bg), file.mbg_nbd.family(Family::Mbg));
        let fingerprint = fingerprint(text);
        let cutoff = file.fit.as_ref().and_then(|fit| fit.get("cutoff")?.as_str());
        Ok(Self {
            version: format!("{}@{:012x}", file.name, fingerprint >> 16),
            fingerprint,
            text: text.into(),
            supersedes: None,
            candidate: None,
            fitted_until: cutoff.and_then(|day| Timestamp::parse(day).ok()).map(Timestamp::day),
            churn: file.churn_model.map(|fitted| fitted.model(bg, mbg)),
            adjustments: file.adjustments,
            bg,
            mbg,
            engagement: file.engagement.family(Family::Mbg),
            pool: file.pool,
            churn_horizons_days: file.churn.horizons_days,
            default_horizon_days: file.churn.default_horizon_days,
            refresh_drift: file.refresh.drift,
            stages: file.stages,
            value: file.value.model(),
            name: file.name,
        })
    }
}

/// The first 8 bytes of a text's SHA-256.
fn fingerprint(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0u64, |all, byte| all << 8 | u64::from(*byte))
}

/// What vigie has put before a model's own text.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Header {
    supersedes: Option<String>,
    candidate: Option<String>,
}

/// The header and the model's own text.
fn split(text: &str) -> Result<(Header, &str), ModelError> {
    let Some(rest) = text.strip_prefix(HEADER) else {
        return Ok((Header::default(), text));
    };
    let damaged = || ModelError::Syntax("what vigie has put before the model's own text is damaged".to_owned());
    let (number, _) = rest.split_once('\n').ok_or_else(damaged)?;
    let at: usize = number.parse().map_err(|_| damaged())?;
    let (header, own) = text.split_at_checked(at).ok_or_else(damaged)?;
    let header = toml::from_str(header).map_err(|error| ModelError::Syntax(error.to_string().trim_end().to_owned()))?;
    Ok((header, own))
}

fn put_together(own: &str, supersedes: Option<&str>, candidate: Option<&str>) -> String {
    let line = |key: &str, value: Option<&str>| {
        value.map_or_else(String::new, |value| {
            format!("{key} = {}\n", toml::Value::String(value.to_owned()))
        })
    };
    let rest = format!("{}{}", line("supersedes", supersedes), line("candidate", candidate));
    if rest.is_empty() {
        return own.to_owned();
    }
    // The number is padded, so that it does not depend on its own length.
    let at = HEADER.len() + 8 + 1 + rest.len();
    format!("{HEADER}{at:08}\n{rest}{own}")
}

impl Parameters {
    fn family(&self, family: Family) -> Btyd {
        Btyd {
            family,
            r: self.r,
            alpha: self.alpha,
            a: self.a,
            b: self.b,
        }
    }
}

impl File {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        require(
            (1..=64).contains(&self.name.len()) && self.name.chars().all(plain),
            "name must be 1 to 64 lower-case letters, digits and hyphens".to_owned(),
        );
        for (section, p) in [
            ("bg-nbd", &self.bg_nbd),
            ("mbg-nbd", &self.mbg_nbd),
            ("engagement", &self.engagement),
        ] {
            for (key, value) in [("r", p.r), ("alpha", p.alpha), ("a", p.a), ("b", p.b)] {
                let (low, high) = (PARAMETERS.start(), PARAMETERS.end());
                require(
                    PARAMETERS.contains(&value),
                    format!("{section}.{key} must be from {low} to {high}, is {value}"),
                );
            }
        }
        let Pool {
            purchase_weight,
            engagement_weight,
            offset,
        } = self.pool;
        for (key, weight) in [
            ("purchase-weight", purchase_weight),
            ("engagement-weight", engagement_weight),
        ] {
            let fits = weight == 0.0 || (1e-3..=1e3).contains(&weight);
            require(fits, format!("pool.{key} must be 0 or from 0.001 to 1000, is {weight}"));
        }
        require(
            purchase_weight + engagement_weight > 0.0,
            "pool needs a weight above 0".to_owned(),
        );
        require(
            (-20.0..=20.0).contains(&offset),
            format!("pool.offset must be from -20 to 20, is {offset}"),
        );
        let horizons = &self.churn.horizons_days;
        require(
            (1..=MAX_HORIZONS).contains(&horizons.len())
                && horizons.is_sorted_by(|a, b| a < b)
                && horizons.iter().all(|days| (1..=MAX_HORIZON_DAYS).contains(days)),
            format!("churn.horizons-days must be 1 to {MAX_HORIZONS} ascending numbers from 1 to {MAX_HORIZON_DAYS}"),
        );
        let default = self.churn.default_horizon_days;
        require(
            horizons.contains(&default),
            "churn.default-horizon-days must be one of horizons-days".to_owned(),
        );
        let drift = self.refresh.drift;
        require(
            (1e-4..=0.5).contains(&drift),
            format!("refresh.drift must be from 0.0001 to 0.5, is {drift}"),
        );
        let Stages {
            slowing,
            at_risk,
            lapsed,
            ..
        } = self.stages;
        let ascending = 0.0 < slowing && slowing < at_risk && at_risk < lapsed && lapsed < 1.0;
        require(
            ascending,
            "stages must satisfy 0 < slowing < at-risk < lapsed < 1".to_owned(),
        );
        problems.extend(self.churn_model.iter().flat_map(Fitted::problems));
        problems.extend(self.adjustments.problems());
        problems.extend(self.value.problems());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_put_together_says_what_it_was_put_together_from() {
        let shipped = Model::shipped().unwrap();
        let other = |name: &str| Model::parse(&SHIPPED.replacen("btyd-cdnow", name, 1)).unwrap();
        let (second, third) = (other("second"), other("third"));
        let beside = Model::parse(&shipped.beside(Some(&second))).unwrap();
        assert_eq!(beside.candidate.as_deref(), Some(&second));
        assert_eq!((&beside.version, beside.own_text()), (&shipped.version, SHIPPED));
        assert_ne!(beside.fingerprint, shipped.fingerprint);
        assert!(beside.stands_for(&shipped) && !beside.stands_for(&second));
        assert_eq!(Model::parse(&beside.beside(None)).unwrap(), shipped);
        let promoted = Model::parse(&beside.promoted().unwrap()).unwrap();
        assert_eq!(
            (&promoted.version, promoted.own_text()),
            (&second.version, second.own_text())
        );
        assert!(promoted.candidate.is_none() && promoted.stands_for(&shipped) && promoted.stands_for(&second));
        assert!(!promoted.stands_for(&third) && promoted.promoted().is_none());
        // What stands in for the configured model stays that when it is succeeded in turn, even by that model itself.
        let again = Model::parse(&promoted.beside(Some(&third))).unwrap();
        let again = Model::parse(&again.promoted().unwrap()).unwrap();
        assert!(again.stands_for(&shipped) && !again.stands_for(&second));
        let home = Model::parse(&again.beside(Some(&shipped))).unwrap();
        assert_eq!(home.promoted().unwrap(), SHIPPED);
        // Texts with quotes of every kind survive.
        let quoted = Model::parse(&format!("# \"\"\" and ''' and \\u0000\n{SHIPPED}")).unwrap();
        let beside = Model::parse(&shipped.beside(Some(&quoted))).unwrap();
        assert_eq!(beside.candidate.as_deref(), Some(&quoted));
        for damaged in [format!("{HEADER}99999999\n"), format!("{HEADER}x\n"), HEADER.to_owned()] {
            assert_eq!(Model::parse(&damaged).unwrap_err().tag(), "model_syntax");
        }
    }

    #[test]
    fn the_shipped_model_is_valid_and_has_the_published_parameters() {
        let model = Model::shipped().unwrap();
        assert_eq!(model.name, "btyd-cdnow");
        let rounded = |btyd: &Btyd| [btyd.r, btyd.alpha, btyd.a, btyd.b].map(|value| (value * 1e4).round() / 1e4);
        assert_eq!(
            (model.bg.family, rounded(&model.bg)),
            (Family::Bg, [0.2426, 4.4136, 0.7929, 2.4259])
        );
        assert_eq!(
            (model.mbg.family, rounded(&model.mbg)),
            (Family::Mbg, [0.5248, 6.1831, 0.8914, 1.6140])
        );
        assert_eq!(model.churn_horizons_days, [30, 90, 365]);
        assert!(model.version.starts_with("btyd-cdnow@"), "{}", model.version);
        assert_eq!(model.version.len(), "btyd-cdnow@".len() + 12);
    }

    #[test]
    fn another_text_is_another_version() {
        let other = Model::parse(&SHIPPED.replace("offset = 0.0", "offset = 0.1")).unwrap();
        assert_ne!(other.version, Model::shipped().unwrap().version);
        assert_ne!(other.fingerprint, Model::shipped().unwrap().fingerprint);
    }

    #[test]
    fn everything_that_is_wrong_is_reported_together() {
        let text = SHIPPED
            .replace("alpha = 4.413601844086617", "alpha = 0.0")
            .replace("b = 1.6140023133571513", "b = nan")
            .replace("default-horizon-days = 90", "default-horizon-days = 91")
            .replace("lapsed = 0.85", "lapsed = 0.5");
        let error = Model::parse(&text).unwrap_err();
        assert_eq!(error.tag(), "model_values");
        let text = error.to_string();
        for part in ["bg-nbd.alpha", "mbg-nbd.b", "default-horizon-days", "slowing < at-risk"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn costs_are_items_and_together_no_more_than_the_price() {
        let with = |value: &str| Model::parse(&format!("{SHIPPED}\n{value}"));
        let good = "[value]\ncurrency = \"USD\"\nspend = { p = 6.25, q = 3.74, v = 15.4 }\ndiscount-rate = 0.08\n[value.costs]\ngoods = { share = 0.6 }\nlogistics = { per-purchase = 3.5 }\n";
        let value = with(good).unwrap().value;
        assert_eq!((value.years, value.discount_rate, value.costs.len()), (5, 0.08, 2));
        let bad = "[value]\ncurrency = \"US\"\nspend = { p = 6.0, q = 0.9, v = 15.0 }\nyears = 0\n[value.costs]\ngoods = { share = 0.6 }\nadvertising = { share = 0.5 }\nrent = { per-year = 1.0 }\n";
        let error = with(bad).unwrap_err().to_string();
        for part in [
            "value.currency",
            "value.spend.q",
            "value.years",
            "shares together",
            "costs.rent is no item",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let error = Model::parse(&SHIPPED.replace("[refresh]", "[refresh]\ndrfit = 0.1")).unwrap_err();
        assert_eq!(error.tag(), "model_syntax");
        assert!(
            error.to_string().contains("drfit") && error.to_string().contains("line"),
            "{error}"
        );
    }
}
