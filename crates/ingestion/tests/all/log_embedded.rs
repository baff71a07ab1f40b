//! What only a log on a disk can get wrong: torn tails, rot, locks, retention. The faults that need a failing disk
//! are tested beside the writer.

use crate::log_suite::read_all;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vigie_event::{Offset, Partition};
use vigie_ingestion::log::{EmbeddedLog, Entry, Log, LogError, LogReader, Options, scan};

const PARTITIONS: u16 = 3;

fn options() -> Options {
    Options {
        reserve_bytes: 0,
        identity: 7,
        ..Options::new(PARTITIONS)
    }
}

fn open(dir: &Path) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open(dir, options())
}

/// SplitMix64: reproducible from the seed that every failure prints.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// Appends calls of some records each and answers what should be read back, in log order.
async fn fill(log: &EmbeddedLog, calls: usize, random: &mut Random) -> Vec<Entry> {
    let mut entries = Vec::new();
    for _ in 0..calls {
        let records: Vec<_> = (0..1 + random.below(4))
            .map(|_| {
                let length = random.below(120) as usize;
                (
                    Partition(random.below(u64::from(PARTITIONS)) as u16),
                    Bytes::from(random.bytes(length)),
                )
            })
            .collect();
        let positions = log.append(records.clone()).await.unwrap();
        let payloads = records.into_iter().map(|(_, payload)| payload);
        entries.extend(
            positions
                .into_iter()
                .zip(payloads)
                .map(|(position, payload)| Entry { position, payload }),
        );
    }
    entries
}

fn everything(log: &EmbeddedLog) -> BTreeMap<Partition, Offset> {
    (0..PARTITIONS).map(Partition).zip(log.starts()).collect()
}

