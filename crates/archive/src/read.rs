//! The ordered reader: the log out of the archive, flush by flush, rows of all workspaces merged again.
//!
//! What comes out is exactly what the manifest promises: every offset of every wanted range once and in order, or an
//! error that names the file. Memory is bounded by a portion of rows for each file of one flush, whatever the size of
//! the archive. While the caller works on one portion, the next one is read. It never folds and never judges.

use crate::ArchiveError;
use crate::columns::{self, join};
use crate::manifest::{DataFile, Flush, Manifest, Range};
use crate::place::Place;
use crate::source::Source;
use crate::sql::Filter;
use bytes::Bytes;
use datafusion::arrow::array::{Array, AsArray, BinaryViewArray, BooleanArray, StringViewArray};
use datafusion::arrow::datatypes::{UInt16Type, UInt64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter,
};
use datafusion::parquet::file::statistics::Statistics;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::vec::IntoIter;
use tokio::task::JoinHandle;
use vigie_event::{CodecError, Judgement, Offset, Partition, Position, Record};

/// Rows that are given at a time at most.
const PORTION: usize = 65_536;
/// Rows that are decoded at a time from one file, when there is one file and when there are very many.
const BATCH: (usize, usize) = (8_192, 512);
/// Rows decoded ahead over all files of a flush.
const AHEAD: usize = 131_072;

/// Which part of the archive to read, and how much of it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Only these partitions; `None` for all.
    pub partitions: Option<BTreeSet<Partition>>,
    /// The first offset wanted of a partition; 0 where none is named.
    pub from: BTreeMap<Partition, Offset>,
    /// The offset to stop before; the archive's end where none is named.
    pub until: BTreeMap<Partition, Offset>,
    /// Read payloads too. Without, `payload` of every event is empty and its column is not touched.
    pub payload: bool,
    /// Read what became of each record.
    pub judgement: bool,
    /// Give the exact bytes of the log record too (reads payloads whatever `payload` says).
    pub bytes: bool,
    /// Compare each file with its SHA-256 before reading it. On by default; switch it off only for speed, where
    /// another look at the archive checks it.
    pub checked: bool,
    /// Give only the rows that the filter keeps. All others are still checked to be there.
    pub filter: Option<Filter>,
}

impl Default for Wanted {
    /// Everything, without payload, judgement and bytes; checked.
    fn default() -> Self {
        Self {
            partitions: None,
            from: BTreeMap::new(),
            until: BTreeMap::new(),
            payload: false,
            judgement: false,
            bytes: false,
            checked: true,
            filter: None,
        }
    }
}

/// One record of the log, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Where it stood in the log.
    pub position: Position,
    /// The record, or why the log's bytes are none (the same answer as when the log itself was read).
    pub record: Result<Record, CodecError>,
    /// What became of it, if that was wanted.
    pub judgement: Option<Judgement>,
    /// The log record's exact bytes, if they were wanted.
    pub bytes: Option<Bytes>,
}

/// Gives the wanted rows in portions. See [`Reader::next`].
#[derive(Debug)]
pub struct Reader {
    state: Option<State>,
    pending: Option<JoinHandle<(State, Portion)>>,
}

type Portion = Result<Option<Vec<Archived>>, ArchiveError>;

#[derive(Debug)]
struct State {
    place: Place,
    manifest: Arc<Manifest>,
    wanted: Wanted,
    next_flush: usize,
    current: Option<FlushReader>,
}

impl Reader {
    pub(crate) fn new(place: Place, manifest: Arc<Manifest>, wanted: Wanted) -> Self {
        Self {
            state: Some(State {
                place,
                manifest,
                wanted,
                next_flush: 0,
                current: None,
            }),
            pending: None,
        }
    }

    /// The next rows, never none and at most 65,536, or `None` at the end. Rows of one flush come in ascending order
    /// of (partition, offset), flushes in their order; a portion never spans two flushes. After an error there is
    /// nothing more. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Portion {
        if self.pending.is_none() {
            let Some(state) = self.state.take() else {
                return Ok(None);
            };
            self.pending = Some(work(state));
        }
        let Some(pending) = &mut self.pending else {
            return Ok(None);
        };
        let done = pending.await;
        self.pending = None;
        match done {
            Ok((state, Ok(Some(rows)))) => {
                self.pending = Some(work(state));
                Ok(Some(rows))
            }
            Ok((_, ended)) => ended,
            Err(error) => Err(ArchiveError::unavailable("reading", "a flush", error)),
        }
    }
}

