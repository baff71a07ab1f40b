//! Reports: counted by hand for few customers, and planted effects found again from flags and events of many.

use super::{START, act, buy, consent, key, regular};
use std::collections::BTreeMap;
use std::sync::Arc;
use vigie_event::{AccountId, Channel, ConsentState, Currency, DAY_MS, FlagId, Purpose, Signal, Timestamp};
use vigie_relance::report::losses::{self, Foresight, Known, Raised};
use vigie_relance::report::policies::{Compared, Policies, Rule, Seen, Watch, report};
use vigie_relance::report::portfolio;
use vigie_relance::{Census, Flag, FlagKind, FlagScore, LifeStage, Plan, PolicySet, Tally};
use vigie_scoring::state::Account;
use vigie_scoring::{CustomerState, Model, ScoreKind, first_crossing};

const SEEDS: u64 = 200;

fn rule() -> Arc<Rule> {
    let set = PolicySet::parse(
        "[money]\ncurrency = \"EUR\"\nmargin = 0.5\n[[policy]]\nid = \"p\"\nscore = \"attrition\"\nthreshold = 0.7\nholdout = 0.3\n\
         window-days = 30\nexpected-effect = 0.2\n[[policy.channel]]\nname = \"phone\"\ncost = 2.0\nresponse = 0.5\n",
    )
    .unwrap();
    Arc::new(Rule {
        policy: set.policies[0].clone(),
        economics: set.economics,
    })
}

fn flag(number: u64, customer: &str, held_out: bool, at: i64) -> Flag {
    Flag {
        id: FlagId(u128::from(number).to_be_bytes()).to_string(),
        workspace: "shop".into(),
        customer: customer.into(),
        policy: "p".into(),
        policy_version: "0".into(),
        kind: if held_out { FlagKind::HeldOut } else { FlagKind::Flagged },
        score: FlagScore {
            kind: "attrition".into(),
            value: 0.7,
            threshold: 0.7,
        },
        raised_at: Timestamp(at).to_string(),
        stage: "at_risk".into(),
        reasons: Vec::new(),
        model: "m".into(),
        play: "attention".into(),
        customer_benefit: "b".into(),
        segment: None,
        recalls: None,
        band: None,
        plan: Plan {
            channel: Some("phone".into()),
            at_stake_minor: Some(1_000),
            currency: Some("EUR".into()),
            ..Plan::default()
        },
    }
}

fn seen(at: i64, signal: Signal, minor: Option<i64>, flag: Option<u64>) -> Seen {
    let euro = Currency::parse("EUR").unwrap();
    Seen {
        at: Timestamp(at),
        signal,
        channel: Channel::Phone,
        human: true,
        money: minor.map(|minor| (euro, minor)),
        flag: flag.map(|number| FlagId(u128::from(number).to_be_bytes())),
    }
}

fn reported(watches: &[Watch], now: i64) -> Policies {
    report(watches, &[rule().policy.clone()], &BTreeMap::new(), 0, Timestamp(now))
}

