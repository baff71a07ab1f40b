//! Policies that change all the time (F65): a thousand reloads under traffic, many of files that are broken or half written.
//! What is not valid is refused with its line and changes nothing; every flag carries the version of the policy that was in
//! force at its instant; and the oracle, which reads the same control records, comes to the same bytes across all changes.

use crate::dice::{Dice, seed};
use crate::support::{House, recompute_look_by_look, run};
use crate::workload::BASE;
use std::collections::BTreeSet;
use std::fmt::Write;
use vigie_audit::{Sample, Verdict};
use vigie_event::json::{Receipt, read};
use vigie_event::{Body, DAY_MS, PersonId, Record, Timestamp, Workspace, partition_for};
use vigie_pipeline::put_in_force;
use vigie_relance::{Flag, PolicyError, PolicySet, Refusal};
use vigie_scoring::{CustomerState, Model};

const PARTITIONS: u16 = 2;

/// A policy file with other numbers, other people and other outages every time.
fn policies(dice: &mut Dice, now: i64) -> String {
    let share = |dice: &mut Dice, from: u64, to: u64| (from + dice.below(to - from)) as f64 / 100.0;
    let mut text = String::new();
    if dice.percent(40) {
        let _ = writeln!(
            text,
            "[calendar]\nquiet-hours = \"{:02}:00-{:02}:00\"\n[[calendar.group]]\nwhere = \"currency = 'USD'\"\ntime-zone = \"America/New_York\"\ncountry = \"US\"",
            dice.below(24),
            dice.below(24)
        );
    }
    for _ in 0..dice.below(4) {
        let from = now - dice.below(60 * DAY_MS as u64) as i64;
        let _ = writeln!(text, "[[outage]]\nsource = \"till\"\nfrom = \"{}\"", Timestamp(from));
        if dice.percent(60) {
            let _ = writeln!(
                text,
                "signals = [\"{}\"]",
                dice.pick(&["purchase", "page.view", "survey.nps"])
            );
        }
        if dice.percent(80) {
            // Now and then an end that is still to come.
            let to = from + 1 + dice.below(40 * DAY_MS as u64) as i64;
            let _ = writeln!(text, "to = \"{}\"", Timestamp(to));
        }
    }
    for id in ["keep", "buy-again"].iter().take(1 + dice.index(2)) {
        let threshold = share(dice, 30, 90);
        let _ = writeln!(
            text,
            "[[policy]]\nid = \"{id}\"\nscore = \"{}\"\nthreshold = {threshold}\ncooldown-days = {}\nholdout = {}\nwithin-hours = {}",
            dice.pick(&["attrition", "churn-30"]),
            dice.below(20),
            share(dice, 0, 50),
            1 + dice.below(72)
        );
        if dice.percent(50) {
            let _ = writeln!(
                text,
                "[policy.eligible]\nmax-silence-days = {}\nmax-data-age-days = {}",
                20 + dice.below(200),
                1 + dice.below(30)
            );
        }
    }
    text
}

