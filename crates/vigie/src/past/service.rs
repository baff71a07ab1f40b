//! The API's questions about the past, answered by a running server: from its archive, what the archivist has not written
//! yet, its store and its journal of dead letters.

use super::history::{Asked, history};
use super::shelf::shelved;
use super::tables::Tables;
use crate::backends::AnyLog;
use crate::clocks::Clock;
use anyhow::Result;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::Semaphore;
use vigie_archive::sql::{Database, Format, Limits};
use vigie_archive::{Archive, ArchiveError, Row};
use vigie_event::{CustomerKey, PersonId, Workspace};
use vigie_ingestion::dead_letters::DeadLetters;
use vigie_pipeline::ArchivistHandle;
use vigie_serve::{Active, Answered, Past, PastAnswer, PastError, Period, Question};
use vigie_store::Store;

/// See the module.
pub(crate) struct Service<S> {
    pub(crate) archive: Arc<Archive>,
    /// Who writes the archive, when it is this process: what is not archived yet is seen only there.
    pub(crate) archivist: Option<ArchivistHandle>,
    pub(crate) store: Arc<S>,
    pub(crate) letters: DeadLetters<AnyLog>,
    pub(crate) active: Arc<ArcSwap<Active>>,
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    /// Questions that may be answered at the same time.
    pub(crate) turns: Arc<Semaphore>,
}

impl<S> Clone for Service<S> {
    fn clone(&self) -> Self {
        Self {
            archive: Arc::clone(&self.archive),
            archivist: self.archivist.clone(),
            store: Arc::clone(&self.store),
            letters: self.letters.clone(),
            active: Arc::clone(&self.active),
            clock: Arc::clone(&self.clock),
            limits: self.limits.clone(),
            turns: Arc::clone(&self.turns),
        }
    }
}

impl<S: Store> Service<S> {
    /// What is folded and not archived yet, as far as this process can know it.
    pub(crate) async fn tail(&self) -> Result<Vec<Row>> {
        let Some(archivist) = &self.archivist else {
            self.archive.refresh().await?;
            return Ok(Vec::new());
        };
        let tail = archivist.tail().await.map_err(anyhow::Error::msg)?;
        Ok(tail.into_iter().map(shelved).collect())
    }

    async fn answer(&self, workspace: Workspace, question: Question) -> Result<Answered, PastError> {
        let name = question.format.as_deref().unwrap_or("json");
        let format = Format::parse(name).ok_or_else(|| {
            let known: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
            PastError::Question(format!("format is one of {}", known.join(", ")))
        })?;
        let _turn = self.turns.acquire().await;
        let mut limits = self.limits.clone();
        if let Some(rows) = question.limit {
            limits.rows = rows.min(limits.rows);
        }
        let tables = Tables {
            store: Arc::clone(&self.store),
            letters: Some(self.letters.clone()),
            active: Arc::clone(&self.active),
            now: (self.clock)(),
        };
        let tail = self.tail().await.map_err(unavailable)?;
        let answer = Database::new(&self.archive, Some(workspace), (self.clock)())
            .with_live(Arc::new(tables))
            .with_tail(&tail)
            .map_err(refused)?
            .query(&question.sql, &limits)
            .await
            .map_err(refused)?;
        let mut body = Vec::new();
        answer.write(format, &mut body).map_err(refused)?;
        Ok(Answered {
            media_type: format.media_type(),
            body,
            rows: answer.rows(),
            truncated: answer.truncated(),
        })
    }

    async fn tell(
        &self,
        workspace: Workspace,
        person: PersonId,
        period: Period,
    ) -> Result<serde_json::Value, PastError> {
        let _turn = self.turns.acquire().await;
        let tail = self.tail().await.map_err(unavailable)?;
        let asked = Asked {
            key: CustomerKey::new(workspace, person),
            from: period.from,
            to: period.to.unwrap_or_else(|| (self.clock)()),
        };
        let told = history(&self.archive, &tail, self.store.partitions(), &asked)
            .await
            .map_err(unavailable)?;
        let told = told.ok_or(PastError::UnknownCustomer)?;
        serde_json::to_value(told).map_err(|error| unavailable(error.into()))
    }
}

fn unavailable(error: anyhow::Error) -> PastError {
    PastError::Unavailable(format!("{error:#}"))
}

/// Who is at fault for an answer that failed.
fn refused(error: ArchiveError) -> PastError {
    match error {
        ArchiveError::TimeLimit { .. } | ArchiveError::MemoryLimit { .. } => PastError::TooCostly(error.to_string()),
        error if error.class() == "user" => PastError::Question(error.to_string()),
        error => PastError::Unavailable(error.to_string()),
    }
}

impl<S: Store> Past for Service<S> {
    fn query(&self, workspace: Workspace, question: Question) -> PastAnswer<Answered> {
        let service = self.clone();
        Box::pin(async move { service.answer(workspace, question).await })
    }

    fn history(&self, workspace: Workspace, person: PersonId, period: Period) -> PastAnswer<serde_json::Value> {
        let service = self.clone();
        Box::pin(async move { service.tell(workspace, person, period).await })
    }
}
