//! Reports as HTML pages with their plots: no script, no network, light and dark, fit for printing. It draws what a report says
//! and computes nothing else. Everything that came from data is escaped, wherever it stands.
//!
//! Length: three pages, each from its top to its end, over one style and a few drawings.

use super::figures::{major, many, minor, money, percent, points};
use super::text::{bands, compared};
use crate::html::{self, escape};
use std::fmt::Write;
use vigie_relance::LifeStage;
use vigie_relance::report::Estimate;
use vigie_relance::report::losses::{Loss, Losses};
use vigie_relance::report::policies::{Policies, PolicyReport, Side};
use vigie_relance::report::portfolio::{CurrencyPortfolio, Portfolio, Sums};

/// Width of a plot in units of its drawing.
const WIDTH: f64 = 640.0;

// Writing to a string cannot fail: here and in every `let _ =` below.
fn document(title: &str, lead: &str, body: &str) -> String {
    let lead = format!("<p class=\"faint\">{}</p>\n", escape(lead));
    html::document(title, "", &(lead + body))
}

fn cards(cards: &[(String, &str, String)]) -> String {
    let mut out = String::from("<div class=\"cards\">\n");
    for (value, name, note) in cards {
        let note = match note.is_empty() {
            true => String::new(),
            false => format!("<br><small>{}</small>", escape(note)),
        };
        let _ = writeln!(
            out,
            "<div class=\"card\"><b>{}</b>{}{note}</div>",
            escape(value),
            escape(name)
        );
    }
    out + "</div>\n"
}

fn day(at: &str) -> &str {
    at.get(..10).unwrap_or(at)
}

pub(super) fn policies(report: &Policies) -> String {
    let sum = |of: fn(&PolicyReport) -> u64| report.policies.iter().map(of).sum::<u64>();
    let verdicts = |wanted: &str| report.policies.iter().filter(|policy| policy.verdict == wanted).count();
    let mut body = cards(&[
        (
            sum(|policy| policy.flagged).to_string(),
            "relances to contact",
            String::new(),
        ),
        (
            sum(|policy| policy.held_out).to_string(),
            "held out",
            "what happens without a contact".to_owned(),
        ),
        (
            verdicts("works").to_string(),
            "policies that work",
            format!("of {}", report.policies.len()),
        ),
        (
            verdicts("harms").to_string(),
            "policies that harm",
            "to be stopped".to_owned(),
        ),
        (
            report.money_share.map_or_else(|| "none".to_owned(), percent),
            "paid with money",
            "the rest is attention, recognition, service".to_owned(),
        ),
    ]);
    body += &forest(&report.policies);
    for policy in &report.policies {
        body += &one_policy(policy);
    }
    if !report.plays.is_empty() {
        body += "<h2>Plays</h2>\n<div class=\"scroll\"><table><tr><th>play</th><th class=\"n\">relances</th><th class=\"n\">treated returned</th><th class=\"n\">held out returned</th></tr>\n";
        for (play, own) in &report.plays {
            let ([n1, n0], [treated, held_out]) = (own.customers, own.returned);
            let _ = writeln!(
                body,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{} of {n1}</td><td class=\"n\">{} of {n0}</td></tr>",
                escape(play),
                own.flags,
                percent(treated),
                percent(held_out)
            );
        }
        body += "</table></div>\n";
    }
    if report.left_out > 0 {
        let _ = writeln!(
            body,
            "<p>Left out: {} that cannot be read.</p>",
            many(report.left_out, "flag")
        );
    }
    let lead = format!(
        "As of {}. A customer counts once, with their first flag, when its window is over; whether a contact was made or not, so that the two arms differ by nothing but the policy. The intervals hold however often one looks.",
        report.as_of
    );
    document("Do our relances work?", &lead, &body)
}

