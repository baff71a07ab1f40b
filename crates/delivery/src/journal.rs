//! A small journal: a file of changes that are read back at the next start. Each frame is its length, a CRC-32C and the bytes
//! (postcard); a version opens the file.
//!
//! What follows the first frame that is not whole is cut off: whoever writes orders frames so that losing a tail repeats work
//! and never skips any. A journal that has grown is rewritten beside itself, synced and renamed. It never interprets a
//! change, and only one process has it open.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// First bytes of the file: name and version of the format.
const MAGIC: &[u8; 8] = b"vigiedj\x01";
/// Bytes before a frame's own: length and checksum.
const HEAD: usize = 8;
/// Longest frame.
const MAX_FRAME: usize = 1 << 20;
/// A journal is rewritten when it is larger than this and than four times what the last rewrite needed.
const REWRITE_BYTES: u64 = 1 << 20;
/// Largest journal that is read.
const MAX_BYTES: u64 = 1 << 30;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system.
    #[error("journal {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("another process holds the journal {}", .0.display())]
    Locked(PathBuf),
    /// Not a journal of this version.
    #[error("{} is no journal that this version can read; move it away to begin anew (flags may then be sent twice)", .0.display())]
    Foreign(PathBuf),
}

/// An open journal of changes `C`.
#[derive(Debug)]
pub(crate) struct Journal<C> {
    path: PathBuf,
    file: File,
    /// Locked as long as the journal is open; the journal itself is replaced when it is rewritten.
    _lock: File,
    bytes: u64,
    rewritten: u64,
    changes: PhantomData<C>,
}

impl<C: Serialize + DeserializeOwned> Journal<C> {
    /// Opens or creates a journal and reads what it holds.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<C>), JournalError> {
        let io = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        }
        let lock = options()
            .truncate(false)
            .open(path.with_extension("lock"))
            .map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Locked(path.to_owned()),
            TryLockError::Error(source) => io(source),
        })?;
        let mut file = options().truncate(false).open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() > MAX_BYTES {
            return Err(JournalError::Foreign(path.to_owned()));
        }
        let mut content = Vec::new();
        let _read = file.read_to_end(&mut content).map_err(io)?;
        let (changes, whole) = if content.len() < MAGIC.len() {
            // New, or a crash before the version was written.
            file.set_len(0).map_err(io)?;
            let _start = file.seek(SeekFrom::Start(0)).map_err(io)?;
            file.write_all(MAGIC).map_err(io)?;
            (Vec::new(), MAGIC.len())
        } else {
            read(&content).ok_or_else(|| JournalError::Foreign(path.to_owned()))?
        };
        if whole < content.len() {
            tracing::warn!(file = %path.display(), bytes = content.len() - whole, "dropped the unfinished end of a journal");
            file.set_len(whole as u64).map_err(io)?;
        }
        let _end = file.seek(SeekFrom::End(0)).map_err(io)?;
        let journal = Self {
            path: path.to_owned(),
            file,
            _lock: lock,
            bytes: whole as u64,
            rewritten: 0,
            changes: PhantomData,
        };
        Ok((journal, changes))
    }

    /// Appends changes in one write; with `sync` they survive power loss when it returns.
    pub(crate) fn append(&mut self, changes: &[C], sync: bool) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        for change in changes {
            frame(change, &mut bytes);
        }
        let written = self.file.write_all(&bytes).and_then(|()| match sync {
            true => self.file.sync_data(),
            false => Ok(()),
        });
        match written {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(source) => {
                // Half a frame must not stand before whole ones.
                let _ = self.file.set_len(self.bytes);
                let _ = self.file.seek(SeekFrom::End(0));
                Err(self.io(source))
            }
        }
    }

    /// Whether it has grown enough to be rewritten.
    pub(crate) fn is_long(&self) -> bool {
        self.bytes > REWRITE_BYTES && self.bytes > self.rewritten.saturating_mul(4)
    }

    /// Replaces everything by `changes`, durably.
    pub(crate) fn rewrite(&mut self, changes: &[C]) -> Result<(), JournalError> {
        let mut bytes = MAGIC.to_vec();
        for change in changes {
            frame(change, &mut bytes);
        }
        let aside = self.path.with_extension("new");
        let replace = || -> std::io::Result<File> {
            let mut file = options().truncate(true).open(&aside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&aside, &self.path)?;
            if let Some(dir) = self.path.parent() {
                File::open(dir)?.sync_all()?;
            }
            Ok(file)
        };
        self.file = replace().map_err(|source| self.io(source))?;
        self.bytes = bytes.len() as u64;
        self.rewritten = self.bytes;
        Ok(())
    }

    fn io(&self, source: std::io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    let _ = options.read(true).write(true).create(true).mode(0o600);
    options
}

