//! Which log and which store a configuration means: those on the local disk, a topic of Kafka, a Redis. Each is one enum that
//! hands every call on, so that nothing above knows which one it has. It never decides what is written where.

use crate::bounds;
use crate::config::{Config, Durability, LogBackend, SaslMechanism, StoreBackend, Switch};
use crate::keyfile;
use crate::outputs::{self, Scores};
use crate::server;
use crate::topics;
use anyhow::{Context, Result};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use vigie_event::{CustomerKey, FlagId, Offset, Partition, Position, Timestamp, Workspace};
use vigie_ingestion::log::{EmbeddedLog, Entry, Health, Log, LogError, LogReader, Options};
use vigie_kafka::config::{Mechanism, Sasl, Secret, Tls};
use vigie_kafka::ownership::MemberOptions;
use vigie_kafka::{Connection, KafkaLog, LogOptions, Security};
use vigie_store::{
    Commit, CommitReceipt, Counts, EmbeddedSnapshot, EmbeddedStore, MemorySnapshot, RankCursor, RedisOptions,
    RedisStore, Snapshot, Store, StoreError,
};
use vigie_telemetry::Metrics;

/// A log.
#[derive(Debug)]
pub(crate) enum AnyLog {
    Embedded(EmbeddedLog),
    Kafka(Box<KafkaLog>),
}

/// A reader of a log.
#[derive(Debug)]
pub(crate) enum AnyReader {
    Embedded(Box<<EmbeddedLog as Log>::Reader>),
    Kafka(Box<<KafkaLog as Log>::Reader>),
}

macro_rules! each_log {
    ($self:expr, $log:ident => $call:expr) => {
        match $self {
            AnyLog::Embedded($log) => $call,
            AnyLog::Kafka($log) => $call,
        }
    };
}

impl Log for AnyLog {
    type Reader = AnyReader;

    fn partitions(&self) -> u16 {
        each_log!(self, log => log.partitions())
    }

    async fn append(&self, records: Vec<(Partition, Bytes)>) -> Result<Vec<Position>, LogError> {
        each_log!(self, log => log.append(records).await)
    }

    async fn append_owed(&self, records: Vec<(Partition, Bytes)>) -> Result<Vec<Position>, LogError> {
        each_log!(self, log => log.append_owed(records).await)
    }

    fn reader(&self, from: BTreeMap<Partition, Offset>) -> Result<AnyReader, LogError> {
        Ok(match self {
            Self::Embedded(log) => AnyReader::Embedded(Box::new(log.reader(from)?)),
            Self::Kafka(log) => AnyReader::Kafka(Box::new(log.reader(from)?)),
        })
    }

    fn ends(&self) -> Vec<Offset> {
        each_log!(self, log => log.ends())
    }

    fn starts(&self) -> Vec<Offset> {
        each_log!(self, log => log.starts())
    }

    fn health(&self) -> Health {
        each_log!(self, log => log.health())
    }
}

impl LogReader for AnyReader {
    async fn next(&mut self, max_records: usize, max_bytes: usize, wait: Duration) -> Result<Vec<Entry>, LogError> {
        match self {
            Self::Embedded(reader) => reader.next(max_records, max_bytes, wait).await,
            Self::Kafka(reader) => reader.next(max_records, max_bytes, wait).await,
        }
    }
}

/// A store.
#[derive(Debug)]
pub(crate) struct AnyStore {
    kind: StoreKind,
    /// Who else is told of scores.
    scores: Option<Scores>,
}

#[derive(Debug)]
enum StoreKind {
    Embedded(EmbeddedStore),
    Redis(RedisStore),
}

/// A snapshot of a store.
#[derive(Debug)]
pub(crate) enum AnySnapshot {
    Embedded(EmbeddedSnapshot),
    Redis(MemorySnapshot),
}

macro_rules! each_store {
    ($self:expr, $store:ident => $call:expr) => {
        match &$self.kind {
            StoreKind::Embedded($store) => $call,
            StoreKind::Redis($store) => $call,
        }
    };
}

impl Store for AnyStore {
    type Snapshot = AnySnapshot;

    fn partitions(&self) -> u16 {
        each_store!(self, store => store.partitions())
    }

    fn publishes(&self) -> bool {
        self.scores.is_some() || each_store!(self, store => store.publishes())
    }

    async fn load(&self, keys: &[CustomerKey]) -> Result<Vec<Option<Bytes>>, StoreError> {
        each_store!(self, store => store.load(keys).await)
    }

