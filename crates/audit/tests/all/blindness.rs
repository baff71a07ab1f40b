//! What the audit must see: one flipped bit in one record, a record or a flag that is missing, too much or altered, books and
//! clocks that are wrong, derived records that are lost, invented or changed. It names the customer every time.

use crate::dice::{Dice, seed};
use crate::support::{Rows, run};
use crate::workload::Workload;
use bytes::Bytes;
use vigie_audit::{Report, Sample, Verdict, recompute};
use vigie_event::{Body, CustomerKey, Partition, Position, Record, Timestamp};
use vigie_scoring::CustomerState;

/// A workload with customers, flags and links in several partitions.
fn full(dice: &mut Dice) -> (Rows, Vec<(Position, Record)>) {
    loop {
        let one = dice.roll();
        let (rows, records) = run(async {
            let house = Workload::random(one, 250).play().await;
            (house.rows().await, house.records().await)
        });
        let report = rows.audit_all(&records);
        if rows.partitions.len() >= 3 && report.customers >= 4 && report.flags >= 4 && report.derived >= 6 {
            assert_eq!(report.verdict, Verdict::Equal, "{one}\n{report}");
            return (rows, records);
        }
    }
}

/// Some customer of the store.
fn pick(dice: &mut Dice, rows: &Rows) -> (Partition, usize, CustomerKey) {
    let all: Vec<_> = rows
        .partitions
        .iter()
        .flat_map(|(partition, (_, customers))| {
            let indexed = customers.iter().enumerate();
            indexed.map(|(index, (key, _))| (*partition, index, key.clone()))
        })
        .collect();
    all[dice.index(all.len())].clone()
}

fn names(report: &Report, key: &CustomerKey) -> bool {
    let command = format!("vigie explain {} --workspace {}", key.person, key.workspace);
    report.first.iter().any(|first| {
        first.customer == Some(key.person.to_string())
            && first.workspace == Some(key.workspace.to_string())
            && first.explain.as_ref() == Some(&command)
    })
}

#[test]
fn one_flipped_bit_of_one_record_is_found_a_thousand_times() {
    let seed = seed();
    let mut dice = Dice(seed);
    for _ in 0..10 {
        let (rows, records) = full(&mut dice);
        let partitions = rows.partitions.len() as u16;
        for _ in 0..100 {
            let (partition, index, key) = pick(&mut dice, &rows);
            let mut damaged = rows.clone();
            let value = &mut damaged.partitions.get_mut(&partition).unwrap().1[index].1;
            let mut bytes = value.to_vec();
            let bit = dice.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            *value = Bytes::from(bytes);
            // Only the damaged partition: a sample finds it just the same.
            let turn = u64::from(partition.0);
            let sample = Sample::rotating(partitions, 1.0 / f64::from(partitions), turn);
            let cut = rows.cut();
            let own = records
                .iter()
                .filter(|(position, _)| position.partition == partition)
                .cloned();
            let expected = recompute(partitions, &cut, own).unwrap();
            let report = damaged.audit(sample, expected);
            assert_eq!(report.verdict, Verdict::Different, "VIGIE_SEED={seed}");
            assert_eq!(
                (report.counts.state_diff, report.counts.total()),
                (1, 1),
                "VIGIE_SEED={seed}\n{report}"
            );
            assert!(names(&report, &key), "VIGIE_SEED={seed}: {key}\n{report}");
            assert_ne!(report.root_live, report.root_oracle);
            assert_eq!(report.exit_code(), 1);
        }
    }
}

#[test]
fn a_record_too_few_or_too_many_is_found() {
    let mut dice = Dice(seed());
    let (rows, records) = full(&mut dice);
    let (partition, index, key) = pick(&mut dice, &rows);
    let mut damaged = rows.clone();
    let (_, bytes) = damaged.partitions.get_mut(&partition).unwrap().1.remove(index);
    let report = damaged.audit_all(&records);
    assert_eq!((report.counts.missing_live, report.counts.total()), (1, 1));
    assert!(names(&report, &key), "{report}");

    let mut damaged = rows.clone();
    let stranger = CustomerKey::new(
        key.workspace.clone(),
        vigie_event::PersonId::anonymous("zzz stranger").unwrap(),
    );
    damaged
        .partitions
        .get_mut(&partition)
        .unwrap()
        .1
        .push((stranger.clone(), bytes));
    damaged.partitions.get_mut(&partition).unwrap().1.sort();
    let report = damaged.audit_all(&records);
    assert_eq!((report.counts.extra_live, report.counts.total()), (1, 1), "{report}");
    assert_eq!(
        report.first[0].explain.as_deref(),
        Some(format!("vigie explain 'anonymous:zzz stranger' --workspace {}", key.workspace).as_str())
    );
}

