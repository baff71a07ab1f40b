//! Dashboard "Relances and complaints": what policies decide, and what people say to it. A table, and nothing else.

use super::table::{Dashboard, lines, number, row, within};

pub(super) const RELANCES: Dashboard = Dashboard {
    name: "relances",
    title: "vigie: relances and complaints",
    description: "What the relance policies decide and why they refuse, and what people say to being contacted.",
    panels: &[
        row("Policies"),
        lines(
            "Decisions",
            "Decisions per hour by policy.",
            "short",
            &[(
                within!("1h", "vigie_flags_total" by "policy, decision"),
                "{{policy}} {{decision}}",
            )],
        ),
        lines(
            "Why not",
            "Refusals per hour by policy and reason.",
            "short",
            &[(
                within!("1h", "vigie_relance_refusals_total" by "policy, reason"),
                "{{policy}}: {{reason}}",
            )],
        ),
        lines(
            "Share held out",
            "Of those that a policy would have flagged within a day: held out, to prove what contacting does. It should be the policy's holdout.",
            "percentunit",
            &[(
                r#"sum by (policy) (increase(vigie_flags_total{$S,decision="held_out"}[1d])) / sum by (policy) (increase(vigie_flags_total{$S,decision!="refused"}[1d]))"#,
                "{{policy}}",
            )],
        ),
        lines(
            "How flags ended",
            "Ends per hour by policy; held-out customers apart, so that the two shares of those who returned can be compared.",
            "short",
            &[(
                within!("1h", "vigie_flag_ends_total" by "policy, end"),
                "{{policy}}: {{end}}",
            )],
        ),
        lines(
            "Changes of bands",
            "Customers per hour whose score came to another band, as destinations are told that subscribe to them.",
            "short",
            &[(
                within!("1h", "vigie_band_changes_total" by "band, direction"),
                "{{band}}: {{direction}}",
            )],
        ),
        row("Complaints of customers"),
        lines(
            "Complaints by phase",
            "Customers with a complaint, by the phase that it is in. What is closed is not yet made good: that is resatisfied.",
            "short",
            &[("sum by (phase) (vigie_complaints{$S})", "{{phase}}")],
        ),
        lines(
            "Oldest complaint by phase",
            "For how long the oldest has been in its phase: opened and acknowledged wait for an answer.",
            "s",
            &[("max by (phase) (vigie_complaint_age_seconds{$S})", "{{phase}}")],
        ),
        row("What people say"),
        number(
            "Complaints per thousand mails",
            "Spam complaints within a day per thousand delivered mails. Mailbox providers punish more than three.",
            "short",
            &[(
                r#"1000 * sum(increase(vigie_events_applied_total{$S,signal="email.complaint"}[1d])) / sum(increase(vigie_events_applied_total{$S,signal="email.delivered"}[1d]))"#,
                "complaints",
            )],
        ),
        lines(
            "Complaints, unsubscriptions, bounces",
            "Per hour.",
            "short",
            &[(
                within!("1h", "vigie_events_applied_total" where r#"signal=~"email.(complaint|unsubscribe|bounce)""# by "signal"),
                "{{signal}}",
            )],
        ),
        lines(
            "Left out on purpose",
            "Events per hour that consent, erasure or a machine behind them keep from counting.",
            "short",
            &[(
                within!("1h", "vigie_events_outcomes_total" where r#"outcome="suppressed""# by "workspace"),
                "{{workspace}}",
            )],
        ),
    ],
};
