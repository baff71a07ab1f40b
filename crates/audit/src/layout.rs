//! The canonical bytes of a customer record, version 4: the oracle's own writer and reader. Version 2 is read too, whose event
//! ids have whole seconds and which ends with `last_received`, and version 1, which besides lacks the course of each policy's
//! last flag.
//!
//! One version byte, then the fields in the order below. Unsigned numbers are LEB128; signed ones are zig-zag coded first;
//! a single byte stands as it is; a list is its length and its items; an absent value is 0, a present one 1 and itself; a
//! text is its length and its UTF-8 bytes; an alternative is its index. Days are distances from the day before in the list,
//! instants of signals and channels distances from the first or last human act.

use crate::mail::counted;
use crate::part::{ActiveDay, Part, PurchaseDay, Sums, Times};
use crate::state::{Published, RECALLED, Recent, Standing, State};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{
    AccountId, Channel, ConsentState, Currency, Day, Doubt, FlagId, PersonId, PolicyId, Purpose, Signal, Timestamp,
};

const VERSION: u8 = 4;
const PURPOSES: [Purpose; 3] = [Purpose::Profiling, Purpose::Marketing, Purpose::EmailOpenTracking];
const WORDS: [ConsentState; 2] = [ConsentState::Granted, ConsentState::Refused];
const DOUBTS: [Doubt; 2] = [Doubt::Agent, Doubt::Burst];

/// Writes numbers, texts and lists.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    fn time(&mut self, at: Timestamp) {
        self.signed(at.0);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn maybe<T>(&mut self, value: Option<T>, mut write: impl FnMut(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.number(items.len() as u64);
        items.for_each(|item| write(self, item));
    }

    fn person(&mut self, person: &PersonId) {
        self.byte(u8::from(!person.is_known()));
        self.bytes(person.as_str().as_bytes());
    }
}

/// The canonical bytes.
pub(crate) fn encode(state: &State) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(256));
    to.byte(VERSION);
    to.list(state.parts.iter(), |to, (identity, part)| {
        to.person(identity);
        write_part(to, part);
    });
    to.maybe(state.linked_to.as_ref(), Writer::person);
    to.list(state.links.iter(), Writer::person);
    let recent = state.recent.entries();
    to.number(recent.len() as u64 * 16);
    for (at, hash, short) in recent {
        to.0.extend(at.to_be_bytes().into_iter().skip(2));
        to.0.extend(hash.to_be_bytes().into_iter().skip(2));
        to.0.extend_from_slice(&short.to_be_bytes());
    }
    to.list(state.policies.iter(), |to, (policy, standing)| {
        to.bytes(policy.as_str().as_bytes());
        to.byte(u8::from(standing.armed));
        to.maybe(standing.flag, |to, (at, FlagId(id))| {
            to.time(at);
            to.0.extend_from_slice(&id);
        });
        to.maybe(standing.cooldown, Writer::time);
        to.maybe(standing.refused, Writer::byte);
        to.number(standing.version);
        to.maybe(standing.course, |to, (phase, since)| {
            to.byte(phase);
            to.time(since);
        });
    });
    to.list(state.contacts.iter(), |to, (at, channel, flag)| {
        to.time(*at);
        to.byte(channel.code());
        to.maybe(*flag, |to, FlagId(id)| to.0.extend_from_slice(&id));
    });
    to.list(state.consent.iter(), |to, (purpose, (at, word))| {
        to.byte(index(&PURPOSES, purpose));
        to.time(*at);
        to.byte(index(&WORDS, word));
    });
    to.maybe(state.timer, Writer::time);
    to.maybe(state.rank, |to, rank| to.number(u64::from(rank)));
    to.maybe(state.published, |to, published| {
        to.time(published.at);
        to.maybe(published.attrition, |to, ppm| to.number(u64::from(ppm)));
        to.maybe(published.churn, |to, ppm| to.number(u64::from(ppm)));
        to.number(published.model);
    });
    to.time(state.last_received);
    to.list(state.bands.iter(), |to, (band, (version, place))| {
        to.bytes(band.as_str().as_bytes());
        to.number(u64::from(*version));
        to.byte(*place);
    });
    to.maybe(state.account.as_ref(), |to, (at, id)| {
        to.time(*at);
        to.bytes(id.as_str().as_bytes());
    });
    to.list(state.parts.values(), |to, part| {
        let (_, last) = part.human.unwrap_or_default();
        to.list(part.cited.iter(), |to, (kind, (at, id))| {
            to.byte(*kind);
            to.signed(last.0.wrapping_sub(at.0));
            match uuid(id) {
                Some(number) => {
                    to.byte(0);
                    to.0.extend_from_slice(&number.to_be_bytes());
                }
                None => {
                    to.byte(1);
                    to.bytes(id.as_bytes());
                }
            }
        });
    });
    to.list(
        state.acts.iter(),
        |to, ((at, identity, signal, channel, link, likely), times)| {
            to.time(*at);
            to.person(identity);
            to.byte(signal.code());
            to.byte(channel.code());
            to.number(u64::from(*link));
            to.number(u64::from(*likely));
            to.number(u64::from(*times));
        },
    );
    to.list(state.held.iter(), |to, (at, identity, signal, doubt)| {
        to.time(*at);
        to.person(identity);
        to.byte(signal.code());
        to.byte(index(&DOUBTS, doubt));
    });
    to.maybe(state.dismissed, Writer::time);
    to.list(state.given.iter(), |to, (identity, other)| {
        to.person(identity);
        to.person(other);
    });
    to.list(state.withdrawn.iter(), Writer::person);
    to.list(state.words.iter(), |to, ((identity, purpose), (at, word))| {
        to.person(identity);
        to.byte(index(&PURPOSES, purpose));
        to.time(*at);
        to.byte(index(&WORDS, word));
    });
    to.0
}

