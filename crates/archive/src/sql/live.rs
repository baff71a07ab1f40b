//! The tables whose rows the caller supplies when a question names them: `customers`, `accounts`, `flags`, `dead_letters`.
//!
//! It owns their columns and nothing else: what a score or a flag is, its owner knows. Rows are asked for once for
//! each question, also when it names a table several times, so that one answer speaks of one moment.

use crate::ArchiveError;
use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int64Array, StringViewArray, TimestampMillisecondArray, UInt32Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::OnceCell;
use vigie_event::{Day, Timestamp, Workspace};

/// One customer as of a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomerRow {
    /// The customer's workspace.
    pub workspace: Workspace,
    /// The identity that names the record; anonymous ones as `anonymous:ID`.
    pub customer: String,
    /// Disengagement now, 0 to 1.
    pub attrition: Option<f64>,
    /// Probability of no purchase within 30 days.
    pub churn_30: Option<f64>,
    /// Probability of no purchase within 90 days.
    pub churn_90: Option<f64>,
    /// Probability of no purchase within 365 days.
    pub churn_365: Option<f64>,
    /// Probability of being a customer still, by BG/NBD.
    pub p_alive_bgnbd: Option<f64>,
    /// Probability of being a customer still, by MBG/NBD.
    pub p_alive_mbgnbd: Option<f64>,
    /// Stage of the life cycle.
    pub stage: String,
    /// Days with a purchase.
    pub purchases: u32,
    /// Money spent, in minor units of `currency`.
    pub revenue_minor: Option<i64>,
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// First sign of life.
    pub first_activity: Option<Timestamp>,
    /// Last sign of life.
    pub last_activity: Option<Timestamp>,
    /// Day of the last purchase.
    pub last_purchase_day: Option<Day>,
    /// Days with a sign of life.
    pub active_days: u32,
    /// The company that the customer belongs to.
    pub account: Option<String>,
    /// The moment that the scores are of.
    pub as_of: Timestamp,
    /// Version of the model.
    pub model: String,
}

/// One company as of a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountRow {
    /// The company's workspace.
    pub workspace: Workspace,
    /// Its id.
    pub account: String,
    /// How many customers belong to it.
    pub members: u32,
    /// Those of them who make up four fifths of its activity.
    pub key_contacts: u32,
    /// Mean attrition by share in the activity.
    pub attrition: Option<f64>,
    /// 1 when it is about to be lost, else 0.
    pub at_risk: u32,
    /// The key contact who drifts most.
    pub most_drifting: Option<String>,
    /// The currency that it is worth most in.
    pub currency: Option<String>,
    /// Margin to be expected in the coming year, in major units.
    pub current_value: Option<f64>,
    /// What of it is at stake.
    pub at_stake: Option<f64>,
    /// The moment that the scores are of.
    pub as_of: Timestamp,
}

/// One relance flag, or a notice that a score came to another band.
#[derive(Debug, Clone, PartialEq)]
pub struct FlagRow {
    /// 32 hexadecimal digits.
    pub id: String,
    /// The customer's workspace.
    pub workspace: Workspace,
    /// The customer; anonymous ones as `anonymous:ID`.
    pub customer: String,
    /// Name of the policy.
    pub policy: String,
    /// Version of the policy.
    pub policy_version: String,
    /// `flagged`, `held_out`, `recalled` or `band_changed`.
    pub kind: String,
    /// Which score reached the threshold: `attrition`, `churn-90`…
    pub score: String,
    /// The score when it did.
    pub value: f64,
    /// The policy's threshold.
    pub threshold: f64,
    /// The moment of the crossing.
    pub raised_at: Timestamp,
    /// Stage of the life cycle.
    pub stage: String,
    /// The facts, in sentences.
    pub reasons: String,
    /// Version of the model.
    pub model: String,
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterRow {
    /// Its id.
    pub id: String,
    /// The workspace that sent it.
    pub workspace: Workspace,
    /// When it was received.
    pub received_at: Timestamp,
    /// The step that refused it.
    pub step: String,
    /// The closed reason.
    pub code: String,
    /// The field at fault.
    pub field: Option<String>,
    /// The protocol that it came through.
    pub source: String,
    /// What was received, as text; bytes that are no text are replaced.
    pub payload: String,
}

/// Rows that will be there, or why they cannot be had now.
pub type LiveRows<'a, T> = Pin<Box<dyn Future<Output = Result<Vec<T>, String>> + Send + 'a>>;

/// Who supplies the rows. Each method is called only when a question names its table; with a `scope`, rows of other
/// workspaces need not be given (and are dropped if they are). A table that is not overridden is empty.
pub trait Live: Send + Sync + 'static {
    /// Rows of `customers`.
    fn customers<'a>(&'a self, _scope: Option<&'a Workspace>) -> LiveRows<'a, CustomerRow> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Rows of `accounts`.
    fn accounts<'a>(&'a self, _scope: Option<&'a Workspace>) -> LiveRows<'a, AccountRow> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Rows of `flags`.
    fn flags<'a>(&'a self, _scope: Option<&'a Workspace>) -> LiveRows<'a, FlagRow> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Rows of `dead_letters`.
    fn dead_letters<'a>(&'a self, _scope: Option<&'a Workspace>) -> LiveRows<'a, DeadLetterRow> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// No live tables: all of them are empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLive;

impl Live for NoLive {}

/// The live tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Customers,
    Accounts,
    Flags,
    DeadLetters,
}

