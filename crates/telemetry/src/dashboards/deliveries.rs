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
