//! A failing disk under the writer: what callers are told, what readers see, and what is left after a restart.

use super::disk::{Disk, RealDisk, SegmentFile};
use super::*;
use crate::log::{LogReader, scan};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EIO: i32 = 5;

/// What the disk does until told otherwise.
#[derive(Debug, Default)]
struct Plan {
    /// Every write fails with this error after having written half of its bytes.
    write: Option<i32>,
    truncate: Option<i32>,
    /// The next fdatasync fails with this error; later ones would succeed, as on a real kernel.
    sync: Option<i32>,
    /// fdatasync waits for a message before it runs.
    hold: Option<mpsc::Receiver<()>>,
    create: Option<i32>,
    /// What the file system says is free; the truth unless told otherwise.
    free: Option<u64>,
    /// A file whose bytes are not part of what is free.
    beside: Option<PathBuf>,
}

#[derive(Debug, Clone, Default)]
struct Faulty {
    plan: Arc<Mutex<Plan>>,
    syncs: Arc<AtomicU64>,
}

impl Faulty {
    fn set(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.plan.lock().unwrap());
    }

    fn wrap(&self, file: Box<dyn SegmentFile>) -> Box<dyn SegmentFile> {
        Box::new(FaultyFile {
            file,
            faulty: self.clone(),
        })
    }
}

struct FaultyFile {
    file: Box<dyn SegmentFile>,
    faulty: Faulty,
}

fn fails(error: Option<i32>) -> io::Result<()> {
    error.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        fails(self.plan.lock().unwrap().create)?;
        RealDisk.create(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        RealDisk.open(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let plan = self.plan.lock().unwrap();
        let taken = plan.beside.as_ref().and_then(|path| std::fs::metadata(path).ok());
        let told = plan.free.map(|free| free - taken.map_or(0, |file| file.len()));
        told.map_or_else(|| RealDisk.free_bytes(path), Ok)
    }
}

impl SegmentFile for FaultyFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let error = self.faulty.plan.lock().unwrap().write;
        if error.is_some() {
            self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
        }
        fails(error)?;
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        let hold = self.faulty.plan.lock().unwrap().hold.take();
        if let Some(hold) = hold {
            hold.recv().unwrap();
        }
        let _before = self.faulty.syncs.fetch_add(1, Ordering::SeqCst);
        fails(self.faulty.plan.lock().unwrap().sync.take())?;
        self.file.sync()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        fails(self.faulty.plan.lock().unwrap().truncate)?;
        self.file.truncate(length)
    }
}

fn options() -> Options {
    Options {
        reserve_bytes: 0,
        ..Options::new(2)
    }
}

fn one(payload: &str) -> Vec<(Partition, Bytes)> {
    vec![(Partition(1), Bytes::copy_from_slice(payload.as_bytes()))]
}

fn payloads(dir: &Path) -> Vec<String> {
    scan(dir)
        .unwrap()
        .map(|entry| String::from_utf8(entry.unwrap().payload.to_vec()).unwrap())
        .collect()
}

/// F07 / D2: after one failed fdatasync nothing is ever acknowledged again, and fdatasync is not called again.
#[tokio::test]
async fn a_failed_fdatasync_poisons_the_log_for_good() {
    for failing in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let disk = Faulty::default();
        let log = EmbeddedLog::open_on(dir.path(), options(), Box::new(disk.clone())).unwrap();
        let mut health = log.watch_health();
        for before in 0..failing {
            drop(log.append(one(&before.to_string())).await.unwrap());
        }
        disk.set(|plan| plan.sync = Some(EIO));
        let error = log.append(one("doubtful")).await.unwrap_err();
        assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
        let syncs = disk.syncs.load(Ordering::SeqCst);
        for _ in 0..3 {
            let error = log.append(one("later")).await.unwrap_err();
            assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
        }
        assert_eq!(
            disk.syncs.load(Ordering::SeqCst),
            syncs,
            "no fdatasync after the failed one"
        );
        assert!(matches!(log.health(), Health::Poisoned(_)));
        health.changed().await.unwrap();
        assert!(
            matches!(*health.borrow(), Health::Poisoned(_)),
            "whoever watches is told"
        );
        let from = BTreeMap::from([(Partition(1), Offset(0))]);
        let read = log.reader(from).unwrap().next(100, 1000, Duration::ZERO).await.unwrap();
        assert_eq!(read.len(), failing, "a record in doubt is not shown to readers");
        drop(log);
        let log = EmbeddedLog::open(dir.path(), options()).unwrap();
        assert!(log.append(one("after the restart")).await.is_ok());
        drop(log);
        // The record in doubt may or may not be there; here the page cache has kept it.
        let expected: Vec<_> = (0..failing).map(|n| n.to_string()).collect();
        let found = payloads(dir.path());
        assert_eq!(found[..failing], expected);
        assert_eq!(found.last().map(String::as_str), Some("after the restart"));
    }
}