fn work(mut state: State) -> JoinHandle<(State, Portion)> {
    tokio::task::spawn_blocking(move || {
        let portion = state.portion();
        (state, portion)
    })
}

impl State {
    fn portion(&mut self) -> Portion {
        let mut rows = Vec::new();
        while rows.is_empty() {
            if self.current.is_none() && !self.open_next()? {
                return Ok(None);
            }
            if let Some(flush) = &mut self.current
                && flush.read(&self.wanted, &mut rows)?
            {
                self.current = None;
            }
        }
        Ok(Some(rows))
    }

    /// Opens the next flush that holds something wanted; `false` when there is none.
    fn open_next(&mut self) -> Result<bool, ArchiveError> {
        while let Some(flush) = self.manifest.flushes().get(self.next_flush) {
            self.next_flush += 1;
            let ranges = wanted_ranges(flush, &self.wanted);
            if !ranges.is_empty() {
                self.current = Some(FlushReader::open(&self.place, flush, ranges, &self.wanted)?);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn wanted_ranges(flush: &Flush, wanted: &Wanted) -> Vec<Range> {
    let listed = |partition| wanted.partitions.as_ref().is_none_or(|set| set.contains(&partition));
    let cut = flush
        .ranges
        .iter()
        .filter(|range| listed(range.partition))
        .map(|range| Range {
            partition: range.partition,
            from: wanted
                .from
                .get(&range.partition)
                .map_or(range.from, |from| range.from.max(*from)),
            to: wanted
                .until
                .get(&range.partition)
                .map_or(range.to, |until| range.to.min(*until)),
        });
    cut.filter(|range| range.from < range.to).collect()
}

fn is_wanted(ranges: &[Range], partition: u16, offset: u64) -> bool {
    let at = ranges.binary_search_by_key(&partition, |range| range.partition.0);
    let range = at.ok().and_then(|at| ranges.get(at));
    range.is_some_and(|range| range.from.0 <= offset && offset < range.to.0)
}

/// The files of one flush, merged.
struct FlushReader {
    number: u64,
    cursors: Vec<Cursor>,
    /// The next row of each file that has one.
    heads: BinaryHeap<Reverse<(Position, usize)>>,
    /// What is still to come, first range first.
    expected: IntoIter<Range>,
    range: Option<Range>,
}

impl std::fmt::Debug for FlushReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlushReader")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl FlushReader {
    fn open(place: &Place, flush: &Flush, ranges: Vec<Range>, wanted: &Wanted) -> Result<Self, ArchiveError> {
        if flush.schema != columns::SCHEMA_VERSION {
            return Err(ArchiveError::file(
                flush.files.first().map_or("", |file| &file.path),
                format!("has columns of version {}; read it with a newer release", flush.schema),
            ));
        }
        let batch = (AHEAD / flush.files.len().max(1)).clamp(BATCH.1, BATCH.0);
        let part = (ranges != flush.ranges).then(|| Arc::<[Range]>::from(ranges.as_slice()));
        let mut reader = Self {
            number: flush.number,
            cursors: Vec::with_capacity(flush.files.len()),
            heads: BinaryHeap::with_capacity(flush.files.len()),
            expected: ranges.into_iter(),
            range: None,
        };
        reader.range = reader.expected.next();
        for file in &flush.files {
            let mut cursor = Cursor::open(place, file, part.clone(), wanted, batch)?;
            if let Some(position) = cursor.peek(wanted)? {
                reader.heads.push(Reverse((position, reader.cursors.len())));
            }
            reader.cursors.push(cursor);
        }
        Ok(reader)
    }

    /// Adds rows up to a portion; `true` when the flush is finished.
    fn read(&mut self, wanted: &Wanted, rows: &mut Vec<Archived>) -> Result<bool, ArchiveError> {
        while rows.len() < PORTION {
            let Some(Reverse((position, at))) = self.heads.pop() else {
                return self.finish().map(|()| true);
            };
            let Some(cursor) = self.cursors.get_mut(at) else {
                continue;
            };
            expect(&mut self.range, &mut self.expected, position, &cursor.file)?;
            if let Some(row) = cursor.take() {
                rows.push(row);
            }
            // As long as the same file goes on without a gap, no other one can come first.
            let mut last = position;
            while let Some(next) = cursor.peek(wanted)? {
                let follows = next.partition == last.partition && next.offset == last.offset.next();
                if !follows || rows.len() >= PORTION {
                    self.heads.push(Reverse((next, at)));
                    break;
                }
                expect(&mut self.range, &mut self.expected, next, &cursor.file)?;
                if let Some(row) = cursor.take() {
                    rows.push(row);
                }
                last = next;
            }
        }
        Ok(false)
    }

    fn finish(&self) -> Result<(), ArchiveError> {
        match self.range {
            None => Ok(()),
            Some(missing) => {
                let files: Vec<&str> = self.cursors.iter().map(|cursor| cursor.file.as_str()).collect();
                let (number, partition, offset) = (self.number, missing.partition, missing.from);
                let reason = format!("flush {number} should hold {partition}@{offset}, but no file of it does");
                Err(ArchiveError::file(&files.join(", "), reason))
            }
        }
    }
}

/// Checks that `position` is the next one of the ranges.
fn expect(
    range: &mut Option<Range>,
    later: &mut IntoIter<Range>,
    position: Position,
    file: &str,
) -> Result<(), ArchiveError> {
    let next = range.map(|range| Position {
        partition: range.partition,
        offset: range.from,
    });
    if next != Some(position) {
        let expected = next.map_or_else(|| "nothing more".to_owned(), |next| next.to_string());
        let reason = format!("holds {position} where the manifest expects {expected}");
        return Err(ArchiveError::file(file, reason));
    }
    if let Some(current) = range {
        current.from = current.from.next();
        if current.from >= current.to {
            *range = later.next();
        }
    }
    Ok(())
}

/// One file, a batch at a time.
struct Cursor {
    file: String,
    batches: ParquetRecordBatchReader,
    /// Rows that are decoded; a row that the filter drops is `None`.
    rows: std::iter::Peekable<IntoIter<(Position, Option<Archived>)>>,
    rows_seen: u64,
    /// The number of rows that must come, when all of the file is wanted.
    rows_due: Option<u64>,
}

impl Cursor {
    fn open(
        place: &Place,
        file: &DataFile,
        part: Option<Arc<[Range]>>,
        wanted: &Wanted,
        batch: usize,
    ) -> Result<Self, ArchiveError> {
        let failed = |error: &dyn std::fmt::Display| ArchiveError::file(&file.path, error);
        let source = Source::open(place, file, wanted.checked)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(source).map_err(|error| failed(&error))?;
        let known = columns::schema();
        let names = |schema: &datafusion::arrow::datatypes::Schema| {
            let fields = schema.fields().iter();
            fields
                .map(|field| (field.name().clone(), field.data_type().clone()))
                .collect::<Vec<_>>()
        };
        if names(builder.schema()) != names(&known) {
            return Err(failed(&"has other columns than its version says"));
        }
        let mut roots = vec!["log_partition", "log_offset", "record", "whole"];
        if wanted.payload || wanted.bytes {
            roots.push("payload");
        }
        if wanted.judgement {
            roots.push("judgement");
        }
        let filtered = wanted.filter.iter().flat_map(Filter::columns);
        let indices = roots.into_iter().chain(filtered).map(columns::index);
        let indices = indices.collect::<Result<BTreeSet<_>, _>>()?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), indices);
        let rows_due = part.is_none().then_some(file.rows);
        let builder = match part {
            Some(ranges) => only(builder, ranges),
            None => builder,
        };
        let batches = builder.with_projection(mask).with_batch_size(batch).build();
        Ok(Self {
            file: file.path.clone(),
            batches: batches.map_err(|error| failed(&error))?,
            rows: Vec::new().into_iter().peekable(),
            rows_seen: 0,
            rows_due,
        })
    }

    /// The position of the next row.
    fn peek(&mut self, wanted: &Wanted) -> Result<Option<Position>, ArchiveError> {
        loop {
            if let Some((position, _)) = self.rows.peek() {
                return Ok(Some(*position));
            }
            let Some(batch) = self.batches.next() else {
                return match self.rows_due {
                    Some(due) if due != self.rows_seen => Err(ArchiveError::file(
                        &self.file,
                        format!("holds {} rows where the manifest says {due}", self.rows_seen),
                    )),
                    _ => Ok(None),
                };
            };
            let batch = batch.map_err(|error| ArchiveError::file(&self.file, error))?;
            self.rows_seen += batch.num_rows() as u64;
            let kept = wanted
                .filter
                .as_ref()
                .map(|filter| filter.evaluate(&batch))
                .transpose()?;
            let rows = decode(&batch, kept.as_ref(), wanted);
            let rows = rows.map_err(|reason| ArchiveError::file(&self.file, reason))?;
            self.rows = rows.into_iter().peekable();
        }
    }

    fn take(&mut self) -> Option<Archived> {
        self.rows.next().and_then(|(_, row)| row)
    }
}

/// Leaves out the row groups, and then the rows, that are not wanted.
fn only(
    builder: ParquetRecordBatchReaderBuilder<Source>,
    ranges: Arc<[Range]>,
) -> ParquetRecordBatchReaderBuilder<Source> {
    let groups = builder.metadata().row_groups().iter().enumerate();
    let wanted = groups.filter(
        |(_, group)| match group.columns().first().and_then(|column| column.statistics()) {
            Some(Statistics::Int32(partitions)) => {
                let bounds = partitions.min_opt().zip(partitions.max_opt());
                bounds.is_none_or(|(min, max)| {
                    ranges
                        .iter()
                        .any(|range| (*min..=*max).contains(&i32::from(range.partition.0)))
                })
            }
            _ => true,
        },
    );
    let groups = wanted.map(|(at, _)| at).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), [0, 1]);
    let predicate = ArrowPredicateFn::new(mask, move |batch: RecordBatch| {
        let partitions = batch.column(0).as_primitive::<UInt16Type>();
        let offsets = batch.column(1).as_primitive::<UInt64Type>();
        let pairs = partitions.values().iter().zip(offsets.values());
        Ok(BooleanArray::from_iter(pairs.map(|(partition, offset)| {
            Some(is_wanted(&ranges, *partition, *offset))
        })))
    });
    builder
        .with_row_groups(groups)
        .with_row_filter(RowFilter::new(vec![Box::new(predicate)]))
}

