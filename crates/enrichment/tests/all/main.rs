//! The whole list of judgements through its public face, with a hand-made history.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking, in the functions that it calls too"
)]

use proptest::prelude::*;
use vigie_enrichment::{History, Judge, Visit};
use vigie_event::json::{Receipt, read};
use vigie_event::{
    ConsentState, Doubt, Event, EventId, Purpose, Seen, SessionVerdict, Signal, Source, Suppression, Timestamp,
    Verdict, Workspace,
};

struct Known {
    seen: Seen,
    profiling: Option<ConsentState>,
    opens: Option<ConsentState>,
    machine: bool,
    visit: Option<Visit>,
}

const NOTHING: Known = Known {
    seen: Seen::New,
    profiling: None,
    opens: None,
    machine: false,
    visit: None,
};
const NOW: i64 = 1_795_000_000_000;

impl History for Known {
    fn seen(&self, _: &EventId, _: u64) -> Seen {
        self.seen
    }
    fn consent(&self, purpose: Purpose) -> Option<ConsentState> {
        match purpose {
            Purpose::Profiling => self.profiling,
            Purpose::EmailOpenTracking => self.opens,
            Purpose::Marketing => None,
        }
    }
    fn visit_near(&self, _: Timestamp) -> Option<Visit> {
        self.visit
    }
    fn machine_near(&self, _: Timestamp) -> bool {
        self.machine
    }
}

fn event(json: &str) -> Event {
    let receipt = Receipt {
        workspace: Workspace::new("w").unwrap(),
        received_at: Timestamp(NOW),
        sent_at: None,
        user_agent: None,
        oldest: None,
    };
    read(json, &receipt).unwrap()
}

#[test]
fn repetition_and_refusal_come_before_everything_else() {
    let mut judge = Judge::new().unwrap();
    let page = r#"{"user_id":"u","signal":"page.view"}"#;
    assert_eq!(
        judge.judge(
            event(page),
            &Known {
                seen: Seen::Duplicate,
                ..NOTHING
            }
        ),
        Verdict::Duplicate
    );
    let refused = Known {
        profiling: Some(ConsentState::Refused),
        ..NOTHING
    };
    assert_eq!(
        judge.judge(event(page), &refused),
        Verdict::Suppress(Suppression::Consent)
    );
    let granting = r#"{"user_id":"u","signal":"page.view","consent":{"profiling":"granted"}}"#;
    assert!(matches!(judge.judge(event(granting), &refused), Verdict::Apply(_)));
    let refusing = r#"{"user_id":"u","signal":"page.view","consent":{"profiling":"refused"}}"#;
    assert_eq!(
        judge.judge(event(refusing), &NOTHING),
        Verdict::Suppress(Suppression::Consent)
    );
}

