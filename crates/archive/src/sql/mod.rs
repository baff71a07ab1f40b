//! Questions in SQL about events, customers, companies, flags and dead letters.
//!
//! It only ever answers: no statement that changes, creates, copies or sets anything is planned, no file or address
//! can be named, and a question that is bound to a workspace is planned over that workspace's files alone. Limits of
//! rows, time and memory end a question with an error of their own. What "now" means is an input.
//!
//! This module knows nothing of scores, stores or policies: the caller supplies the rows of those tables
//! ([`Live`]), and only when a question names them.

mod answer;
mod events;
mod failure;
mod filter;
mod guard;
mod live;

pub use answer::{Answer, ColumnInfo, Format};
pub use filter::Filter;
pub use live::{AccountRow, CustomerRow, DeadLetterRow, FlagRow, Live, LiveRows, NoLive};

use crate::ArchiveError;
use crate::archive::Archive;
use crate::columns::{self, Prepared, Row};
use crate::manifest::{DataFile, Manifest};
use crate::place::Place;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::temporal_conversions::timestamp_ms_to_datetime;
use datafusion::datasource::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig};
use events::{Counted, EventFiles};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{Timestamp, Workspace};

/// The tables, in the order in which they are listed.
const TABLES: [&str; 5] = ["events", "customers", "accounts", "flags", "dead_letters"];
/// Stack of the thread that plans: planning recurses over expressions, whose depth [`guard`] bounds.
const PLANNING_STACK: usize = 64 << 20;

/// How much a question may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Rows of the answer; what goes beyond is cut off, and the answer says so.
    pub rows: usize,
    /// Time until the answer is complete.
    pub time: Duration,
    /// Memory of operators (sorts, joins, groups) and of the answer. Nothing is ever spilled to the disk.
    pub memory_bytes: usize,
}

impl Default for Limits {
    /// 10,000 rows, 30 seconds, 512 MiB.
    fn default() -> Self {
        Self {
            rows: 10_000,
            time: Duration::from_secs(30),
            memory_bytes: 512 << 20,
        }
    }
}

/// What SQL can be asked about: an archive as it was when this was made, what is not archived yet, and live tables.
#[derive(Clone)]
pub struct Database {
    place: Place,
    manifest: Arc<Manifest>,
    tail: Option<RecordBatch>,
    live: Arc<dyn Live>,
    scope: Option<Workspace>,
    now: Timestamp,
}

impl Database {
    /// Over an archive, with `now()` and `current_date` as given. With a `scope`, rows of other workspaces do not
    /// exist, whatever the SQL says.
    #[must_use]
    pub fn new(archive: &Archive, scope: Option<Workspace>, now: Timestamp) -> Self {
        Self {
            place: archive.place().clone(),
            manifest: archive.manifest(),
            tail: None,
            live: Arc::new(NoLive),
            scope,
            now,
        }
    }

    /// With rows for `customers`, `accounts`, `flags` and `dead_letters`, which are empty otherwise.
    #[must_use]
    pub fn with_live(mut self, live: Arc<dyn Live>) -> Self {
        self.live = live;
        self
    }