#[test]
fn few_customers_are_counted_as_by_hand() {
    let day = |days: i64| START + days * DAY_MS;
    let watch = |number: u64, customer: &str, held_out: bool, at: i64, events: &[Seen]| {
        let mut watch = Watch::new(&flag(number, customer, held_out, at), Some(rule())).unwrap();
        events.iter().for_each(|event| watch.see(event));
        watch
    };
    let watches = [
        // Contacted twice, came back, stayed; gave a part back.
        watch(
            1,
            "ann",
            false,
            day(0),
            &[
                seen(day(1), Signal::RelanceClaimed, None, Some(1)),
                seen(day(1), Signal::RelanceContacted, None, Some(1)),
                seen(day(2), Signal::RelanceContacted, None, Some(1)),
                seen(day(2), Signal::ContactAnswered, None, Some(1)),
                seen(day(3), Signal::Purchase, Some(5_000), None),
                seen(day(14), Signal::Purchase, Some(3_000), None),
                seen(day(15), Signal::Refund, Some(1_000), None),
                seen(day(31), Signal::Purchase, Some(99_999), None),
            ],
        ),
        // A second flag of hers does not count as another customer.
        watch(
            2,
            "ann",
            false,
            day(40),
            &[seen(day(41), Signal::Purchase, Some(1), None)],
        ),
        // Nobody contacted him; he unsubscribed.
        watch(
            3,
            "bob",
            false,
            day(0),
            &[seen(day(9), Signal::EmailUnsubscribe, None, None)],
        ),
        // Left alone, and back; a purchase of before the flag does not count.
        watch(
            4,
            "cleo",
            true,
            day(5),
            &[
                seen(day(4), Signal::Purchase, Some(7_000), None),
                seen(day(8), Signal::Purchase, Some(2_000), None),
            ],
        ),
        // Its window is still open.
        watch(
            5,
            "dan",
            false,
            day(70),
            &[seen(day(71), Signal::Purchase, Some(2_000), None)],
        ),
        // The agent said that the flag was wrong.
        watch(
            6,
            "eva",
            false,
            day(0),
            &[seen(day(1), Signal::RelanceRecalled, None, Some(6))],
        ),
    ];
    let report = reported(&watches, day(80));
    let [policy] = report.policies.as_slice() else {
        panic!("one policy")
    };
    assert_eq!(
        (policy.flagged, policy.held_out, policy.open, policy.recalled),
        (5, 1, 1, 1)
    );
    assert_eq!((policy.claimed, policy.contacted, policy.answered), (1, 1, 1));
    let (treated, control) = (policy.treated, policy.control);
    assert_eq!((treated.customers, control.customers), (3, 1));
    let third = 1.0 / 3.0;
    assert_eq!(
        (treated.returned, treated.lasted, treated.annoyed),
        (third, third, third)
    );
    assert_eq!((control.returned, control.lasted, control.annoyed), (1.0, 0.0, 0.0));
    // (50 + 30 − 10) euro at a margin of a half, over three customers.
    assert!((treated.margin_minor - 3_500.0 / 3.0).abs() < 1e-9);
    assert_eq!(control.margin_minor, 1_000.0);
    // Two calls of two euro; one customer nobody called: 10 euro × response 0.5 × effect 0.2.
    assert_eq!((policy.cost_minor, policy.cost_is_planned), (400.0, false));
    assert_eq!((policy.untouched, policy.roo_minor), (1, 100.0));
    assert_eq!(policy.uplift, Compared::TooFew { needed: 200 });
    assert_eq!((policy.verdict, policy.days), ("undecided", 80));
    assert_eq!(report.money_share, Some(0.0));
    assert_eq!(report.plays["attention"].customers, [3, 1]);
    // Nobody reported a contact: one for each flag is assumed.
    let silent = [watch(7, "kim", false, day(0), &[])];
    let report = reported(&silent, day(80));
    assert_eq!(
        (report.policies[0].cost_minor, report.policies[0].cost_is_planned),
        (200.0, true)
    );
}

/// splitmix64: small, and the same for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What is planted: probabilities of a return and of annoyance, treated and held out. A return is worth 20 to 60 euro.
#[derive(Clone, Copy)]
struct Planted {
    returns: [f64; 2],
    annoyed: [f64; 2],
}

/// The report of 1,500 customers of whom a third is held out.
fn live(seed: u64, planted: Planted) -> Policies {
    let mut dice = Dice(seed);
    let rule = rule();
    let watches: Vec<Watch> = (0..1_500u64)
        .map(|number| {
            let held_out = dice.roll() < 1.0 / 3.0;
            let arm = usize::from(held_out);
            let flag = flag(number, &format!("c{number}"), held_out, START);
            let mut watch = Watch::new(&flag, Some(Arc::clone(&rule))).unwrap();
            if dice.roll() < planted.returns[arm] {
                let minor = 2_000 + (dice.roll() * 4_000.0) as i64;
                watch.see(&seen(START + 5 * DAY_MS, Signal::Purchase, Some(minor), None));
            }
            if dice.roll() < planted.annoyed[arm] {
                watch.see(&seen(START + 6 * DAY_MS, Signal::EmailUnsubscribe, None, None));
            }
            watch
        })
        .collect();
    reported(&watches, START + 31 * DAY_MS)
}

