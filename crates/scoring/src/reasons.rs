//! Sentences for people: at most three, each a concrete fact with its date, the weightiest first, in English or French.
//!
//! A sentence points to the events that it rests on, by their ids. Only facts that pull in the direction in which a score
//! leans are told. A sentence states what happened, never why: contributions describe the model, not a cause.

use crate::assess::{Contribution, Evidence, Factor, PurchaseEvidence, Reason, ReasonCode};
use crate::complaint::ComplaintPhase;
use crate::state::{Cited, Part};
use vigie_event::{Currency, Day, Timestamp};

/// Most sentences of one score.
const MAX_REASONS: usize = 3;
/// Contributions smaller than this (in log-odds) are not worth a sentence.
const MIN_LOG_ODDS: f64 = 0.05;

/// Language of the sentences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// French.
    Fr,
}

impl Lang {
    /// Every language.
    pub const ALL: [Self; 2] = [Self::En, Self::Fr];

    /// The language's subtag (BCP 47).
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Fr => "fr",
        }
    }

    /// Reads a tag such as `fr` or `fr-CA`.
    #[must_use]
    pub fn parse(tag: &str) -> Option<Self> {
        let language = tag.split('-').next().unwrap_or(tag);
        Self::ALL
            .into_iter()
            .find(|lang| language.eq_ignore_ascii_case(lang.label()))
    }
}

/// The sentences of a score: those facts that pull in the direction in which it leans.
pub(crate) fn reasons(
    score: f64,
    contributions: &[Contribution],
    (evidence, part): (&Evidence, &Part),
    horizon_days: u16,
    now: Timestamp,
    lang: Lang,
) -> Vec<Reason> {
    let direction = if score >= 0.5 { 1.0 } else { -1.0 };
    let mut pulling: Vec<_> = contributions
        .iter()
        .filter(|c| c.log_odds * direction >= MIN_LOG_ODDS)
        .collect();
    // Ties keep the order of the contributions, so the sentences are the same in every replay.
    pulling.sort_by(|a, b| b.log_odds.abs().total_cmp(&a.log_odds.abs()));
    let teller = Teller {
        evidence,
        horizon_days,
        now,
        lang,
    };
    pulling
        .into_iter()
        .filter_map(|contribution| {
            let (code, text) = teller.sentence(contribution)?;
            Some(Reason {
                code,
                factor: contribution.factor,
                text,
                events: events(part, code),
            })
        })
        .take(MAX_REASONS)
        .collect()
}

/// The events that a sentence rests on: the newest one that it quotes, and for the answer to a complaint the complaint as well.
fn events(part: &Part, code: ReasonCode) -> Vec<String> {
    let newest = |kinds: &[Cited]| -> Vec<String> {
        let ids = kinds.iter().filter_map(|kind| part.cited(*kind));
        ids.map(|(_, id)| id).collect()
    };
    match code {
        ReasonCode::NoPurchaseSince
        | ReasonCode::OnePurchase
        | ReasonCode::RepeatPurchases
        | ReasonCode::RecentPurchases
        | ReasonCode::LastSpend
        | ReasonCode::UsualGap => newest(&[Cited::Purchase]),
        ReasonCode::NoActivitySince | ReasonCode::OneActiveDay | ReasonCode::ManyActiveDays => last_act(part),
        ReasonCode::LastVisit => newest(&[Cited::Visit]),
        ReasonCode::LastMail => newest(&[Cited::Mail]),
        ReasonCode::ComplaintOpen => newest(&[Cited::Complaint]),
        ReasonCode::ComplaintAnswered | ReasonCode::Resatisfied => newest(&[Cited::Answer, Cited::Complaint]),
        ReasonCode::PaymentFailed => newest(&[Cited::Payment]),
        ReasonCode::ContactsUnanswered => newest(&[Cited::Contact]),
        ReasonCode::Season => Vec::new(),
    }
}

