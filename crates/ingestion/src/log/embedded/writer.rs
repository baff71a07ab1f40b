//! The thread `vigie-log`: it alone writes the log's files. It takes what is queued, makes one block of it, and
//! answers only after fdatasync. It never retries an fsync and never reads a file.

use super::directory::begin;
use super::disk::{Disk, SegmentFile, poisoned, write_error};
use super::{Claim, Durable, GroupCommit, Job, Monotonic, Shared};
use crate::log::segment::{self, Header, Place};
use crate::log::{Health, LogError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use vigie_event::Position;
use vigie_failpoint::{mutant, point};

/// How often an unavailable log looks whether its disk is back when nobody appends.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// What a probe writes: more than a file system may still find room for in its corners.
const PROBE_BYTES: usize = 256 * 1024;

/// What the writer finds when it looks at the queue.
enum Work {
    Commit(Vec<Job>),
    Probe,
    End,
}

/// Where the log ends: the current file and what comes next.
pub(super) struct End {
    pub(super) file: Box<dyn SegmentFile>,
    /// Identity and first sequence of the current segment, and the place of the next block in it.
    pub(super) place: Place,
    pub(super) sequence: u64,
    pub(super) next: Vec<u64>,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Box<dyn Disk>,
    pub(super) end: End,
    /// Bytes of a failed write may stand behind the end.
    pub(super) torn: bool,
    pub(super) buffer: Vec<u8>,
    pub(super) monotonic: Monotonic,
}

impl Writer {
    pub(super) fn run(mut self) {
        loop {
            match self.wait() {
                Work::Commit(jobs) => self.commit(jobs),
                Work::Probe => {
                    let probed = self.probe();
                    self.judge(&probed);
                }
                Work::End => return,
            }
        }
    }

    /// Takes as many appends of one claim as fit into one group commit, at least one.
    fn wait(&self) -> Work {
        let mut queue = self.shared.queue();
        while queue.jobs.is_empty() {
            if queue.closed {
                return Work::End;
            }
            if matches!(*self.shared.health.borrow(), Health::Degraded(_)) {
                let waited = self.shared.wake.wait_timeout(queue, PROBE_INTERVAL);
                let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                queue = guard;
                if timeout.timed_out() && queue.jobs.is_empty() {
                    return Work::Probe;
                }
            } else {
                queue = self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let mut jobs: Vec<Job> = Vec::new();
        let mut bytes = 0;
        while let Some(job) = queue.jobs.front() {
            let full = bytes + job.bytes > self.shared.limits.group_commit_bytes;
            if jobs.first().is_some_and(|first| full || first.claim != job.claim) {
                break;
            }
            bytes += job.bytes;
            jobs.extend(queue.jobs.pop_front());
        }
        // Their bytes stay counted until they are answered: they are still in memory.
        Work::Commit(jobs)
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let owed = jobs.first().is_some_and(|job| job.claim == Claim::Owed);
        let result = self.write_block(&jobs, owed);
        // That the reserve could be used says nothing about room for others.
        if !(owed && result.is_ok()) {
            self.judge(&result);
        }
        let bytes: u64 = jobs.iter().map(|job| job.bytes).sum();
        self.shared.queue().bytes -= bytes;
        match result {
            Ok(mut positions) => {
                point!("log.answer.before");
                for job in jobs {
                    let rest = positions.split_off(job.records.len().min(positions.len()));
                    // A caller that has gone away is no reason to stop.
                    drop(job.answer.send(Ok(std::mem::replace(&mut positions, rest))));
                }
                point!("log.answer.after");
            }
            Err(error) => {
                self.shared.observer.0.refused(error.tag(), jobs.len());
                for job in jobs {
                    drop(job.answer.send(Err(error.clone())));
                }
            }
        }
    }

    /// One block: written, synced, published. All its records or none.
    fn write_block(&mut self, jobs: &[Job], owed: bool) -> Result<Vec<Position>, LogError> {
        if let Health::Poisoned(reason) = &*self.shared.health.borrow() {
            return Err(LogError::Poisoned { reason: reason.clone() });
        }
        self.cut()?;
        if !owed {
            self.leave_room(jobs.iter().map(|job| job.bytes).sum())?;
        }
        if self.end.place.offset >= self.shared.limits.segment_bytes && self.end.sequence > self.end.place.segment {
            point!("log.roll.before");
            self.roll()?;
            point!("log.roll.after");
        }
        let mut next = self.end.next.clone();
        let records = jobs.iter().flat_map(|job| &job.records);
        let positions = segment::encode_block(&mut self.buffer, self.end.place, self.end.sequence, records, &mut next);
        let started = (self.monotonic)();
        point!("log.write.before");
        if let Err(error) = self.end.file.write_all_at(&self.buffer, self.end.place.offset) {
            self.torn = true;
            let refused = write_error("write", &error);
            if matches!(refused, LogError::Unavailable { .. }) {
                // If this fails as well, the next append tries again before it writes.
                drop(self.cut());
            }
            return Err(refused);
        }
        point!("log.write.after");
        let written = (self.monotonic)();
        point!("log.sync.before");
        if !mutant("skip_fsync") {
            self.end.file.sync().map_err(|error| poisoned("fdatasync", &error))?;
        }
        point!("log.sync.after");
        let synced = (self.monotonic)();
        let bytes = self.buffer.len() as u64;
        self.end.place.offset += bytes;
        self.end.sequence += 1;
        self.end.next = next;
        let durable = Durable {
            sequence: self.end.sequence,
            ends: self.end.next.as_slice().into(),
        };
        point!("log.publish.before");
        drop(self.shared.durable.send_replace(durable));
        point!("log.publish.after");
        self.shared.observer.0.committed(&GroupCommit {
            appends: jobs.len(),
            records: positions.len(),
            bytes,
            write_ns: written.saturating_sub(started),
            sync_ns: synced.saturating_sub(written),
        });
        // One enormous append should not hold its memory for ever.
        self.buffer
            .shrink_to(usize::try_from(2 * self.shared.limits.group_commit_bytes).unwrap_or(usize::MAX));
        Ok(positions)
    }

    /// Refuses before the file system is full. The log is the door: what it has let in, others on the same file system
    /// must still be able to finish, and the store cannot go on after a write that failed for want of space. So some
    /// bytes are left free, and so is the reserve, as a file or as free space. To open again takes a little more than to
    /// stay open.
    fn leave_room(&self, bytes: u64) -> Result<(), LogError> {
        let limits = self.shared.limits;
        let closed = matches!(*self.shared.health.borrow(), Health::Degraded(_));
        let held = self.shared.reserve_held();
        let reserve = if *held { 0 } else { limits.reserve_bytes };
        let kept = limits.keep_free_bytes * (1 + u64::from(closed)) + reserve;
        // A file system that does not tell is taken at its word when it refuses a write.
        let Ok(free) = self.disk.free_bytes(&self.shared.log_dir) else {
            return Ok(());
        };
        if free >= kept.saturating_add(bytes) {
            return Ok(());
        }
        Err(LogError::Unavailable {
            reason: format!("{free} bytes are free on the file system, of which {kept} are kept for what was accepted"),
        })
    }

    /// Cuts what a failed write may have left behind the end.
    fn cut(&mut self) -> Result<(), LogError> {
        if self.torn {
            self.end
                .file
                .truncate(self.end.place.offset)
                .map_err(|error| write_error("truncate", &error))?;
            self.torn = false;
        }
        Ok(())
    }

    /// Finds out whether the disk takes bytes again, without leaving any.
    fn probe(&mut self) -> Result<(), LogError> {
        self.cut()?;
        self.leave_room(PROBE_BYTES as u64)?;
        self.torn = true;
        let written = self.end.file.write_all_at(&[0; PROBE_BYTES], self.end.place.offset);
        let cut = self.cut();
        written.map_err(|error| write_error("write", &error)).and(cut)
    }

    /// Begins a new segment. The old one stays current until the new one is complete and its name is on the disk.
    fn roll(&mut self) -> Result<(), LogError> {
        let header = Header {
            identity: self.end.place.identity,
            first_sequence: self.end.sequence,
            bases: self.end.next.clone(),
        };
        let (file, segment, offset) = begin(&self.shared.log_dir, &header, self.disk.as_ref())?;
        drop(self.shared.segments().insert(header.first_sequence, segment));
        self.end.file = file;
        self.end.place = Place {
            identity: header.identity,
            segment: header.first_sequence,
            offset,
        };
        self.shared.observer.0.rolled();
        Ok(())
    }

    /// Tells the world what a result says about the log. Poison is for ever.
    fn judge<T>(&self, result: &Result<T, LogError>) {
        let health = match result {
            Ok(_) => Health::Ok,
            Err(LogError::Poisoned { reason }) => Health::Poisoned(reason.clone()),
            Err(error) => Health::Degraded(error.to_string()),
        };
        let _changed: bool = self.shared.health.send_if_modified(|current| {
            let changes = !matches!(current, Health::Poisoned(_)) && *current != health;
            if changes {
                *current = health;
            }
            changes
        });
    }
}