/// Four states of consent to opens, before and with the event: an individual open is read in the cases of a yes alone.
#[test]
fn opens_are_read_with_their_own_consent() {
    let mut judge = Judge::new().unwrap();
    let (yes, no) = (Some(ConsentState::Granted), Some(ConsentState::Refused));
    for signal in ["email.open", "email.open.machine", "email.click", "page.view"] {
        let opened = signal.starts_with("email.open");
        for (before, own, read) in [
            (no, None, false),
            (yes, None, true),
            (no, Some("granted"), true),
            (yes, Some("refused"), false),
            (None, Some("refused"), false),
        ] {
            let consent = own.map_or_else(String::new, |own| {
                format!(r#","consent":{{"email_open_tracking":"{own}","marketing":"granted"}}"#)
            });
            let known = Known {
                opens: before,
                ..NOTHING
            };
            let verdict = judge.judge(
                event(&format!(r#"{{"user_id":"u","signal":"{signal}"{consent}}}"#)),
                &known,
            );
            let suppressed = verdict == Verdict::Suppress(Suppression::OpenTracking);
            assert_eq!(suppressed, opened && !read, "{signal} {before:?} {own:?}");
        }
    }
}

#[test]
fn a_doubtful_unsubscription_waits_and_a_persons_own_never_does() {
    let mut judge = Judge::new().unwrap();
    let beside = Known {
        machine: true,
        ..NOTHING
    };
    let scanner = r#"{"user_id":"u","signal":"email.unsubscribe","context":{"user_agent":"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}}"#;
    let plain = r#"{"user_id":"u","signal":"email.complaint"}"#;
    for source in Source::ALL {
        for (text, known, doubt) in [
            (scanner, &NOTHING, Some(Doubt::Agent)),
            (scanner, &beside, Some(Doubt::Agent)),
            (plain, &beside, Some(Doubt::Burst)),
            (plain, &NOTHING, None),
        ] {
            let reported = Event {
                source: *source,
                ..event(text)
            };
            let found = match judge.judge(reported, known) {
                Verdict::Quarantine { doubt, .. } => Some(doubt),
                Verdict::Apply(_) => None,
                other => panic!("{other:?}"),
            };
            let providers = Source::SendGrid..=Source::Mandrill;
            assert_eq!(found, doubt.filter(|_| providers.contains(source)), "{source:?}");
        }
    }
}

#[test]
fn used_ids_with_other_content_are_kept_and_marked() {
    let mut judge = Judge::new().unwrap();
    let known = Known {
        seen: Seen::Conflict,
        ..NOTHING
    };
    let Verdict::Apply(enriched) = judge.judge(event(r#"{"user_id":"u","signal":"purchase"}"#), &known) else {
        panic!("not applied")
    };
    assert!(enriched.conflict);
}

#[test]
fn a_visit_goes_on_for_thirty_minutes() {
    let mut judge = Judge::new().unwrap();
    let minute = 60_000;
    for (minutes_ago, starts) in [(29, false), (30, false), (31, true)] {
        let end = Timestamp(NOW - minutes_ago * minute);
        let known = Known {
            visit: Some(Visit {
                start: Timestamp(end.0 - 5 * minute),
                end,
            }),
            ..NOTHING
        };
        let Verdict::Apply(enriched) = judge.judge(event(r#"{"user_id":"u","signal":"page.view"}"#), &known) else {
            panic!("not applied")
        };
        assert_eq!(enriched.session == SessionVerdict::Starts, starts, "{minutes_ago} min");
    }
    let Verdict::Apply(mail) = judge.judge(event(r#"{"user_id":"u","signal":"email.sent"}"#), &NOTHING) else {
        panic!("not applied")
    };
    assert_eq!(mail.session, SessionVerdict::None);
}

#[test]
fn names_of_tracking_plans_become_signals() {
    let mut judge = Judge::new().unwrap();
    let Verdict::Apply(order) = judge.judge(event(r#"{"user_id":"u","name":"Order Completed"}"#), &NOTHING) else {
        panic!("not applied")
    };
    assert_eq!(order.signal, Signal::Purchase);
    assert_eq!(order.channel, Signal::Purchase.default_channel());
    let Verdict::Apply(dance) = judge.judge(event(r#"{"user_id":"u","name":"Danced"}"#), &NOTHING) else {
        panic!("not applied")
    };
    assert_eq!(dance.signal, Signal::Custom);
}

proptest! {
    #[test]
    fn the_memory_of_user_agents_changes_no_verdict(agents in proptest::collection::vec("[ -~]{0,60}", 1..40)) {
        let mut old = Judge::new().unwrap();
        for agent in agents {
            let json = serde_json::json!({"user_id": "u", "signal": "page.view", "context": {"user_agent": agent}}).to_string();
            let mut fresh = old.judge(event(&json), &NOTHING);
            prop_assert_eq!(&old.judge(event(&json), &NOTHING), &fresh);
            if let Verdict::Apply(enriched) = &mut fresh {
                prop_assert!(enriched.agent.human_permille <= 1000);
            }
        }
    }
}
