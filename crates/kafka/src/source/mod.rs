//! Topics of others as input: each record becomes an event in the log, exactly once in effect.
//!
//! A group of consumers reads the topics. A batch is acknowledged to the group only after all its events are durable in
//! the log and all its bad records in the dead-letter topic; so nothing is lost, and what is read again after a crash or a
//! rebalance is recognised by its id (see [`Format`]) in the fold. The source never starts anywhere else than where the
//! group's commit stands, or, for a partition without one, where [`SourceOptions::start`] says (which is committed before
//! the first record is read). A committed offset that the topic no longer has is an error with a choice for the operator:
//! [`accept_gap`].
//!
//! Length: where a partition begins, what is read, made durable and acknowledged is one argument; the mapping is elsewhere.

mod mapping;

pub use mapping::{Field, FieldMapping, Format, Incoming, Origin};

use crate::config::{Connection, ConnectionError};
use crate::producer::{Outgoing, Producer, ProducerOptions, SendError};
use bytes::Bytes;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::topic_partition_list::Offset as Raw;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vigie_event::json::{Invalid, Receipt};
use vigie_event::{Event, Timestamp, Workspace};
use vigie_ingestion::Clock;
use vigie_ingestion::intake::Intake;
use vigie_ingestion::limits::Limits;
use vigie_ingestion::log::Log;

/// How long the brokers may take for one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest sleep of the thread: a bound on how late it notices a stop.
const NAP: Duration = Duration::from_millis(100);
/// Pause before a batch that could not be made durable is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// Time between two looks at the ends of the topics, for the lag.
const LAG_EVERY_MS: i64 = 5_000;

/// Where a partition begins that the group has never committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At the first record that the topic still has.
    Earliest,
    /// At what comes next.
    Latest,
}

/// One source.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// Its name: part of the ids of records that have none, so it never changes. 1 to 40 characters.
    pub name: String,
    /// The topics.
    pub topics: Vec<String>,
    /// The consumer group; one of its own for each source.
    pub group: String,
    /// What the records look like.
    pub format: Format,
    /// Whose events they are.
    pub workspace: Workspace,
    /// Where a partition begins that the group has never committed.
    pub start: Start,
    /// Records that cannot be taken go there, with `dlq.*` headers that say why and where from.
    pub dead_letter_topic: String,
    /// Most records made durable at once. 1 to 10,000.
    pub batch_records: usize,
    /// How long a broker may hold a fetch that finds nothing. 1 to 500 ms.
    pub fetch_wait: Duration,
    /// A member that is not heard of for so long loses its partitions. 6 to 300 s.
    pub session_timeout: Duration,
    /// Limits of one event.
    pub limits: Limits,
}

impl SourceOptions {
    /// The defaults for one topic.
    #[must_use]
    pub fn new(name: &str, topic: &str, format: Format, workspace: Workspace) -> Self {
        Self {
            name: name.to_owned(),
            topics: vec![topic.to_owned()],
            group: format!("vigie-{name}"),
            format,
            workspace,
            start: Start::Earliest,
            dead_letter_topic: "vigie.dead-letters".to_owned(),
            batch_records: 1_000,
            fetch_wait: Duration::from_millis(100),
            session_timeout: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }

    /// Whether a source could be started with these, as far as settings go.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn check(&self) -> Result<(), SourceError> {
        let refused = |reason: &str| Err(SourceError::Settings(reason.to_owned()));
        if !(1..=40).contains(&self.name.len()) || self.name.chars().any(char::is_control) {
            return refused("the name of a source must have 1 to 40 characters");
        }
        if self.topics.is_empty() || self.topics.iter().any(String::is_empty) {
            return refused("a source needs a topic");
        }
        if self.topics.contains(&self.dead_letter_topic) {
            return refused(
                "the dead-letter topic cannot be a topic of the source: it would read its own dead letters",
            );
        }
        if !(1..=10_000).contains(&self.batch_records) {
            return refused("batch-records must be between 1 and 10000");
        }
        Ok(())
    }
}

