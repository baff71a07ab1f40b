//! Opens and clicks of e-mails that may still turn out to be a machine's.
//!
//! Whether a person opened or clicked shows only beside what else happened to their mails: a scanner follows all links within
//! seconds, or right after delivery; a person who clicks has opened. So an act on a mail is kept as it came, with the
//! likelihood that its software alone gives, until an act of the day after the next is known (UTC); so long it counts
//! *provisionally*, as the acts known by now judge it, and every further one may lower or raise it. Then it is settled: it
//! moves, as it was judged last, into the part of its identity, where nothing is ever taken away. What stays open beside it
//! keeps the judgement that it helped to make.
//!
//! The acts are a set, and what they count is a function of the set: neither order nor repetition of arrival matters, up
//! to acts that come a day and more after those that they would have judged, which are settled by then.
//!
//! The rules, in thousandths of likelihood:
//! 1. three different links within ten seconds: each of these clicks at most 100;
//! 2. a click within ten seconds of one that its sender says was a machine's: at most 100;
//! 3. an open or a click within two seconds after a delivery: at most 100;
//! 4. an open that a person's click follows within the hour: at least the click's.
//!
//! It never judges software (enrichment does), and never weighs an act.

use super::{Observation, Part};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use vigie_event::{Agent, Channel, PersonId, Signal, Timestamp};

/// Acts kept open per record; of more, the oldest are settled.
pub const MAX_ACTS: usize = 64;
/// Days that are open: the newest and the one before.
const OPEN_DAYS: i32 = 2;
/// No rule reaches further. Also rule 4.
const REACH_MS: i64 = 3_600_000;
/// Rules 1 and 2.
const BURST_MS: i64 = 10_000;
const BURST_LINKS: usize = 3;
/// Rule 3.
const DELIVERY_MS: i64 = 2_000;
/// Rules 1 to 3: what remains of the likelihood.
const DOUBTFUL: u16 = 100;

/// An act on a mail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MailAct {
    /// Effective time.
    pub at: Timestamp,
    /// Who.
    pub identity: PersonId,
    /// An open, a click, or what bears witness: a delivery, a machine's click.
    pub signal: Signal,
    /// Where.
    pub channel: Channel,
    /// Which link, by a hash of its address; 0 where none is known.
    pub link: u32,
    /// Likelihood by the software alone, in thousandths.
    pub permille: u16,
}

/// An act and what is made of it by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged<'a> {
    /// The act.
    pub act: &'a MailAct,
    /// How often it was met, as different events.
    pub times: u16,
    /// Likelihood that a person acted, in thousandths.
    pub permille: u16,
    /// What that rests on besides the software; stable texts.
    pub indicators: [Option<&'static str>; 2],
}

/// The acts that are open, and what they count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailActs {
    acts: BTreeMap<MailAct, u16>,
    /// What `acts` count together; a function of them.
    counted: Part,
}

impl MailAct {
    /// Whether acts of this kind are kept open.
    #[must_use]
    pub const fn concerns(signal: Signal) -> bool {
        matches!(
            signal,
            Signal::EmailOpen | Signal::EmailClick | Signal::EmailDelivered | Signal::EmailMachineClick
        )
    }

    /// Whether an act counts by itself, rather than bearing witness for others (and counting elsewhere).
    const fn counts(&self) -> bool {
        matches!(self.signal, Signal::EmailOpen | Signal::EmailClick)
    }

    fn near(&self, other: &Self, ms: i64) -> bool {
        self.at.ms_since(other.at).saturating_abs() <= ms
    }

    fn follows(&self, other: &Self, ms: i64) -> bool {
        (0..=ms).contains(&self.at.ms_since(other.at))
    }
}

impl MailActs {
    pub(super) fn restore(acts: BTreeMap<MailAct, u16>) -> Self {
        let mut all = Self {
            acts,
            counted: Part::default(),
        };
        all.count();
        all
    }

    /// The acts with how often each was met, in their order.
    pub fn acts(&self) -> impl ExactSizeIterator<Item = (&MailAct, u16)> {
        self.acts.iter().map(|(act, times)| (act, *times))
    }

    /// What the acts count by now; `None` when there is none that counts.
    #[must_use]
    pub fn counted(&self) -> Option<&Part> {
        Some(&self.counted).filter(|part| part.observations() > 0)
    }