/// The number that a UUID in its usual form (lower-case, with hyphens) stands for.
fn uuid(text: &str) -> Option<u128> {
    let number = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
    (usual(number) == text).then_some(number)
}

/// A number as a UUID in its usual form.
fn usual(number: u128) -> String {
    let mut text = format!("{number:032x}");
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

fn write_part(to: &mut Writer, part: &Part) {
    let (first, last) = part.human.unwrap_or_default();
    to.number(part.observations);
    to.number(part.machine);
    to.maybe(part.human, |to, (first, last)| {
        to.time(first);
        to.time(last);
    });
    to.list(part.signals.iter(), |to, (signal, times)| {
        to.byte(signal.code());
        to.signed(times.first.0.wrapping_sub(first.0));
        to.signed(last.0.wrapping_sub(times.last.0));
        to.number(times.count);
    });
    to.list(part.channels.iter(), |to, (channel, at)| {
        to.byte(channel.code());
        to.signed(last.0.wrapping_sub(at.0));
    });
    let mut before = Day(0);
    to.list(part.days.iter(), |to, (day, active)| {
        to.signed(i64::from(day.0.wrapping_sub(before.0)));
        to.byte(byte(active.counts.len()));
        to.byte(byte(active.sessions.len()));
        before = *day;
    });
    // A count is the signal's place in the list of signals plus the length of that list for each further act.
    let place: BTreeMap<Signal, u64> = part.signals.keys().copied().zip(0..).collect();
    let counts: Vec<u64> = part
        .days
        .values()
        .flat_map(|day| &day.counts)
        .map(|(signal, count)| {
            let place = place.get(signal).copied().unwrap_or(u64::MAX);
            let further = u64::from(count.saturating_sub(1)).saturating_mul(place_count(&part.signals));
            further.saturating_add(place)
        })
        .collect();
    to.list(counts.into_iter(), Writer::number);
    to.number(part.days.values().map(|day| day.sessions.len() as u64).sum());
    for (day, active) in &part.days {
        let mut end = day.start().0.div_euclid(1000);
        for (start, last) in &active.sessions {
            to.number(start.saturating_sub(end).cast_unsigned());
            to.number(last.saturating_sub(*start).cast_unsigned());
            end = *last;
        }
    }
    let mut before = Day(0);
    to.list(part.purchases.iter(), |to, (day, purchases)| {
        to.signed(i64::from(day.0.wrapping_sub(before.0)));
        to.number(u64::from(purchases.orders));
        to.byte(byte(purchases.gross.len()));
        before = *day;
    });
    let place: BTreeMap<Currency, usize> = part.totals.keys().copied().zip(0..).collect();
    to.number(part.purchases.values().map(|day| day.gross.len() as u64).sum());
    for (currency, sum) in part.purchases.values().flat_map(|day| &day.gross) {
        to.byte(byte(place.get(currency).copied().unwrap_or(usize::MAX)));
        to.signed(*sum);
    }
    to.list(part.totals.iter(), |to, (currency, sums)| {
        to.0.extend_from_slice(currency.as_str().as_bytes());
        to.signed(sums.gross);
        to.signed(sums.refunds);
    });
    to.list(part.hours.iter(), |to, (hour, count)| {
        to.byte(*hour);
        to.number(u64::from(*count));
    });
}

fn place_count(signals: &BTreeMap<Signal, Times>) -> u64 {
    signals.len() as u64
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn index<T: PartialEq>(all: &[T], value: &T) -> u8 {
    byte(all.iter().position(|one| one == value).unwrap_or(usize::MAX))
}

/// Reads numbers, texts and lists; `None` where the bytes are not what they should be.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.number()?).ok()
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        let coded = self.number()?;
        Some((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    pub(crate) fn time(&mut self) -> Option<Timestamp> {
        self.signed().map(Timestamp)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.small::<usize>()?;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }

    pub(crate) fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.number()?;
        // Every item takes a byte at least: a length beyond what is left is damage, not a reason to reserve memory.
        if length > self.0.len() as u64 {
            return None;
        }
        (0..length).map(|_| read(self)).collect()
    }

    /// A list whose keys ascend.
    pub(crate) fn map<K: Ord, V>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Option<(K, V)>,
    ) -> Option<BTreeMap<K, V>> {
        let items = self.list(&mut read)?;
        items
            .is_sorted_by(|(a, _), (b, _)| a < b)
            .then(|| items.into_iter().collect())
    }

    pub(crate) fn person(&mut self) -> Option<PersonId> {
        match self.byte()? {
            0 => PersonId::known(self.text()?).ok(),
            1 => PersonId::anonymous(self.text()?).ok(),
            _ => None,
        }
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let index = self.byte()?;
        all.get(usize::from(index)).copied()
    }

    fn channel(&mut self) -> Option<Channel> {
        Channel::try_from(self.byte()?).ok()
    }

    fn day(&mut self, before: &mut Day) -> Option<Day> {
        let skip = i32::try_from(self.signed()?).ok()?;
        *before = Day(before.0.wrapping_add(skip));
        Some(*before)
    }
}

/// A record's bytes as the present version writes them, where an earlier one wrote them.
pub(crate) fn current(bytes: &[u8]) -> Cow<'_, [u8]> {
    match bytes.first() {
        Some(&VERSION) | None => Cow::Borrowed(bytes),
        Some(_) => decode(bytes).map_or(Cow::Borrowed(bytes), |state| Cow::Owned(encode(&state))),
    }
}