/// The last act of the customer: of all kinds of acts the one that happened at that instant.
fn last_act(part: &Part) -> Vec<String> {
    const ACTS: [Cited; 6] = [
        Cited::Act,
        Cited::Visit,
        Cited::Mail,
        Cited::Complaint,
        Cited::Answer,
        Cited::Purchase,
    ];
    let last = part.last_activity();
    let mut acts = ACTS.iter().filter_map(|kind| part.cited(*kind));
    acts.find(|(at, _)| Some(*at) == last)
        .map(|(_, id)| id)
        .into_iter()
        .collect()
}

struct Teller<'a> {
    evidence: &'a Evidence,
    horizon_days: u16,
    now: Timestamp,
    lang: Lang,
}

impl Teller<'_> {
    fn sentence(&self, contribution: &Contribution) -> Option<(ReasonCode, String)> {
        let bought = self.evidence.purchases;
        match contribution.factor {
            Factor::PurchaseHistory => bought.map(|bought| self.purchase_history(&bought)),
            Factor::PurchaseSilence => bought.map(|bought| self.purchase_silence(&bought)),
            Factor::EngagementHistory => self.engagement_history(),
            Factor::EngagementSilence => self.engagement_silence(),
            Factor::RecentPurchases => bought.map(|bought| self.recent_purchases(&bought)),
            Factor::Spend => self.last_spend(&bought?),
            Factor::Regularity => self.usual_gap(&bought?),
            Factor::Site => self.last_visit(),
            Factor::Mail => self.last_mail(),
            Factor::Season => Some(self.season(contribution.log_odds)),
            Factor::Complaint => self.complaint(),
            Factor::Payment => self.failed_payment(),
            Factor::Contacts => self.contacts(),
            Factor::PoolOffset => None,
        }
    }

    fn pick(&self, en: String, fr: String) -> String {
        match self.lang {
            Lang::En => en,
            Lang::Fr => fr,
        }
    }

    fn date(&self, day: Day) -> String {
        date(day, self.lang)
    }

    fn days(&self, number: u32) -> String {
        match (self.lang, number) {
            (Lang::En, 1) => "1 day".to_owned(),
            (Lang::En, _) => format!("{number} days"),
            (Lang::Fr, 0 | 1) => format!("{number} jour"),
            (Lang::Fr, _) => format!("{number} jours"),
        }
    }

    fn since(&self, day: Day) -> String {
        self.days(u32::try_from(self.now.day().days_since(day)).unwrap_or(0))
    }

    fn purchase_history(&self, bought: &PurchaseEvidence) -> (ReasonCode, String) {
        let (first, last) = (self.date(bought.first), self.date(bought.last));
        if bought.x == 0 {
            let text = self.pick(
                format!("Bought on one day only, {first}."),
                format!("Un seul jour d'achat, le {first}."),
            );
            return (ReasonCode::OnePurchase, text);
        }
        let days = self.days(bought.x.saturating_add(1));
        let text = self.pick(
            format!("Bought on {days} from {first} to {last}."),
            format!("Achats sur {days}, du {first} au {last}."),
        );
        (ReasonCode::RepeatPurchases, text)
    }

    fn purchase_silence(&self, bought: &PurchaseEvidence) -> (ReasonCode, String) {
        let (last, ago) = (self.date(bought.last), self.since(bought.last));
        let text = match bought.usual_gap_days.map(|gap| self.days(gap)) {
            Some(gap) => self.pick(
                format!("No purchase since {last}; the usual gap is {gap}."),
                format!("Aucun achat depuis le {last} ; l'intervalle habituel est de {gap}."),
            ),
            None => self.pick(
                format!("No purchase since the first one on {last}, {ago} ago."),
                format!("Aucun achat depuis le premier, le {last}, il y a {ago}."),
            ),
        };
        (ReasonCode::NoPurchaseSince, text)
    }

    fn engagement_history(&self) -> Option<(ReasonCode, String)> {
        let first = self.date(self.evidence.first_activity?.day());
        let last = self.date(self.evidence.last_activity?.day());
        if self.evidence.active_days == 1 {
            let text = self.pick(
                format!("Seen on one day only, {last}."),
                format!("Une seule journée d'activité, le {last}."),
            );
            return Some((ReasonCode::OneActiveDay, text));
        }
        let days = self.days(self.evidence.active_days);
        let text = self.pick(
            format!("Active on {days} from {first} to {last}."),
            format!("Activité sur {days}, du {first} au {last}."),
        );
        Some((ReasonCode::ManyActiveDays, text))
    }

    fn engagement_silence(&self) -> Option<(ReasonCode, String)> {
        let day = self.evidence.last_activity?.day();
        let (last, ago) = (self.date(day), self.since(day));
        let text = match self.evidence.usual_activity_gap_days.map(|gap| self.days(gap)) {
            Some(gap) => self.pick(
                format!("No activity since {last}; the usual gap is {gap}."),
                format!("Aucune activité depuis le {last} ; l'intervalle habituel est de {gap}."),
            ),
            None => self.pick(
                format!("No activity since {last}, {ago} ago."),
                format!("Aucune activité depuis le {last}, il y a {ago}."),
            ),
        };
        Some((ReasonCode::NoActivitySince, text))
    }

    fn recent_purchases(&self, bought: &PurchaseEvidence) -> (ReasonCode, String) {
        let (last, days) = (self.date(bought.last), self.days(bought.last_90_days));
        let text = match bought.last_90_days {
            0 => self.pick(
                format!("Bought on none of the last 90 days; the last time was {last}."),
                format!("Aucun achat ces 90 derniers jours ; le dernier date du {last}."),
            ),
            _ => self.pick(
                format!("Bought on {days} of the last 90, the last time on {last}."),
                format!("Achats sur {days} parmi les 90 derniers, le dernier le {last}."),
            ),
        };
        (ReasonCode::RecentPurchases, text)
    }

    fn last_spend(&self, bought: &PurchaseEvidence) -> Option<(ReasonCode, String)> {
        let (minor, currency) = bought.last_spend?;
        let (last, amount) = (self.date(bought.last), amount(minor, currency, self.lang));
        let text = self.pick(
            format!("Spent {amount} on {last}, the last purchase day."),
            format!("Dépense de {amount} le {last}, dernier jour d'achat."),
        );
        Some((ReasonCode::LastSpend, text))
    }

    fn usual_gap(&self, bought: &PurchaseEvidence) -> Option<(ReasonCode, String)> {
        let (gap, last) = (self.days(bought.usual_gap_days?), self.date(bought.last));
        let text = self.pick(
            format!("The usual gap between purchases is {gap}; the last one was on {last}."),
            format!("L'intervalle habituel entre les achats est de {gap} ; le dernier date du {last}."),
        );
        Some((ReasonCode::UsualGap, text))
    }

    fn last_visit(&self) -> Option<(ReasonCode, String)> {
        let day = self.evidence.last_visit?;
        let (last, ago) = (self.date(day), self.since(day));
        let text = self.pick(
            format!("Last seen on the site on {last}, {ago} ago."),
            format!("Dernière visite du site le {last}, il y a {ago}."),
        );
        Some((ReasonCode::LastVisit, text))
    }

    fn last_mail(&self) -> Option<(ReasonCode, String)> {
        let day = self.evidence.last_mail?;
        let (last, ago) = (self.date(day), self.since(day));
        let text = self.pick(
            format!("Last opened or clicked an e-mail on {last}, {ago} ago."),
            format!("Dernier e-mail ouvert ou cliqué le {last}, il y a {ago}."),
        );
        Some((ReasonCode::LastMail, text))
    }

    fn complaint(&self) -> Option<(ReasonCode, String)> {
        let complaint = self.evidence.incidents.complaint?;
        let (opened, since) = (complaint.opened.day(), complaint.since.day());
        let (made, ago, since) = (self.date(opened), self.since(opened), self.date(since));
        match complaint.phase {
            ComplaintPhase::Opened | ComplaintPhase::Acknowledged | ComplaintPhase::Reopened => {
                let (en, fr) = if complaint.grave {
                    ("grave complaint", "réclamation grave")
                } else {
                    ("complaint", "réclamation")
                };
                let text = self.pick(
                    format!("The {en} of {made}, {ago} ago, has not been answered."),
                    format!("La {fr} du {made}, il y a {ago}, est sans réponse."),
                );
                Some((ReasonCode::ComplaintOpen, text))
            }
            ComplaintPhase::Resolved | ComplaintPhase::Closed => {
                let text = self.pick(
                    format!("The complaint of {made} was answered on {since}."),
                    format!("La réclamation du {made} a reçu sa réponse le {since}."),
                );
                Some((ReasonCode::ComplaintAnswered, text))
            }
            ComplaintPhase::Resatisfied => {
                let text = self.pick(
                    format!("Satisfied again on {since}, after the complaint of {made}."),
                    format!("De nouveau satisfait le {since}, après la réclamation du {made}."),
                );
                Some((ReasonCode::Resatisfied, text))
            }
        }
    }

    fn failed_payment(&self) -> Option<(ReasonCode, String)> {
        let failed = self.date(self.evidence.incidents.payment_failed?.day());
        let text = self.pick(
            format!("A payment failed on {failed}, and there was no purchase or renewal since."),
            format!("Un paiement a échoué le {failed}, sans achat ni renouvellement depuis."),
        );
        Some((ReasonCode::PaymentFailed, text))
    }

    fn contacts(&self) -> Option<(ReasonCode, String)> {
        let incidents = &self.evidence.incidents;
        let (number, last) = (incidents.contacts, self.date(incidents.last_contact?.day()));
        let text = self.pick(
            format!("Contacted {number} times without a reaction, the last time on {last}."),
            format!("Contacté {number} fois sans réaction, la dernière le {last}."),
        );
        Some((ReasonCode::ContactsUnanswered, text))
    }

    fn season(&self, log_odds: f64) -> (ReasonCode, String) {
        let from = self.now.day();
        let until = self.date(Day(from.0.saturating_add(i32::from(self.horizon_days))));
        let from = self.date(from);
        let (en, fr) = if log_odds > 0.0 {
            ("less", "moins")
        } else {
            ("more", "plus")
        };
        let text = self.pick(
            format!("From {from} to {until}, customers are expected to buy {en} than usual."),
            format!("Du {from} au {until}, les clients devraient acheter {fr} que d'habitude."),
        );
        (ReasonCode::Season, text)
    }
}

