//! The system calls of the writer behind two small traits, so that tests can put a failing disk under it, and the
//! judgement of what a failed one means. Nothing here knows the format.

use crate::log::LogError;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The files that the writer writes, so that tests can put a failing disk under it.
pub(in crate::log) trait Disk: Send {
    /// Creates a file, empty, and opens it for writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    /// Opens an existing file for writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that the file system still gives to this process.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// One file of a [`Disk`].
pub(in crate::log) trait SegmentFile: Send {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync.
    fn sync(&mut self) -> io::Result<()>;
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The disk itself.
pub(in crate::log) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(File::options().write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

impl SegmentFile for File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Whether a failed write leaves the file as trustworthy as before, so that it is enough to try again later.
fn heals(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull)
        || matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE))
}

pub(super) fn write_error(what: &str, error: &io::Error) -> LogError {
    if heals(error) {
        LogError::Unavailable {
            reason: format!("{what}: {error}"),
        }
    } else {
        poisoned(what, error)
    }
}

pub(super) fn poisoned(what: &str, error: &io::Error) -> LogError {
    LogError::Poisoned {
        reason: format!("{what}: {error}"),
    }
}

pub(super) fn unsynced_dir(error: &io::Error) -> LogError {
    poisoned("fsync of the directory", error)
}
