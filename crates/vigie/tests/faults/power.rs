//! File systems of a test's own: an ext4 whose power can be cut, and a small one that can be full. Both need root, and
//! loop devices; without them the tests say so and fail.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::rig::scenario::{Scenario, Sent, Told, Verdict, summary};
use crate::support::{Books, Launch, Starting, until};

/// Shuts an ext4 down without flushing its journal, EXT4_IOC_SHUTDOWN with NOLOGFLUSH: what the kernel has not written
/// by now is gone, as if the power were.
///
/// The call is not atomic: an fdatasync that overlaps with it may be told that it succeeded although its transaction was
/// thrown away (jbd2 finds no transaction to wait for). A real power cut would have stopped the answer as well. So the
/// moment before the call is printed, and only what was answered before it counts as acknowledged.
const CUT: &str = "import fcntl, os, struct, sys, time
disk = os.open(sys.argv[1], os.O_RDONLY)
print(time.time_ns(), flush=True)
fcntl.ioctl(disk, 0x8004587d, struct.pack('I', 2))";

fn command(words: &[&str]) -> bool {
    let Some((program, args)) = words.split_first() else {
        return false;
    };
    Command::new(program)
        .args(args)
        .status()
        .is_ok_and(|status| status.success())
}

#[track_caller]
fn must(words: &[&str]) {
    assert!(
        command(words),
        "not measured: {words:?} failed; this test needs root, loop devices, mkfs.ext4 and python3"
    );
}

/// A mounted file system that goes when its value goes.
pub(crate) struct Disk {
    dir: tempfile::TempDir,
    image: Option<PathBuf>,
}

impl Disk {
    /// An ext4 in a file.
    pub(crate) fn ext4(mib: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let disk = Self {
            image: Some(image.clone()),
            dir,
        };
        std::fs::create_dir(disk.path()).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len((mib << 20) as u64).unwrap();
        must(&["mkfs.ext4", "-q", "-F", &image.display().to_string()]);
        disk.mount();
        disk
    }

    /// A file system in memory.
    pub(crate) fn tmpfs(mib: usize) -> Self {
        let disk = Self {
            dir: tempfile::tempdir().unwrap(),
            image: None,
        };
        std::fs::create_dir(disk.path()).unwrap();
        let size = format!("size={mib}m");
        must(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &size,
            "vigie-test",
            &disk.path().display().to_string(),
        ]);
        disk
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn mount(&self) {
        let image = self.image.as_ref().unwrap().display().to_string();
        must(&["mount", "-o", "loop", &image, &self.path().display().to_string()]);
    }

    /// A file beside the mounted file system.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Cuts the power, and says from when on it was off. Every later write fails, and nothing that was not on the disk
    /// will be there.
    pub(crate) fn cut(&self) -> SystemTime {
        let output = Command::new("python3").args(["-c", CUT]).arg(self.path()).output();
        let output = output.expect("python3 is installed");
        assert!(output.status.success(), "not measured: {output:?}");
        let since: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        UNIX_EPOCH + Duration::from_nanos(since)
    }

    /// Power is back.
    pub(crate) fn restore(&self) {
        let path = self.path().display().to_string();
        until("the file system can be unmounted", || {
            command(&["umount", &path]).then_some(())
        });
        self.mount();
    }