/// Reads canonical bytes; `None` for another version, damage and bytes left over.
pub(crate) fn decode(bytes: &[u8]) -> Option<State> {
    let mut from = Reader(bytes);
    let version = from.byte()?;
    if ![1, 2, VERSION].contains(&version) {
        return None;
    }
    let mut state = State {
        parts: from.map(|from| Some((from.person()?, read_part(from)?)))?,
        linked_to: from.maybe(Reader::person)?,
        links: from.map(|from| Some((from.person()?, ())))?.into_keys().collect(),
        recent: read_recent(from.bytes()?, version)?,
        policies: from.map(|from| {
            let policy = PolicyId::new(from.text()?).ok()?;
            let standing = Standing {
                armed: from.flag()?,
                flag: from.maybe(|from| Some((from.time()?, FlagId(from.array()?))))?,
                cooldown: from.maybe(Reader::time)?,
                refused: from.maybe(Reader::byte)?,
                version: from.number()?,
                course: match version {
                    1 => None,
                    _ => from.maybe(|from| Some((from.byte().filter(|phase| *phase <= RECALLED)?, from.time()?)))?,
                },
            };
            Some((policy, standing))
        })?,
        contacts: from
            .map(|from| {
                let contact = (
                    from.time()?,
                    from.channel()?,
                    from.maybe(|from| from.array().map(FlagId))?,
                );
                Some((contact, ()))
            })?
            .into_keys()
            .collect::<BTreeSet<_>>(),
        consent: from.map(|from| Some((from.one_of(&PURPOSES)?, (from.time()?, from.one_of(&WORDS)?))))?,
        timer: from.maybe(Reader::time)?,
        rank: from.maybe(Reader::small)?,
        published: from.maybe(|from| {
            Some(Published {
                at: from.time()?,
                attrition: from.maybe(Reader::small)?,
                churn: from.maybe(Reader::small)?,
                model: from.number()?,
            })
        })?,
        last_received: from.time()?,
        ..State::default()
    };
    if version == VERSION {
        state.bands = from.map(|from| {
            let band = PolicyId::new(from.text()?).ok()?;
            Some((band, (from.small()?, from.byte()?)))
        })?;
        state.account = from.maybe(|from| Some((from.time()?, AccountId::new(from.text()?).ok()?)))?;
        let cited = from.list(|from| from.map(read_cited))?;
        if cited.len() != state.parts.len() {
            return None;
        }
        for (part, cited) in state.parts.values_mut().zip(cited) {
            let (_, last) = part.human.unwrap_or_default();
            let at = |before: i64| Timestamp(last.0.wrapping_sub(before));
            part.cited = cited
                .into_iter()
                .map(|(kind, (before, id))| (kind, (at(before), id)))
                .collect();
        }
        read_people(&mut from, &mut state)?;
    }
    from.0.is_empty().then_some(state)
}

