//! Holding predictions against what came: a past day's knowledge is exactly what the record held of the days before it, labels
//! are those of the days after, and learning follows what clearly holds and nothing else.

use crate::generate::{START, observations};
use crate::scores::customer;
use proptest::prelude::*;
use std::sync::Arc;
use vigie_event::{Channel, Currency, CustomerKey, DAY_MS, Day, Money, PersonId, Signal, Timestamp, Workspace};
use vigie_scoring::watch::{Closed, Watch};
use vigie_scoring::{CustomerState, Features, Model, Observation};

const TODAY: Day = Day(20_000);

fn bought(day: i32) -> Observation {
    Observation {
        at: Day(day).start().plus_ms(DAY_MS / 2),
        signal: Signal::Purchase,
        channel: Channel::Web,
        money: Some(Money {
            minor: 1_500,
            currency: Currency::parse("EUR").unwrap(),
        }),
        human: true,
    }
}

fn key(number: usize) -> CustomerKey {
    let person = PersonId::known(&format!("c{number}")).unwrap();
    CustomerKey::new(Workspace::new("shop").unwrap(), person)
}

proptest! {
    /// Scores of a past day from the whole record are those from a record that ends there.
    #[test]
    fn a_past_day_is_seen_as_it_was(mut acts in observations(40), after in 0i64..400) {
        // Within the year that a record keeps whole.
        for act in &mut acts {
            act.at = Timestamp(START + (act.at.0 - START).rem_euclid(380 * DAY_MS));
        }
        let then = Timestamp(START + after * DAY_MS).day();
        let whole = customer(&acts);
        let until: Vec<Observation> = acts.iter().filter(|act| act.at.day() < then).cloned().collect();
        let known = Features::of(&customer(&until)).pace;
        let closed = Closed::of(&whole.combined(), then, 90);
        let active = known.filter(|pace| then.days_since(pace.last) <= 180);
        prop_assert_eq!(closed.is_some(), active.is_some());
        if let (Some(closed), Some(mut pace)) = (closed, active) {
            // The currency that counts is that of all purchases.
            (pace.last_spend, pace.total_spend) = (closed.pace.last_spend, closed.pace.total_spend);
            prop_assert_eq!(closed.pace, pace);
            let days = whole.combined();
            let came = days.purchases().days().any(|(day, _)| day >= then && day.0 < then.0 + 90);
            prop_assert_eq!(closed.bought, came);
        }
    }
}

/// Customers who buy every so often for two years; `silent` of a hundred stop for good 150 days ago.
fn base(customers: usize, gap: i32, silent: usize) -> Vec<(CustomerKey, CustomerState)> {
    (0..customers)
        .map(|number| {
            let gap = gap + i32::try_from(number % 7).unwrap();
            let last = if number % 100 < silent { TODAY.0 - 150 } else { TODAY.0 };
            let first = TODAY.0 - 700 + i32::try_from(number % 50).unwrap();
            let days: Vec<Observation> = (first..last)
                .step_by(usize::try_from(gap).unwrap())
                .map(bought)
                .collect();
            (key(number), customer(&days))
        })
        .collect()
}

fn pass(model: &Model, base: &[(CustomerKey, CustomerState)]) -> Watch {
    let mut watch = Watch::new(Arc::new(model.clone()), TODAY);
    base.iter().for_each(|(key, state)| watch.note(key, state));
    watch
}

#[test]
fn a_base_that_buys_more_than_the_model_thinks_is_seen_and_learned_and_a_quiet_one_is_not() {
    let shipped = Model::shipped().unwrap();
    let mut faithful = base(1_500, 20, 0);
    let watch = pass(&shipped, &faithful);
    let live = watch.live().clone();
    let observed: u64 = live.bins().iter().map(|bin| bin.churned).sum();
    assert_eq!((live.count(), observed, watch.candidate().count()), (1_500, 0, 0));
    assert!(live.drift() < -4.0, "{}", live.drift());
    let learned = watch.learned().unwrap();
    println!(
        "{} labels, log loss lower by {:.4}, {:?}",
        learned.labels, learned.gain, learned.churn.level.weekly
    );
    assert!(learned.gain > 0.0 && learned.labels == 1_500);
    // The order of the customers changes nothing.
    faithful.reverse();
    assert_eq!(pass(&shipped, &faithful).learned(), Some(learned.clone()));
    // Too few to say anything.
    assert_eq!(pass(&shipped, &faithful[..300]).learned(), None);
    // Under the learned model the same base is closer to what came.
    let better = Model {
        churn: Some(learned.churn),
        ..shipped.clone()
    };
    let again = pass(&better, &faithful);
    assert!(again.live().drift() > live.drift() && again.live().error() < live.error());
}

#[test]
fn a_model_is_not_judged_at_times_that_its_fit_has_seen() {
    let shipped = Model::shipped().unwrap();
    let base = base(800, 30, 20);
    let fitted = |day: i32| Model {
        fitted_until: Some(Day(day)),
        ..shipped.clone()
    };
    let judged = |model: &Model| pass(model, &base).live().count();
    assert_eq!(judged(&fitted(TODAY.0 - 90)), judged(&shipped));
    assert_eq!(judged(&fitted(TODAY.0 - 89)), 0);
    assert!(judged(&shipped) > 700);
    assert_eq!(pass(&fitted(TODAY.0), &base).learned(), None);
    // A candidate is judged by the same customers, for itself.
    let beside = |candidate: Model| Model {
        candidate: Some(Arc::new(candidate)),
        ..fitted(TODAY.0)
    };
    let watch = pass(&beside(shipped.clone()), &base);
    assert_eq!((watch.live().count(), watch.candidate().count()), (0, judged(&shipped)));
    assert_eq!(pass(&beside(fitted(TODAY.0)), &base).candidate().count(), 0);
}
