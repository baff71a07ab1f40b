//! The tables of SQL that the archive does not hold: customers, companies and flags from the store, dead letters from the journal,
//! all as of now.

use crate::backends::AnyLog;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use vigie_archive::sql::{AccountRow, CustomerRow, DeadLetterRow, FlagRow, Live, LiveRows};
use vigie_event::{AccountId, CustomerKey, Partition, Timestamp, Workspace};
use vigie_ingestion::dead_letters::DeadLetters;
use vigie_relance::{Account, Flag};
use vigie_scoring::{CustomerState, Model, Scorer, assess};
use vigie_serve::Active;
use vigie_store::Store;

/// Rows read from the store in one call.
const PAGE: usize = 2_000;

/// Dead letters of a workspace that a question sees: the newest.
const MAX_LETTERS: usize = 10_000;

/// Everything that the tables are read from.
pub(crate) struct Tables<S> {
    pub(crate) store: Arc<S>,
    pub(crate) letters: Option<DeadLetters<AnyLog>>,
    pub(crate) active: Arc<ArcSwap<Active>>,
    pub(crate) now: Timestamp,
}

impl<S: Store> Tables<S> {
    async fn read_customers(&self, scope: Option<&Workspace>) -> Result<Vec<CustomerRow>, String> {
        let (active, mut rows) = (self.active.load_full(), Vec::new());
        self.everybody(scope, |key, state| {
            rows.extend(customer(&key, &state, &active.model, self.now));
        })
        .await?;
        Ok(rows)
    }

    async fn read_accounts(&self, scope: Option<&Workspace>) -> Result<Vec<AccountRow>, String> {
        let active = self.active.load_full();
        let mut accounts: BTreeMap<(Workspace, AccountId), Vec<(CustomerKey, CustomerState)>> = BTreeMap::new();
        self.everybody(scope, |key, state| {
            if let Some(account) = state.account.as_ref().filter(|_| state.linked_to.is_none()) {
                let of = (key.workspace.clone(), account.id.clone());
                accounts.entry(of).or_default().push((key, state));
            }
        })
        .await?;
        let rows = accounts.into_iter().map(|((workspace, id), members)| {
            let members = members.iter().map(|(key, state)| (key, state));
            account(workspace, &id, &Account::of(members, &active.model, self.now), self.now)
        });
        Ok(rows.collect())
    }

