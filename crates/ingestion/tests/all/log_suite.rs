//! The contract of [`vigie_ingestion::log::Log`] as checks that run against every implementation, in this crate and in those
//! that bring another one: a backend implements [`Backend`] and names itself to `log_suite!`.

use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vigie_event::{Offset, Partition, Position};
use vigie_ingestion::log::{Entry, Health, Log, LogError, LogReader};

/// Something that keeps a log over reopening.
pub(crate) trait Backend {
    type Log: Log;
    /// Whether all partitions share one order, or each has only its own.
    const ONE_ORDER: bool;
    /// Cases of the random test.
    const CASES: u32 = 24;
    fn new(partitions: u16) -> Self;
    /// Opens the log; the one opened before has been dropped.
    async fn open(&mut self) -> Self::Log;
}

/// As they stand, where the log has one order; else by partition, each in its own order.
fn in_log_order<B: Backend, T>(mut items: Vec<T>, position: impl Fn(&T) -> Position) -> Vec<T> {
    if !B::ONE_ORDER {
        items.sort_by_key(|item| position(item).partition);
    }
    items
}

/// One module of tests for each backend.
macro_rules! log_suite {
    ($($backend:ident as $module:ident),*) => {$(
        mod $module {
            use super::*;
            use crate::log_suite::*;

            #[tokio::test]
            async fn order_and_offsets() { check_order_and_offsets::<$backend>().await }
            #[tokio::test]
            async fn reopened() { check_reopened::<$backend>().await }
            #[tokio::test]
            async fn assigned_subset() { check_assigned_subset::<$backend>().await }
            #[tokio::test]
            async fn start_in_the_middle() { check_start_in_the_middle::<$backend>().await }
            #[tokio::test]
            async fn limits() { check_limits::<$backend>().await }
            #[tokio::test]
            async fn waiting() { check_waiting::<$backend>().await }
            #[tokio::test]
            async fn cancellation() { check_cancellation::<$backend>().await }
            #[tokio::test]
            async fn gaps() { check_gaps::<$backend>().await }
            #[tokio::test]
            async fn wrong_partition() { check_wrong_partition::<$backend>().await }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn concurrent_appenders() { check_concurrent_appenders::<$backend>().await }
            #[test]
            fn model() { check_model::<$backend>() }
        }
    )*};
}

fn record(partition: u16, payload: impl AsRef<[u8]>) -> (Partition, Bytes) {
    (Partition(partition), Bytes::copy_from_slice(payload.as_ref()))
}

fn at(partition: u16, offset: u64) -> Position {
    Position {
        partition: Partition(partition),
        offset: Offset(offset),
    }
}

/// Every partition from its start.
fn everything(log: &impl Log) -> BTreeMap<Partition, Offset> {
    (0..log.partitions()).map(Partition).zip(log.starts()).collect()
}

/// Reads until the reader stands at the end of everything that it was asked for.
pub(crate) async fn read_all<L: Log>(log: &L, from: BTreeMap<Partition, Offset>) -> Result<Vec<Entry>, LogError> {
    let mut missing: u64 = from
        .iter()
        .map(|(p, first)| log.ends()[usize::from(p.0)].0 - first.0)
        .sum();
    let mut reader = log.reader(from)?;
    let mut entries = Vec::new();
    while missing > 0 {
        let more = reader.next(7, 300, Duration::from_secs(5)).await?;
        missing -= more.len() as u64;
        entries.extend(more);
    }
    assert_eq!(reader.next(1, 1, Duration::ZERO).await?, [], "nothing behind the end");
    Ok(entries)
}

