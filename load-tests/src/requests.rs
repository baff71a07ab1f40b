//! Requests of people's programs: a pixel that a page or a mail loads, a link of a mail that somebody follows.

use crate::client::Client;
use crate::events::now_ms;
use crate::generator::Requests;
use crate::server::WRITE_KEY;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Page views as Snowplow's trackers send them without JavaScript. The key is in the query: a picture has no headers.
pub(crate) struct Pixels {
    customers: u64,
    run: usize,
    start_ms: u128,
}

impl Pixels {
    pub(crate) fn new(customers: u32, run: usize) -> Result<Self> {
        Ok(Self {
            customers: u64::from(customers),
            run,
            start_ms: now_ms()?,
        })
    }
}

impl Requests for Pixels {
    fn request(&self, number: u64) -> (Method, String, Bytes) {
        // Fibonacci hashing: every customer in turn, in no order.
        let customer = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.customers;
        let at = self.start_ms - 3_600_000 + u128::from(number);
        let path = format!(
            "/i?key={WRITE_KEY}&e=pv&p=web&tv=no-js-0.1&aid=shop&eid=pixel-{}-{number}&uid=c{customer:07}&dtm={at}\
             &url=https%3A%2F%2Fshop.example%2Fp%2F{:06}&page=Product",
            self.run,
            number % 500_000
        );
        (Method::GET, path, Bytes::new())
    }

    fn events(&self) -> u64 {
        1
    }
}

/// Clicks on links that the server signed.
pub(crate) struct Clicks(Vec<String>);

impl Clicks {
    /// The settings under which a server signs links.
    pub(crate) const SETTINGS: &str = "[links]\npublic-url = \"http://127.0.0.1\"\n[[link-keys]]\nid = \"load\"\n\
                                       secret = \"a secret of the load test, of no worth\"\n";

    /// Has a link signed for each of so many people.
    pub(crate) async fn signed(server: SocketAddr, people: u32) -> Result<Self> {
        let mut client = Client::connect(server, WRITE_KEY).await?;
        let mut paths = Vec::new();
        for person in 0..people {
            let wanted = json!({
                "user_id": format!("c{person:07}"), "message_id": "m1", "clicks": ["https://shop.example/sale"],
            });
            let (status, answer) = client
                .send(Method::POST, "/v1/links", wanted.to_string().into())
                .await?;
            ensure!(
                status.is_success(),
                "signing a link: {}",
                String::from_utf8_lossy(&answer)
            );
            let answer: Value = serde_json::from_slice(&answer)?;
            let link = answer.pointer("/clicks/0").and_then(Value::as_str).context("no link")?;
            let path = link
                .find("/c/")
                .and_then(|at| link.get(at..))
                .context("a link to elsewhere")?;
            paths.push(path.to_owned());
        }
        Ok(Self(paths))
    }
}

impl Requests for Clicks {
    fn request(&self, number: u64) -> (Method, String, Bytes) {
        let turn = usize::try_from(number).unwrap_or(0) % self.0.len().max(1);
        (Method::GET, self.0.get(turn).cloned().unwrap_or_default(), Bytes::new())
    }

    fn events(&self) -> u64 {
        1
    }

    fn taken(&self, status: StatusCode) -> bool {
        status == StatusCode::FOUND
    }
}
