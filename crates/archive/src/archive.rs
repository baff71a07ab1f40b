//! An open archive: the manifest in memory, the way to write into it, to read it and to check it.
//!
//! Blocking work runs on threads for it, and a call that is given up half way (its future dropped) still runs to its
//! end there: the next call waits for it. This file never looks into a row.

use crate::columns::Row;
use crate::manifest::{Flush, Manifest};
use crate::place::{Fault, Lock, Place};
use crate::read::{Reader, Wanted};
use crate::source::Source;
use crate::{ArchiveError, write};
use datafusion::parquet::file::metadata::ParquetMetaDataReader;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Mutex;
use vigie_event::{Offset, Timestamp};

/// What an archive is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reading; needs no lock, and works while another process writes.
    Read,
    /// Writing and reading; leftovers of crashes are swept first, and a second writer is refused.
    Write,
}

/// What tests may change about an archive.
#[derive(Clone, Default)]
pub struct Options {
    /// Where to stop dead.
    pub fault: Option<Fault>,
}

/// How much an archive holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Flushes.
    pub flushes: u64,
    /// Parquet files.
    pub files: u64,
    /// Rows, which are records of the log.
    pub rows: u64,
    /// Bytes of the Parquet files.
    pub bytes: u64,
    /// The latest time of a record.
    pub latest: Option<Timestamp>,
}

/// What [`Archive::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What was checked and is as it should be.
    pub sound: Totals,
    /// The first fault; checking stops there.
    pub fault: Option<ArchiveError>,
}

/// An open archive. Cheap to clone; all clones are the same archive, and the writer's lock is held until the last one
/// is gone.
#[derive(Clone)]
pub struct Archive {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    partitions: u16,
    manifest: RwLock<Arc<Manifest>>,
    /// Present in an archive that was opened for writing.
    writer: Option<Arc<Mutex<Writer>>>,
    options: Options,
}

struct Writer {
    _lock: Lock,
    /// A write failed: look at what the place holds before the next one.
    doubtful: bool,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Archive");
        out.field("place", &self.inner.place).finish_non_exhaustive()
    }
}

impl Archive {
    /// Opens an archive of a log with so many partitions, and checks its manifest. For writing, a directory is made
    /// and leftovers are swept.
    pub async fn open(place: Place, mode: Mode, partitions: u16) -> Result<Self, ArchiveError> {
        Self::open_with(place, mode, partitions, Options::default()).await
    }

    /// [`Archive::open`] with a test's wishes.
    pub async fn open_with(place: Place, mode: Mode, partitions: u16, options: Options) -> Result<Self, ArchiveError> {
        blocking(move || {
            let writer = match mode {
                Mode::Read => {
                    place.expect_existing()?;
                    None
                }
                Mode::Write => Some(Arc::new(Mutex::new(Writer {
                    _lock: place.prepare()?,
                    doubtful: false,
                }))),
            };
            let manifest = Manifest::load(&place, partitions, None)?;
            if mode == Mode::Write {
                let _ = write::sweep(&place, &manifest)?;
            }
            Ok(Self {
                inner: Arc::new(Inner {
                    place,
                    partitions,
                    manifest: RwLock::new(Arc::new(manifest)),
                    writer,
                    options,
                }),
            })
        })
        .await
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.inner.place
    }

    /// The offset that each partition needs next, in the order of the partitions.
    #[must_use]
    pub fn ends(&self) -> Vec<Offset> {
        self.manifest().ends().to_vec()
    }

    /// All flushes, in order.
    #[must_use]
    pub fn flushes(&self) -> Vec<Arc<Flush>> {
        self.manifest().flushes().to_vec()
    }

