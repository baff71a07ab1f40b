//! The answer to a question, and the ways to write it down. It never changes a value: times are RFC 3339 in text
//! formats, money is decimal, what is unknown is empty (CSV) or `null` (JSON).

use crate::ArchiveError;
use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::csv::WriterBuilder as CsvWriter;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::WriterBuilder as JsonWriter;
use datafusion::arrow::json::writer::{JsonArray, JsonFormat, LineDelimited};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches_with_schema;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use std::io::Write;
use std::sync::Arc;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table for people, drawn with lines.
    Table,
    /// Comma-separated values with a header line.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object in each line.
    JsonLines,
    /// One Parquet file.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Table, Self::Csv, Self::Json, Self::JsonLines, Self::Parquet];

    /// The name used in arguments and addresses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::JsonLines => "jsonl",
            Self::Parquet => "parquet",
        }
    }

    /// Reads a [`Format::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The media type of what is written.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Table => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// A column of a table or of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// The kind of its values, in words of SQL: `text`, `bigint`, `timestamp`…
    pub kind: String,
    /// Whether a value may be missing.
    pub optional: bool,
}

pub(super) fn describe(schema: &Schema) -> Vec<ColumnInfo> {
    let columns = schema.fields().iter().map(|field| ColumnInfo {
        name: field.name().clone(),
        kind: kind(field.data_type()),
        optional: field.is_nullable(),
    });
    columns.collect()
}

fn kind(of: &DataType) -> String {
    let text = match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::UInt64 => "unsigned bigint",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Timestamp(..) => "timestamp",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary",
        DataType::Decimal128(precision, scale) => return format!("decimal({precision}, {scale})"),
        other => return other.to_string(),
    };
    text.to_owned()
}

/// What a question was answered with.
#[derive(Debug, Clone)]
pub struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    truncated: bool,
    files: u64,
}

impl Answer {
    pub(super) fn new(schema: SchemaRef, batches: Vec<RecordBatch>, truncated: bool) -> Self {
        Self {
            schema,
            batches,
            truncated,
            files: 0,
        }
    }

    pub(super) fn with_files(mut self, files: u64) -> Self {
        self.files = files;
        self
    }

    /// Its columns.
    #[must_use]
    pub fn columns(&self) -> Vec<ColumnInfo> {
        describe(&self.schema)
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// There are more rows than the limit allowed.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// Files of the archive that could not be ruled out beforehand, counted for each place where `events` was named.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Writes it out.
    pub fn write<W: Write + Send>(&self, format: Format, mut out: W) -> Result<(), ArchiveError> {
        let failed = |reason: &dyn std::fmt::Display| ArchiveError::Output {
            reason: reason.to_string(),
        };
        match format {
            Format::Table => {
                let table = pretty_format_batches_with_schema(Arc::clone(&self.schema), &self.batches);
                let table = table.map_err(|error| failed(&error))?.to_string();
                // Values come from strangers: none may speak to the terminal.
                let harmless = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
                let table: String = table.chars().map(harmless).collect();
                writeln!(out, "{table}").map_err(|error| failed(&error))
            }
            Format::Csv => self.write_csv(out),
            Format::Json => self.write_json::<_, JsonArray>(out),
            Format::JsonLines => self.write_json::<_, LineDelimited>(out),
            Format::Parquet => {
                let level = ZstdLevel::try_new(1).map_err(|error| failed(&error))?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .build();
                let writer = ArrowWriter::try_new(out, Arc::clone(&self.schema), Some(properties));
                let mut writer = writer.map_err(|error| failed(&error))?;
                for batch in &self.batches {
                    writer.write(batch).map_err(|error| failed(&error))?;
                }
                writer.close().map(|_| ()).map_err(|error| failed(&error))
            }
        }
    }

    fn write_csv<W: Write>(&self, out: W) -> Result<(), ArchiveError> {
        let failed = |error: ArrowError| ArchiveError::Output {
            reason: format!("{error}; lists and structures have no CSV form, use JSON"),
        };
        let mut writer = CsvWriter::new().with_header(true).build(out);
        // The header is there also when there is no row.
        writer
            .write(&RecordBatch::new_empty(Arc::clone(&self.schema)))
            .map_err(failed)?;
        self.batches
            .iter()
            .try_for_each(|batch| writer.write(batch))
            .map_err(failed)
    }

    fn write_json<W: Write, F: JsonFormat>(&self, out: W) -> Result<(), ArchiveError> {
        let failed = |error: ArrowError| ArchiveError::Output {
            reason: error.to_string(),
        };
        let mut writer = JsonWriter::new().with_explicit_nulls(true).build::<W, F>(out);
        self.batches
            .iter()
            .try_for_each(|batch| writer.write(batch))
            .map_err(failed)?;
        writer.finish().map_err(failed)
    }
}

/// Lets go of the buffers that a batch shares with others, so that a few values do not hold a whole file's worth.
pub(super) fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()) as ArrayRef,
        _ => Arc::clone(column),
    });
    let options = datafusion::arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)
}
