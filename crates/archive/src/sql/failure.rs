//! Errors of the query engine in words for the person who asked: what is wrong and where, without the engine's
//! internals. It never hides an error.

use super::{Limits, TABLES};
use crate::ArchiveError;
use datafusion::error::DataFusionError;

/// The names that the engine puts before a table's; people never see them.
pub(super) const CATALOG: &str = "vigie";
pub(super) const SCHEMA: &str = "public";

/// A text that cannot be parsed.
pub(super) fn misread(error: &DataFusionError) -> ArchiveError {
    explain(error, &Limits::default())
}

/// Any error of the engine.
pub(super) fn explain(error: &DataFusionError, limits: &Limits) -> ArchiveError {
    let sql = |text: &str| ArchiveError::Sql { message: clean(text) };
    let query = |text: &str| ArchiveError::Query { message: clean(text) };
    match error {
        DataFusionError::SQL(error, _) => {
            let text = error.to_string();
            sql(text.trim_start_matches("sql parser error: "))
        }
        DataFusionError::Plan(text) => sql(&with_tables(text)),
        DataFusionError::SchemaError(error, _) => sql(&error.to_string()),
        DataFusionError::NotImplemented(text) => sql(&format!("not supported: {text}")),
        DataFusionError::Configuration(text) => sql(text),
        DataFusionError::Execution(text) => query(text),
        DataFusionError::ArrowError(error, _) => query(&error.to_string()),
        DataFusionError::ResourcesExhausted(_) => ArchiveError::MemoryLimit {
            limit: limits.memory_bytes as u64,
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => explain(inner, limits),
        DataFusionError::Shared(inner) => explain(inner, limits),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => explain(first, limits),
            None => query("unknown error"),
        },
        DataFusionError::External(inner) => match inner.downcast_ref::<ArchiveError>() {
            Some(error) => error.clone(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(error) => explain(error, limits),
                None => query(&inner.to_string()),
            },
        },
        DataFusionError::ObjectStore(error) => ArchiveError::unavailable("reading", "a data file", error),
        DataFusionError::IoError(error) => ArchiveError::unavailable("reading", "a data file", error),
        // A file that is missing, cut off or damaged: the engine tells them apart in its text only. None is the question's fault.
        DataFusionError::ParquetError(error) => ArchiveError::unavailable("reading", "a data file", error),
        other => query(&other.strip_backtrace()),
    }
}

fn clean(text: &str) -> String {
    let prefix = format!("{CATALOG}.{SCHEMA}.");
    text.replace(&prefix, "").trim().to_owned()
}

/// A table that does not exist is most often one that was spelt otherwise.
fn with_tables(text: &str) -> String {
    if text.contains("table '") && text.contains("not found") {
        return format!("{text}; the tables are {}", TABLES.join(", "));
    }
    text.to_owned()
}
