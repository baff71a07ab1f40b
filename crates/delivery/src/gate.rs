//! The gate: whether a flag may leave now. Every exit asks it at the moment of sending, because a flag may have waited for days
//! and its customer may have bought, objected or been erased meanwhile.
//!
//! [`judge`] is the rule, a pure function of the flag, of what the store knows about the customer ([`Standing`]) and of the
//! time. Getting the standing is the business of whoever implements [`Gate`].

use crate::flag::{FlagView, Told};
use std::future::Future;
use std::time::Duration;
use vigie_event::{ConsentState, Timestamp};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal;)*) => {
        /// Why a flag is not sent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name used in answers and logs.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Self::$variant => $label,)* } }
        }
    };
}

reasons! {
    /// The customer shows what happens without a contact.
    HeldOut = "held_out";
    /// The customer is not known any more.
    Erased = "erased";
    /// The person refused profiling or marketing.
    Objected = "objected";
    /// The policy needs a consent that is not there.
    NoConsent = "no_consent";
    /// Bought since the flag was raised.
    Bought = "bought";
    /// The customer's record does not hold the flag as open any more: the customer came back, or the flag was recalled.
    Recalled = "recalled";
    /// Older than the destination's limit.
    Stale = "stale";
    /// Not eligible under the policy in force.
    Ineligible = "ineligible";
    /// The customer waits for the answer to a complaint.
    OpenComplaint = "open_complaint";
    /// The channel that the flag names is closed: unsubscribed, reported as spam, bounced.
    NoChannel = "no_channel";
}

/// What the gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Send,
    /// Never send it.
    Drop(Reason),
    /// Ask again then. Waiting is no attempt.
    Wait(Timestamp),
}

/// The gate cannot answer now: nothing is sent, and it is asked again soon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state of a customer cannot be read: {0}")]
pub struct GateError(pub String);

/// Whether a flag may leave now.
pub trait Gate: Send + Sync + 'static {
    /// Asked once per attempt, with the flag as it is stored.
    fn ask(
        &self,
        workspace: &vigie_event::Workspace,
        flag: &FlagView,
        now: Timestamp,
    ) -> impl Future<Output = Result<Verdict, GateError>> + Send;
}

/// What the store knows about a customer now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What the person said about profiling.
    pub profiling: Option<ConsentState>,
    /// What the person said about marketing.
    pub marketing: Option<ConsentState>,
    /// Whether the flag's policy asks for an explicit yes to marketing. `true` when the policy is not in force any more.
    pub needs_consent: bool,
    /// Time of the last purchase.
    pub last_purchase: Option<Timestamp>,
    /// Whether the customer's record still holds this flag as the policy's open one.
    pub flag_is_open: bool,
    /// What else the policy in force has against a contact.
    pub objection: Option<Reason>,
    /// Not to be contacted before this instant (a contact a short while ago, a silent source, closed hours).
    pub not_before: Option<Timestamp>,
}

