//! Wrong keys at the API and the administration: who presents too many is not listened to for a while.
//!
//! Counted per address (an IPv6 network of 64 bits is one) are answers 401 to requests that carry a key. After
//! `server.wrong-keys` of them within a minute of each other, requests with a key from that address are answered 429 with
//! `Retry-After`, whatever the key, until a minute has passed without one more; requests without a key (health, the console's
//! pages) are not touched, and neither is anybody at another address. The collector is left out: a page with an old
//! write key must not take the office's other tills down with it, and its keys can only write.
//!
//! Addresses are kept in memory only, for a minute, at most [`MOST`] of them, and are never logged.

use crate::auditor::problem;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use vigie_ingestion::http::{Peer, presented_key};
use vigie_telemetry::Metrics;

/// How long somebody waits, and how long a wrong key is held against them.
const WAIT: Duration = Duration::from_mins(1);
/// Addresses remembered; of more, the one whose last wrong key is longest ago is forgotten.
const MOST: usize = 10_000;

/// See the module.
#[derive(Clone)]
pub(crate) struct Lockout {
    /// Wrong keys that are forgiven; 0: all.
    wrong_keys: usize,
    metrics: Metrics,
    met: Arc<Mutex<HashMap<IpAddr, Met>>>,
}

#[derive(Debug, Clone, Copy)]
struct Met {
    wrong: usize,
    last: Instant,
}

impl Lockout {
    pub(crate) fn new(wrong_keys: usize, metrics: Metrics) -> Self {
        Self {
            wrong_keys,
            metrics,
            met: Arc::default(),
        }
    }

    /// Puts the rule around routes.
    pub(crate) fn around(self, router: Router) -> Router {
        match self.wrong_keys {
            0 => router,
            _ => router.layer(from_fn_with_state(self, guard)),
        }
    }

    fn met(&self) -> MutexGuard<'_, HashMap<IpAddr, Met>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an address has to wait, if it has to.
    fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let met = self.met().get(&address).copied()?;
        let left = WAIT.checked_sub(now.duration_since(met.last))?;
        (met.wrong >= self.wrong_keys && !left.is_zero()).then_some(left)
    }

    fn note(&self, address: IpAddr, now: Instant) {
        let mut all = self.met();
        if all.len() >= MOST && !all.contains_key(&address) {
            all.retain(|_, met| now.duration_since(met.last) < WAIT);
            let oldest = all.iter().min_by_key(|(_, met)| met.last).map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| all.len() >= MOST) {
                let _ = all.remove(&oldest);
            }
        }
        let met = all.entry(address).or_insert(Met { wrong: 0, last: now });
        if now.duration_since(met.last) >= WAIT {
            met.wrong = 0;
        }
        met.wrong = met.wrong.saturating_add(1);
        met.last = now;
    }
}

fn now() -> Instant {
    Instant::now()
}

/// Whose doing it is: an address, or the network that one subscriber has.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

async fn guard(State(lockout): State<Lockout>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|Peer(address)| whose(*address));
    let Some(address) = peer.filter(|_| presented_key(request.headers()).is_some()) else {
        return next.run(request).await;
    };
    if let Some(left) = lockout.wait(address, now()) {
        lockout.metrics.events.rejected("wrong_keys", 1);
        let detail = "too many wrong keys came from this address; come back after Retry-After, with the right one";
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "wrong_keys", detail);
        let seconds = left.as_secs().saturating_add(1);
        let _none = response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        return response;
    }
    let response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        lockout.note(address, now());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        whose(text.parse().unwrap())
    }

    #[test]
    fn row_132_twenty_wrong_keys_and_one_waits_a_minute_alone() {
        let lockout = Lockout::new(20, Metrics::disabled());
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        let start = now();
        for second in 0..20 {
            let now = start + Duration::from_secs(second);
            assert_eq!(lockout.wait(here, now), None, "after {second} wrong keys");
            lockout.note(here, now);
        }
        let last = start + Duration::from_secs(19);
        assert_eq!(lockout.wait(here, last), Some(WAIT));
        assert_eq!(lockout.wait(here, last + WAIT / 2), Some(WAIT / 2));
        assert_eq!(lockout.wait(there, last), None, "nobody else waits");
        assert_eq!(lockout.wait(here, last + WAIT), None);
        // It begins anew then.
        lockout.note(here, last + WAIT);
        assert_eq!(lockout.wait(here, last + WAIT), None);
    }

    #[test]
    fn one_subscriber_is_one_address() {
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let lockout = Lockout::new(1, Metrics::disabled());
        let start = now();
        for n in 0..u32::try_from(MOST).unwrap() + 500 {
            lockout.note(IpAddr::V4(n.into()), start + Duration::from_micros(n.into()));
        }
        assert_eq!(lockout.met().len(), MOST);
        let newest = IpAddr::V4((u32::try_from(MOST).unwrap() + 499).into());
        assert!(lockout.wait(newest, start + Duration::from_secs(1)).is_some());
    }
}
