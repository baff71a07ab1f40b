//! Cuts the torn end of fjall's journal before fjall reads it.
//!
//! The journal is not fsynced per commit, and a kernel writes the pages of an unsynced tail in any order. So after
//! a power loss a batch at the end may be there with a hole in its middle. fjall drops a batch that ends early, but
//! refuses to open the database when a batch has its end and a wrong checksum. Everything from the first batch that
//! is not whole on is worth nothing: commits are only ever kept as a prefix, and the log has what was cut. Nothing
//! before that batch is touched, and only the newest journal is: older ones were fsynced whole.
//!
//! This file knows one thing of fjall's format, version 3: how batches are delimited. A test keeps it honest.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Value type, compression, keyspace, length of the key, of the value, of the value as stored.
const ITEM_HEADER_BYTES: usize = 1 + 1 + 8 + 2 + 4 + 4;

/// Cuts the newest journal of the database behind its last whole batch. The caller holds the directory's lock.
pub(crate) fn cut_torn_end(dir: &Path) -> io::Result<()> {
    let Some(path) = newest(dir)? else {
        return Ok(());
    };
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let whole = whole_batches(&file, length)?;
    if whole < length {
        // Mostly this cuts the zeros that fjall allocates ahead, as fjall itself does when it opens.
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(())
}

fn newest(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    let items = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        items => items?,
    };
    for item in items {
        let path = item?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".jnl"));
        if let Some(number) = name.and_then(|name| name.parse::<u64>().ok())
            && newest.as_ref().is_none_or(|(newest, _)| *newest < number)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// The length of the part of a journal that consists of whole batches.
fn whole_batches(file: &File, length: u64) -> io::Result<u64> {
    let mut journal = Journal {
        reader: BufReader::with_capacity(256 * 1024, file),
        at: 0,
        length,
    };
    let mut whole = 0;
    while journal.skip_batch()? {
        whole = journal.at;
    }
    Ok(whole)
}

struct Journal<R> {
    reader: R,
    at: u64,
    length: u64,
}

impl<R: Read> Journal<R> {
    /// Reads one batch. `false` where there is none, or none that is whole.
    fn skip_batch(&mut self) -> io::Result<bool> {
        let Some([START, a, b, c, d, _seqno @ ..]) = self.take::<13>()? else {
            return Ok(false);
        };
        let mut checksum = Xxh3::new();
        for _ in 0..u32::from_le_bytes([a, b, c, d]) {
            if !self.skip_item(&mut checksum)? {
                return Ok(false);
            }
        }
        let Some([END, stored @ .., t0, t1, t2, t3]) = self.take::<13>()? else {
            return Ok(false);
        };
        Ok(stored == checksum.finish().to_le_bytes() && [t0, t1, t2, t3] == TRAILER)
    }

    fn skip_item(&mut self, checksum: &mut Xxh3) -> io::Result<bool> {
        match self.take::<1>()? {
            Some([ITEM]) => {
                let Some(header) = self.take::<ITEM_HEADER_BYTES>()? else {
                    return Ok(false);
                };
                checksum.update(&[ITEM]);
                checksum.update(&header);
                let [_, _, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3] = header;
                let key = u64::from(u16::from_le_bytes([k0, k1]));
                let value = u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
                self.skip_bytes(key + value, checksum)
            }
            Some([CLEAR]) => {
                checksum.update(&[CLEAR]);
                self.skip_bytes(8, checksum)
            }
            _ => Ok(false),
        }
    }

    fn skip_bytes(&mut self, length: u64, checksum: &mut Xxh3) -> io::Result<bool> {
        if self.length - self.at < length {
            return Ok(false);
        }
        let mut piece = [0u8; 4096];
        let mut rest = length;
        while rest > 0 {
            let size = piece.len().min(usize::try_from(rest).unwrap_or(piece.len()));
            let (piece, _) = piece.split_at_mut(size);
            self.reader.read_exact(piece)?;
            checksum.update(piece);
            rest -= size as u64;
        }
        self.at += length;
        Ok(true)
    }

    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.length - self.at < N as u64 {
            return Ok(None);
        }
        let mut bytes = [0u8; N];
        self.reader.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    /// The one test that fails when another version of fjall delimits its batches in another way.
    #[test]
    fn a_journal_that_fjall_wrote_consists_of_whole_batches() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::builder(dir.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        let mut batches = 0;
        for length in [0usize, 1, 100, 4095, 4096, 100_000] {
            let mut batch = database.batch().durability(Some(PersistMode::Buffer));
            batch.insert(&rows, "key", vec![7; length]);
            batch.insert(&rows, "another", (0..length).map(|n| n as u8).collect::<Vec<_>>());
            batch.remove(&rows, "none");
            batch.commit().unwrap();
            rows.insert("single", "value").unwrap();
            batches += 2;
        }
        rows.clear().unwrap();
        batches += 1;
        drop((rows, database));
        let path = newest(dir.path()).unwrap().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let mut journal = Journal {
            reader: &bytes[..],
            at: 0,
            length: bytes.len() as u64,
        };
        let mut found = 0;
        while journal.skip_batch().unwrap() {
            found += 1;
        }
        assert_eq!(found, batches);
        assert_eq!(
            whole_batches(&File::open(&path).unwrap(), bytes.len() as u64).unwrap(),
            used as u64
        );
    }
}