    async fn partition(&self, partition: Partition) -> Result<Option<Bytes>, StoreError> {
        each_store!(self, store => store.partition(partition).await)
    }

    async fn due(
        &self,
        partition: Partition,
        upto: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, CustomerKey)>, StoreError> {
        each_store!(self, store => store.due(partition, upto, limit).await)
    }

    async fn next_due(&self, partition: Partition) -> Result<Option<Timestamp>, StoreError> {
        each_store!(self, store => store.next_due(partition).await)
    }

    async fn commit(&self, commit: Commit) -> Result<CommitReceipt, StoreError> {
        // Before: what was told and then not committed is told again by whoever repeats the step.
        if let Some(scores) = &self.scores {
            scores.tell(commit.epoch, &commit.customers).await?;
        }
        each_store!(self, store => store.commit(commit).await)
    }

    async fn claim(&self, partitions: &[Partition]) -> Result<u64, StoreError> {
        each_store!(self, store => store.claim(partitions).await)
    }

    async fn renew(&self, epoch: u64, partitions: &[Partition]) -> Result<u64, StoreError> {
        each_store!(self, store => store.renew(epoch, partitions).await)
    }

    async fn scan(
        &self,
        partition: Partition,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
        each_store!(self, store => store.scan(partition, after, limit).await)
    }

    async fn at_risk(
        &self,
        workspace: &Workspace,
        after: Option<RankCursor>,
        limit: usize,
    ) -> Result<Vec<(u16, CustomerKey, Bytes)>, StoreError> {
        each_store!(self, store => store.at_risk(workspace, after, limit).await)
    }

    async fn flags(&self, workspace: &Workspace, after: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, StoreError> {
        each_store!(self, store => store.flags(workspace, after, limit).await)
    }

    async fn flag(&self, workspace: &Workspace, id: &FlagId) -> Result<Option<Bytes>, StoreError> {
        each_store!(self, store => store.flag(workspace, id).await)
    }

    async fn customers(
        &self,
        workspace: &Workspace,
        after: Option<CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
        each_store!(self, store => store.customers(workspace, after, limit).await)
    }

    async fn persist(&self) -> Result<(), StoreError> {
        each_store!(self, store => store.persist().await)
    }

    async fn judged(
        &self,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> Result<Vec<(Offset, Bytes)>, StoreError> {
        each_store!(self, store => store.judged(partition, from, limit).await)
    }

    async fn forget_judged(&self, below: &[(Partition, Offset)]) -> Result<(), StoreError> {
        each_store!(self, store => store.forget_judged(below).await)
    }

    async fn snapshot(&self) -> Result<AnySnapshot, StoreError> {
        Ok(match &self.kind {
            StoreKind::Embedded(store) => AnySnapshot::Embedded(store.snapshot().await?),
            StoreKind::Redis(store) => AnySnapshot::Redis(store.snapshot().await?),
        })
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        each_store!(self, store => store.counts().await)
    }
}

impl Snapshot for AnySnapshot {
    fn partition(&self, partition: Partition) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Embedded(snapshot) => snapshot.partition(partition),
            Self::Redis(snapshot) => snapshot.partition(partition),
        }
    }

    fn scan(
        &self,
        partition: Partition,
        after: Option<&CustomerKey>,
        limit: usize,
    ) -> Result<Vec<(CustomerKey, Bytes)>, StoreError> {
        match self {
            Self::Embedded(snapshot) => snapshot.scan(partition, after, limit),
            Self::Redis(snapshot) => snapshot.scan(partition, after, limit),
        }
    }

    fn flags(
        &self,
        after: Option<&(Workspace, u64)>,
        limit: usize,
    ) -> Result<Vec<(Workspace, u64, Bytes)>, StoreError> {
        match self {
            Self::Embedded(snapshot) => snapshot.flags(after, limit),
            Self::Redis(snapshot) => snapshot.flags(after, limit),
        }
    }
}

/// The log of everything that was accepted.
pub(crate) async fn main_log(config: &Config, metrics: &Metrics) -> Result<AnyLog> {
    match config.log.backend {
        LogBackend::Embedded => {
            let options = Options::new(config.log.partitions);
            server::open_log(&config.data.dir, config, metrics, options).map(AnyLog::Embedded)
        }
        LogBackend::Kafka => {
            // Of the journal's topic too, which is opened next.
            vigie_kafka::topics::check(&connection(config), &topics::specs(config)).await?;
            on_topic(config, &config.kafka.topic, config.log.partitions).await
        }
    }
}

