//! Topics: what is missing is planned and created, what differs is told, and the check at start says what to do.

use crate::broker::Broker;
use vigie_kafka::outputs::OutputOptions;
use vigie_kafka::topics::{Severity, TopicSpec, TopicsError, apply, check, plan};

fn spec(name: &str, partitions: u16) -> TopicSpec {
    TopicSpec {
        replication: 1,
        min_insync: 1,
        ..TopicSpec::log(name, partitions)
    }
}

#[tokio::test]
async fn a_plan_is_applied_once_and_then_has_nothing_to_create() {
    let broker = Broker::start();
    let connection = broker.connection();
    let mut wanted = vec![spec("vigie.log", 4)];
    wanted.extend(OutputOptions::default().topics(2).map(|topic| TopicSpec {
        replication: 1,
        min_insync: 1,
        ..topic
    }));
    let missing = plan(&connection, &wanted).await.unwrap();
    assert_eq!(missing.create, wanted);
    assert!(!missing.is_startable());
    let text = missing.to_string();
    assert!(
        text.contains("create   vigie.log: partitions=4 replication=1 cleanup.policy=delete"),
        "{text}"
    );
    assert!(
        text.contains("create   vigie.scores: partitions=2 replication=1 cleanup.policy=compact"),
        "{text}"
    );
    let refused = check(&connection, &wanted).await.unwrap_err();
    assert!(refused.to_string().contains("vigie topics apply"), "{refused}");
    assert_eq!(apply(&connection, &missing).await.unwrap().len(), 3);
    // Somebody else was faster: that is as good.
    assert_eq!(apply(&connection, &missing).await.unwrap().len(), 3);
    let after = plan(&connection, &wanted).await.unwrap();
    assert_eq!(after.create, []);
    assert!(after.is_startable(), "{after}");
    check(&connection, &wanted).await.unwrap();
}

#[tokio::test]
async fn a_topic_that_differs_is_told_and_left_alone() {
    let broker = Broker::start();
    broker.topic("vigie.log", 2).await;
    let connection = broker.connection();
    let wanted = TopicSpec {
        replication: 3,
        ..spec("vigie.log", 4)
    };
    let found = plan(&connection, std::slice::from_ref(&wanted)).await.unwrap();
    let errors: Vec<_> = found
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| (finding.setting, finding.found.as_deref(), finding.wanted.as_str()))
        .collect();
    assert_eq!(
        errors,
        [("partitions", Some("2"), "4"), ("replication", Some("1"), "3")]
    );
    let refused = check(&connection, &[wanted]).await.unwrap_err();
    assert!(matches!(refused, TopicsError::Unfit(_)), "{refused}");
    let more = plan(&connection, &[spec("vigie.log", 1)]).await.unwrap();
    assert!(more.is_startable(), "{more}");
    assert!(
        more.to_string()
            .contains("warning  vigie.log: partitions is 2, should be 1"),
        "{more}"
    );
}

#[tokio::test]
async fn brokers_that_do_not_answer_are_named() {
    let nobody = vigie_kafka::Connection::to(&format!("127.0.0.1:{}", crate::broker::free_port()));
    let refused = plan(&nobody, &[spec("vigie.log", 1)]).await.unwrap_err();
    assert!(refused.to_string().contains(&nobody.brokers[0]), "{refused}");
}
