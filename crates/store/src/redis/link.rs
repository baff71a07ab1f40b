//! The connection to Redis: made when it is needed, dropped when anything is wrong with it, bounded in time. It never
//! repeats a command on its own (a cluster client may, after a redirection; scripts recognise themselves) and
//! never decides what an answer means for the store.
//!
//! Several addresses of single servers mean one master and its replicas: the one that says that it is the master is
//! used, and after a failure all of them are asked again.

use super::{Options, fault};
use crate::StoreError;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo, Pipeline, RedisResult,
    Value,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// A script and its digest, by which Redis remembers it.
#[derive(Debug)]
pub(crate) struct Script {
    body: &'static str,
    digest: String,
}

impl Script {
    pub(crate) fn new(body: &'static str) -> Self {
        Self {
            body,
            digest: redis::Script::new(body).get_hash().to_owned(),
        }
    }
}

/// One installation of Redis.
pub(crate) struct Link {
    nodes: Vec<ConnectionInfo>,
    connect_timeout: Duration,
    response_timeout: Duration,
    current: Mutex<Option<Arc<Connection>>>,
}

#[derive(Clone)]
enum Connection {
    /// Two to the same server, made and dropped together: large writes have one of their own, so that reads and small calls
    /// do not wait behind the bytes of a commit.
    Single {
        calls: MultiplexedConnection,
        bulk: MultiplexedConnection,
    },
    Cluster(ClusterConnection),
}

/// Which of two connections a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Calls,
    Bulk,
}

impl Connection {
    async fn ask(&mut self, command: &Cmd, way: Way) -> RedisResult<Value> {
        match self {
            Self::Single { bulk, .. } if way == Way::Bulk => bulk.req_packed_command(command).await,
            Self::Single { calls, .. } => calls.req_packed_command(command).await,
            Self::Cluster(cluster) => cluster.req_packed_command(command).await,
        }
    }

    async fn ask_all(&mut self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let count = commands.len();
        match self {
            Self::Single { calls, .. } => calls.req_packed_commands(commands, 0, count).await,
            Self::Cluster(cluster) => cluster.req_packed_commands(commands, 0, count).await,
        }
    }

    async fn ask_masters(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Single { calls, .. } => Ok(Value::Array(vec![calls.req_packed_command(command).await?])),
            Self::Cluster(cluster) => {
                let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                cluster.route_command(command.clone(), masters).await
            }
        }
    }
}

