//! The contract of [`vigie_store::Store`], run against every implementation. A new backend implements [`Backend`]
//! and adds one line to `suite!`.

use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{CustomerKey, FlagId, Offset, Partition, PersonId, Timestamp, Workspace, partition_for};
use vigie_store::{
    Commit, CustomerWrite, EmbeddedStore, FlagRow, MemoryStore, Options, Projection, RankCursor, Snapshot, Store,
    StoreError,
};

pub(crate) const PARTITIONS: u16 = 4;

/// Something that keeps a store over reopening.
pub(crate) trait Backend {
    type Store: Store;
    /// Random histories that the model test tries.
    const CASES: u32 = 32;
    fn new() -> Self;
    /// Opens the store; the one opened before has been dropped.
    async fn open(&mut self) -> Self::Store;
}

struct Memory(MemoryStore);

impl Backend for Memory {
    type Store = MemoryStore;

    fn new() -> Self {
        Self(MemoryStore::new(PARTITIONS))
    }

    async fn open(&mut self) -> MemoryStore {
        self.0.clone()
    }
}

struct Embedded(tempfile::TempDir);

impl Backend for Embedded {
    type Store = EmbeddedStore;

    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&mut self) -> EmbeddedStore {
        let open = || EmbeddedStore::open(self.0.path(), &Options::new(PARTITIONS));
        // Tests beside this one start processes, and between fork and exec a child holds a copy of the lock.
        for _ in 0..10_000 {
            match open() {
                Err(StoreError::Locked { .. }) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
        open().unwrap()
    }
}

macro_rules! suite {
    ($($backend:path as $module:ident),*) => {$(
        mod $module {
            use super::*;

            #[tokio::test]
            async fn round_trip() { check_round_trip::<$backend>().await }
            #[tokio::test]
            async fn timers() { check_timers::<$backend>().await }
            #[tokio::test]
            async fn ranks() { check_ranks::<$backend>().await }
            #[tokio::test]
            async fn flags() { check_flags::<$backend>().await }
            #[tokio::test]
            async fn fencing() { check_fencing::<$backend>().await }
            #[tokio::test]
            async fn renewal() { check_renewal::<$backend>().await }
            #[tokio::test]
            async fn refused_commits_change_nothing() { check_refused::<$backend>().await }
            #[tokio::test]
            async fn pagination() { check_pagination::<$backend>().await }
            #[tokio::test]
            async fn reopened() { check_reopened::<$backend>().await }
            #[tokio::test]
            async fn judgements() { check_judgements::<$backend>().await }
            #[tokio::test]
            async fn snapshots() { check_snapshots::<$backend>().await }
            #[test]
            fn model() { check_model::<$backend>() }
        }
    )*};
}

suite!(Memory as memory, Embedded as embedded, crate::redis::Single as redis);

/// One after the other on one cluster, which takes seconds to form.
#[test]
fn redis_cluster() {
    use crate::redis::Clustered as C;
    let _kept = crate::redis::Clustered::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        check_round_trip::<C>().await;
        check_timers::<C>().await;
        check_ranks::<C>().await;
        check_flags::<C>().await;
        check_fencing::<C>().await;
        check_renewal::<C>().await;
        check_refused::<C>().await;
        check_pagination::<C>().await;
        check_reopened::<C>().await;
        check_judgements::<C>().await;
        check_snapshots::<C>().await;
    });
    drop(runtime);
    check_model::<C>();
}

pub(crate) fn all() -> Vec<Partition> {
    (0..PARTITIONS).map(Partition).collect()
}

pub(crate) fn workspace(name: &str) -> Workspace {
    Workspace::new(name).unwrap()
}

pub(crate) fn known(space: &str, id: &str) -> CustomerKey {
    CustomerKey::new(workspace(space), PersonId::known(id).unwrap())
}

pub(crate) fn home(key: &CustomerKey) -> Partition {
    partition_for(key.person.as_str(), PARTITIONS)
}