    /// Every customer of the scope, signposts included.
    async fn everybody(
        &self,
        scope: Option<&Workspace>,
        mut each: impl FnMut(CustomerKey, CustomerState) + Send,
    ) -> Result<(), String> {
        for partition in (0..self.store.partitions()).map(Partition) {
            let mut after: Option<CustomerKey> = None;
            loop {
                let page = self
                    .store
                    .scan(partition, after, PAGE)
                    .await
                    .map_err(|error| error.to_string())?;
                let complete = page.len() < PAGE;
                after = page.last().map(|(key, _)| key.clone());
                for (key, bytes) in page {
                    if scope.is_none_or(|scope| *scope == key.workspace) {
                        let state = CustomerState::decode(&bytes).map_err(|error| format!("{key}: {error}"))?;
                        each(key, state);
                    }
                }
                // Other requests get a turn.
                tokio::task::yield_now().await;
                if complete {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn read_flags(&self, scope: Option<&Workspace>) -> Result<Vec<FlagRow>, String> {
        use vigie_store::Snapshot;
        let snapshot = self.store.snapshot().await.map_err(|error| error.to_string())?;
        let mut rows = Vec::new();
        let mut after: Option<(Workspace, u64)> = None;
        loop {
            let page = snapshot
                .flags(after.as_ref(), PAGE)
                .map_err(|error| error.to_string())?;
            let complete = page.len() < PAGE;
            after = page.last().map(|(workspace, number, _)| (workspace.clone(), *number));
            for (workspace, number, body) in page {
                if scope.is_none_or(|scope| *scope == workspace) {
                    let read = |body: &[u8]| -> Result<FlagRow, String> {
                        flag(
                            workspace,
                            &serde_json::from_slice(body).map_err(|error| error.to_string())?,
                        )
                    };
                    rows.push(read(&body).map_err(|error| format!("flag {number}: {error}"))?);
                }
            }
            if complete {
                return Ok(rows);
            }
        }
    }

    async fn read_letters(&self, scope: Option<&Workspace>) -> Result<Vec<DeadLetterRow>, String> {
        let Some(letters) = &self.letters else {
            return Ok(Vec::new());
        };
        let workspaces: Vec<Workspace> = match scope {
            Some(scope) => vec![scope.clone()],
            None => letters.accepted().into_keys().collect(),
        };
        let mut rows = Vec::new();
        for workspace in workspaces {
            let page = letters
                .list(&workspace, None, MAX_LETTERS)
                .await
                .map_err(|error| error.to_string())?;
            rows.extend(page.letters.into_iter().map(|stored| DeadLetterRow {
                id: stored.id.to_string(),
                workspace: stored.letter.workspace,
                received_at: stored.letter.received_at,
                step: stored.letter.step.label().to_owned(),
                code: stored.letter.code.label().to_owned(),
                field: (!stored.letter.field.is_empty()).then(|| stored.letter.field.to_string()),
                source: stored.letter.source.name().to_owned(),
                payload: String::from_utf8_lossy(&stored.letter.raw).into_owned(),
            }));
        }
        Ok(rows)
    }
}

impl<S: Store> Live for Tables<S> {
    fn customers<'a>(&'a self, scope: Option<&'a Workspace>) -> LiveRows<'a, CustomerRow> {
        Box::pin(self.read_customers(scope))
    }

    fn accounts<'a>(&'a self, scope: Option<&'a Workspace>) -> LiveRows<'a, AccountRow> {
        Box::pin(self.read_accounts(scope))
    }

    fn flags<'a>(&'a self, scope: Option<&'a Workspace>) -> LiveRows<'a, FlagRow> {
        Box::pin(self.read_flags(scope))
    }

    fn dead_letters<'a>(&'a self, scope: Option<&'a Workspace>) -> LiveRows<'a, DeadLetterRow> {
        Box::pin(self.read_letters(scope))
    }
}

/// A customer as of `now` (or as of the newest event, where that lies ahead); nothing for a signpost.
fn customer(key: &CustomerKey, state: &CustomerState, model: &Model, now: Timestamp) -> Option<CustomerRow> {
    if state.linked_to.is_some() {
        return None;
    }
    let whole = state.combined();
    let as_of = whole.last_activity().map_or(now, |last| last.max(now));
    let assessment = assess(state, model, as_of);
    let features = *Scorer::of(state, model).features();
    let churn = |days: u16| {
        let of = assessment.churn.iter().find(|churn| churn.horizon_days == days);
        of.and_then(|churn| churn.outcome.ok()).map(|churn| churn.score)
    };
    // The currency with the greatest number of minor units stands for the money; others can be had from `events`.
    let money = whole
        .purchases()
        .totals()
        .max_by_key(|(_, totals)| totals.gross)
        .map(|(currency, totals)| (currency, totals.net()));
    Some(CustomerRow {
        workspace: key.workspace.clone(),
        customer: key.person.to_string(),
        attrition: assessment.attrition.as_ref().ok().map(|attrition| attrition.score),
        churn_30: churn(30),
        churn_90: churn(90),
        churn_365: churn(365),
        p_alive_bgnbd: assessment.p_alive.map(|alive| alive.bg_nbd),
        p_alive_mbgnbd: assessment.p_alive.map(|alive| alive.mbg_nbd),
        stage: assessment.stage.label().to_owned(),
        purchases: features.purchases.map_or(0, |purchases| purchases.x.saturating_add(1)),
        revenue_minor: money.map(|(_, spent)| spent),
        currency: money.map(|(currency, _)| currency.to_string()),
        first_activity: whole.first_activity(),
        last_activity: whole.last_activity(),
        last_purchase_day: features.purchases.map(|purchases| purchases.last),
        active_days: features
            .engagement
            .map_or(0, |engagement| engagement.x.saturating_add(1)),
        account: state.account.as_ref().map(|account| account.id.to_string()),
        as_of,
        model: assessment.model,
    })
}

fn account(workspace: Workspace, id: &AccountId, account: &Account, as_of: Timestamp) -> AccountRow {
    let count = |members: usize| u32::try_from(members).unwrap_or(u32::MAX);
    let money = account.value.iter().max_by(|(_, a), (_, b)| a.0.total_cmp(&b.0));
    AccountRow {
        workspace,
        account: id.to_string(),
        members: count(account.members.len()),
        key_contacts: count(account.members.iter().filter(|member| member.key).count()),
        attrition: account.attrition,
        at_risk: u32::from(account.at_risk),
        most_drifting: account.most_drifting.as_ref().map(ToString::to_string),
        currency: money.map(|(currency, _)| currency.to_string()),
        current_value: money.map(|(_, (current, _))| *current),
        at_stake: money.map(|(_, (_, at_stake))| *at_stake),
        as_of,
    }
}

fn flag(workspace: Workspace, flag: &Flag) -> Result<FlagRow, String> {
    let reasons: Vec<&str> = flag.reasons.iter().map(|reason| reason.text.as_str()).collect();
    Ok(FlagRow {
        id: flag.id.clone(),
        workspace,
        customer: flag.customer.clone(),
        policy: flag.policy.clone(),
        policy_version: flag.policy_version.clone(),
        kind: flag.kind.label().to_owned(),
        score: flag.score.kind.clone(),
        value: flag.score.value,
        threshold: flag.score.threshold,
        raised_at: Timestamp::parse(&flag.raised_at).map_err(|_| format!("raised_at {:?}", flag.raised_at))?,
        stage: flag.stage.clone(),
        reasons: reasons.join(" "),
        model: flag.model.clone(),
    })
}