/// Why a source cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A setting.
    #[error("kafka source: {0}")]
    Settings(String),
    /// The connection's settings.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The committed offset is not in the topic.
    #[error(
        "SOURCE_GAP {}..{}: {topic} partition {partition} holds offsets {first} to {end} (exclusive), committed is {from}; \
         the records between are lost to vigie: restore them, or accept the gap at {first} or {end}",
        from.min(end), from.max(first)
    )]
    Gap {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The committed offset.
        from: i64,
        /// The first one that the topic holds.
        first: i64,
        /// The one after the last.
        end: i64,
    },
    /// The brokers refuse, and the client library does not overcome it by itself.
    #[error("kafka source: {0}")]
    Brokers(String),
}

/// How far a source has come in one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The next offset to read; everything before it is durable.
    pub next: i64,
    /// The topic's end when it was looked at last.
    pub end: i64,
}

impl Progress {
    /// Records that wait.
    #[must_use]
    pub fn lag(&self) -> u64 {
        u64::try_from(self.end - self.next).unwrap_or(0)
    }
}

/// What a source has done since it started. Counts only grow: throughput is their difference over time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceStatus {
    /// Records read and made durable, in whatever form.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Those that became events in the log.
    pub events: u64,
    /// Those that became dead letters.
    pub dead_letters: u64,
    /// Those without a value (tombstones), which say nothing.
    pub tombstones: u64,
    /// Batches that had to be tried again because the log or the dead-letter topic could not be reached.
    pub retries: u64,
    /// Per topic and partition that this member has.
    pub partitions: BTreeMap<(String, i32), Progress>,
    /// Why it stopped.
    pub stopped: Option<SourceError>,
}

/// A running source. Dropping it stops it after the batch at hand.
#[derive(Debug)]
pub struct Source {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// What the group gave us could not be taken.
    join_again: AtomicBool,
    status: Mutex<SourceStatus>,
}

