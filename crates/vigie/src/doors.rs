//! What the collector has beyond the tracking protocols, from the configuration: webhooks of e-mail providers, signed links,
//! budgets. It decides nothing: what is wrong was refused when the configuration was read.

use crate::config::Config;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::Duration;
use vigie_ingestion::http::Doors;
use vigie_ingestion::links::Links;
use vigie_ingestion::rates::{Rate, RateLimits, Rates};
use vigie_ingestion::webhooks::{Fetch, FetchError, Fetched, Webhooks};

/// Longest wait for a certificate or the confirmation of a subscription.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest of them.
const MAX_BYTES: u64 = 64 << 10;

/// See the module.
pub(crate) fn doors(config: &Config) -> Result<Doors> {
    let specs = config.webhooks.iter().map(|webhook| webhook.spec.clone());
    Ok(Doors {
        webhooks: Webhooks::new(specs, Some(Arc::new(Https::new())))?,
        links: links(config)?,
        rates: rates(config),
    })
}

/// What signs links, if there are any.
pub(crate) fn links(config: &Config) -> Result<Option<Links>> {
    config.links.clone().map(Links::new).transpose().context("links")
}

fn rates(config: &Config) -> Rates {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let rate = |per_second: usize, burst: usize| Rate {
        per_second: number(per_second),
        burst: number(burst),
    };
    let rates = &config.rates;
    Rates::new(RateLimits {
        key: rate(rates.key_per_second, rates.key_burst),
        workspace: rate(rates.workspace_per_second, rates.workspace_burst),
        daily: rates.daily as u64,
    })
}

/// `GET` over https alone: no redirect, no proxy, little time, few bytes. What may be asked for is decided by the caller,
/// which only ever names Amazon's hosts.
#[derive(Debug, Clone)]
struct Https {
    agent: ureq::Agent,
}

impl Https {
    fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .https_only(true)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build();
        Self { agent: config.into() }
    }

    fn fetch(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let mut answer = self.agent.get(url).call().map_err(|error| {
            tracing::warn!(%error, "an address of Amazon did not answer");
            FetchError
        })?;
        if answer.status() != ureq::http::StatusCode::OK {
            tracing::warn!(
                status = answer.status().as_u16(),
                "an address of Amazon did not answer 200"
            );
            return Err(FetchError);
        }
        answer
            .body_mut()
            .with_config()
            .limit(MAX_BYTES)
            .read_to_vec()
            .map_err(|_| FetchError)
    }
}

impl Fetch for Https {
    fn get(&self, url: &str) -> Fetched<'_> {
        let (https, url) = (self.clone(), url.to_owned());
        Box::pin(async move {
            let fetched = tokio::task::spawn_blocking(move || https.fetch(&url)).await;
            fetched.unwrap_or(Err(FetchError))
        })
    }
}
