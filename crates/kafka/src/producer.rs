//! One producer for the log and the outputs: idempotent, `acks=all`, one wait per call however many records it holds.
//!
//! A record that was taken stays queued until the broker has answered for it: nothing times out in the queue, so a
//! partition never receives the later of two records without the earlier one. Memory is bounded by refusing calls, not
//! by dropping records. Only the end of the process, or an error that librdkafka calls fatal, ends that wait.

use crate::config::{Connection, ConnectionError};
use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use vigie_ingestion::log::Health;

/// Room in a request beside the record itself: headers of the request, of the batch and of the record.
const OVERHEAD: usize = 4 << 10;
/// Bytes that a record costs the queue beside its own.
const RECORD_COST: usize = 200;

/// One record to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// The partition, or by the hash of the key.
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Bytes>,
    /// `None` is a tombstone.
    pub(crate) payload: Option<Bytes>,
    pub(crate) headers: Option<OwnedHeaders>,
}

impl Outgoing {
    fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.as_ref().map_or(0, Bytes::len) + RECORD_COST
    }
}

/// Why a call was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The queue is full; nothing was taken.
    Overloaded,
    /// One record, or the call as a whole, is larger than will ever be accepted; nothing was taken.
    TooLarge { bytes: u64, limit: u64 },
    /// Nothing was taken.
    Refused(String),
    /// Taken, and not answered for in time, or answered for in part.
    Unknown(String),
    /// The producer has ended.
    Fatal(String),
}

/// What a producer is made of.
#[derive(Debug, Clone)]
pub(crate) struct ProducerOptions {
    pub(crate) compression: &'static str,
    pub(crate) linger: Duration,
    /// Largest request, and largest record with room for its wrapping.
    pub(crate) message_bytes: usize,
    /// Bound of what is queued.
    pub(crate) queue_bytes: usize,
    /// How long a call waits for its answer.
    pub(crate) timeout: Duration,
    /// A record that fails for good ends the producer, so that none of its partition overtakes it.
    pub(crate) gapless: bool,
}

type Acknowledged = Box<dyn Fn(i32, i64) + Send + Sync>;

/// What the delivery reports say.
struct Reports {
    in_flight: AtomicUsize,
    /// A call gave up waiting, and nothing was acknowledged since.
    overdue: AtomicBool,
    acknowledged: Acknowledged,
}

/// One call, waiting for the reports of its records.
struct Call {
    offsets: Vec<AtomicI64>,
    left: AtomicUsize,
    failure: Mutex<Option<KafkaError>>,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

/// One record of a call.
struct Slot {
    call: Arc<Call>,
    index: usize,
    bytes: usize,
}

impl Call {
    fn fail(&self, error: KafkaError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = failure.get_or_insert(error);
    }

    fn leave(&self, count: usize) {
        if self.left.fetch_sub(count, Ordering::AcqRel) == count {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(done) = done.take() {
                // Nobody waits for it any more when the call gave up.
                let _ = done.send(());
            }
        }
    }
}

struct Context(Arc<Reports>);

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Slot>;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: Box<Slot>) {
        match result {
            Ok(message) => {
                self.0.overdue.store(false, Ordering::Release);
                (self.0.acknowledged)(message.partition(), message.offset());
                if let Some(offset) = slot.call.offsets.get(slot.index) {
                    offset.store(message.offset(), Ordering::Release);
                }
            }
            Err((error, _)) => slot.call.fail(error.clone()),
        }
        let _ = self.0.in_flight.fetch_sub(slot.bytes, Ordering::AcqRel);
        slot.call.leave(1);
    }
}

/// The producer.
pub(crate) struct Producer {
    inner: ThreadedProducer<Context>,
    reports: Arc<Reports>,
    options: ProducerOptions,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// A producer; `acknowledged` hears of every record that is durable, before its caller does.
    pub(crate) fn new(
        connection: &Connection,
        options: ProducerOptions,
        acknowledged: impl Fn(i32, i64) + Send + Sync + 'static,
    ) -> Result<Self, ConnectionError> {
        let mut config = connection.client()?;
        for (key, value) in [
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".to_owned()),
            ("enable.gapless.guarantee", options.gapless.to_string()),
            ("message.timeout.ms", "0".to_owned()),
            ("linger.ms", options.linger.as_millis().to_string()),
            ("compression.type", options.compression.to_owned()),
            ("message.max.bytes", options.message_bytes.to_string()),
            // The bound is ours: see `queue_bytes`.
            ("queue.buffering.max.messages", "0".to_owned()),
            ("queue.buffering.max.kbytes", i32::MAX.to_string()),
            // As Kafka's Java client and `vigie_event::partition_for` do it.
            ("partitioner", "murmur2_random".to_owned()),
        ] {
            let _ = config.set(key, value);
        }
        let reports = Arc::new(Reports {
            in_flight: AtomicUsize::new(0),
            overdue: AtomicBool::new(false),
            acknowledged: Box::new(acknowledged),
        });
        let inner = ThreadedProducer::from_config_and_context(&config, Context(Arc::clone(&reports)))
            .map_err(|error| ConnectionError::Client(error.to_string()))?;
        Ok(Self {
            inner,
            reports,
            options,
        })
    }

