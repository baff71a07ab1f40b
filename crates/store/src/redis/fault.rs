//! What an error of Redis means. Whatever a fail-over, a restart, a full memory or an operator's hand can cause is
//! [`StoreError::Unavailable`]: the caller waits, with a reason that says what to do, and never skips. Only bytes that
//! are not ours are damage.

use crate::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};
use std::time::Duration;

/// How the reason of an unknown script begins.
pub(crate) const UNKNOWN_SCRIPT: &str = "NOSCRIPT";

pub(crate) fn of(error: &RedisError) -> StoreError {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    if let Some(meaning) = passing(code) {
        return StoreError::Unavailable {
            reason: format!("{code}: {meaning} ({detail})"),
        };
    }
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound | ErrorKind::AuthenticationFailed => {
            StoreError::Unavailable {
                reason: format!("redis: {error}"),
            }
        }
        ErrorKind::Server(ServerErrorKind::ResponseError) if detail.contains("max number of clients") => {
            StoreError::Unavailable {
                reason: format!("redis accepts no more clients; raise maxclients ({detail})"),
            }
        }
        ErrorKind::InvalidClientConfig | ErrorKind::Client => StoreError::Layout {
            reason: format!("redis: {error}"),
        },
        _ => StoreError::Corrupt {
            reason: format!("redis refused what fits no key of this store: {error}"),
        },
    }
}

pub(crate) fn slow(limit: Duration) -> StoreError {
    StoreError::Unavailable {
        reason: format!("redis did not answer within {} ms", limit.as_millis()),
    }
}

/// Codes that waiting can end, and what they mean.
fn passing(code: &str) -> Option<&'static str> {
    Some(match code {
        "LOADING" => "redis is reading its data after a start",
        "READONLY" => "this redis is a replica; a fail-over is under way or the address is wrong",
        "MASTERDOWN" => "this redis is a replica that has lost its master",
        "CLUSTERDOWN" => "the cluster has no master for some slots; see `redis-cli cluster info`",
        "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" => "slots are moving between the nodes of the cluster",
        "OOM" => "redis has used up maxmemory and evicts nothing; give it more memory",
        "MISCONF" => "redis cannot write its file and therefore refuses writes; see its log",
        "NOREPLICAS" => "redis has fewer good replicas than min-replicas-to-write asks for",
        "BUSY" => "redis is held up by a script",
        "NOSCRIPT" => "redis does not know the script",
        "UNBLOCKED" => "redis became a replica during the call",
        "NOAUTH" | "WRONGPASS" => "redis wants another password",
        "NOPERM" => {
            "the user of this connection may not do this; it needs the commands listed in the manual on all keys of the namespace"
        }
        _ => return None,
    })
}
