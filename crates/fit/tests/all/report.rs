//! The report page: self-contained, balanced, escaped, and with the numbers of its backtest.

use crate::generate::history;
use vigie_event::Day;
use vigie_fit::backtest::{Candidate, Plan, backtest};
use vigie_fit::churn::Task;
use vigie_fit::report::report;

#[test]
fn the_page_is_self_contained_and_holds_the_numbers() {
    let history = history(300, 400, 0.0, 8);
    let task = Task {
        horizon_days: 60,
        active_days: 120,
        grid: vec![Day(10_100), Day(10_150), Day(10_200)],
    };
    let plan = Plan {
        task,
        tests: vec![Day(10_250), Day(10_300)],
        draws: 20,
        seed: 1,
    };
    let results = backtest(&history, &plan, &[Candidate::Default, Candidate::BgNbd]);
    let segment = (
        "<script>alert(1)</script>".to_owned(),
        results[0].folds[0].scored.clone(),
    );
    let page = report("shop & co", &plan, &results, &[segment]);
    for needle in [
        "Backtest: shop &amp; co",
        "&lt;script&gt;",
        "default",
        "bg-nbd",
        &format!("{:.4}", results[1].mean.log_loss),
    ] {
        assert!(page.contains(needle), "{needle} is missing");
    }
    for foreign in ["http", "src=", "<script", "@import", "NaN"] {
        assert!(!page.contains(foreign), "{foreign} is in the page");
    }
    for tag in ["table", "svg", "tr", "td", "div", "text", "h2"] {
        let (open, close) = (
            page.matches(&format!("<{tag}")).count(),
            page.matches(&format!("</{tag}>")).count(),
        );
        assert!(open == close && open > 0, "<{tag}> {open} {close}");
    }
}
