//! Times as files write them.

use super::mapping::value;
use super::{ImportError, Mapping};
use jiff::civil::{Date, DateTime};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{Offset, TimeZone};
use vigie_event::Timestamp;

/// How times are read.
#[derive(Debug)]
pub(super) struct Times {
    format: Option<String>,
    zone: TimeZone,
}

impl Times {
    pub(super) fn of(mapping: &Mapping) -> Result<Self, ImportError> {
        let zone = match mapping.utc_offset.as_deref() {
            None => TimeZone::UTC,
            Some(text) => offset(text)
                .map(TimeZone::fixed)
                .ok_or_else(|| value("utc-offset", text, "hours and minutes such as +01:00 or -05:30"))?,
        };
        if let Some(format) = &mapping.time_format {
            // A format that nothing can be written in cannot be read either.
            let example = DateTime::constant(2024, 2, 29, 13, 14, 15, 0).to_zoned(TimeZone::UTC);
            let written = example
                .ok()
                .and_then(|example| jiff::fmt::strtime::format(format, &example).ok());
            let read = written.and_then(|text| BrokenDownTime::parse(format, text).ok());
            if !read.is_some_and(|read| read.to_date().is_ok() || read.to_timestamp().is_ok()) {
                return Err(value(
                    "time-format",
                    format,
                    "a format of strftime with a whole date, such as %d/%m/%Y %H:%M",
                ));
            }
        }
        Ok(Self {
            format: mapping.time_format.clone(),
            zone,
        })
    }

    /// The instant that a text means; `None` where that is not certain.
    pub(super) fn read(&self, text: &str) -> Option<Timestamp> {
        let local = |at: DateTime| {
            let zoned = at.to_zoned(self.zone.clone()).ok()?;
            Some(Timestamp(zoned.timestamp().as_millisecond()))
        };
        if let Some(format) = &self.format {
            let read = BrokenDownTime::parse(format, text).ok()?;
            if read.offset().is_some() || format.contains("%s") {
                return read.to_timestamp().ok().map(|at| Timestamp(at.as_millisecond()));
            }
            let date = read.to_date().ok()?;
            // A format without a time of day means the day's start.
            return local(read.to_datetime().unwrap_or_else(|_| date.at(0, 0, 0, 0)));
        }
        if let Ok(number) = text.parse::<i64>() {
            return Timestamp::from_number(number).ok();
        }
        if let Ok(instant) = text.parse::<jiff::Timestamp>() {
            return Some(Timestamp(instant.as_millisecond()));
        }
        let civil = text
            .parse::<DateTime>()
            .or_else(|_| text.parse::<Date>().map(|date| date.at(0, 0, 0, 0)));
        local(civil.ok()?)
    }
}

fn offset(text: &str) -> Option<Offset> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |text: &str| (text.len() == 2).then(|| text.parse::<i32>().ok()).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes).filter(|minutes| *minutes < 60)?);
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}
