//! What became of each log record: one [`Judgement`] per position, made by the worker and kept by the archive beside the
//! record. It explains a past step and is never an input of a fold: whoever recomputes judges anew.
//!
//! Bytes of a run of judgements: one version byte, then the list in postcard. They live between a worker's commit and
//! the archive's next file; an unknown version is an error.

use crate::{Channel, CodecError, RejectCode, SessionVerdict, Signal, Suppression, TimeVerdict, Timestamp};
use serde::{Deserialize, Serialize};

/// The version that [`Judgement::encode`] writes.
const VERSION: u8 = 1;

/// What became of one record of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judgement {
    /// An event took effect.
    Applied(Findings),
    /// An event repeated another one.
    Duplicate,
    /// An event deliberately took no effect.
    Suppressed(Suppression),
    /// An event was set aside.
    DeadLetter(RejectCode),
    /// An event or a merge went on to the partition of the identity that it belongs to now.
    Forwarded,
    /// A derived record that a crash made its writer append twice: ignored.
    Repeated,
    /// A tick, a link, a merge or an activation was taken note of.
    Noted,
    /// Not known: the record was folded while no judgements were kept. A replay can tell.
    Unrecorded,
}

/// What enrichment found out about an applied event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// When it happened, by our judgement.
    pub at: Timestamp,
    /// How that was found.
    pub time: TimeVerdict,
    /// What happened, by our judgement.
    pub signal: Signal,
    /// Where, by our judgement.
    pub channel: Channel,
    /// Likelihood that a person acted, in thousandths.
    pub human_permille: u16,
    /// The visit that it belongs to.
    pub session: SessionVerdict,
    /// The id had been used for other content.
    pub conflict: bool,
}

impl Judgement {
    /// The stable name of the decision.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Duplicate => "duplicate",
            Self::Suppressed(_) => "suppressed",
            Self::DeadLetter(_) => "dead_letter",
            Self::Forwarded => "forwarded",
            Self::Repeated => "repeated",
            Self::Noted => "noted",
            Self::Unrecorded => "unrecorded",
        }
    }

    /// The stable name of the reason, where there is one.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Suppressed(reason) => Some(reason.label()),
            Self::DeadLetter(code) => Some(code.label()),
            Self::Applied(findings) if findings.conflict => Some("id_conflict"),
            _ => None,
        }
    }

    /// The bytes of a run of judgements.
    #[must_use]
    pub fn encode(run: &[Self]) -> Vec<u8> {
        // Writing to a growing Vec fails only for types whose length is unknown beforehand, of which there are none.
        postcard::to_extend(run, vec![VERSION]).unwrap_or_default()
    }

    /// Reads what [`Judgement::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Self>, CodecError> {
        let (version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
        match *version {
            VERSION => match postcard::take_from_bytes(body) {
                Ok((run, [])) => Ok(run),
                _ => Err(CodecError::Body),
            },
            other => Err(CodecError::Version(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reads_back_and_damage_does_not() {
        let run = [
            Judgement::Applied(Findings {
                at: Timestamp(1_795_000_000_000),
                time: TimeVerdict::SkewCorrected,
                signal: Signal::Purchase,
                channel: Channel::Web,
                human_permille: 1000,
                session: SessionVerdict::Continues { since: Timestamp(7) },
                conflict: true,
            }),
            Judgement::Duplicate,
            Judgement::Suppressed(Suppression::Consent),
            Judgement::DeadLetter(RejectCode::TooManyIdentities),
            Judgement::Forwarded,
            Judgement::Repeated,
            Judgement::Noted,
            Judgement::Unrecorded,
        ];
        let bytes = Judgement::encode(&run);
        assert_eq!(Judgement::decode(&bytes), Ok(run.to_vec()));
        assert_eq!(Judgement::decode(&bytes[..bytes.len() - 1]), Err(CodecError::Body));
        assert_eq!(Judgement::decode(&[9]), Err(CodecError::Version(9)));
        assert_eq!(Judgement::decode(&[]), Err(CodecError::Empty));
    }
}
