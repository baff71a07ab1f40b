//! The folded events of one identity: a commutative monoid over observations.
//!
//! `apply` in any order gives the same value, and [`Part::absorb`] adds two parts as if their observations had been
//! folded into one. It holds integers only, never decides whether an observation is a repetition (the recent ids of the
//! customer record do), and never reads a clock: `at` is the effective time that enrichment settled, which also keeps it
//! from lying absurdly far in the future.

use super::cited::CompactId;
use super::{Calendar, Cited, Purchases, SortedMap};
use vigie_event::{Channel, EventId, Money, Signal, Timestamp};

/// Hours in a week: cells of the hour-of-week histogram.
pub const WEEK_HOURS: u8 = 168;

/// One event as the fold sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observation {
    /// Effective time of the event.
    pub at: Timestamp,
    /// What happened.
    pub signal: Signal,
    /// Where.
    pub channel: Channel,
    /// The amount of a purchase or a refund; ignored for other signals.
    pub money: Option<Money>,
    /// `false` when a machine acted (bot, prefetch, security scanner): such an act is counted and is no engagement.
    pub human: bool,
}

/// First, last and count of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recency {
    /// First time, never rises.
    pub first: Timestamp,
    /// Last time, never falls.
    pub last: Timestamp,
    /// Number of times over the whole life (the calendar forgets, this does not); saturating.
    pub count: u64,
}

/// What one identity has done. Written only by [`Part::apply`], [`Part::cite`] and [`Part::absorb`].
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Observations folded, machines included. Never falls; it decides which of two versions of one part is the newer.
    observations: u64,
    /// Observations of machines among them. Never falls.
    machine: u64,
    /// First and last engagement of a human. `first` never rises, `last` never falls.
    human: Option<(Timestamp, Timestamp)>,
    /// Days with human engagement; bounded by its window of 400 days.
    calendar: Calendar,
    /// Purchase days and money; bounded by its window of 3,650 days and 8 currencies.
    purchases: Purchases,
    /// Recency per signal, of humans and systems; bounded by the closed list of signals.
    signals: SortedMap<Signal, Recency>,
    /// Last human engagement per channel, never falls; bounded by the closed list of channels.
    channels: SortedMap<Channel, Timestamp>,
    /// Human engagement per hour of the week in UTC (0 = Monday 00:00), saturating; at most 168 cells.
    hours: SortedMap<u8, u16>,
    /// The newest event of each kind that a reason may quote; bounded by the closed list of kinds. Only rises.
    cited: SortedMap<Cited, (Timestamp, CompactId)>,
}

/// The stored fields of a part, for the codec alone.
pub(super) struct Fields {
    pub(super) observations: u64,
    pub(super) machine: u64,
    pub(super) human: Option<(Timestamp, Timestamp)>,
    pub(super) calendar: Calendar,
    pub(super) purchases: Purchases,
    pub(super) signals: SortedMap<Signal, Recency>,
    pub(super) channels: SortedMap<Channel, Timestamp>,
    pub(super) hours: SortedMap<u8, u16>,
    pub(super) cited: SortedMap<Cited, (Timestamp, CompactId)>,
}

impl Part {
    /// Folds one observation.
    ///
    /// Purchases and refunds are facts and count whoever reported them; engagement of a machine counts only as such.
    pub fn apply(&mut self, observation: &Observation) {
        let Observation {
            at,
            signal,
            channel,
            money,
            human,
        } = *observation;
        self.observations = self.observations.saturating_add(1);
        if !human {
            self.machine = self.machine.saturating_add(1);
        }
        if human || !signal.is_engagement() || signal.is_purchase() {
            self.note_signal(
                signal,
                Recency {
                    first: at,
                    last: at,
                    count: 1,
                },
            );
        }
        if human && signal.is_engagement() {
            self.note_human(at, at);
            self.calendar.note(at, signal);
            self.note_channel(channel, at);
            self.note_hour(hour_of_week(at), 1);
        }
        if signal.is_purchase() {
            self.purchases.note_order(at.day(), money);
        } else if signal.is_refund() {
            self.purchases.note_refund(money);
        }
    }

    /// Remembers the id of an event that reasons may quote, where it is the newest of its kind.
    pub fn cite(&mut self, observation: &Observation, id: &EventId) {
        if let Some(kind) = Cited::of(observation)
            && self.cited.get(&kind).is_none_or(|(at, _)| *at <= observation.at)
        {
            self.note_cited(kind, (observation.at, CompactId::of(id)));
        }
    }

