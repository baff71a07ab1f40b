//! Where an archive is: a directory of this machine, or a prefix of an object store.
//!
//! Everything here blocks and is called from threads that may block. It owns the order in which a file becomes
//! durable (temporary file, fsync, rename, fsync of the directory; or one atomic `put`) and the writer's lock. It
//! never knows what is inside a file, and never retries: an object store's client does that by itself.
//!
//! A directory is written through `std::fs` and not through `object_store`, whose local implementation does not
//! fsync. Reading it that way is fine, and is what SQL does.

use crate::ArchiveError;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

/// The suffix of a file that is not finished.
pub(crate) const UNFINISHED: &str = ".tmp";
/// The file that a writer holds locked.
const LOCK: &str = "writer.lock";

/// One visible step of writing a file, for tests that stop there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The file within the archive.
    pub file: String,
    /// What has just been done to it.
    pub done: &'static str,
}

/// Answers `true` to stop dead after a step, as a crash would.
pub type Fault = Arc<dyn Fn(&Step) -> bool + Send + Sync>;

/// Where an archive is. Cheap to clone; clones of a `memory://` place share their content.
#[derive(Debug, Clone)]
pub struct Place(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Directory(PathBuf),
    Store {
        url: String,
        store: Arc<dyn ObjectStore>,
        prefix: ObjectPath,
    },
}

/// Which version of a file was read, so that it is only replaced by who knows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Version(Option<UpdateVersion>);

/// Held by a writer of a directory; released when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Option<File>,
}

