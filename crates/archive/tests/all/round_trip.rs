//! What goes in comes out: bytes, judgements and order, for arbitrary logs, in both kinds of place.

use crate::support::{Logs, PARTITIONS, drain, everything, open, ordered, run};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use vigie_archive::{Archive, ArchiveError, Mode, Place, Row, Wanted};
use vigie_event::{Body, Judgement, Offset, Partition, Position, Record};

/// Flushes of several sizes; what the archive must then hold.
async fn filled(place: &Place, seed: u64) -> (Archive, Vec<Row>, Logs) {
    let mut logs = Logs::new(seed);
    let archive = open(place, Mode::Write).await;
    let mut model = Vec::new();
    for (number, size) in [1, 70, 0, 300, 12].into_iter().enumerate() {
        let rows = logs.rows(size);
        let flushed = archive.write(rows.clone()).await.unwrap();
        assert_eq!(flushed.is_some(), size > 0, "seed {seed}, flush {number}");
        model.extend(ordered(rows));
    }
    (archive, model, logs)
}

#[test]
fn bytes_and_judgements_come_back_exactly() {
    run(async {
        for seed in 0..6 {
            let directory = tempfile::tempdir().unwrap();
            let memory = Place::parse("memory://").unwrap();
            for place in [Place::directory(directory.path()), memory] {
                let (archive, model, _) = filled(&place, seed).await;
                assert!(everything(&archive).await == model, "seed {seed} in {place}");
                drop(archive);
                let reader = open(&place, Mode::Read).await;
                assert!(
                    everything(&reader).await == model,
                    "seed {seed} in {place}, opened again"
                );
                let verified = reader.verify().await.unwrap();
                assert_eq!(verified.fault, None);
                assert_eq!(verified.sound, reader.totals());
                assert_eq!(verified.sound.rows, model.len() as u64);
            }
        }
    });
}

#[test]
fn records_are_decoded_as_the_log_decodes_them() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let (archive, model, _) = filled(&Place::directory(directory.path()), 77).await;
        let with = drain(archive.read(Wanted {
            payload: true,
            ..Wanted::default()
        }))
        .await;
        let without = drain(archive.read(Wanted {
            checked: false,
            ..Wanted::default()
        }))
        .await;
        assert_eq!((with.len(), without.len()), (model.len(), model.len()));
        let mut undecodable = 0;
        for ((row, with), without) in model.iter().zip(with).zip(without) {
            let expected = Record::decode(&row.bytes);
            assert_eq!(with.record, expected);
            assert_eq!((with.judgement, with.bytes), (None, None));
            undecodable += usize::from(expected.is_err());
            let bare = expected.map(|mut record| {
                match &mut record.body {
                    Body::Event(event) => event.payload = "".into(),
                    Body::Forward(forward) => forward.event.payload = "".into(),
                    _ => {}
                }
                record
            });
            assert_eq!(without.record, bare);
        }
        assert!(undecodable > 5, "the generator makes undecodable bytes");
    });
}

#[test]
fn parts_of_the_log_can_be_read() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let (archive, model, mut logs) = filled(&Place::directory(directory.path()), 5).await;
        for round in 0..40 {
            use rand::Rng;
            let mut some = || Partition(logs.rng.random_range(0..PARTITIONS + 2));
            let partitions = (round % 3 > 0).then(|| BTreeSet::from([some(), some()]));
            let from = BTreeMap::from([(some(), Offset(20)), (some(), Offset(77))]);
            let until = BTreeMap::from([(some(), Offset(60)), (some(), Offset(3))]);
            let expected = model.iter().filter(
                |Row {
                     position: Position { partition, offset },
                     ..
                 }| {
                    partitions.as_ref().is_none_or(|set| set.contains(partition))
                        && from.get(partition).is_none_or(|from| offset >= from)
                        && until.get(partition).is_none_or(|until| offset < until)
                },
            );
            let expected: Vec<Position> = expected.map(|row| row.position).collect();
            let wanted = Wanted {
                partitions,
                from,
                until,
                ..Wanted::default()
            };
            let got = drain(archive.read(wanted.clone())).await;
            let got: Vec<Position> = got.into_iter().map(|row| row.position).collect();
            assert_eq!(got, expected, "round {round}: {wanted:?}");
        }
    });
}

