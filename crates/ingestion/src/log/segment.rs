//! The bytes of the embedded log: how a segment and a block are written, and how they are read back and judged.
//!
//! It owns the format and every checksum; it never writes a file, never waits and never repairs anything.
//!
//! # Format, version 1 (little-endian)
//!
//! A segment is a file `<first block sequence, 20 digits>.seg`: a header, then blocks until the end of the file.
//!
//! ```text
//! segment header   magic "VIGIELOG" · version u16 · partitions u16 · identity u64 · first block sequence u64
//!                  · base offset of each partition, u64 · crc32c of all that, u32
//! block            magic u32 · body length u32 · records u32 · sequence u64 · crc32c of the body, u32
//!                  · crc32c of these 24 bytes and of the block's place, u32 · body
//! body             number of partitions in it · for each: partition, first offset, count   (all LEB128)
//!                  · for each record in log order: partition, length (LEB128), payload
//! ```
//!
//! A block is one group commit. Its *place* (the log's identity, the segment's first sequence and the offset in the
//! file) goes into the header's checksum without being stored: so a block is valid at one place only, and neither
//! a recycled disk block nor the leftovers of another segment nor bytes within a payload can be taken for one.
//!
//! # Judging a bad block
//!
//! A block is begun only when the one before is on the disk. So a bad block with nothing valid behind it was never
//! acknowledged (or the disk lost the very last block: no log without a second copy can tell) and is a torn tail.
//! A bad block with a valid block header behind it was acknowledged and rotted: that is damage, and cutting it
//! would silently lose acknowledged records.

use super::{Entry, LogError};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vigie_event::{Offset, Partition, Position};

const SEGMENT_MAGIC: &[u8; 8] = b"VIGIELOG";
const VERSION: u16 = 1;
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"vblk");
const BLOCK_HEADER_BYTES: usize = 28;
/// Magic, version, partitions, identity, first sequence.
const FIXED_HEADER_BYTES: usize = 28;

/// Framing of one record at most: a partition (3 bytes of LEB128) and a length (5 bytes).
pub(super) const RECORD_OVERHEAD_BYTES: u64 = 8;

