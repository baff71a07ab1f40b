//! Policies as they decide: who may be flagged, when, through which channels, at what cost, and what it is to be judged by.
//! [`file`] reads them from TOML; this file never reads a text and never looks at a customer's record.

mod bands;
mod file;
mod places;
mod settings;

pub use file::PolicyError;
pub use settings::{Calendar, Economics, Group, Pressure, QuietHours, Zone};

use crate::band::Band;
use crate::outage::Outage;
use crate::predicate::Predicate;
use crate::row::Row;
use crate::silence::Silences;
use serde::{Deserialize, Serialize};
use vigie_event::{Channel, PolicyId};
use vigie_scoring::ScoreKind;

const SHIPPED: &str = include_str!("../../../../config/policies.toml");

/// How much consent to marketing a contact needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarketingConsent {
    /// The person must have said yes.
    Granted,
    /// The person must not have said no.
    NotRefused,
}

/// Whom a policy may flag.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Eligible {
    /// Fewest distinct purchase days.
    pub min_purchase_days: u32,
    /// Most distinct purchase days.
    pub max_purchase_days: u32,
    /// Fewest active days.
    pub min_active_days: u32,
    /// Longest silence in whole days since the last sign of life.
    pub max_silence_days: u32,
    /// Whole days for which nothing at all may have been received about the customer, from whatever source.
    pub max_data_age_days: u32,
    /// Only customers with a known id.
    pub known_only: bool,
    /// Consent needed.
    pub marketing_consent: MarketingConsent,
}

impl Default for Eligible {
    fn default() -> Self {
        Self {
            min_purchase_days: 0,
            max_purchase_days: u32::MAX,
            min_active_days: 0,
            max_silence_days: 365,
            max_data_age_days: u32::MAX,
            known_only: true,
            marketing_consent: MarketingConsent::NotRefused,
        }
    }
}

/// What a policy watches: a number that under silence only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// A score of the model, in [0, 1].
    Score(ScoreKind),
    /// Days since the customer's open complaint was made (R68).
    ComplaintAge,
    /// Days since the customer's last complaint was answered or its file closed, until they say that they are satisfied
    /// again (R65, R71).
    ClosureAge,
}

impl Measure {
    /// Reads a [`Measure::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match (text, text.strip_prefix("churn-")) {
            ("attrition", _) => Some(Self::Score(ScoreKind::Attrition)),
            ("complaint-age", _) => Some(Self::ComplaintAge),
            ("closure-age", _) => Some(Self::ClosureAge),
            (_, Some(days)) => days
                .parse::<u16>()
                .ok()
                .filter(|days| (1..=3650).contains(days))
                .map(|days| Self::Score(ScoreKind::Churn(days))),
            _ => None,
        }
    }

    /// The name that policy files use.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Score(ScoreKind::Attrition) => "attrition".to_owned(),
            Self::Score(ScoreKind::Churn(days)) => format!("churn-{days}"),
            Self::ComplaintAge => "complaint-age".to_owned(),
            Self::ClosureAge => "closure-age".to_owned(),
        }
    }

    /// `true` for what is owed to a customer who complained: no marketing, hence under none of its caps.
    #[must_use]
    pub const fn is_service(self) -> bool {
        matches!(self, Self::ComplaintAge | Self::ClosureAge)
    }

    /// The score, where it is one.
    #[must_use]
    pub const fn score(self) -> Option<ScoreKind> {
        match self {
            Self::Score(kind) => Some(kind),
            Self::ComplaintAge | Self::ClosureAge => None,
        }
    }
}

macro_rules! names {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Self::$variant => $label,)* } }

            /// Reads a name; hyphens may stand for underscores.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                let name = name.replace('-', "_");
                Self::ALL.iter().copied().find(|one| one.label() == name)
            }
        }
    };
}

names! {
    /// What is offered (R47, R71, R80 to R82).
    Play {
        /// Attention: a call, useful content; no discount.
        Attention = "attention",
        /// Something worth money, booked as a cost.
        Reward = "reward",
        /// Status, name, an agent who knows the history; no discount.
        Recognition = "recognition",
        /// Community and content; shows only in the long run.
        Romance = "romance",
        /// An answer that is overdue.
        ComplaintOverdue = "complaint_overdue",
        /// Asking again after a complaint was closed.
        Aftercare = "aftercare",
    }
}

impl Play {
    /// What customers are told that they have of it, unless the policy says it better (R85).
    pub(crate) const fn benefit(self) -> &'static str {
        match self {
            Self::Attention => "Somebody who knows you asks how you are and what you need.",
            Self::Reward => "You get something back for your loyalty.",
            Self::Recognition => "You are known by name, and so is what you have been with us.",
            Self::Romance => "You are invited to what we do beyond selling.",
            Self::ComplaintOverdue => "You get the answer that you were promised.",
            Self::Aftercare => "Somebody makes sure that what went wrong is right again.",
        }
    }

    /// Days by whose end it is judged: what is bought with money, and what grows slowly, shows in the long run (R53, R82).
    pub(crate) const fn window_days(self) -> u32 {
        match self {
            Self::Reward | Self::Romance => 180,
            _ => 60,
        }
    }
}

names! {
    /// What a policy is after (R54, R90): a flag whose customer does it within the window has returned.
    Target {
        /// A purchase.
        Purchase = "purchase",
        /// Any act of the customer's own.
        Activity = "activity",
    }
}

names! {
    /// The grain of an adaptation (R16), from the coarse to the fine: the finer one counts.
    Level {
        /// Many customers.
        Segment = "segment",
        /// Few.
        MicroSegment = "micro_segment",
        /// One.
        Customer = "customer",
    }
}

