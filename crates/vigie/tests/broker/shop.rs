//! The demonstration's shop is the same customers everywhere: what `vigie demo` made of it on the local disk, and what a
//! worker makes of the same log on Kafka and Redis, have one Merkle root and the same flags.

use crate::broker::Broker;
use crate::redis;
use crate::support::run;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use vigie_audit::{Facts, Live, Report, Sample, Verdict, compare, recompute};
use vigie_event::{Offset, Partition, Position, Record, Timestamp};
use vigie_ingestion::log::{EmbeddedLog, Entry, Log, LogReader, Options};
use vigie_kafka::KafkaLog;
use vigie_pipeline::Worker;
use vigie_store::{EmbeddedStore, RedisOptions, RedisStore, Snapshot, Store};
use vigie_telemetry::Metrics;

const PARTITIONS: u16 = 64;
/// For latencies only.
const NOW: Timestamp = Timestamp(1_770_000_000_000);

fn all() -> impl Iterator<Item = Partition> {
    (0..PARTITIONS).map(Partition)
}

/// Every record of a log.
async fn entries<L: Log>(log: &L) -> Vec<Entry> {
    let mut reader = log.reader(all().zip(log.starts()).collect()).unwrap();
    let wanted: u64 = log
        .ends()
        .iter()
        .zip(log.starts())
        .map(|(end, start)| end.0 - start.0)
        .sum();
    let mut found = Vec::new();
    while (found.len() as u64) < wanted {
        let more = reader.next(10_000, usize::MAX, Duration::from_secs(30)).await.unwrap();
        assert!(!more.is_empty(), "the log does not go on");
        found.extend(more);
    }
    found
}

/// Folds the log to its end.
async fn fold(worker: &mut Worker<KafkaLog, RedisStore, ()>) {
    let mut reader = worker.log().reader(worker.positions()).unwrap();
    while worker
        .positions()
        .iter()
        .any(|(partition, next)| *next < worker.log().ends()[usize::from(partition.0)])
    {
        let batch = reader.next(5_000, usize::MAX, Duration::from_secs(30)).await.unwrap();
        worker.process(&batch, NOW).await.unwrap();
    }
}

/// What the oracle says of a store over its log, and the flags that the store holds.
async fn audit<S: Store>(store: &S, log: &[Entry]) -> (Report, BTreeSet<Vec<u8>>) {
    let snapshot = store.snapshot().await.unwrap();
    let facts = |partition| Facts::decode(&snapshot.partition(partition).unwrap().unwrap()).unwrap();
    let cut: BTreeMap<Partition, Offset> = all().map(|partition| (partition, facts(partition).next)).collect();
    let decode = |entry: &Entry| (entry.position, Record::decode(&entry.payload).unwrap());
    let decoded: Vec<(Position, Record)> = log.iter().map(decode).collect();
    let live = |partition| {
        let customers = snapshot.scan(partition, None, usize::MAX).unwrap();
        Ok::<_, String>(Live {
            facts: facts(partition),
            customers: customers.into_iter().map(Ok::<_, String>),
        })
    };
    let stored = snapshot.flags(None, usize::MAX).unwrap();
    let flags = stored
        .clone()
        .into_iter()
        .map(|(workspace, _, body)| Ok((workspace, body)));
    let report = compare(
        Sample::all(PARTITIONS),
        recompute(PARTITIONS, &cut, decoded).unwrap(),
        live,
        flags,
    );
    assert_eq!(report.verdict, Verdict::Equal, "{report}");
    (report, stored.into_iter().map(|(_, _, body)| body.to_vec()).collect())
}

#[test]
fn the_demo_shop_has_one_root_on_the_local_disk_and_on_kafka_and_redis() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let demo = run(&[
        "demo",
        "--once",
        "--port",
        "0",
        "--customers",
        "300",
        "--data-dir",
        data,
    ]);
    assert_eq!(demo.code, Some(0), "{demo:?}");
    let (broker, redis) = (Broker::start(), redis::Server::start(&[]));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let log = EmbeddedLog::open(dir.path(), Options::new(PARTITIONS)).unwrap();
        let store = EmbeddedStore::open(&dir.path().join("store"), &vigie_store::Options::new(PARTITIONS)).unwrap();
        let here = entries(&log).await;
        let (local, flags) = audit(&store, &here).await;

        // The same log on a topic, record for record; what the worker derives again is recognised as known.
        let kafka = Arc::new(broker.log("vigie.log", PARTITIONS).await);
        for portion in here.chunks(2_000) {
            let records = portion
                .iter()
                .map(|entry| (entry.position.partition, entry.payload.clone()));
            let _ = kafka.append(records.collect()).await.unwrap();
        }
        let options = RedisOptions {
            volatile: true,
            ..RedisOptions::new(vec![redis.url()], PARTITIONS)
        };
        let elsewhere = Arc::new(RedisStore::create(&options, 7).await.unwrap());
        let mut worker = Worker::open(
            Arc::clone(&kafka),
            Arc::clone(&elsewhere),
            Arc::new(()),
            Metrics::disabled(),
        )
        .await
        .unwrap();
        fold(&mut worker).await;
        let there = entries(&*kafka).await;
        let (remote, raised) = audit(&*elsewhere, &there).await;
        assert!(local.books.applied > 1_000 && !flags.is_empty(), "{local}");
        assert_eq!(remote.root_live, local.root_live);
        assert_eq!(remote.books.applied, local.books.applied);
        assert_eq!(raised, flags);
        println!(
            "{} events, {} flags, merkle root {} on both",
            local.books.applied,
            flags.len(),
            local.root_live
        );
    });
}
