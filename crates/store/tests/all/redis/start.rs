//! What is checked before a store is used, what other programs read of it, and damage by hand.

use super::server::Server;
use super::{namespace, options};
use crate::contract::{PARTITIONS, all, home, known, workspace, write};
use bytes::Bytes;
use vigie_event::{FlagId, Offset, Partition};
use vigie_store::{
    Commit, CustomerWrite, ErrorClass, FlagRow, Projection, RedisOptions, RedisStore, Store, StoreError,
};

fn refused(outcome: Result<RedisStore, StoreError>) -> String {
    match outcome.unwrap_err() {
        StoreError::Layout { reason } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn unfit_servers_are_refused_with_what_to_do() {
    let server = Server::start(&[("maxmemory-policy", "allkeys-lru")]);
    let volatile = options(vec![server.url()], "vigie");
    let reason = refused(RedisStore::create(&volatile, 1).await);
    assert!(reason.contains("config set maxmemory-policy noeviction"), "{reason}");
    assert!(
        server
            .ask(&["config", "set", "maxmemory-policy", "noeviction"])
            .contains("OK")
    );
    let durable = RedisOptions::new(vec![server.url()], PARTITIONS);
    let reason = refused(RedisStore::create(&durable, 1).await);
    assert!(reason.contains("config set appendonly yes"), "{reason}");
    assert!(server.ask(&["config", "set", "appendonly", "yes"]).contains("OK"));
    assert_eq!(server.ask(&["dbsize"]).trim(), "0", "nothing was written so far");
    drop(RedisStore::create(&durable, 1).await.unwrap());
    let other = RedisOptions::new(vec![server.url()], PARTITIONS * 2);
    let reason = refused(RedisStore::open(&other).await);
    assert!(reason.contains("created with 4 partitions, not 8"), "{reason}");
    for (nodes, told) in [
        (vec![], "no redis address"),
        (vec!["http://nowhere".to_owned()], "redis://"),
        (vec![server.url()], "namespace"),
    ] {
        let wrong = RedisOptions {
            namespace: if told == "namespace" {
                "a{b".to_owned()
            } else {
                "vigie".to_owned()
            },
            ..RedisOptions::new(nodes, PARTITIONS)
        };
        let reason = refused(RedisStore::open(&wrong).await);
        assert!(reason.contains(told), "{reason}");
    }
}

#[tokio::test]
async fn a_replica_alone_is_waited_for() {
    let master = Server::start(&[]);
    let replica = Server::start(&[("replicaof", &format!("127.0.0.1 {}", master.port))]);
    let error = RedisStore::open(&options(vec![replica.url()], "vigie"))
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::External);
    assert!(error.to_string().contains("is a replica"), "{error}");
    let both = options(vec![replica.url(), master.url()], "vigie");
    drop(RedisStore::create(&both, 1).await.unwrap());
}

/// An interrupted making is finished; a partition that went away is lost, also for who would make a store.
#[tokio::test]
async fn new_unfinished_and_lost_are_told_apart() {
    let server = Server::start(&[]);
    let options = options(vec![server.url()], "vigie");
    assert!(matches!(RedisStore::open(&options).await, Err(StoreError::Lost { .. })));
    let store = RedisStore::create(&options, 1).await.unwrap();
    drop(store);
    assert_eq!(server.ask(&["del", "vigie:{0}:partition"]).trim(), "1");
    assert!(matches!(RedisStore::open(&options).await, Err(StoreError::Lost { .. })));
    let store = RedisStore::create(&options, 2).await.unwrap();
    let epoch = store.claim(&all()).await.unwrap();
    let meta = |partition: u16| (Partition(partition), Bytes::from_static(b"m"));
    let commit = Commit {
        epoch,
        partitions: vec![meta(1)],
        ..Commit::default()
    };
    let _ = store.commit(commit).await.unwrap();
    for gone in ["vigie:{0}:partition", "vigie:{2}:partition"] {
        assert_eq!(server.ask(&["del", gone]).trim(), "1");
        for outcome in [RedisStore::open(&options).await, RedisStore::create(&options, 3).await] {
            assert!(matches!(outcome, Err(StoreError::Lost { .. })), "{outcome:?}");
        }
    }
    // Reads do not take the missing for new either.
    let key = (0..)
        .map(|n| known("shop", &n.to_string()))
        .find(|key| home(key) == Partition(2))
        .unwrap();
    assert!(matches!(store.load(&[key]).await, Err(StoreError::Lost { .. })));
    assert!(matches!(store.persist().await, Err(StoreError::Lost { .. })));
}

/// The public contract, read as an outsider does.
#[tokio::test]
async fn what_redis_cli_shows() {
    let server = Server::start(&[]);
    let store = RedisStore::create(&options(vec![server.url()], "vigie"), 1)
        .await
        .unwrap();
    let epoch = store.claim(&all()).await.unwrap();
    let (ann, bob) = (known("shop", "ann"), known("shop", "bob"));
    let fields = |all: &[(&'static str, &'static str)]| {
        Projection(
            all.iter()
                .map(|(name, value)| (*name, Bytes::from_static(value.as_bytes())))
                .collect(),
        )
    };
    let first = Commit {
        epoch,
        customers: vec![
            CustomerWrite {
                rank: Some(60_000),
                fields: fields(&[("attrition", "0.915"), ("stage", "lapsed")]),
                ..write(&ann, "binary")
            },
            CustomerWrite {
                rank: Some(100),
                ..write(&bob, "binary")
            },
        ],
        flags: vec![FlagRow {
            workspace: workspace("shop"),
            partition: home(&ann),
            id: FlagId([0xab; 16]),
            body: Bytes::from_static(br#"{"customer":"ann"}"#),
        }],
        ..Commit::default()
    };
    let _ = store.commit(first).await.unwrap();
    let hash = format!("vigie:{{{}}}:shop:customer:ann", home(&ann));
    assert_eq!(
        server.ask(&["hgetall", &hash]),
        "state\nbinary\nattrition\n0.915\nstage\nlapsed\n"
    );
    assert_eq!(server.ask(&["ttl", &hash]).trim(), "-1", "no key expires");
    let lists: Vec<String> = all()
        .iter()
        .map(|partition| format!("vigie:{{{partition}}}:at-risk:shop"))
        .collect();
    let union: Vec<&str> = ["zunion", "4"]
        .into_iter()
        .chain(lists.iter().map(String::as_str))
        .chain(["withscores"])
        .collect();
    assert_eq!(server.ask(&union), "customer:ann\n-60000\ncustomer:bob\n-100\n");
    let relances = server.ask(&["xrange", "vigie:{shop}:relances", "-", "+"]);
    assert!(relances.starts_with("1-0\nid\nabababab"), "{relances}");
    assert!(relances.contains(r#"{"customer":"ann"}"#), "{relances}");
    // Fields that are no longer published disappear.
    let second = Commit {
        epoch,
        customers: vec![CustomerWrite {
            previous_rank: Some(60_000),
            fields: fields(&[("stage", "active")]),
            ..write(&ann, "changed")
        }],
        ..Commit::default()
    };
    let _ = store.commit(second).await.unwrap();
    assert_eq!(server.ask(&["hgetall", &hash]), "state\nchanged\nstage\nactive\n");
    // Flags leave the outbox once they are safe, and the stream keeps them.
    let outbox = format!("vigie:{{{}}}:outbox", home(&ann));
    assert_eq!(server.ask(&["llen", &outbox]).trim(), "1");
    store.persist().await.unwrap();
    assert_eq!(server.ask(&["llen", &outbox]).trim(), "0");
    assert_eq!(store.flags(&workspace("shop"), 0, 9).await.unwrap().len(), 1);
}

/// F27: a key of the wrong type anywhere makes a commit fail as a whole, as damage.
#[tokio::test]
async fn a_commit_that_meets_damage_changes_nothing() {
    let server = Server::start(&[]);
    let (ann, bob) = (known("shop", "ann"), known("shop", "bob"));
    let place = home(&ann);
    for damaged in [
        format!("{{{place}}}:customers"),
        format!("{{{place}}}:timers"),
        format!("{{{place}}}:judged"),
        format!("{{{place}}}:outbox"),
        format!("{{{place}}}:workspaces"),
        format!("{{{place}}}:at-risk:shop"),
        format!("{{{place}}}:shop:customer:ann"),
    ] {
        let space = namespace();
        let store = RedisStore::create(&options(vec![server.url()], &space), 1)
            .await
            .unwrap();
        let epoch = store.claim(&all()).await.unwrap();
        assert!(server.ask(&["set", &format!("{space}:{damaged}"), "x"]).contains("OK"));
        let before = server.ask(&["dbsize"]);
        let mut customers = vec![CustomerWrite {
            rank: Some(5),
            timer: Some(vigie_event::Timestamp(5)),
            ..write(&ann, "x")
        }];
        // Another customer of the same partition, if this one happens to be.
        customers.extend((home(&bob) == place).then(|| write(&bob, "y")));
        let commit = Commit {
            epoch,
            partitions: vec![(place, Bytes::from_static(b"position"))],
            customers,
            flags: vec![FlagRow {
                workspace: workspace("shop"),
                partition: place,
                id: FlagId([1; 16]),
                body: Bytes::new(),
            }],
            judged: vec![(place, Offset(0), Bytes::from_static(b"j"))],
        };
        let error = store.commit(commit).await.unwrap_err();
        assert_eq!(error.tag(), "corrupt", "{damaged}: {error}");
        assert_eq!(server.ask(&["dbsize"]), before, "{damaged}");
        assert_eq!(store.partition(place).await, Ok(None), "{damaged}");
    }
}
