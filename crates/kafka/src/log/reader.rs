//! A reader of the log: a thread of its own polls a consumer that is assigned exactly the wanted partitions at exactly the
//! wanted offsets, and hands runs of records over. Nothing is committed, and no offset is ever reset: one that is not in
//! the topic stops the reader with `LOG_GAP` until it is there or somebody starts another reader elsewhere.

use super::LogOptions;
use super::watermarks::Watermarks;
use crate::config::Connection;
use crate::topics::Quiet;
use bytes::{Bytes, BytesMut};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset as Raw;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use vigie_event::{Offset, Partition, Position};
use vigie_ingestion::log::{Entry, LogError, LogReader};

/// Records and bytes handed over at once.
const RUN_RECORDS: usize = 1024;
const RUN_BYTES: usize = 512 << 10;
/// Runs that wait to be taken.
const RUNS: usize = 4;
/// Longest sleep of the thread: a bound on how late it notices that nobody reads any more.
const NAP: Duration = Duration::from_millis(100);
/// Time between two looks whether an offset that was not in the topic is there now.
const LOOK: Duration = Duration::from_millis(500);

/// A reader of a [`super::KafkaLog`].
#[derive(Debug)]
pub struct KafkaReader {
    runs: mpsc::Receiver<Vec<Entry>>,
    /// Why the thread stands still, while it does.
    trouble: watch::Receiver<Option<LogError>>,
    taken: VecDeque<Entry>,
}

impl KafkaReader {
    pub(super) fn start(
        connection: &Connection,
        options: &LogOptions,
        from: BTreeMap<Partition, Offset>,
        watermarks: Arc<Watermarks>,
    ) -> Result<Self, LogError> {
        let unavailable = |reason: String| LogError::Unavailable { reason };
        let (sender, runs) = mpsc::channel(RUNS);
        let (trouble, seen) = watch::channel(None);
        let reader = Self {
            runs,
            trouble: seen,
            taken: VecDeque::new(),
        };
        let mut config = connection.client().map_err(|error| unavailable(error.to_string()))?;
        for (key, value) in [
            ("group.id", options.group.clone()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("auto.offset.reset", "error".to_owned()),
            ("check.crcs", "true".to_owned()),
            ("fetch.wait.max.ms", options.fetch_wait.as_millis().to_string()),
            // The default of a second stalls a reader that is faster than the brokers.
            ("fetch.queue.backoff.ms", "10".to_owned()),
            (
                "queued.max.messages.kbytes",
                (options.fetch_ahead_bytes / 1024).to_string(),
            ),
            ("fetch.message.max.bytes", options.message_bytes.to_string()),
            ("fetch.error.backoff.ms", "100".to_owned()),
        ] {
            let _ = config.set(key, value);
        }
        let consumer =
            BaseConsumer::from_config_and_context(&config, Quiet).map_err(|error| unavailable(error.to_string()))?;
        let thread = Thread {
            consumer,
            watermarks,
            wanted: from,
            sender,
            trouble,
        };
        thread.assign().map_err(|error| unavailable(error.to_string()))?;
        let _ = std::thread::Builder::new()
            .name("kafka-reader".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| unavailable(error.to_string()))?;
        Ok(reader)
    }

    /// Takes what was handed over, without waiting.
    fn take(&mut self, max_records: usize, max_bytes: usize) -> Vec<Entry> {
        let mut answer: Vec<Entry> = Vec::new();
        let mut bytes = 0usize;
        loop {
            if self.taken.is_empty() {
                match self.runs.try_recv() {
                    Ok(run) => self.taken.extend(run),
                    Err(_) => return answer,
                }
            }
            while let Some(entry) = self.taken.pop_front() {
                let size = bytes.saturating_add(entry.payload.len());
                if answer.len() >= max_records || (size > max_bytes && !answer.is_empty()) {
                    self.taken.push_front(entry);
                    return answer;
                }
                bytes = size;
                answer.push(entry);
            }
        }
    }
}

impl LogReader for KafkaReader {
    async fn next(&mut self, max_records: usize, max_bytes: usize, wait: Duration) -> Result<Vec<Entry>, LogError> {
        let max_records = max_records.max(1);
        if self.taken.is_empty() {
            let timeout = tokio::time::sleep(wait);
            tokio::select! {
                biased;
                run = self.runs.recv() => match run {
                    Some(run) => self.taken.extend(run),
                    None => return Err(LogError::Unavailable { reason: "the reader's thread has ended".to_owned() }),
                },
                // An error here means that the thread has ended, which the next call finds out.
                trouble = self.trouble.wait_for(Option::is_some) => {
                    return match trouble.map(|trouble| trouble.clone()) {
                        Ok(Some(error)) => Err(error),
                        _ => Ok(Vec::new()),
                    };
                }
                () = timeout => return Ok(Vec::new()),
            }
        }
        Ok(self.take(max_records, max_bytes))
    }
}

/// What the thread works with.
struct Thread {
    consumer: BaseConsumer<Quiet>,
    watermarks: Arc<Watermarks>,
    /// The next offset of each partition.
    wanted: BTreeMap<Partition, Offset>,
    sender: mpsc::Sender<Vec<Entry>>,
    trouble: watch::Sender<Option<LogError>>,
}

/// Records that lie one behind the other in one buffer.
#[derive(Default)]
struct Run {
    places: Vec<(Position, usize)>,
    bytes: BytesMut,
}

impl Run {
    fn is_full(&self) -> bool {
        self.places.len() >= RUN_RECORDS || self.bytes.len() >= RUN_BYTES
    }