impl Place {
    /// Reads a path (`/var/lib/vigie/archive`) or a URL (`file:///…`, `s3://bucket/prefix`, `gs://…`, `az://…`,
    /// `memory://` for tests). Credentials of object stores come from the environment, under their usual names.
    pub fn parse(text: &str) -> Result<Self, ArchiveError> {
        let refuse = |reason: String| ArchiveError::Place {
            place: text.to_owned(),
            reason,
        };
        if text.trim().is_empty() {
            return Err(refuse(
                "give a directory or a URL such as s3://bucket/archive".to_owned(),
            ));
        }
        if !text.contains("://") {
            return Ok(Self::directory(Path::new(text)));
        }
        let url = Url::parse(text).map_err(|error| refuse(error.to_string()))?;
        let known = ["file", "memory", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];
        if !known.contains(&url.scheme()) {
            let advice = "use file://, s3://, gs:// or az://";
            return Err(refuse(format!("{}:// is not known; {advice}", url.scheme())));
        }
        if url.scheme() == "file" {
            let path = url.to_file_path();
            let path = path.map_err(|()| refuse("file URLs need an absolute path, as in file:///data".to_owned()))?;
            return Ok(Self::directory(&path));
        }
        if url.scheme() != "memory" && !cfg!(feature = "cloud") {
            let advice = "build it with `cargo build --features cloud`, or use a directory";
            return Err(refuse(format!("this build has no object stores; {advice}")));
        }
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?.to_ascii_lowercase();
            Some((name, value.into_string().ok()?))
        });
        let (store, prefix) =
            object_store::parse_url_opts(&url, environment).map_err(|error| refuse(error.to_string()))?;
        Ok(Self(Kind::Store {
            url: text.to_owned(),
            store: Arc::from(store),
            prefix,
        }))
    }

    /// A directory of this machine.
    #[must_use]
    pub fn directory(path: &Path) -> Self {
        Self(Kind::Directory(path.to_owned()))
    }

    /// What DataFusion reads through, and the prefix of every path there.
    pub(crate) fn object_store(&self) -> Result<(Arc<dyn ObjectStore>, ObjectPath), ArchiveError> {
        match &self.0 {
            Kind::Directory(root) => {
                let local = object_store::local::LocalFileSystem::new_with_prefix(root);
                let local = local.map_err(|error| ArchiveError::unavailable("opening", "its directory", error))?;
                Ok((Arc::new(local), ObjectPath::default()))
            }
            Kind::Store { store, prefix, .. } => Ok((Arc::clone(store), prefix.clone())),
        }
    }

    /// The path of an archive's file within what [`Place::object_store`] gives.
    pub(crate) fn object_path(prefix: &ObjectPath, file: &str) -> Result<ObjectPath, ArchiveError> {
        let path = if prefix.as_ref().is_empty() {
            ObjectPath::parse(file)
        } else {
            ObjectPath::parse(format!("{prefix}/{file}"))
        };
        path.map_err(|error| ArchiveError::file(file, error))
    }

    /// Makes the directory and locks it against other writers.
    pub(crate) fn prepare(&self) -> Result<Lock, ArchiveError> {
        let Kind::Directory(root) = &self.0 else {
            return Ok(Lock { _file: None });
        };
        let failed = |error| ArchiveError::unavailable("opening", LOCK, error);
        make_directories(root).map_err(failed)?;
        let path = root.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(ArchiveError::Locked { path: root.clone() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Refuses a directory that does not exist: a reader of one has mistyped it.
    pub(crate) fn expect_existing(&self) -> Result<(), ArchiveError> {
        match &self.0 {
            Kind::Directory(root) if !root.is_dir() => Err(ArchiveError::Place {
                place: root.display().to_string(),
                reason: "no such directory; check the path, or start the archive first".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The whole of a file, or `None` where there is none.
    pub(crate) fn read(&self, file: &str) -> Result<Option<(Bytes, Version)>, ArchiveError> {
        match &self.0 {
            Kind::Directory(root) => match std::fs::read(root.join(file)) {
                Ok(bytes) => Ok(Some((bytes.into(), Version::default()))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(ArchiveError::unavailable("reading", file, error)),
            },
            Kind::Store { store, prefix, .. } => {
                let path = Self::object_path(prefix, file)?;
                let read = wait(async {
                    let found = store.get(&path).await?;
                    let version = UpdateVersion {
                        e_tag: found.meta.e_tag.clone(),
                        version: found.meta.version.clone(),
                    };
                    Ok((found.bytes().await?, Version(Some(version))))
                });
                match read {
                    Ok(read) => Ok(Some(read)),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(ArchiveError::unavailable("reading", file, error)),
                }
            }
        }
    }

    /// A file of a directory, for reading parts of it; `None` where only [`Place::read`] serves.
    pub(crate) fn open(&self, file: &str) -> Result<Option<File>, ArchiveError> {
        match &self.0 {
            Kind::Store { .. } => Ok(None),
            Kind::Directory(root) => match File::open(root.join(file)) {
                Ok(opened) => Ok(Some(opened)),
                Err(error) if error.kind() == ErrorKind::NotFound => Err(ArchiveError::file(file, "is missing")),
                Err(error) => Err(ArchiveError::unavailable("opening", file, error)),
            },
        }
    }

    /// All files below a directory of the archive, as paths within the archive, in order.
    pub(crate) fn list(&self, below: &str) -> Result<Vec<String>, ArchiveError> {
        let mut found = Vec::new();
        match &self.0 {
            Kind::Directory(root) => {
                let start = if below.is_empty() {
                    root.clone()
                } else {
                    root.join(below)
                };
                walk(&start, below, &mut found).map_err(|error| ArchiveError::unavailable("listing", below, error))?;
            }
            Kind::Store { store, prefix, .. } => {
                let path = if below.is_empty() {
                    prefix.clone()
                } else {
                    Self::object_path(prefix, below)?
                };
                let listed: Result<Vec<_>, _> = wait(store.list(Some(&path)).try_collect());
                let listed = listed.map_err(|error| ArchiveError::unavailable("listing", below, error))?;
                let start = prefix.as_ref();
                for object in listed {
                    let whole = object.location.as_ref();
                    let within = whole.strip_prefix(start).unwrap_or(whole);
                    found.push(within.strip_prefix('/').unwrap_or(within).to_owned());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Writes a file whole and durably. What it replaces must be `known`, where the place can tell.
    pub(crate) fn write(
        &self,
        file: &str,
        bytes: &[u8],
        known: Option<&Version>,
        fault: Option<&Fault>,
    ) -> Result<Version, ArchiveError> {
        match &self.0 {
            Kind::Directory(root) => {
                let written = write_durably(root, file, bytes, fault);
                if matches!(written, Err(ArchiveError::Unavailable { .. })) {
                    // A full disk must not stay full because of half a file. What cannot be removed is swept later.
                    let _ = std::fs::remove_file(root.join(format!("{file}{UNFINISHED}")));
                }
                written.map(|()| Version::default())
            }
            Kind::Store { store, prefix, .. } => {
                step(fault, file, "nothing put")?;
                let path = Self::object_path(prefix, file)?;
                let mode = match known {
                    None => PutMode::Overwrite,
                    Some(Version(None)) => PutMode::Create,
                    Some(Version(Some(version))) => PutMode::Update(version.clone()),
                };
                let payload = || PutPayload::from(Bytes::copy_from_slice(bytes));
                let put = |mode| wait(store.put_opts(&path, payload(), PutOptions::from(mode)));
                let result = match put(mode) {
                    // Some stores cannot compare and put; there, one writer is the operator's word.
                    Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                        put(PutMode::Overwrite)
                    }
                    other => other,
                };
                let result = result.map_err(|error| match error {
                    object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. } => {
                        ArchiveError::Conflict { file: file.to_owned() }
                    }
                    other => ArchiveError::unavailable("writing", file, other),
                })?;
                step(fault, file, "put")?;
                Ok(Version(Some(UpdateVersion {
                    e_tag: result.e_tag,
                    version: result.version,
                })))
            }
        }
    }

    /// Removes a file; one that is not there is fine.
    pub(crate) fn remove(&self, file: &str) -> Result<(), ArchiveError> {
        let failed = |error: &dyn std::fmt::Display| ArchiveError::unavailable("removing", file, error);
        match &self.0 {
            Kind::Directory(root) => match std::fs::remove_file(root.join(file)) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error)),
                _ => Ok(()),
            },
            Kind::Store { store, prefix, .. } => {
                let path = Self::object_path(prefix, file)?;
                match wait(store.delete(&path)) {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(failed(&error)),
                }
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Kind::Directory(root) => write!(f, "{}", root.display()),
            Kind::Store { url, .. } => f.write_str(url),
        }
    }
}

/// Waits for an object store, on a thread that may block.
fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Handle::current().block_on(future)
}

/// Asks the test, if there is one, whether the writer stops here.
fn step(fault: Option<&Fault>, file: &str, done: &'static str) -> Result<(), ArchiveError> {
    let Some(fault) = fault else { return Ok(()) };
    let step = Step {
        file: file.to_owned(),
        done,
    };
    if fault(&step) {
        return Err(ArchiveError::Stopped {
            step: format!("{file}: {done}"),
        });
    }
    Ok(())
}

fn write_durably(root: &Path, file: &str, bytes: &[u8], fault: Option<&Fault>) -> Result<(), ArchiveError> {
    let failed = |error| ArchiveError::unavailable("writing", file, error);
    let target = root.join(file);
    let directory = target.parent().unwrap_or(root);
    make_directories(directory).map_err(failed)?;
    step(fault, file, "directory made")?;
    let unfinished = root.join(format!("{file}{UNFINISHED}"));
    let mut out = File::create(&unfinished).map_err(failed)?;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    out.write_all(first).map_err(failed)?;
    step(fault, file, "half written")?;
    out.write_all(second).map_err(failed)?;
    step(fault, file, "written")?;
    out.sync_all().map_err(failed)?;
    drop(out);
    step(fault, file, "synced")?;
    std::fs::rename(&unfinished, &target).map_err(failed)?;
    step(fault, file, "renamed")?;
    sync_directory(directory).map_err(failed)?;
    step(fault, file, "directory synced")
}

/// Makes a directory and its parents; each new one's entry in its parent is made durable too.
fn make_directories(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            make_directories(parent)?;
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            sync_directory(parent)
        }
        _ => std::fs::create_dir_all(directory),
    }
}

fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

fn walk(directory: &Path, within: &str, found: &mut Vec<String>) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        // A name that is not text is none of ours.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = if within.is_empty() {
            name
        } else {
            format!("{within}/{name}")
        };
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}
