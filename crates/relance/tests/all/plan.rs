//! How a contact is made: hours, channel, cost, and the course of a flag to its end.

use crate::{START, act, at, buy, due, ends, key, policies_with, regular};
use vigie_event::{Channel, DAY_MS, FlagId, Signal, Timestamp};
use vigie_relance::{Complaint, ComplaintPhase, Decision, Flag, FlagKind, Play, PolicySet, note};
use vigie_scoring::state::Phase;
use vigie_scoring::{CustomerState, Model};

const HOUR_MS: i64 = 3_600_000;

fn flag(decisions: &[Decision]) -> &Flag {
    match decisions {
        [Decision::Flag { flag, .. }] => flag,
        other => panic!("{other:?}"),
    }
}

fn raise(set: &PolicySet, state: &mut CustomerState, now: Timestamp) -> Flag {
    flag(&at(set, &key("u"), state, &Model::shipped().unwrap(), now)).clone()
}

fn codes(flag: &Flag) -> Vec<&str> {
    flag.plan.why.iter().map(|why| why.code.as_str()).collect()
}

/// A time beyond the silence of [`regular`].
fn late(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

#[test]
fn the_hour_is_the_customers_own_and_never_a_quiet_one() {
    // The purchases of a regular customer fall on Tuesdays at 22:13 UTC, which is 23:13 in Paris in winter: quiet.
    let calendar = "[calendar]\ntime-zone = \"Europe/Paris\"\ncountry = \"FR\"\nquiet-hours = \"20:00-09:00\"\nquiet-days = [\"sunday\"]";
    let set = policies_with("churn-30", 0.0, "", "", calendar);
    // Nothing is known but quiet hours: Saturday evening becomes Monday morning, local time.
    let plan = raise(&set, &mut regular(&key("u")), late("2024-03-09T20:30:00Z")).plan;
    assert_eq!(
        (plan.from.as_str(), plan.to.as_str()),
        ("2024-03-11T09:00:00+01:00", "2024-03-11T10:00:00+01:00")
    );
    assert_eq!(plan.time_zone, "Europe/Paris");
    // A holiday is named.
    let holiday = raise(&set, &mut regular(&key("u")), late("2024-05-01T08:00:00Z"));
    assert_eq!(holiday.plan.from, "2024-05-02T09:00:00+02:00");
    let named = holiday
        .plan
        .why
        .iter()
        .find(|why| why.code == "public_holiday")
        .unwrap();
    assert!(named.text.contains("Labour Day"), "{named:?}");
    // Somebody who reads on Thursdays at 11 in Paris is called then.
    let mut reader = regular(&key("u"));
    for week in 0..8 {
        // START was a Tuesday, 22:13:20 UTC.
        act(
            &mut reader,
            &key("u"),
            START + (7 * week + 2) * DAY_MS - 12 * HOUR_MS,
            Signal::PageView,
        );
    }
    let patient = policies_with("churn-30", 0.0, "", "within-hours = 120", calendar);
    let flag = raise(&patient, &mut reader, late("2024-03-11T08:00:00Z"));
    assert_eq!(flag.plan.from, "2024-03-14T11:00:00+01:00");
    assert!(codes(&flag).contains(&"own_best_hour"), "{flag:?}");
}

#[test]
fn summer_time_moves_the_quiet_hours_with_the_clock() {
    let set = policies_with(
        "churn-30",
        0.0,
        "",
        "within-hours = 24",
        "[calendar]\ntime-zone = \"America/New_York\"\nquiet-hours = \"20:00-08:00\"",
    );
    let first = |now: &str| raise(&set, &mut regular(&key("u")), late(now)).plan.from;
    // Clocks went forward on 10 March 2024.
    assert_eq!(first("2024-03-09T11:00:00Z"), "2024-03-09T08:00:00-05:00");
    assert_eq!(first("2024-03-10T11:00:00Z"), "2024-03-10T08:00:00-04:00");
    let half = policies_with(
        "churn-30",
        0.0,
        "",
        "",
        "[calendar]\ntime-zone = \"Asia/Kolkata\"\nquiet-hours = \"20:00-08:00\"",
    );
    let from = raise(&half, &mut regular(&key("u")), late("2024-03-10T20:00:00Z"))
        .plan
        .from;
    assert_eq!(from, "2024-03-11T08:30:00+05:30");
}

#[test]
fn the_channel_is_the_one_from_which_most_is_expected() {
    let both = "expected-effect = 0.5\nchannel = [{ name = \"email\", cost = 0.01 }, { name = \"phone\", cost = 3.0, capacity = 40 }]";
    let set = policies_with("churn-30", 0.0, "", both, "[money]\ncurrency = \"EUR\"");
    let now = late("2024-09-01T10:00:00Z");
    // 200 euro a year at 30 %: some 34 at stake. By phone 34 · 0.3 · 0.5 − 3 = 2.1; by mail 34 · 0.05 · 0.5 = 0.8.
    let plain = raise(&set, &mut regular(&key("u")), now);
    assert_eq!(
        (plain.plan.channel.as_deref(), plain.plan.daily_capacity),
        (Some("phone"), Some(40))
    );
    let stake = plain.plan.at_stake_minor.unwrap();
    // 60 euro of margin, times how far the score (at most 1) is above 0.4.
    assert!((3_000..=3_600).contains(&stake), "{stake}");
    assert_eq!(plain.plan.currency.as_deref(), Some("EUR"));
    // What is expected to be saved: never more than that may be spent.
    let most = plain.plan.max_cost_minor.unwrap();
    assert!((most - (stake as f64 * 0.15) as i64).abs() <= 1, "{most}");
    // Somebody who reads every mail is written to.
    let mut reader = regular(&key("u"));
    for week in 0..40 {
        act(&mut reader, &key("u"), START + week * DAY_MS, Signal::EmailSent);
        act(
            &mut reader,
            &key("u"),
            START + week * DAY_MS + HOUR_MS,
            Signal::EmailClick,
        );
    }
    assert_eq!(
        raise(&set, &mut reader.clone(), now).plan.channel.as_deref(),
        Some("email")
    );
    // Until they unsubscribe.
    act(&mut reader, &key("u"), START + 50 * DAY_MS, Signal::EmailUnsubscribe);
    assert_eq!(
        raise(&set, &mut reader.clone(), now).plan.channel.as_deref(),
        Some("phone")
    );
    // Nobody is worth more than replacing them.
    let cheap = policies_with(
        "churn-30",
        0.0,
        "",
        both,
        "[money]\ncurrency = \"EUR\"\nacquisition-cost = 5.0",
    );
    assert_eq!(
        raise(&cheap, &mut regular(&key("u")), now).plan.at_stake_minor,
        Some(500)
    );
    // Costs in dollars say nothing about euros: the cheapest way, and no limit.
    let foreign = policies_with("churn-30", 0.0, "", both, "[money]\ncurrency = \"USD\"");
    let foreign = raise(&foreign, &mut regular(&key("u")), now);
    assert_eq!(
        (foreign.plan.channel.as_deref(), foreign.plan.max_cost_minor),
        (Some("email"), None)
    );
}

#[test]
fn a_complaint_has_six_phases_and_two_deadlines() {
    let text = "[[policy]]\nid = \"overdue\"\nscore = \"complaint-age\"\nthreshold = 7\n\
                [[policy.channel]]\nname = \"email\"\n\
                [[policy]]\nid = \"aftercare\"\nscore = \"closure-age\"\nthreshold = 5\n";
    let set = PolicySet::parse(text).unwrap();
    let (model, id) = (Model::shipped().unwrap(), key("u"));
    let mut state = regular(&id);
    let day = |day: i64| START + day * DAY_MS;
    let now = |at: i64| Timestamp(day(at));
    let phase = |state: &CustomerState| Complaint::of(state).map(|complaint| complaint.phase);
    assert_eq!(phase(&state), None);
    assert_eq!(due(&set, &id, &state, &model, now(99)), None);
    act(&mut state, &id, day(100), Signal::ComplaintOpened);
    assert_eq!(phase(&state), Some(ComplaintPhase::Opened));
    assert!(at(&set, &id, &mut state, &model, now(100)).is_empty());
    act(&mut state, &id, day(101), Signal::ComplaintAcknowledged);
    act(&mut state, &id, day(102), Signal::ComplaintGrave);
    assert_eq!(phase(&state), Some(ComplaintPhase::Acknowledged));
    // The clock runs from the complaint, whatever was said in between.
    assert_eq!(due(&set, &id, &state, &model, now(102)), Some(now(107)));
    assert!(at(&set, &id, &mut state, &model, now(107).plus_ms(-1)).is_empty());
    let decisions = at(&set, &id, &mut state, &model, now(107));
    let overdue = flag(&decisions);
    assert_eq!(
        (overdue.policy.as_str(), overdue.play.as_str()),
        ("overdue", Play::ComplaintOverdue.label())
    );
    assert_eq!(
        (overdue.score.kind.as_str(), overdue.score.value),
        ("complaint-age", 7.0)
    );
    assert_eq!(
        overdue.plan.channel.as_deref(),
        Some("phone"),
        "a grave complaint is answered by telephone"
    );
    // The answer ends the flag; after it the other clock runs, until the customer is satisfied.
    act(&mut state, &id, day(108), Signal::ComplaintResolved);
    assert_eq!(phase(&state), Some(ComplaintPhase::Resolved));
    assert_eq!(ends(&at(&set, &id, &mut state, &model, now(108))), [Phase::Returned]);
    act(&mut state, &id, day(109), Signal::ComplaintClosed);
    assert_eq!(phase(&state), Some(ComplaintPhase::Closed));
    assert_eq!(due(&set, &id, &state, &model, now(109)), Some(now(114)));
    let decisions = at(&set, &id, &mut state, &model, now(114));
    let aftercare = flag(&decisions);
    assert_eq!(
        (aftercare.policy.as_str(), aftercare.play.as_str()),
        ("aftercare", "aftercare")
    );
    act(&mut state, &id, day(115), Signal::ComplaintResatisfied);
    assert_eq!(phase(&state), Some(ComplaintPhase::Resatisfied));
    assert_eq!(ends(&at(&set, &id, &mut state, &model, now(115))), [Phase::Returned]);
    // Taken up again: the clock starts anew.
    act(&mut state, &id, day(200), Signal::ComplaintReopened);
    assert_eq!(phase(&state), Some(ComplaintPhase::Reopened));
    assert!(at(&set, &id, &mut state, &model, now(200)).is_empty());
    assert_eq!(due(&set, &id, &state, &model, now(200)), Some(now(207)));
}

/// A customer flagged on day 100, and the flag's identity.
fn flagged(set: &PolicySet) -> (CustomerState, FlagId, Timestamp) {
    let mut state = regular(&key("u"));
    let now = Timestamp(START + 100 * DAY_MS);
    let flag = raise(set, &mut state, now);
    (state, FlagId::parse(&flag.id).unwrap(), now)
}

fn phase_of(state: &CustomerState) -> Option<Phase> {
    state.ledger.policies.values().next()?.course.map(|course| course.phase)
}

#[test]
fn a_flag_goes_its_way_and_never_back() {
    let set = policies_with("churn-30", 0.0, "", "", "");
    let (model, id) = (Model::shipped().unwrap(), key("u"));
    let (mut state, flag, raised) = flagged(&set);
    let say = |state: &mut CustomerState, signal: Signal, flag: FlagId, days: i64| {
        note(
            &mut state.ledger,
            signal,
            Channel::Phone,
            raised.plus_ms(days * DAY_MS),
            Some(flag),
        );
        phase_of(state)
    };
    assert_eq!(phase_of(&state), Some(Phase::Flagged));
    assert_eq!(
        say(&mut state, Signal::RelanceClaimed, FlagId([9; 16]), 1),
        Some(Phase::Flagged),
        "not that flag"
    );
    assert_eq!(say(&mut state, Signal::RelanceClaimed, flag, 1), Some(Phase::Claimed));
    assert_eq!(
        say(&mut state, Signal::RelanceContacted, flag, 2),
        Some(Phase::Contacted)
    );
    assert_eq!(
        say(&mut state, Signal::RelanceClaimed, flag, 3),
        Some(Phase::Contacted),
        "never back"
    );
    assert_eq!(state.ledger.contacts.len(), 1);
    // A purchase within the window is the return; heard of once.
    buy(&mut state, &id, raised.plus_ms(20 * DAY_MS).0);
    assert_eq!(
        ends(&at(&set, &id, &mut state, &model, raised.plus_ms(20 * DAY_MS))),
        [Phase::Returned]
    );
    assert!(ends(&at(&set, &id, &mut state, &model, raised.plus_ms(21 * DAY_MS))).is_empty());
    assert_eq!(
        say(&mut state, Signal::RelanceRecalled, flag, 30),
        Some(Phase::Recalled),
        "an agent's word (R92)"
    );
}

#[test]
fn lost_at_the_windows_end_and_returned_after_all_when_it_is_heard_of_late() {
    let set = policies_with("churn-30", 0.0, "", "window-days = 30", "");
    let (model, id) = (Model::shipped().unwrap(), key("u"));
    let (mut state, _, raised) = flagged(&set);
    let end = raised.plus_ms(30 * DAY_MS);
    assert_eq!(due(&set, &id, &state, &model, raised), Some(end));
    assert_eq!(ends(&at(&set, &id, &mut state, &model, end)), [Phase::Lost]);
    let mut late = state.clone();
    buy(&mut late, &id, end.0 - 1);
    assert_eq!(
        ends(&at(&set, &id, &mut late, &model, end.plus_ms(1))),
        [Phase::Returned]
    );
    buy(&mut state, &id, end.0 + 1);
    assert!(
        ends(&at(&set, &id, &mut state, &model, end.plus_ms(1))).is_empty(),
        "too late to count"
    );
}

#[test]
fn a_late_purchase_takes_a_wrong_flag_back_and_arms_at_once() {
    let set = policies_with("churn-30", 0.0, "", "", "");
    let (model, id) = (Model::shipped().unwrap(), key("u"));
    let (mut state, flag, raised) = flagged(&set);
    let bought = Timestamp(raised.0 - 2 * DAY_MS);
    buy(&mut state, &id, bought.0);
    let copy = state.clone();
    let scorer = vigie_scoring::Scorer::of(&copy, &model);
    let decisions = vigie_relance::evaluate(
        &set,
        &mut vigie_relance::Look {
            key: &id,
            state: &mut state,
            scorer: &scorer,
            model: &model,
            now: raised.plus_ms(DAY_MS),
            purchase: Some(bought),
        },
    );
    let [
        Decision::Ended {
            phase,
            notice: Some((notice_id, notice)),
            ..
        },
    ] = decisions.as_slice()
    else {
        panic!("{decisions:?}")
    };
    assert_eq!((*phase, notice.kind), (Phase::Recalled, FlagKind::Recalled));
    assert_eq!(notice.recalls, Some(flag.to_string()));
    assert_ne!(*notice_id, flag);
    // Armed and cooled: the next crossing is flagged.
    let next = due(&set, &id, &state, &model, raised.plus_ms(DAY_MS)).unwrap();
    assert!(next < raised.plus_ms(40 * DAY_MS), "{next}");
    assert_eq!(at(&set, &id, &mut state, &model, next).len(), 1);
}