pub(crate) fn write(key: &CustomerKey, bytes: &str) -> CustomerWrite {
    CustomerWrite {
        key: key.clone(),
        partition: home(key),
        bytes: Bytes::copy_from_slice(bytes.as_bytes()),
        timer: None,
        previous_timer: None,
        stale_timers: Vec::new(),
        rank: None,
        previous_rank: None,
        fields: Projection::default(),
    }
}

fn flag(space: &str, id: u8, body: &'static str) -> FlagRow {
    FlagRow {
        workspace: workspace(space),
        partition: Partition(u16::from(id) % PARTITIONS),
        id: FlagId([id; 16]),
        body: Bytes::from_static(body.as_bytes()),
    }
}

pub(crate) fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

async fn check_round_trip<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    assert_eq!(store.partitions(), PARTITIONS);
    let epoch = store.claim(&all()).await.unwrap();
    let (a, b) = (known("shop", "a"), known("shop", "b"));
    let anonymous = CustomerKey::new(workspace("shop"), PersonId::anonymous("a").unwrap());
    let elsewhere = known("other", "a");
    assert_eq!(store.load(&[a.clone(), b.clone()]).await, Ok(vec![None, None]));
    assert_eq!(store.partition(home(&a)).await, Ok(None));
    let commit = Commit {
        judged: Vec::new(),
        epoch,
        partitions: vec![(home(&a), Bytes::from_static(b"position 1"))],
        customers: vec![
            write(&a, "one"),
            write(&anonymous, "two"),
            write(&elsewhere, "three"),
            write(&a, "last"),
        ],
        flags: vec![],
    };
    drop(store.commit(commit).await.unwrap());
    let loaded = store
        .load(&[elsewhere, b, anonymous, a.clone(), a.clone()])
        .await
        .unwrap();
    let loaded: Vec<_> = loaded.iter().map(|bytes| bytes.as_ref().map(text)).collect();
    assert_eq!(loaded, [Some("three"), None, Some("two"), Some("last"), Some("last")]);
    assert_eq!(
        store.partition(home(&a)).await.unwrap().as_deref(),
        Some(&b"position 1"[..])
    );
    assert_eq!(store.load(&[]).await, Ok(vec![]));
    assert!(store.counts().await.unwrap().rows >= 4);
    assert_eq!(
        store.commit(Commit::default()).await,
        Ok(Default::default()),
        "an empty commit owns nothing"
    );
}

async fn check_timers<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    let epoch = store.claim(&all()).await.unwrap();
    let keys: Vec<_> = (0..200)
        .map(|n| known("shop", &n.to_string()))
        .filter(|key| home(key) == Partition(1))
        .collect();
    let dues = [30, -5, 30, i64::MAX, 10, i64::MIN];
    let with = |key: &CustomerKey, previous: Option<i64>, timer: Option<i64>| CustomerWrite {
        previous_timer: previous.map(Timestamp),
        stale_timers: Vec::new(),
        timer: timer.map(Timestamp),
        ..write(key, "x")
    };
    let customers = keys
        .iter()
        .zip(dues)
        .map(|(key, due)| with(key, None, Some(due)))
        .collect();
    drop(
        store
            .commit(Commit {
                epoch,
                customers,
                ..Commit::default()
            })
            .await
            .unwrap(),
    );
    let mut expected: Vec<_> = dues.into_iter().map(Timestamp).zip(keys.iter().cloned()).collect();
    expected.sort();
    let p = Partition(1);
    assert_eq!(
        store.due(p, Timestamp(i64::MAX), 100).await.unwrap(),
        expected,
        "by time, then key"
    );
    assert_eq!(
        store.due(p, Timestamp(30), 100).await.unwrap(),
        expected[..5],
        "upto is inclusive"
    );
    assert_eq!(store.due(p, Timestamp(29), 100).await.unwrap(), expected[..3]);
    assert_eq!(store.due(p, Timestamp(i64::MAX), 2).await.unwrap(), expected[..2]);
    assert_eq!(store.next_due(p).await, Ok(Some(Timestamp(i64::MIN))));
    assert_eq!(store.next_due(Partition(2)).await, Ok(None));
    assert_eq!(store.due(Partition(2), Timestamp(i64::MAX), 9).await, Ok(vec![]));
    // Fired one by one: removed, moved later, moved earlier than everything, kept.
    let step = |customers| {
        store.commit(Commit {
            epoch,
            customers,
            ..Commit::default()
        })
    };
    drop(step(vec![with(&keys[5], Some(i64::MIN), None)]).await.unwrap());
    assert_eq!(store.next_due(p).await, Ok(Some(Timestamp(-5))));
    drop(step(vec![with(&keys[1], Some(-5), Some(40))]).await.unwrap());
    assert_eq!(store.next_due(p).await, Ok(Some(Timestamp(10))));
    drop(
        step(vec![
            with(&keys[3], Some(i64::MAX), Some(-100)),
            with(&keys[4], Some(10), Some(10)),
        ])
        .await
        .unwrap(),
    );
    assert_eq!(
        store.next_due(p).await,
        Ok(Some(Timestamp(-100))),
        "a timer before all that were seen"
    );
    let mut left = [(30, 0), (30, 2), (40, 1), (-100, 3), (10, 4)].map(|(at, n)| (Timestamp(at), keys[n].clone()));
    left.sort();
    assert_eq!(store.due(p, Timestamp(i64::MAX), 100).await.unwrap(), left);
    // Twice in one commit: the second write goes on from the first.
    drop(
        step(vec![
            with(&keys[0], Some(30), Some(50)),
            with(&keys[0], Some(50), Some(30)),
        ])
        .await
        .unwrap(),
    );
    assert_eq!(store.due(p, Timestamp(i64::MAX), 100).await.unwrap(), left);
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.due(p, Timestamp(i64::MAX), 100).await.unwrap(), left);
}