/// What a segment says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: u64,
    pub(super) first_sequence: u64,
    /// The offset that the first record of each partition in or after this segment has.
    pub(super) bases: Vec<u64>,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_HEADER_BYTES + self.bases.len() * 8 + 4);
        bytes.extend_from_slice(SEGMENT_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&u16::try_from(self.bases.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.identity.to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        for base in &self.bases {
            bytes.extend_from_slice(&base.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn encoded_bytes(&self) -> u64 {
        (FIXED_HEADER_BYTES + self.bases.len() * 8 + 4) as u64
    }

    /// Reads and checks the header of an open segment.
    fn read(file: &File, path: &Path) -> Result<Self, LogError> {
        let corrupt = |reason: &str| LogError::Corrupt {
            file: path.into(),
            offset: 0,
            reason: reason.into(),
        };
        let mut fixed = [0u8; FIXED_HEADER_BYTES];
        if read_at(file, path, &mut fixed, 0)? < fixed.len() {
            return Err(corrupt("segment header is incomplete"));
        }
        let mut fields = Fields(&fixed);
        let magic = fields.take::<8>();
        let version = fields.u16();
        let partitions = fields.u16();
        let (Some(magic), Some(version), Some(partitions)) = (magic, version, partitions) else {
            return Err(corrupt("segment header is incomplete"));
        };
        if &magic != SEGMENT_MAGIC {
            return Err(corrupt("not a segment of this log"));
        }
        let mut rest = vec![0u8; usize::from(partitions) * 8 + 4];
        if read_at(file, path, &mut rest, fixed.len() as u64)? < rest.len() {
            return Err(corrupt("segment header is incomplete"));
        }
        let (bases, stored) = rest.split_at(rest.len() - 4);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&fixed), bases);
        if stored != checksum.to_le_bytes() {
            return Err(corrupt("segment header has a wrong checksum"));
        }
        // After the checksum: a flipped bit is damage, another number under a right checksum is another version.
        if version != VERSION {
            let reason = format!("{} has format version {version}, known is {VERSION}", path.display());
            return Err(LogError::Layout { reason });
        }
        let (Some(identity), Some(first_sequence)) = (fields.u64(), fields.u64()) else {
            return Err(corrupt("segment header is incomplete"));
        };
        let bases = bases
            .as_chunks::<8>()
            .0
            .iter()
            .map(|base| u64::from_le_bytes(*base))
            .collect();
        Ok(Self {
            identity,
            first_sequence,
            bases,
        })
    }
}

/// The file name of the segment that starts with a block sequence.
pub(super) fn file_name(first_sequence: u64) -> String {
    format!("{first_sequence:020}.seg")
}

/// The segments of a log directory, oldest first. Files of other names are not ours to judge.
pub(super) fn list(log_dir: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let failed = |error: io::Error| unreadable(log_dir, &error);
    let mut segments = Vec::new();
    for item in std::fs::read_dir(log_dir).map_err(failed)? {
        let path = item.map_err(failed)?.path();
        let stem = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".seg"));
        if let Some(stem) = stem
            && stem.len() == 20
            && let Ok(first_sequence) = stem.parse::<u64>()
        {
            segments.push((first_sequence, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Where a block stands. Part of its checksum, so that it is valid nowhere else.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) identity: u64,
    pub(super) segment: u64,
    pub(super) offset: u64,
}

impl Place {
    fn checksum(self, header: &[u8]) -> u32 {
        let seed = crc32c::crc32c(&self.identity.to_le_bytes());
        let seed = crc32c::crc32c_append(seed, &self.segment.to_le_bytes());
        let seed = crc32c::crc32c_append(seed, &self.offset.to_le_bytes());
        crc32c::crc32c_append(seed, header)
    }
}

/// Writes one block into `buffer` (which it clears first) and answers the positions of its records, in order.
/// `next` holds the next offset of each partition and is moved forward. The caller has checked the partitions.
pub(super) fn encode_block<'a>(
    buffer: &mut Vec<u8>,
    place: Place,
    sequence: u64,
    records: impl Iterator<Item = &'a (Partition, Bytes)> + Clone,
    next: &mut [u64],
) -> Vec<Position> {
    let mut runs: Vec<(u16, u64)> = vec![];
    let mut counts = vec![0u64; next.len()];
    let mut positions = Vec::new();
    for (partition, _) in records.clone() {
        let index = usize::from(partition.0);
        if let (Some(next), Some(count)) = (next.get_mut(index), counts.get_mut(index)) {
            if *count == 0 {
                runs.push((partition.0, *next));
            }
            positions.push(Position {
                partition: *partition,
                offset: Offset(*next),
            });
            *next += 1;
            *count += 1;
        }
    }
    buffer.clear();
    buffer.resize(BLOCK_HEADER_BYTES, 0);
    push_varint(buffer, runs.len() as u64);
    for (partition, first) in &runs {
        push_varint(buffer, u64::from(*partition));
        push_varint(buffer, *first);
        push_varint(buffer, counts.get(usize::from(*partition)).copied().unwrap_or_default());
    }
    for (partition, payload) in records {
        push_varint(buffer, u64::from(partition.0));
        push_varint(buffer, payload.len() as u64);
        buffer.extend_from_slice(payload);
    }
    let (header, body) = buffer.split_at_mut(BLOCK_HEADER_BYTES);
    let mut fields = Vec::with_capacity(BLOCK_HEADER_BYTES);
    fields.extend_from_slice(&BLOCK_MAGIC.to_le_bytes());
    fields.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    fields.extend_from_slice(&u32::try_from(positions.len()).unwrap_or(u32::MAX).to_le_bytes());
    fields.extend_from_slice(&sequence.to_le_bytes());
    fields.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    fields.extend_from_slice(&place.checksum(&fields).to_le_bytes());
    header.copy_from_slice(&fields);
    positions
}

/// A block header that carries its right checksum.
#[derive(Debug, Clone, Copy)]
struct BlockHeader {
    body_bytes: u32,
    records: u32,
    sequence: u64,
    body_checksum: u32,
}

impl BlockHeader {
    fn decode(bytes: &[u8], place: Place) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<BLOCK_HEADER_BYTES>()?;
        if !header.starts_with(&BLOCK_MAGIC.to_le_bytes()) {
            return None;
        }
        let (fields, checksum) = header.split_last_chunk::<4>()?;
        if place.checksum(fields).to_le_bytes() != *checksum {
            return None;
        }
        let mut fields = Fields(fields);
        let _magic = fields.u32()?;
        Some(Self {
            body_bytes: fields.u32()?,
            records: fields.u32()?,
            sequence: fields.u64()?,
            body_checksum: fields.u32()?,
        })
    }
}

