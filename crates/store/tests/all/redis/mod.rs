//! The store in Redis: real servers, started by the tests.

mod server;
mod start;

use crate::contract::{Backend, PARTITIONS};
use server::{Cluster, Server};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use vigie_store::{RedisOptions, RedisStore};

/// A namespace of its own on a server that tests share while any of them runs.
pub(crate) struct Single {
    server: Arc<Server>,
    namespace: String,
}

/// The same in a cluster.
pub(crate) struct Clustered {
    cluster: Arc<Cluster>,
    namespace: String,
}

static SINGLE: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static NAMESPACES: AtomicU32 = AtomicU32::new(0);

fn shared<T>(place: &Mutex<Weak<T>>, start: impl FnOnce() -> T) -> Arc<T> {
    let mut place = place.lock().unwrap();
    place.upgrade().unwrap_or_else(|| {
        let started = Arc::new(start());
        *place = Arc::downgrade(&started);
        started
    })
}

fn namespace() -> String {
    format!("test-{}", NAMESPACES.fetch_add(1, Ordering::Relaxed))
}

/// Settings for servers that keep nothing.
pub(crate) fn options(nodes: Vec<String>, namespace: &str) -> RedisOptions {
    RedisOptions {
        namespace: namespace.to_owned(),
        volatile: true,
        ..RedisOptions::new(nodes, PARTITIONS)
    }
}

impl Backend for Single {
    type Store = RedisStore;
    const CASES: u32 = 8;

    fn new() -> Self {
        Self {
            server: shared(&SINGLE, || Server::start(&[])),
            namespace: namespace(),
        }
    }

    async fn open(&mut self) -> RedisStore {
        let options = options(vec![self.server.url()], &self.namespace);
        RedisStore::create(&options, 7).await.unwrap()
    }
}

impl Backend for Clustered {
    type Store = RedisStore;
    const CASES: u32 = 3;

    fn new() -> Self {
        Self {
            cluster: shared(&CLUSTER, Cluster::start),
            namespace: namespace(),
        }
    }

    async fn open(&mut self) -> RedisStore {
        let options = options(self.cluster.urls(), &self.namespace);
        RedisStore::create(&options, 7).await.unwrap()
    }
}