#[tokio::test]
async fn a_write_that_fails_for_another_reason_than_space_poisons() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let log = EmbeddedLog::open_on(dir.path(), options(), Box::new(disk.clone())).unwrap();
    disk.set(|plan| plan.write = Some(EIO));
    assert!(matches!(
        log.append(one("a")).await.unwrap_err(),
        LogError::Poisoned { .. }
    ));
    disk.set(|plan| plan.write = None);
    assert!(matches!(
        log.append(one("b")).await.unwrap_err(),
        LogError::Poisoned { .. }
    ));
}

/// F08, F09: no space or no permission is a refusal, not a doubt; service resumes by itself.
#[tokio::test]
async fn a_full_or_read_only_disk_heals() {
    for code in [ENOSPC, EROFS] {
        let dir = tempfile::tempdir().unwrap();
        let disk = Faulty::default();
        let log = EmbeddedLog::open_on(dir.path(), options(), Box::new(disk.clone())).unwrap();
        drop(log.append(one("before")).await.unwrap());
        // While the file cannot even be cut, half a block stays behind the end.
        disk.set(|plan| (plan.write, plan.truncate) = (Some(code), (code == EROFS).then_some(code)));
        for _ in 0..3 {
            let error = log
                .append(one("a longer payload than any other one here"))
                .await
                .unwrap_err();
            assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
            assert!(matches!(log.health(), Health::Degraded(_)));
            assert_eq!(log.ends(), [Offset(0), Offset(1)]);
            assert_eq!(
                payloads(dir.path()),
                ["before"],
                "no part of a refused append is visible"
            );
        }
        disk.set(|plan| (plan.write, plan.truncate) = (None, None));
        assert_eq!(log.append(one("after")).await.unwrap()[0].offset, Offset(1));
        assert_eq!(log.health(), Health::Ok);
        drop(log);
        assert_eq!(EmbeddedLog::open(dir.path(), options()).unwrap().recovery().torn, None);
        assert_eq!(payloads(dir.path()), ["before", "after"]);
    }
}

/// F08: the door closes before the file system is full, so that the store can finish what was let in; the reserve counts
/// as taken, whether it is a file or free space.
#[tokio::test]
async fn a_disk_that_is_nearly_full_is_left_to_others() {
    const RESERVE: u64 = 100_000;
    const KEPT: u64 = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let small = Options {
        reserve_bytes: RESERVE,
        keep_free_bytes: KEPT,
        ..options()
    };
    let log = EmbeddedLog::open_on(dir.path(), small, Box::new(disk.clone())).unwrap();
    let free = |bytes: u64| disk.set(|plan| plan.free = Some(bytes));
    free(KEPT + 1_000);
    drop(log.append(one("the reserve is a file")).await.unwrap());
    free(KEPT - 1);
    let error = log.append(one("refused")).await.unwrap_err();
    assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
    assert!(matches!(log.health(), Health::Degraded(_)));
    // The reserve goes to the store: that is no room for new events.
    log.free_reserve().unwrap();
    free(KEPT + RESERVE);
    assert!(log.append(one("refused too")).await.is_err());
    // What follows from accepted records may take it, and the door stays closed to others.
    drop(log.append_owed(one("owed")).await.unwrap());
    assert!(matches!(log.health(), Health::Degraded(_)));
    let (owed, new) = tokio::join!(log.append_owed(one("owed too")), log.append(one("refused beside it")));
    assert!(owed.is_ok() && new.is_err(), "{owed:?} {new:?}");
    free(2 * KEPT + RESERVE + 1_000_000);
    drop(log.append(one("room again")).await.unwrap());
    assert_eq!(log.health(), Health::Ok);
    log.restore_reserve().unwrap();
    assert_eq!(std::fs::metadata(dir.path().join(RESERVE_FILE)).unwrap().len(), RESERVE);
    drop(log);
    assert_eq!(
        payloads(dir.path()),
        ["the reserve is a file", "owed", "owed too", "room again"]
    );
}

