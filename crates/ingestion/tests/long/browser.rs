//! The tracker and the links of mails in headless Chromium: what a page sends before and after consent, what it keeps, and what
//! a pixel and a click become.

use crate::bench::shop;
use crate::running::{KEY, Running, run};
use axum::Router;
use axum::extract::Query;
use axum::response::Html;
use axum::routing::get;
use std::collections::BTreeMap;
use vigie_event::{ConsentState, Event, PersonId, Purpose, Signal};
use vigie_ingestion::links::Target;

/// A page with the tracker, a script that runs before it and one that runs after it. What the page says ends up in its
/// title.
fn page(before: &str, attributes: &str, after: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><title>Shoes</title><script>{before}</script>\
         <a id=a data-vigie=\"Offer\" href=\"#x\">Look</a><form id=f name=\"contact\" onsubmit=\"return false\"><button>Go</button></form>\
         <script src=\"/t.js\" data-key=\"{KEY}\" {attributes}></script>\
         <script>const wait = ms => new Promise(done => setTimeout(done, ms)); const kept = () => Object.keys(localStorage).length;\
         (async () => {{ {after} }})().then(said => document.body.dataset.said = said);</script>"
    ))
}

/// Opens a page in a browser of its own; answers what the page said, in `data-said` of its body.
pub(crate) async fn visit(url: String) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut program: Vec<String> = [
        "chromium",
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--virtual-time-budget=8000",
        "--dump-dom",
    ]
    .map(str::to_owned)
    .into();
    program.push(format!("--user-data-dir={}", home.path().display()));
    program.push(url);
    let output = run(180, program, Vec::new()).await;
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    dom.split("data-said=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or(&dom)
        .to_owned()
}

/// Opens a page with the tracker; answers what it said and what arrived.
async fn browse(before: &'static str, attributes: &'static str, after: &'static str) -> (String, Vec<Event>) {
    let more = Router::new().route("/page", get(move || async move { page(before, attributes, after) }));
    let running = Running::start(more).await;
    let said = visit(format!("http://{}/page", running.address)).await;
    let events = running.bench.logged().await;
    let letters = running.bench.letters().await;
    assert!(letters.is_empty(), "{letters:?}");
    running.stop().await;
    (said, events)
}