impl Link {
    pub(crate) fn new(options: &Options) -> Result<Self, StoreError> {
        let node = |node: &String| {
            node.as_str()
                .into_connection_info()
                .map_err(|error| StoreError::Layout {
                    reason: format!("a redis address is not of the form redis://[user:password@]host:port: {error}"),
                })
        };
        let nodes = options.nodes.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(StoreError::Layout {
                reason: "no redis address is given".to_owned(),
            });
        }
        Ok(Self {
            nodes,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
            current: Mutex::new(None),
        })
    }

    /// Sends one command.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        self.ask_by(Way::Calls, command).await
    }

    async fn ask_by<T: FromRedisValue>(&self, way: Way, command: &Cmd) -> Result<T, StoreError> {
        let shared = self.connection().await?;
        let mut connection = Connection::clone(&shared);
        let answer = within(self.response_timeout, connection.ask(command, way)).await;
        read(self.received(&shared, answer).await?)
    }

    /// Sends commands of one slot together; an error of one is an error of all.
    pub(crate) async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, StoreError> {
        let shared = self.connection().await?;
        let mut connection = Connection::clone(&shared);
        let answer = within(self.response_timeout, connection.ask_all(commands)).await;
        read(Value::Array(self.received(&shared, answer).await?))
    }

    /// Asks every master; one answer each.
    pub(crate) async fn ask_masters<T: FromRedisValue>(&self, command: &Cmd) -> Result<Vec<T>, StoreError> {
        let shared = self.connection().await?;
        let mut connection = Connection::clone(&shared);
        let answer = within(self.response_timeout, connection.ask_masters(command)).await;
        match self.received(&shared, answer).await? {
            Value::Map(answers) => answers.into_iter().map(|(_, answer)| read(answer)).collect(),
            Value::Array(answers) => answers.into_iter().map(read).collect(),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs a script, and sends its text if Redis does not know it.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[Argument],
    ) -> Result<T, StoreError> {
        self.run_by(Way::Calls, script, keys, arguments).await
    }

    /// The same with arguments that are many, beside other calls. In which order Redis takes it and them is not known.
    pub(crate) async fn run_bulk<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[Argument],
    ) -> Result<T, StoreError> {
        self.run_by(Way::Bulk, script, keys, arguments).await
    }

    async fn run_by<T: FromRedisValue>(
        &self,
        way: Way,
        script: &Script,
        keys: &[String],
        arguments: &[Argument],
    ) -> Result<T, StoreError> {
        let bytes = keys
            .iter()
            .map(String::len)
            .chain(arguments.iter().map(|argument| argument.as_bytes().len()));
        let bytes: usize = bytes.sum();
        let command = |name: &str, text: &str| {
            let mut command =
                Cmd::with_capacity(3 + keys.len() + arguments.len(), name.len() + text.len() + 20 + bytes);
            let _ = command.arg(name).arg(text).arg(keys.len()).arg(keys);
            for argument in arguments {
                let _ = command.arg(argument.as_bytes());
            }
            command
        };
        let known = self.ask_by::<Value>(way, &command("EVALSHA", &script.digest)).await;
        let value = match known {
            Err(StoreError::Unavailable { reason }) if reason.starts_with(fault::UNKNOWN_SCRIPT) => {
                self.ask_by::<Value>(way, &command("EVAL", script.body)).await?
            }
            known => known?,
        };
        read(value)
    }

    /// What an answer means, or that there was none in time.
    async fn received<T>(&self, shared: &Arc<Connection>, answer: Option<RedisResult<T>>) -> Result<T, StoreError> {
        let answer = match answer {
            Some(answer) => answer.map_err(|error| fault::of(&error)),
            None => Err(fault::slow(self.response_timeout)),
        };
        if let Err(StoreError::Unavailable { reason }) = &answer
            && !reason.starts_with(fault::UNKNOWN_SCRIPT)
        {
            self.forget(shared).await;
        }
        answer
    }

    /// The connection, made if there is none. Whoever waits for another one's attempt waits no longer than for an own one.
    async fn connection(&self) -> Result<Arc<Connection>, StoreError> {
        let attempts = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX).saturating_add(1);
        let limit = self.connect_timeout.saturating_mul(attempts);
        within(limit, self.share_connection())
            .await
            .unwrap_or_else(|| Err(fault::slow(limit)))
    }

    async fn share_connection(&self) -> Result<Arc<Connection>, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &*current {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.connect().await?);
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// The next call connects anew: a server that fails over, loads or hangs may not be the right one any more.
    async fn forget(&self, failed: &Arc<Connection>) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            *current = None;
        }
    }

    async fn connect(&self) -> Result<Connection, StoreError> {
        let mut problems = Vec::new();
        for node in &self.nodes {
            match self.connect_to(node).await {
                Ok(connection) => return Ok(connection),
                Err(problem) => problems.push(format!("{}: {problem}", node.addr())),
            }
        }
        Err(StoreError::Unavailable {
            reason: problems.join("; "),
        })
    }

    async fn connect_to(&self, node: &ConnectionInfo) -> Result<Connection, String> {
        let told = |error: redis::RedisError| match fault::of(&error) {
            StoreError::Unavailable { reason } => reason,
            other => other.to_string(),
        };
        let late = || format!("no connection within {} ms", self.connect_timeout.as_millis());
        let client = Client::open(node.clone()).map_err(told)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut single = within(self.connect_timeout, connecting)
            .await
            .ok_or_else(late)?
            .map_err(told)?;
        let role = async {
            let cluster: String = redis::cmd("INFO").arg("cluster").query_async(&mut single).await?;
            let role: Value = redis::cmd("ROLE").query_async(&mut single).await?;
            Ok((field(&cluster, "cluster_enabled") == Some("1"), role))
        };
        let (clustered, role) = within(self.connect_timeout, role)
            .await
            .ok_or_else(late)?
            .map_err(told)?;
        if clustered {
            return self.connect_cluster().await;
        }
        let is_master = match role {
            Value::Array(parts) => parts
                .first()
                .is_some_and(|name| read::<String>(name.clone()).is_ok_and(|name| name == "master")),
            _ => false,
        };
        if !is_master {
            return Err("is a replica; give the address of the master as well".to_owned());
        }
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let bulk = within(self.connect_timeout, connecting)
            .await
            .ok_or_else(late)?
            .map_err(told)?;
        Ok(Connection::Single { calls: single, bulk })
    }

    async fn connect_cluster(&self) -> Result<Connection, String> {
        let told = |error: redis::RedisError| fault::of(&error).to_string();
        // Redirections are followed within the time that one call has; the rest is the worker's patience.
        let client = ClusterClient::builder(self.nodes.clone())
            .connection_timeout(self.connect_timeout)
            .response_timeout(self.response_timeout)
            .overall_response_timeout(Some(self.response_timeout))
            .retries(3)
            .build()
            .map_err(told)?;
        let connecting = client.get_async_connection();
        let connected = within(self.connect_timeout.saturating_mul(2), connecting).await;
        connected
            .ok_or_else(|| "the cluster did not answer".to_owned())?
            .map(Connection::Cluster)
            .map_err(told)
    }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

/// An argument of a script, borrowed or made for it.
#[derive(Debug, Clone)]
pub(crate) enum Argument {
    Bytes(bytes::Bytes),
    Text(String),
}

impl Argument {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }
}

impl From<bytes::Bytes> for Argument {
    fn from(bytes: bytes::Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Argument {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<String> for Argument {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Argument {
    fn from(number: u64) -> Self {
        Self::Text(number.to_string())
    }
}

impl From<usize> for Argument {
    fn from(number: usize) -> Self {
        Self::Text(number.to_string())
    }
}

/// The value of a line `name:value` of an `INFO` answer.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    let value = value.extract_error().map_err(|error| fault::of(&error))?;
    redis::from_redis_value(value).map_err(|error| StoreError::Corrupt {
        reason: format!("redis answered something else than was asked for: {error}"),
    })
}

fn unexpected(value: &Value) -> StoreError {
    StoreError::Corrupt {
        reason: format!("redis answered {value:?}"),
    }
}