pub(crate) async fn check_order_and_offsets<B: Backend>() {
    let mut backend = B::new(3);
    let log = backend.open().await;
    assert_eq!(log.partitions(), 3);
    assert_eq!(log.ends(), [Offset(0); 3]);
    assert_eq!(log.append(vec![]).await, Ok(vec![]));
    let first = log
        .append(vec![record(2, "a"), record(0, "b"), record(2, ""), record(2, "d")])
        .await
        .unwrap();
    assert_eq!(first, [at(2, 0), at(0, 0), at(2, 1), at(2, 2)]);
    let second = log.append(vec![record(0, "e"), record(1, "f")]).await.unwrap();
    assert_eq!(second, [at(0, 1), at(1, 0)]);
    assert_eq!(log.ends(), [Offset(2), Offset(1), Offset(3)]);
    assert_eq!(log.starts(), [Offset(0); 3]);
    let entries = read_all(&log, everything(&log)).await.unwrap();
    let read: Vec<_> = entries
        .iter()
        .map(|entry| (entry.position, &entry.payload[..]))
        .collect();
    let payloads = [&b"a"[..], b"b", b"", b"d", b"e", b"f"];
    let appended: Vec<_> = [first, second].concat().into_iter().zip(payloads).collect();
    assert_eq!(
        in_log_order::<B, _>(read, |read| read.0),
        in_log_order::<B, _>(appended, |appended| appended.0),
        "log order"
    );
    assert_eq!(log.health(), Health::Ok);
}

pub(crate) async fn check_reopened<B: Backend>() {
    let mut backend = B::new(2);
    let mut expected = Vec::new();
    for round in 0..5u64 {
        let log = backend.open().await;
        assert_eq!(log.ends(), [Offset(round * 40), Offset(round * 20)], "round {round}");
        for call in 0..20 {
            let records = vec![
                record(0, format!("{round}/{call}/x")),
                record(1, [0xab; 90]),
                record(0, ""),
            ];
            let positions = log.append(records.clone()).await.unwrap();
            expected.extend(
                positions
                    .into_iter()
                    .zip(records.into_iter().map(|(_, payload)| payload)),
            );
        }
        let entries = read_all(&log, everything(&log)).await.unwrap();
        let read: Vec<_> = entries
            .into_iter()
            .map(|entry| (entry.position, entry.payload))
            .collect();
        let expected = in_log_order::<B, _>(expected.clone(), |expected| expected.0);
        assert_eq!(in_log_order::<B, _>(read, |read| read.0), expected, "round {round}");
    }
}

pub(crate) async fn check_assigned_subset<B: Backend>() {
    let mut backend = B::new(4);
    let log = backend.open().await;
    for i in 0..50u64 {
        drop(
            log.append((0..4).map(|p| record(p, format!("{p}:{i}"))).collect())
                .await
                .unwrap(),
        );
    }
    let from = BTreeMap::from([(Partition(1), Offset(0)), (Partition(3), Offset(20))]);
    let entries = read_all(&log, from).await.unwrap();
    for (partition, first) in [(1u16, 0u64), (3, 20)] {
        let read: Vec<_> = entries
            .iter()
            .filter(|e| e.position.partition == Partition(partition))
            .collect();
        let expected: Vec<_> = (first..50).collect();
        assert_eq!(read.iter().map(|e| e.position.offset.0).collect::<Vec<_>>(), expected);
        assert!(
            read.iter()
                .all(|e| e.payload == format!("{partition}:{}", e.position.offset))
        );
    }
    assert_eq!(entries.len(), 80);
    let mut nothing = log.reader(BTreeMap::new()).unwrap();
    assert_eq!(nothing.next(10, 10, Duration::ZERO).await, Ok(vec![]));
}

pub(crate) async fn check_start_in_the_middle<B: Backend>() {
    let mut backend = B::new(2);
    let log = backend.open().await;
    for i in 0..200u64 {
        drop(log.append(vec![record((i % 2) as u16, [i as u8; 60])]).await.unwrap());
    }
    for first in [0u64, 1, 17, 50, 98, 99, 100] {
        let entries = read_all(&log, BTreeMap::from([(Partition(1), Offset(first))]))
            .await
            .unwrap();
        let offsets: Vec<_> = entries.iter().map(|entry| entry.position.offset.0).collect();
        assert_eq!(offsets, (first..100).collect::<Vec<_>>());
        assert!(
            entries
                .iter()
                .all(|entry| entry.payload[0] == (entry.position.offset.0 * 2 + 1) as u8)
        );
    }
}

