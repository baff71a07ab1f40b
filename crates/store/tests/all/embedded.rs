//! What only a store on a disk can get wrong: power loss in the middle, locks, settings that do not fit.

use crate::contract::{all, home, known, text, workspace, write};
use bytes::Bytes;
use std::path::Path;
use vigie_event::{FlagId, Timestamp};
use vigie_store::{Commit, CustomerWrite, EmbeddedStore, FlagRow, MemoryStore, Options, Store, StoreError};

/// Small memtables, so that tables are flushed while the journal goes on.
pub(crate) fn options() -> Options {
    Options {
        memtable_bytes: 64 * 1024,
        ..Options::new(4)
    }
}

/// Every step rewrites all customers, so a mixture of two steps shows.
const CUSTOMERS: usize = 40;

pub(crate) async fn step(store: &impl Store, epoch: u64, number: u64) {
    let payload = format!("{number}:{}", "x".repeat(400));
    let rank = |number: u64| Some((number % 7) as u16);
    let timer = |number: u64| Some(Timestamp(number as i64));
    let customers = (0..CUSTOMERS).map(|n| CustomerWrite {
        timer: timer(number),
        previous_timer: number.checked_sub(1).and_then(timer),
        stale_timers: Vec::new(),
        rank: rank(number),
        previous_rank: number.checked_sub(1).and_then(rank),
        ..write(&known("shop", &n.to_string()), &payload)
    });
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let commit = Commit {
        judged: Vec::new(),
        epoch,
        partitions: all()
            .into_iter()
            .map(|p| (p, Bytes::from(number.to_string())))
            .collect(),
        customers: customers.collect(),
        flags: vec![FlagRow {
            workspace: workspace("shop"),
            partition: vigie_event::Partition(0),
            id: FlagId(id),
            body: Bytes::from(number.to_string()),
        }],
    };
    drop(store.commit(commit).await.unwrap());
}

/// The number of the last step that the store holds, after checking that it holds all of it and nothing later.
async fn last_step(store: &impl Store, context: &str) -> Option<u64> {
    let shop = workspace("shop");
    let number = store
        .partition(all()[0])
        .await
        .unwrap()
        .map(|bytes| text(&bytes).parse::<u64>().unwrap());
    for partition in all() {
        let meta = store
            .partition(partition)
            .await
            .unwrap()
            .map(|bytes| text(&bytes).parse::<u64>().unwrap());
        assert_eq!(meta, number, "{context}: positions");
        let due = store.due(partition, Timestamp(i64::MAX), 1000).await.unwrap();
        assert!(
            due.iter().all(|(at, _)| Some(at.0 as u64) == number),
            "{context}: timers"
        );
        let here = (0..CUSTOMERS)
            .filter(|n| home(&known("shop", &n.to_string())) == partition)
            .count();
        assert_eq!(due.len(), if number.is_some() { here } else { 0 }, "{context}: timers");
    }
    let customers = store.customers(&shop, None, 1000).await.unwrap();
    let of_step = |bytes: &Bytes| text(bytes).split(':').next().unwrap().parse::<u64>().ok() == number;
    assert!(customers.iter().all(|(_, bytes)| of_step(bytes)), "{context}: records");
    let ranked = store.at_risk(&shop, None, 1000).await.unwrap();
    assert_eq!(ranked.len(), customers.len(), "{context}: ranks");
    let flags = store.flags(&shop, 0, usize::MAX).await.unwrap();
    let expected = number.map_or(0, |number| number + 1);
    assert_eq!(flags.len() as u64, expected, "{context}: flags");
    number
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let (path, target) = (item.as_ref().unwrap().path(), to.join(item.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target)
        } else {
            assert!(std::fs::copy(&path, &target).is_ok())
        }
    }
}

