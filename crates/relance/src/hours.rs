//! When to make a contact: hours that are open on the customers' clock, and of those the one at which this customer is
//! usually there. Pure functions of the calendar, the instant and the histogram of the customer's hours.

use crate::policy::Calendar;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use vigie_event::{DAY_MS, Day, Timestamp};

const HOUR_MS: i64 = 3_600_000;
/// Hours in a week.
const WEEK: i64 = 168;
/// Acts that must be known before a customer's own hours mean anything.
const HABIT: u32 = 5;

/// Why an instant is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// A quiet hour.
    Hour,
    /// A quiet day of the week, or a day named in the policy file.
    Day,
    /// A public holiday, by its name.
    Holiday(&'static str),
}

impl Closed {
    /// The stable name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hour => "quiet_hours",
            Self::Day => "quiet_day",
            Self::Holiday(_) => "public_holiday",
        }
    }
}

/// A stretch of at most an hour in which a contact may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenHour {
    /// Its first millisecond.
    pub from: Timestamp,
    /// The first millisecond after it.
    pub to: Timestamp,
}

impl Calendar {
    /// The open hours from `now` on, within so many hours, in order.
    pub fn open_hours(&self, now: Timestamp, within_hours: u32) -> impl Iterator<Item = OpenHour> {
        let first = now.0.div_euclid(HOUR_MS).saturating_mul(HOUR_MS);
        let end = now.plus_ms(i64::from(within_hours) * HOUR_MS);
        (0..=i64::from(within_hours))
            .map(move |hour| OpenHour {
                from: Timestamp(first.saturating_add(hour * HOUR_MS)).max(now),
                to: Timestamp(first.saturating_add((hour + 1) * HOUR_MS)).min(end),
            })
            // In a zone that is off by half an hour, both ends of the hour must be open.
            .filter(|hour| hour.from < hour.to && self.closed(hour.from).is_none() && self.closed(hour.to.plus_ms(-1)).is_none())
    }

    /// The first instant from `now` on at which a contact may be made; `now` itself when it may. Where a year brings none, in a
    /// year.
    #[must_use]
    pub fn open_from(&self, now: Timestamp) -> Timestamp {
        let year = 366 * 24;
        match self.closed(now) {
            None => now,
            Some(_) => self
                .open_hours(now, year)
                .next()
                .map_or(now.plus_ms(i64::from(year) * HOUR_MS), |hour| hour.from),
        }
    }

    /// Why no contact is made at an instant; `None` when one may be.
    #[must_use]
    pub fn closed(&self, at: Timestamp) -> Option<Closed> {
        let local = zoned(at, &self.zone.rules)?;
        let date = local.date();
        let weekday = u8::try_from(date.weekday().to_monday_zero_offset()).unwrap_or_default();
        let hour = u8::try_from(local.hour()).unwrap_or_default();
        if let Some(name) = self.country.and_then(|country| country.holiday(date)) {
            Some(Closed::Holiday(name))
        } else if self.quiet_days.contains(&weekday) || self.closed.contains(&day_of(date)) {
            Some(Closed::Day)
        } else if self.quiet_hours.holds(hour) {
            Some(Closed::Hour)
        } else {
            None
        }
    }

    /// An instant on the customers' clock, in RFC 3339 with its offset.
    pub(crate) fn local(&self, at: Timestamp) -> String {
        let local = zoned(at, &self.zone.rules);
        local.map_or_else(
            || at.to_string(),
            |local| local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        )
    }
}

/// The hour at which the customer is most often there, the neighbouring hours counting half; the first of equals, and the
/// first open hour for a customer whose habits are not known. `true` where it is their own.
pub(crate) fn best(
    open: impl Iterator<Item = OpenHour>,
    hours: impl Iterator<Item = (u8, u16)>,
) -> Option<(OpenHour, bool)> {
    let mut counts = [0u32; WEEK as usize];
    for (hour, count) in hours {
        if let Some(cell) = counts.get_mut(usize::from(hour)) {
            *cell = u32::from(count);
        }
    }
    let known = counts.iter().sum::<u32>() >= HABIT;
    let count = |hour: i64| {
        let hour = usize::try_from(hour.rem_euclid(WEEK)).unwrap_or_default();
        counts.get(hour).copied().unwrap_or_default()
    };
    let weight = |hour: &OpenHour| {
        // Monday, 00:00 UTC: the first one was the fifth day.
        let of_week = (hour.from.0 - 4 * DAY_MS).div_euclid(HOUR_MS);
        2 * count(of_week) + count(of_week - 1) + count(of_week + 1)
    };
    let mut best: Option<(OpenHour, u32)> = None;
    for hour in open {
        let weight = if known { weight(&hour) } else { 0 };
        if best.is_none_or(|(_, most)| weight > most) {
            best = Some((hour, weight));
        }
    }
    best.map(|(hour, weight)| (hour, weight > 0))
}

fn zoned(at: Timestamp, rules: &TimeZone) -> Option<jiff::Zoned> {
    let at = jiff::Timestamp::from_millisecond(at.0).ok()?;
    Some(at.to_zoned(rules.clone()))
}

fn day_of(date: Date) -> Day {
    let epoch = Date::constant(1970, 1, 1);
    Day((date - epoch).get_days())
}