/// One interval for each policy, over one axis.
fn forest(policies: &[PolicyReport]) -> String {
    let measured: Vec<(&PolicyReport, Estimate)> = policies
        .iter()
        .filter_map(|policy| Some((policy, policy.uplift.estimate()?)))
        .collect();
    if measured.is_empty() {
        return "<p>No policy has enough customers at the end of their window for a comparison yet; how many are needed stands with each.</p>\n".to_owned();
    }
    let most = measured
        .iter()
        .flat_map(|(_, estimate)| [estimate.low.abs(), estimate.high.abs()])
        .fold(0.02, f64::max)
        * 1.1;
    let left = 190.0;
    let x = |value: f64| left + (value / most + 1.0) / 2.0 * (WIDTH - left - 20.0);
    let height = 44.0 + 30.0 * measured.len() as f64;
    let mut out =
        format!("<figure><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Uplift of each policy\">\n");
    for share in [-1.0, -0.5, 0.0, 0.5, 1.0] {
        let (at, class) = (x(share * most), if share == 0.0 { "zero" } else { "axis" });
        let _ = writeln!(
            out,
            "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"6\" y2=\"{:.1}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:+.1}</text>",
            height - 30.0,
            height - 12.0,
            share * most * 100.0
        );
    }
    for (nth, (policy, estimate)) in measured.iter().enumerate() {
        let y = 22.0 + 30.0 * nth as f64;
        let class = class_of(policy.verdict);
        let _ = writeln!(
            out,
            "<text class=\"v\" x=\"0\" y=\"{:.1}\">{}</text><line class=\"{class}\" stroke-width=\"3\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y}\" y2=\"{y}\"/><circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y}\" r=\"5\"/>",
            y + 4.0,
            escape(&shortened(&policy.policy, 26)),
            x(estimate.low),
            x(estimate.high),
            x(estimate.estimate)
        );
    }
    out + "</svg><figcaption>Returns, treated less held out, in percentage points, with the interval that holds at all times. Right of zero: the policy brings customers back.</figcaption></figure>\n"
}

fn class_of(verdict: &str) -> &'static str {
    match verdict {
        "works" => "good",
        "harms" => "bad",
        _ => "open",
    }
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn one_policy(policy: &PolicyReport) -> String {
    let mut out = format!(
        "<section class=\"policy\"><h2>{} <span class=\"tag {}\">{}</span></h2>\n",
        escape(&policy.policy),
        policy.verdict,
        policy.verdict
    );
    let goal = [&policy.goal, &policy.because].map(|text| escape(text)).join(" ");
    let _ = writeln!(out, "<p>{goal}</p>");
    let mut facts: Vec<(&str, String)> = Vec::new();
    if !policy.owner.is_empty() {
        facts.push(("owner", policy.owner.clone()));
    }
    let target = format!(
        "{} within {} days; play {}",
        policy.target, policy.window_days, policy.play
    );
    facts.push(("after", target));
    if !policy.since.is_empty() {
        let of = format!(
            "{} ({} of {} days; {})",
            day(&policy.since),
            policy.days,
            policy.after_days,
            many(policy.versions.len() as u64, "version")
        );
        facts.push(("since", of));
    }
    facts.push((
        "flags",
        format!(
            "{} to contact, {} held out; {} open, {} recalled",
            policy.flagged, policy.held_out, policy.open, policy.recalled
        ),
    ));
    facts.push((
        "contacts",
        format!(
            "{} claimed, {} contacted, {} answered",
            policy.claimed, policy.contacted, policy.answered
        ),
    ));
    facts.push(("uplift", compared(&policy.uplift, points)));
    facts.push(("lasting", compared(&policy.lasting_uplift, points)));
    facts.push(("annoyance", compared(&policy.annoyance, points)));
    if let Some(currency) = &policy.currency {
        let shown = |value: f64| minor(value, currency);
        facts.push((
            "margin",
            format!("{} per customer", compared(&policy.margin_uplift, shown)),
        ));
        if let Some(saved) = policy.saved_minor {
            facts.push((
                "saved",
                format!(
                    "{} ({} to {})",
                    shown(saved.estimate),
                    shown(saved.low),
                    shown(saved.high)
                ),
            ));
        }
        let planned = if policy.cost_is_planned {
            "; one contact for each flag assumed, none was reported"
        } else {
            ""
        };
        facts.push(("cost", format!("{}{planned}", shown(policy.cost_minor))));
        if let Some(roi) = policy.roi {
            facts.push((
                "ROI",
                format!("{:.1} ({:.1} to {:.1})", roi.estimate, roi.low, roi.high),
            ));
        }
        facts.push((
            "opportunity",
            format!(
                "{} with {} whom nobody contacted",
                shown(policy.roo_minor),
                many(policy.untouched, "customer")
            ),
        ));
    }
    if !policy.refused_now.is_empty() {
        let reasons: Vec<String> = policy
            .refused_now
            .iter()
            .map(|(reason, count)| format!("{} {count}", reason.replace('_', " ")))
            .collect();
        facts.push(("refused now", reasons.join(", ")));
    }
    out += "<div class=\"pair\"><dl>\n";
    for (name, value) in &facts {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
    }
    out += "</dl>\n";
    out += &arms(policy);
    out += "</div>\n";
    if policy.stages.len() > 1 {
        out += "<div class=\"scroll\"><table><tr><th>stage at the flag</th><th class=\"n\">treated returned</th><th class=\"n\">held out returned</th></tr>\n";
        let of = |(customers, returned): (u64, u64)| match customers {
            0 => "none".to_owned(),
            _ => format!("{} of {customers}", percent(returned as f64 / customers as f64)),
        };
        for (stage, [treated, held_out]) in &policy.stages {
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                escape(&stage.replace('_', " ")),
                of(*treated),
                of(*held_out)
            );
        }
        out += "</table></div>\n";
    }
    out + "</section>\n"
}

