//! Signed, bounded adjustments of the scores by what repeat-buying models cannot see: a complaint and how it was answered
//! (R61, R69), a payment that failed, contacts that nobody answered (R58).
//!
//! Each adds a number of log-odds: the complaint to attrition and to churn, the other two to churn alone. Nothing is added
//! for a customer without such events, to the bit. None of them ever falls in silence: what raises a score stays until an
//! event takes it away (an unanswered complaint weighs more once its answer is late), and what lowers it fades. So what is
//! monotone in silence stays so, and crossings stay exact. They count whole UTC days, as churn does.
//!
//! The defaults are priors, not fits: no open data set has complaints or failed payments with purchases. Operators set
//! them in the model file (`[adjustments]`); the sign of each is fixed.
//!
//! * Complaints. Share of complainers who buy again, by how they were answered (TARP, "Consumer complaint handling in
//!   America: an update study", 1986, as it is widely quoted): of small matters 46 % unanswered, 70 % answered, 95 % answered
//!   fast; of grave ones 19 %, 54 %, 82 %. R69 puts the fast answer at 77 %. From 77 % to 46 % are 1.37 log-odds, to 19 %
//!   2.66. These are intentions told in surveys, so half of that is believed, set around a customer without a complaint: 0.5
//!   unanswered, 1.1 when grave, −0.2 answered in time; a missed promise adds 0.2 (R63). More credit is not given: that a
//!   failure well repaired makes a better customer than none is the exception (Soares, Proença 2015), unless the customer
//!   says so (−0.3).
//! * Failed payment: 0.5. It ends a relation that the customer did not mean to end, until another payment works.
//! * Contacts without an answer: 0.05 each beyond the sixth, at most 0.3: over-solicitation is real (R58), but who is
//!   contacted often has often been picked for being silent already, which the scores know.

use crate::complaint::{Complaint, ComplaintPhase};
use crate::state::{CustomerState, Ledger, Part};
use libm::exp2;
use serde::Deserialize;
use vigie_event::{Day, Signal, Timestamp};

/// The sizes of the adjustments, in log-odds, from the section `[adjustments]` of the model file.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Adjustments {
    /// A complaint that waits for an answer, ≥ 0.
    pub complaint_open: f64,
    /// The same for a grave one, ≥ 0; in place of [`Self::complaint_open`].
    pub complaint_grave: f64,
    /// Added to either once the answer is late, ≥ 0.
    pub complaint_late: f64,
    /// Days after which an answer is late.
    pub answer_days: u16,
    /// A complaint that was answered in time, ≤ 0.
    pub complaint_answered: f64,
    /// One after which the customer said that they are satisfied again, ≤ 0.
    pub complaint_resatisfied: f64,
    /// Half-life of the latter two in days.
    pub relief_half_life_days: u16,
    /// A payment that failed or was disputed, with no purchase or renewal since, ≥ 0.
    pub payment_failed: f64,
    /// Each contact beyond [`Self::contacts_free`] since the customer's last act, ≥ 0.
    pub contact: f64,
    /// So many are not held against anybody.
    pub contacts_free: u16,
    /// Most that contacts add, ≥ 0.
    pub contacts_most: f64,
}

impl Default for Adjustments {
    fn default() -> Self {
        Self {
            complaint_open: 0.5,
            complaint_grave: 1.1,
            complaint_late: 0.2,
            answer_days: 7,
            complaint_answered: -0.2,
            complaint_resatisfied: -0.3,
            relief_half_life_days: 180,
            payment_failed: 0.5,
            contact: 0.05,
            contacts_free: 6,
            contacts_most: 0.3,
        }
    }
}

/// Farthest that one adjustment may be from 0.
const MOST: f64 = 3.0;

