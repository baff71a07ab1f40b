//! What the tests share: events in one line, a small runtime, and the shipped model and policies.

use std::future::Future;
use vigie_event::json::{Receipt, read};
use vigie_event::{CustomerKey, Event, PersonId, Timestamp, Workspace};
use vigie_pipeline::Sim;
use vigie_relance::PolicySet;
use vigie_scoring::Model;

pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

pub fn workspace() -> Workspace {
    Workspace::new("shop").unwrap()
}

pub fn known(id: &str) -> CustomerKey {
    CustomerKey::new(workspace(), PersonId::known(id).unwrap())
}

pub fn event(json: &str, received_at: Timestamp) -> Event {
    let receipt = Receipt {
        workspace: workspace(),
        received_at,
        sent_at: None,
        user_agent: None,
        oldest: None,
    };
    read(json, &receipt).unwrap_or_else(|invalid| panic!("{invalid}: {json}"))
}

pub fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

pub async fn sim(partitions: u16, now: Timestamp) -> Sim {
    Sim::start(partitions, Model::shipped_text(), PolicySet::shipped_text(), now)
        .await
        .unwrap()
}

/// splitmix64: small, and the same for ever.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `sides`.
    pub fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}