async fn check_ranks<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    let epoch = store.claim(&all()).await.unwrap();
    let with = |key: &CustomerKey, previous_rank: Option<u16>, rank: Option<u16>| CustomerWrite {
        previous_rank,
        rank,
        ..write(key, key.person.as_str())
    };
    let (a, b, c, d) = (
        known("shop", "a"),
        known("shop", "b"),
        known("shop", "c"),
        known("shops", "d"),
    );
    let customers = vec![
        with(&a, None, Some(10)),
        with(&b, None, Some(65535)),
        with(&c, None, Some(10)),
        with(&d, None, Some(0)),
        with(&known("shop", "unranked"), None, None),
    ];
    drop(
        store
            .commit(Commit {
                epoch,
                customers,
                ..Commit::default()
            })
            .await
            .unwrap(),
    );
    let row = |rank: u16, key: &CustomerKey| {
        (
            rank,
            key.clone(),
            Bytes::copy_from_slice(key.person.as_str().as_bytes()),
        )
    };
    let shop = workspace("shop");
    let list = store.at_risk(&shop, None, 10).await.unwrap();
    assert_eq!(list, [row(65535, &b), row(10, &a), row(10, &c)]);
    let after = RankCursor {
        rank: 10,
        key: a.clone(),
    };
    assert_eq!(store.at_risk(&shop, Some(after), 10).await.unwrap(), [row(10, &c)]);
    let customers = vec![
        with(&b, Some(65535), None),
        with(&a, Some(10), Some(11)),
        with(&c, Some(10), Some(10)),
    ];
    drop(
        store
            .commit(Commit {
                epoch,
                customers,
                ..Commit::default()
            })
            .await
            .unwrap(),
    );
    assert_eq!(
        store.at_risk(&shop, None, 10).await.unwrap(),
        [row(11, &a), row(10, &c)]
    );
    assert_eq!(store.at_risk(&shop, None, 0).await.unwrap(), []);
    assert_eq!(store.at_risk(&workspace("nobody"), None, 10).await.unwrap(), []);
}