/// What became of both arms, as bars.
fn arms(policy: &PolicyReport) -> String {
    type Share = fn(&Side) -> f64;
    let rows: [(&str, Share); 3] = [
        ("returned", |side| side.returned),
        ("lastingly", |side| side.lasted),
        ("annoyed", |side| side.annoyed),
    ];
    let most = rows
        .iter()
        .flat_map(|(_, of)| [of(&policy.treated), of(&policy.control)])
        .fold(0.01, f64::max);
    let (left, width) = (80.0, 320.0);
    let mut out = format!(
        "<figure><svg viewBox=\"0 0 480 {}\" role=\"img\" aria-label=\"Treated and held-out customers\">\n",
        rows.len() * 48
    );
    for (nth, (name, of)) in rows.iter().enumerate() {
        let y = 48.0 * nth as f64;
        let _ = writeln!(out, "<text class=\"v\" x=\"0\" y=\"{:.0}\">{name}</text>", y + 24.0);
        for (row, (side, class)) in [(&policy.treated, "a"), (&policy.control, "b")].into_iter().enumerate() {
            let (value, top) = (of(side), y + 6.0 + 17.0 * row as f64);
            let long = value / most * width;
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{left}\" y=\"{top:.0}\" width=\"{long:.1}\" height=\"14\"/><text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
                left + long + 6.0,
                top + 11.0,
                percent(value)
            );
        }
    }
    let _ = writeln!(
        out,
        "</svg><figcaption>Blue: {} treated; grey: {} held out.</figcaption></figure>",
        policy.treated.customers, policy.control.customers
    );
    out
}

pub(super) fn portfolio(report: &Portfolio) -> String {
    // In the order of a life, in words for people.
    let stages = LifeStage::ALL.iter().map(|stage| stage.label());
    let stages: Vec<(String, String)> = stages
        .filter_map(|stage| Some((report.stages.get(stage)?.to_string(), stage.replace('_', " "))))
        .collect();
    let shown = stages
        .iter()
        .map(|(count, stage)| (count.clone(), stage.as_str(), String::new()));
    let mut body = cards(&shown.collect::<Vec<_>>());
    for own in &report.currencies {
        body += &of_currency(own);
    }
    let lead = format!(
        "{} as of {}, by the model {}. Current value is the margin to be expected in the coming year, lifetime value that of the model's years, discounted; at stake is what is lost with those who drift away.",
        many(report.customers, "customer"),
        report.as_of,
        report.model
    );
    document("Who makes up the value?", &lead, &body)
}

