//! A backtest as one page: tables, calibration and gain plots as inline SVG, readable without a network.
//!
//! Everything that comes from data is escaped. It never writes a file and never loads anything.

use crate::backtest::{Backtest, Plan};
use crate::metrics::{Scored, bins, gain};
use std::fmt::Write;

/// Side of a plot in units of its view box, and the margin for its labels.
const SIDE: f64 = 300.0;
const MARGIN: f64 = 44.0;
/// Colours that stay apart for the colour-blind (Okabe, Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Points in the unit square.
type Points = Vec<(f64, f64)>;
/// A named curve.
type Curve = (&'static str, Points);

/// The page. `title` is shown as it is given, the data's name for instance. `segments`: name and predictions of the first
/// candidate, for the table by segment; empty: no such table.
#[must_use]
pub fn report(title: &str, plan: &Plan, results: &[Backtest], segments: &[(String, Vec<Scored>)]) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write_page(&mut page, title, plan, results, segments);
    page
}

fn write_page(
    page: &mut String,
    title: &str,
    plan: &Plan,
    results: &[Backtest],
    segments: &[(String, Vec<Scored>)],
) -> std::fmt::Result {
    let title = escape(title);
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Backtest: {title}</title>\n<style>{STYLE}</style></head>\n\
         <body><h1>Backtest: {title}</h1>\n<p>Churn: no purchase within {} days. Customers: a purchase within {} days before the cut-off. \
         Every cut-off is scored by a model fitted only on what came before it; metrics are means over the cut-offs.</p>\n",
        plan.task.horizon_days, plan.task.active_days
    )?;
    page.push_str("<h2>Models</h2>\n<table><tr><th>model</th>");
    for head in [
        "AUC",
        "PR-AUC",
        "log loss",
        "against the first",
        "Brier",
        "ECE",
        "lift at 10 %",
        "expected / observed",
    ] {
        write!(page, "<th>{head}</th>")?;
    }
    page.push_str("</tr>\n");
    for (rank, result) in results.iter().enumerate() {
        let (m, i) = (&result.mean, &result.intervals);
        let with = |value: f64, (low, high): (f64, f64)| format!("{value:.4} ({low:.4} to {high:.4})");
        let (by, low, high) = result.against_first;
        let against = if rank == 0 {
            String::new()
        } else {
            format!("{by:+.4} ({low:+.4} to {high:+.4})")
        };
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{:.4}</td><td>{}</td><td>{against}</td><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.3}</td></tr>",
            result.candidate.label(),
            with(m.auc, i.auc),
            m.pr_auc_churn,
            with(m.log_loss, i.log_loss),
            with(m.brier, i.brier),
            with(m.ece, i.ece),
            m.lift10_churn,
            m.expected_over_actual
        )?;
    }
    page.push_str("</table>\n<p>In brackets, 95 % bootstrap intervals over customers. Log loss against the first model: above 0 the first is better.</p>\n");
    let curves = |points: &dyn Fn(&[Scored]) -> Points| -> Vec<Curve> {
        results
            .iter()
            .map(|result| (result.candidate.label(), points(&all(result))))
            .collect()
    };
    let calibration = |scored: &[Scored]| {
        bins(scored, 10)
            .iter()
            .map(|bin| (bin.predicted, bin.observed))
            .collect()
    };
    page.push_str("<h2>Calibration and gain</h2>\n<div class=\"plots\">\n");
    plot(
        page,
        "Calibration",
        "predicted churn",
        "observed churn",
        true,
        &curves(&calibration),
    )?;
    plot(
        page,
        "Gain",
        "share of customers, riskiest first",
        "share of churners found",
        false,
        &curves(&|s| gain(s, 50)),
    )?;
    page.push_str("</div>\n");
    if let Some(first) = results.first() {
        writeln!(page, "<h2>Calibration of {}</h2>", first.candidate.label())?;
        page.push_str("<table><tr><th>tenth</th><th>customers</th><th>predicted</th><th>observed</th></tr>\n");
        for (tenth, bin) in bins(&all(first), 10).iter().enumerate() {
            writeln!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td></tr>",
                tenth + 1,
                bin.n,
                bin.predicted,
                bin.observed
            )?;
        }
        page.push_str("</table>\n");
    }
    page.push_str("<h2>Cut-offs</h2>\n<table><tr><th>model</th><th>cut-off</th><th>customers</th><th>churned</th><th>AUC</th><th>log loss</th><th>ECE</th></tr>\n");
    for (result, fold) in results
        .iter()
        .flat_map(|result| result.folds.iter().map(move |fold| (result, fold)))
    {
        let m = &fold.metrics;
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td></tr>",
            result.candidate.label(),
            fold.cutoff,
            m.n,
            m.base,
            m.auc,
            m.log_loss,
            m.ece
        )?;
    }
    page.push_str("</table>\n");
    if !segments.is_empty() {
        page.push_str("<h2>Segments</h2>\n<table><tr><th>segment</th><th>customers</th><th>churned</th><th>AUC</th><th>log loss</th><th>ECE</th></tr>\n");
        for (name, scored) in segments {
            let m = crate::metrics::metrics(scored);
            writeln!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td></tr>",
                escape(name),
                m.n,
                m.base,
                m.auc,
                m.log_loss,
                m.ece
            )?;
        }
        page.push_str("</table>\n");
    }
    page.push_str("</body></html>\n");
    Ok(())
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}.plots{display:flex;flex-wrap:wrap;gap:1rem}svg{width:27rem;max-width:100%}\
svg text{font:12px system-ui,sans-serif;fill:#222}";

fn all(result: &Backtest) -> Vec<Scored> {
    result
        .folds
        .iter()
        .flat_map(|fold| fold.scored.iter().copied())
        .collect()
}

/// Curves in the unit square over its diagonal.
fn plot(page: &mut String, title: &str, x: &str, y: &str, dots: bool, curves: &[Curve]) -> std::fmt::Result {
    let across = |v: f64| MARGIN + v.clamp(0.0, 1.0) * SIDE;
    let up = |v: f64| 24.0 + (1.0 - v.clamp(0.0, 1.0)) * SIDE;
    let (width, height) = (SIDE + 2.0 * MARGIN, SIDE + 64.0 + 18.0 * curves.len() as f64);
    writeln!(
        page,
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}: {y} by {x}\"><title>{title}</title>"
    )?;
    for tick in 0..=5 {
        let at = f64::from(tick) / 5.0;
        let (left, top, right, bottom) = (across(0.0), up(1.0), across(1.0), up(0.0));
        writeln!(
            page,
            "<path d=\"M{left} {h:.1}H{right}M{v:.1} {top}V{bottom}\" stroke=\"#ddd\" fill=\"none\"/>\
             <text x=\"{v:.1}\" y=\"{below}\" text-anchor=\"middle\">{at:.1}</text><text x=\"{before}\" y=\"{level:.1}\" text-anchor=\"end\">{at:.1}</text>",
            h = up(at),
            v = across(at),
            below = bottom + 16.0,
            before = left - 6.0,
            level = up(at) + 4.0
        )?;
    }
    writeln!(
        page,
        "<path d=\"M{} {}L{} {}\" stroke=\"#888\" stroke-dasharray=\"4 4\"/>",
        across(0.0),
        up(0.0),
        across(1.0),
        up(1.0)
    )?;
    writeln!(
        page,
        "<text x=\"{}\" y=\"14\">{y}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{x}</text>",
        MARGIN - 30.0,
        across(1.0),
        up(0.0) + 32.0
    )?;
    for (k, ((name, points), colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let path: Vec<String> = points
            .iter()
            .map(|(px, py)| format!("{:.1} {:.1}", across(*px), up(*py)))
            .collect();
        writeln!(
            page,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        )?;
        for (px, py) in points.iter().filter(|_| dots) {
            writeln!(
                page,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                across(*px),
                up(*py)
            )?;
        }
        let line = up(0.0) + 50.0 + 18.0 * k as f64;
        writeln!(
            page,
            "<path d=\"M{MARGIN} {line}h20\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{}\" y=\"{}\">{name}</text>",
            MARGIN + 26.0,
            line + 4.0
        )?;
    }
    page.push_str("</svg>\n");
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