#[test]
fn planted_effects_are_found_again_and_harm_is_stopped() {
    let within = |compared: &Compared, truth: f64| {
        let estimate = compared.estimate().expect("enough customers");
        estimate.low <= truth && truth <= estimate.high
    };
    let rates = |returns: [f64; 2], annoyed: [f64; 2]| Planted { returns, annoyed };
    // Name, what is planted, and in how many of 200 worlds it must be found to work and to harm.
    let worlds = [
        ("help", rates([0.28, 0.12], [0.02, 0.02]), 190..=200, 0..=0),
        ("harm to returns", rates([0.05, 0.20], [0.02, 0.02]), 0..=0, 190..=200),
        (
            "harm by annoyance",
            rates([0.15, 0.15], [0.16, 0.02]),
            0..=10,
            190..=200,
        ),
        ("nothing", rates([0.15, 0.15], [0.02, 0.02]), 0..=10, 0..=10),
    ];
    for (name, planted, works, harms) in worlds {
        let truth = planted.returns[0] - planted.returns[1];
        let (mut covered, mut money_covered, mut found) = (0, 0, [0, 0]);
        for seed in 1..=SEEDS {
            let report = live(seed, planted);
            let policy = &report.policies[0];
            covered += u64::from(within(&policy.uplift, truth));
            // Half of 40 euro is the margin of a return.
            money_covered += u64::from(within(&policy.margin_uplift, truth * 2_000.0));
            found[0] += u64::from(policy.verdict == "works");
            found[1] += u64::from(policy.verdict == "harms");
        }
        println!(
            "{name}: the interval covers the truth in {covered} of {SEEDS}, that of the margin in {money_covered}; \
             works in {}, harms in {}",
            found[0], found[1]
        );
        // Stated are 95 %.
        assert!(
            covered >= 190 && money_covered >= 190,
            "{name}: {covered} {money_covered}"
        );
        assert!(
            works.contains(&found[0]) && harms.contains(&found[1]),
            "{name}: {found:?}"
        );
    }
}

/// A customer who has bought at these days after the start, for so many euro each time.
fn bought(id: &str, days: &[i64]) -> (vigie_event::CustomerKey, CustomerState) {
    let (id, mut state) = (key(id), CustomerState::default());
    days.iter().for_each(|day| buy(&mut state, &id, START + day * DAY_MS));
    (id, state)
}

#[test]
fn the_portfolio_adds_up_and_its_fifth_is_the_most_valuable_one() {
    let model = Model::shipped().unwrap();
    let now = Timestamp(START + 120 * DAY_MS);
    let mut builder = portfolio::Builder::new(&model, now);
    let mut all = Vec::new();
    for n in 0..25i64 {
        let days: Vec<i64> = (0..=n).map(|step| 100 - step * 4).collect();
        let (id, state) = bought(&format!("c{n}"), &days);
        builder.add(&id, &state);
        all.push(vigie_scoring::assess(&state, &model, now));
    }
    let (visitor, mut state) = (key("visitor"), CustomerState::default());
    act(&mut state, &visitor, START, Signal::PageView);
    builder.add(&visitor, &state);
    let report = builder.finish();
    assert_eq!((report.customers, report.stages["prospect"]), (26, 1));
    let [own] = report.currencies.as_slice() else {
        panic!("one currency")
    };
    let mut values: Vec<f64> = all.iter().map(|of| of.value.unwrap().current).collect();
    let lifetime: f64 = all.iter().map(|of| of.value.unwrap().lifetime).sum();
    let total: f64 = values.iter().sum();
    values.sort_by(|a, b| b.total_cmp(a));
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs().max(1.0);
    assert!(near(own.all.current, total) && near(own.all.lifetime, lifetime));
    assert!(near(own.top_fifth, values[..5].iter().sum::<f64>() / total));
    assert_eq!(own.all.customers, 25);
    let tiers: u64 = own.tiers.iter().map(|tier| tier.all.customers).sum();
    let cells: u64 = own
        .tiers
        .iter()
        .flat_map(|tier| &tier.bands)
        .map(|sums| sums.customers)
        .sum();
    let stages: u64 = own.stages.values().map(|sums| sums.customers).sum();
    assert_eq!((tiers, cells, stages), (25, 25, 25));
    // The first tier holds four fifths of the value, and without its last customer it would not.
    let first: f64 = values[..own.tiers[0].all.customers as usize].iter().sum();
    let without = first - values[own.tiers[0].all.customers as usize - 1];
    assert!(first / total >= 0.8 && without / total < 0.8);
    assert!(
        own.most_at_stake
            .windows(2)
            .all(|pair| pair[0].at_stake >= pair[1].at_stake)
    );
    assert!(
        own.curve
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1)
    );
    assert_eq!(own.curve.last(), Some(&(1.0, 1.0)));
}

