//! Value, current and at stake, against sums by hand.

use crate::scores::{act, customer};
use proptest::prelude::*;
use vigie_event::{Currency, Money, Signal, Timestamp};
use vigie_scoring::{CustomerState, Model, Value, assess};

const DAY: i64 = 86_400_000;

fn paid(day: i64, minor: i64, currency: &str, signal: Signal) -> vigie_scoring::Observation {
    let mut act = act("1997-01-01T10:00:00Z", signal);
    act.at = act.at.plus_ms(day * DAY);
    act.money = Some(Money {
        minor,
        currency: Currency::parse(currency).unwrap(),
    });
    act
}

fn with(section: &str) -> Model {
    Model::parse(&format!("{}\n{section}", Model::shipped_text())).unwrap()
}

fn value(state: &CustomerState, model: &Model, day: i64) -> Value {
    let now = Timestamp::parse("1997-01-01T23:00:00Z").unwrap().plus_ms(day * DAY);
    assess(state, model, now).value.unwrap()
}

fn close(what: &str, got: f64, wanted: f64) {
    assert!(
        (got - wanted).abs() <= 1e-9 * (1.0 + wanted.abs()),
        "{what}: {got} != {wanted}"
    );
}

#[test]
fn the_parts_are_those_of_the_definitions() {
    let state = customer(&[
        paid(0, 4_000, "EUR", Signal::Purchase),
        paid(30, 2_000, "EUR", Signal::Purchase),
        paid(60, 3_000, "EUR", Signal::Purchase),
        paid(61, 9_000, "USD", Signal::Refund),
        paid(62, 500, "EUR", Signal::Refund),
    ]);
    let plain = value(&state, &Model::shipped().unwrap(), 90);
    assert_eq!(plain.currency.as_str(), "EUR");
    close("historical", plain.historical, 85.0);
    close("own mean", plain.spend, 30.0);
    close("no costs", plain.current, plain.purchases * 30.0);
    let model = with(
        "[value]\ncurrency = \"EUR\"\nspend = { p = 6.0, q = 4.0, v = 15.0 }\ndiscount-rate = 0.25\nyears = 3\nacquisition = 7.0\n\
         [value.costs]\ngoods = { share = 0.5 }\nlogistics = { per-purchase = 2.0 }\nadvertising = { per-year = 1.5 }\n",
    );
    let v = value(&state, &model, 90);
    // p·(v + x·mean) / (p·x + q − 1) with x = 2 and a mean of 25.
    close("spend", v.spend, 6.0 * (15.0 + 2.0 * 25.0) / (12.0 + 3.0));
    close("margin", v.margin, v.spend * 0.5 - 2.0);
    let now = Timestamp::parse("1997-01-01T23:00:00Z").unwrap().plus_ms(90 * DAY);
    let assessment = assess(&state, &model, now);
    let alive = assessment.p_alive.unwrap().mbg_nbd;
    close("current", v.current, v.purchases * v.margin - alive * 1.5);
    close("potential", v.potential, v.current / alive);
    close("at stake", v.at_stake, v.potential - v.current);
    let churn = assessment
        .churn
        .iter()
        .find(|churn| churn.horizon_days == 365)
        .unwrap()
        .outcome
        .unwrap();
    close("retention", v.retention, 1.0 - churn.score);
    let kept = v.retention / 1.25;
    close("lifetime", v.lifetime, v.current * (1.0 + kept + kept * kept) - 7.0);
    // Fitted in another currency: the customer's own mean.
    close(
        "own mean again",
        value(
            &state,
            &with("[value]\ncurrency = \"USD\"\nspend = { p = 6.0, q = 4.0, v = 15.0 }\n"),
            90,
        )
        .spend,
        30.0,
    );
}

#[test]
fn without_money_there_is_no_value() {
    let now = Timestamp::parse("1997-03-01T00:00:00Z").unwrap();
    let model = Model::shipped().unwrap();
    let mut free = act("1997-01-01T10:00:00Z", Signal::Purchase);
    free.money = None;
    for list in [vec![act("1997-01-01T10:00:00Z", Signal::PageView)], vec![free]] {
        assert_eq!(assess(&customer(&list), &model, now).value, None);
    }
}

proptest! {
    /// Current value falls under silence, and never is anything no number.
    #[test]
    fn silence_costs(gaps in prop::collection::vec(1i64..200, 0..12), minor in 0i64..10_000_000_000_000, silences in prop::collection::vec(0i64..300, 2..6)) {
        let mut day = 0;
        let mut list = vec![paid(0, minor, "EUR", Signal::Purchase)];
        for gap in gaps {
            day += gap;
            list.push(paid(day, minor, "EUR", Signal::Purchase));
        }
        let state = customer(&list);
        let model = Model::shipped().unwrap();
        let mut before = f64::INFINITY;
        for silence in silences {
            day += silence;
            let v = value(&state, &model, day);
            for number in [v.historical, v.purchases, v.spend, v.margin, v.current, v.potential, v.at_stake, v.retention, v.lifetime] {
                prop_assert!(number.is_finite() && number >= 0.0, "{v:?}");
            }
            prop_assert!(v.current <= before * (1.0 + 1e-9));
            before = v.current;
        }
    }
}