/// The rule. `standing` is `None` for a customer whom the store does not know; `max_age` is the destination's limit.
///
/// Rights come first, then facts about the customer, then time: the first reason that holds is the one that is told. A notice
/// makes no contact, so that only profiling and age can stop it.
#[must_use]
pub fn judge(flag: &FlagView, standing: Option<&Standing>, max_age: Duration, now: Timestamp) -> Verdict {
    let Some(told) = flag.told() else {
        return Verdict::Drop(Reason::HeldOut);
    };
    let Some(standing) = standing else {
        return Verdict::Drop(Reason::Erased);
    };
    let refused = Some(ConsentState::Refused);
    let max_age_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
    let stale = now.ms_since(flag.raised_at) > max_age_ms;
    if told != Told::Flagged {
        return match stale {
            _ if standing.profiling == refused => Verdict::Drop(Reason::Objected),
            true => Verdict::Drop(Reason::Stale),
            false => Verdict::Send,
        };
    }
    if standing.profiling == refused || standing.marketing == refused {
        Verdict::Drop(Reason::Objected)
    } else if standing.needs_consent && standing.marketing != Some(ConsentState::Granted) {
        Verdict::Drop(Reason::NoConsent)
    } else if standing.last_purchase.is_some_and(|bought| bought > flag.raised_at) {
        Verdict::Drop(Reason::Bought)
    } else if !standing.flag_is_open {
        Verdict::Drop(Reason::Recalled)
    } else if let Some(reason) = standing.objection {
        Verdict::Drop(reason)
    } else if stale {
        Verdict::Drop(Reason::Stale)
    } else {
        match standing.not_before {
            Some(then) if then > now => Verdict::Wait(then),
            _ => Verdict::Send,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    /// One change to a customer who may be contacted, and what the gate then says.
    fn check(change: impl FnOnce(&mut Standing, &mut serde_json::Value), expected: Verdict) {
        let mut standing = Standing {
            flag_is_open: true,
            ..Standing::default()
        };
        let mut body = crate::flag::tests::flag(1, "C1");
        change(&mut standing, &mut body);
        let flag = FlagView::read(body.to_string().as_bytes()).unwrap();
        let now = Timestamp::parse("2026-11-22T10:00:00Z").unwrap();
        assert_eq!(judge(&flag, Some(&standing), DAY, now), expected);
    }

    #[test]
    fn each_reason_stops_a_contact_and_nothing_else_does() {
        let at = |text| Timestamp::parse(text).unwrap();
        check(|_, _| {}, Verdict::Send);
        for reason in [Reason::OpenComplaint, Reason::NoChannel, Reason::Ineligible] {
            check(|now, _| now.objection = Some(reason), Verdict::Drop(reason));
        }
        check(
            |_, flag| flag["kind"] = "held_out".into(),
            Verdict::Drop(Reason::HeldOut),
        );
        check(
            |_, flag| flag["kind"] = "something new".into(),
            Verdict::Drop(Reason::HeldOut),
        );
        check(
            |now, _| now.profiling = Some(ConsentState::Refused),
            Verdict::Drop(Reason::Objected),
        );
        check(
            |now, _| now.marketing = Some(ConsentState::Refused),
            Verdict::Drop(Reason::Objected),
        );
        check(|now, _| now.needs_consent = true, Verdict::Drop(Reason::NoConsent));
        let agreed = |now: &mut Standing, _: &mut _| {
            now.needs_consent = true;
            now.marketing = Some(ConsentState::Granted);
        };
        check(agreed, Verdict::Send);
        check(
            |now, _| now.last_purchase = Some(at("2026-11-22T08:59:59Z")),
            Verdict::Send,
        );
        check(
            |now, _| now.last_purchase = Some(at("2026-11-22T09:00:01Z")),
            Verdict::Drop(Reason::Bought),
        );
        check(|now, _| now.flag_is_open = false, Verdict::Drop(Reason::Recalled));
        check(
            |_, flag| flag["raised_at"] = "2026-11-21T09:00:00Z".into(),
            Verdict::Drop(Reason::Stale),
        );
        check(
            |now, _| now.not_before = Some(at("2026-11-22T10:00:00Z")),
            Verdict::Send,
        );
        check(
            |now, _| now.not_before = Some(at("2026-11-22T11:00:00Z")),
            Verdict::Wait(at("2026-11-22T11:00:00Z")),
        );
    }

    #[test]
    fn notices_pass_unless_profiling_is_refused() {
        for kind in ["recalled", "band_changed"] {
            check(|_, flag| flag["kind"] = kind.into(), Verdict::Send);
            let unsubscribed = |now: &mut Standing, flag: &mut serde_json::Value| {
                flag["kind"] = kind.into();
                (now.marketing, now.flag_is_open, now.needs_consent) = (Some(ConsentState::Refused), false, true);
            };
            check(unsubscribed, Verdict::Send);
            let refused = |now: &mut Standing, flag: &mut serde_json::Value| {
                flag["kind"] = kind.into();
                now.profiling = Some(ConsentState::Refused);
            };
            check(refused, Verdict::Drop(Reason::Objected));
            let old = |_: &mut Standing, flag: &mut serde_json::Value| {
                flag["kind"] = kind.into();
                flag["raised_at"] = "2026-11-21T09:00:00Z".into();
            };
            check(old, Verdict::Drop(Reason::Stale));
        }
    }

    #[test]
    fn nobody_is_contacted_whom_the_store_does_not_know() {
        let flag = FlagView::read(crate::flag::tests::flag(1, "C1").to_string().as_bytes()).unwrap();
        assert_eq!(judge(&flag, None, DAY, flag.raised_at), Verdict::Drop(Reason::Erased));
    }
}
