//! Silence itself is the event: a customer of whom nothing comes any more is flagged within two seconds of the moment
//! that the API forecast. Real time passes here, because no simulated clock can prove that somebody looks at the real one.

use crate::support::{DEADLINE, Server, now};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vigie_event::{DAY_MS, Timestamp};

const POLICIES: &str = r#"
[[policy]]
id = "silent"
owner = "tests"
goal = "Notice silence."
score = "attrition"
threshold = 0.7
rearm-below = 0.5
cooldown-days = 30
[policy.eligible]
known-only = true
"#;
/// So late may a flag be.
const LATE_MS: i64 = 2_000;
/// So far ahead is the crossing of the first customer whose silence is waited for.
const AHEAD_MS: i64 = 3_500;

/// A visitor of thirty days running, last seen at `last`.
fn visits(customer: &str, last: Timestamp) -> Vec<Value> {
    let visit = |day: i64| {
        json!({
            "id": format!("{customer}-{day}"),
            "user_id": customer,
            "signal": "page.view",
            "timestamp": last.plus_ms(-day * DAY_MS).to_string(),
        })
    };
    (0..30).map(visit).collect()
}

/// When the policy's threshold will be reached in silence, by the API.
fn crossing(server: &Server, customer: &str) -> Timestamp {
    let answer = server.get_json(&format!("/v1/customers/{customer}"));
    let crossing = &answer["crossings"][0];
    assert_eq!(crossing["policy"], "silent", "{answer}");
    let at = crossing["crosses_at"].as_str();
    Timestamp::parse(at.unwrap_or_else(|| panic!("no crossing lies ahead: {answer}"))).unwrap()
}

fn flags(server: &Server) -> Vec<Value> {
    server.get_json("/v1/relances")["relances"].as_array().unwrap().clone()
}

#[test]
fn a_silent_customer_is_flagged_within_two_seconds_of_the_forecast_moment() {
    let dir = tempfile::tempdir().unwrap();
    let policies = dir.path().join("policies.toml");
    std::fs::write(&policies, POLICIES).unwrap();
    let setting = format!("relance.policies={}", policies.display());
    let server = Server::start(&dir.path().join("data"), &["--set", &setting]);

    // How long such a visitor may be silent is the model's to say.
    let probed = now().plus_ms(-3_600_000);
    server.post(&visits("probe", probed));
    let _ = server.settled();
    let silence_ms = crossing(&server, "probe").ms_since(probed);
    assert!(silence_ms > 3_600_000, "the probe would be flagged as well");

    // The same visits, earlier: the silence of each ends shortly. Three customers, so that three partitions prove it.
    let first = now().plus_ms(AHEAD_MS);
    let mut expected = Vec::new();
    for (number, customer) in ["ann", "bea", "cleo"].into_iter().enumerate() {
        let wanted = first.plus_ms(700 * i64::try_from(number).unwrap());
        server.post(&visits(customer, wanted.plus_ms(-silence_ms)));
        expected.push((customer, wanted));
    }
    let _ = server.settled();
    for (customer, wanted) in &mut expected {
        let solved = crossing(&server, customer);
        let off_ms = solved.ms_since(*wanted);
        // First activity is kept to the second, which moves the crossing by a little.
        assert!(off_ms.abs() < 1_000, "{customer}: {solved} instead of {wanted}");
        *wanted = solved;
    }

    let start = Instant::now();
    let mut met = 0;
    while met < expected.len() {
        assert!(start.elapsed() < DEADLINE, "no flag for {:?}", expected.get(met));
        let before = now();
        let raised = flags(&server);
        let after = now();
        for flag in raised.iter().skip(met) {
            let customer = flag["customer"].as_str().unwrap();
            let found = expected.iter().find(|(name, _)| *name == customer);
            let (_, crosses_at) = found.unwrap_or_else(|| panic!("nobody waited for {flag}"));
            assert_eq!(flag["raised_at"], crosses_at.to_string(), "{flag}");
            assert_eq!(flag["policy"], "silent");
            let late_ms = after.ms_since(*crosses_at);
            assert!(late_ms >= 0, "{customer} was flagged before the crossing: {flag}");
            println!("{customer} was seen flagged {late_ms} ms after the crossing");
        }
        met = raised.len();
        for (customer, crosses_at) in &expected {
            let flagged = raised.iter().any(|flag| flag["customer"] == *customer);
            let late_ms = before.ms_since(*crosses_at);
            assert!(
                flagged || late_ms <= LATE_MS,
                "{customer} is not flagged {late_ms} ms after the crossing"
            );
        }
        // not synchronisation: the pause between two looks at a list that grows when time has passed
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = server.get_json("/v1/customers/ann");
    assert_eq!(answer["open_flags"][0]["policy"], "silent", "{answer}");
    assert_eq!(answer["crossings"][0]["reached"], true, "{answer}");
}