fn of_currency(own: &CurrencyPortfolio) -> String {
    let of = |value: f64| money(value, &own.currency);
    let mut out = format!("<h2>Customers who pay in {}</h2>\n", escape(&own.currency));
    out += &cards(&[
        (
            of(own.all.lifetime),
            "customer equity",
            format!("lifetime value, {} a year discounted", percent(own.discount_rate)),
        ),
        (
            of(own.all.current),
            "current value",
            "margin of the coming year".to_owned(),
        ),
        (of(own.all.at_stake), "at stake", String::new()),
        (
            percent(own.top_fifth),
            "held by a fifth",
            format!("{} of them at risk", own.top_fifth_at_risk),
        ),
        (
            percent(own.all.retention),
            "retention in a year",
            format!("{} bought again", percent(own.all.repeat)),
        ),
    ]);
    out += "<div class=\"pair\">\n";
    out += &curve(own);
    out += &by_stage(own);
    out += "</div>\n<h3>Value at stake by value and attrition</h3>\n<div class=\"scroll\"><table class=\"heat\"><tr><th>tier</th>";
    for head in bands() {
        let _ = write!(out, "<th class=\"n\">attrition {}</th>", escape(&head));
    }
    out += "<th class=\"n\">retention</th></tr>\n";
    let most = own
        .tiers
        .iter()
        .flat_map(|tier| tier.bands.iter().map(|sums| sums.at_stake))
        .fold(0.0, f64::max);
    for tier in &own.tiers {
        let _ = write!(out, "<tr><th>{} from {}</th>", tier.tier, escape(&of(tier.from)));
        for sums in &tier.bands {
            let cell = |sums: &Sums| match sums.customers {
                0 => "<small>nobody</small>".to_owned(),
                count => format!(
                    "{}<small>{}</small>",
                    escape(&of(sums.at_stake)),
                    many(count, "customer")
                ),
            };
            let share = if most > 0.0 {
                (sums.at_stake / most).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let _ = write!(
                out,
                "<td style=\"background:color-mix(in srgb,var(--warm) {:.0}%,var(--card))\">{}</td>",
                share * 70.0,
                cell(sums)
            );
        }
        let _ = writeln!(out, "<td>{}</td></tr>", percent(tier.all.retention));
    }
    out += "</table></div>\n<p class=\"faint\">A holds the first 80 % of the current value, B the next 15 %, C the rest. The darker, the more is at stake.</p>\n";
    if !own.most_at_stake.is_empty() {
        out += "<h3>Most at stake</h3>\n<div class=\"scroll\"><table><tr><th>customer</th><th>stage</th><th class=\"n\">attrition</th><th class=\"n\">brought so far</th><th class=\"n\">current value</th><th class=\"n\">at stake</th><th>why</th></tr>\n";
        for one in &own.most_at_stake {
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{:.2}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                escape(&one.customer),
                escape(&one.stage.replace('_', " ")),
                one.attrition,
                escape(&of(one.historical)),
                escape(&of(one.current)),
                escape(&of(one.at_stake)),
                escape(&one.reason)
            );
        }
        out += "</table></div>\n";
    }
    out
}

/// The share of the value that the most valuable customers hold.
fn curve(own: &CurrencyPortfolio) -> String {
    let (side, left, bottom) = (300.0, 40.0, 30.0);
    let at = |(x, y): (f64, f64)| (left + x * side, 10.0 + (1.0 - y) * side);
    let mut path = String::new();
    for (nth, point) in own.curve.iter().enumerate() {
        let (x, y) = at(*point);
        let _ = write!(path, "{}{x:.1} {y:.1}", if nth == 0 { "M" } else { "L" });
    }
    let ((x0, y0), (x1, y1)) = (at((0.0, 0.0)), at((1.0, 1.0)));
    let (fx, fy) = at((0.2, own.top_fifth));
    let width = left + side + 20.0;
    let height = side + bottom + 20.0;
    format!(
        "<figure><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Concentration of the value\">\n\
         <line class=\"axis\" x1=\"{x0}\" x2=\"{x1}\" y1=\"{y0}\" y2=\"{y0}\"/><line class=\"axis\" x1=\"{x0}\" x2=\"{x0}\" y1=\"{y0}\" y2=\"{y1}\"/>\
         <line class=\"diagonal\" x1=\"{x0}\" x2=\"{x1}\" y1=\"{y0}\" y2=\"{y1}\"/><path class=\"al\" d=\"{path}\"/>\
         <circle class=\"a\" cx=\"{fx:.1}\" cy=\"{fy:.1}\" r=\"5\"/><text class=\"v\" x=\"{:.1}\" y=\"{:.1}\">{} held by a fifth</text>\
         <text x=\"{x0}\" y=\"{:.1}\">0</text><text x=\"{x1}\" y=\"{:.1}\" text-anchor=\"end\">all customers, most valuable first</text>\
         <text x=\"{:.1}\" y=\"{y1}\" text-anchor=\"end\" dy=\"10\">100 %</text></svg>\
         <figcaption>The further above the diagonal, the fewer customers make up the value.</figcaption></figure>\n",
        fx + 10.0,
        fy + 14.0,
        percent(own.top_fifth),
        y0 + 18.0,
        y0 + 18.0,
        x0 - 4.0
    )
}

