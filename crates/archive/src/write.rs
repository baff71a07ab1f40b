//! A flush: rows in, files and one manifest line out.
//!
//! The order is the guarantee (F67): rows are checked before anything is written, every file is durable before the
//! manifest names it, and the manifest's replacement is the one moment at which all of it becomes visible. A crash
//! before that moment leaves files that nobody reads and that [`sweep`] removes. Nothing here chooses when to flush.

use crate::columns::{self, Prepared, Row};
use crate::manifest::{DIRECTORY, DataFile, Manifest, Range, sha256};
use crate::place::{Place, UNFINISHED};
use crate::{ArchiveError, Fault};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::SortingColumn;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use datafusion::parquet::schema::types::ColumnPath;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use vigie_event::{Day, Offset, Position, Workspace};

/// Rows of a row group.
pub(crate) const ROW_GROUP: usize = 65_536;
/// The directory of rows without a workspace. Names are encoded so that none begins with a point.
const NO_WORKSPACE: &str = ".none";
/// Longest directory name for a workspace; file systems end at 255.
const LONGEST: usize = 180;
/// Columns whose values hardly repeat: a dictionary would be built in vain.
const DISTINCT: [&str; 5] = ["log_offset", "event_id", "payload", "record", "judgement"];

/// Writes rows that continue `manifest`, and gives the manifest that holds them.
pub(crate) fn flush(
    place: &Place,
    manifest: &Manifest,
    rows: &[Row],
    fault: Option<&Fault>,
) -> Result<Manifest, ArchiveError> {
    let mut order: Vec<&Row> = rows.iter().collect();
    order.sort_by_key(|row| row.position);
    let ranges = check(manifest, order.iter().map(|row| row.position))?;
    let mut groups: BTreeMap<(Option<Workspace>, Day), Vec<Prepared>> = BTreeMap::new();
    for row in order {
        let row = Prepared::new(row);
        let key = (row.workspace().cloned(), row.day());
        groups.entry(key).or_default().push(row);
    }
    let number = manifest.next_number();
    let mut files = Vec::with_capacity(groups.len());
    for ((workspace, day), rows) in groups {
        let bytes = encode(&rows).map_err(|error| ArchiveError::unavailable("encoding", "a flush", error))?;
        let sha256 = sha256(&bytes);
        let path = path(workspace.as_ref(), day, number, &sha256);
        let _version = place.write(&path, &bytes, None, fault)?;
        let times = || rows.iter().filter_map(Prepared::recorded_at);
        files.push(DataFile {
            path,
            rows: rows.len() as u64,
            bytes: bytes.len() as u64,
            sha256,
            workspace,
            day: day.to_string(),
            min_recorded_at: times().min(),
            max_recorded_at: times().max(),
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    manifest.append(place, ranges, files, fault)
}

/// The ranges of rows in order, if they continue the archive.
fn check(manifest: &Manifest, positions: impl Iterator<Item = Position>) -> Result<Vec<Range>, ArchiveError> {
    let mut ranges: Vec<Range> = Vec::new();
    for Position { partition, offset } in positions {
        let expected = match ranges.last() {
            Some(range) if range.partition == partition => range.to,
            _ => match manifest.ends().get(usize::from(partition.0)) {
                Some(end) => *end,
                None => {
                    return Err(ArchiveError::Partitions {
                        found: partition.0,
                        expected: u16::try_from(manifest.ends().len()).unwrap_or(u16::MAX),
                    });
                }
            },
        };
        if offset != expected || offset == Offset(u64::MAX) {
            return Err(ArchiveError::NotContiguous {
                partition: partition.0,
                expected: expected.0,
                got: offset.0,
            });
        }
        match ranges.last_mut() {
            Some(range) if range.partition == partition => range.to = offset.next(),
            _ => ranges.push(Range {
                partition,
                from: offset,
                to: offset.next(),
            }),
        }
    }
    Ok(ranges)
}

fn encode(rows: &[Prepared]) -> Result<Vec<u8>, ParquetError> {
    let mut writer = ArrowWriter::try_new(Vec::new(), columns::schema(), Some(properties()?))?;
    for rows in rows.chunks(ROW_GROUP) {
        writer.write(&columns::batch(rows)?)?;
    }
    writer.into_inner()
}

fn properties() -> Result<WriterProperties, ParquetError> {
    let ordered = |column_idx| SortingColumn {
        column_idx,
        descending: false,
        nulls_first: false,
    };
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(vec![ordered(0), ordered(1)]))
        .set_created_by("vigie".to_owned())
        .set_column_encoding(ColumnPath::from("log_offset"), Encoding::DELTA_BINARY_PACKED);
    for column in DISTINCT {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
    }
    for column in ["payload", "record", "judgement"] {
        // Nobody compares these: their smallest and largest values would only take room.
        properties = properties.set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::None);
    }
    Ok(properties.build())
}

/// Where a file goes.
fn path(workspace: Option<&Workspace>, day: Day, number: u64, sha256: &str) -> String {
    let workspace = workspace.map_or_else(|| NO_WORKSPACE.to_owned(), |name| directory(name.as_str()));
    let day = day.to_string().replace(' ', "_");
    let start = sha256.get(..16).unwrap_or(sha256);
    format!("workspace={workspace}/day={day}/{number:012}-{start}.parquet")
}

/// A workspace's name as a directory: percent-encoded but for letters, digits, `-`, `_` and points within it. A name
/// that would be too long for a file system is cut and told apart by its hash, after a `=` that no encoding contains.
fn directory(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || (byte == b'.' && at > 0) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    if text.len() > LONGEST {
        let hash = sha256(name.as_bytes());
        text.truncate(LONGEST);
        text.push('=');
        text.push_str(hash.get(..16).unwrap_or(&hash));
    }
    text
}

/// Removes what crashes left behind: unfinished files, and data files that the manifest does not name.
///
/// A data file of a flush that comes later than the next one cannot be left over from a crash: the manifest has lost
/// its end, and nothing is removed.
pub(crate) fn sweep(place: &Place, manifest: &Manifest) -> Result<Vec<String>, ArchiveError> {
    let named: BTreeSet<&str> = manifest.files().map(|file| file.path.as_str()).collect();
    let mut leftovers = Vec::new();
    for path in place.list("")? {
        let in_manifest = path.starts_with(DIRECTORY);
        let Some(number) = flush_number(&path).filter(|_| !in_manifest) else {
            if path.ends_with(UNFINISHED) {
                leftovers.push(path);
            }
            continue;
        };
        if number > manifest.next_number() {
            return Err(ArchiveError::Manifest {
                volume: DIRECTORY.to_owned(),
                line: 0,
                reason: format!(
                    "the last flush is {}, but {path} belongs to flush {number}: later volumes are missing",
                    manifest.last_number()
                ),
            });
        }
        if !named.contains(path.as_str()) {
            leftovers.push(path);
        }
    }
    for path in &leftovers {
        place.remove(path)?;
    }
    Ok(leftovers)
}

/// The flush that a data file belongs to, finished or not.
fn flush_number(path: &str) -> Option<u64> {
    let name = path.strip_prefix("workspace=")?.rsplit('/').next()?;
    let name = name.strip_suffix(UNFINISHED).unwrap_or(name).strip_suffix(".parquet")?;
    name.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_workspaces_stay_apart_and_within_limits() {
        let long = "é".repeat(100);
        let longer = format!("{}!", "é".repeat(99));
        let names = [
            "shop", "Shop", "a/b", "a%2Fb", "..", ".", ".none", "%2Enone", "a b", "é", "\\", &long, &longer,
        ];
        let directories: BTreeSet<String> = names.iter().map(|name| directory(name)).collect();
        assert_eq!(directories.len(), names.len());
        for directory in &directories {
            assert!(!directory.starts_with('.') && directory.len() <= 200, "{directory}");
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.%=".contains(c);
            assert!(directory.chars().all(plain), "{directory}");
        }
        assert!(directories.contains("a%2Fb") && directories.contains("%2E."));
    }

    #[test]
    fn flush_numbers_are_read_from_paths() {
        let path = path(None, Day(20_777), 7, "0123456789abcdef0123");
        assert_eq!(
            path,
            "workspace=.none/day=2026-11-20/000000000007-0123456789abcdef.parquet"
        );
        assert_eq!(flush_number(&path), Some(7));
        assert_eq!(flush_number(&format!("{path}.tmp")), Some(7));
        for other in [
            "manifest/000000000001.jsonl",
            "writer.lock",
            "workspace=a/notes.txt",
            "x/000000000001-a.parquet",
        ] {
            assert_eq!(flush_number(other), None, "{other}");
        }
    }
}