    /// Adds another identity's part: the result is that of folding the observations of both into one.
    pub fn absorb(&mut self, other: &Self) {
        self.observations = self.observations.saturating_add(other.observations);
        self.machine = self.machine.saturating_add(other.machine);
        if let Some((first, last)) = other.human {
            self.note_human(first, last);
        }
        self.calendar.unite(&other.calendar);
        self.purchases.unite(&other.purchases);
        for (signal, recency) in other.signals.iter() {
            self.note_signal(*signal, *recency);
        }
        for (channel, last) in other.channels.iter() {
            self.note_channel(*channel, *last);
        }
        for (hour, count) in other.hours.iter() {
            self.note_hour(*hour, *count);
        }
        for (kind, cited) in other.cited.iter() {
            self.note_cited(*kind, cited.clone());
        }
    }

    /// Number of observations folded, machines included.
    #[must_use]
    pub fn observations(&self) -> u64 {
        self.observations
    }

    /// Number of observations of machines.
    #[must_use]
    pub fn machine_observations(&self) -> u64 {
        self.machine
    }

    /// First human engagement ever.
    #[must_use]
    pub fn first_activity(&self) -> Option<Timestamp> {
        self.human.map(|(first, _)| first)
    }

    /// Last human engagement.
    #[must_use]
    pub fn last_activity(&self) -> Option<Timestamp> {
        self.human.map(|(_, last)| last)
    }

    /// Days with human engagement.
    #[must_use]
    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// Purchases and refunds.
    #[must_use]
    pub fn purchases(&self) -> &Purchases {
        &self.purchases
    }

    /// First, last and count of a signal.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> Option<Recency> {
        self.signals.get(&signal).copied()
    }

    /// First, last and count of every signal seen, in the order of their codes.
    pub fn signals(&self) -> impl ExactSizeIterator<Item = (Signal, Recency)> {
        self.signals.iter().map(|(signal, recency)| (*signal, *recency))
    }

    /// Last human engagement per channel.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = (Channel, Timestamp)> {
        self.channels.iter().map(|(channel, last)| (*channel, *last))
    }

    /// Human engagement per hour of the week in UTC, cells that are not 0; 0 is Monday 00:00.
    pub fn hours(&self) -> impl ExactSizeIterator<Item = (u8, u16)> {
        self.hours.iter().map(|(hour, count)| (*hour, *count))
    }

    /// The newest event of a kind: when it happened and its id. `None` when there was none since records keep ids.
    #[must_use]
    pub fn cited(&self, kind: Cited) -> Option<(Timestamp, String)> {
        let (at, id) = self.cited.get(&kind)?;
        Some((*at, id.text().into_owned()))
    }

    /// The newest event of each kind, as it is kept.
    pub(super) fn all_cited(&self) -> &SortedMap<Cited, (Timestamp, CompactId)> {
        &self.cited
    }

    /// How many actions of `signal` have left the calendar's window: all minus those in it.
    #[must_use]
    pub fn count_before_window(&self, signal: Signal) -> u64 {
        let kept = self
            .calendar
            .counts()
            .filter(|(_, s, _)| *s == signal)
            .map(|(_, _, count)| u64::from(count))
            .sum();
        self.signal(signal)
            .map_or(0, |recency| recency.count.saturating_sub(kept))
    }

    pub(super) fn restore(fields: Fields) -> Self {
        let Fields {
            observations,
            machine,
            human,
            calendar,
            purchases,
            signals,
            channels,
            hours,
            cited,
        } = fields;
        Self {
            observations,
            machine,
            human,
            calendar,
            purchases,
            signals,
            channels,
            hours,
            cited,
        }
    }

    fn note_human(&mut self, first: Timestamp, last: Timestamp) {
        self.human = Some(self.human.map_or((first, last), |(f, l)| (f.min(first), l.max(last))));
    }

    fn note_signal(&mut self, signal: Signal, new: Recency) {
        self.signals.update(signal, Recency { count: 0, ..new }, |old| {
            old.first = old.first.min(new.first);
            old.last = old.last.max(new.last);
            old.count = old.count.saturating_add(new.count);
        });
    }

    fn note_cited(&mut self, kind: Cited, new: (Timestamp, CompactId)) {
        match self.cited.get(&kind) {
            Some(known) if *known >= new => {}
            _ => self.cited.update(kind, new.clone(), |known| *known = new),
        }
    }

    fn note_channel(&mut self, channel: Channel, at: Timestamp) {
        self.channels.update(channel, at, |last| *last = at.max(*last));
    }

    fn note_hour(&mut self, hour: u8, by: u16) {
        self.hours.update(hour, 0, |count| *count = count.saturating_add(by));
    }
}

/// Hours since Monday 00:00 UTC, 0 to 167.
fn hour_of_week(at: Timestamp) -> u8 {
    // 1970-01-01 was a Thursday: three days after a Monday.
    let hours = (i64::from(at.day().0) + 3).rem_euclid(7) * 24 + i64::from(at.ms_of_day() / 3_600_000);
    u8::try_from(hours).unwrap_or(WEEK_HOURS - 1)
}