/// What is known of the people behind a record.
fn read_people(from: &mut Reader<'_>, state: &mut State) -> Option<()> {
    state.acts = from.map(|from| {
        let (at, identity) = (from.time()?, from.person()?);
        let signal = Signal::from_code(from.byte()?)?;
        let act = (at, identity, signal, from.channel()?, from.small()?, from.small()?);
        Some((act, from.small()?))
    })?;
    state.counted = counted(&state.acts);
    let held = from.map(|from| {
        let (at, identity) = (from.time()?, from.person()?);
        let signal = Signal::from_code(from.byte()?)?;
        Some(((at, identity, signal, from.one_of(&DOUBTS)?), ()))
    })?;
    state.held = held.into_keys().collect();
    state.dismissed = from.maybe(Reader::time)?;
    state.given = from.map(|from| Some((from.person()?, from.person()?)))?;
    state.withdrawn = from.map(|from| Some((from.person()?, ())))?.into_keys().collect();
    state.words = from.map(|from| {
        let of = (from.person()?, from.one_of(&PURPOSES)?);
        Some((of, (from.time()?, from.one_of(&WORDS)?)))
    })?;
    Some(())
}

/// Before version 4 an entry had 32 bits of seconds and 64 bits of hash.
fn read_recent(bytes: &[u8], version: u8) -> Option<Recent> {
    let (entries, rest) = bytes.as_chunks::<16>();
    let mut recent = Recent::default();
    for entry in entries {
        let number = u128::from_be_bytes(*entry);
        let (hash, at) = match version {
            1 | 2 => ((number >> 48) as u64, (number >> 96) as u64 * 1_000),
            _ => ((number >> 32) as u64, (number >> 80) as u64),
        };
        recent.put(hash & 0xffff_ffff_ffff, number as u32, at);
    }
    let sound = rest.is_empty() && entries.is_sorted_by(|a, b| a < b) && recent.entries().len() == entries.len();
    sound.then_some(recent)
}

/// A kind of event, the milliseconds from it to the last human act, and its id.
fn read_cited(from: &mut Reader<'_>) -> Option<(u8, (i64, String))> {
    let kind = from.byte().filter(|kind| *kind < 8)?;
    let before = from.signed()?;
    let id = match from.byte()? {
        0 => usual(u128::from_be_bytes(from.array()?)),
        1 => from.text().filter(|text| uuid(text).is_none())?.to_owned(),
        _ => return None,
    };
    Some((kind, (before, id)))
}