fn names(events: &[Event]) -> Vec<(Signal, &str)> {
    let mut names: Vec<_> = events
        .iter()
        .map(|event| (event.signal, event.name.as_deref().unwrap_or("")))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_stored_or_sent_before_consent_and_everything_after() {
    let (said, events) = browse(
        "",
        "data-consent=\"required\"",
        "await wait(100); const before = kept(); vigie.consent({profiling: true, marketing: false});\
         vigie.identify('42'); vigie.track('Size chosen', {size: 42});\
         document.getElementById('a').click(); document.getElementById('f').requestSubmit();\
         history.pushState({}, '', '/page?second'); setTimeout(() => { throw new Error('broken') });\
         await wait(300); vigie.flush(); await wait(2500); return before + ' then ' + (kept() > 0);",
    )
    .await;
    assert_eq!(said, "0 then true");
    let names = names(&events);
    for expected in [
        (Signal::PageView, "Shoes"),
        (Signal::LinkClick, "Offer"),
        (Signal::FormSubmit, "contact"),
        (Signal::PageError, "error"),
        (Signal::Identify, "identity.identify"),
        (Signal::Custom, "Size chosen"),
        (Signal::Custom, "consent"),
    ] {
        assert!(names.contains(&expected), "{expected:?} in {names:?}");
    }
    assert_eq!(
        names.iter().filter(|(signal, _)| *signal == Signal::PageView).count(),
        2,
        "and the second page: {names:?}"
    );
    let visitor = events[0].person.anonymous.clone();
    assert!(visitor.is_some() && events.iter().all(|event| event.person.anonymous == visitor));
    assert!(
        events
            .iter()
            .all(|event| event.consent.get(&Purpose::Profiling) == Some(&ConsentState::Granted))
    );
    assert!(events.iter().all(|event| {
        event
            .client
            .user_agent
            .as_deref()
            .is_some_and(|agent| agent.contains("Chrome"))
    }));
    let ids: std::collections::BTreeSet<_> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), events.len(), "every event has an id of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_word_nothing_ever_happens() {
    let (said, events) = browse(
        "",
        "data-consent=\"required\"",
        "vigie.track('x'); vigie.flush(); await wait(3000); return '' + kept();",
    )
    .await;
    assert_eq!((said.as_str(), events.len()), ("0", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn global_privacy_control_is_a_refusal() {
    let before = "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true});";
    let (said, events) = browse(
        before,
        "data-consent=\"implied\"",
        "vigie.track('x'); vigie.flush(); await wait(3000); return '' + kept();",
    )
    .await;
    assert_eq!((said.as_str(), events.len()), ("0", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_left_sends_what_it_has() {
    let after = "vigie.track('last'); dispatchEvent(new Event('pagehide')); await wait(1500); return 'left';";
    let (said, events) = browse("", "data-consent=\"implied\" data-auto=\"off\"", after).await;
    assert_eq!(said, "left");
    assert_eq!(names(&events), [(Signal::Custom, "last")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_after_consent_is_told_once_and_everything_is_forgotten() {
    let after = "vigie.track('seen'); vigie.flush(); await wait(500); vigie.consent({profiling: false}); vigie.track('unseen');\
                 vigie.flush(); await wait(1500); return Object.keys(localStorage).join();";
    let (said, events) = browse("", "data-consent=\"implied\" data-auto=\"off\"", after).await;
    assert_eq!(said, "vigie.said", "only the refusal itself is remembered");
    assert_eq!(names(&events), [(Signal::Custom, "consent"), (Signal::Custom, "seen")]);
    let refusal = events
        .iter()
        .find(|event| event.name.as_deref() == Some("consent"))
        .unwrap();
    assert_eq!(refusal.consent.get(&Purpose::Profiling), Some(&ConsentState::Refused));
}

/// A mail as a web mailer shows it: the pixel is drawn, the link is followed. The unsubscription is asked for in the page, and
/// happens when the form's words are sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_is_opened_clicked_and_unsubscribed_from() {
    let mail = |Query(links): Query<BTreeMap<String, String>>| async move {
        let (open, click, unsubscribe) = (&links["open"], &links["click"], &links["unsubscribe"]);
        Html(format!(
            "<!doctype html><title>Mail</title><img id=i src=\"{open}\"><a id=a href=\"{click}\">Offer</a><script type=module>\
             const image = document.getElementById('i'); await image.decode();\
             const page = await (await fetch('{unsubscribe}')).text();\
             const asked = page.includes('One-Click') && page.includes('<form method=\"post\">');\
             const words = new URLSearchParams({{'List-Unsubscribe': 'One-Click'}});\
             const heard = await fetch('{unsubscribe}', {{method: 'POST', body: words}});\
             sessionStorage.said = `${{image.naturalWidth}} ${{asked}} ${{heard.status}}`;\
             document.getElementById('a').click();</script>"
        ))
    };
    let offer = || async {
        Html(
            "<!doctype html><title>Offer</title><script type=module>document.body.dataset.said = 'offer ' + sessionStorage.said;</script>",
        )
    };
    let running = Running::start(Router::new().route("/mail", get(mail)).route("/offer", get(offer))).await;
    let home = format!("http://{}", running.address);
    let person = PersonId::known("42").unwrap();
    let link = |target| {
        running
            .links
            .mint(&shop(), &person, "m-1", "autumn", target, running.now)
            .unwrap()
    };
    let links = [
        ("open", link(Target::Open)),
        ("click", link(Target::Click(format!("{home}/offer?from=mail#there")))),
        ("unsubscribe", link(Target::Unsubscribe)),
    ];
    let query: String = links.iter().map(|(name, link)| format!("&{name}={link}")).collect();
    let said = visit(format!("{home}/mail?{}", &query[1..])).await;
    let events = running.bench.logged().await;
    running.stop().await;
    assert_eq!(
        said, "offer 1 true 200",
        "the pixel was drawn, the page asked, the words were heard, and the link led on"
    );
    let signals: Vec<Signal> = names(&events).into_iter().map(|(signal, _)| signal).collect();
    let expected = [Signal::EmailOpen, Signal::EmailClick, Signal::EmailUnsubscribe];
    assert_eq!(signals.len(), 3, "{events:#?}");
    assert!(expected.iter().all(|signal| signals.contains(signal)), "{events:#?}");
    assert!(
        events.iter().all(|event| event.person.user.as_ref() == Some(&person)),
        "{events:#?}"
    );
}