/// What power loss leaves: tables are fsynced when they are flushed, the journal is not, so the tables may be ahead
/// of the journal by any amount. Whatever is left has to be one step, whole.
#[tokio::test]
async fn after_power_loss_the_store_is_some_prefix_of_the_commits() {
    const CUTS: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let mut seen = std::collections::BTreeSet::new();
    // Ends at several distances from the last flush of a table.
    for round in 0..8 {
        let store = EmbeddedStore::open(&live, &options()).unwrap();
        let found = last_step(&store, "live").await;
        let first = found.map_or(0, |found| found + 1);
        let epoch = store.claim(&all()).await.unwrap();
        let last = first + 12 + round;
        for number in first..=last {
            step(&store, epoch, number).await;
        }
        drop(store);
        let journals = std::fs::read_dir(&live).unwrap().map(|item| item.unwrap().path());
        let journals: Vec<_> = journals
            .filter(|path| path.extension().is_some_and(|e| e == "jnl"))
            .collect();
        let [journal] = &journals[..] else {
            panic!("one journal expected: {journals:?}")
        };
        let whole = std::fs::read(journal).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for piece in 0..=CUTS {
            let crashed = dir.path().join("crashed");
            copy(&live, &crashed);
            let cut = used * piece / CUTS;
            let mut bytes = whole.clone();
            match piece % 3 {
                // The tail never reached the disk: the preallocated zeros are still there.
                0 => bytes[cut..].fill(0),
                // One page of it did not, later ones did.
                1 => bytes[cut..used.min(cut + 4096)].fill(0),
                // A page holds something else.
                _ => bytes[cut..used.min(cut + 4096)]
                    .iter_mut()
                    .for_each(|byte| *byte = byte.wrapping_mul(5) ^ 0xa5),
            }
            std::fs::write(crashed.join(journal.file_name().unwrap()), bytes).unwrap();
            let context = format!("round {round}, journal cut at {cut} of {used}");
            let store = EmbeddedStore::open(&crashed, &options()).unwrap();
            let found = last_step(&store, &context).await;
            let _new = seen.insert((round, found));
            assert!(
                piece < CUTS || found == Some(last),
                "{context}: the whole journal gives everything back"
            );
            // The worker goes on from what it finds.
            let epoch = store.claim(&all()).await.unwrap();
            let next = found.map_or(0, |found| found + 1);
            step(&store, epoch, next).await;
            assert_eq!(last_step(&store, &context).await, Some(next));
            drop(store);
            std::fs::remove_dir_all(&crashed).unwrap();
        }
    }
    assert!(
        seen.len() > 12,
        "the cuts lost hardly anything, the test is blind: {seen:?}"
    );
}

#[tokio::test]
async fn a_dropped_store_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let store = EmbeddedStore::open(dir.path(), &options()).unwrap();
        let found = last_step(&store, &format!("round {round}")).await;
        assert_eq!(found, (round > 0).then(|| round * 10 - 1));
        let epoch = store.claim(&all()).await.unwrap();
        for number in round * 10..(round + 1) * 10 {
            step(&store, epoch, number).await;
        }
    }
}

#[test]
fn the_second_process_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = EmbeddedStore::open(dir.path(), &options()).unwrap();
    let error = EmbeddedStore::open(dir.path(), &options()).unwrap_err();
    assert_eq!(
        error,
        StoreError::Locked {
            path: dir.path().into()
        }
    );
    drop(first);
    assert!(EmbeddedStore::open(dir.path(), &options()).is_ok());
}

#[test]
fn the_number_of_partitions_never_changes() {
    let dir = tempfile::tempdir().unwrap();
    drop(EmbeddedStore::open(dir.path(), &options()).unwrap());
    let error = EmbeddedStore::open(dir.path(), &Options::new(5)).unwrap_err();
    assert_eq!(
        error,
        StoreError::Layout {
            reason: "it was created with 4 partitions, not 5".into()
        }
    );
}

#[tokio::test]
async fn memory_loses_what_was_not_persisted_and_nothing_else() {
    let store = MemoryStore::new(4);
    let epoch = store.claim(&all()).await.unwrap();
    step(&store, epoch, 0).await;
    store.persist().await.unwrap();
    step(&store, epoch, 1).await;
    step(&store, epoch, 2).await;
    store.power_loss();
    assert_eq!(last_step(&store, "after power loss").await, Some(0));
    step(&store, epoch, 1).await;
    assert_eq!(last_step(&store, "and on").await, Some(1));
}
