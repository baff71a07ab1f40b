//! The bytes of one Parquet file, checked against the manifest. It never looks at a row.

use crate::ArchiveError;
use crate::manifest::{DataFile, hex, sha256};
use crate::place::Place;
use bytes::Bytes;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::reader::{ChunkReader, Length};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;

/// A file up to this size is held in memory while it is checked and read, so that what was checked is what is read.
const WHOLE: u64 = 256 << 20;

/// A file that Parquet can be read from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Read in parts, from the disk.
    File(File),
    /// In memory.
    Bytes(Bytes),
}

impl Source {
    /// Opens a file; its size is always compared with the manifest, its SHA-256 when `checked`.
    pub(crate) fn open(place: &Place, file: &DataFile, checked: bool) -> Result<Self, ArchiveError> {
        let opened = place.open(&file.path)?;
        if let Some(opened) = opened
            && (!checked || file.bytes > WHOLE)
        {
            expect_size(file, opened.len())?;
            if checked {
                let hash = hash_of(&opened).map_err(|error| ArchiveError::unavailable("reading", &file.path, error))?;
                expect_hash(file, &hash)?;
            }
            return Ok(Self::File(opened));
        }
        let read = place.read(&file.path)?;
        let (bytes, _) = read.ok_or_else(|| ArchiveError::file(&file.path, "is missing"))?;
        expect_size(file, bytes.len() as u64)?;
        if checked {
            expect_hash(file, &sha256(&bytes))?;
        }
        Ok(Self::Bytes(bytes))
    }
}

fn expect_size(file: &DataFile, found: u64) -> Result<(), ArchiveError> {
    if found == file.bytes {
        return Ok(());
    }
    let expected = file.bytes;
    Err(ArchiveError::file(
        &file.path,
        format!("has {found} bytes where the manifest says {expected}"),
    ))
}

fn expect_hash(file: &DataFile, found: &str) -> Result<(), ArchiveError> {
    if found == file.sha256 {
        return Ok(());
    }
    Err(ArchiveError::file(
        &file.path,
        "its bytes do not have the hash that the manifest names",
    ))
}

fn hash_of(mut file: &File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            None | Some([]) => return Ok(hex(&hasher.finalize())),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        match self {
            Self::File(file) => file.len(),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

impl ChunkReader for Source {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(match self {
            Self::File(file) => Box::new(file.get_read(start)?),
            Self::Bytes(bytes) => Box::new(bytes.get_read(start)?),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Self::File(file) => file.get_bytes(start, length),
            Self::Bytes(bytes) => bytes.get_bytes(start, length),
        }
    }
}
