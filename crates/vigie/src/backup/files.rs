//! The files of a backup: which they are, in which order they are copied, and that they come back as they were. It never knows
//! what is in them.
//!
//! Why copying beside a writer is consistent: files are copied in the order in which they depend on each other. The archive's
//! manifest comes first, then the files that it names, which were complete before it named them; then the journal; then the
//! log, segment by segment in its own order. So the log reaches at least as far as the archive, and a copy of a segment that is
//! being written is a beginning of it, with a torn tail at most, which opening drops as it does after a crash.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path};

/// The list of files, written last: a directory without it is no backup.
const LIST: &str = "backup.json";
/// The only version of the list so far.
const VERSION: u32 = 1;
/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// What a backup consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    version: u32,
    /// When it was begun, for people.
    pub(super) taken_at: String,
    partitions: u16,
    pub(super) files: Vec<Copied>,
}

impl List {
    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Copied {
    /// Within the backup, and within the data directory.
    path: String,
    bytes: u64,
    sha256: String,
}

/// What of a data directory belongs into a backup, in the order in which it must be copied. See the module.
fn wanted(dir: &Path) -> Result<Vec<String>> {
    let mut wanted = Vec::new();
    if dir.join("keys.toml").exists() {
        wanted.push("keys.toml".to_owned());
    }
    below(dir, "archive/manifest", &mut wanted)?;
    let manifest = wanted.clone();
    below(dir, "archive", &mut wanted)?;
    // The manifest is listed already, and once is enough.
    let mut seen = 0;
    wanted.retain(|path| {
        seen += 1;
        seen <= manifest.len() || !manifest.contains(path)
    });
    below(dir, "dead-letters/log", &mut wanted)?;
    below(dir, "log", &mut wanted)?;
    Ok(wanted)
}

/// Adds every finished file below `dir/of`, in the order of the names.
fn below(dir: &Path, of: &str, found: &mut Vec<String>) -> Result<()> {
    let place = dir.join(of);
    if !place.is_dir() {
        return Ok(());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&place).with_context(|| place.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name
            .to_str()
            .with_context(|| format!("{} has a name that is no text", entry.path().display()))?;
        names.push((name.to_owned(), entry.file_type()?.is_dir()));
    }
    names.sort();
    for (name, is_dir) in names {
        let path = format!("{of}/{name}");
        if is_dir {
            below(dir, &path, found)?;
        } else if !name.ends_with(".tmp") && !name.ends_with(".lock") {
            found.push(path);
        }
    }
    Ok(())
}

/// Copies what is wanted of a data directory to an empty one.
pub(super) fn copy_out(dir: &Path, to: &Path, partitions: u16, taken_at: &str) -> Result<List> {
    make_empty(to)?;
    let mut files = Vec::new();
    for path in wanted(dir)? {
        files.push(copy(dir, to, &path)?);
    }
    let list = List {
        version: VERSION,
        taken_at: taken_at.to_owned(),
        partitions,
        files,
    };
    let mut file = create(&to.join(LIST))?;
    file.write_all(&serde_json::to_vec_pretty(&list)?)?;
    file.sync_all()?;
    sync_dirs(to, &list)?;
    Ok(list)
}

/// Copies a backup to an empty directory, and refuses one that is not what was backed up.
pub(super) fn copy_in(from: &Path, dir: &Path, partitions: u16) -> Result<List> {
    let text =
        std::fs::read(from.join(LIST)).with_context(|| format!("{} is no complete backup: {LIST}", from.display()))?;
    let list: List =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", from.join(LIST).display()))?;
    if list.version != VERSION {
        bail!(
            "the backup is of version {}, this program knows {VERSION}",
            list.version
        );
    }
    if list.partitions != partitions {
        bail!(
            "the backup has {} partitions: set log.partitions to that, or name its configuration with --config",
            list.partitions
        );
    }
    make_empty(dir)?;
    for wanted in &list.files {
        let path = Path::new(&wanted.path);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("{}: {} leads out of the backup", from.join(LIST).display(), wanted.path);
        }
        let copied = copy(from, dir, &wanted.path)?;
        if copied != *wanted {
            bail!("{} is damaged: it is not what was backed up", from.join(path).display());
        }
    }
    sync_dirs(dir, &list)?;
    Ok(list)
}