fn frame<C: Serialize>(change: &C, out: &mut Vec<u8>) {
    // Plain data always has bytes.
    let bytes = postcard::to_allocvec(change).unwrap_or_default();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// The whole changes and where they end; `None` when it is not a journal.
fn read<C: DeserializeOwned>(content: &[u8]) -> Option<(Vec<C>, usize)> {
    let mut rest = content.strip_prefix(MAGIC)?;
    let mut changes = Vec::new();
    while let Some((change, after)) = next(rest) {
        changes.push(change);
        rest = after;
    }
    Some((changes, content.len() - rest.len()))
}

fn next<C: DeserializeOwned>(rest: &[u8]) -> Option<(C, &[u8])> {
    let number = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    let (length, sum) = (usize::try_from(number(0)?).ok()?, number(4)?);
    if length == 0 || length > MAX_FRAME {
        return None;
    }
    let bytes = rest.get(HEAD..HEAD.checked_add(length)?)?;
    if crc32c::crc32c(bytes) != sum {
        return None;
    }
    Some((postcard::from_bytes(bytes).ok()?, rest.get(HEAD + length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_that_is_cut_anywhere_leaves_the_whole_frames_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let changes: Vec<(u64, String)> = (0..5).map(|n| (n, "é".repeat(n as usize))).collect();
        let (mut journal, none) = Journal::open(&path).unwrap();
        assert_eq!(none, Vec::<(u64, String)>::new());
        journal.append(&changes[..2], false).unwrap();
        journal.append(&changes[2..], true).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let mut seen = Vec::new();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let (mut journal, found) = Journal::<(u64, String)>::open(&path).unwrap();
            assert_eq!(found, changes[..found.len()]);
            seen.push(found.len());
            // What is appended afterwards is read back behind it.
            journal.append(&[(99, String::new())], false).unwrap();
            drop(journal);
            let (_, again) = Journal::<(u64, String)>::open(&path).unwrap();
            assert_eq!((again.len(), again.last().unwrap().0), (found.len() + 1, 99));
        }
        assert!(seen.is_sorted() && seen.last() == Some(&5));
    }

    #[test]
    fn a_flipped_bit_ends_the_journal_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let (mut journal, _) = Journal::<u64>::open(&path).unwrap();
        journal.append(&[300, 301, 302], false).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for place in MAGIC.len()..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let (_, found) = Journal::<u64>::open(&path).unwrap();
            let kept = (place - MAGIC.len()) / (HEAD + 2);
            assert_eq!(found, [300, 301, 302][..kept], "byte {place}");
        }
        std::fs::write(&path, b"something else entirely").unwrap();
        assert!(matches!(Journal::<u64>::open(&path), Err(JournalError::Foreign(_))));
    }

    #[test]
    fn only_one_has_it_open_and_a_rewrite_keeps_the_door_shut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let (mut journal, _) = Journal::<u64>::open(&path).unwrap();
        journal.append(&[1, 2, 3], false).unwrap();
        journal.rewrite(&[3]).unwrap();
        journal.append(&[4], false).unwrap();
        assert!(matches!(Journal::<u64>::open(&path), Err(JournalError::Locked(_))));
        drop(journal);
        assert_eq!(Journal::<u64>::open(&path).unwrap().1, [3, 4]);
    }

    /// Bytes of version 1, written by hand: length, CRC-32C of `2a`, the change.
    #[test]
    fn version_1_is_read_for_ever() {
        let sum = crc32c::crc32c(&[42]).to_le_bytes();
        let bytes = [MAGIC.as_slice(), &[1, 0, 0, 0], &sum, &[42]].concat();
        assert_eq!(read::<u64>(&bytes), Some((vec![42], bytes.len())));
    }
}
