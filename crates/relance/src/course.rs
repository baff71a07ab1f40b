//! What events say about contacts and about the course of flags: the ledger's other writer beside the decision.
//!
//! A contact is a contact whoever made it and for whatever reason: all count against the caps (R58). A signal of the family
//! `relance` names its flag; one that names a flag which is not the customer's last of some policy changes nothing.

use vigie_event::{Channel, FlagId, Signal, Timestamp};
use vigie_scoring::state::{Contact, Ledger, Phase};

/// Notes what an event says, as enrichment judged it. `flag` is the flag that it names.
pub fn note(ledger: &mut Ledger, signal: Signal, channel: Channel, at: Timestamp, flag: Option<FlagId>) {
    if is_contact(signal) {
        ledger.note_contact(Contact { at, channel, flag });
    }
    if let (Some(flag), Some(phase)) = (flag, phase(signal)) {
        let known = ledger.policies.values_mut();
        for entry in known.filter(|entry| entry.last_flag.is_some_and(|last| last.id == flag)) {
            let _ = entry.advance(phase, at);
        }
    }
}

/// Signals that say that the customer was contacted.
const fn is_contact(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::ContactSent | Signal::CallOutbound | Signal::EmailSent | Signal::RelanceContacted
    )
}

/// The phase that a signal brings a flag to.
const fn phase(signal: Signal) -> Option<Phase> {
    match signal {
        Signal::RelanceClaimed => Some(Phase::Claimed),
        Signal::RelanceContacted | Signal::ContactSent | Signal::CallOutbound => Some(Phase::Contacted),
        Signal::RelanceLost => Some(Phase::Lost),
        Signal::RelanceReturned => Some(Phase::Returned),
        Signal::RelanceRecalled => Some(Phase::Recalled),
        _ => None,
    }
}