/// A way to reach customers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Offer {
    /// Which.
    pub channel: Channel,
    /// What a contact costs, in major units of the currency.
    pub cost: f64,
    /// Most contacts a day, all customers together; kept by whoever hands flags out. `None`: as many as there are.
    pub capacity: Option<u32>,
    /// Share of contacts that customers respond to, before anything is known of a customer.
    pub response: f64,
}

/// The numbers of a policy that can be adapted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Terms {
    /// Flag at or above this.
    pub threshold: f64,
    /// Armed again below this.
    pub rearm_below: f64,
    /// Days after a flag without another.
    pub cooldown_days: u32,
    /// Share of flags held out, in [0, 0.9].
    pub holdout: f64,
}

/// An adaptation of a policy to some customers (R16).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Segment {
    /// Its name; a flag says which one applied.
    pub name: String,
    /// Its grain.
    pub level: Level,
    /// Whom it is for.
    pub members: Predicate,
    /// What is other than in the policy.
    pub threshold: Option<f64>,
    /// See [`Terms`].
    pub rearm_below: Option<f64>,
    /// See [`Terms`].
    pub cooldown_days: Option<u32>,
    /// See [`Terms`].
    pub holdout: Option<f64>,
}

/// When a policy is to be given up (R90).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stop {
    /// Probability with which harm may be seen where there is none, however often one looks.
    pub level: f64,
    /// Days after which a policy that has shown nothing ends.
    pub after_days: u32,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            level: 0.05,
            after_days: 365,
        }
    }
}

/// One policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its name, unique in the file.
    pub id: PolicyId,
    /// First 8 bytes of a hash of everything that decides: a flag carries it.
    pub version: u64,
    /// Who answers for it.
    pub owner: String,
    /// What it is for.
    pub goal: String,
    /// What it watches.
    pub score: Measure,
    /// Its numbers, before any adaptation.
    pub terms: Terms,
    /// Whom it may flag.
    pub eligible: Eligible,
    /// Whom it may flag, in SQL.
    pub members: Option<Predicate>,
    /// Adaptations in the order in which they are applied: the last one that names a number counts.
    pub segments: Vec<Segment>,
    /// What it is after.
    pub target: Target,
    /// Days from the flag by which that must have happened.
    pub window_days: u32,
    /// Share of the customers responding to a contact who stay because of it; what the policy expects of itself.
    pub expected_effect: f64,
    /// When it is to be given up.
    pub stop: Stop,
    /// What it offers.
    pub play: Play,
    /// What customers have of it, in words for them.
    pub customer_benefit: String,
    /// The ways to reach them; without any, the receiver of a flag chooses.
    pub channels: Vec<Offer>,
    /// Most that one contact may cost, in major units of the currency.
    pub max_cost: Option<f64>,
    /// Hours within which the contact is to be made.
    pub within_hours: u32,
}

impl Policy {
    /// The numbers that hold for a customer, and the name of the finest adaptation that applied.
    #[must_use]
    pub fn terms_for(&self, row: &Row) -> (Terms, Option<&str>) {
        let mut terms = self.terms;
        let mut applied = None;
        for segment in self.segments.iter().filter(|segment| segment.members.holds(row)) {
            applied = Some(segment.name.as_str());
            terms = Terms {
                threshold: segment.threshold.unwrap_or(terms.threshold),
                rearm_below: segment.rearm_below.unwrap_or(terms.rearm_below),
                cooldown_days: segment.cooldown_days.unwrap_or(terms.cooldown_days),
                holdout: segment.holdout.unwrap_or(terms.holdout),
            };
        }
        // An adaptation may bring one level past the other; a policy is never armed and due at once.
        terms.rearm_below = terms.rearm_below.min(terms.threshold);
        (terms, applied)
    }
}

/// The policies in force, in the order of the file, and what holds for all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySet {
    /// First 12 hexadecimal digits of the SHA-256 of the text.
    pub version: String,
    /// First 8 bytes of the same hash.
    pub fingerprint: u64,
    /// The policies.
    pub policies: Vec<Policy>,
    /// Whose clock and holidays.
    pub calendar: Calendar,
    /// What money is worth.
    pub economics: Economics,
    /// How much contact is too much.
    pub pressure: Pressure,
    /// Sources that were silent, or are.
    pub outages: Vec<Outage>,
    /// Scores whose bands are told.
    pub bands: Vec<Band>,
    /// What it means that somebody has said nothing.
    pub silence: Silences,
}

impl PolicySet {
    /// The policies that are compiled in (`config/policies.toml`). A test keeps them valid.
    pub fn shipped() -> Result<Self, PolicyError> {
        Self::parse(SHIPPED)
    }

    /// The text of [`PolicySet::shipped`].
    #[must_use]
    pub fn shipped_text() -> &'static str {
        SHIPPED
    }

    /// Reads and validates a policy file; every fault is reported at once, with its line.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        file::parse(text)
    }

    /// Whose clock and which days hold for a customer: the last group that they belong to, or everybody's.
    #[must_use]
    pub fn calendar_for(&self, row: impl FnOnce() -> Row) -> &Calendar {
        if self.calendar.groups.is_empty() {
            return &self.calendar;
        }
        let row = row();
        let own = self
            .calendar
            .groups
            .iter()
            .rev()
            .find(|group| group.members.holds(&row));
        own.map_or(&self.calendar, |group| &group.calendar)
    }

    /// The policy of that name.
    #[must_use]
    pub fn policy(&self, id: &PolicyId) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.id == *id)
    }
}