#[test]
fn rows_that_do_not_continue_the_archive_change_nothing() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let (archive, model, _) = filled(&Place::directory(directory.path()), 9).await;
        let ends = archive.ends();
        let row = |partition: u16, offset: u64| Row {
            position: Position {
                partition: Partition(partition),
                offset: Offset(offset),
            },
            bytes: Bytes::from_static(b"x"),
            judgement: Judgement::Noted,
        };
        let end = ends[2].0;
        for rows in [
            vec![row(2, end + 1)],
            vec![row(2, end - 1)],
            vec![row(2, end), row(2, end)],
            vec![row(2, end), row(2, end + 2)],
            vec![row(1, ends[1].0), row(2, 0)],
        ] {
            let refused = archive.write(rows).await;
            assert!(
                matches!(refused, Err(ArchiveError::NotContiguous { partition: 2, .. })),
                "{refused:?}"
            );
        }
        let beyond = archive.write(vec![row(PARTITIONS, 0)]).await;
        assert!(matches!(beyond, Err(ArchiveError::Partitions { .. })), "{beyond:?}");
        assert_eq!(archive.ends(), ends);
        assert!(everything(&archive).await == model);
        assert_eq!(archive.sweep().await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn manifests_of_many_volumes_are_read_and_followed() {
    run(async {
        let place = Place::parse("memory://").unwrap();
        let writer = open(&place, Mode::Write).await;
        let follower = open(&place, Mode::Read).await;
        for offset in 0..600u64 {
            let row = Row {
                position: Position {
                    partition: Partition(0),
                    offset: Offset(offset),
                },
                bytes: Bytes::from_static(b"?"),
                judgement: Judgement::Noted,
            };
            assert_eq!(writer.write(vec![row]).await.unwrap(), Some(offset + 1));
            if [1, 255, 256, 257, 512, 600].contains(&(offset + 1)) {
                follower.refresh().await.unwrap();
                assert_eq!(follower.ends()[0], Offset(offset + 1));
                assert_eq!(open(&place, Mode::Read).await.ends()[0], Offset(offset + 1));
            }
        }
        assert_eq!(everything(&follower).await.len(), 600);
        assert_eq!(follower.totals().flushes, 600);
    });
}

#[test]
fn a_large_flush_comes_in_portions() {
    run(async {
        let place = Place::parse("memory://").unwrap();
        let archive = open(&place, Mode::Write).await;
        let rows = (0..150_000u64).map(|at| Row {
            position: Position {
                partition: Partition((at % 2) as u16),
                offset: Offset(at / 2),
            },
            bytes: Bytes::from_static(b"?"),
            judgement: Judgement::Noted,
        });
        let rows: Vec<Row> = rows.collect();
        let _ = archive.write(rows.clone()).await.unwrap();
        let mut reader = archive.read(Wanted::default());
        let mut sizes = Vec::new();
        let mut got = Vec::new();
        while let Some(portion) = reader.next().await.unwrap() {
            sizes.push(portion.len());
            got.extend(portion.into_iter().map(|row| row.position));
        }
        assert_eq!(sizes, [65_536, 65_536, 18_928]);
        let expected: Vec<Position> = ordered(rows).into_iter().map(|row| row.position).collect();
        assert!(got == expected);
    });
}

#[test]
fn one_writer_and_any_number_of_readers() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::directory(directory.path());
        let missing = Place::directory(&directory.path().join("not-there"));
        let refused = Archive::open(missing, Mode::Read, PARTITIONS).await;
        assert!(matches!(refused, Err(ArchiveError::Place { .. })), "{refused:?}");

        let writer = open(&place, Mode::Write).await;
        let second = Archive::open(place.clone(), Mode::Write, PARTITIONS).await;
        assert!(matches!(second, Err(ArchiveError::Locked { .. })), "{second:?}");
        let reader = open(&place, Mode::Read).await;
        let mut logs = Logs::new(3);
        let rows = logs.rows(20);
        let _ = writer.write(rows.clone()).await.unwrap();
        assert_eq!(reader.totals().rows, 0);
        reader.refresh().await.unwrap();
        assert!(everything(&reader).await == ordered(rows.clone()));
        let refused = reader.write(rows).await;
        assert!(matches!(refused, Err(ArchiveError::ReadOnly)), "{refused:?}");
        let clone = writer.clone();
        drop(writer);
        let second = Archive::open(place.clone(), Mode::Write, PARTITIONS).await;
        assert!(
            matches!(second, Err(ArchiveError::Locked { .. })),
            "a clone holds the lock"
        );
        drop(clone);
        drop(open(&place, Mode::Write).await);
    });
}

#[test]
fn an_object_store_notices_a_second_writer() {
    run(async {
        let place = Place::parse("memory://").unwrap();
        let first = open(&place, Mode::Write).await;
        let mut logs = Logs::new(4);
        let _ = first.write(logs.rows(20)).await.unwrap();
        let second = open(&place, Mode::Write).await;
        let rows = logs.rows(20);
        let _ = first.write(rows.clone()).await.unwrap();
        let late = second.write(rows.clone()).await;
        assert!(matches!(late, Err(ArchiveError::Conflict { .. })), "{late:?}");
        // It looks before it writes again, and finds that the rows are there.
        let again = second.write(rows).await;
        assert!(matches!(again, Err(ArchiveError::NotContiguous { .. })), "{again:?}");
        assert_eq!(first.ends(), second.ends());
    });
}

#[test]
fn places_that_cannot_be_are_refused_with_advice() {
    for (text, advice) in [
        ("", "give a directory"),
        ("ftp://x/y", "use file://"),
        ("s3://bucket/x", "cloud"),
    ] {
        match Place::parse(text) {
            Err(error @ ArchiveError::Place { .. }) => assert!(error.to_string().contains(advice), "{error}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(Place::parse("file:///a/b").unwrap().to_string(), "/a/b");
}
