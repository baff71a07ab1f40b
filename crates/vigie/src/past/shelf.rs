//! The archive as the archivist's shelf.

use std::sync::Arc;
use vigie_archive::{Archive, Row};
use vigie_event::Offset;
use vigie_pipeline::{Shelf, Shelved};

/// An archive that was opened for writing.
#[derive(Debug, Clone)]
pub(crate) struct Kept(pub(crate) Arc<Archive>);

impl Shelf for Kept {
    fn ends(&self) -> Vec<Offset> {
        self.0.ends()
    }

    async fn put(&mut self, rows: Vec<Shelved>) -> Result<(), String> {
        let rows = rows.into_iter().map(shelved).collect();
        self.0.write(rows).await.map(drop).map_err(|error| error.to_string())
    }
}

/// A record of the archivist as a row of the archive.
pub(crate) fn shelved(row: Shelved) -> Row {
    Row {
        position: row.position,
        bytes: row.bytes,
        judgement: row.judgement,
    }
}