pub(crate) async fn check_limits<B: Backend>() {
    let mut backend = B::new(1);
    let log = backend.open().await;
    drop(
        log.append((0..10).map(|_| record(0, [1; 100])).collect())
            .await
            .unwrap(),
    );
    let mut reader = log.reader(everything(&log)).unwrap();
    let wait = Duration::from_secs(5);
    assert_eq!(reader.next(3, usize::MAX, wait).await.unwrap().len(), 3, "records");
    assert_eq!(reader.next(100, 250, wait).await.unwrap().len(), 2, "bytes");
    assert_eq!(
        reader.next(100, 1, wait).await.unwrap().len(),
        1,
        "one that is too large comes alone"
    );
    assert_eq!(
        reader.next(0, 0, wait).await.unwrap().len(),
        1,
        "never nothing while there is something"
    );
    assert_eq!(reader.next(100, usize::MAX, wait).await.unwrap().len(), 3, "the rest");
}

pub(crate) async fn check_waiting<B: Backend>() {
    let mut backend = B::new(2);
    let log = Arc::new(backend.open().await);
    let from = BTreeMap::from([(Partition(0), Offset(0))]);
    let mut reader = log.reader(from).unwrap();
    assert_eq!(reader.next(1, 1, Duration::ZERO).await, Ok(vec![]));
    assert_eq!(reader.next(1, 1, Duration::from_millis(20)).await, Ok(vec![]));
    // The record of the other partition wakes the reader but must not end its wait.
    let other = Arc::clone(&log);
    let (read, appended) = tokio::join!(reader.next(10, 1000, Duration::from_secs(30)), async {
        drop(other.append(vec![record(1, "not this")]).await?);
        other.append(vec![record(0, "this")]).await
    });
    assert_eq!(appended, Ok(vec![at(0, 0)]));
    assert_eq!(
        read.unwrap(),
        [Entry {
            position: at(0, 0),
            payload: Bytes::from_static(b"this")
        }]
    );
}

pub(crate) async fn check_cancellation<B: Backend>() {
    let mut backend = B::new(1);
    let log = backend.open().await;
    for i in 0..100u64 {
        drop(log.append(vec![record(0, i.to_string())]).await.unwrap());
    }
    let mut reader = log.reader(everything(&log)).unwrap();
    let mut offsets = Vec::new();
    let mut cancelled = 0u32;
    while offsets.len() < 100 {
        // Polled once and dropped, again and again, with an undisturbed call now and then.
        let polls = offsets.len() % 3;
        let next = reader.next(3, 1000, Duration::from_secs(5));
        let ready = async {
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            entries = next => offsets.extend(entries.unwrap().iter().map(|entry| entry.position.offset.0)),
            () = ready => cancelled += 1,
        }
    }
    assert_eq!(
        offsets,
        (0..100).collect::<Vec<_>>(),
        "after {cancelled} cancelled calls"
    );
}

pub(crate) async fn check_gaps<B: Backend>() {
    let mut backend = B::new(2);
    let log = backend.open().await;
    drop(log.append(vec![record(1, "a"), record(1, "b")]).await.unwrap());
    let beyond = log.reader(BTreeMap::from([(Partition(1), Offset(3))])).err().unwrap();
    let gap = LogError::Gap {
        partition: Partition(1),
        from: Offset(3),
        first: Offset(0),
        end: Offset(2),
    };
    assert_eq!(beyond, gap, "an offset behind the end means that the log lost its end");
    assert!(
        log.reader(BTreeMap::from([(Partition(1), Offset(2))])).is_ok(),
        "the end itself is a fine start"
    );
}

pub(crate) async fn check_wrong_partition<B: Backend>() {
    let mut backend = B::new(2);
    let log = backend.open().await;
    let refused = log.append(vec![record(0, "a"), record(2, "b")]).await;
    assert_eq!(
        refused,
        Err(LogError::NoSuchPartition {
            partition: Partition(2),
            partitions: 2
        })
    );
    assert_eq!(log.ends(), [Offset(0), Offset(0)], "all or nothing");
    assert!(log.reader(BTreeMap::from([(Partition(2), Offset(0))])).is_err());
}