/// What stands at a cursor.
#[derive(Debug)]
pub(super) enum Step {
    /// A valid block; the cursor is behind it. `bytes` is its length in the file.
    Block { bytes: u64 },
    /// The end of the file, exactly.
    End,
    /// Something else; the cursor has not moved.
    Bad { reason: &'static str },
}

/// A place in a segment between two blocks, moving forward.
#[derive(Debug)]
pub(super) struct Cursor {
    file: File,
    path: PathBuf,
    header: Header,
    /// Offset in the file of the next block.
    place: u64,
    /// Sequence of the next block.
    sequence: u64,
    /// Offset of the next record of each partition.
    next: Vec<u64>,
    last_block: Option<(u64, u64)>,
}

impl Cursor {
    /// Opens a segment and stands before its first block.
    pub(super) fn open(path: &Path) -> Result<Self, LogError> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let header = Header::read(&file, path)?;
        let named = path
            .file_name()
            .is_some_and(|name| name.to_str() == Some(&file_name(header.first_sequence)));
        let cursor = Self {
            file,
            path: path.into(),
            place: header.encoded_bytes(),
            sequence: header.first_sequence,
            next: header.bases.clone(),
            header,
            last_block: None,
        };
        if named {
            Ok(cursor)
        } else {
            Err(cursor.corrupt("file name and segment header disagree"))
        }
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn place(&self) -> u64 {
        self.place
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn next_offsets(&self) -> &[u64] {
        &self.next
    }

    /// Offset and length of the last block that this cursor passed.
    pub(super) fn last_block(&self) -> Option<(u64, u64)> {
        self.last_block
    }

    /// Damage at this place.
    pub(super) fn corrupt(&self, reason: impl Into<String>) -> LogError {
        LogError::Corrupt {
            file: self.path.clone(),
            offset: self.place,
            reason: reason.into(),
        }
    }

    /// Opens the segment that must follow and checks that it continues exactly here.
    pub(super) fn follow(&self, path: &Path) -> Result<Self, LogError> {
        let following = Self::open(path)?;
        let (header, mine) = (following.header(), self.header());
        if header.identity != mine.identity || header.bases.len() != mine.bases.len() {
            return Err(following.corrupt("segment belongs to another log"));
        }
        if header.first_sequence != self.sequence || header.bases != self.next {
            let reason = format!(
                "segment ends before block {}, the next one starts with block {}",
                self.sequence, header.first_sequence
            );
            return Err(self.corrupt(reason));
        }
        Ok(following)
    }

    /// Reads the next block and hands its records to `each` in log order, all of them or none.
    pub(super) fn step(&mut self, mut each: impl FnMut(Entry)) -> Result<Step, LogError> {
        let mut bytes = [0u8; BLOCK_HEADER_BYTES];
        match read_at(&self.file, &self.path, &mut bytes, self.place)? {
            0 => return Ok(Step::End),
            BLOCK_HEADER_BYTES => {}
            _ => {
                return Ok(Step::Bad {
                    reason: "block header is incomplete",
                });
            }
        }
        let Some(header) = BlockHeader::decode(&bytes, self.place_of(self.place)) else {
            return Ok(Step::Bad {
                reason: "block header has a wrong checksum",
            });
        };
        if header.sequence != self.sequence {
            return Ok(Step::Bad {
                reason: "block has another sequence number",
            });
        }
        // The length is covered by the header's checksum, so it is ours; still, ask the file before the allocator.
        let body_at = self.place + BLOCK_HEADER_BYTES as u64;
        let length = self
            .file
            .metadata()
            .map_err(|error| unreadable(&self.path, &error))?
            .len();
        if body_at + u64::from(header.body_bytes) > length {
            return Ok(Step::Bad {
                reason: "block is incomplete",
            });
        }
        let mut body = vec![0u8; header.body_bytes as usize];
        if read_at(&self.file, &self.path, &mut body, body_at)? < body.len() {
            return Ok(Step::Bad {
                reason: "block is incomplete",
            });
        }
        if crc32c::crc32c(&body) != header.body_checksum {
            return Ok(Step::Bad {
                reason: "block has a wrong checksum",
            });
        }
        let Some((entries, next)) = decode_body(&Bytes::from(body), header.records, &self.next) else {
            return Ok(Step::Bad {
                reason: "block does not continue the segment",
            });
        };
        let bytes = BLOCK_HEADER_BYTES as u64 + u64::from(header.body_bytes);
        self.last_block = Some((self.place, bytes));
        self.place += bytes;
        self.sequence += 1;
        self.next = next;
        entries.into_iter().for_each(&mut each);
        Ok(Step::Block { bytes })
    }

    /// Whether a valid header of a later block stands anywhere behind this place: then what stands here was
    /// acknowledged once. Reads the rest of the file in pieces.
    pub(super) fn is_followed(&self) -> Result<bool, LogError> {
        const PIECE_BYTES: usize = 1024 * 1024;
        let mut piece = vec![0u8; PIECE_BYTES + BLOCK_HEADER_BYTES - 1];
        let mut start = self.place + 1;
        loop {
            let read = read_at(&self.file, &self.path, &mut piece, start)?;
            let window = piece.get(..read).unwrap_or_default();
            for (index, candidate) in window.windows(BLOCK_HEADER_BYTES).enumerate() {
                let place = self.place_of(start + index as u64);
                if BlockHeader::decode(candidate, place).is_some_and(|header| header.sequence > self.sequence) {
                    return Ok(true);
                }
            }
            if read < piece.len() {
                return Ok(false);
            }
            start += PIECE_BYTES as u64;
        }
    }

    fn place_of(&self, offset: u64) -> Place {
        Place {
            identity: self.header.identity,
            segment: self.header.first_sequence,
            offset,
        }
    }
}

/// The records of a body, and the next offsets after it. `None` where it contradicts itself or what came before.
fn decode_body(body: &Bytes, records: u32, next: &[u64]) -> Option<(Vec<Entry>, Vec<u64>)> {
    let mut fields = Fields(body);
    let mut next = next.to_vec();
    let mut ends = next.clone();
    for _ in 0..fields.varint()? {
        let index = usize::try_from(fields.varint()?).ok()?;
        let first = fields.varint()?;
        if next.get(index) != Some(&first) {
            return None;
        }
        *ends.get_mut(index)? = first.checked_add(fields.varint()?)?;
    }
    let mut entries = Vec::with_capacity(usize::try_from(records).ok()?.min(body.len()));
    for _ in 0..records {
        let partition = Partition(u16::try_from(fields.varint()?).ok()?);
        let length = usize::try_from(fields.varint()?).ok()?;
        let payload = fields.slice(length)?;
        let offset = next.get_mut(usize::from(partition.0))?;
        entries.push(Entry {
            position: Position {
                partition,
                offset: Offset(*offset),
            },
            payload: body.slice_ref(payload),
        });
        *offset += 1;
    }
    (fields.0.is_empty() && next == ends).then_some((entries, next))
}

/// Reads a log directory from its first record to its last, for tools. It opens files for reading only and takes
/// no lock: on a running log it ends somewhere near the end. Damage is an error; a torn tail just ends it.
pub fn scan(dir: &Path) -> Result<Scan, LogError> {
    let mut segments = list(&dir.join(super::embedded::LOG_DIR))?;
    segments.reverse();
    let cursor = segments.pop().map(|(_, path)| Cursor::open(&path)).transpose()?;
    Ok(Scan {
        rest: segments,
        cursor,
        entries: Vec::new().into_iter(),
        torn: None,
    })
}

/// The records of a log directory in log order. Ends after the first error.
#[derive(Debug)]
pub struct Scan {
    /// Segments not yet opened, newest first.
    rest: Vec<(u64, PathBuf)>,
    cursor: Option<Cursor>,
    entries: std::vec::IntoIter<Entry>,
    torn: Option<(PathBuf, u64)>,
}

impl Scan {
    /// File and offset of a torn tail, once the scan has ended.
    #[must_use]
    pub fn torn(&self) -> Option<&(PathBuf, u64)> {
        self.torn.as_ref()
    }

