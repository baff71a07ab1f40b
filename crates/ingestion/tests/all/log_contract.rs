//! The contract suite of the log against the two implementations of this crate.

use crate::log_suite::Backend;
use vigie_ingestion::log::{EmbeddedLog, MemoryLog, Options};

struct Memory(MemoryLog);

impl Backend for Memory {
    type Log = MemoryLog;
    const ONE_ORDER: bool = true;

    fn new(partitions: u16) -> Self {
        Self(MemoryLog::new(partitions))
    }

    async fn open(&mut self) -> MemoryLog {
        self.0.clone()
    }
}

struct Embedded {
    dir: tempfile::TempDir,
    partitions: u16,
}

impl Backend for Embedded {
    type Log = EmbeddedLog;
    const ONE_ORDER: bool = true;

    fn new(partitions: u16) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            partitions,
        }
    }

    async fn open(&mut self) -> EmbeddedLog {
        // Small enough that every test goes through several segments and group commits.
        let options = Options {
            segment_bytes: 2048,
            group_commit_bytes: 512,
            reserve_bytes: 0,
            identity: 0x5eed,
            ..Options::new(self.partitions)
        };
        EmbeddedLog::open(self.dir.path(), options).unwrap()
    }
}

log_suite!(Memory as memory, Embedded as embedded);
