//! Parquet files that are not the archive's own, as lines of JSON: one object a row, so that whoever reads histories out of
//! files needs no second way. It holds one batch of rows at a time, changes no value, and never judges what a row means.

use crate::ArchiveError;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::fs::File;
use std::io::{self, Read};

/// Rows that are held at a time.
const ROWS: usize = 4_096;

/// The rows of a Parquet file as lines of JSON. A cell that is empty is left out; times are RFC 3339.
#[derive(Debug)]
pub struct JsonLines {
    rows: ParquetRecordBatchReader,
    text: Vec<u8>,
    read: usize,
}

impl JsonLines {
    /// Reads the description of the file.
    pub fn of_parquet(file: File) -> Result<Self, ArchiveError> {
        let failed = |reason: &dyn std::fmt::Display| ArchiveError::Foreign {
            reason: reason.to_string(),
        };
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(&error))?;
        let rows = builder.with_batch_size(ROWS).build().map_err(|error| failed(&error))?;
        Ok(Self {
            rows,
            text: Vec::new(),
            read: 0,
        })
    }

    /// Writes the next rows down. `false` at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(batch) = self.rows.next() else {
            return Ok(false);
        };
        self.text.clear();
        self.read = 0;
        let mut writer = LineDelimitedWriter::new(&mut self.text);
        let written = batch
            .and_then(|batch| writer.write(&batch))
            .and_then(|()| writer.finish());
        written.map(|()| true).map_err(io::Error::other)
    }
}

impl Read for JsonLines {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.text.len() {
            if !self.advance()? {
                return Ok(0);
            }
        }
        let mut rest = self.text.get(self.read..).unwrap_or_default();
        let count = rest.read(out)?;
        self.read += count;
        Ok(count)
    }
}