impl Adjustments {
    /// What is out of range.
    pub(crate) fn problems(&self) -> Vec<String> {
        let raises = 0.0..=MOST;
        let lowers = -MOST..=0.0;
        let days = 1.0..=3650.0;
        [
            ("complaint-open", self.complaint_open, &raises),
            ("complaint-grave", self.complaint_grave, &raises),
            ("complaint-late", self.complaint_late, &raises),
            ("answer-days", f64::from(self.answer_days), &days),
            ("complaint-answered", self.complaint_answered, &lowers),
            ("complaint-resatisfied", self.complaint_resatisfied, &lowers),
            ("relief-half-life-days", f64::from(self.relief_half_life_days), &days),
            ("payment-failed", self.payment_failed, &raises),
            ("contact", self.contact, &raises),
            ("contacts-most", self.contacts_most, &raises),
        ]
        .into_iter()
        .filter(|(_, value, range)| !range.contains(value))
        .map(|(key, value, range)| {
            let (low, high) = (range.start(), range.end());
            format!("adjustments.{key} must be from {low} to {high}, is {value}")
        })
        .collect()
    }

    /// By the complaint.
    #[must_use]
    pub fn complaint(&self, incidents: &Incidents, now: Day) -> f64 {
        let Some(complaint) = incidents.complaint else {
            return 0.0;
        };
        let (opened, since) = (complaint.opened.day(), complaint.since.day());
        let in_time = |answer: Day| answer.days_since(opened) <= i32::from(self.answer_days);
        let fading = |relief: f64| {
            let age = f64::from(now.days_since(since).max(0));
            relief * exp2(-age / f64::from(self.relief_half_life_days))
        };
        match complaint.phase {
            ComplaintPhase::Opened | ComplaintPhase::Acknowledged | ComplaintPhase::Reopened => {
                let waiting = if complaint.grave {
                    self.complaint_grave
                } else {
                    self.complaint_open
                };
                waiting + if in_time(now) { 0.0 } else { self.complaint_late }
            }
            ComplaintPhase::Resolved | ComplaintPhase::Closed if in_time(since) => fading(self.complaint_answered),
            ComplaintPhase::Resolved | ComplaintPhase::Closed => 0.0,
            ComplaintPhase::Resatisfied => fading(self.complaint_resatisfied),
        }
    }

    /// By a failed payment.
    #[must_use]
    pub fn payment(&self, incidents: &Incidents) -> f64 {
        incidents.payment_failed.map_or(0.0, |_| self.payment_failed)
    }

    /// By contacts without an answer.
    #[must_use]
    pub fn contacts(&self, incidents: &Incidents) -> f64 {
        let beyond = incidents.contacts.saturating_sub(u32::from(self.contacts_free));
        (self.contact * f64::from(beyond)).min(self.contacts_most)
    }
}

/// What the adjustments know of a customer: constant under silence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Incidents {
    /// The complaint.
    pub complaint: Option<Complaint>,
    /// The last failed or disputed payment, unless there was a purchase or a renewal since.
    pub payment_failed: Option<Timestamp>,
    /// Contacts since the customer's last act, as far as the record remembers.
    pub contacts: u32,
    /// The last of them.
    pub last_contact: Option<Timestamp>,
}

impl Incidents {
    /// Reads them out of a record whose parts are given as one.
    #[must_use]
    pub fn of(state: &CustomerState, part: &Part) -> Self {
        let last = |signal| part.signal(signal).map(|times| times.last);
        let latest = |signals: [Signal; 3]| signals.into_iter().filter_map(last).max();
        let failed = last(Signal::PaymentFailed).max(last(Signal::PaymentDisputed));
        let payment_failed = failed.filter(|failed| {
            let paid = latest([
                Signal::Purchase,
                Signal::SubscriptionStarted,
                Signal::SubscriptionRenewed,
            ]);
            paid.is_none_or(|paid| paid <= *failed)
        });
        let (contacts, last_contact) = unanswered(&state.ledger, part.last_activity());
        Self {
            complaint: Complaint::of_part(part),
            payment_failed,
            contacts,
            last_contact,
        }
    }
}

/// Contacts after the last act, and the last of them.
fn unanswered(ledger: &Ledger, last_act: Option<Timestamp>) -> (u32, Option<Timestamp>) {
    let since = || {
        let newest_first = ledger.contacts.iter().rev();
        newest_first.take_while(|contact| last_act.is_none_or(|act| contact.at > act))
    };
    let number = u32::try_from(since().count()).unwrap_or(u32::MAX);
    (number, since().next().map(|contact| contact.at))
}