/// FLAG-1.
async fn check_flags<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    let (one, two) = (FlagId([1; 16]), FlagId([2; 16]));
    let epoch = store.claim(&all()).await.unwrap();
    let commit = |flags| Commit {
        epoch,
        flags,
        ..Commit::default()
    };
    let stale = Commit {
        epoch: epoch - 1,
        ..commit(vec![flag("shop", 9, "late")])
    };
    assert!(matches!(store.commit(stale).await, Err(StoreError::Fenced { .. })));
    let first = vec![
        flag("shop", 1, "first"),
        flag("shop", 2, "second"),
        flag("shop", 1, "again"),
        flag("other", 1, "own"),
    ];
    let receipt = store.commit(commit(first.clone())).await.unwrap();
    assert_eq!(
        receipt.flags_inserted,
        [one, two, one],
        "ids are unique within a workspace"
    );
    assert_eq!(
        store.commit(commit(first)).await.unwrap().flags_inserted,
        [],
        "a replay mints nothing"
    );
    let third = vec![flag("shop", 2, "changed"), flag("shop", 3, "third")];
    assert_eq!(
        store.commit(commit(third)).await.unwrap().flags_inserted,
        [FlagId([3; 16])]
    );
    let shop = workspace("shop");
    let list = store.flags(&shop, 0, 10).await.unwrap();
    let list: Vec<_> = list.iter().map(|(sequence, body)| (*sequence, text(body))).collect();
    assert_eq!(list, [(1, "first"), (2, "second"), (3, "third")]);
    assert_eq!(
        store.flags(&shop, 1, 1).await.unwrap(),
        [(2, Bytes::from_static(b"second"))]
    );
    assert_eq!(store.flags(&shop, 3, 10).await.unwrap(), []);
    assert_eq!(store.flags(&shop, u64::MAX, 10).await.unwrap(), []);
    assert_eq!(store.flag(&shop, &two).await.unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(store.flag(&workspace("other"), &two).await, Ok(None));
    drop(store);
    let store = backend.open().await;
    assert_eq!(
        store
            .commit(commit(vec![flag("shop", 3, "x"), flag("shop", 4, "fourth")]))
            .await
            .unwrap()
            .flags_inserted
            .len(),
        1
    );
    assert_eq!(
        store.flags(&shop, 3, 10).await.unwrap(),
        [(4, Bytes::from_static(b"fourth"))]
    );
}

/// OWN-1.
async fn check_fencing<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    let key = known("shop", "a");
    let meta = |epoch, partition, bytes: &'static str| Commit {
        epoch,
        partitions: vec![(partition, Bytes::from_static(bytes.as_bytes()))],
        ..Commit::default()
    };
    let unclaimed = store.commit(meta(0, Partition(0), "x")).await;
    assert_eq!(
        unclaimed,
        Err(StoreError::Fenced {
            partition: Partition(0),
            owner: 0,
            epoch: 0
        })
    );
    let first = store.claim(&[Partition(0), Partition(1)]).await.unwrap();
    assert!(store.commit(meta(first, Partition(0), "first")).await.is_ok());
    let second = store.claim(&[Partition(1), home(&key)]).await.unwrap();
    assert!(second > first);
    let stale = store.commit(meta(first, Partition(1), "late")).await;
    assert_eq!(
        stale,
        Err(StoreError::Fenced {
            partition: Partition(1),
            owner: second,
            epoch: first
        })
    );
    assert_eq!(
        store.partition(Partition(1)).await,
        Ok(None),
        "a fenced commit changes nothing"
    );
    let future = store.commit(meta(second + 1, Partition(1), "never claimed")).await;
    assert!(matches!(future, Err(StoreError::Fenced { .. })));
    let other = if home(&key) == Partition(0) { second } else { first };
    assert!(store.commit(meta(other, Partition(0), "still mine")).await.is_ok());
    let customer = Commit {
        epoch: first,
        customers: vec![write(&key, "late")],
        ..Commit::default()
    };
    assert!(
        matches!(store.commit(customer).await, Err(StoreError::Fenced { .. })),
        "customers are fenced as well"
    );
    assert_eq!(store.load(&[key]).await, Ok(vec![None]));
    drop(store);
    let store = backend.open().await;
    assert!(matches!(
        store.commit(meta(first, Partition(1), "late")).await,
        Err(StoreError::Fenced { .. })
    ));
    assert!(store.claim(&[]).await.unwrap() > second, "epochs grow over restarts");
    assert!(matches!(
        store.claim(&[Partition(PARTITIONS)]).await,
        Err(StoreError::Misrouted { .. })
    ));
}

