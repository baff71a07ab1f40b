//! Courses of flags: what claims, contacts and outcomes make of real flags, late purchases that take them back, windows that
//! close, and records of an earlier version. The random workloads cannot name a flag that does not exist yet; this test reads
//! the flags that were raised and goes on from them.

use crate::dice::{Dice, seed};
use crate::support::{House, recompute_look_by_look, run};
use crate::workload::BASE;
use vigie_audit::{Sample, Verdict};
use vigie_event::json::{Receipt, read};
use vigie_event::{Body, Control, DAY_MS, PersonId, Record, Timestamp, Workspace, partition_for};
use vigie_relance::Flag;
use vigie_scoring::Model;

const PARTITIONS: u16 = 2;

const POLICIES: &str = r#"
[pressure]
gap-days = 2
[[policy]]
id = "keep"
score = "attrition"
threshold = 0.5
rearm-below = 0.3
cooldown-days = 5
holdout = 0.2
window-days = 25
[[policy]]
id = "buy-again"
score = "churn-30"
threshold = 0.7
cooldown-days = 1
target = "activity"
[[policy]]
id = "answer"
score = "complaint-age"
threshold = 3
"#;

/// One life of a small base of customers; the number of flags, of recalls among them, and of ends that customers show.
async fn live(seed: u64) -> (usize, usize, usize) {
    let mut dice = Dice(seed);
    let mut house = House::open(PARTITIONS, Timestamp(BASE)).await;
    let mut now = BASE;
    for partition in 0..PARTITIONS {
        let control = Control::Activate {
            at: Timestamp(now),
            model: Model::shipped_text().into(),
            policies: POLICIES.into(),
        };
        house
            .append(vigie_event::Partition(partition), &Record::new(Body::Control(control)))
            .await;
    }
    let mut known: Vec<Flag> = Vec::new();
    for n in 0..150u32 {
        now += dice.below(6 * DAY_MS as u64) as i64;
        let customer = format!("p{}", dice.below(4));
        let named = (!known.is_empty()).then(|| known[dice.index(known.len())].clone());
        let (customer, signal, flag, at) = match (dice.below(10), named) {
            (0..=2, Some(flag)) => {
                let signal = dice.pick(&[
                    "relance.claimed",
                    "relance.contacted",
                    "relance.returned",
                    "relance.lost",
                    "relance.recalled",
                    "contact.sent",
                ]);
                (flag.customer.clone(), signal, flag.id, now)
            }
            // A till that reports late, by days.
            (3..=5, _) => (
                customer,
                "purchase",
                String::new(),
                now - dice.below(20 * DAY_MS as u64) as i64,
            ),
            (6, _) => (customer, "complaint.opened", String::new(), now),
            (7, _) => (customer, "complaint.resolved", String::new(), now),
            _ => (customer, "purchase", String::new(), now),
        };
        let text = format!(
            r#"{{"id":"e{n}","user_id":"{customer}","signal":"{signal}","flag_id":"{flag}","timestamp":{at},"money":{{"amount":20,"currency":"EUR"}}}}"#
        );
        let text = if flag.is_empty() {
            text.replace(r#""flag_id":"","#, "")
        } else {
            text
        };
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
        if dice.percent(60) {
            house.sim.settle(usize::MAX).await.unwrap();
            let rows = house.rows().await;
            known = rows
                .flags
                .iter()
                .map(|(_, body)| serde_json::from_slice(body).unwrap())
                .collect();
        }
    }
    house.sim.pass_to(Timestamp(now + 90 * DAY_MS)).await.unwrap();
    let (records, rows) = (house.records().await, house.rows().await);
    let report = rows.audit_all(&records);
    assert_eq!(report.verdict, Verdict::Equal, "seed {seed}\n{report}");
    let slow = recompute_look_by_look(PARTITIONS, &rows.cut(), &records);
    let report = rows.audit(Sample::all(PARTITIONS), slow);
    assert_eq!(report.verdict, Verdict::Equal, "look by look, seed {seed}\n{report}");
    let flags: Vec<Flag> = rows
        .flags
        .iter()
        .map(|(_, body)| serde_json::from_slice(body).unwrap())
        .collect();
    let recalled = flags.iter().filter(|flag| flag.recalls.is_some()).count();
    let customers = rows.partitions.values().flat_map(|(_, customers)| customers);
    let ended = customers
        .map(|(_, bytes)| vigie_scoring::CustomerState::decode(bytes).unwrap())
        .flat_map(|state| state.ledger.policies.into_values())
        .filter(|entry| entry.course.is_some_and(|course| !course.phase.is_open()))
        .count();
    (flags.len(), recalled, ended)
}

#[test]
fn what_became_of_flags_is_what_the_oracle_says() {
    let (mut flags, mut recalled, mut ended) = (0, 0, 0);
    for n in 0..12 {
        let (of_flags, of_recalled, of_ended) = run(live(seed().wrapping_add(n)));
        flags += of_flags;
        recalled += of_recalled;
        ended += of_ended;
    }
    println!("{flags} flags, {recalled} of them recalls, {ended} ends");
    assert!(
        flags > 100 && ended > 20 && recalled > 0,
        "{flags} {recalled} {ended}: the test shows too little"
    );
}