    /// How much it holds, by the manifest.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let manifest = self.manifest();
        let mut totals = Totals {
            flushes: manifest.last_number(),
            ..Totals::default()
        };
        for file in manifest.files() {
            totals.files += 1;
            totals.rows += file.rows;
            totals.bytes += file.bytes;
            totals.latest = totals.latest.max(file.max_recorded_at);
        }
        totals
    }

    /// Looks again: flushes that a writer added since become visible. Not needed by the writer itself.
    pub async fn refresh(&self) -> Result<(), ArchiveError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.reload()).await
    }

    /// Writes rows as one flush, which becomes visible whole or not at all, and gives its number; `None` for no rows.
    ///
    /// The rows may come in any order, but of each partition they must be the ones from the archive's end on, without
    /// a gap: anything else is refused before anything is written. When this fails otherwise, repeat it with the rows
    /// from [`Archive::ends`] on (the failed flush may have become visible after all).
    pub async fn write(&self, rows: Vec<Row>) -> Result<Option<u64>, ArchiveError> {
        let writer = self.inner.writer.as_ref().ok_or(ArchiveError::ReadOnly)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut writer = Arc::clone(writer).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            if writer.doubtful {
                inner.reload()?;
                writer.doubtful = false;
            }
            let manifest = inner.manifest();
            let written = write::flush(&inner.place, &manifest, &rows, inner.options.fault.as_ref());
            writer.doubtful = matches!(
                written,
                Err(ArchiveError::Unavailable { .. } | ArchiveError::Conflict { .. } | ArchiveError::Stopped { .. })
            );
            if writer.doubtful && inner.reload().is_ok() {
                // What became of the flush is known again, and `ends` says it.
                writer.doubtful = false;
            }
            let written = written?;
            let number = written.last_number();
            inner.replace(written);
            Ok(Some(number))
        })
        .await
    }

    /// Removes unfinished and unnamed files, which only crashes leave behind, and gives their paths. Done at every
    /// opening for writing.
    pub async fn sweep(&self) -> Result<Vec<String>, ArchiveError> {
        let writer = self.inner.writer.as_ref().ok_or(ArchiveError::ReadOnly)?;
        let writer = Arc::clone(writer).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let _writer = writer;
            inner.reload()?;
            write::sweep(&inner.place, &inner.manifest())
        })
        .await
    }

    /// Reads records in order, as of the manifest that is known now.
    #[must_use]
    pub fn read(&self, wanted: Wanted) -> Reader {
        Reader::new(self.inner.place.clone(), self.manifest(), wanted)
    }

    /// Checks every file: that it is there, its size, its SHA-256, its number of rows. The manifest itself was checked
    /// when it was read.
    pub async fn verify(&self) -> Result<Verified, ArchiveError> {
        let manifest = self.manifest();
        let place = self.inner.place.clone();
        blocking(move || {
            let mut sound = Totals::default();
            for flush in manifest.flushes() {
                for file in &flush.files {
                    match check_file(&place, file) {
                        Ok(()) => {
                            sound.files += 1;
                            sound.rows += file.rows;
                            sound.bytes += file.bytes;
                            sound.latest = sound.latest.max(file.max_recorded_at);
                        }
                        Err(fault @ ArchiveError::File { .. }) => {
                            return Ok(Verified {
                                sound,
                                fault: Some(fault),
                            });
                        }
                        Err(error) => return Err(error),
                    }
                }
                sound.flushes += 1;
            }
            Ok(Verified { sound, fault: None })
        })
        .await
    }

    pub(crate) fn manifest(&self) -> Arc<Manifest> {
        self.inner.manifest()
    }
}

impl Inner {
    fn manifest(&self) -> Arc<Manifest> {
        // A manifest is replaced by one assignment, so a poisoned lock guards a sound value.
        Arc::clone(&self.manifest.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, manifest: Manifest) {
        let mut current = self.manifest.write().unwrap_or_else(PoisonError::into_inner);
        // Two refreshes at a time: the one that saw more counts.
        if manifest.last_number() >= current.last_number() {
            *current = Arc::new(manifest);
        }
    }

    fn reload(&self) -> Result<(), ArchiveError> {
        let known = self.manifest();
        let manifest = Manifest::load(&self.place, self.partitions, Some(&known))?;
        self.replace(manifest);
        Ok(())
    }
}

fn check_file(place: &Place, file: &crate::manifest::DataFile) -> Result<(), ArchiveError> {
    let source = Source::open(place, file, true)?;
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&source);
    let metadata = metadata.map_err(|error| ArchiveError::file(&file.path, error))?;
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    if rows != file.rows {
        let reason = format!("holds {rows} rows where the manifest says {}", file.rows);
        return Err(ArchiveError::file(&file.path, reason));
    }
    Ok(())
}

/// Runs blocking work on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ArchiveError::unavailable("working on", "the archive", error)),
    }
}
