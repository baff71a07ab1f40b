//! Libraries for Python and Node. The order was placed an hour ago, at a fraction of a second, so that a lost one shows.

use std::process::Command;

use vigie_event::{Source, Timestamp};

use super::{Client, Site, installed, key, node_modules, script};
use crate::rig::two_at_a_time;
use crate::support::{finish, now};

const VISITOR: Option<&str> = Some("anonymous:a-1");
/// CloudEvents names one subject; nobody is anonymous.
const SUBJECT: Option<&str> = Some("42");

/// Runs each client to its end, then looks at what arrived.
fn check(clients: &[Client], program: impl Fn() -> Command + Sync) {
    let names: Vec<_> = clients.iter().map(|client| client.name).collect();
    let site = Site::start(&[], &names);
    let _done: Vec<()> = two_at_a_time(clients, |client| {
        let began = now();
        let ordered_at = Timestamp(began.0 - began.0 % 1_000 - 3_600_000 + 123);
        let mut program = program();
        let _program = program
            .args([client.name, &site.server.url, &key("write", client.name)])
            .arg(ordered_at.to_string())
            // A proxy of the machine is not for loopback addresses.
            .env("NO_PROXY", "*");
        let ran = finish(program);
        assert_eq!(ran.code, Some(0), "{}: {ran:?}", client.name);
        client.check(&site, began, Some(ordered_at));
    });
}

#[test]
fn python() {
    let clients = [
        Client::new("segment", Source::Segment, VISITOR, true),
        Client::new("rudderstack", Source::RudderStack, VISITOR, true),
        Client::new("posthog", Source::PostHog, VISITOR, true),
        Client::new("snowplow", Source::Snowplow, VISITOR, false),
        Client::new("cloudevents", Source::CloudEvents, SUBJECT, false),
    ];
    let python = installed("VIGIE_PYTHON", "target/python/bin/python", "python-env");
    check(&clients, || {
        let mut command = Command::new(&python);
        let _command = command.arg(script("clients.py"));
        command
    });
}

#[test]
fn node() {
    let clients = [
        Client::new("segment", Source::Segment, VISITOR, true),
        Client::new("segment_legacy", Source::Segment, VISITOR, true),
        Client::new("rudderstack", Source::RudderStack, VISITOR, true),
        Client::new("posthog", Source::PostHog, VISITOR, true),
        Client::new("snowplow", Source::Snowplow, VISITOR, false),
        Client::new("cloudevents", Source::CloudEvents, SUBJECT, false),
        Client {
            step_ms: 1_000,
            ..Client::new("matomo", Source::Matomo, Some("anonymous:00000000000000a1"), false)
        },
    ];
    let modules = node_modules();
    check(&clients, || {
        let mut command = Command::new("node");
        let _command = command.arg(script("clients.cjs")).env("NODE_PATH", &modules);
        command
    });
}
