//! The corpus of the fuzz targets as a plain test: each seed of a protocol holds an event, and nothing near a seed makes a
//! target fail. What the targets assert is in `fuzz/src/targets.rs`.

use crate::targets::{TARGETS, events_in};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use vigie_event::Source;

/// The seeds of each target, in order of their names.
fn seeds() -> BTreeMap<String, Vec<Vec<u8>>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let dirs = std::fs::read_dir(root).unwrap().map(|dir| dir.unwrap().path());
    dirs.map(|dir| {
        let mut files: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        let bodies = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        (dir.file_name().unwrap().to_string_lossy().into_owned(), bodies)
    })
    .collect()
}

#[test]
fn every_target_has_seeds_and_every_decoder_a_target() {
    let targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    let mut sorted = targets.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, seeds().keys().map(String::as_str).collect::<Vec<_>>());
    for source in Source::ALL {
        // These come as canonical events.
        let ours = [Source::Import, Source::Simulator, Source::Links, Source::Tracker];
        assert!(
            ours.contains(source) || targets.contains(&source.name()),
            "{}",
            source.name()
        );
    }
}

#[test]
fn every_seed_passes_and_every_protocol_has_one_with_an_event() {
    for (name, bodies) in seeds() {
        let target = TARGETS.iter().find(|target| target.name == name).unwrap();
        bodies.iter().for_each(|body| (target.run)(body));
        if let Some(source) = Source::ALL.iter().find(|source| source.name() == name) {
            let events: usize = bodies.iter().map(|body| events_in(*source, body)).sum();
            assert!(events > 0, "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Seeds with a few bytes changed, cut, or doubled.
    #[test]
    fn what_is_near_a_seed_is_read_or_kept(
        target in prop::sample::select(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>()),
        choice in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..6),
    ) {
        let mut body = choice.get(&SEEDS[target]).clone();
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
        let target = TARGETS.iter().find(|known| known.name == target).unwrap();
        (target.run)(&body);
    }
}

static SEEDS: std::sync::LazyLock<BTreeMap<String, Vec<Vec<u8>>>> = std::sync::LazyLock::new(seeds);
