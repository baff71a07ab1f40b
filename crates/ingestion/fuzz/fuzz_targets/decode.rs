//! Any bytes as a body of any protocol: every event is an event or a letter, and nothing panics. The first byte chooses the
//! protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vigie_event::json::Receipt;
use vigie_event::{Source, Timestamp, Workspace};
use vigie_ingestion::limits::Limits;
use vigie_ingestion::protocol::decode;

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let receipt = Receipt {
        workspace: Workspace::new("w").unwrap(),
        received_at: Timestamp(1_795_000_000_000),
        sent_at: None,
        user_agent: None,
        oldest: None,
    };
    let source = Source::ALL[usize::from(*first) % Source::ALL.len()];
    let _taken = decode(source, body, &receipt, &Limits::default());
});
