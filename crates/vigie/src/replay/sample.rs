//! Two made-up runs for the tests of this folder. Nothing of it is in the program.

use super::diff::{At, Customer, Outcome, Raised, Scores};
use std::collections::BTreeMap;
use vigie_event::{DAY_MS, Timestamp};

fn customer(id: &str) -> Customer {
    Customer {
        workspace: "shop".to_owned(),
        id: id.to_owned(),
    }
}

fn flag(id: &str, policy: &str, day: i64, kind: &str) -> Raised {
    Raised {
        customer: customer(id),
        policy: policy.to_owned(),
        raised_at: At(Timestamp(day * DAY_MS)),
        kind: kind.to_owned(),
        score: "attrition".to_owned(),
        value: 0.7,
        threshold: 0.7,
        reasons: vec!["No purchase since <em>".to_owned()],
    }
}

fn outcome(flags: Vec<Raised>, scores: &[(&str, f64)]) -> Outcome {
    let scores = scores.iter().map(|(id, value)| {
        let by_name = BTreeMap::from([("attrition".to_owned(), *value)]);
        (customer(id), Scores { by_name })
    });
    Outcome {
        flags,
        policies: vec!["regulars".to_owned()],
        scores: vec!["attrition".to_owned()],
        customers: scores.collect(),
    }
}

/// Two runs in which everything occurs that can, with a hostile name.
pub(super) fn two() -> (Outcome, Outcome) {
    let baseline = outcome(
        vec![
            flag("ann", "regulars", 10, "flagged"),
            flag("ann", "regulars", 50, "flagged"),
            flag("bob", "regulars", 12, "flagged"),
            flag("cid", "regulars", 13, "flagged"),
            flag("dan", "regulars", 14, "flagged"),
        ],
        &[("ann", 0.1), ("bob", 0.5), ("cid", 0.52), ("<script>", 0.9)],
    );
    let mut candidate = outcome(
        vec![
            flag("ann", "regulars", 10, "flagged"),
            flag("ann", "regulars", 40, "flagged"),
            flag("cid", "regulars", 13, "held_out"),
            flag("<script>", "new & shiny", 20, "flagged"),
            flag("dan", "regulars", 14, "flagged"),
        ],
        &[("ann", 0.1), ("bob", 0.2), ("cid", 0.56), ("<script>", 1.0)],
    );
    candidate.policies.push("new & shiny".to_owned());
    (baseline, candidate)
}
