//! Reading the log behind the writer: own file handles, block by block, every checksum checked, never beyond the
//! published durable end. It never skips what it cannot read.

use super::{Durable, Segment, Shared};
use crate::log::segment::{Cursor, Step};
use crate::log::{Entry, LogError, LogReader, check_start};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vigie_event::{Offset, Partition};

/// How much of the log one look may go through, in bytes.
const LOOK_BYTES: u64 = 8 * 1024 * 1024;

/// A reader of an [`super::EmbeddedLog`]. Files are read on the runtime's blocking threads.
#[derive(Debug)]
pub struct EmbeddedReader {
    pub(super) durable: watch::Receiver<Durable>,
    /// `None` while a look is under way, and for ever if one panicked.
    pub(super) walk: Option<Walk>,
    /// A look that an earlier, cancelled call began. Its result is waited for, not thrown away.
    pub(super) looking: Option<JoinHandle<Look>>,
    /// Found, not yet delivered: the rest of one block.
    pub(super) ready: VecDeque<Entry>,
}

/// What a look brings back.
type Look = (Walk, Result<Vec<Entry>, LogError>);

/// The moving part of a reader, which goes to the blocking thread and comes back.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) shared: Arc<Shared>,
    /// The next wanted offset of each partition that was asked for.
    pub(super) wanted: BTreeMap<Partition, Offset>,
    pub(super) cursor: Option<Cursor>,
}

impl Walk {
    /// Whether there are durable blocks that this walk has not read.
    fn is_behind(&self) -> bool {
        let end = self.shared.durable.borrow().sequence;
        self.cursor.as_ref().is_none_or(|cursor| cursor.sequence() < end)
    }

    /// Reads blocks until enough was found, the durable end is reached, or enough was looked at. An error after
    /// something was found waits for the next look: the cursor stays before the bad place.
    fn look(&mut self, max_records: usize, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        let mut found = Vec::new();
        let (mut found_bytes, mut looked_bytes) = (0usize, 0u64);
        while found.len() < max_records && found_bytes < max_bytes && looked_bytes < LOOK_BYTES {
            let wanted = &mut self.wanted;
            let cursor = match Self::advance(&self.shared, wanted, &mut self.cursor) {
                Ok(Some(cursor)) => cursor,
                Ok(None) => break,
                Err(_) if !found.is_empty() => break,
                Err(error) => return Err(error),
            };
            let step = cursor.step(|entry| {
                if let Some(next) = wanted.get_mut(&entry.position.partition)
                    && entry.position.offset >= *next
                {
                    *next = entry.position.offset.next();
                    found_bytes += entry.payload.len();
                    found.push(entry);
                }
            });
            let error = match step {
                Ok(Step::Block { bytes }) => {
                    looked_bytes += bytes;
                    continue;
                }
                Ok(Step::Bad { reason }) => cursor.corrupt(reason),
                // The writer has published a block that is not there, or a segment lost its end.
                Ok(Step::End) => cursor.corrupt("segment ends early"),
                Err(error) => error,
            };
            if found.is_empty() {
                return Err(error);
            }
            break;
        }
        Ok(found)
    }

    /// The cursor before the next durable block, in the right segment; `None` at the durable end.
    fn advance<'a>(
        shared: &Shared,
        wanted: &BTreeMap<Partition, Offset>,
        cursor: &'a mut Option<Cursor>,
    ) -> Result<Option<&'a mut Cursor>, LogError> {
        let end = shared.durable.borrow().sequence;
        let following = match cursor {
            Some(at) if at.sequence() >= end => return Ok(None),
            Some(at) => {
                let segments = shared.segments();
                // Within a segment there is none; at its end there is one, unless retention was faster.
                let newer = segments.range(..=at.sequence()).next_back();
                let next = newer
                    .filter(|(first, _)| **first > at.header().first_sequence)
                    .map(|(_, segment)| segment.path.clone());
                let overtaken = segments.keys().next().is_some_and(|first| *first > at.sequence());
                drop(segments);
                match next {
                    Some(path) => Some(at.follow(&path)?),
                    None if overtaken => Some(Self::find(shared, wanted)?),
                    None => None,
                }
            }
            None => Some(Self::find(shared, wanted)?),
        };
        if let Some(following) = following {
            *cursor = Some(following);
        }
        Ok(cursor.as_mut().filter(|at| at.sequence() < end))
    }

    /// The last segment that starts at or before every wanted offset.
    fn find(shared: &Shared, wanted: &BTreeMap<Partition, Offset>) -> Result<Cursor, LogError> {
        check_start(wanted, &shared.starts(), &shared.ends())?;
        let reaches = |segment: &&Segment| {
            wanted.iter().all(|(partition, offset)| {
                segment
                    .bases
                    .get(usize::from(partition.0))
                    .is_some_and(|base| *base <= offset.0)
            })
        };
        let path = shared
            .segments()
            .values()
            .rev()
            .find(reaches)
            .map(|segment| segment.path.clone());
        // Retention may run between the check and here; then the next look finds the gap.
        let gone = || LogError::Unavailable {
            reason: "segments were just removed".into(),
        };
        Cursor::open(&path.ok_or_else(gone)?)
    }
}

impl EmbeddedReader {
    /// At most `max_records` and `max_bytes` of what was found, at least one if there is any.
    fn deliver(&mut self, max_records: usize, max_bytes: usize) -> Vec<Entry> {
        let mut delivered = Vec::new();
        let mut bytes = 0usize;
        while let Some(entry) = self.ready.front() {
            bytes = bytes.saturating_add(entry.payload.len());
            if delivered.len() >= max_records || (bytes > max_bytes && !delivered.is_empty()) {
                break;
            }
            delivered.extend(self.ready.pop_front());
        }
        delivered
    }
}

impl LogReader for EmbeddedReader {
    async fn next(&mut self, max_records: usize, max_bytes: usize, wait: Duration) -> Result<Vec<Entry>, LogError> {
        let max_records = max_records.max(1);
        let timeout = tokio::time::sleep(wait);
        tokio::pin!(timeout);
        loop {
            let delivered = self.deliver(max_records, max_bytes);
            if !delivered.is_empty() {
                return Ok(delivered);
            }
            // Marked as seen before looking, so that a block published in between wakes the wait below.
            let _seen = self.durable.borrow_and_update().sequence;
            if self.walk.as_ref().is_some_and(Walk::is_behind)
                && let Some(mut walk) = self.walk.take()
            {
                self.looking = Some(tokio::task::spawn_blocking(move || {
                    let found = walk.look(max_records, max_bytes.max(1));
                    (walk, found)
                }));
            }
            if let Some(looking) = &mut self.looking {
                let looked = looking.await;
                self.looking = None;
                let ended = |error| LogError::Unavailable {
                    reason: format!("reader task ended: {error}"),
                };
                let (walk, found) = looked.map_err(ended)?;
                self.walk = Some(walk);
                self.ready.extend(found?);
                if self.ready.is_empty() {
                    // A long stretch of other partitions' records: go on, but keep the promised time.
                    tokio::select! {
                        biased;
                        () = &mut timeout => return Ok(Vec::new()),
                        () = std::future::ready(()) => {}
                    }
                }
                continue;
            }
            if self.walk.is_none() {
                return Err(LogError::Unavailable {
                    reason: "the reader has ended".into(),
                });
            }
            tokio::select! {
                biased;
                changed = self.durable.changed() => if changed.is_err() { return Ok(Vec::new()) },
                () = &mut timeout => return Ok(Vec::new()),
            }
        }
    }
}