    /// With records that are in the log but not in the archive; those that are in it by now are left out.
    pub fn with_tail(mut self, rows: &[Row]) -> Result<Self, ArchiveError> {
        let ends = self.manifest.ends();
        let later = rows.iter().filter(|row| {
            let end = ends.get(usize::from(row.position.partition.0));
            end.is_none_or(|end| row.position.offset >= *end)
        });
        let prepared: Vec<Prepared> = later.map(Prepared::new).collect();
        let visible = |row: &&Prepared| match (&self.scope, row.workspace()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(scope), Some(workspace)) => scope == workspace,
        };
        let batch = columns::batch(prepared.iter().filter(visible)).map_err(|error| ArchiveError::Query {
            message: error.to_string(),
        })?;
        self.tail = Some(batch);
        Ok(self)
    }

    /// Answers a question.
    pub async fn query(&self, sql: &str, limits: &Limits) -> Result<Answer, ArchiveError> {
        let statement = guard::question(sql)?;
        let opened = Counted::default();
        let context = self.context(limits, &opened)?;
        let mut state = context.state();
        // "Now" is an input: the context has read a clock here, which no answer may depend on.
        set_now(&mut state, self.now);
        let work = async {
            let (state, plan) = plan(state, statement, limits).await?;
            collect(&state, plan, limits).await
        };
        let answer = tokio::time::timeout(limits.time, work).await;
        let answer = answer.unwrap_or(Err(ArchiveError::TimeLimit { limit: limits.time }));
        answer.map(|answer| answer.with_files(opened.get()))
    }

    /// The tables with their columns.
    #[must_use]
    pub fn tables(&self) -> Vec<(&'static str, Vec<ColumnInfo>)> {
        let schemas = [
            events::shown_schema(),
            live::Table::Customers.schema(),
            live::Table::Accounts.schema(),
            live::Table::Flags.schema(),
            live::Table::DeadLetters.schema(),
        ];
        let described = schemas.iter().map(|schema| answer::describe(schema));
        TABLES.into_iter().zip(described).collect()
    }

    /// The files that a question may read at all.
    fn files(&self) -> Vec<DataFile> {
        let visible = |file: &&DataFile| match (&self.scope, &file.workspace) {
            // Files without a workspace hold no events.
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(scope), Some(workspace)) => scope == workspace,
        };
        self.manifest.files().filter(visible).cloned().collect()
    }

    fn context(&self, limits: &Limits, opened: &Counted) -> Result<SessionContext, ArchiveError> {
        let refuse = |error: DataFusionError| failure::explain(&error, limits);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(refuse)?;
        let config = configuration();
        let context = SessionContext::new_with_config_rt(config, runtime);
        for function in guard::UNBOUNDED_FUNCTIONS.iter().chain(&guard::RANDOM_FUNCTIONS) {
            context.deregister_udf(function);
        }
        let (store, prefix) = self.place.object_store()?;
        let url = events::store_url().map_err(refuse)?;
        let _ = context.register_object_store(url.as_ref(), store);
        let source = EventFiles::new(self.files(), prefix, self.tail.clone(), opened.clone())?;
        let view = source.into_view(self.scope.as_ref()).map_err(refuse)?;
        let mut tables: Vec<(&str, Arc<dyn TableProvider>)> = vec![("events", Arc::new(view))];
        for (name, table) in [
            ("customers", live::Table::Customers),
            ("accounts", live::Table::Accounts),
            ("flags", live::Table::Flags),
            ("dead_letters", live::Table::DeadLetters),
        ] {
            let provider = live::LiveTable::new(table, Arc::clone(&self.live), self.scope.clone());
            tables.push((name, Arc::new(provider)));
        }
        for (name, table) in tables {
            let _ = context.register_table(name, table).map_err(refuse)?;
        }
        Ok(context)
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Database");
        out.field("place", &self.place)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// What all questions have in common.
fn configuration() -> SessionConfig {
    SessionConfig::new()
        .with_default_catalog_and_schema(failure::CATALOG, failure::SCHEMA)
        .with_information_schema(false)
        .with_collect_statistics(false)
        // All times are UTC and say so.
        .set_str("datafusion.execution.time_zone", "UTC")
}

fn set_now(state: &mut SessionState, now: Timestamp) {
    let now = timestamp_ms_to_datetime(now.0).map(|now| now.and_utc());
    state.execution_props_mut().query_execution_start_time = now;
}

/// Plans on a thread of its own, with the stack that deep expressions need.
async fn plan(
    state: SessionState,
    statement: datafusion::sql::parser::Statement,
    limits: &Limits,
) -> Result<(SessionState, Arc<dyn ExecutionPlan>), ArchiveError> {
    let (answer, planned) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let limit = limits.time;
    let work = move || {
        let planning = async {
            let logical = state.statement_to_plan(statement).await?;
            let only = SQLOptions::new()
                .with_allow_ddl(false)
                .with_allow_dml(false)
                .with_allow_statements(false);
            only.verify_plan(&logical)?;
            state.create_physical_plan(&logical).await
        };
        let plan = runtime.block_on(async { tokio::time::timeout(limit, planning).await });
        // Nobody waits any more when the time is up.
        let _ = answer.send(plan.map(|plan| plan.map(|plan| (state, plan))));
    };
    let thread = std::thread::Builder::new()
        .name("sql-planning".to_owned())
        .stack_size(PLANNING_STACK);
    let spawned = thread.spawn(work);
    let _detached = spawned.map_err(|error| ArchiveError::Query {
        message: format!("no thread for planning: {error}"),
    })?;
    match planned.await {
        Ok(Ok(plan)) => plan.map_err(|error| failure::explain(&error, limits)),
        Ok(Err(_)) => Err(ArchiveError::TimeLimit { limit }),
        Err(_) => Err(ArchiveError::Query {
            message: "planning stopped unexpectedly; write the question more simply".to_owned(),
        }),
    }
}

/// Runs a plan up to the limits.
async fn collect(state: &SessionState, plan: Arc<dyn ExecutionPlan>, limits: &Limits) -> Result<Answer, ArchiveError> {
    let explain = |error: DataFusionError| failure::explain(&error, limits);
    let schema = plan.schema();
    let mut stream = execute_stream(plan, state.task_ctx()).map_err(explain)?;
    let mut batches = Vec::new();
    let (mut rows, mut bytes, mut truncated) = (0, 0, false);
    while let Some(batch) = stream.next().await {
        let mut batch = answer::compact(&batch.map_err(explain)?).map_err(|error| explain(error.into()))?;
        if rows + batch.num_rows() > limits.rows {
            batch = batch.slice(0, limits.rows - rows);
            truncated = true;
        }
        rows += batch.num_rows();
        bytes += batch.get_array_memory_size();
        if bytes > limits.memory_bytes {
            return Err(ArchiveError::MemoryLimit {
                limit: limits.memory_bytes as u64,
            });
        }
        batches.push(batch);
        if truncated {
            break;
        }
    }
    Ok(Answer::new(schema, batches, truncated))
}