fn by_stage(own: &CurrencyPortfolio) -> String {
    let most = own
        .stages
        .values()
        .map(|sums| sums.current.max(0.0))
        .fold(0.0, f64::max);
    let left = 110.0;
    let height = 30 * own.stages.len() + 10;
    let mut out = format!("<figure><svg viewBox=\"0 0 480 {height}\" role=\"img\" aria-label=\"Value by stage\">\n");
    for (nth, (stage, sums)) in own.stages.iter().enumerate() {
        let y = 30.0 * nth as f64 + 6.0;
        let long = if most > 0.0 {
            sums.current.max(0.0) / most * 180.0
        } else {
            0.0
        };
        let _ = writeln!(
            out,
            "<text class=\"v\" x=\"0\" y=\"{:.0}\">{}</text><rect class=\"a\" x=\"{left}\" y=\"{y:.0}\" width=\"{long:.1}\" height=\"18\"/><text x=\"{:.1}\" y=\"{:.0}\">{} · {}</text>",
            y + 13.0,
            escape(&stage.replace('_', " ")),
            left + long + 6.0,
            y + 13.0,
            escape(&money(sums.current, &own.currency)),
            sums.customers
        );
    }
    out + "</svg><figcaption>Current value and number of customers by stage of the life cycle.</figcaption></figure>\n"
}

pub(super) fn losses(report: &Losses) -> String {
    let of_lost = |count: u64| match report.lost {
        0 => "none".to_owned(),
        lost => percent(count as f64 / lost as f64),
    };
    let in_time: u64 = report
        .foresight
        .iter()
        .filter(|(how, _)| {
            use vigie_relance::report::losses::Foresight::{Contacted, HeldOut, NotContacted};
            [Contacted, NotContacted, HeldOut].contains(how)
        })
        .map(|(_, count)| *count)
        .sum();
    let mut body = cards(&[
        (
            report.lost.to_string(),
            "customers lost",
            format!("of {} who ever bought", report.buyers),
        ),
        (
            match report.value_minor.is_empty() {
                true => "unknown".to_owned(),
                false => major(&report.value_minor),
            },
            "lost with them",
            "margin of a year, as expected when they were last there".to_owned(),
        ),
        (
            of_lost(report.silent),
            "left without a word",
            "no complaint was ever made".to_owned(),
        ),
        (
            of_lost(in_time),
            "seen in time",
            "flagged before they were lost".to_owned(),
        ),
    ]);
    if report.silent > 0 && report.complained * 20 < report.silent {
        body += "<p><strong>Few complaints are no good news:</strong> nearly everybody who leaves says nothing. Make it easy to complain, and look whether complaints reach this system.</p>\n";
    }
    body += &causes(
        "Causes",
        "What stood before the loss; no proof that it led to it.",
        &report.causes,
    );
    body += &causes(
        "What they complained about",
        "Causes of complaints, by the value later lost with those who made them.",
        &report.complaint_causes,
    );
    body += "<h2>Did we see it in time?</h2>\n<div class=\"scroll\"><table><tr><th></th><th class=\"n\">customers</th><th class=\"n\">share</th></tr>\n";
    for (how, count) in &report.foresight {
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td class=\"n\">{count}</td><td class=\"n\">{}</td></tr>",
            how.words(),
            of_lost(*count)
        );
    }
    body += "</table></div>\n";
    if !report.answered.is_empty() {
        body += "<h2>Answers to complaints</h2>\n<div class=\"scroll\"><table><tr><th>the only complaint was answered</th><th class=\"n\">customers</th><th class=\"n\">lost now</th></tr>\n";
        for (delay, answered) in &report.answered {
            let share = percent(answered.lost as f64 / answered.customers.max(1) as f64);
            let _ = writeln!(
                body,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{} ({share})</td></tr>",
                escape(delay),
                answered.customers,
                answered.lost
            );
        }
        body += "</table></div>\n";
    }
    body += &flows(report);
    if !report.named.is_empty() {
        body += "<h2>The greatest losses</h2>\n<div class=\"scroll\"><table><tr><th>customer</th><th>lost on</th><th class=\"n\">value</th><th>cause</th><th>seen?</th><th class=\"n\">our last contact</th><th>attrition, last 90 days</th></tr>\n";
        for loss in &report.named {
            body += &one_loss(loss);
        }
        body += "</table></div>\n";
    }
    let lead = format!(
        "From {} to {}. A customer is lost when their attrition reaches the model's level for lapsed, and leaves this list by coming back.",
        day(&report.since),
        day(&report.as_of)
    );
    document("Why did we lose them?", &lead, &body)
}