/// Makes a directory that only its owner may read; one that is there must be empty.
fn make_empty(dir: &Path) -> Result<()> {
    make_dir(dir)?;
    let mut entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    if entries.next().is_some() {
        bail!("{} is not empty", dir.display());
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    let _ = builder.recursive(true).mode(0o700);
    builder.create(dir).with_context(|| dir.display().to_string())
}

fn create(path: &Path) -> Result<File> {
    let mut options = File::options();
    let _ = options.write(true).create_new(true).mode(0o600);
    options.open(path).with_context(|| path.display().to_string())
}

/// Copies one file as long as it is now, durably.
fn copy(from: &Path, to: &Path, path: &str) -> Result<Copied> {
    let (source, target) = (from.join(path), to.join(path));
    if let Some(parent) = target.parent() {
        make_dir(parent)?;
    }
    let file = File::open(&source).with_context(|| source.display().to_string())?;
    let length = file.metadata()?.len();
    let mut source_bytes = file.take(length);
    let mut out = create(&target)?;
    let (mut digest, mut bytes) = (Sha256::new(), 0u64);
    let mut piece = vec![0; PIECE];
    loop {
        let read = source_bytes
            .read(&mut piece)
            .with_context(|| source.display().to_string())?;
        let Some(part) = piece.get(..read).filter(|part| !part.is_empty()) else {
            break;
        };
        digest.update(part);
        out.write_all(part).with_context(|| target.display().to_string())?;
        bytes += part.len() as u64;
    }
    out.sync_all().with_context(|| target.display().to_string())?;
    let mut sha256 = String::new();
    for byte in digest.finalize() {
        sha256.push_str(&format!("{byte:02x}"));
    }
    Ok(Copied {
        path: path.to_owned(),
        bytes,
        sha256,
    })
}

/// Makes the names of all files durable.
fn sync_dirs(root: &Path, list: &List) -> Result<()> {
    let mut dirs = vec![root.to_owned()];
    for file in &list.files {
        let parents = Path::new(&file.path).ancestors().skip(1);
        dirs.extend(
            parents
                .filter(|parent| !parent.as_os_str().is_empty())
                .map(|parent| root.join(parent)),
        );
    }
    dirs.sort();
    dirs.dedup();
    for dir in dirs {
        File::open(&dir)?
            .sync_all()
            .with_context(|| dir.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn house(root: &Path) {
        for (path, content) in [
            ("LOCK", ""),
            ("reserve", "zeros"),
            ("keys.toml", "keys"),
            ("log/0000.log", "first"),
            ("log/0001.log", "second"),
            ("log/0002.tmp", "unfinished"),
            ("dead-letters/LOCK", ""),
            ("dead-letters/log/0000.log", "letters"),
            ("archive/writer.lock", ""),
            ("archive/manifest/1.jsonl", "flushes"),
            ("archive/default/2026-11-22/1.parquet", "rows"),
            ("store/data", "store"),
        ] {
            write(root, path, content);
        }
    }

    #[test]
    fn what_depends_on_others_is_copied_before_them() {
        let dir = tempfile::tempdir().unwrap();
        house(dir.path());
        assert_eq!(
            wanted(dir.path()).unwrap(),
            [
                "keys.toml",
                "archive/manifest/1.jsonl",
                "archive/default/2026-11-22/1.parquet",
                "dead-letters/log/0000.log",
                "log/0000.log",
                "log/0001.log",
            ]
        );
    }

    #[test]
    fn a_backup_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (data, kept, back) = (
            dir.path().join("data"),
            dir.path().join("kept"),
            dir.path().join("back"),
        );
        house(&data);
        let list = copy_out(&data, &kept, 64, "then").unwrap();
        assert_eq!(copy_in(&kept, &back, 64).unwrap(), list);
        for file in &list.files {
            assert_eq!(
                std::fs::read(data.join(&file.path)).unwrap(),
                std::fs::read(back.join(&file.path)).unwrap()
            );
        }
        assert!(!back.join("store").exists() && !back.join("LOCK").exists());
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept), mode(&back.join("keys.toml"))), (0o700, 0o600));
    }

    #[test]
    fn damage_and_wrong_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (data, kept) = (dir.path().join("data"), dir.path().join("kept"));
        house(&data);
        let _ = copy_out(&data, &kept, 64, "then").unwrap();
        let refused =
            |partitions: u16, to: &str| format!("{:#}", copy_in(&kept, &dir.path().join(to), partitions).unwrap_err());
        assert!(refused(8, "a").contains("64 partitions"));
        assert!(refused(64, "data").contains("not empty"));
        assert!(format!("{:#}", copy_out(&data, &kept, 64, "then").unwrap_err()).contains("not empty"));
        std::fs::write(kept.join("log/0001.log"), "sEcond").unwrap();
        assert!(refused(64, "b").contains("log/0001.log is damaged"));
        let text = std::fs::read_to_string(kept.join(LIST)).unwrap();
        std::fs::write(kept.join(LIST), text.replace("log/0000.log", "../0000.log")).unwrap();
        assert!(refused(64, "c").contains("leads out of the backup"));
        std::fs::remove_file(kept.join(LIST)).unwrap();
        assert!(refused(64, "d").contains("no complete backup"));
    }
}