impl Shared {
    fn status(&self) -> MutexGuard<'_, SourceStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// Starts to read. Call it within a runtime: what is read goes through `intake` on it.
    ///
    /// # Errors
    /// Settings; whatever happens later is in [`Source::status`].
    pub fn start<L: Log>(
        connection: &Connection,
        options: SourceOptions,
        intake: Intake<L>,
        clock: Clock,
    ) -> Result<Self, SourceError> {
        options.check()?;
        let refused = |reason: String| SourceError::Connection(ConnectionError::Client(reason));
        let runtime = tokio::runtime::Handle::try_current().map_err(|error| refused(error.to_string()))?;
        let shared = Arc::new(Shared::default());
        let context = Group {
            start: options.start,
            shared: Arc::clone(&shared),
        };
        let config = group_config(connection, &options)?;
        let consumer =
            BaseConsumer::from_config_and_context(&config, context).map_err(|error| refused(error.to_string()))?;
        let topics: Vec<&str> = options.topics.iter().map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| refused(error.to_string()))?;
        let dead_letters = Producer::new(connection, dead_letter_options(), |_, _| {})?;
        let worker = Reader {
            consumer,
            dead_letters,
            intake,
            clock,
            options,
            runtime,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name("kafka-source".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What it has done so far.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        self.shared.status().clone()
    }

    /// Stops after the batch at hand and leaves the group.
    pub async fn stop(mut self) -> SourceStatus {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.status()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// Commits other offsets to the group of a source that is stopped: the operator's answer to [`SourceError::Gap`].
///
/// # Errors
/// While a member of the group is running, or when the brokers do not answer.
pub async fn accept_gap(
    connection: &Connection,
    options: &SourceOptions,
    positions: BTreeMap<(String, i32), i64>,
) -> Result<(), SourceError> {
    let config = group_config(connection, options)?;
    let failed = |error: KafkaError| SourceError::Brokers(error.to_string());
    let commit = move || {
        let consumer = BaseConsumer::from_config_and_context(&config, crate::topics::Quiet).map_err(failed)?;
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in &positions {
            list.add_partition_offset(topic, *partition, Raw::Offset(*offset))
                .map_err(failed)?;
        }
        consumer.commit(&list, CommitMode::Sync).map_err(failed)
    };
    tokio::task::spawn_blocking(commit)
        .await
        .map_err(|error| SourceError::Brokers(error.to_string()))?
}

fn group_config(connection: &Connection, options: &SourceOptions) -> Result<rdkafka::ClientConfig, ConnectionError> {
    let mut config = connection.client()?;
    for (key, value) in [
        ("group.id", options.group.clone()),
        ("enable.auto.commit", "false".to_owned()),
        ("enable.auto.offset.store", "false".to_owned()),
        ("auto.offset.reset", "error".to_owned()),
        // Somebody else's producers may be transactional.
        ("isolation.level", "read_committed".to_owned()),
        ("partition.assignment.strategy", "range".to_owned()),
        ("session.timeout.ms", options.session_timeout.as_millis().to_string()),
        (
            "heartbeat.interval.ms",
            (options.session_timeout / 3).as_millis().to_string(),
        ),
        ("fetch.wait.max.ms", options.fetch_wait.as_millis().to_string()),
        ("fetch.queue.backoff.ms", "10".to_owned()),
        ("queued.max.messages.kbytes", "16384".to_owned()),
    ] {
        let _ = config.set(key, value);
    }
    Ok(config)
}

fn dead_letter_options() -> ProducerOptions {
    ProducerOptions {
        compression: "lz4",
        linger: Duration::from_millis(5),
        message_bytes: 1_000_000,
        queue_bytes: 32 << 20,
        timeout: Duration::from_secs(10),
        gapless: false,
    }
}

/// Decides where partitions begin.
struct Group {
    start: Start,
    shared: Arc<Shared>,
}

type Places = BTreeMap<(String, i32), i64>;

/// The first or the next offset of each partition of a list.
fn offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
    which: Raw,
) -> Result<Places, KafkaError> {
    let mut wanted = list.clone();
    wanted.set_all_offsets(which)?;
    let mut places = Places::new();
    for element in consumer.offsets_for_times(wanted, PATIENCE)?.elements() {
        element.error()?;
        if let Raw::Offset(offset) = element.offset() {
            let _ = places.insert((element.topic().to_owned(), element.partition()), offset);
        }
    }
    Ok(places)
}

impl Group {
    fn gained(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), KafkaError> {
        if list.count() == 0 {
            return consumer.assign(list);
        }
        let (firsts, ends) = (
            offsets(consumer, list, Raw::Beginning)?,
            offsets(consumer, list, Raw::End)?,
        );
        let (mut begin, mut new) = (TopicPartitionList::new(), TopicPartitionList::new());
        let mut partitions = BTreeMap::new();
        for element in consumer.committed_offsets(list.clone(), PATIENCE)?.elements() {
            element.error()?;
            let (topic, partition) = (element.topic(), element.partition());
            let place = (topic.to_owned(), partition);
            let first = firsts.get(&place).copied().unwrap_or(0);
            let end = ends.get(&place).copied().unwrap_or(first);
            let next = match (element.offset(), self.start) {
                (Raw::Offset(next), _) => next,
                (_, start) => {
                    let next = if start == Start::Earliest { first } else { end };
                    new.add_partition_offset(topic, partition, Raw::Offset(next))?;
                    next
                }
            };
            if next < first || next > end {
                self.shared.status().stopped = Some(SourceError::Gap {
                    topic: place.0,
                    partition,
                    from: next,
                    first,
                    end,
                });
                return consumer.unassign();
            }
            begin.add_partition_offset(topic, partition, Raw::Offset(next))?;
            let _ = partitions.insert(place, Progress { next, end });
        }
        consumer.assign(&begin)?;
        if new.count() > 0 {
            // From here on a restart begins in the same place, whatever was written meanwhile.
            consumer.commit(&new, CommitMode::Sync)?;
        }
        self.shared.status().partitions = partitions;
        Ok(())
    }
}

impl ClientContext for Group {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka source");
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let done = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.gained(consumer, list),
            // Nothing is at hand here: a batch is read, made durable and committed between two polls.
            _ => {
                self.shared.status().partitions.clear();
                consumer.unassign()
            }
        };
        if let Err(error) = done {
            // Beginning in a wrong place would lose records: rather begin nowhere, and join again.
            tracing::warn!(%error, "partitions were given to us and cannot be taken yet");
            let _ = consumer.unassign();
            self.shared.join_again.store(true, Ordering::Release);
        }
    }
}

/// What the thread works with.
struct Reader<L: Log> {
    consumer: BaseConsumer<Group>,
    dead_letters: Producer,
    intake: Intake<L>,
    clock: Clock,
    options: SourceOptions,
    runtime: tokio::runtime::Handle,
    shared: Arc<Shared>,
}

