//! The contract suite of the log against Kafka: a broker and a topic of its own for each check.

use crate::broker::{Broker, options};
use crate::log_suite::Backend;
use vigie_kafka::KafkaLog;

const TOPIC: &str = "vigie.log";

struct Kafka {
    broker: Broker,
    partitions: u16,
    created: bool,
}

impl Backend for Kafka {
    type Log = KafkaLog;
    const ONE_ORDER: bool = false;
    const CASES: u32 = 3;

    fn new(partitions: u16) -> Self {
        Self {
            broker: Broker::start(),
            partitions,
            created: false,
        }
    }

    async fn open(&mut self) -> KafkaLog {
        if !self.created {
            self.broker.topic(TOPIC, self.partitions).await;
            self.created = true;
        }
        let options = options(TOPIC, self.partitions);
        KafkaLog::open(self.broker.connection(), options).await.unwrap()
    }
}

log_suite!(Kafka as kafka);
