//! Writes the model file of a fit: the TOML that [`vigie_scoring::Model::parse`] reads.
//!
//! Every number is written with all its digits, so that a model read back scores the same bits. What surrounds the fit
//! (engagement, pool, stages, costs) is taken from the model that it replaces. It never writes to disk.

use crate::backtest::Backtest;
use crate::metrics::{Scored, bins};
use std::fmt::Write;
use vigie_event::{Currency, Day};
use vigie_scoring::btyd::Btyd;
use vigie_scoring::churn::{ChurnModel, Feature};
use vigie_scoring::{GammaGamma, Model};

/// What a fit rests on, for the reader of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Provenance {
    /// Version of the code that fitted.
    pub code: String,
    /// First day with data.
    pub data_from: Day,
    /// The cut-off: nothing from this day on was seen.
    pub cutoff: Day,
    /// Customers with a purchase before the cut-off.
    pub customers: usize,
    /// Horizon that the labels were taken over, in days.
    pub horizon_days: u16,
    /// Gamma-Gamma of spend, where there was any.
    pub spend: Option<GammaGamma>,
    /// Its currency, where it is known.
    pub currency: Option<Currency>,
}

/// The text of the model file. `name`: 1 to 64 lower-case letters, digits and hyphens. `replaced` lends what is not fitted.
#[must_use]
pub fn model_file(
    name: &str,
    churn: &ChurnModel,
    replaced: &Model,
    provenance: &Provenance,
    backtest: Option<&Backtest>,
) -> String {
    let mut text = String::from(
        "# A fitted model of vigie. Time in weeks (days / 7), money in units of the currency, log-odds of a purchase.\n",
    );
    // Writing to a String cannot fail.
    let _ = write(&mut text, name, churn, replaced, provenance, backtest);
    text
}