    /// Sends all records to one topic and waits until the broker has answered for each; the offsets stand in their
    /// order. Records of one partition keep their order.
    pub(crate) async fn send(&self, topic: &str, records: Vec<Outgoing>) -> Result<Vec<i64>, SendError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let (call, done) = self.enqueue(topic, records)?;
        if tokio::time::timeout(self.options.timeout, done).await.is_err() {
            self.reports.overdue.store(true, Ordering::Release);
            let seconds = self.options.timeout.as_secs_f32();
            return Err(self.ended().unwrap_or_else(|| {
                SendError::Unknown(format!("no answer from the brokers within {seconds} s; still queued"))
            }));
        }
        let failure = call.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(error) = failure {
            return Err(self.ended().unwrap_or_else(|| SendError::Unknown(error.to_string())));
        }
        let offsets: Vec<i64> = call
            .offsets
            .iter()
            .map(|offset| offset.load(Ordering::Acquire))
            .collect();
        if offsets.iter().any(|offset| *offset < 0) {
            // A repeated request that the broker remembers only vaguely: written, but it does not say where.
            return Err(SendError::Unknown(
                "written, but the broker did not say where".to_owned(),
            ));
        }
        Ok(offsets)
    }

    fn enqueue(&self, topic: &str, records: Vec<Outgoing>) -> Result<(Arc<Call>, oneshot::Receiver<()>), SendError> {
        if let Some(ended) = self.ended() {
            return Err(ended);
        }
        let largest = records.iter().map(Outgoing::bytes).max().unwrap_or(0);
        let limit = self.options.message_bytes.saturating_sub(OVERHEAD);
        if largest > limit {
            return Err(SendError::TooLarge {
                bytes: largest as u64,
                limit: limit as u64,
            });
        }
        let total: usize = records.iter().map(Outgoing::bytes).sum();
        let limit = self.options.queue_bytes;
        if total > limit {
            return Err(SendError::TooLarge {
                bytes: total as u64,
                limit: limit as u64,
            });
        }
        if self.reports.in_flight.fetch_add(total, Ordering::AcqRel) + total > limit {
            let _ = self.reports.in_flight.fetch_sub(total, Ordering::AcqRel);
            return Err(SendError::Overloaded);
        }
        let count = records.len();
        let (sender, done) = oneshot::channel();
        let call = Arc::new(Call {
            offsets: (0..count).map(|_| AtomicI64::new(-1)).collect(),
            left: AtomicUsize::new(count),
            failure: Mutex::new(None),
            done: Mutex::new(Some(sender)),
        });
        let mut left = total;
        for (index, record) in records.into_iter().enumerate() {
            let bytes = record.bytes();
            let slot = Box::new(Slot {
                call: Arc::clone(&call),
                index,
                bytes,
            });
            let mut base = BaseRecord::<[u8], [u8], Box<Slot>>::with_opaque_to(topic, slot);
            base.partition = record.partition;
            base.key = record.key.as_deref();
            base.payload = record.payload.as_deref();
            base.headers = record.headers;
            if let Err((error, _)) = self.inner.send(base) {
                let _ = self.reports.in_flight.fetch_sub(left, Ordering::AcqRel);
                if index == 0 {
                    return Err(self.ended().unwrap_or_else(|| SendError::Refused(error.to_string())));
                }
                call.fail(error);
                call.leave(count - index);
                break;
            }
            left -= bytes;
        }
        Ok((call, done))
    }

    /// The error that ended the producer.
    fn ended(&self) -> Option<SendError> {
        let (code, reason) = self.inner.client().fatal_error()?;
        Some(SendError::Fatal(fatal(code, &reason)))
    }

    /// Whether a call could be confirmed now, as far as the latest ones tell.
    pub(crate) fn health(&self) -> Health {
        if let Some((code, reason)) = self.inner.client().fatal_error() {
            return Health::Poisoned(fatal(code, &reason));
        }
        if self.reports.overdue.load(Ordering::Acquire) {
            return Health::Degraded("records wait for an answer from the brokers".to_owned());
        }
        Health::Ok
    }
}

fn fatal(code: RDKafkaErrorCode, reason: &str) -> String {
    format!("the producer has ended ({code:?}): {reason}; start the process again")
}
