//! The books (BOOKS-1): who knows how many events were accepted and what became of each, in a process that does everything and
//! in one of many. It only adds up; the counting is done by the collector's intake, the journal and the worker.

use crate::backends::{AnyLog, AnyStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vigie_event::Workspace;
use vigie_ingestion::dead_letters::DeadLetters;
use vigie_ingestion::intake::{Counts, Intake};
use vigie_pipeline::{Status, StatusHandle, ledger};
use vigie_serve::{Books, BooksOf, Unavailable};

/// Sets where the counters of accepted events start: what has its outcome already, what the log still holds, and what
/// the journal keeps.
pub(crate) fn balance(
    intake: &Intake<AnyLog>,
    letters: &DeadLetters<AnyLog>,
    status: &Status,
    backlog: &BTreeMap<Workspace, u64>,
) {
    let kept = letters.accepted();
    let workspaces: BTreeSet<&Workspace> = status.books.keys().chain(backlog.keys()).chain(kept.keys()).collect();
    for workspace in workspaces {
        let settled = status.books.get(workspace).map_or(0, vigie_pipeline::Books::settled);
        let waiting = backlog.get(workspace).copied().unwrap_or(0);
        let dead_letter = kept.get(workspace).copied().unwrap_or(0);
        intake.set_base(
            workspace,
            Counts {
                accepted: settled + waiting + dead_letter,
                dead_letter,
            },
        );
    }
}

/// The books of a workspace, where the same process takes in and folds.
pub(crate) fn books(intake: &Intake<AnyLog>, status: &StatusHandle, workspace: &Workspace) -> Books {
    // Outcomes first: an event is counted as accepted before it can have an outcome.
    let outcomes = status.read(|status| status.books.get(workspace).copied().unwrap_or_default());
    let counts = intake.counts(workspace);
    Books {
        accepted: counts.accepted,
        applied: outcomes.applied,
        duplicate: outcomes.duplicate,
        dead_letter: outcomes.dead_letter + counts.dead_letter,
        suppressed: outcomes.suppressed,
        in_flight: counts.accepted.saturating_sub(outcomes.settled() + counts.dead_letter),
    }
}

/// The books of a process that takes in and folds everything: two counters that meet.
pub(crate) fn own_books(intake: &Intake<AnyLog>, status: &StatusHandle) -> BooksOf {
    let (intake, status) = (intake.clone(), status.clone());
    Arc::new(move |workspace| Box::pin(std::future::ready(Ok(books(&intake, &status, workspace)))))
}

/// The books of many processes: outcomes from the store, dead letters from the journal, and in flight is what the log holds
/// beyond the store. What was accepted is what stands in log and journal.
pub(crate) fn shared_books(log: &Arc<AnyLog>, store: &Arc<AnyStore>, letters: &DeadLetters<AnyLog>) -> BooksOf {
    let (log, store, letters) = (Arc::clone(log), Arc::clone(store), letters.clone());
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    Arc::new(move |workspace| {
        let (log, store, letters) = (Arc::clone(&log), Arc::clone(&store), letters.clone());
        let turn = Arc::clone(&turn);
        let workspace = workspace.clone();
        Box::pin(async move {
            let unavailable = |error: &dyn std::fmt::Display| Unavailable(error.to_string());
            letters.refresh().await.map_err(|error| unavailable(&error))?;
            // Each look reads what the log holds beyond the store: one at a time, however many ask.
            let _turn = turn.lock().await;
            let (settled, ahead) = ledger(&*log, &*store).await.map_err(|error| unavailable(&error))?;
            let outcomes = settled.get(&workspace).copied().unwrap_or_default();
            let in_flight = ahead.get(&workspace).copied().unwrap_or(0);
            let refused = letters.accepted().get(&workspace).copied().unwrap_or(0);
            Ok(Books {
                accepted: outcomes.settled() + in_flight + refused,
                applied: outcomes.applied,
                duplicate: outcomes.duplicate,
                dead_letter: outcomes.dead_letter + refused,
                suppressed: outcomes.suppressed,
                in_flight,
            })
        })
    })
}