fn read_part(from: &mut Reader<'_>) -> Option<Part> {
    let mut part = Part {
        observations: from.number()?,
        machine: from.number()?,
        human: from.maybe(|from| Some((from.time()?, from.time()?)))?,
        ..Part::default()
    };
    let (first, last) = part.human.unwrap_or_default();
    part.signals = from.map(|from| {
        let signal = Signal::from_code(from.byte()?)?;
        let times = Times {
            first: Timestamp(first.0.wrapping_add(from.signed()?)),
            last: Timestamp(last.0.wrapping_sub(from.signed()?)),
            count: from.number()?,
        };
        Some((signal, times))
    })?;
    part.channels = from.map(|from| Some((from.channel()?, Timestamp(last.0.wrapping_sub(from.signed()?)))))?;
    let mut day = Day(0);
    let days = from.map(|from| Some((from.day(&mut day)?, (from.byte()?, from.byte()?))))?;
    let signals: Vec<Signal> = part.signals.keys().copied().collect();
    let counts = from.list(|from| {
        let coded = from.number()?;
        let number = signals.len() as u64;
        let signal = signals.get(usize::try_from(coded.checked_rem(number)?).ok()?)?;
        Some((*signal, u32::try_from(coded / number).ok()?.checked_add(1)?))
    })?;
    let sessions = from.list(|from| Some((from.small::<u32>()?, from.small::<u32>()?)))?;
    let (mut counts, mut sessions) = (counts.into_iter(), sessions.into_iter());
    for (day, (of_signals, of_sessions)) in days {
        let mut active = ActiveDay::default();
        for _ in 0..of_signals {
            let (signal, count) = counts.next()?;
            let _ = active.counts.insert(signal, count);
        }
        let mut end = day.start().0.div_euclid(1000);
        for _ in 0..of_sessions {
            let (gap, length) = sessions.next()?;
            let start = end + i64::from(gap);
            end = start + i64::from(length);
            active.sessions.push((start, end));
        }
        let _ = part.days.insert(day, active);
    }
    let mut day = Day(0);
    let days = from.map(|from| Some((from.day(&mut day)?, (from.small::<u32>()?, from.byte()?))))?;
    let amounts = from.list(|from| Some((from.byte()?, from.signed()?)))?;
    part.totals = from.map(|from| {
        let code = from.array::<3>()?;
        let currency = Currency::parse(std::str::from_utf8(&code).ok()?).ok()?;
        let sums = Sums {
            gross: from.signed()?,
            refunds: from.signed()?,
        };
        Some((currency, sums))
    })?;
    let currencies: Vec<Currency> = part.totals.keys().copied().collect();
    let mut amounts = amounts.into_iter();
    for (day, (orders, of_amounts)) in days {
        let mut bought = PurchaseDay {
            orders,
            ..PurchaseDay::default()
        };
        for _ in 0..of_amounts {
            let (place, sum) = amounts.next()?;
            let _ = bought.gross.insert(*currencies.get(usize::from(place))?, sum);
        }
        let _ = part.purchases.insert(day, bought);
    }
    part.hours = from.map(|from| Some((from.byte()?, from.small()?)))?;
    (counts.next().is_none() && sessions.next().is_none() && amounts.next().is_none()).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigie_scoring::CustomerState;

    const NOW: &str = include_str!("../../scoring/tests/all/fixtures/state-v4.hex");

    fn fixture(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    #[test]
    fn the_fixture_is_read_and_written_as_it_is() {
        let bytes = fixture(NOW);
        let state = decode(&bytes).unwrap();
        assert_eq!(encode(&state), bytes);
        assert_eq!(current(&bytes), bytes);
        // What was read is what the record's own codec reads.
        let other = CustomerState::decode(&bytes).unwrap();
        assert_eq!(
            state.parts.keys().collect::<Vec<_>>(),
            other.parts.keys().collect::<Vec<_>>()
        );
        assert_eq!(state.features(), vigie_scoring::Features::of(&other));
        assert_eq!((state.timer, state.rank), (other.timer, other.rank));
        assert_eq!(state.last_received, other.last_received);
        assert_eq!(state.recent.entries().len(), other.recent.len());
        let bands = other
            .bands
            .iter()
            .map(|(band, at)| (band.clone(), (at.version, at.place)));
        assert_eq!(state.bands, bands.collect());
        assert_eq!(state.account, other.account.map(|account| (account.at, account.id)));
        for (ours, theirs) in state.parts.values().zip(other.parts.values()) {
            assert_eq!(ours.observations, theirs.observations());
            assert_eq!(ours.human, theirs.first_activity().zip(theirs.last_activity()));
            let counts = ours.days.iter().flat_map(|(day, active)| {
                let counts = active.counts.iter();
                counts.map(|(signal, count)| (*day, *signal, *count))
            });
            assert!(counts.eq(theirs.calendar().counts()));
            let amounts = ours.purchases.iter().flat_map(|(day, bought)| {
                let gross = bought.gross.iter();
                gross.map(|(currency, sum)| (*day, *currency, *sum))
            });
            assert!(amounts.eq(theirs.purchases().amounts()));
        }
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read_and_written_anew() {
        for text in [
            include_str!("../../scoring/tests/all/fixtures/state-v1.hex"),
            include_str!("../../scoring/tests/all/fixtures/state-v2.hex"),
        ] {
            let bytes = fixture(text);
            let other = CustomerState::decode(&bytes).unwrap();
            assert_eq!(current(&bytes), other.encode());
            assert_ne!(current(&bytes), bytes);
        }
    }

    #[test]
    fn no_beginning_of_a_record_is_a_record() {
        let bytes = fixture(NOW);
        assert!((0..bytes.len()).all(|length| decode(&bytes[..length]).is_none()));
        assert!(decode(&[bytes.as_slice(), &[0]].concat()).is_none());
        assert!(decode(&[&[VERSION + 1], &bytes[1..]].concat()).is_none());
        assert!(decode(&[&[1], &bytes[1..]].concat()).is_none());
    }

    #[test]
    fn an_empty_record_has_the_bytes_of_an_empty_record() {
        assert_eq!(encode(&State::default()), CustomerState::default().encode());
    }
}
