//! The disk under a directory: how much room there is, how long it takes to make something durable, how large the log is. It
//! never writes outside of the file that it makes for measuring, and removes that.

use crate::clocks;
use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes that this process may still write.
    pub(crate) free: u64,
    /// Bytes of the whole disk.
    pub(crate) size: u64,
}

/// The room on the disk of `directory`.
pub(crate) fn room(directory: &Path) -> Result<Room> {
    let stat = rustix::fs::statvfs(directory).with_context(|| format!("the disk of {}", directory.display()))?;
    Ok(Room {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        size: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Bytes of the files in a directory, not of those in directories below.
pub(crate) fn bytes(directory: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        // A file that is renamed just now is counted the next time.
        bytes += entry?
            .metadata()
            .map_or(0, |file| if file.is_file() { file.len() } else { 0 });
    }
    Ok(bytes)
}

/// How long each of `times` small writes to `directory` took until it was durable, in ascending order.
pub(crate) fn sync_times(directory: &Path, times: u64) -> Result<Vec<Duration>> {
    let path = directory.join(format!(".vigie-doctor-{}", std::process::id()));
    let measure = || -> std::io::Result<Vec<Duration>> {
        let file = File::options().write(true).create_new(true).open(&path)?;
        let block = [0x5a; 4096];
        let (watch, mut measured) = (clocks::stopwatch(), Vec::new());
        for number in 0..times {
            let lap = watch.start();
            file.write_all_at(&block, number * block.len() as u64)?;
            file.sync_data()?;
            measured.push(lap.elapsed());
        }
        Ok(measured)
    };
    let measured = measure();
    let removed = std::fs::remove_file(&path);
    let mut measured = measured.with_context(|| format!("a durable write to {}", directory.display()))?;
    removed.with_context(|| path.display().to_string())?;
    measured.sort_unstable();
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_room_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let room = room(dir.path()).unwrap();
        assert!(room.size > 0 && room.free <= room.size, "{room:?}");
        let times = sync_times(dir.path(), 3).unwrap();
        assert!(times.len() == 3 && times.is_sorted(), "{times:?}");
        assert_eq!(bytes(dir.path()).unwrap(), 0, "the file of the measurement is gone");
        std::fs::write(dir.path().join("a"), b"12345").unwrap();
        assert_eq!(bytes(dir.path()).unwrap(), 5);
        assert!(sync_times(&dir.path().join("none"), 1).is_err());
    }
}
