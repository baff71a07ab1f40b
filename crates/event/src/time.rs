//! Instants and days in UTC as plain integers. Nothing here reads a clock: a timestamp is always an input.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds in a day.
pub const DAY_MS: i64 = 86_400_000;

/// An instant: milliseconds since 1970-01-01T00:00:00Z, leap seconds ignored (POSIX time).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// A UTC calendar day: days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub i32);

/// Why a text or number is not an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not an ISO 8601 / RFC 3339 date or date-time.
    #[error("not an ISO 8601 date-time such as 2026-11-21T20:15:00Z")]
    Format,
    /// A number whose unit (seconds, milliseconds, …) cannot be told.
    #[error("number is not a time in milliseconds or seconds since 1970")]
    Unit,
}

impl Timestamp {
    /// The UTC day that contains this instant.
    #[must_use]
    pub fn day(self) -> Day {
        let day = self.0.div_euclid(DAY_MS);
        Day(i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX }))
    }

    /// Milliseconds since the start of its UTC day, 0 to 86,399,999.
    #[must_use]
    pub fn ms_of_day(self) -> u32 {
        u32::try_from(self.0.rem_euclid(DAY_MS)).unwrap_or(0)
    }

    /// This instant moved by `ms` milliseconds (saturating).
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`, negative when `self` comes first (saturating).
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads RFC 3339 / ISO 8601: with an offset, without one (taken as UTC), or a date alone (its midnight).
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let text = text.trim();
        if let Ok(instant) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(instant.as_millisecond()));
        }
        let civil = text
            .parse::<jiff::civil::DateTime>()
            .or_else(|_| text.parse::<jiff::civil::Date>().map(|date| date.at(0, 0, 0, 0)))
            .map_err(|_| TimeError::Format)?;
        civil
            .to_zoned(jiff::tz::TimeZone::UTC)
            .map(|zoned| Self(zoned.timestamp().as_millisecond()))
            .map_err(|_| TimeError::Format)
    }

    /// Reads a number of milliseconds or, where no doubt is possible, of seconds.
    ///
    /// Milliseconds are taken from 10^11 (March 1973) to 10^14 (year 5138), seconds from 10^8 (March 1973) to
    /// 10^10 (year 2286). Anything else (microseconds, nanoseconds, small numbers) is [`TimeError::Unit`].
    pub fn from_number(number: i64) -> Result<Self, TimeError> {
        match number {
            100_000_000_000..=100_000_000_000_000 => Ok(Self(number)),
            100_000_000..=10_000_000_000 => Ok(Self(number * 1000)),
            _ => Err(TimeError::Unit),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl Day {
    /// Midnight at the start of the day.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp(i64::from(self.0) * DAY_MS)
    }

    /// Whole days from `earlier` to `self`.
    #[must_use]
    pub fn days_since(self, earlier: Self) -> i32 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.start().0) {
            Ok(instant) => write!(f, "{}", instant.to_zoned(jiff::tz::TimeZone::UTC).date()),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ways_to_write_an_instant_agree() {
        let expected = Timestamp(879_945_300_000);
        for text in [
            "1997-11-19T13:15:00Z",
            "1997-11-19T14:15:00+01:00",
            "1997-11-19T13:15:00",
            "1997-11-19T13:15:00.000Z",
        ] {
            assert_eq!(Timestamp::parse(text), Ok(expected), "{text}");
        }
        assert_eq!(Timestamp::parse("1997-11-19"), Ok(Day(10_184).start()));
        assert_eq!(Timestamp::parse("last Tuesday"), Err(TimeError::Format));
        assert_eq!(expected.to_string(), "1997-11-19T13:15:00.000Z");
        assert_eq!(expected.day().to_string(), "1997-11-19");
    }

    #[test]
    fn numbers_are_read_only_where_the_unit_is_certain() {
        assert_eq!(Timestamp::from_number(879_945_300_000), Ok(Timestamp(879_945_300_000)));
        assert_eq!(Timestamp::from_number(879_945_300), Ok(Timestamp(879_945_300_000)));
        for doubtful in [-1, 0, 12, 1_795_000_000_000_000, 1_795_000_000_000_000_000] {
            assert_eq!(Timestamp::from_number(doubtful), Err(TimeError::Unit), "{doubtful}");
        }
    }

    #[test]
    fn days_before_the_epoch_round_down() {
        assert_eq!(Timestamp(-1).day(), Day(-1));
        assert_eq!(Timestamp(-1).ms_of_day(), 86_399_999);
        assert_eq!(Timestamp(i64::MAX).day(), Day(i32::MAX));
    }
}