    /// Puts everything on the disk.
    fn flush(&self) {
        must(&["sync", "-f", &self.path().display().to_string()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that failed may have left a process for another moment: then the mount goes with its last user.
        let _ = command(&["umount", "-l", &self.path().display().to_string()]);
    }
}

/// What a power cut left.
struct CutPower {
    data: PathBuf,
    told: Told,
    /// Batches acknowledged for certain before it.
    upto: usize,
    /// Answers that came while it happened, which count as none.
    in_doubt: usize,
}

/// One power cut at a random moment under load. Answers the data directory after the power came back, and whether the
/// client had been told anything.
fn cut_under_load(
    scenario: &Scenario,
    disk: &Disk,
    rng: &mut ChaCha8Rng,
    variables: Vec<(&'static str, String)>,
) -> CutPower {
    let data = disk.path().join("data");
    scenario.copy_to(&data);
    disk.flush();
    let launch = Launch {
        variables,
        // What it logs is to survive.
        log: Some(disk.log()),
        ..scenario.launch()
    };
    let mut server = Starting::launch(&data, &launch).up();
    let mut told = scenario.nothing_told();
    let upto = rng.random_range(1..scenario.batches.len());
    assert!(matches!(scenario.send(&server, &mut told, upto), Sent::All));
    let pause = Duration::from_micros(rng.random_range(0..30_000));
    let off = std::thread::scope(|scope| {
        let cut = scope.spawn(|| {
            // not synchronisation: the moment of the power cut is random on purpose
            std::thread::sleep(pause);
            disk.cut()
        });
        // Refused, broken, or done before the cut.
        let _sent = scenario.send(&server, &mut told, usize::MAX);
        cut.join().unwrap()
    });
    server.process.kill();
    let in_doubt = told.forget_since(off);
    disk.restore();
    CutPower {
        data,
        told,
        upto,
        in_doubt,
    }
}

/// F04: power cuts under load, each judged after the power came back.
pub(crate) fn power_cuts(scenario: &Scenario, seed: u64, cycles: usize) -> Vec<Verdict> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let disk = Disk::ext4(256);
    let (mut verdicts, mut overlapping) = (Vec::new(), 0);
    for cycle in 0..cycles {
        let CutPower {
            data,
            mut told,
            upto,
            in_doubt,
        } = cut_under_load(scenario, &disk, &mut rng, Vec::new());
        overlapping += in_doubt;
        let context = format!("VIGIE_TEST_SEED={seed}, cycle {cycle}, power cut after {upto} batches");
        let launch = Launch {
            log: Some(disk.log()),
            ..scenario.launch()
        };
        verdicts.push(scenario.verdict_of(&data, &launch, &mut told, &context));
        // One cycle, one log.
        let _absent = std::fs::remove_file(disk.log());
        scenario.remove(&data);
    }
    println!(
        "F04: {}; {overlapping} answers overlapped with the cut and were not counted",
        summary(&verdicts)
    );
    verdicts
}

/// Whether something that was acknowledged is missing, or the directory cannot even be opened: what a negative
/// control must find.
fn has_lost(scenario: &Scenario, data: &Path, told: &Told) -> bool {
    let launch = Launch {
        log: Some(data.with_extension("restart.log")),
        ..scenario.launch()
    };
    match Starting::launch(data, &launch).up_or_dead() {
        Err(_) => true,
        Ok(server) => {
            let folded = until("the worker comes to its end", || {
                match server.client.get("/v1/books", &server.keys.read) {
                    Ok(answer) if answer.status == 200 => {
                        let books: Books = serde_json::from_str(&answer.body).unwrap();
                        (books.in_flight == 0).then_some(Some(books.applied))
                    }
                    _ => Some(None),
                }
            });
            folded.is_none_or(|applied| applied < scenario.known(told).0)
        }
    }
}

/// F04, the negative control: how many of so many power cuts lose something when fdatasync is left out.
pub(crate) fn power_cuts_without_fsync(scenario: &Scenario, seed: u64, cycles: usize) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let disk = Disk::ext4(256);
    let mut lost = 0;
    for _ in 0..cycles {
        let mutant = vec![("VIGIE_MUTANT", "skip_fsync".to_owned())];
        let CutPower { data, told, .. } = cut_under_load(scenario, &disk, &mut rng, mutant);
        lost += usize::from(has_lost(scenario, &data, &told));
        scenario.remove(&data);
    }
    println!("F04, fdatasync left out: {lost} of {cycles} power cuts lost what was acknowledged");
    lost
}
