//! Purchases out of an archive, for fits and backtests: what took effect, once, and whose it is now. It never
//! decides what a purchase is worth.

use super::house::{self, House};
use crate::cli::Failure;
use crate::config::{self, ConfigSources};
use anyhow::{Result, anyhow};
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use vigie_archive::{Archive, Mode, Wanted};
use vigie_event::{Body, Currency, Day, EventId, Judgement, PersonId, Signal, Timestamp, Workspace};
use vigie_fit::History;

/// Identities that are followed from one to the next.
const MAX_LINKS: usize = 8;
/// A data directory to take purchases from.
#[derive(Debug, Args)]
pub(crate) struct Stock {
    /// Take the purchases from this data directory's archive; best of a stopped server, see the message otherwise
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration of that server, where it is not the default one
    #[arg(long, requires = "data_dir")]
    config: Option<PathBuf>,
    /// Whose purchases
    #[arg(long, default_value = "default", requires = "data_dir")]
    workspace: String,
}

/// By whom, when, and for how much in minor units.
type Purchase = (PersonId, Day, Option<(Currency, i64)>);

/// What was found.
#[derive(Debug, Default)]
struct Found {
    purchases: Vec<Purchase>,
    /// Identities and the records that took theirs in, by which event, and when.
    merges: Vec<(Timestamp, PersonId, PersonId, EventId)>,
    /// Identities that left again.
    unlinked: Vec<(Timestamp, PersonId, EventId)>,
    /// What is left of the merges.
    merged: BTreeMap<PersonId, PersonId>,
    events: u64,
}

/// What was read.
pub(crate) struct Taken {
    pub(crate) history: History,
    pub(crate) told: String,
    pub(crate) counts: serde_json::Value,
    pub(crate) name: String,
    /// Of the amounts, where it is known.
    pub(crate) currency: Option<Currency>,
}

impl Stock {
    /// Reads the purchases that took effect. A customer whose identities were linked is one, also before the link.
    pub(crate) fn read(&self) -> Result<Taken, Failure> {
        let dir = self
            .data_dir
            .as_ref()
            .ok_or_else(|| anyhow!("no data directory was named"))?;
        let workspace =
            Workspace::new(&self.workspace).map_err(|error| Failure::Usage(format!("--workspace: {error}\n")))?;
        let flags = vec![
            ("data.dir".to_owned(), dir.display().to_string()),
            ("log-output.level".to_owned(), "warn".to_owned()),
        ];
        let config = config::load(ConfigSources::of_process(self.config.clone(), flags))
            .map_err(|errors| Failure::Usage(errors.to_string()))?;
        house::expect_data(&config.data.dir)?;
        let (found, note) = crate::cli::runtime()?.block_on(async {
            // With nobody in the house, the archive is first brought up to the store.
            let (archive, note) = match House::open(&config).await {
                Ok(house) => (house.archive, String::new()),
                Err(error) => {
                    let archive = Archive::open(house::place(&config)?, Mode::Read, config.log.partitions).await?;
                    let note = format!("; what is not in the archive yet was not seen ({error:#})");
                    (Arc::new(archive), note)
                }
            };
            Ok::<_, anyhow::Error>((find(&archive, &workspace).await?, note))
        })?;
        let (taken, currency, others) = found.taken();
        let mut told = format!("{} events: {} purchases", found.events, taken.len());
        if let Some(currency) = currency {
            told += &format!(" in {currency}");
        }
        if others > 0 {
            told += &format!(", and {others} in other currencies, whose amounts count as 0");
        }
        Ok(Taken {
            counts: serde_json::json!({"events": found.events, "purchases": taken.len(), "other_currencies": others}),
            history: History::of(taken),
            told: told + &note,
            name: dir.display().to_string(),
            currency,
        })
    }
}

async fn find(archive: &Archive, workspace: &Workspace) -> Result<Found> {
    let mut found = Found::default();
    let mut reader = archive.read(Wanted {
        judgement: true,
        ..Wanted::default()
    });
    while let Some(portion) = reader.next().await? {
        for row in portion {
            // What cannot be decoded took no effect.
            let Ok(record) = row.record else { continue };
            let (event, person) = match record.body {
                Body::Merge(merge) if merge.workspace == *workspace => {
                    found.merges.push((merge.at, merge.from, merge.into, merge.by));
                    continue;
                }
                Body::Event(event) => {
                    let person = event.person.key().cloned();
                    (event, person)
                }
                Body::Forward(forward) => (forward.event, Some(forward.into)),
                _ => continue,
            };
            let (Some(Judgement::Applied(findings)), Some(person)) = (row.judgement, person) else {
                continue;
            };
            if event.workspace != *workspace {
                continue;
            }
            found.events += 1;
            if findings.signal == Signal::Unlink {
                let id = event.id.clone();
                found.unlinked.push((event.received_at, person.clone(), id));
            }
            if findings.signal != Signal::Purchase || event.money.is_some_and(|money| money.minor < 0) {
                continue;
            }
            let money = event.money.map(|money| (money.currency, money.minor));
            found.purchases.push((person, findings.at.day(), money));
        }
    }
    found.resolve();
    Ok(found)
}

impl Found {
    /// Who gave their record to whom and did not leave since.
    fn resolve(&mut self) {
        self.merges.sort();
        for (at, from, into, by) in std::mem::take(&mut self.merges) {
            let returned = self.unlinked.iter().any(|(_, _, unlink)| *unlink == by);
            let left = self.unlinked.iter().any(|(since, who, _)| *who == from && *since >= at);
            if !returned && !left {
                let _ = self.merged.insert(from, into);
            }
        }
    }

    /// Customers in the order of their names, days, and amounts in the currency of most purchases, which is named; and how many
    /// purchases were in another one.
    fn taken(&self) -> (Vec<(String, Day, f64)>, Option<Currency>, usize) {
        let mut counts: BTreeMap<Currency, usize> = BTreeMap::new();
        for (currency, _) in self.purchases.iter().filter_map(|(_, _, money)| money.as_ref()) {
            *counts.entry(*currency).or_default() += 1;
        }
        let currency = counts
            .iter()
            .max_by_key(|(_, count)| **count)
            .map(|(currency, _)| *currency);
        let all: usize = counts.values().sum();
        let main = currency
            .and_then(|currency| counts.get(&currency))
            .copied()
            .unwrap_or_default();
        let unit = currency.map_or(0.0, |currency| 10f64.powi(-currency.exponent().cast_signed()));
        let mut taken: Vec<(String, Day, f64)> = self
            .purchases
            .iter()
            .map(|(person, day, money)| {
                let amount = money
                    .filter(|(of, _)| Some(*of) == currency)
                    .map_or(0.0, |(_, minor)| minor as f64 * unit);
                (self.holder(person).to_string(), *day, amount)
            })
            .collect();
        taken.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)).then(a.2.total_cmp(&b.2)));
        (taken, currency, all - main)
    }

    /// Who holds an identity's record in the end.
    fn holder<'a>(&'a self, person: &'a PersonId) -> &'a PersonId {
        let mut holder = person;
        for _ in 0..MAX_LINKS {
            match self.merged.get(holder) {
                Some(into) => holder = into,
                None => break,
            }
        }
        holder
    }
}
