//! Any text as a token of a link: none that was not made with the key is followed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vigie_event::Timestamp;
use vigie_ingestion::keys::Secret;
use vigie_ingestion::links::{LinkKey, LinkSpec, Links};

fuzz_target!(|token: &str| {
    let key = LinkKey { id: "k1".to_owned(), secret: Secret::new("sixteen-".repeat(4)) };
    let spec = LinkSpec { keys: vec![key], public_url: "https://t.example".to_owned(), hosts: Default::default(), days: 1 };
    let links = Links::new(spec).unwrap();
    assert!(links.read(token, Timestamp(1_795_000_000_000)).is_err());
});
