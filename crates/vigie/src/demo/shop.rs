//! A simulated shop: customers with habits and a hidden fate, who visit, buy, read mails, call and complain, until they
//! stop. It is a pure function of ([`Settings`]): no clock, no entropy, no I/O; the stream has no end.
//!
//! The simulation goes day by day. A day's acts are drawn for every person from the person's own random stream, then
//! sorted by time of receipt; so a person behaves the same whatever the others do.

mod acts;
mod crawler;
mod person;

use super::SimEvent;
use super::dice::Dice;
use acts::Outbox;
use crawler::Crawler;
use person::Person;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use vigie_event::{DAY_MS, Day, Timestamp};

/// What a shop is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The same seed (and the rest) gives the same events.
    pub(crate) seed: u64,
    /// Customers who appear between `start` and `now`. Later ones go on arriving at the same pace.
    pub(crate) customers: u32,
    /// The first day is the day of this instant.
    pub(crate) start: Timestamp,
    /// The day up to which `customers` are spread.
    pub(crate) now: Timestamp,
}

impl Settings {
    /// A shop of 2,000 customers with 180 days of history.
    #[must_use]
    pub(crate) fn new(seed: u64, now: Timestamp) -> Self {
        Self {
            seed,
            customers: 2_000,
            start: now.plus_ms(-180 * DAY_MS),
            now,
        }
    }
}

/// What becomes of a person. Hidden from the events: it is what a score should find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// Stays.
    Loyal,
    /// Comes ever less often from a day on: the rate halves every `half_life_days`.
    Fading {
        /// First day of the fading.
        from: Day,
        /// Days until the rate is halved.
        half_life_days: i32,
    },
    /// Is gone from one day to the next.
    Leaver {
        /// First day of absence.
        on: Day,
    },
    /// Comes in a season of 40 days out of 120, and hardly at all between.
    Seasonal {
        /// Day within the 120 on which the season begins.
        phase: i32,
    },
    /// Complains; leaves within three weeks if nobody solves it.
    Complainer {
        /// Day of the complaint.
        on: Day,
        /// Whether the shop solves it.
        resolved: bool,
    },
    /// Buys once.
    OneTime,
    /// Looks around without ever giving a name.
    PasserBy,
}

/// A person as the simulator knows them: for tests, and to compare scores with the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    /// The shop's id, for those who have or will get one.
    pub(crate) user_id: Option<String>,
    /// The browser's id.
    pub(crate) anonymous_id: String,
    /// The first day.
    pub(crate) since: Day,
    /// What becomes of them.
    pub(crate) fate: Fate,
}

/// The shop, as an endless iterator over its events in order of receipt.
pub(crate) struct Shop {
    settings: Settings,
    people: Vec<Person>,
    crawlers: Vec<Crawler>,
    /// Index of the next person to arrive.
    next_person: u32,
    /// Draws on which day each next person arrives, after `now`.
    arrivals: Dice,
    /// The day that is simulated next.
    day: Day,
    /// Acts that were drawn but not yet received. The number keeps ties in the order in which they were drawn.
    pending: BinaryHeap<Reverse<(Timestamp, u64)>>,
    drawn: BTreeMap<u64, SimEvent>,
    next_number: u64,
}

impl Shop {
    /// Opens the shop.
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        let crawlers = (0..1 + settings.customers / 500)
            .map(|index| Crawler::new(settings.seed, index))
            .collect();
        let mut shop = Self {
            people: Vec::new(),
            crawlers,
            next_person: 0,
            arrivals: Dice::new(settings.seed, u64::MAX),
            day: settings.start.day(),
            pending: BinaryHeap::new(),
            drawn: BTreeMap::new(),
            next_number: 0,
            settings,
        };
        while shop.next_person < shop.settings.customers {
            shop.arrive(None);
        }
        shop
    }

    /// Everybody who has a first day so far.
    #[cfg(test)]
    pub(crate) fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.people.iter().map(Person::profile)
    }

    /// Lets the next person in; `None` chooses a day between start and now.
    fn arrive(&mut self, on: Option<Day>) {
        self.people.push(Person::new(&self.settings, self.next_person, on));
        self.next_person = self.next_person.saturating_add(1);
    }

    /// Draws one day's acts of everybody.
    fn simulate_day(&mut self) {
        let day = self.day;
        self.day = Day(day.0.saturating_add(1));
        if day > self.settings.now.day() {
            for _ in 0..self.arrivals.poisson(person::arrivals_per_day(&self.settings)) {
                self.arrive(Some(day));
            }
        }
        let mut outbox = Outbox::default();
        for person in &mut self.people {
            person.live(day, &mut outbox);
        }
        for crawler in &mut self.crawlers {
            crawler.crawl(day, &mut outbox);
        }
        for event in outbox.take() {
            self.pending.push(Reverse((event.received_at, self.next_number)));
            drop(self.drawn.insert(self.next_number, event));
            self.next_number += 1;
        }
    }
}

impl Iterator for Shop {
    type Item = SimEvent;

    fn next(&mut self) -> Option<SimEvent> {
        loop {
            // What is received before the day to come cannot be preceded by anything that is still to be drawn.
            match self.pending.peek() {
                Some(Reverse((at, number))) if *at < self.day.start() => {
                    let number = *number;
                    let _ = self.pending.pop();
                    return self.drawn.remove(&number);
                }
                _ => self.simulate_day(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
