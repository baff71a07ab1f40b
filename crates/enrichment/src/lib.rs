//! What an event means about a person: one ordered list of judgements between the log and the fold.
//!
//! It takes a canonical [`Event`] and what is already known of the person, and returns exactly one [`Verdict`]. It
//! never scores, never performs I/O, never reads a clock and never changes what is known: the same event with the
//! same history gives the same verdict, in production and in every replay.
//!
//! Each step is one file with its tests. The list itself is [`Judge::judge`] and fits on one screen.

mod agent;
mod browsers;
mod identity;
mod sessions;
mod signals;
mod time;

pub use agent::AgentError;
pub use sessions::{VISIT_GAP_MS, Visit};

use agent::Agents;
use vigie_event::{
    Agent, ConsentState, Doubt, Enriched, Event, EventId, Purpose, Seen, Signal, Suppression, Timestamp, Verdict,
};

/// What is known of a person before an event is judged. The pipeline answers from the customer's record.
pub trait History {
    /// Whether the event's id was met within the deduplication window.
    fn seen(&self, id: &EventId, fingerprint: u64) -> Seen;
    /// The person's last word on a purpose; where they said nothing, what that means, if it means anything.
    fn consent(&self, purpose: Purpose) -> Option<ConsentState>;
    /// The visit that an act at this time would belong to or directly follow.
    fn visit_near(&self, at: Timestamp) -> Option<Visit>;
    /// Whether a machine was at work in the person's mails around this time.
    fn machine_near(&self, at: Timestamp) -> bool;
}

/// The judge: immutable reference data plus a memory of recently judged user agents, which changes no verdict.
#[derive(Debug)]
pub struct Judge {
    agents: Agents,
}

impl Judge {
    /// A judge with the reference data that this release carries.
    pub fn new() -> Result<Self, AgentError> {
        Ok(Self {
            agents: Agents::compiled_in()?,
        })
    }

    /// Who acted: the judgement of the compiled-in lists alone, for whoever recomputes all the others (the audit).
    pub fn agent(&mut self, signal: Signal, user_agent: Option<&str>) -> Agent {
        self.agents.judge(signal, user_agent)
    }

    /// Judges one event. The order matters, and each line says why it stands where it does.
    pub fn judge(&mut self, event: Event, known: &impl History) -> Verdict {
        // First: a repeated event must have no effect at all, not even on consent or time.
        let conflict = match known.seen(&event.id, event.fingerprint) {
            Seen::Duplicate => return Verdict::Duplicate,
            Seen::Conflict => true,
            Seen::New => false,
        };
        // Before anything is learnt about a person who does not want to be profiled. The event's own word counts at
        // once; an older word holds until a newer one replaces it.
        let word = |purpose: Purpose| {
            let own = event.consent.get(&purpose).copied();
            own.or_else(|| known.consent(purpose))
        };
        if word(Purpose::Profiling) == Some(ConsentState::Refused) {
            return Verdict::Suppress(Suppression::Consent);
        }
        // Before the agent, whose rules depend on what happened (an image proxy is a person when a mail is opened).
        let (signal, channel) = signals::judge(&event);
        // Individual opens have a consent of their own, separate from that to mails and profiles.
        let opened = matches!(signal, Signal::EmailOpen | Signal::EmailMachineOpen);
        if opened && word(Purpose::EmailOpenTracking) == Some(ConsentState::Refused) {
            return Verdict::Suppress(Suppression::OpenTracking);
        }
        // Before the session, which needs to know when.
        let (at, time) = time::judge(&event);
        // Before the session, which only a person can have.
        let agent = self.agents.judge(signal, event.client.user_agent.as_deref());
        // A right is never lost to a suspicion, nor made use of by a scanner: what is doubtful waits for evidence.
        if let Some(doubt) = doubt(&event, signal, at, &agent, known) {
            return Verdict::Quarantine { signal, at, doubt };
        }
        let session = sessions::judge(signal, &agent, at, known);
        // Last: it concerns the next events of the person, not this one.
        let links = identity::links(signal, &event.person);
        Verdict::Apply(Box::new(Enriched {
            event,
            signal,
            channel,
            at,
            time,
            agent,
            session,
            conflict,
            links,
        }))
    }
}

/// Whether it is doubted that a person unsubscribed or complained. Only a mail provider's report is: a one-click
/// unsubscription of RFC 8058 and the button on our own page are POSTs that no scanner sends, and the merchant's own word
/// stands.
fn doubt(event: &Event, signal: Signal, at: Timestamp, agent: &Agent, known: &impl History) -> Option<Doubt> {
    let word = matches!(signal, Signal::EmailUnsubscribe | Signal::EmailComplaint);
    if !word || !event.source.is_mail_provider() {
        None
    } else if !agent.is_human() {
        Some(Doubt::Agent)
    } else {
        known.machine_near(at).then_some(Doubt::Burst)
    }
}