/// OWN-1 against oneself: after an unknown outcome, what is still under way must not count.
async fn check_renewal<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    let meta = |epoch, bytes: &'static str| Commit {
        epoch,
        partitions: vec![(Partition(1), Bytes::from_static(bytes.as_bytes()))],
        ..Commit::default()
    };
    let first = store.claim(&all()).await.unwrap();
    let _ = store.commit(meta(first, "first")).await.unwrap();
    let second = store.renew(first, &all()).await.unwrap();
    assert!(second > first);
    let late = store.commit(meta(first, "late")).await;
    let fenced = StoreError::Fenced {
        partition: Partition(1),
        owner: second,
        epoch: first,
    };
    assert_eq!(late, Err(fenced.clone()));
    let _ = store.commit(meta(second, "second")).await.unwrap();
    // Whoever has been displaced does not come back that way.
    assert_eq!(store.renew(first, &[Partition(1)]).await, Err(fenced));
    let third = store.claim(&[Partition(1)]).await.unwrap();
    assert!(matches!(
        store.renew(second, &all()).await,
        Err(StoreError::Fenced { owner, .. }) if owner == third
    ));
    let _ = store.commit(meta(third, "third")).await.unwrap();
    assert_eq!(
        store.partition(Partition(1)).await.unwrap().as_deref(),
        Some(&b"third"[..])
    );
}

async fn check_refused<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    let epoch = store.claim(&all()).await.unwrap();
    let (good, bad) = (known("shop", "good"), known("shop", "bad"));
    let elsewhere = Partition((home(&bad).0 + 1) % PARTITIONS);
    let commit = Commit {
        judged: Vec::new(),
        epoch,
        partitions: vec![(Partition(0), Bytes::from_static(b"position"))],
        customers: vec![
            write(&good, "x"),
            CustomerWrite {
                partition: elsewhere,
                ..write(&bad, "x")
            },
        ],
        flags: vec![flag("shop", 1, "x")],
    };
    assert_eq!(
        store.commit(commit.clone()).await,
        Err(StoreError::Misrouted { partition: elsewhere })
    );
    let stale = Commit {
        epoch: epoch + 7,
        customers: vec![write(&good, "x")],
        ..commit
    };
    assert!(matches!(store.commit(stale).await, Err(StoreError::Fenced { .. })));
    assert_eq!(store.load(&[good, bad]).await, Ok(vec![None, None]));
    assert_eq!(store.partition(Partition(0)).await, Ok(None));
    assert_eq!(store.flags(&workspace("shop"), 0, 9).await, Ok(vec![]));
}

async fn check_pagination<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    let epoch = store.claim(&all()).await.unwrap();
    let mut keys: Vec<_> = (0..60u16)
        .flat_map(|n| [known("shop", &format!("k{n}")), known("shop2", &format!("k{n}"))])
        .chain((0..20).map(|n| CustomerKey::new(workspace("shop"), PersonId::anonymous(&format!("a{n}")).unwrap())))
        .collect();
    let rank = |key: &CustomerKey| key.person.as_str().len() as u16;
    let customers = keys.iter().map(|key| CustomerWrite {
        rank: Some(rank(key)),
        ..write(key, &key.to_string())
    });
    drop(
        store
            .commit(Commit {
                epoch,
                customers: customers.collect(),
                ..Commit::default()
            })
            .await
            .unwrap(),
    );
    keys.sort();
    let shop = workspace("shop");
    let of_shop: Vec<_> = keys.iter().filter(|key| key.workspace == shop).cloned().collect();
    for limit in [1, 3, 7, 1000] {
        let mut seen = Vec::new();
        loop {
            let page = store.customers(&shop, seen.last().cloned(), limit).await.unwrap();
            assert!(page.iter().all(|(key, bytes)| text(bytes) == key.to_string()));
            seen.extend(page.iter().map(|(key, _)| key.clone()));
            if page.len() < limit {
                break;
            }
        }
        assert_eq!(seen, of_shop, "pages of {limit}");
        let mut scanned = Vec::new();
        for partition in all() {
            let mut last = None;
            loop {
                let page = store.scan(partition, last.clone(), limit).await.unwrap();
                assert!(page.iter().all(|(key, _)| home(key) == partition));
                last = page.last().map(|(key, _)| key.clone()).or(last);
                scanned.extend(page.iter().map(|(key, _)| key.clone()));
                if page.len() < limit {
                    break;
                }
            }
        }
        scanned.sort();
        assert_eq!(scanned, keys, "scans of {limit}");
        let mut ranked: Vec<(u16, CustomerKey)> = Vec::new();
        loop {
            let after = ranked.last().map(|(rank, key)| RankCursor {
                rank: *rank,
                key: key.clone(),
            });
            let page = store.at_risk(&shop, after, limit).await.unwrap();
            ranked.extend(page.iter().map(|(rank, key, _)| (*rank, key.clone())));
            if page.len() < limit {
                break;
            }
        }
        let mut expected: Vec<_> = of_shop.iter().map(|key| (rank(key), key.clone())).collect();
        expected.sort_by_key(|(rank, key)| (u16::MAX - rank, key.clone()));
        assert_eq!(ranked, expected, "ranks in pages of {limit}");
    }
}

