//! The first and the next offset of every partition, as far as this process knows: what it appended and read itself at
//! once, what others did with a delay of at most one refresh. The refresh is also the probe of the brokers' health.

use super::LogOptions;
use crate::config::{Connection, ConnectionError};
use crate::topics::Quiet;
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset as Raw;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use vigie_event::{Offset, Partition};
use vigie_ingestion::log::{Health, LogError};

/// How long the brokers may take for one question.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of the partitions.
#[derive(Debug)]
pub(crate) struct Watermarks {
    topic: String,
    starts: Vec<AtomicU64>,
    ends: Vec<AtomicU64>,
    /// What the latest refresh ran into; before the first one there is no value.
    probe: watch::Sender<Option<Result<(), LogError>>>,
    /// Dropped with the last handle, which ends the thread.
    _alive: Mutex<Sender<()>>,
    client: Arc<Client>,
}

#[derive(Debug)]
struct Client {
    connection: Connection,
    topic: String,
    partitions: u16,
}

impl Watermarks {
    /// Starts to look.
    pub(crate) fn open(connection: &Connection, options: &LogOptions) -> Result<Arc<Self>, ConnectionError> {
        let client = Arc::new(Client {
            connection: connection.clone(),
            topic: options.topic.clone(),
            partitions: options.partitions,
        });
        let consumer = client.consumer()?;
        let (alive, ended) = channel();
        let zeros = || (0..options.partitions).map(|_| AtomicU64::new(0)).collect();
        let watermarks = Arc::new(Self {
            topic: options.topic.clone(),
            starts: zeros(),
            ends: zeros(),
            probe: watch::channel(None).0,
            _alive: Mutex::new(alive),
            client,
        });
        let shared = Arc::downgrade(&watermarks);
        let every = options.refresh;
        let look = move || {
            follow(&consumer, &ended, every, |consumer| {
                let Some(watermarks) = shared.upgrade() else {
                    return false;
                };
                let found = watermarks.client.ask(consumer).map(|found| watermarks.learn(&found));
                let _ = watermarks.probe.send_replace(Some(found));
                true
            });
        };
        let _ = std::thread::Builder::new()
            .name("kafka-watermarks".to_owned())
            .spawn(look)
            .map_err(|error| ConnectionError::Client(error.to_string()))?;
        Ok(watermarks)
    }

    /// Waits for the first look.
    pub(crate) async fn refreshed(&self, patience: Duration) -> Result<(), LogError> {
        let mut probe = self.probe.subscribe();
        // A refusal may be the brokers still starting: what counts is how it stands when the patience ends.
        let good = probe.wait_for(|probe| matches!(probe, Some(Ok(())) | Some(Err(LogError::Layout { .. }))));
        let waited = tokio::time::timeout(patience, good).await.is_ok();
        match self.probe.borrow().clone() {
            Some(outcome) if waited || outcome.is_err() => outcome,
            _ => Err(LogError::Unavailable {
                reason: format!("brokers {} do not answer", self.client.connection.brokers.join(",")),
            }),
        }
    }

    /// Asks now, and waits for the answer on this thread. Only where what is known would be an error.
    pub(crate) fn refresh_now(&self, consumer: &BaseConsumer<Quiet>) -> Result<(), LogError> {
        self.client.ask(consumer).map(|found| self.learn(&found))
    }

    /// A client to ask with.
    pub(crate) fn consumer(&self) -> Result<BaseConsumer<Quiet>, LogError> {
        self.client.consumer().map_err(|error| LogError::Unavailable {
            reason: error.to_string(),
        })
    }

    /// A record is known to be durable.
    pub(crate) fn durable(&self, partition: i32, offset: i64) {
        let end = usize::try_from(partition).ok().and_then(|index| self.ends.get(index));
        if let (Some(end), Ok(offset)) = (end, u64::try_from(offset)) {
            let _ = end.fetch_max(offset + 1, Ordering::AcqRel);
        }
    }

    fn learn(&self, found: &[(u64, u64)]) {
        for ((first, next), (start, end)) in found.iter().zip(self.starts.iter().zip(&self.ends)) {
            start.store(*first, Ordering::Release);
            // Never back: a new leader may for a moment not know yet that all copies have a record.
            let _ = end.fetch_max(*next, Ordering::AcqRel);
        }
    }

