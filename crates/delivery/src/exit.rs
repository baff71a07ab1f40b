//! The way out over HTTP: one `POST` per attempt, to an address that was checked, without redirects, proxies or cookies, with a
//! time limit on the whole and a size limit on the answer. What a receiver answers beyond its status and `Retry-After` is
//! read and forgotten.
//!
//! Blocking calls run on threads of their own; a lane never has more of them than its concurrency.

use crate::Clock;
use crate::destination::Destination;
use crate::guard::{Range, may_connect};
use crate::message::{Parcel, Request, compose};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderMap, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use vigie_event::Timestamp;

/// Bytes of an answer that are read at most.
const MAX_ANSWER: u64 = 16 * 1024;

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The name leads to an address that may not be connected to.
    Refused,
    /// The name leads nowhere.
    Name,
    /// Nobody listens, or the connection broke.
    Connection,
    /// No answer in time.
    Timeout,
    /// No trust in the certificate, or no TLS.
    Tls,
    /// Not HTTP.
    Protocol,
}

impl Failure {
    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused_address",
            Self::Name => "no_such_name",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
        }
    }
}

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A status.
    Status {
        /// The code.
        code: u16,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// None.
    Failed(Failure),
}

impl Answer {
    /// Whether the flag has arrived.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Status { code: 200..=299, .. })
    }

    /// In a few words, for lists and logs.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Status { code, .. } => format!("status {code}"),
            Self::Failed(failure) => failure.label().to_owned(),
        }
    }
}

/// A way out. One call is one attempt.
pub trait Exit: Send + Sync + 'static {
    /// Sends a flag and waits for what becomes of it.
    fn send(&self, parcel: &Parcel) -> impl Future<Output = Answer> + Send;
}

/// The way to a destination over HTTP.
pub struct HttpExit {
    destination: Arc<Destination>,
    agent: ureq::Agent,
    clock: Clock,
}

/// Certificates that are none.
#[derive(Debug, thiserror::Error)]
#[error("destination {0:?}: ca-file holds no PEM certificate")]
pub struct NoCertificate(String);

impl HttpExit {
    /// The way to `destination`; nothing is connected to yet.
    ///
    /// # Errors
    /// The certificates of the destination.
    pub fn new(destination: Arc<Destination>, clock: Clock) -> Result<Self, NoCertificate> {
        let mut tls = TlsConfig::builder();
        if let Some(pem) = &destination.ca {
            let certificates: Vec<_> = parse_pem(pem.as_bytes())
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(NoCertificate(destination.name.clone()));
            }
            tls = tls.root_certs(RootCerts::from(certificates));
        }
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .https_only(destination.url.scheme() == "https")
            .timeout_global(Some(destination.timeout))
            .timeout_connect(Some(destination.timeout / 2))
            .max_response_header_size(MAX_ANSWER as usize)
            .max_idle_connections(destination.concurrency)
            .max_idle_connections_per_host(destination.concurrency)
            .user_agent(concat!("vigie/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build();
        let resolver = Guarded {
            inner: DefaultResolver::default(),
            allowed: destination.allow_private.clone(),
        };
        Ok(Self {
            agent: ureq::Agent::with_parts(config, DefaultConnector::default(), resolver),
            destination,
            clock,
        })
    }
}

impl Exit for HttpExit {
    async fn send(&self, parcel: &Parcel) -> Answer {
        let now = (self.clock)();
        let request = compose(&self.destination, parcel, now);
        let agent = self.agent.clone();
        let sent = tokio::task::spawn_blocking(move || post(&agent, &request, now)).await;
        // The task panicked, or the runtime is going down: it may have arrived, and is sent again.
        sent.unwrap_or(Answer::Failed(Failure::Connection))
    }
}

fn post(agent: &ureq::Agent, request: &Request, now: Timestamp) -> Answer {
    let mut post = agent.post(&request.url);
    for (name, value) in &request.headers {
        post = post.header(name, value);
    }
    match post.send(&request.body) {
        Ok(mut answer) => {
            let (code, retry_after) = (answer.status().as_u16(), retry_after(answer.headers(), now));
            // Read so that the connection can be used again; too much of it, and the connection is dropped.
            let _ = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
            Answer::Status { code, retry_after }
        }
        Err(error) => Answer::Failed(failure(&error)),
    }
}

fn failure(error: &ureq::Error) -> Failure {
    use ureq::Error as E;
    match error {
        E::Timeout(_) => Failure::Timeout,
        E::HostNotFound | E::BadUri(_) => Failure::Name,
        E::Io(error) => match error.kind() {
            io::ErrorKind::PermissionDenied => Failure::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failure::Timeout,
            // Certificates that do not convince; names that lead nowhere come without a kind.
            io::ErrorKind::InvalidData => Failure::Tls,
            _ if error.to_string().contains("lookup address") => Failure::Name,
            _ => Failure::Connection,
        },
        E::Tls(_) | E::Rustls(_) | E::Pem(_) | E::TlsRequired | E::RequireHttpsOnly(_) => Failure::Tls,
        E::ConnectionFailed => Failure::Connection,
        _ => Failure::Protocol,
    }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let ahead = Timestamp(date.as_millisecond()).ms_since(now);
    Some(Duration::from_millis(u64::try_from(ahead).unwrap_or(0)))
}

/// Resolves names, and lets only those through whose addresses may all be connected to. What it returns is what is connected to.
#[derive(Debug)]
struct Guarded {
    inner: DefaultResolver,
    allowed: Vec<Range>,
}

impl Resolver for Guarded {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = self.inner.resolve(uri, config, timeout)?;
        match addresses
            .iter()
            .find(|address| !may_connect(address.ip(), &self.allowed))
        {
            None => Ok(addresses),
            Some(_) => Err(ureq::Error::Io(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the name leads to an address that may not be connected to",
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::parse("1994-11-06T08:49:00Z").unwrap();
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            let _none = headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(37)));
        assert_eq!(read("Sun, 06 Nov 1994 08:40:00 GMT"), Some(Duration::ZERO));
        assert_eq!((read("soon"), read("-1")), (None, None));
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