async fn check_judgements<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    let epoch = store.claim(&all()).await.unwrap();
    let run = |partition: u16, from: u64, bytes: &'static str| (Partition(partition), Offset(from), Bytes::from(bytes));
    let commit = Commit {
        epoch,
        judged: vec![run(1, 0, "a"), run(1, 5, "b"), run(1, 9, "c"), run(2, 3, "other")],
        ..Commit::default()
    };
    let _ = store.commit(commit).await.unwrap();
    let kept = async |from: u64, limit: usize| -> Vec<(u64, String)> {
        let rows = store.judged(Partition(1), Offset(from), limit).await.unwrap();
        rows.iter().map(|(from, run)| (from.0, text(run).to_owned())).collect()
    };
    let row = |from: u64, bytes: &str| (from, bytes.to_owned());
    assert_eq!(kept(0, 9).await, [row(0, "a"), row(5, "b"), row(9, "c")]);
    assert_eq!(kept(7, 9).await, [row(5, "b"), row(9, "c")], "5 holds 7");
    assert_eq!(kept(5, 1).await, [row(5, "b")]);
    assert_eq!(kept(100, 9).await, [row(9, "c")], "the last run may reach anywhere");
    // 9 is archived, so what begins below is gone, but for the run that may reach to it.
    store.forget_judged(&[(Partition(1), Offset(9))]).await.unwrap();
    assert_eq!(kept(0, 9).await, [row(5, "b"), row(9, "c")]);
    store.forget_judged(&[(Partition(1), Offset(9))]).await.unwrap();
    assert_eq!(kept(0, 9).await, [row(5, "b"), row(9, "c")]);
    assert_eq!(store.judged(Partition(2), Offset(0), 9).await.unwrap().len(), 1);
    assert_eq!(store.judged(Partition(0), Offset(0), 9).await.unwrap(), []);
}

async fn check_snapshots<B: Backend>() {
    let mut backend = B::new();
    let store = backend.open().await;
    let epoch = store.claim(&all()).await.unwrap();
    let (ann, bob) = (known("w", "ann"), known("w", "bob"));
    let commit = |customers, flags, meta: &'static str| Commit {
        epoch,
        partitions: vec![(home(&ann), Bytes::from(meta))],
        customers,
        flags,
        judged: Vec::new(),
    };
    let first = commit(
        vec![write(&ann, "1")],
        vec![flag("w", 1, "f1"), flag("x", 2, "f2")],
        "m1",
    );
    let _ = store.commit(first).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    let second = commit(vec![write(&ann, "2"), write(&bob, "2")], vec![flag("w", 3, "f3")], "m2");
    let _ = store.commit(second).await.unwrap();
    assert_eq!(
        snapshot.partition(home(&ann)).unwrap().as_deref(),
        Some(b"m1".as_slice())
    );
    assert_eq!(
        snapshot.scan(home(&ann), None, 9).unwrap(),
        [(ann.clone(), Bytes::from("1"))]
    );
    assert_eq!(snapshot.scan(home(&ann), Some(&ann), 9).unwrap(), []);
    let (w, x) = (workspace("w"), workspace("x"));
    let all = snapshot.flags(None, 9).unwrap();
    assert_eq!(
        all,
        [(w.clone(), 1, Bytes::from("f1")), (x.clone(), 1, Bytes::from("f2"))]
    );
    assert_eq!(snapshot.flags(Some(&(w, 1)), 9).unwrap(), [(x, 1, Bytes::from("f2"))]);
    assert_eq!(store.snapshot().await.unwrap().flags(None, 9).unwrap().len(), 3);
}