/// `1234.50 EUR`, `1234,50 EUR`.
fn amount(minor: i64, currency: Currency, lang: Lang) -> String {
    let places = currency.exponent();
    let unit = 10i64.pow(places);
    let (whole, rest) = (minor / unit, (minor % unit).unsigned_abs());
    let point = match lang {
        Lang::En => ".",
        Lang::Fr => ",",
    };
    match places {
        0 => format!("{whole} {currency}"),
        places => format!("{whole}{point}{rest:0width$} {currency}", width = places as usize),
    }
}

/// `3 Aug 1997`, `3 août 1997`, in UTC and the Gregorian calendar (Howard Hinnant's civil-from-days algorithm).
fn date(day: Day, lang: Lang) -> String {
    const MONTHS: [(&str, &str); 12] = [
        ("Jan", "janvier"),
        ("Feb", "février"),
        ("Mar", "mars"),
        ("Apr", "avril"),
        ("May", "mai"),
        ("Jun", "juin"),
        ("Jul", "juillet"),
        ("Aug", "août"),
        ("Sep", "septembre"),
        ("Oct", "octobre"),
        ("Nov", "novembre"),
        ("Dec", "décembre"),
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
    match (lang, name) {
        (Lang::En, (name, _)) => format!("{day_of_month} {name} {year}"),
        (Lang::Fr, (_, name)) if day_of_month == 1 => format!("1er {name} {year}"),
        (Lang::Fr, (_, name)) => format!("{day_of_month} {name} {year}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar_library() {
        assert_eq!(date(Day(10_076), Lang::En), "3 Aug 1997");
        assert_eq!(date(Day(10_076), Lang::Fr), "3 août 1997");
        assert_eq!(date(Day(0), Lang::En), "1 Jan 1970");
        assert_eq!(date(Day(0), Lang::Fr), "1er janvier 1970");
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
                date(Day(day), Lang::En),
                format!("{day_of_month} {} {year}", months[month - 1]),
                "{iso}"
            );
            step = step % 97 + 1;
            day += step;
        }
    }
}
