//! A small TCP proxy before a broker that can lose the answer to a request: it forwards the request, waits for the answer,
//! and cuts the connection instead of passing it on.
//!
//! Both directions are framed as Kafka frames them: four bytes of length, then the message; a request begins with its API
//! key and carries a correlation id that its answer repeats.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicI32, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The proxy.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    target: AtomicU16,
    /// The API key whose next answer is lost; -1 for none.
    lose: AtomicI32,
    lost: AtomicU64,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            lose: AtomicI32::new(-1),
            ..Shared::default()
        });
        let serving = Arc::clone(&shared);
        drop(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                drop(tokio::spawn(async move {
                    // However it ends, both sides see a closed connection.
                    let _ = serve(client, &shared).await;
                }));
            }
        }));
        Self { port, shared }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where connections go from now on.
    pub(crate) fn to(&self, port: u16) {
        self.shared.target.store(port, Ordering::SeqCst);
    }

    /// The next answer to a request of this kind (0 is Produce) is lost with its connection.
    pub(crate) fn lose_next(&self, api_key: i16) {
        self.shared.lose.store(i32::from(api_key), Ordering::SeqCst);
    }

    /// How many were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

async fn frame(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut bytes = vec![0; length as usize];
    let _ = from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn pass(to: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    to.write_u32(bytes.len() as u32).await?;
    to.write_all(bytes).await?;
    to.flush().await
}

async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.target.load(Ordering::SeqCst))).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let asked: Mutex<HashMap<[u8; 4], i16>> = Mutex::default();
    let requests = async {
        loop {
            let request = frame(&mut from_client).await?;
            let (key, correlation) = (&request[..2], &request[4..8]);
            let key = i16::from_be_bytes(key.try_into().unwrap());
            let _ = asked.lock().unwrap().insert(correlation.try_into().unwrap(), key);
            pass(&mut to_broker, &request).await?;
        }
    };
    let answers = async {
        loop {
            let answer = frame(&mut from_broker).await?;
            let correlation: [u8; 4] = answer[..4].try_into().unwrap();
            let key = asked.lock().unwrap().remove(&correlation);
            let lose = shared.lose.load(Ordering::SeqCst);
            if key.is_some_and(|key| i32::from(key) == lose)
                && shared
                    .lose
                    .compare_exchange(lose, -1, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
            {
                let _ = shared.lost.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            pass(&mut to_client, &answer).await?;
        }
    };
    // Whichever ends first ends the connection.
    tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    }
}
