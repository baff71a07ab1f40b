//! Verdicts: closed lists whose text is also the metric label. A verdict about a person or a machine carries the
//! evidence for it. This file only names verdicts; ingestion and enrichment reach them.

use crate::{Channel, Event, PersonId, Signal, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal, $hint:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text used in answers, books and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Self::$variant => $label,)* } }

            /// What it means and what to do about it, in one sentence.
            #[must_use]
            pub const fn hint(self) -> &'static str { match self { $(Self::$variant => $hint,)* } }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.label()) }
        }
    };
}

labelled! {
    /// Why a single event could not be taken as it came. Such an event is kept as a dead letter.
    RejectCode {
        /// Not an object, or a required field has another type.
        Shape = "shape", "the event must be a JSON object with fields of the documented types";
        /// The JSON text is malformed.
        Json = "json", "the body is not one valid JSON document";
        /// Nested too deeply.
        JsonDepth = "json_depth", "the JSON is nested more deeply than the limit";
        /// Too many keys in one object.
        JsonKeys = "json_keys", "an object has more keys than the limit";
        /// The same key twice in one object.
        DuplicateKey = "dup_key", "an object names the same key twice, so its meaning is not certain";
        /// A lone surrogate escape.
        Surrogate = "surrogate", "a string holds half of a surrogate pair";
        /// A string or key that is too long.
        TooLong = "too_long", "a string or key is longer than the limit; it is never cut silently";
        /// The event as a whole is too large.
        EventTooLarge = "event_too_large", "the event is larger than the limit";
        /// No `user_id` and no `anonymous_id`.
        NoIdentity = "no_identity", "the event names nobody: give user_id or anonymous_id";
        /// An identifier that is too long.
        IdLength = "id_len", "an identifier is empty or longer than 200 bytes";
        /// An identifier with control characters.
        IdCharset = "id_charset", "an identifier contains control characters";
        /// A time that is not a date-time.
        TimeType = "ts_type", "a time must be ISO 8601 text or a number of milliseconds";
        /// A numeric time in an unknown unit.
        TimeUnit = "ts_unit", "a numeric time must be in milliseconds (or unmistakably seconds) since 1970";
        /// Too old for the live API.
        TimeTooOld = "ts_too_old", "the event is older than the limit; send history with a key that has the history scope";
        /// Money that cannot be read.
        Value = "value", "money needs a decimal amount and an ISO 4217 currency";
        /// No or unknown signal, and no name.
        NoSignal = "no_signal", "the event says neither which signal it is nor what it is called";
        /// A channel outside the closed list.
        Channel = "channel", "the channel is not one of the documented ones";
        /// Consent that cannot be read.
        Consent = "consent", "consent must map a documented purpose to granted or refused";
        /// The protocol's `type` is unknown.
        UnknownType = "unknown_type", "the protocol does not define this type of message";
        /// The event made the fold fail three times.
        Poison = "poison", "processing the event failed repeatedly; it was set aside so that others go on";
        /// The customer already holds as many linked identities as allowed.
        TooManyIdentities = "merge_cap", "the customer has too many linked identities; check for an id that many people share";
        /// The record's bytes could not be decoded.
        Undecodable = "undecodable", "the record in the log cannot be decoded";
        /// Bytes that are not text.
        Utf8 = "utf8", "the body is not valid UTF-8";
        /// A granted consent without its proof, where proof is required.
        ConsentProof = "consent_proof", "a granted consent needs its proof: a timestamp, and the properties wording, wording_sha256 and source";
    }
}

labelled! {
    /// Why an accepted event deliberately has no effect on the profile.
    Suppression {
        /// The person refused profiling.
        Consent = "suppressed_consent", "the person refused profiling, or the workspace takes silence for a refusal";
        /// An individual open of somebody who did not agree to individual opens.
        OpenTracking = "suppressed_open", "the person did not agree to individual open tracking, so the open is not used";
        /// An unsubscription or complaint that a machine may have made.
        Quarantine = "quarantined", "a machine may have done this; marketing waits until somebody confirms or dismisses it";
    }
}

labelled! {
    /// Why it is doubted that a person unsubscribed or complained. Kept beside what is in quarantine.
    Doubt {
        /// The software says that it is a machine.
        Agent = "machine_agent", "the user agent is one of crawlers and scanners";
        /// A machine was at work in the person's mails at the same moment.
        Burst = "machine_burst", "links of the person's mails were followed by a machine within the same seconds";
    }
}

labelled! {
    /// How the effective time of an event was found.
    TimeVerdict {
        /// The client's time, as claimed.
        Client = "client", "the client's own time was taken as it is";
        /// The client's clock is off; its time was moved by the difference between sending and receiving.
        SkewCorrected = "skew_corrected", "the client's clock is off, its time was corrected by the sending delay";
        /// The claim lies in the future; receipt time was taken.
        Clamped = "ts_clamped", "the claimed time lies in the future, the time of receipt was taken";
        /// No claim; receipt time was taken.
        Received = "received", "the client claimed no time, the time of receipt was taken";
    }
}

/// Whether a person or a machine acted, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Likelihood that a person acted, in thousandths (0 = certainly a machine, 1000 = nothing speaks against a person).
    pub human_permille: u16,
    /// What the likelihood rests on; stable texts.
    pub indicators: Vec<&'static str>,
    /// The browser or client family, when recognised ("Firefox").
    pub family: Option<String>,
}

impl Agent {
    /// Below this likelihood an event does not count as a sign of life.
    pub const HUMAN_FROM: u16 = 500;

    /// `true` when the event may count as the person's own act.
    #[must_use]
    pub fn is_human(&self) -> bool {
        self.human_permille >= Self::HUMAN_FROM
    }
}

/// How an event relates to the person's visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionVerdict {
    /// The first event of a visit.
    Starts,
    /// Within a visit that began at this time.
    Continues {
        /// Start of the visit.
        since: Timestamp,
    },
    /// Not part of any visit (not the person's own act).
    None,
}

/// An event with everything that was found out about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enriched {
    /// The event as it came.
    pub event: Event,
    /// What happened, by our judgement: the reported signal, or the one that the source's name for it stands for.
    pub signal: Signal,
    /// Where, by our judgement.
    pub channel: Channel,
    /// When it happened, by our judgement. All of scoring uses this time.
    pub at: Timestamp,
    /// How `at` was found.
    pub time: TimeVerdict,
    /// Who acted.
    pub agent: Agent,
    /// The visit it belongs to.
    pub session: SessionVerdict,
    /// The id was already used by an event with other content: both are kept.
    pub conflict: bool,
    /// Identities that the event declares to be the same person: (gives up its record, takes it in).
    pub links: Vec<(PersonId, PersonId)>,
}

/// What becomes of an event that the log holds. Exactly one of these is counted for each (BOOKS-1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes effect.
    Apply(Box<Enriched>),
    /// It was met before and has no further effect.
    Duplicate,
    /// It deliberately takes no effect.
    Suppress(Suppression),
    /// An unsubscription or complaint that a machine may have made: it goes into quarantine.
    Quarantine {
        /// Which of the two.
        signal: Signal,
        /// When it happened, by our judgement.
        at: Timestamp,
        /// What the doubt rests on.
        doubt: Doubt,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn labels_are_unique() {
        let labels: BTreeSet<_> = RejectCode::ALL.iter().map(|code| code.label()).collect();
        assert_eq!(labels.len(), RejectCode::ALL.len());
    }
}