/// Reloads, those of broken files among them, and what was refused; then everything is audited.
async fn live(seed: u64, reloads: u32) -> (usize, usize, BTreeSet<&'static str>) {
    let mut dice = Dice(seed);
    let mut house = House::open(PARTITIONS, Timestamp(BASE)).await;
    let mut now = BASE + 1;
    let mut in_force: Vec<(Timestamp, PolicySet)> = vec![(Timestamp(i64::MIN), PolicySet::shipped().unwrap())];
    let mut refused = 0;
    let mut reasons = BTreeSet::new();
    for n in 0..reloads {
        for event in 0..dice.below(4) {
            now += 1 + dice.below(DAY_MS as u64 / 2) as i64;
            let customer = format!("p{}", dice.below(12));
            let signal = dice.pick(&["purchase", "purchase", "page.view", "email.delivered", "call.inbound"]);
            let currency = dice.pick(&["EUR", "USD"]);
            let text = format!(
                r#"{{"id":"e{n}-{event}","user_id":"{customer}","signal":"{signal}","timestamp":{now},"money":{{"amount":20,"currency":"{currency}"}}}}"#
            );
            let receipt = Receipt {
                workspace: Workspace::new("shop").unwrap(),
                received_at: Timestamp(now),
                sent_at: None,
                user_agent: None,
                oldest: None,
            };
            let event = read(&text, &receipt).unwrap_or_else(|invalid| panic!("{invalid}: {text}"));
            let key = event.person.key().map_or("", PersonId::as_str).to_owned();
            let record = Record::new(Body::Event(Box::new(event)));
            house.append(partition_for(&key, PARTITIONS), &record).await;
        }
        now += 1 + dice.below(DAY_MS as u64) as i64;
        if dice.percent(50) {
            house.sim.pass_to(Timestamp(now)).await.unwrap();
        }
        let mut text = policies(&mut dice, now);
        if dice.percent(30) {
            text.truncate(dice.index(text.len()));
        } else if dice.percent(20) {
            text = text.replace("threshold = 0", "threshold = 7");
        }
        match PolicySet::parse(&text) {
            Ok(set) => {
                put_in_force(&*house.log, Model::shipped_text(), &text, Timestamp(now))
                    .await
                    .unwrap();
                in_force.push((Timestamp(now), set));
            }
            Err(error) => {
                refused += 1;
                // Every fault says where; what the reader of TOML says, says it too.
                let told = |fault: &String| fault.contains("line ");
                assert!(error.faults().iter().all(told), "{error}\n{text}");
                assert!(matches!(error, PolicyError::Syntax(_) | PolicyError::Values(_)));
            }
        }
        if dice.percent(30) {
            house.sim.settle(usize::MAX).await.unwrap();
        }
        if n % 10 == 0 {
            house.sim.settle(usize::MAX).await.unwrap();
            for (_, customers) in house.rows().await.partitions.values() {
                for (_, bytes) in customers {
                    let entries = CustomerState::decode(bytes).unwrap().ledger.policies.into_values();
                    let codes = entries.filter_map(|entry| entry.refused);
                    reasons.extend(codes.filter_map(|code| {
                        let known = Refusal::ALL.iter().find(|reason| reason.code() == code);
                        known.map(|reason| reason.label())
                    }));
                }
            }
        }
    }
    house.sim.settle(usize::MAX).await.unwrap();
    house.sim.pass_to(Timestamp(now + 60 * DAY_MS)).await.unwrap();
    let (records, rows) = (house.records().await, house.rows().await);
    let report = rows.audit_all(&records);
    assert_eq!(report.verdict, Verdict::Equal, "seed {seed}\n{report}");
    let slow = recompute_look_by_look(PARTITIONS, &rows.cut(), &records);
    let report = rows.audit(Sample::all(PARTITIONS), slow);
    assert_eq!(report.verdict, Verdict::Equal, "look by look, seed {seed}\n{report}");
    for (_, body) in &rows.flags {
        let flag: Flag = serde_json::from_slice(body).unwrap();
        let raised = Timestamp::parse(&flag.raised_at).unwrap();
        let by = |earlier: bool| {
            let mut known = in_force.iter().rev();
            let (_, set) = known
                .find(|(at, _)| if earlier { *at < raised } else { *at <= raised })
                .unwrap();
            let policy = set.policies.iter().find(|policy| policy.id.as_str() == flag.policy);
            policy.map(|policy| format!("{:016x}", policy.version))
        };
        // A timer that is due at the very millisecond of a change fires before it.
        let versions = [by(false), by(true)];
        assert!(
            versions.contains(&Some(flag.policy_version.clone())),
            "seed {seed}: {flag:?}"
        );
    }
    (rows.flags.len(), refused, reasons)
}

#[test]
fn a_thousand_reloads_change_no_byte_that_the_log_does_not_explain() {
    let (mut flags, mut refused, mut reasons) = (0, 0, BTreeSet::new());
    for n in 0..5 {
        let (of_flags, of_refused, of_reasons) = run(live(seed().wrapping_add(n), 200));
        flags += of_flags;
        refused += of_refused;
        reasons.extend(of_reasons);
    }
    println!("1000 reloads, {refused} of them refused; {flags} flags; on record were {reasons:?}");
    assert!(flags >= 100 && refused >= 200, "{flags} {refused}");
    assert!(reasons.contains("source_outage"), "no outage was ever met");
}
