//! Browser libraries of other houses, unmodified, in headless Chromium, on a page of another origin than the collector: the
//! visitor looks at a page, turns out to be customer 42, and orders for 29.34 EUR.

use crate::browser::visit;
use crate::running::{KEY, Running, node_modules};
use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use vigie_event::{Event, PersonId, Signal, Source};

/// A file of a package.
async fn file(Path(path): Path<String>) -> Response {
    let path = node_modules().join(path);
    match std::fs::read(&path) {
        Ok(content) => ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], content).into_response(),
        Err(error) => (StatusCode::NOT_FOUND, format!("{}: {error}", path.display())).into_response(),
    }
}

/// What the pages begin with: the collector is at `ORIGIN`, and a page is done when it sets `data-said`.
fn page(library: &str, script: &str) -> String {
    format!(
        "<!doctype html><title>Shoes</title><script src=\"/lib/{library}\"></script>\
         <script type=\"module\">const ORIGIN = location.origin.replace('localhost', '127.0.0.1'), KEY = '{KEY}';\
         const ORDER = {{order_id: '1001', revenue: 29.34, currency: 'EUR'}};\
         const wait = ms => new Promise(done => setTimeout(done, ms));\
         try {{ {script} document.body.dataset.said = 'done'; }} catch (e) {{ document.body.dataset.said = String(e.stack); }}</script>"
    )
}

async fn events(library: &'static str, script: &'static str) -> Vec<Event> {
    let page = page(library, script);
    let more = Router::new()
        .route("/shoes", get(move || async move { Html(page) }))
        .route("/lib/{*path}", get(file));
    let running = Running::start(more).await;
    // Another name of the same machine is another origin.
    let said = visit(format!("http://localhost:{}/shoes", running.address.port())).await;
    let (events, letters) = (running.bench.logged().await, running.bench.letters().await);
    running.stop().await;
    assert_eq!(said, "done", "{library}");
    assert!(letters.is_empty(), "{library}: {:?}", letters[0].letter);
    events
}

fn check(events: &[Event], source: Source, identifies: bool) {
    let one = |signal: Signal| -> &Event {
        let found = events.iter().find(|event| event.signal == signal);
        found.unwrap_or_else(|| panic!("no {} among {events:#?}", signal.name()))
    };
    assert!(events.iter().all(|event| event.source == source), "{events:#?}");
    let (page, order) = (one(Signal::PageView), one(Signal::Purchase));
    let visitor = page.person.key().unwrap();
    assert!(matches!(visitor, PersonId::Anonymous(_)), "{page:#?}");
    let url = page.client.page_url.as_deref().unwrap_or_default();
    assert!(url.ends_with("/shoes"), "{page:#?}");
    let known = PersonId::known("42").unwrap();
    assert_eq!(order.person.key(), Some(&known));
    assert_eq!(order.money.map(|money| money.to_string()).as_deref(), Some("29.34 EUR"));
    if identifies {
        let identified = &one(Signal::Identify).person;
        assert_eq!(
            (identified.user.as_ref(), identified.anonymous.as_ref()),
            (Some(&known), Some(visitor))
        );
    }
    for event in events {
        let agent = event.client.user_agent.as_deref().unwrap_or_default();
        assert!(agent.contains("Chrome"), "{event:#?}");
        let off = event.occurred_at.map_or(0, |at| at.ms_since(event.received_at));
        assert!((-5_000..600_000).contains(&off), "{off} ms off in {event:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment() {
    let script = "const analytics = AnalyticsNext.AnalyticsBrowser.load({writeKey: KEY, cdnURL: ORIGIN});\
                  await analytics.page('Shoes'); await analytics.identify('42', {plan: 'gold'});\
                  await analytics.track('Order Completed', ORDER); await wait(1500);";
    check(
        &events("@segment/analytics-next/dist/umd/index.js", script).await,
        Source::Segment,
        true,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rudderstack() {
    let script = "const analytics = new rudderanalytics.RudderAnalytics();\
                  analytics.load(KEY, ORIGIN, {configUrl: ORIGIN});\
                  analytics.page('Shoes'); analytics.identify('42', {plan: 'gold'});\
                  analytics.track('Order Completed', ORDER); await wait(4000);";
    let library = "@rudderstack/analytics-js/dist/npm/modern/bundled/umd/index.js";
    check(&events(library, script).await, Source::RudderStack, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snowplow() {
    let script = "const {newTracker, trackPageView, setUserId, trackSelfDescribingEvent} = snowplowBrowserTracking;\
                  newTracker('sp', ORIGIN, {appId: KEY}); trackPageView({title: 'Shoes'}); setUserId('42');\
                  const vendor = 'iglu:com.snowplowanalytics.snowplow.ecommerce';\
                  trackSelfDescribingEvent({\
                    event: {schema: vendor + '/snowplow_ecommerce_action/jsonschema/1-0-2', data: {type: 'transaction'}},\
                    context: [{schema: vendor + '/transaction/jsonschema/1-0-0',\
                               data: {transaction_id: '1001', revenue: 29.34, currency: 'EUR', payment_method: 'card'}}]});\
                  await wait(2000);";
    check(
        &events("@snowplow/browser-tracker/dist/index.umd.min.js", script).await,
        Source::Snowplow,
        false,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posthog() {
    let script = "const {posthog} = await import('/lib/posthog-js/dist/module.full.no-external.js');\
                  posthog.init(KEY, {api_host: ORIGIN, person_profiles: 'always', autocapture: false,\
                                     capture_pageview: false, capture_pageleave: false, opt_out_useragent_filter: true});\
                  posthog.capture('$pageview'); posthog.identify('42', {plan: 'gold'});\
                  posthog.capture('Order Completed', ORDER); await wait(5000);";
    check(
        &events("posthog-js/dist/module.full.no-external.js", script).await,
        Source::PostHog,
        true,
    );
}