fn causes(title: &str, caption: &str, causes: &[vigie_relance::report::losses::Cause]) -> String {
    if causes.is_empty() {
        return String::new();
    }
    let most = causes.iter().map(|cause| cause.customers).max().unwrap_or(1).max(1);
    let mut out = format!(
        "<h2>{title}</h2>\n<p class=\"faint\">{caption}</p>\n<div class=\"scroll\"><table><tr><th>cause</th><th class=\"n\">customers</th><th></th><th class=\"n\">value lost</th></tr>\n"
    );
    for cause in causes {
        let long = cause.customers as f64 / most as f64 * 120.0;
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td><svg class=\"spark\" viewBox=\"0 0 120 12\" aria-hidden=\"true\"><rect class=\"warm\" width=\"{long:.1}\" height=\"12\"/></svg></td><td class=\"n\">{}</td></tr>",
            escape(&cause.cause),
            cause.customers,
            escape(&major(&cause.value_minor))
        );
    }
    out + "</table></div>\n"
}

/// Arrivals above, losses below, month by month.
fn flows(report: &Losses) -> String {
    if report.flows.is_empty() {
        return String::new();
    }
    let most = report
        .flows
        .values()
        .map(|flow| flow.arrived.max(flow.lost))
        .max()
        .unwrap_or(1)
        .max(1) as f64;
    let (half, left) = (70.0, 40.0);
    let step = (WIDTH - left) / report.flows.len() as f64;
    let mut out = String::from("<h2>Comings and goings</h2>\n");
    let _ = writeln!(
        out,
        "<figure><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Arrivals and losses by month\">\n<line class=\"zero\" x1=\"{left}\" x2=\"{WIDTH}\" y1=\"{half}\" y2=\"{half}\"/><text x=\"0\" y=\"14\">{most}</text>",
        2.0 * half + 24.0
    );
    let every = report.flows.len().div_ceil(12);
    for (nth, (month, flow)) in report.flows.iter().enumerate() {
        let x = left + step * nth as f64;
        let (up, down) = (
            flow.arrived as f64 / most * (half - 6.0),
            flow.lost as f64 / most * (half - 6.0),
        );
        let _ = writeln!(
            out,
            "<rect class=\"a\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{up:.1}\"/><rect class=\"warm\" x=\"{:.1}\" y=\"{half}\" width=\"{:.1}\" height=\"{down:.1}\"/>",
            x + step * 0.15,
            half - up,
            step * 0.7,
            x + step * 0.15,
            step * 0.7
        );
        if nth % every == 0 {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x + step / 2.0,
                2.0 * half + 18.0,
                escape(month)
            );
        }
    }
    out + "</svg><figcaption>Above: first purchases. Below: losses.</figcaption></figure>\n"
}

fn one_loss(loss: &Loss) -> String {
    let mut line = String::new();
    for (nth, (days, score)) in loss.path.iter().enumerate() {
        let (x, y) = ((90 + days) as f64 / 90.0 * 118.0 + 1.0, 29.0 - score * 28.0);
        let _ = write!(line, "{}{x:.1} {y:.1}", if nth == 0 { "M" } else { "L" });
    }
    let lead = loss
        .lead_days
        .map_or_else(String::new, |days| format!(", {days} days before"));
    let refused = loss
        .refused
        .map_or_else(String::new, |reason| format!(": {}", reason.replace('_', " ")));
    let attention = loss
        .since_attention_days
        .map_or_else(|| "never".to_owned(), |days| format!("{days} days before"));
    format!(
        "<tr><td>{}</td><td class=\"w\">{}</td><td class=\"n\">{}</td><td>{}</td><td>{}{}</td><td class=\"n\">{attention}</td><td><svg class=\"spark\" viewBox=\"0 0 120 30\" aria-hidden=\"true\"><path class=\"al\" d=\"{line}\"/></svg></td></tr>\n",
        escape(&loss.customer),
        day(&loss.lost_at),
        escape(&money(loss.value, &loss.currency)),
        escape(&loss.cause),
        loss.foresight.words(),
        escape(&(lead + &refused))
    )
}