/// One column: its name and its values.
type Column = (&'static str, bool, ArrayRef);

fn text<'a, T>(rows: &'a [T], value: impl Fn(&'a T) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<StringViewArray>())
}

fn float<T>(rows: &[T], value: impl Fn(&T) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(value).collect::<Float64Array>())
}

fn time<T>(rows: &[T], value: impl Fn(&T) -> Option<Timestamp>) -> ArrayRef {
    let times = rows.iter().map(|row| value(row).map(|at| at.0));
    Arc::new(times.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
}

fn customers(rows: &[CustomerRow]) -> Vec<Column> {
    let purchases = rows.iter().map(|row| row.purchases).collect::<UInt32Array>();
    let active_days = rows.iter().map(|row| row.active_days).collect::<UInt32Array>();
    let revenue = rows.iter().map(|row| row.revenue_minor).collect::<Int64Array>();
    let last_purchase = rows
        .iter()
        .map(|row| row.last_purchase_day.map(|day| day.0))
        .collect::<Date32Array>();
    vec![
        ("workspace", false, text(rows, |row| Some(row.workspace.as_str()))),
        ("customer", false, text(rows, |row| Some(&row.customer))),
        ("attrition", true, float(rows, |row| row.attrition)),
        ("churn_30", true, float(rows, |row| row.churn_30)),
        ("churn_90", true, float(rows, |row| row.churn_90)),
        ("churn_365", true, float(rows, |row| row.churn_365)),
        ("p_alive_bgnbd", true, float(rows, |row| row.p_alive_bgnbd)),
        ("p_alive_mbgnbd", true, float(rows, |row| row.p_alive_mbgnbd)),
        ("stage", false, text(rows, |row| Some(&row.stage))),
        ("purchases", false, Arc::new(purchases)),
        ("revenue_minor", true, Arc::new(revenue)),
        ("currency", true, text(rows, |row| row.currency.as_deref())),
        ("first_activity", true, time(rows, |row| row.first_activity)),
        ("last_activity", true, time(rows, |row| row.last_activity)),
        ("last_purchase_day", true, Arc::new(last_purchase)),
        ("active_days", false, Arc::new(active_days)),
        ("account", true, text(rows, |row| row.account.as_deref())),
        ("as_of", false, time(rows, |row| Some(row.as_of))),
        ("model", false, text(rows, |row| Some(&row.model))),
    ]
}

fn accounts(rows: &[AccountRow]) -> Vec<Column> {
    let count =
        |value: fn(&AccountRow) -> u32| -> ArrayRef { Arc::new(rows.iter().map(value).collect::<UInt32Array>()) };
    vec![
        ("workspace", false, text(rows, |row| Some(row.workspace.as_str()))),
        ("account", false, text(rows, |row| Some(&row.account))),
        ("members", false, count(|row| row.members)),
        ("key_contacts", false, count(|row| row.key_contacts)),
        ("attrition", true, float(rows, |row| row.attrition)),
        ("at_risk", false, count(|row| row.at_risk)),
        ("most_drifting", true, text(rows, |row| row.most_drifting.as_deref())),
        ("currency", true, text(rows, |row| row.currency.as_deref())),
        ("current_value", true, float(rows, |row| row.current_value)),
        ("at_stake", true, float(rows, |row| row.at_stake)),
        ("as_of", false, time(rows, |row| Some(row.as_of))),
    ]
}

fn flags(rows: &[FlagRow]) -> Vec<Column> {
    vec![
        ("id", false, text(rows, |row| Some(&row.id))),
        ("workspace", false, text(rows, |row| Some(row.workspace.as_str()))),
        ("customer", false, text(rows, |row| Some(&row.customer))),
        ("policy", false, text(rows, |row| Some(&row.policy))),
        ("policy_version", false, text(rows, |row| Some(&row.policy_version))),
        ("kind", false, text(rows, |row| Some(&row.kind))),
        ("score", false, text(rows, |row| Some(&row.score))),
        ("value", false, float(rows, |row| Some(row.value))),
        ("threshold", false, float(rows, |row| Some(row.threshold))),
        ("raised_at", false, time(rows, |row| Some(row.raised_at))),
        ("stage", false, text(rows, |row| Some(&row.stage))),
        ("reasons", false, text(rows, |row| Some(&row.reasons))),
        ("model", false, text(rows, |row| Some(&row.model))),
    ]
}

fn dead_letters(rows: &[DeadLetterRow]) -> Vec<Column> {
    vec![
        ("id", false, text(rows, |row| Some(&row.id))),
        ("workspace", false, text(rows, |row| Some(row.workspace.as_str()))),
        ("received_at", false, time(rows, |row| Some(row.received_at))),
        ("step", false, text(rows, |row| Some(&row.step))),
        ("code", false, text(rows, |row| Some(&row.code))),
        ("field", true, text(rows, |row| row.field.as_deref())),
        ("source", false, text(rows, |row| Some(&row.source))),
        ("payload", false, text(rows, |row| Some(&row.payload))),
    ]
}

fn batch(columns: Vec<Column>) -> DfResult<RecordBatch> {
    let fields = columns.iter().map(|(name, optional, values)| {
        let kind = match values.data_type() {
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
            }
            other => other.clone(),
        };
        Field::new(*name, kind, *optional)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let values = columns.into_iter().map(|(_, _, values)| values).collect();
    Ok(RecordBatch::try_new(schema, values)?)
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Accounts => "accounts",
            Self::Flags => "flags",
            Self::DeadLetters => "dead_letters",
        }
    }

    /// Its columns: those of no rows.
    pub(super) fn schema(self) -> SchemaRef {
        let columns = match self {
            Self::Customers => customers(&[]),
            Self::Accounts => accounts(&[]),
            Self::Flags => flags(&[]),
            Self::DeadLetters => dead_letters(&[]),
        };
        batch(columns).map_or_else(|_| Arc::new(Schema::empty()), |batch| batch.schema())
    }

    async fn fetch(self, live: &dyn Live, scope: Option<&Workspace>) -> DfResult<RecordBatch> {
        let failed = |reason| {
            let table = self.name();
            DataFusionError::External(Box::new(ArchiveError::Live { table, reason }))
        };
        let visible = |workspace: &Workspace| scope.is_none_or(|scope| scope == workspace);
        let columns = match self {
            Self::Customers => {
                let mut rows = live.customers(scope).await.map_err(failed)?;
                rows.retain(|row| visible(&row.workspace));
                customers(&rows)
            }
            Self::Accounts => {
                let mut rows = live.accounts(scope).await.map_err(failed)?;
                rows.retain(|row| visible(&row.workspace));
                accounts(&rows)
            }
            Self::Flags => {
                let mut rows = live.flags(scope).await.map_err(failed)?;
                rows.retain(|row| visible(&row.workspace));
                flags(&rows)
            }
            Self::DeadLetters => {
                let mut rows = live.dead_letters(scope).await.map_err(failed)?;
                rows.retain(|row| visible(&row.workspace));
                dead_letters(&rows)
            }
        };
        batch(columns)
    }
}

/// A live table of one question.
pub(super) struct LiveTable {
    table: Table,
    live: Arc<dyn Live>,
    scope: Option<Workspace>,
    rows: OnceCell<RecordBatch>,
}

impl LiveTable {
    pub(super) fn new(table: Table, live: Arc<dyn Live>, scope: Option<Workspace>) -> Self {
        Self {
            table,
            live,
            scope,
            rows: OnceCell::new(),
        }
    }
}

impl std::fmt::Debug for LiveTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveTable")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for LiveTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let fetch = || self.table.fetch(self.live.as_ref(), self.scope.as_ref());
        let rows = self.rows.get_or_try_init(fetch).await?;
        let plan = MemorySourceConfig::try_new_exec(&[vec![rows.clone()]], rows.schema(), projection.cloned())?;
        Ok(plan)
    }
}
