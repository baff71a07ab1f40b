//! A condition in SQL over the columns of `events`, for reading only some of them. It is compiled once and then looks
//! at one batch at a time; it has no state, and sees no other row than the one that it judges.

use super::{events, failure, guard, set_now};
use crate::ArchiveError;
use datafusion::arrow::array::{AsArray, BooleanArray};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::ExprSchemable;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use std::sync::Arc;
use vigie_event::Timestamp;

/// Keeps the rows that `SELECT * FROM events WHERE …` would give: accepted events (each once, with its final decision)
/// for which the condition is true.
#[derive(Debug, Clone)]
pub struct Filter {
    predicate: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
}

impl Filter {
    /// Compiles a condition such as `signal = 'purchase' AND amount > 100`, with `now()` as given.
    pub fn parse(condition: &str, now: Timestamp) -> Result<Self, ArchiveError> {
        guard::bounded(condition)?;
        let refuse = |error| failure::misread(&error);
        let mut state = SessionStateBuilder::new_with_default_features()
            .with_config(super::configuration())
            .build();
        set_now(&mut state, now);
        let shown = DFSchema::try_from(events::shown_schema()).map_err(refuse)?;
        let condition = state.create_logical_expr(condition, &shown).map_err(refuse)?;
        let kind = condition.get_type(&shown).map_err(refuse)?;
        if kind != DataType::Boolean {
            return Err(ArchiveError::Sql {
                message: format!("the condition must be true or false, but it is {kind}"),
            });
        }
        // What depends on nothing but the moment (`now()`) becomes a value here.
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(shown.clone()))
            .with_config_options(Arc::clone(state.config_options()))
            .with_query_execution_start_time(state.execution_props().query_execution_start_time)
            .build();
        let simplifier = ExprSimplifier::new(context);
        let whole = events::accepted().and(condition);
        let whole = simplifier
            .coerce(whole, &shown)
            .and_then(|whole| simplifier.simplify(whole));
        let whole = whole.map_err(refuse)?;
        let used = whole.column_refs();
        let fields = events::shown_schema();
        let names = |name: &str| used.iter().any(|column| column.name == name);
        let fields = fields
            .fields()
            .iter()
            .filter(|field| names(field.name()))
            .cloned()
            .collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        let narrow = DFSchema::try_from(Arc::clone(&schema)).map_err(refuse)?;
        let predicate = state.create_physical_expr(whole, &narrow).map_err(refuse)?;
        Ok(Self { predicate, schema })
    }

    /// The columns that it looks at.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|field| field.name().as_str())
    }

    /// For each row of a batch that has [`Filter::columns`]: whether it is kept.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Result<BooleanArray, ArchiveError> {
        let refuse = |error: DataFusionError| failure::misread(&error);
        let columns = self.schema.fields().iter().map(|field| {
            let column = batch.column_by_name(field.name()).cloned();
            column.ok_or_else(|| DataFusionError::Execution(format!("there is no column {}", field.name())))
        });
        let columns = columns.collect::<Result<_, _>>().map_err(refuse)?;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let narrow = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows);
        let narrow = narrow.map_err(|error| refuse(error.into()))?;
        let kept = self.predicate.evaluate(&narrow).map_err(refuse)?;
        let kept = kept.into_array(narrow.num_rows()).map_err(refuse)?;
        let kept = kept.as_boolean_opt().cloned();
        kept.ok_or_else(|| {
            refuse(DataFusionError::Execution(
                "the condition gave no truth value".to_owned(),
            ))
        })
    }
}