#[test]
fn a_flag_that_is_missing_repeated_or_altered_is_found() {
    let mut dice = Dice(seed());
    let (rows, records) = full(&mut dice);
    let at = dice.index(rows.flags.len());
    let flag: vigie_relance::Flag = serde_json::from_slice(&rows.flags[at].1).unwrap();
    let named = |report: &Report| {
        report
            .first
            .iter()
            .any(|first| first.customer.as_ref() == Some(&flag.customer))
    };

    let mut damaged = rows.clone();
    drop(damaged.flags.remove(at));
    let report = damaged.audit_all(&records);
    assert_eq!((report.counts.flag_missing, report.counts.total()), (1, 1), "{report}");
    assert!(named(&report), "{report}");

    let mut damaged = rows.clone();
    damaged.flags.push(rows.flags[at].clone());
    let report = damaged.audit_all(&records);
    assert_eq!((report.counts.flag_extra, report.counts.total()), (1, 1), "{report}");

    let altered: [fn(&mut vigie_relance::Flag); 7] = [
        // Reading the value above may have been off by its last bit, so another one is flipped.
        |flag| flag.score.value = f64::from_bits(flag.score.value.to_bits() ^ 8),
        |flag| {
            flag.raised_at.replace_range(
                22..23,
                if flag.raised_at.get(22..23) == Some("1") {
                    "2"
                } else {
                    "1"
                },
            )
        },
        |flag| flag.policy_version.push('0'),
        |flag| flag.stage.push('x'),
        |flag| flag.customer.push('x'),
        |flag| {
            flag.kind = match flag.kind {
                vigie_relance::FlagKind::Flagged => vigie_relance::FlagKind::HeldOut,
                _ => vigie_relance::FlagKind::Flagged,
            }
        },
        |flag| {
            flag.band = Some(vigie_relance::BandMove {
                from: "a".to_owned(),
                to: "b".to_owned(),
                up: true,
            });
        },
    ];
    for alter in altered {
        let mut other = flag.clone();
        alter(&mut other);
        let mut damaged = rows.clone();
        damaged.flags[at].1 = Bytes::from(serde_json::to_vec(&other).unwrap());
        let report = damaged.audit_all(&records);
        assert_eq!(
            (report.counts.flag_diff, report.counts.total()),
            (1, 1),
            "{other:?}\n{report}"
        );
        assert!(named(&report), "{report}");
    }
}

#[test]
fn books_clocks_and_models_that_are_wrong_are_found() {
    let mut dice = Dice(seed());
    let (rows, records) = full(&mut dice);
    let (partition, ..) = pick(&mut dice, &rows);
    let audit = |change: &dyn Fn(&mut vigie_audit::Facts)| {
        let mut damaged = rows.clone();
        change(&mut damaged.partitions.get_mut(&partition).unwrap().0);
        damaged.audit_all(&records)
    };
    let report = audit(&|facts| facts.books.values_mut().next().unwrap().duplicate += 1);
    assert_eq!((report.counts.books_diff, report.counts.total()), (1, 1), "{report}");
    let report = audit(&|facts| facts.clock = Timestamp(facts.clock.0 + 1));
    assert_eq!((report.counts.meta_diff, report.counts.total()), (1, 1), "{report}");
    assert_eq!(report.first[0].field, "clock");
    let report = audit(&|facts| facts.in_force = None);
    assert_eq!(
        (report.counts.meta_diff, report.first[0].field.as_str()),
        (1, "in_force")
    );
    // What cannot be compared is no difference.
    let report = audit(&|facts| facts.busy = true);
    assert_eq!((report.exit_code(), report.counts.total()), (2, report.counts.total()));
    assert!(report.json().contains("not_measured"), "{}", report.json());
}

#[test]
fn derived_records_that_are_lost_invented_or_changed_are_found() {
    let mut dice = Dice(seed());
    // One in which somebody was linked to somebody else.
    let merges = |records: &[(Position, Record)]| {
        let is_merge = |(_, record): &(Position, Record)| matches!(record.body, Body::Merge(_));
        records.iter().position(is_merge)
    };
    let (rows, records, at) = loop {
        let (rows, records) = full(&mut dice);
        if let Some(at) = merges(&records) {
            break (rows, records, at);
        }
    };
    let partitions = rows.partitions.len() as u16;
    // The log is changed and the oracle recomputes from it; whatever the records say then, the derived ones do not agree.
    let audit = |log: Vec<(Position, Record)>| {
        let mut cut = rows.cut();
        for (partition, next) in &mut cut {
            let own = log.iter().filter(|(position, _)| position.partition == *partition);
            next.0 = own.count() as u64;
        }
        let mut damaged = rows.clone();
        for (partition, (facts, _)) in &mut damaged.partitions {
            facts.next = cut[partition];
        }
        let expected = recompute(partitions, &cut, log).unwrap();
        damaged.audit(Sample::all(partitions), expected)
    };

    let mut changed = records.clone();
    if let Body::Merge(merge) = &mut changed[at].1.body {
        // A record that was received at another time is still a record.
        let mut state = CustomerState::decode(&merge.parts[0].state).unwrap();
        state.last_received = state.last_received.plus_ms(1);
        merge.parts[0].state = state.encode();
    }
    assert!(audit(changed).counts.record_diff > 0);

    let mut invented = records.clone();
    if let Some(origin) = &mut invented[at].1.origin {
        origin.index += 100;
    }
    let report = audit(invented);
    assert!(report.counts.phantom > 0 && report.counts.lost > 0, "{report}");
}
