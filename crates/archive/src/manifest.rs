//! The manifest: which files the archive consists of, and which part of the log each flush covers.
//!
//! A flush is one line of a *volume* (`manifest/<number of its first flush>.jsonl`, at most 256 flushes), replaced as a
//! whole when a flush is added; older volumes never change. A line is a JSON object whose last member is the SHA-256 of
//! everything before it, and each line names the hash of the line before it, over all volumes. The last line of a volume
//! says how many flushes it holds, so that a volume that lost its end is not taken for an earlier one.
//!
//! Reading checks all of that, and that the ranges of each partition start at 0 and touch. Nothing is ever repaired
//! here, and a file that the manifest does not name does not exist as far as readers are concerned.

use crate::place::{Place, Version};
use crate::{ArchiveError, Fault};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;
use vigie_event::{Offset, Partition, Timestamp, Workspace};

/// Flushes in a volume.
const VOLUME: u64 = 256;
/// The directory of the volumes.
pub(crate) const DIRECTORY: &str = "manifest";
const SUFFIX: &str = ".jsonl";
/// The `prev` of the first flush.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A part of one partition of the log, half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The partition.
    pub partition: Partition,
    /// The first record.
    pub from: Offset,
    /// The record after the last one.
    pub to: Offset,
}

/// One Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Where it is within the archive.
    pub path: String,
    /// How many rows it holds.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Whose records it holds; `None` for ticks, activations and bytes that are no record.
    pub workspace: Option<Workspace>,
    /// The UTC day of its records, as `2026-11-22`.
    pub day: String,
    /// The earliest time of a record; `None` when no record of the file has one.
    pub min_recorded_at: Option<Timestamp>,
    /// The latest time of a record.
    pub max_recorded_at: Option<Timestamp>,
}

/// One flush: what became visible together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flush {
    /// 1, 2, 3…
    pub number: u64,
    /// What it covers of each partition, in ascending order of the partitions; no range is empty.
    pub ranges: Vec<Range>,
    /// Its files, in ascending order of their paths.
    pub files: Vec<DataFile>,
    /// Rows of all files.
    pub rows: u64,
    /// The version of the files' columns.
    pub schema: u32,
    /// The hash of the flush before, zeros for the first one.
    pub prev: String,
}

/// All flushes as of one reading. Never changes; a later reading is another value.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    flushes: Vec<Arc<Flush>>,
    ends: Vec<Offset>,
    last_hash: String,
    /// The lines of the volume that the next flush may still go into, without the closing one.
    lines: Vec<String>,
    version: Version,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn volume_name(first: u64) -> String {
    format!("{DIRECTORY}/{first:012}{SUFFIX}")
}

fn first_of_volume(number: u64) -> u64 {
    (number.saturating_sub(1) / VOLUME) * VOLUME + 1
}

impl Manifest {
    fn empty(partitions: u16) -> Self {
        Self {
            flushes: Vec::new(),
            ends: vec![Offset(0); usize::from(partitions)],
            last_hash: NOTHING.to_owned(),
            lines: Vec::new(),
            version: Version::default(),
        }
    }

    /// Reads and checks the volumes; of what `known` holds already, only its last volume is read again.
    pub(crate) fn load(place: &Place, partitions: u16, known: Option<&Self>) -> Result<Self, ArchiveError> {
        let mut manifest = Self::empty(partitions);
        if let Some(known) = known {
            manifest.take_older_volumes(known)?;
        }
        let listed = place.list(DIRECTORY)?;
        let volumes = listed.iter().filter(|path| path.ends_with(SUFFIX));
        let first = volume_name(manifest.next_number());
        for volume in volumes.filter(|path| **path >= first) {
            let expected = volume_name(manifest.next_number());
            if *volume != expected {
                return Err(fault(volume, 0, format!("{expected} should come before it")));
            }
            let read = place.read(volume)?;
            let (bytes, version) = read.ok_or_else(|| fault(volume, 0, "has disappeared".to_owned()))?;
            manifest.lines.clear();
            manifest.version = version;
            manifest.add_volume(volume, &bytes)?;
        }
        if let Some(known) = known
            && known.flushes.len() > manifest.flushes.len()
        {
            let reason = format!(
                "holds {} flushes where there were {}",
                manifest.flushes.len(),
                known.flushes.len()
            );
            return Err(fault(&volume_name(first_of_volume(known.last_number())), 0, reason));
        }
        Ok(manifest)
    }

    fn take_older_volumes(&mut self, known: &Self) -> Result<(), ArchiveError> {
        let older = first_of_volume(known.last_number()).saturating_sub(1);
        for flush in known.flushes.iter().take(usize::try_from(older).unwrap_or(usize::MAX)) {
            self.extend_ranges(flush)
                .map_err(|reason| fault(DIRECTORY, 0, reason))?;
            self.flushes.push(Arc::clone(flush));
        }
        if let Some(next) = known.flushes.get(self.flushes.len()) {
            self.last_hash.clone_from(&next.prev);
        }
        Ok(())
    }

