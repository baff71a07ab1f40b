//! Predicates: what each means by the rules of SQL, worked out by hand, and that what is refused says where and what instead.

use proptest::prelude::*;
use vigie_event::{Day, Timestamp};
use vigie_relance::{COLUMNS, Predicate, Row};

fn ada() -> Row {
    Row {
        workspace: "shop".to_owned(),
        customer: "ada".to_owned(),
        purchases: 7,
        revenue_minor: Some(25_000),
        currency: Some("EUR".to_owned()),
        first_activity: Some(Timestamp::parse("2025-03-01T09:30:00Z").unwrap()),
        last_activity: Some(Timestamp::parse("2026-04-30T22:00:00Z").unwrap()),
        last_purchase_day: Some(Timestamp::parse("2026-04-12").unwrap().day()),
        active_days: 30,
    }
}

/// Has never bought.
fn bob() -> Row {
    Row {
        workspace: "shop".to_owned(),
        customer: "anonymous:dev-1".to_owned(),
        active_days: 1,
        ..Row::default()
    }
}

#[test]
fn predicates_mean_what_they_mean_in_sql() {
    // (predicate, of Ada, of Bob, whose money and days are NULL)
    let table = [
        ("purchases > 6", true, false),
        ("PURCHASES >= 7 AND Active_Days <> 31", true, false),
        ("customers.purchases = 7", true, false),
        ("revenue_minor / purchases > 3571", false, false),
        ("revenue_minor / purchases >= 3571", true, false),
        ("revenue_minor / 1000.0 = 25.0", true, false),
        ("revenue_minor % 7 = 3", true, false),
        ("revenue_minor / (purchases - 7) > 0", false, false),
        ("-purchases < 0", true, false),
        ("purchases - -1 = 8", true, false),
        ("revenue_minor IS NULL", false, true),
        ("revenue_minor IS NOT NULL", true, false),
        // NULL is neither more nor not more.
        ("revenue_minor > 10000", true, false),
        ("NOT revenue_minor > 10000", false, false),
        ("revenue_minor > 10000 OR active_days = 1", true, true),
        ("revenue_minor > 10000 OR active_days = 2", true, false),
        ("NOT (revenue_minor > 10000 AND active_days = 30)", false, true),
        ("(revenue_minor > 10000) IS UNKNOWN", false, true),
        ("(revenue_minor > 10000) IS NOT TRUE", false, true),
        ("(revenue_minor > 10000) IS NOT FALSE", true, true),
        ("purchases BETWEEN 5 AND 7", true, false),
        ("purchases NOT BETWEEN 5 AND 7", false, true),
        ("revenue_minor NOT BETWEEN 5 AND 7", true, false),
        ("currency IN ('USD', 'EUR')", true, false),
        ("currency NOT IN ('USD', 'GBP')", true, false),
        ("currency NOT IN ('USD', NULL)", false, false),
        ("currency IN ('EUR', NULL)", true, false),
        ("customer LIKE 'a%'", true, true),
        ("customer LIKE 'anonymous:%'", false, true),
        ("customer NOT LIKE '_da'", false, true),
        ("customer ILIKE 'ADA'", true, false),
        ("customer LIKE '%o%y%-_'", false, true),
        ("customer LIKE 'a!_a' ESCAPE '!'", false, false),
        ("last_activity > '2026-04-30T21:59:59Z'", true, false),
        ("last_activity < TIMESTAMP '2026-05-01T00:00:00Z'", true, false),
        ("'2026-01-01' < last_purchase_day", true, false),
        ("last_purchase_day = DATE '2026-04-12'", true, false),
        ("last_purchase_day < last_activity", true, false),
        ("first_activity IS NULL OR last_activity > first_activity", true, true),
        ("TRUE", true, true),
        ("NULL", false, false),
        ("NOT NULL", false, false),
        ("1 = 1.0", true, true),
        ("'O''Hara' = 'O''Hara'", true, true),
    ];
    for (text, of_ada, of_bob) in table {
        let predicate = Predicate::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            (predicate.holds(&ada()), predicate.holds(&bob())),
            (of_ada, of_bob),
            "{text}"
        );
    }
}

#[test]
fn what_is_refused_says_where_and_what_instead() {
    for (text, line, column, part) in [
        ("purchase > 2", 1, 1, "did you mean \"purchases\"?"),
        (
            "purchases > 2\n  AND curency = 'EUR'",
            2,
            7,
            "did you mean \"currency\"?",
        ),
        ("purchases > 2 AND attrition > 0.5", 1, 19, "changes with time alone"),
        ("purchases > 'two'", 1, 13, "cannot be compared"),
        ("purchases", 1, 1, "not a truth value"),
        ("currency + 1 = 2", 1, 1, "not a number"),
        ("last_activity > 'yesterday'", 1, 17, "is no time"),
        ("purchases >", 1, 12, "Expected"),
        ("purchases > 2 purchases", 1, 15, "ends before"),
        ("purchases > (SELECT 1)", 1, 14, "not in the subset"),
        ("lower(currency) = 'eur'", 1, 1, "not in the subset"),
        ("orders.purchases > 1", 1, 1, "only columns of customers"),
        ("currency = \"EUR\"", 1, 12, "no column \"EUR\""),
    ] {
        let error = Predicate::parse(text).expect_err(text);
        assert!(error.message.contains(part), "{text}: {error}");
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
    }
    assert!(Predicate::parse(&"(".repeat(3000)).is_err());
    assert!(Predicate::parse(&format!("{} purchases = 1", "NOT ".repeat(1000))).is_err());
    assert!(Predicate::parse(&"a".repeat(5000)).is_err());
    let long = ["purchases = 1"; 200].join(" OR ");
    assert!(Predicate::parse(&long).unwrap().holds(&Row {
        purchases: 1,
        ..Row::default()
    }));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z_ ()'0-9<>=!%+*/,.-]{0,60}") {
        if let Ok(predicate) = Predicate::parse(&text) {
            let _ = predicate.holds(&ada());
            let _ = predicate.holds(&bob());
        }
    }

    #[test]
    fn words_of_the_language_in_any_order_never_make_it_panic(words in prop::collection::vec(
        prop::sample::select([COLUMNS, &["AND", "OR", "NOT", "IN", "(", ")", "1", "'x'", "NULL", "IS", "<", "=", "LIKE", "BETWEEN", "-", "/", "0"]].concat()),
        0..16,
    )) {
        if let Ok(predicate) = Predicate::parse(&words.join(" ")) {
            let _ = predicate.holds(&ada());
            let _ = predicate.holds(&bob());
        }
    }

    #[test]
    fn between_is_two_comparisons_and_not_is_its_opposite_unless_unknown(
        purchases in 0u32..9, low in 0u32..9, high in 0u32..9, revenue in prop::option::of(-5i64..5), day in 20_000i32..20_010,
    ) {
        let row = Row { purchases, revenue_minor: revenue, last_purchase_day: Some(Day(day)), ..Row::default() };
        let holds = |text: String| Predicate::parse(&text).unwrap().holds(&row);
        prop_assert_eq!(holds(format!("purchases BETWEEN {low} AND {high}")), low <= purchases && purchases <= high);
        prop_assert_eq!(holds("revenue_minor < 2".to_owned()), revenue.is_some_and(|revenue| revenue < 2));
        prop_assert_eq!(holds("NOT revenue_minor < 2".to_owned()), revenue.is_some_and(|revenue| revenue >= 2));
        prop_assert_eq!(holds("last_purchase_day >= DATE '2024-10-08'".to_owned()), day >= 20_004);
    }
}