fn scanned(dir: &Path) -> Result<Vec<Entry>, LogError> {
    scan(dir)?.collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|item| item.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// A directory whose fdatasyncs cost nothing, where there is one: for tests of what is written, not of when.
fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// F05: the tail cut at every byte of the last 4 KiB, what was behind the cut missing or filled with zeros, old
/// data or noise. What stood before the block that was hit stays, nothing is invented, writing goes on.
#[test]
fn every_torn_tail_is_dropped_and_nothing_else() {
    const SEED: u64 = 20;
    const TAIL_BYTES: usize = 4096;
    let mut random = Random(SEED);
    let dir = place();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut recovered = 0;
    let log = open(dir.path()).unwrap();
    let mut ends = Vec::new();
    let mut entries = Vec::new();
    let path = segments(dir.path()).pop().unwrap();
    while std::fs::metadata(&path).unwrap().len() < 2 * TAIL_BYTES as u64 {
        entries.extend(block_on(fill(&log, 1, &mut random)));
        ends.push((std::fs::metadata(&path).unwrap().len() as usize, entries.len()));
    }
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    // One log, reopened under its own eyes, would be slow to rebuild for each case; its only file is rewritten.
    for cut in whole.len() - TAIL_BYTES..whole.len() {
        for pattern in ["missing", "zeros", "old data", "noise"] {
            let mut bytes = whole[..cut].to_vec();
            match pattern {
                "zeros" => bytes.resize(whole.len(), 0),
                "old data" => bytes.extend_from_slice(&whole[whole.len() - cut..][..whole.len() - cut]),
                "noise" => bytes.extend(random.bytes(whole.len() - cut)),
                _ => {}
            }
            if bytes == whole {
                continue;
            }
            // A pattern may happen to agree with what it replaces.
            let hit = bytes
                .iter()
                .zip(&whole)
                .position(|(now, then)| now != then)
                .unwrap_or(cut);
            let (kept_end, kept) = ends.iter().rev().find(|(end, _)| *end <= hit).copied().unwrap();
            let context = format!("seed {SEED}, cut at {cut} of {}, {pattern}", whole.len());
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(
                scanned(dir.path()).expect(&context),
                entries[..kept],
                "{context}: before recovery"
            );
            let log = open(dir.path()).expect(&context);
            assert_eq!(log.recovery().torn.is_some(), kept_end != bytes.len(), "{context}");
            assert_eq!(
                runtime.block_on(read_all(&log, everything(&log))).expect(&context),
                entries[..kept],
                "{context}"
            );
            let more = runtime.block_on(fill(&log, 1, &mut random));
            drop(log);
            let expected: Vec<_> = entries[..kept].iter().cloned().chain(more).collect();
            assert_eq!(
                scanned(dir.path()).expect(&context),
                expected,
                "{context}: after writing on"
            );
            recovered += 1;
        }
    }
    println!("F05: {recovered} torn tails, 0 acknowledged records lost, 0 invented");
    // A pattern that happens to be what it replaces is no fault.
    assert!(recovered >= 3 * TAIL_BYTES, "{recovered} cases measured");
}

/// A bad block with a good one behind it was acknowledged: it is reported with its place and never cut.
#[test]
fn a_bad_block_before_a_good_one_is_damage() {
    let mut random = Random(21);
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let path = segments(dir.path()).pop().unwrap();
    let mut starts = Vec::new();
    for _ in 0..10 {
        starts.push(std::fs::metadata(&path).unwrap().len());
        drop(block_on(fill(&log, 1, &mut random)));
    }
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    for (index, pair) in starts.windows(2).enumerate() {
        for place in pair[0]..pair[1] {
            let mut bytes = whole.clone();
            bytes[place as usize] ^= 1 << random.below(8);
            std::fs::write(&path, &bytes).unwrap();
            let LogError::Corrupt { file, offset, .. } = open(dir.path()).unwrap_err() else {
                panic!("byte {place} of block {index}");
            };
            assert_eq!((file, offset), (path.clone(), pair[0]), "byte {place}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "not a byte may change");
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert!(open(dir.path()).is_ok());
}

/// Builds a log of several closed segments and answers its records and files.
fn several_segments(dir: &Path, random: &mut Random) -> (Vec<Entry>, Vec<PathBuf>) {
    let log = EmbeddedLog::open(
        dir,
        Options {
            segment_bytes: 4096,
            ..options()
        },
    )
    .unwrap();
    let mut entries = Vec::new();
    while segments(dir).len() < 5 {
        entries.extend(block_on(fill(&log, 1, random)));
    }
    drop(log);
    (entries, segments(dir))
}

/// F06: a flipped bit anywhere in a closed segment is found when it is read, with file and offset.
#[test]
fn every_flipped_bit_of_a_closed_segment_is_found() {
    const SEED: u64 = 22;
    let mut random = Random(SEED);
    let dir = tempfile::tempdir().unwrap();
    let (entries, files) = several_segments(dir.path(), &mut random);
    assert_eq!(scanned(dir.path()).unwrap(), entries);
    for round in 0..2000 {
        let victim = &files[random.below(files.len() as u64 - 1) as usize];
        let whole = std::fs::read(victim).unwrap();
        let place = random.below(whole.len() as u64);
        let context = format!("seed {SEED}, round {round}, byte {place} of {}", victim.display());
        let mut bytes = whole.clone();
        bytes[place as usize] ^= 1 << random.below(8);
        std::fs::write(victim, &bytes).unwrap();
        let read: Vec<_> = scan(dir.path()).into_iter().flatten().collect();
        let error = scanned(dir.path()).expect_err(&context);
        let LogError::Corrupt { file, offset, .. } = error else {
            panic!("{context}: {error}")
        };
        assert_eq!(&file, victim, "{context}");
        assert!(offset <= place, "{context}: reported at {offset}");
        let served: Vec<_> = read.into_iter().filter_map(Result::ok).collect();
        assert_eq!(served, entries[..served.len()], "{context}: nothing wrong is served");
        if round % 20 == 0 {
            // A reader of the running log finds the same; a damaged header is found at start.
            match open(dir.path()) {
                Ok(log) => {
                    let error = block_on(read_all(&log, everything(&log))).expect_err(&context);
                    assert!(
                        matches!(error, LogError::Corrupt { ref file, .. } if file == victim),
                        "{context}: {error}"
                    );
                }
                Err(error) => assert!(matches!(error, LogError::Corrupt { .. }), "{context}: {error}"),
            }
            assert_eq!(
                std::fs::read(victim).unwrap(),
                bytes,
                "{context}: not a byte may change"
            );
        }
        std::fs::write(victim, &whole).unwrap();
    }
}

#[test]
fn a_missing_or_shortened_closed_segment_is_found() {
    let mut random = Random(23);
    let dir = tempfile::tempdir().unwrap();
    let (entries, files) = several_segments(dir.path(), &mut random);
    let victim = &files[2];
    let whole = std::fs::read(victim).unwrap();
    std::fs::write(victim, &whole[..whole.len() / 2]).unwrap();
    let error = scanned(dir.path()).unwrap_err();
    assert!(
        matches!(error, LogError::Corrupt { ref file, .. } if file == victim),
        "{error}"
    );
    std::fs::remove_file(victim).unwrap();
    let error = scanned(dir.path()).unwrap_err();
    assert!(
        matches!(error, LogError::Corrupt { ref file, .. } if *file == files[1]),
        "{error}"
    );
    let log = open(dir.path()).unwrap();
    let error = block_on(read_all(&log, everything(&log))).unwrap_err();
    assert!(
        matches!(error, LogError::Corrupt { ref file, .. } if *file == files[1]),
        "{error}"
    );
    drop(log);
    std::fs::write(victim, &whole).unwrap();
    assert_eq!(scanned(dir.path()).unwrap(), entries);
}

#[test]
fn the_second_process_is_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    assert_eq!(
        open(dir.path()).unwrap_err(),
        LogError::Locked {
            path: dir.path().join("LOCK")
        }
    );
    drop(first);
    assert!(open(dir.path()).is_ok());
}

#[test]
fn the_number_of_partitions_never_changes() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let error = EmbeddedLog::open(
        dir.path(),
        Options {
            partitions: 4,
            ..options()
        },
    )
    .unwrap_err();
    assert_eq!(
        error,
        LogError::Layout {
            reason: "it was created with 3 partitions, not 4".into()
        }
    );
    assert!(open(dir.path()).is_ok(), "a refused opening changes nothing");
}

#[test]
fn an_unknown_format_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 2;
    let header = bytes.len() - 4;
    let checksum = crc32c::crc32c(&bytes[..header]).to_le_bytes();
    bytes[header..].copy_from_slice(&checksum);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(open(dir.path()).unwrap_err(), LogError::Layout { .. }));
}

