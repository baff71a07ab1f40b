//! Which partitions this process works on: a consumer group spreads them over its members.
//!
//! A member subscribes to the log's topic and never reads from it: its partitions are paused at once, and their owner reads
//! them with a [`crate::KafkaReader`] from the positions of the store. The group is a hint (D4): that two processes think
//! to own one partition is harmless, because the store refuses the older epoch. What the member adds is good manners: a
//! partition is given back only after its owner has let go of it, or [`MemberOptions::handover`] has passed.
//!
//! Offsets are committed only by [`Member::hint`], for lag tools, and never read.

use crate::config::{Connection, ConnectionError};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset as Raw;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use vigie_event::{Offset, Partition};

/// Longest sleep of the thread: a bound on how late it notices that nobody listens any more.
const NAP: Duration = Duration::from_millis(100);

/// How a member behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOptions {
    /// The log's topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// A member that is not heard of for so long loses its partitions. 6 to 300 s, within what the brokers allow.
    pub session_timeout: Duration,
    /// How long a partition that is to be given back waits for its owner to finish. Less than a minute.
    pub handover: Duration,
}

impl MemberOptions {
    /// The defaults.
    #[must_use]
    pub fn new(topic: &str, group: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            group: group.to_owned(),
            session_timeout: Duration::from_secs(10),
            handover: Duration::from_secs(5),
        }
    }
}

/// A change of what this process works on.
#[derive(Debug)]
pub enum Assignment {
    /// These are ours from now on: claim them in the store, read their positions there, and go on.
    Assigned(BTreeSet<Partition>),
    /// These go to another member once the answer is dropped: finish or abandon the step, then drop it.
    Revoked(BTreeSet<Partition>, Release),
    /// These were lost, and another member may have them already: abandon the step. The store refuses it anyway.
    Lost(BTreeSet<Partition>),
    /// The group cannot be reached or refuses us, and the client library does not overcome it by itself.
    Failed(String),
}

/// Held while a revoked partition is still being worked on; dropping it gives the partition away.
#[derive(Debug)]
pub struct Release {
    _held: mpsc::Sender<()>,
}

/// The changes, in order.
#[derive(Debug)]
pub struct Assignments {
    changes: UnboundedReceiver<Assignment>,
    hints: mpsc::Sender<BTreeMap<Partition, Offset>>,
    thread: JoinHandle<()>,
}

/// A handle to publish how far the owner has come.
#[derive(Debug, Clone)]
pub struct Member {
    hints: mpsc::Sender<BTreeMap<Partition, Offset>>,
}

impl Member {
    /// Commits positions to the group, for tools that show its lag. A hint: it may be lost, and nothing reads it.
    pub fn hint(&self, positions: BTreeMap<Partition, Offset>) {
        // The thread has ended when nobody listens to it any more.
        let _ = self.hints.send(positions);
    }
}

impl Assignments {
    /// Joins the group. Dropping the answer leaves it in the background; a process that is about to end calls
    /// [`Assignments::leave`], or the brokers would have to miss it first.
    ///
    /// # Errors
    /// Settings that no client can be made of; that the group cannot be reached is an [`Assignment::Failed`].
    pub fn join(connection: &Connection, options: &MemberOptions) -> Result<Self, ConnectionError> {
        let refused = |reason: String| ConnectionError::Client(reason);
        let mut config = connection.client()?;
        // A third of the session, as the protocol's authors advise.
        let heartbeat = (options.session_timeout / 3).as_millis();
        for (key, value) in [
            ("group.id", options.group.clone()),
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("auto.offset.reset", "error".to_owned()),
            ("partition.assignment.strategy", "range".to_owned()),
            ("session.timeout.ms", options.session_timeout.as_millis().to_string()),
            ("heartbeat.interval.ms", heartbeat.to_string()),
            ("queued.min.messages", "1".to_owned()),
        ] {
            let _ = config.set(key, value);
        }
        let (sender, changes) = unbounded_channel();
        let (hints, hinted) = mpsc::channel();
        let context = Group {
            changes: sender.clone(),
            handover: options.handover,
            owned: Mutex::default(),
        };
        let consumer =
            BaseConsumer::from_config_and_context(&config, context).map_err(|error| refused(error.to_string()))?;
        consumer
            .subscribe(&[&options.topic])
            .map_err(|error| refused(error.to_string()))?;
        let topic = options.topic.clone();
        let thread = std::thread::Builder::new()
            .name("kafka-member".to_owned())
            .spawn(move || follow(consumer, &topic, sender, &hinted))
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self { changes, hints, thread })
    }

    /// Leaves the group and waits until the brokers have been told, which gives all partitions away at once.
    pub async fn leave(self) {
        let Self { changes, thread, .. } = self;
        drop(changes);
        // A thread that panicked has left nothing to wait for.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }

    /// The next change; `None` after the member has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Assignment> {
        self.changes.recv().await
    }

    /// A handle for hints.
    #[must_use]
    pub fn member(&self) -> Member {
        Member {
            hints: self.hints.clone(),
        }
    }
}

