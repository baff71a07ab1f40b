//! Dashboard "Deliveries": how flags leave the house and what mail providers report back. A table, and nothing else.

use super::table::{Dashboard, lines, row, within};

pub(super) const DELIVERIES: Dashboard = Dashboard {
    name: "deliveries",
    title: "vigie: deliveries",
    description: "How flags leave the house: raised, fetched, and what mail providers report back.",
    panels: &[
        row("Flags"),
        lines(
            "Raised",
            "Flags per hour by policy; those held out are never delivered.",
            "short",
            &[(
                within!("1h", "vigie_flags_total" where r#"decision="flagged""# by "policy"),
                "{{policy}}",
            )],
        ),
        lines(
            "Fetched",
            "Requests for flags per hour by status: whoever fetches them keeps a cursor and misses none.",
            "short",
            &[(
                within!("1h", "vigie_http_request_duration_seconds_count" where r#"endpoint="/v1/relances""# by "status"),
                "{{status}}",
            )],
        ),
        row("Destinations"),
        lines(
            "Deliveries",
            "What became of flags at each destination, per hour.",
            "short",
            &[(
                within!("1h", "vigie_deliveries_total" by "destination,outcome"),
                "{{destination}} {{outcome}}",
            )],
        ),
        lines(
            "Oldest undelivered flag",
            "Age of the oldest flag that has neither arrived nor been given up.",
            "s",
            &[(
                "max by (destination) (vigie_delivery_oldest_age_seconds{$S})",
                "{{destination}}",
            )],
        ),
        lines(
            "Parked flags",
            "Given up after the last attempt; they wait to be sent again on request.",
            "short",
            &[
                ("max by (destination) (vigie_delivery_parked{$S})", "{{destination}}"),
                ("min by (destination) (vigie_delivery_well{$S})", "{{destination}} well"),
            ],
        ),
        row("Reported by mail providers"),
        lines(
            "Sent and delivered",
            "Mails per hour.",
            "short",
            &[(
                within!("1h", "vigie_events_applied_total" where r#"signal=~"email.(sent|delivered|bounce)""# by "signal"),
                "{{signal}}",
            )],
        ),
        lines(
            "Opened and clicked",
            "Per hour; machines apart.",
            "short",
            &[(
                within!("1h", "vigie_events_applied_total" where r#"signal=~"email.(open|click).*""# by "signal"),
                "{{signal}}",
            )],
        ),
    ],
};