/// With room for the reserve there is room for events, at every moment of its being given and taken.
#[tokio::test]
async fn a_moving_reserve_is_counted_once() {
    const RESERVE: u64 = 8 * 1024 * 1024;
    const KEPT: u64 = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let small = Options {
        reserve_bytes: RESERVE,
        keep_free_bytes: KEPT,
        ..options()
    };
    let log = Arc::new(EmbeddedLog::open_on(dir.path(), small, Box::new(disk.clone())).unwrap());
    disk.set(|plan| {
        plan.beside = Some(dir.path().join(RESERVE_FILE));
        plan.free = Some(RESERVE + 2 * KEPT);
    });
    let moved = Arc::clone(&log);
    let moving = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            moved.free_reserve().unwrap();
            moved.restore_reserve().unwrap();
        }
    });
    let mut admitted = 0;
    while !moving.is_finished() || admitted < 20 {
        drop(log.append(one("there is room")).await.unwrap());
        admitted += 1;
    }
    moving.await.unwrap();
}

/// While health says "not now" nobody sends anything, so the log has to find out by itself.
#[tokio::test]
async fn an_idle_log_notices_that_its_disk_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let log = EmbeddedLog::open_on(dir.path(), options(), Box::new(disk.clone())).unwrap();
    let mut health = log.watch_health();
    disk.set(|plan| plan.write = Some(ENOSPC));
    assert!(log.append(one("refused")).await.is_err());
    disk.set(|plan| plan.write = None);
    let healed = health.wait_for(|health| *health == Health::Ok);
    assert!(
        tokio::time::timeout(Duration::from_secs(5), healed)
            .await
            .unwrap()
            .is_ok()
    );
    drop(log);
    let length = std::fs::metadata(dir.path().join("log").join(segment::file_name(0)))
        .unwrap()
        .len();
    assert_eq!(length, 28 + 2 * 8 + 4, "a probe leaves nothing");
}

#[tokio::test]
async fn a_segment_that_cannot_be_created_is_created_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let small = Options {
        segment_bytes: 1,
        ..options()
    };
    let log = EmbeddedLog::open_on(dir.path(), small, Box::new(disk.clone())).unwrap();
    drop(log.append(one("a")).await.unwrap());
    disk.set(|plan| plan.create = Some(ENOSPC));
    assert!(matches!(
        log.append(one("b")).await.unwrap_err(),
        LogError::Unavailable { .. }
    ));
    disk.set(|plan| plan.create = None);
    drop(log.append(one("c")).await.unwrap());
    drop(log);
    assert_eq!(payloads(dir.path()), ["a", "c"]);
}

/// Readers see a record only after its fdatasync, the callers are answered only then, and everything that arrives
/// meanwhile shares the next one. The queue is bounded and refuses at once.
#[tokio::test]
async fn nothing_is_shown_before_it_is_durable_and_the_queue_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Faulty::default();
    let bounded = Options {
        queue_bytes: 1000,
        ..options()
    };
    let log = Arc::new(EmbeddedLog::open_on(dir.path(), bounded, Box::new(disk.clone())).unwrap());
    let mut reader = log.reader(BTreeMap::from([(Partition(1), Offset(0))])).unwrap();
    let (release, hold) = mpsc::channel();
    disk.set(|plan| plan.hold = Some(hold));
    let mut appends = tokio::task::JoinSet::new();
    let first = Arc::clone(&log);
    drop(appends.spawn(async move { first.append(one("first")).await }));
    // Until the writer has taken the hold, it has not reached fdatasync.
    while disk.plan.lock().unwrap().hold.is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(reader.next(10, 1000, Duration::from_millis(20)).await, Ok(vec![]));
    assert_eq!(log.ends(), [Offset(0), Offset(0)]);
    assert!(appends.try_join_next().is_none());
    let payload = "x".repeat(200);
    for _ in 0..4 {
        let (log, payload) = (Arc::clone(&log), payload.clone());
        drop(appends.spawn(async move { log.append(one(&payload)).await }));
    }
    while log.queued_bytes() < 4 * 208 {
        tokio::task::yield_now().await;
    }
    let error = log.append(one(&payload)).await.unwrap_err();
    assert!(matches!(error, LogError::Overloaded { .. }), "{error}");
    let syncs = disk.syncs.load(Ordering::SeqCst);
    release.send(()).unwrap();
    while let Some(answer) = appends.join_next().await {
        assert!(answer.unwrap().is_ok());
    }
    assert_eq!(
        disk.syncs.load(Ordering::SeqCst),
        syncs + 2,
        "the four that waited shared one fdatasync"
    );
    assert_eq!(reader.next(10, 1000, Duration::from_secs(5)).await.unwrap().len(), 5);
    assert_eq!(log.queued_bytes(), 0);
}
