//! Reports as text for a terminal. It words numbers and computes none.

use super::figures::{major, many, minor, money, percent, points};
use std::fmt::Write as _;
use vigie_relance::report::losses::Losses;
use vigie_relance::report::policies::{Compared, Policies, PolicyReport};
use vigie_relance::report::portfolio::{BANDS, Portfolio, Sums};

/// Losses and customers shown; JSON has all of them.
const SHOWN: usize = 10;

pub(super) fn policies(report: &Policies) -> String {
    // Writing to a text cannot fail, here and below.
    let mut out = format!("Policies as of {}\n", report.as_of);
    for policy in &report.policies {
        one_policy(&mut out, policy);
    }
    if !report.plays.is_empty() {
        let _ = writeln!(
            out,
            "\n{:<20} {:>8} {:>22} {:>22}",
            "play", "flags", "treated returned", "held out returned"
        );
        for (play, own) in &report.plays {
            let [treated, held_out] = own.returned;
            let [n1, n0] = own.customers;
            let _ = writeln!(
                out,
                "{play:<20} {:>8} {:>22} {:>22}",
                own.flags,
                format!("{} of {n1}", percent(treated)),
                format!("{} of {n0}", percent(held_out))
            );
        }
    }
    if let Some(share) = report.money_share {
        let _ = writeln!(out, "\npaid with money: {} of all relances", percent(share));
    }
    if report.left_out > 0 {
        let _ = writeln!(out, "left out: {} that cannot be read", many(report.left_out, "flag"));
    }
    out
}

/// A comparison in words; `shown` words one number.
pub(super) fn compared(compared: &Compared, shown: impl Fn(f64) -> String) -> String {
    match compared {
        Compared::TooFew { needed } => format!("not known yet: {needed} customers of each arm are needed"),
        Compared::Measured(estimate) => format!(
            "{} ({} to {})",
            shown(estimate.estimate),
            shown(estimate.low),
            shown(estimate.high)
        ),
    }
}

fn one_policy(out: &mut String, policy: &PolicyReport) {
    let _ = writeln!(out, "\n{}: {}", policy.policy, policy.verdict.to_uppercase());
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<16} {value}");
    };
    line("", policy.because.clone());
    if !policy.goal.is_empty() {
        line("goal", policy.goal.clone());
    }
    if !policy.owner.is_empty() {
        line("owner", policy.owner.clone());
    }
    line(
        "flags",
        format!(
            "{} to contact, {} held out; {} open, {} recalled",
            policy.flagged, policy.held_out, policy.open, policy.recalled
        ),
    );
    line(
        "contacts",
        format!(
            "{} claimed, {} contacted, {} answered",
            policy.claimed, policy.contacted, policy.answered
        ),
    );
    let arm = |side: &vigie_relance::report::policies::Side| {
        format!(
            "{}: {} returned, {} lastingly, {} annoyed",
            many(side.customers, "customer"),
            percent(side.returned),
            percent(side.lasted),
            percent(side.annoyed)
        )
    };
    line("treated", arm(&policy.treated));
    line("held out", arm(&policy.control));
    line(
        "uplift",
        format!(
            "{} within {} days ({})",
            compared(&policy.uplift, points),
            policy.window_days,
            policy.target
        ),
    );
    line("lasting", compared(&policy.lasting_uplift, points));
    line("annoyance", compared(&policy.annoyance, points));
    if let Some(currency) = &policy.currency {
        line(
            "margin",
            compared(&policy.margin_uplift, |value| minor(value, currency)) + " per customer",
        );
        if let Some(saved) = policy.saved_minor {
            let shown = |value| minor(value, currency);
            line(
                "saved",
                format!(
                    "{} ({} to {})",
                    shown(saved.estimate),
                    shown(saved.low),
                    shown(saved.high)
                ),
            );
        }
        let planned = if policy.cost_is_planned {
            ", one contact for each flag assumed: none was reported"
        } else {
            ""
        };
        line("cost", format!("{}{planned}", minor(policy.cost_minor, currency)));
        if let Some(roi) = policy.roi {
            line(
                "ROI",
                format!("{:.1} ({:.1} to {:.1})", roi.estimate, roi.low, roi.high),
            );
        }
        line(
            "opportunity",
            format!(
                "{} with {} whom nobody contacted",
                minor(policy.roo_minor, currency),
                many(policy.untouched, "customer")
            ),
        );
    }
    if !policy.refused_now.is_empty() {
        let reasons: Vec<String> = policy
            .refused_now
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        line("refused now", reasons.join(", "));
    }
}

