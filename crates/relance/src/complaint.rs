//! When a signal was given, over all identities of a customer. The complaint clock itself is read by the scoring crate, which
//! weighs it as well; policies on `complaint-age` and `closure-age` decide what is owed for it. This file decides nothing.

use vigie_event::Signal;
use vigie_scoring::CustomerState;
use vigie_scoring::state::Recency;
pub use vigie_scoring::{Complaint, ComplaintPhase};

/// First, last and count of a signal over all identities.
pub(crate) fn times(state: &CustomerState, signal: Signal) -> Option<Recency> {
    let all = state.all_parts().filter_map(|part| part.signal(signal));
    all.reduce(|a, b| Recency {
        first: a.first.min(b.first),
        last: a.last.max(b.last),
        count: a.count.saturating_add(b.count),
    })
}