impl<L: Log> Reader<L> {
    fn run(self) {
        let mut looked = Timestamp(0);
        while !self.shared.stop.load(Ordering::Acquire) && self.shared.status().stopped.is_none() {
            let done = self
                .join()
                .and_then(|()| self.batch())
                .and_then(|batch| self.take(&batch));
            if let Err(error) = done {
                tracing::error!(source = self.options.name, "{error}");
                self.shared.status().stopped = Some(error);
                break;
            }
            let now = (self.clock)();
            if now.ms_since(looked) >= LAG_EVERY_MS {
                self.look();
                looked = now;
            }
        }
        self.consumer.unsubscribe();
        let _ = self.consumer.poll(NAP);
    }

    /// Leaves the group and joins it, where that is needed.
    fn join(&self) -> Result<(), SourceError> {
        if self.shared.join_again.swap(false, Ordering::AcqRel) {
            self.consumer.unsubscribe();
            std::thread::sleep(RETRY);
            let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
            let joined = self.consumer.subscribe(&topics);
            joined.map_err(|error| SourceError::Brokers(error.to_string()))?;
        }
        Ok(())
    }

    /// The records that are there now.
    fn batch(&self) -> Result<Vec<Incoming>, SourceError> {
        let mut batch = Vec::new();
        let mut nap = NAP;
        while batch.len() < self.options.batch_records {
            match self.consumer.poll(nap) {
                None => break,
                Some(Ok(message)) => batch.push(Incoming::copy(&message)),
                Some(Err(error)) => self.judge(&error)?,
            }
            nap = Duration::ZERO;
        }
        Ok(batch)
    }