async fn check_reopened<B: Backend>() {
    let mut backend = B::new();
    let key = known("shop", "a");
    for round in 0..4u32 {
        let store = backend.open().await;
        let loaded = store.load(std::slice::from_ref(&key)).await.unwrap();
        let expected = (round > 0).then(|| (round - 1).to_string());
        assert_eq!(loaded[0].as_ref().map(text), expected.as_deref());
        let epoch = store.claim(&all()).await.unwrap();
        drop(
            store
                .commit(Commit {
                    epoch,
                    customers: vec![write(&key, &round.to_string())],
                    ..Commit::default()
                })
                .await,
        );
        if round == 2 {
            store.persist().await.unwrap();
        }
    }
}

/// What a random test does to a store.
#[derive(Debug, Clone)]
enum Action {
    Commit {
        customers: Vec<(CustomerKey, u8, Option<i64>, Option<u16>)>,
        flags: Vec<(bool, u8)>,
        meta: Option<u16>,
        stale: bool,
    },
    Claim,
    Reopen,
}

/// A few ids that try to be taken for one another.
fn key() -> impl Strategy<Value = CustomerKey> {
    let id = prop_oneof![
        Just("a"),
        Just("b"),
        Just("a}"),
        Just("ÿ"),
        Just("aÿ"),
        Just("}{"),
        Just("a:b"),
        Just("\u{10ffff}")
    ];
    let space = prop_oneof![Just("w"), Just("w}"), Just("wa"), Just("ÿ")];
    (space, id, any::<bool>()).prop_map(|(space, id, is_known)| {
        let person = if is_known {
            PersonId::known(id)
        } else {
            PersonId::anonymous(id)
        };
        CustomerKey::new(workspace(space), person.unwrap())
    })
}

fn action() -> impl Strategy<Value = Action> {
    let customer = (
        key(),
        any::<u8>(),
        proptest::option::of(-3i64..10),
        proptest::option::of(0u16..4),
    );
    let commit = (
        proptest::collection::vec(customer, 0..6),
        proptest::collection::vec((any::<bool>(), 0u8..6), 0..3),
        proptest::option::of(0..PARTITIONS),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(customers, flags, meta, stale)| Action::Commit {
            customers,
            flags,
            meta,
            stale,
        });
    prop_oneof![20 => commit, 1 => Just(Action::Claim), 1 => Just(Action::Reopen)]
}

/// The obvious store: one map per question.
#[derive(Default)]
struct Model {
    customers: BTreeMap<CustomerKey, (u8, Option<i64>, Option<u16>)>,
    flags: BTreeMap<Workspace, Vec<(FlagId, Bytes)>>,
    meta: BTreeMap<Partition, Bytes>,
}

