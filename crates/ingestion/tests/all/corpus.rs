//! The corpus of the fuzz targets as a plain test: each seed decodes, and what is near it neither panics nor is lost. What
//! is refused can be read again as a letter only with the same verdict.

use crate::bench::NOW;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use vigie_event::json::Receipt;
use vigie_event::{Source, Workspace};
use vigie_ingestion::limits::Limits;
use vigie_ingestion::protocol::{decode, read_again};

fn receipt() -> Receipt {
    Receipt {
        workspace: Workspace::new("shop").unwrap(),
        received_at: NOW,
        sent_at: None,
        user_agent: None,
        oldest: None,
    }
}

fn seeds() -> BTreeMap<Source, Vec<Vec<u8>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let read = |source: &Source| {
        let files = std::fs::read_dir(root.join(source.name())).ok()?;
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        Some((*source, files.iter().map(|file| std::fs::read(file).unwrap()).collect()))
    };
    Source::ALL.iter().filter_map(read).collect()
}

fn check(source: Source, body: &[u8]) -> usize {
    let limits = Limits::default();
    let Ok(taken) = decode(source, body, &receipt(), &limits) else {
        return 0;
    };
    let mut events = 0;
    for taken in taken {
        match taken {
            Ok(event) => {
                assert!(event.person.key().is_some());
                assert_eq!(event.received_at, NOW);
                events += 1;
            }
            Err(letter) => {
                let again = read_again(&letter, &limits);
                assert!(
                    again.is_err(),
                    "{}: refused once and taken the second time: {letter:?}",
                    source.name()
                );
            }
        }
    }
    events
}

#[test]
fn every_seed_holds_an_event() {
    let seeds = seeds();
    assert_eq!(
        seeds.len(),
        Source::ALL.len() - 4,
        "all but import, simulator, links and tracker have their own shape"
    );
    for (source, bodies) in seeds {
        let events: usize = bodies.iter().map(|body| check(source, body)).sum();
        assert!(events > 0, "{}", source.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Seeds with a few bytes changed, cut, or doubled.
    #[test]
    fn what_is_near_a_seed_is_read_or_kept(
        choice in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..6),
    ) {
        let all: Vec<_> = seeds().into_iter().flat_map(|(source, bodies)| bodies.into_iter().map(move |body| (source, body))).collect();
        let (source, mut body) = choice.get(&all).clone();
        for (at, byte, edit) in edits {
            if body.is_empty() {
                break;
            }
            let at = at.index(body.len());
            match edit {
                0 => body[at] = byte,
                1 => body.truncate(at),
                2 => body.insert(at, byte),
                _ => drop(body.remove(at)),
            }
        }
        let _events: usize = check(source, &body);
    }
}