    fn entries(self) -> Vec<Entry> {
        let mut bytes: Bytes = self.bytes.freeze();
        let entry = |(position, length): (Position, usize)| Entry {
            position,
            payload: bytes.split_to(length),
        };
        self.places.into_iter().map(entry).collect()
    }
}

impl Thread {
    fn assign(&self) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(self.wanted.len());
        for (partition, offset) in &self.wanted {
            let offset = Raw::Offset(i64::try_from(offset.0).unwrap_or(i64::MAX));
            list.add_partition_offset(self.watermarks.topic(), i32::from(partition.0), offset)?;
        }
        self.consumer.assign(&list)
    }

    fn run(mut self) {
        while !self.sender.is_closed() {
            let mut run = Run::default();
            let mut trouble = None;
            let mut nap = NAP;
            while !run.is_full() {
                match self.consumer.poll(nap) {
                    None => break,
                    Some(Ok(message)) => {
                        let (partition, offset) = (message.partition(), message.offset());
                        match next(&mut self.wanted, partition, offset) {
                            Next::Fits(position) => {
                                self.watermarks.durable(partition, offset);
                                let payload = message.payload().unwrap_or_default();
                                run.bytes.extend_from_slice(payload);
                                run.places.push((position, payload.len()));
                            }
                            Next::Known => {}
                            Next::Gap(error) => {
                                trouble = Some(error);
                                break;
                            }
                        }
                    }
                    Some(Err(error)) => {
                        trouble = self.judge(&error);
                        if trouble.is_some() {
                            break;
                        }
                    }
                }
                nap = Duration::ZERO;
            }
            // What was read before the trouble comes before it.
            if !run.places.is_empty() {
                let _ = self.trouble.send_if_modified(|trouble| trouble.take().is_some());
                if self.sender.blocking_send(run.entries()).is_err() {
                    break;
                }
            }
            if let Some(error) = trouble {
                self.stand(error);
            }
        }
    }

    /// What an error of the consumer means; `None` for one that the client library overcomes by itself.
    fn judge(&self, error: &KafkaError) -> Option<LogError> {
        let code = error.rdkafka_error_code()?;
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                Some(self.gap().unwrap_or_else(|| LogError::Unavailable {
                    reason: error.to_string(),
                }))
            }
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::Fatal => Some(LogError::Unavailable {
                reason: error.to_string(),
            }),
            _ => {
                tracing::debug!(%error, "kafka reader");
                None
            }
        }
    }

    /// The first partition whose next offset the topic does not have.
    fn gap(&self) -> Option<LogError> {
        match self.watermarks.refresh_now(&self.consumer) {
            Ok(()) => self.watermarks.check(&self.wanted).err(),
            Err(error) => Some(error),
        }
    }

    /// Stands still and says why, until the cause is gone; then goes on from where it stood.
    fn stand(&self, error: LogError) {
        tracing::warn!(tag = error.tag(), "{error}");
        let hole = matches!(&error, LogError::Gap { first, end, .. } if first == end);
        let _ = self.trouble.send_replace(Some(error));
        while !self.sender.is_closed() {
            std::thread::sleep(LOOK);
            if hole {
                // What is missing in the middle of a partition does not come back.
                continue;
            }
            // Keeps the client library served meanwhile; a record is fetched again after the assignment below.
            let _ = self.consumer.poll(Duration::ZERO);
            if let Some(error) = self.gap() {
                let _ = self.trouble.send_replace(Some(error));
                continue;
            }
            if self.assign().is_ok() {
                let _ = self.trouble.send_replace(None);
                return;
            }
        }
    }
}

/// How a record stands to the one that is wanted next.
enum Next {
    Fits(Position),
    /// Delivered before, by an assignment that was replaced.
    Known,
    Gap(LogError),
}

fn next(wanted: &mut BTreeMap<Partition, Offset>, partition: i32, offset: i64) -> Next {
    let (Ok(partition), Ok(offset)) = (u16::try_from(partition), u64::try_from(offset)) else {
        return Next::Known;
    };
    let (partition, offset) = (Partition(partition), Offset(offset));
    let Some(next) = wanted.get_mut(&partition).filter(|next| offset >= **next) else {
        return Next::Known;
    };
    if offset > *next {
        return Next::Gap(LogError::Gap {
            partition,
            from: *next,
            first: offset,
            // Known is only that it goes on there.
            end: offset,
        });
    }
    *next = offset.next();
    Next::Fits(Position { partition, offset })
}