    /// Reads the next block. `false` at the end.
    fn advance(&mut self) -> Result<bool, LogError> {
        let Some(cursor) = &mut self.cursor else {
            return Ok(false);
        };
        let mut entries = Vec::new();
        match cursor.step(|entry| entries.push(entry))? {
            Step::Block { .. } => self.entries = entries.into_iter(),
            Step::End => match self.rest.pop() {
                Some((_, path)) => self.cursor = Some(cursor.follow(&path)?),
                None => self.cursor = None,
            },
            Step::Bad { reason } => {
                if !self.rest.is_empty() || cursor.is_followed()? {
                    return Err(cursor.corrupt(reason));
                }
                self.torn = Some((cursor.path.clone(), cursor.place));
                self.cursor = None;
            }
        }
        Ok(true)
    }
}

impl Iterator for Scan {
    type Item = Result<Entry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.cursor = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// A reading failure of the system. It says nothing about the bytes.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> LogError {
    LogError::Unavailable {
        reason: format!("{}: {error}", path.display()),
    }
}

/// Fills `buffer` from `offset`, as far as the file goes.
fn read_at(file: &File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<usize, LogError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..)
        && !rest.is_empty()
    {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    Ok(filled)
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Bytes that are read from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take::<1>()?;
            let bits = u64::from(byte & 0x7f);
            value |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_read_back(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            let mut fields = Fields(&bytes);
            prop_assert_eq!(fields.varint(), Some(value));
            prop_assert!(fields.0.is_empty());
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..64), records in any::<u32>()) {
            let body = Bytes::from(body);
            if let Some((entries, _)) = decode_body(&body, records, &[0, 5]) {
                prop_assert_eq!(entries.len(), records as usize);
            }
        }
    }

    #[test]
    fn a_block_is_valid_at_its_own_place_only() {
        let place = Place {
            identity: 1,
            segment: 2,
            offset: 3,
        };
        let mut buffer = Vec::new();
        let records = [(Partition(0), Bytes::from_static(b"x"))];
        let positions = encode_block(&mut buffer, place, 9, records.iter(), &mut [4]);
        assert_eq!(
            positions,
            [Position {
                partition: Partition(0),
                offset: Offset(4)
            }]
        );
        assert_eq!(
            BlockHeader::decode(&buffer, place).map(|header| header.sequence),
            Some(9)
        );
        for other in [
            Place { identity: 0, ..place },
            Place { segment: 3, ..place },
            Place { offset: 4, ..place },
        ] {
            assert!(BlockHeader::decode(&buffer, other).is_none());
        }
    }
}