/// The log of what was set aside.
pub(crate) async fn letters_log(config: &Config, metrics: &Metrics) -> Result<AnyLog> {
    match config.log.backend {
        LogBackend::Embedded => {
            // One reserve for the data directory is enough.
            let without_reserve = Options {
                reserve_bytes: 0,
                ..Options::new(1)
            };
            let dir = config.data.dir.join("dead-letters");
            server::open_log(&dir, config, metrics, without_reserve).map(AnyLog::Embedded)
        }
        LogBackend::Kafka => on_topic(config, &config.kafka.dead_letters_topic, 1).await,
    }
}

async fn on_topic(config: &Config, topic: &str, partitions: u16) -> Result<AnyLog> {
    let options = LogOptions {
        group: config.kafka.group.clone(),
        append_timeout: config.kafka.append_timeout,
        fetch_wait: config.kafka.fetch_wait,
        queue_bytes: config.log.queue_bytes.len(),
        ..LogOptions::new(topic, partitions)
    };
    let log = KafkaLog::open(connection(config), options).await;
    Ok(AnyLog::Kafka(Box::new(
        log.with_context(|| format!("the log on the topic {topic}"))?,
    )))
}

/// How the brokers are reached.
pub(crate) fn connection(config: &Config) -> Connection {
    let kafka = &config.kafka;
    let tls = (kafka.tls == Switch::On).then(|| Tls {
        ca_file: kafka.ca_file.clone(),
        certificate_file: kafka.certificate_file.clone(),
        key_file: kafka.key_file.clone(),
    });
    let sasl = kafka.password_file.as_ref().map(|password| Sasl {
        mechanism: match kafka.sasl_mechanism {
            SaslMechanism::Plain => Mechanism::Plain,
            SaslMechanism::ScramSha256 => Mechanism::ScramSha256,
            SaslMechanism::ScramSha512 => Mechanism::ScramSha512,
        },
        username: match &kafka.username {
            Some(name) => Secret::Plain(name.clone()),
            None => Secret::Env("VIGIE_KAFKA_USERNAME".to_owned()),
        },
        password: Secret::File(password.clone()),
    });
    Connection {
        security: Security { tls, sasl },
        ..Connection::to(&kafka.brokers.join(","))
    }
}

/// How this process takes its share of the work.
pub(crate) fn member(config: &Config) -> MemberOptions {
    MemberOptions {
        session_timeout: config.kafka.session_timeout,
        ..MemberOptions::new(&config.kafka.topic, &config.kafka.group)
    }
}

/// The store. `used` says whether the log holds anything: then a store must be there already, since an empty one in its
/// place would take every customer for a new one.
pub(crate) async fn main_store(config: &Config, used: bool) -> Result<AnyStore> {
    let kind = match config.store.backend {
        StoreBackend::Embedded => {
            let store = EmbeddedStore::open(&config.data.dir.join("store"), &bounds::store_options(config))?;
            StoreKind::Embedded(store)
        }
        StoreBackend::Redis => {
            let options = redis_options(config)?;
            let store = match used {
                true => RedisStore::open(&options).await,
                false => RedisStore::create(&options, u128::from(keyfile::identity()?)).await,
            };
            StoreKind::Redis(store?)
        }
    };
    let scores = outputs::scores(config)?;
    Ok(AnyStore { kind, scores })
}

/// How the Redis is reached.
pub(crate) fn redis_options(config: &Config) -> Result<RedisOptions> {
    let redis = &config.redis;
    let login = match &redis.password_file {
        None => String::new(),
        Some(path) => format!("{}:{}@", encoded(&redis.username), encoded(&secret(path)?)),
    };
    let nodes = redis
        .nodes
        .iter()
        .map(|node| format!("redis://{login}{node}"))
        .collect();
    Ok(RedisOptions {
        namespace: redis.namespace.clone(),
        connect_timeout: redis.connect_timeout,
        response_timeout: redis.response_timeout,
        replicas: redis.replicas,
        volatile: redis.durability == Durability::None,
        ..RedisOptions::new(nodes, config.log.partitions)
    })
}

fn secret(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("the password in {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// As a part of an address (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn passwords_cannot_end_an_address() {
        assert_eq!(encoded("a:b@c/d é"), "a%3Ab%40c%2Fd%20%C3%A9");
    }
}
