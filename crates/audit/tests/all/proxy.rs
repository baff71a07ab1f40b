//! A wire that can be cut: passes bytes on to a server and, when told to, breaks the connection after so many bytes of
//! answers. What the server did meanwhile, it has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct Proxy {
    port: u16,
    budget: Arc<Budget>,
}

struct Budget {
    /// Bytes of answers that may still pass; negative: all.
    left: AtomicI64,
    cuts: AtomicU64,
}

impl Proxy {
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let budget = Arc::new(Budget {
            left: AtomicI64::new(-1),
            cuts: AtomicU64::new(0),
        });
        let shared = Arc::clone(&budget);
        drop(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                drop(tokio::spawn(pass(client, server, Arc::clone(&shared))));
            }
        }));
        Self { port, budget }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Breaks one connection after so many further bytes of answers.
    pub fn cut_after(&self, bytes: u64) {
        self.budget.left.store(bytes as i64, Ordering::SeqCst);
    }

    /// Connections broken so far.
    pub fn cuts(&self) -> u64 {
        self.budget.cuts.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, server: u16, budget: Arc<Budget>) {
    let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    let asking = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = [0; 4096];
    while let Ok(count) = from_server.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let left = budget.left.load(Ordering::SeqCst);
        if left >= 0 && (left as usize) < count {
            budget.left.store(-1, Ordering::SeqCst);
            let _ = budget.cuts.fetch_add(1, Ordering::SeqCst);
            let _ = to_client.write_all(&buffer[..left as usize]).await;
            break;
        }
        if left >= 0 {
            budget.left.store(left - count as i64, Ordering::SeqCst);
        }
        if to_client.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    asking.abort();
}