#[test]
fn retention_leaves_a_gap_that_readers_are_told_about() {
    let mut random = Random(24);
    let dir = tempfile::tempdir().unwrap();
    let (entries, files) = several_segments(dir.path(), &mut random);
    let log = open(dir.path()).unwrap();
    let mut overtaken = log.reader(everything(&log)).unwrap();
    assert_eq!(
        log.retain(&[Offset(0), Offset(u64::MAX), Offset(u64::MAX)]),
        Ok(0),
        "one partition still wants all"
    );
    let ends = log.ends();
    assert_eq!(log.retain(&ends), Ok(files.len() - 1), "the current segment stays");
    assert_eq!(segments(dir.path()), files[files.len() - 1..]);
    let starts = log.starts();
    let kept: Vec<_> = entries
        .iter()
        .filter(|entry| entry.position.offset >= starts[usize::from(entry.position.partition.0)])
        .cloned()
        .collect();
    assert_eq!(block_on(read_all(&log, everything(&log))).unwrap(), kept);
    let from = Offset(starts[1].0 - 1);
    let gap = LogError::Gap {
        partition: Partition(1),
        from,
        first: starts[1],
        end: ends[1],
    };
    assert_eq!(log.reader(BTreeMap::from([(Partition(1), from)])).err(), Some(gap));
    let error = block_on(overtaken.next(1, 1, Duration::ZERO)).unwrap_err();
    assert!(
        matches!(error, LogError::Gap { first, .. } if first == starts[0]),
        "{error}"
    );
    drop(log);
    assert_eq!(open(dir.path()).unwrap().starts(), starts, "over a restart too");
}

#[test]
fn the_reserve_file_takes_and_gives_back_its_space() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(
        dir.path(),
        Options {
            reserve_bytes: 300_000,
            ..options()
        },
    )
    .unwrap();
    let reserve = dir.path().join("reserve");
    assert!(log.recovery().reserve);
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), 300_000);
    log.free_reserve().unwrap();
    log.free_reserve().unwrap();
    assert!(!reserve.exists());
    log.restore_reserve().unwrap();
    assert_eq!(std::fs::metadata(&reserve).unwrap().len(), 300_000);
}

#[tokio::test]
async fn an_append_that_can_never_fit_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(
        dir.path(),
        Options {
            queue_bytes: 1000,
            ..options()
        },
    )
    .unwrap();
    let error = log
        .append(vec![(Partition(0), Bytes::from(vec![0; 1000]))])
        .await
        .unwrap_err();
    assert_eq!(
        error,
        LogError::TooLarge {
            bytes: 1008,
            limit: 1000
        }
    );
    assert!(
        log.append(vec![(Partition(0), Bytes::from(vec![0; 992]))])
            .await
            .is_ok()
    );
}

/// A payload that contains a whole segment cannot be taken for blocks, not even behind a torn one.
#[test]
fn payloads_that_look_like_blocks_stay_payloads() {
    let mut random = Random(25);
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    drop(block_on(fill(&log, 5, &mut random)));
    let path = segments(dir.path()).pop().unwrap();
    let forged = Bytes::from(std::fs::read(&path).unwrap());
    let before = scanned(dir.path()).unwrap();
    drop(block_on(log.append(vec![(Partition(0), forged)])).unwrap());
    drop(log);
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    let log = open(dir.path()).unwrap();
    assert!(log.recovery().torn.is_some());
    assert_eq!(block_on(read_all(&log, everything(&log))).unwrap(), before);
}