pub(crate) async fn check_concurrent_appenders<B: Backend>() {
    const TASKS: u16 = 16;
    const CALLS: u64 = 25;
    let mut backend = B::new(4);
    let log = Arc::new(backend.open().await);
    let mut readers = tokio::task::JoinSet::new();
    for partition in 0..4u16 {
        let mut reader = log.reader(BTreeMap::from([(Partition(partition), Offset(0))])).unwrap();
        drop(readers.spawn(async move {
            let mut entries = Vec::new();
            while entries.len() < usize::from(TASKS) * CALLS as usize {
                entries.extend(reader.next(10, 1000, Duration::from_secs(10)).await.unwrap());
            }
            entries
        }));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let log = Arc::clone(&log);
        drop(tasks.spawn(async move {
            let mut positions = Vec::new();
            for call in 0..CALLS {
                let records = (0..4).map(|p| record(p, format!("{task} {call} {p}"))).collect();
                positions.extend(
                    log.append(records)
                        .await
                        .unwrap()
                        .into_iter()
                        .map(|position| (position, call)),
                );
                for position in positions.iter().rev().take(4) {
                    let end = log.ends()[usize::from(position.0.partition.0)];
                    assert!(end > position.0.offset, "an answered append is below the end");
                }
            }
            (task, positions)
        }));
    }
    let mut appended = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let (task, positions) = done.unwrap();
        for (position, call) in positions {
            let payload = format!("{task} {call} {}", position.partition);
            assert_eq!(appended.insert(position, payload), None, "positions are unique");
        }
    }
    let mut read = BTreeMap::new();
    while let Some(done) = readers.join_next().await {
        let entries = done.unwrap();
        assert!(
            entries
                .iter()
                .zip(0..)
                .all(|(entry, offset)| entry.position.offset == Offset(offset)),
            "no holes"
        );
        read.extend(
            entries
                .into_iter()
                .map(|e| (e.position, String::from_utf8(e.payload.to_vec()).unwrap())),
        );
    }
    assert_eq!(read, appended);
}

/// What a random test does to a log.
#[derive(Debug, Clone)]
enum Action {
    Append(Vec<(u16, Vec<u8>)>),
    Reopen,
    Read { partition: u16, from: u64 },
}

fn action() -> impl Strategy<Value = Action> {
    let payload = prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(any::<u8>(), 400..3000),
    ];
    prop_oneof![
        6 => proptest::collection::vec((0u16..3, payload), 1..8).prop_map(Action::Append),
        1 => Just(Action::Reopen),
        2 => (0u16..3, any::<u64>()).prop_map(|(partition, from)| Action::Read { partition, from }),
    ]
}

/// A log is a vector of vectors that only grows.
pub(crate) fn check_model<B: Backend>() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    proptest!(ProptestConfig::with_cases(B::CASES), |(actions in proptest::collection::vec(action(), 1..40))| {
        runtime.block_on(async {
            let mut backend = B::new(3);
            let mut log = backend.open().await;
            let mut model: Vec<Vec<Vec<u8>>> = vec![vec![]; 3];
            let mut order = Vec::new();
            for action in actions {
                match action {
                    Action::Append(records) => {
                        let mut expected = Vec::new();
                        for (partition, payload) in &records {
                            let owner = &mut model[usize::from(*partition)];
                            expected.push(at(*partition, owner.len() as u64));
                            owner.push(payload.clone());
                        }
                        let call = records.iter().map(|(partition, payload)| record(*partition, payload)).collect();
                        prop_assert_eq!(log.append(call).await, Ok(expected.clone()));
                        order.extend(expected);
                    }
                    Action::Reopen => {
                        drop(log);
                        log = backend.open().await;
                    }
                    Action::Read { partition, from } => {
                        let owner = &model[usize::from(partition)];
                        let from = from % (owner.len() as u64 + 1);
                        let entries = read_all(&log, BTreeMap::from([(Partition(partition), Offset(from))])).await.unwrap();
                        let read: Vec<_> = entries.iter().map(|entry| entry.payload.to_vec()).collect();
                        prop_assert_eq!(&read[..], &owner[from as usize..]);
                    }
                }
                let ends: Vec<_> = model.iter().map(|owner| Offset(owner.len() as u64)).collect();
                prop_assert_eq!(log.ends(), ends);
            }
            let entries = read_all(&log, everything(&log)).await.unwrap();
            let read: Vec<Position> = entries.iter().map(|entry| entry.position).collect();
            let order = in_log_order::<B, _>(order, |position| *position);
            prop_assert_eq!(in_log_order::<B, _>(read, |position| *position), order);
            Ok(())
        })?;
    });
}