#[test]
fn the_census_is_the_portfolio_in_cells_and_adds_up() {
    let model = Model::shipped().unwrap();
    let now = Timestamp(START + 400 * DAY_MS);
    let mut whole = Census::default();
    let mut parts = [Census::default(), Census::default()];
    let mut exact = portfolio::Builder::new(&model, now);
    for n in 0..400u64 {
        let name = format!("c{n}");
        // A few buy much more often than the rest; some have been silent for long.
        let step = if n % 10 == 0 { 7 } else { 60 };
        let last = 400 - (n % 7) as i64 * 40;
        let days: Vec<i64> = (0..last).step_by(step).collect();
        let (key, mut state) = bought(&name, &days);
        if n % 5 == 0 {
            let id = AccountId::new(&format!("company-{}", n % 3)).unwrap();
            state.note_account(Account { at: now, id });
        }
        whole.note(&key, &state, &model, now);
        parts[(n % 2) as usize].note(&key, &state, &model, now);
        exact.add(&key, &state);
    }
    let [mut sum, other] = parts;
    sum.merge(other);
    let (sums, wholes) = (sum.bases.values().next().unwrap(), whole.bases.values().next().unwrap());
    assert!(sums.stages().eq(wholes.stages()));
    assert_eq!(sum.accounts, whole.accounts);
    let exact = exact.finish();
    for (stage, count) in wholes.stages() {
        assert_eq!(
            count,
            exact.stages.get(stage.label()).copied().unwrap_or(0),
            "{stage:?}"
        );
    }
    let of = &exact.currencies[0];
    let (_, tiers) = wholes.currencies().next().unwrap();
    let (_, merged) = sums.currencies().next().unwrap();
    let near = |a: f64, b: f64, slack: f64| (a - b).abs() <= slack * b.abs().max(1.0);
    let all = |field: fn(&Tally) -> f64| tiers.iter().flatten().map(field).sum::<f64>();
    assert_eq!(all(|tally| tally.customers as f64), of.all.customers as f64);
    assert!(near(all(|tally| tally.current), of.all.current, 1e-9));
    assert!(near(all(|tally| tally.lifetime), of.all.lifetime, 1e-9));
    assert!(near(all(|tally| tally.at_stake), of.all.at_stake, 1e-9));
    for ((ours, theirs), merged) in tiers.iter().zip(&of.tiers).zip(&merged) {
        for ((tally, sums), merged) in ours.iter().zip(&theirs.bands).zip(merged) {
            // A border is known to a cell: those within it may count to either side.
            assert!(tally.customers.abs_diff(sums.customers) <= 40, "{tally:?} {sums:?}");
            assert_eq!(tally.customers, merged.customers);
            assert!(near(tally.current, merged.current, 1e-9));
        }
    }
    assert!(tiers[0].iter().map(|tally| tally.current).sum::<f64>() >= 0.75 * of.all.current);
    let members: usize = whole
        .accounts
        .after(&bought("x", &[1]).0.workspace, None)
        .map(|(_, who)| who.len())
        .sum();
    assert_eq!(members, 80);
}