/// The columns of a batch that rows are made of.
struct Columns<'a> {
    record: &'a BinaryViewArray,
    whole: &'a BooleanArray,
    payload: Option<&'a StringViewArray>,
    judgement: Option<&'a BinaryViewArray>,
}

/// The rows of a batch; of those that the filter does not keep, only the positions.
fn decode(
    batch: &RecordBatch,
    kept: Option<&BooleanArray>,
    wanted: &Wanted,
) -> Result<Vec<(Position, Option<Archived>)>, String> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .ok_or_else(|| format!("has no column {name}"))
    };
    let partitions = column("log_partition")?.as_primitive::<UInt16Type>();
    let offsets = column("log_offset")?.as_primitive::<UInt64Type>();
    let columns = Columns {
        record: column("record")?.as_binary_view(),
        whole: column("whole")?.as_boolean(),
        payload: batch.column_by_name("payload").map(|column| column.as_string_view()),
        judgement: batch.column_by_name("judgement").map(|column| column.as_binary_view()),
    };
    let mut rows = Vec::with_capacity(batch.num_rows());
    for (at, (partition, offset)) in partitions.values().iter().zip(offsets.values()).enumerate() {
        let position = Position {
            partition: Partition(*partition),
            offset: Offset(*offset),
        };
        let keep = kept.is_none_or(|kept| kept.is_valid(at) && kept.value(at));
        let row = keep.then(|| columns.row(at, position, wanted)).transpose();
        rows.push((position, row.map_err(|reason| format!("{position}: {reason}"))?));
    }
    Ok(rows)
}

impl Columns<'_> {
    fn row(&self, at: usize, position: Position, wanted: &Wanted) -> Result<Archived, String> {
        let stored = self.record.value(at);
        let whole = self.whole.value(at);
        let payload = self
            .payload
            .filter(|column| column.is_valid(at))
            .map(|column| column.value(at));
        let record = join(stored, whole, payload.filter(|_| wanted.payload));
        if let Err(error) = record
            && !whole
        {
            return Err(error.to_string());
        }
        let bytes = match (wanted.bytes, whole) {
            (false, _) => None,
            (true, true) => Some(Bytes::copy_from_slice(stored)),
            (true, false) => {
                let record = join(stored, whole, payload).map_err(|error| error.to_string())?;
                Some(Bytes::from(record.encode()))
            }
        };
        let judgement = match self.judgement.filter(|_| wanted.judgement) {
            None => None,
            Some(column) => match Judgement::decode(column.value(at))
                .map_err(|error| error.to_string())?
                .as_slice()
            {
                [judgement] => Some(*judgement),
                other => return Err(format!("has {} judgements", other.len())),
            },
        };
        Ok(Archived {
            position,
            record,
            judgement,
            bytes,
        })
    }
}
