//! A fitted churn model through the front door: the record, the assessment, the crossings and the refresh.

use crate::scores::{act, customer};
use vigie_event::{Signal, Timestamp};
use vigie_scoring::btyd::sigmoid;
use vigie_scoring::churn::Feature;
use vigie_scoring::{CustomerState, Lang, Model, ScoreKind, Scorer, assess, assess_in, score_at};

const DAY: i64 = 86_400_000;

/// The shipped model with a churn section: every weight set, and a season that comes and goes.
pub(crate) fn fitted() -> Model {
    let weekly: Vec<String> = (0..105)
        .map(|week| {
            format!(
                "{:.3}",
                0.4 * libm::sin(f64::from(week) * 2.0 * std::f64::consts::PI / 52.18)
            )
        })
        .collect();
    let mut text = format!(
        "{}\n[churn-model]\ncadence-mean = 3.0\ncadence-variance = 0.8\nlevel-from = \"1997-06-01\"\nlevel-weekly = [{}]\n\
         [churn-model.weights]\n",
        Model::shipped_text(),
        weekly.join(", ")
    );
    for (feature, weight) in Feature::ALL.iter().zip([-0.4, -0.1, 0.4, 0.1, 0.1, -0.15, 0.2, 0.1]) {
        text += &format!(
            "{} = {{ weight = {weight}, mean = 1.0, scale = 0.8 }}\n",
            feature.label()
        );
    }
    Model::parse(&text).unwrap()
}

fn state() -> CustomerState {
    let mut list = Vec::new();
    for (day, signal) in [
        ("1997-06-08T10:00:00Z", Signal::Purchase),
        ("1997-07-06T11:00:00Z", Signal::Purchase),
        ("1997-07-20T11:00:00Z", Signal::PageView),
        ("1997-07-25T11:00:00Z", Signal::EmailClick),
        ("1997-08-03T12:00:00Z", Signal::Purchase),
    ] {
        list.push(act(day, signal));
    }
    customer(&list)
}

#[test]
fn churn_is_the_sum_of_its_contributions_and_attrition_is_untouched() {
    let (state, model) = (state(), fitted());
    let now = Timestamp::parse("1997-10-01T12:00:00Z").unwrap();
    let (with, without) = (
        assess(&state, &model, now),
        assess(&state, &Model::shipped().unwrap(), now),
    );
    assert_eq!(with.attrition.as_ref().unwrap().score, without.attrition.unwrap().score);
    let scorer = Scorer::of(&state, &model);
    for (churn, plain) in with.churn.iter().zip(&without.churn) {
        let (days, churn, plain) = (churn.horizon_days, churn.outcome.unwrap(), plain.outcome.unwrap());
        // What people are shown, and the model's own terms, are the same sum.
        let terms = scorer.churn_contributions(days, now).unwrap();
        assert!((churn.terms.logit() + terms.log_odds()).abs() < 1e-12, "{churn:?}");
        for (churn, factors) in [(churn, 8), (plain, 2)] {
            let sum: f64 = churn.contributions().iter().map(|term| term.log_odds).sum();
            assert!((sigmoid(sum) - churn.score).abs() < 1e-12, "{sum} {churn:?}");
            assert!((churn.already_gone + churn.still_customer - churn.score).abs() < 1e-15);
            assert_eq!(churn.contributions().len(), factors, "{churn:?}");
            let (low, high) = churn.interval;
            assert!(
                0.0 <= low && low < churn.score && churn.score < high && high <= 1.0,
                "{churn:?}"
            );
        }
    }
}

/// Each factor with the sentence that it may be told by, in both languages.
#[test]
fn every_reason_is_a_fact_with_a_date() {
    let (state, model) = (state(), fitted());
    let mut told = std::collections::BTreeSet::new();
    for days in [0, 20, 60, 120, 240, 420] {
        let now = Timestamp::parse("1997-08-03T12:00:00Z").unwrap().plus_ms(days * DAY);
        for lang in Lang::ALL {
            let assessment = assess_in(&state, &model, now, lang);
            assert_eq!(
                assessment.attrition,
                assess(&state, &model, now).attrition,
                "the language changes no number"
            );
            assert!(assessment.churn_reasons.len() <= 3);
            for reason in assessment.churn_reasons.iter().chain(&assessment.reasons) {
                let year = |year| reason.text.contains(year);
                assert!(year("1997") || year("1998"), "{reason:?}");
                let _ = told.insert((lang, reason.code.label(), reason.text.clone()));
            }
        }
    }
    let says = |lang, text: &str| {
        assert!(
            told.iter().any(|(of, _, said)| *of == lang && said == text),
            "{text}: {told:#?}"
        );
    };
    says(Lang::En, "No purchase since 3 Aug 1997; the usual gap is 28 days.");
    says(
        Lang::Fr,
        "Aucun achat depuis le 3 août 1997 ; l'intervalle habituel est de 28 jours.",
    );
    assert!(told.len() >= 12, "{told:#?}");
}

#[test]
fn a_crossing_is_the_first_day_of_a_scan() {
    let (state, model) = (state(), fitted());
    let from = Timestamp::parse("1997-08-20T09:30:00Z").unwrap();
    let until = from.plus_ms(900 * DAY);
    let score = |at| score_at(&state, &model, ScoreKind::Churn(90), at).unwrap();
    let midnights: Vec<Timestamp> = (1..=900)
        .map(|day| from.day().start().plus_ms(day * DAY))
        .take_while(|at| *at <= until)
        .collect();
    let scorer = Scorer::of(&state, &model);
    for threshold in [0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0] {
        let scan = std::iter::once(from)
            .chain(midnights.iter().copied())
            .find(|at| score(*at) >= threshold);
        assert_eq!(
            scorer.first_crossing(ScoreKind::Churn(90), threshold, from, until),
            scan,
            "{threshold}"
        );
    }
}

/// From refresh to refresh the score that was published is never further off than the drift, up or down.
#[test]
fn a_published_score_never_drifts_further_than_the_model_says() {
    let (state, model) = (state(), fitted());
    let scorer = Scorer::of(&state, &model);
    let score = |at| scorer.score(ScoreKind::Churn(90), at).unwrap();
    let (mut at, mut refreshes, mut fell) = (Timestamp::parse("1997-08-20T09:30:00Z").unwrap(), 0, false);
    let end = at.plus_ms(800 * DAY);
    while let Some(next) = scorer.next_refresh(at, end) {
        assert!(next > at);
        for day in 1.. {
            let midnight = at.day().start().plus_ms(day * DAY);
            if midnight >= next {
                break;
            }
            assert!((score(midnight) - score(at)).abs() < model.refresh_drift);
        }
        fell |= score(next) < score(at);
        at = next;
        refreshes += 1;
    }
    assert!(refreshes > 10 && fell, "{refreshes} refreshes, fell: {fell}");
}

#[test]
fn a_wrong_churn_section_is_refused_with_every_reason() {
    let text = format!(
        "{}\n[churn-model]\ncadence-mean = 3.0\ncadence-variance = 0.0\nlevel-from = \"soon\"\nlevel-weekly = [99.0]\n\
         [churn-model.weights]\nmoon = {{ weight = 1.0, mean = 0.0, scale = 1.0 }}\nsite = {{ weight = 1.0, mean = 0.0, scale = 0.0 }}\n",
        Model::shipped_text()
    );
    let error = Model::parse(&text).unwrap_err().to_string();
    for part in [
        "cadence-variance",
        "level-from",
        "level-weekly",
        "moon is no feature",
        "weights.site.scale",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