    fn add_volume(&mut self, volume: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        let text = std::str::from_utf8(bytes).map_err(|error| fault(volume, 0, error.to_string()))?;
        let Some(text) = text.strip_suffix('\n') else {
            return Err(fault(volume, 0, "does not end with a line".to_owned()));
        };
        let lines: Vec<&str> = text.split('\n').collect();
        let Some((closing, lines)) = lines.split_last() else {
            return Err(fault(volume, 0, "is empty".to_owned()));
        };
        for (index, line) in lines.iter().enumerate() {
            self.add_line(line).map_err(|reason| fault(volume, index + 1, reason))?;
            self.lines.push((*line).to_owned());
        }
        let expected = closing_line(self.lines.len(), &self.last_hash);
        if lines.is_empty() || lines.len() as u64 > VOLUME || *closing != expected {
            let reason = "is not the closing line of the volume: lines are missing or damaged".to_owned();
            return Err(fault(volume, lines.len() + 1, reason));
        }
        Ok(())
    }

    /// Takes one line in, or says why it does not fit.
    fn add_line(&mut self, line: &str) -> Result<(), String> {
        let (body, hash) = split_line(line).ok_or("is not a line of a manifest")?;
        if sha256(body.as_bytes()) != hash {
            return Err("its bytes do not have the hash that it names".to_owned());
        }
        let flush: Flush = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        if flush.number != self.next_number() {
            return Err(format!("flush {} where {} should be", flush.number, self.next_number()));
        }
        if flush.prev != self.last_hash {
            return Err("does not name the hash of the flush before it".to_owned());
        }
        self.extend_ranges(&flush)?;
        let rows: u64 = flush.files.iter().map(|file| file.rows).sum();
        let covered: u64 = flush.ranges.iter().map(|range| range.to.0 - range.from.0).sum();
        if rows != flush.rows || covered != flush.rows {
            return Err(format!(
                "{} rows, but files hold {rows} and ranges {covered}",
                flush.rows
            ));
        }
        hash.clone_into(&mut self.last_hash);
        self.flushes.push(Arc::new(flush));
        Ok(())
    }

    fn extend_ranges(&mut self, flush: &Flush) -> Result<(), String> {
        if !flush.ranges.is_sorted_by(|a, b| a.partition < b.partition) {
            return Err("partitions are not in order".to_owned());
        }
        let partitions = self.ends.len();
        for Range { partition, from, to } in &flush.ranges {
            let end = self.ends.get_mut(usize::from(partition.0));
            let end = end.ok_or_else(|| format!("partition {partition} does not exist: the log has {partitions}"))?;
            if from > end {
                return Err(format!("partition {partition} has a hole from offset {end} to {from}"));
            }
            if from < end {
                return Err(format!("partition {partition} covers offsets {from} to {end} twice"));
            }
            if to <= from {
                return Err(format!("partition {partition} has an empty range at offset {from}"));
            }
            *end = *to;
        }
        Ok(())
    }

    /// Makes a flush visible: the last thing that is written of it.
    pub(crate) fn append(
        &self,
        place: &Place,
        ranges: Vec<Range>,
        files: Vec<DataFile>,
        fault_hook: Option<&Fault>,
    ) -> Result<Self, ArchiveError> {
        let flush = Flush {
            number: self.next_number(),
            rows: files.iter().map(|file| file.rows).sum(),
            ranges,
            files,
            schema: crate::columns::SCHEMA_VERSION,
            prev: self.last_hash.clone(),
        };
        let volume = volume_name(first_of_volume(flush.number));
        let unwritable = |reason: String| ArchiveError::Manifest {
            volume: volume.clone(),
            line: 0,
            reason,
        };
        let body = serde_json::to_string(&flush).map_err(|error| unwritable(error.to_string()))?;
        let line = join_line(&body, &sha256(body.as_bytes()));
        let mut next = self.clone();
        if first_of_volume(flush.number) == flush.number {
            next.lines.clear();
            next.version = Version::default();
        }
        // The new manifest is made by the code that reads it: what could not be read is never written.
        next.add_line(&line).map_err(unwritable)?;
        next.lines.push(line);
        let mut text = String::new();
        for line in &next.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&closing_line(next.lines.len(), &next.last_hash));
        text.push('\n');
        next.version = place.write(&volume, text.as_bytes(), Some(&next.version), fault_hook)?;
        Ok(next)
    }

    pub(crate) fn flushes(&self) -> &[Arc<Flush>] {
        &self.flushes
    }

    pub(crate) fn ends(&self) -> &[Offset] {
        &self.ends
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.flushes.len() as u64
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.last_number() + 1
    }

    /// All files of all flushes.
    pub(crate) fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.flushes.iter().flat_map(|flush| flush.files.iter())
    }
}

fn fault(volume: &str, line: usize, reason: String) -> ArchiveError {
    ArchiveError::Manifest {
        volume: volume.to_owned(),
        line,
        reason,
    }
}

fn closing_line(flushes: usize, hash: &str) -> String {
    format!("{{\"flushes\":{flushes},\"last\":\"{hash}\"}}")
}

/// The object's text with its hash as the last member.
fn join_line(body: &str, hash: &str) -> String {
    let open = body.strip_suffix('}').unwrap_or(body);
    format!("{open},\"hash\":\"{hash}\"}}")
}

/// The object's text without its last member, and that member.
fn split_line(line: &str) -> Option<(String, &str)> {
    let (open, hash) = line.strip_suffix("\"}")?.rsplit_once(",\"hash\":\"")?;
    Some((format!("{open}}}"), hash))
}
