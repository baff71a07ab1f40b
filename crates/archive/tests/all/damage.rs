//! Damage is found and named: every flipped bit and every cut of a manifest or data file. Nothing is repaired and nothing
//! wrong is served.

use crate::support::{Logs, PARTITIONS, open, run, workspace};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use vigie_archive::{Archive, ArchiveError, Mode, Place, Wanted};

/// An archive of three flushes in a directory, and its files.
async fn filled(directory: &Path) -> Vec<String> {
    let place = Place::directory(directory);
    let archive = open(&place, Mode::Write).await;
    let mut logs = Logs::new(1);
    logs.workspaces = vec![workspace("shop"), workspace("a/b")];
    for _ in 0..3 {
        let _ = archive.write(logs.rows(40)).await.unwrap();
    }
    let flushes = archive.flushes();
    let named = flushes
        .iter()
        .flat_map(|flush| flush.files.iter().map(|file| file.path.clone()));
    named.chain(["manifest/000000000001.jsonl".to_owned()]).collect()
}

/// The file that opening or verifying blames, and the one that reading blames.
async fn blamed(place: &Place) -> (Option<String>, Option<String>) {
    let archive = match Archive::open(place.clone(), Mode::Read, PARTITIONS).await {
        Ok(archive) => archive,
        Err(ArchiveError::Manifest { volume, .. }) => return (Some(volume.clone()), Some(volume)),
        Err(other) => panic!("{other}"),
    };
    let verified = match archive.verify().await.unwrap().fault {
        None => None,
        Some(ArchiveError::File { file, .. }) => Some(file),
        Some(other) => panic!("{other}"),
    };
    let mut reader = archive.read(Wanted::default());
    let read = loop {
        match reader.next().await {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(ArchiveError::File { file, .. }) => break Some(file),
            Err(other) => panic!("{other}"),
        }
    };
    (verified, read)
}

#[test]
fn every_flipped_bit_and_every_cut_is_found_and_named() {
    run(async {
        let seed = 20_261_122;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let directory = tempfile::tempdir().unwrap();
        let place = Place::directory(directory.path());
        let files = filled(directory.path()).await;
        assert_eq!(blamed(&place).await, (None, None));
        for round in 0..700 {
            // The manifest is one file among many: it gets its share.
            let file = if round % 3 == 0 {
                files.last().unwrap()
            } else {
                &files[rng.random_range(0..files.len())]
            };
            let path = directory.path().join(file);
            let sound = std::fs::read(&path).unwrap();
            let mut damaged = sound.clone();
            let what = if round % 10 == 9 {
                damaged.truncate(rng.random_range(0..sound.len()));
                format!("cut to {} bytes", damaged.len())
            } else {
                let (at, bit) = (rng.random_range(0..sound.len()), rng.random_range(0..8));
                damaged[at] ^= 1 << bit;
                format!("bit {bit} of byte {at} flipped")
            };
            std::fs::write(&path, &damaged).unwrap();
            let named = Some(file.clone());
            assert_eq!(
                blamed(&place).await,
                (named.clone(), named),
                "seed {seed}, round {round}: {file}: {what}"
            );
            std::fs::write(&path, &sound).unwrap();
        }
        assert_eq!(blamed(&place).await, (None, None));
    });
}

#[test]
fn lost_lines_volumes_and_files_are_found_and_nothing_is_swept() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::directory(directory.path());
        let files = filled(directory.path()).await;
        let volume = directory.path().join("manifest/000000000001.jsonl");
        let sound = std::fs::read_to_string(&volume).unwrap();
        let lines: Vec<&str> = sound.lines().collect();
        assert_eq!(lines.len(), 4);
        for kept in [
            vec![0, 1, 2],
            vec![0, 1, 3],
            vec![1, 2, 3],
            vec![0, 2, 1, 3],
            vec![0, 0, 1, 2, 3],
            vec![],
        ] {
            let text: String = kept.iter().map(|at| format!("{}\n", lines[*at])).collect();
            std::fs::write(&volume, text).unwrap();
            let opened = Archive::open(place.clone(), Mode::Write, PARTITIONS).await;
            assert!(
                matches!(opened, Err(ArchiveError::Manifest { .. })),
                "{kept:?}: {opened:?}"
            );
        }
        std::fs::remove_file(&volume).unwrap();
        let opened = Archive::open(place.clone(), Mode::Write, PARTITIONS).await;
        assert!(
            matches!(opened, Err(ArchiveError::Manifest { .. })),
            "later files betray it: {opened:?}"
        );
        std::fs::write(&volume, &sound).unwrap();
        assert_eq!(blamed(&place).await, (None, None), "nothing was swept");
        let gone = &files[files.len() - 2];
        std::fs::remove_file(directory.path().join(gone)).unwrap();
        assert_eq!(blamed(&place).await, (Some(gone.clone()), Some(gone.clone())));
        // Fewer partitions than the archive holds: another log's archive.
        let opened = Archive::open(place.clone(), Mode::Read, 2).await;
        assert!(
            opened
                .unwrap_err()
                .to_string()
                .contains("does not exist: the log has 2")
        );
    });
}
