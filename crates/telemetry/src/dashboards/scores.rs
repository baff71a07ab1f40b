//! Dashboard "Scores and portfolio", for marketing. A table, and nothing else.

use super::table::{Dashboard, lines, number, per_second, row, within};

pub(super) const SCORES: Dashboard = Dashboard {
    name: "scores",
    title: "vigie: scores and portfolio",
    description: "For marketing: how alive the base is, how fresh its scores are, and which model says so. Customers themselves are in the API and the console, never in metrics.",
    panels: &[
        row("The base"),
        number(
            "Purchases today",
            "Purchases that took effect within the last day.",
            "short",
            &[(
                within!("1d", "vigie_events_applied_total" where r#"signal="purchase""#),
                "purchases",
            )],
        ),
        number(
            "Visits today",
            "Pages and screens shown to customers within the last day.",
            "short",
            &[(
                within!("1d", "vigie_events_applied_total" where r#"signal=~"(page|screen).view""#),
                "visits",
            )],
        ),
        number(
            "Flags today",
            "Relances raised within the last day.",
            "short",
            &[(
                within!("1d", "vigie_flags_total" where r#"decision="flagged""#),
                "flags",
            )],
        ),
        number(
            "Silence noticed today",
            "Customers looked at within the last day because of their silence alone.",
            "short",
            &[(
                within!("1d", "vigie_customers_touched_total" where r#"cause="timer""#),
                "customers",
            )],
        ),
        number(
            "Model in force since",
            "Age of the model and policies in force.",
            "s",
            &[("max(time() - vigie_model_activated_seconds{$S})", "age")],
        ),
        row("Portfolio"),
        number(
            "Customers",
            "Everybody who is known, whatever they did.",
            "short",
            &[("sum(vigie_portfolio_customers{$S})", "customers")],
        ),
        number(
            "Value of the most valuable at risk",
            "Share of tier A's value whose customers have attrition from 0.7 on. Above a tenth: relances come too late, or to the wrong people.",
            "percentunit",
            &[(
                r#"sum(vigie_portfolio_value{$S,tier="A",attrition="0.7"}) / sum(vigie_portfolio_value{$S,tier="A"})"#,
                "at risk",
            )],
        ),
        number(
            "Numbers are from",
            "Age of the numbers of the portfolio: they are counted in rounds.",
            "s",
            &[("max(time() - vigie_portfolio_counted_seconds{$S})", "age")],
        ),
        lines(
            "Customers by stage",
            "Of the life cycle. What leaves active comes to slowing, then at_risk, then lapsed; a relance that works brings it to won_back.",
            "short",
            &[("sum by (stage) (vigie_portfolio_customers{$S})", "{{stage}}")],
        ),
        lines(
            "Won and lost by day",
            "Change within a day of the customers who are new or won back, and of those who are lapsed or lost.",
            "short",
            &[
                (
                    r#"sum(delta(vigie_portfolio_customers{$S,stage=~"new|won_back"}[1d]))"#,
                    "won",
                ),
                (
                    r#"sum(delta(vigie_portfolio_customers{$S,stage=~"lapsed|lost"}[1d]))"#,
                    "lost",
                ),
            ],
        ),
        lines(
            "Customers by tier",
            "A brings the first 80 % of the current value, B the next 15 %, C the rest. Few in A: the base hangs on them.",
            "short",
            &[(
                "sum by (currency, tier) (vigie_portfolio_tier_customers{$S})",
                "{{tier}} {{currency}}",
            )],
        ),
        lines(
            "Value by attrition",
            "Margin to be expected in the coming year, by the attrition of those who bring it, in major units.",
            "short",
            &[(
                "sum by (currency, attrition) (vigie_portfolio_value{$S})",
                "from {{attrition}} {{currency}}",
            )],
        ),
        lines(
            "Value at stake by tier",
            "What is lost if those who drift away go, in major units.",
            "short",
            &[(
                "sum by (currency, tier) (vigie_portfolio_at_stake{$S})",
                "{{tier}} {{currency}}",
            )],
        ),
        lines(
            "Customer equity",
            "Lifetime value of all customers, discounted, in major units.",
            "short",
            &[("sum by (currency) (vigie_portfolio_equity{$S})", "{{currency}}")],
        ),
        row("Life of the base"),
        lines(
            "What customers do",
            "Events per hour that show a customer acting.",
            "short",
            &[(
                within!("1h", "vigie_events_applied_total" where r#"signal!~"email.*""# by "signal"),
                "{{signal}}",
            )],
        ),
        lines(
            "Orders and their ends",
            "Purchases, refunds and cancellations per hour.",
            "short",
            &[(
                within!("1h", "vigie_events_applied_total" where r#"signal=~"purchase|refund|order.cancel""# by "signal"),
                "{{signal}}",
            )],
        ),
        lines(
            "Activity and silence",
            "Customers per second whose record changed by an event, and by silence. Silence far above events: the base drifts away together.",
            "cps",
            &[(per_second!("vigie_customers_touched_total" by "cause"), "{{cause}}")],
        ),
        row("Scores"),
        lines(
            "Scores written",
            "Scores per second. They are brought up to date whenever silence or an event has moved them by a hundredth.",
            "wps",
            &[(per_second!("vigie_scores_written_total"), "scores")],
        ),
        lines(
            "Models in force",
            "1 for the model and policies in force; a step is an activation.",
            "none",
            &[(
                "max by (model, policies) (vigie_model_info{$S}) > 0",
                "{{model}} / {{policies}}",
            )],
        ),
        row("What came of predictions"),
        lines(
            "Churn, expected over observed",
            "Over the last closed horizon, of the model in force and of its candidate. 1 is right; nothing is shown while nothing is judged.",
            "none",
            &[(
                "sum by (role) (vigie_churn_expected_customers{$S}) / sum by (role) (vigie_churn_observed_customers{$S})",
                "{{role}}",
            )],
        ),
        lines(
            "Observed churn by tenths of the predicted probability",
            "Share of customers without a purchase, by what the model in force had said: each line belongs a little above its number less one, over ten.",
            "percentunit",
            &[(
                "sum by (decile) (vigie_churn_observed_customers{$S,role=\"in_force\"}) / sum by (decile) (vigie_churn_judged_customers{$S,role=\"in_force\"})",
                "{{decile}}",
            )],
        ),
        lines(
            "Log loss",
            "Of the same predictions: lower is better. A candidate clearly below the model in force over weeks is worth promoting.",
            "none",
            &[("avg by (role) (vigie_churn_log_loss{$S}) > 0", "{{role}}")],
        ),
    ],
};