/// The member's thread: serves the group until nobody listens any more, then leaves.
fn follow(
    consumer: BaseConsumer<Group>,
    topic: &str,
    changes: UnboundedSender<Assignment>,
    hinted: &mpsc::Receiver<BTreeMap<Partition, Offset>>,
) {
    while !changes.is_closed() {
        match consumer.poll(NAP) {
            None => {}
            // A record that was fetched before the pause took hold: its partition's owner reads it elsewhere.
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                if let Some(reason) = lasting(&error) {
                    let _ = changes.send(Assignment::Failed(reason));
                }
            }
        }
        // Only the latest one counts.
        if let Some(positions) = hinted.try_iter().last() {
            consumer.context().commit(&consumer, topic, &positions);
        }
    }
    consumer.unsubscribe();
    let _ = consumer.poll(NAP);
}

/// The reason of an error that does not pass by itself.
fn lasting(error: &KafkaError) -> Option<String> {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::InconsistentGroupProtocol
            | RDKafkaErrorCode::InvalidSessionTimeout
            | RDKafkaErrorCode::Fatal,
        ) => Some(error.to_string()),
        _ => {
            tracing::debug!(%error, "kafka member");
            None
        }
    }
}

/// What the group's callbacks need.
struct Group {
    changes: UnboundedSender<Assignment>,
    handover: Duration,
    owned: Mutex<BTreeSet<Partition>>,
}

impl Group {
    fn commit(&self, consumer: &BaseConsumer<Self>, topic: &str, positions: &BTreeMap<Partition, Offset>) {
        let owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = TopicPartitionList::new();
        for (partition, offset) in positions.iter().filter(|(partition, _)| owned.contains(partition)) {
            let offset = Raw::Offset(i64::try_from(offset.0).unwrap_or(i64::MAX));
            if list
                .add_partition_offset(topic, i32::from(partition.0), offset)
                .is_err()
            {
                return;
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "a hint was not committed");
        }
    }

    fn gained(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<(), KafkaError> {
        // Any offset will do: nothing is read here. The end costs the least.
        list.set_all_offsets(Raw::End)?;
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list)?,
            _ => consumer.assign(list)?,
        }
        consumer.pause(list)?;
        let partitions = partitions(list);
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.extend(&partitions);
        if !partitions.is_empty() {
            let _ = self.changes.send(Assignment::Assigned(partitions));
        }
        Ok(())
    }

    fn given_back(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<(), KafkaError> {
        let partitions = partitions(list);
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.retain(|partition| !partitions.contains(partition));
        drop(owned);
        if partitions.is_empty() {
        } else if consumer.assignment_lost() {
            let _ = self.changes.send(Assignment::Lost(partitions));
        } else {
            let (held, released) = mpsc::channel();
            let revoked = Assignment::Revoked(partitions, Release { _held: held });
            if self.changes.send(revoked).is_ok() {
                // Ends when the owner drops its end. Later than the handover, the store's fence has to do.
                let _ = released.recv_timeout(self.handover);
            }
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        }
    }
}

impl ClientContext for Group {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka member");
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let done = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.gained(consumer, list),
            _ => self.given_back(consumer, list),
        };
        if let Err(error) = done {
            let _ = self.changes.send(Assignment::Failed(error.to_string()));
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {}
}

fn partitions(list: &TopicPartitionList) -> BTreeSet<Partition> {
    let elements = list.elements();
    let numbers = elements
        .iter()
        .filter_map(|element| u16::try_from(element.partition()).ok());
    numbers.map(Partition).collect()
}