    fn judge(&self, error: &KafkaError) -> Result<(), SourceError> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => match self.gap() {
                Some(gap) => Err(gap),
                None => Err(SourceError::Brokers(error.to_string())),
            },
            Some(
                RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::Fatal,
            ) => Err(SourceError::Brokers(error.to_string())),
            _ => {
                tracing::debug!(%error, source = self.options.name, "kafka source");
                Ok(())
            }
        }
    }

    /// The first partition whose next offset its topic does not hold.
    fn gap(&self) -> Option<SourceError> {
        let places = self.shared.status().partitions.clone();
        places.into_iter().find_map(|((topic, partition), progress)| {
            let (first, end) = self.consumer.fetch_watermarks(&topic, partition, PATIENCE).ok()?;
            let from = progress.next;
            (from < first || from > end).then_some(SourceError::Gap {
                topic,
                partition,
                from,
                first,
                end,
            })
        })
    }

    /// Makes a batch durable, then acknowledges it.
    fn take(&self, batch: &[Incoming]) -> Result<(), SourceError> {
        if batch.is_empty() {
            return Ok(());
        }
        let receipt = Receipt {
            workspace: self.options.workspace.clone(),
            received_at: (self.clock)(),
            sent_at: None,
            user_agent: None,
            oldest: None,
        };
        let (mut events, mut letters, mut tombstones) = (Vec::new(), Vec::new(), 0);
        for record in batch {
            if record.value.is_none() {
                tombstones += 1;
                continue;
            }
            let read = mapping::read(
                &self.options.format,
                &self.options.name,
                record,
                &receipt,
                &self.options.limits,
            );
            match read {
                Ok(event) => events.push(event),
                Err(invalid) => letters.push((record, invalid)),
            }
        }
        let (taken, dead) = (events.len() as u64, letters.len() as u64);
        if !self.persevere(&events, &letters) {
            // Stopped before it was durable: the group's commit still stands before this batch.
            return Ok(());
        }
        let mut status = self.shared.status();
        status.records += batch.len() as u64;
        status.bytes += batch
            .iter()
            .map(|record| record.value.as_ref().map_or(0, Vec::len) as u64)
            .sum::<u64>();
        status.events += taken;
        status.dead_letters += dead;
        status.tombstones += tombstones;
        drop(status);
        self.acknowledge(batch)
    }

    /// Tries until everything is durable; false if the source is to stop before.
    fn persevere(&self, events: &[Event], letters: &[(&Incoming, Invalid)]) -> bool {
        loop {
            match self.runtime.block_on(self.keep(events, letters)) {
                Ok(()) => return true,
                Err(reason) => tracing::warn!(source = self.options.name, reason, "waiting"),
            }
            self.shared.status().retries += 1;
            if self.shared.stop.load(Ordering::Acquire) {
                return false;
            }
            std::thread::sleep(RETRY);
        }
    }

    async fn keep(&self, events: &[Event], letters: &[(&Incoming, Invalid)]) -> Result<(), String> {
        if !letters.is_empty() {
            let outgoing = letters
                .iter()
                .map(|(record, invalid)| self.letter(record, invalid))
                .collect();
            match self.dead_letters.send(&self.options.dead_letter_topic, outgoing).await {
                // One that is too large for the topic is kept without its value: where it stands is in its headers.
                Err(SendError::TooLarge { .. }) => {
                    let outgoing = letters.iter().map(|(record, invalid)| Outgoing {
                        payload: None,
                        ..self.letter(record, invalid)
                    });
                    let sent = self
                        .dead_letters
                        .send(&self.options.dead_letter_topic, outgoing.collect());
                    let _ = sent.await.map_err(|error| format!("{error:?}"))?;
                }
                sent => {
                    let _ = sent.map_err(|error| format!("{error:?}"))?;
                }
            }
        }
        let events = events.iter().cloned().map(Ok).collect();
        let accepted = self.intake.accept(events).await;
        accepted.map(drop).map_err(|error| error.to_string())
    }

    /// A record as a dead letter: what it was, and what is wrong with it.
    fn letter(&self, record: &Incoming, invalid: &Invalid) -> Outgoing {
        let numbers = [
            record.partition.to_string(),
            record.offset.to_string(),
            record.at.unwrap_or(-1).to_string(),
        ];
        let [partition, offset, at] = &numbers;
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header {
                key,
                value: value.as_deref(),
            });
        }
        for (key, value) in [
            ("dlq.source", self.options.name.as_str()),
            ("dlq.topic", &record.topic),
            ("dlq.partition", partition),
            ("dlq.offset", offset),
            ("dlq.timestamp", at),
            ("dlq.reason", invalid.code.label()),
            ("dlq.field", invalid.field),
            ("dlq.hint", invalid.code.hint()),
        ] {
            headers = headers.insert(Header {
                key,
                value: Some(value.as_bytes()),
            });
        }
        Outgoing {
            partition: None,
            key: record.key.clone().map(Bytes::from),
            payload: record.value.clone().map(Bytes::from),
            headers: Some(headers),
        }
    }

    fn acknowledge(&self, batch: &[Incoming]) -> Result<(), SourceError> {
        let mut next: BTreeMap<(&str, i32), i64> = BTreeMap::new();
        for record in batch {
            let _ = next.insert((&record.topic, record.partition), record.offset + 1);
        }
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in &next {
            list.add_partition_offset(topic, *partition, Raw::Offset(*offset))
                .map_err(|error| SourceError::Brokers(error.to_string()))?;
        }
        // A commit that fails loses nothing: the batch will be read again, and its ids are known by then.
        if let Err(error) = self.consumer.commit(&list, CommitMode::Sync) {
            tracing::warn!(source = self.options.name, %error, "the position was not committed");
        }
        let mut status = self.shared.status();
        for ((topic, partition), offset) in next {
            if let Some(progress) = status.partitions.get_mut(&(topic.to_owned(), partition)) {
                progress.next = offset;
                progress.end = progress.end.max(offset);
            }
        }
        Ok(())
    }

    /// Looks where the topics end.
    fn look(&self) {
        let places: Vec<(String, i32)> = self.shared.status().partitions.keys().cloned().collect();
        let mut list = TopicPartitionList::new();
        for (topic, partition) in &places {
            let _ = list.add_partition(topic, *partition);
        }
        if places.is_empty() {
            return;
        }
        match offsets(&self.consumer, &list, Raw::End) {
            Ok(ends) => {
                let mut status = self.shared.status();
                for (place, end) in ends {
                    if let Some(progress) = status.partitions.get_mut(&place) {
                        progress.end = end.max(progress.next);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, source = self.options.name, "lag is not known"),
        }
    }
}
