//! The log's directory at start-up: lock, recovery, creation of segments, the reserve file. It drops a torn tail and
//! nothing else; everything that does not fit is an error that names file and offset.

use super::disk::{Disk, SegmentFile, poisoned, unsynced_dir};
use super::writer::End;
use super::{Options, RESERVE_FILE, Recovery, Segment};
use crate::log::LogError;
use crate::log::segment::{self, Cursor, Header, Place, Step};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use vigie_failpoint::point;

pub(super) fn lock(path: &Path) -> Result<File, LogError> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| segment::unreadable(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Locked { path: path.into() }),
        Err(TryLockError::Error(error)) => Err(segment::unreadable(path, &error)),
    }
}

/// Removes segments whose creation did not get as far as their name.
pub(super) fn remove_unfinished(log_dir: &Path) -> Result<(), LogError> {
    let failed = |error: io::Error| segment::unreadable(log_dir, &error);
    for item in std::fs::read_dir(log_dir).map_err(failed)? {
        let path = item.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            std::fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// Creates what is missing of a path, and makes the new names durable.
pub(super) fn create_dirs(path: &Path, disk: &dyn Disk) -> Result<(), LogError> {
    let missing = path
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
    let parents: Vec<_> = missing.filter_map(Path::parent).collect();
    std::fs::create_dir_all(path).map_err(|error| segment::unreadable(path, &error))?;
    let here = Path::new(".");
    let named = parents
        .into_iter()
        .map(|parent| if parent.as_os_str().is_empty() { here } else { parent });
    named
        .into_iter()
        .try_for_each(|parent| disk.sync_dir(parent))
        .map_err(|error| unsynced_dir(&error))
}

/// Really takes the space: zeros are written and synced, not just promised.
pub(super) fn fill_reserve(dir: &Path, bytes: u64) -> Result<(), LogError> {
    let path = dir.join(RESERVE_FILE);
    let fill = || -> io::Result<()> {
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == bytes) {
            return Ok(());
        }
        let file = File::create(&path)?;
        let piece = [0u8; 64 * 1024];
        let mut offset = 0;
        while offset < bytes {
            let length = usize::try_from(bytes - offset).unwrap_or(piece.len()).min(piece.len());
            FileExt::write_all_at(&file, piece.get(..length).unwrap_or(&piece), offset)?;
            offset += length as u64;
        }
        file.sync_all()
    };
    fill().map_err(|error| {
        // A part of a reserve only takes space that others need now.
        drop(std::fs::remove_file(&path));
        segment::unreadable(&path, &error)
    })
}

/// Creates a segment under a temporary name, completes it, and gives it its name.
pub(super) fn begin(
    log_dir: &Path,
    header: &Header,
    disk: &dyn Disk,
) -> Result<(Box<dyn SegmentFile>, Segment, u64), LogError> {
    // Until the name is there nothing depends on the new file: whatever happens, the next append begins anew.
    let not_begun = |what: &str, error: &io::Error| LogError::Unavailable {
        reason: format!("new segment: {what}: {error}"),
    };
    let path = log_dir.join(segment::file_name(header.first_sequence));
    let unfinished = path.with_extension("tmp");
    let bytes = header.encode();
    let mut file = disk.create(&unfinished).map_err(|error| not_begun("create", &error))?;
    file.write_all_at(&bytes, 0)
        .map_err(|error| not_begun("write", &error))?;
    file.sync().map_err(|error| poisoned("fdatasync", &error))?;
    disk.rename(&unfinished, &path)
        .map_err(|error| not_begun("rename", &error))?;
    disk.sync_dir(log_dir).map_err(|error| unsynced_dir(&error))?;
    Ok((
        file,
        Segment {
            path,
            bases: header.bases.as_slice().into(),
        },
        bytes.len() as u64,
    ))
}

/// The first segment of a new log.
pub(super) fn create(
    log_dir: &Path,
    options: &Options,
    disk: &dyn Disk,
) -> Result<(End, BTreeMap<u64, Segment>), LogError> {
    if options.partitions == 0 {
        return Err(LogError::Layout {
            reason: "a log needs at least one partition".into(),
        });
    }
    let bases = vec![0; usize::from(options.partitions)];
    let header = Header {
        identity: options.identity,
        first_sequence: 0,
        bases,
    };
    let (file, segment, offset) = begin(log_dir, &header, disk)?;
    let place = Place {
        identity: header.identity,
        segment: 0,
        offset,
    };
    Ok((
        End {
            file,
            place,
            sequence: 0,
            next: header.bases,
        },
        BTreeMap::from([(0, segment)]),
    ))
}

/// Checks every segment header, reads the last segment through, and drops a torn tail.
pub(super) fn recover(
    log_dir: &Path,
    last: &Path,
    options: &Options,
    disk: &dyn Disk,
    recovery: &mut Recovery,
) -> Result<(End, BTreeMap<u64, Segment>), LogError> {
    let mut segments = BTreeMap::new();
    let mut newest: Option<Cursor> = None;
    for (first_sequence, path) in segment::list(log_dir)? {
        let cursor = Cursor::open(&path)?;
        let header = cursor.header();
        if header.bases.len() != usize::from(options.partitions) {
            let (recorded, wanted) = (header.bases.len(), options.partitions);
            let reason = format!("it was created with {recorded} partitions, not {wanted}");
            return Err(LogError::Layout { reason });
        }
        if let Some(previous) = &newest {
            let before = previous.header();
            let falls = header
                .bases
                .iter()
                .zip(&before.bases)
                .any(|(base, before)| base < before);
            if header.identity != before.identity || falls {
                return Err(cursor.corrupt("segment does not continue the one before"));
            }
        }
        drop(segments.insert(
            first_sequence,
            Segment {
                path,
                bases: header.bases.as_slice().into(),
            },
        ));
        newest = Some(cursor);
    }
    let mut cursor = match newest {
        Some(cursor) => cursor,
        None => Cursor::open(last)?,
    };
    let failed = |error: io::Error| segment::unreadable(last, &error);
    point!("log.recover.before");
    let mut file = disk.open(last).map_err(failed)?;
    loop {
        match cursor.step(drop)? {
            Step::Block { .. } => {}
            Step::End => break,
            Step::Bad { reason } => {
                if cursor.is_followed()? {
                    return Err(cursor.corrupt(reason));
                }
                let length = std::fs::metadata(last).map_err(failed)?.len();
                file.sync().map_err(|error| poisoned("fdatasync", &error))?;
                file.truncate(cursor.place()).map_err(failed)?;
                recovery.torn = Some((last.into(), cursor.place(), length.saturating_sub(cursor.place())));
                break;
            }
        }
    }
    if let Some((offset, length)) = cursor.last_block() {
        // Dirty pages again, see the module documentation. The bytes are the same, so no moment of this is unsafe.
        let mut block = vec![0u8; usize::try_from(length).unwrap_or(0)];
        File::open(last)
            .and_then(|file| file.read_exact_at(&mut block, offset))
            .map_err(failed)?;
        file.write_all_at(&block, offset).map_err(failed)?;
    }
    file.sync().map_err(|error| poisoned("fdatasync", &error))?;
    point!("log.recover.after");
    let header = cursor.header();
    let place = Place {
        identity: header.identity,
        segment: header.first_sequence,
        offset: cursor.place(),
    };
    let end = End {
        file,
        place,
        sequence: cursor.sequence(),
        next: cursor.next_offsets().to_vec(),
    };
    Ok((end, segments))
}
