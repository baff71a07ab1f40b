//! The table `events`: the archive's files that a question may see, and the log's tail.
//!
//! Files are chosen by the manifest before any is opened: a condition on `workspace`, `day`, `recorded_at` or
//! `received_at` leaves out every file that cannot hold a row for it. Inside a file DataFusion goes on with Parquet's
//! own statistics. This file never widens what the database allows: it only ever sees the files that it was given.

use crate::ArchiveError;
use crate::columns;
use crate::manifest::DataFile;
use crate::place::Place;
use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, BooleanArray, Date32Array, StringViewArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::provider_as_source;
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, col, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vigie_event::{Timestamp, Workspace};

/// Counts the files that scans chose.
#[derive(Debug, Clone, Default)]
pub(super) struct Counted(Arc<AtomicU64>);

impl Counted {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, files: usize) {
        let _ = self.0.fetch_add(files as u64, Ordering::Relaxed);
    }
}

/// The address under which the archive's store is registered; questions cannot name it.
pub(super) fn store_url() -> DfResult<ObjectStoreUrl> {
    ObjectStoreUrl::parse("archive://files")
}

/// Which rows of the archive are accepted events, each once and with its final decision.
pub(super) fn accepted() -> Expr {
    let is_event = col("kind").in_list(vec![lit("event"), lit("forward")], false);
    // A forwarded event counts where it arrives; a derived record that was written twice counts the first time.
    let is_final = col("decision").in_list(vec![lit("forwarded"), lit("repeated")], true);
    is_event.and(is_final)
}

/// The columns of `events`.
pub(super) fn shown_schema() -> SchemaRef {
    let shown = columns::shown();
    let fields = columns::schema()
        .fields()
        .iter()
        .filter(|field| shown.contains(field.name()))
        .cloned()
        .collect::<Vec<_>>();
    Arc::new(Schema::new(fields))
}

/// All rows of some files and of the tail.
#[derive(Debug)]
pub(super) struct EventFiles {
    files: Vec<(DataFile, ObjectPath)>,
    tail: Option<RecordBatch>,
    opened: Counted,
}

impl EventFiles {
    pub(super) fn new(
        files: Vec<DataFile>,
        prefix: ObjectPath,
        tail: Option<RecordBatch>,
        opened: Counted,
    ) -> Result<Self, ArchiveError> {
        let located = files.into_iter().map(|file| {
            let path = Place::object_path(&prefix, &file.path)?;
            Ok((file, path))
        });
        Ok(Self {
            files: located.collect::<Result<_, ArchiveError>>()?,
            tail,
            opened,
        })
    }

    /// The table as questions see it: accepted events, without the hidden columns, of one workspace if so bound.
    pub(super) fn into_view(self, scope: Option<&Workspace>) -> DfResult<ViewTable> {
        let mut condition = accepted();
        if let Some(scope) = scope {
            // The files are that workspace's alone already; two walls are better than one.
            condition = condition.and(col("workspace").eq(lit(scope.as_str())));
        }
        let shown = columns::shown();
        let plan = LogicalPlanBuilder::scan("events", provider_as_source(Arc::new(self)), None)?
            .filter(condition)?
            .project(shown.iter().map(|name| col(name.as_str())))?
            .build()?;
        Ok(ViewTable::new(plan, None))
    }

    /// The files that may hold a row for which the predicate is true.
    fn chosen(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Vec<&(DataFile, ObjectPath)> {
        let all = || self.files.iter().collect();
        let Some(predicate) = predicate else { return all() };
        // Whatever cannot be decided here is decided row by row later: failing to prune is never wrong.
        let builder = PruningPredicateBuilder::new().with_file_schema(columns::schema());
        let Ok(pruning) = builder.try_build(Arc::clone(predicate)) else {
            return all();
        };
        let Ok(kept) = pruning.prune(&Bounds(&self.files)) else {
            return all();
        };
        let kept = self.files.iter().zip(kept).filter(|(_, keep)| *keep);
        kept.map(|(file, _)| file).collect()
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        limit: Option<usize>,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        let chosen = self.chosen(predicate.as_ref());
        self.opened.add(chosen.len());
        if chosen.is_empty() {
            return Ok(None);
        }
        let files = chosen.iter().map(|(file, path)| {
            PartitionedFile::new_from_meta(ObjectMeta {
                location: path.clone(),
                // Files never change, so their age says nothing.
                last_modified: Default::default(),
                size: file.bytes,
                e_tag: None,
                version: None,
            })
        });
        let files: Vec<PartitionedFile> = files.collect();
        let share = files.len().div_ceil(state.config().target_partitions().max(1)).max(1);
        let groups = files
            .chunks(share)
            .map(|files| FileGroup::new(files.to_vec()))
            .collect();
        let mut source = ParquetSource::new(columns::schema());
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let config = FileScanConfigBuilder::new(store_url()?, Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }
}

#[async_trait]
impl TableProvider for EventFiles {
    fn schema(&self) -> SchemaRef {
        columns::schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let predicate = match conjunction(filters.iter().cloned()) {
            None => None,
            Some(expression) => {
                let schema = DFSchema::try_from(columns::schema())?;
                Some(state.create_physical_expr(expression, &schema)?)
            }
        };
        let files = self.scan_files(state, projection, predicate, limit)?;
        let tail = match (&self.tail, &files) {
            (Some(batch), _) => Some(vec![batch.clone()]),
            // A table without any source still has its columns.
            (None, None) => Some(Vec::new()),
            (None, Some(_)) => None,
        };
        let mut sources: Vec<Arc<dyn ExecutionPlan>> = files.into_iter().collect();
        if let Some(tail) = tail {
            sources.push(MemorySourceConfig::try_new_exec(
                &[tail],
                columns::schema(),
                projection.cloned(),
            )?);
        }
        UnionExec::try_new(sources)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// What the manifest knows of each file's values.
struct Bounds<'a>(&'a [(DataFile, ObjectPath)]);

impl Bounds<'_> {
    fn values(&self, column: &Column, time: impl Fn(&DataFile) -> Option<Timestamp>) -> Option<ArrayRef> {
        let files = || self.0.iter().map(|(file, _)| file);
        Some(match column.name.as_str() {
            "workspace" => Arc::new(StringViewArray::from_iter(
                files().map(|file| file.workspace.as_ref().map(Workspace::as_str)),
            )),
            // The time of an event's record is the time of its receipt.
            "recorded_at" | "received_at" => Arc::new(
                TimestampMillisecondArray::from_iter(files().map(|file| time(file).map(|at| at.0)))
                    .with_timezone("UTC"),
            ),
            "day" => Arc::new(Date32Array::from_iter(
                files().map(|file| time(file).map(|at| at.day().0)),
            )),
            _ => return None,
        })
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |file| file.min_recorded_at)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.values(column, |file| file.max_recorded_at)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
