//! When did it happen? The client's claim, corrected for a wrong clock, never in the future. No claim is refused here
//! for its age: that is decided where the event is received.

use vigie_event::{DAY_MS, Event, TimeVerdict, Timestamp};

/// Differences between sending and receiving up to this size are the network's, not the clock's.
const SKEW_TOLERANCE_MS: i64 = 60_000;
/// A claim further before its own sending than this was taken from data, not from the clock that stamped the sending
/// (an import, a till's nightly upload), so that clock's error does not apply to it.
const CLOCK_STAMPED_MS: i64 = DAY_MS;
/// How far ahead of our clock a claim may be without being wrong: clocks of two honest machines differ a little.
const FUTURE_TOLERANCE_MS: i64 = 0;

/// The effective time of an event and how it was found.
///
/// `received − (sent − claimed)` is the correction that the tracking protocols define. It is applied only where the
/// clock is off by more than [`SKEW_TOLERANCE_MS`], since below that it would only add the network's delay.
pub(crate) fn judge(event: &Event) -> (Timestamp, TimeVerdict) {
    let received = event.received_at;
    let Some(claimed) = event.occurred_at else {
        return (received, TimeVerdict::Received);
    };
    let (at, verdict) = match event.sent_at {
        Some(sent) => {
            let skew = received.ms_since(sent);
            let age = sent.ms_since(claimed);
            if skew.saturating_abs() > SKEW_TOLERANCE_MS && (0..=CLOCK_STAMPED_MS).contains(&age) {
                (claimed.plus_ms(skew), TimeVerdict::SkewCorrected)
            } else {
                (claimed, TimeVerdict::Client)
            }
        }
        None => (claimed, TimeVerdict::Client),
    };
    if at > received.plus_ms(FUTURE_TOLERANCE_MS) && !vigie_failpoint::mutant("clamp_off") {
        (received, TimeVerdict::Clamped)
    } else {
        (at, verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tests::event;

    const RECEIVED: i64 = 1_795_000_000_000;

    fn judged(occurred: Option<i64>, sent: Option<i64>) -> (i64, TimeVerdict) {
        let mut event = event("page.view", None);
        event.occurred_at = occurred.map(|ms| Timestamp(RECEIVED + ms));
        event.sent_at = sent.map(|ms| Timestamp(RECEIVED + ms));
        event.received_at = Timestamp(RECEIVED);
        let (at, verdict) = judge(&event);
        (at.0 - RECEIVED, verdict)
    }

    #[test]
    fn claims_are_kept_corrected_or_clamped() {
        let hour = 3_600_000;
        for (occurred, sent, expected) in [
            (None, None, (0, TimeVerdict::Received)),
            (Some(-5_000), None, (-5_000, TimeVerdict::Client)),
            (Some(-5_000), Some(-200), (-5_000, TimeVerdict::Client)),
            // A clock that is two hours ahead, an event sent three seconds after it happened.
            (
                Some(2 * hour - 3_000),
                Some(2 * hour),
                (-3_000, TimeVerdict::SkewCorrected),
            ),
            // A clock that is a day behind.
            (
                Some(-24 * hour - 3_000),
                Some(-24 * hour),
                (-3_000, TimeVerdict::SkewCorrected),
            ),
            // Back-dated data sent by a machine with a wrong clock: the data are not the clock's.
            (
                Some(-900 * 24 * hour),
                Some(2 * hour),
                (-900 * 24 * hour, TimeVerdict::Client),
            ),
            (Some(600_000), None, (0, TimeVerdict::Clamped)),
            (Some(1), Some(0), (0, TimeVerdict::Clamped)),
            (Some(7_000 * 365 * 24 * hour), None, (0, TimeVerdict::Clamped)),
        ] {
            assert_eq!(judged(occurred, sent), expected, "{occurred:?} {sent:?}");
        }
    }
}