    /// Every open act that counts, as it is judged now.
    #[must_use]
    pub fn judged(&self) -> Vec<Judged<'_>> {
        let doubtful: BTreeSet<&MailAct> = self.acts.keys().filter(|act| self.doubt(act).is_some()).collect();
        let own = |act: &MailAct| match doubtful.contains(act) {
            true => act.permille.min(DOUBTFUL),
            false => act.permille,
        };
        let click_after = |open: &MailAct| {
            let clicks = self.acts.keys().filter(|act| act.signal == Signal::EmailClick);
            let near = clicks.filter(|click| click.follows(open, REACH_MS)).map(own);
            near.filter(|permille| *permille >= Agent::HUMAN_FROM).max()
        };
        let counting = self.acts.iter().filter(|(act, _)| act.counts());
        counting
            .map(|(act, times)| {
                let click = click_after(act).filter(|_| act.signal == Signal::EmailOpen);
                let raised = click.filter(|click| *click > own(act));
                Judged {
                    act,
                    times: *times,
                    permille: raised.unwrap_or(own(act)),
                    indicators: [self.doubt(act), raised.map(|_| "click_followed")],
                }
            })
            .collect()
    }

    /// Whether a machine was at work in the mails around an instant.
    #[must_use]
    pub fn is_machine_near(&self, at: Timestamp) -> bool {
        let near = |act: &&MailAct| act.at.ms_since(at).saturating_abs() <= BURST_MS;
        self.acts.keys().filter(near).any(|act| match act.signal {
            Signal::EmailMachineClick => true,
            Signal::EmailClick => self.doubt(act).is_some(),
            _ => false,
        })
    }

    /// Rules 1 to 3.
    fn doubt(&self, act: &MailAct) -> Option<&'static str> {
        if !act.counts() {
            return None;
        }
        if act.signal == Signal::EmailClick {
            let clicks = || self.acts.keys().filter(|other| other.signal == Signal::EmailClick);
            let burst_from = |first: &&MailAct| {
                let within = clicks().filter(|click| click.follows(first, BURST_MS));
                within.map(|click| click.link).collect::<BTreeSet<u32>>().len() >= BURST_LINKS
            };
            if clicks()
                .filter(|first| act.follows(first, BURST_MS))
                .any(|first| burst_from(&first))
            {
                return Some("links_at_once");
            }
            let machine = |other: &MailAct| other.signal == Signal::EmailMachineClick && other.near(act, BURST_MS);
            if self.acts.keys().any(machine) {
                return Some("beside_a_machine");
            }
        }
        let delivered = |other: &MailAct| other.signal == Signal::EmailDelivered && act.follows(other, DELIVERY_MS);
        self.acts.keys().any(delivered).then_some("at_delivery")
    }

    /// Takes in an act; [`Self::settle`] follows.
    pub(super) fn take(&mut self, act: MailAct) {
        let times = self.acts.entry(act).or_default();
        *times = times.saturating_add(1);
    }

    /// Hands over what is settled by now: (identity, observation, times).
    pub(super) fn settle(&mut self) -> Vec<(PersonId, Observation, u16)> {
        let leaving = self.leaving();
        let settled = match leaving
            .checked_sub(1)
            .and_then(|last| self.acts.keys().nth(last))
            .cloned()
        {
            None => Vec::new(),
            Some(last) => {
                let judged = self.judged();
                let gone = judged.iter().filter(|judged| *judged.act <= last);
                let settled = gone.map(Judged::observed).collect();
                let beside = judged
                    .iter()
                    .filter(|judged| *judged.act > last && judged.act.follows(&last, REACH_MS));
                let kept: Vec<(MailAct, u16)> = beside.map(|judged| (judged.act.clone(), judged.permille)).collect();
                self.acts.retain(|act, _| *act > last);
                for (act, permille) in kept {
                    if let Some(times) = self.acts.remove(&act) {
                        let known = self.acts.entry(MailAct { permille, ..act }).or_default();
                        *known = known.saturating_add(times);
                    }
                }
                settled
            }
        };
        self.count();
        settled
    }

    /// How many acts leave, the oldest first.
    fn leaving(&self) -> usize {
        let Some(newest) = self.acts.keys().next_back().map(|act| act.at.day().0) else {
            return 0;
        };
        let settled = |act: &&MailAct| act.at.day().0 <= newest.saturating_sub(OPEN_DAYS);
        let old = self.acts.keys().take_while(settled).count();
        old.max(self.acts.len().saturating_sub(MAX_ACTS))
    }

    pub(super) fn unite(&mut self, other: &Self) {
        for (act, theirs) in &other.acts {
            let ours = self.acts.entry(act.clone()).or_default();
            *ours = (*ours).max(*theirs);
        }
        self.count();
    }

    /// Takes out the acts of some identities.
    pub(super) fn release(&mut self, group: &BTreeSet<PersonId>) -> Self {
        let gone = self
            .acts
            .extract_if(.., |act, _| group.contains(&act.identity))
            .collect();
        self.count();
        Self::restore(gone)
    }

    fn count(&mut self) {
        let mut counted = Part::default();
        for judged in self.judged() {
            let (_, observation, times) = judged.observed();
            (0..times).for_each(|_| counted.apply(&observation));
        }
        self.counted = counted;
    }
}

impl Judged<'_> {
    fn observed(&self) -> (PersonId, Observation, u16) {
        let MailAct {
            at,
            ref identity,
            signal,
            channel,
            ..
        } = *self.act;
        let observation = Observation {
            at,
            signal,
            channel,
            money: None,
            human: self.permille >= Agent::HUMAN_FROM,
        };
        (identity.clone(), observation, self.times)
    }
}