#[test]
fn who_refuses_profiling_is_counted_and_not_looked_at() {
    let (model, now) = (Model::shipped().unwrap(), Timestamp(START + 400 * DAY_MS));
    let (key, mut state) = bought("c", &[0, 30, 60]);
    consent(&mut state, Purpose::Profiling, ConsentState::Refused, now.0);
    let mut census = Census::default();
    census.note(&key, &state, &model, now);
    let base = census.bases.values().next().unwrap();
    let counted: Vec<_> = base.stages().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [(LifeStage::DoNotContact, 1)]);
    assert_eq!(base.currencies().count(), 0);
}

#[test]
fn losses_have_their_instant_their_cause_and_who_saw_them() {
    let model = Model::shipped().unwrap();
    let last = START + 63 * DAY_MS;
    let now = Timestamp(START + 500 * DAY_MS);
    let mut builder = losses::Builder::new(&model, Timestamp(START - DAY_MS), now);
    let quiet = regular(&key("quiet"));
    let lost_at = first_crossing(
        &quiet,
        &model,
        ScoreKind::Attrition,
        model.stages.lapsed,
        Timestamp(last),
        now,
    )
    .unwrap();
    let raised = |days: i64, held_out: bool, contacted: bool| Raised {
        at: lost_at.plus_ms(days * DAY_MS),
        held_out,
        contacted,
    };
    let known = |flags: Vec<Raised>, said: &[&str]| Known {
        flags,
        said: said.iter().map(|said| (*said).to_owned()).collect(),
        ..Known::default()
    };
    builder.add(&key("quiet"), &quiet, &known(vec![raised(-12, false, true)], &[]));
    builder.add(&key("said"), &quiet, &known(vec![raised(3, false, true)], &["price"]));
    builder.add(&key("held"), &quiet, &known(vec![raised(-5, true, false)], &[]));
    let mut complained = regular(&key("complained"));
    act(
        &mut complained,
        &key("complained"),
        last - DAY_MS,
        Signal::ComplaintOpened,
    );
    let mut causes = known(Vec::new(), &[]);
    let _ = causes.complaints.insert("late parcel".to_owned());
    builder.add(&key("complained"), &complained, &causes);
    // Still a customer.
    let (id, here) = bought("here", &[400, 420, 440, 460, 480, 499]);
    builder.add(&id, &here, &Known::default());
    let report = builder.finish();
    assert_eq!(
        (report.buyers, report.lost, report.silent, report.complained),
        (5, 4, 3, 1)
    );
    let of = |name: &str| report.named.iter().find(|loss| loss.customer == name).unwrap();
    assert_eq!(of("quiet").lost_at, lost_at.to_string());
    assert_eq!(
        (of("quiet").foresight, of("quiet").lead_days),
        (Foresight::Contacted, Some(12))
    );
    assert_eq!(
        (of("said").foresight, of("said").cause.as_str()),
        (Foresight::TooLate, "said: price")
    );
    assert_eq!(of("held").foresight, Foresight::HeldOut);
    assert_eq!(of("complained").cause, "complaint without an answer");
    assert_eq!(of("complained").foresight, Foresight::Unseen);
    assert_eq!(report.complaint_causes[0].cause, "late parcel");
    assert_eq!(report.answered["never"].lost, 1);
    // The path ends where the loss is, at the level that makes it one, and only rises.
    let path = &of("quiet").path;
    let (days, score) = path.last().unwrap();
    assert!(*days == 0 && (score - model.stages.lapsed).abs() < 0.01, "{score}");
    assert!(path.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    assert!(report.value_minor["EUR"] > 0);
    assert_eq!(report.causes.iter().map(|cause| cause.customers).sum::<u64>(), 4);
    let flows: (u64, u64) = report
        .flows
        .values()
        .fold((0, 0), |sum, flow| (sum.0 + flow.arrived, sum.1 + flow.lost));
    assert_eq!(flows, (5, 4));
    assert_eq!(
        LifeStage::of(&quiet, vigie_scoring::Stage::Lapsed, now),
        LifeStage::Lapsed
    );
}