pub(super) fn portfolio(report: &Portfolio) -> String {
    let mut out = format!(
        "Portfolio as of {}: {}\n\n",
        report.as_of,
        many(report.customers, "customer")
    );
    for (stage, count) in &report.stages {
        let _ = writeln!(out, "  {stage:<16} {count:>9}");
    }
    for own in &report.currencies {
        let of = |value: f64| money(value, &own.currency);
        let _ = writeln!(
            out,
            "\n{}: {} who bought\n  customer equity  {}\n  current value    {}\n  at stake         {}\n  brought so far   {}\n  retention        {} within a year, {} bought again\n  a fifth of the customers holds {} of the value; {} of them at risk",
            own.currency,
            many(own.all.customers, "customer"),
            of(own.all.lifetime),
            of(own.all.current),
            of(own.all.at_stake),
            of(own.all.historical),
            percent(own.all.retention),
            percent(own.all.repeat),
            percent(own.top_fifth),
            own.top_fifth_at_risk
        );
        let heads = bands();
        let _ = writeln!(out, "\n  value at stake by tier and attrition (customers)");
        let _ = write!(out, "  {:<5}", "tier");
        for head in &heads {
            let _ = write!(out, " {head:>22}");
        }
        out.push('\n');
        for tier in &own.tiers {
            let _ = write!(out, "  {:<5}", tier.tier);
            for sums in &tier.bands {
                let cell = |sums: &Sums| format!("{} ({})", of(sums.at_stake), sums.customers);
                let _ = write!(out, " {:>22}", cell(sums));
            }
            out.push('\n');
        }
        if !own.most_at_stake.is_empty() {
            let _ = writeln!(
                out,
                "\n  {:<24} {:<12} {:>9} {:>14} {:>14}",
                "most at stake", "stage", "attrition", "value", "at stake"
            );
        }
        for one in own.most_at_stake.iter().take(SHOWN) {
            let _ = writeln!(
                out,
                "  {:<24} {:<12} {:>9.2} {:>14} {:>14}",
                one.customer,
                one.stage,
                one.attrition,
                of(one.current),
                of(one.at_stake)
            );
        }
    }
    out
}

/// The columns of attrition, in words.
pub(super) fn bands() -> Vec<String> {
    let mut heads = vec![format!("below {}", BANDS.first().copied().unwrap_or_default())];
    for (nth, from) in BANDS.iter().enumerate() {
        heads.push(match BANDS.get(nth + 1) {
            Some(to) => format!("{from} to {to}"),
            None => format!("from {from} on"),
        });
    }
    heads
}

pub(super) fn losses(report: &Losses) -> String {
    let mut out = format!(
        "Losses from {} to {}: {} of {}\n",
        report.since,
        report.as_of,
        report.lost,
        many(report.buyers, "buyer")
    );
    for (currency, sum) in &report.value_minor {
        let _ = writeln!(out, "  value lost       {}", minor(*sum as f64, currency));
    }
    let _ = writeln!(
        out,
        "  without a word   {} of {}; {} of all buyers have ever complained\n",
        report.silent, report.lost, report.complained
    );
    for (title, causes) in [
        ("causes, by value lost", &report.causes),
        ("complaints, by value later lost", &report.complaint_causes),
    ] {
        if causes.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{title}");
        for cause in causes {
            let _ = writeln!(
                out,
                "  {:>6}  {:>18}  {}",
                cause.customers,
                major(&cause.value_minor),
                cause.cause
            );
        }
    }
    let _ = writeln!(out, "\ndid we see it in time?");
    for (how, count) in &report.foresight {
        let _ = writeln!(out, "  {count:>6}  {}", how.words());
    }
    if !report.answered.is_empty() {
        let _ = writeln!(out, "\nwho complained once, by when they were answered");
        for (delay, answered) in &report.answered {
            let _ = writeln!(out, "  {delay:<20} {} of {} lost", answered.lost, answered.customers);
        }
    }
    if !report.named.is_empty() {
        let _ = writeln!(out, "\ngreatest losses");
    }
    for loss in report.named.iter().take(SHOWN) {
        let lead = loss
            .lead_days
            .map_or_else(String::new, |days| format!(" {days} days before"));
        let _ = writeln!(
            out,
            "  {:<24} {} {:>14}  {}; {}{lead}",
            loss.customer,
            loss.lost_at.get(..10).unwrap_or_default(),
            money(loss.value, &loss.currency),
            loss.cause,
            loss.foresight.words()
        );
    }
    out
}