    pub(crate) fn starts(&self) -> Vec<Offset> {
        self.starts
            .iter()
            .map(|at| Offset(at.load(Ordering::Acquire)))
            .collect()
    }

    pub(crate) fn ends(&self) -> Vec<Offset> {
        self.ends.iter().map(|at| Offset(at.load(Ordering::Acquire))).collect()
    }

    /// Whether a reader may start there, as far as is known.
    pub(crate) fn check(&self, from: &BTreeMap<Partition, Offset>) -> Result<(), LogError> {
        let (starts, ends) = (self.starts(), self.ends());
        for (&partition, &from) in from {
            let index = usize::from(partition.0);
            let (Some(&first), Some(&end)) = (starts.get(index), ends.get(index)) else {
                return Err(LogError::NoSuchPartition {
                    partition,
                    partitions: self.client.partitions,
                });
            };
            if from < first || from > end {
                return Err(LogError::Gap {
                    partition,
                    from,
                    first,
                    end,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn health(&self) -> Health {
        match &*self.probe.borrow() {
            Some(Err(error)) => Health::Degraded(error.to_string()),
            _ => Health::Ok,
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }
}

/// Looks again and again until there is nobody left to look for.
fn follow(
    consumer: &BaseConsumer<Quiet>,
    ended: &Receiver<()>,
    every: Duration,
    look: impl Fn(&BaseConsumer<Quiet>) -> bool,
) {
    while look(consumer) {
        if ended.recv_timeout(every) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

impl Client {
    fn consumer(&self) -> Result<BaseConsumer<Quiet>, ConnectionError> {
        let config = self.connection.client()?;
        BaseConsumer::from_config_and_context(&config, Quiet)
            .map_err(|error| ConnectionError::Client(error.to_string()))
    }

    /// First and next offset of every partition: two requests to each broker that leads one.
    fn ask(&self, consumer: &BaseConsumer<Quiet>) -> Result<Vec<(u64, u64)>, LogError> {
        let unavailable = |reason: String| LogError::Unavailable { reason };
        self.check_topic(consumer)?;
        let both = [Raw::Beginning, Raw::End].map(|which| {
            let mut wanted = TopicPartitionList::with_capacity(usize::from(self.partitions));
            for partition in 0..self.partitions {
                wanted
                    .add_partition_offset(&self.topic, i32::from(partition), which)
                    .map_err(|error| unavailable(error.to_string()))?;
            }
            let found = consumer
                .offsets_for_times(wanted, PATIENCE)
                .map_err(|error| unavailable(error.to_string()))?;
            let mut offsets = vec![None; usize::from(self.partitions)];
            for element in found.elements() {
                element.error().map_err(|error| unavailable(error.to_string()))?;
                let place = usize::try_from(element.partition())
                    .ok()
                    .and_then(|index| offsets.get_mut(index));
                if let (Some(place), Raw::Offset(offset)) = (place, element.offset()) {
                    *place = u64::try_from(offset).ok();
                }
            }
            let complete: Option<Vec<u64>> = offsets.into_iter().collect();
            complete.ok_or_else(|| unavailable("the brokers did not tell every partition's offsets".to_owned()))
        });
        let [starts, ends] = both;
        Ok(starts?.into_iter().zip(ends?).collect())
    }

    fn check_topic(&self, consumer: &BaseConsumer<Quiet>) -> Result<(), LogError> {
        let metadata = consumer
            .fetch_metadata(Some(&self.topic), PATIENCE)
            .map_err(|error| LogError::Unavailable {
                reason: error.to_string(),
            })?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let found = topic
            .filter(|topic| topic.error().is_none())
            .map_or(0, |topic| topic.partitions().len());
        if found == 0 {
            return Err(LogError::Layout {
                reason: format!("topic {} does not exist: `vigie topics apply` creates it", self.topic),
            });
        }
        if found < usize::from(self.partitions) {
            return Err(LogError::Layout {
                reason: format!(
                    "topic {} has {found} partitions, the log has {}: `vigie topics plan` says what to do",
                    self.topic, self.partitions
                ),
            });
        }
        Ok(())
    }
}
