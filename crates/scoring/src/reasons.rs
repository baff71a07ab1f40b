//! Sentences for people: at most three, each a concrete fact with its date, the weightiest first.
//!
//! Only facts that pull in the direction in which attrition leans are told. A sentence states what happened, never why:
//! contributions describe the model, not a cause.

use crate::assess::{Attrition, Evidence, Factor, Reason, ReasonCode};
use vigie_event::{Day, Timestamp};

/// Most sentences of one assessment.
const MAX_REASONS: usize = 3;
/// Contributions smaller than this (in log-odds) are not worth a sentence.
const MIN_LOG_ODDS: f64 = 0.05;

pub(crate) fn reasons(attrition: &Attrition, evidence: &Evidence, now: Timestamp) -> Vec<Reason> {
    let direction = if attrition.score >= 0.5 { 1.0 } else { -1.0 };
    let mut pulling: Vec<_> = attrition
        .contributions
        .iter()
        .filter(|c| c.log_odds * direction >= MIN_LOG_ODDS)
        .collect();
    // Ties keep the order of the contributions, so the sentences are the same in every replay.
    pulling.sort_by(|a, b| b.log_odds.abs().total_cmp(&a.log_odds.abs()));
    pulling
        .into_iter()
        .filter_map(|contribution| sentence(contribution.factor, evidence, now))
        .take(MAX_REASONS)
        .collect()
}

fn sentence(factor: Factor, evidence: &Evidence, now: Timestamp) -> Option<Reason> {
    let (code, text) = match factor {
        Factor::PurchaseHistory => purchase_history(evidence)?,
        Factor::PurchaseSilence => purchase_silence(evidence, now)?,
        Factor::EngagementHistory => engagement_history(evidence)?,
        Factor::EngagementSilence => engagement_silence(evidence, now)?,
        Factor::PoolOffset => return None,
    };
    Some(Reason { code, factor, text })
}

fn purchase_history(evidence: &Evidence) -> Option<(ReasonCode, String)> {
    let bought = evidence.purchases?;
    Some(if bought.x == 0 {
        (
            ReasonCode::OnePurchase,
            format!("Bought on one day only, {}.", date(bought.first)),
        )
    } else {
        let (days, first, last) = (bought.x.saturating_add(1), date(bought.first), date(bought.last));
        (
            ReasonCode::RepeatPurchases,
            format!("Bought on {days} days from {first} to {last}."),
        )
    })
}

fn purchase_silence(evidence: &Evidence, now: Timestamp) -> Option<(ReasonCode, String)> {
    let bought = evidence.purchases?;
    let last = date(bought.last);
    let text = match bought.usual_gap_days {
        Some(gap) => format!("No purchase since {last}; the usual gap is {}.", days(gap)),
        None => format!(
            "No purchase since the first one on {last}, {} ago.",
            days(elapsed(bought.last, now))
        ),
    };
    Some((ReasonCode::NoPurchaseSince, text))
}

fn engagement_history(evidence: &Evidence) -> Option<(ReasonCode, String)> {
    let (first, last) = (
        date(evidence.first_activity?.day()),
        date(evidence.last_activity?.day()),
    );
    Some(if evidence.active_days == 1 {
        (ReasonCode::OneActiveDay, format!("Seen on one day only, {last}."))
    } else {
        let days = evidence.active_days;
        (
            ReasonCode::ManyActiveDays,
            format!("Active on {days} days from {first} to {last}."),
        )
    })
}

fn engagement_silence(evidence: &Evidence, now: Timestamp) -> Option<(ReasonCode, String)> {
    let last = evidence.last_activity?.day();
    let text = match evidence.usual_activity_gap_days {
        Some(gap) => format!("No activity since {}; the usual gap is {}.", date(last), days(gap)),
        None => format!("No activity since {}, {} ago.", date(last), days(elapsed(last, now))),
    };
    Some((ReasonCode::NoActivitySince, text))
}

fn elapsed(day: Day, now: Timestamp) -> u32 {
    u32::try_from(now.day().days_since(day)).unwrap_or(0)
}

fn days(number: u32) -> String {
    if number == 1 {
        "1 day".to_owned()
    } else {
        format!("{number} days")
    }
}

/// `3 Aug 1997`, in UTC and the Gregorian calendar (Howard Hinnant's civil-from-days algorithm).
fn date(day: Day) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    // Days since 1 March of year 0, in cycles of 400 years: years then end with February's leap day.
    let shifted = i64::from(day.0) + 719_468;
    let (cycle, day_of_cycle) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_cycle + cycle * 400 + i64::from(month < 2);
    let name = usize::try_from(month)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .copied()
        .unwrap_or_default();
    format!("{day_of_month} {name} {year}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar_library() {
        assert_eq!(date(Day(10_076)), "3 Aug 1997");
        assert_eq!(date(Day(0)), "1 Jan 1970");
        let mut step = 1;
        let mut day = -800_000;
        while day < 800_000 {
            let iso = Day(day).to_string();
            let months = [
                "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
            ];
            let mut parts = iso.rsplitn(3, '-');
            let day_of_month: u32 = parts.next().unwrap().parse().unwrap();
            let month: usize = parts.next().unwrap().parse().unwrap();
            let year: i32 = parts.next().unwrap().parse().unwrap();
            assert_eq!(
                date(Day(day)),
                format!("{day_of_month} {} {year}", months[month - 1]),
                "{iso}"
            );
            step = step % 97 + 1;
            day += step;
        }
    }
}
