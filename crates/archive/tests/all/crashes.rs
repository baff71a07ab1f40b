//! A flush is visible whole or not at all, wherever the writer stops (F67). The writer is stopped dead after every
//! visible step of a flush, power loss included (what was not synced is torn or gone), and the archive is opened again.

use crate::support::{Logs, PARTITIONS, everything, open, ordered, run, workspace};
use rand::Rng;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use vigie_archive::{Archive, ArchiveError, Mode, Options, Place, Step};

/// Stops after the `stop`-th step; remembers the last step.
fn stopping_at(stop: usize) -> (Options, Arc<Mutex<Option<Step>>>) {
    let last = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&last);
    let count = AtomicUsize::new(0);
    let fault = move |step: &Step| {
        *seen.lock().unwrap() = Some(step.clone());
        count.fetch_add(1, Ordering::Relaxed) == stop
    };
    (
        Options {
            fault: Some(Arc::new(fault)),
        },
        last,
    )
}

/// What power loss does to the last step: unsynced bytes are torn, an unsynced rename is undone.
fn lose_power(root: &Path, step: &Step, before: Option<Vec<u8>>, keep: usize) {
    let file = root.join(&step.file);
    let unfinished = root.join(format!("{}.tmp", step.file));
    match step.done {
        "half written" | "written" => {
            let bytes = std::fs::read(&unfinished).unwrap();
            std::fs::write(&unfinished, &bytes[..keep.min(bytes.len())]).unwrap();
        }
        "renamed" => match before {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        },
        _ => {}
    }
}

fn files_below(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path.to_string_lossy().into_owned());
        }
    }
}

#[test]
fn a_flush_is_whole_or_absent_wherever_the_writer_stops() {
    run(async {
        let mut crashes = 0;
        for seed in 0..12u64 {
            let directory = tempfile::tempdir().unwrap();
            let place = Place::directory(directory.path());
            let mut logs = Logs::new(seed);
            logs.workspaces = vec![workspace("shop"), workspace("..")];
            let mut model = Vec::new();
            if seed % 2 == 0 {
                let rows = logs.rows(15);
                let _ = open(&place, Mode::Write).await.write(rows.clone()).await.unwrap();
                model.extend(ordered(rows));
            }
            let mut stop = 0;
            let mut rows = logs.rows(15);
            loop {
                let (options, last) = stopping_at(stop);
                let archive = Archive::open_with(place.clone(), Mode::Write, PARTITIONS, options)
                    .await
                    .unwrap();
                let volume = directory.path().join("manifest/000000000001.jsonl");
                let before = std::fs::read(&volume).ok();
                let written = archive.write(rows.clone()).await;
                drop(archive);
                if written.is_ok() {
                    model.extend(ordered(rows));
                    break;
                }
                assert!(matches!(written, Err(ArchiveError::Stopped { .. })), "{written:?}");
                crashes += 1;
                let step = last.lock().unwrap().clone().unwrap();
                let of_manifest = step.file.starts_with("manifest");
                let power = logs.rng.random_bool(0.5);
                if power {
                    lose_power(
                        directory.path(),
                        &step,
                        before.filter(|_| of_manifest),
                        logs.rng.random_range(0..3000),
                    );
                }
                let visible = of_manifest && (step.done == "directory synced" || step.done == "renamed" && !power);

                let archive = open(&place, Mode::Write).await;
                let what = format!("seed {seed}, stopped at {step:?}, power lost: {power}");
                if visible {
                    model.extend(ordered(rows));
                    rows = logs.rows(15);
                }
                assert!(everything(&archive).await == model, "{what}");
                assert_eq!(archive.verify().await.unwrap().fault, None, "{what}");
                let named: usize = archive.flushes().iter().map(|flush| flush.files.len()).sum();
                let volumes = usize::from(named > 0);
                let mut found = Vec::new();
                files_below(directory.path(), &mut found);
                assert_eq!(
                    found.len(),
                    named + volumes + 1,
                    "{what}: leftovers are swept: {found:?}"
                );
                stop += 1;
            }
            let archive = open(&place, Mode::Write).await;
            assert!(everything(&archive).await == model, "seed {seed}");
        }
        assert!(crashes >= 300, "only {crashes} crash points");
        println!("{crashes} crash points");
    });
}

#[test]
fn a_writer_that_failed_goes_on_where_the_archive_is() {
    run(async {
        for stop in 0.. {
            let place = Place::parse("memory://").unwrap();
            let (options, last) = stopping_at(stop);
            let archive = Archive::open_with(place.clone(), Mode::Write, PARTITIONS, options)
                .await
                .unwrap();
            let mut logs = Logs::new(1);
            logs.workspaces.truncate(2);
            let rows = logs.rows(15);
            let first = archive.write(rows.clone()).await;
            let step = last.lock().unwrap().clone().unwrap();
            let visible = first.is_ok() || step.file.starts_with("manifest") && step.done == "put";
            // The same writer, without being opened again.
            let again = archive.write(rows.clone()).await;
            if visible {
                assert!(
                    matches!(again, Err(ArchiveError::NotContiguous { .. })),
                    "stop {stop}: {again:?}"
                );
            } else {
                assert_eq!(again, Ok(Some(1)), "stop {stop}");
            }
            assert!(everything(&archive).await == ordered(rows));
            if first.is_ok() {
                assert!(stop > 5, "there were steps to stop at");
                return;
            }
        }
    });
}
