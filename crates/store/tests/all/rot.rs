//! F06, the store's half: single bits of its files are flipped. Whatever is read afterwards is what some prefix of the
//! commits made of the store, or an error; never anything else.
//!
//! The oracle is [`MemoryStore`], to which the same commits were made. A prefix that is shorter than it was is harmless:
//! the position in the log belongs to the same commit, so the worker folds the rest of the log again, and a log that has
//! forgotten that rest refuses to be read from there (`LogError::Gap`). What comes back is therefore the same store.

use crate::contract::{all, workspace};
use crate::embedded::{options, step};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use vigie_event::Timestamp;
use vigie_store::{EmbeddedStore, MemoryStore, Store, StoreError};

const SEED: u64 = 30;
const FLIPS: u64 = 2_000;
const STEPS: u64 = 24;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}

/// Everything that a reader can see.
async fn everything(store: &impl Store) -> Result<Vec<Bytes>, StoreError> {
    let shop = workspace("shop");
    let text = |text: String| Bytes::from(text);
    let mut seen = Vec::new();
    for partition in all() {
        seen.push(text(format!("{partition}")));
        seen.extend(store.partition(partition).await?);
        for (at, key) in store.due(partition, Timestamp(i64::MAX), 10_000).await? {
            seen.push(text(format!("due {at:?} {key}")));
        }
        for (key, bytes) in store.scan(partition, None, 10_000).await? {
            seen.extend([text(format!("record {key}")), bytes]);
        }
    }
    for (rank, key, bytes) in store.at_risk(&shop, None, 10_000).await? {
        seen.extend([text(format!("rank {rank} {key}")), bytes]);
    }
    for (number, bytes) in store.flags(&shop, 0, 10_000).await? {
        seen.extend([text(format!("flag {number}")), bytes]);
    }
    Ok(seen)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work)
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read(dir: &Path, from: &Path, files: &mut Files) {
    for item in std::fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            read(dir, &path, files);
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            if path.extension().is_some_and(|extension| extension == "jnl") {
                // The zeros that fjall allocates ahead are no data.
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                bytes.truncate(used);
            }
            let _none = files.insert(path.strip_prefix(dir).unwrap().to_owned(), bytes);
        }
    }
}

fn write(dir: &Path, files: &Files) {
    let _absent = std::fs::remove_dir_all(dir);
    for (path, bytes) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// A directory whose fsyncs cost nothing, where there is one.
fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

#[derive(Debug, Default)]
struct Outcomes {
    refused_at_start: u64,
    error_when_read: u64,
    /// The whole store, as if nothing had happened: no reader needs that bit.
    unharmed: u64,
    /// An earlier commit, whole.
    earlier: u64,
    /// Errors that name the file: ours do, most of fjall's do not.
    names_file: u64,
}

#[test]
fn a_flipped_bit_is_refused_or_gives_a_prefix_of_the_commits() {
    let memory = MemoryStore::new(4);
    let place = place();
    let dir = place.path().join("store");
    let mut prefixes = Vec::new();
    block_on(async {
        let store = EmbeddedStore::open(&dir, &options()).unwrap();
        prefixes.push(everything(&memory).await.unwrap());
        let epochs = (store.claim(&all()).await.unwrap(), memory.claim(&all()).await.unwrap());
        for number in 0..STEPS {
            step(&store, epochs.0, number).await;
            step(&memory, epochs.1, number).await;
            prefixes.push(everything(&memory).await.unwrap());
        }
    });
    let mut with_journal = Files::new();
    read(&dir, &dir, &mut with_journal);
    // Old data lives in tables only: the journal that once had it is gone.
    let mut tables_only = with_journal.clone();
    let journals = |files: &Files| -> Vec<PathBuf> {
        let journals = files.keys().filter(|path| path.extension().is_some_and(|e| e == "jnl"));
        journals.cloned().collect()
    };
    for journal in journals(&with_journal) {
        let _bytes = tables_only.insert(journal, Vec::new());
    }
    let seen = |files: &Files| {
        write(&dir, files);
        block_on(async {
            let store = EmbeddedStore::open(&dir, &options()).map_err(|error| (true, error))?;
            everything(&store).await.map_err(|error| (false, error))
        })
    };
    let which = |seen: &[Bytes]| prefixes.iter().position(|prefix| prefix == seen);
    assert_eq!(which(&seen(&with_journal).unwrap()), Some(STEPS as usize));
    let in_tables = which(&seen(&tables_only).unwrap()).unwrap();
    assert!(in_tables > 0, "no table was written: nothing is measured");

    let mut random = Random(SEED);
    let mut outcomes = [Outcomes::default(), Outcomes::default()];
    let mut failures = Vec::new();
    for flip in 0..FLIPS {
        let half = usize::from(flip % 2 == 0);
        let (files, whole) = [(&with_journal, STEPS as usize), (&tables_only, in_tables)][half];
        let sizes: Vec<(&PathBuf, u64)> = files.iter().map(|(path, bytes)| (path, bytes.len() as u64)).collect();
        let mut place = random.below(sizes.iter().map(|(_, size)| size).sum());
        let mut victim = None;
        for (path, size) in sizes {
            if place < size {
                victim = Some(path.clone());
                break;
            }
            place -= size;
        }
        let victim = victim.unwrap();
        let mut damaged = files.clone();
        damaged.get_mut(&victim).unwrap()[place as usize] ^= 1 << random.below(8);
        let context = format!("seed {SEED}, flip {flip}, byte {place} of {}", victim.display());
        let outcome = &mut outcomes[half];
        match catch_unwind(AssertUnwindSafe(|| seen(&damaged))) {
            Err(_) => failures.push(format!("{context}: panic")),
            Ok(Err((at_start, error))) => {
                *(if at_start {
                    &mut outcome.refused_at_start
                } else {
                    &mut outcome.error_when_read
                }) += 1;
                outcome.names_file += u64::from(error.to_string().contains(&*victim.to_string_lossy()));
            }
            Ok(Ok(found)) => match which(&found) {
                Some(prefix) if prefix == whole => outcome.unharmed += 1,
                Some(_) => outcome.earlier += 1,
                None => failures.push(format!("{context}: served something that never was")),
            },
        }
    }
    println!(
        "F06, store, seed {SEED}: with journal {:?}; tables only {:?}",
        outcomes[0], outcomes[1]
    );
    assert_eq!(failures, Vec::<String>::new(), "{} of {FLIPS}", failures.len());
}