fn write(
    text: &mut String,
    name: &str,
    churn: &ChurnModel,
    replaced: &Model,
    provenance: &Provenance,
    backtest: Option<&Backtest>,
) -> std::fmt::Result {
    writeln!(text, "name = \"{name}\"")?;
    for (section, Btyd { r, alpha, a, b, .. }) in [
        ("bg-nbd", inside(churn.bg)),
        ("mbg-nbd", inside(churn.mbg)),
        ("engagement", replaced.engagement),
    ] {
        writeln!(
            text,
            "\n[{section}]\nr = {r:?}\nalpha = {alpha:?}\na = {a:?}\nb = {b:?}"
        )?;
    }
    let pool = replaced.pool;
    writeln!(text, "\n[pool]\npurchase-weight = {:?}", pool.purchase_weight)?;
    writeln!(
        text,
        "engagement-weight = {:?}\noffset = {:?}",
        pool.engagement_weight, pool.offset
    )?;
    writeln!(text, "\n[churn]\nhorizons-days = {:?}", replaced.churn_horizons_days)?;
    writeln!(text, "default-horizon-days = {}", replaced.default_horizon_days)?;
    writeln!(text, "\n[refresh]\ndrift = {:?}", replaced.refresh_drift)?;
    let stages = replaced.stages;
    writeln!(
        text,
        "\n[stages]\nnew-days = {}\nslowing = {:?}",
        stages.new_days, stages.slowing
    )?;
    writeln!(text, "at-risk = {:?}\nlapsed = {:?}", stages.at_risk, stages.lapsed)?;
    writeln!(
        text,
        "\n# Added to the log-odds by MBG/NBD: weight·(feature − mean) / scale or what trees say, and the level by weeks from \
         level-from on."
    )?;
    writeln!(text, "[churn-model]\ncadence-mean = {:?}", churn.cadence.mean)?;
    writeln!(
        text,
        "cadence-variance = {:?}\nlevel-from = \"{}\"",
        churn.cadence.variance, churn.level.from
    )?;
    writeln!(text, "level-weekly = {:?}", churn.level.weekly)?;
    if let Some(correction) = &churn.correction {
        writeln!(text, "trees = '''\n{}'''", correction.text())?;
    }
    writeln!(text, "\n[churn-model.weights]")?;
    for (feature, w) in Feature::ALL.iter().zip(&churn.weights).filter(|(_, w)| w.weight != 0.0) {
        writeln!(
            text,
            "{} = {{ weight = {:?}, mean = {:?}, scale = {:?} }}",
            feature.label(),
            w.weight,
            w.mean,
            w.scale
        )?;
    }
    let by = &replaced.adjustments;
    writeln!(text, "\n[adjustments]")?;
    for (key, value) in [
        ("complaint-open", by.complaint_open),
        ("complaint-grave", by.complaint_grave),
        ("complaint-late", by.complaint_late),
        ("complaint-answered", by.complaint_answered),
        ("complaint-resatisfied", by.complaint_resatisfied),
        ("payment-failed", by.payment_failed),
        ("contact", by.contact),
        ("contacts-most", by.contacts_most),
    ] {
        writeln!(text, "{key} = {value:?}")?;
    }
    for (key, value) in [
        ("answer-days", by.answer_days),
        ("relief-half-life-days", by.relief_half_life_days),
        ("contacts-free", by.contacts_free),
    ] {
        writeln!(text, "{key} = {value}")?;
    }
    let value = &replaced.value;
    writeln!(
        text,
        "\n[value]\ndiscount-rate = {:?}\nyears = {}",
        value.discount_rate, value.years
    )?;
    writeln!(text, "acquisition = {:?}", value.acquisition)?;
    let (spend, currency) = match provenance.spend {
        Some(spend) => (Some(spend), provenance.currency),
        None => (value.spend, value.currency),
    };
    if let Some(currency) = currency {
        writeln!(text, "currency = \"{currency}\"")?;
    }
    if let Some(GammaGamma { p, q, v }) = spend {
        writeln!(text, "spend = {{ p = {p:?}, q = {q:?}, v = {v:?} }}")?;
    }
    for (item, cost) in &value.costs {
        writeln!(
            text,
            "costs.{item} = {{ share = {:?}, per-purchase = {:?}, per-year = {:?} }}",
            cost.share, cost.per_purchase, cost.per_year
        )?;
    }
    writeln!(
        text,
        "\n# For the reader; vigie does not use it.\n[fit]\ncode = {:?}",
        provenance.code
    )?;
    writeln!(
        text,
        "data-from = \"{}\"\ncutoff = \"{}\"",
        provenance.data_from, provenance.cutoff
    )?;
    writeln!(
        text,
        "customers = {}\nhorizon-days = {}",
        provenance.customers, provenance.horizon_days
    )?;
    if let Some(backtest) = backtest {
        let m = &backtest.mean;
        let (low, high) = backtest.intervals.auc;
        writeln!(
            text,
            "\n[fit.backtest]\ncutoffs = {}\npredictions = {}",
            backtest.folds.len(),
            m.n
        )?;
        writeln!(
            text,
            "auc = {:.6}\nauc-interval = [{low:.6}, {high:.6}]\nlog-loss = {:.6}",
            m.auc, m.log_loss
        )?;
        writeln!(
            text,
            "brier = {:.6}\nece = {:.6}\nlift-10 = {:.6}",
            m.brier, m.ece, m.lift10_churn
        )?;
        let all: Vec<Scored> = backtest
            .folds
            .iter()
            .flat_map(|fold| fold.scored.iter().copied())
            .collect();
        let table: Vec<String> = bins(&all, 10)
            .iter()
            .map(|b| format!("[{}, {:.6}, {:.6}]", b.n, b.predicted, b.observed))
            .collect();
        writeln!(
            text,
            "# Tenths by predicted churn: customers, predicted, observed.\ncalibration = [{}]",
            table.join(", ")
        )?;
    }
    Ok(())
}

/// Within the model file's range: a fit may end on its edge and be off by rounding.
fn inside(btyd: Btyd) -> Btyd {
    let clamp = |p: f64| p.clamp(1e-3, 1e4);
    Btyd {
        r: clamp(btyd.r),
        alpha: clamp(btyd.alpha),
        a: clamp(btyd.a),
        b: clamp(btyd.b),
        ..btyd
    }
}