fn check_model<B: Backend>() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    proptest!(ProptestConfig::with_cases(B::CASES), |(actions in proptest::collection::vec(action(), 1..40))| {
        runtime.block_on(async {
            let mut backend = B::new();
            let mut store = backend.open().await;
            let mut epoch = store.claim(&all()).await.unwrap();
            let mut model = Model::default();
            for (step, action) in actions.into_iter().enumerate() {
                match action {
                    Action::Claim => epoch = store.claim(&all()).await.unwrap(),
                    Action::Reopen => {
                        drop(store);
                        store = backend.open().await;
                    }
                    Action::Commit { customers, flags, meta, stale } => {
                        let mut next = BTreeMap::new();
                        let customers = customers.into_iter().map(|(key, value, timer, rank)| {
                            let previous = next.get(&key).or(model.customers.get(&key)).copied().unwrap_or((0, None, None));
                            let _before = next.insert(key.clone(), (value, timer, rank));
                            CustomerWrite {
                                timer: timer.map(Timestamp),
                                previous_timer: previous.1.map(Timestamp),
                                stale_timers: Vec::new(),
                                rank,
                                previous_rank: previous.2,
                                ..write(&key, &value.to_string())
                            }
                        });
                        let commit = Commit {
                            judged: Vec::new(),
                            customers: customers.collect(),
                            partitions: meta.map(|p| (Partition(p), Bytes::from(step.to_string()))).into_iter().collect(),
                            flags: flags.iter().map(|(shop, id)| flag(if *shop { "w" } else { "w}" }, *id, "body")).collect(),
                            epoch: if stale { epoch - 1 } else { epoch },
                        };
                        let touches = !commit.customers.is_empty() || !commit.partitions.is_empty() || !commit.flags.is_empty();
                        let result = store.commit(commit.clone()).await;
                        if stale && touches {
                            prop_assert_eq!(result.unwrap_err().tag(), "fenced");
                        } else {
                            model.customers.extend(next);
                            model.meta.extend(commit.partitions);
                            let mut inserted = Vec::new();
                            for row in commit.flags {
                                let rows = model.flags.entry(row.workspace).or_default();
                                if rows.iter().all(|(id, _)| *id != row.id) {
                                    rows.push((row.id, row.body));
                                    inserted.push(row.id);
                                }
                            }
                            prop_assert_eq!(result.unwrap().flags_inserted, inserted);
                        }
                    }
                }
                compare(&store, &model).await?;
            }
            Ok(())
        })?;
    });
}

async fn compare(store: &impl Store, model: &Model) -> Result<(), TestCaseError> {
    for partition in all() {
        prop_assert_eq!(
            store.partition(partition).await.unwrap(),
            model.meta.get(&partition).cloned()
        );
        let here = || model.customers.iter().filter(|(key, _)| home(key) == partition);
        let scanned = store.scan(partition, None, 1000).await.unwrap();
        let expected: Vec<_> = here()
            .map(|(key, (value, ..))| (key.clone(), Bytes::from(value.to_string())))
            .collect();
        prop_assert_eq!(scanned, expected);
        let mut timers: Vec<_> = here()
            .filter_map(|(key, (_, at, _))| Some((Timestamp((*at)?), key.clone())))
            .collect();
        timers.sort();
        prop_assert_eq!(
            store.next_due(partition).await.unwrap(),
            timers.first().map(|(due, _)| *due)
        );
        timers.retain(|(due, _)| *due <= Timestamp(4));
        prop_assert_eq!(store.due(partition, Timestamp(4), 1000).await.unwrap(), timers);
    }
    let spaces: BTreeSet<_> = ["w", "w}", "wa", "ÿ"].map(workspace).into();
    for space in &spaces {
        let here = || model.customers.iter().filter(|(key, _)| key.workspace == *space);
        let listed: Vec<_> = store
            .customers(space, None, 1000)
            .await
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        prop_assert_eq!(listed, here().map(|(key, _)| key.clone()).collect::<Vec<_>>());
        let mut ranked: Vec<_> = here()
            .filter_map(|(key, (_, _, rank))| Some((u16::MAX - (*rank)?, key.clone())))
            .collect();
        ranked.sort();
        let listed = store.at_risk(space, None, 1000).await.unwrap();
        prop_assert_eq!(
            listed
                .into_iter()
                .map(|(rank, key, _)| (u16::MAX - rank, key))
                .collect::<Vec<_>>(),
            ranked
        );
        let none = Vec::new();
        let flags = model.flags.get(space).unwrap_or(&none);
        let expected: Vec<_> = (1u64..).zip(flags.iter().map(|(_, body)| body.clone())).collect();
        prop_assert_eq!(store.flags(space, 0, 1000).await.unwrap(), expected);
        for id in (0u8..6).map(|id| FlagId([id; 16])) {
            let body = flags
                .iter()
                .find(|(known, _)| *known == id)
                .map(|(_, body)| body.clone());
            prop_assert_eq!(store.flag(space, &id).await.unwrap(), body);
        }
    }
    Ok(())
}
